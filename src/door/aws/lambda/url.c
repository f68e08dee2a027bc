/* door/aws/lambda/url.c - function URL configurations. */
#include "door/aws/lambda/lambda_int.h"

static const struct obj *need_url(struct op *op)
{
    const struct obj *o = lambda_need(op);

    if (o && !val_bool_at(obj_val(o), "spec.url.enabled", false)) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
        return NULL;
    }
    return o;
}

static void reply_url(struct op *op, const struct obj *o)
{
    struct val *v = lambda_url_conf(op->q, o);

    if (op->create) /* not yet modified */
        val_del(v, "LastModifiedTime");
    lambda_reply(op->q, op->create ? 201 : 200, v);
}

static void put_url(struct op *op)
{
    static const char *const same[][2] = {{"AllowHeaders", "allowHeaders"}, {"AllowMethods", "allowMethods"},
        {"AllowOrigins", "allowOrigins"}, {"ExposeHeaders", "exposeHeaders"},
        {"AllowCredentials", "allowCredentials"}, {"MaxAge", "maxAge"}};
    struct arena *a = op->q->req->arena;
    const char *auth = val_str_at(op->in, "AuthType", NULL), *mode = val_str_at(op->in, "InvokeMode", NULL);
    struct val *url, *cors;

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
    lambda_patch(op, A_URL_MODIFIED, reply_url);
}

void op_create_url(struct op *op)
{
    const struct obj *o = lambda_need(op);

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
void op_update_url(struct op *op)
{
    if (need_url(op))
        put_url(op);
}
void op_get_url(struct op *op)
{
    const struct obj *o = need_url(op);

    if (o)
        reply_url(op, o);
}
void op_list_urls(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = lambda_need(op);
    struct val *v, *list;

    if (!o)
        return;
    v = val_map(a);
    list = val_need_list(a, v, "FunctionUrlConfigs");
    if (val_bool_at(obj_val(o), "spec.url.enabled", false))
        val_push(a, list, lambda_url_conf(op->q, o));
    lambda_reply(op->q, 200, v);
}
void op_delete_url(struct op *op)
{
    if (need_url(op))
        lambda_clear(op, "url");
}
