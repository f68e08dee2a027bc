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
        assert_int_equal(function_find(h.fs, NULL, "quiet")->now->zygote, ZYGOTE_NONE);
        assert_false(h.fs->meters_dirty);
    }
    host_stop(&h);
    host_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_tick_without_work),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
