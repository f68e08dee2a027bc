#include "sim.h"

#include <stdarg.h>

void sim_wrong(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (*s->wrong)
        return;
    va_start(ap, fmt);
    vsnprintf(s->wrong, sizeof s->wrong, fmt, ap);
    va_end(ap);
}

static void mix(struct sim *s, const char *text)
{
    for (; *text; text++)
        s->hash = (s->hash ^ (unsigned char)*text) * 0x100000001b3u;
}

/* Every durable change passes here: what must hold at each moment is checked here. */
static void on_event(void *arg, const struct store_event *ev)
{
    struct sim *s = arg;
    const char *table = store_table_key(ev->table), *node;
    char *was;

    s->events++;
    mix(s, table);
    mix(s, ev->obj->namespace_);
    mix(s, ev->obj->name);
    s->hash = (s->hash ^ (uint64_t)ev->revision) * 31 + ev->type;
    SIM_TRACE(s, "%lld %s %s %s/%s", (long long)ev->revision, (const char *[]){"ADDED", "MODIFIED", "DELETED", "EXPIRED"}[ev->type], table,
              ev->obj->namespace_, ev->obj->name);
    if (!streq(table, "pods"))
        return;
    /* a pod is bound once */
    node = val_str_at(obj_val(ev->obj), "spec.nodeName", "");
    was = map_get(&s->bound, ev->obj->uid);
    if (was && !streq(was, node) && ev->type != STORE_DELETED)
        sim_wrong(s, "pod %s/%s was on %s and is on \"%s\" now", ev->obj->namespace_, ev->obj->name, was, node);
    if (!was && *node)
        map_put(&s->bound, ev->obj->uid, xstrdup(node));
}

static void up(struct sim *s)
{
    struct store_args args = {.env = s->env, .engine = &store_memory, .disk = s->disk,
                              .cache_bytes = 1 /* a tree that is kept too long is seen at once */};
    struct api_config config = {
        .env = s->env, .schema = s->schema, .pki = s->pki, .state_dir = s->state_dir, .host = "127.0.0.1", .port = 6443};
    struct controllers_opts copts = {.schema = s->schema, .ca_pem = "simulated"};
    struct scheduler_opts sopts = {0};
    struct err err = {0};

    store_disk_full(s->disk, false); /* the stock objects of a first start must get through */
    config.store = s->store = store_open(&args, &err);
    if (!s->store)
        sim_wrong(s, "store_open: %s", err.msg);
    ASSERT(s->store);
    s->watch = store_watch(s->store, NULL, 0, 0, on_event, s, &err);
    ASSERT(s->watch);
    s->api = api_new(&config, &err);
    if (!s->api)
        fprintf(stderr, "api_new: %s\n", err.msg);
    ASSERT(s->api);
    s->user = client_local_new(s->env, s->api, s->schema, "sim:user");
    s->manager_client = client_local_new(s->env, s->api, s->schema, "system:kube-controller-manager");
    s->scheduler_client = client_local_new(s->env, s->api, s->schema, "system:kube-scheduler");
    s->controllers = controllers_start(s->manager_client, s->env, &copts, &err);
    s->scheduler = scheduler_start(s->scheduler_client, s->env, &sopts, &err);
    ASSERT(s->controllers && s->scheduler);
}

static void down(struct sim *s)
{
    for (int i = 0; i < NODES; i++)
        s->nodes[i] = node_stop(s->nodes[i]);
    s->scheduler = scheduler_stop(s->scheduler);
    s->controllers = controllers_stop(s->controllers);
    s->scheduler_client = client_free(s->scheduler_client);
    s->manager_client = client_free(s->manager_client);
    s->user = client_free(s->user);
    s->api = api_free(s->api);
    s->watch = store_watch_free(s->watch);
    s->written += store_stats(s->store).writes;
    s->beats += store_stats(s->store).volatile_writes;
}

void world_start(struct sim *s)
{
    s->env = env_sim_new(s->seed);
    s->disk = store_disk_new(s->env, 0, 20);
    up(s);
    for (int i = 0; i < NODES; i++)
        s->nodes[i] = node_start(s, i);
}

void world_crash(struct sim *s)
{
    bool away[NODES];

    SIM_TRACE(s, "CRASH");
    s->crashes++;
    for (int i = 0; i < NODES; i++)
        away[i] = !s->nodes[i];
    down(s);
    s->store = store_crash(s->store);
    up(s);
    store_disk_full(s->disk, s->full);
    for (int i = 0; i < NODES; i++)
        if (!away[i])
            s->nodes[i] = node_start(s, i);
}

void world_stop(struct sim *s)
{
    const char *key;
    void *v;

    down(s);
    s->store = store_close(s->store);
    s->disk = store_disk_free(s->disk);
    for (uint32_t i = 0; map_next(&s->bound, &i, &key, &v);)
        free(v);
    map_done(&s->bound);
    s->env = env_free(s->env);
}
