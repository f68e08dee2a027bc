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
static size_t size_of(const struct val *v)
{
    size_t n = 16;

    if (val_is(v, VAL_STR))
        return v->n + v->n / 8 + 2; /* some of it is escaped */
    VAL_EACH_MEMBER(v, m)
        n += m->n + 4 + size_of(&m->v);
    VAL_EACH(v, it)
        n += size_of(it);
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
        n = size_of(op);
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
    return !e->gone && streq(e->ns, f->ns) && streq(e->object, f->name) && (!f->version || streq(e->version, f->version)) &&
           (!f->execution || streq(e->name, f->execution)) && (!f->status || streq(durable_status_names[e->status], f->status)) &&
           (!f->after_ms || e->start_ms > f->after_ms) && (!f->before_ms || e->start_ms < f->before_ms);
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

struct val *durable_list(struct durable *d, struct arena *a, const struct durable_filter *f, struct err *err)
{
    struct exec *from = f->marker ? map_get(&d->by_id, f->marker) : NULL; /* the last that was shown */
    struct val *v = val_map(a), *list = val_list(a);
    int left = f->max_items ? f->max_items : 100;
    struct list *l;

    if (f->marker && !from) {
        err_set(err, INVALID_ARGUMENT, "Invalid Marker");
        return NULL;
    }
    l = from ? &from->link : &d->all;
    for (const struct exec *last = NULL; l = f->oldest_first ? l->next : l->prev, l != &d->all;) {
        const struct exec *e = list_entry(l, struct exec, link);

        if (!fits(e, f))
            continue;
        if (left-- == 0) {
            val_put_str(a, v, "NextMarker", last->id);
            break;
        }
        last = e;
        val_push(a, list, view_row(a, e));
    }
    val_put(a, v, "DurableExecutions", list);
    return v;
}

/* ---- histories ---- */

struct reading {
    struct arena *a;
    struct val *list;
    int64_t from, to; /* event ids, both inclusive */
    bool data;
};

/* Payloads stay away: {Truncated: true}. */
static void strip(struct arena *a, struct val *event)
{
    static const char *const names[] = {"Input", "Result", "Error", "Reason"};

    VAL_EACH_MEMBER(event, m) {
        for (size_t i = 0; i < ARRAY_LEN(names) && m->v.type == VAL_MAP; i++) {
            struct val *x = val_get(&m->v, names[i]);

            if (val_is(x, VAL_MAP)) {
                val_del(x, "Payload");
                val_put_bool(a, x, "Truncated", true);
            }
        }
    }
}

static bool take_events(void *arg, const struct val *record)
{
    struct reading *r = arg;

    VAL_EACH(val_get(record, "events"), it) {
        int64_t id = val_int_at(it, "EventId", 0);

        if (id < r->from || id > r->to)
            continue;
        struct val *v = val_copy(r->a, it);

        if (!r->data)
            strip(r->a, v);
        val_push(r->a, r->list, v);
    }
    return true;
}

struct asked {
    struct durable_waiter w;
    struct exec *e;
    durable_done_fn *done;
    void *arg;
    bool data, reverse;
    int64_t marker;
    int max_items;
    char *token;
};

static void show_history(struct asked *h)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *list = val_list(a);
    int64_t total = h->e->events_n, first = h->marker ? h->marker : h->reverse ? total : 1;
    struct reading r = {.a = a, .list = list, .data = h->data};
    struct err err = {0};

    r.from = h->reverse ? MAX(first - h->max_items + 1, (int64_t)1) : first;
    r.to = h->reverse ? first : first + h->max_items - 1;
    if (exec_read(h->e, take_events, &r, &err) < 0) {
        h->done(h->arg, NULL, &err);
        return;
    }
    if (h->reverse)
        for (uint32_t i = 0; i < list->n / 2; i++) {
            struct val x = list->items[i];

            list->items[i] = list->items[list->n - 1 - i];
            list->items[list->n - 1 - i] = x;
        }
    val_put(a, v, "Events", list);
    if (h->reverse ? r.from > 1 : r.to < total)
        val_put(a, v, "NextMarker", val_printf(a, "%lld", (long long)(h->reverse ? r.from - 1 : r.to + 1)));
    h->done(h->arg, v, NULL);
}

static void show_exec(struct asked *h)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};

    if (!exec_load(h->e, &err))
        h->done(h->arg, NULL, &err);
    else
        h->done(h->arg, view_exec(h->e, a, h->data), NULL);
}

static bool read_marker(const char *marker, int64_t *ret)
{
    char *end;

    *ret = 0;
    if (!marker)
        return true;
    *ret = strtoll(marker, &end, 10);
    return *marker && !*end && *ret > 0;
}

/* What it is to show is on disk: now, or after the write that is under way. */
static void when_written(struct asked *h, void (*show)(struct asked *h), void (*later)(struct durable_waiter *w, const struct err *err))
{
    struct exec *e = h->e;

    if (e->busy) {
        h->w.fn = later;
        list_push(e->pending.n ? &e->pending_waiters : &e->writing_waiters, &h->w.link);
        return;
    }
    e->holds++;
    show(h);
    e->holds--;
    free(h);
    exec_settle(e);
}

static void later(struct durable_waiter *w, const struct err *err, void (*show)(struct asked *h))
{
    struct asked *h = container_of(w, struct asked, w);

    if (err->code && h->e->new_file)
        h->done(h->arg, NULL, err); /* it never began */
    else
        show(h);
    free(h);
}

static void history_later(struct durable_waiter *w, const struct err *err)
{
    later(w, err, show_history);
}

static void exec_later(struct durable_waiter *w, const struct err *err)
{
    later(w, err, show_exec);
}

static struct asked *ask(struct durable *d, const char *arn, durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);
    struct asked *h;
    struct err err;

    if (!e) {
        err_set(&err, NOT_FOUND, "Durable Execution does not exist");
        done(arg, NULL, &err);
        return NULL;
    }
    h = xcalloc(1, sizeof *h);
    h->e = e;
    h->done = done;
    h->arg = arg;
    return h;
}

void durable_get(struct durable *d, const char *arn, bool data, durable_done_fn *done, void *arg)
{
    struct asked *h = ask(d, arn, done, arg);

    if (!h)
        return;
    h->data = data;
    when_written(h, show_exec, exec_later);
}

void durable_history(struct durable *d, const char *arn, bool data, bool reverse, const char *marker, int max_items, durable_done_fn *done, void *arg)
{
    struct asked *h;
    struct err err;
    int64_t from;

    if (!read_marker(marker, &from)) {
        err_set(&err, INVALID_ARGUMENT, "Invalid Marker");
        done(arg, NULL, &err);
        return;
    }
    h = ask(d, arn, done, arg);
    if (!h)
        return;
    h->data = data;
    h->reverse = reverse;
    h->marker = from;
    h->max_items = max_items > 0 ? MIN(max_items, 1000) : 100;
    when_written(h, show_history, history_later);
}
