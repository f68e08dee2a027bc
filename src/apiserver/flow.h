/* apiserver/flow.h - priority and fairness: who is served next, and who is told to come later.
 *
 * Each request is put under a FlowSchema (the first that matches, by precedence) and its priority level.
 * A level has seats: its share of SEATS, more while others do not use theirs (lendablePercent,
 * borrowingLimitPercent). A request holds its seats from its start to its answer, so seats bound
 * what waits for a disk, a webhook or a slow reader of a list. Most requests wait for nothing: what they
 * take is time of the loop. Therefore a second bound: requests may run at once only as long as they
 * took less than BUDGET of the last WINDOW; above that, and when there is no seat, they wait in queues,
 * and the loop takes from the levels by their shares and in a level from its flows by what they took so
 * far. A flow's queue is the shortest of the few that its hash deals (shuffle sharding). What finds its
 * queue full, or all queues together too big, or waits too long, gets 429.
 * Exempt levels (administrators, probes) never wait. Long streams (watches, exec) hold a seat only
 * until they have begun. Parts of the same process do not come through here.
 *
 * Thread: the loop's. Levels and schemas are read from their objects again when those change. */
#pragma once

#include "apiserver/api_int.h"

struct flow_schema;
struct flow_level;
struct flow_queue;

/* In the request's arena. */
struct flow_ticket {
    struct list link; /* its queue, while it waits */
    struct flow_schema *schema;
    struct flow_level *level;
    struct flow_queue *queue;
    const char *schema_uid, *level_uid; /* for the answer's headers; NULL: not classified */
    uint32_t seats;
    size_t bytes; /* held while it waits */
    int64_t since_us;
    bool holds; /* seats */
    void (*go)(void *arg);     /* its turn has come; from the loop */
    void (*refuse)(void *arg); /* it waited too long */
    void *arg;
};

enum flow_verdict { FLOW_GO, FLOW_WAIT, FLOW_REFUSED };
/* t: go, refuse, arg, bytes are set. GO: run it now and tell flow_spent() what it took. */
enum flow_verdict flow_enter(struct flow *f, struct flow_ticket *t, struct arena *a,
                             const struct about *about, const struct auth_user *user, int64_t limit);
/* level: the ticket's, as it was before it ran. */
void flow_spent(struct flow *f, struct flow_level *level, int64_t us);
/* It is answered, has become a stream, or its client went. Twice is fine. */
void flow_leave(struct flow *f, struct flow_ticket *t);
