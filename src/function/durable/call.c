/* Durable executions of this room's functions: who is one, how it is invoked, and calls of it from any side. */
#include "function/durable/durable.h"
#include "codec/json.h"
#include "env/random.h"
#include "function/function_int.h"

#include <stdio.h>

enum { TAKE_UP_MS = 1000 }; /* executions of an earlier life wait a moment: their functions must be known first */

struct durable *functions_durable(struct functions *fs)
{
    return fs->durable;
}

static const struct val *durable_of(const struct function *f)
{
    const struct val *spec = val_get(obj_val(f->obj), "spec"), *template = val_get(spec, "template");

    return val_get(val_is_null(template) ? spec : template, "durable");
}

static int target(void *arg, const char *ns, const char *name, const char *qualifier, struct durable_target *ret, struct err *err)
{
    struct functions *fs = arg;
    struct function *f = function_route(fs, ns, name, qualifier);
    const struct val *spec;

    if (!f || !f->obj || f->removed)
        return err_set(err, NOT_FOUND, "Function not found: arn:aws:lambda:%s:%s:function:%s%s%s", fs->region, fs->account, name,
                       qualifier ? ":" : "", qualifier ? qualifier : "");
    spec = durable_of(f);
    *ret = (struct durable_target){.durable = f->durable, .version = f->shown,
        .timeout_s = (int)val_int_at(spec, "executionTimeoutSeconds", DURABLE_TIMEOUT_DEFAULT_S),
        .retention_days = (int)val_int_at(spec, "retentionDays", DURABLE_RETENTION_DEFAULT_DAYS),
        .kms_key = val_str_at(spec, "kmsKey", NULL)};
    return 0;
}

/* Durable is a function with all its versions, so an alias need not be resolved: only a call takes a turn of its weights. */
int function_durable_s(struct functions *fs, const char *namespace_, const char *name, const char *qualifier)
{
    _auto_(freep) char *versioned = xasprintf("%s:%s", name, qualifier ? qualifier : "");
    const struct function *f = qualifier ? function_find(fs, namespace_, versioned) : NULL;

    if (!f)
        f = function_find(fs, namespace_, name);
    return f && f->durable ? (int)val_int_at(durable_of(f), "executionTimeoutSeconds", DURABLE_TIMEOUT_DEFAULT_S) : 0;
}

static void invoke(void *arg, const struct function_call *c, function_done_fn *done, void *done_arg)
{
    function_invoke(arg, c, done, done_arg);
}

int functions_durable_open(struct functions *fs, struct err *err)
{
    _auto_(freep) char *dir = xasprintf("%s/durable", fs->state);
    struct durable_options o = {.loop = fs->loop, .dir = dir, .region = fs->region, .account = fs->account, .invoke = invoke,
                                .target = target, .arg = fs};

    fs->durable = durable_open(&o, err);
    if (!fs->durable)
        return -1;
    durable_run(fs->durable, TAKE_UP_MS);
    return 0;
}

static void on_closed(void *arg)
{
    struct functions *fs = arg;

    fs->durable = NULL;
    functions_let_go(fs);
}

void functions_durable_close(struct functions *fs)
{
    durable_close(fs->durable, on_closed, fs);
}

/* ---- calls ---- */

/* Of a call that waits for the end of its execution. Its ticket is its address, with the last bit set. */
struct waiting {
    struct functions *fs;
    function_done_fn *done; /* NULL: forgotten */
    void *arg;
    uint64_t ticket;        /* of durable_wait(); 0: it has not begun */
    bool in_call, over;
};

bool durable_has_ticket(uint64_t ticket)
{
    return ticket & 1;
}

void durable_call_forget(struct functions *fs, uint64_t ticket)
{
    struct waiting *w = (struct waiting *)(uintptr_t)(ticket & ~(uint64_t)1);

    w->done = NULL;
    if (!w->ticket)
        return; /* freed when it has begun */
    durable_forget(fs->durable, w->ticket);
    free(w);
}

static void end(struct waiting *w, const struct function_result *r)
{
    if (w->done)
        w->done(w->arg, r);
    w->over = true;
    if (!w->in_call)
        free(w);
}

static void on_end(void *arg, const struct function_result *r)
{
    end(arg, r);
}

static void on_begun(void *arg, const struct err *err, const char *arn)
{
    struct waiting *w = arg;
    struct function_result r = {.err = *err};
    bool in_call = w->in_call;
    uint64_t ticket;

    if (err->code || !w->done) {
        r.durable_arn = err->code == ERR_ALREADY_EXISTS ? arn : NULL;
        end(w, &r);
        return;
    }
    w->in_call = true;
    ticket = durable_wait(w->fs->durable, arn, on_end, w);
    w->in_call = in_call;
    if (w->over && !in_call)
        free(w);
    else
        w->ticket = ticket;
}

/* The ARN that the caller named, without qualifier; NULL: he named none. */
static char *unqualified(struct arena *a, const char *arn)
{
    const char *name = arn ? strstr(arn, ":function:") : NULL, *colon;

    if (!name)
        return NULL;
    name += strlen(":function:");
    colon = strchr(name, ':');
    return arena_strndup(a, arn, colon ? (size_t)(colon - arn) : strlen(arn));
}

static int check(const struct function_call *c, size_t max, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    if (c->n > max)
        return err_set(err, TOO_LARGE, "Request must be smaller than %zu bytes for the InvokeFunction operation", max);
    if (c->n && !json_parse(a, c->payload, c->n, err)) {
        err->code = ERR_INVALID_ARGUMENT;
        return err_wrap(err, "Could not parse request body into json");
    }
    return 0;
}

/* Of the version that the call's qualifier was resolved to. */
static struct durable_start start_of(struct arena *a, const struct function *f, const struct function_call *c)
{
    return (struct durable_start){.ns = str_empty(c->namespace_) ? "default" : c->namespace_, .name = c->name, .qualifier = f->shown,
        .function_arn = unqualified(a, c->arn), .execution = c->execution, .from = c->delivery,
        .payload = c->payload, .n = c->n, .trace_id = c->trace_id};
}

uint64_t durable_call(struct function *f, const struct function_call *c, function_done_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct functions *fs = f->fs;
    struct durable_start s = start_of(a, f, c);
    struct function_result r = {0};
    struct waiting *w;

    if (c->place || check(c, FUNCTION_PAYLOAD_MAX, &r.err) < 0) {
        if (c->place)
            err_set(&r.err, INVALID_ARGUMENT, "a durable function serves no HTTP");
        done(arg, &r);
        return 0;
    }
    s.waits = true;
    w = xcalloc(1, sizeof *w);
    *w = (struct waiting){.fs = fs, .done = done, .arg = arg, .in_call = true};
    durable_start(fs->durable, &s, on_begun, w);
    w->in_call = false;
    if (w->over) {
        free(w);
        return 0;
    }
    return (uint64_t)(uintptr_t)w | 1;
}

struct event_start {
    bool derived; /* from an event that may be told twice */
    function_queued_fn *done;
    void *arg;
    char id[FUNCTION_ID_MAX];
};

static void on_event_begun(void *arg, const struct err *err, const char *arn)
{
    struct event_start *s = arg;
    struct err ok = {0};

    (void)arn;
    if (s->derived && err->code == ERR_ALREADY_EXISTS) /* with what was told the first time */
        err = &ok;
    s->done(s->arg, err, s->id);
    free(s);
}

void durable_event(struct function *f, const struct function_call *c, function_queued_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct durable_start s = start_of(a, f, c);
    struct event_start *x;
    struct err err = {0};

    if (check(c, FUNCTION_PAYLOAD_ASYNC_MAX, &err) < 0) {
        done(arg, &err, "");
        return;
    }
    x = xcalloc(1, sizeof *x);
    x->done = done;
    x->arg = arg;
    x->derived = c->delivery;
    if (c->request_id)
        snprintf(x->id, sizeof x->id, "%s", c->request_id);
    else
        uuid_new(x->id);
    durable_start(f->fs->durable, &s, on_event_begun, x);
}
