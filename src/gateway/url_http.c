/* Requests for HTTP functions: proxied to the function's program as they are, bodies both ways as they come,
 * upgrades (WebSocket) as tunnels. The time limit of the function counts until its answer begins. */
#include "gateway/gateway_int.h"

#include "codec/obj.h"
#include "gateway/keys.h"
#include "http/client.h"

enum { TRIES_MAX = 5 };

struct visit {
    struct url *u;
    const char *target;
    uint32_t timeout_ms;
    uint64_t ticket;
    bool over; /* answered, or the place is given back */
    int tries;
};

static void on_proxied(struct http_req *req, int status, const struct err *err, void *arg)
{
    struct visit *v = arg;

    v->over = true;
    function_leave(v->u->g->functions, v->ticket, (err && err->code == ERR_CANCELLED) || (status > 0 && status < 500), status);
}

static void visit(struct visit *v);

/* Its instance went away under it, before a byte of an answer: once more, in another one. What was never sent
 * (nobody listened any more) may be sent again whatever it is. */
static bool on_fail(struct http_req *req, const struct err *err, void *arg)
{
    struct visit *v = arg;

    bool sent = err->code != ERR_UNAVAILABLE;

    if (err->code == ERR_TIMEOUT || v->tries++ >= (sent ? 1 : TRIES_MAX) ||
        (sent && !streq(req->method, "GET") && !streq(req->method, "HEAD")))
        return false;
    function_leave(v->u->g->functions, v->ticket, false, 0);
    visit(v);
    return true;
}

/* A sampled call's own span is the parent of what the function does; else the headers go through as they came. */
static size_t trace_headers(struct http_req *req, const struct function_trace *t, struct http_header ret[2])
{
    char text[TRACEPARENT_BYTES];
    size_t n = 0;

    if (!*t->span || !trace_parent_text(t, text))
        return 0;
    ret[n++] = (struct http_header){"traceparent", arena_strdup(req->arena, text)};
    if (http_get(req, "x-amzn-trace-id"))
        ret[n++] = (struct http_header){"x-amzn-trace-id", arena_printf(req->arena, "Root=1-%.8s-%s;Parent=%s;Sampled=1", t->id, t->id + 8, t->span)};
    return n;
}

static void on_place(void *arg, struct http_origin *o, const struct function_trace *t)
{
    struct visit *v = arg;
    struct http_req *req = v->u->req;
    struct http_header add[2];
    struct http_proxy_opts opts = {.path = v->target, .timeout_ms = v->timeout_ms, .on_done = on_proxied, .on_fail = on_fail, .arg = v,
                                   .add = add, .add_n = trace_headers(req, t, add)};

    http_on_close(req, NULL, NULL);
    http_proxy(req, o, &opts);
}

static void on_done(void *arg, const struct function_result *r)
{
    struct visit *v = arg;
    struct http_req *req = v->u->req;

    int status = r->err.code == ERR_TOO_MANY ? 429 : r->err.code == ERR_NOT_FOUND ? 404 : r->err.code == ERR_UNAVAILABLE ? 503 : 502;

    v->over = true;
    http_header(req, "x-amzn-requestid", r->request_id);
    url_say(req, status, r->err.msg);
    if (r->span)
        r->span->status = status;
}

static void on_gone(struct http_req *req, void *arg)
{
    struct visit *v = arg;

    if (v->over)
        return;
    v->over = true;
    function_forget(v->u->g->functions, v->ticket);
    http_abort(req);
}

static void visit(struct visit *v)
{
    struct function_call c = {.name = v->u->name, .qualifier = v->u->alias, .request_id = v->u->id, .place = on_place,
                              .req = v->u->req, .trigger = FUNCTION_BY_HTTP};
    uint64_t ticket;

    http_on_close(v->u->req, on_gone, v);
    ticket = function_invoke(v->u->g->functions, &c, on_done, v);
    if (ticket) /* else the request, and v with it, are gone */
        v->ticket = ticket;
}

/* A body that streams through cannot be hashed first: it is signed as UNSIGNED-PAYLOAD. */
static int check_signature(struct url *u, struct err *err)
{
    const char *said = http_get(u->req, "x-amz-content-sha256");

    if (u->req->body_bytes && !(said && streq(said, "UNSIGNED-PAYLOAD")))
        return err_set(err, FORBIDDEN, "a body for an HTTP function is to be signed as UNSIGNED-PAYLOAD");
    return url_may(u, "", 0, err);
}

void url_http(struct url *u, const struct val *spec)
{
    struct http_req *req = u->req;
    struct visit *v = arena_new_of(req->arena, struct visit);
    struct err err;

    if (u->is_signed && check_signature(u, &err) < 0) {
        url_say(req, 403, err.msg);
        return;
    }
    v->u = u;
    v->target = *req->query ? arena_printf(req->arena, "%s?%s", u->path, req->query) : u->path;
    v->timeout_ms = (uint32_t)(MIN(MAX(val_num_at(spec, "timeoutSeconds", 3), 0.05), 900.0) * 1000);
    visit(v);
}
