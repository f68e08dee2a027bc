"""kill -9 of anything at random under load; `make chaos MINUTES=n SEED=n` runs it long.

Goal: an accepted event runs at least once and is reported exactly once, a synchronous caller gets an answer as long as the
gateway lives, a write that was acknowledged stays, a durable execution begins once and ends once with each of its steps done at
least once and a history without gap, and nothing is left over.
Method: clients of all kinds work without a pause while a killer draws victims from a seed (printed): the gateway, the node,
the server, an interpreter's base, a zygote, an instance at work, sometimes two at once. Then it is quiet, and everything is counted.
"""
import http.client, json, os, random, signal, socket, subprocess, threading, time, urllib.parse

import pytest

from conftest import eventually, running
from test_lambda import create, zipped
from test_lambda_runtimes import executable

MINUTES = float(os.environ.get('TANDEM_CHAOS_MINUTES') or 0.2)
SEED = int(os.environ.get('TANDEM_CHAOS_SEED') or time.time_ns() % 1000000)
ANSWER_S = 60                                         # a caller who waits longer than that, was forgotten
MNT = {'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/chaos', 'LocalMountPath': '/mnt/c'}
PYTHON = '''
import os, time
def handler(event, context):
    if event.get('event'):
        open('/mnt/c/ran-' + event['event'], 'w').close()
    time.sleep(event.get('ms', 0) / 1000)
    if event.get('fail'):
        raise ValueError('asked to')
    return event.get('n')
'''
NODE = '''
import fs from 'node:fs'
export const handler = async (event) => {
    if (event.event)
        fs.writeFileSync('/mnt/c/ran-' + event.event, '')
    await new Promise(done => setTimeout(done, event.ms ?? 0))
    if (event.fail)
        throw new Error('asked to')
    return event.n
}
'''
OWN = r'''#!/usr/bin/python3
import http.client, json, os, time
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
def ask(method, path, body=None):
    c = http.client.HTTPConnection(host, int(port))
    c.request(method, '/2018-06-01/runtime/invocation/' + path, body)
    got = c.getresponse()
    return got, got.read()
while True:
    got, body = ask('GET', 'next')
    event, id = json.loads(body), got.headers['Lambda-Runtime-Aws-Request-Id']
    if event.get('event'):
        open('/mnt/c/ran-' + event['event'], 'w').close()
    time.sleep(event.get('ms', 0) / 1000)
    if event.get('fail'):
        ask('POST', id + '/error', json.dumps({'errorType': 'ValueError', 'errorMessage': 'asked to'}))
    else:
        ask('POST', id + '/response', json.dumps(event.get('n')))
'''
# A durable function without an SDK, which would take longer to load than it lives here: three steps with a second's wait
# between them; and as a destination one step. A step leaves an empty file for each time that it ran.
DURABLE = '''
import datetime, hashlib, hmac, json, os, urllib.error, urllib.parse, urllib.request, uuid

def signed(path, body):
    at = urllib.parse.urlsplit(os.environ['AWS_ENDPOINT_URL'])
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    headers = {'host': at.netloc, 'x-amz-date': now}
    if os.environ.get('AWS_SESSION_TOKEN'):
        headers['x-amz-security-token'] = os.environ['AWS_SESSION_TOKEN']
    names, scope = ';'.join(sorted(headers)), [now[:8], os.environ['AWS_REGION'], 'lambda', 'aws4_request']
    request = chr(10).join(['POST', urllib.parse.quote(path), '', *(f'{k}:{headers[k]}' for k in sorted(headers)), '', names,
                            hashlib.sha256(body).hexdigest()])
    text = chr(10).join(['AWS4-HMAC-SHA256', now, '/'.join(scope), hashlib.sha256(request.encode()).hexdigest()])
    key = ('AWS4' + os.environ['AWS_SECRET_ACCESS_KEY']).encode()
    for part in scope:
        key = hmac.new(key, part.encode(), 'sha256').digest()
    headers['authorization'] = (f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{'/'.join(scope)}, SignedHeaders={names}, "
                                f"Signature={hmac.new(key, text.encode(), 'sha256').hexdigest()}")
    return urllib.request.Request(f'{at.scheme}://{at.netloc}{path}', body, headers)

def handler(event, context):
    arn, token = event['DurableExecutionArn'], event['CheckpointToken']
    ops = {o['Id']: o for o in event['InitialExecutionState']['Operations']}
    given = json.loads(next(o for o in ops.values() if o['Type'] == 'EXECUTION')['ExecutionDetails']['InputPayload'])

    def checkpoint(update):
        nonlocal token
        path = '/2025-12-01/durable-executions/' + urllib.parse.quote(arn, '') + '/checkpoint'
        body = json.dumps({'CheckpointToken': token, 'Updates': [update]}).encode()
        token = json.load(urllib.request.urlopen(signed(path, body), timeout=8))['CheckpointToken']
    if 'requestContext' in given:
        if 'told' not in ops:
            open('/mnt/c/told-%s-%s' % (given['requestContext']['requestId'], arn.rsplit('/', 1)[1]), 'w').close()
            checkpoint({'Id': 'told', 'Type': 'STEP', 'Action': 'SUCCEED'})
        return {'Status': 'SUCCEEDED', 'Result': '1'}
    for i in range(3):
        step, wait = f's{i}', f'w{i}'
        if step not in ops:
            open(f"/mnt/c/step-{given['name']}-{i}-{uuid.uuid4()}", 'w').close()
            checkpoint({'Id': step, 'Type': 'STEP', 'Action': 'SUCCEED', 'Payload': str(i)})
        if i == 2:
            return {'Status': 'SUCCEEDED', 'Result': json.dumps(given['name'])}
        if wait not in ops:
            checkpoint({'Id': wait, 'Type': 'WAIT', 'Action': 'START', 'WaitOptions': {'WaitSeconds': 1}})
            return {'Status': 'PENDING'}
        if ops[wait]['Status'] != 'SUCCEEDED':
            return {'Status': 'PENDING'}
'''
# One empty file a delivery, named by the event that it is about and by the delivery itself
KEEPER = '''
def handler(record, context):
    of = record['requestContext']
    open('/mnt/c/told-%s-%s' % (of['requestId'], context.aws_request_id), 'w').close()
'''
WORKERS = ['chaos-python', 'chaos-node', 'chaos-own']


class World:
    """What the clients and the killer share."""

    def __init__(self, one):
        self.one, self.stop, self.lock = one, threading.Event(), threading.Lock()
        self.gateway_pid, self.gateway_down = [], []  # [from, to): a gateway that was killed is not back yet
        self.wrong, self.accepted, self.written, self.answers, self.kills = [], [], [], 0, {}
        self.begun = []

    def may_fail(self, since, until):
        with self.lock:
            return any(a - 0.2 <= until and since <= b for a, b in self.gateway_down)


def client(world, work):
    """A thread that does work(n) again and again; an exception is a finding."""
    def run():
        n = 0
        while not world.stop.is_set():
            n += 1
            try:
                work(n)
            except Exception as e:
                world.wrong.append(f'{work.__name__}: {type(e).__name__}: {e}')
                return
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def synchronous(world, seed):
    """By URL, a new connection each time: a status is an answer, whichever."""
    at, rng = urllib.parse.urlsplit(world.one.status['gateway']), random.Random(seed)

    def call(n):
        name, began = rng.choice(WORKERS), time.time()
        body = json.dumps({'ms': rng.choice([0, 0, 1, 20, 200]), 'fail': rng.random() < 0.05, 'n': n})
        try:
            c = http.client.HTTPConnection(at.hostname, at.port, timeout=ANSWER_S)
            c.request('POST', f'/function/{name}/', body, {'content-type': 'application/json'})
            c.getresponse().read()
            c.close()
            world.answers += 1
        except (OSError, http.client.HTTPException) as e:
            time.sleep(0.02)                          # the killer notes the gateway's end a moment after it
            if not world.may_fail(began, time.time()):
                world.wrong.append(f'{name}: no answer after {time.time() - began:.3f} s, the gateway lived: {e!r}')
    return call


def asynchronous(world, seed):
    import botocore.exceptions
    lam, rng = world.one.boto('lambda'), random.Random(seed)

    def send(n):
        id, began = f'{seed}-{n}', time.time()
        event = {'event': id, 'ms': rng.choice([0, 1, 30, 300]), 'fail': rng.random() < 0.1, 'n': n}
        try:
            got = lam.invoke(FunctionName=rng.choice(WORKERS), InvocationType='Event', Payload=json.dumps(event))
            assert got['StatusCode'] == 202
            world.accepted.append((got['ResponseMetadata']['RequestId'], id))
        except botocore.exceptions.ClientError:
            world.answers += 1                        # refused, and said so: nothing was promised
        except (botocore.exceptions.BotoCoreError, OSError) as e:
            time.sleep(0.02)
            if not world.may_fail(began, time.time()):
                world.wrong.append(f'event {id}: no answer, the gateway lived: {e!r}')
        time.sleep(0.02)
    return send


def beginner(world):
    """Begins executions by name; who hears nothing asks again, for the same one."""
    import botocore.exceptions
    lam = world.one.boto('lambda')

    def begin(n):
        name, began = f'chaos-{n}', time.time()
        while True:
            try:
                lam.invoke(FunctionName='chaos-durable', Qualifier='$LATEST', InvocationType='Event', DurableExecutionName=name,
                           Payload=json.dumps({'name': name}))
                world.begun.append(name)
                break
            except botocore.exceptions.ClientError as e:
                if e.response['ResponseMetadata']['HTTPStatusCode'] < 500 and e.response['ResponseMetadata']['HTTPStatusCode'] != 429:
                    raise
            except (botocore.exceptions.BotoCoreError, OSError) as e:
                time.sleep(0.02)
                if not world.may_fail(began, time.time()):
                    raise
            if world.stop.is_set() and time.time() - began > ANSWER_S:
                break
        time.sleep(0.1)
    return begin


def look_at_executions(world):
    """Every one that was begun is there once, has ended once, and tells all of its story."""
    lam = world.one.boto('lambda')
    there = {}

    def pages():
        return [e for p in lam.get_paginator('list_durable_executions_by_function').paginate(FunctionName='chaos-durable') for e in p['DurableExecutions']]
    eventually(lambda: all(e['Status'] != 'RUNNING' for e in pages()), 120, every=1)
    files = os.listdir(os.path.join(world.one.state, 'volumes', 'chaos'))      # now that all have ended
    steps = {tuple(f[len('step-'):].rsplit('-', 6)[:2]) for f in files if f.startswith('step-')}
    for e in pages():
        assert e['DurableExecutionName'] not in there, (SEED, e)
        there[e['DurableExecutionName']] = e
    assert not set(world.begun) - set(there), (SEED, 'executions were begun and are not there')
    for name, e in there.items():
        arn = e['DurableExecutionArn']
        events = [x for p in lam.get_paginator('get_durable_execution_history').paginate(DurableExecutionArn=arn, PaginationConfig={'PageSize': 3})
                  for x in p['Events']]
        kinds = [x['EventType'] for x in events]
        assert [x['EventId'] for x in events] == list(range(1, len(events) + 1)), (SEED, arn, events)
        assert kinds[0] == 'ExecutionStarted' and sum(k.startswith('Execution') for k in kinds) == 2, (SEED, arn, kinds)
        if e['Status'] == 'FAILED':                   # whose instance was killed five times in a row
            assert kinds.count('InvocationCompleted') >= 5, (SEED, arn, events)
            continue
        assert e['Status'] == 'SUCCEEDED' and kinds.count('StepSucceeded') == 3 and kinds.count('WaitSucceeded') == 2, (SEED, e, kinds)
        assert json.loads(lam.get_durable_execution(DurableExecutionArn=arn)['Result']) == name
        assert all((name, str(i)) in steps for i in range(3)), (SEED, name, 'a step never ran')
    assert any(e['Status'] == 'SUCCEEDED' for e in there.values()), SEED
    return there


def writer(world):
    import kubernetes
    api = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(os.path.join(world.one.state, 'kubeconfig')))

    def write(n):
        try:
            api.create_namespaced_config_map('default', {'metadata': {'name': f'chaos-{n}'}}, _request_timeout=5)
            world.written.append(f'chaos-{n}')
        except Exception:                             # the server may be away
            time.sleep(0.05)
        time.sleep(0.01)
    return write


def parent_of(pid):
    return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1]


def function_processes(one):
    """What lives of functions by what it is: {'base': [...], 'zygote': [...], 'instance': [...]}."""
    found = {'base': [], 'zygote': [], 'instance': []}
    gateway = one.processes().get('gateway')
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            group = open(f'/proc/{pid}/cgroup').read()
            if gateway and parent_of(pid) == str(gateway):
                found['base'].append(pid)
            elif 'tandem-' + one.id + '/functions/' in group:
                found['zygote' if any(l.endswith('/zygote') for l in group.splitlines()) else 'instance'].append(pid)
        except OSError:
            pass
    return found


def kill(world, what, rng):
    """kill -9 of one such process; returns at once. False: there is none."""
    one, parts = world.one, world.one.processes()
    pids = [parts[what]] if what in parts else sorted(function_processes(one).get(what, [])) if what not in ('gateway', 'node', 'server') else []
    if not pids:
        return False
    pid = int(rng.choice(pids))
    if what == 'gateway':
        with world.lock:
            world.gateway_down.append([time.time(), float('inf')])
            world.gateway_pid.append(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    world.kills[what] = world.kills.get(what, 0) + 1
    return True


def gateway_is_back(world):
    gone, = world.gateway_pid[-1:]

    def answers():
        if world.one.processes().get('gateway') in (None, gone):
            return False                              # the old one may still be dying, its ports open
        for address in (world.one.status['gateway'], world.one.status['aws']):
            at = urllib.parse.urlsplit(address)
            socket.create_connection((at.hostname, at.port), 1).close()
        return True
    eventually(answers, 60, every=0.01)
    with world.lock:
        world.gateway_down[-1][1] = time.time()


def rampage(world, rng, seconds):
    until = time.time() + seconds                     # and no end before an instance at work was among them
    while (time.time() < until or not world.kills.get('instance') and time.time() < until + 120) and not world.wrong:
        victims = rng.choices(['instance', 'zygote', 'base', 'gateway', 'node', 'server'], [5, 3, 1, 1, 1, 1], k=rng.choice([1, 1, 1, 2, 3]))
        killed = [v for v in victims if kill(world, v, rng)]
        if 'gateway' in killed:
            gateway_is_back(world)
        time.sleep(rng.choice([0.01, 0.1, 0.3, 0.6]))


def left_over(one):
    """Cgroups, mounts, links, processes that carry the instance's name; after `down` there are none."""
    found = [l for l in open('/proc/self/mountinfo').read().splitlines() if one.state in l or 'tandem-' + one.id in l]
    found += [l for l in subprocess.run(['ip', '-o', 'link'], text=True, capture_output=True).stdout.splitlines() if 'td' + one.id in l]
    for top, folders, _ in os.walk('/sys/fs/cgroup'):
        found += [os.path.join(top, f) for f in folders if one.id in f]
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if one.state.encode() in open(f'/proc/{pid}/cmdline', 'rb').read() or 'tandem-' + one.id in open(f'/proc/{pid}/cgroup').read():
                if '\nState:\tZ' not in open(f'/proc/{pid}/status').read():     # that one has ended, and its new parent takes note of it when it likes
                    found.append(f'process {pid}: {open(f"/proc/{pid}/cmdline").read()}')
        except OSError:
            pass
    return found


def orphans(one):
    """Processes of functions that no gateway has, and their cgroups in which nobody lives and that nobody can use."""
    parts, found = set(map(str, one.processes().values())), []
    for kind, pids in function_processes(one).items():
        for pid in pids:
            up = pid
            try:
                while up not in parts and up != '0':
                    up = parent_of(up)
            except OSError:
                continue
            if up == '0':
                found.append(f'{kind} {pid}')
    return found


def deploy(one):
    lam = one.boto('lambda')
    one.boto('s3').create_bucket(Bucket='chaos')
    one.boto('s3').create_bucket(Bucket='chaos-records')
    create(lam, 'chaos-keeper', code=zipped(KEEPER), FileSystemConfigs=[MNT])
    create(lam, 'chaos-python', code=zipped(PYTHON), FileSystemConfigs=[MNT], Timeout=10)
    create(lam, 'chaos-node', code=zipped(NODE, 'app.mjs'), Runtime='nodejs20.x', FileSystemConfigs=[MNT], Timeout=10)
    create(lam, 'chaos-own', code=executable(OWN), Runtime='provided.al2023', Handler='any', FileSystemConfigs=[MNT], Timeout=10)
    for name in ('chaos-durable', 'chaos-told'):
        create(lam, name, code=zipped(DURABLE), FileSystemConfigs=[MNT], Timeout=10, DurableConfig={'ExecutionTimeout': 800})
        lam.get_waiter('function_active_v2').wait(FunctionName=name)
    for name in WORKERS:
        lam.create_function_url_config(FunctionName=name, AuthType='NONE')
        # a record of either kind: good ones go to a function, of one worker to a durable one, bad ones into a bucket
        keeper = 'chaos-told:$LATEST' if name == 'chaos-own' else 'chaos-keeper'
        lam.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1, DestinationConfig={
            'OnSuccess': {'Destination': 'arn:aws:lambda:us-east-1:000000000000:function:' + keeper},
            'OnFailure': {'Destination': 'arn:aws:s3:::chaos-records'}})
        lam.get_waiter('function_active_v2').wait(FunctionName=name)


def count(world):
    """(ids of events that ran, {request id: its records}): a record is a delivery to the keeper or a file in the bucket."""
    ran, told = set(), {}
    for name in os.listdir(os.path.join(world.one.state, 'volumes', 'chaos')):
        if name.startswith('ran-'):
            ran.add(name[4:])
        elif name.startswith('told-'):
            told.setdefault(name[5:41], []).append(name)
    for top, _, files in os.walk(os.path.join(world.one.state, 'volumes', 'chaos-records')):
        for name in files:
            if not name.startswith('.'):
                told.setdefault(name[-36:], []).append(os.path.join(top, name))
    return ran, told


def test_chaos(capsys):
    signal.alarm(int(MINUTES * 60 + 900))
    with capsys.disabled():
        print(f'\nchaos: SEED={SEED} MINUTES={MINUTES}')
    rng = random.Random(SEED)
    with running('--pod-cidr', '10.44.0.0/16', '--keep-alive-ms', '1000', '--event-retry-s', '1', prefix='tx-') as one:
        world = World(one)
        deploy(one)
        threads = [client(world, w) for w in (synchronous(world, 1), synchronous(world, 2), synchronous(world, 3), asynchronous(world, 4),
                                              asynchronous(world, 5), beginner(world), writer(world))]
        try:
            eventually(lambda: world.answers > 20 and len(world.accepted) > 5 or world.wrong, 30)
            rampage(world, rng, MINUTES * 60)
        finally:
            world.stop.set()
            for t in threads:
                t.join()
        assert not world.wrong, (SEED, world.wrong[:5])

        def all_told():
            _, told = count(world)
            return not {request for request, _ in world.accepted} - set(told)
        try:
            eventually(all_told, 60, every=0.3)
        except AssertionError:
            pass                                      # what is missing is said below
        ran, told = count(world)
        missing = [(request, id) for request, id in world.accepted if request not in told]
        assert not missing, (SEED, f'{len(missing)} of {len(world.accepted)} events were never reported', missing[:5])
        assert not [id for _, id in world.accepted if id not in ran and not any('chaos-records' in t for t in told[_])], SEED
        twice = {r: t for r, t in told.items() if len(t) > 1}
        assert not twice, (SEED, f'{len(twice)} events were reported more than once', list(twice.items())[:3])

        executions = look_at_executions(world)

        eventually(lambda: one.get('nodes')['items'][0]['status']['conditions'][-1]['status'] == 'True', 30)
        have = {c['metadata']['name'] for c in one.get('configmaps')['items']}
        assert not set(world.written) - have, SEED
        eventually(lambda: not orphans(one), 10)
        assert world.kills.get('instance') and world.answers and world.accepted and world.written   # it did happen
        with capsys.disabled():
            print(f'chaos: killed {world.kills}; {world.answers} answers, {len(world.accepted)} events, {len(world.written)} writes, {len(executions)} executions')
        assert one.down().returncode == 0
        assert left_over(one) == [], SEED
