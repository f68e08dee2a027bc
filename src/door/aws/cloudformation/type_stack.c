/* door/aws/cloudformation/type_stack.c - AWS::CloudFormation::Stack: a stack as a resource of another.
 *
 * It is made, changed and deleted by CloudFormation's own operations, as who works on the outer one; its outputs are its attributes. What only
 * the engine may say of a stack (whose resource it is, how deep it lies) are parameters that are heard from inside alone (write.c). */
#include "door/aws/cloudformation/cfn_int.h"
#include "env/clock.h"

#include <stdio.h>

enum { POLL_MS = 50, POLL_MAX_MS = 1000 };

static void add(struct cfn_work *w, struct buf *b, const char *name, const char *value)
{
    if (value)
        buf_printf(b, "&%s=%s", name, http_escape(w->a, value, NULL));
}

static void add_at(struct cfn_work *w, struct buf *b, const char *list, int i, const char *member, const char *value)
{
    add(w, b, arena_printf(w->a, "%s.member.%d%s%s", list, i, member ? "." : "", member ? member : ""), value);
}

/* Tags of the resource, then those of the outer stack that it does not name itself. */
static void add_tags(struct cfn_work *w, struct buf *b)
{
    const struct val *own = val_get(w->props, "Tags");
    int n = 0;

    VAL_EACH(own, t)
    {
        add_at(w, b, "Tags", ++n, "Key", val_str_at(t, "Key", ""));
        add_at(w, b, "Tags", n, "Value", cfn_scalar(w->a, val_get(t, "Value")));
    }
    VAL_EACH(val_get(w->s->spec, "tags"), t)
    {
        bool named = false;

        VAL_EACH(own, o)
            named |= streq(val_str_at(o, "Key", ""), val_str_at(t, "Key", ""));
        if (named)
            continue;
        add_at(w, b, "Tags", ++n, "Key", val_str_at(t, "Key", ""));
        add_at(w, b, "Tags", n, "Value", val_str_at(t, "Value", ""));
    }
}

/* A parameter's value as text; a list is joined by commas. */
static const char *value_of(struct cfn_work *w, const struct val *v)
{
    struct buf b = {0};
    const char *text;

    if (!val_is(v, VAL_LIST))
        return cfn_scalar(w->a, v);
    VAL_EACH(v, it)
        buf_printf(&b, "%s%s", b.n ? "," : "", cfn_scalar(w->a, it) ? cfn_scalar(w->a, it) : "");
    text = arena_strndup(w->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

static struct cfn_call stack_call(struct cfn_work *w, const char *action, const char *name)
{
    struct cfn_call c = {.service = "cloudformation", .method = "POST", .path = "/", .type = "application/x-www-form-urlencoded"};
    bool create = streq(action, "CreateStack");
    struct buf b = {0};
    int n = 0;

    buf_printf(&b, "Action=%s&Version=2010-05-15", action);
    add(w, &b, "StackName", name);
    if (create || streq(action, "UpdateStack")) {
        add(w, &b, "TemplateURL", val_str_at(w->props, "TemplateURL", ""));
        VAL_EACH_MEMBER(val_get(w->props, "Parameters"), m)
        {
            add_at(w, &b, "Parameters", ++n, "ParameterKey", m->key);
            add_at(w, &b, "Parameters", n, "ParameterValue", value_of(w, &m->v));
        }
        n = 0;
        VAL_EACH(val_get(w->s->spec, "capabilities"), v)
            add_at(w, &b, "Capabilities", ++n, NULL, val_text(v, ""));
        n = 0;
        VAL_EACH(val_get(w->props, "NotificationARNs"), v)
            add_at(w, &b, "NotificationARNs", ++n, NULL, val_text(v, ""));
        add_tags(w, &b);
        add(w, &b, "DisableRollback", val_bool_at(w->s->spec, "disableRollback", false) ? "true" : "false");
    }
    if (create)
        add(w, &b, "TandemParentId", w->s->id);
    c.body_n = b.n;
    c.body = arena_strndup(w->a, b.p, b.n);
    buf_done(&b);
    return c;
}

/* ---- until it is done ---- */

static void look(struct cfn_work *w);

/* What it last said of itself with a reason: a stack that was rolled back has none for that. */
static const char *reason_of(struct cfn_work *w, const char *otherwise)
{
    const struct cfn_stack *inner = cfn_find(w->s->c, w->phys);

    for (uint32_t i = inner ? inner->events_n : 0; i-- > 0;)
        if (streq(inner->events[i].logical, inner->name) && !str_empty(inner->events[i].reason))
            return inner->events[i].reason;
    return otherwise;
}

static void failed(struct cfn_work *w, const char *what, const char *status)
{
    cfn_fail(w, "NotStabilized", "Embedded stack %s was not successfully %s: %s", w->phys, what, reason_of(w, status));
    w->plain = true;
}

static void take_outputs(struct cfn_work *w, const struct val *stack)
{
    w->attrs = val_map(w->a); /* those that it has no more go */
    VAL_EACH(val_at(stack, "Outputs[0].member"), o)
        cfn_attr(w, arena_printf(w->a, "Outputs.%s", xml_get(o, "OutputKey", "")), xml_get(o, "OutputValue", ""));
}

static void got_look(struct cfn_work *w, const struct cfn_answer *ans)
{
    const struct val *stack = val_at(ans->v, "DescribeStacksResult[0].Stacks[0].member[0]");
    const char *status = xml_get(stack, "StackStatus", ""), *id = xml_get(stack, "StackId", NULL);

    if (w->action == CFN_DELETE) {
        if (streq(status, "DELETE_FAILED"))
            failed(w, "deleted", status);
        else if (ans->status < 300 && !streq(status, "DELETE_COMPLETE"))
            look(w);
        return;
    }
    if (id)
        cfn_phys(w, id);
    if (str_ends(status, "_IN_PROGRESS")) {
        if (w->deadline_ms && clock_real_ms() > w->deadline_ms)
            cfn_fail(w, "NotStabilized", "Embedded stack %s did not come to an end within its TimeoutInMinutes", w->phys);
        else
            look(w);
        return;
    }
    if (streq(status, w->action == CFN_CREATE ? "CREATE_COMPLETE" : "UPDATE_COMPLETE") ||
        (streq(status, "CREATE_COMPLETE") && (w->nothing_new || w->resumed)) || (w->nothing_new && str_ends(status, "_ROLLBACK_COMPLETE")))
        take_outputs(w, stack);
    else
        failed(w, w->action == CFN_CREATE ? "created" : "updated", status);
}

static void look(struct cfn_work *w)
{
    struct cfn_call c = stack_call(w, "DescribeStacks", w->phys);

    c.delay_ms = MIN(POLL_MS << MIN(w->polls, 5), POLL_MAX_MS);
    w->polls++;
    if (w->action == CFN_DELETE)
        c.fine = "ValidationError"; /* it is not even remembered */
    c.got = got_look;
    cfn_push_next(w, &c);
}

/* ---- create, update, delete ---- */

static void got_create(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *id = xml_get(val_at(ans->v, "CreateStackResult[0]"), "StackId", NULL);

    cfn_phys(w, id ? id : w->phys);
    look(w);
}

static void stack_create(struct cfn_work *w)
{
    const char *minutes = cfn_scalar(w->a, val_get(w->props, "TimeoutInMinutes"));
    const char *name = cfn_name(w, NULL, 128, false);
    struct cfn_call c = stack_call(w, "CreateStack", name);
    long long n = 0;

    if (minutes && sscanf(minutes, "%lld", &n) == 1 && n > 0 && n <= 60 * 24 * 7)
        w->deadline_ms = clock_real_ms() + n * 60000;
    w->phys = name;
    c.fine = "AlreadyExistsException"; /* the name follows from the outer stack's id: a try before a restart has made it */
    c.got = got_create;
    cfn_push(w, &c);
}

static void got_update(struct cfn_work *w, const struct cfn_answer *ans)
{
    if (ans->status >= 300 && !streq(ans->message, "No updates are to be performed.")) {
        cfn_fail(w, "InvalidRequest", "%s", ans->message);
        return;
    }
    w->nothing_new = ans->status >= 300;
    look(w);
}

static void stack_update(struct cfn_work *w)
{
    struct cfn_call c = stack_call(w, "UpdateStack", w->phys);

    c.fine = "ValidationError"; /* got_update() looks at it */
    c.got = got_update;
    cfn_push(w, &c);
}

static void got_drop(struct cfn_work *w, const struct cfn_answer *ans)
{
    (void)ans;
    look(w);
}

static void stack_drop(struct cfn_work *w)
{
    struct cfn_call c = stack_call(w, "DeleteStack", w->phys);

    c.got = got_drop;
    cfn_push(w, &c);
}

const struct cfn_type cfn_types_stack[] = {
    {"AWS::CloudFormation::Stack", "", NULL, stack_create, stack_update, stack_drop},
    {0},
};
