/* door/aws/lambda_settings.c - what is set beside code and configuration: concurrency, events, tags, account. */
#include <time.h>

#include "door/aws/lambda_int.h"
#include "function/code.h"

static void reply_concurrency(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *n = val_at(obj_val(o), "spec.reservedConcurrency");
    struct val *v = val_map(a);

    if (!val_is_null(n))
        val_put(a, v, "ReservedConcurrentExecutions", n);
    lambda_reply(op->q, 200, v);
}
void op_put_concurrency(struct op *op)
{
    struct arena *a = op->q->req->arena;
    int64_t n = val_int_at(op->in, "ReservedConcurrentExecutions", -1);

    if (!lambda_need(op))
        return;
    if (n < 0 || n > 1000) {
        lambda_error(op->q, 400, n < 0 ? "ValidationException" : "InvalidParameterValueException",
                     n < 0 ? "1 validation error detected: Value at 'reservedConcurrentExecutions' failed to satisfy constraint: "
                             "Member must have value greater than or equal to 0"
                           : "Specified ReservedConcurrentExecutions for function decreases account's "
                             "UnreservedConcurrentExecution below its minimum value.");
        return;
    }
    op->patch = val_map(a);
    val_put_int(a, val_need_map(a, op->patch, "spec"), "reservedConcurrency", n);
    lambda_patch(op, NULL, reply_concurrency);
}
void op_get_concurrency(struct op *op)
{
    const struct obj *o = lambda_need(op);

    if (o)
        reply_concurrency(op, o);
}
void op_delete_concurrency(struct op *op)
{
    if (lambda_need(op))
        lambda_clear(op, "reservedConcurrency");
}

static struct val *event_conf(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *spec = val_get(obj_val(o), "spec");
    struct val *v = val_map(a);

    val_put(a, v, "FunctionArn", val_printf(a, "%s:$LATEST", lambda_arn(op->q, op->n.name)));
    val_put_int(a, v, "LastModified", (int64_t)time(NULL));
    val_put_int(a, v, "MaximumRetryAttempts", val_int_at(spec, "retries", 2));
    val_put_int(a, v, "MaximumEventAgeInSeconds", val_int_at(spec, "maximumEventAgeSeconds", 21600));
    val_need_map(a, val_need_map(a, v, "DestinationConfig"), "OnSuccess");
    val_need_map(a, val_get(v, "DestinationConfig"), "OnFailure");
    return v;
}
static void reply_event_conf(struct op *op, const struct obj *o)
{
    lambda_reply(op->q, 200, event_conf(op, o));
}
static bool has_event_conf(const struct obj *o)
{
    return !val_is_null(val_at(obj_val(o), "spec.retries")) || !val_is_null(val_at(obj_val(o), "spec.maximumEventAgeSeconds"));
}
static void list_event_confs(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *list = val_list(a);

    if (has_event_conf(o))
        val_push(a, list, event_conf(op, o));
    val_put(a, v, "FunctionEventInvokeConfigs", list);
    lambda_reply(op->q, 200, v);
}
void op_put_event_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct val *tries = val_get(op->in, "MaximumRetryAttempts"), *age = val_get(op->in, "MaximumEventAgeInSeconds");
    struct val *spec;

    if (!lambda_need(op))
        return;
    if ((!val_is_null(tries) && (tries->type != VAL_INT || tries->i < 0 || tries->i > 2)) ||
        (!val_is_null(age) && (age->type != VAL_INT || age->i < 60 || age->i > 21600))) {
        lambda_error(op->q, 400, "ValidationException",
                     "1 validation error detected: MaximumRetryAttempts must be 0 to 2, MaximumEventAgeInSeconds 60 to 21600");
        return;
    }
    if (!val_is_null(val_at(op->in, "DestinationConfig.OnSuccess.Destination")) ||
        !val_is_null(val_at(op->in, "DestinationConfig.OnFailure.Destination"))) {
        lambda_error(op->q, 501, "NotImplementedException", "tandem does not serve destinations of events yet");
        return;
    }
    op->patch = val_map(a);
    spec = val_need_map(a, op->patch, "spec");
    val_put(a, spec, "retries", tries ? tries : val_null(a));
    val_put(a, spec, "maximumEventAgeSeconds", age ? age : val_null(a));
    lambda_patch(op, NULL, reply_event_conf);
}
void op_get_event_conf(struct op *op)
{
    const struct obj *o = lambda_need(op);

    if (!o)
        return;
    if (op->path_n > 1 && streq(op->path[1], "list"))
        list_event_confs(op, o);
    else if (!has_event_conf(o))
        lambda_error(op->q, 404, "ResourceNotFoundException", "The function %s doesn't have an EventInvokeConfig",
                     lambda_arn(op->q, op->n.name));
    else
        reply_event_conf(op, o);
}
void op_delete_event_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *spec;

    if (!lambda_need(op))
        return;
    op->patch = val_map(a);
    spec = val_need_map(a, op->patch, "spec");
    val_put(a, spec, "retries", val_null(a));
    val_put(a, spec, "maximumEventAgeSeconds", val_null(a));
    lambda_patch(op, NULL, lambda_reply_none);
}

void op_list_tags(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = lambda_need(op);
    struct val *v;

    if (!o)
        return;
    v = val_map(a);
    if (val_at(obj_val(o), "spec.tags"))
        val_put(a, v, "Tags", val_at(obj_val(o), "spec.tags"));
    else
        val_need_map(a, v, "Tags");
    lambda_reply(op->q, 200, v);
}
void op_tag(struct op *op)
{
    struct arena *a = op->q->req->arena;

    if (!lambda_need(op))
        return;
    if (!val_is(val_get(op->in, "Tags"), VAL_MAP)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Tags must be a map");
        return;
    }
    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "spec"), "tags", val_get(op->in, "Tags"));
    lambda_patch(op, NULL, lambda_reply_none);
}
void op_untag(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const char *name, *value;
    struct val *tags;

    if (!lambda_need(op))
        return;
    op->patch = val_map(a);
    tags = val_need_map(a, val_need_map(a, op->patch, "spec"), "tags");
    for (size_t i = 0; http_param_next(op->q->req, &i, &name, &value);)
        if (streq(name, "tagKeys"))
            val_put(a, tags, value, val_null(a));
    lambda_patch(op, NULL, lambda_reply_none);
}
