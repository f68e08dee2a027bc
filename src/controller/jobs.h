/* controller/jobs.h - the arithmetic of Jobs, without any object written. Pure. */
#pragma once

#include "codec/val.h"

/* How many pods should run now. completions < 0: a work queue (spec.completions is absent). */
int64_t job_wanted(int64_t parallelism, int64_t completions, int64_t succeeded, int64_t active);
/* How long after the last failure the next pod waits: 10 s, 20 s, ... 10 minutes. */
int64_t job_backoff_ms(int64_t failures_in_a_row);

/* A set of indexes as status.completedIndexes writes it: "0-2,5". */
struct indexes {
    uint8_t *bits;
    int64_t n; /* indexes are 0 .. n-1 */
};
void indexes_init(struct indexes *x, struct arena *a, int64_t n);
void indexes_read(struct indexes *x, const char *text); /* adds; what is no list of ranges is left out */
bool indexes_has(const struct indexes *x, int64_t i);
void indexes_add(struct indexes *x, int64_t i);
int64_t indexes_count(const struct indexes *x);
const char *indexes_text(const struct indexes *x, struct arena *a);
