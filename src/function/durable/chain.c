/* Chained invokes: an operation that is another function, or another execution. */
#include "function/durable/durable_int.h"

struct chain {
    struct exec *e;
    char *op, *key;
};

/* How an operation of e ended; e's operations may have to be read first. */
struct ending {
    struct exec_wait w;
    struct arena *a;
    const char *op, *status;
    const struct val *result, *error; /* may be NULL */
};

static void ending_take(struct exec *e, const struct ending *x)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *large = NULL;
    const char *status = x->status;
    struct val *op;

    map_del(&e->d->chained, arena_printf(a, "%s/%s", e->id, x->op));
    if (e->gone || exec_ended(e) || !e->ops)
        return;
    op = op_find(e, x->op);
    if (!op || !streq(val_str_at(op, "Status", ""), "STARTED"))
        return;
    if (x->result && x->result->n > DURABLE_PAYLOAD_MAX) {
        large = exec_error_object(a, NULL, "CHAINED_INVOKE output payload size must be less than or equal to 1048576 bytes.");
        status = "FAILED";
    }
    op_end(e, op, status, large || x->error ? NULL : x->result, large ? large : x->error);
    e->chains = exec_has_chains(e);
    if (!e->running)
        e->wants = true;
    exec_commit(e, NULL);
    exec_settle(e);
}

static void on_ending(struct exec_wait *w, const struct err *err)
{
    struct ending *x = container_of(w, struct ending, w);

    (void)err; /* without operations it is begun once more when they can be read */
    ending_take(w->e, x);
    arena_free(x->a);
    free(x);
}

static void chain_end(struct exec *e, const char *op_id, const char *status, const struct val *result, const struct val *error)
{
    struct ending *x;

    if (exec_ready(e) || e->gone || exec_ended(e)) {
        ending_take(e, &(struct ending){.op = op_id, .status = status, .result = result, .error = error});
        return;
    }
    x = xcalloc(1, sizeof *x);
    x->a = arena_new();
    x->w.run = on_ending;
    x->op = arena_strdup(x->a, op_id);
    x->status = arena_strdup(x->a, status);
    x->result = result ? val_copy(x->a, result) : NULL;
    x->error = error ? val_copy(x->a, error) : NULL;
    exec_with_ops(e, &x->w);
}

void exec_tell_parent(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct exec *parent = exec_find(e->d, e->parent);
    const struct val *error = NULL;

    e->told_parent = true;
    if (!parent)
        return;
    if (e->status == D_TIMED_OUT)
        error = exec_error_object(a, "Sandbox.Timedout", arena_printf(a, "Task timed out after %d seconds", e->timeout_s));
    else if (e->status != D_SUCCEEDED)
        error = e->ops->error;
    e->holds++;
    chain_end(parent, e->parent_op, durable_status_names[e->status], e->status == D_SUCCEEDED ? e->ops->result : NULL, error);
    e->holds--;
}

static void chain_free(struct chain *c)
{
    c->e->holds--;
    c->e->d->at_work--;
    free(c->op);
    free(c->key);
    free(c);
}

struct val *exec_result_error(struct arena *a, const struct function_result *r)
{
    struct err err;
    struct val *v = r->payload ? json_parse(a, r->payload, r->n, &err) : NULL, *out;

    out = exec_error_object(a, val_str_at(v, "errorType", "Unhandled"), val_str_at(v, "errorMessage", "The function failed."));
    if (val_is(val_get(v, "stackTrace"), VAL_LIST)) {
        struct val *lines = val_list(a);

        VAL_EACH(val_get(v, "stackTrace"), it)
            if (it->type == VAL_STR)
                val_push(a, lines, it);
        val_put(a, out, "StackTrace", lines);
    }
    return out;
}

static void on_chain(void *arg, const struct function_result *r)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct chain *c = arg;
    struct exec *e = c->e;
    struct durable *d = e->d;

    if (d->closing || !d->active) {
        map_del(&d->chained, c->key); /* the next life tries again */
    } else if (durable_no_room(d, &r->err)) {
        map_del(&d->chained, c->key);
        e->chain_at_ms = durable_now(d) + d->retry_ms;
    } else if (r->err.code) {
        chain_end(e, c->op, "FAILED", NULL,
                  exec_error_object(a, r->err.code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", r->err.msg));
    } else if (r->function_error) {
        chain_end(e, c->op, "FAILED", NULL, exec_result_error(a, r));
    } else {
        chain_end(e, c->op, "SUCCEEDED", val_strn(a, r->payload, r->n), NULL);
    }
    chain_free(c);
    exec_settle(e);
    durable_maybe_closed(d);
}

static void on_child(void *arg, const struct err *err, const char *arn)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct chain *c = arg;
    struct exec *e = c->e;
    struct durable *d = e->d;

    (void)arn;
    if (err->code && !d->closing && durable_no_room(d, err)) {
        map_del(&d->chained, c->key);
        e->chain_at_ms = durable_now(d) + d->retry_ms;
    } else if (err->code && !d->closing) {
        chain_end(e, c->op, "FAILED", NULL, exec_error_object(a, err->code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", err->msg));
    }
    chain_free(c);
    exec_settle(e);
    durable_maybe_closed(d);
}

static void chain_begin(struct exec *e, struct val *op)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct durable *d = e->d;
    const char *id = arena_strdup(a, val_str_at(op, "Id", "")), *child = val_str_at(op, "_child", NULL);
    const struct val *in = val_get(op, "_in");
    const char *key = arena_printf(a, "%s/%s", e->id, id);
    struct exec *there = child ? exec_find(d, child) : NULL;
    struct chain *c;

    if (map_get(&d->chained, key))
        return;
    map_put(&d->chained, key, e);
    if (there) { /* begun in an earlier life */
        there->told_parent = false;
        exec_settle(there);
        return;
    }
    c = xcalloc(1, sizeof *c);
    *c = (struct chain){e, xstrdup(id), xstrdup(key)};
    e->holds++;
    d->at_work++;
    if (child) {
        struct durable_start s = {.ns = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .function_arn = val_str_at(op, "_arn", NULL), .payload = in ? in->s : NULL, .n = in ? in->n : 0, .trace_id = val_str_at(op, "_trace", e->trace)};

        durable_start_as(d, &s, child, e->id, id, on_child, c);
    } else {
        struct function_call call = {.namespace_ = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .payload = in ? in->s : NULL, .n = in ? in->n : 0, .arn = val_str_at(op, "_arn", NULL), .trace_id = val_str_at(op, "_trace", e->trace)};

        d->invoke(d->arg, &call, on_chain, c);
    }
}

void exec_chains(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *ids = val_list(a);

    e->chain_at_ms = 0;
    VAL_EACH(e->ops->list, op)
        if (streq(val_str_at(op, "Type", ""), "CHAINED_INVOKE") && streq(val_str_at(op, "Status", ""), "STARTED"))
            val_push(a, ids, val_str(a, val_str_at(op, "Id", "")));
    VAL_EACH(ids, it) {
        struct val *op = e->ops && !exec_ended(e) ? op_find(e, it->s) : NULL;

        if (op && streq(val_str_at(op, "Status", ""), "STARTED"))
            chain_begin(e, op);
    }
}
