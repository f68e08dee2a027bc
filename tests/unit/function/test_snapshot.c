/* Published versions that start from a snapshot of what they had initialised. Goal: init code runs once, every instance is
 * a copy of its own, and what must not be the same in two of them is not. Method: real zygotes, real instances.
 * Needs root (namespaces, cgroups); says so and passes without. */
#include "tt.h"

#include "function/host.h"

#include <sched.h>

static struct host H;

static struct {
    int n;
    bool active, on;
    char reason[600];
    const char *of; /* not NULL: of this object alone */
} told;

static void on_snapshot(void *arg, const char *ns, const char *object, bool active, bool on, const char *code, const char *reason)
{
    if (told.of && !streq(object, told.of))
        return;
    told.n++;
    told.active = active;
    told.on = on;
    snprintf(told.reason, sizeof told.reason, "%s", reason ? reason : "");
}

/* status: what its object said before this life of ours. */
static void publish_again(const char *name, const char *python, const char *spec, const char *status)
{
    const char *const files[] = {"lambda_function.py", python, NULL};
    struct arena *a = arena_new();
    char sha[CODE_HEX], *text;
    struct buf zip = {0};
    struct err err;
    struct val *v;
    struct obj *o;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, name, sha, "");
    text = arena_printf(a, "{\"apiVersion\":\"tandem.dev/v1\",\"kind\":\"FunctionVersion\",\"metadata\":{\"name\":\"%s.1\",\"namespace\":"
                        "\"default\",\"uid\":\"u-%s-1\"},\"spec\":{\"function\":\"%s\",\"version\":1,\"template\":{\"codeSha256\":\"%s\","
                        "\"snapStart\":\"PublishedVersions\"%s}},\"status\":{%s}}", name, name, name, sha, spec, status);
    v = json_parse(a, text, strlen(text), &err);
    assert_non_null(v);
    told.n = 0;
    o = obj_seal(v, ++H.revision);
    functions_put_version(H.fs, o);
    obj_unref(o);
    arena_free(a);
}

static void publish(const char *name, const char *python, const char *spec)
{
    publish_again(name, python, spec, "");
}

static void wait_told(void)
{
    for (int i = 0; i < 600 && !told.n; i++)
        host_sleep(&H, 50);
    if (told.n != 1)
        fprintf(stderr, "told %d times: %s\n", told.n, told.reason);
    assert_int_equal(told.n, 1);
}

static void ask(const char *name, const char *payload, struct answer *a)
{
    struct function_call c = {.name = name, .qualifier = "1", .payload = payload, .n = strlen(payload), .log_tail = true};

    *a = (struct answer){.at_us = host_us()};
    function_invoke(H.fs, &c, host_on_done, a);
}

static void call(const char *name, struct answer *a)
{
    ask(name, "{}", a);
    host_wait(&H, a);
    if (a->err.code != ERR_OK || a->error)
        fprintf(stderr, "err=%d %s error=%s payload=%s\n%s\n", a->err.code, a->err.msg, a->error ? a->error : "-",
                a->payload ? a->payload : "-", a->tail ? a->tail : "");
}

/* Init code once; copies are apart: /tmp, random numbers, memory; hooks run before and after. */
static void instances_go_on_from_it(void **state)
{
    struct answer a[4];

    publish("snap", "import os, random, uuid, ssl, time, json\nfrom snapshot_restore_py import register_before_snapshot, register_after_restore\n"
            "print('init runs')\n"
            "born = os.urandom(8).hex()\nbig = {i: str(i) for i in range(50000)}\nseen = []\nf = open('/var/task/lambda_function.py')\nf.readline()\n"
            "open('/tmp/made', 'w').write('at init')\n"
            "register_before_snapshot(lambda: seen.append('before'))\nregister_after_restore(seen.append, 'after')\n"
            "def lambda_handler(e, c):\n"
            "    new = open('/tmp/mine', 'a'); new.write('x'); new.close()\n"
            "    time.sleep(0.3)\n"
            "    assert open('/tmp/made').read() == 'at init' and open('/tmp/mine').read() == 'x' * (1 + seen.count(1))\n"
            "    assert os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'] == 'snap-start' and 'AWS_ACCESS_KEY_ID' not in os.environ\n"
            "    assert (seen.count(1) or f.readline().startswith('from snapshot_restore_py')) and len(big) == 50000 and os.getpid() == 1\n"
            "    assert c.log_stream_name == os.environ['AWS_LAMBDA_LOG_STREAM_NAME']\n"
            "    seen.append(1)\n"
            "    return [born, seen, random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()), c.log_stream_name]\n", "");
    wait_told();
    assert_true(told.active && told.on);
    for (int i = 0; i < 4; i++)
        ask("snap", "{}", &a[i]);
    for (int i = 0; i < 4; i++) {
        host_wait(&H, &a[i]);
        if (a[i].err.code != ERR_OK || a[i].error)
            fprintf(stderr, "%s %s %s\n", a[i].err.msg, a[i].payload, a[i].tail);
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_null(a[i].error);
        assert_true(a[i].cold);
        assert_non_null(strstr(a[i].payload, "[\"before\", \"after\", 1]"));
        assert_non_null(strstr(a[i].tail, "\tRestore Duration: "));
        assert_non_null(strstr(a[i].tail, " ms\tBilled Restore Duration: "));
        assert_null(strstr(a[i].tail, "Init Duration"));
        assert_null(strstr(a[i].tail, "init runs"));
        for (int k = 0; k < i; k++) {
            assert_memory_equal(a[i].payload, a[k].payload, 18); /* born */
            assert_string_not_equal(strstr(a[i].payload, " 1], "), strstr(a[k].payload, " 1], "));
        }
    }
    for (int i = 0; i < 4; i++) { /* random numbers one by one: each of the three differs */
        char *p = strstr(a[i].payload, " 1], ");

        for (int k = 0; k < i; k++) {
            char *q = strstr(a[k].payload, " 1], ");

            assert_memory_not_equal(p + 5, q + 5, 12);
            assert_memory_not_equal(strchr(p + 5, '"'), strchr(q + 5, '"'), 18);
        }
    }
    for (int i = 0; i < 4; i++)
        answer_done(&a[i]);
    call("snap", &a[0]); /* a warm one */
    assert_null(strstr(a[0].tail, "Restore Duration"));
    answer_done(&a[0]);
    functions_remove(H.fs, "default", "snap:1");
    functions_remove(H.fs, "default", "snap");
}

static void failures_are_told(void **state)
{
    static const struct {
        const char *python, *reason;
    } rows[] = {
        {"raise ValueError('no luck')\n", "ValueError: no luck"},
        {"import nothing_like_this\n", "Runtime.ImportModuleError: Unable to import module 'lambda_function'"},
        {"import os\nos._exit(7)\n", "Runtime.ExitError: the runtime exited with status 7"},
        {"from snapshot_restore_py import *\nregister_before_snapshot(lambda: 1/0)\ndef lambda_handler(e, c): pass\n",
         "Runtime.BeforeSnapshotError: ZeroDivisionError"},
    };
    struct answer a;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char name[16];

        snprintf(name, sizeof name, "bad%zu", i);
        publish(name, rows[i].python, "");
        wait_told();
        if (told.active || !strstr(told.reason, rows[i].reason))
            fprintf(stderr, "active=%d %s\n", told.active, told.reason);
        assert_false(told.active);
        assert_non_null(strstr(told.reason, rows[i].reason));
        ask(name, "{}", &a);
        host_wait(&H, &a);
        assert_int_equal(a.err.code, ERR_CONFLICT);
        answer_done(&a);
        functions_remove(H.fs, "default", name);
    }
}

/* What cannot be kept is not: its instances initialise themselves, and the log says why. */
static void what_cannot_be_kept(void **state)
{
    static const struct {
        const char *python, *reason;
    } rows[] = {
        {"import threading, time\nthreading.Thread(target=lambda: time.sleep(100), name='poller', daemon=True).start()\n", "1 thread beside the main one is alive after initialization (poller)"},
        {"import subprocess\np = subprocess.Popen(['/bin/sleep', '100'])\n", "it has started processes that are alive"},
        {"import mmap\nm = mmap.mmap(-1, 4096)\n", "it shares memory with other processes"},
    };
    struct answer a;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _auto_(freep) char *python = xasprintf("%sdef lambda_handler(e, c):\n    return 'runs'\n", rows[i].python);
        char name[16];

        snprintf(name, sizeof name, "not%zu", i);
        publish(name, python, "");
        wait_told();
        if (!told.active || told.on || !strstr(told.reason, rows[i].reason))
            fprintf(stderr, "active=%d on=%d %s\n", told.active, told.on, told.reason);
        assert_true(told.active);
        assert_false(told.on);
        assert_non_null(strstr(told.reason, rows[i].reason));
        call(name, &a);
        assert_string_equal(a.payload, "\"runs\"");
        answer_done(&a);
        functions_remove(H.fs, "default", name);
    }
}

/* Init code that puts a file of its own where the image belongs: nothing in it is no snapshot, and one that cannot be gone
 * on from is not. Either way the function is served; what was told can be told again. */
static void images_that_are_none(void **state)
{
    static const char PYTHON[] = "import os\n"
        "for fd in range(3, 1024):\n"
        "    try:\n"
        "        if 'memfd:snapshot' in os.readlink(f'/proc/self/fd/{fd}'):\n"
        "            %s\n"
        "            os.dup2(os.open('/tmp/mine', os.O_RDWR | os.O_CREAT), fd)\n"
        "    except OSError:\n        pass\n"
        "def lambda_handler(e, c):\n    return 'runs'\n";
    _auto_(freep) char *empty = xasprintf(PYTHON, "pass"), *wrong = xasprintf(PYTHON, "os.pwrite(fd, b'x' * 8192, 0)");
    struct answer a;

    publish("empty", empty, "");
    wait_told();
    assert_true(told.active);
    assert_false(told.on);
    call("empty", &a);
    assert_string_equal(a.payload, "\"runs\"");
    answer_done(&a);
    told.on = true;
    told.of = "empty.1";
    functions_retell_snapshots(H.fs);
    assert_int_equal(told.n, 2);
    assert_true(told.active && !told.on && strstr(told.reason, "no snapshot was made"));
    told.of = NULL;
    functions_remove(H.fs, "default", "empty");
    publish("wrong", wrong, "");
    wait_told();
    assert_true(told.active && told.on); /* nobody but its own instances looks into it */
    call("wrong", &a);
    assert_string_equal(a.payload, "\"runs\"");
    answer_done(&a);
    functions_remove(H.fs, "default", "wrong");
}

/* What is open: an event loop goes on, a connection is one that has ended. */
static void descriptors_are_made_anew(void **state)
{
    struct answer a;

    publish("fds", "import asyncio, socket, os, signal\nloop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)\n"
            "loop.run_until_complete(asyncio.sleep(0))\n"
            "server = socket.create_server(('127.0.0.1', 0))\nconn = socket.create_connection(server.getsockname())\n"
            "r, w = os.pipe()\nsignal.signal(signal.SIGUSR1, lambda n, f: got.append(n))\ngot = []\nos.chdir('/tmp')\n"
            "def lambda_handler(e, c):\n"
            "    async def both():\n"
            "        loop.call_soon_threadsafe(lambda: None)\n"
            "        return await loop.run_in_executor(None, lambda: 'from a thread')\n"
            "    os.write(w, b'abc')\n"
            "    os.kill(os.getpid(), signal.SIGUSR1)\n"
            "    return [loop.run_until_complete(both()), conn.recv(1).decode(), os.read(r, 9).decode(), len(got), os.getcwd()]\n", "");
    wait_told();
    assert_true(told.active);
    if (!told.on)
        fprintf(stderr, "%s\n", told.reason);
    assert_true(told.on);
    call("fds", &a);
    assert_string_equal(a.payload, "[\"from a thread\", \"\", \"abc\", 1, \"/tmp\"]");
    answer_done(&a);
    functions_remove(H.fs, "default", "fds");
}

/* A hook that raises after the restore: the call never ran. */
static void hooks_that_fail(void **state)
{
    struct answer a;

    publish("hook", "from snapshot_restore_py import *\nregister_after_restore(lambda: 1/0)\ndef lambda_handler(e, c):\n    return 1\n", "");
    wait_told();
    assert_true(told.active);
    ask("hook", "{}", &a);
    host_wait(&H, &a);
    assert_int_equal(a.err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.err.msg, "afterRestore() runtime hook encountered an error"));
    answer_done(&a);
    functions_remove(H.fs, "default", "hook");
}

/* Active in an earlier life: the first call waits until the snapshot has been made anew. Not ready yet: it is refused. */
static void a_restart_makes_it_anew(void **state)
{
    static const char SLOW[] = "import time\ntime.sleep(0.5)\nbig = list(range(300000))\ndef lambda_handler(e, c):\n    return len(big)\n";
    struct answer a;

    publish_again("again", SLOW, "", "\"state\":\"Active\"");
    call("again", &a);
    assert_string_equal(a.payload, "300000");
    assert_non_null(strstr(a.tail, "\tRestore Duration: "));
    answer_done(&a);
    assert_int_equal(told.n, 0); /* nothing new */
    functions_remove(H.fs, "default", "again");
    publish("early", SLOW, "");
    ask("early", "{}", &a);
    host_wait(&H, &a);
    assert_int_equal(a.err.code, ERR_CONFLICT);
    assert_non_null(strstr(a.err.msg, "initializing your function"));
    answer_done(&a);
    wait_told();
    call("early", &a);
    answer_done(&a);
    functions_remove(H.fs, "default", "early");
    publish_again("never", SLOW, "", "\"state\":\"Failed\"");
    ask("never", "{}", &a);
    host_wait(&H, &a);
    assert_int_equal(a.err.code, ERR_CONFLICT);
    answer_done(&a);
    functions_remove(H.fs, "default", "never");
}

/* What nearly fills the function's memory fits: nothing lies there twice. */
static void it_needs_no_memory_twice(void **state)
{
    struct answer a;

    publish("full", "big = b'x' * (84 << 20)\ndef lambda_handler(e, c):\n    return [len(big), big[-1]]\n", ",\"memoryMB\":128");
    wait_told();
    if (!told.on)
        fprintf(stderr, "%s\n", told.reason);
    assert_true(told.active && told.on);
    call("full", &a);
    assert_string_equal(a.payload, "[88080384, 120]");
    answer_done(&a);
    functions_remove(H.fs, "default", "full");
}

/* The keeper of credentials gives to who knows the token what the gateway said last. */
static void credentials_are_asked_for(void **state)
{
    struct answer a;

    functions_set_key(H.fs, "AKIAFIRST", "secret-one");
    publish("keys", "import json, os, urllib.request, urllib.error\n"
            "def ask(token):\n"
            "    r = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'], headers={'Authorization': token})\n"
            "    try:\n        return json.load(urllib.request.urlopen(r))\n"
            "    except urllib.error.HTTPError as e:\n        return e.code\n"
            "at_init = ask(os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'])['AccessKeyId']\n"
            "def lambda_handler(e, c):\n"
            "    got = ask(os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'])\n"
            "    return [at_init, got['AccessKeyId'], got['SecretAccessKey'], got['Expiration'][:2], ask('no')]\n", "");
    wait_told();
    assert_true(told.on);
    functions_set_key(H.fs, "AKIASECOND", "secret-two");
    call("keys", &a);
    assert_string_equal(a.payload, "[\"AKIAFIRST\", \"AKIASECOND\", \"secret-two\", \"20\", 404]");
    answer_done(&a);
    functions_set_key(H.fs, "AKIATHIRD", "secret-three");
    call("keys", &a);
    for (int i = 0; i < 400 && !strstr(a.payload, "AKIATHIRD"); i++) { /* the keeper hears of it a moment later */
        answer_done(&a);
        host_sleep(&H, 50);
        call("keys", &a);
    }
    assert_non_null(strstr(a.payload, "AKIATHIRD"));
    assert_false(a.cold);
    answer_done(&a);
    functions_remove(H.fs, "default", "keys");
}

static int set_up(void **state)
{
    struct functions_options o = {.on_snapshot = on_snapshot};
    struct err err;

    return host_start(&H, &o, &err);
}

static int tear_down(void **state)
{
    host_stop(&H);
    host_remove(&H);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instances_go_on_from_it),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(what_cannot_be_kept),
        cmocka_unit_test(images_that_are_none),
        cmocka_unit_test(descriptors_are_made_anew),
        cmocka_unit_test(hooks_that_fail),
        cmocka_unit_test(it_needs_no_memory_twice),
        cmocka_unit_test(credentials_are_asked_for),
        cmocka_unit_test(a_restart_makes_it_anew),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
        fprintf(stderr, "no network namespace of our own\n");
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
