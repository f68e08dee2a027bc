"""What a function costs through the gateway's HTTP, beside servers that one would start for the same handler.

Each row of requests has the CPU time of a request beside it (the gateway's and the functions', by their cgroup; of the others all
their processes): wall time lies on a machine that others use. What is compared with comes from package registries into build/beside
by tests/bench/beside (gunicorn and uvicorn, moto's server, workerd) or is the system's (nginx, bwrap, crun); a row says when it is
not installed."""
import contextlib, ctypes, glob, io, json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.parse, urllib.request, zipfile

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


NGINX = '''daemon off; worker_processes 1; pid %(folder)s/pid; error_log %(folder)s/error;
events {}
http { access_log off; client_body_temp_path %(folder)s/b; proxy_temp_path %(folder)s/p; fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s;
  upstream app { server 127.0.0.1:18091; keepalive 32; }
  server { listen 127.0.0.1:18094; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
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
    for n in (1, 16, 64):
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
        if kind == 'Python':
            added(row, median, url)
            neighbours(row, wrk, percentile, client, one, url)
            api(row, median, client, 'tandem', name)
    starts(row, median, percentile)
    beside(row, wrk, median, top)


def added(row, median, url):
    """What lies between a client on a kept connection and the handler, whose own time the answer tells."""
    import http.client
    at = urllib.parse.urlsplit(url)
    c, took = http.client.HTTPConnection(at.hostname, at.port), []
    for _ in range(500):
        began = time.perf_counter()
        c.request('GET', at.path)
        answer = c.getresponse()
        answer.read()
        whole = (time.perf_counter() - began) * 1e6
        timing = dict(part.split('=') for part in answer.headers['x-tandem-timing'].split(';'))
        took.append((whole - int(timing['handler']), int(timing['total']) - int(timing['handler'])))
    row('Python: added to the handler, one client', median([t[1] for t in took]), 'us', f'{median([t[0] for t in took]):.0f} us with the client', 'p50 of 500, kept connection')


def neighbours(row, wrk, percentile, client, one, noisy):
    """A function that is called once every few milliseconds, alone and while 64 connections call another one without a pause."""
    code = zipped('f.py', PYTHON)
    client.create_function(FunctionName='bench-quiet', Runtime='python3.11', Role='arn:aws:iam::000000000000:role/r', Handler='f.handler', Code={'ZipFile': code})
    client.create_function_url_config(FunctionName='bench-quiet', AuthType='NONE')
    url = f"{one.status['gateway']}/function/bench-quiet/"

    def waits(n):
        """What the gateway says of the time from the request to the handler's start and from its end to the answer, us."""
        took = []
        for _ in range(n):
            with urllib.request.urlopen(url, timeout=30) as answer:
                timing = dict(part.split('=') for part in answer.headers['x-tandem-timing'].split(';'))
            took.append(int(timing['total']) - int(timing['handler']))
            time.sleep(0.003)
        return took
    for _ in range(100):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=10).read()
            break
        time.sleep(0.05)
    waits(20)
    alone, seen = waits(300), []
    noise = threading.Thread(target=lambda: seen.append(wrk(noisy, 64, 6)))
    noise.start()
    time.sleep(1)
    beside_it = waits(300)
    noise.join()
    for p in (50, 99):
        row(f'neighbours: quiet function beside a noisy one, p{p}', percentile(beside_it, p), 'us', f'{percentile(alone, p):,.0f} us alone',
            f'platform time; the noisy one had {seen[0][0]:,.0f}/s, 64 connections')


def api(row, median, client, whose, name):
    """Lambda's API through boto3, one call after the other."""
    for what, call in (('GetFunction', lambda: client.get_function(FunctionName=name)), ('ListFunctions', client.list_functions),
                       ('Invoke', lambda: client.invoke(FunctionName=name, Payload=b'{}')['Payload'].read())):
        took = []
        for _ in range(100):
            began = time.perf_counter()
            call()
            took.append((time.perf_counter() - began) * 1000)
        row(f'{"" if whose == "tandem" else "beside: "}{whose}: {what}', median(took), 'ms', '', 'boto3' + (', its Invoke runs no code' if what == 'Invoke' and whose != 'tandem' else ''))


def missing(what):
    print(f'{what:50} not installed', flush=True)


def timed(argv):
    took = []
    for n in range(30):
        began = time.perf_counter()
        done = subprocess.run(argv(n), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        took.append((time.perf_counter() - began) * 1000)
        if done.returncode or json.loads(done.stdout) != {'n': 1}:
            return []
    return took


def elsewhere(work):
    """What work() answers in a process that sees cgroup v1 alone: crun refuses hybrid hosts."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            ctypes.CDLL(None).unshare(0x20000)
            subprocess.run(['mount', '--make-rprivate', '/'], check=True)
            subprocess.run(['umount', '-l', '/sys/fs/cgroup/unified'], stderr=subprocess.DEVNULL)
            os.write(theirs, json.dumps(work()).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as f:
        text = f.read()
    os.waitpid(child, 0)
    return json.loads(text or '[]')


def starts(row, median, percentile):
    """A Python handler in a sandbox of others: from nothing to its answer, one after the other."""
    code = 'import json\n' + PYTHON + 'print(json.dumps(handler({}, None)))'
    run = ['/usr/bin/python3', '-I', '-S', '-c', code]
    lib = os.path.realpath('/lib64')
    binds = [('/usr', '/usr'), ('/usr/lib', '/lib'), (lib, '/lib64')]
    with tempfile.TemporaryDirectory() as folder:
        for target in ['/proc', '/dev', *[b[1] for b in binds]]:
            os.makedirs(folder + '/rootfs' + target)
        bundle = {'ociVersion': '1.0.0', 'root': {'path': 'rootfs', 'readonly': True}, 'process': {'cwd': '/', 'args': run, 'env': ['PATH=/usr/bin:/bin'], 'user': {'uid': 0, 'gid': 0}},
                  'mounts': [{'destination': '/proc', 'type': 'proc', 'source': 'proc'}, {'destination': '/dev', 'type': 'tmpfs', 'source': 'tmpfs'}] +
                            [{'destination': to, 'type': 'bind', 'source': of, 'options': ['rbind', 'ro']} for of, to in binds],
                  'linux': {'namespaces': [{'type': t} for t in ('pid', 'ipc', 'uts', 'mount', 'network')]}}
        json.dump(bundle, open(os.path.join(folder, 'config.json'), 'w'))
        for what, program, argv in (('bwrap', 'bwrap', lambda n: ['bwrap', '--unshare-all', '--die-with-parent', '--ro-bind', '/', '/', '--proc', '/proc', '--dev', '/dev', *run]),
                                    ('crun', 'crun', lambda n: ['crun', '--cgroup-manager=disabled', 'run', '-b', folder, f'bench-{os.getpid()}-{n}'])):
            if not shutil.which(program):
                missing(f'beside: {what}')
                continue
            took = elsewhere(lambda: timed(argv))
            if not took:
                print(f'beside: {what}: not measured: it failed', flush=True)
                continue
            row(f'beside: {what}, a Python starts and answers', median(took), 'ms', f'p99 {percentile(took, 99):.0f} ms', 'a new sandbox each')


def moto(row, median, env, folder):
    import boto3, botocore.config
    with serving([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', '18095'], 18095, cwd=folder, env=env):
        request = urllib.request.Request('http://127.0.0.1:18095/moto-api/config', json.dumps({'lambda': {'use_docker': False}}).encode(), {'Content-Type': 'application/json'})
        urllib.request.urlopen(request).read()
        known = dict(endpoint_url='http://127.0.0.1:18095', region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')
        trust = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': {'Service': 'lambda.amazonaws.com'}, 'Action': 'sts:AssumeRole'}]}
        role = boto3.client('iam', **known).create_role(RoleName='r', AssumeRolePolicyDocument=json.dumps(trust))['Role']['Arn']
        client = boto3.client('lambda', **known, config=botocore.config.Config(retries={'max_attempts': 1}))
        client.create_function(FunctionName='bench-moto', Runtime='python3.11', Role=role, Handler='f.handler', Code={'ZipFile': zipped('f.py', PYTHON)})
        api(row, median, client, 'moto server', 'bench-moto')


@contextlib.contextmanager
def serving(argv, port, **more):
    """A server in a session of its own; its processes' ids."""
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more)
    try:
        for _ in range(1200):
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


def beside(row, wrk, median, top):
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
            if not os.path.isdir(os.path.join(there, 'python', package)):
                missing(f'beside: {what}')
                continue
            with serving(argv, port, cwd=folder, env=env) as pids:
                rows(row, wrk, f'beside: {what}', f'http://127.0.0.1:{port}/', lambda: process_us(pids()), ', the same handler')
                if package != 'gunicorn':
                    continue
                if not shutil.which('nginx'):
                    missing('beside: gunicorn behind nginx')
                    continue
                open(os.path.join(folder, 'nginx'), 'w').write(NGINX % {'folder': folder})
                with serving(['nginx', '-c', os.path.join(folder, 'nginx')], 18094) as front:
                    rows(row, wrk, 'beside: gunicorn behind nginx', 'http://127.0.0.1:18094/', lambda: process_us(pids() + front()))
        if os.path.isdir(os.path.join(there, 'python', 'moto')):
            moto(row, median, env, folder)
        else:
            missing('beside: moto server')
        if not workerd:
            missing('beside: workerd')
        else:
            with serving([workerd[0], 'serve', os.path.join(folder, 'c.capnp')], 18093) as pids:
                rows(row, wrk, 'beside: workerd', 'http://127.0.0.1:18093/', lambda: process_us(pids()))
