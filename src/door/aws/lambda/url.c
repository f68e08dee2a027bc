/* door/aws/lambda/url.c - function URL configurations: of the function as a whole (spec.url), and of each alias (its url in spec.aliases). */
#include "door/aws/lambda/lambda_int.h"

static const char *const CORS[][2] = {{"AllowHeaders", "allowHeaders"}, {"AllowMethods", "allowMethods"}, {"AllowOrigins", "allowOrigins"},
    {"ExposeHeaders", "exposeHeaders"}, {"AllowCredentials", "allowCredentials"}, {"MaxAge", "maxAge"}};

/* alias NULL: the function's own. */
static struct val *url_shown(struct aws_req *q, const struct obj *o, const struct val *alias)
{
    struct arena *a = q->req->arena;
    const struct val *url = alias ? val_get(alias, "url") : val_at(obj_val(o), "spec.url"), *cors = val_get(url, "cors"), *x;
    const char *made = alias ? val_str_at(url, "createdAt", NULL) : obj_annotation(o, A_URL_MADE), *base = q->d->function_url ? q->d->function_url : "";
    const char *modified = alias ? val_str_at(url, "modifiedAt", NULL) : obj_annotation(o, A_URL_MODIFIED), *name = val_str_at(alias, "name", "");
    struct val *c = val_map(a);

    made = made ? made : val_str_at(obj_val(o), "metadata.creationTimestamp", "");
    if (alias)
        val_put(a, c, "FunctionUrl", val_printf(a, "%s%s:%s/", base, o->name, name));
    else
        val_put_str(a, c, "FunctionUrl", val_str_at(obj_val(o), "status.url", arena_printf(a, "%s%s/", base, o->name)));
    val_put_str(a, c, "FunctionArn", alias ? arena_printf(a, "%s:%s", lambda_arn(q, lambda_name_of(o)), name) : lambda_arn(q, lambda_name_of(o)));
    val_put_str(a, c, "AuthType", val_str_at(url, "authType", "AWS_IAM"));
    val_put_str(a, c, "InvokeMode", val_str_at(url, "invokeMode", "BUFFERED"));
    val_put_str(a, c, "CreationTime", made);
    val_put_str(a, c, "LastModifiedTime", modified ? modified : made);
    if (!val_is_null(cors)) {
        struct val *out = val_need_map(a, c, "Cors");

        for (size_t i = 0; i < ARRAY_LEN(CORS); i++)
            if (!val_is_null(x = val_get(cors, CORS[i][1])))
                val_put(a, out, CORS[i][0], x);
    }
    return c;
}

/* The function, and the alias that the qualifier names (NULL: none is named). false: there is no such thing, answered. */
static bool find_target(struct op *op, const char *otherwise, const struct obj **ret, const struct val **ret_alias)
{
    const struct obj *o = functions_get(op->q->d->o.functions, LAMBDA_NS, op->n.object);

    if (o && (obj_deleting(o) || !streq(lambda_name_of(o), op->n.name)))
        o = NULL;
    *ret = o;
    *ret_alias = o && op->n.qualifier ? lambda_alias(o, op->n.qualifier) : NULL;
    if (o && (!op->n.qualifier || *ret_alias))
        return true;
    lambda_error(op->q, 404, "ResourceNotFoundException", "%s", otherwise);
    return false;
}

static bool has_url(const struct obj *o, const struct val *alias)
{
    return alias ? !val_is_null(val_get(alias, "url")) : val_bool_at(obj_val(o), "spec.url.enabled", false);
}

static bool need_url(struct op *op, const char *otherwise, const struct obj **ret, const struct val **ret_alias)
{
    static const char NONE[] = "The resource you requested does not exist.";

    if (!find_target(op, otherwise ? otherwise : NONE, ret, ret_alias))
        return false;
    if (has_url(*ret, *ret_alias))
        return true;
    lambda_error(op->q, 404, "ResourceNotFoundException", NONE);
    return false;
}

static void reply_url(struct op *op, const struct obj *o)
{
    struct val *v = url_shown(op->q, o, op->n.qualifier ? lambda_alias(o, op->n.qualifier) : NULL);

    if (op->create) /* not yet modified */
        val_del(v, "LastModifiedTime");
    lambda_reply(op->q, op->create ? 201 : 200, v);
}

/* What the request says into url; merge: a merge patch, in which what goes is null. */
static void read_url(struct op *op, struct val *url, bool merge)
{
    struct arena *a = op->q->req->arena;
    const char *auth = val_str_at(op->in, "AuthType", NULL), *mode = val_str_at(op->in, "InvokeMode", NULL);
    struct val *cors;

    val_put_bool(a, url, "enabled", true);
    if (auth)
        val_put_str(a, url, "authType", auth);
    if (mode)
        val_put_str(a, url, "invokeMode", mode);
    if (!val_get(op->in, "Cors"))
        return;
    cors = val_need_map(a, url, "cors");
    for (size_t i = 0; i < ARRAY_LEN(CORS); i++) {
        const struct val *x = val_get(val_get(op->in, "Cors"), CORS[i][0]);

        if (x || merge)
            val_put(a, cors, CORS[i][1], x ? x : val_null(a));
        else
            val_del(cors, CORS[i][1]);
    }
}

/* The aliases with that one's url as it shall be; drop: without. */
static void put_alias_url(struct op *op, const struct obj *o, bool drop, void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;
    struct val *list = val_copy(a, val_at(obj_val(o), "spec.aliases")), *url;

    VAL_EACH(list, it)
    {
        if (!streq(val_str_at(it, "name", ""), op->n.qualifier))
            continue;
        if (drop) {
            val_del(it, "url");
            break;
        }
        url = val_need_map(a, it, "url");
        read_url(op, url, false);
        if (op->create)
            val_put_str(a, url, "createdAt", lambda_now(a));
        val_put_str(a, url, "modifiedAt", lambda_now(a));
    }
    lambda_put_list(op, o, "aliases", list, then);
}

static void put_url(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;

    if (op->n.qualifier) {
        put_alias_url(op, o, false, reply_url);
        return;
    }
    op->patch = val_map(a);
    read_url(op, val_need_map(a, val_need_map(a, op->patch, "spec"), "url"), true);
    if (op->create)
        val_put_str(a, val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations"), A_URL_MADE, lambda_now(a));
    lambda_patch(op, A_URL_MODIFIED, reply_url);
}

void op_create_url(struct op *op)
{
    const struct obj *o;
    const struct val *alias;

    if (!find_target(op, "Function does not exist", &o, &alias))
        return;
    if (has_url(o, alias)) {
        lambda_error(op->q, 409, "ResourceConflictException",
                     "Failed to create function url config for [functionArn = %s%s%s]. Error message:  FunctionUrlConfig exists for "
                     "this Lambda function", lambda_arn(op->q, op->n.name), alias ? ":" : "", alias ? op->n.qualifier : "");
        return;
    }
    op->create = true;
    put_url(op, o);
}
void op_update_url(struct op *op)
{
    const struct obj *o;
    const struct val *alias;

    if (need_url(op, "Function does not exist", &o, &alias))
        put_url(op, o);
}
void op_get_url(struct op *op)
{
    const struct obj *o;
    const struct val *alias;

    if (need_url(op, NULL, &o, &alias))
        reply_url(op, o);
}
void op_list_urls(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct val *alias;
    const struct obj *o;
    struct lambda_page page;
    struct val *v, *list;

    if (!find_target(op, "Function does not exist", &o, &alias) || lambda_page_read(op, &page) < 0)
        return;
    v = val_map(a);
    list = val_list(a);
    if (has_url(o, NULL) && lambda_page_takes(op, &page, v))
        val_push(a, list, url_shown(op->q, o, NULL));
    VAL_EACH(val_at(obj_val(o), "spec.aliases"), it)
        if (has_url(o, it) && lambda_page_takes(op, &page, v))
            val_push(a, list, url_shown(op->q, o, it));
    val_put(a, v, "FunctionUrlConfigs", list);
    lambda_reply(op->q, 200, v);
}
void op_delete_url(struct op *op)
{
    const struct obj *o;
    const struct val *alias;

    if (!need_url(op, NULL, &o, &alias))
        return;
    if (alias)
        put_alias_url(op, o, true, lambda_reply_none);
    else
        lambda_clear(op, "url");
}
