/* Real zygotes, real instances: what a handler may do, and what happens to one that does more.
 * Needs root (namespaces, cgroups); says so and passes without. */
#include "tt.h"

#include "function/host.h"

#include "network/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <signal.h>
#include <sys/wait.h>

static struct host H;

static void want(const struct answer *a, const char *payload)
{
    if (a->err.code != ERR_OK || a->error || !a->payload || !streq(a->payload, payload))
        fprintf(stderr, "err=%d %s error=%s payload=%s\n%s\n", a->err.code, a->err.msg, a->error ? a->error : "-",
                a->payload ? a->payload : "-", a->tail ? a->tail : "");
    assert_int_equal(a->err.code, ERR_OK);
    assert_null(a->error);
    assert_string_equal(a->payload, payload);
}

static void want_error(const struct answer *a, const char *part, const char *part2)
{
    if (a->err.code != ERR_OK || !a->error || !strstr(a->payload, part) || !strstr(a->payload, part2))
        fprintf(stderr, "want %s and %s, got err=%d %s error=%s payload=%s\n%s\n", part, part2, a->err.code, a->err.msg,
                a->error ? a->error : "-", a->payload ? a->payload : "-", a->tail ? a->tail : "");
    assert_int_equal(a->err.code, ERR_OK);
    assert_string_equal(a->error, "Unhandled");
    assert_non_null(strstr(a->payload, part));
    assert_non_null(strstr(a->payload, part2));
}

/* Calls a fresh function once. */
static void once(const char *name, const char *python, const char *spec, const char *event, struct answer *a)
{
    host_function(&H, name, python, spec);
    host_call(&H, name, event, a);
    functions_remove(H.fs, "default", name);
}

static void answers_cold_and_warm(void **state)
{
    struct answer a;

    host_function(&H, "hello", "n = 0\ndef lambda_handler(event, context):\n    global n\n    n += 1\n"
                  "    print('hi', event)\n    return {'a': event['x'] + 1, 'n': n}\n", "");
    host_call(&H, "hello", "{\"x\":41}", &a);
    want(&a, "{\"a\": 42, \"n\": 1}");
    assert_true(a.cold);
    assert_true(a.init_us > 0);
    assert_non_null(strstr(a.tail, "START RequestId: "));
    assert_non_null(strstr(a.tail, "\nhi {'x': 41}\nEND RequestId: "));
    assert_non_null(strstr(a.tail, " ms\tMemory Size: 128 MB\tMax Memory Used: "));
    assert_non_null(strstr(a.tail, " MB\tInit Duration: "));
    answer_done(&a);
    host_call(&H, "hello", "{\"x\":1}", &a);
    want(&a, "{\"a\": 2, \"n\": 2}");
    assert_false(a.cold);
    assert_null(strstr(a.tail, "Init Duration"));
    answer_done(&a);
    functions_remove(H.fs, "default", "hello");
}

static void context_is_whole(void **state)
{
    struct answer a;
    struct function_call c = {.name = "ctx", .payload = "{}", .n = 2, .client_context = "{\"custom\":{\"k\":\"v\"},\"client\":{\"app_title\":\"t\"}}",
                              .request_id = "11111111-2222-4333-8444-555555555555"};

    host_function(&H, "ctx",
                  "import os\ndef lambda_handler(event, c):\n"
                  "    assert 2000 < c.get_remaining_time_in_millis() <= 3000\n"
                  "    assert c.log_stream_name == os.environ['AWS_LAMBDA_LOG_STREAM_NAME'] and '[$LATEST]' in c.log_stream_name\n"
                  "    assert c.client_context.custom['k'] == 'v' and c.client_context.client.app_title == 't'\n"
                  "    assert c.identity.cognito_identity_id is None\n"
                  "    assert c.tandem_start_us > 0\n"
                  "    assert os.environ['TZ'] == ':UTC' and os.environ['_HANDLER'] == 'lambda_function.lambda_handler'\n"
                  "    assert os.getcwd() == '/var/task'\n"
                  "    return [c.aws_request_id, c.function_name, c.function_version, c.memory_limit_in_mb, c.invoked_function_arn, c.log_group_name, os.environ['MINE']]\n",
                  "\"environment\":{\"MINE\":\"yes\"}");
    a = (struct answer){0};
    function_invoke(H.fs, &c, host_on_done, &a);
    host_wait(&H, &a);
    want(&a, "[\"11111111-2222-4333-8444-555555555555\", \"ctx\", \"$LATEST\", \"128\", "
             "\"arn:aws:lambda:us-east-1:000000000000:function:ctx\", \"/aws/lambda/ctx\", \"yes\"]");
    answer_done(&a);
    functions_remove(H.fs, "default", "ctx");
}

static void errors_are_the_platforms(void **state)
{
    static const struct {
        const char *code, *spec, *part, *part2;
    } rows[] = {
        {"def lambda_handler(e, c):\n    raise ValueError('bad thing')\n", "", "\"errorMessage\": \"bad thing\", \"errorType\": \"ValueError\", \"requestId\": \"",
         "\"stackTrace\": [\"  File \\\"/var/task/lambda_function.py\\\", line 2, in lambda_handler\\n    raise ValueError('bad thing')\\n\"]"},
        {"def lambda_handler(e, c):\n    return {1,2}\n", "", "Runtime.MarshalError", "Unable to marshal response: Object of type set is not JSON serializable"},
        {"import nothing_like_this\n", "", "Runtime.ImportModuleError", "Unable to import module 'lambda_function': No module named 'nothing_like_this'"},
        {"x = 1\n", "", "Runtime.HandlerNotFound", "Handler 'lambda_handler' missing on module 'lambda_function'"},
        {"def x(:\n", "", "Runtime.UserCodeSyntaxError", "Syntax error in module 'lambda_function'"},
        {"x = 1\n", "\"handler\":\"nodot\"", "Runtime.MalformedHandlerName", "Bad handler 'nodot'"},
        {"1/0\n", "", "ZeroDivisionError", "division by zero"},
        {"import sys\ndef lambda_handler(e, c):\n    sys.exit(3)\n", "", "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"},
        {"import sys\ndef lambda_handler(e, c):\n    sys.exit()\n", "", "Runtime.ExitError", "Error: Runtime exited without providing a reason"},
        {"import os\ndef lambda_handler(e, c):\n    os._exit(9)\n", "", "Runtime.ExitError", "exit status 9"},
        {"exit(4)\n", "", "Runtime.ExitError", "exit status 4"},
        {"import ctypes\ndef lambda_handler(e, c):\n    ctypes.string_at(0)\n", "", "Runtime.ExitError", "signal: segmentation fault"},
        {"def lambda_handler(e, c):\n    return 'x' * 7000000\n", "\"memoryMB\":256", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"},
        {"def lambda_handler(e, c):\n    return lambda_handler(e, c)\n", "", "RecursionError", "maximum recursion depth"},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct answer a;
        char name[16];

        snprintf(name, sizeof name, "err%zu", i);
        once(name, rows[i].code, rows[i].spec, "{}", &a);
        want_error(&a, rows[i].part, rows[i].part2);
        answer_done(&a);
    }
}

static void bad_events_are_refused(void **state)
{
    struct answer a;

    host_function(&H, "echo", "def lambda_handler(e, c):\n    return e\n", "\"memoryMB\":256");
    host_call(&H, "echo", "{not json", &a);
    assert_int_equal(a.err.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(a.err.msg, "Could not parse request body into json"));
    answer_done(&a);
    host_call(&H, "echo", "", &a);
    want(&a, "{}");
    answer_done(&a);
    host_call(&H, "nobody", "{}", &a);
    assert_int_equal(a.err.code, ERR_NOT_FOUND);
    answer_done(&a);
    char *big = xmalloc(6000003);
    memset(big, 'x', 6000002);
    big[0] = big[6000001] = '"';
    big[6000002] = 0;
    host_call(&H, "echo", big, &a);
    want(&a, big);
    answer_done(&a);
    big = xrealloc(big, FUNCTION_PAYLOAD_MAX + 2);
    memset(big, '1', FUNCTION_PAYLOAD_MAX + 1);
    big[FUNCTION_PAYLOAD_MAX + 1] = 0;
    host_call(&H, "echo", big, &a);
    assert_int_equal(a.err.code, ERR_TOO_LARGE);
    answer_done(&a);
    free(big);
    functions_remove(H.fs, "default", "echo");
}

static void limits_stop_only_their_own(void **state)
{
    struct answer a, b;

    host_function(&H, "good", "def lambda_handler(e, c):\n    return 1\n", "");
    host_function(&H, "loop", "def lambda_handler(e, c):\n    while True: pass\n", "\"timeoutSeconds\":0.3");
    host_send(&H, "loop", "{}", &a);
    host_call(&H, "good", "{}", &b);
    want(&b, "1");
    answer_done(&b);
    host_wait(&H, &a);
    want_error(&a, "Task timed out after 0.30 seconds", "Sandbox.Timedout");
    answer_done(&a);
    once("eater", "def lambda_handler(e, c):\n    x = bytearray(400 << 20)\n    return len(x)\n", "\"memoryMB\":64,\"timeoutSeconds\":20", "{}", &a);
    want_error(&a, "Runtime.OutOfMemory", "signal: killed");
    answer_done(&a);
    once("bomb", "import os, time\ndef lambda_handler(e, c):\n    n = 0\n    try:\n        while True:\n            if os.fork() == 0:\n                time.sleep(30)\n"
         "                os._exit(0)\n            n += 1\n    except OSError as x:\n        return n < 1100\n", "\"memoryMB\":1769,\"timeoutSeconds\":20", "{}", &a);
    want(&a, "true");
    answer_done(&a);
    host_call(&H, "good", "{}", &b);
    want(&b, "1");
    answer_done(&b);
    functions_remove(H.fs, "default", "good");
    functions_remove(H.fs, "default", "loop");
}

static void sandbox_is_closed(void **state)
{
    struct answer a;

    once("probe",
         "import os, socket, ctypes, signal\n"
         "def refused(f, *args):\n    try:\n        f(*args)\n    except OSError:\n        return True\n    return False\n"
         "def lambda_handler(e, c):\n"
         "    bad = []\n"
         "    pids = [p for p in os.listdir('/proc') if p.isdigit()]\n"
         "    if pids != ['1']: bad.append(['pids', pids])\n"
         "    for p in ('/var/task/x', '/usr/lib/x', '/x', '/etc/x', '/dev/x', '/code/rw/x', '/mnt/x', '/proc/sys/kernel/hostname'):\n"
         "        if not refused(open, p, 'w'): bad.append(['write', p])\n"
         "    for p in ('/root', '/home', '/boot', '/usr/local', '/usr/src', '/sys/kernel', '/work', '/var/lib', '/dev/sda', '/dev/mem', '/code/rw'):\n"
         "        if os.path.exists(p): bad.append(['sees', p])\n"
         "    s = socket.socket()\n    s.settimeout(1)\n"
         "    if not refused(s.connect, ('127.0.0.1', 22)): bad.append('net')\n"
         "    if not refused(s.connect, ('1.1.1.1', 53)): bad.append('net2')\n"
         "    if os.getuid() == 0 or os.getgid() == 0 or os.getgroups(): bad.append('ids')\n"
         "    status = dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n"
         "    for k in ('CapEff', 'CapPrm', 'CapBnd', 'CapInh', 'CapAmb'):\n"
         "        if int(status[k], 16): bad.append(k)\n"
         "    if status['NoNewPrivs'] != '1' or status['Seccomp'] != '2': bad.append('filter')\n"
         "    libc = ctypes.CDLL(None, use_errno=True)\n"
         "    for name, n in (('mount', 165), ('unshare', 272), ('bpf', 321), ('keyctl', 250), ('kexec_load', 246), ('init_module', 175)):\n"
         "        r = libc.syscall(n, 0x10000000 if name == 'unshare' else 0, 0, 0, 0, 0)\n"
         "        if r != -1: bad.append(name)\n"
         "    if sorted(int(f) for f in os.listdir('/proc/self/fd'))[:4] != [0, 1, 2, 3] or len(os.listdir('/proc/self/fd')) > 6: bad.append(os.listdir('/proc/self/fd'))\n"
         "    open('/tmp/x', 'w').write('y')\n"
         "    if any('SECRET' in k for k in os.environ): bad.append('env')\n"
         "    if len(os.sched_getaffinity(0)) < 1: bad.append('cpu')\n"
         "    return bad\n",
         "", "{}", &a);
    want(&a, "[]");
    answer_done(&a);
    once("tmpfull", "def lambda_handler(e, c):\n    try:\n        with open('/tmp/f', 'wb') as f:\n            for i in range(40): f.write(b'x' * (1 << 20))\n"
         "    except OSError as x:\n        return x.errno\n", "\"ephemeralStorageMB\":16,\"memoryMB\":256", "{}", &a);
    want(&a, "28");
    answer_done(&a);
}

static void odd_handlers_are_survived(void **state)
{
    struct answer a, b;

    once("closer", "import os\ndef lambda_handler(e, c):\n    os.closerange(0, 1000)\n    return 1\n", "", "{}", &a);
    want_error(&a, "Runtime.ExitError", "RequestId");
    answer_done(&a);
    once("printer", "def lambda_handler(e, c):\n    for i in range(30):\n        print('x' * 100000)\n    print('the end')\n    return 5\n", "\"memoryMB\":512", "{}", &a);
    want(&a, "5");
    assert_true(strlen(a.tail) <= FUNCTION_LOG_TAIL_MAX);
    assert_non_null(strstr(a.tail, "the end\nEND"));
    answer_done(&a);
    once("child", "import subprocess\ndef lambda_handler(e, c):\n    return subprocess.run(['echo', 'from a child'], stdout=subprocess.PIPE).stdout.decode()\n", "", "{}", &a);
    want(&a, "\"from a child\\n\"");
    answer_done(&a);
    /* makes the zygote its tracer and stops: it must not count as ended, nor stay */
    once("traced", "import ctypes, os, signal\ndef lambda_handler(e, c):\n    ctypes.CDLL(None).ptrace(0, 0, 0, 0)\n    if os.fork() == 0: os._exit(0)\n    ctypes.CDLL(None).raise_(5) if False else os.kill(1, 19)\n    import time; time.sleep(1)\n    return 1\n", "\"timeoutSeconds\":3", "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    answer_done(&a);
    once("forger", "import os\ndef lambda_handler(e, c):\n    os.write(3, b'\\xff' * 4096)\n    return 1\n", "", "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_non_null(a.error);
    answer_done(&a);
    once("logger", "import logging\ndef lambda_handler(e, c):\n    logging.warning('watch out')\n    logging.info('quiet')\n", "", "{}", &a);
    want(&a, "null");
    assert_non_null(strstr(a.tail, "[WARNING]\t"));
    assert_non_null(strstr(a.tail, "\twatch out\n"));
    assert_null(strstr(a.tail, "quiet"));
    answer_done(&a);
    /* what differs from instance to instance although all are forks of one process */
    host_function(&H, "dice", "import random, os, uuid, time\ndef lambda_handler(e, c):\n    time.sleep(3)\n    return [random.random(), str(uuid.uuid4())]\n", "\"timeoutSeconds\":30");
    host_send(&H, "dice", "{}", &a);
    host_send(&H, "dice", "{}", &b);
    host_wait(&H, &a);
    host_wait(&H, &b);
    assert_true(a.cold && b.cold);
    assert_string_not_equal(a.payload, b.payload);
    answer_done(&a);
    answer_done(&b);
    functions_remove(H.fs, "default", "dice");
}

static void packages_and_folders_work(void **state)
{
    static const char *const files[] = {"app/main.py", "import json\nfrom . import helper\ndef go(e, c):\n    return helper.who()\n", "app/__init__.py", "",
                                        "app/helper.py", "import lib.deep as d\ndef who():\n    return d.NAME\n", "lib/deep.py", "NAME = 'deep'\n", NULL};
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct answer a;
    struct err err;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, "pkg", sha, "\"handler\":\"app/main.go\"");
    host_call(&H, "pkg", "{}", &a);
    want(&a, "\"deep\"");
    answer_done(&a);
    functions_remove(H.fs, "default", "pkg");
}

/* What is loaded ahead is loaded as root: a file of the function's that is called as a standard module, or as one that
 * such a module needs, must not run there. It is what the function gets all the same. */
static void nothing_of_theirs_runs_ahead(void **state)
{
    static const char WHO[] = "import os\nWHO = os.getuid()\n";
    const char *const files[] = {"lambda_function.py", "import os, sched, concurrent.futures.thread\n"
                                 "def lambda_handler(e, c):\n"
                                 "    q = __import__('queue')\n"
                                 "    return [os.getuid() > 0, sched.WHO == os.getuid(), q.WHO == os.getuid()]\n",
                                 "sched/__init__.py", WHO, "queue.py", WHO,
                                 "compileall.py", "open('/var/task/mark', 'w').close()\n", NULL};
    _auto_(freep) char *mark = NULL, *compiled = NULL;
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct answer a;
    struct err err;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, "shadow", sha, "");
    host_call(&H, "shadow", "{}", &a);
    want(&a, "[true, true, true]");
    answer_done(&a);
    compiled = xasprintf("%s/functions/%s.compiled", H.state, sha); /* by one that may write to the code: nor there */
    mark = xasprintf("%s/functions/%s/mark", H.state, sha);
    for (int i = 0; i < 500 && access(compiled, F_OK) < 0; i++)
        host_sleep(&H, 20);
    assert_int_equal(access(compiled, F_OK), 0);
    assert_true(access(mark, F_OK) < 0);
    functions_remove(H.fs, "default", "shadow");
}

static void volumes_are_shared(void **state)
{
    char path[128], text[16] = "";
    struct answer a;
    struct stat st;

    snprintf(path, sizeof path, "%s/volumes", H.state);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/volumes/pics", H.state);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/volumes/pics/in", H.state);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    snprintf(path, sizeof path, "%s/volumes/pics/others", H.state);
    mkdir(path, 0777);
    assert_int_equal(chmod(path, 0777) | chown(path, 1000, 1000), 0);
    once("vol", "import os\ndef lambda_handler(e, c):\n    open('/mnt/pics/others/mine', 'w').close()\n    assert os.stat('/mnt/pics/others').st_uid == 1000\n    t = open('/mnt/pics/in').read()\n    os.makedirs('/mnt/pics/d')\n    open('/mnt/pics/d/out', 'w').write(t * 2)\n    return t\n",
         "\"fileSystems\":[{\"volume\":\"pics\",\"localMountPath\":\"/mnt/pics\"}]", "{}", &a);
    want(&a, "\"abc\"");
    answer_done(&a);
    snprintf(path, sizeof path, "%s/volumes/pics/d/out", H.state);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, text, 15), 6);
    assert_string_equal(text, "abcabc");
    fstat(fd, &st);
    assert_int_equal(st.st_uid, 0); /* as the pods and the S3 door write it */
    close(fd);
    once("volro", "def lambda_handler(e, c):\n    open('/mnt/pics/no', 'w')\n", "\"fileSystems\":[{\"volume\":\"pics\",\"localMountPath\":\"/mnt/pics\",\"readOnly\":true}]", "{}", &a);
    want_error(&a, "OSError", "Read-only file system");
    answer_done(&a);
}

static void concurrency_has_its_limits(void **state)
{
    struct answer a[12];
    int ok = 0, throttled = 0;

    host_function(&H, "slow", "import time\ndef lambda_handler(e, c):\n    time.sleep(0.3)\n    return 1\n", "\"reservedConcurrency\":8");
    host_call(&H, "slow", "{}", &a[0]);
    answer_done(&a[0]);
    for (int i = 0; i < 12; i++)
        host_send(&H, "slow", "{}", &a[i]);
    for (int i = 0; i < 12; i++) {
        host_wait(&H, &a[i]);
        ok += a[i].err.code == ERR_OK && !a[i].error;
        throttled += a[i].err.code == ERR_TOO_MANY;
        if (a[i].err.code == ERR_TOO_MANY)
            assert_string_equal(a[i].throttle, "ReservedFunctionConcurrentInvocationLimitExceeded");
        answer_done(&a[i]);
    }
    assert_int_equal(ok, 8);
    assert_int_equal(throttled, 4);
    host_function(&H, "never", "def lambda_handler(e, c):\n    return 1\n", "\"reservedConcurrency\":0");
    host_call(&H, "never", "{}", &a[0]);
    assert_int_equal(a[0].err.code, ERR_TOO_MANY);
    answer_done(&a[0]);
    functions_remove(H.fs, "default", "slow");
    functions_remove(H.fs, "default", "never");
}

static int64_t meter_int_of(struct functions *fs, const char *name, const char *field)
{
    struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    int64_t n = -1;

    functions_meter_json(fs, &b);
    struct val *v = json_parse(a, b.p, b.n, &err);
    VAL_EACH(val_get(v, "functions"), it)
    if (streq(val_str_at(it, "name", ""), name))
        n = val_int_at(it, field, -2);
    buf_done(&b);
    arena_free(a);
    return n;
}

/* Until it has one that was forked ahead and has loaded its module. */
static void wait_ahead(struct host *h, const char *name)
{
    for (int i = 0; i < 600 && meter_int_of(h->fs, name, "forkedAhead") < 1; i++)
        host_sleep(h, 50);
    host_sleep(h, 500);
}

/* The one that was forked ahead has loaded the module when the call comes; one whose module cannot
 * be loaded that way costs nobody a call. */
static void modules_are_loaded_ahead(void **state)
{
    struct answer a;

    host_function(&H, "ahead", "import time\ntime.sleep(0.2)\nat = time.monotonic()\ndef lambda_handler(e, c):\n    return time.monotonic() - at > 0.1\n", "");
    wait_ahead(&H, "ahead");
    host_sleep(&H, 200);
    host_call(&H, "ahead", "{}", &a);
    want(&a, "true");
    assert_true(a.cold);
    assert_int_equal(a.init_us, 0);
    answer_done(&a);
    functions_remove(H.fs, "default", "ahead");
    host_function(&H, "once", "import os, time\ntime.sleep(0.1)\nif not os.path.exists('/tmp/never'):\n    os._exit(7)\n", "");
    host_sleep(&H, 120);
    host_call(&H, "once", "{}", &a);
    want_error(&a, "Runtime.ExitError", "exit status 7");
    answer_done(&a);
    functions_remove(H.fs, "default", "once");
}

static int64_t meter_int(const char *name, const char *field)
{
    return meter_int_of(H.fs, name, field);
}

/* The answer tells where it came from and where its time went, in its log too, and the parts are the whole. */
static void want_rung(struct answer *a, enum function_rung rung)
{
    char part[32];

    assert_int_equal(a->err.code, ERR_OK);
    assert_string_equal(function_rung_names[a->rung], function_rung_names[rung]);
    assert_true(a->queue_us >= 0 && a->place_us >= 0 && a->start_us >= 0 && a->init_us >= 0 && a->handler_us > 0);
    assert_true(a->start_us + a->init_us + a->handler_us <= a->duration_us);
    assert_true(a->queue_us + a->place_us + a->duration_us <= a->wall_us);
    assert_int_equal(a->start_us > 0, rung >= FUNCTION_ZYGOTE);
    assert_int_equal(a->init_us > 0, rung >= FUNCTION_ZYGOTE);
    snprintf(part, sizeof part, "Timing: rung=%s;", function_rung_names[rung]);
    assert_non_null(strstr(a->tail, part));
    answer_done(a);
}

/* Every rung of the ladder, each made to happen by what is there when the call comes. */
static void the_rung_is_told(void **state)
{
    static const char SLOW[] = "import time\ndef lambda_handler(e, c):\n    time.sleep(e.get('s', 0.2))\n    return 1\n";
    struct functions_options o = {.keep_ms = 60000, .stems = -1};
    struct host h = {0};
    struct answer a, b;
    struct err err;

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "one", SLOW, "");
    host_call(&h, "one", "{}", &a);
    assert_true(a.place_us > 1000); /* an interpreter was started */
    want_rung(&a, FUNCTION_FRESH);
    host_call(&h, "one", "{}", &a);
    assert_true(a.handler_us >= 200000);
    want_rung(&a, FUNCTION_WARM);
    host_function(&h, "two", SLOW, "\"timeoutSeconds\":30");
    host_call(&h, "two", "{}", &a);
    want_rung(&a, FUNCTION_RUNTIME);
    host_send(&h, "two", "{\"s\":3}", &a); /* so long that it is never back before the other one has begun */
    host_send(&h, "two", "{}", &b);
    host_wait(&h, &a);
    host_wait(&h, &b);
    want_rung(&a, FUNCTION_WARM);
    want_rung(&b, FUNCTION_ZYGOTE);
    host_stop(&h);
    o.stems = 0; /* the default: one */
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "ahead", SLOW, "");
    wait_ahead(&h, "ahead");
    host_call(&h, "ahead", "{}", &a);
    assert_true(a.cold);
    want_rung(&a, FUNCTION_STEM);
    host_stop(&h);
    host_remove(&h);
}

/* A function that was called five times at once will be again: that many are ahead when the used ones have gone, one
 * when nobody has called it so for longer than the keeping is worth. */
static void stems_follow_demand(void **state)
{
    static const char SLOW[] = "import time\ndef lambda_handler(e, c):\n    time.sleep(e.get('s', 0))\n    return 1\n";
    struct functions_options o = {.keep_ms = 300, .zygote_keep_ms = 60000};
    struct answer a[5];
    int64_t ahead = 0;
    struct host h = {0};
    struct err err;

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "demand", SLOW, "\"timeoutSeconds\":30");
    host_call(&h, "demand", "{}", &a[0]);
    answer_done(&a[0]);
    for (int i = 0; i < 1200 && meter_int_of(h.fs, "demand", "instances"); i++)
        host_sleep(&h, 50);
    wait_ahead(&h, "demand");
    assert_int_equal(meter_int_of(h.fs, "demand", "forkedAhead"), 1);
    for (int i = 0; i < 5; i++)
        host_send(&h, "demand", "{\"s\":3}", &a[i]);
    for (int i = 0; i < 5; i++) {
        host_wait(&h, &a[i]);
        answer_done(&a[i]);
    }
    assert_int_equal(meter_int_of(h.fs, "demand", "instances"), 5);
    for (int i = 0; i < 300 && ahead < 5; i++) { /* those used are let go meanwhile */
        host_sleep(&h, 100);
        ahead = meter_int_of(h.fs, "demand", "forkedAhead");
        assert_true(ahead <= 5);
    }
    assert_int_equal(ahead, 5);
    host_stop(&h);
    host_remove(&h);
}

static bool somebody_is_busy(void)
{
    struct buf b = {0};
    bool busy;

    functions_instances_json(H.fs, &b);
    busy = strstr(b.p, "\"busy\"") != NULL;
    buf_done(&b);
    return busy;
}

static void new_code_takes_over(void **state)
{
    struct answer a, b;

    host_function(&H, "up", "import time\ndef lambda_handler(e, c):\n    time.sleep(0.3)\n    return 'old'\n", "");
    host_send(&H, "up", "{}", &a);
    while (!somebody_is_busy())
        host_sleep(&H, 5);
    host_function(&H, "up", "def lambda_handler(e, c):\n    return 'new'\n", "");
    host_call(&H, "up", "{}", &b);
    host_wait(&H, &a);
    want(&a, "\"old\"");
    want(&b, "\"new\"");
    answer_done(&a);
    answer_done(&b);
    functions_remove(H.fs, "default", "up");
}

/* A gateway that has just started has not heard of all functions: who is not found then may exist. */
static void who_is_not_known_yet_is_not_denied(void **state)
{
    struct functions_options o = {.events_wait = true};
    struct host h = {0};
    struct answer a;
    struct err err;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_call(&h, "later", "{}", &a);
    assert_int_equal(a.err.code, ERR_UNAVAILABLE);
    answer_done(&a);
    functions_settled(h.fs);
    host_call(&h, "later", "{}", &a);
    assert_int_equal(a.err.code, ERR_NOT_FOUND);
    answer_done(&a);
    host_stop(&h);
    host_remove(&h);
}

static void nobody_calls_nothing_runs(void **state)
{
    struct answer a;

    host_function(&H, "rare", "def lambda_handler(e, c):\n    return 1\n", "");
    host_call(&H, "rare", "{}", &a);
    answer_done(&a);
    assert_int_equal(meter_int("rare", "instances"), 1);
    for (int i = 0; i < 600 && meter_int("rare", "processes") > 0; i++)
        host_sleep(&H, 100);
    assert_int_equal(meter_int("rare", "processes"), 0);
    host_call(&H, "rare", "{}", &a);
    want(&a, "1");
    assert_true(a.cold);
    answer_done(&a);
    assert_int_equal(meter_int("rare", "requests"), 2);
    assert_int_equal(meter_int("rare", "cold_starts"), 2);
    assert_int_equal(meter_int("rare", "answered_warm"), 0);
    assert_int_equal(meter_int("rare", "answered_stem") + meter_int("rare", "answered_zygote") +
                     meter_int("rare", "answered_runtime") + meter_int("rare", "answered_fresh"), 2);
    functions_remove(H.fs, "default", "rare");
}

static void on_queued(void *arg, const struct err *err, const char *id)
{
    *(int *)arg = err->code == ERR_OK ? 1 : -1;
}

static void send_event(struct host *h, const char *name, const char *event)
{
    struct function_call c = {.name = name, .payload = event, .n = strlen(event)};
    int queued = 0;

    function_invoke_async(h->fs, &c, on_queued, &queued);
    while (!queued)
        uv_run(&h->loop, UV_RUN_ONCE);
    assert_int_equal(queued, 1);
}

static int count_lines(const char *path)
{
    FILE *f = fopen(path, "r");
    int n = 0, c;

    while (f && (c = fgetc(f)) != EOF)
        n += c == '\n';
    if (f)
        fclose(f);
    return n;
}

/* The handler appends a line to a volume, and fails as often as the event says. */
static const char APPENDER[] = "def lambda_handler(e, c):\n    with open('/mnt/v/lines', 'a') as f: f.write(str(e['n']) + '\\n')\n"
                               "    if sum(1 for l in open('/mnt/v/lines')) <= e.get('fail', 0): raise RuntimeError('again')\n";
static const char APPENDER_SPEC[] = "\"fileSystems\":[{\"volume\":\"v\",\"localMountPath\":\"/mnt/v\"}]";

static void make_volume(struct host *h, char lines[160])
{
    char path[128];

    snprintf(path, sizeof path, "%s/volumes", h->state);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/volumes/v", h->state);
    mkdir(path, 0755);
    snprintf(lines, 160, "%s/lines", path);
    unlink(lines);
}

static void events_are_tried_again(void **state)
{
    char lines[160];

    make_volume(&H, lines);
    host_function(&H, "ev", APPENDER, APPENDER_SPEC);
    send_event(&H, "ev", "{\"n\":1,\"fail\":2}");
    for (int i = 0; i < 1200 && count_lines(lines) < 3; i++)
        host_sleep(&H, 50);
    host_sleep(&H, 400);
    assert_int_equal(count_lines(lines), 3);
    assert_int_equal(meter_int("ev", "async_retries"), 2);
    functions_remove(H.fs, "default", "ev");
}

/* kill -9 right after the acknowledgement; the next life runs the event. */
static void events_survive_kill(void **state)
{
    struct functions_options o = {.retry_ms = {100, 200}};
    struct host h = {0};
    char lines[160];
    struct err err;
    int status;
    pid_t pid;

    snprintf(h.state, sizeof h.state, "/tmp/tandem-fn-XXXXXX");
    assert_non_null(mkdtemp(h.state));
    chmod(h.state, 0755);
    make_volume(&h, lines);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (host_start(&h, &o, &err) < 0)
            _exit(9);
        host_function(&h, "ev", "import time\ntime.sleep(3)\n", APPENDER_SPEC);
        send_event(&h, "ev", "{\"n\":1}");
        send_event(&h, "ev", "{\"n\":2}");
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "ev", APPENDER, APPENDER_SPEC);
    for (int i = 0; i < 1200 && count_lines(lines) < 2; i++)
        host_sleep(&h, 50);
    assert_int_equal(count_lines(lines), 2);
    host_stop(&h);
    host_remove(&h);
}

/* A stop does not wait for the event at work, ends, and the next life runs it again. */
static void events_at_work_are_owed_after_a_stop(void **state)
{
    struct functions_options o = {0};
    struct host h = {0};
    char lines[160];
    struct err err;

    snprintf(h.state, sizeof h.state, "/tmp/tandem-fn-XXXXXX");
    assert_non_null(mkdtemp(h.state));
    chmod(h.state, 0755);
    make_volume(&h, lines);
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "ev", "import time\ndef lambda_handler(e, c):\n"
                  "    with open('/mnt/v/lines', 'a') as f: f.write('x\\n')\n    time.sleep(60)\n",
                  "\"timeoutSeconds\":90,\"fileSystems\":[{\"volume\":\"v\",\"localMountPath\":\"/mnt/v\"}]");
    send_event(&h, "ev", "{\"n\":1}");
    for (int i = 0; i < 1200 && count_lines(lines) < 1; i++)
        host_sleep(&h, 50);
    host_stop(&h);
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "ev", APPENDER, APPENDER_SPEC);
    for (int i = 0; i < 1200 && count_lines(lines) < 2; i++)
        host_sleep(&h, 50);
    assert_int_equal(count_lines(lines), 2);
    host_stop(&h);
    host_remove(&h);
}

static void put_version(struct host *h, const char *name, int number, const char *template)
{
    struct arena *a = arena_new();
    char *text = arena_printf(a, "{\"apiVersion\":\"tandem.dev/v1\",\"kind\":\"FunctionVersion\",\"metadata\":{\"name\":"
                              "\"%s.%d\",\"namespace\":\"default\",\"uid\":\"u-%s-%d\"},\"spec\":{\"function\":\"%s\","
                              "\"version\":%d,\"template\":{%s}}}", name, number, name, number, name, number, template);
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err);
    struct obj *o;

    assert_non_null(v);
    o = obj_seal(v, ++h->revision);
    functions_put_version(h->fs, o);
    obj_unref(o);
    arena_free(a);
}

static void call_qualified(const char *name, const char *qualifier, struct answer *a)
{
    struct function_call c = {.name = name, .qualifier = qualifier, .payload = "{}", .n = 2};

    *a = (struct answer){.at_us = host_us()};
    function_invoke(H.fs, &c, host_on_done, a);
    host_wait(&H, a);
    free(STEAL(a->error));
}

static void answers(const char *qualifier, const char *payload)
{
    struct answer a;

    call_qualified("pub", qualifier, &a);
    assert_string_equal(a.payload ? a.payload : a.err.msg, payload);
    answer_done(&a);
}

/* Versions run what they were made of; an alias splits calls by its weights, exactly. */
static void versions_and_aliases(void **state)
{
    static const char *const files[] = {"lambda_function.py", "def lambda_handler(e, c):\n    return [c.function_version, 'old']\n", NULL};
    char sha[CODE_HEX], template[200];
    struct buf zip = {0};
    struct answer a;
    struct err err;
    int to_two = 0;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    snprintf(template, sizeof template, "\"codeSha256\":\"%s\"", sha);
    host_function(&H, "pub", "def lambda_handler(e, c):\n    return [c.function_version, 'new']\n",
                  "\"reservedConcurrency\":3,\"aliases\":[{\"name\":\"live\",\"version\":\"1\",\"additionalVersions\":"
                  "[{\"version\":\"2\",\"weight\":0.25}]}],\"provisioned\":[{\"qualifier\":\"2\",\"instances\":2}]");
    put_version(&H, "pub", 1, template);
    put_version(&H, "pub", 2, template);
    answers(NULL, "[\"$LATEST\", \"new\"]");
    answers("1", "[\"1\", \"old\"]");
    for (int i = 0; i < 80; i++) {
        call_qualified("pub", "live", &a);
        to_two += streq(a.version, "2");
        answer_done(&a);
    }
    assert_in_range(to_two, 19, 21); /* of any n in a row: n/4, and one more or less */
    answers("9", "Function not found: pub:9");
    answers("dead", "Function not found: pub:dead");
    for (int i = 0; i < 200 && functions_provisioned(H.fs, NULL, "pub", "2") < 2; i++)
        host_sleep(&H, 20);
    assert_int_equal(functions_provisioned(H.fs, NULL, "pub", "2"), 2);
    assert_int_equal(functions_provisioned(H.fs, NULL, "pub", "1"), 0);
    functions_remove(H.fs, "default", "pub"); /* its versions stay until their objects go; nobody reaches them by name */
    answers("1", "Function not found: pub:1");
}

/* A zip of one executable file `bootstrap` that speaks the Runtime API. */
static void put_provided(struct host *h, const char *name, const char *text, const char *spec)
{
    const char *const files[] = {"bootstrap", text, NULL};
    char sha[CODE_HEX], with[300];
    struct buf zip = {0};
    struct err err;

    host_zip_mode(&zip, files, 0755);
    assert_int_equal(code_put(h->state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    snprintf(with, sizeof with, "\"runtime\":\"provided.al2023\"%s%s", spec[0] ? "," : "", spec);
    host_put(h, name, sha, with);
}

static const char PROVIDED[] =
    "#!/usr/bin/python3\n"
    "import http.client, os, json, sys\n"
    "c = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\n"
    "def ask(method, path, body=None):\n"
    "    c.request(method, '/2018-06-01/runtime/' + path, body)\n"
    "    r = c.getresponse()\n"
    "    return r.status, r.headers, r.read()\n"
    "n = 0\n"
    "def sees(path):\n"
    "    try: return os.listdir(path) and True\n"
    "    except PermissionError: return False\n"
    "while True:\n"
    "    _, head, body = ask('GET', 'invocation/next')\n"
    "    me, n, e = head['Lambda-Runtime-Aws-Request-Id'], n + 1, json.loads(body)\n"
    "    do = e.get('do')\n"
    "    if do == 'exit': print('leaving', flush=True); sys.exit(3)\n"
    "    if do == 'look': ask('POST', f'invocation/{me}/response', json.dumps([sees('/proc/self/fd'), sees('/proc/1/fd')])); continue\n"
    "    if do == 'error': ask('POST', f'invocation/{me}/error', '{\"errorType\":\"Odd\",\"errorMessage\":\"so\"}'); continue\n"
    "    wrong = ask('POST', 'invocation/none/response', 'x')[0]\n"
    "    big = 'x' * (7 << 20) if do == 'big' else None\n"
    "    nothing = ask('GET', 'nothing')[0]\n"
    "    ask('POST', f'invocation/{me}/response', big or json.dumps([n, wrong, nothing, head['Lambda-Runtime-Invoked-Function-Arn'].split(':')[-1], os.environ['_HANDLER']]))\n";

static void provided_runtimes_run(void **state)
{
    struct answer a;

    put_provided(&H, "own", PROVIDED, "\"handler\":\"any\",\"memoryMB\":256");
    host_call(&H, "own", "{}", &a);
    assert_string_equal(a.payload ? a.payload : a.err.msg, "[1, 400, 404, \"own\", \"any\"]");
    answer_done(&a);
    host_call(&H, "own", "{\"do\":\"look\"}", &a); /* the first process is ours: nobody looks into it */
    assert_string_equal(a.payload ? a.payload : a.err.msg, "[true, false]");
    answer_done(&a);
    host_call(&H, "own", "{\"x\":\"\\u00e4\"}", &a);
    assert_string_equal(a.payload, "[3, 400, 404, \"own\", \"any\"]");
    assert_false(a.cold);
    answer_done(&a);
    host_call(&H, "own", "{\"do\":\"error\"}", &a);
    assert_string_equal(a.payload, "{\"errorType\":\"Odd\",\"errorMessage\":\"so\"}");
    assert_string_equal(a.error, "Unhandled");
    answer_done(&a);
    host_call(&H, "own", "{\"do\":\"big\"}", &a);
    assert_non_null(strstr(a.payload, "Function.ResponseSizeTooLarge"));
    answer_done(&a);
    host_call(&H, "own", "{\"do\":\"exit\"}", &a);
    assert_non_null(strstr(a.payload, "Runtime exited with error: exit status 3"));
    assert_non_null(strstr(a.tail, "leaving"));
    answer_done(&a);
    host_call(&H, "own", "{}", &a);
    assert_non_null(strstr(a.payload, "[1, 400"));
    answer_done(&a);
    functions_remove(H.fs, "default", "own");
    put_provided(&H, "broken", "#!/nowhere\n", "\"handler\":\"any\"");
    host_call(&H, "broken", "{}", &a);
    assert_non_null(strstr(a.payload ? a.payload : "", "Runtime.InvalidEntrypoint"));
    answer_done(&a);
    functions_remove(H.fs, "default", "broken");
}

static void node_functions_run(void **state)
{
    const char *const files[] = {"index.mjs",
        "let n = 0;\n"
        "export const handler = async (e, c) => {\n"
        "  console.log('got', e);\n"
        "  if (e.fail) throw new TypeError('asked to');\n"
        "  if (e.exit) process.exit(4);\n"
        "  return { n: ++n, name: c.functionName, left: c.getRemainingTimeInMillis() > 1000 };\n"
        "};\n"
        "export const old = (e, c, done) => setTimeout(() => done(null, 'later'), 10);\n", NULL};
    char sha[CODE_HEX];
    struct buf zip = {0};
    struct answer a;
    struct err err;

    if (function_runtime_check("nodejs18.x", &err) < 0)
        skip();
    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, "js", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"memoryMB\":256");
    host_call(&H, "js", "{}", &a);
    assert_string_equal(a.payload ? a.payload : a.err.msg, "{\"n\":1,\"name\":\"js\",\"left\":true}");
    assert_non_null(strstr(a.tail, "\tINFO\tgot {}"));
    answer_done(&a);
    host_call(&H, "js", "{\"fail\":1}", &a);
    assert_string_equal(a.error, "Unhandled");
    assert_non_null(strstr(a.payload, "\"errorType\":\"TypeError\",\"errorMessage\":\"asked to\",\"trace\":["));
    answer_done(&a);
    host_call(&H, "js", "{}", &a);
    assert_non_null(strstr(a.payload, "\"n\":2")); /* an error does not cost the instance */
    answer_done(&a);
    host_call(&H, "js", "{\"exit\":1}", &a);
    assert_non_null(strstr(a.payload, "exit status 4"));
    answer_done(&a);
    host_put(&H, "js", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.old\",\"memoryMB\":256");
    host_call(&H, "js", "{}", &a);
    assert_string_equal(a.payload ? a.payload : a.err.msg, "\"later\"");
    answer_done(&a);
    host_put(&H, "js", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.none\",\"memoryMB\":256");
    host_call(&H, "js", "{}", &a);
    assert_non_null(strstr(a.payload, "Runtime.HandlerNotFound"));
    answer_done(&a);
    functions_remove(H.fs, "default", "js");
}

/* An instance of Node is the fork of one that lives: it has all that a Node has, shares no random numbers with its
 * siblings, and holds nothing that its zygote had open. With a word in how Node starts it is started. */
static void node_is_forked(void **state)
{
    const char *const files[] = {"index.js",
        "const crypto = require('crypto'), fs = require('fs');\n"
        "let n = 0;\n"
        "exports.handler = async (e) => {\n"
        "  n++;\n"
        "  if (e.random) {\n"
        "    await new Promise((r) => setTimeout(r, 300));\n"
        "    return [Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex'), crypto.randomInt(1e9)].join(' ');\n"
        "  }\n"
        "  if (e.open)\n"
        "    return fs.readdirSync('/proc/self/fd').map((f) => { try { return fs.readlinkSync('/proc/self/fd/' + f); } catch { return 'gone'; } })\n"
        "      .filter((l) => !/^(socket|pipe|anon_inode):|^gone$|^.dev.null$|^.proc.[0-9]+.fd$/.test(l)).join();\n"
        "  if (e.exit) process.exit(5);\n"
        "  let kept = [];\n"
        "  for (let i = 0; i < 300000; i++) { kept.push({ i, s: 'x' + i }); if (kept.length > 50000) kept = []; }\n"
        "  const key = await new Promise((r) => crypto.pbkdf2('a', 'b', 1000, 8, 'sha1', (x, k) => r(k.toString('hex'))));\n"
        "  const text = await fs.promises.readFile('/var/task/index.js', 'utf8');\n"
        "  const said = require('child_process').execFileSync('/bin/echo', ['sub']).toString().trim();\n"
        "  return [n, key, text.length > 100, said, process.env.OWN, process.pid, typeof process.env.TANDEM_ZYGOTE].join(' ');\n"
        "};\n", NULL};
    struct functions_options o = {.stems = -1};
    struct host h = {0};
    char sha[CODE_HEX];
    struct buf zip = {0};
    struct answer a, b, c;
    struct err err;

    if (function_runtime_check("nodejs18.x", &err) < 0)
        skip();
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_zip(&zip, files);
    assert_int_equal(code_put(h.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&h, "js", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"memoryMB\":256,\"timeoutSeconds\":10,\"environment\":{\"OWN\":\"mine\"}");
    host_send(&h, "js", "{\"random\":1}", &a);
    host_send(&h, "js", "{\"random\":1}", &b);
    host_wait(&h, &a);
    host_wait(&h, &b);
    assert_null(a.error);
    assert_true(a.cold && b.cold);
    for (char *p = a.payload + 1, *q; p && *p; p = q ? q + 1 : NULL) { /* no word of the one is a word of the other */
        q = strpbrk(p, " \"");
        if (q)
            *q = 0;
        assert_null(*p ? strstr(b.payload, p) : NULL);
    }
    answer_done(&a);
    answer_done(&b);
    host_call(&h, "js", "{}", &a);
    assert_string_equal(a.payload ? a.payload : a.err.msg, "\"2 8b0b1a28939a3076 true sub mine 1 undefined\"");
    want_rung(&a, FUNCTION_WARM);
    host_call(&h, "js", "{\"open\":1}", &a);
    assert_string_equal(a.payload, "\"\"");
    answer_done(&a);
    host_send(&h, "js", "{\"random\":1}", &a); /* both are busy: the next one is forked */
    host_send(&h, "js", "{\"random\":1}", &b);
    host_call(&h, "js", "{}", &c);
    assert_non_null(strstr(c.payload, "\"1 "));
    want_rung(&c, FUNCTION_ZYGOTE);
    host_wait(&h, &a);
    host_wait(&h, &b);
    answer_done(&a);
    answer_done(&b);
    host_call(&h, "js", "{\"exit\":1}", &a);
    assert_non_null(strstr(a.payload, "exit status 5"));
    answer_done(&a);
    host_call(&h, "js", "no json", &a);
    assert_int_equal(a.err.code, ERR_INVALID_ARGUMENT);
    answer_done(&a);
    host_put(&h, "started", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"memoryMB\":256,\"timeoutSeconds\":10,\"environment\":{\"NODE_OPTIONS\":\"--no-warnings\"}");
    host_call(&h, "started", "{\"random\":1}", &a);
    want_rung(&a, FUNCTION_FRESH);
    host_stop(&h);
    host_remove(&h);
}

static int parent_of(int pid)
{
    char path[64], text[512] = "", *end;
    int parent = 0, fd;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && (end = strrchr(text, ')')))
        sscanf(end, ") %*c %d", &parent);
    close(fd);
    return parent;
}

/* Zygotes of one size are forks of one Node that started once; nothing of the one function is in the other. */
static void node_zygotes_have_one_base(void **state)
{
    static const char *const names[] = {"one", "two"};
    const char *files[] = {"index.js", NULL, NULL};
    struct functions_options o = {.stems = -1};
    struct host h = {0};
    struct buf list = {0};
    char text[2][600], spec[300];
    struct answer a, b;
    int n = 0;
    struct err err;

    if (function_runtime_check("nodejs18.x", &err) < 0)
        skip();
    assert_int_equal(host_start(&h, &o, &err), 0);
    for (int i = 0; i < 2; i++) {
        struct buf zip = {0};
        char sha[CODE_HEX];

        snprintf(text[i], sizeof text[i], "// %s\n"
                 "const fs = require('fs'), crypto = require('crypto');\n"
                 "exports.handler = async () => [Math.random(), crypto.randomUUID(), crypto.randomInt(1e12), process.env.OWN, process.env.OTHER,\n"
                 "  process.cwd(), fs.readFileSync('index.js', 'utf8').split('\\n')[0], fs.readdirSync('/').includes('code'),\n"
                 "  fs.readdirSync('/proc').filter((f) => +f).length, process.env._HANDLER, process.argv[1]].join(' ');\n", names[i]);
        files[1] = text[i];
        host_zip(&zip, files);
        assert_int_equal(code_put(h.state, zip.p, zip.n, sha, &err), 0);
        buf_done(&zip);
        snprintf(spec, sizeof spec, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"memoryMB\":256,\"timeoutSeconds\":10,"
                 "\"environment\":{\"OWN\":\"%s\"%s}", names[i], i ? "" : ",\"OTHER\":\"x\"");
        host_put(&h, names[i], sha, spec);
    }
    host_call(&h, "one", "{}", &a);
    host_call(&h, "two", "{}", &b);
    assert_non_null(strstr(a.payload, " one x /var/task // one true 1 index.handler /var/runtime/index.mjs\""));
    assert_non_null(strstr(b.payload, " two  /var/task // two true 1 index.handler /var/runtime/index.mjs\""));
    functions_instances_json(h.fs, &list);
    for (char *p = list.p; (p = strstr(p, "\"pid\":")); p += 6) { /* instance, zygote, base */
        char exe[300] = "", path[64];

        snprintf(path, sizeof path, "/proc/%d/exe", parent_of(parent_of(atoi(p + 6))));
        assert_true(readlink(path, exe, sizeof exe - 1) > 0);
        assert_non_null(strstr(exe, "node"));
        n++;
    }
    assert_int_equal(n, 2);
    buf_done(&list);
    for (char *p = a.payload + 1, *q; (q = strchr(p, ' ')) && p < strstr(a.payload, " one "); p = q + 1) { /* random words */
        *q = 0;
        assert_null(strstr(b.payload, p));
        *q = ' ';
    }
    answer_done(&a);
    answer_done(&b);
    host_stop(&h);
    host_remove(&h);
}

/* A socket that listens on all of this machine's addresses; the caller closes it. */
static int listens(int *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 5), 0);
    getsockname(fd, (struct sockaddr *)&at, &len);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

/* With a network: its own address, a loopback of its own, this machine is reached, others are not
 * seen listening. */
static void network_is_its_own(void **state)
{
    struct functions_options o = {.pod_cidr = "10.77.0.0/16", .instance = "fe57ab1e"};
    struct host h = {0};
    struct answer a, b;
    struct err err;
    char event[64];
    int port, fd = listens(&port);

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "net",
                  "import socket, time\ndef lambda_handler(e, c):\n    s = socket.create_connection(('10.77.0.1', e['port']), 20)\n"
                  "    l = socket.create_server(('127.0.0.1', 999 + 1000))\n    k = socket.create_connection(('127.0.0.1', 1999), 20)\n"
                  "    time.sleep(3)\n    return s.getsockname()[0]\n", "\"timeoutSeconds\":30");
    snprintf(event, sizeof event, "{\"port\":%d}", port);
    host_send(&h, "net", event, &a);
    host_send(&h, "net", event, &b);
    host_wait(&h, &a);
    host_wait(&h, &b);
    if (!a.payload || strncmp(a.payload, "\"10.77.", 7) != 0)
        fprintf(stderr, "%s %s\n", a.err.msg, a.payload ? a.payload : a.tail);
    assert_int_equal(strncmp(a.payload, "\"10.77.", 7), 0);
    assert_int_equal(strncmp(b.payload, "\"10.77.", 7), 0);
    assert_string_not_equal(a.payload, b.payload);
    answer_done(&a);
    answer_done(&b);
    host_stop(&h);
    host_remove(&h);
    close(fd);
    assert_int_equal(net_teardown("fe57ab1e", "10.77.0.0/16", "10.96.0.0/16", NULL, &err), 0);
}

/* Who asks for no network reaches nobody: not this machine, not another instance by its loopback or by a name of no file,
 * and has a loopback of its own all the same. */
static void no_network_reaches_nothing(void **state)
{
    static const char CODE[] =
        "import socket, time\n"
        "def lambda_handler(e, c):\n"
        "    l = socket.create_server(('127.0.0.1', 1999))\n"
        "    u = socket.socket(socket.AF_UNIX)\n    u.bind(chr(0) + 'mine')\n    u.listen()\n" /* of another: in use */
        "    own = socket.create_connection(('127.0.0.1', 1999), 20)\n"
        "    reached = []\n"
        "    for to in ('10.77.0.1', '169.254.1.1', '127.0.0.1', '8.8.8.8'):\n"
        "        try:\n            socket.create_connection((to, e['port']), 5)\n            reached.append(to)\n"
        "        except OSError:\n            pass\n"
        "    time.sleep(2)\n"
        "    return [reached, [n for i, n in socket.if_nameindex()]]\n";
    struct functions_options o = {.pod_cidr = "10.77.0.0/16", .instance = "fe57ab1e"};
    struct host h = {0};
    struct answer a, b;
    struct err err;
    char event[64];
    int port, fd = listens(&port);

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "shut", CODE, "\"timeoutSeconds\":60,\"network\":\"None\"");
    snprintf(event, sizeof event, "{\"port\":%d}", port);
    host_send(&h, "shut", event, &a);
    host_send(&h, "shut", event, &b); /* at the same time */
    host_wait(&h, &a);
    host_wait(&h, &b);
    if (a.error || b.error)
        fprintf(stderr, "%s %s\n", a.payload, b.payload);
    assert_true(a.cold && b.cold);
    assert_string_equal(a.payload, "[[], [\"lo\"]]");
    assert_string_equal(b.payload, "[[], [\"lo\"]]");
    answer_done(&a);
    answer_done(&b);
    host_stop(&h);
    host_remove(&h);
    close(fd);
    assert_int_equal(net_teardown("fe57ab1e", "10.77.0.0/16", "10.96.0.0/16", NULL, &err), 0);
}

/* After a reboot the folders are gone: calls wait until they are there again, and hear it when the zip has gone, too. */
static void code_is_unpacked_again(void **state)
{
    struct functions_options o = {.keep_ms = -1};
    struct host h = {0};
    struct answer a, b;
    struct buf zip = {0};
    struct err err;
    char cmd[300], sha[CODE_HEX];

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_zip(&zip, (const char *const[]){"lambda_function.py", "def lambda_handler(e, c):\n    return 'here'\n", NULL});
    assert_int_equal(code_put(h.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    snprintf(cmd, sizeof cmd, "rm -rf %s/functions/*", h.state);
    assert_int_equal(system(cmd), 0);
    host_put(&h, "back", sha, "");
    host_send(&h, "back", "{}", &a);
    host_send(&h, "back", "{}", &b);
    host_wait(&h, &a);
    host_wait(&h, &b);
    assert_string_equal(a.payload, "\"here\"");
    assert_string_equal(b.payload, "\"here\"");
    answer_done(&a);
    answer_done(&b);
    snprintf(cmd, sizeof cmd, "rm -rf %s/functions/* %s/blobs/sha256/*", h.state, h.state);
    assert_int_equal(system(cmd), 0);
    host_put(&h, "lost", sha, "");
    host_call(&h, "lost", "{}", &a);
    assert_int_equal(a.err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.err.msg, "is not on this machine"));
    answer_done(&a);
    host_stop(&h);
    host_remove(&h);
}

static void hold_a_thread(uv_work_t *w)
{
    (void)w;
    usleep(300000);
}

static void thread_is_free(uv_work_t *w, int status)
{
    (void)w;
    (void)status;
}

/* What is being unpacked when all stops is waited for, and is the last thing that is touched. */
static void a_stop_waits_for_what_is_unpacked(void **state)
{
    struct functions_options o = {.keep_ms = -1};
    uv_work_t busy[8]; /* no thread of the pool is free before the rest has stopped */
    struct host h = {0};
    struct buf zip = {0};
    struct err err;
    char cmd[300], sha[CODE_HEX];

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_zip(&zip, (const char *const[]){"lambda_function.py", "def lambda_handler(e, c):\n    return 1\n", NULL});
    assert_int_equal(code_put(h.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    snprintf(cmd, sizeof cmd, "rm -rf %s/functions/*", h.state);
    assert_int_equal(system(cmd), 0);
    for (size_t i = 0; i < ARRAY_LEN(busy); i++)
        assert_int_equal(uv_queue_work(&h.loop, &busy[i], hold_a_thread, thread_is_free), 0);
    host_put(&h, "late", sha, "");
    host_stop(&h);
    host_remove(&h);
}

static void hostile_zips_are_refused(void **state)
{
    static const struct {
        const char *name;
        int type; /* of the entry */
        const char *link;
    } rows[] = {{"/etc/x", AE_IFREG, NULL}, {"../x", AE_IFREG, NULL}, {"a/../../x", AE_IFREG, NULL},
                {"l", AE_IFLNK, "/etc/passwd"}, {"l", AE_IFLNK, "../../x"}};
    struct err err;
    char sha[CODE_HEX];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct archive *ar = archive_write_new();
        struct archive_entry *e = archive_entry_new();
        struct buf zip = {0};

        archive_write_set_format_zip(ar);
        archive_write_open(ar, &zip, NULL, host_zip_write, NULL);
        archive_entry_set_pathname(e, rows[i].name);
        archive_entry_set_filetype(e, (unsigned)rows[i].type);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, 0);
        if (rows[i].link)
            archive_entry_set_symlink(e, rows[i].link);
        archive_write_header(ar, e);
        archive_entry_free(e);
        archive_write_close(ar);
        archive_write_free(ar);
        assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), -1);
        assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
        buf_done(&zip);
    }
    assert_int_equal(code_put(H.state, "no zip at all, but long enough to look at", 41, sha, &err), -1);
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    assert_int_equal(code_put(H.state, "", 0, sha, &err), -1);
    /* a bomb: 300 MB of zeros */
    {
        struct archive *ar = archive_write_new();
        struct archive_entry *e = archive_entry_new();
        struct buf zip = {0};
        char *zeros = calloc(1, 1 << 20);

        archive_write_set_format_zip(ar);
        archive_write_open(ar, &zip, NULL, host_zip_write, NULL);
        archive_entry_set_pathname(e, "zeros");
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, 300 << 20);
        archive_write_header(ar, e);
        for (int i = 0; i < 300; i++)
            archive_write_data(ar, zeros, 1 << 20);
        archive_entry_free(e);
        archive_write_close(ar);
        archive_write_free(ar);
        free(zeros);
        assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), -1);
        assert_int_equal(err.code, ERR_TOO_LARGE);
        buf_done(&zip);
    }
}

static void count_done(void *arg, const struct function_result *r)
{
    ++*(int *)arg;
}

/* Kills one of the processes that the registry tells of. */
static void kill_some(struct tt_rng *rng)
{
    static const char *const kinds[] = {"\"pid\":", "\"zygotePid\":"};
    struct buf b = {0};
    int pids[64], n = 0;

    functions_instances_json(H.fs, &b);
    for (char *p = b.p; n < 64 && (p = strstr(p, kinds[tt_below(rng, 4) == 0]));) {
        p = strchr(p, ':') + 1;
        if (atoi(p) > 1)
            pids[n++] = atoi(p);
    }
    buf_done(&b);
    if (n)
        kill(pids[tt_below(rng, (uint32_t)n)], SIGKILL);
}

/* Goal: whatever happens to its processes and objects, each call ends exactly once and nothing
 * stays behind. Method: random calls, updates, removals and kill -9; all ends are counted. */
static void every_call_ends_once(void **state)
{
    static const char *const codes[] = {
        "def lambda_handler(e, c):\n    return 1\n",
        "import time\ndef lambda_handler(e, c):\n    time.sleep(0.05)\n",
        "import os\ndef lambda_handler(e, c):\n    os._exit(1)\n",
        "import time\ndef lambda_handler(e, c):\n    time.sleep(9)\n",
        "1/0\n",
        "import os, sys\ndef lambda_handler(e, c):\n    print('x' * 5000)\n    os.close(3)\n",
    };
    struct tt_rng r = {.state = 7, .seed = 7}, *rng = &r;
    int done = 0, sent = 0, forgotten = 0;
    char name[8];

    for (int step = 0; step < 400; step++) {
        uint32_t dice = tt_below(rng, 20);

        snprintf(name, sizeof name, "c%u", tt_below(rng, 5));
        if (dice == 0 || step < 5) {
            host_function(&H, name, codes[tt_below(rng, ARRAY_LEN(codes))], "\"timeoutSeconds\":0.2");
        } else if (dice == 1) {
            functions_remove(H.fs, "default", name);
        } else if (dice == 2) {
            kill_some(rng);
        } else if (dice == 3) {
            host_sleep(&H, (int)tt_below(rng, 60));
        } else {
            struct function_call c = {.name = name, .payload = "{}", .n = 2};
            uint64_t ticket = function_invoke(H.fs, &c, count_done, &done);

            sent++;
            if (ticket && tt_below(rng, 10) == 0) {
                function_forget(H.fs, ticket);
                forgotten++;
            }
        }
    }
    for (int i = 0; i < 600 && done < sent - forgotten; i++)
        host_sleep(&H, 100);
    assert_int_equal(done, sent - forgotten);
    assert_true(forgotten > 0);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "c%d", i);
        functions_remove(H.fs, "default", name);
    }
}

static void runtimes_that_are_not_here(void **state)
{
    struct answer a;
    struct err err;

    assert_int_equal(function_runtime_check("python3.11", &err), 0);
    assert_int_equal(function_runtime_check("cobol", &err), -1);
    assert_int_equal(err.code, ERR_NOT_IMPLEMENTED);
    once("cobol", "x = 1\n", "\"runtime\":\"cobol\"", "{}", &a);
    assert_int_equal(a.err.code, ERR_NOT_IMPLEMENTED);
    answer_done(&a);
    host_put(&H, "nocode", "0000000000000000000000000000000000000000000000000000000000000000", "");
    host_call(&H, "nocode", "{}", &a);
    assert_int_equal(a.err.code, ERR_UNAVAILABLE);
    answer_done(&a);
    functions_remove(H.fs, "default", "nocode");
}

static int set_up(void **state)
{
    struct functions_options o = {.keep_ms = 500, .zygote_keep_ms = 800, .retry_ms = {100, 200}};
    struct err err;

    if (host_start(&H, &o, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    struct functions_options o = {0};
    struct err err;
    int64_t before = meter_int("rare", "requests");

    host_stop(&H);
    /* the meter is there again in the next life */
    if (host_start(&H, &o, &err) < 0)
        return -1;
    if (meter_int("rare", "requests") != before)
        return -1;
    host_stop(&H);
    host_remove(&H);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_zips_are_refused),
        cmocka_unit_test(answers_cold_and_warm),
        cmocka_unit_test(context_is_whole),
        cmocka_unit_test(errors_are_the_platforms),
        cmocka_unit_test(bad_events_are_refused),
        cmocka_unit_test(sandbox_is_closed),
        cmocka_unit_test(limits_stop_only_their_own),
        cmocka_unit_test(odd_handlers_are_survived),
        cmocka_unit_test(packages_and_folders_work),
        cmocka_unit_test(nothing_of_theirs_runs_ahead),
        cmocka_unit_test(volumes_are_shared),
        cmocka_unit_test(concurrency_has_its_limits),
        cmocka_unit_test(modules_are_loaded_ahead),
        cmocka_unit_test(the_rung_is_told),
        cmocka_unit_test(stems_follow_demand),
        cmocka_unit_test(new_code_takes_over),
        cmocka_unit_test(who_is_not_known_yet_is_not_denied),
        cmocka_unit_test(nobody_calls_nothing_runs),
        cmocka_unit_test(events_are_tried_again),
        cmocka_unit_test(events_survive_kill),
        cmocka_unit_test(versions_and_aliases),
        cmocka_unit_test(provided_runtimes_run),
        cmocka_unit_test(node_functions_run),
        cmocka_unit_test(node_is_forked),
        cmocka_unit_test(node_zygotes_have_one_base),
        cmocka_unit_test(events_at_work_are_owed_after_a_stop),
        cmocka_unit_test(network_is_its_own),
        cmocka_unit_test(no_network_reaches_nothing),
        cmocka_unit_test(code_is_unpacked_again),
        cmocka_unit_test(a_stop_waits_for_what_is_unpacked),
        cmocka_unit_test(every_call_ends_once),
        cmocka_unit_test(runtimes_that_are_not_here),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
        fprintf(stderr, "no network namespace of our own\n");
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
