/* scheduler/devices.h - dynamic resource allocation: which devices of which resource slices a pod's claims get.
 *
 * A pure search over objects that are handed in: for a node, claim by claim and request by request, the first devices
 * that fit (class and selectors, taints, constraints over all requests, counters that devices share), going back where
 * that leads nowhere. What was found for the node that is chosen is written by the caller.
 * Bounds: STEPS_MAX tries a pod and node, DEVICES_MAX devices a claim.
 * Not built: devices that are shared by capacity (allowMultipleAllocations), binding conditions, extended resources. */
#pragma once

#include "codec/obj.h"

struct device_exprs;
struct device_class_source { /* classes by name */
    const struct obj *(*get)(void *arg, const char *name);
    void *arg;
};

struct devices { /* of one pod */
    struct arena *arena;
    struct device_exprs *exprs;
    struct device_class_source classes;
    const struct obj *const *slices; /* all there are */
    uint32_t slices_n;
    const struct obj *const *all_claims; /* what is allocated already */
    uint32_t all_claims_n;
    const struct obj *const *claims; /* of the pod, each one's status.allocation may be there */
    uint32_t claims_n;
    /* inside */
    struct pools *pools;
};
/* Why the pod's claims can not be had on this node; NULL: they can. */
const char *devices_forbid(struct devices *d, const char *node, const struct val *labels);
/* status.allocation of claim i on the node; NULL: it has one already. Only after devices_forbid() said NULL. */
struct val *devices_allocation(struct devices *d, uint32_t i, const char *node, const struct val *labels);
