/* client/workq.h - the keys of the objects that still need a look.
 *
 * A set with a memory, not a list of events. A key added twice before it is taken is taken once.
 * A key added while somebody works on it comes back after workq_done(). So no key is worked on in
 * two places at once, and the last change to an object is never missed.
 * A key that failed is added again with workq_retry(): after a delay that doubles with each failure
 * in a row, until workq_forget().
 * Thread: the loop that made it.   Owns: copies of the keys.   Bound: keys_max, then TOO_MANY. */
#pragma once

#include "base/err.h"
#include "env/env.h"

struct workq;

struct workq *workq_new(struct env *env, uint32_t keys_max);
void *workq_free(struct workq *q);
DEFINE_AUTO(struct workq *, workq_free, workq_free)
/* ready(arg) is posted once when the queue stops being empty: take until NULL there. */
void workq_on_ready(struct workq *q, env_fn *ready, void *arg);

int workq_add(struct workq *q, const char *key, struct err *err) _must_check_;
/* In delay_ms; the earlier of two times counts. */
int workq_add_after(struct workq *q, const char *key, int64_t delay_ms, struct err *err) _must_check_;
/* After a failure: 5 ms, 10 ms, ... 1,000 s at most (as client-go), with a little jitter. */
int workq_retry(struct workq *q, const char *key, struct err *err) _must_check_;
void workq_forget(struct workq *q, const char *key); /* it went well: the next failure starts small */
uint32_t workq_failures(const struct workq *q, const char *key);

const char *workq_take(struct workq *q);           /* borrowed until workq_done(), or NULL */
void workq_done(struct workq *q, const char *key); /* only for a key that was taken */
uint32_t workq_len(const struct workq *q);         /* ready ones */
