/* scheduler/queue.h - pods that wait for a node.
 *
 *   READY   will be tried, highest priority first, then who came first
 *   PAUSED  was tried lately: ready again when its pause is over
 *   UNFIT   fits nowhere; something must change first (queue_stir), or a minute pass
 * A pod is in one of these or gone. Pauses double from 1 s to 10 s with each try in vain.
 * No clock of its own: the caller says what time it is. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "codec/obj.h"

enum waiting_state { WAIT_READY, WAIT_PAUSED, WAIT_UNFIT };
struct waiting {
    const struct obj *pod;
    enum waiting_state state;
    int64_t priority;
    uint64_t turn;       /* who came first */
    int64_t again_ms;    /* PAUSED: when; UNFIT: not before, when something is stirred */
    int64_t unfit_ms;    /* since when */
    uint32_t tries;
    uint32_t at;         /* READY: its place in the heap */
    struct list link;    /* PAUSED, UNFIT */
};
struct queue {
    struct map by_uid;
    struct waiting **heap;
    uint32_t heap_n, heap_cap, unfit_n;
    struct list paused, unfit;
    uint64_t turns;
};
void queue_init(struct queue *q);
void queue_done(struct queue *q);
/* New, or changed (then an unfit one is tried again). */
void waitq_put(struct queue *q, const struct obj *pod, int64_t now_ms, bool changed);
void queue_drop(struct queue *q, const char *uid);
struct waiting *queue_first(struct queue *q); /* stays in the queue: queue_drop or queue_unfit it */
void queue_unfit(struct queue *q, struct waiting *w, int64_t now_ms);
void queue_pause(struct queue *q, struct waiting *w, int64_t now_ms); /* tried, failed for another reason */
void queue_stir(struct queue *q, int64_t now_ms); /* something changed that may help the unfit */
/* Wakes who is due; gives back when to call again, or -1. */
int64_t queue_wake(struct queue *q, int64_t now_ms);
