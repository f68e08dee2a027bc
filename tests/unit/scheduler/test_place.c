/* Filters and scores over small clusters, and the sums of the cache under random news. */
#include "tt.h"

#include "codec/json.h"
#include "scheduler/place.h"

struct cluster {
    struct cache cache;
    struct arena *a;
    const struct obj *objs[64];
    uint32_t n;
};

static const struct obj *make(struct cluster *k, const char *text)
{
    struct err err;
    struct val *v = json_parse(k->a, text, strlen(text), &err);
    const struct obj *o;

    assert_non_null(v);
    o = obj_seal(v, 1);
    assert_true(k->n < ARRAY_LEN(k->objs));
    k->objs[k->n++] = o;
    return o;
}

static void begin(struct cluster *k)
{
    *k = (struct cluster){.a = arena_new()};
    cache_init(&k->cache);
}

static void end(struct cluster *k)
{
    cache_done(&k->cache);
    for (uint32_t i = 0; i < k->n; i++)
        obj_unref(k->objs[i]);
    arena_free(k->a);
}

/* more: ,"spec":{...} ; labels: "zone":"a" */
static void node(struct cluster *k, const char *name, const char *labels, const char *spec)
{
    const struct obj *o = make(k, arena_printf(k->a,
        "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"host\":\"%s\"%s%s}},\"spec\":{%s},\"status\":{\"allocatable\":"
        "{\"cpu\":\"2\",\"memory\":\"4Gi\",\"pods\":\"10\",\"x.io/gpu\":\"1\"}}}", name, name, *labels ? "," : "", labels, spec));

    cache_node(&k->cache, name, o);
}

static const struct obj *pod(struct cluster *k, const char *name, const char *on, const char *labels,
                             const char *spec)
{
    const struct obj *o = make(k, arena_printf(k->a,
        "{\"metadata\":{\"namespace\":\"d\",\"name\":\"%s\",\"uid\":\"u-%s\",\"labels\":{%s}},\"spec\":{\"nodeName\":\"%s\"%s%s}}",
        name, name, labels, on, *spec ? "," : "", spec));

    if (*on)
        cache_pod(&k->cache, o);
    return o;
}

static const char *try_place(struct cluster *k, const struct obj *p, struct claims *claims)
{
    struct placing pl = {.cache = &k->cache, .arena = k->a, .pod = p, .claims = claims};

    place(&pl);
    return pl.node ? pl.node->name : why_nowhere(&pl);
}

#define ASKS(cpu, mem)                                                                             \
    "\"containers\":[{\"resources\":{\"requests\":{\"cpu\":\"" cpu "\",\"memory\":\"" mem "\"}}}]"

static void resources_fit(void **state)
{
    struct cluster k;

    begin(&k);
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("1", "1Gi")), NULL),
                        "no nodes available to schedule pods");
    node(&k, "n1", "", "");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("2", "4Gi")), NULL), "n1");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("2001m", "1Gi")), NULL),
                        "0/1 nodes are available: 1 Insufficient cpu.");
    pod(&k, "a", "n1", "", ASKS("1500m", "1Gi"));
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("501m", "1Gi")), NULL),
                        "0/1 nodes are available: 1 Insufficient cpu.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("500m", "3073Mi")), NULL),
                        "0/1 nodes are available: 1 Insufficient memory.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("500m", "3Gi")), NULL), "n1");
    /* an init container runs before the others, a sidecar beside them */
    assert_string_equal(
        try_place(&k, pod(&k, "p", "", "", "\"initContainers\":[{\"resources\":{\"requests\":{\"cpu\":\"500m\"}}}]," ASKS("500m", "1")), NULL), "n1");
    assert_string_equal(
        try_place(&k, pod(&k, "p", "", "", "\"initContainers\":[{\"restartPolicy\":\"Always\",\"resources\":{\"requests\":{\"cpu\":\"1m\"}}}]," ASKS("500m", "1")), NULL),
        "0/1 nodes are available: 1 Insufficient cpu.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"overhead\":{\"cpu\":\"1m\"}," ASKS("500m", "1")), NULL),
                        "0/1 nodes are available: 1 Insufficient cpu.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"containers\":[{\"resources\":{\"requests\":{\"x.io/gpu\":\"2\"}}}]"), NULL),
                        "0/1 nodes are available: 1 Insufficient x.io/gpu.");
    /* a finished pod gives its room back */
    cache_pod(&k.cache, make(&k, "{\"metadata\":{\"namespace\":\"d\",\"name\":\"a\",\"uid\":\"u-a\"},\"spec\":{\"nodeName\":\"n1\"},\"status\":{\"phase\":\"Succeeded\"}}"));
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ASKS("2", "4Gi")), NULL), "n1");
    end(&k);
}

static void too_many_pods(void **state)
{
    struct cluster k;

    begin(&k);
    node(&k, "n1", "", "");
    for (int i = 0; i < 10; i++) {
        char name[8];

        snprintf(name, sizeof name, "p%d", i);
        assert_string_equal(try_place(&k, pod(&k, "x", "", "", ""), NULL), "n1");
        pod(&k, name, "n1", "", "");
    }
    assert_string_equal(try_place(&k, pod(&k, "x", "", "", ""), NULL),
                        "0/1 nodes are available: 1 Too many pods.");
    end(&k);
}

static void taints_and_labels(void **state)
{
    struct cluster k;

    begin(&k);
    node(&k, "n1", "\"zone\":\"a\"", "\"unschedulable\":true");
    node(&k, "n2", "\"zone\":\"b\"", "\"taints\":[{\"key\":\"k\",\"value\":\"v\",\"effect\":\"NoSchedule\"}]");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ""), NULL),
                        "0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"tolerations\":[{\"key\":\"k\",\"value\":\"v\"}]"), NULL), "n2");
    node(&k, "n3", "\"zone\":\"c\"", "");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"nodeSelector\":{\"zone\":\"c\"}"), NULL), "n3");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"tolerations\":[{\"operator\":\"Exists\"}],\"affinity\":{\"nodeAffinity\":"
        "{\"requiredDuringSchedulingIgnoredDuringExecution\":{\"nodeSelectorTerms\":[{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"In\",\"values\":[\"a\"]}]}]}}}"), NULL), "n1");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"tolerations\":[{\"operator\":\"Exists\"}],\"affinity\":{\"nodeAffinity\":"
        "{\"preferredDuringSchedulingIgnoredDuringExecution\":[{\"weight\":100,\"preference\":{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"In\",\"values\":[\"b\"]}]}}]}}"), NULL), "n2");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"nodeSelector\":{\"zone\":\"z\"}"), NULL),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.");
    end(&k);
}

static void ports_clash_by_address(void **state)
{
    struct cluster k;

    begin(&k);
    node(&k, "n1", "", "");
    pod(&k, "a", "n1", "", "\"containers\":[{\"ports\":[{\"hostPort\":80,\"hostIP\":\"10.0.0.1\"}]}]");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"containers\":[{\"ports\":[{\"hostPort\":80}]}]"), NULL),
                        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"containers\":[{\"ports\":[{\"hostPort\":80,\"hostIP\":\"10.0.0.2\"}]}]"), NULL), "n1");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", "\"containers\":[{\"ports\":[{\"hostPort\":80,\"protocol\":\"UDP\"}]}]"), NULL), "n1");
    end(&k);
}

#define NEAR(kind, key, label)                                                                     \
    "\"affinity\":{\"" kind "\":{\"requiredDuringSchedulingIgnoredDuringExecution\":[{\"topologyKey\":\"" key     \
    "\",\"labelSelector\":{\"matchLabels\":{\"app\":\"" label "\"}}}]}}"

static void pods_like_or_avoid_each_other(void **state)
{
    struct cluster k;

    begin(&k);
    node(&k, "n1", "\"zone\":\"a\"", "");
    node(&k, "n2", "\"zone\":\"b\"", "");
    pod(&k, "db", "n2", "\"app\":\"db\"", "");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", NEAR("podAffinity", "zone", "db")), NULL), "n2");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", NEAR("podAntiAffinity", "zone", "db")), NULL), "n1");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", NEAR("podAffinity", "zone", "nobody")), NULL),
                        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.");
    /* the first of its kind may start somewhere */
    assert_true(str_starts(try_place(&k, pod(&k, "p", "", "\"app\":\"me\"", NEAR("podAffinity", "zone", "me")), NULL), "n"));
    /* one that is there already does not want us */
    pod(&k, "loner", "n1", "\"app\":\"x\"", NEAR("podAntiAffinity", "host", "web"));
    assert_string_equal(try_place(&k, pod(&k, "p", "", "\"app\":\"web\"", ""), NULL), "n2");
    end(&k);
}

#define SPREAD(when)                                                                               \
    "\"topologySpreadConstraints\":[{\"maxSkew\":1,\"topologyKey\":\"zone\",\"whenUnsatisfiable\":\"" when           \
    "\",\"labelSelector\":{\"matchLabels\":{\"app\":\"w\"}}}]"

static void pods_spread(void **state)
{
    struct cluster k;

    begin(&k);
    node(&k, "n1", "\"zone\":\"a\"", "");
    node(&k, "n2", "\"zone\":\"b\"", "");
    pod(&k, "w1", "n1", "\"app\":\"w\"", "");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "\"app\":\"w\"", SPREAD("DoNotSchedule")), NULL), "n2");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "\"app\":\"w\"", SPREAD("ScheduleAnyway")), NULL), "n2");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "\"app\":\"w\"", SPREAD("DoNotSchedule") ",\"tolerations\":[],"
                        "\"nodeSelector\":{\"host\":\"n1\"}"), NULL), "n1"); /* only n1 counts as a domain */
    cache_node(&k.cache, "n2", make(&k, "{\"metadata\":{\"name\":\"n2\",\"labels\":{\"zone\":\"b\"}},\"spec\":{\"unschedulable\":true},\"status\":{}}"));
    assert_string_equal(try_place(&k, pod(&k, "p", "", "\"app\":\"w\"", SPREAD("DoNotSchedule")), NULL),
                        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.");
    end(&k);
}

static void volumes_bind_pods_to_nodes(void **state)
{
    struct cluster k;
    struct claim one = {.name = "c"};
    struct claims claims = {.v = &one, .n = 1};
    const struct obj *volumes[1];

    begin(&k);
    node(&k, "n1", "", "");
    node(&k, "n2", "", "");
    one.pvc = make(&k, "{\"metadata\":{\"name\":\"c\",\"namespace\":\"d\"},\"spec\":{\"storageClassName\":\"local\",\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
    one.pv = volumes[0] = make(&k, "{\"metadata\":{\"name\":\"v\"},\"spec\":{\"storageClassName\":\"local\",\"capacity\":{\"storage\":\"1Gi\"},\"nodeAffinity\":{\"required\":{\"nodeSelectorTerms\":"
                                   "[{\"matchExpressions\":[{\"key\":\"host\",\"operator\":\"In\",\"values\":[\"n2\"]}]}]}}}}");
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ""), &claims), "n2");
    one.pv = NULL; /* not bound yet: a free one is on n2 only */
    one.class_ = make(&k, "{\"metadata\":{\"name\":\"local\"},\"provisioner\":\"kubernetes.io/no-provisioner\"}");
    claims.free_volumes = volumes;
    claims.free_n = 1;
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ""), &claims), "n2");
    claims.free_n = 0;
    assert_string_equal(try_place(&k, pod(&k, "p", "", "", ""), &claims),
                        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.");
    end(&k);
}

/* Goal: the sums of a node are those of its pods, whatever order of news. Method: random news of
 * eight pods and three nodes, compared with a count from scratch. */
TT_PROP(cache, sums_agree_with_pods, 100)
{
    struct cache c;
    struct { int64_t cpu; int node; bool ended; } model[8] = {{0}};
    int64_t moved = 0;

    cache_init(&c);
    for (int step = 0; step < 150; step++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        uint32_t i = tt_below(rng, 8), dice = tt_below(rng, 6);
        char name[4] = {'n', (char)('0' + tt_below(rng, 3)), 0};
        const char *text;

        if (dice == 0) {
            text = arena_printf(a, "{\"metadata\":{\"name\":\"%s\"},\"status\":{\"allocatable\":{\"cpu\":\"1\"}}}", name);
            _auto_(obj_unrefp) const struct obj *o = obj_load(text, strlen(text), 1, &err);
            cache_node(&c, name, tt_below(rng, 3) ? o : NULL);
        } else {
            if (dice > 1) {
                model[i].cpu = tt_below(rng, 1000);
                model[i].node = (int)tt_below(rng, 4); /* 0: none */
                model[i].ended = tt_below(rng, 5) == 0;
            } else {
                model[i].node = 0;
            }
            text = arena_printf(a, "{\"metadata\":{\"name\":\"p\",\"uid\":\"%u\"},\"spec\":{\"nodeName\":\"%.*s\",\"containers\":[{\"resources\":{\"requests\":{\"cpu\":\"%lldm\"}}}]},\"status\":{\"phase\":\"%s\"}}",
                                i, model[i].node ? 2 : 0, model[i].node == 1 ? "n0" : model[i].node == 2 ? "n1" : "n2",
                                (long long)model[i].cpu, model[i].ended ? "Failed" : "Running");
            _auto_(obj_unrefp) const struct obj *o = obj_load(text, strlen(text), 1, &err);
            if (dice > 1)
                cache_pod(&c, o);
            else
                cache_pod_gone(&c, o);
        }
        for (int n = 1; n <= 3; n++) {
            char key[4] = {'n', (char)('0' + n - 1), 0};
            const struct node_info *info = map_get(&c.nodes_by_name, key);
            int64_t cpu = 0, pods = 0;

            for (int k = 0; k < 8; k++)
                if (model[k].node == n && !model[k].ended) {
                    cpu += model[k].cpu;
                    pods++;
                }
            TT_OK((info ? info->used.v[RES_CPU] : 0) == cpu);
            TT_OK((info ? info->used.v[RES_PODS] : 0) == pods);
            moved += pods;
        }
    }
    TT_OK(moved > 0);
    cache_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resources_fit),
        cmocka_unit_test(too_many_pods),
        cmocka_unit_test(taints_and_labels),
        cmocka_unit_test(ports_clash_by_address),
        cmocka_unit_test(pods_like_or_avoid_each_other),
        cmocka_unit_test(pods_spread),
        cmocka_unit_test(volumes_bind_pods_to_nodes),
        cmocka_unit_test(tt_cache_sums_agree_with_pods),
    };

    return cmocka_run_group_tests_name("scheduler-place", tests, NULL, NULL);
}
