"""What is set beside a function's code, through an unmodified boto3: policies of layers and aliases, code signing, runtime updates, event sources, lists."""
import json

import pytest

from test_lambda import ROLE, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_layers import layer
from test_lambda_model import blind  # noqa: F401 (a fixture)

PROFILE = 'arn:aws:signer:us-east-1:000000000000:/signing-profiles/mine/0123456789'


def test_policies_of_layer_versions(fn):
    arn = layer(fn, 'shared', {'a.txt': 'x'})['LayerVersionArn']
    which = dict(LayerName='shared', VersionNumber=1)
    refused('ResourceNotFoundException', 404, fn.get_layer_version_policy, **which)
    added = fn.add_layer_version_permission(StatementId='all', Action='lambda:GetLayerVersion', Principal='*', OrganizationId='o-abcdefghij', **which)
    assert json.loads(added['Statement']) == {'Sid': 'all', 'Effect': 'Allow', 'Principal': '*', 'Action': 'lambda:GetLayerVersion', 'Resource': arn,
                                              'Condition': {'StringEquals': {'aws:PrincipalOrgID': 'o-abcdefghij'}}}
    refused('ResourceConflictException', 409, fn.add_layer_version_permission, StatementId='all', Action='lambda:GetLayerVersion', Principal='*', **which)
    fn.add_layer_version_permission(StatementId='one', Action='lambda:GetLayerVersion', Principal='123456789012', **which)
    got = fn.get_layer_version_policy(**which)
    assert [s['Sid'] for s in json.loads(got['Policy'])['Statement']] == ['all', 'one']
    refused('PreconditionFailedException', 412, fn.remove_layer_version_permission, StatementId='one', RevisionId=added['RevisionId'], **which)
    fn.remove_layer_version_permission(StatementId='one', RevisionId=got['RevisionId'], **which)
    refused('ResourceNotFoundException', 404, fn.remove_layer_version_permission, StatementId='one', **which)
    fn.remove_layer_version_permission(StatementId='all', **which)
    refused('ResourceNotFoundException', 404, fn.get_layer_version_policy, **which)
    refused('ResourceNotFoundException', 404, fn.get_layer_version_policy, LayerName='shared', VersionNumber=9)


def test_each_qualifier_has_its_policy(fn):
    arn = create(fn, 'guarded')['FunctionArn']
    fn.publish_version(FunctionName='guarded')
    fn.create_alias(FunctionName='guarded', Name='live', FunctionVersion='1')
    ask = dict(FunctionName='guarded', StatementId='events', Action='lambda:InvokeFunction', Principal='events.amazonaws.com')
    fn.add_permission(**ask)
    fn.add_permission(Qualifier='live', **{**ask, 'Principal': 's3.amazonaws.com'})
    refused('ResourceConflictException', 409, fn.add_permission, Qualifier='live', **ask)
    refused('InvalidParameterValueException', 400, fn.add_permission, Qualifier='$LATEST', **ask)
    refused('ResourceNotFoundException', 404, fn.add_permission, Qualifier='nope', **ask)
    by_url = fn.add_permission(InvokedViaFunctionUrl=True, **{**ask, 'StatementId': 'url', 'Principal': '*'})
    assert json.loads(by_url['Statement'])['Condition'] == {'Bool': {'lambda:InvokedViaFunctionUrl': 'true'}}
    fn.remove_permission(FunctionName='guarded', StatementId='url')
    whole, live = fn.get_policy(FunctionName='guarded'), fn.get_policy(FunctionName='guarded', Qualifier='live')
    assert [(s['Resource'], s['Principal']) for s in json.loads(whole['Policy'])['Statement']] == [(arn, {'Service': 'events.amazonaws.com'})]
    assert [(s['Resource'], s['Principal']) for s in json.loads(live['Policy'])['Statement']] == [(arn + ':live', {'Service': 's3.amazonaws.com'})]
    refused('PreconditionFailedException', 412, fn.remove_permission, FunctionName='guarded', StatementId='events', RevisionId=live['RevisionId'])
    fn.remove_permission(FunctionName='guarded', StatementId='events', RevisionId=whole['RevisionId'])
    refused('ResourceNotFoundException', 404, fn.get_policy, FunctionName='guarded')
    assert fn.get_policy(FunctionName='guarded:live')['RevisionId'] == live['RevisionId']


def test_resource_policies_replace(fn):
    arn = create(fn, 'replaced')['FunctionArn']
    refused('ResourceNotFoundException', 404, fn.get_resource_policy, ResourceArn=arn)
    fn.add_permission(FunctionName='replaced', StatementId='old', Action='lambda:InvokeFunction', Principal='*')
    say = lambda **more: json.dumps({'Version': '2012-10-17', 'Statement': [{'Sid': 'new', 'Effect': 'Deny', 'Principal': '*', 'Action': 'lambda:*', 'Resource': arn, **more}]})
    put = fn.put_resource_policy(ResourceArn=arn, Policy=say())
    assert [s['Sid'] for s in json.loads(fn.get_policy(FunctionName='replaced')['Policy'])['Statement']] == ['new']
    assert fn.get_resource_policy(ResourceArn=arn)['RevisionId'] == put['RevisionId']
    refused('InvalidParameterValueException', 400, fn.put_resource_policy, ResourceArn=arn, Policy=say(Resource='*'))
    refused('InvalidParameterValueException', 400, fn.put_resource_policy, ResourceArn=arn, Policy='{nope')
    refused('PreconditionFailedException', 412, fn.delete_resource_policy, ResourceArn=arn, RevisionId='0' * 8 + '-0000-0000-0000-' + '0' * 12)
    fn.delete_resource_policy(ResourceArn=arn, RevisionId=put['RevisionId'])
    refused('ResourceNotFoundException', 404, fn.delete_resource_policy, ResourceArn=arn)


def test_code_signing(fn):
    made = fn.create_code_signing_config(Description='ours', AllowedPublishers={'SigningProfileVersionArns': [PROFILE]}, Tags={'a': 'b'})['CodeSigningConfig']
    arn = made['CodeSigningConfigArn']
    assert made['CodeSigningPolicies'] == {'UntrustedArtifactOnDeployment': 'Warn'} and arn.endswith(made['CodeSigningConfigId'])
    assert fn.get_code_signing_config(CodeSigningConfigArn=arn)['CodeSigningConfig'] == made
    refused('NotImplementedException', 501, fn.update_code_signing_config, CodeSigningConfigArn=arn, CodeSigningPolicies={'UntrustedArtifactOnDeployment': 'Enforce'})
    changed = fn.update_code_signing_config(CodeSigningConfigArn=arn, Description='theirs')['CodeSigningConfig']
    assert changed['Description'] == 'theirs' and changed['AllowedPublishers'] == made['AllowedPublishers']
    assert changed in fn.list_code_signing_configs()['CodeSigningConfigs']
    fn.tag_resource(Resource=arn, Tags={'c': 'd'})
    fn.untag_resource(Resource=arn, TagKeys=['a'])
    assert fn.list_tags(Resource=arn)['Tags'] == {'c': 'd'}
    create(fn, 'signed', CodeSigningConfigArn=arn)
    create(fn, 'unsigned')
    assert fn.get_function_code_signing_config(FunctionName='signed')['CodeSigningConfigArn'] == arn
    assert fn.get_function_code_signing_config(FunctionName='unsigned')['CodeSigningConfigArn'] == ''
    assert fn.put_function_code_signing_config(FunctionName='unsigned', CodeSigningConfigArn=arn)['FunctionName'] == 'unsigned'
    pages = fn.get_paginator('list_functions_by_code_signing_config').paginate(CodeSigningConfigArn=arn, PaginationConfig={'PageSize': 1})
    assert [a.rsplit(':', 1)[1] for p in pages for a in p['FunctionArns']] == ['signed', 'unsigned']
    refused('ResourceConflictException', 409, fn.delete_code_signing_config, CodeSigningConfigArn=arn)
    for name in ('signed', 'unsigned'):
        fn.delete_function_code_signing_config(FunctionName=name)
    fn.delete_code_signing_config(CodeSigningConfigArn=arn)
    refused('ResourceNotFoundException', 404, fn.get_code_signing_config, CodeSigningConfigArn=arn)
    refused('CodeSigningConfigNotFoundException', 404, fn.put_function_code_signing_config, FunctionName='signed', CodeSigningConfigArn=arn)
    refused('CodeSigningConfigNotFoundException', 404, create, fn, 'never', CodeSigningConfigArn=arn)
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName='never')


def test_runtime_updates_and_recursion(fn):
    arn = create(fn, 'managed')['FunctionArn']
    fn.publish_version(FunctionName='managed')
    assert fn.get_runtime_management_config(FunctionName='managed')['UpdateRuntimeOn'] == 'Auto'
    put = fn.put_runtime_management_config(FunctionName='managed', Qualifier='1', UpdateRuntimeOn='FunctionUpdate')
    assert (put['UpdateRuntimeOn'], put['FunctionArn']) == ('FunctionUpdate', arn + ':1')
    assert fn.get_runtime_management_config(FunctionName='managed:1')['UpdateRuntimeOn'] == 'FunctionUpdate'
    assert fn.get_runtime_management_config(FunctionName='managed')['UpdateRuntimeOn'] == 'Auto'
    refused('InvalidParameterValueException', 400, fn.put_runtime_management_config, FunctionName='managed', UpdateRuntimeOn='Manual')
    refused('NotImplementedException', 501, fn.put_runtime_management_config, FunctionName='managed', UpdateRuntimeOn='Manual',
            RuntimeVersionArn='arn:aws:lambda:us-east-1::runtime:' + 'a' * 64)
    assert fn.get_function_recursion_config(FunctionName='managed')['RecursiveLoop'] == 'Terminate'
    assert fn.put_function_recursion_config(FunctionName='managed', RecursiveLoop='Allow')['RecursiveLoop'] == 'Allow'
    fn.put_function_event_invoke_config(FunctionName='managed', MaximumRetryAttempts=1)
    assert fn.publish_version(FunctionName='managed')['Version'] == '1'          # settings are of the function, and make no version


def test_event_source_mappings(fn):
    create(fn, 'reader')
    assert fn.list_event_source_mappings(FunctionName='reader')['EventSourceMappings'] == []
    for what in (fn.get_event_source_mapping, fn.update_event_source_mapping, fn.delete_event_source_mapping):
        refused('ResourceNotFoundException', 404, what, UUID='00000000-0000-0000-0000-000000000000')
    queue = 'arn:aws:sqs:us-east-1:000000000000:q'
    kafka = {'Endpoints': {'KAFKA_BOOTSTRAP_SERVERS': ['127.0.0.1:9092']}}
    assert 'Kafka' in refused('NotImplementedException', 501, fn.create_event_source_mapping, FunctionName='reader', SelfManagedEventSource=kafka,
                              StartingPosition='LATEST')['Error']['Message']
    assert 'SQS' in refused('InvalidParameterValueException', 400, fn.create_event_source_mapping, FunctionName='reader', EventSourceArn=queue)['Error']['Message']
    refused('InvalidParameterValueException', 400, fn.create_event_source_mapping, FunctionName='nobody', EventSourceArn=queue)
    refused('InvalidParameterValueException', 400, fn.create_event_source_mapping, FunctionName='reader', EventSourceArn='arn:aws:sns:us-east-1:000000000000:t')
    refused('InvalidParameterValueException', 400, fn.create_event_source_mapping, FunctionName='reader')
    refused('InvalidParameterValueException', 400, fn.create_event_source_mapping, FunctionName='reader',
            EventSourceArn='arn:aws:kinesis:us-east-1:000000000000:stream/s')


def test_lists_with_versions(fn):
    for name in ('list-a', 'list-b', 'list-b-more'):
        create(fn, name)
    fn.publish_version(FunctionName='list-b')
    fn.update_function_configuration(FunctionName='list-b', MemorySize=256)
    fn.publish_version(FunctionName='list-b')
    want = [('list-a', '$LATEST'), ('list-b', '$LATEST'), ('list-b', '1'), ('list-b', '2'), ('list-b-more', '$LATEST')]
    for size in (1, 2, 3, 50):
        pages = fn.get_paginator('list_functions').paginate(FunctionVersion='ALL', PaginationConfig={'PageSize': size})
        got = [(f['FunctionName'], f['Version']) for p in pages for f in p['Functions'] if f['FunctionName'].startswith('list-')]
        assert got == want
        pages = fn.get_paginator('list_functions').paginate(PaginationConfig={'PageSize': size})
        assert [f['FunctionName'] for p in pages for f in p['Functions'] if f['FunctionName'].startswith('list-')] == ['list-a', 'list-b', 'list-b-more']
    assert all(f['FunctionArn'].endswith(':' + f['Version']) for f in fn.list_functions(FunctionVersion='ALL')['Functions'])
    for n in range(3):
        fn.create_alias(FunctionName='list-b', Name=f'alias-{n}', FunctionVersion='1')
    pages = fn.get_paginator('list_aliases').paginate(FunctionName='list-b', FunctionVersion='1', PaginationConfig={'PageSize': 1})
    assert [a['Name'] for p in pages for a in p['Aliases']] == ['alias-0', 'alias-1', 'alias-2']


KEPT = {
    'VpcConfig': {'SubnetIds': ['subnet-0a'], 'SecurityGroupIds': ['sg-0b'], 'Ipv6AllowedForDualStack': True},
    'KMSKeyArn': 'arn:aws:kms:us-east-1:000000000000:key/0', 'TracingConfig': {'Mode': 'Active'}, 'EphemeralStorage': {'Size': 1024},
    'LoggingConfig': {'LogFormat': 'JSON', 'ApplicationLogLevel': 'DEBUG', 'SystemLogLevel': 'WARN', 'LogGroup': '/own/group'},
    'DeadLetterConfig': {'TargetArn': 'arn:aws:sqs:us-east-1:000000000000:dead'}, 'Description': 'as it was given', 'Timeout': 17, 'MemorySize': 640,
    'Environment': {'Variables': {'AA': 'b'}}, 'SnapStart': {'ApplyOn': 'None'},
}
OTHER = {
    'VpcConfig': {'SubnetIds': [], 'SecurityGroupIds': []}, 'KMSKeyArn': '', 'TracingConfig': {'Mode': 'PassThrough'}, 'EphemeralStorage': {'Size': 512},
    'LoggingConfig': {'LogFormat': 'JSON', 'ApplicationLogLevel': 'ERROR', 'SystemLogLevel': 'INFO', 'LogGroup': '/other'}, 'Timeout': 18, 'MemorySize': 128,
    'Environment': {'Variables': {'CC': 'd'}}, 'Description': '',
}


def holds(got, want):
    """Is all of want in got? What Lambda shows beside it (SnapStart's OptimizationStatus, VpcConfig's VpcId) is its own."""
    if isinstance(want, dict):
        return all(k in got and holds(got[k], v) for k, v in want.items())
    return got == want


def test_configuration_comes_back(fn):
    made = create(fn, 'kept', **KEPT)
    for got in (made, fn.get_function_configuration(FunctionName='kept'), fn.get_function(FunctionName='kept')['Configuration'],
                fn.publish_version(FunctionName='kept')):
        assert all(holds(got[k], v) for k, v in KEPT.items() if k != 'Description' or v), got
    assert made['SnapStart'] == {'ApplyOn': 'None', 'OptimizationStatus': 'Off'}
    changed = fn.update_function_configuration(FunctionName='kept', **OTHER)
    for got in (changed, fn.get_function_configuration(FunctionName='kept')):
        assert all(holds(got.get(k, ''), v) for k, v in OTHER.items()), got
    assert holds(fn.get_function_configuration(FunctionName='kept', Qualifier='1')['VpcConfig'], KEPT['VpcConfig'])


@pytest.mark.parametrize('more', [{'TenancyConfig': {'TenantIsolationMode': 'PER_TENANT'}}], ids=lambda m: next(iter(m)))
def test_what_is_not_supported_is_said(fn, more):
    got = refused('InvalidParameterValueException', 400, create, fn, 'refused', **more)
    assert 'not supported' in got['Error']['Message']
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName='refused')


def test_words_of_validation(blind):
    got = refused('ValidationException', 400, blind.create_alias, FunctionName='any', Name='12', FunctionVersion='x')
    assert got['Error']['Message'] == (
        "2 validation errors detected: Value '12' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: "
        "(?!^[0-9]+$)([a-zA-Z0-9-_]+); Value 'x' at 'functionVersion' failed to satisfy constraint: Member must satisfy regular expression pattern: "
        "(\\$LATEST(\\.PUBLISHED)?|[0-9]+)")
    got = refused('ValidationException', 400, blind.create_function, FunctionName='any', Code={})
    assert got['Error']['Message'] == "1 validation error detected: Value null at 'role' failed to satisfy constraint: Member must not be null"
    got = refused('SerializationException', 400, blind.create_function, FunctionName='any', Code={}, Role=ROLE, Description=[1])
    assert 'list' in got['Error']['Message']
