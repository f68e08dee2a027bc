"""What the node promises, seen from outside: volumes, environment, probes, restarts, ends, limits, kill -9."""
import io, json, os, signal, subprocess, tarfile, time

import pytest

from conftest import eventually

APPLETS = ('sh cat echo id sleep ls tty touch mount dd hostname true false env wget httpd grep mkdir rm test kill df sort date '
           'stat nc head tail mknod chown ps tr').split()


@pytest.fixture(scope='module')
def k(tandem, tmp_path_factory):
    """kubectl in a namespace of its own, with an image of busybox alone."""
    path = tmp_path_factory.mktemp('busybox') / 'small.tar'
    with tarfile.open(path, 'w') as tar:
        def add(name, **fields):
            info = tarfile.TarInfo(name)
            data = fields.pop('data', b'')
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
        for folder in ('bin', 'etc', 'tmp', 'proc', 'root'):
            add(folder, type=tarfile.DIRTYPE, mode=0o1777 if folder == 'tmp' else 0o755)
        add('bin/busybox', mode=0o755, data=open('/bin/busybox', 'rb').read())
        for name in APPLETS:
            add('bin/' + name, type=tarfile.SYMTYPE, linkname='busybox')
        add('etc/passwd', mode=0o644, data=b'root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n')
        add('etc/group', mode=0o644, data=b'root:x:0:\nweb:x:33:\npics:x:55:web\n')
    tandem.tandem('image', 'import', '--name', 'small:1', '--cmd', '["sh"]', str(path))
    tandem.kubectl('create', 'namespace', 'pods')

    def run(*words, **more):
        return tandem.kubectl('-n', 'pods', *words, **more)
    run.instance = tandem
    eventually(lambda: run('get', 'serviceaccount', 'default', check=False).returncode == 0)
    yield run
    tandem.kubectl('delete', 'namespace', 'pods', '--wait=true', '--timeout=150s', timeout=180)


def make(k, name, script=None, container=None, **spec):
    """Applies a pod of one container; script is its shell program."""
    one = {'name': 'c', 'image': 'small:1', 'imagePullPolicy': 'IfNotPresent', **(container or {})}
    if script is not None:
        one['command'] = ['sh', '-c', script]
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'labels': {'app': name}},
           'spec': {'terminationGracePeriodSeconds': 1, 'containers': [one], **spec}}
    k('apply', '-f', '-', text=json.dumps(pod))


def get(k, name):
    return json.loads(k('get', 'pod', name, '-o', 'json').stdout)


def state(k, name, which='containerStatuses', i=0):
    return get(k, name)['status'].get(which, [{}] * (i + 1))[i]


def phase(k, name, want):
    return eventually(lambda: (pod := get(k, name))['status'].get('phase') == want and pod)


def waiting(k, name, want):
    return eventually(lambda: (s := state(k, name)).get('state', {}).get('waiting', {}).get('reason') == want and s)


def events(k, name):
    return [(e['reason'], e['message']) for e in json.loads(k('get', 'events', '-o', 'json').stdout)['items'] if e['involvedObject']['name'] == name]


def test_volumes_and_environment(k):
    k('create', 'configmap', 'cm', '--from-literal=a=AAA', '--from-literal=b.txt=one')
    k('create', 'secret', 'generic', 'sec', '--from-literal=pw=s3cret')
    make(k, 'vols', 'id; env; cat /e/init /cm/b.txt /sec/pw /dw/labels /dw/cpu /sub; touch /h/x || echo ro; cat /etc/hosts /etc/resolv.conf;'
         'ls /var/run/secrets/kubernetes.io/serviceaccount; df /m | tail -1; sleep 1000',
         container={
             'env': [{'name': 'A', 'value': 'x'}, {'name': 'B', 'value': '$(A)-$(NOPE)-$$(A)'},
                     {'name': 'NODE', 'valueFrom': {'fieldRef': {'fieldPath': 'spec.nodeName'}}},
                     {'name': 'PW', 'valueFrom': {'secretKeyRef': {'name': 'sec', 'key': 'pw'}}},
                     {'name': 'NONE', 'valueFrom': {'secretKeyRef': {'name': 'sec', 'key': 'zz', 'optional': True}}}],
             'envFrom': [{'prefix': 'P_', 'configMapRef': {'name': 'cm'}}],
             'resources': {'limits': {'cpu': '500m', 'memory': '64Mi'}},
             'volumeMounts': [{'name': n, 'mountPath': '/' + n} for n in ('cm', 'sec', 'e', 'm', 'dw')] +
                             [{'name': 'h', 'mountPath': '/h', 'readOnly': True}, {'name': 'cm', 'mountPath': '/sub', 'subPath': 'a'}]},
         securityContext={'runAsUser': 33, 'fsGroup': 2000, 'supplementalGroups': [77]},
         hostAliases=[{'ip': '1.2.3.4', 'hostnames': ['foo.example']}],
         initContainers=[{'name': 'i', 'image': 'small:1', 'command': ['sh', '-c', 'echo from-init > /e/init'], 'volumeMounts': [{'name': 'e', 'mountPath': '/e'}]}],
         volumes=[{'name': 'cm', 'configMap': {'name': 'cm'}}, {'name': 'sec', 'secret': {'secretName': 'sec', 'defaultMode': 0o400}},
                  {'name': 'e', 'emptyDir': {}}, {'name': 'm', 'emptyDir': {'medium': 'Memory', 'sizeLimit': '4Mi'}},
                  {'name': 'dw', 'downwardAPI': {'items': [{'path': 'labels', 'fieldRef': {'fieldPath': 'metadata.labels'}},
                                                           {'path': 'cpu', 'resourceFieldRef': {'containerName': 'c', 'resource': 'limits.cpu', 'divisor': '1m'}}]}},
                  {'name': 'h', 'hostPath': {'path': k.instance.state + '/some-host-folder', 'type': 'DirectoryOrCreate'}}])
    pod = phase(k, 'vols', 'Running')
    text = eventually(lambda: '4096' in k('logs', 'vols').stdout and k('logs', 'vols').stdout)
    for want in ('uid=33(web) gid=33(web) groups=', '55(pics)', '2000', '77', 'A=x\n', 'B=x-$(NOPE)-$(A)\n', 'NODE=' + pod['spec']['nodeName'], 'PW=s3cret', 'P_a=AAA',
                 'from-init', 'one', 's3cret', 'app="vols"', '500', 'AAA', 'ro\n', 'foo.example', pod['status']['podIP'] + '\tvols', 'ndots:5', 'token', 'ca.crt',
                 'KUBERNETES_SERVICE_HOST='):
        assert want in text, want
    assert 'NONE=' not in text
    assert pod['status']['qosClass'] == 'Burstable'   # the init container has no limits
    # An edited configMap reaches the running container.
    k('patch', 'configmap', 'cm', '-p', '{"data":{"b.txt":"two"}}')
    eventually(lambda: 'two' in k('exec', 'vols', '--', 'cat', '/cm/b.txt').stdout)


def test_restarts_back_off(k):
    make(k, 'crash', 'echo run; exit 3')
    s = waiting(k, 'crash', 'CrashLoopBackOff')
    assert s['restartCount'] == 1 and s['lastState']['terminated']['exitCode'] == 3
    assert k('logs', 'crash', '--previous').stdout == 'run\n'
    eventually(lambda: any(r == 'BackOff' for r, _ in events(k, 'crash')))


def test_ends_of_pods(k):
    make(k, 'good', 'echo last words > /dev/termination-log', restartPolicy='Never')
    make(k, 'bad', 'exit 4', restartPolicy='Never')
    make(k, 'late', 'sleep 1000', restartPolicy='Never', activeDeadlineSeconds=1)
    make(k, 'oom', container={'command': ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=100M', 'count=1'], 'resources': {'limits': {'memory': '20Mi'}}}, restartPolicy='Never')
    make(k, 'nothere', container={'command': ['/nope']}, restartPolicy='Never')
    make(k, 'init-bad', 'sleep 1', restartPolicy='Never', initContainers=[{'name': 'i', 'image': 'small:1', 'command': ['false']}])
    assert phase(k, 'good', 'Succeeded')['status']['containerStatuses'][0]['state']['terminated']['message'] == 'last words\n'
    assert phase(k, 'bad', 'Failed')['status']['containerStatuses'][0]['state']['terminated']['exitCode'] == 4
    assert phase(k, 'late', 'Failed')['status']['reason'] == 'DeadlineExceeded'
    ended = phase(k, 'oom', 'Failed')['status']['containerStatuses'][0]['state']['terminated']
    assert (ended['reason'], ended['exitCode']) == ('OOMKilled', 137)
    ended = phase(k, 'nothere', 'Failed')['status']['containerStatuses'][0]['state']['terminated']
    assert ended['reason'] == 'StartError' and 'exec /nope: no such file or directory' in ended['message'].lower()
    assert phase(k, 'init-bad', 'Failed')['status']['containerStatuses'][0]['state']['waiting']['reason'] == 'PodInitializing'


def test_what_cannot_start_says_why(k):
    make(k, 'nocm', 'sleep 1000', container={'env': [{'name': 'X', 'valueFrom': {'configMapKeyRef': {'name': 'later', 'key': 'a'}}}]})
    make(k, 'nopull', container={'image': 'not-here:1', 'imagePullPolicy': 'Never'})
    make(k, 'noreg', container={'image': '127.0.0.1:1/none:1'})
    make(k, 'root', 'sleep 1000', container={'securityContext': {'runAsNonRoot': True}})
    assert 'configmap "later" not found' in waiting(k, 'nocm', 'CreateContainerConfigError')['state']['waiting']['message']
    waiting(k, 'nopull', 'ErrImageNeverPull')
    waiting(k, 'noreg', 'ImagePullBackOff')
    assert 'runAsNonRoot' in waiting(k, 'root', 'CreateContainerConfigError')['state']['waiting']['message']
    k('create', 'configmap', 'later', '--from-literal=a=1')
    phase(k, 'nocm', 'Running')


def test_probes(k):
    make(k, 'web', 'mkdir /www; echo hi > /www/index.html; exec httpd -f -p 8080 -h /www', container={
        'ports': [{'containerPort': 8080, 'name': 'http'}],
        'startupProbe': {'exec': {'command': ['cat', '/www/index.html']}, 'periodSeconds': 1, 'timeoutSeconds': 20, 'failureThreshold': 30},
        'readinessProbe': {'httpGet': {'path': '/index.html', 'port': 'http'}, 'periodSeconds': 1, 'timeoutSeconds': 20, 'failureThreshold': 1},
        'livenessProbe': {'tcpSocket': {'port': 8080}, 'periodSeconds': 1, 'timeoutSeconds': 20}})
    k('wait', '--for=condition=Ready', 'pod/web', '--timeout=90s')
    k('exec', 'web', '--', 'rm', '/www/index.html')
    k('wait', '--for=condition=Ready=false', 'pod/web', '--timeout=90s')
    assert state(k, 'web')['restartCount'] == 0
    make(k, 'dead', 'sleep 1000', container={'livenessProbe': {'exec': {'command': ['cat', '/nope']}, 'periodSeconds': 1, 'failureThreshold': 2}})
    eventually(lambda: state(k, 'dead')['restartCount'] >= 1)
    eventually(lambda: any(r == 'Unhealthy' and 'Liveness' in m for r, m in events(k, 'dead')))


def test_graceful_and_hard_ends(k):
    make(k, 'soft', "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done", terminationGracePeriodSeconds=300)
    make(k, 'hard', "trap '' TERM; echo up; while true; do sleep 0.05; done", terminationGracePeriodSeconds=2)
    make(k, 'hook', "trap 'exit 0' TERM; touch /up; while true; do sleep 0.05; done", terminationGracePeriodSeconds=300,
         container={'lifecycle': {'postStart': {'exec': {'command': ['touch', '/tmp/started']}}, 'preStop': {'exec': {'command': ['sleep', '1']}}}})
    for name in ('soft', 'hard', 'hook'):
        phase(k, name, 'Running')
    eventually(lambda: k('exec', 'hook', '--', 'ls', '/tmp/started', check=False).returncode == 0)
    for name in ('soft', 'hard'):
        eventually(lambda: k('logs', name).stdout == 'up\n')           # its trap is set
    k('delete', 'pod', 'soft', '--timeout=90s')                        # by itself: its time would be over much later
    began = time.time()
    k('delete', 'pod', 'hook', '--timeout=90s')
    assert time.time() - began >= 1                                    # what preStop takes
    began = time.time()
    k('delete', 'pod', 'hard', '--timeout=90s')
    assert time.time() - began > 1.8                                   # all of its time, and then it is killed


def test_isolation(k):
    make(k, 'tight', 'touch /x || echo ro-root; touch /tmp/y && echo tmp; grep -i capeff /proc/self/status; mount -t tmpfs x /tmp || echo nomount; sleep 1000', container={
        'securityContext': {'readOnlyRootFilesystem': True, 'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}},
        'volumeMounts': [{'name': 't', 'mountPath': '/tmp'}]}, volumes=[{'name': 't', 'emptyDir': {}}])
    text = eventually(lambda: 'nomount' in k('logs', 'tight').stdout and k('logs', 'tight').stdout)
    assert 'ro-root' in text and 'tmp' in text and '0000000000000000' in text
    make(k, 'big', 'mount -t tmpfs x /tmp && echo mounted; ls /dev | grep -c .; sleep 1000', container={'securityContext': {'privileged': True}})
    eventually(lambda: 'mounted' in k('logs', 'big').stdout)
    # A fork bomb stops at the pod's limit and leaves the others alone.
    make(k, 'bomb', 'b() { b | b & }; b; sleep 2; echo over', container={'resources': {'limits': {'cpu': '200m', 'memory': '64Mi'}}}, restartPolicy='Never')
    time.sleep(1)
    assert k('exec', 'tight', '--', 'echo', 'alive').stdout == 'alive\n'
    k('delete', 'pod', 'bomb', '--force', '--grace-period=0', '--timeout=90s')


def test_a_claim_is_shared(k):
    claim = {'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'metadata': {'name': 'shared'},
             'spec': {'accessModes': ['ReadWriteMany'], 'storageClassName': 'tandem-shared', 'resources': {'requests': {'storage': '1Gi'}}}}
    k('apply', '-f', '-', text=json.dumps(claim))
    mount = {'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}
    volume = [{'name': 'v', 'persistentVolumeClaim': {'claimName': 'shared'}}]
    make(k, 'writer', 'echo written > /v/file; sleep 1000', container=mount, volumes=volume)
    make(k, 'reader', 'while ! cat /v/file; do sleep 0.1; done; sleep 1000', container=mount, volumes=volume)
    eventually(lambda: 'written' in k('logs', 'reader').stdout)


def pids(k, name):
    """Host pids in the pod's groups."""
    uid = get(k, name)['metadata']['uid']
    found = subprocess.run(['sh', '-c', f'cat /sys/fs/cgroup/*/tandem-*/pods/{uid}/*/cgroup.procs /sys/fs/cgroup/tandem-*/pods/{uid}/*/cgroup.procs 2>/dev/null'],
                           text=True, stdout=subprocess.PIPE).stdout.split()
    return set(found)


def test_kill_9_of_the_node(k):
    for name in ('stays', 'goes', 'vanishes'):
        make(k, name, 'echo up; sleep 1000')
    for name in ('stays', 'goes', 'vanishes'):
        phase(k, name, 'Running')
    uid = get(k, 'vanishes')['metadata']['uid']
    before = pids(k, 'stays')
    assert before
    one = k.instance
    os.kill(one.processes()['node'], signal.SIGKILL)
    k('delete', 'pod', 'goes', '--wait=false')
    k('delete', 'pod', 'vanishes', '--force', '--grace-period=0', check=False)
    make(k, 'fresh', 'echo up; sleep 1000')
    phase(k, 'fresh', 'Running')
    eventually(lambda: k('get', 'pod', 'goes', check=False).returncode != 0)
    eventually(lambda: not os.path.exists(f'{one.state}/pods/{uid}'))
    assert pids(k, 'stays') == before and state(k, 'stays')['restartCount'] == 0
    assert k('exec', 'stays', '--', 'echo', 'alive').stdout == 'alive\n'


def test_a_killed_shim_costs_one_restart(k):
    make(k, 'held', 'echo up; sleep 1000')
    pod = phase(k, 'held', 'Running')
    uid = pod['metadata']['uid']
    shim = subprocess.run(['pgrep', '-f', f'tandem-shim .*{uid}'], text=True, stdout=subprocess.PIPE).stdout.split()
    os.kill(int(shim[0]), signal.SIGKILL)
    eventually(lambda: state(k, 'held')['restartCount'] == 1 and state(k, 'held')['ready'])
    assert state(k, 'held')['lastState']['terminated']['exitCode'] == 137
    assert get(k, 'held')['status']['podIP'] == pod['status']['podIP']


def test_logs_rotate(k):
    make(k, 'chatty', "i=0; while [ $i -lt 14 ]; do head -c 1000000 /dev/zero | tr '\\0' 'x' 2>/dev/null; echo; i=$((i+1)); done; echo the-end; sleep 1000")
    phase(k, 'chatty', 'Running')
    eventually(lambda: k('logs', 'chatty', '--tail=1').stdout == 'the-end\n')
    uid = get(k, 'chatty')['metadata']['uid']
    folder = f'{k.instance.state}/logs/pods/pods_chatty_{uid}/c'
    assert sorted(os.listdir(folder)) == ['0.log', '0.log.1']
    assert 10 << 20 < os.path.getsize(folder + '/0.log.1') < 11 << 20


def test_meter(k):
    path = k.instance.state + '/meter/pods.json'
    make(k, 'busy', 'while true; do :; done', container={'resources': {'limits': {'cpu': '300m', 'memory': '32Mi'}}})
    phase(k, 'busy', 'Running')

    def row():
        rows = [r for r in json.load(open(path))['pods'] if r['name'] == 'busy' and r['namespace'] == 'pods']
        return rows and rows[0]['cpu_us'] > 100000 and rows[0]
    one = eventually(row)
    assert one['memory_peak_bytes'] > 0 and one['cpu_limit_milli'] == 300
