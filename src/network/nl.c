#include "network/nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ALIGN4(n) (((n) + 3u) & ~(size_t)3)

int nl_open(struct nl *nl, int protocol, struct err *err)
{
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK};
    struct timeval wait = {.tv_sec = 10};
    int on = 1, big = 32 << 20;

    nl->seq = 1;
    nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (nl->fd < 0)
        return err_sys(err, "open a netlink socket");
    setsockopt(nl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    setsockopt(nl->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
    setsockopt(nl->fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
    setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
    setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    if (bind(nl->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        err_sys(err, "bind a netlink socket");
        nl_close(nl);
        return -1;
    }
    return 0;
}

void nl_close(struct nl *nl)
{
    if (nl->fd >= 0)
        close(nl->fd);
    nl->fd = -1;
}

static void pad(struct buf *b)
{
    while (b->n & 3)
        buf_addc(b, 0);
}

size_t nlm_begin(struct nl *nl, struct buf *b, uint16_t type, uint16_t flags, const void *head,
                 size_t head_n)
{
    struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST),
                         .nlmsg_seq = nl->seq++};
    size_t at = b->n;

    buf_add(b, &h, sizeof(h));
    buf_add(b, head, head_n);
    pad(b);
    return at;
}

void nlm_end(struct buf *b, size_t at)
{
    struct nlmsghdr *h = (struct nlmsghdr *)(b->p + at);

    h->nlmsg_len = (uint32_t)(b->n - at);
}

void nlm_put(struct buf *b, uint16_t type, const void *p, size_t n)
{
    struct nlattr a = {.nla_len = (uint16_t)(NLA_HDRLEN + n), .nla_type = type};

    ASSERT(n + NLA_HDRLEN <= UINT16_MAX);
    buf_add(b, &a, sizeof(a));
    buf_add(b, p, n);
    pad(b);
}

void nlm_str(struct buf *b, uint16_t type, const char *s)
{
    nlm_put(b, type, s, strlen(s) + 1);
}

void nlm_u32(struct buf *b, uint16_t type, uint32_t v)
{
    nlm_put(b, type, &v, 4);
}

void nlm_be32(struct buf *b, uint16_t type, uint32_t v)
{
    nlm_u32(b, type, htonl(v));
}

size_t nlm_nest(struct buf *b, uint16_t type)
{
    struct nlattr a = {.nla_type = (uint16_t)(type | NLA_F_NESTED)};
    size_t at = b->n;

    buf_add(b, &a, sizeof(a));
    return at;
}

void nlm_nest_end(struct buf *b, size_t at)
{
    struct nlattr *a = (struct nlattr *)(b->p + at);

    ASSERT(b->n - at <= UINT16_MAX);
    a->nla_len = (uint16_t)(b->n - at);
}

const struct nlattr *nl_attr(const void *attrs, size_t n, uint16_t type)
{
    const char *p = attrs, *end = p + n;

    while (end - p >= (ptrdiff_t)sizeof(struct nlattr)) {
        const struct nlattr *a = (const struct nlattr *)p;

        if (a->nla_len < NLA_HDRLEN || a->nla_len > end - p)
            return NULL;
        if ((a->nla_type & NLA_TYPE_MASK) == type)
            return a;
        p += ALIGN4(a->nla_len);
    }
    return NULL;
}

static int send_all(struct nl *nl, struct buf *b, const char *what, struct err *err)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    ssize_t n;

    do
        n = sendto(nl->fd, b->p, b->n, 0, (struct sockaddr *)&to, sizeof(to));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_sys(err, "%s: netlink send", what);
    return 0;
}

/* What the kernel says about a refusal beside the number. */
static void refusal(const struct nlmsghdr *m, int error, const char *what, struct err *err)
{
    const struct nlmsgerr *e = NLMSG_DATA(m);
    size_t off = sizeof(*e);
    const struct nlattr *text = NULL;

    if (m->nlmsg_flags & NLM_F_ACK_TLVS) {
        if (!(m->nlmsg_flags & NLM_F_CAPPED))
            off += e->msg.nlmsg_len - sizeof(struct nlmsghdr);
        off = ALIGN4(off);
        if (off < m->nlmsg_len - NLMSG_HDRLEN)
            text = nl_attr((const char *)e + off, m->nlmsg_len - NLMSG_HDRLEN - off, NLMSGERR_ATTR_MSG);
    }
    errno = error;
    if (text)
        err_sys(err, "%s: %.*s", what, (int)nl_len(text), (const char *)nl_data(text));
    else
        err_sys(err, "%s", what);
}

/* Reads answers until done() says so. */
struct answer {
    nl_each_fn *each; /* data messages, may be NULL */
    void *arg;
    uint32_t first, last; /* sequence numbers that are ours */
    int tolerated;
    bool until_last; /* else: one acknowledgement a number */
    bool stopped;
};

static int receive(struct nl *nl, struct answer *w, const char *what, struct err *err)
{
    static _Thread_local char in[1 << 16] __attribute__((aligned(8)));
    uint32_t waiting = w->until_last ? 1 : w->last - w->first + 1;
    bool failed = false;

    while (waiting > 0) {
        ssize_t n = recv(nl->fd, in, sizeof(in), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed ? -1 : err_sys(err, "%s: netlink receive", what);
        for (struct nlmsghdr *m = (struct nlmsghdr *)in; NLMSG_OK(m, n); m = NLMSG_NEXT(m, n)) {
            const struct nlmsgerr *e = NLMSG_DATA(m);

            if (m->nlmsg_seq < w->first || m->nlmsg_seq > w->last)
                continue; /* of an earlier, broken off exchange */
            if (m->nlmsg_type == NLMSG_DONE) {
                waiting = 0;
            } else if (m->nlmsg_type == NLMSG_ERROR) {
                if (e->error && -e->error != w->tolerated) {
                    if (!failed)
                        refusal(m, -e->error, what, err);
                    failed = true;
                }
                if (!w->until_last)
                    waiting--;
                else if (m->nlmsg_seq == w->last || e->error)
                    waiting = 0;
            } else if (m->nlmsg_type > NLMSG_DONE) {
                if (w->each && !w->stopped && !w->each(w->arg, m))
                    w->stopped = true;
                if (!(m->nlmsg_flags & NLM_F_MULTI) && w->each)
                    waiting--;
            }
        }
    }
    return failed ? -1 : 0;
}

int nl_talk(struct nl *nl, struct buf *b, int tolerated, const char *what, struct err *err)
{
    struct answer w = {.first = UINT32_MAX, .tolerated = tolerated};

    for (size_t at = 0; at < b->n;) {
        struct nlmsghdr *h = (struct nlmsghdr *)(b->p + at);

        h->nlmsg_flags |= NLM_F_ACK;
        w.first = MIN(w.first, h->nlmsg_seq);
        w.last = h->nlmsg_seq;
        at += ALIGN4(h->nlmsg_len);
    }
    if (b->n == 0)
        return 0;
    if (send_all(nl, b, what, err) < 0)
        return -1;
    return receive(nl, &w, what, err);
}

int nl_talk_batch(struct nl *nl, struct buf *b, uint32_t last_seq, const char *what, struct err *err)
{
    struct answer w = {.first = ((struct nlmsghdr *)b->p)->nlmsg_seq, .last = last_seq, .until_last = true};

    if (send_all(nl, b, what, err) < 0)
        return -1;
    return receive(nl, &w, what, err);
}

int nl_ask(struct nl *nl, struct buf *b, nl_each_fn *each, void *arg, const char *what,
           struct err *err)
{
    uint32_t seq = ((struct nlmsghdr *)b->p)->nlmsg_seq;
    struct answer w = {.each = each, .arg = arg, .first = seq, .last = seq};

    if (send_all(nl, b, what, err) < 0)
        return -1;
    return receive(nl, &w, what, err);
}
