/* door/aws/aws_int.h - what the files of this door share.
 *   aws.c       the port: who signed;  service.c: which service, and the forms that services are spoken in
 *   identity.h  who signed, and what he may;  authorize.c  what a request asks for
 *   sts.c       STS: who one is, keys of sessions;  other services: a folder or a file each (README.md) */
#pragma once

#include "auth/sigv4.h"
#include "base/buf.h"
#include "base/list.h"
#include "client/client.h"
#include "codec/json.h"
#include "codec/val.h"
#include "door/aws/aws.h"
#include "door/aws/identity.h"
#include "function/function.h"
#include "http/server.h"

struct objects;
struct cfn;
struct lambda_model;

struct aws_door {
    struct aws_door_opts o;
    char *state, *region, *account, *function_url, *inside_url;
    struct http_server *http;
    struct mirror *volumes;
    struct objects *objects; /* event/: who hears of written objects */
    unsigned char ssm_key[32]; /* seals SecureStrings */
    bool has_ssm_key;
    struct cfn *cfn;         /* stacks; NULL when it could not start */
    struct list insights;    /* queries of Logs Insights that have run; next NULL: none yet */
    struct lambda_model *lambda_model; /* NULL until the first request that needs it */
    unsigned servers; /* that still close */
    void (*done)(void *);
    void *done_arg;
};

enum aws_form { AWS_REST_XML, AWS_REST_JSON, AWS_JSON, AWS_QUERY };
struct aws_req;
struct aws_service {
    const char *name; /* what clients sign for */
    enum aws_form form;
    const char *xmlns; /* of AWS_QUERY's answers */
    void (*request)(struct aws_req *q);
};
struct aws_field {
    const char *name, *value;
};

/* One request whose sender is known. req->user is this. */
struct aws_req {
    struct aws_door *d;
    struct http_req *req;
    struct sigv4 sig;
    struct caller caller; /* who signed */
    char id[40]; /* request id */
    char *body; /* collected; NULL for S3 */
    size_t body_n;
    struct aws_field *form; /* AWS_QUERY: by query_param() */
    uint32_t form_n;
    bool form_read;
    bool inner; /* of the stack engine, in somebody's name */
    void *more; /* the operation's own */
};

/* The row of the service that a request is for; never NULL (what is not served has a row, too). */
const struct aws_service *aws_service_of(const struct aws_req *q);

void iam_request(struct aws_req *q);
void lambda_request(struct aws_req *q);
void *lambda_model_free(struct lambda_model *m); /* lambda/check.c */
void logs_request(struct aws_req *q);
void insights_free(struct list *kept); /* logs/insights.c */
void cloudwatch_request(struct aws_req *q);
void ssm_request(struct aws_req *q);
void sts_request(struct aws_req *q);
void events_request(struct aws_req *q);
void scheduler_request(struct aws_req *q);
void s3_request(struct aws_req *q);
void cfn_request(struct aws_req *q);
void ecr_request(struct aws_req *q);
/* A request from inside, on the door's own socket: headers x-tandem-service and x-tandem-caller (as aws_caller() gave it for
 * the request that it is made for) stand for the signature. */
void aws_inner(struct aws_door *d, struct http_req *req);
/* Who signed, as a text to keep; in the request's arena. */
const char *aws_caller(struct aws_req *q);
/* ... and a session of that role, which trusts CloudFormation; NULL with err. */
const char *aws_caller_of_role(struct aws_door *d, struct arena *a, const char *arn, struct err *err);

/* What is wrong with tags (in the arena; NULL: nothing): more than 50 together with those that are there already, a key that is
 * not 1 to 128 characters or begins with aws: (those of stacks do), a value of more than 256. before: map, or NULL;
 * more: a map of texts, or a list of {Key, Value}. *ret_many: it is their number. */
const char *aws_tags_wrong(struct aws_req *q, const struct val *before, const struct val *more, bool *ret_many);

/* Errors; they finish the request. aws_error() has the form of the request's service. */
void aws_error(struct aws_req *q, int status, const char *code, const char *fmt, ...) _printf_(4, 5);
void lambda_error(struct aws_req *q, int status, const char *type, const char *fmt, ...)
    _printf_(4, 5);
void s3_error(struct aws_req *q, int status, const char *code, const char *fmt, ...) _printf_(4, 5);
void query_error(struct aws_req *q, int status, const char *code, const char *message);
/* RPC v2 in CBOR. */
void cbor_error(struct aws_req *q, int status, const char *code, const char *message);
void json_error(struct aws_req *q, int status, const char *code, const char *message);

/* The form JSON: the operation's name ("CreateLogGroup"), NULL when the request has none; an answer (v NULL: empty). */
const char *json_operation(const struct aws_req *q);
void json_reply(struct aws_req *q, const struct val *v);
/* The form QUERY: a parameter ("Action", "Tags.member.1.Key") or NULL; query_begin() opens the answer's
 * <ActionResult>, query_end() closes it and sends it. */
const char *query_param(struct aws_req *q, const char *name);
void query_begin(struct aws_req *q, struct buf *b, const char *action);
void query_end(struct aws_req *q, struct buf *b, const char *action);

/* ---- may he? (authorize.c) ---- */
/* What every request says of itself: condition keys in lower case. */
struct val *aws_context(struct aws_req *q);
/* PREFIX/KEY of each tag ("aws:requesttag": aws:TagKeys, too). */
void aws_context_tags(struct aws_req *q, struct val *context, const char *prefix, const struct val *tags);
/* NULL: he may. Else what he is told. context NULL: that of the request; policy: the resource's own, or NULL. */
char *aws_denied(struct aws_req *q, const char *action, const char *resource, const struct val *context,
                 const struct val *policy, enum policy_kind kind);
void aws_refuse(struct aws_req *q, const char *message); /* 403 in the service's form */
/* false: refused, answered. */
bool aws_may(struct aws_req *q, const char *action, const char *resource, const struct val *context);
/* iam:PassRole of that role (NULL, "": none) to SERVICE.amazonaws.com. false: refused, answered. */
bool aws_may_pass(struct aws_req *q, const char *service, const char *role);
/* Services of the forms JSON and QUERY: by the operation's name and parameters. false: refused, answered. */
bool aws_authorize(struct aws_req *q);

/* Base64, in the arena; NULL when malformed. */
char *b64_decode(struct arena *a, const char *s, size_t *ret_n);
char *b64_encode(struct arena *a, const void *p, size_t n);
/* & < > " and control bytes escaped. */
void xml_text(struct buf *b, const char *s);
void xml_element(struct buf *b, const char *name, const char *text);
/* "2026-01-01T00:00:00.000Z" */
char *iso_time(struct arena *a, int64_t ms);

/* A client_call whose answer goes to an operation with its request; when the client of the door
 * went away in between, fn is called all the same (answers then go nowhere). */
typedef void aws_fn(struct aws_req *q, const struct client_result *r, void *arg);
void aws_call(struct aws_req *q, const struct client_call *call, aws_fn *fn, void *arg);
/* Work on uv's thread pool, then done on the loop. */
void aws_work(struct aws_req *q, void (*work)(void *arg), void (*done)(struct aws_req *q, void *arg),
              void *arg);
