/* door/aws/events/scheduler.c - EventBridge Scheduler: Schedule and ScheduleGroup objects by paths and JSON.
 *
 * A schedule NAME of the group `default` is the Schedule object of that name; of another group GROUP, GROUP-NAME with a
 * hash. Whatever is asked is read from and written to the API; event/ hears of it there. */
#include <stdlib.h>
#include <time.h>

#include "codec/kubetime.h"
#include "door/aws/events/events_int.h"
#include "door/aws/lambda/lambda_int.h"
#include "env/clock.h"
#include "event/expression.h"

#define SCHEDULES "tandem.dev/v1/schedules"
#define GROUPS "tandem.dev/v1/schedulegroups"
#define A_CHANGED "tandem.dev/last-modified"

struct schedule_op {
    struct aws_req *q;
    const struct val *in;
    const char *name, *group, *object;
    const struct obj *was;
};

static const char *arn(struct aws_req *q, const char *what, const char *rest)
{
    return arena_printf(q->req->arena, "arn:aws:scheduler:%s:%s:%s/%s", q->d->region, q->d->account, what, rest);
}

static const char *now_text(struct arena *a)
{
    char text[KUBETIME_MAX];

    return arena_strdup(a, kubetime_text(text, clock_real_ms() / 1000 * 1000));
}

static void api_error(struct aws_req *q, const struct client_result *r, const char *what, const char *name)
{
    switch (r->err->code) {
    case ERR_NOT_FOUND:
        aws_error(q, 404, "ResourceNotFoundException", "%s %s does not exist.", what, name);
        break;
    case ERR_ALREADY_EXISTS:
    case ERR_CONFLICT:
        aws_error(q, 409, "ConflictException", "%s %s already exists.", what, name);
        break;
    case ERR_INVALID:
    case ERR_INVALID_ARGUMENT:
        aws_error(q, 400, "ValidationException", "%s", r->err->msg);
        break;
    default:
        aws_error(q, 500, "InternalServerException", "%s", r->err->msg);
    }
}

/* ---- shapes ---- */

static void put_time(struct arena *a, struct val *to, const char *key, const char *text)
{
    int64_t ms = kubetime_parse(text);

    if (ms > 0)
        val_put(a, to, key, &(struct val){.type = VAL_DOUBLE, .dbl = (double)ms / 1000});
}

static struct val *shown(struct aws_req *q, const struct val *o, bool summary)
{
    struct arena *a = q->req->arena;
    const struct val *spec = val_get(o, "spec");
    const char *name = val_str_at(spec, "name", val_str_at(o, "metadata.name", "")), *group = val_str_at(spec, "group", "default");
    struct val *v = val_map(a), *target = event_target_shown(q, val_get(spec, "target")), *window, *only;
    int64_t flexible = val_int_at(spec, "flexibleMinutes", 0);

    val_put_str(a, v, "Arn", arn(q, "schedule", arena_printf(a, "%s/%s", group, name)));
    val_put_str(a, v, "Name", name);
    val_put_str(a, v, "GroupName", group);
    val_put_str(a, v, "State", val_bool_at(spec, "suspend", false) ? "DISABLED" : "ENABLED");
    val_put(a, v, "CreationDate", &(struct val){.type = VAL_DOUBLE, .dbl = event_time(o, NULL)});
    val_put(a, v, "LastModificationDate", &(struct val){.type = VAL_DOUBLE, .dbl = event_time(o, A_CHANGED)});
    if (summary) {
        only = val_map(a);
        val_put(a, only, "Arn", val_get(target, "Arn"));
        val_put(a, v, "Target", only);
        return v;
    }
    val_put(a, v, "Target", target);
    val_put_str(a, v, "ScheduleExpression", val_str_at(spec, "expression", ""));
    val_put_str(a, v, "ScheduleExpressionTimezone", val_str_at(spec, "timeZone", "UTC"));
    val_put_str(a, v, "ActionAfterCompletion", val_bool_at(spec, "deleteAfterCompletion", false) ? "DELETE" : "NONE");
    if (!str_empty(val_str_at(spec, "description", NULL)))
        val_put_str(a, v, "Description", val_str_at(spec, "description", ""));
    put_time(a, v, "StartDate", val_str_at(spec, "startTime", ""));
    put_time(a, v, "EndDate", val_str_at(spec, "endTime", ""));
    window = val_need_map(a, v, "FlexibleTimeWindow");
    val_put_str(a, window, "Mode", flexible ? "FLEXIBLE" : "OFF");
    if (flexible)
        val_put_int(a, window, "MaximumWindowInMinutes", flexible);
    return v;
}

/* Dates come as seconds or as text. */
static void take_time(struct arena *a, struct val *spec, const char *key, const struct val *v)
{
    char text[KUBETIME_MAX];
    int64_t ms = !v ? 0 : v->type == VAL_INT ? v->i * 1000 : v->type == VAL_DOUBLE ? (int64_t)(val_num(v) * 1000) : kubetime_parse(val_text(v, ""));

    if (ms > 0)
        val_put_str(a, spec, key, kubetime_text(text, ms));
}

/* The spec that a request asks for; NULL: an error was answered. */
static struct val *read_spec(struct schedule_op *op)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const struct val *in = op->in;
    const char *expression = val_str_at(in, "ScheduleExpression", ""), *zone = val_str_at(in, "ScheduleExpressionTimezone", "");
    const char *mode = val_str_at(in, "FlexibleTimeWindow.Mode", "");
    int64_t minutes = val_int_at(in, "FlexibleTimeWindow.MaximumWindowInMinutes", 0);
    struct val *spec = val_map(a), *target;
    struct expression x;
    struct err err;

    if (expression_parse(expression, &x, &err) < 0) {
        aws_error(q, 400, "ValidationException", "Invalid Schedule Expression %s.", expression);
        return NULL;
    }
    if (*zone && !streq(zone, "UTC")) {
        struct zone *z = zone_load(zone, &err);

        if (!z) {
            aws_error(q, 400, "ValidationException", "The ScheduleExpressionTimezone you provided is invalid: %s", zone);
            return NULL;
        }
        zone_free(z);
    }
    if ((!streq(mode, "OFF") && !streq(mode, "FLEXIBLE")) || (streq(mode, "FLEXIBLE") && (minutes < 1 || minutes > 1440))) {
        aws_error(q, 400, "ValidationException", "FlexibleTimeWindow needs the Mode OFF, or FLEXIBLE with MaximumWindowInMinutes from 1 to 1440.");
        return NULL;
    }
    if (str_empty(val_str_at(in, "Target.RoleArn", NULL))) {
        aws_error(q, 400, "ValidationException", "1 validation error detected: Value null at 'target.roleArn' failed to satisfy constraint: Member must not be null");
        return NULL;
    }
    if (!(target = event_target_read(q, val_get(in, "Target"), &err))) {
        aws_error(q, 400, "ValidationException", "%s", err.msg);
        return NULL;
    }
    val_put_str(a, spec, "expression", expression);
    val_put_str(a, spec, "name", op->name);
    val_put_str(a, spec, "group", op->group);
    if (*zone)
        val_put_str(a, spec, "timeZone", zone);
    take_time(a, spec, "startTime", val_get(in, "StartDate"));
    take_time(a, spec, "endTime", val_get(in, "EndDate"));
    val_put_bool(a, spec, "suspend", streq(val_str_at(in, "State", "ENABLED"), "DISABLED"));
    if (streq(mode, "FLEXIBLE"))
        val_put_int(a, spec, "flexibleMinutes", minutes);
    val_put_bool(a, spec, "deleteAfterCompletion", streq(val_str_at(in, "ActionAfterCompletion", "NONE"), "DELETE"));
    if (val_str_at(in, "Description", NULL))
        val_put_str(a, spec, "description", val_str_at(in, "Description", ""));
    val_put(a, spec, "target", target);
    return spec;
}

/* ---- schedules ---- */

static void answer_arn(struct aws_req *q, const char *key, const char *value)
{
    struct val *v = val_map(q->req->arena);

    val_put_str(q->req->arena, v, key, value);
    lambda_reply(q, 200, v);
}

static void on_schedule_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct schedule_op *op = arg;

    if (r->err)
        api_error(q, r, "Schedule", op->name);
    else
        answer_arn(q, "ScheduleArn", arn(q, "schedule", arena_printf(q->req->arena, "%s/%s", op->group, op->name)));
}

static void write_schedule(struct schedule_op *op, const struct obj *was)
{
    struct arena *a = op->q->req->arena;
    struct val *spec = read_spec(op), *v = was ? obj_edit(was, a) : val_map(a), *meta;

    if (!spec)
        return;
    meta = val_need_map(a, v, "metadata");
    val_put_str(a, meta, "name", op->object);
    val_put_str(a, val_need_map(a, val_need_map(a, v, "metadata"), "annotations"), A_CHANGED, now_text(a));
    val_put(a, v, "spec", spec);
    aws_call(op->q, &(struct client_call){.verb = was ? CLIENT_UPDATE : CLIENT_CREATE, .resource = SCHEDULES, .ns = LAMBDA_NS,
        .name = was ? op->object : NULL, .body = v}, on_schedule_written, op);
}

static void on_group_there(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct schedule_op *op = arg;

    if (r->err)
        api_error(q, r, "Schedule group", op->group);
    else
        write_schedule(op, NULL);
}
static void create_schedule(struct schedule_op *op)
{
    if (streq(op->group, "default"))
        write_schedule(op, NULL);
    else
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = GROUPS, .ns = LAMBDA_NS,
            .name = event_object_name(op->q->req->arena, op->group)}, on_group_there, op);
}

/* Names of objects have hashes: another schedule's object has a name that one of the default group could have. */
static bool is_it(const struct schedule_op *op, const struct val *o)
{
    return streq(val_str_at(o, "spec.name", val_str_at(o, "metadata.name", "")), op->name) &&
           streq(val_str_at(o, "spec.group", "default"), op->group);
}
static bool answered(struct schedule_op *op, const struct client_result *r)
{
    if (r->err)
        api_error(op->q, r, "Schedule", op->name);
    else if (!is_it(op, r->val))
        aws_error(op->q, 404, "ResourceNotFoundException", "Schedule %s does not exist.", op->name);
    else
        return false;
    return true;
}

static void on_update(struct aws_req *q, const struct client_result *r, void *arg)
{
    (void)q;
    if (!answered(arg, r))
        write_schedule(arg, r->obj);
}
static void on_get(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (!answered(arg, r))
        lambda_reply(q, 200, shown(q, r->val, false));
}
static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err)
        api_error(q, r, "Schedule", ((struct schedule_op *)arg)->name);
    else
        lambda_reply(q, 200, val_map(q->req->arena));
}
static void call_named(struct schedule_op *op, enum client_verb verb, aws_fn *fn)
{
    aws_call(op->q, &(struct client_call){.verb = verb, .resource = SCHEDULES, .ns = LAMBDA_NS, .name = op->object}, fn, op);
}
static void on_delete(struct aws_req *q, const struct client_result *r, void *arg)
{
    (void)q;
    if (!answered(arg, r))
        call_named(arg, CLIENT_DELETE, on_deleted);
}
static void get_schedule(struct schedule_op *op)
{
    call_named(op, CLIENT_GET, on_get);
}
static void update_schedule(struct schedule_op *op)
{
    call_named(op, CLIENT_GET, on_update);
}
static void delete_schedule(struct schedule_op *op)
{
    call_named(op, CLIENT_GET, on_delete);
}

/* Pages of a list in the API's order: the token is the object's name to go on behind. */
static void page(struct aws_req *q, const struct val *items, const char *key, bool (*wanted)(struct aws_req *, const struct val *),
                 struct val *(*show)(struct aws_req *, const struct val *))
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    const char *after = http_param(q->req, "NextToken"), *max = http_param(q->req, "MaxResults"), *last = NULL;
    long left = max ? strtol(max, NULL, 10) : 100;

    if (left < 1 || left > 100) {
        aws_error(q, 400, "ValidationException", "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: Member must be between 1 and 100");
        return;
    }
    val_need_list(a, v, key);
    VAL_EACH(items, it)
    {
        const char *name = val_str_at(it, "metadata.name", "");

        if ((after && strcmp(name, after) <= 0) || (wanted && !wanted(q, it)))
            continue;
        if (left-- == 0) {
            val_put_str(a, v, "NextToken", last);
            break;
        }
        last = name;
        val_push(a, val_get(v, key), show(q, it));
    }
    lambda_reply(q, 200, v);
}

static bool schedule_wanted(struct aws_req *q, const struct val *v)
{
    const struct val *spec = val_get(v, "spec");
    const char *group = http_param(q->req, "ScheduleGroup"), *prefix = http_param(q->req, "NamePrefix"), *state = http_param(q->req, "State");

    return (!group || streq(group, val_str_at(spec, "group", "default"))) &&
           (!prefix || str_starts(val_str_at(spec, "name", val_str_at(v, "metadata.name", "")), prefix)) &&
           (!state || streq(state, val_bool_at(spec, "suspend", false) ? "DISABLED" : "ENABLED"));
}
static struct val *summary(struct aws_req *q, const struct val *v)
{
    return shown(q, v, true);
}
static void on_schedules(struct aws_req *q, const struct client_result *r, void *arg)
{
    (void)arg;
    if (r->err)
        api_error(q, r, "Schedule", "");
    else
        page(q, val_get(r->val, "items"), "Schedules", schedule_wanted, summary);
}
static void list_schedules(struct schedule_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = SCHEDULES, .ns = LAMBDA_NS}, on_schedules, op);
}

/* ---- groups ---- */

static struct val *group_shown(struct aws_req *q, const struct val *o)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    const char *name = val_str_at(o, "spec.name", val_str_at(o, "metadata.name", ""));

    val_put_str(a, v, "Arn", arn(q, "schedule-group", name));
    val_put_str(a, v, "Name", name);
    val_put_str(a, v, "State", "ACTIVE");
    val_put(a, v, "CreationDate", &(struct val){.type = VAL_DOUBLE, .dbl = event_time(o, NULL)});
    val_put(a, v, "LastModificationDate", &(struct val){.type = VAL_DOUBLE, .dbl = event_time(o, A_CHANGED)});
    return v;
}

/* The group that always is. */
static struct val *default_group(struct arena *a)
{
    struct val *v = val_map(a);

    val_put_str(a, val_need_map(a, v, "metadata"), "name", "default");
    return v;
}

static struct val *tags_read(struct arena *a, const struct val *list)
{
    struct val *tags = val_map(a);

    VAL_EACH(list, t)
        val_put_str(a, tags, val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
    return tags;
}

static void on_group_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct schedule_op *op = arg;

    if (r->err)
        api_error(q, r, "Schedule group", op->name);
    else
        answer_arn(q, "ScheduleGroupArn", arn(q, "schedule-group", op->name));
}
static void create_group(struct schedule_op *op)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *spec = val_map(a);
    const char *wrong;
    bool many;

    if (streq(op->name, "default")) {
        aws_error(op->q, 409, "ConflictException", "Schedule group default already exists.");
        return;
    }
    wrong = aws_tags_wrong(op->q, NULL, val_get(op->in, "Tags"), &many);
    if (wrong) {
        aws_error(op->q, 400, many ? "ServiceQuotaExceededException" : "ValidationException", "%s", wrong);
        return;
    }
    val_put_str(a, spec, "name", op->name);
    val_put(a, spec, "tags", tags_read(a, val_get(op->in, "Tags")));
    val_put_str(a, val_need_map(a, v, "metadata"), "name", event_object_name(a, op->name));
    val_put(a, v, "spec", spec);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = GROUPS, .ns = LAMBDA_NS, .body = v}, on_group_written, op);
}

static void on_group(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err)
        api_error(q, r, "Schedule group", ((struct schedule_op *)arg)->name);
    else
        lambda_reply(q, 200, group_shown(q, r->val));
}
static void get_group(struct schedule_op *op)
{
    if (streq(op->name, "default"))
        lambda_reply(op->q, 200, group_shown(op->q, default_group(op->q->req->arena)));
    else
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = GROUPS, .ns = LAMBDA_NS,
            .name = event_object_name(op->q->req->arena, op->name)}, on_group, op);
}

static bool group_wanted(struct aws_req *q, const struct val *v)
{
    const char *prefix = http_param(q->req, "NamePrefix");

    return !prefix || str_starts(val_str_at(v, "spec.name", val_str_at(v, "metadata.name", "")), prefix);
}
static void on_groups(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct val *all = val_list(a);

    (void)arg;
    if (r->err) {
        api_error(q, r, "Schedule group", "");
        return;
    }
    val_push(a, all, default_group(a));
    VAL_EACH(val_get(r->val, "items"), it)
        val_push(a, all, it);
    page(q, all, "ScheduleGroups", group_wanted, group_shown);
}
static void list_groups(struct schedule_op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = GROUPS, .ns = LAMBDA_NS}, on_groups, op);
}

/* A group takes its schedules with it: they go first, one after the other. */
struct emptying {
    struct schedule_op *op;
    const char **names;
    size_t n, at;
};
static void on_emptied(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct emptying *m = arg;

    if (r && r->err && r->err->code != ERR_NOT_FOUND) {
        api_error(q, r, "Schedule group", m->op->name);
        return;
    }
    if (m->at < m->n)
        aws_call(q, &(struct client_call){.verb = CLIENT_DELETE, .resource = SCHEDULES, .ns = LAMBDA_NS, .name = m->names[m->at++]}, on_emptied, m);
    else
        aws_call(q, &(struct client_call){.verb = CLIENT_DELETE, .resource = GROUPS, .ns = LAMBDA_NS,
            .name = event_object_name(q->req->arena, m->op->name)}, on_deleted, m->op);
}
static void on_group_full(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct emptying *m = arena_new_of(a, struct emptying);

    *m = (struct emptying){.op = arg};
    if (r->err) {
        api_error(q, r, "Schedule group", m->op->name);
        return;
    }
    m->names = arena_raw(a, (val_len(val_get(r->val, "items")) + 1) * sizeof(char *));
    VAL_EACH(val_get(r->val, "items"), it)
        if (streq(val_str_at(it, "spec.group", "default"), m->op->name))
            m->names[m->n++] = arena_strdup(a, val_str_at(it, "metadata.name", ""));
    on_emptied(q, NULL, m);
}
static void delete_group(struct schedule_op *op)
{
    if (streq(op->name, "default"))
        aws_error(op->q, 400, "ValidationException", "The default schedule group cannot be deleted.");
    else
        aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = SCHEDULES, .ns = LAMBDA_NS}, on_group_full, op);
}

/* ---- tags, which groups alone have ---- */

static void on_group_tags(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct schedule_op *op = arg;
    struct val *v = val_map(a), *list = val_need_list(a, v, "Tags");

    if (r->err) {
        api_error(q, r, "Schedule group", op->name);
        return;
    }
    VAL_EACH_MEMBER(val_at(r->val, "spec.tags"), m)
    {
        struct val *t = val_map(a);

        val_put_str(a, t, "Key", m->key);
        val_put(a, t, "Value", &m->v);
        val_push(a, list, t);
    }
    lambda_reply(q, 200, v);
}

static void on_group_tagged(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err && r->err->code == ERR_CONFLICT)
        aws_error(q, 409, "ConflictException", "Schedule group %s is being changed by somebody else.", ((struct schedule_op *)arg)->name);
    else if (r->err)
        api_error(q, r, "Schedule group", ((struct schedule_op *)arg)->name);
    else
        lambda_reply(q, 200, val_map(q->req->arena));
}

static void on_group_to_tag(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct schedule_op *op = arg;
    const struct val *had = r->err ? NULL : val_at(r->val, "spec.tags");
    struct val *patch = val_map(a), *tags = val_map(a);
    const char *wrong, *name, *value;
    bool many;

    if (r->err) {
        api_error(q, r, "Schedule group", op->name);
        return;
    }
    wrong = aws_tags_wrong(q, had, val_get(op->in, "Tags"), &many);
    if (wrong) {
        aws_error(q, 400, many ? "ServiceQuotaExceededException" : "ValidationException", "%s", wrong);
        return;
    }
    VAL_EACH(val_get(op->in, "Tags"), t)
        val_put_str(a, tags, val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
    for (size_t i = 0; streq(q->req->method, "DELETE") && http_param_next(q->req, &i, &name, &value);)
        if (streq(name, "TagKeys"))
            val_put(a, tags, value, val_null(a));
    val_put(a, val_need_map(a, patch, "metadata"), "resourceVersion", val_at(r->val, "metadata.resourceVersion"));
    val_put(a, val_need_map(a, patch, "spec"), "tags", tags);
    aws_call(q, &(struct client_call){.verb = CLIENT_PATCH, .resource = GROUPS, .ns = LAMBDA_NS, .body = patch, .patch_type = CLIENT_PATCH_MERGE,
        .name = event_object_name(a, op->name)}, on_group_tagged, op);
}

static void group_tags(struct schedule_op *op)
{
    bool list = streq(op->q->req->method, "GET");
    struct val *none;

    if (streq(op->name, "default") && list) {
        none = val_map(op->q->req->arena);
        val_need_list(op->q->req->arena, none, "Tags");
        lambda_reply(op->q, 200, none);
    } else if (streq(op->name, "default")) {
        aws_error(op->q, 400, "ValidationException", "The default schedule group cannot be tagged.");
    } else {
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = GROUPS, .ns = LAMBDA_NS,
            .name = event_object_name(op->q->req->arena, op->name)}, list ? on_group_tags : on_group_to_tag, op);
    }
}

/* ---- paths ---- */

static const struct {
    const char *method, *what;
    bool named;
    const char *action; /* IAM's name for it */
    void (*run)(struct schedule_op *);
} ROUTES[] = {
    {"POST", "schedules", true, "CreateSchedule", create_schedule},
    {"GET", "schedules", true, "GetSchedule", get_schedule},
    {"PUT", "schedules", true, "UpdateSchedule", update_schedule},
    {"DELETE", "schedules", true, "DeleteSchedule", delete_schedule},
    {"GET", "schedules", false, "ListSchedules", list_schedules},
    {"POST", "schedule-groups", true, "CreateScheduleGroup", create_group},
    {"GET", "schedule-groups", true, "GetScheduleGroup", get_group},
    {"DELETE", "schedule-groups", true, "DeleteScheduleGroup", delete_group},
    {"GET", "schedule-groups", false, "ListScheduleGroups", list_groups},
    {"GET", "tags", true, "ListTagsForResource", group_tags},
    {"POST", "tags", true, "TagResource", group_tags},
    {"DELETE", "tags", true, "UntagResource", group_tags},
};

/* May the caller do it, and is the name one? Else an error was answered. */
static bool admitted(struct schedule_op *op, const char *what, const char *action)
{
    struct aws_req *q = op->q;
    struct arena *a = q->req->arena;
    const char *resource = !op->name ? "*" : streq(what, "schedules") ? arn(q, "schedule", arena_printf(a, "%s/%s", op->group, op->name))
                                                                        : arn(q, "schedule-group", op->name);

    if (op->name && !event_name_ok(op->name)) {
        aws_error(q, 400, "ValidationException", "1 validation error detected: Value '%s' at 'name' failed to satisfy constraint: "
                  "Member must satisfy regular expression pattern: ^[0-9a-zA-Z-_.]+$", op->name);
        return false;
    }
    return aws_may(q, arena_printf(a, "scheduler:%s", action), resource, NULL) &&
           aws_may_pass(q, "scheduler", val_str_at(op->in, "Target.RoleArn", NULL));
}

void scheduler_request(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    struct schedule_op *op = arena_new_of(a, struct schedule_op);
    const char *path = q->req->raw_path + strspn(q->req->raw_path, "/"), *slash = strchr(path, '/'), *what, *group;
    struct err err = {0};

    op->q = q;
    what = arena_strndup(a, path, slash ? (size_t)(slash - path) : strlen(path));
    op->name = slash && slash[1] ? http_unescape(a, slash + 1, strlen(slash + 1), false) : NULL;
    if (streq(what, "tags") && op->name) { /* by ARN: of a group */
        const char *mark = strstr(op->name, ":schedule-group/");

        if (!mark) {
            aws_error(q, 400, "ValidationException", "Provided resourceArn is not the ARN of a schedule group: %.200s", op->name);
            return;
        }
        op->name = mark + strlen(":schedule-group/");
    }
    if (q->body_n) {
        op->in = json_parse(a, q->body, q->body_n, &err);
        if (!val_is(op->in, VAL_MAP)) {
            aws_error(q, 400, "ValidationException", "the body is no JSON object: %s", err.msg);
            return;
        }
    }
    group = http_param(q->req, "groupName");
    op->group = val_str_at(op->in, "GroupName", group ? group : "default");
    op->object = !op->name ? "" : streq(op->group, "default") ? event_object_name(a, op->name)
                                                              : event_object_name(a, arena_printf(a, "%s/%s", op->group, op->name));
    for (size_t i = 0; i < ARRAY_LEN(ROUTES); i++)
        if (streq(ROUTES[i].method, q->req->method) && streq(ROUTES[i].what, what) && ROUTES[i].named == (op->name != NULL)) {
            if (admitted(op, what, ROUTES[i].action))
                ROUTES[i].run(op);
            return;
        }
    aws_error(q, 501, "NotImplementedException", "tandem does not serve the Scheduler operation %s %s", q->req->method, q->req->raw_path);
}
