"""tandem logs -f, tail, top, trace: what functions print and where the time goes, as it happens."""
import json, os, pty, re, select, subprocess, threading, time

import pytest

from conftest import TANDEM, eventually

CODE = '''import json, sys, time
def handler(event, context):
    if event.get("fail"):
        raise ValueError("broken on purpose")
    time.sleep(event.get("sleep", 0))
    print("%s says" % context.function_name, event.get("say", "nothing"))
    return context.aws_request_id
'''


def invoke(tandem, name, check=True, **event):
    done = tandem.tandem('invoke', name, json.dumps(event), check=check)
    return json.loads(done.stdout) if done.returncode == 0 else done.stdout


@pytest.fixture(scope='module')
def two(tandem, tmp_path_factory):
    for name in ('left', 'right'):
        one = tmp_path_factory.mktemp('code') / name
        one.mkdir()
        (one / 'app.py').write_text(CODE)
        tandem.tandem('deploy', str(one), '--timeout', '10')
        invoke(tandem, name, say='first')
    yield tandem
    for name in ('left', 'right'):
        tandem.kubectl('delete', 'function', name)


class Reading:
    """A command that goes on; its lines until one that fits."""

    def __init__(self, tandem, *words):
        self.p = subprocess.Popen([TANDEM, *words, '--state', tandem.state], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.text = ''
        os.set_blocking(self.p.stdout.fileno(), False)

    def until(self, form, seconds=90):
        end = time.time() + seconds
        while not re.search(form, self.text, re.M):
            assert time.time() < end and self.p.poll() is None, (form, self.text)
            select.select([self.p.stdout], [], [], 0.2)
            self.text += (self.p.stdout.read() or b'').decode()
        return self.text

    def cpu(self):
        fields = open(f'/proc/{self.p.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(60)
        self.p.stdout.close()


def test_logs_go_on(two):
    with Reading(two, 'logs', '-f', 'left', '--tail', '1') as r:
        assert r.until('REPORT.*\n').count('\n') == 1
        invoke(two, 'left', say='second')
        r.until('left says second')
        invoke(two, 'right', say='not here')
        two.kill('gateway')                                               # it goes on with the one that is started then
        eventually(lambda: invoke(two, 'left', say='third'), 20)
        r.until('left says third')
        assert 'not here' not in r.text and r.text.count('left says second') == 1
        was = r.cpu()
        time.sleep(1)
        assert r.cpu() - was < 0.05                                       # it waits, and does not ask
    assert two.tandem('logs', 'left', '--tail', '2').stdout.count('\n') == 2


def test_logs_since(two):
    invoke(two, 'left', say='long ago')
    time.sleep(1.1)
    then = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
    invoke(two, 'left', say='just now')
    assert 'just now' in two.tandem('logs', 'left', '--since', '1h').stdout
    said = two.tandem('logs', 'left', '--since', then).stdout
    assert 'just now' in said and 'long ago' not in said
    assert two.tandem('logs', 'left', '--since', '2099-01-01T00:00:00Z').stdout == ''
    for bad in ('soon', '5', '5y', '2026-01-01', '-5m'):
        done = two.tandem('logs', 'left', '--since=' + bad, check=False)
        assert done.returncode == 2 and '--since' in done.stderr, bad
    done = two.tandem('logs', 'nobody', check=False)
    assert done.returncode == 1 and done.stderr == 'tandem: there is no function nobody\n'


def test_tail_of_all(two):
    with Reading(two, 'tail') as r:
        for name in ('left', 'right'):
            form = f'Z {name} +{name} says now'
            until = time.time() + 90
            while not re.search(form, r.text):                            # it sees what is said once it is there
                assert time.time() < until, r.text
                invoke(two, name, say='now')
                try:
                    r.until(form, 1)
                except AssertionError:
                    pass
        assert 'first' not in r.text and '\033' not in r.text             # from now on; colours are for terminals
        eventually(lambda: r.cpu() < 1)
    assert re.search('left says now', two.tandem('tail', '--once', '--since', '5m').stdout)
    done = subprocess.run(['bash', '-c', f'{TANDEM} tail --once --since 1h --state {two.state} | head -1'], capture_output=True, text=True, timeout=60)
    assert done.stdout.count('\n') == 1 and not done.stderr


def terminal(words, until, seconds=90):
    """Runs it on a terminal of its own; what it wrote once `until` is in it."""
    pid, fd = pty.fork()
    if not pid:
        os.execv(words[0], words)
    text, end = '', time.time() + seconds
    try:
        while not until(text):
            assert time.time() < end, text
            if select.select([fd], [], [], 0.2)[0]:
                text += os.read(fd, 65536).decode()
        return text
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        os.close(fd)


def test_colours_on_a_terminal(two):
    text = terminal([TANDEM, 'tail', '--since', '1h', '--state', two.state], lambda t: 'right says' in t and 'left says' in t)
    colours = {name: set(re.findall(r'\033\[(\d+)m' + name, text)) for name in ('left', 'right')}
    assert len(colours['left']) == len(colours['right']) == 1 and colours['left'] != colours['right'], colours


def test_top(two):
    stop = threading.Event()

    def calls():
        while not stop.wait(0.2):
            invoke(two, 'left', sleep=0.02)
    load = threading.Thread(target=calls)
    load.start()

    def rows():
        return {r['workload']: r for r in json.loads(two.tandem('top', '--json').stdout)}
    try:
        left = eventually(lambda: [r for r in [rows()['function/left']] if r['callsPerSecond'] > 0], 30)[0]
    finally:
        stop.set()
        load.join()                                                       # none of its calls comes in between later
    assert left['callsPerSecond'] < 10 and 16 <= left['p50Ms'] <= left['p99Ms'] and left['instances'] >= 1 and left['memoryLimitMB'] == 128
    right = eventually(lambda: [r for r in [rows()['function/right']] if r['callsPerSecond'] == 0])[0]
    assert right['calls'] >= 1
    table = two.tandem('top').stdout
    assert table.startswith('NAMESPACE ') and re.search(r'^default +function/left ', table, re.M) and '\033' not in table
    text = terminal([TANDEM, 'top', '--state', two.state], lambda t: t.count('function/left') >= 2)
    assert text.count('\033[H') >= 2 and text.count('\033[2J') == 1       # in place

    def priced():
        return [r for r in json.loads(two.tandem('top', '--json').stdout) if r['workload'] == 'function/left' and 'costPerHourAsFunction' in r and 'costPerHourAsPods' in r]
    eventually(priced, 60, 2)


def test_trace(two):
    request = invoke(two, 'left', sleep=0.05, say='traced')
    text = eventually(lambda: two.tandem('trace', request, check=False).stdout, 10)
    assert f'request   {request}\nfunction  left\n' in text and 'left says traced' in text and 'START' not in text
    steps = dict(re.findall(r'^(\w+) +(\d+\.\d{3}) ms', text, re.M))
    assert list(steps) == ['queue', 'place', 'fork', 'init', 'handler', 'answer', 'total'] and 50 <= float(steps['handler']) <= float(steps['total'])
    assert abs(sum(float(steps[s]) for s in steps if s != 'total') - float(steps['total'])) < 0.1
    invoke(two, 'left', check=False, fail=1)
    calls = eventually(lambda: (c := json.loads(two.tandem('trace', 'left', '--json', '--tail', '3').stdout)) and len(c) == 3 and c[1]['requestId'] == request and c)
    assert calls[2]['status'] in ('ok', 'error') and calls[1]['us']['handler'] >= 50000
    table = two.tandem('trace', 'left').stdout.splitlines()
    assert table[0].split()[:4] == ['TIME', 'REQUEST', 'RUNG', 'queue'] and len(table) <= 11 and request in ''.join(table)
    for words, code in ((['trace'], 2), (['trace', '00000000-0000-0000-0000-000000000000'], 1), (['trace', 'nobody'], 1)):
        done = two.tandem(*words, check=False)
        assert done.returncode == code and done.stderr.count('\n') == 1


def test_trace_of_json_logs(two):
    two.kubectl('patch', 'function', 'right', '--type', 'merge', '-p', '{"spec":{"loggingConfig":{"logFormat":"JSON"}}}')

    def traced():
        request = invoke(two, 'right', say='x')
        return [c for c in json.loads(two.tandem('trace', request, '--json').stdout) if c['requestId'] == request and c['status'] == 'ok']
    try:
        eventually(traced, every=0.5)
    finally:
        two.kubectl('patch', 'function', 'right', '--type', 'json', '-p', '[{"op":"remove","path":"/spec/loggingConfig"}]')
