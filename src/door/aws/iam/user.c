/* door/aws/iam/user.c - access keys of users: Secrets of type tandem.dev/access-key that name their user. */
#include "door/aws/iam/iam_int.h"

#include <strings.h>

enum { KEYS_MAX = 2 };

static uint32_t count_keys(struct iam_op *op, const char *user)
{
    struct objs all = mirror_list(op->id->keys, op->a, "kube-system");
    uint32_t n = 0;

    for (uint32_t i = 0; i < all.n; i++)
        n += streq0(obj_annotation(all.v[i], A_KEY_USER), user);
    return n;
}

static void key_xml(struct iam_op *op, const struct obj *o)
{
    const char *status = obj_annotation(o, A_KEY_STATUS), *id = identity_secret_text(op->a, o, "accessKeyId");

    xml_element(&op->out, "UserName", obj_annotation(o, A_KEY_USER));
    xml_element(&op->out, "AccessKeyId", id ? id : "");
    xml_element(&op->out, "Status", status ? status : "Active");
}

static void reply_key(struct iam_op *op, const struct obj *o)
{
    const char *secret = identity_secret_text(op->a, o, "secretAccessKey");

    buf_adds(&op->out, "<AccessKey>");
    key_xml(op, o);
    xml_element(&op->out, "SecretAccessKey", secret ? secret : "");
    xml_element(&op->out, "CreateDate", val_str_at(obj_val(o), "metadata.creationTimestamp", ""));
    buf_adds(&op->out, "</AccessKey>");
    iam_done(op);
}

void iam_create_key(struct iam_op *op)
{
    const struct obj *user = iam_entity(op);
    struct arena *a = op->a;
    const char *id, *secret;
    struct val *v, *meta;

    if (!user)
        return;
    if (count_keys(op, iam_name_of(user)) >= KEYS_MAX) {
        iam_fail(op, 409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: %d", KEYS_MAX);
        return;
    }
    v = identity_new_key(a, NULL, &id, &secret);
    meta = val_need_map(a, v, "metadata");
    val_put_str(a, meta, "namespace", "kube-system");
    val_put_str(a, val_need_map(a, meta, "annotations"), A_KEY_USER, iam_name_of(user));
    iam_create(op, "v1/secrets", op->id->keys, v, reply_key);
}

void iam_list_keys(struct iam_op *op)
{
    const struct obj *user = iam_entity(op);
    struct objs all;
    struct iam_page page;

    if (!user || iam_page_begin(op, &page) < 0)
        return;
    all = mirror_list(op->id->keys, op->a, "kube-system");
    xml_element(&op->out, "UserName", iam_name_of(user));
    buf_adds(&op->out, "<AccessKeyMetadata>");
    for (uint32_t i = 0; i < all.n; i++) {
        if (!streq0(obj_annotation(all.v[i], A_KEY_USER), iam_name_of(user)) || !iam_page_each(&page, all.v[i]->name))
            continue;
        buf_adds(&op->out, "<member>");
        key_xml(op, all.v[i]);
        xml_element(&op->out, "CreateDate", val_str_at(obj_val(all.v[i]), "metadata.creationTimestamp", ""));
        buf_adds(&op->out, "</member>");
    }
    buf_adds(&op->out, "</AccessKeyMetadata>");
    iam_page_end(op, &page);
    iam_done(op);
}

/* The key that the request names; NULL: answered. */
static const struct obj *key_of(struct iam_op *op)
{
    const struct obj *user = iam_entity(op);
    const char *id = user ? iam_need_name(op, "AccessKeyId", 128) : NULL;
    struct objs all;

    if (!id)
        return NULL;
    all = mirror_list(op->id->keys, op->a, "kube-system");
    for (uint32_t i = 0; i < all.n; i++)
        if (streq0(obj_annotation(all.v[i], A_KEY_USER), iam_name_of(user)) &&
            streq0(identity_secret_text(op->a, all.v[i], "accessKeyId"), id))
            return all.v[i];
    iam_fail(op, 404, "NoSuchEntity", "The Access Key with id %s cannot be found.", id);
    return NULL;
}

static void on_status(struct aws_req *q, const struct client_result *r, void *arg);
static void on_status_seen(void *arg)
{
    iam_done(arg);
}
static void on_status(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct iam_op *op = arg;

    (void)q;
    if (r->err)
        iam_fail(op, 503, "ServiceUnavailable", "%s", r->err->msg);
    else
        iam_wait(op->id, op->id->keys, "kube-system", op->object, r->obj ? r->obj->revision : 1, on_status_seen, op);
}

void iam_update_key(struct iam_op *op)
{
    const struct obj *o = key_of(op);
    const char *status = o ? iam_need(op, "Status", 16) : NULL;
    struct val *patch = val_map(op->a);

    if (!status)
        return;
    if (!streq(status, "Active") && !streq(status, "Inactive")) {
        iam_fail(op, 400, "ValidationError", "1 validation error detected: Value '%s' at 'status' failed to satisfy constraint: Member "
                 "must satisfy enum value set: [Active, Inactive, Expired]", status);
        return;
    }
    op->object = arena_strdup(op->a, o->name);
    val_put_str(op->a, val_need_map(op->a, val_need_map(op->a, patch, "metadata"), "annotations"), A_KEY_STATUS, status);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = "v1/secrets", .ns = "kube-system", .name = op->object,
        .body = patch, .patch_type = CLIENT_PATCH_MERGE}, on_status, op);
}

void iam_delete_key(struct iam_op *op)
{
    const struct obj *o = key_of(op);

    if (o)
        iam_delete(op, "v1/secrets", op->id->keys, o);
}

void iam_key_last_used(struct iam_op *op)
{
    const char *id = iam_need_name(op, "AccessKeyId", 128), *user;
    struct objs all;

    if (!id)
        return;
    all = mirror_list(op->id->keys, op->a, "kube-system");
    for (uint32_t i = 0; i < all.n; i++) {
        if (!streq0(identity_secret_text(op->a, all.v[i], "accessKeyId"), id))
            continue;
        user = obj_annotation(all.v[i], A_KEY_USER);
        xml_element(&op->out, "UserName", user ? user : "root");
        buf_adds(&op->out, "<AccessKeyLastUsed><Region>N/A</Region><ServiceName>N/A</ServiceName></AccessKeyLastUsed>");
        iam_done(op);
        return;
    }
    iam_fail(op, 403, "AccessDenied", "The Access Key with id %s cannot be found.", id);
}
