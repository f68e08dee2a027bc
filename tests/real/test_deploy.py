"""tandem deploy: folders in every language, zips and images; options; --watch."""
import json, os, re, subprocess, time, urllib.error, urllib.request, zipfile

import pytest

from conftest import TANDEM, TOP, eventually

PY = 'import os\ndef handler(event, context):\n    return {"said": "%s", "env": {k: v for k, v in os.environ.items() if k.startswith("OWN_")}, "memory": context.memory_limit_in_mb}\n'


def folder(tmp_path, name, **files):
    one = tmp_path / name
    for file, text in files.items():
        path = one / file.replace('__', '/').replace('_dot_', '.')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return one


def fetch(url):
    return urllib.request.urlopen(url, timeout=60).read().decode()


def refused(tandem, *words, code=2):
    done = tandem.tandem('deploy', *words, check=False)
    assert done.returncode == code and done.stderr.startswith('tandem: ') and done.stderr.count('\n') == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize('name,files,runtime,handler', [
    ('py-own', {'lambda_function_dot_py': 'def lambda_handler(e, c): return "yes"\n'}, 'python', 'lambda_function.lambda_handler'),
    ('py-app', {'app_dot_py': 'async_ = 1\ndef lambda_handler(e, c): return "yes"\n'}, 'python', 'app.lambda_handler'),
    ('js-mjs', {'index_dot_mjs': 'export const handler = async () => "yes"\n'}, 'nodejs', 'index.handler'),
    ('js-cjs', {'index_dot_js': 'exports.handler = async () => "yes"\n'}, 'nodejs', 'index.handler'),
    ('js-pkg', {'package_dot_json': '{"main": "./src/shop", "type": "module"}', 'src__shop_dot_js': 'export async function handler() { return "yes" }\n'}, 'nodejs',
     'src/shop.handler'),
])
def test_folders_are_guessed(tandem, tmp_path, name, files, runtime, handler):
    url = tandem.tandem('deploy', str(folder(tmp_path, name, **files))).stdout.strip()
    spec = tandem.get('function', name)['spec']
    assert spec['runtime'].startswith(runtime) and spec['handler'] == handler, spec
    assert fetch(url).strip('"') == 'yes'


def test_a_bootstrap(tandem, tmp_path):
    one = folder(tmp_path, 'boot', bootstrap='''#!/usr/bin/python3
import os, urllib.request
base = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API'] + '/2018-06-01/runtime/invocation/'
while True:
    with urllib.request.urlopen(base + 'next') as r:
        which = r.headers['Lambda-Runtime-Aws-Request-Id']
    urllib.request.urlopen(base + which + '/response', data=b'"own"').read()
''')
    assert 'chmod +x' in refused(tandem, str(one))
    (one / 'bootstrap').chmod(0o755)
    tandem.tandem('deploy', str(one), '--timeout', '10')
    assert tandem.get('function', 'boot')['spec']['runtime'] == 'provided.al2023'
    assert json.loads(tandem.tandem('invoke', 'boot').stdout) == 'own'


def test_what_cannot_be_guessed(tandem, tmp_path):
    assert 'no handler' in refused(tandem, str(folder(tmp_path, 'nothing', readme='x')))
    assert 'app.py and index.mjs' in refused(tandem, str(folder(tmp_path, 'both', app_dot_py='handler = 1', index_dot_mjs='export const handler = 1')))
    assert 'no function handler' in refused(tandem, str(folder(tmp_path, 'without', index_dot_js='exports.other = 1')))
    one = folder(tmp_path, 'odd', tools__job_dot_py='def run(e, c): return 7\n')
    assert 'no file for the handler' in refused(tandem, str(one), '--handler', 'job.run')
    tandem.tandem('deploy', str(one), '--handler', 'tools.job.run', '--url', 'off')
    assert tandem.tandem('invoke', 'odd').stdout.strip() == '7'
    tandem.tandem('deploy', str(one))                                     # what was said before counts on
    assert tandem.get('function', 'odd')['spec']['handler'] == 'tools.job.run'
    for words in (['--memory', '1'], ['--timeout', '0'], ['--env', 'X'], ['--url', 'all'], ['--image', 'x'], ['--runtime', 'cobol', '--handler', 'x']):
        refused(tandem, str(one), *words)
    assert 'not supported' in refused(tandem, str(one), '--handler', 'tools.job.run', '--runtime', 'python3.99', code=1)


@pytest.mark.parametrize('file,text', [('app_dot_py', 'def handler(e, c):\n    return (\n'), ('index_dot_mjs', 'export const handler = async () => { return ( }\n'),
                                       ('index_dot_js', 'exports.handler = async () => { return ( }\n')])
def test_code_that_cannot_be_read_is_told(tandem, tmp_path, file, text):
    one = folder(tmp_path, 'broken', **{file: text})
    said = refused(tandem, str(one))
    assert re.search(r'tandem: (app|index)\.m?(py|js):\d+: SyntaxError', said), said
    assert tandem.kubectl('get', 'function', 'broken', check=False).returncode


def test_options_stay_until_they_are_said_again(tandem, tmp_path):
    one = folder(tmp_path, 'opts', app_dot_py=PY % 'one')
    url = tandem.tandem('deploy', str(one), '--memory', '256', '--timeout', '7', '-e', 'OWN_A=1', '--env=OWN_B=x=y').stdout.strip()
    assert json.loads(fetch(url)) == {'said': 'one', 'env': {'OWN_A': '1', 'OWN_B': 'x=y'}, 'memory': '256'}
    (one / 'app.py').write_text(PY % 'two')
    assert tandem.tandem('deploy', str(one), '--url', 'iam', '--env', 'OWN_A-').stdout.strip() == url
    with pytest.raises(urllib.error.HTTPError) as e:
        fetch(url)
    assert e.value.code == 403
    tandem.tandem('deploy', str(one))                                     # nobody opens it by deploying again
    spec = tandem.get('function', 'opts')['spec']
    assert spec['url']['authType'] == 'AWS_IAM' and spec['memoryMB'] == 256 and spec['timeoutSeconds'] == 7 and spec['environment'] == {'OWN_B': 'x=y'}
    assert 'without a URL' in tandem.tandem('deploy', str(one), '--url', 'off').stdout
    got = json.loads(tandem.tandem('invoke', 'opts').stdout)
    assert got['said'] == 'two' and got['env'] == {'OWN_B': 'x=y'}


def test_a_zip(tandem, tmp_path):
    path = tmp_path / 'zipped.zip'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('index.mjs', 'import { said } from "./lib/a.mjs"\nexport const handler = async () => said\n')
        z.writestr('lib/a.mjs', 'export const said = "of a zip"\n')
    assert fetch(tandem.tandem('deploy', str(path)).stdout.strip()).strip('"') == 'of a zip'
    path.write_bytes(b'PK no zip')
    assert 'zip' in refused(tandem, str(path))
    assert 'no such' in refused(tandem, str(tmp_path / 'nowhere.zip'))


def test_an_image(tandem, tmp_path):
    from test_lambda_images import CODE, image_tar
    for said in ('first', 'second'):
        tar = image_tar(str(tmp_path / 'image.tar'), CODE.replace("return 'other'", f"return '{said}'"))
        tandem.tandem('image', 'import', '--name', 'dep:1', '--entrypoint', '["/usr/bin/python3","-m","awslambdaric"]', '--cmd', '["own.other"]',
                      '--env', 'PYTHONPATH=/rie:/app', '--env', 'LD_LIBRARY_PATH=/rie/lib', '--workdir', '/app', tar)
        os.remove(tar)
        tandem.tandem('deploy', '--image', 'dep:1', 'of-image', '--timeout', '10')   # the same tag, other code
        assert json.loads(tandem.tandem('invoke', 'of-image').stdout) == said
    tandem.tandem('deploy', str(folder(tmp_path, 'of-image', app_dot_py=PY % 'folder')))
    assert json.loads(tandem.tandem('invoke', 'of-image').stdout)['said'] == 'folder'
    tandem.tandem('deploy', '--image', 'dep:1', 'of-image')
    assert json.loads(tandem.tandem('invoke', 'of-image').stdout) == 'second'
    refused(tandem, '--image', 'dep:1', 'of-image', '--handler', 'a.b')


def test_a_server(tandem, tmp_path):
    one = folder(tmp_path, 'served', index_dot_html='a page', app_dot_py=PY % 'handler')
    for words in (['--http', ''], ['--http', 'x', '--handler', 'app.handler']):
        assert '--http' in refused(tandem, str(one), *words)
    url = tandem.tandem('deploy', str(one), '--http', 'python3 -m http.server $PORT').stdout.strip()
    assert fetch(url + 'index.html') == 'a page'
    (one / 'index.html').write_text('other page')
    tandem.tandem('deploy', str(one))                                     # it stays a server
    assert fetch(url + 'index.html') == 'other page'
    tandem.tandem('deploy', str(one), '--handler', 'app.handler')         # until it is said what else it is
    assert json.loads(fetch(url))['said'] == 'handler'


class Watching:
    def __init__(self, tandem, *words):
        self.p = subprocess.Popen([TANDEM, 'deploy', '--watch', *words, '--state', tandem.state], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL, text=True)

    def __enter__(self):
        return self

    def line(self):
        return self.p.stdout.readline().strip()

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(60)
        self.p.stdout.close()


def test_watch(tandem, tmp_path):
    one = folder(tmp_path, 'watched', app_dot_py='from lib import said\ndef handler(e, c): return said.WORD\n', lib__said_dot_py='WORD = "a"\n')
    with Watching(tandem, str(one)) as w:
        url = w.line()
        assert 'watching' in w.line() and fetch(url).strip('"') == 'a'
        took = []
        for word in 'bcdefg':
            began = time.monotonic()
            (one / 'lib' / 'said.py').write_text(f'WORD = "{word}"\n')
            while fetch(url).strip('"') != word:
                assert time.monotonic() - began < 90
            took.append(time.monotonic() - began)
            assert re.search(r'^\d\d:\d\d:\d\d deployed in \d+ ms \(lib/said.py\)$', w.line())
        print('from save to the new answer, ms:', [round(t * 1000) for t in took])
        (one / 'lib' / 'said.py').write_text('WORD = "h\n')
        said = w.line()
        assert 'lib/said.py:1: SyntaxError' in said and 'goes on answering' in said, said
        assert fetch(url).strip('"') == 'g'
        # an editor that writes beside and renames; a file in a folder that was not there
        (one / 'more').mkdir()
        time.sleep(0.1)
        (one / 'more' / 'x.py').write_text('X = "x"\n')
        (one / '.said.tmp').write_text('from more.x import X\nWORD = "h" + X\n')
        os.rename(one / '.said.tmp', one / 'lib' / 'said.py')
        eventually(lambda: fetch(url).strip('"') == 'hx', 10)
        assert w.p.poll() is None
        was = tandem.get('function', 'watched')['metadata']['generation']
        (one / '.app.py.swp').write_text('x')
        (one / 'app.py~').write_text('x')
        time.sleep(0.5)
        assert tandem.get('function', 'watched')['metadata']['generation'] == was
        os.rename(one, str(one) + '-away')
        assert w.p.wait(90) == 1


def test_watch_begins_with_broken_code(tandem, tmp_path):
    one = folder(tmp_path, 'mended', index_dot_mjs='export const handler = async () => {\n')
    with Watching(tandem, str(one)) as w:
        assert 'SyntaxError' in w.line() and 'watching' in w.line()
        (one / 'index.mjs').write_text('export const handler = async () => "well"\n')
        assert 'deployed in' in w.line()
        assert json.loads(tandem.tandem('invoke', 'mended').stdout) == 'well'
