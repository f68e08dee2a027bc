/* door/aws/events/events.c - EventBridge's rules on the default bus, as far as they are schedules: EventRule objects.
 *
 * PutRule without a ScheduleExpression, buses of one's own and PutEvents answer that they are not served yet. */
#include "door/aws/events/events_int.h"
#include "door/aws/lambda/lambda_int.h"
#include "event/expression.h"

#define RULES "tandem.dev/v1/eventrules"
enum { RULE_TARGETS_MAX = 5 }; /* EventBridge's limit */

struct rule_op {
    struct aws_req *q;
    const struct val *in;
    const char *name, *object;
    void (*change)(struct rule_op *op, struct val *v); /* of a copy of the rule, in the arena */
    struct val *(*show)(struct aws_req *q, const struct val *rule);
    struct val *answer;
    bool missing_is_fine;
    int tries;
};

static const char *rule_arn(struct aws_req *q, const char *name)
{
    return arena_printf(q->req->arena, "arn:aws:events:%s:%s:rule/%s", q->d->region, q->d->account, name);
}

static void api_error(struct rule_op *op, const struct err *err)
{
    switch (err->code) {
    case ERR_NOT_FOUND:
        aws_error(op->q, 400, "ResourceNotFoundException", "Rule %s does not exist on EventBus default.", op->name);
        break;
    case ERR_CONFLICT:
        aws_error(op->q, 400, "ConcurrentModificationException", "Rule %s was changed by somebody else.", op->name);
        break;
    case ERR_INVALID:
    case ERR_INVALID_ARGUMENT:
        aws_error(op->q, 400, "ValidationException", "%s", err->msg);
        break;
    default:
        aws_error(op->q, 500, "InternalException", "%s", err->msg);
    }
}

static struct val *shown(struct aws_req *q, const struct val *o)
{
    struct arena *a = q->req->arena;
    const struct val *spec = val_get(o, "spec");
    const char *name = val_str_at(spec, "name", val_str_at(o, "metadata.name", ""));
    struct val *v = val_map(a);

    val_put_str(a, v, "Name", name);
    val_put_str(a, v, "Arn", rule_arn(q, name));
    val_put_str(a, v, "State", val_bool_at(spec, "suspend", false) ? "DISABLED" : "ENABLED");
    val_put_str(a, v, "EventBusName", "default");
    if (!str_empty(val_str_at(spec, "schedule", NULL)))
        val_put_str(a, v, "ScheduleExpression", val_str_at(spec, "schedule", ""));
    if (!str_empty(val_str_at(spec, "description", NULL)))
        val_put_str(a, v, "Description", val_str_at(spec, "description", ""));
    if (!str_empty(val_str_at(spec, "role", NULL)))
        val_put_str(a, v, "RoleArn", val_str_at(spec, "role", ""));
    return v;
}

/* Names of objects have hashes: another rule's object has a name that a rule could have. */
static bool is_it(const struct rule_op *op, const struct val *o)
{
    return streq(val_str_at(o, "spec.name", val_str_at(o, "metadata.name", "")), op->name);
}
/* True: it is not the rule that was meant, and this was answered. */
static bool is_other(struct rule_op *op, const struct client_result *r)
{
    struct err err;

    if (r->err || is_it(op, r->val))
        return false;
    err_set(&err, NOT_FOUND, "another rule has this one's place");
    api_error(op, &err);
    return true;
}

static void on_shown(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct rule_op *op = arg;

    if (r->err)
        api_error(op, r->err);
    else if (!is_other(op, r))
        json_reply(q, op->show(q, r->val));
}
/* Answers with what show() makes of the rule. */
static void show_rule(struct rule_op *op, struct val *(*show)(struct aws_req *q, const struct val *rule))
{
    op->show = show;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = RULES, .ns = LAMBDA_NS, .name = op->object}, on_shown, op);
}

/* ---- read, change, write; again when somebody else wrote in between ---- */

static void change_rule(struct rule_op *op);
static void on_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct rule_op *op = arg;

    if (r->err && r->err->code == ERR_CONFLICT && op->tries++ < 10)
        change_rule(op);
    else if (r->err)
        api_error(op, r->err);
    else
        json_reply(q, op->answer);
}
static void on_read(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct rule_op *op = arg;
    struct arena *a = q->req->arena;
    const char *wrong;
    struct val *v;
    bool many;

    if (r->err && !(r->err->code == ERR_NOT_FOUND && op->missing_is_fine)) {
        api_error(op, r->err);
        return;
    }
    if (is_other(op, r))
        return;
    v = r->err ? val_map(a) : val_copy(a, r->val);
    if (r->err) {
        val_put_str(a, val_need_map(a, v, "metadata"), "name", op->object);
        val_put_str(a, val_need_map(a, v, "spec"), "name", op->name);
    }
    wrong = aws_tags_wrong(op->q, val_at(v, "spec.tags"), val_get(op->in, "Tags"), &many);
    if (wrong) {
        aws_error(q, 400, many ? "LimitExceededException" : "ValidationException", "%s", wrong);
        return;
    }
    op->change(op, v);
    aws_call(q, &(struct client_call){.verb = r->err ? CLIENT_CREATE : CLIENT_UPDATE, .resource = RULES, .ns = LAMBDA_NS,
        .name = r->err ? NULL : op->object, .body = v}, on_written, op);
}
static void change_rule(struct rule_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = RULES, .ns = LAMBDA_NS, .name = op->object}, on_read, op);
}

/* ---- rules ---- */

static void set_rule(struct rule_op *op, struct val *v)
{
    struct arena *a = op->q->req->arena;
    struct val *spec = val_need_map(a, v, "spec");

    val_put_str(a, spec, "schedule", val_str_at(op->in, "ScheduleExpression", ""));
    val_put_bool(a, spec, "suspend", streq(val_str_at(op->in, "State", "ENABLED"), "DISABLED"));
    val_put_str(a, spec, "description", val_str_at(op->in, "Description", ""));
    val_put_str(a, spec, "role", val_str_at(op->in, "RoleArn", ""));
    VAL_EACH(val_get(op->in, "Tags"), t)
        val_put_str(a, val_need_map(a, spec, "tags"), val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
}
static void put_rule(struct rule_op *op)
{
    const char *schedule = val_str_at(op->in, "ScheduleExpression", NULL);
    struct expression x;
    struct err err;

    if (val_str_at(op->in, "EventPattern", NULL) || !schedule) {
        aws_error(op->q, 400, schedule || val_str_at(op->in, "EventPattern", NULL) ? "NotImplementedException" : "ValidationException",
                  schedule || val_str_at(op->in, "EventPattern", NULL) ? "tandem does not serve event patterns yet, only ScheduleExpression"
                  : "Parameter(s) EventPattern or ScheduleExpression must be specified.");
        return;
    }
    if (expression_parse(schedule, &x, &err) < 0 || x.kind == EXPRESSION_AT) {
        aws_error(op->q, 400, "ValidationException", "Parameter ScheduleExpression is not valid.");
        return;
    }
    op->change = set_rule;
    op->missing_is_fine = true;
    op->answer = val_map(op->q->req->arena);
    val_put_str(op->q->req->arena, op->answer, "RuleArn", rule_arn(op->q, op->name));
    change_rule(op);
}

static void set_enabled(struct rule_op *op, struct val *v)
{
    struct arena *a = op->q->req->arena;

    val_put_bool(a, val_need_map(a, v, "spec"), "suspend", streq(json_operation(op->q), "DisableRule"));
}
static void enable_rule(struct rule_op *op)
{
    op->change = set_enabled;
    change_rule(op);
}

static void describe_rule(struct rule_op *op)
{
    show_rule(op, shown);
}

static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err && r->err->code != ERR_NOT_FOUND) /* what is not there is deleted */
        api_error(arg, r->err);
    else
        json_reply(q, NULL);
}
static void on_delete(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct rule_op *op = arg;

    if (r->err) {
        on_deleted(q, r, op);
    } else if (!is_it(op, r->val)) {
        json_reply(q, NULL);
    } else if (val_len(val_at(r->val, "spec.targets"))) {
        aws_error(q, 400, "ValidationException", "Rule can't be deleted since it has targets.");
    } else {
        aws_call(q, &(struct client_call){.verb = CLIENT_DELETE, .resource = RULES, .ns = LAMBDA_NS, .name = op->object}, on_deleted, op);
    }
}
static void delete_rule(struct rule_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = RULES, .ns = LAMBDA_NS, .name = op->object}, on_delete, op);
}

/* ListRules by prefix, ListRuleNamesByTarget by a target's ARN; the token is the name to go on behind. */
static void on_rules(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct rule_op *op = arg;
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    bool names = streq(json_operation(q), "ListRuleNamesByTarget");
    const char *prefix = val_str_at(op->in, "NamePrefix", ""), *after = val_str_at(op->in, "NextToken", ""), *last = "";
    int64_t left = val_int_at(op->in, "Limit", 100);

    if (r->err) {
        api_error(op, r->err);
        return;
    }
    val_need_list(a, v, names ? "RuleNames" : "Rules");
    VAL_EACH(val_get(r->val, "items"), it)
    {
        struct val *rule = shown(q, it);
        bool found = !names;

        VAL_EACH(val_at(it, "spec.targets"), t)
            found = found || streq(val_str_at(event_target_shown(q, t), "Arn", ""), val_str_at(op->in, "TargetArn", ""));
        if (!found || !str_starts(val_str_at(rule, "Name", ""), prefix) || strcmp(val_str_at(it, "metadata.name", ""), after) <= 0)
            continue;
        if (left-- <= 0) {
            val_put_str(a, v, "NextToken", last);
            break;
        }
        last = val_str_at(it, "metadata.name", "");
        val_push(a, val_get(v, names ? "RuleNames" : "Rules"), names ? val_get(rule, "Name") : rule);
    }
    json_reply(q, v);
}
static void list_rules(struct rule_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = RULES, .ns = LAMBDA_NS}, on_rules, op);
}

/* ---- targets ---- */

static void set_targets(struct rule_op *op, struct val *v)
{
    struct arena *a = op->q->req->arena;
    struct val *list = val_list(a), *failed = val_list(a);

    VAL_EACH(val_at(v, "spec.targets"), was)
    {
        bool replaced = false;

        VAL_EACH(val_get(op->in, "Targets"), t)
            replaced = replaced || streq(val_str_at(t, "Id", ""), val_str_at(was, "id", ""));
        VAL_EACH(val_get(op->in, "Ids"), id)
            replaced = replaced || streq(val_text(id, ""), val_str_at(was, "id", ""));
        if (!replaced)
            val_push(a, list, was);
    }
    VAL_EACH(val_get(op->in, "Targets"), t)
    {
        struct err err = {0};
        struct val *target = event_target_read(op->q, t, &err), *entry;

        if (target && val_len(list) >= RULE_TARGETS_MAX)
            err_set(&err, TOO_MANY, "The requested resource exceeds the maximum number allowed."), target = NULL;
        if (target) {
            val_push(a, list, target);
            continue;
        }
        entry = val_map(a);
        val_put_str(a, entry, "TargetId", val_str_at(t, "Id", ""));
        val_put_str(a, entry, "ErrorCode", err.code == ERR_TOO_MANY ? "LimitExceededException" : "ValidationException");
        val_put_str(a, entry, "ErrorMessage", err.msg);
        val_push(a, failed, entry);
    }
    val_put_int(a, op->answer, "FailedEntryCount", (int64_t)val_len(failed));
    val_put(a, op->answer, "FailedEntries", failed);
    val_put(a, val_need_map(a, v, "spec"), "targets", list);
}
static void put_targets(struct rule_op *op)
{
    op->change = set_targets;
    op->answer = val_map(op->q->req->arena);
    change_rule(op);
}

static struct val *targets_shown(struct aws_req *q, const struct val *rule)
{
    struct arena *a = q->req->arena;
    const struct rule_op *op = q->more;
    const char *after = val_str_at(op->in, "NextToken", NULL), *last = "";
    int64_t left = val_int_at(op->in, "Limit", 100);
    struct val *v = val_map(a), *list = val_list(a);

    VAL_EACH(val_at(rule, "spec.targets"), t)
    {
        const char *id = val_str_at(t, "id", "");

        if (after) { /* they have no order of their own: it goes on behind the one that was last */
            if (streq(id, after))
                after = NULL;
            continue;
        }
        if (left-- <= 0) {
            val_put_str(a, v, "NextToken", last);
            break;
        }
        last = id;
        val_push(a, list, event_target_shown(q, t));
    }
    val_put(a, v, "Targets", list);
    return v;
}
static void list_targets(struct rule_op *op)
{
    op->q->more = op;
    show_rule(op, targets_shown);
}

/* ---- tags, the one bus ---- */

static void set_tags(struct rule_op *op, struct val *v)
{
    struct arena *a = op->q->req->arena;
    struct val *now = val_map(a);

    VAL_EACH_MEMBER(val_at(v, "spec.tags"), m)
    {
        bool gone = false;

        VAL_EACH(val_get(op->in, "TagKeys"), k)
            gone = gone || streq(val_text(k, ""), m->key);
        if (!gone)
            val_put(a, now, m->key, &m->v);
    }
    VAL_EACH(val_get(op->in, "Tags"), t)
        val_put_str(a, now, val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
    val_put(a, val_need_map(a, v, "spec"), "tags", now);
}
static void tag_rule(struct rule_op *op)
{
    op->change = set_tags;
    change_rule(op);
}
static struct val *tags_shown(struct aws_req *q, const struct val *rule)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a), *list = val_need_list(a, v, "Tags");

    VAL_EACH_MEMBER(val_at(rule, "spec.tags"), m)
    {
        struct val *t = val_map(a);

        val_put_str(a, t, "Key", m->key);
        val_put(a, t, "Value", &m->v);
        val_push(a, list, t);
    }
    return v;
}
static void list_tags(struct rule_op *op)
{
    show_rule(op, tags_shown);
}

static void describe_bus(struct rule_op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    struct val *bus = val_map(a), *v = val_map(a);

    val_put_str(a, bus, "Name", "default");
    val_put_str(a, bus, "Arn", arena_printf(a, "arn:aws:events:%s:%s:event-bus/default", q->d->region, q->d->account));
    if (streq(json_operation(q), "DescribeEventBus")) {
        json_reply(q, bus);
        return;
    }
    val_push(a, val_need_list(a, v, "EventBuses"), bus);
    json_reply(q, v);
}

static const struct {
    const char *name, *named_by; /* the parameter that names the rule; NULL: none does */
    void (*run)(struct rule_op *);
} OPERATIONS[] = {
    {"PutRule", "Name", put_rule}, {"DescribeRule", "Name", describe_rule}, {"DeleteRule", "Name", delete_rule},
    {"EnableRule", "Name", enable_rule}, {"DisableRule", "Name", enable_rule}, {"ListRules", NULL, list_rules},
    {"ListRuleNamesByTarget", NULL, list_rules}, {"PutTargets", "Rule", put_targets}, {"RemoveTargets", "Rule", put_targets},
    {"ListTargetsByRule", "Rule", list_targets}, {"TagResource", "ResourceARN", tag_rule}, {"UntagResource", "ResourceARN", tag_rule},
    {"ListTagsForResource", "ResourceARN", list_tags}, {"DescribeEventBus", NULL, describe_bus}, {"ListEventBuses", NULL, describe_bus},
};

void events_request(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    struct rule_op *op = arena_new_of(a, struct rule_op);
    const char *name = json_operation(q), *bus, *slash;
    struct err err = {0};

    op->q = q;
    op->in = q->body_n ? json_parse(a, q->body, q->body_n, &err) : val_map(a);
    if (!name || !val_is(op->in, VAL_MAP)) {
        aws_error(q, 400, name ? "SerializationException" : "UnknownOperationException", "%s", name ? err.msg : "the request has no X-Amz-Target");
        return;
    }
    bus = val_str_at(op->in, "EventBusName", "default");
    slash = strrchr(bus, '/');
    if (!streq(slash ? slash + 1 : bus, "default")) {
        aws_error(q, 400, "ResourceNotFoundException", "Event bus %s does not exist.", bus);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(OPERATIONS); i++) {
        if (!streq(OPERATIONS[i].name, name))
            continue;
        if (OPERATIONS[i].named_by) {
            op->name = val_str_at(op->in, OPERATIONS[i].named_by, "");
            slash = strrchr(op->name, '/'); /* of an ARN */
            op->name = slash ? slash + 1 : op->name;
            op->object = event_object_name(a, op->name);
            if (!event_name_ok(op->name)) {
                aws_error(q, 400, "ValidationException", "1 validation error detected: Value '%s' at 'name' failed to satisfy constraint: "
                          "Member must satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+", op->name);
                return;
            }
        }
        OPERATIONS[i].run(op);
        return;
    }
    aws_error(q, 501, "NotImplementedException", "tandem does not serve the EventBridge operation %s yet", name);
}
