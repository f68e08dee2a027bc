/* door/aws/logs/logs.c - CloudWatch Logs: operations, groups, streams, tags. Groups are LogGroup objects (written through
 * client/), streams and events are in logs/. What an object's write answered is told to logs/ at once, so the next request
 * on this port sees it. */
#include "door/aws/logs/logs_int.h"

#include <ctype.h>
#include <stdio.h>

/* ---- what operations share ---- */

void logs_fail(struct aws_req *q, const struct err *err)
{
    switch (err->code) {
    case ERR_NOT_FOUND:
        aws_error(q, 400, "ResourceNotFoundException", "%s", err->msg);
        break;
    case ERR_ALREADY_EXISTS:
        aws_error(q, 400, "ResourceAlreadyExistsException", "%s", err->msg);
        break;
    case ERR_INVALID:
    case ERR_INVALID_ARGUMENT:
        aws_error(q, 400, "InvalidParameterException", "%s", err->msg);
        break;
    case ERR_TOO_MANY:
        aws_error(q, 400, "ThrottlingException", "%s", err->msg);
        break;
    default:
        aws_error(q, 503, "ServiceUnavailableException", "%s", err->msg);
    }
}

static const char *not_valid(struct aws_req *q, const char *what, const char *value, const char *rule)
{
    aws_error(q, 400, "InvalidParameterException",
              "1 validation error detected: Value '%.200s' at '%s' failed to satisfy constraint: Member must %s", value, what, rule);
    return NULL;
}

static const char *name_rule(const char *s)
{
    if (!*s)
        return "have length greater than or equal to 1";
    if (strlen(s) > LOGS_GROUP_NAME_MAX)
        return "have length less than or equal to 512";
    return s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/#")]
               ? "satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+"
               : NULL;
}

const char *logs_group_of_arn(struct aws_req *q, const char *arn)
{
    const char *at = strstr(arn, ":log-group:"), *end;

    if (!str_starts(arn, "arn:"))
        return arn;
    if (!at)
        return not_valid(q, "resourceArn", arn, "be the ARN of a log group");
    at += strlen(":log-group:");
    end = strchr(at, ':');
    return end ? arena_strndup(q->req->arena, at, (size_t)(end - at)) : at;
}

const char *logs_group_name(struct aws_req *q, const struct val *in)
{
    const char *name = val_str_at(in, "logGroupName", NULL), *id = val_str_at(in, "logGroupIdentifier", NULL), *rule;

    if (name && id) {
        aws_error(q, 400, "InvalidParameterException", "LogGroup name and LogGroup identifier cannot be both specified");
        return NULL;
    }
    if (!name && !id) {
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value null at 'logGroupName' failed to satisfy "
                                                       "constraint: Member must not be null");
        return NULL;
    }
    if (!name && !(name = logs_group_of_arn(q, id)))
        return NULL;
    rule = name_rule(name);
    return rule ? not_valid(q, "logGroupName", name, rule) : name;
}

const char *logs_stream_name(struct aws_req *q, const struct val *in)
{
    const char *name = val_str_at(in, "logStreamName", "");

    if (!*name)
        return not_valid(q, "logStreamName", name, "have length greater than or equal to 1");
    if (strlen(name) > LOGS_STREAM_NAME_MAX)
        return not_valid(q, "logStreamName", name, "have length less than or equal to 512");
    if (strpbrk(name, ":*\n"))
        return not_valid(q, "logStreamName", name, "satisfy regular expression pattern: [^:*]*");
    return name;
}

bool logs_limit(struct aws_req *q, const struct val *in, int64_t otherwise, int64_t max, uint32_t *ret)
{
    int64_t n = val_int_at(in, "limit", otherwise);

    if (n < 1 || n > max) {
        not_valid(q, "limit", arena_printf(q->req->arena, "%lld", (long long)n),
                  n < 1 ? "have value greater than or equal to 1" : arena_printf(q->req->arena, "have value less than or equal to %lld", (long long)max));
        return false;
    }
    *ret = (uint32_t)n;
    return true;
}

static char *group_arn(struct aws_req *q, const char *name)
{
    return arena_printf(q->req->arena, "arn:aws:logs:%s:%s:log-group:%s", q->d->region, q->d->account, name);
}

static bool need_group(struct aws_req *q, const char *name)
{
    struct log_group_info info;

    if (logs_group_get(q->d->o.logs, LOGS_NS, name, &info))
        return true;
    aws_error(q, 400, "ResourceNotFoundException", "The specified log group does not exist.");
    return false;
}

/* ---- objects ---- */

struct change {
    const char *group;
    struct val *patch;
    bool create;
    void (*then)(struct aws_req *q, const struct obj *o);
};

static void empty(struct aws_req *q, const struct obj *o)
{
    (void)o;
    json_reply(q, NULL);
}

static void on_changed(struct aws_req *q, const struct client_result *r, void *arg);

static void create_object(struct aws_req *q, struct change *c)
{
    struct val *v = logs_object(q->req->arena, c->group), *spec = val_get(v, "spec");

    VAL_EACH_MEMBER(val_get(c->patch, "spec"), m)
        if (!val_is_null(&m->v))
            val_put(q->req->arena, spec, m->key, &m->v);
    c->create = true;
    aws_call(q, &(struct client_call){.verb = CLIENT_CREATE, .resource = LOG_GROUPS, .ns = LOGS_NS, .body = v}, on_changed, c);
}

static void on_changed(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct change *c = arg;
    struct err err;

    if (r->err && r->err->code == ERR_NOT_FOUND && !c->create) { /* it began by a line: its object comes late */
        create_object(q, c);
        return;
    }
    if (r->err || !r->obj) {
        if (!r->err)
            err_set(&err, INTERNAL, "the API server answered no object");
        else
            err = *r->err;
        if (err.code == ERR_ALREADY_EXISTS)
            snprintf(err.msg, sizeof err.msg, "The specified log group already exists");
        logs_fail(q, &err);
        return;
    }
    if (logs_group_put(q->d->o.logs, LOGS_NS, c->group, r->obj->uid, (int)val_int_at(obj_val(r->obj), "spec.retentionDays", 0), &err) < 0) {
        logs_fail(q, &err);
        return;
    }
    c->then(q, r->obj);
}

static void change(struct aws_req *q, const char *group, struct val *patch)
{
    struct change *c = arena_new_of(q->req->arena, struct change);
    char name[80];

    *c = (struct change){group, patch, false, empty};
    aws_call(q, &(struct client_call){.verb = CLIENT_PATCH, .resource = LOG_GROUPS, .ns = LOGS_NS, .name = logs_object_name(group, name),
        .body = patch, .patch_type = CLIENT_PATCH_MERGE}, on_changed, c);
}

/* ---- groups ---- */

/* before: those that are there already, or NULL */
static bool tags_fit(struct aws_req *q, const struct val *before, const struct val *in)
{
    bool many;
    const char *wrong = aws_tags_wrong(q, before, val_get(in, "tags"), &many);

    if (wrong)
        aws_error(q, 400, many ? "TooManyTagsException" : "InvalidParameterException", "%s", wrong);
    return !wrong;
}

static void create_group(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *name = logs_group_name(q, in), *class = val_str_at(in, "logGroupClass", NULL);
    struct change *c = arena_new_of(a, struct change);
    struct log_group_info info;
    struct val *spec;

    if (!name)
        return;
    if (logs_group_get(q->d->o.logs, LOGS_NS, name, &info)) {
        aws_error(q, 400, "ResourceAlreadyExistsException", "The specified log group already exists");
        return;
    }
    if (!tags_fit(q, NULL, in))
        return;
    *c = (struct change){.group = name, .patch = val_map(a), .then = empty};
    spec = val_need_map(a, c->patch, "spec");
    if (class)
        val_put_str(a, spec, "class", class);
    if (val_get(in, "kmsKeyId"))
        val_put(a, spec, "kmsKey", val_get(in, "kmsKeyId"));
    if (val_get(in, "tags"))
        val_put(a, spec, "tags", val_get(in, "tags"));
    create_object(q, c);
}

static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err && r->err->code != ERR_NOT_FOUND) {
        logs_fail(q, r->err);
        return;
    }
    logs_group_remove(q->d->o.logs, LOGS_NS, arg, NULL);
    json_reply(q, NULL);
}

static void delete_group(struct aws_req *q, const struct val *in)
{
    const char *name = logs_group_name(q, in);
    char object_name[80];

    if (name && need_group(q, name))
        aws_call(q, &(struct client_call){.verb = CLIENT_DELETE, .resource = LOG_GROUPS, .ns = LOGS_NS,
            .name = logs_object_name(name, object_name)}, on_deleted, (void *)name);
}

struct listing {
    const struct val *in;
    bool short_form; /* ListLogGroups */
    uint32_t limit;
    struct log_group_info *v;
    uint32_t n;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct log_group_info *)a)->name, ((const struct log_group_info *)b)->name);
}

static bool group_wanted(struct aws_req *q, const struct val *in, const char *name)
{
    const char *prefix = val_str_at(in, "logGroupNamePrefix", ""), *pattern = val_str_at(in, "logGroupNamePattern", NULL);
    const struct val *ids = val_get(in, "logGroupIdentifiers");

    if (!str_starts(name, prefix) || (pattern && !strcasestr(name, pattern)))
        return false;
    if (!val_len(ids))
        return true;
    VAL_EACH(ids, it)
    {
        const char *id = val_text(it, ""), *at = strstr(id, ":log-group:");
        size_t n = at ? strcspn(at + 11, ":") : strlen(id);

        if (strlen(name) == n && strncmp(at ? at + 11 : id, name, n) == 0)
            return true;
    }
    (void)q;
    return false;
}

static struct val *group_val(struct aws_req *q, const struct log_group_info *g, const struct val *spec, bool short_form)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);
    char *arn = group_arn(q, g->name);

    val_put_str(a, v, "logGroupName", g->name);
    val_put_str(a, v, "logGroupArn", arn);
    val_put_str(a, v, "logGroupClass", val_str_at(spec, "class", "STANDARD"));
    if (short_form)
        return v;
    val_put_str(a, v, "arn", arena_printf(a, "%s:*", arn));
    val_put_int(a, v, "creationTime", g->created_ms);
    val_put_int(a, v, "metricFilterCount", 0);
    val_put_int(a, v, "storedBytes", (int64_t)g->bytes);
    if (g->retention_days)
        val_put_int(a, v, "retentionInDays", g->retention_days);
    if (val_get(spec, "kmsKey"))
        val_put(a, v, "kmsKeyId", val_get(spec, "kmsKey"));
    return v;
}

/* Groups as logs/ knows them, with what only their objects say. */
static void on_objects(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct listing *l = arg;
    struct arena *a = q->req->arena;
    struct val *out = val_map(a), *list = val_list(a);
    const char *after = val_str_at(l->in, "nextToken", "");
    struct log_group_info info;
    uint32_t cap = 0, given = 0, i = 0;

    for (uint32_t at = 0; logs_group_next(q->d->o.logs, &at, &info);) {
        if (!streq(info.ns, LOGS_NS) || !group_wanted(q, l->in, info.name))
            continue;
        if (l->n == cap) {
            struct log_group_info *more = arena_array(a, struct log_group_info, (cap = cap ? 2 * cap : 64));

            if (l->n)
                memcpy(more, l->v, l->n * sizeof *more);
            l->v = more;
        }
        l->v[l->n++] = info;
    }
    if (l->n)
        qsort(l->v, l->n, sizeof *l->v, by_name);
    for (; i < l->n && given < l->limit; i++) {
        const struct val *spec = NULL;

        if (strcmp(l->v[i].name, after) <= 0 && *after)
            continue;
        VAL_EACH(r->err ? NULL : val_get(r->val, "items"), it)
            if (streq(val_str_at(it, "spec.name", ""), l->v[i].name))
                spec = val_get(it, "spec");
        val_push(a, list, group_val(q, &l->v[i], spec, l->short_form));
        given++;
    }
    val_put(a, out, "logGroups", list);
    if (i < l->n)
        val_put_str(a, out, "nextToken", l->v[i - 1].name);
    json_reply(q, out);
}

static void list_groups(struct aws_req *q, const struct val *in, bool short_form)
{
    struct listing *l = arena_new_of(q->req->arena, struct listing);

    *l = (struct listing){.in = in, .short_form = short_form};
    if (!logs_limit(q, in, 50, short_form ? 1000 : 50, &l->limit))
        return;
    if (val_get(in, "logGroupNamePrefix") && val_get(in, "logGroupNamePattern")) {
        aws_error(q, 400, "InvalidParameterException", "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.");
        return;
    }
    aws_call(q, &(struct client_call){.verb = CLIENT_LIST, .resource = LOG_GROUPS, .ns = LOGS_NS}, on_objects, l);
}

static void describe_groups(struct aws_req *q, const struct val *in)
{
    list_groups(q, in, false);
}
static void list_groups_short(struct aws_req *q, const struct val *in)
{
    list_groups(q, in, true);
}

/* ---- retention ---- */

static void put_retention(struct aws_req *q, const struct val *in)
{
    static const int allowed[] = {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653};
    struct arena *a = q->req->arena;
    const char *name = logs_group_name(q, in);
    int64_t days = val_int_at(in, "retentionInDays", 0);
    struct val *patch = val_map(a);

    if (!name || !need_group(q, name))
        return;
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (allowed[i] == days) {
            val_put_int(a, val_need_map(a, patch, "spec"), "retentionDays", days);
            change(q, name, patch);
            return;
        }
    not_valid(q, "retentionInDays", arena_printf(a, "%lld", (long long)days),
              "satisfy enum value set: [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]");
}

static void delete_retention(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *name = logs_group_name(q, in);
    struct val *patch = val_map(a);

    if (!name || !need_group(q, name))
        return;
    val_put(a, val_need_map(a, patch, "spec"), "retentionDays", val_null(a));
    change(q, name, patch);
}

/* ---- tags ---- */

/* The group that resourceArn (or, of the old forms, logGroupName) names; NULL: answered. */
static const char *tagged(struct aws_req *q, const struct val *in)
{
    const char *arn = val_str_at(in, "resourceArn", NULL), *name;

    name = arn ? logs_group_of_arn(q, arn) : logs_group_name(q, in);
    return name && need_group(q, name) ? name : NULL;
}

struct tagging {
    const char *group;
    const struct val *in;
};

/* With those that are there already. A group without an object has none. */
static void on_tags_before(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct tagging *t = arg;
    struct arena *a = q->req->arena;
    struct val *patch = val_map(a);

    if (r->err && r->err->code != ERR_NOT_FOUND) {
        logs_fail(q, r->err);
        return;
    }
    if (!tags_fit(q, r->obj ? val_at(obj_val(r->obj), "spec.tags") : NULL, t->in))
        return;
    val_put(a, val_need_map(a, patch, "spec"), "tags", val_is(val_get(t->in, "tags"), VAL_MAP) ? val_get(t->in, "tags") : val_map(a));
    change(q, t->group, patch);
}

static void tag(struct aws_req *q, const struct val *in)
{
    struct tagging *t = arena_new_of(q->req->arena, struct tagging);
    char object_name[80];

    *t = (struct tagging){.group = tagged(q, in), .in = in};
    if (t->group)
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = LOG_GROUPS, .ns = LOGS_NS,
            .name = logs_object_name(t->group, object_name)}, on_tags_before, t);
}

static void untag(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const struct val *keys = val_get(in, "tagKeys") ? val_get(in, "tagKeys") : val_get(in, "tags");
    const char *name = tagged(q, in);
    struct val *patch = val_map(a), *tags = val_map(a);

    if (!name)
        return;
    VAL_EACH(keys, it)
    val_put(a, tags, val_text(it, ""), val_null(a));
    val_put(a, val_need_map(a, patch, "spec"), "tags", tags);
    change(q, name, patch);
}

static void on_tags(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct val *out = val_map(a);
    const struct val *tags = r->obj ? val_at(obj_val(r->obj), "spec.tags") : NULL;

    (void)arg;
    if (r->err && r->err->code != ERR_NOT_FOUND) {
        logs_fail(q, r->err);
        return;
    }
    val_put(a, out, "tags", tags ? tags : val_map(a));
    json_reply(q, out);
}

static void list_tags(struct aws_req *q, const struct val *in)
{
    const char *name = tagged(q, in);
    char object_name[80];

    if (name)
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = LOG_GROUPS, .ns = LOGS_NS,
            .name = logs_object_name(name, object_name)}, on_tags, NULL);
}

/* ---- streams ---- */

static void create_stream(struct aws_req *q, const struct val *in)
{
    const char *group = logs_group_name(q, in), *stream = group ? logs_stream_name(q, in) : NULL;
    struct err err;

    if (!stream)
        return;
    if (logs_stream_make(q->d->o.logs, LOGS_NS, group, stream, &err) < 0)
        logs_fail(q, &err);
    else
        json_reply(q, NULL);
}

static void delete_stream(struct aws_req *q, const struct val *in)
{
    const char *group = logs_group_name(q, in), *stream = group ? logs_stream_name(q, in) : NULL;
    struct err err;

    if (!stream)
        return;
    if (logs_stream_remove(q->d->o.logs, LOGS_NS, group, stream, &err) < 0)
        logs_fail(q, &err);
    else
        json_reply(q, NULL);
}

static int by_time(const void *a, const void *b)
{
    const struct log_stream_info *x = a, *y = b;

    return x->last_ms != y->last_ms ? (x->last_ms < y->last_ms ? -1 : 1) : strcmp(x->name, y->name);
}

static struct val *stream_val(struct aws_req *q, const char *group, const struct log_stream_info *s)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);

    val_put_str(a, v, "logStreamName", s->name);
    val_put_int(a, v, "creationTime", s->created_ms);
    if (s->ingested_ms) {
        val_put_int(a, v, "firstEventTimestamp", s->first_ms);
        val_put_int(a, v, "lastEventTimestamp", s->last_ms);
        val_put_int(a, v, "lastIngestionTime", s->ingested_ms);
    }
    val_put_str(a, v, "uploadSequenceToken", LOGS_SEQUENCE);
    val_put_str(a, v, "arn", arena_printf(a, "%s:log-stream:%s", group_arn(q, group), s->name));
    val_put_int(a, v, "storedBytes", 0); /* as the service says since 2019 */
    return v;
}

static void describe_streams(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *group = logs_group_name(q, in), *prefix = val_str_at(in, "logStreamNamePrefix", NULL);
    bool time = streq(val_str_at(in, "orderBy", "LogStreamName"), "LastEventTime"), down = val_bool_at(in, "descending", false);
    struct val *out = val_map(a), *list = val_list(a);
    struct log_stream_info *v;
    uint32_t limit, n = 0, from;

    if (!group || !logs_limit(q, in, 50, 50, &limit) || !need_group(q, group))
        return;
    if (time && prefix) {
        aws_error(q, 400, "InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.");
        return;
    }
    v = logs_streams(q->d->o.logs, a, LOGS_NS, group, prefix, &n);
    if (time)
        qsort(v, n, sizeof *v, by_time);
    from = (uint32_t)strtoul(val_str_at(in, "nextToken", "0"), NULL, 10);
    for (uint32_t i = from; i < n && i - from < limit; i++)
        val_push(a, list, stream_val(q, group, &v[down ? n - 1 - i : i]));
    val_put(a, out, "logStreams", list);
    if (n > from && n - from > limit)
        val_put_str(a, out, "nextToken", arena_printf(a, "%u", from + limit));
    json_reply(q, out);
}

/* ---- operations ---- */

static const struct {
    const char *name;
    void (*run)(struct aws_req *q, const struct val *in);
} OPERATIONS[] = {
    {"CreateLogGroup", create_group},
    {"CreateLogStream", create_stream},
    {"DeleteLogGroup", delete_group},
    {"DeleteLogStream", delete_stream},
    {"DeleteRetentionPolicy", delete_retention},
    {"DescribeLogGroups", describe_groups},
    {"DescribeLogStreams", describe_streams},
    {"DescribeQueries", logs_describe_queries},
    {"FilterLogEvents", logs_filter},
    {"GetLogEvents", logs_get},
    {"GetQueryResults", logs_query_results},
    {"ListLogGroups", list_groups_short},
    {"ListTagsForResource", list_tags},
    {"ListTagsLogGroup", list_tags},
    {"PutLogEvents", logs_put_events},
    {"PutRetentionPolicy", put_retention},
    {"StartQuery", logs_start_query},
    {"StopQuery", logs_stop_query},
    {"TagLogGroup", tag},
    {"TagResource", tag},
    {"TestMetricFilter", logs_test_filter},
    {"UntagLogGroup", untag},
    {"UntagResource", untag},
};

void logs_request(struct aws_req *q)
{
    const char *name = json_operation(q);
    const struct val *in;
    struct err err;

    for (size_t i = 0; name && i < ARRAY_LEN(OPERATIONS); i++) {
        if (!streq(OPERATIONS[i].name, name))
            continue;
        in = json_parse(q->req->arena, q->body_n ? q->body : "{}", q->body_n ? q->body_n : 2, &err);
        if (!val_is(in, VAL_MAP))
            aws_error(q, 400, "SerializationException", "the request's body is no JSON object");
        else
            OPERATIONS[i].run(q, in);
        return;
    }
    if (name)
        aws_error(q, 501, "NotImplementedException", "tandem does not serve the CloudWatch Logs operation %s", name);
    else
        aws_error(q, 400, "UnknownOperationException", "the request has no X-Amz-Target");
}
