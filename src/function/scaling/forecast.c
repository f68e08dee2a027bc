/* How many instances are forked ahead, by what a function needed lately.
 *
 * A function's instances are looked at as levels: level l is busy when l calls are under way at once. Each level is a ski
 * rental of its own: what is ahead for it is kept until the keeping has cost as much as the start that it would save,
 * counted from when the level was busy last. That is never dearer than twice what one who knew the future would pay.
 * With S seconds saved by a start and M gigabytes held, tau = S * RATE / M; RATE is the gigabyte-seconds that a second of
 * cold start is worth (99.69, the rate that the literature's RUM metric uses).
 *
 * So the forecast is the highest level that was busy within its tau; what is busy or idle already covers the lower ones,
 * stems cover the rest, and one of them always is there while the function is in use. All stems together get at most a
 * twentieth of the memory that the machine has to spare. */
#include "function/function_int.h"

enum {
    FORK_MB = 1, PROGRAM_MB = 40,         /* what a stem holds: a fork of its runtime, or a runtime of its own */
    TAU_MIN_US = 5000000, TAU_MAX_US = 600000000,
    SHARE = 20,                           /* of the memory to spare: one in so many */
};
static const double RATE = 99.69;

void forecast_seen(struct function *f)
{
    uint32_t each = f->now ? (uint32_t)f->now->places : 1, level = MIN((f->busy + each - 1) / each, (uint32_t)LEVELS_MAX);

    if (f->now && pool_gated(f->now))
        level = MIN(level, gate_limit(&f->fs->gates)); /* the others are served by them */

    if (level)
        f->level_us[level - 1] = now_us();
}

void forecast_start(struct version *v, int64_t us)
{
    v->start_us = v->start_us ? (v->start_us * 7 + us) / 8 : us;
}

static int64_t tau_us(const struct version *v)
{
    double gb = (v->forks ? FORK_MB : PROGRAM_MB) / 1024.0;
    double tau = (double)v->start_us * RATE / gb;

    return (int64_t)MIN(MAX(tau, (double)TAU_MIN_US), (double)TAU_MAX_US);
}

void forecast_look(struct functions *fs)
{
    fs->stems_mb_max = fs->memory.available_mb / SHARE;
    fs->stems_mb = 0;
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        struct version *v = list_entry(k, struct version, link);

        fs->stems_mb += (int64_t)v->stems_n * (v->forks ? FORK_MB : PROGRAM_MB);
    }
}

int forecast_stems(const struct version *v)
{
    struct functions *fs = v->f->fs;
    int64_t now = now_us(), tau = tau_us(v);
    int level = LEVELS_MAX, covered = (int)(v->instances_n - v->stems_n), want;

    while (level && (!v->f->level_us[level - 1] || now - v->f->level_us[level - 1] > tau))
        level--;
    if (v->f->debug)
        return 0; /* it is provisioned */
    if (v->f->kpa)
        return (int)v->stems_n; /* scale.c's to say */
    if (!fs->stems)
        return 0;
    if (fs->short_us || !capacity_ahead(v))
        return (int)v->stems_n; /* none is made now; who goes is evict.c's to say */
    want = MAX(level - covered, fs->stems);
    if (want > (int)v->stems_n && want > fs->stems && fs->stems_mb + (v->forks ? FORK_MB : PROGRAM_MB) > fs->stems_mb_max)
        want = MAX((int)v->stems_n, fs->stems);
    return want;
}
