"""Every operation of Lambda's model (botocore's service-2.json): it answers in a form that Lambda has, or says plainly that it is not served."""
import uuid

import botocore.config, botocore.session, pytest
from botocore.exceptions import ClientError

from test_lambda import fn  # noqa: F401 (a fixture)

MODEL = botocore.session.get_session().get_service_model('lambda')

# What answers 501, and why. This list may only shrink.
NOT_SERVED = {
    **dict.fromkeys(['CreateCapacityProvider', 'DeleteCapacityProvider', 'GetCapacityProvider', 'ListCapacityProviders', 'UpdateCapacityProvider',
                     'ListFunctionVersionsByCapacityProvider', 'GetFunctionScalingConfig', 'PutFunctionScalingConfig'],
                    'functions run on this machine, not on instances that an account rents'),
    **dict.fromkeys(['CheckpointDurableExecution', 'DeleteDurableExecution', 'GetDurableExecution', 'GetDurableExecutionHistory', 'GetDurableExecutionState',
                     'ListDurableExecutionsByFunction', 'PauseDurableExecution', 'ResumeDurableExecution', 'SendDurableExecutionCallbackFailure',
                     'SendDurableExecutionCallbackHeartbeat', 'SendDurableExecutionCallbackSuccess', 'StopDurableExecution'],
                    'durable executions are not built'),
    **dict.fromkeys(['CreateCodeSigningConfig', 'GetCodeSigningConfig', 'UpdateCodeSigningConfig', 'DeleteCodeSigningConfig', 'ListCodeSigningConfigs',
                     'PutFunctionCodeSigningConfig', 'DeleteFunctionCodeSigningConfig', 'ListFunctionsByCodeSigningConfig'], 'not built'),
    **dict.fromkeys(['GetRuntimeManagementConfig', 'PutRuntimeManagementConfig', 'GetFunctionRecursionConfig', 'PutFunctionRecursionConfig'], 'not built'),
    **dict.fromkeys(['GetResourcePolicy', 'PutResourcePolicy', 'DeleteResourcePolicy'], 'not built'),
    **dict.fromkeys(['CreateEventSourceMapping', 'GetEventSourceMapping', 'UpdateEventSourceMapping', 'DeleteEventSourceMapping',
                     'ListEventSourceMappings'], 'not built'),
    **dict.fromkeys(['AddLayerVersionPermission', 'GetLayerVersionPolicy', 'RemoveLayerVersionPermission'], 'not built'),
}
SAY = {
    'FunctionName': 'nobody', 'Name': 'none', 'LayerName': 'none', 'Role': 'arn:aws:iam::000000000000:role/any', 'StatementId': 'none',
    'Action': 'lambda:InvokeFunction', 'Principal': 'events.amazonaws.com', 'FunctionVersion': '1', 'Qualifier': 'none', 'UUID': str(uuid.uuid4()),
    'Resource': 'arn:aws:lambda:us-east-1:000000000000:function:nobody', 'ResourceArn': 'arn:aws:lambda:us-east-1:000000000000:function:nobody',
    'Arn': 'arn:aws:lambda:us-east-1:000000000000:layer:none:1', 'Policy': '{}', 'OrganizationId': 'o-aaaaaaaaaaaa',
    'CodeSigningConfigArn': 'arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-aaaaaaaaaaaaaaaaa',
}


def plain(shape, name):
    """A value of that shape with what it must have."""
    kind = shape.type_name
    if kind == 'structure':
        return {n: plain(m, n) for n, m in shape.members.items() if n in shape.required_members}
    if kind == 'list':
        return [plain(shape.member, name)]
    if kind == 'map':
        return {'key': plain(shape.value, name)}
    if kind in ('integer', 'long', 'double', 'float'):
        return shape.metadata.get('min', 1)
    if kind == 'boolean':
        return False
    if kind == 'timestamp':
        return 1
    if kind == 'blob':
        return b'{}'
    return SAY.get(name) or (shape.enum[0] if getattr(shape, 'enum', None) else 'none')



@pytest.fixture(scope='module')
def blind(tandem, fn):
    """A client that sends whatever it is given."""
    import boto3
    config = botocore.config.Config(parameter_validation=False, retries={'max_attempts': 1}, read_timeout=10)
    return boto3.client('lambda', endpoint_url=tandem.status['aws'], region_name='us-east-1', aws_access_key_id=tandem.key['AccessKeyId'],
                        aws_secret_access_key=tandem.key['SecretAccessKey'], config=config)


def ask(blind, operation, **args):
    """(status, error's code or None, message)"""
    try:
        answer = getattr(blind, botocore.xform_name(operation))(**args)
        return answer['ResponseMetadata']['HTTPStatusCode'], None, ''
    except ClientError as e:
        return e.response['ResponseMetadata']['HTTPStatusCode'], e.response['Error']['Code'], e.response['Error']['Message']


def test_every_operation_answers_in_lambdas_form(blind):
    served, wrong = [], []
    for operation in MODEL.operation_names:
        model = MODEL.operation_model(operation)
        status, code, message = ask(blind, operation, **plain(model.input_shape, operation)) if model.input_shape else ask(blind, operation)
        own = {s.name for s in model.error_shapes} | {'ValidationException'}
        if status == 501 and code == 'NotImplementedException' and operation in NOT_SERVED:
            continue
        served.append(operation)
        if (code is None and status != model.http.get('responseCode', 200)) or (code is not None and (code not in own or status >= 500)):
            wrong.append((operation, status, code, message))
    print(f'{len(served)} of {len(MODEL.operation_names)} operations are served')
    assert not wrong
    assert not set(served) & set(NOT_SERVED), 'served by now: take it off the list'
