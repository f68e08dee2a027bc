"""The API server beside upstream's kube-apiserver + etcd: the same requests, the same machine, the same run.

Upstream's programs are used when they are there (tools/go-tools kube-apiserver etcd builds them from their Go modules, or
TANDEM_UPSTREAM names a folder that holds them). Load comes from wrk (Lua makes the requests) and from
fanout.c; both talk HTTPS with a bearer token to either side.
"""
import http.client, json, os, shutil, signal, socket, ssl, statistics, subprocess, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
median = statistics.median
SECONDS = int(os.environ.get('BENCH_SECONDS', '3'))


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def cpu(pid):
    """CPU seconds that a process has used: what it takes on a machine that others use as well."""
    return time.clock_gettime(~pid << 3 | 2)      # its clock, as clock_getcpuclockid(3) names it


def pss(pid):
    for line in open(f'/proc/{pid}/smaps_rollup'):
        if line.startswith('Pss:'):
            return int(line.split()[1]) / 1024
    return 0


class Http:
    """One kept-alive connection."""

    def __init__(self, side):
        self.side, self.c = side, None

    def __call__(self, method, path, body=None, kind='application/json'):
        headers = {'Authorization': 'Bearer ' + self.side.bearer, 'Content-Type': kind}
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        for attempt in (0, 1):
            try:
                if not self.c:
                    self.c = http.client.HTTPSConnection('127.0.0.1', self.side.port, context=ssl._create_unverified_context(), timeout=60)
                self.c.request(method, path, text, headers)
                r = self.c.getresponse()
                return r.status, r.read()
            except (http.client.HTTPException, OSError):
                self.c = None
                if attempt:
                    raise


class Side:
    """A server under test: name, port, bearer, pids."""
    procs = ()

    def start(self):
        raise NotImplementedError

    def memory(self):
        return sum(pss(p.pid) for p in self.procs)

    def cpu(self):
        return sum(cpu(p.pid) for p in self.procs)

    def stop(self):
        for p in self.procs:
            p.send_signal(signal.SIGTERM)
        for p in self.procs:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.procs = ()

    def spawn(self, *words):
        log = open(os.path.join(self.dir, os.path.basename(words[0]) + '.log'), 'a')
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self, path='/readyz'):
        until, last = time.time() + 120, None
        context = ssl._create_unverified_context()
        while time.time() < until:
            try:
                c = http.client.HTTPSConnection('127.0.0.1', self.port, context=context, timeout=5)
                c.request('GET', path)
                last = c.getresponse().status
                if last == 200:
                    return
            except OSError as e:
                last = e
            time.sleep(0.005)
        raise RuntimeError(f'{self.name} did not become ready: {last}')

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix='bench-api-')
        self.start()
        self.http = Http(self)
        self.http('POST', '/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Tandem(Side):
    name = 'tandem'

    def __init__(self, program):
        self.program, self.port = program, free_port()

    def start(self):
        self.procs = (self.spawn(self.program, 'server', '--api-only', '--api-port', str(self.port), '--state', self.dir),)
        self.wait_ready()
        if not hasattr(self, 'bearer'):
            import base64, re
            text = open(os.path.join(self.dir, 'kubeconfig')).read()
            cert, key = (base64.b64decode(re.search(k + r': (\S+)', text).group(1)) for k in ('client-certificate-data', 'client-key-data'))
            with tempfile.NamedTemporaryFile() as f:
                f.write(cert + key)
                f.flush()
                context = ssl._create_unverified_context()
                context.load_cert_chain(f.name)
            c = http.client.HTTPSConnection('127.0.0.1', self.port, context=context)

            def post(path, body):
                c.request('POST', path, json.dumps(body), {'Content-Type': 'application/json'})
                return json.loads(c.getresponse().read())
            post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'bench'}})
            post('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
                'metadata': {'name': 'bench'}, 'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'ClusterRole', 'name': 'cluster-admin'},
                'subjects': [{'kind': 'ServiceAccount', 'name': 'bench', 'namespace': 'default'}]})
            self.bearer = post('/api/v1/namespaces/default/serviceaccounts/bench/token', {
                'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {'expirationSeconds': 86400}})['status']['token']


class Upstream(Side):
    name, bearer = 'kube-apiserver + etcd', 'bench-token'

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()

    def start(self):
        if not os.path.exists(os.path.join(self.dir, 'sa.key')):
            subprocess.run(['openssl', 'genrsa', '-out', os.path.join(self.dir, 'sa.key'), '2048'], check=True, capture_output=True)
            with open(os.path.join(self.dir, 'tokens'), 'w') as f:
                f.write('bench-token,bench,1,"system:masters"\n')
            self.etcd, self.peer = free_port(), free_port()
        at = lambda name: os.path.join(self.dir, name)
        url, peer = f'http://127.0.0.1:{self.etcd}', f'http://127.0.0.1:{self.peer}'
        etcd = self.spawn(os.path.join(self.folder, 'etcd'), '--data-dir', at('etcd'), '--listen-client-urls', url, '--advertise-client-urls', url,
                          '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', 'default=' + peer,
                          '--quota-backend-bytes', str(8 << 30), '--log-level', 'error')
        self.procs = (etcd,)
        api = self.spawn(os.path.join(self.folder, 'kube-apiserver'), '--etcd-servers', url, '--secure-port', str(self.port), '--bind-address', '127.0.0.1',
                         '--advertise-address', '127.0.0.1',
                         '--cert-dir', at('certs'), '--service-account-issuer', 'https://kubernetes.default.svc', '--service-account-key-file', at('sa.key'),
                         '--service-account-signing-key-file', at('sa.key'), '--authorization-mode', 'RBAC', '--token-auth-file', at('tokens'),
                         '--service-cluster-ip-range', '10.96.0.0/16')
        self.procs = (etcd, api)
        self.wait_ready()


def wrk(side, clients, script, seconds=SECONDS):
    """(requests/s, p50, p99 in ms, refused, the server's CPU in us for a request)"""
    with tempfile.NamedTemporaryFile('w', suffix='.lua') as f:
        f.write(f'wrk.headers["Authorization"] = "Bearer {side.bearer}"\n' + script + '''
done = function(s, l, r)
  io.write(string.format("RESULT %d %f %f %f %d\\n", s.requests, s.requests * 1e6 / s.duration, l:percentile(50) / 1e3, l:percentile(99) / 1e3, s.errors.status + s.errors.timeout + s.errors.read))
end
''')
        f.flush()
        before = side.cpu()
        text = subprocess.run(['wrk', '-t1', f'-c{clients}', f'-d{seconds}', '--timeout', '20', '-s', f.name, f'https://127.0.0.1:{side.port}/'], text=True,
                              capture_output=True, timeout=seconds + 60).stdout
    line = [l for l in text.splitlines() if l.startswith('RESULT')]
    if not line:
        raise RuntimeError('wrk: ' + text[-300:])
    n, rate, p50, p99, bad = line[0].split()[1:]
    return float(rate), float(p50), float(p99), int(bad), (side.cpu() - before) * 1e6 / max(1, int(n))


CONFIGMAPS = '/api/v1/namespaces/default/configmaps'
POD = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'generateName': 'p-', 'labels': {'app': 'bench', 'tier': 'x'}},
       'spec': {'automountServiceAccountToken': False, 'containers': [{
           'name': 'c', 'image': 'registry.example/app:1', 'ports': [{'containerPort': 80}], 'env': [{'name': f'V{i}', 'value': 'x' * 40} for i in range(12)],
           'resources': {'requests': {'cpu': '10m', 'memory': '16Mi'}}}]}}
OBJECTS = 200


def lua(method, path, body, kind='application/json'):
    """A request whose path and body may hold %N (counts up) and %K (0 .. OBJECTS - 1)."""
    return f'''
local n = 0
wrk.headers["Content-Type"] = "{kind}"
local path, body = [[{path}]], [[{body or ''}]]
request = function()
  n = n + 1
  local k = n % {OBJECTS}
  local p = path:gsub("%%K", k)
  return wrk.format("{method}", p, nil, {'nil' if body is None else '(body:gsub("%%K", k):gsub("%%N", n))'})
end
'''


def loads():
    text = 'x' * 2500
    config = lambda name: json.dumps({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': name, 'data': {'text': text, 'n': '%N'}})
    return (('GET', 'GET', '/api/v1/namespaces/kube-system', None, 'application/json', (1, 32)),
            ('create 3 KB', 'POST', CONFIGMAPS, config({'generateName': 'b-'}), 'application/json', (1, 32, 256)),
            ('update 3 KB', 'PUT', CONFIGMAPS + '/u-%K', config({'name': 'u-%K'}), 'application/json', (1, 32, 256)),
            ('patch', 'PATCH', CONFIGMAPS + '/u-%K', '{"data":{"n":"%N"}}', 'application/merge-patch+json', (1, 32, 256)),
            ('apply', 'PATCH', CONFIGMAPS + '/u-%K?fieldManager=bench&force=true', config({'name': 'u-%K'}), 'application/apply-patch+yaml', (1, 32, 256)))


def crd(i):
    group = f'g{i}.bench.example'
    properties = {f'field{k}': {'type': 'object', 'properties': {'a': {'type': 'string', 'description': 'what it is for, in a few words'},
                                                                 'n': {'type': 'integer', 'minimum': 0}}} for k in range(20)}
    return {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': f'things.{group}'},
            'spec': {'group': group, 'scope': 'Namespaced', 'names': {'plural': 'things', 'singular': 'thing', 'kind': 'Thing'},
                     'versions': [{'name': 'v1', 'served': True, 'storage': True,
                                   'schema': {'openAPIV3Schema': {'type': 'object', 'properties': {'spec': {'type': 'object', 'properties': properties}}}}}]}}


def measure_requests(side, out):
    for k in range(OBJECTS):
        side.http('POST', CONFIGMAPS, {'metadata': {'name': f'u-{k}'}, 'data': {}})
    for name, method, path, body, kind, clients in loads():
        for c in clients:
            rate, p50, p99, bad, took = wrk(side, c, lua(method, path, body, kind))
            out(f'{name}, {c} client{"s" if c > 1 else ""}', rate, '/s', f'p50 {p50:.2f} p99 {p99:.2f} ms' + (f', {bad} refused' if bad else ''),
                cpu=took)


def measure_fanout(side, out, watchers=1000):
    program = os.path.join(side.dir, 'fanout')
    subprocess.run(['cc', '-O2', '-w', '-o', program, os.path.join(HERE, 'fanout.c'), '-lssl', '-lcrypto'], check=True)
    done = subprocess.run(['sh', '-c', 'ulimit -n 8192; exec "$@"', 'sh', program, '127.0.0.1', str(side.port), side.bearer, str(watchers), '15', 'default',
                           *(str(p.pid) for p in side.procs)], text=True, capture_output=True, timeout=180)
    if done.returncode:
        raise RuntimeError(done.stderr)
    p50, worst, took = map(float, done.stdout.split())
    out(f'one event to {watchers:,} watchers', p50, 'ms', f'longest {worst:.1f}', cpu=took / watchers)


def measure_crds(side, out, count=500):
    took, status = [], 0
    before = side.memory()
    for i in range(count):
        began = time.perf_counter()
        status, text = side.http('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd(i))
        if status != 201:
            raise RuntimeError(text[:300])
        while i < 20:
            if side.http('GET', f'/apis/g{i}.bench.example/v1/namespaces/default/things')[0] == 200:
                took.append((time.perf_counter() - began) * 1000)
                break
    out('CRD: POST until it lists', median(took), 'ms', f'longest {max(took):.0f}')
    time.sleep(3)
    out(f'memory for {count} CRDs', side.memory() - before, 'MB')


def schema_of(size, seed=0):
    """A nested schema of about that many bytes, as generators write them: objects in objects, lists, maps, long descriptions."""
    words = ('the', 'name', 'of', 'volume', 'that', 'is', 'mounted', 'when', 'container', 'starts', 'must', 'be', 'unique', 'within', 'namespace', 'defaults',
             'to', 'policy', 'which', 'selects', 'pods', 'by', 'label', 'and', 'tells', 'how', 'long', 'a', 'request', 'may', 'take', 'before', 'it', 'fails')
    state = [seed * 7919 + 1]

    def some(n):
        state[0] = (state[0] * 1103515245 + 12345) & 0x7fffffff
        return (state[0] >> 8) % n

    def describe():
        return ' '.join(words[some(len(words))] for _ in range(8 + some(24)))

    def leaf():
        return ({'type': 'string', 'maxLength': 253}, {'type': 'integer', 'format': 'int32', 'minimum': 0}, {'type': 'boolean', 'default': False},
                {'type': 'string', 'enum': ['Always', 'Never', 'IfNotPresent']}, {'type': 'array', 'items': {'type': 'string'}},
                {'type': 'object', 'additionalProperties': {'type': 'string'}},
                {'anyOf': [{'type': 'integer'}, {'type': 'string'}], 'x-kubernetes-int-or-string': True})[some(7)]

    def node(depth):
        if not depth:
            return leaf() | {'description': describe()}
        properties = {f'{words[some(len(words))]}{chr(65 + k)}{words[some(len(words))].title()}': node(depth - 1 if some(3) else 0) for k in range(3 + some(5))}
        one = {'type': 'object', 'description': describe(), 'properties': properties, 'required': sorted(properties)[:1]}
        return {'type': 'array', 'description': describe(), 'items': one} if some(4) == 0 else one

    spec, n = {}, 0
    while n < size:
        one = node(5)
        spec[f'part{len(spec)}'] = one
        n += len(json.dumps(one, separators=(',', ':')))
        if n > size * 1.1:
            n -= len(json.dumps(spec.popitem()[1], separators=(',', ':')))
    return {'type': 'object', 'properties': {'spec': {'type': 'object', 'properties': spec}, 'status': {'type': 'object', 'properties': {'ready': {'type': 'boolean'}}}}}


def big_crd(i, schema):
    one = crd(i)
    version = one['spec']['versions'][0]
    version.update({'schema': {'openAPIV3Schema': schema}, 'subresources': {'status': {}},
                    'additionalPrinterColumns': [{'name': 'Ready', 'type': 'boolean', 'jsonPath': '.status.ready'}]})
    return one


def measure_big_crds(side, out, count=int(os.environ.get('BENCH_CRDS', '200'))):
    """What definitions of a real size take while nobody uses them: made, and after a restart."""
    schemas = [schema_of(66000, k) for k in range(8)]
    size = median(len(json.dumps(s, separators=(',', ':'))) for s in schemas)
    time.sleep(1)
    before, took = side.memory(), []
    for i in range(count):
        began = time.perf_counter()
        status, text = side.http('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', big_crd(i, schemas[i % len(schemas)]))
        took.append((time.perf_counter() - began) * 1000)
        if status != 201:
            raise RuntimeError(text[:300])
    time.sleep(5)
    grown = side.memory() - before
    out(f'big CRD: POST of {size / 1000:.0f} KB', median(took), 'ms', f'longest {max(took):.0f}')
    out(f'memory per big CRD ({count})', grown / count, 'MB', f'{before:.1f} -> {before + grown:.1f} MB')
    side.stop()
    began = time.perf_counter()
    side.start()
    out(f'start with {count} big CRDs, until ready', (time.perf_counter() - began) * 1000, 'ms')
    began = time.perf_counter()
    status, text = side.http('GET', f'/apis/g{count - 1}.bench.example/v1/namespaces/default/things')
    if status != 200:
        raise RuntimeError(text[:300])
    out('... and until the last one lists', (time.perf_counter() - began) * 1000, 'ms')
    time.sleep(5)
    out('memory per big CRD after that start', (side.memory() - before) / count, 'MB', f'{side.memory():.1f} MB')
    began = time.perf_counter()
    for i in range(count):
        status, text = side.http('POST', f'/apis/g{i}.bench.example/v1/namespaces/default/things', {
            'apiVersion': f'g{i}.bench.example/v1', 'kind': 'Thing', 'metadata': {'name': 'x'}})
        if status != 201:
            raise RuntimeError(text[:300])
    out('an object of each: one create', (time.perf_counter() - began) * 1000 / count, 'ms')
    out('memory per big CRD, each just used', (side.memory() - before) / count, 'MB', f'{side.memory():.1f} MB')


def count_pods(side):
    meta = json.loads(side.http('GET', '/api/v1/pods?limit=1')[1])['metadata']
    return meta.get('remainingItemCount', 0) + 1


def fill(side, want):
    """Pods up to that number, over the API."""
    have, rate = 0, 3000.0
    began = time.time()
    while have < want and time.time() < began + 600:
        seconds = max(1, min(20, int((want - have) / rate)))
        wrk(side, 32, lua('POST', '/api/v1/namespaces/default/pods', json.dumps(POD)), seconds=seconds)
        now = count_pods(side)
        rate, have = max(200.0, (now - have) / seconds), now
    return have


def measure_lists(side, out):
    fill(side, 10000)
    for name, accept in (('JSON', 'application/json'), ('protobuf', 'application/vnd.kubernetes.protobuf'), ('Table', 'application/json;as=Table;v=v1;g=meta.k8s.io')):
        took, size, before = [], 0, side.cpu()
        for _ in range(7):
            r = subprocess.run(['curl', '-sk', '-A', 'bench', '-o', '/dev/null', '-w', '%{time_total} %{size_download} %{http_code}', '-H', 'Authorization: Bearer ' + side.bearer,
                                '-H', 'Accept: ' + accept, f'https://127.0.0.1:{side.port}/api/v1/namespaces/default/pods?limit=10000'],
                               text=True, capture_output=True).stdout.split()
            if r[2] != '200':
                raise RuntimeError(r)
            took.append(float(r[0]) * 1000)
            size = int(r[1])
        out(f'LIST of 10,000 pods, {name}', median(took), 'ms', f'{size / 1e6:.1f} MB', cpu=(side.cpu() - before) * 1e6 / 7)
    out('memory with 10,000 pods', side.memory(), 'MB')


def measure_big(side, out):
    n = fill(side, 100000)
    if n < 100000:
        out(f'only {n:,} pods made in time', 0, '')
    out('memory with 100,000 pods', side.memory(), 'MB')
    side.stop()
    began = time.perf_counter()
    side.start()
    out('start with 100,000 pods, until ready', (time.perf_counter() - began) * 1000, 'ms')
    side.http('GET', '/api/v1/namespaces/default/pods?limit=1')
    time.sleep(2)
    out('memory after that start', side.memory(), 'MB')


def sides(tandem, upstream):
    yield Tandem(tandem)
    if upstream:
        yield Upstream(upstream)


def upstream_folder():
    for folder in (os.environ.get('TANDEM_UPSTREAM'), os.path.join(TOP, 'build', 'tools')):
        if folder and all(os.path.exists(os.path.join(folder, n)) for n in ('kube-apiserver', 'etcd')):
            return folder
    return None


PARTS = (('requests', measure_requests), ('fanout', measure_fanout), ('crds', measure_crds), ('bigcrds', measure_big_crds), ('lists', measure_lists), ('big', measure_big))


def run(row, tandem, parts=('requests', 'fanout', 'crds', 'lists')):
    """row(what, value, unit, beside, note): tandem's figure, upstream's beside it with the ratio."""
    upstream, found, order = upstream_folder(), {}, []
    if not upstream:
        print('API: upstream is not beside it; tools/go-tools kube-apiserver etcd builds its programs')
    for side in sides(tandem, upstream):
        began = time.perf_counter()
        with side:
            def out(what, value, unit, note='', cpu=None):
                if what not in found:
                    found[what] = {}
                    order.append(what)
                found[what][side.name] = (value, unit, note, cpu)
            out('start, empty, until ready', (time.perf_counter() - began) * 1000, 'ms')
            time.sleep(3)
            out('memory, empty', side.memory(), 'MB')
            for name, measure in PARTS:
                if name in parts:
                    try:
                        measure(side, out)
                    except Exception as e:            # the others are still worth printing
                        print(f'API: {side.name}: {name}: not measured: {e}')
    for what in order:
        value, unit, note, took = found[what].get('tandem', (0, '', 'not measured', None))
        other = found[what].get(Upstream.name)
        beside = ''
        if took:                                          # the figure that other work on the machine does not spoil
            note += f'; CPU {took:.1f} us' + (f' against {other[3]:.1f}: {other[3] / took:.1f} x' if other and other[3] else '')
        if other and value and other[0]:
            times = value / other[0] if unit == '/s' else other[0] / value
            beside = f'{other[0]:,.1f}: {times:.1f} x'
        row('API: ' + what, value, unit, beside, note)


if __name__ == '__main__':
    import argparse
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--tandem', default=os.path.join(TOP, 'build', 'tandem'))
    p.add_argument('--parts', default='requests,fanout,crds,lists')
    o = p.parse_args()
    run(lambda what, value, unit, beside='', note='': print(f'{what:46} {value:12,.2f} {unit:5} {beside:26} {note}', flush=True), o.tandem, o.parts.split(','))
