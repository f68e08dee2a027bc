/* Where should it run, among the nodes where it can: each score is brought to 0..100, weighted as
 * Kubernetes weighs them, and added up. */
#include <math.h>

#include "codec/selector.h"
#include "scheduler/place_int.h"

typedef double score_fn(struct work *w, struct node_info *n);

static double share_free(int64_t has, int64_t used)
{
    return has <= 0 || used >= has ? 0 : (double)(has - used) * 100 / (double)has;
}

static double least_allocated(struct work *w, struct node_info *n)
{
    return (share_free(n->has.v[RES_CPU], n->cpu_used_least + w->cpu_least) +
            share_free(n->has.v[RES_MEMORY], n->memory_used_least + w->memory_least)) / 2;
}

static double balanced(struct work *w, struct node_info *n)
{
    double cpu = n->has.v[RES_CPU] > 0
                     ? (double)(n->used.v[RES_CPU] + w->asks.v[RES_CPU]) / (double)n->has.v[RES_CPU] : 1;
    double mem = n->has.v[RES_MEMORY] > 0
                     ? (double)(n->used.v[RES_MEMORY] + w->asks.v[RES_MEMORY]) / (double)n->has.v[RES_MEMORY] : 1;

    cpu = fmin(cpu, 1);
    mem = fmin(mem, 1);
    return (1 - fabs(cpu - mem) / 2) * 100;
}

static double unwanted_taints(struct work *w, struct node_info *n) /* less is better */
{
    double sum = 0;

    VAL_EACH(val_at(obj_val(n->node), "spec.taints"), taint) {
        bool borne = !streq(val_str_at(taint, "effect", ""), "PreferNoSchedule");

        VAL_EACH(val_get(w->spec, "tolerations"), t)
            borne = borne || tolerates(t, taint);
        sum += !borne;
    }
    return sum;
}

static double node_wishes(struct work *w, struct node_info *n)
{
    double sum = 0;

    VAL_EACH(val_at(w->spec, "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"), p)
        if (node_term_matches(val_get(p, "preference"), val_get(obj_meta(n->node), "labels"), n->name))
            sum += (double)val_int_at(p, "weight", 0);
    return sum;
}

/* Siblings (pods of the same controller) on the node: a set survives the loss of a node when they
 * are apart. */
static double siblings(struct work *w, struct node_info *n) /* less is better */
{
    const struct val *owner = obj_controller(w->p->pod);
    const char *uid = val_text(val_get(owner, "uid"), NULL);
    double sum = 0;

    if (!uid || w->spreads_n)
        return 0;
    LIST_EACH(&n->pods, l) {
        const struct val *theirs = obj_controller(list_entry(l, struct placed, on_node)->pod);

        sum += streq0(val_text(val_get(theirs, "uid"), NULL), uid);
    }
    return sum;
}

static double images(struct work *w, struct node_info *n)
{
    const double small = 23.0 * (1 << 20), big = 1000.0 * (1 << 20);
    double bytes = 0;

    VAL_EACH(val_get(w->spec, "containers"), c) {
        const char *image = val_str_at(c, "image", "");

        VAL_EACH(val_at(obj_val(n->node), "status.images"), i)
            VAL_EACH(val_get(i, "names"), name)
                if (streq(val_text(name, ""), image))
                    bytes += (double)val_int_at(i, "sizeBytes", 0);
    }
    return bytes <= small ? 0 : fmin((bytes - small) / (big - small), 1) * 100;
}

/* how: 0 is 0..100 already; 1 the most becomes 100; -1 the least becomes 100 */
static const struct scorer {
    score_fn *fn;
    int how;
    double weight;
} scorers[] = {
    {least_allocated, 0, 1}, {balanced, 0, 1}, {unwanted_taints, -1, 3}, {node_wishes, 1, 2},
    {siblings, -1, 2},       {spread_soft, -1, 2}, {affinity_wishes, 1, 2}, {images, 0, 1},
};

void score(struct work *w)
{
    struct placing *p = w->p;
    double *raw = arena_array(p->arena, double, p->cache->nodes_n + 1);

    for (size_t i = 0; i < ARRAY_LEN(scorers); i++) {
        const struct scorer *s = &scorers[i];
        double low = INFINITY, high = -INFINITY;

        EACH_NODE(p->cache, n) {
            if (p->reasons[n->index])
                continue;
            raw[n->index] = s->fn(w, n);
            low = fmin(low, raw[n->index]);
            high = fmax(high, raw[n->index]);
        }
        EACH_NODE(p->cache, n) {
            double x = raw[n->index];

            if (p->reasons[n->index])
                continue;
            if (s->how)
                x = high > low ? (s->how > 0 ? x - low : high - x) * 100 / (high - low) : 0;
            p->scores[n->index] += x * s->weight;
        }
    }
}
