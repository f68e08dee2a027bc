/* http/h1.c - HTTP/1.1 on a connection. The parser pauses at the end of a head and of a message, so
 * that handlers run outside of it. One request is in work at a time; what a client sends ahead
 * (pipelining) waits in conn.stash. */
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#include "http/http_int.h"

enum { STASH_MAX = 65536, DISCARD_MAX = 262144, FIELDS_MAX = 512 };

/* ---- parser callbacks: the head is laid out in conn.head as strings, each with its 0 ---- */

static bool head_add(struct conn *c, const char *p, size_t n)
{
    if (c->head.n + n + 1 > c->s->o.header_bytes_max) {
        c->too_big = true;
        return false;
    }
    buf_add(&c->head, p, n);
    return true;
}

static int on_begin(llhttp_t *p)
{
    struct conn *c = p->data;

    buf_reset(&c->head);
    c->fields = 0;
    c->in_head = true;
    c->msg_done = c->too_big = false;
    return 0;
}
static int on_text(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (!c->in_head) /* trailers are read over */
        return 0;
    return head_add(c, at, n) ? 0 : -1;
}
static int on_name(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    size_t from = c->head.n;

    if (!c->in_head)
        return 0;
    if (!head_add(c, at, n))
        return -1;
    for (size_t i = from; i < c->head.n; i++)
        c->head.p[i] = (char)tolower((unsigned char)c->head.p[i]);
    return 0;
}
static int on_text_end(llhttp_t *p)
{
    struct conn *c = p->data;

    if (!c->in_head)
        return 0;
    buf_addc(&c->head, 0);
    if (++c->fields > 2 * FIELDS_MAX) {
        c->too_big = true;
        return -1;
    }
    return 0;
}
static int on_head(llhttp_t *p)
{
    struct conn *c = p->data;

    c->in_head = false;
    c->ev_head = true;
    return HPE_PAUSED;
}
static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (c->req && !c->discarding)
        req_body_in(c->req, at, n);
    else
        c->discarded += n;
    return 0;
}
static int on_message(llhttp_t *p)
{
    struct conn *c = p->data;

    c->ev_done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t SETTINGS = {
    .on_message_begin = on_begin,
    .on_url = on_text,
    .on_url_complete = on_text_end,
    .on_header_field = on_name,
    .on_header_field_complete = on_text_end,
    .on_header_value = on_text,
    .on_header_value_complete = on_text_end,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_message,
};

/* ---- the answer ---- */

static void h1_done(struct conn *c);

static void h1_start(struct req *r)
{
    struct conn *c = r->conn;
    struct buf *b = &c->s->scratch;

    buf_reset(b);
    buf_adds(b, "HTTP/1.1 ");
    buf_addi(b, r->status);
    buf_addc(b, ' ');
    buf_adds(b, http_status_text(r->status));
    buf_add(b, "\r\n", 2);
    for (size_t i = 0; i < r->out.n; i++) {
        buf_adds(b, r->out.h[i].name);
        buf_add(b, ": ", 2);
        buf_adds(b, r->out.h[i].value);
        buf_add(b, "\r\n", 2);
    }
    if (!r->has_date) {
        buf_adds(b, "Date: ");
        buf_adds(b, server_date(c->s));
        buf_add(b, "\r\n", 2);
    }
    if (r->status != 204 && r->status != 304) {
        if (r->out_length >= 0) {
            buf_adds(b, "Content-Length: ");
            buf_addi(b, r->out_length);
            buf_add(b, "\r\n", 2);
        } else if (r->pub.version >= 11) {
            buf_adds(b, "Transfer-Encoding: chunked\r\n");
            r->chunked = !r->no_body;
        } else {
            c->close_after = true; /* HTTP/1.0: the end of the connection ends the body */
        }
    }
    if (c->s->stopping || (!c->msg_done && r->expect && !r->body_done))
        c->close_after = true;
    if (c->close_after)
        buf_adds(b, "Connection: close\r\n");
    else if (r->pub.version == 10)
        buf_adds(b, "Connection: keep-alive\r\n");
    buf_add(b, "\r\n", 2);
    io_write(&c->io, b->p, b->n);
}

/* A chunk's length in hex, with its line end. */
static void chunk_size(struct io *io, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char size[24], *p = size + sizeof size;

    *--p = '\n';
    *--p = '\r';
    do {
        *--p = digits[n & 15];
    } while (n >>= 4);
    io_write(io, p, (size_t)(size + sizeof size - p));
}

static void h1_write(struct req *r, const void *p, size_t n)
{
    struct io *io = &r->conn->io;

    if (r->chunked)
        chunk_size(io, n);
    io_write(io, p, n);
    if (r->chunked)
        io_write(io, "\r\n", 2);
}

static void h1_borrow(struct req *r, const void *p, size_t n, void (*release)(void *), void *arg)
{
    struct io *io = &r->conn->io;

    if (r->chunked)
        chunk_size(io, n);
    io_borrow(io, p, n, release, arg);
    if (r->chunked)
        io_write(io, "\r\n", 2);
}

static void h1_end(struct req *r)
{
    struct conn *c = r->conn;

    if (r->chunked) {
        io_write(&c->io, "0\r\n", 3);
        for (size_t i = 0; i < r->trailers.n; i++) {
            io_write(&c->io, r->trailers.h[i].name, strlen(r->trailers.h[i].name));
            io_write(&c->io, ": ", 2);
            io_write(&c->io, r->trailers.h[i].value, strlen(r->trailers.h[i].value));
            io_write(&c->io, "\r\n", 2);
        }
        io_write(&c->io, "\r\n", 2);
    }
    c->req = NULL;
    req_free(r);
    h1_done(c);
}

static void h1_abort(struct req *r)
{
    struct conn *c = r->conn;

    c->req = NULL;
    req_free(r);
    conn_close(c);
}

static void h1_go_on(struct req *r)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

    io_write(&r->conn->io, text, sizeof text - 1);
}

static void h1_flow(struct req *r, bool on)
{
    struct conn *c = r->conn;

    if (on)
        c->since_ms = uv_now(c->io.turn->loop);
    if (on || !r->body_done)
        io_read(&c->io, on);
}

static void h1_credit(struct req *r, size_t n)
{
    (void)r;
    (void)n;
}

static size_t h1_queued(const struct req *r)
{
    return io_queued(&r->conn->io);
}

static const struct req_ops OPS = {
    .start = h1_start,
    .write = h1_write,
    .borrow = h1_borrow,
    .end = h1_end,
    .abort = h1_abort,
    .go_on = h1_go_on,
    .flow = h1_flow,
    .credit = h1_credit,
    .queued = h1_queued,
};

/* The answer to the request at hand is written. */
static void h1_done(struct conn *c)
{
    c->since_ms = uv_now(c->io.turn->loop);
    if (c->close_after || c->broken || c->half_closed) {
        conn_close_soon(c);
        return;
    }
    if (!c->msg_done) {
        c->discarding = true; /* the rest of its body is read over, up to a limit */
        c->discarded = 0;
    }
    io_read(&c->io, true);
    if (c->stash.n)
        io_dirty(&c->io); /* the next one waits: from the loop, not from inside the handler */
}

/* ---- input ---- */

static void h1_refuse(struct conn *c, int status, const char *why)
{
    struct buf b = {0};

    buf_printf(&b,
               "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
               "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
               status, http_status_text(status), server_date(c->s), strlen(why) + 1, why);
    io_write(&c->io, b.p, b.n);
    buf_done(&b);
    c->broken = true;
    conn_close_soon(c);
}

static void h1_make(struct conn *c)
{
    struct req *r = req_new(c, &OPS);
    struct http_req *q = &r->pub;
    char *p = arena_memdup(q->arena, c->head.p, c->head.n), *end = p + c->head.n;
    bool chunked = c->parser.flags & F_CHUNKED;

    q->method = llhttp_method_name(c->parser.method);
    q->version = c->parser.http_minor == 0 && c->parser.http_major == 1 ? 10 : 11;
    q->target = p;
    for (p += strlen(p) + 1; p < end;) {
        const char *name = p, *value;

        value = p += strlen(p) + 1;
        if (p >= end)
            break;
        p += strlen(p) + 1;
        hdrs_add(&r->in, q->arena, name, value);
    }
    q->body_bytes = chunked ? -1
                    : c->parser.flags & F_CONTENT_LENGTH ? (int64_t)c->parser.content_length : 0;
    c->close_after = !llhttp_should_keep_alive(&c->parser);
    if (c->parser.upgrade) /* asked for, not yet granted: keep-alive is not the parser's to say */
        c->close_after = http_has_token(q, "connection", "close");
    if (c->parser.http_major != 1) {
        req_free(r);
        h1_refuse(c, 505, "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here");
        return;
    }
    if (q->body_bytes < -1 || !req_ready(r)) {
        req_free(r);
        h1_refuse(c, 400, "the request target is malformed");
        return;
    }
    if (q->version == 11 && !http_get(q, "host")) {
        req_free(r);
        h1_refuse(c, 400, "the Host header is missing");
        return;
    }
    c->req = r;
    c->discarding = false;
    c->since_ms = uv_now(c->io.turn->loop);
    req_dispatch(r);
}

static void h1_message_end(struct conn *c)
{
    c->msg_done = true;
    c->discarding = false;
    if (c->req)
        req_body_end(c->req);
}

static void h1_parse_error(struct conn *c, llhttp_errno_t e)
{
    struct err err = {0};

    if (c->too_big) {
        h1_refuse(c, 431, "the request headers are too large");
        return;
    }
    c->broken = c->close_after = true;
    if (!c->req) {
        char why[160];

        snprintf(why, sizeof why, "malformed request: %s", llhttp_get_error_reason(&c->parser)
                     ? llhttp_get_error_reason(&c->parser) : llhttp_errno_name(e));
        h1_refuse(c, e == HPE_INVALID_METHOD ? 501 : 400, why);
        return;
    }
    err_set(&err, INVALID_ARGUMENT, "malformed request body: %s", llhttp_errno_name(e));
    req_body_fail(c->req, &err);
}

void h1_begin(struct conn *c)
{
    c->mode = C_H1;
    llhttp_init(&c->parser, HTTP_REQUEST, &SETTINGS);
    c->parser.data = c;
}

void h1_feed(struct conn *c, const char *p, size_t n)
{
    bool again = false; /* the parser is paused at an end: it goes on even without input */

    c->in_feed = true;
    while ((n || again) && c->mode == C_H1 && !c->broken && !c->io.closing) {
        llhttp_errno_t e;
        const char *pos;

        if (c->req && c->msg_done)
            break;
        again = false;
        e = llhttp_execute(&c->parser, p, n);
        if (e == HPE_OK) {
            n = 0;
            break;
        }
        pos = llhttp_get_error_pos(&c->parser);
        if (pos && e != HPE_OK) {
            n -= (size_t)(pos - p);
            p = pos;
        }
        if (e == HPE_PAUSED) {
            llhttp_resume(&c->parser);
            again = true;
            if (c->ev_head) {
                c->ev_head = false;
                h1_make(c);
            }
            if (c->ev_done) {
                c->ev_done = false;
                h1_message_end(c);
            }
        } else if (e == HPE_PAUSED_UPGRADE) {
            llhttp_resume_after_upgrade(&c->parser);
        } else {
            h1_parse_error(c, e);
            n = 0;
        }
    }
    c->in_feed = false;
    if (c->io.closing || c->broken)
        return;
    if (c->discarding && c->discarded > DISCARD_MAX) {
        conn_close_soon(c);
        return;
    }
    if (n && (c->mode == C_H1 || c->mode == C_RAW)) {
        buf_add(&c->stash, p, n);
        if (c->stash.n > STASH_MAX && c->mode == C_H1)
            io_read(&c->io, false);
    }
}

/* From the loop, before a flush: things that must not happen inside a handler's call. */
void h1_kick(struct conn *c)
{
    if (c->stash.n && !c->in_feed && (c->mode != C_H1 || !(c->req && c->msg_done)) &&
        (c->mode != C_RAW || c->io.want_read)) {
        struct buf b = c->stash;

        c->stash = (struct buf){0};
        if (c->mode == C_H1)
            h1_feed(c, b.p, b.n);
        else if (c->mode == C_RAW && !c->raw->closing)
            c->raw->o.on_data(c->raw, b.p, b.n, c->raw->o.arg);
        buf_done(&b);
    }
}

/* The client sent its last byte. Before an answer has begun that is fine (it may have only shut its sending
 * side); in the middle of a streamed answer it means that nobody listens any more. */
void h1_eof(struct conn *c)
{
    struct req *r = c->req;

    if (!r || !c->msg_done || r->started || c->broken) {
        conn_close(c);
        return;
    }
    c->half_closed = true;
}

bool h1_idle(const struct conn *c)
{
    return !c->req && !c->stash.n && !c->in_head && !c->discarding;
}

void h1_tick(struct conn *c, uint64_t now)
{
    const struct http_server_opts *o = &c->s->o;
    uint64_t quiet = now - c->since_ms;

    if (c->in_head && quiet > o->header_timeout_ms) {
        h1_refuse(c, 408, "the request did not come in time");
    } else if (h1_idle(c)) {
        if (quiet > o->idle_timeout_ms)
            conn_close(c);
    } else if (!c->msg_done && !c->in_head && quiet > o->body_timeout_ms &&
               (c->discarding || (c->req && c->req->mode != BODY_NONE && !c->req->paused &&
                                  !c->req->held.n))) {
        conn_close(c);
    }
}
