/* ResourceQuotas: what is used, counted from the objects that are there.
 *
 * Admission adds to status.used when it lets something in; only here it gets less again: when
 * objects go, end, or ask for less. A quota is counted again when its spec changes, soon after
 * something it counts went (all that goes at once is one count), and every five minutes.
 * Kinds are watched only while a quota names them, so that none costs anything when unused. */
#include "schema/quota.h"

#include <stdio.h>

#include "base/map.h"
#include "controller/ctl_int.h"
#include "schema/schema.h"

enum { SOON_MS = 50, RECOUNT_MS = 5 * 60 * 1000 };

struct watched {
    struct ctl *ctl;
    char *group, *plural, *resource;
    struct mirror *mirror;
    struct watched *next;
};
struct memory {
    struct watched *all;
};

/* ---- what goes ---- */

static void want_quotas(struct ctl *ctl, const char *ns)
{
    struct objs quotas = ctl_list(ctl, K_QUOTA, ns);
    char key[CLIENT_KEY_BYTES];

    for (uint32_t i = 0; i < quotas.n; i++)
        ctl_want_in(ctl, client_key(quotas.v[i], key), SOON_MS);
}

static void on_removed(void *arg, const struct obj *last)
{
    struct watched *w = arg;

    want_quotas(w->ctl, last->namespace_);
}

static struct amounts usage_of(struct ctl *ctl, struct arena *a, const struct watched *w,
                               const struct obj *o)
{
    struct quota_world world = {.now_ms = ctl->now_ms};
    struct amounts r = {.a = a};

    quota_usage(&world, w->group, w->plural, obj_val(o), &r);
    return r;
}

/* Less of something, or in other scopes: only kinds that use more than their number can change. */
static void on_changed(void *arg, const struct obj *was, const struct obj *now)
{
    static const char *const kinds[] = {"pods", "services", "persistentvolumeclaims", "resourceclaims"};
    struct watched *w = arg;
    bool look = false;

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        look |= streq(kinds[i], w->plural);
    if (!look || !ctl_list(w->ctl, K_QUOTA, now->namespace_).n)
        return;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct amounts x = usage_of(w->ctl, a, w, was), y = usage_of(w->ctl, a, w, now);
    /* or the same, but under other scopes */
    bool scopes = streq(w->plural, "pods") ? quota_update_counts("", "pods", "", obj_val(now), obj_val(was))
                  : streq(w->plural, "persistentvolumeclaims") &&
                        quota_update_counts("", "persistentvolumeclaims", "status", obj_val(now), obj_val(was));
    if (scopes || !streq(amounts_text(&x), amounts_text(&y)))
        want_quotas(w->ctl, now->namespace_);
}

/* ---- kinds ---- */

/* What was counted before is not all that there is. */
static void on_synced(void *arg)
{
    ctl_want_all(((struct watched *)arg)->ctl, K_QUOTA, NULL);
}

static struct watched *watch(struct ctl *ctl, const struct resource *r)
{
    struct memory *m = ctl->mine;
    struct mirror_args args = {.changed = on_changed, .removed = on_removed, .synced = on_synced};
    struct watched *w = m->all;
    char resource[256];

    while (w && !(streq(w->plural, r->plural) && streq(w->group, r->group)))
        w = w->next;
    if (w)
        return w;
    snprintf(resource, sizeof resource, "%s/%s", r->api_version, r->plural);
    w = xcalloc(1, sizeof *w);
    *w = (struct watched){.ctl = ctl, .group = xstrdup(r->group), .plural = xstrdup(r->plural),
                          .resource = xstrdup(resource), .next = m->all};
    m->all = w;
    args.resource = w->resource;
    args.arg = w;
    w->mirror = client_mirror(ctl->client, &args);
    return w;
}

static void unwatch(struct memory *m, struct watched *w)
{
    for (struct watched **p = &m->all; *p; p = &(*p)->next)
        if (*p == w) {
            *p = w->next;
            break;
        }
    mirror_free(w->mirror);
    free(w->group);
    free(w->plural);
    free(w->resource);
    free(w);
}

/* Kinds that are no longer served are no longer watched. */
static void forget_kinds(struct ctl *ctl)
{
    struct memory *m = ctl->mine;

    for (struct watched *w = m->all, *next; w; w = next) {
        next = w->next;
        if (!schema_preferred(ctl->all->opts.schema, w->group, w->plural))
            unwatch(m, w);
    }
}

/* ---- counting ---- */

static const struct val *world_pod(void *arg, const char *ns, const char *name)
{
    const struct obj *o = ctl_get(arg, K_POD, ns, name);

    return o ? obj_val(o) : NULL;
}

static const struct val *world_class(void *arg, const char *name)
{
    struct ctl *ctl = arg;
    const struct obj *o = client_get(ctl->client, ctl->arena, "resource.k8s.io/v1/deviceclasses", "", name);

    return o ? obj_val(o) : NULL;
}

static const struct val *world_class_for(void *arg, const char *extended)
{
    struct ctl *ctl = arg;
    struct objs list = client_list(ctl->client, ctl->arena, "resource.k8s.io/v1/deviceclasses", NULL, NULL, NULL);

    for (uint32_t i = 0; i < list.n; i++)
        if (streq(val_str_at(obj_val(list.v[i]), "spec.extendedResourceName", ""), extended))
            return obj_val(list.v[i]);
    return NULL;
}

/* Adds to used what the objects of one kind use of the amounts in hard; names it counts start at 0. */
static void count_kind(struct ctl *ctl, const struct quota_world *world, const struct resource *r,
                       const struct obj *quota, const struct val *hard, struct amounts *used)
{
    const struct val *spec = val_get(obj_val(quota), "spec");
    bool any = false;
    struct objs list;

    VAL_EACH_MEMBER(hard, m)
        if (quota_tracks(world, r->group, r->plural, m->key)) {
            amounts_add(used, m->key, 0, false);
            any = true;
        }
    if (!any)
        return;
    list = mirror_list(watch(ctl, r)->mirror, ctl->arena, quota->namespace_);
    for (uint32_t i = 0; i < list.n; i++) {
        struct amounts x = {.a = ctl->arena};

        if (!quota_scopes_hold(r->group, r->plural, spec, obj_val(list.v[i])))
            continue;
        quota_usage(world, r->group, r->plural, obj_val(list.v[i]), &x);
        VAL_EACH_MEMBER(hard, m) {
            const struct amount *y = amounts_get(&x, m->key);

            if (y)
                amounts_add(used, m->key, y->q, y->binary);
        }
    }
}

static enum again quota_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct schema *schema = ctl->all->opts.schema;
    const struct obj *o = ctl_get_key(ctl, K_QUOTA, key);
    const struct quota_world world = {.arg = ctl, .now_ms = ctl->now_ms, .pod = world_pod,
                                      .class_named = world_class, .class_for = world_class_for};
    struct amounts used = {.a = ctl->arena};
    const struct val *hard, *was;
    const struct resource *r;
    struct val *v, *status, *put;

    forget_kinds(ctl);
    if (!o)
        return DONE;
    ctl_want_in(ctl, key, RECOUNT_MS);
    hard = val_at(obj_val(o), "spec.hard");
    was = val_at(obj_val(o), "status.used");
    for (uint32_t i = 0; schema && (r = schema_next(schema, &i));)
        if (r->stored && r->namespaced && !r->virtual_ && (r->verbs & VERB_LIST))
            count_kind(ctl, &world, r, o, hard, &used);
    v = obj_edit(o, ctl->arena);
    status = val_map(ctl->arena);
    if (val_len(hard)) {
        val_put(ctl->arena, status, "hard", hard);
        put = val_put(ctl->arena, status, "used", val_map(ctl->arena));
        VAL_EACH_MEMBER(hard, m) {
            const struct amount *x = amounts_get(&used, m->key);

            /* what nobody here counts stays as somebody else told it */
            if (x)
                val_put_str(ctl->arena, put, m->key, quantity_text(ctl->arena, x->q, x->binary));
            else if (val_get(was, m->key))
                val_put(ctl->arena, put, m->key, val_get(was, m->key));
        }
        if (!val_len(put))
            val_del(status, "used");
    }
    val_put(ctl->arena, v, "status", status);
    return ctl_update_status(ctl, K_QUOTA, o, v, err) < 0 ? RETRY : DONE;
}

static void quota_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    if (kind == K_QUOTA && now && (!was || !val_equal(val_at(obj_val(was), "spec.hard"), val_at(obj_val(now), "spec.hard"))))
        ctl_want_obj(ctl, now);
}

static void quota_start(struct ctl *ctl)
{
    ctl->mine = xcalloc(1, sizeof(struct memory));
    ctl_want_all(ctl, K_QUOTA, NULL);
}

static void quota_stop(struct ctl *ctl)
{
    struct memory *m = ctl->mine;

    while (m->all)
        unwatch(m, m->all);
    free(m);
    ctl->mine = NULL;
}

extern const struct controller quota_controller;
const struct controller quota_controller = {
    .name = "quota",
    .component = "resourcequota-controller",
    .reconcile = quota_reconcile,
    .changed = quota_changed,
    .kinds = KIND_BIT(K_QUOTA) | KIND_BIT(K_POD),
    .start = quota_start,
    .stop = quota_stop,
};
