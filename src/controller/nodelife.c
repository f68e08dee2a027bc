/* Node life cycle: a node whose lease is not renewed becomes unknown; what a node's conditions say
 * shows as taints; pods that do not bear a taint of effect NoExecute are evicted in time.
 *
 * Silence is measured from when we saw the last renewal, not from the time written in the lease: so
 * clocks need not agree, and a server that was down itself gives every node its full grace again. */
#include "base/map.h"
#include "controller/ctl_int.h"
#include "controller/pods.h"
#include "controller/taints.h"

#define LEASES "kube-node-lease"

struct heard { /* of one node */
    char renewed[KUBETIME_MAX + 8];
    int64_t at_ms;
};
struct memory {
    struct map nodes; /* name -> struct heard */
};

static struct heard *heard_of(struct ctl *ctl, const char *node)
{
    struct memory *m = ctl->mine;
    struct heard *h = map_get(&m->nodes, node);

    if (!h) {
        h = xcalloc(1, sizeof *h);
        h->at_ms = env_now_ms(ctl->env);
        map_put(&m->nodes, node, h);
    }
    return h;
}

/* The lease was renewed, or the node's own heartbeat moved: both are signs of life. */
static void hear(struct ctl *ctl, const char *node, const char *sign)
{
    struct heard *h = heard_of(ctl, node);

    if (strncmp(h->renewed, sign, sizeof h->renewed - 1) == 0)
        return;
    strncpy(h->renewed, sign, sizeof h->renewed - 1);
    h->at_ms = env_now_ms(ctl->env);
}

/* ---- conditions ---- */

static int silence(struct ctl *ctl, const struct obj *node, struct err *err)
{
    static const char *const types[] = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"};
    struct val *v = obj_edit(node, ctl->arena);
    bool any = false;

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        const struct val *c = condition_of(node, types[i]);

        if (streq(val_text(val_get(c, "status"), ""), "Unknown"))
            continue;
        any |= ctl_condition(ctl, v, types[i], "Unknown",
                             c ? "NodeStatusUnknown" : "NodeStatusNeverUpdated",
                             c ? "Kubelet stopped posting node status."
                               : "Kubelet never posted node status.", false);
    }
    if (!any)
        return 0;
    if (condition_true(node, "Ready"))
        ctl_event(ctl, node, "Normal", "NodeNotReady", "Node %s status is now: NodeNotReady",
                  node->name);
    return ctl_update_status(ctl, K_NODE, node, v, err);
}

/* Services must not send anybody there. */
static int pods_not_ready(struct ctl *ctl, const struct obj *node, struct err *err)
{
    struct objs pods = ctl_pods_on(ctl, node->name);

    for (uint32_t i = 0; i < pods.n; i++) {
        struct val *v;

        if (!pod_ready(pods.v[i]))
            continue;
        v = obj_edit(pods.v[i], ctl->arena);
        VAL_EACH(val_at(v, "status.conditions"), c)
            if (streq(val_text(val_get(c, "type"), ""), "Ready")) {
                val_put_str(ctl->arena, c, "status", "False");
                val_put_str(ctl->arena, c, "lastTransitionTime", ctl_time(ctl));
            }
        if (ctl_update_status(ctl, K_POD, pods.v[i], v, err) < 0 && err->code != ERR_NOT_FOUND)
            return -1;
        ctl_event(ctl, pods.v[i], "Warning", "NodeNotReady", "Node is not ready");
    }
    return 0;
}

/* ---- taints ---- */

static bool has_taint(const struct val *taints, const char *key, const char *effect)
{
    VAL_EACH(taints, t)
        if (streq(val_str_at(t, "key", ""), key) && streq(val_str_at(t, "effect", ""), effect))
            return true;
    return false;
}

static bool set_taint(struct ctl *ctl, struct val *taints, const char *key, const char *effect,
                      bool there)
{
    struct arena *a = ctl->arena;
    struct val *t;

    if (has_taint(taints, key, effect) == there)
        return false;
    for (uint32_t i = taints->n; i-- > 0;)
        if (streq(val_str_at(&taints->items[i], "key", ""), key) &&
            streq(val_str_at(&taints->items[i], "effect", ""), effect))
            val_remove(taints, i);
    if (!there)
        return true;
    t = val_push(a, taints, val_map(a));
    val_put_str(a, t, "key", key);
    val_put_str(a, t, "effect", effect);
    if (streq(effect, "NoExecute") || streq(key, "node.kubernetes.io/unschedulable"))
        val_put_str(a, t, "timeAdded", ctl_time(ctl));
    return true;
}

static int write_taints(struct ctl *ctl, const struct obj *node, struct err *err)
{
    static const struct {
        const char *condition, *taint;
    } pressure[] = {
        {"MemoryPressure", "node.kubernetes.io/memory-pressure"},
        {"DiskPressure", "node.kubernetes.io/disk-pressure"},
        {"PIDPressure", "node.kubernetes.io/pid-pressure"},
        {"NetworkUnavailable", "node.kubernetes.io/network-unavailable"},
    };
    struct val *v = obj_edit(node, ctl->arena), *spec = val_need_map(ctl->arena, v, "spec");
    struct val *taints = val_need_list(ctl->arena, spec, "taints");
    const char *ready = val_text(val_get(condition_of(node, "Ready"), "status"), "Unknown");
    bool no = streq(ready, "False"), unknown = !no && !streq(ready, "True"), any = false;

    any |= set_taint(ctl, taints, "node.kubernetes.io/unschedulable", "NoSchedule",
                     val_bool_at(spec, "unschedulable", false));
    for (size_t i = 0; i < ARRAY_LEN(pressure); i++)
        any |= set_taint(ctl, taints, pressure[i].taint, "NoSchedule",
                         condition_true(node, pressure[i].condition));
    any |= set_taint(ctl, taints, "node.kubernetes.io/not-ready", "NoSchedule", no);
    any |= set_taint(ctl, taints, "node.kubernetes.io/not-ready", "NoExecute", no);
    any |= set_taint(ctl, taints, "node.kubernetes.io/unreachable", "NoSchedule", unknown);
    any |= set_taint(ctl, taints, "node.kubernetes.io/unreachable", "NoExecute", unknown);
    if (!any)
        return 0;
    if (taints->n == 0)
        val_del(spec, "taints");
    return ctl_update(ctl, K_NODE, v, err) ? 0 : -1;
}

/* ---- eviction ---- */

static int evict(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *node = ctl_get(ctl, K_NODE, "", key);
    const struct val *taints = node ? val_at(obj_val(node), "spec.taints") : NULL;
    struct objs pods;
    bool any = false;

    VAL_EACH(taints, t)
        any |= streq(val_str_at(t, "effect", ""), "NoExecute");
    if (!any)
        return 0;
    pods = ctl_pods_on(ctl, key);
    for (uint32_t i = 0; i < pods.n; i++) {
        int64_t until = taints_bearable_until(taints, val_at(obj_val(pods.v[i]), "spec.tolerations"),
                                              ctl->now_ms);

        if (until == INT64_MAX || !pod_active(pods.v[i]))
            continue;
        if (until > ctl->now_ms) {
            ctl_want_in(ctl, key, until - ctl->now_ms);
            continue;
        }
        ctl_event(ctl, pods.v[i], "Normal", "TaintManagerEviction", "Marking for deletion Pod %s/%s",
                  pods.v[i]->namespace_, pods.v[i]->name);
        if (ctl_delete(ctl, K_POD, pods.v[i], NULL, -1, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- the pass ---- */

static enum again nodelife_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct memory *m = ctl->mine;
    const struct obj *node = ctl_get(ctl, K_NODE, "", key);
    int64_t left;

    if (!node) {
        free(map_del(&m->nodes, key));
        return DONE;
    }
    left = heard_of(ctl, key)->at_ms + ctl->all->opts.node_grace_ms - ctl->now_ms;
    if (left > 0)
        ctl_want_in(ctl, key, left + 1);
    else if (silence(ctl, node, err) < 0)
        return RETRY;
    node = ctl_get(ctl, K_NODE, "", key);
    if (!node)
        return DONE;
    if (write_taints(ctl, node, err) < 0)
        return RETRY;
    if (!condition_true(node, "Ready") && pods_not_ready(ctl, node, err) < 0)
        return RETRY;
    return evict(ctl, key, err) < 0 ? RETRY : DONE;
}

static void nodelife_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                             const struct obj *now)
{
    const struct obj *o = now ? now : was;

    if (kind == K_NODE) {
        if (now)
            hear(ctl, o->name, val_text(val_get(condition_of(o, "Ready"), "lastHeartbeatTime"), ""));
        ctl_want_key(ctl, o->name);
    } else if (kind == K_LEASE && now && streq(o->namespace_, LEASES)) {
        hear(ctl, o->name, obj_str(o, "spec.renewTime", ""));
    } else if (kind == K_POD && now && *pod_node(now)) {
        const struct obj *node;

        if (was && streq(pod_node(was), pod_node(now)) &&
            val_equal(val_at(obj_val(was), "spec.tolerations"),
                      val_at(obj_val(now), "spec.tolerations")))
            return;
        node = ctl_get(ctl, K_NODE, "", pod_node(now));
        VAL_EACH(node ? val_at(obj_val(node), "spec.taints") : NULL, t)
            if (streq(val_str_at(t, "effect", ""), "NoExecute"))
                ctl_want_key(ctl, node->name);
    }
}

static void nodelife_start(struct ctl *ctl)
{
    ctl->mine = xcalloc(1, sizeof(struct memory));
}

static void nodelife_stop(struct ctl *ctl)
{
    struct memory *m = ctl->mine;
    const char *key;
    void *h;

    for (uint32_t i = 0; map_next(&m->nodes, &i, &key, &h);)
        free(h);
    map_done(&m->nodes);
    free(m);
    ctl->mine = NULL;
}

extern const struct controller nodelife_controller;
const struct controller nodelife_controller = {
    .name = "nodelife",
    .component = "node-controller",
    .reconcile = nodelife_reconcile,
    .changed = nodelife_changed,
    .kinds = KIND_BIT(K_NODE) | KIND_BIT(K_LEASE) | KIND_BIT(K_POD),
    .start = nodelife_start,
    .stop = nodelife_stop,
};
