/* controller/jobs.h - the arithmetic of Jobs, without any object written. Pure. */
#pragma once

#include "codec/obj.h"

/* How many pods should run now. completions < 0: a work queue (spec.completions is absent). */
int64_t job_wanted(int64_t parallelism, int64_t completions, int64_t succeeded, int64_t active);
/* How long after the last failure the next pod waits: 10 s, 20 s, ... 10 minutes. */
int64_t job_backoff_ms(int64_t failures_in_a_row);

/* A set of indexes as status.completedIndexes writes it: "0-2,5". Kept as ranges in order, so a job
 * of two thousand million indexes costs what its status costs. */
struct index_range {
    int64_t first, last;
};
struct indexes {
    struct arena *a;
    struct index_range *v;
    uint32_t v_n, v_cap;
    int64_t n; /* indexes are 0 .. n-1 */
};
void indexes_init(struct indexes *x, struct arena *a, int64_t n);
void indexes_read(struct indexes *x, const char *text); /* adds; what is no list of ranges is left out */
bool indexes_has(const struct indexes *x, int64_t i);
void indexes_add(struct indexes *x, int64_t i);
void indexes_add_all(struct indexes *x, const struct indexes *more);
int64_t indexes_count(const struct indexes *x);
int64_t indexes_common(const struct indexes *x, const struct indexes *y); /* how many are in both */
int64_t indexes_gap(const struct indexes *x); /* the lowest one that is not in it; n: none */
const char *indexes_text(const struct indexes *x, struct arena *a);

/* spec.podFailurePolicy: what the first rule that fits says of a failed pod. */
enum failure_action { FAILURE_COUNT, FAILURE_IGNORE, FAILURE_INDEX, FAILURE_JOB };
/* ret_message (may be NULL): why the job fails, for FAILURE_JOB. */
enum failure_action job_failure_action(struct arena *a, const struct val *policy, const struct obj *pod,
                                       const char **ret_message);
/* spec.successPolicy: the number of the first rule that is met, or -1. */
int job_success_rule(struct arena *a, const struct val *policy, const struct indexes *done);
