"""The program itself: help, exit codes, errors that say what to do next."""
import json, os, subprocess

from conftest import TANDEM, TOP, Instance, eventually, running


def run(*words):
    return subprocess.run([TANDEM, *words], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)


def test_help_lists_the_commands():
    done = run('help')
    assert done.returncode == 0
    for word in 'up down status kubeconfig image deploy invoke logs debug tail top trace key advise version'.split():
        assert f'  {word} ' in done.stdout
        assert run(word, '--help').returncode == 0
    assert run().returncode == 2


def test_wrong_words_are_code_2_and_one_line(tmp_path):
    for words in (['nonsense'], ['up', '--nonsense'], ['up', '--api-port', 'x'], ['up', '--api-port', '70000'], ['key', 'nonsense'], ['deploy'],
                  ['invoke']):
        done = run(*words, '--state', str(tmp_path))
        assert done.returncode == 2, words
        assert done.stderr.startswith('tandem: ') and done.stderr.count('\n') == 1, done.stderr


def test_nothing_runs_says_so(tmp_path):
    done = run('kubeconfig', '--state', str(tmp_path))
    assert done.returncode == 1 and 'tandem up' in done.stderr
    done = run('status', '--state', str(tmp_path))
    assert done.returncode == 1


def test_a_second_up_says_who_runs(tandem):
    done = tandem.tandem('up', '--detach', check=False)
    assert done.returncode == 1 and 'already running' in done.stderr and 'tandem down' in done.stderr


def test_two_instances_may_not_share_a_pod_range(tandem, tmp_path):
    done = run('up', '--detach', '--state', str(tmp_path), '--api-port', '0', '--gateway-port', '0', '--aws-port', '0')
    if done.returncode == 0:                                                # else it would live on, its mounts below pytest's folder
        run('down', '--state', str(tmp_path))
    assert done.returncode == 1 and '--pod-cidr' in done.stderr, done.stderr
    assert run('up', '--state', str(tmp_path), '--pod-cidr', 'x').returncode == 2

    def has_address():
        return '10.42.0.1/32' in subprocess.run(['ip', '-4', 'addr', 'show', 'lo'], capture_output=True, text=True).stdout
    eventually(has_address)
    run('down', '--state', str(tmp_path))                                   # nor does one that never ran take anything away
    with running('--api-only') as one:
        one.kubectl('get', '--raw', '/readyz')
    assert has_address()


def test_status(tandem):
    v = json.loads(tandem.tandem('status', '--json').stdout)
    assert v['running'] and eventually(lambda: json.loads(tandem.tandem('status', '--json').stdout)['nodes'] == 1)
    assert {p['name'] for p in v['processes']} == {'supervisor', 'server', 'node', 'gateway'}
    assert 'kubernetes' in tandem.tandem('status').stdout


def test_version():
    assert json.loads(run('version', '--json').stdout)['kubernetes'].startswith('v1.36')


def test_deploy_invoke_logs(tandem, tmp_path):
    import urllib.request
    folder = tmp_path / 'cli-hello'
    folder.mkdir()
    (folder / 'handler.py').write_text('def handler(event, context):\n    print("hello log")\n    return {"got": event.get("x"), "path": event.get("rawPath")}\n')
    url = tandem.tandem('deploy', str(folder)).stdout.strip()
    assert url.startswith('http://127.0.0.1:')
    assert json.loads(urllib.request.urlopen(url + 'sub?y=1', timeout=60).read())['path'] == '/sub'
    assert json.loads(tandem.tandem('invoke', 'cli-hello', '{"x": 5}').stdout)['got'] == 5
    eventually(lambda: 'hello log' in tandem.tandem('logs', 'cli-hello').stdout)
    (folder / 'handler.py').write_text('def handler(event, context):\n    raise ValueError("broken")\n')
    tandem.tandem('deploy', str(folder))
    done = tandem.tandem('invoke', 'cli-hello', check=False)
    assert done.returncode == 1 and 'broken' in done.stdout
    tandem.kubectl('delete', 'function', 'cli-hello')
    done = tandem.tandem('invoke', 'nobody', check=False)
    assert done.returncode == 1 and done.stderr.startswith('tandem: ')


def test_deploy_of_a_folder_without_handler(tandem, tmp_path):
    done = tandem.tandem('deploy', str(tmp_path), 'x', check=False)
    assert done.returncode == 2 and 'handler' in done.stderr


def test_image_ls_import_rm(tandem):
    tar = os.path.join(TOP, 'build', 'gallery', 'image.tar')
    tandem.tandem('image', 'import', '--name', 'cli-other:3', tar)
    assert 'cli-other:3' in tandem.tandem('image', 'ls').stdout
    tandem.tandem('image', 'rm', 'cli-other:3')
    assert 'cli-other:3' not in tandem.tandem('image', 'ls').stdout
    done = tandem.tandem('image', 'import', '--name', 'broken:1', __file__, check=False)
    assert done.returncode != 0 and done.stderr.startswith('tandem image: ')
    assert tandem.tandem('image', 'nonsense', check=False).returncode == 2


def test_keys(tandem):
    key = json.loads(tandem.tandem('key', 'create').stdout)
    assert key['AccessKeyId'] in tandem.tandem('key', 'ls').stdout
    tandem.tandem('key', 'rm', key['AccessKeyId'])
    assert key['AccessKeyId'] not in tandem.tandem('key', 'ls').stdout
