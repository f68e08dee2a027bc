/* A link over SPDY/3.1: a stream a channel, named by the header "streamtype". The session is ready
 * when all streams that the request announces have come. */
#include "node/stream_int.h"

#include "http/spdy.h"

enum { STREAMS_WAIT_MS = 30000 };

struct slink_spdy {
    struct link link;
    struct spdy *spdy;
    struct spdy_stream *stream[CHANNELS];
    struct chan {
        struct slink_spdy *l;
        int n;
    } chan[CHANNELS];
    uint32_t missing; /* bits */
    bool closing, over;
    uv_timer_t *wait;
};

static const char *const PROTOCOLS[] = {"v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", NULL};
static const char *const TYPES[CHANNELS] = {"stdin", "stdout", "stderr", "error", "resize"};

static void l_send(struct link *link, int channel, const void *p, size_t n)
{
    struct slink_spdy *l = container_of(link, struct slink_spdy, link);

    if (l->stream[channel] && !l->closing)
        spdy_write(l->stream[channel], p, n);
}

static size_t l_queued(const struct link *link)
{
    const struct slink_spdy *l = container_of((struct link *)link, struct slink_spdy, link);
    size_t n = l->over ? 0 : spdy_queued_bytes(l->spdy);

    for (int i = CH_STDOUT; i <= CH_STDERR; i++)
        if (l->stream[i])
            n += spdy_stream_queued_bytes(l->stream[i]);
    return n;
}

static void l_hold(struct link *link, bool on)
{
    struct slink_spdy *l = container_of(link, struct slink_spdy, link);
    struct spdy_stream *st = l->stream[CH_STDIN];

    if (st && on)
        spdy_stream_pause(st);
    else if (st)
        spdy_stream_resume(st);
}

static void l_close(struct link *link)
{
    struct slink_spdy *l = container_of(link, struct slink_spdy, link);

    if (l->closing)
        return;
    l->closing = true;
    for (int i = CH_STDOUT; i <= CH_ERROR; i++)
        if (l->stream[i])
            spdy_end(l->stream[i]);
    if (!l->over)
        spdy_close(l->spdy);
}

static const struct link_ops OPS = {l_send, l_queued, l_hold, l_close};

static void wait_stop(struct slink_spdy *l)
{
    if (l->wait)
        uv_close((uv_handle_t *)l->wait, (uv_close_cb)free);
    l->wait = NULL;
}

static void on_data(struct spdy_stream *st, const char *data, size_t n, void *arg)
{
    struct chan *c = arg;
    struct slink_spdy *l = c->l;
    int cols, rows;

    (void)st;
    if (l->closing)
        return;
    if (c->n == CH_STDIN)
        l->link.ev.input(l->link.ev.arg, data, n);
    else if (c->n == CH_RESIZE) { /* several may have come at once: the last counts */
        for (size_t i = n; i-- > 0;)
            if (data[i] == '{') {
                if (stream_size_parse(data + i, n - i, &cols, &rows))
                    l->link.ev.resize(l->link.ev.arg, cols, rows);
                break;
            }
    }
}

static void on_end(struct spdy_stream *st, void *arg)
{
    struct chan *c = arg;

    (void)st;
    if (c->n == CH_STDIN && !c->l->closing)
        c->l->link.ev.input_end(c->l->link.ev.arg);
}

static void on_drain(struct spdy_stream *st, void *arg)
{
    struct chan *c = arg;

    (void)st;
    if (!c->l->closing)
        c->l->link.ev.drained(c->l->link.ev.arg);
}

static void on_stream_close(struct spdy_stream *st, void *arg)
{
    struct chan *c = arg;

    (void)st;
    c->l->stream[c->n] = NULL;
}

static void on_stream(struct spdy_stream *st, void *arg)
{
    struct slink_spdy *l = arg;
    const char *type = spdy_stream_get(st, "streamtype");
    int n = -1;

    for (int i = 0; type && i < CHANNELS; i++)
        if (streq(type, TYPES[i]))
            n = i;
    if (n < 0 || l->stream[n]) {
        spdy_reset(st, 1); /* PROTOCOL_ERROR */
        return;
    }
    l->stream[n] = st;
    l->chan[n] = (struct chan){l, n};
    spdy_stream_on(st, &(struct spdy_stream_opts){on_data, on_end, on_drain, on_stream_close, &l->chan[n]});
    spdy_reply(st);
    if (!(l->missing & 1u << n))
        return;
    l->missing &= ~(1u << n);
    if (!l->missing) {
        wait_stop(l);
        l->link.ev.ready(l->link.ev.arg);
    }
}

static void on_close(struct spdy *s, void *arg)
{
    struct slink_spdy *l = arg;

    (void)s;
    l->over = true;
    wait_stop(l);
    l->link.ev.closed(l->link.ev.arg);
    free(l);
}

static void on_wait(uv_timer_t *t)
{
    struct slink_spdy *l = t->data;

    LOG(WARN, "node", "did=give_up why=\"the client did not open its streams\"");
    wait_stop(l);
    l_close(&l->link);
}

struct link *link_spdy(struct http_req *req, const struct link_want *want, const struct link_events *ev)
{
    const char *protocol = spdy_pick(req, PROTOCOLS);
    struct slink_spdy *l;
    struct err err = {0};

    if (!protocol && http_get(req, "x-stream-protocol-version")) {
        stream_refuse(req, 403, "Forbidden", "none of the offered protocols is spoken here");
        return NULL;
    }
    l = xcalloc(1, sizeof(*l));
    l->link = (struct link){.ops = &OPS, .ev = *ev, .want = *want, .v4 = protocol && protocol[1] == '4'};
    l->missing = want->channels;
    if (!protocol || (protocol[1] != '4' && protocol[1] != '3'))
        l->missing &= ~(1u << CH_RESIZE);
    l->spdy = spdy_accept(req, protocol, &(struct spdy_opts){on_stream, on_close, l}, &err);
    if (!l->spdy) {
        stream_refuse_err(req, &err);
        free(l);
        return NULL;
    }
    l->wait = xcalloc(1, sizeof(*l->wait));
    uv_timer_init(http_server_loop(req->server), l->wait);
    l->wait->data = l;
    uv_timer_start(l->wait, on_wait, STREAMS_WAIT_MS, 0);
    return &l->link;
}
