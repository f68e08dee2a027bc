"""A function that wants what is not its own: another one's code, memory, environment, network, files, volumes, cgroups, and
the machine's privileges. Each runtime tries all of it from within; nothing may be found.

The victim is at work meanwhile and has its secrets everywhere: in its code, its environment, its memory, /tmp, its volume, shared
memory, on loopback, on its address and on an abstract socket.
"""
import json, threading, uuid

import pytest

from conftest import eventually
from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

SECRET = 'ISO' + uuid.uuid4().hex                     # never written in one piece in what the attacker gets
VICTIM = '''
import os, socket, threading, time, ctypes
MEMORY = bytearray(b'SECRET-memory')
open('/tmp/secret', 'w').write('SECRET-tmp')
def serve(s):
    s.listen()
    while True:
        c, _ = s.accept()
        c.sendall(b'SECRET-network')
        c.close()
for family, address in ((socket.AF_INET, ('0.0.0.0', 7977)), (socket.AF_UNIX, '\\0iso-victim')):
    s = socket.socket(family)
    s.bind(address)
    threading.Thread(target=serve, args=(s,), daemon=True).start()
ctypes.CDLL(None).shmget(0x150150, 4096, 0o1666)
def handler(event, context):
    open('/mnt/iso/secret', 'w').write('SECRET-volume')
    if event.get('address'):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect((event['address'], 9))
        return s.getsockname()[0]
    time.sleep(event.get('seconds', 0))
'''
PROBE = r'''
import ctypes, errno, json, os, socket, ssl, struct, sys, urllib.request
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def look(found, what, data):
    if NEEDLE in data:
        found.append(what)

def files(found):
    own = {os.path.realpath(p) for p in ('/var/task',)}
    for top, folders, names in os.walk('/'):
        folders[:] = [f for f in folders if os.path.join(top, f) not in
                      ('/proc', '/sys', '/usr', '/lib', '/lib64', '/bin', '/sbin') and os.path.join(top, f) not in own]
        for name in names:
            path = os.path.join(top, name)
            look(found, 'name ' + path, path.encode())
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                look(found, 'file ' + path, os.read(fd, 1 << 20))
                os.close(fd)
            except OSError:
                pass

def processes(found):
    mine = {str(os.getpid()), str(os.getppid())}
    for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
        for name in ('environ', 'cmdline', 'maps', 'mem'):
            try:
                data = open('/proc/%s/%s' % (pid, name), 'rb').read(1 << 20)
                look(found, '/proc/%s/%s' % (pid, name), data)
            except OSError:
                pass
        for name in ('root', 'cwd', 'exe'):
            try:
                look(found, '/proc/%s/%s' % (pid, name), open('/proc/%s/%s/tmp/secret' % (pid, name), 'rb').read())
            except OSError:
                pass
    local, remote, into = ctypes.create_string_buffer(4096), (ctypes.c_ulong * 2)(), (ctypes.c_ulong * 2)()
    for pid in range(1, 400):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            found.append('process %d is somebody else\'s' % pid)
    for pid in (2, 3, 1000, os.getpid() + 1000):
        if not os.path.exists('/proc/%d' % pid) and libc.ptrace(16, pid, 0, 0) == 0:
            found.append('ptrace of %d' % pid)
    shm = libc.shmget(0x150150, 4096, 0)
    if shm >= 0:
        found.append('shared memory')

def network(found):
    def talk(what, family, address):
        s = socket.socket(family)
        s.settimeout(2)
        try:
            s.connect(address)
            s.settimeout(1)
            data = s.recv(100)
            found.append('%s answers %r' % (what, data))
        except OSError:
            pass
        s.close()
    talk('loopback', socket.AF_INET, ('127.0.0.1', 7977))
    talk('abstract socket', socket.AF_UNIX, '\0iso-victim')
    talk('the victim\'s address', socket.AF_INET, (EVENT['victim'], 7977))
    for line in open('/proc/net/unix').read().splitlines()[1:]:
        name = line.split()[-1]
        if name.startswith('@') and 'iso' in name or name.endswith('.sock'):
            found.append('unix socket ' + name)
    for name in ('gateway', 'node', 'aws'):
        talk(name + '.sock', socket.AF_UNIX, EVENT['state'] + '/run/' + name + '.sock')
    for host in ('127.0.0.1', EVENT['host']):
        for path in ('/api/v1/secrets', '/apis/tandem.dev/v1/functions'):
            try:
                url = 'https://%s:%d%s' % (host, EVENT['api'], path)
                got = urllib.request.urlopen(url, timeout=3, context=ssl._create_unverified_context())
                found.append('%s answers %d' % (url, got.status))
            except OSError:
                pass

def writes(found):
    for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/drop_caches', '/proc/sys/kernel/hostname',
                 '/proc/self/oom_score_adj', '/sys/fs/cgroup/cgroup.procs', '/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory.max',
                 '/usr/bin/iso', '/etc/passwd', '/etc/ld.so.preload', '/var/task/iso', '/opt/iso', '/iso', '/dev/mem', '/dev/kmsg', '/dev/sda',
                 '/dev/fuse', '/dev/kvm', '/dev/net/tun'):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, b'-1000' if 'oom' in path else b'1')
            found.append('wrote ' + path)
        except OSError:
            pass
    for top in ('/sys/fs/cgroup', '/sys/kernel/debug', '/sys/kernel/tracing', '/proc/1/root/sys/fs/cgroup'):
        for at, folders, names in os.walk(top):
            if at.count('/') > 5:
                folders[:] = []
            if any('tandem' in f for f in folders):
                found.append('cgroups of others: ' + at)
            if os.access(at, os.W_OK):
                found.append('may write ' + at)

# x86-64 and arm64 number them differently
X86 = os.uname().machine == 'x86_64'
CALLS = {'unshare user': (272, 97, 0x10000000), 'unshare mount': (272, 97, 0x20000), 'unshare net': (272, 97, 0x40000000), 'clone user': (56, 220, 0x10000011, 0, 0, 0, 0),
         'setns': (308, 268, 3, 0), 'mount': (165, 40, b'none', b'/tmp', b'tmpfs', 0, 0), 'umount': (166, 39, b'/tmp', 2),
         'pivot_root': (155, 41, b'.', b'.'), 'chroot': (161, 51, b'/tmp'), 'fsopen': (430, 430, b'tmpfs', 0), 'open_tree': (428, 428, -100, b'/', 1),
         'bpf': (321, 280, 0, b'\0' * 128, 72), 'keyctl': (250, 219, 0, -4, 1), 'add_key': (248, 217, b'user', b'iso', b'x', 1, -4),
         'perf_event_open': (298, 241, struct.pack('II', 1, 112) + b'\0' * 104, 0, -1, -1, 0), 'io_uring_setup': (425, 425, 1, b'\0' * 120),
         'init_module': (175, 105, b'', 0, b''), 'finit_module': (313, 273, 0, b'', 0), 'delete_module': (176, 106, b'x', 0),
         'kexec_load': (246, 104, 0, 0, 0, 0), 'reboot': (169, 142, 0xfee1dead, 672274793, 0), 'swapon': (167, 224, b'/tmp/x', 0),
         'open_by_handle_at': (304, 265, -100, b'\0' * 64, 0), 'userfaultfd': (323, 282, 1), 'setuid 0': (105, 146, 0), 'setgid 0': (106, 144, 0),
         'setgroups': (116, 159, 1, b'\0' * 4), 'capset': (126, 91, struct.pack('Ii', 0x20080522, 0), b'\xff' * 24), 'acct': (163, 89, b'/tmp/x'),
         'settimeofday': (164, 170, b'\0' * 16, 0), 'sethostname': (170, 161, b'iso', 3), 'syslog': (103, 116, 3, b'\0' * 64, 64),
         'iopl': (172, None, 3), 'ioperm': (173, None, 0, 1, 1), 'quotactl': (179, 60, 0, b'x', 0, 0),
         'mknod': (259, 33, -100, b'/tmp/iso-dev', 0o20666, 0x101),
         'pidfd_getfd': (438, 438, 0, 0, 0), 'move_pages': (279, 239, 1 << 20, 0, 0, 0, 0, 0), 'kcmp': (312, 272, 1, 1 << 20, 0, 0, 0),
         'lookup_dcookie': (212, 18, 0, 0, 0), 'nfsservctl': (180, 42, 0, 0, 0), 'personality': (135, 92, 0x0400000)}

def privileges(found):
    for name, (x86, arm, *args) in CALLS.items():
        number = x86 if X86 else arm
        if number is None:
            continue
        if name == 'clone user' and not X86:
            continue
        ctypes.set_errno(0)
        keep = [ctypes.create_string_buffer(a, len(a) + 1) if isinstance(a, bytes) else ctypes.c_long(a) for a in args]
        got = libc.syscall(ctypes.c_long(number), *keep)
        if got == 0 and name == 'clone user':
            os._exit(0)
        if got >= 0:
            found.append('%s gave %d' % (name, got))
        elif ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            found.append('%s was not refused but %s' % (name, errno.errorcode.get(ctypes.get_errno())))
    for name, family, kind, protocol in (('packet', 17, 3, 0x300), ('raw', 2, 3, 1), ('vsock', 40, 1, 0)):
        try:
            socket.socket(family, kind, protocol)
            found.append('socket ' + name)
        except OSError:
            pass
    status = dict(l.split(':\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\t' in l)
    for key in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb'):
        if int(status[key], 16):
            found.append(key + ' ' + status[key])
    if status['NoNewPrivs'] != '1' or status['Seccomp'] != '2' or '0' in status['Uid'].split():
        found.append('status ' + json.dumps({k: status[k] for k in ('NoNewPrivs', 'Seccomp', 'Uid')}))

def descriptors(found):
    for fd in os.listdir('/proc/self/fd'):
        try:
            at = os.readlink('/proc/self/fd/' + fd)
        except OSError:
            continue
        if at.startswith('/') and not at.startswith(('/dev/null', '/proc', '/var/task', '/tmp', '/usr', '/var/runtime', '/opt', '/var/lang')):
            found.append('descriptor %s is %s' % (fd, at))
        if any(k in at for k in ('bpf', 'userfault', 'perf', 'mnt:', 'net:', 'io_uring')):
            found.append('descriptor %s is %s' % (fd, at))

def probe():
    found = []
    look(found, 'environment', json.dumps(dict(os.environ)).encode())
    for what in (files, processes, network, writes, descriptors, privileges):
        try:
            what(found)
        except Exception as e:
            found.append('%s: %r' % (what.__name__, e))
    return found
'''
HEAD = 'NEEDLE = b"%s" + b"%s"\n' % (SECRET[:9], SECRET[9:])
PYTHON = HEAD + PROBE + '\ndef handler(event, context):\n    global EVENT\n    EVENT = event\n    return probe()\n'
PROGRAM = HEAD + PROBE + '\nEVENT = json.loads(sys.argv[1])\nprint(json.dumps(probe()))\n'
NODE = '''
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
const talk = (to) => new Promise(done => {
    const c = net.connect(to, () => {}).on('data', d => done(String(d))).on('error', () => done(null))
    setTimeout(() => { c.destroy(); done(null) }, 2000)
})
export const handler = async (event) => {
    const found = JSON.parse(execFileSync('/usr/bin/python3', ['/var/task/probe.py', JSON.stringify(event)]))
    for (const to of [{ host: '127.0.0.1', port: 7977 }, { path: '\\0iso-victim' }, { host: event.victim, port: 7977 }]) {
        const said = await talk(to)
        if (said) found.push(`node: ${JSON.stringify(to)} says ${said}`)
    }
    for (const pid of fs.readdirSync('/proc').filter(n => /^[0-9]+$/.test(n)))
        if (fs.readlinkSync(`/proc/${pid}/ns/pid`) !== fs.readlinkSync('/proc/self/ns/pid')) found.push('node: process ' + pid)
    try { process.setuid(0); found.push('node: setuid') } catch {}
    return found
}
'''
OWN = '#!/usr/bin/python3\n' + HEAD + PROBE + r'''
import http.client
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
def ask(method, path, body=None):
    c = http.client.HTTPConnection(host, int(port))
    c.request(method, '/2018-06-01/runtime/invocation/' + path, body)
    got = c.getresponse()
    return got, got.read()
while True:
    got, body = ask('GET', 'next')
    EVENT = json.loads(body)
    ask('POST', got.headers['Lambda-Runtime-Aws-Request-Id'] + '/response', json.dumps(probe()))
'''


def test_the_probe_finds_what_is_there(fn):
    """Else an empty list would say nothing: the victim itself finds its own."""
    code = PYTHON + "\nimport os\nopen('/tmp/mine', 'w').write(NEEDLE.decode())\n"
    create(fn, 'iso-self', code=zipped(code), Timeout=60, MemorySize=512, Environment={'Variables': {'MINE': SECRET}})
    got = json.loads(fn.invoke(FunctionName='iso-self', Payload=json.dumps({'victim': '127.0.0.1', 'state': '/', 'host': '127.0.0.1', 'api': 1}))['Payload'].read())
    assert 'file /tmp/mine' in got and 'environment' in got, got


@pytest.fixture(scope='module')
def event(tandem, fn):
    tandem.boto('s3').create_bucket(Bucket='iso')
    create(fn, 'iso-victim', code=zipped(VICTIM.replace('SECRET', SECRET)), Timeout=120, Environment={'Variables': {'MINE': SECRET}}, FileSystemConfigs=[
        {'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/iso', 'LocalMountPath': '/mnt/iso'}])
    host = tandem.get('nodes')['items'][0]['status']['addresses'][0]['address']
    api = int(tandem.status['api'].rsplit(':', 1)[1])
    address = json.loads(fn.invoke(FunctionName='iso-victim', Payload=json.dumps({'address': host}))['Payload'].read())
    busy = threading.Thread(target=lambda: fn.invoke(FunctionName='iso-victim', Payload=b'{"seconds": 10}'))
    busy.start()
    yield {'victim': address, 'state': tandem.state, 'host': host, 'api': api}
    fn.delete_function(FunctionName='iso-victim')
    busy.join()


@pytest.mark.parametrize('runtime, code', [
    ('python3.11', lambda: zipped(PYTHON)),
    ('nodejs20.x', lambda: zipped(NODE, 'app.mjs', [('probe.py', PROGRAM)])),
    ('provided.al2023', lambda: executable(OWN)),
])
def test_nothing_of_others_is_to_be_had(fn, event, runtime, code):
    name = 'iso-' + runtime.split('.')[0]
    try:
        create(fn, name, code=code(), Runtime=runtime, Timeout=100, MemorySize=512)
    except fn.exceptions.InvalidParameterValueException as e:
        pytest.skip(str(e))
    fn.get_waiter('function_active_v2').wait(FunctionName=name)
    got = fn.invoke(FunctionName=name, Payload=json.dumps(event))
    found = json.loads(got['Payload'].read())
    assert 'FunctionError' not in got, found
    assert found == []
