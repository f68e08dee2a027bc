/* STATE/queue/N.log, N counting up: records one after the other, each
 *
 *   struct record      24 bytes, below; crc over the record (crc = 0) and its n bytes
 *   n bytes            PUT: u32 bytes of the JSON that follows, the JSON {ns, name, id, at, arn,
 *                      context, trace, ends, deliver, recordBytes}, then the payload. TRY: u32 tries so
 *                      far. DONE: nothing
 *
 * A PUT with `ends` is the DONE of that event, too. One with `deliver` is no call: it says
 * where the first recordBytes of its payload and where the rest of it are to go. That an event is through, and
 * how, is on disk before its record goes anywhere: no kill makes it be told twice, once so and once so.
 *
 * A life appends to a new file and never touches those before it; a torn record can only be the
 * last of a file. Files go from the oldest on, when no event in them is owed: so the DONE of an
 * event never goes before its PUT. */
#include "function/queue.h"

#include "base/log.h"
#include "codec/json.h"
#include "env/random.h"
#include "function/destination.h"
#include "function/function_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    RECORD_MAGIC = 0x31717674,
    SEGMENT_BYTES = 16 << 20,
    OWED_MAX = 100000,
    PENDING_BYTES_MAX = 64 << 20,
    RUNNING_MAX = 100,
    BACKOFF_FIRST_MS = 1000,
    TIMER_MS = 100,
    BACKOFF_LAST_MS = 300000,
};

enum record_type { RECORD_PUT = 1, RECORD_TRY, RECORD_DONE };
struct record {
    uint32_t magic, n;
    uint64_t seq;
    uint32_t type, crc;
};

struct segment {
    struct list link;
    uint64_t number;
    int fd;
    off_t size;
    uint32_t owed;
};

struct event {
    struct list link; /* queue.ready or queue.later, none while it runs or is not yet on disk */
    struct queue *q;
    struct segment *segment;
    uint64_t seq;
    off_t at;  /* of the record's body */
    uint32_t n;
    uint32_t tries, backoff_ms;
    int64_t since_ms, due_ms;
    char id[FUNCTION_ID_MAX];
    function_queued_fn *done; /* until it is on disk */
    void *arg;
    struct function_span *span; /* likewise */
};

struct queue {
    struct functions *fs;
    char *dir;
    struct list segments; /* oldest first; the last one is written */
    struct map by_seq;    /* only while reading */
    struct list ready, later, fresh, committing;
    struct buf pending, writing;
    uint64_t seq;
    uint32_t owed, running;
    bool busy, started, closing, in_run;
    int commit_error;
    uv_work_t work;
    uv_timer_t timer;
    bool timer_closed;
    void (*closed)(void *arg);
    void *closed_arg;
};

uint32_t queue_owed(const struct queue *q)
{
    return q->owed;
}

static struct segment *segment_of(struct list *l)
{
    return list_entry(l, struct segment, link);
}

static char *segment_path(struct queue *q, uint64_t number)
{
    return xasprintf("%s/%llu.log", q->dir, (unsigned long long)number);
}

static int segment_new(struct queue *q, struct err *err)
{
    struct segment *s = xcalloc(1, sizeof *s);
    _auto_(freep) char *path = NULL;

    s->number = list_empty(&q->segments) ? 1 : segment_of(q->segments.prev)->number + 1;
    path = segment_path(q, s->number);
    s->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (s->fd < 0) {
        free(s);
        return err_sys(err, "make %s", path);
    }
    list_push(&q->segments, &s->link);
    _auto_(closep) int dir = open(q->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0)
        return err_sys(err, "sync %s", q->dir);
    return 0;
}

static void segment_free(struct segment *s)
{
    closep(&s->fd);
    list_remove(&s->link);
    free(s);
}

static void drop_old_segments(struct queue *q)
{
    struct segment *s;

    while ((s = segment_of(list_first(&q->segments))), s->link.next != &q->segments && !s->owed) {
        _auto_(freep) char *path = segment_path(q, s->number);

        unlink(path);
        segment_free(s);
    }
}

static uint32_t record_crc(const struct record *r, const void *body)
{
    struct record h = *r;
    uLong crc;

    h.crc = 0;
    crc = crc32(0, (const Bytef *)&h, sizeof h);
    return (uint32_t)(r->n ? crc32(crc, body, r->n) : crc);
}

static void on_timer(uv_timer_t *t);

/* Something is owed, or to be written: the timer runs until nothing is. */
static void wake(struct queue *q)
{
    if (q->started && !q->closing && !uv_is_active((uv_handle_t *)&q->timer)) {
        uv_timer_start(&q->timer, on_timer, TIMER_MS, TIMER_MS);
        uv_unref((uv_handle_t *)&q->timer);
    }
}

static void record_add(struct queue *q, enum record_type type, uint64_t seq, const void *body, size_t n)
{
    struct record r = {.magic = RECORD_MAGIC, .n = (uint32_t)n, .seq = seq, .type = type};

    r.crc = record_crc(&r, body);
    buf_add(&q->pending, &r, sizeof r);
    if (n)
        buf_add(&q->pending, body, n);
    wake(q);
}

static void event_over(struct event *e)
{
    struct queue *q = e->q;

    record_add(q, RECORD_DONE, e->seq, NULL, 0); /* goes with the next commit; late is only "once more" */
    e->segment->owed--;
    q->owed--;
    free(e);
}

/* ---- reading an earlier life ---- */

static struct val *event_meta(struct arena *a, const char *body, uint32_t n, const char **ret_payload, size_t *ret_n)
{
    struct err err;
    uint32_t meta_n;
    struct val *meta;

    if (n < sizeof meta_n)
        return NULL;
    memcpy(&meta_n, body, sizeof meta_n);
    if (meta_n > n - sizeof meta_n)
        return NULL;
    meta = json_parse(a, body + sizeof meta_n, meta_n, &err);
    *ret_payload = body + sizeof meta_n + meta_n;
    *ret_n = n - sizeof meta_n - meta_n;
    return meta;
}

/* It was over in the earlier life. */
static void forget_read(struct queue *q, uint64_t seq)
{
    char key[24];
    struct event *e;

    snprintf(key, sizeof key, "%llu", (unsigned long long)seq);
    e = map_get(&q->by_seq, key);
    if (!e)
        return;
    map_del(&q->by_seq, key);
    list_remove(&e->link);
    e->segment->owed--;
    q->owed--;
    free(e);
}

static void read_record(struct queue *q, struct segment *s, const struct record *r, const char *body, off_t at)
{
    char seq[24];
    struct event *e;

    snprintf(seq, sizeof seq, "%llu", (unsigned long long)r->seq);
    e = map_get(&q->by_seq, seq);
    q->seq = MAX(q->seq, r->seq);
    if (r->type == RECORD_PUT && !e) {
        _auto_(arena_freep) struct arena *a = arena_new();
        const char *payload;
        size_t n;
        struct val *meta = event_meta(a, body, r->n, &payload, &n);

        if (!meta)
            return;
        e = xcalloc(1, sizeof *e);
        *e = (struct event){.q = q, .segment = s, .seq = r->seq, .at = at, .n = r->n,
                            .since_ms = val_int_at(meta, "at", 0)};
        snprintf(e->id, sizeof e->id, "%s", val_str_at(meta, "id", "?"));
        map_put(&q->by_seq, seq, e);
        list_push(&q->ready, &e->link);
        s->owed++;
        q->owed++;
        forget_read(q, (uint64_t)val_int_at(meta, "ends", 0));
    } else if (r->type == RECORD_TRY && e && r->n == 4) {
        memcpy(&e->tries, body, 4);
    } else if (r->type == RECORD_DONE) {
        forget_read(q, r->seq);
    }
}

static void read_segment(struct queue *q, struct segment *s)
{
    _auto_(freep) char *text = xmalloc((size_t)s->size + 1);
    off_t at = 0;

    while (at < s->size) {
        ssize_t n = pread(s->fd, text + at, (size_t)(s->size - at), at);

        if (n <= 0)
            break;
        at += n;
    }
    s->size = at;
    for (at = 0; at + (off_t)sizeof(struct record) <= s->size;) {
        struct record r;

        memcpy(&r, text + at, sizeof r);
        if (r.magic != RECORD_MAGIC || r.n > s->size - at - (off_t)sizeof r ||
            r.crc != record_crc(&r, text + at + sizeof r))
            break;
        read_record(q, s, &r, text + at + sizeof r, at + (off_t)sizeof r);
        at += (off_t)sizeof r + r.n;
    }
    if (at < s->size)
        LOG(INFO, "function", "did=read-queue segment=%llu torn_bytes=%lld", (unsigned long long)s->number,
            (long long)(s->size - at));
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int read_all(struct queue *q, struct err *err)
{
    uint64_t *numbers = NULL;
    size_t n = 0;
    struct dirent *d;
    DIR *dir = opendir(q->dir);
    int ret = 0;

    if (!dir)
        return err_sys(err, "read %s", q->dir);
    while ((d = readdir(dir)))
        if (str_ends(d->d_name, ".log") && strtoull(d->d_name, NULL, 10)) {
            numbers = xrealloc(numbers, (n + 1) * sizeof *numbers);
            numbers[n++] = strtoull(d->d_name, NULL, 10);
        }
    closedir(dir);
    if (n)
        qsort(numbers, n, sizeof *numbers, by_number);
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct segment *s = xcalloc(1, sizeof *s);
        _auto_(freep) char *path = segment_path(q, numbers[i]);
        struct stat st;

        s->number = numbers[i];
        s->fd = open(path, O_RDONLY | O_CLOEXEC);
        list_push(&q->segments, &s->link);
        if (s->fd < 0 || fstat(s->fd, &st) < 0) {
            ret = err_sys(err, "read %s", path);
            break;
        }
        s->size = st.st_size;
        read_segment(q, s);
    }
    free(numbers);
    map_done(&q->by_seq);
    return ret;
}

static void free_list(struct list *h)
{
    LIST_EACH(h, l)
    {
        list_remove(l);
        free(list_entry(l, struct event, link));
    }
}

static void queue_free(struct queue *q)
{
    free_list(&q->ready);
    free_list(&q->later);
    free_list(&q->fresh);
    LIST_EACH(&q->segments, l)
    segment_free(segment_of(l));
    buf_done(&q->pending);
    buf_done(&q->writing);
    map_done(&q->by_seq);
    free(q->dir);
    free(q);
}

struct queue *queue_open(struct functions *fs, struct err *err)
{
    struct queue *q = xcalloc(1, sizeof *q);

    q->fs = fs;
    q->dir = xasprintf("%s/queue", fs->state);
    list_init(&q->segments);
    list_init(&q->ready);
    list_init(&q->later);
    list_init(&q->fresh);
    list_init(&q->committing);
    if (read_all(q, err) < 0 || segment_new(q, err) < 0) {
        queue_free(q);
        return NULL;
    }
    if (q->owed)
        LOG(INFO, "function", "did=read-queue owed=%u", q->owed);
    uv_timer_init(fs->loop, &q->timer);
    q->timer.data = q;
    uv_unref((uv_handle_t *)&q->timer);
    return q;
}

/* ---- running ---- */

static void run_ready(struct queue *q);
static void queue_maybe_closed(struct queue *q);

static int backoff(struct event *e)
{
    e->backoff_ms = e->backoff_ms ? MIN(e->backoff_ms * 2, (uint32_t)BACKOFF_LAST_MS) : BACKOFF_FIRST_MS;
    return (int)e->backoff_ms;
}

static void run_later(struct event *e, int64_t ms)
{
    e->due_ms = wall_ms() + ms;
    list_push(&e->q->later, &e->link);
}

static void event_lost(struct event *e, struct function *f, const char *why)
{
    LOG(WARN, "function", "event=%s function=%s did=drop tries=%u why=\"%.120s\"", e->id, f ? f->key : "", e->tries, why);
    if (f)
        f->m->async_dropped++;
}

/* Of an event that comes out of another one; zeroes: of one from outside. */
struct put_more {
    uint64_t ends;           /* the other one: over when this is on disk */
    const struct val *to[2]; /* where the record and the letter go; NULL, NULL: this is a call */
    size_t record_n;         /* bytes of the payload that are the record */
    int64_t since_ms;
    struct function_span *span; /* of the putting, the queue's from here on; NULL: it is not sampled */
};

struct run {
    struct event *e;
    char *ns, *name, *qualifier; /* qualifier: NULL, or as the event was sent to */
};

static void run_free(struct run *run)
{
    free(run->ns);
    free(run->name);
    free(run->qualifier);
    free(run);
}

/* The event's payload, in the arena; NULL when the file cannot be read. */
static struct val *event_read(struct event *e, struct arena *a, const char **ret_payload, size_t *ret_n)
{
    char *body = arena_raw(a, e->n + 1);

    return pread(e->segment->fd, body, e->n, e->at) == (ssize_t)e->n ? event_meta(a, body, e->n, ret_payload, ret_n) : NULL;
}

/* Its destinations have it. */
static void on_delivered(void *arg, bool whole)
{
    struct run *run = arg;
    struct event *e = run->e;
    struct queue *q = e->q;

    q->running--;
    if (whole)
        event_over(e);
    else
        list_push(&q->later, &e->link), e->due_ms = wall_ms() + backoff(e); /* once more, all of it */
    run_free(run);
    run_ready(q);
    queue_maybe_closed(q);
}

static void queue_put(struct queue *q, const struct function_call *c, const struct put_more *more, function_queued_fn *done, void *arg);

/* What is to be delivered is an event of its own now. */
static void on_settled(void *arg, const struct err *err, const char *id)
{
    on_delivered(arg, err->code == ERR_OK);
}

/* The record at p, and the letter behind it. */
static void deliver_both(struct run *run, const struct val *meta, const char *trace, const struct val *const to[2], const char *p,
                         size_t record_n, size_t n)
{
    struct event *e = run->e;
    struct delivery d = {.fs = e->q->fs, .event = e->seq, .to = {to[0], to[1]}, .text = {p, p + record_n}, .n = {record_n, n - record_n},
                         .request_id = e->id, .trace = trace, .meta = meta};

    deliver(&d, on_delivered, run);
}

static void deliver_kept(struct run *run, const struct val *meta, const struct val *list, const char *p, size_t n)
{
    int64_t record_n = val_int_at(meta, "recordBytes", 0);
    const struct val *to[2] = {NULL, NULL};
    int i = 0;

    VAL_EACH(list, it)
    if (i < 2)
        to[i++] = it;
    deliver_both(run, meta, val_str_at(meta, "trace", NULL), to, p, record_n < 0 || (size_t)record_n > n ? n : (size_t)record_n, n);
}

/* It is through, well or not; its record goes where the function says, and only then it is over. */
static void settle(struct run *run, struct function *head, const char *condition, const struct function_result *r)
{
    struct event *e = run->e;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct queue *q = e->q;
    struct destination_record d = {.region = q->fs->region, .account = q->fs->account, .request_id = e->id,
                                   .condition = condition, .tries = e->tries + 1, .result = r};
    const struct val *to[2];
    const char *trace;
    char *text, *both;
    size_t n;
    const struct val *rules = head ? events_rules(head->obj, run->qualifier) : NULL;
    bool well = streq(condition, "Success");

    to[0] = val_get(rules, well ? "onSuccess" : "onFailure");
    to[1] = well || !head ? NULL : val_at(obj_val(head->obj), "spec.deadLetterTo");
    to[0] = destination_is(to[0]) ? to[0] : NULL;
    to[1] = destination_is(to[1]) ? to[1] : NULL;
    d.meta = to[0] || to[1] ? event_read(e, a, &d.payload, &d.n) : NULL;
    if (!d.meta) {
        on_delivered(run, true);
        return;
    }
    text = destination_record(&d, a, &n);
    trace = r->trace_text ? r->trace_text : val_str_at(d.meta, "trace", NULL);
    if (!to[1] && val_str_at(to[0], "function", NULL) &&
        !function_durable_s(q->fs, run->ns, val_str_at(to[0], "function", ""), val_str_at(to[0], "qualifier", NULL))) { /* one event, which ends this one */
        deliver_both(run, d.meta, trace, to, text, n, n);
        return;
    }
    both = arena_raw(a, n + d.n + 1);
    memcpy(both, text, n);
    memcpy(both + n, d.payload, d.n);
    queue_put(q, &(struct function_call){.namespace_ = run->ns, .name = run->name, .qualifier = run->qualifier, .request_id = e->id,
                                         .payload = both, .n = n + d.n, .trace_id = trace},
              &(struct put_more){.ends = e->seq, .to = {to[0], to[1]}, .record_n = n, .since_ms = e->since_ms}, on_settled, run);
}

static void on_run(void *arg, const struct function_result *r)
{
    struct run *run = arg;
    struct event *e = run->e;
    struct queue *q = e->q;
    struct function *head = function_find(q->fs, run->ns, run->name);
    const struct val *rules = head ? events_rules(head->obj, run->qualifier) : NULL;
    int retries = (int)val_int_at(rules, "retries", head ? head->async_retries : 2);
    int age_s = (int)val_int_at(rules, "maximumEventAgeSeconds", head ? head->async_age_s : 21600);
    bool old = wall_ms() - e->since_ms > age_s * 1000LL, failed = r->err.code == ERR_OK && r->function_error;

    if (r->err.code == ERR_OK && !failed) {
        settle(run, head, "Success", r);
        return;
    }
    if (q->fs->stopping) {
        list_push(&q->later, &e->link); /* still owed: the next life runs it */
    } else if (failed && (int)e->tries < retries && !old) {
        uint32_t tries = ++e->tries;

        record_add(q, RECORD_TRY, e->seq, &tries, sizeof tries);
        if (head)
            head->m->async_retries++;
        run_later(e, q->fs->retry_ms[MIN(tries - 1, 1u)]);
    } else if ((r->err.code == ERR_TOO_MANY || r->err.code == ERR_UNAVAILABLE) && !old && !(head && head->family->reserved == 0)) {
        run_later(e, backoff(e));
    } else {
        event_lost(e, head, failed ? r->payload : r->err.msg);
        settle(run, head, old ? "EventAgeExceeded" : "RetriesExhausted", r);
        return;
    }
    q->running--;
    run_free(run);
    run_ready(q);
    queue_maybe_closed(q); /* it may have been the last one that a closing queue waits for */
}

static void run_event(struct event *e)
{
    struct queue *q = e->q;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct function_call c = {0};
    const char *payload = NULL;
    struct val *meta = event_read(e, a, &payload, &c.n);
    const struct val *to;
    struct run *run;

    if (!meta) {
        LOG(ERROR, "function", "event=%s did=lose why=\"the queue's file is damaged\"", e->id);
        event_over(e);
        return;
    }
    c.payload = payload;
    c.namespace_ = val_str_at(meta, "ns", NULL);
    c.name = val_str_at(meta, "name", "");
    c.qualifier = val_str_at(meta, "qualifier", NULL);
    c.arn = val_str_at(meta, "arn", NULL);
    c.client_context = val_str_at(meta, "context", NULL);
    c.trace_id = val_str_at(meta, "trace", NULL);
    c.tracestate = val_str_at(meta, "tracestate", NULL);
    c.trigger = (enum function_trigger)MIN(MAX(val_int_at(meta, "trigger", 0), (int64_t)0), (int64_t)FUNCTION_TRIGGERS - 1);
    c.event = true;
    c.request_id = e->id;
    run = xcalloc(1, sizeof *run);
    *run = (struct run){e, xstrdup(c.namespace_ ? c.namespace_ : "default"), xstrdup(c.name),
                        c.qualifier ? xstrdup(c.qualifier) : NULL};
    q->running++;
    to = val_get(meta, "deliver");
    if (to)
        deliver_kept(run, meta, to, payload, c.n);
    else
        function_invoke(q->fs, &c, on_run, run);
}

static void run_ready(struct queue *q)
{
    struct list *l;

    if (q->in_run || !q->started)
        return; /* an event may end inside function_invoke() */
    q->in_run = true;
    while (!q->closing && !q->fs->stopping && q->running < RUNNING_MAX && (l = list_first(&q->ready))) {
        list_remove(l);
        run_event(list_entry(l, struct event, link));
    }
    q->in_run = false;
}

/* ---- committing ---- */

static void commit(struct queue *q);

static void on_work(uv_work_t *w)
{
    struct queue *q = w->data;
    struct segment *s = segment_of(q->segments.prev);
    size_t at = 0;

    q->commit_error = 0;
    while (at < q->writing.n) {
        ssize_t n = pwrite(s->fd, q->writing.p + at, q->writing.n - at, s->size + (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            q->commit_error = n ? errno : EIO;
            break;
        }
        at += (size_t)n;
    }
    if (!q->commit_error && fdatasync(s->fd) < 0)
        q->commit_error = errno;
    if (q->commit_error)
        (void)!ftruncate(s->fd, s->size); /* what did not get there whole was never there */
}

static void queue_maybe_closed(struct queue *q)
{
    if (!q->closing || q->busy || q->running || !q->timer_closed)
        return;
    if (q->pending.n && !q->commit_error) { /* ends of events that came while it closed */
        commit(q);
        return;
    }
    void (*closed)(void *) = q->closed;
    void *arg = q->closed_arg;

    queue_free(q);
    closed(arg);
}

static void on_committed(uv_work_t *w, int status)
{
    struct queue *q = w->data;
    struct segment *s = segment_of(q->segments.prev);
    struct err err = {0};
    struct list *l;

    if (q->commit_error) {
        errno = q->commit_error;
        err_sys(&err, "keep the event");
        LOG(ERROR, "function", "did=commit-queue error=\"%s\"", err.msg);
    } else {
        s->size += (off_t)q->writing.n;
    }
    buf_done(&q->writing);
    while ((l = list_first(&q->committing))) {
        struct event *e = list_entry(l, struct event, link);
        function_queued_fn *done = e->done;
        struct function_span *span = STEAL(e->span);
        struct function_result r;
        void *arg = e->arg;
        char id[FUNCTION_ID_MAX];

        memcpy(id, e->id, sizeof id);
        list_remove(l);
        if (q->commit_error) {
            e->segment->owed--;
            q->owed--;
            free(e);
        } else {
            list_push(&q->ready, l);
        }
        r = (struct function_result){.err = err, .request_id = id}; /* the span borrows it until its end */
        if (span)
            trace_span_result(span, &r);
        trace_span_end(q->fs, span);
        if (done)
            done(arg, &err, id);
    }
    q->busy = false;
    if (s->size > SEGMENT_BYTES && !q->commit_error) {
        if (segment_new(q, &err) < 0)
            LOG(WARN, "function", "did=new-segment error=\"%s\"", err.msg);
        drop_old_segments(q);
    }
    if (q->pending.n)
        commit(q);
    run_ready(q);
    queue_maybe_closed(q);
}

/* All that was added until now, in one write and one sync. */
static void commit(struct queue *q)
{
    struct segment *s = segment_of(q->segments.prev);
    off_t base = s->size;

    if (q->busy)
        return;
    q->busy = true;
    q->writing = q->pending;
    q->pending = (struct buf){0};
    LIST_EACH(&q->fresh, l)
    {
        struct event *e = list_entry(l, struct event, link);

        e->segment = s;
        e->at += base; /* was counted from the start of the buffer */
        s->owed++;
        list_remove(l);
        list_push(&q->committing, l);
    }
    q->work.data = q;
    uv_queue_work(q->fs->loop, &q->work, on_work, on_committed);
}

static void on_timer(uv_timer_t *t)
{
    struct queue *q = t->data;
    int64_t now = wall_ms();

    LIST_EACH(&q->later, l)
    {
        struct event *e = list_entry(l, struct event, link);

        if (e->due_ms > now)
            continue;
        list_remove(l);
        list_push(&q->ready, l);
    }
    if (q->pending.n && !q->busy)
        commit(q);
    drop_old_segments(q);
    run_ready(q);
    if (!q->owed && !q->pending.n && !q->busy && !q->running)
        uv_timer_stop(t);
}

void queue_start(struct queue *q, int64_t after_ms)
{
    if (q->started)
        return;
    q->started = true;
    LIST_EACH(&q->ready, l)
    {
        struct event *e = list_entry(l, struct event, link);

        list_remove(l);
        run_later(e, after_ms);
    }
    wake(q);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct queue *q = h->data;

    q->timer_closed = true;
    queue_maybe_closed(q);
}

void queue_close(struct queue *q, void (*closed)(void *arg), void *arg)
{
    q->closing = true;
    q->closed = closed;
    q->closed_arg = arg;
    if (q->pending.n && !q->busy)
        commit(q);
    uv_close((uv_handle_t *)&q->timer, on_timer_closed);
}

/* done and its error: queue.h, function_invoke_async(). */
static void queue_put(struct queue *q, const struct function_call *c, const struct put_more *more, function_queued_fn *done, void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *meta = val_map(a);
    struct event *e;
    struct buf body = {0};
    struct err err = {0};
    const char *text;
    size_t n;
    uint32_t meta_n;

    if (q->closing)
        err_set(&err, UNAVAILABLE, "tandem is stopping");
    else if (!more->ends && (q->owed >= OWED_MAX || q->pending.n > PENDING_BYTES_MAX)) /* else it takes the place of another one */
        err_set(&err, TOO_MANY, "too many events are waiting (%u)", q->owed);
    if (err.code != ERR_OK) {
        trace_span_free(more->span);
        done(arg, &err, "");
        return;
    }
    e = xcalloc(1, sizeof *e);
    *e = (struct event){.q = q, .seq = ++q->seq, .since_ms = more->since_ms ? more->since_ms : wall_ms(), .done = done, .arg = arg, .span = more->span};
    if (c->request_id)
        snprintf(e->id, sizeof e->id, "%s", c->request_id);
    else
        uuid_new(e->id);
    val_put_str(a, meta, "ns", str_empty(c->namespace_) ? "default" : c->namespace_);
    val_put_str(a, meta, "name", c->name);
    if (c->qualifier)
        val_put_str(a, meta, "qualifier", c->qualifier);
    val_put_str(a, meta, "id", e->id);
    val_put_int(a, meta, "at", e->since_ms);
    if (c->arn)
        val_put_str(a, meta, "arn", c->arn);
    if (c->client_context)
        val_put_str(a, meta, "context", c->client_context);
    if (c->trace_id)
        val_put_str(a, meta, "trace", c->trace_id);
    if (c->tracestate)
        val_put_str(a, meta, "tracestate", c->tracestate);
    if (c->trigger)
        val_put_int(a, meta, "trigger", c->trigger);
    if (more->ends)
        val_put_int(a, meta, "ends", (int64_t)more->ends);
    if (more->to[0] || more->to[1]) {
        struct val *to = val_need_list(a, meta, "deliver");

        for (int i = 0; i < 2; i++)
            val_push(a, to, more->to[i] ? val_copy(a, more->to[i]) : val_null(a));
        val_put_int(a, meta, "recordBytes", (int64_t)more->record_n);
    }
    text = json_text(a, meta, &n);
    meta_n = (uint32_t)n;
    buf_add(&body, &meta_n, sizeof meta_n);
    buf_add(&body, text, n);
    if (c->n)
        buf_add(&body, c->payload, c->n);
    e->at = (off_t)(q->pending.n + sizeof(struct record));
    e->n = (uint32_t)body.n;
    record_add(q, RECORD_PUT, e->seq, body.p, body.n);
    buf_done(&body);
    q->owed++;
    list_push(&q->fresh, &e->link);
    commit(q);
}

/* All its tries continue the trace of who sent it. */
static void put_traced(struct function *f, const struct function_call *c, uint64_t ends, function_queued_fn *done, void *arg)
{
    struct function_call with = *c;
    struct function_trace t;
    struct function_span *span;
    char text[TRACE_TEXT_MAX];

    trace_begin(&t, f->now, c, true, text);
    span = trace_span(&t, f->now, c);
    if (span)
        span->queued = true;
    with.trace_id = text;
    with.tracestate = span ? span->state : c->tracestate;
    queue_put(f->fs->queue, &with, &(struct put_more){.ends = ends, .span = span}, done, arg);
}

void function_invoke_async(struct functions *fs, const struct function_call *c, function_queued_fn *done, void *arg)
{
    queue_invoke(fs, c, 0, done, arg);
}

void queue_invoke(struct functions *fs, const struct function_call *c, uint64_t ends, function_queued_fn *done, void *arg)
{
    struct function *f = function_route(fs, c->namespace_, c->name, c->qualifier);
    struct err err = {0};

    if (fs->stopping)
        err_set(&err, UNAVAILABLE, "tandem is stopping");
    else if (!f || !f->now)
        function_not_found(fs, c->name, NULL, &err);
    else if (f->now->broken.code != ERR_OK)
        err = f->now->broken;
    else if (c->n > FUNCTION_PAYLOAD_ASYNC_MAX)
        err_set(&err, TOO_LARGE, "Request must be smaller than %d bytes for the InvokeFunction operation",
                FUNCTION_PAYLOAD_ASYNC_MAX);
    if (err.code == ERR_OK && f->durable) {
        durable_event(f, c, done, arg);
        return;
    }
    if (err.code == ERR_OK && c->n) {
        _auto_(arena_freep) struct arena *a = arena_new();

        if (!json_parse(a, c->payload, c->n, &err)) {
            err.code = ERR_INVALID_ARGUMENT;
            err_wrap(&err, "Could not parse request body into json");
        }
    }
    if (err.code != ERR_OK) {
        done(arg, &err, "");
        return;
    }
    f->m->async_events++;
    fs->meters_dirty = true;
    pool_wake(fs);
    put_traced(f, c, ends, done, arg);
}
