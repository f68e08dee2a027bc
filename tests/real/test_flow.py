"""Long lists, watches over WebSocket, limits and queues of the API server, by clients that are not ours."""
import base64, concurrent.futures, gzip, http.client, json, os, re, socket, ssl, threading, time

import pytest

from conftest import eventually, running

CMS = '/api/v1/namespaces/default/configmaps'


class Api:
    def __init__(self, one):
        self.one, self.port = one, int(one.status['api'].rsplit(':', 1)[1])
        text = open(os.path.join(one.state, 'kubeconfig')).read()
        self.context = ssl._create_unverified_context()
        both = os.path.join(one.state, 'both.pem')
        with open(both, 'wb') as f:
            for word in ('client-certificate-data', 'client-key-data'):
                f.write(base64.b64decode(re.search(word + r': (\S+)', text).group(1)))
        self.context.load_cert_chain(both)
        self.nobody = ssl._create_unverified_context()

    def connect(self, context=None):
        s = socket.create_connection(('127.0.0.1', self.port), timeout=30)
        return (context or self.context).wrap_socket(s)

    def ask(self, method, path, body=None, token=None, **headers):
        c = http.client.HTTPSConnection('127.0.0.1', self.port, context=self.nobody if token else self.context, timeout=60)
        if token:
            headers['Authorization'] = 'Bearer ' + token
        headers = {k.replace('_', '-'): v for k, v in headers.items()}
        headers.setdefault('Content-Type', 'application/json')
        c.request(method, path, body if body is None or isinstance(body, (str, bytes)) else json.dumps(body), headers)
        r = c.getresponse()
        r.text = r.read()
        c.close()
        return r

    def token(self, name):
        self.ask('POST', '/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': name}})
        self.ask('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
            'metadata': {'name': 'flow-' + name}, 'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'ClusterRole', 'name': 'cluster-admin'},
            'subjects': [{'kind': 'ServiceAccount', 'name': name, 'namespace': 'default'}]})
        return json.loads(self.ask('POST', f'/api/v1/namespaces/default/serviceaccounts/{name}/token', {
            'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {}}).text)['status']['token']


@pytest.fixture(scope='module')
def api():
    with running('--api-only', prefix='tf-') as one:
        yield Api(one)


@pytest.fixture(scope='module')
def many(api):
    """1,000 ConfigMaps of 2 KB in a namespace of their own."""
    api.ask('POST', '/api/v1/namespaces', {'metadata': {'name': 'many'}})
    c = http.client.HTTPSConnection('127.0.0.1', api.port, context=api.context, timeout=60)
    for i in range(1000):
        c.request('POST', '/api/v1/namespaces/many/configmaps', json.dumps({'metadata': {'name': f'c{i:04}', 'labels': {'odd': str(i % 2)}},
                                                                            'data': {'text': str(i) * 500}}), {'Content-Type': 'application/json'})
        r = c.getresponse()
        r.read()
        assert r.status == 201
    return '/api/v1/namespaces/many/configmaps'


def test_long_lists_in_every_form(api, many):
    whole = api.ask('GET', many)
    assert whole.getheader('Transfer-Encoding') == 'chunked'      # piece by piece
    items = json.loads(whole.text)['items']
    assert [i['metadata']['name'] for i in items] == [f'c{i:04}' for i in range(1000)]
    small = api.ask('GET', many, Accept_Encoding='gzip')
    assert small.getheader('Content-Encoding') == 'gzip' and len(small.text) < len(whole.text) / 2
    assert json.loads(gzip.decompress(small.text)) == json.loads(whole.text)
    table = json.loads(api.ask('GET', many, Accept='application/json;as=Table;v=v1;g=meta.k8s.io').text)
    assert [r['cells'][0] for r in table['rows']] == [f'c{i:04}' for i in range(1000)]
    partial = json.loads(api.ask('GET', many, Accept='application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io').text)
    assert len(partial['items']) == 1000 and partial['kind'] == 'PartialObjectMetadataList'
    message = api.ask('GET', many, Accept='application/vnd.kubernetes.protobuf').text
    assert message[:4] == b'k8s\0' and len(message) > 500000
    odd = json.loads(api.ask('GET', many + '?labelSelector=odd%3D1').text)['items']
    assert len(odd) == 500
    short = api.ask('GET', many + '?limit=2', Accept_Encoding='gzip')
    assert short.getheader('Content-Length') and not short.getheader('Content-Encoding')


def test_pages_are_of_one_moment(api, many):
    first = json.loads(api.ask('GET', many + '?limit=400').text)
    assert first['metadata']['remainingItemCount'] == 600
    api.ask('POST', many, {'metadata': {'name': 'c0500-between'}})
    names, token = [i['metadata']['name'] for i in first['items']], first['metadata']['continue']
    while token:
        page = json.loads(api.ask('GET', f'{many}?limit=400&continue={token}').text)
        assert page['metadata']['resourceVersion'] == first['metadata']['resourceVersion']
        names += [i['metadata']['name'] for i in page['items']]
        token = page['metadata'].get('continue')
    api.ask('DELETE', many + '/c0500-between')
    assert names == [f'c{i:04}' for i in range(1000)]


def test_readers_that_do_not_read_cost_little(api, many):
    """Forty clients ask for all and read nothing; the server goes on, and holds no forty lists."""
    pid = api.one.processes()['server']
    rss = lambda: int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{pid}/status').read()).group(1)) / 1024
    before, conns = rss(), []
    for _ in range(40):
        s = api.connect()
        s.sendall(f'GET {many} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
        conns.append(s)
    time.sleep(1)
    assert api.ask('GET', '/api/v1/namespaces/default').status == 200     # though none of the forty reads a byte meanwhile
    assert rss() - before < 40 * 0.5                              # of 2 MB each
    for s in conns:
        s.close()


def test_watch_over_websocket(api):
    s = api.connect()
    s.sendall(f'GET {CMS}?watch=1&fieldSelector=metadata.name%3Dws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
              'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'.encode())
    text = b''
    while b'\r\n\r\n' not in text:
        text += s.recv(4096)
    head, rest = text.split(b'\r\n\r\n', 1)
    assert b' 101 ' in head and b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head
    api.ask('POST', CMS, {'metadata': {'name': 'ws'}, 'data': {'a': 'b'}})
    api.ask('DELETE', CMS + '/ws')

    def message():
        nonlocal rest
        need = lambda n: len(rest) >= n
        while not need(2):
            rest += s.recv(4096)
        kind, n, at = rest[0], rest[1] & 127, 2
        if n == 126:
            while not need(4):
                rest += s.recv(4096)
            n, at = int.from_bytes(rest[2:4], 'big'), 4
        while not need(at + n):
            rest += s.recv(4096)
        body, rest = rest[at:at + n], rest[at + n:]
        return kind, body
    events = []
    while len(events) < 2:
        kind, body = message()
        assert kind == 0x81                                       # one whole text message
        events.append(json.loads(body))
    assert [(e['type'], e['object']['metadata']['name']) for e in events] == [('ADDED', 'ws'), ('DELETED', 'ws')]
    s.close()


def test_selectors_and_watches(api):
    """An object that leaves what is selected is DELETED for that watch, as it was, and ADDED when it comes back."""
    rv = json.loads(api.ask('GET', CMS).text)['metadata']['resourceVersion']
    for labels in ({'on': 'y'}, {'on': 'n'}, {'on': 'y'}):
        if api.ask('GET', CMS + '/sel').status == 404:
            api.ask('POST', CMS, {'metadata': {'name': 'sel', 'labels': labels}})
        else:
            api.ask('PATCH', CMS + '/sel', {'metadata': {'labels': labels}}, Content_Type='application/merge-patch+json')
    text = api.ask('GET', f'{CMS}?watch=1&labelSelector=on%3Dy&resourceVersion={rv}&timeoutSeconds=1').text
    events = [json.loads(line) for line in text.splitlines()]
    assert [e['type'] for e in events] == ['ADDED', 'DELETED', 'ADDED']
    assert events[1]['object']['metadata']['labels'] == {'on': 'y'}
    versions = [int(e['object']['metadata']['resourceVersion']) for e in events]
    assert versions == sorted(versions) and len(set(versions)) == 3
    last = api.ask('GET', f'{CMS}?watch=1&resourceVersion={versions[-1]}&timeoutSeconds=3&allowWatchBookmarks=true&labelSelector=on%3Dy').text
    assert [json.loads(line)['type'] for line in last.splitlines()] == ['BOOKMARK']
    many = [api.ask('GET', f'{CMS}?watch=1&resourceVersion={rv}&timeoutSeconds=1').text for _ in range(3)]
    assert len(set(many)) == 1                                    # the same order for everybody


@pytest.mark.parametrize('what', ['body', 'header', 'url', 'depth', 'patch', 'copies', 'nest', 'yaml'])
def test_too_much(api, what):
    body = {'metadata': {'name': 'big'}}
    patch = lambda ops: api.ask('PATCH', CMS + '/patched', ops, Content_Type='application/json-patch+json')
    api.ask('POST', CMS, {'metadata': {'name': 'patched'}, 'data': {'a': 'x'}})
    if what == 'body':
        with api.connect() as s:                                  # told by the head: who sends all that may meet a closed door
            s.sendall(f'POST {CMS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {(3 << 20) + 2}\r\n\r\n{{'.encode())
            assert s.recv(100).split()[1] == b'413'
    elif what == 'header':
        assert api.ask('GET', CMS, X_Long='x' * 70000).status == 431
    elif what == 'url':
        assert api.ask('GET', CMS + '?labelSelector=' + 'a' * 70000).status in (414, 431)
    elif what == 'depth':
        assert api.ask('POST', CMS, '{"a":' * 100000 + '1' + '}' * 100000).status == 400
    elif what == 'patch':
        assert patch([{'op': 'test', 'path': '/data/a', 'value': 'x'}] * 10001).status == 413
    elif what == 'copies':
        assert patch([{'op': 'add', 'path': '/data/b', 'value': 'y' * 1000000}] +
                     [{'op': 'copy', 'from': '/data/b', 'path': f'/data/c{i}'} for i in range(5000)]).status in (400, 413, 422)
    elif what == 'nest':
        deep = json.loads('{"a":' * 500 + '{}' + '}' * 500)
        assert patch([{'op': 'add', 'path': '/data/d', 'value': deep}] +
                     [{'op': 'copy', 'from': '/data/d', 'path': '/data/d' + '/a' * 500 * (i + 1)} for i in range(8)]).status in (413, 422)
    elif what == 'yaml':
        bomb = 'a: &a [x,x,x,x,x,x,x,x,x]\n' + ''.join(f'{chr(98 + i)}: &{chr(98 + i)} [' + ','.join(['*' + chr(97 + i)] * 9) + ']\n' for i in range(9))
        assert api.ask('POST', CMS, bomb, Content_Type='application/yaml').status in (400, 413)
    assert api.ask('GET', '/readyz').status == 200


def test_metrics_and_health(api):
    api.ask('GET', CMS)
    text = api.ask('GET', '/metrics').text.decode()
    eventually(lambda: 'apiserver_current_inflight_requests{request_kind="readOnly"} 1\n' in api.ask('GET', '/metrics').text.decode())     # itself: what others left has ended
    for name in ('apiserver_request_total{', 'apiserver_request_duration_seconds_bucket{',
                 'apiserver_resource_objects{group="",resource="configmaps"}', 'apiserver_storage_objects{resource="deployments.apps"} 0',
                 'apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"} 245', 'process_resident_memory_bytes', 'process_open_fds',
                 'kubernetes_build_info{'):
        assert name in text, name
    count = re.search(r'apiserver_request_total\{[^}]*resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1",code="200"\} (\d+)', text)
    assert count and int(count.group(1)) > 0
    for line in text.splitlines():
        assert line.startswith('#') or re.fullmatch(r'[a-z_:]+(\{([a-z_]+="[^"]*",?)*\})? [-+0-9.e]+', line), line
    verbose = api.ask('GET', '/readyz?verbose').text.decode()
    assert '[+]etcd ok\n' in verbose and '[+]shutdown ok\n' in verbose and verbose.endswith('readyz check passed\n')
    assert api.ask('GET', '/livez/ping').text == b'ok' and api.ask('GET', '/readyz/nothing').status == 404
    assert '[+]etcd excluded: ok' in api.ask('GET', '/readyz?verbose&exclude=etcd').text.decode()
    flagz, statusz = api.ask('GET', '/flagz').text, api.ask('GET', '/statusz').text
    assert flagz.startswith(b'\napiserver flagz\nWarning: ') and b'\nstate=/' in flagz and statusz.startswith(b'\napiserver statusz\nWarning: ') and b'/readyz' in statusz
    page = api.ask('GET', '/flagz', Accept='application/json;v=v1beta1;g=config.k8s.io;as=Flagz')
    assert page.status == 200 and json.loads(page.text)['flags']['api-only'] in ('true', 'false') and json.loads(page.text)['kind'] == 'Flagz'
    page = api.ask('GET', '/statusz', Accept='application/json;v=v1alpha1;g=config.k8s.io;as=Statusz')
    assert page.status == 200 and json.loads(page.text)['uptimeSeconds'] >= 0 and 'deprecated' in page.getheader('Warning')
    assert api.ask('GET', '/flagz', Accept='application/json').status == 406
    assert b'workload-low' in api.ask('GET', '/debug/api_priority_and_fairness/dump_priority_levels').text


def test_flow_headers_and_conditions(api):
    token = api.token('flow-headers')
    r = api.ask('GET', CMS + '?limit=1', token=token)
    schema = json.loads(api.ask('GET', '/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/service-accounts').text)
    level = json.loads(api.ask('GET', '/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/workload-low').text)
    assert r.getheader('X-Kubernetes-PF-FlowSchema-UID') == schema['metadata']['uid']
    assert r.getheader('X-Kubernetes-PF-PriorityLevel-UID') == level['metadata']['uid']
    assert [(c['type'], c['status'], c['reason']) for c in schema['status']['conditions']] == [('Dangling', 'False', 'Found')]


def test_a_full_level_refuses_and_others_are_served(api):
    """One tenant's level has one seat and no queue; its flood is told to come later, others notice nothing."""
    one, other = api.token('tenant'), api.token('neighbour')
    flow = '/apis/flowcontrol.apiserver.k8s.io/v1/'
    api.ask('POST', flow + 'prioritylevelconfigurations', {'metadata': {'name': 'tiny'}, 'spec': {'type': 'Limited', 'limited': {
        'nominalConcurrencyShares': 1, 'lendablePercent': 0, 'borrowingLimitPercent': 0, 'limitResponse': {'type': 'Reject'}}}})
    api.ask('POST', flow + 'flowschemas', {'metadata': {'name': 'tenant'}, 'spec': {
        'priorityLevelConfiguration': {'name': 'tiny'}, 'matchingPrecedence': 50, 'distinguisherMethod': {'type': 'ByUser'}, 'rules': [{
            'subjects': [{'kind': 'ServiceAccount', 'serviceAccount': {'namespace': 'default', 'name': 'tenant'}}],
            'resourceRules': [{'verbs': ['*'], 'apiGroups': ['*'], 'resources': ['*'], 'clusterScope': True, 'namespaces': ['*']}]}]}})
    least, most, seen, retry = time.time() + 2, time.time() + 60, {}, set()
    goes_on = lambda: time.time() < least or set(seen) != {201, 429} and time.time() < most

    def flood():
        c = http.client.HTTPSConnection('127.0.0.1', api.port, context=api.nobody, timeout=60)
        while goes_on():
            c.request('POST', CMS, json.dumps({'metadata': {'generateName': 'flood-'}, 'data': {'t': 'x' * 1000}}),
                      {'Authorization': 'Bearer ' + one, 'Content-Type': 'application/json'})
            r = c.getresponse()
            r.read()
            seen[r.status] = seen.get(r.status, 0) + 1
            retry.add(r.getheader('Retry-After'))
    threads = [threading.Thread(target=flood) for _ in range(12)]
    for t in threads:
        t.start()
    while goes_on():
        assert api.ask('GET', CMS + '?limit=1', token=other).status == 200
    for t in threads:
        t.join()
    assert seen.get(201, 0) > 0 and seen.get(429, 0) > 0 and set(seen) == {201, 429}, seen
    assert '1' in retry
    assert 'rejected_requests_total{flow_schema="tenant",priority_level="tiny",reason=' in api.ask('GET', '/metrics').text.decode()
    api.ask('DELETE', flow + 'flowschemas/tenant')
    api.ask('DELETE', flow + 'prioritylevelconfigurations/tiny')
    assert api.ask('POST', CMS, {'metadata': {'generateName': 'after-'}}, token=one).status == 201


def test_stopping_ends_watches_properly():
    with running('--api-only', prefix='tf-') as one:
        api, got = Api(one), {}
        c = http.client.HTTPSConnection('127.0.0.1', api.port, context=api.context, timeout=30)
        c.request('GET', CMS + '?watch=1')
        r = c.getresponse()

        def read():
            got['text'] = r.read()                                # raises when the stream is cut in its midst
        t = threading.Thread(target=read)
        t.start()
        time.sleep(0.3)
        one.down()
        t.join(90)
        assert 'text' in got
