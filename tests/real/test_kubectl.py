"""What a kubectl user does all day, with each kubectl that is there."""
import json, os, re, select, subprocess, tempfile, time

import pytest

from conftest import TOP, eventually

WEB = '''
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: page
        image: gallery:1
        env: [{name: PICTURES, value: /tmp}]
        ports: [{containerPort: 8000}]
'''


@pytest.fixture(scope='module', params=range(2))
def k(request, image):
    """kubectl in a namespace of its own; fails loudly on warnings."""
    if request.param >= len(image.kubectls):
        pytest.skip('kubectl 1.36 is not built (tools/kubectl 1.36)')
    ns = f'kubectl-{request.param}'
    image.kubectl('create', 'namespace', ns)

    def run(*words, check=True, **more):
        done = image.kubectl('-n', ns, *words, program=request.param, check=check, **more)
        told = [l for l in done.stderr.splitlines() if 'Warning' in l and 'previously managed with' not in l]   # kubectl's own advice on undo
        assert not told, told
        return done
    run.ns, run.instance, run.program = ns, image, request.param
    run('apply', '-f', '-', text=WEB)
    run('rollout', 'status', 'deployment/web', '--timeout=100s')
    yield run
    image.kubectl('delete', 'namespace', ns, '--wait=true', '--timeout=150s', timeout=180)


def pod(k):
    """A pod of the deployment that stays: one that an earlier roll-out is still ending will not do."""
    pods = json.loads(k('get', 'pods', '-l', 'app=web', '-o', 'json').stdout)['items']
    return next(p['metadata']['name'] for p in pods if 'deletionTimestamp' not in p['metadata'] and p['status']['phase'] == 'Running')


def test_get_in_all_forms(k):
    assert re.search(r'web-\S+\s+1/1\s+Running', k('get', 'pods').stdout)
    assert '10.42.' in k('get', 'pods', '-o', 'wide').stdout
    assert 'kind: Pod' in k('get', 'pods', '-o', 'yaml').stdout
    assert k('get', 'deploy', 'web', '-o', 'jsonpath={.status.readyReplicas}').stdout == '2'
    assert 'deployment.apps/web' in k('get', 'all').stdout


def test_describe(k):
    text = k('describe', 'deployment', 'web').stdout
    assert 'ScalingReplicaSet' in text
    eventually(lambda: all(word in k('describe', 'pod', pod(k)).stdout for word in ('Started', 'Scheduled')))


def test_create_patch_label_annotate_delete(k):
    k('create', 'configmap', 'c', '--from-literal=a=1')
    k('patch', 'configmap', 'c', '-p', '{"data":{"b":"2"}}')
    k('label', 'configmap', 'c', 'x=y')
    k('annotate', 'configmap', 'c', 'n=m')
    got = json.loads(k('get', 'configmap', 'c', '-o', 'json').stdout)
    assert got['data'] == {'a': '1', 'b': '2'} and got['metadata']['labels'] == {'x': 'y'}
    k('delete', 'configmap', 'c')
    assert 'NotFound' in k('get', 'configmap', 'c', check=False).stderr


def test_edit(k):
    k('create', 'configmap', 'edited', '--from-literal=a=before')
    os.environ['KUBE_EDITOR'] = 'sed -i s/before/after/'
    try:
        k('edit', 'configmap', 'edited')
    finally:
        del os.environ['KUBE_EDITOR']
    assert k('get', 'configmap', 'edited', '-o', 'jsonpath={.data.a}').stdout == 'after'


def test_logs_and_follow(k):
    eventually(lambda: 'listening' in k('logs', pod(k)).stdout, 20)   # it is Running before it has printed
    one = subprocess.Popen([k.instance.kubectls[k.program], '--kubeconfig', k.instance.state + '/kubeconfig', '-n', k.ns, 'logs', '-f', pod(k)],
                           stdout=subprocess.PIPE, text=True)
    try:
        assert 'listening' in one.stdout.readline()
        k('exec', pod(k), '--', '/usr/bin/python3', '-c', "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz').read()")
        assert 'healthz' in one.stdout.readline()
    finally:
        one.terminate()
        one.wait()


def test_exec_exit_code_and_stdin(k):
    assert k('exec', pod(k), '--', '/bin/sh', '-c', 'echo out; exit 7', check=False).returncode == 7
    assert k('exec', '-i', pod(k), '--', '/bin/cat', text='through\n').stdout == 'through\n'


def test_exec_with_a_terminal(k):
    import pty
    main, side = pty.openpty()
    one = subprocess.Popen([k.instance.kubectls[k.program], '--kubeconfig', k.instance.state + '/kubeconfig', '-n', k.ns, 'exec', '-it', pod(k), '--', '/bin/sh'],
                           stdin=side, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    seen, typed = b'', False
    until = time.time() + 90
    while time.time() < until and one.poll() is None:
        if select.select([main], [], [], 0.2)[0]:
            try:
                seen += os.read(main, 4096)
            except OSError:                           # the other side is closed
                break
        if not typed and seen.endswith(b'# '):        # as a person does: after the prompt
            os.write(main, b'echo $((6*7)); exit\r')
            typed = True
    if one.poll() is None:
        one.terminate()
    one.wait(60)
    os.close(main)
    assert b'42' in seen and one.returncode == 0


def test_cp_both_ways(k):
    with tempfile.TemporaryDirectory() as d:
        with open(d + '/a', 'w') as f:
            f.write('copied')
        k('cp', d + '/a', f'{pod(k)}:/tmp/a')
        k('cp', f'{pod(k)}:/tmp/a', d + '/b')
        assert open(d + '/b').read() == 'copied'


def test_port_forward(k):
    import urllib.request
    listens = 'import socket; socket.create_connection(("127.0.0.1", 8000))'     # running says nothing of that, and kubectl gives up at the first refusal
    eventually(lambda: k('exec', pod(k), '--', '/usr/bin/python3', '-c', listens, check=False).returncode == 0)
    one = subprocess.Popen([k.instance.kubectls[k.program], '--kubeconfig', k.instance.state + '/kubeconfig', '-n', k.ns, 'port-forward', pod(k), ':8000'],
                           stdout=subprocess.PIPE, text=True)
    try:
        port = re.search(r'127\.0\.0\.1:(\d+)', one.stdout.readline()).group(1)
        for _ in range(3):
            assert urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=60).read() == b'ok\n'
    finally:
        one.terminate()
        one.wait()


def test_scale_rollout_undo(k):
    k('scale', 'deployment/web', '--replicas=3')
    k('rollout', 'status', 'deployment/web', '--timeout=100s')
    k('set', 'env', 'deployment/web', 'ROUND=2')
    k('rollout', 'status', 'deployment/web', '--timeout=100s')
    assert len(k('rollout', 'history', 'deployment/web').stdout.strip().splitlines()) >= 4
    k('rollout', 'undo', 'deployment/web')
    k('rollout', 'status', 'deployment/web', '--timeout=100s')
    env = json.loads(k('get', 'deployment', 'web', '-o', 'json').stdout)['spec']['template']['spec']['containers'][0]['env']
    assert all(e['name'] != 'ROUND' for e in env)
    k('scale', 'deployment/web', '--replicas=2')
    eventually(lambda: len(k('get', 'pods', '-l', 'app=web', '-o', 'name').stdout.split()) == 2, 30)


def test_expose_and_reach_by_name(k):
    k('expose', 'deployment', 'web', '--port=80', '--target-port=8000')
    ip = k('get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIP}').stdout
    assert ip.startswith('10.96.')
    code = "import urllib.request as u; print(u.urlopen('http://%s/healthz', timeout=20).read())"
    eventually(lambda: 'ok' in k('exec', pod(k), '--', '/usr/bin/python3', '-c', code % ip).stdout, 20)
    for name in (f'web.{k.ns}.svc.cluster.local', 'web'):
        eventually(lambda: 'ok' in k('exec', pod(k), '--', '/usr/bin/python3', '-c', code % name).stdout)


def test_run_to_completion_and_wait(k):
    k('run', 'once', '--image=gallery:1', '--restart=Never', '--command', '--', '/bin/sh', '-c', 'echo done; exit 0')
    k('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/once', '--timeout=90s')
    assert k('logs', 'once').stdout == 'done\n'


def test_job(k):
    k('create', 'job', 'j', '--image=gallery:1', '--', '/bin/sh', '-c', 'echo job')
    k('wait', '--for=condition=complete', 'job/j', '--timeout=90s')
    assert k('logs', 'job/j').stdout == 'job\n'
    k('delete', 'job', 'j')
    eventually(lambda: 'No resources' in k('get', 'pods', '-l', 'job-name=j').stderr, 20)


def test_explain_api_resources_can_i(k):
    assert 'replicas' in k('explain', 'deployment.spec').stdout
    text = k('api-resources').stdout
    assert 'deployments' in text and 'functions' in text
    assert k('auth', 'can-i', 'create', 'pods').stdout.strip() == 'yes'
    done = k('auth', 'can-i', 'create', 'pods', '--as=system:serviceaccount:default:default', check=False)
    assert done.stdout.strip() == 'no' and done.returncode == 1


def test_create_token_and_use_it(k):
    k('create', 'serviceaccount', 'robot')
    k('create', 'rolebinding', 'robot', '--clusterrole=view', f'--serviceaccount={k.ns}:robot')
    token = k('create', 'token', 'robot').stdout.strip()
    assert token.count('.') == 2
    server = k('config', 'view', '-o', 'jsonpath={.clusters[0].cluster.server}').stdout
    words = [k.instance.kubectls[k.program], '--kubeconfig=/dev/null', '--server', server, '--insecure-skip-tls-verify', '--token', token, '-n', k.ns]
    assert 'web' in subprocess.run([*words, 'get', 'pods'], text=True, capture_output=True).stdout
    assert 'Forbidden' in subprocess.run([*words, 'delete', 'deployment', 'web'], text=True, capture_output=True).stderr


def test_watch_sees_a_change(k):
    one = subprocess.Popen([k.instance.kubectls[k.program], '--kubeconfig', k.instance.state + '/kubeconfig', '-n', k.ns, 'get', 'configmap', '-w', '-o', 'name'],
                           stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        k('create', 'configmap', 'watched')
        for line in one.stdout:
            if 'watched' in line:
                break
        else:
            raise AssertionError('the watch ended')
    finally:
        one.terminate()
        one.wait()


def test_bad_manifests_are_refused_with_causes(k):
    bad = WEB.replace('image: gallery:1', 'imagee: x').replace('{name: web}', '{name: bad}')
    done = k.instance.kubectl('-n', k.ns, 'apply', '-f', '-', text=bad, check=False, program=k.program)
    assert done.returncode == 1 and 'unknown field "spec.template.spec.containers[0].imagee"' in done.stderr
    done = k('create', 'deployment', 'UPPER', '--image=x', check=False)
    assert done.returncode == 1 and 'metadata.name' in done.stderr
