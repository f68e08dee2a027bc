"""Admission webhooks: a real HTTPS server that mutates, denies, hangs and lies."""
import base64, json, threading, time

import pytest

from conftest import eventually, running
from outside import Client, Server, allow, deny, patch


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    with running('--api-only', prefix='tw-') as one:
        server = Server(str(tmp_path_factory.mktemp('hook')))
        api = Client(one.state)
        assert api('POST', '/api/v1/namespaces', {'metadata': {'name': 'hooked', 'labels': {'hooks': 'yes'}}})[0] == 201
        assert api('POST', '/api/v1/namespaces', {'metadata': {'name': 'spared'}})[0] == 201
        yield api, server
        server.stop()


CONFIGS = '/apis/admissionregistration.k8s.io/v1/'


@pytest.fixture
def hooks(world):
    """Makes configurations; all are gone after the test."""
    api, server = world
    made = []
    server.asked.clear()

    def make(kind, name, *webhooks):
        plural = kind + 'webhookconfigurations'
        body = {'apiVersion': 'admissionregistration.k8s.io/v1', 'kind': kind.capitalize() + 'WebhookConfiguration', 'metadata': {'name': name},
                'webhooks': [{'name': f'h{i}.{name}.example.com', 'sideEffects': 'None', 'admissionReviewVersions': ['v1'],
                              'clientConfig': {'url': f'https://localhost:{server.port}{w.pop("path")}', 'caBundle': server.bundle},
                              'namespaceSelector': {'matchLabels': {'hooks': 'yes'}},
                              'rules': [{'operations': ['*'], 'apiGroups': [''], 'apiVersions': ['v1'], 'resources': ['configmaps']}], **w}
                             for i, w in enumerate(webhooks)]}
        status, doc = api('POST', CONFIGS + plural, body)
        assert status == 201, doc
        made.append(CONFIGS + plural + '/' + name)
    yield make
    for path in made:
        api('DELETE', path)
    for item in api('GET', '/api/v1/namespaces/hooked/configmaps')[1]['items']:
        api('DELETE', '/api/v1/namespaces/hooked/configmaps/' + item['metadata']['name'])


MAPS = '/api/v1/namespaces/hooked/configmaps'


def cm(name, **data):
    return {'metadata': {'name': name}, 'data': data}


def test_mutates_and_validates_in_order(world, hooks):
    api, server = world
    seen = []
    server.routes['/first'] = lambda r, d: seen.append('first') or patch(d, [{'op': 'add', 'path': '/data/first', 'value': '1'}], warnings=['mind the gap'])
    server.routes['/second'] = lambda r, d: seen.append(d['request']['object']['data']) or patch(d, [{'op': 'add', 'path': '/data/second', 'value': '2'}])
    server.routes['/check'] = lambda r, d: seen.append(d['request']) or allow(d)
    writes = [{'operations': ['CREATE', 'UPDATE'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['configmaps']}]
    hooks('mutating', 'b', {'path': '/second', 'rules': writes})
    hooks('mutating', 'a', {'path': '/first', 'rules': writes})
    hooks('validating', 'v', {'path': '/check'})
    status, doc = api('POST', MAPS + '?fieldManager=me', cm('one', own='x'))
    assert status == 201 and doc['data'] == {'own': 'x', 'first': '1', 'second': '2'}
    assert any('mind the gap' in w for w in api.warnings)
    assert seen[0] == 'first' and seen[1] == {'own': 'x', 'first': '1'}
    last = seen[2]
    assert last['operation'] == 'CREATE' and last['name'] == 'one' and last['namespace'] == 'hooked' and last['oldObject'] is None
    assert last['object']['metadata']['uid'] == doc['metadata']['uid'] and last['userInfo']['username'] == 'kubernetes-admin' or last['userInfo']['groups']
    assert last['options'] == {'kind': 'CreateOptions', 'apiVersion': 'meta.k8s.io/v1', 'fieldManager': 'me'}
    assert last['kind'] == {'group': '', 'version': 'v1', 'kind': 'ConfigMap'} and last['dryRun'] is False
    # another namespace is not asked about
    n = len(server.asked)
    assert api('POST', '/api/v1/namespaces/spared/configmaps', cm('one'))[0] == 201 and len(server.asked) == n
    # updates and deletions show the old object
    doc['data']['own'] = 'y'
    assert api('PUT', MAPS + '/one', doc)[0] == 200
    assert seen[-1]['operation'] == 'UPDATE' and seen[-1]['oldObject']['data']['own'] == 'x'
    assert api('DELETE', MAPS + '/one')[0] == 200
    assert seen[-1]['operation'] == 'DELETE' and seen[-1]['object'] is None and seen[-1]['oldObject']['data']['own'] == 'y'


def test_denies_with_its_own_status(world, hooks):
    api, server = world
    server.routes['/deny'] = lambda r, d: deny(d, code=418, reason='Because', message='not today')
    hooks('validating', 'deny', {'path': '/deny'})
    status, doc = api('POST', MAPS, cm('no'))
    assert status == 418 and doc['reason'] == 'Because'
    assert doc['message'] == 'admission webhook "h0.deny.example.com" denied the request: not today'
    server.routes['/deny'] = lambda r, d: deny(d)
    status, doc = api('POST', MAPS, cm('no'))
    assert status == 400 and doc['message'] == 'admission webhook "h0.deny.example.com" denied the request without explanation'
    assert api('GET', MAPS + '/no')[0] == 404


def test_failure_policies_and_timeouts(world, hooks):
    api, server = world
    server.routes['/slow'] = lambda r, d: time.sleep(3) or allow(d)
    server.routes['/broken'] = lambda r, d: (500, b'oh')
    server.routes['/liar'] = lambda r, d: (200, {'apiVersion': 'admission.k8s.io/v1', 'kind': 'AdmissionReview', 'response': {'uid': 'x', 'allowed': True}})
    hooks('validating', 'slow', {'path': '/slow', 'timeoutSeconds': 1})
    status, doc = api('POST', MAPS, cm('late'))
    assert status == 500 and doc['reason'] == 'InternalError'
    assert 'failed calling webhook "h0.slow.example.com": failed to call webhook: Post "https://localhost' in doc['message']
    assert 'timeout=1s": context deadline exceeded' in doc['message']
    api('DELETE', CONFIGS + 'validatingwebhookconfigurations/slow')
    hooks('validating', 'slow2', {'path': '/slow', 'timeoutSeconds': 1, 'failurePolicy': 'Ignore'})
    assert api('POST', MAPS, cm('late'))[0] == 201
    api('DELETE', CONFIGS + 'validatingwebhookconfigurations/slow2')
    for path, text in (('/broken', 'an error on the server ("oh") has prevented the request from succeeding'),
                       ('/nowhere', 'the server could not find the requested resource'), ('/liar', 'expected response.uid=')):
        hooks('mutating', 'bad' + path[1:], {'path': path})
        status, doc = api('POST', MAPS, cm('bad'))
        assert status == 500 and text in doc['message'], doc
        api('DELETE', CONFIGS + 'mutatingwebhookconfigurations/bad' + path[1:])
    # nobody listens, and a certificate that is not trusted
    hooks('validating', 'gone', {'path': '/x', 'clientConfig': {'url': 'https://localhost:1/x', 'caBundle': server.bundle}})
    status, doc = api('POST', MAPS, cm('bad'))
    assert status == 500 and 'refused' in doc['message']
    api('DELETE', CONFIGS + 'validatingwebhookconfigurations/gone')
    hooks('validating', 'untrusted', {'path': '/x', 'clientConfig': {'url': f'https://localhost:{server.port}/x'}})
    status, doc = api('POST', MAPS, cm('bad'))
    assert status == 500 and 'certificate' in doc['message'], doc


def test_validating_webhooks_are_asked_at_once(world, hooks):
    api, server = world
    all_there = threading.Barrier(6)                      # nobody answers before all were asked; else it breaks, and the call fails
    server.routes['/second'] = lambda r, d: all_there.wait(25) >= 0 and allow(d)
    hooks('validating', 'many', *({'path': '/second', 'timeoutSeconds': 30} for _ in range(6)))
    assert api('POST', MAPS, cm('many'), timeout=60)[0] == 201 and len(server.asked) == 6


def test_reinvocation(world, hooks):
    api, server = world
    server.routes['/count'] = lambda r, d: patch(d, [{'op': 'add', 'path': '/data/a', 'value': d['request']['object']['data'].get('b', 'none')}])
    server.routes['/b'] = lambda r, d: patch(d, [{'op': 'add', 'path': '/data/b', 'value': 'late'}])
    hooks('mutating', 'r', {'path': '/count', 'reinvocationPolicy': 'IfNeeded'}, {'path': '/b'})
    status, doc = api('POST', MAPS, cm('again', own='x'))
    assert status == 201 and doc['data'] == {'own': 'x', 'a': 'late', 'b': 'late'}
    assert [p.split('?')[0] for p, _ in server.asked] == ['/count', '/b', '/count']


def test_object_selector_dry_run_and_generated_names(world, hooks):
    api, server = world
    server.routes['/check'] = lambda r, d: allow(d)
    hooks('validating', 'sel', {'path': '/check', 'objectSelector': {'matchLabels': {'check': 'me'}}})
    assert api('POST', MAPS, cm('plain'))[0] == 201 and not server.asked
    body = {'metadata': {'generateName': 'gen-', 'labels': {'check': 'me'}}}
    status, doc = api('POST', MAPS + '?dryRun=All', body)
    assert status == 201 and server.asked[-1][1]['request']['dryRun'] is True
    status, doc = api('POST', MAPS, body)
    assert status == 201 and doc['metadata']['name'].startswith('gen-') and server.asked[-1][1]['request']['name'] == doc['metadata']['name']
    # a label that goes is still seen in the old object
    del doc['metadata']['labels']
    n = len(server.asked)
    assert api('PUT', MAPS + '/' + doc['metadata']['name'], doc)[0] == 200 and len(server.asked) == n + 1


def test_deletecollection_asks_for_each(world, hooks):
    api, server = world
    for i in range(40):
        assert api('POST', MAPS, cm(f'd{i}'))[0] == 201
    server.routes['/delete'] = lambda r, d: allow(d)
    hooks('validating', 'del', {'path': '/delete', 'rules': [{'operations': ['DELETE'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*']}]})
    status, doc = api('DELETE', MAPS)
    assert status == 200 and len(doc['items']) == 40 and len(server.asked) == 40
    assert api('GET', MAPS)[1]['items'] == []


def test_subresources(world, hooks):
    api, server = world
    deploy = {'metadata': {'name': 'd'}, 'spec': {'selector': {'matchLabels': {'a': 'b'}}, 'template': {
        'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'x'}]}}}}
    base = '/apis/apps/v1/namespaces/hooked/deployments'
    assert api('POST', base, deploy)[0] == 201
    server.routes['/scale'] = lambda r, d: deny(d, message='stay') if d['request']['object']['spec'].get('replicas', 0) > 5 else allow(d)
    hooks('validating', 'scale', {'path': '/scale', 'rules': [{'operations': ['UPDATE'], 'apiGroups': ['apps'], 'apiVersions': ['v1'], 'resources': ['deployments/scale']}]})
    merge = {'content-type': 'application/merge-patch+json'}
    status, doc = api('PATCH', base + '/d/scale', {'spec': {'replicas': 9}}, merge)
    assert status == 400 and 'stay' in doc['message']
    assert server.asked[-1][1]['request']['kind'] == {'group': 'autoscaling', 'version': 'v1', 'kind': 'Scale'}
    assert server.asked[-1][1]['request']['subResource'] == 'scale' and server.asked[-1][1]['request']['oldObject']['spec']['replicas'] == 1
    assert api('PATCH', base + '/d/scale', {'spec': {'replicas': 2}}, merge)[0] == 200
    n = len(server.asked)
    assert api('PATCH', base + '/d', {'spec': {'replicas': 8}}, merge)[0] == 200 and len(server.asked) == n
    api('DELETE', base + '/d')


def test_equivalent_versions(world, hooks):
    api, server = world
    server.routes['/hpa'] = lambda r, d: allow(d)
    rules = [{'operations': ['CREATE'], 'apiGroups': ['autoscaling'], 'apiVersions': ['v1'], 'resources': ['horizontalpodautoscalers']}]
    hpa = {'metadata': {'name': 'h'}, 'spec': {'maxReplicas': 3, 'scaleTargetRef': {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'x'},
                                               'metrics': [{'type': 'Resource', 'resource': {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 50}}}]}}
    base = '/apis/autoscaling/v2/namespaces/hooked/horizontalpodautoscalers'
    hooks('validating', 'exact', {'path': '/hpa', 'rules': rules, 'matchPolicy': 'Exact'})
    assert api('POST', base, hpa)[0] == 201 and not server.asked
    hooks('validating', 'equal', {'path': '/hpa', 'rules': rules})
    hpa['metadata']['name'] = 'h2'
    assert api('POST', base, hpa)[0] == 201
    request = server.asked[-1][1]['request']
    assert request['kind']['version'] == 'v1' and request['requestKind']['version'] == 'v2' and request['object']['spec']['targetCPUUtilizationPercentage'] == 50


def test_a_client_that_goes_and_many_that_wait(world, hooks):
    api, server = world
    go = threading.Event()
    server.routes['/slow'] = lambda r, d: go.wait(25) and patch(d, [{'op': 'add', 'path': '/data', 'value': {'x': 'y'}}])
    hooks('mutating', 'slow', {'path': '/slow', 'timeoutSeconds': 30})
    with pytest.raises(OSError):
        api('POST', MAPS, cm('gone'), timeout=0.3)
    got = []
    threads = [threading.Thread(target=lambda i=i: got.append(api('POST', MAPS, cm(f'w{i}'), timeout=60)[0])) for i in range(50)]
    [t.start() for t in threads]
    # others are not held back meanwhile
    assert api('POST', '/api/v1/namespaces/spared/configmaps', {'metadata': {'generateName': 'quick-'}})[0] == 201 and not got
    go.set()
    [t.join() for t in threads]
    assert got == [201] * 50
    assert api('GET', MAPS + '/gone')[0] == 404


def test_configurations_are_never_subject(world, hooks):
    api, server = world
    everything = [{'operations': ['*'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*/*']}]
    server.routes['/deny'] = lambda r, d: deny(d, message='no')
    hooks('validating', 'all', {'path': '/deny', 'rules': everything, 'namespaceSelector': {}})
    assert api('POST', '/api/v1/namespaces', {'metadata': {'name': 'denied'}})[0] == 400
    assert api('DELETE', CONFIGS + 'validatingwebhookconfigurations/all')[0] == 200


def test_match_conditions(world, hooks):
    api, server = world
    server.routes['/deny'] = lambda r, d: deny(d, message='asked')
    hooks('validating', 'cond', {'path': '/deny', 'matchConditions': [
        {'name': 'not-mine', 'expression': '!("own" in object.data)'}, {'name': 'not-me', 'expression': 'request.userInfo.username != "me"'}]})
    assert api('POST', MAPS, cm('spared', own='x'))[0] == 201 and not server.asked
    assert api('POST', MAPS, cm('asked', a='x'))[0] == 400 and len(server.asked) == 1
    hooks('mutating', 'fails', {'path': '/deny', 'matchConditions': [{'name': 'wrong', 'expression': 'object.data.nothing == "x"'}]})
    status, doc = api('POST', MAPS, cm('fails', own='x'))
    assert status == 403 and 'no such key: nothing' in doc['message'], doc
    api('DELETE', CONFIGS + 'mutatingwebhookconfigurations/fails')
    hooks('mutating', 'ignored', {'path': '/deny', 'failurePolicy': 'Ignore', 'matchConditions': [{'name': 'wrong', 'expression': 'object.data.nothing == "x"'}]})
    assert api('POST', MAPS, cm('fails', own='x'))[0] == 201
    bad = {'metadata': {'name': 'bad'}, 'webhooks': [{'name': 'a.b.c', 'sideEffects': 'None', 'admissionReviewVersions': ['v1'], 'clientConfig': {'url': 'https://localhost/'},
           'matchConditions': [{'name': 'x', 'expression': 'object.'}]}]}
    assert api('POST', CONFIGS + 'validatingwebhookconfigurations', bad)[0] == 422


def test_what_the_api_writes_for_itself_asks_nobody(world, hooks):
    api, server = world
    server.routes['/deny'] = lambda r, d: deny(d, message='no')
    hooks('validating', 'all', {'path': '/deny', 'namespaceSelector': {}, 'rules': [{'operations': ['*'], 'apiGroups': ['apiregistration.k8s.io'], 'apiVersions': ['*'], 'resources': ['*']}]})
    crd = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': 'things.own.example.com'}, 'spec': {
        'group': 'own.example.com', 'scope': 'Cluster', 'names': {'plural': 'things', 'kind': 'Thing'},
        'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': {'type': 'object'}}}]}}
    assert api('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd)[0] == 201
    eventually(lambda: api('GET', '/apis/apiregistration.k8s.io/v1/apiservices/v1.own.example.com')[0] == 200)
    assert api('DELETE', '/apis/apiregistration.k8s.io/v1/apiservices/v1.own.example.com')[0] == 400


def test_controllers_are_admitted(tandem, tmp_path):
    """The controllers of this process write through webhooks as anybody: a Deployment's pods are mutated, and there are as many as wanted
    though each creation has to wait; what is denied is said in an event."""
    server = Server(str(tmp_path))
    api = Client(tandem.state)
    server.routes['/pods'] = lambda r, d: time.sleep(0.2) or patch(d, [{'op': 'add', 'path': '/metadata/labels/mutated', 'value': 'yes'}])
    server.routes['/deny'] = lambda r, d: deny(d, message='not this one') if d['request']['object']['metadata']['labels'].get('app') == 'denied' else allow(d)
    rules = [{'operations': ['CREATE'], 'apiGroups': [''], 'apiVersions': ['v1'], 'resources': ['pods']}]
    make = lambda kind, path: {'metadata': {'name': 'own-' + kind.lower()}, 'webhooks': [{
        'name': 'pods.example.com', 'sideEffects': 'None', 'admissionReviewVersions': ['v1'], 'rules': rules, 'namespaceSelector': {'matchLabels': {'ctl': 'yes'}},
        'clientConfig': {'url': f'https://localhost:{server.port}{path}', 'caBundle': server.bundle}}]}
    assert api('POST', CONFIGS + 'mutatingwebhookconfigurations', make('Mutating', '/pods'))[0] == 201
    assert api('POST', CONFIGS + 'validatingwebhookconfigurations', make('Validating', '/deny'))[0] == 201
    try:
        assert api('POST', '/api/v1/namespaces', {'metadata': {'name': 'ctl', 'labels': {'ctl': 'yes'}}})[0] == 201
        for app in ('wanted', 'denied'):
            deploy = {'metadata': {'name': app}, 'spec': {'replicas': 4, 'selector': {'matchLabels': {'app': app}}, 'template': {
                'metadata': {'labels': {'app': app}}, 'spec': {'containers': [{'name': 'c', 'image': 'none.invalid/x'}]}}}}
            assert api('POST', '/apis/apps/v1/namespaces/ctl/deployments', deploy)[0] == 201
        pods = lambda: [p for p in api('GET', '/api/v1/namespaces/ctl/pods')[1]['items'] if p['metadata']['labels']['app'] == 'wanted']
        eventually(lambda: len(pods()) >= 4, 20)
        time.sleep(1.5)
        assert len(pods()) == 4 and all(p['metadata']['labels'].get('mutated') == 'yes' for p in pods())
        eventually(lambda: any('not this one' in e.get('message', '') for e in api('GET', '/api/v1/namespaces/ctl/events')[1]['items']), 20)
        assert len(server.asked) < 200
    finally:
        api('DELETE', CONFIGS + 'mutatingwebhookconfigurations/own-mutating')
        api('DELETE', CONFIGS + 'validatingwebhookconfigurations/own-validating')
        api('DELETE', '/api/v1/namespaces/ctl')
        server.stop()
