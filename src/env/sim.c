/* The simulated env. A run is a function of the seed: time moves only from event to event, posts
 * run in order, timers by (time, a number drawn when they were started): so different seeds try
 * different orders of what happens "at the same time". Two generators, so that a change in how
 * many random numbers the code takes does not shuffle the order of timers as well. */
#include "env/env_int.h"

enum { SIM_START_S = 1767225600 }; /* 2026-01-01T00:00:00Z */

struct sim_timer {
    struct env_timer t;
    int64_t due_us, repeat_us;
    uint64_t tie;
    uint32_t at; /* its place in the heap + 1; 0: stopped */
    bool freed;  /* while its fn runs: the free comes after */
};
struct sim {
    struct env env;
    uint64_t values, ties; /* states of the generators */
    int64_t mono_us;
    struct env_posted *first, **last;
    struct sim_timer **heap; /* earliest at [0] */
    uint32_t n, cap, timers;
    struct sim_timer *running;
};

static uint64_t next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t sim_mono_us(struct env *env)
{
    return ((struct sim *)env)->mono_us;
}

static int64_t sim_now_ms(struct env *env)
{
    return SIM_START_S * INT64_C(1000) + sim_mono_us(env) / 1000;
}

static void sim_bytes(struct env *env, void *p, size_t n)
{
    struct sim *s = (struct sim *)env;

    for (size_t at = 0; at < n; at += 8) {
        uint64_t v = next(&s->values);

        memcpy((char *)p + at, &v, MIN(n - at, sizeof v));
    }
}

/* --- the heap -------------------------------------------------------------------------------- */
static bool before(const struct sim_timer *x, const struct sim_timer *y)
{
    return x->due_us != y->due_us ? x->due_us < y->due_us : x->tie < y->tie;
}

static void place(struct sim *s, uint32_t i, struct sim_timer *t)
{
    s->heap[i] = t;
    t->at = i + 1;
}

static void sift(struct sim *s, uint32_t i, struct sim_timer *t)
{
    for (; i && before(t, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        place(s, i, s->heap[(i - 1) / 2]);
    for (uint32_t kid; (kid = 2 * i + 1) < s->n; i = kid) {
        if (kid + 1 < s->n && before(s->heap[kid + 1], s->heap[kid]))
            kid++;
        if (!before(s->heap[kid], t))
            break;
        place(s, i, s->heap[kid]);
    }
    place(s, i, t);
}

static void heap_add(struct sim *s, struct sim_timer *t)
{
    if (s->n == s->cap)
        s->heap = xrealloc(s->heap, (s->cap = s->cap ? 2 * s->cap : 64) * sizeof(struct sim_timer *));
    s->n++;
    sift(s, s->n - 1, t);
}

static void heap_remove(struct sim *s, struct sim_timer *t)
{
    uint32_t i = t->at - 1;
    struct sim_timer *end = s->heap[--s->n];

    t->at = 0;
    if (end != t)
        sift(s, i, end);
}

/* --- timers ---------------------------------------------------------------------------------- */
static struct env_timer *sim_timer_new(struct env *env, _unused_ env_fn *fn, _unused_ void *arg)
{
    struct sim_timer *t = xcalloc(1, sizeof *t);

    ((struct sim *)env)->timers++;
    return &t->t;
}

static void sim_timer_stop(struct env_timer *et)
{
    struct sim_timer *t = (struct sim_timer *)et;

    t->repeat_us = 0;
    if (t->at)
        heap_remove((struct sim *)et->env, t);
}

static void sim_timer_start(struct env_timer *et, int64_t delay_ms, int64_t repeat_ms)
{
    struct sim_timer *t = (struct sim_timer *)et;
    struct sim *s = (struct sim *)et->env;

    sim_timer_stop(et);
    t->due_us = s->mono_us + delay_ms * 1000;
    t->repeat_us = repeat_ms * 1000;
    t->tie = next(&s->ties);
    heap_add(s, t);
}

static bool sim_timer_active(const struct env_timer *et)
{
    return ((const struct sim_timer *)et)->at != 0;
}

static void sim_timer_free(struct env_timer *et)
{
    struct sim_timer *t = (struct sim_timer *)et;
    struct sim *s = (struct sim *)et->env;

    sim_timer_stop(et);
    s->timers--;
    if (s->running == t)
        t->freed = true;
    else
        free(t);
}

static void sim_post(struct env *env, env_fn *fn, void *arg)
{
    struct sim *s = (struct sim *)env;
    struct env_posted *p = xmalloc(sizeof *p);

    *p = (struct env_posted){.fn = fn, .arg = arg};
    *s->last = p;
    s->last = &p->next;
}

static void sim_free(struct env *env)
{
    struct sim *s = (struct sim *)env;

    ASSERT(s->timers == 0);
    for (struct env_posted *p = s->first, *behind; p; p = behind) {
        behind = p->next;
        free(p);
    }
    free(s->heap);
    free(s);
}

static uv_loop_t *sim_loop(_unused_ struct env *env)
{
    return NULL;
}

static const struct env_ops sim_ops = {
    .now_ms = sim_now_ms,
    .mono_us = sim_mono_us,
    .bytes = sim_bytes,
    .timer_new = sim_timer_new,
    .timer_start = sim_timer_start,
    .timer_stop = sim_timer_stop,
    .timer_active = sim_timer_active,
    .timer_free = sim_timer_free,
    .post = sim_post,
    .free = sim_free,
    .loop = sim_loop,
};

struct env *env_sim_new(uint64_t seed)
{
    struct sim *s = xcalloc(1, sizeof *s);

    s->env.ops = &sim_ops;
    s->values = seed;
    s->ties = ~seed * 0xd1342543de82ef95u;
    s->last = &s->first;
    return &s->env;
}

/* --- running --------------------------------------------------------------------------------- */
static void run_timer(struct sim *s, struct sim_timer *t)
{
    s->mono_us = MAX(s->mono_us, t->due_us);
    if (t->repeat_us) {
        heap_remove(s, t);
        t->due_us = s->mono_us + t->repeat_us;
        t->tie = next(&s->ties);
        heap_add(s, t);
    } else {
        heap_remove(s, t);
    }
    s->running = t;
    t->t.fn(t->t.arg);
    s->running = NULL;
    if (t->freed)
        free(t);
}

bool env_sim_step(struct env *env)
{
    struct sim *s = (struct sim *)env;
    struct env_posted *p = s->first;

    ASSERT(env->ops == &sim_ops && !s->running);
    if (p) {
        s->first = p->next;
        if (!s->first)
            s->last = &s->first;
        p->fn(p->arg);
        free(p);
        return true;
    }
    if (s->n == 0)
        return false;
    run_timer(s, s->heap[0]);
    return true;
}

uint64_t env_sim_run_until(struct env *env, int64_t t_ms)
{
    struct sim *s = (struct sim *)env;
    int64_t until_us = (t_ms - SIM_START_S * INT64_C(1000)) * 1000;
    uint64_t events = 0;

    while (s->first || (s->n && s->heap[0]->due_us <= until_us))
        events += env_sim_step(env);
    s->mono_us = MAX(s->mono_us, until_us);
    return events;
}

uint64_t env_sim_settle(struct env *env)
{
    return env_sim_run_until(env, sim_now_ms(env));
}
