/* Memory is short: what is only kept warm goes, the least worth first.
 *
 * What an idle process is worth: the start that it saves, by how soon somebody will want it, by the memory that it holds.
 *
 *   worth = start / (wait x memory)
 *
 * wait is the mean of those gaps of the function (meter.c's histogram) that are longer than it has been quiet already, less
 * that time; with no such gap on record it is taken to stay quiet for as long again. The histogram is of the function's
 * first level (nobody busy): instances beyond it wait at least as long again as that many calls at once were not seen.
 *
 * Idle instances go first, then stems (a fork replaces them), then zygotes that have nobody left and Node's bases that
 * have no zygote left. What is at work, and what
 * spec.provisioned wants kept, stays. While memory is short nothing is forked ahead either, and for a while after: else
 * what was let go would be back before it is missed.
 *
 * In favour of pods (capacity.c) also the provisioned ones go after all those, and calls at work last, the youngest first,
 * when memory is short on the machine, too.
 *
 * Short is: less available than the mark (evict_mb). Stalls (PSI) raise the mark to twice that; alone they say nothing, as
 * a process that fights its own limit stalls, too. Then as much goes as brings a quarter more than the mark; what was told
 * to end and has not yet counts as gone, so that one look does not do the work of the one before again. */
#include "function/function_int.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LOOK_US = 1000000,        /* at the memory, this often; while it is short with every tick */
    QUIET_US = 10000000,      /* not short for so long: forks ahead come back */
    TOLD_US = 1000000,        /* a log line at most this often */
    EVICT_MAX = 200,          /* in one look: each is a message to a zygote */
    MARK_PERCENT = 5, MARK_MAX_MB = 1024, /* of the machine's memory, when no mark is given */
    STALL_PERCENT = 10,
    FORK_KB = 1024, PROGRAM_KB = 40 * 1024, ZYGOTE_KB = 10 * 1024,
    BASE_KB = 45 * 1024, BASE_START_US = 150000,
    START_MIN_US = 1000, ZYGOTE_START_MIN_US = 5000,
    WAIT_MIN_US = 100000,
};

/* Which kind a candidate is, in the order of going. */
enum rank { RANK_IDLE, RANK_STEM, RANK_ZYGOTE, RANK_OWED, RANK_BUSY };

struct candidate {
    enum rank rank;
    struct version *v;
    struct instance *i; /* NULL: v's zygote */
    struct base *b;     /* a Node that nobody was forked from of late; v is NULL */
    double worth;
    int64_t kb;
};

struct candidates {
    struct candidate *v;
    size_t n, cap;
};

/* ---- what is there ---- */

void functions_memory(void *arg, struct functions_memory *ret)
{
    struct functions_memory m = {.stall_percent = -1};
    char line[160];
    long long kb;
    FILE *f = fopen("/proc/meminfo", "re");

    (void)arg;
    while (f && fgets(line, sizeof line, f) && !m.available_mb) {
        if (sscanf(line, "MemTotal: %lld", &kb) == 1)
            m.total_mb = kb / 1024;
        else if (sscanf(line, "MemAvailable: %lld", &kb) == 1)
            m.available_mb = kb / 1024;
    }
    if (f)
        fclose(f);
    f = fopen("/proc/pressure/memory", "re");
    if (f && fgets(line, sizeof line, f))
        (void)!sscanf(line, "some avg10=%lf", &m.stall_percent);
    if (f)
        fclose(f);
    *ret = m;
}

/* ---- what it is worth ---- */

/* The middle of a bin, in us (gap_bin()). */
static double bin_us(int bin)
{
    double low = 500;

    for (int i = 1; i + 1 < bin; i += 2)
        low *= 2; /* two bins are a doubling */
    if (!bin)
        return 500;
    return bin % 2 ? low * 2 * 1.2 : low * 2 * 1.7;
}

int64_t evict_wait_us(const struct meter *m, int64_t quiet_us)
{
    double sum = 0, n = 0;

    quiet_us = MAX(quiet_us, (int64_t)0);
    for (int i = 0; i < GAP_BINS; i++) {
        double gap = bin_us(i);

        if (m->gaps[i] && gap > (double)quiet_us) {
            sum += (gap - (double)quiet_us) * (double)m->gaps[i];
            n += (double)m->gaps[i];
        }
    }
    return MAX(n > 0 ? (int64_t)(sum / n) : quiet_us, (int64_t)WAIT_MIN_US);
}

/* Until the level-th call at once comes; 1: any call. */
static int64_t level_wait_us(const struct function *f, uint32_t level, int64_t now)
{
    int64_t wait = f->busy ? WAIT_MIN_US : evict_wait_us(f->m, f->quiet_since_us ? now - f->quiet_since_us : 0);
    int64_t seen = f->level_us[MIN(MAX(level, 1u), (uint32_t)LEVELS_MAX) - 1];

    return level > 1 ? MAX(wait, seen ? now - seen : INT64_MAX / 2) : wait;
}

static double worth(int64_t start_us, int64_t wait_us, int64_t kb)
{
    return (double)start_us / (double)MAX(wait_us, (int64_t)1) / (double)MAX(kb, (int64_t)1);
}

/* What a call waits for when the module is to be loaded, too. */
static int64_t start_us_of(const struct version *v)
{
    const struct meter *m = v->f->m;

    return MAX(MAX(v->start_us, m->cold_starts ? (int64_t)(m->init_us / m->cold_starts) : 0), (int64_t)START_MIN_US);
}

static int64_t kb_of(const struct instance *i)
{
    return MAX((int64_t)i->memory_kb, (int64_t)(i->v->forks ? FORK_KB : PROGRAM_KB));
}

/* ---- who may go ---- */

static void add(struct candidates *c, struct candidate x)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        c->v = xrealloc(c->v, c->cap * sizeof *c->v);
    }
    c->v[c->n++] = x;
}

/* The calls that have done the least go first. */
static void gather_busy(struct version *v, int64_t now, struct candidates *c)
{
    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);
        bool busy = i->state == INSTANCE_BUSY || (i->state == INSTANCE_IDLE && i->leases_n);

        if (busy)
            add(c, (struct candidate){RANK_BUSY, v, i, NULL, (double)(now - (i->call ? i->call->sent_us : i->active_us)),
                                      MAX(kb_of(i), (int64_t)v->f->m->memory_peak_kb)}); /* it tells at its end only */
    }
}

/* ret_going_kb: what has been told to end and is still there. owed: also those that are to be kept. */
static void gather_version(struct version *v, int64_t now, struct candidates *c, bool owed, int64_t *ret_going_kb)
{
    struct function *f = v->f;
    int64_t alive = 0, spare, level = f->busy + 1, n, each = v->places;
    size_t first;

    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        alive += i->state != INSTANCE_DYING && !i->compiler;
        if (i->state == INSTANCE_DYING)
            *ret_going_kb += kb_of(i);
    }
    spare = alive - pool_owed(v);
    /* the front was used last: the further behind, the more calls at once it takes until it is wanted */
    LIST_EACH(&v->idle, l)
    {
        struct instance *i = list_entry(l, struct instance, free);

        if (i->leases_n)
            continue;
        add(c, (struct candidate){RANK_IDLE, v, i, NULL, worth(start_us_of(v), level_wait_us(f, (uint32_t)level, now), kb_of(i)), kb_of(i)});
        level += each;
    }
    LIST_EACH(&v->stems, l)
    {
        struct instance *i = list_entry(l, struct instance, free);

        add(c, (struct candidate){RANK_STEM, v, i, NULL, worth(start_us_of(v), level_wait_us(f, (uint32_t)level, now), kb_of(i)), kb_of(i)});
        level += each;
    }
    /* the last of those added are the least worth of this version: what provisioning keeps is the first */
    first = c->n;
    for (n = 0; first && c->v[first - 1].v == v; first--)
        n++;
    for (int64_t k = 0; owed && k < n - MAX(spare, (int64_t)0); k++)
        c->v[first + (size_t)k].rank = RANK_OWED;
    if (!owed && n > spare)
        c->n = first + (size_t)MAX(spare, (int64_t)0);
    if (!owed && n > spare && spare > 0) /* those at the end are the ones that go */
        memmove(&c->v[first], &c->v[first + (size_t)(n - spare)], (size_t)spare * sizeof *c->v);
    if (v->zygote == ZYGOTE_READY && !v->instances_n && !f->waiting_n && !pool_owed(v))
        add(c, (struct candidate){RANK_ZYGOTE, v, NULL, NULL,
                                  worth(MAX(v->zygote_started_us - v->zygote_since_us, (int64_t)ZYGOTE_START_MIN_US),
                                        level_wait_us(f, 1, now), ZYGOTE_KB), ZYGOTE_KB});
}

static int by_worth(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->worth < y->worth ? -1 : x->worth > y->worth;
}

/* ---- the look ---- */

/* Is there anything that could be let go? Without, nobody looks at the memory. */
static bool anything(const struct functions *fs)
{
    if (fs->node_bases_n)
        return true;
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        const struct version *v = list_entry(k, struct version, link);

        if (v->zygote == ZYGOTE_READY || v->zygote == ZYGOTE_STARTING)
            return true;
    }
    return false;
}

static void let_go(struct functions *fs, const struct candidate *c)
{
    fs->meters_dirty = true;
    fs->evicted_n[c->rank]++;
    fs->evicted_kb += c->kb;
    if (c->b) {
        zygote_base_end(c->b);
        return;
    }
    c->v->f->m->evicted++;
    if (c->i)
        instance_stop(c->i, serve_grace_ms(c->i));
    else
        zygote_stop(c->v);
}

static void tell(struct functions *fs, int64_t now)
{
    const uint32_t *n = fs->evicted_n;

    if ((!n[RANK_IDLE] && !n[RANK_STEM] && !n[RANK_ZYGOTE] && !n[RANK_OWED] && !n[RANK_BUSY]) || now - fs->evict_told_us < TOLD_US)
        return;
    LOG(WARN, "function", "did=evict why=\"%s\" available_mb=%lld stall=%.1f budget_mb=%lld idle=%u stems=%u zygotes=%u provisioned=%u at_work=%u mb=%lld",
        fs->evicted_for_pods ? "pods ask for it" : "memory is short", (long long)fs->memory.available_mb, fs->memory.stall_percent,
        (long long)fs->budget_kb / 1024, n[RANK_IDLE], n[RANK_STEM], n[RANK_ZYGOTE], n[RANK_OWED], n[RANK_BUSY], (long long)(fs->evicted_kb / 1024));
    fs->evicted_for_pods = false;
    fs->evict_told_us = now;
    memset(fs->evicted_n, 0, sizeof fs->evicted_n);
    fs->evicted_kb = 0;
}

/* True: somebody went, or is going. */
static bool evict(struct functions *fs, int64_t kb, int64_t now, bool owed, bool busy)
{
    struct candidates c = {0};
    int64_t going = 0;
    bool some;

    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        struct version *v = list_entry(k, struct version, link);

        gather_version(v, now, &c, owed, &going);
        if (busy)
            gather_busy(v, now, &c);
    }
    LIST_EACH(&fs->bases, l)
    {
        struct base *b = list_entry(l, struct base, link);

        if (b->node && !zygote_base_needed(b))
            add(&c, (struct candidate){.rank = RANK_ZYGOTE, .b = b, .worth = worth(BASE_START_US, now - b->used_us, BASE_KB), .kb = BASE_KB});
    }
    some = going || c.n;
    kb -= going;
    if (c.n)
        qsort(c.v, c.n, sizeof *c.v, by_worth);
    for (size_t i = 0; i < MIN(c.n, (size_t)EVICT_MAX) && kb > 0; i++) {
        let_go(fs, &c.v[i]);
        kb -= c.v[i].kb;
    }
    free(c.v);
    return some;
}

bool evict_for_pods(struct functions *fs, int64_t kb, bool all)
{
    int64_t now = now_us();
    bool busy = false, some;

    if (all) {
        fs->memory_of(fs->memory_arg, &fs->memory);
        busy = evict_want_mb(&fs->memory, fs->evict_mb, fs->evict_stall) > 0;
    }
    fs->evicted_for_pods = true;
    some = evict(fs, kb, now, all, busy);
    tell(fs, now);
    return some;
}

bool evict_anyone(const struct functions *fs)
{
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        const struct version *v = list_entry(k, struct version, link);
        int alive = 0, idle = 0;

        LIST_EACH(&v->instances, j)
        {
            const struct instance *i = list_entry(j, struct instance, link);

            if (i->state == INSTANCE_DYING)
                return true;
            alive += !i->compiler;
            idle += i->state != INSTANCE_BUSY && !i->leases_n;
        }
        if (idle && alive > pool_owed(v))
            return true;
    }
    return false;
}

int64_t evict_want_mb(const struct functions_memory *m, int mark_mb, int stall_percent)
{
    int64_t mark = mark_mb;

    if (mark_mb < 0 || !m->available_mb)
        return 0;
    if (!mark)
        mark = MIN(m->total_mb * MARK_PERCENT / 100, (int64_t)MARK_MAX_MB);
    if (stall_percent >= 0 && m->stall_percent >= (stall_percent ? stall_percent : STALL_PERCENT))
        mark *= 2;
    return m->available_mb < mark ? mark + mark / 4 - m->available_mb : 0;
}

void evict_look(struct functions *fs)
{
    int64_t now = now_us(), mb;

    tell(fs, now);
    if (!anything(fs)) {
        fs->short_us = 0;
        return;
    }
    if (now - fs->looked_us < LOOK_US && !fs->short_us)
        return;
    fs->looked_us = now;
    fs->memory_of(fs->memory_arg, &fs->memory);
    forecast_look(fs);
    mb = evict_want_mb(&fs->memory, fs->evict_mb, fs->evict_stall);
    if (mb > 0) {
        fs->short_us = now;
        functions_net_trim(fs);
        (void)evict(fs, mb * 1024, now, false, false);
        tell(fs, now);
    } else if (now - fs->short_us > QUIET_US) {
        fs->short_us = 0;
    }
}
