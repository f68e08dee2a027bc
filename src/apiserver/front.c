/* apiserver/front.c - see front.h. */
#include "apiserver/front.h"

#include "apiserver/front_int.h"
#include "apiserver/outside.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/yaml.h"
#include "schema/protobuf.h"

#include <time.h>
#include <zlib.h>

enum {
    GZIP_FROM_BYTES = 128 << 10, /* as upstream: smaller answers are not worth it */
    LIST_TURN_BYTES = 256 << 10, /* of a list in one turn of the loop */
    LIST_TURN_PIECES = 6,        /* ... and not more pieces, if they are short or empty */
    LIST_QUEUE_MAX = 64 << 10,   /* as the drain callback counts */
};

/* ---------------------------------------------------------------- answers */

/* Appends what n bytes become, compressed; last: and the end. */
static void gzip_add(z_stream *z, struct buf *out, const char *p, size_t n, bool last)
{
    z->next_in = (unsigned char *)(uintptr_t)p;
    z->avail_in = (unsigned)n;
    do {
        buf_reserve(out, 1 << 16);
        z->next_out = (unsigned char *)out->p + out->n;
        z->avail_out = 1 << 16;
        deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        out->n += (1 << 16) - z->avail_out;
    } while (!z->avail_out);
}

/* NULL: no memory for it; then it goes out plain. */
static z_stream *gzip_new(struct arena *a)
{
    z_stream *z = arena_new_of(a, z_stream);

    return deflateInit2(z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK ? z : NULL;
}

static void list_go(struct exchange *x);

static bool takes_gzip(const struct exchange *x)
{
    return http_has_token(x->http, "accept-encoding", "gzip");
}

void exchange_headers(struct exchange *x, const struct api_response *r)
{
    http_header(x->http, "cache-control", r->immutable ? "public, immutable" : "no-cache, private");
    if (r->immutable) { /* as old caches want it said: a year from now */
        time_t when = (time_t)(env_now_ms(x->f->api->env) / 1000 + 365 * 86400);
        struct tm tm;
        char text[64];

        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&when, &tm));
        http_header(x->http, "expires", text);
    }
    if (x->ticket.schema_uid) {
        http_header(x->http, "x-kubernetes-pf-flowschema-uid", x->ticket.schema_uid);
        http_header(x->http, "x-kubernetes-pf-prioritylevel-uid", x->ticket.level_uid);
    }
    if (r->location)
        http_header(x->http, "location", r->location);
    for (const char *const *w = r->warnings; w && *w; w++) {
        struct buf b = {.max = 4096};

        buf_adds(&b, "299 - \"");
        for (const char *s = *w; *s; s++) {
            if (*s == '"' || *s == '\\')
                buf_addc(&b, '\\');
            buf_addc(&b, *s == '\n' || *s == '\r' ? ' ' : *s);
        }
        buf_addc(&b, '"');
        http_header(x->http, "warning", b.p);
        buf_done(&b);
    }
    if (r->retry_after)
        http_header(x->http, "retry-after", r->retry_after);
    if (r->etag) {
        http_header(x->http, "etag", r->etag);
        http_header(x->http, "vary", "Accept");
    }
}

static void release_obj(void *o)
{
    obj_unref(o);
}

static bool wants_pretty(const struct exchange *x)
{
    const char *q = x->http->query, *at = q ? strstr(q, "pretty=") : NULL;

    return at && (at == q || at[-1] == '&') && strncmp(at + 7, "0", 1) != 0 &&
           strncmp(at + 7, "false", 5) != 0;
}

/* If-None-Match: "*", or a list of tags, weak ones too. */
static bool etag_named(const char *list, const char *etag)
{
    size_t n = strlen(etag);

    if (streq(list, "*"))
        return true;
    for (const char *p = list; (p = strstr(p, etag)); p += n)
        if (p == list || strchr(" ,/", p[-1]))
            return true;
    return false;
}

void exchange_over(struct exchange *x, int status)
{
    struct api *api = x->f->api;

    if (!x->known || x->over)
        return;
    x->over = true;
    flow_leave(api->flow, &x->ticket);
    if (x->counted)
        metrics_inflight(api->metrics, x->about.mutating, -1);
    metrics_request(api->metrics, &x->about, status, (double)(uv_hrtime() - x->http->start_ns) / 1e9, x->sent);
}

void exchange_reply(struct exchange *x, const struct api_response *r)
{
    struct http_req *http = x->http;
    struct buf b = {0}, z = {0};
    bool pretty = wants_pretty(x);
    z_stream *gz;

    audit_end(x->req.audit, r->status);
    exchange_headers(x, r);
    if (!r->stream) {
        x->sent = r->obj ? r->obj->text_n : r->body_n;
        exchange_over(x, r->status);
    }
    if (r->stream) {
        x->resp = *r;
        list_go(x);
        return;
    }
    if (r->etag && http_get(http, "if-none-match") && etag_named(http_get(http, "if-none-match"), r->etag)) {
        http_reply(http, 304, NULL, "", 0);
        return;
    }
    if (r->obj && !pretty && r->obj->text_n < GZIP_FROM_BYTES) {
        if (r->obj->packed) /* the text is ours for this turn only */
            http_reply(http, r->status, r->content_type, obj_text(r->obj), r->obj->text_n);
        else
            http_reply_obj(http, r->status, r->content_type, r->obj->text, r->obj->text_n, release_obj,
                           (void *)obj_ref(r->obj));
        return;
    }
    if (pretty && (r->obj || r->val || r->list_kind) && streq0(r->content_type, "application/json"))
        json_write_pretty(&b, api_response_val(http->arena, r));
    else
        api_response_text(&b, r);
    if (b.n >= GZIP_FROM_BYTES && takes_gzip(x) && (gz = gzip_new(http->arena))) {
        gzip_add(gz, &z, b.p, b.n, true);
        deflateEnd(gz);
        http_header(http, "content-encoding", "gzip");
        http_header(http, "vary", "Accept-Encoding");
        http_reply(http, r->status, r->content_type, z.p, z.n);
    } else {
        http_reply(http, r->status, str_empty(r->content_type) ? NULL : r->content_type, b.p ? b.p : "",
                   b.n);
    }
    buf_done(&b);
    buf_done(&z);
}

/* ---------------------------------------------------------------- lists */

/* A list goes out in pieces: a few in a turn of the loop, so that others have theirs, and no more
 * while the client does not take what is there. What is short goes out at once, with its length. */
static void list_end(struct exchange *x)
{
    exchange_over(x, x->resp.status);
    if (x->z)
        deflateEnd(x->z);
    x->z = NULL;
    buf_done(&x->piece);
    x->streaming = false;
}

static void list_posted(void *arg)
{
    struct exchange *x = arg;

    x->posted = false;
    list_go(x);
}

static void list_drained(struct http_req *http, void *arg)
{
    struct exchange *x = arg;

    (void)http;
    if (x->streaming && !x->posted)
        list_go(x);
}

static void list_gone(struct http_req *http, void *arg)
{
    struct exchange *x = arg;

    if (x->posted) /* list_posted() sees it */
        return;
    list_end(x);
    http_end(http);
}

static void list_go(struct exchange *x)
{
    struct http_req *http = x->http;
    struct buf z = {0};
    bool more = true;

    if (http_gone(http)) {
        list_end(x);
        http_end(http);
        return;
    }
    if (x->streaming) /* it has more: room at once, not by doubling */
        buf_reserve(&x->piece, LIST_TURN_BYTES + (LIST_TURN_BYTES >> 1));
    for (int i = 0; more && i < LIST_TURN_PIECES && x->piece.n < LIST_TURN_BYTES; i++)
        more = api_stream_next(x->resp.stream, &x->piece);
    if (more && !x->piece.n) { /* it looks through its objects first */
        http_on_close(http, list_gone, x);
        x->posted = true;
        env_post(x->f->api->env, list_posted, x);
        return;
    }
    if (!x->streaming && !more && x->piece.n < GZIP_FROM_BYTES) {
        z = x->piece; /* the exchange ends with the reply */
        x->piece = (struct buf){0};
        list_end(x);
        http_reply(http, x->resp.status, x->resp.content_type, z.p, z.n);
        buf_done(&z);
        return;
    }
    if (!x->streaming) {
        x->streaming = true;
        http_header(http, "content-type", x->resp.content_type);
        if (takes_gzip(x) && (x->z = gzip_new(http->arena))) {
            http_header(http, "content-encoding", "gzip");
            http_header(http, "vary", "Accept-Encoding");
        }
        http_on_drain(http, list_drained, x);
        http_on_close(http, list_gone, x);
        http_start(http, x->resp.status, -1);
    }
    if (x->z)
        gzip_add(x->z, &z, x->piece.p, x->piece.n, !more);
    else
        z = x->piece, x->piece = (struct buf){0};
    x->sent += z.n;
    buf_reset(&x->piece);
    if (z.n)
        http_write_obj(http, z.p, z.n, free, z.p);
    else
        buf_done(&z);
    if (!more) {
        list_end(x);
        http_end(http);
    } else if (http_queued_bytes(http) < LIST_QUEUE_MAX) {
        x->posted = true;
        env_post(x->f->api->env, list_posted, x);
    } /* else list_drained() goes on */
}

static void render(struct exchange *x)
{
    struct api_response *r = &x->resp;
    struct buf b = {0};

    if (wants_pretty(x) && streq0(r->content_type, "application/json"))
        json_write_pretty(&b, r->val);
    else
        api_response_text(&b, r);
    r->body = arena_memdup(x->http->arena, b.p, b.n);
    r->body_n = b.n;
    r->val = NULL;
    buf_done(&b);
}

static void reply_durable(void *arg, const struct err *err)
{
    struct exchange *x = arg;

    if (err) { /* the disk took it back: the client must not believe in it */
        struct api_response bad = {.status = 500, .content_type = "application/json", .remaining = -1};

        bad.val = status_doc(x->http->arena, 500, "InternalError",
                             arena_printf(x->http->arena, "the write was not kept: %s", err->msg));
        exchange_reply(x, &bad);
        return;
    }
    exchange_reply(x, &x->resp);
}

/* ---------------------------------------------------------------- requests */

/* Nobody waits for the answer of a call that itself waits. */
void exchange_gone(struct http_req *http, void *arg)
{
    struct exchange *x = arg;

    (void)http;
    api_cancel(x->f->api, &x->req);
}

void exchange_answer(void *arg, const struct api_response *resp)
{
    struct exchange *x = arg;

    http_on_close(x->http, NULL, NULL);
    x->resp = *resp;
    if (!resp->watch && resp->val && resp->revision > store_durable(x->f->api->store))
        render(x); /* the document may borrow from trees of objects: they are ours for this turn only */
    if (resp->watch)
        watch_serve(x);
    else
        store_when_durable(x->f->api->store, resp->revision, reply_durable, x);
}

/* ---- their turn (flow.h) ---- */

static void serve(void *arg)
{
    struct exchange *x = arg;

    metrics_inflight(x->f->api->metrics, x->about.mutating, 1);
    x->counted = true;
    http_on_close(x->http, exchange_gone, x);
    api_do(x->f->api, &x->req, exchange_answer, x);
}

static void refuse(void *arg)
{
    struct exchange *x = arg;
    struct api_response r = {.status = 429, .content_type = "text/plain; charset=utf-8", .retry_after = "1",
                             .body = "Too many requests, please try again later.\n", .remaining = -1};

    http_on_close(x->http, NULL, NULL);
    r.body_n = strlen(r.body);
    audit_answer(x->req.audit, &r);
    exchange_reply(x, &r);
}

/* The client went while its request waited. */
static void on_gone_waiting(struct http_req *http, void *arg)
{
    struct exchange *x = arg;

    exchange_over(x, 499);
    http_end(http);
}

static void queue_up(struct exchange *x, struct call *c)
{
    struct api *api = x->f->api;
    struct flow *flow = api->flow;
    int64_t began = env_mono_us(api->env), limit = 0;
    struct flow_level *level;

    call_about(c, &x->about);
    x->known = true;
    if (param(c, "limit"))
        limit = strtoll(param(c, "limit"), NULL, 10);
    x->ticket.go = serve;
    x->ticket.refuse = refuse;
    x->ticket.arg = x;
    x->ticket.bytes = x->req.body_n + 8192;
    switch (flow_enter(flow, &x->ticket, x->http->arena, &x->about, &x->user, limit)) {
    case FLOW_GO:
        level = x->ticket.level;
        serve(x); /* x may be gone then */
        flow_spent(flow, level, env_mono_us(api->env) - began);
        break;
    case FLOW_WAIT:
        http_on_close(x->http, on_gone_waiting, x);
        break;
    case FLOW_REFUSED:
        refuse(x);
        break;
    }
}

/* ---- who asks, may they; only then the body ---- */

static void on_body(struct http_req *http, char *data, size_t n, const struct err *err, void *arg)
{
    struct exchange *x = arg;
    struct api_response bad = {.content_type = "application/json", .remaining = -1};
    struct call c = {.api = x->f->api, .a = http->arena, .req = &x->req};

    if (!err) {
        x->req.body = data;
        x->req.body_n = n;
        if (!proxy_serve(x) && !tunnel_serve(x))
            queue_up(x, &c);
        return;
    }
    bad.status = err_http(err->code);
    bad.val = status_doc(http->arena, bad.status, err_reason(err->code),
                         err->code == ERR_TOO_LARGE
                             ? arena_printf(http->arena, "Request entity too large: limit is %d",
                                            BODY_BYTES_MAX)
                             : err->msg);
    audit_answer(x->req.audit, &bad);
    exchange_reply(x, &bad);
}

/* The first steps are a call of their own, which may wait (a webhook that knows a token, or who may what) and then
 * runs again. It ends with its refusal, or goes over into what comes next. */
static int admit(struct call *c)
{
    struct exchange *x = c->arg;
    bool body = x->http->body_bytes != 0 && !http_upgrade_wanted(x->http) && !proxy_streams(x);

    switch (who(x, c)) {
    case AUTHN_WAIT:
        c->taken = !c->waits; /* authn_woken() begins anew */
        return -1;
    case AUTHN_NO:
        return -1;
    case AUTHN_OK:
        break;
    }
    /* What comes with a body is allowed before the body is read, so that nobody else fills our memory. */
    if (body && access_check(c) < 0)
        return -1;
    x->req.allowed = body;
    c->taken = true;
    outside_forget(c); /* the request may be over, and its arena gone, when we come back */
    http_on_close(x->http, NULL, NULL);
    if (body)
        http_body(x->http, BODY_BYTES_MAX, on_body, x);
    else if (!proxy_serve(x) && !tunnel_serve(x))
        queue_up(x, c);
    return 0;
}

static void refused(void *arg, const struct api_response *resp)
{
    struct exchange *x = arg;

    http_on_close(x->http, NULL, NULL);
    exchange_reply(x, resp);
}

static void run(struct exchange *x)
{
    x->req.user = &x->user;
    http_on_close(x->http, exchange_gone, x);
    call_run(x->f->api, &x->req, admit, refused, x, NULL);
}

void authn_woken(void *exchange)
{
    run(exchange);
}

static void on_request(struct http_req *http, void *arg)
{
    struct exchange *x = arena_new_of(http->arena, struct exchange);

    *x = (struct exchange){
        .f = arg, .http = http,
        .req = {.arena = http->arena, .user = &x->user, .method = http->method,
                .path = http->raw_path, .query = http->query, .accept = http_get(http, "accept"),
                .content_type = http_get(http, "content-type"),
                .user_agent = http_get(http, "user-agent")}};
    x->req.may_stream = !wants_pretty(x);
    http->user = x;
    run(x);
}

/* ---------------------------------------------------------------- life */

struct front *front_new(struct api *api, const char *addr, int port, const struct front_opts *o,
                        struct err *err)
{
    struct front *f = xcalloc(1, sizeof(*f));
    struct http_tls tls = {0};
    struct http_server_opts opts = {.addr = addr, .port = port, .tls = &tls,
                                    .body_bytes_max = BODY_BYTES_MAX, .on_request = on_request,
                                    .arg = f};
    _auto_(freep) char *node_url = NULL, *trust = NULL;

    f->api = api;
    list_init(&f->watches);
    f->client = http_client_new(env_loop(api->env), NULL);
    node_url = xasprintf("unix:%s", api->node_socket);
    f->node = http_origin_new(f->client, node_url, NULL, err);
    if (f->node && front_tls_new(f, o, &tls, &trust, err) == 0)
        f->server = http_server_new(env_loop(api->env), &opts, err);
    free((char *)(uintptr_t)tls.cert_pem);
    free((char *)(uintptr_t)tls.key_pem);
    if (!f->server) {
        front_tls_free(f->tls);
        http_client_free(f->client);
        free(f);
        return NULL;
    }
    api->port = http_server_port(f->server);
    return f;
}

void front_on_renewal(struct front *f, void (*fn)(void *arg), void *arg)
{
    f->renewed = fn;
    f->renewed_arg = arg;
}

int front_port(const struct front *f)
{
    return http_server_port(f->server);
}

static void stopped(void *arg)
{
    struct front *f = arg;
    void (*done)(void *) = f->stopped;
    void *done_arg = f->stopped_arg;

    free(f);
    if (done)
        done(done_arg);
}

void front_stop(struct front *f, uint32_t deadline_ms, void (*done)(void *), void *arg)
{
    f->stopped = done;
    f->stopped_arg = arg;
    f->tls = front_tls_free(f->tls);
    authn_close(f->api->authn);
    f->api->stopping = true; /* /readyz says so from now on */
    LIST_EACH(&f->watches, l)
        watch_finish(list_entry(l, struct exchange, link));
    f->client = http_client_free(f->client);
    http_server_stop(f->server, deadline_ms, stopped, f);
}
