"""Who has a function here, or may call one by HTTP, and means ill: neither the gateway's memory nor its other callers pay for it."""
import http.client, json, os, socket, threading, time, urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_functions_http import port
from test_lambda import call, create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

SERVER = r'''#!/usr/bin/python3
import os, socket, threading, time
MB = b'x' * (1 << 20)
def head(c):
    data = b''
    while b'\r\n\r\n' not in data and (got := c.recv(65536)):
        data += got
    return data.split(b'\r\n\r\n', 1)
def serve(c):
    top, rest = head(c)
    path = top.split()[1].decode()
    if path == '/take':                               # all of it, then the answer
        length = int([l for l in top.lower().split(b'\r\n') if l.startswith(b'content-length')][0].split(b':')[1])
        n = len(rest)
        while n < length:
            n += len(c.recv(1 << 20))
        c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d' % (len(str(n)), n))
    elif path == '/give':
        c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % (200 << 20))
        for _ in range(200):
            c.sendall(MB)
    elif path == '/deaf':                             # takes no byte of a body
        time.sleep(8)
    elif path == '/headers':
        c.sendall(b'HTTP/1.1 200 OK\r\n')
        for n in range(100000):
            c.sendall(b'x-%d: %s\r\n' % (n, b'y' * 100))
    elif path == '/endless-line':
        for n in range(64):
            c.sendall(MB)
    elif path == '/nonsense':
        c.sendall(b'\0\1\2\3 no answer\r\n\r\n' * 1000)
    elif path == '/half':                             # says all, and closes its way only
        c.sendall(b'HTTP/1.1 200 OK\r\n\r\nhalf')
        c.shutdown(socket.SHUT_WR)
        time.sleep(5)
    else:
        c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell')
    c.close()
s = socket.create_server(('0.0.0.0', int(os.environ['PORT'])), backlog=512)
while True:
    c, _ = s.accept()
    def run(c=c):
        try:
            serve(c)
        except OSError:
            pass
    threading.Thread(target=run, daemon=True).start()
'''


@pytest.fixture(scope='module')
def evil(tandem, fn):
    """A program of somebody who means ill, as an HTTP function."""
    create(fn, 'hostile-http', code=executable(SERVER), Runtime='provided.al2023', Handler='any', Timeout=20, MemorySize=256)
    tandem.kubectl('patch', 'function', 'hostile-http', '--type=merge', '-p', json.dumps({'spec': {
        'http': {'port': 8080, 'concurrency': 50}, 'url': {'enabled': True, 'authType': 'NONE'}}}))
    eventually(lambda: ask(tandem, 'hostile-http', '/')[1] == b'well')
    yield 'hostile-http'
    fn.delete_function(FunctionName='hostile-http')


@pytest.fixture(scope='module')
def quiet(tandem, fn):
    """Somebody else's function, which is well all the time."""
    create(fn, 'hostile-quiet', code=zipped('def handler(event, context):\n    return "well"\n'), Timeout=20)
    fn.create_function_url_config(FunctionName='hostile-quiet', AuthType='NONE')
    eventually(lambda: ask(tandem, 'hostile-quiet', '/')[0] == 200)
    yield 'hostile-quiet'
    fn.delete_function(FunctionName='hostile-quiet')


def ask(tandem, name, path, body=None, headers={}, method=None):
    c = http.client.HTTPConnection('127.0.0.1', port(tandem), timeout=40)
    c.request(method or ('POST' if body is not None else 'GET'), f'/function/{name}{path}', body, headers)
    got = c.getresponse()
    return got.status, got.read()


def used_mb(tandem):
    text = open(f'/proc/{tandem.processes()["gateway"]}/status').read()
    return int(next(l for l in text.splitlines() if l.startswith('VmRSS')).split()[1]) // 1024


class Watched:
    """The gateway's memory while something is done: at most so many MB more than before, and the same process after."""
    def __init__(self, tandem, mb):
        self.tandem, self.mb = tandem, mb
    def __enter__(self):
        self.before, self.most, self.over = used_mb(self.tandem), 0, False
        self.pid = self.tandem.processes()['gateway']
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self
    def look(self):
        while not self.over:
            self.most = max(self.most, used_mb(self.tandem))
            time.sleep(0.05)
    def __exit__(self, *said):
        self.over = True
        self.thread.join()
        if not said[0]:
            assert self.most <= self.before + self.mb, (self.before, self.most)
            assert self.tandem.processes()['gateway'] == self.pid


def test_200_megabytes_each_way(tandem, evil):
    def pieces():
        for _ in range(200):
            yield b'x' * (1 << 20)
    with Watched(tandem, 32):
        assert ask(tandem, evil, '/take', pieces(), {'Content-Length': str(200 << 20)}) == (200, str(200 << 20).encode())
        with urllib.request.urlopen(f'http://127.0.0.1:{port(tandem)}/function/{evil}/give', timeout=60) as got:
            n = 0
            while piece := got.read(1 << 20):
                n += len(piece)
        assert n == 200 << 20


def test_who_reads_nothing_holds_nothing(tandem, evil, quiet):
    """Clients that ask for 200 MB and read none of it; a function that takes none of what is sent."""
    with Watched(tandem, 64):
        deaf = []
        for _ in range(20):
            s = socket.create_connection(('127.0.0.1', port(tandem)))
            s.sendall(f'GET /function/{evil}/give HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
            deaf.append(s)
        for _ in range(5):
            s = socket.create_connection(('127.0.0.1', port(tandem)))
            s.sendall(f'POST /function/{evil}/deaf HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n\r\n'.encode())
            s.setblocking(False)
            deaf.append(s)
        for _ in range(40):
            for s in deaf[20:]:
                try:
                    while s.send(b'x' * 65536):
                        pass
                except OSError:
                    pass
            time.sleep(0.05)
        assert ask(tandem, quiet, '/')[0] == 200
        for s in deaf:
            s.close()
    eventually(lambda: ask(tandem, evil, '/')[1] == b'well')


@pytest.mark.parametrize('path', ['/headers', '/endless-line', '/nonsense'])
def test_answers_that_are_none(tandem, evil, path):
    with Watched(tandem, 32):
        status, body = ask(tandem, evil, path)
        assert status == 502, (status, body[:200])
    assert ask(tandem, evil, '/')[1] == b'well'


def test_half_closed_streams(tandem, evil):
    assert ask(tandem, evil, '/half') == (200, b'half')
    s = socket.create_connection(('127.0.0.1', port(tandem)))
    s.sendall(f'GET /function/{evil}/ HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
    s.shutdown(socket.SHUT_WR)
    s.settimeout(20)
    data = b''
    while piece := s.recv(65536):
        data += piece
    assert data.startswith(b'HTTP/1.1 200') and data.endswith(b'well')


def test_header_bombs(tandem, quiet):
    with Watched(tandem, 32):
        for bomb in (b'x-%d: %s\r\n' % (7, b'y' * 100)) * 50000, b'x: ' + b'y' * (5 << 20), b'Cookie: ' + b'a=b;' * 200000:
            s = socket.create_connection(('127.0.0.1', port(tandem)))
            s.settimeout(20)
            try:
                s.sendall(f'GET /function/{quiet}/ HTTP/1.1\r\n'.encode() + bomb)
            except OSError:
                pass
            try:
                got = s.recv(4096)
            except ConnectionError:
                got = b''
            assert not got or got.startswith((b'HTTP/1.1 431', b'HTTP/1.1 400')), got
            s.close()
    assert ask(tandem, quiet, '/')[0] == 200


def test_connections_that_idle(tandem, quiet):
    """More than a server takes: whoever idles longest makes room, and somebody new is served."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 12000:
        pytest.skip(f'the machine allows {hard} open files')
    conns = []
    try:
        for n in range(9000):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            s.connect(('127.0.0.1', port(tandem)))
            conns.append(s)
            if n % 100 == 0:                          # used once, kept alive
                s.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
        for _ in range(3):
            assert ask(tandem, quiet, '/')[0] == 200
    finally:
        for s in conns:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ask(tandem, quiet, '/')[0] == 200


PRINTS = r'''
import os, sys, time
def handler(event, context):
    do = event.get('do')
    if do == 'no-newline':
        block = 'x' * (1 << 20)
        for _ in range(200):
            sys.stdout.write(block)
        sys.stdout.flush()
    if do == 'descriptors':
        held = []
        try:
            while True:
                held.append(os.open('/dev/null', os.O_RDONLY))
        except OSError:
            n = len(held)
            for fd in held:
                os.close(fd)
            return n
    if do == 'threads':
        import threading
        n = 0
        try:
            while n < 20000:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                n += 1
        except RuntimeError:
            pass
        return 'well' if n < 20000 else n
    if do == 'disk':
        try:
            with open('/tmp/full', 'wb') as f:
                while True:
                    f.write(b'x' * (1 << 20))
        except OSError:
            os.remove('/tmp/full')
    return 'well'
'''


def test_a_function_that_takes_all_it_can(tandem, fn, quiet):
    create(fn, 'hostile-takes', code=zipped(PRINTS), Timeout=20, MemorySize=256)
    try:
        with Watched(tandem, 64):
            assert call(fn, 'hostile-takes', {'do': 'no-newline'})[1] == 'well'
            assert call(fn, 'hostile-takes', {'do': 'descriptors'})[1] < 1024
            for do in ('threads', 'disk'):
                value = call(fn, 'hostile-takes', {'do': do})[1]
                assert value == 'well' or value['errorType'] in ('Runtime.OutOfMemory', 'Sandbox.Timedout', 'Runtime.ExitError'), value
            assert ask(tandem, quiet, '/')[0] == 200
        assert call(fn, 'hostile-takes', {})[1] == 'well'
    finally:
        fn.delete_function(FunctionName='hostile-takes')


DEAF = r'''#!/usr/bin/python3
import http.client, json, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
def ask(method, path, body=None, **headers):
    api.request(method, path, json.dumps(body) if body is not None else None, {k.replace('_', '-'): v for k, v in headers.items()})
    got = api.getresponse()
    got.value = json.loads(got.read() or b'null') if 'event/next' in path else got.read()
    return got
s = socket.create_server(('127.0.0.1', 4244))             # takes connections, and reads nothing
me = ask('POST', '/2020-01-01/extension/register', {'events': ['INVOKE', 'SHUTDOWN']}, Lambda_Extension_Name=os.path.basename(__file__)).headers['Lambda-Extension-Identifier']
got = ask('PUT', '/2022-07-01/telemetry', {'schemaVersion': '2022-12-13', 'types': ['platform', 'function', 'extension'], 'buffering': {'maxItems': 1000, 'timeoutMs': 25},
          'destination': {'protocol': 'TCP', 'port': 4244}}, Lambda_Extension_Identifier=me)
assert got.status == 200, got.status
while True:
    if ask('GET', '/2020-01-01/extension/event/next', Lambda_Extension_Identifier=me).value['eventType'] == 'SHUTDOWN':
        time.sleep(1000)
'''
FLOODS = r'''
import sys
def handler(event, context):
    for n in range(event.get('lines', 0)):
        sys.stdout.write('a line of the flood, which nobody will ever read %d\n' % n)
    return 'well'
'''


def test_an_extension_that_neither_reads_nor_leaves(tandem, fn):
    """A subscriber of telemetry whose socket is full holds nobody up; at SHUTDOWN it has its two seconds, not more."""
    layer = fn.publish_layer_version(LayerName='hostile-layer', Content={'ZipFile': executable(DEAF, name='extensions/hostile-deaf')})
    create(fn, 'hostile-extended', code=zipped(FLOODS), Timeout=30, MemorySize=256, Layers=[layer['LayerVersionArn']])
    try:
        with Watched(tandem, 64):
            for _ in range(3):
                assert call(fn, 'hostile-extended', {'lines': 100000})[1] == 'well'
        was = tandem.pids(command=b'hostile-deaf')
        assert was
        fn.update_function_configuration(FunctionName='hostile-extended', Environment={'Variables': {'ANOTHER': '1'}})
        eventually(lambda: not was & tandem.pids(command=b'hostile-deaf'))
    finally:
        fn.delete_function(FunctionName='hostile-extended')
        fn.delete_layer_version(LayerName='hostile-layer', VersionNumber=layer['Version'])


NOBODY = r'''#!/usr/bin/python3
import os, socket, time
s = socket.create_server(('0.0.0.0', int(os.environ['PORT'])), backlog=1)
time.sleep(1000)                                          # listens, and never accepts
'''


def test_connections_that_nobody_takes(tandem, fn, quiet):
    create(fn, 'hostile-nobody', code=executable(NOBODY), Runtime='provided.al2023', Handler='any', Timeout=3, MemorySize=128)
    files = lambda: len(os.listdir(f'/proc/{tandem.processes()["gateway"]}/fd'))
    try:
        tandem.kubectl('patch', 'function', 'hostile-nobody', '--type=merge', '-p', json.dumps({'spec': {
            'http': {'port': 8080, 'concurrency': 100}, 'url': {'enabled': True, 'authType': 'NONE'}, 'reservedConcurrency': 2}}))
        eventually(lambda: tandem.get('function', 'hostile-nobody')['spec'].get('http'))
        before, said = files(), []
        with Watched(tandem, 64):
            threads = [threading.Thread(target=lambda: said.append(ask(tandem, 'hostile-nobody', '/')[0])) for _ in range(300)]
            for t in threads:
                t.start()
            assert ask(tandem, quiet, '/')[0] == 200
            for t in threads:
                t.join()
        assert len(said) == 300 and set(said) <= {429, 502, 503, 504}, set(said)
        assert ask(tandem, quiet, '/')[0] == 200
    finally:
        fn.delete_function(FunctionName='hostile-nobody')
    eventually(lambda: files() < before + 100)


@pytest.mark.parametrize('runtime, code, handler', [
    ('provided.al2023', executable('#!/bin/sh\nbomb() { bomb | bomb & }\nbomb\nsleep 100\n'), 'any'),
    ('nodejs18.x', zipped("const { spawn } = require('child_process');\nexports.handler = async () => { for (;;) { spawn('/bin/sh', ['-c', 'sleep 60 & sleep 60']); "
                          "await new Promise((r) => setTimeout(r, 1)); } };\n", 'index.js'), 'index.handler'),
])
def test_fork_bombs(tandem, fn, quiet, runtime, code, handler):
    name = 'hostile-bomb-' + runtime[:4]
    try:
        create(fn, name, code=code, Runtime=runtime, Handler=handler, Timeout=4, MemorySize=256)
    except fn.exceptions.InvalidParameterValueException as e:
        pytest.skip(str(e))
    try:
        with Watched(tandem, 64):
            answer, value = call(fn, name, {})
            assert answer.get('FunctionError') and value['errorType'], value
            assert ask(tandem, quiet, '/')[0] == 200
    finally:
        fn.delete_function(FunctionName=name)
    eventually(lambda: not tandem.pids(command=b'bomb') and not tandem.pids(command=b'sleep 60'))


def test_an_environment_that_no_program_takes(tandem, fn):
    """By kubectl, past Lambda's 4 KB: more than the kernel hands to a program is said, not waited for."""
    create(fn, 'hostile-env', code=executable('#!/bin/sh\nsleep 100\n'), Runtime='provided.al2023', Handler='any', Timeout=5, MemorySize=128)
    try:
        of = tandem.get('function', 'hostile-env')
        of['spec']['environment'] = {'BIG': 'x' * 400000}
        tandem.kubectl('replace', '-f', '-', text=json.dumps(of))
        with pytest.raises(ClientError, match='too long'):
            fn.invoke(FunctionName='hostile-env')
    finally:
        fn.delete_function(FunctionName='hostile-env')
