"""What the tests of tests/real share: one running instance, and the clients that drive it.

The tests run in a network namespace of their own (tests/real/run makes it), so ports and addresses are free.
"""
import contextlib, functools, json, os, shutil, signal, subprocess, sys, tempfile, time

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TANDEM = os.path.join(TOP, 'build', 'tandem')
PATIENCE_S, TEST_S = 90, 360                          # a machine that others keep busy takes its time; no state is asked for within less
LIVE, ENDED = [], []                                  # the instances that run now; (folder, report) of those that a failure has just ended


class TookTooLong(BaseException):                     # no `except Exception` of a test may swallow it
    pass


def eventually(what, seconds=PATIENCE_S, every=0.05):
    """Calls what() until it answers something true, and answers that; fails with what it said last."""
    seconds = max(seconds, PATIENCE_S)
    until, last = time.monotonic() + seconds, None
    while time.monotonic() < until:
        try:
            last = what()
            if last:
                return last
        except (Exception, pytest.fail.Exception) as e:     # not there yet: said in the failure below
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

    def tandem(self, *words, check=True, timeout=120, **more):
        done = subprocess.run([TANDEM, *words, '--state', self.state], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, timeout=timeout, **more)
        if check and done.returncode:
            raise AssertionError(f'tandem {" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}')
        return done

    def up(self, *more):
        self.tandem('up', '--detach', '--api-port', '0', '--gateway-port', '0', '--aws-port', '0', *more)
        self.status = json.loads(self.tandem('status', '--json').stdout)

    def down(self):
        return self.tandem('down', check=False)

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
        was = eventually(lambda: self.processes().get(name))
        os.kill(was, signal.SIGKILL)
        eventually(lambda: self.processes().get(name, was) != was)

    def kubectl(self, *words, check=True, text=None, program=0, timeout=120):
        done = subprocess.run([self.kubectls[program], '--kubeconfig', os.path.join(self.state, 'kubeconfig'), *words], text=True, input=text,
                              stdin=None if text is not None else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              env={**os.environ, 'HOME': self.state})
        if check and done.returncode:
            raise AssertionError(f'kubectl {" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}')
        return done

    def get(self, *words):
        return json.loads(self.kubectl('get', *words, '-o', 'json').stdout)

    def log(self):
        return os.path.join(self.state, 'logs', 'tandem.log')

    def report(self, since):
        """What a reader of a failure wants to know of the instance: how it is, and its log from there on; bounded."""
        def said(*words):
            try:
                done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=10, errors='replace',
                                      env={**os.environ, 'HOME': self.state})
                return done.stdout[-6000:]
            except Exception as e:
                return f'{words[1]}: {e!r}\n'
        text = said(TANDEM, 'status', '--state', self.state)
        if os.path.exists(os.path.join(self.state, 'run', 'gateway.sock')):
            text += 'instances of functions: ' + said('curl', '-s', '--max-time', '8', '--unix-socket', os.path.join(self.state, 'run', 'gateway.sock'), 'http://localhost/instances') + '\n'
        kubectl = [self.kubectls[0], '--kubeconfig', os.path.join(self.state, 'kubeconfig'), '--request-timeout=8s', 'get'] if self.kubectls else []
        for words in (['pods', '-A', '-o', 'wide', '--field-selector=status.phase!=Succeeded'], ['events', '-A', '--sort-by=.metadata.creationTimestamp']):
            lines = said(*kubectl, *words).splitlines() if kubectl else []
            text += ''.join(line[:240] + '\n' for line in lines[-25:])
        try:
            with open(self.log(), 'rb') as f:
                size = f.seek(0, os.SEEK_END)
                f.seek(max(min(since, size) - 3000, size - 20000, 0))         # and a bit of what was before
                text += f'--- {self.log()}\n' + f.read().decode(errors='replace')
        except OSError as e:
            text += f'no log: {e}\n'
        return text

    @functools.cached_property
    def key(self):
        """An access key of the account."""
        return json.loads(self.tandem('key', 'create').stdout)

    def boto(self, service, **more):
        import boto3, botocore.config
        config = botocore.config.Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 1}, read_timeout=120)
        return boto3.client(service, endpoint_url=self.status['aws'], region_name='us-east-1', aws_access_key_id=self.key['AccessKeyId'],
                            aws_secret_access_key=self.key['SecretAccessKey'], config=config, **more)


@contextlib.contextmanager
def running(*options, prefix='tt-'):
    folder = tempfile.mkdtemp(prefix=prefix, dir='/tmp')
    one = Instance(folder)
    LIVE.append(one)
    try:
        one.up(*options)
        yield one
    except (Exception, pytest.fail.Exception, TookTooLong):
        ENDED.append((folder, one.report(0)))
        raise
    finally:
        LIVE.remove(one)
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
    """No test may hang: after some minutes it fails where it stands."""
    def over(*_):
        signal.alarm(120)                             # what is cleared away behind it may not hang either
        raise TookTooLong(f'the test did not end within its time ({TEST_S} s, if it has set no other)')
    signal.signal(signal.SIGALRM, over)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)


def size_of(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def pytest_configure():
    """Who ends the run by a signal leaves no instances behind: fixtures clear away as they do behind Ctrl-C."""
    def end(number, _):
        for n in (signal.SIGTERM, signal.SIGHUP):     # once is enough
            signal.signal(n, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    signal.signal(signal.SIGINT, signal.default_int_handler)    # ignored where a shell started this in the background: what we start would ignore it, too


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.logs_began = {one.state: size_of(one.log()) for one in LIVE}


def pressure():
    text = time.strftime('%H:%M:%S\n')
    for name in ('loadavg', 'pressure/cpu', 'pressure/memory', 'pressure/io'):
        with contextlib.suppress(OSError):
            text += name + ' ' + open('/proc/' + name).read()
    return text


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """One failure has to tell its cause: how the instances are, and what they have logged since the test began."""
    report = (yield).get_result()
    if report.failed:
        report.sections.append(('the machine', pressure()))
        report.sections += [('tandem ' + one.state, one.report(getattr(item, 'logs_began', {}).get(one.state, 0))) for one in LIVE]
        report.sections += [('tandem ' + folder, text) for folder, text in ENDED]
    ENDED.clear()
