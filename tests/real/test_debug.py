"""tandem debug: a breakpoint in a running function, by what editors speak (DAP, Node's inspector), while other calls go on."""
import json, os, shutil, signal, socket, subprocess, threading, urllib.error, urllib.request

import pytest

from conftest import TANDEM, TOP, eventually
from test_lambda import call, create, fn, zipped  # noqa: F401 (fn is a fixture)

PYTHON = '''import os
def handler(event, context):
    n = event["n"]
    answer = n * 2
    return {"answer": answer, "pid": os.getpid(), "left": context.get_remaining_time_in_millis()}
'''
NODE = '''exports.handler = async (event) => {
  const n = event.n;
  const answer = n * 2;
  return { answer };
};
'''


class Debugged:
    """`tandem debug NAME` as long as it is open."""

    def __init__(self, tandem, name):
        self.process = subprocess.Popen([TANDEM, 'debug', name, '--json', '--state', tandem.state], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() + tandem.tandem('logs', name, '--tail', '30', check=False).stdout
        self.at = json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(90)
        self.process.stdout.close()
        self.process.stderr.close()


class Dap:
    """A client of the Debug Adapter Protocol: messages with a Content-Length, requests by number, events as they come."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), 60)
        self.file, self.seq, self.seen = self.socket.makefile('rb'), 0, []

    def send(self, command, **arguments):
        self.seq += 1
        body = json.dumps({'seq': self.seq, 'type': 'request', 'command': command, 'arguments': arguments}).encode()
        self.socket.sendall(b'Content-Length: %d\r\n\r\n%s' % (len(body), body))
        return self.seq

    def read(self):
        n = 0
        while (line := self.file.readline().strip()):
            if line.lower().startswith(b'content-length:'):
                n = int(line.split(b':')[1])
        assert n, 'the debugger has gone'
        return json.loads(self.file.read(n))

    def until(self, what):
        for m in self.seen:
            if what(m):
                self.seen.remove(m)
                return m
        while not what(m := self.read()):
            self.seen.append(m)
        return m

    def answer(self, seq):
        m = self.until(lambda m: m['type'] == 'response' and m['request_seq'] == seq)
        assert m['success'], m
        return m.get('body', {})

    def ask(self, command, **arguments):
        return self.answer(self.send(command, **arguments))

    def event(self, name):
        return self.until(lambda m: m['type'] == 'event' and m['event'] == name)['body']

    def attach(self, path, line):
        self.ask('initialize', clientID='test', adapterID='debugpy', pathFormat='path', linesStartAt1=True, columnsStartAt1=True)
        attaching = self.send('attach', justMyCode=True)
        self.until(lambda m: m['type'] == 'event' and m['event'] == 'initialized')
        got = self.ask('setBreakpoints', source={'path': path}, breakpoints=[{'line': line}])
        self.ask('configurationDone')
        self.answer(attaching)
        return got

    def close(self):
        self.socket.close()


@pytest.fixture(scope='module')
def debugpy(tandem):
    folder = os.path.join(tandem.state, 'debug', 'python3.11')
    if not os.path.exists(folder):                     # there is no registry in here: as if it had been fetched
        shutil.copytree(os.path.join(TOP, 'build', 'debugpy'), folder)


def later(what):
    got = []
    thread = threading.Thread(target=lambda: got.append(what()), daemon=True)
    thread.start()
    return thread, got


def test_python_stops_at_a_breakpoint(tandem, fn, debugpy):
    create(fn, 'debug-py', code=zipped(PYTHON), Timeout=2)
    fn.create_function_url_config(FunctionName='debug-py', AuthType='NONE')
    fn.get_waiter('function_active_v2').wait(FunctionName='debug-py')
    try:
        usual = call(fn, 'debug-py', {'n': 1})[1]
        assert usual['answer'] == 2 and usual['left'] <= 2000
        with Debugged(tandem, 'debug-py') as d:
            assert d.at['host'] == '127.0.0.1' and d.at['launch']['configurations'][0]['connect'] == {'host': '127.0.0.1', 'port': d.at['port']}
            again = tandem.tandem('debug', 'debug-py', '--json', check=False)
            assert again.returncode == 1 and 'already' in again.stderr
            dap = Dap(d.at['host'], d.at['port'])
            assert dap.attach('/var/task/app.py', 4)['breakpoints'][0]['verified']
            thread, got = later(lambda: tandem.tandem('invoke', 'debug-py', '{"n": 21}', '--debug', timeout=100).stdout)
            stopped = dap.event('stopped')
            assert stopped['reason'] == 'breakpoint'
            top = dap.ask('stackTrace', threadId=stopped['threadId'])['stackFrames'][0]
            assert (top['name'], top['line'], top['source']['path']) == ('handler', 4, '/var/task/app.py')
            assert dap.ask('evaluate', expression='n', frameId=top['id'])['result'] == '21'
            # others are answered meanwhile, also longer than the time limit, and wait for nobody
            for n in range(3):
                other = call(fn, 'debug-py', {'n': n})[1]
                assert other['answer'] == 2 * n and other['left'] <= 2000
            assert thread.is_alive()
            threading.Event().wait(2.5)                 # past the function's own limit
            assert thread.is_alive()
            dap.ask('evaluate', expression='n = 100', frameId=top['id'], context='repl')
            dap.ask('continue', threadId=stopped['threadId'])
            thread.join(90)
            answer = json.loads(got[0])
            assert answer['answer'] == 200 and answer['left'] > 3600000
            # by a request's header; a wrong one goes where all go
            url = f'{tandem.status["gateway"]}/function/debug-py/'
            def get(token):
                request = urllib.request.Request(url, headers={'x-tandem-debug': token})
                try:
                    return urllib.request.urlopen(request, timeout=60).status
                except urllib.error.HTTPError as e:
                    return e.code
            assert get('0' * 32) == 502                 # event["n"] is not there: it ran in a usual one
            dap.ask('setBreakpoints', source={'path': '/var/task/app.py'}, breakpoints=[{'line': 3}])
            thread, got = later(lambda: get(d.at['token']))
            stopped = dap.event('stopped')
            assert thread.is_alive()
            # another client may come after this one, and one that goes lets the function go on
            dap.ask('disconnect', terminateDebuggee=False)
            dap.close()
            thread.join(90)
            assert got == [502]
            two = Dap(d.at['host'], d.at['port'])
            two.attach('/var/task/app.py', 4)
            thread, got = later(lambda: tandem.tandem('invoke', 'debug-py', '{"n": 4}', '--debug', check=False, timeout=100))
            two.event('stopped')
            two_port = d.at['port']
        thread.join(90)                                 # its debugging was ended: the call is, too
        assert got[0].returncode == 1, got
        def closed():
            with pytest.raises(OSError):
                socket.create_connection(('127.0.0.1', two_port), 5).close()
            return True
        eventually(closed)
        two.close()
        assert call(fn, 'debug-py', {'n': 5})[1]['answer'] == 10
        assert json.loads(tandem.tandem('invoke', 'debug-py', '{"n": 6}', '--debug').stdout)['answer'] == 12    # nobody debugs it: as usual
        eventually(lambda: '!debug' not in subprocess.run(['curl', '-s', '--unix-socket', f'{tandem.state}/run/gateway.sock', 'http://localhost/instances'],
                                                          text=True, capture_output=True).stdout)
    finally:
        fn.delete_function(FunctionName='debug-py')


@pytest.mark.skipif(not shutil.which('node'), reason='needs node')
def test_node_stops_at_a_breakpoint(tandem, fn):
    import websocket
    create(fn, 'debug-node', code=zipped(NODE, 'index.js'), Runtime='nodejs20.x' if False else 'nodejs18.x', Handler='index.handler', Timeout=2, MemorySize=256)
    fn.get_waiter('function_active_v2').wait(FunctionName='debug-node')
    try:
        with Debugged(tandem, 'debug-node') as d:
            with urllib.request.urlopen(f'http://{d.at["host"]}:{d.at["port"]}/json/list', timeout=30) as answer:
                target = json.loads(answer.read())[0]
            assert str(d.at['port']) in target['webSocketDebuggerUrl']
            ws = websocket.create_connection(target['webSocketDebuggerUrl'], timeout=60, suppress_origin=True)
            seq, seen = 0, []

            def until(what):
                for m in seen:
                    if what(m):
                        seen.remove(m)
                        return m
                while not what(m := json.loads(ws.recv())):
                    seen.append(m)
                return m

            def ask(method, **params):
                nonlocal seq
                seq += 1
                number = seq
                ws.send(json.dumps({'id': number, 'method': method, 'params': params}))
                got = until(lambda m: m.get('id') == number)
                assert 'result' in got, got
                return got['result']
            ask('Runtime.enable')
            ask('Debugger.enable')
            ask('Debugger.setBreakpointByUrl', lineNumber=2, urlRegex='.*/var/task/index\\.js')
            thread, got = later(lambda: tandem.tandem('invoke', 'debug-node', '{"n": 21}', '--debug', timeout=100).stdout)
            paused = until(lambda m: m.get('method') == 'Debugger.paused')['params']
            frame = paused['callFrames'][0]
            assert frame['functionName'] == 'exports.handler' and frame['location']['lineNumber'] == 2
            assert ask('Debugger.evaluateOnCallFrame', callFrameId=frame['callFrameId'], expression='n')['result']['value'] == 21
            for n in range(3):
                assert call(fn, 'debug-node', {'n': n})[1] == {'answer': 2 * n}
            threading.Event().wait(2.5)
            assert thread.is_alive()
            ask('Debugger.resume')
            thread.join(90)
            assert json.loads(got[0]) == {'answer': 42}
            ws.close()
    finally:
        fn.delete_function(FunctionName='debug-node')


def test_the_port_is_not_everybodys(tandem, fn, debugpy):
    """The loopback is shared by all users of a machine: others than who debugs are hung up on; one who used sudo is served."""
    script = "import socket, sys\ns = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20)\n" \
             "s.settimeout(1)\ntry:\n    print('closed' if s.recv(1) == b'' else 'open')\nexcept TimeoutError:\n    print('open')\nexcept OSError:\n    print('closed')\n"
    def said(uid, port):
        return subprocess.run(['/usr/bin/python3', '-c', script, str(port)], user=uid, group=uid, extra_groups=[], stdout=subprocess.PIPE, text=True, timeout=60,
                              cwd='/').stdout.strip()
    create(fn, 'debug-whose', code=zipped(PYTHON), Timeout=3)
    os.environ['SUDO_UID'] = '54321'
    try:
        with Debugged(tandem, 'debug-whose') as d:
            assert (said(54322, d.at['port']), said(54321, d.at['port']), said(0, d.at['port'])) == ('closed', 'open', 'open')
    finally:
        del os.environ['SUDO_UID']
        fn.delete_function(FunctionName='debug-whose')


def test_what_can_not_be_debugged(tandem, fn):
    create(fn, 'debug-own', code=zipped('#!/bin/sh\n', 'bootstrap'), Runtime='provided.al2023')
    try:
        fn.get_waiter('function_active_v2').wait(FunctionName='debug-own')
        for words, code, text in ((['debug'], 2, 'usage'), (['debug', 'nobody-of-that-name'], 1, 'not found'), (['debug', 'debug-own'], 1, 'can not be debugged')):
            done = tandem.tandem(*words, check=False)
            assert done.returncode == code and text in done.stderr, done
    finally:
        fn.delete_function(FunctionName='debug-own')
