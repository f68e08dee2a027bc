/* door/aws/lambda/lambda_int.h - between the files of Lambda's door.
 *   lambda.c    paths, and the steps that operations share
 *   conf.c      shapes: names, configuration <-> Function object
 *   function.c  create, change, delete, read
 *   version.c   versions, aliases, provisioned concurrency
 *   check.c     what Lambda's model says of operations and their input
 *   signing.c   code signing configurations;  source.c  event source mappings
 *   durable.c   durable executions
 *   invoke.c  stream.c  url.c  policy.c  settings.c */
#pragma once

#include "codec/obj.h"
#include "door/aws/aws_int.h"
#include "function/code.h"

#define LAMBDA_NS "default"
#define FUNCTIONS "tandem.dev/v1/functions"
#define VERSIONS "tandem.dev/v1/functionversions"
#define A_NAME "tandem.dev/function-name"       /* as the caller wrote it, when no object can be named so */
#define A_MODIFIED "tandem.dev/last-modified"
#define A_URL_MADE "tandem.dev/url-created"
#define A_URL_MODIFIED "tandem.dev/url-modified"
#define A_POLICY "tandem.dev/policy"
#define A_LAST_VERSION "tandem.dev/last-version" /* the highest number that was ever published */

/* A function as a request named it. */
struct lambda_name {
    const char *name;      /* the function's */
    const char *object;    /* the Function object's */
    const char *qualifier; /* NULL: none */
};
/* Name, partial ARN or ARN, each with a qualifier. INVALID_ARGUMENT, NOT_FOUND (another region), FORBIDDEN (another account), CONFLICT (it
 * names another qualifier than the query) with the text Lambda gives. */
int lambda_name_parse(struct aws_req *q, const char *s, struct lambda_name *ret, struct err *err);
void lambda_name_refused(struct aws_req *q, const struct err *err); /* answers with what lambda_name_parse() said */
const char *lambda_arn(struct aws_req *q, const char *name);
/* What an object of that (Lambda's) name is called. */
const char *lambda_object_name(struct arena *a, const char *name);
char *lambda_sha_base64(struct arena *a, const char *hex);
const char *lambda_name_of(const struct obj *o);

/* May a function that is so (is; NULL: it is new) and becomes spec have its SnapStart setting? */
int lambda_snap_start_check(const struct val *is, const struct val *spec, const char **ret_type, struct err *err);
/* Takes what a request's JSON says into a merge patch of the object's spec (and the whole spec of a new
 * one: is is NULL; else what it is now). *ret_type is the error's type when it returns -1. */
int lambda_conf_read(struct aws_req *q, const struct val *in, const struct val *is, struct val *spec,
                     const char **ret_type, struct err *err);
/* FunctionConfiguration of a Function ($LATEST) or a FunctionVersion. */
struct val *lambda_conf(struct aws_req *q, const struct obj *o);
const char *lambda_revision(struct aws_req *q, const struct obj *o);
const char *lambda_revision_of(struct arena *a, const char *text); /* of what text tells, in the form of a UUID */
/* 2026-01-01T00:00:00.000+0000 */
char *lambda_now(struct arena *a);
void lambda_reply(struct aws_req *q, int status, const struct val *v); /* v NULL: no body */

/* One operation under way; in the request's arena. */
struct op {
    struct aws_req *q;
    struct lambda_name n;
    const char *const *path; /* decoded segments behind the function's name */
    size_t path_n;
    const struct val *in;    /* the body's JSON, or NULL */
    struct val *patch;
    char *zip;
    size_t zip_n;
    const char *bucket, *key;
    char sha256[CODE_HEX];
    struct err code_err;
    bool create, publish, no_bucket;
    int64_t number; /* of the version that is being published */
    int tries;
    struct val *template_;
    const char *raw_name;       /* the path's second part, as it came */
    void (*coded)(struct op *op);   /* not NULL: where the way goes on when the zip is kept */
    void (*layered)(struct op *op), (*signed_)(struct op *op);
    void (*run)(struct op *op); /* the operation itself, to begin it again */
    const char *alias;
    void (*then)(struct op *op, const struct obj *o);
};

/* The function of that name, whatever the qualifier says; NULL: 404 was answered. */
const struct obj *lambda_head(struct op *op);
/* The same, and only unqualified (or $LATEST): for what is of the function as a whole. */
const struct obj *lambda_need(struct op *op);
void lambda_not_found(struct op *op);
void lambda_api_error(struct op *op, const struct err *err, int status);
/* The answer of a create or patch: known to the functions at once, then op->then. */
void lambda_written(struct aws_req *q, const struct client_result *r, void *arg);
/* Sends op->patch, a merge patch {metadata:{annotations}, spec}; annotation `stamp` (may be NULL) is
 * set to the time. */
void lambda_patch(struct op *op, const char *stamp, void (*then)(struct op *, const struct obj *));
/* A merge patch keeps what it does not name: keys of the map `was` that go are set to null. */
void lambda_replace_map(struct arena *a, const struct val *was, struct val *spec, const char *key);
/* RevisionId of the request, if any, against `now`; false: 412 was answered. */
bool lambda_revision_fits(struct op *op, const struct obj *o);
void lambda_reply_conf(struct op *op, const struct obj *o);
void lambda_reply_none(struct op *op, const struct obj *o); /* 204 */

/* What name and qualifier of a request name. */
struct lambda_qualified {
    const struct obj *head, *version; /* version NULL: $LATEST */
    const struct val *alias;          /* NULL: none was named */
};
int lambda_qualified(struct op *op, struct lambda_qualified *ret); /* -1: 404 was answered */
const struct val *lambda_alias(const struct obj *head, const char *name); /* in spec.aliases, or NULL */
struct val *lambda_conf_of(struct op *op, const struct lambda_qualified *w); /* its ARN as it was asked for */
/* Publishes what the function is now, and answers. */
void lambda_publish(struct op *op, const struct obj *head);
void lambda_delete_version(struct op *op);
/* The zip that `where` {ZipFile} or {S3Bucket, S3Key} says: checked and kept; then op->coded, or the
 * function is written. */
void lambda_take_code(struct op *op, const struct val *where);
/* Replaces the list spec.KEY, only in the object that the new one was made from: when somebody else wrote in
 * between, the operation begins again. */
void lambda_put_list(struct op *op, const struct obj *head, const char *key, const struct val *list,
                     void (*then)(struct op *, const struct obj *));
/* Sends op->patch, which holds the metadata.resourceVersion that it was made from; likewise begins again. */
void lambda_patch_again(struct op *op, void (*then)(struct op *, const struct obj *));
/* The ARN of a function or a bucket as a destination {arn, function, qualifier} or {arn, bucket}; NULL: it is
 * neither. */
struct val *lambda_destination(struct aws_req *q, const char *arn);
/* The request's Layers into op->patch; then `then`, unless one is not there. */
/* May the caller use this layer version (a FunctionLayer)? Else it has answered. */
bool lambda_may_use_layer(struct op *op, const struct val *layer, const char *arn);
void lambda_take_layers(struct op *op, void (*then)(struct op *op));
/* A call that never ran (result.err): answered in Lambda's form, true. */
bool lambda_refused(struct op *op, const struct function_result *r);
/* The call that an Invoke's headers, query and body ask for; -1: an error was answered. */
int lambda_call_of(struct op *op, struct function_call *ret);
/* Of the account's concurrency: what is not reserved by functions (but: apart from this one; NULL: none). */
enum { LAMBDA_CONCURRENCY = 1000 };
int64_t lambda_unreserved(struct op *op, const struct obj *but);
void lambda_clear(struct op *op, const char *key); /* spec.KEY goes; answers 204 */

/* May he do the action (IAM's name, without "lambda:") on what the request names so (may.c)? false: refused, answered. */
bool lambda_may(struct op *op, const char *action, char what);
/* May he invoke that function? Likewise. */
bool lambda_may_invoke(struct op *op, const char *object, const char *arn);
/* An Invoke of what may be a durable function: takes the execution's name; false: refused, answered. */
bool lambda_durable_call(struct op *op, struct function_call *call, bool waits);
/* An event for a durable function: its execution begins, and the request is answered; false: it is none. */
bool lambda_durable_event(struct op *op, const struct function_call *call);
const char *lambda_callback_resource(struct op *op); /* the ARN of the execution that the path's callback is of */
/* May he pass the request's Role to the function, and may Lambda assume it? Likewise. */
bool lambda_role_fits(struct op *op);
bool lambda_may_read(struct op *op, const char *bucket, const char *key); /* code in a bucket */

/* The operation of Lambda's model at a method and path, and its name; NULL: there is none. */
const struct val *lambda_operation(struct aws_req *q, const char *const *part, size_t n, const char **ret_name);
/* Is the input as the model wants it (types, bounds, patterns, values, what must be there)? false: all that is wrong
 * was answered. body may be NULL. */
bool lambda_check(struct aws_req *q, const struct val *operation, const char *const *part, const struct val *body);

/* One page of a list: MaxItems, and Marker as lambda_page_takes() gave it; -1: answered. */
struct lambda_page {
    int64_t from, left, at;
};
int lambda_page_read(struct op *op, struct lambda_page *ret);
/* Is the next item on this page? Puts NextMarker into the answer behind the last one. */
bool lambda_page_takes(struct op *op, struct lambda_page *p, struct val *answer);

/* The policy document of a text, or an empty one. */
struct val *lambda_policy_read(struct arena *a, const char *text);
/* The statement that AddPermission and AddLayerVersionPermission make of a request. */
struct val *lambda_statement(struct op *op, const char *resource);
enum { LAMBDA_POLICY_MAX = 20480 };
/* The document as text; NULL: it is too long, and that is answered. */
const char *lambda_policy_text(struct op *op, const struct val *policy);

/* The code signing configuration that the request's CodeSigningConfigArn names goes into op->patch; then `then`,
 * unless it is not there. */
void lambda_take_signing(struct op *op, void (*then)(struct op *op));
/* Tags of what is no function; false: it is a function (or nothing that we know). */
bool lambda_signing_tags(struct op *op);

void op_checkpoint(struct op *op);
void op_execution_state(struct op *op);
void op_get_execution(struct op *op);
void op_execution_history(struct op *op);
void op_list_executions(struct op *op);
void op_stop_execution(struct op *op);
void op_pause_execution(struct op *op);
void op_resume_execution(struct op *op);
void op_delete_execution(struct op *op);
void op_callback_succeed(struct op *op);
void op_callback_fail(struct op *op);
void op_callback_beat(struct op *op);
void op_scaling_config(struct op *op);
void op_create_function(struct op *op);
void op_list_functions(struct op *op);
void op_get_function(struct op *op);
void op_delete_function(struct op *op);
void op_get_conf(struct op *op);
void op_update_conf(struct op *op);
void op_update_code(struct op *op);
void op_invoke(struct op *op);
void op_invoke_old(struct op *op);
void op_invoke_stream(struct op *op);
void op_list_versions(struct op *op);
void op_publish_version(struct op *op);
void op_publish_layer(struct op *op);
void op_get_layer(struct op *op); /* one version, or the list of them */
void op_list_layers(struct op *op);
void op_delete_layer(struct op *op);
void op_create_alias(struct op *op);
void op_get_alias(struct op *op); /* and the list of them */
void op_update_alias(struct op *op);
void op_delete_alias(struct op *op);
void op_put_provisioned(struct op *op);
void op_get_provisioned(struct op *op);
void op_delete_provisioned(struct op *op);
void op_add_permission(struct op *op);
void op_get_policy(struct op *op);
void op_remove_permission(struct op *op);
void op_create_url(struct op *op);
void op_get_url(struct op *op);
void op_update_url(struct op *op);
void op_delete_url(struct op *op);
void op_list_urls(struct op *op);
void op_put_concurrency(struct op *op);
void op_delete_concurrency(struct op *op);
void op_get_concurrency(struct op *op);
void op_put_event_conf(struct op *op);
void op_get_event_conf(struct op *op);
void op_delete_event_conf(struct op *op);
void op_layer_by_arn(struct op *op);
void op_add_layer_permission(struct op *op);
void op_get_layer_policy(struct op *op);
void op_remove_layer_permission(struct op *op);
void op_get_resource_policy(struct op *op);
void op_put_resource_policy(struct op *op);
void op_delete_resource_policy(struct op *op);
void op_create_signing(struct op *op);
void op_get_signing(struct op *op);
void op_update_signing(struct op *op);
void op_delete_signing(struct op *op);
void op_list_signing(struct op *op);
void op_list_signed(struct op *op);
void op_get_function_signing(struct op *op);
void op_put_function_signing(struct op *op);
void op_delete_function_signing(struct op *op);
void op_create_source(struct op *op);
void op_no_source(struct op *op);
void op_list_sources(struct op *op);
void op_get_runtime_updates(struct op *op);
void op_put_runtime_updates(struct op *op);
void op_get_recursion(struct op *op);
void op_put_recursion(struct op *op);
void op_list_tags(struct op *op);
void op_tag(struct op *op);
void op_untag(struct op *op);
void op_account_settings(struct op *op);
