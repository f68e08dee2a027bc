/* door/aws/lambda/may.c - which action a Lambda operation is, on which resource; passing a role to a function. */
#include "door/aws/lambda/lambda_int.h"

#include <stdio.h>
#include <stdlib.h>

/* what: 'f' the function (with its qualifier), 'F' the function as a whole, 'l' the layer, 'v' its version, 'r' the ARN in the
 * path, 'a' the ARN in the query, 's' the event source mapping, 'c' the execution of the callback, '*' no one. */
static const char *resource_of(struct op *op, char what)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *name = op->n.name ? op->n.name : val_str_at(op->in, "FunctionName", "");

    switch (what) {
    case 'f':
        if (op->n.qualifier)
            return arena_printf(a, "%s:%s", lambda_arn(q, name), op->n.qualifier);
        return lambda_arn(q, name);
    case 'F': {
        struct lambda_name n;
        struct err err;

        return lambda_arn(q, lambda_name_parse(q, name, &n, &err) == 0 ? n.name : name);
    }
    case 'r':
        return op->raw_name;
    case 'a':
        return http_param(q->req, "Arn") ? http_param(q->req, "Arn") : "*";
    case 'c':
        return lambda_callback_resource(op);
    case 's':
        return arena_printf(a, "arn:aws:lambda:%s:%s:event-source-mapping:%s", q->d->region, q->d->account, op->raw_name);
    case 'l':
    case 'v': {
        const char *mark = str_starts(op->raw_name, "arn:") ? strstr(op->raw_name, ":layer:") : NULL;

        name = mark ? mark + strlen(":layer:") : op->raw_name;
        name = arena_strndup(a, name, strcspn(name, ":")); /* as layer.c reads it: the number stands in the path */
        if (what == 'v' && op->path_n > 1)
            return arena_printf(a, "arn:aws:lambda:%s:%s:layer:%s:%lld", q->d->region, q->d->account, name, strtoll(op->path[1], NULL, 10));
        return arena_printf(a, "arn:aws:lambda:%s:%s:layer:%s", q->d->region, q->d->account, name);
    }
    default:
        return "*";
    }
}

static struct val *context_of(struct op *op, const struct obj *o)
{
    struct aws_req *q = op->q;
    struct val *v = aws_context(q);
    static const struct { const char *field, *key; } KEYS[] = {
        {"Principal", "lambda:principal"}, {"FunctionUrlAuthType", "lambda:functionurlauthtype"}, {"AuthType", "lambda:functionurlauthtype"}};

    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        if (val_str_at(op->in, KEYS[i].field, NULL))
            val_put_str(q->req->arena, v, KEYS[i].key, val_str_at(op->in, KEYS[i].field, ""));
    if (val_is(val_get(op->in, "Layers"), VAL_LIST))
        val_put(q->req->arena, v, "lambda:layer", val_get(op->in, "Layers"));
    aws_context_tags(q, v, "aws:requesttag", val_get(op->in, "Tags"));
    if (o)
        aws_context_tags(q, v, "aws:resourcetag", val_at(obj_val(o), "spec.tags"));
    val_put_str(q->req->arena, v, "aws:resourceaccount", q->d->account);
    return v;
}

static bool is_root(const struct op *op)
{
    return op->q->caller.kind == CALLER_ROOT && !op->q->caller.set.has_session;
}

bool lambda_may(struct op *op, const char *action, char what)
{
    struct aws_req *q = op->q;
    const struct obj *o;
    const struct val *policy;
    char *message;

    if (is_root(op))
        return true; /* the account's own functions: what lies at them only ever allows */
    action = arena_printf(q->req->arena, "lambda:%s", action);
    o = op->n.object ? functions_get(q->d->o.functions, LAMBDA_NS, op->n.object) : NULL;
    policy = identity_policy_at(q->req->arena, o, A_POLICY);
    message = aws_denied(q, action, resource_of(op, what), context_of(op, o), policy, POLICY_RESOURCE);
    if (message)
        aws_refuse(q, message);
    return !message;
}

bool lambda_may_invoke(struct op *op, const char *object, const char *arn)
{
    struct aws_req *q = op->q;
    const struct obj *o = functions_get(q->d->o.functions, LAMBDA_NS, object);
    char *message = is_root(op) ? NULL : aws_denied(q, "lambda:InvokeFunction", arn, NULL, identity_policy_at(q->req->arena, o, A_POLICY), POLICY_RESOURCE);

    if (message)
        aws_refuse(q, message);
    return !message;
}

bool lambda_may_use_layer(struct op *op, const struct val *layer, const char *arn)
{
    struct aws_req *q = op->q;
    const char *text = val_text(val_get(val_at(layer, "metadata.annotations"), A_POLICY), NULL);
    struct err err;
    const struct val *policy = text ? json_parse(q->req->arena, text, strlen(text), &err) : NULL;
    char *message = is_root(op) ? NULL : aws_denied(q, "lambda:GetLayerVersion", arn, NULL, policy, POLICY_RESOURCE);

    if (message)
        aws_refuse(q, message);
    return !message;
}

/* ---- roles of functions ---- */

bool lambda_role_fits(struct op *op)
{
    static const struct policy_who LAMBDA = {.service = "lambda.amazonaws.com"};
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *arn = val_str_at(op->in, "Role", NULL);
    const struct obj *role;
    struct val *context;

    if (!arn)
        return true;
    context = aws_context(q);
    val_put_str(a, context, "iam:passedtoservice", "lambda.amazonaws.com");
    val_put_str(a, context, "iam:associatedresourcearn", resource_of(op, 'F'));
    if (!is_root(op) && !aws_may(q, "iam:PassRole", arn, context))
        return false;
    role = identity_role(q->d->o.identity, arn);
    if (!role)
        return true; /* one that IAM does not know: the function has the account's access (docs/iam.md) */
    context = val_map(a);
    val_put_str(a, context, "aws:sourceaccount", q->d->account);
    val_put_str(a, context, "aws:sourcearn", resource_of(op, 'F'));
    if (identity_trusts(q->d->o.identity, a, role, &LAMBDA, "sts:AssumeRole", context) == POLICY_ALLOWED)
        return true;
    lambda_error(q, 400, "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.");
    return false;
}

bool lambda_may_read(struct op *op, const char *bucket, const char *key)
{
    struct aws_req *q = op->q;
    char *message;

    if (is_root(op))
        return true;
    message = aws_denied(q, "s3:GetObject", arena_printf(q->req->arena, "arn:aws:s3:::%s/%s", bucket, key), NULL, NULL, POLICY_RESOURCE);
    if (message)
        lambda_error(q, 403, "AccessDeniedException", "Your access has been denied by S3, please make sure your request credentials have "
                     "permission to GetObject for %s/%s. S3 Error Code: AccessDenied. S3 Error Message: %s", bucket, key, message);
    return !message;
}
