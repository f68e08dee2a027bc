/* A link over WebSocket: the first byte of a message is its channel. Base64 subprotocols write
 * that byte as a digit and the rest in base64, in text messages. v5 lets the client end a channel:
 * byte 255 and the channel's number. */
#include "node/stream_int.h"

#include "http/ws.h"

#include <openssl/evp.h>

struct wslink {
    struct link link;
    struct ws *ws;
    bool base64, v5, closing;
};

static const char *const PROTOCOLS[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io",
                                        "channel.k8s.io", "base64.channel.k8s.io", NULL};

static void wslink_send(struct link *l, int channel, const void *p, size_t n)
{
    struct wslink *w = container_of(l, struct wslink, link);
    char *text;
    int k;

    if (w->closing)
        return;
    if (!w->base64) {
        ws_send_channel(w->ws, (uint8_t)channel, p, n);
        return;
    }
    text = xmalloc(n / 3 * 4 + 8);
    text[0] = (char)('0' + channel);
    k = EVP_EncodeBlock((unsigned char *)text + 1, p, (int)n);
    ws_send(w->ws, WS_TEXT, text, (size_t)k + 1);
    free(text);
}

static size_t wslink_queued(const struct link *l)
{
    return ws_queued_bytes(container_of((struct link *)l, struct wslink, link)->ws);
}

static void wslink_hold(struct link *l, bool on)
{
    struct wslink *w = container_of(l, struct wslink, link);

    if (on)
        ws_pause(w->ws);
    else
        ws_resume(w->ws);
}

static void wslink_close(struct link *l)
{
    struct wslink *w = container_of(l, struct wslink, link);

    if (w->closing)
        return;
    w->closing = true;
    ws_close(w->ws, 1000, "");
}

static const struct link_ops OPS = {wslink_send, wslink_queued, wslink_hold, wslink_close};

static void channel_in(struct wslink *w, int channel, const char *p, size_t n)
{
    int cols, rows;

    if (channel == CH_STDIN && w->link.want.stdin_)
        w->link.ev.input(w->link.ev.arg, p, n);
    else if (channel == CH_RESIZE && stream_size_parse(p, n, &cols, &rows))
        w->link.ev.resize(w->link.ev.arg, cols, rows);
}

static void on_message(struct ws *ws, enum ws_type type, const char *data, size_t n, void *arg)
{
    struct wslink *w = arg;

    (void)ws;
    (void)type;
    if (!n || w->closing)
        return;
    if (w->base64) {
        size_t max = n;
        unsigned char *out = xmalloc(max + 4);
        int k = EVP_DecodeBlock(out, (const unsigned char *)data + 1, (int)(n - 1));

        while (k > 0 && n > 1 && data[n - 1] == '=') {
            k--;
            n--;
        }
        if (k >= 0)
            channel_in(w, data[0] - '0', (char *)out, (size_t)k);
        free(out);
    } else if (w->v5 && (uint8_t)data[0] == 255) {
        if (n >= 2 && data[1] == CH_STDIN)
            w->link.ev.input_end(w->link.ev.arg);
    } else {
        channel_in(w, (uint8_t)data[0], data + 1, n - 1);
    }
}

static void on_drain(struct ws *ws, void *arg)
{
    struct wslink *w = arg;

    (void)ws;
    if (!w->closing)
        w->link.ev.drained(w->link.ev.arg);
}

static void on_close(struct ws *ws, int code, void *arg)
{
    struct wslink *w = arg;

    (void)ws;
    (void)code;
    w->link.ev.closed(w->link.ev.arg);
    free(w);
}

struct link *link_ws(struct http_req *req, const struct link_want *want, const struct link_events *ev)
{
    const char *protocol = ws_pick(req, PROTOCOLS), *first = http_get(req, "sec-websocket-protocol");
    struct wslink *w;
    struct err err = {0};

    if (!protocol && first) {
        stream_refuse(req, 400, "BadRequest", "none of the offered subprotocols is spoken here: %.100s", first);
        return NULL;
    }
    w = xcalloc(1, sizeof(*w));
    w->link = (struct link){&OPS, *ev, *want, protocol && (protocol[1] == '4' || protocol[1] == '5')};
    w->base64 = protocol && strstr(protocol, "base64");
    w->v5 = protocol && protocol[1] == '5';
    w->ws = ws_accept(req, protocol,
                      &(struct ws_opts){.ping_ms = 30000, .on_message = on_message, .on_drain = on_drain, .on_close = on_close, .arg = w},
                      &err);
    if (!w->ws) {
        stream_refuse_err(req, &err);
        free(w);
        return NULL;
    }
    /* tells the client that the connection stands */
    wslink_send(&w->link, want->stdout_ || want->tty ? CH_STDOUT : want->stderr_ ? CH_STDERR : CH_ERROR, "", 0);
    w->link.ready_now = true;
    return &w->link;
}
