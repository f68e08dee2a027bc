/* door/aws/service.c - which services there are, and the forms in which each of them is spoken.
 *
 * A service is a row: the name that clients sign for, the form of its errors, and who serves it. The forms:
 *   REST_XML   S3: path and method are the operation, errors are XML
 *   REST_JSON  Lambda: path and method are the operation, errors are JSON with x-amzn-ErrorType
 *   JSON       X-Amz-Target names the operation, both bodies are JSON, errors have __type
 *   QUERY      the body is a form with Action, the answer is XML */
#include "door/aws/aws_int.h"
#include "door/aws/cbor.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

enum { FIELDS_MAX = 10000 }; /* of a form; more are not read */

static const struct aws_service services[] = {
    {.name = "s3", .form = AWS_REST_XML, .request = s3_request},
    {.name = "logs", .form = AWS_JSON, .request = logs_request},
    {.name = "monitoring", .form = AWS_QUERY, .xmlns = "http://monitoring.amazonaws.com/doc/2010-08-01/", .request = cloudwatch_request},
    {.name = "ssm", .form = AWS_JSON, .request = ssm_request},
    {.name = "lambda", .form = AWS_REST_JSON, .request = lambda_request},
    {.name = "events", .form = AWS_JSON, .request = events_request},
    {.name = "scheduler", .form = AWS_REST_JSON, .request = scheduler_request},
    {.name = "iam", .form = AWS_QUERY, .xmlns = "https://iam.amazonaws.com/doc/2010-05-08/", .request = iam_request},
    {.name = "ecr", .form = AWS_JSON, .request = ecr_request},
    {.name = "cloudformation", .form = AWS_QUERY, .xmlns = "http://cloudformation.amazonaws.com/doc/2010-05-15/",
     .request = cfn_request},
    {.name = "sts", .form = AWS_QUERY, .xmlns = "https://sts.amazonaws.com/doc/2011-06-15/", .request = sts_request},
};

static void not_served(struct aws_req *q)
{
    _auto_(buf_done) struct buf names = {0};

    for (size_t i = 0; i < ARRAY_LEN(services); i++)
        buf_printf(&names, "%s%s", i ? ", " : "", services[i].name);
    buf_addc(&names, 0);
    aws_error(q, 501, "NotImplementedException", "tandem does not serve the AWS service \"%s\" (it serves %s)",
              q->sig.service, names.p);
}
/* Others have the form that the request looks like; other: JSON, with or without a target, or CBOR (other_error). */
static const struct aws_service other = {.name = "", .form = AWS_REST_JSON, .request = not_served};
static const struct aws_service other_query = {.name = "", .form = AWS_QUERY, .xmlns = "", .request = not_served};

/* Those that speak REST in XML, which nothing in a request tells: their errors are QUERY's. */
static bool speaks_xml(const char *service)
{
    static const char *const NAMES[] = {"cloudfront", "route53", "s3express", "s3-object-lambda"};

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (streq(service, NAMES[i]))
            return true;
    return false;
}

/* CloudWatch is spoken in three forms: JSON when the request names its target, CBOR (whose errors are its own), QUERY. */
static const struct aws_service monitoring_json = {.name = "monitoring", .form = AWS_JSON, .request = cloudwatch_request};

static const struct aws_service *by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(services); i++)
        if (streq(services[i].name, name))
            return &services[i];
    return NULL;
}

const struct aws_service *aws_service_of(const struct aws_req *q)
{
    const char *s = q->sig.service ? q->sig.service : "", *path = q->req->path, *type;
    const struct aws_service *found;

    if (q->sig.kind == SIGV2_QUERY)
        return by_name("s3");
    if (*s) {
        type = http_get(q->req, "content-type");
        found = by_name(s);
        if (found && found->request == cloudwatch_request && (http_get(q->req, "x-amz-target") || http_get(q->req, "smithy-protocol")))
            return &monitoring_json;
        if (found)
            return found;
        return speaks_xml(s) || (streq(path, "/") && type && str_starts(type, "application/x-www-form-urlencoded")) ? &other_query : &other;
    }
    /* unsigned: by the look of its path; S3 takes no POST without a bucket */
    if (streq(path, "/") && streq(q->req->method, "POST"))
        return by_name("sts");
    return by_name(strlen(path) > 11 && path[0] == '/' && isdigit((unsigned char)path[1]) && path[5] == '-' &&
                           path[8] == '-' && path[11] == '/'
                       ? "lambda"
                       : "s3");
}

void aws_error(struct aws_req *q, int status, const char *code, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (aws_service_of(q) == &other) {
        const char *protocol = http_get(q->req, "smithy-protocol");

        /* a REST client finds what it needs in it, too */
        (protocol && streq(protocol, "rpc-v2-cbor") ? cbor_error : json_error)(q, status, code, text);
        return;
    }
    switch (aws_service_of(q)->form) {
    case AWS_REST_XML: s3_error(q, status, code, "%s", text); break;
    case AWS_REST_JSON: lambda_error(q, status, code, "%s", text); break;
    case AWS_JSON: json_error(q, status, code, text); break;
    case AWS_QUERY: query_error(q, status, code, text); break;
    }
}

/* ---- the form JSON ---- */

const char *json_operation(const struct aws_req *q)
{
    const char *target = http_get(q->req, "x-amz-target"), *dot = target ? strrchr(target, '.') : NULL;

    if (http_get(q->req, "smithy-protocol")) { /* RPC v2: it is in the path, whatever else a header says */
        const char *at = strstr(q->req->path, "/operation/");

        return at ? at + strlen("/operation/") : NULL;
    }

    return dot ? dot + 1 : target;
}

void json_reply(struct aws_req *q, const struct val *v)
{
    _auto_(buf_done) struct buf b = {0};
    const char *type = http_get(q->req, "content-type");

    if (v)
        json_write(&b, v);
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, 200, type && streq(type, "application/x-amz-json-1.0") ? type : "application/x-amz-json-1.1", b.p, b.n);
}

void json_error(struct aws_req *q, int status, const char *code, const char *message)
{
    _auto_(buf_done) struct buf b = {0};
    struct val *v = val_map(q->req->arena);

    val_put_str(q->req->arena, v, "__type", code);
    val_put_str(q->req->arena, v, "message", message);
    json_write(&b, v);
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_header(q->req, "x-amzn-ErrorType", code);
    http_reply(q->req, status, "application/x-amz-json-1.1", b.p, b.n);
}

/* ---- RPC v2 in CBOR ---- */

void cbor_error(struct aws_req *q, int status, const char *code, const char *message)
{
    _auto_(buf_done) struct buf b = {0};
    struct val *v = val_map(q->req->arena);

    val_put_str(q->req->arena, v, "__type", code);
    val_put_str(q->req->arena, v, "message", message);
    cbor_write(&b, v, NULL);
    http_header(q->req, "smithy-protocol", "rpc-v2-cbor");
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, status, "application/cbor", b.p, b.n);
}

/* ---- the form QUERY ---- */

static void read_form(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    const char *name, *value;
    uint32_t cap = 0;

    q->form_read = true;
    for (size_t i = 0; q->form_n < FIELDS_MAX && http_form_next(a, q->body, q->body_n, &i, &name, &value);) {
        if (q->form_n == cap) {
            struct aws_field *grown = arena_raw(a, (cap = cap ? cap * 2 : 32) * sizeof *grown);

            if (q->form_n)
                memcpy(grown, q->form, q->form_n * sizeof *grown);
            q->form = grown;
        }
        q->form[q->form_n++] = (struct aws_field){name, value};
    }
}

const char *query_param(struct aws_req *q, const char *name)
{
    if (!q->form_read)
        read_form(q);
    for (uint32_t i = 0; i < q->form_n; i++)
        if (streq(q->form[i].name, name))
            return q->form[i].value;
    return http_param(q->req, name);
}

void query_begin(struct aws_req *q, struct buf *b, const char *action)
{
    buf_printf(b, "<%sResponse xmlns=\"%s\"><%sResult>", action, aws_service_of(q)->xmlns, action);
}

void query_end(struct aws_req *q, struct buf *b, const char *action)
{
    buf_printf(b, "</%sResult><ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>", action, q->id, action);
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, 200, "text/xml", b->p, b->n);
}

void query_error(struct aws_req *q, int status, const char *code, const char *message)
{
    _auto_(buf_done) struct buf b = {0};
    const char *xmlns = aws_service_of(q)->xmlns;

    buf_printf(&b, "<ErrorResponse xmlns=\"%s\"><Error><Type>%s</Type>", xmlns ? xmlns : "", status >= 500 ? "Receiver" : "Sender");
    xml_element(&b, "Code", code);
    xml_element(&b, "Message", message);
    buf_printf(&b, "</Error><RequestId>%s</RequestId></ErrorResponse>", q->id);
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, status, "text/xml", b.p, b.n);
}
