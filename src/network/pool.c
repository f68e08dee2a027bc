/* The pool of network namespaces. See network.h.
 *
 * A member ("slot") is a namespace, a netlink socket that lives in it, the two ends of a veth pair
 * and one address. Slots are built on a worker thread (unshare changes only that thread's
 * namespace, which is set back before the work ends); everything else happens on the owner's
 * thread. An idle slot has its address already, so taking it is one message: the alias.
 *
 *   BUILDING -> IDLE -> USED -> (re-addressed) IDLE      or let go: descriptors closed, the
 *   FOUND (after a restart) -> USED by net_adopt()       kernel then drops the veth by itself */
#include "network/net_int.h"

#include "base/list.h"
#include "base/log.h"
#include "base/map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>
#include <uv.h>

enum { SLOTS_MAX = 0xffff, BUILD_AT_ONCE = 8 };
#define GATEWAY 0xa9fe0101u /* 169.254.1.1 */

static const unsigned char HOST_MAC[6] = {0x0a, 0x74, 0x64, 0x00, 0x00, 0x01};

enum slot_state { SLOT_IDLE, SLOT_USED, SLOT_FOUND };

struct slot {
    struct net_ns pub;
    struct list link; /* in net.idle */
    enum slot_state state;
    uint32_t id, ip; /* ip in host order */
    int host_index, ns_index;
    struct nl ns; /* in the namespace */
    unsigned char mac[6];
    char *owner;
};

struct build { /* work for a thread: makes one slot from nothing */
    struct net *n;
    uv_work_t work;
    struct slot *slot;
    struct err err;
    bool failed;
};

struct net {
    struct net_options o;
    struct net_plan plan;
    char pool;
    char host_ip[16];
    uint32_t mtu;
    struct nl rt;
    struct services *services;
    struct list idle;
    struct map used; /* owner -> slot; also FOUND ones */
    uint32_t *free_ip, free_at, free_n, free_cap; /* a ring: addresses nobody has, longest free first */
    uint8_t *ids;    /* SLOTS_MAX bits: names in use */
    uint32_t next_id;
    uint32_t building;
    bool closing;
    int failures; /* in a row; the refill rests then */
    struct net_counts counts;
};

/* --- addresses and names --- */

static uint32_t ip_take(struct net *n)
{
    uint32_t ip;

    if (!n->free_n)
        return 0;
    ip = n->free_ip[n->free_at];
    n->free_at = (n->free_at + 1) % n->free_cap;
    n->free_n--;
    return ip;
}

static void ip_back(struct net *n, uint32_t ip)
{
    n->free_ip[(n->free_at + n->free_n++) % n->free_cap] = ip;
}

static void ips_fill(struct net *n, const struct map *taken)
{
    uint32_t size = ~n->plan.pod_mask + 1, from, to, start = 0, count = 0;

    from = n->plan.pod_net + (n->pool == 'f' ? size / 2 : 2);
    to = n->plan.pod_net + (n->pool == 'f' ? size - 1 : size / 2);
    n->free_cap = to - from;
    n->free_ip = xcalloc(n->free_cap, sizeof(*n->free_ip));
    /* Start anywhere: after a restart the address of the pod that ended last is not used first. */
    if (getrandom(&start, sizeof(start), GRND_NONBLOCK) < 0)
        start = 0;
    for (uint32_t i = 0; i < n->free_cap; i++) {
        uint32_t ip = from + (start % n->free_cap + i) % n->free_cap;
        char key[16];

        if ((ip & 255) == 0 || (ip & 255) == 255)
            continue;
        snprintf(key, sizeof(key), "%08x", ip);
        if (!map_get(taken, key))
            n->free_ip[count++] = ip;
    }
    n->free_n = count;
}

static bool id_take(struct net *n, uint32_t *ret)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        uint32_t id = (n->next_id + i) % SLOTS_MAX;

        if (n->ids[id / 8] & (1u << (id % 8)))
            continue;
        n->ids[id / 8] |= (uint8_t)(1u << (id % 8));
        n->next_id = id + 1;
        *ret = id;
        return true;
    }
    return false;
}

static void id_back(struct net *n, uint32_t id)
{
    n->ids[id / 8] &= (uint8_t)~(1u << (id % 8));
}

static void ip_text(uint32_t ip, char ret[16])
{
    struct in_addr a = {htonl(ip)};

    inet_ntop(AF_INET, &a, ret, 16);
}

/* --- messages --- */

static void put_addr(struct nl *nl, struct buf *b, int index, uint32_t ip, bool add)
{
    struct ifaddrmsg a = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = (uint32_t)index};
    uint32_t be = htonl(ip);
    size_t at = nlm_begin(nl, b, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &a, sizeof(a));

    nlm_put(b, IFA_LOCAL, &be, 4);
    nlm_put(b, IFA_ADDRESS, &be, 4);
    nlm_end(b, at);
}

/* dst/32 over the link, or everything by the gateway when dst is 0. */
static void put_route(struct nl *nl, struct buf *b, int index, uint32_t dst, uint32_t gateway, bool add)
{
    struct rtmsg r = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                      .rtm_type = RTN_UNICAST, .rtm_dst_len = dst ? 32 : 0,
                      .rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK};
    uint32_t d = htonl(dst), g = htonl(gateway);
    size_t at = nlm_begin(nl, b, add ? RTM_NEWROUTE : RTM_DELROUTE, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &r, sizeof(r));

    if (dst)
        nlm_put(b, RTA_DST, &d, 4);
    if (gateway)
        nlm_put(b, RTA_GATEWAY, &g, 4);
    nlm_u32(b, RTA_OIF, (uint32_t)index);
    nlm_end(b, at);
}

static void put_neighbour(struct nl *nl, struct buf *b, int index, uint32_t ip,
                          const unsigned char mac[6], bool add)
{
    struct ndmsg d = {.ndm_family = AF_INET, .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
    uint32_t be = htonl(ip);
    size_t at = nlm_begin(nl, b, add ? RTM_NEWNEIGH : RTM_DELNEIGH, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &d, sizeof(d));

    nlm_put(b, NDA_DST, &be, 4);
    if (add)
        nlm_put(b, NDA_LLADDR, mac, 6);
    nlm_end(b, at);
}

static void put_alias(struct nl *nl, struct buf *b, int index, const char *alias)
{
    struct ifinfomsg i = {.ifi_index = index};
    size_t at = nlm_begin(nl, b, RTM_SETLINK, 0, &i, sizeof(i));

    nlm_put(b, IFLA_IFALIAS, alias, strlen(alias)); /* empty removes it */
    nlm_end(b, at);
}

static void put_veth(struct net *n, struct nl *rt, struct buf *b, const struct slot *s)
{
    /* the peer is made first: it cannot be up before it has one itself */
    struct ifinfomsg up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, down = {0};
    size_t at = nlm_begin(rt, b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up, sizeof(up)), info, data, peer;

    nlm_str(b, IFLA_IFNAME, s->pub.ifname);
    nlm_u32(b, IFLA_GROUP, n->plan.group);
    nlm_u32(b, IFLA_MTU, n->mtu);
    nlm_put(b, IFLA_ADDRESS, HOST_MAC, 6);
    info = nlm_nest(b, IFLA_LINKINFO);
    nlm_str(b, IFLA_INFO_KIND, "veth");
    data = nlm_nest(b, IFLA_INFO_DATA);
    peer = nlm_nest(b, VETH_INFO_PEER);
    buf_add(b, &down, sizeof(down));
    nlm_str(b, IFLA_IFNAME, "eth0");
    nlm_u32(b, IFLA_MTU, n->mtu);
    nlm_put(b, IFLA_ADDRESS, s->mac, 6);
    nlm_u32(b, IFLA_NET_NS_FD, (uint32_t)s->pub.fd);
    nlm_nest_end(b, peer);
    nlm_nest_end(b, data);
    nlm_nest_end(b, info);
    nlm_end(b, at);
}

/* 127.0.0.1:nodePort leaves by this link: that needs route_localnet (service.c guards the way
 * back). No IPv6 link-local address: nobody answers to it. */
static void put_link_conf(struct nl *rt, struct buf *b, int index)
{
    struct ifinfomsg i = {.ifi_index = index};
    size_t at = nlm_begin(rt, b, RTM_SETLINK, 0, &i, sizeof(i)), spec, inet, conf;
    uint8_t none = IN6_ADDR_GEN_MODE_NONE;

    spec = nlm_nest(b, IFLA_AF_SPEC);
    inet = nlm_nest(b, AF_INET);
    conf = nlm_nest(b, IFLA_INET_CONF);
    nlm_u32(b, IPV4_DEVCONF_ROUTE_LOCALNET, 1);
    nlm_u32(b, IPV4_DEVCONF_RP_FILTER, 0);
    nlm_nest_end(b, conf);
    nlm_nest_end(b, inet);
    if (access("/proc/sys/net/ipv6", F_OK) == 0) {
        inet = nlm_nest(b, AF_INET6);
        nlm_put(b, IFLA_INET6_ADDR_GEN_MODE, &none, 1);
        nlm_nest_end(b, inet);
    }
    nlm_nest_end(b, spec);
    nlm_end(b, at);
}

/* --- building, on any thread --- */

/* A fresh namespace (when fd is -1) and a netlink socket in it. The thread is back in its own
 * namespace when this returns: a thread that could not go back must not live. */
static int ns_enter(int *fd, struct nl *ret, struct err *err)
{
    _auto_(closep) int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc = 0;

    if (home < 0)
        return err_sys(err, "open the network namespace of this thread");
    if ((*fd < 0 ? unshare(CLONE_NEWNET) : setns(*fd, CLONE_NEWNET)) < 0)
        return err_sys(err, *fd < 0 ? "make a network namespace" : "enter a network namespace");
    if (*fd < 0) {
        *fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (*fd < 0)
            rc = err_sys(err, "open a fresh network namespace");
    }
    if (rc == 0)
        rc = nl_open(ret, NETLINK_ROUTE, err);
    ASSERT(setns(home, CLONE_NEWNET) == 0);
    return rc;
}

static void slot_free(struct slot *s)
{
    if (!s)
        return;
    nl_close(&s->ns);
    closep(&s->pub.fd);
    free(s->owner);
    free(s);
}

static int slot_build(struct net *n, struct slot *s, struct nl *rt, struct err *err)
{
    struct ifinfomsg up = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct buf b = {0};
    int rc = ns_enter(&s->pub.fd, &s->ns, err);

    if (rc == 0) {
        put_veth(n, rt, &b, s);
        rc = nl_talk(rt, &b, 0, "make a veth pair", err);
    }
    if (rc == 0) {
        s->host_index = net_link_index(rt, s->pub.ifname);
        s->ns_index = net_link_index(&s->ns, "eth0");
        if (!s->host_index || !s->ns_index)
            rc = err_set(err, INTERNAL, "the veth pair %s is not there", s->pub.ifname);
    }
    if (rc == 0) {
        buf_reset(&b);
        nlm_end(&b, nlm_begin(&s->ns, &b, RTM_NEWLINK, 0, &up, sizeof(up))); /* lo */
        up.ifi_index = s->ns_index;
        nlm_end(&b, nlm_begin(&s->ns, &b, RTM_NEWLINK, 0, &up, sizeof(up)));
        put_addr(&s->ns, &b, s->ns_index, s->ip, true);
        put_neighbour(&s->ns, &b, s->ns_index, GATEWAY, HOST_MAC, true);
        put_route(&s->ns, &b, s->ns_index, GATEWAY, 0, true);
        put_route(&s->ns, &b, s->ns_index, 0, GATEWAY, true);
        rc = nl_talk(&s->ns, &b, 0, "address a pod's network", err);
    }
    if (rc == 0) {
        buf_reset(&b);
        put_link_conf(rt, &b, s->host_index);
        put_neighbour(rt, &b, s->host_index, s->ip, s->mac, true);
        put_route(rt, &b, s->host_index, s->ip, 0, true);
        rc = nl_talk(rt, &b, 0, "route to a pod", err);
    }
    /* The host side got its carrier when eth0 came up; until the kernel's link watch has run, it drops
     * what it should send. Asking for the link makes it run now. */
    if (rc == 0)
        net_link_index(rt, s->pub.ifname);
    buf_done(&b);
    return rc;
}

/* Name and address for a slot to be built; on the owner's thread. */
static struct slot *slot_new(struct net *n, struct err *err)
{
    struct slot *s;
    uint32_t id, ip = ip_take(n);

    if (!ip) {
        err_set(err, TOO_MANY, "all pod addresses are in use");
        return NULL;
    }
    if (!id_take(n, &id)) {
        ip_back(n, ip);
        err_set(err, TOO_MANY, "more than %d pods", SLOTS_MAX);
        return NULL;
    }
    s = xcalloc(1, sizeof(*s));
    s->pub.fd = s->ns.fd = -1;
    s->id = id;
    s->ip = ip;
    ip_text(ip, s->pub.ip);
    snprintf(s->pub.ifname, sizeof(s->pub.ifname), "%s%c%04x", n->plan.prefix, n->pool, id);
    memcpy(s->mac, HOST_MAC, 3);
    s->mac[3] = (unsigned char)n->pool;
    s->mac[4] = (unsigned char)(id >> 8);
    s->mac[5] = (unsigned char)id;
    return s;
}

/* Names and addresses are free again; the kernel drops the veth with the namespace. */
static void slot_let_go(struct net *n, struct slot *s)
{
    struct err ignored = {0};
    struct buf b = {0};

    if (s->host_index) { /* the address may come again before the kernel has swept */
        put_route(&n->rt, &b, s->host_index, s->ip, 0, false);
        nl_talk(&n->rt, &b, ESRCH, "drop a route", &ignored);
        buf_done(&b);
    }
    ip_back(n, s->ip);
    id_back(n, s->id);
    slot_free(s);
}

static struct slot *slot_make_now(struct net *n, struct err *err)
{
    for (int tries = 0; tries < 16; tries++) {
        struct slot *s = slot_new(n, err);
        struct err e = {0};

        if (!s)
            return NULL;
        if (slot_build(n, s, &n->rt, &e) == 0) {
            n->counts.made++;
            return s;
        }
        if (e.sys == EEXIST) { /* a name that an earlier life's namespace still has */
            ip_back(n, s->ip);
            slot_free(s); /* the name stays taken */
            continue;
        }
        slot_let_go(n, s);
        *err = e;
        return NULL;
    }
    err_set(err, UNAVAILABLE, "no free name for a pod's link");
    return NULL;
}

/* --- the refill --- */

static void refill(struct net *n);

static void build_work(uv_work_t *w)
{
    struct build *job = w->data;
    struct nl rt = {.fd = -1};

    if (nl_open(&rt, NETLINK_ROUTE, &job->err) < 0)
        job->failed = true;
    else
        job->failed = slot_build(job->n, job->slot, &rt, &job->err) < 0;
    nl_close(&rt);
}

static void net_free(struct net *n);

static void build_done(uv_work_t *w, int status)
{
    struct build *job = w->data;
    struct net *n = job->n;

    (void)status;
    n->building--;
    if (job->failed || n->closing) {
        bool name_taken = job->failed && job->err.sys == EEXIST;
        uint32_t id = job->slot->id;

        if (job->failed && !name_taken) {
            LOG(WARN, "network", "did=pool_build_failed err=\"%s\"", job->err.msg);
            n->failures++;
        }
        slot_let_go(n, job->slot);
        if (name_taken)
            n->ids[id / 8] |= (uint8_t)(1u << (id % 8));
    } else {
        n->failures = 0;
        n->counts.made++;
        list_push(&n->idle, &job->slot->link);
        n->counts.idle++;
    }
    free(job);
    if (n->closing) {
        if (!n->building)
            net_free(n);
        return;
    }
    if (n->failures < 5)
        refill(n);
}

static void refill(struct net *n)
{
    if (!n->o.loop || n->closing)
        return;
    while (n->counts.idle + n->building < n->o.idle_min && n->building < BUILD_AT_ONCE) {
        struct err err = {0};
        struct slot *s = slot_new(n, &err);
        struct build *job;

        if (!s)
            return;
        job = xcalloc(1, sizeof(*job));
        job->n = n;
        job->slot = s;
        job->work.data = job;
        n->building++;
        ASSERT(uv_queue_work(n->o.loop, &job->work, build_work, build_done) == 0);
    }
}

/* --- after a restart: what the kernel still has of ours --- */

struct found {
    struct net *n;
    struct map by_index; /* host index in decimal -> slot */
    struct map taken;    /* address in hex -> slot */
};

static bool found_link(void *arg, const struct nlmsghdr *m)
{
    struct found *f = arg;
    const struct ifinfomsg *i = NLMSG_DATA(m);
    const char *attrs = (const char *)i + NLMSG_ALIGN(sizeof(*i));
    size_t len = m->nlmsg_len - NLMSG_LENGTH(sizeof(*i));
    const struct nlattr *name = nl_attr(attrs, len, IFLA_IFNAME), *alias = nl_attr(attrs, len, IFLA_IFALIAS);
    struct net *n = f->n;
    struct slot *s;
    char key[16];
    unsigned id;

    if (m->nlmsg_type != RTM_NEWLINK || !name || !str_starts(nl_data(name), n->plan.prefix) ||
        ((const char *)nl_data(name))[10] != n->pool ||
        sscanf((const char *)nl_data(name) + 11, "%4x", &id) != 1 || id >= SLOTS_MAX)
        return true;
    n->ids[id / 8] |= (uint8_t)(1u << (id % 8));
    if (!alias || nl_len(alias) < 1)
        return true; /* was idle: goes with the process that had it */
    s = xcalloc(1, sizeof(*s));
    s->pub.fd = s->ns.fd = -1;
    s->state = SLOT_FOUND;
    s->id = id;
    s->host_index = i->ifi_index;
    snprintf(s->pub.ifname, sizeof(s->pub.ifname), "%s", (const char *)nl_data(name));
    s->owner = xstrndup(nl_data(alias), strnlen(nl_data(alias), nl_len(alias)));
    s->pub.owner = s->owner;
    memcpy(s->mac, HOST_MAC, 3);
    s->mac[3] = (unsigned char)n->pool;
    s->mac[4] = (unsigned char)(id >> 8);
    s->mac[5] = (unsigned char)id;
    snprintf(key, sizeof(key), "%d", s->host_index);
    map_put(&f->by_index, key, s);
    return true;
}

static bool found_route(void *arg, const struct nlmsghdr *m)
{
    struct found *f = arg;
    const struct rtmsg *r = NLMSG_DATA(m);
    const char *attrs = (const char *)r + NLMSG_ALIGN(sizeof(*r));
    size_t len = m->nlmsg_len - NLMSG_LENGTH(sizeof(*r));
    const struct nlattr *dst = nl_attr(attrs, len, RTA_DST), *oif = nl_attr(attrs, len, RTA_OIF);
    struct slot *s;
    char key[16];

    if (m->nlmsg_type != RTM_NEWROUTE || r->rtm_dst_len != 32 || !dst || !oif)
        return true;
    snprintf(key, sizeof(key), "%u", *(const uint32_t *)nl_data(oif));
    s = map_get(&f->by_index, key);
    if (!s)
        return true;
    s->ip = ntohl(*(const uint32_t *)nl_data(dst));
    ip_text(s->ip, s->pub.ip);
    snprintf(key, sizeof(key), "%08x", s->ip);
    map_put(&f->taken, key, s);
    return true;
}

static int find_again(struct net *n, struct err *err)
{
    struct ifinfomsg i = {0};
    struct rtmsg r = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN};
    struct found f = {.n = n};
    struct buf b = {0};
    const char *key;
    void *v;
    int rc;

    nlm_end(&b, nlm_begin(&n->rt, &b, RTM_GETLINK, NLM_F_DUMP, &i, sizeof(i)));
    rc = nl_ask(&n->rt, &b, found_link, &f, "list links", err);
    if (rc == 0 && f.by_index.n) {
        buf_reset(&b);
        nlm_end(&b, nlm_begin(&n->rt, &b, RTM_GETROUTE, NLM_F_DUMP, &r, sizeof(r)));
        rc = nl_ask(&n->rt, &b, found_route, &f, "list routes", err);
    }
    buf_done(&b);
    for (uint32_t k = 0; map_next(&f.by_index, &k, &key, &v);) {
        struct slot *s = v, *before;

        if (rc < 0 || !s->ip) {
            slot_free(s);
            continue;
        }
        before = map_put(&n->used, s->owner, s);
        ASSERT(!before);
        n->counts.used++;
    }
    ips_fill(n, &f.taken);
    map_done(&f.by_index);
    map_done(&f.taken);
    return rc;
}

/* --- the door --- */

struct net *net_open(const struct net_options *o, struct err *err)
{
    struct net *n = xcalloc(1, sizeof(*n));

    list_init(&n->idle);
    n->rt.fd = -1;
    n->o = *o;
    n->pool = o->pool ? o->pool : 'p';
    n->o.idle_max = o->idle_max ? o->idle_max : 64;
    n->o.idle_min = MIN(o->idle_min, n->o.idle_max);
    n->ids = xcalloc(SLOTS_MAX / 8 + 1, 1);
    if ((n->pool != 'p' && n->pool != 'f'
             ? err_set(err, INVALID_ARGUMENT, "a pool is 'p' or 'f'")
             : net_plan(&n->plan, o->instance, o->pod_cidr, o->service_cidr, err)) < 0 ||
        nl_open(&n->rt, NETLINK_ROUTE, err) < 0 ||
        net_host_up(&n->rt, &n->plan, o->state_path, err) < 0 || find_again(n, err) < 0) {
        net_free(n);
        return NULL;
    }
    n->o.instance = n->o.pod_cidr = n->o.service_cidr = n->o.state_path = NULL; /* the caller's */
    ip_text(n->plan.host_ip, n->host_ip);
    n->mtu = net_mtu(&n->rt);
    if (n->pool == 'p' && !(n->services = services_new(&n->plan, err))) {
        net_free(n);
        return NULL;
    }
    refill(n);
    return n;
}

static void net_free(struct net *n)
{
    const char *key;
    void *v;

    LIST_EACH(&n->idle, it) {
        list_remove(it);
        slot_free(list_entry(it, struct slot, link));
    }
    for (uint32_t i = 0; map_next(&n->used, &i, &key, &v);)
        slot_free(v);
    map_done(&n->used);
    services_free(n->services);
    nl_close(&n->rt);
    free(n->free_ip);
    free(n->ids);
    free(n);
}

void *net_close(struct net *n)
{
    if (!n)
        return NULL;
    n->closing = true;
    if (!n->building) /* else the last builder does it */
        net_free(n);
    return NULL;
}

const struct net_ns *net_find(const struct net *n, const char *owner)
{
    const struct slot *s = map_get(&n->used, owner);

    return s ? &s->pub : NULL;
}

const struct net_ns *net_take(struct net *n, const char *owner, struct err *err)
{
    struct in_addr in;
    struct buf b = {0};
    struct list *l;
    struct slot *s;
    int rc;

    if (str_empty(owner) || strlen(owner) > 200) {
        err_set(err, INVALID_ARGUMENT, "an owner has 1 to 200 bytes");
        return NULL;
    }
    if (map_get(&n->used, owner)) {
        err_set(err, ALREADY_EXISTS, "%s has a network namespace", owner);
        return NULL;
    }
    l = list_first(&n->idle);
    if (l) {
        s = list_entry(l, struct slot, link);
        list_remove(l);
        n->counts.idle--;
    } else {
        s = slot_make_now(n, err);
        if (!s)
            return NULL;
    }
    put_alias(&n->rt, &b, s->host_index, owner);
    rc = nl_talk(&n->rt, &b, 0, "name the owner of a pod's link", err);
    buf_done(&b);
    in.s_addr = htonl(s->ip);
    if (rc < 0 || (n->services && services_hairpin(n->services, in, err) < 0)) {
        slot_let_go(n, s);
        return NULL;
    }
    s->owner = xstrdup(owner);
    s->pub.owner = s->owner;
    s->state = SLOT_USED;
    map_put(&n->used, owner, s);
    n->counts.used++;
    refill(n);
    return &s->pub;
}

static bool take_iflink(void *arg, const struct nlmsghdr *m)
{
    const struct ifinfomsg *i = NLMSG_DATA(m);
    const struct nlattr *a = m->nlmsg_type != RTM_NEWLINK ? NULL
        : nl_attr((const char *)i + NLMSG_ALIGN(sizeof(*i)), m->nlmsg_len - NLMSG_LENGTH(sizeof(*i)), IFLA_LINK);
    int *v = arg;

    if (a) {
        v[0] = i->ifi_index;
        v[1] = *(const int *)nl_data(a);
    }
    return true;
}

const struct net_ns *net_adopt(struct net *n, const char *owner, int fd, struct err *err)
{
    struct slot *s = map_get(&n->used, owner);
    struct ifinfomsg i = {0};
    struct buf b = {0};
    int v[2] = {0, 0};
    size_t at;
    int rc;

    if (!s) {
        err_set(err, NOT_FOUND, "no network namespace of %s is left", owner);
        return NULL;
    }
    if (s->state == SLOT_USED)
        return &s->pub;
    s->pub.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (s->pub.fd < 0) {
        err_sys(err, "duplicate a namespace descriptor");
        return NULL;
    }
    rc = ns_enter(&s->pub.fd, &s->ns, err);
    if (rc == 0) {
        at = nlm_begin(&s->ns, &b, RTM_GETLINK, 0, &i, sizeof(i));
        nlm_str(&b, IFLA_IFNAME, "eth0");
        nlm_end(&b, at);
        rc = nl_ask(&s->ns, &b, take_iflink, v, "look at eth0", err);
        buf_done(&b);
    }
    if (rc == 0 && v[1] != s->host_index)
        rc = err_set(err, NOT_FOUND, "the namespace of %s is another one", owner);
    if (rc == 0 && n->services)
        rc = services_hairpin(n->services, (struct in_addr){htonl(s->ip)}, err);
    if (rc < 0) {
        nl_close(&s->ns);
        closep(&s->pub.fd);
        s->pub.fd = -1;
        return NULL;
    }
    s->ns_index = v[0];
    s->state = SLOT_USED;
    return &s->pub;
}

/* A new address first, then the old one goes: a link without any address loses its routes. */
static int readdress(struct net *n, struct slot *s, struct err *err)
{
    uint32_t old = s->ip, ip = ip_take(n);
    struct buf b = {0};
    int rc;

    if (!ip)
        return err_set(err, TOO_MANY, "all pod addresses are in use");
    put_addr(&s->ns, &b, s->ns_index, ip, true);
    put_addr(&s->ns, &b, s->ns_index, old, false);
    rc = nl_talk(&s->ns, &b, 0, "re-address a pod's network", err);
    if (rc == 0) {
        buf_reset(&b);
        put_route(&n->rt, &b, s->host_index, old, 0, false);
        put_neighbour(&n->rt, &b, s->host_index, old, s->mac, false);
        put_neighbour(&n->rt, &b, s->host_index, ip, s->mac, true);
        put_route(&n->rt, &b, s->host_index, ip, 0, true);
        put_alias(&n->rt, &b, s->host_index, "");
        rc = nl_talk(&n->rt, &b, 0, "re-route to a pod", err);
    }
    buf_done(&b);
    ip_back(n, rc == 0 ? old : ip);
    if (rc == 0) {
        s->ip = ip;
        ip_text(ip, s->pub.ip);
    }
    return rc;
}

/* Links of namespaces that nobody has: into a group of their own, then gone at once. */
static void links_delete(struct net *n, const int *index, uint32_t count)
{
    uint32_t doomed = n->plan.group ^ 0x5a5a5a5a;
    struct ifinfomsg i = {0};
    struct err err = {0};
    struct buf b = {0};
    size_t at;

    for (uint32_t k = 0; k < count; k++) {
        i.ifi_index = index[k];
        at = nlm_begin(&n->rt, &b, RTM_SETLINK, 0, &i, sizeof(i));
        nlm_u32(&b, IFLA_GROUP, doomed);
        nlm_end(&b, at);
    }
    nl_talk(&n->rt, &b, ENODEV, "mark links", &err);
    buf_reset(&b);
    i.ifi_index = 0;
    at = nlm_begin(&n->rt, &b, RTM_DELLINK, 0, &i, sizeof(i));
    nlm_u32(&b, IFLA_GROUP, doomed);
    nlm_end(&b, at);
    if (count && nl_talk(&n->rt, &b, ENODEV, "remove links", &err) < 0)
        LOG(WARN, "network", "did=links_left n=%u err=\"%s\"", count, err.msg);
    buf_done(&b);
}

void net_give_back(struct net *n, const char *owner, bool reusable)
{
    struct slot *s = map_del(&n->used, owner);
    struct err err = {0};

    if (!s)
        return;
    n->counts.used--;
    free(STEAL(s->owner));
    s->pub.owner = NULL;
    if (s->state == SLOT_FOUND) {
        links_delete(n, &s->host_index, 1);
        slot_let_go(n, s);
        return;
    }
    if (!reusable || n->counts.idle >= n->o.idle_max) {
        slot_let_go(n, s);
    } else if (readdress(n, s, &err) < 0) {
        LOG(WARN, "network", "link=%s did=let_go err=\"%s\"", s->pub.ifname, err.msg);
        slot_let_go(n, s);
    } else {
        s->state = SLOT_IDLE;
        list_push(&n->idle, &s->link);
        n->counts.idle++;
        n->counts.recycled++;
    }
    refill(n);
}

uint32_t net_sweep(struct net *n)
{
    int *index = xcalloc(n->used.n + 1, sizeof(*index));
    uint32_t count = 0;
    const char *key;
    void *v;

    for (uint32_t i = 0; map_next(&n->used, &i, &key, &v);) {
        struct slot *s = v;

        if (s->state != SLOT_FOUND)
            continue;
        index[count++] = s->host_index;
        map_del(&n->used, key);
        n->counts.used--;
        ip_back(n, s->ip);
        id_back(n, s->id);
        slot_free(s);
    }
    links_delete(n, index, count);
    free(index);
    return count;
}

const char *net_host_ip(const struct net *n)
{
    return n->host_ip;
}

struct net_counts net_counts(const struct net *n)
{
    return n->counts;
}

struct services *net_services(struct net *n)
{
    return n->services;
}
