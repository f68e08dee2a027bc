/* Goal: names of the cluster answer as the specification says, others come from upstream, broken
 * questions harm nobody. Method: questions to dns_answer(); then real sockets with a second server
 * as the upstream. */
#include "tt.h"

#include "network/dns_int.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <uv.h>

enum { T_A = 1, T_CNAME = 5, T_PTR = 12, T_TXT = 16, T_AAAA = 28, T_SRV = 33 };

struct got { /* a reply in words: "A 10.0.0.1 " ... */
    int rcode, n, extra, authority;
    bool tc;
    char text[4096];
};

static struct in_addr ip(const char *s)
{
    struct in_addr a;

    assert_int_equal(inet_pton(AF_INET, s, &a), 1);
    return a;
}

static void read_reply(const uint8_t *p, size_t n, struct got *g)
{
    char name[DNS_NAME_MAX + 1], target[DNS_NAME_MAX + 1], a[64];
    size_t at = 12;
    int took, n_all;

    memset(g, 0, sizeof(*g));
    assert_true(n >= 12);
    g->rcode = p[3] & 15;
    g->tc = p[2] & 2;
    g->n = p[6] << 8 | p[7];
    g->authority = p[9];
    g->extra = p[10] << 8 | p[11];
    assert_int_equal(p[5], 1);
    took = dns_name_read(p, n, at, name);
    assert_true(took > 0);
    at += (size_t)took + 4;
    n_all = g->n + g->authority + g->extra;
    for (int i = 0; i < n_all; i++) {
        took = dns_name_read(p, n, at, name);
        assert_true(took > 0 && at + (size_t)took + 10 <= n);
        at += (size_t)took;
        int type = p[at] << 8 | p[at + 1];
        size_t len = (size_t)(p[at + 8] << 8 | p[at + 9]), data = at + 10;
        assert_true(data + len <= n);
        char *end = g->text + strlen(g->text);
        size_t room = sizeof(g->text) - strlen(g->text);
        if (i < g->n && (type == T_A || type == T_AAAA))
            snprintf(end, room, "A %s ", inet_ntop(type == T_A ? AF_INET : AF_INET6, p + data, a, sizeof(a)));
        else if (i < g->n && (type == T_CNAME || type == T_PTR)) {
            assert_true(dns_name_read(p, n, data, target) > 0);
            snprintf(end, room, "%s %s ", type == T_CNAME ? "CNAME" : "PTR", target);
        } else if (i < g->n && type == T_SRV) {
            assert_true(dns_name_read(p, n, data + 6, target) > 0);
            snprintf(end, room, "SRV %d %s ", p[data + 4] << 8 | p[data + 5], target);
        } else if (i < g->n && type == T_TXT)
            snprintf(end, room, "TXT %.*s ", p[data], p + data + 1);
        at = data + len;
    }
    assert_int_equal(at, n);
}

static size_t make_query(const char *name, uint16_t type, bool edns, struct buf *b)
{
    static const uint8_t opt[] = {0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0};

    dns_query_write(name, type, 0x1234, b);
    if (edns) {
        buf_add(b, opt, sizeof(opt));
        b->p[11] = 1;
    }
    return b->n;
}

static int ask_known(struct dns *d, const char *name, uint16_t type, struct got *g)
{
    struct buf q = {0}, r = {0};
    int rc;

    make_query(name, type, false, &q);
    rc = dns_answer(d, (uint8_t *)q.p, q.n, 512, &r);
    if (rc == 1)
        read_reply((uint8_t *)r.p, r.n, g);
    buf_done(&q);
    buf_done(&r);
    return rc;
}

static struct dns *filled(const char *domain, uv_loop_t *loop, uint16_t port, const char *const *up)
{
    static const struct dns_port ports[] = {{"http", IPPROTO_TCP, 80}, {"dns", IPPROTO_UDP, 53}};
    static struct dns_host hosts[3];
    struct dns_options o = {.domain = domain, .loop = loop, .ip = "127.0.0.1", .port = port, .upstreams = up};
    struct dns_service web = {.namespace_ = "default", .name = "web", .ports = ports, .n_ports = 2};
    struct dns_service db = {.namespace_ = "default", .name = "db", .ports = ports, .n_ports = 1, .hosts = hosts, .n_hosts = 3};
    struct dns_service out = {.namespace_ = "other", .name = "out", .external_name = "web.default.svc.example.test."};
    struct dns_service in = {.namespace_ = "other", .name = "in", .external_name = "web.default.svc.cluster.local"};
    struct err err = {0};
    struct dns *d = dns_new(&o, &err);

    if (!d)
        fail_msg("%s", err.msg);
    hosts[0] = (struct dns_host){ip("10.1.0.1"), "db-0", true};
    hosts[1] = (struct dns_host){ip("10.1.0.2"), "", true};
    hosts[2] = (struct dns_host){ip("10.1.0.3"), "db-2", false};
    web.cluster_ip = ip("10.96.0.7");
    dns_set(d, &web);
    dns_set(d, &db);
    dns_set(d, &out);
    dns_set(d, &in);
    return d;
}

static void cluster_names(void **state)
{
    static const struct {
        const char *name;
        uint16_t type;
        int rcode;
        const char *text;
    } t[] = {
        {"web.default.svc.cluster.local", T_A, 0, "A 10.96.0.7 "},
        {"WEB.Default.svc.CLUSTER.local", T_A, 0, "A 10.96.0.7 "},
        {"web.default.svc.cluster.local", T_AAAA, 0, ""},
        {"web.default.svc.cluster.local", T_TXT, 0, ""},
        {"x.default.svc.cluster.local", T_A, 3, ""},
        {"web.other.svc.cluster.local", T_A, 3, ""},
        {"db-0.db.default.svc.cluster.local", T_A, 0, "A 10.1.0.1 "},
        {"10-1-0-2.db.default.svc.cluster.local", T_A, 0, "A 10.1.0.2 "},
        {"db-2.db.default.svc.cluster.local", T_A, 3, ""}, /* not ready */
        {"db-0.web.default.svc.cluster.local", T_A, 3, ""},
        {"_http._tcp.web.default.svc.cluster.local", T_SRV, 0, "SRV 80 web.default.svc.cluster.local "},
        {"_dns._udp.web.default.svc.cluster.local", T_SRV, 0, "SRV 53 web.default.svc.cluster.local "},
        {"_dns._tcp.web.default.svc.cluster.local", T_SRV, 3, ""},
        {"_http._tcp.web.default.svc.cluster.local", T_A, 0, ""},
        {"1-2-3-4.default.pod.cluster.local", T_A, 0, "A 1.2.3.4 "},
        {"1-2-3.default.pod.cluster.local", T_A, 3, ""},
        {"7.0.96.10.in-addr.arpa", T_PTR, 0, "PTR web.default.svc.cluster.local "},
        {"1.0.1.10.in-addr.arpa", T_PTR, 0, "PTR db-0.db.default.svc.cluster.local "},
        {"out.other.svc.cluster.local", T_A, 0, "CNAME web.default.svc.example.test "},
        {"in.other.svc.cluster.local", T_A, 0, "CNAME web.default.svc.cluster.local A 10.96.0.7 "},
        {"in.other.svc.cluster.local", T_AAAA, 0, "CNAME web.default.svc.cluster.local "},
        {"dns-version.cluster.local", T_TXT, 0, "TXT 1.1.0 "},
        {"default.svc.cluster.local", T_A, 0, ""},
        {"nowhere.svc.cluster.local", T_A, 3, ""},
        {"svc.cluster.local", T_A, 0, ""},
        {"cluster.local", T_A, 0, ""},
        {"example.com.default.svc.cluster.local", T_A, 3, ""},
    };
    struct dns *d = filled("cluster.local", NULL, 0, NULL);
    struct got g;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        assert_int_equal(ask_known(d, t[i].name, t[i].type, &g), 1);
        if (g.rcode != t[i].rcode || !streq(g.text, t[i].text))
            fail_msg("%s %d: rcode %d \"%s\"", t[i].name, t[i].type, g.rcode, g.text);
        assert_int_equal(g.authority, g.n == 0 && !strstr(t[i].name, "arpa"));
    }
    assert_int_equal(ask_known(d, "db.default.svc.cluster.local", T_A, &g), 1);
    assert_int_equal(g.n, 2); /* the ready ones */
    assert_int_equal(ask_known(d, "_http._tcp.db.default.svc.cluster.local", T_SRV, &g), 1);
    assert_int_equal(g.n, 2);
    assert_int_equal(g.extra, 2);
    assert_non_null(strstr(g.text, "SRV 80 db-0.db.default.svc.cluster.local"));
    assert_int_equal(ask_known(d, "example.com", T_A, &g), 0);
    assert_int_equal(ask_known(d, "mycluster.local", T_A, &g), 0);
    assert_int_equal(ask_known(d, "9.9.9.9.in-addr.arpa", T_PTR, &g), 0);
    dns_del(d, "default", "web");
    assert_int_equal(ask_known(d, "web.default.svc.cluster.local", T_A, &g), 1);
    assert_int_equal(g.rcode, 3);
    assert_int_equal(ask_known(d, "7.0.96.10.in-addr.arpa", T_PTR, &g), 0);
    dns_del(d, "default", "db");
    assert_int_equal(ask_known(d, "default.svc.cluster.local", T_A, &g), 1);
    assert_int_equal(g.rcode, 3);
    dns_free(d);
}

static void too_long_is_cut(void **state)
{
    struct dns *d = filled("cluster.local", NULL, 0, NULL);
    struct dns_host hosts[100];
    struct dns_service big = {.namespace_ = "n", .name = "big", .hosts = hosts, .n_hosts = 100};
    struct buf q = {0}, r = {0};
    struct got g;

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        hosts[i] = (struct dns_host){.ip.s_addr = htonl(0x0a000001 + i), .hostname = "", .ready = true};
    dns_set(d, &big);
    make_query("big.n.svc.cluster.local", T_A, false, &q);
    assert_int_equal(dns_answer(d, (uint8_t *)q.p, q.n, 1232, &r), 1);
    read_reply((uint8_t *)r.p, r.n, &g);
    assert_true(g.tc && r.n <= 512);
    assert_int_equal(dns_answer(d, (uint8_t *)q.p, q.n, 0, &r), 1);
    read_reply((uint8_t *)r.p, r.n, &g);
    assert_int_equal(g.n, 100);
    buf_done(&q);
    buf_done(&r);
    dns_free(d);
}

/* Any bytes: an answer that can be read, or none. */
TT_PROP(dns, broken_questions_harm_nobody, 2000)
{
    static struct dns *d;
    struct buf q = {0}, r = {0};
    char name[DNS_NAME_MAX + 1];
    int rc;

    if (!d)
        d = filled("cluster.local", NULL, 0, NULL);
    make_query("_http._tcp.db.default.svc.cluster.local", (uint16_t)tt_below(rng, 40), tt_below(rng, 2), &q);
    for (uint32_t i = tt_below(rng, 6); i > 0; i--)
        q.p[tt_below(rng, (uint32_t)q.n)] = (char)tt_next(rng);
    q.n = tt_below(rng, 4) ? q.n : tt_below(rng, (uint32_t)q.n);
    rc = dns_answer(d, (uint8_t *)q.p, q.n, 1232, &r);
    TT_OK(rc >= -1 && rc <= 1);
    if (rc == 1)
        TT_OK(r.n >= 12 && r.n <= 1232);
    for (size_t i = 0; i < q.n; i++)
        dns_name_read((uint8_t *)q.p, q.n, i, name);
    buf_done(&q);
    buf_done(&r);
    if (rng->seed == 2000 || getenv("TT_SEED")) {
        dns_free(d);
        d = NULL;
    }
}

/* --- with sockets --- */

struct client {
    uv_work_t work;
    uint16_t port;
    const char *name;
    uint16_t type;
    bool tcp;
    ssize_t n;
    uint8_t in[4096];
};

static void client_work(uv_work_t *w)
{
    struct client *c = container_of(w, struct client, work);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(c->port), .sin_addr = ip("127.0.0.1")};
    struct timeval wait = {.tv_sec = 5};
    int fd = socket(AF_INET, c->tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
    struct buf q = {0};
    uint8_t len[2];

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    make_query(c->name, c->type, true, &q);
    c->n = -1;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
        if (c->tcp) {
            len[0] = 0;
            len[1] = (uint8_t)q.n;
            if (send(fd, len, 2, 0) == 2 && send(fd, q.p, q.n, 0) > 0 && recv(fd, len, 2, MSG_WAITALL) == 2)
                c->n = recv(fd, c->in, (size_t)(len[0] << 8 | len[1]), MSG_WAITALL);
        } else if (send(fd, q.p, q.n, 0) > 0) {
            c->n = recv(fd, c->in, sizeof(c->in), 0);
        }
    }
    buf_done(&q);
    close(fd);
}

static void client_done(uv_work_t *w, int status)
{
    (void)status;
    uv_stop(w->loop);
}

static void ask_server(uv_loop_t *loop, uint16_t port, const char *name, uint16_t type, bool tcp, struct got *g)
{
    struct client c = {.port = port, .name = name, .type = type, .tcp = tcp};

    uv_queue_work(loop, &c.work, client_work, client_done);
    uv_run(loop, UV_RUN_DEFAULT);
    if (c.n <= 0)
        fail_msg("no answer for %s", name);
    read_reply(c.in, (size_t)c.n, g);
}

static void servers_ask_upstream(void **state)
{
    uint16_t port = (uint16_t)(20000 + getpid() % 20000);
    char dead[32], up[32];
    const char *const ups[] = {dead, up, NULL}, *const none[] = {NULL};
    struct err err = {0};
    uv_loop_t loop;
    struct got g;

    (void)state;
    snprintf(dead, sizeof(dead), "127.0.0.1:%u", port + 2);
    snprintf(up, sizeof(up), "127.0.0.1:%u", port + 1);
    uv_loop_init(&loop);
    struct dns *d = filled("cluster.local", &loop, port, ups), *e = filled("example.test", &loop, (uint16_t)(port + 1), none);
    struct dns_options taken = {.loop = &loop, .ip = "127.0.0.1", .port = port};
    assert_null(dns_new(&taken, &err));
    for (int tcp = 0; tcp < 2; tcp++) {
        ask_server(&loop, port, "web.default.svc.cluster.local", T_A, tcp, &g);
        assert_string_equal(g.text, "A 10.96.0.7 ");
        ask_server(&loop, port, "web.default.svc.example.test", T_A, tcp, &g);
        assert_string_equal(g.text, "A 10.96.0.7 ");
        ask_server(&loop, port, "nobody.example.test", T_A, tcp, &g);
        assert_int_equal(g.rcode, 3);
        ask_server(&loop, port, "out.other.svc.cluster.local", T_A, tcp, &g); /* the CNAME and what it leads to */
        assert_string_equal(g.text, "CNAME web.default.svc.example.test A 10.96.0.7 ");
        ask_server(&loop, port, "unknown.org", T_A, tcp, &g); /* the upstream has none itself */
        assert_int_equal(g.rcode, 2);
    }
    dns_free(d);
    dns_free(e);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cluster_names),
        cmocka_unit_test(too_long_is_cut),
        cmocka_unit_test(tt_dns_broken_questions_harm_nobody),
        cmocka_unit_test(servers_ask_upstream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
