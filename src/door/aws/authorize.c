/* door/aws/authorize.c - may he? What every request says of itself, and the answers to those who may not.
 *
 * Each service maps its requests to an action, a resource and condition keys: s3_may.c, lambda_may.c, iam.c, sts.c, scheduler.c; the
 * others are here, because what they are about stands in their parameters. */
#include "door/aws/aws_int.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct val *aws_context(struct aws_req *q)
{
    return identity_context(q->d->o.identity, q->req, q->sig.region);
}

void aws_context_tags(struct aws_req *q, struct val *context, const char *prefix, const struct val *tags)
{
    struct arena *a = q->req->arena;
    struct val *keys = val_list(a);

    VAL_EACH_MEMBER(tags, m)
    {
        char *key = arena_printf(a, "%s/%s", prefix, m->key);

        for (char *p = key; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        val_put_str(a, context, key, val_text(&m->v, ""));
        val_push_str(a, keys, m->key);
    }
    if (keys->n && streq(prefix, "aws:requesttag"))
        val_put(a, context, "aws:tagkeys", keys);
}

char *aws_denied(struct aws_req *q, const char *action, const char *resource, const struct val *context,
                 const struct val *policy, enum policy_kind kind)
{
    struct arena *a = q->req->arena;
    enum policy_verdict v;

    if (!context)
        context = aws_context(q);
    v = identity_decide(q->d->o.identity, a, &q->caller, action, resource, context, policy, kind);
    if (v == POLICY_ALLOWED)
        return NULL;
    if (aws_service_of(q)->form == AWS_REST_XML)
        resource = arena_printf(a, "\"%s\"", resource); /* as S3 writes it */
    return identity_refusal(a, &q->caller, v, kind, action, resource);
}

void aws_refuse(struct aws_req *q, const char *message)
{
    enum aws_form form = aws_service_of(q)->form;

    aws_error(q, 403, form == AWS_REST_XML || form == AWS_QUERY ? "AccessDenied" : "AccessDeniedException", "%s", message);
}

bool aws_may(struct aws_req *q, const char *action, const char *resource, const struct val *context)
{
    char *message = aws_denied(q, action, resource, context, NULL, POLICY_RESOURCE);

    if (message)
        aws_refuse(q, message);
    return !message;
}

/* ---- services whose parameters say what they are about ---- */

static const struct rule {
    const char *service, *param; /* NULL: every request of it */
    const char *form; /* %R region, %A account, %V the parameter's value */
} RULES[] = {
    {"logs", "logGroupName", "arn:aws:logs:%R:%A:log-group:%V:*"},
    {"logs", "logGroupIdentifier", "arn:aws:logs:%R:%A:log-group:%V:*"},
    {"logs", "resourceArn", "%V"},
    {"logs", NULL, "arn:aws:logs:%R:%A:log-group:*"},
    {"ssm", "Name", "arn:aws:ssm:%R:%A:parameter/%V"},
    {"ssm", "Path", "arn:aws:ssm:%R:%A:parameter/%V"},
    {"events", "ResourceARN", "%V"},
    {"events", "Rule", "arn:aws:events:%R:%A:rule/%V"},
    {"events", "Name", "arn:aws:events:%R:%A:rule/%V"},
    {"cloudformation", "StackName", "arn:aws:cloudformation:%R:%A:stack/%V/*"},
};

static const char *param_of(struct aws_req *q, const struct val *in, const char *name)
{
    return aws_service_of(q)->form == AWS_JSON ? val_text(val_get(in, name), NULL) : query_param(q, name);
}

static const char *fill(struct aws_req *q, const char *form, const char *value)
{
    struct arena *a = q->req->arena;
    struct buf b = {0};
    const char *text;

    if (value && str_starts(value, "arn:"))
        return value;
    for (; *form; form++)
        if (*form == '%' && form[1]) {
            form++;
            buf_adds(&b, *form == 'R' ? q->d->region : *form == 'A' ? q->d->account : value[0] == '/' && b.n && b.p[b.n - 1] == '/' ? value + 1 : value);
        } else {
            buf_addc(&b, *form);
        }
    text = arena_strdup(a, b.p);
    buf_done(&b);
    return text;
}

static const char *resource_of(struct aws_req *q, const char *service, const struct val *in)
{
    for (size_t i = 0; i < ARRAY_LEN(RULES); i++) {
        const char *value = RULES[i].param && streq(RULES[i].service, service) ? param_of(q, in, RULES[i].param) : NULL;

        if (streq(RULES[i].service, service) && (!RULES[i].param || !str_empty(value)))
            return fill(q, RULES[i].form, value);
    }
    return "*";
}

bool aws_authorize(struct aws_req *q)
{
    static const char *const OWN[] = {"s3", "lambda", "iam", "sts", "scheduler", ""}; /* they look themselves */
    struct arena *a = q->req->arena;
    const struct aws_service *s = aws_service_of(q);
    const char *name = s->form == AWS_JSON ? json_operation(q) : s->form == AWS_QUERY ? query_param(q, "Action") : NULL;
    const struct val *in = NULL, *names;
    struct err err;

    for (size_t i = 0; i < ARRAY_LEN(OWN); i++)
        if (streq(s->name, OWN[i]))
            return true;
    if (q->caller.kind == CALLER_ROOT && !q->caller.set.has_session)
        return true;
    if (s->form == AWS_JSON)
        in = json_parse(a, q->body, q->body_n, &err);
    if (!name)
        return true; /* refused by the service: it is no request */
    name = arena_printf(a, "%s:%s", streq(s->name, "monitoring") ? "cloudwatch" : s->name, name);
    names = val_get(in, "Names"); /* ssm:GetParameters: each of them */
    if (val_is(names, VAL_LIST) && streq(s->name, "ssm")) {
        VAL_EACH(names, it)
            if (!aws_may(q, name, fill(q, "arn:aws:ssm:%R:%A:parameter/%V", val_text(it, "")), NULL))
                return false;
        return true;
    }
    return aws_may(q, name, resource_of(q, s->name, in), NULL);
}
