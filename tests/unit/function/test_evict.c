/* Who goes when memory is short: the figures are made up, zygotes and instances are real. The parts with processes need
 * root; they say so and pass without. */
#include "tt.h"

#include "function/function_int.h"
#include "function/host.h"

/* Memory is short until so many processes have been let go. */
struct machine {
    struct host h;
    uint64_t until;
    int looks;
};

static uint64_t evicted(struct functions *fs)
{
    const char *key;
    uint64_t n = 0;
    void *m;

    for (uint32_t i = 0; map_next(&fs->meters, &i, &key, &m);)
        n += ((struct meter *)m)->evicted;
    return n;
}

static void made_up(void *arg, struct functions_memory *ret)
{
    struct machine *x = arg;

    x->looks++;
    *ret = (struct functions_memory){.total_mb = 1000, .available_mb = evicted(x->h.fs) < x->until ? 3 : 900, .stall_percent = -1};
}

static int64_t of(struct machine *x, const char *name, const char *what)
{
    struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    int64_t n = 0;

    functions_meter_json(x->h.fs, &b);
    VAL_EACH(val_get(json_parse(a, b.p, b.n, &err), "functions"), it)
    if (streq(val_str_at(it, "name", ""), name))
        n = val_int_at(it, what, 0);
    buf_done(&b);
    arena_free(a);
    return n;
}

static void wait_for(struct machine *x, const char *name, const char *what, int64_t n)
{
    for (int i = 0; i < 1200 && of(x, name, what) != n; i++)
        host_sleep(&x->h, 50);
    if (of(x, name, what) != n)
        fprintf(stderr, "%s of %s: %lld, not %lld\n", what, name, (long long)of(x, name, what), (long long)n);
    assert_int_equal(of(x, name, what), n);
}

static void want_processes(struct machine *x, const char *name, int idle, int stems, int zygotes)
{
    wait_for(x, name, "instancesIdle", idle);
    wait_for(x, name, "forkedAhead", stems);
    wait_for(x, name, "zygotes", zygotes);
}

static void call(struct machine *x, const char *name)
{
    struct answer a;

    host_call(&x->h, name, "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    answer_done(&a);
}

static void marks_say_how_much(void **state)
{
    static const struct {
        int64_t total, available;
        double stall;
        int mark, mark_stall, want;
    } rows[] = {
        {8000, 4000, -1, 0, 0, 0},    {8000, 399, -1, 0, 0, 101},   {8000, 400, -1, 0, 0, 0},
        {64000, 1023, -1, 0, 0, 257}, {64000, 1024, 0, 0, 0, 0},    {8000, 700, 9.9, 0, 0, 0},
        {8000, 700, 10, 0, 0, 300},   {8000, 4000, 99, 0, 0, 0},    {8000, 700, 50, 0, -1, 0},
        {8000, 700, 50, 0, 60, 0},    {8000, 100, -1, 200, 0, 150}, {8000, 1, 50, -1, 0, 0},
        {0, 0, -1, 100, 0, 0}, /* nothing could be read */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct functions_memory m = {rows[i].total, rows[i].available, rows[i].stall};

        assert_int_equal(evict_want_mb(&m, rows[i].mark, rows[i].mark_stall), rows[i].want);
    }
}

/* A function that is called every second is due soon; once two seconds have passed without, only the one long gap on
 * record speaks, and past that its own silence. */
static void waits_come_from_gaps(void **state)
{
    struct meter m = {0};
    int64_t wait;

    (void)state;
    assert_int_equal(evict_wait_us(&m, 7000000), 7000000);
    assert_int_equal(evict_wait_us(&m, 0), 100000);
    m.gaps[gap_bin(1000)] = 99;
    wait = evict_wait_us(&m, 0);
    assert_true(wait > 700000 && wait < 1400000);
    assert_true(evict_wait_us(&m, 600000) < wait);
    m.gaps[gap_bin(100000)] = 1;
    wait = evict_wait_us(&m, 2000000);
    assert_true(wait > 65000000 && wait < 140000000);
    assert_int_equal(evict_wait_us(&m, 400000000), 400000000);
}

static void the_kernel_tells(void **state)
{
    struct functions_memory m = {0};

    (void)state;
    functions_memory(NULL, &m);
    assert_true(m.total_mb > m.available_mb && m.available_mb > 0);
    assert_true(m.stall_percent >= -1 && m.stall_percent <= 100);
}

/* Goal: idle instances of the least valuable function go first, then stems, then zygotes, one by one as the shortage
 * demands; what is evicted is counted; calls are answered all the same; forks ahead come back when the shortage is over. */
static void least_worth_goes_first(void **state)
{
    static const char CODE[] = "def lambda_handler(e, c):\n    return 1\n";
    struct machine x = {0};
    struct functions_options o = {.keep_ms = 60000, .zygote_keep_ms = 60000, .evict_mb = 4, .memory = made_up, .memory_arg = &x};
    struct err err;

    (void)state;
    assert_int_equal(host_start(&x.h, &o, &err), 0);
    host_sleep(&x.h, 600);
    assert_int_equal(x.looks, 0); /* nothing is there: nobody looks */
    host_function(&x.h, "often", CODE, "");
    host_function(&x.h, "rare", CODE, "");
    call(&x, "often");
    call(&x, "rare"); /* the later one: recency alone would keep it */
    function_find(x.h.fs, NULL, "often")->now->start_us = function_find(x.h.fs, NULL, "rare")->now->start_us = 50000;
    meter_of(x.h.fs, "default/often")->gaps[gap_bin(1000)] = 1000;
    meter_of(x.h.fs, "default/rare")->gaps[gap_bin(3600000)] = 1000;
    want_processes(&x, "often", 1, 1, 1);
    want_processes(&x, "rare", 1, 1, 1);
    for (int i = 0; i < 3000 && !x.looks; i++) /* once a second */
        host_sleep(&x.h, 10);
    assert_true(x.looks > 0);
    assert_int_equal(evicted(x.h.fs), 0);

    x.until = 1;
    want_processes(&x, "rare", 0, 1, 1);
    want_processes(&x, "often", 1, 1, 1);
    x.until = 2;
    want_processes(&x, "often", 0, 1, 1);
    want_processes(&x, "rare", 0, 1, 1);
    x.until = 4;
    want_processes(&x, "rare", 0, 0, 1);
    want_processes(&x, "often", 0, 0, 1);
    x.until = 6;
    want_processes(&x, "rare", 0, 0, 0);
    want_processes(&x, "often", 0, 0, 0);
    assert_int_equal(of(&x, "rare", "evicted"), 3);
    assert_int_equal(of(&x, "often", "evicted"), 3);

    call(&x, "often"); /* it lives on what it needs, no more */
    host_sleep(&x.h, 400);
    assert_int_equal(of(&x, "often", "forkedAhead"), 0);
    x.h.fs->short_us = 1; /* a while later */
    wait_for(&x, "often", "forkedAhead", 1);
    host_stop(&x.h);
    host_remove(&x.h);
}

/* Goal: what is at work and what is provisioned stays, however short memory is. */
static void the_wanted_stay(void **state)
{
    struct machine x = {.until = UINT64_MAX};
    struct functions_options o = {.keep_ms = 60000, .evict_mb = 4, .memory = made_up, .memory_arg = &x};
    struct answer a;
    struct err err;

    (void)state;
    assert_int_equal(host_start(&x.h, &o, &err), 0);
    host_function(&x.h, "kept", "def lambda_handler(e, c):\n    return 1\n",
                  "\"provisioned\":[{\"qualifier\":\"$LATEST\",\"instances\":2}]");
    host_function(&x.h, "slow", "import time\ndef lambda_handler(e, c):\n    time.sleep(1.5)\n    return 1\n", "");
    host_send(&x.h, "slow", "{}", &a);
    for (int i = 0; i < 1200 && functions_provisioned(x.h.fs, "default", "kept", NULL) < 2; i++)
        host_sleep(&x.h, 50);
    host_wait(&x.h, &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    answer_done(&a);
    want_processes(&x, "slow", 0, 0, 0);
    assert_true(of(&x, "slow", "evicted") > 0);
    assert_int_equal(functions_provisioned(x.h.fs, "default", "kept", NULL), 2);
    assert_int_equal(of(&x, "kept", "evicted"), 0);
    host_stop(&x.h);
    host_remove(&x.h);
}

/* A Node base that ends takes nobody with it who was not forked from it. */
static void a_base_ends_alone(void **state)
{
    struct functions_options o = {.stems = -1, .evict_mb = -1};
    struct answer a, b;
    struct buf zip = {0};
    struct host h = {0};
    struct err err;
    char sha[CODE_HEX];
    int ended = 0;

    if (function_runtime_check("nodejs18.x", &err) < 0)
        skip();
    assert_int_equal(host_start(&h, &o, &err), 0);
    host_zip(&zip, (const char *const[]){"index.js", "exports.handler = async () => 1;\n", NULL});
    assert_int_equal(code_put(h.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&h, "other", sha, "\"runtime\":\"nodejs18.x\",\"handler\":\"index.handler\",\"timeoutSeconds\":30");
    host_call(&h, "other", "{}", &a);
    assert_string_equal(a.payload, "1");
    answer_done(&a);
    host_function(&h, "work", "import time\ndef lambda_handler(e, c):\n    time.sleep(e['s'])\n    return 2\n", "\"timeoutSeconds\":60");
    host_call(&h, "work", "{\"s\":0}", &a);
    answer_done(&a);
    host_send(&h, "work", "{\"s\":3}", &b);
    host_sleep(&h, 100);
    LIST_EACH(&h.fs->bases, l)
    if (list_entry(l, struct base, link)->node) {
        zygote_base_end(list_entry(l, struct base, link));
        ended++;
    }
    assert_int_equal(ended, 1);
    host_wait(&h, &b);
    assert_null(b.error);
    assert_string_equal(b.payload, "2");
    answer_done(&b);
    host_stop(&h);
    host_remove(&h);
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(marks_say_how_much),
        cmocka_unit_test(waits_come_from_gaps),
        cmocka_unit_test(the_kernel_tells),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_worth_goes_first),
        cmocka_unit_test(the_wanted_stay),
        cmocka_unit_test(a_base_ends_alone),
    };
    int failed = cmocka_run_group_tests(pure, NULL, NULL);

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return failed;
    }
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
