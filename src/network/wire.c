/* What the kernel is told about one member of the pool: made, addressed anew, named, deleted. On any thread: what is
 * written to is the slot alone, and the socket is the caller's. */
#include "network/net_int.h"

#include "base/log.h"

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
#include <unistd.h>

#define GATEWAY 0xa9fe0101u /* 169.254.1.1 */

const unsigned char net_host_mac[6] = {0x0a, 0x74, 0x64, 0x00, 0x00, 0x01};

void ip_text(uint32_t ip, char ret[16])
{
    struct in_addr a = {htonl(ip)};

    inet_ntop(AF_INET, &a, ret, 16);
}

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

static void put_veth(const struct wire *w, struct nl *rt, struct buf *b, const struct slot *s)
{
    /* the peer is made first: it cannot be up before it has one itself. One queue each: told nothing, the kernel makes as
     * many as there are cores and turns all but one off again, for which it waits until every core has seen that. */
    struct ifinfomsg up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, down = {0};
    size_t at = nlm_begin(rt, b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up, sizeof(up)), info, data, peer;

    nlm_str(b, IFLA_IFNAME, s->pub.ifname);
    nlm_u32(b, IFLA_GROUP, w->plan->group);
    nlm_u32(b, IFLA_MTU, w->mtu);
    nlm_u32(b, IFLA_NUM_TX_QUEUES, 1);
    nlm_u32(b, IFLA_NUM_RX_QUEUES, 1);
    nlm_put(b, IFLA_ADDRESS, net_host_mac, 6);
    info = nlm_nest(b, IFLA_LINKINFO);
    nlm_str(b, IFLA_INFO_KIND, "veth");
    data = nlm_nest(b, IFLA_INFO_DATA);
    peer = nlm_nest(b, VETH_INFO_PEER);
    buf_add(b, &down, sizeof(down));
    nlm_str(b, IFLA_IFNAME, "eth0");
    nlm_u32(b, IFLA_MTU, w->mtu);
    nlm_u32(b, IFLA_NUM_TX_QUEUES, 1);
    nlm_u32(b, IFLA_NUM_RX_QUEUES, 1);
    nlm_put(b, IFLA_ADDRESS, s->mac, 6);
    nlm_u32(b, IFLA_NET_NS_FD, (uint32_t)s->pub.fd);
    nlm_nest_end(b, peer);
    nlm_nest_end(b, data);
    nlm_nest_end(b, info);
    nlm_end(b, at);
}

/* 127.0.0.1:nodePort leaves by this link: that needs route_localnet (service.c guards the way
 * back). No IPv6 link-local address: nobody answers to it. */
static void put_link_conf(const struct wire *w, struct nl *rt, struct buf *b, int index)
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
    if (w->ipv6) {
        inet = nlm_nest(b, AF_INET6);
        nlm_put(b, IFLA_INET6_ADDR_GEN_MODE, &none, 1);
        nlm_nest_end(b, inet);
    }
    nlm_nest_end(b, spec);
    nlm_end(b, at);
}

/* A fresh namespace, which the thread is in then, and a netlink socket in it. */
static int ns_fresh(int *fd, struct nl *ret, struct err *err)
{
    if (unshare(CLONE_NEWNET) < 0)
        return err_sys(err, "make a network namespace");
    *fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return err_sys(err, "open a fresh network namespace");
    return nl_open(ret, NETLINK_ROUTE, err);
}

int ns_enter(int *fd, struct nl *ret, struct err *err)
{
    _auto_(closep) int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc;

    if (home < 0)
        return err_sys(err, "open the network namespace of this thread");
    if (*fd < 0)
        rc = ns_fresh(fd, ret, err);
    else if (setns(*fd, CLONE_NEWNET) < 0)
        return err_sys(err, "enter a network namespace");
    else
        rc = nl_open(ret, NETLINK_ROUTE, err);
    ASSERT(setns(home, CLONE_NEWNET) == 0);
    return rc;
}

void slot_free(struct slot *s)
{
    if (!s)
        return;
    nl_close(&s->ns);
    closep(&s->pub.fd);
    free(s->owner);
    free(s);
}

int slot_build(const struct wire *w, struct slot *s, struct nl *rt, struct err *err)
{
    struct ifinfomsg up = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct buf b = {0};
    int rc = w->stay ? ns_fresh(&s->pub.fd, &s->ns, err) : ns_enter(&s->pub.fd, &s->ns, err);

    if (w->bare) {
        nlm_end(&b, nlm_begin(&s->ns, &b, RTM_NEWLINK, 0, &up, sizeof(up))); /* lo */
        rc = rc < 0 ? rc : nl_talk(&s->ns, &b, 0, "put up a loopback", err);
        nl_close(&s->ns); /* there will be nothing else to say */
        buf_done(&b);
        return rc;
    }
    if (rc == 0) {
        put_veth(w, rt, &b, s);
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
        put_neighbour(&s->ns, &b, s->ns_index, GATEWAY, net_host_mac, true);
        put_route(&s->ns, &b, s->ns_index, GATEWAY, 0, true);
        put_route(&s->ns, &b, s->ns_index, 0, GATEWAY, true);
        rc = nl_talk(&s->ns, &b, 0, "address a pod's network", err);
    }
    if (rc == 0) {
        buf_reset(&b);
        put_link_conf(w, rt, &b, s->host_index);
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

int slot_readdress(const struct wire *w, struct slot *s, uint32_t ip, struct nl *rt, struct err *err)
{
    uint32_t old = s->ip;
    struct buf b = {0};
    int rc;

    /* the new one first, then the old one goes: a link without any address loses its routes */
    put_addr(&s->ns, &b, s->ns_index, ip, true);
    put_addr(&s->ns, &b, s->ns_index, old, false);
    rc = nl_talk(&s->ns, &b, 0, "re-address a pod's network", err);
    if (rc == 0) {
        buf_reset(&b);
        put_route(rt, &b, s->host_index, old, 0, false);
        put_neighbour(rt, &b, s->host_index, old, s->mac, false);
        put_neighbour(rt, &b, s->host_index, ip, s->mac, true);
        put_route(rt, &b, s->host_index, ip, 0, true);
        if (!w->unnamed)
            put_alias(rt, &b, s->host_index, "");
        rc = nl_talk(rt, &b, 0, "re-route to a pod", err);
    }
    buf_done(&b);
    if (rc == 0) {
        s->ip = ip;
        ip_text(ip, s->pub.ip);
    }
    return rc;
}

void slots_delete(const struct wire *w, struct slot *const *slots, uint32_t count, struct nl *rt)
{
    struct ifinfomsg i = {0};
    struct err err = {0};
    struct buf b = {0};
    uint32_t doomed;
    size_t at;

    if (w->bare)
        return; /* they have none, nor a plan */
    doomed = w->plan->group ^ 0x5a5a5a5a;
    for (uint32_t k = 0; k < count; k++) {
        if (!slots[k]->host_index)
            continue;
        i.ifi_index = slots[k]->host_index;
        at = nlm_begin(rt, &b, RTM_SETLINK, 0, &i, sizeof(i));
        nlm_u32(&b, IFLA_GROUP, doomed);
        nlm_end(&b, at);
    }
    if (!b.n)
        return;
    nl_talk(rt, &b, ENODEV, "mark links", &err);
    buf_reset(&b);
    i.ifi_index = 0;
    at = nlm_begin(rt, &b, RTM_DELLINK, 0, &i, sizeof(i));
    nlm_u32(&b, IFLA_GROUP, doomed);
    nlm_end(&b, at);
    if (nl_talk(rt, &b, ENODEV, "remove links", &err) < 0)
        LOG(WARN, "network", "did=links_left n=%u err=\"%s\"", count, err.msg);
    buf_done(&b);
}

int slot_name(const struct slot *s, const char *owner, struct nl *rt, struct err *err)
{
    struct buf b = {0};
    int rc;

    put_alias(rt, &b, s->host_index, owner);
    rc = nl_talk(rt, &b, 0, "name the owner of a pod's link", err);
    buf_done(&b);
    return rc;
}

void slot_unroute(const struct slot *s, struct nl *rt)
{
    struct err ignored = {0};
    struct buf b = {0};

    if (!s->host_index)
        return;
    put_route(rt, &b, s->host_index, s->ip, 0, false);
    nl_talk(rt, &b, ESRCH, "drop a route", &ignored);
    buf_done(&b);
}
