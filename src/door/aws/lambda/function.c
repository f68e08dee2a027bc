/* door/aws/lambda/function.c - create, change, delete and read functions. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "door/aws/lambda/lambda_int.h"
#include "function/code.h"
#include "volume/volume.h"

/* Code.S3Bucket, Code.S3Key: the zip is a file of that volume. */
static int read_zip(struct op *op)
{
    struct volume_info info;
    _auto_(closep) int root = volume_root(op->q->d->state, op->bucket, false, &op->code_err);
    _auto_(closep) int fd = root < 0 ? -1 : volume_read(root, NULL, op->key, &info, &op->code_err);
    struct buf zip;

    op->no_bucket = root < 0;
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
            err_set(&op->code_err, INVALID_ARGUMENT, "Error occurred while GetObject. S3 Error Code: %s. S3 Error Message: The specified %s",
                    op->no_bucket ? "NoSuchBucket" : "NoSuchKey", op->no_bucket ? "bucket does not exist" : "key does not exist.");
        return;
    }
    (void)!code_put(op->q->d->state, op->zip, op->zip_n, op->sha256, &op->code_err);
    if (op->bucket)
        free(STEAL(op->zip));
}

static void write_function(struct op *op);

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
    if (op->coded) {
        op->coded(op);
        return;
    }
    val_put_str(a, spec, "codeSha256", op->sha256);
    val_put_int(a, spec, "codeSize", (int64_t)op->zip_n);
    write_function(op);
}

/* The image is here: what its tag means now is what the function runs. */
static void on_image(void *arg, const char *digest, int64_t bytes, const struct err *err)
{
    struct op *op = arg;
    struct aws_req *q = op->q;
    struct val *spec;

    if (http_gone(q->req)) {
        http_abort(q->req);
        return;
    }
    if (!digest) {
        lambda_error(q, 400, "InvalidParameterValueException", "Source image %.300s does not exist. Provide a valid source image. (%s)",
                     op->key, err->msg);
        return;
    }
    spec = val_need_map(q->req->arena, op->patch, "spec");
    val_put_str(q->req->arena, spec, "image", op->key);
    val_put_str(q->req->arena, spec, "imageDigest", digest);
    write_function(op);
}

static void write_function(struct op *op)
{
    struct aws_req *q = op->q;

    if (val_bool_at(op->in, "DryRun", false)) {
        const struct obj *o = lambda_need(op);

        if (o)
            lambda_reply(q, 200, lambda_conf(q, o));
        return;
    }
    op->publish = val_bool_at(op->in, "Publish", false);
    if (!op->create) {
        lambda_patch(op, A_MODIFIED, op->publish ? lambda_publish : lambda_reply_conf);
        return;
    }
    op->then = op->publish ? lambda_publish : lambda_reply_conf;
    aws_call(q, &(struct client_call){.verb = CLIENT_CREATE, .resource = FUNCTIONS, .ns = LAMBDA_NS,
        .body = op->patch}, lambda_written, op);
}

void lambda_take_code(struct op *op, const struct val *where)
{
    struct aws_req *q = op->q;
    const char *zip = val_str_at(where, "ZipFile", NULL);

    op->bucket = val_str_at(where, "S3Bucket", NULL);
    op->key = val_str_at(where, "S3Key", NULL);
    if (val_str_at(where, "ImageUri", NULL)) {
        op->key = val_str_at(where, "ImageUri", "");
        function_image_find(q->d->o.functions, op->key, on_image, op);
        return;
    }
    if (!zip && op->bucket && op->key && !lambda_may_read(op, op->bucket, op->key))
        return;
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

static void take_its_code(struct op *op)
{
    lambda_take_code(op, val_get(op->in, "Code"));
}

static void layers_taken(struct op *op)
{
    lambda_take_signing(op, take_its_code);
}

void op_create_function(struct op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *name = val_str_at(op->in, "FunctionName", NULL), *type = NULL;
    struct val *meta, *notes;
    struct err err = {0};

    if (name && lambda_name_parse(q, name, &op->n, &err) < 0) {
        lambda_name_refused(q, &err);
        return;
    }
    if (!name || op->n.qualifier) {
        lambda_error(q, 400, "ValidationException", "%s",
                     name ? "The function name of a new function has no qualifier" : "1 validation error detected: Value null at 'functionName' failed to satisfy "
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
    if (lambda_conf_read(q, op->in, NULL, val_need_map(a, op->patch, "spec"), &type, &err) < 0 ||
        lambda_snap_start_check(NULL, val_get(op->patch, "spec"), &type, &err) < 0) {
        lambda_error(q, 400, type, "%s", err.msg);
        return;
    }
    if (!lambda_role_fits(op))
        return;
    if (functions_get(q->d->o.functions, LAMBDA_NS, op->n.object)) {
        lambda_error(q, 409, "ResourceConflictException", "Function already exist: %s", op->n.name);
        return;
    }
    lambda_take_layers(op, layers_taken);
}

void op_update_code(struct op *op)
{
    const struct obj *o = lambda_need(op);
    bool is_image;

    if (!o || !lambda_revision_fits(op, o))
        return;
    is_image = streq(val_str_at(obj_val(o), "spec.packageType", "Zip"), "Image");
    if (is_image != (val_str_at(op->in, "ImageUri", NULL) != NULL)) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     is_image ? "Please provide ImageUri when updating a function with packageType Image."
                              : "Please don't provide ImageUri when updating a function with packageType Zip.");
        return;
    }
    op->patch = val_map(op->q->req->arena);
    lambda_take_code(op, op->in);
}

static void write_conf(struct op *op)
{
    lambda_patch(op, A_MODIFIED, lambda_reply_conf);
}

void op_update_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = lambda_need(op);
    const char *type = NULL;
    struct val *spec;
    struct err err = {0};

    if (!o || !lambda_revision_fits(op, o))
        return;
    if (val_get(op->in, "DurableConfig") && !val_is(val_at(obj_val(o), "spec.durable"), VAL_MAP)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "You cannot add DurableConfig to an existing function: %s was not created with it.",
                     op->n.name);
        return;
    }
    op->patch = val_map(a);
    spec = val_need_map(a, op->patch, "spec");
    if (lambda_conf_read(op->q, op->in, val_get(obj_val(o), "spec"), spec, &type, &err) < 0 ||
        lambda_snap_start_check(val_get(obj_val(o), "spec"), spec, &type, &err) < 0) {
        lambda_error(op->q, 400, type, "%s", err.msg);
        return;
    }
    if (!lambda_role_fits(op))
        return;
    lambda_replace_map(a, val_get(obj_val(o), "spec"), spec, "environment");
    lambda_take_layers(op, write_conf);
}

static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        lambda_api_error(op, r->err, r->status);
        return;
    }
    functions_remove(q->d->o.functions, LAMBDA_NS, op->n.object);
    lambda_reply(q, 204, NULL);
}

void op_delete_function(struct op *op)
{
    if (op->n.qualifier)
        lambda_delete_version(op);
    else if (lambda_need(op))
        aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = FUNCTIONS,
            .ns = LAMBDA_NS, .name = op->n.object}, on_deleted, op);
}

/* ---- reads ---- */

void op_get_function(struct op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    struct lambda_qualified w;
    const struct val *spec, *sha, *what;
    struct val *v;

    if (lambda_qualified(op, &w) < 0)
        return;
    spec = val_get(obj_val(w.head), "spec");
    sha = val_at(obj_val(w.version ? w.version : w.head), w.version ? "spec.template.codeSha256" : "spec.codeSha256");
    v = val_map(a);
    val_put(a, v, "Configuration", lambda_conf_of(op, &w));
    what = val_at(obj_val(w.version ? w.version : w.head), w.version ? "spec.template" : "spec");
    if (streq(val_str_at(what, "packageType", "Zip"), "Image")) {
        const char *uri = val_str_at(what, "image", ""), *name = strrchr(uri, '/'), *tag = strchr(name ? name : uri, ':');
        size_t n = strcspn(uri, "@");

        if (tag && tag < uri + n)
            n = (size_t)(tag - uri);
        val_put_str(a, val_need_map(a, v, "Code"), "RepositoryType", "ECR");
        val_put_str(a, val_get(v, "Code"), "ImageUri", uri);
        val_put(a, val_get(v, "Code"), "ResolvedImageUri", val_printf(a, "%.*s@%s", (int)n, uri, val_str_at(what, "imageDigest", "")));
    } else {
        val_put_str(a, val_need_map(a, v, "Code"), "RepositoryType", "S3");
        val_put(a, val_get(v, "Code"), "Location",
                val_printf(a, "http://%s/.tandem/code/%s", q->req->host, val_text(sha, "")));
    }
    if (val_len(val_get(spec, "tags")))
        val_put(a, v, "Tags", val_get(spec, "tags"));
    if (!val_is_null(val_get(spec, "reservedConcurrency")))
        val_put(a, val_need_map(a, v, "Concurrency"), "ReservedConcurrentExecutions", val_get(spec, "reservedConcurrency"));
    lambda_reply(q, 200, v);
}

void op_get_conf(struct op *op)
{
    struct lambda_qualified w;

    if (lambda_qualified(op, &w) == 0)
        lambda_reply(op->q, 200, lambda_conf_of(op, &w));
}

/* A page of functions, or (FunctionVersion=ALL) of functions and their versions: an item is behind `marker`, the
 * object's name and (of a version) its number. */
struct listing {
    struct op *op;
    struct val *answer, *list;
    const char *marker, *last;
    size_t marker_name; /* bytes of the name in it */
    int64_t marker_number, left;
};

/* Is the item's turn? false: it was on an earlier page, or is on a later one. */
static bool takes(struct listing *l, const char *name, int64_t number)
{
    int order = l->marker ? strncmp(name, l->marker, l->marker_name) : 1;

    if (!order && name[l->marker_name])
        order = 1;
    if (order < 0 || (!order && number <= l->marker_number) || l->left < 0)
        return false;
    if (l->left-- == 0) {
        val_put_str(l->op->q->req->arena, l->answer, "NextMarker", l->last);
        return false;
    }
    l->last = arena_printf(l->op->q->req->arena, number ? "%s:%lld" : "%s", name, (long long)number);
    return true;
}

static void list_one(struct listing *l, const struct obj *o, bool versions)
{
    struct aws_req *q = l->op->q;
    const struct obj **all;
    struct val *c;
    size_t n;

    if (takes(l, o->name, 0)) {
        c = lambda_conf(q, o);
        if (versions)
            val_put(q->req->arena, c, "FunctionArn", val_printf(q->req->arena, "%s:$LATEST", lambda_arn(q, lambda_name_of(o))));
        val_push(q->req->arena, l->list, c);
    }
    if (!versions)
        return;
    all = functions_versions(q->d->o.functions, q->req->arena, LAMBDA_NS, o->name, &n);
    for (size_t i = 0; i < n; i++)
        if (takes(l, o->name, val_int_at(obj_val(all[i]), "spec.version", 0)))
            val_push(q->req->arena, l->list, lambda_conf(q, all[i]));
}

static void on_listed(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct arena *a = q->req->arena;
    const char *marker = http_param(q->req, "Marker"), *max = http_param(q->req, "MaxItems"), *which = http_param(q->req, "FunctionVersion");
    struct listing l = {.op = op, .answer = val_map(a), .list = val_list(a), .marker = marker, .left = max ? strtoll(max, NULL, 10) : 50};

    if (r->err) {
        lambda_api_error(op, r->err, r->status);
        return;
    }
    if (marker) {
        l.marker_name = strcspn(marker, ":");
        l.marker_number = marker[l.marker_name] ? strtoll(marker + l.marker_name + 1, NULL, 10) : 0;
    }
    VAL_EACH(val_get(r->val, "items"), it) {
        struct obj *o = obj_seal(it, strtoll(val_str_at(it, "metadata.resourceVersion", "0"), NULL, 10));

        arena_pin(a, (void (*)(void *))(void (*)(void))obj_unref, o);
        list_one(&l, o, which && streq(which, "ALL"));
        if (l.left < 0)
            break;
    }
    val_put(a, l.answer, "Functions", l.list);
    lambda_reply(q, 200, l.answer);
}

void op_list_functions(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = FUNCTIONS, .ns = LAMBDA_NS},
             on_listed, op);
}

void op_account_settings(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *limit = val_need_map(a, v, "AccountLimit"), *usage;
    struct objs all = mirror_list(op->q->d->o.mirror, a, LAMBDA_NS);
    int64_t bytes = 0;

    for (uint32_t i = 0; i < all.n; i++)
        bytes += val_int_at(obj_val(all.v[i]), "spec.codeSize", 0);
    val_put_int(a, limit, "TotalCodeSize", 80530636800);
    val_put_int(a, limit, "CodeSizeUnzipped", CODE_UNPACKED_MAX);
    val_put_int(a, limit, "CodeSizeZipped", 52428800);
    val_put_int(a, limit, "ConcurrentExecutions", LAMBDA_CONCURRENCY);
    val_put_int(a, limit, "UnreservedConcurrentExecutions", lambda_unreserved(op, NULL));
    usage = val_need_map(a, v, "AccountUsage");
    val_put_int(a, usage, "TotalCodeSize", bytes);
    val_put_int(a, usage, "FunctionCount", all.n);
    lambda_reply(op->q, 200, v);
}
