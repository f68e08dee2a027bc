/* The meter against what the kernel counted, and the stop at a spending limit. Needs root; says so and passes without. */
#include "tt.h"

#include "function/function_int.h"
#include "function/host.h"

static struct val *meter(struct host *h, struct arena *a)
{
    struct buf b = {0};
    struct val *v;
    struct err err;

    functions_meter_json(h->fs, &b);
    v = json_parse(a, b.p, b.n, &err);
    assert_non_null(v);
    buf_done(&b);
    return v;
}

static int64_t sum(const struct val *meter, const char *of)
{
    int64_t n = 0;

    VAL_EACH(val_get(meter, "functions"), it)
    n += val_int_at(it, of, 0);
    return n;
}

/* Goal: what the meter says of CPU time is what the cgroups of all functions used, within 2 %. Method: functions and
 * versions that burn CPU in the handler, in init, in children, and one that is killed at its time limit; then all go. */
static void cpu_time_is_the_kernels(void **state)
{
    static const char BURN[] = "import time, os\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
                               "burn(0.1)\ndef lambda_handler(e, c):\n    if e.get('child'):\n        pid = os.fork()\n        if not pid:\n            burn(e['s'])\n            os._exit(0)\n"
                               "        os.waitpid(pid, 0)\n    else: burn(e['s'])\n    return 1\n";
    struct functions_options o = {.keep_ms = 100, .zygote_keep_ms = 300};
    struct host h = {0};
    struct cgroup_usage u = {0};
    struct err err;
    struct answer a;
    struct arena *arena = arena_new();
    int64_t told = 0;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    if (!h.fs->has_cgroups) {
        fprintf(stderr, "skipped: no cgroups\n");
        host_stop(&h);
        return;
    }
    host_function(&h, "one", BURN, "\"timeoutSeconds\":20");
    host_function(&h, "two", BURN, "\"timeoutSeconds\":1,\"memoryMB\":512");
    host_call(&h, "one", "{\"s\":0.4}", &a);
    answer_done(&a);
    host_call(&h, "one", "{\"s\":0.3,\"child\":1}", &a);
    answer_done(&a);
    host_call(&h, "two", "{\"s\":0.2}", &a);
    answer_done(&a);
    host_call(&h, "two", "{\"s\":30}", &a); /* until it is killed */
    assert_non_null(a.error);
    answer_done(&a);
    for (int i = 0; i < 100; i++) { /* all leave; what they used is settled then */
        struct val *m = meter(&h, arena);

        if (sum(m, "processes") == 0)
            break;
        host_sleep(&h, 100);
    }
    told = sum(meter(&h, arena), "cpu_us");
    assert_int_equal(cgroup_usage(&h.fs->cgroups, "functions", &u, &err), 0);
    fprintf(stderr, "cpu: meter %lld us, cgroups %lld us\n", (long long)told, (long long)u.cpu_us);
    assert_true(u.cpu_us > 750000); /* what "one" burnt; how far "two" came until its time was over, is the machine's */
    assert_true(llabs(told - u.cpu_us) * 50 <= u.cpu_us);
    arena_free(arena);
    host_stop(&h);
    host_remove(&h);
}

struct news {
    int stopped, served;
    char name[64];
};

static void on_spending(void *arg, const char *ns, const char *name, bool stopped, const char *text)
{
    struct news *n = arg;

    assert_string_equal(ns, "default");
    assert_non_null(strstr(text, stopped ? "spending limit of" : "below its spending limit"));
    *(stopped ? &n->stopped : &n->served) += 1;
    snprintf(n->name, sizeof n->name, "%s", name ? name : "");
}

static void refused(struct host *h, const char *name)
{
    struct answer a;

    host_call(h, name, "{}", &a);
    assert_int_equal(a.err.code, ERR_TOO_MANY);
    assert_string_equal(a.throttle, "SpendingLimitReached");
    assert_non_null(strstr(a.err.msg, "has reached its spending limit of "));
    answer_done(&a);
}

static void served(struct host *h, const char *name)
{
    struct answer a;

    host_call(h, name, "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    answer_done(&a);
}

/* Goal: a function stops at its limit, says so once, goes on when the limit is raised or the month is another, and
 * remembers over a restart; a namespace's limit stops all of its functions. A call costs 1 here. */
static void limits_stop_and_let_go(void **state)
{
    static const char CODE[] = "def lambda_handler(e, c):\n    return 1\n";
    struct news n = {0};
    struct functions_options o = {.price_request = 1, .price_gb_s = 0, .on_spending = on_spending, .spending_arg = &n};
    struct host h = {0};
    struct err err;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "dear", CODE, "\"spendingLimit\":2");
    host_function(&h, "free", CODE, "");
    served(&h, "dear");
    assert_int_equal(n.stopped, 0);
    served(&h, "dear");
    assert_int_equal(n.stopped, 1);
    assert_string_equal(n.name, "dear");
    refused(&h, "dear");
    served(&h, "free");
    host_function(&h, "dear", CODE, "\"spendingLimit\":3");
    assert_int_equal(n.served, 1);
    served(&h, "dear");
    refused(&h, "dear");

    host_stop(&h); /* the count is there in the next life, the limit comes with the object */
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "dear", CODE, "\"spendingLimit\":3");
    host_function(&h, "free", CODE, "");
    refused(&h, "dear");
    host_function(&h, "dear", CODE, "");
    served(&h, "dear");

    functions_limit_namespace(h.fs, "default", 5); /* that was the fifth call of the namespace */
    assert_string_equal(n.name, "");
    refused(&h, "dear");
    refused(&h, "free");
    h.fs->month--; /* another month begins */
    spending_of(h.fs, "default")->month--;
    spending_tick(h.fs);
    served(&h, "free");
    functions_limit_namespace(h.fs, "default", -1);
    host_stop(&h);
    host_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_time_is_the_kernels),
        cmocka_unit_test(limits_stop_and_let_go),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
