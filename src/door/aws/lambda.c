/* door/aws/lambda.c - Lambda's REST paths and operations, over the Function object. A write goes
 * through client/; what it answers is handed to the functions at once, so that the next request on
 * this port sees it. */
#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "door/aws/lambda_int.h"
#include "function/code.h"
#include "volume/volume.h"

void lambda_error(struct aws_req *q, int status, const char *type, const char *fmt, ...)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    char text[1024];
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

void lambda_not_found(struct op *op)
{
    const char *arn = lambda_arn(op->q, op->n.name);

    if (op->n.qualifier)
        arn = arena_printf(op->q->req->arena, "%s:%s", arn, op->n.qualifier);
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
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "The function name and qualifier must name the function as a whole here: %s", op->n.qualifier);
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

/* ---- paths ---- */

static const struct {
    const char *method, *date, *what, *sub; /* DATE/what[/NAME[/sub]]; sub NULL: no name, "": only a name */
    void (*run)(struct op *);
} ROUTES[] = {
    {"POST", "2015-03-31", "functions", NULL, op_create_function},
    {"GET", "2015-03-31", "functions", NULL, op_list_functions},
    {"GET", "2015-03-31", "functions", "", op_get_function},
    {"DELETE", "2015-03-31", "functions", "", op_delete_function},
    {"GET", "2015-03-31", "functions", "configuration", op_get_conf},
    {"PUT", "2015-03-31", "functions", "configuration", op_update_conf},
    {"PUT", "2015-03-31", "functions", "code", op_update_code},
    {"POST", "2015-03-31", "functions", "invocations", op_invoke},
    {"POST", "2014-11-13", "functions", "invoke-async", op_invoke_old},
    {"POST", "2021-11-15", "functions", "response-streaming-invocations", op_invoke_stream},
    {"GET", "2015-03-31", "functions", "versions", op_list_versions},
    {"POST", "2015-03-31", "functions", "versions", op_publish_version},
    {"POST", "2015-03-31", "functions", "aliases", op_create_alias},
    {"GET", "2015-03-31", "functions", "aliases", op_get_alias},
    {"PUT", "2015-03-31", "functions", "aliases", op_update_alias},
    {"DELETE", "2015-03-31", "functions", "aliases", op_delete_alias},
    {"POST", "2018-10-31", "layers", "versions", op_publish_layer},
    {"GET", "2018-10-31", "layers", "versions", op_get_layer},
    {"DELETE", "2018-10-31", "layers", "versions", op_delete_layer},
    {"GET", "2018-10-31", "layers", NULL, op_list_layers},
    {"PUT", "2019-09-30", "functions", "provisioned-concurrency", op_put_provisioned},
    {"GET", "2019-09-30", "functions", "provisioned-concurrency", op_get_provisioned},
    {"DELETE", "2019-09-30", "functions", "provisioned-concurrency", op_delete_provisioned},
    {"POST", "2015-03-31", "functions", "policy", op_add_permission},
    {"GET", "2015-03-31", "functions", "policy", op_get_policy},
    {"DELETE", "2015-03-31", "functions", "policy", op_remove_permission},
    {"POST", "2021-10-31", "functions", "url", op_create_url},
    {"GET", "2021-10-31", "functions", "url", op_get_url},
    {"PUT", "2021-10-31", "functions", "url", op_update_url},
    {"DELETE", "2021-10-31", "functions", "url", op_delete_url},
    {"GET", "2021-10-31", "functions", "urls", op_list_urls},
    {"PUT", "2017-10-31", "functions", "concurrency", op_put_concurrency},
    {"DELETE", "2017-10-31", "functions", "concurrency", op_delete_concurrency},
    {"GET", "2019-09-30", "functions", "concurrency", op_get_concurrency},
    {"PUT", "2019-09-25", "functions", "event-invoke-config", op_put_event_conf},
    {"POST", "2019-09-25", "functions", "event-invoke-config", op_put_event_conf},
    {"GET", "2019-09-25", "functions", "event-invoke-config", op_get_event_conf},
    {"DELETE", "2019-09-25", "functions", "event-invoke-config", op_delete_event_conf},
    {"GET", "2020-06-30", "functions", "code-signing-config", op_code_signing},
    {"GET", "2017-03-31", "tags", "", op_list_tags},
    {"POST", "2017-03-31", "tags", "", op_tag},
    {"DELETE", "2017-03-31", "tags", "", op_untag},
    {"GET", "2016-08-19", "account-settings", NULL, op_account_settings},
};

void lambda_request(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    struct op *op = arena_new_of(a, struct op);
    const char *part[8];
    size_t n = 0;
    struct err err = {0};

    op->q = q;
    for (const char *p = q->req->raw_path; *p && n < ARRAY_LEN(part);) {
        size_t len;

        p += strspn(p, "/");
        len = strcspn(p, "/");
        if (len && !(part[n++] = http_unescape(a, p, len, false))) {
            lambda_error(q, 400, "ValidationException", "the path is malformed");
            return;
        }
        p += len;
    }
    for (size_t i = 0; i < ARRAY_LEN(ROUTES); i++) {
        const char *sub = ROUTES[i].sub;

        if (n < 2 || !streq(ROUTES[i].method, q->req->method) || !streq(ROUTES[i].date, part[0]) ||
            !streq(ROUTES[i].what, part[1]) || (!sub ? n != 2 : !*sub ? n != 3 : n < 4 || !streq(sub, part[3])))
            continue;
        if (n > 5) /* what is below a thing of a thing: none of it is served */
            continue;
        op->raw_name = n > 2 ? part[2] : "";
        if (n > 2 && !streq(part[1], "layers") && lambda_name_parse(q, part[2], &op->n, &err) < 0) {
            lambda_error(q, 400, "ValidationException", "%s", err.msg);
            return;
        }
        op->path = (const char *const *)arena_memdup(a, part + 3, sizeof *part * 5);
        op->path_n = n > 3 ? n - 3 : 0;
        if (q->body_n && ROUTES[i].run != op_invoke && ROUTES[i].run != op_invoke_old && ROUTES[i].run != op_invoke_stream) {
            op->in = json_parse(a, q->body, q->body_n, &err);
            if (!val_is(op->in, VAL_MAP)) {
                lambda_error(q, 400, "InvalidRequestContentException", "Could not parse request body into json: %s", err.msg);
                return;
            }
        }
        op->run = ROUTES[i].run;
        if (lambda_may(op))
            op->run(op);
        return;
    }
    if (n >= 2 && isdigit((unsigned char)part[0][0]))
        lambda_error(q, 501, "NotImplementedException", "tandem does not serve the Lambda operation %s %s", q->req->method,
                     q->req->raw_path);
    else
        lambda_error(q, 404, "UnknownOperationException", "no Lambda operation at %s %s", q->req->method, q->req->raw_path);
}
