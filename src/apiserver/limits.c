/* apiserver/limits.c - LimitRanges: defaults for the containers of a new pod, and bounds for containers,
 * pods and claims. Several that are wrong are told together. */
#include "schema/quota.h"

#include "apiserver/admission.h"
#include "apiserver/hooks.h"

#define MADE "LimitRanger plugin set: "

/* ---------------------------------------------------------------- which */

static bool concerns(const struct call *c, const struct admission *ad)
{
    bool pod = ad->in && streq(ad->in->table, "pods"), claim = ad->in && streq(ad->in->table, "persistentvolumeclaims");

    if (!pod && !claim)
        return false;
    if (ad->old && val_at(ad->old, "metadata.deletionTimestamp"))
        return false;
    if (streq(ad->sub, "resize"))
        return pod && ad->op == ADMIT_UPDATE;
    return !*ad->sub && *c->path.ns && (claim || ad->op == ADMIT_CREATE);
}

typedef int limit_fn(struct call *c, struct admission *ad, const struct val *limits);

static int each_range(struct call *c, struct admission *ad, limit_fn *fn)
{
    struct store_table *t = table_named(c->api->store, "", "limitranges");
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    int r = 0;

    if (!concerns(c, ad) || !store_count(c->api->store, t, c->path.ns))
        return 0;
    if (store_iter_init(&it, c->api->store, t, c->path.ns, 0, NULL, NULL, &err) < 0)
        return fail_err(c, &err);
    while (r == 0 && (o = store_iter_next(&it))) {
        pin_obj(c->a, obj_ref(o));
        r = fn(c, ad, val_at(obj_val(o), "spec.limits"));
    }
    store_iter_done(&it);
    return r;
}

/* ---------------------------------------------------------------- defaults */

/* Puts what is missing of which ("requests", "limits") and says so in told: "cpu, memory request for
 * container c". */
static void put_missing(struct call *c, struct val *container, const char *which, const char *one,
                        const char *sort, const struct amounts *defaults, const struct val *texts, struct buf *told)
{
    bool any = false;

    for (uint32_t i = 0; i < defaults->n; i++) {
        const char *name = defaults->v[i].name;
        struct val *have = val_need_map(c->a, val_need_map(c->a, container, "resources"), which);

        if (val_get(have, name))
            continue;
        val_put(c->a, have, name, val_get(texts, name));
        buf_printf(told, "%s%s", any ? ", " : told->n ? "; " : "", name);
        any = true;
    }
    if (any)
        buf_printf(told, " %s for %s %s", one, sort, val_str_at(container, "name", ""));
}

/* What all limits of the sort say together, and its names in their order. */
static const struct val *merged(struct call *c, const struct val *limits, const char *key, struct amounts *names)
{
    struct val *all = val_map(c->a);

    VAL_EACH(limits, l)
        if (streq(val_str_at(l, "type", ""), "Container"))
            VAL_EACH_MEMBER(val_get(l, key), m)
                val_put(c->a, all, m->key, &m->v);
    amounts_read(names, all);
    amounts_text(names); /* sorts */
    return all;
}

static int put_defaults(struct call *c, struct admission *ad, const struct val *limits)
{
    static const struct {
        const char *list, *sort;
    } lists[] = {{"containers", "container"}, {"initContainers", "init container"}};
    struct amounts requests = {.a = c->a}, maxima = {.a = c->a};
    const struct val *request = merged(c, limits, "defaultRequest", &requests);
    const struct val *limit = merged(c, limits, "default", &maxima);
    struct buf told = {.max = 1 << 14};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(val_get(ad->v, "spec"), lists[i].list), ct) {
            if (!val_is(ct, VAL_MAP))
                continue;
            put_missing(c, ct, "requests", "request", lists[i].sort, &requests, request, &told);
            put_missing(c, ct, "limits", "limit", lists[i].sort, &maxima, limit, &told);
        }
    if (told.n)
        val_put(c->a, val_need_map(c->a, meta_of(c->a, ad->v), "annotations"), "kubernetes.io/limit-ranger",
                val_printf(c->a, MADE "%s", told.p));
    buf_done(&told);
    return 0;
}

int limits_admit(struct call *c, struct admission *ad)
{
    if (!ad->in || !streq(ad->in->table, "pods"))
        return 0;
    return each_range(c, ad, put_defaults);
}

/* ---------------------------------------------------------------- bounds */

struct bounds {
    struct call *c;
    const char *type; /* "Container", "Pod", "PersistentVolumeClaim" */
    struct amounts requests, limits;
    struct texts bad;
};

static const char *written(struct bounds *x, const struct amount *y)
{
    return quantity_text(x->c->a, y->q, y->binary);
}

/* "minimum cpu usage per Container is 100m" */
static const char *rule(struct bounds *x, const char *word, const struct amount *bound)
{
    return arena_printf(x->c->a, "%s %s usage per %s is %s", word, bound->name, x->type, written(x, bound));
}

static void check_min(struct bounds *x, const struct amount *bound)
{
    const struct amount *r = amounts_get(&x->requests, bound->name), *l = amounts_get(&x->limits, bound->name);

    if (!r)
        texts_add(&x->bad, "%s.  No request is specified", rule(x, "minimum", bound));
    else if (r->q < bound->q)
        texts_add(&x->bad, "%s, but request is %s", rule(x, "minimum", bound), written(x, r));
    else if (l && l->q < bound->q)
        texts_add(&x->bad, "%s, but limit is %s", rule(x, "minimum", bound), written(x, l));
}

static void check_max(struct bounds *x, const struct amount *bound, bool claim)
{
    const struct amount *r = amounts_get(&x->requests, bound->name), *l = amounts_get(&x->limits, bound->name);

    if (claim && !r)
        texts_add(&x->bad, "%s.  No request is specified", rule(x, "maximum", bound));
    else if (!claim && !l)
        texts_add(&x->bad, "%s.  No limit is specified", rule(x, "maximum", bound));
    else if (!claim && l->q > bound->q)
        texts_add(&x->bad, "%s, but limit is %s", rule(x, "maximum", bound), written(x, l));
    else if (r && r->q > bound->q)
        texts_add(&x->bad, "%s, but request is %s", rule(x, "maximum", bound), written(x, r));
}

static void check_ratio(struct bounds *x, const struct amount *bound)
{
    const struct amount *r = amounts_get(&x->requests, bound->name), *l = amounts_get(&x->limits, bound->name);
    const char *text = arena_printf(x->c->a, "%s max limit to request ratio per %s is %s", bound->name, x->type,
                                    written(x, bound));

    if (!r || !r->q)
        texts_add(&x->bad, "%s, but no request is specified or request is 0", text);
    else if (!l || !l->q)
        texts_add(&x->bad, "%s, but no limit is specified or limit is 0", text);
    else if ((double)l->q / (double)r->q * 1e9 > (double)bound->q)
        texts_add(&x->bad, "%s, but provided ratio is %f", text, (double)l->q / (double)r->q);
}

static struct amounts amounts_at(struct bounds *x, const struct val *limit, const char *key)
{
    struct amounts r = {.a = x->c->a};

    amounts_read(&r, val_get(limit, key));
    return r;
}

static void check(struct bounds *x, const struct val *limit)
{
    struct amounts min = amounts_at(x, limit, "min"), max = amounts_at(x, limit, "max"),
                   ratio = amounts_at(x, limit, "maxLimitRequestRatio");
    bool claim = streq(x->type, "PersistentVolumeClaim");

    for (uint32_t i = 0; i < min.n; i++)
        check_min(x, &min.v[i]);
    for (uint32_t i = 0; i < max.n; i++)
        check_max(x, &max.v[i], claim);
    for (uint32_t i = 0; !claim && i < ratio.n; i++)
        check_ratio(x, &ratio.v[i]);
}

static void check_container(struct bounds *x, const struct val *limit, const struct val *ct)
{
    x->requests = amounts_at(x, val_get(ct, "resources"), "requests");
    x->limits = amounts_at(x, val_get(ct, "resources"), "limits");
    check(x, limit);
}

static void check_limit(struct bounds *x, struct admission *ad, const struct val *limit)
{
    bool pod = streq(ad->in->table, "pods");

    x->type = val_str_at(limit, "type", "");
    if (pod && streq(x->type, "Container")) {
        VAL_EACH(val_at(ad->v, "spec.containers"), ct)
            check_container(x, limit, ct);
        VAL_EACH(val_at(ad->v, "spec.initContainers"), ct)
            check_container(x, limit, ct);
    } else if (pod && streq(x->type, "Pod")) {
        x->requests = x->limits = (struct amounts){.a = x->c->a};
        pod_sum(ad->v, "requests", false, &x->requests);
        pod_sum(ad->v, "limits", false, &x->limits);
        check(x, limit);
    } else if (!pod && streq(x->type, "PersistentVolumeClaim")) {
        check_container(x, limit, val_get(ad->v, "spec"));
    }
}

static int check_range(struct call *c, struct admission *ad, const struct val *limits)
{
    struct bounds x = {.c = c, .bad = {.a = c->a}};
    struct buf all = {.max = 1 << 16};
    uint32_t told = 0;
    const char *text;

    VAL_EACH(limits, l)
        check_limit(&x, ad, l);
    for (uint32_t i = 0; i < x.bad.n; i++) {
        bool before = false;

        for (uint32_t k = 0; k < i; k++)
            before |= streq(x.bad.v[k], x.bad.v[i]);
        if (!before)
            buf_printf(&all, "%s%s", told++ ? ", " : "", x.bad.v[i]);
    }
    text = arena_strdup(c->a, all.n ? all.p : "");
    buf_done(&all);
    if (!told)
        return 0;
    return fail_forbidden(c, ad->name, told > 1 ? "[%s]" : "%s", text);
}

int limits_check(struct call *c, struct admission *ad)
{
    return each_range(c, ad, check_range);
}
