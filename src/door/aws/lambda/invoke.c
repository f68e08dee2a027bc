/* door/aws/lambda/invoke.c - Invoke in its forms. */
#include <stdio.h>

#include "door/aws/lambda/lambda_int.h"

enum { INVOKE_ASYNC_MAX = FUNCTION_PAYLOAD_ASYNC_MAX };

bool lambda_refused(struct op *op, const struct function_result *r)
{
    struct aws_req *q = op->q;

    if (r->err.code == ERR_OK)
        return false;
    if (r->error_type) {
        lambda_error(q, streq(r->error_type, "SnapStartException") ? 400 : r->err.code == ERR_TIMEOUT ? 408 : err_http(r->err.code),
                     r->error_type, "%s", r->err.msg);
    } else if (r->err.code == ERR_NOT_FOUND) {
        lambda_not_found(op);
    } else if (r->err.code == ERR_ALREADY_EXISTS) {
        lambda_error(q, 409, "DurableExecutionAlreadyStartedException", "%s", r->err.msg);
    } else if (r->err.code == ERR_TOO_MANY) {
        struct arena *a = q->req->arena;
        struct val *v = val_map(a);

        val_put_str(a, v, "Type", "User");
        val_put_str(a, v, "Reason", r->throttle_reason ? r->throttle_reason : "ConcurrentInvocationLimitExceeded");
        val_put_str(a, v, "message", "Rate Exceeded.");
        val_put_str(a, v, "Message", "Rate Exceeded.");
        http_header(q->req, "x-amzn-ErrorType", "TooManyRequestsException");
        lambda_reply(q, 429, v);
    } else if (r->err.code == ERR_TOO_LARGE) {
        lambda_error(q, 413, "RequestEntityTooLargeException", "%s", r->err.msg);
    } else if (r->err.code == ERR_INVALID_ARGUMENT) {
        lambda_error(q, 400, "InvalidRequestContentException", "%s", r->err.msg);
    } else if (r->err.code == ERR_NOT_IMPLEMENTED) {
        lambda_error(q, 502, "InvalidRuntimeException", "%s", r->err.msg);
    } else {
        lambda_error(q, r->err.code == ERR_UNAVAILABLE ? 503 : 500, "ServiceException", "%s", r->err.msg);
    }
    return true;
}

static void on_result(void *arg, const struct function_result *r)
{
    struct op *op = arg;
    struct aws_req *q = op->q;
    char timing[FUNCTION_TIMING_MAX];

    if (http_gone(q->req)) {
        http_abort(q->req);
        return;
    }
    if (!lambda_refused(op, r)) {
        http_header(q->req, "x-amzn-RequestId", r->request_id ? r->request_id : q->id);
        http_header(q->req, "X-Amz-Executed-Version", r->version ? r->version : "$LATEST");
        if (r->durable_arn)
            http_header(q->req, "X-Amz-Durable-Execution-Arn", arena_strdup(q->req->arena, r->durable_arn));
        if (r->function_error)
            http_header(q->req, "X-Amz-Function-Error", r->function_error);
        if (r->log_tail)
            http_header(q->req, "X-Amz-Log-Result", b64_encode(q->req->arena, r->log_tail, r->log_tail_n));
        function_timing_text(r, timing);
        http_header(q->req, "X-Tandem-Timing", timing);
        http_reply(q->req, 200, "application/json", r->payload, r->n);
    }
}

static void on_queued(void *arg, const struct err *err, const char *request_id)
{
    struct op *op = arg;
    struct aws_req *q = op->q;

    if (err && err->code) {
        struct function_result r = {.err = *err};

        on_result(op, &r);
        return;
    }
    if (request_id)
        snprintf(q->id, sizeof q->id, "%s", request_id);
    lambda_reply(q, 202, NULL);
}

int lambda_call_of(struct op *op, struct function_call *ret)
{
    struct aws_req *q = op->q;
    const char *log = http_get(q->req, "x-amz-log-type"), *context = http_get(q->req, "x-amz-client-context");
    struct lambda_qualified w;

    *ret = (struct function_call){
        .namespace_ = LAMBDA_NS,
        .name = op->n.object,
        .qualifier = op->n.qualifier,
        .payload = q->body,
        .n = q->body_n,
        .arn = op->n.qualifier ? arena_printf(q->req->arena, "%s:%s", lambda_arn(q, op->n.name), op->n.qualifier)
                               : lambda_arn(q, op->n.name),
        .req = q->req,
        .request_id = q->id,
        .log_tail = log && streq(log, "Tail"),
    };
    if (lambda_qualified(op, &w) < 0)
        return -1;
    if (context) {
        ret->client_context = b64_decode(q->req->arena, context, NULL);
        if (!ret->client_context) {
            lambda_error(q, 400, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.");
            return -1;
        }
    }
    return 0;
}

void op_invoke(struct op *op)
{
    struct aws_req *q = op->q;
    const char *type = http_get(q->req, "x-amz-invocation-type");
    struct function_call call;

    if (lambda_call_of(op, &call) < 0 || !lambda_durable_call(op, &call, !type || streq(type, "RequestResponse")))
        return;
    if (!type || streq(type, "RequestResponse")) {
        if (q->body_n > FUNCTION_PAYLOAD_MAX)
            lambda_error(q, 413, "RequestEntityTooLargeException",
                         "%zu byte payload is too large for the RequestResponse invocation type (limit %d bytes)",
                         q->body_n, (int)FUNCTION_PAYLOAD_MAX);
        else
            function_invoke(q->d->o.functions, &call, on_result, op);
    } else if (streq(type, "Event")) {
        if (q->body_n > INVOKE_ASYNC_MAX)
            lambda_error(q, 413, "RequestEntityTooLargeException",
                         "%zu byte payload is too large for the Event invocation type (limit %d bytes)", q->body_n,
                         (int)INVOKE_ASYNC_MAX);
        else if (!lambda_durable_event(op, &call))
            function_invoke_async(q->d->o.functions, &call, on_queued, op);
    } else if (streq(type, "DryRun")) {
        lambda_reply(q, 204, NULL);
    } else {
        lambda_error(q, 400, "InvalidParameterValueException",
                     "1 validation error detected: Value '%.100s' at 'invocationType' failed to satisfy constraint: Member must "
                     "satisfy enum value set: [RequestResponse, Event, DryRun]", type);
    }
}

void op_invoke_old(struct op *op)
{
    struct function_call call = {.namespace_ = LAMBDA_NS, .name = op->n.object, .payload = op->q->body,
                                 .n = op->q->body_n, .request_id = op->q->id, .req = op->q->req};

    if (lambda_need(op))
        function_invoke_async(op->q->d->o.functions, &call, on_queued, op);
}
