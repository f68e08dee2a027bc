/* network/nl.h - netlink by hand: messages put together in a buffer, sent in one go, answered.
 *
 * Inside this room only. Every request asks for an acknowledgement; nl_talk returns when the last
 * one came or with the first refusal. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <linux/netlink.h>
#include <stdint.h>

struct nl {
    int fd;
    uint32_t seq;
};

int nl_open(struct nl *nl, int protocol, struct err *err); /* in the calling thread's net ns */
void nl_close(struct nl *nl);

/* A message: begin, attributes, end. nest gives the place that nest_end needs. */
size_t nlm_begin(struct nl *nl, struct buf *b, uint16_t type, uint16_t flags, const void *head,
                 size_t head_n);
void nlm_end(struct buf *b, size_t at);
void nlm_put(struct buf *b, uint16_t type, const void *p, size_t n);
void nlm_str(struct buf *b, uint16_t type, const char *s); /* with its 0 */
void nlm_u32(struct buf *b, uint16_t type, uint32_t v);
void nlm_be32(struct buf *b, uint16_t type, uint32_t v);
size_t nlm_nest(struct buf *b, uint16_t type);
void nlm_nest_end(struct buf *b, size_t at);

/* Sends all of b and waits until every message in it was acknowledged. tolerated: an errno that is
 * no failure (0: none). */
int nl_talk(struct nl *nl, struct buf *b, int tolerated, const char *what, struct err *err);
/* The same for a batch of nfnetlink: only the message numbered last is acknowledged. */
int nl_talk_batch(struct nl *nl, struct buf *b, uint32_t last_seq, const char *what, struct err *err);
/* Sends one request and hands every answer to each(). A dump when its flags say so; otherwise one
 * answer. each returns false to stop listening (the rest is drained). */
typedef bool nl_each_fn(void *arg, const struct nlmsghdr *m);
int nl_ask(struct nl *nl, struct buf *b, nl_each_fn *each, void *arg, const char *what,
           struct err *err);
/* The attribute of that type in n bytes of attributes, NULL: none. */
const struct nlattr *nl_attr(const void *attrs, size_t n, uint16_t type);
static inline const void *nl_data(const struct nlattr *a)
{
    return (const char *)a + NLA_HDRLEN;
}
static inline size_t nl_len(const struct nlattr *a)
{
    return a->nla_len - NLA_HDRLEN;
}
