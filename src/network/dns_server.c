/* Sockets of the DNS server: questions over UDP and TCP, and what is not ours handed upstream.
 *
 * A question for somebody else goes, with an id of our own, from a fresh socket (a fresh port) to
 * one upstream after the other until one answers; over UDP when it came by UDP (a cut answer is
 * handed on as it is: the asker comes again by TCP), over TCP when it came by TCP. */
#include "network/dns_int.h"

#include "base/list.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <uv.h>

enum { UPSTREAMS_MAX = 4, CLIENTS_MAX = 256, ASKED_MAX = 1024, TRY_MS = 2000, TRIES = 4, IDLE_MS = 10000 };

struct dns_server {
    struct dns *d;
    uv_loop_t *loop;
    uv_udp_t udp;
    uv_tcp_t tcp;
    char udp_in[4096];
    struct list clients, asked;
    uint32_t n_clients, n_asked, handles;
    bool stopping, fixed; /* fixed: upstreams were given, else /etc/resolv.conf */
    struct sockaddr_in upstream[UPSTREAMS_MAX];
    int n_upstreams;
    struct timespec resolv_mtime;
    int64_t resolv_looked_ms;
    struct sockaddr_in own;
};

struct client { /* a TCP connection */
    struct dns_server *s;
    struct list link;
    uv_tcp_t tcp;
    uv_timer_t idle;
    struct buf in;
    int handles, waiting;
    bool closing;
};

struct asked { /* a question on its way upstream */
    struct dns_server *s;
    struct list link;
    union {
        uv_handle_t handle;
        uv_udp_t udp;
        uv_tcp_t tcp;
    };
    uv_connect_t connect;
    uv_write_t write;
    uv_timer_t timer;
    int handles, tries;
    bool closing, by_tcp, open;
    struct client *client; /* NULL: by UDP */
    struct sockaddr_storage from;
    struct buf query, in; /* the asker's; in: what came by TCP */
    struct buf ours;      /* what we send, with the length in front for TCP */
    struct buf reply;     /* a reply that the answer is merged into (a CNAME), or empty */
    uint16_t id;
    char scratch[65537];
};

struct sent { /* a reply on its way */
    union {
        uv_udp_send_t udp;
        uv_write_t tcp;
    };
    char *p;
};

static void server_unhandle(struct dns_server *s)
{
    if (--s->handles == 0 && s->stopping) {
        dns_free_now(s->d);
        free(s);
    }
}

/* --- replies --- */

static void udp_sent(uv_udp_send_t *r, int status)
{
    struct sent *x = (struct sent *)r;

    (void)status;
    free(x->p);
    free(x);
}

static void tcp_sent(uv_write_t *r, int status)
{
    struct sent *x = (struct sent *)r;

    (void)status;
    free(x->p);
    free(x);
}

static void reply_udp(struct dns_server *s, const struct sockaddr *to, struct buf *reply)
{
    struct sent *x = xcalloc(1, sizeof(*x));
    uv_buf_t b;

    b.len = reply->n;
    b.base = x->p = buf_take(reply);
    if (uv_udp_send(&x->udp, &s->udp, &b, 1, to, udp_sent) < 0) {
        free(x->p);
        free(x);
    }
}

static void reply_tcp(struct client *c, struct buf *reply)
{
    struct sent *x;
    uv_buf_t b;

    if (c->closing) {
        buf_done(reply);
        return;
    }
    x = xcalloc(1, sizeof(*x));
    x->p = xmalloc(reply->n + 2);
    x->p[0] = (char)(reply->n >> 8);
    x->p[1] = (char)reply->n;
    memcpy(x->p + 2, reply->p, reply->n);
    b = uv_buf_init(x->p, (unsigned)(reply->n + 2));
    buf_done(reply);
    if (uv_write(&x->tcp, (uv_stream_t *)&c->tcp, &b, 1, tcp_sent) < 0) {
        free(x->p);
        free(x);
    }
}

/* --- upstream --- */

static int64_t now_ms(struct dns_server *s)
{
    return (int64_t)uv_now(s->loop);
}

static void resolv_read(struct dns_server *s)
{
    struct stat st;
    char line[256], ip[64];
    FILE *f;

    if (s->fixed || (s->resolv_looked_ms && now_ms(s) - s->resolv_looked_ms < 5000))
        return;
    s->resolv_looked_ms = now_ms(s) + 1;
    if (stat("/etc/resolv.conf", &st) < 0 || (st.st_mtim.tv_sec == s->resolv_mtime.tv_sec &&
                                              st.st_mtim.tv_nsec == s->resolv_mtime.tv_nsec))
        return;
    f = fopen("/etc/resolv.conf", "re");
    if (!f)
        return;
    s->resolv_mtime = st.st_mtim;
    s->n_upstreams = 0;
    while (fgets(line, sizeof(line), f) && s->n_upstreams < UPSTREAMS_MAX) {
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(53)};

        if (sscanf(line, " nameserver %63s", ip) == 1 && inet_pton(AF_INET, ip, &sa.sin_addr) == 1 &&
            sa.sin_addr.s_addr != s->own.sin_addr.s_addr) /* never ourselves */
            s->upstream[s->n_upstreams++] = sa;
    }
    fclose(f);
}

static void asked_free(uv_handle_t *h)
{
    struct asked *q = h->data;
    struct dns_server *s = q->s;

    if (--q->handles)
        return;
    buf_done(&q->query);
    buf_done(&q->in);
    buf_done(&q->ours);
    buf_done(&q->reply);
    free(q);
    server_unhandle(s);
}

static void socket_closed(uv_handle_t *h);

static void asked_end(struct asked *q)
{
    if (q->closing)
        return;
    q->closing = true;
    list_remove(&q->link);
    q->s->n_asked--;
    if (q->client)
        q->client->waiting--;
    uv_close((uv_handle_t *)&q->timer, asked_free);
    if (q->open)
        uv_close(&q->handle, asked_free);
    q->open = false;
}

static void asked_answer(struct asked *q, struct buf *reply)
{
    if (q->client)
        reply_tcp(q->client, reply);
    else
        reply_udp(q->s, (struct sockaddr *)&q->from, reply);
    asked_end(q);
}

static void asked_try(struct asked *q);

/* An answer of an upstream: ours to check, then the asker's. */
static void asked_got(struct asked *q, const uint8_t *p, size_t n)
{
    char ours[DNS_NAME_MAX + 1], theirs[DNS_NAME_MAX + 1];
    const uint8_t *sent = (uint8_t *)q->ours.p + (q->by_tcp ? 2 : 0);
    size_t sent_n = q->ours.n - (q->by_tcp ? 2 : 0);
    struct buf reply = {0};

    if (n < 12 || (uint16_t)(p[0] << 8 | p[1]) != q->id || !(p[2] & 0x80))
        return;
    if (p[4] == 0 && p[5] == 1 && (dns_name_read(p, n, 12, theirs) < 0 || dns_name_read(sent, sent_n, 12, ours) < 0 ||
                                   !streq(ours, theirs)))
        return;
    if (((p[3] & 15) == 2 || (p[3] & 15) == 5) && q->tries < TRIES && q->tries < q->s->n_upstreams) {
        asked_try(q); /* it fails or refuses: perhaps the next one knows */
        return;
    }
    if (q->reply.n) {
        dns_merge(p, n, &q->reply);
        reply = q->reply;
        q->reply = (struct buf){0};
    } else {
        buf_add(&reply, p, n);
        memcpy(reply.p, q->query.p, 2);
    }
    asked_answer(q, &reply);
}

static void no_answer(struct asked *q)
{
    struct buf reply = {0};

    dns_refuse((uint8_t *)q->query.p, q->query.n, 2, &reply);
    asked_answer(q, &reply);
}

static void on_timer(uv_timer_t *t)
{
    asked_try(t->data);
}

static void up_alloc(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    struct asked *q = h->data;

    (void)n;
    *ret = uv_buf_init(q->scratch, sizeof(q->scratch));
}

static void up_udp(uv_udp_t *h, ssize_t n, const uv_buf_t *b, const struct sockaddr *from, unsigned flags)
{
    struct asked *q = h->data;

    (void)flags;
    (void)from; /* the socket is connected: only the upstream is heard */
    if (n > 0)
        asked_got(q, (const uint8_t *)b->base, (size_t)n);
    else if (n < 0)
        asked_try(q); /* refused: nobody listens there */
}

static void up_tcp_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct asked *q = h->data;
    size_t len;

    if (n < 0) {
        if (!q->closing)
            asked_try(q);
        return;
    }
    buf_add(&q->in, b->base, (size_t)n);
    if (q->in.n < 2)
        return;
    len = (size_t)((uint8_t)q->in.p[0] << 8 | (uint8_t)q->in.p[1]);
    if (q->in.n >= len + 2)
        asked_got(q, (uint8_t *)q->in.p + 2, len);
}

static void up_connected(uv_connect_t *r, int status)
{
    struct asked *q = r->data;
    uv_buf_t b = uv_buf_init(q->ours.p, (unsigned)q->ours.n);

    if (status == UV_ECANCELED || q->closing)
        return;
    if (status < 0 || uv_write(&q->write, (uv_stream_t *)&q->tcp, &b, 1, NULL) < 0 ||
        uv_read_start((uv_stream_t *)&q->tcp, up_alloc, up_tcp_read) < 0)
        asked_try(q);
}

/* The socket of the last try is closed; the next try opens another one when that is done. */
static void socket_closed(uv_handle_t *h)
{
    struct asked *q = h->data;

    if (q->closing) {
        asked_free(h);
        return;
    }
    q->handles--;
    asked_try(q);
}

static void asked_try(struct asked *q)
{
    struct dns_server *s = q->s;
    const struct sockaddr *to;
    uv_buf_t b;

    if (q->closing)
        return;
    if (q->open) {
        q->open = false;
        uv_timer_stop(&q->timer);
        uv_close(&q->handle, socket_closed);
        return;
    }
    if (q->tries >= TRIES || !s->n_upstreams) {
        no_answer(q);
        return;
    }
    to = (const struct sockaddr *)&s->upstream[q->tries++ % s->n_upstreams];
    if (getrandom(&q->id, sizeof(q->id), GRND_NONBLOCK) < 0)
        q->id = (uint16_t)uv_hrtime();
    q->ours.p[q->by_tcp ? 2 : 0] = (char)(q->id >> 8);
    q->ours.p[q->by_tcp ? 3 : 1] = (char)q->id;
    buf_reset(&q->in);
    q->handle.data = q;
    b = uv_buf_init(q->ours.p, (unsigned)q->ours.n);
    uv_timer_start(&q->timer, on_timer, TRY_MS, 0);
    if (q->by_tcp ? uv_tcp_init(s->loop, &q->tcp) : uv_udp_init(s->loop, &q->udp))
        return; /* the timer tries again */
    q->handle.data = q;
    q->handles++;
    q->open = true;
    if (q->by_tcp) {
        q->connect.data = q;
        if (uv_tcp_connect(&q->connect, &q->tcp, to, up_connected) < 0)
            asked_try(q);
    } else if (uv_udp_connect(&q->udp, to) < 0 || uv_udp_recv_start(&q->udp, up_alloc, up_udp) < 0 ||
               uv_udp_try_send(&q->udp, &b, 1, NULL) < 0) {
        asked_try(q); /* no way there: closes this socket, then the next one */
    }
}

/* reply: NULL, or ours that ends in a CNAME to be followed (handed over). */
static void ask(struct dns_server *s, struct client *c, const struct sockaddr *from, const uint8_t *query, size_t n,
                struct buf *reply)
{
    char name[DNS_NAME_MAX + 1];
    struct buf bare = {0};
    struct asked *q;
    uint16_t type;

    resolv_read(s);
    if (s->n_asked >= ASKED_MAX || !s->n_upstreams) {
        struct buf no = {0};

        if (reply)
            buf_done(reply);
        dns_refuse(query, n, 2, &no);
        if (c)
            reply_tcp(c, &no);
        else
            reply_udp(s, from, &no);
        return;
    }
    q = xcalloc(1, sizeof(*q));
    q->s = s;
    q->client = c;
    q->by_tcp = c != NULL;
    if (c)
        c->waiting++;
    else
        memcpy(&q->from, from, sizeof(struct sockaddr_in));
    buf_add(&q->query, query, n);
    if (reply) {
        q->reply = *reply;
        ASSERT(dns_chases(s->d, query, n, name, &type));
        dns_query_write(name, type, 0, &bare);
    } else {
        buf_add(&bare, query, n);
    }
    if (q->by_tcp) {
        buf_addc(&q->ours, (char)(bare.n >> 8));
        buf_addc(&q->ours, (char)bare.n);
    }
    buf_add(&q->ours, bare.p, bare.n);
    buf_done(&bare);
    uv_timer_init(s->loop, &q->timer);
    q->timer.data = q;
    q->handles = 1;
    s->handles++;
    s->n_asked++;
    list_push(&s->asked, &q->link);
    asked_try(q);
}

/* --- questions --- */

static void question(struct dns_server *s, struct client *c, const struct sockaddr *from, const uint8_t *p, size_t n)
{
    char name[DNS_NAME_MAX + 1];
    struct buf reply = {0};
    uint16_t type;
    int rc = dns_answer(s->d, p, n, c ? 0 : DNS_UDP_MAX, &reply);

    if (rc < 0) {
        buf_done(&reply);
    } else if (rc == 0) {
        buf_done(&reply);
        ask(s, c, from, p, n, NULL);
    } else if (dns_chases(s->d, p, n, name, &type)) {
        ask(s, c, from, p, n, &reply);
    } else if (c) {
        reply_tcp(c, &reply);
    } else {
        reply_udp(s, from, &reply);
    }
}

static void udp_alloc(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    struct dns_server *s = h->data;

    (void)n;
    *ret = uv_buf_init(s->udp_in, sizeof(s->udp_in));
}

static void on_udp(uv_udp_t *h, ssize_t n, const uv_buf_t *b, const struct sockaddr *from, unsigned flags)
{
    if (n > 0 && from && from->sa_family == AF_INET && !(flags & UV_UDP_PARTIAL))
        question(h->data, NULL, from, (const uint8_t *)b->base, (size_t)n);
}

static void client_closed(uv_handle_t *h)
{
    struct client *c = h->data;
    struct dns_server *s = c->s;

    if (--c->handles)
        return;
    buf_done(&c->in);
    free(c);
    server_unhandle(s);
}

static void client_end(struct client *c)
{
    if (c->closing)
        return;
    c->closing = true;
    LIST_EACH(&c->s->asked, it) {
        struct asked *q = list_entry(it, struct asked, link);

        if (q->client == c)
            asked_end(q);
    }
    list_remove(&c->link);
    c->s->n_clients--;
    uv_close((uv_handle_t *)&c->tcp, client_closed);
    uv_close((uv_handle_t *)&c->idle, client_closed);
}

static void client_idle(uv_timer_t *t)
{
    client_end(t->data);
}

static void tcp_alloc(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    struct client *c = h->data;

    (void)n;
    *ret = buf_reserve(&c->in, 4096) ? uv_buf_init(c->in.p + c->in.n, 4096) : uv_buf_init(NULL, 0);
}

static void on_tcp(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct client *c = h->data;

    (void)b;
    if (n < 0) {
        client_end(c);
        return;
    }
    c->in.n += (size_t)n;
    uv_timer_again(&c->idle);
    while (!c->closing && c->in.n >= 2) {
        size_t len = (size_t)((uint8_t)c->in.p[0] << 8 | (uint8_t)c->in.p[1]);

        if (len < 12) {
            client_end(c);
            return;
        }
        if (c->in.n < len + 2)
            break;
        if (c->waiting < 64)
            question(c->s, c, NULL, (uint8_t *)c->in.p + 2, len);
        buf_eat(&c->in, len + 2);
    }
}

static void on_connection(uv_stream_t *l, int status)
{
    struct dns_server *s = l->data;
    struct client *c;

    if (status < 0)
        return;
    c = xcalloc(1, sizeof(*c));
    c->s = s;
    buf_init(&c->in, DNS_TCP_MAX + 2 + 4096);
    uv_tcp_init(s->loop, &c->tcp);
    uv_timer_init(s->loop, &c->idle);
    c->tcp.data = c->idle.data = c;
    c->handles = 2;
    s->handles++;
    s->n_clients++;
    list_push(&s->clients, &c->link);
    if (uv_accept(l, (uv_stream_t *)&c->tcp) < 0 || s->n_clients > CLIENTS_MAX) {
        client_end(c);
        return;
    }
    uv_timer_start(&c->idle, client_idle, IDLE_MS, IDLE_MS);
    uv_read_start((uv_stream_t *)&c->tcp, tcp_alloc, on_tcp);
}

/* --- start and stop --- */

static int upstreams_set(struct dns_server *s, const char *const *v, struct err *err)
{
    for (; v && *v && s->n_upstreams < UPSTREAMS_MAX; v++) {
        struct sockaddr_in sa = {.sin_family = AF_INET};
        const char *colon = strchr(*v, ':');
        char ip[32];

        snprintf(ip, sizeof(ip), "%.*s", colon ? (int)(colon - *v) : 31, *v);
        sa.sin_port = htons(colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 53);
        if (inet_pton(AF_INET, ip, &sa.sin_addr) != 1)
            return err_set(err, INVALID_ARGUMENT, "\"%.60s\" is no address of a DNS server", *v);
        s->upstream[s->n_upstreams++] = sa;
    }
    s->fixed = v != NULL;
    return 0;
}

static void own_closed(uv_handle_t *h)
{
    server_unhandle(h->data);
}

void dns_server_stop(struct dns_server *s)
{
    s->stopping = true;
    LIST_EACH(&s->clients, c)
        client_end(list_entry(c, struct client, link));
    LIST_EACH(&s->asked, q)
        asked_end(list_entry(q, struct asked, link));
    uv_close((uv_handle_t *)&s->udp, own_closed);
    uv_close((uv_handle_t *)&s->tcp, own_closed);
}

struct dns_server *dns_server_start(struct dns *d, const struct dns_options *o, struct err *err)
{
    struct dns_server *s = xcalloc(1, sizeof(*s));
    int rc;

    s->d = d;
    s->loop = o->loop;
    list_init(&s->clients);
    list_init(&s->asked);
    if (uv_ip4_addr(o->ip, o->port, &s->own) < 0) {
        err_set(err, INVALID_ARGUMENT, "\"%.60s\" is no address to serve DNS on", o->ip);
        free(s);
        return NULL;
    }
    if (upstreams_set(s, o->upstreams, err) < 0) {
        free(s);
        return NULL;
    }
    uv_udp_init(s->loop, &s->udp);
    uv_tcp_init(s->loop, &s->tcp);
    s->udp.data = s->tcp.data = s;
    s->handles = 2;
    rc = uv_udp_bind(&s->udp, (struct sockaddr *)&s->own, 0);
    if (rc == 0)
        rc = uv_tcp_bind(&s->tcp, (struct sockaddr *)&s->own, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&s->tcp, 64, on_connection);
    if (rc == 0)
        rc = uv_udp_recv_start(&s->udp, udp_alloc, on_udp);
    if (rc < 0) {
        err_set(err, UNAVAILABLE, "serve DNS on %s:%u: %s", o->ip, o->port, uv_strerror(rc));
        /* the handles need a turn of the loop to close: an empty server of its own frees itself then */
        s->d = xcalloc(1, sizeof(*s->d));
        dns_server_stop(s);
        return NULL;
    }
    return s;
}
