/* Goal: an object uses of a quota what a stock server says. Method: trees as text, amounts as text. */
#include "tt.h"

#include "codec/json.h"
#include "schema/quota.h"

static struct arena *a;

static const struct val *tree(const char *text)
{
    struct err err = {0};
    struct val *v = json_parse(a, text, strlen(text), &err);

    assert_non_null(v);
    return v;
}

static const char *usage(const char *group, const char *plural, const char *text)
{
    struct quota_world w = {.now_ms = 1700000000000};
    struct amounts r = {.a = a};

    quota_usage(&w, group, plural, tree(text), &r);
    return amounts_text(&r);
}

static void pods(void **state)
{
    (void)state;
    assert_string_equal(usage("", "pods", "{\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":"
        "{\"cpu\":\"100m\",\"memory\":\"1Gi\",\"nvidia.com/gpu\":\"2\",\"hugepages-2Mi\":\"4Mi\"},\"limits\":{\"cpu\":\"1\"}}},"
        "{\"name\":\"d\",\"resources\":{\"requests\":{\"cpu\":\"200m\"}}}]}}"),
        "count/pods=1,cpu=300m,hugepages-2Mi=4Mi,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=300m,"
        "requests.hugepages-2Mi=4Mi,requests.memory=1Gi,requests.nvidia.com/gpu=2");
    /* an init container that needs more; a sidecar is there all the time; overhead */
    assert_string_equal(usage("", "pods", "{\"spec\":{\"overhead\":{\"cpu\":\"10m\"},\"initContainers\":[{\"name\":\"s\","
        "\"restartPolicy\":\"Always\",\"resources\":{\"requests\":{\"cpu\":\"50m\"}}},{\"name\":\"i\",\"resources\":"
        "{\"requests\":{\"cpu\":\"1\"}}}],\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"100m\"}}}]}}"),
        "count/pods=1,cpu=1060m,pods=1,requests.cpu=1060m");
    /* the pod says it for all */
    assert_string_equal(usage("", "pods", "{\"spec\":{\"resources\":{\"requests\":{\"cpu\":\"2\"}},\"containers\":[{\"name\":"
        "\"c\",\"resources\":{\"requests\":{\"cpu\":\"100m\"}}}]}}"), "count/pods=1,cpu=2,pods=1,requests.cpu=2");
    /* a resize counts at once, what it had counts until it is done */
    assert_string_equal(usage("", "pods", "{\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":"
        "\"100m\"}}}]},\"status\":{\"containerStatuses\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"300m\"}}}]}}"),
        "count/pods=1,cpu=300m,pods=1,requests.cpu=300m");
    assert_string_equal(usage("", "pods", "{\"spec\":{},\"status\":{\"phase\":\"Succeeded\"}}"), "count/pods=1");
    assert_string_equal(usage("", "pods", "{\"metadata\":{\"deletionTimestamp\":\"2020-01-01T00:00:00Z\","
        "\"deletionGracePeriodSeconds\":30},\"spec\":{}}"), "count/pods=1");
}

static void others(void **state)
{
    (void)state;
    assert_string_equal(usage("", "services", "{\"spec\":{\"type\":\"LoadBalancer\",\"ports\":[{},{}]}}"),
                        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2");
    assert_string_equal(usage("", "services", "{\"spec\":{\"type\":\"LoadBalancer\",\"allocateLoadBalancerNodePorts\":false,"
                        "\"ports\":[{\"nodePort\":30000},{}]}}"),
                        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1");
    assert_string_equal(usage("", "persistentvolumeclaims", "{\"spec\":{\"storageClassName\":\"gold\",\"resources\":"
                        "{\"requests\":{\"storage\":\"1.5\"}}}}"),
                        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,"
                        "gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2");
    assert_string_equal(usage("", "configmaps", "{}"), "configmaps=1,count/configmaps=1");
    assert_string_equal(usage("example.com", "widgets", "{}"), "count/widgets.example.com=1");
    assert_string_equal(usage("resource.k8s.io", "resourceclaims", "{\"spec\":{\"devices\":{\"requests\":[{\"exactly\":"
                        "{\"deviceClassName\":\"gpu\",\"allocationMode\":\"ExactCount\",\"count\":2}},{\"firstAvailable\":["
                        "{\"deviceClassName\":\"gpu\",\"allocationMode\":\"ExactCount\",\"count\":3},{\"deviceClassName\":"
                        "\"nic\",\"allocationMode\":\"All\"}]}]}}}"),
                        "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=5,"
                        "nic.deviceclass.resource.k8s.io/devices=32,requests.deviceclass.resource.kubernetes.io/gpu=5,"
                        "requests.deviceclass.resource.kubernetes.io/nic=32");
}

static void names(void **state)
{
    struct quota_world w = {0};

    (void)state;
    assert_true(quota_tracks(&w, "", "pods", "requests.cpu"));
    assert_true(quota_tracks(&w, "", "pods", "requests.nvidia.com/gpu"));
    assert_true(quota_tracks(&w, "", "pods", "count/pods"));
    assert_false(quota_tracks(&w, "", "pods", "nvidia.com/gpu"));
    assert_false(quota_tracks(&w, "", "pods", "services"));
    assert_true(quota_tracks(&w, "apps", "deployments", "count/deployments.apps"));
    assert_false(quota_tracks(&w, "apps", "deployments", "count/deployments"));
    assert_true(quota_tracks(&w, "", "secrets", "secrets"));
    assert_false(quota_tracks(&w, "", "events", "count/events"));
    assert_true(quota_tracks(&w, "", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage"));
    assert_false(quota_tracks(&w, "", "persistentvolumeclaims", "gold/requests.storage"));
}

static void scopes(void **state)
{
    const struct val *pod = tree("{\"spec\":{\"priorityClassName\":\"high\",\"activeDeadlineSeconds\":5},"
                                 "\"status\":{\"qosClass\":\"BestEffort\"}}");
    static const struct {
        const char *spec;
        bool holds;
    } cases[] = {
        {"{}", true},
        {"{\"scopes\":[\"BestEffort\",\"Terminating\"]}", true},
        {"{\"scopes\":[\"NotBestEffort\"]}", false},
        {"{\"scopes\":[\"NotTerminating\"]}", false},
        {"{\"scopes\":[\"CrossNamespacePodAffinity\"]}", false},
        {"{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"PriorityClass\",\"operator\":\"In\",\"values\":[\"high\"]}]}}", true},
        {"{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"PriorityClass\",\"operator\":\"NotIn\",\"values\":[\"high\"]}]}}", false},
        {"{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"PriorityClass\",\"operator\":\"DoesNotExist\"}]}}", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(quota_scopes_hold("", "pods", tree(cases[i].spec), pod), cases[i].holds);
    assert_false(quota_scopes_hold("", "configmaps", tree("{\"scopes\":[\"BestEffort\"]}"), tree("{}")));
    assert_true(quota_scopes_hold("", "persistentvolumeclaims",
                                  tree("{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"VolumeAttributesClass\","
                                       "\"operator\":\"In\",\"values\":[\"fast\"]}]}}"),
                                  tree("{\"status\":{\"currentVolumeAttributesClassName\":\"fast\"}}")));
}

static void missing(void **state)
{
    struct amounts t = {.a = a};

    (void)state;
    amounts_add(&t, "requests.cpu", 0, false);
    amounts_add(&t, "limits.memory", 0, false);
    amounts_add(&t, "pods", 0, false);
    assert_string_equal(quota_missing(a, &t, tree("{\"spec\":{\"containers\":[{\"name\":\"b\"},{\"name\":\"a\",\"resources\":"
                        "{\"requests\":{\"cpu\":\"1\"}}}]}}")),
                        "must specify limits.memory for: a,b; requests.cpu for: b");
    assert_null(quota_missing(a, &t, tree("{\"spec\":{\"resources\":{\"limits\":{\"cpu\":\"1\"}},\"containers\":[{\"name\":\"b\"}]}}")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pods), cmocka_unit_test(others), cmocka_unit_test(names),
                                       cmocka_unit_test(scopes), cmocka_unit_test(missing)};
    int r;

    a = arena_new();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(a);
    return r;
}
