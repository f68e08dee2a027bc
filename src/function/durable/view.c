/* What is shown of durable executions: states for the SDKs, what one is, lists, histories. */
#include "function/durable/durable_int.h"

#include <stdio.h>

struct val *view_op(struct arena *a, const struct val *op)
{
    struct val *v = val_map(a);

    VAL_EACH_MEMBER(op, m)
        if (m->key[0] != '_')
            val_put(a, v, m->key, &m->v);
    return v;
}

/* About what an operation takes as JSON. */
size_t view_size(const struct val *v)
{
    size_t n = 16;

    if (val_is(v, VAL_STR))
        return v->n + v->n / 8 + 2; /* some of it is escaped */
    VAL_EACH_MEMBER(v, m)
        n += m->n + 4 + view_size(&m->v);
    VAL_EACH(v, it)
        n += view_size(it);
    return n;
}

struct val *view_page(struct exec *e, struct arena *a, uint32_t from, int max_items, bool may_be_empty, uint32_t *ret_next)
{
    struct val *list = val_list(a);
    size_t used = 0;

    *ret_next = 0;
    for (uint32_t i = from; i < val_len(e->ops->list); i++) {
        const struct val *op = op_at(e, i);
        size_t n;

        if (op_hidden(e, op))
            continue;
        n = view_size(op);
        if ((int)val_len(list) >= max_items || (used + n > DURABLE_PAGE_BYTES && (val_len(list) || may_be_empty))) {
            *ret_next = i + 1;
            break;
        }
        val_push(a, list, view_op(a, op));
        used += n;
    }
    return list;
}

char *view_function_arn(const struct exec *e, struct arena *a)
{
    return arena_strndup(a, e->arn, (size_t)(strstr(e->arn, "/durable-execution/") - e->arn));
}

static void put_int(struct arena *a, struct val *v, const char *key, int64_t i)
{
    if (i)
        val_put_int(a, v, key, i);
}

struct val *view_exec(struct exec *e, struct arena *a, bool data)
{
    struct val *v = val_map(a), *x;
    const struct val *pause = e->ops->pause;

    val_put_str(a, v, "DurableExecutionArn", e->arn);
    val_put_str(a, v, "DurableExecutionName", e->name);
    val_put_str(a, v, "FunctionArn", view_function_arn(e, a));
    val_put_int(a, v, "StartTimestamp", e->start_ms);
    put_int(a, v, "EndTimestamp", e->end_ms);
    val_put_str(a, v, "Status", durable_status_names[e->status]);
    val_put_str(a, v, "Version", e->version);
    val_put_bool(a, v, "ExecutionDataIncluded", data);
    if (e->trace)
        val_put_str(a, val_need_map(a, v, "TraceHeader"), "XAmznTraceId", e->trace);
    x = val_need_map(a, v, "DurableConfig");
    val_put_int(a, x, "ExecutionTimeout", e->timeout_s);
    val_put_int(a, x, "RetentionPeriodInDays", e->retention_days);
    if (e->kms_key)
        val_put_str(a, x, "KMSKeyArn", e->kms_key);
    if (!exec_ended(e))
        val_put_int(a, v, "ExpectedExecutionTimeoutTimestamp",
                    e->clock_left_ms ? e->start_ms + 31622400LL * 1000 : e->timeout_at_ms);
    if (data && val_len(e->ops->list))
        val_put_str(a, v, "InputPayload", val_str_at(op_at(e, 0), "ExecutionDetails.InputPayload", ""));
    if (data && e->status == D_SUCCEEDED && e->ops->result)
        val_put(a, v, "Result", e->ops->result);
    if (data && exec_ended(e) && e->status != D_SUCCEEDED && e->ops->error)
        val_put(a, v, "Error", e->ops->error);
    if (pause && (e->status == D_PAUSING || e->status == D_PAUSED)) {
        x = val_need_map(a, v, "PauseDetails");
        val_put_int(a, x, "PauseRequestTimestamp", val_int_at(pause, "at", 0));
        val_put_bool(a, x, "ExecutionTimeoutPaused", val_bool_at(pause, "clock", false));
        if (data && val_str_at(pause, "reason", NULL))
            val_put_str(a, x, "Reason", val_str_at(pause, "reason", ""));
    }
    return v;
}

/* ---- lists ---- */

static bool fits(const struct exec *e, const struct durable_filter *f)
{
    return (!f->version || streq(e->version, f->version)) && (!f->execution || streq(e->name, f->execution)) &&
           (!f->status || streq(durable_status_names[e->status], f->status));
}

static struct val *view_row(struct arena *a, const struct exec *e)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "DurableExecutionArn", e->arn);
    val_put_str(a, v, "DurableExecutionName", e->name);
    val_put_str(a, v, "FunctionArn", view_function_arn(e, a));
    val_put_str(a, v, "Status", durable_status_names[e->status]);
    val_put_int(a, v, "StartTimestamp", e->start_ms);
    put_int(a, v, "EndTimestamp", e->end_ms);
    if (e->kms_key)
        val_put_str(a, v, "KMSKeyArn", e->kms_key);
    return v;
}

/* "START.ID": what comes after it in the direction of the list. It may have gone meanwhile. */
static bool list_marker(struct arena *a, const char *marker, int64_t *ret_start, const char **ret_id)
{
    char *end;

    *ret_start = strtoll(marker, &end, 10);
    *ret_id = end + (*end == '.');
    return end != marker && *end == '.' && *ret_start > 0 && strlen(*ret_id) < FUNCTION_ID_MAX && (*ret_id = arena_strdup(a, *ret_id));
}

/* Has the page before come so far? */
static bool was_shown(const struct exec_entry *x, int64_t start_ms, const char *id, bool oldest_first)
{
    int order = x->start_ms != start_ms ? x->start_ms < start_ms ? -1 : 1 : strcmp(x->e->id, id);

    return oldest_first ? order <= 0 : order >= 0;
}

struct val *durable_list(struct durable *d, struct arena *a, const struct durable_filter *f, struct err *err)
{
    const struct exec_series *s = map_get(&d->by_function, arena_printf(a, "%s/%s", f->ns, f->name));
    struct val *v = val_map(a), *list = val_list(a);
    uint32_t from, to, left = f->max_items > 0 ? (uint32_t)f->max_items : 100, looks = DURABLE_LOOKS_MAX;
    int64_t start = 0;
    const char *id = NULL;
    const struct exec *last = NULL;

    val_put(a, v, "DurableExecutions", list);
    if (f->marker && !list_marker(a, f->marker, &start, &id)) {
        err_set(err, INVALID_ARGUMENT, "Invalid Marker");
        return NULL;
    }
    if (!s)
        return v;
    from = exec_series_from(s, MAX(f->after_ms ? f->after_ms + 1 : 0, f->oldest_first ? start : 0));
    to = f->before_ms ? exec_series_from(s, f->before_ms) : s->n;
    if (start && !f->oldest_first)
        to = MIN(to, exec_series_from(s, start + 1));
    for (uint32_t i = 0; from < to && i < to - from; i++) {
        const struct exec_entry *x = &s->v[f->oldest_first ? from + i : to - 1 - i];

        if (!x->e || (id && was_shown(x, start, id, f->oldest_first)))
            continue;
        if (!left || !looks--) {
            val_put(a, v, "NextMarker", val_printf(a, "%lld.%s", (long long)last->start_ms, last->id));
            break;
        }
        last = x->e;
        if (!fits(x->e, f))
            continue;
        val_push(a, val_get(v, "DurableExecutions"), view_row(a, x->e));
        left--;
    }
    return v;
}

/* ---- histories ---- */

struct asked {
    struct durable_waiter w;
    struct exec_wait load;
    struct durable_job j;
    struct exec *e;
    durable_done_fn *done;
    void *arg;
    bool data;
    struct exec_events h; /* of a history */
    struct err err;
};

static void asked_free(struct asked *q)
{
    struct exec *e = q->e;

    if (q->h.a)
        arena_free(q->h.a);
    free((char *)q->h.path);
    free(q);
    e->holds--;
    exec_settle(e);
}

static void history_run(struct durable_job *j)
{
    struct asked *q = container_of(j, struct asked, j);

    (void)!exec_events_read(&q->h, &q->err);
}

/* "EVENT.OFFSET": the next event, and where in the file to look for it. */
static void history_done(struct durable_job *j)
{
    struct asked *q = container_of(j, struct asked, j);
    struct exec_events *h = &q->h;
    struct val *v = val_map(h->a);
    int64_t last;

    if (q->err.code || q->e->gone) {
        if (q->e->gone)
            err_set(&q->err, NOT_FOUND, "Durable Execution does not exist");
        q->done(q->arg, NULL, &q->err);
        asked_free(q);
        return;
    }
    last = val_len(h->list) ? val_int_at(&h->list->items[val_len(h->list) - 1], "EventId", 0) : 0;
    val_put(h->a, v, "Events", h->list);
    if (last && (h->reverse ? last > 1 : last < q->e->events_n))
        val_put(h->a, v, "NextMarker", val_printf(h->a, "%lld.%lld", (long long)(h->reverse ? last - 1 : last + 1), (long long)h->last_at));
    q->done(q->arg, v, NULL);
    asked_free(q);
}

static void show_history(struct asked *q)
{
    q->h.path = exec_path(q->e);
    q->h.size = q->e->size;
    q->h.data = q->data;
    q->h.a = arena_new();
    q->h.bytes = DURABLE_HISTORY_BYTES;
    if (q->h.reverse && !q->h.first)
        q->h.first = INT64_MAX;
    durable_job(q->e->d, &q->j, history_run, history_done);
}

static void show_exec(struct exec_wait *w, const struct err *err)
{
    struct asked *q = container_of(w, struct asked, load);

    if (err->code || q->e->gone) {
        err_set(&q->err, NOT_FOUND, "Durable Execution does not exist");
        q->done(q->arg, NULL, err->code ? err : &q->err);
    } else {
        _auto_(arena_freep) struct arena *a = arena_new();

        q->done(q->arg, view_exec(q->e, a, q->data), NULL);
    }
    asked_free(q);
}

static void show(struct asked *q)
{
    if (q->h.n) {
        show_history(q);
        return;
    }
    q->load.run = show_exec;
    exec_with_ops(q->e, &q->load);
}

static void on_shown(struct durable_waiter *w, const struct err *err)
{
    struct asked *q = container_of(w, struct asked, w);

    if (err->code && q->e->new_file) { /* it never began */
        q->done(q->arg, NULL, err);
        asked_free(q);
    } else {
        show(q);
    }
}

/* "EVENT" or "EVENT.OFFSET" */
static bool read_marker(const char *marker, int64_t *ret, off_t *ret_at)
{
    char *end;

    *ret = 0;
    *ret_at = -1;
    if (!marker)
        return true;
    *ret = strtoll(marker, &end, 10);
    if (end != marker && *end == '.')
        *ret_at = strtoll(end + 1, &end, 10);
    return *marker && !*end && *ret > 0 && *ret_at >= -1;
}

/* Shown when what is known of it is on disk: now, or after the write that is under way. */
static void ask(struct durable *d, const char *arn, const struct asked *what)
{
    struct exec *e = exec_by_arn(d, arn);
    struct asked *q;
    struct err err;

    if (!e) {
        err_set(&err, NOT_FOUND, "Durable Execution does not exist");
        what->done(what->arg, NULL, &err);
        return;
    }
    q = xmalloc(sizeof *q);
    *q = *what;
    q->e = e;
    q->w.fn = on_shown;
    e->holds++;
    if (e->busy)
        list_push(e->pending.n ? &e->pending_waiters : &e->writing_waiters, &q->w.link);
    else
        show(q);
}

void durable_get(struct durable *d, const char *arn, bool data, durable_done_fn *done, void *arg)
{
    ask(d, arn, &(struct asked){.done = done, .arg = arg, .data = data});
}

void durable_history(struct durable *d, const char *arn, bool data, bool reverse, const char *marker, int max_items, durable_done_fn *done, void *arg)
{
    struct asked q = {.done = done, .arg = arg, .data = data, .h = {.reverse = reverse, .n = max_items > 0 ? MIN(max_items, 1000) : 100}};
    struct err err;

    if (read_marker(marker, &q.h.first, &q.h.at)) {
        ask(d, arn, &q);
        return;
    }
    err_set(&err, INVALID_ARGUMENT, "Invalid Marker");
    done(arg, NULL, &err);
}
