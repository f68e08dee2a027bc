/* Goal: who matters more gets room, at the cost of as few and as unimportant ones as will do. */
#include "controller/world.h"

static void class_(struct world *w, const char *name, int value, const char *policy)
{
    make_in(w, "scheduling.k8s.io/v1/priorityclasses", "", arena_printf(w->a,
            "{\"metadata\":{\"name\":\"%s\"},\"value\":%d,\"preemptionPolicy\":\"%s\"}", name, value, policy));
}

static void pod(struct world *w, const char *name, const char *class_name, const char *cpu)
{
    make(w, "v1/pods", arena_printf(w->a,
         "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"app\":\"%s\"}},\"spec\":{\"priorityClassName\":\"%s\",\"containers\":[{\"name\":\"c\",\"image\":\"i\","
         "\"resources\":{\"requests\":{\"cpu\":\"%s\"}}}]}}", name, name, class_name, cpu));
}

static const char *where(struct world *w, const char *name)
{
    return val_str_at(get(w, "v1/pods", name), "spec.nodeName", "");
}

static void who_matters_gets_room(void **state)
{
    struct world *w = *state;
    const struct val *victim;

    class_(w, "low", 10, "PreemptLowerPriority");
    class_(w, "mid", 100, "PreemptLowerPriority");
    class_(w, "high", 1000, "PreemptLowerPriority");
    class_(w, "polite", 1000, "Never");
    node(w, "n1", "2");
    node(w, "n2", "2");
    pod(w, "a", "low", "1500m");
    pod(w, "b", "mid", "1500m");
    pass_ms(w, 1000);
    pod(w, "kind", "polite", "1");
    pass_ms(w, 1000);
    assert_string_equal(where(w, "kind"), "");
    assert_int_equal(count(w, "v1/pods", "default"), 3);
    pod(w, "vip", "high", "1");
    env_sim_run_until(w->env, env_now_ms(w->env) + 50);
    victim = get(w, "v1/pods", "a"); /* the less important of the two; b stays */
    assert_non_null(val_get(val_get(victim, "metadata"), "deletionTimestamp"));
    VAL_EACH(val_at(victim, "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), "DisruptionTarget"))
            assert_string_equal(val_str_at(c, "reason", ""), "PreemptionByScheduler");
    assert_string_not_equal(val_str_at(get(w, "v1/pods", "vip"), "status.nominatedNodeName", ""), "");
    pod(w, "sneak", "low", "1"); /* the room is not for anybody */
    pass_ms(w, 12000);
    assert_string_not_equal(where(w, "vip"), "");
    assert_string_equal(where(w, "sneak"), "");
    assert_string_not_equal(where(w, "b"), "");
    assert_int_equal(scheduler_stats(w->scheduler).preempted, 1);
    assert_string_equal(val_str_at(get(w, "v1/pods", "vip"), "status.nominatedNodeName", ""), "");
}

static void budgets_are_kept_where_there_is_a_choice(void **state)
{
    struct world *w = *state;

    class_(w, "low", 10, "PreemptLowerPriority");
    class_(w, "high", 1000, "PreemptLowerPriority");
    node(w, "n1", "2");
    node(w, "n2", "2");
    pod(w, "kept", "low", "1500m");
    pod(w, "free", "low", "1500m");
    make(w, "policy/v1/poddisruptionbudgets", "{\"metadata\":{\"name\":\"b\"},\"spec\":{\"minAvailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"kept\"}}}}");
    pass_ms(w, 2000);
    pod(w, "vip", "high", "1");
    pass_ms(w, 12000);
    assert_string_not_equal(where(w, "vip"), "");
    assert_non_null(get(w, "v1/pods", "kept"));
    assert_null(get(w, "v1/pods", "free"));
}

static void only_what_is_needed_goes(void **state)
{
    struct world *w = *state;

    class_(w, "low", 10, "PreemptLowerPriority");
    class_(w, "high", 1000, "PreemptLowerPriority");
    node(w, "n1", "4");
    for (int i = 0; i < 4; i++)
        pod(w, arena_printf(w->a, "p%d", i), "low", "1");
    pass_ms(w, 1000);
    pod(w, "big", "high", "2");
    pod(w, "huge", "high", "9"); /* no room can be made for it */
    pass_ms(w, 15000);
    assert_string_not_equal(where(w, "big"), "");
    assert_string_equal(where(w, "huge"), "");
    assert_int_equal(scheduler_stats(w->scheduler).preempted, 2);
    assert_int_equal(count(w, "v1/pods", "default"), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(who_matters_gets_room),
        WORLD_TEST(budgets_are_kept_where_there_is_a_choice),
        WORLD_TEST(only_what_is_needed_goes),
    };

    return cmocka_run_group_tests_name("controller-room", tests, NULL, NULL);
}
