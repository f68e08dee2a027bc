/* http/h2.c - HTTP/2 on a connection, by nghttp2. A stream is a request; its answer waits in req.q
 * and is taken by nghttp2 as the client's windows allow. Windows open only as bodies are consumed. */
#include <stdio.h>

#include "base/log.h"
#include "http/http_int.h"

enum { STREAMS_MAX = 256, STREAM_WINDOW = 1 << 20, CONN_WINDOW = 8 << 20, DISCARD_MAX = 8 << 20,
       /* frames that only make work: 1,000 resets or 30,000 pings at once, 33 or 1,000 a second */
       NOISE_MAX = 30000, NOISE_RESET = 30, NOISE_PER_MS = 1,
       UNFRAMED_MAX = 10 << 20 /* of a header block without end; more than may be under way to a stream that is over */ };

#define NV(n, v)                                                                                   \
    (nghttp2_nv){(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}

static struct req *req_of(nghttp2_session *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2, id);
}

/* ---- the answer ---- */

static ssize_t on_read(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                       nghttp2_data_source *src, void *arg)
{
    struct req *r = src->ptr;
    size_t n = MIN(len, r->q.n);

    (void)buf;
    (void)arg;
    if (!n && !r->ended) {
        r->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (r->ended && n == r->q.n) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (r->trailers.n) {
            nghttp2_nv *nv = arena_array(r->pub.arena, nghttp2_nv, r->trailers.n);

            for (size_t i = 0; i < r->trailers.n; i++)
                nv[i] = NV(r->trailers.h[i].name, r->trailers.h[i].value);
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(h2, id, nv, r->trailers.n);
        }
    }
    return (ssize_t)n;
}

static int on_send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *hd, size_t n,
                        nghttp2_data_source *src, void *arg)
{
    struct conn *c = arg;
    struct req *r = src->ptr;
    static const char pad[256];
    size_t before = r->q.n;

    (void)h2;
    if (io_queued(&c->io) >= IO_HIGH)
        return NGHTTP2_ERR_WOULDBLOCK;
    chunks_add(c->io.turn, &c->io.out, hd, 9);
    if (frame->data.padlen) {
        char len = (char)(frame->data.padlen - 1);

        chunks_add(c->io.turn, &c->io.out, &len, 1);
    }
    chunks_move(c->io.turn, &r->q, &c->io.out, n);
    if (frame->data.padlen > 1)
        chunks_add(c->io.turn, &c->io.out, pad, frame->data.padlen - 1);
    if (before > IO_LOW && r->q.n <= IO_LOW)
        r->drain_due = true; /* told from the loop, not from inside nghttp2 */
    if (r->drain_due && !list_linked(&r->kick))
        list_push(&c->kicked, &r->kick);
    return 0;
}

static void lower(char *s)
{
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z')
            *s |= 32;
}

static void h2_start(struct req *r)
{
    struct arena *a = r->pub.arena;
    nghttp2_nv *nv = arena_array(a, nghttp2_nv, r->out.n + 4);
    size_t n = 0;

    nv[n++] = NV(":status", arena_printf(a, "%d", r->status));
    for (size_t i = 0; i < r->out.n; i++) {
        char *name = (char *)r->out.h[i].name; /* our own copy */

        lower(name);
        nv[n++] = NV(name, r->out.h[i].value);
    }
    for (size_t i = 0; i < r->trailers.n; i++)
        lower((char *)r->trailers.h[i].name);
    if (!r->has_date)
        nv[n++] = NV("date", server_date(r->conn->s));
    if (r->out_length >= 0 && r->status != 304)
        nv[n++] = NV("content-length", arena_printf(a, "%lld", (long long)r->out_length));
    nghttp2_data_provider dp = {.source.ptr = r, .read_callback = on_read};
    nghttp2_submit_response(r->conn->h2, r->stream, nv, n, r->no_body ? NULL : &dp);
    io_dirty(&r->conn->io);
}

static void resume(struct req *r)
{
    if (r->deferred) {
        r->deferred = false;
        nghttp2_session_resume_data(r->conn->h2, r->stream);
    }
    io_dirty(&r->conn->io);
}

static void h2_write(struct req *r, const void *p, size_t n)
{
    chunks_add(r->conn->io.turn, &r->q, p, n);
    resume(r);
}

static void h2_borrow(struct req *r, const void *p, size_t n, void (*release)(void *), void *arg)
{
    chunks_borrow(&r->q, p, n, release, arg);
    resume(r);
}

static void h2_end(struct req *r)
{
    for (size_t i = 0; i < r->trailers.n; i++)
        lower((char *)r->trailers.h[i].name);
    r->ended = true;
    list_remove(&r->kick);
    resume(r);
    if (r->closed)
        req_free(r);
}

static void h2_abort(struct req *r)
{
    list_remove(&r->kick);
    nghttp2_submit_rst_stream(r->conn->h2, NGHTTP2_FLAG_NONE, r->stream,
                              r->started ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL);
    io_dirty(&r->conn->io);
}

static void h2_go_on(struct req *r)
{
    nghttp2_nv nv = NV(":status", "100");

    nghttp2_submit_headers(r->conn->h2, NGHTTP2_FLAG_NONE, r->stream, NULL, &nv, 1, NULL);
    io_dirty(&r->conn->io);
}

static void h2_flow(struct req *r, bool on)
{
    (void)r; /* the window stays shut while nothing is consumed */
    (void)on;
}

static void h2_credit(struct req *r, size_t n)
{
    nghttp2_session_consume(r->conn->h2, r->stream, n);
    io_dirty(&r->conn->io);
}

static size_t h2_queued(const struct req *r)
{
    return r->q.n;
}

static const struct req_ops OPS = {
    .start = h2_start,
    .write = h2_write,
    .borrow = h2_borrow,
    .end = h2_end,
    .abort = h2_abort,
    .go_on = h2_go_on,
    .flow = h2_flow,
    .credit = h2_credit,
    .queued = h2_queued,
};

/* ---- input ---- */

static int on_begin(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
    struct conn *c = arg;
    struct req *r;

    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    r = req_new(c, &OPS);
    r->stream = f->hd.stream_id;
    r->pub.version = 20;
    r->pub.method = r->pub.target = "";
    nghttp2_session_set_stream_user_data(h2, r->stream, r);
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct conn *c = arg;
    struct req *r = req_of(h2, f->hd.stream_id);
    const char *k, *v;

    (void)flags;
    if (!r || f->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    r->head_bytes += name_n + value_n + 32;
    if (r->head_bytes > c->s->o.header_bytes_max || memchr(value, 0, value_n))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    v = arena_strndup(r->pub.arena, (const char *)value, value_n);
    if (name[0] != ':') {
        k = arena_strndup(r->pub.arena, (const char *)name, name_n);
        hdrs_add(&r->in, r->pub.arena, k, v);
    } else if (name_n == 7 && memcmp(name, ":method", 7) == 0) {
        r->pub.method = v;
    } else if (name_n == 5 && memcmp(name, ":path", 5) == 0) {
        r->pub.target = v;
    } else if (name_n == 10 && memcmp(name, ":authority", 10) == 0) {
        r->pub.host = v;
    } else if (name_n == 7 && memcmp(name, ":scheme", 7) == 0) {
        r->scheme = v;
    }
    return 0;
}

/* Streams that are opened and reset, pings, settings, empty data: each is cheap for the client. */
static void noise(struct conn *c, const nghttp2_frame *f)
{
    uint64_t now = uv_now(c->io.turn->loop), gone = (now - c->noise_ms) * NOISE_PER_MS;
    uint32_t more = 0;

    switch (f->hd.type) {
    case NGHTTP2_RST_STREAM:
        more = NOISE_RESET;
        break;
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PRIORITY:
        more = 1;
        break;
    case NGHTTP2_DATA:
        more = f->hd.length == 0 && !(f->hd.flags & NGHTTP2_FLAG_END_STREAM);
        break;
    default:
        break;
    }
    if (!more)
        return;
    c->noise_ms = now;
    c->noise = (c->noise > gone ? c->noise - (uint32_t)gone : 0) + more;
    if (c->noise > NOISE_MAX && !c->noisy) {
        c->noisy = true;
        LOG(WARN, "http", "did=cut why=\"too many resets, pings or settings\" peer=%s", c->peer.addr);
    }
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
    struct conn *c = arg;
    struct req *r;
    bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;

    c->unframed = 0;
    noise(c, f);
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA)
        return 0;
    r = req_of(h2, f->hd.stream_id);
    if (!r)
        return 0;
    if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
        const char *cl;

        if (!req_ready(r) || streq(r->pub.method, "CONNECT")) {
            bool connect = streq(r->pub.method, "CONNECT");

            r->body_done = true;
            http_reply_str(&r->pub, connect ? 501 : 400, "text/plain",
                           connect ? "CONNECT is not served here\n" : "the request target is malformed\n");
            return 0;
        }
        cl = http_get(&r->pub, "content-length");
        r->pub.body_bytes = end ? 0 : cl ? strtoll(cl, NULL, 10) : -1;
        if (end)
            r->body_done = true;
        else if (r->pub.body_bytes == 0)
            r->pub.body_bytes = -1; /* its END_STREAM is still to come */
        (void)c;
        req_dispatch(r);
        return 0;
    }
    if (end)
        req_body_end(r);
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *arg)
{
    struct req *r = req_of(h2, id);

    (void)flags;
    ((struct conn *)arg)->unframed = 0;
    if (r && r->finished) { /* answered: the rest is read over, but not for ever */
        r->discarded += n;
        if (r->discarded > DISCARD_MAX)
            nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
    }
    if (r)
        req_body_in(r, (const char *)p, n);
    else
        nghttp2_session_consume(h2, id, n);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
    struct conn *c = arg;
    struct req *r = req_of(h2, id);

    (void)code;
    c->since_ms = uv_now(c->io.turn->loop);
    if (!r)
        return 0;
    nghttp2_session_set_stream_user_data(h2, id, NULL);
    r->closed = true;
    req_gone(r); /* frees it if it is finished */
    return 0;
}

int h2_begin(struct conn *c)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    nghttp2_settings_entry set[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->s->o.header_bytes_max},
    };

    c->mode = C_H2;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_option_new(&opt);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    int rc = nghttp2_session_server_new2(&c->h2, cb, c, opt);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    if (rc != 0)
        return -1;
    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, set, ARRAY_LEN(set));
    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
    io_dirty(&c->io);
    return 0;
}

void h2_feed(struct conn *c, const char *p, size_t n)
{
    c->in_h2 = true;
    c->unframed += n;
    ssize_t r = nghttp2_session_mem_recv(c->h2, (const uint8_t *)p, n);
    c->in_h2 = false;
    if (c->unframed > UNFRAMED_MAX)
        c->noisy = true;
    if (c->noisy)
        conn_close(c); /* no lingering over what it still sends */
    else if (r < 0)
        conn_close_soon(c); /* its GOAWAY is in the queue */
    else
        io_dirty(&c->io);
}

void h2_pull(struct conn *c)
{
    while (io_queued(&c->io) < IO_HIGH) {
        const uint8_t *p;

        c->in_h2 = true;
        ssize_t n = nghttp2_session_mem_send(c->h2, &p);
        c->in_h2 = false;
        if (n < 0) {
            conn_close(c);
            return;
        }
        if (n == 0)
            break;
        chunks_add(c->io.turn, &c->io.out, p, (size_t)n);
    }
    if (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2))
        conn_close_soon(c);
    if (!list_empty(&c->kicked))
        io_dirty(&c->io);
}

void h2_goaway(struct conn *c)
{
    if (c->goaway || !c->h2)
        return;
    c->goaway = true;
    nghttp2_submit_goaway(c->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->h2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    io_dirty(&c->io);
}

void h2_done(struct conn *c)
{
    if (c->h2)
        nghttp2_session_del(c->h2);
    c->h2 = NULL;
}
