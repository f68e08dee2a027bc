/* scheduler/scheduler.h - gives each pod a node.
 *
 * Keeps its own picture of the nodes (what is asked for on each, ports, labels of pods) up to date
 * from two mirrors, so that placing a pod costs time with the nodes, never with the pods. Pods that
 * fit nowhere wait until something changes that may help them, with growing pauses. */
#pragma once

#include "base/err.h"

struct client;
struct env;
struct scheduler;

struct scheduler_opts {
    const char *name; /* spec.schedulerName it serves; NULL: "default-scheduler" */
};

/* The client and env outlive it. */
struct scheduler *scheduler_start(struct client *client, struct env *env,
                                  const struct scheduler_opts *opts, struct err *err) _must_check_;
void *scheduler_stop(struct scheduler *s); /* NULL is fine */

struct scheduler_stats {
    uint64_t placed, failed, preempted;
    uint32_t waiting, unfit; /* on the queue; fit nowhere right now */
};
struct scheduler_stats scheduler_stats(const struct scheduler *s);
