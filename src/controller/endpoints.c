/* Endpoints (the old form of EndpointSlices: one object per service, ready and not ready apart). */
#include "controller/endpoints.h"

#include "codec/selector.h"
#include "controller/pods.h"

/* ---- shared with endpointslice.c ---- */

bool service_selects(const struct obj *service)
{
    return val_len(val_at(obj_val(service), "spec.selector")) > 0 &&
           !streq(obj_str(service, "spec.type", ""), "ExternalName");
}

static const char *pod_ip(const struct obj *pod, const char *family)
{
    bool six = streq(family, "IPv6");
    const struct val *status = val_get(obj_val(pod), "status");

    VAL_EACH(val_get(status, "podIPs"), it) {
        const char *ip = val_str_at(it, "ip", "");

        if (*ip && (strchr(ip, ':') != NULL) == six)
            return ip;
    }
    if (!val_get(status, "podIPs")) {
        const char *ip = val_str_at(status, "podIP", "");

        if (*ip && (strchr(ip, ':') != NULL) == six)
            return ip;
    }
    return NULL;
}

/* The number of a named port of this pod, or -1. */
static int64_t port_number(const struct obj *pod, const struct val *service_port)
{
    const struct val *target = val_get(service_port, "targetPort");
    const char *protocol = val_str_at(service_port, "protocol", "TCP");

    if (!target || val_is(target, VAL_INT))
        return target && target->i ? target->i : val_int_at(service_port, "port", -1);
    VAL_EACH(val_at(obj_val(pod), "spec.containers"), c)
        VAL_EACH(val_get(c, "ports"), p)
            if (streq(val_str_at(p, "name", ""), val_text(target, "")) &&
                streq(val_str_at(p, "protocol", "TCP"), protocol))
                return val_int_at(p, "containerPort", -1);
    return -1;
}

static struct val *ports_of(struct arena *a, const struct obj *service, const struct obj *pod)
{
    struct val *ports = val_list(a);

    VAL_EACH(val_at(obj_val(service), "spec.ports"), sp) {
        int64_t number = port_number(pod, sp);
        struct val *p;

        if (number < 0)
            continue;
        p = val_push(a, ports, val_map(a));
        val_put_str(a, p, "name", val_str_at(sp, "name", ""));
        val_put_str(a, p, "protocol", val_str_at(sp, "protocol", "TCP"));
        val_put_int(a, p, "port", number);
        if (val_get(sp, "appProtocol"))
            val_put(a, p, "appProtocol", val_get(sp, "appProtocol"));
    }
    return ports;
}

static struct endpoint_group *group_for(struct arena *a, struct endpoint_groups *groups,
                                        struct val *ports)
{
    struct endpoint_group *more;

    for (uint32_t i = 0; i < groups->n; i++)
        if (val_equal(groups->v[i].ports, ports))
            return &groups->v[i];
    more = arena_array(a, struct endpoint_group, groups->n + 1);
    if (groups->n)
        memcpy(more, groups->v, groups->n * sizeof *more);
    more[groups->n].ports = ports;
    groups->v = more;
    return &groups->v[groups->n++];
}

static void group_add(struct arena *a, struct endpoint_group *g, const struct endpoint *e)
{
    if (g->n == g->cap) {
        struct endpoint *v = arena_array(a, struct endpoint, g->cap ? 2 * g->cap : 16);

        if (g->n)
            memcpy(v, g->v, g->n * sizeof *v);
        g->v = v;
        g->cap = g->cap ? 2 * g->cap : 16;
    }
    g->v[g->n++] = *e;
}

struct endpoint_groups endpoints_of(struct ctl *ctl, const struct obj *service, const char *family)
{
    const struct val *spec = val_get(obj_val(service), "spec");
    bool unready_too = val_bool_at(spec, "publishNotReadyAddresses", false);
    struct objs pods = ctl_list(ctl, K_POD, service->namespace_);
    struct endpoint_groups groups = {0};

    for (uint32_t i = 0; i < pods.n; i++) {
        const struct obj *pod = pods.v[i];
        const struct val *pod_spec = val_get(obj_val(pod), "spec");
        struct endpoint e = {.pod = pod, .node = pod_node(pod), .hostname = ""};

        if (!labels_contain(val_get(obj_meta(pod), "labels"), val_get(spec, "selector")) ||
            pod_finished(pod) || !(e.ip = pod_ip(pod, family)))
            continue;
        e.terminating = obj_deleting(pod);
        e.serving = pod_ready(pod);
        e.ready = unready_too || (e.serving && !e.terminating);
        if (streq(val_str_at(pod_spec, "subdomain", ""), service->name))
            e.hostname = val_str_at(pod_spec, "hostname", "");
        group_add(ctl->arena, group_for(ctl->arena, &groups, ports_of(ctl->arena, service, pod)), &e);
    }
    return groups;
}

bool endpoint_pod_differs(const struct obj *was, const struct obj *now)
{
    if (!was || !now)
        return true;
    return pod_ready(was) != pod_ready(now) || obj_deleting(was) != obj_deleting(now) ||
           pod_finished(was) != pod_finished(now) || !streq(pod_node(was), pod_node(now)) ||
           !val_equal(val_at(obj_val(was), "status.podIPs"), val_at(obj_val(now), "status.podIPs")) ||
           !streq(obj_str(was, "status.podIP", ""), obj_str(now, "status.podIP", "")) ||
           !val_equal(val_get(obj_meta(was), "labels"), val_get(obj_meta(now), "labels"));
}

void endpoints_want_services(struct ctl *ctl, const struct obj *was, const struct obj *now)
{
    const struct obj *pod = now ? now : was;
    struct objs services;

    if (!endpoint_pod_differs(was, now))
        return;
    services = ctl_list(ctl, K_SERVICE, pod->namespace_);
    for (uint32_t i = 0; i < services.n; i++) {
        const struct val *selector = val_at(obj_val(services.v[i]), "spec.selector");

        if (!service_selects(services.v[i]))
            continue;
        if ((was && labels_contain(val_get(obj_meta(was), "labels"), selector)) ||
            (now && labels_contain(val_get(obj_meta(now), "labels"), selector)))
            ctl_want_obj(ctl, services.v[i]);
    }
}

/* ---- Endpoints ---- */

enum { ADDRESSES_MAX = 1000 };

static int by_ip(const void *x, const void *y)
{
    return strcmp(((const struct endpoint *)x)->ip, ((const struct endpoint *)y)->ip);
}

static struct val *address(struct arena *a, const struct endpoint *e)
{
    struct val *v = val_map(a), *ref;

    val_put_str(a, v, "ip", e->ip);
    if (*e->hostname)
        val_put_str(a, v, "hostname", e->hostname);
    if (*e->node)
        val_put_str(a, v, "nodeName", e->node);
    ref = val_need_map(a, v, "targetRef");
    val_put_str(a, ref, "kind", "Pod");
    val_put_str(a, ref, "namespace", e->pod->namespace_);
    val_put_str(a, ref, "name", e->pod->name);
    val_put_str(a, ref, "uid", e->pod->uid);
    return v;
}

static struct val *subset(struct arena *a, struct endpoint_group *g, uint32_t *room)
{
    struct val *v = val_map(a), *ports = val_list(a);

    qsort(g->v, g->n, sizeof *g->v, by_ip);
    for (uint32_t i = 0; i < g->n && *room; i++) {
        if (g->v[i].terminating && !g->v[i].ready)
            continue; /* the old form has no word for them */
        val_push(a, val_need_list(a, v, g->v[i].ready ? "addresses" : "notReadyAddresses"),
                 address(a, &g->v[i]));
        --*room;
    }
    VAL_EACH(g->ports, p) { /* an empty name is left out here, and spelled out in slices */
        struct val *copy = val_copy(a, p);

        if (!*val_str_at(copy, "name", ""))
            val_del(copy, "name");
        val_push(a, ports, copy);
    }
    if (val_len(ports))
        val_put(a, v, "ports", ports);
    return v;
}

static struct val *subsets_of(struct ctl *ctl, const struct obj *service, bool *ret_cut)
{
    const char *family = val_str_at(obj_val(service), "spec.ipFamilies[0]", "IPv4");
    struct endpoint_groups groups = endpoints_of(ctl, service, family);
    bool headless = streq(obj_str(service, "spec.clusterIP", ""), "None");
    struct val *list = val_list(ctl->arena);
    uint32_t room = ADDRESSES_MAX, all = 0;

    for (uint32_t i = 0; i < groups.n; i++) {
        struct val *s;

        all += groups.v[i].n;
        if (!val_len(groups.v[i].ports) && !headless)
            continue; /* no port of it leads anywhere */
        s = subset(ctl->arena, &groups.v[i], &room);
        if (val_get(s, "addresses") || val_get(s, "notReadyAddresses"))
            val_push(ctl->arena, list, s);
    }
    *ret_cut = all > ADDRESSES_MAX;
    return list;
}

static enum again endpoints_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *service = ctl_get_key(ctl, K_SERVICE, key);
    const struct obj *ep = ctl_get_key(ctl, K_ENDPOINTS, key);
    struct arena *a = ctl->arena;
    struct val *subsets, *v, *meta, *labels;
    bool cut;

    if (!service)
        return ep && obj_label(ep, "endpoints.kubernetes.io/managed-by") &&
                       ctl_delete(ctl, K_ENDPOINTS, ep, NULL, -1, err) < 0
                   ? RETRY
                   : DONE;
    if (!service_selects(service))
        return DONE; /* somebody writes them by hand */
    subsets = subsets_of(ctl, service, &cut);
    v = ep ? obj_edit(ep, a) : val_map(a);
    meta = val_need_map(a, v, "metadata");
    val_put_str(a, meta, "name", service->name);
    labels = val_get(obj_meta(service), "labels") ? val_copy(a, val_get(obj_meta(service), "labels"))
                                                  : val_map(a);
    val_put_str(a, labels, "endpoints.kubernetes.io/managed-by", "endpoint-controller");
    if (streq(obj_str(service, "spec.clusterIP", ""), "None"))
        val_put_str(a, labels, "service.kubernetes.io/headless", "");
    else
        val_del(labels, "service.kubernetes.io/headless");
    val_put(a, meta, "labels", labels);
    if (cut)
        val_put_str(a, val_need_map(a, meta, "annotations"), "endpoints.kubernetes.io/over-capacity",
                    "truncated");
    if (val_len(subsets))
        val_put(a, v, "subsets", subsets);
    else
        val_del(v, "subsets");
    if (ep && val_equal(obj_val(ep), v))
        return DONE;
    if (ep ? !ctl_update(ctl, K_ENDPOINTS, v, err)
           : !ctl_create(ctl, K_ENDPOINTS, service->namespace_, v, err)) {
        const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", service->namespace_);

        return !ns || obj_deleting(ns) ? DONE : RETRY;
    }
    return DONE;
}

static void endpoints_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                              const struct obj *now)
{
    if (kind == K_POD)
        endpoints_want_services(ctl, was, now);
    else
        ctl_want_obj(ctl, now ? now : was);
}

extern const struct controller endpoints_controller;
const struct controller endpoints_controller = {
    .name = "endpoints",
    .component = "endpoint-controller",
    .reconcile = endpoints_reconcile,
    .changed = endpoints_changed,
    .kinds = KIND_BIT(K_SERVICE) | KIND_BIT(K_POD) | KIND_BIT(K_ENDPOINTS),
};
