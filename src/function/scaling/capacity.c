/* The machine is shared with pods, by requests: what the pods bound to it ask for is theirs, used or not; functions have
 * what is left, and give it back when a pod is bound.
 *
 *   CPU     the group of all functions weighs as much as is left (cpu.shares 1,024 a CPU, 2 when nothing is); that of all
 *           pods weighs as much as the machine has (node/). So pods that want what they asked for have it, and what they
 *           leave idle is the functions'.
 *   memory  the budget is what is left, at least LEAST_MB: a function can be called on a full machine, too. Held is what
 *           is charged to the group. Over the budget, processes go in evict.c's order: idle instances, stems, zygotes, then
 *           what is provisioned, calls at work last, and those only when the machine's memory is short indeed: a pod that
 *           does not touch what it asked for costs nobody an answer.
 *
 * It is looked at when the pods change, then every AGAIN_MS until it is enough; and by the tick, as calls grow. Where an
 * instance would not fit, another function's idle one goes for it, else the call waits for one at work; where nobody is,
 * it is refused. Nothing is made ahead of calls for QUIET_US after something went, else it would be back at once. Without cgroups nobody knows what is held: then only the machine's memory counts (evict.c). */
#include "function/function_int.h"

#include "base/log.h"

enum { AGAIN_MS = 20, LEAST_MB = 64, QUIET_US = 10000000, FORK_KB = 1024, PROGRAM_KB = 40 * 1024 };

static int64_t needs_kb(const struct version *v)
{
    return v->forks || v->zygote != ZYGOTE_READY ? FORK_KB : PROGRAM_KB;
}

static bool is_known(const struct functions *fs)
{
    return fs->budget_kb > 0 && fs->has_cgroups;
}

bool capacity_room(const struct version *v)
{
    const struct functions *fs = v->f->fs;

    return !is_known(fs) || fs->held_kb + fs->grown_kb + needs_kb(v) <= fs->budget_kb;
}

bool capacity_ahead(const struct version *v)
{
    const struct functions *fs = v->f->fs;

    return !is_known(fs) || (capacity_room(v) && (!fs->gave_us || now_us() - fs->gave_us > QUIET_US));
}

void capacity_grew(struct version *v)
{
    v->f->fs->grown_kb += needs_kb(v);
}

static void on_again(uv_timer_t *t)
{
    struct functions *fs = t->data;
    bool waits = false;

    capacity_look(fs);
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        if (!f->crowded)
            continue;
        f->crowded = false;
        f->busy++; /* stays while we look at it */
        pool_feed(f);
        f->busy--;
        waits |= f->crowded;
        function_let_go(f);
        if (fs->stopping)
            return;
    }
    if (waits)
        capacity_again(fs);
}

void capacity_again(struct functions *fs)
{
    if (!fs->stopping && !uv_is_active((uv_handle_t *)&fs->give))
        uv_timer_start(&fs->give, on_again, AGAIN_MS, 0);
}

void capacity_wait(struct version *v)
{
    struct functions *fs = v->f->fs;

    v->f->crowded = true;
    (void)evict_for_pods(fs, needs_kb(v), false);
    capacity_again(fs);
}

bool capacity_refuses(const struct version *v)
{
    struct functions *fs = v->f->fs;

    if (capacity_room(v))
        return false;
    LIST_EACH(&v->instances, l)
    if (list_entry(l, struct instance, link)->state != INSTANCE_DYING)
        return false; /* one of its own will be free */
    return !evict_anyone(fs);
}

void capacity_look(struct functions *fs)
{
    struct cgroup_usage u;
    struct err err;

    if (!is_known(fs) || cgroup_usage(&fs->cgroups, "functions", &u, &err) < 0)
        return;
    fs->held_kb = u.memory_bytes / 1024;
    fs->grown_kb = 0;
    if (fs->held_kb > fs->budget_kb && evict_for_pods(fs, fs->held_kb - fs->budget_kb, true)) {
        fs->gave_us = now_us();
        capacity_again(fs);
    }
}

void functions_set_capacity(struct functions *fs, const struct functions_capacity *c)
{
    int64_t shares = c ? c->cpu_milli * 1024 / 1000 : 1024;
    struct err err;

    if (fs->stopping)
        return;
    fs->budget_kb = c ? MAX(c->memory_mb, (int64_t)LEAST_MB) * 1024 : 0;
    shares = MIN(MAX(shares, (int64_t)2), (int64_t)262144);
    if (fs->has_cgroups && shares != fs->shares) {
        if (cgroup_make(&fs->cgroups, "functions", &(struct cgroup_limits){.cpu_shares = shares}, &err) < 0)
            LOG(WARN, "function", "did=share error=\"%s\"", err.msg);
        else
            fs->shares = shares;
    }
    LOG(DEBUG, "function", "did=capacity memory_mb=%lld shares=%lld", (long long)fs->budget_kb / 1024, (long long)shares);
    capacity_look(fs);
    capacity_again(fs); /* who waits for room */
}

void capacity_tell(const struct functions *fs, struct arena *a, struct val *top)
{
    struct val *o = val_map(a);

    if (!fs->budget_kb)
        return;
    val_put_int(a, o, "budget_mb", fs->budget_kb / 1024);
    val_put_int(a, o, "held_mb", fs->held_kb / 1024);
    val_put_int(a, o, "cpu_shares", fs->shares);
    val_put(a, top, "capacity", o);
}
