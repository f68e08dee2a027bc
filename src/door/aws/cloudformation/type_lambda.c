/* door/aws/cloudformation/type_lambda.c - AWS::Lambda::*. */
#include "door/aws/cloudformation/cfn_int.h"
#include "env/clock.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>

#define F "/2015-03-31/functions/"

/* Numbers and booleans come as texts from templates: the API wants them as what they are. */
static struct val *typed(struct arena *a, const struct val *v)
{
    char *end;
    long long n;

    if (!val_is(v, VAL_STR))
        return val_copy(a, v);
    if (streq(v->s, "true") || streq(v->s, "false"))
        return val_bool(a, v->s[0] == 't');
    n = strtoll(v->s, &end, 10);
    return *v->s && !*end ? val_int(a, n) : val_copy(a, v);
}

static void copy_names(struct cfn_work *w, struct val *into, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (val_get(w->props, names[i]))
            val_put(w->a, into, names[i], val_get(w->props, names[i]));
}

static struct val *tag_map(struct cfn_work *w, const struct val *props)
{
    struct val *map = val_map(w->a);
    const struct val *tags = val_get(props, "Tags");

    VAL_EACH(tags, t)
        val_put_str(w->a, map, val_str_at(t, "Key", ""), cfn_scalar(w->a, val_get(t, "Value")) ? cfn_scalar(w->a, val_get(t, "Value")) : "");
    if (val_is(tags, VAL_MAP))
        VAL_EACH_MEMBER(tags, m)
            val_put(w->a, map, m->key, &m->v);
    VAL_EACH(val_get(w->s->spec, "tags"), t)
        if (!val_get(map, val_str_at(t, "Key", "")))
            val_put_str(w->a, map, val_str_at(t, "Key", ""), val_str_at(t, "Value", ""));
    val_put_str(w->a, map, "aws:cloudformation:stack-name", w->s->name);
    val_put_str(w->a, map, "aws:cloudformation:stack-id", w->s->id);
    val_put_str(w->a, map, "aws:cloudformation:logical-id", w->r->logical);
    return map;
}

/* "arn:...:function:NAME[:Q]" or "NAME[:Q]" as a path segment: the API takes it as it is. */
static const char *seg(struct cfn_work *w, const char *s)
{
    return http_escape(w->a, s, NULL);
}

static const char *prop(const struct cfn_work *w, const char *name)
{
    return val_str_at(w->props, name, "");
}

/* ---- Function ---- */

static const char *const CONF[] = {"Runtime", "Role", "Handler", "Description", "Environment", "Layers", "KmsKeyArn", "TracingConfig",
                                   "DeadLetterConfig", "VpcConfig", "DurableConfig", "FileSystemConfigs", "ImageConfig", "EphemeralStorage",
                                   "SnapStart", "LoggingConfig"};

void cfn_zip_of_text(struct arena *a, const char *name, const char *text, size_t n, char **ret, size_t *ret_n)
{
    struct archive *ar = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t cap = n + 4096;
    char *out = arena_raw(a, cap);

    archive_write_set_format_zip(ar);
    archive_write_set_options(ar, "zip:compression=store");
    archive_write_open_memory(ar, out, cap, ret_n);
    archive_entry_set_pathname(e, name);
    archive_entry_set_size(e, (int64_t)n);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_mtime(e, 315532800, 0); /* the same text is the same zip */
    archive_write_header(ar, e);
    archive_write_data(ar, text, n);
    archive_entry_free(e);
    archive_write_close(ar);
    archive_write_free(ar);
    *ret = out;
}

static void put_code(struct cfn_work *w, struct val *into)
{
    const struct val *code = val_get(w->props, "Code");
    const char *text = val_str_at(code, "ZipFile", NULL), *runtime = prop(w, "Runtime"), *handler = prop(w, "Handler");
    char *zip;
    size_t n;

    if (!text) {
        static const char *const NAMES[] = {"S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri"};

        for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
            if (val_get(code, NAMES[i]))
                val_put(w->a, into, NAMES[i], val_get(code, NAMES[i]));
        return;
    }
    /* the text of one file, named as the handler says */
    cfn_zip_of_text(w->a, arena_printf(w->a, "%.*s.%s", (int)strcspn(handler, "."), *handler ? handler : "index",
                                       str_starts(runtime, "nodejs") ? "js" : "py"), text, strlen(text), &zip, &n);
    val_put_str(w->a, into, "ZipFile", b64_encode(w->a, zip, n));
}

static struct val *function_conf(struct cfn_work *w, bool update)
{
    static const struct {
        const char *name, *otherwise; /* what it is again when the template names it no more */
    } DEFAULTS[] = {{"Description", "\"\""}, {"Environment", "{\"Variables\":{}}"}, {"Layers", "[]"}};
    struct val *v = val_map(w->a);
    struct err err;

    copy_names(w, v, CONF, ARRAY_LEN(CONF));
    VAL_EACH_MEMBER(val_at(v, "Environment.Variables"), m)
        if (!val_is(&m->v, VAL_STR) && cfn_scalar(w->a, &m->v))
            m->v = *val_str(w->a, cfn_scalar(w->a, &m->v));
    if (val_get(w->props, "Timeout"))
        val_put(w->a, v, "Timeout", typed(w->a, val_get(w->props, "Timeout")));
    else if (update && val_get(w->was, "Timeout"))
        val_put_int(w->a, v, "Timeout", 3);
    if (val_get(w->props, "MemorySize"))
        val_put(w->a, v, "MemorySize", typed(w->a, val_get(w->props, "MemorySize")));
    else if (update && val_get(w->was, "MemorySize"))
        val_put_int(w->a, v, "MemorySize", 128);
    if (val_at(v, "EphemeralStorage.Size"))
        val_put(w->a, val_get(v, "EphemeralStorage"), "Size", typed(w->a, val_at(v, "EphemeralStorage.Size")));
    VAL_EACH_MEMBER(val_get(v, "DurableConfig"), m)
        if (!streq(m->key, "KMSKeyArn"))
            m->v = *typed(w->a, &m->v);
    for (size_t i = 0; update && i < ARRAY_LEN(DEFAULTS); i++)
        if (val_get(w->was, DEFAULTS[i].name) && !val_get(w->props, DEFAULTS[i].name))
            val_put(w->a, v, DEFAULTS[i].name, json_parse(w->a, DEFAULTS[i].otherwise, strlen(DEFAULTS[i].otherwise), &err));
    return v;
}

static void wait_active(struct cfn_work *w);

static void got_state(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *state = val_str_at(ans->v, "State", ""), *update = val_str_at(ans->v, "LastUpdateStatus", "Successful");

    if (streq(w->r->type, "AWS::Lambda::Function"))
        cfn_attr(w, "Arn", val_str_at(ans->v, "FunctionArn", NULL));
    if (streq(state, "Failed") || streq(update, "Failed"))
        cfn_fail(w, "NotStabilized", "%s", val_str_at(ans->v, "StateReason", val_str_at(ans->v, "LastUpdateStatusReason", "it failed")));
    else if (streq(state, "Active") && !streq(update, "InProgress"))
        return;
    else if (clock_real_ms() > w->deadline_ms)
        cfn_fail(w, "NotStabilized", "the function is still %s", state);
    else
        wait_active(w);
}

/* Of the function, or of the version that w->phys is the ARN of. */
static void wait_active(struct cfn_work *w)
{
    const char *version = streq(w->r->type, "AWS::Lambda::Version") ? val_str_at(w->attrs, "Version", NULL) : NULL;
    const char *function = version ? prop(w, "FunctionName") : w->phys;
    struct cfn_call c = cfn_rest(w, "GET", NULL, version ? F "%s/configuration?Qualifier=%s" : F "%s/configuration", seg(w, function), version);

    if (!w->deadline_ms)
        w->deadline_ms = clock_real_ms() + CFN_WAIT_MS;
    else
        c.delay_ms = 40;
    c.got = got_state;
    cfn_push_next(w, &c);
}

static void push_rest(struct cfn_work *w, struct cfn_call c)
{
    cfn_push(w, &c);
}

static void concurrency(struct cfn_work *w)
{
    const struct val *n = val_get(w->props, "ReservedConcurrentExecutions");
    struct val *v = val_map(w->a);

    if (n) {
        val_put(w->a, v, "ReservedConcurrentExecutions", typed(w->a, n));
        push_rest(w, cfn_rest(w, "PUT", v, "/2017-10-31/functions/%s/concurrency", seg(w, w->phys)));
    } else if (val_get(w->was, "ReservedConcurrentExecutions")) {
        push_rest(w, cfn_rest(w, "DELETE", NULL, "/2017-10-31/functions/%s/concurrency", seg(w, w->phys)));
    }
}

static void code_signing(struct cfn_work *w)
{
    const struct val *arn = val_get(w->props, "CodeSigningConfigArn");
    struct val *v = val_map(w->a);

    if (!cfn_changed(w, "CodeSigningConfigArn"))
        return;
    if (arn)
        val_put(w->a, v, "CodeSigningConfigArn", arn);
    if (arn)
        push_rest(w, cfn_rest(w, "PUT", v, "/2020-06-30/functions/%s/code-signing-config", seg(w, w->phys)));
    else
        push_rest(w, cfn_rest(w, "DELETE", NULL, "/2020-06-30/functions/%s/code-signing-config", seg(w, w->phys)));
}

static void got_function(struct cfn_work *w, const struct cfn_answer *ans)
{
    (void)ans;
    cfn_phys(w, val_str_at(ans->v, "FunctionName", w->phys));
    concurrency(w);
    wait_active(w);
}

static void function_create(struct cfn_work *w)
{
    struct val *v = function_conf(w, false), *code = val_map(w->a);
    const char *name = cfn_name(w, "FunctionName", 64, false);
    struct cfn_call c;

    val_put_str(w->a, v, "FunctionName", name);
    put_code(w, code);
    val_put(w->a, v, "Code", code);
    if (val_get(w->props, "PackageType"))
        val_put(w->a, v, "PackageType", val_get(w->props, "PackageType"));
    if (val_get(w->props, "Architectures"))
        val_put(w->a, v, "Architectures", val_get(w->props, "Architectures"));
    if (val_get(w->props, "CodeSigningConfigArn"))
        val_put(w->a, v, "CodeSigningConfigArn", val_get(w->props, "CodeSigningConfigArn"));
    val_put(w->a, v, "Tags", tag_map(w, w->props));
    w->phys = name;
    c = cfn_rest(w, "POST", v, "/2015-03-31/functions");
    /* a generated name is of this stack alone: a try before a restart has made it */
    if (!val_get(w->props, "FunctionName") || (w->resumed && w->r->made))
        c.fine = "ResourceConflictException";
    c.got = got_function;
    cfn_push(w, &c);
}

static void got_tags(struct cfn_work *w, const struct cfn_answer *ans)
{
    struct val *want = tag_map(w, w->props);
    struct buf b = {0};
    struct cfn_call c;
    struct val *v = val_map(w->a);
    const char *arn = http_escape(w->a, val_str_at(w->attrs, "Arn", ""), NULL);

    VAL_EACH_MEMBER(val_get(ans->v, "Tags"), m)
        if (!val_get(want, m->key))
            buf_printf(&b, "%stagKeys=%s", b.n ? "&" : "", http_escape(w->a, m->key, NULL));
    if (b.n) {
        c = cfn_rest(w, "DELETE", NULL, "/2017-03-31/tags/%s?%s", arn, b.p);
        cfn_push(w, &c);
    }
    buf_done(&b);
    val_put(w->a, v, "Tags", want);
    c = cfn_rest(w, "POST", v, "/2017-03-31/tags/%s", arn);
    cfn_push(w, &c);
}

static void got_update(struct cfn_work *w, const struct cfn_answer *ans)
{
    (void)ans;
    wait_active(w);
}

static void function_update(struct cfn_work *w)
{
    struct val *code = val_map(w->a);
    struct cfn_call c;

    if (cfn_changed(w, "Code") || cfn_changed(w, "Architectures") || w->r->dirty) {
        put_code(w, code);
        if (val_get(w->props, "Architectures"))
            val_put(w->a, code, "Architectures", val_get(w->props, "Architectures"));
        c = cfn_rest(w, "PUT", code, F "%s/code", seg(w, w->phys));
        c.got = got_update;
        cfn_push(w, &c);
    }
    c = cfn_rest(w, "PUT", function_conf(w, true), F "%s/configuration", seg(w, w->phys));
    c.got = got_update;
    cfn_push(w, &c);
    concurrency(w);
    code_signing(w);
    c = cfn_rest(w, "GET", NULL, "/2017-03-31/tags/%s", http_escape(w->a, val_str_at(w->attrs, "Arn", ""), NULL));
    c.got = got_tags;
    cfn_push(w, &c);
}

static void function_drop(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, F "%s", seg(w, w->phys));

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

/* ---- Version, Alias ---- */

static struct val *provisioned(struct cfn_work *w)
{
    const struct val *n = val_at(w->props, "ProvisionedConcurrencyConfig.ProvisionedConcurrentExecutions");
    struct val *v;

    if (!n)
        return NULL;
    v = val_map(w->a);
    val_put(w->a, v, "ProvisionedConcurrentExecutions", typed(w->a, n));
    return v;
}

static void provision(struct cfn_work *w, const char *function, const char *qualifier)
{
    struct val *v = provisioned(w);
    struct cfn_call c;

    if (v)
        c = cfn_rest(w, "PUT", v, "/2019-09-30/functions/%s/provisioned-concurrency?Qualifier=%s", seg(w, function), qualifier);
    else if (val_get(w->was, "ProvisionedConcurrencyConfig"))
        c = cfn_rest(w, "DELETE", NULL, "/2019-09-30/functions/%s/provisioned-concurrency?Qualifier=%s", seg(w, function), qualifier);
    else
        return;
    cfn_push(w, &c);
}

static void got_version(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *version = val_str_at(ans->v, "Version", "");

    cfn_phys(w, val_str_at(ans->v, "FunctionArn", ""));
    cfn_attr(w, "Version", version);
    cfn_attr(w, "FunctionArn", w->phys);
    provision(w, prop(w, "FunctionName"), version);
    wait_active(w); /* with SnapStart it is initialised first */
}

static void version_create(struct cfn_work *w)
{
    static const char *const NAMES[] = {"CodeSha256", "Description"};
    struct val *v = val_map(w->a);
    struct cfn_call c;

    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    c = cfn_rest(w, "POST", v, F "%s/versions", seg(w, prop(w, "FunctionName")));
    c.got = got_version;
    cfn_push(w, &c);
}

static void version_drop(struct cfn_work *w)
{
    const char *colon = strrchr(w->phys, ':');
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, F "%s?Qualifier=%s",
                                 seg(w, arena_strndup(w->a, w->phys, colon ? (size_t)(colon - w->phys) : 0)), colon ? colon + 1 : "");

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

static struct val *alias_body(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Name", "FunctionVersion", "Description"};
    struct val *v = val_map(w->a), *weights;
    const struct val *routing = val_get(w->props, "RoutingConfig");

    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    if (routing || val_get(w->was, "RoutingConfig")) {
        weights = val_need_map(w->a, val_need_map(w->a, v, "RoutingConfig"), "AdditionalVersionWeights");
        VAL_EACH(val_get(routing, "AdditionalVersionWeights"), it)
        {
            const char *text = cfn_scalar(w->a, val_get(it, "FunctionWeight"));

            val_put(w->a, weights, val_str_at(it, "FunctionVersion", ""), val_double(w->a, text ? strtod(text, NULL) : 0));
        }
    }
    return v;
}

static void got_alias(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *arn = val_str_at(ans->v, "AliasArn", w->phys);

    if (arn)
        cfn_phys(w, arn);
    cfn_attr(w, "AliasArn", arn);
    provision(w, prop(w, "FunctionName"), prop(w, "Name"));
}

static void alias_create(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "POST", alias_body(w), F "%s/aliases", seg(w, prop(w, "FunctionName")));

    c.got = got_alias;
    cfn_push(w, &c);
}

static void alias_update(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "PUT", alias_body(w), F "%s/aliases/%s", seg(w, prop(w, "FunctionName")), prop(w, "Name"));

    c.got = got_alias;
    cfn_push(w, &c);
}

static void alias_drop(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, F "%s/aliases/%s", seg(w, prop(w, "FunctionName")), prop(w, "Name"));

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

/* ---- Permission, Url, EventInvokeConfig ---- */

static void permission_create(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Action", "Principal", "SourceArn", "SourceAccount", "EventSourceToken",
                                        "FunctionUrlAuthType", "PrincipalOrgID"};
    const char *sid = cfn_name(w, NULL, 100, false);
    struct val *v = val_map(w->a);
    struct cfn_call c;

    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    val_put_str(w->a, v, "StatementId", sid);
    if (val_get(w->props, "InvokedViaFunctionUrl"))
        val_put(w->a, v, "InvokedViaFunctionUrl", typed(w->a, val_get(w->props, "InvokedViaFunctionUrl")));
    w->phys = sid;
    cfn_attr(w, "Id", sid);
    c = cfn_rest(w, "POST", v, F "%s/policy", seg(w, prop(w, "FunctionName")));
    c.fine = "ResourceConflictException"; /* the id is of this stack alone */
    cfn_push(w, &c);
}

static void permission_drop(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, F "%s/policy/%s", seg(w, prop(w, "FunctionName")), seg(w, w->phys));

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

static struct cfn_call url_call(struct cfn_work *w, const char *method)
{
    static const char *const NAMES[] = {"AuthType", "Cors", "InvokeMode"};
    const char *qualifier = val_str_at(w->props, "Qualifier", NULL);
    struct val *v = streq(method, "DELETE") ? NULL : val_map(w->a);

    if (v)
        copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    if (v && val_get(v, "Cors"))
        VAL_EACH_MEMBER(val_get(v, "Cors"), m)
            if (m->v.type == VAL_STR)
                m->v = *typed(w->a, &m->v);
    return cfn_rest(w, method, v, "/2021-10-31/functions/%s/url%s%s", seg(w, prop(w, "TargetFunctionArn")),
                    qualifier ? "?Qualifier=" : "", qualifier ? qualifier : "");
}

static void got_url(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *arn = val_str_at(ans->v, "FunctionArn", w->phys ? w->phys : prop(w, "TargetFunctionArn"));

    cfn_phys(w, arn);
    cfn_attr(w, "FunctionArn", arn);
    cfn_attr(w, "FunctionUrl", val_str_at(ans->v, "FunctionUrl", NULL));
}

static void url_create(struct cfn_work *w)
{
    struct cfn_call c = url_call(w, "POST");

    c.got = got_url;
    if (w->resumed)
        c.fine = "ResourceConflictException";
    cfn_push(w, &c);
    if (w->resumed) {
        c = url_call(w, "PUT");
        c.got = got_url;
        cfn_push(w, &c);
    }
}
static void url_update(struct cfn_work *w)
{
    struct cfn_call c = url_call(w, "PUT");

    c.got = got_url;
    cfn_push(w, &c);
}
static void url_drop(struct cfn_work *w)
{
    struct cfn_call c = url_call(w, "DELETE");

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

static struct cfn_call invoke_conf(struct cfn_work *w, const char *method)
{
    static const char *const NUMBERS[] = {"MaximumEventAgeInSeconds", "MaximumRetryAttempts"};
    struct val *v = streq(method, "DELETE") ? NULL : val_map(w->a);

    for (size_t i = 0; v && i < ARRAY_LEN(NUMBERS); i++)
        if (val_get(w->props, NUMBERS[i]))
            val_put(w->a, v, NUMBERS[i], typed(w->a, val_get(w->props, NUMBERS[i])));
    if (v && val_get(w->props, "DestinationConfig"))
        val_put(w->a, v, "DestinationConfig", val_get(w->props, "DestinationConfig"));
    return cfn_rest(w, method, v, "/2019-09-25/functions/%s/event-invoke-config?Qualifier=%s", seg(w, prop(w, "FunctionName")),
                    seg(w, val_str_at(w->props, "Qualifier", "$LATEST")));
}
static void invoke_conf_create(struct cfn_work *w)
{
    struct cfn_call c = invoke_conf(w, "PUT");

    w->phys = cfn_name(w, NULL, 100, false);
    cfn_push(w, &c);
}
static void invoke_conf_drop(struct cfn_work *w)
{
    struct cfn_call c = invoke_conf(w, "DELETE");

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

/* ---- LayerVersion and its permissions ---- */

static void got_layer(struct cfn_work *w, const struct cfn_answer *ans)
{
    cfn_phys(w, val_str_at(ans->v, "LayerVersionArn", ""));
    cfn_attr(w, "LayerVersionArn", w->phys);
}
static void layer_create(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Description", "CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo", "Content"};
    struct val *v = val_map(w->a);
    struct cfn_call c;

    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    c = cfn_rest(w, "POST", v, "/2018-10-31/layers/%s/versions", seg(w, cfn_name(w, "LayerName", 64, false)));
    c.got = got_layer;
    cfn_push(w, &c);
}

static bool layer_of(struct cfn_work *w, const char *arn, const char **ret_name, const char **ret_version)
{
    const char *at = strstr(arn, ":layer:"), *colon = at ? strchr(at + 7, ':') : NULL;

    if (!colon)
        return false;
    *ret_name = arena_strndup(w->a, at + 7, (size_t)(colon - at - 7));
    *ret_version = colon + 1;
    return true;
}
static void layer_drop(struct cfn_work *w)
{
    const char *name, *version;
    struct cfn_call c;

    if (!layer_of(w, w->phys, &name, &version))
        return;
    c = cfn_rest(w, "DELETE", NULL, "/2018-10-31/layers/%s/versions/%s", seg(w, name), version);
    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

static void layer_permission_create(struct cfn_work *w)
{
    static const char *const NAMES[] = {"Action", "Principal", "OrganizationId"};
    const char *name, *version, *sid = cfn_name(w, NULL, 100, false);
    struct val *v = val_map(w->a);
    struct cfn_call c;

    if (!layer_of(w, prop(w, "LayerVersionArn"), &name, &version)) {
        cfn_fail(w, "InvalidRequest", "LayerVersionArn is not the ARN of a layer's version: %s", prop(w, "LayerVersionArn"));
        return;
    }
    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    val_put_str(w->a, v, "StatementId", sid);
    w->phys = arena_printf(w->a, "%s#%s", prop(w, "LayerVersionArn"), sid);
    c = cfn_rest(w, "POST", v, "/2018-10-31/layers/%s/versions/%s/policy", seg(w, name), version);
    cfn_push(w, &c);
}
static void layer_permission_drop(struct cfn_work *w)
{
    const char *name, *version, *sid = strchr(w->phys, '#');
    struct cfn_call c;

    if (!sid || !layer_of(w, prop(w, "LayerVersionArn"), &name, &version))
        return;
    c = cfn_rest(w, "DELETE", NULL, "/2018-10-31/layers/%s/versions/%s/policy/%s", seg(w, name), version, sid + 1);
    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

/* ---- EventSourceMapping ---- */

static struct val *mapping_body(struct cfn_work *w)
{
    struct val *v = val_map(w->a);

    VAL_EACH_MEMBER(w->props, m)
        if (!streq(m->key, "Tags"))
            val_put(w->a, v, m->key, typed(w->a, &m->v));
    return v;
}
static void got_mapping(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *id = val_str_at(ans->v, "UUID", w->phys);

    if (id)
        cfn_phys(w, id);
    cfn_attr(w, "Id", id);
    cfn_attr(w, "EventSourceMappingArn", val_str_at(ans->v, "EventSourceMappingArn", NULL));
}
static void mapping_create(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "POST", mapping_body(w), "/2015-03-31/event-source-mappings");

    c.got = got_mapping;
    cfn_push(w, &c);
}
static void mapping_update(struct cfn_work *w)
{
    struct val *v = mapping_body(w);
    struct cfn_call c;

    val_del(v, "EventSourceArn");
    val_del(v, "StartingPosition");
    c = cfn_rest(w, "PUT", v, "/2015-03-31/event-source-mappings/%s", w->phys);
    c.got = got_mapping;
    cfn_push(w, &c);
}
static void mapping_drop(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, "/2015-03-31/event-source-mappings/%s", w->phys);

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

/* ---- CodeSigningConfig ---- */

static struct val *signing_body(struct cfn_work *w)
{
    static const char *const NAMES[] = {"AllowedPublishers", "CodeSigningPolicies", "Description"};
    struct val *v = val_map(w->a);

    copy_names(w, v, NAMES, ARRAY_LEN(NAMES));
    if (w->action == CFN_CREATE)
        val_put(w->a, v, "Tags", tag_map(w, w->props));
    return v;
}
static void got_signing(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *arn = val_str_at(ans->v, "CodeSigningConfig.CodeSigningConfigArn", NULL);

    if (!arn)
        return;
    cfn_phys(w, arn);
    cfn_attr(w, "CodeSigningConfigArn", arn);
    cfn_attr(w, "CodeSigningConfigId", val_str_at(ans->v, "CodeSigningConfig.CodeSigningConfigId", NULL));
}
static void signing_put(struct cfn_work *w)
{
    struct cfn_call c;

    if (w->action == CFN_CREATE)
        c = cfn_rest(w, "POST", signing_body(w), "/2020-04-22/code-signing-configs");
    else
        c = cfn_rest(w, "PUT", signing_body(w), "/2020-04-22/code-signing-configs/%s", seg(w, w->phys));
    c.got = got_signing;
    cfn_push(w, &c);
}
static void signing_drop(struct cfn_work *w)
{
    struct cfn_call c = cfn_rest(w, "DELETE", NULL, "/2020-04-22/code-signing-configs/%s", seg(w, w->phys));

    c.fine = "ResourceNotFoundException";
    cfn_push(w, &c);
}

const struct cfn_type cfn_types_lambda[] = {
    {"AWS::Lambda::Function", " FunctionName PackageType ", "FunctionName", function_create, function_update, function_drop},
    {"AWS::Lambda::Version", "*", NULL, version_create, NULL, version_drop},
    {"AWS::Lambda::Alias", " FunctionName Name ", "Name", alias_create, alias_update, alias_drop},
    {"AWS::Lambda::Permission", "*", NULL, permission_create, NULL, permission_drop},
    {"AWS::Lambda::Url", " TargetFunctionArn Qualifier ", NULL, url_create, url_update, url_drop},
    {"AWS::Lambda::EventInvokeConfig", " FunctionName Qualifier ", NULL, invoke_conf_create, invoke_conf_create, invoke_conf_drop},
    {"AWS::Lambda::CodeSigningConfig", "", NULL, signing_put, signing_put, signing_drop},
    {"AWS::Lambda::LayerVersion", "*", NULL, layer_create, NULL, layer_drop},
    {"AWS::Lambda::LayerVersionPermission", "*", NULL, layer_permission_create, NULL, layer_permission_drop},
    {"AWS::Lambda::EventSourceMapping", " EventSourceArn StartingPosition SelfManagedEventSource ", NULL, mapping_create,
     mapping_update, mapping_drop},
    {0},
};
