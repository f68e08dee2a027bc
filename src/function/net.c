/* Network namespaces for instances: from a pool that a thread fills ("f": the second half of the pod addresses), or from one
 * of empty ones for functions that want none ("e"). Nothing here waits for the kernel: who finds none ready stays in the
 * waiting room, its function stands in fs->net_waiters, and is fed when one comes. */
#include "function/function_int.h"

#include "base/log.h"
#include "network/network.h"

enum { AHEAD = 8, KEPT_MAX = 1024 };

/* NULL: its instances have the zygote's empty one, or make their own (own_net). A module has no sockets. */
static struct net *pool_of(const struct version *v)
{
    return v->wasm ? NULL : v->no_network ? v->f->fs->bare : v->f->fs->net;
}

static struct function *first_waiter(struct functions *fs, const struct net *pool)
{
    LIST_EACH(&fs->net_waiters, l)
    {
        struct function *f = list_entry(l, struct function, net_link);

        if (f->now && pool_of(f->now) == pool)
            return f;
    }
    return NULL;
}

static void on_ready(struct functions *fs, struct net *pool)
{
    struct function *f;
    struct err err;
    bool ahead = false, more = false;

    if (net_want(pool, 0, &err) < 0 || fs->stopping)
        return;
    while (!more && (f = first_waiter(fs, pool))) {
        list_remove(&f->net_link);
        ahead |= !f->waiting_n || snapshot_awaited(f->now); /* calls wait for the snapshot: who makes that is the refill */
        f->busy++; /* stays while we look at it */
        pool_feed(f);
        f->busy--;
        more = list_linked(&f->net_link); /* it took what was there: the others are before it now */
        function_let_go(f);
    }
    if (ahead)
        pool_refill_soon(fs);
}

static void on_wired(void *arg)
{
    struct functions *fs = arg;

    on_ready(fs, fs->net);
}

static void on_bare(void *arg)
{
    struct functions *fs = arg;

    on_ready(fs, fs->bare);
}

int functions_net_ready(struct version *v, struct err *err)
{
    struct functions *fs = v->f->fs;
    struct net *pool = pool_of(v);
    uint32_t wanted = 0;

    if (!pool || v->berths_n || net_counts(pool).idle)
        return 1;
    if (!list_linked(&v->f->net_link))
        list_push(&fs->net_waiters, &v->f->net_link);
    LIST_EACH(&fs->net_waiters, l)
    {
        const struct function *f = list_entry(l, struct function, net_link);

        if (f->now && pool_of(f->now) == pool)
            wanted += MAX(f->waiting_n, 1u);
    }
    if (net_want(pool, wanted, err) == 0)
        return 0;
    list_remove(&v->f->net_link);
    return -1;
}

int functions_net_take(struct version *v, const char *owner)
{
    struct net *pool = pool_of(v);
    const struct net_ns *ns = pool ? net_take_ready(pool, owner) : NULL;

    return ns ? ns->fd : -1;
}

bool version_has_net(const struct version *v)
{
    return pool_of(v) != NULL;
}

void functions_net_give(struct version *v, const char *owner, bool empty)
{
    net_give_back(pool_of(v), owner, empty);
}

void functions_net_trim(struct functions *fs)
{
    if (fs->net)
        net_trim(fs->net);
    if (fs->bare)
        net_trim(fs->bare);
}

bool functions_net_open_bare(struct functions *fs)
{
    struct net_options o = {.pool = 'e', .idle_min = AHEAD, .idle_max = KEPT_MAX, .loop = fs->loop, .on_ready = on_bare, .arg = fs};
    struct err err;

    if (!fs->bare && !(fs->bare = net_open(&o, &err)))
        LOG(WARN, "function", "did=make-empty-networks error=\"%s\"", err.msg);
    return fs->bare != NULL;
}

void functions_net_open(struct functions *fs, const char *pod_cidr, const char *service_cidr, bool has_node_ip)
{
    struct net_options n = {.instance = fs->instance, .pod_cidr = pod_cidr, .pool = 'f', .idle_min = AHEAD, .idle_max = KEPT_MAX,
                            .service_cidr = service_cidr ? service_cidr : "10.96.0.0/16", .loop = fs->loop,
                            .unnamed = true, .on_ready = on_wired, .arg = fs};
    _auto_(freep) char *state = xasprintf("%s/run/net.json", fs->state);
    struct err err;

    n.state_path = state;
    if (!pod_cidr)
        return;
    fs->net = net_open(&n, &err);
    if (!fs->net) {
        LOG(WARN, "function", "did=run-without-network error=\"%s\"", err.msg);
        return;
    }
    net_sweep(fs->net); /* instances of an earlier life are dead */
    fs->dns = xstrdup(net_host_ip(fs->net));
    if (!has_node_ip) {
        free(fs->node_ip);
        fs->node_ip = xstrdup(net_host_ip(fs->net));
    }
}

void functions_net_close(struct functions *fs)
{
    fs->net = net_close(fs->net);
    fs->bare = net_close(fs->bare);
}
