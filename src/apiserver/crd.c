/* apiserver/crd.c - custom resource definitions become served kinds: at the start from the store,
 * later by their events. Accepted names and the Established condition are written here, as the
 * stock API server does itself. */
#include "apiserver/hooks.h"

#include "apiserver/managed.h"
#include "apiserver/outside.h"
#include "base/log.h"

#include <stdio.h>

enum { AGAIN_MS = 1000 };

#define CRD_FINALIZER "customresourcecleanup.apiextensions.k8s.io"

static void cond_put(struct arena *a, struct val *status, const char *type, const char *value,
                     const char *reason, const char *message, const char *now)
{
    struct val *list = val_need_list(a, status, "conditions"), *cond = NULL;

    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), type))
            cond = it;
    if (!cond)
        cond = val_push(a, list, val_map(a));
    val_put_str(a, cond, "type", type);
    if (!streq(val_str_at(cond, "status", ""), value)) {
        val_put_str(a, cond, "status", value);
        val_put_str(a, cond, "lastTransitionTime", now);
    }
    val_put_str(a, cond, "reason", reason);
    val_put_str(a, cond, "message", message);
}

/* Notes who writes the status, as of any other client: upstream this is a client of itself. */
static void note_manager(struct api *api, struct arena *a, const struct obj *old, struct val *v)
{
    const struct resource *r = schema_resource(api->schema, "apiextensions.k8s.io", "v1", "customresourcedefinitions");
    const struct api_request req = {.arena = a, .user_agent = "kube-apiserver"};
    struct call c = {.api = api, .req = &req, .a = a, .r = r, .stored = r, .now_ms = env_now_ms(api->env)};
    struct val *managed;

    if (!val_len(val_at(v, "metadata.managedFields")))
        return; /* not tracked */
    c.sub = schema_sub(r, "status");
    managed = managed_update(&c, obj_edit(old, a), v); /* a tree of its own: it is not to stay in the cache */
    if (val_len(managed))
        val_put(a, val_need_map(a, v, "metadata"), "managedFields", managed);
}

/* v: a tree in a, with the new status. */
static void store_write(struct api *api, struct arena *a, const struct obj *old, struct val *v)
{
    struct store_table *t = table_named(api->store, "apiextensions.k8s.io", "customresourcedefinitions");
    struct err err = {0};
    const struct obj *o;

    note_manager(api, a, old, v);
    o = obj_seal(v, store_next_revision(api->store));
    if (store_put(api->store, t, o, old->revision, 0, &err) < 0)
        LOG(WARN, "api", "crd=%s did=status err=\"%s\"", old->name, err.msg);
    obj_unref(o);
}

/* What others may not be called: api->crd_names, by the name of the definition. */
struct accepted {
    struct arena *arena; /* of all this */
    const char *group;
    const struct val *names; /* status.acceptedNames */
};

static void forget(struct api *api, const char *crd)
{
    struct accepted *x = map_del(&api->crd_names, crd);

    if (x)
        arena_free(x->arena);
}

/* true: it had other names before, which are free now. */
static bool remember(struct api *api, const char *crd, const struct val *v)
{
    struct arena *a = arena_new();
    struct accepted *x = arena_new_of(a, struct accepted), *was = map_get(&api->crd_names, crd);
    const struct val *names = val_at(v, "status.acceptedNames");
    bool freed = was && *val_str_at(was->names, "plural", "") && !val_equal(was->names, names);

    x->arena = a;
    x->group = arena_strdup(a, val_str_at(v, "spec.group", ""));
    x->names = names ? val_copy(a, names) : NULL;
    forget(api, crd);
    map_put(&api->crd_names, crd, x);
    return freed;
}

/* Is the name taken by another definition of the group that was there first? */
static bool taken(struct api *api, const char *crd, const char *group, const char *key, const char *name)
{
    bool kind = streq(key, "kind") || streq(key, "listKind"), found = false;
    const char *other;
    void *value;

    if (!*name)
        return false;
    for (uint32_t i = 0; !found && map_next(&api->crd_names, &i, &other, &value);) {
        const struct accepted *x = value;

        if (streq(other, crd) || !streq(x->group, group))
            continue;
        if (kind) {
            found = streq(val_str_at(x->names, "kind", ""), name) || streq(val_str_at(x->names, "listKind", ""), name);
            continue;
        }
        found = streq(val_str_at(x->names, "plural", ""), name) || streq(val_str_at(x->names, "singular", ""), name);
        VAL_EACH(val_get(x->names, "shortNames"), s)
            found |= streq(val_text(s, ""), name);
    }
    return found;
}

static bool among(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), name))
            return true;
    return false;
}

struct conflict {
    const char *reason, *message; /* NULL: none */
};

/* What the definition may be called: what it wants where that is free, else what it had. */
static struct val *free_names(struct api *api, struct arena *a, const char *crd, const struct val *v,
                              struct conflict *ret)
{
    static const char *const keys[] = {"plural", "singular", "shortNames", "kind", "listKind"};
    static const char *const reasons[] = {"PluralConflict", "SingularConflict", "ShortNamesConflict", "KindConflict",
                                          "ListKindConflict"};
    const struct val *wanted = val_at(v, "spec.names"), *was = val_at(v, "status.acceptedNames");
    const char *group = val_str_at(v, "spec.group", "");
    struct val *names = val_map(a);

    *ret = (struct conflict){0};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct val *want = val_get(wanted, keys[i]), *had = val_get(was, keys[i]), *take = want;
        const char *in_use = "";

        if (i == 2) {
            VAL_EACH(want, s)
                if (!among(had, val_text(s, "")) && taken(api, crd, group, keys[i], val_text(s, "")))
                    in_use = arena_printf(a, "%s%s\"%s\" is already in use", in_use, *in_use ? ", " : "", val_text(s, ""));
            if (strchr(in_use, ','))
                in_use = arena_printf(a, "[%s]", in_use);
        } else if (!streq(val_text(want, ""), val_text(had, "")) && taken(api, crd, group, keys[i], val_text(want, ""))) {
            in_use = arena_printf(a, "\"%s\" is already in use", val_text(want, ""));
        }
        if (*in_use) {
            *ret = (struct conflict){reasons[i], in_use};
            take = had;
        }
        if (i == 2 ? val_len(take) : *val_text(take, "") || i == 0 || i == 3)
            val_put(a, names, keys[i], take ? val_copy(a, take) : val_str(a, ""));
    }
    if (val_len(val_get(wanted, "categories")))
        val_put(a, names, "categories", val_copy(a, val_get(wanted, "categories")));
    return names;
}

/* A conversion webhook whose bundle holds no certificate can not be spoken to. */
static bool bad_bundle(struct arena *a, const struct val *v)
{
    const char *text = val_str_at(v, "spec.conversion.webhook.clientConfig.caBundle", "");
    char *pem, *print;
    size_t n;

    if (!*text)
        return false;
    if (!(pem = base64_bytes(a, text, &n)) || !(print = pki_fingerprint(pem)))
        return true;
    free(print);
    return false;
}

static bool is_established(const struct val *v, const char *status)
{
    VAL_EACH(val_at(v, "status.conditions"), cond)
        if (streq(val_str_at(cond, "type", ""), "Established"))
            return streq(val_str_at(cond, "status", ""), status);
    return false;
}

static void stored_versions(struct arena *a, const struct val *v, struct val *status)
{
    struct val *versions = val_need_list(a, status, "storedVersions");

    VAL_EACH(val_at(v, "spec.versions"), ver)
        if (val_bool_at(ver, "storage", false) && !among(versions, val_str_at(ver, "name", "")))
            val_push_str(a, versions, val_str_at(ver, "name", ""));
}

/* v: the tree of o, changed here. */
static void accept_names(struct api *api, struct arena *a, const struct obj *o, struct val *v)
{
    const struct val *old = val_get(v, "status");
    struct val *before = old ? val_copy(a, old) : val_map(a), *status = val_need_map(a, v, "status");
    const char *now = time_text(a, env_now_ms(api->env) * 1000, false), *reason, *message;
    bool was = is_established(v, "True"), good;
    struct conflict conflict;

    val_put(a, status, "acceptedNames", free_names(api, a, o->name, v, &conflict));
    stored_versions(a, v, status);
    if (conflict.reason) {
        cond_put(a, status, "NamesAccepted", "False", conflict.reason, conflict.message, now);
        if (!was)
            cond_put(a, status, "Established", "False", "NotAccepted", "not all names are accepted", now);
    } else {
        cond_put(a, status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
        if (!was && bad_bundle(a, v))
            cond_put(a, status, "Established", "False", "InvalidCABundle", "The conversion webhook CABundle is invalid", now);
        else if (!was)
            cond_put(a, status, "Established", "True", "InitialNamesAccepted",
                     "the initial names have been accepted", now);
    }
    good = crd_approval(a, v, &reason, &message);
    if (reason)
        cond_put(a, status, "KubernetesAPIApprovalPolicyConformant", good ? "True" : "False", reason, message, now);
    if (!val_equal(status, before))
        store_write(api, a, o, v);
}

struct job {
    struct list link; /* api.crd_jobs */
    char *name;       /* NULL: the definitions are done */
};

static void job_add(struct api *api, const char *name)
{
    struct job *job = xcalloc(1, sizeof(*job));

    job->name = name ? xstrdup(name) : NULL;
    list_push(&api->crd_jobs, &job->link);
}

static void settle_later(struct api *api, const char *name)
{
    job_add(api, name);
    env_timer_start(api->crd_settle, 0, 0);
}

/* Names that somebody gave back may be what others of the group waited for. */
static void settle_group(struct api *api, const char *group)
{
    const char *other;
    void *value;

    for (uint32_t i = 0; map_next(&api->crd_names, &i, &other, &value);)
        if (streq(((struct accepted *)value)->group, group))
            settle_later(api, other);
}

static void serve(struct api *api, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *v = obj_edit(o, a); /* not in the cache: this one look is all it gets */
    struct err err = {0};

    if (remember(api, o->name, v))
        settle_group(api, val_str_at(v, "spec.group", ""));
    if (is_established(v, "False")) { /* its names are others', or its webhook can not be spoken to */
        schema_remove_crd(api->schema, val_str_at(v, "spec.group", ""), val_str_at(v, "spec.names.plural", ""));
        return;
    }
    if (schema_add_crd(api->schema, o, v, &err) < 0)
        LOG(WARN, "api", "crd=%s did=refuse err=\"%s\"", o->name, err.msg);
}

/* Deletes the objects of a definition that goes; true when none is left. */
static bool clean(struct api *api, const struct obj *crd)
{
    const struct val *v = obj_val(crd);
    struct store_table *t = table_named(api->store, val_str_at(v, "spec.group", ""),
                                           val_str_at(v, "spec.names.plural", ""));
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *version = val_str_at(v, "spec.versions[0].name", "");
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    struct {
        const char *path;
    } *paths = NULL;
    uint32_t n = 0;
    bool storage = false; /* rather that one: nothing is to be converted */

    VAL_EACH(val_at(v, "spec.versions"), ver)
        if (val_bool_at(ver, "served", false) &&
            (val_bool_at(ver, "storage", false) || str_empty(version) || !storage))
            storage |= val_bool_at(ver, "storage", false), version = val_str_at(ver, "name", "");
    if (store_iter_init(&it, api->store, t, NULL, 0, NULL, NULL, &err) < 0)
        return true;
    while ((o = store_iter_next(&it))) {
        paths = xrealloc(paths, (n + 1) * sizeof(*paths));
        paths[n++].path = arena_printf(a, "/apis/%s/%s/%s%s%s%s/%s", val_str_at(v, "spec.group", ""),
                                       version, *o->namespace_ ? "namespaces/" : "", o->namespace_,
                                       *o->namespace_ ? "/" : "",
                                       val_str_at(v, "spec.names.plural", ""), o->name);
    }
    store_iter_done(&it);
    for (uint32_t i = 0; i < n; i++) {
        struct api_response resp = {0};

        call_inner(api, a, "DELETE", paths[i].path, NULL, &resp);
    }
    free(paths);
    return store_count(api->store, t, NULL) == 0;
}

static void take_finalizer(struct api *api, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = obj_edit(o, a), *list = val_at(v, "metadata.finalizers"), *body = val_map(a);
    struct api_response resp = {0};

    for (uint32_t i = 0; i < val_len(list); i++)
        if (streq(val_text(&list->items[i], ""), CRD_FINALIZER)) {
            val_remove(list, i);
            break;
        }
    val_put(a, val_need_map(a, body, "metadata"), "finalizers", val_len(list) ? list : val_null(a));
    call_inner(api, a, "PATCH",
               arena_printf(a, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/%s", o->name),
               body, &resp);
}

static bool has_finalizer(const struct obj *o)
{
    VAL_EACH(val_get(obj_meta(o), "finalizers"), f)
        if (streq(val_text(f, ""), CRD_FINALIZER))
            return true;
    return false;
}

static void terminating(struct api *api, struct arena *a, const struct obj *o, struct val *v)
{
    struct val *status = val_need_map(a, v, "status"), *before = val_copy(a, status);

    cond_put(a, status, "Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress",
             time_text(a, env_now_ms(api->env) * 1000, false));
    if (!val_equal(status, before))
        store_write(api, a, o, v);
}

/* true: it is to be looked at again, for what is left of its objects. */
static bool settle_one(struct api *api, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = obj_edit(o, a);

    if (!val_at(v, "metadata.deletionTimestamp")) {
        accept_names(api, a, o, v);
        return false;
    }
    if (!has_finalizer(o))
        return false;
    if (is_established(v, "True") && !clean(api, o)) {
        terminating(api, a, o, v);
        return true;
    }
    take_finalizer(api, o);
    return false;
}

static void job_free(struct job *job)
{
    list_remove(&job->link);
    free(job->name);
    free(job);
}

/* Later, outside of the write that told us. What that makes in turn waits for the turn after. */
static void settle(void *arg)
{
    struct api *api = arg;
    struct store_table *t = table_named(api->store, "apiextensions.k8s.io", "customresourcedefinitions");
    struct list now, *l;
    bool again = false;

    list_init(&now);
    while ((l = list_first(&api->crd_jobs))) {
        list_remove(l);
        list_push(&now, l);
    }
    while ((l = list_first(&now))) {
        struct job *job = list_entry(l, struct job, link);
        const struct obj *o = job->name ? store_get(api->store, t, "", job->name) : NULL;

        if (o) {
            obj_ref(o);
            if (settle_one(api, o)) {
                job_add(api, job->name);
                again = true;
            }
            obj_unref(o);
        }
        if (!job->name)
            aggregate_locals(api);
        job_free(job);
    }
    if (again && !env_timer_active(api->crd_settle))
        env_timer_start(api->crd_settle, AGAIN_MS, 0);
}

static void crd_event(void *arg, const struct store_event *ev)
{
    struct api *api = arg;

    if (ev->type == STORE_EXPIRED)
        return;
    if (ev->type == STORE_DELETED) {
        const char *plural_end = strchr(ev->obj->name, '.'); /* PLURAL.GROUP, as it was made to be */
        _auto_(arena_freep) struct arena *a = arena_new();

        forget(api, ev->obj->name);
        if (plural_end)
            schema_remove_crd(api->schema, plural_end + 1,
                              arena_strndup(a, ev->obj->name, (size_t)(plural_end - ev->obj->name)));
        if (plural_end)
            settle_group(api, plural_end + 1);
    } else {
        serve(api, ev->obj);
    }
    settle_later(api, ev->obj->name);
    settle_later(api, NULL);
}

/* A definition goes when its objects have gone. */
void crd_hold(struct call *c, struct val *v)
{
    bool held = false;
    struct val *meta = meta_of(c->a, v), *list = val_need_list(c->a, meta, "finalizers");

    VAL_EACH(list, f)
        held |= streq(val_text(f, ""), CRD_FINALIZER);
    if (!held && !val_get(meta, "deletionTimestamp"))
        val_push_str(c->a, list, CRD_FINALIZER);
    cond_put(c->a, val_need_map(c->a, v, "status"), "Terminating", "True", "InstanceDeletionPending",
             "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon", now_text(c));
}

int crd_takes_more(struct call *c)
{
    char name[512];
    const struct obj *o;
    struct val *s;

    snprintf(name, sizeof(name), "%s.%s", c->stored->plural, c->stored->group);
    o = store_get(c->api->store, table_named(c->api->store, "apiextensions.k8s.io", "customresourcedefinitions"), "", name);
    if (!o || !obj_deleting(o))
        return 0;
    s = status_doc(c->a, 405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating");
    val_put_str(c->a, val_need_map(c->a, s, "details"), "group", c->stored->group);
    val_put_str(c->a, val_need_map(c->a, s, "details"), "kind", c->stored->plural);
    return fail_status(c, s);
}

int crd_start(struct api *api, struct err *err)
{
    struct store_table *t = table_named(api->store, "apiextensions.k8s.io", "customresourcedefinitions");
    struct store_iter it;
    const struct obj *o;

    list_init(&api->crd_jobs);
    api->crd_settle = env_timer_new(api->env, settle, api);
    if (store_iter_init(&it, api->store, t, NULL, 0, NULL, NULL, err) < 0)
        return -1;
    while ((o = store_iter_next(&it))) {
        serve(api, o);
        settle_later(api, o->name);
    }
    store_iter_done(&it);
    settle_later(api, NULL);
    api->crds = store_watch(api->store, t, 0, STORE_WATCH_HEAD, crd_event, api, err);
    return api->crds ? 0 : -1;
}

void crd_stop(struct api *api)
{
    const char *name;
    void *value;

    store_watch_free(api->crds);
    env_timer_free(api->crd_settle);
    for (struct list *l; api->crd_settle && (l = list_first(&api->crd_jobs));)
        job_free(list_entry(l, struct job, link));
    for (uint32_t i = 0; map_next(&api->crd_names, &i, &name, &value);)
        arena_free(((struct accepted *)value)->arena);
    map_done(&api->crd_names);
}
