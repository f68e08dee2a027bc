/* door/aws/aws.c - the port: finds out who signed a request and hands it to the service it is for (service.c).
 * S3 requests go on as soon as their headers are checked (their bodies stream); all others when their
 * body is whole, because its hash is part of what was signed. */
#include "door/aws/aws_int.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "door/aws/identity_int.h"
#include "door/aws/ssm/ssm.h"
#include "door/aws/cloudformation/cfn_int.h"
#include "env/random.h"
#include "event/event.h"
#include "volume/volume.h"

enum {
    BODY_MAX = 72 * 1024 * 1024,      /* of Lambda: a zip in base64 */
    BODY_OTHERS_MAX = 8 * 1024 * 1024, /* of other services, the largest of which is a batch of log events */
    BODY_STRANGER_MAX = 64 * 1024,    /* without a signature: a token and a policy for a session */
};

/* ---- small things ---- */

char *b64_encode(struct arena *a, const void *p, size_t n)
{
    char *out = arena_raw(a, 4 * ((n + 2) / 3) + 1);

    EVP_EncodeBlock((unsigned char *)out, p, (int)n);
    return out;
}

char *b64_decode(struct arena *a, const char *s, size_t *ret_n)
{
    size_t n = strlen(s);
    char *out = arena_raw(a, n / 4 * 3 + 4);
    int got;

    if (n % 4)
        return NULL;
    got = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)s, (int)n);
    if (got < 0)
        return NULL;
    while (n && s[n - 1] == '=' && got > 0) { /* the padding decodes to zeros */
        got--;
        n--;
    }
    out[got] = 0;
    if (ret_n)
        *ret_n = (size_t)got;
    return out;
}

void xml_text(struct buf *b, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '&': buf_adds(b, "&amp;"); break;
        case '<': buf_adds(b, "&lt;"); break;
        case '>': buf_adds(b, "&gt;"); break;
        case '"': buf_adds(b, "&quot;"); break;
        default:
            if ((unsigned char)*s < 32)
                buf_printf(b, "&#x%X;", (unsigned char)*s);
            else
                buf_addc(b, *s);
        }
}

void xml_element(struct buf *b, const char *name, const char *text)
{
    buf_printf(b, "<%s>", name);
    xml_text(b, text);
    buf_printf(b, "</%s>", name);
}

char *iso_time(struct arena *a, int64_t ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];

    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    return arena_printf(a, "%s.%03dZ", text, (int)(ms % 1000));
}

struct pending {
    struct aws_req *q;
    aws_fn *fn;
    void *arg;
};
static void on_called(void *arg, const struct client_result *r)
{
    struct pending *p = arg;

    p->fn(p->q, r, p->arg);
}
void aws_call(struct aws_req *q, const struct client_call *call, aws_fn *fn, void *arg)
{
    struct pending *p = arena_new_of(q->req->arena, struct pending);

    *p = (struct pending){q, fn, arg};
    client_call(q->d->o.client, call, on_called, p);
}

struct job {
    uv_work_t work;
    struct aws_req *q;
    void (*run)(void *);
    void (*done)(struct aws_req *, void *);
    void *arg;
};
static void job_run(uv_work_t *w)
{
    struct job *j = w->data;

    j->run(j->arg);
}
static void job_done(uv_work_t *w, int status)
{
    struct job *j = w->data;

    (void)status;
    j->done(j->q, j->arg);
}
void aws_work(struct aws_req *q, void (*work)(void *arg), void (*done)(struct aws_req *q, void *arg),
              void *arg)
{
    struct job *j = arena_new_of(q->req->arena, struct job);

    *j = (struct job){.q = q, .run = work, .done = done, .arg = arg};
    j->work.data = j;
    uv_queue_work(q->d->o.loop, &j->work, job_run, job_done);
}

static bool is_s3(const struct aws_req *q)
{
    return aws_service_of(q)->form == AWS_REST_XML;
}

/* S3 has codes of its own. */
static void refuse(struct aws_req *q, int status, const char *s3_code, const char *code, const char *message)
{
    aws_error(q, status, is_s3(q) ? s3_code : code, "%s", message);
}

/* ---- whose signature ---- */

static const char *bucket_of_host(struct aws_req *q)
{
    const char *host = q->req->host, *dot = strstr(host, ".s3");

    return dot && dot != host && strchr(".-:", dot[3] ? dot[3] : '.')
               ? arena_strndup(q->req->arena, host, (size_t)(dot - host))
               : NULL;
}

static void unknown_key(struct aws_req *q)
{
    refuse(q, 403, "InvalidAccessKeyId",
           aws_service_of(q)->form == AWS_QUERY ? "InvalidClientTokenId" : "UnrecognizedClientException",
           is_s3(q) ? "The AWS Access Key Id you provided does not exist in our records."
                    : "The security token included in the request is invalid.");
}

static void wrong_token(struct aws_req *q, const struct err *err)
{
    if (err->code == ERR_EXPIRED)
        refuse(q, is_s3(q) ? 400 : 403, "ExpiredToken",
               aws_service_of(q)->form == AWS_QUERY ? "ExpiredToken" : "ExpiredTokenException",
               is_s3(q) ? "The provided token has expired." : err->msg);
    else if (err->code == ERR_INVALID_ARGUMENT && is_s3(q))
        refuse(q, 400, "InvalidToken", "InvalidClientTokenId", "The provided token is malformed or otherwise invalid.");
    else if (err->code == ERR_UNAVAILABLE)
        refuse(q, 503, "ServiceUnavailable", "ServiceException", err->msg);
    else
        unknown_key(q);
}

/* It was he who signed, or it is for him that the door itself asks. */
static void serve(struct aws_req *q)
{
    if (aws_authorize(q))
        aws_service_of(q)->request(q);
}

/* The caller is known by his key: is it he who signed? */
static void check(struct aws_req *q)
{
    const char *hash = http_get(q->req, "x-amz-content-sha256");
    char own[SIGV4_HEX_BYTES];
    struct err err = {0};

    if (!is_s3(q)) {
        sigv4_sha256_hex(q->body, q->body_n, own);
        hash = own;
    } else if (q->sig.kind == SIGV4_QUERY || !hash) {
        hash = "UNSIGNED-PAYLOAD";
    }
    if (sigv4_check(q->req, &q->sig, q->caller.secret, hash, bucket_of_host(q), time(NULL), &err) == 0) {
        serve(q);
        return;
    }
    if (err.code == ERR_EXPIRED)
        refuse(q, 403, q->sig.kind == SIGV4_HEADER ? "RequestTimeTooSkewed" : "AccessDenied",
               "SignatureDoesNotMatch", err.msg);
    else
        refuse(q, 403, "SignatureDoesNotMatch",
               aws_service_of(q)->form == AWS_QUERY ? "SignatureDoesNotMatch" : "InvalidSignatureException", err.msg);
}

static void on_asked(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct arena *a = q->req->arena;
    struct err err = {0};

    (void)arg;
    if (r->err && r->status == 0)
        refuse(q, 503, "ServiceUnavailable", "ServiceException", "the API server cannot be reached");
    else if (r->err || !r->obj || !streq(val_str_at(obj_val(r->obj), "type", ""), "tandem.dev/access-key") ||
             !streq0(identity_secret_text(a, r->obj, "accessKeyId"), q->sig.key_id))
        unknown_key(q);
    else if (identity_find(q->d->o.identity, a, q->sig.key_id, NULL, r->obj, time(NULL), &q->caller, &err) < 0)
        wrong_token(q, &err);
    else
        check(q);
}

/* By the mirror; a key made a moment ago may not be in it yet, so the API is asked before a key
 * is called unknown. */
static void find_key(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    const char *token = http_get(q->req, "x-amz-security-token");
    char *name = arena_printf(a, "access-key-%s", q->sig.key_id);
    struct err err = {0};

    token = token ? token : http_param(q->req, "X-Amz-Security-Token");
    token = token ? token : http_param(q->req, "x-amz-security-token"); /* of version 2 */
    for (char *p = name; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
        if (!isalnum((unsigned char)*p) && *p != '-') {
            unknown_key(q);
            return;
        }
    }
    if (identity_find(q->d->o.identity, a, q->sig.key_id, token, NULL, time(NULL), &q->caller, &err) == 0)
        check(q);
    else if (!str_empty(token) || (err.code != ERR_NOT_FOUND && err.code != ERR_UNAVAILABLE))
        wrong_token(q, &err);
    else
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = "v1/secrets",
                                          .ns = "kube-system", .name = name}, on_asked, NULL);
}

/* Bytes that are collected before anything is known of who sent them. */
static size_t body_max(const struct aws_req *q)
{
    if (q->sig.kind == SIGV4_NONE)
        return BODY_STRANGER_MAX;
    return aws_service_of(q)->request == lambda_request ? BODY_MAX : BODY_OTHERS_MAX;
}

static void on_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct aws_req *q = arg;

    if (err && err->code == ERR_TOO_LARGE) {
        refuse(q, 413, "EntityTooLarge", "RequestEntityTooLargeException",
               arena_printf(req->arena, "Request must be smaller than %zu bytes",
                            aws_service_of(q)->request == lambda_request ? (size_t)70167211 : body_max(q)));
        return;
    }
    if (err) {
        http_abort(req);
        return;
    }
    q->body = data;
    q->body_n = n;
    if (q->sig.kind == SIGV4_NONE)
        aws_service_of(q)->request(q); /* STS, which has an operation for strangers */
    else
        find_key(q);
}

static void on_request(struct http_req *req, void *arg)
{
    struct aws_req *q = arena_new_of(req->arena, struct aws_req);
    struct err err = {0};

    q->d = arg;
    q->req = req;
    req->user = q;
    uuid_new(q->id);
    if (cfn_response_url(q->d, req))
        return;
    if (streq(req->path, "/healthz")) {
        http_reply_str(req, 200, "text/plain", "ok");
        return;
    }
    if (sigv4_find(req, &q->sig, &err) < 0) {
        refuse(q, 400, "AuthorizationHeaderMalformed", "IncompleteSignatureException", err.msg);
        return;
    }
    if (q->sig.kind == SIGV4_NONE && aws_service_of(q)->request != sts_request) {
        refuse(q, 403, "AccessDenied", "MissingAuthenticationTokenException",
               is_s3(q) ? "Access Denied" : "Missing Authentication Token");
        return;
    }
    if (is_s3(q))
        find_key(q);
    else
        http_body(req, body_max(q), on_body, q);
}

/* ---- from inside ---- */

/* The time is that of the request, so that a stack that takes longer than the session does not stay half made. What comes
 * from inside goes on in the same name: it bears the seal, not the session's token. */
const char *aws_caller(struct aws_req *q)
{
    const char *sealed = q->inner ? http_get(q->req, "x-tandem-caller") : NULL;

    if (sealed)
        return sealed;
    return identity_caller_seal(q->d->o.identity, q->req->arena, q->sig.key_id, http_get(q->req, "x-amz-security-token"), time(NULL));
}

const char *aws_caller_of_role(struct aws_door *d, struct arena *a, const char *arn, struct err *err)
{
    const struct obj *role = identity_role(d->o.identity, arn);
    struct policy_who who = {.service = "cloudformation.amazonaws.com"};
    struct session_opts o = {.name = "AWSCloudFormation", .now_s = time(NULL), .seconds = 3600};
    struct session_keys keys;

    if (!role || identity_trusts(d->o.identity, a, role, &who, "sts:AssumeRole", NULL) != POLICY_ALLOWED) {
        err_set(err, INVALID_ARGUMENT, "Role %.200s is invalid or cannot be assumed", arn);
        return NULL;
    }
    identity_session(d->o.identity, a, role, NULL, &o, &keys);
    return identity_caller_seal(d->o.identity, a, keys.key_id, keys.token, o.now_s);
}

static void on_inner_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct aws_req *q = arg;

    if (err) {
        http_abort(req);
        return;
    }
    q->body = data;
    q->body_n = n;
    serve(q);
}

void aws_inner(struct aws_door *d, struct http_req *req)
{
    struct arena *a = req->arena;
    struct aws_req *q = arena_new_of(a, struct aws_req);
    const char *service = http_get(req, "x-tandem-service"), *caller = http_get(req, "x-tandem-caller");
    struct err err = {0};
    int known;

    q->d = d;
    q->req = req;
    req->user = q;
    q->inner = true;
    uuid_new(q->id);
    known = identity_caller_open(d->o.identity, a, caller ? caller : "", &q->caller, &err);
    q->sig = (struct sigv4){.kind = SIGV4_HEADER, .key_id = known == 0 ? q->caller.key_id : "",
                            .service = service ? service : "", .date = "", .region = d->region, .signed_headers = "", .signature = "",
                            .amz_date = ""};
    if (known < 0)
        wrong_token(q, &err);
    else if (is_s3(q))
        serve(q);
    else
        http_body(req, BODY_MAX, on_inner_body, q);
}

/* ---- life ---- */

static void volume_news(void *arg, const struct obj *o)
{
    struct aws_door *d = arg;

    objects_volume(d->objects, o);
}
static void nothing_more(void *arg, const struct client_result *r)
{
    if (r->err)
        LOG(WARN, "aws", "did=volume-status error=\"%s\"", r->err->msg);
}

/* A new volume is Ready when its folder is there: pods would make it too, but a bucket has none. */
static void volume_added(void *arg, const struct obj *o)
{
    struct aws_door *d = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *patch = val_map(a);
    struct err err;
    int root;

    volume_news(arg, o);
    if (!str_empty(val_str_at(obj_val(o), "status.phase", NULL)))
        return;
    root = volume_root(d->state, o->name, true, &err);
    if (root < 0) {
        LOG(ERROR, "aws", "volume=%s did=make error=\"%s\"", o->name, err.msg);
        return;
    }
    close(root);
    val_put_str(a, val_need_map(a, patch, "status"), "phase", "Ready");
    client_call(d->o.client, &(struct client_call){.verb = CLIENT_PATCH, .resource = "tandem.dev/v1/volumes", .name = o->name,
        .sub = "status", .body = patch, .patch_type = CLIENT_PATCH_MERGE}, nothing_more, d);
}

static void volume_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    volume_news(arg, o);
}
static void volume_removed(void *arg, const struct obj *o)
{
    struct aws_door *d = arg;

    objects_volume_gone(d->objects, o->name);
}

struct aws_door *aws_door_new(const struct aws_door_opts *o, struct err *err)
{
    struct aws_door *d = xcalloc(1, sizeof *d);
    struct err no_key;

    d->o = *o;
    d->state = xstrdup(o->state);
    d->region = xstrdup(identity_region(o->identity));
    d->account = xstrdup(identity_account(o->identity));
    d->function_url = o->function_url ? xstrdup(o->function_url) : NULL;
    d->o.state = d->o.address = d->o.function_url = NULL;
    d->http = http_server_new(o->loop, &(struct http_server_opts){
        .addr = o->address, .port = o->port, .body_bytes_max = BODY_MAX, .on_request = on_request, .arg = d}, err);
    if (!d->http) {
        err_wrap(err, "AWS port %d", o->port);
        free(d->state);
        free(d->region);
        free(d->account);
        free(d->function_url);
        free(d);
        return NULL;
    }
    d->has_ssm_key = ssm_key_open(d->state, d->ssm_key, &no_key) == 0;
    if (!d->has_ssm_key)
        LOG(ERROR, "aws", "did=parameters-key error=\"%s\"", no_key.msg);
    d->objects = objects_new(&(struct objects_opts){
        .loop = o->loop, .state = d->state, .region = d->region, .functions = o->functions});
    d->volumes = client_mirror(o->client, &(struct mirror_args){
        .resource = "tandem.dev/v1/volumes", .added = volume_added, .changed = volume_changed,
        .removed = volume_removed, .arg = d});
    d->inside_url = o->inside_url ? xstrdup(o->inside_url) : xasprintf("http://127.0.0.1:%d", http_server_port(d->http));
    d->cfn = cfn_new(d);
    LOG(INFO, "aws", "did=listen port=%d", http_server_port(d->http));
    return d;
}

int aws_door_port(const struct aws_door *d)
{
    return http_server_port(d->http);
}

static void on_gone(void *arg)
{
    struct aws_door *d = arg;
    void (*done)(void *) = d->done;
    void *done_arg = d->done_arg;

    if (--d->servers)
        return;
    cfn_free(d->cfn);
    insights_free(&d->insights);
    lambda_model_free(d->lambda_model);
    free(d->state);
    free(d->region);
    free(d->account);
    free(d->function_url);
    free(d->inside_url);
    free(d);
    if (done)
        done(done_arg);
}

void aws_door_stop(struct aws_door *d, uint32_t deadline_ms, void (*done)(void *), void *arg)
{
    d->done = done;
    d->done_arg = arg;
    iam_wait_end(d->o.identity, d->volumes);
    mirror_free(d->volumes);
    d->volumes = NULL;
    objects_free(d->objects);
    d->objects = NULL;
    d->servers = d->cfn ? 2 : 1;
    if (d->cfn) {
        cfn_stop(d->cfn);
        http_server_stop(d->cfn->inner, deadline_ms, on_gone, d);
    }
    http_server_stop(d->http, deadline_ms, on_gone, d);
}
