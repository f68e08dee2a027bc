/* function/queue.h - events that are owed (Invoke with type Event): durable, at least once.
 *
 * An append-only log in STATE/queue/N.log. An event is acknowledged when its record is on disk;
 * events that come while a commit is under way share the next one. It is run until the function
 * answers, fails three times, or the event is too old. kill -9 at any moment loses no
 * acknowledged event; one that was at work then runs again.
 * Thread: the loop; commits happen on a pool thread. */
#pragma once

#include "function/function.h"

struct queue;

/* Reads what an earlier life owes. NULL and err when the folder cannot be used. */
struct queue *queue_open(struct functions *fs, struct err *err) _must_check_;
void queue_start(struct queue *q); /* begins to run events */
/* Writes what is not yet written, then frees; closed() is called when that is done. */
void queue_close(struct queue *q, void (*closed)(void *arg), void *arg);
/* span: of the putting, ours from here on; NULL: it is not sampled. */
void queue_put(struct queue *q, const struct function_call *call, struct function_span *span, function_queued_fn *done, void *arg);
uint32_t queue_owed(const struct queue *q);
