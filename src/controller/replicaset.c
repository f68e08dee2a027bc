/* Keeps as many live pods as spec.replicas says: ReplicaSets, and ReplicationControllers, which
 * differ in names and in the form of the selector only.
 *
 * There is no table of "expected" pods to get out of step: the mirror counts the pods made a moment
 * ago, because it follows the store's head. */
#include "codec/selector.h"
#include "controller/ctl.h"
#include "controller/pods.h"

static const struct val *selector_of(struct ctl *ctl, enum kind kind, const struct obj *set)
{
    const struct val *s = val_at(obj_val(set), "spec.selector");
    struct val *wrapped;

    if (kind == K_REPLICASET)
        return s;
    if (!s || !val_len(s))
        return NULL;
    wrapped = val_map(ctl->arena);
    val_put(ctl->arena, wrapped, "matchLabels", s);
    return wrapped;
}

static enum again make_pods(struct ctl *ctl, enum kind kind, const struct obj *set, int64_t n,
                            struct err *err)
{
    const struct val *template = val_at(obj_val(set), "spec.template");

    for (int64_t i = 0; i < n; i++) {
        struct val *v = pod_of_template(ctl->arena, template, kind, set, set->name);
        const struct obj *pod = ctl_create(ctl, K_POD, set->namespace_, v, err);
        const struct obj *ns;

        if (pod) {
            ctl_event(ctl, set, "Normal", "SuccessfulCreate", "Created pod: %s", pod->name);
            continue;
        }
        ns = ctl_get(ctl, K_NAMESPACE, "", set->namespace_);
        if (!ns || obj_deleting(ns))
            return DONE; /* nothing can be made there any more, and nobody needs to hear it */
        ctl_event(ctl, set, "Warning", "FailedCreate", "Error creating: %s", err->msg);
        return RETRY;
    }
    return DONE;
}

static enum again drop_pods(struct ctl *ctl, const struct obj *set, struct objs *active, int64_t n,
                            struct err *err)
{
    pods_sort_cheapest_first(active);
    for (int64_t i = 0; i < n; i++) {
        if (ctl_delete(ctl, K_POD, active->v[i], NULL, -1, err) < 0) {
            ctl_event(ctl, set, "Warning", "FailedDelete", "Error deleting: %s", err->msg);
            return RETRY;
        }
        ctl_event(ctl, set, "Normal", "SuccessfulDelete", "Deleted pod: %s", active->v[i]->name);
    }
    return DONE;
}

static int write_status(struct ctl *ctl, enum kind kind, const char *key, const struct obj *set,
                        enum again acted, const struct err *why, struct err *err)
{
    const struct obj *now = ctl_get_key(ctl, kind, key);
    const struct val *labels = val_at(obj_val(set), "spec.template.metadata.labels");
    int64_t min_ready = obj_int(set, "spec.minReadySeconds", 0), wait, soonest = -1;
    int64_t n = 0, labeled = 0, ready = 0, available = 0;
    struct objs pods = ctl_owned(ctl, K_POD, set->uid);
    struct arena *a = ctl->arena;
    struct val *v, *status;

    if (!now || !streq(now->uid, set->uid))
        return 0;
    for (uint32_t i = 0; i < pods.n; i++) {
        if (!pod_active(pods.v[i]))
            continue;
        n++;
        labeled += labels_contain(val_get(obj_meta(pods.v[i]), "labels"), labels);
        ready += pod_ready(pods.v[i]);
        available += pod_available(pods.v[i], min_ready, ctl->now_ms, &wait);
        if (wait > 0 && (soonest < 0 || wait < soonest))
            soonest = wait;
    }
    if (soonest > 0)
        ctl_want_in(ctl, key, soonest);
    v = obj_edit(now, a);
    status = val_need_map(a, v, "status");
    val_put_int(a, status, "replicas", n);
    ctl_put_count(a, status, "fullyLabeledReplicas", labeled);
    ctl_put_count(a, status, "readyReplicas", ready);
    ctl_put_count(a, status, "availableReplicas", available);
    val_put_int(a, status, "observedGeneration", obj_generation(set));
    if (acted == RETRY) { /* once: the text names a new pod each time, and our write wakes us */
        if (!condition_of(now, "ReplicaFailure"))
            ctl_condition(ctl, v, "ReplicaFailure", "True", "FailedCreate", why->msg,
                          false);
    } else {
        struct val *list = val_get(status, "conditions");

        for (uint32_t i = list ? list->n : 0; i-- > 0;)
            if (streq(val_text(val_get(&list->items[i], "type"), ""), "ReplicaFailure"))
                val_remove(list, i);
        if (list && !list->n)
            val_del(status, "conditions");
    }
    return ctl_update_status(ctl, kind, now, v, err);
}

static enum again reconcile_set(struct ctl *ctl, enum kind kind, const char *key, struct err *err)
{
    const struct obj *set = ctl_get_key(ctl, kind, key);
    struct objs pods, active = {0};
    int64_t missing;
    enum again did = DONE;
    struct err why = {0};

    if (!set)
        return DONE; /* the collector takes the pods: it follows their owner */

    /* list */
    if (ctl_claim(ctl, K_POD, set, kind, selector_of(ctl, kind, set), &pods, err) < 0)
        return RETRY;
    for (uint32_t i = 0; i < pods.n; i++)
        if (pod_active(pods.v[i]))
            objs_add(ctl->arena, &active, pods.v[i]);

    /* diff */
    missing = obj_int(set, "spec.replicas", 1) - (int64_t)active.n;

    /* act: at most a burst, one huge set must not starve the small ones */
    if (obj_deleting(set))
        missing = 0;
    if (missing > 0)
        did = make_pods(ctl, kind, set, MIN(missing, (int64_t)ctl->burst), &why);
    else if (missing < 0)
        did = drop_pods(ctl, set, &active, MIN(-missing, (int64_t)ctl->burst), &why);

    /* tell: what there is, not what we hope for */
    if (write_status(ctl, kind, key, set, did, &why, err) < 0)
        return RETRY;
    if (did == RETRY) {
        *err = why;
        return RETRY;
    }
    return missing > ctl->burst || -missing > ctl->burst ? AGAIN : DONE;
}

static void changed_set(struct ctl *ctl, enum kind set_kind, enum kind kind, const struct obj *was,
                        const struct obj *now)
{
    const struct obj *o = now ? now : was;
    struct objs sets;

    if (kind == set_kind) {
        ctl_want_obj(ctl, o);
        return;
    }
    ctl_want_controller_of(ctl, was, set_kind);
    ctl_want_controller_of(ctl, now, set_kind);
    if (!now || obj_controller(now) || obj_deleting(now))
        return;
    sets = ctl_list(ctl, set_kind, now->namespace_); /* an orphan: somebody may want it */
    for (uint32_t i = 0; i < sets.n; i++)
        if (selector_matches(selector_of(ctl, set_kind, sets.v[i]), val_get(obj_meta(now), "labels")))
            ctl_want_obj(ctl, sets.v[i]);
}

static enum again replicaset_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    return reconcile_set(ctl, K_REPLICASET, key, err);
}

static void replicaset_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                               const struct obj *now)
{
    changed_set(ctl, K_REPLICASET, kind, was, now);
}

extern const struct controller replicaset_controller;
const struct controller replicaset_controller = {
    .name = "replicaset",
    .component = "replicaset-controller",
    .reconcile = replicaset_reconcile,
    .changed = replicaset_changed,
    .kinds = KIND_BIT(K_REPLICASET) | KIND_BIT(K_POD),
};

static enum again replication_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    return reconcile_set(ctl, K_RC, key, err);
}

static void replication_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                                const struct obj *now)
{
    changed_set(ctl, K_RC, kind, was, now);
}

extern const struct controller replication_controller;
const struct controller replication_controller = {
    .name = "replication",
    .component = "replication-controller",
    .reconcile = replication_reconcile,
    .changed = replication_changed,
    .kinds = KIND_BIT(K_RC) | KIND_BIT(K_POD),
};
