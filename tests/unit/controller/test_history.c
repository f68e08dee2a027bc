/* Goal: past templates are kept, counted and taken back; disruption budgets say what may go. */
#include "controller/world.h"

#define SET(extra)                                                                                              \
    "{\"metadata\":{\"name\":\"db\"},\"spec\":{\"serviceName\":\"db\",\"replicas\":3," extra "\"selector\":"    \
    "{\"matchLabels\":{\"a\":\"db\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"db\"}},\"spec\":"         \
    "{\"containers\":[{\"name\":\"c\",\"image\":\"one\"}]}},\"volumeClaimTemplates\":[{\"metadata\":{\"name\":" \
    "\"d\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}]}}"
#define TEMPLATE(image) "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" image "\"}]}}}}"
#define SETS "apps/v1/statefulsets"
#define REVISIONS "apps/v1/controllerrevisions"

static int64_t highest(struct world *w)
{
    struct objs all = client_list(w->user, w->a, REVISIONS, "default", NULL, NULL);
    int64_t n = 0;

    for (uint32_t i = 0; i < all.n; i++)
        n = MAX(n, val_int_at(obj_val(all.v[i]), "revision", 0));
    return n;
}

static const char *image(struct world *w, const char *pod)
{
    return val_str_at(get(w, "v1/pods", pod), "spec.containers[0].image", "");
}

static void templates_come_back(void **state)
{
    struct world *w = *state;
    char first[64];

    node(w, "n1", "8");
    make(w, SETS, SET(""));
    pass_ms(w, 8000);
    snprintf(first, sizeof first, "%s", val_str_at(get(w, SETS, "db"), "status.currentRevision", ""));
    assert_non_null(get(w, REVISIONS, first));
    patch(w, SETS, "db", "", TEMPLATE("two"));
    pass_ms(w, 15000);
    assert_string_equal(image(w, "db-0"), "two");
    assert_int_equal(count(w, REVISIONS, "default"), 2);
    assert_int_equal(highest(w), 2);
    patch(w, SETS, "db", "", TEMPLATE("one"));
    pass_ms(w, 15000);
    assert_string_equal(image(w, "db-2"), "one");
    assert_int_equal(count(w, REVISIONS, "default"), 2); /* the first one is it again */
    assert_int_equal(highest(w), 3);
    assert_string_equal(val_str_at(get(w, SETS, "db"), "status.updateRevision", ""), first);
    assert_string_equal(val_str_at(get(w, SETS, "db"), "status.currentRevision", ""), first);
}

static void the_partition_keeps_the_old_template(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, SETS, SET("\"updateStrategy\":{\"rollingUpdate\":{\"partition\":2}},"));
    pass_ms(w, 8000);
    patch(w, SETS, "db", "", TEMPLATE("two"));
    pass_ms(w, 8000);
    assert_string_equal(image(w, "db-2"), "two");
    assert_string_equal(image(w, "db-1"), "one");
    drop(w, "v1/pods", "db-1", NULL); /* it comes back as it was */
    pass_ms(w, 4000);
    assert_string_equal(image(w, "db-1"), "one");
    assert_int_equal(val_int_at(get(w, SETS, "db"), "status.currentReplicas", 0), 2);
    assert_int_equal(val_int_at(get(w, SETS, "db"), "status.updatedReplicas", 0), 1);
}

static void old_templates_are_forgotten(void **state)
{
    static const char *const patches[] = {TEMPLATE("a"), TEMPLATE("b"), TEMPLATE("c"), TEMPLATE("d")};
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, SETS, SET("\"revisionHistoryLimit\":1,\"podManagementPolicy\":\"Parallel\","));
    for (size_t i = 0; i < ARRAY_LEN(patches); i++) {
        pass_ms(w, 10000);
        patch(w, SETS, "db", "", patches[i]);
    }
    pass_ms(w, 12000);
    assert_int_equal(highest(w), 5);
    assert_int_equal(count(w, REVISIONS, "default"), 2); /* today's and one of the past */
}

static void claims_go_with_what_lost_them(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, SETS, SET("\"persistentVolumeClaimRetentionPolicy\":{\"whenScaled\":\"Delete\",\"whenDeleted\":\"Delete\"},"));
    pass_ms(w, 8000);
    assert_int_equal(count(w, "v1/persistentvolumeclaims", "default"), 3);
    patch(w, SETS, "db", "", "{\"spec\":{\"replicas\":2}}");
    pass_ms(w, 8000);
    assert_null(get(w, "v1/persistentvolumeclaims", "d-db-2"));
    drop(w, SETS, "db", "Background");
    pass_ms(w, 8000);
    assert_int_equal(count(w, "v1/persistentvolumeclaims", "default"), 0);
}

static void daemons_surge(void **state)
{
    struct world *w = *state;
    const struct val *d;

    node(w, "n1", "8");
    node(w, "n2", "8");
    make(w, "apps/v1/daemonsets", "{\"metadata\":{\"name\":\"log\"},\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"maxSurge\":1,\"maxUnavailable\":0}},"
         "\"selector\":{\"matchLabels\":{\"a\":\"log\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"log\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"one\"}]}}}}");
    pass_ms(w, 4000);
    patch(w, "apps/v1/daemonsets", "log", "", TEMPLATE("two"));
    for (int i = 0; i < 40; i++) {
        struct objs pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);
        uint32_t ready = 0, live = 0;

        for (uint32_t k = 0; k < pods.n; k++)
            live += !obj_deleting(pods.v[k]);
        for (uint32_t k = 0; k < pods.n; k++)
            VAL_EACH(val_at(obj_val(pods.v[k]), "status.conditions"), c)
                ready += streq(val_str_at(c, "type", ""), "Ready") && streq(val_str_at(c, "status", ""), "True") &&
                         !obj_deleting(pods.v[k]);
        assert_in_range(live, 2, 3);
        assert_in_range(ready, 2, 3); /* never one less */
        pass_ms(w, 200);
    }
    d = get(w, "apps/v1/daemonsets", "log");
    assert_int_equal(val_int_at(d, "status.updatedNumberScheduled", 0), 2);
    assert_int_equal(count(w, REVISIONS, "default"), 2);
    assert_int_equal(count(w, "v1/pods", "default"), 2);
}

static int evict(struct world *w, const char *pod, struct err *err)
{
    return client_post_sub(w->user, w->a, "v1/pods", "default", pod, "eviction",
                           parse(w, arena_printf(w->a, "{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{\"name\":\"%s\"}}", pod)),
                           NULL, err);
}

static void budgets_say_what_may_go(void **state)
{
    struct world *w = *state;
    const struct val *s;
    struct objs pods;
    struct err err = {0};

    node(w, "n1", "8");
    make(w, "policy/v1/poddisruptionbudgets", "{\"metadata\":{\"name\":\"b\"},\"spec\":{\"maxUnavailable\":\"34%\",\"selector\":{\"matchLabels\":{\"a\":\"web\"}}}}");
    make(w, "apps/v1/deployments", "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":4,\"selector\":{\"matchLabels\":{\"a\":\"web\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"web\"}},"
         "\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    pass_ms(w, 4000);
    s = val_get(get(w, "policy/v1/poddisruptionbudgets", "b"), "status");
    assert_int_equal(val_int_at(s, "expectedPods", -1), 4);
    assert_int_equal(val_int_at(s, "desiredHealthy", -1), 2); /* 34 % of 4 are 2, rounded up */
    assert_int_equal(val_int_at(s, "currentHealthy", -1), 4);
    assert_int_equal(val_int_at(s, "disruptionsAllowed", -1), 2);
    pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);
    assert_int_equal(evict(w, pods.v[0]->name, &err), 0);
    assert_int_equal(evict(w, pods.v[1]->name, &err), 0);
    assert_int_equal(evict(w, pods.v[2]->name, &err), -1);
    assert_int_equal(err.code, ERR_TOO_MANY);
    pass_ms(w, 8000); /* others have taken their places */
    s = val_get(get(w, "policy/v1/poddisruptionbudgets", "b"), "status");
    assert_int_equal(val_int_at(s, "disruptionsAllowed", -1), 2);
    assert_int_equal(evict(w, pods.v[2]->name, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(templates_come_back),
        WORLD_TEST(the_partition_keeps_the_old_template),
        WORLD_TEST(old_templates_are_forgotten),
        WORLD_TEST(claims_go_with_what_lost_them),
        WORLD_TEST(daemons_surge),
        WORLD_TEST(budgets_say_what_may_go),
    };

    return cmocka_run_group_tests_name("controller-history", tests, NULL, NULL);
}
