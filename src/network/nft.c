#include "network/nft.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>

/* Closes the message of elements under way. */
static void nft_elem_end(struct nft *t)
{
    if (!t->elems.open)
        return;
    nlm_nest_end(&t->b, t->elems.list);
    nlm_end(&t->b, t->elems.at);
    t->elems.open = false;
}

static size_t begin(struct nft *t, int type, uint16_t flags)
{
    struct nfgenmsg g = {.nfgen_family = NFPROTO_IPV4, .version = NFNETLINK_V0};
    size_t at;

    nft_elem_end(t);
    at = nlm_begin(t->nl, &t->b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, &g, sizeof(g));
    t->last = t->nl->seq - 1;
    return at;
}

static void mark(struct nft *t, uint16_t type)
{
    struct nfgenmsg g = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};

    nlm_end(&t->b, nlm_begin(t->nl, &t->b, type, 0, &g, sizeof(g)));
}

void nft_begin(struct nft *t, struct nl *nl, const char *table)
{
    *t = (struct nft){.nl = nl, .table = table};
    mark(t, NFNL_MSG_BATCH_BEGIN);
}

int nft_commit(struct nft *t, const char *what, struct err *err)
{
    struct nlmsghdr *h, *last = NULL;
    int rc = 0;

    nft_elem_end(t);
    if (t->last) {
        for (size_t at = 0; at < t->b.n; at += (h->nlmsg_len + 3u) & ~3u) {
            h = (struct nlmsghdr *)(t->b.p + at);
            if (h->nlmsg_seq == t->last)
                last = h;
        }
        ASSERT(last);
        last->nlmsg_flags |= NLM_F_ACK;
        mark(t, NFNL_MSG_BATCH_END);
        rc = nl_talk_batch(t->nl, &t->b, t->last, what, err);
    }
    buf_done(&t->b);
    t->last = 0;
    return rc;
}

void nft_table(struct nft *t, bool add)
{
    size_t at = begin(t, add ? NFT_MSG_NEWTABLE : NFT_MSG_DELTABLE, add ? NLM_F_CREATE : 0);

    nlm_str(&t->b, NFTA_TABLE_NAME, t->table);
    nlm_end(&t->b, at);
}

static void be64(struct buf *b, uint16_t type, uint64_t v)
{
    v = __builtin_bswap64(v);
    nlm_put(b, type, &v, 8);
}

void nft_set(struct nft *t, const struct nft_set *s)
{
    size_t at = begin(t, NFT_MSG_NEWSET, NLM_F_CREATE);

    nlm_str(&t->b, NFTA_SET_TABLE, t->table);
    nlm_str(&t->b, NFTA_SET_NAME, s->name);
    nlm_be32(&t->b, NFTA_SET_FLAGS, s->flags);
    nlm_be32(&t->b, NFTA_SET_KEY_TYPE, s->key_type);
    nlm_be32(&t->b, NFTA_SET_KEY_LEN, s->key_len);
    if (s->flags & NFT_SET_MAP) {
        nlm_be32(&t->b, NFTA_SET_DATA_TYPE, s->data_type);
        if (s->data_type != NFT_DATA_VERDICT)
            nlm_be32(&t->b, NFTA_SET_DATA_LEN, s->data_len);
    }
    nlm_be32(&t->b, NFTA_SET_ID, s->id);
    if (s->timeout_ms)
        be64(&t->b, NFTA_SET_TIMEOUT, s->timeout_ms);
    nlm_end(&t->b, at);
}

static void put_value(struct buf *b, uint16_t type, const void *p, size_t n)
{
    size_t at = nlm_nest(b, type);

    nlm_put(b, NFTA_DATA_VALUE, p, n);
    nlm_nest_end(b, at);
}

static void put_verdict(struct buf *b, uint16_t type, int32_t code, const char *chain)
{
    size_t at = nlm_nest(b, type), v = nlm_nest(b, NFTA_DATA_VERDICT);

    nlm_be32(b, NFTA_VERDICT_CODE, (uint32_t)code);
    if (chain)
        nlm_str(b, NFTA_VERDICT_CHAIN, chain);
    nlm_nest_end(b, v);
    nlm_nest_end(b, at);
}

void nft_elem(struct nft *t, bool add, const char *set, const void *key, size_t key_n, const void *data,
              size_t data_n, const char *verdict)
{
    typeof(t->elems) *o = &t->elems;
    size_t elem;

    if (o->open && (!streq(o->set, set) || o->add != add || t->b.n - o->list > 60000))
        nft_elem_end(t);
    if (!o->open) {
        size_t at = begin(t, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, add ? NLM_F_CREATE : 0);

        o->at = at;
        o->add = add;
        o->open = true;
        snprintf(o->set, sizeof(o->set), "%s", set);
        nlm_str(&t->b, NFTA_SET_ELEM_LIST_TABLE, t->table);
        nlm_str(&t->b, NFTA_SET_ELEM_LIST_SET, set);
        o->list = nlm_nest(&t->b, NFTA_SET_ELEM_LIST_ELEMENTS);
    }
    elem = nlm_nest(&t->b, NFTA_LIST_ELEM);
    put_value(&t->b, NFTA_SET_ELEM_KEY, key, key_n);
    if (add && verdict)
        put_verdict(&t->b, NFTA_SET_ELEM_DATA, NFT_GOTO, verdict);
    else if (add && data_n)
        put_value(&t->b, NFTA_SET_ELEM_DATA, data, data_n);
    nlm_nest_end(&t->b, elem);
}

void nft_chain(struct nft *t, const char *name, const struct nft_hook *hook)
{
    size_t at = begin(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE), h;

    nlm_str(&t->b, NFTA_CHAIN_TABLE, t->table);
    nlm_str(&t->b, NFTA_CHAIN_NAME, name);
    if (hook) {
        h = nlm_nest(&t->b, NFTA_CHAIN_HOOK);
        nlm_be32(&t->b, NFTA_HOOK_HOOKNUM, hook->hook);
        nlm_be32(&t->b, NFTA_HOOK_PRIORITY, (uint32_t)hook->priority);
        nlm_nest_end(&t->b, h);
        nlm_str(&t->b, NFTA_CHAIN_TYPE, hook->type);
        nlm_be32(&t->b, NFTA_CHAIN_POLICY, NF_ACCEPT);
    }
    nlm_end(&t->b, at);
}

/* --- rules --- */

size_t nft_rule(struct nft *t, const char *chain)
{
    size_t at = begin(t, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

    nlm_str(&t->b, NFTA_RULE_TABLE, t->table);
    nlm_str(&t->b, NFTA_RULE_CHAIN, chain);
    nlm_nest(&t->b, NFTA_RULE_EXPRESSIONS);
    return at;
}

void nft_rule_end(struct nft *t, size_t at)
{
    /* The expressions are the last attribute of the message. */
    const char *attrs = t->b.p + at + NLMSG_HDRLEN + sizeof(struct nfgenmsg);
    size_t pos = (size_t)(attrs - t->b.p);

    for (int skip = 0; skip < 2; skip++) { /* table and chain */
        const struct nlattr *a = (const struct nlattr *)(t->b.p + pos);
        pos += (a->nla_len + 3u) & ~(size_t)3;
    }
    nlm_nest_end(&t->b, pos);
    nlm_end(&t->b, at);
}

struct expr {
    size_t elem, data;
};
static struct expr x_begin(struct nft *t, const char *name)
{
    struct expr x;

    x.elem = nlm_nest(&t->b, NFTA_LIST_ELEM);
    nlm_str(&t->b, NFTA_EXPR_NAME, name);
    x.data = nlm_nest(&t->b, NFTA_EXPR_DATA);
    return x;
}
static void x_end(struct nft *t, struct expr x)
{
    nlm_nest_end(&t->b, x.data);
    nlm_nest_end(&t->b, x.elem);
}

void x_payload(struct nft *t, uint32_t base, uint32_t offset, uint32_t len, uint32_t reg)
{
    struct expr x = x_begin(t, "payload");

    nlm_be32(&t->b, NFTA_PAYLOAD_DREG, reg);
    nlm_be32(&t->b, NFTA_PAYLOAD_BASE, base);
    nlm_be32(&t->b, NFTA_PAYLOAD_OFFSET, offset);
    nlm_be32(&t->b, NFTA_PAYLOAD_LEN, len);
    x_end(t, x);
}

void x_meta(struct nft *t, uint32_t key, uint32_t reg)
{
    struct expr x = x_begin(t, "meta");

    nlm_be32(&t->b, NFTA_META_KEY, key);
    nlm_be32(&t->b, NFTA_META_DREG, reg);
    x_end(t, x);
}

void x_meta_set(struct nft *t, uint32_t key, uint32_t reg)
{
    struct expr x = x_begin(t, "meta");

    nlm_be32(&t->b, NFTA_META_KEY, key);
    nlm_be32(&t->b, NFTA_META_SREG, reg);
    x_end(t, x);
}

void x_ct(struct nft *t, uint32_t key, uint32_t reg)
{
    struct expr x = x_begin(t, "ct");

    nlm_be32(&t->b, NFTA_CT_KEY, key);
    nlm_be32(&t->b, NFTA_CT_DREG, reg);
    x_end(t, x);
}

void x_cmp(struct nft *t, uint32_t op, uint32_t reg, const void *p, size_t n)
{
    struct expr x = x_begin(t, "cmp");

    nlm_be32(&t->b, NFTA_CMP_SREG, reg);
    nlm_be32(&t->b, NFTA_CMP_OP, op);
    put_value(&t->b, NFTA_CMP_DATA, p, n);
    x_end(t, x);
}

void x_mask(struct nft *t, uint32_t reg, const void *mask, const void *xor_, size_t n)
{
    struct expr x = x_begin(t, "bitwise");

    nlm_be32(&t->b, NFTA_BITWISE_SREG, reg);
    nlm_be32(&t->b, NFTA_BITWISE_DREG, reg);
    nlm_be32(&t->b, NFTA_BITWISE_LEN, (uint32_t)n);
    put_value(&t->b, NFTA_BITWISE_MASK, mask, n);
    put_value(&t->b, NFTA_BITWISE_XOR, xor_, n);
    x_end(t, x);
}

void x_immediate(struct nft *t, uint32_t reg, const void *p, size_t n)
{
    struct expr x = x_begin(t, "immediate");

    nlm_be32(&t->b, NFTA_IMMEDIATE_DREG, reg);
    put_value(&t->b, NFTA_IMMEDIATE_DATA, p, n);
    x_end(t, x);
}

void x_verdict(struct nft *t, int32_t code, const char *chain)
{
    struct expr x = x_begin(t, "immediate");

    nlm_be32(&t->b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    put_verdict(&t->b, NFTA_IMMEDIATE_DATA, code, chain);
    x_end(t, x);
}

void x_lookup(struct nft *t, const char *set, uint32_t from, uint32_t to)
{
    struct expr x = x_begin(t, "lookup");

    nlm_str(&t->b, NFTA_LOOKUP_SET, set);
    nlm_be32(&t->b, NFTA_LOOKUP_SREG, from);
    if (to != NFT_NONE)
        nlm_be32(&t->b, NFTA_LOOKUP_DREG, to);
    x_end(t, x);
}

void x_dynset(struct nft *t, const char *set, uint32_t op, uint32_t key, uint32_t data, uint64_t timeout_ms)
{
    struct expr x = x_begin(t, "dynset");

    nlm_str(&t->b, NFTA_DYNSET_SET_NAME, set);
    nlm_be32(&t->b, NFTA_DYNSET_OP, op);
    nlm_be32(&t->b, NFTA_DYNSET_SREG_KEY, key);
    if (data)
        nlm_be32(&t->b, NFTA_DYNSET_SREG_DATA, data);
    if (timeout_ms)
        be64(&t->b, NFTA_DYNSET_TIMEOUT, timeout_ms);
    x_end(t, x);
}

void x_random(struct nft *t, uint32_t below, uint32_t reg)
{
    struct expr x = x_begin(t, "numgen");

    nlm_be32(&t->b, NFTA_NG_DREG, reg);
    nlm_be32(&t->b, NFTA_NG_MODULUS, below);
    nlm_be32(&t->b, NFTA_NG_TYPE, NFT_NG_RANDOM);
    x_end(t, x);
}

void x_fib_type(struct nft *t, uint32_t reg)
{
    struct expr x = x_begin(t, "fib");

    nlm_be32(&t->b, NFTA_FIB_DREG, reg);
    nlm_be32(&t->b, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    nlm_be32(&t->b, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
    x_end(t, x);
}

void x_fib_source(struct nft *t, uint32_t reg)
{
    struct expr x = x_begin(t, "fib");

    nlm_be32(&t->b, NFTA_FIB_DREG, reg);
    nlm_be32(&t->b, NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
    nlm_be32(&t->b, NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
    x_end(t, x);
}

void x_nat(struct nft *t, uint32_t type, uint32_t addr, uint32_t port)
{
    struct expr x = x_begin(t, "nat");

    nlm_be32(&t->b, NFTA_NAT_TYPE, type);
    nlm_be32(&t->b, NFTA_NAT_FAMILY, NFPROTO_IPV4);
    nlm_be32(&t->b, NFTA_NAT_REG_ADDR_MIN, addr);
    if (port)
        nlm_be32(&t->b, NFTA_NAT_REG_PROTO_MIN, port);
    x_end(t, x);
}

void x_masquerade(struct nft *t)
{
    x_end(t, x_begin(t, "masq"));
}

void x_reject(struct nft *t)
{
    struct expr x = x_begin(t, "reject");
    uint8_t port_unreachable = 3;

    nlm_be32(&t->b, NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH);
    nlm_put(&t->b, NFTA_REJECT_ICMP_CODE, &port_unreachable, 1);
    x_end(t, x);
}
