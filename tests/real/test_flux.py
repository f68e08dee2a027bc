"""Flux's source-controller and kustomize-controller, unchanged (make real-operators builds them), against the API and the S3 door:
a Bucket is fetched, a Kustomization applies what is in it, keeps it so, and prunes what is gone.
"""
import glob, json, os, subprocess, time

import pytest

from conftest import TOP, eventually

TOOLS = os.path.join(TOP, 'build', 'tools')
NAMES = ('source-controller', 'kustomize-controller')


def crds():
    """The definitions that the controllers' own modules bring."""
    found = []
    for name in NAMES:
        version = open(os.path.join(TOOLS, f'.{name}.stamp')).read().split()[1]
        where = subprocess.run(['go', 'mod', 'download', '-json', f'github.com/fluxcd/{name}@{version}'], stdout=subprocess.PIPE, text=True, check=True, cwd='/')
        found += sorted(glob.glob(os.path.join(json.loads(where.stdout)['Dir'], 'config', 'crd', 'bases', '*.yaml')))
    return found


@pytest.fixture(scope='module')
def flux(tandem, tmp_path_factory):
    missing = [n for n in NAMES if not os.path.exists(os.path.join(TOOLS, n))]
    if missing:
        pytest.skip(f'{", ".join(missing)} not built: make real-operators builds them (minutes)')
    folder = tmp_path_factory.mktemp('flux')
    for path in crds():
        tandem.kubectl('apply', '--server-side', '-f', path)
    tandem.kubectl('wait', '--for=condition=Established', 'crd', '--all', '--timeout=90s')
    tandem.kubectl('create', 'namespace', 'flux-system')
    env = {**os.environ, 'KUBECONFIG': os.path.join(tandem.state, 'kubeconfig'), 'RUNTIME_NAMESPACE': 'flux-system', 'HOME': str(folder)}
    common = ['--log-level=info', '--watch-all-namespaces']      # out of a cluster they cannot elect: no namespace of their own
    started = []

    def start(name, n, *words):
        log = open(folder / (name + '.log'), 'w')
        started.append(subprocess.Popen([os.path.join(TOOLS, name), *common, f'--metrics-addr=127.0.0.1:{19000 + n}', f'--health-addr=127.0.0.1:{19010 + n}', *words],
                                        stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=folder))
    (folder / 'data').mkdir()
    start('source-controller', 1, f'--storage-path={folder / "data"}', '--storage-addr=127.0.0.1:19020', '--storage-adv-addr=127.0.0.1:19020')
    start('kustomize-controller', 2)
    try:
        yield tandem
        assert all(p.poll() is None for p in started), 'a controller ended by itself'
    finally:
        for p in started:
            p.terminate()
        for p in started:
            p.wait(20)
        for name in NAMES:
            print(f'--- {name}\n' + ''.join(open(folder / (name + '.log')).readlines()[-40:]))
        tandem.kubectl('delete', 'namespace', 'flux-system', 'app', '--ignore-not-found', '--wait=false')


def condition(flux, kind, name):
    for c in flux.get('-n', 'flux-system', kind, name).get('status', {}).get('conditions', []):
        if c['type'] == 'Ready':
            return c['status'], c['reason'], c['message']
    return '', '', ''


def manifest(text, replicas):
    return f'''apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data: {{text: "{text}"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: c, image: "none:1"}}]}}
'''


def test_a_bucket_is_applied_kept_and_pruned(flux):
    s3 = flux.boto('s3')
    s3.create_bucket(Bucket='flux-config')
    s3.put_object(Bucket='flux-config', Key='app/app.yaml', Body=manifest('one', 0).encode())
    s3.put_object(Bucket='flux-config', Key='app/extra.yaml', Body=b'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n')
    flux.kubectl('create', 'namespace', 'app')
    flux.kubectl('-n', 'flux-system', 'create', 'secret', 'generic', 'keys', '--from-literal=accesskey=' + flux.key['AccessKeyId'],
                 '--from-literal=secretkey=' + flux.key['SecretAccessKey'])
    flux.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [
        {'apiVersion': 'source.toolkit.fluxcd.io/v1', 'kind': 'Bucket', 'metadata': {'name': 'config', 'namespace': 'flux-system'},
         'spec': {'interval': '10m', 'provider': 'generic', 'bucketName': 'flux-config', 'endpoint': flux.status['aws'].split('//')[1], 'region': 'us-east-1',
                  'insecure': True, 'secretRef': {'name': 'keys'}}},
        {'apiVersion': 'kustomize.toolkit.fluxcd.io/v1', 'kind': 'Kustomization', 'metadata': {'name': 'app', 'namespace': 'flux-system'},
         'spec': {'interval': '10m', 'retryInterval': '2s', 'path': './app', 'prune': True, 'wait': True, 'timeout': '30s', 'targetNamespace': 'app',
                  'sourceRef': {'kind': 'Bucket', 'name': 'config'}}}]}))
    eventually(lambda: condition(flux, 'bucket', 'config')[0] == 'True', 30)
    eventually(lambda: condition(flux, 'kustomization', 'app')[0] == 'True', 40)
    assert flux.get('-n', 'app', 'configmap', 'words')['data'] == {'text': 'one'}
    assert flux.get('-n', 'app', 'configmap', 'extra')
    status = flux.get('-n', 'flux-system', 'kustomization', 'app')['status']
    assert len(status['inventory']['entries']) == 3 and status['lastAppliedRevision'] == flux.get('-n', 'flux-system', 'bucket', 'config')['status']['artifact']['revision']
    managers = json.loads(flux.kubectl('-n', 'app', 'get', 'configmap', 'words', '-o', 'json', '--show-managed-fields').stdout)['metadata']['managedFields']
    assert [(m['manager'], m['operation']) for m in managers] == [('kustomize-controller', 'Apply')]

    # what somebody changes by hand is put back with the next run; a new revision is applied; what is gone is pruned
    flux.kubectl('-n', 'app', 'patch', 'configmap', 'words', '--type=merge', '-p', '{"data":{"text":"mine"}}')
    s3.put_object(Bucket='flux-config', Key='app/app.yaml', Body=manifest('two', 0).encode())
    s3.delete_object(Bucket='flux-config', Key='app/extra.yaml')
    now = f'reconcile.fluxcd.io/requestedAt={time.time()}'
    flux.kubectl('-n', 'flux-system', 'annotate', '--overwrite', 'bucket/config', now)
    eventually(lambda: flux.get('-n', 'app', 'configmap', 'words')['data'] == {'text': 'two'}, 40)
    eventually(lambda: flux.kubectl('-n', 'app', 'get', 'configmap', 'extra', check=False).returncode != 0, 40)
    eventually(lambda: condition(flux, 'kustomization', 'app')[0] == 'True', 30)
    assert 'ReconciliationSucceeded' in flux.kubectl('-n', 'flux-system', 'events', '--for', 'kustomization/app').stdout

    # the finalizer's work: with the Kustomization goes what it applied
    flux.kubectl('-n', 'flux-system', 'delete', 'kustomization', 'app', '--timeout=40s')
    assert flux.kubectl('-n', 'app', 'get', 'configmap', 'words', check=False).returncode != 0
    assert flux.kubectl('-n', 'app', 'get', 'deployment', 'web', check=False).returncode != 0
    flux.kubectl('-n', 'flux-system', 'delete', 'bucket', 'config', '--timeout=30s')
