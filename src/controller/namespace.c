/* Deletion of a namespace: everything in it goes, pods before what they lean on, then the finalizer
 * "kubernetes" is taken off, and with the last finalizer the namespace itself.
 *
 * All kinds that the schema serves are asked, custom ones too. What is still there (finalizers of
 * somebody else, pods in their grace time) is told in conditions and looked at again. */
#include "base/buf.h"
#include "base/log.h"
#include "controller/ctl_int.h"
#include "controller/pods.h"
#include "schema/schema.h"

enum { LOOK_AGAIN_MS = 500 };

struct left {
    int64_t kinds;
    struct buf *remaining, *finalizers;
    bool pods;
    struct err why; /* the last deletion that failed */
};

static const char *resource_name(struct arena *a, const struct resource *r)
{
    return arena_printf(a, "%s/%s", r->api_version, r->plural);
}

static void tell_left(struct ctl *ctl, const struct resource *r, struct objs list, struct left *left)
{
    struct arena *a = ctl->arena;
    const char *name = arena_printf(a, "%s.%s", r->plural, r->group);
    struct val *names = val_map(a);

    if (!left->kinds++)
        buf_adds(left->remaining, "Some resources are remaining: ");
    else
        buf_adds(left->remaining, ", ");
    buf_printf(left->remaining, "%s has %u resource instances", name, list.n);
    for (uint32_t i = 0; i < list.n; i++)
        VAL_EACH(val_get(obj_meta(list.v[i]), "finalizers"), f)
            val_put_int(a, names, val_text(f, ""), 1);
    VAL_EACH_MEMBER(names, m) {
        int64_t n = 0;

        for (uint32_t i = 0; i < list.n; i++)
            n += obj_has_finalizer(list.v[i], m->key);
        buf_printf(left->finalizers, "%s%s in %lld resource instances",
                   left->finalizers->n ? ", " : "Some content in the namespace has finalizers remaining: ",
                   m->key, (long long)n);
    }
}

/* Deletes what is there of one kind; what stays is added to left. */
static void empty_kind(struct ctl *ctl, const char *ns, const struct resource *r, struct left *left)
{
    const char *resource = resource_name(ctl->arena, r);
    struct objs list = client_list(ctl->client, ctl->arena, resource, ns, NULL, NULL);
    struct err err;

    for (uint32_t i = 0; i < list.n; i++) {
        struct client_delete how = {.uid = list.v[i]->uid, .propagation = "Background", .grace_s = -1};

        if (obj_deleting(list.v[i]))
            continue;
        if (client_delete(ctl->client, resource, ns, list.v[i]->name, &how, &err) < 0 &&
            err.code != ERR_NOT_FOUND && err.code != ERR_CONFLICT)
            left->why = err;
    }
    if (list.n)
        list = client_list(ctl->client, ctl->arena, resource, ns, NULL, NULL);
    if (list.n)
        tell_left(ctl, r, list, left);
    if (list.n && streq(r->plural, "pods") && !*r->group)
        left->pods = true;
}

static void empty_namespace(struct ctl *ctl, const char *ns, struct left *left)
{
    const struct schema *schema = ctl->all->opts.schema;
    const struct resource *r;

    r = schema_resource(schema, "", "v1", "pods");
    if (r)
        empty_kind(ctl, ns, r, left);
    if (left->pods)
        return; /* they may still need their secrets, claims and accounts until they end */
    for (uint32_t i = 0; (r = schema_next(schema, &i));) {
        if (!r->namespaced || r->virtual_ || !r->stored || !(r->verbs & VERB_LIST) ||
            !(r->verbs & VERB_DELETE) || (!*r->group && streq(r->plural, "pods")))
            continue;
        empty_kind(ctl, ns, r, left);
    }
}

static int tell(struct ctl *ctl, const char *key, struct left *left, struct err *err)
{
    const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", key);
    struct val *v;

    if (!ns)
        return 0;
    v = obj_edit(ns, ctl->arena);
    ctl_condition(ctl, v, "NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered",
                  "All resources successfully discovered", false);
    ctl_condition(ctl, v, "NamespaceDeletionGroupVersionParsingFailure", "False",
                  "ParsedGroupVersions", "All legacy kube types successfully parsed", false);
    if (left->why.code)
        ctl_condition(ctl, v, "NamespaceDeletionContentFailure", "True", "ContentDeletionFailed",
                      left->why.msg, false);
    else
        ctl_condition(ctl, v, "NamespaceDeletionContentFailure", "False", "ContentDeleted",
                      "All content successfully deleted, may be waiting on finalization", false);
    if (left->kinds)
        ctl_condition(ctl, v, "NamespaceContentRemaining", "True", "SomeResourcesRemain",
                      left->remaining->p, false);
    else
        ctl_condition(ctl, v, "NamespaceContentRemaining", "False", "ContentRemoved",
                      "All content successfully removed", false);
    if (left->finalizers->n)
        ctl_condition(ctl, v, "NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain",
                      left->finalizers->p, false);
    else
        ctl_condition(ctl, v, "NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers",
                      "All content-preserving finalizers finished", false);
    return ctl_update_status(ctl, K_NAMESPACE, ns, v, err);
}

static void finalized(void *arg, const struct client_result *r)
{
    (void)arg;
    if (r->err && r->err->code != ERR_NOT_FOUND && r->err->code != ERR_CONFLICT)
        LOG(WARN, "controller", "ctl=namespace did=finalize failed=\"%s\"", r->err->msg);
}

/* PUT .../finalize; answered later, so a second look in a while makes sure. */
static void finalize(struct ctl *ctl, const char *key)
{
    const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", key);
    struct client_call call = {.verb = CLIENT_UPDATE, .resource = kind_rows[K_NAMESPACE].resource,
                               .name = key, .sub = "finalize"};
    struct val *v, *list;

    if (!ns)
        return;
    v = obj_edit(ns, ctl->arena);
    list = val_need_list(ctl->arena, val_need_map(ctl->arena, v, "spec"), "finalizers");
    for (uint32_t i = list->n; i-- > 0;)
        if (streq(val_text(&list->items[i], ""), "kubernetes"))
            val_remove(list, i);
    call.body = v;
    client_call(ctl->client, &call, finalized, NULL);
    ctl_want_in(ctl, key, LOOK_AGAIN_MS);
}

static bool has_ours(const struct obj *ns)
{
    VAL_EACH(val_at(obj_val(ns), "spec.finalizers"), f)
        if (streq(val_text(f, ""), "kubernetes"))
            return true;
    return false;
}

static enum again namespace_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", key);
    struct buf remaining = {0}, finalizers = {0};
    struct left left = {.remaining = &remaining, .finalizers = &finalizers};
    enum again again = DONE;

    if (!ns || !obj_deleting(ns) || !has_ours(ns))
        return DONE;
    empty_namespace(ctl, key, &left);
    if (tell(ctl, key, &left, err) < 0)
        again = RETRY;
    else if (left.kinds || left.why.code)
        ctl_want_in(ctl, key, LOOK_AGAIN_MS);
    else
        finalize(ctl, key);
    buf_done(&remaining);
    buf_done(&finalizers);
    return again;
}

static void namespace_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                              const struct obj *now)
{
    if (kind == K_NAMESPACE && now && obj_deleting(now)) {
        ctl_want_key(ctl, now->name);
    } else if (kind == K_POD && !now) { /* the last pod may be what it waits for */
        const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", was->namespace_);

        if (ns && obj_deleting(ns))
            ctl_want_key(ctl, ns->name);
    }
}

extern const struct controller namespace_controller;
const struct controller namespace_controller = {
    .name = "namespace",
    .component = "namespace-controller",
    .reconcile = namespace_reconcile,
    .changed = namespace_changed,
    .kinds = KIND_BIT(K_NAMESPACE) | KIND_BIT(K_POD),
};
