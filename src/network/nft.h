/* network/nft.h - nf_tables messages put together: a batch of tables, sets, chains, rules, elements.
 * Inside this room only. Registers are the 16 of 32 bits: R(0)..R(15). */
#pragma once

#include "network/nl.h"

#include <linux/netfilter/nf_tables.h>

#define R(i) (NFT_REG32_00 + (i))
#define NFT_NONE UINT32_MAX

struct nft {
    struct nl *nl;
    struct buf b;
    const char *table;
    uint32_t last; /* sequence number of the last message */
    struct { /* a message of elements under way */
        size_t at, list;
        char set[32];
        bool add, open;
    } elems;
};

void nft_begin(struct nft *t, struct nl *nl, const char *table);
/* Sends it; t is done with afterwards, whatever came. Nothing to send is fine. */
int nft_commit(struct nft *t, const char *what, struct err *err);

void nft_table(struct nft *t, bool add);
struct nft_set {
    const char *name;
    uint32_t id, flags; /* NFT_SET_* */
    uint32_t key_type, key_len;   /* type: nft's own numbers, 6 bits a part, for listings only */
    uint32_t data_type, data_len; /* NFT_DATA_VERDICT or as key_type; 0: no map */
    uint64_t timeout_ms;
};
void nft_set(struct nft *t, const struct nft_set *s);
/* An element; verdict: the chain to go to, else data. Elements of one set and one kind (add or
 * remove) that follow each other share a message; the next other call ends it. */
void nft_elem(struct nft *t, bool add, const char *set, const void *key, size_t key_n, const void *data,
              size_t data_n, const char *verdict);

struct nft_hook {
    const char *type; /* "nat", "filter" */
    uint32_t hook;
    int32_t priority;
};
void nft_chain(struct nft *t, const char *name, const struct nft_hook *hook); /* hook NULL: a plain chain */

/* A rule: begin, expressions in their order, end. */
size_t nft_rule(struct nft *t, const char *chain);
void nft_rule_end(struct nft *t, size_t at);
void x_payload(struct nft *t, uint32_t base, uint32_t offset, uint32_t len, uint32_t reg);
void x_meta(struct nft *t, uint32_t key, uint32_t reg);
void x_meta_set(struct nft *t, uint32_t key, uint32_t reg);
void x_ct(struct nft *t, uint32_t key, uint32_t reg);
void x_cmp(struct nft *t, uint32_t op, uint32_t reg, const void *p, size_t n);
void x_mask(struct nft *t, uint32_t reg, const void *mask, const void *xor_, size_t n);
void x_immediate(struct nft *t, uint32_t reg, const void *p, size_t n);
void x_verdict(struct nft *t, int32_t code, const char *chain);
void x_lookup(struct nft *t, const char *set, uint32_t from, uint32_t to); /* to NFT_NONE: only "is in" */
void x_dynset(struct nft *t, const char *set, uint32_t op, uint32_t key, uint32_t data, uint64_t timeout_ms);
void x_random(struct nft *t, uint32_t below, uint32_t reg);
void x_fib_type(struct nft *t, uint32_t reg); /* route type of the destination */
void x_fib_source(struct nft *t, uint32_t reg); /* by which link the source is reached, 0: not by the one it came from */
void x_nat(struct nft *t, uint32_t type, uint32_t addr, uint32_t port); /* registers, port 0: none */
void x_masquerade(struct nft *t);
void x_reject(struct nft *t);
