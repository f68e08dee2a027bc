"""Traces: W3C's and X-Ray's context through functions of every kind, as callers and functions see it."""
import json, re, shutil, urllib.request, uuid

import pytest

from conftest import eventually
from test_lambda import call, create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

ID, SPAN = '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'
PARENT = f'00-{ID}-{SPAN}-01'
ROOT = f'Root=1-{ID[:8]}-{ID[8:]}'
SEEN = '''
import json, os
def handler(event, context):
    print('SEEN ' + json.dumps([event.get('n') if isinstance(event, dict) else None, os.environ.get('_X_AMZN_TRACE_ID')]))
    return {'trace': os.environ.get('_X_AMZN_TRACE_ID')}
'''
NODE = 'exports.handler = async () => ({trace: process.env._X_AMZN_TRACE_ID})'
BOOTSTRAP = r'''#!/usr/bin/python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
while True:
    api.request('GET', '/2018-06-01/runtime/invocation/next')
    got = api.getresponse()
    got.read()
    api.request('POST', f'/2018-06-01/runtime/invocation/{got.headers["Lambda-Runtime-Aws-Request-Id"]}/response',
                json.dumps({'trace': got.headers['Lambda-Runtime-Trace-Id']}))
    api.getresponse().read()
'''
HTTP = r'''#!/usr/bin/python3
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        data = json.dumps({name: self.headers.get(name) for name in ('traceparent', 'tracestate', 'x-amzn-trace-id')}).encode()
        self.send_response(503 if self.path == '/fail' else 200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *a):
        pass
HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
'''


def fields(text):
    return dict(part.split('=', 1) for part in text.split(';'))


@pytest.fixture(scope='module')
def seen(fn):
    create(fn, 'trace-py', code=zipped(SEEN))
    fn.create_function_url_config(FunctionName='trace-py', AuthType='NONE')
    yield fn
    fn.delete_function(FunctionName='trace-py')


def with_headers(client, headers, what):
    """One call of boto3's with headers of our own."""
    def add(request, **_):
        for name, value in headers.items():
            request.headers[name] = value
    client.meta.events.register('before-sign.lambda', add)
    try:
        return what()
    finally:
        client.meta.events.unregister('before-sign.lambda', add)


def ask(tandem, name, headers, path=''):
    request = urllib.request.Request(f'{tandem.status["gateway"]}/function/{name}/{path}', headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_every_call_has_an_id(seen):
    traces = [call(seen, 'trace-py', {})[1]['trace'] for _ in range(3)]
    assert all(re.fullmatch('Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0', t) for t in traces), traces
    assert len({fields(t)['Root'] for t in traces}) == 3


def test_what_the_caller_says_goes_on(tandem, seen):
    for headers, want in (({'traceparent': PARENT}, f'{ROOT};Parent={SPAN};Sampled=1'),
                          ({'traceparent': PARENT[:-1] + '0'}, f'{ROOT};Parent={SPAN};Sampled=0'),
                          ({'X-Amzn-Trace-Id': f'{ROOT};Parent={SPAN};Sampled=1;Lineage=1:abc:0'}, f'{ROOT};Parent={SPAN};Sampled=1;Lineage=1:abc:0'),
                          ({'traceparent': PARENT, 'X-Amzn-Trace-Id': 'Root=1-11111111-111111111111111111111111;Sampled=0'}, f'{ROOT};Parent={SPAN};Sampled=1')):
        assert ask(tandem, 'trace-py', headers)['trace'] == want
        assert with_headers(seen, headers, lambda: call(seen, 'trace-py', {}))[1]['trace'] == want
    got = fields(ask(tandem, 'trace-py', {'X-Amzn-Trace-Id': ROOT})['trace'])        # an id, and no word on sampling
    assert 'Root=' + got['Root'] == ROOT and got['Sampled'] == '0' and len(got['Parent']) == 16
    for bad in ('00-' + ID, f'ff-{ID}-{SPAN}-01', f'00-{"0" * 32}-{SPAN}-01', 'x' * 4000):
        got = fields(ask(tandem, 'trace-py', {'traceparent': bad})['trace'])
        assert 'Root=' + got['Root'] != ROOT and len(got['Root']) == 35


@pytest.mark.parametrize('runtime', ['nodejs20.x', 'provided.al2023'])
def test_other_runtimes_are_told(fn, runtime):
    if runtime == 'nodejs20.x' and not shutil.which('node'):
        pytest.skip('needs node')
    name = 'trace-' + runtime[:4]
    create(fn, name, Runtime=runtime, Handler='index.handler', Timeout=20,
           code=zipped(NODE, 'index.js') if runtime == 'nodejs20.x' else executable(BOOTSTRAP))
    try:
        got = with_headers(fn, {'traceparent': PARENT}, lambda: call(fn, name, {}))[1]
        assert got == {'trace': f'{ROOT};Parent={SPAN};Sampled=1'}
    finally:
        fn.delete_function(FunctionName=name)


def test_active_samples(fn):
    create(fn, 'trace-active', code=zipped(SEEN), TracingConfig={'Mode': 'Active'})
    try:
        # the first of each second and 5 % of the rest
        got = [fields(call(fn, 'trace-active', {})[1]['trace'])['Sampled'] for _ in range(40)]
        assert '1' in got and '0' in got
        answer, _ = with_headers(fn, {'traceparent': PARENT[:-1] + '0'}, lambda: call(fn, 'trace-active', {}))
        assert answer['StatusCode'] == 200
    finally:
        fn.delete_function(FunctionName='trace-active')


def test_logs_and_trace_show_the_ids(tandem, seen):
    answer, _ = with_headers(seen, {'traceparent': PARENT}, lambda: call(seen, 'trace-py', {}, LogType='Tail'))
    import base64
    tail = base64.b64decode(answer['LogResult']).decode()
    assert f'\tXRAY TraceId: 1-{ID[:8]}-{ID[8:]}\tSegmentId: {SPAN}\tSampled: true\t' in tail
    request = answer['ResponseMetadata']['RequestId']
    text = eventually(lambda: tandem.tandem('trace', request, check=False).stdout, 10)
    assert f'trace     {ID}, span {SPAN}\n' in text
    one = json.loads(tandem.tandem('trace', request, '--json').stdout)[0]
    assert (one['traceId'], one['spanId']) == (ID, SPAN)
    create(seen, 'trace-json', code=zipped(SEEN), LoggingConfig={'LogFormat': 'JSON', 'SystemLogLevel': 'DEBUG'})
    try:
        answer, _ = with_headers(seen, {'traceparent': PARENT}, lambda: call(seen, 'trace-json', {}, LogType='Tail'))
        lines = [json.loads(line) for line in base64.b64decode(answer['LogResult']).decode().splitlines() if line.startswith('{')]
        told = {line['type']: line['record'].get('tracing') for line in lines if 'type' in line}
        for kind in ('platform.start', 'platform.runtimeDone', 'platform.report'):
            assert told[kind] == {'spanId': SPAN, 'type': 'X-Amzn-Trace-Id', 'value': f'{ROOT};Parent={SPAN};Sampled=1'}, told
        request = answer['ResponseMetadata']['RequestId']
        assert eventually(lambda: json.loads(tandem.tandem('trace', request, '--json', check=False).stdout)[0], 10)['traceId'] == ID
    finally:
        seen.delete_function(FunctionName='trace-json')


def seen_of(tandem, n):
    for line in tandem.tandem('logs', 'trace-py', check=False).stdout.splitlines():
        if 'SEEN ' in line:
            which, trace = json.loads(line.split('SEEN ', 1)[1])
            if which == n:
                return trace


def test_events_carry_the_senders_context(tandem, seen):
    n = uuid.uuid4().hex
    with_headers(seen, {'traceparent': PARENT},
                 lambda: seen.invoke(FunctionName='trace-py', InvocationType='Event', Payload=json.dumps({'n': n})))
    assert eventually(lambda: seen_of(tandem, n)) == f'{ROOT};Parent={SPAN};Sampled=1'


def test_objects_carry_the_context_of_the_put(tandem, fn, seen):
    s3 = tandem.boto('s3')
    s3.create_bucket(Bucket='trace-bucket')
    arn = fn.get_function(FunctionName='trace-py')['Configuration']['FunctionArn']
    create(fn, 'trace-put', code=zipped(SEEN.replace("event.get('n') if isinstance(event, dict) else None", "event['Records'][0]['s3']['object']['key']")))
    try:
        s3.put_bucket_notification_configuration(Bucket='trace-bucket', NotificationConfiguration={'LambdaFunctionConfigurations': [
            {'LambdaFunctionArn': arn.replace('trace-py', 'trace-put'), 'Events': ['s3:ObjectCreated:*']}]})
        key = uuid.uuid4().hex

        def put():                                     # until the notification is known
            s3.put_object(Bucket='trace-bucket', Key=key, Body=b'x')
            text = tandem.tandem('logs', 'trace-put', check=False).stdout
            return key in text and text
        s3.meta.events.register('before-sign.s3', lambda request, **_: request.headers.__setitem__('traceparent', PARENT))
        text = eventually(put, every=0.5)
        assert f'{ROOT};Parent={SPAN};Sampled=1' in text
    finally:
        fn.delete_function(FunctionName='trace-put')
        s3.delete_object(Bucket='trace-bucket', Key=key)
        s3.delete_bucket(Bucket='trace-bucket')


@pytest.fixture(scope='module')
def server(tandem, fn):
    create(fn, 'trace-http', Runtime='provided.al2023', code=executable(HTTP))
    fn.create_function_url_config(FunctionName='trace-http', AuthType='NONE')
    tandem.kubectl('patch', 'function', 'trace-http', '--type=merge', '-p', '{"spec":{"http":{"port":8080}}}')
    eventually(lambda: 'traceparent' in ask(tandem, 'trace-http', {}))
    yield 'trace-http'
    fn.delete_function(FunctionName='trace-http')


def test_http_functions_get_the_headers_as_they_came(tandem, server):
    headers = {'traceparent': PARENT, 'tracestate': 'a=1,b=2', 'x-amzn-trace-id': f'{ROOT};Sampled=1'}
    assert ask(tandem, server, headers) == headers
    assert ask(tandem, server, {}) == {'traceparent': None, 'tracestate': None, 'x-amzn-trace-id': None}
