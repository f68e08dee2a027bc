/* door/aws/lambda/lambda.c - Lambda's REST paths and operations, over the Function object. A write goes
 * through client/; what it answers is handed to the functions at once, so that the next request on
 * this port sees it. */
#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "door/aws/lambda/lambda_int.h"
#include "function/code.h"
#include "volume/volume.h"

void lambda_error(struct aws_req *q, int status, const char *type, const char *fmt, ...)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    char text[8192];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    val_put_str(a, v, "Type", status >= 500 ? "Service" : "User");
    val_put_str(a, v, "Message", text);
    val_put_str(a, v, "message", text);
    http_header(q->req, "x-amzn-ErrorType", type);
    lambda_reply(q, status, v);
}

void lambda_name_refused(struct aws_req *q, const struct err *err)
{
    if (err->code == ERR_NOT_FOUND)
        lambda_error(q, 404, "ResourceNotFoundException", "%s", err->msg);
    else if (err->code == ERR_FORBIDDEN)
        lambda_error(q, 403, "AccessDeniedException", "%s", err->msg);
    else
        lambda_error(q, 400, err->code == ERR_CONFLICT ? "InvalidParameterValueException" : "ValidationException", "%s", err->msg);
}

void lambda_not_found(struct op *op)
{
    const char *arn = lambda_arn(op->q, op->n.name);

    if (op->n.qualifier)
        arn = arena_printf(op->q->req->arena, "%s:%s", arn, op->n.qualifier);
    if (!functions_all_known(op->q->d->o.functions)) { /* clients try a 503 again */
        lambda_error(op->q, 503, "ServiceException", "tandem is starting: its functions are not known yet");
        return;
    }
    lambda_error(op->q, 404, "ResourceNotFoundException", "Function not found: %s", arn);
}

void lambda_api_error(struct op *op, const struct err *err, int status)
{
    switch (err->code) {
    case ERR_NOT_FOUND:
        lambda_not_found(op);
        break;
    case ERR_ALREADY_EXISTS:
        lambda_error(op->q, 409, "ResourceConflictException", "Function already exist: %s", op->n.name);
        break;
    case ERR_CONFLICT:
        lambda_error(op->q, 409, "ResourceConflictException",
                     "The operation cannot be performed at this time. The function is being changed by somebody else.");
        break;
    case ERR_INVALID:
    case ERR_INVALID_ARGUMENT:
    case ERR_FORBIDDEN:
        lambda_error(op->q, 400, "InvalidParameterValueException", "%s", err->msg);
        break;
    default:
        lambda_error(op->q, status >= 500 || !status ? 503 : 500, "ServiceException", "%s", err->msg);
    }
}

const struct obj *lambda_head(struct op *op)
{
    const struct obj *o = functions_get(op->q->d->o.functions, LAMBDA_NS, op->n.object);

    if (!o || obj_deleting(o) || !streq(lambda_name_of(o), op->n.name)) {
        lambda_not_found(op);
        return NULL;
    }
    return o;
}

const struct obj *lambda_need(struct op *op)
{
    const struct obj *o = lambda_head(op);

    if (o && op->n.qualifier && !streq(op->n.qualifier, "$LATEST")) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "This operation is permitted on Lambda functions only. Aliases and versions do "
                     "not support this operation. Please specify either a function name or an unqualified function ARN.");
        return NULL;
    }
    return o;
}

/* ---- writes ---- */

void lambda_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        lambda_api_error(op, r->err, r->status);
        return;
    }
    if (!r->obj) {
        lambda_error(q, 500, "ServiceException", "the API server answered no object");
        return;
    }
    functions_put(q->d->o.functions, r->obj);
    op->then(op, r->obj);
}

void lambda_reply_conf(struct op *op, const struct obj *o)
{
    lambda_reply(op->q, op->create ? 201 : 200, lambda_conf(op->q, o));
}

/* A merge patch {metadata:{annotations}, spec}; annotation (may be NULL) is set to the time. */
void lambda_patch(struct op *op, const char *stamp, void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;

    if (stamp)
        val_put_str(a, val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations"), stamp,
                    lambda_now(a));
    op->then = then;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = FUNCTIONS, .ns = LAMBDA_NS,
        .name = op->n.object, .body = op->patch, .patch_type = CLIENT_PATCH_MERGE}, lambda_written, op);
}

/* The patch is a merge: to replace a map, keys that go are set to null. */
void lambda_replace_map(struct arena *a, const struct val *was, struct val *spec, const char *key)
{
    struct val *now = val_get(spec, key);

    if (!val_is(now, VAL_MAP))
        return;
    VAL_EACH_MEMBER(val_get(was, key), m)
        if (!val_get(now, m->key))
            val_put(a, now, m->key, val_null(a));
}

bool lambda_revision_fits(struct op *op, const struct obj *o)
{
    const char *want = val_str_at(op->in, "RevisionId", NULL);

    if (!want)
        want = http_param(op->q->req, "RevisionId");
    if (!want || streq(want, lambda_revision(op->q, o)))
        return true;
    lambda_error(op->q, 412, "PreconditionFailedException",
                 "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
                 "retrieve the latest Revision Id");
    return false;
}

void lambda_reply_none(struct op *op, const struct obj *o)
{
    (void)o;
    lambda_reply(op->q, 204, NULL);
}

void lambda_clear(struct op *op, const char *key)
{
    struct arena *a = op->q->req->arena;

    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "spec"), key, val_null(a));
    lambda_patch(op, NULL, lambda_reply_none);
}

/* ---- operations ---- */

/* By the names of Lambda's model, which knows their paths (check.c). IAM calls the action alike, unless another name
 * is given; what: on whom it is done (may.c). */
static const struct row {
    const char *name;
    void (*run)(struct op *);
    char what;
    const char *action; /* NULL: the name */
} ROWS[] = {
    {"CreateFunction", op_create_function, 'F', NULL},
    {"ListFunctions", op_list_functions, '*', NULL},
    {"GetFunction", op_get_function, 'f', NULL},
    {"DeleteFunction", op_delete_function, 'f', NULL},
    {"GetFunctionConfiguration", op_get_conf, 'f', NULL},
    {"UpdateFunctionConfiguration", op_update_conf, 'F', NULL},
    {"UpdateFunctionCode", op_update_code, 'F', NULL},
    {"ListVersionsByFunction", op_list_versions, 'F', NULL},
    {"PublishVersion", op_publish_version, 'F', NULL},
    {"CreateAlias", op_create_alias, 'F', NULL},
    {"GetAlias", op_get_alias, 'F', NULL},
    {"ListAliases", op_get_alias, 'F', NULL},
    {"UpdateAlias", op_update_alias, 'F', NULL},
    {"DeleteAlias", op_delete_alias, 'F', NULL},
    {"PublishLayerVersion", op_publish_layer, 'l', NULL},
    {"GetLayerVersion", op_get_layer, 'v', NULL},
    {"ListLayerVersions", op_get_layer, '*', NULL},
    {"DeleteLayerVersion", op_delete_layer, 'v', NULL},
    {"ListLayers", op_list_layers, '*', NULL},
    {"GetLayerVersionByArn", op_layer_by_arn, 'a', "GetLayerVersion"},
    {"AddLayerVersionPermission", op_add_layer_permission, 'v', NULL},
    {"GetLayerVersionPolicy", op_get_layer_policy, 'v', NULL},
    {"RemoveLayerVersionPermission", op_remove_layer_permission, 'v', NULL},
    {"PutProvisionedConcurrencyConfig", op_put_provisioned, 'f', NULL},
    {"GetProvisionedConcurrencyConfig", op_get_provisioned, 'f', NULL},
    {"ListProvisionedConcurrencyConfigs", op_get_provisioned, 'f', "GetProvisionedConcurrencyConfig"},
    {"DeleteProvisionedConcurrencyConfig", op_delete_provisioned, 'f', NULL},
    {"AddPermission", op_add_permission, 'f', NULL},
    {"GetPolicy", op_get_policy, 'f', NULL},
    {"RemovePermission", op_remove_permission, 'f', NULL},
    {"GetResourcePolicy", op_get_resource_policy, 'r', NULL},
    {"PutResourcePolicy", op_put_resource_policy, 'r', NULL},
    {"DeleteResourcePolicy", op_delete_resource_policy, 'r', NULL},
    {"CreateFunctionUrlConfig", op_create_url, 'f', NULL},
    {"GetFunctionUrlConfig", op_get_url, 'f', NULL},
    {"UpdateFunctionUrlConfig", op_update_url, 'f', NULL},
    {"DeleteFunctionUrlConfig", op_delete_url, 'f', NULL},
    {"ListFunctionUrlConfigs", op_list_urls, 'F', NULL},
    {"PutFunctionConcurrency", op_put_concurrency, 'F', NULL},
    {"DeleteFunctionConcurrency", op_delete_concurrency, 'F', NULL},
    {"GetFunctionConcurrency", op_get_concurrency, 'F', NULL},
    {"PutFunctionEventInvokeConfig", op_put_event_conf, 'f', NULL},
    {"UpdateFunctionEventInvokeConfig", op_put_event_conf, 'f', NULL},
    {"GetFunctionEventInvokeConfig", op_get_event_conf, 'f', NULL},
    {"ListFunctionEventInvokeConfigs", op_get_event_conf, 'f', "GetFunctionEventInvokeConfig"},
    {"DeleteFunctionEventInvokeConfig", op_delete_event_conf, 'f', NULL},
    {"CreateCodeSigningConfig", op_create_signing, '*', NULL},
    {"GetCodeSigningConfig", op_get_signing, 'r', NULL},
    {"UpdateCodeSigningConfig", op_update_signing, 'r', NULL},
    {"DeleteCodeSigningConfig", op_delete_signing, 'r', NULL},
    {"ListCodeSigningConfigs", op_list_signing, '*', NULL},
    {"ListFunctionsByCodeSigningConfig", op_list_signed, 'r', NULL},
    {"GetFunctionCodeSigningConfig", op_get_function_signing, 'F', NULL},
    {"PutFunctionCodeSigningConfig", op_put_function_signing, 'F', NULL},
    {"DeleteFunctionCodeSigningConfig", op_delete_function_signing, 'F', NULL},
    {"CreateEventSourceMapping", op_create_source, '*', NULL},
    {"GetEventSourceMapping", op_no_source, 's', NULL},
    {"UpdateEventSourceMapping", op_no_source, 's', NULL},
    {"DeleteEventSourceMapping", op_no_source, 's', NULL},
    {"ListEventSourceMappings", op_list_sources, '*', NULL},
    {"GetRuntimeManagementConfig", op_get_runtime_updates, 'f', NULL},
    {"PutRuntimeManagementConfig", op_put_runtime_updates, 'f', NULL},
    {"GetFunctionRecursionConfig", op_get_recursion, 'F', NULL},
    {"PutFunctionRecursionConfig", op_put_recursion, 'F', NULL},
    {"ListTags", op_list_tags, 'r', NULL},
    {"TagResource", op_tag, 'r', NULL},
    {"UntagResource", op_untag, 'r', NULL},
    {"GetAccountSettings", op_account_settings, '*', NULL},
    {"CheckpointDurableExecution", op_checkpoint, 'r', NULL},
    {"GetDurableExecutionState", op_execution_state, 'r', NULL},
    {"GetDurableExecution", op_get_execution, 'r', NULL},
    {"GetDurableExecutionHistory", op_execution_history, 'r', NULL},
    {"ListDurableExecutionsByFunction", op_list_executions, 'F', NULL},
    {"StopDurableExecution", op_stop_execution, 'r', NULL},
    {"PauseDurableExecution", op_pause_execution, 'r', NULL},
    {"ResumeDurableExecution", op_resume_execution, 'r', NULL},
    {"DeleteDurableExecution", op_delete_execution, 'r', NULL},
    {"SendDurableExecutionCallbackSuccess", op_callback_succeed, 'c', NULL},
    {"SendDurableExecutionCallbackFailure", op_callback_fail, 'c', NULL},
    {"SendDurableExecutionCallbackHeartbeat", op_callback_beat, 'c', NULL},
    {"GetFunctionScalingConfig", op_scaling_config, 'f', NULL},
    {"PutFunctionScalingConfig", op_scaling_config, 'f', NULL},
};

/* Calls are many: they are not looked up in the model, and their bodies are no JSON of Lambda's. */
static const struct {
    const char *date, *sub;
    struct row row;
} CALLS[] = {
    {"2015-03-31", "invocations", {"Invoke", op_invoke, 'f', "InvokeFunction"}},
    {"2021-11-15", "response-streaming-invocations", {"InvokeWithResponseStream", op_invoke_stream, 'f', "InvokeFunction"}},
    {"2014-11-13", "invoke-async", {"InvokeAsync", op_invoke_old, 'F', "InvokeFunction"}},
};

enum { PARTS_MAX = 8 };

/* The path's segments, decoded; -1: answered. */
static int path_parts(struct aws_req *q, const char *part[static PARTS_MAX], size_t *ret_n)
{
    size_t n = 0;

    for (const char *p = q->req->raw_path; *p && n < PARTS_MAX;) {
        size_t len;

        p += strspn(p, "/");
        len = strcspn(p, "/");
        if (len && !(part[n++] = http_unescape(q->req->arena, p, len, false))) {
            lambda_error(q, 400, "ValidationException", "the path is malformed");
            return -1;
        }
        p += len;
    }
    *ret_n = n;
    return 0;
}

/* The ARN of a durable execution has slashes, and not everybody escapes them. */
static void join_execution(struct aws_req *q, const char *part[static PARTS_MAX], size_t *n)
{
    if (*n < 6 || !streq(part[1], "durable-executions") || !streq(part[3], "durable-execution"))
        return;
    part[2] = arena_printf(q->req->arena, "%s/%s/%s/%s", part[2], part[3], part[4], part[5]);
    for (size_t i = 3; i < PARTS_MAX; i++)
        part[i] = i + 3 < *n ? part[i + 3] : NULL;
    *n -= 3;
}

/* The function that the path's third segment names, when it is a function's; -1: answered. */
static int take_name(struct op *op, const char *what)
{
    struct err err;
    bool maybe = streq(what, "tags") || streq(what, "resource-policy");

    if (!*op->raw_name || (!streq(what, "functions") && !maybe))
        return 0;
    if (maybe && !strstr(op->raw_name, ":function:"))
        return 0;
    if (lambda_name_parse(op->q, op->raw_name, &op->n, &err) == 0)
        return 0;
    lambda_name_refused(op->q, &err);
    return -1;
}

/* Body, bounds, rights. false: answered. */
static bool is_in_order(struct op *op, const struct row *row, const struct val *operation, const char *const *part)
{
    struct aws_req *q = op->q;
    struct err err = {0};

    if (operation && q->body_n && row->run != op_callback_succeed) { /* whose body is the result itself */
        op->in = json_parse(q->req->arena, q->body, q->body_n, &err);
        if (!val_is(op->in, VAL_MAP)) {
            lambda_error(q, 400, "InvalidRequestContentException", "Could not parse request body into json: %s", err.msg);
            return false;
        }
    }
    return (!operation || lambda_check(q, operation, part, op->in)) && lambda_may(op, row->action ? row->action : row->name, row->what);
}

void lambda_request(struct aws_req *q)
{
    struct op *op = arena_new_of(q->req->arena, struct op);
    const char *part[PARTS_MAX] = {0}, *name = NULL;
    const struct val *operation = NULL;
    const struct row *row = NULL;
    size_t n = 0;

    op->q = q;
    if (path_parts(q, part, &n) < 0)
        return;
    join_execution(q, part, &n);
    for (size_t i = 0; i < ARRAY_LEN(CALLS) && n == 4 && !row; i++)
        if (streq(part[3], CALLS[i].sub) && streq(part[0], CALLS[i].date) && streq(part[1], "functions") && streq(q->req->method, "POST"))
            row = &CALLS[i].row;
    if (!row && (operation = lambda_operation(q, part, n, &name)))
        for (size_t i = 0; i < ARRAY_LEN(ROWS) && !row; i++)
            if (streq(ROWS[i].name, name))
                row = &ROWS[i];
    if (!row && (operation || (n >= 2 && isdigit((unsigned char)part[0][0])))) {
        lambda_error(q, 501, "NotImplementedException", "tandem does not serve the Lambda operation %s%s%s %s", name ? name : "", name ? ": " : "",
                     q->req->method, q->req->raw_path);
        return;
    }
    if (!row) {
        lambda_error(q, 404, "UnknownOperationException", "no Lambda operation at %s %s", q->req->method, q->req->raw_path);
        return;
    }
    op->run = row->run;
    op->raw_name = n > 2 ? part[2] : "";
    op->path = (const char *const *)arena_memdup(q->req->arena, part + 3, sizeof *part * (PARTS_MAX - 3));
    op->path_n = n > 3 ? n - 3 : 0;
    if (take_name(op, part[1]) == 0 && is_in_order(op, row, operation, part))
        op->run(op);
}
