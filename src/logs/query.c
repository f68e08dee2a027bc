/* A page of events, read on a pool thread.
 *
 * The loop picks the blocks that may hold what is asked for, by time and by the mask of streams, and sorts them by time.
 * The thread walks them and keeps the first `limit` events behind the position (or the last ones before it); it stops
 * when no block that is left can hold an earlier one, or when it has read SCAN_MAX: then all that it has seen below the
 * next block's beginning is the answer, and the position says that everything up to there was looked at. */
#include "logs/logs_int.h"
#include "env/clock.h"
#include "logs/pattern.h"

#include <fcntl.h>
#include <unistd.h>

struct piece { /* a block to read */
    uint32_t segment, offset, n;
    int64_t min, max;
};

struct hit {
    struct log_pos pos;
    int64_t ingested;
    uint32_t stream, n;
};

struct page_job {
    struct list link; /* group.queries, while it waits for a round */
    uv_work_t work;
    struct logs *l;
    struct log_group *g;
    logs_page_fn *fn;
    void *arg;
    uint64_t until; /* g->written must have come here */
    bool cancelled;
    /* what is asked */
    int64_t from, to;
    struct log_pos at;
    bool backward;
    uint32_t limit;
    struct log_pattern *pattern;
    uint32_t *ids, ids_n; /* sorted; all: every stream */
    bool all;
    char *dir;
    struct piece *pieces;
    uint32_t pieces_n;
    /* what was found */
    struct arena *arena;
    struct hit *hits;
    uint32_t hits_n, hits_cap;
    bool full; /* hits were cut to a page once: what lies behind `bound` is of no interest any more */
    struct log_pos bound;
    struct log_event *events;
    uint32_t *streams; /* of each event */
    uint32_t events_n;
    struct log_pos next;
    bool end;
    uint64_t scanned;
};

int log_pos_compare(struct log_pos a, struct log_pos b)
{
    if (a.time_ms != b.time_ms)
        return a.time_ms < b.time_ms ? -1 : 1;
    if (a.segment != b.segment)
        return a.segment < b.segment ? -1 : 1;
    return a.offset < b.offset ? -1 : a.offset > b.offset;
}

static void job_free(struct page_job *j)
{
    struct logs *l = j->l;
    struct log_group *g = j->g;

    log_pattern_free(j->pattern);
    free(j->ids);
    free(j->dir);
    free(j->pieces);
    free(j->hits);
    arena_free(j->arena);
    free(j);
    l->queries--;
    if (g) {
        g->users--;
        group_let_go(g);
    }
    logs_let_go(l);
}

/* ---- on the thread ---- */

static int by_min(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    return x->min < y->min ? -1 : x->min > y->min;
}
static int by_max_down(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    return x->max > y->max ? -1 : x->max < y->max;
}
static int hit_order(const void *a, const void *b)
{
    return log_pos_compare(((const struct hit *)a)->pos, ((const struct hit *)b)->pos);
}
static int hit_order_down(const void *a, const void *b)
{
    return hit_order(b, a);
}

static bool wants_stream(const struct page_job *j, uint32_t id)
{
    uint32_t low = 0, high = j->ids_n;

    if (j->all)
        return true;
    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (j->ids[mid] == id)
            return true;
        if (j->ids[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

/* The best `limit` hits, and no more than a page of bytes. */
static void cut(struct page_job *j)
{
    uint64_t bytes = 0;
    uint32_t n = 0;

    if (j->hits_n)
        qsort(j->hits, j->hits_n, sizeof *j->hits, j->backward ? hit_order_down : hit_order);
    for (; n < j->hits_n && n < j->limit; n++) {
        bytes += j->hits[n].n + 26;
        if (bytes > LOGS_PAGE_BYTES_MAX && n)
            break;
    }
    if (n < j->hits_n)
        j->full = true;
    j->full |= n == j->limit;
    j->hits_n = n;
    if (j->full && n)
        j->bound = j->hits[n - 1].pos;
}

struct walk {
    struct page_job *j;
    uint32_t segment, offset;
};

static bool take_record(void *arg, const struct record *r, const char *text, size_t offset)
{
    struct walk *w = arg;
    struct page_job *j = w->j;
    struct log_pos pos = {r->time, w->segment, w->offset + (uint32_t)offset};
    int side = log_pos_compare(pos, j->at);

    if (r->kind != RECORD_EVENT || r->time < j->from || r->time >= j->to || (j->backward ? side >= 0 : side <= 0) ||
        !wants_stream(j, r->stream))
        return true;
    if (j->full && (log_pos_compare(pos, j->bound) > 0) == !j->backward)
        return true;
    if (j->pattern && !log_pattern_match(j->pattern, text, r->n))
        return true;
    if (j->hits_n == j->hits_cap) {
        j->hits_cap = j->hits_cap ? 2 * j->hits_cap : 256;
        j->hits = xrealloc(j->hits, j->hits_cap * sizeof *j->hits);
    }
    j->hits[j->hits_n++] = (struct hit){pos, r->ingested, r->stream, r->n};
    if (j->hits_n > 2 * j->limit + 64)
        cut(j);
    return true;
}

static int open_segment(const struct page_job *j, uint32_t number)
{
    _auto_(freep) char *path = segment_path(j->dir, number, "log");

    return open(path, O_RDONLY | O_CLOEXEC);
}

static void read_events(struct page_job *j)
{
    uint32_t of = UINT32_MAX;
    int fd = -1;

    j->events = arena_array(j->arena, struct log_event, j->hits_n + 1);
    j->streams = arena_array(j->arena, uint32_t, j->hits_n + 1);
    if (j->backward)
        qsort(j->hits, j->hits_n, sizeof *j->hits, hit_order);
    for (uint32_t i = 0; i < j->hits_n; i++) {
        const struct hit *h = &j->hits[i];
        char *text = arena_raw(j->arena, h->n + 1u);

        if (h->pos.segment != of) {
            closep(&fd);
            fd = open_segment(j, of = h->pos.segment);
        }
        if (fd < 0 || pread(fd, text, h->n, (off_t)h->pos.offset + (off_t)sizeof(struct record)) != (ssize_t)h->n)
            continue; /* its segment went in between */
        text[h->n] = 0;
        j->streams[j->events_n] = h->stream;
        j->events[j->events_n++] = (struct log_event){h->pos, h->pos.time_ms, h->ingested, NULL, text, h->n};
    }
    closep(&fd);
}

static bool may_be_better(const struct page_job *j, const struct piece *p)
{
    return !j->full || (j->backward ? p->max >= j->bound.time_ms : p->min <= j->bound.time_ms);
}

/* SCAN_MAX is reached before piece p: may we stop here, with something looked at to the end? */
static bool may_pause(const struct page_job *j, const struct piece *p)
{
    return j->backward ? p->max < MIN(j->at.time_ms, j->to - 1) : p->min > MAX(j->at.time_ms, j->from);
}

/* Everything before (behind) piece p's time was looked at, and nothing else counts. */
static void pause_at(struct page_job *j, const struct piece *p)
{
    uint32_t n = 0;

    cut(j);
    for (; n < j->hits_n; n++)
        if (j->backward ? j->hits[n].pos.time_ms <= p->max : j->hits[n].pos.time_ms >= p->min)
            break;
    if (n == j->hits_n && j->full)
        return; /* a whole page: it ends with its last event as usual */
    j->hits_n = n;
    j->full = false;
    j->next = j->backward ? (struct log_pos){p->max + 1, 0, 0} : (struct log_pos){p->min - 1, UINT32_MAX, UINT32_MAX};
    j->end = false;
}

static void run(struct page_job *j)
{
    char *bytes = NULL;
    size_t cap = 0;
    uint32_t of = UINT32_MAX;
    int fd = -1;
    bool paused = false;

    if (j->pieces_n)
        qsort(j->pieces, j->pieces_n, sizeof *j->pieces, j->backward ? by_max_down : by_min);
    j->end = true;
    j->next = j->at;
    for (uint32_t i = 0; i < j->pieces_n; i++) {
        const struct piece *p = &j->pieces[i];
        struct walk w = {j, p->segment, p->offset};

        if (!may_be_better(j, p))
            break;
        if (j->scanned > SCAN_MAX && may_pause(j, p)) {
            pause_at(j, p);
            paused = true;
            break;
        }
        if (p->segment != of) {
            closep(&fd);
            fd = open_segment(j, of = p->segment);
        }
        if (cap < p->n) {
            free(bytes);
            bytes = xmalloc(cap = p->n);
        }
        if (fd < 0 || pread(fd, bytes, p->n, p->offset) != (ssize_t)p->n)
            continue; /* dropped in between */
        j->scanned += p->n;
        records_walk(bytes, p->n, false, take_record, &w);
        if (j->hits_n >= j->limit)
            cut(j);
    }
    free(bytes);
    closep(&fd);
    if (!paused)
        cut(j);
    if (j->full)
        j->end = false;
    if (j->hits_n && (j->full || !paused))
        j->next = j->hits[j->hits_n - 1].pos;
    read_events(j);
}

static void on_work(uv_work_t *w)
{
    run(w->data);
}

/* ---- on the loop ---- */

static void answer(struct page_job *j, const struct err *err)
{
    struct log_page page = {.next = j->next, .end = j->end, .scanned = j->scanned, .events = j->events};
    struct err e;

    if (!err && (j->cancelled || j->g->removed)) {
        err_set(&e, NOT_FOUND, "The specified log group does not exist.");
        err = &e;
    }
    for (uint32_t i = 0; !err && i < j->events_n; i++) {
        const struct stream *s = stream_by_id(j->g, j->streams[i]);

        if (!s)
            continue; /* deleted */
        j->events[page.n] = j->events[i];
        j->events[page.n++].stream = s->name;
    }
    j->fn(j->arg, err ? NULL : &page, err);
    job_free(j);
}

static void on_done(uv_work_t *w, int status)
{
    (void)status;
    answer(w->data, NULL);
}

static int id_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* What was said before the query is written: now its blocks are known. */
static void start(struct page_job *j)
{
    uint64_t mask = j->all ? UINT64_MAX : 0;
    uint32_t cap = 0;

    for (uint32_t i = 0; i < j->ids_n; i++)
        mask |= 1ull << (j->ids[i] % 64);
    LIST_EACH(&j->g->segments, k)
    {
        const struct segment *s = list_entry(k, struct segment, link);

        for (uint32_t i = 0; i < s->blocks.n; i++) {
            const struct block *b = &s->blocks.v[i];

            if (b->min > b->max || b->max < j->from || b->min >= j->to || !(b->mask & mask) ||
                (j->backward ? b->min > j->at.time_ms : b->max < j->at.time_ms))
                continue;
            if (j->pieces_n == cap) {
                cap = cap ? 2 * cap : 64;
                j->pieces = xrealloc(j->pieces, cap * sizeof *j->pieces);
            }
            j->pieces[j->pieces_n++] = (struct piece){s->number, b->offset, b->n, b->min, b->max};
        }
    }
    j->work.data = j;
    ASSERT(uv_queue_work(j->l->loop, &j->work, on_work, on_done) == 0);
}

void query_wake(struct log_group *g)
{
    LIST_EACH(&g->queries, k)
    {
        struct page_job *j = list_entry(k, struct page_job, link);

        if (j->until > g->written)
            break;
        list_remove(&j->link);
        start(j);
    }
}

void query_cancel(struct log_group *g)
{
    struct err err;

    err_set(&err, CANCELLED, "the log group is going away");
    LIST_EACH(&g->queries, k)
    {
        struct page_job *j = list_entry(k, struct page_job, link);

        list_remove(&j->link);
        j->cancelled = true;
        answer(j, &err);
    }
}

static int take_streams(struct page_job *j, const struct log_query *q, struct err *err)
{
    j->all = !q->streams_n && !q->prefix;
    if (j->all)
        return 0;
    if (q->prefix) {
        j->ids = xcalloc(j->g->streams_n + 1, sizeof *j->ids);
        LIST_EACH(&j->g->streams, k)
        {
            const struct stream *s = list_entry(k, struct stream, link);

            if (str_starts(s->name, q->prefix))
                j->ids[j->ids_n++] = s->id;
        }
    } else {
        j->ids = xcalloc(q->streams_n, sizeof *j->ids);
        for (size_t i = 0; i < q->streams_n; i++) {
            const struct stream *s = *q->streams[i] == '\n' ? NULL : map_get(&j->g->streams_by_name, q->streams[i]);

            if (!s)
                return err_set(err, NOT_FOUND, "The specified log stream does not exist.");
            j->ids[j->ids_n++] = s->id;
        }
    }
    if (j->ids_n)
        qsort(j->ids, j->ids_n, sizeof *j->ids, id_order);
    return 0;
}

static void on_failed(uv_work_t *w, int status)
{
    struct page_job *j = w->data;
    struct err err;

    (void)status;
    if (!j->g)
        err_set(&err, NOT_FOUND, "The specified log group does not exist.");
    else if (j->cancelled)
        err_set(&err, TOO_MANY, "Rate exceeded");
    else
        err_set(&err, NOT_FOUND, "The specified log stream does not exist.");
    j->fn(j->arg, NULL, &err);
    job_free(j);
}

static void nothing(uv_work_t *w)
{
    (void)w;
}

void logs_query(struct logs *l, const struct log_query *q, logs_page_fn *fn, void *arg)
{
    struct page_job *j = xcalloc(1, sizeof *j);
    struct log_group *g = group_find(l, q->ns, q->group);
    struct err err;

    j->l = l;
    j->fn = fn;
    j->arg = arg;
    j->pattern = q->pattern;
    j->arena = arena_new();
    j->at = q->at;
    j->from = q->from_ms;
    j->to = q->to_ms;
    j->backward = q->backward;
    j->limit = q->limit && q->limit < LOGS_PAGE_EVENTS_MAX ? q->limit : LOGS_PAGE_EVENTS_MAX;
    j->cancelled = ++l->queries > QUERIES_MAX || l->stopping;
    if (g) {
        j->g = g;
        g->users++;
        j->dir = xstrdup(g->dir);
        if (g->retention_days)
            j->from = MAX(j->from, clock_real_ms() - (int64_t)g->retention_days * 86400000);
    }
    if (!g || j->cancelled || take_streams(j, q, &err) < 0) {
        j->work.data = j;
        ASSERT(uv_queue_work(l->loop, &j->work, nothing, on_failed) == 0);
        return;
    }
    j->until = g->said;
    if (g->written >= j->until) {
        start(j);
        return;
    }
    list_push(&g->queries, &j->link);
    logs_round(l);
}
