/* door/aws/lambda/policy.c - resource policies: kept, and shown as they were given; may.c and url.c ask them.
 *
 * A function, its versions and its aliases have a policy each. All statements lie in one document at the Function
 * (annotation A_POLICY); a statement's Resource says whose it is, which is also what it is judged by. */
#include "door/aws/lambda/lambda_int.h"

struct val *lambda_policy_read(struct arena *a, const char *text)
{
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

static const char *resource_of(struct op *op)
{
    if (!op->n.qualifier)
        return lambda_arn(op->q, op->n.name);
    return arena_printf(op->q->req->arena, "%s:%s", lambda_arn(op->q, op->n.name), op->n.qualifier);
}

/* The statements of this resource, as a document of their own; others: those of all others. */
static struct val *policy_of(struct op *op, const struct obj *head, bool others)
{
    struct arena *a = op->q->req->arena;
    struct val *all = lambda_policy_read(a, obj_annotation(head, A_POLICY)), *list = val_list(a);

    VAL_EACH(val_get(all, "Statement"), it)
        if (streq(val_str_at(it, "Resource", ""), resource_of(op)) != others)
            val_push(a, list, it);
    val_put(a, all, "Statement", list);
    return all;
}

static const char *revision_of(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;

    return lambda_revision_of(a, arena_printf(a, "%s/%s", head->uid, json_text(a, policy_of(op, head, false), NULL)));
}

/* The function, when the qualifier (if any) names a version or an alias, and the revision is the wanted one; NULL: answered. */
static const struct obj *need_resource(struct op *op)
{
    const char *want = val_str_at(op->in, "RevisionId", NULL);
    struct lambda_qualified w;

    if (lambda_qualified(op, &w) < 0)
        return NULL;
    if (!want)
        want = http_param(op->q->req, "RevisionId");
    if (!want || streq(want, revision_of(op, w.head)))
        return w.head;
    lambda_error(op->q, 412, "PreconditionFailedException",
                 "The Revision Id provided does not match the latest Revision Id. Call the %s API to retrieve the latest Revision Id",
                 op->run == op_remove_permission ? "GetFunction/GetAlias" : "GetPolicy");
    return NULL;
}

const char *lambda_policy_text(struct op *op, const struct val *policy)
{
    const char *text = json_text(op->q->req->arena, policy, NULL);

    if (strlen(text) <= LAMBDA_POLICY_MAX)
        return text;
    lambda_error(op->q, 400, "PolicyLengthExceededException", "The final policy size (%zu) is bigger than the limit (%d).", strlen(text), LAMBDA_POLICY_MAX);
    return NULL;
}

/* Writes the resource's policy: these statements. */
static void put_policy(struct op *op, const struct obj *head, const struct val *statements, void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;
    struct val *all = policy_of(op, head, true), *list = val_get(all, "Statement"), *notes, *meta;
    const char *text;

    VAL_EACH(statements, it)
        val_push(a, list, it);
    text = lambda_policy_text(op, all);
    if (!text)
        return;
    op->patch = val_map(a);
    meta = val_need_map(a, op->patch, "metadata");
    val_put(a, meta, "resourceVersion", val_printf(a, "%lld", (long long)head->revision));
    notes = val_need_map(a, meta, "annotations");
    if (val_len(list))
        val_put_str(a, notes, A_POLICY, text);
    else
        val_put(a, notes, A_POLICY, val_null(a));
    lambda_patch_again(op, then);
}

struct val *lambda_statement(struct op *op, const char *resource)
{
    static const struct { const char *field, *key; } KEYS[] = {{"SourceAccount", "AWS:SourceAccount"},
        {"FunctionUrlAuthType", "lambda:FunctionUrlAuthType"}, {"EventSourceToken", "lambda:EventSourceToken"},
        {"PrincipalOrgID", "aws:PrincipalOrgID"}, {"OrganizationId", "aws:PrincipalOrgID"}};
    const char *principal = val_str_at(op->in, "Principal", ""), *source = val_str_at(op->in, "SourceArn", NULL);
    struct arena *a = op->q->req->arena;
    struct val *s = val_map(a);

    val_put_str(a, s, "Sid", val_str_at(op->in, "StatementId", ""));
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
    val_put_str(a, s, "Resource", resource);
    if (source)
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "ArnLike"), "AWS:SourceArn", source);
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        if (val_str_at(op->in, KEYS[i].field, NULL))
            val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "StringEquals"), KEYS[i].key,
                        val_str_at(op->in, KEYS[i].field, ""));
    if (val_bool_at(op->in, "InvokedViaFunctionUrl", false))
        val_put_str(a, val_need_map(a, val_need_map(a, s, "Condition"), "Bool"), "lambda:InvokedViaFunctionUrl", "true");
    return s;
}

static bool is_sound(struct op *op, const struct val *policy)
{
    struct err err = {0};

    const char *principal = val_str_at(op->in, "Principal", ""), *dot = strchr(principal, '.');
    bool a_service = dot && !str_starts(principal, "arn:");

    if (a_service && !strstr(dot, ".amazonaws.com") && !str_ends(principal, ".amazon.com"))
        err_set(&err, INVALID_ARGUMENT, "Invalid principal");
    else if (policy_check(policy, POLICY_RESOURCE, &err) == 0)
        return true;
    lambda_error(op->q, 400, "InvalidParameterValueException", "%s",
                 str_starts(err.msg, "Invalid principal") ? "The provided principal was invalid. Please check the principal and try again." : err.msg);
    return false;
}

/* ---- by the statement ---- */

static void reply_statement(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a);

    (void)head;
    val_put_str(a, v, "Statement", json_text(a, lambda_statement(op, resource_of(op)), NULL));
    lambda_reply(op->q, 201, v);
}

void op_add_permission(struct op *op)
{
    const char *sid = val_str_at(op->in, "StatementId", "");
    const struct obj *head = need_resource(op);
    struct arena *a = op->q->req->arena;
    struct val *policy;

    if (!head)
        return;
    if (op->n.qualifier && streq(op->n.qualifier, "$LATEST")) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "We currently do not support adding policies for $LATEST.");
        return;
    }
    policy = policy_of(op, head, false);
    VAL_EACH(val_get(policy, "Statement"), it)
        if (streq(val_str_at(it, "Sid", ""), sid)) {
            lambda_error(op->q, 409, "ResourceConflictException",
                         "The statement id (%s) provided already exists. Please provide a new statement id, or remove the "
                         "existing statement.", sid);
            return;
        }
    val_push(a, val_get(policy, "Statement"), lambda_statement(op, resource_of(op)));
    if (is_sound(op, policy))
        put_policy(op, head, val_get(policy, "Statement"), reply_statement);
}

void op_remove_permission(struct op *op)
{
    const char *sid = op->path_n > 1 ? op->path[1] : "";
    const struct obj *head = need_resource(op);
    struct val *list;

    if (!head)
        return;
    list = val_get(policy_of(op, head, false), "Statement");
    if (!val_len(list)) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "No policy is associated with the given resource.");
        return;
    }
    for (uint32_t i = 0; i < val_len(list); i++)
        if (streq(val_str_at(&list->items[i], "Sid", ""), sid)) {
            val_remove(list, i);
            put_policy(op, head, list, lambda_reply_none);
            return;
        }
    lambda_error(op->q, 404, "ResourceNotFoundException", "Statement %s is not found in resource policy.", sid);
}

/* ---- as a whole ---- */

static void reply_policy(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *policy = policy_of(op, head, false);

    if (!val_len(val_get(policy, "Statement"))) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
        return;
    }
    val_put_str(a, v, "Policy", json_text(a, policy, NULL));
    val_put_str(a, v, "RevisionId", revision_of(op, head));
    lambda_reply(op->q, 200, v);
}

void op_get_policy(struct op *op)
{
    const struct obj *head = need_resource(op);

    if (head)
        reply_policy(op, head);
}

/* The function (version, alias) whose ARN the path has; NULL: answered. */
static const struct obj *resource_of_path(struct op *op)
{
    if (op->n.name)
        return need_resource(op);
    lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist. (%.300s)", op->raw_name);
    return NULL;
}

void op_get_resource_policy(struct op *op)
{
    const struct obj *head = resource_of_path(op);

    if (head)
        reply_policy(op, head);
}

void op_put_resource_policy(struct op *op)
{
    const struct obj *head = resource_of_path(op);
    const char *text = val_str_at(op->in, "Policy", "");
    struct err err = {0};
    struct val *policy, *list;

    if (!head)
        return;
    policy = json_parse(op->q->req->arena, text, strlen(text), &err);
    if (!val_is(policy, VAL_MAP)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "The policy is not a JSON document. %s", err.msg);
        return;
    }
    if (!is_sound(op, policy))
        return;
    list = val_get(policy, "Statement");
    if (val_is(list, VAL_MAP)) {
        list = val_list(op->q->req->arena);
        val_push(op->q->req->arena, list, val_get(policy, "Statement"));
    }
    VAL_EACH(list, it)
        if (!streq(val_str_at(it, "Resource", ""), resource_of(op))) {
            lambda_error(op->q, 400, "InvalidParameterValueException", "The Resource of each statement must be %s", resource_of(op));
            return;
        }
    put_policy(op, head, list, reply_policy);
}

void op_delete_resource_policy(struct op *op)
{
    const struct obj *head = resource_of_path(op);

    if (head && !val_len(val_get(policy_of(op, head, false), "Statement")))
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
    else if (head)
        put_policy(op, head, NULL, lambda_reply_none);
}
