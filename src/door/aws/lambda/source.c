/* door/aws/lambda/source.c - event source mappings. tandem has none of the queues and streams that a mapping reads, so
 * none can be made: what asks for one is told so, and what lists them finds none. */
#include "door/aws/lambda/lambda_int.h"

void op_create_source(struct op *op)
{
    /* services that Lambda reads, by their name in an ARN */
    static const struct { const char *service, *name; bool starts; } KNOWN[] = {
        {"sqs", "SQS queues", false}, {"kinesis", "Kinesis streams", true}, {"dynamodb", "DynamoDB streams", true},
        {"kafka", "Kafka clusters", true}, {"mq", "message brokers", false}, {"rds", "DocumentDB change streams", true}};
    const char *arn = val_str_at(op->in, "EventSourceArn", NULL), *start = val_str_at(op->in, "StartingPosition", NULL), *service = "", *name = NULL;
    struct arena *a = op->q->req->arena;
    struct lambda_qualified w;
    struct err err;
    bool starts = false;

    if (lambda_name_parse(op->q, val_str_at(op->in, "FunctionName", ""), &op->n, &err) < 0) {
        lambda_name_refused(op->q, &err);
        return;
    }
    if (!arn && !val_len(val_at(op->in, "SelfManagedEventSource.Endpoints"))) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Unrecognized event source.");
        return;
    }
    if (arn && str_starts(arn, "arn:") && strchr(arn + 4, ':')) { /* arn:PARTITION:SERVICE:... */
        service = strchr(arn + 4, ':') + 1;
        service = arena_strndup(a, service, strcspn(service, ":"));
    }
    for (size_t i = 0; i < ARRAY_LEN(KNOWN); i++)
        if (arn ? streq(service, KNOWN[i].service) : streq(KNOWN[i].service, "kafka")) {
            name = KNOWN[i].name;
            starts = KNOWN[i].starts;
        }
    if (!name) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Unrecognized event source.");
        return;
    }
    if (starts && !start) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.");
        return;
    }
    if (start && streq(start, "AT_TIMESTAMP") && val_is_null(val_get(op->in, "StartingPositionTimestamp"))) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Starting position timestamp must be specified with AT_TIMESTAMP.");
        return;
    }
    if (!functions_get(op->q->d->o.functions, LAMBDA_NS, op->n.object)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Function does not exist");
        return;
    }
    if (lambda_qualified(op, &w) < 0)
        return;
    if (streq(service, "sqs"))
        lambda_error(op->q, 400, "InvalidParameterValueException", "Error occurred while ReceiveMessage. SQS Error Code: "
                     "AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist. (tandem has no %s)", name);
    else if (streq(service, "kinesis") || streq(service, "dynamodb"))
        lambda_error(op->q, 400, "InvalidParameterValueException", "Stream not found: %.300s (tandem has no %s)", arn, name);
    else
        lambda_error(op->q, 501, "NotImplementedException", "tandem has no %s for a function to read events from", name);
}

/* Get, Update and Delete. */
void op_no_source(struct op *op)
{
    lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist.");
}

void op_list_sources(struct op *op)
{
    const char *function = http_param(op->q->req, "FunctionName");
    struct lambda_page page;
    struct err err;
    struct val *v;

    if (function && lambda_name_parse(op->q, function, &op->n, &err) < 0) {
        lambda_name_refused(op->q, &err);
        return;
    }
    if (lambda_page_read(op, &page) < 0)
        return;
    v = val_map(op->q->req->arena);
    val_need_list(op->q->req->arena, v, "EventSourceMappings");
    lambda_reply(op->q, 200, v);
}
