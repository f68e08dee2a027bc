/* How many instances there are, with real processes: what runs by the clock, Knative's autoscaler, capacity that is shared
 * with pods. The parts with processes need root; they say so and pass without. */
#include "tt.h"

#include "function/function_int.h"
#include "function/host.h"

static const char CODE[] = "def lambda_handler(e, c):\n    return 1\n";

static void call(struct host *h, const char *name)
{
    struct answer a;

    host_call(h, name, "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    answer_done(&a);
}

static bool ticks(const struct host *h)
{
    return uv_is_active((const uv_handle_t *)&h->fs->tick);
}

static void count_quick(uv_handle_t *handle, void *arg)
{
    const uv_timer_t *t = (const uv_timer_t *)(const void *)handle;

    if (handle->type == UV_TIMER && uv_is_active(handle) && uv_timer_get_due_in(t) < 1000)
        ++*(int *)arg;
}

/* Timers of this loop that are about to wake it: of all that a registry has, its logs' too. */
static int timers(struct host *h)
{
    int n = 0;

    host_sleep(h, 1200);
    uv_walk(&h->loop, count_quick, &n);
    return n;
}

/* Goal: with nothing to look after there is no tick; a call brings it back, and it goes again. */
static void no_tick_without_work(void **state)
{
    struct host h = {0};
    struct functions_options o = {.keep_ms = 300, .zygote_keep_ms = 500};
    struct err err;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_sleep(&h, 600);
    assert_false(ticks(&h));
    host_function(&h, "quiet", CODE, "");
    for (int round = 0; round < 2; round++) {
        call(&h, "quiet");
        assert_true(ticks(&h));
        for (int i = 0; i < 400 && ticks(&h); i++)
            host_sleep(&h, 50);
        assert_false(ticks(&h));
        assert_int_equal(timers(&h), 0);
        assert_int_equal(function_find(h.fs, NULL, "quiet")->now->zygote, ZYGOTE_NONE);
        assert_false(h.fs->meters_dirty);
    }
    host_stop(&h);
    host_remove(&h);
}

static int there(const struct host *h, const char *name)
{
    int n = 0;

    LIST_EACH(&function_find(h->fs, NULL, name)->now->instances, l)
    {
        const struct instance *i = list_entry(l, struct instance, link);

        n += i->state != INSTANCE_DYING && !i->compiler;
    }
    return n;
}

static void want_there(struct host *h, const char *name, int n)
{
    for (int i = 0; i < 600 && there(h, name) != n; i++)
        host_sleep(h, 50);
    assert_int_equal(there(h, name), n);
}

#define KN "\"autoscaling.knative.dev/"
static const char SLOW[] = "import time\ndef lambda_handler(e, c):\n    time.sleep(e)\n    return 1\n";

/* Goal: instances of an annotated function are as many as the autoscaler says: the initial ones without a call, min-scale
 * whatever comes, never more than max-scale, also while more calls wait; those of others go by their idle time. Without
 * the annotations it is one of the others again. */
static void annotated_functions_keep_what_is_said(void **state)
{
    struct host h = {0};
    struct functions_options o = {.keep_ms = 300, .zygote_keep_ms = 60000};
    struct answer a[12];
    struct err err;
    const struct version *v;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function_noted(&h, "noted", SLOW, "\"timeoutSeconds\":60", KN "min-scale\":\"2\"," KN "max-scale\":\"4\"," KN "initial-scale\":\"3\"," KN "window\":\"6s\"");
    want_there(&h, "noted", 3); /* before any call */
    want_there(&h, "noted", 2); /* fewer are enough, two are owed */
    v = function_find(h.fs, NULL, "noted")->now;
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        host_send(&h, "noted", "1.5", &a[i]);
    want_there(&h, "noted", 4);
    assert_true(v->f->waiting_n > 0);
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        host_wait(&h, &a[i]);
        assert_true(there(&h, "noted") <= 4);
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_null(a[i].error);
        answer_done(&a[i]);
    }
    want_there(&h, "noted", 2);
    host_sleep(&h, 1000);
    assert_int_equal(there(&h, "noted"), 2); /* keep_ms is for others */
    host_function_noted(&h, "noted", SLOW, "\"timeoutSeconds\":60", "");
    assert_ptr_equal(function_find(h.fs, NULL, "noted")->now, v); /* the same code: nothing starts anew */
    assert_null(v->f->kpa);
    host_call(&h, "noted", "0", &a[0]);
    assert_null(a[0].error);
    answer_done(&a[0]);
    host_stop(&h);
    host_remove(&h);
}

/* Goal: from none by a call, to none when the window is over. */
static void to_none_and_back(void **state)
{
    struct host h = {0};
    struct functions_options o = {.keep_ms = 300, .zygote_keep_ms = 1000};
    struct answer a;
    struct err err;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function_noted(&h, "zero", CODE, "", KN "initial-scale\":\"0\"," KN "activation-scale\":\"2\"," KN "window\":\"6s\"");
    host_sleep(&h, 1500);
    assert_int_equal(there(&h, "zero"), 0);
    for (int round = 0; round < 2; round++) {
        host_call(&h, "zero", "{}", &a);
        assert_int_equal(a.err.code, ERR_OK);
        assert_true(a.cold);
        answer_done(&a);
        want_there(&h, "zero", 2); /* activation-scale */
        want_there(&h, "zero", 0);
    }
    for (int i = 0; i < 400 && ticks(&h); i++)
        host_sleep(&h, 50);
    assert_false(ticks(&h));
    host_stop(&h);
    host_remove(&h);
}

static uint64_t evicted(const struct host *h, const char *name)
{
    return function_find(h->fs, NULL, name)->m->evicted;
}

/* Each instance holds so much of its own. */
static const char HOLDS[] = "import time\nheld = bytearray(40 << 20)\nfor i in range(0, len(held), 4096):\n    held[i] = 1\n"
                            "def lambda_handler(e, c):\n    time.sleep(e)\n    return 1\n";

/* As many instances at once, idle when it returns. */
static void warm(struct host *h, const char *name, size_t n)
{
    struct answer a[8];

    for (size_t i = 0; i < n; i++)
        host_send(h, name, "5", &a[i]);
    for (size_t i = 0; i < n; i++) {
        host_wait(h, &a[i]);
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_null(a[i].error);
        answer_done(&a[i]);
    }
}

/* A machine with memory; or none. */
static void plenty(void *arg, struct functions_memory *ret)
{
    *ret = (struct functions_memory){.total_mb = 1000, .available_mb = *(bool *)arg ? 3 : 900, .stall_percent = -1};
}

/* Goal: when pods ask for it idle instances go within moments, what is provisioned as well, while calls at work stay as
 * long as the machine has memory, and functions answer all the same, one at a time. When it is free again all is as before. */
static void pods_get_what_is_idle(void **state)
{
    struct host h = {0};
    bool is_short = false;
    struct functions_options o = {.keep_ms = 60000, .zygote_keep_ms = 60000, .memory = plenty, .memory_arg = &is_short};
    struct functions_capacity all = {.memory_mb = 4000, .cpu_milli = 2000}, little = {.memory_mb = 100, .cpu_milli = 100},
                              none = {.memory_mb = -500, .cpu_milli = -500};
    struct answer a[4];
    struct err err;

    (void)state;
    assert_int_equal(host_start(&h, &o, &err), 0);
    if (!h.fs->has_cgroups || !h.fs->cgroups.mount[CGROUP_MEMORY][0]) {
        if (!h.fs->cgroups.v2_controls) {
            fprintf(stderr, "skipped: no memory cgroup\n");
            host_stop(&h);
            host_remove(&h);
            return;
        }
    }
    functions_set_capacity(h.fs, &all);
    host_function(&h, "idle", HOLDS, "\"memoryMB\":256,\"timeoutSeconds\":60");
    warm(&h, "idle", 4);
    assert_int_equal(evicted(&h, "idle"), 0);
    for (int i = 0; i < 1000 && h.fs->held_kb <= 160 << 10; i++)
        host_sleep(&h, 20);
    assert_true(h.fs->held_kb > 160 << 10);
    functions_set_capacity(h.fs, &little);
    for (int i = 0; i < 1000 && h.fs->held_kb > 100 << 10; i++)
        host_sleep(&h, 20);
    assert_true(h.fs->held_kb <= 100 << 10);
    assert_true(evicted(&h, "idle") >= 2 && evicted(&h, "idle") < 6); /* no more than needed */
    functions_set_capacity(h.fs, &none); /* some is always left: not for one of these, but for calls */
    for (int i = 0; i < 1000 && h.fs->held_kb > 64 << 10; i++)
        host_sleep(&h, 20);
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        host_send(&h, "idle", "0.2", &a[i]);
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        host_wait(&h, &a[i]);
        assert_int_equal(a[i].err.code, ERR_OK);
        assert_null(a[i].error);
        answer_done(&a[i]);
    }

    functions_set_capacity(h.fs, &all);
    host_send(&h, "idle", "4", &a[0]); /* at work: it stays */
    host_sleep(&h, 1000);
    functions_set_capacity(h.fs, &none);
    host_wait(&h, &a[0]);
    assert_null(a[0].error);
    answer_done(&a[0]);
    functions_set_capacity(h.fs, &all);
    for (size_t i = 0; i < 3; i++)
        host_send(&h, "idle", "25", &a[i]);
    want_there(&h, "idle", 3);
    host_sleep(&h, 2500);
    is_short = true; /* now it is meant: they go, the youngest first, and their callers hear of it */
    functions_set_capacity(h.fs, &none);
    host_wait(&h, &a[2]);
    assert_true(a[2].error || a[2].err.code != ERR_OK);
    is_short = false;
    functions_remove(h.fs, NULL, "idle");
    for (size_t i = 0; i < 2; i++)
        host_wait(&h, &a[i]), answer_done(&a[i]);
    answer_done(&a[2]);
    host_stop(&h);
    host_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_tick_without_work),
        cmocka_unit_test(annotated_functions_keep_what_is_said),
        cmocka_unit_test(to_none_and_back),
        cmocka_unit_test(pods_get_what_is_idle),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
