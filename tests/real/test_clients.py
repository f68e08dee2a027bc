"""Client libraries as their users use them: client-go (tests/real/clientgo, protobuf) and the Python client."""
import os, subprocess, threading, uuid

import pytest

from conftest import TOP, eventually


def test_client_go(tandem):
    """Typed objects in protobuf, apply, informers by watch-list, metadata informers, custom resources, OpenAPI in protobuf, election, pages."""
    made = subprocess.run([os.path.join(TOP, 'tools', 'go-tools'), 'clientgo'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        pytest.skip('tests/real/clientgo is not built: ' + made.stdout.strip()[-300:])
    done = subprocess.run([os.path.join(TOP, 'build', 'tools', 'clientgo'), os.path.join(tandem.state, 'kubeconfig')], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count('ok ') == 8, done.stdout


@pytest.fixture(scope='module')
def python(tandem):
    import kubernetes
    kubernetes.config.load_kube_config(os.path.join(tandem.state, 'kubeconfig'))
    kubernetes.client.CoreV1Api().create_namespace({'metadata': {'name': 'python'}})
    yield kubernetes
    kubernetes.client.CoreV1Api().delete_namespace('python')


def test_python_objects_and_watch(python):
    core, apps = python.client.CoreV1Api(), python.client.AppsV1Api()
    seen, revision = [], core.list_namespaced_config_map('python').metadata.resource_version
    watching = python.watch.Watch()

    def follow():
        for event in watching.stream(core.list_namespaced_config_map, 'python', resource_version=revision, timeout_seconds=90):
            if event['object'].metadata.name == 'w':
                seen.append((event['type'], (event['object'].data or {}).get('n')))
                if event['type'] == 'DELETED':
                    return
    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map('python', {'metadata': {'name': 'w'}, 'data': {'n': '1'}})
    core.patch_namespaced_config_map('w', 'python', {'data': {'n': '2'}})                      # a strategic merge
    core.patch_namespaced_config_map('w', 'python', [{'op': 'replace', 'path': '/data/n', 'value': '3'}])
    core.delete_namespaced_config_map('w', 'python')
    thread.join(90)
    assert seen == [('ADDED', '1'), ('MODIFIED', '2'), ('MODIFIED', '3'), ('DELETED', '3')]

    with pytest.raises(python.client.ApiException) as refused:
        core.read_namespaced_config_map('none', 'python')
    assert refused.value.status == 404 and '"reason":"NotFound"' in refused.value.body
    spec = {'selector': {'matchLabels': {'a': 'b'}}, 'replicas': 0, 'template': {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'none:1'}]}}}
    apps.create_namespaced_deployment('python', {'metadata': {'name': 'd'}, 'spec': spec})
    apps.patch_namespaced_deployment_scale('d', 'python', {'spec': {'replicas': 0}})
    eventually(lambda: apps.read_namespaced_deployment_status('d', 'python').status.observed_generation, 10)


def test_python_dynamic_client_applies_its_own_kind(python):
    """Discovery of a kind that has just come, apply from the server's side, a conflict."""
    from kubernetes import dynamic
    kind = 'Py' + uuid.uuid4().hex[:6]
    name = kind.lower() + 's.python.test'
    api = python.client.ApiextensionsV1Api()
    api.create_custom_resource_definition({'metadata': {'name': name}, 'spec': {
        'group': 'python.test', 'scope': 'Namespaced', 'names': {'plural': kind.lower() + 's', 'kind': kind},
        'versions': [{'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': {'type': 'object', 'properties': {
            'spec': {'type': 'object', 'properties': {'list': {'type': 'array', 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['k'], 'items': {
                'type': 'object', 'required': ['k'], 'properties': {'k': {'type': 'string'}, 'v': {'type': 'integer'}}}}}}}}}}]}})
    try:
        eventually(lambda: any(c.type == 'Established' and c.status == 'True' for c in api.read_custom_resource_definition(name).status.conditions or []), 10)
        client = dynamic.DynamicClient(python.client.ApiClient())
        things = eventually(lambda: client.resources.get(api_version='python.test/v1', kind=kind), 10)

        def apply(manager, *items, force=False):
            body = {'apiVersion': 'python.test/v1', 'kind': kind, 'metadata': {'name': 'x', 'namespace': 'python'}, 'spec': {'list': list(items)}}
            return things.server_side_apply(body=body, namespace='python', field_manager=manager, force_conflicts=force).to_dict()['spec']['list']
        assert apply('one', {'k': 'a', 'v': 1}) == [{'k': 'a', 'v': 1}]
        assert apply('two', {'k': 'b', 'v': 2}) == [{'k': 'a', 'v': 1}, {'k': 'b', 'v': 2}]       # items by their key, each its own manager's
        with pytest.raises(dynamic.exceptions.ConflictError):
            apply('two', {'k': 'a', 'v': 9}, {'k': 'b', 'v': 2})
        assert apply('two', {'k': 'a', 'v': 9}, {'k': 'b', 'v': 2}, force=True)[0] == {'k': 'a', 'v': 9}
        assert apply('two', {'k': 'b', 'v': 2}) == [{'k': 'a'}, {'k': 'b', 'v': 2}]               # given up by both but for the key
    finally:
        api.delete_custom_resource_definition(name)
