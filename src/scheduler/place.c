#include "scheduler/place.h"

#include <stdio.h>

#include "base/buf.h"
#include "codec/quantity.h"
#include "codec/selector.h"
#include "scheduler/devices.h"
#include "scheduler/place_int.h"

/* ---- filters: NULL, or the reason ---- */

/* {key: node.kubernetes.io/unschedulable, effect: NoSchedule} */
static struct val_member cordon_members[] = {
    {"key", 3, {.type = VAL_STR, .n = 32, .s = "node.kubernetes.io/unschedulable"}},
    {"effect", 6, {.type = VAL_STR, .n = 10, .s = "NoSchedule"}},
};
static const struct val cordon = {.type = VAL_MAP, .n = 2, .members = cordon_members};

static const char *not_scheduled_there(struct work *w, struct node_info *n)
{
    if (!val_bool_at(obj_val(n->node), "spec.unschedulable", false))
        return NULL;
    VAL_EACH(val_get(w->spec, "tolerations"), t)
        if (tolerates(t, &cordon))
            return NULL;
    return "node(s) were unschedulable";
}

static const char *wrong_name(struct work *w, struct node_info *n)
{
    const char *name = val_str_at(w->spec, "nodeName", "");

    return *name && !streq(name, n->name) ? "node(s) didn't match the requested node name" : NULL;
}

bool tolerates(const struct val *toleration, const struct val *taint)
{
    const char *effect = val_str_at(toleration, "effect", "");
    const char *key = val_str_at(toleration, "key", "");

    if (*effect && !streq(effect, val_str_at(taint, "effect", "")))
        return false;
    if (*key && !streq(key, val_str_at(taint, "key", "")))
        return false;
    if (streq(val_str_at(toleration, "operator", "Equal"), "Exists"))
        return true;
    return *key && streq(val_str_at(toleration, "value", ""), val_str_at(taint, "value", ""));
}

static const char *tainted(struct work *w, struct node_info *n)
{
    VAL_EACH(val_at(obj_val(n->node), "spec.taints"), taint) {
        bool borne = streq(val_str_at(taint, "effect", ""), "PreferNoSchedule");

        VAL_EACH(val_get(w->spec, "tolerations"), t)
            borne = borne || tolerates(t, taint);
        if (!borne)
            return arena_printf(w->p->arena, "node(s) had untolerated taint {%s: %s}",
                                val_str_at(taint, "key", ""), val_str_at(taint, "value", ""));
    }
    return NULL;
}

bool node_wanted(const struct work *w, const struct node_info *n)
{
    const struct val *labels = val_get(obj_meta(n->node), "labels");

    return labels_contain(labels, val_get(w->spec, "nodeSelector")) &&
           node_selector_matches(
               val_at(w->spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
               labels, n->name);
}

static const char *not_wanted(struct work *w, struct node_info *n)
{
    return node_wanted(w, n) ? NULL : "node(s) didn't match Pod's node affinity/selector";
}

static bool ports_clash(const struct host_port *x, const struct host_port *y)
{
    bool any = !*x->ip || streq(x->ip, "0.0.0.0") || !*y->ip || streq(y->ip, "0.0.0.0");

    return x->port == y->port && streq(x->protocol, y->protocol) && (any || streq(x->ip, y->ip));
}

static const char *port_taken(struct work *w, struct node_info *n)
{
    for (uint32_t i = 0; i < w->ports_n; i++)
        LIST_EACH(&n->pods, l) {
            const struct placed *other = list_entry(l, struct placed, on_node);

            for (uint32_t k = 0; k < other->ports_n; k++)
                if (ports_clash(&w->ports[i], &other->ports[k]))
                    return "node(s) didn't have free ports for the requested pod ports";
        }
    return NULL;
}

static const char *too_small(struct work *w, struct node_info *n)
{
    if (n->used.v[RES_PODS] + 1 > n->has.v[RES_PODS])
        return "Too many pods";
    if (w->unknown)
        return arena_printf(w->p->arena, "Insufficient %s", w->unknown);
    for (int r = 0; r < RES_MAX; r++)
        if (w->asks.v[r] > 0 && r != RES_PODS && w->asks.v[r] > n->has.v[r] - n->used.v[r])
            return arena_printf(w->p->arena, "Insufficient %s", cache_resource_name(w->p->cache, r));
    return NULL;
}

static const char *volume_elsewhere(struct work *w, struct node_info *n)
{
    const struct claims *c = w->p->claims;
    const struct val *labels = val_get(obj_meta(n->node), "labels");

    for (uint32_t i = 0; c && i < c->n; i++) {
        const struct claim *k = &c->v[i];
        const char *class_name = k->pvc ? val_str_at(obj_val(k->pvc), "spec.storageClassName", "") : "";
        bool near = false;

        if (k->pv) {
            if (!node_selector_matches(val_at(obj_val(k->pv), "spec.nodeAffinity.required"), labels,
                                       n->name))
                return "node(s) didn't match PersistentVolume's node affinity";
            continue;
        }
        if (!k->class_ || !streq(val_str_at(obj_val(k->class_), "provisioner", ""),
                                 "kubernetes.io/no-provisioner"))
            continue; /* one will be made where the pod goes */
        for (uint32_t f = 0; f < c->free_n && !near; f++) {
            const struct val *spec = val_get(obj_val(c->free_volumes[f]), "spec");

            near = streq(val_str_at(spec, "storageClassName", ""), class_name) &&
                   quantity_of(val_at(spec, "capacity.storage")) >=
                       quantity_of(val_at(obj_val(k->pvc), "spec.resources.requests.storage")) &&
                   node_selector_matches(val_at(spec, "nodeAffinity.required"), labels, n->name);
        }
        if (!near)
            return "node(s) didn't find available persistent volumes to bind";
    }
    return NULL;
}

static const char *devices_elsewhere(struct work *w, struct node_info *n)
{
    const struct claims *c = w->p->claims;

    return c && c->devices ? devices_forbid(c->devices, n->name, val_get(obj_meta(n->node), "labels")) : NULL;
}

/* ---- all of them, in the order of Kubernetes: the first reason is the one that is told ---- */

typedef const char *filter_fn(struct work *w, struct node_info *n);
static filter_fn *const filters[] = {
    not_scheduled_there, wrong_name, tainted, not_wanted, port_taken, too_small, volume_elsewhere,
    spread_forbids, affinity_forbids, devices_elsewhere,
};

/* Would it be the same without any other pod? */
static bool of_the_node(filter_fn *fn, const struct work *w, const struct node_info *n)
{
    if (fn == too_small) {
        for (int r = 0; r < RES_MAX; r++)
            if (r != RES_PODS && w->asks.v[r] > n->has.v[r])
                return true;
        return w->unknown || n->has.v[RES_PODS] < 1;
    }
    return fn != port_taken && fn != spread_forbids && fn != affinity_forbids;
}

static const char *filter(struct work *w, struct node_info *n, bool *ret_hopeless)
{
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        const char *why = filters[i](w, n);

        if (why && ret_hopeless)
            *ret_hopeless = of_the_node(filters[i], w, n);
        if (why)
            return why;
    }
    return NULL;
}

static void read_own_ports(struct work *w)
{
    VAL_EACH(val_get(w->spec, "containers"), k)
        VAL_EACH(val_get(k, "ports"), port) {
            int64_t number = val_int_at(port, "hostPort", 0);
            struct host_port *more;

            if (number <= 0)
                continue;
            more = arena_array(w->p->arena, struct host_port, w->ports_n + 1);
            if (w->ports_n)
                memcpy(more, w->ports, w->ports_n * sizeof *more);
            more[w->ports_n++] = (struct host_port){(uint16_t)number, val_str_at(port, "protocol", "TCP"),
                                                    val_str_at(port, "hostIP", "")};
            w->ports = more;
        }
}

static struct work prepare(struct placing *p)
{
    struct work w = {.p = p, .spec = val_get(obj_val(p->pod), "spec"),
                     .labels = val_get(obj_meta(p->pod), "labels")};

    pod_asks(p->cache, w.spec, &w.asks, &w.cpu_least, &w.memory_least, &w.unknown);
    read_own_ports(&w);
    spread_prepare(&w);
    affinity_prepare(&w);
    return w;
}

const char *place_on(struct placing *p, struct node_info *n)
{
    struct work w = prepare(p);

    return filter(&w, n, NULL);
}

void place(struct placing *p)
{
    struct work w;
    uint32_t fit = 0, same = 0;
    double best = 0;

    p->node = NULL;
    p->reasons = arena_array(p->arena, const char *, p->cache->nodes_n + 1);
    p->scores = arena_array(p->arena, double, p->cache->nodes_n + 1);
    p->hopeless = arena_array(p->arena, bool, p->cache->nodes_n + 1);
    w = prepare(p);
    EACH_NODE(p->cache, n) {
        p->reasons[n->index] = filter(&w, n, &p->hopeless[n->index]);
        if (!p->reasons[n->index]) {
            fit++;
            p->node = n;
        }
    }
    if (fit <= 1)
        return;
    score(&w);
    EACH_NODE(p->cache, n) {
        double s = p->scores[n->index];

        if (p->reasons[n->index])
            continue;
        if (same == 0 || s > best + 1e-9) {
            best = s;
            same = 1;
            p->node = n;
        } else if (s > best - 1e-9 && p->dice % ++same == 0) {
            p->node = n;
        }
    }
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

const char *why_nowhere(const struct placing *p)
{
    uint32_t n = p->cache->nodes_n;
    const char **sorted = arena_array(p->arena, const char *, n + 1), **lines;
    struct buf b = {0};
    const char *text;
    uint32_t m = 0;

    if (n == 0)
        return "no nodes available to schedule pods";
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = p->reasons[i] ? p->reasons[i] : "node(s) fit by now";
    qsort(sorted, n, sizeof *sorted, by_text);
    lines = arena_array(p->arena, const char *, n);
    for (uint32_t i = 0, k; i < n; i = k) {
        for (k = i; k < n && streq(sorted[i], sorted[k]); k++)
            ;
        lines[m++] = arena_printf(p->arena, "%u %s", k - i, sorted[i]);
    }
    qsort(lines, m, sizeof *lines, by_text);
    buf_printf(&b, "0/%u nodes are available: ", n);
    for (uint32_t i = 0; i < m; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", lines[i]);
    buf_addc(&b, '.');
    text = arena_strdup(p->arena, b.p);
    buf_done(&b);
    return text;
}
