/* door/aws/lambda/conf.c - Lambda's names and shapes <-> the Function object. */
#include <ctype.h>
#include <stdio.h>
#include <time.h>

#include "base/map.h"
#include "door/aws/lambda/lambda_int.h"
#include "function/durable/durable.h"

/* ---- names ---- */

static bool name_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_';
}

static bool is_digits(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)s[i]))
            return false;
    return true;
}

/* us-east-1, us-gov-west-1 */
static bool is_region(const char *s)
{
    const char *p = s + strcspn(s, "-"), *last = strrchr(s, '-');

    return p == s + 2 && last > p && isdigit((unsigned char)last[1]) && !last[2];
}

/* Objects are named by DNS rules: a function whose name fits is the object of that name, others get
 * a name that fits with a hash of theirs behind it. */
const char *lambda_object_name(struct arena *a, const char *name)
{
    size_t n = strlen(name);
    bool fits = isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);
    char *low;

    for (size_t i = 0; i < n && fits; i++)
        fits = name[i] != '_' && !isupper((unsigned char)name[i]);
    if (fits)
        return name;
    low = arena_strdup(a, name);
    for (char *p = low; *p; p++)
        *p = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '-';
    low += strspn(low, "-");
    return arena_printf(a, "%.46s%s%s", low, *low ? "-" : "f-", aws_name_hash(a, name));
}

int lambda_name_parse(struct aws_req *q, const char *s, struct lambda_name *ret, struct err *err)
{
    struct arena *a = q->req->arena;
    char *text = arena_strdup(a, s), *part[9];
    const char *region = NULL, *account = NULL, *asked = http_param(q->req, "Qualifier");
    size_t n = 0, at;

    for (char *p = text; n < ARRAY_LEN(part); n++) {
        char *colon = strchr(p, ':');

        part[n] = p;
        if (!colon) {
            n++;
            break;
        }
        *colon = 0;
        p = colon + 1;
    }
    /* (arn:aws:lambda:)(REGION:)(ACCOUNT:)(function:)NAME(:QUALIFIER) */
    at = n >= 4 && streq(part[0], "arn") && str_starts(part[1], "aws") && streq(part[2], "lambda") ? 3 : 0;
    if (n > at + 1 && is_region(part[at]))
        region = part[at++];
    if (n > at + 1 && strlen(part[at]) == 12 && is_digits(part[at], 12))
        account = part[at++];
    if (n > at + 1 && streq(part[at], "function"))
        at++;
    const char *name = part[at], *qualifier = n > at + 1 ? part[at + 1] : NULL;
    bool good = n <= at + 2 && *name && strlen(name) <= 140;
    for (const char *p = name; *p && good; p++)
        good = name_char(*p);
    for (const char *p = qualifier; p && *p && good; p++)
        good = name_char(*p) || *p == '$';
    if (!good)
        return err_set(err, INVALID_ARGUMENT,
                       "1 validation error detected: Value '%.100s' at 'functionName' failed to satisfy constraint: "
                       "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?"
                       "([a-z]{2}((-gov)|(-iso(b?)))?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?([a-zA-Z0-9-_]+)"
                       "(:(\\$LATEST|[a-zA-Z0-9-_]+))?", s);
    if (strlen(name) > 64)
        return err_set(err, INVALID_ARGUMENT,
                       "1 validation error detected: Value '%.100s' at 'functionName' failed to satisfy constraint: "
                       "Member must have length less than or equal to 64", name);
    if (region && !streq(region, q->d->region) && !(q->sig.region && streq(region, q->sig.region)))
        return err_set(err, NOT_FOUND, "Functions from '%s' are not reachable in this region ('%s')", region, q->d->region);
    if (account && !streq(account, q->d->account))
        return err_set(err, FORBIDDEN, "User: %s is not authorized to perform this action on resource: %.150s because no resource-based policy "
                       "allows it", q->caller.arn ? q->caller.arn : "", s);
    if (qualifier && asked && !streq(qualifier, asked))
        return err_set(err, CONFLICT, "The derived qualifier from the function name does not match the specified qualifier.");
    *ret = (struct lambda_name){name, lambda_object_name(a, name), qualifier ? qualifier : asked};
    return 0;
}

struct val *lambda_destination(struct aws_req *q, const char *arn)
{
    struct arena *a = q->req->arena;
    struct lambda_name n;
    struct err err;
    struct val *v;

    if (str_starts(arn, "arn:aws:s3:::") && arn[13]) {
        v = val_map(a);
        val_put_str(a, v, "bucket", arn + 13);
    } else if (str_starts(arn, "arn:aws:lambda:") && lambda_name_parse(q, arn, &n, &err) == 0) {
        const char *mark = strstr(arn, ":function:"), *colon = mark ? strchr(mark + 10, ':') : NULL;

        v = val_map(a);
        val_put_str(a, v, "function", n.object);
        if (colon)
            val_put_str(a, v, "qualifier", colon + 1);
    } else {
        return NULL;
    }
    val_put_str(a, v, "arn", arn);
    return v;
}

const char *lambda_arn(struct aws_req *q, const char *name)
{
    return arena_printf(q->req->arena, "arn:aws:lambda:%s:%s:function:%s", q->d->region, q->d->account, name);
}

const char *lambda_name_of(const struct obj *o)
{
    const char *name = obj_annotation(o, A_NAME);

    return name ? name : val_str_at(obj_val(o), "spec.function", o->name);
}

/* ---- times, revisions, replies ---- */

char *lambda_now(struct arena *a)
{
    struct timespec ts;
    struct tm tm;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    return arena_printf(a, "%s.%03d+0000", text, (int)(ts.tv_nsec / 1000000));
}

const char *lambda_revision_of(struct arena *a, const char *text)
{
    char hex[SIGV4_HEX_BYTES];

    sigv4_sha256_hex(text, strlen(text), hex);
    return arena_printf(a, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* Changes with what a caller can change: made of the object's generation. */
const char *lambda_revision(struct aws_req *q, const struct obj *o)
{
    char text[160];

    snprintf(text, sizeof text, "%s/%lld/%s", o->uid,
             (long long)val_int_at(obj_val(o), "metadata.generation", 0),
             obj_annotation(o, A_MODIFIED) ? obj_annotation(o, A_MODIFIED) : "");
    return lambda_revision_of(q->req->arena, text);
}

void lambda_reply(struct aws_req *q, int status, const struct val *v)
{
    size_t n = 0;
    char *text = v ? json_text(q->req->arena, v, &n) : NULL;

    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, status, v ? "application/json" : NULL, text ? text : "", n);
}

/* ---- reading what a caller asks for ---- */

#define BAD(type, ...)                                                                             \
    do {                                                                                           \
        *ret_type = (type);                                                                        \
        return err_set(err, INVALID_ARGUMENT, __VA_ARGS__);                                        \
    } while (0)
#define PARAMETER "InvalidParameterValueException"
#define VALIDATION "ValidationException"

static int read_int(const struct val *in, const char *from, int64_t min, int64_t max, struct arena *a,
                    struct val *spec, const char *to, const char **ret_type, struct err *err)
{
    const struct val *v = val_at(in, from);

    if (val_is_null(v))
        return 0;
    if (v->type != VAL_INT || v->i < min || v->i > max) {
        char lower[64];

        snprintf(lower, sizeof lower, "%s", from);
        lower[0] = (char)tolower((unsigned char)lower[0]);
        BAD(VALIDATION, "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must have "
            "value %s than or equal to %lld", json_text(a, v, NULL), lower,
            v->type == VAL_INT && v->i < min ? "greater" : "less",
            (long long)(v->type == VAL_INT && v->i < min ? min : max));
    }
    val_put_int(a, spec, to, v->i);
    return 0;
}

static void read_str(const struct val *in, const char *from, struct arena *a, struct val *spec,
                     const char *to)
{
    const char *s = val_str_at(in, from, NULL);

    if (s)
        val_put_str(a, spec, to, s);
}

static int read_environment(struct arena *a, const struct val *in, struct val *spec,
                            const char **ret_type, struct err *err)
{
    const struct val *v = val_at(in, "Environment.Variables");
    struct val *env;
    size_t bytes = 0;

    if (!val_get(in, "Environment"))
        return 0;
    env = val_map(a);
    VAL_EACH_MEMBER(v, m) {
        static const char *const reserved[] = {
            "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
            "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
            "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
            "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
            "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"};
        bool good = isalpha((unsigned char)m->key[0]) && m->n > 1;

        for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
            if (streq(m->key, reserved[i]))
                BAD(PARAMETER, "Lambda was unable to configure your environment variables because the environment "
                    "variables you have provided contains reserved keys that are currently not supported for "
                    "modification. Reserved keys used in this request: %s", m->key);
        for (const char *p = m->key; *p && good; p++)
            good = isalnum((unsigned char)*p) || *p == '_';
        if (!good || m->v.type != VAL_STR || strlen(m->v.s) != m->v.n)
            BAD(VALIDATION, "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: "
                "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: "
                "[a-zA-Z]([a-zA-Z0-9_])+]");
        bytes += m->n + m->v.n;
        val_put(a, env, m->key, &m->v);
    }
    if (bytes > 4096)
        BAD(PARAMETER, "Lambda was unable to configure your environment variables because the environment variables "
            "you have provided exceeded the 4KB limit.");
    val_put(a, spec, "environment", env);
    return 0;
}

static int read_file_systems(struct arena *a, const struct val *in, struct val *spec,
                             const char **ret_type, struct err *err)
{
    const struct val *list = val_get(in, "FileSystemConfigs");
    struct val *out = val_list(a);

    if (val_is_null(list))
        return 0;
    VAL_EACH(list, it) {
        const char *arn = val_str_at(it, "Arn", ""), *path = val_str_at(it, "LocalMountPath", "");
        const char *mark = strstr(arn, ":access-point/");
        struct val *m = val_map(a);

        if (!str_starts(arn, "arn:aws") || !strstr(arn, ":elasticfilesystem:") || !mark || !mark[14])
            BAD(VALIDATION, "1 validation error detected: Value '%.200s' at 'fileSystemConfigs.1.member.arn' failed to "
                "satisfy constraint: it must be arn:aws:elasticfilesystem:REGION:ACCOUNT:access-point/VOLUME", arn);
        if (!str_starts(path, "/mnt/") || !path[5] || strlen(path) > 160 || strstr(path, ".."))
            BAD(VALIDATION, "1 validation error detected: Value '%.200s' at 'fileSystemConfigs.1.member.localMountPath' "
                "failed to satisfy constraint: Member must satisfy regular expression pattern: ^/mnt/[a-zA-Z0-9-_.]+$", path);
        val_put_str(a, m, "volume", mark + 14);
        val_put_str(a, m, "localMountPath", path);
        val_push(a, out, m);
    }
    val_put(a, spec, "fileSystems", out);
    return 0;
}

static int read_enum(const struct val *in, const char *path, const char *const *allowed, struct arena *a,
                     struct val *spec, const char *to, const char **ret_type, struct err *err)
{
    const char *s = val_str_at(in, path, NULL);

    if (!s)
        return 0;
    for (const char *const *p = allowed; *p; p++)
        if (streq(*p, s)) {
            val_set_at(a, spec, to, val_str(a, s));
            return 0;
        }
    BAD(VALIDATION, "1 validation error detected: Value '%.100s' at '%s' failed to satisfy constraint: Member must satisfy "
        "enum value set", s, path);
}

static int read_logging(struct arena *a, const struct val *in, struct val *spec, const char **ret_type, struct err *err)
{
    static const char *const formats[] = {"JSON", "Text", NULL};
    static const char *const app[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", NULL};
    static const char *const system[] = {"DEBUG", "INFO", "WARN", NULL};
    const struct val *c = val_get(in, "LoggingConfig");
    const char *group = val_str_at(c, "LogGroup", NULL);

    if (read_enum(in, "LoggingConfig.LogFormat", formats, a, spec, "loggingConfig.logFormat", ret_type, err) < 0 ||
        read_enum(in, "LoggingConfig.ApplicationLogLevel", app, a, spec, "loggingConfig.applicationLogLevel", ret_type, err) < 0 ||
        read_enum(in, "LoggingConfig.SystemLogLevel", system, a, spec, "loggingConfig.systemLogLevel", ret_type, err) < 0)
        return -1;
    if (c && streq(val_str_at(c, "LogFormat", ""), "Text") && (val_get(c, "ApplicationLogLevel") || val_get(c, "SystemLogLevel")))
        BAD(PARAMETER, "You can't set a log level when the log format is Text. Choose the JSON log format to set levels.");
    if (group && (!*group || strlen(group) > 512 || group[strspn(group, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/#")]))
        BAD(VALIDATION, "1 validation error detected: Value '%.200s' at 'loggingConfig.logGroup' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+", group);
    if (group)
        val_set_at(a, spec, "loggingConfig.logGroup", val_str(a, group));
    return 0;
}

static int read_image_config(struct arena *a, const struct val *in, bool create, struct val *spec,
                             const char **ret_type, struct err *err)
{
    static const char *const lists[][2] = {{"EntryPoint", "entryPoint"}, {"Command", "command"}};
    const struct val *in_config = val_get(in, "ImageConfig"), *x;
    const char *folder = val_str_at(in_config, "WorkingDirectory", NULL);
    struct val *config;

    if (val_is_null(in_config))
        return 0;
    config = val_need_map(a, spec, "imageConfig");
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        x = val_get(in_config, lists[i][0]);
        if (val_len(x) > 1500)
            BAD(VALIDATION, "1 validation error detected: Value at 'imageConfig.%s' failed to satisfy constraint: Member must have "
                "length less than or equal to 1500", lists[i][1]);
        if (val_len(x))
            val_put(a, config, lists[i][1], x);
        else if (!create) /* a merge patch: what is not named goes */
            val_put(a, config, lists[i][1], val_null(a));
    }
    if (folder && strlen(folder) > 1000)
        BAD(VALIDATION, "1 validation error detected: Value at 'imageConfig.workingDirectory' failed to satisfy constraint: Member "
            "must have length less than or equal to 1000");
    if (!str_empty(folder))
        val_put_str(a, config, "workingDirectory", folder);
    else if (!create)
        val_put(a, config, "workingDirectory", val_null(a));
    return 0;
}

/* Kept and handed out; functions have the network of this machine, not that of a VPC. */
static void read_vpc(struct arena *a, const struct val *in, struct val *spec)
{
    static const char *const same[][2] = {{"SubnetIds", "subnetIds"}, {"SecurityGroupIds", "securityGroupIds"},
        {"Ipv6AllowedForDualStack", "ipv6"}};
    const struct val *vpc = val_get(in, "VpcConfig");
    struct val *to;

    if (val_is_null(vpc))
        return;
    to = val_need_map(a, spec, "vpc");
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!val_is_null(val_get(vpc, same[i][0])))
            val_put(a, to, same[i][1], val_get(vpc, same[i][0]));
}

static void show_vpc(struct arena *a, const struct val *vpc, struct val *c)
{
    struct val *v;

    if (val_is_null(vpc))
        return;
    v = val_need_map(a, c, "VpcConfig");
    val_put(a, v, "SubnetIds", val_get(vpc, "subnetIds") ? val_get(vpc, "subnetIds") : val_list(a));
    val_put(a, v, "SecurityGroupIds", val_get(vpc, "securityGroupIds") ? val_get(vpc, "securityGroupIds") : val_list(a));
    val_put_str(a, v, "VpcId", "");
    val_put_bool(a, v, "Ipv6AllowedForDualStack", val_bool_at(vpc, "ipv6", false));
}

/* What a function could ask for and would not get. */
static int refuse_unserved(const struct val *in, const char **ret_type, struct err *err)
{
    static const struct { const char *member, *why; } NOT_SERVED[] = {
        {"TenancyConfig", "tenants are not isolated from each other inside a function"}};

    for (size_t i = 0; i < ARRAY_LEN(NOT_SERVED); i++)
        if (!val_is_null(val_get(in, NOT_SERVED[i].member)))
            BAD(PARAMETER, "%s is not supported: %s", NOT_SERVED[i].member, NOT_SERVED[i].why);
    return 0;
}

/* Of a capacity provider counts how many calls an instance takes at once; the rest is kept and handed out: instances are
 * this machine's. */
static void read_capacity(struct arena *a, const struct val *in, const struct val *is, struct val *spec)
{
    const struct val *c = val_at(in, "CapacityProviderConfig.LambdaManagedInstancesCapacityProviderConfig"), *x;
    const char *runtime = val_str_at(in, "Runtime", val_str_at(is, "runtime", ""));
    struct val *to;

    if (val_is_null(c))
        return;
    x = val_get(c, "PerExecutionEnvironmentMaxConcurrency");
    val_put(a, spec, "concurrency", x ? x : val_int(a, str_starts(runtime, "nodejs") ? 64 : str_starts(runtime, "python") ? 16 : 32));
    to = val_need_map(a, spec, "capacityProvider");
    val_put_str(a, to, "arn", val_str_at(c, "CapacityProviderArn", ""));
    x = val_get(c, "ExecutionEnvironmentMemoryGiBPerVCpu");
    if (x)
        val_put(a, to, "memoryGiBPerVCpu", x);
}

static void show_capacity(struct arena *a, const struct val *spec, struct val *c)
{
    const struct val *from = val_get(spec, "capacityProvider");
    struct val *to;

    if (val_is_null(from))
        return;
    to = val_need_map(a, val_need_map(a, c, "CapacityProviderConfig"), "LambdaManagedInstancesCapacityProviderConfig");
    val_put_str(a, to, "CapacityProviderArn", val_str_at(from, "arn", ""));
    val_put_int(a, to, "PerExecutionEnvironmentMaxConcurrency", val_int_at(spec, "concurrency", 1));
    if (val_get(from, "memoryGiBPerVCpu"))
        val_put(a, to, "ExecutionEnvironmentMemoryGiBPerVCpu", val_get(from, "memoryGiBPerVCpu"));
}

/* SnapStart as Lambda offers it; images bring a runtime that takes part in it. is: what the function is beside what
 * is asked for now (NULL: it is being made). */
int lambda_snap_start_check(const struct val *is, const struct val *spec, const char **ret_type, struct err *err)
{
#define OF(name, otherwise) val_str_at(spec, name, val_str_at(is, name, otherwise))
    const char *runtime = OF("runtime", "");
    const struct val *files = val_get(spec, "fileSystems");

    if (!streq(OF("snapStart", "None"), "PublishedVersions") || streq(OF("packageType", "Zip"), "Image"))
        return 0;
    if (val_int_at(spec, "concurrency", val_int_at(is, "concurrency", 1)) > 1)
        BAD(PARAMETER, "Capacity providers are not supported for SnapStart enabled functions.");
    if (!str_starts(runtime, "python3."))
        BAD(PARAMETER, "%.60s is not supported for SnapStart enabled functions.", runtime);
    if (val_len(files ? files : val_get(is, "fileSystems")))
        BAD(PARAMETER, "EFS is not supported for SnapStart enabled functions.");
    if (val_int_at(spec, "ephemeralStorageMB", val_int_at(is, "ephemeralStorageMB", 512)) > 512)
        BAD(PARAMETER, "Ephemeral storage greater than 512 MB is not supported for SnapStart enabled functions.");
#undef OF
    return 0;
}

/* Bounds are the model's. A new function that has one (an empty one, too) is durable for good. */
static void read_durable(struct arena *a, const struct val *in, bool create, struct val *spec)
{
    struct val *v;

    if (!val_is(in, VAL_MAP))
        return;
    v = val_need_map(a, spec, "durable");
    if (create || val_get(in, "ExecutionTimeout"))
        val_put_int(a, v, "executionTimeoutSeconds", val_int_at(in, "ExecutionTimeout", DURABLE_TIMEOUT_DEFAULT_S));
    if (create || val_get(in, "RetentionPeriodInDays"))
        val_put_int(a, v, "retentionDays", val_int_at(in, "RetentionPeriodInDays", DURABLE_RETENTION_DEFAULT_DAYS));
    if (val_str_at(in, "KMSKeyArn", NULL))
        val_put_str(a, v, "kmsKey", val_str_at(in, "KMSKeyArn", ""));
}

int lambda_conf_read(struct aws_req *q, const struct val *in, const struct val *is, struct val *spec,
                     const char **ret_type, struct err *err)
{
    static const char *const tracing[] = {"Active", "PassThrough", NULL};
    static const char *const snapshots[] = {"PublishedVersions", "None", NULL};
    static const char *const packages[] = {"Zip", "Image", NULL};
    bool create = !is;
    struct arena *a = q->req->arena;
    const char *runtime = val_str_at(in, "Runtime", NULL), *handler = val_str_at(in, "Handler", NULL);
    bool image;

    if (refuse_unserved(in, ret_type, err) < 0 || read_enum(in, "PackageType", packages, a, spec, "packageType", ret_type, err) < 0)
        return -1;
    read_vpc(a, in, spec);
    read_capacity(a, in, is, spec);
    image = streq(val_str_at(in, "PackageType", "Zip"), "Image");
    if (image && (runtime || handler || val_len(val_get(in, "Layers"))))
        BAD(PARAMETER, "Please don't provide %s when the intended function PackageType is IMAGE",
            handler ? "handler" : runtime ? "runtime" : "layers");
    if (create && image != (val_str_at(in, "Code.ImageUri", NULL) != NULL))
        BAD(PARAMETER, image ? "Please provide ImageUri when creating a function with packageType Image."
                             : "Please don't provide ImageUri when creating a function with packageType Zip.");
    if (read_image_config(a, in, create, spec, ret_type, err) < 0)
        return -1;
    if (create && !image && (!runtime || str_empty(handler)))
        BAD(PARAMETER, "Runtime and Handler are mandatory parameters for functions created with deployment packages.");
    if (create && !val_str_at(in, "Role", NULL))
        BAD(VALIDATION, "1 validation error detected: Value null at 'role' failed to satisfy constraint: Member must not be null");
    if (runtime && function_runtime_check(runtime, err) < 0) {
        *ret_type = PARAMETER;
        err->code = ERR_INVALID_ARGUMENT;
        return -1;
    }
    if (handler && (strlen(handler) > 128 || strpbrk(handler, " \t\n")))
        BAD(VALIDATION, "1 validation error detected: Value '%.140s' at 'handler' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: [^\\s]+", handler);
    if (val_str_at(in, "Role", NULL) && !str_starts(val_str_at(in, "Role", ""), "arn:aws"))
        BAD(VALIDATION, "1 validation error detected: Value '%.200s' at 'role' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+",
            val_str_at(in, "Role", ""));
    if (strlen(val_str_at(in, "Description", "")) > 256)
        BAD(VALIDATION, "1 validation error detected: Value at 'description' failed to satisfy constraint: Member must have "
            "length less than or equal to 256");
    read_str(in, "Runtime", a, spec, "runtime");
    read_str(in, "Handler", a, spec, "handler");
    read_str(in, "Role", a, spec, "role");
    read_str(in, "Description", a, spec, "description");
    read_str(in, "KMSKeyArn", a, spec, "kmsKey");
    read_str(in, "DeadLetterConfig.TargetArn", a, spec, "deadLetter");
    if (val_str_at(in, "DeadLetterConfig.TargetArn", NULL)) { /* kept in any case; queues and topics take nothing yet */
        struct val *to = lambda_destination(q, val_str_at(in, "DeadLetterConfig.TargetArn", ""));

        val_put(a, spec, "deadLetterTo", to ? to : val_null(a));
    }
    if (read_int(in, "Timeout", 1, 900, a, spec, "timeoutSeconds", ret_type, err) < 0 ||
        read_int(in, "MemorySize", 128, 10240, a, spec, "memoryMB", ret_type, err) < 0 ||
        read_int(in, "EphemeralStorage.Size", 512, 10240, a, spec, "ephemeralStorageMB", ret_type, err) < 0 ||
        read_environment(a, in, spec, ret_type, err) < 0 ||
        read_file_systems(a, in, spec, ret_type, err) < 0 ||
        read_enum(in, "SnapStart.ApplyOn", snapshots, a, spec, "snapStart", ret_type, err) < 0 ||
        read_enum(in, "TracingConfig.Mode", tracing, a, spec, "tracingMode", ret_type, err) < 0 ||
        read_logging(a, in, spec, ret_type, err) < 0)
        return -1;
    if (val_get(in, "Architectures")) {
        VAL_EACH(val_get(in, "Architectures"), it)
            if (!streq(val_text(it, ""), "x86_64"))
                BAD(PARAMETER, "this machine runs x86_64 functions only");
        val_put(a, spec, "architectures", val_get(in, "Architectures"));
    }
    if (val_get(in, "Tags")) {
        bool many;
        const char *wrong = aws_tags_wrong(q, NULL, val_get(in, "Tags"), &many);

        if (wrong)
            BAD(PARAMETER, "%s", wrong);
        val_put(a, spec, "tags", val_get(in, "Tags"));
    }
    read_durable(a, val_get(in, "DurableConfig"), create, spec);
    return 0;
}

/* ---- what a caller sees ---- */

char *lambda_sha_base64(struct arena *a, const char *hex)
{
    unsigned char sum[32];

    if (strlen(hex) != 64)
        return arena_strdup(a, "");
    for (int i = 0; i < 32; i++) {
        unsigned v = 0;

        sscanf(hex + 2 * i, "%2x", &v);
        sum[i] = (unsigned char)v;
    }
    return b64_encode(a, sum, 32);
}

struct val *lambda_conf(struct aws_req *q, const struct obj *o)
{
    struct arena *a = q->req->arena;
    const struct val *v = obj_val(o), *spec = val_get(v, "spec"), *x;
    int64_t number = val_int_at(spec, "version", 0);
    const char *name = lambda_name_of(o), *modified = obj_annotation(o, A_MODIFIED);
    const char *state = val_str_at(v, "status.state", "Active"), *reason = val_str_at(v, "status.stateReason", NULL);
    const char *code = val_str_at(v, "status.stateReasonCode", NULL);
    struct val *c = val_map(a);
    bool image, snaps;

    if (number)
        spec = val_get(spec, "template");
    if (number && !val_str_at(v, "status.state", NULL) && streq(val_str_at(spec, "snapStart", "None"), "PublishedVersions") &&
        !streq(val_str_at(spec, "packageType", "Zip"), "Image")) { /* its snapshot is being made */
        state = "Pending";
        reason = "The function is being created.";
        code = "Creating";
    }
    val_put_str(a, c, "FunctionName", name);
    val_put_str(a, c, "FunctionArn",
                number ? arena_printf(a, "%s:%lld", lambda_arn(q, name), (long long)number) : lambda_arn(q, name));
    image = streq(val_str_at(spec, "packageType", "Zip"), "Image");
    if (!image)
        val_put_str(a, c, "Runtime", val_str_at(spec, "runtime", ""));
    val_put_str(a, c, "Role", val_str_at(spec, "role", arena_printf(a, "arn:aws:iam::%s:role/tandem", q->d->account)));
    if (!image)
        val_put_str(a, c, "Handler", val_str_at(spec, "handler", ""));
    val_put_int(a, c, "CodeSize", val_int_at(spec, "codeSize", 0));
    val_put_str(a, c, "Description", val_str_at(spec, "description", ""));
    val_put_int(a, c, "Timeout", val_int_at(spec, "timeoutSeconds", 3));
    val_put_int(a, c, "MemorySize", val_int_at(spec, "memoryMB", 128));
    if (!modified) { /* made by somebody else: 2026-01-01T00:00:00Z in Lambda's form */
        const char *made = val_str_at(v, "metadata.creationTimestamp", "1970-01-01T00:00:00Z");

        modified = arena_printf(a, "%.19s.000+0000", made);
    }
    val_put_str(a, c, "LastModified", modified);
    x = val_get(spec, "imageConfig");
    if (image) /* the digest itself */
        val_put_str(a, c, "CodeSha256", str_starts(val_str_at(spec, "imageDigest", ""), "sha256:") ? val_str_at(spec, "imageDigest", "") + 7 : "");
    else
        val_put_str(a, c, "CodeSha256", lambda_sha_base64(a, val_str_at(spec, "codeSha256", "")));
    if (image && val_len(x)) {
        struct val *shown = val_need_map(a, val_need_map(a, c, "ImageConfigResponse"), "ImageConfig");

        if (val_len(val_get(x, "entryPoint")))
            val_put(a, shown, "EntryPoint", val_get(x, "entryPoint"));
        if (val_len(val_get(x, "command")))
            val_put(a, shown, "Command", val_get(x, "command"));
        if (!str_empty(val_str_at(x, "workingDirectory", NULL)))
            val_put_str(a, shown, "WorkingDirectory", val_str_at(x, "workingDirectory", ""));
    }
    val_put_str(a, c, "Version", number ? arena_printf(a, "%lld", (long long)number) : "$LATEST");
    if (val_len(val_get(spec, "environment")))
        val_put(a, val_need_map(a, c, "Environment"), "Variables", val_get(spec, "environment"));
    if (!str_empty(val_str_at(spec, "deadLetter", NULL)))
        val_put_str(a, val_need_map(a, c, "DeadLetterConfig"), "TargetArn", val_str_at(spec, "deadLetter", ""));
    if (!str_empty(val_str_at(spec, "kmsKey", NULL)))
        val_put_str(a, c, "KMSKeyArn", val_str_at(spec, "kmsKey", ""));
    val_put_str(a, val_need_map(a, c, "TracingConfig"), "Mode", val_str_at(spec, "tracingMode", "PassThrough"));
    val_put_str(a, c, "RevisionId", lambda_revision(q, o));
    show_vpc(a, val_get(spec, "vpc"), c);
    show_capacity(a, spec, c);
    x = val_get(spec, "fileSystems");
    if (val_len(x)) {
        struct val *list = val_list(a);

        VAL_EACH(x, it) {
            struct val *f = val_map(a);

            val_put(a, f, "Arn", val_printf(a, "arn:aws:elasticfilesystem:%s:%s:access-point/%s", q->d->region,
                                            q->d->account, val_str_at(it, "volume", "")));
            val_put_str(a, f, "LocalMountPath", val_str_at(it, "localMountPath", ""));
            val_push(a, list, f);
        }
        val_put(a, c, "FileSystemConfigs", list);
    }
    x = val_get(spec, "layers");
    if (val_len(x)) {
        struct val *list = val_list(a);

        VAL_EACH(x, it) {
            struct val *l = val_map(a);

            val_put_str(a, l, "Arn", val_str_at(it, "arn", ""));
            val_put_int(a, l, "CodeSize", val_int_at(it, "codeSize", 0));
            val_push(a, list, l);
        }
        val_put(a, c, "Layers", list);
    }
    val_put_str(a, c, "State", state);
    if (!str_empty(reason)) {
        val_put_str(a, c, "StateReason", reason);
        if (!str_empty(code))
            val_put_str(a, c, "StateReasonCode", code);
    }
    val_put_str(a, c, "LastUpdateStatus", val_str_at(v, "status.lastUpdateStatus", "Successful"));
    val_put_str(a, c, "PackageType", val_str_at(spec, "packageType", "Zip"));
    x = val_get(spec, "architectures");
    if (val_len(x))
        val_put(a, c, "Architectures", x);
    else
        val_push_str(a, val_need_list(a, c, "Architectures"), "x86_64");
    val_put_int(a, val_need_map(a, c, "EphemeralStorage"), "Size", val_int_at(spec, "ephemeralStorageMB", 512));
    snaps = number && streq(val_str_at(spec, "snapStart", "None"), "PublishedVersions");
    val_put_str(a, val_need_map(a, c, "SnapStart"), "ApplyOn", val_str_at(spec, "snapStart", "None"));
    val_put_str(a, val_get(c, "SnapStart"), "OptimizationStatus", snaps && !streq(val_str_at(v, "status.snapshot", "On"), "Off") && !image ? "On" : "Off");
    x = val_get(spec, "durable");
    if (val_is(x, VAL_MAP)) {
        struct val *shown = val_need_map(a, c, "DurableConfig");

        val_put_int(a, shown, "ExecutionTimeout", val_int_at(x, "executionTimeoutSeconds", DURABLE_TIMEOUT_DEFAULT_S));
        val_put_int(a, shown, "RetentionPeriodInDays", val_int_at(x, "retentionDays", DURABLE_RETENTION_DEFAULT_DAYS));
        if (!str_empty(val_str_at(x, "kmsKey", NULL)))
            val_put_str(a, shown, "KMSKeyArn", val_str_at(x, "kmsKey", ""));
    }
    val_put_str(a, val_need_map(a, c, "LoggingConfig"), "LogFormat", val_str_at(spec, "loggingConfig.logFormat", "Text"));
    val_put_str(a, val_get(c, "LoggingConfig"), "LogGroup",
                val_str_at(spec, "loggingConfig.logGroup", arena_printf(a, "/aws/lambda/%s", name)));
    if (streq(val_str_at(spec, "loggingConfig.logFormat", "Text"), "JSON")) {
        val_put_str(a, val_get(c, "LoggingConfig"), "ApplicationLogLevel", val_str_at(spec, "loggingConfig.applicationLogLevel", "INFO"));
        val_put_str(a, val_get(c, "LoggingConfig"), "SystemLogLevel", val_str_at(spec, "loggingConfig.systemLogLevel", "INFO"));
    }
    return c;
}
