"""Functions that are container images, with Lambda's own runtime client from PyPI inside, by an unmodified boto3."""
import base64, concurrent.futures, io, json, os, tarfile, shutil

import pytest

from conftest import TOP, eventually
from test_lambda import ROLE, call, fn, refused  # noqa: F401 (fn is a fixture)

CODE = '''
import json, os, sys
def handler(event, context):
    if event.get('do') == 'fail':
        raise KeyError('asked to')
    if event.get('do') == 'write':
        try:
            open('/app/x', 'w')
        except OSError as e:
            return e.strerror
    if event.get('do') == 'root':
        return sorted(os.listdir('/'))
    print('seen', event)
    return {'cwd': os.getcwd(), 'env': dict(os.environ), 'arn': context.invoked_function_arn, 'id': context.aws_request_id, 'uid': os.getuid(),
            'ric': sys.modules['awslambdaric'].__version__, 'argv': sys.argv}
def other(event, context):
    return 'other'
'''


def image_tar(path, code=CODE):
    """The gallery's root file system (Debian with Python), the wheel and the handler."""
    shutil.copy(os.path.join(TOP, 'build', 'gallery', 'image.tar'), path)
    with tarfile.open(path, 'a') as tar:
        tar.add(os.path.join(TOP, 'build', 'rie'), './rie')
        for name in ('libstdc++.so.6', 'libgcc_s.so.1'):          # what the wheel expects of any distribution
            tar.add(os.path.realpath(os.path.join('/usr/lib/x86_64-linux-gnu', name)), f'./rie/lib/{name}')
        info = tarfile.TarInfo('./app/own.py')
        info.size, info.mode = len(code), 0o644
        tar.addfile(info, io.BytesIO(code.encode()))
    return path


@pytest.fixture(scope='module')
def images(tandem, tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for tag, code in (('1', CODE), ('2', CODE.replace("return 'other'", "return 'second'"))):
        tar = image_tar(str(folder / f'{tag}.tar'), code)
        tandem.tandem('image', 'import', '--name', f'own:{tag}', '--entrypoint', '["/usr/bin/python3","-m","awslambdaric"]', '--cmd', '["own.handler"]',
                      '--env', 'PYTHONPATH=/rie:/app', '--env', 'LD_LIBRARY_PATH=/rie/lib', '--env', 'COLOUR=red', '--env', 'SHAPE=round', '--workdir', '/app', tar)
        os.remove(tar)
    return ['own:1', 'own:2']


def create(fn, name, uri, **more):
    return fn.create_function(FunctionName=name, PackageType='Image', Code={'ImageUri': uri}, Role=ROLE, Timeout=60, **more)


@pytest.fixture(scope='module')
def own(fn, images):
    made = create(fn, 'own', images[0], Environment={'Variables': {'COLOUR': 'blue'}})
    assert made['PackageType'] == 'Image' and 'Runtime' not in made and 'Handler' not in made and len(made['CodeSha256']) == 64
    fn.get_waiter('function_active_v2').wait(FunctionName='own')
    return 'own'


def test_an_image_speaks_the_runtime_api(fn, own):
    answer, value = call(fn, own, {'a': 1}, LogType='Tail')
    assert 'FunctionError' not in answer, value
    env = value['env']
    assert value['cwd'] == '/app' and env['COLOUR'] == 'blue' and env['SHAPE'] == 'round' and env['PYTHONPATH'] == '/rie:/app'
    assert env['AWS_LAMBDA_FUNCTION_NAME'] == 'own' and env['AWS_REGION'] == 'us-east-1' and env['AWS_LAMBDA_RUNTIME_API']
    assert value['arn'].endswith(':function:own') and value['uid'] != 0 and value['ric']
    assert "seen {'a': 1}" in base64.b64decode(answer['LogResult']).decode()
    answer, value = call(fn, own, {'do': 'fail'})
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'KeyError'
    assert call(fn, own, {'do': 'write'})[1] == 'Read-only file system'
    assert {'app', 'rie', 'tmp', 'proc', 'dev'} <= set(call(fn, own, {'do': 'root'})[1])


def test_what_is_told_of_it(fn, own, images):
    got = fn.get_function(FunctionName=own)
    digest = got['Configuration']['CodeSha256']
    assert got['Code']['RepositoryType'] == 'ECR' and got['Code']['ImageUri'] == 'own:1'
    assert got['Code']['ResolvedImageUri'] == 'own@sha256:' + digest and 'Location' not in got['Code']


def test_image_config_replaces_what_the_image_says(fn, images):
    made = create(fn, 'other', images[0], ImageConfig={'Command': ['own.other'], 'WorkingDirectory': '/rie'})
    assert made['ImageConfigResponse']['ImageConfig'] == {'Command': ['own.other'], 'WorkingDirectory': '/rie'}
    fn.get_waiter('function_active_v2').wait(FunctionName='other')
    assert call(fn, 'other', {})[1] == 'other'
    fn.update_function_configuration(FunctionName='other', ImageConfig={'Command': ['own.handler']})
    fn.get_waiter('function_updated_v2').wait(FunctionName='other')
    assert call(fn, 'other', {})[1]['cwd'] == '/app'
    assert fn.get_function_configuration(FunctionName='other')['ImageConfigResponse']['ImageConfig'] == {'Command': ['own.handler']}


def test_new_code_and_versions(fn, images):
    create(fn, 'moves', images[0], ImageConfig={'Command': ['own.other']})
    fn.get_waiter('function_active_v2').wait(FunctionName='moves')
    one = fn.publish_version(FunctionName='moves')
    assert call(fn, 'moves', {})[1] == 'other'
    got = fn.update_function_code(FunctionName='moves', ImageUri=images[1])
    assert got['CodeSha256'] != one['CodeSha256']
    fn.get_waiter('function_updated_v2').wait(FunctionName='moves')
    assert call(fn, 'moves', {})[1] == 'second'
    assert call(fn, 'moves', {}, Qualifier='1')[1] == 'other'
    fn.delete_function(FunctionName='moves')


def test_a_layer_in_use_stays(tandem, fn, images):
    """The name may go; what runs keeps its files."""
    tandem.tandem('image', 'tag', 'own:1', 'gone:1')
    create(fn, 'keeps', 'gone:1', ImageConfig={'Command': ['own.other']})
    assert call(fn, 'keeps', {})[1] == 'other'
    tandem.tandem('image', 'rm', 'gone:1')
    assert call(fn, 'keeps', {})[1] == 'other'
    fn.delete_function(FunctionName='keeps')


def test_by_an_ecr_name(fn, images):
    create(fn, 'ecr', '000000000000.dkr.ecr.us-east-1.amazonaws.com/own:2', ImageConfig={'Command': ['own.other']})
    assert call(fn, 'ecr', {})[1] == 'second'
    assert fn.get_function(FunctionName='ecr')['Code']['ResolvedImageUri'].startswith('000000000000.dkr.ecr.us-east-1.amazonaws.com/own@sha256:')


def test_what_is_refused(fn, own):
    refused('InvalidParameterValueException', 400, create, fn, 'no', '127.0.0.1:1/nobody/has:this')
    refused('InvalidParameterValueException', 400, create, fn, 'no', 'own:1', Runtime='python3.11', Handler='a.b')
    refused('InvalidParameterValueException', 400, fn.update_function_code, FunctionName=own, ZipFile=b'x')
    refused('InvalidParameterValueException', 400, fn.create_function, FunctionName='no', Role=ROLE, Runtime='python3.11', Handler='a.b', Code={'ImageUri': 'own:1'})


def test_an_entrypoint_that_is_not_there(fn, images):
    create(fn, 'nowhere', images[0], ImageConfig={'EntryPoint': ['/no/such/file']})
    answer, value = call(fn, 'nowhere', {})
    assert answer['FunctionError'] == 'Unhandled' and value['errorType'] == 'Runtime.InvalidEntrypoint' and '/no/such/file' in value['errorMessage']


HOOKED = '''
import os, time
from snapshot_restore_py import register_before_snapshot, register_after_restore
seen = []
register_before_snapshot(seen.append, 'before')
register_after_restore(seen.append, 'after')
def handler(event, context):
    if 'together' in event:
        open('/tmp/here-%d' % os.getpid(), 'w').close()
        until = time.time() + 15
        while len([f for f in os.listdir('/tmp') if f.startswith('here-')]) < event['together'] and time.time() < until:
            time.sleep(0.05)
    return [seen, os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'], os.getpid()]
def bad(event, context):
    return 1
if os.environ.get('BAD'):
    register_after_restore(lambda: 1 / 0)
'''


@pytest.fixture(scope='module')
def hooked(tandem, tmp_path_factory):
    tar = image_tar(str(tmp_path_factory.mktemp('hooked') / 'h.tar'), HOOKED)
    tandem.tandem('image', 'import', '--name', 'hooked:1', '--entrypoint', '["/usr/bin/python3","-m","awslambdaric"]', '--cmd', '["own.handler"]',
                  '--env', 'PYTHONPATH=/rie:/app', '--env', 'LD_LIBRARY_PATH=/rie/lib', '--workdir', '/app', tar)
    os.remove(tar)
    return 'hooked:1'


def test_restore_hooks_of_an_unmodified_client(fn, hooked):
    """Nothing is saved of an image, but a runtime that takes part in SnapStart is told that it was restored."""
    create(fn, 'hookedimage', hooked, SnapStart={'ApplyOn': 'PublishedVersions'})
    fn.get_waiter('function_active_v2').wait(FunctionName='hookedimage')
    fn.publish_version(FunctionName='hookedimage')
    fn.get_waiter('published_version_active').wait(FunctionName='hookedimage', Qualifier='1')
    assert call(fn, 'hookedimage', {}, Qualifier='1')[1][:2] == [['before', 'after'], 'snap-start']
    assert call(fn, 'hookedimage', {})[1][:2] == [[], 'on-demand']
    fn.delete_function(FunctionName='hookedimage')
    create(fn, 'hookedbad', hooked, SnapStart={'ApplyOn': 'PublishedVersions'}, Environment={'Variables': {'BAD': 'yes'}})
    fn.get_waiter('function_active_v2').wait(FunctionName='hookedbad')
    fn.publish_version(FunctionName='hookedbad')
    refused('SnapStartException', 400, fn.invoke, FunctionName='hookedbad', Qualifier='1')
    fn.delete_function(FunctionName='hookedbad')


def test_several_calls_at_once_of_an_unmodified_client(fn, hooked):
    create(fn, 'hookedmany', hooked, MemorySize=512, CapacityProviderConfig={'LambdaManagedInstancesCapacityProviderConfig': {
        'CapacityProviderArn': 'arn:aws:lambda:us-east-1:000000000000:capacity-provider:here', 'PerExecutionEnvironmentMaxConcurrency': 3}})
    fn.get_waiter('function_active_v2').wait(FunctionName='hookedmany')
    with concurrent.futures.ThreadPoolExecutor(3) as many:
        got = list(many.map(lambda _: call(fn, 'hookedmany', {'together': 3})[1], range(3)))
    assert len({g[2] for g in got}) == 3                             # its processes, of one instance
    fn.delete_function(FunctionName='hookedmany')
