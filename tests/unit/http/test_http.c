/* Goal: the http room keeps its promises on real sockets. Method: one loop holds a server, a proxy in
 * front of it and a client; where the client is too well-behaved, hand-written bytes go through a plain
 * socket (slow, half-closed, malformed, WebSocket, SPDY). */
#include "tt.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buf.h"
#include "http/client.h"
#include "http/spdy.h"
#include "http/ws.h"

#include <errno.h>

static uv_loop_t loop;
static struct http_server *server, *proxy;
static struct http_client *client;
static struct http_origin *direct, *through;
static int gone_n, body_failed_n;
static char big[300000];

/* ---- the server's handlers ---- */

static void on_body(struct http_req *q, char *data, size_t n, const struct err *err, void *arg)
{
    (void)arg;
    if (err) {
        body_failed_n++;
        if (http_gone(q))
            http_abort(q);
        else
            http_reply_str(q, err_http(err->code), "text/plain", err->msg);
        return;
    }
    http_reply(q, 200, "text/plain", data, n);
}
static void on_gone(struct http_req *q, void *arg)
{
    (void)arg;
    gone_n++;
    http_abort(q);
}
static void stream_data(struct http_req *q, const char *p, size_t n, void *arg)
{
    (void)arg;
    http_write(q, p, n);
    if (http_queued_bytes(q) > 100000)
        http_body_pause(q);
}
static void stream_end(struct http_req *q, const struct err *err, void *arg)
{
    (void)arg;
    if (err)
        http_abort(q);
    else
        http_end(q);
}
static void stream_drain(struct http_req *q, void *arg)
{
    (void)arg;
    http_body_resume(q);
}
static void ws_message(struct ws *ws, enum ws_type type, const char *p, size_t n, void *arg)
{
    (void)arg;
    ws_send(ws, type, p, n);
}
static int spdy_closed_n, stream_closed_n;
static void st_data(struct spdy_stream *st, const char *p, size_t n, void *arg)
{
    (void)arg;
    spdy_write(st, p, n);
}
static void st_end(struct spdy_stream *st, void *arg)
{
    (void)arg;
    spdy_end(st);
}
static void st_close(struct spdy_stream *st, void *arg)
{
    (void)arg;
    (void)st;
    stream_closed_n++;
}
static void on_stream(struct spdy_stream *st, void *arg)
{
    (void)arg;
    const char *type = spdy_stream_get(st, "streamtype");

    spdy_stream_on(st, &(struct spdy_stream_opts){
        .on_data = st_data, .on_end = st_end, .on_close = st_close});
    spdy_reply(st);
    if (type)
        spdy_write(st, type, strlen(type));
}
static void on_spdy_close(struct spdy *s, void *arg)
{
    (void)arg;
    (void)s;
    spdy_closed_n++;
}

static void on_request(struct http_req *q, void *arg)
{
    struct err err = {0};

    (void)arg;
    if (streq(q->path, "/echo")) {
        http_body(q, 0, on_body, NULL);
    } else if (streq(q->path, "/stream")) {
        http_on_drain(q, stream_drain, NULL);
        http_body_stream(q, stream_data, stream_end, NULL);
        http_start(q, 200, -1);
    } else if (streq(q->path, "/hang")) {
        http_on_close(q, on_gone, NULL);
        http_start(q, 200, -1);
        http_write(q, "x", 1);
    } else if (streq(q->path, "/big")) {
        http_start(q, 200, sizeof big);
        http_write_obj(q, big, sizeof big, NULL, NULL);
        http_end(q);
    } else if (streq(q->path, "/ws")) {
        if (!ws_accept(q, NULL, &(struct ws_opts){.message_bytes_max = 100000,
                                                  .on_message = ws_message}, &err))
            http_reply_str(q, 400, "text/plain", err.msg);
    } else if (streq(q->path, "/spdy")) {
        if (!spdy_accept(q, "v4.channel.k8s.io", &(struct spdy_opts){
                .on_stream = on_stream, .on_close = on_spdy_close}, &err))
            http_reply_str(q, 400, "text/plain", err.msg);
    } else if (streq(q->path, "/params")) {
        const char *a = http_param(q, "a"), *b = http_param(q, "b c");

        http_reply_str(q, 200, "text/plain",
                       arena_printf(q->arena, "%s|%s|%s", a ? a : "-", b ? b : "-", q->raw_path));
    } else if (streq(q->path, "/peer")) {
        http_reply_str(q, 200, "text/plain",
                       arena_printf(q->arena, "%d %d %s", q->peer->cert, q->peer->cert_trusted,
                                    q->peer->cn ? q->peer->cn : "-"));
    } else {
        http_reply_str(q, 404, "text/plain", q->path);
    }
}
static void on_proxy(struct http_req *q, void *arg)
{
    (void)arg;
    http_proxy(q, direct, NULL);
}

/* ---- helpers ---- */

struct got {
    bool done;
    int status;
    struct buf body;
    struct err err;
};
static void on_fetched(const struct http_answer *a, char *body, size_t n, const struct err *err,
                       void *arg)
{
    struct got *g = arg;

    g->done = true;
    g->status = a ? a->status : 0;
    if (err)
        g->err = *err;
    buf_add(&g->body, body, n);
}
static struct got fetch(struct http_origin *o, const struct http_call_opts *opts)
{
    struct got g = {0};

    http_fetch(o, opts, 0, on_fetched, &g);
    while (!g.done)
        uv_run(&loop, UV_RUN_ONCE);
    return g;
}
static int dial(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}
static void on_timer(uv_timer_t *t)
{
    (void)t;
}
/* Reads until want is in the answer, EOF (returns false) or two seconds. */
static bool until(int fd, struct buf *in, const void *want, size_t n)
{
    uv_timer_t wake;
    bool eof = false, found = false;

    uv_timer_init(&loop, &wake);
    uv_timer_start(&wake, on_timer, 1, 1);
    for (int i = 0; i < 2000 && !eof && !found; i++) {
        char piece[4096];
        struct pollfd p = {.fd = fd, .events = POLLIN};

        uv_run(&loop, UV_RUN_ONCE);
        while (!eof && poll(&p, 1, 0) > 0) {
            ssize_t r = read(fd, piece, sizeof piece);

            eof = r <= 0;
            if (r > 0)
                buf_add(in, piece, (size_t)r);
        }
        found = n && in->n >= n && memmem(in->p, in->n, want, n);
    }
    uv_close((uv_handle_t *)&wake, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    return n ? found : eof;
}
static bool until_str(int fd, struct buf *in, const char *want)
{
    return until(fd, in, want, strlen(want));
}
static void say(int fd, const void *p, size_t n)
{
    assert_int_equal(write(fd, p, n), (ssize_t)n);
}
#define SAY(fd, s) say(fd, s, sizeof(s) - 1)

static struct http_server *listen_with(void (*on)(struct http_req *, void *),
                                       const struct http_tls *tls)
{
    struct err err = {0};
    struct http_server *s = http_server_new(&loop, &(struct http_server_opts){
        .on_request = on, .tls = tls, .body_bytes_max = 200000, .bodies_bytes_max = 1000000, .header_bytes_max = 4096,
        .header_timeout_ms = 300, .body_timeout_ms = 300, .idle_timeout_ms = 10000}, &err);

    if (!s)
        fail_msg("%s", err.msg);
    return s;
}
static int setup(void **state)
{
    struct err err = {0};
    char url[64];

    (void)state;
    uv_loop_init(&loop);
    server = listen_with(on_request, NULL);
    proxy = listen_with(on_proxy, NULL);
    client = http_client_new(&loop, NULL);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", http_server_port(server));
    direct = http_origin_new(client, url, NULL, &err);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", http_server_port(proxy));
    through = http_origin_new(client, url, NULL, &err);
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 1000);
    return direct && through ? 0 : -1;
}
static int stopped;
static void on_stopped(void *arg)
{
    (void)arg;
    stopped++;
}
static int teardown(void **state)
{
    (void)state;
    http_client_free(client);
    http_server_stop(proxy, 100, on_stopped, NULL);
    http_server_stop(server, 100, on_stopped, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(stopped, 2);
    return uv_loop_close(&loop); /* busy when a handle was forgotten */
}

/* ---- tests ---- */

static void test_bodies(void **state)
{
    struct http_origin *ways[] = {direct, through};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct got g = fetch(ways[i], &(struct http_call_opts){
            .method = "PUT", .path = "/echo", .body = big, .body_n = 150000});

        assert_int_equal(g.status, 200);
        assert_int_equal(g.body.n, 150000);
        assert_memory_equal(g.body.p, big, 150000);
        buf_done(&g.body);
        g = fetch(ways[i], &(struct http_call_opts){
            .method = "PUT", .path = "/echo", .body = big, .body_n = 250000});
        assert_int_equal(g.status, 413);
        buf_done(&g.body);
        g = fetch(ways[i], &(struct http_call_opts){
            .method = "POST", .path = "/stream", .body = big, .body_n = sizeof big});
        assert_int_equal(g.body.n, sizeof big);
        assert_memory_equal(g.body.p, big, sizeof big);
        buf_done(&g.body);
        g = fetch(ways[i], &(struct http_call_opts){.path = "/big"});
        assert_int_equal(g.body.n, sizeof big);
        buf_done(&g.body);
        g = fetch(ways[i], &(struct http_call_opts){.method = "HEAD", .path = "/big"});
        assert_int_equal(g.status, 200);
        assert_int_equal(g.body.n, 0);
        buf_done(&g.body);
        g = fetch(ways[i], &(struct http_call_opts){.path = "/params?a=1%2B+2&b%20c=%41&a=3"});
        assert_string_equal(g.body.p, "1+ 2|A|/params");
        buf_done(&g.body);
    }
    assert_true(http_server_conns(server) <= 3); /* the connections were used again */
}

static void test_malformed(void **state)
{
    static const struct {
        const char *text, *want;
    } CASES[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 "},
        {"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 "},
        {"GARBAGE\r\n\r\n", "HTTP/1.1 501 "},
        {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400 "},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
         "HTTP/1.1 400 "},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         "HTTP/1.1 400 "},
        {"GET http://other/params?a=5 HTTP/1.1\r\nHost: x\r\n\r\n", "5|-|/params"},
        {"GET /params HTTP/1.0\r\n\r\n", "Connection: close"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct buf in = {0};
        int fd = dial(http_server_port(server));

        say(fd, CASES[i].text, strlen(CASES[i].text));
        if (!until_str(fd, &in, CASES[i].want))
            fail_msg("case %zu: got %s", i, in.p ? in.p : "nothing");
        close(fd);
        buf_done(&in);
    }
}

static void test_pipeline_and_half_close(void **state)
{
    struct buf in = {0};
    int fd = dial(http_server_port(server));

    (void)state;
    SAY(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst"
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecondGET /params?a=third");
    SAY(fd, " HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    assert_true(until(fd, &in, NULL, 0));
    assert_non_null(strstr(in.p, "first"));
    assert_true(strstr(in.p, "second") > strstr(in.p, "first"));
    assert_true(strstr(in.p, "third") > strstr(in.p, "second"));
    close(fd);
    buf_done(&in);
}

static void test_slow_and_gone(void **state)
{
    struct buf in = {0};
    int fd = dial(http_server_port(server)), before = gone_n;

    (void)state;
    SAY(fd, "GET /params HTTP/1.1\r\nHos"); /* and no more */
    assert_true(until_str(fd, &in, "HTTP/1.1 408 "));
    close(fd);
    buf_done(&in);
    fd = dial(http_server_port(server));
    SAY(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    body_failed_n = 0;
    assert_true(until(fd, &in, NULL, 0)); /* cut */
    assert_int_equal(body_failed_n, 1);
    close(fd);
    buf_done(&in);
    fd = dial(http_server_port(server));
    SAY(fd, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(until_str(fd, &in, "1\r\nx\r\n"));
    close(fd);
    for (int i = 0; i < 500 && gone_n == before; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    assert_int_equal(gone_n, before + 1);
    buf_done(&in);
    fd = dial(http_server_port(server));
    SAY(fd, "GET / HTTP/1.1\r\nHost: x\r\nA: ");
    for (int i = 0; i < 100; i++)
        SAY(fd, "0123456789012345678901234567890123456789012345678901234567890123456789");
    assert_true(until_str(fd, &in, "HTTP/1.1 431 "));
    close(fd);
    buf_done(&in);
}

/* --- floods over HTTP/2 ----------------------------------------------------------------------- */
/* Goal: a client that only makes work is cut, and holds little until then. Method: frames without end,
 * their answers not read; the server has to hang up before 16 MiB went through. */
static size_t h2_frame(uint8_t *out, uint8_t type, uint8_t flags, uint32_t stream, const void *p, size_t n)
{
    const uint8_t head[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};

    memcpy(out, head, 9);
    memcpy(out + 9, p, n);
    return 9 + n;
}

enum flood { RESETS, CONTINUATIONS, PINGS, SETTINGS };
static size_t flood_piece(enum flood what, uint8_t *out, uint32_t *stream)
{
    static const uint8_t get[] = {0x82, 0x86, 0x44, 5, '/', 'h', 'a', 'n', 'g', 0x41, 1, 'x'};
    static const uint8_t cancel[4] = {0, 0, 0, 8}, ping[8], setting[6] = {0, 3, 0, 0, 0, 100};
    uint8_t junk[1000];
    size_t n = 0;

    for (int i = 0; i < 16; i++)
        switch (what) {
        case RESETS:
            *stream += 2;
            n += h2_frame(out + n, 1, 4 | 1, *stream, get, sizeof get);
            n += h2_frame(out + n, 3, 0, *stream, cancel, 4);
            break;
        case CONTINUATIONS:
            for (size_t k = 0; k + 4 <= sizeof junk; k += 4)
                memcpy(junk + k, "\0\1a\0", 4); /* a header "a" of nothing, not indexed */
            n += h2_frame(out + n, 9, 0, 1, junk, sizeof junk);
            break;
        case PINGS:
            n += h2_frame(out + n, 6, 0, 0, ping, 8);
            break;
        case SETTINGS:
            n += h2_frame(out + n, 4, 0, 0, setting, 6);
            break;
        }
    return n;
}

static void test_h2_floods(void **state)
{
    (void)state;
    for (enum flood what = RESETS; what <= SETTINGS; what++) {
        static uint8_t out[32000];
        int fd = dial(http_server_port(server));
        uint32_t stream = (uint32_t)-1;
        size_t sent = 0;
        bool cut = false;

        SAY(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        say(fd, out, h2_frame(out, 4, 0, 0, "", 0));
        if (what == CONTINUATIONS)
            say(fd, out, h2_frame(out, 1, 0, 1, "\x82\x86\x84", 3));
        while (!cut && sent < 16 << 20) {
            size_t n = flood_piece(what, out, &stream);

            for (size_t at = 0; at < n && !cut;) {
                ssize_t r = send(fd, out + at, n - at, MSG_DONTWAIT | MSG_NOSIGNAL);

                cut = r < 0 && errno != EAGAIN;
                if (r > 0)
                    at += (size_t)r;
                uv_run(&loop, UV_RUN_NOWAIT);
                if (r < 0 && !cut && http_server_conns(server) == 0)
                    cut = true;
            }
            sent += n;
        }
        if (!cut)
            fail_msg("flood %d was not cut", what);
        close(fd);
        for (int i = 0; i < 500 && http_server_conns(server); i++) {
            uv_run(&loop, UV_RUN_NOWAIT);
            usleep(1000);
        }
    }
}

/* Bodies that many clients send at once have a limit together. */
static void test_bodies_together(void **state)
{
    struct buf in = {0};
    int fd[8];
    static char body[190000];
    char head[100];

    (void)state;
    for (int i = 0; i < 8; i++) {
        int n = snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", sizeof body);

        fd[i] = dial(http_server_port(server));
        say(fd[i], head, (size_t)n);
        for (size_t at = 0; at < sizeof body - 1;) { /* all but the last byte */
            ssize_t r = send(fd[i], body + at, sizeof body - 1 - at, MSG_DONTWAIT | MSG_NOSIGNAL);

            at += r > 0 ? (size_t)r : 0;
            uv_run(&loop, UV_RUN_NOWAIT);
            if (r < 0 && errno != EAGAIN)
                break;
        }
    }
    assert_true(until_str(fd[7], &in, "HTTP/1.1 503 "));
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    for (int i = 0; i < 500 && http_server_conns(server); i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    buf_done(&in);
}

static size_t frame(uint8_t *out, uint8_t b0, const void *p, size_t n)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    size_t at = 0;

    out[at++] = b0;
    if (n < 126) {
        out[at++] = (uint8_t)(0x80 | n);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(n >> 8);
        out[at++] = (uint8_t)n;
    }
    memcpy(out + at, key, 4);
    at += 4;
    for (size_t i = 0; i < n; i++)
        out[at++] = ((const uint8_t *)p)[i] ^ key[i & 3];
    return at;
}

static void test_websocket(void **state)
{
    static uint8_t out[70000];
    int ports[] = {http_server_port(server), http_server_port(proxy)}; /* plain and tunnelled */

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct buf in = {0};
        int fd = dial(ports[i]);
        size_t n;

        SAY(fd, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        assert_true(until_str(fd, &in, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_true(until_str(fd, &in, "\r\n\r\n"));
        buf_reset(&in);
        n = frame(out, 0x81, "hello", 5);
        n += frame(out + n, 0x01, "ab", 2); /* in fragments, with a ping between */
        n += frame(out + n, 0x89, "pp", 2);
        n += frame(out + n, 0x80, "cd", 2);
        for (size_t k = 0; k < n; k++)
            say(fd, out + k, 1);
        assert_true(until(fd, &in, "\x81\x05hello\x8a\x02pp\x81\x04" "abcd", 17));
        buf_reset(&in);
        n = frame(out, 0x82, big, 60000);
        say(fd, out, n);
        assert_true(until(fd, &in, big + 59000, 1000));
        assert_int_equal(in.n, 60004);
        buf_reset(&in);
        n = frame(out, 0x81, "\xff\xfe", 2); /* not UTF-8 */
        say(fd, out, n);
        assert_true(until(fd, &in, "\x03\xef", 2)); /* 1007 */
        close(fd);
        buf_done(&in);
    }
}

static void test_spdy(void **state)
{
    int fd = dial(http_server_port(proxy)), streams = stream_closed_n, sessions = spdy_closed_n;
    struct buf in = {0}, f = {0};
    uint8_t pairs[] = "\0\0\0\1\0\0\0\012streamtype\0\0\0\6stdout", block[256];
    z_stream z = {0};

    (void)state;
    SAY(fd, "POST /spdy HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            "Content-Length: 0\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n");
    assert_true(until_str(fd, &in, "101 Switching"));
    assert_true(until_str(fd, &in, "\r\n\r\n"));
    buf_reset(&in);
    /* no dictionary: allowed, and a test of its own */
    deflateInit(&z, 6);
    for (uint8_t id = 1; id <= 3; id += 2) {
        z.next_in = pairs;
        z.avail_in = sizeof pairs - 1;
        z.next_out = block;
        z.avail_out = sizeof block;
        deflate(&z, Z_SYNC_FLUSH);
        uint8_t n = (uint8_t)(sizeof block - z.avail_out);
        uint8_t syn[] = {0x80, 3, 0, 1, 0, 0, 0, (uint8_t)(10 + n), 0, 0, 0, id, 0, 0, 0, 0, 0, 0};

        buf_add(&f, syn, sizeof syn);
        buf_add(&f, block, n);
    }
    deflateEnd(&z);
    buf_add(&f, "\0\0\0\3\0\0\0\4data", 12);
    buf_add(&f, "\x80\3\0\6\0\0\0\4\0\0\0\7", 12); /* ping 7 */
    buf_add(&f, "\0\0\0\3\1\0\0\0", 8);             /* FIN */
    say(fd, f.p, f.n);
    assert_true(until(fd, &in, "\0\0\0\1\0\0\0\6stdout", 14));
    assert_true(until(fd, &in, "\0\0\0\3\0\0\0\4data", 12));
    assert_true(until(fd, &in, "\x80\3\0\6\0\0\0\4\0\0\0\7", 12));
    assert_true(until(fd, &in, "\0\0\0\3\1\0\0\0", 8));
    assert_int_equal(stream_closed_n, streams + 1);
    close(fd);
    for (int i = 0; i < 500 && spdy_closed_n == sessions; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    assert_int_equal(stream_closed_n, streams + 2);
    assert_int_equal(spdy_closed_n, sessions + 1);
    buf_done(&in);
    buf_done(&f);
}

/* A key and a certificate for 127.0.0.1, signed by itself. */
static void make_cert(const char *cn, char **ret_cert, char **ret_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *b = BIO_new(BIO_s_mem());
    X509_NAME *name = X509_get_subject_name(x);
    unsigned char ip[] = {127, 0, 0, 1};
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *g = GENERAL_NAME_new();
    ASN1_OCTET_STRING *o = ASN1_OCTET_STRING_new();
    char *p;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, name);
    ASN1_OCTET_STRING_set(o, ip, 4);
    GENERAL_NAME_set0_value(g, GEN_IPADD, o);
    sk_GENERAL_NAME_push(names, g);
    X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0);
    GENERAL_NAMES_free(names);
    X509_sign(x, key, EVP_sha256());
    PEM_write_bio_X509(b, x);
    *ret_cert = xstrndup(p, (size_t)BIO_get_mem_data(b, &p));
    (void)BIO_reset(b);
    PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
    *ret_key = xstrndup(p, (size_t)BIO_get_mem_data(b, &p));
    BIO_free(b);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void test_tls(void **state)
{
    char *cert, *key, *ccert, *ckey, *bcert, *bkey, url[64];
    struct err err = {0};

    (void)state;
    make_cert("server", &cert, &key);
    make_cert("alice", &ccert, &ckey);
    make_cert("mallory", &bcert, &bkey);
    struct http_server *s = listen_with(on_request, &(struct http_tls){cert, key, ccert});
    snprintf(url, sizeof url, "https://127.0.0.1:%d", http_server_port(s));
    struct {
        struct http_origin_opts o;
        const char *want;
    } cases[] = {
        {{.ca_pem = cert}, "0 0 -"},
        {{.ca_pem = cert, .cert_pem = ccert, .key_pem = ckey}, "1 1 alice"},
        {{.ca_pem = cert, .cert_pem = bcert, .key_pem = bkey}, "1 0 -"},
        {{.ca_pem = bcert}, NULL}, /* we do not trust that server */
        {{.ca_pem = cert, .server_name = "elsewhere"}, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_origin *o = http_origin_new(client, url, &cases[i].o, &err);
        struct got g = fetch(o, &(struct http_call_opts){.path = "/peer"});

        if (cases[i].want)
            assert_string_equal(g.body.p ? g.body.p : g.err.msg, cases[i].want);
        else
            assert_int_equal(g.err.code, ERR_BAD_GATEWAY);
        buf_done(&g.body);
        if (cases[i].want) {
            g = fetch(o, &(struct http_call_opts){
                .method = "POST", .path = "/stream", .body = big, .body_n = sizeof big});
            assert_int_equal(g.body.n, sizeof big);
            assert_memory_equal(g.body.p, big, sizeof big);
            buf_done(&g.body);
        }
        http_origin_free(o);
    }
    http_server_stop(s, 0, NULL, NULL);
    free(cert);
    free(key);
    free(ccert);
    free(ckey);
    free(bcert);
    free(bkey);
}

static void test_unix_and_refused(void **state)
{
    struct err err = {0};
    char path[64], url[80];

    (void)state;
    snprintf(path, sizeof path, "/tmp/tandem-test-%d.sock", (int)getpid());
    snprintf(url, sizeof url, "unix:%s", path);
    struct http_server *s = http_server_new(&loop, &(struct http_server_opts){
        .unix_path = path, .on_request = on_request}, &err);
    assert_non_null(s);
    struct http_origin *o = http_origin_new(client, url, NULL, &err);
    uint64_t t0 = uv_hrtime();
    for (int i = 0; i < 200; i++) {
        struct got g = fetch(o, &(struct http_call_opts){.path = "/params?a=1"});

        assert_int_equal(g.status, 200);
        buf_done(&g.body);
    }
    print_message("Unix socket, client and server in one loop: %.1f us a request\n",
                  (double)(uv_hrtime() - t0) / 200e3);
    http_server_stop(s, 0, NULL, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    struct got g = fetch(o, &(struct http_call_opts){.path = "/params"});
    assert_int_equal(g.status, 0);
    assert_int_equal(g.err.code, ERR_UNAVAILABLE);
    buf_done(&g.body);
    http_origin_free(o);
}

static void wait_ms(uint64_t ms)
{
    uint64_t end = uv_hrtime() + ms * 1000000;
    uv_timer_t wake;

    uv_timer_init(&loop, &wake);
    uv_timer_start(&wake, on_timer, ms, 0);
    while (uv_hrtime() < end)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&wake, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

/* Time limits hold also when the client has slept before: who has none (a watch) does not keep it awake. */
static void test_time_limits(void **state)
{
    struct err err = {0};
    char url[64];
    struct http_client *c = http_client_new(&loop, &(struct http_client_opts){.idle_timeout_ms = 300});
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int mute = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct got watch = {0}, g;
    struct http_origin *o, *nobody;
    socklen_t at_n = sizeof at;
    uint64_t began;

    (void)state;
    assert_int_equal(bind(mute, (struct sockaddr *)&at, sizeof at), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", http_server_port(server));
    o = http_origin_new(c, url, NULL, &err);
    assert_int_equal(listen(mute, 4), 0); /* takes connections and says nothing */
    getsockname(mute, (struct sockaddr *)&at, &at_n);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(at.sin_port));
    nobody = http_origin_new(c, url, NULL, &err);
    g = fetch(o, &(struct http_call_opts){.path = "/params"});
    buf_done(&g.body);
    http_fetch(o, &(struct http_call_opts){.path = "/hang"}, 0, on_fetched, &watch); /* on the connection that was idle */
    wait_ms(400);
    assert_int_equal(http_client_sleeps(c), -1);
    g = fetch(nobody, &(struct http_call_opts){.path = "/", .timeout_ms = 100});
    assert_int_equal(g.err.code, ERR_TIMEOUT);
    assert_non_null(strstr(g.err.msg, "did not answer in time"));
    buf_done(&g.body);
    wait_ms(400);
    g = fetch(o, &(struct http_call_opts){.path = "/hang", .timeout_ms = 60000, .idle_timeout_ms = 100});
    assert_int_equal(g.err.code, ERR_TIMEOUT);
    assert_non_null(strstr(g.err.msg, "stopped sending"));
    buf_done(&g.body);
    g = fetch(o, &(struct http_call_opts){.path = "/params"}); /* leaves an idle connection, which is closed in its time */
    buf_done(&g.body);
    began = uv_hrtime();
    wait_ms(150);
    if (uv_hrtime() - began < 280000000) /* else it was closed while others had the machine */
        assert_in_range(http_client_sleeps(c), 1, 400);
    wait_ms(600);
    assert_int_equal(http_client_sleeps(c), -1);
    assert_false(watch.done);
    http_client_free(c);
    wait_ms(10);
    assert_true(watch.done);
    buf_done(&watch.body);
    close(mute);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_pipeline_and_half_close),
        cmocka_unit_test(test_slow_and_gone),
        cmocka_unit_test(test_h2_floods),
        cmocka_unit_test(test_bodies_together),
        cmocka_unit_test(test_websocket),
        cmocka_unit_test(test_spdy),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_unix_and_refused),
        cmocka_unit_test(test_time_limits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
