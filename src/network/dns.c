/* Names of the cluster: messages in, messages out; no sockets here.
 *
 * <svc>.<ns>.svc.<domain>            A: cluster address, or the ready hosts of a headless one
 * <host>.<svc>.<ns>.svc.<domain>     A: one host of a headless one (hostname or 1-2-3-4)
 * _<port>._<proto>.<svc>.<ns>.svc... SRV: as many as there are targets
 * <a>-<b>-<c>-<d>.<ns>.pod.<domain>  A: the address it spells
 * <d>.<c>.<b>.<a>.in-addr.arpa       PTR: of cluster addresses and hosts with a hostname
 * dns-version.<domain>               TXT: the version of the specification
 * What is below the domain and not known is NXDOMAIN; known without such records: no error, none. */
#include "network/dns_int.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

enum { A = 1, CNAME = 5, SOA = 6, PTR = 12, TXT = 16, AAAA = 28, SRV = 33, OPT = 41, ANY = 255, IN = 1 };
enum { NOERROR = 0, FORMERR = 1, NXDOMAIN = 3, NOTIMP = 4 };
enum { QR = 0x8000, AA = 0x0400, TC = 0x0200, RD = 0x0100, RA = 0x0080 };

struct known {
    char *namespace_, *name, *external;
    uint32_t ip; /* as in the packet; 0: headless */
    bool not_ready_too;
    struct dns_port *ports;
    struct dns_host *hosts;
    uint32_t n_ports, n_hosts;
};

/* --- what is known --- */

static void reverse_change(struct dns *d, uint32_t ip, const char *name)
{
    char key[16];

    snprintf(key, sizeof(key), "%08x", ntohl(ip));
    if (name)
        free(map_put(&d->reverse, key, xstrdup(name)));
    else
        free(map_del(&d->reverse, key));
}

static void reverse_all(struct dns *d, const struct known *k, bool add)
{
    if (k->ip) {
        _auto_(freep) char *name = xasprintf("%s.%s.svc.%s", k->name, k->namespace_, d->domain);

        reverse_change(d, k->ip, add ? name : NULL);
    }
    for (uint32_t i = 0; !k->ip && i < k->n_hosts; i++) {
        _auto_(freep) char *name = NULL;

        if (!k->hosts[i].hostname[0])
            continue;
        name = xasprintf("%s.%s.%s.svc.%s", k->hosts[i].hostname, k->name, k->namespace_, d->domain);
        reverse_change(d, k->hosts[i].ip.s_addr, add ? name : NULL);
    }
}

static void known_free(struct known *k)
{
    for (uint32_t i = 0; i < k->n_ports; i++)
        free((char *)k->ports[i].name);
    for (uint32_t i = 0; i < k->n_hosts; i++)
        free((char *)k->hosts[i].hostname);
    free(k->ports);
    free(k->hosts);
    free(k->namespace_);
    free(k->name);
    free(k->external);
    free(k);
}

static char *lower(const char *s)
{
    char *c = xstrdup(s ? s : "");

    for (char *p = c; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return c;
}

void dns_set(struct dns *d, const struct dns_service *svc)
{
    struct known *k = xcalloc(1, sizeof(*k));
    _auto_(freep) char *key = NULL;

    dns_del(d, svc->namespace_, svc->name);
    k->namespace_ = lower(svc->namespace_);
    k->name = lower(svc->name);
    k->external = lower(svc->external_name);
    k->ip = svc->cluster_ip.s_addr;
    k->not_ready_too = svc->publish_not_ready;
    k->n_ports = svc->n_ports;
    k->ports = xcalloc(svc->n_ports + 1, sizeof(*k->ports));
    for (uint32_t i = 0; i < svc->n_ports; i++) {
        k->ports[i] = svc->ports[i];
        k->ports[i].name = lower(svc->ports[i].name);
    }
    k->n_hosts = svc->n_hosts;
    k->hosts = xcalloc(svc->n_hosts + 1, sizeof(*k->hosts));
    for (uint32_t i = 0; i < svc->n_hosts; i++) {
        k->hosts[i] = svc->hosts[i];
        k->hosts[i].hostname = lower(svc->hosts[i].hostname);
    }
    while (str_ends(k->external, "."))
        k->external[strlen(k->external) - 1] = 0;
    key = xasprintf("%s/%s", k->namespace_, k->name);
    map_put(&d->services, key, k);
    map_put(&d->spaces, k->namespace_, (void *)((uintptr_t)map_get(&d->spaces, k->namespace_) + 1));
    reverse_all(d, k, true);
}

void dns_del(struct dns *d, const char *namespace_, const char *name)
{
    _auto_(freep) char *ns = lower(namespace_), *n = lower(name);
    _auto_(freep) char *key = xasprintf("%s/%s", ns, n);
    struct known *k = map_del(&d->services, key);
    uintptr_t left;

    if (!k)
        return;
    left = (uintptr_t)map_get(&d->spaces, ns) - 1;
    if (left)
        map_put(&d->spaces, ns, (void *)left);
    else
        map_del(&d->spaces, ns);
    reverse_all(d, k, false);
    known_free(k);
}

struct dns *dns_new(const struct dns_options *o, struct err *err)
{
    struct dns *d = xcalloc(1, sizeof(*d));

    d->domain = lower(str_empty(o->domain) ? "cluster.local" : o->domain);
    d->ttl_s = o->ttl_s ? o->ttl_s : 5;
    if (o->loop && !(d->server = dns_server_start(d, o, err))) {
        dns_free_now(d);
        return NULL;
    }
    return d;
}

void dns_free_now(struct dns *d)
{
    const char *key;
    void *v;

    for (uint32_t i = 0; map_next(&d->services, &i, &key, &v);)
        known_free(v);
    for (uint32_t i = 0; map_next(&d->reverse, &i, &key, &v);)
        free(v);
    map_done(&d->services);
    map_done(&d->spaces);
    map_done(&d->reverse);
    free(d->domain);
    free(d);
}

void *dns_free(struct dns *d)
{
    if (d && d->server)
        dns_server_stop(d->server);
    else if (d)
        dns_free_now(d);
    return NULL;
}

/* --- reading --- */

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

int dns_name_read(const uint8_t *p, size_t n, size_t at, char ret[DNS_NAME_MAX + 1])
{
    size_t start = at, out = 0, took = 0;
    int jumps = 0;

    for (;;) {
        uint8_t len;

        if (at >= n)
            return -1;
        len = p[at];
        if (len >= 0xc0) {
            if (at + 1 >= n || ++jumps > 32)
                return -1;
            if (!took)
                took = at + 2 - start;
            at = (size_t)(len & 0x3f) << 8 | p[at + 1];
            continue;
        }
        if (len > 63)
            return -1;
        at++;
        if (len == 0)
            break;
        if (at + len > n || out + len + 1 > DNS_NAME_MAX)
            return -1;
        if (out)
            ret[out++] = '.';
        for (uint8_t i = 0; i < len; i++) {
            char c = (char)p[at + i];

            if (c == '.' || c == 0)
                c = '\\'; /* matches nothing we know; a name is never printed from here */
            ret[out++] = (char)tolower((unsigned char)c);
        }
        at += len;
    }
    ret[out] = 0;
    return (int)(took ? took : at - start);
}

int dns_question_parse(const uint8_t *p, size_t n, struct dns_question *ret)
{
    size_t at;
    int took;
    char skip[DNS_NAME_MAX + 1];

    *ret = (struct dns_question){.udp_size = 512};
    if (n < 12)
        return -1;
    ret->id = get16(p);
    ret->flags = get16(p + 2);
    if (ret->flags & QR)
        return -1;
    if (get16(p + 4) != 1)
        return -1;
    took = dns_name_read(p, n, 12, ret->name);
    if (took < 0 || 12 + (size_t)took + 4 > n)
        return -1;
    at = 12 + (size_t)took;
    ret->type = get16(p + at);
    ret->class = get16(p + at + 2);
    at += 4;
    ret->end = at;
    for (int left = get16(p + 6) + get16(p + 8) + get16(p + 10); left > 0 && left < 16; left--) {
        took = dns_name_read(p, n, at, skip);
        if (took < 0 || at + (size_t)took + 10 > n)
            break;
        at += (size_t)took;
        if (get16(p + at) == OPT) {
            ret->edns = true;
            ret->udp_size = MAX((size_t)512, (size_t)get16(p + at + 2));
        }
        at += 10 + (size_t)get16(p + at + 8);
    }
    return 0;
}

/* --- writing --- */

struct answer {
    struct dns *d;
    const struct dns_question *q;
    struct buf *b;
    uint16_t n_answers, n_extra;
    int rcode;
};

static void put16(struct buf *b, unsigned v)
{
    uint8_t p[2] = {(uint8_t)(v >> 8), (uint8_t)v};

    buf_add(b, p, 2);
}

static void put32(struct buf *b, uint32_t v)
{
    put16(b, v >> 16);
    put16(b, v & 0xffff);
}

static void put_name(struct buf *b, const char *name)
{
    while (*name) {
        size_t n = strcspn(name, ".");

        if (n > 0 && n < 64) {
            buf_addc(b, (char)n);
            buf_add(b, name, n);
        }
        name += n + (name[n] == '.');
    }
    buf_addc(b, 0);
}

static void set16(struct buf *b, size_t at, unsigned v)
{
    b->p[at] = (char)(v >> 8);
    b->p[at + 1] = (char)v;
}

/* Head of a record; the caller puts the data and ends it. */
static size_t rr_begin(struct answer *a, const char *name, uint16_t type)
{
    if (!name || streq(name, a->q->name))
        put16(a->b, 0xc00c); /* the question's */
    else
        put_name(a->b, name);
    put16(a->b, type);
    put16(a->b, IN);
    put32(a->b, a->d->ttl_s);
    put16(a->b, 0);
    return a->b->n;
}

static void rr_end(struct answer *a, size_t at)
{
    set16(a->b, at - 2, (unsigned)(a->b->n - at));
}

static void put_a(struct answer *a, const char *name, uint32_t ip)
{
    size_t at = rr_begin(a, name, A);

    buf_add(a->b, &ip, 4);
    rr_end(a, at);
}

static void put_soa(struct answer *a)
{
    size_t at;

    at = rr_begin(a, a->d->domain, SOA);
    buf_adds(a->b, "\x02ns\x03" "dns");
    put_name(a->b, a->d->domain);
    buf_adds(a->b, "\x0ahostmaster");
    put_name(a->b, a->d->domain);
    put32(a->b, 1);
    put32(a->b, 7200);
    put32(a->b, 1800);
    put32(a->b, 86400);
    put32(a->b, a->d->ttl_s);
    rr_end(a, at);
}

/* --- answering --- */

static bool wants(const struct answer *a, uint16_t type)
{
    return a->q->type == type || a->q->type == ANY;
}

static const char *host_label(const struct dns_host *h, char text[64])
{
    char ip[16];

    if (h->hostname[0])
        return h->hostname;
    inet_ntop(AF_INET, &h->ip, ip, sizeof(ip));
    snprintf(text, 64, "%s", ip);
    for (char *p = text; *p; p++)
        if (*p == '.')
            *p = '-';
    return text;
}

static bool host_counts(const struct known *k, const struct dns_host *h)
{
    return h->ready || k->not_ready_too;
}

/* The hosts in turn, so that those who take the first address spread. */
#define EACH_HOST(k, h, d)                                                                         \
    for (uint32_t _i = 0, _at = (k)->n_hosts ? (d)->turn++ % (k)->n_hosts : 0; _i < (k)->n_hosts; _i++) \
        for (const struct dns_host *h = &(k)->hosts[(_at + _i) % (k)->n_hosts]; h; h = NULL)       \
            if (host_counts(k, h))

static bool below(const char *name, const char *domain, size_t *ret_left)
{
    size_t n = strlen(name), k = strlen(domain);

    if (n < k || !streq(name + n - k, domain) || (n > k && name[n - k - 1] != '.'))
        return false;
    *ret_left = n > k ? n - k - 1 : 0;
    return true;
}

static const struct known *service_of(struct dns *d, const char *name, const char *ns)
{
    char key[DNS_NAME_MAX + 2];

    snprintf(key, sizeof(key), "%s/%s", ns, name);
    return map_get(&d->services, key);
}

/* A CNAME to a service of our own: its addresses too. One step; a chain of them stays a chain. */
static void answer_target(struct answer *a, const char *name)
{
    char text[DNS_NAME_MAX + 1], *ns, *end;
    const struct known *k;
    size_t left;

    if (!wants(a, A) || !below(name, a->d->domain, &left))
        return;
    snprintf(text, sizeof(text), "%.*s", (int)left, name);
    ns = strchr(text, '.');
    end = ns ? strchr(ns + 1, '.') : NULL;
    if (!end || !streq(end, ".svc"))
        return;
    *ns++ = *end = 0;
    k = service_of(a->d, text, ns);
    if (!k || k->external[0])
        return;
    if (k->ip) {
        put_a(a, name, k->ip);
        a->n_answers++;
        return;
    }
    EACH_HOST(k, h, a->d) {
        put_a(a, name, h->ip.s_addr);
        a->n_answers++;
    }
}

static void answer_service(struct answer *a, const struct known *k)
{
    if (k->external[0]) {
        size_t at = rr_begin(a, NULL, CNAME);

        put_name(a->b, k->external);
        rr_end(a, at);
        a->n_answers++;
        answer_target(a, k->external);
        return;
    }
    if (!wants(a, A))
        return;
    if (k->ip) {
        put_a(a, NULL, k->ip);
        a->n_answers++;
        return;
    }
    EACH_HOST(k, h, a->d) {
        put_a(a, NULL, h->ip.s_addr);
        a->n_answers++;
    }
}

static int answer_host(struct answer *a, const struct known *k, const char *label)
{
    bool found = false;
    char text[64];

    if (k->ip)
        return NXDOMAIN;
    EACH_HOST(k, h, a->d) {
        if (!streq(host_label(h, text), label))
            continue;
        found = true;
        if (wants(a, A)) {
            put_a(a, NULL, h->ip.s_addr);
            a->n_answers++;
        }
    }
    return found ? NOERROR : NXDOMAIN;
}

static void put_srv(struct answer *a, uint16_t port, const char *target)
{
    size_t at = rr_begin(a, NULL, SRV);

    put16(a->b, 0);
    put16(a->b, 100);
    put16(a->b, port);
    put_name(a->b, target);
    rr_end(a, at);
    a->n_answers++;
}

static int answer_srv(struct answer *a, const struct known *k, const char *port, const char *proto)
{
    _auto_(freep) char *own = xasprintf("%s.%s.svc.%s", k->name, k->namespace_, a->d->domain);
    struct buf extra = {0}, *main_ = a->b;
    bool found = false;
    char text[64];

    for (uint32_t i = 0; i < k->n_ports; i++) {
        const struct dns_port *p = &k->ports[i];
        const char *name = p->protocol == 17 ? "udp" : p->protocol == 132 ? "sctp" : "tcp";

        if (!p->name[0] || !streq(p->name, port) || !streq(name, proto))
            continue;
        found = true;
        if (!wants(a, SRV))
            continue;
        if (k->ip) {
            put_srv(a, p->port, own);
            a->b = &extra;
            put_a(a, own, k->ip);
            a->b = main_;
            a->n_extra++;
            continue;
        }
        EACH_HOST(k, h, a->d) {
            _auto_(freep) char *target = xasprintf("%s.%s", host_label(h, text), own);

            put_srv(a, p->port, target);
            a->b = &extra;
            put_a(a, target, h->ip.s_addr);
            a->b = main_;
            a->n_extra++;
        }
    }
    buf_add(a->b, extra.p, extra.n);
    buf_done(&extra);
    return found ? NOERROR : NXDOMAIN;
}

static int answer_pod(struct answer *a, const char *label)
{
    struct in_addr ip;
    char text[64];

    snprintf(text, sizeof(text), "%s", label);
    for (char *p = text; *p; p++)
        if (*p == '-')
            *p = '.';
    if (inet_pton(AF_INET, text, &ip) != 1)
        return NXDOMAIN;
    if (wants(a, A)) {
        put_a(a, NULL, ip.s_addr);
        a->n_answers++;
    }
    return NOERROR;
}

/* name: what is left of the domain, "web.default.svc"; cut into labels from the right. */
static int answer_cluster(struct answer *a, const char *name)
{
    char text[DNS_NAME_MAX + 1], *label[130];
    const struct known *k;
    int n = 0;

    snprintf(text, sizeof(text), "%s", name);
    if (!*text)
        return NOERROR;
    for (char *rest = text, *one; (one = strsep(&rest, "."));)
        label[n++] = one;
    if (n == 1 && streq(label[0], "dns-version")) {
        if (wants(a, TXT)) {
            size_t at = rr_begin(a, NULL, TXT);

            buf_adds(a->b, "\x05" "1.1.0");
            rr_end(a, at);
            a->n_answers++;
        }
        return NOERROR;
    }
    if (streq(label[n - 1], "pod")) {
        if (n == 3)
            return answer_pod(a, label[0]);
        return n < 3 ? NOERROR : NXDOMAIN;
    }
    if (!streq(label[n - 1], "svc"))
        return NXDOMAIN;
    if (n == 1)
        return NOERROR;
    if (n == 2)
        return map_get(&a->d->spaces, label[0]) ? NOERROR : NXDOMAIN;
    k = service_of(a->d, label[n - 3], label[n - 2]);
    if (!k)
        return NXDOMAIN;
    if (n == 3) {
        answer_service(a, k);
        return NOERROR;
    }
    if (n == 4 && label[0][0] != '_')
        return answer_host(a, k, label[0]);
    if (n == 5 && label[0][0] == '_' && label[1][0] == '_')
        return answer_srv(a, k, label[0] + 1, label[1] + 1);
    if (n == 4 && (streq(label[0], "_tcp") || streq(label[0], "_udp")))
        return NOERROR;
    return NXDOMAIN;
}

/* 1 answered, 0 not one of ours. */
static int answer_reverse(struct answer *a)
{
    unsigned v[4];
    char end[16] = "", key[16];
    const char *name;

    if (sscanf(a->q->name, "%3u.%3u.%3u.%3u.in-addr.%15s", &v[0], &v[1], &v[2], &v[3], end) != 5 ||
        !streq(end, "arpa") || (v[0] | v[1] | v[2] | v[3]) > 255)
        return 0;
    snprintf(key, sizeof(key), "%02x%02x%02x%02x", v[3], v[2], v[1], v[0]);
    name = map_get(&a->d->reverse, key);
    if (!name)
        return 0;
    if (wants(a, PTR)) {
        size_t at = rr_begin(a, NULL, PTR);

        put_name(a->b, name);
        rr_end(a, at);
        a->n_answers++;
    }
    return 1;
}

/* Header and question; the counts come at the end. */
static void reply_begin(const uint8_t *query, const struct dns_question *q, struct buf *b)
{
    buf_reset(b);
    buf_add(b, query, q->end ? q->end : 12);
    set16(b, 2, QR | RA | (q->flags & (RD | 0x7800)));
    set16(b, 4, q->end ? 1 : 0);
    set16(b, 6, 0);
    set16(b, 8, 0);
    set16(b, 10, 0);
}

static void put_opt(struct buf *b)
{
    buf_addc(b, 0);
    put16(b, OPT);
    put16(b, DNS_UDP_MAX);
    put32(b, 0);
    put16(b, 0);
}

void dns_refuse(const uint8_t *query, size_t n, int rcode, struct buf *reply)
{
    struct dns_question q;

    if (dns_question_parse(query, n, &q) < 0)
        q.end = 0;
    reply_begin(query, &q, reply);
    set16(reply, 2, get16((uint8_t *)reply->p + 2) | (unsigned)rcode);
}

int dns_answer(struct dns *d, const uint8_t *query, size_t n, size_t udp_max, struct buf *reply)
{
    struct dns_question q;
    struct answer a = {.d = d, .q = &q, .b = reply};
    char name[DNS_NAME_MAX + 1];
    size_t left, limit;

    if (n < 12 || (get16(query + 2) & QR))
        return -1;
    if (dns_question_parse(query, n, &q) < 0) {
        dns_refuse(query, n, FORMERR, reply);
        return 1;
    }
    if (q.flags & 0x7800) {
        dns_refuse(query, n, NOTIMP, reply);
        return 1;
    }
    if (q.class != IN && q.class != ANY)
        return 0;
    reply_begin(query, &q, reply);
    if (below(q.name, d->domain, &left)) {
        snprintf(name, sizeof(name), "%.*s", (int)left, q.name);
        a.rcode = answer_cluster(&a, name);
    } else if (!answer_reverse(&a)) {
        return 0;
    }
    limit = udp_max ? MIN(udp_max, q.udp_size) : DNS_TCP_MAX;
    if (reply->n + (q.edns ? 11 : 0) > limit && a.n_extra) { /* without what is only a courtesy */
        reply->n = 0;
        reply_begin(query, &q, reply);
        a.n_answers = a.n_extra = 0;
        a.rcode = answer_cluster(&a, name);
    }
    if (reply->n + (q.edns ? 11 : 0) > limit) {
        reply_begin(query, &q, reply);
        set16(reply, 2, get16((uint8_t *)reply->p + 2) | TC | AA);
        return 1;
    }
    if (!a.n_answers && below(q.name, d->domain, &left)) {
        put_soa(&a);
        set16(reply, 8, 1);
    }
    if (q.edns) {
        put_opt(reply);
        a.n_extra++;
    }
    set16(reply, 6, a.n_answers);
    set16(reply, 10, a.n_extra);
    set16(reply, 2, get16((uint8_t *)reply->p + 2) | AA | (unsigned)a.rcode);
    return 1;
}

/* --- a CNAME that leads out --- */

bool dns_chases(struct dns *d, const uint8_t *query, size_t n, char ret[DNS_NAME_MAX + 1], uint16_t *ret_type)
{
    struct dns_question q;
    const struct known *k;
    char *first, *ns;
    size_t left;

    if (dns_question_parse(query, n, &q) < 0 || (q.type != A && q.type != AAAA) ||
        !below(q.name, d->domain, &left) || left < 5 || strncmp(q.name + left - 4, ".svc", 4))
        return false;
    q.name[left - 4] = 0;
    first = q.name;
    ns = strchr(first, '.');
    if (!ns || strchr(ns + 1, '.'))
        return false;
    *ns++ = 0;
    k = service_of(d, first, ns);
    if (!k || !k->external[0] || below(k->external, d->domain, &left))
        return false;
    snprintf(ret, DNS_NAME_MAX + 1, "%s", k->external);
    *ret_type = q.type;
    return true;
}

void dns_query_write(const char *name, uint16_t type, uint16_t id, struct buf *b)
{
    buf_reset(b);
    put16(b, id);
    put16(b, RD);
    put16(b, 1);
    put16(b, 0);
    put32(b, 0);
    put_name(b, name);
    put16(b, type);
    put16(b, IN);
}

/* Counts of our reply with what comes before the last section kept: an EDNS record of ours is
 * dropped, the addresses are appended to the answers (ours has no other sections then). */
void dns_merge(const uint8_t *p, size_t n, struct buf *reply)
{
    unsigned answers, ours = get16((uint8_t *)reply->p + 6);
    char name[DNS_NAME_MAX + 1], to[DNS_NAME_MAX + 1];
    size_t at = 12;
    int took;

    if (n < 12)
        return;
    if (get16((uint8_t *)reply->p + 10)) { /* our OPT, 11 bytes at the end */
        reply->n -= 11;
        set16(reply, 10, 0);
    }
    for (int i = get16(p + 4); i > 0; i--) {
        took = dns_name_read(p, n, at, name);
        if (took < 0)
            return;
        at += (size_t)took + 4;
    }
    answers = get16(p + 6);
    for (unsigned i = 0; i < answers && i < 64; i++) {
        uint16_t type, len;
        size_t data;

        took = dns_name_read(p, n, at, name);
        if (took < 0 || at + (size_t)took + 10 > n)
            return;
        at += (size_t)took;
        type = get16(p + at);
        len = get16(p + at + 8);
        data = at + 10;
        if (data + len > n)
            return;
        if (type == A || type == AAAA || (type == CNAME && dns_name_read(p, n, data, to) >= 0)) {
            size_t mark;

            put_name(reply, name);
            buf_add(reply, p + at, 8); /* type, class, time to live */
            put16(reply, 0);
            mark = reply->n;
            if (type == CNAME)
                put_name(reply, to);
            else
                buf_add(reply, p + data, len);
            set16(reply, mark - 2, (unsigned)(reply->n - mark));
            set16(reply, 6, ++ours);
        }
        at = data + len;
    }
}
