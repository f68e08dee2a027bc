/* http/ws.c - WebSocket frames over a raw connection. Input is unmasked in place, in a buffer that
 * holds at most one frame; messages of one frame are handed over from there without a copy. */
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <strings.h>

#include "base/buf.h"
#include "http/http_int.h"
#include "http/ws.h"

enum { OP_CONT = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

struct ws {
    struct http_raw *raw;
    struct http_req *req;
    struct ws_opts o;
    struct buf in;  /* bytes of a frame that is not whole yet */
    struct buf msg; /* fragments so far */
    uint8_t msg_op; /* 0: none begun */
    int code;       /* the peer's close code */
    bool close_sent, close_got, paused, pinged;
    uv_timer_t *ping; /* on the heap: outlives ws by its close callback */
    uint64_t heard_ms;
};

bool ws_wanted(const struct http_req *req)
{
    const char *u = http_upgrade_wanted(req);

    return u && http_has_token(req, "upgrade", "websocket");
}

const char *ws_pick(const struct http_req *req, const char *const *ours)
{
    for (; *ours; ours++)
        if (http_has_token(req, "sec-websocket-protocol", *ours))
            return *ours;
    return NULL;
}

/* ---- output ---- */

static void send_frame(struct ws *ws, uint8_t op, const uint8_t *prefix, size_t prefix_n,
                       const void *p, size_t n)
{
    uint8_t h[16];
    size_t hn = 2, len = prefix_n + n;

    h[0] = 0x80 | op;
    if (len < 126) {
        h[1] = (uint8_t)len;
    } else if (len < 65536) {
        h[1] = 126;
        h[2] = (uint8_t)(len >> 8);
        h[3] = (uint8_t)len;
        hn = 4;
    } else {
        h[1] = 127;
        for (int i = 0; i < 8; i++)
            h[2 + i] = (uint8_t)((uint64_t)len >> (56 - 8 * i));
        hn = 10;
    }
    if (prefix_n)
        h[hn++] = prefix[0];
    http_raw_write(ws->raw, h, hn);
    http_raw_write(ws->raw, p, n);
}

void ws_send(struct ws *ws, enum ws_type type, const void *p, size_t n)
{
    if (!ws->close_sent)
        send_frame(ws, (uint8_t)type, NULL, 0, p, n);
}

void ws_send_channel(struct ws *ws, uint8_t channel, const void *p, size_t n)
{
    if (!ws->close_sent)
        send_frame(ws, OP_BINARY, &channel, 1, p, n);
}

size_t ws_queued_bytes(const struct ws *ws)
{
    return http_raw_queued_bytes(ws->raw);
}

void ws_close(struct ws *ws, int code, const char *reason)
{
    uint8_t body[125];
    size_t n = reason ? MIN(strlen(reason), sizeof body - 2) : 0;

    if (ws->close_sent)
        return;
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    if (n)
        memcpy(body + 2, reason, n);
    send_frame(ws, OP_CLOSE, NULL, 0, body, n + 2);
    ws->close_sent = true;
    http_raw_close(ws->raw); /* flushes, then waits shortly for the peer to close */
}

static void fail(struct ws *ws, int code, const char *why)
{
    ws->code = code;
    ws_close(ws, code, why);
}

/* ---- input ---- */

static bool utf8_ok(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;

        if (more == 9 || i + more >= n)
            return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
        i += more + 1;
    }
    return true;
}

static void got_message(struct ws *ws, uint8_t op, const char *p, size_t n)
{
    if (op == OP_TEXT && !utf8_ok((const unsigned char *)p, n)) {
        fail(ws, 1007, "text is not UTF-8");
        return;
    }
    ws->o.on_message(ws, (enum ws_type)op, p, n, ws->o.arg);
}

static void got_control(struct ws *ws, uint8_t op, const char *p, size_t n)
{
    if (op == OP_PING) {
        if (!ws->close_sent)
            send_frame(ws, OP_PONG, NULL, 0, p, n);
    } else if (op == OP_CLOSE) {
        ws->code = n >= 2 ? (uint8_t)p[0] << 8 | (uint8_t)p[1] : 1005;
        ws->close_got = true;
        ws_close(ws, n >= 2 ? ws->code : 1000, NULL);
    }
}

static void got_frame(struct ws *ws, uint8_t b0, char *p, size_t n)
{
    uint8_t op = b0 & 15;
    bool fin = b0 & 0x80;

    if (op >= 8) {
        got_control(ws, op, p, n);
    } else if (op != OP_CONT && fin) {
        got_message(ws, op, p, n);
    } else {
        if (op != OP_CONT)
            ws->msg_op = op;
        buf_add(&ws->msg, p, n);
        if (fin) {
            struct buf m = ws->msg;

            op = ws->msg_op;
            ws->msg = (struct buf){0};
            ws->msg_op = 0;
            got_message(ws, op, m.p ? m.p : "", m.n);
            buf_done(&m);
        }
    }
}

static void unmask(char *p, size_t n, const uint8_t key[4])
{
    uint64_t k;
    size_t i = 0;

    memcpy(&k, key, 4);
    memcpy((char *)&k + 4, key, 4);
    for (; i + 8 <= n; i += 8) {
        uint64_t v;

        memcpy(&v, p + i, 8);
        v ^= k;
        memcpy(p + i, &v, 8);
    }
    for (; i < n; i++)
        p[i] = (char)(p[i] ^ (char)key[i & 3]);
}

/* Takes one frame off the front; returns its bytes, 0 when more is needed (ret_need: how many in
 * all) or when the connection failed. */
static size_t take_frame(struct ws *ws, char *p, size_t n, size_t *ret_need)
{
    const uint8_t *u = (const uint8_t *)p;
    size_t hn = 2;
    uint64_t len;
    uint8_t op;

    *ret_need = 2;
    if (n < 2)
        return 0;
    op = u[0] & 15;
    len = u[1] & 127;
    if (u[0] & 0x70 || (op > 2 && op < 8) || op > 10 || !(u[1] & 0x80) ||
        (op >= 8 && (len > 125 || !(u[0] & 0x80))) || (op == OP_CONT && !ws->msg_op) ||
        ((op == OP_TEXT || op == OP_BINARY) && ws->msg_op)) {
        fail(ws, 1002, "malformed frame");
        return 0;
    }
    hn += (len == 126 ? 2 : len == 127 ? 8 : 0);
    *ret_need = hn + 4;
    if (n < hn + 4)
        return 0;
    if (len >= 126) {
        size_t bytes = len == 126 ? 2 : 8;

        len = 0;
        for (size_t i = 0; i < bytes; i++)
            len = len << 8 | u[2 + i];
    }
    if (len > ws->o.message_bytes_max || ws->msg.n + len > ws->o.message_bytes_max) {
        fail(ws, 1009, "message too large");
        return 0;
    }
    *ret_need = hn + 4 + (size_t)len;
    if (n < *ret_need)
        return 0;
    unmask(p + hn + 4, (size_t)len, u + hn);
    got_frame(ws, u[0], p + hn + 4, (size_t)len);
    return *ret_need;
}

/* Whole frames of p; returns how much was taken. */
static size_t feed(struct ws *ws, char *p, size_t n)
{
    size_t at = 0, need = 0;

    while (at < n && !ws->close_sent && !ws->paused) {
        size_t took = take_frame(ws, p + at, n - at, &need);

        if (!took)
            break;
        at += took;
    }
    return at;
}

/* The rest of the input: the head of a frame, or all that came after a pause (which comes back by
 * ws_data() once we resume). */
static void keep(struct ws *ws, const char *p, size_t n)
{
    if (!n || ws->close_sent)
        return;
    if (ws->paused)
        raw_hold(ws->raw, p, n);
    else
        buf_add(&ws->in, p, n);
}

static void ws_data(struct http_raw *raw, const char *p, size_t n, void *arg)
{
    struct ws *ws = arg;
    size_t took = 0;

    (void)raw;
    ws->heard_ms = uv_now(((struct req *)(void *)ws->req)->conn->io.turn->loop);
    ws->pinged = false;
    if (ws->close_sent)
        return;
    if (!ws->in.n) { /* the usual case: from the read buffer, which is ours to change */
        took = feed(ws, (char *)p, n);
        keep(ws, p + took, n - took);
        return;
    }
    buf_add(&ws->in, p, n);
    struct buf b = ws->in;

    ws->in = (struct buf){0};
    took = feed(ws, b.p, b.n);
    buf_eat(&b, took);
    if (b.n && !ws->close_sent && !ws->paused) {
        ws->in = b;
        return;
    }
    keep(ws, b.p, b.n);
    buf_done(&b);
}

static void ws_drain(struct http_raw *raw, void *arg)
{
    struct ws *ws = arg;

    (void)raw;
    if (ws->o.on_drain)
        ws->o.on_drain(ws, ws->o.arg);
}

static void free_timer(uv_handle_t *h)
{
    free(h);
}

static void ws_closed(struct http_raw *raw, void *arg)
{
    struct ws *ws = arg;

    (void)raw;
    ws->close_sent = true;
    if (ws->ping)
        uv_close((uv_handle_t *)STEAL(ws->ping), free_timer);
    if (ws->o.on_close)
        ws->o.on_close(ws, ws->code, ws->o.arg);
    buf_done(&ws->in);
    buf_done(&ws->msg);
}

static void on_ping(uv_timer_t *t)
{
    struct ws *ws = t->data;
    uint64_t quiet = uv_now(t->loop) - ws->heard_ms;

    if (ws->close_sent || quiet < ws->o.ping_ms)
        return;
    if (ws->pinged && quiet >= 2 * (uint64_t)ws->o.ping_ms) {
        http_raw_close(ws->raw);
        return;
    }
    ws->pinged = true;
    send_frame(ws, OP_PING, NULL, 0, "", 0);
}

void ws_pause(struct ws *ws)
{
    ws->paused = true;
    http_raw_pause(ws->raw);
}

void ws_resume(struct ws *ws)
{
    if (!ws->paused)
        return;
    ws->paused = false;
    http_raw_resume(ws->raw);
}

struct http_req *ws_req(struct ws *ws)
{
    return ws->req;
}

static void accept_key(const char *key, char out[32])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char sum[SHA_DIGEST_LENGTH];
    struct buf b = {0};

    buf_adds(&b, key);
    buf_adds(&b, guid);
    EVP_Digest(b.p, b.n, sum, NULL, EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)out, sum, sizeof sum);
    buf_done(&b);
}

struct ws *ws_accept(struct http_req *req, const char *subprotocol, const struct ws_opts *opts,
                     struct err *err)
{
    const char *key = http_get(req, "sec-websocket-key");
    const char *version = http_get(req, "sec-websocket-version");
    struct ws *ws;
    char accept[32];

    if (!ws_wanted(req) || !streq(req->method, "GET")) {
        err_set(err, INVALID_ARGUMENT, "not a WebSocket request");
        return NULL;
    }
    if (!key || strlen(key) != 24 || !version || !streq(version, "13")) {
        err_set(err, INVALID_ARGUMENT, "WebSocket needs Sec-WebSocket-Version 13 and a key");
        return NULL;
    }
    ws = arena_new_of(req->arena, struct ws);
    ws->req = req;
    ws->o = *opts;
    if (!ws->o.message_bytes_max)
        ws->o.message_bytes_max = 16u << 20;
    ws->code = 1006;
    accept_key(key, accept);
    http_header(req, "Sec-WebSocket-Accept", accept);
    if (subprotocol)
        http_header(req, "Sec-WebSocket-Protocol", subprotocol);
    ws->raw = http_upgrade(req, "websocket", &(struct http_raw_opts){
        .on_data = ws_data, .on_drain = ws_drain, .on_close = ws_closed, .arg = ws}, err);
    if (!ws->raw)
        return NULL;
    if (ws->o.ping_ms) {
        uv_loop_t *loop = ((struct req *)(void *)req)->conn->io.turn->loop;

        ws->heard_ms = uv_now(loop);
        ws->ping = xcalloc(1, sizeof *ws->ping);
        uv_timer_init(loop, ws->ping);
        ws->ping->data = ws;
        uv_timer_start(ws->ping, on_ping, ws->o.ping_ms, ws->o.ping_ms);
        uv_unref((uv_handle_t *)ws->ping);
    }
    return ws;
}
