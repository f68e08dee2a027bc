"""SnapStart through an unmodified boto3, with hooks registered by the unmodified snapshot_restore_py."""
import concurrent.futures
import io
import json
import pathlib
import zipfile

import pytest
from botocore.exceptions import WaiterError

from conftest import eventually
from test_lambda import call, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

ON = {'ApplyOn': 'PublishedVersions'}
OWN = '''
import os, random, time, uuid
from snapshot_restore_py import register_before_snapshot, register_after_restore
print('init code runs')
born, hooks = uuid.uuid4().hex, []

@register_before_snapshot
def before():
    hooks.append('before')

@register_after_restore
def after():
    print('restored')
    hooks.append('after')

def handler(event, context):
    time.sleep(event.get('seconds', 0))
    return {'born': born, 'hooks': hooks, 'random': random.random(), 'kind': os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'],
            'uri': os.environ.get('AWS_CONTAINER_CREDENTIALS_FULL_URI'), 'key': os.environ.get('AWS_ACCESS_KEY_ID')}
'''


def packed(text):
    """own.py and, from its wheel, snapshot_restore_py."""
    library = pathlib.Path(__file__).parents[2] / 'build/rie/snapshot_restore_py.py'
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        z.writestr('app.py', text)
        z.writestr('snapshot_restore_py.py', library.read_text())
    return out.getvalue()


def said(fn, name, event=None, **more):
    got = fn.invoke(FunctionName=name, Payload=json.dumps(event or {}), **more)
    assert 'FunctionError' not in got, got['Payload'].read()
    return json.loads(got['Payload'].read())


def lines(logs, name):
    return [e['message'].rstrip() for e in logs.filter_log_events(logGroupName=f'/aws/lambda/{name}')['events']]


def test_versions_start_from_a_snapshot(fn, tandem):
    logs = tandem.boto('logs')
    made = create(fn, 'snapped', code=packed(OWN), SnapStart=ON, Timeout=60)
    assert made['SnapStart'] == {'ApplyOn': 'PublishedVersions', 'OptimizationStatus': 'Off'}
    fn.get_waiter('function_active_v2').wait(FunctionName='snapped')
    one = fn.publish_version(FunctionName='snapped')
    assert one['SnapStart'] == {'ApplyOn': 'PublishedVersions', 'OptimizationStatus': 'On'}
    assert one['State'] == 'Active' or (one['State'], one['StateReasonCode']) == ('Pending', 'Creating')
    fn.get_waiter('published_version_active').wait(FunctionName='snapped', Qualifier='1')
    with concurrent.futures.ThreadPoolExecutor(3) as many:
        got = list(many.map(lambda _: said(fn, 'snapped', {'seconds': 6}, Qualifier='1'), range(3)))
    assert len({g['born'] for g in got}) == 1                       # one initialization
    assert len({g['random'] for g in got}) == 3                     # and no draw twice
    assert all((g['hooks'], g['kind'], g['key']) == (['before', 'after'], 'snap-start', None) for g in got)
    assert got[0]['uri'] == 'http://127.0.0.1:9001/2021-04-23/credentials'
    assert said(fn, 'snapped')['kind'] == 'on-demand'                # $LATEST has no snapshot

    def told():
        text = lines(logs, 'snapped')
        return text if len([t for t in text if 'Restore Duration' in t and t.startswith('REPORT')]) == 3 else None
    text = eventually(told)
    assert [t.split(' ')[0] for t in text].count('INIT_REPORT') == 1
    for start in ('RESTORE_START Runtime Version: ', 'RESTORE_REPORT Restore Duration: '):
        assert len([t for t in text if t.startswith(start)]) >= 3
    assert all('\tBilled Restore Duration: ' in t for t in text if t.startswith('REPORT') and '\tRestore Duration: ' in t)
    off = fn.update_function_configuration(FunctionName='snapped', SnapStart={'ApplyOn': 'None'})
    assert off['SnapStart'] == {'ApplyOn': 'None', 'OptimizationStatus': 'Off'}
    assert fn.get_function_configuration(FunctionName='snapped', Qualifier='1')['SnapStart']['OptimizationStatus'] == 'On'
    fn.delete_function(FunctionName='snapped')


def test_initialization_that_fails(fn):
    create(fn, 'snapbad', code=zipped('raise RuntimeError("not today")\n'), SnapStart=ON)
    fn.publish_version(FunctionName='snapbad')
    with pytest.raises(WaiterError):
        fn.get_waiter('published_version_active').wait(FunctionName='snapbad', Qualifier='1')
    got = fn.get_function_configuration(FunctionName='snapbad', Qualifier='1')
    assert (got['State'], got['StateReasonCode']) == ('Failed', 'FunctionError') and got['StateReason'] == 'RuntimeError: not today'
    refused('ResourceConflictException', 409, fn.invoke, FunctionName='snapbad', Qualifier='1')
    fn.delete_function(FunctionName='snapbad')


def test_threads_cannot_be_kept(fn):
    create(fn, 'snapthread', code=zipped('import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n'
                                         'def handler(event, context):\n    return "runs"\n'), SnapStart=ON)
    fn.publish_version(FunctionName='snapthread')
    fn.get_waiter('published_version_active').wait(FunctionName='snapthread', Qualifier='1')
    got = fn.get_function_configuration(FunctionName='snapthread', Qualifier='1')
    assert got['SnapStart'] == {'ApplyOn': 'PublishedVersions', 'OptimizationStatus': 'Off'} and 'thread' in got['StateReason']
    assert said(fn, 'snapthread', Qualifier='1') == 'runs'
    fn.delete_function(FunctionName='snapthread')


def test_a_hook_that_fails_after_the_restore(fn):
    create(fn, 'snaphook', code=packed('from snapshot_restore_py import register_after_restore\nregister_after_restore(lambda: 1 / 0)\n'
                                       'def handler(event, context):\n    return 1\n'), SnapStart=ON)
    fn.publish_version(FunctionName='snaphook')
    fn.get_waiter('published_version_active').wait(FunctionName='snaphook', Qualifier='1')
    refused('SnapStartException', 400, fn.invoke, FunctionName='snaphook', Qualifier='1')
    fn.delete_function(FunctionName='snaphook')


@pytest.mark.parametrize('more,why', [({'Runtime': 'nodejs20.x'}, 'nodejs20.x is not supported'), ({'Runtime': 'provided.al2023'}, 'is not supported'),
                                      ({'EphemeralStorage': {'Size': 1024}}, '512 MB')])
def test_what_snapstart_does_not_go_with(fn, more, why):
    got = refused('InvalidParameterValueException', 400, create, fn, 'snapnot', SnapStart=ON, **more)
    assert why in got['Error']['Message'] and 'SnapStart' in got['Error']['Message']


def test_no_provisioned_concurrency(fn):
    create(fn, 'snapprov', SnapStart=ON)
    fn.publish_version(FunctionName='snapprov')
    refused('InvalidParameterValueException', 400, fn.put_provisioned_concurrency_config, FunctionName='snapprov', Qualifier='1',
            ProvisionedConcurrentExecutions=1)
    fn.delete_function(FunctionName='snapprov')
