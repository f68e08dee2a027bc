/* apiserver/delete.c - deletion: at once, or marked until grace and finalizers are over. */
#include "apiserver/admission.h"
#include "apiserver/hooks.h"

#include <stdio.h>

enum { ASK_AT_ONCE = 256 }; /* objects of a collection that webhooks are asked about side by side */

static const struct val *strs(struct call *c, const char *s)
{
    return val_str(c->a, s);
}

static int fail_options(struct call *c, const struct causes *bad)
{
    return fail_causes_of(c, bad, "meta.k8s.io", "DeleteOptions", "");
}

/* From a body, which then is all that counts. */
static int read_body(struct call *c, struct delete_options *how, struct causes *bad)
{
    const struct type *type = schema_type(c->api->schema, "meta.v1.DeleteOptions");
    struct val *v = body_tree(c, NULL);
    const char *kind, *version;
    struct err err = {0};

    if (!v)
        return -1;
    kind = val_str_at(v, "kind", "");
    version = val_str_at(v, "apiVersion", "");
    if (!val_is(v, VAL_MAP) || (*kind && !streq(kind, "DeleteOptions")) ||
        (*kind && !*version) ||
        (*version && !streq(version, "v1") && !streq(version, "meta.k8s.io/v1") &&
         !streq(version, c->r->api_version)))
        return fail(c, 400, "BadRequest", "decoded object cannot be converted to DeleteOptions");
    if (type && schema_decode_type(c->api->schema, type, "DeleteOptions", "v1", c->a, v, NULL, &err) < 0)
        return fail(c, 400, "BadRequest", "%s", err.msg);
    how->grace_s = val_int_at(v, "gracePeriodSeconds", -1);
    if (val_get(v, "gracePeriodSeconds") && how->grace_s < 0)
        how->grace_s = 1;
    how->propagation = val_str_at(v, "propagationPolicy", NULL);
    how->orphan_set = val_is(val_get(v, "orphanDependents"), VAL_BOOL);
    how->orphan = val_bool_at(v, "orphanDependents", false);
    how->uid = val_str_at(v, "preconditions.uid", NULL);
    how->revision = val_str_at(v, "preconditions.resourceVersion", NULL);
    c->o.dry_run = false;
    VAL_EACH(val_get(v, "dryRun"), d) {
        if (streq(val_text(d, ""), "All"))
            c->o.dry_run = true;
        else
            causes_add(bad, CAUSE_NOT_SUPPORTED, "dryRun", d, "supported values: \"All\"");
    }
    return 0;
}

static int read_query(struct call *c, struct delete_options *how)
{
    const char *grace = param(c, "gracePeriodSeconds");
    char *end;

    how->propagation = param(c, "propagationPolicy");
    how->orphan_set = param(c, "orphanDependents") != NULL;
    how->orphan = param_bool(c, "orphanDependents");
    if (!str_empty(grace)) {
        how->grace_s = strtoll(grace, &end, 10);
        if (*end)
            return fail(c, 400, "BadRequest", "strconv.ParseInt: parsing \"%s\": invalid syntax", grace);
        if (how->grace_s < 0)
            how->grace_s = 1; /* as the field's documentation has it: negative means 1 */
    }
    return 0;
}

static int read_options(struct call *c, struct delete_options *how)
{
    struct causes bad = {.a = c->a};

    *how = (struct delete_options){.grace_s = -1};
    if (c->req->body_n || c->req->body_val) {
        if (read_body(c, how, &bad) < 0)
            return -1;
    } else {
        if (options_write(c, "DeleteOptions") < 0 || read_query(c, how) < 0)
            return -1;
    }
    if (how->propagation && how->orphan_set)
        causes_add(&bad, CAUSE_INVALID, "propagationPolicy", strs(c, how->propagation),
                   "orphanDependents and deletionPropagation cannot be both set");
    else if (how->propagation && !streq(how->propagation, "Foreground") &&
             !streq(how->propagation, "Background") && !streq(how->propagation, "Orphan"))
        causes_add(&bad, CAUSE_NOT_SUPPORTED, "propagationPolicy", strs(c, how->propagation),
                   "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"");
    return bad.n ? fail_options(c, &bad) : 0;
}

static int fail_precondition(struct call *c, const struct obj *o, const char *what,
                             const char *wanted, const char *is)
{
    struct val *s = status_doc(
        c->a, 409, "Conflict",
        arena_printf(c->a, "Operation cannot be fulfilled on %s \"%s\": Precondition failed: %s in "
                     "precondition: %s, %s in object meta: %s",
                     c->stored->kind, o->name, what, wanted, what, is));
    struct val *d = val_map(c->a);

    val_put_str(c->a, d, "name", o->name);
    if (*c->stored->group)
        val_put_str(c->a, d, "group", c->stored->group);
    val_put_str(c->a, d, "kind", c->stored->kind);
    val_put(c->a, s, "details", d);
    return fail_status(c, s);
}

static int check_preconditions(struct call *c, const struct obj *o, const struct delete_options *how)
{
    char rv[24];

    snprintf(rv, sizeof(rv), "%lld", (long long)o->revision);
    if (how->uid && !streq(how->uid, o->uid))
        return fail_precondition(c, o, "UID", how->uid, o->uid);
    if (how->revision && !streq(how->revision, rv))
        return fail_precondition(c, o, "ResourceVersion", how->revision, rv);
    return 0;
}

static void set_finalizer(struct call *c, struct val *meta, const char *name, bool on)
{
    struct val *list = val_need_list(c->a, meta, "finalizers");

    for (uint32_t i = 0; i < list->n; i++) {
        if (!streq(val_text(&list->items[i], ""), name))
            continue;
        if (on)
            return;
        val_remove(list, i--);
    }
    if (on)
        val_push_str(c->a, list, name);
    if (!val_len(list))
        val_del(meta, "finalizers");
}

/* The finalizers that the propagation policy asks for. */
static void set_policy(struct call *c, struct val *v, const struct delete_options *how)
{
    struct val *meta = meta_of(c->a, v);
    const char *p = how->propagation;
    bool orphan, foreground;

    if (c->flags & KF_NO_GC)
        return;
    if (p || how->orphan_set) {
        orphan = p ? streq(p, "Orphan") : how->orphan;
        foreground = p && streq(p, "Foreground");
    } else {
        VAL_EACH(val_get(meta, "finalizers"), f)
            if (streq(val_text(f, ""), "orphan") || streq(val_text(f, ""), "foregroundDeletion"))
                return; /* somebody asked before */
        orphan = c->flags & KF_ORPHANS;
        foreground = false;
    }
    set_finalizer(c, meta, "orphan", orphan);
    set_finalizer(c, meta, "foregroundDeletion", foreground);
}

/* The options as plugins and webhooks see them. */
static const struct val *options_val(struct call *c, const struct delete_options *how)
{
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "kind", "DeleteOptions");
    val_put_str(c->a, v, "apiVersion", "meta.k8s.io/v1");
    if (how->grace_s >= 0)
        val_put_int(c->a, v, "gracePeriodSeconds", how->grace_s);
    if (how->uid)
        val_put_str(c->a, val_need_map(c->a, v, "preconditions"), "uid", how->uid);
    if (how->revision)
        val_put_str(c->a, val_need_map(c->a, v, "preconditions"), "resourceVersion", how->revision);
    if (how->orphan_set)
        val_put_bool(c->a, v, "orphanDependents", how->orphan);
    if (how->propagation)
        val_put_str(c->a, v, "propagationPolicy", how->propagation);
    if (c->o.dry_run)
        val_push_str(c->a, val_need_list(c->a, v, "dryRun"), "All");
    return v;
}

/* The deletion of an evicted pod was admitted as the eviction it is. */
static int admit_delete(struct call *c, const struct obj *o, const struct delete_options *how)
{
    bool namespace_ = streq(c->stored->table, "namespaces"), asked = c->stored->custom && c->user;
    struct admission ad = {.op = ADMIT_DELETE, .sub = "", .in = asked ? c->r : c->stored,
                           .old = asked ? answer_version(c, o) : obj_val(o),
                           .old_obj = o, .name = o->name, .ns = namespace_ ? o->name : o->namespace_};

    if (c->sub)
        return restrict_node(c, NULL, o);
    ad.options = options_val(c, how);
    if (admission_mutate(c, &ad) < 0 || admission_validate(c, &ad) < 0)
        return -1;
    return c->hooks && c->hooks->check_delete ? c->hooks->check_delete(c, o) : 0;
}

/* What can go gracefully is first told to go at once, so that watches see it before they see it gone;
 * upstream, too, makes two versions of it. A dry run only shows. */
static int tell_end(struct call *c, const struct obj **o, struct val *v, bool was_deleting)
{
    struct store *s = c->api->store;
    struct val *meta = meta_of(c->a, v);
    const struct obj *told;
    struct err err = {0};

    if (!was_deleting) {
        val_put_str(c->a, meta, "deletionTimestamp", now_text(c));
        if (val_int_at(meta, "generation", 0) > 0)
            val_put_int(c->a, meta, "generation", val_int_at(meta, "generation", 0) + 1);
    }
    val_put_int(c->a, meta, "deletionGracePeriodSeconds", 0);
    if (c->o.dry_run)
        return 0;
    told = obj_seal(v, store_next_revision(s));
    pin_obj(c->a, told);
    if (store_put(s, c->table, told, (*o)->revision, 0, &err) < 0)
        return err.code == ERR_NOT_FOUND ? fail_not_found(c, (*o)->name) : fail_err(c, &err);
    *o = told;
    return 0;
}

int delete_object(struct call *c, const struct obj *o, const struct delete_options *given,
                  const struct obj **ret)
{
    struct delete_options how = *given;
    struct store *s = c->api->store;
    const struct obj *last;
    struct val *v, *meta;
    struct err err = {0};
    int64_t grace, before;
    bool waits, was_deleting = obj_deleting(o);

    *ret = NULL;
    if (check_preconditions(c, o, &how) < 0)
        return -1;
    if (admit_delete(c, o, &how) < 0)
        return -1;
    if (c->hooks && c->hooks->deleting)
        c->hooks->deleting(c, o, &how);
    else
        how.grace_s = 0;
    v = obj_edit(o, c->a);
    meta = meta_of(c->a, v);
    set_policy(c, v, &how);
    if (c->hooks && c->hooks->hold)
        c->hooks->hold(c, v);
    grace = how.grace_s < 0 ? 0 : how.grace_s;
    waits = grace > 0 || val_len(val_get(meta, "finalizers")) || val_len(val_at(v, "spec.finalizers"));
    before = val_int_at(meta, "deletionGracePeriodSeconds", 0);
    if (waits) {
        if (!was_deleting || grace < before) {
            /* the end moves, never to later */
            val_put_str(c->a, meta, "deletionTimestamp",
                        time_text(c->a, (c->now_ms + grace * 1000) * 1000, false));
            if (!(streq(c->stored->plural, "namespaces") && !*c->stored->group))
                val_put_int(c->a, meta, "deletionGracePeriodSeconds", grace);
            if (val_int_at(meta, "generation", 0) > 0 && !was_deleting)
                val_put_int(c->a, meta, "generation", val_int_at(meta, "generation", 0) + 1);
        }
        if (streq(c->stored->plural, "namespaces") && !*c->stored->group)
            val_put_str(c->a, val_need_map(c->a, v, "status"), "phase", "Terminating");
        if (put_over(c, o, v, ret) < 0)
            return -1;
        if (!*ret) { /* a dry run shows it as it would be */
            *ret = obj_seal(v, o->revision);
            pin_obj(c->a, *ret);
        }
        return 0;
    }
    if (c->waits || c->broken)
        return -1;
    if (c->hooks && c->hooks->deleting && (!was_deleting || before > 0) && tell_end(c, &o, v, was_deleting) < 0)
        return -1;
    last = obj_seal(v, c->o.dry_run ? o->revision : store_next_revision(s));
    pin_obj(c->a, last);
    if (c->o.dry_run) {
        c->deleted = last;
        return 0;
    }
    if (store_delete(s, c->table, o->namespace_, o->name, o->revision, last, &err) < 0)
        return err.code == ERR_NOT_FOUND ? fail_not_found(c, o->name) : fail_err(c, &err);
    c->resp.revision = last->revision;
    c->deleted = last;
    return 0;
}

static void warn_orphans(struct call *c, const struct delete_options *how)
{
    if ((c->flags & KF_ORPHANS) && !how->propagation && !how->orphan_set && streq(c->stored->plural, "jobs"))
        texts_add(&c->warnings, "child pods are preserved by default when jobs are deleted; set "
                  "propagationPolicy=Background to remove them or set propagationPolicy=Orphan to "
                  "suppress this warning");
}

int delete_one(struct call *c)
{
    struct delete_options how;
    const struct obj *o, *left = NULL;

    if (answer_negotiate(c, false, true) < 0 || read_options(c, &how) < 0)
        return -1;
    if (!(o = find(c)))
        return fail_not_found(c, c->path.name);
    warn_orphans(c, &how);
    if (delete_object(c, o, &how, &left) < 0)
        return -1;
    if (left)
        answer_obj(c, 200, left);
    else if (c->flags & KF_RETURNS_DELETED)
        answer_obj(c, 200, c->deleted ? c->deleted : o);
    else
        answer_val(c, 200, status_success(c->a, c->r->group, c->r->plural, o->name, o->uid));
    return 0;
}

/* Asks the webhooks about all of them before the first one goes: the call may have to be run again, and
 * then the list must still be whole. Who is refused ends it; those before him go. */
static int ask_for_all(struct call *c, const struct listed *l, const struct delete_options *how)
{
    uint32_t asked = 0;

    if (!webhooks_any(c))
        return 0;
    for (uint32_t i = 0; i < l->n && asked < ASK_AT_ONCE; i++) {
        bool waited = c->waits;

        c->waits = false;
        if (admit_delete(c, l->v[i], how) < 0 && !c->waits)
            asked = ASK_AT_ONCE;
        asked += c->waits;
        c->waits |= waited;
    }
    c->resp = (struct api_response){.remaining = -1};
    return c->waits ? -1 : 0;
}

int delete_collection(struct call *c)
{
    struct delete_options how;
    struct listed l;
    const struct obj *left;
    int64_t revision;

    if (read_options(c, &how) < 0 || options_list(c) < 0 || answer_negotiate(c, true, true) < 0 ||
        list_find(c, &l) < 0)
        return -1;
    if (versions_ready(c, l.v, l.n) < 0 || ask_for_all(c, &l, &how) < 0)
        return -1;
    warn_orphans(c, &how);
    revision = l.revision;
    for (uint32_t i = 0; i < l.n; i++) {
        if (delete_object(c, l.v[i], &how, &left) < 0 && c->resp.status != 404)
            return -1;
        revision = MAX(revision, c->resp.revision);
    }
    c->resp = (struct api_response){.revision = revision, .remaining = -1};
    answer_list(c, l.v, l.n, l.revision, l.next, l.remaining);
    return 0;
}
