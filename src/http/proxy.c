/* http/proxy.c - a server's request handed on to an origin, body and answer streamed with
 * backpressure on both sides; after a 101, bytes both ways.
 *
 * The proxy outlives neither side silently: whoever ends first (client gone, upstream done) takes
 * the other with it; p is freed when both are done with it. */
#include <stdio.h>
#include <strings.h>

#include "http/client_int.h"

enum { TUNNEL_END_MS = 5000 };

struct proxy {
    struct http_req *req; /* NULL once finished */
    struct http_call *call;
    struct http_raw *raw;
    struct http_proxy_opts o;
    int status;
    bool connected, body_begun, tunnel;
};

static bool in_list(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(list[i], name) == 0)
            return true;
    return false;
}

static bool hop_by_hop(const char *name)
{
    static const char *const hops[] = {"connection", "keep-alive", "proxy-connection",
                                       "proxy-authenticate", "proxy-authorization", "te", "trailer",
                                       "transfer-encoding", "upgrade"};

    return in_list(hops, ARRAY_LEN(hops), name);
}

static void proxy_over(struct proxy *p, const struct err *err)
{
    if (p->o.on_done)
        p->o.on_done(p->req, p->status, err, p->o.arg);
}

static void client_gone(struct http_req *req, void *arg)
{
    struct proxy *p = arg;
    struct err err = {0};

    err_set(&err, CANCELLED, "the client went away");
    http_call_cancel(p->call);
    proxy_over(p, &err);
    free(p);
    http_abort(req);
}

/* ---- request body upstream ---- */

static void up_data(struct http_req *req, const char *data, size_t n, void *arg)
{
    struct proxy *p = arg;

    http_call_write(p->call, data, n);
    if (http_call_queued_bytes(p->call) > IO_HIGH)
        http_body_pause(req);
}

static void up_end(struct http_req *req, const struct err *err, void *arg)
{
    struct proxy *p = arg;

    if (!err)
        http_call_end(p->call);
    else
        client_gone(req, arg);
}

static void up_drain(struct http_call *call, void *arg)
{
    struct proxy *p = arg;

    (void)call;
    if (p->raw)
        http_raw_resume(p->raw);
    else if (p->body_begun)
        http_body_resume(p->req);
}

static void up_begin(struct proxy *p)
{
    if (p->body_begun || p->tunnel || p->req->body_bytes == 0)
        return;
    p->body_begun = true;
    http_body_stream(p->req, up_data, up_end, p);
}

static void up_connected(struct http_call *call, void *arg)
{
    struct proxy *p = arg;

    (void)call;
    p->connected = true;
    if (p->call) /* else inside call_new() still: proxy_go() does it */
        up_begin(p);
}

/* ---- the answer ---- */

static void down_drain(struct http_req *req, void *arg)
{
    (void)req;
    http_call_resume(((struct proxy *)arg)->call);
}

static void raw_data(struct http_raw *raw, const char *data, size_t n, void *arg)
{
    struct proxy *p = arg;

    if (!p->call)
        return;
    http_call_write(p->call, data, n);
    if (http_call_queued_bytes(p->call) > IO_HIGH)
        http_raw_pause(raw);
}
static void raw_end(struct http_raw *raw, void *arg)
{
    struct proxy *p = arg;

    (void)raw;
    if (p->call)
        http_call_end(p->call);
}
static void raw_drain(struct http_raw *raw, void *arg)
{
    struct proxy *p = arg;

    (void)raw;
    if (p->call)
        http_call_resume(p->call);
}
static void raw_close(struct http_raw *raw, void *arg)
{
    struct proxy *p = arg;

    (void)raw;
    proxy_over(p, NULL);
    p->raw = NULL;
    p->req = NULL;
    if (!p->call) {
        free(p);
        return;
    }
    http_call_end(p->call); /* what is queued still goes up, then the upstream closes ... */
    call_expire(p->call, TUNNEL_END_MS); /* ... or is cut */
}

static void copy_headers(struct proxy *p, const struct http_answer *a)
{
    const char *conn = http_answer_get(a, "connection");

    for (size_t i = 0; i < a->headers_n; i++) {
        const char *name = a->headers[i].name;

        if (!hop_by_hop(name) && !(conn && strcasecmp(conn, name) == 0))
            http_header(p->req, name,
                        p->o.on_header ? p->o.on_header(p->req, name, a->headers[i].value, p->o.arg)
                                       : a->headers[i].value);
    }
}

static void down_head(struct http_call *call, const struct http_answer *a, void *arg)
{
    struct proxy *p = arg;
    struct err err = {0};

    p->status = a->status;
    copy_headers(p, a);
    if (a->status != 101) {
        http_on_drain(p->req, down_drain, p);
        http_start(p->req, a->status, a->status == 204 || a->status == 304 ? -1 : a->body_bytes);
        return;
    }
    const char *protocol = http_answer_get(a, "upgrade");

    http_on_close(p->req, NULL, NULL);
    p->raw = http_upgrade(p->req, protocol ? protocol : "", &(struct http_raw_opts){
        .on_data = raw_data, .on_end = raw_end, .on_drain = raw_drain, .on_close = raw_close,
        .arg = p}, &err);
    if (!p->raw) {
        struct http_req *req = p->req;

        http_call_cancel(call);
        proxy_over(p, &err);
        free(p);
        http_abort(req);
    }
}

static void down_data(struct http_call *call, const char *data, size_t n, void *arg)
{
    struct proxy *p = arg;

    if (p->raw) {
        http_raw_write(p->raw, data, n);
        if (http_raw_queued_bytes(p->raw) > IO_HIGH)
            http_call_pause(call);
    } else if (p->req) {
        http_write(p->req, data, n);
        if (http_queued_bytes(p->req) > IO_HIGH)
            http_call_pause(call);
    }
}

static void down_done(struct http_call *call, const struct http_answer *a, const struct err *err,
                      void *arg)
{
    struct proxy *p = arg;
    struct http_req *req = p->req;

    (void)call;
    (void)a;
    p->call = NULL;
    if (!req) { /* a tunnel whose client side went first */
        free(p);
        return;
    }
    if (p->raw) {
        http_raw_close(p->raw); /* raw_close() frees p */
        return;
    }
    http_on_close(req, NULL, NULL);
    http_on_drain(req, NULL, NULL);
    if (err && !http_started(req) && !p->body_begun && p->o.on_fail &&
        p->o.on_fail(req, err, p->o.arg)) {
        free(p);
        return;
    }
    if (err && !http_started(req)) {
        p->status = err->code == ERR_TIMEOUT ? 504 : 502;
        proxy_over(p, err);
        http_reply_str(req, p->status, "text/plain; charset=utf-8",
                       arena_printf(req->arena, "%s\n", err->msg));
    } else {
        proxy_over(p, err);
        if (err)
            http_abort(req);
        else
            http_end(req);
    }
    free(p);
}

/* ---- setting out ---- */

static void proxy_headers(struct proxy *p, struct hdrs *out, bool upgrade)
{
    const struct http_req *q = p->req;
    struct arena *a = p->req->arena;

    for (size_t i = 0; i < q->headers_n; i++) {
        const char *name = q->headers[i].name;
        bool replaced = false;

        for (size_t k = 0; k < p->o.add_n; k++)
            replaced |= strcasecmp(p->o.add[k].name, name) == 0;
        if (replaced || hop_by_hop(name) || in_list(p->o.drop, p->o.drop_n, name) ||
            streq(name, "host") || streq(name, "content-length") || streq(name, "expect") ||
            (!p->o.no_forwarded && str_starts(name, "x-forwarded-")) ||
            (http_has_token(q, "connection", name)))
            continue;
        hdrs_add(out, a, name, q->headers[i].value);
    }
    for (size_t i = 0; i < p->o.add_n; i++)
        hdrs_add(out, a, p->o.add[i].name, p->o.add[i].value);
    if (upgrade) {
        hdrs_add(out, a, "Connection", "Upgrade");
        hdrs_add(out, a, "Upgrade", http_get(q, "upgrade"));
    }
    if (!p->o.no_forwarded) {
        const char *before = http_get(q, "x-forwarded-for");

        if (*q->peer->addr)
            hdrs_add(out, a, "X-Forwarded-For",
                     before ? arena_printf(a, "%s, %s", before, q->peer->addr) : q->peer->addr);
        hdrs_add(out, a, "X-Forwarded-Proto", q->peer->tls ? "https" : "http");
        if (*q->host)
            hdrs_add(out, a, "X-Forwarded-Host", q->host);
    }
}

static void proxy_go(struct http_req *req, struct http_origin *o, const struct http_proxy_opts *opts,
                     bool upgrade)
{
    struct proxy *p = xcalloc(1, sizeof *p);
    struct hdrs h = {0};

    if (opts)
        p->o = *opts;
    p->req = req;
    p->tunnel = upgrade;
    proxy_headers(p, &h, upgrade);
    struct http_call_opts c = {
        .method = req->method,
        .path = p->o.path ? p->o.path : req->target,
        .host = p->o.host ? p->o.host : *req->host ? req->host : NULL,
        .headers = h.h,
        .headers_n = h.n,
        .stream_body = req->body_bytes != 0,
        .body_bytes = req->body_bytes,
        .timeout_ms = p->o.timeout_ms,
        .on_head = down_head,
        .on_data = down_data,
        .on_drain = up_drain,
        .on_done = down_done,
        .arg = p,
    };
    http_on_close(req, client_gone, p);
    p->call = call_new(o, &c, up_connected);
    if (p->connected)
        up_begin(p);
}

void http_proxy(struct http_req *req, struct http_origin *o, const struct http_proxy_opts *opts)
{
    proxy_go(req, o, opts, http_upgrade_wanted(req) && req->body_bytes == 0);
}

void http_tunnel(struct http_req *req, struct http_origin *o, const struct http_proxy_opts *opts)
{
    proxy_go(req, o, opts, http_upgrade_wanted(req) && req->body_bytes == 0);
}
