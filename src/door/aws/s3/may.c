/* door/aws/s3/may.c - which action a request to S3 is, on which resource; and bucket policies.
 *
 * A bucket's policy lies in the Volume's annotation tandem.dev/policy, as it was given. */
#include "door/aws/s3/s3_int.h"

#include <stdio.h>

#include "codec/json.h"
#include "door/aws/identity_int.h"

#define VOLUMES "tandem.dev/v1/volumes"
#define A_POLICY "tandem.dev/policy"
enum { BUCKET_POLICY_MAX = POLICY_BYTES_MAX };

/* Sub-resources: what reading, writing and removing them is called; NULL: as the row says before. */
static const struct sub {
    const char *param, *get, *put, *remove;
} BUCKET_SUBS[] = {
    {"location", "s3:GetBucketLocation", NULL, NULL},
    {"versioning", "s3:GetBucketVersioning", "s3:PutBucketVersioning", NULL},
    {"acl", "s3:GetBucketAcl", "s3:PutBucketAcl", NULL},
    {"notification", "s3:GetBucketNotification", "s3:PutBucketNotification", NULL},
    {"uploads", "s3:ListBucketMultipartUploads", NULL, NULL},
    {"policy", "s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"},
    {"tagging", "s3:GetBucketTagging", "s3:PutBucketTagging", "s3:PutBucketTagging"},
    {"cors", "s3:GetBucketCORS", "s3:PutBucketCORS", "s3:PutBucketCORS"},
    {"lifecycle", "s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration", "s3:PutLifecycleConfiguration"},
    {"website", "s3:GetBucketWebsite", "s3:PutBucketWebsite", "s3:DeleteBucketWebsite"},
    {"encryption", "s3:GetEncryptionConfiguration", "s3:PutEncryptionConfiguration", "s3:PutEncryptionConfiguration"},
    {"replication", "s3:GetReplicationConfiguration", "s3:PutReplicationConfiguration", "s3:PutReplicationConfiguration"},
    {"logging", "s3:GetBucketLogging", "s3:PutBucketLogging", NULL},
    {"object-lock", "s3:GetBucketObjectLockConfiguration", "s3:PutBucketObjectLockConfiguration", NULL},
    {"ownershipControls", "s3:GetBucketOwnershipControls", "s3:PutBucketOwnershipControls", "s3:PutBucketOwnershipControls"},
    {"publicAccessBlock", "s3:GetBucketPublicAccessBlock", "s3:PutBucketPublicAccessBlock", "s3:PutBucketPublicAccessBlock"},
    {"requestPayment", "s3:GetBucketRequestPayment", "s3:PutBucketRequestPayment", NULL},
    {"accelerate", "s3:GetAccelerateConfiguration", "s3:PutAccelerateConfiguration", NULL},
    {"versions", "s3:ListBucketVersions", NULL, NULL},
};
static const struct sub OBJECT_SUBS[] = {
    {"acl", "s3:GetObjectAcl", "s3:PutObjectAcl", NULL},
    {"tagging", "s3:GetObjectTagging", "s3:PutObjectTagging", "s3:DeleteObjectTagging"},
    {"attributes", "s3:GetObjectAttributes", NULL, NULL},
    {"retention", "s3:GetObjectRetention", "s3:PutObjectRetention", NULL},
    {"legal-hold", "s3:GetObjectLegalHold", "s3:PutObjectLegalHold", NULL},
    {"restore", NULL, "s3:RestoreObject", NULL},
};

/* What the request does to the i-th sub-resource; NULL: it does not name it, or it means nothing with this method. */
static const char *of_sub(const struct s3_op *op, size_t i)
{
    const char *method = op->q->req->method;
    bool object = *op->key;
    const struct sub *sub = i >= (object ? ARRAY_LEN(OBJECT_SUBS) : ARRAY_LEN(BUCKET_SUBS)) ? NULL : object ? &OBJECT_SUBS[i] : &BUCKET_SUBS[i];

    if (!sub || !s3_param(op, sub->param))
        return NULL;
    if (streq(method, "GET") || streq(method, "HEAD"))
        return sub->get;
    return streq(method, "DELETE") ? sub->remove : sub->put;
}

/* What the request does when it names no sub-resource; NULL: nothing. */
static const char *plain_action(const struct s3_op *op)
{
    const char *method = op->q->req->method;
    bool get = streq(method, "GET") || streq(method, "HEAD"), upload = s3_param(op, "uploadId") != NULL;

    if (!*op->bucket)
        return "s3:ListAllMyBuckets";
    if (!*op->key)
        return get ? "s3:ListBucket" : streq(method, "PUT") ? "s3:CreateBucket" : streq(method, "DELETE") ? "s3:DeleteBucket"
                                                                                                       : NULL;
    if (get)
        return upload ? "s3:ListMultipartUploadParts" : s3_param(op, "versionId") ? "s3:GetObjectVersion" : "s3:GetObject";
    if (streq(method, "DELETE"))
        return upload ? "s3:AbortMultipartUpload" : s3_param(op, "versionId") ? "s3:DeleteObjectVersion" : "s3:DeleteObject";
    return "s3:PutObject";
}

static const char *arn_of(struct s3_op *op, const char *bucket, const char *key)
{
    if (!*bucket)
        return "*";
    return *key ? arena_printf(s3_arena(op), "arn:aws:s3:::%s/%s", bucket, key) : arena_printf(s3_arena(op), "arn:aws:s3:::%s", bucket);
}

static struct val *context_of(struct s3_op *op)
{
    static const char *const PARAMS[] = {"prefix", "delimiter", "max-keys", "versionId"};
    static const char *const HEADERS[] = {"x-amz-acl", "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-copy-source",
                                          "x-amz-metadata-directive", "x-amz-content-sha256", "x-amz-grant-read"};
    struct arena *a = s3_arena(op);
    struct val *v = aws_context(op->q);

    for (size_t i = 0; i < ARRAY_LEN(PARAMS); i++)
        if (s3_param(op, PARAMS[i]))
            val_put_str(a, v, i == 3 ? "s3:versionid" : arena_printf(a, "s3:%s", PARAMS[i]), s3_param(op, PARAMS[i]));
    for (size_t i = 0; i < ARRAY_LEN(HEADERS); i++)
        if (http_get(op->q->req, HEADERS[i]))
            val_put_str(a, v, arena_printf(a, "s3:%s", HEADERS[i]), http_get(op->q->req, HEADERS[i]));
    if (!*op->key && *op->bucket && streq(op->q->req->method, "GET") && !s3_param(op, "prefix"))
        val_put_str(a, v, "s3:prefix", "");
    val_put_str(a, v, "s3:authtype", op->q->sig.kind == SIGV4_HEADER ? "REST-HEADER" : "REST-QUERY-STRING");
    val_put_str(a, v, "s3:signatureversion", op->q->sig.kind == SIGV2_QUERY ? "AWS" : "AWS4-HMAC-SHA256");
    val_put_str(a, v, "aws:resourceaccount", op->q->d->account);
    return v;
}

static bool is_free(const struct s3_op *op)
{
    return op->q->caller.kind == CALLER_ROOT && !op->q->caller.set.has_session && (!op->volume || !obj_annotation(op->volume, A_POLICY));
}

char *s3_denied(struct s3_op *op, const char *action, const char *key)
{
    if (is_free(op))
        return NULL;
    return aws_denied(op->q, action, arn_of(op, op->bucket, key), context_of(op), identity_policy_at(s3_arena(op), op->volume, A_POLICY), POLICY_RESOURCE);
}

char *s3_source_denied(struct s3_op *op, const char *bucket, const char *key)
{
    const struct obj *volume = mirror_get(op->q->d->volumes, "", bucket);
    bool root = op->q->caller.kind == CALLER_ROOT && !op->q->caller.set.has_session;

    if (root && (!volume || !obj_annotation(volume, A_POLICY)))
        return NULL;
    return aws_denied(op->q, "s3:GetObject", arn_of(op, bucket, key), context_of(op), identity_policy_at(s3_arena(op), volume, A_POLICY), POLICY_RESOURCE);
}

static bool may_do(struct s3_op *op, const char *action)
{
    const struct obj *volume = op->volume;
    char *message;

    if (op->q->caller.kind == CALLER_ROOT && str_ends(action, "BucketPolicy"))
        op->volume = NULL; /* whatever it says: the account can always take it away */
    message = s3_denied(op, action, op->key);
    op->volume = volume;
    if (message)
        aws_refuse(op->q, message);
    return !message;
}

/* Every sub-resource that a request names must be his: which of them is served is not decided here. */
bool s3_may(struct s3_op *op)
{
    const char *action;
    bool sub = false;

    for (size_t i = 0; i < MAX(ARRAY_LEN(BUCKET_SUBS), ARRAY_LEN(OBJECT_SUBS)); i++) {
        action = of_sub(op, i);
        sub = sub || action;
        if (action && !may_do(op, action))
            return false;
    }
    action = sub ? NULL : plain_action(op);
    if (!action)
        return true; /* each key of DeleteObjects is looked at by itself; else it is refused as not served */
    if (!may_do(op, action))
        return false;
    /* whether a key is there is told only to who may list */
    if (streq(action, "s3:GetObject") && !is_free(op))
        op->hide = s3_denied(op, "s3:ListBucket", "") != NULL;
    return true;
}

/* ---- bucket policies ---- */

static void on_policy_seen(void *arg)
{
    s3_answer_xml(arg, 204);
}

static void on_policy_put(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct s3_op *op = arg;

    if (r->err)
        s3_error(q, 503, "ServiceUnavailable", "%s", r->err->msg);
    else if (!q->d->volumes)
        on_policy_seen(op);
    else
        iam_wait(q->d->o.identity, q->d->volumes, "", op->bucket, r->obj ? r->obj->revision : 1, on_policy_seen, op);
}

static void write_policy(struct s3_op *op, const char *text)
{
    struct arena *a = s3_arena(op);
    struct val *patch = val_map(a), *notes = val_need_map(a, val_need_map(a, patch, "metadata"), "annotations");

    val_put(a, notes, A_POLICY, text ? val_lit(a, text) : val_null(a));
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = VOLUMES, .name = op->bucket, .body = patch,
                                          .patch_type = CLIENT_PATCH_MERGE}, on_policy_put, op);
}

/* Every resource is this bucket, or in it. */
static bool resources_fit(struct s3_op *op, const struct val *doc)
{
    const char *arn = arn_of(op, op->bucket, "");
    const struct val *list = val_get(doc, "Statement");
    uint32_t n = val_is(list, VAL_LIST) ? list->n : 1;

    for (uint32_t i = 0; i < n; i++) {
        const struct val *s = val_is(list, VAL_LIST) ? &list->items[i] : list, *r = val_get(s, "Resource");
        uint32_t m = val_is(r, VAL_LIST) ? r->n : r ? 1 : 0;

        for (uint32_t k = 0; k < m; k++) {
            const char *text = val_text(val_is(r, VAL_LIST) ? &r->items[k] : r, "");

            if (!streq(text, arn) && !(str_starts(text, arn) && text[strlen(arn)] == '/'))
                return false;
        }
    }
    return true;
}

static void on_policy_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct s3_op *op = arg;
    const struct val *doc;
    struct err why = {0};

    if (err) {
        s3_error(op->q, err->code == ERR_TOO_LARGE ? 400 : 499, "MalformedPolicy", "Policies must be at most %d bytes", BUCKET_POLICY_MAX);
        return;
    }
    if (!n || data[0] != '{' || !json_parse(req->arena, data, n, &why)) {
        s3_error(op->q, 400, "MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'");
        return;
    }
    doc = policy_read(req->arena, val_lit(req->arena, data), POLICY_RESOURCE, &why);
    if (!doc)
        s3_error(op->q, 400, "MalformedPolicy", "%s", why.msg);
    else if (!resources_fit(op, doc))
        s3_error(op->q, 400, "MalformedPolicy", "Policy has invalid resource");
    else
        write_policy(op, data);
}

bool s3_policy_request(struct s3_op *op)
{
    const char *method = op->q->req->method, *text = obj_annotation(op->volume, A_POLICY);

    if (!s3_param(op, "policy"))
        return false;
    if (streq(method, "PUT"))
        http_body(op->q->req, BUCKET_POLICY_MAX, on_policy_body, op);
    else if (streq(method, "DELETE"))
        write_policy(op, NULL);
    else if (!streq(method, "GET"))
        return false;
    else if (!text)
        s3_error(op->q, 404, "NoSuchBucketPolicy", "The bucket policy does not exist");
    else {
        http_header(op->q->req, "x-amz-request-id", op->q->id);
        http_reply_str(op->q->req, 200, "application/json", text);
    }
    return true;
}
