"""Every operation of Lambda's model (botocore's service-2.json): it answers in a form that Lambda has, or says plainly that it is not served."""
import os, subprocess, sys, uuid

import botocore.config, botocore.session, pytest
from botocore.exceptions import ClientError

from conftest import TOP
from test_lambda import fn  # noqa: F401 (a fixture)

MODEL = botocore.session.get_session().get_service_model('lambda')

# What answers 501, and why. This list may only shrink.
NOT_SERVED = {
    **dict.fromkeys(['CreateCapacityProvider', 'DeleteCapacityProvider', 'GetCapacityProvider', 'ListCapacityProviders', 'UpdateCapacityProvider',
                     'ListFunctionVersionsByCapacityProvider'],
                    'functions run on this machine, not on instances that an account rents'),
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
    config = botocore.config.Config(parameter_validation=False, retries={'max_attempts': 1}, read_timeout=90)
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


# ---- what the model bounds ----

# Members with rules of their own: a name in all its forms, a runtime of ours, a volume's ARN; and calls, whose headers are read by hand.
OWN = {'FunctionName', 'Runtime', 'CompatibleRuntime', 'Arn', 'ClientContext', 'InvocationType', 'LogType', 'DurableExecutionName', 'TenantId'}
CALLS = {'Invoke', 'InvokeAsync', 'InvokeWithResponseStream'}


def bad_values(shape):
    """(what is wrong, a value that is)"""
    m, kind = shape.metadata, shape.type_name
    if kind == 'string':
        if m.get('max') and m['max'] <= 10000:
            yield 'too long', 'a' * (m['max'] + 1)
        if m.get('min', 0) > 1:
            yield 'too short', 'a'
        if m.get('enum'):
            yield 'not one of them', 'no-such-value'
        if m.get('pattern') and m['pattern'] != '.*' and '[\\s\\S]' not in m['pattern']:
            yield 'another pattern', '\u0007 {}'
    if kind in ('integer', 'long', 'double', 'float'):
        if 'max' in m:
            yield 'too high', m['max'] + 1
        if 'min' in m:
            yield 'too low', m['min'] - 1
    if kind == 'list' and m.get('max', 10000) <= 1000:
        yield 'too many', [plain(shape.member, shape.member.name)] * (m['max'] + 1)


def bad_inputs(shape, name='', depth=0):
    """(path of the member, what is wrong, a value of the whole shape)"""
    for wrong, value in bad_values(shape):
        yield '', wrong, value
    if depth > 4:
        return
    if shape.type_name == 'structure':
        for n, m in shape.members.items():
            if n in OWN or m.serialization.get('location') == 'header':
                continue
            for path, wrong, value in bad_inputs(m, n, depth + 1):
                yield f'.{n}{path}', wrong, {**plain(shape, name), n: value}
    elif shape.type_name == 'list' and shape.member.name not in ('Runtime', 'FileSystemConfig'):
        for path, wrong, value in bad_inputs(shape.member, name, depth + 1):
            yield f'[]{path}', wrong, [value]
    elif shape.type_name == 'map':
        for path, wrong, value in bad_inputs(shape.value, name, depth + 1):
            yield f'{{}}{path}', wrong, {'key': value}


def of(path):
    """The innermost member that the path names."""
    return path.split('.')[-1].rstrip('[]{}').lower()


@pytest.mark.parametrize('operation', [o for o in MODEL.operation_names if o not in NOT_SERVED and o not in CALLS and MODEL.operation_model(o).input_shape])
def test_bounds_of_every_member(blind, operation):
    wrong, n = [], 0
    for path, why, args in bad_inputs(MODEL.operation_model(operation).input_shape):
        n += 1
        status, code, message = ask(blind, operation, **args)
        if status != 400 or code not in ('ValidationException', 'InvalidParameterValueException'):
            wrong.append((path, why, status, code, message))
        elif code == 'ValidationException' and ('failed to satisfy constraint: M' not in message or of(path) not in message.lower()):
            wrong.append((path, why, status, code, message))
    print(f'{operation}: {n} bad inputs')
    assert not wrong


def test_the_shapes_are_the_models():
    """What the door checks input by was read off the model that this botocore has."""
    assert subprocess.run([sys.executable, os.path.join(TOP, 'tools', 'lambda-shapes'), '--check'], timeout=60).returncode == 0, 'run tools/lambda-shapes'
