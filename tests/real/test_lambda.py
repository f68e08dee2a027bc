"""Lambda through an unmodified boto3."""
import base64, hashlib, io, json, subprocess, urllib.error, urllib.request, uuid, zipfile

import pytest
from botocore.exceptions import ClientError

from aws_shapes import watch
from conftest import eventually

ROLE = 'arn:aws:iam::000000000000:role/any'
CODE = '''
import json, os, sys, time
def handler(event, context):
    do = event.get('do') if isinstance(event, dict) else None
    if do == 'fail':
        raise ValueError('asked to')
    if do == 'exit':
        os._exit(3)
    if do == 'sleep':
        time.sleep(event['seconds'])
    if do == 'print':
        print(event['text'])
    if do == 'env':
        return dict(os.environ)
    if do == 'context':
        return {'name': context.function_name, 'arn': context.invoked_function_arn, 'memory': context.memory_limit_in_mb,
                'id': context.aws_request_id, 'left': context.get_remaining_time_in_millis()}
    if isinstance(event, dict) and 'rawPath' in event:
        return {'statusCode': 201, 'headers': {'x-own': 'yes'}, 'body': event['rawPath'] + '?' + event['rawQueryString']}
    return {'echo': event, 'version': 1}
'''


def zipped(text=CODE, name='app.py', extra=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, text)
        for n, data in extra:
            z.writestr(n, data)
    return out.getvalue()


@pytest.fixture(scope='module')
def fn(tandem):
    return watch(tandem.boto('lambda'))              # every answer is held against Lambda's model, too


def create(fn, name=None, code=None, **more):
    name = name or 'f-' + uuid.uuid4().hex[:8]
    args = dict(FunctionName=name, Runtime='python3.11', Role=ROLE, Handler='app.handler', Code={'ZipFile': code or zipped()})
    args.update(more)
    return fn.create_function(**args)


@pytest.fixture(scope='module')
def name(fn):
    made = create(fn, 'life', Timeout=5, MemorySize=256, Environment={'Variables': {'COLOUR': 'blue'}}, Tags={'a': 'b'})
    fn.get_waiter('function_active_v2').wait(FunctionName='life')
    assert made['ResponseMetadata']['HTTPStatusCode'] == 201
    return 'life'


def call(fn, name, event, **more):
    answer = fn.invoke(FunctionName=name, Payload=json.dumps(event), **more)
    return answer, json.loads(answer['Payload'].read() or b'null')


def refused(error, status, what, *args, **kw):
    with pytest.raises(ClientError) as e:
        what(*args, **kw)
    got = e.value.response
    assert got['Error']['Code'] == error, got
    assert got['ResponseMetadata']['HTTPStatusCode'] == status, got
    return got


def test_what_get_function_tells(fn, name):
    got = fn.get_function(FunctionName=name)
    c = got['Configuration']
    assert c['FunctionArn'] == 'arn:aws:lambda:us-east-1:000000000000:function:life'
    assert (c['Runtime'], c['Handler'], c['Role'], c['Timeout'], c['MemorySize']) == ('python3.11', 'app.handler', ROLE, 5, 256)
    assert (c['State'], c['LastUpdateStatus'], c['Version'], c['PackageType']) == ('Active', 'Successful', '$LATEST', 'Zip')
    assert c['Environment']['Variables'] == {'COLOUR': 'blue'}
    assert c['CodeSha256'] == base64.b64encode(hashlib.sha256(zipped()).digest()).decode() or c['CodeSize'] > 0
    assert got['Tags'] == {'a': 'b'}
    for by in ('000000000000:function:life', c['FunctionArn'], c['FunctionArn'] + ':$LATEST', 'life:$LATEST'):
        assert fn.get_function_configuration(FunctionName=by)['FunctionName'] == 'life'


def test_invoke(fn, name):
    answer, value = call(fn, name, {'x': [1, 2, {'y': 'ä'}]})
    assert answer['StatusCode'] == 200 and answer['ExecutedVersion'] == '$LATEST' and 'FunctionError' not in answer
    assert value['echo'] == {'x': [1, 2, {'y': 'ä'}]}
    assert call(fn, name, {'do': 'env'})[1]['COLOUR'] == 'blue'
    told = call(fn, name, {'do': 'context'})[1]
    assert told['name'] == 'life' and told['arn'].endswith(':function:life') and int(told['memory']) == 256 and told['left'] <= 5000


def test_where_the_time_went(fn, name):
    """The Invoke door tells the rung and times that add up, for a first and a second answer."""
    def timing():
        text = fn.invoke(FunctionName='life', Payload=b'{}')['ResponseMetadata']['HTTPHeaders']['x-tandem-timing']
        return dict(part.split('=') for part in text.split(';'))
    assert timing()['rung'] in ('warm', 'stem', 'zygote', 'runtime', 'fresh')
    warm = timing()
    assert warm['rung'] == 'warm' and warm['cold'] == warm['fork'] == warm['init'] == '0' and int(warm['handler']) > 0
    assert sum(int(warm[part]) for part in ('queue', 'place', 'fork', 'init', 'handler', 'answer')) == int(warm['total'])


def test_log_tail(fn, name):
    answer, _ = call(fn, name, {'do': 'print', 'text': 'hello log'}, LogType='Tail')
    log = base64.b64decode(answer['LogResult']).decode()
    assert 'hello log' in log and 'START RequestId' in log and 'REPORT RequestId' in log


def test_errors_of_functions(fn, name):
    answer, value = call(fn, name, {'do': 'fail'})
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'ValueError' and value['errorMessage'] == 'asked to'
    answer, value = call(fn, name, {'do': 'exit'})
    assert answer['FunctionError'] == 'Unhandled' and 'exit' in json.dumps(value).lower()
    answer, value = call(fn, name, {'do': 'sleep', 'seconds': 20})
    assert answer['FunctionError'] == 'Unhandled' and 'timed out after 5.00 seconds' in value['errorMessage']
    assert call(fn, name, 1)[1]['echo'] == 1                      # and it lives on


def test_other_invocation_types(fn, name):
    assert fn.invoke(FunctionName=name, InvocationType='DryRun')['StatusCode'] == 204
    assert fn.invoke(FunctionName=name, InvocationType='Event', Payload=b'{}')['StatusCode'] == 202
    refused('InvalidRequestContentException', 400, fn.invoke, FunctionName=name, Payload=b'{nope')
    refused('ResourceNotFoundException', 404, fn.invoke, FunctionName='nobody', Payload=b'{}')
    refused('ResourceNotFoundException', 404, fn.invoke, FunctionName=name, Qualifier='7', Payload=b'{}')


def test_update(fn):
    create(fn, 'update', Environment={'Variables': {'AA': '1', 'BB': '2'}})
    before = fn.get_function_configuration(FunctionName='update')
    got = fn.update_function_configuration(FunctionName='update', Timeout=7, Environment={'Variables': {'BB': '3'}})
    assert got['Timeout'] == 7 and got['Environment']['Variables'] == {'BB': '3'} and got['RevisionId'] != before['RevisionId']
    refused('PreconditionFailedException', 412, fn.update_function_configuration, FunctionName='update', Timeout=8, RevisionId=before['RevisionId'])
    got = fn.update_function_code(FunctionName='update', ZipFile=zipped(CODE.replace("'version': 1", "'version': 2")))
    assert got['CodeSha256'] != before['CodeSha256']
    fn.get_waiter('function_updated_v2').wait(FunctionName='update')
    assert call(fn, 'update', {})[1]['version'] == 2
    env = call(fn, 'update', {'do': 'env'})[1]
    assert env['BB'] == '3' and 'AA' not in env
    fn.delete_function(FunctionName='update')
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName='update')


def test_code_from_a_bucket(tandem, fn):
    s3 = tandem.boto('s3')
    s3.create_bucket(Bucket='codes')
    s3.put_object(Bucket='codes', Key='a/b.zip', Body=zipped())
    create(fn, 'from-s3', Code={'S3Bucket': 'codes', 'S3Key': 'a/b.zip'})
    assert call(fn, 'from-s3', 5)[1]['echo'] == 5
    refused('InvalidParameterValueException', 400, create, fn, 'no-code', Code={'S3Bucket': 'codes', 'S3Key': 'nothing'})


def test_list_and_kubectl_see_the_same(tandem, fn, name):
    def both():                                      # until nothing of earlier tests is on its way out
        names = {f['FunctionName'] for page in fn.get_paginator('list_functions').paginate(PaginationConfig={'PageSize': 1}) for f in page['Functions']}
        kube = {f['metadata']['name'] for f in tandem.get('functions')['items']}
        return len(kube) == len(names) and (names, kube)
    assert all(name in some for some in eventually(both))
    assert fn.list_versions_by_function(FunctionName=name)['Versions'][0]['Version'] == '$LATEST'
    assert fn.get_account_settings()['AccountUsage']['FunctionCount'] >= 1


def test_a_name_that_no_object_may_have(fn):
    create(fn, 'My_Function')
    assert fn.get_function(FunctionName='My_Function')['Configuration']['FunctionName'] == 'My_Function'
    assert call(fn, 'My_Function', 1)[1]['echo'] == 1
    fn.delete_function(FunctionName='My_Function')


def test_function_url(fn):
    create(fn, 'url')
    got = fn.create_function_url_config(FunctionName='url', AuthType='NONE', Cors={'AllowOrigins': ['*']})
    assert got['AuthType'] == 'NONE' and got['Cors']['AllowOrigins'] == ['*']
    refused('ResourceConflictException', 409, fn.create_function_url_config, FunctionName='url', AuthType='NONE')
    assert fn.get_function_url_config(FunctionName='url')['FunctionUrl'] == got['FunctionUrl']
    assert len(fn.list_function_url_configs(FunctionName='url')['FunctionUrlConfigs']) == 1

    def get():
        with urllib.request.urlopen(got['FunctionUrl'] + 'some/path?q=1', timeout=60) as answer:
            return answer.status, answer.headers['x-own'], answer.read()
    assert get() == (201, 'yes', b'/some/path?q=1')
    assert fn.update_function_url_config(FunctionName='url', AuthType='AWS_IAM')['AuthType'] == 'AWS_IAM'

    def closed():
        with pytest.raises(urllib.error.HTTPError) as e:
            get()
        return e.value.code == 403
    eventually(closed)
    fn.delete_function_url_config(FunctionName='url')
    refused('ResourceNotFoundException', 404, fn.get_function_url_config, FunctionName='url')


def test_function_url_over_http2(fn):
    """HTTP/2 without TLS (prior knowledge): the event says so, many calls share a connection, and large bodies go through."""
    create(fn, 'url-h2', code=zipped("def handler(event, context):\n    return event['requestContext']['http']['protocol'] + str(len(event.get('body', '')))\n"))
    url = fn.create_function_url_config(FunctionName='url-h2', AuthType='NONE')['FunctionUrl']
    curl = ['curl', '-sS', '--http2-prior-knowledge', '--max-time', '60', '--parallel', '--parallel-immediate', '-H', 'Content-Type: text/plain',
            '--data-binary', '@-', '-w', ' %{http_version} %{http_code}\\n']
    for body in ('x', 'y' * 4000000):
        said = subprocess.run([*curl, *[url] * 8], input=body, text=True, stdout=subprocess.PIPE, check=True).stdout
        assert (said.count(f'HTTP/2.0{len(body)}'), said.count(' 2 200')) == (8, 8), said    # the answers come in any order
    fn.delete_function(FunctionName='url-h2')


def test_what_python_handlers_may_return(fn):
    """Numbers of decimal come as the numbers they are, bytes as they are; what cannot be said is the function's error."""
    create(fn, 'returns', code=zipped('''
import decimal
VALUES = {'decimal': {'n': decimal.Decimal('12345678901234567890'), 'x': decimal.Decimal('1.50')}, 'bytes': b'[1, 2]', 'object': object(), 'text': 'ä'}
def handler(event, context):
    return VALUES[event] if isinstance(event, str) else event
'''))
    assert call(fn, 'returns', 'decimal')[1] == {'n': 12345678901234567890, 'x': 1.5}
    assert call(fn, 'returns', 'bytes')[1] == [1, 2]
    assert call(fn, 'returns', 'text')[1] == 'ä'
    answer, value = call(fn, 'returns', 'object')
    assert value['errorType'] == 'Runtime.MarshalError' and 'object is not JSON serializable' in value['errorMessage']
    assert fn.invoke(FunctionName='returns', Payload=b' \n [1, {"a": "\\ud83d\\ude00"}] ')['Payload'].read() == b'[1, {"a": "\\ud83d\\ude00"}]'
    refused('InvalidRequestContentException', 400, fn.invoke, FunctionName='returns', Payload=b'[1] 2')
    fn.delete_function(FunctionName='returns')


def test_reserved_concurrency(fn):
    create(fn, 'reserved')
    assert fn.put_function_concurrency(FunctionName='reserved', ReservedConcurrentExecutions=0)['ReservedConcurrentExecutions'] == 0
    assert fn.get_function_concurrency(FunctionName='reserved')['ReservedConcurrentExecutions'] == 0
    refused('TooManyRequestsException', 429, fn.invoke, FunctionName='reserved', Payload=b'{}')
    fn.delete_function_concurrency(FunctionName='reserved')
    assert 'ReservedConcurrentExecutions' not in fn.get_function_concurrency(FunctionName='reserved')
    assert call(fn, 'reserved', 2)[1]['echo'] == 2


def test_tags_policy_event_config(fn):
    arn = create(fn, 'small')['FunctionArn']
    fn.tag_resource(Resource=arn, Tags={'x': '1', 'y': '2'})
    fn.untag_resource(Resource=arn, TagKeys=['x'])
    assert fn.list_tags(Resource=arn)['Tags'] == {'y': '2'}
    fn.add_permission(FunctionName='small', StatementId='s', Action='lambda:InvokeFunction', Principal='s3.amazonaws.com')
    assert json.loads(fn.get_policy(FunctionName='small')['Policy'])['Statement'][0]['Sid'] == 's'
    fn.remove_permission(FunctionName='small', StatementId='s')
    refused('ResourceNotFoundException', 404, fn.get_policy, FunctionName='small')
    assert fn.put_function_event_invoke_config(FunctionName='small', MaximumRetryAttempts=0)['MaximumRetryAttempts'] == 0
    fn.delete_function_event_invoke_config(FunctionName='small')


def link():
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        i = zipfile.ZipInfo('out')
        i.create_system, i.external_attr = 3, 0o120777 << 16
        z.writestr(i, '/etc')
        z.writestr('out/passwd', 'x')
    return out.getvalue()


def bomb():
    return zipped(extra=[(f'zero{i}', bytes(60 << 20)) for i in range(5)])


@pytest.mark.parametrize('code', [lambda: b'not a zip', lambda: zipped(name='../up.py'), lambda: zipped(name='/etc/tandem-was-here.py'), link, bomb,
                                  lambda: zipped()[:-30], lambda: b''])
def test_hostile_zips(fn, code):
    name = 'bad-' + uuid.uuid4().hex[:6]
    got = refused('InvalidParameterValueException', 400, create, fn, name, code=code() or b'\0')
    assert got['Error']['Message']
    refused('ResourceNotFoundException', 404, fn.get_function, FunctionName=name)


@pytest.mark.parametrize('more,code', [
    ({'Runtime': 'cobol'}, 'InvalidParameterValueException'), ({'Timeout': 901}, 'ValidationException'),
    ({'MemorySize': 100}, 'ValidationException'), ({'Role': 'me'}, 'ValidationException'),
    ({'Environment': {'Variables': {'AWS_REGION': 'x'}}}, 'InvalidParameterValueException'),
    ({'Environment': {'Variables': {'AA': 'x' * 5000}}}, 'InvalidParameterValueException'),
    ({'FileSystemConfigs': [{'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/v', 'LocalMountPath': '/etc'}]}, 'ValidationException'),
])
def test_bad_configurations(tandem, more, code):
    import boto3, botocore.config
    tandem.boto('lambda')
    fn = boto3.client('lambda', endpoint_url=tandem.status['aws'], region_name='us-east-1', aws_access_key_id=tandem.key['AccessKeyId'],
                      aws_secret_access_key=tandem.key['SecretAccessKey'], config=botocore.config.Config(parameter_validation=False))
    refused(code, 400, create, fn, **more)


def test_twice_is_a_conflict(fn, name):
    refused('ResourceConflictException', 409, create, fn, name)


def test_signatures(tandem):
    import boto3
    who = dict(endpoint_url=tandem.status['aws'], region_name='us-east-1')
    refused('UnrecognizedClientException', 403, boto3.client('lambda', aws_access_key_id='AKIAAAAAAAAAAAAAAAAA', aws_secret_access_key='x', **who).list_functions)
    refused('InvalidSignatureException', 403, boto3.client('lambda', aws_access_key_id=tandem.key['AccessKeyId'], aws_secret_access_key='wrong', **who).list_functions)
    assert tandem.boto('sts').get_caller_identity()['Account'] == '000000000000'


def test_what_is_not_served_says_so(fn, name):
    assert refused('NotImplementedException', 501, fn.list_capacity_providers)


def test_a_volume_in_a_function(tandem, fn):
    s3 = tandem.boto('s3')
    s3.create_bucket(Bucket='for-functions')
    s3.put_object(Bucket='for-functions', Key='in.txt', Body=b'from s3')
    create(fn, 'of-volume', Code={'ZipFile': zipped('def handler(e, c):\n    t = open("/mnt/v/in.txt").read()\n    open("/mnt/v/out.txt", "w").write(t.upper())\n    return t\n')},
           FileSystemConfigs=[{'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/for-functions', 'LocalMountPath': '/mnt/v'}])
    assert call(fn, 'of-volume', {})[1] == 'from s3'
    assert s3.get_object(Bucket='for-functions', Key='out.txt')['Body'].read() == b'FROM S3'
