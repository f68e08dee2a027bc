/* function/scaling/gate.h - how many short calls of one version run at once.
 *
 * A machine runs as many processes at once as it has cores. While a version's calls are short (its handler's own times of
 * late say so), more of them at work at once than a few times the cores gain nothing and cost caches and context switches:
 * the others stand before the gate, and the next goes to the instance that has just answered. So a burst of short calls
 * does not fork as many instances either. Where nothing is known yet, or calls are long, the gate is open.
 *
 * A call that runs for several times the usual (at least OLD_MIN_US) is taken for one that sleeps: it counts no more, and is
 * one long call seen. So of n calls before the gate the last one has passed after n times that, divided by its share of
 * gate_limit(), at the worst, whatever the handlers do. A function whose calls get long has its gate open after the first few of them, or when
 * for a few milliseconds none was answered.
 *
 * Many short calls at once look long where their runtime is several processes: each waits for the others' turns. So an open
 * gate shuts now and then to see what the same calls take when few are at work; it opens again within a few of their times
 * when they are long indeed, and then tries half as often.
 *
 * Versions that have short calls at work share the machine evenly, and each has at least one at work: who calls all the
 * time does not hold up who calls now and then.
 *
 * Pure: no clock, no loop, no memory of its own. Times are in us. */
#pragma once

#include "base/list.h"

/* What all gates have in common. */
struct gates {
    uint32_t cores;  /* 0: all are open */
    uint32_t active; /* gates with somebody at work */
};

struct gate {
    struct gates *all;
    struct list at_work; /* passes that count */
    uint32_t n;          /* of them */
    int32_t silent;      /* looks since the last answer */
    int32_t longs;       /* share of long calls of late, of GATE_ONE */
    uint32_t answers, try_after; /* since it opened or shut; open: it is tried after so many */
    int64_t usual_us;    /* from a call's way out to its answer; of short ones, of late */
};

/* Of a call that has passed; zeroed at first. */
struct gate_pass {
    struct list link;
    int64_t until_us; /* it counts until then; 0: the gate was open */
    bool warm, late;
};

enum gate_says {
    GATE_WAIT, /* for the next answer */
    GATE_WARM, /* to one who has answered before, if one is free; else wait */
    GATE_ANY,  /* to whoever there is, or can be made */
};

enum { GATE_ONE = 1 << 16 };

void gate_init(struct gate *g, struct gates *all); /* open: nothing is known. all stays the caller's, and outlives it */
bool gate_shut(const struct gate *g);
uint32_t gate_limit(const struct gates *all); /* at work at once while a gate is shut, and no other version has calls */
/* Who may have a call that came at since_us. After GATE_WAIT or GATE_WARM ask again when a call ends, and after 1 ms: then
 * look first. */
enum gate_says gate_ask(struct gate *g, int64_t since_us, int64_t now_us);
void gate_look(struct gate *g);
/* A call has gone to an instance; warm: that has answered before; start_us: what a start costs of late, 0: not known. */
void gate_in(struct gate *g, struct gate_pass *p, bool warm, int64_t start_us, int64_t now_us);
void gate_out(struct gate *g, struct gate_pass *p); /* it is back, however; twice is fine */
/* A call has ended: so long was its handler, so long it was on its way. */
void gate_seen(struct gate *g, const struct gate_pass *p, int64_t handler_us, int64_t took_us);
