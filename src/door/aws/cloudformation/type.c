/* door/aws/cloudformation/type.c - the table of resource types as one, and custom resources. */
#include "door/aws/cloudformation/cfn_int.h"
#include "env/clock.h"

#include <stdio.h>

const struct cfn_type *cfn_type_of(const char *type)
{
    static const struct cfn_type *const TABLES[] = {cfn_types_lambda, cfn_types_iam, cfn_types_more, cfn_types_stack};

    if (str_starts(type, "Custom::") || streq(type, "AWS::CloudFormation::CustomResource"))
        return &cfn_type_custom;
    for (size_t i = 0; i < ARRAY_LEN(TABLES); i++)
        for (const struct cfn_type *t = TABLES[i]; t->name; t++)
            if (streq(t->name, type))
                return t;
    return NULL;
}

bool cfn_type_replaces(const struct cfn_type *t, const char *property)
{
    _auto_(freep) char *word = xasprintf(" %s ", property);

    return t->replace && (streq(t->replace, "*") || strstr(t->replace, word));
}

bool cfn_changed(const struct cfn_work *w, const char *property)
{
    const struct val *x = val_get(w->props, property), *y = val_get(w->was, property);

    return !x != !y || (x && !val_equal(x, y));
}

/* ---- custom resources ----
 * The function that ServiceToken names is called with an event; it answers by a PUT to the event's ResponseURL, which is a path
 * of this port with a token that only this event has. The token is in the Stack object before the call is made, so an answer
 * that comes after a restart still counts. */

static void custom_call(struct cfn_work *w, const char *request)
{
    const char *arn = val_str_at(w->props, "ServiceToken", ""), *host, *base = w->s->c->d->inside_url;
    struct val *e = val_map(w->a);
    struct cfn_res *r = w->r;
    struct cfn_call c;

    if (!str_starts(arn, "arn:aws:lambda:")) {
        cfn_fail(w, "InvalidRequest", "Invalid ServiceToken: tandem calls functions (arn:aws:lambda:...), not \"%.200s\"", arn);
        return;
    }
    w->deadline_ms = clock_real_ms() + CFN_CUSTOM_MS;
    if (val_get(w->props, "ServiceTimeout")) {
        const char *text = cfn_scalar(w->a, val_get(w->props, "ServiceTimeout"));
        long long seconds = 0;

        if (text && sscanf(text, "%lld", &seconds) == 1 && seconds > 0 && seconds <= 3600)
            w->deadline_ms = clock_real_ms() + seconds * 1000;
    }
    if (!r->token) { /* else it was called before a restart, and its event is in the durable queue */
        r->token = arena_strdup(w->s->a, cfn_uuid(w->a));
        host = base;
        val_put_str(w->a, e, "RequestType", request);
        val_put_str(w->a, e, "ServiceToken", arn);
        val_put(w->a, e, "ResponseURL", val_printf(w->a, "%s/cloudformation-custom-resource-response/%s/%s?token=%s", host,
                                                   w->s->uuid, r->logical, r->token));
        val_put_str(w->a, e, "StackId", w->s->id);
        val_put_str(w->a, e, "RequestId", r->token);
        val_put_str(w->a, e, "LogicalResourceId", r->logical);
        val_put_str(w->a, e, "ResourceType", r->type);
        val_put(w->a, e, "ResourceProperties", w->props);
        if (w->phys && w->action != CFN_CREATE)
            val_put_str(w->a, e, "PhysicalResourceId", w->phys);
        if (w->was)
            val_put(w->a, e, "OldResourceProperties", w->was);
        c = cfn_rest(w, "POST", e, "/2015-03-31/functions/%s/invocations", http_escape(w->a, arn, NULL));
        c.async = "Event";
        cfn_push(w, &c);
        cfn_save(w->s, true, NULL, NULL);
    }
    cfn_push(w, &(struct cfn_call){.wait = true});
}

static void custom_create(struct cfn_work *w)
{
    custom_call(w, "Create");
}
static void custom_update(struct cfn_work *w)
{
    custom_call(w, "Update");
}
static void custom_drop(struct cfn_work *w)
{
    custom_call(w, "Delete");
}

const struct cfn_type cfn_type_custom = {"AWS::CloudFormation::CustomResource", " ServiceToken ", NULL, custom_create, custom_update,
                                         custom_drop};

struct response {
    struct cfn *c;
    const char *uuid, *logical, *token;
};

static void on_response(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct response *r = arg;
    struct err bad;
    struct val *v;

    if (err) {
        http_reply_str(req, err->code == ERR_TOO_LARGE ? 413 : 400, "text/plain", err->msg);
        return;
    }
    v = json_parse(req->arena, data, n, &bad);
    if (!val_is(v, VAL_MAP)) {
        http_reply_str(req, 400, "text/plain", "the answer of a custom resource is a JSON object");
        return;
    }
    LIST_EACH(&r->c->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (!r->c->stopping && streq(s->uuid, r->uuid) && cfn_custom_answer(s, r->logical, r->token, v)) {
            http_reply_str(req, 200, NULL, "");
            return;
        }
    }
    http_reply_str(req, 403, "text/plain", "nobody waits for this answer");
}

bool cfn_response_url(struct aws_door *d, struct http_req *req)
{
    static const char PREFIX[] = "/cloudformation-custom-resource-response/";
    struct response *r;
    const char *p, *slash;

    if (!d->cfn || !str_starts(req->path, PREFIX) || !streq(req->method, "PUT"))
        return false;
    p = req->path + sizeof PREFIX - 1;
    slash = strchr(p, '/');
    r = arena_new_of(req->arena, struct response);
    *r = (struct response){.c = d->cfn, .uuid = slash ? arena_strndup(req->arena, p, (size_t)(slash - p)) : "",
                           .logical = slash ? slash + 1 : "", .token = http_param(req, "token")};
    if (!r->token || !*r->token) {
        http_reply_str(req, 403, "text/plain", "nobody waits for this answer");
        return true;
    }
    http_body(req, 1 << 20, on_response, r);
    return true;
}
