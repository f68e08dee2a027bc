/* port-forward: connections of the client to ports inside the pod.
 *
 * SPDY, also inside a WebSocket ("SPDY/3.1+portforward.k8s.io"): each connection is a pair of
 * streams with the same requestID, streamtype data and error. Plain WebSocket channels (v4):
 * ports are named in the query, port i has channel 2i (data) and 2i+1 (error), each opened by a
 * message with the port's number, little-endian. */
#include "node/stream_int.h"

#include "base/list.h"
#include "http/spdy.h"
#include "http/ws.h"

#include <stdio.h>
#include <unistd.h>

enum { CONNS_MAX = 256, WS_PORTS_MAX = 64 };

struct forward {
    struct node *n;
    char *ns, *pod;
    uv_loop_t *loop;
    struct spdy *spdy; /* one of the two; NULL: gone */
    struct ws *ws;
    struct list conns;
    int n_conns, handles;
    bool over;
    struct conn *by_channel[WS_PORTS_MAX];
    bool base64;
};

/* One connection into the pod. Lives until its socket is closed and its streams are. */
struct conn {
    struct forward *f;
    struct list link;
    char id[32];
    int port, channel; /* channel: index of the port with WebSocket */
    struct spdy_stream *data, *error;
    uv_tcp_t tcp;
    uv_connect_t connect;
    bool open, connected, paused, held, peer_ended, failed;
    struct buf early; /* came before the connection stood */
    char in[65536];
};

static void forward_unref(struct forward *f)
{
    if (!f->over || f->handles || f->n_conns)
        return;
    free(f->ns);
    free(f->pod);
    free(f);
}

static void conn_unref(struct conn *c)
{
    struct forward *f = c->f;

    if (c->open || c->data || c->error || (c->channel >= 0 && f->by_channel[c->channel] == c))
        return;
    list_remove(&c->link);
    f->n_conns--;
    buf_done(&c->early);
    free(c);
    forward_unref(f);
}

/* Plain WebSocket channels have no end of their own: when all ports are done, so is the whole. */
static void ws_done(struct forward *f)
{
    if (!f->ws)
        return;
    LIST_EACH(&f->conns, it)
        if (list_entry(it, struct conn, link)->open)
            return;
    ws_close(f->ws, 1000, "");
}

static void tcp_closed(uv_handle_t *h)
{
    struct conn *c = h->data;

    c->open = false;
    c->f->handles--;
    ws_done(c->f);
    conn_unref(c);
}

static void tcp_close(struct conn *c)
{
    if (c->open && !uv_is_closing((uv_handle_t *)&c->tcp))
        uv_close((uv_handle_t *)&c->tcp, tcp_closed);
}

/* --- to the client --- */

static void send_data(struct conn *c, const char *p, size_t n)
{
    if (c->data)
        spdy_write(c->data, p, n);
    else if (c->channel >= 0 && c->f->ws)
        ws_send_channel(c->f->ws, (uint8_t)(2 * c->channel), p, n);
}

static size_t queued(struct conn *c)
{
    return c->data ? spdy_stream_queued_bytes(c->data) : c->f->ws ? ws_queued_bytes(c->f->ws) : 0;
}

static void no_more_data(struct conn *c)
{
    if (c->data)
        spdy_end(c->data);
    if (c->error)
        spdy_end(c->error);
}

static void conn_fail(struct conn *c, const char *why)
{
    char text[256];

    if (c->failed)
        return;
    c->failed = true;
    snprintf(text, sizeof(text), "an error occurred forwarding to port %d in pod %s/%s: %s", c->port, c->f->ns, c->f->pod, why);
    if (c->error)
        spdy_write(c->error, text, strlen(text));
    else if (c->channel >= 0 && c->f->ws)
        ws_send_channel(c->f->ws, (uint8_t)(2 * c->channel + 1), text, strlen(text));
    no_more_data(c);
    tcp_close(c);
}

/* --- the socket in the pod --- */

static void on_alloc(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    struct conn *c = h->data;

    (void)n;
    *ret = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct conn *c = h->data;

    if (n < 0) {
        no_more_data(c);
        tcp_close(c);
        return;
    }
    if (n == 0)
        return;
    send_data(c, b->base, (size_t)n);
    if (queued(c) > STREAM_QUEUE_MAX) {
        c->paused = true;
        uv_read_stop(h);
    }
}

static void drained(struct conn *c)
{
    if (c->paused && c->open && !uv_is_closing((uv_handle_t *)&c->tcp)) {
        c->paused = false;
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    }
}

struct written {
    uv_write_t req;
    struct conn *c;
    char data[];
};

static void hold(struct conn *c, bool on)
{
    if (c->held == on)
        return;
    c->held = on;
    if (c->data && on)
        spdy_stream_pause(c->data);
    else if (c->data)
        spdy_stream_resume(c->data);
}

static void on_written(uv_write_t *r, int status)
{
    struct written *w = container_of(r, struct written, req);
    struct conn *c = w->c;

    free(w);
    if (status < 0)
        return;
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp) < STREAM_QUEUE_MAX / 2)
        hold(c, false);
}

static void on_shutdown(uv_shutdown_t *r, int status)
{
    (void)status;
    free(r);
}

static void shut(struct conn *c)
{
    uv_shutdown_t *r = xcalloc(1, sizeof(*r));

    if (uv_shutdown(r, (uv_stream_t *)&c->tcp, on_shutdown) < 0)
        free(r);
}

static void conn_input(struct conn *c, const char *p, size_t n)
{
    struct written *w;
    uv_buf_t b;

    if (!c->open || uv_is_closing((uv_handle_t *)&c->tcp) || !n)
        return;
    if (!c->connected) {
        buf_add(&c->early, p, n);
        hold(c, true);
        return;
    }
    w = xmalloc(sizeof(*w) + n);
    w->c = c;
    memcpy(w->data, p, n);
    b = uv_buf_init(w->data, (unsigned)n);
    if (uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written) < 0) {
        free(w);
        return;
    }
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp) > STREAM_QUEUE_MAX)
        hold(c, true);
}

static void on_connect(uv_connect_t *r, int status)
{
    struct conn *c = r->data;

    if (status == UV_ECANCELED)
        return;
    if (status < 0) {
        conn_fail(c, uv_strerror(status));
        return;
    }
    c->connected = true;
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (c->early.n)
        conn_input(c, c->early.p, c->early.n);
    buf_done(&c->early);
    hold(c, false);
    if (c->peer_ended)
        shut(c);
}

static void conn_connect(struct conn *c)
{
    struct sockaddr_in to;
    struct err err = {0};
    int fd = -1, rc;

    if (node_pod_socket(c->f->n, c->f->ns, c->f->pod, &fd, &err) < 0) {
        conn_fail(c, err.msg);
        return;
    }
    uv_tcp_init(c->f->loop, &c->tcp);
    c->tcp.data = c;
    c->open = true;
    c->f->handles++;
    c->connect.data = c;
    uv_ip4_addr("127.0.0.1", c->port, &to);
    rc = uv_tcp_open(&c->tcp, fd);
    if (rc < 0)
        close(fd);
    else
        rc = uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&to, on_connect);
    if (rc < 0)
        conn_fail(c, uv_strerror(rc));
}

static struct conn *conn_new(struct forward *f, const char *id, int port)
{
    struct conn *c = xcalloc(1, sizeof(*c));

    c->f = f;
    c->port = port;
    c->channel = -1;
    snprintf(c->id, sizeof(c->id), "%s", id);
    list_push(&f->conns, &c->link);
    f->n_conns++;
    return c;
}

static int port_parse(const char *text)
{
    char *end;
    long v = text ? strtol(text, &end, 10) : 0;

    return v >= 1 && v <= 65535 && !*end ? (int)v : -1;
}

/* --- SPDY --- */

static void data_in(struct spdy_stream *st, const char *data, size_t n, void *arg)
{
    (void)st;
    conn_input(arg, data, n);
}

static void data_end(struct spdy_stream *st, void *arg)
{
    struct conn *c = arg;

    (void)st;
    c->peer_ended = true;
    if (c->connected && c->open && !uv_is_closing((uv_handle_t *)&c->tcp))
        shut(c);
}

static void data_drain(struct spdy_stream *st, void *arg)
{
    (void)st;
    drained(arg);
}

static void data_close(struct spdy_stream *st, void *arg)
{
    struct conn *c = arg;

    (void)st;
    c->data = NULL;
    if (c->error)
        spdy_end(c->error);
    tcp_close(c);
    conn_unref(c);
}

static void error_close(struct spdy_stream *st, void *arg)
{
    struct conn *c = arg;

    (void)st;
    c->error = NULL;
    conn_unref(c);
}

static void on_stream(struct spdy_stream *st, void *arg)
{
    struct forward *f = arg;
    const char *type = spdy_stream_get(st, "streamtype"), *id = spdy_stream_get(st, "requestid");
    int port = port_parse(spdy_stream_get(st, "port"));
    bool data = type && streq(type, "data");
    struct conn *c = NULL;
    char own[32];

    if (!type || port < 0 || (!data && !streq(type, "error"))) {
        spdy_reset(st, 1);
        return;
    }
    if (!id) { /* old clients: the error stream comes first, the data stream two later */
        snprintf(own, sizeof(own), "%u", data ? spdy_stream_id(st) - 2 : spdy_stream_id(st));
        id = own;
    }
    LIST_EACH(&f->conns, it) {
        struct conn *x = list_entry(it, struct conn, link);

        if (streq(x->id, id) && x->port == port && (data ? !x->data : !x->error) && !x->open)
            c = x;
    }
    if (!c) {
        if (f->n_conns >= CONNS_MAX) {
            spdy_reset(st, 3); /* REFUSED_STREAM */
            return;
        }
        c = conn_new(f, id, port);
    }
    if (data)
        c->data = st;
    else
        c->error = st;
    spdy_stream_on(st, data ? &(struct spdy_stream_opts){data_in, data_end, data_drain, data_close, c}
                            : &(struct spdy_stream_opts){NULL, NULL, NULL, error_close, c});
    spdy_reply(st);
    if (c->data && c->error)
        conn_connect(c);
}

static void all_closed(struct forward *f)
{
    f->over = true;
    f->handles++; /* f stays to the end of this */
    LIST_EACH(&f->conns, it) {
        struct conn *c = list_entry(it, struct conn, link);

        if (c->channel >= 0)
            f->by_channel[c->channel] = NULL;
        tcp_close(c);
        conn_unref(c);
    }
    f->handles--;
    forward_unref(f);
}

static void on_spdy_close(struct spdy *s, void *arg)
{
    struct forward *f = arg;

    (void)s;
    f->spdy = NULL;
    all_closed(f);
}

/* --- WebSocket channels --- */

static void on_message(struct ws *ws, enum ws_type type, const char *data, size_t n, void *arg)
{
    struct forward *f = arg;
    int channel = n ? (uint8_t)data[0] : -1;

    (void)ws;
    (void)type;
    if (channel >= 0 && channel < 2 * WS_PORTS_MAX && channel % 2 == 0 && f->by_channel[channel / 2])
        conn_input(f->by_channel[channel / 2], data + 1, n - 1);
}

static void on_ws_drain(struct ws *ws, void *arg)
{
    struct forward *f = arg;

    (void)ws;
    LIST_EACH(&f->conns, it)
        drained(list_entry(it, struct conn, link));
}

static void on_ws_close(struct ws *ws, int code, void *arg)
{
    struct forward *f = arg;

    (void)ws;
    (void)code;
    f->ws = NULL;
    all_closed(f);
}

static void ws_ports(struct forward *f, const int *ports, int n)
{
    for (int i = 0; i < n; i++) {
        uint8_t number[2] = {(uint8_t)ports[i], (uint8_t)(ports[i] >> 8)};
        struct conn *c = conn_new(f, "", ports[i]);

        c->channel = i;
        f->by_channel[i] = c;
        ws_send_channel(f->ws, (uint8_t)(2 * i), number, 2);
        ws_send_channel(f->ws, (uint8_t)(2 * i + 1), number, 2);
    }
    for (int i = 0; i < n; i++)
        conn_connect(f->by_channel[i]);
    ws_done(f); /* none of them could even begin */
}

/* --- the request --- */

static int query_ports(struct http_req *req, int *ports)
{
    const char *name, *value;
    int n = 0;

    for (size_t i = 0; http_param_next(req, &i, &name, &value);) {
        _auto_(freep) char *list = NULL;
        char *rest, *one;

        if (!streq(name, "ports") && !streq(name, "port"))
            continue;
        rest = list = xstrdup(value);
        while ((one = strsep(&rest, ",")))
            if (n == WS_PORTS_MAX || (ports[n++] = port_parse(one)) < 0)
                return -1;
    }
    return n;
}

void stream_port_forward(struct node *n, struct http_req *req, const char *ns, const char *pod)
{
    static const char *const spdy_protocols[] = {"portforward.k8s.io", NULL};
    static const char *const tunnel[] = {"SPDY/3.1+portforward.k8s.io", NULL};
    static const char *const channels[] = {"v4.channel.k8s.io", NULL};
    bool spdy = spdy_wanted(req), ws = ws_wanted(req), inside = ws && ws_pick(req, tunnel);
    int ports[WS_PORTS_MAX], n_ports = 0, probe = -1;
    struct spdy_opts so = {.on_stream = on_stream, .on_close = on_spdy_close};
    struct err err = {0};
    struct forward *f;

    if (!spdy && !ws) {
        stream_refuse(req, 400, "BadRequest", "Upgrade request required");
        return;
    }
    if (node_pod_socket(n, ns, pod, &probe, &err) < 0) { /* is it here, and running? */
        stream_refuse_err(req, &err);
        return;
    }
    close(probe);
    if (ws && !inside && (n_ports = query_ports(req, ports)) <= 0) {
        stream_refuse(req, 400, "BadRequest", "query parameter \"ports\" is required, with ports from 1 to 65535");
        return;
    }
    f = xcalloc(1, sizeof(*f));
    f->n = n;
    f->ns = xstrdup(ns);
    f->pod = xstrdup(pod);
    f->loop = http_server_loop(req->server);
    list_init(&f->conns);
    so.arg = f;
    if (inside)
        f->spdy = spdy_accept_ws(req, tunnel[0], &so, &err);
    else if (spdy)
        f->spdy = spdy_accept(req, spdy_pick(req, spdy_protocols), &so, &err);
    else
        f->ws = ws_accept(req, ws_pick(req, channels),
                          &(struct ws_opts){.ping_ms = 30000, .on_message = on_message, .on_drain = on_ws_drain, .on_close = on_ws_close, .arg = f}, &err);
    if (!f->spdy && !f->ws) {
        stream_refuse_err(req, &err);
        f->over = true;
        forward_unref(f);
        return;
    }
    if (f->ws)
        ws_ports(f, ports, n_ports);
}
