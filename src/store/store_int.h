/* store/store_int.h - inside of the store: head, history, batches, watches. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "store/engine.h"
#include "store/index.h"

/* One change, as the history keeps it. Holds references to its objects. */
struct hist {
    struct list all;      /* store.history, oldest first */
    struct list in_table; /* store_table.history */
    struct store_table *t;
    const struct obj *obj, *prev; /* as in struct store_event */
    int64_t revision, at_ms;
    int64_t disk_before; /* index_item.disk of the object before: for taking back */
    enum store_event_type type;
};

struct store_table {
    struct store *s;
    struct store_table *next;
    char *key;
    struct index head;
    struct list history, watches;
    /* packing: the dictionary in use and how well it does (store/packing.c) */
    struct pack *pack;
    int64_t pack_revision;     /* of the write with which it came */
    uint32_t packs;            /* dictionaries made */
    uint32_t pack_writes;      /* objects since the last look */
    size_t pack_in, pack_out;  /* their bytes */
};

struct store_watch {
    struct list link; /* of its table, or store.watches_all */
    struct list lag;  /* store.lagging, while it has to catch up */
    struct store *s;
    struct store_table *t; /* NULL: all */
    int64_t cursor;        /* told up to here */
    unsigned flags;
    bool paused, dead, expired;
    store_watch_fn *fn;
    void *arg;
};

struct waiter {
    struct list link;
    int64_t revision;
    store_durable_fn *fn;
    void *arg;
};

struct store {
    struct env *env;
    const struct store_engine_ops *ops;
    void *engine;
    char cluster_uid[ENV_UUID_BYTES];

    struct map tables_by_key;
    struct store_table *tables, *last_table;

    int64_t head, durable, floor;
    /* Revisions are given out up to a ceiling that is on disk, so that those of volatile writes are
     * not given out again after a crash. */
    int64_t ceiling_queued, ceiling_durable;

    struct list history; /* of hist.all */
    uint32_t history_n, history_max;
    size_t history_bytes, history_bytes_max;
    int64_t history_age_ms;
    struct hist *next_head, *next_durable; /* first change not yet told to head / durable watches */

    struct store_batch *open;   /* collects the writes of this turn of the loop */
    struct env_timer *flush;    /* ... until this fires */
    struct list in_flight;      /* batches that the engine has; store_batch.link */
    struct list dead;           /* ... whose writes have been taken back already */
    bool failed;                /* a batch failed; no writes until the engine has recovered */
    bool broken;                /* the engine does not recover */
    int64_t refuse_until_ms;    /* after a failure, writes are refused for a moment */
    struct err why;
    bool closing;

    struct list waiters; /* by revision */
    struct list watches_all, lagging;
    struct env_timer *catch_up;
    bool pumping_head, pumping_durable;
    uint32_t hold; /* > 0: somebody walks the history or the watches; nothing is unlinked */
    bool sweep;    /* dead watches lie around */

    int64_t last_dict;         /* highest number given out */
    bool packs, cache_mine;
    struct env_timer *trim;

    struct store_stats stats;
};

enum {
    HISTORY_MAX = 20000,
    HISTORY_BYTES_MAX = 48 << 20,
    HISTORY_AGE_MS = 5 * 60 * 1000,
    CEILING_STEP = 20000,  /* how far ahead the ceiling is put */
    CEILING_LEFT = 5000,   /* ... when fewer than this are left */
    REFUSE_MS = 500,       /* after a full disk: the time until a write is tried again */
};

static inline struct hist *hist_of(struct list *l)
{
    return list_entry(l, struct hist, all);
}
static inline struct hist *hist_next(struct store *s, struct hist *h)
{
    return h->all.next == &s->history ? NULL : hist_of(h->all.next);
}

/* packing.c */
void packing_put(struct store_table *t, const struct obj *o);
void packing_load(struct store_table *t, struct pack *dict); /* takes the reference */
void packing_taken_back(struct store *s);
void packing_done(struct store_table *t);

/* store.c, for packing.c */
struct store_change *batch_change(struct store *s);

/* watch.c */
void watch_pump_head(struct store *s);
void watch_pump_durable(struct store *s);
void watch_take_back(struct store *s, struct hist **undone, uint32_t n); /* newest first */
void watch_release(struct store *s);                                     /* hold--, sweep at 0 */
void watch_catch_up(void *store);
void history_trim(struct store *s);
