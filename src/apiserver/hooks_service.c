/* apiserver/hooks_service.c - addresses and node ports of services.
 *
 * What is taken is read from the services themselves at each allocation (a walk over the table), and
 * from the IPAddresses that others made: nothing can leak or drift, also not when the disk takes a
 * write back. */
#include "apiserver/hooks.h"

#include <arpa/inet.h>
#include <stdio.h>

struct taken {
    uint8_t *ips;   /* a bit an address of the range */
    uint8_t *ports; /* a bit a node port */
    uint32_t hosts;
};

static bool bit(const uint8_t *p, uint32_t i)
{
    return p[i / 8] >> (i % 8) & 1;
}

static void take_ip(struct api *api, struct taken *t, const char *ip)
{
    struct in_addr a;
    uint32_t i;

    if (inet_pton(AF_INET, ip, &a) != 1 || (i = ntohl(a.s_addr) - api->service_net) >= t->hosts)
        return;
    t->ips[i / 8] |= (uint8_t)(1 << (i % 8));
}

static void take_port(struct api *api, struct taken *t, int64_t port)
{
    uint32_t i = (uint32_t)(port - api->node_port_first);

    if (port >= api->node_port_first && port <= api->node_port_last)
        t->ports[i / 8] |= (uint8_t)(1 << (i % 8));
}

static void take_service(struct api *api, struct taken *t, const struct val *spec)
{
    take_ip(api, t, val_str_at(spec, "clusterIP", ""));
    VAL_EACH(val_get(spec, "clusterIPs"), ip)
        take_ip(api, t, val_text(ip, ""));
    VAL_EACH(val_get(spec, "ports"), p)
        take_port(api, t, val_int_at(p, "nodePort", 0));
    take_port(api, t, val_int_at(spec, "healthCheckNodePort", 0));
}

/* Everything that other services hold. */
static struct taken read_taken(struct call *c, const char *ns, const char *name)
{
    struct api *api = c->api;
    struct taken t = {.hosts = 1u << (32 - api->service_bits)};
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;

    t.ips = arena_alloc(c->a, t.hosts / 8 + 1);
    t.ports = arena_alloc(c->a, (size_t)(api->node_port_last - api->node_port_first) / 8 + 2);
    t.ips[0] |= 1; /* the network itself */
    t.ips[(t.hosts - 1) / 8] |= (uint8_t)(1 << ((t.hosts - 1) % 8));
    if (store_iter_init(&it, api->store, table_named(api->store, "", "services"), NULL, 0, NULL,
                        NULL, &err) < 0)
        return t;
    while ((o = store_iter_next(&it)))
        if (!streq(o->name, name) || !streq(o->namespace_, ns))
            take_service(api, &t, val_get(obj_val(o), "spec"));
    store_iter_done(&it);
    return t;
}

static int fail_field(struct call *c, const struct val *v, const char *field, const char *value,
                      const char *text)
{
    struct causes bad = {.a = c->a};

    causes_add(&bad, CAUSE_INVALID, field, value ? val_str(c->a, value) : NULL, "%s", text);
    return fail_causes(c, &bad, val_str_at(v, "metadata.name", ""));
}

static int allocate_ip(struct call *c, struct val *v, struct val *spec, struct taken *t)
{
    struct api *api = c->api;
    const char *ip = val_str_at(spec, "clusterIP", ""), *more;
    struct val *list;
    char text[INET_ADDRSTRLEN];
    struct in_addr a;
    uint32_t i, n;

    if (streq(ip, "None"))
        return 0;
    if (*ip) {
        if (inet_pton(AF_INET, ip, &a) != 1)
            return fail_field(c, v, "spec.clusterIPs", ip,
                              "failed to allocate IP: the provided network does not contain it");
        i = ntohl(a.s_addr) - api->service_net;
        if ((i >= t->hosts || i == 0 || i == t->hosts - 1) && !address_in_range(api, ntohl(a.s_addr)))
            return fail_field(c, v, "spec.clusterIPs", ip,
                              "failed to allocate IP: the provided network does not contain it");
        if ((i < t->hosts && bit(t->ips, i)) || address_taken(api, ip, c->path.ns, val_str_at(v, "metadata.name", "")))
            return fail_field(c, v, "spec.clusterIPs", ip,
                              "failed to allocate IP: provided IP is already allocated");
        return 0;
    }
    if (!*val_str_at(v, "metadata.name", "")) /* an address is given to somebody */
        return fail_field(c, v, "spec.clusterIPs", NULL, "failed to allocate IP: the service has no name");
    /* the low part of the range is left to those who ask for an address by name */
    i = MIN(256u, MAX(16u, t->hosts / 16));
    if (!c->o.dry_run) /* what nobody keeps may as well be the same each time */
        i += call_below(c, t->hosts - i);
    for (n = 0; n < t->hosts; n++, i = (i + 1) % t->hosts) {
        a.s_addr = htonl(api->service_net + i);
        inet_ntop(AF_INET, &a, text, sizeof(text));
        if (!bit(t->ips, i) && !address_taken(api, text, c->path.ns, val_str_at(v, "metadata.name", "")))
            break;
    }
    if (n == t->hosts && (more = address_elsewhere(api, c->a)))
        snprintf(text, sizeof(text), "%s", more);
    else if (n == t->hosts)
        return fail(c, 500, "InternalError", "failed to allocate a serviceIP: range is full");
    val_put_str(c->a, spec, "clusterIP", text);
    list = val_list(c->a);
    val_push_str(c->a, list, text);
    val_put(c->a, spec, "clusterIPs", list);
    return 0;
}

static int64_t free_port(struct call *c, struct taken *t)
{
    struct api *api = c->api;
    uint32_t n = (uint32_t)(api->node_port_last - api->node_port_first + 1), k;
    uint32_t i = c->o.dry_run ? 0 : call_below(c, n);

    for (k = 0; k < n && bit(t->ports, i); k++)
        i = (i + 1) % n;
    if (k == n)
        return 0;
    t->ports[i / 8] |= (uint8_t)(1 << (i % 8));
    return api->node_port_first + (int64_t)i;
}

static bool wants_ports(const struct val *spec)
{
    const char *type = val_str_at(spec, "type", "");

    return streq(type, "NodePort") ||
           (streq(type, "LoadBalancer") && val_bool_at(spec, "allocateLoadBalancerNodePorts", true));
}

static int allocate_ports(struct call *c, struct val *v, struct val *spec, struct taken *t,
                          const struct val *old)
{
    struct api *api = c->api;
    bool wants = wants_ports(spec), share = !old || !wants_ports(val_get(old, "spec"));
    uint32_t at = 0;

    VAL_EACH(val_get(spec, "ports"), p) {
        int64_t port = val_int_at(p, "nodePort", 0), number = val_int_at(p, "port", 0);
        uint32_t i = at++;

        if (port) {
            bool own = false;

            VAL_EACH(val_at(old, "spec.ports"), q)
                own |= val_int_at(q, "nodePort", 0) == port;
            VAL_EACH(val_get(spec, "ports"), q)
                own |= q < p && val_int_at(q, "nodePort", 0) == port;
            if (port < api->node_port_first || port > api->node_port_last)
                return fail_field(c, v, arena_printf(c->a, "spec.ports[%u].nodePort", i),
                                  arena_printf(c->a, "%lld", (long long)port),
                                  arena_printf(c->a, "provided port is not in the valid range. The "
                                               "range of valid ports is %d-%d",
                                               api->node_port_first, api->node_port_last));
            if (!own && bit(t->ports, (uint32_t)(port - api->node_port_first)))
                return fail_field(c, v, arena_printf(c->a, "spec.ports[%u].nodePort", i),
                                  arena_printf(c->a, "%lld", (long long)port),
                                  "provided port is already allocated");
            take_port(api, t, port);
        }
        if (port || !wants)
            continue;
        /* the same number shares the node port; with one protocol that is refused later */
        VAL_EACH(val_get(spec, "ports"), q)
            if (share && q < p && val_int_at(q, "port", 0) == number)
                port = val_int_at(q, "nodePort", 0);
        if (!port && !(port = free_port(c, t)))
            return fail(c, 500, "InternalError", "failed to allocate a nodePort: range is full");
        val_put_int(c->a, p, "nodePort", port);
    }
    if (streq(val_str_at(spec, "type", ""), "LoadBalancer") &&
        streq(val_str_at(spec, "externalTrafficPolicy", ""), "Local")) {
        if (!val_int_at(spec, "healthCheckNodePort", 0))
            val_put_int(c->a, spec, "healthCheckNodePort", free_port(c, t));
    }
    return 0;
}

/* Families of a cluster that has IPv4 only. */
static int set_families(struct call *c, struct val *v, struct val *spec)
{
    struct val *list = val_list(c->a);
    const char *policy = val_str_at(spec, "ipFamilyPolicy", "");
    bool headless = streq(val_str_at(spec, "clusterIP", ""), "None");
    bool selects = val_len(val_get(spec, "selector")) > 0;
    struct causes bad = {.a = c->a};

    schema_validate_service_ips(c->stored, v, &bad);
    if (bad.n)
        return fail_causes(c, &bad, val_str_at(v, "metadata.name", ""));
    bool single = streq(policy, "SingleStack") || (!*policy && !(headless && !selects));
    if (single && (val_len(val_get(spec, "ipFamilies")) > 1 || val_len(val_get(spec, "clusterIPs")) > 1))
        return fail_field(c, v, "spec.ipFamilyPolicy", policy,
                          "must be 'RequireDualStack' or 'PreferDualStack' when multiple values are specified");
    if (streq(policy, "RequireDualStack") && !headless)
        return fail_field(c, v, "spec.ipFamilyPolicy", policy,
                          "this cluster is not configured for dual-stack services");
    VAL_EACH(val_get(spec, "ipFamilies"), f)
        if (!streq(val_text(f, ""), "IPv4") && !(headless && !selects))
            return fail_field(c, v, "spec.ipFamilies[0]", val_text(f, ""),
                              "not configured on this cluster");
    if (!*policy)
        val_put_str(c->a, spec, "ipFamilyPolicy",
                    headless && !selects && !val_len(val_get(spec, "ipFamilies")) ? "RequireDualStack"
                                                                                  : "SingleStack");
    if (!val_len(val_get(spec, "ipFamilies"))) {
        val_push_str(c->a, list, "IPv4");
        if (headless && (streq(policy, "RequireDualStack") ||
                         (!selects && !streq(val_str_at(spec, "ipFamilyPolicy", ""), "SingleStack"))))
            val_push_str(c->a, list, "IPv6");
        val_put(c->a, spec, "ipFamilies", list);
    }
    return 0;
}

static bool same(const struct val *x, const struct val *y, const char *key)
{
    return val_get(x, key) && val_get(y, key) && val_equal(val_get(x, key), val_get(y, key));
}

static bool needs_health_port(const struct val *spec)
{
    return streq(val_str_at(spec, "type", ""), "LoadBalancer") &&
           streq(val_str_at(spec, "externalTrafficPolicy", ""), "Local");
}

static bool external(const struct val *spec)
{
    const char *type = val_str_at(spec, "type", "");

    return streq(type, "NodePort") || streq(type, "LoadBalancer") ||
           (streq(type, "ClusterIP") && val_len(val_get(spec, "externalIPs")));
}

/* What belonged to the type before and was not said anew goes with that type. */
static void drop_unneeded(struct call *c, struct val *spec, const struct val *was)
{
    const char *type = val_str_at(spec, "type", ""), *old_type = val_str_at(was, "type", "");
    bool balancer = streq(type, "LoadBalancer"), was_balancer = streq(old_type, "LoadBalancer");

    (void)c;
    if (!streq(old_type, "ExternalName") && streq(type, "ExternalName") &&
        same(spec, was, "clusterIP")) {
        val_del(spec, "clusterIP");
        val_del(spec, "clusterIPs");
        val_del(spec, "ipFamilies");
        val_del(spec, "ipFamilyPolicy");
    }
    if (streq(old_type, "ExternalName") && !streq(type, "ExternalName") && same(spec, was, "externalName"))
        val_del(spec, "externalName");
    if (wants_ports(was) && !wants_ports(spec)) {
        VAL_EACH(val_get(spec, "ports"), p)
            VAL_EACH(val_get(was, "ports"), q)
                if (val_int_at(p, "nodePort", 0) && val_int_at(p, "nodePort", 0) == val_int_at(q, "nodePort", 0))
                    val_del(p, "nodePort");
    }
    if (needs_health_port(was) && !needs_health_port(spec) && same(spec, was, "healthCheckNodePort"))
        val_del(spec, "healthCheckNodePort");
    if (was_balancer && !balancer && same(spec, was, "allocateLoadBalancerNodePorts"))
        val_del(spec, "allocateLoadBalancerNodePorts");
    if (was_balancer && !balancer && same(spec, was, "loadBalancerClass"))
        val_del(spec, "loadBalancerClass");
    if (external(was) && !external(spec) && same(spec, was, "externalTrafficPolicy"))
        val_del(spec, "externalTrafficPolicy");
    if (!streq(old_type, "ExternalName") && streq(type, "ExternalName"))
        val_del(spec, "internalTrafficPolicy");
}

/* What the client left out of an update stays as it was given before. */
static void keep_ports(struct call *c, struct val *spec, const struct val *was)
{
    if (!wants_ports(spec) || !wants_ports(was))
        return;
    VAL_EACH(val_get(spec, "ports"), p) {
        bool used = false;
        int64_t port = 0;

        if (val_int_at(p, "nodePort", 0))
            continue;
        VAL_EACH(val_get(was, "ports"), q)
            if (streq(val_str_at(q, "name", ""), val_str_at(p, "name", "")))
                port = val_int_at(q, "nodePort", 0);
        VAL_EACH(val_get(spec, "ports"), q)
            used |= port && val_int_at(q, "nodePort", 0) == port;
        if (port && !used)
            val_put_int(c->a, p, "nodePort", port);
    }
}

int service_admit_update(struct call *c, const char *sub, struct val *v, const struct obj *old)
{
    struct val *spec = val_need_map(c->a, v, "spec");
    const struct val *was = val_get(obj_val(old), "spec");
    bool external_now = streq(val_str_at(spec, "type", ""), "ExternalName");

    if (*sub)
        return 0;
    drop_unneeded(c, spec, was);
    if (!external_now && !*val_str_at(spec, "clusterIP", "") && *val_str_at(was, "clusterIP", "")) {
        val_put(c->a, spec, "clusterIP", val_get(was, "clusterIP"));
        if (val_get(was, "clusterIPs"))
            val_put(c->a, spec, "clusterIPs", val_get(was, "clusterIPs"));
    }
    if (!val_get(spec, "healthCheckNodePort") && val_int_at(was, "healthCheckNodePort", 0) &&
        needs_health_port(spec))
        val_put(c->a, spec, "healthCheckNodePort", val_get(was, "healthCheckNodePort"));
    keep_ports(c, spec, was);
    return 0;
}

int service_allocate(struct call *c, struct val *v, const struct obj *old)
{
    struct val *spec = val_need_map(c->a, v, "spec"), *list;
    const struct val *was = old ? val_get(obj_val(old), "spec") : NULL;
    const char *type = val_str_at(spec, "type", "ClusterIP"), *ip;
    struct taken t;

    if (c->sub)
        return 0;
    ip = val_str_at(spec, "clusterIP", "");
    if (was && !*ip && *val_str_at(was, "clusterIP", "") && same(spec, was, "clusterIPs"))
        val_del(spec, "clusterIPs");
    if (*ip && !val_len(val_get(spec, "clusterIPs"))) {
        list = val_list(c->a);
        val_push_str(c->a, list, ip);
        val_put(c->a, spec, "clusterIPs", list);
    }
    if (streq(type, "ExternalName"))
        return 0;
    if (set_families(c, v, spec) < 0)
        return -1;
    t = read_taken(c, c->path.ns, val_str_at(v, "metadata.name", ""));
    if (!(was && *val_str_at(was, "clusterIP", "")) && /* it never changes, which the rules say */
        allocate_ip(c, v, spec, &t) < 0)
        return -1;
    if (allocate_ports(c, v, spec, &t, old ? obj_val(old) : NULL) < 0)
        return -1;
    return 0;
}
