/* logs/logs_int.h - what the files of this room share.
 *   logs.c     groups, streams, what waits, rounds of writing
 *   segment.c  files
 *   query.c    pages
 *
 * Owners: logs -> group -> stream, segment. Pool threads get copies (struct round, struct page_job); what they found is
 * taken over on the loop. A group that was removed stays, out of the map, until no round and no query names it. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "logs/logs.h"

#include <uv.h>

enum {
    SEGMENT_BYTES = 4 << 20,
    BLOCK_BYTES = 64 << 10,
    WAITING_GROUP_MAX = 1 << 20,
    PUT_GROUP_MAX = 8 << 20, /* acknowledged writers may fill more: they are held back by their answers */
    WAITING_MAX = 32 << 20,
    FLUSH_SOON_BYTES = 256 << 10,
    FLUSH_MS = 100,
    STREAMS_MAX = 20000,
    GROUPS_MAX = 10000,
    SCAN_MAX = 32 << 20,
    QUERIES_MAX = 256,
};

/* Of each record in a segment; the text follows, then zeros up to a multiple of 8. */
enum { RECORD_EVENT = 0x45564531, RECORD_STREAM = 0x53545231, RECORD_GONE = 0x474f4e31 };
struct record {
    uint32_t crc;  /* of all behind it, text too */
    uint32_t kind; /* EVENT: text; STREAM: text is its name, time when it was made; GONE: was deleted */
    uint32_t n;    /* bytes of text */
    uint32_t stream;
    int64_t time, ingested; /* ms since 1970 */
};
static inline size_t record_bytes(uint32_t n)
{
    return sizeof(struct record) + (((size_t)n + 7) & ~(size_t)7);
}
#define SEGMENT_MAGIC "TDLOG01\n"

struct block { /* consecutive records of a segment */
    uint32_t offset, n;
    int64_t min, max; /* times of its events */
    uint64_t mask;    /* bit (stream % 64) */
};
struct blocks {
    struct block *v;
    uint32_t n, cap;
};

struct segment {
    struct list link; /* group.segments, oldest first */
    uint32_t number;
    uint64_t bytes;
    int64_t max;  /* the latest event; INT64_MIN: none */
    bool indexed; /* its .idx is written, or being written */
    struct blocks blocks;
    uint32_t *gone, gone_n; /* streams that were deleted while it was open */
    struct buf names;       /* once it is closed: its streams, for the index */
    uint32_t names_n;
};

struct stream {
    struct list link; /* group.streams, the one used last at the end */
    char *name;
    uint32_t id;
    uint32_t named_in; /* the segment that names it last */
    int64_t created, first, last, ingested;
    uint64_t bytes;
};

struct log_group {
    struct list link; /* logs.dirty */
    struct logs *logs;
    char *key, *ns, *name, *uid, *dir;
    int64_t created;
    int retention_days;
    struct map streams_by_name;
    struct list streams;
    uint32_t streams_n, stream_next;
    struct list segments; /* the last one is open */
    uint32_t segment_next;
    uint64_t bytes;
    struct buf waiting;    /* records for the open segment */
    uint64_t said, written; /* bytes that were ever put into waiting, and of these, on disk or given up */
    uint64_t lost, lost_bytes;
    uint32_t lost_stream;
    bool meta_dirty, made, sync, removed;
    struct list puts;
    struct list queries; /* that wait for written */
    uint32_t users;      /* rounds and queries that name it */
};

struct put {
    struct list link;
    uint64_t until; /* said when it was put */
    logs_put_fn *done;
    void *arg;
};

/* One group's share of a round of writing. */
struct share {
    struct log_group *g;
    char *dir, *meta;
    struct buf bytes, idx;
    uint32_t segment, idx_segment;
    uint64_t offset; /* where they go in the file */
    bool sync;
    struct blocks blocks; /* found in bytes */
    struct err err;
    bool failed;
};
struct round {
    uv_work_t work;
    struct logs *l;
    struct share *v;
    uint32_t n;
    char **unlink;
    uint32_t unlink_n;
    char **remove; /* folders */
    uint32_t remove_n;
};

struct logs {
    uv_loop_t *loop;
    char *dir;
    uint64_t group_bytes_max, bytes_max, bytes;
    void (*appeared)(void *arg, const char *ns, const char *name);
    void *arg;
    struct map groups;
    struct list dirty;
    struct list watches;
    size_t waiting;
    bool running, stopping, timers_closed;
    char **unlink, **remove;
    uint32_t unlink_n, remove_n, gone_next;
    uv_timer_t flush, sweep;
    uint32_t queries;
    int handles;
    void (*done)(void *arg);
    void *done_arg;
};


/* logs.c */
struct log_group *group_find(const struct logs *l, const char *ns, const char *name);
struct log_group *group_new(struct logs *l, const char *ns, const char *name);
struct segment *group_segment(struct log_group *g); /* the open one */
struct segment *segment_add(struct log_group *g, uint32_t number);
void segment_gone(struct segment *s, uint32_t stream);
struct stream *stream_by_id(const struct log_group *g, uint32_t id);
struct stream *stream_add(struct log_group *g, const char *name, size_t n, uint32_t id, int64_t created);
void stream_forget(struct log_group *g, struct stream *s);
void stream_saw(struct stream *s, int64_t time, int64_t ingested, uint32_t n);
void group_let_go(struct log_group *g);
void logs_let_go(struct logs *l);
void logs_round(struct logs *l); /* writes what waits, unless a round runs */
void query_wake(struct log_group *g);
void query_cancel(struct log_group *g);

/* segment.c */
void blocks_add(struct blocks *b, const struct block *more);
/* Walks records; false from fn stops. Gives back the bytes that were whole and right. */
typedef bool record_fn(void *arg, const struct record *r, const char *text, size_t offset);
size_t records_walk(const char *p, size_t n, bool check, record_fn *fn, void *arg);
void round_run(struct round *r); /* on a pool thread */
void index_streams(const struct log_group *g, struct segment *s); /* into s->names */
void index_write(const struct segment *s, struct buf *out);
void index_leave(struct log_group *g); /* of the open segment, at the end: the next start need not scan it */
int logs_load(struct logs *l, struct err *err);
char *segment_path(const char *dir, uint32_t number, const char *ending);
