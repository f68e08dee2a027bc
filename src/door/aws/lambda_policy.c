/* door/aws/lambda_policy.c - resource policies: kept, and shown as they were given; lambda_may.c and url.c ask them. */
#include "door/aws/lambda_int.h"

/* A version or an alias has a policy of its own: statements of all lie together, and their Resource says whose they are. */
static const char *resource_of(struct op *op)
{
    const char *arn = lambda_arn(op->q, op->n.name), *q = op->n.qualifier;

    return q && !streq(q, "$LATEST") ? arena_printf(op->q->req->arena, "%s:%s", arn, q) : arn;
}

static bool is_of(struct op *op, const struct val *statement)
{
    return streq(val_str_at(statement, "Resource", ""), resource_of(op));
}

/* The function, and what the request's qualifier names must be there; NULL: 404 was answered. */
static const struct obj *need_qualified(struct op *op)
{
    const struct obj *o = lambda_head(op);
    struct lambda_qualified w;

    return o && lambda_qualified(op, &w) == 0 ? o : NULL;
}

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
    lambda_patch(op, NULL, then);
}
static void reply_statement(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *list = val_get(policy_of(op, o), "Statement");
    struct val *v = val_map(a);

    val_put_str(a, v, "Statement", list && list->n ? json_text(a, &list->items[list->n - 1], NULL) : "{}");
    lambda_reply(op->q, 201, v);
}
void op_add_permission(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need_qualified(op);
    const char *sid = val_str_at(op->in, "StatementId", ""), *principal = val_str_at(op->in, "Principal", "");
    const char *source = val_str_at(op->in, "SourceArn", NULL), *account = val_str_at(op->in, "SourceAccount", NULL);
    static const struct { const char *field, *key; } KEYS[] = {{"FunctionUrlAuthType", "lambda:FunctionUrlAuthType"},
        {"EventSourceToken", "lambda:EventSourceToken"}, {"PrincipalOrgID", "aws:PrincipalOrgID"}};
    struct val *policy, *s;
    struct err err = {0};

    if (!o)
        return;
    policy = policy_of(op, o);
    VAL_EACH(val_get(policy, "Statement"), it)
        if (is_of(op, it) && streq(val_str_at(it, "Sid", ""), sid)) {
            lambda_error(op->q, 409, "ResourceConflictException",
                         "The statement id (%s) provided already exists. Please provide a new statement id, or remove the "
                         "existing statement.", sid);
            return;
        }
    s = val_map(a);
    val_put_str(a, s, "Sid", sid);
    val_put_str(a, s, "Effect", "Allow");
    if (strchr(principal, '.') && !str_starts(principal, "arn:"))
        val_put_str(a, val_need_map(a, s, "Principal"), "Service", principal);
    else if (streq(principal, "*"))
        val_put_str(a, s, "Principal", "*");
    else if (strlen(principal) == 12 && strspn(principal, "0123456789") == 12)
        val_put(a, val_need_map(a, s, "Principal"), "AWS", val_printf(a, "arn:aws:iam::%s:root", principal));
    else
        val_put_str(a, val_need_map(a, s, "Principal"), "AWS", principal);
    val_put_str(a, s, "Action", val_str_at(op->in, "Action", ""));
    val_put_str(a, s, "Resource", resource_of(op));
    if (source)
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "ArnLike"), "AWS:SourceArn", source);
    if (account)
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "StringEquals"), "AWS:SourceAccount", account);
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        if (val_str_at(op->in, KEYS[i].field, NULL))
            val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "StringEquals"), KEYS[i].key,
                        val_str_at(op->in, KEYS[i].field, ""));
    val_push(a, val_need_list(a, policy, "Statement"), s);
    if (policy_check(policy, POLICY_RESOURCE, &err) < 0) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "%s",
                     str_starts(err.msg, "Invalid principal")
                         ? "The provided principal was invalid. Please check the principal and try again." : err.msg);
        return;
    }
    put_policy(op, policy, reply_statement);
}
void op_get_policy(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need_qualified(op);
    struct val *v, *policy;

    if (!o)
        return;
    policy = policy_of(op, o);
    for (uint32_t i = 0; i < val_len(val_get(policy, "Statement"));)
        if (is_of(op, &val_get(policy, "Statement")->items[i]))
            i++;
        else
            val_remove(val_get(policy, "Statement"), i);
    if (!val_len(val_get(policy, "Statement"))) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
        return;
    }
    v = val_map(a);
    val_put_str(a, v, "Policy", json_text(a, policy, NULL));
    val_put_str(a, v, "RevisionId", lambda_revision(op->q, o));
    lambda_reply(op->q, 200, v);
}
void op_remove_permission(struct op *op)
{
    const struct obj *o = need_qualified(op);
    struct val *policy, *list;

    if (!o)
        return;
    policy = policy_of(op, o);
    list = val_get(policy, "Statement");
    for (uint32_t i = 0; op->path_n > 1 && i < val_len(list); i++)
        if (is_of(op, &list->items[i]) && streq(val_str_at(&list->items[i], "Sid", ""), op->path[1])) {
            val_remove(list, i);
            put_policy(op, policy, lambda_reply_none);
            return;
        }
    lambda_error(op->q, 404, "ResourceNotFoundException", "Statement %s is not found in resource policy.",
                 op->path_n > 1 ? op->path[1] : "");
}

void op_code_signing(struct op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *v;

    if (!lambda_need(op))
        return;
    v = val_map(a);
    val_put_str(a, v, "FunctionName", op->n.name);
    val_put_str(a, v, "CodeSigningConfigArn", "");
    lambda_reply(op->q, 200, v);
}
