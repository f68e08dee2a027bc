/* DaemonSets: one pod on each node that wants one. The pod names its node by an affinity that only
 * that node fulfils, and the scheduler binds it: so resources and ports are counted in one place.
 *
 * Updates go node by node: maxUnavailable down at once, or with maxSurge the new one first and the
 * old one when it is available. Which template a pod is of says its label controller-revision-hash;
 * the past ones are kept (revisions.h). */
#include "codec/selector.h"
#include "controller/ctl.h"
#include "controller/revisions.h"
#include "controller/pods.h"
#include "controller/rollout.h"
#include "controller/taints.h"

#define HASH "controller-revision-hash"

struct on_node { /* the pods of this set for one node */
    const struct obj *node;
    struct objs pods;
    bool wanted;
};
struct pass {
    struct ctl *ctl;
    const struct obj *set;
    struct revisions history;
    int64_t surge, min_ready;
    const char *hash;
    struct on_node *nodes;
    uint32_t n;
    struct objs stray; /* pods for nodes that are gone */
};

/* ---- list ---- */

/* What a daemon bears without being asked: it belongs to the node, in bad days too. */
static void add_tolerations(struct arena *a, struct val *spec)
{
    static const struct {
        const char *key, *effect;
    } rows[] = {
        {"node.kubernetes.io/not-ready", "NoExecute"},      {"node.kubernetes.io/unreachable", "NoExecute"},
        {"node.kubernetes.io/disk-pressure", "NoSchedule"}, {"node.kubernetes.io/memory-pressure", "NoSchedule"},
        {"node.kubernetes.io/pid-pressure", "NoSchedule"},  {"node.kubernetes.io/unschedulable", "NoSchedule"},
        {"node.kubernetes.io/network-unavailable", "NoSchedule"},
    };
    bool host = val_bool_at(spec, "hostNetwork", false);
    struct val *list = val_need_list(a, spec, "tolerations");

    for (size_t i = 0; i < ARRAY_LEN(rows) - !host; i++) {
        struct val *t = val_push(a, list, val_map(a));

        val_put_str(a, t, "key", rows[i].key);
        val_put_str(a, t, "operator", "Exists");
        val_put_str(a, t, "effect", rows[i].effect);
    }
}

static bool node_wants(const struct val *spec, const struct obj *node)
{
    const struct val *labels = val_get(obj_meta(node), "labels");

    if (!labels_contain(labels, val_get(spec, "nodeSelector")) ||
        !node_selector_matches(val_at(spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
                               labels, node->name))
        return false;
    VAL_EACH(val_at(obj_val(node), "spec.taints"), taint) {
        bool borne = streq(val_str_at(taint, "effect", ""), "PreferNoSchedule") ||
                     (str_starts(val_str_at(taint, "key", ""), "node.kubernetes.io/") &&
                      streq(val_str_at(taint, "effect", ""), "NoSchedule")); /* passing states of a node */

        VAL_EACH(val_get(spec, "tolerations"), t)
            borne = borne || toleration_covers(t, taint);
        if (!borne)
            return false;
    }
    return true;
}

/* The node it is on, or that it waits for. */
static const char *node_of(const struct obj *pod)
{
    const char *node = pod_node(pod);

    if (*node)
        return node;
    VAL_EACH(val_at(obj_val(pod), "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution."
                                  "nodeSelectorTerms"), term)
        VAL_EACH(val_get(term, "matchFields"), f)
            if (streq(val_str_at(f, "key", ""), "metadata.name"))
                return val_str_at(f, "values[0]", "");
    return "";
}

static int list(struct pass *p, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct objs nodes = ctl_list(ctl, K_NODE, NULL), pods;
    struct val *spec = val_copy(ctl->arena, val_at(obj_val(p->set), "spec.template.spec"));

    if (ctl_claim(ctl, K_POD, p->set, K_DAEMONSET, val_at(obj_val(p->set), "spec.selector"), &pods, err) < 0)
        return -1;
    add_tolerations(ctl->arena, spec);
    p->min_ready = obj_int(p->set, "spec.minReadySeconds", 0);
    p->surge = int_or_percent(val_at(obj_val(p->set), "spec.updateStrategy.rollingUpdate.maxSurge"), nodes.n, true, 0);
    p->n = nodes.n;
    p->nodes = arena_array(ctl->arena, struct on_node, nodes.n + 1);
    for (uint32_t i = 0; i < nodes.n; i++) {
        p->nodes[i].node = nodes.v[i];
        p->nodes[i].wanted = node_wants(spec, nodes.v[i]);
    }
    for (uint32_t i = 0; i < pods.n; i++) {
        const char *name = node_of(pods.v[i]);
        uint32_t k = 0;

        while (k < p->n && !streq(p->nodes[k].node->name, name))
            k++;
        objs_add(ctl->arena, k < p->n ? &p->nodes[k].pods : &p->stray, pods.v[i]);
    }
    return 0;
}

/* ---- act ---- */

static struct val *pod_for(struct pass *p, const struct obj *node)
{
    struct arena *a = p->ctl->arena;
    struct val *pod = pod_of_template(a, val_at(obj_val(p->set), "spec.template"), K_DAEMONSET, p->set, p->set->name);
    struct val *spec, *required, *terms, *field;

    val_put_str(a, val_need_map(a, val_get(pod, "metadata"), "labels"), HASH, p->hash);
    spec = val_need_map(a, pod, "spec");
    add_tolerations(a, spec);
    required = val_need_map(a, val_need_map(a, val_need_map(a, spec, "affinity"), "nodeAffinity"),
                            "requiredDuringSchedulingIgnoredDuringExecution");
    terms = val_need_list(a, required, "nodeSelectorTerms");
    if (!terms->n)
        val_push(a, terms, val_map(a));
    field = val_map(a);
    val_put_str(a, field, "key", "metadata.name");
    val_put_str(a, field, "operator", "In");
    val_push_str(a, val_need_list(a, field, "values"), node->name);
    VAL_EACH(terms, term) {
        struct val *only = val_list(a);

        val_push(a, only, field);
        val_put(a, term, "matchFields", only);
    }
    return pod;
}

static int drop(struct pass *p, const struct obj *pod, struct err *err)
{
    if (obj_deleting(pod))
        return 0;
    if (ctl_delete(p->ctl, K_POD, pod, NULL, -1, err) < 0)
        return -1;
    ctl_event(p->ctl, p->set, "Normal", "SuccessfulDelete", "Deleted pod: %s", pod->name);
    return 0;
}

static bool is_new(const struct pass *p, const struct obj *pod)
{
    return streq0(obj_label(pod, HASH), p->hash);
}

static bool up(const struct pass *p, const struct obj *pod)
{
    return pod_available(pod, p->min_ready, p->ctl->now_ms, NULL);
}

static int make(struct pass *p, const struct obj *node, struct err *err)
{
    const struct obj *made = ctl_create(p->ctl, K_POD, p->set->namespace_, pod_for(p, node), err);

    if (made)
        ctl_event(p->ctl, p->set, "Normal", "SuccessfulCreate", "Created pod: %s", made->name);
    return made ? 0 : -1;
}

/* One pod stays on a node; while a surge goes on an old one and a new one. */
static int keep_node(struct pass *p, struct on_node *n, struct err *err)
{
    struct ctl *ctl = p->ctl;
    const struct obj *keep[2] = {0}; /* old, new */

    for (uint32_t i = 0; i < n->pods.n; i++) {
        const struct obj *pod = n->pods.v[i];
        const struct obj **slot = &keep[p->surge > 0 && is_new(p, pod)];

        if (n->wanted && pod_finished(pod) && !obj_deleting(pod)) {
            ctl_event(ctl, p->set, "Warning", "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it",
                      pod->namespace_, pod->name, n->node->name);
            if (drop(p, pod, err) < 0)
                return -1;
        } else if (n->wanted && !*slot) {
            *slot = pod;
        } else if (drop(p, pod, err) < 0) {
            return -1;
        }
    }
    if (!n->wanted || n->pods.n)
        return 0; /* the last one must be gone before the next is made */
    return make(p, n->node, err);
}

/* The new one comes first: where the old one is not up at once, else for maxSurge nodes at a time;
 * the old one goes when the new one is available. */
static int surge(struct pass *p, struct err *err)
{
    int64_t budget = p->surge;

    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < p->n; i++) {
            const struct obj *old = NULL, *new = NULL;

            for (uint32_t k = 0; k < p->nodes[i].pods.n; k++)
                if (!obj_deleting(p->nodes[i].pods.v[k]))
                    *(is_new(p, p->nodes[i].pods.v[k]) ? &new : &old) = p->nodes[i].pods.v[k];
            if (!p->nodes[i].wanted || !old)
                continue;
            if (new) {
                budget -= round == 0 && !up(p, new);
                if (round == 0 && up(p, new) && drop(p, old, err) < 0)
                    return -1;
                continue;
            }
            if (round == (up(p, old) ? 1 : 0)) {
                if (round == 1 && budget-- <= 0)
                    return 0;
                if (make(p, p->nodes[i].node, err) < 0)
                    return -1;
            }
        }
    return 0;
}

static int update(struct pass *p, struct err *err)
{
    const struct val *strategy = val_at(obj_val(p->set), "spec.updateStrategy");
    int64_t budget, wanted = 0;

    if (streq(val_str_at(strategy, "type", "RollingUpdate"), "OnDelete"))
        return 0;
    if (p->surge > 0)
        return surge(p, err);
    for (uint32_t i = 0; i < p->n; i++)
        wanted += p->nodes[i].wanted;
    budget = int_or_percent(val_at(strategy, "rollingUpdate.maxUnavailable"), wanted, true, 1);
    for (uint32_t i = 0; i < p->n; i++) {
        const struct objs *pods = &p->nodes[i].pods;

        if (p->nodes[i].wanted && (!pods->n || !up(p, pods->v[0])))
            budget--;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        const struct objs *pods = &p->nodes[i].pods;
        bool is_up;

        if (!p->nodes[i].wanted || !pods->n || obj_deleting(pods->v[0]) || is_new(p, pods->v[0]))
            continue;
        is_up = up(p, pods->v[0]);
        if (is_up && budget <= 0)
            continue;
        budget -= is_up;
        if (drop(p, pods->v[0], err) < 0)
            return -1;
    }
    return 0;
}

/* ---- tell ---- */

static int tell(struct pass *p, const char *key, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const struct obj *now = ctl_get_key(ctl, K_DAEMONSET, key);
    int64_t want = 0, have = 0, ready = 0, available = 0, updated = 0, misplaced = 0, wait;
    struct val *v, *s;

    if (!now || !streq(now->uid, p->set->uid) || list(p, err) < 0)
        return 0;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct on_node *n = &p->nodes[i];
        const struct obj *pod = n->pods.n ? n->pods.v[0] : NULL;

        for (uint32_t k = 1; k < n->pods.n; k++) /* of two that stand in for each other the one that is up */
            if (!pod_ready(pod) && pod_ready(n->pods.v[k]))
                pod = n->pods.v[k];
        misplaced += !n->wanted && pod;
        if (!n->wanted)
            continue;
        want++;
        if (!pod)
            continue;
        have++;
        ready += pod_ready(pod);
        updated += is_new(p, pod);
        available += pod_available(pod, obj_int(now, "spec.minReadySeconds", 0), ctl->now_ms, &wait);
        if (wait > 0)
            ctl_want_in(ctl, key, wait);
    }
    v = obj_edit(now, a);
    s = val_need_map(a, v, "status");
    val_put_int(a, s, "currentNumberScheduled", have);
    val_put_int(a, s, "numberMisscheduled", misplaced);
    val_put_int(a, s, "desiredNumberScheduled", want);
    val_put_int(a, s, "numberReady", ready);
    val_put_int(a, s, "observedGeneration", obj_generation(p->set));
    val_put_int(a, s, "updatedNumberScheduled", updated);
    val_put_int(a, s, "numberAvailable", available);
    val_put_int(a, s, "numberUnavailable", want - available);
    if (p->history.collisions)
        val_put_int(a, s, "collisionCount", p->history.collisions);
    return ctl_update_status(ctl, K_DAEMONSET, now, v, err);
}

/* Is there a pod of that revision? */
static bool in_use(void *arg, const struct obj *revision)
{
    const struct pass *p = arg;
    const char *hash = obj_label(revision, HASH);

    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t k = 0; k < p->nodes[i].pods.n; k++)
            if (hash && streq0(obj_label(p->nodes[i].pods.v[k], HASH), hash))
                return true;
    return false;
}

static enum again daemonset_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .set = ctl_get_key(ctl, K_DAEMONSET, key)};
    const struct obj *ns;
    struct err why = {0};
    int done = 0;

    if (!p.set || obj_deleting(p.set))
        return DONE;
    if (revisions_sync(ctl, K_DAEMONSET, p.set, HASH, &p.history, err) < 0) {
        ns = ctl_get(ctl, K_NAMESPACE, "", p.set->namespace_);
        return !ns || obj_deleting(ns) ? DONE : RETRY;
    }
    p.hash = p.history.hash;
    if (list(&p, err) < 0)
        return RETRY;
    for (uint32_t i = 0; i < p.stray.n && done == 0; i++)
        done = drop(&p, p.stray.v[i], &why);
    for (uint32_t i = 0; i < p.n && done == 0; i++)
        done = keep_node(&p, &p.nodes[i], &why);
    if (done == 0)
        done = update(&p, &why);
    if (tell(&p, key, err) < 0 || revisions_trim(ctl, p.set, &p.history, in_use, &p, err) < 0)
        return RETRY;
    if (done == 0)
        return DONE;
    ns = ctl_get(ctl, K_NAMESPACE, "", p.set->namespace_);
    if (!ns || obj_deleting(ns))
        return DONE;
    ctl_event(ctl, p.set, "Warning", "FailedCreate", "Error creating: %s", why.msg);
    *err = why;
    return RETRY;
}

static void daemonset_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                              const struct obj *now)
{
    if (kind == K_DAEMONSET) {
        ctl_want_obj(ctl, now ? now : was);
    } else if (kind == K_POD || kind == K_REVISION) {
        ctl_want_controller_of(ctl, was, K_DAEMONSET);
        ctl_want_controller_of(ctl, now, K_DAEMONSET);
    } else if (!was || !now ||
               !val_equal(val_at(obj_val(was), "spec"), val_at(obj_val(now), "spec")) ||
               !val_equal(val_get(obj_meta(was), "labels"), val_get(obj_meta(now), "labels"))) {
        ctl_want_all(ctl, K_DAEMONSET, NULL);
    }
}

extern const struct controller daemonset_controller;
const struct controller daemonset_controller = {
    .name = "daemonset",
    .component = "daemonset-controller",
    .reconcile = daemonset_reconcile,
    .changed = daemonset_changed,
    .kinds = KIND_BIT(K_DAEMONSET) | KIND_BIT(K_POD) | KIND_BIT(K_NODE) | KIND_BIT(K_REVISION),
};
