/* What every pod has used: STATE/meter/pods.json every ten seconds (and at the end of each pod),
 * and the kubelet's /stats/summary.
 *
 * meter/pods.json:
 * {"time_ms":T,"node":NAME,"pods":[{"uid","namespace","name","labels":{},"owner":{"kind","name"},
 * "started_ms","seconds","cpu_us","memory_bytes","memory_peak_bytes","oom_kills","cpu_request_milli",
 * "memory_request_bytes","cpu_limit_milli","memory_limit_bytes","phase"}]} - totals since the pod
 * began here. */
#include "codec/json.h"
#include "codec/kubetime.h"
#include "codec/quantity.h"
#include "env/clock.h"
#include "env/fs.h"
#include "node/node_int.h"

#include <stdio.h>

enum { METER_MS = 10000 };

static int64_t total(const struct pod *p, const char *path, bool milli)
{
    int64_t sum = 0;

    VAL_EACH (val_get(pod_spec(p), "containers"), c) {
        quantity q = quantity_of(val_at(c, path));
        sum += milli ? quantity_milli(q) : quantity_value(q);
    }
    return sum;
}

static struct val *meter_row(struct pod *p, struct arena *a)
{
    struct val *v = val_map(a);
    struct cgroup_usage u = {0};
    struct err err;
    const struct val *labels = val_get(obj_meta(p->o), "labels"), *owner = obj_controller(p->o);

    (void)cgroup_usage(&p->n->cgroups, p->cgroup, &u, &err);
    val_put_str(a, v, "uid", p->uid);
    val_put_str(a, v, "namespace", p->ns);
    val_put_str(a, v, "name", p->name);
    if (labels)
        val_put(a, v, "labels", labels);
    if (owner) {
        struct val *o = val_need_map(a, v, "owner");
        val_put_str(a, o, "kind", val_str_at(owner, "kind", ""));
        val_put_str(a, o, "name", val_str_at(owner, "name", ""));
    }
    val_put_int(a, v, "started_ms", p->start_ms);
    val_put_int(a, v, "seconds", (clock_real_ms() - p->start_ms) / 1000);
    val_put_int(a, v, "cpu_us", u.cpu_us);
    val_put_int(a, v, "memory_bytes", u.memory_bytes);
    val_put_int(a, v, "memory_peak_bytes", u.memory_peak_bytes);
    val_put_int(a, v, "oom_kills", u.oom_kills);
    val_put_int(a, v, "cpu_request_milli", total(p, "resources.requests.cpu", true));
    val_put_int(a, v, "memory_request_bytes", total(p, "resources.requests.memory", false));
    val_put_int(a, v, "cpu_limit_milli", total(p, "resources.limits.cpu", true));
    val_put_int(a, v, "memory_limit_bytes", total(p, "resources.limits.memory", false));
    val_put_str(a, v, "phase", node_pod_phase(p));
    return v;
}

static void meter(void *arg)
{
    struct node *n = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *pods = val_list(a);
    struct buf text = {0};
    struct err err = {0};

    LIST_EACH (&n->all, l) {
        struct pod *p = list_entry(l, struct pod, link);
        if (p->o && p->stage >= POD_SETUP && p->stage <= POD_STOP)
            val_push(a, pods, meter_row(p, a));
    }
    val_put_int(a, v, "time_ms", clock_real_ms());
    val_put_str(a, v, "node", n->o.name);
    val_put(a, v, "pods", pods);
    json_write(&text, v);
    if (fs_write_fast(arena_printf(a, "%s/meter/pods.json", n->o.state), text.p, text.n, 0644,
                      &err) < 0)
        LOG(WARN, "node", "did=meter err=\"%s\" then=\"again in ten seconds\"", err.msg);
    buf_done(&text);
}

static struct val *summary_part(struct arena *a, const struct cgroup_usage *u, int64_t started_ms,
                                struct val *v)
{
    char text[KUBETIME_MAX];
    struct val *cpu, *memory;

    if (started_ms > 0)
        val_put_str(a, v, "startTime", kubetime_text(text, started_ms));
    cpu = val_need_map(a, v, "cpu");
    val_put_str(a, cpu, "time", kubetime_text(text, clock_real_ms()));
    val_put_int(a, cpu, "usageCoreNanoSeconds", u->cpu_us * 1000);
    memory = val_need_map(a, v, "memory");
    val_put_str(a, memory, "time", text);
    val_put_int(a, memory, "workingSetBytes", u->memory_bytes);
    val_put_int(a, memory, "usageBytes", u->memory_bytes);
    return v;
}

struct val *stats_summary(struct node *n, struct arena *a)
{
    struct val *v = val_map(a), *node = val_need_map(a, v, "node"), *pods;
    struct cgroup_usage u = {0};
    struct err err;

    val_put_str(a, node, "nodeName", n->o.name);
    (void)cgroup_usage(&n->cgroups, "", &u, &err);
    summary_part(a, &u, n->boot_ms, node);
    pods = val_need_list(a, v, "pods");
    LIST_EACH (&n->all, l) {
        struct pod *p = list_entry(l, struct pod, link);
        if (!p->o || p->stage < POD_SETUP || p->stage > POD_STOP)
            continue;
        struct val *one = val_map(a), *ref = val_need_map(a, one, "podRef"), *list;
        val_put_str(a, ref, "name", p->name);
        val_put_str(a, ref, "namespace", p->ns);
        val_put_str(a, ref, "uid", p->uid);
        list = val_need_list(a, one, "containers");
        for (uint32_t i = 0; i < p->ctrs_n; i++) {
            struct ctr *c = &p->ctrs[i];
            if (c->state != CTR_RUNNING ||
                cgroup_usage(&n->cgroups, arena_printf(a, "%s/%s", p->cgroup, c->name), &u, &err) <
                    0)
                continue;
            struct val *cv = val_map(a);
            val_put_str(a, cv, "name", c->name);
            val_push(a, list, summary_part(a, &u, c->now.started_ms, cv));
        }
        u = (struct cgroup_usage){0};
        (void)cgroup_usage(&n->cgroups, p->cgroup, &u, &err);
        val_push(a, pods, summary_part(a, &u, p->start_ms, one));
    }
    return v;
}

void stats_start(struct node *n)
{
    n->meter = env_timer_new(n->env, meter, n);
    env_timer_start(n->meter, 1000, METER_MS);
}
