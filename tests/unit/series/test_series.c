/* What is put into series is found again, by minute and by period, in this life and in the next. */
#include "tt.h"

#include "series/series.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;
static char dir[64];
static int64_t now;

static void on_flag(void *arg)
{
    *(bool *)arg = true;
}

static void on_put(void *arg, const struct err *err)
{
    *(int *)arg = err && err->code != ERR_OK ? -1 : 1;
}

static void wait_for(const bool *flag)
{
    while (!*flag)
        uv_run(&loop, UV_RUN_ONCE);
}

static struct series *begin(void)
{
    struct err err = {0};
    struct series *m = series_new(&loop, dir, &err);

    assert_non_null(m);
    return m;
}

static void end(struct series *m)
{
    bool done = false;

    series_stop(m, on_flag, &done);
    wait_for(&done);
}

static void put(struct series *m, const char *key, int64_t minute, double value, double count)
{
    struct metric_value v = {.key = key, .minute = minute, .value = value, .count = count};
    struct err err = {0};
    int done = 0;

    assert_int_equal(series_put(m, &v, 1, on_put, &done, &err), 0);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(done, 1);
}

static struct metric_bucket ask(struct series *m, struct arena *a, const char *prefix, bool whole, int64_t from, int64_t to)
{
    struct metric_ask q = {.prefix = prefix, .whole = whole, .metric = -1, .from = from, .to = to, .period = to - from, .bins = true};
    bool done = false;

    series_ask(m, a, &q, 1, on_flag, &done);
    wait_for(&done);
    assert_int_equal(q.buckets_n, 1);
    return q.buckets[0];
}

static void check_all(struct series *m)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct metric_bucket b = ask(m, a, "N" METRIC_SEP "one", true, now - 5, now);

    assert_true(b.p.n == 4 && b.p.sum == 1 + 2 + 3 + 3 && b.p.min == 1 && b.p.max == 3);
    assert_true(fabs(metric_percentile(&b, 100) - 3) < 0.3 && fabs(metric_percentile(&b, 1) - 1) < 0.3);
    b = ask(m, a, "N" METRIC_SEP "one", true, now - 3, now - 2); /* one minute of it */
    assert_true(b.p.n == 1 && b.p.sum == 2);
    b = ask(m, a, "N" METRIC_SEP, false, now - 5, now); /* all that begin so */
    assert_true(b.p.n == 5 && b.p.max == 100);
    b = ask(m, a, "N" METRIC_SEP "on", true, now - 5, now); /* a name is not the beginning of one */
    assert_true(b.p.n == 0);
    b = ask(m, a, "N" METRIC_SEP "one", true, now - 50, now - 40);
    assert_true(b.p.n == 0);
}

static void what_is_put_is_found(void **state)
{
    struct series *m = begin();

    (void)state;
    put(m, "N" METRIC_SEP "one", now - 4, 1, 1);
    put(m, "N" METRIC_SEP "one", now - 3, 2, 1);
    put(m, "N" METRIC_SEP "one", now - 2, 3, 2);
    put(m, "N" METRIC_SEP "two", now - 2, 100, 1);
    check_all(m);
    end(m);
    m = begin(); /* another life */
    check_all(m);
    end(m);
}

static void calls_are_counted(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct series *m = begin();
    struct metric_ask q[2] = {{.prefix = "call", .whole = true, .metric = METRIC_INVOCATIONS, .from = now - 1, .to = now + 2, .period = 3},
                              {.prefix = "call", .whole = true, .metric = METRIC_THROTTLES, .from = now - 1, .to = now + 2, .period = 3}};
    bool done = false;

    (void)state;
    for (int i = 0; i < 10; i++)
        series_call(m, "call", &(struct metric_call){.error = i < 3, .duration_ms = i, .concurrency = 1});
    series_call(m, "call", &(struct metric_call){.throttled = true});
    series_ask(m, a, q, 2, on_flag, &done);
    wait_for(&done);
    assert_true(q[0].buckets_n == 1 && q[0].buckets[0].p.sum == 10);
    assert_true(q[1].buckets_n == 1 && q[1].buckets[0].p.sum == 1);
    end(m);
}

static void bad_keys_are_refused(void **state)
{
    struct series *m = begin();
    char *key = xmalloc(METRIC_KEY_MAX + 2);
    struct metric_value v = {.key = key, .minute = now, .value = 1, .count = 1};
    struct err err = {0};
    int done = 0;

    (void)state;
    memset(key, 'k', METRIC_KEY_MAX + 1);
    key[METRIC_KEY_MAX + 1] = 0;
    assert_int_equal(series_put(m, &v, 1, on_put, &done, &err), -1);
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    free(key);
    end(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_put_is_found), cmocka_unit_test(calls_are_counted),
                                       cmocka_unit_test(bad_keys_are_refused)};
    char cmd[96];
    int failed;

    snprintf(dir, sizeof dir, "/tmp/tandem-series-XXXXXX");
    if (!mkdtemp(dir))
        return 2;
    now = (int64_t)time(NULL) / 60;
    uv_loop_init(&loop);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) || uv_loop_close(&loop) ? 3 : failed;
}
