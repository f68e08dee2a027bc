"""What the tests of tests/real share: one running instance, and the clients that drive it.

The tests run in a network namespace of their own (tests/real/run makes it), so ports and addresses are free.
"""
import contextlib, json, os, shutil, signal, subprocess, sys, tempfile, time

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TANDEM = os.path.join(TOP, 'build', 'tandem')


def eventually(what, seconds=30, every=0.05):
    """Calls what() until it answers something true, and answers that; fails with what it said last."""
    until, last = time.time() + seconds, None
    while time.time() < until:
        try:
            last = what()
            if last:
                return last
        except Exception as e:                        # not there yet: said in the failure below
            last = e
        time.sleep(every)
    raise AssertionError(f'not within {seconds} s: {last!r}')


def id_of(state):
    """The instance's id, as it is in the names of its cgroups and links (src/cli/opts.c)."""
    h = 2166136261
    for c in state.encode():
        h = ((h ^ c) * 16777619) & 0xffffffff
    return f'{h ^ h >> 15:08x}'


class Instance:
    def __init__(self, state):
        self.state, self.id = state, id_of(state)
        self.kubectls = [p for p in (os.path.join(TOP, 'build', 'tools', n) for n in ('kubectl', 'kubectl-1.36')) if os.path.exists(p)]

    def tandem(self, *words, check=True, timeout=60, **more):
        done = subprocess.run([TANDEM, *words, '--state', self.state], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, timeout=timeout, **more)
        if check and done.returncode:
            raise AssertionError(f'tandem {" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}')
        return done

    def up(self, *more):
        self.tandem('up', '--detach', '--api-port', '0', '--gateway-port', '0', '--aws-port', '0', *more, timeout=60)
        self.status = json.loads(self.tandem('status', '--json').stdout)

    def down(self):
        return self.tandem('down', check=False, timeout=90)

    def processes(self):
        """name -> pid of the parts, as `tandem status` tells them."""
        return {p['name']: p['pid'] for p in json.loads(self.tandem('status', '--json').stdout)['processes']}

    def pids(self, *, command=b'', group=''):
        """This instance's own processes (by their cgroup) whose command line and group hold these words."""
        found = set()
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                of = open(f'/proc/{pid}/cgroup').read()
                if 'tandem-' + self.id in of and group in of and command in open(f'/proc/{pid}/cmdline', 'rb').read():
                    found.add(pid)
            except OSError:                           # it has gone
                pass
        return found

    def kill(self, name):
        """kill -9 of one part, which this instance started; answers when the supervisor has a new one."""
        was = self.processes()[name]
        os.kill(was, signal.SIGKILL)
        eventually(lambda: self.processes().get(name, was) != was, 20)

    def kubectl(self, *words, check=True, text=None, program=0, timeout=60):
        done = subprocess.run([self.kubectls[program], '--kubeconfig', os.path.join(self.state, 'kubeconfig'), *words], text=True, input=text,
                              stdin=None if text is not None else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              env={**os.environ, 'HOME': self.state})
        if check and done.returncode:
            raise AssertionError(f'kubectl {" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}')
        return done

    def get(self, *words):
        return json.loads(self.kubectl('get', *words, '-o', 'json').stdout)

    def boto(self, service, **more):
        import boto3, botocore.config
        if not hasattr(self, 'key'):
            self.key = json.loads(self.tandem('key', 'create').stdout)
        config = botocore.config.Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 1}, read_timeout=60)
        return boto3.client(service, endpoint_url=self.status['aws'], region_name='us-east-1', aws_access_key_id=self.key['AccessKeyId'],
                            aws_secret_access_key=self.key['SecretAccessKey'], config=config, **more)


@contextlib.contextmanager
def running(*options, prefix='tt-'):
    folder = tempfile.mkdtemp(prefix=prefix, dir='/tmp')
    one = Instance(folder)
    try:
        one.up(*options)
        yield one
    except BaseException:
        log = os.path.join(folder, 'logs', 'tandem.log')
        if os.path.exists(log):
            sys.stderr.write(''.join(open(log, errors='replace').readlines()[-60:]))
        raise
    finally:
        one.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope='session')
def tandem():
    with running() as one:
        yield one


@pytest.fixture(scope='session')
def image(tandem):
    """The instance with the image gallery:1 in it."""
    tandem.tandem('image', 'import', '--name', 'gallery:1', '--cmd', '["/usr/bin/python3","-u","/app/page.py"]', os.path.join(TOP, 'build', 'gallery', 'image.tar'))
    return tandem


@pytest.fixture(scope='session')
def gallery(tandem):
    """The instance with examples/gallery in it."""
    subprocess.run([os.path.join(TOP, 'examples', 'gallery', 'deploy'), '--state', tandem.state], check=True, timeout=150)
    return tandem


@pytest.fixture(autouse=True)
def limit():
    """No test may hang: two minutes, then it fails where it stands."""
    def over(*_):
        raise TimeoutError('the test did not end within 120 s')
    signal.signal(signal.SIGALRM, over)
    signal.alarm(120)
    yield
    signal.alarm(0)
