/* door/aws/lambda/settings.c - what is set beside code and configuration: concurrency, events, tags, account. */
#include <time.h>

#include "door/aws/lambda/lambda_int.h"
#include "function/code.h"

enum { UNRESERVED_MIN = 100 }; /* what functions that reserve nothing always have together */

int64_t lambda_unreserved(struct op *op, const struct obj *but)
{
    struct objs all = mirror_list(op->q->d->o.mirror, op->q->req->arena, LAMBDA_NS);
    int64_t n = LAMBDA_CONCURRENCY;

    for (uint32_t i = 0; i < all.n; i++)
        if (!but || !streq(all.v[i]->name, but->name))
            n -= val_int_at(obj_val(all.v[i]), "spec.reservedConcurrency", 0);
    return MAX(n, (int64_t)0);
}

static void reply_concurrency(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *n = val_at(obj_val(o), "spec.reservedConcurrency");
    struct val *v = val_map(a);

    if (!val_is_null(n))
        val_put(a, v, "ReservedConcurrentExecutions", n);
    lambda_reply(op->q, 200, v);
}
void op_put_concurrency(struct op *op)
{
    struct arena *a = op->q->req->arena;
    int64_t n = val_int_at(op->in, "ReservedConcurrentExecutions", 0), provisioned = 0;

    const struct obj *o = lambda_need(op);

    if (!o)
        return;
    if (n > lambda_unreserved(op, o) - UNRESERVED_MIN) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Specified ReservedConcurrentExecutions for function decreases account's "
                     "UnreservedConcurrentExecution below its minimum value of [%d].", UNRESERVED_MIN);
        return;
    }
    VAL_EACH(val_at(obj_val(o), "spec.provisioned"), it)
        provisioned += val_int_at(it, "instances", 0);
    if (provisioned > n) {
        lambda_error(op->q, 400, "InvalidParameterValueException", " ReservedConcurrentExecutions  %lld should not be lower than function's total "
                     "provisioned concurrency [%lld].", (long long)n, (long long)provisioned);
        return;
    }
    op->patch = val_map(a);
    val_put_int(a, val_need_map(a, op->patch, "spec"), "reservedConcurrency", n);
    lambda_patch(op, NULL, reply_concurrency);
}
void op_get_concurrency(struct op *op)
{
    const struct obj *o = lambda_need(op);

    if (o)
        reply_concurrency(op, o);
}
void op_delete_concurrency(struct op *op)
{
    if (lambda_need(op))
        lambda_clear(op, "reservedConcurrency");
}

/* ---- events: retries, age, destinations; per qualifier ---- */

static const char *events_qualifier(struct op *op)
{
    return op->n.qualifier ? op->n.qualifier : "$LATEST";
}

static const struct val *find_events(const struct obj *head, const char *qualifier)
{
    VAL_EACH(val_at(obj_val(head), "spec.events"), it)
        if (streq(val_str_at(it, "qualifier", ""), qualifier))
            return it;
    return NULL;
}

static const char *const SIDES[][2] = {{"OnSuccess", "onSuccess"}, {"OnFailure", "onFailure"}};

static struct val *events_shown(struct op *op, const struct val *e)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a), *to = val_map(a);

    val_put(a, v, "FunctionArn", val_printf(a, "%s:%s", lambda_arn(op->q, op->n.name), val_str_at(e, "qualifier", "")));
    val_put_int(a, v, "LastModified", strtoll(val_str_at(e, "lastModified", "0"), NULL, 10));
    if (!val_is_null(val_get(e, "retries")))
        val_put(a, v, "MaximumRetryAttempts", val_get(e, "retries"));
    if (!val_is_null(val_get(e, "maximumEventAgeSeconds")))
        val_put(a, v, "MaximumEventAgeInSeconds", val_get(e, "maximumEventAgeSeconds"));
    for (size_t i = 0; i < ARRAY_LEN(SIDES); i++) {
        struct val *side = val_map(a);

        if (val_str_at(val_get(e, SIDES[i][1]), "arn", NULL))
            val_put_str(a, side, "Destination", val_str_at(val_get(e, SIDES[i][1]), "arn", ""));
        val_put(a, to, SIDES[i][0], side);
    }
    val_put(a, v, "DestinationConfig", to);
    return v;
}

static void reply_events(struct op *op, const struct obj *head)
{
    const struct val *e = find_events(head, events_qualifier(op));

    if (e)
        lambda_reply(op->q, 200, events_shown(op, e));
    else
        lambda_reply(op->q, 204, NULL);
}

static void no_events(struct op *op)
{
    lambda_error(op->q, 404, "ResourceNotFoundException", "The function %s:%s doesn't have an EventInvokeConfig",
                 lambda_arn(op->q, op->n.name), events_qualifier(op));
}

/* The function, with that version or alias; NULL: there is none. */
static const struct obj *events_head(struct op *op)
{
    const struct obj *o = functions_get(op->q->d->o.functions, LAMBDA_NS, op->n.object);

    if (!o || obj_deleting(o) || !streq(lambda_name_of(o), op->n.name))
        return NULL;
    if (!op->n.qualifier || streq(op->n.qualifier, "$LATEST") || lambda_alias(o, op->n.qualifier))
        return o;
    return functions_get(op->q->d->o.functions, LAMBDA_NS, arena_printf(op->q->req->arena, "%s:%s", op->n.object, op->n.qualifier)) ? o : NULL;
}

static void no_function(struct op *op)
{
    lambda_error(op->q, 404, "ResourceNotFoundException", "The function doesn't exist.");
}

/* A function that an event goes on to has to be there, and is another one. false: answered. */
static bool can_go_to(struct op *op, const struct val *to, const char *arn)
{
    const char *object = val_str_at(to, "function", NULL);

    if (!object)
        return true;
    if (streq(object, op->n.object)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "You can't specify the function as a destination for itself.");
        return false;
    }
    if (functions_get(op->q->d->o.functions, LAMBDA_NS, object))
        return true;
    lambda_error(op->q, 400, "InvalidParameterValueException", "The destination ARN %.200s is invalid.", arn);
    return false;
}

/* What else an ARN names: a service that Lambda delivers to and tandem does not yet, or nothing that can be a destination. */
static void no_destination(struct op *op, const char *arn)
{
    static const char *const SERVICES[] = {":sqs:", ":sns:", ":events:", ":lambda:", ":s3:"};
    const char *side[2];

    for (size_t i = 0; i < ARRAY_LEN(SERVICES); i++)
        if (strstr(arn, SERVICES[i])) {
            lambda_error(op->q, 501, "NotImplementedException", "tandem delivers to functions and buckets, not yet to %.200s", arn);
            return;
        }
    for (size_t i = 0; i < 2; i++) {
        const char *to = val_str_at(val_get(val_get(op->in, "DestinationConfig"), SIDES[i][0]), "Destination", NULL);

        side[i] = to ? arena_printf(op->q->req->arena, "%s(destination=%.300s)", SIDES[i][0], to) : "null";
    }
    lambda_error(op->q, 400, "InvalidParameterValueException", "The provided destination config DestinationConfig(onSuccess=%s, onFailure=%s) is "
                 "invalid.", side[0], side[1]);
}

/* DestinationConfig of the request into e; answers errors. */
static int read_destinations(struct op *op, struct val *e)
{
    struct arena *a = op->q->req->arena;

    for (size_t i = 0; i < ARRAY_LEN(SIDES); i++) {
        const struct val *side = val_get(val_get(op->in, "DestinationConfig"), SIDES[i][0]);
        const char *arn = val_str_at(side, "Destination", NULL);
        struct val *to = str_empty(arn) ? NULL : lambda_destination(op->q, arn);

        if (val_is_null(side))
            continue;
        if (!to && !str_empty(arn)) {
            no_destination(op, arn);
            return -1;
        }
        if (to && !can_go_to(op, to, arn))
            return -1;
        if (to && val_get(to, "bucket") && i == 0) {
            lambda_error(op->q, 400, "InvalidParameterValueException",
                         "The destination ARN %.200s is invalid: a bucket takes the records of failed events only", arn);
            return -1;
        }
        val_del(e, SIDES[i][1]);
        if (to)
            val_put(a, e, SIDES[i][1], to);
    }
    return 0;
}

static struct val *events_without(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    struct val *list = val_list(a);

    VAL_EACH(val_at(obj_val(head), "spec.events"), it)
        if (!streq(val_str_at(it, "qualifier", ""), events_qualifier(op)))
            val_push(a, list, it);
    return list;
}

/* PUT replaces what was set, POST changes what it names. */
void op_put_event_conf(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct val *tries = val_get(op->in, "MaximumRetryAttempts"), *age = val_get(op->in, "MaximumEventAgeInSeconds"), *was;
    bool change = streq(op->q->req->method, "POST");
    const struct obj *head = events_head(op);
    struct val *list, *e;

    if (val_is_null(tries) && val_is_null(age) && val_is_null(val_get(op->in, "DestinationConfig"))) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "You must specify at least one of error handling or destination setting.");
        return;
    }
    if (!head) {
        no_function(op);
        return;
    }
    was = find_events(head, events_qualifier(op));
    if (change && !was) {
        no_events(op);
        return;
    }
    e = change ? val_copy(a, was) : val_map(a);
    val_put_str(a, e, "qualifier", events_qualifier(op));
    val_put(a, e, "lastModified", val_printf(a, "%lld", (long long)time(NULL)));
    if (!val_is_null(tries))
        val_put(a, e, "retries", tries);
    if (!val_is_null(age))
        val_put(a, e, "maximumEventAgeSeconds", age);
    if (read_destinations(op, e) < 0)
        return;
    list = events_without(op, head);
    val_push(a, list, e);
    lambda_put_list(op, head, "events", list, reply_events);
}

static void list_event_confs(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = events_head(op);
    struct lambda_page page;
    struct val *v, *list;

    if (!head) {
        no_function(op);
        return;
    }
    if (lambda_page_read(op, &page) < 0)
        return;
    v = val_map(a);
    list = val_list(a);
    VAL_EACH(val_at(obj_val(head), "spec.events"), it)
        if (lambda_page_takes(op, &page, v))
            val_push(a, list, events_shown(op, it));
    val_put(a, v, "FunctionEventInvokeConfigs", list);
    lambda_reply(op->q, 200, v);
}

void op_get_event_conf(struct op *op)
{
    const struct obj *head = events_head(op);

    if (op->path_n > 1 && streq(op->path[1], "list"))
        list_event_confs(op);
    else if (head && find_events(head, events_qualifier(op)))
        reply_events(op, head);
    else
        no_events(op);
}

void op_delete_event_conf(struct op *op)
{
    const struct obj *head = events_head(op);

    if (!head || !find_events(head, events_qualifier(op)))
        no_events(op);
    else
        lambda_put_list(op, head, "events", events_without(op, head), reply_events);
}

/* ---- updates of the runtime, per version; recursion ---- */

static const struct val *find_updates(const struct obj *head, const char *qualifier)
{
    VAL_EACH(val_at(obj_val(head), "spec.runtimeUpdates"), it)
        if (streq(val_str_at(it, "qualifier", ""), qualifier))
            return it;
    return NULL;
}

/* $LATEST or a version's number: aliases have none. NULL: answered. */
static const char *updates_qualifier(struct op *op, struct lambda_qualified *w)
{
    if (lambda_qualified(op, w) < 0)
        return NULL;
    if (!w->alias)
        return events_qualifier(op);
    lambda_error(op->q, 400, "InvalidParameterValueException", "Runtime management is of a version or $LATEST, not of the alias %s", op->n.qualifier);
    return NULL;
}

static void reply_updates(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    const struct val *u = find_updates(head, events_qualifier(op));
    struct val *v = val_map(a);

    val_put_str(a, v, "UpdateRuntimeOn", val_str_at(u, "updateOn", "Auto"));
    val_put(a, v, "FunctionArn", val_printf(a, "%s:%s", lambda_arn(op->q, op->n.name), events_qualifier(op)));
    lambda_reply(op->q, 200, v);
}

void op_get_runtime_updates(struct op *op)
{
    struct lambda_qualified w;

    if (updates_qualifier(op, &w))
        reply_updates(op, w.head);
}

void op_put_runtime_updates(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const char *on = val_str_at(op->in, "UpdateRuntimeOn", ""), *version = val_str_at(op->in, "RuntimeVersionArn", NULL), *qualifier;
    struct lambda_qualified w;
    struct val *list, *u;

    qualifier = updates_qualifier(op, &w);
    if (!qualifier)
        return;
    if (streq(on, "Manual") != (version != NULL)) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     version ? "RuntimeVersionArn can only be provided when UpdateRuntimeOn is Manual."
                             : "RuntimeVersionArn must be provided when UpdateRuntimeOn is Manual.");
        return;
    }
    if (version) { /* runtimes are what this machine has: there is no older one to stay with */
        lambda_error(op->q, 501, "NotImplementedException", "tandem keeps no versions of runtimes: a function can not stay with %.200s", version);
        return;
    }
    list = val_list(a);
    VAL_EACH(val_at(obj_val(w.head), "spec.runtimeUpdates"), it)
        if (!streq(val_str_at(it, "qualifier", ""), qualifier))
            val_push(a, list, it);
    u = val_map(a);
    val_put_str(a, u, "qualifier", qualifier);
    val_put_str(a, u, "updateOn", on);
    val_push(a, list, u);
    lambda_put_list(op, w.head, "runtimeUpdates", list, reply_updates);
}

static void reply_recursion(struct op *op, const struct obj *head)
{
    struct val *v = val_map(op->q->req->arena);

    val_put_str(op->q->req->arena, v, "RecursiveLoop", val_str_at(obj_val(head), "spec.recursiveLoop", "Terminate"));
    lambda_reply(op->q, 200, v);
}

void op_get_recursion(struct op *op)
{
    const struct obj *head = lambda_need(op);

    if (head)
        reply_recursion(op, head);
}

void op_put_recursion(struct op *op)
{
    struct arena *a = op->q->req->arena;

    if (!lambda_need(op))
        return;
    op->patch = val_map(a);
    val_put_str(a, val_need_map(a, op->patch, "spec"), "recursiveLoop", val_str_at(op->in, "RecursiveLoop", ""));
    lambda_patch(op, NULL, reply_recursion);
}

/* ---- tags ---- */

/* The function that tags are of; NULL: answered, here or by those of something else. */
static const struct obj *need_tagged(struct op *op)
{
    if (op->n.qualifier) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Tags on function aliases and versions are not supported. Please specify a "
                     "function ARN.");
        return NULL;
    }
    if (op->n.name)
        return lambda_need(op);
    if (!lambda_signing_tags(op))
        lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist. (%.300s)", op->raw_name);
    return NULL;
}

void op_list_tags(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need_tagged(op);
    struct val *v;

    if (!o)
        return;
    v = val_map(a);
    if (val_at(obj_val(o), "spec.tags"))
        val_put(a, v, "Tags", val_at(obj_val(o), "spec.tags"));
    else
        val_need_map(a, v, "Tags");
    lambda_reply(op->q, 200, v);
}
void op_tag(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *o = need_tagged(op);
    const char *wrong;
    bool many;

    if (!o)
        return;
    if (!val_len(val_get(op->in, "Tags"))) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "An error occurred and the request cannot be processed.");
        return;
    }
    wrong = aws_tags_wrong(op->q, val_at(obj_val(o), "spec.tags"), val_get(op->in, "Tags"), &many);
    if (wrong) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "%s", many ? "Number of tags exceeds resource tag limit." : wrong);
        return;
    }
    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "spec"), "tags", val_get(op->in, "Tags"));
    lambda_patch(op, NULL, lambda_reply_none);
}
void op_untag(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const char *name, *value;
    struct val *tags;

    if (!need_tagged(op))
        return;
    op->patch = val_map(a);
    tags = val_need_map(a, val_need_map(a, op->patch, "spec"), "tags");
    for (size_t i = 0; http_param_next(op->q->req, &i, &name, &value);)
        if (streq(name, "tagKeys"))
            val_put(a, tags, value, val_null(a));
    lambda_patch(op, NULL, lambda_reply_none);
}
