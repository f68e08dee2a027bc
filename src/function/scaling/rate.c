/* How fast a function takes up new instances.
 *
 * As on Lambda each function (with all its versions) has a bucket of tokens, one for each instance that begins to answer
 * calls: a thousand at first, and a thousand more in ten seconds. It is the function's own, so one that grows does not slow
 * the growth of another. An instance that answered before costs nothing, nor does a provisioned one: it was grown before.
 *
 * A call that finds nobody free and no token waits for either, if the tokens of the next second are enough for those who
 * wait before it; else it is refused. */
#include "function/function_int.h"

enum { WAIT_S = 1 };

static double left_at(const struct rate *r, int burst, int per_10s, int64_t now)
{
    double more = (double)MAX(now - r->at_us, (int64_t)0) * per_10s / 1e7;

    return r->at_us ? MIN(r->left + more, (double)burst) : burst;
}

bool rate_has(const struct rate *r, int burst, int per_10s, int64_t now)
{
    return left_at(r, burst, per_10s, now) >= 1;
}

void rate_take(struct rate *r, int burst, int per_10s, int64_t now)
{
    r->left = left_at(r, burst, per_10s, now) - 1;
    r->at_us = MAX(now, r->at_us);
}

uint32_t rate_in(const struct rate *r, int burst, int per_10s, int64_t now, int s)
{
    double n = left_at(r, burst, per_10s, now) + (double)per_10s * s / 10;

    return n > 0 ? (uint32_t)n : 0;
}

/* Nothing to count: no limit, or one that was paid before. */
static bool is_free(const struct version *v)
{
    return v->f->fs->scale_per_10s < 0 || (int)(v->instances_n - v->stems_n) < pool_owed(v);
}

bool function_may_grow(const struct version *v)
{
    const struct functions *fs = v->f->fs;

    if (v->f->debug)
        return v->instances_n == v->stems_n; /* one, not more */
    return is_free(v) || rate_has(&v->f->family->rate, fs->scale_burst, fs->scale_per_10s, now_us());
}

void function_grew(struct version *v)
{
    struct functions *fs = v->f->fs;

    if (fs->scale_per_10s >= 0)
        rate_take(&v->f->family->rate, fs->scale_burst, fs->scale_per_10s, now_us());
}

bool function_grows_too_fast(const struct version *v)
{
    const struct functions *fs = v->f->fs;

    return !is_free(v) && list_empty(&v->idle) &&
           v->f->waiting_n >= rate_in(&v->f->family->rate, fs->scale_burst, fs->scale_per_10s, now_us(), WAIT_S);
}
