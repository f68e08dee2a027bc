#include "tt.h"

#include "client/workq.h"

#include <string.h>

/* Goal: any order of calls keeps the promises of workq.h. Method: random calls against a model of
 * a few facts per key, on simulated time; the printed seed replays the run. */
TT_PROP(workq, random_calls_agree_with_model, 300)
{
    enum { KEYS = 4 };
    static const char *const name[KEYS] = {"a", "b", "c", "d"};
    struct {
        const char *taken;
        bool owed;
        int64_t due_ms; /* of a delayed add; 0: none */
    } model[KEYS] = {0};
    struct env *env = env_sim_new(rng->seed);
    struct workq *q = workq_new(env, KEYS);
    int changed_while_taken = 0, delayed = 0;

    for (int step = 0; step < 300; step++) {
        uint32_t k = tt_below(rng, KEYS), dice = tt_below(rng, 5);
        int64_t now = env_mono_us(env) / 1000;

        if (dice == 0) {
            TT_OK(workq_add(q, name[k], &err) == 0);
            changed_while_taken += model[k].taken != NULL;
            model[k].owed = true;
        } else if (dice == 1) {
            const char *got = workq_take(q);
            if (!got) {
                for (k = 0; k < KEYS; k++)
                    TT_OK(!model[k].owed || model[k].taken); /* nothing forgotten */
                continue;
            }
            k = (uint32_t)(got[0] - 'a');
            TT_OK(model[k].owed && !model[k].taken); /* not for nothing, not twice at once */
            model[k].owed = false;
            model[k].taken = got;
        } else if (dice == 2) {
            if (model[k].taken)
                workq_done(q, STEAL(model[k].taken));
        } else if (dice == 3) {
            int64_t delay = 1 + tt_below(rng, 40);

            TT_OK(workq_add_after(q, name[k], delay, &err) == 0);
            if (!model[k].due_ms || model[k].due_ms > now + delay)
                model[k].due_ms = now + delay;
        } else {
            env_sim_run_until(env, env_now_ms(env) + tt_below(rng, 20));
            now = env_mono_us(env) / 1000;
            for (k = 0; k < KEYS; k++)
                if (model[k].due_ms && model[k].due_ms <= now) {
                    model[k].owed = true;
                    model[k].due_ms = 0;
                    delayed++;
                }
        }
    }
    TT_OK(changed_while_taken > 0 && delayed > 0); /* the cases this test is for did come up */
    workq_free(q);
    env_free(env);
}

static void retries_grow(void **state)
{
    struct env *env = env_sim_new(1);
    struct workq *q = workq_new(env, 2);
    struct err err = {0};
    int64_t waited[20], start;

    for (int i = 0; i < 20; i++) {
        assert_int_equal(workq_retry(q, "k", &err), 0);
        assert_int_equal(workq_failures(q, "k"), i + 1);
        start = env_mono_us(env);
        while (!workq_len(q))
            assert_true(env_sim_step(env));
        waited[i] = (env_mono_us(env) - start) / 1000;
        assert_string_equal(workq_take(q), "k");
        workq_done(q, "k");
    }
    assert_in_range(waited[0], 5, 6);
    for (int i = 1; i < 17; i++)
        assert_true(waited[i] > waited[i - 1]);
    assert_in_range(waited[19], 1000000, 1125001);
    workq_forget(q, "k");
    assert_int_equal(workq_failures(q, "k"), 0);
    assert_int_equal(workq_add(q, "x", &err), 0);
    assert_int_equal(workq_add(q, "y", &err), 0);
    assert_int_equal(workq_add(q, "z", &err), -1);
    assert_int_equal(err.code, ERR_TOO_MANY);
    workq_free(q);
    env_free(env);
}

static int readies;
static void on_ready(void *arg)
{
    readies++;
    workq_done(arg, workq_take(arg));
}
static void ready_once(void **state)
{
    struct env *env = env_sim_new(1);
    struct workq *q = workq_new(env, 9);
    struct err err = {0};

    workq_on_ready(q, on_ready, q);
    assert_int_equal(workq_add(q, "x", &err), 0);
    assert_int_equal(workq_add(q, "x", &err), 0);
    assert_int_equal(readies, 0);
    env_sim_settle(env);
    assert_int_equal(readies, 1);
    assert_int_equal(workq_add(q, "x", &err), 0);
    env_sim_settle(env);
    assert_int_equal(readies, 2);
    workq_free(q);
    env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tt_workq_random_calls_agree_with_model),
        cmocka_unit_test(retries_grow),
        cmocka_unit_test(ready_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
