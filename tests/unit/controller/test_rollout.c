/* The arithmetic of rollouts: known cases from Kubernetes' own tests, and the two invariants of
 * rollout.h under random input. */
#include "tt.h"

#include "codec/json.h"
#include "controller/rollout.h"

static struct val *parse(struct arena *a, const char *text)
{
    struct err err;

    return json_parse(a, text, strlen(text), &err);
}

static void limits_round_as_kubernetes(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    int64_t s, u;

    rollout_limits(NULL, NULL, 1, &s, &u);
    assert_int_equal(s, 1);
    assert_int_equal(u, 0);
    rollout_limits(val_str(a, "25%"), val_str(a, "25%"), 10, &s, &u);
    assert_int_equal(s, 3);
    assert_int_equal(u, 2);
    rollout_limits(val_int(a, 0), val_int(a, 0), 3, &s, &u);
    assert_int_equal(u, 1);
    rollout_limits(val_int(a, 5), val_str(a, "100%"), 2, &s, &u);
    assert_int_equal(s, 5);
    assert_int_equal(u, 2);
}

static void step(int64_t replicas, int64_t surge, int64_t un, struct rollout_set fresh,
                 struct rollout_set old, int64_t want_fresh, int64_t want_old)
{
    struct rollout_set *olds[] = {&old};
    struct rollout r = {replicas, surge, un, &fresh, olds, 1};

    rollout_step(&r);
    assert_int_equal(fresh.next, want_fresh);
    assert_int_equal(old.next, want_old);
}

static void one_step_at_a_time(void **state)
{
#define SET(s, av) ((struct rollout_set){.spec = s, .status = s, .ready = av, .available = av})
    step(10, 2, 0, SET(0, 0), SET(10, 10), 2, 10); /* surge first */
    step(10, 2, 0, SET(2, 0), SET(10, 10), 2, 10); /* wait for them */
    step(10, 2, 0, SET(2, 2), SET(10, 10), 2, 8);  /* then the old go */
    step(10, 0, 2, SET(0, 0), SET(10, 10), 0, 8);  /* no surge: the old go first */
    step(10, 0, 2, SET(0, 0), SET(10, 8), 0, 8);   /* the two that are broken */
    step(10, 0, 2, SET(0, 0), SET(10, 5), 0, 8);   /* not more than the limit */
    step(3, 1, 0, SET(4, 4), SET(0, 0), 3, 0);     /* scaled down meanwhile */
    step(3, 1, 0, SET(3, 3), SET(1, 1), 3, 0);
}

static void scale(int64_t replicas, int64_t surge, struct rollout_set fresh, struct rollout_set old,
                  int64_t want_fresh, int64_t want_old)
{
    struct rollout_set *olds[] = {&old};
    struct rollout r = {replicas, surge, 0, &fresh, olds, 1};

    fresh.created = 2;
    old.created = 1;
    rollout_scale(&r, true, fresh.status + old.status);
    assert_int_equal(fresh.next, want_fresh);
    assert_int_equal(old.next, want_old);
}

static void scaling_is_proportional(void **state)
{
#define NOTED(s, m)                                                                                \
    ((struct rollout_set){.spec = s, .status = s, .available = s, .max_noted = m})
    scale(12, 0, NOTED(5, 10), NOTED(5, 10), 6, 6);
    scale(20, 0, NOTED(2, 10), NOTED(8, 10), 4, 16);
    scale(5, 0, NOTED(2, 10), NOTED(8, 10), 1, 4);
    scale(0, 0, NOTED(2, 10), NOTED(8, 10), 0, 0);
    scale(7, 0, NOTED(7, 10), NOTED(3, 10), 7, 0); /* the new one is full */
    scale(9, 0, NOTED(0, 10), NOTED(3, 10), 0, 9); /* one active set takes it all */
}

/* Goal: both promises of rollout.h, and that a rollout comes to its end. Method: random numbers;
 * pods become available at random between steps. */
TT_PROP(rollout, keeps_its_promises_and_ends, 300)
{
    struct rollout_set sets[4] = {{0}}, *old[3] = {&sets[1], &sets[2], &sets[3]};
    struct rollout r = {.replicas = tt_below(rng, 20), .fresh = sets, .old = old, .old_n = 3};
    int64_t floor_, left = r.replicas;
    int steps = 0, idle = 0;

    r.surge = tt_below(rng, 5);
    r.unavailable = MIN((int64_t)tt_below(rng, 5), r.replicas);
    if (!r.surge && !r.unavailable)
        r.surge = 1;
    for (int i = 1; i < 4; i++) {
        sets[i].created = i;
        sets[i].spec = i == 3 ? left : (int64_t)tt_below(rng, (uint32_t)left + 1);
        sets[i].available = sets[i].spec;
        left -= sets[i].spec;
    }
    floor_ = r.replicas - r.unavailable;
    while (idle < 20 && steps++ < 1000) {
        int64_t all = 0, available = 0, before = 0;

        for (int i = 0; i < 4; i++)
            before += sets[i].available;
        idle = rollout_step(&r) ? 0 : idle + 1;
        for (int i = 0; i < 4; i++) {
            TT_OK(sets[i].next >= 0);
            sets[i].spec = sets[i].next;
            sets[i].available = MIN(sets[i].available, sets[i].spec);
            all += sets[i].spec;
            available += sets[i].available;
        }
        TT_OK(all <= r.replicas + r.surge);
        TT_OK(available >= MIN(floor_, before));
        if (tt_below(rng, 2) && sets[0].available < sets[0].spec)
            sets[0].available++;
    }
    TT_OK(sets[0].spec == r.replicas);
    TT_OK(sets[1].spec + sets[2].spec + sets[3].spec == 0);
}

static void hash_is_stable(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *x = parse(a, "{\"metadata\":{\"labels\":{\"a\":\"1\",\"pod-template-hash\":\"z\"}},"
                             "\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}");
    struct val *y = parse(a, "{\"spec\":{\"containers\":[{\"image\":\"i\",\"name\":\"c\"}]},"
                             "\"metadata\":{\"labels\":{\"a\":\"1\"}}}");
    struct val *z = parse(a, "{\"metadata\":{\"labels\":{\"a\":\"1\"}},"
                             "\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"j\"}]}}");

    assert_true(template_equal(a, x, y));
    assert_false(template_equal(a, x, z));
    assert_string_equal(template_hash(a, x, 0), template_hash(a, y, 0));
    assert_string_not_equal(template_hash(a, x, 0), template_hash(a, z, 0));
    assert_string_not_equal(template_hash(a, x, 0), template_hash(a, x, 1));
    assert_non_null(val_get(val_at(x, "metadata.labels"), "pod-template-hash")); /* untouched */
    for (const char *p = template_hash(a, x, 0); *p; p++)
        assert_non_null(strchr("bcdfghjklmnpqrstvwxz2456789", *p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_round_as_kubernetes),
        cmocka_unit_test(one_step_at_a_time),
        cmocka_unit_test(scaling_is_proportional),
        cmocka_unit_test(tt_rollout_keeps_its_promises_and_ends),
        cmocka_unit_test(hash_is_stable),
    };

    return cmocka_run_group_tests_name("rollout", tests, NULL, NULL);
}
