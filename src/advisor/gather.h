/* advisor/gather.h - from what the meters wrote (STATE/meter/) to the use of each workload.
 *
 *   functions.json  of the gateway: totals per function since its first call
 *   pods.json       of the node: totals per pod since it began; forgets a pod when it ends
 *   workloads.json  ours: pods.json summed up by workload, so that pods may come and go
 * A file that is not there yet is an empty one; one that cannot be read is an error. */
#pragma once

#include "advisor/advise.h"

struct uses {
    struct use *v;
    uint32_t n;
};

/* The embedded sheet, or STATE/prices.json; *ret borrows from the arena. */
int gather_prices(struct arena *a, const char *state, struct prices *ret, struct err *err) _must_check_;

/* workloads.json with pods.json added to it, as a tree. blocked (may be NULL) tells why a pod's
 * workload cannot be a function, in the arena or NULL. */
typedef const char *gather_blocked_fn(void *arg, struct arena *a, const char *ns, const char *pod);
struct val *gather_workloads(struct arena *a, const char *state, gather_blocked_fn *blocked, void *arg,
                             struct err *err) _must_check_;
int gather_save(const char *state, const struct val *workloads, struct err *err) _must_check_;

/* Rows from the tree and from functions.json. alive (may be NULL): does it still exist? */
typedef bool gather_alive_fn(void *arg, const char *kind, const char *ns, const char *name);
int gather_uses(struct arena *a, const char *state, const struct val *workloads, int64_t now_ms,
                gather_alive_fn *alive, void *arg, struct uses *ret, struct err *err) _must_check_;
/* Everything at once: what `tandem advise` shows. */
int gather_advice(struct arena *a, const char *state, int64_t now_ms, gather_alive_fn *alive, void *arg,
                  struct prices *ret_prices, struct advices *ret, struct err *err) _must_check_;

/* Pure, for tests: adds one reading of pods.json to the sums. */
void workloads_add(struct arena *a, struct val *workloads, const struct val *pods,
                   gather_blocked_fn *blocked, void *arg);
/* Which workload a pod of pods.json belongs to. */
void workload_of(struct arena *a, const struct val *pod, const char **ret_kind, const char **ret_name);
