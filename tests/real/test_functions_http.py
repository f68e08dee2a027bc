"""HTTP functions: any program that listens on $PORT, by kubectl and plain HTTP clients."""
import base64, hashlib, http.client, io, json, os, socket, ssl, struct, subprocess, tarfile, shutil, threading, time, urllib.error, urllib.request, uuid

import pytest

from conftest import TOP, eventually, running
from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

SERVER = r'''#!/usr/bin/python3
import hashlib, base64, json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
now, most, lock, go = 0, 0, threading.Lock(), threading.Event()

def on_term(*_):
    print('told to end', flush=True)
    time.sleep(float(os.environ.get('LINGER', '0')))
    print('ended', flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, on_term)

class H(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a):
        pass
    def say(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.send_header('X-Own', 'yes')
        self.end_headers()
        self.wfile.write(data)
    def body(self):
        if self.headers.get('Transfer-Encoding') == 'chunked':
            while n := int(self.rfile.readline(), 16):
                yield self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get('Content-Length') or 0)
            while left:
                part = self.rfile.read(min(left, 65536))
                left -= len(part)
                yield part
    def do_POST(self):
        n, h = 0, hashlib.sha256()
        for part in self.body():
            n += len(part)
            h.update(part)
        self.say({'bytes': n, 'sha256': h.hexdigest()})
    def do_GET(self):
        global now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            self.get()
        finally:
            with lock:
                now -= 1
    def get(self):
        path = self.path.split('?')[0]
        if path == '/env':
            self.say({'env': {k: os.environ.get(k) for k in ('PORT', 'K_SERVICE', 'K_REVISION', 'K_CONFIGURATION', 'COLOUR')}, 'path': self.path,
                      'headers': dict(self.headers), 'pid': os.getpid(), 'boot': BOOT})
        elif path == '/sleep':
            time.sleep(0.5)
            self.say({'most': most, 'boot': BOOT})
        elif path == '/stream':
            self.send_response(206)
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            go.clear()
            self.wfile.write(b'5\r\npart0\r\n')
            go.wait(60)                                  # nothing more until somebody has seen that and says /go
            self.wfile.write(b'5\r\npart1\r\n5\r\npart2\r\n0\r\n\r\n')
        elif path == '/go':
            go.set()
            self.say({})
        elif path == '/big':
            self.send_response(200)
            self.send_header('Content-Length', str(40 << 20))
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b'x' * (1 << 20))
        elif path == '/ws':
            key = base64.b64encode(hashlib.sha1((self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode()
            self.send_response(101)
            for k, v in (('Upgrade', 'websocket'), ('Connection', 'Upgrade'), ('Sec-WebSocket-Accept', key)):
                self.send_header(k, v)
            self.end_headers()
            self.wfile.flush()
            while data := self.connection.recv(4096):
                first, n = data[0], data[1] & 127
                if first & 15 == 8:
                    break
                mask, text = data[2:6], data[6:6 + n]
                text = bytes(b ^ mask[i % 4] for i, b in enumerate(text))[::-1]
                self.connection.sendall(bytes((first, len(text))) + text)
            self.close_connection = True
        elif path == '/exit':
            os._exit(9)
        elif path == '/hang':
            time.sleep(60)
        else:
            self.say({'no': self.path}, 404)

BOOT = os.urandom(8).hex()
print('listening', flush=True)
class S(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
time.sleep(0.3)                                          # some take their time
S(('0.0.0.0', int(os.environ['PORT'])), H).serve_forever()
'''


def apply(tandem, name, **spec):
    text = json.dumps({'apiVersion': 'tandem.dev/v1', 'kind': 'Function', 'metadata': {'name': name}, 'spec': {'url': {'enabled': True, 'authType': 'NONE'}, **spec}})
    tandem.kubectl('apply', '-f', '-', text=text)
    eventually(lambda: tandem.get('function', name).get('status', {}).get('state') == 'Active', 20)


def port(tandem):
    return int(tandem.status['gateway'].rsplit(':', 1)[1].strip('/'))


def get(tandem, name, path, data=None, headers={}):
    """By the host's first label, as behind a wildcard name."""
    request = urllib.request.Request(f'http://127.0.0.1:{port(tandem)}{path}', data, {'Host': f'{name}.example.org', **headers})
    with urllib.request.urlopen(request, timeout=90) as got:
        return json.loads(got.read())


def instances(tandem, name):
    """The function's instances as the gateway counts them, by its admin socket."""
    said = subprocess.run(['curl', '-s', '--max-time', '20', '--unix-socket', f'{tandem.state}/run/gateway.sock', 'http://localhost/instances'], text=True, capture_output=True).stdout
    return [i for f in json.loads(said)['functions'] if f['name'] == name for i in f['instances'] if i['state'] != 'ahead']


@pytest.fixture(scope='module')
def web(tandem, tmp_path_factory):
    """A container image with a server in it, as a function."""
    tar = str(tmp_path_factory.mktemp('web') / 'web.tar')
    shutil.copy(os.path.join(TOP, 'build', 'gallery', 'image.tar'), tar)
    with tarfile.open(tar, 'a') as t:
        info = tarfile.TarInfo('./app/serve.py')
        info.size, info.mode = len(SERVER), 0o755
        t.addfile(info, io.BytesIO(SERVER.encode()))
    tandem.tandem('image', 'import', '--name', 'http-web:1', '--cmd', '["/usr/bin/python3","-u","/app/serve.py"]', tar)
    os.remove(tar)
    apply(tandem, 'http-web', packageType='Image', image='http-web:1', memoryMB=256, timeoutSeconds=90, environment={'COLOUR': 'green'}, http={'port': 8085, 'concurrency': 10})
    yield 'http-web'
    tandem.kubectl('delete', 'function', 'http-web')


def test_requests_come_as_they_are(tandem, web):
    got = get(tandem, web, '/env?a=%20b&c', headers={'X-Mine': 'so', 'Cookie': 'k=v'})
    assert got['env'] == {'PORT': '8085', 'K_SERVICE': web, 'K_REVISION': web + '-latest', 'K_CONFIGURATION': web, 'COLOUR': 'green'}
    head = {k.lower(): v for k, v in got['headers'].items()}
    assert got['path'] == '/env?a=%20b&c' and head['x-mine'] == 'so' and head['host'] == web + '.example.org' and head['cookie'] == 'k=v'
    assert head['x-forwarded-for'] and head['x-forwarded-proto'] == 'http'
    with urllib.request.urlopen(f'http://127.0.0.1:{port(tandem)}/function/{web}/env') as got:
        assert got.headers['x-own'] == 'yes' and json.loads(got.read())['path'] == '/env'
    with pytest.raises(urllib.error.HTTPError) as e:
        get(tandem, web, '/nowhere')
    assert e.value.code == 404 and json.loads(e.value.read()) == {'no': '/nowhere'}


def test_bodies_have_no_limit_and_stream(tandem, web):
    data = os.urandom(1 << 20) * 30
    assert get(tandem, web, '/', data) == {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    with urllib.request.urlopen(f'http://127.0.0.1:{port(tandem)}/function/{web}/big') as got:
        assert len(got.read()) == 40 << 20
    with urllib.request.urlopen(f'http://127.0.0.1:{port(tandem)}/function/{web}/stream', timeout=60) as got:
        assert got.status == 206 and got.read(5) == b'part0'
        done = threading.Event()

        def go_on():                                     # there may be several instances
            while not done.wait(0.1):
                get(tandem, web, '/go')
        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            assert got.read() == b'part1part2'
        finally:
            done.set()
            thread.join()
    c = http.client.HTTPConnection('127.0.0.1', port(tandem))   # a request in chunks, too
    c.request('POST', f'/function/{web}/', iter([b'a' * 100000, b'b' * 5]), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    assert json.loads(c.getresponse().read())['bytes'] == 100005


def test_websocket(tandem, web):
    import websocket
    ws = websocket.create_connection(f'ws://127.0.0.1:{port(tandem)}/function/{web}/ws')
    for text in ('hello', 'again'):
        ws.send(text)
        assert ws.recv() == text[::-1]
    ws.close()


def test_instances_share_and_grow(tandem, web):
    get(tandem, web, '/env')
    answers, until = [], time.time() + 60

    def ask():                                           # all the time, until there is a second instance
        while not answers or len({a['boot'] for a in answers}) < 2 and time.time() < until:
            answers.append(get(tandem, web, '/sleep'))
    threads = [threading.Thread(target=ask) for _ in range(25)]
    for t in threads: t.start()
    for t in threads: t.join()
    boots = {a['boot'] for a in answers}
    assert 2 <= len(boots) <= 4, boots                   # 25 at once, 10 in one
    assert 1 < max(a['most'] for a in answers) <= 10


def test_to_zero_with_sigterm_and_from_zero(tandem, web):
    was = get(tandem, web, '/env')['boot']
    before = tandem.tandem('logs', web).stdout.count('told to end')
    eventually(lambda: not instances(tandem, web), every=0.5)    # nobody calls: ten seconds, then SIGTERM
    log = eventually(lambda: (t := tandem.tandem('logs', web).stdout).count('told to end') > before and t)
    assert 'ended' in log[log.rindex('told to end'):] or eventually(lambda: 'ended' in (t := tandem.tandem('logs', web).stdout)[t.rindex('told to end'):])
    assert get(tandem, web, '/env')['boot'] != was


def test_a_program_that_ends(tandem, web):
    with pytest.raises(urllib.error.HTTPError) as e:
        get(tandem, web, '/exit')
    assert e.value.code == 502
    assert get(tandem, web, '/env')['pid'] > 0
    apply(tandem, 'http-never', packageType='Image', image='http-web:1', imageConfig={'entryPoint': ['/usr/bin/python3', '-c', 'raise SystemExit(4)']}, http={'port': 1234})
    with pytest.raises(urllib.error.HTTPError) as e:
        get(tandem, 'http-never', '/')
    assert e.value.code == 503 and 'status 4' in e.value.read().decode()
    tandem.kubectl('delete', 'function', 'http-never')


def test_time_limit_is_504(tandem, web):
    apply(tandem, 'http-slow', packageType='Image', image='http-web:1', timeoutSeconds=1, http={'port': 8080})
    with pytest.raises(urllib.error.HTTPError) as e:
        get(tandem, 'http-slow', '/hang')
    assert e.value.code == 504
    tandem.kubectl('delete', 'function', 'http-slow')


def test_a_zip_is_a_server_too(tandem, fn):
    create(fn, 'zipweb', code=executable(SERVER), Runtime='provided.al2023', Handler='any')
    tandem.kubectl('patch', 'function', 'zipweb', '--type=merge', '-p', json.dumps({'spec': {'http': {'port': 9000}, 'url': {'enabled': True, 'authType': 'NONE'}}}))
    eventually(lambda: get(tandem, 'zipweb', '/env')['env']['PORT'] == '9000', 10)
    with pytest.raises(fn.exceptions.InvalidRequestContentException):
        fn.invoke(FunctionName='zipweb', Payload=b'{}')
    for bad in ({'port': -1}, {'port': 70000}, {'concurrency': -1}):
        assert tandem.kubectl('patch', 'function', 'zipweb', '--type=merge', '-p', json.dumps({'spec': {'http': bad}}), check=False).returncode
    fn.delete_function(FunctionName='zipweb')


def test_a_client_that_goes_away_gives_its_place_back(tandem, web):
    apply(tandem, 'http-one', packageType='Image', image='http-web:1', timeoutSeconds=120, reservedConcurrency=1, http={'port': 8080, 'concurrency': 1})
    get(tandem, 'http-one', '/env')
    s = socket.create_connection(('127.0.0.1', port(tandem)), timeout=60)
    s.sendall(b'GET /function/http-one/stream HTTP/1.1\r\nHost: x\r\n\r\n')
    said = b''
    while b'part0' not in said:                          # it has the place, and nobody says /go
        said += s.recv(4096)
    with pytest.raises(urllib.error.HTTPError) as e:
        get(tandem, 'http-one', '/env')
    assert e.value.code == 429
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))   # a reset, not a half close
    s.close()
    eventually(lambda: get(tandem, 'http-one', '/env')['pid'] > 0, 10)
    tandem.kubectl('delete', 'function', 'http-one')


def test_https_and_http2(tmp_path):
    """The gateway's TLS port: HTTP/1.1 and HTTP/2 by ALPN, and a certificate that is renewed; HTTP/2 in the clear beside it."""
    def certificate(name):
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', f'/CN={name}',
                        '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', tmp_path / 'key.pem', '-out', tmp_path / 'cert.pem'],
                       check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    certificate('first')
    with socket.create_server(('127.0.0.1', 0)) as s:
        https = s.getsockname()[1]
    files = ['--gateway-tls-cert-file', str(tmp_path / 'cert.pem'), '--gateway-tls-private-key-file', str(tmp_path / 'key.pem')]
    with running('--pod-cidr', '10.59.0.0/16', '--gateway-tls-port', str(https), *files) as one:
        fn = one.boto('lambda')
        create(fn, 'by-tls', code=zipped('def handler(event, context):\n    return event["requestContext"]["http"]["protocol"] + " " + event["headers"]["x-forwarded-proto"]\n'))
        fn.create_function_url_config(FunctionName='by-tls', AuthType='NONE')
        trusts = ssl.create_default_context(cafile=tmp_path / 'cert.pem')
        url = f'https://127.0.0.1:{https}/function/by-tls/'
        eventually(lambda: urllib.request.urlopen(url, context=trusts).read() == b'HTTP/1.1 https')
        for offered, chosen in ((['h2', 'http/1.1'], 'h2'), (['http/1.1'], 'http/1.1'), (['http/1.1', 'h2'], 'h2')):
            trusts.set_alpn_protocols(offered)
            with trusts.wrap_socket(socket.create_connection(('127.0.0.1', https)), server_hostname='localhost') as s:
                assert s.selected_alpn_protocol() == chosen
        if shutil.which('curl'):
            said = subprocess.run(['curl', '-s', '--http2', '--cacert', tmp_path / 'cert.pem', '-w', ' by %{http_version}', url], check=True, stdout=subprocess.PIPE, timeout=20)
            assert said.stdout == b'HTTP/2.0 https by 2'
            said = subprocess.run(['curl', '-s', '--http2-prior-knowledge', '-w', ' by %{http_version}', f'http://127.0.0.1:{port(one)}/function/by-tls/'], check=True,
                                  stdout=subprocess.PIPE, timeout=20)
            assert said.stdout == b'HTTP/2.0 http by 2'
        certificate('second')                            # the files are looked at every 30 s
        shown = lambda: ssl.get_server_certificate(('127.0.0.1', https))
        eventually(lambda: shown().split() == open(tmp_path / 'cert.pem').read().split(), 60, every=1)
    bad = subprocess.run([os.path.join(TOP, 'build', 'tandem'), 'up', '--gateway-tls-port', '1', '--state', str(tmp_path / 'x')], text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=20)
    assert bad.returncode == 2 and 'go together' in bad.stdout
