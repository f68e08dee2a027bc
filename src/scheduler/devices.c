/* scheduler/devices.c - see devices.h. */
#include "scheduler/devices.h"

#include "codec/quantity.h"
#include "codec/selector.h"
#include "schema/deviceexpr.h"
#include "scheduler/place_int.h"

enum { STEPS_MAX = 200000, DEVICES_MAX = 32, REQUESTS_MAX = 64 };

struct device {
    const char *driver, *pool, *name;
    const struct val *v, *spec; /* the device; its slice's spec */
    bool taken;                 /* by a claim that is allocated */
    bool used;                  /* by this search */
};

/* The slices of the newest generation of each pool, as one list of devices. */
struct pools {
    struct device *v;
    uint32_t n;
};

/* What is asked for once: a request, or one of its alternatives. */
struct want {
    const struct val *request;         /* deviceClassName, selectors, allocationMode ... */
    const char *name;                  /* as results say it: "r" or "r/alternative" */
    const char *parent;                /* "r" */
    bool admin;
};
struct got {
    const struct want *want;
    struct device *device;
};

struct search {
    struct devices *d;
    struct arena *a;
    const char *node;
    const struct val *labels;
    const char *why; /* a reason that is told instead of the usual one */
    int64_t steps;
    /* the claim at hand */
    const struct val *spec;
    struct want wants[REQUESTS_MAX];
    struct got got[DEVICES_MAX];
    uint32_t got_n;
    struct got *kept; /* by claim: DEVICES_MAX each */
    uint32_t *kept_n;
};

/* ---------------------------------------------------------------- pools */

static bool same_pool(const struct val *x, const struct val *y)
{
    return streq(val_str_at(x, "driver", ""), val_str_at(y, "driver", "")) &&
           streq(val_str_at(x, "pool.name", ""), val_str_at(y, "pool.name", ""));
}

/* Of a pool that is being rewritten nothing is given out: it is whole when all slices of its newest generation are there. */
static bool usable(const struct devices *d, const struct val *spec)
{
    int64_t generation = val_int_at(spec, "pool.generation", 0), n = 0;

    for (uint32_t i = 0; i < d->slices_n; i++) {
        const struct val *other = val_get(obj_val(d->slices[i]), "spec");

        if (!same_pool(spec, other))
            continue;
        if (val_int_at(other, "pool.generation", 0) > generation)
            return false;
        n += val_int_at(other, "pool.generation", 0) == generation;
    }
    return n == val_int_at(spec, "pool.resourceSliceCount", 0);
}

static struct device *device_named(struct pools *p, const char *driver, const char *pool, const char *name)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (streq(p->v[i].name, name) && streq(p->v[i].pool, pool) && streq(p->v[i].driver, driver))
            return &p->v[i];
    return NULL;
}

static struct pools *pools_of(struct devices *d)
{
    struct pools *p = d->pools;
    uint32_t max = 0;

    if (p)
        return p;
    p = d->pools = arena_new_of(d->arena, struct pools);
    for (uint32_t i = 0; i < d->slices_n; i++)
        max += val_len(val_at(obj_val(d->slices[i]), "spec.devices"));
    *p = (struct pools){.v = arena_array(d->arena, struct device, max + 1)};
    for (uint32_t i = 0; i < d->slices_n; i++) {
        const struct val *spec = val_get(obj_val(d->slices[i]), "spec");

        if (!usable(d, spec))
            continue;
        VAL_EACH(val_get(spec, "devices"), it)
            p->v[p->n++] = (struct device){.driver = val_str_at(spec, "driver", ""), .pool = val_str_at(spec, "pool.name", ""),
                                           .name = val_str_at(it, "name", ""), .v = it, .spec = spec};
    }
    for (uint32_t i = 0; i < d->all_claims_n; i++)
        VAL_EACH(val_at(obj_val(d->all_claims[i]), "status.allocation.devices.results"), r) {
            struct device *dev = val_bool_at(r, "adminAccess", false)
                                     ? NULL : device_named(p, val_str_at(r, "driver", ""), val_str_at(r, "pool", ""), val_str_at(r, "device", ""));
            if (dev)
                dev->taken = true;
        }
    return p;
}

/* ---------------------------------------------------------------- does a device fit? */

static bool reaches(const struct val *at, const struct search *s)
{
    if (val_bool_at(at, "allNodes", false))
        return true;
    if (*val_str_at(at, "nodeName", ""))
        return streq(val_str_at(at, "nodeName", ""), s->node);
    return val_get(at, "nodeSelector") && node_selector_matches(val_get(at, "nodeSelector"), s->labels, s->node);
}

static bool on_node(const struct device *dev, const struct search *s)
{
    return reaches(val_bool_at(dev->spec, "perDeviceNodeSelection", false) ? dev->v : dev->spec, s);
}

/* 1, 0, -1: a selector can not be run. */
static int selected(struct search *s, const struct val *selectors, const struct device *dev)
{
    VAL_EACH(selectors, sel) {
        struct err err = {0};
        int r = device_chosen(s->d->exprs, val_str_at(sel, "cel.expression", ""), dev->driver, dev->v, s->a, &err);

        if (r < 0)
            s->why = arena_printf(s->a, "running CEL selector on device %s/%s/%s: %s", dev->driver, dev->pool, dev->name, err.msg);
        if (r <= 0)
            return r;
    }
    return 1;
}

static bool borne(const struct val *tolerations, const struct val *taints)
{
    VAL_EACH(taints, taint) {
        bool yes = streq(val_str_at(taint, "effect", ""), "None");

        VAL_EACH(tolerations, t)
            yes |= tolerates(t, taint);
        if (!yes)
            return false;
    }
    return true;
}

/* What devices of the pool take of a counter set: those given out, those of this search, and this one. */
static bool counters_allow(struct search *s, const struct device *dev)
{
    struct pools *p = s->d->pools;

    VAL_EACH(val_get(dev->v, "consumesCounters"), take) {
        const char *set = val_str_at(take, "counterSet", "");

        VAL_EACH_MEMBER(val_get(take, "counters"), c) {
            quantity left = 0, q;
            bool found = false;

            for (uint32_t i = 0; i < s->d->slices_n; i++) { /* the sets may be in another slice of the pool */
                const struct val *spec = val_get(obj_val(s->d->slices[i]), "spec");

                if (!same_pool(spec, dev->spec) || val_int_at(spec, "pool.generation", 0) != val_int_at(dev->spec, "pool.generation", 0))
                    continue;
                VAL_EACH(val_get(spec, "sharedCounters"), sc)
                    if (streq(val_str_at(sc, "name", ""), set) && val_get(val_get(sc, "counters"), c->key)) {
                        found = quantity_parse(val_str_at(val_get(val_get(sc, "counters"), c->key), "value", ""), &q);
                        left += found ? q : 0;
                    }
            }
            for (uint32_t i = 0; i < p->n; i++) {
                const struct device *other = &p->v[i];

                if ((!other->taken && !other->used && other != dev) || !same_pool(other->spec, dev->spec))
                    continue;
                VAL_EACH(val_get(other->v, "consumesCounters"), o)
                    if (streq(val_str_at(o, "counterSet", ""), set) && val_get(val_get(o, "counters"), c->key) &&
                        quantity_parse(val_str_at(val_get(val_get(o, "counters"), c->key), "value", ""), &q))
                        left -= q;
            }
            if (!found || left < 0)
                return false;
        }
    }
    return true;
}

/* Is the want one of those that a constraint is about? None named: all. */
static bool about(const struct val *names, const struct want *w)
{
    VAL_EACH(names, n)
        if (streq(val_text(n, ""), w->name) || streq(val_text(n, ""), w->parent))
            return true;
    return !val_len(names);
}

static bool constraints_allow(struct search *s, const struct want *w, const struct device *dev)
{
    VAL_EACH(val_at(s->spec, "devices.constraints"), k) {
        const char *match = val_str_at(k, "matchAttribute", ""), *name = *match ? match : val_str_at(k, "distinctAttribute", "");
        const struct val *mine;

        if (!about(val_get(k, "requests"), w))
            continue;
        if (!*name || !(mine = device_attribute(s->a, dev->driver, dev->v, name)))
            return false;
        for (uint32_t i = 0; i < s->got_n; i++) {
            const struct device *other = s->got[i].device;
            const struct val *its;

            if (!about(val_get(k, "requests"), s->got[i].want))
                continue;
            its = device_attribute(s->a, other->driver, other->v, name);
            if (!its || val_equal(its, mine) != (*match != 0))
                return false;
        }
    }
    return true;
}

/* 1: its class, selectors and taints let it be taken for this; 0; -1. */
static int suits(struct search *s, const struct want *w, const struct device *dev)
{
    const struct obj *class_ = s->d->classes.get(s->d->classes.arg, val_str_at(w->request, "deviceClassName", ""));
    int r;

    if (!on_node(dev, s) || val_bool_at(dev->v, "allowMultipleAllocations", false) || val_len(val_get(dev->v, "bindingConditions")))
        return 0;
    if ((r = selected(s, val_at(obj_val(class_), "spec.selectors"), dev)) <= 0 || (r = selected(s, val_get(w->request, "selectors"), dev)) <= 0)
        return r;
    return w->admin || borne(val_get(w->request, "tolerations"), val_get(dev->v, "taints"));
}

/* ---------------------------------------------------------------- the search */

static int request_from(struct search *s, const struct val *requests, uint32_t r);

static bool push(struct search *s, const struct want *w, struct device *dev)
{
    if (s->got_n == DEVICES_MAX || (!w->admin && (dev->taken || dev->used)) || !constraints_allow(s, w, dev) ||
        (!w->admin && !counters_allow(s, dev)))
        return false;
    s->got[s->got_n++] = (struct got){w, dev};
    dev->used |= !w->admin;
    return true;
}

static void pop(struct search *s)
{
    struct got *g = &s->got[--s->got_n];

    if (!g->want->admin)
        g->device->used = false;
}

/* `left` more devices from number `from` on, then the requests behind. 1: found, 0: not so, -1: never. */
static int some(struct search *s, const struct want *w, uint32_t from, int64_t left, const struct val *requests, uint32_t r)
{
    struct pools *p = s->d->pools;

    if (!left)
        return request_from(s, requests, r + 1);
    for (uint32_t i = from; i < p->n; i++) {
        int fits;

        if (--s->steps < 0) {
            s->why = "too many devices to look at";
            return -1;
        }
        if (!w->admin && (p->v[i].taken || p->v[i].used))
            continue;
        if ((fits = suits(s, w, &p->v[i])) < 0)
            return -1;
        if (!fits || !push(s, w, &p->v[i]))
            continue;
        if ((fits = some(s, w, i + 1, left - 1, requests, r)) != 0)
            return fits;
        pop(s);
    }
    return 0;
}

/* All that there are, or none. */
static int every(struct search *s, const struct want *w, const struct val *requests, uint32_t r)
{
    struct pools *p = s->d->pools;
    uint32_t before = s->got_n;
    int found = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        int fits = suits(s, w, &p->v[i]);

        if (fits < 0)
            return -1;
        if (fits && !push(s, w, &p->v[i]))
            goto back;
    }
    if (s->got_n > before)
        found = request_from(s, requests, r + 1);
back:
    while (!found && s->got_n > before)
        pop(s);
    return found;
}

static int one_of(struct search *s, const struct val *request, const char *name, const char *parent, const struct val *requests, uint32_t r)
{
    struct want *w = &s->wants[r];
    const char *mode = val_str_at(request, "allocationMode", "ExactCount");

    *w = (struct want){.request = request, .name = name, .parent = parent, .admin = val_bool_at(request, "adminAccess", false)};
    if (!s->d->classes.get(s->d->classes.arg, val_str_at(request, "deviceClassName", ""))) {
        s->why = arena_printf(s->a, "request %s: device class %s does not exist", name, val_str_at(request, "deviceClassName", ""));
        return -1;
    }
    if (streq(mode, "All"))
        return every(s, w, requests, r);
    return streq(mode, "ExactCount") ? some(s, w, 0, MAX(val_int_at(request, "count", 1), (int64_t)1), requests, r) : -1;
}

static int request_from(struct search *s, const struct val *requests, uint32_t r)
{
    const struct val *it;
    const char *name;

    if (r == val_len(requests))
        return 1;
    if (r == REQUESTS_MAX)
        return -1;
    it = &requests->items[r];
    name = val_str_at(it, "name", "");
    if (val_get(it, "exactly"))
        return one_of(s, val_get(it, "exactly"), name, name, requests, r);
    VAL_EACH(val_get(it, "firstAvailable"), sub) {
        int found = one_of(s, sub, arena_printf(s->a, "%s/%s", name, val_str_at(sub, "name", "")), name, requests, r);

        if (found)
            return found;
    }
    return 0;
}

static bool allocated(const struct obj *claim)
{
    return val_is(val_at(obj_val(claim), "status.allocation"), VAL_MAP);
}

/* All claims of the pod, one after the other. A claim that can not be had after others of the pod have taken theirs is
 * not tried in another order: pods rarely have two that want the same. */
static const char *search(struct search *s)
{
    struct pools *p = pools_of(s->d);

    s->kept = arena_array(s->a, struct got, s->d->claims_n * DEVICES_MAX + 1);
    s->kept_n = arena_array(s->a, uint32_t, s->d->claims_n + 1);
    for (uint32_t i = 0; i < p->n; i++)
        p->v[i].used = false;
    for (uint32_t i = 0; i < s->d->claims_n; i++) {
        const struct val *where = val_at(obj_val(s->d->claims[i]), "status.allocation.nodeSelector");
        struct want *wants;

        s->kept_n[i] = 0;
        if (allocated(s->d->claims[i])) {
            if (where && !node_selector_matches(where, s->labels, s->node))
                return "resourceclaim not available on the node";
            continue;
        }
        s->spec = val_get(obj_val(s->d->claims[i]), "spec");
        s->got_n = 0;
        if (request_from(s, val_at(s->spec, "devices.requests"), 0) != 1)
            return s->why ? s->why : "cannot allocate all claims";
        wants = arena_memdup(s->a, s->wants, sizeof(s->wants));
        for (uint32_t k = 0; k < s->got_n; k++) {
            s->got[k].want = &wants[s->got[k].want - s->wants];
            s->kept[i * DEVICES_MAX + k] = s->got[k];
        }
        s->kept_n[i] = s->got_n;
    }
    return NULL;
}

const char *devices_forbid(struct devices *d, const char *node, const struct val *labels)
{
    struct search *s = arena_new_of(d->arena, struct search);

    *s = (struct search){.d = d, .a = d->arena, .node = node, .labels = labels, .steps = STEPS_MAX};
    return search(s);
}

/* ---------------------------------------------------------------- what was found, as the claim says it */

static void put_config(struct arena *a, struct val *list, const char *source, const struct val *requests, const struct val *config)
{
    struct val *one = val_map(a);

    val_put_str(a, one, "source", source);
    if (val_len(requests))
        val_put(a, one, "requests", val_copy(a, requests));
    if (val_get(config, "opaque"))
        val_put(a, one, "opaque", val_copy(a, val_get(config, "opaque")));
    val_push(a, list, one);
}

static void put_results(struct search *s, uint32_t i, struct val *devices)
{
    struct arena *a = s->a;
    struct val *results = val_list(a), *config = val_list(a);

    for (uint32_t k = 0; k < s->kept_n[i]; k++) {
        const struct got *g = &s->kept[i * DEVICES_MAX + k];
        struct val *r = val_push(a, results, val_map(a));

        val_put_str(a, r, "request", g->want->name);
        val_put_str(a, r, "driver", g->device->driver);
        val_put_str(a, r, "pool", g->device->pool);
        val_put_str(a, r, "device", g->device->name);
        if (g->want->admin)
            val_put_bool(a, r, "adminAccess", true);
        if (val_len(val_get(g->want->request, "tolerations")))
            val_put(a, r, "tolerations", val_copy(a, val_get(g->want->request, "tolerations")));
        if (k && s->kept[i * DEVICES_MAX + k - 1].want == g->want)
            continue;
        VAL_EACH(val_at(obj_val(s->d->classes.get(s->d->classes.arg, val_str_at(g->want->request, "deviceClassName", ""))), "spec.config"), c) {
            struct val *names = val_list(a);

            val_push_str(a, names, g->want->name);
            put_config(a, config, "FromClass", names, c);
        }
    }
    VAL_EACH(val_at(obj_val(s->d->claims[i]), "spec.devices.config"), c)
        put_config(a, config, "FromClaim", val_get(c, "requests"), c);
    if (val_len(results))
        val_put(a, devices, "results", results);
    if (val_len(config))
        val_put(a, devices, "config", config);
}

/* Where the devices can be used: this node when one is a node's own, else what their selectors say together. */
static struct val *where_of(struct search *s, uint32_t i)
{
    struct arena *a = s->a;
    struct val *term = val_map(a), *selector = val_map(a);

    for (uint32_t k = 0; k < s->kept_n[i]; k++) {
        const struct device *dev = s->kept[i * DEVICES_MAX + k].device;
        const struct val *at = val_bool_at(dev->spec, "perDeviceNodeSelection", false) ? dev->v : dev->spec;
        static const char *const lists[] = {"matchExpressions", "matchFields"};

        if (*val_str_at(at, "nodeName", "")) {
            struct val *f = val_map(a);

            val_put_str(a, f, "key", "metadata.name");
            val_put_str(a, f, "operator", "In");
            val_push_str(a, val_need_list(a, f, "values"), s->node);
            term = val_map(a);
            val_push(a, val_need_list(a, term, "matchFields"), f);
            break;
        }
        VAL_EACH(val_at(at, "nodeSelector.nodeSelectorTerms"), t)
            for (size_t l = 0; l < ARRAY_LEN(lists); l++)
                VAL_EACH(val_get(t, lists[l]), e)
                    val_push(a, val_need_list(a, term, lists[l]), val_copy(a, e));
    }
    if (!val_len(term))
        return NULL;
    val_push(a, val_need_list(a, selector, "nodeSelectorTerms"), term);
    return selector;
}

struct val *devices_allocation(struct devices *d, uint32_t i, const char *node, const struct val *labels)
{
    struct search *s = arena_new_of(d->arena, struct search);
    struct val *out = val_map(d->arena), *where;

    if (allocated(d->claims[i]))
        return NULL;
    *s = (struct search){.d = d, .a = d->arena, .node = node, .labels = labels, .steps = STEPS_MAX};
    if (search(s))
        return NULL;
    put_results(s, i, val_need_map(d->arena, out, "devices"));
    if ((where = where_of(s, i)))
        val_put(d->arena, out, "nodeSelector", where);
    return out;
}
