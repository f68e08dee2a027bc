"""kill -9 of each process under load, and a restart of everything: nothing acknowledged is lost, nothing that runs stops."""
import json, os, signal, subprocess, threading, time

import pytest

from conftest import TOP, eventually, running


class Load:
    """Creates ConfigMaps as fast as it can; knows which were acknowledged."""

    def __init__(self, one):
        import kubernetes
        self.api = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(os.path.join(one.state, 'kubeconfig')))
        self.acknowledged, self.stop, self.n = [], False, 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop:
            name = f'load-{id(self)}-{self.n}'
            self.n += 1
            try:
                self.api.create_namespaced_config_map('default', {'metadata': {'name': name}, 'data': {'n': str(self.n)}}, _request_timeout=5)
                self.acknowledged.append(name)
            except Exception:
                time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()


def container_pids(one):
    """The pods' containers as the host sees them."""
    return one.pids(command=b'/app/page.py')


@pytest.mark.parametrize('part', ['server', 'node', 'gateway'])
def test_kill_9_of_a_part_under_load(gallery, part):
    before = container_pids(gallery)
    assert before
    with Load(gallery) as load:
        eventually(lambda: len(load.acknowledged) > 50, 30)
        gallery.kill(part)
        count = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > count + 50, 30)
    have = {c['metadata']['name'] for c in gallery.get('configmaps')['items']}
    assert not set(load.acknowledged) - have
    assert container_pids(gallery) >= before, 'a container was stopped'
    eventually(lambda: gallery.get('nodes')['items'][0]['status']['conditions'][-1]['status'] == 'True', 30)
    # and everything still works
    pod = gallery.get('pods', '-l', 'app=gallery')['items'][0]['metadata']['name']
    eventually(lambda: gallery.kubectl('exec', pod, '--', '/bin/sh', '-c', 'echo alive').stdout == 'alive\n', 30)
    eventually(lambda: gallery.boto('lambda').invoke(FunctionName='thumbnail', Payload=json.dumps({'Records': []}))['StatusCode'] == 200, 30)
    load.api.delete_collection_namespaced_config_map('default')      # thousands: one call, not one each


def test_an_accepted_event_survives_kill_9_of_the_gateway(gallery):
    client = gallery.boto('lambda')
    for i in range(20):
        assert client.invoke(FunctionName='thumbnail', InvocationType='Event', Payload=json.dumps({'Records': [], 'n': i}))['StatusCode'] == 202
    before = served(gallery)
    gallery.kill('gateway')
    eventually(lambda: served(gallery) >= 20, 60, every=0.5)


def served(one):
    text = one.tandem('logs', 'thumbnail').stdout
    return text.count('REPORT RequestId')


def test_kill_9_of_a_container_restarts_it(gallery):
    def restarts():
        return sum(p['status']['containerStatuses'][0]['restartCount'] for p in gallery.get('pods', '-l', 'app=gallery')['items'])
    before, count = container_pids(gallery), restarts()
    victim = sorted(before)[0]
    os.kill(int(victim), signal.SIGKILL)
    eventually(lambda: len(container_pids(gallery) - before) == 1, 30)
    eventually(lambda: restarts() == count + 1, 30)
    eventually(lambda: all(p['status']['containerStatuses'][0]['ready'] for p in gallery.get('pods', '-l', 'app=gallery')['items']), 30)


def test_restart_of_everything_stops_nothing(gallery):
    before = container_pids(gallery)
    pods = {p['metadata']['uid'] for p in gallery.get('pods', '-l', 'app=gallery')['items']}
    supervisor = gallery.processes()['supervisor']
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: gallery.tandem('status', check=False).returncode == 1, 30)
    assert container_pids(gallery) == before
    gallery.tandem('up', '--detach')
    gallery.status = json.loads(gallery.tandem('status', '--json').stdout)
    eventually(lambda: {p['metadata']['uid'] for p in gallery.get('pods', '-l', 'app=gallery')['items']} == pods, 30)
    assert container_pids(gallery) == before
    pod = gallery.get('pods', '-l', 'app=gallery')['items'][0]['metadata']['name']
    eventually(lambda: gallery.kubectl('exec', pod, '--', '/bin/sh', '-c', 'echo alive').stdout == 'alive\n', 30)


def test_down_leaves_nothing(tmp_path):
    def traces(one):
        found = []
        mounts = open('/proc/self/mountinfo').read()
        if one.state in mounts:
            found.append('mounts')
        links = subprocess.run(['ip', '-o', 'link'], text=True, capture_output=True).stdout
        found += [l for l in links.splitlines() if ': lo' not in l and '@' in l and one.id in l]
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                if one.state.encode() in open(f'/proc/{pid}/cmdline', 'rb').read():
                    found.append(open(f'/proc/{pid}/cmdline').read())
            except OSError:
                pass
        for top, folders, _ in os.walk('/sys/fs/cgroup'):
            found += [os.path.join(top, f) for f in folders if one.id in f]
        return found

    with running('--pod-cidr', '10.43.0.0/16', prefix='td-') as one:
        one.tandem('image', 'import', '--name', 'gallery:1', os.path.join(TOP, 'build', 'gallery', 'image.tar'))
        one.kubectl('run', 'sleeper', '--image=gallery:1', '--command', '--', '/bin/sleep', '1000')
        one.kubectl('wait', '--for=condition=Ready', 'pod/sleeper', '--timeout=90s')
        assert traces(one)
        assert one.down().returncode == 0
        assert traces(one) == []
