"""Reads, writes and creates files below argv[1] and prints how fast, as JSON. Runs in a pod and on the host alike."""
import json, os, statistics, sys, time

ROOT = os.path.join(sys.argv[1], 'bench-files')
BLOCK = os.urandom(1 << 20)
os.makedirs(ROOT, exist_ok=True)


def rate(work, n, rounds=3):
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return n / statistics.median(took)


def write():
    with open(ROOT + '/big', 'wb', buffering=0) as f:
        for _ in range(64):
            f.write(BLOCK)
        os.fsync(f.fileno())


def read():
    with open(ROOT + '/big', 'rb', buffering=0) as f:
        while f.read(1 << 20):
            pass


def create():
    for i in range(2000):
        with open(f'{ROOT}/f{i}', 'wb', buffering=0) as f:
            f.write(b'x' * 4096)
    for i in range(2000):
        os.unlink(f'{ROOT}/f{i}')


def stat():
    for _ in range(50000):
        os.stat(ROOT + '/big')


print(json.dumps({'write 64 MiB + fsync': rate(write, 64), 'read 64 MiB, cached': rate(read, 64), 'create 4 KiB + unlink': rate(create, 2000), 'stat': rate(stat, 50000)}))
os.unlink(ROOT + '/big')
