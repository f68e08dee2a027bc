/* The way to a function's debugger: a port of the loopback, open as long as the one who asked for it listens to the answer.
 *
 * GET /debug/NS/NAME?port=N on the admin socket, which only its owner can open. The first line of the answer is
 * {"host","port","token","runtime"}; it comes when the debugger listens, or {"error"} and the end. Each connection to
 * the port is carried, byte for byte, over one that was made inside the sandbox (function/debug.c); editors want a TCP port, and
 * the loopback is everybody's, so it is asked whose socket it is: root's and uid's (&uid=N) are served, others closed. When the answer's reader
 * goes, or the gateway, the port is closed and the instance ends. */
#include "gateway/gateway_int.h"

#include "base/list.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/obj.h"

#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

enum { LINKS_MAX = 16, DIAL_MS = 100, DIALS_MAX = 300, QUEUE_BYTES = 256 << 10, CHUNK = 64 << 10 };

struct session {
    struct list link; /* gateway.debugs */
    struct gateway *g;
    struct http_req *req; /* NULL: it has gone */
    char *ns, *name;
    char token[FUNCTION_TOKEN_MAX];
    uv_tcp_t listener;
    uv_timer_t timer;
    struct list links;
    int links_n, refs; /* refs: handles, and dials under way */
    unsigned uid;         /* who may connect, beside root */
    int tries, first;  /* first: a connection that was made to see whether it listens, for who comes first; -1: none */
    bool over;
};

/* Two sockets, and what is read of one is written to the other. */
struct end {
    uv_tcp_t tcp;
    struct pair *pair;
    struct end *other;
    bool reads;
};
struct pair {
    struct list link;
    struct session *s;
    struct end out, in; /* who debugs; the debugger */
    int handles; /* and the dial, while it goes on */
    bool in_open, closing;
};

static void session_unref(struct session *s)
{
    if (--s->refs)
        return;
    closep(&s->first);
    free(s->ns);
    free(s->name);
    free(s);
}

/* ---- bytes both ways ---- */

static void on_end_closed(uv_handle_t *h)
{
    struct pair *p = ((struct end *)h->data)->pair;
    struct session *s = p->s;

    if (--p->handles)
        return;
    list_remove(&p->link);
    s->links_n--;
    free(p);
    session_unref(s);
}

static void pair_close(struct pair *p)
{
    if (p->closing)
        return;
    p->closing = true;
    uv_close((uv_handle_t *)&p->out.tcp, on_end_closed);
    if (p->in_open)
        uv_close((uv_handle_t *)&p->in.tcp, on_end_closed);
}

static void on_room(uv_handle_t *h, size_t size, uv_buf_t *ret)
{
    (void)h;
    *ret = uv_buf_init(xmalloc(MIN(size, (size_t)CHUNK)), (unsigned)MIN(size, (size_t)CHUNK));
}

static void on_read(uv_stream_t *from, ssize_t n, const uv_buf_t *buf);

struct chunk {
    uv_write_t w;
    struct end *to;
    char *p;
};

static void on_written(uv_write_t *w, int status)
{
    struct chunk *c = w->data;
    struct end *from = c->to->other;
    struct pair *p = c->to->pair;

    free(c->p);
    free(c);
    if (p->closing)
        return;
    if (status < 0)
        pair_close(p);
    else if (!from->reads && uv_stream_get_write_queue_size((uv_stream_t *)&from->other->tcp) < QUEUE_BYTES / 2)
        from->reads = uv_read_start((uv_stream_t *)&from->tcp, on_room, on_read) == 0;
}

static void on_read(uv_stream_t *from, ssize_t n, const uv_buf_t *buf)
{
    struct end *e = from->data;
    struct chunk *c;
    uv_buf_t b;

    if (n <= 0) {
        free(buf->base);
        if (n < 0)
            pair_close(e->pair); /* one side's end is the end: debuggers do not half-close */
        return;
    }
    c = xcalloc(1, sizeof *c);
    *c = (struct chunk){.to = e->other, .p = buf->base, .w.data = c};
    b = uv_buf_init(buf->base, (unsigned)n);
    if (uv_write(&c->w, (uv_stream_t *)&e->other->tcp, &b, 1, on_written) < 0) {
        free(c->p);
        free(c);
        pair_close(e->pair);
        return;
    }
    if (uv_stream_get_write_queue_size((uv_stream_t *)&e->other->tcp) > QUEUE_BYTES) { /* who is slow holds the other back */
        uv_read_stop(from);
        e->reads = false;
    }
}

/* fd: ours; -1: there is no debugger. */
static void on_inside(void *arg, int fd)
{
    struct pair *p = arg;
    struct end *ends[] = {&p->out, &p->in};

    if (!p->closing && fd >= 0) {
        uv_tcp_init(&p->s->g->loop, &p->in.tcp);
        p->in.tcp.data = &p->in;
        p->handles++;
        p->in_open = true;
        if (uv_tcp_open(&p->in.tcp, fd) == 0)
            fd = -1;
        for (size_t i = 0; i < 2 && fd < 0; i++) {
            uv_tcp_nodelay(&ends[i]->tcp, 1);
            ends[i]->reads = uv_read_start((uv_stream_t *)&ends[i]->tcp, on_room, on_read) == 0;
        }
        if (fd >= 0 || !p->in.reads || !p->out.reads)
            pair_close(p);
    } else {
        pair_close(p);
    }
    closep(&fd);
    p->handles--; /* the dial's */
    if (!p->handles) {
        p->handles = 1;
        on_end_closed((uv_handle_t *)&p->out.tcp);
    }
}

/* Does the other end belong to who may connect? The kernel's table of sockets says whose each is; of one that was closed it says
 * root's, whoever it was, so who says what he has to say and leaves at once is nobody. */
static bool is_his(const struct session *s, const uv_tcp_t *tcp)
{
    struct sockaddr_in us, them;
    int n = sizeof us, m = sizeof them;
    bool found = false;
    unsigned uid = 0;
    char line[512];
    FILE *f;

    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&us, &n) < 0 || uv_tcp_getpeername(tcp, (struct sockaddr *)&them, &m) < 0)
        return false;
    f = fopen("/proc/net/tcp", "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        unsigned from, from_port, to, to_port, state;

        found = sscanf(line, " %*u: %x:%x %x:%x %x %*x:%*x %*x:%*x %*x %u", &from, &from_port, &to, &to_port, &state, &uid) == 6 &&
                state == TCP_ESTABLISHED && from == them.sin_addr.s_addr && from_port == ntohs(them.sin_port) && to == us.sin_addr.s_addr && to_port == ntohs(us.sin_port);
    }
    if (f)
        fclose(f);
    return found && (uid == 0 || uid == s->uid);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct session *s = listener->data;
    struct pair *p = xcalloc(1, sizeof *p);
    int first = s->first;

    p->s = s;
    p->out = (struct end){.pair = p, .other = &p->in};
    p->in = (struct end){.pair = p, .other = &p->out};
    list_push(&s->links, &p->link);
    s->links_n++;
    s->refs++;
    p->handles = 1;
    uv_tcp_init(&s->g->loop, &p->out.tcp);
    p->out.tcp.data = &p->out;
    if (status < 0 || uv_accept(listener, (uv_stream_t *)&p->out.tcp) < 0 || s->over || s->links_n > LINKS_MAX || !is_his(s, &p->out.tcp)) {
        pair_close(p);
        return;
    }
    p->handles++; /* the dial's */
    s->first = -1;
    if (first >= 0)
        on_inside(p, first);
    else
        functions_debug_dial(s->g->functions, s->ns, s->name, on_inside, p);
}

/* ---- the session ---- */

static void on_closed(uv_handle_t *h)
{
    session_unref(h->data);
}

static void session_end(struct session *s)
{
    if (s->over)
        return;
    s->over = true;
    list_remove(&s->link);
    LOG(INFO, "gateway", "function=%s/%s did=debug-end", s->ns, s->name);
    functions_debug_end(s->g->functions, s->ns, s->name);
    LIST_EACH(&s->links, l)
    pair_close(list_entry(l, struct pair, link));
    uv_close((uv_handle_t *)&s->listener, on_closed);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}

static void say_line(struct session *s, struct val *v)
{
    size_t n;
    char *text = json_text(s->req->arena, v, &n);

    http_write(s->req, text, n);
    http_write(s->req, "\n", 1);
}

static void on_gone(struct http_req *req, void *arg)
{
    struct session *s = arg;

    s->req = NULL;
    session_end(s);
    http_abort(req);
}

static void fail(struct session *s, const char *why)
{
    struct http_req *req = s->req;
    struct val *v = val_map(req->arena);

    val_put_str(req->arena, v, "error", why);
    say_line(s, v);
    s->req = NULL;
    session_end(s);
    http_end(req);
}

static void on_timer(uv_timer_t *t);

/* The first one is kept: now somebody listens in there. */
static void on_first(void *arg, int fd)
{
    struct session *s = arg;
    struct sockaddr_in at;
    int n = sizeof at;

    if (s->over) {
        closep(&fd);
    } else if (fd < 0 && ++s->tries >= DIALS_MAX) {
        fail(s, "the debugger does not listen; tandem logs may tell why");
    } else if (fd < 0) {
        uv_timer_start(&s->timer, on_timer, DIAL_MS, 0);
    } else {
        struct arena *a = s->req->arena;
        const struct obj *o = functions_get(s->g->functions, s->ns, s->name);
        struct val *v = val_map(a);

        s->first = fd;
        uv_tcp_getsockname(&s->listener, (struct sockaddr *)&at, &n);
        val_put_str(a, v, "host", "127.0.0.1");
        val_put_int(a, v, "port", ntohs(at.sin_port));
        val_put_str(a, v, "token", s->token);
        val_put_str(a, v, "runtime", o ? val_str_at(obj_val(o), "spec.runtime", "") : "");
        say_line(s, v);
        LOG(INFO, "gateway", "function=%s/%s did=debug port=%d", s->ns, s->name, ntohs(at.sin_port));
    }
    session_unref(s);
}

static void on_timer(uv_timer_t *t)
{
    struct session *s = t->data;

    s->refs++;
    functions_debug_dial(s->g->functions, s->ns, s->name, on_first, s);
}

static int open_port(struct session *s, int port, struct err *err)
{
    struct sockaddr_in at;
    int rc;

    uv_ip4_addr("127.0.0.1", port, &at);
    rc = uv_tcp_bind(&s->listener, (struct sockaddr *)&at, 0);
    rc = rc ? rc : uv_listen((uv_stream_t *)&s->listener, 16, on_connection);
    return rc ? err_set(err, UNAVAILABLE, "127.0.0.1:%d: %s", port, uv_strerror(rc)) : 0;
}

void debug_request(struct gateway *g, struct http_req *req, const char *ns, const char *name)
{
    const char *port = http_param(req, "port"), *uid = http_param(req, "uid");
    struct session *s = xcalloc(1, sizeof *s);
    struct err err;

    *s = (struct session){.g = g, .ns = xstrdup(ns), .name = xstrdup(name), .refs = 2, .first = -1,
                          .uid = uid ? (unsigned)strtoul(uid, NULL, 10) : 0};
    list_init(&s->links);
    uv_tcp_init(&g->loop, &s->listener);
    uv_timer_init(&g->loop, &s->timer);
    s->listener.data = s->timer.data = s;
    if (open_port(s, port ? atoi(port) : 0, &err) < 0 || functions_debug_begin(g->functions, ns, name, s->token, &err) < 0) {
        struct val *v = val_map(req->arena);

        s->over = true;
        uv_close((uv_handle_t *)&s->listener, on_closed);
        uv_close((uv_handle_t *)&s->timer, on_closed);
        val_put_str(req->arena, v, "message", err.msg);
        http_reply_str(req, err_http(err.code), "application/json", json_text(req->arena, v, NULL));
        return;
    }
    s->req = req;
    list_push(&g->debugs, &s->link);
    http_on_close(req, on_gone, s);
    http_start(req, 200, -1);
    on_timer(&s->timer);
}

void debug_stop(struct gateway *g)
{
    LIST_EACH(&g->debugs, l)
    fail(list_entry(l, struct session, link), "tandem is stopping");
}
