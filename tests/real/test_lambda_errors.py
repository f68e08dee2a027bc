"""What Lambda's operations answer to what cannot be: status, type and words, as Lambda has them. One function, and a table."""
import urllib.error, urllib.request

import pytest
from botocore.exceptions import ClientError

from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)

NAME, NOBODY = 'words', 'wordless'
ARN = 'arn:aws:lambda:us-east-1:000000000000:function:'
LAYER = 'arn:aws:lambda:us-east-1:000000000000:layer:wordy:1'
CSC = 'arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-' + 'a' * 17
OLD = 'a' * 36


@pytest.fixture(scope='module')
def words(fn):
    create(fn, NAME)
    fn.publish_version(FunctionName=NAME)
    fn.create_alias(FunctionName=NAME, Name='live', FunctionVersion='1')
    fn.publish_layer_version(LayerName='wordy', Content={'ZipFile': zipped('x = 1\n')})
    yield fn
    fn.delete_function(FunctionName=NAME)
    fn.delete_layer_version(LayerName='wordy', VersionNumber=1)


# (operation, what differs from {FunctionName: NAME}, status, type, a part of the message)
SAID = [
    ('get_function', dict(FunctionName=ARN.replace('us-east-1', 'eu-west-1') + NAME), 404, 'ResourceNotFoundException',
     "Functions from 'eu-west-1' are not reachable in this region"),
    ('get_function', dict(FunctionName=ARN.replace('0' * 12, '1' * 12) + NAME), 403, 'AccessDeniedException', 'is not authorized to perform'),
    ('get_function', dict(FunctionName=NAME + ':$LATEST', Qualifier='1'), 400, 'InvalidParameterValueException',
     'The derived qualifier from the function name does not match the specified qualifier.'),
    ('update_function_code', dict(S3Bucket='no-such-bucket-of-words', S3Key='k'), 400, 'InvalidParameterValueException', 'S3 Error Code: NoSuchBucket.'),
    ('add_permission', dict(StatementId='s', Action='lambda:InvokeFunction', Principal='bad.unknown'), 400, 'InvalidParameterValueException',
     'The provided principal was invalid. Please check the principal and try again.'),
    ('add_permission', dict(StatementId='s', Action='lambda:InvokeFunction', Principal='s3.amazonaws.com', RevisionId=OLD), 412,
     'PreconditionFailedException', 'Call the GetPolicy API to retrieve the latest Revision Id'),
    ('remove_permission', dict(StatementId='s'), 404, 'ResourceNotFoundException', 'No policy is associated with the given resource.'),
    ('create_function_url_config', dict(FunctionName=NOBODY, AuthType='NONE'), 404, 'ResourceNotFoundException', 'Function does not exist'),
    ('create_function_url_config', dict(Qualifier='none', AuthType='NONE'), 404, 'ResourceNotFoundException', 'Function does not exist'),
    ('get_function_url_config', dict(FunctionName=NOBODY), 404, 'ResourceNotFoundException', 'The resource you requested does not exist.'),
    ('put_function_concurrency', dict(ReservedConcurrentExecutions=950), 400, 'InvalidParameterValueException', 'below its minimum value of [100].'),
    ('put_function_concurrency', dict(FunctionName=NAME + ':1', ReservedConcurrentExecutions=1), 400, 'InvalidParameterValueException',
     'This operation is permitted on Lambda functions only.'),
    ('put_provisioned_concurrency_config', dict(Qualifier='$LATEST', ProvisionedConcurrentExecutions=1), 400, 'InvalidParameterValueException',
     'cannot be applied to unpublished function versions.'),
    ('get_provisioned_concurrency_config', dict(Qualifier='$LATEST'), 400, 'InvalidParameterValueException',
     'The function resource provided must be an alias or a published version.'),
    ('get_provisioned_concurrency_config', dict(Qualifier='none'), 404, 'ResourceNotFoundException', f'Cannot find alias arn: {ARN}{NAME}:none'),
    ('put_function_event_invoke_config', dict(), 400, 'InvalidParameterValueException',
     'You must specify at least one of error handling or destination setting.'),
    ('put_function_event_invoke_config', dict(FunctionName=NOBODY, MaximumRetryAttempts=1), 404, 'ResourceNotFoundException', "The function doesn't exist."),
    ('put_function_event_invoke_config', dict(Qualifier='none', MaximumRetryAttempts=1), 404, 'ResourceNotFoundException', "The function doesn't exist."),
    ('get_function_event_invoke_config', dict(), 404, 'ResourceNotFoundException', f"The function {ARN}{NAME}:$LATEST doesn't have an EventInvokeConfig"),
    ('delete_function_event_invoke_config', dict(Qualifier='live'), 404, 'ResourceNotFoundException', f'{ARN}{NAME}:live doesn'),
    ('put_function_event_invoke_config', dict(DestinationConfig={'OnSuccess': {'Destination': ARN + NAME}}), 400, 'InvalidParameterValueException',
     "You can't specify the function as a destination for itself."),
    ('put_function_event_invoke_config', dict(DestinationConfig={'OnFailure': {'Destination': ARN + NOBODY}}), 400, 'InvalidParameterValueException',
     f'The destination ARN {ARN}{NOBODY} is invalid.'),
    ('put_function_event_invoke_config', dict(DestinationConfig={'OnSuccess': {'Destination': 'arn:aws:iam::000000000000:role/x'}}), 400,
     'InvalidParameterValueException', 'DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:iam::000000000000:role/x), onFailure=null) is invalid.'),
    ('tag_resource', dict(Resource=ARN + NAME, Tags={}), 400, 'InvalidParameterValueException', 'An error occurred and the request cannot be processed.'),
    ('tag_resource', dict(Resource=f'{ARN}{NAME}:1', Tags={'a': 'b'}), 400, 'InvalidParameterValueException', 'Tags on function aliases and versions'),
    ('tag_resource', dict(Resource=ARN + NAME, Tags={f'k{i}': '' for i in range(51)}), 400, 'InvalidParameterValueException',
     'Number of tags exceeds resource tag limit.'),
    ('get_code_signing_config', dict(CodeSigningConfigArn=CSC), 404, 'ResourceNotFoundException', f'The Lambda code signing configuration {CSC} can not be found.'),
    ('create_event_source_mapping', dict(FunctionName=NOBODY, EventSourceArn='arn:aws:sqs:us-east-1:000000000000:q'), 400,
     'InvalidParameterValueException', 'Function does not exist'),
    ('create_event_source_mapping', dict(EventSourceArn='arn:aws:sqs:us-east-1:000000000000:q'), 400, 'InvalidParameterValueException',
     'SQS Error Code: AWS.SimpleQueueService.NonExistentQueue.'),
    ('create_event_source_mapping', dict(EventSourceArn='arn:aws:kinesis:us-east-1:000000000000:stream/s', StartingPosition='LATEST'), 400,
     'InvalidParameterValueException', 'Stream not found: arn:aws:kinesis:us-east-1:000000000000:stream/s'),
    ('create_event_source_mapping', dict(), 400, 'InvalidParameterValueException', 'Unrecognized event source.'),
    ('update_function_configuration', dict(Layers=[LAYER, LAYER]), 400, 'InvalidParameterValueException',
     f'{LAYER} and {LAYER} are versions of the same layer.'),
    ('get_layer_version_policy', dict(LayerName='wordy', VersionNumber=9), 404, 'ResourceNotFoundException',
     f'Layer version {LAYER[:-1]}9 does not exist.'),
]
ALONE = ('Resource', 'LayerName', 'CodeSigningConfigArn')       # these operations name no function


@pytest.mark.parametrize('operation, args, status, kind, part', SAID, ids=[f'{s[0]}-{i}' for i, s in enumerate(SAID)])
def test_what_is_said(words, operation, args, status, kind, part):
    if not set(args) & set(ALONE):
        args = {'FunctionName': NAME, **args}
    with pytest.raises(ClientError) as e:
        getattr(words, operation)(**args)
    got = e.value.response
    assert (got['ResponseMetadata']['HTTPStatusCode'], got['Error']['Code']) == (status, kind), got['Error']
    assert part in got['Error']['Message']


@pytest.mark.parametrize('name', [NAME, f'function:{NAME}', f'000000000000:{NAME}', f'000000000000:function:{NAME}',
                                  f'us-east-1:000000000000:function:{NAME}', ARN + NAME])
def test_a_function_has_many_names(words, name):
    assert words.get_function_configuration(FunctionName=name)['FunctionArn'] == ARN + NAME
    assert words.get_function_configuration(FunctionName=name + ':live')['FunctionArn'] == f'{ARN}{NAME}:live'


def test_instances_are_provided_once(words):
    words.put_provisioned_concurrency_config(FunctionName=NAME, Qualifier='live', ProvisionedConcurrentExecutions=1)
    try:
        with pytest.raises(ClientError, match='Version is pointed by a Provisioned Concurrency alias'):
            words.put_provisioned_concurrency_config(FunctionName=NAME, Qualifier='1', ProvisionedConcurrentExecutions=1)
        with pytest.raises(ClientError, match=r'should not be lower than function.s total provisioned concurrency \[1\]'):
            words.put_function_concurrency(FunctionName=NAME, ReservedConcurrentExecutions=0)
    finally:
        words.delete_provisioned_concurrency_config(FunctionName=NAME, Qualifier='live')


def test_an_alias_has_a_url_of_its_own(words):
    made = words.create_function_url_config(FunctionName=NAME, Qualifier='live', AuthType='NONE', Cors={'AllowOrigins': ['*'], 'MaxAge': 5})
    assert made['FunctionArn'] == f'{ARN}{NAME}:live' and made['FunctionUrl'].endswith(f'{NAME}:live/')
    with pytest.raises(ClientError, match='FunctionUrlConfig exists'):
        words.create_function_url_config(FunctionName=NAME, Qualifier='live', AuthType='NONE')
    assert urllib.request.urlopen(made['FunctionUrl'] + 'a').status == 201
    with pytest.raises(urllib.error.HTTPError) as none:           # the function as a whole has none
        urllib.request.urlopen(made['FunctionUrl'].replace(':live', ''))
    assert none.value.code == 404
    words.create_function_url_config(FunctionName=NAME, AuthType='NONE')
    pages = words.get_paginator('list_function_url_configs').paginate(FunctionName=NAME, PaginationConfig={'PageSize': 1})
    assert [c['FunctionArn'] for p in pages for c in p['FunctionUrlConfigs']] == [ARN + NAME, f'{ARN}{NAME}:live']
    words.delete_function_url_config(FunctionName=NAME)
    changed = words.update_function_url_config(FunctionName=NAME, Qualifier='live', AuthType='AWS_IAM', Cors={'AllowOrigins': ['*']})
    assert (changed['AuthType'], changed['Cors']) == ('AWS_IAM', {'AllowOrigins': ['*']})
    with pytest.raises(urllib.error.HTTPError) as unsigned:
        urllib.request.urlopen(made['FunctionUrl'])
    assert unsigned.value.code == 403
    assert words.update_alias(FunctionName=NAME, Name='live', Description='still')['Description'] == 'still'
    assert words.get_function_url_config(FunctionName=NAME, Qualifier='live')['CreationTime'] == made['CreationTime']
    words.delete_function_url_config(FunctionName=NAME, Qualifier='live')
    with pytest.raises(ClientError, match='The resource you requested does not exist.'):
        words.get_function_url_config(FunctionName=NAME, Qualifier='live')
