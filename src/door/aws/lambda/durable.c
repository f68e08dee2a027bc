/* door/aws/lambda/durable.c - Lambda's operations on durable executions, translated to function/durable/durable.h; and scaling configurations,
 * which only functions on rented instances have. */
#include <ctype.h>
#include <stdio.h>

#include "codec/kubetime.h"
#include "door/aws/lambda/lambda_int.h"
#include "function/durable/durable.h"

static struct durable *engine(struct op *op)
{
    return functions_durable(op->q->d->o.functions);
}

/* ---- answers ---- */

/* Times are ms inside, seconds in an answer. */
static struct val *with_seconds(struct arena *a, const struct val *v)
{
    struct val *out;

    if (val_is(v, VAL_LIST)) {
        out = val_list(a);
        VAL_EACH(v, it)
            val_push(a, out, with_seconds(a, it));
        return out;
    }
    if (!val_is(v, VAL_MAP))
        return val_copy(a, v);
    out = val_map(a);
    VAL_EACH_MEMBER(v, m)
        if (str_ends(m->key, "Timestamp") && m->v.type == VAL_INT)
            val_put(a, out, m->key, m->v.i % 1000 ? val_double(a, (double)m->v.i / 1000) : val_int(a, m->v.i / 1000));
        else
            val_put(a, out, m->key, with_seconds(a, &m->v));
    return out;
}

static void durable_error(struct op *op, const struct err *err)
{
    static const struct { enum err_code code; int status; const char *type; } ERRORS[] = {
        {ERR_INVALID_ARGUMENT, 400, "InvalidParameterValueException"}, {ERR_NOT_FOUND, 404, "ResourceNotFoundException"},
        {ERR_CONFLICT, 409, "ResourceConflictException"}, {ERR_EXPIRED, 400, "CallbackTimeoutException"},
        {ERR_ALREADY_EXISTS, 409, "DurableExecutionAlreadyStartedException"}, {ERR_TOO_MANY, 429, "TooManyRequestsException"},
        {ERR_TOO_LARGE, 413, "RequestEntityTooLargeException"}};

    for (size_t i = 0; i < ARRAY_LEN(ERRORS); i++)
        if (ERRORS[i].code == err->code) {
            lambda_error(op->q, ERRORS[i].status, ERRORS[i].type, "%s", err->msg);
            return;
        }
    lambda_error(op->q, err->code == ERR_UNAVAILABLE ? 503 : 500, "ServiceException", "%s", err->msg);
}

static void on_done(void *arg, const struct val *v, const struct err *err)
{
    struct op *op = arg;

    if (http_gone(op->q->req))
        http_abort(op->q->req);
    else if (err)
        durable_error(op, err);
    else
        lambda_reply(op->q, op->create ? 202 : 200, with_seconds(op->q->req->arena, v));
}

/* ---- Invoke ---- */

/* X-Amz-Durable-Execution-Name, when there is one; false: answered. */
static bool take_execution_name(struct op *op, struct function_call *call)
{
    const char *name = http_get(op->q->req, "x-amz-durable-execution-name");
    bool good = name && *name;

    if (!name)
        return true;
    for (const char *p = name; *p && good; p++)
        good = isalnum((unsigned char)*p) || *p == '-' || *p == '_';
    if (good && strlen(name) <= DURABLE_NAME_MAX) {
        call->execution = name;
        return true;
    }
    lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.100s' at 'durableExecutionName' failed to satisfy "
                 "constraint: Member must %s", name, good ? "have length less than or equal to 64" : "satisfy regular expression pattern: [a-zA-Z0-9-_]+");
    return false;
}

bool lambda_durable_call(struct op *op, struct function_call *call, bool waits)
{
    int timeout_s = function_durable_s(op->q->d->o.functions, call->namespace_, call->name, call->qualifier);

    if (!take_execution_name(op, call))
        return false;
    if (timeout_s && !call->qualifier) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "%s", DURABLE_UNQUALIFIED);
        return false;
    }
    if (!timeout_s && call->execution) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "You cannot provide a durable execution name for a function without DurableConfig.");
        return false;
    }
    if (waits && timeout_s > DURABLE_SYNC_MAX_S) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "You cannot synchronously invoke a durable function with an executionTimeout greater than 15 minutes.");
        return false;
    }
    return true;
}

static void on_event(void *arg, const struct err *err, const char *arn)
{
    struct op *op = arg;

    if (http_gone(op->q->req)) {
        http_abort(op->q->req);
    } else if (err->code) {
        durable_error(op, err);
    } else {
        http_header(op->q->req, "X-Amz-Durable-Execution-Arn", arena_strdup(op->q->req->arena, arn));
        lambda_reply(op->q, 202, NULL);
    }
}

bool lambda_durable_event(struct op *op, const struct function_call *call)
{
    struct aws_req *q = op->q;
    struct durable_start s = {.ns = call->namespace_, .name = call->name, .qualifier = call->qualifier,
        .function_arn = lambda_arn(q, op->n.name), .execution = call->execution, .payload = call->payload, .n = call->n, .trace_id = call->trace_id};
    struct err err;

    if (!function_durable_s(q->d->o.functions, call->namespace_, call->name, call->qualifier))
        return false;
    if (call->n && !json_parse(q->req->arena, call->payload, call->n, &err))
        lambda_error(q, 400, "InvalidRequestContentException", "Could not parse request body into json: %s", err.msg);
    else
        durable_start(engine(op), &s, on_event, op);
    return true;
}

/* ---- what the SDKs ask ---- */

/* The target of a chained invoke as objects are called, and may the caller invoke it? false: answered. */
static bool name_target(struct op *op, struct val *options)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *said = val_str_at(options, "FunctionName", NULL), *arn;
    struct lambda_name n;
    struct err err;

    if (!said)
        return true; /* the engine says so */
    if (lambda_name_parse(q, said, &n, &err) < 0) {
        lambda_error(q, 400, "InvalidParameterValueException", "Invalid function ARN '%.200s'", said);
        return false;
    }
    arn = lambda_arn(q, n.name);
    if (str_starts(said, "arn:") && (strncmp(said, arn, strlen(arn)) || (said[strlen(arn)] && said[strlen(arn)] != ':'))) {
        lambda_error(q, 400, "InvalidParameterValueException", "Cannot start a CHAINED_INVOKE on a function in another account or region.");
        return false;
    }
    val_put_str(a, options, "_object", n.object);
    val_put_str(a, options, "_arn", arn);
    val_del(options, "_qualifier"); /* what is invoked is what is asked for below, whatever the request has of ours */
    if (n.qualifier)
        val_put_str(a, options, "_qualifier", n.qualifier);
    return lambda_may_invoke(op, n.object, n.qualifier ? arena_printf(a, "%s:%s", arn, n.qualifier) : arn);
}

void op_checkpoint(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *updates = val_copy(a, val_get(op->in, "Updates") ? val_get(op->in, "Updates") : val_list(a));

    VAL_EACH(updates, u)
        if (val_get(u, "ChainedInvokeOptions") && !name_target(op, val_get(u, "ChainedInvokeOptions")))
            return;
    durable_checkpoint(engine(op), op->raw_name, val_str_at(op->in, "CheckpointToken", ""), val_str_at(op->in, "ClientToken", NULL), updates, on_done, op);
}

static int max_items(struct op *op)
{
    const char *s = http_param(op->q->req, "MaxItems");

    return s ? (int)strtol(s, NULL, 10) : 0; /* the model's bounds were checked */
}

void op_execution_state(struct op *op)
{
    const char *token = http_param(op->q->req, "CheckpointToken");

    durable_state(engine(op), op->raw_name, token ? token : "", http_param(op->q->req, "Marker"), max_items(op), on_done, op);
}

/* ---- what others ask ---- */

static bool flag(struct op *op, const char *name, bool otherwise)
{
    const char *s = http_param(op->q->req, name);

    return s ? streq(s, "true") : otherwise;
}

void op_get_execution(struct op *op)
{
    durable_get(engine(op), op->raw_name, flag(op, "IncludeExecutionData", true), on_done, op);
}

void op_execution_history(struct op *op)
{
    durable_history(engine(op), op->raw_name, flag(op, "IncludeExecutionData", true), flag(op, "ReverseOrder", false),
                    http_param(op->q->req, "Marker"), max_items(op), on_done, op);
}

/* A time of the query: RFC 3339, or seconds. -1: answered. */
static int64_t time_param(struct op *op, const char *name)
{
    const char *s = http_param(op->q->req, name);
    int64_t ms = s ? kubetime_parse(s) : 0;
    char *end;
    double seconds;

    if (!s || ms >= 0)
        return ms;
    seconds = strtod(s, &end);
    if (*s && !*end && seconds >= 0 && seconds < 1e11)
        return (int64_t)(seconds * 1000);
    lambda_error(op->q, 400, "SerializationException", "'%.60s' can not be converted to Date", s);
    return -1;
}

void op_list_executions(struct op *op)
{
    struct aws_req *q = op->q;
    struct durable_filter f = {.ns = LAMBDA_NS, .name = op->n.object, .execution = http_param(q->req, "DurableExecutionName"),
        .oldest_first = flag(op, "ReverseOrder", false), .marker = http_param(q->req, "Marker"), .max_items = max_items(op)};
    const char *name, *value;
    struct lambda_qualified w;
    struct err err = {0};
    struct val *v;
    int statuses = 0;

    f.after_ms = time_param(op, "StartedAfter");
    f.before_ms = f.after_ms < 0 ? 0 : time_param(op, "StartedBefore");
    if (f.after_ms < 0 || f.before_ms < 0)
        return;
    for (size_t i = 0; http_param_next(q->req, &i, &name, &value);)
        if (streq(name, "Statuses")) {
            f.status = value;
            statuses++;
        }
    if (statuses > 1) {
        lambda_error(q, 400, "InvalidParameterValueException", "Cannot filter by more than one status");
        return;
    }
    if (lambda_qualified(op, &w) < 0)
        return;
    if (op->n.qualifier)
        f.version = w.version ? arena_printf(q->req->arena, "%lld", (long long)val_int_at(obj_val(w.version), "spec.version", 0)) : "$LATEST";
    v = durable_list(engine(op), q->req->arena, &f, &err);
    if (v)
        lambda_reply(q, 200, with_seconds(q->req->arena, v));
    else
        durable_error(op, &err);
}

/* The members of an ErrorObject that are as they should be; NULL: none was sent. */
static const struct val *error_of(struct op *op)
{
    static const char *const NAMES[] = {"ErrorMessage", "ErrorType", "ErrorData"};
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *lines = val_list(a);

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (val_str_at(op->in, NAMES[i], NULL))
            val_put(a, v, NAMES[i], val_get(op->in, NAMES[i]));
    VAL_EACH(val_get(op->in, "StackTrace"), it)
        if (it->type == VAL_STR)
            val_push(a, lines, it);
    if (val_len(lines))
        val_put(a, v, "StackTrace", lines);
    return val_len(v) ? v : NULL;
}

static bool error_fits(struct op *op)
{
    if (op->q->body_n <= DURABLE_PAYLOAD_MAX)
        return true;
    lambda_error(op->q, 400, "InvalidParameterValueException", "The error must be smaller than %d bytes.", DURABLE_PAYLOAD_MAX);
    return false;
}

void op_stop_execution(struct op *op)
{
    if (error_fits(op))
        durable_stop(engine(op), op->raw_name, error_of(op), on_done, op);
}

void op_pause_execution(struct op *op)
{
    op->create = true; /* 202 */
    durable_pause(engine(op), op->raw_name, val_str_at(op->in, "ClientToken", NULL), val_str_at(op->in, "Reason", NULL),
                  val_bool_at(op->in, "ExecutionTimeoutPaused", true), on_done, op);
}

void op_resume_execution(struct op *op)
{
    op->create = true;
    durable_resume(engine(op), op->raw_name, val_str_at(op->in, "ClientToken", NULL), val_str_at(op->in, "Reason", NULL), on_done, op);
}

void op_delete_execution(struct op *op)
{
    op->create = true;
    durable_delete(engine(op), op->raw_name, on_done, op);
}

/* ---- callbacks ---- */

const char *lambda_callback_resource(struct op *op)
{
    const char *arn = durable_of_callback(engine(op), op->q->req->arena, op->raw_name);

    return arn ? arn : "*";
}

void op_callback_succeed(struct op *op)
{
    struct aws_req *q = op->q;

    if (q->body_n > DURABLE_PAYLOAD_MAX)
        lambda_error(q, 400, "InvalidParameterValueException", "The result must be smaller than %d bytes.", DURABLE_PAYLOAD_MAX);
    else
        durable_callback(engine(op), op->raw_name, DURABLE_SUCCEED, q->body_n ? q->body : NULL, q->body_n, NULL, on_done, op);
}

void op_callback_fail(struct op *op)
{
    if (error_fits(op))
        durable_callback(engine(op), op->raw_name, DURABLE_FAIL, NULL, 0, error_of(op), on_done, op);
}

void op_callback_beat(struct op *op)
{
    durable_callback(engine(op), op->raw_name, DURABLE_HEARTBEAT, NULL, 0, NULL, on_done, op);
}

/* ---- scaling ---- */

void op_scaling_config(struct op *op)
{
    struct lambda_qualified w;

    if (op->n.qualifier && streq(op->n.qualifier, "$LATEST.PUBLISHED"))
        op->n.qualifier = NULL; /* what was published last; of the function, here */
    if (lambda_qualified(op, &w) == 0)
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "Function scaling configurations are only of functions with a capacity provider: %s has none.", lambda_arn(op->q, op->n.name));
}
