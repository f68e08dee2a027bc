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

enum { INVOKE_ASYNC_MAX = FUNCTION_PAYLOAD_ASYNC_MAX };

struct op {
    struct aws_req *q;
    struct lambda_name n;
    const char *const *path; /* decoded segments behind the function's name */
    size_t path_n;
    const struct val *in;    /* the body's JSON, or NULL */
    struct val *patch;
    char *zip;
    size_t zip_n;
    const char *bucket, *key;
    char sha256[CODE_HEX];
    struct err code_err;
    bool create, publish;
    void (*then)(struct op *op, const struct obj *o);
};

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

static void not_found(struct op *op)
{
    const char *arn = lambda_arn(op->q, op->n.name);

    if (op->n.qualifier)
        arn = arena_printf(op->q->req->arena, "%s:%s", arn, op->n.qualifier);
    lambda_error(op->q, 404, "ResourceNotFoundException", "Function not found: %s", arn);
}

static void api_error(struct op *op, const struct err *err, int status)
{
    switch (err->code) {
    case ERR_NOT_FOUND:
        not_found(op);
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

/* The function as it is known now; answers 404 itself. */
static const struct obj *need(struct op *op)
{
    const struct obj *o = functions_get(op->q->d->o.functions, LAMBDA_NS, op->n.object);

    if (!o)
        o = mirror_get(op->q->d->o.mirror, LAMBDA_NS, op->n.object);
    if (!o || obj_deleting(o) || !streq(lambda_name_of(o), op->n.name) ||
        (op->n.qualifier && !streq(op->n.qualifier, "$LATEST"))) {
        not_found(op);
        return NULL;
    }
    return o;
}

/* ---- writes ---- */

static void on_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        api_error(op, r->err, r->status);
        return;
    }
    if (!r->obj) {
        lambda_error(q, 500, "ServiceException", "the API server answered no object");
        return;
    }
    functions_put(q->d->o.functions, r->obj);
    op->then(op, r->obj);
}

static void reply_conf(struct op *op, const struct obj *o)
{
    lambda_reply(op->q, op->create ? 201 : 200, lambda_conf(op->q, o));
}

/* A merge patch {metadata:{annotations}, spec}; annotation (may be NULL) is set to the time. */
static void patch(struct op *op, const char *stamp, void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;

    if (stamp)
        val_put_str(a, val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations"), stamp,
                    lambda_now(a));
    op->then = then;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = FUNCTIONS, .ns = LAMBDA_NS,
        .name = op->n.object, .body = op->patch, .patch_type = CLIENT_PATCH_MERGE}, on_written, op);
}

/* The patch is a merge: to replace a map, keys that go are set to null. */
static void replace_map(struct arena *a, const struct val *was, struct val *spec, const char *key)
{
    struct val *now = val_get(spec, key);

    if (!val_is(now, VAL_MAP))
        return;
    VAL_EACH_MEMBER(val_get(was, key), m)
        if (!val_get(now, m->key))
            val_put(a, now, m->key, val_null(a));
}

static bool revision_fits(struct op *op, const struct obj *o)
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

/* ---- code ---- */

/* Code.S3Bucket, Code.S3Key: the zip is a file of that volume. */
static int read_zip(struct op *op)
{
    struct volume_info info;
    _auto_(closep) int root = volume_root(op->q->d->state, op->bucket, false, &op->code_err);
    _auto_(closep) int fd = root < 0 ? -1 : volume_read(root, NULL, op->key, &info, &op->code_err);
    struct buf zip;

    if (fd < 0)
        return -1;
    buf_init(&zip, CODE_ZIP_MAX);
    if (!buf_reserve(&zip, (size_t)info.size))
        return err_set(&op->code_err, TOO_LARGE, "the zip has more than %d bytes", CODE_ZIP_MAX);
    while (zip.n < (size_t)info.size) {
        ssize_t n = read(fd, zip.p + zip.n, (size_t)info.size - zip.n);

        if (n <= 0) {
            buf_done(&zip);
            return err_sys(&op->code_err, "read %s", op->key);
        }
        zip.n += (size_t)n;
    }
    op->zip_n = zip.n;
    op->zip = buf_take(&zip);
    return 0;
}

static void code_work(void *arg)
{
    struct op *op = arg;

    if (op->bucket && read_zip(op) < 0) {
        if (op->code_err.code == ERR_NOT_FOUND)
            err_set(&op->code_err, INVALID_ARGUMENT,
                    "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does"
                    " not exist.");
        return;
    }
    (void)!code_put(op->q->d->state, op->zip, op->zip_n, op->sha256, &op->code_err);
    if (op->bucket)
        free(STEAL(op->zip));
}

static void code_done(struct aws_req *q, void *arg)
{
    struct op *op = arg;
    struct arena *a = q->req->arena;
    struct val *spec = val_need_map(a, op->patch, "spec");

    if (op->code_err.code == ERR_TOO_LARGE && op->zip_n > CODE_ZIP_MAX) {
        lambda_error(q, 413, "RequestEntityTooLargeException", "%s", op->code_err.msg);
        return;
    }
    if (op->code_err.code == ERR_TOO_LARGE) {
        lambda_error(q, 400, "InvalidParameterValueException", "%s", op->code_err.msg);
        return;
    }
    if (op->code_err.code == ERR_INVALID_ARGUMENT || op->code_err.code == ERR_NOT_FOUND) {
        lambda_error(q, 400, "InvalidParameterValueException",
                     op->bucket ? "%s" : "Could not unzip uploaded file. Please check your file, then try to upload again. "
                                         "(%s)", op->code_err.msg);
        return;
    }
    if (op->code_err.code) {
        lambda_error(q, op->code_err.code == ERR_NO_SPACE ? 507 : 500, "ServiceException", "%s", op->code_err.msg);
        return;
    }
    val_put_str(a, spec, "codeSha256", op->sha256);
    val_put_int(a, spec, "codeSize", (int64_t)op->zip_n);
    if (val_bool_at(op->in, "DryRun", false)) {
        const struct obj *o = need(op);

        if (o)
            lambda_reply(q, 200, lambda_conf(q, o));
        return;
    }
    if (!op->create) {
        patch(op, A_MODIFIED, reply_conf);
        return;
    }
    op->then = reply_conf;
    aws_call(q, &(struct client_call){.verb = CLIENT_CREATE, .resource = FUNCTIONS, .ns = LAMBDA_NS,
        .body = op->patch}, on_written, op);
}

/* where: {ZipFile} or {S3Bucket, S3Key}. */
static void take_code(struct op *op, const struct val *where)
{
    struct aws_req *q = op->q;
    const char *zip = val_str_at(where, "ZipFile", NULL);

    op->bucket = val_str_at(where, "S3Bucket", NULL);
    op->key = val_str_at(where, "S3Key", NULL);
    if (val_str_at(where, "ImageUri", NULL)) {
        lambda_error(q, 400, "InvalidParameterValueException",
                     "tandem does not run functions from container images yet: use a zip");
        return;
    }
    if (zip) {
        op->bucket = NULL;
        op->zip = b64_decode(q->req->arena, zip, &op->zip_n);
        if (!op->zip) {
            lambda_error(q, 400, "InvalidParameterValueException", "ZipFile is not base64");
            return;
        }
    } else if (!op->bucket || !op->key) {
        lambda_error(q, 400, "InvalidParameterValueException", "Please provide a source for function code.");
        return;
    }
    aws_work(q, code_work, code_done, op);
}

static void create_function(struct op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *name = val_str_at(op->in, "FunctionName", NULL), *type = NULL;
    struct val *meta, *notes;
    struct err err = {0};

    if (!name || lambda_name_parse(q, name, &op->n, &err) < 0 || op->n.qualifier) {
        lambda_error(q, 400, "ValidationException", "%s",
                     name && err.code ? err.msg : "1 validation error detected: Value null at 'functionName' failed to satisfy "
                                                  "constraint: Member must not be null");
        return;
    }
    op->create = true;
    op->patch = val_map(a);
    meta = val_need_map(a, op->patch, "metadata");
    val_put_str(a, meta, "name", op->n.object);
    val_put_str(a, meta, "namespace", LAMBDA_NS);
    notes = val_need_map(a, meta, "annotations");
    val_put_str(a, notes, A_MODIFIED, lambda_now(a));
    if (!streq(op->n.name, op->n.object))
        val_put_str(a, notes, A_NAME, op->n.name);
    if (lambda_conf_read(q, op->in, true, val_need_map(a, op->patch, "spec"), &type, &err) < 0) {
        lambda_error(q, 400, type, "%s", err.msg);
        return;
    }
    if (functions_get(q->d->o.functions, LAMBDA_NS, op->n.object)) {
        lambda_error(q, 409, "ResourceConflictException", "Function already exist: %s", op->n.name);
        return;
    }
    take_code(op, val_get(op->in, "Code"));
}

static void update_code(struct op *op)
{
    const struct obj *o = need(op);

    if (!o || !revision_fits(op, o))
        return;
    op->patch = val_map(op->q->req->arena);
    take_code(op, op->in);
}

static void update_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
    const char *type = NULL;
    struct val *spec;
    struct err err = {0};

    if (!o || !revision_fits(op, o))
        return;
    op->patch = val_map(a);
    spec = val_need_map(a, op->patch, "spec");
    if (lambda_conf_read(op->q, op->in, false, spec, &type, &err) < 0) {
        lambda_error(op->q, 400, type, "%s", err.msg);
        return;
    }
    replace_map(a, val_get(obj_val(o), "spec"), spec, "environment");
    patch(op, A_MODIFIED, reply_conf);
}

static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        api_error(op, r->err, r->status);
        return;
    }
    functions_remove(q->d->o.functions, LAMBDA_NS, op->n.object);
    lambda_reply(q, 204, NULL);
}

static void delete_function(struct op *op)
{
    if (need(op))
        aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = FUNCTIONS,
            .ns = LAMBDA_NS, .name = op->n.object}, on_deleted, op);
}

/* ---- reads ---- */

static void get_function(struct op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const struct obj *o = need(op);
    const struct val *spec;
    struct val *v;

    if (!o)
        return;
    spec = val_get(obj_val(o), "spec");
    v = val_map(a);
    val_put(a, v, "Configuration", lambda_conf(q, o));
    val_put_str(a, val_need_map(a, v, "Code"), "RepositoryType", "S3");
    val_put(a, val_get(v, "Code"), "Location",
            val_printf(a, "http://%s/.tandem/code/%s", q->req->host, val_str_at(spec, "codeSha256", "")));
    if (val_len(val_get(spec, "tags")))
        val_put(a, v, "Tags", val_get(spec, "tags"));
    if (!val_is_null(val_get(spec, "reservedConcurrency")))
        val_put(a, val_need_map(a, v, "Concurrency"), "ReservedConcurrentExecutions", val_get(spec, "reservedConcurrency"));
    lambda_reply(q, 200, v);
}

static void get_conf(struct op *op)
{
    const struct obj *o = need(op);

    if (o)
        lambda_reply(op->q, 200, lambda_conf(op->q, o));
}

static void on_listed(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct arena *a = q->req->arena;
    const char *marker = http_param(q->req, "Marker"), *max = http_param(q->req, "MaxItems");
    int64_t left = max ? MIN(MAX(strtoll(max, NULL, 10), 1LL), 10000LL) : 50;
    struct val *v, *list;
    const char *next = NULL;

    if (r->err) {
        api_error(op, r->err, r->status);
        return;
    }
    v = val_map(a);
    list = val_need_list(a, v, "Functions");
    VAL_EACH(val_get(r->val, "items"), it) {
        struct obj *o;

        if (marker && strcmp(val_str_at(it, "metadata.name", ""), marker) <= 0)
            continue;
        if (left-- == 0) {
            val_put_str(a, v, "NextMarker", next);
            break;
        }
        o = obj_seal(it, strtoll(val_str_at(it, "metadata.resourceVersion", "0"), NULL, 10));
        next = arena_strdup(a, o->name);
        arena_pin(a, (void (*)(void *))(void (*)(void))obj_unref, o);
        val_push(a, list, lambda_conf(q, o));
    }
    lambda_reply(q, 200, v);
}

static void list_functions(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = FUNCTIONS, .ns = LAMBDA_NS},
             on_listed, op);
}

static void list_versions(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
    struct val *v, *c;

    if (!o)
        return;
    v = val_map(a);
    c = lambda_conf(op->q, o);
    val_put(a, c, "FunctionArn", val_printf(a, "%s:$LATEST", lambda_arn(op->q, op->n.name)));
    val_push(a, val_need_list(a, v, "Versions"), c);
    lambda_reply(op->q, 200, v);
}

static void account_settings(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *limit = val_need_map(a, v, "AccountLimit"), *usage;
    struct objs all = mirror_list(op->q->d->o.mirror, a, LAMBDA_NS);
    int64_t bytes = 0, reserved = 0;

    for (uint32_t i = 0; i < all.n; i++) {
        bytes += val_int_at(obj_val(all.v[i]), "spec.codeSize", 0);
        reserved += val_int_at(obj_val(all.v[i]), "spec.reservedConcurrency", 0);
    }
    val_put_int(a, limit, "TotalCodeSize", 80530636800);
    val_put_int(a, limit, "CodeSizeUnzipped", CODE_UNPACKED_MAX);
    val_put_int(a, limit, "CodeSizeZipped", 52428800);
    val_put_int(a, limit, "ConcurrentExecutions", 1000);
    val_put_int(a, limit, "UnreservedConcurrentExecutions", MAX(1000 - reserved, (int64_t)0));
    usage = val_need_map(a, v, "AccountUsage");
    val_put_int(a, usage, "TotalCodeSize", bytes);
    val_put_int(a, usage, "FunctionCount", all.n);
    lambda_reply(op->q, 200, v);
}

/* ---- invoke ---- */

static void on_result(void *arg, const struct function_result *r)
{
    struct op *op = arg;
    struct aws_req *q = op->q;

    op->zip_n = 0; /* the ticket: called */
    if (http_gone(q->req)) {
        http_abort(q->req);
        return;
    }
    if (r->err.code == ERR_NOT_FOUND) {
        not_found(op);
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
    } else if (r->err.code) {
        lambda_error(q, 500, "ServiceException", "%s", r->err.msg);
    } else {
        http_header(q->req, "x-amzn-RequestId", r->request_id ? r->request_id : q->id);
        http_header(q->req, "X-Amz-Executed-Version", r->version ? r->version : "$LATEST");
        if (r->function_error)
            http_header(q->req, "X-Amz-Function-Error", r->function_error);
        if (r->log_tail)
            http_header(q->req, "X-Amz-Log-Result", b64_encode(q->req->arena, r->log_tail, r->log_tail_n));
        http_headerf(q->req, "X-Tandem-Timing", "queue=%lld;start=%lld;init=%lld;run=%lld;cold=%d",
                     (long long)r->queue_us, (long long)r->start_us, (long long)r->init_us,
                     (long long)r->duration_us, r->cold);
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

static void invoke(struct op *op)
{
    struct aws_req *q = op->q;
    const char *type = http_get(q->req, "x-amz-invocation-type"), *log = http_get(q->req, "x-amz-log-type");
    const char *context = http_get(q->req, "x-amz-client-context");
    struct function_call call = {
        .namespace_ = LAMBDA_NS,
        .name = op->n.object,
        .payload = q->body,
        .n = q->body_n,
        .arn = lambda_arn(q, op->n.name),
        .trace_id = http_get(q->req, "x-amzn-trace-id"),
        .request_id = q->id,
        .log_tail = log && streq(log, "Tail"),
    };

    if (!need(op))
        return;
    if (context) {
        call.client_context = b64_decode(q->req->arena, context, NULL);
        if (!call.client_context) {
            lambda_error(q, 400, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.");
            return;
        }
    }
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
        else
            function_invoke_async(q->d->o.functions, &call, on_queued, op);
    } else if (streq(type, "DryRun")) {
        lambda_reply(q, 204, NULL);
    } else {
        lambda_error(q, 400, "InvalidParameterValueException",
                     "1 validation error detected: Value '%.100s' at 'invocationType' failed to satisfy constraint: Member must "
                     "satisfy enum value set: [RequestResponse, Event, DryRun]", type);
    }
}

static void invoke_old(struct op *op)
{
    struct function_call call = {.namespace_ = LAMBDA_NS, .name = op->n.object, .payload = op->q->body,
                                 .n = op->q->body_n, .request_id = op->q->id};

    if (need(op))
        function_invoke_async(op->q->d->o.functions, &call, on_queued, op);
}

/* ---- function URLs ---- */

static const struct obj *need_url(struct op *op)
{
    const struct obj *o = need(op);

    if (o && !val_bool_at(obj_val(o), "spec.url.enabled", false)) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
        return NULL;
    }
    return o;
}

static void reply_url(struct op *op, const struct obj *o)
{
    lambda_reply(op->q, op->create ? 201 : 200, lambda_url_conf(op->q, o));
}

static void put_url(struct op *op)
{
    static const char *const same[][2] = {{"AllowHeaders", "allowHeaders"}, {"AllowMethods", "allowMethods"},
        {"AllowOrigins", "allowOrigins"}, {"ExposeHeaders", "exposeHeaders"},
        {"AllowCredentials", "allowCredentials"}, {"MaxAge", "maxAge"}};
    struct arena *a = op->q->req->arena;
    const char *auth = val_str_at(op->in, "AuthType", NULL), *mode = val_str_at(op->in, "InvokeMode", NULL);
    struct val *url, *cors;

    if ((!auth && op->create) || (auth && !streq(auth, "NONE") && !streq(auth, "AWS_IAM"))) {
        lambda_error(op->q, 400, "ValidationException",
                     "1 validation error detected: Value '%.100s' at 'authType' failed to satisfy constraint: Member must satisfy"
                     " enum value set: [NONE, AWS_IAM]", auth ? auth : "null");
        return;
    }
    if (mode && !streq(mode, "BUFFERED")) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "tandem answers function URLs in InvokeMode BUFFERED only");
        return;
    }
    op->patch = val_map(a);
    url = val_need_map(a, val_need_map(a, op->patch, "spec"), "url");
    val_put_bool(a, url, "enabled", true);
    if (auth)
        val_put_str(a, url, "authType", auth);
    if (mode)
        val_put_str(a, url, "invokeMode", mode);
    if (val_get(op->in, "Cors")) {
        cors = val_need_map(a, url, "cors");
        for (size_t i = 0; i < ARRAY_LEN(same); i++) {
            const struct val *x = val_at(op->in, arena_printf(a, "Cors.%s", same[i][0]));

            val_put(a, cors, same[i][1], x ? x : val_null(a));
        }
    }
    if (op->create) {
        struct val *notes = val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations");

        val_put_str(a, notes, A_URL_MADE, lambda_now(a));
    }
    patch(op, A_URL_MODIFIED, reply_url);
}

static void create_url(struct op *op)
{
    const struct obj *o = need(op);

    if (o && val_bool_at(obj_val(o), "spec.url.enabled", false)) {
        lambda_error(op->q, 409, "ResourceConflictException",
                     "Failed to create function url config for [functionArn = %s]. Error message:  FunctionUrlConfig exists for "
                     "this Lambda function", lambda_arn(op->q, op->n.name));
        return;
    }
    op->create = true;
    if (o)
        put_url(op);
}
static void update_url(struct op *op)
{
    if (need_url(op))
        put_url(op);
}
static void get_url(struct op *op)
{
    const struct obj *o = need_url(op);

    if (o)
        reply_url(op, o);
}
static void list_urls(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
    struct val *v, *list;

    if (!o)
        return;
    v = val_map(a);
    list = val_need_list(a, v, "FunctionUrlConfigs");
    if (val_bool_at(obj_val(o), "spec.url.enabled", false))
        val_push(a, list, lambda_url_conf(op->q, o));
    lambda_reply(op->q, 200, v);
}
static void reply_none(struct op *op, const struct obj *o)
{
    (void)o;
    lambda_reply(op->q, 204, NULL);
}
static void clear(struct op *op, const char *key)
{
    struct arena *a = op->q->req->arena;

    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "spec"), key, val_null(a));
    patch(op, NULL, reply_none);
}
static void delete_url(struct op *op)
{
    if (need_url(op))
        clear(op, "url");
}

/* ---- concurrency, events, tags ---- */

static void reply_concurrency(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *n = val_at(obj_val(o), "spec.reservedConcurrency");
    struct val *v = val_map(a);

    if (!val_is_null(n))
        val_put(a, v, "ReservedConcurrentExecutions", n);
    lambda_reply(op->q, 200, v);
}
static void put_concurrency(struct op *op)
{
    struct arena *a = op->q->req->arena;
    int64_t n = val_int_at(op->in, "ReservedConcurrentExecutions", -1);

    if (!need(op))
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
    patch(op, NULL, reply_concurrency);
}
static void get_concurrency(struct op *op)
{
    const struct obj *o = need(op);

    if (o)
        reply_concurrency(op, o);
}
static void delete_concurrency(struct op *op)
{
    if (need(op))
        clear(op, "reservedConcurrency");
}

static void reply_event_conf(struct op *op, const struct obj *o)
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
    lambda_reply(op->q, 200, v);
}
static void put_event_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct val *tries = val_get(op->in, "MaximumRetryAttempts"), *age = val_get(op->in, "MaximumEventAgeInSeconds");
    struct val *spec;

    if (!need(op))
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
    patch(op, NULL, reply_event_conf);
}
static void get_event_conf(struct op *op)
{
    const struct obj *o = need(op);

    if (!o)
        return;
    if (val_is_null(val_at(obj_val(o), "spec.retries")) && val_is_null(val_at(obj_val(o), "spec.maximumEventAgeSeconds")))
        lambda_error(op->q, 404, "ResourceNotFoundException", "The function %s doesn't have an EventInvokeConfig",
                     lambda_arn(op->q, op->n.name));
    else
        reply_event_conf(op, o);
}
static void delete_event_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *spec;

    if (!need(op))
        return;
    op->patch = val_map(a);
    spec = val_need_map(a, op->patch, "spec");
    val_put(a, spec, "retries", val_null(a));
    val_put(a, spec, "maximumEventAgeSeconds", val_null(a));
    patch(op, NULL, reply_none);
}

static void list_tags(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
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
static void tag(struct op *op)
{
    struct arena *a = op->q->req->arena;

    if (!need(op))
        return;
    if (!val_is(val_get(op->in, "Tags"), VAL_MAP)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Tags must be a map");
        return;
    }
    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "spec"), "tags", val_get(op->in, "Tags"));
    patch(op, NULL, reply_none);
}
static void untag(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const char *name, *value;
    struct val *tags;

    if (!need(op))
        return;
    op->patch = val_map(a);
    tags = val_need_map(a, val_need_map(a, op->patch, "spec"), "tags");
    for (size_t i = 0; http_param_next(op->q->req, &i, &name, &value);)
        if (streq(name, "tagKeys"))
            val_put(a, tags, value, val_null(a));
    patch(op, NULL, reply_none);
}

/* ---- resource policy: kept, and shown as it was given ---- */

static struct val *policy_of(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const char *text = obj_annotation(o, A_POLICY);
    struct err err;
    struct val *v = text ? json_parse(a, text, strlen(text), &err) : NULL;

    if (!v) {
        v = val_map(a);
        val_put_str(a, v, "Version", "2012-10-17");
        val_put_str(a, v, "Id", "default");
        val_need_list(a, v, "Statement");
    }
    return v;
}
static void put_policy(struct op *op, const struct val *policy,
                       void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;
    struct val *notes;

    op->patch = val_map(a);
    notes = val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations");
    if (val_len(val_get(policy, "Statement")))
        val_put_str(a, notes, A_POLICY, json_text(a, policy, NULL));
    else
        val_put(a, notes, A_POLICY, val_null(a));
    patch(op, NULL, then);
}
static void reply_statement(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *list = val_get(policy_of(op, o), "Statement");
    struct val *v = val_map(a);

    val_put_str(a, v, "Statement", list && list->n ? json_text(a, &list->items[list->n - 1], NULL) : "{}");
    lambda_reply(op->q, 201, v);
}
static void add_permission(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
    const char *sid = val_str_at(op->in, "StatementId", ""), *principal = val_str_at(op->in, "Principal", "");
    const char *source = val_str_at(op->in, "SourceArn", NULL), *account = val_str_at(op->in, "SourceAccount", NULL);
    struct val *policy, *s;

    if (!o)
        return;
    policy = policy_of(op, o);
    VAL_EACH(val_get(policy, "Statement"), it)
        if (streq(val_str_at(it, "Sid", ""), sid)) {
            lambda_error(op->q, 409, "ResourceConflictException",
                         "The statement id (%s) provided already exists. Please provide a new statement id, or remove the "
                         "existing statement.", sid);
            return;
        }
    s = val_map(a);
    val_put_str(a, s, "Sid", sid);
    val_put_str(a, s, "Effect", "Allow");
    if (strchr(principal, '.'))
        val_put_str(a, val_need_map(a, s, "Principal"), "Service", principal);
    else if (streq(principal, "*"))
        val_put_str(a, s, "Principal", "*");
    else
        val_put_str(a, val_need_map(a, s, "Principal"), "AWS", principal);
    val_put_str(a, s, "Action", val_str_at(op->in, "Action", ""));
    val_put_str(a, s, "Resource", lambda_arn(op->q, op->n.name));
    if (source)
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "ArnLike"), "AWS:SourceArn", source);
    if (account)
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "StringEquals"), "AWS:SourceAccount", account);
    val_push(a, val_need_list(a, policy, "Statement"), s);
    put_policy(op, policy, reply_statement);
}
static void get_policy(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need(op);
    struct val *v;

    if (!o)
        return;
    if (!obj_annotation(o, A_POLICY)) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
        return;
    }
    v = val_map(a);
    val_put_str(a, v, "Policy", obj_annotation(o, A_POLICY));
    val_put_str(a, v, "RevisionId", lambda_revision(op->q, o));
    lambda_reply(op->q, 200, v);
}
static void remove_permission(struct op *op)
{
    const struct obj *o = need(op);
    struct val *policy, *list;

    if (!o)
        return;
    policy = policy_of(op, o);
    list = val_get(policy, "Statement");
    for (uint32_t i = 0; op->path_n > 1 && i < val_len(list); i++)
        if (streq(val_str_at(&list->items[i], "Sid", ""), op->path[1])) {
            val_remove(list, i);
            put_policy(op, policy, reply_none);
            return;
        }
    lambda_error(op->q, 404, "ResourceNotFoundException", "Statement %s is not found in resource policy.",
                 op->path_n > 1 ? op->path[1] : "");
}

static void code_signing(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *v;

    if (!need(op))
        return;
    v = val_map(a);
    val_put_str(a, v, "FunctionName", op->n.name);
    val_put_str(a, v, "CodeSigningConfigArn", "");
    lambda_reply(op->q, 200, v);
}

/* ---- paths ---- */

static const struct {
    const char *method, *date, *what, *sub; /* DATE/what[/NAME[/sub]]; sub NULL: no name, "": only a name */
    void (*run)(struct op *);
} ROUTES[] = {
    {"POST", "2015-03-31", "functions", NULL, create_function},
    {"GET", "2015-03-31", "functions", NULL, list_functions},
    {"GET", "2015-03-31", "functions", "", get_function},
    {"DELETE", "2015-03-31", "functions", "", delete_function},
    {"GET", "2015-03-31", "functions", "configuration", get_conf},
    {"PUT", "2015-03-31", "functions", "configuration", update_conf},
    {"PUT", "2015-03-31", "functions", "code", update_code},
    {"POST", "2015-03-31", "functions", "invocations", invoke},
    {"POST", "2014-11-13", "functions", "invoke-async", invoke_old},
    {"GET", "2015-03-31", "functions", "versions", list_versions},
    {"POST", "2015-03-31", "functions", "policy", add_permission},
    {"GET", "2015-03-31", "functions", "policy", get_policy},
    {"DELETE", "2015-03-31", "functions", "policy", remove_permission},
    {"POST", "2021-10-31", "functions", "url", create_url},
    {"GET", "2021-10-31", "functions", "url", get_url},
    {"PUT", "2021-10-31", "functions", "url", update_url},
    {"DELETE", "2021-10-31", "functions", "url", delete_url},
    {"GET", "2021-10-31", "functions", "urls", list_urls},
    {"PUT", "2017-10-31", "functions", "concurrency", put_concurrency},
    {"DELETE", "2017-10-31", "functions", "concurrency", delete_concurrency},
    {"GET", "2019-09-30", "functions", "concurrency", get_concurrency},
    {"PUT", "2019-09-25", "functions", "event-invoke-config", put_event_conf},
    {"POST", "2019-09-25", "functions", "event-invoke-config", put_event_conf},
    {"GET", "2019-09-25", "functions", "event-invoke-config", get_event_conf},
    {"DELETE", "2019-09-25", "functions", "event-invoke-config", delete_event_conf},
    {"GET", "2020-06-30", "functions", "code-signing-config", code_signing},
    {"GET", "2017-03-31", "tags", "", list_tags},
    {"POST", "2017-03-31", "tags", "", tag},
    {"DELETE", "2017-03-31", "tags", "", untag},
    {"GET", "2016-08-19", "account-settings", NULL, account_settings},
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
        if (n > 2 && lambda_name_parse(q, part[2], &op->n, &err) < 0) {
            lambda_error(q, 400, "ValidationException", "%s", err.msg);
            return;
        }
        op->path = (const char *const *)arena_memdup(a, part + 3, sizeof *part * 5);
        op->path_n = n > 3 ? n - 3 : 0;
        if (q->body_n && ROUTES[i].run != invoke && ROUTES[i].run != invoke_old) {
            op->in = json_parse(a, q->body, q->body_n, &err);
            if (!val_is(op->in, VAL_MAP)) {
                lambda_error(q, 400, "InvalidRequestContentException", "Could not parse request body into json: %s", err.msg);
                return;
            }
        }
        ROUTES[i].run(op);
        return;
    }
    if (n >= 2 && isdigit((unsigned char)part[0][0]))
        lambda_error(q, 501, "NotImplementedException", "tandem does not serve the Lambda operation %s %s", q->req->method,
                     q->req->raw_path);
    else
        lambda_error(q, 404, "UnknownOperationException", "no Lambda operation at %s %s", q->req->method, q->req->raw_path);
}
