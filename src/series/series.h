/* series/series.h - series of minutes: of functions' calls, and of what clients put.
 *
 * Thread: the loop that made it; files are read and written on pool threads. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct uv_loop_s;
struct series;

enum { METRIC_BINS = 160, METRIC_KEY_MAX = 2000 };
#define METRIC_SEP "\x1f"

struct metric_point {
    double n, sum, min, max;
};
/* What a function's calls are counted by. */
enum metric_of_calls { METRIC_INVOCATIONS, METRIC_ERRORS, METRIC_THROTTLES, METRIC_DURATION, METRIC_CONCURRENCY, METRICS_OF_CALLS };

/* dir is made when it is not there. */
struct series *series_new(struct uv_loop_s *loop, const char *dir, struct err *err) _must_check_;
/* Writes what is in memory; done after that (may be NULL). */
void series_stop(struct series *m, void (*done)(void *arg), void *arg);

struct metric_call {
    bool throttled; /* it was refused: nothing else counts then */
    bool error;
    double duration_ms;
    uint32_t concurrency; /* calls at work, this one too */
};
void series_call(struct series *m, const char *key, const struct metric_call *c);
/* Values that a client puts; done (not from inside) when they are on disk. TOO_MANY, INVALID_ARGUMENT (key). */
struct metric_value {
    const char *key;
    int64_t minute; /* since 1970 */
    double value, count; /* count times this value, or (set) a whole set */
    bool set;
    struct metric_point of;
};
typedef void series_done_fn(void *arg, const struct err *err);
int series_put(struct series *m, const struct metric_value *v, uint32_t n, series_done_fn *done, void *arg, struct err *err) _must_check_;

/* A question: the points of all series whose key begins with prefix (and, with `whole`, is it), added up by period. */
struct metric_bucket {
    struct metric_point p;
    uint32_t *bins; /* METRIC_BINS, or NULL */
};
struct metric_ask {
    const char *prefix;
    bool whole;
    int metric; /* of a function's calls; -1: put by clients */
    int64_t from, to; /* minutes: from <= minute < to */
    int64_t period;   /* minutes */
    bool bins;        /* percentiles are wanted */
    struct metric_bucket *buckets; /* (to - from) / period, rounded up; made by the answer, n == 0: nothing */
    uint32_t buckets_n;
};
enum { METRICS_BUCKETS_MAX = 100800 };
/* fn exactly once, never from inside; asks and what they point to belong to the caller and its arena. */
void series_ask(struct series *m, struct arena *a, struct metric_ask *asks, uint32_t n, void (*fn)(void *arg), void *arg);
/* p in 0 .. 100, of a bucket with bins. */
double metric_percentile(const struct metric_bucket *b, double p);

/* After all that is under way: each key that had a point in the last 15 days, in order. */
void series_each(struct series *m, void (*fn)(void *arg, const char *const *keys, uint32_t n), void *arg);
