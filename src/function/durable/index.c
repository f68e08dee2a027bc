/* Which executions there are: by id, by name, by start, and by when something is due. */
#include "function/durable/durable_int.h"

#include "base/log.h"

enum { TIMER_MAX_MS = 3600000 };

/* ---- the heap of times ---- */

static void heap_place(struct durable *d, struct exec *e, uint32_t at)
{
    d->heap[at] = e;
    e->heap_at = at + 1;
}

static void heap_up(struct durable *d, uint32_t at)
{
    struct exec *e = d->heap[at];

    for (; at && d->heap[(at - 1) / 2]->due_ms > e->due_ms; at = (at - 1) / 2)
        heap_place(d, d->heap[(at - 1) / 2], at);
    heap_place(d, e, at);
}

static void heap_down(struct durable *d, uint32_t at)
{
    struct exec *e = d->heap[at];

    for (uint32_t c; (c = 2 * at + 1) < d->heap_n; at = c) {
        if (c + 1 < d->heap_n && d->heap[c + 1]->due_ms < d->heap[c]->due_ms)
            c++;
        if (d->heap[c]->due_ms >= e->due_ms)
            break;
        heap_place(d, d->heap[c], at);
    }
    heap_place(d, e, at);
}

static void on_timer(uv_timer_t *t)
{
    durable_tick(t->data);
}

void durable_timer(struct durable *d)
{
    int64_t ms;

    if (!d->active || d->closing || !d->heap_n)
        return;
    ms = d->heap[0]->due_ms - durable_now(d);
    uv_timer_start(&d->timer, on_timer, (uint64_t)MIN(MAX(ms, (int64_t)0), (int64_t)TIMER_MAX_MS), 0);
    uv_unref((uv_handle_t *)&d->timer);
}

static void heap_drop(struct exec *e)
{
    struct durable *d = e->d;
    uint32_t at = e->heap_at - 1;

    e->heap_at = 0;
    e->due_ms = 0;
    if (at != --d->heap_n) {
        struct exec *last = d->heap[d->heap_n];

        heap_place(d, last, at);
        heap_up(d, at);
        heap_down(d, last->heap_at - 1);
    }
}

void exec_heap_set(struct exec *e, int64_t due_ms)
{
    struct durable *d = e->d;

    if (e->heap_at && e->due_ms == due_ms)
        return;
    if (e->heap_at)
        heap_drop(e);
    if (!due_ms)
        return;
    e->due_ms = due_ms;
    if (d->heap_n == d->heap_cap) {
        d->heap_cap = d->heap_cap ? d->heap_cap * 2 : 64;
        d->heap = xrealloc(d->heap, d->heap_cap * sizeof *d->heap);
    }
    heap_place(d, e, d->heap_n++);
    heap_up(d, d->heap_n - 1);
    if (d->heap[0] == e)
        durable_timer(d);
}

/* ---- the index ---- */

struct exec *exec_new(struct durable *d, const char *id)
{
    struct exec *e = xcalloc(1, sizeof *e);

    e->d = d;
    e->id = xstrdup(id);
    list_init(&e->pending_waiters);
    list_init(&e->writing_waiters);
    list_init(&e->waits);
    list_init(&e->load_waits);
    return e;
}

char *exec_name_key(struct arena *a, const char *ns, const char *object, const char *name)
{
    return arena_printf(a, "%s/%s/%s", ns, object, name);
}

/* ---- a function's, by start ---- */

static int by_start(const void *a, const void *b)
{
    const struct exec *x = *(struct exec *const *)a, *y = *(struct exec *const *)b;

    return x->start_ms < y->start_ms ? -1 : x->start_ms > y->start_ms ? 1 : strcmp(x->id, y->id);
}

static int by_end(const void *a, const void *b)
{
    const struct exec *x = *(struct exec *const *)a, *y = *(struct exec *const *)b;

    return x->end_ms < y->end_ms ? -1 : x->end_ms > y->end_ms;
}

uint32_t exec_series_from(const struct exec_series *s, int64_t start_ms)
{
    uint32_t lo = 0, hi = s->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (s->v[mid].start_ms < start_ms)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static const char *series_key(struct arena *a, const struct exec *e)
{
    return arena_printf(a, "%s/%s", e->ns, e->object);
}

/* As a rule it is the last one: clocks seldom go back. */
static void series_add(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *key = series_key(a, e);
    struct exec_series *s = map_get(&e->d->by_function, key);
    uint32_t at;

    if (!s) {
        s = xcalloc(1, sizeof *s);
        map_put(&e->d->by_function, key, s);
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        s->v = xrealloc(s->v, s->cap * sizeof *s->v);
    }
    for (at = s->n; at && (s->v[at - 1].start_ms > e->start_ms ||
                           (s->v[at - 1].start_ms == e->start_ms && s->v[at - 1].e && strcmp(s->v[at - 1].e->id, e->id) > 0)); at--)
        s->v[at] = s->v[at - 1];
    s->v[at] = (struct exec_entry){e->start_ms, e};
    s->n++;
}

static void series_drop(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *key = series_key(a, e);
    struct exec_series *s = map_get(&e->d->by_function, key);
    uint32_t at = s ? exec_series_from(s, e->start_ms) : 0, n = 0;

    while (s && at < s->n && s->v[at].e != e)
        at++;
    if (!s || at == s->n)
        return;
    s->v[at].e = NULL;
    if (++s->dead < 16 && s->dead < s->n)
        return;
    if (s->dead == s->n) {
        map_del(&e->d->by_function, key);
        free(s->v);
        free(s);
        return;
    }
    if (s->dead < s->n / 2)
        return;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->v[i].e)
            s->v[n++] = s->v[i];
    s->n = n;
    s->dead = 0;
}

void exec_count_end(struct exec *e, bool ended)
{
    struct durable *d = e->d;

    if (ended) {
        d->running_n--;
        if (!d->reading)
            list_push(&d->ended, &e->ended);
    } else {
        d->running_n++;
        list_remove(&e->ended);
    }
}

static bool named(const struct exec *e)
{
    return !streq(e->name, e->id);
}

/* It is gone, or was never there; exec_free() takes it out of by_id. */
void exec_leave(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *key;

    if (!e->link.next)
        return;
    exec_heap_set(e, 0);
    list_remove(&e->link);
    list_remove(&e->ended);
    if (named(e)) {
        key = exec_name_key(a, e->ns, e->object, e->name);
        if (map_get(&e->d->by_name, key) == e)
            map_del(&e->d->by_name, key);
    }
    series_drop(e);
    e->d->n--;
    if (!exec_ended(e))
        e->d->running_n--;
    e->link.next = NULL;
}

void exec_free(struct exec *e)
{
    exec_leave(e);
    if (map_get(&e->d->by_id, e->id) == e)
        map_del(&e->d->by_id, e->id);
    exec_unload(e);
    buf_done(&e->pending);
    buf_done(&e->writing);
    free(e->id);
    free(e->name);
    free(e->arn);
    free(e->ns);
    free(e->object);
    free(e->version);
    free(e->kms_key);
    free(e->trace);
    free(e->parent);
    free(e->parent_op);
    free(e);
}

/* When too many are kept the one that ended first goes. */
void durable_make_room(struct durable *d)
{
    if ((int)d->n < d->executions_max)
        return;
    LIST_EACH(&d->ended, l)
    {
        struct exec *e = list_entry(l, struct exec, ended);

        if (e->holds || e->busy || e->reread)
            continue;
        LOG(INFO, "function", "execution=%s did=forget why=\"%u executions are kept\"", e->id, d->n);
        exec_drop(e, false, NULL, NULL);
        return;
    }
}

void exec_enter(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct durable *d = e->d;

    list_push(&d->all, &e->link);
    map_put(&d->by_id, e->id, e);
    if (named(e))
        map_put(&d->by_name, exec_name_key(a, e->ns, e->object, e->name), e);
    d->n++;
    d->running_n++;
    if (exec_ended(e))
        exec_count_end(e, true);
    if (!d->reading)
        series_add(e);
}

void durable_sort(struct durable *d)
{
    struct exec **all = xcalloc(d->n + 1, sizeof *all);
    uint32_t n = 0, ended = 0;

    LIST_EACH(&d->all, l)
    all[n++] = list_entry(l, struct exec, link);
    qsort(all, n, sizeof *all, by_start);
    for (uint32_t i = 0; i < n; i++)
        series_add(all[i]);
    for (uint32_t i = 0; i < n; i++)
        if (exec_ended(all[i]))
            all[ended++] = all[i];
    qsort(all, ended, sizeof *all, by_end);
    for (uint32_t i = 0; i < ended; i++)
        list_push(&d->ended, &all[i]->ended);
    free(all);
    d->reading = false;
}

struct exec *exec_find(struct durable *d, const char *id)
{
    struct exec *e = map_get(&d->by_id, id);

    return e && !e->gone ? e : NULL;
}

int64_t exec_next(const struct exec *e)
{
    int64_t next, ops;

    if (exec_ended(e))
        return e->end_ms + e->retention_days * DAY_MS;
    next = e->clock_left_ms ? e->start_ms + YEAR_DAYS * DAY_MS : e->timeout_at_ms;
    ops = ops_next(e);
    if (ops)
        next = MIN(next, ops);
    if (e->launch && e->launch_at_ms)
        next = MIN(next, e->launch_at_ms);
    if (e->retry_at_ms && !e->running)
        next = MIN(next, e->retry_at_ms);
    if (e->chain_at_ms)
        next = MIN(next, e->chain_at_ms);
    return next;
}

bool exec_has_chains(const struct exec *e)
{
    VAL_EACH(e->ops->list, op)
        if (streq(val_str_at(op, "Type", ""), "CHAINED_INVOKE") && streq(val_str_at(op, "Status", ""), "STARTED"))
            return true;
    return false;
}

/* One of an earlier life. */
void durable_adopt(struct exec *e)
{
    if (exec_ended(e)) {
        e->running = e->wants = false;
        e->told_parent = true; /* a parent that has not heard of it asks */
    } else {
        if (e->running) /* it died with the gateway */
            e->wants = true;
        e->running = false;
        if (e->status == D_PAUSING)
            e->status = D_PAUSED;
        e->chains = exec_has_chains(e);
    }
    exec_enter(e);
    exec_heap_set(e, exec_next(e));
    exec_unload(e);
}

struct exec *exec_by_arn(struct durable *d, const char *arn)
{
    const char *id = strrchr(arn, '/');
    struct exec *e = id ? exec_find(d, id + 1) : NULL;

    return e && streq(e->arn, arn) ? e : NULL;
}

uint32_t durable_count(const struct durable *d, bool running)
{
    return running ? d->running_n : d->n;
}
