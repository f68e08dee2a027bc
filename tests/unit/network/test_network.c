/* Goal: pods reach each other, the outside, services and node ports by the rules that network.h
 * and service.h promise, and a restart finds what is in use. Method: the real kernel, in a network
 * namespace of this test's own; "pods" are threads that enter pooled namespaces and open sockets. */
#include "tt.h"

#include "network/net_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define INSTANCE "0a1b2c3d"
static const char POD[] = "10.142.0.0/16", SVC[] = "10.196.0.0/16";

static struct net_options options(char pool)
{
    return (struct net_options){.instance = INSTANCE, .pod_cidr = POD, .service_cidr = SVC, .pool = pool};
}

static struct net *open_net(char pool)
{
    struct net_options o = options(pool);
    struct err err = {0};
    struct net *n = net_open(&o, &err);

    if (!n)
        fail_msg("%s", err.msg);
    return n;
}

static const struct net_ns *take(struct net *n, const char *owner)
{
    struct err err = {0};
    const struct net_ns *ns = net_take(n, owner, &err);

    if (!ns)
        fail_msg("%s", err.msg);
    return ns;
}

static int home = -1;

/* A socket made inside ns (-1: here). */
static int socket_in(const struct net_ns *ns, int type)
{
    int fd;

    if (ns)
        assert_int_equal(setns(ns->fd, CLONE_NEWNET), 0);
    fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    assert_true(fd >= 0);
    return fd;
}

static struct sockaddr_in at(const char *ip, uint16_t port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, ip, &sa.sin_addr), 1);
    return sa;
}

static int listen_in(const struct net_ns *ns, int type, const char *ip, uint16_t port)
{
    struct sockaddr_in sa = at(ip, port);
    int fd = socket_in(ns, type), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static int patience_s = 10; /* machines under test are busy */

/* Connects from ns; 0 or errno. */
static int try_connect(const struct net_ns *ns, const char *ip, uint16_t port)
{
    struct sockaddr_in sa = at(ip, port);
    struct timeval wait = {.tv_sec = patience_s};
    int fd = socket_in(ns, SOCK_STREAM), rc;

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    rc = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

/* Which of the listeners got a connection, and from where; -1: none. */
static int who_accepts(const int *fds, int n, char *ret_peer)
{
    struct pollfd p[8];
    struct sockaddr_in sa;
    socklen_t len = sizeof(sa);
    int c;

    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){fds[i], POLLIN, 0};
    if (poll(p, (nfds_t)n, 10000) <= 0)
        return -1;
    for (int i = 0; i < n; i++)
        if (p[i].revents) {
            c = accept4(fds[i], (struct sockaddr *)&sa, &len, SOCK_CLOEXEC);
            assert_true(c >= 0);
            close(c);
            inet_ntop(AF_INET, &sa.sin_addr, ret_peer, 16);
            return i;
        }
    return -1;
}

static void set_service(struct services *s, const char *name, const char *ip, uint16_t port, uint16_t node_port,
                        uint8_t protocol, uint32_t affinity_s, const struct net_ns **pods, uint32_t n,
                        uint16_t to, uint32_t *writes)
{
    struct service_endpoint ep[8];
    struct service_port sp = {.name = "", .protocol = protocol, .port = port, .node_port = node_port,
                              .endpoints = ep, .n_endpoints = n};
    struct service_spec spec = {.namespace_ = "t", .name = name, .affinity_s = affinity_s, .ports = &sp, .n_ports = 1};
    struct err err = {0};

    inet_pton(AF_INET, ip, &spec.cluster_ip);
    for (uint32_t i = 0; i < n; i++) {
        inet_pton(AF_INET, pods[i]->ip, &ep[i].ip);
        ep[i].port = to;
    }
    if (service_set(s, &spec, writes, &err) < 0)
        fail_msg("%s", err.msg);
}

static int teardown_net(void **state)
{
    struct err err = {0};

    (void)state;
    if (net_teardown(INSTANCE, POD, SVC, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    return 0;
}

static int setup_net(void **state)
{
    (void)state;
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return home < 0;
}

static void pods_reach_each_other(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *a = take(n, "pod-a"), *b = take(n, "pod-b");
    int l[2] = {listen_in(b, SOCK_STREAM, "0.0.0.0", 80), listen_in(NULL, SOCK_STREAM, "0.0.0.0", 8080)};
    struct err err = {0};
    char peer[16];

    (void)state;
    assert_string_not_equal(a->ip, b->ip);
    assert_int_equal(try_connect(a, b->ip, 80), 0);
    assert_int_equal(who_accepts(l, 2, peer), 0);
    assert_string_equal(peer, a->ip);
    assert_int_equal(try_connect(NULL, b->ip, 80), 0); /* from the host */
    assert_int_equal(who_accepts(l, 2, peer), 0);
    assert_string_equal(peer, net_host_ip(n));
    assert_int_equal(try_connect(a, net_host_ip(n), 8080), 0); /* to the host */
    assert_int_equal(who_accepts(l, 2, peer), 1);
    assert_string_equal(peer, a->ip);
    assert_int_equal(try_connect(a, "10.142.77.77", 80), EHOSTUNREACH); /* nobody's address */
    assert_null(net_take(n, "pod-a", &err));
    assert_int_equal(err.code, ERR_ALREADY_EXISTS);
    close(l[0]);
    close(l[1]);
    net_close(n);
}

static void given_back_is_used_again(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *a = take(n, "one");
    char ip[16], ifname[16];
    int l;

    (void)state;
    snprintf(ip, sizeof(ip), "%s", a->ip);
    snprintf(ifname, sizeof(ifname), "%s", a->ifname);
    net_give_back(n, "one", true);
    net_give_back(n, "nobody", true);
    a = take(n, "two");
    assert_string_equal(a->ifname, ifname);    /* the same namespace */
    assert_string_not_equal(a->ip, ip);        /* another address */
    assert_int_equal(net_counts(n).made, 1);
    l = listen_in(a, SOCK_STREAM, "0.0.0.0", 80);
    assert_int_equal(try_connect(NULL, a->ip, 80), 0);
    assert_int_equal(try_connect(NULL, ip, 80), EHOSTUNREACH);
    close(l);
    net_give_back(n, "two", false); /* let go */
    a = take(n, "three");
    assert_int_equal(net_counts(n).made, 2);
    net_close(n);
}

static void a_restart_finds_what_is_in_use(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *a = take(n, "keep"), *b = take(n, "lost"), *again;
    int held = dup(a->fd), lost = dup(b->fd); /* what shims and pods hold */
    char ip[16], gone[16];
    struct err err = {0};

    (void)state;
    snprintf(ip, sizeof(ip), "%s", a->ip);
    snprintf(gone, sizeof(gone), "%s", b->ifname);
    net_close(n);
    n = open_net('p');
    assert_non_null(net_find(n, "keep"));
    assert_int_equal(net_find(n, "keep")->fd, -1);
    assert_null(net_adopt(n, "keep", lost, &err)); /* somebody else's */
    again = net_adopt(n, "keep", held, &err);
    if (!again)
        fail_msg("%s", err.msg);
    assert_string_equal(again->ip, ip);
    int l = listen_in(again, SOCK_STREAM, "0.0.0.0", 80);
    assert_int_equal(try_connect(NULL, ip, 80), 0);
    assert_null(net_adopt(n, "unheard-of", held, &err));
    assert_int_equal(net_sweep(n), 1);
    assert_null(net_find(n, "lost"));
    struct nl rt;
    assert_int_equal(nl_open(&rt, NETLINK_ROUTE, &err), 0);
    assert_int_equal(net_link_index(&rt, gone), 0);
    nl_close(&rt);
    for (int i = 0; i < 20; i++) { /* no name or address is given twice */
        char owner[16];

        snprintf(owner, sizeof(owner), "new%d", i);
        assert_string_not_equal(take(n, owner)->ip, ip);
    }
    close(l);
    close(held);
    close(lost);
    net_close(n);
}

static void services_lead_to_endpoints(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod[3] = {take(n, "a"), take(n, "b"), take(n, "c")};
    int l[2] = {listen_in(pod[0], SOCK_STREAM, "0.0.0.0", 8000), listen_in(pod[1], SOCK_STREAM, "0.0.0.0", 8000)};
    struct services *s = net_services(n);
    uint32_t writes, hits[2] = {0, 0};
    struct err err = {0};
    char peer[16];

    (void)state;
    assert_int_equal(try_connect(pod[2], "10.196.0.5", 80), ECONNREFUSED); /* no such service */
    assert_int_equal(try_connect(NULL, "10.196.0.5", 80), ECONNREFUSED);
    set_service(s, "web", "10.196.0.5", 80, 30080, IPPROTO_TCP, 0, pod, 0, 8000, &writes);
    assert_int_equal(try_connect(pod[2], "10.196.0.5", 80), ECONNREFUSED); /* no endpoints */
    set_service(s, "web", "10.196.0.5", 80, 30080, IPPROTO_TCP, 0, pod, 2, 8000, &writes);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(try_connect(pod[2], "10.196.0.5", 80), 0);
        int k = who_accepts(l, 2, peer);
        assert_true(k >= 0);
        assert_string_equal(peer, pod[2]->ip);
        hits[k]++;
    }
    assert_true(hits[0] > 5 && hits[1] > 5);
    assert_int_equal(try_connect(NULL, "10.196.0.5", 80), 0); /* from the host */
    assert_true(who_accepts(l, 2, peer) >= 0);
    assert_int_equal(try_connect(NULL, net_host_ip(n), 30080), 0); /* node port */
    assert_true(who_accepts(l, 2, peer) >= 0);
    assert_int_equal(try_connect(NULL, "127.0.0.1", 30080), 0);
    assert_true(who_accepts(l, 2, peer) >= 0);
    assert_int_equal(try_connect(pod[2], net_host_ip(n), 30080), 0);
    assert_true(who_accepts(l, 2, peer) >= 0);
    assert_int_equal(try_connect(pod[2], "10.196.0.5", 81), ECONNREFUSED); /* another port */
    set_service(s, "web", "10.196.0.5", 80, 30080, IPPROTO_TCP, 0, pod, 2, 8000, &writes);
    assert_int_equal(writes, 0);
    set_service(s, "web", "10.196.0.5", 80, 30080, IPPROTO_TCP, 0, pod + 1, 1, 8000, &writes);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(try_connect(pod[2], "10.196.0.5", 80), 0);
        assert_int_equal(who_accepts(l, 2, peer), 1);
    }
    /* hairpin: a pod by the service to itself */
    assert_int_equal(try_connect(pod[1], "10.196.0.5", 80), 0);
    assert_int_equal(who_accepts(l, 2, peer), 1);
    assert_string_equal(peer, net_host_ip(n));
    assert_int_equal(service_del(s, "t", "web", &err), 0);
    assert_int_equal(try_connect(pod[2], "10.196.0.5", 80), ECONNREFUSED);
    assert_int_equal(try_connect(NULL, "127.0.0.1", 30080), ECONNREFUSED);
    assert_int_equal(system("nft list ruleset > /dev/null"), 0); /* the host's own tool can read it */
    close(l[0]);
    close(l[1]);
    net_close(n);
}

static void a_restart_keeps_services_until_the_commit(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod[1] = {take(n, "a")};
    int l = listen_in(pod[0], SOCK_STREAM, "0.0.0.0", 8000), held = dup(pod[0]->fd);
    struct err err = {0};
    char peer[16];

    (void)state;
    set_service(net_services(n), "old", "10.196.0.6", 80, 0, IPPROTO_TCP, 0, pod, 1, 8000, NULL);
    net_close(n);
    n = open_net('p');
    assert_non_null(pod[0] = net_adopt(n, "a", held, &err));
    services_begin(net_services(n));
    assert_int_equal(try_connect(NULL, "10.196.0.6", 80), 0);
    assert_int_equal(who_accepts(&l, 1, peer), 0);
    set_service(net_services(n), "new", "10.196.0.7", 80, 0, IPPROTO_TCP, 0, pod, 1, 8000, NULL);
    if (services_commit(net_services(n), &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(try_connect(NULL, "10.196.0.6", 80), ECONNREFUSED);
    assert_int_equal(try_connect(NULL, "10.196.0.7", 80), 0);
    assert_int_equal(who_accepts(&l, 1, peer), 0);
    close(l);
    close(held);
    net_close(n);
}

/* The API server may listen on loopback only; pods come to it by its service, and not otherwise. */
static void pods_reach_loopback_by_a_service_only(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod = take(n, "a");
    int l = listen_in(NULL, SOCK_STREAM, "127.0.0.1", 6443), k;
    struct service_endpoint ep = {.ip.s_addr = htonl(INADDR_LOOPBACK), .port = 6443};
    struct service_port sp = {.name = "", .protocol = IPPROTO_TCP, .port = 443, .endpoints = &ep, .n_endpoints = 1};
    struct service_spec spec = {.namespace_ = "default", .name = "kubernetes", .ports = &sp, .n_ports = 1};
    struct err err = {0};
    char peer[16];

    (void)state;
    inet_pton(AF_INET, "10.196.0.1", &spec.cluster_ip);
    assert_int_equal(service_set(net_services(n), &spec, NULL, &err), 0);
    assert_int_equal(try_connect(pod, "10.196.0.1", 443), 0);
    assert_int_equal(who_accepts(&l, 1, peer), 0);
    assert_string_equal(peer, pod->ip);
    assert_int_equal(try_connect(NULL, "10.196.0.1", 443), 0);
    assert_int_equal(who_accepts(&l, 1, peer), 0);
    /* a packet to 127.0.0.1 that a pod sends out of eth0 goes nowhere */
    assert_int_equal(setns(pod->fd, CLONE_NEWNET), 0);
    k = system("ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.1 via 169.254.1.1 dev eth0 onlink && "
               "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    patience_s = 1;
    if (k == 0)
        assert_int_not_equal(try_connect(pod, "127.0.0.1", 6443), 0);
    patience_s = 10;
    close(l);
    net_close(n);
}

static void affinity_stays_with_one(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod[3] = {take(n, "a"), take(n, "b"), take(n, "c")};
    int l[2] = {listen_in(pod[0], SOCK_STREAM, "0.0.0.0", 8000), listen_in(pod[1], SOCK_STREAM, "0.0.0.0", 8000)};
    struct services *s = net_services(n);
    int first = -1;
    char peer[16];

    (void)state;
    set_service(s, "sticky", "10.196.0.8", 80, 30081, IPPROTO_TCP, 60, pod, 2, 8000, NULL);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(try_connect(pod[2], "10.196.0.8", 80), 0);
        int k = who_accepts(l, 2, peer);
        if (first < 0)
            first = k;
        assert_int_equal(k, first);
    }
    /* the one it stuck to goes: the other one, and it stays there */
    set_service(s, "sticky", "10.196.0.8", 80, 30081, IPPROTO_TCP, 60, first == 0 ? pod + 1 : pod, 1, 8000, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(try_connect(pod[2], "10.196.0.8", 80), 0);
        assert_int_equal(who_accepts(l, 2, peer), !first);
    }
    set_service(s, "sticky", "10.196.0.8", 80, 30081, IPPROTO_TCP, 60, pod, 2, 8000, NULL);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(try_connect(pod[2], "10.196.0.8", 80), 0);
        assert_int_equal(who_accepts(l, 2, peer), !first);
    }
    close(l[0]);
    close(l[1]);
    net_close(n);
}

static void udp_goes_there_and_back(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod[3] = {take(n, "a"), take(n, "b"), take(n, "c")};
    int srv[2] = {listen_in(pod[0], SOCK_DGRAM, "0.0.0.0", 5300), listen_in(pod[1], SOCK_DGRAM, "0.0.0.0", 5300)};
    int c = socket_in(pod[2], SOCK_DGRAM);
    struct sockaddr_in to = at("10.196.0.9", 53), from;
    struct timeval wait = {.tv_sec = 10};
    socklen_t len = sizeof(from);
    char text[8] = "";

    (void)state;
    setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    assert_int_equal(connect(c, (struct sockaddr *)&to, sizeof(to)), 0);
    for (int i = 0; i < 2; i++) { /* the endpoint changes: the same flow goes to the other one */
        setsockopt(srv[i], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        set_service(net_services(n), "dns", "10.196.0.9", 53, 0, IPPROTO_UDP, 0, pod + i, 1, 5300, NULL);
        assert_int_equal(send(c, "ask", 3, 0), 3);
        assert_int_equal(recvfrom(srv[i], text, 8, 0, (struct sockaddr *)&from, &len), 3);
        assert_int_equal(sendto(srv[i], "yes", 3, 0, (struct sockaddr *)&from, len), 3);
        assert_int_equal(recv(c, text, 8, 0), 3); /* connected: only accepted from the service's address */
    }
    close(srv[0]);
    close(srv[1]);
    close(c);
    net_close(n);
}

static void pools_side_by_side(void **state)
{
    struct net *p = open_net('p'), *f = open_net('f');
    const struct net_ns *a = take(p, "x"), *b = take(f, "x");
    int l = listen_in(a, SOCK_STREAM, "0.0.0.0", 8000);
    const struct net_ns *pod[1] = {a};

    (void)state;
    set_service(net_services(p), "web", "10.196.0.10", 80, 0, IPPROTO_TCP, 0, pod, 1, 8000, NULL);
    assert_int_equal(try_connect(b, "10.196.0.10", 80), 0); /* functions reach services */
    assert_null(net_services(f));
    net_close(f);
    f = open_net('f');
    assert_int_equal(net_counts(f).used, 1);
    assert_int_equal(net_sweep(f), 1);
    assert_int_equal(try_connect(NULL, a->ip, 8000), 0);
    close(l);
    net_close(f);
    net_close(p);
}

static void run_until_idle(uv_loop_t *loop, struct net *n, uint32_t idle)
{
    for (int i = 0; net_counts(n).idle != idle; i++) {
        assert_true(i < 10000);
        uv_run(loop, UV_RUN_ONCE);
    }
}

static void the_pool_refills(void **state)
{
    struct net_options o = options('p');
    struct err err = {0};
    uv_loop_t loop;
    struct net *n;

    (void)state;
    uv_loop_init(&loop);
    o.loop = &loop;
    o.idle_min = 5;
    n = net_open(&o, &err);
    assert_non_null(n);
    run_until_idle(&loop, n, 5);
    take(n, "a");
    net_close(n); /* while one is being built */
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

struct wanting {
    struct net *n;
    uint32_t want, got;
    const struct net_ns *ns[200];
};

static void take_what_is_ready(void *arg)
{
    struct wanting *w = arg;
    struct err err = {0};
    char owner[16];

    assert_int_equal(net_want(w->n, 0, &err), 0);
    while (w->got < w->want) {
        snprintf(owner, sizeof(owner), "i%u", w->got);
        w->ns[w->got] = net_take_ready(w->n, owner);
        if (!w->ns[w->got]) {
            assert_int_equal(net_want(w->n, w->want - w->got, &err), 0);
            return;
        }
        w->got++;
    }
}

static int links_here(void)
{
    char line[256];
    FILE *f = fopen("/proc/net/dev", "r");
    int n = 0;

    while (fgets(line, sizeof(line), f))
        n += strstr(line, "td" INSTANCE "f") != NULL;
    fclose(f);
    return n;
}

/* Nobody's thread waits for the kernel: 200 are asked for at once and come one by one, reach each other, go back, are
 * taken again, and what is too many is deleted in the kernel, too. */
static void a_burst_from_an_unnamed_pool(void **state)
{
    struct wanting w = {.want = ARRAY_LEN(w.ns)};
    struct net_options o = options('f');
    struct err err = {0};
    char owner[16];
    uv_loop_t loop;
    int l;

    (void)state;
    uv_loop_init(&loop);
    o.loop = &loop;
    o.idle_min = 4;
    o.idle_max = 100;
    o.unnamed = true;
    o.on_ready = take_what_is_ready;
    o.arg = &w;
    w.n = net_open(&o, &err);
    assert_non_null(w.n);
    assert_null(net_take_ready(w.n, "early"));
    take_what_is_ready(&w);
    for (int i = 0; w.got < w.want && i < 100000; i++)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(w.got, w.want);
    l = listen_in(w.ns[17], SOCK_STREAM, "0.0.0.0", 8000);
    assert_int_equal(try_connect(w.ns[199], w.ns[17]->ip, 8000), 0);
    close(l);
    for (uint32_t i = 0; i < w.want; i++) {
        snprintf(owner, sizeof(owner), "i%u", i);
        net_give_back(w.n, owner, i % 4 != 0);
    }
    for (int i = 0; (net_counts(w.n).recycled < 60 || (uint32_t)links_here() != net_counts(w.n).idle) && i < 100000; i++)
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(net_counts(w.n).recycled >= 60 && net_counts(w.n).idle <= 200);
    w.ns[0] = net_take_ready(w.n, "again");
    assert_non_null(w.ns[0]);
    l = listen_in(w.ns[0], SOCK_STREAM, "0.0.0.0", 8000);
    assert_int_equal(try_connect(NULL, w.ns[0]->ip, 8000), 0);
    close(l);
    net_trim(w.n);
    for (int i = 0; links_here() != 5 && i < 100000; i++) /* the one, and those that are always kept */
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(links_here(), 5);
    net_close(w.n);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* Empty ones go as the others do: those that are given back for good, and those beyond what is always kept. */
static void empty_ones_are_let_go(void **state)
{
    struct wanting w = {.want = 20};
    struct net_options o = {.pool = 'e', .idle_min = 2, .idle_max = 50, .on_ready = take_what_is_ready, .arg = &w};
    struct err err = {0};
    char owner[16];
    uv_loop_t loop;
    int fd;

    (void)state;
    uv_loop_init(&loop);
    o.loop = &loop;
    w.n = net_open(&o, &err);
    assert_non_null(w.n);
    take_what_is_ready(&w);
    for (int i = 0; w.got < w.want && i < 100000; i++)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(w.got, w.want);
    fd = w.ns[0]->fd;
    for (uint32_t i = 0; i < w.want; i++) {
        snprintf(owner, sizeof(owner), "i%u", i);
        net_give_back(w.n, owner, i % 2 != 0);
    }
    assert_int_equal(net_counts(w.n).recycled, 10);
    net_trim(w.n);
    assert_int_equal(net_counts(w.n).idle, 2);
    for (int i = 0; fcntl(fd, F_GETFD) >= 0 && i < 100000; i++)
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(fcntl(fd, F_GETFD) < 0);
    w.ns[0] = net_take_ready(w.n, "again");
    assert_non_null(w.ns[0]);
    assert_true(fcntl(w.ns[0]->fd, F_GETFD) >= 0);
    net_close(w.n);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* A machine outside, on a link of its own. */
static void outside_sees_the_host(void **state)
{
    struct net *n = open_net('p');
    const struct net_ns *pod[2] = {take(n, "a"), take(n, "b")};
    struct net_ns outside = {.fd = -1};
    struct sockaddr_in fake;
    int l, in, spoof, on = 1;
    char peer[16], cmd[512];

    (void)state;
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    outside.fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    snprintf(cmd, sizeof(cmd),
             "ip link add out0 type veth peer name out1 && ip link set out1 netns /proc/%d/fd/%d && ip addr add 198.51.100.1/24 dev out0 && "
             "ip link set out0 up && nsenter --net=/proc/%d/fd/%d sh -c 'ip link set lo up; ip addr add 198.51.100.2/24 dev out1; ip link set out1 up'",
             (int)getpid(), outside.fd, (int)getpid(), outside.fd);
    assert_int_equal(system(cmd), 0);
    l = listen_in(&outside, SOCK_STREAM, "0.0.0.0", 80);
    assert_int_equal(try_connect(pod[0], "198.51.100.2", 80), 0);
    assert_int_equal(who_accepts(&l, 1, peer), 0);
    assert_string_equal(peer, "198.51.100.1"); /* masqueraded */
    in = listen_in(pod[0], SOCK_STREAM, "0.0.0.0", 8000);
    set_service(net_services(n), "web", "10.196.0.12", 80, 30085, IPPROTO_TCP, 0, pod, 1, 8000, NULL);
    assert_int_equal(try_connect(&outside, "198.51.100.1", 30085), 0);
    assert_int_equal(who_accepts(&in, 1, peer), 0);
    assert_string_equal(peer, "198.51.100.2"); /* a pod sees who it was */
    /* a pod that takes another's address is not heard */
    assert_int_equal(setns(pod[1]->fd, CLONE_NEWNET), 0);
    spoof = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(spoof, SOL_IP, IP_FREEBIND, &on, sizeof(on)), 0);
    fake = at("198.51.100.2", 0);
    assert_int_equal(bind(spoof, (struct sockaddr *)&fake, sizeof(fake)), 0);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    struct timeval wait = {.tv_sec = 1};
    setsockopt(spoof, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    fake = at(pod[0]->ip, 8000);
    assert_int_not_equal(connect(spoof, (struct sockaddr *)&fake, sizeof(fake)), 0);
    close(spoof);
    close(l);
    close(in);
    close(outside.fd);
    net_close(n);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void a_thousand_services(void **state)
{
    struct net *n = open_net('p');
    struct service_endpoint ep[10];
    struct service_port sp = {.name = "", .protocol = IPPROTO_TCP, .port = 80, .endpoints = ep, .n_endpoints = 10};
    struct service_spec spec = {.namespace_ = "t", .ports = &sp, .n_ports = 1};
    struct err err = {0};
    int64_t t0 = now_us(), took[2], made;
    char name[32];

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        ep[i] = (struct service_endpoint){.ip.s_addr = htonl(0x0a8e0100 + i), .port = 80};
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        spec.name = name;
        spec.cluster_ip.s_addr = htonl(0x0ac40100 + i);
        assert_int_equal(service_set(net_services(n), &spec, NULL, &err), 0);
    }
    made = (now_us() - t0) / 1000;
    for (int round = 0; round < 2; round++) { /* one endpoint less, one more */
        sp.n_endpoints = round ? 10 : 9;
        t0 = now_us();
        for (uint32_t i = 0; i < 200; i++) {
            snprintf(name, sizeof(name), "s%u", i);
            spec.name = name;
            spec.cluster_ip.s_addr = htonl(0x0ac40100 + i);
            assert_int_equal(service_set(net_services(n), &spec, NULL, &err), 0);
        }
        took[round] = (now_us() - t0) / 200;
    }
    printf("1000 services: %lld us each to make, %lld and %lld us a change of one endpoint\n", (long long)made,
           (long long)took[0], (long long)took[1]);
    t0 = now_us();
    assert_int_equal(services_commit(net_services(n), &err), 0);
    printf("all at once: %lld ms\n", (long long)(now_us() - t0) / 1000);
    net_close(n);
}

static void teardown_leaves_nothing(void **state)
{
    struct net *n = open_net('p');
    struct err err = {0};
    int held = dup(take(n, "a")->fd), rc;
    FILE *f;
    char line[256];

    (void)state;
    take(n, "b");
    net_close(n);
    assert_int_equal(net_teardown(INSTANCE, POD, SVC, NULL, &err), 0);
    f = fopen("/proc/thread-self/net/dev", "r");
    while (fgets(line, sizeof(line), f))
        assert_null(strstr(line, "td" INSTANCE));
    fclose(f);
    f = fopen("/proc/thread-self/net/route", "r");
    rc = -1; /* only the title */
    while (fgets(line, sizeof(line), f))
        rc++;
    fclose(f);
    assert_int_equal(rc, 0);
    assert_int_equal(net_teardown(INSTANCE, POD, SVC, NULL, &err), 0); /* twice is fine */
    close(held);
}

static void bad_ranges_are_refused(void **state)
{
    static const char *const bad[] = {"", "10.0.0.0", "10.0.0.0/30", "10.0.0.1/16", "x/16", "10.196.0.0/16", "10.0.0.0/8"};
    struct net_options o = options('p');
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        o.pod_cidr = bad[i];
        if (net_open(&o, &err))
            fail_msg("%s passed", bad[i]);
        assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(pods_reach_each_other, teardown_net),
        cmocka_unit_test_teardown(given_back_is_used_again, teardown_net),
        cmocka_unit_test_teardown(a_restart_finds_what_is_in_use, teardown_net),
        cmocka_unit_test_teardown(services_lead_to_endpoints, teardown_net),
        cmocka_unit_test_teardown(a_restart_keeps_services_until_the_commit, teardown_net),
        cmocka_unit_test_teardown(pods_reach_loopback_by_a_service_only, teardown_net),
        cmocka_unit_test_teardown(affinity_stays_with_one, teardown_net),
        cmocka_unit_test_teardown(udp_goes_there_and_back, teardown_net),
        cmocka_unit_test_teardown(pools_side_by_side, teardown_net),
        cmocka_unit_test_teardown(outside_sees_the_host, teardown_net),
        cmocka_unit_test_teardown(the_pool_refills, teardown_net),
        cmocka_unit_test_teardown(a_thousand_services, teardown_net),
        cmocka_unit_test(a_burst_from_an_unnamed_pool),
        cmocka_unit_test(empty_ones_are_let_go),
        cmocka_unit_test(teardown_leaves_nothing),
        cmocka_unit_test(bad_ranges_are_refused),
    };
    if (geteuid() != 0) {
        fprintf(stderr, "needs to make network namespaces: run as root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, setup_net, NULL);
}
