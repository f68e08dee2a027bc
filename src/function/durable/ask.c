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

/* Loaded, for a change; NULL: answered. */
static struct exec *need(struct durable *d, const char *arn, durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);
    struct err err;

    if (!e || e->gone) {
        refuse(done, arg, ERR_NOT_FOUND, "Durable Execution does not exist");
        return NULL;
    }
    if (!exec_load(e, &err)) {
        done(arg, NULL, &err);
        return NULL;
    }
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

void durable_checkpoint(struct durable *d, const char *arn, const char *token, const char *client_token, const struct val *updates,
                        durable_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);
    struct answer *x;
    struct err err = {0};
    uint64_t after;
    const char *next = NULL;

    if (!e || e->gone || !exec_load(e, &err)) {
        refuse(done, arg, err.code ? err.code : ERR_INVALID_ARGUMENT, err.code ? err.msg : "Invalid checkpoint token");
        return;
    }
    if (answer_again(e, token, client_token, done, arg))
        return;
    if (!token_fits(e, token)) {
        refuse(done, arg, ERR_INVALID_ARGUMENT, "Invalid checkpoint token");
        exec_settle(e);
        return;
    }
    if ((exec_full(e, &err) || ops_update(e, updates, &err) < 0) && err.code != ERR_TOO_LARGE) {
        done(arg, NULL, &err);
        exec_settle(e);
        return;
    }
    x = answer_new(done, arg);
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
        remember(e, token, client_token, next, after);
    }
    if (next)
        val_put_str(x->a, x->v, "CheckpointToken", next);
    val_put(x->a, val_need_map(x->a, x->v, "NewExecutionState"), "Operations", next ? unseen(e, x->a, after) : val_list(x->a));
    x->v = val_copy(x->a, x->v); /* operations may change before it leaves */
    answer_commit(e, x);
}

void durable_state(struct durable *d, const char *arn, const char *token, const char *marker, int max_items, durable_done_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct exec *e = exec_by_arn(d, arn);
    struct val *v = val_map(a);
    struct err err = {0};
    char *end = NULL;
    unsigned long from = str_empty(marker) ? 1 : strtoul(marker, &end, 10);
    uint32_t next;

    if (!e || e->gone || !exec_load(e, &err) || !token_fits(e, token)) {
        refuse(done, arg, err.code ? err.code : ERR_INVALID_ARGUMENT, err.code ? err.msg : "Invalid checkpoint token");
    } else if ((end && *end) || from < 1 || from > val_len(e->ops->list)) {
        refuse(done, arg, ERR_INVALID_ARGUMENT, "Invalid marker");
    } else {
        val_put(a, v, "Operations", view_page(e, a, (uint32_t)from - 1, max_items > 0 ? MIN(max_items, 1000) : 100, false, &next));
        if (next)
            val_put(a, v, "NextMarker", val_printf(a, "%u", next));
        done(arg, v, NULL);
    }
    if (e)
        exec_settle(e);
}

/* ---- what others ask ---- */

void durable_stop(struct durable *d, const char *arn, const struct val *error, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);
    struct answer *x;

    if (!e)
        return;
    x = answer_new(done, arg);
    if (exec_ended(e)) {
        val_put_int(x->a, x->v, "StopTimestamp", e->end_ms);
        answer_unchanged(e, x);
        return;
    }
    exec_finish(e, D_STOPPED, NULL, val_len(error) ? error : exec_error_object(x->a, NULL, "Execution stopped by user request"));
    val_put_int(x->a, x->v, "StopTimestamp", e->end_ms);
    answer_commit(e, x);
}

static void put_reason(struct exec *e, struct val *event, const char *reason)
{
    struct arena *a = e->ops->a;

    if (reason)
        val_put(a, event, "Reason", op_event_payload(a, val_str(a, reason)));
}

void durable_pause(struct durable *d, const char *arn, const char *client_token, const char *reason, bool clock_too, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);
    int64_t now = durable_now(d);
    struct answer *x;
    struct arena *a;
    struct val *event;
    struct err err;

    if (!e)
        return;
    a = e->ops->a;
    if (e->status != D_RUNNING) {
        if (!exec_ended(e) && client_token && streq(val_str_at(e->ops->pause, "token", ""), client_token)) {
            answer_unchanged(e, answer_new(done, arg));
        } else {
            refuse(done, arg, ERR_CONFLICT, exec_ended(e) ? "The durable execution has ended." : "The durable execution is paused already.");
            exec_settle(e);
        }
        return;
    }
    if (exec_full(e, &err)) {
        done(arg, NULL, &err);
        exec_settle(e);
        return;
    }
    x = answer_new(done, arg);
    e->status = e->running ? D_PAUSING : D_PAUSED;
    e->clock_left_ms = clock_too ? MAX(e->timeout_at_ms - now, (int64_t)1) : 0;
    e->ops->pause = val_map(a);
    val_put_int(a, e->ops->pause, "at", now);
    val_put_bool(a, e->ops->pause, "clock", clock_too);
    if (reason)
        val_put_str(a, e->ops->pause, "reason", reason);
    if (client_token)
        val_put_str(a, e->ops->pause, "token", client_token);
    event = op_event_add(e, "ExecutionPaused", NULL);
    val_put_int(a, event, "PauseRequestTimestamp", now);
    val_put_bool(a, event, "ExecutionTimeoutPaused", clock_too);
    put_reason(e, event, reason);
    answer_commit(e, x);
}

void durable_resume(struct durable *d, const char *arn, const char *client_token, const char *reason, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);
    int64_t now = durable_now(d);
    struct val *event;

    if (!e)
        return;
    if (e->status != D_PAUSED && e->status != D_PAUSING) {
        if (!exec_ended(e) && client_token && streq(val_str_at(e->ops->pause, "resumed", ""), client_token)) {
            answer_unchanged(e, answer_new(done, arg));
        } else {
            refuse(done, arg, ERR_CONFLICT, exec_ended(e) ? "The durable execution has ended." : "The durable execution is not paused.");
            exec_settle(e);
        }
        return;
    }
    e->status = D_RUNNING;
    if (e->clock_left_ms)
        e->timeout_at_ms = now + e->clock_left_ms;
    e->clock_left_ms = 0;
    e->ops->pause = val_map(e->ops->a);
    if (client_token)
        val_put_str(e->ops->a, e->ops->pause, "resumed", client_token);
    event = op_event_add(e, "ExecutionResumed", NULL);
    val_put_int(e->ops->a, event, "ResumeRequestTimestamp", now);
    put_reason(e, event, reason);
    answer_commit(e, answer_new(done, arg));
}

void durable_delete(struct durable *d, const char *arn, durable_done_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct exec *e = exec_by_arn(d, arn);
    struct val *v = val_map(a);

    if (!e || e->gone) {
        refuse(done, arg, ERR_NOT_FOUND, "Durable Execution does not exist");
        return;
    }
    if (!exec_ended(e) || e->busy || e->running) {
        refuse(done, arg, ERR_CONFLICT, "The durable execution is not in a terminal state.");
        return;
    }
    val_put_int(a, v, "DeletionRequestTimestamp", durable_now(d));
    e->gone = true;
    exec_remove_file(e);
    exec_settle(e);
    done(arg, v, NULL);
}

/* "EXECUTION:OPERATION" */
static struct exec *of_callback(struct durable *d, struct arena *a, const char *callback_id, const char **ret_op)
{
    char *text = exec_token_read(a, callback_id), *colon = text ? strchr(text, ':') : NULL;

    if (!colon)
        return NULL;
    *colon = 0;
    *ret_op = colon + 1;
    return map_get(&d->by_id, text);
}

const char *durable_of_callback(struct durable *d, struct arena *a, const char *callback_id)
{
    const char *op;
    struct exec *e = of_callback(d, a, callback_id, &op);

    return e ? arena_strdup(a, e->arn) : NULL;
}

void durable_callback(struct durable *d, const char *callback_id, enum durable_callback what, const char *result, const struct val *error,
                      durable_done_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *op_id = "", *status;
    struct exec *e = of_callback(d, a, callback_id, &op_id);
    struct val *op = NULL;
    struct err err = {0};

    if (e && !e->gone && exec_load(e, &err))
        op = op_find(e, op_id);
    if (err.code) {
        done(arg, NULL, &err);
        return;
    }
    status = val_str_at(op, "Status", "");
    if (!op || !streq(val_str_at(op, "Type", ""), "CALLBACK") || exec_ended(e) || !streq(status, "STARTED")) {
        refuse(done, arg, op ? ERR_EXPIRED : ERR_NOT_FOUND, op ? "The callback is closed or has timed out." : "Callback not found");
        if (e)
            exec_settle(e);
        return;
    }
    if (exec_full(e, &err)) { /* heartbeats are written, too */
        exec_finish(e, D_FAILED, NULL, exec_error_object(a, "InvalidParameterValueException", err.msg));
    } else if (what == DURABLE_HEARTBEAT) {
        if (val_int_at(op, "_beatS", 0)) {
            val_put_int(e->ops->a, op, "_beat", durable_now(d) + val_int_at(op, "_beatS", 0) * 1000);
            val_push(e->ops->a, e->ops->changed, val_int(e->ops->a, op - e->ops->list->items)); /* no change that the function hears of */
        }
    } else {
        op_end(e, op, what == DURABLE_SUCCEED ? "SUCCEEDED" : "FAILED", what == DURABLE_SUCCEED ? result : NULL,
               what == DURABLE_FAIL ? error ? error : val_map(a) : NULL);
        if (!e->running)
            e->wants = true;
    }
    answer_commit(e, answer_new(done, arg));
}
