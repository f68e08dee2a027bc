"""Functions that are Wasm modules, by tandem deploy, kubectl, boto3 and their URL. The modules are made of their text form by
wasmtime's own library; without it (tools/deps) all but the last are skipped."""
import base64, ctypes, json, os, urllib.request

import pytest

from conftest import TOP, eventually, running
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

LIBRARY = os.environ.get('TANDEM_WASMTIME') or os.path.join(TOP, 'build', 'deps', 'lib', 'libwasmtime.so')
needs = pytest.mark.skipif(not os.path.exists(LIBRARY), reason='no wasmtime: tools/deps build brings it')

# What comes in goes out, behind a text; "!" at the front: to the log, and then no end of it
SAY = r'''(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "TEXT")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 256)) (i32.store (i32.const 4) (i32.const 60000))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (i32.eq (i32.load8_u (i32.const 256)) (i32.const 33)) (then
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 12)))
      (unreachable)))
    (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 4))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 12)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))'''
# Any request is answered with its own words
PAGE = r'''(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "{\"statusCode\":201,\"headers\":{\"content-type\":\"text/plain\",\"x-by\":\"wasm\"},\"body\":\"made by wasm\"}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 32)) (i32.store (i32.const 4) (i32.const 94))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))'''


class Bytes(ctypes.Structure):
    _fields_ = [('n', ctypes.c_size_t), ('p', ctypes.POINTER(ctypes.c_char))]


def module(text):
    lib = ctypes.CDLL(LIBRARY)
    lib.wasmtime_wat2wasm.restype = ctypes.c_void_p
    made = Bytes()
    assert not lib.wasmtime_wat2wasm(text.encode(), ctypes.c_size_t(len(text.encode())), ctypes.byref(made)), text
    wasm = made.p[:made.n]
    lib.wasm_byte_vec_delete(ctypes.byref(made))
    return wasm


def say(word):
    return module(SAY.replace('TEXT', word))


@needs
def test_a_folder_is_deployed(tandem, tmp_path):
    folder = tmp_path / 'wasm-folder'
    folder.mkdir()
    (folder / 'shop.wasm').write_bytes(say('one '))
    tandem.tandem('deploy', str(folder))
    try:
        made = tandem.get('function', 'wasm-folder')
        assert made['spec']['runtime'] == 'wasm' and made['spec']['handler'] == 'shop.wasm' and made['status']['state'] == 'Active'
        assert json.loads(tandem.tandem('invoke', 'wasm-folder', '"x"').stdout) == 'one "x"'
        (folder / 'shop.wasm').write_bytes(say('two '))
        tandem.tandem('deploy', str(folder))
        assert json.loads(tandem.tandem('invoke', 'wasm-folder', '"x"').stdout) == 'two "x"'
        # what is no module is refused, in words
        (folder / 'shop.wasm').write_bytes(say('two ')[:-3])
        done = tandem.tandem('deploy', str(folder), check=False)
        assert done.returncode and 'the Wasm module shop.wasm is refused: ' in done.stderr and 'unexpected' in done.stderr, done.stderr
        status = tandem.get('function', 'wasm-folder')['status']
        assert (status['state'], status['stateReasonCode']) == ('Failed', 'FunctionError.InvalidEntryPoint') and 'refused' in status['stateReason'], status
        done = tandem.tandem('invoke', 'wasm-folder', '"x"', check=False)
        assert done.returncode and 'is refused' in done.stdout + done.stderr, done
    finally:
        tandem.kubectl('delete', 'function', 'wasm-folder')


@needs
def test_its_url(tandem, tmp_path):
    folder = tmp_path / 'wasm-page'
    folder.mkdir()
    (folder / 'main.wat').write_text(PAGE)
    url = tandem.tandem('deploy', str(folder)).stdout.strip()
    try:
        with urllib.request.urlopen(url + 'any/path', timeout=20) as got:
            assert (got.status, got.headers['x-by'], got.headers['content-type'], got.read()) == (201, 'wasm', 'text/plain', b'made by wasm')
    finally:
        tandem.kubectl('delete', 'function', 'wasm-page')


@needs
def test_a_file_is_deployed(tandem, tmp_path):
    (tmp_path / 'wasm-file.wasm').write_bytes(say('file '))
    (tmp_path / 'wasm-text.wat').write_text(SAY.replace('TEXT', 'text'))
    for name, file, word in (('wasm-file', 'wasm-file.wasm', 'file'), ('wasm-text', 'wasm-text.wat', 'text')):
        tandem.tandem('deploy', str(tmp_path / file))
        try:
            assert tandem.get('function', name)['spec']['handler'] == file
            assert json.loads(tandem.tandem('invoke', name, '7').stdout).startswith(word)
        finally:
            tandem.kubectl('delete', 'function', name)
    done = tandem.tandem('deploy', str(tmp_path / 'nothing.wasm'), check=False)
    assert done.returncode == 2 and 'no such folder, zip or module' in done.stderr


@needs
def test_versions_logs_and_meter(tandem, fn):
    name = 'wasm-life'
    create(fn, name, code=zipped(say('one '), 'main.wasm'), Runtime='wasm', Handler='main.wasm', Timeout=5)
    try:
        fn.get_waiter('function_active_v2').wait(FunctionName=name)
        first = fn.publish_version(FunctionName=name)['Version']
        fn.update_function_code(FunctionName=name, ZipFile=zipped(say('two '), 'main.wasm'))
        fn.get_waiter('function_updated_v2').wait(FunctionName=name)
        assert fn.invoke(FunctionName=name, Payload=b'1')['Payload'].read() == b'two 1'
        got = fn.invoke(FunctionName=name, Payload=b'2', Qualifier=first)
        assert got['Payload'].read() == b'one 2' and got['ExecutedVersion'] == first
        fn.create_alias(FunctionName=name, Name='live', FunctionVersion=first)
        assert fn.invoke(FunctionName=name + ':live', Payload=b'3')['Payload'].read() == b'one 3'
        # a trap is told as the platform tells errors, in the answer and in the log
        got = fn.invoke(FunctionName=name, Payload=b'!broken', LogType='Tail')
        error = json.loads(got['Payload'].read())
        assert got['FunctionError'] == 'Unhandled' and error['errorType'] == 'Runtime.Trap' and 'unreachable' in error['errorMessage'], error
        tail = base64.b64decode(got['LogResult']).decode()
        assert '!broken' in tail and '[ERROR] Runtime.Trap: ' in tail and 'REPORT RequestId: ' in tail, tail
        logs = tandem.boto('logs')
        eventually(lambda: any('!broken' in e['message'] for e in logs.filter_log_events(logGroupName='/aws/lambda/' + name)['events']))
        assert name in tandem.tandem('top', '--once', check=False).stdout or name in tandem.tandem('top').stdout
    finally:
        fn.delete_function(FunctionName=name)


@needs
def test_a_bad_module_is_failed(tandem, fn):
    name = 'wasm-bad'
    create(fn, name, code=zipped('(module (import "env" "draw" (func)) (func (export "_start")))', 'main.wat'), Runtime='wasm', Handler='main.wat')
    try:
        c = eventually(lambda: (lambda c: c if c['State'] == 'Failed' else None)(fn.get_function_configuration(FunctionName=name)))
        assert 'env::draw' in c['StateReason'], c
        refused('InvalidRuntimeException', 502, fn.invoke, FunctionName=name, Payload=b'1')
    finally:
        fn.delete_function(FunctionName=name)


def test_without_the_library_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv('TANDEM_WASMTIME', '/nonexistent/libwasmtime.so')
    with running('--pod-cidr', '10.58.0.0/16', prefix='tw-') as own:
        folder = tmp_path / 'wasm-nolib'
        folder.mkdir()
        (folder / 'main.wat').write_text(PAGE)
        done = own.tandem('deploy', str(folder), check=False)
        assert done.returncode and 'the runtime wasm is not on this machine' in done.stderr, done.stderr
        assert own.get('function', 'wasm-nolib')['status']['stateReasonCode'] == 'InvalidRuntime'
