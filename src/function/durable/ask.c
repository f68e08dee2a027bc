/* What the SDKs and others ask of an execution that is there. */
#include "function/durable/durable_int.h"

/* ---- answers that wait for the disk ---- */

struct answer {
    struct durable_waiter w;
    struct arena *a;
    struct val *v;
    durable_done_fn *done;
    void *arg;
};

static void on_answer(struct durable_waiter *w, const struct err *err)
{
    struct answer *x = container_of(w, struct answer, w);

    x->done(x->arg, err->code ? NULL : x->v, err->code ? err : NULL);
    arena_free(x->a);
    free(x);
}

static struct answer *answer_new(durable_done_fn *done, void *arg)
{
    struct answer *x = xcalloc(1, sizeof *x);

    x->w.fn = on_answer;
    x->a = arena_new();
    x->v = val_map(x->a);
    x->done = done;
    x->arg = arg;
    return x;
}

static void refuse(durable_done_fn *done, void *arg, enum err_code code, const char *text)
{
    struct err err;

    err_set_(&err, code, 0, "%s", text);
    done(arg, NULL, &err);
}

/* ---- requests that may have to wait for operations ---- */

enum { ASKS_MAX = 10000 };

/* What it points to is the caller's, until done was called. */
struct request {
    struct exec_wait w;
    struct durable *d;
    void (*go)(struct request *r, struct exec *e); /* answers; e has its operations */
    durable_done_fn *done;
    void *arg;
    const char *token, *client_token, *text;
    const struct val *v;
    size_t n;
    int what, max;
    bool flag;
};

static void on_asked(struct exec_wait *w, const struct err *err)
{
    struct request *r = container_of(w, struct request, w);

    r->d->asks--;
    if (err->code)
        r->done(r->arg, NULL, err);
    else if (w->e->gone)
        refuse(r->done, r->arg, ERR_NOT_FOUND, "Durable Execution does not exist");
    else
        r->go(r, w->e);
    free(r);
}

static void ask(struct exec *e, struct request *r)
{
    struct durable *d = e->d;
    struct request *kept;

    r->d = d;
    if (exec_ready(e)) {
        r->go(r, e);
        return;
    }
    if (d->asks >= ASKS_MAX) {
        refuse(r->done, r->arg, ERR_TOO_MANY, "Too many requests wait for executions to be read.");
        return;
    }
    d->asks++;
    kept = xmalloc(sizeof *kept);
    *kept = *r;
    kept->w.run = on_asked;
    exec_with_ops(e, &kept->w);
}

/* Of that ARN; NULL: answered. */
static struct exec *need(struct durable *d, const char *arn, durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);

    if (!e)
        refuse(done, arg, ERR_NOT_FOUND, "Durable Execution does not exist");
    return e;
}

static void answer_commit(struct exec *e, struct answer *x)
{
    exec_commit(e, &x->w);
    exec_settle(e);
}

/* Nothing is to be written for it: it leaves when what it says is on disk. */
static void answer_unchanged(struct exec *e, struct answer *x)
{
    struct err ok = {0};

    if (e->busy) {
        list_push(e->pending.n ? &e->pending_waiters : &e->writing_waiters, &x->w.link);
        return;
    }
    e->holds++;
    on_answer(&x->w, &ok);
    e->holds--;
    exec_settle(e);
}

/* ---- what the SDKs ask ---- */

static bool token_fits(struct exec *e, const char *token)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    return e->running && !exec_ended(e) && streq(exec_token(e, a), token);
}

/* The operations that the function has not heard of. */
static struct val *unseen(struct exec *e, struct arena *a, uint64_t after)
{
    struct val *list = val_list(a);

    VAL_EACH(e->ops->list, op)
        if ((uint64_t)val_int_at(op, "_t", 0) > after)
            val_push(a, list, view_op(a, op));
    return list;
}

/* The same request once more: the same answer. */
static bool answer_again(struct exec *e, const char *token, const char *client_token, durable_done_fn *done, void *arg)
{
    const struct val *last = e->ops->last;
    struct answer *x;

    if (!client_token || !streq(val_str_at(last, "client", ""), client_token) || !streq(val_str_at(last, "token", ""), token))
        return false;
    x = answer_new(done, arg);
    if (val_str_at(last, "next", NULL))
        val_put_str(x->a, x->v, "CheckpointToken", val_str_at(last, "next", ""));
    val_put(x->a, val_need_map(x->a, x->v, "NewExecutionState"), "Operations", unseen(e, x->a, (uint64_t)val_int_at(last, "after", 0)));
    x->v = val_copy(x->a, x->v); /* operations may change before it leaves */
    answer_unchanged(e, x);
    return true;
}

static void remember(struct exec *e, const char *token, const char *client_token, const char *next, uint64_t after)
{
    struct arena *a = e->ops->a;

    if (!client_token)
        return;
    e->ops->last = val_map(a);
    val_put_str(a, e->ops->last, "client", client_token);
    val_put_str(a, e->ops->last, "token", token);
    val_put_int(a, e->ops->last, "after", (int64_t)after);
    if (next)
        val_put_str(a, e->ops->last, "next", next);
}

static void go_checkpoint(struct request *r, struct exec *e)
{
    struct durable *d = e->d;
    struct answer *x;
    struct err err = {0};
    uint64_t after;
    const char *next = NULL;

    if (answer_again(e, r->token, r->client_token, r->done, r->arg))
        return;
    if (!token_fits(e, r->token)) {
        refuse(r->done, r->arg, ERR_INVALID_ARGUMENT, "Invalid checkpoint token");
        exec_settle(e);
        return;
    }
    if ((exec_full(e, &err) || ops_update(e, r->v, &err) < 0) && err.code != ERR_TOO_LARGE) {
        r->done(r->arg, NULL, &err);
        exec_settle(e);
        return;
    }
    x = answer_new(r->done, r->arg);
    e->token++;
    after = e->seen;
    if (err.code == ERR_TOO_LARGE) { /* the execution fails, and its invocation is to stop */
        exec_finish(e, D_FAILED, NULL, exec_error_object(x->a, "InvalidParameterValueException", err.msg));
    } else if (!exec_ended(e)) {
        ops_due(e, durable_now(d));
        if (e->status == D_PAUSING) {
            e->status = D_PAUSED;
            e->wants = true; /* once more from here, when it is resumed */
        } else {
            next = exec_token(e, x->a);
            e->seen = e->touched;
        }
        remember(e, r->token, r->client_token, next, after);
    }
    if (next)
        val_put_str(x->a, x->v, "CheckpointToken", next);
    val_put(x->a, val_need_map(x->a, x->v, "NewExecutionState"), "Operations", next ? unseen(e, x->a, after) : val_list(x->a));
    x->v = val_copy(x->a, x->v); /* operations may change before it leaves */
    answer_commit(e, x);
}

void durable_checkpoint(struct durable *d, const char *arn, const char *token, const char *client_token, const struct val *updates,
                        durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);

    if (!e)
        refuse(done, arg, ERR_INVALID_ARGUMENT, "Invalid checkpoint token");
    else
        ask(e, &(struct request){.go = go_checkpoint, .done = done, .arg = arg, .token = token, .client_token = client_token, .v = updates});
}

static void go_state(struct request *r, struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    char *end = NULL;
    unsigned long from = str_empty(r->text) ? 1 : strtoul(r->text, &end, 10);
    uint32_t next;

    if (!token_fits(e, r->token)) {
        refuse(r->done, r->arg, ERR_INVALID_ARGUMENT, "Invalid checkpoint token");
    } else if ((end && *end) || from < 1 || from > val_len(e->ops->list)) {
        refuse(r->done, r->arg, ERR_INVALID_ARGUMENT, "Invalid marker");
    } else {
        val_put(a, v, "Operations", view_page(e, a, (uint32_t)from - 1, r->max, false, &next));
        if (next)
            val_put(a, v, "NextMarker", val_printf(a, "%u", next));
        r->done(r->arg, v, NULL);
    }
    exec_settle(e);
}

void durable_state(struct durable *d, const char *arn, const char *token, const char *marker, int max_items, durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);

    if (!e)
        refuse(done, arg, ERR_INVALID_ARGUMENT, "Invalid checkpoint token");
    else
        ask(e, &(struct request){.go = go_state, .done = done, .arg = arg, .token = token, .text = marker,
                                 .max = max_items > 0 ? MIN(max_items, 1000) : 100});
}

/* ---- what others ask ---- */

static void go_stop(struct request *r, struct exec *e)
{
    struct answer *x = answer_new(r->done, r->arg);

    if (exec_ended(e)) {
        val_put_int(x->a, x->v, "StopTimestamp", e->end_ms);
        answer_unchanged(e, x);
        return;
    }
    exec_finish(e, D_STOPPED, NULL, val_len(r->v) ? r->v : exec_error_object(x->a, NULL, "Execution stopped by user request"));
    val_put_int(x->a, x->v, "StopTimestamp", e->end_ms);
    answer_commit(e, x);
}

void durable_stop(struct durable *d, const char *arn, const struct val *error, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);

    if (e)
        ask(e, &(struct request){.go = go_stop, .done = done, .arg = arg, .v = error});
}

static void put_reason(struct exec *e, struct val *event, const char *reason)
{
    struct arena *a = e->ops->a;

    if (reason)
        val_put(a, event, "Reason", op_event_payload(a, val_str(a, reason)));
}

static void go_pause(struct request *r, struct exec *e)
{
    int64_t now = durable_now(e->d);
    struct answer *x;
    struct arena *a = e->ops->a;
    struct val *event;
    struct err err;

    if (e->status != D_RUNNING) {
        if (!exec_ended(e) && r->client_token && streq(val_str_at(e->ops->pause, "token", ""), r->client_token)) {
            answer_unchanged(e, answer_new(r->done, r->arg));
        } else {
            refuse(r->done, r->arg, ERR_CONFLICT, exec_ended(e) ? "The durable execution has ended." : "The durable execution is paused already.");
            exec_settle(e);
        }
        return;
    }
    if (exec_full(e, &err)) {
        r->done(r->arg, NULL, &err);
        exec_settle(e);
        return;
    }
    x = answer_new(r->done, r->arg);
    exec_unlaunch(e);
    e->status = e->running ? D_PAUSING : D_PAUSED;
    e->clock_left_ms = r->flag ? MAX(e->timeout_at_ms - now, (int64_t)1) : 0;
    e->ops->pause = val_map(a);
    val_put_int(a, e->ops->pause, "at", now);
    val_put_bool(a, e->ops->pause, "clock", r->flag);
    if (r->text)
        val_put_str(a, e->ops->pause, "reason", r->text);
    if (r->client_token)
        val_put_str(a, e->ops->pause, "token", r->client_token);
    event = op_event_add(e, "ExecutionPaused", NULL);
    val_put_int(a, event, "PauseRequestTimestamp", now);
    val_put_bool(a, event, "ExecutionTimeoutPaused", r->flag);
    put_reason(e, event, r->text);
    answer_commit(e, x);
}

void durable_pause(struct durable *d, const char *arn, const char *client_token, const char *reason, bool clock_too, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);

    if (e)
        ask(e, &(struct request){.go = go_pause, .done = done, .arg = arg, .client_token = client_token, .text = reason, .flag = clock_too});
}

static void go_resume(struct request *r, struct exec *e)
{
    int64_t now = durable_now(e->d);
    struct val *event;

    if (e->status != D_PAUSED && e->status != D_PAUSING) {
        if (!exec_ended(e) && r->client_token && streq(val_str_at(e->ops->pause, "resumed", ""), r->client_token)) {
            answer_unchanged(e, answer_new(r->done, r->arg));
        } else {
            refuse(r->done, r->arg, ERR_CONFLICT, exec_ended(e) ? "The durable execution has ended." : "The durable execution is not paused.");
            exec_settle(e);
        }
        return;
    }
    e->status = D_RUNNING;
    if (e->clock_left_ms)
        e->timeout_at_ms = now + e->clock_left_ms;
    e->clock_left_ms = 0;
    e->ops->pause = val_map(e->ops->a);
    if (r->client_token)
        val_put_str(e->ops->a, e->ops->pause, "resumed", r->client_token);
    event = op_event_add(e, "ExecutionResumed", NULL);
    val_put_int(e->ops->a, event, "ResumeRequestTimestamp", now);
    put_reason(e, event, r->text);
    answer_commit(e, answer_new(r->done, r->arg));
}

void durable_resume(struct durable *d, const char *arn, const char *client_token, const char *reason, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);

    if (e)
        ask(e, &(struct request){.go = go_resume, .done = done, .arg = arg, .client_token = client_token, .text = reason});
}

struct deletion {
    durable_done_fn *done;
    void *arg;
    int64_t at_ms;
};

static void on_deleted(void *arg, const struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct deletion *x = arg;
    struct val *v = val_map(a);

    val_put_int(a, v, "DeletionRequestTimestamp", x->at_ms);
    x->done(x->arg, err->code ? NULL : v, err->code ? err : NULL);
    free(x);
}

/* Answered when its file is gone for good: who asked may count on that. */
static void go_delete(struct request *r, struct exec *e)
{
    struct deletion *x;

    if (!exec_ended(e) || e->busy || e->running) {
        refuse(r->done, r->arg, ERR_CONFLICT, "The durable execution is not in a terminal state.");
        exec_settle(e);
        return;
    }
    x = xcalloc(1, sizeof *x);
    *x = (struct deletion){r->done, r->arg, durable_now(e->d)};
    exec_drop(e, true, on_deleted, x);
}

void durable_delete(struct durable *d, const char *arn, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);
    struct request r = {.go = go_delete, .done = done, .arg = arg, .d = d};

    if (e && e->reread)
        ask(e, &r);
    else if (e)
        go_delete(&r, e);
}

/* "EXECUTION:OPERATION" */
static struct exec *of_callback(struct durable *d, struct arena *a, const char *callback_id, const char **ret_op)
{
    char *text = exec_token_read(a, callback_id), *colon = text ? strchr(text, ':') : NULL;

    if (!colon)
        return NULL;
    *colon = 0;
    *ret_op = colon + 1;
    return exec_find(d, text);
}

const char *durable_of_callback(struct durable *d, struct arena *a, const char *callback_id)
{
    const char *op;
    struct exec *e = of_callback(d, a, callback_id, &op);

    return e ? arena_strdup(a, e->arn) : NULL;
}

/* r->text: the operation; r->v: a result, or an ErrorObject. */
static void go_callback(struct request *r, struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *op = op_find(e, r->text);
    struct err err;

    if (!op || !streq(val_str_at(op, "Type", ""), "CALLBACK") || exec_ended(e) || !streq(val_str_at(op, "Status", ""), "STARTED")) {
        refuse(r->done, r->arg, op ? ERR_EXPIRED : ERR_NOT_FOUND, op ? "The callback is closed or has timed out." : "Callback not found");
        exec_settle(e);
        return;
    }
    if (exec_full(e, &err)) { /* heartbeats are written, too */
        exec_finish(e, D_FAILED, NULL, exec_error_object(a, "InvalidParameterValueException", err.msg));
    } else if (r->what == DURABLE_HEARTBEAT) {
        if (val_int_at(op, "_beatS", 0)) {
            val_put_int(e->ops->a, op, "_beat", durable_now(e->d) + val_int_at(op, "_beatS", 0) * 1000);
            val_push(e->ops->a, e->ops->changed, val_int(e->ops->a, op - e->ops->list->items)); /* no change that the function hears of */
        }
    } else {
        op_end(e, op, r->what == DURABLE_SUCCEED ? "SUCCEEDED" : "FAILED", r->what == DURABLE_SUCCEED ? r->v : NULL,
               r->what == DURABLE_FAIL ? r->v ? r->v : val_map(a) : NULL);
        if (!e->running)
            e->wants = true;
    }
    answer_commit(e, answer_new(r->done, r->arg));
}

struct calling {
    struct arena *a; /* of the operation's name and the result */
    durable_done_fn *done;
    void *arg;
};

static void on_called(void *arg, const struct val *v, const struct err *err)
{
    struct calling *c = arg;

    c->done(c->arg, v, err);
    arena_free(c->a);
    free(c);
}

void durable_callback(struct durable *d, const char *callback_id, enum durable_callback what, const void *result, size_t n,
                      const struct val *error, durable_done_fn *done, void *arg)
{
    struct calling *c = xcalloc(1, sizeof *c);
    const char *op = "";
    struct exec *e;

    *c = (struct calling){arena_new(), done, arg};
    e = of_callback(d, c->a, callback_id, &op);
    if (!e)
        refuse(on_called, c, ERR_NOT_FOUND, "Callback not found");
    else
        ask(e, &(struct request){.go = go_callback, .done = on_called, .arg = c, .text = op, .what = (int)what,
                                 .v = what == DURABLE_SUCCEED ? result ? val_strn(c->a, result, n) : NULL : error});
}
