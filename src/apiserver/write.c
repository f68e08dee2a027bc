/* apiserver/write.c - create, update, patch: the way of an object into the store.
 *
 *   body -> normal form -> defaults -> admission -> prepare -> validation -> allocation -> validating
 *        admission (admission.c has the chain) -> store
 * The same for all kinds and versions; everything after the defaults works in the stored version. */
#include "apiserver/admission.h"
#include "apiserver/hooks.h"

#include "apiserver/managed.h"
#include "apiserver/policies.h"
#include "codec/json.h"
#include "schema/patch.h"

enum { NAME_GENERATED_MAX = 58, GENERATE_TRIES = 8 };

struct val *meta_of(struct arena *a, struct val *v)
{
    return val_need_map(a, v, "metadata");
}

const char *now_text(struct call *c)
{
    return time_text(c->a, c->now_ms * 1000, false);
}

/* Drops what only the server writes. */
static void meta_clean(struct val *meta)
{
    val_del(meta, "selfLink");
    val_del(meta, "managedFields"); /* put_managed() */
}

static int check_namespace(struct call *c, struct val *v)
{
    struct val *meta = meta_of(c->a, v);
    const char *ns = val_str_at(meta, "namespace", ""), *asked = c->path.ns;

    if (!c->r->namespaced || !*asked) {
        val_del(meta, "namespace");
        return 0;
    }
    if (*ns && !streq(ns, asked))
        return fail(c, 400, "BadRequest", "the namespace of the provided object does not match the "
                    "namespace sent on the request");
    val_put_str(c->a, meta, "namespace", asked);
    return 0;
}

static void put_managed(struct call *c, struct val *v)
{
    if (val_len(c->managed))
        val_put(c->a, meta_of(c->a, v), "managedFields", c->managed);
}

/* The version that an object is looked at in on its way: the one of the request for custom resources,
 * where each version has its own schema. */
static const struct resource *work_of(const struct call *c)
{
    return c->r->custom ? c->r : c->stored;
}

/* The object as it will read in the version of the request: the way to the stored version and back
 * may put some of it elsewhere (an autoscaler's metrics are annotations in v1). */
static const struct val *as_read(struct call *c, const struct val *v)
{
    struct val *copy;
    struct err ignored = {0};

    if (c->r == work_of(c))
        return v;
    copy = val_copy(c->a, v);
    return schema_convert(c->r, c->stored, c->a, copy, &ignored) < 0 ||
                   schema_convert(c->stored, c->r, c->a, copy, &ignored) < 0
               ? v
               : copy;
}

/* To the working version, with its defaults. Notes who manages the fields, before anything but the
 * client's own words and the defaults is in it. */
static int to_stored(struct call *c, struct val *v, const struct obj *old)
{
    struct err err = {0};

    schema_default(c->r, c->a, v);
    if (!c->applying)
        c->managed = managed_update(c, old ? answer_version(c, old) : NULL, as_read(c, v));
    if (c->empties)
        schema_settle(c->r, v, false);
    if (c->r == work_of(c))
        return 0;
    if (schema_convert(c->r, c->stored, c->a, v, &err) < 0)
        return fail(c, 400, "BadRequest", "%s", err.msg);
    schema_default(c->stored, c->a, v);
    return 0;
}

static int validate(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    struct causes bad = {.a = c->a};
    const char *name = val_str_at(v, "metadata.name", "");
    bool events = c->r != c->stored && streq(c->stored->table, "events");

    if (events) { /* the newer API is the stricter one: judged in its own form */
        struct val now = *v, was = old ? *old : (struct val){0};
        struct err err = {0};
        if (schema_convert(c->stored, c->r, c->a, &now, &err) < 0 ||
            (old && schema_convert(c->stored, c->r, c->a, &was, &err) < 0))
            return fail(c, 400, "BadRequest", "%s", err.msg);
        schema_validate(c->r, sub, &now, old ? &was : NULL, &bad);
    } else {
        schema_validate(work_of(c), sub, v, old, &bad);
    }
    policies_check(c, v, old, &bad);
    if (bad.n)
        return events ? fail_causes_of(c, &bad, c->stored->group, c->stored->kind, name)
                      : fail_causes(c, &bad, name);
    if (!*sub)
        schema_warn(work_of(c), v, old, &c->warnings);
    return 0;
}

static int check_size(struct call *c, const struct val *v)
{
    struct buf b = {.max = OBJECT_BYTES_MAX};
    bool over;

    json_write(&b, v);
    over = b.over;
    buf_done(&b);
    return over ? fail(c, 500, "", "etcdserver: request is too large") : 0;
}

/* ---------------------------------------------------------------- create */

static void name_generate(struct call *c, struct val *meta)
{
    const char *base = val_str_at(meta, "generateName", "");

    val_put(c->a, meta, "name", val_printf(c->a, "%.*s%s", NAME_GENERATED_MAX, base, call_suffix(c)));
}

/* A custom resource in the version that is stored; and, as the answer shows what was stored, that back in
 * the version of the request: asked for now, for after the write the call cannot be run again. */
static const struct val *stored_form(struct call *c, struct val *v)
{
    const struct val *form;

    if (c->empties)
        schema_settle(c->stored, v, true);
    if (!c->stored->custom)
        return v;
    form = version_of(c, v, c->stored);
    if (!c->waits && !c->broken)
        version_of(c, form, c->r);
    return form;
}

int put_new(struct call *c, struct val *v, const struct obj **ret)
{
    struct store *s = c->api->store;
    struct val *meta = meta_of(c->a, v);
    const char *name = val_str_at(meta, "name", ""), *ns = val_str_at(meta, "namespace", "");
    struct err err = {0};
    const struct val *form;
    const struct obj *o;

    if (*val_str_at(meta, "resourceVersion", ""))
        return fail(c, 500, "", "resourceVersion should not be set on objects to be created");
    if (store_get(s, c->table, ns, name))
        return fail_exists(c, name);
    form = stored_form(c, v);
    if (c->waits || c->broken)
        return -1;
    if (c->o.dry_run) {
        *ret = NULL;
        return 0;
    }
    if (quota_charge(c) < 0)
        return -1;
    o = obj_seal(form, store_next_revision(s));
    pin_obj(c->a, o);
    if (store_put(s, c->table, o, STORE_ABSENT, 0, &err) < 0)
        return fail_err(c, &err);
    c->resp.revision = o->revision;
    *ret = o;
    return 0;
}

/* What only the server says about a new object. */
static void meta_wipe(struct val *meta)
{
    meta_clean(meta);
    val_del(meta, "uid");
    val_del(meta, "creationTimestamp");
    val_del(meta, "deletionTimestamp");
    val_del(meta, "deletionGracePeriodSeconds");
}

static void meta_new(struct call *c, struct val *v)
{
    struct val *meta = meta_of(c->a, v);

    meta_wipe(meta); /* an admission plugin may not say it either */
    val_put_str(c->a, meta, "uid", call_uuid(c));
    val_put_str(c->a, meta, "creationTimestamp", now_text(c));
}

/* The namespace of an object as admission sees it: a namespace lies in itself. */
static const char *admission_ns(struct call *c, const char *name)
{
    return streq(c->stored->table, "namespaces") ? name : c->path.ns;
}

int create_with(struct call *c, struct val *v, const struct obj **ret)
{
    struct val *meta;
    const char *name;
    struct admission ad;
    bool generate;

    if (to_stored(c, v, NULL) < 0)
        return -1;
    meta = meta_of(c->a, v);
    meta_wipe(meta);
    name = val_str_at(meta, "name", "");
    ad = (struct admission){.op = ADMIT_CREATE, .sub = "", .in = work_of(c), .v = v, .name = name,
                            .ns = admission_ns(c, name)};
    if (admission_mutate(c, &ad) < 0)
        return -1;
    meta = meta_of(c->a, v);
    generate = !*val_str_at(meta, "name", "") && *val_str_at(meta, "generateName", "");
    meta_new(c, v);
    if (generate)
        name_generate(c, meta_of(c->a, v));
    schema_default(work_of(c), c->a, v);
    schema_prepare_create(work_of(c), c->a, v);
    if (c->hooks && c->hooks->begin && c->hooks->begin(c, v, NULL) < 0)
        return -1;
    if (validate(c, "", v, NULL) < 0 || check_size(c, v) < 0)
        return -1;
    for (int i = 0; generate && i < GENERATE_TRIES; i++) {
        meta = meta_of(c->a, v);
        if (!store_get(c->api->store, c->table, c->path.ns, val_str_at(meta, "name", "")))
            break;
        name_generate(c, meta);
    }
    if (c->hooks && c->hooks->allocate && c->hooks->allocate(c, v, NULL) < 0)
        return -1;
    put_managed(c, v);
    ad.name = val_str_at(v, "metadata.name", "");
    if (admission_validate(c, &ad) < 0)
        return -1;
    return put_new(c, v, ret);
}

/* The tree of what was written (and not stored on a dry run), in the version asked for. */
static int answer_written(struct call *c, int status, const struct obj *o, struct val *v)
{
    struct err err = {0};

    if (o) {
        answer_obj(c, status, o);
        return 0;
    }
    if (c->r != work_of(c) && schema_convert(c->stored, c->r, c->a, v, &err) < 0)
        return fail_err(c, &err);
    answer_tree(c, status, v);
    return 0;
}

int write_create(struct call *c)
{
    const struct obj *o = NULL;
    struct val *v;

    if (options_write(c, "CreateOptions") < 0 || answer_negotiate(c, false, !c->r->virtual_) < 0 ||
        (c->r->custom && crd_takes_more(c) < 0) || !(v = body_object(c)) || check_namespace(c, v) < 0)
        return -1;
    if (c->r->virtual_)
        return admission_of_body(c, ADMIT_CREATE, v, NULL, val_str_at(v, "metadata.name", "")) < 0
                   ? -1 : review_create(c, v);
    if (create_with(c, v, &o) < 0)
        return -1;
    return answer_written(c, 201, o, v);
}

/* ---------------------------------------------------------------- update */

static void meta_keep(struct call *c, struct val *v, const struct val *old)
{
    static const char *const kept[] = {"uid", "creationTimestamp", "deletionTimestamp",
                                       "deletionGracePeriodSeconds", "generation"};
    struct val *meta = meta_of(c->a, v);
    const struct val *was = val_get(old, "metadata");

    meta_clean(meta);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const struct val *x = val_get(was, kept[i]);

        if (c->applying && i == 0 && val_get(meta, "uid"))
            continue; /* validation says that it cannot be changed */
        if (x)
            val_put(c->a, meta, kept[i], x);
        else
            val_del(meta, kept[i]);
    }
}

/* Nothing holds it any more: it was deleted before, and its last finalizer has gone. */
static bool now_free(struct call *c, const struct val *v)
{
    const struct val *meta = val_get(v, "metadata");

    return val_get(meta, "deletionTimestamp") && !val_len(val_get(meta, "finalizers")) &&
           val_int_at(meta, "deletionGracePeriodSeconds", 0) == 0 &&
           !(streq(c->stored->plural, "namespaces") && !*c->stored->group &&
             val_len(val_at(v, "spec.finalizers")));
}

/* Equal but for the times that a heartbeat moves. */
static bool same_but_beats(const struct val *x, const struct val *y)
{
    static const char *const beats[] = {"renewTime", "lastHeartbeatTime", "resourceVersion", "managedFields"};
    uint32_t i = 0;

    if (!val_is(x, VAL_MAP) && !val_is(x, VAL_LIST))
        return val_equal(x, y);
    if (!val_is(y, x->type) || val_len(x) != val_len(y))
        return false;
    VAL_EACH(x, it)
        if (!same_but_beats(it, &y->items[i++]))
            return false;
    VAL_EACH_MEMBER(x, m) {
        const struct val *other = val_getn(y, m->key, m->n);
        bool beat = false;

        for (size_t k = 0; k < ARRAY_LEN(beats); k++)
            beat |= streq(m->key, beats[k]);
        if (!other || (!beat && !same_but_beats(&m->v, other)))
            return false;
    }
    return true;
}

/* Signs of life come every few seconds from every node and are worth nothing after a crash: they
 * stay off the disk until they mean something else than the one before. */
static unsigned put_flags(struct call *c, const struct obj *old, const struct val *v)
{
    if (!streq(c->stored->table, "coordination.k8s.io/leases") && !streq(c->stored->table, "nodes"))
        return 0;
    return same_but_beats(v, obj_val(old)) ? STORE_VOLATILE : 0;
}

int put_over(struct call *c, const struct obj *old, struct val *v, const struct obj **ret)
{
    struct store *s = c->api->store;
    struct val *meta = meta_of(c->a, v);
    struct err err = {0};
    const struct val *form;
    const struct obj *o;

    val_put(c->a, meta, "resourceVersion", val_printf(c->a, "%lld", (long long)old->revision));
    form = stored_form(c, v);
    if (!c->waits && !c->broken && val_equal(form, obj_val(old))) {
        *ret = old;
        c->resp.revision = old->revision;
        return 0;
    }
    *ret = NULL;
    if (c->waits || c->broken)
        return -1;
    if (c->o.dry_run)
        return 0;
    if (now_free(c, v)) {
        o = obj_seal(form, store_next_revision(s));
        pin_obj(c->a, o);
        if (store_delete(s, c->table, old->namespace_, old->name, old->revision, o, &err) < 0)
            return err.code == ERR_CONFLICT ? fail_conflict(c, old->name, "%s", err.msg)
                                            : fail_err(c, &err);
        c->resp.revision = o->revision;
        return 0; /* the answer shows the object as it was written, with its last version */
    }
    if (quota_charge(c) < 0)
        return -1;
    o = obj_seal(form, store_next_revision(s));
    pin_obj(c->a, o);
    if (store_put(s, c->table, o, old->revision, put_flags(c, old, v), &err) < 0)
        return fail_err(c, &err);
    c->resp.revision = o->revision;
    *ret = o;
    return 0;
}

/* Optimistic concurrency: what the client says about uid and version must be so. */
static int check_versions(struct call *c, const struct obj *old, const struct val *v)
{
    const struct val *meta = val_get(v, "metadata");
    const char *uid = val_str_at(meta, "uid", ""), *rv = val_str_at(meta, "resourceVersion", "");
    int64_t revision;

    if (*uid && !streq(uid, old->uid) && !c->applying)
        return fail_conflict(c, old->name, "Precondition failed: UID in precondition: %s, UID in "
                             "object meta: %s", uid, old->uid);
    if (!parse_revision(rv, &revision))
        return fail(c, 400, "BadRequest", "invalid resource version \"%s\"", rv);
    if (revision && revision != old->revision)
        return fail_conflict(c, old->name, "the object has been modified; please apply your "
                             "changes to the latest version and try again");
    if (!revision && ((c->flags & KF_NEEDS_VERSION) || c->r->custom)) {
        struct causes bad = {.a = c->a};
        struct val *zero = val_int(c->a, 0);

        causes_add(&bad, CAUSE_INVALID, "metadata.resourceVersion", zero,
                   "must be specified for an update");
        /* this one names the resource and not the kind */
        return fail_causes_of(c, &bad, c->r->group, c->r->plural, old->name);
    }
    return 0;
}

int update_with(struct call *c, const struct obj *old, struct val *v, const struct obj **ret)
{
    const char *sub = c->sub ? c->sub->name : "";
    const struct val *was = c->r->custom ? answer_version(c, old) : obj_val(old);
    struct admission ad;

    if (check_versions(c, old, v) < 0 || to_stored(c, v, old) < 0)
        return -1;
    meta_keep(c, v, was);
    ad = (struct admission){.op = ADMIT_UPDATE, .sub = sub, .in = work_of(c), .v = v, .old = was,
                            .old_obj = old, .name = old->name, .ns = admission_ns(c, old->name),
                            .inner = c->managed_sub != NULL};
    if (admission_mutate(c, &ad) < 0)
        return -1;
    schema_prepare_update(work_of(c), sub, c->a, v, was);
    schema_default(work_of(c), c->a, v);
    if (c->hooks && c->hooks->begin && c->hooks->begin(c, v, old) < 0)
        return -1;
    if (validate(c, sub, v, was) < 0 || check_size(c, v) < 0)
        return -1;
    if (c->hooks && c->hooks->allocate && c->hooks->allocate(c, v, old) < 0)
        return -1;
    put_managed(c, v);
    if (admission_validate(c, &ad) < 0)
        return -1;
    return put_over(c, old, v, ret);
}

static int check_name(struct call *c, struct val *v)
{
    struct val *meta = meta_of(c->a, v);
    const char *name = val_str_at(meta, "name", "");

    if (!*name)
        return fail(c, 400, "BadRequest", "the name of the object (based on URL) was undeterminable: "
                    "name must be provided");
    if (!streq(name, c->path.name))
        return fail(c, 400, "BadRequest", "the name of the object (%s) does not match the name on "
                    "the URL (%s)", name, c->path.name);
    return check_namespace(c, v);
}

int write_update(struct call *c)
{
    const struct obj *old, *o = NULL;
    struct val *v;

    if (options_write(c, "UpdateOptions") < 0 || answer_negotiate(c, false, true) < 0 ||
        !(v = body_object(c)) || check_name(c, v) < 0)
        return -1;
    if (!(old = find(c))) {
        if (c->sub || !(c->flags & KF_CREATE_ON_UPDATE))
            return fail_not_found(c, c->path.name);
        if (*val_str_at(v, "metadata.uid", ""))
            return fail_conflict(c, c->path.name, "Precondition failed: UID in precondition: %s, "
                                 "UID in object meta: ", val_str_at(v, "metadata.uid", ""));
        val_del(meta_of(c->a, v), "resourceVersion");
        if (create_with(c, v, &o) < 0)
            return -1;
        return answer_written(c, 201, o, v);
    }
    if (update_with(c, old, v, &o) < 0)
        return -1;
    return answer_written(c, 200, o, v);
}

/* ---------------------------------------------------------------- patch */

enum patch_kind { PATCH_NONE, PATCH_JSON, PATCH_MERGE, PATCH_STRATEGIC, PATCH_APPLY };

static enum patch_kind patch_kind(struct call *c)
{
    const char *t = c->req->content_type ? c->req->content_type : "";
    size_t n = strcspn(t, "; ");
    static const struct {
        const char *type;
        enum patch_kind kind;
    } kinds[] = {
        {"application/json-patch+json", PATCH_JSON},
        {"application/merge-patch+json", PATCH_MERGE},
        {"application/strategic-merge-patch+json", PATCH_STRATEGIC},
        {"application/apply-patch+yaml", PATCH_APPLY},
    };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strlen(kinds[i].type) == n && strncmp(kinds[i].type, t, n) == 0)
            return kinds[i].kind == PATCH_STRATEGIC && c->r->custom ? PATCH_NONE : kinds[i].kind;
    return PATCH_NONE;
}

/* What a patch made of kind and version. A strategic merge keeps to the type it began with; the others
 * are decoded anew, where null stands for what the path says. */
static int patched_kind(struct call *c, enum patch_kind kind, struct val *v)
{
    struct causes bad = {.a = c->a};

    bool anew = kind != PATCH_STRATEGIC && !c->r->custom;

    if (anew && val_is_null(val_get(v, "kind")))
        val_put(c->a, v, "kind", val_str(c->a, c->r->kind));
    if (anew && val_is_null(val_get(v, "apiVersion")))
        val_put(c->a, v, "apiVersion", val_str(c->a, c->r->api_version));
    if (streq(val_str_at(v, "kind", ""), c->r->kind) && streq(val_str_at(v, "apiVersion", ""), c->r->api_version))
        return 0;
    if (!anew)
        return fail(c, 400, "BadRequest", "the API version or kind in the data does not match the "
                    "expected %s %s", c->r->api_version, c->r->kind);
    causes_add(&bad, CAUSE_INVALID, "patch", NULL, "the API version or kind in the data does not match the "
               "expected %s %s", c->r->api_version, c->r->kind);
    return fail_causes_of(c, &bad, "", "", "");
}

/* old with the patch in it, in version c->r. NULL: failed. */
static struct val *patched(struct call *c, enum patch_kind kind, const struct val *old,
                           const struct val *patch)
{
    struct err err = {0};
    struct val *v = NULL;

    switch (kind) {
    case PATCH_JSON:
        if (val_len(patch) > PATCH_OPS_MAX) {
            fail(c, 413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch "
                 "is %d, got %u", PATCH_OPS_MAX, val_len(patch));
            return NULL;
        }
        v = patch_json(c->a, old, patch, &err);
        break;
    case PATCH_MERGE:
        v = patch_merge(c->a, old, patch, &err);
        break;
    default:
        v = patch_strategic(resource_type(c->r), c->a, old, patch, &err);
        break;
    }
    if (v && !val_is(v, VAL_MAP))
        err_set(&err, INVALID_ARGUMENT, "the patched object is no object"), v = NULL;
    if (!v) {
        if (err.code == ERR_INVALID)
            fail(c, 422, "Invalid", "the server rejected our request due to an error in our request: %s",
                 err.msg);
        else if (err.code == ERR_INTERNAL)
            fail(c, 500, "", "%s", err.msg);
        else
            fail(c, 400, "BadRequest", "%s", err.msg);
        return NULL;
    }
    v = val_copy(c->a, v);
    if (kind == PATCH_MERGE)
        val_sort_keys(v); /* as upstream writes what it merged: unknown fields are told in this order */
    return v;
}

static struct val *patch_body(struct call *c, enum patch_kind kind, struct texts *strict)
{
    struct err err = {0};
    struct val *patch;

    if (c->req->body_val)
        return val_copy(c->a, c->req->body_val);
    patch = json_parse_strict(c->a, c->req->body ? c->req->body : "", c->req->body_n,
                              schema_note_duplicate, strict, &err);
    if (!patch) {
        fail(c, 400, "BadRequest", "error decoding patch: %s", err.msg);
        return NULL;
    }
    if (!val_is(patch, kind == PATCH_JSON ? VAL_LIST : VAL_MAP)) {
        fail(c, 400, "BadRequest", "error decoding patch: json: cannot unmarshal into Go value");
        return NULL;
    }
    return patch;
}

/* What the kind does not know, as the typed form of a patch says it. */
static const char *undeclared(struct call *c, const struct texts *strict)
{
    const char *all = strict->n > 1 ? "errors:" : "";

    for (uint32_t i = 0; i < strict->n; i++) {
        const char *path = strchr(strict->v[i], '"');
        const char *one = path ? arena_printf(c->a, ".%.*s: field not declared in schema",
                                              (int)strlen(path + 1) - 1, path + 1)
                               : strict->v[i];

        all = strict->n > 1 ? arena_printf(c->a, "%s\n  %s", all, one) : one;
    }
    return all;
}

/* The body of an apply as it was written: nothing filled in, nothing dropped. What the kind does
 * not know is an error here, whatever fieldValidation says. */
static struct val *apply_body(struct call *c)
{
    struct api_request as_yaml = *c->req;
    const struct api_request *was = c->req;
    struct texts strict = {.a = c->a};
    struct err err = {0};
    struct val *v, *copy;

    as_yaml.content_type = "application/yaml";
    c->req = &as_yaml;
    audit_patch(c->req->audit, c->req->body, c->req->body_n);
    v = body_tree(c, &strict);
    c->req = was;
    if (!v)
        return NULL;
    if (strict.n) {
        fail(c, 500, "", "error decoding YAML: error converting YAML to JSON: %s", strict.v[0]);
        return NULL;
    }
    if (!val_is(v, VAL_MAP) || !*val_str_at(v, "apiVersion", "") || !*val_str_at(v, "kind", "")) {
        fail(c, 400, "BadRequest", "Object 'Kind' is missing");
        return NULL;
    }
    if (!streq(val_str_at(v, "apiVersion", ""), c->r->api_version) ||
        !streq(val_str_at(v, "kind", ""), c->r->kind)) {
        fail(c, 400, "BadRequest", "the API version or kind in the data does not match %s %s",
             c->r->api_version, c->r->kind);
        return NULL;
    }
    if (val_len(val_at(v, "metadata.managedFields"))) {
        fail(c, 400, "BadRequest", "metadata.managedFields must be nil");
        return NULL;
    }
    copy = val_copy(c->a, v);
    if (schema_decode(c->r, c->a, copy, &strict, &err) < 0 || strict.n) {
        fail(c, 500, "", "failed to create typed patch object (%s/%s; %s, Kind=%s): %s", c->path.ns, c->path.name,
             c->r->api_version, c->r->kind, strict.n ? undeclared(c, &strict) : err.msg);
        return NULL;
    }
    return v;
}

static int apply(struct call *c)
{
    const struct obj *old = find(c), *o = NULL;
    struct texts strict = {.a = c->a};
    const struct val *now = NULL;
    struct val *config = apply_body(c), *v;

    if (!config)
        return -1;
    if (!old && c->sub)
        return fail_not_found(c, c->path.name);
    if (!*val_str_at(config, "metadata.name", ""))
        val_put_str(c->a, meta_of(c->a, config), "name", c->path.name);
    if (check_name(c, config) < 0)
        return -1;
    if (!old && admit_namespace(c, c->path.name) < 0)
        return -1;
    if (managed_apply(c, old ? answer_version(c, old) : NULL, config, &now, &c->managed) < 0)
        return -1;
    c->applying = true;
    if (!now) {
        if (!c->sub) /* told again, though nothing changes */
            schema_warn(c->stored, obj_val(old), obj_val(old), &c->warnings);
        c->resp.revision = old->revision;
        answer_obj(c, 200, old);
        return 0;
    }
    v = val_copy(c->a, now);
    if (body_decode(c, c->r, v, &strict, false) < 0)
        return -1;
    if (!old) {
        if (create_with(c, v, &o) < 0)
            return -1;
        return answer_written(c, 201, o, v);
    }
    if (update_with(c, old, v, &o) < 0)
        return -1;
    return answer_written(c, 200, o, v);
}

int write_patch(struct call *c)
{
    enum patch_kind kind = patch_kind(c);
    struct texts strict = {.a = c->a};
    const struct obj *old, *o = NULL;
    const struct val *now;
    struct val *patch, *v;

    if (kind == PATCH_NONE)
        return fail(c, 415, "UnsupportedMediaType",
                    "the body of the request was in an unknown format - accepted media types "
                    "include: application/json-patch+json, application/merge-patch+json, %s"
                    "application/apply-patch+yaml",
                    c->r->custom ? "" : "application/strategic-merge-patch+json, ");
    if (options_write(c, "PatchOptions") < 0 || answer_negotiate(c, false, true) < 0)
        return -1;
    if (kind == PATCH_APPLY)
        return apply(c);
    if (!(old = find(c)))
        return fail_not_found(c, c->path.name);
    if (!(patch = patch_body(c, kind, &strict)))
        return -1;
    now = answer_version(c, old);
    c->parents_first = kind == PATCH_STRATEGIC;
    if (!(v = patched(c, kind, now, patch)))
        return -1;
    if (patched_kind(c, kind, v) < 0 || body_decode(c, c->r, v, &strict, true) < 0 || check_name(c, v) < 0 ||
        update_with(c, old, v, &o) < 0)
        return -1;
    return answer_written(c, 200, o, v);
}
