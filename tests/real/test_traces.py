"""Traces: W3C's and X-Ray's context through functions of every kind, as callers and functions see it."""
import base64, http.client, http.server, json, os, re, shutil, socket, subprocess, threading, time, urllib.error, urllib.request, uuid
from unittest import mock

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse

from conftest import eventually, running
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


# ---- spans to a collector ---------------------------------------------------------------------------------

class Collector:
    """An OTLP/HTTP endpoint: what comes is read with OpenTelemetry's own messages."""

    def __init__(self):
        self.spans, self.resources, self.headers, self.answers, self.bad, self.gone = [], [], [], [], [], False
        outer = self

        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                body = self.rfile.read(int(self.headers['Content-Length']))
                if outer.gone:
                    self.close_connection = True
                    return
                status, answer = outer.answers.pop(0) if outer.answers else (200, b'')
                try:
                    assert self.headers['Content-Type'] == 'application/x-protobuf' and self.path == '/base/v1/traces', (self.path, self.headers)
                    got = ExportTraceServiceRequest.FromString(body)
                    assert not has_unknown(got)
                except Exception as e:
                    outer.bad.append(e)
                if status == 200 and not outer.bad:
                    outer.headers.append(dict(self.headers))
                    for r in got.resource_spans:
                        outer.resources.append({a.key: a.value.string_value for a in r.resource.attributes})
                        for s in r.scope_spans:
                            assert s.scope.name == 'tandem'
                            outer.spans.extend(s.spans)
                self.send_response(status)
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *a):
                pass
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)
        self.url = f'http://127.0.0.1:{self.server.server_port}/base/'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, trace):
        assert not self.bad, self.bad
        return [s for s in self.spans if s.trace_id.hex() == trace]


def has_unknown(message):
    from google.protobuf.unknown_fields import UnknownFieldSet
    return len(UnknownFieldSet(message)) or any(has_unknown(m) for field, value in message.ListFields() if field.type == field.TYPE_MESSAGE
                                                for m in (value if hasattr(value, '__len__') and not hasattr(value, 'ListFields') else [value]))


def attrs(span):
    return {a.key: getattr(a.value, a.value.WhichOneof('value')) for a in span.attributes}


@pytest.fixture(scope='module')
def traced():
    with mock.patch.dict(os.environ, {'OTEL_EXPORTER_OTLP_HEADERS': 'x-key=a%20b,x-other=c', 'OTEL_RESOURCE_ATTRIBUTES': 'deployment.environment.name=test'}):
        collector = Collector()
        with running('--otlp-endpoint', collector.url, '--pod-cidr', '10.77.0.0/16', '--service-cidr', '10.78.0.0/16', prefix='tt-otlp-') as one:
            one.collector = collector
            yield one
        collector.server.shutdown()


@pytest.fixture(scope='module')
def traced_fn(traced):
    client = traced.boto('lambda')
    create(client, 'spans', code=zipped(SEEN ))
    client.create_function_url_config(FunctionName='spans', AuthType='NONE')
    return client


def test_a_call_is_a_span_with_its_steps(traced, traced_fn):
    trace = uuid.uuid4().hex
    got = ask(traced, 'spans', {'traceparent': f'00-{trace}-{SPAN}-01', 'tracestate': 'a=1', 'User-Agent': 'me/1'}, 'x/y?q=1')
    spans = eventually(lambda: (got := traced.collector.of(trace)) and any(s.kind == 2 for s in got) and got)
    server = [s for s in spans if s.kind == 2]
    assert len(server) == 1, spans
    server = server[0]
    assert (server.name, server.parent_span_id.hex(), server.trace_state, server.flags & 0x301) == ('spans', SPAN, 'a=1', 0x301)
    assert fields(got['trace']) == {'Root': f'1-{trace[:8]}-{trace[8:]}', 'Parent': server.span_id.hex(), 'Sampled': '1'}
    a = attrs(server)
    assert re.fullmatch('[0-9a-f-]{36}', a.pop('faas.invocation_id'))
    cold, rung, port = a.pop('faas.coldstart'), a.pop('tandem.rung'), a.pop('server.port')
    assert isinstance(cold, bool) and rung in ('warm', 'stem', 'zygote', 'runtime', 'fresh') and f':{port}' in traced.status['gateway']
    arn = 'arn:aws:lambda:us-east-1:000000000000:function:spans'
    assert a == {'http.request.method': 'GET', 'url.scheme': 'http', 'url.path': '/function/spans/x/y', 'url.query': 'q=1', 'client.address': '127.0.0.1',
                 'user_agent.original': 'me/1', 'network.protocol.version': '1.1', 'server.address': '127.0.0.1', 'http.response.status_code': 200,
                 'k8s.namespace.name': 'default', 'cloud.resource_id': arn, 'aws.lambda.invoked_arn': arn, 'faas.name': 'spans', 'faas.version': '$LATEST',
                 'faas.trigger': 'http', 'faas.max_memory': 128 << 20}
    steps = {s.name: s for s in spans if s is not server}
    assert 'handler' in steps and set(steps) <= {'gateway', 'queue', 'place', 'fork', 'init', 'handler'}
    for s in steps.values():
        assert s.parent_span_id == server.span_id and s.kind == 1 and len(s.span_id) == 8
        assert server.start_time_unix_nano - 1000_000 <= s.start_time_unix_nano <= s.end_time_unix_nano <= server.end_time_unix_nano + 1000_000
    assert abs(server.end_time_unix_nano / 1e9 - time.time()) < 120
    assert traced.collector.resources[-1] == {'service.name': 'tandem', 'host.name': socket.gethostname(), 'deployment.environment.name': 'test'}
    assert (traced.collector.headers[-1]['x-key'], traced.collector.headers[-1]['x-other']) == ('a b', 'c')


def test_who_is_sampled(traced, traced_fn):
    got = fields(call(traced_fn, 'spans', {})[1]['trace'])                              # nothing said: the sampler says yes
    assert got['Sampled'] == '1'
    eventually(lambda: traced.collector.of(got['Root'][2:].replace('-', '')), 20)
    trace = uuid.uuid4().hex
    assert fields(ask(traced, 'spans', {'traceparent': f'00-{trace}-{SPAN}-00'})['trace'])['Sampled'] == '0'
    traced_fn.update_function_configuration(FunctionName='spans', TracingConfig={'Mode': 'PassThrough'})
    traced_fn.get_waiter('function_updated_v2').wait(FunctionName='spans')
    other = fields(eventually(lambda: (lambda t: fields(t['trace'])['Sampled'] == '0' and t)(call(traced_fn, 'spans', {})[1]))['trace'])
    traced_fn.update_function_configuration(FunctionName='spans', TracingConfig={'Mode': 'Active'})
    eventually(lambda: fields(call(traced_fn, 'spans', {})[1]['trace'])['Sampled'] == '1')
    last = fields(call(traced_fn, 'spans', {})[1]['trace'])['Root'][2:].replace('-', '')
    eventually(lambda: traced.collector.of(last), 20)
    assert not traced.collector.of(trace) and not traced.collector.of(other['Root'][2:].replace('-', ''))


def test_events_and_failures(traced, traced_fn):
    create(traced_fn, 'spans-fail', code=zipped('def handler(e, c):\n    raise ValueError("asked to")\n'))
    traced_fn.put_function_event_invoke_config(FunctionName='spans-fail', MaximumRetryAttempts=0)
    trace = uuid.uuid4().hex
    with_headers(traced_fn, {'traceparent': f'00-{trace}-{SPAN}-01'}, lambda: traced_fn.invoke(FunctionName='spans-fail', InvocationType='Event', Payload=b'{}'))
    spans = eventually(lambda: len(got := [s for s in traced.collector.of(trace) if s.kind != 1]) == 2 and got, 20)
    producer, consumer = sorted(spans, key=lambda s: s.kind)
    assert (producer.kind, producer.name, producer.parent_span_id.hex()) == (4, 'send spans-fail', SPAN)
    assert (consumer.kind, consumer.name, consumer.parent_span_id) == (5, 'spans-fail', producer.span_id)
    assert (consumer.status.code, consumer.status.message, attrs(consumer)['error.type']) == (2, 'asked to', 'ValueError')
    assert attrs(producer)['messaging.message.id'] == attrs(consumer)['faas.invocation_id']


def test_http_functions_are_children(traced, traced_fn):
    create(traced_fn, 'spans-http', Runtime='provided.al2023', code=executable(HTTP))
    traced_fn.create_function_url_config(FunctionName='spans-http', AuthType='NONE')
    traced.kubectl('patch', 'function', 'spans-http', '--type=merge', '-p', '{"spec":{"http":{"port":8080}}}')
    eventually(lambda: 'traceparent' in ask(traced, 'spans-http', {}))
    trace = uuid.uuid4().hex
    with pytest.raises(urllib.error.HTTPError) as e:
        ask(traced, 'spans-http', {'traceparent': f'00-{trace}-{SPAN}-01', 'tracestate': 'a=1'}, 'fail')
    got = json.loads(e.value.read())
    server = eventually(lambda: [s for s in traced.collector.of(trace) if s.kind == 2], 20)[0]
    assert got == {'traceparent': f'00-{trace}-{server.span_id.hex()}-01', 'tracestate': 'a=1', 'x-amzn-trace-id': None}
    assert server.parent_span_id.hex() == SPAN and server.status.code == 2
    assert attrs(server)['http.response.status_code'] == 503 and attrs(server)['error.type'] == '503'


def counters(one):
    text = subprocess.run(['curl', '-s', '--unix-socket', f'{one.state}/run/gateway.sock', 'http://localhost/metrics'], text=True, capture_output=True).stdout
    return {m[1]: int(m[2]) for m in re.finditer(r'^tandem_trace_spans_total\{result="(\w+)"\} (\d+)$', text, re.M)}


def test_a_collector_that_refuses(traced, traced_fn):
    before = counters(traced)
    assert before['sent'] > 0 and before['dropped_failed'] == before['dropped_full'] == 0
    traced.collector.answers[:] = [(503, b''), (429, b'')]
    trace = uuid.uuid4().hex
    ask(traced, 'spans', {'traceparent': f'00-{trace}-{SPAN}-01'})
    eventually(lambda: traced.collector.of(trace), 40)                                  # tried again until it was taken
    traced.collector.answers[:] = [(400, b'')]
    ask(traced, 'spans', {'traceparent': f'00-{uuid.uuid4().hex}-{SPAN}-01'})
    eventually(lambda: counters(traced)['dropped_failed'] > 0, 20)                      # never again, and counted
    traced.collector.answers[:] = [(200, ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message='no')).SerializeToString())]
    ask(traced, 'spans', {'traceparent': f'00-{uuid.uuid4().hex}-{SPAN}-01'})
    eventually(lambda: counters(traced)['rejected'] == 1, 20)


def test_a_collector_that_has_gone(traced, traced_fn):
    """Calls go on; what nobody takes waits within its limit, and is counted when it does not fit."""
    traced.collector.gone = True
    body = 'x=' + 'y' * 1500

    def some(n):
        c = http.client.HTTPConnection(traced.status['gateway'].split('//')[1], timeout=30)
        for _ in range(n):
            c.request('GET', f'/function/spans/?{body}', headers={'traceparent': f'00-{uuid.uuid4().hex}-{SPAN}-01'})
            answer = c.getresponse()
            answer.read()
            assert answer.status == 200
    for _ in range(40):
        some(60)
        if counters(traced)['dropped_full']:
            break
    assert counters(traced)['dropped_full'] > 0


def test_endpoints_that_are_none(tandem, tmp_path):
    done = tandem.tandem('up', '--otlp-endpoint', 'localhost:4318', check=False)
    assert done.returncode == 2 and '--otlp-endpoint wants http://HOST:PORT' in done.stderr
