/* door/aws/cloudformation/sam.c - the transform AWS::Serverless-2016-10-31: functions, their roles, aliases, URLs, events, and layers,
 * written out as what CloudFormation knows. A pure function from template to template.
 *
 * Names of what is made are SAM's own (MyFunctionRole, MyFunctionAliaslive, ...), since templates and tools refer to them. */
#include "door/aws/cloudformation/cfn_int.h"

#include <stdarg.h>
#include <stdio.h>

struct sam {
    struct cfn_scope *scope;
    struct arena *a;
    struct val *out;     /* Resources */
    struct val *renamed; /* what templates call it -> the logical name that it has now */
    const char *id;      /* the resource at hand */
    const struct val *def;
    struct err *err;
};

_printf_(2, 3) static int wrong(struct sam *s, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(s->err, INVALID_ARGUMENT, "Transform AWS::Serverless-2016-10-31 failed with: Invalid Serverless Application "
                   "Specification document. Number of errors found: 1. Resource with id [%.80s] is invalid. %s", s->id, text);
}

/* ---- small trees ---- */

static struct val *ref(struct sam *s, const char *name)
{
    struct val *v = val_map(s->a);

    val_put_str(s->a, v, "Ref", name);
    return v;
}
static struct val *att(struct sam *s, const char *name, const char *attribute)
{
    struct val *v = val_map(s->a), *parts = val_list(s->a);

    val_push_str(s->a, parts, name);
    val_push_str(s->a, parts, attribute);
    val_put(s->a, v, "Fn::GetAtt", parts);
    return v;
}
static struct val *sub(struct sam *s, const char *text)
{
    struct val *v = val_map(s->a);

    val_put_str(s->a, v, "Fn::Sub", text);
    return v;
}
static const char *named(struct sam *s, const char *more)
{
    return arena_printf(s->a, "%s%s", s->id, more);
}
/* A new resource; its condition is that of the one at hand. Gives back its properties. */
static void add(struct sam *s, const char *logical, const char *type, const struct val *props, const char *deletion)
{
    struct val *v = val_map(s->a);

    val_put_str(s->a, v, "Type", type);
    if (deletion)
        val_put_str(s->a, v, "DeletionPolicy", deletion);
    if (val_get(s->def, "Condition"))
        val_put(s->a, v, "Condition", val_get(s->def, "Condition"));
    val_put(s->a, v, "Properties", props);
    val_put(s->a, s->out, logical, v);
}
static void copy(struct sam *s, struct val *to, const struct val *from, const char *key, const char *as)
{
    if (val_get(from, key))
        val_put(s->a, to, as ? as : key, val_get(from, key));
}
/* A text that may come from a parameter; NULL: it is something else. */
static const char *text_of(struct sam *s, const struct val *v)
{
    const struct val *arg;
    const char *fn = cfn_function_of(v, &arg);

    if (fn && streq(fn, "Ref"))
        return cfn_scalar(s->a, val_get(s->scope->params, val_text(arg, "")));
    return cfn_scalar(s->a, v);
}
static const char *short_hash(struct sam *s, const struct val *v)
{
    char hex[SIGV4_HEX_BYTES];
    size_t n;
    const char *text = json_text(s->a, v, &n);

    sigv4_sha256_hex(text, n, hex);
    return arena_strndup(s->a, hex, 10);
}

/* Globals below what the resource says itself: maps are merged, lists joined, the rest replaced. */
static struct val *merged(struct sam *s, const struct val *global, const struct val *own)
{
    struct val *out;

    if (!global || !own)
        return val_copy(s->a, own ? own : global);
    if (global->type == VAL_LIST && own->type == VAL_LIST) {
        out = val_copy(s->a, global);
        VAL_EACH(own, it)
            val_push(s->a, out, val_copy(s->a, it));
        return out;
    }
    if (global->type == VAL_MAP && own->type == VAL_MAP && !cfn_function_of(own, &(const struct val *){0}) &&
        !cfn_function_of(global, &(const struct val *){0})) {
        out = val_copy(s->a, global);
        VAL_EACH_MEMBER(own, m)
            val_put(s->a, out, m->key, merged(s, val_get(global, m->key), &m->v));
        return out;
    }
    return val_copy(s->a, own);
}

/* ---- code ---- */

/* s3://bucket/key or {Bucket, Key, Version} as {S3Bucket, S3Key, S3ObjectVersion}; NULL: it is neither. */
static struct val *s3_place(struct sam *s, const struct val *uri)
{
    struct val *v = val_map(s->a);

    if (val_is(uri, VAL_STR) && str_starts(uri->s, "s3://")) {
        const char *bucket = uri->s + 5, *slash = strchr(bucket, '/'), *version = strstr(bucket, "?versionId=");

        if (!slash || !slash[1])
            return NULL;
        val_put(s->a, v, "S3Bucket", val_strn(s->a, bucket, (size_t)(slash - bucket)));
        val_put(s->a, v, "S3Key", version ? val_strn(s->a, slash + 1, (size_t)(version - slash - 1)) : val_str(s->a, slash + 1));
        if (version)
            val_put_str(s->a, v, "S3ObjectVersion", version + 11);
        return v;
    }
    if (!val_get(uri, "Bucket") || !val_get(uri, "Key"))
        return NULL;
    copy(s, v, uri, "Bucket", "S3Bucket");
    copy(s, v, uri, "Key", "S3Key");
    copy(s, v, uri, "Version", "S3ObjectVersion");
    return v;
}

static struct val *code_of(struct sam *s, const struct val *props)
{
    struct val *v = val_map(s->a);

    if (val_get(props, "InlineCode")) {
        copy(s, v, props, "InlineCode", "ZipFile");
        return v;
    }
    if (val_get(props, "ImageUri")) {
        copy(s, v, props, "ImageUri", NULL);
        return v;
    }
    v = s3_place(s, val_get(props, "CodeUri"));
    if (!v)
        wrong(s, "%s", "'CodeUri' is not a valid S3 Uri of the form 's3://bucket/key' with optional versionId query parameter.");
    return v;
}

/* ---- role ---- */

static struct val *managed(struct sam *s, const char *name)
{
    if (str_starts(name, "arn:"))
        return val_str(s->a, name);
    return sub(s, arena_printf(s->a, "arn:${AWS::Partition}:iam::aws:policy/%s%s",
                               str_starts(name, "AWSLambda") && str_ends(name, "Role") ? "service-role/" : "", name));
}

static int add_policy(struct sam *s, const struct val *p, struct val *arns, struct val *policies)
{
    const struct val *arg;
    struct val *one, *document;
    struct err why = {0};

    if (val_is(p, VAL_STR)) {
        val_push(s->a, arns, managed(s, p->s));
        return 0;
    }
    if (!val_is(p, VAL_MAP))
        return wrong(s, "%s", "Policies must be names, ARNs, statements or policy templates");
    if (cfn_function_of(p, &arg)) {
        val_push(s->a, arns, p);
        return 0;
    }
    if (val_get(p, "Statement")) {
        document = val_copy(s->a, p);
        if (!val_get(document, "Version"))
            val_put_str(s->a, document, "Version", "2012-10-17");
    } else if (p->n == 1) {
        document = cfn_sam_policy(s->a, p->members[0].key, &p->members[0].v, &why);
        if (!document)
            return wrong(s, "%s", why.msg);
    } else {
        return wrong(s, "%s", "a policy template is a map of one name");
    }
    one = val_map(s->a);
    val_put(s->a, one, "PolicyName", val_printf(s->a, "%sRolePolicy%u", s->id, val_len(policies)));
    val_put(s->a, one, "PolicyDocument", document);
    val_push(s->a, policies, one);
    return 0;
}

static struct val *trust(struct sam *s, const char *service)
{
    struct val *v = val_map(s->a), *statement = val_map(s->a), *principal;

    val_put_str(s->a, v, "Version", "2012-10-17");
    val_push_str(s->a, val_need_list(s->a, statement, "Action"), "sts:AssumeRole");
    val_put_str(s->a, statement, "Effect", "Allow");
    principal = val_need_map(s->a, statement, "Principal");
    val_push_str(s->a, val_need_list(s->a, principal, "Service"), service);
    val_push(s->a, val_need_list(s->a, v, "Statement"), statement);
    return v;
}

static int add_role(struct sam *s, const struct val *props, struct val *more_arns)
{
    struct val *role = val_map(s->a), *arns = val_list(s->a), *policies = val_list(s->a);
    const struct val *given = val_get(props, "Policies");

    val_push(s->a, arns, managed(s, "AWSLambdaBasicExecutionRole"));
    if (val_get(props, "Tracing"))
        val_push(s->a, arns, managed(s, "AWSXRayDaemonWriteAccess"));
    if (val_get(props, "VpcConfig"))
        val_push(s->a, arns, managed(s, "AWSLambdaVPCAccessExecutionRole"));
    VAL_EACH(more_arns, it)
        val_push(s->a, arns, it);
    if (val_is(given, VAL_LIST)) {
        VAL_EACH(given, it)
            if (add_policy(s, it, arns, policies) < 0)
                return -1;
    } else if (given && add_policy(s, given, arns, policies) < 0) {
        return -1;
    }
    val_put(s->a, role, "AssumeRolePolicyDocument",
            val_get(props, "AssumeRolePolicyDocument") ? val_get(props, "AssumeRolePolicyDocument") : trust(s, "lambda.amazonaws.com"));
    val_put(s->a, role, "ManagedPolicyArns", arns);
    if (val_len(policies))
        val_put(s->a, role, "Policies", policies);
    copy(s, role, props, "PermissionsBoundary", NULL);
    copy(s, role, props, "RolePath", "Path");
    add(s, named(s, "Role"), "AWS::IAM::Role", role, NULL);
    return 0;
}

/* ---- events ---- */

struct event {
    const char *name;          /* SAM's: function and event */
    const struct val *props;
    const struct val *target;  /* Ref of the function or its alias */
    struct val *arns;          /* policies that the role needs for it */
};

static void permission(struct sam *s, const struct event *e, const char *service, const struct val *source, bool account)
{
    struct val *v = val_map(s->a);

    val_put_str(s->a, v, "Action", "lambda:InvokeFunction");
    val_put(s->a, v, "FunctionName", e->target);
    val_put_str(s->a, v, "Principal", service);
    if (source)
        val_put(s->a, v, "SourceArn", source);
    if (account)
        val_put(s->a, v, "SourceAccount", ref(s, "AWS::AccountId"));
    add(s, arena_printf(s->a, "%sPermission", e->name), "AWS::Lambda::Permission", v, NULL);
}

static const struct val *target_arn(struct sam *s, const struct event *e)
{
    const char *name = val_str_at(e->target, "Ref", "");

    return streq(name, s->id) ? att(s, name, "Arn") : e->target; /* an alias' Ref is its ARN */
}

static int rule_event(struct sam *s, const struct event *e)
{
    static const char *const NAMES[] = {"Name", "Description", "State", "EventBusName"};
    struct val *v = val_map(s->a), *target = val_map(s->a);
    const struct val *enabled = val_get(e->props, "Enabled");

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        copy(s, v, e->props, NAMES[i], NULL);
    copy(s, v, e->props, "Pattern", "EventPattern");
    copy(s, v, e->props, "Schedule", "ScheduleExpression");
    if (enabled && !val_get(v, "State"))
        val_put_str(s->a, v, "State", val_is(enabled, VAL_BOOL) && !enabled->b ? "DISABLED" : "ENABLED");
    val_put(s->a, target, "Arn", target_arn(s, e));
    val_put(s->a, target, "Id", val_printf(s->a, "%sLambdaTarget", e->name));
    copy(s, target, e->props, "Input", NULL);
    copy(s, target, e->props, "InputPath", NULL);
    copy(s, target, e->props, "InputTransformer", NULL);
    copy(s, target, e->props, "RetryPolicy", NULL);
    val_push(s->a, val_need_list(s->a, v, "Targets"), target);
    add(s, e->name, "AWS::Events::Rule", v, NULL);
    permission(s, e, "events.amazonaws.com", att(s, e->name, "Arn"), false);
    return 0;
}

static int schedule_event(struct sam *s, const struct event *e)
{
    static const char *const NAMES[] = {"ScheduleExpression", "ScheduleExpressionTimezone", "State", "Description", "FlexibleTimeWindow",
                                        "StartDate", "EndDate", "GroupName", "KmsKeyArn"};
    struct val *v = val_map(s->a), *target = val_map(s->a), *role = val_map(s->a), *policy = val_map(s->a), *statement = val_map(s->a);
    const char *role_name = arena_printf(s->a, "%sRole", e->name);

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        copy(s, v, e->props, NAMES[i], NULL);
    if (!val_get(v, "FlexibleTimeWindow"))
        val_put_str(s->a, val_need_map(s->a, v, "FlexibleTimeWindow"), "Mode", "OFF");
    if (val_get(e->props, "Name"))
        copy(s, v, e->props, "Name", NULL);
    else
        val_put_str(s->a, v, "Name", e->name);
    val_put(s->a, target, "Arn", target_arn(s, e));
    copy(s, target, e->props, "Input", NULL);
    copy(s, target, e->props, "RetryPolicy", NULL);
    if (val_get(e->props, "RoleArn")) {
        copy(s, target, e->props, "RoleArn", NULL);
    } else {
        val_put(s->a, role, "AssumeRolePolicyDocument", trust(s, "scheduler.amazonaws.com"));
        val_put_str(s->a, statement, "Effect", "Allow");
        val_put_str(s->a, statement, "Action", "lambda:InvokeFunction");
        val_put(s->a, statement, "Resource", target_arn(s, e));
        val_put(s->a, policy, "PolicyName", val_printf(s->a, "%sLambdaPolicy", e->name));
        val_put_str(s->a, val_need_map(s->a, policy, "PolicyDocument"), "Version", "2012-10-17");
        val_push(s->a, val_need_list(s->a, val_get(policy, "PolicyDocument"), "Statement"), statement);
        val_push(s->a, val_need_list(s->a, role, "Policies"), policy);
        add(s, role_name, "AWS::IAM::Role", role, NULL);
        val_put(s->a, target, "RoleArn", att(s, role_name, "Arn"));
    }
    val_put(s->a, v, "Target", target);
    add(s, e->name, "AWS::Scheduler::Schedule", v, NULL);
    return 0;
}

/* The bucket of the same template hears of the function, after the function may be called by it. */
static int s3_event(struct sam *s, const struct event *e)
{
    const char *name = val_str_at(val_get(e->props, "Bucket"), "Ref", NULL);
    struct val *bucket = name ? val_get(s->out, name) : NULL, *props, *conf, *events = val_list(s->a), *depends;
    const struct val *given = val_get(e->props, "Events");

    if (!bucket || !streq(val_str_at(bucket, "Type", ""), "AWS::S3::Bucket"))
        return wrong(s, "%s", "S3 events must reference an S3 bucket in the same template.");
    if (val_is(given, VAL_STR))
        val_push(s->a, events, given);
    VAL_EACH(given, it)
        val_push(s->a, events, it);
    if (!val_len(events))
        return wrong(s, "%s", "an S3 event needs Events");
    VAL_EACH(events, it)
    {
        struct val *one = val_map(s->a);

        val_put(s->a, one, "Event", it);
        val_put(s->a, one, "Function", target_arn(s, e));
        copy(s, one, e->props, "Filter", NULL);
        props = val_need_map(s->a, val_get(s->out, name), "Properties");
        conf = val_need_map(s->a, props, "NotificationConfiguration");
        val_push(s->a, val_need_list(s->a, conf, "LambdaConfigurations"), one);
    }
    permission(s, e, "s3.amazonaws.com", NULL, true);
    bucket = val_get(s->out, name); /* adding the permission may have moved it */
    depends = val_list(s->a);
    if (val_is(val_get(bucket, "DependsOn"), VAL_STR))
        val_push(s->a, depends, val_get(bucket, "DependsOn"));
    VAL_EACH(val_get(bucket, "DependsOn"), it)
        val_push(s->a, depends, it);
    val_push(s->a, depends, val_printf(s->a, "%sPermission", e->name));
    val_put(s->a, bucket, "DependsOn", depends);
    return 0;
}

static int mapping_event(struct sam *s, const struct event *e, const char *source, const char *policy)
{
    struct val *v = val_map(s->a);

    VAL_EACH_MEMBER(e->props, m)
        if (!streq(m->key, source))
            val_put(s->a, v, m->key, &m->v);
    if (!val_get(e->props, source))
        return wrong(s, "the event needs %s", source);
    val_put(s->a, v, "EventSourceArn", val_get(e->props, source));
    val_put(s->a, v, "FunctionName", e->target);
    add(s, e->name, "AWS::Lambda::EventSourceMapping", v, NULL);
    val_push(s->a, e->arns, managed(s, policy));
    return 0;
}

static int one_event(struct sam *s, const char *type, const struct event *e)
{
    if (streq(type, "Schedule") || streq(type, "EventBridgeRule") || streq(type, "CloudWatchEvent"))
        return rule_event(s, e);
    if (streq(type, "ScheduleV2"))
        return schedule_event(s, e);
    if (streq(type, "S3"))
        return s3_event(s, e);
    if (streq(type, "SQS"))
        return mapping_event(s, e, "Queue", "AWSLambdaSQSQueueExecutionRole");
    if (streq(type, "Kinesis"))
        return mapping_event(s, e, "Stream", "AWSLambdaKinesisExecutionRole");
    if (streq(type, "DynamoDB"))
        return mapping_event(s, e, "Stream", "AWSLambdaDynamoDBExecutionRole");
    if (streq(type, "Api") || streq(type, "HttpApi"))
        return wrong(s, "tandem has no API Gateway: give the function a FunctionUrlConfig instead of an event of type %s", type);
    return wrong(s, "tandem does not serve events of the type %s", type);
}

/* ---- Function ---- */

/* target: the function, or its alias */
static void add_url(struct sam *s, const struct val *conf, const struct val *target)
{
    struct val *v = val_map(s->a), *p;

    val_put(s->a, v, "TargetFunctionArn", target);
    copy(s, v, conf, "AuthType", NULL);
    copy(s, v, conf, "Cors", NULL);
    copy(s, v, conf, "InvokeMode", NULL);
    add(s, named(s, "Url"), "AWS::Lambda::Url", v, NULL);
    if (!streq(text_of(s, val_get(conf, "AuthType")) ? text_of(s, val_get(conf, "AuthType")) : "", "NONE"))
        return;
    p = val_map(s->a);
    val_put_str(s->a, p, "Action", "lambda:InvokeFunctionUrl");
    val_put(s->a, p, "FunctionName", target);
    val_put_str(s->a, p, "Principal", "*");
    val_put_str(s->a, p, "FunctionUrlAuthType", "NONE");
    add(s, named(s, "UrlPublicPermissions"), "AWS::Lambda::Permission", p, NULL);
}

/* Version and alias; gives back what events are to call. */
static const struct val *add_alias(struct sam *s, const struct val *props, const struct val *code, const char *alias)
{
    const struct val *hashed = val_get(props, "AutoPublishCodeSha256") ? val_get(props, "AutoPublishCodeSha256") : code;
    const char *version = arena_printf(s->a, "%sVersion%s", s->id, short_hash(s, hashed));
    const char *name = arena_printf(s->a, "%sAlias%s", s->id, alias);
    struct val *v = val_map(s->a);

    val_put(s->a, v, "FunctionName", ref(s, s->id));
    copy(s, v, props, "VersionDescription", "Description");
    add(s, version, "AWS::Lambda::Version", v, "Retain");
    v = val_map(s->a);
    val_put_str(s->a, v, "Name", alias);
    val_put(s->a, v, "FunctionName", ref(s, s->id));
    val_put(s->a, v, "FunctionVersion", att(s, version, "Version"));
    copy(s, v, props, "ProvisionedConcurrencyConfig", NULL);
    add(s, name, "AWS::Lambda::Alias", v, NULL);
    val_put_str(s->a, s->renamed, arena_printf(s->a, "%s.Alias", s->id), name);
    val_put_str(s->a, s->renamed, arena_printf(s->a, "%s.Version", s->id), version);
    return ref(s, name);
}

static void add_invoke_conf(struct sam *s, const struct val *conf, const char *alias)
{
    struct val *v = val_map(s->a), *to;

    val_put(s->a, v, "FunctionName", ref(s, s->id));
    val_put_str(s->a, v, "Qualifier", alias ? alias : "$LATEST");
    copy(s, v, conf, "MaximumEventAgeInSeconds", NULL);
    copy(s, v, conf, "MaximumRetryAttempts", NULL);
    VAL_EACH_MEMBER(val_get(conf, "DestinationConfig"), m)
    {
        to = val_need_map(s->a, v, "DestinationConfig");
        copy(s, val_need_map(s->a, to, m->key), &m->v, "Destination", NULL);
    }
    add(s, named(s, "EventInvokeConfig"), "AWS::Lambda::EventInvokeConfig", v, NULL);
}

static struct val *function_props(struct sam *s, const struct val *props, struct val *code)
{
    static const char *const NAMES[] = {"FunctionName", "Handler", "Runtime", "Description", "MemorySize", "Timeout", "VpcConfig",
                                        "Environment", "ReservedConcurrentExecutions", "Layers", "KmsKeyArn", "FileSystemConfigs",
                                        "PackageType", "ImageConfig", "Architectures", "EphemeralStorage", "SnapStart",
                                        "RuntimeManagementConfig", "LoggingConfig", "RecursiveLoop", "DurableConfig"};
    struct val *v = val_map(s->a), *tags, *tag;

    val_put(s->a, v, "Code", code);
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        copy(s, v, props, NAMES[i], NULL);
    if (val_get(props, "Tracing"))
        val_put(s->a, val_need_map(s->a, v, "TracingConfig"), "Mode", val_get(props, "Tracing"));
    if (val_at(props, "DeadLetterQueue.TargetArn"))
        val_put(s->a, val_need_map(s->a, v, "DeadLetterConfig"), "TargetArn", val_at(props, "DeadLetterQueue.TargetArn"));
    val_put(s->a, v, "Role", val_get(props, "Role") ? val_get(props, "Role") : att(s, named(s, "Role"), "Arn"));
    tags = val_list(s->a);
    tag = val_map(s->a);
    val_put_str(s->a, tag, "Key", "lambda:createdBy");
    val_put_str(s->a, tag, "Value", "SAM");
    val_push(s->a, tags, tag);
    VAL_EACH_MEMBER(val_get(props, "Tags"), m)
    {
        tag = val_map(s->a);
        val_put_str(s->a, tag, "Key", m->key);
        val_put(s->a, tag, "Value", &m->v);
        val_push(s->a, tags, tag);
    }
    val_put(s->a, v, "Tags", tags);
    return v;
}

static int function(struct sam *s, const struct val *props)
{
    static const char *const KEPT[] = {"DependsOn", "Metadata", "DeletionPolicy", "UpdateReplacePolicy"};
    struct val *code = code_of(s, props), *arns = val_list(s->a), *placed;
    const char *alias = val_get(props, "AutoPublishAlias") ? text_of(s, val_get(props, "AutoPublishAlias")) : NULL;
    const struct val *target = ref(s, s->id);

    if (!code)
        return -1;
    add(s, s->id, "AWS::Lambda::Function", function_props(s, props, code), NULL);
    placed = val_get(s->out, s->id);
    for (size_t i = 0; i < ARRAY_LEN(KEPT); i++)
        copy(s, placed, s->def, KEPT[i], NULL);
    if (val_get(props, "AutoPublishAlias") && !alias)
        return wrong(s, "%s", "AutoPublishAlias must be a string or a parameter");
    if (alias)
        target = add_alias(s, props, code, alias);
    VAL_EACH_MEMBER(val_get(props, "Events"), m)
    {
        struct event e = {.name = named(s, m->key), .props = val_get(&m->v, "Properties"), .target = target, .arns = arns};

        if (one_event(s, val_str_at(&m->v, "Type", ""), &e) < 0)
            return -1;
    }
    if (!val_get(props, "Role") && add_role(s, props, arns) < 0)
        return -1;
    if (val_get(props, "FunctionUrlConfig"))
        add_url(s, val_get(props, "FunctionUrlConfig"), target);
    if (val_get(props, "EventInvokeConfig"))
        add_invoke_conf(s, val_get(props, "EventInvokeConfig"), alias);
    return 0;
}

/* ---- LayerVersion ---- */

/* A stack of its own; `sam deploy` has put its template into a bucket. */
static int application(struct sam *s, const struct val *props)
{
    static const char *const NAMES[] = {"Parameters", "NotificationARNs", "TimeoutInMinutes"};
    struct val *v = val_map(s->a), *tag;

    if (!val_is(val_get(props, "Location"), VAL_STR))
        return wrong(s, "%s", "tandem has no Serverless Application Repository: 'Location' must be the place of a template");
    copy(s, v, props, "Location", "TemplateURL");
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        copy(s, v, props, NAMES[i], NULL);
    VAL_EACH_MEMBER(val_get(props, "Tags"), m)
    {
        tag = val_map(s->a);
        val_put_str(s->a, tag, "Key", m->key);
        val_put(s->a, tag, "Value", &m->v);
        val_push(s->a, val_need_list(s->a, v, "Tags"), tag);
    }
    add(s, s->id, "AWS::CloudFormation::Stack", v, NULL);
    return 0;
}

static int layer(struct sam *s, const struct val *props)
{
    static const char *const NAMES[] = {"Description", "CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo"};
    const char *policy = val_get(props, "RetentionPolicy") ? text_of(s, val_get(props, "RetentionPolicy")) : "Retain";
    struct val *v = val_map(s->a), *content = s3_place(s, val_get(props, "ContentUri"));
    const char *name;

    if (!content)
        return wrong(s, "%s", "'ContentUri' is not a valid S3 Uri of the form 's3://bucket/key' with optional versionId query parameter.");
    val_put(s->a, v, "Content", content);
    val_put(s->a, v, "LayerName", val_get(props, "LayerName") ? val_get(props, "LayerName") : val_str(s->a, s->id));
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        copy(s, v, props, NAMES[i], NULL);
    name = arena_printf(s->a, "%s%s", s->id, short_hash(s, v));
    add(s, name, "AWS::Lambda::LayerVersion", v, policy && streq(policy, "Delete") ? "Delete" : "Retain");
    val_put_str(s->a, s->renamed, s->id, name);
    return 0;
}

/* ---- references to what has another name now ---- */

static const char *renamed_text(struct sam *s, const char *text)
{
    const char *at = text, *from, *name, *done = text, *to;
    struct buf b = {0};

    while (cfn_sub_next(s->a, &at, &from, &name)) {
        to = val_text(val_get(s->renamed, name), NULL);
        buf_add(&b, done, (size_t)(from - done));
        buf_printf(&b, "${%s}", to ? to : name);
        done = at;
    }
    buf_adds(&b, done);
    text = arena_strndup(s->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

static void rename_in(struct sam *s, struct val *v)
{
    const struct val *arg, *to;
    const char *fn = cfn_function_of(v, &arg);

    if (fn && streq(fn, "Ref") && (to = val_get(s->renamed, val_text(arg, "")))) {
        v->members[0].v = *to;
        return;
    }
    if (fn && streq(fn, "Fn::GetAtt") && val_is(arg, VAL_LIST) && arg->n == 2 && val_is(&arg->items[1], VAL_STR)) {
        const char *whole = arena_printf(s->a, "%s.%s", val_text(&arg->items[0], ""), arg->items[1].s);

        if ((to = val_get(s->renamed, val_text(&arg->items[0], ""))))
            arg->items[0] = *to;
        else if (str_ends(whole, ".Arn") && (to = val_get(s->renamed, arena_strndup(s->a, whole, strlen(whole) - 4))))
            *v = *ref(s, to->s);
        return;
    }
    if (fn && streq(fn, "Fn::Sub")) {
        struct val *text = v->members[0].v.type == VAL_LIST && v->members[0].v.n ? &v->members[0].v.items[0] : &v->members[0].v;

        if (text->type == VAL_STR)
            *text = *val_str(s->a, renamed_text(s, text->s));
    }
    VAL_EACH(v, it)
        rename_in(s, it);
    VAL_EACH_MEMBER(v, m)
        rename_in(s, &m->v);
}

static void rename_depends(struct sam *s, struct val *resources)
{
    VAL_EACH_MEMBER(resources, m)
    {
        struct val *on = val_get(&m->v, "DependsOn");
        const struct val *to;

        if (val_is(on, VAL_STR) && (to = val_get(s->renamed, on->s)))
            *on = *to;
        VAL_EACH(on, it)
            if ((to = val_get(s->renamed, val_text(it, ""))))
                *it = *to;
    }
}

struct val *cfn_sam(struct cfn_scope *scope, struct err *err)
{
    const struct val *globals = val_get(scope->doc, "Globals");
    struct val *doc = val_copy(scope->a, scope->doc);
    struct sam s = {.scope = scope, .a = scope->a, .out = val_map(scope->a), .renamed = val_map(scope->a), .err = err};

    for (int serverless = 0; serverless < 2; serverless++) /* buckets are there before events look for them */
        VAL_EACH_MEMBER(val_get(doc, "Resources"), m)
        {
            const char *type = val_str_at(&m->v, "Type", "");
            bool is_function = streq(type, "AWS::Serverless::Function");
            struct val *props;
            int rc;

            if (str_starts(type, "AWS::Serverless::") != serverless)
                continue;
            if (!serverless) {
                val_put(s.a, s.out, m->key, &m->v);
                continue;
            }
            s.id = m->key;
            s.def = &m->v;
            props = merged(&s, val_get(globals, is_function ? "Function" : strrchr(type, ':') + 1),
                           val_get(&m->v, "Properties") ? val_get(&m->v, "Properties") : val_map(s.a));
            if (is_function)
                rc = function(&s, props);
            else if (streq(type, "AWS::Serverless::LayerVersion"))
                rc = layer(&s, props);
            else if (streq(type, "AWS::Serverless::Application"))
                rc = application(&s, props);
            else
                rc = wrong(&s, "tandem does not serve resources of the type %s", type);
            if (rc < 0)
                return NULL;
        }
    val_put(s.a, doc, "Resources", s.out);
    val_del(doc, "Globals");
    val_del(doc, "Transform");
    rename_depends(&s, val_get(doc, "Resources"));
    rename_in(&s, val_get(doc, "Resources"));
    if (val_get(doc, "Outputs"))
        rename_in(&s, val_get(doc, "Outputs"));
    return doc;
}
