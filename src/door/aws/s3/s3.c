/* door/aws/s3/s3.c - S3: which bucket, which key, which operation; buckets themselves.
 *
 * A bucket is a Volume object of the same name. Its notifications lie in the object, its objects are the
 * files of the volume. */
#include "door/aws/s3/s3_int.h"

#include "door/aws/lambda/lambda_int.h"
#include "function/function.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define VOLUMES "tandem.dev/v1/volumes"

struct arena *s3_arena(const struct s3_op *op)
{
    return op->q->req->arena;
}

const char *s3_param(const struct s3_op *op, const char *name)
{
    return http_param(op->q->req, name);
}

/* ---- answers ---- */

static void headers(struct aws_req *q)
{
    http_header(q->req, "x-amz-request-id", q->id);
    http_header(q->req, "Server", "tandem");
}

void s3_error(struct aws_req *q, int status, const char *code, const char *fmt, ...)
{
    char *text = NULL;
    struct buf b = {0};
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    buf_adds(&b, S3_XML "<Error>");
    xml_element(&b, "Code", code);
    xml_element(&b, "Message", text);
    xml_element(&b, "Resource", q->req->path);
    xml_element(&b, "RequestId", q->id);
    buf_adds(&b, "</Error>");
    headers(q);
    if (streq(q->req->method, "HEAD"))
        http_reply(q->req, status, NULL, "", 0);
    else
        http_reply(q->req, status, "application/xml", b.p, b.n);
    buf_done(&b);
    free(text);
}

void s3_answer_xml(struct s3_op *op, int status)
{
    _auto_(buf_done) struct buf out = op->out; /* op goes with the request */

    headers(op->q);
    http_reply(op->q->req, status, out.n ? "application/xml" : NULL, out.p ? out.p : "", out.n);
}

int s3_fail(struct s3_op *op, int status, const char *code, const char *fmt, ...)
{
    va_list ap;

    op->failed = true;
    op->status = status;
    op->code = code;
    va_start(ap, fmt);
    vsnprintf(op->err.msg, sizeof op->err.msg, fmt, ap);
    va_end(ap);
    return -1;
}

bool s3_must_be_new(struct s3_op *op)
{
    const char *none = http_get(op->q->req, "if-none-match");

    return none && streq(none, "*");
}

void s3_fail_err(struct s3_op *op)
{
    op->failed = true;
    switch (op->err.code) {
    case ERR_NOT_FOUND:
        if (op->hide) {
            s3_fail(op, 403, "AccessDenied", "Access Denied");
            return;
        }
        s3_fail(op, 404, "NoSuchKey", "The specified key does not exist.");
        return;
    case ERR_ALREADY_EXISTS:
        s3_fail(op, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
        return;
    case ERR_NO_SPACE:
        op->status = 507;
        op->code = "InsufficientStorage";
        return;
    case ERR_INVALID_ARGUMENT:
        op->status = 400;
        op->code = "InvalidArgument";
        return;
    case ERR_FORBIDDEN:
        op->status = 403;
        op->code = "AccessDenied";
        return;
    default:
        if (op->err.sys == 20 /* ENOTDIR */ || op->err.sys == 21 /* EISDIR */ || op->err.sys == 39 /* ENOTEMPTY */) {
            s3_fail(op, 409, "KeyConflictsWithFile",
                    "a file of this volume is in the way: a key and a key below it cannot both be files");
            return;
        }
        op->status = 500;
        op->code = "InternalError";
    }
}

void s3_answer_error(struct s3_op *op)
{
    buf_done(&op->out);
    s3_error(op->q, op->status, op->code, "%s", op->err.msg);
}

/* ---- work ---- */

static void work(void *arg)
{
    struct s3_op *op = arg;
    int root = volume_root(op->q->d->state, op->bucket, true, &op->err);

    if (root < 0) {
        s3_fail_err(op);
        return;
    }
    op->run(op, root);
    close(root);
}

static void worked(struct aws_req *q, void *arg)
{
    struct s3_op *op = arg;

    if (op->failed)
        s3_answer_error(op);
    else
        op->reply(op);
}

void s3_work(struct s3_op *op)
{
    aws_work(op->q, work, worked, op);
}

void s3_tell(struct s3_op *op, const char *key, const char *event, const struct volume_info *info)
{
    if (op->q->d->objects)
        objects_tell(op->q->d->objects, &(struct object_event){
            .volume = op->bucket, .key = key, .name = event, .size = info ? info->size : 0,
            .etag = info ? info->etag : "", .inode = info ? info->inode : 0, .req = op->q->req});
}

char *s3_http_time(struct arena *a, int64_t ns)
{
    time_t t = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[40];

    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return arena_strdup(a, text);
}

/* ---- buckets ---- */

static void list_buckets(struct s3_op *op)
{
    struct arena *a = s3_arena(op);
    struct objs all = mirror_list(op->q->d->volumes, a, NULL);
    const char *max = s3_param(op, "max-buckets"), *after = s3_param(op, "continuation-token"), *prefix = s3_param(op, "prefix"), *last = "";
    long long left = max ? strtoll(max, NULL, 10) : 10000;
    bool more = false;

    buf_printf(&op->out, S3_XML "<ListAllMyBucketsResult" S3_NS "><Owner><ID>%s</ID></Owner><Buckets>", op->q->d->account);
    for (uint32_t i = 0; i < all.n && !more; i++) {
        if ((after && strcmp(all.v[i]->name, after) <= 0) || (prefix && !str_starts(all.v[i]->name, prefix)))
            continue;
        more = left-- <= 0;
        if (more)
            continue;
        last = all.v[i]->name;
        buf_adds(&op->out, "<Bucket>");
        xml_element(&op->out, "Name", all.v[i]->name);
        xml_element(&op->out, "CreationDate", val_str_at(obj_val(all.v[i]), "metadata.creationTimestamp", ""));
        buf_adds(&op->out, "</Bucket>");
    }
    buf_adds(&op->out, "</Buckets>");
    if (more)
        xml_element(&op->out, "ContinuationToken", last);
    buf_adds(&op->out, "</ListAllMyBucketsResult>");
    s3_answer_xml(op, 200);
}

static void api_failed(struct s3_op *op, const struct client_result *r)
{
    if (r->status == 404)
        s3_error(op->q, 404, "NoSuchBucket", "The specified bucket does not exist");
    else if (r->status == 409)
        s3_error(op->q, 409, "OperationAborted", "%s", r->err->msg);
    else if (r->status == 422 || r->status == 400)
        s3_error(op->q, 400, "InvalidArgument", "%s", r->err->msg);
    else
        s3_error(op->q, 503, "ServiceUnavailable", "%s", r->err->msg);
}

static void run_nothing(struct s3_op *op, int root)
{
    (void)op, (void)root; /* the folder is made by opening it */
}

static void bucket_made(struct s3_op *op)
{
    headers(op->q);
    http_headerf(op->q->req, "Location", "/%s", op->bucket);
    http_reply(op->q->req, 200, NULL, "", 0);
}

static void on_bucket_created(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct s3_op *op = arg;

    if (r->err && r->status == 409) {
        s3_error(q, 409, "BucketAlreadyOwnedByYou",
                 "Your previous request to create the named bucket succeeded and you already own it.");
    } else if (r->err) {
        api_failed(op, r);
    } else {
        op->run = run_nothing;
        op->reply = bucket_made;
        s3_work(op);
    }
}

static void create_bucket(struct s3_op *op)
{
    struct arena *a = s3_arena(op);
    struct val *v = val_map(a);

    if (!volume_name_ok(op->bucket) || strlen(op->bucket) < 3) {
        s3_error(op->q, 400, "InvalidBucketName", "The specified bucket is not valid.");
        return;
    }
    val_put_str(a, v, "apiVersion", "tandem.dev/v1");
    val_put_str(a, v, "kind", "Volume");
    val_put_str(a, val_need_map(a, v, "metadata"), "name", op->bucket);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = VOLUMES, .body = v},
             on_bucket_created, op);
}

static void run_delete_bucket(struct s3_op *op, int root)
{
    if (!volume_empty(root))
        s3_fail(op, 409, "BucketNotEmpty", "The bucket you tried to delete is not empty");
}

static void run_destroy(void *arg)
{
    struct s3_op *op = arg;

    if (volume_destroy(op->q->d->state, op->bucket, &op->err) < 0)
        s3_fail_err(op);
}

static void destroyed(struct aws_req *q, void *arg)
{
    struct s3_op *op = arg;

    if (op->failed)
        s3_answer_error(op);
    else
        s3_answer_xml(op, 204);
}

static void on_bucket_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct s3_op *op = arg;

    if (r->err)
        api_failed(op, r);
    else
        aws_work(q, run_destroy, destroyed, op);
}

static void delete_volume(struct s3_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = VOLUMES, .name = op->bucket},
             on_bucket_deleted, op);
}

static void delete_bucket(struct s3_op *op)
{
    op->run = run_delete_bucket;
    op->reply = delete_volume;
    s3_work(op);
}

/* ---- notifications ---- */

static void get_notifications(struct s3_op *op)
{
    buf_adds(&op->out, S3_XML "<NotificationConfiguration" S3_NS ">");
    VAL_EACH(val_at(obj_val(op->volume), "spec.notifications"), n)
    {
        const char *prefix = val_str_at(n, "filterPrefix", ""), *suffix = val_str_at(n, "filterSuffix", "");

        buf_adds(&op->out, "<CloudFunctionConfiguration>");
        xml_element(&op->out, "Id", val_str_at(n, "id", ""));
        xml_element(&op->out, "CloudFunction", val_str_at(n, "functionArn", ""));
        VAL_EACH(val_get(n, "events"), e)
            xml_element(&op->out, "Event", val_text(e, ""));
        if (*prefix || *suffix) {
            buf_adds(&op->out, "<Filter><S3Key>");
            for (int i = 0; i < 2; i++)
                if (*(i ? suffix : prefix)) {
                    buf_adds(&op->out, "<FilterRule>");
                    xml_element(&op->out, "Name", i ? "Suffix" : "Prefix");
                    xml_element(&op->out, "Value", i ? suffix : prefix);
                    buf_adds(&op->out, "</FilterRule>");
                }
            buf_adds(&op->out, "</S3Key></Filter>");
        }
        buf_adds(&op->out, "</CloudFunctionConfiguration>");
    }
    buf_adds(&op->out, "</NotificationConfiguration>");
    s3_answer_xml(op, 200);
}

static int notification_of(struct s3_op *op, const struct val *in, uint32_t number, struct val *list)
{
    struct arena *a = s3_arena(op);
    const char *arn = xml_get(in, "CloudFunction", ""), *name = strstr(arn, ":function:");
    const struct val *filters = val_at(in, "Filter[0].S3Key[0].FilterRule"), *events = val_get(in, "Event");
    struct val *n = val_map(a);
    const char *object; /* the Function object is called so */
    char *function;

    if (!str_starts(arn, "arn:aws") || !name || !name[10])
        return s3_fail(op, 400, "InvalidArgument", "The ARN is not well formed: %s", arn);
    function = arena_strndup(a, name + 10, strcspn(name + 10, ":"));
    object = lambda_object_name(a, function);
    if (!functions_known(op->q->d->o.functions, "default", object))
        return s3_fail(op, 400, "InvalidArgument", "Unable to validate the following destination configurations: "
                       "there is no function %s", function);
    val_put_str(a, n, "id", xml_get(in, "Id", arena_printf(a, "notification-%u", number)));
    val_put_str(a, n, "functionArn", arn);
    val_put_str(a, n, "function", object);
    val_put(a, n, "events", val_list(a));
    if (!val_len(events))
        return s3_fail(op, 400, "MalformedXML", "a configuration needs an Event");
    VAL_EACH(events, e)
    {
        if (!str_starts(val_text(e, ""), "s3:ObjectCreated:") && !str_starts(val_text(e, ""), "s3:ObjectRemoved:"))
            return s3_fail(op, 400, "InvalidArgument", "The event is not supported for notifications: %s (there are "
                           "s3:ObjectCreated:* and s3:ObjectRemoved:*)", val_text(e, ""));
        val_push(a, val_get(n, "events"), e);
    }
    VAL_EACH(filters, f)
    {
        const char *kind = xml_get(f, "Name", "");
        bool prefix = strcasecmp(kind, "prefix") == 0;

        if (!prefix && strcasecmp(kind, "suffix") != 0)
            return s3_fail(op, 400, "InvalidArgument", "filter rule name must be either prefix or suffix");
        val_put_str(a, n, prefix ? "filterPrefix" : "filterSuffix", xml_get(f, "Value", ""));
    }
    val_push(a, list, n);
    return 0;
}

static void on_notifications_put(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct s3_op *op = arg;

    if (r->err) {
        api_failed(op, r);
        return;
    }
    if (q->d->objects && r->obj)
        objects_volume(q->d->objects, r->obj); /* it counts from this answer on */
    s3_answer_xml(op, 200);
}

const struct val *s3_xml_body(struct s3_op *op, char *data, size_t n, const struct err *err)
{
    const struct val *in;

    if (err) {
        s3_error(op->q, err->code == ERR_TOO_LARGE ? 400 : 499, "MalformedXML", "%s", err->msg);
        return NULL;
    }
    in = xml_parse(s3_arena(op), data, n, &op->err);
    if (!in)
        s3_error(op->q, 400, "MalformedXML", "%s", op->err.msg);
    return in;
}

static void put_notifications(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct s3_op *op = arg;
    struct arena *a = req->arena;
    struct val *patch = val_map(a), *list = val_list(a);
    const struct val *in;
    static const char *const OTHERS[] = {"QueueConfiguration", "TopicConfiguration", "EventBridgeConfiguration"};
    uint32_t number = 0;

    in = s3_xml_body(op, data, n, err);
    if (!in)
        return;
    for (size_t i = 0; i < ARRAY_LEN(OTHERS); i++)
        if (val_get(in, OTHERS[i])) {
            s3_error(op->q, 501, "NotImplemented", "tandem notifies functions; %s is not served yet", OTHERS[i]);
            return;
        }
    VAL_EACH(val_get(in, "CloudFunctionConfiguration"), it)
        if (notification_of(op, it, number++, list) < 0) {
            s3_answer_error(op);
            return;
        }
    val_put(a, val_need_map(a, patch, "spec"), "notifications", list);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = VOLUMES, .name = op->bucket, .body = patch,
                                          .patch_type = CLIENT_PATCH_MERGE}, on_notifications_put, op);
}

/* ---- which operation ---- */

/* Sub-resources of a bucket whose state is fixed here. NULL: not one of them. */
static const char *fixed_answer(struct s3_op *op)
{
    if (s3_param(op, "location"))
        return streq(op->q->d->region, "us-east-1")
                   ? S3_XML "<LocationConstraint" S3_NS "/>"
                   : arena_printf(s3_arena(op), S3_XML "<LocationConstraint" S3_NS ">%s</LocationConstraint>", op->q->d->region);
    if (s3_param(op, "versioning"))
        return S3_XML "<VersioningConfiguration" S3_NS "/>";
    if (s3_param(op, "acl"))
        return arena_printf(s3_arena(op), S3_XML "<AccessControlPolicy" S3_NS "><Owner><ID>%s</ID></Owner><AccessControlList/>"
                            "</AccessControlPolicy>", op->q->d->account);
    return NULL;
}

static void not_served(struct s3_op *op)
{
    s3_error(op->q, 501, "NotImplemented", "A header or query you provided implies functionality that is not implemented: %s %s",
             op->q->req->method, op->q->req->query);
}

static bool has_unserved(struct s3_op *op)
{
    static const char *const NAMES[] = {"cors", "lifecycle", "website", "tagging", "encryption", "replication",
                                        "logging", "object-lock", "retention", "legal-hold", "torrent", "select", "restore",
                                        "accelerate", "analytics", "inventory", "metrics", "ownershipControls",
                                        "publicAccessBlock", "requestPayment", "versions", "intelligent-tiering", "attributes"};

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (s3_param(op, NAMES[i]))
            return true;
    return false;
}

static void bucket_request(struct s3_op *op)
{
    const char *method = op->q->req->method, *fixed;

    if (streq(method, "HEAD")) {
        headers(op->q);
        http_header(op->q->req, "x-amz-bucket-region", op->q->d->region);
        http_reply(op->q->req, 200, NULL, "", 0);
    } else if (streq(method, "GET") && s3_param(op, "notification")) {
        get_notifications(op);
    } else if (streq(method, "GET") && s3_param(op, "uploads")) {
        s3_multi_uploads(op);
    } else if (streq(method, "GET") && (fixed = fixed_answer(op))) {
        buf_adds(&op->out, fixed);
        s3_answer_xml(op, 200);
    } else if (s3_bucket_tags(op)) {
        return;
    } else if (streq(method, "GET") && s3_param(op, "versions")) {
        s3_list(op, LIST_VERSIONS);
    } else if (has_unserved(op)) {
        not_served(op);
    } else if (streq(method, "GET")) {
        const char *type = s3_param(op, "list-type");

        s3_list(op, type && streq(type, "2") ? 2 : 1);
    } else if (streq(method, "PUT") && s3_param(op, "notification")) {
        http_body(op->q->req, 1 << 20, put_notifications, op);
    } else if (streq(method, "POST") && s3_param(op, "delete")) {
        s3_delete_objects(op);
    } else if (streq(method, "DELETE")) {
        delete_bucket(op);
    } else {
        not_served(op);
    }
}

static void object_request(struct s3_op *op)
{
    const char *method = op->q->req->method, *upload = s3_param(op, "uploadId");
    const char *problem = volume_key_problem(op->key);

    if (problem && (streq(method, "PUT") || streq(method, "POST")))
        s3_error(op->q, 400, "InvalidArgument", "this key cannot be kept: %s", problem);
    else if (has_unserved(op) || s3_param(op, "acl"))
        not_served(op);
    else if ((streq(method, "GET") || streq(method, "HEAD")) && !upload)
        s3_get_object(op);
    else if (streq(method, "GET"))
        s3_multi_parts(op);
    else if (streq(method, "PUT") && http_get(op->q->req, "x-amz-copy-source"))
        s3_copy(op);
    else if (streq(method, "PUT") && upload)
        s3_upload_part(op);
    else if (streq(method, "PUT"))
        s3_put_object(op);
    else if (streq(method, "POST") && s3_param(op, "uploads"))
        s3_multi_create(op);
    else if (streq(method, "POST") && upload)
        s3_multi_complete(op);
    else if (streq(method, "DELETE") && upload)
        s3_multi_abort(op);
    else if (streq(method, "DELETE"))
        s3_delete_object(op);
    else
        not_served(op);
}

static void with_volume(struct s3_op *op, const struct obj *volume)
{
    op->volume = volume;
    if (!s3_may(op))
        return;
    if (!*op->key && s3_policy_request(op))
        return;
    if (*op->key)
        object_request(op);
    else
        bucket_request(op);
}

static void on_volume(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct s3_op *op = arg;

    if (r->err)
        api_failed(op, r);
    else
        with_volume(op, r->obj);
}

/* What a client reads to see whether what it has just put is there: not from the mirror, which hears of it a moment later. */
static bool reads_configuration(const struct s3_op *op)
{
    return !*op->key && streq(op->q->req->method, "GET") &&
           (s3_param(op, "notification") || s3_param(op, "policy") || s3_param(op, "policyStatus"));
}

void s3_request(struct aws_req *q)
{
    struct s3_op *op = arena_new_of(q->req->arena, struct s3_op);
    const char *path = q->req->path, *host = q->req->host, *dot = strstr(host, ".s3"), *slash;
    const struct obj *volume;

    op->q = q;
    if (dot && dot != host && (dot[3] == '.' || dot[3] == '-' || dot[3] == ':' || !dot[3])) {
        op->bucket = arena_strndup(q->req->arena, host, (size_t)(dot - host));
        op->key = path[0] == '/' ? path + 1 : path;
    } else {
        path += path[0] == '/';
        slash = strchr(path, '/');
        op->bucket = slash ? arena_strndup(q->req->arena, path, (size_t)(slash - path)) : path;
        op->key = slash ? slash + 1 : "";
    }
    if (!*op->bucket) {
        if (!s3_may(op))
            return;
        if (streq(q->req->method, "GET"))
            list_buckets(op);
        else
            not_served(op);
        return;
    }
    if (!*op->key && streq(q->req->method, "PUT") && !*q->req->query) {
        if (s3_may(op))
            create_bucket(op);
        return;
    }
    volume = mirror_get(q->d->volumes, "", op->bucket);
    op->volume = volume;
    if (!volume && !s3_may(op))
        return;
    if (volume && !reads_configuration(op))
        with_volume(op, volume);
    else if (!volume && !volume_name_ok(op->bucket))
        s3_error(q, 404, "NoSuchBucket", "The specified bucket does not exist");
    else /* made or changed a moment ago, perhaps: the API knows */
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = VOLUMES, .name = op->bucket}, on_volume, op);
}
