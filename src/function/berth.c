/* Where an instance lives: its cgroup and its network namespace, made before it and used by one after the other.
 *
 *   made (ahead, or for a call) --> an instance has it --> free again, for the same version --> ... --> unmade
 *
 * Making and unmaking costs the kernel more than a fork does, so a version keeps some that are free while its zygote
 * is up. Only instances of one version follow each other in a berth: what is left in it (an address, addresses that
 * its network has heard of) was theirs. A berth is free when the zygote has reaped the instance: all of its pid
 * namespace has ended then, the cgroup is empty. One in which memory is still charged is not used again, and on
 * plain cgroup v2, which cannot forget a peak, none is. */
#include "function/function_int.h"

#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

enum {
    FREE_MAX = 128,             /* of one version */
    AHEAD = 1,                  /* made when there is time */
    KEEP_US = 5000000,          /* those beyond it go when they were free so long */
    LEFT_MAX_BYTES = 2 << 20,   /* charged memory that does not matter to the next one */
    COMPILER_BYTES = 256 << 20, /* works once for all: may use more */
    FDS_KEPT_MAX = 64,          /* free berths of a version whose descriptors stay open */
};

/* empty: nobody is in it any more. */
static void unmake(struct version *v, struct berth *b, bool empty)
{
    struct functions *fs = v->f->fs;
    struct err err;

    cgroup_close_fds(b->fds);
    if (b->has_cgroup && cgroup_remove(&fs->cgroups, b->cgroup, &err) < 0)
        LOG(DEBUG, "function", "did=cgroup-remove what=%s error=\"%s\"", b->cgroup, err.msg);
    if (b->net_fd >= 0)
        functions_net_give(v, b->net_name, empty);
    free(b);
}

/* Full speed until the module is loaded, as on Lambda: a limit below one CPU is set then. */
static bool limited_later(const struct version *v)
{
    return v->limits.cpu_quota_us < v->limits.cpu_period_us;
}

static struct berth *make(struct version *v, bool compiler, struct err *err)
{
    struct functions *fs = v->f->fs;
    struct berth *b = xcalloc(1, sizeof *b);
    struct cgroup_limits l = v->limits;

    b->net_fd = -1;
    b->compiler = compiler;
    for (int k = 0; k < CGROUP_FDS; k++)
        b->fds[k] = -1;
    if (limited_later(v))
        l.cpu_quota_us = 0;
    if (compiler)
        l.memory_bytes = MAX(l.memory_bytes, (int64_t)COMPILER_BYTES);
    fs->berth_next++;
    if (fs->has_cgroups) {
        snprintf(b->cgroup, sizeof b->cgroup, "%s/%u", v->cgroup, fs->berth_next);
        b->has_cgroup = true;
        if (cgroup_make(&fs->cgroups, b->cgroup, &l, err) < 0 || cgroup_open_attach(&fs->cgroups, b->cgroup, b->fds, err) < 0) {
            err_wrap(err, "limits for an instance");
            unmake(v, b, true);
            return NULL;
        }
    }
    if (version_has_net(v) && !compiler) {
        snprintf(b->net_name, sizeof b->net_name, "fn-%u", fs->berth_next);
        b->net_fd = functions_net_take(v, b->net_name);
        if (b->net_fd < 0) {
            err_set(err, UNAVAILABLE, "no network for an instance is ready");
            unmake(v, b, true);
            return NULL;
        }
    }
    return b;
}

static struct berth *pop(struct version *v)
{
    struct list *l = list_first(&v->berths);

    if (!l)
        return NULL;
    list_remove(l);
    v->berths_n--;
    return list_entry(l, struct berth, link);
}

struct berth *berth_take(struct version *v, bool compiler, struct err *err)
{
    struct functions *fs = v->f->fs;
    struct berth *b;

    while (!compiler && (b = pop(v))) {
        if (!b->has_cgroup || b->fds[CGROUP_V2] >= 0 || b->fds[CGROUP_MEMORY] >= 0 ||
            cgroup_open_attach(&fs->cgroups, b->cgroup, b->fds, err) == 0)
            return b;
        unmake(v, b, true);
    }
    return make(v, compiler, err);
}

/* CPU time is read where it is summed up by the kernel: of all instances that the version ever had, also of what
 * they use after we were told that they end. */
void version_sample(struct version *v)
{
    struct functions *fs = v->f->fs;
    int64_t cpu_us = fs->has_cgroups ? cgroup_cpu_us(&fs->cgroups, v->cgroup) : 0;

    if (cpu_us <= v->cpu_seen_us)
        return;
    v->f->m->cpu_us += (uint64_t)(cpu_us - v->cpu_seen_us);
    v->cpu_seen_us = cpu_us;
    fs->meters_dirty = true;
}

void berth_sample(struct version *v, struct berth *b)
{
    struct functions *fs = v->f->fs;
    struct meter *m = v->f->m;
    struct cgroup_usage u;
    struct err err;

    if (!b->has_cgroup || cgroup_usage_end(&fs->cgroups, b->cgroup, &u, &err) < 0)
        return;
    version_sample(v);
    m->memory_peak_kb = MAX(m->memory_peak_kb, (uint64_t)u.memory_peak_bytes / 1024);
    b->killed |= u.oom_kills > b->oom_kills;
    b->oom_kills = u.oom_kills;
}

void berth_limit(struct version *v, struct berth *b)
{
    struct err err;

    if (cgroup_limit(&v->f->fs->cgroups, b->cgroup, &(struct cgroup_limits){.cpu_quota_us = v->limits.cpu_quota_us,
                     .cpu_period_us = v->limits.cpu_period_us}, &err) < 0)
        LOG(WARN, "function", "function=%s did=limit error=\"%s\"", v->f->key, err.msg);
}

bool berth_wants_limit(const struct version *v, const struct berth *b)
{
    return b->has_cgroup && limited_later(v);
}

void berth_give(struct version *v, struct berth *b, bool empty)
{
    struct functions *fs = v->f->fs;
    int64_t left = 0;
    struct err err;

    if (!empty || b->compiler || v->removed || v->zygote != ZYGOTE_READY || fs->stopping || v->berths_n >= FREE_MAX ||
        (b->has_cgroup && (cgroup_renew(&fs->cgroups, b->cgroup, limited_later(v), &left, &err) < 0 || left > LEFT_MAX_BYTES))) {
        unmake(v, b, empty && v->zygote == ZYGOTE_READY); /* those of a zygote that was killed are only about to end */
        return;
    }
    if (v->berths_n >= FDS_KEPT_MAX)
        cgroup_close_fds(b->fds);
    b->killed = false;
    b->free_since_us = now_us();
    list_push_front(&v->berths, &b->link);
    v->berths_n++;
}

bool berths_refill(struct version *v)
{
    struct berth *b;
    struct err err;

    if (v->berths_n >= AHEAD || functions_net_ready(v, &err) <= 0)
        return false;
    b = make(v, false, &err);
    if (!b)
        return false; /* whoever needs one will say why there is none */
    b->free_since_us = now_us();
    list_push(&v->berths, &b->link);
    v->berths_n++;
    return v->berths_n < AHEAD;
}

void berths_trim(struct version *v, bool all)
{
    int64_t now = now_us();

    LIST_EACH(&v->berths, l) /* the front was used last */
    {
        struct berth *b = list_entry(l, struct berth, link);

        if (!all && (v->berths_n <= AHEAD || now - b->free_since_us < KEEP_US))
            continue;
        list_remove(&b->link);
        v->berths_n--;
        unmake(v, b, true);
    }
}
