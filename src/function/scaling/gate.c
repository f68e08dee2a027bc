#include "function/scaling/gate.h"

enum {
    SHORT_US = 250,                         /* a handler that is longer gains little by waiting, and may do so for others */
    EACH = 2,                               /* at work at once for each core: one runs, the other's answer is on its way */
    OLD_TIMES = 4, OLD_MIN_US = 1000, OLD_MAX_US = 10000, /* a call that runs for so long is none of the short ones */
    AGAIN_US = 500,                         /* after that it is looked at once more */
    COLD_TIMES = 2, COLD_MAX_US = 50000,    /* the same of one that waits for a start: so many times what starts cost */
    SILENT = 1,                             /* looks beyond that time without an answer: nobody works, all wait for something */
    PATIENCE_US = 1000,                     /* then a call gets a new instance: a start costs about that */
    LATE = 8,                               /* the share of a new figure in what is known: one in so many */
    TRY_MIN = 64, TRY_MAX = 65536,          /* answers after which an open gate is tried */
    TRY_US = 20000,                         /* with calls of at most so much: who waits meanwhile does so for one of them */
    KNOWN = 1024,                           /* answers of a shut gate after which its calls are short for certain */
    LONG_MANY = GATE_ONE / 2,               /* long calls that open it: half of them, or six in a row */
};

void gate_init(struct gate *g, struct gates *all)
{
    *g = (struct gate){.all = all, .longs = GATE_ONE, .try_after = TRY_MIN};
    list_init(&g->at_work);
}

bool gate_shut(const struct gate *g)
{
    return g->all->cores && g->longs < LONG_MANY;
}

uint32_t gate_limit(const struct gates *all)
{
    return EACH * MAX(all->cores, 1u);
}

static uint32_t share(const struct gate *g)
{
    return MAX(gate_limit(g->all) / MAX(g->all->active + !g->n, 1u), 1u);
}

static void set_longs(struct gate *g, int32_t longs)
{
    bool was = gate_shut(g);

    g->longs = longs;
    if (gate_shut(g) != was)
        g->answers = 0;
}

static void count(struct gate *g, bool is_long)
{
    set_longs(g, g->longs + ((is_long ? GATE_ONE : 0) - g->longs) / LATE);
}

static int64_t old_us(const struct gate *g)
{
    return MIN(MAX(OLD_TIMES * g->usual_us, (int64_t)OLD_MIN_US), (int64_t)OLD_MAX_US);
}

/* Those that take too long for what they were thought to be. */
static void sweep(struct gate *g, int64_t now)
{
    LIST_EACH(&g->at_work, l)
    {
        struct gate_pass *p = list_entry(l, struct gate_pass, link);

        if (p->until_us > now)
            continue;
        if (!p->late) { /* the loop may have been late, and the answer lies in the socket */
            p->late = true;
            p->until_us = now + AGAIN_US;
            continue;
        }
        gate_out(g, p);
        if (p->warm)
            count(g, true);
    }
}

enum gate_says gate_ask(struct gate *g, int64_t since_us, int64_t now)
{
    uint32_t most = share(g), at_once = MIN(most, g->all->cores);

    if (!gate_shut(g))
        return GATE_ANY;
    if (g->n >= at_once) {
        sweep(g, now);
        if (!gate_shut(g))
            return GATE_ANY;
    }
    if (g->n >= most)
        return GATE_WAIT;
    return g->n < at_once || now - since_us >= PATIENCE_US ? GATE_ANY : GATE_WARM;
}

void gate_look(struct gate *g)
{
    if (++g->silent > SILENT + old_us(g) / 1000)
        set_longs(g, GATE_ONE);
}

void gate_in(struct gate *g, struct gate_pass *p, bool warm, int64_t start_us, int64_t now)
{
    int64_t us = old_us(g);

    p->warm = warm;
    p->late = false;
    p->until_us = 0;
    if (!gate_shut(g))
        return; /* who passed an open gate soon ends, or is long */
    if (!warm)
        us = MAX(us, MIN(COLD_TIMES * start_us, (int64_t)COLD_MAX_US));
    p->until_us = now + us;
    list_push(&g->at_work, &p->link);
    if (!g->n++)
        g->all->active++;
}

void gate_out(struct gate *g, struct gate_pass *p)
{
    if (!list_linked(&p->link))
        return;
    list_remove(&p->link);
    if (!--g->n)
        g->all->active--;
}

/* What is at work together takes as long as it does: those who are let in now may do so for as long. */
static void try_shut(struct gate *g, int64_t took_us)
{
    g->try_after = MIN(2 * g->try_after, (uint32_t)TRY_MAX);
    g->usual_us = MIN(took_us, (int64_t)OLD_MAX_US);
    set_longs(g, 0);
}

void gate_seen(struct gate *g, const struct gate_pass *p, int64_t handler_us, int64_t took_us)
{
    bool is_long = handler_us > SHORT_US;

    g->silent = 0;
    if (!p->warm || (gate_shut(g) && !p->until_us))
        return; /* its handler did more than it will; it ran beside more than now do */
    count(g, is_long);
    g->answers++;
    if (!is_long)
        g->usual_us += (MIN(took_us, (int64_t)OLD_MAX_US) - g->usual_us) / LATE;
    if (gate_shut(g) && g->answers >= KNOWN)
        g->try_after = TRY_MIN;
    else if (!gate_shut(g) && g->answers >= g->try_after && handler_us <= TRY_US)
        try_shut(g, took_us);
}
