/* apiserver/subs.c - sub-resources. Those that show the object itself (status, resize, approval,
 * ...) go the way of the object; the others are here. */
#include "apiserver/admission.h"
#include "apiserver/hooks.h"

#include "apiserver/managed.h"
#include "schema/patch.h"
#include "schema/table.h"

static int scale_get(struct call *c, const struct obj *o, struct val **ret)
{
    struct err err = {0};
    const struct val *v = answer_version(c, o);

    *ret = schema_scale_get(c->r, c->a, v, &err);
    if (!*ret && err.code == ERR_INTERNAL) /* an object without the number that its Scale shows */
        return fail_internal(c, err.msg);
    return *ret ? 0 : fail_err(c, &err);
}

/* For who writes it: an object without the number has none, which may be set. */
static int scale_old(struct call *c, const struct obj *o, struct val **ret)
{
    struct err err = {0};
    struct val *v;

    if ((*ret = schema_scale_get(c->r, c->a, answer_version(c, o), &err)) || err.code != ERR_INTERNAL)
        return *ret ? 0 : fail_err(c, &err);
    v = val_copy(c->a, answer_version(c, o));
    if (schema_scale_put(c->r, c->a, v, val_map(c->a), &err) < 0 || !(*ret = schema_scale_get(c->r, c->a, v, &err)))
        return fail_err(c, &err);
    return 0;
}

/* An apply of a Scale is one of the object's replicas, by its own kind of manager. */
static int apply_scale(struct call *c, const struct obj *old, const struct val *scale)
{
    const struct subresource *sub = c->sub;
    struct val *config = val_map(c->a), *spec = val_map(c->a);
    const struct val *now;
    int r;

    val_put_str(c->a, config, "apiVersion", c->r->api_version);
    val_put_str(c->a, config, "kind", c->r->kind);
    if (val_at(scale, "spec.replicas"))
        val_put(c->a, spec, "replicas", val_at(scale, "spec.replicas"));
    val_put(c->a, config, "spec", spec);
    c->sub = NULL;
    c->managed_sub = "scale";
    r = managed_apply(c, answer_version(c, old), config, &now, &c->managed);
    c->sub = sub;
    return r;
}

static int scale_put(struct call *c, const struct obj *old, struct val *scale)
{
    struct causes bad = {.a = c->a};
    const char *rv = val_str_at(scale, "metadata.resourceVersion", "");
    const char *uid = val_str_at(scale, "metadata.uid", ""), *name;
    const struct subresource *sub = c->sub;
    const struct obj *o = NULL;
    struct err err = {0};
    struct val *v, *shown, *was = NULL;

    name = val_str_at(scale, "metadata.name", "");
    if (!streq(name, c->path.name))
        return fail(c, 400, "BadRequest", "the name of the object (%s) does not match the name on "
                    "the URL (%s)", name, c->path.name);
    if (val_int_at(scale, "spec.replicas", 0) < 0 && !c->r->custom) { /* a custom resource is judged itself */
        causes_add(&bad, CAUSE_INVALID, "spec.replicas", val_at(scale, "spec.replicas"),
                   "must be greater than or equal to 0");
        return fail_causes_of(c, &bad, "autoscaling", "Scale", name);
    }
    if (scale_old(c, old, &was) < 0 || admission_of_body(c, ADMIT_UPDATE, scale, was, old->name) < 0)
        return -1;
    if (c->applying && apply_scale(c, old, scale) < 0)
        return -1;
    v = val_copy(c->a, answer_version(c, old));
    if (schema_scale_put(c->r, c->a, v, scale, &err) < 0)
        return fail_err(c, &err);
    val_put_str(c->a, meta_of(c->a, v), "resourceVersion", rv);
    if (!*rv) /* a scale without a version goes over any */
        val_put(c->a, meta_of(c->a, v), "resourceVersion",
                val_printf(c->a, "%lld", (long long)old->revision));
    if (*uid)
        val_put_str(c->a, meta_of(c->a, v), "uid", uid);
    c->sub = NULL; /* it is the object that is written */
    c->managed_sub = "scale";
    if (update_with(c, old, v, &o) < 0)
        return -1;
    c->sub = sub;
    shown = schema_scale_get(c->r, c->a, o ? answer_version(c, o) : v, &err);
    if (!shown)
        return fail_err(c, &err);
    answer_val(c, 200, shown);
    return 0;
}

static int scale_patch(struct call *c, const struct obj *old)
{
    const char *t = c->req->content_type ? c->req->content_type : "";
    struct texts strict = {.a = c->a};
    struct api_request plain = *c->req;
    const struct api_request *was = c->req;
    struct err err = {0};
    struct val *scale, *patch, *v;

    if (scale_old(c, old, &scale) < 0)
        return -1;
    plain.content_type = str_starts(t, "application/apply-patch") ? "application/yaml" : "application/json";
    c->req = &plain;
    patch = body_tree(c, NULL);
    c->req = was;
    if (!patch)
        return -1;
    if (str_starts(t, "application/json-patch+json"))
        v = patch_json(c->a, scale, patch, &err);
    else if (str_starts(t, "application/merge-patch+json") ||
             (str_starts(t, "application/strategic-merge-patch+json") && !c->r->custom) ||
             str_starts(t, "application/apply-patch+yaml"))
        v = patch_merge(c->a, scale, patch, &err);
    else
        return fail(c, 415, "UnsupportedMediaType", "the body of the request was in an unknown format");
    if (!v)
        return fail(c, err.code == ERR_INVALID ? 422 : 400,
                    err.code == ERR_INVALID ? "Invalid" : "BadRequest", "%s", err.msg);
    v = val_copy(c->a, v);
    c->applying = str_starts(t, "application/apply-patch");
    if (c->sub->type && schema_decode_type(c->api->schema, c->sub->type, "Scale", "v1", c->a, v,
                                           &strict, &err) < 0) {
        struct causes bad = {.a = c->a};

        causes_add(&bad, CAUSE_INVALID, "patch", NULL, "%s", err.msg);
        return fail_causes_of(c, &bad, "", "", "");
    }
    return scale_put(c, old, v);
}

/* The Scale itself, as a row, or its metadata. */
static const struct val *scale_shown(struct call *c, const struct val *v)
{
    const char *include = c->include_object ? c->include_object : "";
    struct val *t, *meta;

    if (c->form == FORM_PARTIAL)
        return partial_of(c->a, v, c->form_version);
    if (c->form != FORM_TABLE)
        return v;
    meta = val_map(c->a);
    val_put_str(c->a, meta, "resourceVersion", val_str_at(v, "metadata.resourceVersion", ""));
    t = table_new(NULL, c->a, c->form_version, meta, true);
    val_push(c->a, val_need_list(c->a, t, "rows"),
             table_row(NULL, c->a, v, (enum include_object)table_include(include), c->form_version, c->now_ms * 1000));
    return t;
}

static int serve_scale(struct call *c)
{
    bool get = c->is_get, put = streq(c->verb, "update");
    const struct obj *old;
    struct val *v = NULL;

    if (!get && options_write(c, put ? "UpdateOptions" : "PatchOptions") < 0)
        return -1;
    if (answer_negotiate(c, false, get && !c->r->custom) < 0)
        return -1;
    if (put && !(v = body_object(c)))
        return -1;
    if (!(old = find(c)))
        return fail_not_found(c, c->path.name);
    if (put)
        return scale_put(c, old, v);
    if (!get)
        return scale_patch(c, old);
    if (scale_get(c, old, &v) < 0)
        return -1;
    c->resp.revision = old->revision;
    answer_val(c, 200, scale_shown(c, v));
    return 0;
}

/* ---------------------------------------------------------------- pods */

static void set_condition(struct call *c, struct val *v, const char *type, const char *status,
                          const char *reason, const char *message)
{
    struct val *list = val_need_list(c->a, val_need_map(c->a, v, "status"), "conditions");
    struct val *cond = NULL;

    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), type))
            cond = it;
    if (!cond) {
        cond = val_push(c->a, list, val_map(c->a));
        val_put_str(c->a, cond, "type", type);
    }
    if (!streq(val_str_at(cond, "status", ""), status)) {
        val_put_str(c->a, cond, "status", status);
        val_put(c->a, cond, "lastProbeTime", val_null(c->a));
        val_put_str(c->a, cond, "lastTransitionTime", now_text(c));
    }
    if (reason)
        val_put_str(c->a, cond, "reason", reason);
    if (message)
        val_put_str(c->a, cond, "message", message);
}

/* A conflict that names something else than c->r as its kind. */
static int fail_conflict_of(struct call *c, const char *kind, const char *name, const char *text)
{
    struct val *s;

    fail_conflict(c, name, "%s", text);
    s = val_copy(c->a, c->resp.val);
    val_put_str(c->a, val_need_map(c->a, s, "details"), "kind", kind);
    return fail_status(c, s);
}

int bind_pod(struct call *c, const char *name, const struct val *b)
{
    const char *node = val_str_at(b, "target.name", ""), *kind = val_str_at(b, "target.kind", "");
    struct store_table *pods = table_named(c->api->store, "", "pods");
    const struct obj *old, *o = NULL;
    struct causes bad = {.a = c->a};
    struct val *v, *meta;

    if (*kind && !streq(kind, "Node"))
        causes_add(&bad, CAUSE_NOT_SUPPORTED, "target.kind", val_str(c->a, kind),
                   "supported values: \"Node\", \"<empty>\"");
    if (!*node)
        causes_add(&bad, CAUSE_REQUIRED, "target.name", NULL, "%s", "");
    if (bad.n) /* upstream answers this without causes */
        return fail(c, 500, "", "%s: %s", bad.v[0].field, bad.v[0].message);
    c->r = schema_resource(c->api->schema, "", "v1", "pods");
    c->stored = schema_stored(c->r);
    c->table = pods;
    old = store_get(c->api->store, pods, c->path.ns, name);
    if (!old)
        return fail_not_found(c, name);
    pin_obj(c->a, obj_ref(old));
    if (*val_str_at(b, "metadata.uid", "") && !streq(val_str_at(b, "metadata.uid", ""), old->uid))
        return fail_conflict(c, name, "Precondition failed: UID in precondition: %s, UID in object "
                             "meta: %s", val_str_at(b, "metadata.uid", ""), old->uid);
    if (obj_deleting(old))
        return fail_conflict_of(c, "pods/binding", name, arena_printf(c->a, "pod %s is being deleted, cannot be assigned to a host", name));
    if (*val_str_at(obj_val(old), "spec.nodeName", ""))
        return fail_conflict_of(c, "pods/binding", name, arena_printf(c->a, "pod %s is already assigned to node \"%s\"", name,
                             val_str_at(obj_val(old), "spec.nodeName", "")));
    if (val_len(val_at(obj_val(old), "spec.schedulingGates")))
        return fail_conflict_of(c, "pods/binding", name, arena_printf(c->a, "pod %s has non-empty .spec.schedulingGates", name));
    v = obj_edit(old, c->a);
    meta = meta_of(c->a, v);
    val_put_str(c->a, val_need_map(c->a, v, "spec"), "nodeName", node);
    VAL_EACH_MEMBER(val_at(b, "metadata.annotations"), m)
        val_put(c->a, val_need_map(c->a, meta, "annotations"), m->key, &m->v);
    VAL_EACH_MEMBER(val_at(b, "metadata.labels"), m)
        val_put(c->a, val_need_map(c->a, meta, "labels"), m->key, &m->v);
    topology_labels(c, v, node);
    set_condition(c, v, "PodScheduled", "True", NULL, NULL);
    val_del(val_get(v, "status"), "nominatedNodeName"); /* it has its node */
    if (put_over(c, old, v, &o) < 0)
        return -1;
    answer_val(c, 201, status_doc(c->a, 201, "", ""));
    return 0;
}

static int serve_binding(struct call *c)
{
    struct val *v;

    if (options_write(c, "CreateOptions") < 0 || answer_negotiate(c, false, false) < 0 ||
        !(v = body_object(c)))
        return -1;
    if (*val_str_at(v, "metadata.name", "") && !streq(val_str_at(v, "metadata.name", ""), c->path.name))
        return fail(c, 400, "BadRequest", "name in URL does not match name in Binding object");
    if (admission_of_body(c, ADMIT_CREATE, v, NULL, c->path.name) < 0)
        return -1;
    return bind_pod(c, c->path.name, v);
}

/* Budgets that select the pod must have room for one more. */
static const struct val *budget_of(struct call *c, const struct obj *pod, const struct obj **ret,
                                   bool *ret_many)
{
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;

    *ret = NULL;
    *ret_many = false;
    if (store_iter_init(&it, c->api->store,
                        table_named(c->api->store, "policy", "poddisruptionbudgets"),
                        c->path.ns, 0, NULL, NULL, &err) < 0)
        return NULL;
    while ((o = store_iter_next(&it))) {
        struct selector *s = selector_of(c->a, val_at(obj_val(o), "spec.selector"), &err);

        if (!s || !selector_match(s, val_get(obj_meta(pod), "labels")))
            continue;
        if (*ret)
            *ret_many = true;
        *ret = o;
        pin_obj(c->a, obj_ref(o));
    }
    store_iter_done(&it);
    return *ret ? obj_val(*ret) : NULL;
}

static void set_allowed(struct call *c, struct val *status, bool allowed)
{
    struct val *list = val_need_list(c->a, status, "conditions"), *cond = NULL;

    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "DisruptionAllowed"))
            cond = it;
    if (!cond) {
        cond = val_push(c->a, list, val_map(c->a));
        val_put_str(c->a, cond, "type", "DisruptionAllowed");
    }
    if (!streq(val_str_at(cond, "status", ""), allowed ? "True" : "False"))
        val_put_str(c->a, cond, "lastTransitionTime", now_text(c));
    val_put_str(c->a, cond, "status", allowed ? "True" : "False");
    val_put_str(c->a, cond, "reason", allowed ? "SufficientPods" : "InsufficientPods");
    val_put_str(c->a, cond, "message", "");
    val_put_int(c->a, cond, "observedGeneration", val_int_at(status, "observedGeneration", 0));
}

/* Why the budget has no room, in upstream's words. */
static const char *no_room(struct call *c, const char *name, const struct val *b)
{
    const struct val *status = val_get(b, "status"), *cond = NULL;
    long long now = (long long)val_int_at(status, "currentHealthy", 0), want = (long long)val_int_at(status, "desiredHealthy", 0);
    const char *message;
    bool told;

    VAL_EACH(val_get(status, "conditions"), it)
        if (streq(val_str_at(it, "type", ""), "DisruptionAllowed"))
            cond = it;
    message = val_str_at(cond, "message", "");
    told = streq(val_str_at(cond, "status", ""), "False") && *message;
    if (told && streq(val_str_at(cond, "reason", ""), "SyncFailed"))
        return arena_printf(c->a, "The disruption budget %s does not allow evicting pods currently because it failed sync: %s", name, message);
    if (now <= want)
        return arena_printf(c->a, "The disruption budget %s needs %lld healthy pods and has %lld currently", name, want, now);
    if (told)
        return arena_printf(c->a, "The disruption budget %s does not allow evicting pods currently (%s): %s", name,
                            val_str_at(cond, "reason", ""), message);
    return arena_printf(c->a, "The disruption budget %s does not allow evicting pods currently", name);
}

static int refuse_eviction(struct call *c, const char *why, int retry_s)
{
    struct val *s = status_doc(c->a, 429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    struct val *d = val_map(c->a), *cause = val_map(c->a);

    val_put_str(c->a, cause, "reason", "DisruptionBudget");
    val_put_str(c->a, cause, "message", why);
    val_push(c->a, val_need_list(c->a, d, "causes"), cause);
    if (retry_s)
        val_put_int(c->a, d, "retryAfterSeconds", retry_s);
    val_put(c->a, s, "details", d);
    return fail_status(c, s);
}

static int refuse_budget(struct call *c, const char *name, const char *why)
{
    struct val *s = status_doc(c->a, 403, "Forbidden", arena_printf(c->a, "poddisruptionbudget.policy \"%s\" is forbidden: %s", name, why));
    struct val *d = val_need_map(c->a, s, "details");

    val_put_str(c->a, d, "name", name);
    val_put_str(c->a, d, "group", "policy");
    val_put_str(c->a, d, "kind", "poddisruptionbudget");
    return fail_status(c, s);
}

/* Pods that are broken anyway do not use up a budget, where it says so or where it is kept without them. */
static bool needs_no_budget(const struct obj *pod, const struct val *b)
{
    int64_t want = val_int_at(b, "status.desiredHealthy", 0);

    VAL_EACH(val_at(obj_val(pod), "status.conditions"), cond)
        if (streq(val_str_at(cond, "type", ""), "Ready") && streq(val_str_at(cond, "status", ""), "True"))
            return false;
    return streq(val_str_at(b, "spec.unhealthyPodEvictionPolicy", ""), "AlwaysAllow") ||
           (want > 0 && val_int_at(b, "status.currentHealthy", 0) >= want);
}

enum { DISRUPTED_MAX = 2000 };

static int take_budget(struct call *c, const struct obj *pod)
{
    const char *phase = val_str_at(obj_val(pod), "status.phase", "");
    struct store_table *pods = c->table;
    const struct obj *pdb, *o = NULL;
    const struct val *b;
    struct val *v, *s;
    int64_t left;
    bool many;
    int r;

    if (streq(phase, "Succeeded") || streq(phase, "Failed") || streq(phase, "Pending") || obj_deleting(pod))
        return 0;
    b = budget_of(c, pod, &pdb, &many);
    if (many)
        return fail(c, 500, "", "This pod has more than one PodDisruptionBudget, which "
                    "the eviction subresource does not support.");
    if (!b || needs_no_budget(pod, b))
        return 0;
    left = val_int_at(b, "status.disruptionsAllowed", 0);
    if (val_int_at(b, "status.observedGeneration", 0) < val_int_at(b, "metadata.generation", 0))
        return refuse_eviction(c, arena_printf(c->a, "The disruption budget %s is still being processed by the server.", pdb->name), 10);
    if (left < 0)
        return refuse_budget(c, pdb->name, "pdb disruptions allowed is negative");
    if (val_len(val_at(b, "status.disruptedPods")) > DISRUPTED_MAX)
        return refuse_budget(c, pdb->name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    if (!left)
        return refuse_eviction(c, no_room(c, pdb->name, b), 0);
    v = obj_edit(pdb, c->a);
    s = val_need_map(c->a, v, "status");
    val_put_int(c->a, s, "disruptionsAllowed", left - 1);
    val_put_str(c->a, val_need_map(c->a, s, "disruptedPods"), pod->name, now_text(c));
    if (left == 1)
        set_allowed(c, s, false);
    c->table = table_named(c->api->store, "policy", "poddisruptionbudgets");
    r = put_over(c, pdb, v, &o);
    c->table = pods;
    return r;
}

/* Says on the pod why it goes. */
static int note_eviction(struct call *c, const struct obj *pod, const struct obj **ret)
{
    const char *phase = val_str_at(obj_val(pod), "status.phase", "");
    const struct obj *o = NULL;
    struct val *v;

    *ret = pod;
    if (streq(phase, "Succeeded") || streq(phase, "Failed") || obj_deleting(pod) || c->o.dry_run)
        return 0;
    v = obj_edit(pod, c->a);
    set_condition(c, v, "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting");
    if (put_over(c, pod, v, &o) < 0)
        return -1;
    *ret = o ? o : pod;
    return 0;
}

static int serve_eviction(struct call *c)
{
    const struct obj *pod, *left = NULL;
    struct delete_options how = {.grace_s = -1};
    struct val *v;

    if (options_write(c, "CreateOptions") < 0 || answer_negotiate(c, false, false) < 0 ||
        !(v = body_object(c)))
        return -1;
    if (!streq(val_str_at(v, "metadata.name", ""), c->path.name))
        return fail(c, 400, "BadRequest", "name in URL does not match name in Eviction object");
    if (!(pod = find(c)))
        return fail_not_found(c, c->path.name);
    if (admission_of_body(c, ADMIT_CREATE, v, NULL, c->path.name) < 0)
        return -1;
    VAL_EACH(val_at(v, "deleteOptions.dryRun"), d)
        c->o.dry_run |= streq(val_text(d, ""), "All");
    how.grace_s = val_int_at(v, "deleteOptions.gracePeriodSeconds", -1);
    how.uid = val_str_at(v, "deleteOptions.preconditions.uid", NULL);
    how.revision = val_str_at(v, "deleteOptions.preconditions.resourceVersion", NULL);
    how.propagation = val_str_at(v, "deleteOptions.propagationPolicy", NULL);
    if (how.uid && !streq(how.uid, pod->uid))
        return fail_conflict(c, pod->name, "Precondition failed: UID in precondition: %s, UID in "
                             "object meta: %s", how.uid, pod->uid);
    if (restrict_node_eviction(c, pod) < 0)
        return -1;
    if (take_budget(c, pod) < 0 || (!how.revision && note_eviction(c, pod, &pod) < 0) || delete_object(c, pod, &how, &left) < 0)
        return -1;
    answer_val(c, 201, status_doc(c->a, 201, "", ""));
    return 0;
}

/* ---------------------------------------------------------------- tokens */

enum { TOKEN_MIN_S = 600, EXTENDED_FROM_S = 3607, EXTENDED_S = 365 * 24 * 3600 };

static bool own_audience(const struct val *audiences)
{
    VAL_EACH(audiences, it)
        if (!streq(val_text(it, ""), TOKEN_ISSUER))
            return false;
    return true;
}

static int bound_object(struct call *c, const struct val *ref, struct token_spec *t)
{
    const char *kind = val_str_at(ref, "kind", ""), *uid = val_str_at(ref, "uid", "");
    const char *name = val_str_at(ref, "name", ""), *version = val_str_at(ref, "apiVersion", "");
    const struct obj *o, *node;

    if (!val_is(ref, VAL_MAP))
        return 0;
    if (strchr(version, '/') || (!streq(kind, "Pod") && !streq(kind, "Secret") && !streq(kind, "Node")))
        return fail(c, 400, "BadRequest", "cannot bind token to object of type %s%s, Kind=%s", strchr(version, '/') ? "" : "/",
                    version, kind);
    if (!(o = api_lookup(c->api, c->a, kind, c->path.ns, name)))
        return fail_not_found_in(c, "", streq(kind, "Pod") ? "pods" : streq(kind, "Node") ? "nodes" : "secrets",
                                 name);
    if (streq(kind, "Pod") &&
        !streq(val_str_at(obj_val(o), "spec.serviceAccountName", ""), c->path.name))
        return fail(c, 400, "BadRequest", "cannot bind token for serviceaccount \"%s\" to pod "
                    "running with different serviceaccount name.", c->path.name);
    if (*uid && !streq(uid, o->uid))
        return fail_conflict_of(c, kind, name, arena_printf(c->a, "the UID in the bound object reference (%s) does not match the UID in "
                             "record. The object might have been deleted and then recreated", uid));
    t->bound_kind = kind;
    t->bound_name = name;
    t->bound_uid = o->uid;
    if (streq(kind, "Pod") && *val_str_at(obj_val(o), "spec.nodeName", "")) {
        t->node_name = val_str_at(obj_val(o), "spec.nodeName", "");
        node = api_lookup(c->api, c->a, "Node", "", t->node_name);
        t->node_uid = node ? node->uid : NULL;
    }
    return 0;
}

static int serve_token(struct call *c)
{
    const struct obj *account;
    struct causes bad = {.a = c->a};
    struct err err = {0};
    struct val *v, *spec, *status, *meta, *own;
    const struct val *aud;
    int64_t seconds;
    char *token;
    struct token_spec t = {0};

    if (options_write(c, "CreateOptions") < 0 || answer_negotiate(c, false, false) < 0 ||
        !(v = body_object(c)))
        return -1;
    meta = meta_of(c->a, v);
    if (*val_str_at(meta, "name", "") && !streq(val_str_at(meta, "name", ""), c->path.name))
        causes_add(&bad, CAUSE_INVALID, "metadata.name", val_get(meta, "name"),
                   "must match the service account name if specified");
    if (*val_str_at(meta, "namespace", "") && !streq(val_str_at(meta, "namespace", ""), c->path.ns))
        causes_add(&bad, CAUSE_INVALID, "metadata.namespace", val_get(meta, "namespace"),
                   "must match the service account namespace if specified");
    if (bad.n)
        return fail_causes_of(c, &bad, "authentication.k8s.io", "TokenRequest", c->path.name);
    if (!(account = find(c)))
        return fail_not_found(c, c->path.name);
    if (admission_of_body(c, ADMIT_CREATE, v, NULL, c->path.name) < 0)
        return -1;
    meta = meta_of(c->a, v);
    if (*val_str_at(meta, "uid", "") && !streq(val_str_at(meta, "uid", ""), account->uid))
        return fail_conflict_of(c, "TokenRequest", c->path.name, arena_printf(c->a, "the UID in the token "
                                "request (%s) does not match the UID of the service account (%s)",
                                val_str_at(meta, "uid", ""), account->uid));
    spec = val_need_map(c->a, v, "spec");
    aud = val_get(spec, "audiences");
    if (!val_len(aud)) {
        own = val_list(c->a);
        val_push_str(c->a, own, TOKEN_ISSUER);
        aud = val_put(c->a, spec, "audiences", own);
    }
    seconds = val_int_at(spec, "expirationSeconds", 3600);
    if (seconds < TOKEN_MIN_S)
        causes_add(&bad, CAUSE_INVALID, "spec.expirationSeconds", val_int(c->a, seconds),
                   "may not specify a duration less than 10 minutes");
    if (seconds > (int64_t)1 << 32)
        causes_add(&bad, CAUSE_INVALID, "spec.expirationSeconds", val_int(c->a, seconds),
                   "may not specify a duration larger than 2^32 seconds");
    if (bad.n)
        return fail_causes_of(c, &bad, "authentication.k8s.io", "TokenRequest", "");
    val_put_int(c->a, spec, "expirationSeconds", seconds);
    if (val_is_null(val_get(spec, "boundObjectRef")))
        val_put(c->a, spec, "boundObjectRef", val_null(c->a));
    t = (struct token_spec){.namespace_ = c->path.ns, .account = c->path.name,
                            .account_uid = account->uid, .audiences = aud,
                            .id = call_uuid(c),
                            .now = c->now_ms / 1000, .seconds = seconds};
    if (restrict_node_token(c, spec) < 0 || bound_object(c, val_get(spec, "boundObjectRef"), &t) < 0)
        return -1;
    if (seconds == EXTENDED_FROM_S && t.bound_kind && streq(t.bound_kind, "Pod") && own_audience(aud)) {
        /* what a kubelet asks for a pod: old clients read their token once, so it may be used for a
         * year, and from its time on that is noted */
        t.warn_after = t.now + seconds;
        t.seconds = EXTENDED_S;
    }
    if (!(token = token_make(pki_sa_key(c->api->pki), &t, c->a, &err)))
        return fail_err(c, &err);
    audit_note(c->req->audit, "authentication.kubernetes.io/issued-credential-id",
               arena_printf(c->a, "JTI=%s", t.id));
    status = val_map(c->a);
    val_put_str(c->a, status, "token", token);
    val_put_str(c->a, status, "expirationTimestamp",
                time_text(c->a, (c->now_ms + seconds * 1000) * 1000, false));
    val_put(c->a, v, "status", status);
    meta = val_map(c->a);
    val_put_str(c->a, meta, "name", c->path.name);
    val_put_str(c->a, meta, "namespace", c->path.ns);
    val_put_str(c->a, meta, "uid", account->uid);
    val_put_str(c->a, meta, "creationTimestamp", now_text(c));
    val_put(c->a, v, "metadata", meta);
    answer_val(c, 201, v);
    return 0;
}

/* ---------------------------------------------------------------- namespaces */

/* The one way to take spec.finalizers out. */
static int serve_finalize(struct call *c)
{
    const struct obj *old, *o = NULL;
    struct val *v, *edited, *spec;

    if (options_write(c, "UpdateOptions") < 0 || answer_negotiate(c, false, true) < 0 ||
        !(v = body_object(c)))
        return -1;
    if (!streq(val_str_at(v, "metadata.name", ""), c->path.name))
        return fail(c, 400, "BadRequest", "the name of the object does not match the name on the URL");
    if (!(old = find(c)))
        return fail_not_found(c, c->path.name);
    if (*val_str_at(v, "metadata.resourceVersion", "") &&
        atoll(val_str_at(v, "metadata.resourceVersion", "")) != old->revision)
        return fail_conflict(c, old->name, "the object has been modified; please apply your "
                             "changes to the latest version and try again");
    edited = obj_edit(old, c->a);
    spec = val_need_map(c->a, edited, "spec");
    if (val_len(val_at(v, "spec.finalizers")))
        val_put(c->a, spec, "finalizers", val_at(v, "spec.finalizers"));
    else
        val_del(spec, "finalizers");
    if (put_over(c, old, edited, &o) < 0)
        return -1;
    if (o)
        answer_obj(c, 200, o);
    else
        answer_tree(c, 200, edited);
    return 0;
}

/* ---------------------------------------------------------------- */

static const struct {
    const char *plural, *sub;
    int (*serve)(struct call *c);
} SUBS[] = {
    {"pods", "binding", serve_binding},       {"pods", "eviction", serve_eviction},
    {"serviceaccounts", "token", serve_token}, {"namespaces", "finalize", serve_finalize},
};

int sub_serve(struct call *c)
{
    if (streq(c->sub->name, "scale"))
        return serve_scale(c);
    for (size_t i = 0; i < ARRAY_LEN(SUBS); i++)
        if (streq(c->stored->plural, SUBS[i].plural) && streq(c->sub->name, SUBS[i].sub))
            return SUBS[i].serve(c);
    if (!streq(c->sub->kind, c->r->kind) || streq(c->sub->name, "log") ||
        streq(c->sub->name, "exec") || streq(c->sub->name, "attach") ||
        streq(c->sub->name, "portforward") || streq(c->sub->name, "proxy"))
        return fail(c, 501, "NotImplemented", "%s/%s is only served over HTTP", c->r->plural,
                    c->sub->name);
    if (streq(c->verb, "get"))
        return read_get(c);
    if (streq(c->verb, "update"))
        return write_update(c);
    if (streq(c->verb, "patch"))
        return write_patch(c);
    return fail_no_method(c);
}
