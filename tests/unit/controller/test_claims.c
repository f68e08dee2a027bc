/* Goal: autoscalers keep their bounds and say what they lack; claims are made of templates and go
 * with what used them. */
#include "controller/world.h"

#define HPAS "autoscaling/v2/horizontalpodautoscalers"
#define CLAIMS "resource.k8s.io/v1/resourceclaims"

static const char *reason(struct world *w, const char *type)
{
    VAL_EACH(val_at(get(w, HPAS, "h"), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), type))
            return val_str_at(c, "reason", "");
    return "";
}

static void bounds_hold_without_metrics(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, HPAS, "{\"metadata\":{\"name\":\"h\"},\"spec\":{\"minReplicas\":2,\"maxReplicas\":4,\"scaleTargetRef\":{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"name\":\"web\"}}}");
    pass_ms(w, 500);
    assert_string_equal(reason(w, "AbleToScale"), "FailedGetScale");
    make(w, "apps/v1/deployments", "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":6,\"selector\":{\"matchLabels\":{\"a\":\"web\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"web\"}},"
         "\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    pass_ms(w, 20000);
    assert_int_equal(val_int_at(get(w, "apps/v1/deployments", "web"), "spec.replicas", 0), 4);
    pass_ms(w, 16000);
    assert_string_equal(reason(w, "AbleToScale"), "SucceededGetScale");
    assert_string_equal(reason(w, "ScalingActive"), "FailedGetResourceMetric");
    assert_int_equal(val_int_at(get(w, HPAS, "h"), "status.currentReplicas", 0), 4);
    patch(w, "apps/v1/deployments", "web", "", "{\"spec\":{\"replicas\":0}}");
    pass_ms(w, 20000);
    assert_string_equal(reason(w, "ScalingActive"), "ScalingDisabled");
}

static void claims_come_and_go_with_pods(void **state)
{
    struct world *w = *state;
    struct objs claims;
    char name[128];

    node(w, "n1", "8");
    make(w, "resource.k8s.io/v1/resourceclaimtemplates", "{\"metadata\":{\"name\":\"t\"},\"spec\":{\"metadata\":{\"labels\":{\"x\":\"y\"}},\"spec\":{\"devices\":{\"requests\":[{\"name\":\"r\",\"exactly\":{\"deviceClassName\":\"gpu\",\"allocationMode\":\"ExactCount\",\"count\":1}}]}}}}");
    make(w, "v1/pods", "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"resourceClaims\":[{\"name\":\"gpu\",\"resourceClaimTemplateName\":\"t\"}],\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}");
    pass_ms(w, 500);
    claims = client_list(w->user, w->a, CLAIMS, "default", NULL, NULL);
    assert_int_equal(claims.n, 1);
    snprintf(name, sizeof name, "%s", claims.v[0]->name);
    assert_memory_equal(name, "p-gpu-", 6);
    assert_string_equal(obj_label(claims.v[0], "x"), "y");
    assert_string_equal(val_str_at(get(w, "v1/pods", "p"), "status.resourceClaimStatuses[0].resourceClaimName", ""), name);
    assert_string_equal(val_str_at(get(w, "v1/pods", "p"), "spec.nodeName", ""), ""); /* nobody has allocated it */
    patch(w, CLAIMS, name, "status", "{\"status\":{\"allocation\":{\"devices\":{\"results\":[{\"request\":\"r\",\"driver\":\"d.example.com\",\"pool\":\"p\",\"device\":\"one\"}]}}}}");
    pass_ms(w, 12000);
    assert_string_equal(val_str_at(get(w, "v1/pods", "p"), "spec.nodeName", ""), "n1");
    assert_string_equal(val_str_at(get(w, CLAIMS, name), "status.reservedFor[0].name", ""), "p");
    patch(w, "v1/pods", "p", "status", "{\"status\":{\"phase\":\"Succeeded\"}}");
    pass_ms(w, 3000);
    assert_null(get(w, CLAIMS, name)); /* it was made for this pod, and the pod is done */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(bounds_hold_without_metrics),
        WORLD_TEST(claims_come_and_go_with_pods),
    };

    return cmocka_run_group_tests_name("controller-claims", tests, NULL, NULL);
}
