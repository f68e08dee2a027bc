/* How fast a function grows: the bucket by a made-up clock, then real instances (needs root; says so and passes without). */
#include "tt.h"

#include "function/function_int.h"
#include "function/host.h"

static int take_all(struct rate *r, int64_t now)
{
    int n = 0;

    for (; rate_has(r, 1000, 1000, now); n++)
        rate_take(r, 1000, 1000, now);
    return n;
}

static void lambdas_figures(void **state)
{
    struct rate r = {0};
    int64_t t = 5000000;

    (void)state;
    assert_int_equal(rate_in(&r, 1000, 1000, t, 1), 1100);
    assert_int_equal(take_all(&r, t), 1000);
    assert_int_equal(take_all(&r, t + 9999), 0);
    assert_int_equal(rate_in(&r, 1000, 1000, t + 9999, 1), 100);
    assert_int_equal(take_all(&r, t + 10001), 1);
    assert_int_equal(take_all(&r, t + 5000000), 499);
    assert_int_equal(take_all(&r, t + 15000000), 1000);
    assert_int_equal(take_all(&r, t + 500000000), 1000); /* never more than it holds */
    assert_int_equal(take_all(&r, t), 0);                /* a clock that goes back brings nothing */
}

/* Goal: over no stretch of time more is taken than the bucket held and gained. Method: takes at random times. */
TT_PROP(rate, never_more_than_it_gains, 100)
{
    struct rate r = {0};
    int burst = 1 + (int)tt_below(rng, 50), per_10s = (int)tt_below(rng, 500);
    int64_t start = 1 + (int64_t)tt_below(rng, 1000000), now = start;
    double taken = 0;

    for (int i = 0; i < 500; i++) {
        now += (int64_t)tt_below(rng, 200000);
        if (rate_has(&r, burst, per_10s, now)) {
            rate_take(&r, burst, per_10s, now);
            taken++;
        }
        TT_OK(taken <= burst + (double)(now - start) * per_10s / 1e7 + 1e-6);
    }
    TT_OK(taken >= MIN(burst, 500));
}

static void want_answer(struct host *h, struct answer *a, bool cold)
{
    host_wait(h, a);
    assert_int_equal(a->err.code, ERR_OK);
    assert_null(a->error);
    assert_int_equal(a->cold, cold);
    answer_done(a);
}

/* Goal: two instances at once, two more a second; who would wait for longer is refused with Lambda's words; an instance that
 * is there is nobody's new one. Forks ahead are new ones, too. */
static void growth(int stems)
{
    struct functions_options o = {.keep_ms = 60000, .stems = stems, .scale_burst = 2, .scale_per_10s = 20};
    struct host h = {0};
    struct answer a[6];
    struct err err;

    assert_int_equal(host_start(&h, &o, &err), 0);
    host_function(&h, "grows", "import time\ndef lambda_handler(e, c):\n    time.sleep(e['s'])\n    return 1\n", "\"timeoutSeconds\":20");
    for (int i = 0; i < 1500 && function_find(h.fs, NULL, "grows")->now->zygote != ZYGOTE_READY; i++)
        host_sleep(&h, 20);
    for (int i = 0; i < 6; i++)
        host_send(&h, "grows", "{\"s\":6}", &a[i]);
    for (int i = 4; i < 6; i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].err.code, ERR_TOO_MANY);
        assert_string_equal(a[i].throttle, "FunctionInvocationRateLimitExceeded");
        answer_done(&a[i]);
    }
    for (int i = 0; i < 4; i++)
        want_answer(&h, &a[i], true);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 4; i++)
            host_send(&h, "grows", "{\"s\":0}", &a[i]);
        for (int i = 0; i < 4; i++)
            want_answer(&h, &a[i], false);
    }
    host_stop(&h);
    host_remove(&h);
}

static void a_function_grows_step_by_step(void **state)
{
    (void)state;
    growth(-1);
    growth(2);
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(lambdas_figures),
        cmocka_unit_test(tt_rate_never_more_than_it_gains),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_function_grows_step_by_step),
    };
    int failed = cmocka_run_group_tests(pure, NULL, NULL);

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return failed;
    }
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
