/* scheduler/cache.h - what is known of nodes and of the pods on them, in the form in which placing a
 * pod is a few additions: sums of requests, ports in use, pods with anti-affinity.
 *
 * Fed by news of pods and nodes (in any order: a pod may come before its node). No clock, no I/O.
 * Owner: the scheduler; objects are referenced while they are in it. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "codec/obj.h"

enum { RES_CPU, RES_MEMORY, RES_STORAGE, RES_PODS, RES_NAMED, RES_MAX = 24 };
/* cpu in thousandths, all others in ones; pods counts itself as one */
struct amounts {
    int64_t v[RES_MAX];
};
struct host_port {
    uint16_t port;
    const char *protocol, *ip; /* borrowed from the pod's object; ip "" = all */
};

struct node_info;
struct placed { /* a pod that has a node */
    const struct obj *pod;
    struct node_info *node;
    struct list on_node; /* node_info.pods */
    struct list in_all;  /* cache.all */
    struct list in_anti; /* cache.anti, when it has required anti-affinity */
    struct amounts asks;
    int64_t cpu_least, memory_least; /* what it counts for when it asks nothing: for scores */
    struct host_port *ports;
    uint32_t ports_n;
};
struct node_info {
    const struct obj *node; /* NULL: pods name it, but it is not there */
    char *name;
    struct amounts has, used;
    int64_t cpu_used_least, memory_used_least;
    struct list pods;
    struct list link; /* cache.nodes, in the order of their names */
    uint32_t index;   /* among the nodes that are there */
};
struct cache {
    struct map nodes_by_name; /* struct node_info */
    struct map pods;          /* uid -> struct placed */
    struct list nodes;        /* those that are there */
    struct list all, anti;
    uint32_t nodes_n;
    char *names[RES_MAX];     /* of extended resources, from RES_NAMED on */
    uint32_t names_n;
};

void cache_init(struct cache *c);
void cache_done(struct cache *c);
/* Each gives back whether something changed that may help a pod which fits nowhere. */
bool cache_node(struct cache *c, const char *name, const struct obj *node); /* NULL: it is gone */
bool cache_pod(struct cache *c, const struct obj *pod);                     /* new or changed */
bool cache_pod_gone(struct cache *c, const struct obj *pod);

/* The number of a resource, made when new; -1 when there are too many kinds. */
int cache_resource(struct cache *c, const char *name);
const char *cache_resource_name(const struct cache *c, int r);
/* What a pod asks for: containers, the init containers' rule, sidecars, overhead. *ret_unknown: a
 * resource beyond RES_MAX kinds, which no node can have. */
void pod_asks(struct cache *c, const struct val *spec, struct amounts *ret, int64_t *ret_cpu_least,
              int64_t *ret_memory_least, const char **ret_unknown);
#define EACH_NODE(c, info)                                                                         \
    for (struct list *_l = (c)->nodes.next; _l != &(c)->nodes; _l = _l->next)                      \
        for (struct node_info *info = list_entry(_l, struct node_info, link), *_once = info; _once; \
             _once = NULL)
