"""What is not served says so, in the service's own form: every operation of botocore's models is asked for."""
import botocore.config, botocore.session, botocore.exceptions
import pytest

from conftest import running

SERVED = ('s3', 'logs', 'cloudwatch', 'ssm', 'lambda', 'events', 'scheduler', 'iam', 'ecr', 'cloudformation', 'sts')
SESSION = botocore.session.Session()


@pytest.fixture(scope='module')
def own():
    """An instance of its own: some operations succeed, and make what nobody else should see."""
    with running('--pod-cidr', '10.61.0.0/16', prefix='tn-') as one:
        one.boto('sts')
        yield one


def client(own, service):
    config = botocore.config.Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 1}, read_timeout=20, parameter_validation=False,
                                    inject_host_prefix=False)
    return SESSION.create_client(service, endpoint_url=own.status['aws'], region_name='us-east-1', aws_access_key_id=own.key['AccessKeyId'],
                                 aws_secret_access_key=own.key['SecretAccessKey'], config=config)


def sample(shape, member='', depth=0):
    """The smallest value that fits."""
    if shape.type_name == 'structure':
        if getattr(shape, 'is_tagged_union', False):
            name, inner = next(iter(shape.members.items()))
            return {name: sample(inner, name, depth + 1)} if depth < 5 else {}
        return {n: sample(shape.members[n], n, depth + 1) for n in shape.required_members if depth < 8}
    if shape.type_name == 'list':
        return [sample(shape.member, member, depth + 1) for _ in range(min(shape.metadata.get('min', 1), 3))] if depth < 8 else []
    if shape.type_name == 'map':
        return {'k': sample(shape.value, member, depth + 1)}
    if shape.type_name == 'string':
        if shape.enum:
            return shape.enum[0]
        if member.lower().endswith('arn'):
            return 'arn:aws:lambda:us-east-1:000000000000:function:walked'
        return 'walked' + 'x' * max(0, shape.metadata.get('min', 1) - 6)
    return {'integer': 1, 'long': 1, 'boolean': False, 'blob': b'{}', 'timestamp': 1700000000, 'double': 1.0, 'float': 1.0}[shape.type_name]


def asked(c, operation):
    """(status, code, message) of an operation with as little as it needs; no code: it was done."""
    model = c.meta.service_model.operation_model(operation)
    given = sample(model.input_shape) if model.input_shape else {}
    if model.has_streaming_input and model.get_streaming_input():
        given[model.input_shape.serialization['payload']] = b'{}'
    try:
        got = c._make_api_call(operation, given)
    except botocore.exceptions.ClientError as e:
        return e.response['ResponseMetadata']['HTTPStatusCode'], e.response['Error'].get('Code', ''), e.response['Error'].get('Message', '')
    for v in got.values():
        if hasattr(v, 'close'):
            v.close()
    return got['ResponseMetadata']['HTTPStatusCode'], None, None


@pytest.mark.parametrize('service', SERVED)
def test_every_operation_answers_in_its_services_form(own, service):
    c, bad, absent = client(own, service), [], 0
    for operation in c.meta.service_model.operation_names:
        try:
            status, code, message = asked(c, operation)
        except Exception as e:                        # botocore could not read the answer
            bad.append((operation, repr(e)))
            continue
        absent += status == 501
        if code is None:
            continue
        head = operation.startswith('Head')           # no body: botocore has nothing but the status
        if not (400 <= status < 500 or status == 501) or (not head and (not code or code.isdigit() or not message)) or \
           (status == 501) != code.startswith('NotImplemented'):
            bad.append((operation, status, code, message))
    assert not bad
    assert absent < len(c.meta.service_model.operation_names)


def test_other_services_are_not_served(own):
    bad, asked_n = [], 0
    for service in SESSION.get_available_services():
        if service in SERVED:
            continue
        model = SESSION.get_service_model(service)
        if model.signing_name in ('s3', 'logs', 'monitoring', 'ssm', 'lambda', 'events', 'scheduler', 'iam', 'ecr', 'cloudformation', 'sts'):
            continue                                  # another client of one that is served
        c = client(own, service)
        operation = next((o for o in model.operation_names if not model.operation_model(o).auth_type and
                          not model.operation_model(o).has_event_stream_input), None)
        if not operation:                             # all of them are asked for without a signature
            continue
        if model.metadata.get('signatureVersion') == 'v2':
            continue                                  # of another time: taken for S3's
        try:
            status, code, message = asked(c, operation)
        except (botocore.exceptions.NoAuthTokenError, botocore.exceptions.EndpointResolutionError):
            continue                                  # nothing was sent
        except Exception as e:
            bad.append((service, model.protocol, operation, repr(e)))
            continue
        asked_n += 1
        if status != 501 or not str(code).startswith('NotImplemented') or 'does not serve' not in message:
            bad.append((service, model.protocol, operation, status, code, message))
    assert not bad, '\n'.join(map(str, bad))
    assert asked_n > 200
