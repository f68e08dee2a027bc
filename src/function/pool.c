/* Who answers a call: an idle instance, a fresh fork, or the waiting room.
 *
 * All of it is decided here, in memory, when the call comes and when something becomes free. Limits
 * are on calls at work or waiting: reservedConcurrency of the function, the account's for all. A
 * burst does not fork more than STARTING_MAX at once from one zygote; the others wait and go to
 * whoever is free first, a fork or an instance that has finished. How fast a function grows has a limit, too (rate.c),
 * and how many short calls are at work at once (gate.c): who waits for that is looked at when a call ends and by a timer of a
 * millisecond, which runs only while somebody waits so. */
#include "function/function_int.h"

#include "base/log.h"
#include "env/random.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void call_free(struct call *c)
{
    free(c->arn_own);
    free(c->client_context);
    free(c->trace_id);
    trace_span_free(c->span);
    free(c->alias_series);
    free(c->payload);
    free(c->content_type);
    buf_done(&c->pieces);
    buf_done(&c->tail);
    free(c);
}

static void call_leave(struct call *c)
{
    struct function *f = c->f;

    if (list_linked(&c->link)) {
        list_remove(&c->link);
        f->waiting_n--;
        f->fs->waiting--;
    }
    f->busy--;
    scale_seen(f, -1);
    f->family->busy--;
    f->fs->busy -= c->counted;
    if (!f->busy)
        f->quiet_since_us = now_us();
}

/* The last step of every call: nothing of the pool is touched after done(). */
void pool_end(struct call *c, struct function_result *r)
{
    struct function *f = c->f;
    struct functions *fs = f->fs;
    struct function_span *span = STEAL(c->span);

    r->request_id = c->id;
    r->trace = &c->trace;
    r->trace_text = c->trace_id;
    r->span = span;
    if (span)
        trace_span_result(span, r);
    r->version = r->version ? r->version : "$LATEST";
    if (c->want_tail) {
        r->log_tail_n = MIN(c->tail.n, (size_t)FUNCTION_LOG_TAIL_MAX);
        r->log_tail = c->tail.n ? c->tail.p + c->tail.n - r->log_tail_n : "";
    }
    call_leave(c);
    if (f->fs->judged == c)
        f->fs->judged = NULL;
    if (c->done)
        c->done(c->arg, r);
    trace_span_end(fs, span);
    call_free(c);
    function_let_go(f);
}

void pool_refuse(struct call *c, const struct err *err)
{
    struct function_result r = {.err = *err, .queue_us = now_us() - c->since_us};

    pool_end(c, &r);
}

void pool_fail_waiting(struct function *f, const struct err *err)
{
    struct list *l;

    f->busy++; /* f stays while its calls are ended */
    f->fs->busy++;
    while ((l = list_first(&f->waiting)))
        pool_refuse(list_entry(l, struct call, link), err);
    f->busy--;
    f->fs->busy--;
    function_let_go(f);
}

const char *const function_rung_names[FUNCTION_RUNGS] = {"warm", "stem", "zygote", "runtime", "fresh"};

/* Digits of 0 to 10^15 - 1, which is 31 years of microseconds; the end. */
char *function_put_number(char *at, int64_t v)
{
    char text[16], *p = text + sizeof text;
    uint64_t u = (uint64_t)MAX(MIN(v, (int64_t)999999999999999), (int64_t)0);

    do {
        *--p = (char)('0' + u % 10);
    } while (u /= 10);
    memcpy(at, p, (size_t)(text + sizeof text - p));
    at += text + sizeof text - p;
    *at = 0;
    return at;
}

/* Without printf: one is made for each call, and one for its REPORT. */
void function_timing_text(const struct function_result *r, char out[FUNCTION_TIMING_MAX])
{
    int64_t answer = MAX(r->duration_us - r->start_us - r->init_us - r->handler_us, (int64_t)0);
    char *at = stpcpy(stpcpy(out, "rung="), function_rung_names[r->rung]);

    at = function_put_number(stpcpy(at, ";queue="), r->queue_us);
    at = function_put_number(stpcpy(at, ";place="), r->place_us);
    at = function_put_number(stpcpy(at, ";fork="), r->start_us);
    at = function_put_number(stpcpy(at, ";init="), r->init_us);
    at = function_put_number(stpcpy(at, ";handler="), r->handler_us);
    at = function_put_number(stpcpy(at, ";answer="), answer);
    at = function_put_number(stpcpy(at, ";total="), r->queue_us + r->place_us + r->duration_us);
    stpcpy(at, r->cold ? ";cold=1" : ";cold=0");
}

/* ---- dispatch ---- */

/* One who is given several calls at once does that himself. */
static bool has_gate(const struct version *v)
{
    return v->places == 1 && !v->http_port && !v->f->debug;
}

bool pool_gated(const struct version *v)
{
    return has_gate(v) && gate_shut(&v->gate);
}

static void on_gate(uv_timer_t *t)
{
    struct functions *fs = t->data;
    struct list end = {0}, *l;

    list_push(&fs->gated, &end); /* who still waits comes behind it */
    while ((l = list_first(&fs->gated)) != &end) {
        struct function *f = list_entry(l, struct function, gated);

        list_remove(&f->gated);
        f->busy++; /* stays while we look at it */
        if (f->now)
            gate_look(&f->now->gate);
        pool_feed(f);
        f->busy--;
        function_let_go(f);
    }
    list_remove(&end);
}

/* An answer, or a millisecond later the timer, looks again. */
static void wait_at_gate(struct function *f)
{
    struct functions *fs = f->fs;

    if (!list_linked(&f->gated))
        list_push(&fs->gated, &f->gated);
    if (!fs->stopping && !uv_is_active((uv_handle_t *)&fs->gate))
        uv_timer_start(&fs->gate, on_gate, 1, 0);
}

/* The instance that was used last, else (grow: it may take up a new one) one that was forked ahead. */
static struct instance *take_free(struct version *v, bool grow)
{
    struct list *l = list_first(&v->idle);

    if (!l && grow)
        l = list_first(&v->stems);
    return l ? list_entry(l, struct instance, free) : NULL;
}

static enum function_rung rung_of(const struct instance *i, const struct call *c)
{
    enum function_rung rung = i->ahead ? FUNCTION_STEM : i->v->forks ? FUNCTION_ZYGOTE : FUNCTION_FRESH;

    if (i->warm)
        return FUNCTION_WARM;
    return c->for_zygote ? MAX(rung, i->v->zygote_rung) : rung;
}

static int give(struct instance *i, struct call *c, const void *payload, size_t n)
{
    struct version *v = i->v;
    int64_t now = now_us();

    v->used_us = now;
    if (c->on_place) {
        c->rung = rung_of(i, c);
        if (list_linked(&c->link)) {
            list_remove(&c->link);
            c->f->waiting_n--;
            c->f->fs->waiting--;
        }
        serve_take(i, c);
        pool_refill_soon(i->v->f->fs);
        return 0;
    }
    if ((i->init_ahead || i->restored) && !i->inited && !c->payload) { /* it may yet turn out to be of no use */
        c->payload = xmalloc(n + 1);
        if (n)
            memcpy(c->payload, payload, n);
        c->n = n;
        payload = c->payload;
    }
    if (instance_send(i, c, payload, n) < 0)
        return -1;
    if (has_gate(v))
        gate_in(&v->gate, &c->pass, i->warm, v->start_us, now);
    c->rung = rung_of(i, c);
    if (list_linked(&c->link)) {
        list_remove(&c->link);
        c->f->waiting_n--;
        c->f->fs->waiting--;
    }
    flog_start(i, c);
    if (!i->warm)
        pool_refill_soon(c->f->fs);
    return 0;
}

void pool_again(struct call *c)
{
    struct err err;

    if (c->f->removed || !c->f->now) {
        err_set(&err, NOT_FOUND, "Function not found: %s", c->f->name);
        pool_refuse(c, &err);
        return;
    }
    list_push_front(&c->f->waiting, &c->link);
    c->f->waiting_n++;
    c->f->fs->waiting++;
    pool_feed(c->f);
}

/* It had left the waiting room for an instance that never came to be. */
static void wait_again(struct call *c, const void *payload, size_t n)
{
    if (c->payload == payload && payload) {
        list_push_front(&c->f->waiting, &c->link);
        c->f->waiting_n++;
        c->f->fs->waiting++;
    }
}

/* 1: somebody has it; 0: it must wait; -1: it cannot be served, err says why. */
static int try_serve(struct version *v, struct call *c, const void *payload, size_t n, struct err *err)
{
    enum gate_says gate = has_gate(v) ? gate_ask(&v->gate, c->since_us, now_us()) : GATE_ANY;
    struct instance *i;
    bool grow;
    int ready;

    if (gate == GATE_WAIT) {
        wait_at_gate(v->f);
        return 0;
    }
    grow = gate == GATE_ANY && function_may_grow(v);
    c->place_us = c->for_zygote ? MAX(c->since_us, v->zygote_since_us) : now_us();
    while ((i = take_free(v, grow))) {
        bool fresh = i->state == INSTANCE_STEM;

        if (give(i, c, payload, n) < 0)
            continue;
        if (fresh)
            function_grew(v);
        return 1;
    }
    if (gate == GATE_WARM)
        wait_at_gate(v->f);
    else
        v->f->slowed |= !grow;
    if (!grow || v->zygote != ZYGOTE_READY || v->starting_n >= STARTING_MAX || scale_full(v) || snapshot_awaited(v))
        return 0;
    if (!capacity_room(v)) {
        capacity_wait(v);
        return 0;
    }
    ready = functions_net_ready(v, err);
    i = ready > 0 ? instance_make(v, false, err) : NULL;
    if (ready == 0)
        return 0;
    if (!i)
        return v->instances_n ? 0 : -1; /* out of something: who is at work will be free again */
    if (give(i, c, payload, n) < 0)
        return 0;
    if (instance_launch(i, err) < 0) {
        wait_again(c, payload, n);
        return v->instances_n > 1 ? 0 : -1;
    }
    function_grew(v);
    capacity_grew(v);
    return 1;
}

void pool_feed(struct function *f)
{
    struct version *v = f->now;
    struct list *l;

    if (!v || f->fs->stopping)
        return;
    if (f->waiting_n && v->zygote == ZYGOTE_NONE) {
        zygote_start(v);
        return;
    }
    while ((l = list_first(&f->waiting))) {
        struct call *c = list_entry(l, struct call, link);
        struct err err;
        int r = try_serve(v, c, c->payload, c->n, &err);

        if (r == 0)
            return;
        if (r < 0) {
            err.code = ERR_UNAVAILABLE;
            pool_fail_waiting(f, &err);
            return;
        }
    }
}

void pool_finish(struct instance *i, struct call *c, struct function_result *r)
{
    struct version *v = i->v;
    struct function *f = c->f;
    int64_t handler_us = MAX(r->duration_us - r->start_us - r->init_us, (int64_t)0);
    int64_t billed_us = handler_us + (i->restored ? MIN(i->hooks_us, r->init_us) : r->init_us);
    uint64_t billed_ms = instance_shared(i) ? 0 : (uint64_t)(billed_us + 999) / 1000; /* else the instance is: serve.c */

    r->rung = c->rung;
    r->queue_us = c->place_us - c->since_us;
    r->place_us = c->sent_us - c->place_us;
    if (r->rung == FUNCTION_ZYGOTE || (r->rung == FUNCTION_FRESH && !c->for_zygote))
        forecast_start(v, r->place_us + r->start_us + r->init_us);
    r->version = v->shown;
    if (r->err.code == ERR_OK) {
        flog_report(i, c, r, handler_us, billed_ms);
        meter_call(f, r, handler_us, billed_ms, i->memory_kb, c->alias_series);
    }
    if (has_gate(v))
        gate_seen(&v->gate, &c->pass, r->handler_us ? r->handler_us : handler_us, r->duration_us);
    v->used_us = now_us();
    if (i->state == INSTANCE_BUSY) {
        if (v->removed || f->fs->keep_ms < 0) {
            instance_kill(i);
        } else {
            i->state = INSTANCE_IDLE;
            i->idle_since_us = v->used_us;
            list_push_front(&v->idle, &i->free);
            if (f->waiting_n)
                pool_feed(f);
        }
    }
    if (instance_shared(i) && i->state == INSTANCE_IDLE) {
        if (f->fs->keep_ms < 0 && !i->leases_n)
            instance_kill(i);
        else if (f->waiting_n)
            pool_feed(f);
    }
    pool_end(c, r);
}

/* ---- calls ---- */

static char *dup_or_null(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

/* Of a call whose caller did not name one. */
static const char *function_arn(struct function *f)
{
    if (!f->arn)
        f->arn = xasprintf("arn:aws:lambda:%s:%s:function:%s", f->fs->region, f->fs->account, f->name);
    return f->arn;
}

static struct call *call_new(struct function *f, const struct function_call *q, function_done_fn *done, void *arg)
{
    struct call *c = xcalloc(1, sizeof *c);
    struct functions *fs = f->fs;
    struct meter *m = f->m;
    char text[TRACE_TEXT_MAX];

    c->f = f;
    if (q->request_id)
        snprintf(c->id, sizeof c->id, "%s", q->request_id);
    else
        uuid_new(c->id);
    c->arn = q->arn ? (c->arn_own = xstrdup(q->arn)) : function_arn(f);
    c->client_context = dup_or_null(q->client_context);
    trace_begin(&c->trace, f->now, q, false, text);
    c->trace_id = xstrdup(text);
    c->span = trace_span(&c->trace, f->now, q);
    c->alias_series = meter_alias(f, q->qualifier);
    c->done = done;
    c->arg = arg;
    c->want_tail = q->log_tail;
    c->stream = q->stream;
    c->on_place = q->place;
    buf_init(&c->pieces, FUNCTION_PAYLOAD_MAX + 100);
    c->since_us = now_us();
    if (!f->busy && f->quiet_since_us)
        m->gaps[gap_bin((uint64_t)(c->since_us - f->quiet_since_us) / 1000)]++;
    f->busy++;
    pool_wake(fs);
    scale_seen(f, 1);
    f->family->busy++;
    c->counted = !c->on_place && f->now->places == 1; /* others are not instances at work: they have a limit of their own */
    fs->busy += c->counted;
    m->concurrency_peak = MAX(m->concurrency_peak, (uint64_t)f->busy);
    forecast_seen(f);
    return c;
}

/* f: NULL when there is none of that name. */
static void refuse(struct functions *fs, struct function *f, const struct function_call *q, function_done_fn *done, void *arg,
                   struct function_result *r)
{
    char id[FUNCTION_ID_MAX], text[TRACE_TEXT_MAX];
    struct function_trace t;

    if (q->request_id)
        snprintf(id, sizeof id, "%s", q->request_id);
    else
        uuid_new(id);
    r->request_id = id;
    r->version = "$LATEST";
    if (f && f->now && fs->tracing.span) {
        trace_begin(&t, f->now, q, false, text);
        r->trace = &t;
        r->trace_text = text;
        r->span = trace_span(&t, f->now, q);
    }
    if (r->span)
        trace_span_result(r->span, r);
    done(arg, r);
    trace_span_end(fs, r->span);
}

static bool throttled(struct function *f, const char *qualifier, struct function_result *r)
{
    struct functions *fs = f->fs;
    uint32_t each = (uint32_t)f->now->places; /* limits are on instances */

    if (spending_stops(f, &r->err)) {
        r->throttle_reason = "SpendingLimitReached";
    } else if (f->family->reserved >= 0 && f->family->busy >= f->family->reserved * each) {
        err_set(&r->err, TOO_MANY, "Rate Exceeded.");
        r->throttle_reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    } else if ((f->now->places > 1 || f->now->http_port ? f->busy : fs->busy) >= (uint32_t)fs->concurrency_max * each || fs->waiting >= (uint32_t)fs->waiting_max) {
        err_set(&r->err, TOO_MANY, "Rate Exceeded.");
        r->throttle_reason = "ConcurrentInvocationLimitExceeded";
    } else if (function_grows_too_fast(f->now)) {
        err_set(&r->err, TOO_MANY, "Rate Exceeded.");
        r->throttle_reason = "FunctionInvocationRateLimitExceeded";
    } else if (capacity_refuses(f->now)) {
        err_set(&r->err, TOO_MANY, "Rate Exceeded: the machine's memory is reserved for pods.");
        r->throttle_reason = "ConcurrentInvocationLimitExceeded";
    } else {
        return false;
    }
    meter_throttle(f, qualifier);
    return true;
}

uint64_t function_invoke(struct functions *fs, const struct function_call *q, function_done_fn *done, void *arg)
{
    struct function *f = function_route(fs, q->namespace_, q->name, q->qualifier);
    struct function_result r = {0};
    struct version *v;
    struct call *c;
    int served;

    if (f && f->family->debug && !f->debug && streq(f->shown, "$LATEST") && debug_wanted(f, q))
        f = f->family->debug;
    if (fs->stopping)
        err_set(&r.err, UNAVAILABLE, "tandem is stopping");
    else if (!f || !f->now)
        function_not_found(fs, q->name, q->qualifier, &r.err);
    else if (f->now->broken.code != ERR_OK)
        r.err = f->now->broken;
    else if (f->durable && !q->of_execution)
        return durable_call(f, q, done, arg);
    else if (f->now->snap.state == SNAP_FAILED)
        r.error_type = "ResourceConflictException", err_set(&r.err, CONFLICT, "The operation cannot be performed at this time. The function is "
                "currently in the following state: Failed");
    else if (snapshot_awaited(f->now) && !f->now->snap.good)
        r.error_type = "SnapStartNotReadyException", err_set(&r.err, CONFLICT, "Lambda is initializing your function. It will be ready to "
                "invoke once your function state becomes ACTIVE.");
    else if ((f->now->http_port != 0) != (q->place != NULL))
        err_set(&r.err, INVALID_ARGUMENT, "%s", q->place ? "this function serves no HTTP" : "an HTTP function is called by its URL");
    else if (q->n > FUNCTION_PAYLOAD_MAX)
        err_set(&r.err, TOO_LARGE, "Request must be smaller than %d bytes for the InvokeFunction operation",
                FUNCTION_PAYLOAD_MAX);
    else if (q->client_context && strlen(q->client_context) > 3583)
        err_set(&r.err, INVALID_ARGUMENT, "Client context must be no more than 3583 bytes when base64-encoded.");
    else
        throttled(f, q->qualifier, &r);
    if (r.err.code != ERR_OK) {
        refuse(fs, f, q, done, arg, &r);
        return 0;
    }
    c = call_new(f, q, done, arg);
    v = f->now;
    served = f->waiting_n ? 0 : try_serve(v, c, q->payload, q->n, &r.err);
    if (served > 0)
        return (uint64_t)(uintptr_t)c;
    if (served < 0) {
        r.err.code = ERR_UNAVAILABLE;
        pool_refuse(c, &r.err);
        return 0;
    }
    if (!c->payload) {
        c->payload = xmalloc(q->n + 1);
        if (q->n)
            memcpy(c->payload, q->payload, q->n);
        c->n = q->n;
    }
    list_push(&f->waiting, &c->link);
    f->waiting_n++;
    fs->waiting++;
    c->for_zygote = v->zygote != ZYGOTE_READY;
    if (v->zygote == ZYGOTE_NONE) {
        /* a zygote that cannot start fails all who wait, this call too: then done was called */
        fs->judged = c;
        zygote_start(v);
        if (!fs->judged)
            return 0;
        fs->judged = NULL;
    }
    return (uint64_t)(uintptr_t)c;
}

void function_forget(struct functions *fs, uint64_t ticket)
{
    struct call *c = (struct call *)(uintptr_t)ticket;

    if (durable_has_ticket(ticket)) {
        durable_call_forget(fs, ticket);
        return;
    }
    if (!c)
        return;
    c->done = NULL;
    c->stream = NULL; /* what comes is thrown away: the function runs to its end */
    if (c->paused)
        function_pause(fs, ticket, false);
    if (list_linked(&c->link) || serve_forget(c)) {
        struct function_result r = {0};

        err_set(&r.err, CANCELLED, "who called has gone");
        pool_end(c, &r);
    }
}

void function_pause(struct functions *fs, uint64_t ticket, bool pause)
{
    struct call *c = (struct call *)(uintptr_t)ticket;

    if (!c || durable_has_ticket(ticket) || c->paused == pause)
        return;
    c->paused = pause;
    if (c->i)
        instance_watch(c->i);
}

/* ---- time ---- */

int pool_wanted(const struct version *v)
{
    return v->f->now == v ? MAX(v->f->provisioned, scale_wanted(v->f)) : 0;
}

int pool_owed(const struct version *v)
{
    return v->f->now == v ? MAX(v->f->provisioned, scale_owed(v->f)) : 0;
}

/* While memory is short only what is owed is made, and nothing where pods leave no room. */
static int wanted_now(const struct version *v)
{
    if (!capacity_ahead(v))
        return 0;
    return v->f->fs->short_us ? pool_owed(v) : pool_wanted(v);
}

static void tick_version(struct version *v, int64_t now)
{
    struct functions *fs = v->f->fs;
    int start_ms = v->wasm ? COMPILE_MS : ZYGOTE_START_MS;

    if (v->zygote == ZYGOTE_STARTING && now - v->zygote_since_us > start_ms * 1000LL) {
        struct err err;

        err_set(&err, UNAVAILABLE, "the function's runtime did not start in %d s", start_ms / 1000);
        LOG(WARN, "function", "function=%s did=zygote error=\"%s\"", v->f->key, err.msg);
        zygote_stop(v);
        pool_fail_waiting(v->f, &err);
        return;
    }
    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        if (i->state == INSTANCE_IDLE && !i->leases_n && fs->keep_ms >= 0 && !v->f->kpa && now - i->idle_since_us > fs->keep_ms * 1000LL &&
            (int)v->instances_n > pool_wanted(v))
            instance_stop(i, serve_grace_ms(i));
        else if (i->state == INSTANCE_DYING && !i->exited && !i->killed && !i->stopping)
            instance_kill(i);
        else if (i->state == INSTANCE_STEM && i->init_ahead && !i->inited && !v->f->debug && now - i->asked_us > (v->http_port ? 6 : 1) * INIT_MS * 1000LL)
            v->lazy = true, instance_kill(i);
        else if (i->compiler && now - i->asked_us > COMPILE_MS * 1000LL)
            instance_kill(i);
    }
    berths_trim(v, false);
    if (v->zygote == ZYGOTE_READY && (int)v->instances_n < wanted_now(v))
        pool_refill_soon(fs); /* one of them ended, or was none: a compiler counts while it runs */
    if (v->zygote == ZYGOTE_READY && v == v->f->now && (int)v->stems_n != forecast_stems(v)) {
        struct list *last = v->stems.prev;

        if ((int)v->stems_n < forecast_stems(v))
            pool_refill_soon(fs);
        else if (last != &v->stems && (int)v->instances_n > pool_wanted(v))
            instance_kill(list_entry(last, struct instance, free)); /* one a tick */
    }
    /* stems are part of the zygote: they go with it */
    if (v->zygote == ZYGOTE_READY && v->instances_n == v->stems_n && !pool_wanted(v) &&
        now - MAX(v->used_us, v->zygote_started_us) > fs->zygote_keep_ms * 1000LL)
        zygote_stop(v);
}

/* Those that live longer than the meter's rhythm, a few at a time: each costs some file reads. */
static void sample_some(struct functions *fs, int64_t now)
{
    int left = 50;

    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        struct version *v = list_entry(k, struct version, link);

        if (now - v->used_us < 60000000 && now - v->sampled_us > 3000000 && left-- > 0) {
            v->sampled_us = now;
            version_sample(v);
        }
        LIST_EACH(&v->instances, j)
        {
            struct instance *i = list_entry(j, struct instance, link);

            if (!i->exited && now - i->sampled_us > 15000000 && now - i->asked_us > 15000000 && left-- > 0) {
                i->sampled_us = now;
                instance_sample(i);
            }
        }
    }
}

enum { TICK_MS = 250, SLOW_TICK_MS = 60000 };

static bool has_work(const struct functions *fs)
{
    if (fs->meters_dirty || fs->corpses_n || fs->short_us || fs->evicted_kb)
        return true;
    LIST_EACH(&fs->all, l)
    {
        const struct function *f = list_entry(l, struct function, link);

        if (f->busy || (f->now && f->now->broken.code == ERR_OK && pool_wanted(f->now)))
            return true;
        LIST_EACH(&f->versions, k)
        {
            const struct version *v = list_entry(k, struct version, link);

            if (v->zygote != ZYGOTE_NONE || v->instances_n || v->berths_n)
                return true;
        }
    }
    return false;
}

static void on_tick(uv_timer_t *t)
{
    struct functions *fs = t->data;

    pool_tick(fs);
    functions_renew_keys(fs);
    if (has_work(fs)) {
        if (uv_timer_get_repeat(t) != TICK_MS)
            uv_timer_start(t, on_tick, TICK_MS, TICK_MS);
    } else if (spending_waits(fs) || fs->node_bases_n) {
        uv_timer_start(t, on_tick, SLOW_TICK_MS, SLOW_TICK_MS);
    } else {
        uv_timer_stop(t);
    }
}

void pool_wake(struct functions *fs)
{
    if (fs->stopping || (uv_is_active((uv_handle_t *)&fs->tick) && uv_timer_get_repeat(&fs->tick) == TICK_MS))
        return;
    spending_tick(fs); /* it may have slept past the end of a month */
    uv_timer_start(&fs->tick, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&fs->tick);
}

void pool_tick(struct functions *fs)
{
    int64_t now = now_us();

    evict_look(fs);
    capacity_look(fs);
    zygotes_reap(fs);
    node_bases_tick(fs, now);
    flog_tick(fs);
    spending_tick(fs);
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        f->busy++; /* stays while we look at it */
        if (f->slowed) {
            f->slowed = false;
            pool_feed(f);
        }
        LIST_EACH(&f->versions, k)
        tick_version(list_entry(k, struct version, link), now);
        scale_tick(f, now);
        if (f->now && f->now->broken.code == ERR_OK && f->now->zygote == ZYGOTE_NONE && wanted_now(f->now) &&
            now - f->now->zygote_since_us > 5000000)
            zygote_start(f->now);
        f->busy--;
        function_let_go(f);
    }
    if (fs->meters_dirty && now - fs->meter_written_us > 3000000) {
        sample_some(fs, now);
        meters_write(fs, false);
    }
}

static void on_refill(uv_timer_t *t)
{
    pool_refill(t->data);
}

void pool_refill_soon(struct functions *fs)
{
    if (!fs->stopping && !uv_is_active((uv_handle_t *)&fs->refill))
        uv_timer_start(&fs->refill, on_refill, 3, 0);
}

/* What may be done when nobody waits for it: cpu limits of the newly loaded, forks ahead. */
void pool_refill(struct functions *fs)
{
    struct list *l;
    struct err err;
    bool again = false;

    while ((l = list_first(&fs->to_limit))) {
        struct instance *i = list_entry(l, struct instance, limit_link);

        list_remove(l);
        if (i->berth)
            berth_limit(i->v, i->berth);
    }
    LIST_EACH(&fs->all, k)
    {
        struct function *f = list_entry(k, struct function, link);
        struct version *v = f->now;
        struct instance *i;

        if (v && v->zygote == ZYGOTE_READY)
            snapshot_make(v);
        if (!v || v->zygote != ZYGOTE_READY || f->waiting_n || snapshot_awaited(v))
            continue;
        if (v->compile_wanted && !v->compiling) {
            v->compile_wanted = false;
            v->compiling = instance_fork(v, true, &err) != NULL;
        } else if (((int)v->stems_n < forecast_stems(v) || (int)v->instances_n < wanted_now(v)) && !v->starting_n) {
            if (functions_net_ready(v, &err) <= 0)
                continue; /* it comes back here */
            i = instance_fork(v, false, &err);
            if (!i)
                continue;
            i->state = INSTANCE_STEM;
            list_push(&v->stems, &i->free);
            v->stems_n++;
            capacity_grew(v);
        }
        again |= (int)v->stems_n < forecast_stems(v) || (int)v->instances_n < wanted_now(v);
        if (!v->starting_n)
            again |= berths_refill(v);
    }
    if (again)
        pool_refill_soon(fs);
}
