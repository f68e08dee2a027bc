"""A small real OpenID Connect issuer: HTTPS under a CA of its own, discovery, a key set, signed tokens."""
import base64, http.server, json, os, ssl, subprocess, threading, time


def openssl(*words, text=None):
    return subprocess.run(['openssl', *words], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True, timeout=60).stdout


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def raw_signature(der, half):
    """r || s of a DER signature."""
    at = 2 + (der[1] == 0x81)
    out = b''
    for _ in range(2):
        n = der[at + 1]
        out += der[at + 2:at + 2 + n].lstrip(b'\0').rjust(half, b'\0')
        at += 2 + n
    return out


class Key:
    def __init__(self, folder, kid, alg='RS256'):
        self.kid, self.alg, self.path = kid, alg, os.path.join(folder, kid + '.key')
        if alg[0] in 'RP':
            openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', self.path)
        else:
            openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:' + {'ES256': 'P-256', 'ES384': 'P-384', 'ES512': 'P-521'}[alg], '-out', self.path)

    def jwk(self):
        head = {'kid': self.kid, 'use': 'sig', 'alg': self.alg}
        if self.alg[0] in 'RP':
            n = openssl('rsa', '-in', self.path, '-noout', '-modulus').decode().strip().split('=')[1]
            return {**head, 'kty': 'RSA', 'n': b64(bytes.fromhex(n)), 'e': 'AQAB'}
        der = openssl('pkey', '-in', self.path, '-pubout', '-outform', 'DER')
        half = {'ES256': 32, 'ES384': 48, 'ES512': 66}[self.alg]
        return {**head, 'kty': 'EC', 'crv': {'ES256': 'P-256', 'ES384': 'P-384', 'ES512': 'P-521'}[self.alg],
                'x': b64(der[-2 * half:-half]), 'y': b64(der[-half:])}

    def token(self, claims, alg=None, kid=None):
        text = b64(json.dumps({'alg': alg or self.alg, 'kid': kid or self.kid}).encode()) + '.' + b64(json.dumps(claims).encode())
        more = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:-1'] if self.alg[0] == 'P' else []
        sig = openssl('dgst', '-sha' + self.alg[2:], *more, '-sign', self.path, text=text.encode())
        if self.alg[0] == 'E':
            sig = raw_signature(sig, {'ES256': 32, 'ES384': 48, 'ES512': 66}[self.alg])
        return text + '.' + b64(sig)


class Issuer:
    def __init__(self, folder):
        self.folder, self.keys, self.asked = folder, [], []
        ca, key = (os.path.join(folder, n) for n in ('ca.crt', 'ca.key'))
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', ca, '-subj', '/CN=issuer-ca', '-days', '2')
        csr = openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', os.path.join(folder, 'tls.key'), '-subj', '/CN=issuer')
        with open(os.path.join(folder, 'ext'), 'w') as f:
            f.write('subjectAltName=IP:127.0.0.1\n')
        crt = openssl('x509', '-req', '-CA', ca, '-CAkey', key, '-CAcreateserial', '-days', '2', '-extfile', os.path.join(folder, 'ext'), text=csr)
        with open(os.path.join(folder, 'tls.crt'), 'wb') as f:
            f.write(crt)
        self.ca = open(ca).read()
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked.append(self.path)
                doc = {'/.well-known/openid-configuration': {'issuer': issuer.url, 'jwks_uri': issuer.url + '/keys'},
                       '/keys': {'keys': [k.jwk() for k in issuer.keys]}}.get(self.path)
                body = json.dumps(doc or {}).encode()
                self.send_response(200 if doc else 404)
                self.send_header('content-type', 'application/json')
                self.send_header('content-length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(os.path.join(folder, 'tls.crt'), os.path.join(folder, 'tls.key'))
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f'https://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def claims(self, **more):
        now = int(time.time())
        return {'iss': self.url, 'aud': 'tandem', 'sub': 'ann', 'iat': now, 'exp': now + 600, **more}
