/* function/durable/durable.h - durable executions: a function that runs in many short invocations, with its progress on disk
 * between them (Lambda's durable functions).
 *
 * An execution is one append-only file, STATE/durable/XX/ID.log (journal.c). What changes it (a start, a
 * checkpoint, a timer that fired, a callback, an invocation's end) is one record; whoever asked for it hears of it when
 * the record is on disk. Between its invocations an execution is an index entry of some hundred bytes and a place in a
 * heap of times; its operations are read again when something happens. Its function is invoked with what happened so
 * far and answers PENDING, SUCCEEDED or FAILED; while it is PENDING no instance is kept for it. kill -9 at any moment
 * loses nothing that was answered: an invocation that was at work runs again from the last checkpoint.
 *
 * The shapes are those of the contract with the SDKs, which are Lambda's own, with times in ms since 1970.
 * Thread: the loop, for every call and every callback; files are written on pool threads. */
#pragma once

#include "function/function.h"

struct durable;

#define DURABLE_UNQUALIFIED "You cannot invoke a durable function using an unqualified ARN."

enum {
    DURABLE_NAME_MAX = 64,
    DURABLE_OPERATIONS_MAX = 3000,       /* of one execution; then it fails */
    DURABLE_BYTES_MAX = 100 << 20,       /* of its file */
    DURABLE_PAYLOAD_MAX = 1 << 20,       /* of a callback's result, of what chained invokes send and get */
    DURABLE_ERROR_MAX = 32 << 10,        /* of an error in a checkpoint */
    DURABLE_PAGE_BYTES = 4 << 20,        /* of operations in one page */
    DURABLE_HISTORY_BYTES = 1 << 20,     /* of events in one page, or one event */
    DURABLE_LOOKS_MAX = 10000,           /* executions that one page of a list is sought among */
    DURABLE_TIMEOUT_DEFAULT_S = 86400,
    DURABLE_RETENTION_DEFAULT_DAYS = 14,
    DURABLE_SYNC_MAX_S = 900,            /* who waits for an execution to end: its timeout is at most this */
};

/* What a name and a qualifier mean when an execution starts. */
struct durable_target {
    bool durable;
    const char *version; /* "$LATEST", "3": an execution stays with it. Borrowed until the loop turns */
    int timeout_s, retention_days;
    const char *kms_key; /* NULL: none */
};

struct durable_options {
    struct uv_loop_s *loop;
    const char *dir;             /* made when it is not there */
    const char *region, *account;
    int executions_max;          /* kept in all, ended ones too; 0: 200,000. Then the one that ended first goes */
    int retry_ms;                /* before an invocation that failed is tried again, doubled each time; 0: 1,000 */
    int64_t (*now_ms)(void *arg); /* NULL: the wall clock */
    /* One invocation; done exactly once, perhaps before it returns. */
    void (*invoke)(void *arg, const struct function_call *c, function_done_fn *done, void *done_arg);
    /* NOT_FOUND: no such function. */
    int (*target)(void *arg, const char *ns, const char *name, const char *qualifier, struct durable_target *ret, struct err *err);
    void *arg;
};

/* Reads what an earlier life left. NULL and err when the folder cannot be used. */
struct durable *durable_open(const struct durable_options *o, struct err *err) _must_check_;
/* From now on functions are invoked; executions that an earlier life left are taken up after so long. */
void durable_run(struct durable *d, int after_ms);
/* Invokes nothing any more, writes what is not written, frees, calls closed. */
void durable_close(struct durable *d, void (*closed)(void *arg), void *arg);
/* What is due by the clock is done now (the engine's own timer does the same). */
void durable_tick(struct durable *d);
uint32_t durable_count(const struct durable *d, bool running);

/* ---- start and end ---- */
struct durable_start {
    const char *ns, *name;   /* the Function object's */
    const char *qualifier;
    const char *function_arn; /* without qualifier, as the execution's ARN begins; NULL: made from the name */
    const char *execution;   /* its name; NULL: its id */
    const char *from;        /* what it comes from, which may be told more than once: of the same function and the same it begins once; or NULL */
    const void *payload;
    size_t n;
    const char *trace_id;    /* NULL: none */
    bool waits;              /* the caller will wait for its end: the execution's timeout must allow it */
};
/* arn is borrowed; err.code OK: it is on disk. ALREADY_EXISTS: another one has that name, and other input. */
typedef void durable_started_fn(void *arg, const struct err *err, const char *arn);
void durable_start(struct durable *d, const struct durable_start *s, durable_started_fn *done, void *arg);
/* done is called once, when the execution has ended, as of an invocation: payload is its result, or its error with
 * function_error "Unhandled". 0: called already (there is none of that ARN). */
uint64_t durable_wait(struct durable *d, const char *arn, function_done_fn *done, void *arg);
void durable_forget(struct durable *d, uint64_t ticket); /* done will not be called */

/* ---- what the SDKs ask ---- */
/* Answers come when what they show is on disk; what an execution has is read on pool threads where it is not in memory, so all that
 * is given (texts, trees) is borrowed until the answer comes. Who asks in line with 10,000 others hears TOO_MANY. v lies in an arena of the engine until the callback returns; NULL
 * with err:
 *   INVALID_ARGUMENT InvalidParameterValueException   NOT_FOUND ResourceNotFoundException
 *   CONFLICT         ResourceConflictException        EXPIRED   CallbackTimeoutException
 *   others           the service's own fault */
typedef void durable_done_fn(void *arg, const struct val *v, const struct err *err);
/* v: {CheckpointToken, NewExecutionState {Operations}}; no token: this invocation is to stop. */
void durable_checkpoint(struct durable *d, const char *arn, const char *token, const char *client_token, const struct val *updates,
                        durable_done_fn *done, void *arg);
/* v: {Operations, NextMarker} */
void durable_state(struct durable *d, const char *arn, const char *token, const char *marker, int max_items, durable_done_fn *done, void *arg);

/* ---- what others ask ---- */
/* v: as GetDurableExecution's answer. */
void durable_get(struct durable *d, const char *arn, bool data, durable_done_fn *done, void *arg);
/* v: {Events, NextMarker} */
void durable_history(struct durable *d, const char *arn, bool data, bool reverse, const char *marker, int max_items, durable_done_fn *done, void *arg);
struct durable_filter {
    const char *ns, *name;           /* of the Function object */
    const char *version, *execution, *status; /* NULL: any */
    int64_t after_ms, before_ms;     /* 0: no bound */
    bool oldest_first;
    const char *marker;              /* NULL: from the start */
    int max_items;                   /* 0: 100 */
};
/* v: {DurableExecutions, NextMarker}, in the arena; NULL: the marker is none of ours. A page may be short, even empty, and have a next. */
struct val *durable_list(struct durable *d, struct arena *a, const struct durable_filter *f, struct err *err);
void durable_stop(struct durable *d, const char *arn, const struct val *error, durable_done_fn *done, void *arg); /* {StopTimestamp} */
void durable_pause(struct durable *d, const char *arn, const char *client_token, const char *reason, bool clock_too, durable_done_fn *done, void *arg);
void durable_resume(struct durable *d, const char *arn, const char *client_token, const char *reason, durable_done_fn *done, void *arg);
void durable_delete(struct durable *d, const char *arn, durable_done_fn *done, void *arg); /* {DeletionRequestTimestamp} */
enum durable_callback { DURABLE_SUCCEED, DURABLE_FAIL, DURABLE_HEARTBEAT };
/* result: n bytes, may be NULL; error: an ErrorObject, may be NULL. */
void durable_callback(struct durable *d, const char *callback_id, enum durable_callback what, const void *result, size_t n,
                      const struct val *error, durable_done_fn *done, void *arg);
/* The ARN of the execution that a callback is of, in the arena; NULL: unknown. */
const char *durable_of_callback(struct durable *d, struct arena *a, const char *callback_id);
