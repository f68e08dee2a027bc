"""Sub-resources of pods, accounts and custom resources as a stock server has them, without a node: --api-only."""
import base64, json

import pytest

from conftest import eventually, running
from test_auth import call


@pytest.fixture(scope='module')
def one():
    with running('--api-only') as it:
        it.token = None
        it.kubectl('create', 'serviceaccount', 'root')
        it.kubectl('create', 'clusterrolebinding', 'root', '--clusterrole', 'cluster-admin', '--serviceaccount', 'default:root')
        it.token = it.kubectl('create', 'token', 'root').stdout.strip()
        yield it


POD = {'apiVersion': 'v1', 'kind': 'Pod', 'spec': {'serviceAccountName': 'root', 'containers': [{'name': 'c', 'image': 'i', 'resources': {
    'requests': {'cpu': '100m', 'memory': '1Mi'}, 'limits': {'cpu': '1', 'memory': '1Gi'}}}]}}
PODS = '/api/v1/namespaces/default/pods'


def do(one, path, method='GET', body=None, **headers):
    return call(one, path, one.token, method, body, headers)[:2]


def pod(one, name, labels=None, phase='Running', ready=True):
    code, doc = do(one, PODS, 'POST', {**POD, 'metadata': {'name': name, 'labels': labels or {}}})
    assert code == 201, doc
    doc['status'] = {'phase': phase, 'conditions': [{'type': 'Ready', 'status': 'True' if ready else 'False'}]}
    code, doc = do(one, f'{PODS}/{name}/status', 'PUT', doc)
    assert code == 200, doc
    return doc


def evict(one, name, **options):
    return do(one, f'{PODS}/{name}/eviction', 'POST', {'apiVersion': 'policy/v1', 'kind': 'Eviction', 'metadata': {'name': name}, 'deleteOptions': {'gracePeriodSeconds': 0, **options}})


def budget(one, name, labels, status, **spec):
    path = '/apis/policy/v1/namespaces/default/poddisruptionbudgets'
    code, doc = do(one, path, 'POST', {'apiVersion': 'policy/v1', 'kind': 'PodDisruptionBudget', 'metadata': {'name': name},
                                       'spec': {'minAvailable': 1, 'selector': {'matchLabels': labels}, **spec}})
    assert code == 201, doc
    doc['status'] = {'observedGeneration': doc['metadata']['generation'], 'disruptionsAllowed': 0, 'currentHealthy': 1, 'desiredHealthy': 1, 'expectedPods': 1, **status}
    code, doc = do(one, f'{path}/{name}/status', 'PUT', doc)
    assert code == 200, doc
    return f'{path}/{name}'


def test_eviction_and_budgets(one):
    labels = {'app': 'a'}
    path = budget(one, 'a', labels, {'currentHealthy': 1, 'desiredHealthy': 1})
    pod(one, 'ready', labels)
    code, doc = evict(one, 'ready')
    assert code == 429 and doc['details']['causes'] == [{'reason': 'DisruptionBudget', 'message': 'The disruption budget a needs 1 healthy pods and has 1 currently'}]
    pod(one, 'broken', labels, ready=False)                       # enough are healthy without it
    assert evict(one, 'broken', dryRun=['All'])[0] == 201 and do(one, f'{PODS}/broken')[0] == 200
    assert evict(one, 'broken')[0] == 201 and do(one, f'{PODS}/broken')[0] == 404
    doc = do(one, path)[1]
    do(one, path + '/status', 'PUT', {**doc, 'status': {**doc['status'], 'currentHealthy': 0, 'desiredHealthy': 1}})
    pod(one, 'broken', labels, ready=False)                       # not any more
    assert evict(one, 'broken')[0] == 429
    doc = do(one, path)[1]
    doc['spec']['unhealthyPodEvictionPolicy'] = 'AlwaysAllow'
    assert do(one, path, 'PUT', doc)[0] == 200
    assert evict(one, 'broken')[0] == 201
    code, doc = evict(one, 'ready')                               # the budget changed, nobody counted since
    assert code == 429 and doc['details']['retryAfterSeconds'] == 10 and 'still being processed' in doc['details']['causes'][0]['message']
    doc = do(one, path)[1]
    assert do(one, path + '/status', 'PUT', {**doc, 'status': {**doc['status'], 'observedGeneration': doc['metadata']['generation'], 'disruptionsAllowed': 1}})[0] == 200
    assert evict(one, 'ready')[0] == 201
    status = do(one, path)[1]['status']
    assert status['disruptionsAllowed'] == 0 and list(status['disruptedPods']) == ['ready']
    assert [c['status'] for c in status['conditions'] if c['type'] == 'DisruptionAllowed'] == ['False']
    budget(one, 'b', labels, {})
    pod(one, 'two', labels)
    assert evict(one, 'two')[0] == 500
    pod(one, 'over', labels, phase='Succeeded')                   # what has ended disturbs nobody
    assert evict(one, 'over')[0] == 201


def claims(token):
    body = token.split('.')[1]
    return json.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))


def test_token_requests(one):
    path = '/api/v1/namespaces/default/serviceaccounts/root/token'

    def ask(**spec):
        return do(one, path, 'POST', {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': spec})
    doc = pod(one, 'holder')
    code, got = ask(boundObjectRef={'kind': 'Pod', 'apiVersion': 'v1', 'name': 'holder', 'uid': doc['metadata']['uid']}, audiences=['a', 'b'], expirationSeconds=700)
    said = claims(got['status']['token'])
    assert code == 201 and said['aud'] == ['a', 'b'] and said['exp'] - said['iat'] == 700
    assert said['kubernetes.io']['pod'] == {'name': 'holder', 'uid': doc['metadata']['uid']}
    code, got = ask(boundObjectRef={'kind': 'Pod', 'apiVersion': 'v1', 'name': 'holder'}, expirationSeconds=3607)
    said = claims(got['status']['token'])
    assert code == 201 and said['exp'] - said['iat'] == 365 * 86400 and said['kubernetes.io']['warnafter'] - said['iat'] == 3607
    assert ask(expirationSeconds=599)[0] == 422 and ask(expirationSeconds=2 ** 32 + 1)[0] == 422
    assert ask(boundObjectRef={'kind': 'Pod', 'apiVersion': 'v1', 'name': 'holder', 'uid': 'other'})[0] == 409
    assert ask(boundObjectRef={'kind': 'Pod', 'apiVersion': 'v1', 'name': 'nobody'})[0] == 404
    code, got = ask(boundObjectRef={'kind': 'ConfigMap', 'apiVersion': 'v1', 'name': 'x'})
    assert code == 400 and got['message'] == 'cannot bind token to object of type /v1, Kind=ConfigMap'
    assert ask(boundObjectRef={'kind': 'Pod', 'apiVersion': 'apps/v1', 'name': 'holder'})[0] == 400
    code, got = do(one, path, 'POST', {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'metadata': {'name': 'other'}, 'spec': {}})
    assert code == 422 and got['details']['causes'][0]['field'] == 'metadata.name'


def test_ephemeral_containers_and_resize(one):
    pod(one, 'live')
    path = f'{PODS}/live/ephemeralcontainers'
    patch = {'content-type': 'application/strategic-merge-patch+json'}
    code, doc = do(one, path, 'PATCH', {'spec': {'ephemeralContainers': [{'name': 'debug', 'image': 'd', 'targetContainerName': 'c'}]}}, **patch)
    assert code == 200 and doc['spec']['ephemeralContainers'][0]['name'] == 'debug' and doc['spec']['ephemeralContainers'][0]['imagePullPolicy'] == 'Always'
    assert do(one, path, 'PATCH', {'spec': {'ephemeralContainers': [{'name': 'debug', 'image': 'other'}]}}, **patch)[0] == 422      # they stay as they are
    assert do(one, path, 'PATCH', {'spec': {'ephemeralContainers': [{'name': 'c', 'image': 'd'}]}}, **patch)[0] == 422              # the name is taken
    assert do(one, path, 'PATCH', {'spec': {'ephemeralContainers': [{'name': 'x', 'image': 'd', 'ports': [{'containerPort': 1}]}]}}, **patch)[0] == 422
    path = f'{PODS}/live/resize'
    code, doc = do(one, path, 'PATCH', {'spec': {'containers': [{'name': 'c', 'resources': {'requests': {'cpu': '200m'}}}]}}, **patch)
    assert code == 200 and doc['spec']['containers'][0]['resources']['requests']['cpu'] == '200m'
    code, doc = do(one, path, 'PATCH', {'spec': {'containers': [{'name': 'c', 'image': 'other'}], 'nodeName': 'n'}}, **patch)       # nothing else changes
    assert code == 200 and doc['spec']['containers'][0]['image'] == 'i' and 'nodeName' not in doc['spec'] and doc['metadata']['generation'] == 3
    assert do(one, path, 'PATCH', {'spec': {'containers': [{'name': 'c', 'resources': {'requests': {'cpu': '1'}, 'limits': {'memory': '1Mi', 'cpu': '1'}}}]}}, **patch)[0] == 422  # another class of service
    assert do(one, path, 'PATCH', [{'op': 'remove', 'path': '/spec/containers/0/resources/limits'}], **{'content-type': 'application/json-patch+json'})[0] == 422
    assert do(one, path, 'PATCH', [{'op': 'replace', 'path': '/spec/containers/0/name', 'value': 'z'}], **{'content-type': 'application/json-patch+json'})[0] == 422
    assert do(one, f'{PODS}/live', 'PATCH', {'spec': {'containers': [{'name': 'c', 'resources': {'requests': {'cpu': '300m'}}}]}}, **patch)[0] == 422


def test_events_in_both_versions(one):
    about = {'kind': 'Pod', 'namespace': 'default', 'name': 'p'}
    new = {'apiVersion': 'events.k8s.io/v1', 'kind': 'Event', 'metadata': {'name': 'n'}, 'eventTime': '2026-01-01T00:00:00.000001Z', 'reportingController': 'x.io/c',
           'reportingInstance': 'i', 'action': 'Did', 'reason': 'Because', 'regarding': about, 'note': 'so it is', 'type': 'Normal', 'series': {'count': 2, 'lastObservedTime': '2026-01-01T00:00:01.000002Z'}}
    code, doc = do(one, '/apis/events.k8s.io/v1/namespaces/default/events', 'POST', new)
    assert code == 201, doc
    old = do(one, '/api/v1/namespaces/default/events/n')[1]
    assert old['involvedObject'] == about and old['message'] == 'so it is' and old['reportingComponent'] == 'x.io/c' and old['series']['count'] == 2
    core = {'apiVersion': 'v1', 'kind': 'Event', 'metadata': {'name': 'o'}, 'involvedObject': about, 'reason': 'R', 'message': 'm', 'type': 'Warning', 'count': 3,
            'source': {'component': 'k', 'host': 'h'}, 'firstTimestamp': '2026-01-01T00:00:00Z', 'lastTimestamp': '2026-01-01T00:00:05Z'}
    assert do(one, '/api/v1/namespaces/default/events', 'POST', core)[0] == 201
    new = do(one, '/apis/events.k8s.io/v1/namespaces/default/events/o')[1]
    assert new['regarding'] == about and new['note'] == 'm' and new['deprecatedCount'] == 3 and new['deprecatedSource'] == {'component': 'k', 'host': 'h'}
    assert new['deprecatedFirstTimestamp'] == '2026-01-01T00:00:00Z' and new['deprecatedLastTimestamp'] == '2026-01-01T00:00:05Z'


def test_scale_of_custom_resources(one):
    crd = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': 'racks.sub.example.com'}, 'spec': {
        'group': 'sub.example.com', 'scope': 'Namespaced', 'names': {'plural': 'racks', 'singular': 'rack', 'kind': 'Rack', 'listKind': 'RackList'}, 'versions': [{
            'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}},
            'subresources': {'status': {}, 'scale': {'specReplicasPath': '.spec.size', 'statusReplicasPath': '.status.size', 'labelSelectorPath': '.status.which'}}}]}}
    assert do(one, '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', 'POST', crd)[0] == 201
    path = '/apis/sub.example.com/v1/namespaces/default/racks'
    eventually(lambda: do(one, path, 'POST', {'apiVersion': 'sub.example.com/v1', 'kind': 'Rack', 'metadata': {'name': 'r'}, 'spec': {'size': 2, 'other': 1}, 'status': {'size': 7}})[0] == 201)
    doc = do(one, f'{path}/r')[1]
    assert 'status' not in doc and doc['metadata']['generation'] == 1                      # status is not the creator's to set
    code, doc = do(one, f'{path}/r/status', 'PUT', {**doc, 'spec': {'size': 99}, 'status': {'size': 1, 'which': 'a=b'}})
    assert code == 200 and doc['spec'] == {'size': 2, 'other': 1} and doc['metadata']['generation'] == 1
    code, scale = do(one, f'{path}/r/scale')
    assert code == 200 and scale['kind'] == 'Scale' and scale['spec'] == {'replicas': 2} and scale['status'] == {'replicas': 1, 'selector': 'a=b'}
    code, scale = do(one, f'{path}/r/scale', 'PUT', {**scale, 'spec': {'replicas': 5}})
    assert code == 200 and scale['spec'] == {'replicas': 5}
    doc = do(one, f'{path}/r')[1]
    assert doc['spec'] == {'size': 5, 'other': 1} and doc['metadata']['generation'] == 2 and doc['status'] == {'size': 1, 'which': 'a=b'}
    assert do(one, f'{path}/r/scale', 'PUT', {**scale, 'metadata': {**scale['metadata'], 'resourceVersion': '1'}, 'spec': {'replicas': 6}})[0] == 409
    assert do(one, f'{path}/r/scale', 'PATCH', {'spec': {'replicas': -1}}, **{'content-type': 'application/merge-patch+json'})[0] == 422
    assert do(one, f'{path}/r', 'PATCH', {'spec': {'size': None}}, **{'content-type': 'application/merge-patch+json'})[0] == 200
    code, said = do(one, f'{path}/r/scale')
    assert code == 500 and 'does not exist' in said['message']
    assert do(one, f'{path}/r/scale', 'PATCH', {'spec': {'replicas': 3}}, **{'content-type': 'application/merge-patch+json'})[0] == 200
    assert do(one, f'{path}/r')[1]['spec']['size'] == 3


def test_scale_by_paths_that_lead_nowhere(one):
    """A definition's paths are texts of somebody's, and an object may have a list where they want a map."""
    for n, (where, spec) in enumerate({'.spec.lot.size': {'lot': [1]}, '.spec.lot[': {'lot': 1}, '.spec.none[0].size': {}}.items()):
        crd = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': f'lots{n}.sub.example.com'}, 'spec': {
            'group': 'sub.example.com', 'scope': 'Namespaced', 'names': {'plural': f'lots{n}', 'singular': f'lot{n}', 'kind': f'Lot{n}', 'listKind': f'Lot{n}List'}, 'versions': [{
                'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}},
                'subresources': {'scale': {'specReplicasPath': where, 'statusReplicasPath': '.status.size[', 'labelSelectorPath': '.status.which['}}}]}}
        assert do(one, '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', 'POST', crd)[0] == 201
        path = f'/apis/sub.example.com/v1/namespaces/default/lots{n}'
        eventually(lambda: do(one, path, 'POST', {'apiVersion': 'sub.example.com/v1', 'kind': f'Lot{n}', 'metadata': {'name': 'r'}, 'spec': spec})[0] == 201)
        assert do(one, f'{path}/r/scale')[0] == 500
        code, said = do(one, f'{path}/r/scale', 'PATCH', {'spec': {'replicas': 3}}, **{'content-type': 'application/merge-patch+json'})
        assert code >= 400 and 'cannot be set' in said['message'], said
        assert do(one, f'{path}/r')[1]['spec'] == spec
