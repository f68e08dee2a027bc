/* Flows of UDP that lead to an endpoint which is gone: the kernel would go on sending the client's
 * packets there for as long as the client goes on asking. */
#include "network/net_int.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

struct tuple {
    uint32_t src, dst;
    uint8_t protocol;
    uint16_t sport, dport; /* as in the packet */
};

struct search {
    uint32_t ip, ep_ip;
    uint16_t port, ep_port; /* as in the packet */
    struct buf found;       /* the attribute CTA_TUPLE_ORIG of each, one after the other */
};

static uint32_t u32_of(const struct nlattr *in, uint16_t type)
{
    const struct nlattr *a = in ? nl_attr(nl_data(in), nl_len(in), type) : NULL;
    uint32_t v = 0;

    if (a)
        memcpy(&v, nl_data(a), MIN(nl_len(a), sizeof(v)));
    return v;
}

static bool tuple_read(const struct nlattr *t, struct tuple *ret)
{
    const struct nlattr *ip, *proto;

    if (!t)
        return false;
    ip = nl_attr(nl_data(t), nl_len(t), CTA_TUPLE_IP);
    proto = nl_attr(nl_data(t), nl_len(t), CTA_TUPLE_PROTO);
    if (!ip || !proto)
        return false;
    *ret = (struct tuple){u32_of(ip, CTA_IP_V4_SRC), u32_of(ip, CTA_IP_V4_DST), (uint8_t)u32_of(proto, CTA_PROTO_NUM),
                          (uint16_t)u32_of(proto, CTA_PROTO_SRC_PORT), (uint16_t)u32_of(proto, CTA_PROTO_DST_PORT)};
    return true;
}

static bool look(void *arg, const struct nlmsghdr *m)
{
    struct search *s = arg;
    const char *attrs = (const char *)NLMSG_DATA(m) + sizeof(struct nfgenmsg);
    size_t n = m->nlmsg_len - NLMSG_LENGTH(sizeof(struct nfgenmsg));
    const struct nlattr *orig = nl_attr(attrs, n, CTA_TUPLE_ORIG);
    struct tuple o, r;

    if (tuple_read(orig, &o) && tuple_read(nl_attr(attrs, n, CTA_TUPLE_REPLY), &r) && o.protocol == IPPROTO_UDP &&
        o.dport == s->port && (!s->ip || o.dst == s->ip) && r.src == s->ep_ip && r.sport == s->ep_port)
        buf_add(&s->found, orig, (orig->nla_len + 3u) & ~3u);
    return true;
}

void conntrack_forget_udp(struct in_addr ip, uint16_t port, struct in_addr ep_ip, uint16_t ep_port)
{
    struct search s = {.ip = ip.s_addr, .port = htons(port), .ep_ip = ep_ip.s_addr, .ep_port = htons(ep_port)};
    struct nfgenmsg g = {.nfgen_family = AF_INET, .version = NFNETLINK_V0};
    uint16_t type = NFNL_SUBSYS_CTNETLINK << 8;
    struct err err = {0};
    struct buf b = {0};
    struct nl nl;

    if (nl_open(&nl, NETLINK_NETFILTER, &err) < 0)
        goto out;
    nlm_end(&b, nlm_begin(&nl, &b, (uint16_t)(type | IPCTNL_MSG_CT_GET), NLM_F_DUMP, &g, sizeof(g)));
    if (nl_ask(&nl, &b, look, &s, "list flows", &err) == 0 && s.found.n) {
        buf_reset(&b);
        for (size_t at = 0; at < s.found.n;) {
            const struct nlattr *t = (const struct nlattr *)(s.found.p + at);
            size_t n = (t->nla_len + 3u) & ~3u, m = nlm_begin(&nl, &b, (uint16_t)(type | IPCTNL_MSG_CT_DELETE), 0, &g, sizeof(g));

            buf_add(&b, t, n);
            nlm_end(&b, m);
            at += n;
        }
        nl_talk(&nl, &b, ENOENT, "forget flows", &err);
    }
    nl_close(&nl);
out:
    if (err.code)
        LOG(WARN, "network", "did=stale_flows_stay err=\"%s\"", err.msg);
    buf_done(&b);
    buf_done(&s.found);
}
