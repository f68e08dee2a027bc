/* door/aws/s3/tags.c - tags of buckets: spec.tags of the Volume. */
#include "door/aws/s3/s3_int.h"

#include "door/aws/xml.h"

#define VOLUMES "tandem.dev/v1/volumes"

enum { BODY_MAX = 64 << 10 };

enum { TRIES_MAX = 20 };

/* What a request does with the tags; read from the API, which knows what the mirror hears of a moment later. */
struct tagging {
    struct s3_op *op;
    const struct val *tags; /* of a PUT or DELETE: those that shall be */
    int tries;
};

static void on_read(struct aws_req *q, const struct client_result *r, void *arg);

static void read_volume(struct tagging *t)
{
    aws_call(t->op->q, &(struct client_call){.verb = CLIENT_GET, .resource = VOLUMES, .name = t->op->bucket}, on_read, t);
}

static void refuse(struct aws_req *q, const struct err *err)
{
    if (err->code == ERR_NOT_FOUND)
        s3_error(q, 404, "NoSuchBucket", "The specified bucket does not exist");
    else
        s3_error(q, err->code == ERR_CONFLICT ? 409 : 500, err->code == ERR_CONFLICT ? "OperationAborted" : "InternalError", "%s", err->msg);
}

static void show(struct s3_op *op, const struct val *tags)
{
    if (!val_len(tags)) {
        s3_error(op->q, 404, "NoSuchTagSet", "The TagSet does not exist");
        return;
    }
    buf_adds(&op->out, S3_XML "<Tagging" S3_NS "><TagSet>");
    VAL_EACH_MEMBER(tags, m)
    {
        buf_adds(&op->out, "<Tag>");
        xml_element(&op->out, "Key", m->key);
        xml_element(&op->out, "Value", val_text(&m->v, ""));
        buf_adds(&op->out, "</Tag>");
    }
    buf_adds(&op->out, "</TagSet></Tagging>");
    s3_answer_xml(op, 200);
}

static void on_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct tagging *t = arg;

    if (r->err && r->err->code == ERR_CONFLICT && t->tries++ < TRIES_MAX)
        read_volume(t);
    else if (r->err)
        refuse(q, r->err);
    else
        s3_answer_xml(t->op, 204);
}

static void on_read(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct tagging *t = arg;
    struct arena *a = q->req->arena;
    const struct val *had = r->obj ? val_at(obj_val(r->obj), "spec.tags") : NULL;
    struct val *patch, *tags;

    if (r->err || !r->obj) {
        refuse(q, r->err ? r->err : &t->op->err);
        return;
    }
    if (!t->tags) {
        show(t->op, had);
        return;
    }
    patch = val_map(a);
    tags = val_copy(a, t->tags);
    VAL_EACH_MEMBER(had, m) /* a merge patch keeps what it does not name */
        if (!val_get(tags, m->key))
            val_put(a, tags, m->key, val_null(a));
    val_put(a, val_need_map(a, patch, "metadata"), "resourceVersion", val_printf(a, "%lld", (long long)r->obj->revision));
    val_put(a, val_need_map(a, patch, "spec"), "tags", tags);
    aws_call(q, &(struct client_call){.verb = CLIENT_PATCH, .resource = VOLUMES, .name = t->op->bucket, .body = patch,
                                      .patch_type = CLIENT_PATCH_MERGE}, on_written, t);
}

static void on_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct tagging *t = arg;
    struct s3_op *op = t->op;
    struct arena *a = req->arena;
    struct val *tags = val_map(a);
    const struct val *in;
    const char *wrong;
    bool many;

    in = s3_xml_body(op, data, n, err);
    if (!in)
        return;
    VAL_EACH(val_at(in, "TagSet[0].Tag"), tag)
    {
        const char *key = xml_get(tag, "Key", "");

        if (val_get(tags, key)) {
            s3_error(op->q, 400, "InvalidTag", "Cannot provide multiple Tags with the same key");
            return;
        }
        val_put_str(a, tags, key, xml_get(tag, "Value", ""));
    }
    wrong = aws_tags_wrong(op->q, NULL, tags, &many);
    if (wrong) {
        s3_error(op->q, 400, many ? "BadRequest" : "InvalidTag", "%s", wrong);
        return;
    }
    t->tags = tags;
    read_volume(t);
}

bool s3_bucket_tags(struct s3_op *op)
{
    const char *method = op->q->req->method;
    struct tagging *t;

    if (!s3_param(op, "tagging") || !(streq(method, "GET") || streq(method, "PUT") || streq(method, "DELETE")))
        return false;
    t = arena_new_of(s3_arena(op), struct tagging);
    t->op = op;
    if (streq(method, "DELETE"))
        t->tags = val_map(s3_arena(op));
    if (streq(method, "PUT"))
        http_body(op->q->req, BODY_MAX, on_body, t);
    else
        read_volume(t);
    return true;
}
