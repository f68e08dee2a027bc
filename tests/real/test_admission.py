"""Quotas, limits and Pod Security as a kubectl user meets them."""
import concurrent.futures, json, re

import pytest

from conftest import eventually

POD = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p'},
       'spec': {'schedulingGates': [{'name': 'tests.example.com/never'}], 'containers': [{'name': 'c1', 'image': 'none.invalid/x'}]}}


def pod(name, **container):
    p = json.loads(json.dumps(POD))
    p['metadata']['name'] = name
    p['spec']['containers'][0].update(container)
    return p


@pytest.fixture
def ns(tandem, request):
    name = re.sub(r'[^a-z0-9]+', '-', request.node.name)[:60].strip('-')
    tandem.kubectl('create', 'namespace', name)
    eventually(lambda: tandem.get('serviceaccount', 'default', '-n', name))

    def create(what, check=False):
        return tandem.kubectl('create', '-n', name, '-f', '-', text=json.dumps(what), check=check)
    create.name = name
    yield create
    tandem.kubectl('delete', 'namespace', name, '--wait=false')


def test_fifty_at_once_and_a_quota_of_ten(tandem, ns):
    tandem.kubectl('create', 'quota', 'q', '--hard=pods=10,requests.cpu=5', '-n', ns.name)
    used = lambda: tandem.get('quota', 'q', '-n', ns.name).get('status', {}).get('used')
    eventually(used)
    missing = ns(pod('bare'))
    assert missing.returncode and 'failed quota: q: must specify requests.cpu for: c1' in missing.stderr
    few = {'resources': {'requests': {'cpu': '100m'}}}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda i: ns(pod(f'p{i}', **few)), range(50)))
    assert sum(d.returncode == 0 for d in done) == 10
    refused = [d.stderr for d in done if d.returncode]
    assert all('is forbidden: exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10' in r for r in refused), refused[0]
    assert len(tandem.get('pods', '-n', ns.name)['items']) == 10 and used() == {'pods': '10', 'requests.cpu': '1'}
    tandem.kubectl('delete', 'pods', '--all', '-n', ns.name)
    eventually(lambda: used() == {'pods': '0', 'requests.cpu': '0'})
    assert ns(pod('again', **few)).returncode == 0


def test_counts_of_any_kind(tandem, ns):
    tandem.kubectl('create', 'quota', 'q', '--hard=count/deployments.apps=1,services.nodeports=1,secrets=0', '-n', ns.name)
    eventually(lambda: tandem.get('quota', 'q', '-n', ns.name).get('status', {}).get('used'))
    k = lambda *words: tandem.kubectl('create', *words, '-n', ns.name, check=False)
    assert k('deployment', 'one', '--image=x', '--replicas=0').returncode == 0
    assert 'requested: count/deployments.apps=1' in k('deployment', 'two', '--image=x', '--replicas=0').stderr
    assert k('service', 'nodeport', 'one', '--tcp=80').returncode == 0
    assert 'requested: services.nodeports=1' in k('service', 'nodeport', 'two', '--tcp=80').stderr
    assert k('service', 'clusterip', 'three', '--tcp=80').returncode == 0
    assert 'requested: secrets=1, used: secrets=0, limited: secrets=0' in k('secret', 'generic', 's').stderr


def test_limits(tandem, ns):
    assert ns({'apiVersion': 'v1', 'kind': 'LimitRange', 'metadata': {'name': 'l'}, 'spec': {'limits': [
        {'type': 'Container', 'default': {'cpu': '500m'}, 'defaultRequest': {'cpu': '100m'}, 'max': {'cpu': '1'}, 'maxLimitRequestRatio': {'cpu': '5'}},
        {'type': 'Pod', 'max': {'cpu': '1'}}, {'type': 'PersistentVolumeClaim', 'max': {'storage': '1Gi'}}]}}).returncode == 0
    assert ns(pod('plain')).returncode == 0
    made = tandem.get('pod', 'plain', '-n', ns.name)
    assert made['spec']['containers'][0]['resources'] == {'limits': {'cpu': '500m'}, 'requests': {'cpu': '100m'}}
    assert made['metadata']['annotations']['kubernetes.io/limit-ranger'] == \
        'LimitRanger plugin set: cpu request for container c1; cpu limit for container c1'
    big = ns(pod('big', resources={'limits': {'cpu': '2'}, 'requests': {'cpu': '100m'}})).stderr
    assert '[maximum cpu usage per Container is 1, but limit is 2, cpu max limit to request ratio per Container is 5, but provided ratio is ' \
        '20.000000, maximum cpu usage per Pod is 1, but limit is 2]' in big, big
    claim = {'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'metadata': {'name': 'c'},
             'spec': {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '2Gi'}}}}
    assert 'maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi' in ns(claim).stderr


def test_pod_security_by_version(tandem, ns):
    label = lambda *words: tandem.kubectl('label', 'namespace', ns.name, '--overwrite', *words)
    host = pod('host')
    host['spec']['hostNetwork'] = True
    host['spec']['containers'][0]['ports'] = [{'containerPort': 80, 'hostPort': 80}]
    assert ns(host).returncode == 0
    warned = label('pod-security.kubernetes.io/enforce=baseline').stderr
    assert f'existing pods in namespace "{ns.name}" violate the new PodSecurity enforce level "baseline:latest"' in warned
    assert 'host: host namespaces, hostPort' in warned
    host['metadata']['name'] = 'other'
    assert 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), hostPort (container "c1" uses hostPort 80)' in ns(host).stderr
    label('pod-security.kubernetes.io/enforce=restricted', 'pod-security.kubernetes.io/enforce-version=v1.7')
    assert 'violates PodSecurity "restricted:v1.7": runAsNonRoot != true (pod or container "c1" must set' in ns(pod('plain')).stderr
    label('pod-security.kubernetes.io/enforce-version=v1.8')
    assert 'restricted:v1.8": allowPrivilegeEscalation != false (container "c1" must set' in ns(pod('plain')).stderr
    label('pod-security.kubernetes.io/enforce=privileged', 'pod-security.kubernetes.io/warn=restricted')
    assert 'Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false' in ns(pod('plain')).stderr
