/* StatefulSets: pods with numbers, names and volumes that stay.
 *
 * Pod N is NAME-N and has the claims TEMPLATE-NAME-N. OrderedReady: N comes when all below are
 * available, and the highest goes first; Parallel: at once. An update goes from the highest number
 * down to the partition, one at a time. Which template a pod is of says its label
 * controller-revision-hash, the name of a ControllerRevision (revisions.h): those below the partition
 * are made anew of the current template, not of the one that comes. Claims stay when pods go, unless
 * persistentVolumeClaimRetentionPolicy says Delete: then they get the set (or the pod that a smaller
 * set loses) as their owner, and the collector takes them with it. */
#include "controller/ctl.h"
#include "controller/revisions.h"
#include "controller/pods.h"
#include "controller/rollout.h"

#define HASH "controller-revision-hash"
#define POD_NAME "statefulset.kubernetes.io/pod-name"
#define POD_INDEX "apps.kubernetes.io/pod-index"

struct pass {
    struct ctl *ctl;
    const struct obj *set;
    const struct val *spec;
    struct revisions history;
    const char *hash;              /* name of the revision of today's template */
    const struct obj *current;     /* the revision that was fully rolled out last */
    int64_t start, replicas, min_ready;
    const struct obj **pods; /* by number - start */
    struct objs spare;       /* numbers beyond */
    bool parallel;
};

static int64_t number_of(const struct pass *p, const struct obj *pod)
{
    size_t n = strlen(p->set->name);
    char *end;
    long long i;

    if (strncmp(pod->name, p->set->name, n) || pod->name[n] != '-' || !pod->name[n + 1])
        return -1;
    i = strtoll(pod->name + n + 1, &end, 10);
    return *end ? -1 : i;
}

static int list(struct pass *p, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct objs pods;

    p->spec = val_get(obj_val(p->set), "spec");
    p->replicas = val_int_at(p->spec, "replicas", 1);
    p->start = val_int_at(p->spec, "ordinals.start", 0);
    p->min_ready = val_int_at(p->spec, "minReadySeconds", 0);
    p->parallel = streq(val_str_at(p->spec, "podManagementPolicy", ""), "Parallel");
    p->hash = p->history.now->name;
    p->current = revisions_named(&p->history, obj_str(p->set, "status.currentRevision", ""));
    if (!p->current)
        p->current = p->history.now;
    if (ctl_claim(ctl, K_POD, p->set, K_STATEFULSET, val_get(p->spec, "selector"), &pods, err) < 0)
        return -1;
    p->pods = arena_array(ctl->arena, const struct obj *, p->replicas + 1);
    p->spare = (struct objs){0};
    for (uint32_t i = 0; i < pods.n; i++) {
        int64_t n = number_of(p, pods.v[i]) - p->start;

        if (n >= 0 && n < p->replicas)
            p->pods[n] = pods.v[i];
        else
            objs_add(ctl->arena, &p->spare, pods.v[i]);
    }
    return 0;
}

/* ---- act ---- */

static int need_claims(struct pass *p, struct val *pod, const char *name, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct val *volumes = val_need_list(a, val_get(pod, "spec"), "volumes");

    VAL_EACH(val_get(p->spec, "volumeClaimTemplates"), t) {
        const char *short_name = val_str_at(t, "metadata.name", "");
        const char *claim = arena_printf(a, "%s-%s", short_name, name);
        struct val *v, *meta;

        for (uint32_t i = volumes->n; i-- > 0;)
            if (streq(val_str_at(&volumes->items[i], "name", ""), short_name))
                val_remove(volumes, i);
        v = val_map(a);
        val_put_str(a, v, "name", short_name);
        val_put_str(a, val_need_map(a, v, "persistentVolumeClaim"), "claimName", claim);
        val_push(a, volumes, v);
        if (ctl_get(p->ctl, K_PVC, p->set->namespace_, claim))
            continue;
        v = val_copy(a, t);
        val_del(v, "status");
        meta = val_need_map(a, v, "metadata");
        val_put_str(a, meta, "name", claim);
        val_put_str(a, meta, "namespace", p->set->namespace_);
        VAL_EACH_MEMBER(val_at(p->spec, "selector.matchLabels"), m)
            val_put(a, val_need_map(a, meta, "labels"), m->key, &m->v);
        if (!ctl_create(p->ctl, K_PVC, p->set->namespace_, v, err) && err->code != ERR_ALREADY_EXISTS)
            return -1;
    }
    return 0;
}

/* The revision that pod n is to be of. */
static const struct obj *revision_for(const struct pass *p, int64_t n)
{
    const struct val *rolling = val_at(p->spec, "updateStrategy.rollingUpdate");

    if (rolling ? n < val_int_at(rolling, "partition", 0)
                : streq(val_str_at(p->spec, "updateStrategy.type", ""), "RollingUpdate") &&
                      n < obj_int(p->set, "status.currentReplicas", 0))
        return p->current;
    return p->history.now;
}

static int make(struct pass *p, int64_t n, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const char *name = arena_printf(a, "%s-%lld", p->set->name, (long long)(p->start + n));
    const struct obj *revision = revision_for(p, n);
    const struct val *template = revision == p->history.now ? NULL : revisions_template(ctl, revision);
    struct val *pod = pod_of_template(a, template ? template : val_get(p->spec, "template"), K_STATEFULSET, p->set,
                                      p->set->name);
    struct val *meta = val_get(pod, "metadata"), *labels, *spec;

    val_del(meta, "generateName");
    val_put_str(a, meta, "name", name);
    labels = val_need_map(a, meta, "labels");
    val_put_str(a, labels, HASH, revision->name);
    val_put_str(a, labels, POD_NAME, name);
    val_put_str(a, labels, POD_INDEX, arena_printf(a, "%lld", (long long)(p->start + n)));
    spec = val_need_map(a, pod, "spec");
    val_put_str(a, spec, "hostname", name);
    val_put_str(a, spec, "subdomain", val_str_at(p->spec, "serviceName", ""));
    if (need_claims(p, pod, name, err) < 0)
        return -1;
    p->pods[n] = ctl_create(ctl, K_POD, p->set->namespace_, pod, err);
    if (!p->pods[n])
        return -1;
    ctl_event(ctl, p->set, "Normal", "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", name,
              p->set->name);
    return 0;
}

static int drop(struct pass *p, const struct obj *pod, struct err *err)
{
    if (obj_deleting(pod))
        return 0;
    if (ctl_delete(p->ctl, K_POD, pod, NULL, -1, err) < 0)
        return -1;
    ctl_event(p->ctl, p->set, "Normal", "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful",
              pod->name, p->set->name);
    return 0;
}

static bool up(struct pass *p, const struct obj *pod)
{
    return pod && !obj_deleting(pod) && pod_available(pod, p->min_ready, p->ctl->now_ms, NULL);
}

/* Every number there, in order. *ret_wait: one is not up yet, what follows must wait for it. */
static int fill(struct pass *p, bool *ret_wait, struct err *err)
{
    for (int64_t n = 0; n < p->replicas; n++) {
        const struct obj *pod = p->pods[n];

        if (pod && pod_finished(pod) && drop(p, pod, err) < 0)
            return -1;
        if (!pod && make(p, n, err) < 0)
            return -1;
        if (!p->parallel && !up(p, p->pods[n])) {
            *ret_wait = true;
            return 0;
        }
    }
    return 0;
}

static int shrink(struct pass *p, struct err *err)
{
    const struct obj *last = NULL;

    for (uint32_t i = 0; i < p->spare.n; i++) {
        if (p->parallel) {
            if (drop(p, p->spare.v[i], err) < 0)
                return -1;
        } else if (!last || number_of(p, p->spare.v[i]) > number_of(p, last)) {
            last = p->spare.v[i];
        }
    }
    return last ? drop(p, last, err) : 0;
}

static int update(struct pass *p, struct err *err)
{
    int64_t partition = val_int_at(p->spec, "updateStrategy.rollingUpdate.partition", 0);

    if (streq(val_str_at(p->spec, "updateStrategy.type", "RollingUpdate"), "OnDelete"))
        return 0;
    for (int64_t n = p->replicas; n-- > MAX(partition, (int64_t)0);) {
        if (!p->pods[n])
            return 0;
        if (!streq0(obj_label(p->pods[n], HASH), p->hash))
            return drop(p, p->pods[n], err); /* its successor is made when it is gone */
        if (!up(p, p->pods[n]))
            return 0;
    }
    return 0;
}

/* ---- whose the claims are ---- */

/* A claim's owner, by the policy: the set, the pod (that a smaller set loses), or nobody of these. */
static int claim_owner(struct pass *p, const struct obj *claim, const struct obj *pod, bool spare, struct err *err)
{
    struct arena *a = p->ctl->arena;
    const struct val *policy = val_get(p->spec, "persistentVolumeClaimRetentionPolicy");
    bool with_set = streq(val_str_at(policy, "whenDeleted", ""), "Delete");
    bool with_pod = spare && streq(val_str_at(policy, "whenScaled", ""), "Delete");
    const char *uid = with_pod ? pod->uid : with_set ? p->set->uid : "";
    struct val *v = obj_edit(claim, a), *refs = val_need_list(a, val_get(v, "metadata"), "ownerReferences");
    bool there = !*uid, any = false;

    for (uint32_t i = refs->n; i-- > 0;) {
        const char *kind = val_str_at(&refs->items[i], "kind", ""), *name = val_str_at(&refs->items[i], "name", "");
        bool ours = (streq(kind, "StatefulSet") && streq(name, p->set->name)) ||
                    (streq(kind, "Pod") && streq(name, pod->name));

        if (streq(val_str_at(&refs->items[i], "uid", ""), uid)) {
            there = true;
        } else if (ours) {
            val_remove(refs, i);
            any = true;
        } else if (val_bool_at(&refs->items[i], "controller", false)) {
            return 0; /* somebody else looks after it */
        }
    }
    if (!there)
        val_push(a, refs, owner_reference(a, with_pod ? K_POD : K_STATEFULSET, with_pod ? pod : p->set));
    if (there && !any)
        return 0;
    if (!refs->n)
        val_del(val_get(v, "metadata"), "ownerReferences");
    return ctl_update(p->ctl, K_PVC, v, err) ? 0 : -1;
}

static int claim_owners(struct pass *p, struct err *err)
{
    if (!val_len(val_get(p->spec, "volumeClaimTemplates")))
        return 0;
    for (int64_t n = 0; n < p->replicas + (int64_t)p->spare.n; n++) {
        bool spare = n >= p->replicas;
        const struct obj *pod = spare ? p->spare.v[n - p->replicas] : p->pods[n];

        if (!pod || (number_of(p, pod) < 0))
            continue;
        VAL_EACH(val_get(p->spec, "volumeClaimTemplates"), t) {
            const char *name = arena_printf(p->ctl->arena, "%s-%s", val_str_at(t, "metadata.name", ""), pod->name);
            const struct obj *claim = ctl_get(p->ctl, K_PVC, p->set->namespace_, name);

            if (claim && !obj_deleting(claim) && claim_owner(p, claim, pod, spare, err) < 0)
                return -1;
        }
    }
    return 0;
}

/* ---- tell ---- */


static int tell(struct pass *p, const char *key, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const struct obj *now = ctl_get_key(ctl, K_STATEFULSET, key);
    int64_t all = 0, ready = 0, available = 0, updated = 0, of_current = 0, wait;
    const char *current;
    struct val *v, *s;

    if (!now || !streq(now->uid, p->set->uid) || list(p, err) < 0)
        return 0;
    current = p->current->name;
    for (int64_t n = 0; n < p->replicas + (int64_t)p->spare.n; n++) {
        const struct obj *pod = n < p->replicas ? p->pods[n] : p->spare.v[n - p->replicas];

        if (!pod)
            continue;
        all++;
        ready += pod_ready(pod);
        updated += streq0(obj_label(pod, HASH), p->hash) && !obj_deleting(pod);
        of_current += streq0(obj_label(pod, HASH), current) && !obj_deleting(pod);
        available += pod_available(pod, p->min_ready, ctl->now_ms, &wait);
        if (wait > 0)
            ctl_want_in(ctl, key, wait);
    }
    v = obj_edit(now, a);
    s = val_need_map(a, v, "status");
    if (streq(val_str_at(p->spec, "updateStrategy.type", "RollingUpdate"), "RollingUpdate") &&
        updated == p->replicas && ready == p->replicas && all == p->replicas) { /* rolled out */
        current = p->hash;
        of_current = updated;
    }
    val_put_int(a, s, "observedGeneration", obj_generation(p->set));
    val_put_int(a, s, "replicas", all);
    ctl_put_count(a, s, "readyReplicas", ready);
    val_put_int(a, s, "availableReplicas", available);
    ctl_put_count(a, s, "currentReplicas", of_current);
    ctl_put_count(a, s, "updatedReplicas", updated);
    val_put_str(a, s, "currentRevision", current);
    val_put_str(a, s, "updateRevision", p->hash);
    val_put_int(a, s, "collisionCount", p->history.collisions);
    return ctl_update_status(ctl, K_STATEFULSET, now, v, err);
}

/* Is there a pod of that revision, or is it where the set is or goes? */
static bool in_use(void *arg, const struct obj *revision)
{
    const struct pass *p = arg;

    if (revision == p->current || streq(revision->name, obj_str(p->set, "status.currentRevision", "")))
        return true;
    for (int64_t n = 0; n < p->replicas + (int64_t)p->spare.n; n++) {
        const struct obj *pod = n < p->replicas ? p->pods[n] : p->spare.v[n - p->replicas];

        if (pod && streq0(obj_label(pod, HASH), revision->name))
            return true;
    }
    return false;
}

static enum again statefulset_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .set = ctl_get_key(ctl, K_STATEFULSET, key)};
    const struct obj *ns;
    struct err why = {0};
    bool wait = false;
    int done;

    if (!p.set || obj_deleting(p.set))
        return DONE;
    if (revisions_sync(ctl, K_STATEFULSET, p.set, "controller.kubernetes.io/hash", &p.history, err) < 0) {
        ns = ctl_get(ctl, K_NAMESPACE, "", p.set->namespace_);
        return !ns || obj_deleting(ns) ? DONE : RETRY;
    }
    if (list(&p, err) < 0)
        return RETRY;
    done = fill(&p, &wait, &why);
    if (done == 0)
        done = claim_owners(&p, &why);
    if (done == 0 && !wait)
        done = shrink(&p, &why);
    if (done == 0 && (!p.spare.n || p.parallel))
        done = update(&p, &why); /* also when one is not up: the update may be what mends it */
    if (tell(&p, key, err) < 0 || revisions_trim(ctl, p.set, &p.history, in_use, &p, err) < 0)
        return RETRY;
    if (done == 0)
        return DONE;
    ns = ctl_get(ctl, K_NAMESPACE, "", p.set->namespace_);
    if (!ns || obj_deleting(ns))
        return DONE;
    ctl_event(ctl, p.set, "Warning", "FailedCreate", "create Pod in StatefulSet %s failed error: %s", p.set->name,
              why.msg);
    *err = why;
    return RETRY;
}

static void statefulset_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                                const struct obj *now)
{
    if (kind == K_STATEFULSET) {
        ctl_want_obj(ctl, now ? now : was);
        return;
    }
    ctl_want_controller_of(ctl, was, K_STATEFULSET);
    ctl_want_controller_of(ctl, now, K_STATEFULSET);
}

extern const struct controller statefulset_controller;
const struct controller statefulset_controller = {
    .name = "statefulset",
    .component = "statefulset-controller",
    .reconcile = statefulset_reconcile,
    .changed = statefulset_changed,
    .kinds = KIND_BIT(K_STATEFULSET) | KIND_BIT(K_POD) | KIND_BIT(K_REVISION),
};
