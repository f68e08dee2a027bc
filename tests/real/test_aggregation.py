"""Aggregated APIs and the HTTP proxies to pods and services: another API server of a few lines, behind a service."""
import base64, json, subprocess, threading

import pytest

from conftest import eventually, running
from outside import Client, Server, allow, deny

ADDRESS = '198.51.100.7'                                              # of nobody; ours on lo of the tests' own network namespace


def slice_of(name, port, ready=True):
    return {'metadata': {'name': name + '-1', 'labels': {'kubernetes.io/service-name': name}}, 'addressType': 'IPv4',
            'endpoints': [{'addresses': [ADDRESS], 'conditions': {'ready': ready}}], 'ports': [{'name': 'main', 'port': port, 'protocol': 'TCP'}]}


def service(api, name, port, number=443):
    assert api('POST', '/api/v1/namespaces/default/services', {'metadata': {'name': name}, 'spec': {'ports': [{'name': 'main', 'port': number}]}})[0] == 201
    status, doc = api('POST', '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', slice_of(name, port))
    assert status == 201, doc


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    subprocess.run(['ip', 'addr', 'add', ADDRESS + '/32', 'dev', 'lo'], check=False, stderr=subprocess.DEVNULL)
    with running('--api-only', prefix='ta-') as one:
        api = Client(one.state)
        trust = api('GET', '/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication')[1]['data']
        server = Server(str(tmp_path_factory.mktemp('agg')), alt='DNS:wardle.default.svc', addr='0.0.0.0', client_ca=trust['requestheader-client-ca-file'])
        assert json.loads(trust['requestheader-allowed-names']) == ['front-proxy-client']
        resources = {'kind': 'APIResourceList', 'apiVersion': 'v1', 'groupVersion': 'wardle.example.com/v1', 'resources': [
            {'name': 'flunders', 'singularName': 'flunder', 'namespaced': True, 'kind': 'Flunder', 'verbs': ['get', 'list', 'watch', 'create'], 'shortNames': ['fl']},
            {'name': 'flunders/status', 'singularName': '', 'namespaced': True, 'kind': 'Flunder', 'verbs': ['get']}]}
        server.routes['/apis/wardle.example.com/v1'] = lambda r, d: (200, resources)
        service(api, 'wardle', server.port)
        yield api, server
        server.stop()


SERVICE = {'apiVersion': 'apiregistration.k8s.io/v1', 'kind': 'APIService', 'metadata': {'name': 'v1.wardle.example.com'}, 'spec': {
    'group': 'wardle.example.com', 'version': 'v1', 'groupPriorityMinimum': 2000, 'versionPriority': 200,
    'service': {'name': 'wardle', 'namespace': 'default'}}}
SERVICES = '/apis/apiregistration.k8s.io/v1/apiservices'


def available(api):
    status = api('GET', SERVICES + '/v1.wardle.example.com')[1].get('status') or {}
    return next((c for c in status.get('conditions') or [] if c['type'] == 'Available'), {})


@pytest.fixture
def registered(world):
    """The APIService, there and available; gone again behind the test."""
    api, server = world
    body = json.loads(json.dumps(SERVICE))
    body['spec']['caBundle'] = server.bundle
    status, doc = api('POST', SERVICES, body)
    assert status == 201, doc
    eventually(lambda: available(api).get('status') == 'True', 10)
    yield api, server
    api('DELETE', SERVICES + '/v1.wardle.example.com')


@pytest.fixture
def pod(world):
    """A pod called p that runs nowhere, and has our address."""
    api, _ = world
    api('POST', '/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    pod = {'metadata': {'name': 'p'}, 'spec': {'nodeName': 'nowhere', 'automountServiceAccountToken': False, 'containers': [{'name': 'c', 'image': 'x'}]}}
    assert api('POST', '/api/v1/namespaces/default/pods', pod)[0] == 201
    yield 'p'
    api('DELETE', '/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0')


def test_an_aggregated_api(registered):
    api, server = registered
    # what it is asked, and as whom
    heads = []

    def flunders(r, d):
        heads.append((r.command, r.path, [(k.lower(), v) for k, v in r.headers.items()], d))
        return 200, {'kind': 'FlunderList', 'apiVersion': 'wardle.example.com/v1', 'metadata': {}, 'items': []}
    server.routes['/apis/wardle.example.com/v1/namespaces/default/flunders'] = flunders
    path = '/apis/wardle.example.com/v1/namespaces/default/flunders'
    status, doc = api('GET', path + '?labelSelector=a%3Db', headers={'X-Remote-User': 'evil', 'Authorization': 'Bearer x'})
    assert status == 200 and doc['kind'] == 'FlunderList'
    method, asked, head, _ = heads[-1]
    assert asked == path + '?labelSelector=a%3Db' and [v for k, v in head if k == 'x-remote-user'] == ['kubernetes-admin']
    assert 'system:authenticated' in [v for k, v in head if k == 'x-remote-group'] and 'authorization' not in dict(head)
    status, doc = api('POST', path, {'kind': 'Flunder', 'metadata': {'name': 'x'}, 'text': 'y' * 100000})
    assert status == 200 and heads[-1][0] == 'POST' and len(heads[-1][3]['text']) == 100000
    # discovery in both forms
    groups = [g['name'] for g in api('GET', '/apis')[1]['groups']]
    assert 'wardle.example.com' in groups and 'apps' in groups
    assert api('GET', '/apis/wardle.example.com')[1]['versions'][0]['version'] == 'v1'
    assert api('GET', '/apis/wardle.example.com/v1')[1]['resources'][0]['name'] == 'flunders'
    agg = api('GET', '/apis', headers={'accept': 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'})[1]
    mine = next(i for i in agg['items'] if i['metadata']['name'] == 'wardle.example.com')
    assert mine['versions'][0]['freshness'] == 'Current' and mine['versions'][0]['resources'][0]['resource'] == 'flunders'
    assert mine['versions'][0]['resources'][0]['subresources'][0]['subresource'] == 'status'


def test_watches_stream_through(registered):
    api, server = registered

    got, arrived = [], [threading.Event() for _ in range(3)]

    def watch(r, d):                                                  # each event is sent when the one before has arrived
        r.send_response(200)
        r.send_header('transfer-encoding', 'chunked')
        r.end_headers()
        for i in range(3):
            line = json.dumps({'type': 'ADDED', 'object': {'i': i}}).encode() + b'\n'
            r.wfile.write(b'%x\r\n%s\r\n' % (len(line), line))
            r.wfile.flush()
            if not arrived[i].wait(60):
                return
        r.wfile.write(b'0\r\n\r\n')
    server.routes['/apis/wardle.example.com/v1/watched'] = watch
    for e in api.watch('/apis/wardle.example.com/v1/watched?watch=1', 90):
        got.append(e['object']['i'])
        arrived[got[-1]].set()
    assert got == [0, 1, 2]


def test_local_services_and_crds(world):
    api, server = world
    items = {i['metadata']['name']: i for i in api('GET', SERVICES)[1]['items']}
    assert items['v1.']['status']['conditions'][0]['reason'] == 'Local' and 'v1.apps' in items and 'v2.autoscaling' in items
    crd = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': 'things.agg.example.com'}, 'spec': {
        'group': 'agg.example.com', 'scope': 'Cluster', 'names': {'plural': 'things', 'kind': 'Thing'},
        'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': {'type': 'object'}}}]}}
    assert api('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd)[0] == 201
    eventually(lambda: api('GET', SERVICES + '/v1.agg.example.com')[0] == 200)
    assert api('DELETE', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.agg.example.com')[0] == 200
    eventually(lambda: api('GET', SERVICES + '/v1.agg.example.com')[0] == 404)


def test_when_it_is_not_there(registered):
    api, server = registered
    path = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/wardle-1'
    body = api('GET', path)[1]
    body['endpoints'][0]['conditions']['ready'] = False
    assert api('PUT', path, body)[0] == 200
    service_path = SERVICES + '/v1.wardle.example.com'
    doc = api('GET', service_path)[1]
    doc['spec']['versionPriority'] = 201                              # looked at again at once
    assert api('PUT', service_path, doc)[0] == 200
    eventually(lambda: available(api).get('reason') == 'MissingEndpoints', 10)
    assert api('GET', '/apis/wardle.example.com/v1/namespaces/default/flunders') == (503, b'service unavailable\n')
    agg = api('GET', '/apis', headers={'accept': 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'})[1]
    assert next(i for i in agg['items'] if i['metadata']['name'] == 'wardle.example.com')['versions'][0]['freshness'] == 'Stale'
    assert api('DELETE', service_path)[0] == 200
    assert api('GET', '/apis/wardle.example.com/v1')[0] == 404
    body = api('GET', path)[1]
    body['endpoints'][0]['conditions']['ready'] = True
    assert api('PUT', path, body)[0] == 200


def test_proxies_to_services_and_pods(world, pod, tmp_path):
    api, _ = world
    web = Server(str(tmp_path), addr='0.0.0.0')
    heads = []
    web.routes['/*'] = lambda r, d: heads.append((r.command, r.path, dict(r.headers.items()), d)) or (200, {'path': r.path})

    def redirect(r, d):
        r.send_response(302)
        r.send_header('location', '/elsewhere?x=1')
        r.send_header('content-length', '0')
        r.end_headers()
    web.routes['/redirect'] = redirect
    service(api, 'web', web.port, 8443)
    base = '/api/v1/namespaces/default/services/https:web:main/proxy'
    assert api('GET', base + '/a%20b/c?d=e') == (200, {'path': '/a%20b/c?d=e'})
    assert api('GET', '/api/v1/namespaces/default/services/https:web:8443/proxy/n') == (200, {'path': '/n'})
    for method in ('POST', 'PUT', 'PATCH', 'DELETE'):
        assert api(method, base + '/m', {'k': 'v' * 50000})[0] == 200 and heads[-1][0] == method and len(heads[-1][3]['k']) == 50000
    assert 'authorization' not in {k.lower() for k in heads[-1][2]}
    r = api.open('GET', base + '/redirect')
    assert r.status == 302 and r.getheader('location') == base + '/elsewhere?x=1'
    r = api.open('GET', base)
    assert r.status == 301 and r.getheader('location') == base + '/'
    status, doc = api('GET', '/api/v1/namespaces/default/services/web:99/proxy/')
    assert status == 503 and doc['message'] == 'no service port 99 found for service "web"'
    assert api('GET', '/api/v1/namespaces/default/services/none/proxy/')[0] == 404
    # a pod by its address
    assert api('GET', f'/api/v1/namespaces/default/pods/https:p:{web.port}/proxy/z')[0] == 400
    assert api('PATCH', '/api/v1/namespaces/default/pods/p/status', {'status': {'podIP': ADDRESS, 'podIPs': [{'ip': ADDRESS}]}},
               {'content-type': 'application/merge-patch+json'})[0] == 200
    assert api('GET', f'/api/v1/namespaces/default/pods/https:p:{web.port}/proxy/z') == (200, {'path': '/z'})
    web.stop()


def test_connect_is_admitted(world, pod, tmp_path):
    api, _ = world
    hook = Server(str(tmp_path))
    hook.routes['/deny'] = lambda r, d: deny(d, message='no shells', code=403)
    config = {'apiVersion': 'admissionregistration.k8s.io/v1', 'kind': 'ValidatingWebhookConfiguration', 'metadata': {'name': 'connect'}, 'webhooks': [{
        'name': 'connect.example.com', 'sideEffects': 'None', 'admissionReviewVersions': ['v1'],
        'clientConfig': {'url': f'https://localhost:{hook.port}/deny', 'caBundle': hook.bundle},
        'rules': [{'operations': ['CONNECT'], 'apiGroups': [''], 'apiVersions': ['v1'], 'resources': ['pods/exec']}]}]}
    assert api('POST', '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations', config)[0] == 201
    status, doc = api('POST', '/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&stdin=true&tty=1')
    assert status == 403 and 'no shells' in doc['message']
    request = hook.asked[-1][1]['request']
    assert request['operation'] == 'CONNECT' and request['subResource'] == 'exec' and request['kind']['kind'] == 'PodExecOptions'
    assert request['object']['command'] == ['sh', '-c'] and request['object']['tty'] is True and request['name'] == 'p'
    assert api('DELETE', '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/connect')[0] == 200
    hook.stop()
