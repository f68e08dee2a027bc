/* Deployments: one replica set per pod template, the newest grows while the others shrink.
 *
 * This file reads objects into the numbers of rollout.h and writes the answers back; the rules live
 * there. Annotations on replica sets carry what must outlive a pass: the revision (kubectl rollout
 * history and undo read it) and the sizes the last scaling saw (so that one is told from a rollout). */
#include <stdio.h>

#include "codec/selector.h"
#include "controller/ctl.h"
#include "controller/pods.h"
#include "controller/rollout.h"

#define REVISION "deployment.kubernetes.io/revision"
#define HISTORY "deployment.kubernetes.io/revision-history"
#define DESIRED "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS "deployment.kubernetes.io/max-replicas"
#define HASH "pod-template-hash"

struct set { /* first member: rollout.h works on pointers to it */
    struct rollout_set n;
    const struct obj *rs;
};
struct pass {
    struct ctl *ctl;
    const char *key;
    const struct obj *d;
    struct set *sets;
    uint32_t n;
    struct set *fresh;
    struct rollout r;
    bool rolling, paused;
    const struct obj *old_d; /* with the status of before this pass */
};

/* ---- list ---- */

static int64_t note(const struct obj *o, const char *key, int64_t otherwise)
{
    const char *s = obj_annotation(o, key);

    return s ? strtoll(s, NULL, 10) : otherwise;
}

static void read_set(struct set *s, const struct obj *rs)
{
    s->rs = rs;
    s->n = (struct rollout_set){
        .spec = obj_int(rs, "spec.replicas", 1),
        .status = obj_int(rs, "status.replicas", 0),
        .ready = obj_int(rs, "status.readyReplicas", 0),
        .available = obj_int(rs, "status.availableReplicas", 0),
        .created = obj_created_ms(rs),
        .max_noted = note(rs, MAX_REPLICAS, -1),
    };
    s->n.available = MIN(s->n.available, s->n.spec); /* being scaled down already */
    s->n.next = s->n.spec;
}

static void sort_out(struct pass *p)
{
    struct ctl *ctl = p->ctl;
    const struct val *spec = val_get(obj_val(p->d), "spec");
    const struct val *template = val_get(spec, "template");
    const struct val *limits = val_at(spec, "strategy.rollingUpdate");

    p->fresh = NULL;
    p->paused = val_bool_at(spec, "paused", false);
    p->rolling = !streq(val_str_at(spec, "strategy.type", "RollingUpdate"), "Recreate");
    p->r = (struct rollout){.replicas = val_int_at(spec, "replicas", 1),
                            .old = arena_array(ctl->arena, struct rollout_set *, p->n + 1)};
    if (p->rolling)
        rollout_limits(val_get(limits, "maxSurge"), val_get(limits, "maxUnavailable"),
                       p->r.replicas, &p->r.surge, &p->r.unavailable);
    for (uint32_t i = 0; i < p->n; i++) /* the oldest that has this template */
        if (template_equal(ctl->arena, val_at(obj_val(p->sets[i].rs), "spec.template"), template) &&
            (!p->fresh || p->sets[i].n.created < p->fresh->n.created))
            p->fresh = &p->sets[i];
    for (uint32_t i = 0; i < p->n; i++)
        if (&p->sets[i] != p->fresh)
            p->r.old[p->r.old_n++] = &p->sets[i].n;
    p->r.fresh = p->fresh ? &p->fresh->n : NULL;
}

static int list_sets(struct pass *p, struct err *err)
{
    const struct val *selector = val_at(obj_val(p->d), "spec.selector");
    struct objs sets;

    if (ctl_claim(p->ctl, K_REPLICASET, p->d, K_DEPLOYMENT, selector, &sets, err) < 0)
        return -1;
    p->n = sets.n;
    p->sets = arena_array(p->ctl->arena, struct set, sets.n + 1);
    for (uint32_t i = 0; i < sets.n; i++)
        read_set(&p->sets[i], sets.v[i]);
    sort_out(p);
    return 0;
}

static struct set *set_of(struct rollout_set *n)
{
    return container_of(n, struct set, n);
}

/* ---- the new replica set ---- */

static bool annotation_is_ours(const char *key)
{
    static const char *const ours[] = {REVISION, HISTORY, DESIRED, MAX_REPLICAS,
                                       "kubectl.kubernetes.io/last-applied-configuration",
                                       "deprecated.deployment.rollback.to"};

    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (streq(key, ours[i]))
            return true;
    return false;
}

static bool put_note(struct arena *a, struct val *notes, const char *key, const char *value)
{
    if (streq0(val_text(val_get(notes, key), NULL), value))
        return false;
    val_put_str(a, notes, key, value);
    return true;
}

static bool put_sizes(struct pass *p, struct val *notes)
{
    struct arena *a = p->ctl->arena;
    bool any = put_note(a, notes, DESIRED, arena_printf(a, "%lld", (long long)p->r.replicas));

    return put_note(a, notes, MAX_REPLICAS,
                    arena_printf(a, "%lld", (long long)(p->r.replicas + p->r.surge))) || any;
}

static int64_t next_revision(const struct pass *p)
{
    int64_t most = 0;

    for (size_t i = 0; i < p->r.old_n; i++)
        most = MAX(most, note(set_of(p->r.old[i])->rs, REVISION, 0));
    return most + 1;
}

/* What users wrote on the deployment shows on the set; the revision only grows. True: changed. */
static bool annotate(struct pass *p, struct val *rs, bool exists)
{
    struct arena *a = p->ctl->arena;
    struct val *notes = val_need_map(a, val_need_map(a, rs, "metadata"), "annotations");
    const char *had = val_text(val_get(notes, REVISION), NULL);
    int64_t next = next_revision(p);
    bool any = false;

    VAL_EACH_MEMBER(val_get(obj_meta(p->d), "annotations"), m)
        if (!annotation_is_ours(m->key))
            any |= put_note(a, notes, m->key, val_text(&m->v, ""));
    if (!had || strtoll(had, NULL, 10) < next) {
        const char *past = val_text(val_get(notes, HISTORY), NULL);

        if (had) /* an old set comes back: remember which revisions it was */
            put_note(a, notes, HISTORY, past ? arena_printf(a, "%s,%s", past, had) : had);
        any |= put_note(a, notes, REVISION, arena_printf(a, "%lld", (long long)next));
    }
    return (!exists && put_sizes(p, notes)) || any;
}

static int note_revision(struct pass *p, struct err *err)
{
    const char *revision = obj_annotation(p->fresh->rs, REVISION);
    struct arena *a = p->ctl->arena;
    struct val *v;

    if (!revision || streq0(obj_annotation(p->d, REVISION), revision))
        return 0;
    v = obj_edit(p->d, a);
    put_note(a, val_need_map(a, val_get(v, "metadata"), "annotations"), REVISION, revision);
    p->d = ctl_update(p->ctl, K_DEPLOYMENT, v, err);
    return p->d ? 0 : -1;
}

static struct val *build_set(struct pass *p, const char *hash)
{
    struct arena *a = p->ctl->arena;
    const struct val *spec = val_get(obj_val(p->d), "spec");
    struct val *rs = val_map(a), *meta = val_need_map(a, rs, "metadata"), *template, *labels, *s;
    int64_t min_ready = val_int_at(spec, "minReadySeconds", 0);

    template = val_copy(a, val_get(spec, "template"));
    labels = val_need_map(a, val_need_map(a, template, "metadata"), "labels");
    val_put_str(a, labels, HASH, hash);
    val_put(a, meta, "name", val_printf(a, "%s-%s", p->d->name, hash));
    val_put_str(a, meta, "namespace", p->d->namespace_);
    val_put(a, meta, "labels", val_copy(a, labels));
    val_push(a, val_need_list(a, meta, "ownerReferences"),
             owner_reference(a, K_DEPLOYMENT, p->d));
    annotate(p, rs, false);
    s = val_need_map(a, rs, "spec");
    val_put_int(a, s, "replicas", p->rolling ? rollout_first(&p->r) : p->r.replicas);
    if (min_ready)
        val_put_int(a, s, "minReadySeconds", min_ready);
    val_put(a, s, "selector", val_copy(a, val_get(spec, "selector")));
    val_put_str(a, val_need_map(a, val_get(s, "selector"), "matchLabels"), HASH, hash);
    val_put(a, s, "template", template);
    return rs;
}

/* The name is taken by another template with the same hash: count on, the next name differs. */
static int collide(struct pass *p, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct val *v = obj_edit(p->d, a), *status = val_need_map(a, v, "status");

    val_put_int(a, status, "collisionCount", val_int_at(status, "collisionCount", 0) + 1);
    if (ctl_update_status(p->ctl, K_DEPLOYMENT, p->d, v, err) < 0)
        return -1;
    return err_set(err, CONFLICT, "the name of the new replica set is taken");
}

static int progress(struct pass *p, const char *status, const char *reason, const char *message,
                    struct err *err)
{
    const struct obj *d = ctl_get_key(p->ctl, K_DEPLOYMENT, p->key);
    struct val *v;

    if (!d || obj_int(d, "spec.progressDeadlineSeconds", INT32_MAX) == INT32_MAX)
        return 0;
    v = obj_edit(d, p->ctl->arena);
    ctl_condition(p->ctl, v, "Progressing", status, reason, message, true);
    if (ctl_update_status(p->ctl, K_DEPLOYMENT, d, v, err) < 0)
        return -1;
    p->d = ctl_get_key(p->ctl, K_DEPLOYMENT, p->key);
    return p->d ? 0 : err_set(err, NOT_FOUND, "the deployment is gone");
}

static int make_fresh(struct pass *p, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const struct obj *rs;
    const char *hash = template_hash(a, val_at(obj_val(p->d), "spec.template"),
                                     obj_int(p->d, "status.collisionCount", 0));
    const char *name = arena_printf(a, "%s-%s", p->d->name, hash);
    struct err why;

    rs = ctl_create(ctl, K_REPLICASET, p->d->namespace_, build_set(p, hash), &why);
    if (!rs && why.code == ERR_ALREADY_EXISTS) {
        rs = ctl_get(ctl, K_REPLICASET, p->d->namespace_, name);
        if (!rs || !streq0(val_text(val_get(obj_controller(rs), "uid"), NULL), p->d->uid) ||
            !template_equal(a, val_at(obj_val(rs), "spec.template"),
                            val_at(obj_val(p->d), "spec.template")))
            return collide(p, err);
    } else if (!rs) {
        struct err more;

        if (why.code != ERR_FORBIDDEN || !obj_deleting(p->d))
            progress(p, "False", "ReplicaSetCreateError",
                     arena_printf(a, "Failed to create new replica set \"%s\": %s", name, why.msg),
                     &more);
        *err = why;
        return -1;
    } else if (obj_int(rs, "spec.replicas", 0) > 0) {
        ctl_event(ctl, p->d, "Normal", "ScalingReplicaSet", "Scaled up replica set %s from 0 to %lld",
                  rs->name, (long long)obj_int(rs, "spec.replicas", 0));
    }
    if (progress(p, "True", "NewReplicaSetCreated",
                 arena_printf(a, "Created new replica set \"%s\"", rs->name), err) < 0)
        return -1;
    return list_sets(p, err);
}

/* Finds or makes the set of today's template, and numbers the revision. */
static int need_fresh(struct pass *p, bool make, struct err *err)
{
    struct arena *a = p->ctl->arena;
    int64_t min_ready = obj_int(p->d, "spec.minReadySeconds", 0);
    struct val *v;

    if (!p->fresh) {
        if (!make)
            return 0;
        if (make_fresh(p, err) < 0)
            return -1;
        return p->fresh ? note_revision(p, err) : err_set(err, CONFLICT, "the new set changed");
    }
    v = obj_edit(p->fresh->rs, a);
    if (annotate(p, v, true) || min_ready != val_int_at(v, "spec.minReadySeconds", 0)) {
        const struct obj *rs;

        val_put_int(a, val_get(v, "spec"), "minReadySeconds", min_ready);
        rs = ctl_update(p->ctl, K_REPLICASET, v, err);
        if (!rs)
            return -1;
        p->fresh->rs = rs;
    }
    if (!condition_of(p->d, "Progressing") &&
        progress(p, "True", "FoundNewReplicaSet",
                 arena_printf(a, "Found new replica set \"%s\"", p->fresh->rs->name), err) < 0)
        return -1;
    return note_revision(p, err);
}

/* ---- act ---- */

static int write_size(struct pass *p, struct set *s, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct val *v = obj_edit(s->rs, a);
    bool notes = put_sizes(p, val_need_map(a, val_get(v, "metadata"), "annotations"));
    const struct obj *rs;

    if (!notes && s->n.next == s->n.spec)
        return 0;
    val_put_int(a, val_get(v, "spec"), "replicas", s->n.next);
    rs = ctl_update(p->ctl, K_REPLICASET, v, err);
    if (!rs)
        return -1;
    if (s->n.next != s->n.spec)
        ctl_event(p->ctl, p->d, "Normal", "ScalingReplicaSet",
                  "Scaled %s replica set %s from %lld to %lld", s->n.next > s->n.spec ? "up" : "down",
                  rs->name, (long long)s->n.spec, (long long)s->n.next);
    s->rs = rs;
    s->n.spec = s->n.next;
    return 0;
}

/* Those that shrink first: the sum never goes over what was reckoned. */
static int write_sizes(struct pass *p, bool all, struct err *err)
{
    for (int up = 0; up < 2; up++)
        for (uint32_t i = 0; i < p->n; i++) {
            struct set *s = &p->sets[i];

            if ((s->n.next > s->n.spec) != up || (s->n.next == s->n.spec && !all))
                continue;
            if (s->n.next == 0 && s->n.spec == 0)
                continue;
            if (write_size(p, s, err) < 0)
                return -1;
        }
    return 0;
}

static int recreate(struct pass *p, struct err *err)
{
    for (size_t i = 0; i < p->r.old_n; i++)
        p->r.old[i]->next = 0;
    if (write_sizes(p, false, err) < 0)
        return -1;
    for (size_t i = 0; i < p->r.old_n; i++) {
        struct objs pods = ctl_owned(p->ctl, K_POD, set_of(p->r.old[i])->rs->uid);

        for (uint32_t k = 0; k < pods.n; k++)
            if (!pod_finished(pods.v[k]))
                return 0; /* the last old pod must be gone first; its end wakes us */
    }
    if (need_fresh(p, true, err) < 0)
        return -1;
    p->fresh->n.next = p->r.replicas;
    return write_sizes(p, false, err);
}

static bool is_scaling(const struct pass *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->sets[i].n.spec > 0 &&
            note(p->sets[i].rs, DESIRED, p->r.replicas) != p->r.replicas)
            return true;
    return false;
}

static int by_age(const void *x, const void *y)
{
    const struct rollout_set *a = *(struct rollout_set *const *)x;
    const struct rollout_set *b = *(struct rollout_set *const *)y;
    int64_t ra = note(container_of(a, const struct set, n)->rs, REVISION, 0);
    int64_t rb = note(container_of(b, const struct set, n)->rs, REVISION, 0);

    return ra != rb ? (ra > rb) - (ra < rb) : (a->created > b->created) - (a->created < b->created);
}

/* Old sets beyond revisionHistoryLimit go, when nothing of them runs. */
static int forget_old(struct pass *p, struct err *err)
{
    int64_t limit = obj_int(p->d, "spec.revisionHistoryLimit", 10);
    int64_t spare = (int64_t)p->r.old_n - limit;

    if (spare <= 0)
        return 0;
    qsort(p->r.old, p->r.old_n, sizeof *p->r.old, by_age);
    for (int64_t i = 0; i < spare; i++) {
        const struct obj *rs = set_of(p->r.old[i])->rs;

        if (p->r.old[i]->status || p->r.old[i]->spec || obj_deleting(rs) ||
            obj_generation(rs) > obj_int(rs, "status.observedGeneration", 0))
            continue;
        if (ctl_delete(p->ctl, K_REPLICASET, rs, NULL, -1, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- tell ---- */

struct sums {
    int64_t spec, replicas, ready, available, updated;
};

static void drop_condition(struct val *v, const char *type)
{
    struct val *list = val_at(v, "status.conditions");

    for (uint32_t i = list ? list->n : 0; i-- > 0;)
        if (streq(val_text(val_get(&list->items[i], "type"), ""), type))
            val_remove(list, i);
}

static const struct val *cond(const struct val *v, const char *type)
{
    VAL_EACH(val_at(v, "status.conditions"), c)
        if (streq(val_text(val_get(c, "type"), ""), type))
            return c;
    return NULL;
}

static const char *subject(struct pass *p)
{
    struct arena *a = p->ctl->arena;

    return p->fresh ? arena_printf(a, "ReplicaSet \"%s\"", p->fresh->rs->name)
                    : arena_printf(a, "Deployment \"%s\"", p->d->name);
}

static bool complete(const struct pass *p, const struct sums *s)
{
    return s->updated == p->r.replicas && s->replicas == p->r.replicas &&
           s->available == p->r.replicas;
}

/* The condition Progressing: done, moving, or over the deadline since it last moved. */
static void tell_progress(struct pass *p, struct val *v, const struct sums *s)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    int64_t deadline = obj_int(p->d, "spec.progressDeadlineSeconds", 600), since;
    const struct val *before = val_get(obj_val(p->old_d), "status"), *c = cond(v, "Progressing");
    const char *reason = val_text(val_get(c, "reason"), "");
    int64_t was_updated = val_int_at(before, "updatedReplicas", 0);

    if (deadline == INT32_MAX) {
        drop_condition(v, "Progressing");
        return;
    }
    if (s->replicas == s->updated && c && streq(reason, "NewReplicaSetAvailable"))
        return;
    if (complete(p, s)) {
        ctl_condition(ctl, v, "Progressing", "True", "NewReplicaSetAvailable",
                      arena_printf(a, "%s has successfully progressed.", subject(p)), true);
        return;
    }
    if (s->updated > was_updated ||
        s->replicas - s->updated < val_int_at(before, "replicas", 0) - was_updated ||
        s->ready > val_int_at(before, "readyReplicas", 0) ||
        s->available > val_int_at(before, "availableReplicas", 0)) {
        if (c) /* the time of the last step is what the deadline counts from */
            val_put_str(a, (struct val *)(uintptr_t)c, "message", "");
        ctl_condition(ctl, v, "Progressing", "True", "ReplicaSetUpdated",
                      arena_printf(a, "%s is progressing.", subject(p)), true);
        return;
    }
    if (!c || p->paused || streq(reason, "ProgressDeadlineExceeded") || streq(reason, "DeploymentPaused"))
        return;
    since = kubetime_parse(val_text(val_get(c, "lastUpdateTime"), ""));
    if (since >= 0 && since + deadline * 1000 < ctl->now_ms)
        ctl_condition(ctl, v, "Progressing", "False", "ProgressDeadlineExceeded",
                      arena_printf(a, "%s has timed out progressing.", subject(p)), true);
    else if (since >= 0)
        ctl_want_in(ctl, p->key, since + deadline * 1000 + 1000 - ctl->now_ms);
}

static void tell_failure(struct pass *p, struct val *v)
{
    const struct val *c = NULL;

    for (uint32_t i = 0; i < p->n && !c; i++)
        if (&p->sets[i] == p->fresh || !p->fresh)
            c = condition_of(p->sets[i].rs, "ReplicaFailure");
    if (c)
        ctl_condition(p->ctl, v, "ReplicaFailure", val_text(val_get(c, "status"), "True"),
                      val_text(val_get(c, "reason"), ""), val_text(val_get(c, "message"), ""), true);
    else
        drop_condition(v, "ReplicaFailure");
}

static int write_status(struct pass *p, bool progressing, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const struct obj *now = ctl_get_key(ctl, K_DEPLOYMENT, p->key);
    struct sums s = {0};
    struct val *v, *status;
    bool enough;

    if (!now || !streq(now->uid, p->d->uid))
        return 0;
    for (uint32_t i = 0; i < p->n; i++) {
        s.spec += p->sets[i].n.spec;
        s.replicas += p->sets[i].n.status;
        s.ready += p->sets[i].n.ready;
        s.available += p->sets[i].n.available;
    }
    s.updated = p->fresh ? p->fresh->n.status : 0;
    v = obj_edit(now, a);
    status = val_need_map(a, v, "status");
    val_put_int(a, status, "observedGeneration", obj_generation(p->d));
    ctl_put_count(a, status, "replicas", s.replicas);
    ctl_put_count(a, status, "updatedReplicas", s.updated);
    ctl_put_count(a, status, "readyReplicas", s.ready);
    ctl_put_count(a, status, "availableReplicas", s.available);
    ctl_put_count(a, status, "unavailableReplicas", MAX(s.spec - s.available, (int64_t)0));
    enough = s.available >= p->r.replicas - p->r.unavailable;
    ctl_condition(ctl, v, "Available", enough ? "True" : "False",
                  enough ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable",
                  enough ? "Deployment has minimum availability."
                         : "Deployment does not have minimum availability.", true);
    if (progressing) {
        tell_progress(p, v, &s);
        tell_failure(p, v);
    }
    return ctl_update_status(ctl, K_DEPLOYMENT, now, v, err);
}

static int tell_paused(struct pass *p, struct err *err)
{
    const struct val *c = condition_of(p->d, "Progressing");
    const char *reason = val_text(val_get(c, "reason"), "");

    if (streq(reason, "ProgressDeadlineExceeded"))
        return 0;
    if (p->paused && !streq(reason, "DeploymentPaused"))
        return progress(p, "Unknown", "DeploymentPaused", "Deployment is paused", err);
    if (!p->paused && streq(reason, "DeploymentPaused"))
        return progress(p, "Unknown", "DeploymentResumed", "Deployment is resumed", err);
    return 0;
}

static int act(struct pass *p, struct err *err)
{
    if (tell_paused(p, err) < 0)
        return -1;
    if (p->paused || is_scaling(p)) {
        if (need_fresh(p, false, err) < 0)
            return -1;
        rollout_scale(&p->r, p->rolling, obj_int(p->d, "status.replicas", 0));
        if (write_sizes(p, true, err) < 0)
            return -1;
        return p->paused ? forget_old(p, err) : 0;
    }
    if (!p->rolling) {
        if (recreate(p, err) < 0)
            return -1;
    } else {
        if (need_fresh(p, true, err) < 0)
            return -1;
        rollout_step(&p->r);
        if (write_sizes(p, false, err) < 0)
            return -1;
    }
    return p->fresh && p->fresh->n.available == p->r.replicas ? forget_old(p, err) : 0;
}

static enum again deployment_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .key = key, .d = ctl_get_key(ctl, K_DEPLOYMENT, key)};

    if (!p.d)
        return DONE;
    p.old_d = p.d;
    if (list_sets(&p, err) < 0)
        return RETRY;
    if (!obj_deleting(p.d) && act(&p, err) < 0)
        return err->code == ERR_NOT_FOUND && !ctl_get_key(ctl, K_DEPLOYMENT, key) ? DONE : RETRY;
    if (write_status(&p, !obj_deleting(p.d), err) < 0)
        return RETRY;
    return DONE;
}

static void deployment_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                               const struct obj *now)
{
    const struct obj *o = now ? now : was;

    if (kind == K_DEPLOYMENT) {
        ctl_want_obj(ctl, o);
    } else if (kind == K_REPLICASET) {
        ctl_want_controller_of(ctl, was, K_DEPLOYMENT);
        ctl_want_controller_of(ctl, now, K_DEPLOYMENT);
        if (now && !obj_controller(now)) {
            struct objs all = ctl_list(ctl, K_DEPLOYMENT, now->namespace_);

            for (uint32_t i = 0; i < all.n; i++)
                if (selector_matches(val_at(obj_val(all.v[i]), "spec.selector"),
                                     val_get(obj_meta(now), "labels")))
                    ctl_want_obj(ctl, all.v[i]);
        }
    } else if (!now || (was && !pod_finished(was) && pod_finished(now))) {
        /* Recreate waits for the end of the last old pod */
        const struct val *owner = obj_controller(o);

        if (owner && streq(val_text(val_get(owner, "kind"), ""), "ReplicaSet"))
            ctl_want_controller_of(ctl,
                                   ctl_get(ctl, K_REPLICASET, o->namespace_,
                                           val_text(val_get(owner, "name"), "")),
                                   K_DEPLOYMENT);
    }
}

extern const struct controller deployment_controller;
const struct controller deployment_controller = {
    .name = "deployment",
    .component = "deployment-controller",
    .reconcile = deployment_reconcile,
    .changed = deployment_changed,
    .kinds = KIND_BIT(K_DEPLOYMENT) | KIND_BIT(K_REPLICASET) | KIND_BIT(K_POD),
};
