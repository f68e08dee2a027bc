/* store/store.h - every API object of the cluster, with revisions.
 *
 * One line of revisions over all tables: each write takes the next one. All live objects are in
 * memory (the HEAD); an engine behind a table of functions keeps them on disk. A write changes the
 * head at once and is DURABLE a little later, when the engine says so; writes of the same moment
 * share one fsync. In-process parts work on the head; whatever leaves the process (answers, watch
 * events) waits for store_when_durable(). So nothing is ever shown outside that a crash can take
 * back, and nobody inside waits for a disk.
 *
 * When the disk fails (full, I/O error) every write that is not durable is taken back: their
 * waiters get the error, the head is again what the disk holds, head watchers get the reversed
 * events. See README.md, "when the disk fails".
 *
 * History: the last changes (bounded by number, bytes and age) stay for watches that start in the
 * past and for lists at an older revision; what is older answers EXPIRED.
 *
 * Thread: one, the one that opened it. Callbacks come on it, through its env. */
#pragma once

#include "codec/obj.h"
#include "env/env.h"

struct store;
struct store_table;
struct store_watch;
struct store_engine_ops; /* store/engine.h */

/* --- life ------------------------------------------------------------------------------------- */
struct store_args {
    struct env *env;                       /* outlives the store */
    const struct store_engine_ops *engine; /* &store_sqlite, &store_memory (store/engine.h) */
    const char *path;                      /* sqlite: the database file */
    void *disk;                            /* memory: a struct store_disk */
    /* bounds of the history; 0 = default (20,000 changes, 48 MiB, 5 minutes) */
    uint32_t history_max;
    size_t history_bytes_max;
    int64_t history_age_ms;
    /* Unpacked texts and trees that stay with objects between turns of the loop (codec/obj.h); 0: no
     * limit. One store of a process sets it. */
    size_t cache_bytes;
};
struct store *store_open(const struct store_args *args, struct err *err) _must_check_;
/* Waits until all that was put is durable (or failed), then closes. Watches must be gone. */
void *store_close(struct store *s);

const char *store_cluster_uid(const struct store *s); /* made at the first start, stays */

/* --- tables ----------------------------------------------------------------------------------- */
/* The table of that key, made when new; stays until store_close. Keys are opaque here: the
 * schema's resource->table ("pods", "apps/deployments"). */
struct store_table *store_table(struct store *s, const char *key);
const char *store_table_key(const struct store_table *t);
/* All tables that were ever named, in the order of their making; NULL ends. */
struct store_table *store_table_next(struct store *s, const struct store_table *after);

/* --- revisions -------------------------------------------------------------------------------- */
int64_t store_head(const struct store *s);          /* of the last write */
int64_t store_next_revision(const struct store *s); /* that the next write must carry */
int64_t store_durable(const struct store *s);       /* all writes up to here survive a crash */
int64_t store_floor(const struct store *s);         /* lists and watches from here on are possible */

/* Calls fn once: with err NULL when revision (and all before) is durable - inside this call when it
 * already is - or with the error when the disk failed and the write was taken back. */
typedef void store_durable_fn(void *arg, const struct err *err);
void store_when_durable(struct store *s, int64_t revision, store_durable_fn *fn, void *arg);

/* --- writing ---------------------------------------------------------------------------------- */
enum { STORE_ABSENT = 0, STORE_ANY = -1 }; /* for expect_revision, beside a revision > 0 */
enum {
    STORE_VOLATILE = 1, /* memory only: takes a revision, is seen by watches, never on disk; after a
                           restart the last version written without this flag is back. For lease
                           renewals and heartbeats. */
};

/* Puts o (o->revision == store_next_revision(); namespace and name are its key) into the head; takes
 * its own reference. Errors: ALREADY_EXISTS (expect ABSENT), NOT_FOUND (expect a revision, object is gone),
 * CONFLICT (another revision), NO_SPACE / IO while the disk refuses writes. On error nothing changed. */
int store_put(struct store *s, struct store_table *t, const struct obj *o, int64_t expect_revision,
              unsigned flags, struct err *err) _must_check_;
/* Takes the object out. last: what watchers get (sealed with store_next_revision()). */
int store_delete(struct store *s, struct store_table *t, const char *ns, const char *name,
                 int64_t expect_revision, const struct obj *last, struct err *err) _must_check_;

/* --- reading ---------------------------------------------------------------------------------- */
/* From the head. Borrowed: until the next write to the store; obj_ref() what is kept longer. ns is
 * "" for cluster-wide kinds. NULL: not there. */
const struct obj *store_get(const struct store *s, const struct store_table *t, const char *ns,
                            const char *name);
uint32_t store_count(const struct store *s, const struct store_table *t, const char *ns); /* ns NULL: all */

/* Walks a table in the order (namespace, name):
 *     struct store_iter it;
 *     if (store_iter_init(&it, s, t, "default", 0, NULL, NULL, err) < 0) return -1;
 *     while ((o = store_iter_next(&it))) ...
 *     store_iter_done(&it);
 * ns NULL: all. revision 0: the head; else as it was at that revision (EXPIRED below the floor,
 * INVALID_ARGUMENT above the head). after_ns/after_name: behind that key (paging: the caller's
 * continue token is revision + last key). An object is borrowed until the next store_iter_*() of
 * this iterator. Writes in between are fine: a walk of the head sees each object that was there all
 * the time exactly once. store_iter_done() before control goes back to the loop. */
struct store_iter {
    struct store *s;
    const struct store_table *t;
    const char *ns; /* borrowed from the caller */
    int64_t revision;
    uint64_t change; /* when the place was looked up */
    uint32_t block, at;
    struct store_past *past; /* what differs from the head, by key */
    uint32_t past_n, past_at;
    const struct obj *last;      /* held: the one given out */
    char *after_ns, *after_name; /* the place to start, copied */
};
int store_iter_init(struct store_iter *it, struct store *s, const struct store_table *t,
                    const char *ns, int64_t revision, const char *after_ns, const char *after_name,
                    struct err *err) _must_check_;
const struct obj *store_iter_next(struct store_iter *it);
uint32_t store_iter_left(struct store_iter *it); /* how many next would still give */
void store_iter_done(struct store_iter *it);     /* twice is fine */

/* --- watching --------------------------------------------------------------------------------- */
enum store_event_type {
    STORE_ADDED,
    STORE_MODIFIED,
    STORE_DELETED,
    STORE_EXPIRED, /* the watch fell out of the history (it was paused too long); it gets nothing
                      more: store_watch_free() it and list again */
};
struct store_event {
    enum store_event_type type;
    int64_t revision;
    const struct obj *obj;  /* new object; DELETED: its last state, sealed with this revision */
    const struct obj *prev; /* before this event; NULL for ADDED */
    struct store_table *table;
};
/* Objects of an event are borrowed for the call. In it any function of the store may be called,
 * store_watch_free() of this watch too; events that it causes come after it. */
typedef void store_watch_fn(void *arg, const struct store_event *ev);
enum {
    STORE_WATCH_HEAD = 1, /* events at once, inside store_put(); also the reversed ones after a disk
                             failure. Without it: when durable. */
};
/* Events of the table with revision > from_revision, in order (from_revision 0: from now on: head
 * resp. durable). NULL and EXPIRED when from_revision is below the floor. Never calls fn before it
 * has returned: what already happened comes by a post. table NULL: all tables. */
struct store_watch *store_watch(struct store *s, struct store_table *t, int64_t from_revision,
                                unsigned flags, store_watch_fn *fn, void *arg, struct err *err) _must_check_;
void *store_watch_free(struct store_watch *w); /* fn is not called any more; NULL is fine */
/* A slow reader: paused, it gets no events (the history is its queue); resumed, it catches up by a
 * post, or gets EXPIRED. */
void store_watch_pause(struct store_watch *w);
void store_watch_resume(struct store_watch *w);
/* Up to which revision this watch has been told everything: what a bookmark may say. */
int64_t store_watch_revision(const struct store_watch *w);

/* --- upkeep ----------------------------------------------------------------------------------- */
/* Forgets history up to and with this revision (not beyond what is durable). */
void store_compact(struct store *s, int64_t revision);
/* Why writes are refused right now, or false. */
bool store_failing(const struct store *s, struct err *ret_why);

struct store_stats {
    uint64_t writes, volatile_writes, batches, rollbacks;
    uint64_t commit_us; /* sum over batches: queued to durable */
    uint32_t objects, history, watches;
    size_t history_bytes;
};
struct store_stats store_stats(const struct store *s);
