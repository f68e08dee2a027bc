/* The host's side of an instance: forwarding, an address on lo, routes. All idempotent. */
#include "network/net_int.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int cidr(const char *text, uint32_t *ret_net, uint32_t *ret_mask, struct err *err)
{
    char addr[32];
    const char *slash = text ? strchr(text, '/') : NULL;
    struct in_addr in;
    char *end;
    long bits;

    if (!slash || (size_t)(slash - text) >= sizeof(addr))
        return err_set(err, INVALID_ARGUMENT, "\"%.60s\" is no IPv4 CIDR", text ? text : "");
    memcpy(addr, text, (size_t)(slash - text));
    addr[slash - text] = 0;
    bits = strtol(slash + 1, &end, 10);
    if (inet_pton(AF_INET, addr, &in) != 1 || *end || end == slash + 1 || bits < 8 || bits > 24)
        return err_set(err, INVALID_ARGUMENT, "\"%.60s\" is no IPv4 CIDR from /8 to /24", text);
    *ret_mask = ~0u << (32 - bits);
    *ret_net = ntohl(in.s_addr);
    if (*ret_net & ~*ret_mask)
        return err_set(err, INVALID_ARGUMENT, "\"%.60s\" has bits set behind its prefix", text);
    return 0;
}

int net_prefix_len(uint32_t mask)
{
    return __builtin_popcount(mask);
}

int net_plan(struct net_plan *p, const char *instance, const char *pod_cidr,
             const char *service_cidr, struct err *err)
{
    if (!instance || strlen(instance) != 8 || strspn(instance, "0123456789abcdef") != 8)
        return err_set(err, INVALID_ARGUMENT, "an instance is named by 8 hex digits");
    if (cidr(pod_cidr, &p->pod_net, &p->pod_mask, err) < 0 ||
        cidr(service_cidr, &p->service_net, &p->service_mask, err) < 0)
        return -1;
    if ((p->pod_net & p->service_mask) == p->service_net || (p->service_net & p->pod_mask) == p->pod_net)
        return err_set(err, INVALID_ARGUMENT, "pod CIDR %s and service CIDR %s overlap", pod_cidr, service_cidr);
    snprintf(p->instance, sizeof(p->instance), "%s", instance);
    snprintf(p->prefix, sizeof(p->prefix), "td%s", instance);
    snprintf(p->table, sizeof(p->table), "tandem-%s", instance);
    p->group = (uint32_t)strtoul(instance, NULL, 16) | 1;
    p->metric = 1024 + (p->group >> 1) % 1000000;
    p->host_ip = p->pod_net + 1;
    return 0;
}

static int link_index_is(const struct nlmsghdr *m, const char **ret_name)
{
    const struct ifinfomsg *i = NLMSG_DATA(m);
    const struct nlattr *a;

    if (m->nlmsg_type != RTM_NEWLINK)
        return 0;
    a = nl_attr((const char *)i + NLMSG_ALIGN(sizeof(*i)), m->nlmsg_len - NLMSG_LENGTH(sizeof(*i)), IFLA_IFNAME);
    if (ret_name)
        *ret_name = a ? nl_data(a) : "";
    return i->ifi_index;
}

static bool take_index(void *arg, const struct nlmsghdr *m)
{
    *(int *)arg = link_index_is(m, NULL);
    return true;
}

int net_link_index(struct nl *rt, const char *name)
{
    struct ifinfomsg i = {0};
    struct err ignored = {0};
    struct buf b = {0};
    int index = 0;
    size_t at = nlm_begin(rt, &b, RTM_GETLINK, 0, &i, sizeof(i));

    nlm_str(&b, IFLA_IFNAME, name);
    nlm_end(&b, at);
    nl_ask(rt, &b, take_index, &index, "look for a link", &ignored);
    buf_done(&b);
    return index;
}

static bool take_oif(void *arg, const struct nlmsghdr *m)
{
    const struct rtmsg *r = NLMSG_DATA(m);
    const struct nlattr *a = m->nlmsg_type != RTM_NEWROUTE ? NULL
        : nl_attr((const char *)r + NLMSG_ALIGN(sizeof(*r)), m->nlmsg_len - NLMSG_LENGTH(sizeof(*r)), RTA_OIF);

    if (a)
        *(int *)arg = *(const int *)nl_data(a);
    return true;
}

static bool take_mtu(void *arg, const struct nlmsghdr *m)
{
    const struct ifinfomsg *i = NLMSG_DATA(m);
    const struct nlattr *a = m->nlmsg_type != RTM_NEWLINK ? NULL
        : nl_attr((const char *)i + NLMSG_ALIGN(sizeof(*i)), m->nlmsg_len - NLMSG_LENGTH(sizeof(*i)), IFLA_MTU);

    if (a)
        *(uint32_t *)arg = *(const uint32_t *)nl_data(a);
    return true;
}

uint32_t net_mtu(struct nl *rt)
{
    struct rtmsg r = {.rtm_family = AF_INET, .rtm_dst_len = 32};
    uint32_t dst = htonl(0x08080808), mtu = 1500; /* any address far away */
    struct ifinfomsg i = {0};
    struct err ignored = {0};
    struct buf b = {0};
    int oif = 0;
    size_t at = nlm_begin(rt, &b, RTM_GETROUTE, 0, &r, sizeof(r));

    nlm_put(&b, RTA_DST, &dst, 4);
    nlm_end(&b, at);
    if (nl_ask(rt, &b, take_oif, &oif, "look for the way out", &ignored) == 0 && oif > 1) {
        i.ifi_index = oif;
        buf_reset(&b);
        nlm_end(&b, nlm_begin(rt, &b, RTM_GETLINK, 0, &i, sizeof(i)));
        nl_ask(rt, &b, take_mtu, &mtu, "look at the way out", &ignored);
    }
    buf_done(&b);
    return mtu < 576 || mtu > 9000 ? 1500 : mtu;
}

/* --- forwarding --- */

static int proc_get(const char *path, char *ret, size_t n)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, ret, n - 1);

    if (got <= 0)
        return -1;
    ret[got] = 0;
    ret[strcspn(ret, "\n")] = 0;
    return 0;
}

static int proc_put(const char *path, const char *value)
{
    _auto_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, value, strlen(value)) < 0 ? -1 : 0;
}

static const char FORWARD[] = "/proc/sys/net/ipv4/ip_forward";

static int forward_on(const char *state_path, struct err *err)
{
    char was[16];
    FILE *f;

    if (proc_get(FORWARD, was, sizeof(was)) < 0)
        return err_sys(err, "read %s", FORWARD);
    if (streq(was, "1"))
        return 0;
    if (state_path && access(state_path, F_OK) < 0) { /* for teardown */
        f = fopen(state_path, "we");
        if (!f)
            return err_sys(err, "write %s", state_path);
        fprintf(f, "{\"ipForward\":\"%s\"}\n", was);
        if (fclose(f) != 0)
            return err_sys(err, "write %s", state_path);
    }
    return proc_put(FORWARD, "1") < 0 ? err_sys(err, "write %s", FORWARD) : 0;
}

/* --- address and routes --- */

/* Service addresses are local ones: the host gets a source address for them (ours) without a way
 * out, and a refusal can come from them. Pods' addresses without a pod are nobody's. */
static void put_route(struct nl *rt, struct buf *b, const struct net_plan *p, bool add, bool service)
{
    struct rtmsg r = {.rtm_family = AF_INET, .rtm_table = service ? RT_TABLE_LOCAL : RT_TABLE_MAIN,
                      .rtm_protocol = RTPROT_STATIC};
    uint32_t dst, src = htonl(p->host_ip);
    size_t at;

    r.rtm_dst_len = (unsigned char)net_prefix_len(service ? p->service_mask : p->pod_mask);
    r.rtm_type = service ? RTN_LOCAL : RTN_UNREACHABLE;
    r.rtm_scope = service ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
    dst = htonl(service ? p->service_net : p->pod_net);
    at = nlm_begin(rt, b, add ? RTM_NEWROUTE : RTM_DELROUTE, add ? NLM_F_CREATE | NLM_F_EXCL : 0, &r, sizeof(r));
    nlm_put(b, RTA_DST, &dst, 4);
    nlm_u32(b, RTA_PRIORITY, p->metric);
    if (service) {
        nlm_u32(b, RTA_OIF, 1); /* lo */
        nlm_put(b, RTA_PREFSRC, &src, 4);
    }
    nlm_end(b, at);
}

static void put_host_ip(struct nl *rt, struct buf *b, const struct net_plan *p, bool add)
{
    struct ifaddrmsg a = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 1};
    uint32_t ip = htonl(p->host_ip);
    size_t at = nlm_begin(rt, b, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_EXCL : 0, &a, sizeof(a));

    nlm_put(b, IFA_LOCAL, &ip, 4);
    nlm_put(b, IFA_ADDRESS, &ip, 4);
    nlm_end(b, at);
}

static void put_lo_up(struct nl *rt, struct buf *b)
{
    struct ifinfomsg i = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    nlm_end(b, nlm_begin(rt, b, RTM_NEWLINK, 0, &i, sizeof(i)));
}

int net_host_up(struct nl *rt, const struct net_plan *p, const char *state_path, struct err *err)
{
    struct buf b = {0};
    int rc;

    if (forward_on(state_path, err) < 0)
        return -1;
    put_lo_up(rt, &b); /* down in a fresh namespace */
    put_host_ip(rt, &b, p, true);
    put_route(rt, &b, p, true, false);
    put_route(rt, &b, p, true, true);
    rc = nl_talk(rt, &b, EEXIST, "set up the host's side of the pod network", err);
    buf_done(&b);
    return rc;
}

static bool count_others(void *arg, const struct nlmsghdr *m)
{
    const char *name;

    if (link_index_is(m, &name) && str_starts(name, "td") && strlen(name) == 15)
        ++*(int *)arg;
    return true;
}

static void forward_back(struct nl *rt, const char *state_path)
{
    struct ifinfomsg i = {0};
    struct err ignored = {0};
    struct buf b = {0};
    char text[64];
    int others = 0;

    if (!state_path || proc_get(state_path, text, sizeof(text)) < 0)
        return;
    nlm_end(&b, nlm_begin(rt, &b, RTM_GETLINK, NLM_F_DUMP, &i, sizeof(i)));
    nl_ask(rt, &b, count_others, &others, "list links", &ignored);
    buf_done(&b);
    if (others == 0 && strstr(text, "\"0\""))
        proc_put(FORWARD, "0");
    unlink(state_path);
}

int net_claim(const char *pod_cidr)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "tandem/pods/%.40s", pod_cidr);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0)
        closep(&fd), fd = -1;
    return fd;
}

static int drop_range(struct nl *rt, const struct net_plan *p, struct err *err)
{
    struct buf b = {0};
    int rc = 0;

    for (int service = 0; service < 2; service++) {
        buf_reset(&b);
        put_route(rt, &b, p, false, service);
        rc |= nl_talk(rt, &b, ESRCH, "remove routes", err);
    }
    buf_reset(&b);
    put_host_ip(rt, &b, p, false);
    rc |= nl_talk(rt, &b, EADDRNOTAVAIL, "remove the host's address", err);
    buf_done(&b);
    return rc;
}

int net_teardown(const char *instance, const char *pod_cidr, const char *service_cidr,
                 const char *state_path, struct err *err)
{
    struct ifinfomsg none = {0};
    struct net_plan p = {0};
    struct buf b = {0};
    struct nl rt;
    _auto_(closep) int claim = net_claim(pod_cidr);
    int rc = 0;

    if (net_plan(&p, instance, pod_cidr, service_cidr, err) < 0 || nl_open(&rt, NETLINK_ROUTE, err) < 0)
        return -1;
    size_t at = nlm_begin(&rt, &b, RTM_DELLINK, 0, &none, sizeof(none));
    nlm_u32(&b, IFLA_GROUP, p.group); /* all at once: one grace period, not one a link */
    nlm_end(&b, at);
    rc |= nl_talk(&rt, &b, ENODEV, "remove pod links", err);
    buf_done(&b);
    if (claim >= 0)
        rc |= drop_range(&rt, &p, err);
    rc |= services_drop_table(p.table, err);
    forward_back(&rt, state_path);
    nl_close(&rt);
    return rc ? -1 : 0;
}
