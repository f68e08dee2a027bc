"""Wasm components: HTTP functions (wasi:http/incoming-handler) and commands (wasi:cli/run). One is written by hand (wasm_http.wat), one comes
out of rustc, one out of componentize-py (COMPONENTIZE=1 tests/real/prepare brings it); where such a tool is not to be had its test is skipped."""
import glob, http.client, json, os, shutil, subprocess, urllib.parse

import pytest

from conftest import TOP, eventually
from test_wasm import module, needs

HERE = os.path.dirname(__file__)
# It exports what it must; nobody calls it
HANDLE = '''(core module $m (func (export "f"))) (core instance $c (instantiate $m)) (func $f (canon lift (core func $c "f")))
  (instance $h (export "handle" (func $f))) (export "wasi:http/incoming-handler@0.2.0" (instance $h))'''
MANY = '\n'.join(f'(import "wasi:io/x{i}@0.2.0" (instance))' for i in range(3000))


class Site:
    """A function's URL, over one connection."""
    def __init__(self, url):
        at = urllib.parse.urlsplit(url)
        self.path, self.at = at.path, (at.hostname, at.port)

    def ask(self, path, body=None, method=None, headers={}):
        conn = http.client.HTTPConnection(*self.at, timeout=60)
        try:
            conn.request(method or ('GET' if body is None else 'POST'), self.path + path, body, dict(headers))
            got = conn.getresponse()
            return got.status, got.read(), dict(got.headers)
        finally:
            conn.close()


@pytest.fixture(scope='module')
def hand(tandem, tmp_path_factory):
    file = tmp_path_factory.mktemp('hand') / 'wasm-hand.wat'
    file.write_text(open(os.path.join(HERE, 'wasm_http.wat')).read())
    site = Site(tandem.tandem('deploy', str(file), '--timeout', '2').stdout.strip())
    yield site
    tandem.kubectl('delete', 'function', 'wasm-hand')


@needs
def test_requests_are_answered(tandem, hand):
    made = tandem.get('function', 'wasm-hand')
    assert made['spec']['runtime'] == 'wasm' and made['spec']['http'] is not None and made['status']['state'] == 'Active', made
    for _ in range(3):  # nothing of a request is left for the next one
        assert hand.ask('count')[:2] == (200, b'called 1')
    assert hand.ask('missing')[:2] == (404, b'no such page\n')
    assert hand.ask('echo', b'some words')[:2] == (200, b'some words')
    status, body, _ = hand.ask('echo', None, 'HEAD')
    assert (status, body) == (200, b'')


@needs
def test_bodies_stream(hand):
    big = os.urandom(2 << 20)
    assert hand.ask('echo', iter([big[:7], big[7:900000], big[900000:]]))[:2] == (200, big)
    # what was sent comes back before the rest is sent
    conn = http.client.HTTPConnection(*hand.at, timeout=60)
    conn.putrequest('POST', hand.path + 'echo')
    conn.putheader('transfer-encoding', 'chunked')
    conn.endheaders()
    conn.send(b'5\r\nfirst\r\n')
    got = conn.response_class(conn.sock, method='POST')
    got.begin()
    assert got.read1(100) == b'first'
    conn.send(b'6\r\nsecond\r\n')
    assert got.read1(100) == b'second'
    conn.send(b'0\r\n\r\n')
    assert got.read() == b''
    conn.close()


@needs
def test_a_bad_end_is_told(tandem, hand):
    assert hand.ask('trap')[0] == 502
    assert hand.ask('count')[:2] == (200, b'called 1')
    assert hand.ask('loop')[0] == 504
    assert hand.ask('count')[:2] == (200, b'called 1')
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # its answer had begun
        hand.ask('late')
    assert hand.ask('count')[:2] == (200, b'called 1')
    said = eventually(lambda: (lambda t: t if t.count('Sandbox.Timedout') >= 2 and 'Runtime.Trap' in t else None)(
        tandem.tandem('logs', 'wasm-hand', '--since', '10m').stdout))
    assert 'unreachable' in said


@needs
@pytest.mark.parametrize('name, text, part', [
    ('none', '(component)', 'exports neither'),
    ('env', f'(component (import "env:x/y@1.0.0" (instance (export "f" (func)))) {HANDLE})', 'env:x/y@1.0.0, which is not of WASI 0.2'),
    ('many', f'(component {MANY} {HANDLE})', 'imports 3000 interfaces'),
    ('asks', '(component (import "wasi:io/poll@0.2.0" (func)) ' + HANDLE + ')', 'but not as an interface'),
    ('future', f'(component {HANDLE})'.replace('0.2.0', '0.3.0'), 'exports neither'),
    ('text', '(component (instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i)))', 'has no function handle'),
])
def test_what_does_not_fit_is_refused(tandem, tmp_path, name, text, part):
    file = tmp_path / f'wasm-no-{name}.wat'
    file.write_text(text)
    try:
        done = tandem.tandem('deploy', str(file), check=False)
        said = tandem.get('function', f'wasm-no-{name}')['status'].get('stateReason', '') + done.stderr
        assert done.returncode and part in said, said
    finally:
        tandem.kubectl('delete', 'function', f'wasm-no-{name}', check=False)


# ---- made by tools ----

def rust(folder, source, kind):
    """A component that rustc makes, without any change by us; a skip where the target or crates are not to be had."""
    cargo = shutil.which('cargo') or os.path.expanduser('~/.cargo/bin/cargo')
    rustc = os.path.join(os.path.dirname(cargo), 'rustc')
    if not os.path.exists(cargo):
        pytest.skip('no cargo')
    root = subprocess.run([rustc, '--print', 'sysroot'], capture_output=True, text=True).stdout.strip()
    if not os.path.isdir(os.path.join(root, 'lib', 'rustlib', 'wasm32-wasip2')):
        pytest.skip('no Rust target wasm32-wasip2: rustup target add wasm32-wasip2')
    src = folder / 'src'
    src.mkdir()
    (src / ('lib.rs' if kind == 'lib' else 'main.rs')).write_text(source)
    (folder / 'Cargo.toml').write_text('[package]\nname = "page"\nversion = "0.1.0"\nedition = "2021"\n' + (
        '[lib]\ncrate-type = ["cdylib"]\n[dependencies]\nwasip2 = "=1.0.4"\n' if kind == 'lib' else ''))
    done = subprocess.run([cargo, 'build', '--release', '--offline', '--target', 'wasm32-wasip2'], cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode and 'no matching package' in done.stderr:
        pytest.skip('the crate wasip2 is not here: tests/real/prepare fetches it')
    assert done.returncode == 0, done.stderr
    return folder / 'target' / 'wasm32-wasip2' / 'release' / 'page.wasm'


RUST_PAGE = '''
use std::io::Write;
use wasip2::http::types::*;
struct Page;
wasip2::http::proxy::export!(Page);
impl wasip2::exports::http::incoming_handler::Guest for Page {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let fields = Fields::new();
        fields.append("x-by", b"rust").unwrap();
        fields.append("set-cookie", b"a=1").unwrap();
        fields.append("set-cookie", b"b=2").unwrap();
        assert!(fields.set("connection", &[b"close".to_vec()]).is_err());
        let path = request.path_with_query().unwrap();
        let text = if path.starts_with("/in") {
            let body = request.consume().unwrap();
            let stream = body.stream().unwrap();
            let mut all = Vec::new();
            while let Ok(piece) = stream.blocking_read(4096) { all.extend(piece); }
            format!("{} bytes", all.len())
        } else {
            eprintln!("asked for {path}");
            std::thread::sleep(std::time::Duration::from_millis(5));
            format!("{:?} {} {} {:?} {}", request.method(), path, String::from_utf8(request.headers().get("x-say")[0].clone()).unwrap(),
                std::fs::read_dir("/").is_err(), std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap())
        };
        let response = OutgoingResponse::new(fields);
        response.set_status_code(201).unwrap();
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let mut stream = body.write().unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}
'''


@needs
def test_a_rust_component(tandem, tmp_path):
    shutil.copy(rust(tmp_path, RUST_PAGE, 'lib'), tmp_path / 'wasm-rust.wasm')
    site = Site(tandem.tandem('deploy', str(tmp_path / 'wasm-rust.wasm'), '--timeout', '20').stdout.strip())
    try:
        status, body, headers = site.ask('a/b?c=d', headers={'x-say': 'words'})
        assert (status, body, headers['x-by']) == (201, b'Method::Get /a/b?c=d words true wasm-rust', 'rust'), body
        assert site.ask('in', b'x' * 100000)[1] == b'100000 bytes'
        eventually(lambda: 'asked for /a/b' in tandem.tandem('logs', 'wasm-rust', '--since', '10m').stdout)
    finally:
        tandem.kubectl('delete', 'function', 'wasm-rust')


@needs
def test_a_rust_command(tandem, tmp_path):
    made = rust(tmp_path, '''
use std::io::Read;
fn main() {
    let mut event = String::new();
    std::io::stdin().read_to_string(&mut event).unwrap();
    if event == "\\"bad\\"" { eprintln!("so bad"); std::process::exit(3); }
    let files = std::fs::read_dir("/var/task").unwrap().count();
    std::fs::write("/tmp/x", "y").unwrap();
    print!("{{\\"event\\": {event}, \\"files\\": {files}, \\"id\\": {}}}", std::env::var("LAMBDA_RUNTIME_AWS_REQUEST_ID").is_ok());
}''', 'bin')
    shutil.copy(made, tmp_path / 'wasm-command.wasm')
    tandem.tandem('deploy', str(tmp_path / 'wasm-command.wasm'), '--timeout', '20')
    try:
        assert json.loads(tandem.tandem('invoke', 'wasm-command', '[1]').stdout) == {'event': [1], 'files': 1, 'id': True}
        done = tandem.tandem('invoke', 'wasm-command', '"bad"', check=False)
        assert done.returncode and 'exit status' in done.stdout + done.stderr, done
    finally:
        tandem.kubectl('delete', 'function', 'wasm-command')


@needs
def test_a_python_component(tandem, tmp_path):
    tool = os.path.join(TOP, 'build', 'componentize')
    wit = sorted(glob.glob(os.path.expanduser('~/.cargo/registry/src/*/wasip2-1.0.4*/wit')))
    if not os.path.exists(tool):
        pytest.skip('no componentize-py: COMPONENTIZE=1 tests/real/prepare fetches it')
    if not wit:
        pytest.skip('the crate wasip2, which has the WIT of wasi:http, is not here: tests/real/prepare fetches it')
    (tmp_path / 'app.py').write_text('''
import json, sys
from wit_world import exports
from componentize_py_types import Ok
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam

class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, out: ResponseOutparam):
        print("asked for", request.path_with_query())
        response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
        response.set_status_code(202)
        body = response.body()
        ResponseOutparam.set(out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(json.dumps({"path": request.path_with_query(), "python": sys.version_info[0]}).encode())
        OutgoingBody.finish(body, None)
''')
    done = subprocess.run([os.path.join(tool, 'bin', 'componentize-py'), '-d', wit[-1], '-w', 'wasi:http/proxy@0.2.12', 'componentize', '-p', tmp_path, 'app',
                           '-o', tmp_path / 'wasm-python.wasm'], env={**os.environ, 'PYTHONPATH': tool}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([os.path.join(TOP, 'build', 'tandem'), 'deploy', str(tmp_path / 'wasm-python.wasm'), '--memory', '256', '--timeout', '60', '--state', tandem.state],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    try:
        status, body, headers = Site(done.stdout.strip()).ask('a?b=c')
        assert (status, json.loads(body), headers['content-type']) == (202, {'path': '/a?b=c', 'python': 3}, 'application/json')
        eventually(lambda: 'asked for /a?b=c' in tandem.tandem('logs', 'wasm-python', '--since', '10m').stdout)
    finally:
        tandem.kubectl('delete', 'function', 'wasm-python')
