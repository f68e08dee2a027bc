/* The pool of network namespaces. See network.h.
 *
 * A member ("slot") is a namespace, a netlink socket that lives in it, the two ends of a veth pair
 * and one address. What the kernel is told about it (wire.c) takes up to milliseconds and waits for everybody else who
 * tells it something: with a loop it is done by a thread (builder.c), without one on the spot. The books are kept here, on
 * the owner's thread.
 *
 *   building -> IDLE -> USED -> re-addressed -> IDLE       or deleted, when there are enough
 *   FOUND (after a restart) -> USED by net_adopt()
 *
 * An idle slot has its address already, so taking it is one message (the alias), or none (unnamed). */
#include "network/net_int.h"

#include "base/log.h"
#include "base/map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>
#include <uv.h>

enum {
    SLOTS_MAX = 0xffff,
    BUILD_AT_ONCE = 64, /* asked of the builder and not yet there */
    AHEAD_MAX = 128,    /* ready for who comes next, after there were too few */
    RAISE_MS = 1000,    /* who found none doubles that, this often */
    FAILURES_MAX = 5,   /* in a row; then the refill rests until somebody asks again */
    LOOK_MS = 10000,    /* this often half of what nobody needed meanwhile goes */
};

struct net {
    struct net_options o;
    struct net_plan plan;
    char pool;
    char host_ip[16];
    struct nl rt;
    struct wire wire;
    struct builder *builder; /* NULL: all is done on the spot */
    uv_timer_t look;
    struct services *services;
    struct list idle;
    struct map used; /* owner -> slot; also FOUND ones */
    uint32_t *free_ip, free_at, free_n, free_cap; /* a ring: addresses nobody has, longest free first */
    uint8_t *ids;    /* SLOTS_MAX bits: names in use */
    uint32_t next_id;
    uint32_t coming; /* the builder is at them, to become idle */
    uint32_t ahead, wanted, idle_least; /* kept ready; asked for beside; the fewest that were idle since the last look */
    uint64_t raised_ms; /* when ahead was, last */
    bool closing;
    int failures; /* in a row */
    struct err why; /* the last one */
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

/* --- members --- */

/* Name and address for one to be built. */
static struct slot *slot_new(struct net *n, struct err *err)
{
    struct slot *s;
    uint32_t id = 0, ip = 0;

    if (!n->wire.bare && !(ip = ip_take(n))) {
        err_set(err, TOO_MANY, "all pod addresses are in use");
        return NULL;
    }
    if (!n->wire.bare && !id_take(n, &id)) {
        ip_back(n, ip);
        err_set(err, TOO_MANY, "more than %d pods", SLOTS_MAX);
        return NULL;
    }
    s = xcalloc(1, sizeof(*s));
    s->pub.fd = s->ns.fd = -1;
    if (n->wire.bare)
        return s;
    s->id = id;
    s->ip = ip;
    ip_text(ip, s->pub.ip);
    snprintf(s->pub.ifname, sizeof(s->pub.ifname), "%s%c%04x", n->plan.prefix, n->pool, id);
    memcpy(s->mac, net_host_mac, 3);
    s->mac[3] = (unsigned char)n->pool;
    s->mac[4] = (unsigned char)(id >> 8);
    s->mac[5] = (unsigned char)id;
    return s;
}

static void slot_forget(struct net *n, struct slot *s)
{
    if (!n->wire.bare) {
        ip_back(n, s->ip);
        id_back(n, s->id);
    }
    slot_free(s);
}

/* Nobody is in it: it is deleted, its name and its address are free again. */
static void slot_let_go(struct net *n, struct slot *s)
{
    if (n->builder) {
        builder_ask(n->builder, s, SLOT_DROP);
        return;
    }
    if (s->state == SLOT_FOUND)
        slots_delete(&n->wire, &s, 1, &n->rt);
    else
        slot_unroute(s, &n->rt); /* the address may come again before the kernel has swept */
    slot_forget(n, s);
}

static struct slot *slot_make_now(struct net *n, struct err *err)
{
    for (int tries = 0; tries < 16; tries++) {
        struct slot *s = slot_new(n, err);
        struct err e = {0};

        if (!s)
            return NULL;
        if (slot_build(&n->wire, s, &n->rt, &e) == 0) {
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

static void refill(struct net *n)
{
    if (!n->builder || n->closing || n->failures >= FAILURES_MAX)
        return;
    while (n->counts.idle + n->coming < n->ahead + n->wanted && n->coming < BUILD_AT_ONCE) {
        struct slot *s = slot_new(n, &n->why);

        if (!s)
            return;
        n->coming++;
        builder_ask(n->builder, s, SLOT_BUILD);
    }
}

static void idle_drop(struct net *n, uint32_t count)
{
    for (; count && n->counts.idle; count--) {
        struct list *l = list_first(&n->idle);

        list_remove(l);
        n->counts.idle--;
        slot_let_go(n, list_entry(l, struct slot, link));
    }
    n->idle_least = n->counts.idle;
}

static void on_look(uv_timer_t *t)
{
    struct net *n = t->data;

    n->ahead = MAX(n->ahead / 2, n->o.idle_min);
    if (n->idle_least > n->ahead)
        idle_drop(n, (n->idle_least - n->ahead + 1) / 2);
    n->idle_least = n->counts.idle;
    if (n->ahead == n->o.idle_min && n->counts.idle <= n->ahead)
        uv_timer_stop(t);
}

/* There are more than are always kept: they will be looked at. */
static void look_soon(struct net *n)
{
    if (n->builder && !uv_is_active((uv_handle_t *)&n->look)) {
        uv_timer_start(&n->look, on_look, LOOK_MS, LOOK_MS);
        uv_unref((uv_handle_t *)&n->look);
    }
}

static void idle_put(struct net *n, struct slot *s)
{
    s->state = SLOT_IDLE;
    list_push(&n->idle, &s->link);
    n->counts.idle++;
    if (n->counts.idle > n->o.idle_min)
        look_soon(n);
}

static void on_built(struct net *n, struct slot *s)
{
    if (!s->failed) {
        n->failures = 0;
        n->counts.made++;
        idle_put(n, s);
    } else if (s->err.sys == EEXIST) { /* a name that an earlier life's namespace still has */
        ip_back(n, s->ip);
        slot_free(s);
    } else {
        LOG(WARN, "network", "did=pool_build_failed err=\"%s\"", s->err.msg);
        n->failures++;
        n->why = s->err;
        slot_let_go(n, s);
    }
}

static void on_readdressed(struct net *n, struct slot *s)
{
    ip_back(n, s->failed ? s->next_ip : s->last_ip);
    if (s->failed) {
        LOG(WARN, "network", "link=%s did=let_go err=\"%s\"", s->pub.ifname, s->err.msg);
        slot_let_go(n, s);
        return;
    }
    n->counts.recycled++;
    idle_put(n, s);
}

static void on_done(void *arg, struct mbox_msg *msg)
{
    struct slot *s = container_of(msg, struct slot, msg);
    struct net *n = arg;

    if (n->closing) {
        slot_free(s);
        return;
    }
    if (s->job == SLOT_DROP) {
        slot_forget(n, s);
        return;
    }
    n->coming--;
    if (s->job == SLOT_BUILD)
        on_built(n, s);
    else
        on_readdressed(n, s);
    if (n->wanted && (n->counts.idle || !n->coming) && n->o.on_ready)
        n->o.on_ready(n->o.arg);
    refill(n);
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
    memcpy(s->mac, net_host_mac, 3);
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

static void net_free(struct net *n);

static int open_wired(struct net *n, const struct net_options *o, struct err *err)
{
    if (n->pool != 'p' && n->pool != 'f')
        return err_set(err, INVALID_ARGUMENT, "a pool is 'p', 'f' or 'e'");
    if (net_plan(&n->plan, o->instance, o->pod_cidr, o->service_cidr, err) < 0 || nl_open(&n->rt, NETLINK_ROUTE, err) < 0 ||
        net_host_up(&n->rt, &n->plan, o->state_path, err) < 0 || find_again(n, err) < 0)
        return -1;
    n->o.instance = n->o.pod_cidr = n->o.service_cidr = n->o.state_path = NULL; /* the caller's */
    ip_text(n->plan.host_ip, n->host_ip);
    n->wire = (struct wire){.plan = &n->plan, .mtu = net_mtu(&n->rt), .ipv6 = access("/proc/sys/net/ipv6", F_OK) == 0, .unnamed = o->unnamed};
    return n->pool == 'p' && !(n->services = services_new(&n->plan, err)) ? -1 : 0;
}

static int open_bare(struct net *n)
{
    n->wire = (struct wire){.bare = true, .unnamed = true};
    return 0;
}

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
    if ((n->pool == 'e' ? open_bare(n) : open_wired(n, o, err)) < 0 ||
        (o->loop && !(n->builder = builder_new(&n->wire, o->loop, on_done, n, err)))) {
        net_free(n);
        return NULL;
    }
    n->ahead = n->o.idle_min;
    if (n->builder) {
        uv_timer_init(o->loop, &n->look);
        n->look.data = n;
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

static void on_look_closed(uv_handle_t *h)
{
    net_free(h->data);
}

void *net_close(struct net *n)
{
    if (!n)
        return NULL;
    n->closing = true;
    if (!n->builder) {
        net_free(n);
        return NULL;
    }
    n->builder = builder_free(n->builder);
    uv_close((uv_handle_t *)&n->look, on_look_closed);
    return NULL;
}

const struct net_ns *net_find(const struct net *n, const char *owner)
{
    const struct slot *s = map_get(&n->used, owner);

    return s ? &s->pub : NULL;
}

static const struct net_ns *slot_use(struct net *n, struct slot *s, const char *owner)
{
    s->owner = xstrdup(owner);
    s->pub.owner = s->owner;
    s->state = SLOT_USED;
    map_put(&n->used, owner, s);
    n->counts.used++;
    refill(n);
    return &s->pub;
}

static struct slot *idle_take(struct net *n)
{
    struct list *l = list_first(&n->idle);

    if (!l)
        return NULL;
    list_remove(l);
    n->counts.idle--;
    n->idle_least = MIN(n->idle_least, n->counts.idle);
    return list_entry(l, struct slot, link);
}

static int may_own(const struct net *n, const char *owner, struct err *err)
{
    if (str_empty(owner) || strlen(owner) > 200)
        return err_set(err, INVALID_ARGUMENT, "an owner has 1 to 200 bytes");
    if (map_get(&n->used, owner))
        return err_set(err, ALREADY_EXISTS, "%s has a network namespace", owner);
    return 0;
}

const struct net_ns *net_take(struct net *n, const char *owner, struct err *err)
{
    struct slot *s;

    if (may_own(n, owner, err) < 0)
        return NULL;
    s = idle_take(n);
    if (!s)
        s = slot_make_now(n, err);
    if (!s)
        return NULL;
    if ((!n->wire.unnamed && slot_name(s, owner, &n->rt, err) < 0) ||
        (n->services && services_hairpin(n->services, (struct in_addr){htonl(s->ip)}, err) < 0)) {
        slot_let_go(n, s);
        return NULL;
    }
    return slot_use(n, s, owner);
}

const struct net_ns *net_take_ready(struct net *n, const char *owner)
{
    struct slot *s;
    struct err err;

    ASSERT(n->wire.unnamed && !n->services && may_own(n, owner, &err) == 0);
    s = idle_take(n);
    return s ? slot_use(n, s, owner) : NULL;
}

int net_want(struct net *n, uint32_t count, struct err *err)
{
    if (n->counts.idle || !count) {
        n->wanted = count;
        return 0;
    }
    n->wanted = count;
    if (n->failures >= FAILURES_MAX && !n->coming) {
        n->failures = 0; /* the next one may find it mended */
        n->wanted = 0;
        *err = n->why;
        return -1;
    }
    if (uv_now(n->o.loop) - n->raised_ms >= RAISE_MS) {
        n->raised_ms = uv_now(n->o.loop);
        n->ahead = MIN(MAX(n->ahead * 2, 1u), MIN((uint32_t)AHEAD_MAX, n->o.idle_max));
        look_soon(n);
    }
    refill(n);
    if (n->coming)
        return 0;
    n->wanted = 0;
    *err = n->why;
    return -1;
}

void net_trim(struct net *n)
{
    n->ahead = n->o.idle_min;
    if (n->counts.idle > n->ahead)
        idle_drop(n, n->counts.idle - n->ahead);
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

/* For the next one; false: it cannot be. */
static bool renew(struct net *n, struct slot *s)
{
    if (n->counts.idle + n->coming >= n->o.idle_max)
        return false;
    if (n->wire.bare) { /* nothing in there could be changed, and nothing tells one from another */
        n->counts.recycled++;
        idle_put(n, s);
        return true;
    }
    if (!(s->next_ip = ip_take(n)))
        return false;
    s->last_ip = s->ip;
    if (n->builder) {
        n->coming++;
        builder_ask(n->builder, s, SLOT_READDRESS);
        return true;
    }
    s->failed = slot_readdress(&n->wire, s, s->next_ip, &n->rt, &s->err) < 0;
    on_readdressed(n, s);
    return true;
}

void net_give_back(struct net *n, const char *owner, bool reusable)
{
    struct slot *s = map_del(&n->used, owner);

    if (!s)
        return;
    n->counts.used--;
    free(STEAL(s->owner));
    s->pub.owner = NULL;
    if (s->state == SLOT_FOUND || !reusable || !renew(n, s))
        slot_let_go(n, s);
    refill(n);
}

uint32_t net_sweep(struct net *n)
{
    struct slot **found = xcalloc(n->used.n + 1, sizeof(struct slot *));
    uint32_t count = 0;
    const char *key;
    void *v;

    for (uint32_t i = 0; map_next(&n->used, &i, &key, &v);) {
        struct slot *s = v;

        if (s->state != SLOT_FOUND)
            continue;
        found[count++] = s;
        map_del(&n->used, key);
        n->counts.used--;
    }
    slots_delete(&n->wire, found, count, &n->rt);
    for (uint32_t i = 0; i < count; i++)
        slot_forget(n, found[i]);
    free(found);
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
