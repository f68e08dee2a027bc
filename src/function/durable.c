/* Executions: how they start, when their function is invoked, what comes of it, how they end. */
#include "function/durable_int.h"

#include "base/log.h"
#include "env/random.h"

#include <openssl/evp.h>
#include <stdio.h>

enum {
    EXECUTIONS_MAX = 200000,
    RETRY_MS = 1000,
    RETRY_MAX_MS = 60000,
    TRIES_MAX = 5,       /* of an invocation that fails, in a row; then the execution does */
    BAD_PENDING_MAX = 3, /* PENDING with nothing to wait for, in a row: an SDK may lose that race once */
    TIMER_MAX_MS = 3600000,
    YEAR_DAYS = 366,
};

const char *const durable_status_names[D_STATUSES] = {"RUNNING", "PAUSING", "PAUSED", "SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED"};

static const int64_t DAY_MS = 86400000;

/* ---- small things ---- */

char *token_text(struct arena *a, const char *text)
{
    size_t n = strlen(text);
    char *out = arena_raw(a, n * 4 / 3 + 5);

    EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)text, (int)n);
    return out;
}

char *token_read(struct arena *a, const char *token)
{
    size_t n = strlen(token), pad = n && token[n - 1] == '=' ? 1u + (n > 1 && token[n - 2] == '=') : 0;
    char *out = arena_alloc(a, n + 4);
    int got = n % 4 || n > 4096 ? -1 : EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)token, (int)n);

    if (got < (int)pad || strlen(out) < (size_t)got - pad)
        return NULL;
    out[(size_t)got - pad] = 0;
    return out;
}

static char *checkpoint_token(const struct exec *e, struct arena *a)
{
    return token_text(a, arena_printf(a, "%s:%u:%u", e->id, e->inv, e->token));
}

static void sha_hex(const void *p, size_t n, char out[65])
{
    unsigned char md[32];

    ASSERT(EVP_Digest(p, n, md, NULL, EVP_sha256(), NULL) == 1);
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", md[i]);
}

char *exec_child_id(const struct exec *e, struct arena *a, const char *op)
{
    char *text = arena_printf(a, "%s/%s", e->id, op), hex[65];

    sha_hex(text, strlen(text), hex);
    return arena_printf(a, "%.8s-%.4s-4%.3s-8%.3s-%.12s", hex, hex + 8, hex + 12, hex + 15, hex + 18);
}

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

static void timer_set(struct durable *d)
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

void heap_set(struct exec *e, int64_t due_ms)
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
        timer_set(d);
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
    return e;
}

static char *name_key(struct arena *a, const char *ns, const char *object, const char *name)
{
    return arena_printf(a, "%s/%s/%s", ns, object, name);
}

static void leave_indexes(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *key;

    if (!e->link.next)
        return;
    heap_set(e, 0);
    list_remove(&e->link);
    map_del(&e->d->by_id, e->id);
    key = name_key(a, e->ns, e->object, e->name);
    if (map_get(&e->d->by_name, key) == e)
        map_del(&e->d->by_name, key);
    e->d->n--;
    if (!exec_ended(e))
        e->d->running_n--;
    e->link.next = NULL;
}

void exec_free(struct exec *e)
{
    leave_indexes(e);
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
static void make_room(struct durable *d)
{
    if ((int)d->n < d->executions_max)
        return;
    LIST_EACH(&d->all, l)
    {
        struct exec *e = list_entry(l, struct exec, link);

        if (!exec_ended(e) || e->holds || e->busy)
            continue;
        LOG(INFO, "function", "execution=%s did=forget why=\"%u executions are kept\"", e->id, d->n);
        e->gone = true;
        exec_remove_file(e);
        exec_settle(e);
        return;
    }
}

static void into_indexes(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct durable *d = e->d;

    list_push(&d->all, &e->link);
    map_put(&d->by_id, e->id, e);
    map_put(&d->by_name, name_key(a, e->ns, e->object, e->name), e);
    d->n++;
    if (!exec_ended(e))
        d->running_n++;
}

static int64_t exec_next(const struct exec *e)
{
    int64_t next, ops;

    if (exec_ended(e))
        return e->end_ms + e->retention_days * DAY_MS;
    next = e->clock_left_ms ? e->start_ms + YEAR_DAYS * DAY_MS : e->timeout_at_ms;
    ops = ops_next(e);
    if (ops)
        next = MIN(next, ops);
    if (e->retry_at_ms && !e->running)
        next = MIN(next, e->retry_at_ms);
    if (e->chain_at_ms)
        next = MIN(next, e->chain_at_ms);
    return next;
}

static bool has_chains(const struct exec *e)
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
        e->chains = has_chains(e);
    }
    into_indexes(e);
    heap_set(e, exec_next(e));
    exec_unload(e);
}

struct exec *exec_by_arn(struct durable *d, const char *arn)
{
    const char *id = strrchr(arn, '/');
    struct exec *e = id ? map_get(&d->by_id, id + 1) : NULL;

    return e && streq(e->arn, arn) ? e : NULL;
}

uint32_t durable_count(const struct durable *d, bool running)
{
    return running ? d->running_n : d->n;
}

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

/* ---- the end ---- */

void exec_finish(struct exec *e, enum durable_status status, const struct val *result, const struct val *error)
{
    static const char *const events[D_STATUSES] = {[D_SUCCEEDED] = "ExecutionSucceeded", [D_FAILED] = "ExecutionFailed",
        [D_TIMED_OUT] = "ExecutionTimedOut", [D_STOPPED] = "ExecutionStopped"};
    struct arena *a = e->ops->a;
    struct val *event, *op = op_at(e, 0);

    ASSERT(!exec_ended(e) && status >= D_SUCCEEDED);
    e->status = status;
    e->end_ms = durable_now(e->d);
    e->wants = false;
    e->retry_at_ms = e->chain_at_ms = e->clock_left_ms = 0;
    e->d->running_n--;
    e->ops->pause = NULL;
    if (status == D_SUCCEEDED)
        e->ops->result = val_is(result, VAL_STR) ? val_copy(a, result) : NULL;
    else
        e->ops->error = error ? val_copy(a, error) : val_map(a);
    event = event_add(e, events[status], NULL);
    val_put_str(a, &e->ops->events->items[e->ops->events->n - 1], "Id", e->id);
    val_put_str(a, &e->ops->events->items[e->ops->events->n - 1], "Name", e->name);
    event = val_get(&e->ops->events->items[e->ops->events->n - 1], arena_printf(a, "%sDetails", events[status]));
    if (status == D_SUCCEEDED)
        val_put(a, event, "Result", event_payload(a, e->ops->result));
    else
        val_put(a, event, "Error", event_payload(a, e->ops->error));
    val_put_str(a, op, "Status", durable_status_names[status]);
    val_put_int(a, op, "EndTimestamp", e->end_ms);
    op_touched(e, op);
    LOG(INFO, "function", "execution=%s function=%s/%s did=end status=%s ms=%lld invocations=%u", e->id, e->ns, e->object,
        durable_status_names[status], (long long)(e->end_ms - e->start_ms), e->inv);
}

struct wait {
    struct list link;
    function_done_fn *done;
    void *arg;
};

/* As an invocation of it would have answered. */
static void wait_answer(struct exec *e, function_done_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct function_result r = {.version = e->version, .durable_arn = e->arn, .request_id = e->id, .payload = "null", .n = 4};
    static const char *const names[][2] = {{"ErrorType", "errorType"}, {"ErrorMessage", "errorMessage"}, {"ErrorData", "errorData"},
        {"StackTrace", "stackTrace"}};
    struct err err;

    if (!exec_load(e, &err)) {
        r.err = err;
    } else if (e->status == D_SUCCEEDED) {
        if (e->ops->result && e->ops->result->n)
            r.payload = e->ops->result->s, r.n = e->ops->result->n;
    } else {
        struct val *v = val_map(a);

        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            if (val_get(e->ops->error, names[i][0]))
                val_put(a, v, names[i][1], val_get(e->ops->error, names[i][0]));
        r.payload = json_text(a, v, &r.n);
        r.function_error = "Unhandled";
    }
    done(arg, &r);
}

static void tell_waits(struct exec *e)
{
    struct list *l;

    while ((l = list_first(&e->waits))) {
        struct wait *w = list_entry(l, struct wait, link);
        function_done_fn *done = w->done;
        void *arg = w->arg;

        list_remove(l);
        free(w);
        e->holds++;
        wait_answer(e, done, arg);
        e->holds--;
    }
}

uint64_t durable_wait(struct durable *d, const char *arn, function_done_fn *done, void *arg)
{
    struct exec *e = exec_by_arn(d, arn);
    struct function_result r = {0};
    struct wait *w;

    if (!e) {
        err_set(&r.err, NOT_FOUND, "Durable Execution does not exist");
        done(arg, &r);
        return 0;
    }
    if (exec_ended(e) && !e->busy) {
        e->holds++;
        wait_answer(e, done, arg);
        e->holds--;
        exec_settle(e);
        return 0;
    }
    w = xcalloc(1, sizeof *w);
    w->done = done;
    w->arg = arg;
    list_push(&e->waits, &w->link);
    return (uint64_t)(uintptr_t)w;
}

void durable_forget(struct durable *d, uint64_t ticket)
{
    struct wait *w = (struct wait *)(uintptr_t)ticket;

    (void)d;
    if (!w)
        return;
    list_remove(&w->link);
    free(w);
}

/* ---- chained invokes ---- */

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
        large = error_object(a, NULL, "CHAINED_INVOKE output payload size must be less than or equal to 1048576 bytes.");
        status = "FAILED";
    }
    op_end(e, op, status, large || error ? NULL : result, large ? large : error);
    e->chains = has_chains(e);
    if (!e->running)
        e->wants = true;
    exec_commit(e, NULL);
    exec_settle(e);
}

static void tell_parent(struct exec *e)
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
        error = error_object(a, "Sandbox.Timedout", arena_printf(a, "Task timed out after %d seconds", e->timeout_s));
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

static struct val *error_of_result(struct arena *a, const struct function_result *r)
{
    struct err err;
    struct val *v = r->payload ? json_parse(a, r->payload, r->n, &err) : NULL, *out;

    out = error_object(a, val_str_at(v, "errorType", "Unhandled"), val_str_at(v, "errorMessage", "The function failed."));
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
    } else if (r->err.code == ERR_TOO_MANY || r->err.code == ERR_UNAVAILABLE) {
        map_del(&d->chained, c->key);
        e->chain_at_ms = durable_now(d) + d->retry_ms;
    } else if (r->err.code) {
        chain_end(e, c->op, "FAILED", NULL,
                  error_object(a, r->err.code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", r->err.msg));
    } else if (r->function_error) {
        chain_end(e, c->op, "FAILED", NULL, error_of_result(a, r));
    } else {
        chain_end(e, c->op, "SUCCEEDED", arena_strndup(a, r->payload, r->n), NULL);
    }
    chain_free(c);
    exec_settle(e);
    durable_maybe_closed(d);
}

static void start_as(struct durable *d, const struct durable_start *s, const char *id, const char *parent, const char *parent_op,
                     durable_started_fn *done, void *arg);

static void on_child(void *arg, const struct err *err, const char *arn)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct chain *c = arg;
    struct exec *e = c->e;
    struct durable *d = e->d;

    (void)arn;
    if (err->code && !d->closing)
        chain_end(e, c->op, "FAILED", NULL, error_object(a, err->code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", err->msg));
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
        if (exec_ended(there) && !there->busy)
            tell_parent(there);
        return;
    }
    c = xcalloc(1, sizeof *c);
    *c = (struct chain){e, xstrdup(id), xstrdup(key)};
    e->holds++;
    d->at_work++;
    if (child) {
        struct durable_start s = {.ns = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .function_arn = val_str_at(op, "_arn", NULL), .payload = in, .n = in ? strlen(in) : 0, .trace_id = val_str_at(op, "_trace", e->trace)};

        start_as(d, &s, child, e->id, id, on_child, c);
    } else {
        struct function_call call = {.namespace_ = e->ns, .name = val_str_at(op, "_object", ""), .qualifier = val_str_at(op, "_qualifier", NULL),
            .payload = in, .n = in ? strlen(in) : 0, .arn = val_str_at(op, "_arn", NULL), .trace_id = val_str_at(op, "_trace", e->trace)};

        d->invoke(d->arg, &call, on_chain, c);
    }
}

static void chains_begin(struct exec *e)
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

/* ---- invocations ---- */

struct run {
    struct exec *e;
    uint32_t inv;
    int64_t began_ms;
    char id[FUNCTION_ID_MAX];
};

static void retry_in(struct exec *e, uint32_t tries)
{
    int64_t ms = e->d->retry_ms;

    while (tries-- > 1 && ms < RETRY_MAX_MS)
        ms *= 2;
    e->retry_at_ms = durable_now(e->d) + MIN(ms, (int64_t)RETRY_MAX_MS);
}

static void failed_try(struct exec *e, const struct val *error)
{
    if (++e->fails >= TRIES_MAX)
        exec_finish(e, D_FAILED, NULL, error);
    else
        retry_in(e, e->fails);
}

static void bad_output(struct exec *e, struct arena *a, const char *text)
{
    exec_finish(e, D_FAILED, NULL, error_object(a, "InvalidParameterValueException", text));
}

static void take_pending(struct exec *e, struct arena *a)
{
    if (!e->wants && e->touched <= e->seen && !ops_waiting(e)) {
        if (++e->bad_pending >= BAD_PENDING_MAX)
            bad_output(e, a, "Cannot return PENDING status with no pending operations.");
        else
            retry_in(e, e->bad_pending);
        return;
    }
    e->bad_pending = 0;
    if (e->touched > e->seen)
        e->wants = true;
}

/* What the function answered. */
static void take_output(struct exec *e, struct arena *a, const struct function_result *r)
{
    struct err err;
    struct val *v = json_parse(a, r->payload, r->n, &err);
    const char *status = val_str_at(v, "Status", "");
    const struct val *result = val_get(v, "Result"), *error = val_get(v, "Error");

    e->fails = 0;
    if (streq(status, "PENDING")) {
        take_pending(e, a);
    } else if (streq(status, "SUCCEEDED")) {
        if (!val_is_null(error))
            bad_output(e, a, "Cannot provide an Error for SUCCEEDED status.");
        else if (e->parent && val_is(result, VAL_STR) && result->n > DURABLE_PAYLOAD_MAX)
            exec_finish(e, D_FAILED, NULL, error_object(a, NULL, "Execution output payload size must be less than or equal to 1048576 bytes."));
        else
            exec_finish(e, D_SUCCEEDED, result, NULL);
    } else if (streq(status, "FAILED")) {
        if (!val_is_null(result))
            bad_output(e, a, "Cannot provide a Result for FAILED status.");
        else
            exec_finish(e, D_FAILED, NULL, val_is(error, VAL_MAP) ? error : NULL);
    } else {
        bad_output(e, a, "Invalid Status in invocation output.");
    }
}

static void invocation_event(struct exec *e, const struct run *run, const struct val *error)
{
    struct arena *a = e->ops->a;
    struct val *event = event_add(e, "InvocationCompleted", NULL);

    val_put_int(a, event, "StartTimestamp", run->began_ms);
    val_put_int(a, event, "EndTimestamp", durable_now(e->d));
    val_put_str(a, event, "RequestId", run->id);
    if (error)
        val_put(a, event, "Error", event_payload(a, val_copy(a, error)));
}

/* The function never ran for want of room: no try of it. */
static bool had_no_room(const struct function_result *r)
{
    return r->err.code == ERR_TOO_MANY || r->err.code == ERR_UNAVAILABLE;
}

static void take_result(struct exec *e, const struct run *run, const struct function_result *r)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *error = NULL;

    e->running = false;
    if (r->err.code)
        error = error_object(a, r->err.code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", r->err.msg);
    else if (r->function_error)
        error = error_of_result(a, r);
    if (!had_no_room(r))
        invocation_event(e, run, error);
    if (exec_ended(e))
        return; /* stopped, or out of time, meanwhile */
    if (e->status == D_PAUSING)
        e->status = D_PAUSED;
    if (had_no_room(r)) {
        retry_in(e, (uint32_t)++e->busy_tries);
        return;
    }
    e->busy_tries = 0;
    if (r->err.code)
        exec_finish(e, D_FAILED, NULL, error);
    else if (error)
        failed_try(e, error);
    else
        take_output(e, a, r);
}

static void on_result(void *arg, const struct function_result *r)
{
    struct run *run = arg;
    struct exec *e = run->e;
    struct durable *d = e->d;
    struct err err;

    d->at_work--;
    e->invoked = false;
    /* when it is stopping the invocation is still owed: the record that says it runs stays the last one */
    if (!d->closing && !e->gone && e->running && e->inv == run->inv) {
        if (exec_load(e, &err)) {
            take_result(e, run, r);
            exec_commit(e, NULL);
        } else {
            LOG(ERROR, "function", "execution=%s did=lose error=\"%s\"", e->id, err.msg);
        }
    }
    e->holds--;
    free(run);
    exec_settle(e);
    durable_maybe_closed(d);
}

static char *invocation_payload(struct exec *e, struct arena *a, size_t *ret_n)
{
    struct val *v = val_map(a), *state = val_map(a);
    uint32_t next;

    val_put_str(a, v, "DurableExecutionArn", e->arn);
    val_put_str(a, v, "CheckpointToken", checkpoint_token(e, a));
    val_put(a, state, "Operations", view_page(e, a, 0, 1000, true, &next));
    val_put(a, state, "NextMarker", next ? val_printf(a, "%u", next) : val_lit(a, ""));
    val_put(a, v, "InitialExecutionState", state);
    val_put(a, v, "UpdatedOperationIds", e->ops->updated ? e->ops->updated : val_list(a));
    return json_text(a, v, ret_n);
}

/* The record that says so is on disk. */
static void launch(struct exec *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct durable *d = e->d;
    struct run *run = xcalloc(1, sizeof *run);
    struct function_call c = {.namespace_ = e->ns, .name = e->object, .qualifier = e->version, .arn = view_function_arn(e, a),
                              .trace_id = e->trace, .request_id = run->id, .of_execution = true};

    e->launch = false;
    e->invoked = true;
    uuid_new(run->id);
    run->e = e;
    run->inv = e->inv;
    run->began_ms = durable_now(d);
    c.payload = invocation_payload(e, a, &c.n);
    e->holds++;
    d->at_work++;
    d->invoke(d->arg, &c, on_result, run);
}

/* One invocation more; the caller commits. */
static void invocation_begin(struct exec *e)
{
    struct arena *a = e->ops->a;

    e->wants = false;
    e->running = e->launch = true;
    e->retry_at_ms = 0;
    e->inv++;
    e->inv_ms = durable_now(e->d);
    e->ops->updated = val_list(a);
    VAL_EACH(e->ops->list, op)
        if ((uint64_t)val_int_at(op, "_t", 0) > e->seen)
            val_push(a, e->ops->updated, val_str(a, val_str_at(op, "Id", "")));
    e->seen = e->touched;
}

static bool may_invoke(const struct exec *e)
{
    return e->d->active && !e->d->closing && e->status == D_RUNNING && e->wants && !e->running && !e->retry_at_ms && !e->invoked &&
           e->not_before_ms <= durable_now(e->d);
}

void exec_settle(struct exec *e)
{
    struct durable *d = e->d;
    struct err err;

    if (e->gone) {
        leave_indexes(e);
        if (!e->busy && !e->holds)
            exec_free(e);
        return;
    }
    if (d->closing || e->busy)
        return; /* it comes again when what is under way is on disk */
    e->holds++;
    if (exec_ended(e)) {
        tell_waits(e);
        if (e->parent && !e->told_parent && d->active)
            tell_parent(e);
    } else {
        if (e->launch)
            launch(e);
        if (e->chains && d->active && !e->busy && !exec_ended(e) && (!e->chain_at_ms || e->chain_at_ms <= durable_now(d)))
            chains_begin(e);
        if (!e->busy && may_invoke(e) && exec_load(e, &err)) {
            invocation_begin(e);
            exec_commit(e, NULL);
        }
    }
    e->holds--;
    if (e->gone || e->busy)
        return;
    if (exec_ended(e) || e->ops)
        heap_set(e, MAX(e->wants && e->not_before_ms ? MIN(exec_next(e), e->not_before_ms) : exec_next(e), e->not_before_ms));
    if (!e->running && !e->holds)
        exec_unload(e);
}

/* ---- time ---- */

static void on_due(struct exec *e)
{
    struct durable *d = e->d;
    int64_t now = durable_now(d);
    struct err err;
    bool changed = false, wanted = e->wants;

    heap_set(e, 0);
    e->not_before_ms = 0;
    if (exec_ended(e)) {
        if (!e->holds && !e->busy) {
            LOG(INFO, "function", "execution=%s did=forget why=\"its retention period is over\"", e->id);
            e->gone = true;
            exec_remove_file(e);
        } else {
            heap_set(e, now + 1000);
        }
        exec_settle(e);
        return;
    }
    if (!exec_load(e, &err)) {
        LOG(ERROR, "function", "execution=%s did=load error=\"%s\"", e->id, err.msg);
        heap_set(e, now + 60000);
        return;
    }
    if ((e->clock_left_ms ? e->start_ms + YEAR_DAYS * DAY_MS : e->timeout_at_ms) <= now) {
        _auto_(arena_freep) struct arena *a = arena_new();

        exec_finish(e, D_TIMED_OUT, NULL, error_object(a, NULL, arena_printf(a, "Execution timed out after %d seconds.", e->timeout_s)));
        changed = true;
    } else {
        if (ops_due(e, now))
            changed = e->wants = true;
        if (e->retry_at_ms && e->retry_at_ms <= now) {
            e->retry_at_ms = 0;
            e->wants = true;
        }
    }
    if (e->running && !exec_ended(e))
        e->wants = wanted; /* it hears of it at its next checkpoint, or after this invocation */
    if (changed)
        exec_commit(e, NULL);
    exec_settle(e);
    if (!e->gone && !e->heap_at && !e->busy)
        heap_set(e, exec_next(e));
}

void durable_tick(struct durable *d)
{
    int64_t now = durable_now(d);

    while (d->active && !d->closing && d->heap_n && d->heap[0]->due_ms <= now)
        on_due(d->heap[0]);
    timer_set(d);
}

/* ---- start ---- */

struct starting {
    struct durable_waiter w;
    struct exec *e;
    durable_started_fn *done;
    void *arg;
};

static void on_started(struct durable_waiter *w, const struct err *err)
{
    struct starting *s = container_of(w, struct starting, w);

    s->done(s->arg, err, err->code ? "" : s->e->arn);
    free(s);
}

/* There is one of that name (or id): it is the same when its input is. */
static void started_before(struct exec *e, const char *sha, const struct durable_start *s, durable_started_fn *done, void *arg)
{
    struct starting *x;
    struct err err = {0};

    if (!streq(e->input_sha, sha)) {
        err_set(&err, ALREADY_EXISTS, "Durable execution already started with the name %s and different input.", s->execution ? s->execution : e->name);
        done(arg, &err, e->arn);
        return;
    }
    if (!e->busy) {
        done(arg, &err, e->arn);
        return;
    }
    x = xcalloc(1, sizeof *x);
    *x = (struct starting){.w.fn = on_started, .e = e, .done = done, .arg = arg};
    list_push(e->pending.n ? &e->pending_waiters : &e->writing_waiters, &x->w.link);
}

static void first_record(struct exec *e, const struct durable_start *s, const char *input)
{
    struct arena *a = e->ops->a;
    struct val *op = val_map(a), *event;

    val_put_str(a, op, "Id", e->id);
    val_put_str(a, op, "Name", e->name);
    val_put_str(a, op, "Type", "EXECUTION");
    val_put_int(a, op, "StartTimestamp", e->start_ms);
    val_put_str(a, op, "Status", "STARTED");
    val_put(a, val_need_map(a, op, "ExecutionDetails"), "InputPayload", val_strn(a, input, s->n ? s->n : strlen(input)));
    op_put(e, op);
    op_touched(e, op_at(e, 0));
    e->seen = e->touched;
    event = event_add(e, "ExecutionStarted", op_at(e, 0));
    val_put(a, event, "Input", event_payload(a, val_at(op_at(e, 0), "ExecutionDetails.InputPayload")));
    val_put_int(a, event, "ExecutionTimeout", e->timeout_s);
}

static void start_as(struct durable *d, const struct durable_start *s, const char *id, const char *parent, const char *parent_op,
                     durable_started_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *input = s->n ? s->payload : "{}";
    struct durable_target t = {0};
    struct err err = {0};
    char uuid[FUNCTION_ID_MAX], sha[65];
    struct exec *e;
    struct starting *x;

    sha_hex(input, s->n ? s->n : strlen(input), sha);
    if (!id) {
        uuid_new(uuid);
        id = uuid;
    }
    if (d->closing)
        err_set(&err, UNAVAILABLE, "tandem is stopping");
    else if (d->target(d->arg, s->ns, s->name, s->qualifier, &t, &err) == 0 && s->waits && t.timeout_s > DURABLE_SYNC_MAX_S)
        err_set(&err, INVALID_ARGUMENT, "You cannot synchronously invoke a durable function with an executionTimeout greater than 15 minutes.");
    e = map_get(&d->by_id, id);
    if (!e && s->execution)
        e = map_get(&d->by_name, name_key(a, s->ns, s->name, s->execution));
    if (!err.code && e) {
        started_before(e, sha, s, done, arg);
        return;
    }
    if (!err.code) {
        make_room(d);
        if ((int)d->n >= d->executions_max)
            err_set(&err, TOO_MANY, "%u durable executions are running", d->n);
    }
    if (err.code) {
        done(arg, &err, "");
        return;
    }
    e = exec_new(d, id);
    e->new_file = true;
    e->name = xstrdup(s->execution ? s->execution : id);
    e->ns = xstrdup(s->ns);
    e->object = xstrdup(s->name);
    e->version = xstrdup(t.version);
    e->arn = s->function_arn ? xasprintf("%s:%s/durable-execution/%s/%s", s->function_arn, e->version, e->name, id)
                             : xasprintf("arn:aws:lambda:%s:%s:function:%s:%s/durable-execution/%s/%s", d->region, d->account, s->name,
                                         e->version, e->name, id);
    e->kms_key = t.kms_key ? xstrdup(t.kms_key) : NULL;
    e->trace = s->trace_id ? xstrdup(s->trace_id) : NULL;
    e->parent = parent ? xstrdup(parent) : NULL;
    e->parent_op = parent_op ? xstrdup(parent_op) : NULL;
    memcpy(e->input_sha, sha, sizeof sha);
    e->start_ms = durable_now(d);
    e->timeout_s = t.timeout_s;
    e->retention_days = t.retention_days;
    e->timeout_at_ms = e->start_ms + e->timeout_s * 1000LL;
    ASSERT(exec_load(e, &err));
    first_record(e, s, input);
    into_indexes(e);
    e->wants = true;
    if (may_invoke(e))
        invocation_begin(e);
    x = xcalloc(1, sizeof *x);
    *x = (struct starting){.w.fn = on_started, .e = e, .done = done, .arg = arg};
    exec_commit(e, &x->w);
}

void durable_start(struct durable *d, const struct durable_start *s, durable_started_fn *done, void *arg)
{
    start_as(d, s, NULL, NULL, NULL, done, arg);
}

/* ---- what the SDKs ask ---- */

static bool token_fits(struct exec *e, const char *token)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    return e->running && !exec_ended(e) && streq(checkpoint_token(e, a), token);
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
    struct err ok = {0};

    if (!client_token || !streq(val_str_at(last, "client", ""), client_token) || !streq(val_str_at(last, "token", ""), token))
        return false;
    x = answer_new(done, arg);
    if (val_str_at(last, "next", NULL))
        val_put_str(x->a, x->v, "CheckpointToken", val_str_at(last, "next", ""));
    val_put(x->a, val_need_map(x->a, x->v, "NewExecutionState"), "Operations", unseen(e, x->a, (uint64_t)val_int_at(last, "after", 0)));
    x->v = val_copy(x->a, x->v); /* operations may change before it leaves */
    if (e->busy)
        list_push(e->pending.n ? &e->pending_waiters : &e->writing_waiters, &x->w.link);
    else
        on_answer(&x->w, &ok);
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
    if (e->size + (off_t)e->pending.n > DURABLE_BYTES_MAX)
        err_set(&err, TOO_LARGE, "The execution has written more than %d bytes.", DURABLE_BYTES_MAX);
    if ((err.code || ops_update(e, updates, &err) < 0) && err.code != ERR_TOO_LARGE) {
        done(arg, NULL, &err);
        exec_settle(e);
        return;
    }
    x = answer_new(done, arg);
    e->token++;
    after = e->seen;
    if (err.code == ERR_TOO_LARGE) { /* the execution fails, and its invocation is to stop */
        exec_finish(e, D_FAILED, NULL, error_object(x->a, "InvalidParameterValueException", err.msg));
    } else if (!exec_ended(e)) {
        ops_due(e, durable_now(d));
        if (e->status == D_PAUSING) {
            e->status = D_PAUSED;
            e->wants = true; /* once more from here, when it is resumed */
        } else {
            next = checkpoint_token(e, x->a);
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
    if (!exec_ended(e))
        exec_finish(e, D_STOPPED, NULL, val_len(error) ? error : error_object(x->a, NULL, "Execution stopped by user request"));
    val_put_int(x->a, x->v, "StopTimestamp", e->end_ms);
    answer_commit(e, x);
}

static void put_reason(struct exec *e, struct val *event, const char *reason)
{
    struct arena *a = e->ops->a;

    if (reason)
        val_put(a, event, "Reason", event_payload(a, val_str(a, reason)));
}

void durable_pause(struct durable *d, const char *arn, const char *client_token, const char *reason, bool clock_too, durable_done_fn *done, void *arg)
{
    struct exec *e = need(d, arn, done, arg);
    int64_t now = durable_now(d);
    struct answer *x;
    struct arena *a;
    struct val *event;

    if (!e)
        return;
    a = e->ops->a;
    if (e->status != D_RUNNING) {
        if (!exec_ended(e) && client_token && streq(val_str_at(e->ops->pause, "token", ""), client_token)) {
            answer_commit(e, answer_new(done, arg));
        } else {
            refuse(done, arg, ERR_CONFLICT, exec_ended(e) ? "The durable execution has ended." : "The durable execution is paused already.");
            exec_settle(e);
        }
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
    event = event_add(e, "ExecutionPaused", NULL);
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
            answer_commit(e, answer_new(done, arg));
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
    event = event_add(e, "ExecutionResumed", NULL);
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
    char *text = token_read(a, callback_id), *colon = text ? strchr(text, ':') : NULL;

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
    if (what == DURABLE_HEARTBEAT) {
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

/* ---- life ---- */

struct durable *durable_open(const struct durable_options *o, struct err *err)
{
    struct durable *d = xcalloc(1, sizeof *d);

    d->loop = o->loop;
    d->dir = xstrdup(o->dir);
    d->region = xstrdup(o->region ? o->region : "us-east-1");
    d->account = xstrdup(o->account ? o->account : "000000000000");
    d->executions_max = o->executions_max ? o->executions_max : EXECUTIONS_MAX;
    d->retry_ms = o->retry_ms ? o->retry_ms : RETRY_MS;
    d->now = o->now_ms;
    d->invoke = o->invoke;
    d->target = o->target;
    d->arg = o->arg;
    list_init(&d->all);
    if (durable_read_all(d, err) < 0) {
        LIST_EACH(&d->all, l)
        exec_free(list_entry(l, struct exec, link));
        free(d->dir);
        free(d->region);
        free(d->account);
        map_done(&d->by_id);
        map_done(&d->by_name);
        free(d->heap);
        free(d);
        return NULL;
    }
    if (d->n)
        LOG(INFO, "function", "did=read-executions n=%u running=%u", d->n, d->running_n);
    uv_timer_init(d->loop, &d->timer);
    d->timer.data = d;
    uv_unref((uv_handle_t *)&d->timer);
    return d;
}

static void on_active(uv_timer_t *t)
{
    struct durable *d = t->data;

    d->active = true;
    LIST_EACH(&d->all, l)
    {
        struct exec *e = list_entry(l, struct exec, link);

        if (!exec_ended(e) && (e->wants || e->chains))
            exec_settle(e);
    }
    durable_tick(d);
}

void durable_run(struct durable *d, int after_ms)
{
    if (after_ms <= 0) {
        on_active(&d->timer);
        return;
    }
    uv_timer_start(&d->timer, on_active, (uint64_t)after_ms, 0);
    uv_unref((uv_handle_t *)&d->timer);
}

void durable_maybe_closed(struct durable *d)
{
    void (*closed)(void *);
    void *arg;

    if (!d->closing || d->at_work || !d->timer_closed)
        return;
    LIST_EACH(&d->all, l)
    exec_free(list_entry(l, struct exec, link));
    closed = d->closed;
    arg = d->closed_arg;
    map_done(&d->by_id);
    map_done(&d->by_name);
    map_done(&d->chained);
    free(d->heap);
    free(d->dir);
    free(d->region);
    free(d->account);
    free(d);
    if (closed)
        closed(arg);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct durable *d = h->data;

    d->timer_closed = true;
    durable_maybe_closed(d);
}

void durable_close(struct durable *d, void (*closed)(void *arg), void *arg)
{
    struct function_result r = {0};

    d->closing = true;
    d->closed = closed;
    d->closed_arg = arg;
    err_set(&r.err, UNAVAILABLE, "tandem is stopping");
    LIST_EACH(&d->all, l)
    {
        struct exec *e = list_entry(l, struct exec, link);
        struct list *k;

        while ((k = list_first(&e->waits))) {
            struct wait *w = list_entry(k, struct wait, link);

            list_remove(k);
            w->done(w->arg, &r);
            free(w);
        }
    }
    uv_close((uv_handle_t *)&d->timer, on_timer_closed);
}
