/* EndpointSlices: the pods behind each service, at most 100 a slice, one set of slices per address
 * family and per set of port numbers. And mirrors of Endpoints that somebody writes by hand for a
 * service without a selector: readers of services look at slices only.
 *
 * Slices that are right already stay as they are; a pod that comes or goes changes one slice. */
#include <stdio.h>

#include "controller/endpoints.h"
#include "controller/pods.h"

enum { SLICE_MAX = 100 };
#define SERVICE_NAME "kubernetes.io/service-name"
#define MANAGED_BY "endpointslice.kubernetes.io/managed-by"
#define US "endpointslice-controller.k8s.io"
#define MIRROR "endpointslicemirroring-controller.k8s.io"

struct wanted {
    struct val *ports;
    const char *family;
    struct val **endpoints;
    uint32_t n;
};
struct pass {
    struct ctl *ctl;
    const struct obj *service, *owner; /* owner: the service, or the Endpoints that is mirrored */
    enum kind owner_kind;
    const char *manager;
    struct objs slices; /* ours */
    bool *used;
};

static struct val *endpoint_val(struct ctl *ctl, const struct endpoint *e)
{
    struct arena *a = ctl->arena;
    struct val *v = val_map(a), *c, *ref;
    const struct obj *node;

    val_push_str(a, val_need_list(a, v, "addresses"), e->ip);
    c = val_need_map(a, v, "conditions");
    val_put_bool(a, c, "ready", e->ready);
    val_put_bool(a, c, "serving", e->serving);
    val_put_bool(a, c, "terminating", e->terminating);
    if (*e->hostname)
        val_put_str(a, v, "hostname", e->hostname);
    if (*e->node) {
        val_put_str(a, v, "nodeName", e->node);
        node = ctl_get(ctl, K_NODE, "", e->node);
        if (node && obj_label(node, "topology.kubernetes.io/zone"))
            val_put_str(a, v, "zone", obj_label(node, "topology.kubernetes.io/zone"));
    }
    ref = val_need_map(a, v, "targetRef");
    val_put_str(a, ref, "kind", "Pod");
    val_put_str(a, ref, "namespace", e->pod->namespace_);
    val_put_str(a, ref, "name", e->pod->name);
    val_put_str(a, ref, "uid", e->pod->uid);
    return v;
}

static struct val *labels_of(struct pass *p)
{
    struct arena *a = p->ctl->arena;
    const struct val *own = val_get(obj_meta(p->owner), "labels");
    struct val *labels = val_map(a);

    VAL_EACH_MEMBER(own, m)
        if (!streq(m->key, "endpoints.kubernetes.io/managed-by"))
            val_put(a, labels, m->key, &m->v);
    if (p->service && streq(obj_str(p->service, "spec.clusterIP", ""), "None"))
        val_put_str(a, labels, "service.kubernetes.io/headless", "");
    else
        val_del(labels, "service.kubernetes.io/headless");
    val_put_str(a, labels, SERVICE_NAME, p->owner->name);
    val_put_str(a, labels, MANAGED_BY, p->manager);
    return labels;
}

static int write_slice(struct pass *p, const struct obj *old, const struct wanted *w,
                       struct val **endpoints, uint32_t n, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct val *v = old ? obj_edit(old, a) : val_map(a), *meta;
    struct val *list = val_list(a);

    for (uint32_t i = 0; i < n; i++)
        val_push(a, list, endpoints[i]);
    if (!old)
        val_put_str(a, v, "addressType", w->family);
    meta = val_need_map(a, v, "metadata"); /* good until the next put to v */
    if (!old) {
        val_put(a, meta, "generateName", val_printf(a, "%s-", p->owner->name));
        val_push(a, val_need_list(a, meta, "ownerReferences"),
                 owner_reference(a, p->owner_kind, p->owner));
    }
    val_put(a, meta, "labels", labels_of(p));
    val_put(a, v, "ports", w->ports);
    val_put(a, v, "endpoints", list);
    if (old && val_equal(v, obj_val(old)))
        return 0;
    return old ? (ctl_update(p->ctl, K_ENDPOINTSLICE, v, err) ? 0 : -1)
               : (ctl_create(p->ctl, K_ENDPOINTSLICE, p->owner->namespace_, v, err) ? 0 : -1);
}

static bool same_address(const struct val *x, const struct val *y)
{
    return streq(val_str_at(x, "addresses[0]", ""), val_str_at(y, "addresses[0]", "")) &&
           streq(val_str_at(x, "targetRef.uid", ""), val_str_at(y, "targetRef.uid", ""));
}

/* No ports at all may be stored as null: pods without the port that a service names. */
static bool same_ports(const struct val *x, const struct val *y)
{
    return (!val_len(x) && !val_len(y)) || val_equal(x, y);
}

/* Endpoints keep the slice they are in; free places are filled before a new slice is made. */
static int write_group(struct pass *p, struct wanted *w, struct err *err)
{
    struct arena *a = p->ctl->arena;
    uint32_t slices = p->slices.n, left = w->n;
    struct val ***kept = arena_array(a, struct val **, slices + 1);
    uint32_t *kept_n = arena_array(a, uint32_t, slices + 1);
    bool *placed = arena_array(a, bool, w->n + 1);
    uint32_t next = 0;

    for (uint32_t s = 0; s < slices; s++) {
        const struct val *v = obj_val(p->slices.v[s]);

        if (p->used[s] || !streq(val_str_at(v, "addressType", ""), w->family) ||
            !same_ports(val_get(v, "ports"), w->ports))
            continue;
        p->used[s] = true;
        kept[s] = arena_array(a, struct val *, SLICE_MAX);
        VAL_EACH(val_get(v, "endpoints"), e)
            for (uint32_t i = 0; i < w->n && kept_n[s] < SLICE_MAX; i++)
                if (!placed[i] && same_address(e, w->endpoints[i])) {
                    kept[s][kept_n[s]++] = w->endpoints[i];
                    placed[i] = true;
                    left--;
                    break;
                }
    }
    for (uint32_t s = 0; s < slices; s++) {
        if (!kept[s])
            continue;
        for (; left && kept_n[s] < SLICE_MAX; left--) {
            while (placed[next])
                next++;
            kept[s][kept_n[s]++] = w->endpoints[next];
            placed[next] = true;
        }
        if (kept_n[s] == 0 && w->n > 0) {
            p->used[s] = false; /* others hold them all: this one goes */
            continue;
        }
        if (write_slice(p, p->slices.v[s], w, kept[s], kept_n[s], err) < 0)
            return -1;
        if (w->n == 0)
            return 0;
    }
    do {
        struct val **some = arena_array(a, struct val *, SLICE_MAX);
        uint32_t n = 0;

        if (!left && w->n)
            break;
        for (; left && n < SLICE_MAX; left--) {
            while (placed[next])
                next++;
            some[n++] = w->endpoints[next];
            placed[next] = true;
        }
        if (write_slice(p, NULL, w, some, n, err) < 0)
            return -1;
    } while (left);
    return 0;
}

static int write_family(struct pass *p, const char *family, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct endpoint_groups groups = endpoints_of(p->ctl, p->service, family);
    struct wanted w = {.family = family};
    bool any = false;

    for (uint32_t i = 0; i < groups.n; i++) {
        struct endpoint_group *g = &groups.v[i];

        w.ports = g->ports;
        w.endpoints = arena_array(a, struct val *, g->n + 1);
        w.n = g->n;
        for (uint32_t k = 0; k < g->n; k++)
            w.endpoints[k] = endpoint_val(p->ctl, &g->v[k]);
        if (write_group(p, &w, err) < 0)
            return -1;
        any = true;
    }
    if (any)
        return 0;
    for (uint32_t s = 0; s < p->slices.n; s++) /* nobody: one empty slice says so */
        if (!p->used[s] && streq(val_str_at(obj_val(p->slices.v[s]), "addressType", ""), family)) {
            p->used[s] = true;
            w.ports = val_list(a);
            return write_slice(p, p->slices.v[s], &w, NULL, 0, err);
        }
    w.ports = val_list(a);
    return write_slice(p, NULL, &w, NULL, 0, err);
}

/* ---- mirrored Endpoints ---- */

static void mirror_addresses(struct arena *a, const struct val *addresses, bool ready, struct wanted *w)
{
    VAL_EACH(addresses, ad) {
        struct val *v = val_map(a);
        bool six = strchr(val_str_at(ad, "ip", ""), ':');

        if (six != streq(w->family, "IPv6"))
            continue;
        val_push_str(a, val_need_list(a, v, "addresses"), val_str_at(ad, "ip", ""));
        val_put_bool(a, val_need_map(a, v, "conditions"), "ready", ready);
        if (val_get(ad, "hostname"))
            val_put(a, v, "hostname", val_get(ad, "hostname"));
        if (val_get(ad, "nodeName"))
            val_put(a, v, "nodeName", val_get(ad, "nodeName"));
        if (val_get(ad, "targetRef"))
            val_put(a, v, "targetRef", val_get(ad, "targetRef"));
        w->endpoints[w->n++] = v;
    }
}

static int mirror_endpoints(struct pass *p, struct err *err)
{
    static const char *const families[] = {"IPv4", "IPv6"};
    struct arena *a = p->ctl->arena;

    VAL_EACH(val_get(obj_val(p->owner), "subsets"), s)
        for (int f = 0; f < 2; f++) {
            const struct val *yes = val_get(s, "addresses"), *no = val_get(s, "notReadyAddresses");
            struct wanted w = {.family = families[f], .ports = val_list(a)};

            w.endpoints = arena_array(a, struct val *, val_len(yes) + val_len(no) + 1);
            mirror_addresses(a, yes, true, &w);
            mirror_addresses(a, no, false, &w);
            VAL_EACH(val_get(s, "ports"), port) {
                struct val *copy = val_copy(a, port);

                if (!val_get(copy, "name"))
                    val_put_str(a, copy, "name", "");
                val_push(a, w.ports, copy);
            }
            if (w.n && write_group(p, &w, err) < 0)
                return -1;
        }
    return 0;
}

/* ---- the pass ---- */

static void list_slices(struct pass *p, struct ctl *ctl, const char *ns, const char *name)
{
    struct objs all = ctl_list(ctl, K_ENDPOINTSLICE, ns);

    p->slices = (struct objs){0};
    for (uint32_t i = 0; i < all.n; i++) {
        const char *by = obj_label(all.v[i], MANAGED_BY);

        if (streq0(obj_label(all.v[i], SERVICE_NAME), name) && by &&
            (streq(by, US) || streq(by, MIRROR)) && !obj_deleting(all.v[i]))
            objs_add(ctl->arena, &p->slices, all.v[i]);
    }
    p->used = arena_array(ctl->arena, bool, p->slices.n + 1);
}

static int drop_unused(struct pass *p, struct err *err)
{
    for (uint32_t s = 0; s < p->slices.n; s++)
        if (!p->used[s] && ctl_delete(p->ctl, K_ENDPOINTSLICE, p->slices.v[s], NULL, -1, err) < 0)
            return -1;
    return 0;
}

static int write_all(struct pass *p, const char *key, struct err *err)
{
    const struct obj *ep;

    if (p->service && service_selects(p->service)) {
        const struct val *families = val_at(obj_val(p->service), "spec.ipFamilies");

        p->owner = p->service;
        p->owner_kind = K_SERVICE;
        p->manager = US;
        if (!val_len(families))
            return write_family(p, "IPv4", err);
        VAL_EACH(families, f)
            if (write_family(p, val_text(f, "IPv4"), err) < 0)
                return -1;
        return 0;
    }
    ep = p->service ? ctl_get_key(p->ctl, K_ENDPOINTS, key) : NULL;
    if (!ep || streq(key, "default/kubernetes") || /* the API server's own, slices and all */
        streq(obj_str(p->service, "spec.type", ""), "ExternalName") ||
        streq0(obj_label(ep, "endpointslice.kubernetes.io/skip-mirror"), "true") ||
        obj_annotation(ep, "control-plane.alpha.kubernetes.io/leader"))
        return 0;
    p->owner = ep;
    p->owner_kind = K_ENDPOINTS;
    p->manager = MIRROR;
    return mirror_endpoints(p, err);
}

static enum again endpointslice_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .service = ctl_get_key(ctl, K_SERVICE, key)};
    char buf[CLIENT_KEY_BYTES];
    const char *ns_name, *name;
    const struct obj *ns;

    client_key_split(key, buf, &ns_name, &name);
    list_slices(&p, ctl, ns_name, name);
    if (p.service && obj_deleting(p.service))
        return DONE;
    if (write_all(&p, key, err) < 0 || drop_unused(&p, err) < 0) {
        ns = ctl_get(ctl, K_NAMESPACE, "", ns_name);
        if (!ns || obj_deleting(ns))
            return DONE;
        if (p.service && err->code != ERR_CONFLICT)
            ctl_event(ctl, p.service, "Warning", "FailedToUpdateEndpointSlices",
                      "Error updating Endpoint Slices for Service %s: %s", key, err->msg);
        return RETRY;
    }
    return DONE;
}

static void endpointslice_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                                  const struct obj *now)
{
    const struct obj *o = now ? now : was;

    if (kind == K_POD) {
        endpoints_want_services(ctl, was, now);
    } else if (kind == K_ENDPOINTSLICE) {
        const char *by = obj_label(o, MANAGED_BY), *service = obj_label(o, SERVICE_NAME);

        if (by && service && (streq(by, US) || streq(by, MIRROR)))
            ctl_want(ctl, o->namespace_, service);
    } else {
        ctl_want_obj(ctl, o);
    }
}

extern const struct controller endpointslice_controller;
const struct controller endpointslice_controller = {
    .name = "endpointslice",
    .component = "endpoint-slice-controller",
    .reconcile = endpointslice_reconcile,
    .changed = endpointslice_changed,
    .kinds = KIND_BIT(K_SERVICE) | KIND_BIT(K_POD) | KIND_BIT(K_ENDPOINTSLICE) | KIND_BIT(K_ENDPOINTS),
};
