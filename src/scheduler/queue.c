#include "scheduler/queue.h"

enum { PAUSE_MIN_MS = 1000, PAUSE_MAX_MS = 10000, UNFIT_MAX_MS = 60000 };

void queue_init(struct queue *q)
{
    *q = (struct queue){0};
    list_init(&q->paused);
    list_init(&q->unfit);
}

/* ---- the heap of ready ones ---- */

static bool before(const struct waiting *x, const struct waiting *y)
{
    return x->priority != y->priority ? x->priority > y->priority : x->turn < y->turn;
}

static void set(struct queue *q, uint32_t at, struct waiting *w)
{
    q->heap[at] = w;
    w->at = at;
}

static void rise(struct queue *q, uint32_t at)
{
    struct waiting *w = q->heap[at];

    for (; at && before(w, q->heap[(at - 1) / 2]); at = (at - 1) / 2)
        set(q, at, q->heap[(at - 1) / 2]);
    set(q, at, w);
}

static void sink(struct queue *q, uint32_t at)
{
    struct waiting *w = q->heap[at];

    for (uint32_t child; (child = 2 * at + 1) < q->heap_n; at = child) {
        if (child + 1 < q->heap_n && before(q->heap[child + 1], q->heap[child]))
            child++;
        if (!before(q->heap[child], w))
            break;
        set(q, at, q->heap[child]);
    }
    set(q, at, w);
}

static void make_ready(struct queue *q, struct waiting *w)
{
    list_remove(&w->link);
    q->unfit_n -= w->state == WAIT_UNFIT;
    w->state = WAIT_READY;
    if (q->heap_n == q->heap_cap) {
        q->heap_cap = q->heap_cap ? 2 * q->heap_cap : 64;
        q->heap = xrealloc(q->heap, q->heap_cap * sizeof(struct waiting *));
    }
    set(q, q->heap_n++, w);
    rise(q, w->at);
}

static void leave(struct queue *q, struct waiting *w)
{
    struct waiting *last;

    if (w->state != WAIT_READY) {
        list_remove(&w->link);
        q->unfit_n -= w->state == WAIT_UNFIT;
        return;
    }
    last = q->heap[--q->heap_n];
    if (last == w)
        return;
    set(q, w->at, last);
    rise(q, last->at);
    sink(q, last->at);
}

/* ---- the queue ---- */

void waitq_put(struct queue *q, const struct obj *pod, int64_t now_ms, bool changed)
{
    struct waiting *w = map_get(&q->by_uid, pod->uid);
    const struct obj *was;

    if (!w) {
        w = xcalloc(1, sizeof *w);
        w->pod = obj_ref(pod);
        w->priority = val_int_at(obj_val(pod), "spec.priority", 0);
        w->turn = q->turns++;
        w->state = WAIT_PAUSED; /* of no list yet */
        list_init(&w->link);
        map_put(&q->by_uid, pod->uid, w);
        make_ready(q, w);
        return;
    }
    was = w->pod;
    w->pod = obj_ref(pod);
    obj_unref(was);
    if (!changed || w->state != WAIT_UNFIT)
        return;
    if (w->again_ms <= now_ms) {
        make_ready(q, w);
        return;
    }
    list_remove(&w->link);
    q->unfit_n--;
    w->state = WAIT_PAUSED;
    list_push(&q->paused, &w->link);
}

static void waiting_free(struct waiting *w)
{
    obj_unref(w->pod);
    free(w);
}

void queue_drop(struct queue *q, const char *uid)
{
    struct waiting *w = map_del(&q->by_uid, uid);

    if (!w)
        return;
    leave(q, w);
    waiting_free(w);
}

struct waiting *queue_first(struct queue *q)
{
    return q->heap_n ? q->heap[0] : NULL;
}

static void set_pause(struct waiting *w, int64_t now_ms)
{
    int64_t pause = w->tries >= 4 ? PAUSE_MAX_MS : (int64_t)PAUSE_MIN_MS << w->tries;

    w->tries++;
    w->again_ms = now_ms + MIN(pause, (int64_t)PAUSE_MAX_MS);
}

void queue_unfit(struct queue *q, struct waiting *w, int64_t now_ms)
{
    leave(q, w);
    set_pause(w, now_ms);
    w->state = WAIT_UNFIT;
    w->unfit_ms = now_ms;
    q->unfit_n++;
    list_push(&q->unfit, &w->link);
}

void queue_pause(struct queue *q, struct waiting *w, int64_t now_ms)
{
    leave(q, w);
    set_pause(w, now_ms);
    w->state = WAIT_PAUSED;
    list_push(&q->paused, &w->link);
}

void queue_stir(struct queue *q, int64_t now_ms)
{
    LIST_EACH(&q->unfit, l) {
        struct waiting *w = list_entry(l, struct waiting, link);

        waitq_put(q, w->pod, now_ms, true);
    }
}

int64_t queue_wake(struct queue *q, int64_t now_ms)
{
    int64_t next = -1;

    LIST_EACH(&q->paused, l) {
        struct waiting *w = list_entry(l, struct waiting, link);

        if (w->again_ms <= now_ms)
            make_ready(q, w);
        else if (next < 0 || w->again_ms < next)
            next = w->again_ms;
    }
    LIST_EACH(&q->unfit, l) {
        struct waiting *w = list_entry(l, struct waiting, link);
        int64_t due = w->unfit_ms + UNFIT_MAX_MS;

        if (due <= now_ms)
            make_ready(q, w);
        else if (next < 0 || due < next)
            next = due;
    }
    return next;
}

void queue_done(struct queue *q)
{
    const char *uid;
    void *w;

    for (uint32_t i = 0; map_next(&q->by_uid, &i, &uid, &w);)
        waiting_free(w);
    map_done(&q->by_uid);
    free(q->heap);
}
