/* Chained invokes: an operation that is another function, or another execution. */
#include "function/durable/durable_int.h"

struct chain {
    struct exec *e;
    char *op, *key;
};

static void chain_end(struct exec *e, const char *op_id, const char *status, const char *result, const struct val *error)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *op, *large = NULL;
    struct err err;

    map_del(&e->d->chained, arena_printf(a, "%s/%s", e->id, op_id));
    if (e->gone || exec_ended(e) || !exec_load(e, &err))
        return;
    op = op_find(e, op_id);
    if (!op || !streq(val_str_at(op, "Status", ""), "STARTED"))
        return;
    if (result && strlen(result) > DURABLE_PAYLOAD_MAX) {
        large = exec_error_object(a, NULL, "CHAINED_INVOKE output payload size must be less than or equal to 1048576 bytes.");
        status = "FAILED";
    }
    op_end(e, op, status, large || error ? NULL : result, large ? large : error);
    e->chains = exec_has_chains(e);
    if (!e->running)
        e->wants = true;
    exec_commit(e, NULL);
    exec_settle(e);
}

void exec_tell_parent(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct exec *parent = map_get(&e->d->by_id, e->parent);
    const char *result = NULL;
    const struct val *error = NULL;
    struct err err;

    e->told_parent = true;
    if (!parent || !exec_load(e, &err))
        return;
    if (e->status == D_SUCCEEDED)
        result = e->ops->result ? e->ops->result->s : NULL;
    else if (e->status == D_TIMED_OUT)
        error = exec_error_object(a, "Sandbox.Timedout", arena_printf(a, "Task timed out after %d seconds", e->timeout_s));
    else
        error = e->ops->error;
    e->holds++;
    chain_end(parent, e->parent_op, durable_status_names[e->status], result, error);
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
        chain_end(e, c->op, "SUCCEEDED", arena_strndup(a, r->payload, r->n), NULL);
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
    const char *id = arena_strdup(a, val_str_at(op, "Id", "")), *child = val_str_at(op, "_child", NULL), *in = val_str_at(op, "_in", NULL);
    const char *key = arena_printf(a, "%s/%s", e->id, id);
    struct exec *there = child ? map_get(&d->by_id, child) : NULL;
    struct chain *c;

    if (map_get(&d->chained, key))
        return;
    map_put(&d->chained, key, e);
    if (there) { /* begun in an earlier life */
        if (exec_ended(there) && !there->busy) {
            exec_tell_parent(there);
            exec_settle(there); /* nothing of it is needed any more */
        }
        return;
    }
    c = xcalloc(1, sizeof *c);
    *c = (struct chain){e, xstrdup(id), xstrdup(key)};
    e->holds++;
    d->at_work++;
    if (child) {
        struct durable_start s = {.ns = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .function_arn = val_str_at(op, "_arn", NULL), .payload = in, .n = in ? strlen(in) : 0, .trace_id = val_str_at(op, "_trace", e->trace)};

        durable_start_as(d, &s, child, e->id, id, on_child, c);
    } else {
        struct function_call call = {.namespace_ = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .payload = in, .n = in ? strlen(in) : 0, .arn = val_str_at(op, "_arn", NULL), .trace_id = val_str_at(op, "_trace", e->trace)};

        d->invoke(d->arg, &call, on_chain, c);
    }
}

void exec_chains(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *ids = val_list(a);
    struct err err;

    if (!exec_load(e, &err))
        return;
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
