/* logs/logs.h - log groups: streams of timed lines, in files.
 *
 * One `struct logs` in the gateway process. Functions' output goes in by logs_line(), which only copies; what a client
 * sends by logs_put(), which answers when it is on disk. Reading happens on pool threads, a page at a time.
 *
 * A group is known by namespace and name ("default", "/aws/lambda/hello"). It appears by logs_group_put(), or with the
 * first line that is said to it (then `appeared` is told, so that an object can be made for it).
 * Thread: the loop that made it. Strings handed in are copied. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/list.h"

struct uv_loop_s;
struct logs;
struct log_group;
struct log_pattern;

enum {
    LOGS_GROUP_NAME_MAX = 512,
    LOGS_STREAM_NAME_MAX = 512,
    LOGS_EVENT_MAX = 1024 * 1024,     /* bytes of one event's text */
    LOGS_PAGE_EVENTS_MAX = 10000,
    LOGS_PAGE_BYTES_MAX = 1024 * 1024, /* of a page: texts and 26 bytes each, as CloudWatch counts */
};

struct logs_options {
    struct uv_loop_s *loop;
    const char *dir;              /* made when it is not there; its parent is */
    uint64_t group_bytes_max;     /* 0: 256 MiB */
    uint64_t bytes_max;           /* 0: 4 GiB */
    /* A group began by a line. Inside logs_line(): do not call back into logs. */
    void (*appeared)(void *arg, const char *ns, const char *name);
    void *arg;
};
/* Reads what is there. NULL and err when the folder cannot be used. */
struct logs *logs_new(const struct logs_options *o, struct err *err) _must_check_;
/* Writes what waits, frees; done (may be NULL) after that. Queries under way end with CANCELLED. */
void logs_stop(struct logs *l, void (*done)(void *arg), void *arg);
void logs_on_appear(struct logs *l, void (*appeared)(void *arg, const char *ns, const char *name), void *arg);

/* ---- groups ---- */

/* Made, or its settings changed. uid: of the object that stands for it (NULL: none yet). retention_days 0: for good. */
int logs_group_put(struct logs *l, const char *ns, const char *name, const char *uid, int retention_days,
                   struct err *err) _must_check_;
/* Forgets it and its files; a uid that is not NULL and not the group's own: nothing happens. */
void logs_group_remove(struct logs *l, const char *ns, const char *name, const char *uid);
struct log_group_info {
    const char *ns, *name, *uid; /* borrowed for the turn of the loop; uid "" when no object is known */
    int64_t created_ms;
    uint64_t bytes; /* on disk */
    int retention_days;
    uint32_t streams;
};
bool logs_group_get(const struct logs *l, const char *ns, const char *name, struct log_group_info *ret);
/* for (uint32_t i = 0; logs_group_next(l, &i, &info);) in no order */
bool logs_group_next(const struct logs *l, uint32_t *i, struct log_group_info *ret);

/* What the object of a group is called: its name as far as an object can have it, and a hash. Gives back out. */
const char *logs_object_name(const char *group, char out[80]);
/* That object, as it is made; in the arena. */
struct val *logs_object(struct arena *a, const char *group);

/* ---- streams ---- */

struct log_stream_info {
    const char *name;
    int64_t created_ms, first_ms, last_ms, ingested_ms; /* 0: no event yet */
    uint64_t bytes;
};
/* ALREADY_EXISTS; NOT_FOUND: the group. */
int logs_stream_make(struct logs *l, const char *ns, const char *group, const char *stream, struct err *err) _must_check_;
int logs_stream_remove(struct logs *l, const char *ns, const char *group, const char *stream, struct err *err) _must_check_;
bool logs_stream_get(const struct logs *l, const char *ns, const char *group, const char *stream,
                     struct log_stream_info *ret);
/* Those whose names begin with prefix (NULL: all), by name; names are borrowed for the turn of the loop. */
struct log_stream_info *logs_streams(const struct logs *l, struct arena *a, const char *ns, const char *group,
                                     const char *prefix, uint32_t *ret_n);

/* ---- writing ---- */

/* A line, now or never: group and stream appear when they are not there. Costs a copy; when too much waits to be
 * written the line is lost, and the stream says later how many were. */
void logs_line(struct logs *l, const char *ns, const char *group, const char *stream, int64_t time_ms, const char *text,
               size_t n);

struct log_put {
    int64_t time_ms;
    const char *text;
    size_t n;
};
/* Events for a stream that is there (NOT_FOUND otherwise; TOO_MANY when too much waits). done when they are on disk, not
 * from inside. */
typedef void logs_put_fn(void *arg, const struct err *err); /* err NULL: kept */
int logs_put(struct logs *l, const char *ns, const char *group, const char *stream, const struct log_put *events,
             size_t n, logs_put_fn *done, void *arg, struct err *err) _must_check_;

/* ---- reading ---- */

struct log_pos { /* where an event stands among all of its group */
    int64_t time_ms;
    uint32_t segment, offset;
};
#define LOG_POS_FIRST ((struct log_pos){INT64_MIN, 0, 0})
#define LOG_POS_LAST ((struct log_pos){INT64_MAX, UINT32_MAX, UINT32_MAX})
int log_pos_compare(struct log_pos a, struct log_pos b);

struct log_query {
    const char *ns, *group;
    const char *const *streams; /* names; NULL: all, or those of the prefix */
    size_t streams_n;
    const char *prefix;
    int64_t from_ms, to_ms; /* from <= time < to */
    struct log_pos at;      /* events behind it; with backward: before it */
    bool backward;          /* the last ones of the range; still in ascending order */
    uint32_t limit;         /* 0: LOGS_PAGE_EVENTS_MAX, which is also the most */
    struct log_pattern *pattern; /* NULL: all; the query frees it */
};
struct log_event {
    struct log_pos pos;
    int64_t time_ms, ingested_ms;
    const char *stream;
    const char *text; /* ends in 0 */
    size_t n;
};
struct log_page {
    struct log_event *events; /* ascending; in the page's arena */
    uint32_t n;
    struct log_pos next; /* where to go on in the direction of the query */
    bool end;            /* nothing more there now */
    uint64_t scanned;    /* bytes */
};
/* err: NOT_FOUND (group, or a named stream), CANCELLED. Everything is borrowed for the call. */
typedef void logs_page_fn(void *arg, const struct log_page *page, const struct err *err);
/* fn exactly once, never from inside. */
void logs_query(struct logs *l, const struct log_query *q, logs_page_fn *fn, void *arg);

/* Who wants to know when a group has lines that it had not: called after they are on disk, once for all that were
 * written together (names borrowed). The struct is the caller's, until logs_unwatch(); fn may ask for a page. */
struct log_watch {
    struct list link;
    void (*fn)(void *arg, const char *ns, const char *group);
    void *arg;
};
void logs_watch(struct logs *l, struct log_watch *w, void (*fn)(void *arg, const char *ns, const char *group), void *arg);
void logs_unwatch(struct log_watch *w);
