/* http/client.c - calls over pooled HTTP/1.1 connections. A call owns its text until an answer
 * starts, so that it can be sent once more when a pooled connection turns out to be dead. */
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "http/client_int.h"

enum { TICK_MS = 100, ANSWER_HEAD_MAX = 262144 };
#define NEVER UINT64_MAX

static void on_tick(uv_timer_t *t);

struct http_client {
    struct turn *turn;
    struct http_client_opts o;
    struct list origins, calls, conns;
    struct list late; /* calls whose failure is told from the loop */
    uv_timer_t tick, soon;
    unsigned handles;
    bool soon_tick; /* the next look at time limits is at most TICK_MS away */
    bool closing;
};

struct http_origin {
    struct http_client *c;
    struct list link, idle, waiting;
    char *host, *host_header, *unix_path, *server_name;
    int port;
    void (*dial)(void *arg, struct http_dial *d);
    void *dial_arg;
    SSL_CTX *tls;
    bool numeric, closing;
    struct sockaddr_storage addr;
    uint32_t conns_n, conns_max, refs;
    unsigned idle_n;
};

enum cconn_state { CC_RESOLVING, CC_CONNECTING, CC_BUSY, CC_IDLE };

struct cconn {
    struct io io;
    struct http_origin *o;
    struct http_call *call;
    struct list link, pool; /* client's conns; origin's idle */
    enum cconn_state state;
    llhttp_t parser;
    struct buf head;
    uint32_t strings;
    uint64_t since_ms;
    uv_getaddrinfo_t gai;
    bool ev_head, ev_done, in_head, too_big, keep, raw, served, made;
    bool resolving, dead, more; /* more: the name has another address yet */
};

struct http_call {
    struct http_client *c;
    struct http_origin *o;
    struct cconn *conn;
    struct list link, wait;
    struct arena *arena;
    struct http_call_opts o_;
    struct buf text; /* head and first body */
    struct chunks q; /* written before there was a connection */
    struct http_answer answer;
    struct hdrs hdrs;
    bool head_only, chunked, ended, sent, answered, told_head, upgrade, raw, paused, retried, late;
    bool got_byte, expires;
    unsigned refused; /* so many addresses of the name did not answer */
    uint64_t deadline_ms, data_ms;
    struct err err;
    void (*on_connected)(struct http_call *, void *);
};

static void call_assign(struct http_call *call);
static void call_fail(struct http_call *call, const struct err *err);

const char *http_answer_get(const struct http_answer *a, const char *name)
{
    for (size_t i = 0; i < a->headers_n; i++)
        if (strcasecmp(a->headers[i].name, name) == 0)
            return a->headers[i].value;
    return NULL;
}

/* ---- calls: their end ---- */

static void origin_unref(struct http_origin *o)
{
    if (--o->refs > 0)
        return;
    if (o->tls)
        SSL_CTX_free(o->tls);
    free(o->host);
    free(o->host_header);
    free(o->unix_path);
    free(o->server_name);
    free(o);
}

static void call_free(struct http_call *call)
{
    list_remove(&call->link);
    list_remove(&call->wait);
    chunks_drop(call->c->turn, &call->q);
    buf_done(&call->text);
    origin_unref(call->o);
    arena_free(call->arena);
}

static void call_done(struct http_call *call, const struct err *err)
{
    if (call->conn) {
        call->conn->call = NULL;
        call->conn = NULL;
    }
    list_remove(&call->link);
    list_remove(&call->wait);
    call->o_.on_done(call, call->answered ? &call->answer : NULL, err, call->o_.arg);
    call_free(call);
}

static void call_fail(struct http_call *call, const struct err *err)
{
    struct cconn *k = call->conn;

    if (k) {
        k->call = NULL;
        call->conn = NULL;
        io_close(&k->io);
    }
    call_done(call, err);
}

static void on_soon(uv_timer_t *t)
{
    struct http_client *c = t->data;

    while (!list_empty(&c->late)) {
        struct http_call *call = list_entry(c->late.next, struct http_call, wait);

        list_remove(&call->wait);
        call_fail(call, &call->err);
    }
}

/* From places where no callback may come. */
static void call_fail_late(struct http_call *call, const struct err *err)
{
    call->err = *err;
    list_remove(&call->wait);
    list_push(&call->c->late, &call->wait);
    uv_timer_start(&call->c->soon, on_soon, 0, 0);
}

/* ---- connections ---- */

static void client_maybe_gone(struct http_client *c);

static void cconn_free(struct cconn *k)
{
    struct http_client *c = k->o->c;

    if (k->resolving || !k->dead)
        return;
    list_remove(&k->link);
    buf_done(&k->head);
    origin_unref(k->o);
    turn_unref(k->io.turn);
    free(k);
    client_maybe_gone(c);
}

static void cconn_drop(struct cconn *k)
{
    if (list_linked(&k->pool)) {
        list_remove(&k->pool);
        k->o->idle_n--;
    }
    io_close(&k->io);
}

static void next_waiting(struct http_origin *o)
{
    struct list *it = list_first(&o->waiting);

    if (!it)
        return;
    struct http_call *call = list_entry(it, struct http_call, wait);

    list_remove(&call->wait);
    call_assign(call);
}

static void k_closed(void *owner)
{
    struct cconn *k = owner;
    struct http_origin *o = k->o;

    if (list_linked(&k->pool)) {
        list_remove(&k->pool);
        o->idle_n--;
    }
    if (k->call) { /* closed under it */
        struct err err = {0};
        struct http_call *call = k->call;

        k->call = NULL;
        call->conn = NULL;
        err_set(&err, BAD_GATEWAY, "%s: the connection was closed", o->host_header);
        call_done(call, &err);
    }
    o->conns_n--;
    if (!o->c->closing)
        next_waiting(o);
    k->dead = true;
    cconn_free(k);
}

/* The connection broke (or could not be made) while it carried a call. */
static void k_broken(struct cconn *k, const struct err *err)
{
    struct http_call *call = k->call;

    cconn_drop(k);
    if (!call)
        return;
    k->call = NULL;
    call->conn = NULL;
    if (k->served && !call->got_byte && !call->retried && !call->o_.stream_body &&
        (call->o_.idempotent ||
         (!streq(call->o_.method, "POST") && !streq(call->o_.method, "PATCH")))) {
        call->retried = true; /* the server had closed the pooled connection */
        call->sent = false;
        call_assign(call);
        return;
    }
    call_done(call, err);
}

/* ---- parsing the answer ---- */

static bool k_add(struct cconn *k, const char *p, size_t n)
{
    if (k->head.n + n > ANSWER_HEAD_MAX) {
        k->too_big = true;
        return false;
    }
    buf_add(&k->head, p, n);
    return true;
}
static int k_begin(llhttp_t *p)
{
    struct cconn *k = p->data;

    buf_reset(&k->head);
    k->in_head = true;
    return 0;
}
static int k_name(llhttp_t *p, const char *at, size_t n)
{
    struct cconn *k = p->data;
    size_t from = k->head.n;

    if (!k->in_head)
        return 0;
    if (!k_add(k, at, n))
        return -1;
    for (size_t i = from; i < k->head.n; i++)
        if (k->head.p[i] >= 'A' && k->head.p[i] <= 'Z')
            k->head.p[i] |= 32;
    return 0;
}
static int k_value(llhttp_t *p, const char *at, size_t n)
{
    struct cconn *k = p->data;

    return !k->in_head || k_add(k, at, n) ? 0 : -1;
}
static int k_string_end(llhttp_t *p)
{
    struct cconn *k = p->data;

    if (k->in_head)
        buf_addc(&k->head, 0);
    return 0;
}
static int k_head(llhttp_t *p)
{
    struct cconn *k = p->data;

    k->in_head = false;
    k->ev_head = true;
    if (k->call && k->call->head_only)
        p->flags |= F_SKIPBODY;
    return HPE_PAUSED;
}
static int k_body(llhttp_t *p, const char *at, size_t n)
{
    struct cconn *k = p->data;
    struct http_call *call = k->call;

    if (!call || p->status_code / 100 == 1)
        return 0;
    call->data_ms = uv_now(k->io.turn->loop);
    if (call->o_.on_data)
        call->o_.on_data(call, at, n, call->o_.arg);
    return 0;
}
static int k_message(llhttp_t *p)
{
    struct cconn *k = p->data;

    k->ev_done = true;
    return HPE_PAUSED;
}
static const llhttp_settings_t SETTINGS = {
    .on_message_begin = k_begin,
    .on_header_field = k_name,
    .on_header_field_complete = k_string_end,
    .on_header_value = k_value,
    .on_header_value_complete = k_string_end,
    .on_headers_complete = k_head,
    .on_body = k_body,
    .on_message_complete = k_message,
};

/* Something has a time limit now that it had not: the timer is not further away than needed. */
static void client_tick(struct http_client *c)
{
    if (c->soon_tick || c->closing)
        return;
    c->soon_tick = true;
    uv_timer_start(&c->tick, on_tick, TICK_MS, 0);
}

static void k_got_head(struct cconn *k)
{
    struct http_call *call = k->call;
    char *p, *end;

    if (!call || (k->parser.status_code / 100 == 1 && k->parser.status_code != 101))
        return;
    p = arena_memdup(call->arena, k->head.n ? k->head.p : "", k->head.n);
    end = p + k->head.n;
    while (p < end) {
        const char *name = p, *value;

        value = p += strlen(p) + 1;
        if (p >= end)
            break;
        p += strlen(p) + 1;
        hdrs_add(&call->hdrs, call->arena, name, value);
    }
    k->keep = llhttp_should_keep_alive(&k->parser);
    call->answered = true;
    call->data_ms = uv_now(k->io.turn->loop);
    client_tick(call->c);
    call->answer = (struct http_answer){
        .status = k->parser.status_code,
        .headers = call->hdrs.h,
        .headers_n = call->hdrs.n,
        .arena = call->arena,
        .body_bytes = k->parser.flags & F_CONTENT_LENGTH ? (int64_t)k->parser.content_length : -1,
    };
    if (call->answer.status == 101) {
        if (!call->upgrade) {
            struct err err = {0};

            err_set(&err, BAD_GATEWAY, "the server switched protocols unasked");
            call_fail(call, &err);
            return;
        }
        call->raw = k->raw = true;
    }
    if (call->o_.on_head)
        call->o_.on_head(call, &call->answer, call->o_.arg);
}

static void k_got_all(struct cconn *k)
{
    struct http_call *call = k->call;

    if (!call || !call->answered || k->raw)
        return;
    k->call = NULL;
    call->conn = NULL;
    if (k->keep && call->ended && !k->io.failed && !k->o->closing && !k->o->c->closing &&
        k->o->idle_n < k->o->c->o.idle_conns_max && !io_queued(&k->io)) {
        k->state = CC_IDLE;
        k->served = true;
        k->since_ms = uv_now(k->io.turn->loop);
        list_push_front(&k->o->idle, &k->pool);
        k->o->idle_n++;
        client_tick(k->o->c);
        io_read(&k->io, true);
    } else {
        io_close(&k->io);
    }
    struct http_origin *o = k->o;

    o->refs++;
    call_done(call, NULL);
    if (!o->closing && !o->c->closing && !list_empty(&o->idle))
        next_waiting(o);
    origin_unref(o);
}

static void k_data(void *owner, const char *p, size_t n)
{
    struct cconn *k = owner;
    bool again = false;

    if (k->state == CC_IDLE) { /* nobody asked: out of step */
        cconn_drop(k);
        return;
    }
    if (k->call)
        k->call->got_byte = true;
    while ((n || again) && !k->raw && !k->io.closing && k->call) {
        llhttp_errno_t e;
        const char *pos;

        again = false;
        e = llhttp_execute(&k->parser, p, n);
        if (e == HPE_OK)
            return;
        pos = llhttp_get_error_pos(&k->parser);
        if (pos) {
            n -= (size_t)(pos - p);
            p = pos;
        }
        if (e == HPE_PAUSED) {
            llhttp_resume(&k->parser);
            again = true;
            if (k->ev_head) {
                k->ev_head = false;
                k_got_head(k);
            }
            if (k->ev_done) {
                k->ev_done = false;
                k_got_all(k);
            }
        } else if (e == HPE_PAUSED_UPGRADE) {
            llhttp_resume_after_upgrade(&k->parser);
        } else {
            struct err err = {0};

            err_set(&err, BAD_GATEWAY, "%s sent a malformed answer: %s", k->o->host_header,
                    k->too_big ? "headers too large" : llhttp_errno_name(e));
            if (k->call)
                call_fail(k->call, &err);
            else
                cconn_drop(k);
            return;
        }
    }
    if (k->raw && k->call && n && k->call->o_.on_data)
        k->call->o_.on_data(k->call, p, n, k->call->o_.arg);
}

static void k_eof(void *owner, int error)
{
    struct cconn *k = owner;
    struct http_call *call = k->call;
    struct err err = {0};

    if (!call) {
        cconn_drop(k);
        return;
    }
    if (k->raw) {
        io_close(&k->io);
        k->call = NULL;
        call->conn = NULL;
        call_done(call, NULL);
        return;
    }
    if (!error && call->answered) {
        llhttp_finish(&k->parser); /* a body that ends with the connection */
        if (k->ev_done) {
            k->ev_done = false;
            k->keep = false;
            k_got_all(k);
            return;
        }
    }
    err_set(&err, BAD_GATEWAY, "%s: the connection ended %s%s%s", k->o->host_header,
            call->answered ? "in the middle of the answer" : "before an answer",
            error ? ": " : "", error ? uv_strerror(error) : "");
    k_broken(k, &err);
}

static void k_drain(void *owner)
{
    struct cconn *k = owner;

    if (k->call && k->call->o_.on_drain)
        k->call->o_.on_drain(k->call, k->call->o_.arg);
}

static void k_serve(struct cconn *k, struct http_call *call);

static void k_ready(void *owner, const struct err *err)
{
    struct cconn *k = owner;

    if (err) {
        struct err e = *err;

        err_wrap(&e, "connect to %s", k->o->host_header);
        e.code = ERR_BAD_GATEWAY;
        k_broken(k, &e);
        return;
    }
    if (k->call)
        k_serve(k, k->call);
    else
        cconn_drop(k);
}

static const struct io_ops K_OPS = {
    .data = k_data,
    .eof = k_eof,
    .drain = k_drain,
    .ready = k_ready,
    .closed = k_closed,
};

/* ---- connecting ---- */

static void on_connect(uv_connect_t *req, int status)
{
    struct cconn *k = container_of(req, struct cconn, io.creq);

    if (k->io.closing)
        return;
    if (status < 0 && k->call && k->more) { /* "localhost" is ::1, too, where nobody may listen */
        struct http_call *call = k->call;

        k->call = NULL;
        call->conn = NULL;
        call->refused++;
        cconn_drop(k);
        call_assign(call);
        return;
    }
    if (status < 0) {
        struct err err = {0};

        err_set(&err, UNAVAILABLE, "connect to %s: %s", k->o->host_header, uv_strerror(status));
        k_broken(k, &err);
        return;
    }
    if (!k->o->unix_path)
        uv_tcp_nodelay(&k->io.h.tcp, 1);
    io_connected(&k->io);
}

static int tcp_connect(struct cconn *k, const struct sockaddr *sa)
{
    k->state = CC_CONNECTING;
    return uv_tcp_connect(&k->io.creq, &k->io.h.tcp, sa, on_connect);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct cconn *k = container_of(req, struct cconn, gai);

    k->resolving = false;
    if (k->dead) {
        uv_freeaddrinfo(res);
        cconn_free(k);
        return;
    }
    if (!k->io.closing) {
        struct addrinfo *at = res;

        for (unsigned i = 0; status == 0 && k->call && i < k->call->refused && at->ai_next; i++)
            at = at->ai_next;
        k->more = status == 0 && at->ai_next;
        if (status < 0 && streq(k->o->host, "localhost")) { /* needs nobody to say where it is */
            struct sockaddr_in own;

            uv_ip4_addr("127.0.0.1", k->o->port, &own);
            status = tcp_connect(k, (struct sockaddr *)&own);
        } else if (status == 0) {
            status = tcp_connect(k, at->ai_addr);
        }
        if (status < 0) {
            struct err err = {0};

            err_set(&err, UNAVAILABLE, "%s: %s", k->o->host, uv_strerror(status));
            k_broken(k, &err);
        }
    }
    uv_freeaddrinfo(res);
}

void http_dialed(struct http_dial *d, int fd)
{
    struct cconn *k = (struct cconn *)d;
    struct err err = {0};

    k->resolving = false;
    if (k->dead || k->io.closing) {
        if (fd >= 0)
            close(fd);
        if (k->dead)
            cconn_free(k);
        return;
    }
    if (fd >= 0 && uv_tcp_open(&k->io.h.tcp, fd) == 0) {
        uv_tcp_nodelay(&k->io.h.tcp, 1);
        io_connected(&k->io);
        return;
    }
    if (fd >= 0)
        close(fd);
    err_set(&err, UNAVAILABLE, "connect to %s: nobody answers there", k->o->host_header);
    k_broken(k, &err);
}

static int k_connect(struct cconn *k)
{
    struct http_origin *o = k->o;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    char port[12];
    int rc;

    if (o->dial && o->closing)
        return UV_ECONNREFUSED; /* who would make it has gone */
    if (o->dial) {
        k->state = CC_CONNECTING;
        k->resolving = true; /* it stays until http_dialed() */
        o->dial(o->dial_arg, (struct http_dial *)k);
        return 0;
    }
    if (o->unix_path) {
        k->state = CC_CONNECTING;
        uv_pipe_connect(&k->io.creq, &k->io.h.pipe, o->unix_path, on_connect);
        return 0;
    }
    if (o->numeric)
        return tcp_connect(k, (struct sockaddr *)&o->addr);
    snprintf(port, sizeof port, "%d", o->port);
    k->state = CC_RESOLVING;
    rc = uv_getaddrinfo(k->io.turn->loop, &k->gai, on_resolved, o->host, port, &hints);
    k->resolving = rc == 0;
    return rc;
}

static void call_assign(struct http_call *call)
{
    struct http_origin *o = call->o;
    struct list *it = call->upgrade || call->retried ? NULL : list_first(&o->idle);
    struct cconn *k;
    int rc;

    if (it) {
        k = list_entry(it, struct cconn, pool);
        list_remove(&k->pool);
        o->idle_n--;
        k_serve(k, call);
        return;
    }
    if (o->conns_max && o->conns_n >= o->conns_max) {
        list_push(&o->waiting, &call->wait);
        return;
    }
    k = xcalloc(1, sizeof *k);
    k->o = o;
    k->call = call;
    call->conn = k;
    k->since_ms = uv_now(call->c->turn->loop);
    o->refs++;
    o->conns_n++;
    list_push(&call->c->conns, &k->link);
    rc = io_init(&k->io, turn_ref(call->c->turn->loop), o->unix_path != NULL, &K_OPS, k);
    if (o->tls)
        io_tls(&k->io, o->tls, false, o->server_name);
    io_read(&k->io, true);
    client_tick(call->c);
    if (rc == 0)
        rc = k_connect(k);
    if (rc < 0) {
        struct err err = {0};

        err_set(&err, UNAVAILABLE, "connect to %s: %s", o->host_header, uv_strerror(rc));
        call_fail_late(call, &err);
    }
}

static void put_chunk(struct http_call *call, const void *p, size_t n)
{
    struct turn *t = call->c->turn;
    struct chunks *q = call->conn && call->sent ? &call->conn->io.out : &call->q;
    char size[24];

    if (!n)
        return;
    if (call->chunked && !call->raw)
        chunks_add(t, q, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
    chunks_add(t, q, p, n);
    if (call->chunked && !call->raw)
        chunks_add(t, q, "\r\n", 2);
    if (q != &call->q) {
        call->conn->io.over |= q->n > IO_LOW;
        io_dirty(&call->conn->io);
    }
}

/* A ready connection takes the call. */
static void k_serve(struct cconn *k, struct http_call *call)
{
    uint64_t now = uv_now(k->io.turn->loop);

    k->call = call;
    call->conn = k;
    k->state = CC_BUSY;
    k->since_ms = now;
    k->keep = k->raw = k->too_big = k->ev_head = k->ev_done = false;
    llhttp_init(&k->parser, HTTP_RESPONSE, &SETTINGS);
    k->parser.data = k;
    call->sent = true;
    call->data_ms = now;
    io_write(&k->io, call->text.p, call->text.n);
    chunks_move(k->io.turn, &call->q, &k->io.out, call->q.n);
    k->io.over |= k->io.out.n > IO_LOW;
    io_read(&k->io, !call->paused);
    client_tick(call->c);
    if (call->on_connected)
        call->on_connected(call, call->o_.arg);
}

/* ---- the calls ---- */

static bool ours(const char *name, bool upgrade)
{
    if (upgrade && (strcasecmp(name, "connection") == 0 || strcasecmp(name, "upgrade") == 0))
        return false;
    return strcasecmp(name, "content-length") == 0 || strcasecmp(name, "transfer-encoding") == 0 ||
           strcasecmp(name, "connection") == 0 || strcasecmp(name, "host") == 0;
}

static bool may_stand(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 32 && *s != '\t')
            return false;
    return true;
}

/* What would end the path, or the line, is escaped: whoever made the path may have had parts of it from somebody else. */
static void add_path(struct buf *b, const char *path)
{
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p <= ' ' || *p == 0x7f)
            buf_printf(b, "%%%02X", *p);
        else
            buf_addc(b, (char)*p);
}

static void call_text(struct http_call *call, const struct http_call_opts *o)
{
    struct buf *b = &call->text;
    const char *method = call->o_.method;

    buf_printf(b, "%s ", method);
    add_path(b, o->path ? o->path : "/");
    buf_printf(b, " HTTP/1.1\r\nHost: %s\r\n", o->host ? o->host : call->o->host_header);
    for (size_t i = 0; i < o->headers_n; i++)
        if (!ours(o->headers[i].name, call->upgrade) && may_stand(o->headers[i].name) &&
            may_stand(o->headers[i].value)) {
            buf_adds(b, o->headers[i].name);
            buf_add(b, ": ", 2);
            buf_adds(b, o->headers[i].value);
            buf_add(b, "\r\n", 2);
        }
    if (o->stream_body && o->body_bytes > 0) {
        buf_printf(b, "Content-Length: %lld\r\n", (long long)o->body_bytes);
    } else if (o->stream_body) {
        buf_adds(b, "Transfer-Encoding: chunked\r\n");
        call->chunked = true;
    } else if (o->body_n || streq(method, "POST") || streq(method, "PUT") || streq(method, "PATCH")) {
        buf_printf(b, "Content-Length: %zu\r\n", o->body_n);
    }
    buf_add(b, "\r\n", 2);
    if (o->body_n && !o->stream_body)
        buf_add(b, o->body, o->body_n);
    else if (o->body_n)
        put_chunk(call, o->body, o->body_n);
}

struct http_call *call_new(struct http_origin *o, const struct http_call_opts *opts,
                           void (*on_connected)(struct http_call *, void *))
{
    struct arena *a = arena_new();
    struct http_call *call = arena_new_of(a, struct http_call);

    ASSERT(opts->on_done);
    call->arena = a;
    call->c = o->c;
    call->o = o;
    o->refs++;
    call->o_ = *opts;
    call->o_.method = arena_strdup(a, opts->method ? opts->method : "GET");
    call->head_only = streq(call->o_.method, "HEAD");
    call->on_connected = on_connected;
    call->ended = !opts->stream_body;
    for (size_t i = 0; i < opts->headers_n; i++)
        call->upgrade |= strcasecmp(opts->headers[i].name, "upgrade") == 0;
    call_text(call, opts);
    if (opts->timeout_ms)
        call->deadline_ms = uv_now(o->c->turn->loop) + opts->timeout_ms;
    list_push(&o->c->calls, &call->link);
    client_tick(o->c);
    if (o->closing || o->c->closing) {
        struct err err = {0};

        err_set(&err, CANCELLED, "%s is closed", o->host_header);
        call_fail_late(call, &err);
    } else {
        call_assign(call);
    }
    return call;
}

struct http_call *http_call(struct http_origin *o, const struct http_call_opts *opts)
{
    return call_new(o, opts, NULL);
}

void http_call_write(struct http_call *call, const void *p, size_t n)
{
    if (!call->ended || call->raw)
        put_chunk(call, p, n);
}

void http_call_end(struct http_call *call)
{
    if (call->raw) {
        if (call->conn)
            io_shutdown(&call->conn->io);
        return;
    }
    if (call->ended)
        return;
    call->ended = true;
    if (call->chunked) {
        struct chunks *q = call->conn && call->sent ? &call->conn->io.out : &call->q;

        chunks_add(call->c->turn, q, "0\r\n\r\n", 5);
        if (call->conn && call->sent)
            io_dirty(&call->conn->io);
    }
}

size_t http_call_queued_bytes(const struct http_call *call)
{
    return call->q.n + (call->conn ? io_queued(&call->conn->io) : 0);
}

void http_call_pause(struct http_call *call)
{
    call->paused = true;
    if (call->conn && call->sent)
        io_read(&call->conn->io, false);
}

void http_call_resume(struct http_call *call)
{
    call->paused = false;
    call->data_ms = uv_now(call->c->turn->loop);
    client_tick(call->c);
    if (call->conn && call->sent)
        io_read(&call->conn->io, true);
}

void http_call_cancel(struct http_call *call)
{
    struct cconn *k = call->conn;

    if (k) {
        k->call = NULL;
        cconn_drop(k);
    }
    call_free(call);
}

void call_expire(struct http_call *call, uint32_t ms)
{
    call->deadline_ms = uv_now(call->c->turn->loop) + ms;
    call->expires = true;
    http_call_resume(call); /* an end that is not read is not seen */
}

enum limit { LIMIT_ANSWER, LIMIT_CONNECT, LIMIT_DATA, LIMITS };

/* When the call is over for want of time, in ms of the loop, and of what; NEVER: it may take as long as it likes. */
static uint64_t call_limit(const struct http_call *call, enum limit *ret)
{
    const struct cconn *k = call->conn;
    uint64_t at[LIMITS] = {NEVER, NEVER, NEVER};

    if (call->deadline_ms && (!call->answered || call->expires))
        at[LIMIT_ANSWER] = call->deadline_ms;
    if (k && k->state < CC_BUSY)
        at[LIMIT_CONNECT] = k->since_ms + call->c->o.connect_timeout_ms + 1;
    if (call->answered && call->o_.idle_timeout_ms && !call->paused)
        at[LIMIT_DATA] = call->data_ms + call->o_.idle_timeout_ms + 1;
    *ret = LIMIT_ANSWER;
    for (enum limit i = LIMIT_CONNECT; i < LIMITS; i++)
        if (at[i] < at[*ret])
            *ret = i;
    return at[*ret];
}

static void call_late(struct http_call *call, enum limit what)
{
    const char *host = call->o->host_header;
    struct err err;

    switch (what) {
    case LIMIT_CONNECT:
        err_set(&err, TIMEOUT, "connect to %s: no answer", host);
        break;
    case LIMIT_DATA:
        err_set(&err, TIMEOUT, "%s stopped sending", host);
        break;
    default:
        err_set(&err, TIMEOUT, "%s did not answer in time", host);
    }
    call_fail(call, &err);
}

/* Ends what is over, and sleeps until the next limit: a watch that says nothing has none. */
static void on_tick(uv_timer_t *t)
{
    struct http_client *c = t->data;
    uint64_t now = uv_now(c->turn->loop), next = NEVER, at;
    enum limit what;

    c->soon_tick = false;
    for (struct list *it = c->calls.next; it != &c->calls;) {
        struct http_call *call = list_entry(it, struct http_call, link);

        it = it->next;
        at = call_limit(call, &what);
        if (at > now) {
            next = MIN(next, at);
            continue;
        }
        call_late(call, what);
        it = c->calls.next; /* the callback may have changed anything */
        next = NEVER;
        if (c->closing)
            return;
    }
    LIST_EACH(&c->conns, ck) {
        struct cconn *k = list_entry(ck, struct cconn, link);

        if (k->state != CC_IDLE || !list_linked(&k->pool))
            continue;
        at = k->since_ms + c->o.idle_timeout_ms + 1;
        if (at > now)
            next = MIN(next, at);
        else
            cconn_drop(k);
    }
    if (next - now <= TICK_MS)
        client_tick(c);
    else if (next != NEVER && !c->soon_tick)
        uv_timer_start(&c->tick, on_tick, next - now, 0);
}

int64_t http_client_sleeps(const struct http_client *c)
{
    return uv_is_active((const uv_handle_t *)&c->tick) ? (int64_t)uv_timer_get_due_in(&c->tick) : -1;
}

/* ---- origins and the client ---- */

static int parse_url(struct http_origin *o, const char *url, bool *ret_tls, struct err *err)
{
    const char *p, *end, *colon;

    if (str_starts(url, "unix:")) {
        o->unix_path = xstrdup(url + 5);
        o->host = xstrdup("localhost");
        o->host_header = xstrdup("localhost");
        return *o->unix_path ? 0 : err_set(err, INVALID_ARGUMENT, "%s has no path", url);
    }
    *ret_tls = str_starts(url, "https://");
    if (!*ret_tls && !str_starts(url, "http://"))
        return err_set(err, INVALID_ARGUMENT, "%s is not an http, https or unix URL", url);
    p = url + (*ret_tls ? 8 : 7);
    end = p + strcspn(p, "/?#");
    o->port = *ret_tls ? 443 : 80;
    o->host_header = xstrndup(p, (size_t)(end - p));
    if (*p == '[') {
        const char *close = memchr(p, ']', (size_t)(end - p));

        if (!close)
            return err_set(err, INVALID_ARGUMENT, "%s: malformed address", url);
        o->host = xstrndup(p + 1, (size_t)(close - p - 1));
        colon = close + 1 < end && close[1] == ':' ? close + 1 : NULL;
    } else {
        colon = memchr(p, ':', (size_t)(end - p));
        o->host = xstrndup(p, (size_t)((colon ? colon : end) - p));
    }
    if (colon)
        o->port = atoi(colon + 1);
    if (!*o->host || o->port <= 0 || o->port > 65535)
        return err_set(err, INVALID_ARGUMENT, "%s: malformed host or port", url);
    o->numeric = uv_ip4_addr(o->host, o->port, (struct sockaddr_in *)&o->addr) == 0 ||
                 uv_ip6_addr(o->host, o->port, (struct sockaddr_in6 *)&o->addr) == 0;
    return 0;
}

struct http_origin *http_origin_new(struct http_client *c, const char *url,
                                    const struct http_origin_opts *opts, struct err *err)
{
    struct http_origin *o = xcalloc(1, sizeof *o);
    static const struct http_origin_opts none;
    bool tls = false;

    opts = opts ? opts : &none;
    o->c = c;
    o->refs = 1;
    o->conns_max = opts->conns_max;
    o->dial = opts->dial;
    o->dial_arg = opts->dial_arg;
    list_init(&o->idle);
    list_init(&o->waiting);
    if (parse_url(o, url, &tls, err) < 0 || (tls && !(o->tls = tls_client_ctx(opts, err)))) {
        origin_unref(o);
        return NULL;
    }
    o->server_name = xstrdup(opts->server_name ? opts->server_name : o->host);
    list_push(&c->origins, &o->link);
    return o;
}

struct http_origin *http_origin_free(struct http_origin *o)
{
    if (!o || o->closing)
        return NULL;
    o->closing = true;
    list_remove(&o->link);
    while (!list_empty(&o->idle))
        cconn_drop(list_entry(o->idle.next, struct cconn, pool));
    origin_unref(o);
    return NULL;
}

struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_opts *opts)
{
    struct http_client *c = xcalloc(1, sizeof *c);

    if (opts)
        c->o = *opts;
    if (!c->o.idle_conns_max)
        c->o.idle_conns_max = 32;
    if (!c->o.idle_timeout_ms)
        c->o.idle_timeout_ms = 60000;
    if (!c->o.connect_timeout_ms)
        c->o.connect_timeout_ms = 10000;
    c->turn = turn_ref(loop);
    list_init(&c->origins);
    list_init(&c->calls);
    list_init(&c->conns);
    list_init(&c->late);
    uv_timer_init(loop, &c->tick);
    uv_timer_init(loop, &c->soon);
    c->tick.data = c->soon.data = c;
    uv_unref((uv_handle_t *)&c->tick);
    c->handles = 2;
    return c;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct http_client *c = h->data;

    c->handles--;
    client_maybe_gone(c);
}

static void client_maybe_gone(struct http_client *c)
{
    if (!c->closing || c->handles || !list_empty(&c->conns))
        return;
    turn_unref(c->turn);
    free(c);
}

struct http_client *http_client_free(struct http_client *c)
{
    struct err err = {0};

    if (!c || c->closing)
        return NULL;
    c->closing = true;
    err_set(&err, CANCELLED, "the client was closed");
    while (!list_empty(&c->calls))
        call_fail(list_entry(c->calls.next, struct http_call, link), &err);
    while (!list_empty(&c->origins))
        http_origin_free(list_entry(c->origins.next, struct http_origin, link));
    LIST_EACH(&c->conns, it)
        io_close(&list_entry(it, struct cconn, link)->io);
    uv_close((uv_handle_t *)&c->tick, on_timer_closed);
    uv_close((uv_handle_t *)&c->soon, on_timer_closed);
    return NULL;
}

/* ---- fetch: a call whose answer is collected ---- */

struct fetch {
    struct buf body;
    http_fetch_cb *cb;
    void *arg;
    bool over;
};

static void fetch_data(struct http_call *call, const char *p, size_t n, void *arg)
{
    struct fetch *f = arg;

    (void)call;
    buf_add(&f->body, p, n);
}

static void fetch_done(struct http_call *call, const struct http_answer *a, const struct err *err,
                       void *arg)
{
    struct fetch *f = arg;
    struct err over = {0};

    (void)call;
    if (!err && f->body.over) {
        err_set(&over, TOO_LARGE, "the answer is over %zu bytes", f->body.max);
        err = &over;
    }
    f->cb(a, f->body.p ? f->body.p : (char[1]){0}, f->body.n, err, f->arg);
}

static void fetch_free(void *arg)
{
    struct fetch *f = arg;

    buf_done(&f->body);
    free(f);
}

struct http_call *http_fetch(struct http_origin *o, const struct http_call_opts *opts,
                             size_t max_bytes, http_fetch_cb *cb, void *arg)
{
    struct fetch *f = xcalloc(1, sizeof *f);
    struct http_call_opts c = *opts;

    buf_init(&f->body, max_bytes ? max_bytes : 64u << 20);
    f->cb = cb;
    f->arg = arg;
    c.stream_body = false;
    c.on_head = NULL;
    c.on_drain = NULL;
    c.on_data = fetch_data;
    c.on_done = fetch_done;
    c.arg = f;
    struct http_call *call = http_call(o, &c);
    arena_pin(call->arena, fetch_free, f); /* goes with the call, also when that is cancelled */
    return call;
}
