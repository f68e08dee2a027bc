"""How many instances functions have: Knative's annotations by kubectl, and what they give back when a pod asks for it."""
import concurrent.futures, glob, json, subprocess

import pytest

from conftest import eventually, running
from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)

KN = 'autoscaling.knative.dev/'
CODE = '''
import time
held = bytearray(%d << 20)
for i in range(0, len(held), 4096):
    held[i] = 1
def handler(event, context):
    time.sleep(event)
    return event
'''


def ask(tandem, what):
    """What the gateway's admin socket answers."""
    return json.loads(subprocess.run(['curl', '-s', '--max-time', '60', '--unix-socket', f'{tandem.state}/run/gateway.sock',
                                      'http://localhost/' + what], text=True, capture_output=True).stdout)


def states(tandem, name):
    return [i['state'] for f in ask(tandem, 'instances')['functions'] if f['name'] == name and not f['retired'] for i in f['instances']
            if i['state'] != 'dying']


def meter(tandem, name):
    return next(f for f in ask(tandem, 'meter')['functions'] if f['name'] == name)


@pytest.fixture
def made(fn):
    names = []

    def make(name, mb=0, **more):
        create(fn, name, zipped(CODE % mb), Timeout=60, **more)
        fn.get_waiter('function_active_v2').wait(FunctionName=name)
        names.append(name)
        return name
    yield make
    for n in names:
        fn.delete_function(FunctionName=n)


def at_once(fn, name, n, seconds):
    """So many calls, together; their answers."""
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda _: json.loads(fn.invoke(FunctionName=name, Payload=json.dumps(seconds))['Payload'].read()), range(n)))


def test_annotations_are_judged(tandem, made):
    name = made('scaled-judged')
    for given, why in (('window=3s', 'expected 6s <= 3s <= 1h0m0s'), ('min-scale=-1', 'expected 0 <= -1 <= 2147483647'),
                       ('metric=cpu', 'is no value that it takes'), ('class=hpa.autoscaling.knative.dev', 'supported values: "kpa.autoscaling.knative.dev"'),
                       ('target=0', 'target 0 should be at least 0.01'), ('panic-threshold-percentage=100', 'expected 110 <= 100 <= 1000')):
        refused = tandem.kubectl('annotate', 'function', name, KN + given, check=False)
        assert refused.returncode and why in refused.stderr and f'metadata.annotations[{KN}{given.split("=")[0]}]' in refused.stderr
    refused = tandem.kubectl('annotate', 'function', name, KN + 'min-scale=4', KN + 'max-scale=2', check=False)
    assert 'max-scale=2 is less than min-scale=4' in refused.stderr


def test_annotated_functions_have_what_is_said(tandem, fn, made):
    name = made('scaled-noted')
    tandem.kubectl('annotate', 'function', name, KN + 'min-scale=2', KN + 'max-scale=3', KN + 'window=6s', KN + 'initial-scale=2')
    eventually(lambda: len(states(tandem, name)) == 2)      # nobody has called
    eventually(lambda: meter(tandem, name)['scaleWanted'] == 2)
    most = 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        calls = pool.submit(at_once, fn, name, 8, 1)
        while not calls.done():
            most = max(most, len(states(tandem, name)))
        assert calls.result() == [1] * 8
    assert most == 3                                        # the others waited
    eventually(lambda: len(states(tandem, name)) == 2, 60)
    tandem.kubectl('annotate', 'function', name, *(KN + k + '-' for k in ('min-scale', 'max-scale', 'window', 'initial-scale')))
    eventually(lambda: 'busy' not in states(tandem, name) and len(states(tandem, name)) <= 1, 60)
    assert 'scaleWanted' not in meter(tandem, name)


def milli(text):
    return int(text[:-1]) if text.endswith('m') else int(text) * 1000


def mib(text):
    units = {'Ki': 1 / 1024, 'Mi': 1, 'Gi': 1024, 'Ti': 1 << 20, 'k': 1e3 / (1 << 20), 'M': 1e6 / (1 << 20), 'G': 1e9 / (1 << 20)}
    return next((float(text[:-len(u)]) * f for u, f in units.items() if text.endswith(u)), float(text or 0) / (1 << 20) if text[-1:].isdigit() else 0)


def left(tandem):
    """MiB of memory that pods have not asked for."""
    node = tandem.get('nodes')['items'][0]
    asked = sum(mib(c.get('resources', {}).get('requests', {}).get('memory', '0'))
                for p in tandem.get('pods', '-A')['items'] if p['status'].get('phase') not in ('Succeeded', 'Failed') for c in p['spec']['containers'])
    return int(mib(node['status']['allocatable']['memory']) - asked)


def test_pods_get_what_functions_hold_idle(image, fn, made):
    tandem, name = image, made('scaled-holder', 40, MemorySize=256)
    node = tandem.get('nodes')['items'][0]
    eventually(lambda: at_once(fn, name, 4, 2) == [2] * 4 and len(states(tandem, name)) >= 4)
    had = len(states(tandem, name))
    before = meter(tandem, name)['evicted']
    asks = left(tandem) - 96
    pod = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'scaled-large'}, 'spec': {'containers': [{
        'name': 'c', 'image': 'gallery:1', 'command': ['/usr/bin/python3', '-c', 'import time; time.sleep(600)'],
        'resources': {'requests': {'memory': f'{asks}Mi', 'cpu': '10m'}}}]}}
    tandem.kubectl('apply', '-f', '-', text=json.dumps(pod))
    try:
        eventually(lambda: tandem.get('pod', 'scaled-large')['status']['phase'] == 'Running', 60)
        eventually(lambda: len(states(tandem, name)) <= 2)
        eventually(lambda: meter(tandem, name)['evicted'] - before >= 2)     # they did not go by themselves
        assert at_once(fn, name, 2, 0.1) == [0.1] * 2        # and it answers all the same
        eventually(lambda: ask(tandem, 'meter')['capacity']['budget_mb'] <= 97)
        for path in glob.glob(f'/sys/fs/cgroup/cpu*/tandem-{tandem.id}/functions/cpu.shares'):
            eventually(lambda: int(open(path).read()) == ask(tandem, 'meter')['capacity']['cpu_shares'] < int(open(path.replace('functions', 'pods')).read()))
        now = tandem.get('nodes')['items'][0]
        assert now['status']['allocatable'] == node['status']['allocatable']
        told = tandem.kubectl('describe', 'node', node['metadata']['name']).stdout
        assert 'scaled-large' in told
    finally:
        tandem.kubectl('delete', 'pod', 'scaled-large', '--grace-period=0', '--force')
    eventually(lambda: len(at_once(fn, name, 4, 1)) == 4 and len(states(tandem, name)) >= 4, 60)


def test_limits_are_said_at_the_start():
    """--scale-burst and --scale-per-10s: who asks for more new instances than that is throttled; kept for the next start, too."""
    from botocore.exceptions import ClientError
    with running('--pod-cidr', '10.45.0.0/16', '--scale-burst', '2', '--scale-per-10s', '1', '--zygote-keep-ms', '5000', '--evict-mb', '0', prefix='ts-') as one:
        fn = one.boto('lambda')
        create(fn, 'scaled-slowly', zipped(CODE % 0), Timeout=60)
        fn.get_waiter('function_active_v2').wait(FunctionName='scaled-slowly')

        def call(_):
            try:
                return fn.invoke(FunctionName='scaled-slowly', Payload=b'8')['StatusCode']
            except ClientError as e:
                return e.response['Error']['Code'], e.response.get('Reason')
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(call, range(6)))
        assert 200 in answers and ('TooManyRequestsException', 'FunctionInvocationRateLimitExceeded') in answers
        saved = json.load(open(one.state + '/instance.json'))
        assert (saved['scaleBurst'], saved['scalePer10s'], saved['zygoteKeepMs'], saved['evictMb']) == (2, 1, 5000, 0)
        one.down()
        one.up()
        assert b'--scale-burst\0002\0' in open(f'/proc/{one.processes()["gateway"]}/cmdline', 'rb').read()
