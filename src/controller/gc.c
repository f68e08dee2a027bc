/* The garbage collector: an object whose owners are all gone goes too.
 *
 * A graph over every kind that is served (custom ones too): who exists, by uid, and who names whom
 * as owner. It only says where to look; each decision is taken from the objects as they are now.
 *   background  the owner is gone: dependents whose owners are all gone are deleted
 *   foreground  the owner waits (finalizer foregroundDeletion) until no dependent blocks it
 *   orphan      (finalizer orphan) dependents lose the reference first, then the owner goes
 * Keys are uids. An owner of a kind that we do not serve counts as alive: nothing is deleted
 * because of what we cannot see. */
#include <stdio.h>

#include "base/map.h"
#include "controller/ctl_int.h"
#include "controller/pods.h"
#include "schema/schema.h"

#define FOREGROUND "foregroundDeletion"
#define ORPHAN "orphan"

enum { NEW_KINDS_MS = 1000 };

struct res {
    struct gc *gc;
    char *resource; /* "apps/v1/deployments" */
    char *group, *plural;
    struct mirror *mirror;
    bool namespaced;
    struct res *next;
};
struct item {
    struct res *res;
    char *uid, *ns, *name;
    char **owners; /* uids */
    uint32_t owners_n;
    bool deleting;
};
struct dependents {
    struct item **v;
    uint32_t n, cap;
};
struct gc {
    struct ctl *ctl;
    struct res *all;
    struct map by_name;    /* resource -> struct res */
    struct map items;      /* uid -> struct item */
    struct map dependents; /* owner's uid -> struct dependents */
    uint64_t generation;   /* of the schema when kinds were last looked for */
};

/* ---- the graph ---- */

static void link_owner(struct gc *gc, struct item *it, const char *uid)
{
    struct dependents *d = map_get(&gc->dependents, uid);

    if (!d) {
        d = xcalloc(1, sizeof *d);
        map_put(&gc->dependents, uid, d);
    }
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 4;
        d->v = xrealloc(d->v, d->cap * sizeof(struct item *));
    }
    d->v[d->n++] = it;
}

static void unlink_owner(struct gc *gc, struct item *it, const char *uid)
{
    struct dependents *d = map_get(&gc->dependents, uid);

    for (uint32_t i = 0; d && i < d->n; i++)
        if (d->v[i] == it) {
            d->v[i] = d->v[--d->n];
            break;
        }
    if (d && d->n == 0) {
        map_del(&gc->dependents, uid);
        free(d->v);
        free(d);
    }
}

static void forget_owners(struct gc *gc, struct item *it)
{
    for (uint32_t i = 0; i < it->owners_n; i++) {
        unlink_owner(gc, it, it->owners[i]);
        free(it->owners[i]);
    }
    free(it->owners);
    it->owners = NULL;
    it->owners_n = 0;
}

static bool same_owners(const struct item *it, const struct val *refs)
{
    uint32_t i = 0;

    if (val_len(refs) != it->owners_n)
        return false;
    VAL_EACH(refs, r)
        if (!streq(val_str_at(r, "uid", ""), it->owners[i++]))
            return false;
    return true;
}

static void learn_owners(struct gc *gc, struct item *it, const struct val *refs)
{
    if (same_owners(it, refs))
        return;
    forget_owners(gc, it);
    it->owners = xcalloc(val_len(refs) + 1, sizeof *it->owners);
    VAL_EACH(refs, r) {
        it->owners[it->owners_n] = xstrdup(val_str_at(r, "uid", ""));
        link_owner(gc, it, it->owners[it->owners_n++]);
    }
}

static void want_dependents(struct gc *gc, const char *uid)
{
    const struct dependents *d = map_get(&gc->dependents, uid);

    for (uint32_t i = 0; d && i < d->n; i++)
        ctl_want_key(gc->ctl, d->v[i]->uid);
}

static void item_free(struct gc *gc, struct item *it)
{
    forget_owners(gc, it);
    free(it->uid);
    free(it->ns);
    free(it->name);
    free(it);
}

static void see(struct res *res, const struct obj *o)
{
    struct gc *gc = res->gc;
    struct item *it = map_get(&gc->items, o->uid);
    bool look = obj_deleting(o);

    if (!*o->uid)
        return;
    if (!it) {
        it = xcalloc(1, sizeof *it);
        *it = (struct item){.res = res, .uid = xstrdup(o->uid), .ns = xstrdup(o->namespace_),
                            .name = xstrdup(o->name)};
        map_put(&gc->items, o->uid, it);
    }
    it->deleting = look;
    learn_owners(gc, it, val_get(obj_meta(o), "ownerReferences"));
    for (uint32_t i = 0; i < it->owners_n && !look; i++) {
        const struct item *owner = map_get(&gc->items, it->owners[i]);

        /* an owner on its way out may wait for this one: also when our delete was taken back by the store */
        look = !owner || owner->deleting;
    }
    if (look)
        ctl_want_key(gc->ctl, o->uid);
}

static void on_added(void *arg, const struct obj *o)
{
    see(arg, o);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    const struct val *before = val_get(obj_meta(was), "ownerReferences");
    struct gc *gc = ((struct res *)arg)->gc;

    /* an owner that this one no longer blocks may wait for just that */
    if (before && !val_equal(before, val_get(obj_meta(o), "ownerReferences")))
        VAL_EACH(before, r)
            if (map_get(&gc->items, val_str_at(r, "uid", "")))
                ctl_want_key(gc->ctl, val_str_at(r, "uid", ""));
    see(arg, o);
}

static void on_removed(void *arg, const struct obj *last)
{
    struct gc *gc = ((struct res *)arg)->gc;
    struct item *it = map_del(&gc->items, last->uid);

    if (!it)
        return;
    want_dependents(gc, it->uid);
    for (uint32_t i = 0; i < it->owners_n; i++) /* one of them may wait for us to be gone */
        if (map_get(&gc->items, it->owners[i]))
            ctl_want_key(gc->ctl, it->owners[i]);
    item_free(gc, it);
}

/* ---- kinds ---- */

static bool collects(const struct resource *r)
{
    return r->stored && !r->virtual_ && (r->verbs & VERB_LIST) && (r->verbs & VERB_WATCH) &&
           (r->verbs & VERB_DELETE) && !streq(r->plural, "events");
}

static void add_kind(struct gc *gc, const struct resource *r)
{
    char resource[256];
    struct mirror_args args = {.added = on_added, .changed = on_changed, .removed = on_removed};
    struct res *res;
    struct objs there;

    snprintf(resource, sizeof resource, "%s/%s", r->api_version, r->plural);
    if (map_get(&gc->by_name, resource))
        return;
    res = xcalloc(1, sizeof *res);
    *res = (struct res){.gc = gc, .resource = xstrdup(resource), .group = xstrdup(r->group),
                        .plural = xstrdup(r->plural), .namespaced = r->namespaced, .next = gc->all};
    gc->all = res;
    map_put(&gc->by_name, resource, res);
    args.resource = res->resource;
    args.arg = res;
    res->mirror = client_mirror(gc->ctl->client, &args);
    /* it is filled already; added() comes later, when objects of other kinds were looked at */
    there = mirror_list(res->mirror, gc->ctl->arena, NULL);
    for (uint32_t i = 0; i < there.n; i++)
        see(res, there.v[i]);
}

static void drop_kind(struct gc *gc, struct res *res)
{
    struct objs there = mirror_list(res->mirror, gc->ctl->arena, NULL);

    for (uint32_t i = 0; i < there.n; i++)
        on_removed(res, there.v[i]);
    mirror_free(res->mirror);
    map_del(&gc->by_name, res->resource);
    for (struct res **p = &gc->all; *p; p = &(*p)->next)
        if (*p == res) {
            *p = res->next;
            break;
        }
    free(res->resource);
    free(res->group);
    free(res->plural);
    free(res);
}

static void look_for_kinds(struct gc *gc)
{
    const struct schema *schema = gc->ctl->all->opts.schema;
    const struct resource *r;

    if (gc->all && gc->generation == schema_generation(schema))
        return;
    gc->generation = schema_generation(schema);
    for (struct res *res = gc->all, *next; res; res = next) {
        next = res->next;
        if (!schema_preferred(schema, res->group, res->plural))
            drop_kind(gc, res);
    }
    for (uint32_t i = 0; (r = schema_next(schema, &i));)
        if (collects(r))
            add_kind(gc, r);
}

/* ---- decisions ---- */

static const struct obj *object_of(struct gc *gc, const struct item *it)
{
    const struct obj *o = client_get(gc->ctl->client, gc->ctl->arena, it->res->resource, it->ns, it->name);

    return o && streq(o->uid, it->uid) ? o : NULL;
}

enum owner_state { SOLID, DANGLING, WAITING };

/* The owner is there, but not where this object could have one. */
static void tell_invalid(struct gc *gc, const struct item *it, const struct val *ref)
{
    const struct obj *o = object_of(gc, it);

    if (o)
        ctl_event(gc->ctl, o, "Warning", "OwnerRefInvalidNamespace",
                  "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace \"%s\"",
                  val_str_at(ref, "apiVersion", ""), val_str_at(ref, "kind", ""), it->ns, val_str_at(ref, "name", ""),
                  val_str_at(ref, "uid", ""), it->ns);
}

static enum owner_state owner_state(struct gc *gc, const struct item *it, const struct val *ref)
{
    const struct schema *schema = gc->ctl->all->opts.schema;
    const struct resource *r = schema_kind_of(schema, val_str_at(ref, "apiVersion", ""),
                                              val_str_at(ref, "kind", ""));
    const char *uid = val_str_at(ref, "uid", ""), *resource;
    const struct obj *owner;

    if (r && r->namespaced && !it->res->namespaced)
        tell_invalid(gc, it, ref);
    if (!r || r->virtual_ || (r->namespaced && !it->res->namespaced))
        return SOLID;
    r = schema_stored(r);
    resource = arena_printf(gc->ctl->arena, "%s/%s", r->api_version, r->plural);
    owner = client_get(gc->ctl->client, gc->ctl->arena, resource, r->namespaced ? it->ns : "",
                       val_str_at(ref, "name", ""));
    if ((!owner || !streq(owner->uid, uid)) && map_get(&gc->items, uid))
        tell_invalid(gc, it, ref);
    if (!owner || !streq(owner->uid, uid))
        return DANGLING;
    if (obj_deleting(owner) && obj_has_finalizer(owner, FOREGROUND))
        return WAITING;
    return SOLID;
}

static int write_refs(struct gc *gc, const struct item *it, struct val *v, struct err *err)
{
    struct val *meta = val_get(v, "metadata");

    if (!val_len(val_get(meta, "ownerReferences")))
        val_del(meta, "ownerReferences");
    if (client_update(gc->ctl->client, it->res->resource, v, NULL, err) < 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    return 0;
}

static int drop_reference(struct gc *gc, const struct item *it, const char *uid, struct err *err)
{
    const struct obj *o = object_of(gc, it);
    struct val *v = o ? obj_edit(o, gc->ctl->arena) : NULL;
    struct val *refs = val_at(v, "metadata.ownerReferences");

    for (uint32_t i = refs ? refs->n : 0; i-- > 0;)
        if (streq(val_str_at(&refs->items[i], "uid", ""), uid))
            val_remove(refs, i);
    return v ? write_refs(gc, it, v, err) : 0;
}

static int drop_finalizer(struct gc *gc, const struct item *it, const char *name, struct err *err)
{
    const struct obj *o = object_of(gc, it);
    struct val *v = o ? obj_edit(o, gc->ctl->arena) : NULL;
    struct val *list = val_at(v, "metadata.finalizers");

    if (!list)
        return 0;
    for (uint32_t i = list->n; i-- > 0;)
        if (streq(val_text(&list->items[i], ""), name))
            val_remove(list, i);
    if (client_update(gc->ctl->client, it->res->resource, v, NULL, err) < 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    return 0;
}

static bool blocks(const struct obj *o, const char *owner_uid)
{
    VAL_EACH(val_get(obj_meta(o), "ownerReferences"), r)
        if (streq(val_str_at(r, "uid", ""), owner_uid))
            return val_bool_at(r, "blockOwnerDeletion", false);
    return false;
}

/* The dependents as uids: the list changes while we write. */
static char **dependent_uids(struct gc *gc, const char *uid, uint32_t *ret_n)
{
    const struct dependents *d = map_get(&gc->dependents, uid);
    char **v = arena_array(gc->ctl->arena, char *, d ? d->n + 1 : 1);

    for (*ret_n = 0; d && *ret_n < d->n; ++*ret_n)
        v[*ret_n] = arena_strdup(gc->ctl->arena, d->v[*ret_n]->uid);
    return v;
}

static int orphan_dependents(struct gc *gc, const struct item *it, struct err *err)
{
    char *uid = arena_strdup(gc->ctl->arena, it->uid);
    uint32_t n;
    char **v = dependent_uids(gc, uid, &n);

    for (uint32_t i = 0; i < n; i++) {
        const struct item *dep = map_get(&gc->items, v[i]);

        if (dep && drop_reference(gc, dep, uid, err) < 0)
            return -1;
    }
    it = map_get(&gc->items, uid);
    return it ? drop_finalizer(gc, it, ORPHAN, err) : 0;
}

static int wait_for_dependents(struct gc *gc, const struct item *it, struct err *err)
{
    uint32_t n, blocking = 0;
    char **v = dependent_uids(gc, it->uid, &n);

    for (uint32_t i = 0; i < n; i++) {
        const struct item *dep = map_get(&gc->items, v[i]);
        const struct obj *o = dep ? object_of(gc, dep) : NULL;

        if (!o)
            continue;
        blocking += blocks(o, it->uid);
        if (!obj_deleting(o))
            ctl_want_key(gc->ctl, v[i]);
    }
    return blocking ? 0 : drop_finalizer(gc, it, FOREGROUND, err);
}

static int delete_item(struct gc *gc, const struct item *it, const struct obj *o, bool foreground,
                       struct err *err)
{
    struct client_delete how = {.uid = it->uid, .grace_s = -1, .propagation = "Background"};

    if (obj_has_finalizer(o, ORPHAN))
        how.propagation = "Orphan";
    else if (foreground || obj_has_finalizer(o, FOREGROUND))
        how.propagation = "Foreground";
    if (client_delete(gc->ctl->client, it->res->resource, arena_strdup(gc->ctl->arena, it->ns),
                      arena_strdup(gc->ctl->arena, it->name), &how, err) < 0)
        return err->code == ERR_NOT_FOUND || err->code == ERR_CONFLICT ? 0 : -1;
    return 0;
}

/* One of its own dependents already waits for what depends on it: a circle. It must not block. */
static bool in_circle(struct gc *gc, const struct item *it)
{
    const struct dependents *d = map_get(&gc->dependents, it->uid);

    for (uint32_t i = 0; d && i < d->n; i++) {
        const struct obj *o = object_of(gc, d->v[i]);

        if (o && obj_deleting(o) && obj_has_finalizer(o, FOREGROUND))
            return true;
    }
    return false;
}

static int unblock(struct gc *gc, const struct item *it, struct err *err)
{
    const struct obj *o = object_of(gc, it);
    struct val *v = o ? obj_edit(o, gc->ctl->arena) : NULL;
    bool any = false;

    VAL_EACH(val_at(v, "metadata.ownerReferences"), r) {
        if (!val_bool_at(r, "blockOwnerDeletion", false))
            continue;
        val_put_bool(gc->ctl->arena, r, "blockOwnerDeletion", false);
        any = true;
    }
    return any ? write_refs(gc, it, v, err) : 0;
}

static int consider(struct gc *gc, const struct item *it, const struct obj *o, struct err *err)
{
    struct val *v = obj_edit(o, gc->ctl->arena);
    struct val *refs = val_at(v, "metadata.ownerReferences");
    uint32_t solid = 0, waiting = 0, all = val_len(refs);

    for (uint32_t i = all; i-- > 0;) {
        enum owner_state s = owner_state(gc, it, &refs->items[i]);

        solid += s == SOLID;
        waiting += s == WAITING;
        if (s != SOLID)
            val_remove(refs, i);
    }
    if (all == 0 || solid == all)
        return 0;
    if (solid) /* somebody still wants it: only the others' names come off */
        return write_refs(gc, it, v, err);
    waiting = waiting && map_get(&gc->dependents, it->uid);
    if (waiting && in_circle(gc, it) && (unblock(gc, it, err) < 0 || !(o = object_of(gc, it))))
        return err->code ? -1 : 0;
    return delete_item(gc, it, o, waiting, err);
}

static enum again gc_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct gc *gc = ctl->mine;
    const struct item *it;
    const struct obj *o;
    int done = 0;

    if (streq(key, "kinds")) {
        look_for_kinds(gc);
        ctl_want_in(ctl, key, NEW_KINDS_MS);
        return DONE;
    }
    it = map_get(&gc->items, key);
    o = it ? object_of(gc, it) : NULL;
    if (!o)
        return DONE;
    if (!obj_deleting(o))
        done = consider(gc, it, o, err);
    else if (obj_has_finalizer(o, ORPHAN))
        done = orphan_dependents(gc, it, err);
    else if (obj_has_finalizer(o, FOREGROUND))
        done = wait_for_dependents(gc, it, err);
    return done < 0 ? RETRY : DONE;
}

/* ---- life ---- */

static void gc_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    (void)ctl, (void)kind, (void)was, (void)now; /* it has mirrors of its own, of all kinds */
}

static void gc_start(struct ctl *ctl)
{
    struct gc *gc = xcalloc(1, sizeof *gc);

    gc->ctl = ctl;
    ctl->mine = gc;
    look_for_kinds(gc);
    ctl_want_in(ctl, "kinds", NEW_KINDS_MS);
}

static void gc_stop(struct ctl *ctl)
{
    struct gc *gc = ctl->mine;
    const char *key;
    void *it;

    while (gc->all) {
        struct res *res = gc->all;

        gc->all = res->next;
        mirror_free(res->mirror);
        free(res->resource);
        free(res->group);
        free(res->plural);
        free(res);
    }
    for (uint32_t i = 0; map_next(&gc->items, &i, &key, &it);)
        item_free(gc, it);
    map_done(&gc->items);
    map_done(&gc->dependents);
    map_done(&gc->by_name);
    free(gc);
    ctl->mine = NULL;
}

extern const struct controller gc_controller;
const struct controller gc_controller = {
    .name = "gc",
    .component = "garbage-collector-controller",
    .reconcile = gc_reconcile,
    .changed = gc_changed,
    .start = gc_start,
    .stop = gc_stop,
};
