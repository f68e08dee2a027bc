/* Operations of a durable execution: maps in the contract's form. Members that begin with '_' are our own:
 *   _t         number of its last change, of exec.touched
 *   _timeout   ms when a callback times out, _beat when it does for want of a heartbeat, _beatS how long that is
 *   _seconds   of a wait
 *   _fn, _object, _qualifier, _arn, _in, _trace   of a chained invoke: the target as it was named and as an object, its input;
 *              _child: the id of the execution that it is, when the target is durable */
#include "function/durable/durable_int.h"

#include <ctype.h>
#include <stdio.h>

enum { SECONDS_MAX = 31622400 };

/* ---- the list ---- */

struct val *op_at(struct exec *e, uint32_t index)
{
    return &e->ops->list->items[index];
}

static uint32_t index_of(const struct exec *e, const char *id) /* + 1; 0: none */
{
    return (uint32_t)(uintptr_t)map_get(&e->ops->by_id, id);
}

struct val *op_find(struct exec *e, const char *id)
{
    uint32_t i = index_of(e, id);

    return i ? op_at(e, i - 1) : NULL;
}

void op_put(struct durable_ops *ops, const struct val *op)
{
    const char *id = val_str_at(op, "Id", "");
    uint32_t i = (uint32_t)(uintptr_t)map_get(&ops->by_id, id);

    if (i) {
        ops->list->items[i - 1] = *op;
        return;
    }
    val_push(ops->a, ops->list, op);
    map_put(&ops->by_id, id, (void *)(uintptr_t)val_len(ops->list));
}

void op_touched(struct exec *e, const struct val *op)
{
    uint32_t i = index_of(e, val_str_at(op, "Id", "")) - 1;
    struct val *at = op_at(e, i);

    val_put_int(e->ops->a, at, "_t", (int64_t)++e->touched);
    VAL_EACH(e->ops->changed, it)
        if (it->i == i)
            return;
    val_push(e->ops->a, e->ops->changed, val_int(e->ops->a, i));
}

static struct val *op_make(struct exec *e, const struct val *u)
{
    static const char *const names[] = {"Id", "ParentId", "Name", "Type", "SubType"};
    struct arena *a = e->ops->a;
    struct val *op = val_map(a);

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (val_str_at(u, names[i], NULL))
            val_put_str(a, op, names[i], val_str_at(u, names[i], ""));
    val_put_int(a, op, "StartTimestamp", durable_now(e->d));
    val_put_str(a, op, "Status", "STARTED");
    op_put(e->ops, op);
    return op_find(e, val_str_at(u, "Id", ""));
}

static const char *details_of(const char *type)
{
    static const char *const names[][2] = {{"STEP", "StepDetails"}, {"CONTEXT", "ContextDetails"}, {"WAIT", "WaitDetails"},
        {"CALLBACK", "CallbackDetails"}, {"CHAINED_INVOKE", "ChainedInvokeDetails"}, {"EXECUTION", "ExecutionDetails"}};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i][0], type))
            return names[i][1];
    return "StepDetails";
}

static const char *event_of(const char *type)
{
    static const char *const names[][2] = {{"STEP", "Step"}, {"CONTEXT", "Context"}, {"WAIT", "Wait"}, {"CALLBACK", "Callback"},
        {"CHAINED_INVOKE", "ChainedInvoke"}};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i][0], type))
            return names[i][1];
    return "Execution";
}

static const char *status_event(const char *status)
{
    static const char *const names[][2] = {{"STARTED", "Started"}, {"SUCCEEDED", "Succeeded"}, {"FAILED", "Failed"},
        {"TIMED_OUT", "TimedOut"}, {"STOPPED", "Stopped"}, {"CANCELLED", "Cancelled"}};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i][0], status))
            return names[i][1];
    return "Failed";
}

static bool is_over(const char *status)
{
    return !streq(status, "STARTED") && !streq(status, "PENDING") && !streq(status, "READY");
}

/* ---- events ---- */

struct val *exec_error_object(struct arena *a, const char *type, const char *message)
{
    struct val *v = val_map(a);

    if (type)
        val_put_str(a, v, "ErrorType", type);
    val_put_str(a, v, "ErrorMessage", message);
    return v;
}

struct val *op_event_payload(struct arena *a, const struct val *payload)
{
    struct val *v = val_map(a);

    if (!val_is_null(payload))
        val_put(a, v, "Payload", payload);
    val_put_bool(a, v, "Truncated", false);
    return v;
}

struct val *op_event_add(struct exec *e, const char *type, const struct val *op)
{
    static const char *const names[] = {"SubType", "Id", "Name", "ParentId"};
    struct arena *a = e->ops->a;
    struct val *v = val_map(a);

    val_put_str(a, v, "EventType", type);
    val_put_int(a, v, "EventId", ++e->events_n);
    val_put_int(a, v, "EventTimestamp", durable_now(e->d));
    for (size_t i = 0; i < ARRAY_LEN(names) && op; i++)
        if (val_str_at(op, names[i], NULL))
            val_put_str(a, v, names[i], val_str_at(op, names[i], ""));
    v = val_push(a, e->ops->events, v);
    return val_need_map(a, v, arena_printf(a, "%sDetails", type));
}

static struct val *op_event(struct exec *e, const struct val *op, const char *status)
{
    return op_event_add(e, arena_printf(e->ops->a, "%s%s", event_of(val_str_at(op, "Type", "")), status_event(status)), op);
}

void op_end(struct exec *e, struct val *op, const char *status, const struct val *result, const struct val *error)
{
    struct arena *a = e->ops->a;
    const char *type = val_str_at(op, "Type", "");
    struct val *x = val_map(a), *event;

    result = result ? val_copy(a, result) : NULL;
    if (result)
        val_put(a, x, "Result", result);
    if (error)
        val_put(a, x, "Error", val_copy(a, error));
    if (streq(type, "CALLBACK"))
        val_put_str(a, x, "CallbackId", val_str_at(op, "CallbackDetails.CallbackId", ""));
    if (streq(type, "WAIT"))
        x = val_get(op, "WaitDetails");
    val_put(a, op, details_of(type), x);
    val_put_str(a, op, "Status", status);
    val_put_int(a, op, "EndTimestamp", durable_now(e->d));
    event = op_event(e, op, status);
    if (streq(type, "WAIT")) {
        val_put_int(a, event, "Duration", val_int_at(op, "_seconds", 0));
    } else if (streq(status, "SUCCEEDED")) {
        val_put(a, event, "Result", op_event_payload(a, result));
    } else {
        val_put(a, event, "Error", op_event_payload(a, error ? val_copy(a, error) : NULL));
    }
    val_del(op, "_in"); /* it is not needed again, and may be big */
    op_touched(e, op);
}

/* ---- checks: all of them against what was before the first is applied ---- */

static size_t json_size(const struct val *v)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    size_t n;

    json_text(a, v, &n);
    return n;
}

static bool one_of(const char *s, const char *const *names)
{
    for (; *names; names++)
        if (streq(*names, s))
            return true;
    return false;
}

static int check_metadata(const struct val *op, const struct val *u, struct err *err)
{
    static const char *const names[][2] = {{"Type", "Inconsistent operation type."}, {"SubType", "Inconsistent operation subtype."},
        {"Name", "Inconsistent operation name."}, {"ParentId", "Inconsistent parent operation id."}};

    for (size_t i = 0; op && i < ARRAY_LEN(names); i++) {
        const char *now = val_str_at(u, names[i][0], NULL);

        if (now && !streq0(now, val_str_at(op, names[i][0], NULL)))
            return err_set(err, INVALID_ARGUMENT, "%s", names[i][1]);
    }
    return 0;
}

static int check_sizes(const struct exec *e, const struct val *u, const char *type, struct err *err)
{
    const struct val *payload = val_get(u, "Payload");
    bool big = payload && payload->type == VAL_STR && payload->n > DURABLE_PAYLOAD_MAX;

    if (val_get(u, "Error") && json_size(val_get(u, "Error")) > DURABLE_ERROR_MAX)
        return err_set(err, INVALID_ARGUMENT, "Error object size must be less than %d bytes.", DURABLE_ERROR_MAX);
    if (big && streq(type, "CHAINED_INVOKE"))
        return err_set(err, INVALID_ARGUMENT, "CHAINED_INVOKE input payload size must be less than or equal to %d bytes.", DURABLE_PAYLOAD_MAX);
    if (big && streq(type, "EXECUTION") && e->parent)
        return err_set(err, INVALID_ARGUMENT, "Execution output payload size must be less than or equal to %d bytes.", DURABLE_PAYLOAD_MAX);
    return 0;
}

static int check_action(const char *type, const char *action, struct err *err)
{
    static const struct { const char *type, *actions[5]; } ALLOWED[] = {
        {"STEP", {"START", "FAIL", "RETRY", "SUCCEED", NULL}}, {"CONTEXT", {"START", "FAIL", "SUCCEED", NULL}},
        {"WAIT", {"START", "CANCEL", NULL}}, {"CALLBACK", {"START", NULL}}, {"CHAINED_INVOKE", {"START", NULL}},
        {"EXECUTION", {"SUCCEED", "FAIL", NULL}}};

    for (size_t i = 0; i < ARRAY_LEN(ALLOWED); i++)
        if (streq(ALLOWED[i].type, type))
            return one_of(action, ALLOWED[i].actions) ? 0 : err_set(err, INVALID_ARGUMENT, "Invalid action for the given operation type.");
    return err_set(err, INVALID_ARGUMENT, "Unknown operation type.");
}

static int check_end(const struct val *u, const char *action, struct err *err)
{
    if (streq(action, "FAIL") && val_get(u, "Payload"))
        return err_set(err, INVALID_ARGUMENT, "Cannot provide a Payload for FAIL action.");
    if (streq(action, "SUCCEED") && val_get(u, "Error"))
        return err_set(err, INVALID_ARGUMENT, "Cannot provide an Error for SUCCEED action.");
    return 0;
}

static int check_step(const struct val *op, const struct val *u, const char *action, struct err *err)
{
    const char *status = val_str_at(op, "Status", "");
    bool open = !op || streq(status, "STARTED") || streq(status, "READY");

    if (streq(action, "START"))
        return !op || streq(status, "READY") ? 0 : err_set(err, INVALID_ARGUMENT, "Invalid current STEP state to start.");
    if (!streq(action, "RETRY"))
        return open ? check_end(u, action, err) : err_set(err, INVALID_ARGUMENT, "Invalid current STEP state to close.");
    if (!open)
        return err_set(err, INVALID_ARGUMENT, "Invalid current STEP state to re-attempt.");
    if (!val_get(u, "StepOptions"))
        return err_set(err, INVALID_ARGUMENT, "Invalid StepOptions for the given action.");
    if (val_get(u, "Error") && val_get(u, "Payload"))
        return err_set(err, INVALID_ARGUMENT, "Cannot provide both error and payload to RETRY a STEP.");
    return 0;
}

static int check_state(const struct val *op, const struct val *u, const char *type, const char *action, struct err *err)
{
    if (streq(type, "STEP"))
        return check_step(op, u, action, err);
    if (streq(type, "EXECUTION"))
        return check_end(u, action, err);
    if (streq(type, "CHAINED_INVOKE") && op)
        return err_set(err, INVALID_ARGUMENT, "Cannot start a CHAINED_INVOKE operation that already exists.");
    if (streq(action, "START") && op)
        return err_set(err, INVALID_ARGUMENT, "Cannot start a %s that already exist.", type);
    if (streq(action, "CANCEL") && (!op || !streq(val_str_at(op, "Status", ""), "STARTED")))
        return err_set(err, INVALID_ARGUMENT, "Cannot cancel a WAIT that does not exist or has already completed.");
    if (streq(type, "CHAINED_INVOKE") && !val_str_at(u, "ChainedInvokeOptions.FunctionName", NULL))
        return err_set(err, INVALID_ARGUMENT, "Update for CHAINED_INVOKE operation requires ChainedInvokeOptions.");
    if (streq(type, "CONTEXT") && !streq(action, "START")) {
        if (op && !streq(val_str_at(op, "Status", ""), "STARTED"))
            return err_set(err, INVALID_ARGUMENT, "Invalid current CONTEXT state to close.");
        return check_end(u, action, err);
    }
    return 0;
}

/* Of the updates before this one, the last with that id. */
static const struct val *before(const struct val *updates, const struct val *u, const char *id, const char *action)
{
    const struct val *found = NULL;

    VAL_EACH(updates, it) {
        if (it == u)
            break;
        if (streq(val_str_at(it, "Id", ""), id) && (!action || streq(val_str_at(it, "Action", ""), action)))
            found = it;
    }
    return found;
}

static int check_order(struct exec *e, const struct val *updates, const struct val *u, struct err *err)
{
    const char *id = val_str_at(u, "Id", ""), *action = val_str_at(u, "Action", ""), *parent = val_str_at(u, "ParentId", NULL);
    const struct val *last = before(updates, u, id, NULL), *up;

    if (last) {
        const char *type = val_str_at(last, "Type", "");
        bool pair = (streq(type, "STEP") || streq(type, "CONTEXT")) && streq(val_str_at(last, "Action", ""), "START") && !streq(action, "START");

        if (!pair)
            return err_set(err, INVALID_ARGUMENT, "Cannot checkpoint multiple operations with the same ID.");
    }
    if (!parent)
        return 0;
    up = before(updates, u, parent, "START");
    up = up ? up : op_find(e, parent);
    if (!up || !streq(val_str_at(up, "Type", ""), "CONTEXT"))
        return err_set(err, INVALID_ARGUMENT, "Invalid parent operation id.");
    return 0;
}

static int check_all(struct exec *e, const struct val *updates, struct err *err)
{
    uint32_t ends = 0, left = val_len(updates), fresh = 0;

    VAL_EACH(updates, u)
        ends += streq(val_str_at(u, "Type", ""), "EXECUTION");
    if (ends > 1)
        return err_set(err, INVALID_ARGUMENT, "Cannot checkpoint multiple EXECUTION updates.");
    VAL_EACH(updates, u) {
        const char *type = val_str_at(u, "Type", ""), *action = val_str_at(u, "Action", "");
        const struct val *op = op_find(e, val_str_at(u, "Id", ""));

        left--;
        if (ends && streq(type, "EXECUTION") && left)
            return err_set(err, INVALID_ARGUMENT, "EXECUTION checkpoint must be the last update.");
        fresh += !op;
        if (check_order(e, updates, u, err) < 0 || check_metadata(op, u, err) < 0 || check_sizes(e, u, type, err) < 0 ||
            check_action(type, action, err) < 0 || check_state(op, u, type, action, err) < 0)
            return -1;
    }
    if (fresh && val_len(e->ops->list) + fresh > DURABLE_OPERATIONS_MAX + 1)
        return err_set(err, TOO_LARGE, "The execution has more than %d operations.", DURABLE_OPERATIONS_MAX);
    return 0;
}

/* ---- what an update makes ---- */

/* A string, with whatever bytes; or NULL. */
static const struct val *payload_of(const struct val *u)
{
    const struct val *v = val_get(u, "Payload");

    return val_is(v, VAL_STR) ? v : NULL;
}

static void step_ended(struct exec *e, struct val *op, const struct val *u, const char *status)
{
    struct arena *a = e->ops->a;
    int64_t attempt = val_int_at(op, "StepDetails.Attempt", 0) + 1;

    op_end(e, op, status, payload_of(u), val_get(u, "Error"));
    val_put_int(a, val_need_map(a, op, "StepDetails"), "Attempt", attempt);
    val_put_int(a, val_need_map(a, val_get(&e->ops->events->items[e->ops->events->n - 1], streq(status, "FAILED") ? "StepFailedDetails" : "StepSucceededDetails"),
                                "RetryDetails"), "CurrentAttempt", attempt);
}

static void step_again(struct exec *e, struct val *op, const struct val *u)
{
    struct arena *a = e->ops->a;
    int64_t delay = MIN(MAX(val_int_at(u, "StepOptions.NextAttemptDelaySeconds", 1), (int64_t)1), (int64_t)SECONDS_MAX);
    int64_t attempt = val_int_at(op, "StepDetails.Attempt", 0) + 1;
    const struct val *error = val_get(u, "Error");
    struct val *x = val_map(a), *event;

    val_put_int(a, x, "Attempt", attempt);
    val_put_int(a, x, "NextAttemptTimestamp", durable_now(e->d) + delay * 1000);
    if (payload_of(u))
        val_put(a, x, "Result", val_copy(a, payload_of(u)));
    if (error)
        val_put(a, x, "Error", val_copy(a, error));
    val_put(a, op, "StepDetails", x);
    val_put_str(a, op, "Status", "PENDING");
    event = op_event(e, op, error ? "FAILED" : "SUCCEEDED");
    val_put(a, event, error ? "Error" : "Result", op_event_payload(a, error ? val_get(x, "Error") : val_get(x, "Result")));
    x = val_need_map(a, event, "RetryDetails");
    val_put_int(a, x, "CurrentAttempt", attempt);
    val_put_int(a, x, "NextAttemptDelaySeconds", delay);
    op_touched(e, op);
}

static void step_update(struct exec *e, struct val *op, const struct val *u, const char *action)
{
    struct arena *a = e->ops->a;

    if (streq(action, "SUCCEED")) {
        step_ended(e, op, u, "SUCCEEDED");
    } else if (streq(action, "FAIL")) {
        step_ended(e, op, u, "FAILED");
    } else if (streq(action, "RETRY")) {
        step_again(e, op, u);
    } else {
        struct val *x = val_need_map(a, op, "StepDetails");

        val_del(x, "NextAttemptTimestamp");
        val_del(x, "Error");
        val_put_int(a, x, "Attempt", val_int_at(x, "Attempt", 0)); /* its Result stays: a condition's state */
        val_put_str(a, op, "Status", "STARTED");
        op_event(e, op, "STARTED");
        op_touched(e, op);
    }
}

static void context_update(struct exec *e, struct val *op, const struct val *u, const char *action)
{
    struct arena *a = e->ops->a;

    if (streq(action, "START")) {
        val_need_map(a, op, "ContextDetails");
        op_event(e, op, "STARTED");
        op_touched(e, op);
        return;
    }
    op_end(e, op, streq(action, "FAIL") ? "FAILED" : "SUCCEEDED", payload_of(u), val_get(u, "Error"));
    if (val_bool_at(u, "ContextOptions.ReplayChildren", false))
        val_put_bool(a, val_need_map(a, op, "ContextDetails"), "ReplayChildren", true);
}

static void wait_update(struct exec *e, struct val *op, const struct val *u, const char *action)
{
    struct arena *a = e->ops->a;
    int64_t seconds = MIN(MAX(val_int_at(u, "WaitOptions.WaitSeconds", 1), (int64_t)1), (int64_t)SECONDS_MAX);
    int64_t end = durable_now(e->d) + seconds * 1000;
    struct val *event;

    if (streq(action, "CANCEL")) {
        op_end(e, op, "CANCELLED", NULL, NULL);
        val_del(val_get(&e->ops->events->items[e->ops->events->n - 1], "WaitCancelledDetails"), "Duration");
        return;
    }
    val_put_int(a, val_need_map(a, op, "WaitDetails"), "ScheduledEndTimestamp", end);
    val_put_int(a, op, "_seconds", seconds);
    event = op_event(e, op, "STARTED");
    val_put_int(a, event, "Duration", seconds);
    val_put_int(a, event, "ScheduledEndTimestamp", end);
    op_touched(e, op);
}

static void callback_update(struct exec *e, struct val *op, const struct val *u)
{
    struct arena *a = e->ops->a;
    int64_t timeout = val_int_at(u, "CallbackOptions.TimeoutSeconds", 0), beat = val_int_at(u, "CallbackOptions.HeartbeatTimeoutSeconds", 0);
    const char *id = exec_token_text(a, arena_printf(a, "%s:%s", e->id, val_str_at(op, "Id", "")));
    struct val *event;

    val_put_str(a, val_need_map(a, op, "CallbackDetails"), "CallbackId", id);
    if (timeout > 0)
        val_put_int(a, op, "_timeout", durable_now(e->d) + timeout * 1000);
    if (beat > 0) {
        val_put_int(a, op, "_beat", durable_now(e->d) + beat * 1000);
        val_put_int(a, op, "_beatS", beat);
    }
    event = op_event(e, op, "STARTED");
    val_put_str(a, event, "CallbackId", id);
    val_put_int(a, event, "HeartbeatTimeout", MAX(beat, (int64_t)0));
    val_put_int(a, event, "Timeout", MAX(timeout, (int64_t)0));
    op_touched(e, op);
}

/* The target as it is now; NULL: it is one. Else why not. */
static struct val *target_of(struct exec *e, struct val *op, struct val *event)
{
    struct arena *a = e->ops->a;
    const char *qualifier = val_str_at(op, "_qualifier", NULL);
    struct durable_target t = {0};
    struct err err;

    if (e->d->target(e->d->arg, e->ns, val_str_at(op, "_object", ""), qualifier, &t, &err) < 0)
        return exec_error_object(a, err.code == ERR_NOT_FOUND ? "ResourceNotFoundException" : "ServiceException", err.msg);
    if (t.durable && !qualifier)
        return exec_error_object(a, "InvalidParameterValueException", DURABLE_UNQUALIFIED);
    val_put_str(a, event, "ExecutedVersion", t.version);
    if (qualifier) /* an alias is resolved once */
        val_put_str(a, op, "_qualifier", t.version);
    if (t.durable)
        val_put_str(a, op, "_child", exec_id_from(a, arena_printf(a, "%s/%s", e->id, val_str_at(op, "Id", ""))));
    return NULL;
}

static void invoke_update(struct exec *e, struct val *op, const struct val *u)
{
    struct arena *a = e->ops->a;
    const struct val *options = val_get(u, "ChainedInvokeOptions");
    struct val *event, *error;

    val_need_map(a, op, "ChainedInvokeDetails");
    val_put_str(a, op, "_fn", val_str_at(options, "FunctionName", ""));
    val_put_str(a, op, "_object", val_str_at(options, "_object", val_str_at(options, "FunctionName", "")));
    if (val_str_at(options, "_arn", NULL))
        val_put_str(a, op, "_arn", val_str_at(options, "_arn", ""));
    if (val_str_at(options, "_qualifier", NULL))
        val_put_str(a, op, "_qualifier", val_str_at(options, "_qualifier", ""));
    if (payload_of(u))
        val_put(a, op, "_in", val_copy(a, payload_of(u)));
    if (val_str_at(options, "XAmznTraceId", NULL))
        val_put_str(a, op, "_trace", val_str_at(options, "XAmznTraceId", ""));
    event = op_event(e, op, "STARTED");
    val_put_str(a, event, "FunctionName", val_str_at(options, "FunctionName", ""));
    if (val_str_at(options, "TenantId", NULL))
        val_put_str(a, event, "TenantId", val_str_at(options, "TenantId", ""));
    val_put(a, event, "Input", op_event_payload(a, val_get(op, "_in")));
    error = target_of(e, op, event);
    if (error) {
        op_end(e, op, "FAILED", NULL, error);
        return;
    }
    e->chains = true;
    op_touched(e, op);
}

static void update(struct exec *e, const struct val *u)
{
    const char *type = val_str_at(u, "Type", ""), *action = val_str_at(u, "Action", "");
    struct val *op;

    if (streq(type, "EXECUTION")) {
        exec_finish(e, streq(action, "FAIL") ? D_FAILED : D_SUCCEEDED, val_get(u, "Payload"), val_get(u, "Error"));
        return;
    }
    op = op_find(e, val_str_at(u, "Id", ""));
    if (!op)
        op = op_make(e, u);
    if (streq(type, "STEP"))
        step_update(e, op, u, action);
    else if (streq(type, "CONTEXT"))
        context_update(e, op, u, action);
    else if (streq(type, "WAIT"))
        wait_update(e, op, u, action);
    else if (streq(type, "CALLBACK"))
        callback_update(e, op, u);
    else
        invoke_update(e, op, u);
}

int ops_update(struct exec *e, const struct val *updates, struct err *err)
{
    if (check_all(e, updates, err) < 0)
        return -1;
    VAL_EACH(updates, u)
        update(e, u);
    return 0;
}

/* ---- time ---- */

/* When an operation is due by itself; 0: never. *ret_what: 'w' its wait, 'r' its next try, 't', 'h' of a callback. */
static int64_t due_of(const struct val *op, char *ret_what)
{
    const char *type = val_str_at(op, "Type", ""), *status = val_str_at(op, "Status", "");
    int64_t timeout, beat;

    *ret_what = 0;
    if (streq(status, "PENDING") && streq(type, "STEP")) {
        *ret_what = 'r';
        return val_int_at(op, "StepDetails.NextAttemptTimestamp", 0);
    }
    if (!streq(status, "STARTED"))
        return 0;
    if (streq(type, "WAIT")) {
        *ret_what = 'w';
        return val_int_at(op, "WaitDetails.ScheduledEndTimestamp", 0);
    }
    if (!streq(type, "CALLBACK"))
        return 0;
    timeout = val_int_at(op, "_timeout", 0);
    beat = val_int_at(op, "_beat", 0);
    *ret_what = beat && (!timeout || beat < timeout) ? 'h' : 't';
    return *ret_what == 'h' ? beat : timeout;
}

bool ops_due(struct exec *e, int64_t now)
{
    bool any = false;

    for (uint32_t i = 0; i < val_len(e->ops->list); i++) {
        struct val *op = op_at(e, i), *x;
        struct arena *a = e->ops->a;
        char what;
        int64_t at = due_of(op, &what);

        if (!at || at > now)
            continue;
        any = true;
        if (what == 'w') {
            op_end(e, op, "SUCCEEDED", NULL, NULL);
        } else if (what == 'r') {
            x = val_need_map(a, op, "StepDetails");
            val_del(x, "NextAttemptTimestamp");
            val_put_str(a, op, "Status", "READY");
            op_touched(e, op);
        } else {
            op_end(e, op, "TIMED_OUT", NULL, exec_error_object(a, what == 'h' ? "Callback.Heartbeat" : "Callback.Timeout",
                                                          what == 'h' ? "Callback timed out on heartbeat" : "Callback timed out"));
        }
    }
    return any;
}

int64_t ops_next(const struct exec *e)
{
    int64_t next = 0;

    VAL_EACH(e->ops->list, op) {
        char what;
        int64_t at = due_of(op, &what);

        if (at && (!next || at < next))
            next = at;
    }
    return next;
}

bool ops_waiting(const struct exec *e)
{
    VAL_EACH(e->ops->list, op) {
        const char *type = val_str_at(op, "Type", ""), *status = val_str_at(op, "Status", "");

        if (streq(status, "PENDING") || (streq(status, "STARTED") && (streq(type, "WAIT") || streq(type, "CALLBACK") || streq(type, "CHAINED_INVOKE"))))
            return true;
    }
    return false;
}

bool op_hidden(struct exec *e, const struct val *op)
{
    const char *parent = val_str_at(op, "ParentId", NULL);
    int depth = 0;

    for (const struct val *up; parent && depth < DURABLE_OPERATIONS_MAX; parent = val_str_at(up, "ParentId", NULL), depth++) {
        up = op_find(e, parent);
        if (!up)
            return false;
        if (is_over(val_str_at(up, "Status", "")) && !val_bool_at(up, "ContextDetails.ReplayChildren", false))
            return true;
    }
    return false;
}
