"""Custom resources in two versions with a conversion webhook."""
import copy, json, threading, time

import pytest

from conftest import eventually, running
from outside import Client, Server


def convert(request):
    """v1 has spec.host and spec.port, v2 spec.address "host:port"."""
    out = []
    for o in request['objects']:
        o = copy.deepcopy(o)
        spec = o.setdefault('spec', {})
        if request['desiredAPIVersion'].endswith('/v2') and 'host' in spec:
            spec['address'] = f'{spec.pop("host")}:{spec.pop("port", 80)}'
        elif request['desiredAPIVersion'].endswith('/v1') and 'address' in spec:
            spec['host'], port = spec.pop('address').split(':')
            spec['port'] = int(port)
        o['apiVersion'] = request['desiredAPIVersion']
        o['metadata'].setdefault('annotations', {})['converted'] = 'yes'
        o['metadata']['finalizers'] = ['not/yours']
        out.append(o)
    return out


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    with running('--api-only', prefix='tc-') as one:
        server = Server(str(tmp_path_factory.mktemp('hook')))
        server.routes['/convert'] = lambda r, d: (200, {'apiVersion': d['apiVersion'], 'kind': 'ConversionReview', 'response': {
            'uid': d['request']['uid'], 'result': {'status': 'Success'}, 'convertedObjects': convert(d['request'])}})
        api = Client(one.state)
        spec = lambda **p: {'type': 'object', 'properties': {'spec': {'type': 'object', 'properties': {k: {'type': t} for k, t in p.items()}}}}
        crd = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': 'peers.example.com'}, 'spec': {
            'group': 'example.com', 'scope': 'Namespaced', 'names': {'plural': 'peers', 'singular': 'peer', 'kind': 'Peer', 'listKind': 'PeerList'},
            'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': spec(host='string', port='integer')}},
                         {'name': 'v2', 'served': True, 'storage': False, 'schema': {'openAPIV3Schema': spec(address='string')},
                          'selectableFields': [{'jsonPath': '.spec.address'}]}],
            'conversion': {'strategy': 'Webhook', 'webhook': {'conversionReviewVersions': ['v1'], 'clientConfig': {
                'url': f'https://localhost:{server.port}/convert', 'caBundle': server.bundle}}}}}
        status, doc = api('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd)
        assert status == 201, doc
        eventually(lambda: api('GET', '/apis/example.com/v2')[0] == 200)
        yield api, server
        server.stop()


V1, V2 = ('/apis/example.com/%s/namespaces/default/peers' % v for v in ('v1', 'v2'))


def peer(version, name, **spec):
    return {'apiVersion': 'example.com/' + version, 'kind': 'Peer', 'metadata': {'name': name}, 'spec': spec}


def test_both_versions_are_the_same_object(world):
    api, server = world
    status, one = api('POST', V1, peer('v1', 'one', host='a', port=1))
    assert status == 201 and one['spec'] == {'host': 'a', 'port': 1} and not server.asked
    status, two = api('GET', V2 + '/one')
    assert status == 200 and two['apiVersion'] == 'example.com/v2' and two['spec'] == {'address': 'a:1'}, two['message']
    assert two['metadata']['annotations'] == {'converted': 'yes'} and 'finalizers' not in two['metadata']
    assert two['metadata']['resourceVersion'] == one['metadata']['resourceVersion']
    # written in the version that is not stored: there and back
    status, doc = api('POST', V2, peer('v2', 'two', address='b:2'))
    assert status == 201 and doc['spec'] == {'address': 'b:2'} and doc['apiVersion'] == 'example.com/v2'
    assert api('GET', V1 + '/two')[1]['spec'] == {'host': 'b', 'port': 2}
    doc['spec']['address'] = 'c:3'
    status, doc = api('PUT', V2 + '/two', doc)
    assert status == 200 and doc['spec'] == {'address': 'c:3'} and doc['metadata']['generation'] == 2
    status, doc = api('PATCH', V2 + '/two', {'spec': {'address': 'd:4'}}, {'content-type': 'application/merge-patch+json'})
    assert status == 200 and doc['spec'] == {'address': 'd:4'}
    assert api('GET', V1 + '/two')[1]['spec'] == {'host': 'd', 'port': 4}
    apply = json.dumps(peer('v2', 'three', address='e:5'))
    status, doc = api('PATCH', V2 + '/three?fieldManager=me', apply, {'content-type': 'application/apply-patch+yaml'})
    assert status == 201 and doc['spec'] == {'address': 'e:5'}
    status, doc = api('PATCH', V2 + '/three?fieldManager=me', apply, {'content-type': 'application/apply-patch+yaml'})
    assert status == 200 and doc['spec'] == {'address': 'e:5'}
    assert api('DELETE', V2 + '/three')[0] == 200


def test_lists_ask_once_and_tables_work(world):
    api, server = world
    for i in range(30):
        assert api('POST', V1, peer('v1', f'l{i}', host='h', port=i))[0] == 201
    server.asked.clear()
    status, doc = api('GET', V2)
    assert status == 200 and {'h:%d' % i for i in range(30)} <= {x['spec']['address'] for x in doc['items']} and len(server.asked) == 1
    status, doc = api('GET', V2 + '?fieldSelector=spec.address%3Dh:7')
    assert [x['metadata']['name'] for x in doc['items']] == ['l7']
    status, doc = api('GET', V2, headers={'accept': 'application/json;as=Table;v=v1;g=meta.k8s.io'})
    assert status == 200 and len(doc['rows']) >= 30
    status, doc = api('DELETE', V2)
    assert status == 200 and len(doc['items']) >= 30 and all(x['apiVersion'] == 'example.com/v2' for x in doc['items'])
    assert api('GET', V1)[1]['items'] == []


def test_watches_wait_for_the_webhook(world):
    api, server = world
    assert api('POST', V1, peer('v1', 'w0', host='w', port=0))[0] == 201
    events, ready = [], threading.Event()

    def follow():
        for e in api.watch(V2 + '?watch=1&timeoutSeconds=90&allowWatchBookmarks=true', 90):
            events.append(e)
            ready.set()
            if e['type'] == 'DELETED':
                return
    t = threading.Thread(target=follow)
    t.start()
    assert ready.wait(60)
    for i in range(1, 20):
        assert api('POST', V1, peer('v1', f'w{i}', host='w', port=i))[0] == 201
    assert api('PATCH', V1 + '/w3', {'spec': {'port': 33}}, {'content-type': 'application/merge-patch+json'})[0] == 200
    assert api('DELETE', V1 + '/w4')[0] == 200
    eventually(lambda: len(events) >= 22)
    assert [e['type'] for e in events[:22]] == ['ADDED'] * 20 + ['MODIFIED', 'DELETED'], events
    assert [e['object']['spec']['address'] for e in events[:22]] == [f'w:{i}' for i in range(20)] + ['w:33', 'w:4']
    t.join()


def test_a_webhook_that_fails(world):
    api, server = world
    assert api('POST', V1, peer('v1', 'bad', host='w', port=0))[0] == 201
    was = server.routes['/convert']
    server.routes['/convert'] = lambda r, d: (200, {'apiVersion': d['apiVersion'], 'kind': 'ConversionReview', 'response': {
        'uid': d['request']['uid'], 'result': {'status': 'Failure', 'message': 'cannot'}}})
    for path in (V2 + '/bad', V2):
        status, doc = api('GET', path)
        assert status == 500 and doc['message'] == 'conversion webhook for example.com/v1, Kind=Peer failed: cannot'
    assert api('POST', V2, peer('v2', 'never', address='b:2'))[0] == 500
    assert next(api.watch(V2 + '?watch=1'))['type'] == 'ERROR'
    assert api('GET', V1 + '/bad')[0] == 200                     # the stored version asks nobody

    def rename(r, d):
        out = convert(d['request'])
        out[0]['metadata']['name'] = 'other'
        return 200, {'apiVersion': d['apiVersion'], 'kind': 'ConversionReview', 'response': {
            'uid': d['request']['uid'], 'result': {'status': 'Success'}, 'convertedObjects': out}}
    server.routes['/convert'] = rename
    status, doc = api('GET', V2 + '/bad')
    assert status == 500 and 'must have the same name: bad != other' in doc['message']
    server.routes['/convert'] = was
    assert api('GET', V1 + '/never')[0] == 404


def test_storage_version_moves(world):
    api, server = world
    path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/peers.example.com'
    assert api('POST', V1, peer('v1', 'old', host='o', port=1))[0] == 201
    crd = api('GET', path)[1]
    for v in crd['spec']['versions']:
        v['storage'] = v['name'] == 'v2'
    assert api('PUT', path, crd)[0] == 200
    eventually(lambda: api('GET', path)[1]['status']['storedVersions'] == ['v1', 'v2'])
    assert api('GET', V1 + '/old')[1]['spec'] == {'host': 'o', 'port': 1}
    assert api('GET', V2 + '/old')[1]['spec'] == {'address': 'o:1'}
    assert api('PATCH', V2 + '/old', {'spec': {'address': 'o:2'}}, {'content-type': 'application/merge-patch+json'})[0] == 200
    assert api('GET', V1 + '/old')[1]['spec'] == {'host': 'o', 'port': 2}
    names = {x['metadata']['name']: x['apiVersion'] for x in api('GET', V1)[1]['items']}
    assert set(names.values()) == {'example.com/v1'}
    assert api('DELETE', path)[0] == 200
    eventually(lambda: api('GET', path)[0] == 404)
