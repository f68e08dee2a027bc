"""Who asks and may they: an OpenID Connect issuer of another process, the audit log, certificate requests, tokens."""
import base64, json, os, ssl, subprocess, tempfile, time, urllib.error, urllib.request

import pytest

from conftest import eventually, running
from issuer import Issuer, Key, b64, openssl

CONFIG = '''
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {url}
    audiences: [tandem, other]
    audienceMatchPolicy: MatchAny
    certificateAuthority: |
{ca}
  claimMappings:
    username: {{claim: sub, prefix: '{prefix}'}}
    groups: {{claim: groups, prefix: 'oidc:'}}
    uid: {{claim: uid}}
  claimValidationRules:
  - {{claim: tenant, requiredValue: blue}}
anonymous:
  enabled: true
  conditions: [{{path: /livez}}, {{path: /readyz}}]
'''

POLICY = '''
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ['/livez*', '/readyz*', '/version']}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], verbs: [create, patch, get]}
- {level: Request, resources: [{group: '', resources: [serviceaccounts/token]}]}
- {level: None, users: [quiet]}
- {level: Metadata}
'''


def write(path, text):
    """In one step: who reads it meanwhile sees the old file or the new one."""
    with open(path + '.part', 'w') as f:
        f.write(text)
    os.rename(path + '.part', path)


def config_text(issuer, prefix='oidc:'):
    return CONFIG.format(url=issuer.url, prefix=prefix, ca=''.join('      ' + l for l in issuer.ca.splitlines(True)))


@pytest.fixture(scope='module')
def world():
    with tempfile.TemporaryDirectory(prefix='ta-', dir='/tmp') as folder:
        issuer = Issuer(folder)
        issuer.keys = [Key(folder, 'k1'), Key(folder, 'k2', 'ES256')]
        paths = {n: os.path.join(folder, n) for n in ('auth.yaml', 'policy.yaml', 'audit.log')}
        open(paths['auth.yaml'], 'w').write(config_text(issuer))
        open(paths['policy.yaml'], 'w').write(POLICY)
        with running('--api-only', '--authentication-config', paths['auth.yaml'], '--audit-policy-file', paths['policy.yaml'],
                     '--audit-log-path', paths['audit.log']) as one:
            one.issuer, one.folder, one.paths = issuer, folder, paths
            yield one
        issuer.stop()


EXPRESSIONS = '''
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {url}
    audiences: [tandem]
    certificateAuthority: |
{ca}
  claimMappings:
    username: {{expression: "'cel:' + claims.sub"}}
    groups: {{expression: "claims.roles.split(',')"}}
    uid: {{expression: "string(claims.number)"}}
    extra: [{{key: example.com/tenant, valueExpression: claims.tenant}}]
  claimValidationRules:
  - {{expression: 'claims.exp - claims.iat <= 3600', message: too long}}
  userValidationRules:
  - {{expression: "!user.username.startsWith('system:') && user.groups.all(g, g != 'root')", message: not that one}}
'''


def server(one):
    return next(l.split()[1] for l in open(os.path.join(one.state, 'kubeconfig')) if 'server:' in l)


def call(one, path, token=None, method='GET', body=None, headers={}):
    """(code, document, headers)"""
    context = ssl._create_unverified_context()
    asked = urllib.request.Request(server(one) + path, method=method, data=json.dumps(body).encode() if body is not None else None,
                                   headers={**({'authorization': 'Bearer ' + token} if token else {}), 'content-type': 'application/json', **headers})
    try:
        with urllib.request.urlopen(asked, context=context, timeout=20) as r:
            text, code, h = r.read(), r.status, r.headers
    except urllib.error.HTTPError as e:
        text, code, h = e.read(), e.code, e.headers
    try:
        return code, json.loads(text), h
    except ValueError:
        return code, text.decode(errors='replace'), h


def who(one, token):
    code, doc, _ = call(one, '/apis/authentication.k8s.io/v1/selfsubjectreviews', token, 'POST',
                        {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'SelfSubjectReview'})
    return doc['status']['userInfo'] if code == 201 else code


def test_tokens_of_an_issuer(world):
    issuer = world.issuer
    good = issuer.claims(tenant='blue', groups=['devs', 'ops'], uid='u-1', jti='j-1')
    said = eventually(lambda: type(x := who(world, issuer.keys[0].token(good))) is dict and x)
    assert said['username'] == 'oidc:ann' and said['uid'] == 'u-1'
    assert said['groups'] == ['oidc:devs', 'oidc:ops', 'system:authenticated']
    assert said['extra']['authentication.kubernetes.io/credential-id'] == ['JTI=j-1']
    assert who(world, issuer.keys[1].token(good))['username'] == 'oidc:ann'      # the other algorithm
    assert who(world, issuer.keys[0].token({**good, 'aud': ['x', 'other']}))['username'] == 'oidc:ann'


def test_tokens_that_are_refused(world):
    issuer, now = world.issuer, int(time.time())
    good, key = issuer.claims(tenant='blue', uid='u'), issuer.keys[0]
    eventually(lambda: type(who(world, key.token(good))) is dict)
    for bad in ({**good, 'exp': now - 1}, {**good, 'aud': 'elsewhere'}, {**good, 'nbf': now + 3600}, {**good, 'tenant': 'red'},
                {k: v for k, v in good.items() if k != 'exp'}, {k: v for k, v in good.items() if k != 'uid'}, {**good, 'iss': 'https://127.0.0.1:1'}):
        assert who(world, key.token(bad)) == 401, bad
    text = key.token(good)
    head, body, sig = text.split('.')
    none = b64(b'{"alg":"none"}')
    for bad in (f'{head}.{body}.', f'{none}.{body}.', f'{none}.{body}.{sig}', f'{head}.{body}.{sig[:-4]}AAAA', f'{head}.{body}', head, 'x', f'{text}.{sig}',
                b64(b'{"alg":"HS256","kid":"k1"}') + f'.{body}.{sig}', key.token(good, alg='PS256'), issuer.keys[1].token(good, alg='ES384'),
                Key(world.folder, 'stranger').token(good, kid='k1'), '%00', 'a' * 20000):
        assert who(world, bad) == 401, bad[:60]


def test_keys_and_file_change_while_it_runs(world):
    issuer = world.issuer
    good = issuer.claims(tenant='blue', uid='u')
    fresh = Key(world.folder, 'k3', 'ES384')
    time.sleep(2.1)                                  # unknown keys are asked for at most every two seconds
    issuer.keys.append(fresh)
    assert who(world, fresh.token(good))['username'] == 'oidc:ann'               # the request waited for the keys
    write(world.paths['auth.yaml'], config_text(issuer, 'new:'))
    eventually(lambda: who(world, fresh.token(good))['username'] == 'new:ann')
    write(world.paths['auth.yaml'], 'kind: Nonsense\n')
    time.sleep(2.5)
    assert who(world, fresh.token(good))['username'] == 'new:ann'                # the last good file stays
    write(world.paths['auth.yaml'], config_text(issuer))
    eventually(lambda: who(world, fresh.token(good))['username'] == 'oidc:ann')


def test_claims_by_expressions(world):
    issuer = world.issuer
    good, key = issuer.claims(tenant='blue', roles='a,b', number=7), issuer.keys[0]
    write(world.paths['auth.yaml'], EXPRESSIONS.format(url=issuer.url, ca=''.join('      ' + l for l in issuer.ca.splitlines(True))))
    said = eventually(lambda: type(x := who(world, key.token(good))) is dict and x['username'] == 'cel:ann' and x)
    assert said['groups'] == ['a', 'b', 'system:authenticated'] and said['uid'] == '7' and said['extra']['example.com/tenant'] == ['blue']
    for bad in ({**good, 'exp': good['iat'] + 7200}, {**good, 'roles': 'a,root'}, {k: v for k, v in good.items() if k != 'number'}, {**good, 'roles': 5}):
        assert who(world, key.token(bad)) == 401, bad
    write(world.paths['auth.yaml'], config_text(issuer))
    eventually(lambda: type(x := who(world, key.token({**good, 'uid': 'u'}))) is dict and x['username'] == 'oidc:ann')


def test_anonymous_only_where_it_is_allowed(world):
    assert call(world, '/livez')[0] == 200
    assert call(world, '/version')[0] == 401
    assert call(world, '/api/v1/namespaces')[0] == 401


def events(world, **wanted):
    found = [json.loads(l) for l in open(world.paths['audit.log']) if l.endswith('\n')]     # the last line may still be on its way
    return [e for e in found if all(e.get(k) == v for k, v in wanted.items())]


def test_audit_log(world):
    world.kubectl('create', 'configmap', 'noted', '--from-literal=a=b')
    made = eventually(lambda: [e for e in events(world, verb='create') if (e.get('objectRef') or {}).get('name') == 'noted'])[0]
    assert made['kind'] == 'Event' and made['apiVersion'] == 'audit.k8s.io/v1' and made['level'] == 'RequestResponse'
    assert made['stage'] == 'ResponseComplete' and made['responseStatus']['code'] == 201
    assert made['user']['username'] == 'kubernetes-admin' and made['sourceIPs'] == ['127.0.0.1'] and 'kubectl' in made['userAgent']
    assert made['requestObject']['data'] == made['responseObject']['data'] == {'a': 'b'}
    assert 'managedFields' not in made['responseObject']['metadata']
    assert made['annotations']['authorization.k8s.io/decision'] == 'allow'
    assert made['requestReceivedTimestamp'] <= made['stageTimestamp']
    code, _, headers = call(world, '/api/v1/namespaces', headers={'audit-id': 'mine'})
    assert code == 401 and headers['audit-id'] == 'mine'
    assert eventually(lambda: events(world, auditID='mine'))[0]['responseStatus']['code'] == 401
    world.kubectl('get', 'secrets', '--as', 'bob', check=False)
    refused = eventually(lambda: [e for e in events(world) if (e.get('impersonatedUser') or {}).get('username') == 'bob' and (e.get('objectRef') or {}).get('resource') == 'secrets'])[0]
    assert refused['user']['username'] == 'kubernetes-admin' and refused['annotations']['authorization.k8s.io/decision'] == 'forbid'
    assert refused['level'] == 'Metadata' and 'requestObject' not in refused
    assert not [e for e in events(world) if e['requestURI'].startswith(('/livez', '/version'))]
    watch = subprocess.Popen([world.kubectls[0], '--kubeconfig', os.path.join(world.state, 'kubeconfig'), 'get', 'cm', '-w'], stdout=subprocess.PIPE)
    watch.stdout.readline()
    started = eventually(lambda: events(world, verb='watch', stage='ResponseStarted'))
    watch.kill()
    watch.wait()
    eventually(lambda: events(world, auditID=started[0]['auditID'], stage='ResponseComplete'))


def test_bound_token_dies_with_its_pod(world):
    world.kubectl('create', 'serviceaccount', 'robot')
    world.kubectl('create', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'holder'}, 'spec': {
        'serviceAccountName': 'robot', 'nodeName': 'n1', 'containers': [{'name': 'c', 'image': 'i'}]}}))
    token = world.kubectl('create', 'token', 'robot', '--bound-object-kind', 'Pod', '--bound-object-name', 'holder').stdout.strip()
    said = who(world, token)
    assert said['username'] == 'system:serviceaccount:default:robot'
    assert said['extra']['authentication.kubernetes.io/pod-name'] == ['holder'] and said['extra']['authentication.kubernetes.io/node-name'] == ['n1']
    world.kubectl('delete', 'pod', 'holder', '--force', '--grace-period=0')
    assert who(world, token) == 401


def test_bootstrap_token(world):
    def secret(until):
        return json.dumps({'apiVersion': 'v1', 'kind': 'Secret', 'type': 'bootstrap.kubernetes.io/token',
                           'metadata': {'name': 'bootstrap-token-abcdef', 'namespace': 'kube-system'}, 'stringData': {
                               'token-id': 'abcdef', 'token-secret': '0123456789abcdef', 'usage-bootstrap-authentication': 'true',
                               'expiration': until, 'auth-extra-groups': 'system:bootstrappers:mine'}})
    world.kubectl('apply', '-f', '-', text=secret('2099-01-01T00:00:00Z'))
    said = who(world, 'abcdef.0123456789abcdef')
    assert said['username'] == 'system:bootstrap:abcdef' and said['groups'] == ['system:bootstrappers', 'system:bootstrappers:mine', 'system:authenticated']
    assert who(world, 'abcdef.0123456789abcdee') == 401
    world.kubectl('apply', '-f', '-', text=secret('2020-01-01T00:00:00Z'))
    assert who(world, 'abcdef.0123456789abcdef') == 401


def test_certificate_approve(tandem):
    with tempfile.TemporaryDirectory() as folder:
        key = os.path.join(folder, 'key')
        csr = openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-subj', '/O=readers/CN=carla')
        tandem.kubectl('create', '-f', '-', text=json.dumps({'apiVersion': 'certificates.k8s.io/v1', 'kind': 'CertificateSigningRequest', 'metadata': {'name': 'carla'}, 'spec': {
            'request': base64.b64encode(csr).decode(), 'signerName': 'kubernetes.io/kube-apiserver-client', 'usages': ['client auth'], 'expirationSeconds': 3600}}))
        time.sleep(0.3)
        assert 'certificate' not in tandem.get('csr', 'carla').get('status', {})
        tandem.kubectl('certificate', 'approve', 'carla')
        cert = eventually(lambda: tandem.get('csr', 'carla')['status']['certificate'])
        crt = os.path.join(folder, 'crt')
        open(crt, 'wb').write(base64.b64decode(cert))
        said = json.loads(subprocess.run([tandem.kubectls[0], '--kubeconfig', '/dev/null', '--server', server(tandem), '--insecure-skip-tls-verify', '--client-certificate', crt,
                                          '--client-key', key, 'auth', 'whoami', '-o', 'json'], stdout=subprocess.PIPE, check=True, timeout=30).stdout)
        assert said['status']['userInfo']['username'] == 'carla' and said['status']['userInfo']['groups'] == ['readers', 'system:authenticated']
        assert said['status']['userInfo']['extra']['authentication.kubernetes.io/credential-id'][0].startswith('X509SHA256=')
        tandem.kubectl('delete', 'csr', 'carla')


def test_secret_gets_a_token(tandem):
    tandem.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'Secret', 'type': 'kubernetes.io/service-account-token', 'metadata': {
        'name': 'old', 'annotations': {'kubernetes.io/service-account.name': 'default'}}}))
    data = eventually(lambda: 'token' in (d := tandem.get('secret', 'old').get('data', {})) and d)
    token = base64.b64decode(data['token']).decode()
    assert who(tandem, token)['username'] == 'system:serviceaccount:default:default'
    assert b'CERTIFICATE' in base64.b64decode(data['ca.crt']) and base64.b64decode(data['namespace']) == b'default'
    tandem.kubectl('delete', 'secret', 'old')
    assert who(tandem, token) == 401


def test_aggregated_roles(tandem):
    tandem.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'ClusterRole', 'metadata': {
        'name': 'widgets', 'labels': {'rbac.authorization.k8s.io/aggregate-to-view': 'true'}}, 'rules': [{'apiGroups': ['x.io'], 'resources': ['widgets'], 'verbs': ['get']}]}))
    eventually(lambda: 'x.io' in json.dumps(tandem.get('clusterrole', 'edit')['rules']))       # view, and through it edit
    tandem.kubectl('delete', 'clusterrole', 'widgets')
    eventually(lambda: 'x.io' not in json.dumps(tandem.get('clusterrole', 'edit')['rules']))


def shown(one):
    """Fingerprint of the certificate that the server shows."""
    host, port = server(one).split('//')[1].split(':')
    return ssl.get_server_certificate((host, int(port)))


def make_ca(folder, name):
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', f'{folder}/{name}.key', '-out', f'{folder}/{name}.crt', '-subj', '/CN=' + name, '-days', '2')
    return f'{folder}/{name}.crt'


def make_cert(folder, ca, name, subject, ext=''):
    open(f'{folder}/oids', 'w').write('oid_section = oids\n[oids]\nkubeuid = 1.3.6.1.4.1.57683.2\n[req]\ndistinguished_name = dn\n[dn]\n')
    csr = openssl('req', '-config', f'{folder}/oids', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', f'{folder}/{name}.key', '-subj', subject, *(['-addext', ext] if ext else []))
    crt = openssl('x509', '-req', '-CA', f'{folder}/{ca}.crt', '-CAkey', f'{folder}/{ca}.key', '-CAcreateserial', '-days', '1', '-copy_extensions', 'copy', text=csr)
    open(f'{folder}/{name}.crt', 'wb').write(crt)
    return f'{folder}/{name}.crt', f'{folder}/{name}.key'


def as_cert(one, cert, key, headers={}):
    context = ssl._create_unverified_context()
    context.load_cert_chain(cert, key)
    asked = urllib.request.Request(server(one) + '/apis/authentication.k8s.io/v1/selfsubjectreviews', method='POST', headers={'content-type': 'application/json', **headers},
                                   data=b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}')
    try:
        with urllib.request.urlopen(asked, context=context, timeout=20) as r:
            return json.loads(r.read())['status']['userInfo']
    except urllib.error.HTTPError as e:
        return e.code


def test_certificates_change_while_it_runs():
    with tempfile.TemporaryDirectory(prefix='tc-', dir='/tmp') as folder:
        for name in ('ca1', 'ca2', 'proxies'):
            make_ca(folder, name)
        make_cert(folder, 'ca1', 'server', '/CN=one', 'subjectAltName=IP:127.0.0.1')
        open(f'{folder}/clients.crt', 'w').write(open(f'{folder}/ca1.crt').read())
        with running('--api-only', '--tls-cert-file', f'{folder}/server.crt', '--tls-private-key-file', f'{folder}/server.key', '--client-ca-file', f'{folder}/clients.crt',
                     '--requestheader-client-ca-file', f'{folder}/proxies.crt', '--requestheader-allowed-names', 'front') as one:
            assert shown(one).strip() == open(f'{folder}/server.crt').read().strip()
            dora = make_cert(folder, 'ca2', 'dora', '/CN=dora/O=team/kubeuid=u-77')
            assert as_cert(one, *dora) == 401                                       # nobody trusts that CA yet
            # what a front proxy says counts under its own CA and name alone
            spoken = {'X-Remote-User': 'erik', 'X-Remote-Group': 'staff', 'X-Remote-Extra-Example.com%2fKey': 'v'}
            said = as_cert(one, *make_cert(folder, 'proxies', 'front', '/CN=front'), headers=spoken)
            assert said['username'] == 'erik' and said['groups'] == ['staff', 'system:authenticated'] and said['extra'] == {'example.com/key': ['v']}
            assert as_cert(one, *make_cert(folder, 'ca1', 'liar', '/CN=front'), headers=spoken)['username'] == 'front'
            open(f'{folder}/clients.crt', 'a').write(open(f'{folder}/ca2.crt').read())
            make_cert(folder, 'ca1', 'server', '/CN=two', 'subjectAltName=IP:127.0.0.1')
            os.kill(one.processes()['server'], 1)                                   # SIGHUP: now, not some seconds later
            eventually(lambda: shown(one).strip() == open(f'{folder}/server.crt').read().strip())
            said = eventually(lambda: type(x := as_cert(one, *dora)) is dict and x)
            assert said['username'] == 'dora' and said['uid'] == 'u-77' and said['groups'] == ['team', 'system:authenticated']
            good = shown(one)
            open(f'{folder}/server.crt', 'w').write('nonsense')
            os.kill(one.processes()['server'], 1)
            time.sleep(0.5)
            assert shown(one) == good


def test_audit_webhook():
    """Events arrive in batches at a server of another process; one that fails at first loses nothing."""
    import http.server, threading
    got, failures = [], [2]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers['content-length'])))
            failures[0] -= 1
            if failures[0] < 0:
                got.extend(body['items'])
                assert body['kind'] == 'EventList' and body['apiVersion'] == 'audit.k8s.io/v1'
            self.send_response(500 if failures[0] >= 0 else 200)
            self.send_header('content-length', '0')
            self.end_headers()

        def log_message(self, *_):
            pass
    to = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=to.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix='tw-', dir='/tmp') as folder:
        open(f'{folder}/policy.yaml', 'w').write('{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}')
        open(f'{folder}/hook.yaml', 'w').write(json.dumps({'apiVersion': 'v1', 'kind': 'Config', 'clusters': [{'name': 'c', 'cluster': {'server': f'http://127.0.0.1:{to.server_port}/audit'}}],
                                                          'contexts': [{'name': 'x', 'context': {'cluster': 'c', 'user': ''}}], 'current-context': 'x'}))
        with running('--api-only', '--audit-policy-file', f'{folder}/policy.yaml', '--audit-webhook-config-file', f'{folder}/hook.yaml') as one:
            for i in range(20):
                call(one, f'/version?n={i}')
            eventually(lambda: {f'/version?n={i}' for i in range(20)} <= {e['requestURI'] for e in got if e['stage'] == 'ResponseComplete'})
            assert {e['user']['username'] for e in got if e['requestURI'].startswith('/version')} == {'system:anonymous'}
    to.shutdown()
    to.server_close()


def test_node_joins_by_bootstrap_token(tandem):
    """A kubelet's way in: a bootstrap token asks for a client certificate, which is approved by itself and is the node's."""
    tandem.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [
        {'apiVersion': 'v1', 'kind': 'Secret', 'type': 'bootstrap.kubernetes.io/token', 'metadata': {'name': 'bootstrap-token-joiner', 'namespace': 'kube-system'}, 'stringData': {
            'token-id': 'joiner', 'token-secret': '0123456789abcdef', 'usage-bootstrap-authentication': 'true', 'usage-bootstrap-signing': 'true'}},
        *({'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'ClusterRoleBinding', 'metadata': {'name': 'join-' + name},
           'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'ClusterRole', 'name': role},
           'subjects': [{'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Group', 'name': 'system:bootstrappers'}]}
          for name, role in (('create', 'system:node-bootstrapper'), ('approve', 'system:certificates.k8s.io:certificatesigningrequests:nodeclient')))]}))
    with tempfile.TemporaryDirectory() as folder:
        key, crt = f'{folder}/key', f'{folder}/crt'
        csr = openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-subj', '/O=system:nodes/CN=system:node:far')
        code, _, _ = call(tandem, '/apis/certificates.k8s.io/v1/certificatesigningrequests', 'joiner.0123456789abcdef', 'POST', {
            'apiVersion': 'certificates.k8s.io/v1', 'kind': 'CertificateSigningRequest', 'metadata': {'name': 'far'}, 'spec': {
                'request': base64.b64encode(csr).decode(), 'signerName': 'kubernetes.io/kube-apiserver-client-kubelet', 'usages': ['digital signature', 'client auth']}})
        assert code == 201
        cert = eventually(lambda: tandem.get('csr', 'far')['status']['certificate'])
        assert tandem.get('csr', 'far')['status']['conditions'][0]['reason'] == 'AutoApproved'
        open(crt, 'wb').write(base64.b64decode(cert))
        said = as_cert(tandem, crt, key)
        assert said['username'] == 'system:node:far' and 'system:nodes' in said['groups']
        # cluster-info is signed for who knows the token
        tandem.kubectl('-n', 'kube-public', 'create', 'configmap', 'cluster-info', '--from-literal=kubeconfig=hello')
        jws = eventually(lambda: tandem.get('-n', 'kube-public', 'cm', 'cluster-info')['data']['jws-kubeconfig-joiner'])
        head, middle, sig = jws.split('.')
        mac = subprocess.run(['openssl', 'dgst', '-sha256', '-hmac', 'joiner.0123456789abcdef', '-binary'], input=f'{head}.{b64(b"hello")}'.encode(), stdout=subprocess.PIPE, check=True).stdout
        assert middle == '' and sig == b64(mac)
        # what a node may not
        def node(*words, text=None):
            done = subprocess.run([tandem.kubectls[0], '--kubeconfig', '/dev/null', '--server', server(tandem), '--insecure-skip-tls-verify', '--client-certificate', crt, '--client-key', key,
                                   *words], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
            return 'done' if not done.returncode else 'refused' if 'orbidden' in done.stderr else done.stderr
        mine = {'apiVersion': 'v1', 'kind': 'Node', 'metadata': {'name': 'far', 'labels': {'node-restriction.kubernetes.io/x': 'y'}}}
        assert node('create', '-f', '-', text=json.dumps(mine)) == 'refused'
        mine['metadata']['labels'] = {'kubernetes.io/hostname': 'far'}
        assert node('create', '-f', '-', text=json.dumps(mine)) == 'done'
        assert node('get', 'node', 'far') == node('label', 'node', 'far', 'mine=1') == 'done'
        for words in (['get', 'nodes'], ['get', 'secrets', '-A'], ['label', 'node', 'far', 'node-restriction.kubernetes.io/x=y'], ['taint', 'node', 'far', 'a=b:NoSchedule'],
                      ['create', 'configmap', 'x'], ['create', 'token', 'default'], ['delete', 'node', 'far']):
            assert node(*words) == 'refused', words
    tandem.kubectl('delete', 'node', 'far')
    tandem.kubectl('-n', 'kube-public', 'delete', 'configmap', 'cluster-info')
    tandem.kubectl('delete', 'clusterrolebinding', 'join-create', 'join-approve')


def test_webhook_authorises():
    """A webhook before RBAC: it may allow, deny, or leave it to RBAC; conditions say when it is asked."""
    import http.server, threading
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            spec = json.loads(self.rfile.read(int(self.headers['content-length'])))['spec']
            asked.append(spec)
            status = {'allowed': spec['user'] == 'good', 'denied': spec['user'] == 'bad', 'reason': 'so it is'}
            body = json.dumps({'apiVersion': 'authorization.k8s.io/v1', 'kind': 'SubjectAccessReview', 'status': status}).encode()
            self.send_response(200)
            self.send_header('content-length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    to = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=to.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix='tz-', dir='/tmp') as folder:
        ca = make_ca(folder, 'people')
        open(f'{folder}/hook.yaml', 'w').write(json.dumps({'clusters': [{'name': 'c', 'cluster': {'server': f'http://127.0.0.1:{to.server_port}/may'}}]}))
        webhook = {'timeout': '30s', 'authorizedTTL': '5m', 'unauthorizedTTL': '30s', 'subjectAccessReviewVersion': 'v1', 'matchConditionSubjectAccessReviewVersion': 'v1',
                   'failurePolicy': 'Deny', 'connectionInfo': {'type': 'KubeConfigFile', 'kubeConfigFile': f'{folder}/hook.yaml'},
                   'matchConditions': [{'expression': 'has(request.resourceAttributes)'}, {'expression': "request.resourceAttributes.resource != 'leases'"}]}
        open(f'{folder}/authz.yaml', 'w').write(json.dumps({'apiVersion': 'apiserver.config.k8s.io/v1', 'kind': 'AuthorizationConfiguration', 'authorizers': [
            {'type': 'Webhook', 'name': 'hook', 'webhook': webhook}, {'type': 'Node', 'name': 'node'}, {'type': 'RBAC', 'name': 'rbac'}]}))
        with running('--api-only', '--authorization-config', f'{folder}/authz.yaml', '--client-ca-file', ca) as one:
            one.kubectl('create', 'clusterrolebinding', 'all', '--clusterrole', 'cluster-admin', '--user', 'bad', '--user', 'other')

            def kubectl(user, *words):
                make_cert(folder, 'people', user, '/CN=' + user)
                done = subprocess.run([one.kubectls[0], '--kubeconfig', '/dev/null', '--server', server(one), '--insecure-skip-tls-verify', '--client-certificate', f'{folder}/{user}.crt',
                                       '--client-key', f'{folder}/{user}.key', *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
                return done.returncode == 0
            assert kubectl('good', 'create', 'configmap', 'a') and kubectl('good', 'get', 'cm', 'a')
            assert not kubectl('bad', 'get', 'cm', 'a')                                # RBAC would allow it
            assert kubectl('other', 'get', 'cm', 'a') and not kubectl('nobody', 'get', 'cm', 'a')
            assert not kubectl('good', 'get', 'leases')                                # not asked about these
            one.kubectl('create', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p'}, 'spec': {'serviceAccountName': 'default',
                        'containers': [{'name': 'c', 'image': 'i'}]}}), check=False)
            assert json.loads(one.kubectl('create', '-o', 'json', '-f', '-', text=json.dumps({'apiVersion': 'authorization.k8s.io/v1', 'kind': 'SubjectAccessReview', 'spec': {
                'user': 'bad', 'resourceAttributes': {'verb': 'get', 'resource': 'pods'}}})).stdout)['status'] == {'allowed': False, 'denied': True, 'reason': 'so it is'}
            gets = [s for s in asked if s['user'] == 'good' and s['resourceAttributes'].get('name') == 'a' and s['resourceAttributes']['verb'] == 'get']
            assert len(gets) == 1 and gets[0]['resourceAttributes'] == {'namespace': 'default', 'verb': 'get', 'version': 'v1', 'resource': 'configmaps', 'name': 'a'}
            assert kubectl('good', 'get', 'cm', 'a')
            assert len([s for s in asked if s == gets[0]]) == 1                        # the answer was kept
            to.shutdown()
            to.server_close()
            assert not kubectl('other', 'get', 'secrets')                              # failurePolicy Deny


def test_what_our_own_parts_do_is_noted():
    with tempfile.TemporaryDirectory(prefix='tn-', dir='/tmp') as folder:
        open(f'{folder}/policy.yaml', 'w').write('{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, verbs: [create, update, patch, delete]}]}')
        with running('--pod-cidr', '10.44.0.0/16', '--audit-policy-file', f'{folder}/policy.yaml', '--audit-log-path', f'{folder}/log') as one:
            one.kubectl('create', 'namespace', 'noted')

            def found():
                for line in open(f'{folder}/log'):
                    e = json.loads(line)
                    if e['objectRef'].get('namespace') == 'noted' and e['objectRef']['resource'] == 'configmaps' and e['verb'] == 'create':
                        return e
            e = eventually(found)
            assert e['user']['username'] == 'system:kube-controller-manager' and e['objectRef']['name'] == 'kube-root-ca.crt' and e['responseStatus']['code'] == 201
            assert 'apiserver_audit_event_total' in one.kubectl('get', '--raw', '/metrics').stdout


def answering(answer):
    """A server in a thread that answers POSTs with answer(document); its URL, and how to end it."""
    import http.server, threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.dumps(answer(json.loads(self.rfile.read(int(self.headers['content-length']))), self.headers)).encode()
            self.send_response(200)
            self.send_header('content-length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    to = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=to.serve_forever, daemon=True).start()
    return f'http://127.0.0.1:{to.server_port}', lambda: (to.shutdown(), to.server_close())


def metric(one, name, label=''):
    text = one.kubectl('get', '--raw', '/metrics').stdout
    return sum(float(l.rsplit(' ', 1)[1]) for l in text.splitlines() if l.startswith(name + '{') and label in l)


def test_webhook_knows_tokens():
    """Tokens that nothing else knows are asked about outside, once; TokenReview says the same; who allows may be a webhook, too, also about
    impersonation; a changed file counts without a restart, a bad one does not."""
    asked, may = [], []

    def review(doc, headers):
        asked.append(doc)
        token, status = doc['spec']['token'], {'authenticated': False, 'error': 'never heard of it'}
        assert headers['authorization'] == 'Bearer mine' and doc['kind'] == 'TokenReview' and doc['apiVersion'] == 'authentication.k8s.io/v1'
        if token.startswith('good'):
            status = {'authenticated': True, 'user': {'username': 'ext-' + token, 'uid': 'u7', 'groups': ['crew'], 'extra': {'example.com/a': ['b']}}}
        if token == 'good-elsewhere':
            status['audiences'] = ['elsewhere']
        return {'apiVersion': doc['apiVersion'], 'kind': 'TokenReview', 'status': status}

    def access(doc, _):
        spec = doc['spec']
        may.append(spec)
        return {'apiVersion': doc['apiVersion'], 'kind': doc['kind'], 'status': {'allowed': spec['user'] in ('ext-good-2', 'bert'), 'reason': 'so it is'}}
    url, stop = answering(review)
    may_url, may_stop = answering(access)
    with tempfile.TemporaryDirectory(prefix='tt-', dir='/tmp') as folder:
        open(f'{folder}/who.yaml', 'w').write(json.dumps({'clusters': [{'name': 'c', 'cluster': {'server': url + '/who'}}], 'users': [{'name': 'u', 'user': {'token': 'mine'}}],
                                                          'contexts': [{'name': 'x', 'context': {'cluster': 'c', 'user': 'u'}}], 'current-context': 'x'}))
        open(f'{folder}/may.yaml', 'w').write(json.dumps({'clusters': [{'name': 'c', 'cluster': {'server': may_url + '/may'}}]}))
        path = f'{folder}/authz.yaml'
        conf = {'apiVersion': 'apiserver.config.k8s.io/v1', 'kind': 'AuthorizationConfiguration', 'authorizers': [{'type': 'RBAC', 'name': 'rbac'}]}
        open(path, 'w').write(json.dumps(conf))
        with running('--api-only', '--authorization-config', path, '--authentication-token-webhook-config-file', f'{folder}/who.yaml',
                     '--authentication-token-webhook-version', 'v1') as one:
            said = who(one, 'good-1')
            assert said == {'username': 'ext-good-1', 'uid': 'u7', 'groups': ['crew', 'system:authenticated'], 'extra': {'example.com/a': ['b']}}
            assert who(one, 'good-1') == said and len(asked) == 1                       # the answer was kept
            assert who(one, 'good-elsewhere') == 401 and who(one, 'bad') == 401 and who(one, 'bad') == 401 and len(asked) == 3
            def reviewed(token, **more):
                doc = one.kubectl('create', '-o', 'json', '-f', '-', text=json.dumps({'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenReview', 'spec': {'token': token, **more}})).stdout
                return json.loads(doc)['status']
            assert reviewed('good-9')['user']['username'] == 'ext-good-9' and reviewed('worse') == {'user': {}, 'error': 'never heard of it'}
            assert reviewed('good-elsewhere', audiences=['elsewhere', 'x'])['audiences'] == ['elsewhere']
            cm = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'm'}}
            assert call(one, '/api/v1/namespaces/default/configmaps', 'good-2', 'POST', cm)[0] == 403 and not may
            hook = {'timeout': '30s', 'authorizedTTL': '5m', 'unauthorizedTTL': '30s', 'subjectAccessReviewVersion': 'v1', 'failurePolicy': 'Deny',
                    'connectionInfo': {'type': 'KubeConfigFile', 'kubeConfigFile': f'{folder}/may.yaml'}}
            conf['authorizers'].append({'type': 'Webhook', 'name': 'hook', 'webhook': hook})
            write(path, json.dumps(conf))
            assert eventually(lambda: call(one, '/api/v1/namespaces/default/configmaps', 'good-2', 'POST', cm)[0] == 201)
            assert call(one, '/api/v1/namespaces/default/configmaps', 'good-3', 'POST', cm)[0] == 403
            as_bert = {'impersonate-user': 'bert'}                                      # the webhook decides about both: may they, and may he
            assert call(one, '/api/v1/namespaces/default/configmaps/m', 'good-2', headers=as_bert)[0] == 200
            assert call(one, '/api/v1/namespaces/default/configmaps/m', 'good-3', headers=as_bert)[0] == 403
            assert [s['user'] for s in may if s.get('resourceAttributes', {}).get('verb') == 'impersonate'] and any(s['user'] == 'bert' for s in may)
            reloads = 'apiserver_authorization_config_controller_automatic_reloads_total'
            assert metric(one, reloads, 'status="success"') == 1 and metric(one, 'apiserver_authorization_webhook_evaluations_total', 'result="success"') > 2
            write(path, 'authorizers: 7')
            eventually(lambda: metric(one, reloads, 'status="failure"') == 1)
            assert call(one, '/api/v1/namespaces/default/configmaps/m', 'good-2')[0] == 200
            stop()
            assert who(one, 'good-77') == 401 and type(who(one, 'good-1')) is dict
        may_stop()


def test_nobody_fills_memory_before_they_are_known(tandem):
    """A refused write is answered by its head alone: the body is not waited for."""
    import socket
    host, port = server(tandem).split('//')[1].split(':')
    for path, token, code in (('/api/v1/namespaces/default/configmaps', '', 403), ('/api/v1/namespaces/default/configmaps', 'wrong', 401)):
        with ssl._create_unverified_context().wrap_socket(socket.create_connection((host, int(port)), timeout=10)) as s:
            auth = f'authorization: Bearer {token}\r\n' if token else ''
            s.sendall(f'POST {path} HTTP/1.1\r\nhost: x\r\n{auth}content-type: application/json\r\ncontent-length: 3000000\r\n\r\n'.encode() + b'{')
            assert s.recv(64).split()[1] == str(code).encode()
