/* scheduler/place.h - which node for this pod: filters say where it can run, scores where it should.
 *
 * Pure over the cache and a few objects that are handed in. A filter answers with the words that
 * kubectl describe shows; why_nowhere() counts them as Kubernetes does. */
#pragma once

#include "scheduler/cache.h"

struct claims { /* of the pod, looked up by the caller */
    struct claim {
        const struct obj *pvc, *pv, *class_; /* each may be NULL */
        const char *name;                    /* of the claim, as the pod names it */
    } *v;
    uint32_t n;
    const struct obj *const *free_volumes; /* PersistentVolumes without a claim */
    uint32_t free_n;
    struct devices *devices; /* of its resource claims (devices.h); NULL: it has none */
    /* out: NULL, or why the pod cannot be placed anywhere for now, whatever the nodes */
    const char *wait;
};
struct names { /* labels of namespaces, for affinity terms with a namespaceSelector */
    const struct val *(*labels_of)(void *arg, const char *ns);
    void *arg;
};

struct placing {
    struct cache *cache;
    struct arena *arena;
    const struct obj *pod;
    struct claims *claims;
    struct names names;
    uint32_t dice; /* breaks ties */
    /* out */
    struct node_info *node; /* NULL: it fits nowhere */
    const char **reasons;   /* by node_info.index: why not; NULL: it fits there */
    bool *hopeless;         /* by node_info.index: no pod that goes would change it */
    double *scores;         /* by node_info.index; of those that fit */
};
/* Fills in the out members; arrays lie in the arena. */
void place(struct placing *p);
/* Why it does not fit on this node as the cache is now, or NULL. */
const char *place_on(struct placing *p, struct node_info *n);
/* "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable." */
const char *why_nowhere(const struct placing *p);
