/* Functions that take several calls at once in one instance. Goal: no more instances than the calls need, every call has
 * its own answer, log and time limit, and what ends one instance ends all its calls once. Method: real Python and Node,
 * real instances. Needs root (namespaces, cgroups); says so and passes without. */
#include "tt.h"

#include "function/host.h"

#include <sched.h>

static struct host H;

enum { MANY = 24 };

static void node_function(const char *name, const char *text, const char *spec)
{
    const char *const files[] = {"index.js", text, NULL};
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct err err;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, name, sha, spec);
}

static int64_t meter_of(const char *name, const char *field)
{
    struct buf text = {0};
    struct arena *a = arena_new();
    struct err err;
    struct val *v;
    int64_t n = -1;

    functions_meter_json(H.fs, &text);
    v = json_parse(a, text.p, text.n, &err);
    VAL_EACH(val_get(v, "functions"), it)
    if (streq(val_str_at(it, "name", ""), name))
        n = val_int_at(it, field, -1);
    buf_done(&text);
    arena_free(a);
    return n;
}

static int64_t calls_us; /* how long all calls of bursts took, added up */

/* n calls at once: {"n": i} each; each must answer [i, who]. Gives back how many different who there were. */
static int burst(const char *name, int n, int *ret_cold)
{
    struct answer a[MANY];
    char who[MANY][64];
    int different = 0;

    *ret_cold = 0;
    for (int i = 0; i < n; i++) {
        char event[40];

        snprintf(event, sizeof event, "{\"n\":%d}", i);
        host_send(&H, name, event, &a[i]);
    }
    for (int i = 0; i < n; i++) {
        char want[40];
        bool seen = false;

        host_wait(&H, &a[i]);
        snprintf(want, sizeof want, "[%d,", i);
        if (a[i].err.code != ERR_OK || a[i].error || strncmp(a[i].payload, want, strlen(want)) != 0)
            fprintf(stderr, "%s: err=%d %s payload=%s\n%s\n", name, a[i].err.code, a[i].err.msg, a[i].payload ? a[i].payload : "", a[i].tail ? a[i].tail : "");
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_memory_equal(a[i].payload, want, strlen(want));
        snprintf(who[i], sizeof who[i], "%s", strchr(a[i].payload, '"'));
        for (int k = 0; k < i; k++)
            seen |= streq(who[i], who[k]);
        different += !seen;
        *ret_cold += a[i].cold;
        calls_us += a[i].duration_us;
        assert_non_null(strstr(a[i].tail, "REPORT RequestId: "));
        snprintf(want, sizeof want, "END RequestId: %s", a[i].id);
        assert_non_null(strstr(a[i].tail, want));
        answer_done(&a[i]);
    }
    return different;
}

static void node_takes_many_at_once(void **state)
{
    int cold;

    node_function("crowd", "let busy = 0, most = 0;\n"
                  "exports.handler = async (e, c) => { most = Math.max(most, ++busy); console.log('call', e.n);\n"
                  "  await new Promise((d) => setTimeout(d, 1000)); busy--;\n"
                  "  if (e.n === -1) return most; return [e.n, c.logStreamName]; };\n",
                  "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"concurrency\":12,\"timeoutSeconds\":20");
    assert_true(burst("crowd", MANY, &cold) <= 3); /* 24 calls, 12 places */
    assert_true(burst("crowd", 12, &cold) <= 2);
    assert_int_equal(meter_of("crowd", "requests"), MANY + 12);
    assert_int_equal(meter_of("crowd", "errors"), 0);
    assert_true(meter_of("crowd", "billed_ms") > 0);
    assert_true(meter_of("crowd", "billed_ms") * 1000 < calls_us / 2); /* instances are billed, not calls */
    functions_remove(H.fs, "default", "crowd");
}

static void python_takes_many_at_once(void **state)
{
    int cold;

    host_function(&H, "crew", "import time\ndef lambda_handler(e, c):\n    print('call', e['n'])\n    time.sleep(1)\n    return [e['n'], c.log_stream_name]\n",
                  "\"concurrency\":4,\"memoryMB\":256,\"timeoutSeconds\":20");
    assert_true(burst("crew", 8, &cold) <= 3);
    functions_remove(H.fs, "default", "crew");
}

/* One that is stuck fails alone; the others of its instance have their answers; it takes no more calls. */
static void one_that_is_late(void **state)
{
    struct answer a[3];

    node_function("late", "exports.handler = async (e, c) => { await new Promise((d) => setTimeout(d, e.ms)); return [e.ms, c.logStreamName]; };\n",
                  "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"concurrency\":5,\"timeoutSeconds\":6");
    host_call(&H, "late", "{\"ms\":1}", &a[0]); /* it is warm */
    answer_done(&a[0]);
    host_send(&H, "late", "{\"ms\":100000}", &a[0]);
    host_sleep(&H, 3000);
    host_send(&H, "late", "{\"ms\":4500}", &a[1]);
    host_wait(&H, &a[0]);
    assert_non_null(strstr(a[0].payload, "Sandbox.Timedout"));
    assert_non_null(strstr(a[0].tail, "Status: timeout"));
    host_wait(&H, &a[1]);
    assert_null(a[1].error);
    assert_memory_equal(a[1].payload, "[4500,", 6);
    host_call(&H, "late", "{\"ms\":1}", &a[2]);
    assert_null(a[2].error);
    assert_string_not_equal(strchr(a[2].payload, '"'), strchr(a[1].payload, '"')); /* another one */
    for (int i = 0; i < 3; i++)
        answer_done(&a[i]);
    functions_remove(H.fs, "default", "late");
}

/* The process goes: all its calls end, each once. */
static void all_go_with_it(void **state)
{
    struct answer a[5];

    node_function("gone", "exports.handler = async (e) => { if (e.exit) process.exit(3); await new Promise((d) => setTimeout(d, 60000)); };\n",
                  "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"concurrency\":5,\"timeoutSeconds\":100");
    for (int i = 0; i < 4; i++)
        host_send(&H, "gone", "{}", &a[i]);
    host_sleep(&H, 500);
    host_send(&H, "gone", "{\"exit\":true}", &a[4]);
    for (int i = 0; i < 5; i++) {
        host_wait(&H, &a[i]);
        assert_string_equal(a[i].error, "Unhandled");
        assert_non_null(strstr(a[i].payload, "Runtime.ExitError"));
        answer_done(&a[i]);
    }
    assert_int_equal(meter_of("gone", "errors"), 5);
    assert_int_equal(meter_of("gone", "concurrency"), 0);
    functions_remove(H.fs, "default", "gone");
}

/* A module that cannot be loaded: each call is told so. */
static void init_that_fails(void **state)
{
    struct answer a[3];

    node_function("broken", "throw new TypeError('no');\n", "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"concurrency\":3");
    for (int i = 0; i < 3; i++)
        host_send(&H, "broken", "{}", &a[i]);
    for (int i = 0; i < 3; i++) {
        host_wait(&H, &a[i]);
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_non_null(a[i].error);
        answer_done(&a[i]);
    }
    functions_remove(H.fs, "default", "broken");
}

static int set_up(void **state)
{
    struct functions_options o = {0};
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
        cmocka_unit_test(node_takes_many_at_once),
        cmocka_unit_test(python_takes_many_at_once),
        cmocka_unit_test(one_that_is_late),
        cmocka_unit_test(all_go_with_it),
        cmocka_unit_test(init_that_fails),
    };
    struct err err;

    if (geteuid() != 0 || function_runtime_check("nodejs18.x", &err) < 0) {
        fprintf(stderr, "skipped: needs root and Node\n");
        return 0;
    }
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
        fprintf(stderr, "no network namespace of our own\n");
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
