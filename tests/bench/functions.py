"""What a function costs through the gateway's HTTP, beside servers that one would start for the same handler.

Each row of requests has the CPU time of a request beside it (the gateway's and the functions', by their cgroup; of the others all
their processes): wall time lies on a machine that others use. What is compared with comes from package registries into build/beside
by tests/bench/beside, and is left out when it is not there: gunicorn and uvicorn (Python), workerd (JavaScript)."""
import contextlib, glob, io, json, os, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request, zipfile

PYTHON = 'def handler(event, context):\n    return {"n": 1}\n'
NODE = 'exports.handler = (event, context, done) => done(null, {n: 1});\n'
WSGI = '''import json
def handler(event, context):
    return {"n": 1}
def app(environ, start):
    event = {"path": environ["PATH_INFO"], "headers": {k: v for k, v in environ.items() if k.startswith("HTTP_")}}
    body = json.dumps(handler(json.loads(json.dumps(event)), None)).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
'''
ASGI = '''import json
def handler(event, context):
    return {"n": 1}
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    event = {"path": scope["path"], "headers": {k.decode(): v.decode() for k, v in scope["headers"]}}
    body = json.dumps(handler(json.loads(json.dumps(event)), None)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
'''
WORKERD = '''using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "main", worker = (modules = [(name = "w", esModule = "export default {async fetch(r) {return new Response(JSON.stringify({n: 1}))}}")], compatibilityDate = "2024-01-01"))],
  sockets = [(name = "http", address = "127.0.0.1:%d", http = (), service = "main")]);
'''


def zipped(name, data, mode=0o644):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        info = zipfile.ZipInfo(name)
        info.external_attr = (0o100000 | mode) << 16
        z.writestr(info, data)
    return out.getvalue()


def process_us(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = open(f'/proc/{pid}/schedstat').read().split()
            total += int(fields[0]) / 1000
            for task in os.listdir(f'/proc/{pid}/task'):
                if task != str(pid):
                    total += int(open(f'/proc/{pid}/task/{task}/schedstat').read().split()[0]) / 1000
    return total


def cgroup_us(path):
    for base in ('/sys/fs/cgroup/unified', '/sys/fs/cgroup'):
        with contextlib.suppress(OSError):
            return int(open(f'{base}/{path}/cpu.stat').readline().split()[1])
    return 0


def load(wrk, url, connections, used, seconds=2):
    """(requests/s, wrk's percentiles, CPU us a request)"""
    before = used()
    rate, note = wrk(url, connections, seconds)
    return rate, note, (used() - before) / max(rate * seconds, 1)


def rows(row, wrk, what, url, used, note=''):
    for n in (1, 16):
        rate, times, us = load(wrk, url, n, used)
        row(f'{what}, {n} connection{"s"[:n - 1]}', rate, '/s', times, f'{us:.0f} us CPU: {1e6 / max(us, 1):,.0f}/s per core{note}')


def run(row, wrk, median, percentile, one, top):
    client = one.boto('lambda')
    gateway = one.processes()['gateway']
    group = next(line.split(':', 2)[2].split('/functions')[0].strip('/\n') for line in open(f'/proc/{gateway}/cgroup') if line.startswith('0::')) or ''
    group = next((g for g in (f'tandem-{one.id}' if hasattr(one, 'id') else group, group) if cgroup_us(g + '/functions')), f'tandem-{one.id}')
    kinds = [('Python', 'python3.11', 'f.handler', zipped('f.py', PYTHON))]
    if shutil.which('node'):
        kinds.append(('Node', 'nodejs20.x', 'f.handler', zipped('f.js', NODE)))
    bootstrap = os.path.join(top, 'build', 'rel', 'tests', 'unit', 'function', 'bootstrap')
    if subprocess.run(['ninja', '-C', os.path.join(top, 'build', 'rel'), 'tests/unit/function/bootstrap'], stdout=subprocess.DEVNULL).returncode == 0:
        kinds.append(('C', 'provided.al2023', 'x', zipped('bootstrap', open(bootstrap, 'rb').read(), 0o755)))
    used = lambda: process_us([gateway]) + cgroup_us(f'{group}/functions')
    for kind, runtime, handler, code in kinds:
        name, took = f'bench-{kind.lower()}', []
        for n in range(5):
            began = time.perf_counter()
            client.create_function(FunctionName=f'{name}-{n}', Runtime=runtime, Role='arn:aws:iam::000000000000:role/r', Handler=handler, Code={'ZipFile': code})
            client.invoke(FunctionName=f'{name}-{n}')
            took.append((time.perf_counter() - began) * 1000)
        row(f'{kind}: CreateFunction to first answer', median(took), 'ms', f'min {min(took):.1f} ms', 'boto3, the answer to Invoke')
        client.create_function(FunctionName=name, Runtime=runtime, Role='arn:aws:iam::000000000000:role/r', Handler=handler, Code={'ZipFile': code}, MemorySize=1769)
        client.create_function_url_config(FunctionName=name, AuthType='NONE')
        url = f"{one.status['gateway']}/function/{name}/"
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=10).read()
                break
            except OSError:
                time.sleep(0.05)
        wrk(url, 16, 1)
        rows(row, wrk, f'{kind}: function URL, warm', url, used)
    beside(row, wrk, top)


@contextlib.contextmanager
def serving(argv, port, **more):
    """A server in a session of its own; its processes' ids."""
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            time.sleep(0.05)
        yield lambda: [pid for pid in filter(str.isdigit, os.listdir('/proc')) if session(pid) == p.pid]
    finally:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def session(pid):
    with contextlib.suppress(OSError):
        return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[3])


def beside(row, wrk, top):
    there = os.path.join(top, 'build', 'beside')
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, 'w.py'), 'w').write(WSGI)
        open(os.path.join(folder, 'a.py'), 'w').write(ASGI)
        open(os.path.join(folder, 'c.capnp'), 'w').write(WORKERD % 18093)
        env = {**os.environ, 'PYTHONPATH': os.path.join(there, 'python') + ':' + folder}
        workerd = glob.glob(os.path.join(there, 'node_modules', '@cloudflare', 'workerd-linux-*', 'bin', 'workerd'))
        servers = [('gunicorn, one gthread worker', 18091, [sys.executable, '-m', 'gunicorn', '-k', 'gthread', '--threads', '16', '-b', '127.0.0.1:18091', 'w:app'], 'gunicorn'),
                   ('uvicorn, one process', 18092, [sys.executable, '-m', 'uvicorn', '--port', '18092', '--log-level', 'error', 'a:app'], 'uvicorn')]
        for what, port, argv, package in servers:
            if os.path.isdir(os.path.join(there, 'python', package)):
                with serving(argv, port, cwd=folder, env=env) as pids:
                    rows(row, wrk, f'beside: {what}', f'http://127.0.0.1:{port}/', lambda: process_us(pids()), ', the same handler')
        if workerd:
            with serving([workerd[0], 'serve', os.path.join(folder, 'c.capnp')], 18093) as pids:
                rows(row, wrk, 'beside: workerd', 'http://127.0.0.1:18093/', lambda: process_us(pids()))
