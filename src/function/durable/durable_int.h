/* function/durable/durable_int.h - between the files of durable executions.
 *   durable.c   starts, invocations, what time brings, ends
 *   index.c     which there are, and when something is due
 *   chain.c     chained invokes
 *   ask.c       checkpoints, callbacks, stops, pauses
 *   op.c        operations: what a checkpoint may say, and what it makes of them
 *   journal.c   files: records appended and read again
 *   job.c       work that may block, on pool threads
 *   view.c      what is shown: states, lists, histories */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "codec/json.h"
#include "function/durable/durable.h"
#include "function/function_int.h"

#include <uv.h>

enum durable_status { D_RUNNING, D_PAUSING, D_PAUSED, D_SUCCEEDED, D_FAILED, D_TIMED_OUT, D_STOPPED, D_STATUSES };
extern const char *const durable_status_names[D_STATUSES];

/* Who waits for a record to be on disk. */
struct durable_waiter {
    struct list link;
    void (*fn)(struct durable_waiter *w, const struct err *err); /* frees w */
};

/* Work on a pool thread; embedded in what it works on. */
struct durable_job {
    uv_work_t work;
    struct list link; /* durable.jobs until it begins */
    struct durable *d;
    void (*run)(struct durable_job *j);  /* on a pool thread */
    void (*done)(struct durable_job *j); /* on the loop */
};

/* Who needs an execution's operations. */
struct exec_wait {
    struct list link;
    struct exec *e;
    void (*run)(struct exec_wait *w, const struct err *err); /* err.code: they cannot be read. Frees w */
};

/* What is known of an execution while something happens to it. */
struct durable_ops {
    struct arena *a;
    struct val *list;    /* operations in the order they began; members that begin with '_' are ours */
    struct map by_id;    /* to (void *)(index + 1) */
    struct val *changed; /* indexes, since the last record */
    struct val *events;  /* since the last record */
    struct val *pause;   /* {at, reason, clock, token}, or {resumed}: the token of the last resume, or NULL */
    struct val *result;  /* a string, or NULL */
    struct val *error;   /* ErrorObject, or NULL */
    struct val *last;    /* {client, token, ids, next}: the last checkpoint with a client token */
};

/* One execution. The numbers are in every record. */
struct exec {
    struct list link;  /* durable.all */
    struct list ended; /* durable.ended, when it has */
    struct durable *d;
    char *id, *name, *arn, *ns, *object, *version, *kms_key, *trace;
    char *parent, *parent_op; /* of a chained invoke; NULL */
    char input_sha[65];
    enum durable_status status;
    int64_t start_ms, end_ms, timeout_at_ms; /* timeout_at_ms: moves when a pause stops the clock */
    int64_t clock_left_ms;    /* > 0: the clock stands, so much is left */
    int timeout_s, retention_days;
    uint32_t token, inv, fails, bad_pending, events_n;
    uint64_t touched, seen;   /* changes of operations; those that the function was told */
    bool running;             /* an invocation is at work */
    bool wants;               /* and one more is to come */
    int64_t inv_ms, retry_at_ms; /* when it began; 0: not waiting for another try */
    /* of this life only */
    int busy_tries;           /* in a row without room for it */
    bool launch;              /* its invocation is yet to begin: when the record of it is on disk, and there is room */
    int64_t launch_at_ms;     /* not before; 0: at once */
    uint64_t told;            /* changes that were known before that invocation */
    bool told_parent, chains; /* chains: it has chained invokes that are not over */
    int64_t chain_at_ms;      /* when those that found no room are tried again; 0: none did */
    bool invoked;             /* its function is at work */
    bool reread;              /* what the disk says counts, not what is known */
    int64_t not_before_ms;    /* the disk would not take it: nothing more until then */
    struct durable_ops *ops;  /* NULL: not read */
    struct list load_waits;   /* struct exec_wait: who needs them */
    struct exec_wait due_wait;
    bool loading, due_waits;
    /* its file */
    off_t size;               /* what of it is whole on disk */
    struct buf pending, writing;
    struct list pending_waiters, writing_waiters;
    bool busy, new_file, gone; /* gone: its file is to go, and it with it */
    int write_error;
    uv_work_t work;
    /* time */
    int64_t due_ms;           /* 0: never */
    uint32_t heap_at;         /* its place + 1; 0: none */
    struct list waits;        /* who waits for its end */
    uint32_t holds;           /* who works with it: it is not freed, its operations stay */
};

struct durable {
    struct uv_loop_s *loop;
    char *dir, *region, *account;
    int executions_max, retry_ms;
    int64_t (*now)(void *arg);
    void (*invoke)(void *arg, const struct function_call *c, function_done_fn *done, void *done_arg);
    int (*target)(void *arg, const char *ns, const char *name, const char *qualifier, struct durable_target *ret, struct err *err);
    void *arg;
    struct list all;
    struct list ended;         /* of all, by end */
    struct map by_id;          /* with those that are gone until their file is, too */
    struct map by_name;        /* NS/NAME/EXECUTION */
    struct map by_function;    /* NS/NAME to struct exec_series */
    bool reading;              /* an earlier life's: series and the ended are sorted at the end */
    struct list jobs;          /* that wait for their turn */
    uint32_t jobs_at_work, asks; /* asks: requests that wait for operations */
    struct map chained;        /* ID/OPERATION of chained invokes that were begun in this life */
    uint32_t n, running_n;
    struct exec **heap;
    uint32_t heap_n, heap_cap;
    uv_timer_t timer;
    bool timer_closed, active, closing;
    int64_t active_ms;         /* since when it is active */
    uint32_t at_work;          /* writes, jobs and invocations under way */
    void (*closed)(void *arg);
    void *closed_arg;
};

static inline int64_t durable_now(const struct durable *d)
{
    return d->now ? d->now(d->arg) : wall_ms();
}
enum { YEAR_DAYS = 366 };
#define DAY_MS 86400000LL
static inline bool exec_ended(const struct exec *e)
{
    return e->status >= D_SUCCEEDED;
}

/* ---- journal.c ---- */
/* Finds the files of an earlier life; each execution is handed to durable_adopt(). */
int durable_read_all(struct durable *d, struct err *err);
/* Its operations, read again when they are not there; NULL and err: the file cannot be read. Blocks: only before the loop turns. */
struct durable_ops *exec_load(struct exec *e, struct err *err);
/* w->run when its operations are there, at once if they are; those who wait come in order. */
void exec_with_ops(struct exec *e, struct exec_wait *w);
void exec_load_begin(struct exec *e); /* exec_settle() comes when they are there */
static inline bool exec_ready(const struct exec *e)
{
    return e->ops && list_empty(&e->load_waits);
}
void exec_ops_new(struct exec *e); /* of one that begins */
void exec_unload(struct exec *e);
/* What changed since the last one becomes a record; w (may be NULL) hears when it is on disk. */
void exec_commit(struct exec *e, struct durable_waiter *w);
/* Its file is as long as one may be: TOO_LARGE in err. */
bool exec_full(const struct exec *e, struct err *err);
/* It leaves the indexes, then its file goes; done (may be NULL) hears of that, with lasting when no power loss brings it back. */
void exec_drop(struct exec *e, bool lasting, void (*done)(void *arg, const struct err *err), void *arg);
/* Events first, first + 1, ... of the history (reverse: first, first - 1, ...): n of them, at most so many bytes, at least one. */
struct exec_events {
    const char *path;
    off_t size;     /* of the file, whole */
    int64_t first;
    off_t at;       /* of a record at or before the first in that direction; -1: unknown */
    int n;
    size_t bytes;
    bool reverse, data;
    struct arena *a;
    /* found */
    struct val *list;
    off_t last_at;  /* of the record that the last one found is of */
};
int exec_events_read(struct exec_events *h, struct err *err); /* blocks; INVALID_ARGUMENT: no record is there */
char *exec_path(const struct exec *e);

/* ---- job.c ---- */
/* run on a pool thread, soon; then done. */
void durable_job(struct durable *d, struct durable_job *j, void (*run)(struct durable_job *j), void (*done)(struct durable_job *j));

/* ---- op.c ---- */
struct val *op_at(struct exec *e, uint32_t index);
struct val *op_find(struct exec *e, const char *id);
/* New, or put in place of the one with that id. */
void op_put(struct durable_ops *ops, const struct val *op);
void op_touched(struct exec *e, const struct val *op);
/* An event of the history; op may be NULL (of the execution). Details are put into what it gives back. */
struct val *op_event_add(struct exec *e, const char *type, const struct val *op);
/* result: a string; both may be NULL. */
void op_end(struct exec *e, struct val *op, const char *status, const struct val *result, const struct val *error);
/* Checks all of them, then applies all: INVALID_ARGUMENT and nothing was changed. */
int ops_update(struct exec *e, const struct val *updates, struct err *err);
/* Waits, retries and time limits of callbacks that are due. */
bool ops_due(struct exec *e, int64_t now);
int64_t ops_next(const struct exec *e); /* when the next one is; 0: never */
bool ops_waiting(const struct exec *e); /* is there anything that can come? */
bool op_hidden(struct exec *e, const struct val *op); /* below a context that is over */
struct val *exec_error_object(struct arena *a, const char *type, const char *message);
struct val *op_event_payload(struct arena *a, const struct val *payload); /* {Payload, Truncated} */

/* ---- view.c ---- */
struct val *view_op(struct arena *a, const struct val *op);
/* From an index on: what fits on a page, at least one unless it may be empty; *ret_next: the next one's index + 1, 0: that was all. */
struct val *view_page(struct exec *e, struct arena *a, uint32_t from, int max_items, bool may_be_empty, uint32_t *ret_next);
struct val *view_exec(struct exec *e, struct arena *a, bool data);
size_t view_size(const struct val *v); /* about what it takes as JSON */
char *view_function_arn(const struct exec *e, struct arena *a);

/* ---- index.c ---- */
struct exec *exec_new(struct durable *d, const char *id);
void exec_free(struct exec *e);
void durable_adopt(struct exec *e); /* one of an earlier life, into the indexes */
void exec_enter(struct exec *e);
void exec_leave(struct exec *e);
struct exec *exec_by_arn(struct durable *d, const char *arn);
char *exec_name_key(struct arena *a, const char *ns, const char *object, const char *name); /* of durable.by_name */
int64_t exec_next(const struct exec *e); /* when something is due; of one that has not ended: its operations are there */
void exec_heap_set(struct exec *e, int64_t due_ms);
void durable_timer(struct durable *d);
void durable_make_room(struct durable *d);
void durable_sort(struct durable *d); /* after reading */
void exec_count_end(struct exec *e, bool ended); /* it has ended now; or that was taken back */
struct exec *exec_find(struct durable *d, const char *id); /* NULL: none, or it is going */
/* A function's executions by start. An entry without execution is of one that went. */
struct exec_entry {
    int64_t start_ms;
    struct exec *e;
};
struct exec_series {
    struct exec_entry *v;
    uint32_t n, cap, dead;
};
uint32_t exec_series_from(const struct exec_series *s, int64_t start_ms); /* the first that began then or later */

/* Not for want of the function: it is not known yet, or there is no room. */
bool durable_no_room(const struct durable *d, const struct err *err);

/* ---- chain.c ---- */
bool exec_has_chains(const struct exec *e);
void exec_chains(struct exec *e);      /* begins those that are not begun */
void exec_tell_parent(struct exec *e); /* it has ended */
struct val *exec_result_error(struct arena *a, const struct function_result *r); /* of a function that failed */

/* ---- durable.c ---- */
void exec_settle(struct exec *e);   /* after a change: its next time, what is to be told or invoked */
void exec_finish(struct exec *e, enum durable_status status, const struct val *result, const struct val *error);
void exec_unlaunch(struct exec *e); /* its invocation that has not begun is still owed, and no more */
void exec_waits_fail(struct exec *e, const struct err *err); /* who waits for its end hears of err */
/* With an id of the caller's (NULL: a new one), and of what operation it is. */
void durable_start_as(struct durable *d, const struct durable_start *s, const char *id, const char *parent, const char *parent_op,
                      durable_started_fn *done, void *arg);
void durable_maybe_closed(struct durable *d);
char *exec_token_text(struct arena *a, const char *text); /* base64 */
char *exec_token_read(struct arena *a, const char *token); /* NULL: none of ours */
char *exec_token(const struct exec *e, struct arena *a); /* that the next checkpoint is to bring */
/* An id that follows from the text; of a chained invoke's execution PARENT/OPERATION. */
char *exec_id_from(struct arena *a, const char *text);
