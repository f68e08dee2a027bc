#include "gateway/groups.h"

#include "base/log.h"
#include "client/client.h"
#include "logs/logs.h"

#define RESOURCE "tandem.dev/v1/loggroups"

struct groups {
    struct client *client;
    struct logs *logs;
    struct mirror *mirror;
};

static void on_made(void *arg, const struct client_result *r)
{
    (void)arg;
    if (r->err && r->err->code != ERR_ALREADY_EXISTS && r->err->code != ERR_CANCELLED)
        LOG(WARN, "gateway", "did=make-log-group error=\"%s\"", r->err->msg);
}

/* Not inside logs/: only a call is sent. */
static void on_appear(void *arg, const char *ns, const char *name)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct groups *g = arg;
    client_call(g->client, &(struct client_call){.verb = CLIENT_CREATE, .resource = RESOURCE, .ns = ns,
                                                .body = logs_object(a, name)}, on_made, g);
}

static void on_added(void *arg, const struct obj *o)
{
    struct groups *g = arg;
    const char *name = val_str_at(obj_val(o), "spec.name", "");
    struct err err;

    if (obj_deleting(o))
        return;
    if (logs_group_put(g->logs, o->namespace_, name, o->uid, (int)val_int_at(obj_val(o), "spec.retentionDays", 0), &err) < 0)
        LOG(WARN, "gateway", "log-group=%s did=put error=\"%s\"", o->name, err.msg);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    on_added(arg, o);
}

static void on_removed(void *arg, const struct obj *o)
{
    logs_group_remove(((struct groups *)arg)->logs, o->namespace_, val_str_at(obj_val(o), "spec.name", ""), o->uid);
}

/* Groups of an earlier life: without an object yet, or with one that was deleted meanwhile. */
static void on_synced(void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct groups *g = arg;
    struct log_group_info info, *all = NULL;
    uint32_t n = 0, cap = 0;

    for (uint32_t i = 0; logs_group_next(g->logs, &i, &info);) {
        char object[80];

        if (mirror_get(g->mirror, info.ns, logs_object_name(info.name, object)))
            continue;
        if (n == cap) {
            struct log_group_info *more = arena_array(a, struct log_group_info, (cap = cap ? 2 * cap : 16));

            if (n)
                memcpy(more, all, n * sizeof *more);
            all = more;
        }
        all[n++] = info;
    }
    for (uint32_t i = 0; i < n; i++)
        if (*all[i].uid)
            logs_group_remove(g->logs, all[i].ns, all[i].name, NULL);
        else
            on_appear(g, all[i].ns, all[i].name);
}

struct groups *groups_new(struct client *client, struct logs *logs)
{
    struct groups *g = xcalloc(1, sizeof *g);

    g->client = client;
    g->logs = logs;
    g->mirror = client_mirror(client, &(struct mirror_args){.resource = RESOURCE, .added = on_added, .changed = on_changed,
                                                           .removed = on_removed, .synced = on_synced, .arg = g});
    logs_on_appear(logs, on_appear, g);
    return g;
}

void *groups_free(struct groups *g)
{
    if (!g)
        return NULL;
    logs_on_appear(g->logs, NULL, NULL);
    mirror_free(g->mirror);
    free(g);
    return NULL;
}
