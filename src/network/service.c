/* Services as elements. See service.h; the table, with addresses of the default ranges:
 *
 *   map svc   { ip . proto . port : class }            cluster addresses
 *   map np    { proto . port : class }                 node ports and host ports
 *   map ep    { ip . proto . port . slot : ip . port } endpoints; ip 0 for node ports
 *   map class { class : goto CHAIN }                   one CHAIN a number of endpoints in use
 *   map aff   { saddr . ip . proto . port : ip . port } who went where (timeouts)
 *   set live  { ip . proto . port . ip . port }        endpoints of services with affinity
 *   set hair  { ip . ip }                              pods: their way back to themselves
 *   chain prerouting, output   (nat) svc, then np for local addresses, then refuse the rest of
 *                              the service range for our own sources
 *   chain sK   dnat to ip daddr . proto . dport . random % K map @ep        (nK: ip is 0)
 *   chain sKaT the same with affinity of T seconds
 *   chain none reject
 *   chain postrouting (nat) hairpin and 127.0.0.1 as the host's address, pods to outside masqueraded
 *   chain guard (filter) pods have no way to 127.0.0.0/8, which route_localnet would open, and
 *              none with another's address
 *   chain closed (filter) nobody in a pod or a function connects to a function
 *
 * Why a class between svc and the chain instead of a verdict in svc: an element with a verdict
 * makes the kernel walk all elements of the table again to look for loops; a class is entered once.
 * Slots of endpoints are stable: one that goes leaves a hole which the last one fills, so a change
 * of one endpoint writes two or three elements. */
#include "network/service.h"
#include "network/net_int.h"
#include "network/nft.h"

#include "base/log.h"
#include "base/map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <stdio.h>

enum { IP = 7, PROTO = 12, PORT = 13, MARK = 19, CLASSID = 21 }; /* nft's numbers of types, for listings */
#define TYPES2(a, b) ((a) << 6 | (b))
#define TYPES3(a, b, c) (TYPES2(a, b) << 6 | (c))
#define TYPES4(a, b, c, d) (TYPES3(a, b, c) << 6 | (d))
#define TYPES5(a, b, c, d, e) (TYPES4(a, b, c, d) << 6 | (e))

enum { ENDPOINTS_MAX = 4096, PORTS_MAX = 128 };
enum set_id { SVC, NP, EP, LIVE, N_SETS };
static const struct {
    const char *name;
    size_t key_n, data_n;
} SETS[N_SETS] = {{"svc", 12, 4}, {"np", 8, 4}, {"ep", 16, 8}, {"live", 20, 0}};

struct elem {
    uint8_t set;
    uint8_t key[20], data[8];
};
struct port {
    uint8_t protocol;
    uint16_t port, node_port;
    struct service_endpoint *ep;
    uint32_t n_ep;
};
struct service {
    struct in_addr ip;
    uint32_t affinity_s;
    struct port *ports;
    uint32_t n_ports;
    struct elem *elems; /* sorted */
    size_t n_elems;
};

struct services {
    struct net_plan plan;
    struct nl nl;
    struct map all;     /* "namespace/name" -> service */
    struct map classes; /* chain name -> number, as a pointer */
    struct map hair;    /* address in hex -> the services themselves */
    uint32_t n_classes;
    bool held; /* between begin and commit */
};

/* --- the table --- */

static void load_key(struct nft *t, uint32_t reg, bool node)
{
    uint32_t none = 0;

    if (node)
        x_immediate(t, R(reg), &none, 4);
    else
        x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, R(reg));
    x_meta(t, NFT_META_L4PROTO, R(reg + 1));
    x_payload(t, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, R(reg + 2));
}

static void x_in_cidr(struct nft *t, bool source, uint32_t op, uint32_t net, uint32_t mask)
{
    uint32_t n = htonl(net), m = htonl(mask), zero = 0;

    x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, source ? 12 : 16, 4, R(0));
    x_mask(t, R(0), &m, &zero, 4);
    x_cmp(t, op, R(0), &n, 4);
}

static void table_sets(struct nft *t)
{
    static const struct nft_set sets[] = {
        {.name = "svc", .id = 1, .flags = NFT_SET_MAP, .key_type = TYPES3(IP, PROTO, PORT), .key_len = 12,
         .data_type = CLASSID, .data_len = 4},
        {.name = "np", .id = 2, .flags = NFT_SET_MAP, .key_type = TYPES2(PROTO, PORT), .key_len = 8,
         .data_type = CLASSID, .data_len = 4},
        {.name = "ep", .id = 3, .flags = NFT_SET_MAP, .key_type = TYPES4(IP, PROTO, PORT, MARK), .key_len = 16,
         .data_type = TYPES2(IP, PORT), .data_len = 8},
        {.name = "live", .id = 4, .key_type = TYPES5(IP, PROTO, PORT, IP, PORT), .key_len = 20},
        {.name = "class", .id = 5, .flags = NFT_SET_MAP, .key_type = CLASSID, .key_len = 4,
         .data_type = NFT_DATA_VERDICT},
        {.name = "aff", .id = 6, .flags = NFT_SET_MAP | NFT_SET_TIMEOUT | NFT_SET_EVAL,
         .key_type = TYPES4(IP, IP, PROTO, PORT), .key_len = 16, .data_type = TYPES2(IP, PORT), .data_len = 8,
         .timeout_ms = 10800000},
        {.name = "hair", .id = 7, .key_type = TYPES2(IP, IP), .key_len = 8},
    };

    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        nft_set(t, &sets[i]);
}

/* R(4) is a class. It goes by way of the packet's priority, which the class's chain clears: the
 * nft of Debian 12 cannot list a lookup in what another lookup gave (it aborts). Chains with
 * affinity do need that: while there are some, that nft lists nothing. */
static void goto_class(struct nft *t)
{
    x_meta_set(t, NFT_META_PRIORITY, R(4));
    x_meta(t, NFT_META_PRIORITY, R(5));
    x_lookup(t, "class", R(5), NFT_REG_VERDICT);
}

static void clear_class(struct nft *t)
{
    uint32_t zero = 0;

    x_immediate(t, R(15), &zero, 4);
    x_meta_set(t, NFT_META_PRIORITY, R(15));
}

/* prerouting and output: where to look a packet up. */
static void table_dispatch(struct nft *t, const struct net_plan *p, const char *chain, bool output)
{
    uint32_t local = RTN_LOCAL;
    size_t r = nft_rule(t, chain);

    if (!output) /* others' pods have the same service range, perhaps */
        x_in_cidr(t, true, NFT_CMP_EQ, p->pod_net, p->pod_mask);
    load_key(t, 0, false);
    x_lookup(t, "svc", R(0), R(4));
    goto_class(t);
    nft_rule_end(t, r);

    r = nft_rule(t, chain);
    x_fib_type(t, R(0));
    x_cmp(t, NFT_CMP_EQ, R(0), &local, 4);
    x_in_cidr(t, false, NFT_CMP_NEQ, p->service_net, p->service_mask); /* local too: see host.c */
    load_key(t, 0, true);
    x_lookup(t, "np", R(1), R(4));
    goto_class(t);
    nft_rule_end(t, r);

    r = nft_rule(t, chain);
    x_in_cidr(t, true, NFT_CMP_EQ, p->pod_net, p->pod_mask); /* the host's address is one of them */
    x_in_cidr(t, false, NFT_CMP_EQ, p->service_net, p->service_mask);
    x_reject(t);
    nft_rule_end(t, r);
}

static void table_postrouting(struct nft *t, const struct net_plan *p)
{
    uint32_t host = htonl(p->host_ip), dnat = IPS_DST_NAT, zero = 0;
    size_t r = nft_rule(t, "postrouting");

    x_ct(t, NFT_CT_STATUS, R(0));
    x_mask(t, R(0), &dnat, &zero, 4);
    x_cmp(t, NFT_CMP_NEQ, R(0), &zero, 4);
    x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, R(0));
    x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, R(1));
    x_lookup(t, "hair", R(0), NFT_NONE);
    x_immediate(t, R(0), &host, 4);
    x_nat(t, NFT_NAT_SNAT, R(0), 0);
    nft_rule_end(t, r);

    r = nft_rule(t, "postrouting");
    x_in_cidr(t, true, NFT_CMP_EQ, 0x7f000000, 0xff000000);
    x_in_cidr(t, false, NFT_CMP_EQ, p->pod_net, p->pod_mask);
    x_immediate(t, R(0), &host, 4);
    x_nat(t, NFT_NAT_SNAT, R(0), 0);
    nft_rule_end(t, r);

    r = nft_rule(t, "postrouting");
    x_in_cidr(t, true, NFT_CMP_EQ, p->pod_net, p->pod_mask);
    x_in_cidr(t, false, NFT_CMP_NEQ, p->pod_net, p->pod_mask);
    x_meta(t, NFT_META_OIF, R(0));
    x_cmp(t, NFT_CMP_NEQ, R(0), (uint32_t[]){1}, 4); /* not over lo */
    x_masquerade(t);
    nft_rule_end(t, r);
}

/* A function is called through the gateway: what comes from another function or a pod is not for it, only the
 * answers to what it asked. Links of functions are called PREFIXf... (pool.c). */
static void table_closed(struct nft *t, const struct net_plan *p)
{
    const struct nft_hook forward = {"filter", NF_INET_FORWARD, NF_IP_PRI_FILTER};
    uint32_t fresh = NF_CT_STATE_BIT(IP_CT_NEW), zero = 0;
    char links[32];
    size_t r;

    snprintf(links, sizeof links, "%sf", p->prefix);
    nft_chain(t, "closed", &forward);
    r = nft_rule(t, "closed");
    x_meta(t, NFT_META_OIFNAME, NFT_REG_1);
    x_cmp(t, NFT_CMP_EQ, NFT_REG_1, links, strlen(links)); /* begins with */
    x_ct(t, NFT_CT_STATE, R(4));
    x_mask(t, R(4), &fresh, &zero, 4);
    x_cmp(t, NFT_CMP_NEQ, R(4), &zero, 4);
    x_verdict(t, NF_DROP, NULL);
    nft_rule_end(t, r);
}

static void table_make(struct nft *t, const struct net_plan *p)
{
    const struct nft_hook pre = {"nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST},
                          out = {"nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST},
                          post = {"nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC},
                          guard = {"filter", NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE};
    uint32_t none = 0;
    size_t r;

    nft_table(t, true);
    table_sets(t);
    nft_chain(t, "none", NULL);
    r = nft_rule(t, "none");
    x_reject(t);
    nft_rule_end(t, r);
    nft_chain(t, "prerouting", &pre);
    nft_chain(t, "output", &out);
    nft_chain(t, "postrouting", &post);
    nft_chain(t, "guard", &guard);
    nft_elem(t, true, "class", &none, 4, NULL, 0, "none");
    table_dispatch(t, p, "prerouting", false);
    table_dispatch(t, p, "output", true);
    table_postrouting(t, p);
    r = nft_rule(t, "guard");
    x_meta(t, NFT_META_IIFNAME, NFT_REG_1);
    x_cmp(t, NFT_CMP_EQ, NFT_REG_1, p->prefix, strlen(p->prefix)); /* begins with */
    x_in_cidr(t, false, NFT_CMP_EQ, 0x7f000000, 0xff000000);
    x_verdict(t, NF_DROP, NULL);
    nft_rule_end(t, r);
    table_closed(t, p);
    r = nft_rule(t, "guard"); /* a pod speaks with its own address only */
    x_meta(t, NFT_META_IIFNAME, NFT_REG_1);
    x_cmp(t, NFT_CMP_EQ, NFT_REG_1, p->prefix, strlen(p->prefix));
    x_fib_source(t, R(0));
    x_cmp(t, NFT_CMP_EQ, R(0), &none, 4);
    x_verdict(t, NF_DROP, NULL);
    nft_rule_end(t, r);
}

static void rule_affine(struct nft *t, const char *chain, bool node, uint64_t timeout_ms)
{
    size_t r = nft_rule(t, chain);

    clear_class(t);
    x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, R(0));
    load_key(t, 1, node);
    x_lookup(t, "aff", R(0), R(4));
    x_lookup(t, "live", R(1), NFT_NONE);
    x_dynset(t, "aff", NFT_DYNSET_OP_UPDATE, R(0), R(4), timeout_ms);
    x_nat(t, NFT_NAT_DNAT, R(4), R(5));
    nft_rule_end(t, r);
}

static void rule_draw(struct nft *t, const char *chain, uint32_t k, bool node, uint64_t timeout_ms)
{
    size_t r = nft_rule(t, chain);

    clear_class(t);
    load_key(t, 0, node);
    x_random(t, k, R(3));
    x_lookup(t, "ep", R(0), R(8));
    if (timeout_ms) { /* an entry that names a dead endpoint is replaced */
        x_payload(t, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, R(4));
        load_key(t, 5, node);
        x_dynset(t, "aff", NFT_DYNSET_OP_DELETE, R(4), R(8), 0);
        x_dynset(t, "aff", NFT_DYNSET_OP_UPDATE, R(4), R(8), timeout_ms);
    }
    x_nat(t, NFT_NAT_DNAT, R(8), R(9));
    nft_rule_end(t, r);
}

/* The class of k endpoints; a new one is added to the batch. */
static uint32_t class_of(struct services *s, struct nft *t, uint32_t k, bool node, uint32_t affinity_s)
{
    char name[32];
    uint32_t id;

    if (k == 0)
        return 0;
    if (affinity_s)
        snprintf(name, sizeof(name), "%c%ua%u", node ? 'n' : 's', k, affinity_s);
    else
        snprintf(name, sizeof(name), "%c%u", node ? 'n' : 's', k);
    id = (uint32_t)(uintptr_t)map_get(&s->classes, name);
    if (id)
        return id;
    id = ++s->n_classes;
    map_put(&s->classes, name, (void *)(uintptr_t)id);
    nft_chain(t, name, NULL);
    if (affinity_s) {
        rule_affine(t, name, node, (uint64_t)affinity_s * 1000);
        rule_draw(t, name, k, node, (uint64_t)affinity_s * 1000);
    }
    rule_draw(t, name, k, node, 0); /* also when the affinity map is full */
    nft_elem(t, true, "class", &id, 4, NULL, 0, name);
    return id;
}

/* --- elements of a service --- */

static struct elem *add_elem(struct elem **v, size_t *n, size_t *cap, enum set_id set)
{
    if (*n == *cap) {
        *cap = *cap ? *cap * 2 : 16;
        *v = xrealloc(*v, *cap * sizeof(**v));
    }
    (*v)[*n] = (struct elem){.set = (uint8_t)set};
    return &(*v)[(*n)++];
}

static void key_put(uint8_t *key, uint32_t ip_be, uint8_t protocol, uint16_t port)
{
    uint16_t be = htons(port);

    memcpy(key, &ip_be, 4);
    key[4] = protocol;
    memcpy(key + 8, &be, 2);
}

static int elem_cmp(const void *x, const void *y)
{
    const struct elem *a = x, *b = y;

    return a->set != b->set ? a->set - b->set : memcmp(a->key, b->key, sizeof(a->key));
}

/* One way to a port: by cluster address (ip) or by node port (ip 0). */
static void way_elems(struct services *s, struct nft *t, struct service *svc, const struct port *p,
                      uint32_t ip, uint16_t port, size_t *cap)
{
    bool node = ip == 0;
    uint32_t class = class_of(s, t, p->n_ep, node, svc->affinity_s);
    struct elem *e = add_elem(&svc->elems, &svc->n_elems, cap, node ? NP : SVC);
    uint8_t full[12] = {0};

    key_put(full, ip, p->protocol, port);
    memcpy(e->key, node ? full + 4 : full, node ? 8 : 12);
    memcpy(e->data, &class, 4);
    for (uint32_t i = 0; i < p->n_ep; i++) {
        uint16_t be = htons(p->ep[i].port);

        e = add_elem(&svc->elems, &svc->n_elems, cap, EP);
        memcpy(e->key, full, 12);
        memcpy(e->key + 12, &i, 4);
        memcpy(e->data, &p->ep[i].ip, 4);
        memcpy(e->data + 4, &be, 2);
        if (!svc->affinity_s)
            continue;
        e = add_elem(&svc->elems, &svc->n_elems, cap, LIVE);
        memcpy(e->key, full, 12);
        memcpy(e->key + 12, &p->ep[i].ip, 4);
        memcpy(e->key + 16, &be, 2);
    }
}

static void service_elems(struct services *s, struct nft *t, struct service *svc)
{
    size_t cap = svc->n_elems, to = 0;

    svc->n_elems = 0;
    for (uint32_t i = 0; i < svc->n_ports; i++) {
        const struct port *p = &svc->ports[i];

        if (svc->ip.s_addr && p->port)
            way_elems(s, t, svc, p, svc->ip.s_addr, p->port, &cap);
        if (p->node_port)
            way_elems(s, t, svc, p, 0, p->node_port, &cap);
    }
    qsort(svc->elems, svc->n_elems, sizeof(*svc->elems), elem_cmp);
    for (size_t i = 0; i < svc->n_elems; i++) /* a port named twice counts once */
        if (to == 0 || elem_cmp(&svc->elems[to - 1], &svc->elems[i]))
            svc->elems[to++] = svc->elems[i];
    svc->n_elems = to;
}

static void elem_write(struct nft *t, bool add, const struct elem *e)
{
    nft_elem(t, add, SETS[e->set].name, e->key, SETS[e->set].key_n, e->data, SETS[e->set].data_n, NULL);
}

/* Removals first: a key whose data changed is in both lists. Elements are sorted by set, so each
 * set takes one message a list. */
static uint32_t elems_diff(struct nft *t, const struct elem *old, size_t n_old, const struct elem *new,
                           size_t n_new)
{
    uint32_t writes = 0;

    for (int add = 0; add < 2; add++) {
        size_t i = 0, j = 0;

        while (i < n_old || j < n_new) {
            int c = i == n_old ? 1 : j == n_new ? -1 : elem_cmp(&old[i], &new[j]);
            bool changed = c || memcmp(old[i].data, new[j].data, sizeof(new[j].data));

            if (changed && !add && c <= 0) {
                elem_write(t, false, &old[i]);
                writes++;
            }
            if (changed && add && c >= 0) {
                elem_write(t, true, &new[j]);
                writes++;
            }
            i += c <= 0;
            j += c >= 0;
        }
    }
    return writes;
}

/* --- services --- */

static void *service_free(struct service *svc)
{
    if (!svc)
        return NULL;
    for (uint32_t i = 0; i < svc->n_ports; i++)
        free(svc->ports[i].ep);
    free(svc->ports);
    free(svc->elems);
    free(svc);
    return NULL;
}

static bool ep_same(const struct service_endpoint *a, const struct service_endpoint *b)
{
    return a->ip.s_addr == b->ip.s_addr && a->port == b->port;
}

static bool ep_in(const struct service_endpoint *v, uint32_t n, const struct service_endpoint *e)
{
    for (uint32_t i = 0; i < n; i++)
        if (ep_same(&v[i], e))
            return true;
    return false;
}

/* The new endpoints in an order that keeps as many old slots as possible. */
static void slots_keep(struct port *p, const struct service_port *in, const struct port *old)
{
    uint32_t n = MIN(in->n_endpoints, (uint32_t)ENDPOINTS_MAX), put = 0, next = 0;
    struct service_endpoint *want = xcalloc(n + 1, sizeof(*want));
    bool *filled;

    for (uint32_t i = 0; i < n; i++)
        if (!ep_in(want, put, &in->endpoints[i]))
            want[put++] = in->endpoints[i];
    p->n_ep = put;
    if (!old || !put) {
        p->ep = want;
        return;
    }
    p->ep = xcalloc(put, sizeof(*p->ep));
    filled = xcalloc(put, sizeof(*filled));
    for (uint32_t i = 0; i < put && i < old->n_ep; i++)
        if (ep_in(want, put, &old->ep[i])) {
            p->ep[i] = old->ep[i];
            filled[i] = true;
        }
    for (uint32_t i = 0; i < put; i++) {
        bool kept = false;

        for (uint32_t k = 0; k < put && k < old->n_ep && !kept; k++)
            kept = filled[k] && ep_same(&old->ep[k], &want[i]);
        if (kept)
            continue;
        while (filled[next])
            next++;
        p->ep[next] = want[i];
        filled[next] = true;
    }
    free(filled);
    free(want);
}

static struct service *service_new(const struct service_spec *spec, const struct service *old)
{
    struct service *svc = xcalloc(1, sizeof(*svc));

    svc->ip = spec->cluster_ip;
    svc->affinity_s = spec->affinity_s;
    svc->n_ports = MIN(spec->n_ports, (uint32_t)PORTS_MAX);
    svc->ports = xcalloc(svc->n_ports + 1, sizeof(*svc->ports));
    for (uint32_t i = 0; i < svc->n_ports; i++) {
        const struct service_port *in = &spec->ports[i];
        const struct port *before = NULL;

        for (uint32_t k = 0; old && k < old->n_ports && !before; k++)
            if (old->ports[k].protocol == in->protocol && old->ports[k].port == in->port &&
                old->ports[k].node_port == in->node_port)
                before = &old->ports[k];
        svc->ports[i] = (struct port){.protocol = in->protocol, .port = in->port, .node_port = in->node_port};
        slots_keep(&svc->ports[i], in, before);
    }
    return svc;
}

/* Writes everything anew, in one step for packets. Of two services that claim the same key the
 * first counts. */
static int rebuild(struct services *s, struct err *err)
{
    struct map claimed = {0};
    const char *key;
    struct nft t;
    void *v;
    int rc;

    map_done(&s->classes);
    s->classes = (struct map){0};
    s->n_classes = 0;
    nft_begin(&t, &s->nl, s->plan.table);
    nft_table(&t, true); /* so that removing it cannot fail */
    nft_table(&t, false);
    table_make(&t, &s->plan);
    for (uint32_t i = 0; map_next(&s->all, &i, &key, &v);)
        service_elems(s, &t, v);
    for (int set = 0; set < N_SETS; set++)
        for (uint32_t i = 0; map_next(&s->all, &i, &key, &v);) {
            const struct service *svc = v;

            for (size_t k = 0; k < svc->n_elems; k++) {
                char name[48] = {0};

                if (svc->elems[k].set != set)
                    continue;
                name[0] = (char)('a' + set);
                for (size_t c = 0; c < SETS[set].key_n; c++)
                    snprintf(name + 1 + 2 * c, 3, "%02x", svc->elems[k].key[c]);
                if (map_put(&claimed, name, s))
                    LOG(WARN, "network", "service=%s did=left_out why=\"another service has its address or port\"", key);
                else
                    elem_write(&t, true, &svc->elems[k]);
            }
        }
    for (uint32_t i = 0; map_next(&s->hair, &i, &key, &v);) {
        uint32_t ip = htonl((uint32_t)strtoul(key, NULL, 16)), twice[2] = {ip, ip};

        nft_elem(&t, true, "hair", twice, 8, NULL, 0, NULL);
    }
    rc = nft_commit(&t, "write the service table", err);
    map_done(&claimed);
    return rc;
}

/* After the change is written: flows to UDP endpoints that the service has no more. new: NULL when
 * it is gone. */
static void forget_flows(const struct service *old, const struct service *new)
{
    for (uint32_t i = 0; old && i < old->n_ports; i++) {
        const struct port *p = &old->ports[i], *now = NULL;

        if (p->protocol != IPPROTO_UDP)
            continue;
        for (uint32_t k = 0; new && k < new->n_ports && !now; k++)
            if (new->ports[k].protocol == p->protocol && new->ports[k].port == p->port &&
                new->ports[k].node_port == p->node_port && new->ip.s_addr == old->ip.s_addr)
                now = &new->ports[k];
        for (uint32_t e = 0; e < p->n_ep; e++) {
            if (now && ep_in(now->ep, now->n_ep, &p->ep[e]))
                continue;
            if (old->ip.s_addr && p->port)
                conntrack_forget_udp(old->ip, p->port, p->ep[e].ip, p->ep[e].port);
            if (p->node_port)
                conntrack_forget_udp((struct in_addr){0}, p->node_port, p->ep[e].ip, p->ep[e].port);
        }
    }
}

int service_set(struct services *s, const struct service_spec *spec, uint32_t *ret_writes,
                struct err *err)
{
    _auto_(freep) char *key = xasprintf("%s/%s", spec->namespace_, spec->name);
    struct service *old = map_get(&s->all, key), *new = service_new(spec, old);
    struct err e = {0};
    uint32_t writes;
    struct nft t;
    int rc = 0;

    if (ret_writes)
        *ret_writes = 0;
    if (s->held) {
        map_put(&s->all, key, new);
        service_free(old);
        return 0;
    }
    nft_begin(&t, &s->nl, s->plan.table);
    service_elems(s, &t, new);
    writes = elems_diff(&t, old ? old->elems : NULL, old ? old->n_elems : 0, new->elems, new->n_elems);
    map_put(&s->all, key, new);
    if (ret_writes)
        *ret_writes = writes;
    if (nft_commit(&t, "write a service", &e) < 0) {
        /* the kernel's table is not what we think: somebody flushed it, or two services claim one port */
        LOG(WARN, "network", "service=%s did=rebuild err=\"%s\"", key, e.msg);
        rc = rebuild(s, err);
    }
    forget_flows(old, new);
    service_free(old);
    return rc;
}

int service_del(struct services *s, const char *namespace_, const char *name, struct err *err)
{
    _auto_(freep) char *key = xasprintf("%s/%s", namespace_, name);
    struct service *old = map_del(&s->all, key);
    struct err e = {0};
    struct nft t;
    int rc = 0;

    if (!old)
        return 0;
    if (!s->held) {
        nft_begin(&t, &s->nl, s->plan.table);
        elems_diff(&t, old->elems, old->n_elems, NULL, 0);
        if (nft_commit(&t, "remove a service", &e) < 0) {
            LOG(WARN, "network", "service=%s did=rebuild err=\"%s\"", key, e.msg);
            rc = rebuild(s, err);
        }
        forget_flows(old, NULL);
    }
    service_free(old);
    return rc;
}

void services_begin(struct services *s)
{
    s->held = true;
}

int services_commit(struct services *s, struct err *err)
{
    s->held = false;
    return rebuild(s, err);
}

uint32_t services_count(const struct services *s)
{
    return s->all.n;
}

int services_hairpin(struct services *s, struct in_addr pod, struct err *err)
{
    uint32_t twice[2] = {pod.s_addr, pod.s_addr};
    struct err e = {0};
    struct nft t;
    char key[16];

    snprintf(key, sizeof(key), "%08x", ntohl(pod.s_addr));
    if (map_put(&s->hair, key, s) || s->held)
        return 0;
    nft_begin(&t, &s->nl, s->plan.table);
    nft_elem(&t, true, "hair", twice, 8, NULL, 0, NULL);
    if (nft_commit(&t, "enter a pod's address", &e) == 0)
        return 0;
    LOG(WARN, "network", "did=rebuild err=\"%s\"", e.msg);
    return rebuild(s, err);
}

/* --- the table as a whole --- */

static bool is_there(void *arg, const struct nlmsghdr *m)
{
    (void)m;
    *(bool *)arg = true;
    return true;
}

static bool table_there(struct services *s)
{
    struct {
        uint8_t family, version;
        uint16_t res;
    } g = {.family = NFPROTO_IPV4};
    struct err ignored = {0};
    struct buf b = {0};
    size_t at = nlm_begin(&s->nl, &b, (uint16_t)(10 << 8 | NFT_MSG_GETTABLE), 0, &g, sizeof(g));
    bool there = false;

    nlm_str(&b, NFTA_TABLE_NAME, s->plan.table);
    nlm_end(&b, at);
    nl_ask(&s->nl, &b, is_there, &there, "look for the service table", &ignored);
    buf_done(&b);
    return there;
}

struct services *services_new(const struct net_plan *p, struct err *err)
{
    struct services *s = xcalloc(1, sizeof(*s));

    s->plan = *p;
    if (nl_open(&s->nl, NETLINK_NETFILTER, err) < 0 || (!table_there(s) && rebuild(s, err) < 0))
        return services_free(s);
    return s;
}

void *services_free(struct services *s)
{
    const char *key;
    void *v;

    if (!s)
        return NULL;
    for (uint32_t i = 0; map_next(&s->all, &i, &key, &v);)
        service_free(v);
    map_done(&s->all);
    map_done(&s->classes);
    map_done(&s->hair);
    nl_close(&s->nl);
    free(s);
    return NULL;
}

int services_drop_table(const char *table, struct err *err)
{
    struct nl nl;
    struct nft t;
    int rc;

    if (nl_open(&nl, NETLINK_NETFILTER, err) < 0)
        return -1;
    nft_begin(&t, &nl, table);
    nft_table(&t, true);
    nft_table(&t, false);
    rc = nft_commit(&t, "remove the service table", err);
    nl_close(&nl);
    return rc;
}
