"""helm 4, built from its Go module (tools/go-tools helm): a release of examples/chart from install to uninstall.

Everything helm does is asked of the cluster, too: what it applied, who manages it, what a rollback brought back.
"""
import io, json, os, shutil, subprocess, tarfile

import pytest

from conftest import TOP, eventually

HELM = os.path.join(TOP, 'build', 'tools', 'helm')
CHART = os.path.join(TOP, 'examples', 'chart')


@pytest.fixture(scope='module')
def helm(tandem, tmp_path_factory):
    """helm(WORDS) in the namespace `helm`, with an image of busybox alone."""
    made = subprocess.run([os.path.join(TOP, 'tools', 'go-tools'), 'helm'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        pytest.skip('helm is not built: ' + made.stdout.strip()[-200:])
    folder = tmp_path_factory.mktemp('helm')
    path = folder / 'small.tar'
    with tarfile.open(path, 'w') as tar:
        def add(name, data=b'', **fields):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
        for name in ('bin', 'etc', 'tmp'):
            add(name, type=tarfile.DIRTYPE, mode=0o755)
        add('bin/busybox', open('/bin/busybox', 'rb').read(), mode=0o755)
        for name in 'sh cat echo httpd wget grep test sleep'.split():
            add('bin/' + name, type=tarfile.SYMTYPE, linkname='busybox')
    tandem.tandem('image', 'import', '--name', 'helm-small:1', '--cmd', '["sh"]', str(path))
    tandem.kubectl('create', 'namespace', 'helm')
    env = {**os.environ, 'KUBECONFIG': os.path.join(tandem.state, 'kubeconfig'), 'HELM_NAMESPACE': 'helm'}
    for name in ('CACHE', 'CONFIG', 'DATA'):
        env[f'HELM_{name}_HOME'] = str(folder / name.lower())

    def run(*words, check=True):
        done = subprocess.run([HELM, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env, timeout=300)
        if check and done.returncode:
            raise AssertionError(f'helm {" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}\n'
                                 + tandem.kubectl('-n', 'helm', 'get', 'pods,jobs,events', '-o', 'wide').stdout)
        return done
    run.k = lambda *words, **more: tandem.kubectl('-n', 'helm', *words, **more)
    run.get = lambda *words: tandem.get('-n', 'helm', *words)
    yield run
    run('uninstall', 'hello', check=False)
    tandem.kubectl('delete', 'namespace', 'helm', '--wait=true', '--timeout=150s', timeout=180)
    tandem.kubectl('delete', 'crd', 'greetings.example.tandem.dev', '--ignore-not-found')


def words(helm):
    """What the release says, in all places."""
    return (helm.get('greeting', 'hello')['spec']['words'], helm.get('configmap', 'hello-pages')['data']['index.html'].split()[0],
            helm.get('deployment', 'hello')['spec']['replicas'])


def test_a_release_from_install_to_uninstall(helm):
    helm('lint', CHART, '--set', 'image=helm-small:1')
    assert 'CustomResourceDefinition' not in helm('install', 'dry', CHART, '--dry-run=server', '--skip-crds', check=False).stdout

    # install: the CRD first, then the hook's Job to its end, then all else, until it is ready
    helm('install', 'hello', CHART, '--set', 'image=helm-small:1', '--wait', '--timeout', '240s')
    assert words(helm) == ('Hello', 'Hello', 1)
    assert helm.get('job', 'hello-prepare')['status'].get('succeeded') == 1
    assert helm.get('deployment', 'hello')['status']['readyReplicas'] == 1
    assert json.loads(helm('list', '-o', 'json').stdout)[0]['status'] == 'deployed'
    # helm 4 applies from the server's side, as a manager of its own name
    managers = {(m['manager'], m['operation']) for m in json.loads(helm.k('get', 'configmap', 'hello-pages', '-o', 'json', '--show-managed-fields').stdout)['metadata']['managedFields']}
    assert ('helm', 'Apply') in managers, managers
    assert 'hello' in helm.k('get', 'grt').stdout                    # columns of the chart's own kind

    # upgrade
    helm('upgrade', 'hello', CHART, '--set', 'image=helm-small:1,greeting=Moin,replicas=2', '--wait', '--timeout', '240s')
    assert words(helm) == ('Moin', 'Moin', 2)
    assert helm.get('deployment', 'hello')['status']['readyReplicas'] == 2
    assert helm.get('greeting', 'hello')['metadata']['generation'] == 2

    # its own test, from a pod through the service
    tested = helm('test', 'hello', '--timeout', '240s')
    assert 'Succeeded' in tested.stdout

    # somebody else's field stays, helm's own is taken back
    helm.k('label', 'configmap', 'hello-pages', 'mine=yes')
    helm.k('scale', 'deployment', 'hello', '--replicas=1')
    conflict = helm('upgrade', 'hello', CHART, '--set', 'image=helm-small:1,greeting=Moin,replicas=2', check=False)
    assert conflict.returncode and 'conflict' in conflict.stderr and '.spec.replicas' in conflict.stderr, conflict.stderr
    helm('upgrade', 'hello', CHART, '--set', 'image=helm-small:1,greeting=Moin,replicas=2', '--force-conflicts', '--wait', '--timeout', '240s')
    assert words(helm) == ('Moin', 'Moin', 2)
    assert helm.get('configmap', 'hello-pages')['metadata']['labels']['mine'] == 'yes'

    # rollback
    helm('rollback', 'hello', '1', '--wait', '--timeout', '240s')
    assert words(helm) == ('Hello', 'Hello', 1)
    history = json.loads(helm('history', 'hello', '-o', 'json').stdout)
    assert [h['status'] for h in history][-1] == 'deployed' and 'Rollback to 1' in history[-1]['description']

    # uninstall: nothing stays but the CRD
    helm('uninstall', 'hello', '--wait', '--timeout', '240s')
    eventually(lambda: not helm.get('all,configmap,secret,role,rolebinding,greetings', '-l', 'app.kubernetes.io/instance=hello,!helm.sh/hook')['items']
               or set(o['kind'] for o in helm.get('all,configmap,secret,role,rolebinding,greetings', '-l', 'app.kubernetes.io/instance=hello')['items']) <= {'Job', 'Pod'}, 30)
    assert helm.k('get', 'crd', 'greetings.example.tandem.dev', '-o', 'name').stdout.strip()


def test_a_chart_that_cannot_be_is_refused_whole(helm):
    bad = helm('install', 'bad', CHART, '--set', 'image=helm-small:1,greeting=,replicas=-1', '--skip-crds', '--no-hooks', check=False)
    assert bad.returncode and ('replicas' in bad.stderr or 'words' in bad.stderr), bad.stderr
    helm('uninstall', 'bad', check=False)


def test_a_release_by_client_side_apply_still_works(helm):
    """As helm 3 does it: three-way merges of the client."""
    helm('install', 'old', CHART, '--set', 'image=helm-small:1', '--server-side=false', '--no-hooks', '--wait', '--timeout', '240s')
    helm('upgrade', 'old', CHART, '--set', 'image=helm-small:1,greeting=Servus', '--server-side=false', '--no-hooks', '--wait', '--timeout', '240s')
    assert helm.get('greeting', 'old')['spec']['words'] == 'Servus'
    helm('upgrade', 'old', CHART, '--set', 'image=helm-small:1,greeting=Tach', '--server-side=true', '--force-conflicts', '--no-hooks')
    assert helm.get('greeting', 'old')['spec']['words'] == 'Tach'
    helm('uninstall', 'old', '--no-hooks')
