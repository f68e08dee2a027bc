#include "scheduler/preempt.h"

#include "codec/kubetime.h"
#include "codec/selector.h"

enum { NODES_MAX = 100 }; /* candidates that are looked at for one pod; begins anywhere */

struct candidate {
    struct node_info *node;
    const struct obj **victims;
    uint32_t n, violations;
    int64_t highest, sum, youngest_ms; /* priorities; start of the oldest of the most important ones */
};

int64_t pod_priority(const struct obj *pod)
{
    return val_int_at(obj_val(pod), "spec.priority", 0);
}

static int64_t started_ms(const struct obj *pod)
{
    int64_t t = kubetime_parse(val_str_at(obj_val(pod), "status.startTime", ""));

    return t < 0 ? INT64_MAX : t;
}

/* The most important first: higher priority, then who runs longer. */
static int by_importance(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;
    int64_t pa = pod_priority(a), pb = pod_priority(b), ta = started_ms(a), tb = started_ms(b);

    if (pa != pb)
        return pa > pb ? -1 : 1;
    return ta != tb ? (ta < tb ? -1 : 1) : strcmp(a->name, b->name);
}

/* Which of them a budget would not let go; *left counts down what each budget still allows. */
static void find_violations(struct arena *a, const struct obj **pods, uint32_t n, const struct obj *const *budgets,
                            uint32_t budgets_n, bool *ret)
{
    int64_t *left = arena_array(a, int64_t, budgets_n + 1);

    for (uint32_t b = 0; b < budgets_n; b++)
        left[b] = val_int_at(obj_val(budgets[b]), "status.disruptionsAllowed", 0);
    for (uint32_t i = 0; i < n; i++) {
        ret[i] = false;
        for (uint32_t b = 0; b < budgets_n; b++) {
            const struct val *v = obj_val(budgets[b]), *selector = val_at(v, "spec.selector");

            if (!streq(budgets[b]->namespace_, pods[i]->namespace_) || !val_len(selector) ||
                !selector_matches(selector, val_get(obj_meta(pods[i]), "labels")) ||
                val_get(val_at(v, "status.disruptedPods"), pods[i]->name))
                continue;
            if (--left[b] < 0)
                ret[i] = true;
        }
    }
}

/* Puts back whom there is room for, those first whom a budget keeps. Who stays out is a victim. */
static void reprieve(struct placing *p, struct candidate *c, const struct obj **all, uint32_t n, const bool *kept)
{
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < n; i++) {
            if (kept[i] != (round == 0))
                continue;
            cache_pod(p->cache, all[i]);
            if (!place_on(p, c->node))
                continue;
            cache_pod_gone(p->cache, all[i]);
            c->victims[c->n++] = all[i];
            c->violations += kept[i];
        }
}

/* What has to go from this node; false: nothing helps, or nobody needs to. */
static bool look(struct placing *p, struct candidate *c, const struct obj *const *budgets, uint32_t budgets_n)
{
    int64_t mine = pod_priority(p->pod);
    const struct obj **all;
    uint32_t n = 0, some = 0;
    bool *kept;

    LIST_EACH(&c->node->pods, l)
        some++;
    all = arena_array(p->arena, const struct obj *, some + 1);
    LIST_EACH(&c->node->pods, l) {
        const struct placed *placed = list_entry(l, struct placed, on_node);

        if (pod_priority(placed->pod) < mine)
            all[n++] = obj_ref(placed->pod);
    }
    if (!n)
        return false;
    c->victims = arena_array(p->arena, const struct obj *, n);
    kept = arena_array(p->arena, bool, n);
    qsort(all, n, sizeof *all, by_importance);
    find_violations(p->arena, all, n, budgets, budgets_n, kept);
    for (uint32_t i = 0; i < n; i++)
        cache_pod_gone(p->cache, all[i]);
    if (!place_on(p, c->node))
        reprieve(p, c, all, n, kept);
    for (uint32_t i = 0; i < n; i++) {
        cache_pod(p->cache, all[i]); /* those that are there stay as they are */
        obj_unref(all[i]);           /* the cache holds it */
    }
    c->highest = INT64_MIN;
    for (uint32_t i = 0; i < c->n; i++) {
        int64_t priority = pod_priority(c->victims[i]);

        if (priority > c->highest) {
            c->highest = priority;
            c->youngest_ms = INT64_MAX;
        }
        if (priority == c->highest)
            c->youngest_ms = MIN(c->youngest_ms, started_ms(c->victims[i]));
        c->sum += priority + INT32_MAX + 1LL; /* so that fewer are better whatever their sign */
    }
    return c->n > 0;
}

static bool better(const struct candidate *x, const struct candidate *y)
{
    if (x->violations != y->violations)
        return x->violations < y->violations;
    if (x->highest != y->highest)
        return x->highest < y->highest;
    if (x->sum != y->sum)
        return x->sum < y->sum;
    if (x->n != y->n)
        return x->n < y->n;
    return x->youngest_ms > y->youngest_ms;
}

struct preemption preempt(struct placing *p, const struct obj *const *budgets, uint32_t budgets_n)
{
    struct candidate best = {0};
    struct preemption ret = {0};
    uint32_t looked = 0, from = p->cache->nodes_n ? p->dice % p->cache->nodes_n : 0;

    for (int lap = 0; lap < 2; lap++)
        EACH_NODE(p->cache, n) {
            struct candidate c = {.node = n};

            if ((n->index >= from) != (lap == 0) || p->hopeless[n->index] || looked >= NODES_MAX)
                continue;
            looked++;
            if (look(p, &c, budgets, budgets_n) && (!best.n || better(&c, &best)))
                best = c;
        }
    if (best.n)
        ret = (struct preemption){arena_strdup(p->arena, best.node->name), best.victims, best.n};
    return ret;
}
