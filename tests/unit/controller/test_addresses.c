/* Goal: addresses of services are objects, ranges stay while they are needed. */
#include "controller/world.h"

#define IPS "networking.k8s.io/v1/ipaddresses"
#define CIDRS "networking.k8s.io/v1/servicecidrs"

static const struct obj *cluster(struct world *w, const char *resource, const char *name)
{
    return client_get(w->user, w->a, resource, "", name);
}

static void addresses_follow_their_services(void **state)
{
    struct world *w = *state;
    struct err err = {0};
    char ip[64];

    make(w, "v1/services", "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"ports\":[{\"port\":80}]}}");
    snprintf(ip, sizeof ip, "%s", val_str_at(get(w, "v1/services", "web"), "spec.clusterIP", ""));
    assert_string_equal(val_str_at(obj_val(cluster(w, IPS, ip)), "spec.parentRef.name", ""), "web");
    make_in(w, IPS, "", "{\"metadata\":{\"name\":\"10.96.0.77\"},\"spec\":{\"parentRef\":{\"resource\":\"things\",\"name\":\"mine\"}}}");
    assert_int_equal(client_create(w->user, "v1/services", "default",
                                   parse(w, "{\"metadata\":{\"name\":\"no\"},\"spec\":{\"clusterIP\":\"10.96.0.77\",\"ports\":[{\"port\":80}]}}"),
                                   NULL, &err), -1); /* somebody else has it */
    drop(w, "v1/services", "web", NULL);
    assert_null(cluster(w, IPS, ip));
}

static void ranges_stay_while_they_are_needed(void **state)
{
    struct world *w = *state;
    struct err err = {0};

    assert_non_null(cluster(w, CIDRS, "kubernetes"));
    make_in(w, CIDRS, "", "{\"metadata\":{\"name\":\"more\"},\"spec\":{\"cidrs\":[\"10.222.0.0/24\"]}}");
    pass_ms(w, 100);
    make(w, "v1/services", "{\"metadata\":{\"name\":\"far\"},\"spec\":{\"clusterIP\":\"10.222.0.7\",\"ports\":[{\"port\":80}]}}");
    assert_int_equal(client_delete(w->user, CIDRS, "", "more", NULL, &err), 0);
    pass_ms(w, 30000);
    assert_string_equal(val_str_at(obj_val(cluster(w, CIDRS, "more")), "status.conditions[0].reason", ""), "Terminating");
    drop(w, "v1/services", "far", NULL);
    pass_ms(w, 12000);
    assert_null(cluster(w, CIDRS, "more"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(addresses_follow_their_services),
        WORLD_TEST(ranges_stay_while_they_are_needed),
    };

    return cmocka_run_group_tests_name("controller-addresses", tests, NULL, NULL);
}
