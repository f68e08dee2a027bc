/* door/aws/authorize.c - may he? What every request says of itself, and the answers to those who may not.
 *
 * Each service maps its requests to an action, a resource and condition keys: s3/may.c, lambda/may.c, iam.c, sts.c, scheduler.c; the
 * others are here, because what they are about stands in their parameters. */
#include "door/aws/logs/logs_int.h"
#include "door/aws/ssm/ssm.h"

#include <ctype.h>
#include <strings.h>
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

enum { TAGS_MAX = 50, TAG_KEY_MAX = 128, TAG_VALUE_MAX = 256 };

static size_t characters(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static const char *tag_wrong(struct aws_req *q, const char *key, const char *value)
{
    struct arena *a = q->req->arena;

    if (!*key || characters(key) > TAG_KEY_MAX)
        return arena_printf(a, "the tag key '%.40s' must have a length between 1 and %d", key, TAG_KEY_MAX);
    if (strncasecmp(key, "aws:", 4) == 0 && !(q->inner && str_starts(key, "aws:cloudformation:")))
        return "tag keys that begin with aws: are reserved";
    if (characters(value) > TAG_VALUE_MAX)
        return arena_printf(a, "the value of the tag '%.40s' must have length less than or equal to %d", key, TAG_VALUE_MAX);
    return NULL;
}

const char *aws_tags_wrong(struct aws_req *q, const struct val *before, const struct val *more, bool *ret_many)
{
    struct arena *a = q->req->arena;
    struct val *all = val_is(before, VAL_MAP) ? val_copy(a, before) : val_map(a);
    const char *wrong = NULL;

    VAL_EACH(more, it)
    {
        wrong = wrong ? wrong : tag_wrong(q, val_str_at(it, "Key", ""), val_str_at(it, "Value", ""));
        val_put_str(a, all, val_str_at(it, "Key", ""), "");
    }
    VAL_EACH_MEMBER(more, m)
    {
        wrong = wrong ? wrong : tag_wrong(q, m->key, val_text(&m->v, ""));
        val_put_str(a, all, m->key, "");
    }
    *ret_many = !wrong && val_len(all) > TAGS_MAX;
    return *ret_many ? arena_printf(a, "a resource can have no more than %d tags", TAGS_MAX) : wrong;
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

/* A value as the operation will read it: what it leaves out of a name, or takes a name out of, must not decide. NULL: answered. */
static const char *as_it_is(struct aws_req *q, const char *value)
{
    (void)q;
    return value;
}
static const char *of_group(struct aws_req *q, const char *value)
{
    const char *name = logs_group_of_arn(q, value);

    return name ? arena_printf(q->req->arena, "%s:*", name) : NULL;
}
static const char *of_tagged_group(struct aws_req *q, const char *value)
{
    return str_ends(value, ":*") ? of_group(q, value) : logs_group_of_arn(q, value);
}
static const char *of_parameter(struct aws_req *q, const char *value)
{
    const char *selector;

    value = ssm_name_of(q->req->arena, value, &selector);
    return *value == '/' ? value + 1 : value;
}
static const char *of_path(struct aws_req *q, const char *value)
{
    (void)q;
    return *value == '/' ? value + 1 : value;
}
static const char *of_rule(struct aws_req *q, const char *value)
{
    const char *slash = strrchr(value, '/');

    (void)q;
    return slash ? slash + 1 : value;
}

static const struct rule {
    const char *service, *param; /* NULL: what names nothing else */
    const char *form; /* %R region, %A account, %V the parameter's value */
    const char *(*read)(struct aws_req *q, const char *value);
    bool or_arn; /* operations find the thing by its whole ARN, too */
} RULES[] = {
    {"logs", "logGroupName", "arn:aws:logs:%R:%A:log-group:%V", of_group, false},
    {"logs", "logGroupIdentifier", "arn:aws:logs:%R:%A:log-group:%V", of_group, false},
    {"logs", "logGroupNames", "arn:aws:logs:%R:%A:log-group:%V", of_group, false},
    {"logs", "logGroupIdentifiers", "arn:aws:logs:%R:%A:log-group:%V", of_group, false},
    {"logs", "logGroupArns", "arn:aws:logs:%R:%A:log-group:%V", of_group, false},
    {"logs", "resourceArn", "arn:aws:logs:%R:%A:log-group:%V", of_tagged_group, false},
    {"logs", NULL, "arn:aws:logs:%R:%A:log-group:*", NULL, false},
    {"ssm", "Name", "arn:aws:ssm:%R:%A:parameter/%V", of_parameter, false},
    {"ssm", "Names", "arn:aws:ssm:%R:%A:parameter/%V", of_parameter, false},
    {"ssm", "ResourceId", "arn:aws:ssm:%R:%A:parameter/%V", of_parameter, false},
    {"ssm", "Path", "arn:aws:ssm:%R:%A:parameter/%V", of_path, false},
    {"events", "ResourceARN", "arn:aws:events:%R:%A:rule/%V", of_rule, false},
    {"events", "Rule", "arn:aws:events:%R:%A:rule/%V", of_rule, false},
    {"events", "Name", "arn:aws:events:%R:%A:rule/%V", of_rule, false},
    {"cloudformation", "StackName", "arn:aws:cloudformation:%R:%A:stack/%V/*", as_it_is, true},
};

/* The parameter: a text, or a list of texts; NULL: it is not there. */
static const struct val *param_of(struct aws_req *q, const struct val *in, const char *name)
{
    const char *text = in ? NULL : query_param(q, name);

    return in ? val_get(in, name) : text ? val_lit(q->req->arena, text) : NULL;
}

static const char *fill(struct aws_req *q, const char *form, const char *value)
{
    struct arena *a = q->req->arena;
    struct buf b = {0};
    const char *text;

    for (; *form; form++)
        if (*form == '%' && form[1]) {
            form++;
            buf_adds(&b, *form == 'R' ? q->d->region : *form == 'A' ? q->d->account : value);
        } else {
            buf_addc(&b, *form);
        }
    text = arena_strdup(a, b.p);
    buf_done(&b);
    return text;
}

/* Whatever a request names must be his: it may name more than its operation looks at. */
static bool may_all(struct aws_req *q, const char *service, const char *action, const struct val *in)
{
    const char *otherwise = "*";
    bool named = false;

    for (size_t i = 0; i < ARRAY_LEN(RULES); i++) {
        const struct val *v;

        if (!streq(RULES[i].service, service))
            continue;
        if (!RULES[i].param) {
            otherwise = fill(q, RULES[i].form, NULL);
            continue;
        }
        v = param_of(q, in, RULES[i].param);
        for (uint32_t k = 0; v && k < (v->type == VAL_LIST ? v->n : 1); k++) {
            const char *text = val_text(v->type == VAL_LIST ? &v->items[k] : v, "");
            bool whole = RULES[i].or_arn && str_starts(text, "arn:");

            if (!*text)
                continue;
            named = true;
            text = RULES[i].read(q, text);
            if (!text || !aws_may(q, action, whole ? text : fill(q, RULES[i].form, text), NULL))
                return false;
        }
    }
    return named || aws_may(q, action, otherwise, NULL);
}

bool aws_may_pass(struct aws_req *q, const char *service, const char *role)
{
    struct val *context = aws_context(q);

    val_put(q->req->arena, context, "iam:passedtoservice", val_printf(q->req->arena, "%s.amazonaws.com", service));
    return str_empty(role) || aws_may(q, "iam:PassRole", role, context);
}

/* Roles that a request gives to the service. */
static bool may_pass_all(struct aws_req *q, const char *service, const struct val *in)
{
    if (!aws_may_pass(q, service, val_text(param_of(q, in, in ? "RoleArn" : "RoleARN"), NULL)))
        return false;
    VAL_EACH(val_get(in, "Targets"), it)
        if (!aws_may_pass(q, service, val_str_at(it, "RoleArn", NULL)))
            return false;
    return true;
}

bool aws_authorize(struct aws_req *q)
{
    static const char *const OWN[] = {"s3", "lambda", "iam", "sts", "scheduler", ""}; /* they look themselves */
    struct arena *a = q->req->arena;
    const struct aws_service *s = aws_service_of(q);
    const char *name = s->form == AWS_JSON ? json_operation(q) : s->form == AWS_QUERY ? query_param(q, "Action") : "*";
    const struct val *in = NULL;
    struct err err;

    for (size_t i = 0; i < ARRAY_LEN(OWN); i++)
        if (streq(s->name, OWN[i]))
            return true;
    if (q->caller.kind == CALLER_ROOT && !q->caller.set.has_session)
        return true;
    if (str_empty(name))
        name = "*"; /* whatever the service takes it for: it is for who may all */
    if (s->form == AWS_JSON && !(in = json_parse(a, q->body, q->body_n, &err)))
        in = val_map(a);
    name = arena_printf(a, "%s:%s", streq(s->name, "monitoring") ? "cloudwatch" : s->name, name);
    return may_all(q, s->name, name, in) && may_pass_all(q, s->name, in);
}
