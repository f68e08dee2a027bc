#include "gateway/capacity.h"

#include "base/base.h"
#include "client/client.h"
#include "codec/quantity.h"
#include "function/function.h"
#include "schema/quota.h"

struct amount_of {
    int64_t memory, cpu_milli; /* bytes */
};

struct capacity {
    struct functions *functions;
    struct mirror *nodes, *pods;
    struct functions_capacity told;
    bool is_told;
};

/* What it asks for while it is bound and has not ended. */
static struct amount_of asked(const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *pod = obj_val(o);
    const char *phase = val_str_at(pod, "status.phase", "");
    struct amounts sum = {.a = a};
    const struct amount *memory, *cpu;
    struct amount_of r = {0};

    if (streq(phase, "Succeeded") || streq(phase, "Failed"))
        return r;
    pod_sum(pod, "requests", true, &sum);
    memory = amounts_get(&sum, "memory");
    cpu = amounts_get(&sum, "cpu");
    r.memory = memory ? quantity_value(memory->q) : 0;
    r.cpu_milli = cpu ? quantity_milli(cpu->q) : 0;
    return r;
}

static void tell(struct capacity *c)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct objs nodes = mirror_list(c->nodes, a, NULL), pods = mirror_list(c->pods, a, NULL);
    const struct val *all = nodes.n ? val_at(obj_val(nodes.v[0]), "status.allocatable") : NULL;
    int64_t memory = quantity_value(quantity_of(val_get(all, "memory"))), cpu = quantity_milli(quantity_of(val_get(all, "cpu")));
    struct functions_capacity left;

    if (!mirror_synced(c->nodes) || !mirror_synced(c->pods) || memory <= 0)
        return; /* it is not known (any more): what was known stays */
    for (uint32_t i = 0; i < pods.n; i++) {
        struct amount_of p = asked(pods.v[i]);

        memory -= p.memory;
        cpu -= p.cpu_milli;
    }
    left = (struct functions_capacity){.memory_mb = memory / (1 << 20), .cpu_milli = cpu};
    if (c->is_told && left.memory_mb == c->told.memory_mb && left.cpu_milli == c->told.cpu_milli)
        return;
    c->is_told = true;
    c->told = left;
    functions_set_capacity(c->functions, &left);
}

static void on_pod(void *arg, const struct obj *o)
{
    (void)o;
    tell(arg);
}

static void on_pod_changed(void *arg, const struct obj *was, const struct obj *o)
{
    struct amount_of a = asked(was), b = asked(o);

    if (a.memory != b.memory || a.cpu_milli != b.cpu_milli)
        tell(arg);
}

static void on_node_changed(void *arg, const struct obj *was, const struct obj *o)
{
    const struct val *a = val_at(obj_val(was), "status.allocatable"), *b = val_at(obj_val(o), "status.allocatable");

    if (!val_equal(a, b))
        tell(arg);
}

static void on_synced(void *arg)
{
    tell(arg);
}

struct capacity *capacity_new(struct client *client, const char *node, struct functions *functions)
{
    struct capacity *c = xcalloc(1, sizeof *c);
    _auto_(freep) char *its = xasprintf("spec.nodeName=%s", node), *itself = xasprintf("metadata.name=%s", node);

    c->functions = functions;
    c->nodes = client_mirror(client, &(struct mirror_args){.resource = "v1/nodes", .field_selector = itself, .added = on_pod,
        .changed = on_node_changed, .synced = on_synced, .arg = c});
    c->pods = client_mirror(client, &(struct mirror_args){.resource = "v1/pods", .field_selector = its, .added = on_pod,
        .changed = on_pod_changed, .removed = on_pod, .synced = on_synced, .arg = c});
    return c;
}

void *capacity_free(struct capacity *c)
{
    if (c) {
        mirror_free(c->nodes);
        mirror_free(c->pods);
        free(c);
    }
    return NULL;
}
