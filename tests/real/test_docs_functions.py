"""docs/functions.md does what it says: its blocks run in their order, and print what stands behind #=>."""
import os, re, shutil, subprocess, sys, zipfile

import pytest

from conftest import TOP
from test_wasm_http import rust

PAGE = os.path.join(TOP, 'docs', 'functions.md')


@pytest.fixture(scope='module')
def place(tandem, tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    with zipfile.ZipFile(folder / 'sum.zip', 'w') as z:
        code = re.search(r'`app.py` with `(.*?)`', open(PAGE).read()).group(1)
        z.writestr('app.py', code)
    os.symlink(os.path.join(TOP, 'build', 'gallery', 'image.tar'), folder / 'image.tar')
    shutil.copytree(os.path.join(TOP, 'build', 'durable-py'), folder / 'orders', ignore=shutil.ignore_patterns('*.pyc', 'bin'))      # as pip would
    debugger = os.path.join(tandem.state, 'debug', 'python3.11')
    if not os.path.exists(debugger):                   # there is no registry in here: as if tandem debug had fetched it
        shutil.copytree(os.path.join(TOP, 'build', 'debugpy'), debugger)
    (folder / 'bin').mkdir()
    os.symlink(os.path.join(TOP, 'build', 'tandem'), folder / 'bin' / 'tandem')
    os.symlink(tandem.kubectls[0], folder / 'bin' / 'kubectl')
    yield folder
    tandem.kubectl('delete', 'schedule', 'nightly', 'often', '--ignore-not-found')
    tandem.kubectl('delete', 'function', *'hello greet sum twice squares together files site web orders stops echo'.split(), '--ignore-not-found')


def run(tandem, place, text):
    """Runs the blocks of a text; how many there were, and marks."""
    tandem.boto('s3')
    env = {**os.environ, 'PATH': f'{place}/bin:{os.path.dirname(sys.executable)}:{os.environ["PATH"]}', 'TANDEM_STATE': tandem.state, 'HOME': str(place),
           'KUBECONFIG': os.path.join(tandem.state, 'kubeconfig'), 'AWS_CONFIG_FILE': '/dev/null', 'AWS_SHARED_CREDENTIALS_FILE': '/dev/null', 'AWS_PAGER': '',
           'AWS_ENDPOINT_URL': tandem.status['aws'], 'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'],
           'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey']}
    text = text.replace('http://127.0.0.1:8080', tandem.status['gateway'].rstrip('/')).replace('http://127.0.0.1:4566', tandem.status['aws'])
    blocks = re.findall(r'```(sh|python)\n(.*?)```(?:\nIt prints\n\n((?:    [^\n]*\n)+))?', text, re.S)
    marks = 0
    for language, block, prints in blocks:
        words = ['bash', '-euo', 'pipefail', '-c', block] if language == 'sh' else [sys.executable, '-c', block]
        done = subprocess.run(words, cwd=place, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=180)
        assert done.returncode == 0, f'{block}\n{done.stdout}{done.stderr}'
        wants = re.findall(r'^#=> (.*)$', block, re.M) if language == 'sh' else [line.strip() for line in prints.splitlines()]
        at = 0
        for want in wants:
            at = done.stdout.find(want, at)
            assert at >= 0, f'{want!r} is not in what this prints:\n{block}\n{done.stdout}'
            at += len(want)
            marks += 1
    return len(blocks), marks


def sections():
    """The page without what needs wasmtime's library, and that."""
    text = open(PAGE).read()
    wasm, http = (re.search(f'^## {title}\n.*?(?=^## )', text, re.S | re.M).group(0) for title in ('A Wasm module', 'A Wasm HTTP component'))
    rest = text.replace(wasm, '').replace(http, '')
    return rest.replace('tandem up --detach\nexport KUBECONFIG=/var/lib/tandem/kubeconfig\n', ''), wasm, http     # an instance runs already


def test_the_page_says_what_happens(tandem, place):
    blocks, marks = run(tandem, place, sections()[0])
    assert blocks >= 11 and marks >= 16


def test_the_page_says_what_wasm_does(tandem, place):
    if not os.path.exists(os.environ.get('TANDEM_WASMTIME') or os.path.join(TOP, 'build', 'deps', 'lib', 'libwasmtime.so')):
        pytest.skip('no wasmtime: tools/deps build brings it')
    assert run(tandem, place, sections()[1]) == (1, 2)
    tandem.kubectl('delete', 'function', 'echo')


def test_the_page_says_what_a_component_does(tandem, place, tmp_path):
    if not os.path.exists(os.environ.get('TANDEM_WASMTIME') or os.path.join(TOP, 'build', 'deps', 'lib', 'libwasmtime.so')):
        pytest.skip('no wasmtime: tools/deps build brings it')
    section = sections()[2]
    shutil.copy(rust(tmp_path, re.search(r'```rust\n(.*?)```', section, re.S).group(1), 'lib'), place / 'page.wasm')
    assert run(tandem, place, section) == (1, 1)
    tandem.kubectl('delete', 'function', 'page')
