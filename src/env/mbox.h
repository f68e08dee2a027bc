/* env/mbox.h - messages to a loop from other threads.
 *
 * mbox_send() gives the message away: from then on it belongs to the receiver, which gets each
 * exactly once, in the order of sending per thread, on its own loop. */
#pragma once

#include "base/list.h"

typedef struct uv_loop_s uv_loop_t;

struct mbox;
struct mbox_msg { /* first member, or anywhere, in the sender's struct */
    struct list link;
};

typedef void mbox_fn(void *arg, struct mbox_msg *msg);

struct mbox *mbox_new(uv_loop_t *loop, mbox_fn *fn, void *arg);
/* On the loop's thread, when no sender is left. Messages not yet received go to fn first. */
void *mbox_free(struct mbox *m);
void mbox_drain(struct mbox *m); /* on the loop's thread: receives what is there, now */
void mbox_send(struct mbox *m, struct mbox_msg *msg); /* from any thread */
