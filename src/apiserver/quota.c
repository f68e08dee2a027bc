/* apiserver/quota.c - ResourceQuota: refuses what would go over a quota, and charges what is stored.
 *
 * A quota's status says what is used (as a stock server does it: the controller counts, admission
 * adds). quota_admit() is the last plugin of the chain and only looks; quota_charge() adds to the
 * statuses right before the object is put, in the same step of the one loop that writes. So of fifty
 * creates at once exactly as many pass as there is room for. What goes (deletes, ends, smaller
 * claims) is given back by the quota controller, which counts the objects anew. */
#include "schema/quota.h"

#include "apiserver/admission.h"
#include "apiserver/hooks.h"

struct quota_charge {
    struct quota_charge *next;
    const struct obj *quota; /* as it was looked at; pinned */
    struct amounts used;     /* what its status will say */
};

static const struct val *world_pod(void *arg, const char *ns, const char *name)
{
    struct call *c = arg;

    return obj_val(store_get(c->api->store, table_named(c->api->store, "", "pods"), ns, name));
}

static const struct val *world_class(void *arg, const char *name)
{
    struct call *c = arg;
    const struct obj *o = store_get(c->api->store, table_named(c->api->store, "resource.k8s.io",
                                                               "deviceclasses"), "", name);

    return o ? obj_val(o) : NULL;
}

static const struct val *world_class_for(void *arg, const char *extended)
{
    struct call *c = arg;
    struct store_iter it;
    struct err err = {0};
    const struct obj *o, *found = NULL;

    if (store_iter_init(&it, c->api->store, table_named(c->api->store, "resource.k8s.io", "deviceclasses"),
                        NULL, 0, NULL, NULL, &err) < 0)
        return NULL;
    while (!found && (o = store_iter_next(&it)))
        if (streq(val_str_at(obj_val(o), "spec.extendedResourceName", ""), extended))
            pin_obj(c->a, obj_ref(found = o));
    store_iter_done(&it);
    return found ? obj_val(found) : NULL;
}

/* The quota's amounts (status.hard) that this kind uses. */
static struct amounts tracked(struct call *c, const struct quota_world *w, const struct amounts *hard)
{
    struct amounts r = {.a = c->a};

    for (uint32_t i = 0; i < hard->n; i++)
        if (quota_tracks(w, c->stored->group, c->stored->plural, hard->v[i].name))
            amounts_add(&r, hard->v[i].name, hard->v[i].q, hard->v[i].binary);
    return r;
}

/* Names of list that are not in has, as "a,b"; NULL: all are. */
static char *not_in(struct call *c, const struct amounts *list, const struct amounts *has)
{
    bool all = true;
    struct buf b = {.max = 1 << 14};
    char *text;

    for (uint32_t i = 0; i < list->n; i++)
        all = all && amounts_get(has, list->v[i].name);
    for (uint32_t i = 0; !all && i < list->n; i++)
        buf_printf(&b, "%s%s", b.n ? "," : "", list->v[i].name);
    text = all ? NULL : arena_strdup(c->a, b.p);
    buf_done(&b);
    return text;
}

struct look {
    struct call *c;
    struct admission *ad;
    struct quota_world w;
    struct amounts now, before; /* what the object uses, what it used */
    struct quota_charge **end;
};

/* What comes on top of what this quota was charged for already. */
static quantity delta_of(struct look *x, const struct val *spec, const char *name)
{
    const struct amount *now = amounts_get(&x->now, name), *was;
    quantity q = now ? now->q : 0;

    if (!x->ad->old || !quota_scopes_hold(x->c->stored->group, x->c->stored->plural, spec, x->ad->old))
        return q;
    was = amounts_get(&x->before, name);
    q -= was ? was->q : 0;
    return q > 0 ? q : 0;
}

static int check_room(struct look *x, const struct obj *o, const struct amounts *hard,
                      const struct amounts *mine, struct amounts *used)
{
    struct call *c = x->c;
    const struct val *spec = val_get(obj_val(o), "spec");
    struct amounts asked = {.a = c->a}, had = {.a = c->a}, limit = {.a = c->a};
    bool any = false;

    for (uint32_t i = 0; i < mine->n; i++) {
        const char *name = mine->v[i].name;
        const struct amount *was = amounts_get(used, name), *form = amounts_get(&x->now, name);
        quantity q = delta_of(x, spec, name);

        if (!q)
            continue;
        any = true;
        if (!streq(x->ad->sub, "status") && was->q + q > mine->v[i].q) {
            amounts_add(&asked, name, q, form->binary);
            amounts_add(&had, name, was->q, was->binary);
            amounts_add(&limit, name, mine->v[i].q, mine->v[i].binary);
        }
    }
    (void)hard;
    if (asked.n)
        return fail_forbidden(c, x->ad->name, "exceeded quota: %s, requested: %s, used: %s, limited: %s",
                              o->name, amounts_text(&asked), amounts_text(&had), amounts_text(&limit));
    if (!any)
        return 0;
    for (uint32_t i = 0; i < mine->n; i++) {
        const struct amount *form = amounts_get(&x->now, mine->v[i].name);

        if (form)
            amounts_add(used, mine->v[i].name, delta_of(x, spec, mine->v[i].name), form->binary);
    }
    struct quota_charge *ch = arena_alloc(c->a, sizeof(*ch));
    ch->quota = o;
    ch->used = *used;
    *x->end = ch;
    x->end = &ch->next;
    return 0;
}

static int look_at(struct look *x, const struct obj *o)
{
    struct call *c = x->c;
    const struct val *q = obj_val(o);
    struct amounts hard = {.a = c->a}, used = {.a = c->a}, mine;
    char *bad;

    amounts_read(&hard, val_at(q, "status.hard"));
    mine = tracked(c, &x->w, &hard);
    if (!mine.n || !quota_scopes_hold(c->stored->group, c->stored->plural, val_get(q, "spec"), x->ad->v))
        return 0;
    if (streq(c->stored->table, "pods") && (bad = quota_missing(c->a, &mine, x->ad->v)))
        return fail_forbidden(c, x->ad->name, "failed quota: %s: %s", o->name, bad);
    amounts_read(&used, val_at(q, "status.used"));
    if ((bad = not_in(c, &mine, &used)))
        return fail_forbidden(c, x->ad->name, "status unknown for quota: %s, resources: %s", o->name, bad);
    if (!x->now.n) {
        quota_usage(&x->w, c->stored->group, c->stored->plural, x->ad->v, &x->now);
        if (x->ad->old)
            quota_usage(&x->w, c->stored->group, c->stored->plural, x->ad->old, &x->before);
        for (uint32_t i = 0; i < x->now.n; i++)
            if (x->now.v[i].q < 0)
                return fail_forbidden(c, x->ad->name, "quota usage is negative for resource(s): %s",
                                      x->now.v[i].name);
    }
    return check_room(x, o, &hard, &mine, &used);
}

int quota_admit(struct call *c, struct admission *ad)
{
    struct look x = {.c = c, .ad = ad, .now = {.a = c->a}, .before = {.a = c->a}};
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    int r = 0;

    c->charges = NULL;
    x.end = &c->charges;
    x.w = (struct quota_world){.arg = c, .now_ms = c->now_ms, .pod = world_pod,
                               .class_named = world_class, .class_for = world_class_for};
    if (!ad->in || !*c->path.ns || !c->stored->namespaced ||
        (ad->op == ADMIT_UPDATE && !quota_update_counts(c->stored->group, c->stored->plural, ad->sub,
                                                        ad->v, ad->old)) ||
        (ad->op == ADMIT_CREATE && *ad->sub))
        return 0;
    if (!store_count(c->api->store, table_named(c->api->store, "", "resourcequotas"), c->path.ns))
        return 0;
    if (store_iter_init(&it, c->api->store, table_named(c->api->store, "", "resourcequotas"), c->path.ns,
                        0, NULL, NULL, &err) < 0)
        return fail_err(c, &err);
    while (r == 0 && (o = store_iter_next(&it))) {
        pin_obj(c->a, obj_ref(o));
        r = look_at(&x, o);
    }
    store_iter_done(&it);
    return r;
}

int quota_charge(struct call *c)
{
    struct store *s = c->api->store;
    struct store_table *t = table_named(s, "", "resourcequotas");

    for (const struct quota_charge *ch = c->charges; ch; ch = ch->next) {
        struct val *v = obj_edit(ch->quota, c->a), *used = val_need_map(c->a, val_get(v, "status"), "used");
        struct err err = {0};
        const struct obj *o;

        for (uint32_t i = 0; i < ch->used.n; i++)
            val_put_str(c->a, used, ch->used.v[i].name,
                        quantity_text(c->a, ch->used.v[i].q, ch->used.v[i].binary));
        o = obj_seal(v, store_next_revision(s));
        pin_obj(c->a, o);
        if (store_put(s, t, o, ch->quota->revision, 0, &err) < 0)
            return fail_err(c, &err);
    }
    c->charges = NULL;
    return 0;
}
