/* PodDisruptionBudgets: how many of the pods they select may be evicted now.
 *
 * desiredHealthy comes of minAvailable or maxUnavailable; a percentage, and maxUnavailable, are of
 * what the owners of the pods want to have (their scale), so they need owners that can be asked. A
 * pod whose eviction was granted (status.disruptedPods) counts as gone for two minutes; who is still
 * there then was not deleted after all. When nothing can be computed nothing is allowed.
 *
 * Keys: NAMESPACE/NAME of a budget; !NAMESPACE/NAME of a pod whose DisruptionTarget may be stale. */
#include <stdio.h>

#include "codec/selector.h"
#include "controller/ctl_int.h"
#include "controller/pods.h"
#include "controller/rollout.h"
#include "schema/schema.h"

enum { GONE_MS = 120000, OWNERS_MAX = 4096 };

struct sums {
    int64_t healthy, desired, expected, allowed;
    struct val *disrupted; /* pod -> when its eviction was granted */
    int64_t look_ms;       /* when one of these is over; 0: never */
    bool unmanaged;
};

/* ---- how many there should be ---- */

/* What the controller of a pod wants to have. For a replica set of a deployment: the deployment. */
static int scale_of(struct ctl *ctl, const struct obj *pod, const char **ret_uid, int64_t *ret_n,
                    struct err *err)
{
    const struct schema *schema = ctl->all->opts.schema;
    const struct obj *o = pod;
    const struct val *ref = obj_controller(pod), *scale;
    const struct resource *r = NULL;

    for (int hops = 0; ref && hops < 2; hops++, ref = o ? obj_controller(o) : NULL) {
        const struct resource *owner = schema_kind_of(schema, val_str_at(ref, "apiVersion", ""),
                                                      val_str_at(ref, "kind", ""));
        const struct obj *above;

        if (!owner || (hops == 1 && !streq(owner->kind, "Deployment")))
            break;
        owner = schema_stored(owner);
        above = client_get(ctl->client, ctl->arena, arena_printf(ctl->arena, "%s/%s", owner->api_version, owner->plural),
                           pod->namespace_, val_str_at(ref, "name", ""));
        if (!above || !streq(above->uid, val_str_at(ref, "uid", "")))
            break;
        r = owner;
        o = above;
        if (!streq(r->kind, "ReplicaSet"))
            break;
    }
    if (!r)
        return err_set(err, NOT_FOUND, "found no controllers for pod \"%s\"", pod->name);
    scale = schema_scale_get(r, ctl->arena, obj_val(o), err);
    if (!scale)
        return err_set(err, INVALID, "%s%s%s does not implement the scale subresource", r->plural,
                       *r->group ? "." : "", r->group);
    *ret_uid = o->uid;
    *ret_n = val_int_at(scale, "spec.replicas", 0);
    return 0;
}

static int expected_scale(struct ctl *ctl, struct objs pods, struct sums *s, struct err *err)
{
    struct val *seen = val_map(ctl->arena); /* a pod's controller is asked once */

    s->expected = 0;
    for (uint32_t i = 0; i < pods.n; i++) {
        const struct val *ref = obj_controller(pods.v[i]);
        const char *asked = val_str_at(ref, "uid", ""), *uid = "";
        int64_t n = 0;

        if (!ref) {
            s->unmanaged = true;
            continue;
        }
        if (val_get(seen, asked))
            continue;
        if (val_len(seen) >= OWNERS_MAX)
            return err_set(err, INVALID, "more than %d controllers behind one budget", OWNERS_MAX);
        if (scale_of(ctl, pods.v[i], &uid, &n, err) < 0)
            return -1;
        if (!val_get(seen, uid))
            s->expected += n;
        val_put_bool(ctl->arena, seen, asked, true);
        val_put_bool(ctl->arena, seen, uid, true);
    }
    return 0;
}

static int expectations(struct ctl *ctl, const struct obj *pdb, struct objs pods, struct sums *s,
                        struct err *err)
{
    const struct val *most = val_at(obj_val(pdb), "spec.maxUnavailable");
    const struct val *least = val_at(obj_val(pdb), "spec.minAvailable");

    if (!val_is_null(most)) {
        if (expected_scale(ctl, pods, s, err) < 0)
            return -1;
        s->desired = MAX(s->expected - int_or_percent(most, s->expected, true, 0), (int64_t)0);
    } else if (val_is(least, VAL_INT)) {
        s->desired = least->i;
        s->expected = pods.n;
    } else if (!val_is_null(least)) {
        if (expected_scale(ctl, pods, s, err) < 0)
            return -1;
        s->desired = int_or_percent(least, s->expected, true, 0);
    }
    return 0;
}

/* ---- how many there are ---- */

static struct objs selected(struct ctl *ctl, const struct obj *pdb)
{
    const struct val *selector = val_at(obj_val(pdb), "spec.selector");
    struct objs all = ctl_list(ctl, K_POD, pdb->namespace_), pods = {0};

    for (uint32_t i = 0; i < all.n; i++)
        if (selector_matches(selector, val_get(obj_meta(all.v[i]), "labels")))
            objs_add(ctl->arena, &pods, all.v[i]);
    return pods;
}

static void count(struct ctl *ctl, const struct obj *pdb, struct objs pods, struct sums *s)
{
    const struct val *was = val_at(obj_val(pdb), "status.disruptedPods");

    s->disrupted = val_map(ctl->arena);
    for (uint32_t i = 0; i < pods.n; i++) {
        const struct val *when = val_get(was, pods.v[i]->name);
        int64_t over = when ? kubetime_parse(val_text(when, "")) + GONE_MS : 0;

        if (obj_deleting(pods.v[i]))
            continue;
        if (when && over > ctl->now_ms) {
            val_put(ctl->arena, s->disrupted, pods.v[i]->name, when);
            s->look_ms = s->look_ms ? MIN(s->look_ms, over - ctl->now_ms) : over - ctl->now_ms;
            continue;
        }
        if (when)
            ctl_event(ctl, pods.v[i], "Warning", "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't",
                      pdb->namespace_, pdb->name);
        s->healthy += pod_ready(pods.v[i]);
    }
}

/* ---- tell ---- */

static void put_allowed(struct ctl *ctl, struct val *status, const char *is, const char *reason, const char *message)
{
    struct arena *a = ctl->arena;
    struct val *list = val_need_list(a, status, "conditions"), *c = NULL;

    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "DisruptionAllowed"))
            c = it;
    if (!c) {
        c = val_push(a, list, val_map(a));
        val_put_str(a, c, "type", "DisruptionAllowed");
    }
    if (!streq(val_str_at(c, "status", ""), is))
        val_put_str(a, c, "lastTransitionTime", ctl_time(ctl));
    val_put_str(a, c, "status", is);
    val_put_int(a, c, "observedGeneration", val_int_at(status, "observedGeneration", 0));
    val_put_str(a, c, "reason", reason);
    val_put_str(a, c, "message", message);
}

static int tell(struct ctl *ctl, const struct obj *pdb, const struct sums *s, const struct err *why, struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *v = obj_edit(pdb, a), *status = val_need_map(a, v, "status");

    if (why->code) { /* nothing is known: nothing is allowed */
        val_put_int(a, status, "disruptionsAllowed", 0);
        put_allowed(ctl, status, "False", "SyncFailed", why->msg);
        return ctl_update_status(ctl, K_PDB, pdb, v, err);
    }
    val_put_int(a, status, "currentHealthy", s->healthy);
    val_put_int(a, status, "desiredHealthy", s->desired);
    val_put_int(a, status, "expectedPods", s->expected);
    val_put_int(a, status, "disruptionsAllowed", s->allowed);
    val_put_int(a, status, "observedGeneration", obj_generation(pdb));
    if (val_len(s->disrupted))
        val_put(a, status, "disruptedPods", s->disrupted);
    else
        val_del(status, "disruptedPods");
    put_allowed(ctl, status, s->allowed > 0 ? "True" : "False", s->allowed > 0 ? "SufficientPods" : "InsufficientPods", "");
    if (val_equal(status, val_get(obj_val(pdb), "status")))
        return 0;
    if (s->unmanaged)
        ctl_event(ctl, pdb, "Warning", "UnmanagedPods", "Some pods that the budget selects have no controller: its status "
                  "can not count them; set .spec.minAvailable to a whole number to have them counted");
    return ctl_update_status(ctl, K_PDB, pdb, v, err);
}

/* An eviction was granted, the pod was marked, and then nobody deleted it: the mark comes off. */
static enum again clear_mark(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *pod = ctl_get_key(ctl, K_POD, key + 1);
    const struct val *c = pod ? condition_of(pod, "DisruptionTarget") : NULL;
    int64_t left;
    struct val *v;

    if (!c || !pod_active(pod) || !streq(val_str_at(c, "status", ""), "True"))
        return DONE;
    left = kubetime_parse(val_str_at(c, "lastTransitionTime", "")) + GONE_MS - ctl->now_ms;
    if (left > 0) {
        ctl_want_in(ctl, key, left);
        return DONE;
    }
    v = obj_edit(pod, ctl->arena);
    VAL_EACH(val_at(v, "status.conditions"), it)
        if (streq(val_str_at(it, "type", ""), "DisruptionTarget")) {
            val_put_str(ctl->arena, it, "status", "False");
            val_put_str(ctl->arena, it, "lastTransitionTime", ctl_time(ctl));
            val_del(it, "reason");
            val_del(it, "message");
        }
    return ctl_update_status(ctl, K_POD, pod, v, err) < 0 ? RETRY : DONE;
}

static enum again disruption_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *pdb;
    struct sums s = {0};
    struct err why = {0};
    struct objs pods;

    if (*key == '!')
        return clear_mark(ctl, key, err);
    if (!(pdb = ctl_get_key(ctl, K_PDB, key)))
        return DONE;
    pods = selected(ctl, pdb);
    if (!pods.n)
        ctl_event(ctl, pdb, "Normal", "NoPods", "No matching pods found");
    if (expectations(ctl, pdb, pods, &s, &why) < 0)
        ctl_event(ctl, pdb, "Warning", "CalculateExpectedPodCountFailed",
                  "Failed to calculate the number of expected pods: %s", why.msg);
    count(ctl, pdb, pods, &s);
    s.allowed = s.expected > 0 ? MAX(s.healthy - s.desired, (int64_t)0) : 0;
    if (tell(ctl, pdb, &s, &why, err) < 0)
        return RETRY;
    if (s.look_ms)
        ctl_want_in(ctl, key, s.look_ms + 1);
    return DONE;
}

static void want_budgets(struct ctl *ctl, const struct obj *pod)
{
    struct objs all = ctl_list(ctl, K_PDB, pod->namespace_);

    for (uint32_t i = 0; i < all.n; i++)
        if (selector_matches(val_at(obj_val(all.v[i]), "spec.selector"), val_get(obj_meta(pod), "labels")))
            ctl_want_obj(ctl, all.v[i]);
}

static void disruption_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    char key[CLIENT_KEY_BYTES + 1] = "!";

    if (kind == K_PDB) {
        if (!was || !now || obj_generation(was) != obj_generation(now) ||
            !val_equal(val_at(obj_val(was), "status.disruptedPods"), val_at(obj_val(now), "status.disruptedPods")))
            ctl_want_obj(ctl, now ? now : was);
        return;
    }
    if (now && condition_true(now, "DisruptionTarget")) {
        client_key(now, key + 1);
        ctl_want_key(ctl, key);
    }
    if (!ctl_count(ctl, K_PDB))
        return;
    if (was)
        want_budgets(ctl, was);
    if (now)
        want_budgets(ctl, now);
}

extern const struct controller disruption_controller;
const struct controller disruption_controller = {
    .name = "disruption",
    .component = "controllermanager",
    .reconcile = disruption_reconcile,
    .changed = disruption_changed,
    .kinds = KIND_BIT(K_PDB) | KIND_BIT(K_POD),
};
