"""What the API server asks outside of itself, played by Python: HTTPS servers with certificates of their own (webhooks,
conversions, aggregated APIs), and a small client that sees raw answers."""
import base64, copy, http.client, http.server, json, os, socket, ssl, subprocess, tempfile, threading, time


def make_ca(folder, name='ca'):
    key, crt = os.path.join(folder, name + '.key'), os.path.join(folder, name + '.crt')
    run = lambda *w: subprocess.run(['openssl', *w], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', crt, '-days', '2',
        '-subj', '/CN=' + name)
    return key, crt


def make_cert(folder, ca, name, alt):
    key, csr, crt, ext = (os.path.join(folder, name + e) for e in ('.key', '.csr', '.crt', '.ext'))
    run = lambda *w: subprocess.run(['openssl', *w], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    open(ext, 'w').write('subjectAltName=' + alt + '\n')
    run('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', csr, '-subj', '/CN=' + name)
    run('x509', '-req', '-in', csr, '-CA', ca[1], '-CAkey', ca[0], '-CAcreateserial', '-out', crt, '-days', '2', '-extfile', ext)
    return key, crt


class Server:
    """An HTTPS server; routes: path -> function(request, body) that gives (status, document or bytes)."""

    def __init__(self, folder, alt='DNS:localhost,IP:127.0.0.1', addr='127.0.0.1', client_ca=None):
        self.ca = make_ca(folder, 'hook-ca')
        key, crt = make_cert(folder, self.ca, 'hook', alt)
        self.bundle = base64.b64encode(open(self.ca[1], 'rb').read()).decode()
        self.routes, self.asked, outer = {}, [], self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *_):
                pass

            def handle_any(self):
                n = int(self.headers.get('content-length') or 0)
                body = self.rfile.read(n)
                path = self.path.split('?')[0]
                route = outer.routes.get(path) or next((f for p, f in outer.routes.items() if p.endswith('*') and path.startswith(p[:-1])), None)
                doc = json.loads(body) if body and 'json' in self.headers.get('content-type', 'json') else body
                outer.asked.append((self.path, doc))
                if not route:
                    status, out = 404, b'no such thing'
                else:
                    got = route(self, doc)
                    if got is None:                   # it answered itself
                        return
                    status, out = got
                data = out if isinstance(out, bytes) else json.dumps(out).encode()
                self.send_response(status)
                self.send_header('content-type', 'application/json')
                self.send_header('content-length', str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = handle_any

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass
        self.http = Threads((addr, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(crt, key)
        if client_ca:
            context.load_verify_locations(cadata=client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


def allow(review, **more):
    return 200, {'apiVersion': review['apiVersion'], 'kind': 'AdmissionReview', 'response': {'uid': review['request']['uid'], 'allowed': True, **more}}


def patch(review, ops, **more):
    return allow(review, patchType='JSONPatch', patch=base64.b64encode(json.dumps(ops).encode()).decode(), **more)


def deny(review, **status):
    return 200, {'apiVersion': review['apiVersion'], 'kind': 'AdmissionReview',
                 'response': {'uid': review['request']['uid'], 'allowed': False, 'status': status}}


class Client:
    """Raw requests as the administrator: answers are (status, document); warnings of the last answer in .warnings."""

    def __init__(self, state):
        lines = open(os.path.join(state, 'kubeconfig')).read()
        field = lambda name: base64.b64decode([l for l in lines.splitlines() if name + ':' in l][0].split(':', 1)[1].strip())
        server = [l for l in lines.splitlines() if 'server:' in l][0].split('server:', 1)[1].strip()
        self.host, self.port = server.split('//')[1].split(':')
        self.context = ssl.create_default_context(cadata=field('certificate-authority-data').decode())
        self.context.check_hostname = False
        with tempfile.NamedTemporaryFile(delete=False) as f:
            f.write(field('client-certificate-data') + b'\n' + field('client-key-data'))
        self.context.load_cert_chain(f.name)
        os.unlink(f.name)
        self.warnings = []

    def open(self, method, path, body=None, headers={}, timeout=30):
        c = http.client.HTTPSConnection(self.host, int(self.port), context=self.context, timeout=timeout)
        data = None if body is None else body if isinstance(body, (bytes, str)) else json.dumps(body)
        c.request(method, path, data, {'content-type': 'application/json', **headers})
        return c.getresponse()

    def __call__(self, method, path, body=None, headers={}, timeout=30):
        r = self.open(method, path, body, headers, timeout)
        text = r.read()
        self.warnings = r.headers.get_all('warning') or []
        try:
            return r.status, json.loads(text)
        except ValueError:
            return r.status, text

    def watch(self, path, seconds=10):
        """The events of a watch, until it ends."""
        r = self.open('GET', path, timeout=seconds)
        for line in r:
            yield json.loads(line)
