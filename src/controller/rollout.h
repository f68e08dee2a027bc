/* controller/rollout.h - the arithmetic of a Deployment, without any object in sight.
 *
 * Pure functions over numbers: how many pods each replica set should have next. deployment.c reads
 * the numbers from objects, calls here, and writes the differences back. The rules are those of
 * Kubernetes (rolling.go, sync.go), so that `kubectl rollout` tells the same story.
 * Invariants, for every input: no more than replicas + surge pods are asked for in all by a
 * rollout, and a step down never takes an available pod below replicas - unavailable. */
#pragma once

#include "codec/val.h"

struct rollout_set { /* one replica set as seen now */
    int64_t spec, status, ready, available;
    int64_t created;   /* any order that grows: who is older */
    int64_t max_noted; /* annotation max-replicas, or -1 */
    int64_t next;      /* out: what spec.replicas should become */
};

struct rollout {
    int64_t replicas, surge, unavailable;
    struct rollout_set *fresh; /* of the template of today; NULL while it is not made */
    struct rollout_set **old;  /* any order */
    size_t old_n;
};

/* "25%" of total rounded up or down, or the plain number; otherwise when v is absent or neither. */
int64_t int_or_percent(const struct val *v, int64_t total, bool round_up, int64_t otherwise);
/* surge and unavailable as they hold for these replicas: never both 0, unavailable <= replicas. */
void rollout_limits(const struct val *max_surge, const struct val *max_unavailable,
                    int64_t replicas, int64_t *ret_surge, int64_t *ret_unavailable);

/* spec.replicas a brand new set starts with. */
int64_t rollout_first(const struct rollout *r);
/* One step of a rolling update: fills in next of all. True: something changes. Either the new set
 * moves or the old ones do, never both, as in Kubernetes. */
bool rollout_step(struct rollout *r);
/* The Deployment was scaled (or is paused): spread the difference over all sets that have pods, in
 * proportion. status_replicas stands in for sets without the annotation. True: something changes. */
bool rollout_scale(struct rollout *r, bool rolling, int64_t status_replicas);

/* A stable hash of a pod template in the alphabet of generated names, 8 to 10 letters. */
const char *template_hash(struct arena *a, const struct val *template, int64_t collisions);
/* The same template? The label pod-template-hash does not count. */
bool template_equal(struct arena *a, const struct val *x, const struct val *y);
