/* Executions: how they start, when their function is invoked, what comes of it, how they end. */
#include "function/durable/durable_int.h"

#include "base/log.h"
#include "env/random.h"

#include <openssl/evp.h>
#include <stdio.h>

enum {
    EXECUTIONS_MAX = 200000,
    RETRY_MS = 1000,
    RETRY_MAX_MS = 60000,
    TRIES_MAX = 5,       /* of an invocation that fails, in a row; then the execution does */
    KNOWN_MS = 60000,    /* until functions of an earlier life are known for sure */
    LOAD_RETRY_MS = 60000, /* a file that cannot be read is tried again */
    BUSY_TRIES = 4,      /* the wait for room is not doubled more often */
    BAD_PENDING_MAX = 3, /* PENDING with nothing to wait for, in a row: an SDK may lose that race once */
};

const char *const durable_status_names[D_STATUSES] = {"RUNNING", "PAUSING", "PAUSED", "SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED"};

/* ---- small things ---- */

char *exec_token_text(struct arena *a, const char *text)
{
    size_t n = strlen(text);
    char *out = arena_raw(a, n * 4 / 3 + 5);

    EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)text, (int)n);
    return out;
}

char *exec_token_read(struct arena *a, const char *token)
{
    size_t n = strlen(token), pad = n && token[n - 1] == '=' ? 1u + (n > 1 && token[n - 2] == '=') : 0;
    char *out = arena_alloc(a, n + 4);
    int got = n % 4 || n > 4096 ? -1 : EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)token, (int)n);

    if (got < (int)pad || strlen(out) < (size_t)got - pad)
        return NULL;
    out[(size_t)got - pad] = 0;
    return out;
}

char *exec_token(const struct exec *e, struct arena *a)
{
    return exec_token_text(a, arena_printf(a, "%s:%u:%u", e->id, e->inv, e->token));
}

static void sha_hex(const void *p, size_t n, char out[65])
{
    unsigned char md[32];

    ASSERT(EVP_Digest(p, n, md, NULL, EVP_sha256(), NULL) == 1);
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", md[i]);
}

char *exec_id_from(struct arena *a, const char *text)
{
    char hex[65];

    sha_hex(text, strlen(text), hex);
    return arena_printf(a, "%.8s-%.4s-4%.3s-8%.3s-%.12s", hex, hex + 8, hex + 12, hex + 15, hex + 18);
}

/* ---- the end ---- */

void exec_unlaunch(struct exec *e)
{
    if (!e->launch || e->invoked)
        return;
    e->launch = e->running = false;
    e->wants = true;
}

void exec_finish(struct exec *e, enum durable_status status, const struct val *result, const struct val *error)
{
    static const char *const events[D_STATUSES] = {[D_SUCCEEDED] = "ExecutionSucceeded", [D_FAILED] = "ExecutionFailed",
        [D_TIMED_OUT] = "ExecutionTimedOut", [D_STOPPED] = "ExecutionStopped"};
    struct arena *a = e->ops->a;
    struct val *event, *op = op_at(e, 0);

    ASSERT(!exec_ended(e) && status >= D_SUCCEEDED);
    e->status = status;
    e->end_ms = durable_now(e->d);
    exec_unlaunch(e);
    e->wants = false;
    e->retry_at_ms = e->chain_at_ms = e->clock_left_ms = 0;
    exec_count_end(e, true);
    e->ops->pause = NULL;
    if (status == D_SUCCEEDED)
        e->ops->result = val_is(result, VAL_STR) ? val_copy(a, result) : NULL;
    else
        e->ops->error = error ? val_copy(a, error) : val_map(a);
    event = op_event_add(e, events[status], NULL);
    val_put_str(a, &e->ops->events->items[e->ops->events->n - 1], "Id", e->id);
    val_put_str(a, &e->ops->events->items[e->ops->events->n - 1], "Name", e->name);
    event = val_get(&e->ops->events->items[e->ops->events->n - 1], arena_printf(a, "%sDetails", events[status]));
    if (status == D_SUCCEEDED)
        val_put(a, event, "Result", op_event_payload(a, e->ops->result));
    else
        val_put(a, event, "Error", op_event_payload(a, e->ops->error));
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

    if (e->status == D_SUCCEEDED) {
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

void exec_waits_fail(struct exec *e, const struct err *err)
{
    struct function_result r = {.err = *err};
    struct list *l;

    while (exec_ended(e) && (l = list_first(&e->waits))) {
        struct wait *w = list_entry(l, struct wait, link);

        list_remove(l);
        w->done(w->arg, &r);
        free(w);
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
    if (exec_ended(e) && !e->busy && e->ops && !e->reread) {
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
    if (e->reread || exec_ended(e))
        exec_load_begin(e);
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

/* ---- invocations ---- */

struct run {
    struct exec_wait w;
    struct arena *a; /* of what it answered, when that has to wait */
    struct function_result r;
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
    exec_finish(e, D_FAILED, NULL, exec_error_object(a, "InvalidParameterValueException", text));
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
            exec_finish(e, D_FAILED, NULL, exec_error_object(a, NULL, "Execution output payload size must be less than or equal to 1048576 bytes."));
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
    struct val *event = op_event_add(e, "InvocationCompleted", NULL);

    val_put_int(a, event, "StartTimestamp", run->began_ms);
    val_put_int(a, event, "EndTimestamp", durable_now(e->d));
    val_put_str(a, event, "RequestId", run->id);
    if (error)
        val_put(a, event, "Error", op_event_payload(a, val_copy(a, error)));
}

bool durable_no_room(const struct durable *d, const struct err *err)
{
    return err->code == ERR_TOO_MANY || err->code == ERR_UNAVAILABLE ||
           (err->code == ERR_NOT_FOUND && durable_now(d) - d->active_ms < KNOWN_MS);
}

static void take_result(struct exec *e, const struct run *run, const struct function_result *r)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *error = NULL;

    e->running = false;
    if (r->err.code)
        error = exec_error_object(a, r->err.code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", r->err.msg);
    else if (r->function_error)
        error = exec_result_error(a, r);
    invocation_event(e, run, error);
    if (exec_ended(e))
        return; /* stopped, or out of time, meanwhile */
    if (e->status == D_PAUSING)
        e->status = D_PAUSED;
    e->busy_tries = 0;
    if (r->err.code)
        exec_finish(e, D_FAILED, NULL, error);
    else if (error)
        failed_try(e, error);
    else
        take_output(e, a, r);
}

/* There was no room for it, which is no fault of its own: the record that it runs is true still, so nothing is written. */
static void launch_later(struct exec *e)
{
    int64_t ms = e->d->retry_ms;

    for (int i = 0; i < MIN(e->busy_tries, (int)BUSY_TRIES - 1); i++)
        ms *= 2;
    e->busy_tries++;
    e->launch = true;
    e->launch_at_ms = durable_now(e->d) + MIN(ms, (int64_t)RETRY_MAX_MS);
    if (e->status != D_PAUSING)
        return;
    exec_unlaunch(e);
    e->status = D_PAUSED;
    exec_commit(e, NULL);
}

static void run_over(struct run *run, const struct function_result *r, bool lost)
{
    struct exec *e = run->e;
    struct durable *d = e->d;

    e->invoked = false;
    /* when it is stopping the invocation is still owed: the record that says it runs stays the last one */
    if (!d->closing && !e->gone && !lost && e->running && e->inv == run->inv) {
        if (durable_no_room(d, &r->err)) {
            if (exec_ended(e))
                e->running = false;
            else
                launch_later(e);
        } else {
            take_result(e, run, r);
            exec_commit(e, NULL);
        }
    }
    e->holds--;
    if (run->a)
        arena_free(run->a);
    free(run);
    exec_settle(e);
}

static void on_result_loaded(struct exec_wait *w, const struct err *err)
{
    struct run *run = container_of(w, struct run, w);

    if (err->code)
        LOG(ERROR, "function", "execution=%s did=lose error=\"%s\"", run->e->id, err->msg);
    run_over(run, &run->r, err->code != 0);
}

static void on_result(void *arg, const struct function_result *r)
{
    struct run *run = arg;
    struct exec *e = run->e;
    struct durable *d = e->d;

    d->at_work--;
    if (exec_ready(e) || d->closing || e->gone) {
        run_over(run, r, !e->ops);
    } else { /* the disk refused something meanwhile: what is true is being read */
        run->a = arena_new();
        run->r = (struct function_result){.err = r->err, .n = r->n, .payload = r->payload ? arena_strndup(run->a, r->payload, r->n) : NULL,
                                          .function_error = r->function_error ? "Unhandled" : NULL};
        run->w.run = on_result_loaded;
        exec_with_ops(e, &run->w);
    }
    durable_maybe_closed(d);
}

static char *invocation_payload(struct exec *e, struct arena *a, size_t *ret_n)
{
    struct val *v = val_map(a), *state = val_map(a), *updated = val_list(a);
    uint32_t next;

    val_put_str(a, v, "DurableExecutionArn", e->arn);
    val_put_str(a, v, "CheckpointToken", exec_token(e, a));
    val_put(a, state, "Operations", view_page(e, a, 0, 1000, true, &next));
    val_put(a, state, "NextMarker", next ? val_printf(a, "%u", next) : val_lit(a, ""));
    val_put(a, v, "InitialExecutionState", state);
    VAL_EACH(e->ops->list, op)
        if ((uint64_t)val_int_at(op, "_t", 0) > e->told)
            val_push(a, updated, val_str(a, val_str_at(op, "Id", "")));
    val_put(a, v, "UpdatedOperationIds", updated);
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
    e->launch_at_ms = 0;
    e->invoked = true;
    e->seen = e->touched;
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
    e->wants = false;
    e->running = e->launch = true;
    e->launch_at_ms = 0;
    e->retry_at_ms = 0;
    e->inv++;
    e->inv_ms = durable_now(e->d);
    e->told = e->seen;
    e->seen = e->touched;
}

static bool may_launch(const struct exec *e)
{
    return e->launch && !e->invoked && e->d->active && e->status <= D_PAUSING && e->launch_at_ms <= durable_now(e->d);
}

static bool may_invoke(const struct exec *e)
{
    return e->d->active && !e->d->closing && e->status == D_RUNNING && e->wants && !e->running && !e->retry_at_ms && !e->invoked &&
           e->not_before_ms <= durable_now(e->d);
}

/* Is there something to do for which its operations are needed? */
static bool needs_ops(struct exec *e)
{
    if (!exec_ended(e))
        return may_launch(e) || may_invoke(e);
    if (e->parent && !e->told_parent && !exec_find(e->d, e->parent))
        e->told_parent = true;
    return !list_empty(&e->waits) || (e->parent && !e->told_parent && e->d->active);
}

static void settle_ended(struct exec *e)
{
    tell_waits(e);
    if (e->parent && !e->told_parent && e->d->active)
        exec_tell_parent(e);
}

static void settle_running(struct exec *e)
{
    struct durable *d = e->d;
    struct err err;

    if (may_launch(e))
        launch(e);
    if (e->chains && d->active && !e->busy && !exec_ended(e) && (!e->chain_at_ms || e->chain_at_ms <= durable_now(d)))
        exec_chains(e);
    if (e->busy || !may_invoke(e))
        return;
    if (exec_full(e, &err))
        exec_finish(e, D_FAILED, NULL, exec_error_object(e->ops->a, "InvalidParameterValueException", err.msg));
    else
        invocation_begin(e);
    exec_commit(e, NULL);
}

void exec_settle(struct exec *e)
{
    struct durable *d = e->d;

    if (e->gone) {
        exec_leave(e);
        if (!e->busy && !e->holds)
            exec_free(e);
        return;
    }
    if (d->closing || e->busy || e->loading)
        return; /* it comes again when what is under way is over */
    if (e->reread || (!e->ops && needs_ops(e))) {
        if (e->not_before_ms > durable_now(d))
            exec_heap_set(e, e->not_before_ms);
        else
            exec_load_begin(e);
        return;
    }
    e->holds++;
    if (e->ops && exec_ended(e))
        settle_ended(e);
    else if (e->ops)
        settle_running(e);
    e->holds--;
    if (e->gone || e->busy)
        return;
    if (exec_ended(e) || e->ops)
        exec_heap_set(e, MAX(e->wants && e->not_before_ms ? MIN(exec_next(e), e->not_before_ms) : exec_next(e), e->not_before_ms));
    if (!e->invoked && !e->holds)
        exec_unload(e);
}

/* ---- time ---- */

static void on_due(struct exec *e);

static void on_due_loaded(struct exec_wait *w, const struct err *err)
{
    struct exec *e = w->e;

    e->due_waits = false;
    if (e->gone || e->d->closing)
        return;
    if (err->code)
        exec_heap_set(e, durable_now(e->d) + LOAD_RETRY_MS);
    else
        on_due(e);
}

static void ended_due(struct exec *e, int64_t now)
{
    if (e->holds || e->busy) {
        exec_heap_set(e, now + 1000);
        return;
    }
    if (e->end_ms + e->retention_days * DAY_MS > now) { /* only a disk that refused */
        exec_settle(e);
        return;
    }
    LOG(INFO, "function", "execution=%s did=forget why=\"its retention period is over\"", e->id);
    exec_drop(e, false, NULL, NULL);
}

static void on_due(struct exec *e)
{
    struct durable *d = e->d;
    int64_t now = durable_now(d);
    bool changed = false, wanted = e->wants;

    exec_heap_set(e, 0);
    e->not_before_ms = 0;
    if (exec_ended(e) && !e->reread) {
        ended_due(e, now);
        return;
    }
    if (!e->ops) {
        e->due_wait.run = on_due_loaded;
        if (!e->due_waits) {
            e->due_waits = true;
            exec_with_ops(e, &e->due_wait);
        }
        return;
    }
    if ((e->clock_left_ms ? e->start_ms + YEAR_DAYS * DAY_MS : e->timeout_at_ms) <= now) {
        _auto_(arena_freep) struct arena *a = arena_new();

        exec_finish(e, D_TIMED_OUT, NULL, exec_error_object(a, NULL, arena_printf(a, "Execution timed out after %d seconds.", e->timeout_s)));
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
    if (!e->gone && !e->heap_at && !e->busy && e->ops)
        exec_heap_set(e, exec_next(e));
}

void durable_tick(struct durable *d)
{
    int64_t now = durable_now(d);

    while (d->active && !d->closing && d->heap_n && d->heap[0]->due_ms <= now)
        on_due(d->heap[0]);
    durable_timer(d);
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
    op_put(e->ops, op);
    op_touched(e, op_at(e, 0));
    e->seen = e->touched;
    event = op_event_add(e, "ExecutionStarted", op_at(e, 0));
    val_put(a, event, "Input", op_event_payload(a, val_at(op_at(e, 0), "ExecutionDetails.InputPayload")));
    val_put_int(a, event, "ExecutionTimeout", e->timeout_s);
}

/* Who named none is called by its id. */
static struct exec *find_named(struct durable *d, const struct durable_start *s)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct exec *e = map_get(&d->by_name, exec_name_key(a, s->ns, s->name, s->execution));

    e = e ? e : exec_find(d, s->execution);
    return e && streq(e->name, s->execution) && streq(e->ns, s->ns) && streq(e->object, s->name) ? e : NULL;
}

void durable_start_as(struct durable *d, const struct durable_start *s, const char *id, const char *parent, const char *parent_op,
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
    if (e && e->gone) { /* its file would take the new one's place */
        e = NULL;
        err_set(&err, UNAVAILABLE, "the execution %s is being deleted", id);
    }
    if (!e && s->execution)
        e = find_named(d, s);
    if (!err.code && e) {
        started_before(e, sha, s, done, arg);
        return;
    }
    if (!err.code) {
        durable_make_room(d);
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
    exec_ops_new(e);
    first_record(e, s, input);
    exec_enter(e);
    e->wants = true;
    if (may_invoke(e))
        invocation_begin(e);
    x = xcalloc(1, sizeof *x);
    *x = (struct starting){.w.fn = on_started, .e = e, .done = done, .arg = arg};
    exec_commit(e, &x->w);
}

void durable_start(struct durable *d, const struct durable_start *s, durable_started_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    durable_start_as(d, s, s->from ? exec_id_from(a, arena_printf(a, "%s/%s/%s", s->ns, s->name, s->from)) : NULL, NULL, NULL, done, arg);
}

/* ---- life ---- */

static void durable_free(struct durable *d)
{
    LIST_EACH(&d->all, l)
    exec_free(list_entry(l, struct exec, link));
    map_done(&d->by_id);
    map_done(&d->by_name);
    map_done(&d->by_function); /* the last execution took the series with it */
    map_done(&d->chained);
    free(d->heap);
    free(d->dir);
    free(d->region);
    free(d->account);
    free(d);
}

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
    list_init(&d->ended);
    list_init(&d->jobs);
    if (durable_read_all(d, err) < 0) {
        durable_free(d);
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
    d->active_ms = durable_now(d);
    LIST_EACH(&d->all, l)
    {
        struct exec *e = list_entry(l, struct exec, link);

        if (!exec_ended(e) && (e->wants || e->chains))
            exec_heap_set(e, d->active_ms); /* not here: a child that begins may make others of the list go */
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
    closed = d->closed;
    arg = d->closed_arg;
    durable_free(d);
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
