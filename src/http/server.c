/* http/server.c - listening, connections and their clocks. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "http/http_int.h"

enum { LINGER_BYTES_MAX = 4 << 20, LINGER_MS = 2000, LOOK_MAX = 256 };

const char *server_date(struct http_server *s)
{
    time_t now = time(NULL);

    if (now != s->date_at) {
        struct tm tm;

        gmtime_r(&now, &tm);
        strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_at = now;
    }
    return s->date;
}

/* ---- connections ---- */

static void server_maybe_gone(struct http_server *s);

void conn_unref(struct conn *c)
{
    if (--c->refs > 0)
        return;
    buf_done(&c->stash);
    buf_done(&c->head);
    arena_free(c->arena);
    turn_unref(c->io.turn);
    free(c);
}

void conn_close(struct conn *c)
{
    io_close(&c->io);
}

void conn_close_soon(struct conn *c)
{
    if (c->mode == C_LINGER || c->io.closing)
        return;
    if (c->io.failed) {
        conn_close(c);
        return;
    }
    c->mode = C_LINGER;
    c->unframed = 0;
    buf_done(&c->stash);
    io_shutdown(&c->io);
    io_read(&c->io, true);
}

static void on_closed(void *owner)
{
    struct conn *c = owner;
    struct http_server *s = c->s;

    while (!list_empty(&c->reqs)) {
        struct req *r = list_entry(c->reqs.next, struct req, link);

        if (c->raw && c->raw->req == r) {
            struct http_raw *raw = STEAL(c->raw);

            r->gone = true;
            list_remove(&r->link);
            raw_closed(raw);
        } else {
            req_gone(r);
        }
    }
    h2_done(c);
    list_remove(&c->link);
    s->conns_n--;
    c->s = NULL;
    conn_unref(c);
    server_maybe_gone(s);
}

static void conn_mode(struct conn *c, const char *p, size_t n)
{
    const unsigned char *alpn = NULL;
    unsigned alpn_n = 0;
    bool h2;

    if (c->io.ssl) {
        SSL_get0_alpn_selected(c->io.ssl, &alpn, &alpn_n);
        h2 = alpn_n == 2 && memcmp(alpn, "h2", 2) == 0;
    } else {
        buf_add(&c->stash, p, n);
        if (c->stash.n < 4 && memcmp(c->stash.p, "PRI ", c->stash.n) == 0)
            return; /* cannot tell yet */
        h2 = !c->s->o.no_h2 && c->stash.n >= 4 && memcmp(c->stash.p, "PRI ", 4) == 0;
    }
    if (h2) {
        if (h2_begin(c) < 0) {
            conn_close(c);
            return;
        }
    } else {
        h1_begin(c);
    }
    if (!c->io.ssl) {
        struct buf b = c->stash;

        c->stash = (struct buf){0};
        conn_data(c, b.p, b.n);
        buf_done(&b);
    } else if (n) {
        conn_data(c, p, n);
    }
}

void conn_data(struct conn *c, const char *p, size_t n)
{
    if (!(c->mode == C_H1 && c->in_head))
        c->since_ms = uv_now(c->io.turn->loop);
    switch (c->mode) {
    case C_NEW:
        conn_mode(c, p, n);
        break;
    case C_H1:
        if (!c->stash.n) {
            h1_feed(c, p, n);
        } else {
            buf_add(&c->stash, p, n);
            if (c->stash.n > IO_READ_BYTES)
                io_read(&c->io, false); /* until the answer at hand is written */
        }
        break;
    case C_H2:
        h2_feed(c, p, n);
        break;
    case C_RAW:
        if (c->stash.n)
            buf_add(&c->stash, p, n);
        else if (!c->raw->closing)
            c->raw->o.on_data(c->raw, p, n, c->raw->o.arg);
        break;
    case C_LINGER: /* only until it has read what we said */
        c->unframed += n;
        if (c->unframed > LINGER_BYTES_MAX)
            conn_close(c);
        break;
    }
}

static void on_data(void *owner, const char *p, size_t n)
{
    conn_data(owner, p, n);
}

static void on_eof(void *owner, int error)
{
    struct conn *c = owner;

    if (error || c->mode == C_NEW || c->mode == C_H2 || c->mode == C_LINGER) {
        if (!error && c->mode == C_LINGER && !c->io.shut_done)
            return; /* output is still on its way; on_shut ends it */
        conn_close(c);
    } else if (c->mode == C_H1) {
        h1_eof(c);
    } else if (c->raw->closing || !c->raw->o.on_end) {
        http_raw_close(c->raw);
    } else {
        c->raw->o.on_end(c->raw, c->raw->o.arg);
    }
}

static void on_pull(void *owner)
{
    struct conn *c = owner;

    if (c->stash.n)
        h1_kick(c);
    while (!list_empty(&c->kicked) && !c->io.closing) {
        struct req *r = list_entry(c->kicked.next, struct req, kick);

        list_remove(&r->kick);
        req_kicked(r);
    }
    if (c->mode == C_H2 && !c->io.closing)
        h2_pull(c);
}

static void on_drain(void *owner)
{
    struct conn *c = owner;

    if (c->mode == C_H1 && c->req) {
        req_drained(c->req);
    } else if (c->mode == C_RAW && !c->raw->closing && c->raw->o.on_drain) {
        c->raw->o.on_drain(c->raw, c->raw->o.arg);
    } else if (c->mode == C_H2) {
        io_dirty(&c->io);
    }
}

static void on_ready(void *owner, const struct err *err)
{
    struct conn *c = owner;

    if (err) {
        conn_close(c);
        return;
    }
    c->arena = arena_new();
    tls_peer(&c->io, c->arena, &c->peer);
    c->since_ms = uv_now(c->io.turn->loop);
    conn_mode(c, NULL, 0);
}

static const struct io_ops CONN_OPS = {
    .data = on_data,
    .eof = on_eof,
    .pull = on_pull,
    .drain = on_drain,
    .ready = on_ready,
    .closed = on_closed,
};

static void peer_of(struct conn *c)
{
    struct sockaddr_storage ss;
    int n = sizeof ss;

    if (uv_tcp_getpeername(&c->io.h.tcp, (struct sockaddr *)&ss, &n) < 0)
        return;
    if (ss.ss_family == AF_INET) {
        struct sockaddr_in *a = (struct sockaddr_in *)&ss;

        uv_ip4_name(a, c->peer.addr, sizeof c->peer.addr);
        c->peer.port = ntohs(a->sin_port);
    } else if (ss.ss_family == AF_INET6) {
        struct sockaddr_in6 *a = (struct sockaddr_in6 *)&ss;

        if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr))
            inet_ntop(AF_INET, a->sin6_addr.s6_addr + 12, c->peer.addr, sizeof c->peer.addr);
        else
            uv_ip6_name(a, c->peer.addr, sizeof c->peer.addr);
        c->peer.port = ntohs(a->sin6_port);
    }
}

static void on_tick(uv_timer_t *t);

static void server_tick(struct http_server *s)
{
    uint64_t ms = 1000;
    const struct http_server_opts *o = &s->o;

    if (s->ticking)
        return;
    s->ticking = true;
    ms = MIN(ms, (uint64_t)o->header_timeout_ms / 2 + 1);
    ms = MIN(ms, (uint64_t)o->idle_timeout_ms / 2 + 1);
    ms = MIN(ms, (uint64_t)o->body_timeout_ms / 2 + 1);
    ms = MIN(ms, (uint64_t)o->write_timeout_ms / 2 + 1);
    if (s->stopping)
        ms = MIN(ms, (uint64_t)50);
    uv_timer_start(&s->tick, on_tick, ms, 0);
}

/* Does nobody wait for it? In HTTP/1 what is stashed is a request that came behind the last one. */
static bool conn_idles(const struct conn *c)
{
    return !c->io.closing && list_empty(&c->reqs) && !io_queued(&c->io) &&
           (c->mode == C_NEW || (c->mode == C_H1 && !c->stash.n) || c->mode == C_H2);
}

/* Too many connections: one that idles goes for a fresh one, so who opens many and does nothing shuts nobody out. Looked at
 * are LOOK_MAX of them, others the next time; of those the one that has idled longest goes. False: they all work. */
static bool make_room(struct http_server *s, const struct conn *fresh)
{
    struct conn *worst = NULL;

    for (int i = 0; i < LOOK_MAX && !list_empty(&s->conns); i++) {
        struct conn *c = list_entry(list_first(&s->conns), struct conn, link);

        list_remove(&c->link);
        list_push(&s->conns, &c->link);
        if (c != fresh && conn_idles(c) && (!worst || c->since_ms < worst->since_ms))
            worst = c;
    }
    if (worst)
        conn_close(worst);
    return worst != NULL;
}

static void on_connection(uv_stream_t *l, int status)
{
    struct http_server *s = l->data;
    struct conn *c;

    if (status < 0)
        return;
    c = xcalloc(1, sizeof *c);
    c->s = s;
    c->refs = 1;
    list_init(&c->kicked);
    list_init(&c->reqs);
    if (io_init(&c->io, turn_ref(s->turn->loop), s->unix_path != NULL, &CONN_OPS, c) < 0) {
        turn_unref(c->io.turn);
        free(c);
        return;
    }
    list_push(&s->conns, &c->link);
    s->conns_n++;
    c->since_ms = uv_now(s->turn->loop);
    if (uv_accept(l, &c->io.h.stream) < 0 || (s->conns_n > s->o.conns_max && !make_room(s, c)) || s->stopping) {
        conn_close(c);
        return;
    }
    if (!s->unix_path) {
        uv_tcp_nodelay(&c->io.h.tcp, 1);
        uv_tcp_keepalive(&c->io.h.tcp, 1, 60);
        peer_of(c);
    }
    if (s->tls)
        io_tls(&c->io, s->tls, true, NULL);
    io_accepted(&c->io);
    server_tick(s);
}

static bool all_finished(struct conn *c)
{
    LIST_EACH(&c->reqs, it)
        if (!list_entry(it, struct req, link)->finished)
            return false;
    return true;
}

static void conn_tick(struct conn *c, uint64_t now)
{
    const struct http_server_opts *o = &c->s->o;

    if (c->io.closing)
        return;
    if (io_queued(&c->io) && now - c->io.progress_ms > o->write_timeout_ms) {
        conn_close(c); /* a client that does not read */
        return;
    }
    switch (c->mode) {
    case C_NEW:
        if (now - c->since_ms > o->header_timeout_ms)
            conn_close(c);
        break;
    case C_H1:
        h1_tick(c, now);
        break;
    case C_H2:
        if (now - c->since_ms > o->idle_timeout_ms && all_finished(c))
            h2_goaway(c);
        break;
    case C_LINGER:
        if (c->io.failed || (c->io.shut_done && now - c->io.progress_ms > LINGER_MS))
            conn_close(c);
        break;
    case C_RAW:
        break;
    }
}

static void on_tick(uv_timer_t *t)
{
    struct http_server *s = t->data;
    uint64_t now = uv_now(s->turn->loop);

    s->ticking = false;
    LIST_EACH(&s->conns, it) {
        struct conn *c = list_entry(it, struct conn, link);

        if (s->stopping && now >= s->deadline_ms)
            conn_close(c);
        else
            conn_tick(c, now);
    }
    if (s->conns_n)
        server_tick(s);
}

/* ---- the server ---- */

static void server_free(struct http_server *s)
{
    void (*done)(void *) = s->done;
    void *arg = s->done_arg;

    while (s->spare_n)
        arena_free(s->spare[--s->spare_n]);
    if (s->tls)
        SSL_CTX_free(s->tls);
    buf_done(&s->scratch);
    free(s->unix_path);
    turn_unref(s->turn);
    free(s);
    if (done)
        done(arg);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct http_server *s = h->data;

    s->handles--;
    server_maybe_gone(s);
}

static void server_maybe_gone(struct http_server *s)
{
    if (!s->stopping || s->conns_n)
        return;
    if (!uv_is_closing((uv_handle_t *)&s->tick))
        uv_close((uv_handle_t *)&s->tick, on_handle_closed);
    if (s->handles == 0)
        server_free(s);
}

static int listen_unix(struct http_server *s, const struct http_server_opts *o, struct err *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    size_t n = strlen(o->unix_path);
    int fd, rc;

    if (n >= sizeof sun.sun_path)
        return err_set(err, INVALID_ARGUMENT, "socket path %s is too long", o->unix_path);
    memcpy(sun.sun_path, o->unix_path, n);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, "socket");
    unlink(o->unix_path);
    mode_t old = umask(0177); /* nobody else gets in before the chmod */
    rc = bind(fd, (struct sockaddr *)&sun, sizeof sun);
    umask(old);
    if (rc < 0 || chmod(o->unix_path, o->unix_mode ? o->unix_mode : 0600) < 0) {
        err_sys(err, "bind %s", o->unix_path);
        close(fd);
        return -1;
    }
    uv_pipe_init(s->turn->loop, &s->l.pipe, 0);
    s->l.handle.data = s;
    s->handles++;
    rc = uv_pipe_open(&s->l.pipe, fd);
    if (rc < 0)
        return err_set(err, IO, "listen %s: %s", o->unix_path, uv_strerror(rc));
    s->unix_path = xstrdup(o->unix_path);
    return 0;
}

static int listen_tcp(struct http_server *s, const struct http_server_opts *o, struct err *err)
{
    const char *addr = o->addr ? o->addr : "127.0.0.1";
    struct sockaddr_storage ss = {0};
    int rc, n = sizeof ss, fd, one = 1;

    if (uv_ip4_addr(addr, o->port, (struct sockaddr_in *)&ss) < 0 &&
        uv_ip6_addr(addr, o->port, (struct sockaddr_in6 *)&ss) < 0)
        return err_set(err, INVALID_ARGUMENT, "%s is not an IP address", addr);
    uv_tcp_init_ex(s->turn->loop, &s->l.tcp, ss.ss_family);
    s->l.handle.data = s;
    s->handles++;
    if (o->reuse_port && uv_fileno(&s->l.handle, &fd) == 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    rc = uv_tcp_bind(&s->l.tcp, (struct sockaddr *)&ss, 0);
    if (rc == 0)
        rc = uv_tcp_getsockname(&s->l.tcp, (struct sockaddr *)&ss, &n);
    if (rc < 0) {
        errno = -rc;
        return err_sys(err, "listen %s:%d", addr, o->port);
    }
    s->port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
    return 0;
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_opts *opts,
                                    struct err *err)
{
    struct http_server *s = xcalloc(1, sizeof *s);
    int rc;

    ASSERT(opts->on_request);
    s->o = *opts;
#define DEFAULT(field, value)                                                                      \
    if (!s->o.field)                                                                               \
    s->o.field = (value)
    DEFAULT(header_bytes_max, 65536);
    DEFAULT(body_bytes_max, 3u << 20);
    DEFAULT(bodies_bytes_max, (size_t)256 << 20);
    DEFAULT(conns_max, 8192);
    DEFAULT(header_timeout_ms, 20000);
    DEFAULT(idle_timeout_ms, 180000);
    DEFAULT(body_timeout_ms, 60000);
    DEFAULT(write_timeout_ms, 60000);
#undef DEFAULT
    s->o.addr = s->o.unix_path = NULL;
    s->o.tls = NULL;
    list_init(&s->conns);
    s->turn = turn_ref(loop);
    uv_timer_init(loop, &s->tick);
    s->tick.data = s;
    s->handles = 1;
    if (opts->tls && !(s->tls = tls_server_ctx(opts->tls, !s->o.no_h2, err)))
        goto bad;
    if ((opts->unix_path ? listen_unix(s, opts, err) : listen_tcp(s, opts, err)) < 0)
        goto bad;
    rc = uv_listen(&s->l.stream, 1024, on_connection);
    if (rc < 0) {
        errno = -rc;
        err_sys(err, "listen %s:%d", opts->unix_path ? opts->unix_path : "port", s->port);
        goto bad;
    }
    s->listening = true;
    return s;
bad:
    http_server_stop(s, 0, NULL, NULL);
    return NULL;
}

uv_loop_t *http_server_loop(const struct http_server *s)
{
    return s->l.handle.loop;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

uint32_t http_server_conns(const struct http_server *s)
{
    return s->conns_n;
}

int http_server_set_tls(struct http_server *s, const struct http_tls *tls, struct err *err)
{
    SSL_CTX *ctx = tls_server_ctx(tls, !s->o.no_h2, err);

    if (!ctx)
        return -1;
    if (s->tls)
        SSL_CTX_free(s->tls); /* running connections hold their own reference */
    s->tls = ctx;
    return 0;
}

void http_server_stop(struct http_server *s, uint32_t deadline_ms, void (*done)(void *), void *arg)
{
    if (s->stopping)
        return;
    s->stopping = true;
    s->done = done;
    s->done_arg = arg;
    s->deadline_ms = uv_now(s->turn->loop) + deadline_ms;
    if (s->handles > 1) {
        if (s->unix_path && s->listening)
            unlink(s->unix_path);
        uv_close(&s->l.handle, on_handle_closed);
    }
    LIST_EACH(&s->conns, it) {
        struct conn *c = list_entry(it, struct conn, link);

        if (deadline_ms == 0 || c->mode == C_NEW)
            conn_close(c);
        else if (c->mode == C_H2)
            h2_goaway(c);
        else if (c->mode == C_H1 && h1_idle(c))
            conn_close_soon(c);
        else
            c->close_after = true;
    }
    uv_timer_stop(&s->tick);
    s->ticking = false;
    if (s->conns_n)
        server_tick(s);
    else
        server_maybe_gone(s);
}
