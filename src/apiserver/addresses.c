/* apiserver/addresses.c - an IPAddress object for each address that a service holds.
 *
 * They follow the services (a watch on the head): a service that comes has its addresses at once,
 * one that goes or changes gives them back, whoever changed it. At the start both are compared and
 * what is missing or left over is mended. An IPAddress that somebody made by hand is left alone, and
 * its address is not given to a service. */
#include "apiserver/hooks.h"

#include "base/log.h"

#include <arpa/inet.h>

#define MANAGED_BY "ipaddress.kubernetes.io/managed-by"
#define FAMILY "ipaddress.kubernetes.io/ip-family"
#define US "ipallocator.k8s.io"

static struct store_table *table(struct api *api)
{
    return table_named(api->store, "networking.k8s.io", "ipaddresses");
}

/* The addresses of a service, "None" and none left out. */
static uint32_t ips_of(const struct obj *service, const char *ret[4])
{
    const struct val *spec = service ? val_get(obj_val(service), "spec") : NULL;
    uint32_t n = 0;

    if (!spec || streq(val_str_at(spec, "type", ""), "ExternalName"))
        return 0;
    VAL_EACH(val_get(spec, "clusterIPs"), ip)
        if (n < 4 && *val_text(ip, "") && !streq(val_text(ip, ""), "None"))
            ret[n++] = val_text(ip, "");
    return n;
}

static bool held_by(const struct obj *address, const struct obj *service)
{
    const struct val *ref = val_at(obj_val(address), "spec.parentRef");

    return streq(val_str_at(ref, "resource", ""), "services") && !*val_str_at(ref, "group", "") &&
           streq(val_str_at(ref, "namespace", ""), service->namespace_) &&
           streq(val_str_at(ref, "name", ""), service->name);
}

static void make(struct api *api, const char *ip, const struct obj *service)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *meta, *labels, *ref;
    char uuid[ENV_UUID_BYTES];
    struct err err = {0};
    const struct obj *o;

    if (store_get(api->store, table(api), "", ip))
        return;
    val_put_str(a, v, "apiVersion", "networking.k8s.io/v1");
    val_put_str(a, v, "kind", "IPAddress");
    meta = val_map(a);
    val_put_str(a, meta, "name", ip);
    val_put_str(a, meta, "uid", env_uuid(api->env, uuid));
    val_put_int(a, meta, "generation", 1);
    val_put_str(a, meta, "creationTimestamp", time_text(a, env_now_ms(api->env) * 1000, false));
    labels = val_map(a);
    val_put_str(a, labels, FAMILY, strchr(ip, ':') ? "IPv6" : "IPv4");
    val_put_str(a, labels, MANAGED_BY, US);
    val_put(a, meta, "labels", labels);
    val_put(a, v, "metadata", meta);
    ref = val_need_map(a, val_need_map(a, v, "spec"), "parentRef");
    val_put_str(a, ref, "resource", "services");
    val_put_str(a, ref, "namespace", service->namespace_);
    val_put_str(a, ref, "name", service->name);
    o = obj_seal(v, store_next_revision(api->store));
    if (store_put(api->store, table(api), o, STORE_ABSENT, 0, &err) < 0)
        LOG(WARN, "api", "address=%s service=%s/%s did=note failed=\"%s\"", ip, service->namespace_, service->name, err.msg);
    obj_unref(o);
}

static void drop(struct api *api, const struct obj *address)
{
    const struct obj *last = obj_seal(obj_val(address), store_next_revision(api->store));
    struct err err = {0};

    if (store_delete(api->store, table(api), "", last->name, STORE_ANY, last, &err) < 0)
        LOG(WARN, "api", "address=%s did=drop failed=\"%s\"", last->name, err.msg);
    obj_unref(last);
}

static void give_back(struct api *api, const char *ip, const struct obj *service)
{
    const struct obj *o = store_get(api->store, table(api), "", ip);

    if (o && held_by(o, service))
        drop(api, o);
}

static bool among(const char *ip, const char *const *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (streq(list[i], ip))
            return true;
    return false;
}

static void service_event(void *arg, const struct store_event *ev)
{
    struct api *api = arg;
    const char *now[4], *was[4];
    uint32_t now_n, was_n;

    if (ev->type == STORE_EXPIRED)
        return;
    now_n = ev->type == STORE_DELETED ? 0 : ips_of(ev->obj, now);
    was_n = ips_of(ev->type == STORE_DELETED ? ev->obj : ev->prev, was);
    for (uint32_t i = 0; i < was_n; i++)
        if (!among(was[i], now, now_n))
            give_back(api, was[i], ev->obj);
    for (uint32_t i = 0; i < now_n; i++)
        make(api, now[i], ev->obj);
}

/* What lies there from before: each service has its objects, none is of a service that is gone. */
static int repair(struct api *api, struct err *err)
{
    struct store_table *services = table_named(api->store, "", "services");
    struct store_iter it;
    const struct obj *o;

    if (store_iter_init(&it, api->store, services, NULL, 0, NULL, NULL, err) < 0)
        return -1;
    while ((o = store_iter_next(&it))) {
        const char *ips[4];
        uint32_t n = ips_of(o, ips);

        for (uint32_t i = 0; i < n; i++)
            make(api, ips[i], o);
    }
    store_iter_done(&it);
    if (store_iter_init(&it, api->store, table(api), NULL, 0, NULL, NULL, err) < 0)
        return -1;
    while ((o = store_iter_next(&it))) {
        const struct val *ref = val_at(obj_val(o), "spec.parentRef");
        const struct obj *service;
        const char *ips[4];

        if (!streq0(obj_label(o, MANAGED_BY), US))
            continue;
        service = store_get(api->store, services, val_str_at(ref, "namespace", ""), val_str_at(ref, "name", ""));
        if (!service || !among(o->name, ips, ips_of(service, ips)))
            drop(api, o);
    }
    store_iter_done(&it);
    return 0;
}

int addresses_start(struct api *api, struct err *err)
{
    if (repair(api, err) < 0)
        return -1;
    api->services = store_watch(api->store, table_named(api->store, "", "services"), 0, STORE_WATCH_HEAD, service_event,
                                api, err);
    return api->services ? 0 : -1;
}

void addresses_stop(struct api *api)
{
    api->services = store_watch_free(api->services);
}

bool address_taken(struct api *api, const char *ip, const char *ns, const char *service)
{
    const struct obj *o = store_get(api->store, table(api), "", ip);
    const struct val *ref = o ? val_at(obj_val(o), "spec.parentRef") : NULL;

    return o && !(streq(val_str_at(ref, "resource", ""), "services") && streq(val_str_at(ref, "namespace", ""), ns) &&
                  streq(val_str_at(ref, "name", ""), service));
}

/* ---- more ranges ---- */

static bool cidr_parse(const char *text, uint32_t *ret_net, uint32_t *ret_hosts)
{
    char ip[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    struct in_addr a;
    int bits = slash ? atoi(slash + 1) : -1;

    if (!slash || bits < 8 || bits > 32 || (size_t)(slash - text) >= sizeof ip)
        return false;
    memcpy(ip, text, (size_t)(slash - text));
    ip[slash - text] = 0;
    if (inet_pton(AF_INET, ip, &a) != 1)
        return false;
    *ret_hosts = bits == 32 ? 1 : 1u << (32 - bits);
    *ret_net = ntohl(a.s_addr) & ~(*ret_hosts - 1);
    return true;
}

/* Calls fn with each range that services may be given addresses of, until it says true. */
static bool each_range(struct api *api, bool (*fn)(void *arg, uint32_t net, uint32_t hosts), void *arg)
{
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    bool found = false;

    if (store_iter_init(&it, api->store, table_named(api->store, "networking.k8s.io", "servicecidrs"), NULL, 0, NULL, NULL,
                        &err) < 0)
        return false;
    while (!found && (o = store_iter_next(&it))) {
        if (obj_deleting(o))
            continue;
        VAL_EACH(val_at(obj_val(o), "spec.cidrs"), c) {
            uint32_t net, hosts;

            if (!found && cidr_parse(val_text(c, ""), &net, &hosts))
                found = fn(arg, net, hosts);
        }
    }
    store_iter_done(&it);
    return found;
}

static bool holds(void *arg, uint32_t net, uint32_t hosts)
{
    uint32_t ip = *(const uint32_t *)arg;

    if (ip < net || ip - net >= hosts)
        return false;
    return hosts < 4 || (ip != net && ip != net + hosts - 1); /* the network, the last one */
}

bool address_in_range(struct api *api, uint32_t ip)
{
    return each_range(api, holds, &ip);
}

struct search {
    struct api *api;
    char text[INET_ADDRSTRLEN];
};

static bool find_free(void *arg, uint32_t net, uint32_t hosts)
{
    enum { TRIES = 65536 };
    struct search *s = arg;
    uint32_t from = hosts > 4 ? 1 + env_below(s->api->env, hosts - 2) : 0;

    if (net == s->api->service_net) /* that one is full: this is why we are asked */
        return false;
    for (uint32_t i = 0; i < hosts && i < TRIES; i++) {
        uint32_t ip = net + (from + i) % hosts;
        struct in_addr a = {.s_addr = htonl(ip)};

        if (hosts >= 4 && (ip == net || ip == net + hosts - 1))
            continue;
        inet_ntop(AF_INET, &a, s->text, sizeof s->text);
        if (!store_get(s->api->store, table(s->api), "", s->text))
            return true;
    }
    return false;
}

const char *address_elsewhere(struct api *api, struct arena *a)
{
    struct search s = {.api = api};

    return each_range(api, find_free, &s) ? arena_strdup(a, s.text) : NULL;
}
