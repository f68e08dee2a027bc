/* scheduler/preempt.h - whom a pod that fits nowhere may displace: pods of lower priority, as few and
 * as unimportant ones as will do, and none that a disruption budget keeps, where there is a choice.
 *
 * Pure over the cache: pods are taken out of it to see, and put back. */
#pragma once

#include "scheduler/place.h"

struct preemption {
    const char *node; /* NULL: it would not help */
    const struct obj **victims;
    uint32_t n;
};
/* After place(p) found nothing. budgets: PodDisruptionBudgets of all namespaces. What it gives back
 * lies in p->arena. */
struct preemption preempt(struct placing *p, const struct obj *const *budgets, uint32_t budgets_n);
int64_t pod_priority(const struct obj *pod);
