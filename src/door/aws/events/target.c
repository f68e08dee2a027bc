/* door/aws/events/target.c - targets of rules and schedules, and names. */
#include "base/map.h"

#include "codec/kubetime.h"
#include "door/aws/events/events_int.h"
#include "door/aws/lambda/lambda_int.h"

bool event_name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= 64 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

const char *event_object_name(struct arena *a, const char *name)
{
    return strchr(name, '.') || strchr(name, '/') ? arena_printf(a, "%s-%s", lambda_object_name(a, arena_printf(a, "%.*s", (int)strcspn(name, "./"), name)),
                                              aws_name_hash(a, name))
                                : lambda_object_name(a, name);
}

double event_time(const struct val *v, const char *annotation)
{
    const char *text = annotation ? val_str_at(val_at(v, "metadata.annotations"), annotation, NULL) : NULL;
    int64_t ms = kubetime_parse(text ? text : val_str_at(v, "metadata.creationTimestamp", ""));

    return ms > 0 ? (double)ms / 1000 : 0;
}

static const char *const SAME[][2] = {{"Id", "id"}, {"Arn", "arn"}, {"RoleArn", "role"}, {"Input", "input"}, {"InputPath", "inputPath"}};

struct val *event_target_read(struct aws_req *q, const struct val *in, struct err *err)
{
    struct arena *a = q->req->arena;
    const char *arn = val_str_at(in, "Arn", "");
    const struct val *retry = val_get(in, "RetryPolicy"), *transform = val_get(in, "InputTransformer");
    struct val *v = val_map(a), *to = lambda_destination(q, arn);

    if (!to || !val_get(to, "function")) {
        err_set(err, INVALID_ARGUMENT, "tandem calls Lambda functions from rules and schedules, not %s", *arn ? arn : "a target without an Arn");
        return NULL;
    }
    if (val_get(in, "DeadLetterConfig") && val_str_at(in, "DeadLetterConfig.Arn", NULL)) {
        err_set(err, INVALID_ARGUMENT, "tandem has no queues yet that could be a dead-letter queue: %s", val_str_at(in, "DeadLetterConfig.Arn", ""));
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(SAME); i++)
        if (val_str_at(in, SAME[i][0], NULL))
            val_put_str(a, v, SAME[i][1], val_str_at(in, SAME[i][0], ""));
    val_put(a, v, "function", val_get(to, "function"));
    if (val_get(to, "qualifier"))
        val_put(a, v, "qualifier", val_get(to, "qualifier"));
    if (val_get(retry, "MaximumRetryAttempts"))
        val_put(a, v, "retries", val_get(retry, "MaximumRetryAttempts"));
    if (val_get(retry, "MaximumEventAgeInSeconds"))
        val_put(a, v, "maximumEventAgeSeconds", val_get(retry, "MaximumEventAgeInSeconds"));
    if (transform) {
        val_put_str(a, v, "inputTemplate", val_str_at(transform, "InputTemplate", ""));
        if (val_get(transform, "InputPathsMap"))
            val_put(a, v, "inputPaths", val_get(transform, "InputPathsMap"));
    }
    return v;
}

struct val *event_target_shown(struct aws_req *q, const struct val *target)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);

    for (size_t i = 0; i < ARRAY_LEN(SAME); i++)
        if (!str_empty(val_str_at(target, SAME[i][1], NULL)))
            val_put_str(a, v, SAME[i][0], val_str_at(target, SAME[i][1], ""));
    if (!val_get(v, "Arn")) { /* made by somebody who named the function alone */
        const char *arn = lambda_arn(q, val_str_at(target, "function", "")), *qualifier = val_str_at(target, "qualifier", NULL);

        val_put_str(a, v, "Arn", qualifier ? arena_printf(a, "%s:%s", arn, qualifier) : arn);
    }
    if (!str_empty(val_str_at(target, "inputTemplate", NULL))) {
        struct val *t = val_need_map(a, v, "InputTransformer");

        val_put_str(a, t, "InputTemplate", val_str_at(target, "inputTemplate", ""));
        if (val_get(target, "inputPaths"))
            val_put(a, t, "InputPathsMap", val_get(target, "inputPaths"));
    }
    if (val_get(target, "retries") || val_get(target, "maximumEventAgeSeconds")) {
        struct val *r = val_need_map(a, v, "RetryPolicy");

        if (val_get(target, "retries"))
            val_put(a, r, "MaximumRetryAttempts", val_get(target, "retries"));
        if (val_get(target, "maximumEventAgeSeconds"))
            val_put(a, r, "MaximumEventAgeInSeconds", val_get(target, "maximumEventAgeSeconds"));
    }
    return v;
}
