/* door/aws/cloudformation/type_more.c - buckets, log groups, parameters, rules, schedules, queues, and what needs no work.
 * A service that the door does not serve yet answers so itself, and that is the reason why the resource fails. */
#include "door/aws/cloudformation/cfn_int.h"

#include <stdlib.h>

static const char *prop(const struct cfn_work *w, const char *name)
{
    return val_str_at(w->props, name, NULL);
}

static void push(struct cfn_work *w, struct cfn_call c, const char *fine, void (*got)(struct cfn_work *, const struct cfn_answer *))
{
    c.fine = fine;
    c.got = got;
    cfn_push(w, &c);
}

static void put_text(struct cfn_work *w, struct val *v, const char *name)
{
    const char *text = cfn_scalar(w->a, val_get(w->props, name));

    if (text)
        val_put_str(w->a, v, name, text);
}

/* ---- S3 ---- */

/* NotificationConfiguration of the template as the API's XML; NULL: there is none. */
static const char *notification_xml(struct cfn_work *w, const struct val *conf)
{
    struct buf b = {0};
    const char *text;

    buf_adds(&b, "<NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    VAL_EACH(val_get(conf, "LambdaConfigurations"), l)
    {
        buf_adds(&b, "<CloudFunctionConfiguration>");
        xml_element(&b, "CloudFunction", val_str_at(l, "Function", ""));
        xml_element(&b, "Event", val_str_at(l, "Event", ""));
        if (val_at(l, "Filter.S3Key.Rules")) {
            buf_adds(&b, "<Filter><S3Key>");
            VAL_EACH(val_at(l, "Filter.S3Key.Rules"), r)
            {
                buf_adds(&b, "<FilterRule>");
                xml_element(&b, "Name", val_str_at(r, "Name", ""));
                xml_element(&b, "Value", val_str_at(r, "Value", ""));
                buf_adds(&b, "</FilterRule>");
            }
            buf_adds(&b, "</S3Key></Filter>");
        }
        buf_adds(&b, "</CloudFunctionConfiguration>");
    }
    if (val_get(conf, "QueueConfigurations"))
        buf_adds(&b, "<QueueConfiguration/>");
    if (val_get(conf, "TopicConfigurations"))
        buf_adds(&b, "<TopicConfiguration/>");
    if (val_get(conf, "EventBridgeConfiguration"))
        buf_adds(&b, "<EventBridgeConfiguration/>");
    buf_adds(&b, "</NotificationConfiguration>");
    text = arena_strndup(w->a, b.p, b.n);
    buf_done(&b);
    return text;
}

static void bucket_tags(struct cfn_work *w, const char *bucket)
{
    struct buf b = {0};

    if (!val_len(val_get(w->props, "Tags")) && !val_get(w->was, "Tags"))
        return;
    buf_adds(&b, "<Tagging><TagSet>");
    VAL_EACH(val_get(w->props, "Tags"), t)
    {
        const char *value = cfn_scalar(w->a, val_get(t, "Value"));

        buf_adds(&b, "<Tag>");
        xml_element(&b, "Key", val_str_at(t, "Key", ""));
        xml_element(&b, "Value", value ? value : "");
        buf_adds(&b, "</Tag>");
    }
    buf_adds(&b, "</TagSet></Tagging>");
    push(w, cfn_s3(w, "PUT", arena_strndup(w->a, b.p, b.n), "/%s?tagging=", bucket), NULL, NULL);
    buf_done(&b);
}

static void bucket_settings(struct cfn_work *w)
{
    const struct val *notify = val_get(w->props, "NotificationConfiguration");
    const char *d = w->phys;

    if (notify || val_get(w->was, "NotificationConfiguration"))
        push(w, cfn_s3(w, "PUT", notification_xml(w, notify), "/%s?notification=", d), NULL, NULL);
    bucket_tags(w, d);
    cfn_attr(w, "Arn", arena_printf(w->a, "arn:aws:s3:::%s", d));
    cfn_attr(w, "DomainName", arena_printf(w->a, "%s.s3.amazonaws.com", d));
    cfn_attr(w, "RegionalDomainName", arena_printf(w->a, "%s.s3.%s.amazonaws.com", d, w->s->c->d->region));
    cfn_attr(w, "DualStackDomainName", arena_printf(w->a, "%s.s3.dualstack.%s.amazonaws.com", d, w->s->c->d->region));
    cfn_attr(w, "WebsiteURL", arena_printf(w->a, "http://%s.s3-website-%s.amazonaws.com", d, w->s->c->d->region));
}

static void got_bucket(struct cfn_work *w, const struct cfn_answer *ans)
{
    (void)ans;
    cfn_phys(w, w->phys);
}
static void bucket_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "BucketName", 63, true);

    w->phys = name;
    push(w, cfn_s3(w, "PUT", NULL, "/%s", name),
         !prop(w, "BucketName") || (w->resumed && w->r->made) ? "BucketAlreadyOwnedByYou" : NULL, got_bucket);
    bucket_settings(w);
}
static void bucket_drop(struct cfn_work *w)
{
    push(w, cfn_s3(w, "DELETE", NULL, "/%s", w->phys), "NoSuchBucket", NULL);
}

static void bucket_policy_put(struct cfn_work *w)
{
    const struct val *doc = val_get(w->props, "PolicyDocument");

    w->phys = prop(w, "Bucket") ? prop(w, "Bucket") : "";
    push(w, cfn_s3(w, "PUT", val_is(doc, VAL_STR) ? doc->s : doc ? json_text(w->a, doc, NULL) : "{}", "/%s?policy=", w->phys), "NotImplemented",
         NULL);
}
static void bucket_policy_drop(struct cfn_work *w)
{
    push(w, cfn_s3(w, "DELETE", NULL, "/%s?policy=", w->phys), "NoSuchBucket NoSuchBucketPolicy NotImplemented", NULL);
}

/* ---- CloudWatch Logs ---- */

static void group_retention(struct cfn_work *w, const char *name)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "logGroupName", name);
    if (val_get(w->props, "RetentionInDays")) {
        const char *days = cfn_scalar(w->a, val_get(w->props, "RetentionInDays"));

        val_put_int(w->a, v, "retentionInDays", days ? strtoll(days, NULL, 10) : 0);
        push(w, cfn_json(w, "logs", "Logs_20140328.PutRetentionPolicy", v), NULL, NULL);
    } else if (val_get(w->was, "RetentionInDays")) {
        push(w, cfn_json(w, "logs", "Logs_20140328.DeleteRetentionPolicy", v), NULL, NULL);
    }
    cfn_attr(w, "Arn", arena_printf(w->a, "arn:aws:logs:%s:%s:log-group:%s:*", w->s->c->d->region, w->s->c->d->account, name));
}
static void group_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "LogGroupName", 512, false);
    struct val *v = val_map(w->a);

    w->phys = name;
    val_put_str(w->a, v, "logGroupName", name);
    VAL_EACH(val_get(w->props, "Tags"), t)
        val_put_str(w->a, val_need_map(w->a, v, "tags"), val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
    push(w, cfn_json(w, "logs", "Logs_20140328.CreateLogGroup", v), !prop(w, "LogGroupName") || (w->resumed && w->r->made) ? "ResourceAlreadyExistsException" : NULL, got_bucket);
    group_retention(w, name);
}
static void group_update(struct cfn_work *w)
{
    group_retention(w, w->phys);
}
static void group_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "logGroupName", w->phys);
    push(w, cfn_json(w, "logs", "Logs_20140328.DeleteLogGroup", v), "ResourceNotFoundException", NULL);
}

static void stream_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "LogStreamName", 512, false);
    struct val *v = val_map(w->a);

    w->phys = name;
    val_put_str(w->a, v, "logGroupName", prop(w, "LogGroupName") ? prop(w, "LogGroupName") : "");
    val_put_str(w->a, v, "logStreamName", name);
    push(w, cfn_json(w, "logs", "Logs_20140328.CreateLogStream", v),
         !prop(w, "LogStreamName") || (w->resumed && w->r->made) ? "ResourceAlreadyExistsException" : NULL, got_bucket);
}
static void stream_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "logGroupName", prop(w, "LogGroupName") ? prop(w, "LogGroupName") : "");
    val_put_str(w->a, v, "logStreamName", w->phys);
    push(w, cfn_json(w, "logs", "Logs_20140328.DeleteLogStream", v), "ResourceNotFoundException", NULL);
}

/* ---- SSM ---- */

static void parameter_put(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Type", "Value", "Description", "AllowedPattern", "Tier", "DataType", "Policies"};
    const char *name = cfn_name(w, "Name", 1000, false);
    struct val *v = val_map(w->a);

    w->phys = name;
    val_put_str(w->a, v, "Name", name);
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        put_text(w, v, NAMES[i]);
    val_put_bool(w->a, v, "Overwrite", w->action == CFN_UPDATE || !prop(w, "Name") || (w->resumed && w->r->made));
    push(w, cfn_json(w, "ssm", "AmazonSSM.PutParameter", v), NULL, got_bucket);
    cfn_attr(w, "Type", prop(w, "Type"));
    cfn_attr(w, "Value", cfn_scalar(w->a, val_get(w->props, "Value")));
}
static void parameter_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "Name", w->phys);
    push(w, cfn_json(w, "ssm", "AmazonSSM.DeleteParameter", v), "ParameterNotFound", NULL);
}

/* ---- EventBridge ---- */

static void got_rule(struct cfn_work *w, const struct cfn_answer *ans)
{
    cfn_phys(w, w->phys);
    cfn_attr(w, "Arn", val_str_at(ans->v, "RuleArn", NULL));
}
static const char *rule_name(struct cfn_work *w)
{
    const char *bar = w->phys ? strchr(w->phys, '|') : NULL;

    return bar ? bar + 1 : w->phys;
}
static void remove_targets(struct cfn_work *w, const struct val *had, const struct val *has)
{
    struct val *v = val_map(w->a), *ids = val_need_list(w->a, v, "Ids");

    VAL_EACH(had, t)
    {
        bool stays = false;

        VAL_EACH(has, o)
            stays |= streq(val_str_at(o, "Id", ""), val_str_at(t, "Id", ""));
        if (!stays)
            val_push_str(w->a, val_get(v, "Ids"), val_str_at(t, "Id", ""));
    }
    ids = val_get(v, "Ids");
    if (!val_len(ids))
        return;
    val_put_str(w->a, v, "Rule", rule_name(w));
    put_text(w, v, "EventBusName");
    push(w, cfn_json(w, "events", "AWSEvents.RemoveTargets", v), "ResourceNotFoundException", NULL);
}
static void rule_put(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Description", "EventBusName", "ScheduleExpression", "State", "RoleArn"};
    const char *bus = prop(w, "EventBusName"), *name = w->action == CFN_UPDATE ? rule_name(w) : cfn_name(w, "Name", 64, false);
    const struct val *pattern = val_get(w->props, "EventPattern");
    struct val *v = val_map(w->a);

    w->phys = bus && !streq(bus, "default") ? arena_printf(w->a, "%s|%s", bus, name) : name;
    val_put_str(w->a, v, "Name", name);
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        put_text(w, v, NAMES[i]);
    if (pattern)
        val_put_str(w->a, v, "EventPattern", val_is(pattern, VAL_STR) ? pattern->s : json_text(w->a, pattern, NULL));
    push(w, cfn_json(w, "events", "AWSEvents.PutRule", v), NULL, got_rule);
    remove_targets(w, val_get(w->was, "Targets"), val_get(w->props, "Targets"));
    if (val_len(val_get(w->props, "Targets"))) {
        v = val_map(w->a);
        val_put_str(w->a, v, "Rule", name);
        put_text(w, v, "EventBusName");
        val_put(w->a, v, "Targets", val_get(w->props, "Targets"));
        push(w, cfn_json(w, "events", "AWSEvents.PutTargets", v), NULL, NULL);
    }
}
static void rule_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    remove_targets(w, val_get(w->props, "Targets"), NULL);
    val_put_str(w->a, v, "Name", rule_name(w));
    put_text(w, v, "EventBusName");
    push(w, cfn_json(w, "events", "AWSEvents.DeleteRule", v), "ResourceNotFoundException", NULL);
}

/* ---- Scheduler ---- */

static void got_schedule(struct cfn_work *w, const struct cfn_answer *ans)
{
    cfn_phys(w, w->phys);
    cfn_attr(w, "Arn", val_str_at(ans->v, "ScheduleArn", NULL));
}
static struct cfn_call schedule_call(struct cfn_work *w, const char *method, const struct val *v, const char *path)
{
    struct cfn_call c = cfn_rest(w, method, v, "%s", path);

    c.service = "scheduler";
    return c;
}
static void schedule_put(struct cfn_work *w)
{
    const char *name = w->action == CFN_UPDATE ? w->phys : cfn_name(w, "Name", 64, false);
    struct val *v = val_copy(w->a, w->props);

    w->phys = name;
    val_del(v, "Name");
    push(w, schedule_call(w, w->action == CFN_UPDATE ? "PUT" : "POST", v, arena_printf(w->a, "/schedules/%s", http_escape(w->a, name, NULL))),
         NULL, got_schedule);
}
static void schedule_drop(struct cfn_work *w)
{
    const char *group = prop(w, "GroupName");

    push(w, schedule_call(w, "DELETE", NULL, arena_printf(w->a, "/schedules/%s%s%s", http_escape(w->a, w->phys, NULL), group ? "?groupName=" : "",
                                                          group ? group : "")), "ResourceNotFoundException", NULL);
}
static void schedule_group(struct cfn_work *w)
{
    w->phys = cfn_name(w, "Name", 64, false);
    push(w, schedule_call(w, "POST", val_map(w->a), arena_printf(w->a, "/schedule-groups/%s", http_escape(w->a, w->phys, NULL))), NULL, got_schedule);
}
static void schedule_group_drop(struct cfn_work *w)
{
    push(w, schedule_call(w, "DELETE", NULL, arena_printf(w->a, "/schedule-groups/%s", http_escape(w->a, w->phys, NULL))),
         "ResourceNotFoundException", NULL);
}

/* ---- SQS ---- */

static struct val *queue_attributes(struct cfn_work *w)
{
    static const char *const NAMES[] = {"DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds",
                                        "VisibilityTimeout", "KmsMasterKeyId", "FifoQueue", "ContentBasedDeduplication",
                                        "SqsManagedSseEnabled", "DeduplicationScope", "FifoThroughputLimit"};
    struct val *v = val_map(w->a);

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        put_text(w, v, NAMES[i]);
    if (val_get(w->props, "RedrivePolicy"))
        val_put_str(w->a, v, "RedrivePolicy", json_text(w->a, val_get(w->props, "RedrivePolicy"), NULL));
    return v;
}
static void got_queue(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *name = w->phys;

    cfn_attr(w, "QueueName", name);
    cfn_attr(w, "Arn", arena_printf(w->a, "arn:aws:sqs:%s:%s:%s", w->s->c->d->region, w->s->c->d->account, name));
    cfn_phys(w, val_str_at(ans->v, "QueueUrl", name));
    cfn_attr(w, "QueueUrl", w->phys);
}
static void queue_create(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    w->phys = cfn_name(w, "QueueName", 80, false);
    val_put_str(w->a, v, "QueueName", w->phys);
    val_put(w->a, v, "Attributes", queue_attributes(w));
    push(w, cfn_json(w, "sqs", "AmazonSQS.CreateQueue", v), NULL, got_queue);
}
static void queue_update(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "QueueUrl", w->phys);
    val_put(w->a, v, "Attributes", queue_attributes(w));
    push(w, cfn_json(w, "sqs", "AmazonSQS.SetQueueAttributes", v), NULL, NULL);
}
static void queue_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "QueueUrl", w->phys);
    push(w, cfn_json(w, "sqs", "AmazonSQS.DeleteQueue", v), "QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue", NULL);
}
static void queue_policy(struct cfn_work *w)
{
    w->phys = cfn_name(w, NULL, 100, false);
    VAL_EACH(val_get(w->props, "Queues"), url)
    {
        struct val *v = val_map(w->a);

        val_put_str(w->a, v, "QueueUrl", val_text(url, ""));
        val_put_str(w->a, val_need_map(w->a, v, "Attributes"), "Policy",
                    w->action == CFN_DELETE ? "" : json_text(w->a, val_get(w->props, "PolicyDocument"), NULL));
        push(w, cfn_json(w, "sqs", "AmazonSQS.SetQueueAttributes", v), w->action == CFN_DELETE ? "QueueDoesNotExist" : NULL, NULL);
    }
}

/* ---- DynamoDB ---- */

static void got_table(struct cfn_work *w, const struct cfn_answer *ans)
{
    cfn_phys(w, w->phys);
    cfn_attr(w, "Arn", val_str_at(ans->v, "TableDescription.TableArn", NULL));
    cfn_attr(w, "StreamArn", val_str_at(ans->v, "TableDescription.LatestStreamArn", NULL));
}
static void table_create(struct cfn_work *w)
{
    struct val *v = val_copy(w->a, w->props);

    w->phys = cfn_name(w, "TableName", 255, false);
    val_put_str(w->a, v, "TableName", w->phys);
    push(w, cfn_json(w, "dynamodb", "DynamoDB_20120810.CreateTable", v), NULL, got_table);
}
static void table_drop(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    val_put_str(w->a, v, "TableName", w->phys);
    push(w, cfn_json(w, "dynamodb", "DynamoDB_20120810.DeleteTable", v), "ResourceNotFoundException", NULL);
}

/* ---- what needs no work ---- */

static void nothing(struct cfn_work *w)
{
    w->phys = w->phys ? w->phys : cfn_name(w, NULL, 100, false);
}
/* Kept in the stack alone: there is no registry. CDK's bootstrap names one. */
static void repository_create(struct cfn_work *w)
{
    const struct aws_door *d = w->s->c->d;

    w->phys = cfn_name(w, "RepositoryName", 255, true);
    cfn_attr(w, "Arn", arena_printf(w->a, "arn:aws:ecr:%s:%s:repository/%s", d->region, d->account, w->phys));
    cfn_attr(w, "RepositoryUri", arena_printf(w->a, "%s.dkr.ecr.%s.amazonaws.com/%s", d->account, d->region, w->phys));
}
static void handle_create(struct cfn_work *w)
{
    w->phys = arena_printf(w->a, "https://cloudformation-waitcondition-%s.s3.amazonaws.com/%s", w->s->c->d->region, cfn_name(w, NULL, 100, false));
}

const struct cfn_type cfn_types_more[] = {
    {"AWS::S3::Bucket", " BucketName ", "BucketName", bucket_create, bucket_settings, bucket_drop},
    {"AWS::S3::BucketPolicy", " Bucket ", NULL, bucket_policy_put, bucket_policy_put, bucket_policy_drop},
    {"AWS::Logs::LogGroup", " LogGroupName ", "LogGroupName", group_create, group_update, group_drop},
    {"AWS::Logs::LogStream", "*", "LogStreamName", stream_create, NULL, stream_drop},
    {"AWS::SSM::Parameter", " Name ", "Name", parameter_put, parameter_put, parameter_drop},
    {"AWS::Events::Rule", " Name EventBusName ", "Name", rule_put, rule_put, rule_drop},
    {"AWS::Scheduler::Schedule", " Name GroupName ", "Name", schedule_put, schedule_put, schedule_drop},
    {"AWS::Scheduler::ScheduleGroup", "*", "Name", schedule_group, NULL, schedule_group_drop},
    {"AWS::SQS::Queue", " QueueName FifoQueue ", "QueueName", queue_create, queue_update, queue_drop},
    {"AWS::SQS::QueuePolicy", "", NULL, queue_policy, queue_policy, queue_policy},
    {"AWS::DynamoDB::Table", "*", "TableName", table_create, NULL, table_drop},
    {"AWS::ECR::Repository", " RepositoryName ", "RepositoryName", repository_create, nothing, NULL},
    {"AWS::CDK::Metadata", "", NULL, nothing, nothing, NULL},
    {"AWS::CloudFormation::WaitConditionHandle", "", NULL, handle_create, nothing, NULL},
    {0},
};
