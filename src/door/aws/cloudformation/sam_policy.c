/* door/aws/cloudformation/sam_policy.c - the policy templates of AWS::Serverless::Function, as data. */
#include "door/aws/cloudformation/cfn_int.h"

#include "base/buf.h"

#define ARN(service, what) "arn:${AWS::Partition}:" service ":${AWS::Region}:${AWS::AccountId}:" what

/* ${p}: the template's parameter. */
static const struct {
    const char *name, *parameter; /* "": it has none */
    const char *actions;          /* blanks between */
    const char *resources[3];
} POLICIES[] = {
    {"S3ReadPolicy", "BucketName", "s3:GetObject s3:ListBucket s3:GetBucketLocation s3:GetObjectVersion s3:GetLifecycleConfiguration",
     {"arn:${AWS::Partition}:s3:::${p}", "arn:${AWS::Partition}:s3:::${p}/*"}},
    {"S3WritePolicy", "BucketName", "s3:PutObject s3:PutObjectAcl s3:PutLifecycleConfiguration",
     {"arn:${AWS::Partition}:s3:::${p}", "arn:${AWS::Partition}:s3:::${p}/*"}},
    {"S3FullAccessPolicy", "BucketName", "s3:GetObject s3:GetObjectAcl s3:GetObjectVersion s3:PutObject s3:PutObjectAcl s3:DeleteObject "
     "s3:DeleteObjectTagging s3:DeleteObjectVersionTagging s3:GetObjectTagging s3:GetObjectVersionTagging s3:PutObjectTagging "
     "s3:PutObjectVersionTagging s3:ListBucket s3:GetBucketLocation s3:GetLifecycleConfiguration s3:PutLifecycleConfiguration",
     {"arn:${AWS::Partition}:s3:::${p}", "arn:${AWS::Partition}:s3:::${p}/*"}},
    {"S3CrudPolicy", "BucketName", "s3:GetObject s3:ListBucket s3:GetBucketLocation s3:GetObjectVersion s3:PutObject s3:PutObjectAcl "
     "s3:GetLifecycleConfiguration s3:PutLifecycleConfiguration s3:DeleteObject",
     {"arn:${AWS::Partition}:s3:::${p}", "arn:${AWS::Partition}:s3:::${p}/*"}},
    {"LambdaInvokePolicy", "FunctionName", "lambda:InvokeFunction", {ARN("lambda", "function:${p}*")}},
    {"SQSPollerPolicy", "QueueName", "sqs:ChangeMessageVisibility sqs:ChangeMessageVisibilityBatch sqs:DeleteMessage "
     "sqs:DeleteMessageBatch sqs:GetQueueAttributes sqs:ReceiveMessage", {ARN("sqs", "${p}")}},
    {"SQSSendMessagePolicy", "QueueName", "sqs:SendMessage*", {ARN("sqs", "${p}")}},
    {"SNSPublishMessagePolicy", "TopicName", "sns:Publish", {ARN("sns", "${p}")}},
    {"SNSCrudPolicy", "TopicName", "sns:ListSubscriptionsByTopic sns:CreateTopic sns:SetTopicAttributes sns:Subscribe sns:Publish",
     {ARN("sns", "${p}*")}},
    {"DynamoDBReadPolicy", "TableName", "dynamodb:GetItem dynamodb:Scan dynamodb:Query dynamodb:BatchGetItem dynamodb:DescribeTable",
     {ARN("dynamodb", "table/${p}"), ARN("dynamodb", "table/${p}/index/*")}},
    {"DynamoDBWritePolicy", "TableName", "dynamodb:PutItem dynamodb:UpdateItem dynamodb:BatchWriteItem",
     {ARN("dynamodb", "table/${p}"), ARN("dynamodb", "table/${p}/index/*")}},
    {"DynamoDBCrudPolicy", "TableName", "dynamodb:GetItem dynamodb:DeleteItem dynamodb:PutItem dynamodb:Scan dynamodb:Query "
     "dynamodb:UpdateItem dynamodb:BatchWriteItem dynamodb:BatchGetItem dynamodb:DescribeTable dynamodb:ConditionCheckItem",
     {ARN("dynamodb", "table/${p}"), ARN("dynamodb", "table/${p}/index/*")}},
    {"SSMParameterReadPolicy", "ParameterName", "ssm:GetParameters ssm:GetParameter ssm:GetParametersByPath", {ARN("ssm", "parameter/${p}")}},
    {"AWSSecretsManagerGetSecretValuePolicy", "SecretArn", "secretsmanager:GetSecretValue", {"${p}"}},
    {"CloudWatchPutMetricPolicy", "", "cloudwatch:PutMetricData", {"*"}},
    {"CloudWatchDescribeAlarmHistoryPolicy", "", "cloudwatch:DescribeAlarmHistory", {"*"}},
    {"CloudFormationDescribeStacksPolicy", "", "cloudformation:DescribeStacks",
     {"arn:${AWS::Partition}:cloudformation:${AWS::Region}:${AWS::AccountId}:stack/*"}},
    {"EventBridgePutEventsPolicy", "EventBusName", "events:PutEvents", {ARN("events", "event-bus/${p}")}},
    {"KMSDecryptPolicy", "KeyId", "kms:Decrypt", {ARN("kms", "key/${p}")}},
    {"KMSEncryptPolicy", "KeyId", "kms:Encrypt", {ARN("kms", "key/${p}")}},
    {"KinesisStreamReadPolicy", "StreamName", "kinesis:ListStreams kinesis:DescribeLimits", {ARN("kinesis", "stream/*")}},
    {"StepFunctionsExecutionPolicy", "StateMachineName", "states:StartExecution", {ARN("states", "stateMachine:${p}")}},
    {"VPCAccessPolicy", "", "ec2:CreateNetworkInterface ec2:DeleteNetworkInterface ec2:DescribeNetworkInterfaces ec2:DetachNetworkInterface",
     {"*"}},
    {"FilterLogEventsPolicy", "LogGroupName", "logs:FilterLogEvents", {ARN("logs", "log-group:${p}:log-stream:*")}},
};

struct val *cfn_sam_policy(struct arena *a, const char *name, const struct val *args, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(POLICIES); i++) {
        struct val *statement, *list, *document;

        if (!streq(POLICIES[i].name, name))
            continue;
        if (*POLICIES[i].parameter && !val_get(args, POLICIES[i].parameter)) {
            err_set(err, INVALID_ARGUMENT, "Must specify valid parameter values for policy template '%s'", name);
            return NULL;
        }
        statement = val_map(a);
        val_put_str(a, statement, "Effect", "Allow");
        list = val_list(a);
        for (const char *p = POLICIES[i].actions; *p; p += strspn(p, " ")) {
            size_t n = strcspn(p, " ");

            val_push(a, list, val_strn(a, p, n));
            p += n;
        }
        val_put(a, statement, "Action", list);
        list = val_list(a);
        for (size_t k = 0; k < 3 && POLICIES[i].resources[k]; k++) {
            struct val *sub = val_map(a), *parts = val_list(a), *own = val_map(a);

            val_push_str(a, parts, POLICIES[i].resources[k]);
            if (*POLICIES[i].parameter)
                val_put(a, own, "p", val_get(args, POLICIES[i].parameter));
            val_push(a, parts, own);
            val_put(a, sub, "Fn::Sub", parts);
            val_push(a, list, sub);
        }
        val_put(a, statement, "Resource", list);
        document = val_map(a);
        val_put_str(a, document, "Version", "2012-10-17");
        val_push(a, val_need_list(a, document, "Statement"), statement);
        return document;
    }
    err_set(err, INVALID_ARGUMENT, "tandem does not know the policy template '%.80s'; write its statements out under Policies", name);
    return NULL;
}
