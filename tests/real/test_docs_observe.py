"""docs/observe.md: its example, line by line as it stands there."""
import os, re, subprocess

from conftest import TANDEM, TOP


def test_the_example_runs(tandem, tmp_path):
    tandem.boto('sts')                                 # makes the key
    text = open(os.path.join(TOP, 'docs', 'observe.md')).read()
    script = re.search(r'```sh\n(.*?)```', text, re.S)[1]
    tools = tmp_path / 'bin'
    tools.mkdir()
    for name, line in {'tandem': f'exec {TANDEM} "$@" --state {tandem.state}',
                       'aws': f'exec {TOP}/build/venv/bin/python -m awscli --region us-east-1 --output json "$@"',
                       'kubectl': f'exec {tandem.kubectls[0]} --kubeconfig {tandem.state}/kubeconfig "$@"'}.items():
        (tools / name).write_text(f'#!/bin/sh\n{line}\n')
        (tools / name).chmod(0o755)
    done = subprocess.run(['bash', '-euxo', 'pipefail', '-c', script], cwd=tmp_path, text=True, capture_output=True, timeout=300, env={
        **os.environ, 'PATH': f'{tools}:{os.environ["PATH"]}', 'HOME': str(tmp_path), 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'],
        'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey']})
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        for part in ('hello from hello', '"Label": "Invocations"', '"Sum": ', '"traceId":"4bf92f3577b34da6a3ce929d0e0e4736"', 'good morning', 's3cret', 'patched', 'annotated'):
            assert part in done.stdout, (part, done.stdout, done.stderr)
    finally:
        tandem.kubectl('annotate', 'namespace', 'default', 'tandem.dev/spending-limit-', check=False)
