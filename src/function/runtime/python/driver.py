# driver.py - the base of all zygotes, the zygote of one Python function, and what each of its
# instances does: three lives of one program, each a fork of the one before.
#
# Started by the gateway as `python3 -I -S -B driver.py zygote.so`, with the control socket as
# descriptor 3. The base loads what every function needs and forks zygotes. A zygote builds the
# function's root (mounts of zygote.so), loads the parts of the standard library that the handler
# will ask for, and forks an instance per request from the gateway. Neither runs a line of the
# function's own code; an instance does nothing else, after it has entered its sandbox. zygote.h
# tells what goes over the sockets.
#
# Behaviour towards handlers (names of errors, log lines, context) is that of Lambda's own runtime.
import sys

import ctypes
import gc
import json
import os
import struct
import time

import importlib
import importlib.machinery
import importlib.util
import linecache
import logging
import marshal
import re
import select
import traceback

FORK, COMPILE, ZYGOTE, SNAPSHOT, COMPILED, AHEAD, AHEAD_INIT, REHEARSE, RESTORE, RESTORE_AHEAD = 1, 3, 4, 5, 100, 101, 102, 103, 104, 105
INVOKE, RESULT, INITED, SNAPSHOT_MADE = 1, 2, 3, 9
OK, ERROR, INIT_ERROR, BAD_EVENT, RESTORE_ERROR, UNABLE = 0, 1, 2, 3, 5, 6
FRAME = struct.Struct("=IBBHHHIQQQQQ")  # struct instance_frame
INFO = struct.Struct("=Q80sI")  # z_info of zygote.c
RESPONSE_MAX = 6 * 1024 * 1024 + 100
MODE_PRIVATE, MODE_RDONLY, MODE_NOSUID, MODE_NODEV, MODE_NOEXEC = 1 << 18, 1, 2, 4, 8
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
TASK = "/var/task"
MODULE = "/var/runtime/module"
HOSTS = "127.0.0.1 localhost sandbox.localdomain\n::1 localhost\n"

arrivals = select.poll()
arrivals.register(3, select.POLLIN)
peak_kb, peak_until = 0, 0.0
lib = library = None
config = None
prepared = None
info = None
own_folders = []  # of the function's modules


def load_lib(path):
    global lib, library
    library = path
    lib = ctypes.PyDLL(path)
    for name, res, args in (
        ("z_base", ctypes.c_int, [ctypes.c_int]),
        ("z_start", ctypes.c_int, [ctypes.c_int]),
        ("z_mount", ctypes.c_int, [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]),
        ("z_bind", ctypes.c_int, [ctypes.c_char_p] * 2 + [ctypes.c_ulong, ctypes.c_uint]),
        ("z_pivot", ctypes.c_int, [ctypes.c_char_p]),
        ("z_config", ctypes.c_int, [ctypes.c_uint, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p]),
        ("z_workdir", None, [ctypes.c_char_p]),
        ("z_own_net", None, []),
        ("z_http", None, [ctypes.c_int]),
        ("z_debug", None, [ctypes.c_int]),
        ("z_ready", ctypes.c_int, [ctypes.c_int]),
        ("z_exec", ctypes.c_int, [ctypes.POINTER(ctypes.c_char_p)] * 2),
        ("z_failed", None, [ctypes.c_char_p, ctypes.c_int]),
        ("z_next", ctypes.c_int, []),
        ("z_own_mappings", None, []),
        ("z_freeze", ctypes.c_int, []),
        ("z_give_root", ctypes.c_int, []),
        ("z_learn", ctypes.c_int, [ctypes.c_char_p, ctypes.c_uint]),
        ("z_drop_cold", None, []),
        ("z_rehearsed", None, []),
        ("z_snapshot", ctypes.c_int, [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]),
        ("z_restore", ctypes.c_int, [ctypes.c_int]),
        ("z_max_rss_kb", ctypes.c_uint64, []),
        ("z_loopback_up", ctypes.c_int, []),
        ("z_wasm_load", ctypes.c_int, [ctypes.c_char_p] * 2),
        ("z_wasm_compile", ctypes.c_int, [ctypes.c_char_p] * 4 + [ctypes.c_uint, ctypes.c_char_p, ctypes.c_int]),
        ("z_wasm_kind", ctypes.c_int, [ctypes.c_char_p] * 2 + [ctypes.c_int]),
        ("z_wasm_begin", ctypes.c_int, [ctypes.c_char_p] * 2 + [ctypes.POINTER(ctypes.c_char_p)] * 2 + [ctypes.c_int, ctypes.c_uint64, ctypes.c_int]),
        ("z_serve_api", None, [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]),
    ):
        f = getattr(lib, name)
        f.restype = res
        f.argtypes = args
    global info
    info = (ctypes.c_char * INFO.size).in_dll(lib, "z_info")


# ---- the root of the function --------------------------------------------------------------------


def check(result, what):
    if result < 0:
        raise OSError(-result, what + ": " + os.strerror(-result))


def bind(source, target, attr, uid=0, make=True):
    if make:
        os.makedirs(target, exist_ok=True)
    check(lib.z_bind(source.encode(), target.encode(), attr, uid), "bind " + target)


def copy_file(source, target):
    try:
        with open(source, "rb") as f:
            data = f.read(1 << 20)
    except OSError:
        return
    with open(target, "wb") as f:
        f.write(data)


def build_dev(root):
    dev = root + "/dev"
    os.mkdir(dev)
    old = os.umask(0)
    for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)):
        os.mknod(f"{dev}/{name}", 0o20666, os.makedev(major, minor))
    os.umask(old)
    os.symlink("/proc/self/fd", dev + "/fd")
    for n, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{n}", f"{dev}/{name}")
    os.symlink("/tmp", dev + "/shm")  # counts against the instance's /tmp


def build_etc(root, uid):
    etc = root + "/etc"
    os.mkdir(etc)
    for name, text in (
        ("passwd", f"root:x:0:0:root:/root:/usr/sbin/nologin\nsbx_user1051:x:{uid}:{uid}::/tmp:/usr/sbin/nologin\n"),
        ("group", f"root:x:0:\nsbx_user1051:x:{uid}:\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("hosts", config.get("hosts") or HOSTS),
        ("resolv.conf", config.get("resolv") or ""),
    ):
        with open(f"{etc}/{name}", "w") as f:
            f.write(text)
    for name in ("ld.so.cache", "mime.types", "services", "protocols"):
        copy_file("/etc/" + name, f"{etc}/{name}")
    for name in ("/etc/ssl/certs", "/usr/share/ca-certificates", "/etc/alternatives"):
        if os.path.isdir(name):
            bind(name, root + name, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)


def prepare_wasm(wasm, empty):
    """The library is mapped while it is in sight; a module that has no machine code yet gets it."""
    wasm["kind"] = lib.z_wasm_kind(config["code"].encode(), wasm["file"].encode(), bool(config.get("http_port")))
    check(lib.z_wasm_load(wasm["library"].encode(), wasm["error"].encode()), "load wasmtime")
    if not os.path.exists(wasm["code"]):
        words = [word.encode() for word in (config["code"], wasm["file"], wasm["code"], wasm["error"])]
        check(lib.z_wasm_compile(*words, config["uid"], empty.encode(), bool(config.get("http_port"))), "compile " + wasm["file"])


def begin_wasm():
    """What instances have in common; they are served by the library from here on."""
    env = [word for name, value in config["env"].items() for word in (name, value)]
    dirs = [TASK, "r", "/tmp", "w"] + (["/opt", "r"] if config.get("layers") else [])
    for volume in config["volumes"]:
        dirs += [volume["target"], "r" if volume.get("readOnly") else "w"]
    check(lib.z_wasm_begin(MODULE.encode(), config["wasm"]["file"].encode(), c_strings(env), c_strings(dirs), config["wasm"]["memory_mb"],
                           config["timeout_ms"], config["wasm"]["kind"]), "wasm")


def build_image_root():
    """The root of an image: its layers, read-only, below what every sandbox has of its own."""
    base, uid = config["root"], config["uid"]
    os.makedirs(base, exist_ok=True)
    check(lib.z_mount(b"tandem", base.encode(), b"tmpfs", MODE_NOSUID, b"mode=755,size=8m"), "root")
    own, root = base + "/own", base + "/root"
    for name in ("l", "root", "own", "own/etc", "own/proc", "own/tmp", "own/sys", "own/run", "own/opt", "own/var", "own/var/task"):
        os.mkdir(f"{base}/{name}")
    build_dev(own)
    for name, text in (("hosts", config.get("hosts") or HOSTS), ("resolv.conf", config.get("resolv") or ""), ("hostname", "169.254.0.1\n")):
        with open(f"{own}/etc/{name}", "w") as f:
            f.write(text)
    for volume in config["volumes"]:
        os.makedirs(own + volume["target"], exist_ok=True)
    for n, folder in enumerate(config["lowers"]):  # by short names: all of them must fit into one page
        os.symlink(folder, f"{base}/l/{n}")
    os.chdir(base)
    lower = ":".join(["own"] + [f"l/{n}" for n in range(len(config["lowers"]))])
    check(lib.z_mount(b"tandem", root.encode(), b"overlay", MODE_RDONLY | MODE_NOSUID, b"lowerdir=" + lower.encode()), "layers")
    for volume in config["volumes"]:
        attr = ATTR_NOSUID | ATTR_NODEV | (ATTR_RDONLY if volume.get("readOnly") else 0)
        bind(volume["source"], root + volume["target"], attr, uid)
    lib.z_workdir(config["workdir"].encode())
    check(lib.z_pivot(root.encode()), "pivot_root")


def build_root():
    """The function's file tree: the interpreter's part of /usr, the code, the volumes; nothing else."""
    root = config["root"]
    uid = config["uid"]
    wasm = config.get("wasm")
    read_only = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV
    os.makedirs(root, exist_ok=True)
    check(lib.z_mount(b"tandem", root.encode(), b"tmpfs", MODE_NOSUID, b"mode=755,size=8m"), "root")
    if wasm:
        prepare_wasm(wasm, root)
    for name in () if wasm else ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = "/" + name
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            bind(path, root + path, read_only)
    for name in () if wasm else ("bin", "lib", "lib32", "lib64", "libx32", "share/zoneinfo"):
        path = "/usr/" + name
        if os.path.isdir(path) and not os.path.islink(path):
            bind(path, root + path, read_only)
    if sys.base_prefix != "/usr" and not wasm:  # an interpreter that was built into a place of its own
        for name in ("bin", "lib"):
            if not os.path.isdir(root + sys.base_prefix + "/" + name):
                bind(sys.base_prefix + "/" + name, root + sys.base_prefix + "/" + name, read_only)
    build_dev(root)
    build_etc(root, uid)
    bind(config["code"], root + TASK, read_only)
    for volume in config["volumes"]:
        attr = ATTR_NOSUID | ATTR_NODEV | (ATTR_RDONLY if volume.get("readOnly") else 0)
        bind(volume["source"], root + volume["target"], attr, uid)
    layers = config.get("layers") or []
    if len(layers) == 1:
        bind(layers[0], root + "/opt", read_only)
    elif layers:  # the last one lies on top
        os.makedirs(root + "/opt")
        lower = ":".join(folder.replace("\\", "\\\\").replace(":", "\\:") for folder in reversed(layers))
        check(lib.z_mount(b"tandem", (root + "/opt").encode(), b"overlay", MODE_RDONLY | MODE_NOSUID | MODE_NODEV,
                           b"lowerdir=" + lower.encode()), "layers")
    for name in ("proc", "tmp", "opt", "var/runtime", "sys", "run"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    if config.get("runtime_file"):
        copy_file(config["runtime_file"], root + "/var/runtime/" + os.path.basename(config["runtime_file"]))
    if wasm:
        with open(root + MODULE, "w"):
            pass
        bind(wasm["code"], root + MODULE, read_only, make=False)
    if config.get("snapshot"):
        with open(root + "/var/runtime/snapshot_restore_py.py", "w") as f:
            f.write(HOOKS)
    if config.get("fork"):
        copy_file(library, root + "/var/runtime/zygote.node")
        with open(root + "/var/runtime/warm.js", "w") as f:
            f.write("exports.handler = (event, context, done) => done(null, {n: event.a, left: context.getRemainingTimeInMillis()});\n")
    if config.get("debug_dir"):
        bind(config["debug_dir"], root + "/var/debug", read_only)
    if os.path.isdir(root + "/opt/extensions") or config.get("bootstrap") or config.get("debug_dir"):
        copy_file(__file__, root + "/var/runtime/bootstrap.py")
    if config.get("exec") and config["exec"][0] == TASK + "/bootstrap" and not os.path.exists(root + TASK + "/bootstrap"):
        config["exec"][0] = "/opt/bootstrap"
    os.mkdir(root + "/code", 0o700)  # only for the compiler's child; nobody else may pass
    if config["compile"]:
        bind(config["code"], root + "/code/rw", ATTR_NOSUID | ATTR_NODEV, uid)
    check(lib.z_pivot(root.encode()), "pivot_root")
    check(lib.z_mount(None, b"/", None, 4096 | 32 | MODE_RDONLY | MODE_NOSUID, None), "read-only root")


# What a module of this name offers, for code that does not bring it along.
HOOKS = '''"""Functions to be called before a snapshot is made and after one is restored."""
__all__ = ["register_before_snapshot", "register_after_restore"]
_before, _after = [], []


def register_before_snapshot(func, *args, **kwargs):
    _before.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    _after.append((func, args, kwargs))
    return func


def get_before_snapshot():
    return _before


def get_after_restore():
    return _after
'''


# ---- what is loaded ahead --------------------------------------------------------------------------

IMPORT = re.compile(r"^[ \t]*(?:import[ \t]+([\w.,\t ]+)|from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+([\w,\t (*]+))", re.M)
# loading these does something, or what they need is absent here
NOT_AHEAD = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "test", "lib2to3", "ensurepip",
             "venv", "pydoc_data", "__main__", "__future__", "site", "sitecustomize", "usercustomize", "curses", "pty"}


def module_files(base, name):
    path = base + "/" + name.replace(".", "/")
    return [p for p in (path + ".py", path + "/__init__.py") if os.path.isfile(p)]


def find_imports(handler):
    """Names of standard modules that the handler's module and what it imports of the code ask for.
    Reads text only: nothing of it is run."""
    wanted, seen, budget = set(), set(), 4 << 20
    todo = [handler.rsplit(".", 1)[0].replace("/", ".")]
    while todo and budget > 0 and len(seen) < 400:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for path in module_files(TASK, name):
            try:
                with open(path, "rb") as f:
                    text = f.read(1 << 18).decode("utf-8", "replace")
            except OSError:
                continue
            budget -= len(text)
            package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
            for m in IMPORT.finditer(text):
                if m.group(1):
                    names = [n.split(" as ")[0].strip() for n in m.group(1).split(",")]
                else:
                    origin = m.group(2)
                    dots = len(origin) - len(origin.lstrip("."))
                    if dots:
                        parts = package.split(".")
                        parts = parts[: len(parts) - dots + 1]
                        origin = ".".join(parts + ([origin[dots:]] if origin[dots:] else []))
                    tail = [n.split(" as ")[0].strip(" (*\t") for n in m.group(3).split(",")]
                    names = [origin] + [origin + "." + n for n in tail if n]
                for n in names:
                    if not n or n in seen:
                        continue
                    if n.split(".")[0] in sys.stdlib_module_names:
                        wanted.add(n)
                    elif n.replace(".", "").isidentifier():
                        todo.append(n)
    return wanted


def brought_along(name, folders):
    """The function has a module of this name, which comes before the standard library's. Looks, and loads nothing."""
    spec = importlib.machinery.PathFinder.find_spec(name.split(".")[0], folders)
    return spec is not None and spec.has_location  # else a folder without __init__.py, which comes last


def load_ahead(folders):
    """Runs as root and in no sandbox: sys.path holds the standard library alone, and no variable of the function's is set
    (OpenSSL takes the name of a file from one that says which libraries are to be loaded)."""
    if any(name.startswith("OPENSSL_") for name in config["env"]):
        return
    before, env = set(sys.modules), dict(os.environ)
    os.environ.clear()
    os.environ.update({"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": env.get("TZ", ":UTC")})
    for name in sorted(find_imports(config["handler"])):
        if name.split(".")[0] in NOT_AHEAD or brought_along(name, folders):
            continue
        try:
            importlib.import_module(name)
        except BaseException:  # a name in a module and no module, or one that this machine lacks
            pass
    os.environ.clear()
    os.environ.update(env)
    for name in set(sys.modules) - before:  # what those needed of the same name as the function's own
        if brought_along(name, folders):
            del sys.modules[name]


# ---- logging as Lambda sets it up --------------------------------------------------------------------

request_id = None


class LogFilter(logging.Filter):
    def filter(self, record):
        record.aws_request_id = request_id or ""
        return True


class JsonFormatter(logging.Formatter):
    """One object a line, as Lambda's own: what is told, of whom, and what else the caller handed in by `extra`."""
    known = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"aws_request_id", "message", "asctime", "taskName"}

    def format(self, record):
        told = {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)), "level": record.levelname,
                "message": record.getMessage(), "logger": record.name}
        if record.exc_info and record.exc_info[0]:
            told["errorType"] = record.exc_info[0].__name__
            told["errorMessage"] = str(record.exc_info[1])
            told["stackTrace"] = self.formatException(record.exc_info).split("\n")
            told["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        for key, value in vars(record).items():
            if key not in self.known and key not in told:
                told[key] = value
        if request_id:
            told["requestId"] = request_id
        return json.dumps(told, ensure_ascii=False, default=str)


LEVELS = {"TRACE": logging.DEBUG, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR,
          "FATAL": logging.CRITICAL}


def set_up_logging():
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(LogFilter())
    logging.root.addHandler(handler)


def log_as_chosen():
    """In the zygote: what the function's LoggingConfig says."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        logging.root.handlers[0].setFormatter(JsonFormatter())
        logging.root.setLevel(LEVELS.get(os.environ.get("AWS_LAMBDA_LOG_LEVEL"), logging.INFO))


# ---- an instance -------------------------------------------------------------------------------------


class ClientContext:
    """client_context.client.installation_id, .custom, .env; from the caller's JSON."""

    class Client:
        __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    __slots__ = ("custom", "env", "client")

    def __init__(self, d):
        self.custom = d.get("custom")
        self.env = d.get("env")
        self.client = ClientContext.Client()
        client = d.get("client") or {}
        for name in ClientContext.Client.__slots__:
            setattr(self.client, name, client.get(name))


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self):
        self.cognito_identity_id = None
        self.cognito_identity_pool_id = None

    def __repr__(self):
        return "CognitoIdentity([cognito_identity_id=None,cognito_identity_pool_id=None])"


class LambdaContext:
    platform = (None,) * 5  # what is the same for all calls of an instance
    # tandem_start_us: from the request's arrival to the handler's first line, as measured here
    def __init__(self, invoke_id, arn, client_context, deadline_ms, came_us):
        self.aws_request_id = invoke_id
        (self.log_group_name, self.log_stream_name, self.function_name, self.memory_limit_in_mb,
         self.function_version) = LambdaContext.platform
        self.invoked_function_arn = arn
        self.tenant_id = None
        self.client_context = client_context
        self.identity = CognitoIdentity()
        self._epoch_deadline_time_in_ms = deadline_ms
        self.tandem_start_us = int(time.monotonic() * 1e6) - came_us

    def get_remaining_time_in_millis(self):
        return max(int(self._epoch_deadline_time_in_ms - time.time() * 1000), 0)

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        return (f"LambdaContext([aws_request_id={self.aws_request_id},log_group_name={self.log_group_name},"
                f"log_stream_name={self.log_stream_name},function_name={self.function_name},"
                f"memory_limit_in_mb={self.memory_limit_in_mb},function_version={self.function_version},"
                f"invoked_function_arn={self.invoked_function_arn},client_context={self.client_context},"
                f"identity={self.identity}])")


class InitError(Exception):
    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind = kind
        self.trace = list(trace)


def error_json(message, kind, invoke_id, trace):
    return json.dumps({"errorMessage": message, "errorType": kind, "requestId": invoke_id, "stackTrace": trace}).encode()


def user_trace(tb):
    frames = [f for f in traceback.extract_tb(tb) if f.filename != __file__ and not f.filename.startswith("<frozen importlib")]
    return traceback.format_list(frames)


def log_error(kind, message, trace):
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        print(json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": "ERROR", "errorType": kind,
                          "errorMessage": message, "requestId": request_id or "",
                          "stackTrace": [line for part in trace or () for line in part.rstrip("\n").split("\n")]}, ensure_ascii=False))
        return
    text = f"[ERROR] {kind}: {message}" if message else f"[ERROR] {kind}"
    if trace:
        text += "\nTraceback (most recent call last):\n" + "".join(trace).rstrip("\n")
    print(text)


class Prepared:
    """The handler's module as far as it goes without running it: found, its bytes read."""

    def __init__(self, name, path, bytecode, source):
        self.name, self.path, self.bytecode, self.source = name, path, bytecode, source
        self.spec = importlib.util.spec_from_file_location(name, path)
        self.module = importlib.util.module_from_spec(self.spec)

    def load(self):
        if self.bytecode:
            code = marshal.loads(memoryview(self.bytecode)[16:])
        else:
            code = compile(self.source, self.path, "exec", dont_inherit=True)
        sys.modules[self.name] = self.module
        exec(code, self.module.__dict__)
        return self.module


def read_module():
    """The usual case, a module that is a file of the code's top folder: what the import system
    would do for it each time is done here once for all instances."""
    global prepared
    name = config["handler"].rpartition(".")[0]
    path = f"{TASK}/{name}.py"
    if not name.isidentifier() or name in sys.modules or name in sys.builtin_module_names or os.path.isdir(f"{TASK}/{name}"):
        return
    try:
        with open(path, "rb") as f:
            source = f.read(1 << 22)
    except OSError:
        return
    bytecode = None
    try:
        with open(importlib.util.cache_from_source(path), "rb") as f:
            bytecode = f.read(1 << 22)
        if bytecode[:4] != importlib.util.MAGIC_NUMBER or bytecode[4:8] != b"\1\0\0\0":  # ours are unchecked
            bytecode = None
    except OSError:
        pass
    prepared = Prepared(name, path, bytecode, source)


def load_handler(name):
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as e:
        raise InitError("Runtime.MalformedHandlerName", f"Bad handler '{name}': {e}")
    module_name = module_name.replace("/", ".")
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise InitError("Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module")
    try:
        module = prepared.load() if prepared else importlib.import_module(module_name)
    except ImportError as e:
        raise InitError("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {e}")
    except SyntaxError as e:
        raise InitError("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {e}",
                        [f'  File "{e.filename}" Line {e.lineno}\n    {e.text}'])
    try:
        return getattr(module, function_name)
    except AttributeError:
        raise InitError("Runtime.HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'")


def send(frame_result, number, body, init_us, ready_us, handler_us, write=os.write, pack=FRAME.pack):
    global peak_kb, peak_until
    now = time.monotonic()
    if handler_us > 300 or now > peak_until:  # a shorter call does not touch a megabyte: what was seen a moment ago does
        peak_kb, peak_until = lib.z_max_rss_kb(), now + 0.05
    data = pack(len(body), RESULT, frame_result, 0, 0, 0, 0, number, peak_kb, init_us, ready_us, handler_us) + body
    n = write(3, data)
    while n < len(data):  # a big one: the socket takes it in pieces
        data = memoryview(data)[n:]
        n = write(3, data)


def receive(read=os.read, wait=arrivals.poll, unpack=FRAME.unpack_from):
    """One INVOKE; None when the gateway has gone."""
    # not asleep in read(): there the kernel wakes us once more when the gateway takes our answer out of the socket
    wait()
    data = read(3, 65536)
    while len(data) < FRAME.size:
        more = read(3, 65536)
        if not more:
            return None
        data += more
    n, _, _, id_n, trace_n, arn_n, context_n, number, deadline, came_us, _, _ = unpack(data)
    want = n + FRAME.size - len(data)
    if want > 0:
        parts = [data]
        while want > 0:
            more = read(3, min(want, 1 << 20))
            if not more:
                return None
            parts.append(more)
            want -= len(more)
        data = b"".join(parts)
    at = FRAME.size
    texts = []
    for length in (id_n, trace_n, arn_n, context_n):
        texts.append(data[at:at + length].decode("utf-8", "replace"))
        at += length
    return number, deadline, came_us, texts, data[at:]


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the function closed or replaced it; its affair
            pass


def leave(code):
    flush()
    os._exit(code)


def exit_code(e):
    if e.code is None:
        return 0
    return e.code & 0xFF if isinstance(e.code, int) else 1


def init_failed(number, kind, message, trace, ready_us, since_us):
    log_error(kind, message, trace)
    flush()
    send(INIT_ERROR, number, error_json(message, kind, "", trace), max(int(time.monotonic() * 1e6) - since_us, 1), ready_us, 0)
    leave(1)


def init(number, ready_us):
    """Imports the function's module: the first of its code that runs."""
    since_us = int(time.monotonic() * 1e6)
    try:
        handler = load_handler(config["handler"])
    except InitError as e:
        init_failed(number, e.kind, str(e), e.trace, ready_us, since_us)
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        init_failed(number, type(e).__name__, str(e), user_trace(e.__traceback__), ready_us, since_us)
    return handler, max(int(time.monotonic() * 1e6) - since_us, 1)


def know_platform():
    LambdaContext.platform = tuple(os.environ.get("AWS_LAMBDA_" + name) for name in (
        "LOG_GROUP_NAME", "LOG_STREAM_NAME", "FUNCTION_NAME", "FUNCTION_MEMORY_SIZE", "FUNCTION_VERSION"))


def encode_more(value):
    """What json does not know: numbers of decimal, as they come from tables."""
    decimal = sys.modules.get("decimal")
    if decimal is None or not isinstance(value, decimal.Decimal):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return int(value) if value.is_finite() and value.as_tuple().exponent >= 0 else float(value)


encode = json.JSONEncoder(default=encode_more).encode
scan = json.JSONDecoder().scan_once


def parse(body):
    """json.loads() of what is one value and nothing around it; the rest, and what is wrong, is left to that."""
    try:
        text = body.decode()
        value, end = scan(text, 0)
        if end == len(text):
            return value
    except (ValueError, StopIteration):
        pass
    return json.loads(body)


def run(handler, invoke_id, arn, client_context, deadline, body, came_us):
    """(result, bytes) of one request."""
    try:
        event = parse(body) if body else {}
    except (ValueError, RecursionError) as e:
        return BAD_EVENT, f"Could not parse request body into json: {e}".encode()
    try:
        client = ClientContext(json.loads(client_context)) if client_context else None
    except (ValueError, AttributeError) as e:
        return BAD_EVENT, f"Could not parse client context into json: {e}".encode()
    try:
        answer = handler(event, LambdaContext(invoke_id, arn, client, deadline, came_us))
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        trace = user_trace(e.__traceback__)
        kind = type(e).__name__
        log_error(kind, str(e), trace)
        return ERROR, error_json(str(e), kind, invoke_id, trace)
    try:
        data = answer if isinstance(answer, bytes) else encode(answer).encode()
    except BaseException as e:
        message = f"Unable to marshal response: {e}"
        log_error("Runtime.MarshalError", message, [])
        return ERROR, error_json(message, "Runtime.MarshalError", invoke_id, [])
    if len(data) > RESPONSE_MAX:
        message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_MAX} bytes)."
        return ERROR, json.dumps({"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}).encode()
    return OK, data


def init_ahead():
    """Before any call came. When it does not work out, the one who has a call shall see how: this
    instance leaves without a word and the next one loads the module with its first call."""
    try:
        handler = load_handler(config["handler"])
    except BaseException:
        leave(124)
    flush()
    os.write(3, FRAME.pack(0, INITED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    return handler


def serve(what):
    global request_id
    if what in (RESTORE, RESTORE_AHEAD):
        failed = lib.z_restore(4)  # else this life ends here, and goes on in take_snapshot()
        os.close(4)
        print(f"tandem: the snapshot cannot be used ({os.strerror(-failed)}): this instance initializes itself")
        what = FORK if what == RESTORE else AHEAD_INIT
    ready_us, stream, _ = INFO.unpack(info)
    os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = stream.rstrip(b"\0").decode()
    know_platform()
    if config.get("exec"):  # a runtime that is a program of its own
        if config.get("http_port"):
            lib.z_http(config["http_port"])
        if config.get("debug_port"):
            lib.z_debug(config["debug_port"])
        argv = [word.encode() for word in config["exec"]] + [None]
        lib.z_serve_api((ctypes.c_char_p * len(argv))(*argv), what != AHEAD or bool(config.get("http_port")), what == AHEAD_INIT, config["timeout_ms"], ready_us)
    if "random" in sys.modules:
        sys.modules["random"].seed()  # all instances are forks of one process
    if what != FORK:
        warm_up(1)  # takes its copies of the pages that a request will touch while nobody waits
    gc.enable()
    handler, restored_us, hooks_us = None, 0, 0
    if what == SNAPSHOT:
        handler, what, ready_us, restored_us, hooks_us = take_snapshot()
    elif what == AHEAD_INIT:
        handler = init_ahead()
    while True:
        got = receive()
        if got is None:
            leave(0)
        number, deadline, came_us, (request_id, trace_id, arn, client_context), body = got
        init_us = 0
        if what == RESTORE:
            what = FORK
            init_us = restored_us
            if hooks_us < 0:
                send(RESTORE_ERROR, number, handler, init_us, ready_us, 0)
                leave(65)
            os.write(3, FRAME.pack(0, INITED, 0, 0, 0, 0, 0, number, 0, restored_us, hooks_us, 0))
            deadline = int(time.time() * 1000) + config["timeout_ms"]
        elif handler is None:
            handler, init_us = init(number, ready_us)
            os.write(3, FRAME.pack(0, INITED, 0, 0, 0, 0, 0, number, 0, 0, 0, 0))
            deadline = int(time.time() * 1000) + config["timeout_ms"]  # the handler's time starts here
        if trace_id:
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        since = time.monotonic()
        result, data = run(handler, request_id, arn, client_context, deadline, body, came_us)
        flush()
        send(result, number, data, init_us, ready_us, int((time.monotonic() - since) * 1e6))


WARM_TEXT = b"1234567812345678arn"
WARM_FRAME = FRAME.pack(len(WARM_TEXT) + 8, INVOKE, 0, 8, 8, 3, 0, 1, 0, 0, 0, 0) + WARM_TEXT + b'{"a": 1}'
WARM_CODE = marshal.dumps(compile("import json\nx = 1\ndef f(e, c):\n    return e\n", "<warm>", "exec"))


def warm_up(rounds):
    """What a request goes through, without one: in the zygote so often that the interpreter has
    made up its mind about this code (it writes into it until then)."""
    global peak_until
    for _ in range(rounds):
        peak_until = 0.0
        number, deadline, came_us, (invoke_id, _, arn, client_context), body = receive(lambda fd, n: WARM_FRAME, lambda: arrivals.poll(0))
        space = {}
        exec(marshal.loads(WARM_CODE), space)
        result, data = run(space["f"], invoke_id, arn, client_context, deadline, body, came_us)
        flush()
        send(result, number, data, 0, 0, 0, lambda fd, data: len(data))


warm = None


def rehearse():
    """In a child: an instance from its first step to its first answer, with a module of ours; the call lies there already."""
    global peak_until
    peak_until = 0.0
    ready_us, stream, *_ = INFO.unpack(info)
    os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = stream.rstrip(b"\0").decode()
    know_platform()
    gc.enable()
    number, deadline, came_us, (invoke_id, _, arn, client_context), body = receive()
    since_us = int(time.monotonic() * 1e6)
    handler = getattr(warm.load(), "f")
    os.write(3, FRAME.pack(0, INITED, 0, 0, 0, 0, 0, number, 0, 0, 0, 0))
    result, data = run(handler, invoke_id, arn, client_context, deadline, body, came_us)
    flush()
    send(result, number, data, since_us, ready_us, 0)
    lib.z_rehearsed()


def compile_all():
    """The compiler's child: byte code beside the sources, so that instances find it made. It may write there: nothing of the
    function's runs in it."""
    sys.path[:] = [folder for folder in sys.path if folder not in own_folders]
    import compileall
    import py_compile

    compileall.compile_dir(TASK, quiet=2, maxlevels=20, force=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    os._exit(0)


# ---- snapshots: an instance that ends as an image, and those that go on from it -----------------------------------


class NoSnapshot(Exception):
    pass


def number_in(text, name, base=10):
    for row in text.splitlines():
        if row.startswith(name + ":"):
            return int(row.split()[1], base)
    return 0


class Descriptors:
    """What is open beside our own, noted so that it can be made anew: files are opened again at their place, pipes and
    pairs of sockets within the process are new and empty, a connection to elsewhere is one whose other side has closed
    it (clients then connect again)."""

    def __init__(self):
        self.files, self.pipes, self.sockets, self.epolls, self.counters = [], {}, [], [], []
        for name in sorted(os.listdir("/proc/self/fd"), key=int):
            fd = int(name)
            if fd < 5:
                continue
            try:
                link = os.readlink(f"/proc/self/fd/{fd}")
                with open(f"/proc/self/fdinfo/{fd}") as f:
                    text = f.read()
            except OSError:  # that of the listing itself
                continue
            flags = number_in(text, "flags", 8)
            if link.startswith("/") and not link.endswith(" (deleted)"):
                self.files.append((fd, link, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC), number_in(text, "pos")))
            elif link.startswith("pipe:"):
                self.pipes.setdefault(link, []).append((fd, flags))
            elif link.startswith("socket:"):
                self.sockets.append((fd, flags))
            elif link == "anon_inode:[eventpoll]":
                watched = [(int(p[1]), int(p[3], 16)) for p in (row.split() for row in text.splitlines()) if p and p[0] == "tfd:"]
                self.epolls.append((fd, watched))
            elif link == "anon_inode:[eventfd]":
                self.counters.append((fd, flags, number_in(text, "eventfd-count", 16)))
            else:
                raise NoSnapshot(f"descriptor {fd} is {link}")
        self.pairs = self.find_pairs() if self.sockets else []

    def find_pairs(self):
        """Sockets whose other side is ours, too: what is sent into one comes out of the other."""
        import socket

        mine, pairs = {}, []
        for fd, _ in self.sockets:
            s = socket.socket(fileno=os.dup(fd))
            try:
                if s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM and not s.getsockname() and not s.getpeername() and \
                        struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] == os.getpid():
                    mine[fd] = s
            except OSError:
                pass
        while mine:
            fd, s = mine.popitem()
            try:
                s.send(b"?", socket.MSG_DONTWAIT)
            except OSError:
                continue
            for other, t in list(mine.items()):
                try:
                    if t.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                        t.recv(1)
                        pairs.append((fd, other))
                        del mine[other]
                        break
                except OSError:
                    pass
        return pairs

    @staticmethod
    def put(new, fd, flags):
        if new != fd:
            os.dup2(new, fd, inheritable=not flags & os.O_CLOEXEC)
            os.close(new)
        os.set_blocking(fd, not flags & os.O_NONBLOCK)

    def make(self):
        for fd, path, flags, at in self.files:
            try:
                new = os.open(path, flags)
            except OSError as e:
                print(f"tandem: {path} was open when the snapshot was made and is no more: {e.strerror}")
                continue
            self.put(new, fd, flags)
            if at:
                try:
                    os.lseek(fd, at, os.SEEK_SET)
                except OSError:
                    pass
        for ends in self.pipes.values():
            r, w = map(self.away, os.pipe())
            for fd, flags in ends:
                self.put(os.dup(w if flags & os.O_ACCMODE else r), fd, flags)
            os.close(r)
            os.close(w)
        self.make_sockets()
        for fd, flags, count in self.counters:
            self.put(os.eventfd(count, os.EFD_CLOEXEC), fd, flags)
        for fd, watched in self.epolls:
            import select

            fresh = select.epoll()
            self.put(os.dup(fresh.fileno()), fd, os.O_CLOEXEC)
            fresh.close()
            poll = select.epoll.fromfd(fd)
            for one, events in watched:
                try:
                    poll.register(one, events)
                except OSError:
                    pass
            held.append(poll)  # closing it would close the function's

    @staticmethod
    def away(fd):
        """The same under a number that is nobody's."""
        import fcntl

        new = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 700)
        os.close(fd)
        return new

    def make_sockets(self):
        import socket

        flags = dict(self.sockets)
        for one, other in self.pairs:
            a, b = (self.away(s.detach()) for s in socket.socketpair())
            self.put(a, one, flags.pop(one))
            self.put(b, other, flags.pop(other))
        for fd, f in flags.items():
            a, b = (self.away(s.detach()) for s in socket.socketpair())
            os.close(b)
            self.put(a, fd, f)


held = []


def pack_tmp():
    """What lies in /tmp, as bytes; None: nothing."""
    if not os.listdir("/tmp"):
        return None
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add("/tmp", arcname=".")
    return out.getvalue()


def unpack_tmp(data):
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall("/tmp", filter="fully_trusted") if hasattr(tarfile, "fully_trusted_filter") else tar.extractall("/tmp")


def alone():
    """Nothing but memory and descriptors is to be kept: no other threads, no children."""
    if len(os.listdir("/proc/self/task")) > 1:
        pid = os.fork()  # libraries with threads of their own (BLAS) put them away before a fork and make them anew when needed
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    n = len(os.listdir("/proc/self/task"))
    if n > 1:
        threading = sys.modules.get("threading")
        names = [t.name for t in threading.enumerate() if t is not threading.main_thread()] if threading else []
        raise NoSnapshot(f"{n - 1} thread{'s' * (n > 2)} beside the main one {'are' if n > 2 else 'is'} alive after initialization"
                         + (f" ({', '.join(names)})" if names else ""))
    children = [name for name in os.listdir("/proc") if name.isdigit() and int(name) > os.getpid()]
    if children:
        raise NoSnapshot("it has started processes that are alive")


def snapshot_failed(kind, message, trace, since_us, code):
    log_error(kind, message, trace)
    flush()
    body = error_json(message, kind, "", trace)
    os.write(3, FRAME.pack(len(body), SNAPSHOT_MADE, INIT_ERROR, 0, 0, 0, 0, 0, 0, max(int(time.monotonic() * 1e6) - since_us, 1), 0, 0) + body)
    leave(code)


def hooks_of(which):
    module = sys.modules.get("snapshot_restore_py")
    return getattr(module, which)() if module else []


def reseed():
    """All that go on from one image would draw the same random numbers."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(48), 48.0)


def take_snapshot():
    """Initializes the function and ends as an image. Each instance that goes on from it comes back from here:
    (handler, what it is to do, when its sandbox stood, us of the restore, us of the hooks). Where those raised:
    the error's JSON instead of the handler, and -1."""
    since_us = int(time.monotonic() * 1e6)
    os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] = "snap-start"
    handlers = {n: signal_of(n) for n in range(1, 65)}
    try:
        handler = load_handler(config["handler"])
    except InitError as e:
        snapshot_failed(e.kind, str(e), e.trace, since_us, 1)
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        snapshot_failed(type(e).__name__, str(e), user_trace(e.__traceback__), since_us, 1)
    try:
        before = hooks_of("get_before_snapshot")
        while before:
            function, args, kwargs = before.pop()
            function(*args, **kwargs)
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        snapshot_failed("Runtime.BeforeSnapshotError", f"{type(e).__name__}: {e}", user_trace(e.__traceback__), since_us, 64)
    init_us = max(int(time.monotonic() * 1e6) - since_us, 1)
    flush()
    try:
        alone()
        gc.collect()
        gc.freeze()
        folder, tmp = os.getcwd(), pack_tmp()
        handlers = {n: h for n, old in handlers.items() if (h := signal_of(n)) is not old and h is not None}
        descriptors = Descriptors()
        made = lib.z_snapshot(4, FRAME.pack(0, SNAPSHOT_MADE, OK, 0, 0, 0, 0, 0, 0, init_us, 0, 0), FRAME.size)
        if made < 0:
            raise NoSnapshot({-os_errno("EMLINK"): "it shares memory with other processes", -os_errno("EDEADLK"): "it has more than one thread"}
                             .get(made, os.strerror(-made)))
    except Exception as e:
        text = (str(e) if isinstance(e, NoSnapshot) else f"{type(e).__name__}: {e}").encode()[:400]
        os.write(3, FRAME.pack(len(text), SNAPSHOT_MADE, UNABLE, 0, 0, 0, 0, 0, 0, init_us, 0, 0) + text)
        leave(0)

    # from here on it is somebody else: a restored instance
    ready_us, stream, what = INFO.unpack(info)
    os.close(4)
    os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = stream.rstrip(b"\0").decode()
    know_platform()
    descriptors.make()
    os.chdir(folder)
    if tmp:
        unpack_tmp(tmp)
    for n, h in handlers.items():
        sys.modules["signal"].signal(n, h)
    reseed()
    hooks_since = int(time.monotonic() * 1e6)
    try:
        for function, args, kwargs in hooks_of("get_after_restore"):
            function(*args, **kwargs)
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        if what == RESTORE_AHEAD:
            leave(124)  # who has a call shall see it
        trace = user_trace(e.__traceback__)
        log_error("Runtime.AfterRestoreError", f"{type(e).__name__}: {e}", trace)
        flush()
        return error_json(str(e), "Runtime.AfterRestoreError", "", trace), RESTORE, ready_us, int(time.monotonic() * 1e6) - ready_us, -1
    flush()
    now = int(time.monotonic() * 1e6)
    if what == RESTORE_AHEAD:
        os.write(3, FRAME.pack(0, INITED, 0, 0, 0, 0, 0, 0, 0, now - ready_us, now - hooks_since, 0))
    return handler, what if what == RESTORE else FORK, ready_us, max(now - ready_us, 1), now - hooks_since


def os_errno(name):
    import errno

    return getattr(errno, name)


def signal_of(number):
    import signal

    try:
        return signal.getsignal(number)
    except ValueError:
        return None


# ---- the zygote --------------------------------------------------------------------------------------


def load_python():
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    standard = [p for p in sys.path if p]
    own_folders[:] = [TASK, f"/opt/python/lib/{version}/site-packages", "/opt/python"]
    sys.path[:] = standard
    load_ahead(own_folders)
    sys.path[:] = own_folders + ["/var/runtime"] + standard + ["/usr/lib/python3/dist-packages"]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    importlib.util.find_spec("nothing_of_this_name")  # fills the finders' caches of the folders
    read_module()


def c_strings(words):
    return (ctypes.c_char_p * (len(words) + 1))(*[word.encode() for word in words], None)


def may_fork():
    """A Node whose instances can be forks of one that has started already: it was started without anything of the
    function's, so not when that has a say in how it starts, and not when others in the instance want the Runtime API."""
    mine = ("NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "NODE_V8_COVERAGE", "AWS_LAMBDA_EXEC_WRAPPER", "SSL_CERT_FILE", "OPENSSL_CONF")
    return not any(config["env"].get(name) for name in mine) and not os.path.isdir("/opt/extensions")


def become_node():
    memory = int(config["env"].get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or 128)
    given = {name: config[name] for name in ("uid", "tmp_mb", "timeout_ms", "env", "base") if name in config}
    given["host"] = "169.254.0.1"
    argv = [config["exec"][0], "--single-threaded", "--v8-pool-size=0", f"--max-old-space-size={max(memory * 9 // 10, 32)}",
            "/var/runtime/index.mjs"]
    check(lib.z_exec(c_strings(argv), c_strings(["TANDEM_ZYGOTE=" + json.dumps(given), "PATH=/usr/bin:/bin", "LANG=en_US.UTF-8"])), argv[0])


def has_extensions():
    try:
        return any(os.access("/opt/extensions/" + name, os.X_OK) for name in os.listdir("/opt/extensions"))
    except OSError:
        return False


def begin_zygote():
    global config
    step = "start"
    try:
        check(lib.z_start(3), "start")
        config = json.loads(os.read(3, 1 << 20))
        step = "build the root"
        if config.get("lowers"):
            build_image_root()
        else:
            build_root()
        step = "load"
        os.environ.clear()
        os.environ.update(config["env"])
        time.tzset()
        log_as_chosen()
        if not config.get("exec") and not config.get("wasm") and has_extensions():  # they speak HTTP, and so does Python then
            config["exec"] = [sys.executable, "-S", "/var/runtime/bootstrap.py"]
        if config.get("exec"):
            if config.get("own_net"):
                lib.z_own_net()
            check(lib.z_loopback_up(), "loopback")  # for instances that have no network of their own
            if config.get("give"):  # to one who is waiting for it; who gets nothing knows that he may not be it
                if may_fork() and not has_extensions():
                    check(lib.z_give_root(), "give")
                os._exit(0)
            if config.get("fork") and may_fork() and not has_extensions():
                become_node()
        elif config.get("wasm"):
            begin_wasm()
        else:
            if config.get("snapshot") and config.get("own_net"):
                lib.z_own_net()
            load_python()
        check(lib.z_config(config["uid"], config["tmp_mb"], b"169.254.0.1", b"/code/rw"), "config")
    except BaseException as e:
        lib.z_failed(f"{step}: {e}".encode()[:63], getattr(e, "errno", 0) or 22)
        os.write(2, f"zygote: {step}: {type(e).__name__}: {e}\n".encode())
        os._exit(1)
    gc.freeze()
    lib.z_own_mappings()
    lib.z_ready(0 if config.get("exec") else 1)


def begin_base():
    load_lib(sys.argv[1])
    if lib.z_base(3) < 0:  # the gateway has gone meanwhile
        os._exit(1)
    sys.argv[:] = ["/var/runtime/bootstrap.py"]
    import site

    site.setquit()
    site.sethelper()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    sys.stderr.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    set_up_logging()
    warm_up(40)
    gc.collect()
    gc.disable()
    gc.freeze()
    lib.z_freeze()
    lib.z_own_mappings()
    global warm
    warm = Prepared("warm", __file__, bytes(16) + WARM_CODE, b"")
    if lib.z_learn(WARM_FRAME, len(WARM_FRAME)) == 1:
        rehearse()
    lib.z_drop_cold()


def be_one_of(n):
    """As many calls at once as there are processes, each of which loads the module for itself; as Lambda's own client
    does it. The first one waits here, and ends with the first that does."""
    for _ in range(n):
        if os.fork() == 0:
            return
    _, status = os.wait()
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def start_debugger():
    """Where somebody debugs this function: debugpy listens, whether anybody is there or not."""
    port = os.environ.pop("TANDEM_DEBUG_PORT", None)
    if not port:
        return
    sys.path.append("/var/debug")  # behind all that is the function's
    import debugpy

    debugpy.configure(subProcess=False)
    debugpy.listen(("127.0.0.1", int(port)))


def client():
    """This program as a client of the Runtime API: what a function with extensions runs in."""
    global config, request_id
    import http.client

    config = {"handler": os.environ["_HANDLER"]}
    if int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY") or 1) > 1:
        be_one_of(int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"]))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    sys.path[:] = [TASK, f"/opt/python/lib/{version}/site-packages", "/opt/python"] + [p for p in sys.path if p] + ["/usr/lib/python3/dist-packages"]
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    set_up_logging()
    start_debugger()
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def ask(method, path, body=None):
        api.request(method, "/2018-06-01/runtime/" + path, body, {"Content-Type": "application/json"})
        answer = api.getresponse()
        return answer, answer.read()

    know_platform()

    def failed(kind, message, trace):
        log_error(kind, message, trace)
        ask("POST", "init/error", error_json(message, kind, "", trace))
        leave(1)

    try:
        handler = load_handler(config["handler"])
    except InitError as e:
        failed(e.kind, str(e), e.trace)
    except SystemExit as e:
        leave(exit_code(e))
    except BaseException as e:
        failed(type(e).__name__, str(e), user_trace(e.__traceback__))
    while True:
        got, body = ask("GET", "invocation/next")
        head = got.headers
        request_id = head["Lambda-Runtime-Aws-Request-Id"]
        if head["Lambda-Runtime-Trace-Id"]:
            os.environ["_X_AMZN_TRACE_ID"] = head["Lambda-Runtime-Trace-Id"]
        result, data = run(handler, request_id, head["Lambda-Runtime-Invoked-Function-Arn"], head["Lambda-Runtime-Client-Context"],
                           int(head["Lambda-Runtime-Deadline-Ms"]), body, int(time.monotonic() * 1e6))
        flush()
        if result == BAD_EVENT:
            result, data = ERROR, error_json(data.decode(), "Runtime.UnmarshalError", request_id, [])
        ask("POST", f"invocation/{request_id}/{'response' if result == OK else 'error'}", data)


def main():
    begin_base()
    while True:
        what = lib.z_next()
        if what == 0:
            os._exit(0)
        if what == COMPILED:
            read_module()
            continue
        if what == ZYGOTE:
            begin_zygote()
            continue
        try:
            if what == COMPILE:
                compile_all()
            if what == REHEARSE:
                if config.get("wasm"):  # its instances do not come here
                    lib.z_rehearsed()
                rehearse()
            serve(what)
        except BaseException as e:
            try:
                os.write(2, f"driver: {type(e).__name__}: {e}\n".encode())
            except OSError:
                pass
        os._exit(126)


if __name__ == "__main__":
    main() if len(sys.argv) > 1 else client()
