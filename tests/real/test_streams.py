"""Logs, exec, attach and port-forward by every protocol that clients speak, and the network of pods:
services, names, affinity, hairpin, recycled addresses."""
import hashlib, json, os, re, subprocess, time, urllib.request

import pytest

from conftest import eventually

PODS = '''
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  hostname: web-0
  subdomain: direct
  containers:
  - name: main
    image: gallery:1
    command:
    - python3
    - -uc
    - |
      import http.server, socketserver
      class H(http.server.BaseHTTPRequestHandler):
          def do_GET(self):
              b = ("web from " + self.client_address[0]).encode()
              self.send_response(200)
              self.send_header("Content-Length", str(len(b)))
              self.end_headers()
              self.wfile.write(b)
      http.server.ThreadingHTTPServer(("", 8000), H).serve_forever()
    readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: gallery:1
    command:
    - python3
    - -uc
    - |
      import socket
      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s.bind(("0.0.0.0", 5353))
      while True:
          d, a = s.recvfrom(2000)
          s.sendto(b"echo " + d, a)
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'gallery:1', stdin: true, tty: true, command: [sh]}
---
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: gallery:1
    command: [sh, -c, 'for i in $(seq 1 200); do echo line $i; done; echo to-stderr >&2; printf no-newline; sleep 2; echo; echo last']
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: direct}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{port: 53, targetPort: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec:
  type: ExternalName
  externalName: web.streams.svc.cluster.local
'''


@pytest.fixture(scope='module')
def k(image):
    image.kubectl('create', 'namespace', 'streams')
    def run(*words, **more):
        return image.kubectl('-n', 'streams', *words, **more)
    run.instance = image
    run('apply', '-f', '-', text=PODS)
    run('wait', '--for=condition=Ready', 'pod/web', 'pod/echo', 'pod/shell', '--timeout=120s')
    listens = 'import socket; socket.create_connection(("127.0.0.1", 8000))'
    eventually(lambda: run('exec', 'web', '--', 'python3', '-c', listens, check=False).returncode == 0)
    yield run
    image.kubectl('delete', 'namespace', 'streams', '--wait=true', '--timeout=150s', timeout=180)


def python_in(k, program, pod='shell'):
    return k('exec', pod, '-i', '--', 'python3', '-', text=program).stdout.strip()


def fetch(url, seconds=60):
    with urllib.request.urlopen(url, timeout=seconds) as r:
        return r.read().decode()


# ---- logs ----

def test_log_options(k):
    k('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/talk', '--timeout=90s')
    whole = k('logs', 'talk').stdout.split('\n')
    lines = [f'line {i}' for i in range(1, 201)]
    assert [l for l in whole if l.startswith('line')] == lines
    assert 'to-stderr' in whole and 'no-newline' in whole and whole[-2:] == ['last', '']
    assert k('logs', 'talk', '--tail=1').stdout == 'last\n'
    assert k('logs', 'talk', '--tail=0').stdout == ''
    assert k('logs', 'talk', '--tail=100000').stdout.split('\n') == whole
    assert k('logs', 'talk', '--limit-bytes=10').stdout == '\n'.join(lines)[:10]
    assert k('logs', 'talk', '--since=1h').stdout.split('\n') == whole
    stamped = k('logs', 'talk', '--timestamps', '--tail=1').stdout.split(' ')
    assert stamped[1] == 'last\n' and stamped[0].endswith('Z') and 'T' in stamped[0]
    since = k('logs', 'talk', f'--since-time={stamped[0]}').stdout
    assert since.endswith('last\n') and 'line' not in since.replace('no-newline', '')   # kubectl cuts to seconds
    assert k('logs', 'talk', '--since-time=2100-01-01T00:00:00Z').stdout == ''
    assert k('logs', '-f', 'talk').stdout.split('\n') == whole        # of an ended container: it ends too


def test_logs_that_are_not_there(k):
    done = k('logs', 'web', '-c', 'nosuch', check=False)
    assert done.returncode and 'nosuch' in done.stderr
    done = k('logs', 'web', '--previous', check=False)
    assert done.returncode and 'previous terminated container' in done.stderr
    k('run', 'nopull', '--image=nosuch.invalid/x:1', '--restart=Never')
    done = eventually(lambda: (d := k('logs', 'nopull', check=False)).returncode and 'waiting to start' in d.stderr and d)
    k('delete', 'pod', 'nopull', '--wait=false')


def test_follow_ends_with_the_container(k):
    k('run', 'brief', '--image=gallery:1', '--restart=Never', '--command', '--', 'sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.3; done')
    eventually(lambda: k('logs', 'brief', check=False).stdout)
    assert k('logs', '-f', 'brief').stdout == '1\n2\n3\n'
    k('delete', 'pod', 'brief', '--wait=false')


# ---- exec, by WebSocket and SPDY ----

@pytest.fixture(params=['websocket', 'spdy'])
def protocol(request, monkeypatch):
    monkeypatch.setenv('KUBECTL_REMOTE_COMMAND_WEBSOCKETS', str(request.param == 'websocket').lower())
    monkeypatch.setenv('KUBECTL_PORT_FORWARD_WEBSOCKETS', str(request.param == 'websocket').lower())
    return request.param


def test_exec_streams_and_codes(k, protocol):
    done = k('exec', 'web', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3', check=False)
    assert (done.returncode, done.stdout) == (3, 'out\n') and 'err\n' in done.stderr
    assert k('exec', '-i', 'web', '--', 'cat', text='a\nb').stdout == 'a\nb'
    assert k('exec', '-i', 'web', '--', 'md5sum', text='x' * 3000000).stdout.split()[0] == hashlib.md5(b'x' * 3000000).hexdigest()
    many = k('exec', 'web', '--', 'python3', '-c', 'print("y" * 5000000)').stdout
    assert many == 'y' * 5000000 + '\n'
    done = k('exec', 'web', '--', 'nosuchprogram', check=False)
    assert done.returncode == 127 and 'nosuchprogram' in done.stdout + done.stderr
    done = k('exec', 'nosuchpod', '--', 'true', check=False)
    assert done.returncode and 'not found' in done.stderr


def test_exec_that_nobody_waits_for_ends(k, protocol):
    one = subprocess.Popen([k.instance.kubectls[0], '--kubeconfig', os.path.join(k.instance.state, 'kubeconfig'), '-n', 'streams', 'exec', 'web', '--',
                            'sleep', '4711'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = lambda: 'sleep\0' in python_in(k, 'import glob; print([open(f).read() for f in glob.glob("/proc/[0-9]*/cmdline")])'.replace('print(', 'print(*'), 'web')
    eventually(runs)
    one.kill()
    one.wait()
    eventually(lambda: not runs())


def test_port_forward(k, protocol, tmp_path):
    """kubectl picks the ports on this side: of a number picked here another connection may have become the owner meanwhile,
    and kubectl then says nothing as long as it can still listen on ::1."""
    one = subprocess.Popen([k.instance.kubectls[0], '--kubeconfig', os.path.join(k.instance.state, 'kubeconfig'), '-n', 'streams', 'port-forward', 'web',
                            ':8000', ':9'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(tmp_path / 'said', 'w'), text=True)
    said = lambda: (tmp_path / 'said').read_text()
    try:
        at = {}
        while len(at) < 2:
            line = one.stdout.readline()
            assert line, said()
            if found := re.match(r'Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)', line):
                at[found.group(2)] = found.group(1)
        for _ in range(10):
            assert fetch(f'http://127.0.0.1:{at["8000"]}/') == 'web from 127.0.0.1'
        with pytest.raises(Exception):
            fetch(f'http://127.0.0.1:{at["9"]}/')                               # nobody listens on that port
        eventually(lambda: 'port 9 in pod' in said() and 'refused' in said())
    finally:
        one.terminate()
        one.communicate()


# ---- the Python client: WebSocket channels of the older kinds ----

@pytest.fixture(scope='module')
def core(k):
    kubernetes = pytest.importorskip('kubernetes')
    kubernetes.config.load_kube_config(os.path.join(k.instance.state, 'kubeconfig'))
    return kubernetes.client.CoreV1Api()


def test_python_client(core):
    from kubernetes.stream import portforward, stream
    get = core.connect_get_namespaced_pod_exec
    words = ['sh', '-c', 'echo out; echo err >&2; read x; echo got $x; exit 7']
    s = stream(get, 'web', 'streams', command=words, stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    s.write_stdin('hello\n')
    s.run_forever(timeout=90)
    assert s.read_stdout() == 'out\ngot hello\n' and s.read_stderr() == 'err\n' and s.returncode == 7
    pf = portforward(core.connect_get_namespaced_pod_portforward, 'web', 'streams', ports='8000')
    c = pf.socket(8000)
    c.settimeout(90)
    c.sendall(b'GET / HTTP/1.0\r\n\r\n')
    got = b''
    while part := c.recv(4096):
        got += part
    assert b'web from 127.0.0.1' in got and pf.error(8000) is None
    assert [e for e in core.read_namespaced_pod_log('web', 'streams', tail_lines=1)] is not None


def test_attach_to_a_terminal(core):
    from kubernetes.stream import stream
    s = stream(core.connect_get_namespaced_pod_attach, 'shell', 'streams', stdin=True, stdout=True, stderr=False, tty=True, _preload_content=False)
    s.write_stdin('echo sum $((6*7))\n')
    seen = ''
    def answered():
        nonlocal seen
        s.update(timeout=1)
        seen += s.read_stdout(timeout=1) or ''
        return 'sum 42' in seen
    eventually(answered, 10)
    s.close()


# ---- services and names ----

GET = 'import urllib.request as u; print(u.urlopen("http://%s/", timeout=60).read().decode())'


def test_services_by_every_way(k):
    svc = k.instance.get('-n', 'streams', 'service', 'web')
    ip, port = svc['spec']['clusterIP'], svc['spec']['ports'][0]['nodePort']
    mine = json.loads(k('get', 'pod', 'shell', '-o', 'json').stdout)['status']['podIP']
    eventually(lambda: fetch(f'http://{ip}/').startswith('web from 10.42.'))            # the host
    eventually(lambda: fetch(f'http://127.0.0.1:{port}/').startswith('web from'))
    for name in (ip, 'web', 'web.streams', 'web.streams.svc.cluster.local', 'elsewhere', 'direct:8000', 'web-0.direct:8000'):
        eventually(lambda: python_in(k, GET % name) == f'web from {mine}')              # a pod; its address is kept
    assert python_in(k, GET % 'web', 'web').startswith('web from')                      # hairpin
    said = k('exec', '-i', 'shell', '--', 'python3', '-', text=GET % 'nobody', check=False)
    assert 'refused' in said.stdout + said.stderr
    said = k('exec', '-i', 'shell', '--', 'python3', '-', text=GET % 'nosuchname', check=False)
    assert 'not known' in said.stdout + said.stderr or 'name resolution' in said.stdout + said.stderr   # nobody to ask here


def test_udp_and_srv(k):
    eventually(lambda: python_in(k, 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); '
                                    's.connect(("echo", 53)); s.send(b"hi"); print(s.recv(99).decode())') == 'echo hi')     # nobody promises that a datagram arrives


def test_the_api_from_a_pod(k):
    assert python_in(k, '''
import json, os, ssl, urllib.request
d = "/var/run/secrets/kubernetes.io/serviceaccount/"
r = urllib.request.Request("https://kubernetes.default.svc/version", headers={"Authorization": "Bearer " + open(d + "token").read()})
print(json.load(urllib.request.urlopen(r, context=ssl.create_default_context(cafile=d + "ca.crt"), timeout=60))["major"])''') == '1'


def test_affinity_keeps_a_client(k):
    k('create', 'deployment', 'many', '--image=gallery:1', '--replicas=3', '--', 'python3', '-c',
      'import http.server, socket\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(s):\n        b = socket.gethostname().encode(); '
      's.send_response(200); s.send_header("Content-Length", str(len(b))); s.end_headers(); s.wfile.write(b)\n'
      'http.server.ThreadingHTTPServer(("", 80), H).serve_forever()')
    k('rollout', 'status', 'deployment/many', '--timeout=60s')
    k('expose', 'deployment', 'many', '--port=80')
    ask = 'import urllib.request as u\nprint(*{u.urlopen("http://many/", timeout=60).read().decode() for _ in range(30)})'
    eventually(lambda: len(python_in(k, ask).split()) == 3)
    k('patch', 'service', 'many', '-p', '{"spec":{"sessionAffinity":"ClientIP"}}')
    eventually(lambda: len(python_in(k, ask).split()) == 1)
    k('delete', 'deployment,service', 'many')


def test_services_survive_kill_9_of_the_node(k):
    ip = k.instance.get('-n', 'streams', 'service', 'web')['spec']['clusterIP']
    before = k('get', 'pod', 'web', '-o', 'jsonpath={.status.podIP}').stdout
    k.instance.kill('node')
    for _ in range(20):
        assert fetch(f'http://{ip}/').startswith('web from')
        time.sleep(0.05)
    eventually(lambda: k('exec', 'web', '--', 'echo', 'here', check=False).stdout == 'here\n')
    assert k('get', 'pod', 'web', '-o', 'jsonpath={.status.podIP}').stdout == before
    assert python_in(k, GET % 'web').startswith('web from')
