/* store/engine.h - what the store wants of a disk, as one narrow table; the engines behind it.
 *
 * An engine keeps the last durable version of each object, a few facts (struct store_meta), nothing
 * else: no history, no order but that of the revisions. It gets batches and says when each is
 * durable; a batch is all or nothing. After a batch failed it must be as if it (and all batches
 * queued behind it, which fail too) had never been sent. */
#pragma once

#include "env/mbox.h"
#include "store/store.h"

struct store_change {
    int64_t revision;      /* of this write; unique */
    int64_t replaces;      /* revision under which the engine holds this object now; 0: none */
    const char *table;     /* key; lives as long as the store */
    const struct obj *obj; /* the new version; NULL: it is deleted */
    struct pack *dict;     /* instead of an object: a dictionary that those behind it are packed with */
};
struct store_batch {
    struct store_change *changes; /* in the order of revisions */
    uint32_t n, cap;
    int64_t ceiling; /* revisions up to here may be given out: a restart goes on behind it */
    /* The engine calls this once per batch, in order, on the store's thread. err NULL: durable. */
    void (*done)(struct store_batch *b, const struct err *err);
    struct store *store;
    int64_t sent_us;
    struct store_batch *next; /* for the engine's queue */
    struct mbox_msg msg;      /* for the way back from another thread */
    struct err *failed;       /* the engine's note on that way; it frees it */
    struct list link;         /* the store's: batches in flight */
};
struct store_meta {
    char cluster_uid[ENV_UUID_BYTES]; /* "" when the store is new */
    int64_t ceiling;
};
struct store_row {
    const char *table;
    struct obj *obj;   /* the reader's reference */
    struct pack *dict; /* instead: a dictionary of that table; the reader's reference; comes before
                          all objects that are packed with it */
};
typedef void store_load_fn(void *arg, const struct store_row *row);

struct store_engine_ops {
    const char *name;
    bool packs; /* objects may be packed before they come */
    void *(*open)(const struct store_args *args, struct err *err);
    /* Everything, once, right after open; in the order of revisions. */
    int (*load)(void *engine, struct store_meta *ret_meta, store_load_fn *each, void *arg, struct err *err);
    /* Makes the identity of a new store durable; blocking. */
    int (*init)(void *engine, const struct store_meta *meta, struct err *err);
    void (*append)(void *engine, struct store_batch *b); /* the batch is the engine's until done() */
    /* Batches failed: the store has taken their writes back, what is appended from now on builds on
     * what is durable. Until this call all batches fail. false: this engine stays broken. */
    bool (*recover)(void *engine);
    void (*poll)(void *engine); /* blocks until at least one batch in flight is done, and says so */
    void (*close)(void *engine); /* nothing is in flight */
    void (*crash)(void *engine); /* as if the process died; NULL: cannot be played */
};

extern const struct store_engine_ops store_sqlite; /* WAL, synchronous=FULL, a committer thread */
extern const struct store_engine_ops store_memory; /* for the simulation, on a struct store_disk */

/* The disk of the memory engine: outlives the store, so that a "restarted" one finds its objects.
 * A batch is durable after a random delay from the env. */
struct store_disk;
struct store_disk *store_disk_new(struct env *env, int64_t fsync_ms_min, int64_t fsync_ms_max);
void *store_disk_free(struct store_disk *d);
void store_disk_full(struct store_disk *d, bool full); /* from now on batches fail with NO_SPACE, or not */
/* Drops a store as kill -9 does: no callbacks, nothing more is written. Of the batches in flight
 * each is lost or, by chance and in order, on the disk though nobody was told. */
void *store_crash(struct store *s);
