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
/* Begins to run events; those of an earlier life after so many ms: their functions must be known first, or they
 * would be dropped as nobody's. */
void queue_start(struct queue *q, int64_t after_ms);
/* Writes what is not yet written, then frees; closed() is called when that is done. */
void queue_close(struct queue *q, void (*closed)(void *arg), void *arg);
/* function_invoke_async() of an event that ends another one.
 * ends: 0, or an event (by its number) that is over when this one is on disk: one record says both, so that
 * no kill makes the record of an event be sent twice or never. */
void queue_invoke(struct functions *fs, const struct function_call *call, uint64_t ends, function_queued_fn *done, void *arg);
uint32_t queue_owed(const struct queue *q);
