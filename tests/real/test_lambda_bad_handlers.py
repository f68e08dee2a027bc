"""What handlers may do wrong: whoever calls gets Lambda's own answer, and the next call is well."""
import json

import pytest

from test_lambda import call, create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

CODE = r'''
import os, signal, socket, sys, time
def handler(event, context):
    do = event.get('do')
    if do == 'exit':
        sys.exit(3)
    if do == 'kill':
        os.kill(os.getpid(), signal.SIGSEGV)
        ctypes_needed = __import__('ctypes').string_at(0)
    if do == 'close':
        os.closerange(0, 1024)
        return 'closed'
    if do == 'close-socket':
        os.close(3)
        time.sleep(30)
    if do == 'write-socket':
        os.write(3, b'nonsense' * 100)
        time.sleep(30)
    if do == 'print':
        block = 'x' * 100 + '\n'
        until = time.time() + 2
        while time.time() < until:
            sys.stdout.write(block * 1000)
        return 'printed'
    if do == 'big':
        return 'x' * 7000000
    if do == 'fork-bomb':
        n = 0
        try:
            while True:
                if os.fork() == 0:
                    signal.pause()
                n += 1
        except OSError:
            return {'forks': n}
    if do == 'memory':
        return len(bytearray(800 << 20))
    if do == 'hang':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            time.sleep(1)
    if do == 'set':
        return {1, 2}
    if do == 'nan':
        return float('nan')
    if do == 'deep':
        return eval('[' * 90 + ']' * 90)
    return 'well'
'''
NONSENSE = r'''#!/usr/bin/python3
import http.client, json, os, socket
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
def ask(method, path, body=None, headers={}):
    c = http.client.HTTPConnection(host, int(port))
    c.request(method, path, body, headers)
    got = c.getresponse()
    return got, got.read()
while True:
    got, body = ask('GET', '/2018-06-01/runtime/invocation/next')
    id, do = got.headers['Lambda-Runtime-Aws-Request-Id'], json.loads(body).get('do')
    to = f'/2018-06-01/runtime/invocation/{id}/'
    if do == 'garbage':
        s = socket.create_connection((host, int(port)))
        s.sendall(b'\0\1\2 nonsense\r\n\r\n')
        s.close()
        s = socket.create_connection((host, int(port)))
        s.sendall(b'POST ' + to.encode() + b'response HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort')
        s.close()
    if do == 'other':
        assert ask('POST', '/2018-06-01/runtime/invocation/not-mine/response', '1')[0].status == 400
        assert ask('GET', '/nothing/like/that')[0].status == 404
    if do == 'headers':
        s = socket.create_connection((host, int(port)))
        try:
            for n in range(20000):
                s.sendall(b'GET / HTTP/1.1\r\n' if n == 0 else b'x-%d: %s\r\n' % (n, b'y' * 100))
        except OSError:
            pass
        s.close()
    if do == 'many':
        conns = [socket.create_connection((host, int(port))) for _ in range(60)]
        for c in conns:
            c.close()
    if do == 'seven':
        status = ask('POST', to + 'response', b'"' + b'x' * 7000000 + b'"')[0].status
        assert status == 413, status
        continue
    if do == 'cut':
        s = socket.create_connection((host, int(port)))
        s.sendall(b'POST ' + to.encode() + b'response HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
        s.close()
        continue
    ask('POST', to + 'response', 'this is {no JSON' if do == 'text' else '"well"')
    ask('POST', to + 'response', '"twice"')
'''


@pytest.fixture(scope='module')
def bad(fn):
    for name, seconds in (('bad', 25), ('bad-brief', 4), ('bad-bomb', 4)):
        create(fn, name, code=zipped(CODE), Timeout=seconds, MemorySize=256)
    return 'bad'


@pytest.fixture(scope='module')
def nonsense(fn):
    create(fn, 'nonsense', code=executable(NONSENSE), Runtime='provided.al2023', Handler='any', Timeout=60, MemorySize=256)
    return 'nonsense'


@pytest.mark.parametrize('do, kind, part', [
    ('exit', 'Runtime.ExitError', 'exit status 3'),
    ('kill', 'Runtime.ExitError', 'segmentation fault'),
    ('close-socket', 'Runtime.ExitError', 'Runtime exited'),
    ('write-socket', 'Runtime.ExitError', 'Runtime exited'),
    ('close', 'Runtime.ExitError', 'Runtime exited'),
    ('big', 'Function.ResponseSizeTooLarge', 'exceeded maximum allowed payload size'),
    ('memory', 'Runtime.OutOfMemory', 'signal: killed'),
    ('hang', 'Sandbox.Timedout', 'timed out after 4.00 seconds'),
    ('set', 'Runtime.MarshalError', 'Unable to marshal response'),
])
def test_each_gets_its_error(fn, bad, do, kind, part):
    bad = 'bad-brief' if do == 'hang' else bad           # all others end long before their time: else it is Sandbox.Timedout
    answer, value = call(fn, bad, {'do': do})
    assert answer['StatusCode'] == 200 and answer['FunctionError'] == 'Unhandled', value
    assert value['errorType'] == kind and part in value['errorMessage'], value
    assert call(fn, bad, {})[1] == 'well'


def test_a_fork_bomb_stays_inside(fn, bad):
    answer, value = call(fn, 'bad-bomb', {'do': 'fork-bomb'})   # which nobody else has to share with what it left; the limit of processes, of memory or of time, whichever comes first
    assert value.get('forks', 9999) < 1024 or value.get('errorType') in ('Runtime.OutOfMemory', 'Sandbox.Timedout'), value
    assert call(fn, bad, {})[1] == 'well'


@pytest.mark.parametrize('do', ['print', 'deep', 'nan'])
def test_what_is_survived(fn, bad, do):
    answer = fn.invoke(FunctionName=bad, Payload=json.dumps({'do': do}), LogType='Tail')
    assert 'FunctionError' not in answer, answer['Payload'].read()
    assert call(fn, bad, {})[1] == 'well'


@pytest.mark.parametrize('do', ['garbage', 'other', 'headers', 'many'])
def test_a_runtime_that_talks_nonsense(fn, nonsense, do):
    assert call(fn, nonsense, {'do': do})[1] == 'well'
    assert call(fn, nonsense, {})[1] == 'well'


def test_answers_of_a_runtime(fn, nonsense):
    got = fn.invoke(FunctionName=nonsense, Payload=b'{"do": "text"}')
    assert 'FunctionError' not in got and got['Payload'].read() == b'this is {no JSON'      # as on Lambda: passed on as it is
    answer, value = call(fn, nonsense, {'do': 'seven'})
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'Function.ResponseSizeTooLarge'
    answer, value = call(fn, nonsense, {'do': 'cut'})
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'Runtime.TruncatedResponse'
    assert call(fn, nonsense, {})[1] == 'well'
