"""Lambda's Extensions API: external extensions in layers, beside Python, Node and provided runtimes."""
import base64, io, json, time, zipfile

import pytest

from conftest import eventually
from test_lambda import call, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import SHELL, executable

EXTENSION = r'''#!/usr/bin/python3
import http.client, json, os, sys, time
name, mode = os.path.basename(__file__), os.environ.get('MODE', '')
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
def ask(method, path, body=None, **headers):
    api.request(method, '/2020-01-01/extension/' + path, json.dumps(body) if body is not None else None, {k.replace('_', '-'): v for k, v in headers.items()})
    got = api.getresponse()
    return got, json.loads(got.read() or b'null')
if mode == 'crash':
    sys.exit(3)
got, value = ask('POST', 'register', {'events': ['INVOKE', 'SHUTDOWN']}, Lambda_Extension_Name=name)
assert got.status == 200 and value['functionVersion'] == '$LATEST', (got.status, value)
me = got.headers['Lambda-Extension-Identifier']
print(name, 'registered for', value['functionName'], flush=True)
if mode == 'init-error':
    ask('POST', 'init/error', {}, Lambda_Extension_Identifier=me, Lambda_Extension_Function_Error_Type='Extension.NoLicence')
    time.sleep(9)
got, _ = ask('POST', 'register', {'events': []}, Lambda_Extension_Name=name)
assert got.status == 403
got, _ = ask('GET', 'event/next', Lambda_Extension_Identifier='nobody')
assert got.status == 403
while True:
    got, event = ask('GET', 'event/next', Lambda_Extension_Identifier=me)
    print(name, 'got', json.dumps(event), flush=True)
    if event['eventType'] == 'SHUTDOWN':
        print(name, 'leaves', event['shutdownReason'], flush=True)
        sys.exit(0)
    if mode == 'slow':
        n = globals().get('n', 0) + 1
        time.sleep(2)
        print(name, 'rested', n, flush=True)
'''
TELEMETRY = r'''#!/usr/bin/python3
import http.client, http.server, json, os, sys, threading
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
def ask(method, path, body=None, **headers):
    api.request(method, path, json.dumps(body) if body is not None else None, {k.replace('_', '-'): v for k, v in headers.items()})
    got = api.getresponse()
    return got, got.read()
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a):
        pass
    def do_POST(self):
        batch = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        for event in batch:
            if event['type'] != 'extension':              # else it would hear itself for ever
                print('HEARD', json.dumps(event), flush=True)
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
server = http.server.ThreadingHTTPServer(('sandbox.localdomain', 4243), H)
threading.Thread(target=server.serve_forever, daemon=True).start()
got, _ = ask('POST', '/2020-01-01/extension/register', {'events': ['INVOKE', 'SHUTDOWN']}, Lambda_Extension_Name='tele')
me = got.headers['Lambda-Extension-Identifier']
to = {'protocol': 'HTTP', 'URI': 'http://sandbox.localdomain:4243/here'}
for bad in ({'types': ['nothing'], 'destination': to}, {'types': ['platform'], 'destination': {'protocol': 'HTTP', 'URI': 'http://example.org:80'}},
            {'types': ['platform'], 'destination': to, 'buffering': {'timeoutMs': 1}}):
    got, text = ask('PUT', '/2022-07-01/telemetry', {'schemaVersion': '2022-07-01', **bad}, Lambda_Extension_Identifier=me)
    assert got.status == 400, (bad, got.status, text)
path = os.environ.get('LOGS_API') or '/2022-07-01/telemetry'
got, text = ask('PUT', path, {'schemaVersion': '2022-07-01', 'types': ['platform', 'function'], 'destination': to,
                              'buffering': {'maxItems': 1000, 'maxBytes': 262144, 'timeoutMs': 100}}, Lambda_Extension_Identifier=me)
assert got.status == 200, (got.status, text)
while True:
    event = json.loads(ask('GET', '/2020-01-01/extension/event/next', Lambda_Extension_Identifier=me)[1])
    if event['eventType'] == 'SHUTDOWN':
        sys.exit(0)
'''
NODE = "exports.handler = async (event) => ({ node: event.n, pid: process.pid });"


def layer_of(names, text=EXTENSION):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for n in names:
            info = zipfile.ZipInfo('extensions/' + n)
            info.external_attr = 0o100755 << 16
            z.writestr(info, text)
    return out.getvalue()


@pytest.fixture(scope='module')
def layer(fn):
    return fn.publish_layer_version(LayerName='two-extensions', Content={'ZipFile': layer_of(['alpha', 'beta'])})['LayerVersionArn']


def log(tandem, name):
    return tandem.tandem('logs', name).stdout


def events(tandem, function, extension):
    return [json.loads(l.split(' got ', 1)[1]) for l in log(tandem, function).splitlines() if f'\t{extension} got ' in l]


def test_python_with_extensions(tandem, fn, layer):
    create(fn, 'ext-python', Layers=[layer], Timeout=60, MemorySize=256)
    began = time.time()
    answer, value = call(fn, 'ext-python', {'x': 1})
    assert value == {'echo': {'x': 1}, 'version': 1}
    answer, value = call(fn, 'ext-python', {'do': 'fail'}, LogType='Tail')
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'ValueError'
    ids = {l.split()[2] for l in base64.b64decode(answer['LogResult']).decode().splitlines() if l.startswith('START')}
    for e in ('alpha', 'beta'):
        eventually(lambda: len([x for x in events(tandem, 'ext-python', e) if x['eventType'] == 'INVOKE']) >= 2, 10)
        last = [x for x in events(tandem, 'ext-python', e) if x['eventType'] == 'INVOKE'][-1]
        assert last['requestId'] in ids and last['invokedFunctionArn'].endswith(':function:ext-python') and last['deadlineMs'] / 1000 > began
        assert last['tracing']['type'] == 'X-Amzn-Trace-Id'
    eventually(lambda: all(f'{e} leaves spindown' in log(tandem, 'ext-python') for e in ('alpha', 'beta')), 40)
    assert call(fn, 'ext-python', 5)[1]['echo'] == 5


def test_other_runtimes(tandem, fn, layer):
    create(fn, 'ext-shell', code=executable(SHELL), Runtime='provided.al2023', Handler='any', Layers=[layer])
    assert call(fn, 'ext-shell', {'n': 1})[1] == {'shell': {'n': 1}}
    eventually(lambda: events(tandem, 'ext-shell', 'beta'), 10)
    try:
        create(fn, 'ext-node', code=zipped(NODE, 'index.js'), Runtime='nodejs18.x', Handler='index.handler', Layers=[layer], MemorySize=256, Timeout=10)
    except fn.exceptions.InvalidParameterValueException:
        return
    assert call(fn, 'ext-node', {'n': 7})[1]['node'] == 7
    eventually(lambda: events(tandem, 'ext-node', 'alpha'), 10)


def test_a_slow_extension_holds_up_only_the_next_one(tandem, fn, layer):
    create(fn, 'ext-slow', Layers=[layer], Timeout=10, MemorySize=256, Environment={'Variables': {'MODE': 'slow'}})
    for n in (1, 2, 3):
        answer, value = call(fn, 'ext-slow', n, LogType='Tail')
        assert value['echo'] == n
        assert f'rested {n}' not in base64.b64decode(answer['LogResult']).decode()      # the answer did not wait for the extensions
    eventually(lambda: all(f'{e} rested 3' in log(tandem, 'ext-slow') for e in ('alpha', 'beta')))


def test_timeouts_are_told(tandem, fn, layer):
    create(fn, 'ext-late', Layers=[layer], Timeout=1, MemorySize=256)
    answer, value = call(fn, 'ext-late', {'do': 'sleep', 'seconds': 30})
    assert answer['FunctionError'] == 'Unhandled' and 'timed out after 1.00 seconds' in value['errorMessage']
    eventually(lambda: 'alpha leaves timeout' in log(tandem, 'ext-late'), 10)


def test_extensions_that_fail(fn, layer):
    for mode, kind in (('crash', 'Extension.Crash'), ('init-error', 'Extension.NoLicence')):
        create(fn, 'ext-' + mode, Layers=[layer], MemorySize=256, Environment={'Variables': {'MODE': mode}})
        answer, value = call(fn, 'ext-' + mode, {})
        assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == kind, value


def test_telemetry(tandem, fn):
    layer = fn.publish_layer_version(LayerName='tele', Content={'ZipFile': layer_of(['tele'], TELEMETRY)})['LayerVersionArn']
    for name, env in (('tele-new', {}), ('tele-old', {'LOGS_API': '/2020-08-15/logs'})):
        create(fn, name, Layers=[layer], Timeout=60, MemorySize=256, Environment={'Variables': {'AA': 'b', **env}})
        answer, _ = call(fn, name, {'do': 'print', 'text': 'to "all" who listen'}, LogType='Tail')
        tail = base64.b64decode(answer['LogResult']).decode()
        assert 'to "all" who listen' in tail
        request = answer['ResponseMetadata']['HTTPHeaders']['x-amzn-requestid']
        heard = lambda: [json.loads(l.split('HEARD ', 1)[1]) for l in log(tandem, name).splitlines() if 'HEARD ' in l]
        eventually(lambda: any(e['type'] == 'platform.report' and e['record']['requestId'] == request for e in heard()), 10)
        of = lambda: {e['type']: e['record'] for e in heard()}
        want = {'platform.initStart', 'platform.initRuntimeDone', 'platform.initReport', 'platform.start', 'platform.runtimeDone', 'platform.report',
                'platform.extension', 'platform.logsSubscription' if env else 'platform.telemetrySubscription', 'function'}
        eventually(lambda: want <= set(of()) or sorted(of()) and False)
        eventually(lambda: any(e['type'] == 'function' and 'to "all" who listen' in e['record'] for e in heard()))
        of = of()
        assert of['platform.report']['metrics']['billedDurationMs'] >= 1 and of['platform.report']['status'] == 'success'
        assert of['platform.start']['version'] == '$LATEST' and of['platform.extension']['events'] == ['INVOKE', 'SHUTDOWN']
        answer, _ = call(fn, name, {'do': 'fail'})
        eventually(lambda: any(e['type'] == 'platform.runtimeDone' and e['record']['status'] == 'error' for e in heard()), 10)
