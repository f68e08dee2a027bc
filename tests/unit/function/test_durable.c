/* Durable executions by a made-up clock: a function that is played here, crashes (a second engine over the same folder, the
 * first one is never asked again), a disk that refuses, and checkpoints at random. Writes are real. */
#include "tt.h"

#include "base/base.h"
#include "codec/json.h"
#include "function/durable/durable.h"
#include "function/durable/durable_int.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { CALLS_MAX = 16 };

/* One invocation that waits for its answer. */
struct played {
    char *payload, *name;
    function_done_fn *done;
    void *arg;
};

struct world {
    uv_loop_t loop;
    char dir[64];
    struct durable *d, *old[64];
    int olds;
    int64_t now;
    struct played calls[CALLS_MAX];
    int calls_n, invocations;
    bool busy; /* nobody has room */
    int timeout_s;
};

static int64_t now_of(void *arg)
{
    return ((struct world *)arg)->now;
}

static void play(void *arg, const struct function_call *c, function_done_fn *done, void *done_arg)
{
    struct world *w = arg;
    struct function_result r = {0};

    if (w->busy) {
        err_set(&r.err, TOO_MANY, "no room");
        done(done_arg, &r);
        return;
    }
    assert_true(w->calls_n < CALLS_MAX);
    w->calls[w->calls_n++] = (struct played){xstrndup(c->payload ? c->payload : "", c->n), xstrdup(c->name), done, done_arg};
    w->invocations++;
}

static int target(void *arg, const char *ns, const char *name, const char *qualifier, struct durable_target *ret, struct err *err)
{
    struct world *w = arg;

    if (streq(name, "nobody"))
        return err_set(err, NOT_FOUND, "Function not found: nobody");
    *ret = (struct durable_target){.durable = !streq(name, "plain"), .version = "$LATEST", .timeout_s = w->timeout_s, .retention_days = 2};
    return 0;
}

static void run_io(struct world *w)
{
    uv_run(&w->loop, UV_RUN_DEFAULT);
}

static void open_engine(struct world *w)
{
    struct durable_options o = {.loop = &w->loop, .dir = w->dir, .now_ms = now_of, .invoke = play, .target = target, .arg = w};
    struct err err;

    w->d = durable_open(&o, &err);
    assert_non_null(w->d);
    durable_run(w->d, 0);
    run_io(w);
}

/* Its invocations die with the gateway: what they answer changes nothing. */
static void die(struct world *w)
{
    struct function_result r = {0};

    err_set(&r.err, UNAVAILABLE, "gone");
    w->d->closing = true;
    for (int i = 0; i < w->calls_n; i++) {
        w->calls[i].done(w->calls[i].arg, &r);
        free(w->calls[i].payload);
        free(w->calls[i].name);
    }
    w->calls_n = 0;
    w->d->closing = w->d->active = false;
    w->old[w->olds++] = w->d;
}

/* The gateway dies, and another begins. */
static void crash(struct world *w)
{
    die(w);
    open_engine(w);
}

static void begin(struct world *w)
{
    *w = (struct world){.now = 1000000000000, .timeout_s = 600};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    strcpy(w->dir, "/tmp/tt-durable-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    open_engine(w);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static void end(struct world *w)
{
    struct function_result r = {0};

    durable_close(w->d, NULL, NULL);
    for (int i = 0; i < w->olds; i++)
        durable_close(w->old[i], NULL, NULL);
    err_set(&r.err, UNAVAILABLE, "gone");
    for (int i = 0; i < w->calls_n; i++) {
        w->calls[i].done(w->calls[i].arg, &r);
        free(w->calls[i].payload);
        free(w->calls[i].name);
    }
    run_io(w);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void answer(struct world *w, int i, const char *output, const char *error)
{
    struct played p = w->calls[i];
    struct function_result r = {.payload = error ? error : output, .n = strlen(error ? error : output), .function_error = error ? "Unhandled" : NULL,
                                .version = "$LATEST", .request_id = "r"};

    memmove(&w->calls[i], &w->calls[i + 1], sizeof *w->calls * (size_t)(--w->calls_n - i));
    p.done(p.arg, &r);
    free(p.payload);
    free(p.name);
    run_io(w);
}

static void later(struct world *w, int64_t ms)
{
    w->now += ms;
    durable_tick(w->d);
    run_io(w);
}

/* ---- asking ---- */

struct told {
    struct arena *a;
    struct val *v;
    struct err err;
    char arn[300];
    int n;
};

static void on_told(void *arg, const struct val *v, const struct err *err)
{
    struct told *t = arg;

    t->n++;
    t->v = v ? val_copy(t->a, v) : NULL;
    if (err)
        t->err = *err;
}

static void on_started(void *arg, const struct err *err, const char *arn)
{
    struct told *t = arg;

    t->n++;
    t->err = *err;
    snprintf(t->arn, sizeof t->arn, "%s", arn);
}

static struct told start(struct world *w, struct arena *a, const char *name, const char *execution, const char *input)
{
    struct told t = {.a = a};
    struct durable_start s = {.ns = "default", .name = name, .qualifier = "$LATEST", .execution = execution, .payload = input, .n = strlen(input)};

    durable_start(w->d, &s, on_started, &t);
    run_io(w);
    assert_int_equal(t.n, 1);
    return t;
}

static struct val *parse(struct arena *a, const char *text)
{
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err);

    assert_non_null(v);
    return v;
}

/* The payload of invocation i. */
static struct val *payload(struct world *w, struct arena *a, int i)
{
    assert_true(i < w->calls_n);
    return parse(a, w->calls[i].payload);
}

static struct told checkpoint(struct world *w, struct arena *a, const char *arn, const char *token, const char *updates)
{
    struct told t = {.a = a};

    durable_checkpoint(w->d, arn, token, NULL, parse(a, updates), on_told, &t);
    run_io(w);
    assert_int_equal(t.n, 1);
    return t;
}

static struct val *get(struct world *w, struct arena *a, const char *arn)
{
    struct told t = {.a = a};

    durable_get(w->d, arn, true, on_told, &t);
    run_io(w);
    return t.v;
}

static const char *status(struct world *w, struct arena *a, const char *arn)
{
    return val_str_at(get(w, a, arn), "Status", "none");
}

/* "ExecutionStarted StepStarted ..." */
static const char *events(struct world *w, struct arena *a, const char *arn)
{
    struct told t = {.a = a};
    char *text = arena_strdup(a, "");

    durable_history(w->d, arn, true, false, NULL, 1000, on_told, &t);
    run_io(w);
    assert_non_null(t.v);
    VAL_EACH(val_get(t.v, "Events"), it)
        text = arena_printf(a, "%s%s%s", text, *text ? " " : "", val_str_at(it, "EventType", ""));
    return text;
}

#define TOKEN(v) val_str_at(v, "CheckpointToken", "")

/* ---- tests ---- */

static void its_life(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c;
    struct val *p;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", "mine", "{\"n\":1}");
    assert_int_equal(t.err.code, ERR_OK);
    assert_non_null(strstr(t.arn, ":function:f:$LATEST/durable-execution/mine/"));
    p = payload(&w, a, 0);
    assert_string_equal(val_str_at(p, "DurableExecutionArn", ""), t.arn);
    assert_string_equal(val_str_at(p, "InitialExecutionState.Operations[0].ExecutionDetails.InputPayload", ""), "{\"n\":1}");
    c = checkpoint(&w, a, t.arn, TOKEN(p), "[{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"START\"},{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"SUCCEED\",\"Payload\":\"7\"},"
                                           "{\"Id\":\"w\",\"Type\":\"WAIT\",\"Action\":\"START\",\"WaitOptions\":{\"WaitSeconds\":60}}]");
    assert_non_null(c.v);
    assert_int_equal(val_len(val_at(c.v, "NewExecutionState.Operations")), 2);
    assert_null(checkpoint(&w, a, t.arn, TOKEN(p), "[]").v); /* a token is good once */
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    assert_int_equal(w.calls_n, 0);
    assert_null(exec_by_arn(w.d, t.arn)->ops); /* asleep: nothing of it is in memory but its entry */
    later(&w, 59999);
    assert_int_equal(w.calls_n, 0);
    later(&w, 1);
    p = payload(&w, a, 0);
    assert_string_equal(val_str_at(p, "UpdatedOperationIds[0]", ""), "w");
    assert_string_equal(val_str_at(p, "InitialExecutionState.Operations[1].StepDetails.Result", ""), "7");
    assert_string_equal(val_str_at(p, "InitialExecutionState.Operations[2].Status", ""), "SUCCEEDED");
    answer(&w, 0, "{\"Status\":\"SUCCEEDED\",\"Result\":\"8\"}", NULL);
    assert_string_equal(status(&w, a, t.arn), "SUCCEEDED");
    assert_string_equal(val_str_at(get(&w, a, t.arn), "Result", ""), "8");
    assert_string_equal(events(&w, a, t.arn), "ExecutionStarted StepStarted StepSucceeded WaitStarted InvocationCompleted WaitSucceeded InvocationCompleted "
                                              "ExecutionSucceeded");
    crash(&w);
    assert_string_equal(status(&w, a, t.arn), "SUCCEEDED");
    later(&w, 2 * 86400000LL - 1);
    assert_int_equal(durable_count(w.d, false), 1);
    later(&w, 1); /* it was kept for two days */
    assert_int_equal(durable_count(w.d, false), 0);
    assert_null(get(&w, a, t.arn));
    crash(&w);
    assert_int_equal(durable_count(w.d, false), 0);
    end(&w);
}

static void a_crash_runs_an_invocation_again(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c;
    struct val *p, *q;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    p = payload(&w, a, 0);
    c = checkpoint(&w, a, t.arn, TOKEN(p), "[{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"SUCCEED\",\"Payload\":\"1\"}]");
    crash(&w);
    q = payload(&w, a, 0);
    assert_string_equal(val_str_at(q, "InitialExecutionState.Operations[1].StepDetails.Result", ""), "1");
    assert_null(checkpoint(&w, a, t.arn, TOKEN(c.v), "[]").v); /* nor its token */
    assert_non_null(checkpoint(&w, a, t.arn, TOKEN(q), "[]").v);
    answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
    assert_string_equal(status(&w, a, t.arn), "SUCCEEDED");
    end(&w);
}

static void what_fails_is_tried_again(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(w.calls_n, 1);
        answer(&w, 0, NULL, "{\"errorType\":\"Boom\",\"errorMessage\":\"bang\"}");
        assert_int_equal(w.calls_n, 0);
        later(&w, 1000 << i);
    }
    assert_string_equal(status(&w, a, t.arn), "FAILED");
    assert_string_equal(val_str_at(get(&w, a, t.arn), "Error.ErrorType", ""), "Boom");
    w.busy = true; /* no room is no try */
    t = start(&w, a, "f", NULL, "{}");
    for (int i = 0; i < 20; i++)
        later(&w, 10000);
    assert_string_equal(status(&w, a, t.arn), "RUNNING");
    w.busy = false;
    later(&w, 60000);
    assert_int_equal(w.calls_n, 1);
    later(&w, 600000);
    assert_string_equal(status(&w, a, t.arn), "TIMED_OUT");
    answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL); /* too late */
    assert_string_equal(status(&w, a, t.arn), "TIMED_OUT");
    end(&w);
}

static void callbacks_and_their_time(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c, x = {.a = a};
    const char *id;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    c = checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)),
                   "[{\"Id\":\"c\",\"Type\":\"CALLBACK\",\"Action\":\"START\",\"CallbackOptions\":{\"TimeoutSeconds\":100,\"HeartbeatTimeoutSeconds\":10}}]");
    id = val_str_at(c.v, "NewExecutionState.Operations[0].CallbackDetails.CallbackId", "");
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    for (int i = 0; i < 3; i++) {
        later(&w, 9000);
        durable_callback(w.d, id, DURABLE_HEARTBEAT, NULL, 0, NULL, on_told, &x);
        run_io(&w);
        assert_int_equal(x.err.code, ERR_OK);
    }
    assert_int_equal(w.calls_n, 0);
    crash(&w); /* a heartbeat is kept, too */
    later(&w, 9999);
    assert_int_equal(w.calls_n, 0);
    later(&w, 1);
    assert_string_equal(val_str_at(payload(&w, a, 0), "InitialExecutionState.Operations[1].CallbackDetails.Error.ErrorType", ""), "Callback.Heartbeat");
    durable_callback(w.d, id, DURABLE_SUCCEED, "1", 1, NULL, on_told, &x);
    assert_int_equal(x.err.code, ERR_EXPIRED);
    durable_callback(w.d, "%%%", DURABLE_SUCCEED, "1", 1, NULL, on_told, &x);
    assert_int_equal(x.err.code, ERR_NOT_FOUND);
    end(&w);
}

static void chains(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c;
    int child;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    c = checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)),
        "[{\"Id\":\"d\",\"Type\":\"CHAINED_INVOKE\",\"Action\":\"START\",\"Payload\":\"{\\\"x\\\":1}\",\"ChainedInvokeOptions\":{\"FunctionName\":\"g\",\"_qualifier\":\"$LATEST\"}},"
        "{\"Id\":\"p\",\"Type\":\"CHAINED_INVOKE\",\"Action\":\"START\",\"Payload\":\"2\",\"ChainedInvokeOptions\":{\"FunctionName\":\"plain\"}},"
        "{\"Id\":\"n\",\"Type\":\"CHAINED_INVOKE\",\"Action\":\"START\",\"ChainedInvokeOptions\":{\"FunctionName\":\"nobody\"}}]");
    assert_string_equal(val_str_at(c.v, "NewExecutionState.Operations[2].Status", ""), "FAILED");
    assert_int_equal(durable_count(w.d, true), 2); /* the child runs */
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    assert_int_equal(w.calls_n, 2);
    child = streq(w.calls[0].name, "g") ? 0 : 1;
    answer(&w, child, "{\"Status\":\"SUCCEEDED\",\"Result\":\"10\"}", NULL);
    crash(&w); /* the plain one runs again; the child does not begin again */
    assert_int_equal(durable_count(w.d, false), 2);
    for (int i = 0; i < w.calls_n; i++)
        if (streq(w.calls[i].name, "plain")) {
            answer(&w, i, "{\"y\":2}", NULL);
            break;
        }
    assert_string_equal(w.calls[w.calls_n - 1].name, "f");
    if (!strstr(w.calls[w.calls_n - 1].payload, "{\\\"y")) /* it was told of the child alone: this is the next one */
        answer(&w, w.calls_n - 1, "{\"Status\":\"PENDING\"}", NULL);
    assert_non_null(strstr(w.calls[w.calls_n - 1].payload, "\"Result\":\"{\\\"y\\\":2}\""));
    assert_non_null(strstr(w.calls[w.calls_n - 1].payload, "\"Result\":\"10\""));
    end(&w);
}

static void names_pauses_and_ends(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, x = {.a = a};
    struct val *p;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", "one", "{}");
    assert_string_equal(start(&w, a, "f", "one", "{}").arn, t.arn);
    assert_int_equal(start(&w, a, "f", "one", "[]").err.code, ERR_ALREADY_EXISTS);
    assert_int_equal(start(&w, a, "g", "one", "[]").err.code, ERR_OK);
    assert_int_equal(start(&w, a, "nobody", NULL, "{}").err.code, ERR_NOT_FOUND);
    p = payload(&w, a, 0);
    durable_pause(w.d, t.arn, NULL, "why", true, on_told, &x);
    run_io(&w);
    assert_string_equal(status(&w, a, t.arn), "PAUSING");
    x = checkpoint(&w, a, t.arn, TOKEN(p), "[{\"Id\":\"w\",\"Type\":\"WAIT\",\"Action\":\"START\",\"WaitOptions\":{\"WaitSeconds\":5}}]");
    assert_null(val_get(x.v, "CheckpointToken")); /* it is to stop */
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    assert_string_equal(status(&w, a, t.arn), "PAUSED");
    crash(&w);
    later(&w, 5000);
    later(&w, 1000000); /* the clock of the execution stands, too */
    assert_string_equal(status(&w, a, t.arn), "PAUSED");
    assert_non_null(strstr(events(&w, a, t.arn), "WaitSucceeded"));
    for (int i = 0; i < w.calls_n; i++)
        assert_string_not_equal(w.calls[i].name, "f");
    durable_resume(w.d, t.arn, NULL, NULL, on_told, &x);
    run_io(&w);
    assert_string_equal(w.calls[w.calls_n - 1].name, "f");
    durable_stop(w.d, t.arn, NULL, on_told, &x);
    run_io(&w);
    assert_string_equal(status(&w, a, t.arn), "STOPPED");
    answer(&w, w.calls_n - 1, "{\"Status\":\"SUCCEEDED\"}", NULL);
    assert_string_equal(status(&w, a, t.arn), "STOPPED");
    durable_delete(w.d, t.arn, on_told, &x);
    run_io(&w);
    assert_null(get(&w, a, t.arn));
    end(&w);
}

static void limits(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c;
    struct val *v = val_list(a);

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    for (int i = 0; i < DURABLE_OPERATIONS_MAX; i++) {
        struct val *u = val_map(a);

        val_put(a, u, "Id", val_printf(a, "s%d", i));
        val_put_str(a, u, "Type", "STEP");
        val_put_str(a, u, "Action", "SUCCEED");
        val_push(a, v, u);
    }
    c = checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), json_text(a, v, NULL));
    assert_non_null(c.v);
    c = checkpoint(&w, a, t.arn, TOKEN(c.v), "[{\"Id\":\"more\",\"Type\":\"STEP\",\"Action\":\"START\"}]");
    assert_null(val_get(c.v, "CheckpointToken"));
    assert_string_equal(status(&w, a, t.arn), "FAILED");
    end(&w);
}

/* Goal: what the disk would not take was never answered, and nothing hangs. Method: a folder in which no file can be made, then
 * one in which it can be made again. */
static void a_disk_that_refuses(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t;
    char path[128];

    (void)state;
    begin(&w);
    for (int i = 0; i < 256; i++) {
        snprintf(path, sizeof path, "%s/%02x", w.dir, i);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    t = start(&w, a, "f", "same", "{}");
    assert_int_not_equal(t.err.code, ERR_OK);
    assert_int_equal(durable_count(w.d, false), 0);
    assert_int_equal(w.calls_n, 0);
    for (int i = 0; i < 256; i++) {
        snprintf(path, sizeof path, "%s/%02x", w.dir, i);
        unlink(path);
    }
    t = start(&w, a, "f", "same", "{}");
    assert_int_equal(t.err.code, ERR_OK);
    /* ... and the same for a checkpoint: its token is still good when there is room again */
    snprintf(path, sizeof path, "%s/%.2s", w.dir, strrchr(t.arn, '/') + 1);
    char aside[160];
    snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(rename(path, aside), 0);
    struct val *p = payload(&w, a, 0);
    assert_null(checkpoint(&w, a, t.arn, TOKEN(p), "[{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"START\"}]").v);
    assert_int_equal(rename(aside, path), 0);
    assert_non_null(checkpoint(&w, a, t.arn, TOKEN(p), "[{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"START\"}]").v);
    end(&w);
}

/* ---- at random ---- */

static struct val *random_update(struct tt_rng *rng, struct arena *a)
{
    static const char *const types[] = {"STEP", "STEP", "CONTEXT", "WAIT", "CALLBACK", "CHAINED_INVOKE", "EXECUTION", "ODD"};
    static const char *const actions[] = {"START", "START", "SUCCEED", "FAIL", "RETRY", "CANCEL"};
    struct val *u = val_map(a);
    uint32_t type = tt_below(rng, 40);

    val_put(a, u, "Id", val_printf(a, "o%u", tt_below(rng, 12)));
    val_put_str(a, u, "Type", types[type < 34 ? type % 5 : type % 8]);
    val_put_str(a, u, "Action", actions[tt_below(rng, 6)]);
    if (!tt_below(rng, 3))
        val_put(a, u, "ParentId", val_printf(a, "o%u", tt_below(rng, 12)));
    if (!tt_below(rng, 2))
        val_put(a, u, "Payload", val_printf(a, "%u", tt_below(rng, 1000)));
    else if (!tt_below(rng, 2))
        val_put_str(a, val_need_map(a, u, "Error"), "ErrorMessage", "random");
    if (tt_below(rng, 2))
        val_put_int(a, val_need_map(a, u, "StepOptions"), "NextAttemptDelaySeconds", 1 + tt_below(rng, 20));
    if (tt_below(rng, 2))
        val_put_int(a, val_need_map(a, u, "WaitOptions"), "WaitSeconds", 1 + tt_below(rng, 20));
    if (tt_below(rng, 2))
        val_put_int(a, val_need_map(a, u, "CallbackOptions"), "TimeoutSeconds", tt_below(rng, 20));
    if (tt_below(rng, 4))
        val_put_str(a, val_need_map(a, u, "ChainedInvokeOptions"), "FunctionName", tt_below(rng, 3) ? "plain" : "nobody");
    return u;
}

/* All that is known of it: its operations and what it is. */
static char *picture(struct world *w, struct arena *a, const char *arn)
{
    struct exec *e = exec_by_arn(w->d, arn);
    struct err err;

    assert_non_null(e);
    assert_non_null(exec_load(e, &err));
    return arena_printf(a, "%s %s %u %llu", json_text(a, e->ops->list, NULL), json_text(a, view_exec(e, a, true), NULL), e->events_n,
                        (unsigned long long)e->touched);
}

/* A torn record lies behind what is whole. */
static void tear(struct world *w, struct tt_rng *rng, const char *arn)
{
    const char *id = strrchr(arn, '/') + 1;
    char path[160], junk[64];
    int fd;

    snprintf(path, sizeof path, "%s/%.2s/%s.log", w->dir, id, id);
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = (char)tt_next(rng);
    memcpy(junk, "\x64\x75\x72\x31\x20\0\0\0", 8);
    fd = open(path, O_WRONLY | O_APPEND);
    assert_true(fd >= 0 && write(fd, junk, 1 + tt_below(rng, sizeof junk)) > 0);
    close(fd);
}

/* Goal: whatever a function says and whenever the gateway dies, what is read again is what was known, times come in order, and every
 * execution ends. Method: random updates, answers, times and crashes; the picture before a crash against the one after. */
TT_PROP(durable, what_was_answered_is_there_again, 30)
{
    struct world w;
    struct told t;
    _auto_(arena_freep) struct arena *keep = arena_new();
    int took = 0, crashes = 0;

    begin(&w);
    t = start(&w, keep, "f", NULL, "{\"a\":1}");
    for (int step = 0; step < 60; step++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        uint32_t dice = tt_below(rng, 10);
        int at = -1;

        for (int i = 0; i < w.calls_n; i++)
            if (streq(w.calls[i].name, "f"))
                at = i;
        if (exec_ended(exec_by_arn(w.d, t.arn)))
            break;
        if (dice < 5 && at >= 0) {
            struct exec *e = exec_by_arn(w.d, t.arn);
            struct val *updates = val_list(a);
            char *token = exec_token_text(a, arena_printf(a, "%s:%u:%u", e->id, e->inv, e->token));

            for (uint32_t n = 1 + tt_below(rng, 3); n; n--)
                val_push(a, updates, random_update(rng, a));
            took += checkpoint(&w, a, t.arn, token, json_text(a, updates, NULL)).v != NULL;
        } else if (dice < 7) {
            later(&w, tt_below(rng, 15000));
        } else if (dice < 8 && at >= 0) {
            answer(&w, at, "{\"Status\":\"PENDING\"}", NULL);
        } else if (dice < 9 && w.calls_n && !streq(w.calls[0].name, "f")) {
            answer(&w, 0, "\"chained\"", NULL);
        } else if (crashes < 10) {
            char *before = picture(&w, a, t.arn), *after;

            die(&w);
            if (tt_below(rng, 2))
                tear(&w, rng, t.arn);
            {
                struct durable_options o = {.loop = &w.loop, .dir = w.dir, .now_ms = now_of, .invoke = play, .target = target, .arg = &w};

                w.d = durable_open(&o, &err);
                TT_OK(w.d);
            }
            after = picture(&w, a, t.arn);
            if (strcmp(before, after))
                fprintf(stderr, "%s\n%s\n", before, after);
            TT_OK(streq(before, after));
            exec_unload(exec_by_arn(w.d, t.arn));
            durable_run(w.d, 0);
            run_io(&w);
            crashes++;
        }
    }
    for (int i = 0; i < 200 && !exec_ended(exec_by_arn(w.d, t.arn)); i++)
        later(&w, 10000); /* its time is over, at last */
    TT_OK(exec_ended(exec_by_arn(w.d, t.arn)));
    TT_OK(took || w.invocations);
    end(&w);
}

static off_t file_bytes(struct world *w, const char *arn)
{
    _auto_(freep) char *path = NULL;
    const char *id = strrchr(arn, '/') + 1;
    struct stat st;

    path = xasprintf("%s/%.2s/%s.log", w->dir, id, id);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* Who asks for nothing new makes no file longer, and who asks again and again does so up to the limit. */
static void files_have_an_end(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c, x = {.a = a};
    const char *id;
    struct exec *e;
    struct err err;
    off_t bytes;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    c = checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)),
                   "[{\"Id\":\"c\",\"Type\":\"CALLBACK\",\"Action\":\"START\",\"CallbackOptions\":{\"TimeoutSeconds\":100,\"HeartbeatTimeoutSeconds\":10}}]");
    id = val_str_at(c.v, "NewExecutionState.Operations[0].CallbackDetails.CallbackId", "");
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    e = exec_by_arn(w.d, t.arn);
    assert_non_null(exec_load(e, &err));
    e->holds++;
    e->size = DURABLE_BYTES_MAX + 1;
    durable_pause(w.d, t.arn, NULL, NULL, false, on_told, &x);
    assert_int_equal(x.err.code, ERR_TOO_LARGE);
    durable_callback(w.d, id, DURABLE_HEARTBEAT, NULL, 0, NULL, on_told, &x);
    run_io(&w);
    e->holds--;
    assert_string_equal(status(&w, a, t.arn), "FAILED");
    t = start(&w, a, "f", NULL, "{}");
    checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), "[{\"Id\":\"w\",\"Type\":\"WAIT\",\"Action\":\"START\",\"WaitOptions\":{\"WaitSeconds\":60}}]");
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    e = exec_by_arn(w.d, t.arn);
    assert_non_null(exec_load(e, &err));
    e->holds++;
    e->size = DURABLE_BYTES_MAX + 1;
    later(&w, 60000);
    assert_int_equal(w.calls_n, 0);
    e->holds--;
    assert_string_equal(status(&w, a, t.arn), "FAILED");
    t = start(&w, a, "f", NULL, "{}");
    answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
    bytes = file_bytes(&w, t.arn);
    for (int i = 0; i < 3; i++) {
        x = (struct told){.a = a};
        durable_stop(w.d, t.arn, NULL, on_told, &x);
        run_io(&w);
        assert_int_equal(x.n, 1);
        assert_true(val_int_at(x.v, "StopTimestamp", 0) > 0);
    }
    assert_int_equal(file_bytes(&w, t.arn), bytes);
    assert_null(exec_by_arn(w.d, t.arn)->ops);
    end(&w);
}

/* What a kill left behind the last whole record is gone with the next one, however short that is. */
static void nothing_lies_behind_the_last_record(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t;
    char torn[5000];
    const char *id;
    int fd;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    die(&w);
    id = strrchr(t.arn, '/') + 1;
    memset(torn, 'x', sizeof torn);
    fd = open(arena_printf(a, "%s/%.2s/%s.log", w.dir, id, id), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, torn, sizeof torn), sizeof torn);
    close(fd);
    open_engine(&w);
    assert_non_null(checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), "[]").v);
    assert_int_equal(file_bytes(&w, t.arn), exec_by_arn(w.d, t.arn)->size);
    end(&w);
}

/* An invocation without room leaves no trace but the record that it is owed, and goes when there is room. */
static void no_room_writes_nothing(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, x = {.a = a};
    off_t bytes;

    (void)state;
    begin(&w);
    w.busy = true;
    t = start(&w, a, "f", NULL, "{}");
    bytes = file_bytes(&w, t.arn);
    for (int i = 0; i < 20; i++)
        later(&w, 10000);
    assert_int_equal(file_bytes(&w, t.arn), bytes);
    assert_null(exec_by_arn(w.d, t.arn)->ops); /* nor is it in memory */
    durable_pause(w.d, t.arn, NULL, NULL, true, on_told, &x);
    run_io(&w);
    assert_string_equal(status(&w, a, t.arn), "PAUSED"); /* there is nothing to wait for */
    durable_resume(w.d, t.arn, NULL, NULL, on_told, &x);
    w.busy = false;
    run_io(&w);
    later(&w, 8000);
    assert_int_equal(w.calls_n, 1);
    assert_non_null(checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), "[{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"START\"}]").v);
    w.busy = true;
    t = start(&w, a, "g", NULL, "{}");
    durable_stop(w.d, t.arn, NULL, on_told, &x);
    run_io(&w);
    assert_string_equal(status(&w, a, t.arn), "STOPPED");
    w.busy = false;
    later(&w, 10000);
    assert_int_equal(w.calls_n, 1);
    crash(&w);
    assert_string_equal(status(&w, a, t.arn), "STOPPED");
    end(&w);
}

static struct told page(struct world *w, struct arena *a, const char *arn, bool reverse, const char *marker, int n)
{
    struct told t = {.a = a};

    durable_history(w->d, arn, true, reverse, marker, n, on_told, &t);
    run_io(w);
    assert_int_equal(t.n, 1);
    return t;
}

/* All events, page by page; how many pages there were. */
static int all_pages(struct world *w, struct arena *a, const char *arn, bool reverse, int n, int64_t events)
{
    int64_t want = reverse ? events : 1;
    const char *marker = NULL;
    int pages = 0;

    do {
        struct told t = page(w, a, arn, reverse, marker, n);

        assert_non_null(t.v);
        assert_true(val_len(val_get(t.v, "Events")) > 0);
        assert_true(strlen(json_text(a, t.v, NULL)) < DURABLE_HISTORY_BYTES + 400000);
        VAL_EACH(val_get(t.v, "Events"), it)
            assert_int_equal(val_int_at(it, "EventId", 0), reverse ? want-- : want++);
        marker = val_str_at(t.v, "NextMarker", NULL);
        pages++;
    } while (marker);
    assert_int_equal(want, reverse ? 0 : events + 1);
    return pages;
}

static void histories_come_in_pages(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c;
    char *big = arena_alloc(a, 300001), *token;

    (void)state;
    begin(&w);
    memset(big, 'x', 300000);
    t = start(&w, a, "f", NULL, "{}");
    token = arena_strdup(a, TOKEN(payload(&w, a, 0)));
    for (int i = 0; i < 10; i++) {
        c = checkpoint(&w, a, t.arn, token, arena_printf(a, "[{\"Id\":\"s%d\",\"Type\":\"STEP\",\"Action\":\"START\"},"
            "{\"Id\":\"s%d\",\"Type\":\"STEP\",\"Action\":\"SUCCEED\",\"Payload\":\"%s\"}]", i, i, big));
        assert_non_null(c.v);
        token = arena_strdup(a, TOKEN(c.v));
    }
    for (int i = 0; i < 2; i++) {
        assert_true(all_pages(&w, a, t.arn, i, 1000, 21) >= 4); /* 3 MB */
        assert_int_equal(all_pages(&w, a, t.arn, i, 1, 21), 21);
        assert_true(all_pages(&w, a, t.arn, i, 4, 21) >= 6);
    }
    assert_int_equal(page(&w, a, t.arn, false, "3.7", 10).err.code, ERR_INVALID_ARGUMENT); /* no record begins there */
    assert_int_equal(page(&w, a, t.arn, false, "x", 10).err.code, ERR_INVALID_ARGUMENT);
    assert_int_equal(val_int_at(page(&w, a, t.arn, true, "3", 10).v, "Events[0].EventId", 0), 3);
    end(&w);
}

static struct val *list(struct world *w, struct arena *a, struct durable_filter f)
{
    struct err err = {0};

    f.ns = "default";
    return durable_list(w->d, a, &f, &err);
}

static void lists_come_in_pages(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told x = {.a = a};
    char arns[5][300];
    struct val *v;

    (void)state;
    begin(&w);
    for (int i = 0; i < 5; i++) {
        strcpy(arns[i], start(&w, a, "f", arena_printf(a, "n%d", i), "{}").arn);
        start(&w, a, "g", NULL, "{}");
        while (w.calls_n)
            answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
        w.now += i % 2; /* two began in the same ms */
    }
    for (int round = 0; round < 2; round++) {
        v = list(&w, a, (struct durable_filter){.name = "f", .max_items = 2});
        assert_int_equal(val_len(val_get(v, "DurableExecutions")), 2);
        assert_string_equal(val_str_at(v, "DurableExecutions[0].DurableExecutionName", ""), "n4");
        if (round) { /* the one that the marker names goes meanwhile */
            durable_delete(w.d, val_str_at(v, "DurableExecutions[1].DurableExecutionArn", ""), on_told, &x);
            run_io(&w);
            assert_int_equal(x.err.code, ERR_OK);
        }
        v = list(&w, a, (struct durable_filter){.name = "f", .max_items = 10, .marker = val_str_at(v, "NextMarker", "")});
        assert_int_equal(val_len(val_get(v, "DurableExecutions")), 3);
        assert_null(val_get(v, "NextMarker"));
        v = list(&w, a, (struct durable_filter){.name = "f", .oldest_first = true, .max_items = 4 - round});
        assert_true(val_len(val_get(v, "DurableExecutions")) == 4 - (uint32_t)round && val_get(v, "NextMarker"));
        v = list(&w, a, (struct durable_filter){.name = "f", .oldest_first = true, .marker = val_str_at(v, "NextMarker", "")});
        assert_int_equal(val_len(val_get(v, "DurableExecutions")), 1);
        crash(&w);
    }
    assert_int_equal(val_len(val_get(list(&w, a, (struct durable_filter){.name = "f", .execution = "n1"}), "DurableExecutions")), 1);
    assert_int_equal(val_len(val_get(list(&w, a, (struct durable_filter){.name = "f", .after_ms = 1000000000000}), "DurableExecutions")), 2);
    assert_int_equal(val_len(val_get(list(&w, a, (struct durable_filter){.name = "f", .before_ms = 1000000000001}), "DurableExecutions")), 2);
    assert_null(list(&w, a, (struct durable_filter){.name = "f", .marker = "nothing"}));
    end(&w);
}

/* Who ended first goes first, whoever began first. */
static void the_first_that_ended_goes(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t[3];

    (void)state;
    begin(&w);
    w.d->executions_max = 3;
    for (int i = 0; i < 3; i++)
        t[i] = start(&w, a, "f", NULL, "{}");
    for (int i = 2; i >= 1; i--) {
        w.now++;
        answer(&w, i, "{\"Status\":\"SUCCEEDED\"}", NULL);
    }
    crash(&w);
    w.d->executions_max = 3;
    for (int i = 2; i >= 1; i--) {
        assert_string_equal(status(&w, a, t[i].arn), "SUCCEEDED");
        assert_int_equal(start(&w, a, "f", NULL, "{}").err.code, ERR_OK);
        assert_null(get(&w, a, t[i].arn));
    }
    assert_string_equal(status(&w, a, t[0].arn), "RUNNING");
    assert_int_equal(start(&w, a, "f", NULL, "{}").err.code, ERR_TOO_MANY);
    end(&w);
}

static void an_event_begins_one_execution(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t[4] = {{.a = a}, {.a = a}, {.a = a}, {.a = a}}, x = {.a = a};
    struct durable_start s = {.ns = "default", .name = "f", .qualifier = "$LATEST", .from = "event-1", .payload = "{}", .n = 2};

    (void)state;
    begin(&w);
    durable_start(w.d, &s, on_started, &t[0]); /* not yet on disk */
    durable_start(w.d, &s, on_started, &t[1]);
    run_io(&w);
    crash(&w);
    durable_start(w.d, &s, on_started, &t[2]);
    run_io(&w);
    assert_string_equal(t[0].arn, t[1].arn);
    assert_string_equal(t[0].arn, t[2].arn);
    assert_int_equal(durable_count(w.d, false), 1);
    s.payload = "[]";
    durable_start(w.d, &s, on_started, &t[3]);
    assert_int_equal(t[3].err.code, ERR_ALREADY_EXISTS);
    s.name = "g"; /* another target of the same event */
    durable_start(w.d, &s, on_started, &t[3]);
    run_io(&w);
    assert_int_equal(durable_count(w.d, false), 2);
    /* one that is being deleted is no more, but its file is in the way */
    durable_stop(w.d, t[0].arn, NULL, on_told, &x);
    run_io(&w);
    if (w.calls_n)
        answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
    s.name = "f";
    durable_delete(w.d, t[0].arn, on_told, &x);
    durable_start(w.d, &s, on_started, &t[3]);
    assert_int_equal(t[3].err.code, ERR_UNAVAILABLE);
    run_io(&w);
    assert_int_equal(x.err.code, ERR_OK);
    durable_start(w.d, &s, on_started, &t[3]);
    run_io(&w);
    assert_int_equal(t[3].err.code, ERR_OK);
    end(&w);
}

/* Bytes are bytes. */
static void a_result_has_any_bytes(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, c, x = {.a = a};
    struct val *r;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", NULL, "{}");
    c = checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), "[{\"Id\":\"c\",\"Type\":\"CALLBACK\",\"Action\":\"START\"},"
        "{\"Id\":\"s\",\"Type\":\"STEP\",\"Action\":\"SUCCEED\",\"Payload\":\"q\\u0000r\"}]");
    answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    durable_callback(w.d, val_str_at(c.v, "NewExecutionState.Operations[0].CallbackDetails.CallbackId", ""), DURABLE_SUCCEED, "a\0b", 3, NULL, on_told, &x);
    run_io(&w);
    assert_int_equal(x.err.code, ERR_OK);
    crash(&w);
    r = val_at(payload(&w, a, 0), "InitialExecutionState.Operations[1].CallbackDetails.Result");
    assert_true(r && r->n == 3 && !memcmp(r->s, "a\0b", 3));
    r = val_at(payload(&w, a, 0), "InitialExecutionState.Operations[2].StepDetails.Result");
    assert_true(r && r->n == 3 && !memcmp(r->s, "q\0r", 3));
    end(&w);
}

/* An end that the disk would not take was none: whoever looks, and whether or not the file can be read at once. */
static void an_end_is_taken_back(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told t, x = {.a = a};
    char shard[128], *aside;

    (void)state;
    begin(&w);
    t = start(&w, a, "f", "one", "{}");
    answer(&w, 0, NULL, "{\"errorType\":\"Boom\"}");
    assert_null(exec_by_arn(w.d, t.arn)->ops);
    snprintf(shard, sizeof shard, "%s/%.2s", w.dir, strrchr(t.arn, '/') + 1);
    aside = arena_printf(a, "%s.aside", shard);
    durable_get(w.d, t.arn, true, on_told, &x); /* it is in memory when the disk goes */
    exec_by_arn(w.d, t.arn)->holds++;
    run_io(&w);
    assert_int_equal(rename(shard, aside), 0);
    durable_stop(w.d, t.arn, NULL, on_told, &x);
    exec_by_arn(w.d, t.arn)->holds--;
    assert_int_equal(durable_count(w.d, true), 0);
    run_io(&w);
    assert_int_not_equal(x.err.code, ERR_OK);
    durable_delete(w.d, t.arn, on_told, &x); /* what was in memory does not count */
    run_io(&w);
    assert_int_equal(durable_count(w.d, false), 1);
    assert_int_equal(rename(aside, shard), 0);
    later(&w, 5000);
    assert_int_equal(durable_count(w.d, true), 1);
    assert_string_equal(status(&w, a, t.arn), "RUNNING");
    assert_int_equal(w.calls_n, 1);
    answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
    assert_string_equal(status(&w, a, t.arn), "SUCCEEDED");
    assert_int_equal(durable_count(w.d, true), 0);
    end(&w);
}

/* Sleepers that wake in one moment are read a few at a time, and requests to one are answered in order. */
static void many_wake_at_once(void **state)
{
    enum { N = 300 };
    _auto_(arena_freep) struct arena *a = arena_new();
    struct world w;
    struct told order[3] = {{.a = a}, {.a = a}, {.a = a}};
    struct told t = {0};
    int ended = 0;

    (void)state;
    begin(&w);
    for (int i = 0; i < N; i++) {
        t = start(&w, a, "f", NULL, "{}");
        checkpoint(&w, a, t.arn, TOKEN(payload(&w, a, 0)), "[{\"Id\":\"w\",\"Type\":\"WAIT\",\"Action\":\"START\",\"WaitOptions\":{\"WaitSeconds\":60}}]");
        answer(&w, 0, "{\"Status\":\"PENDING\"}", NULL);
    }
    durable_pause(w.d, t.arn, NULL, NULL, true, on_told, &order[0]);
    durable_resume(w.d, t.arn, NULL, NULL, on_told, &order[1]);
    durable_stop(w.d, t.arn, NULL, on_told, &order[2]);
    assert_int_equal(order[0].n + order[1].n + order[2].n, 0); /* it is being read */
    run_io(&w);
    for (int i = 0; i < 3; i++)
        assert_true(order[i].n == 1 && order[i].err.code == ERR_OK);
    assert_string_equal(status(&w, a, t.arn), "STOPPED");
    assert_non_null(strstr(events(&w, a, t.arn), "ExecutionPaused ExecutionResumed ExecutionStopped"));
    w.now += 60000;
    w.busy = true;
    durable_tick(w.d);
    assert_true(w.d->jobs_at_work <= 8 && !list_empty(&w.d->jobs));
    run_io(&w);
    w.busy = false;
    while (ended < N - 1) {
        int at = 0;

        LIST_EACH(&w.d->all, l)
        {
            struct exec *e = list_entry(l, struct exec, link);

            if (at < 10 && e->launch) { /* as many as the player has place for */
                exec_heap_set(e, w.now);
                e->launch_at_ms = 0;
                at++;
            }
        }
        durable_tick(w.d);
        run_io(&w);
        assert_int_equal(w.calls_n, at);
        for (; w.calls_n; ended++)
            answer(&w, 0, "{\"Status\":\"SUCCEEDED\"}", NULL);
    }
    assert_int_equal(durable_count(w.d, true), 0);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_life), cmocka_unit_test(a_crash_runs_an_invocation_again), cmocka_unit_test(what_fails_is_tried_again),
        cmocka_unit_test(callbacks_and_their_time), cmocka_unit_test(chains), cmocka_unit_test(names_pauses_and_ends), cmocka_unit_test(limits),
        cmocka_unit_test(a_disk_that_refuses), cmocka_unit_test(files_have_an_end), cmocka_unit_test(nothing_lies_behind_the_last_record),
        cmocka_unit_test(no_room_writes_nothing), cmocka_unit_test(histories_come_in_pages), cmocka_unit_test(lists_come_in_pages),
        cmocka_unit_test(the_first_that_ended_goes), cmocka_unit_test(an_event_begins_one_execution), cmocka_unit_test(a_result_has_any_bytes),
        cmocka_unit_test(an_end_is_taken_back), cmocka_unit_test(many_wake_at_once), cmocka_unit_test(tt_durable_what_was_answered_is_there_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
