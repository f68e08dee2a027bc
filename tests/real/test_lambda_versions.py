"""Versions, aliases and provisioned concurrency through an unmodified boto3."""
import json

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_lambda import ROLE, call, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

SAY = 'def handler(e, c):\n    return [%r, c.function_version, c.invoked_function_arn]\n'


def said(fn, name, **more):
    return json.loads(fn.invoke(FunctionName=name, Payload=b'{}', **more)['Payload'].read())


@pytest.fixture(scope='module')
def name(fn):
    create(fn, 'pub', code=zipped(SAY % 'one'))
    fn.get_waiter('function_active_v2').wait(FunctionName='pub')
    return 'pub'


def test_publish(fn, name):
    one = fn.publish_version(FunctionName=name, Description='first')
    assert (one['Version'], one['Description']) == ('1', 'first') and one['FunctionArn'].endswith(':function:pub:1')
    assert fn.publish_version(FunctionName=name)['Version'] == '1'              # nothing has changed
    two = fn.update_function_code(FunctionName=name, ZipFile=zipped(SAY % 'two'), Publish=True)
    assert two['Version'] == '2' and two['CodeSha256'] != one['CodeSha256']
    refused('InvalidParameterValueException', 400, fn.publish_version, FunctionName=name, CodeSha256='x')
    refused('PreconditionFailedException', 412, fn.publish_version, FunctionName=name, RevisionId='x')
    fn.get_waiter('published_version_active').wait(FunctionName=name, Qualifier='2')
    assert [said(fn, n)[:2] for n in (name, name + ':1', name + ':2')] == [['two', '$LATEST'], ['one', '1'], ['two', '2']]
    assert said(fn, name, Qualifier='1')[2].endswith(':pub:1')
    assert fn.invoke(FunctionName=name, Qualifier='1')['ExecutedVersion'] == '1'
    fn.update_function_configuration(FunctionName=name, MemorySize=256)
    assert fn.get_function_configuration(FunctionName=name, Qualifier='1')['MemorySize'] == 128
    assert fn.get_function(FunctionName=name + ':1')['Configuration']['Version'] == '1'
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName=name, Qualifier='77')
    pages = fn.get_paginator('list_versions_by_function').paginate(FunctionName=name, PaginationConfig={'PageSize': 1})
    assert [v['Version'] for page in pages for v in page['Versions']] == ['$LATEST', '1', '2']


def test_aliases(fn, name):
    made = fn.create_alias(FunctionName=name, Name='live', FunctionVersion='1', Description='what users see')
    assert made['AliasArn'].endswith(':function:pub:live') and made['FunctionVersion'] == '1'
    assert said(fn, name + ':live') == ['one', '1', made['AliasArn']]
    refused('ResourceConflictException', 409, fn.create_alias, FunctionName=name, Name='live', FunctionVersion='1')
    refused('ResourceNotFoundException', 404, fn.create_alias, FunctionName=name, Name='x', FunctionVersion='9')
    refused('ValidationException', 400, fn.create_alias, FunctionName=name, Name='12', FunctionVersion='1')
    routed = fn.update_alias(FunctionName=name, Name='live', RoutingConfig={'AdditionalVersionWeights': {'2': 0.2}}, RevisionId=made['RevisionId'])
    assert routed['RoutingConfig'] == {'AdditionalVersionWeights': {'2': 0.2}}
    refused('PreconditionFailedException', 412, fn.update_alias, FunctionName=name, Name='live', RevisionId=made['RevisionId'])
    shares = [said(fn, name, Qualifier='live')[1] for _ in range(50)]
    assert 9 <= shares.count('2') <= 11                    # exact in the long run, not by luck
    refused('InvalidParameterValueException', 400, fn.update_alias, FunctionName=name, Name='live',
            RoutingConfig={'AdditionalVersionWeights': {'1': 0.5}})
    refused('ResourceConflictException', 409, fn.delete_function, FunctionName=name, Qualifier='2')
    fn.update_alias(FunctionName=name, Name='live', FunctionVersion='2', RoutingConfig={})
    assert said(fn, name, Qualifier='live')[:2] == ['two', '2']
    fn.create_alias(FunctionName=name, Name='edge', FunctionVersion='$LATEST')
    assert [a['Name'] for a in fn.list_aliases(FunctionName=name)['Aliases']] == ['edge', 'live'] or \
        {a['Name'] for a in fn.list_aliases(FunctionName=name)['Aliases']} == {'edge', 'live'}
    assert [a['Name'] for a in fn.list_aliases(FunctionName=name, FunctionVersion='2')['Aliases']] == ['live']
    fn.delete_alias(FunctionName=name, Name='edge')
    refused('ResourceNotFoundException', 404, fn.get_alias, FunctionName=name, Name='edge')


def test_numbers_are_never_used_again(fn, name):
    fn.update_function_configuration(FunctionName=name, Description='3rd')
    fn.update_function_configuration(FunctionName=name, Timeout=7)
    assert fn.publish_version(FunctionName=name)['Version'] == '3'
    fn.delete_function(FunctionName=name, Qualifier='3')
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName=name, Qualifier='3')
    fn.update_function_configuration(FunctionName=name, Timeout=8)
    assert fn.publish_version(FunctionName=name)['Version'] == '4'


def test_provisioned(fn, name):
    refused('InvalidParameterValueException', 400, fn.put_provisioned_concurrency_config, FunctionName=name, Qualifier='$LATEST',
            ProvisionedConcurrentExecutions=1)
    refused('ProvisionedConcurrencyConfigNotFoundException', 404, fn.get_provisioned_concurrency_config, FunctionName=name, Qualifier='live')
    fn.put_provisioned_concurrency_config(FunctionName=name, Qualifier='live', ProvisionedConcurrentExecutions=2)

    def ready():
        return fn.get_provisioned_concurrency_config(FunctionName=name, Qualifier='live')['Status'] == 'READY'
    eventually(ready, 20)
    listed = fn.list_provisioned_concurrency_configs(FunctionName=name)['ProvisionedConcurrencyConfigs']
    assert len(listed) == 1 and listed[0]['FunctionArn'].endswith(':live')
    fn.delete_provisioned_concurrency_config(FunctionName=name, Qualifier='live')
    assert fn.list_provisioned_concurrency_configs(FunctionName=name)['ProvisionedConcurrencyConfigs'] == []


def test_kubectl_sees_versions_and_they_go_with_the_function(tandem, fn):
    create(fn, 'short', code=zipped(SAY % 'one'), Publish=True)
    assert tandem.kubectl('get', 'functionversions', 'short.1', '-o', 'jsonpath={.spec.template.runtime}').stdout == 'python3.11'
    fn.delete_function(FunctionName='short')
    eventually(lambda: tandem.kubectl('get', 'fnv', 'short.1', check=False).returncode != 0, 20)
    with pytest.raises(ClientError):
        fn.invoke(FunctionName='short:1')
