/* event/schedule.h - time becomes calls of functions.
 *
 * Takes Schedule objects (EventBridge Scheduler's: one target, time zone, start and end, flexible window) and
 * EventRule objects (rules with a schedule: several targets). When one is due, what input.h makes of it goes to
 * function_invoke_async() for each target; a target that cannot take it is tried again with growing waits, as often
 * and as long as the target says.
 *
 * What was handed over is remembered in STATE/queue/schedules.json, written a moment later. So a time is told at least
 * once; times that passed while this process was not running are made up for by the latest of them.
 * One timer for all of them, nothing between. Thread: the loop's. */
#pragma once

#include <uv.h>

#include "base/err.h"

struct functions;
struct obj;
struct schedules;

enum { SCHEDULES_MAX = 100000 };

struct schedules_opts {
    uv_loop_t *loop;
    const char *state, *region, *account; /* copied */
    struct functions *functions;
    /* The object's status has changed to this ("Active", "Suspended", "Failed", "Completed"). */
    void (*tell)(void *arg, const struct obj *o, const char *state, const char *reason);
    /* A schedule that wants to be deleted after its last time has had it. */
    void (*complete)(void *arg, const struct obj *o);
    void *arg;
    int64_t (*now_ms)(void *arg); /* NULL: the wall clock */
};
struct schedules *schedules_new(const struct schedules_opts *o);
/* What was handed over is on disk when it returns; blocks for that. */
void *schedules_free(struct schedules *s);

/* The object as it is now, of either kind. */
void schedules_put(struct schedules *s, const struct obj *o);
void schedules_remove(struct schedules *s, const struct obj *o);
/* Everything that is due; what the timer calls. */
void schedules_run(struct schedules *s);
