/* Accumulators of this minute, and the queue of jobs. File format: struct record, counts, bins, key, zeros to 8 bytes. */
#include "series/series.h"

#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>
#include <zlib.h>

enum { SERIES_MAX = 20000, SEEN_MAX = 50000, JOBS_MAX = 1000, DAYS = 15, TICK_MS = 5000 };
#define BYTES_MAX (256ull << 20)
#define FILE_MAX (128ull << 20)

struct counts { /* of a function's calls in a minute */
    uint32_t invocations, errors, throttles, concurrency;
};
struct record {
    uint32_t magic, crc; /* crc: of all behind it */
    uint32_t bytes;      /* of the whole record */
    uint32_t minute;
    uint16_t key_n, bins_n;
    uint32_t zero;
    struct counts c;
    struct metric_point p;
};
enum { MAGIC = 0x4d505431 };
struct bin {
    uint16_t at, zero;
    uint32_t n;
};

struct hot {
    char *key;
    int64_t minute;
    struct counts c;
    struct metric_point p;
    uint32_t bins[METRIC_BINS];
};

struct job {
    struct list link;
    uv_work_t work;
    struct series *m;
    enum { WRITE, ASK, SCAN, EACH } what;
    struct buf bytes; /* WRITE: records */
    struct arena *a;
    struct metric_ask *asks;
    uint32_t asks_n;
    void (*asked)(void *arg);
    void (*each)(void *arg, const char *const *keys, uint32_t n);
    series_done_fn *put;
    void *arg;
    struct map keys; /* SCAN: found */
    struct err err;
    bool failed;
};

struct series {
    uv_loop_t *loop;
    char *dir;
    struct map hot, seen;
    struct buf pending; /* records of minutes that are over */
    struct list jobs;
    uint32_t jobs_n;
    bool running, stopping, full, closed;
    uv_timer_t tick;
    void (*done)(void *arg);
    void *done_arg;
};

static int64_t minute_now(void)
{
    return (int64_t)time(NULL) / 60;
}

static int bin_of(double v)
{
    int b = v > 0 ? (int)floor(log2(v) * 4) + 60 : 0;

    return b < 0 ? 0 : b >= METRIC_BINS ? METRIC_BINS - 1 : b;
}

static void point_add(struct metric_point *p, double value, double count)
{
    p->min = p->n ? fmin(p->min, value) : value;
    p->max = p->n ? fmax(p->max, value) : value;
    p->n += count;
    p->sum += value * count;
}

static void point_merge(struct metric_point *p, const struct metric_point *q)
{
    if (!q->n)
        return;
    p->min = p->n ? fmin(p->min, q->min) : q->min;
    p->max = p->n ? fmax(p->max, q->max) : q->max;
    p->n += q->n;
    p->sum += q->sum;
}

/* ---- records ---- */

static void record_write(struct buf *b, const struct hot *h)
{
    struct record r = {.magic = MAGIC, .minute = (uint32_t)h->minute, .key_n = (uint16_t)strlen(h->key), .c = h->c, .p = h->p};
    static const char zeros[8];
    size_t start = b->n;

    buf_add(b, &r, sizeof r);
    for (uint16_t i = 0; i < METRIC_BINS; i++)
        if (h->bins[i]) {
            buf_add(b, &(struct bin){i, 0, h->bins[i]}, sizeof(struct bin));
            r.bins_n++;
        }
    buf_add(b, h->key, r.key_n);
    buf_add(b, zeros, (8 - (b->n - start) % 8) % 8);
    r.bytes = (uint32_t)(b->n - start);
    memcpy(b->p + start, &r, sizeof r);
    r.crc = (uint32_t)crc32(0, (const Bytef *)b->p + start + 8, r.bytes - 8);
    memcpy(b->p + start, &r, sizeof r);
}

typedef void record_fn(void *arg, const struct record *r, const struct bin *bins, const char *key);

static void records_walk(const char *p, size_t n, record_fn *fn, void *arg)
{
    for (size_t at = 0; n - at >= sizeof(struct record) && at < n;) {
        const struct record *r = (const void *)(p + at);
        size_t body = sizeof *r + r->bins_n * sizeof(struct bin);

        if (r->magic != MAGIC || r->bytes > n - at || r->bytes % 8 || body + r->key_n > r->bytes || r->bins_n > METRIC_BINS ||
            r->crc != crc32(0, (const Bytef *)r + 8, r->bytes - 8)) {
            at += 8; /* a torn one: the next is found by its sum */
            continue;
        }
        fn(arg, r, (const struct bin *)(r + 1), p + at + body);
        at += r->bytes;
    }
}

/* ---- questions ---- */

static void ask_add(struct metric_ask *q, const struct counts *c, const struct metric_point *p, int64_t minute, const char *key, size_t key_n,
                    struct metric_bucket **ret)
{
    size_t n = strlen(q->prefix);
    struct metric_bucket *b;
    struct metric_point one = {0};

    *ret = NULL;
    if (minute < q->from || minute >= q->to || key_n < n || (q->whole && key_n != n) || memcmp(key, q->prefix, n) != 0)
        return;
    b = &q->buckets[(minute - q->from) / q->period];
    switch (q->metric) {
    case METRIC_INVOCATIONS: one = (struct metric_point){c->invocations, c->invocations, 1, 1}; break;
    case METRIC_ERRORS: one = (struct metric_point){c->invocations, c->errors, c->errors == c->invocations, c->errors > 0}; break;
    case METRIC_THROTTLES:
        one = (struct metric_point){(double)c->invocations + c->throttles, c->throttles, !c->invocations, c->throttles > 0};
        break;
    case METRIC_CONCURRENCY: one = (struct metric_point){1, c->concurrency, c->concurrency, c->concurrency}; break;
    default: one = *p;
    }
    if (q->metric == METRIC_CONCURRENCY && !c->concurrency)
        return;
    point_merge(&b->p, &one);
    *ret = b;
}

static void merge_bins(const struct metric_ask *q, struct metric_bucket *b, const struct bin *bins, uint32_t n)
{
    for (uint32_t i = 0; b && q->bins && i < n; i++)
        if (bins[i].at < METRIC_BINS)
            b->bins[bins[i].at] += bins[i].n;
}

static void on_record(void *arg, const struct record *r, const struct bin *bins, const char *key)
{
    struct job *j = arg;

    for (uint32_t i = 0; i < j->asks_n; i++) {
        struct metric_bucket *b;

        ask_add(&j->asks[i], &r->c, &r->p, r->minute, key, r->key_n, &b);
        merge_bins(&j->asks[i], b, bins, r->bins_n);
    }
}

static void add_hot(struct job *j, const struct hot *h)
{
    for (uint32_t i = 0; i < j->asks_n; i++) {
        struct metric_bucket *b;

        ask_add(&j->asks[i], &h->c, &h->p, h->minute, h->key, strlen(h->key), &b);
        for (int k = 0; b && j->asks[i].bins && k < METRIC_BINS; k++)
            b->bins[k] += h->bins[k];
    }
}

double metric_percentile(const struct metric_bucket *b, double p)
{
    double all = 0, seen = 0, want;

    if (!b->bins || !b->p.n)
        return 0;
    for (int i = 0; i < METRIC_BINS; i++)
        all += b->bins[i];
    if (p <= 0 || !all)
        return b->p.min;
    want = all * fmin(p, 100) / 100;
    for (int i = 0; i < METRIC_BINS; i++) {
        if (b->bins[i] && seen + b->bins[i] >= want) {
            double v = i ? exp2(((double)i - 60 + (want - seen) / b->bins[i]) / 4) : 0;

            return fmin(fmax(v, b->p.min), b->p.max);
        }
        seen += b->bins[i];
    }
    return b->p.max;
}

/* ---- files, on a pool thread ---- */

static char *day_path(const struct series *m, int64_t minute)
{
    time_t t = (time_t)(minute * 60);
    struct tm tm;

    gmtime_r(&t, &tm);
    return xasprintf("%s/%04d%02d%02d.pts", m->dir, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

/* Each record goes into the file of its own day, so that a question knows where to look. */
static int write_records(struct job *j)
{
    size_t at = 0;

    while (at < j->bytes.n) {
        const struct record *first = (const void *)(j->bytes.p + at);
        int64_t day = first->minute / 1440;
        _auto_(freep) char *path = day_path(j->m, first->minute);
        _auto_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        struct stat st;
        size_t end = at;

        while (end < j->bytes.n && ((const struct record *)(const void *)(j->bytes.p + end))->minute / 1440 == day)
            end += ((const struct record *)(const void *)(j->bytes.p + end))->bytes;
        if (fd < 0 || fstat(fd, &st) < 0)
            return err_sys(&j->err, "open %s", path);
        if ((uint64_t)st.st_size > FILE_MAX)
            return err_set(&j->err, TOO_MANY, "%s is full", path);
        if (write(fd, j->bytes.p + at, end - at) != (ssize_t)(end - at))
            return err_sys(&j->err, "write %s", path);
        at = end;
    }
    return 0;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static uint32_t list_days(const struct series *m, char names[64][16])
{
    char *sorted[64];
    DIR *d = opendir(m->dir);
    uint32_t n = 0;

    for (struct dirent *e; d && n < 64 && (e = readdir(d));)
        if (strlen(e->d_name) == 12 && str_ends(e->d_name, ".pts"))
            sorted[n++] = xstrdup(e->d_name);
    if (d)
        closedir(d);
    qsort(sorted, n, sizeof *sorted, name_order);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(names[i], 16, "%.12s", sorted[i]);
        free(sorted[i]);
    }
    return n;
}

/* The oldest days go when they are too old, or all together too big. */
static void drop_old(const struct series *m)
{
    char names[64][16];
    uint32_t n = list_days(m, names);
    _auto_(freep) char *oldest = day_path(m, minute_now() - DAYS * 1440);
    uint64_t bytes = 0;

    for (uint32_t i = n; i-- > 0;) {
        _auto_(freep) char *path = xasprintf("%s/%s", m->dir, names[i]);
        struct stat st;

        if (stat(path, &st) == 0)
            bytes += (uint64_t)st.st_size;
        if (bytes > BYTES_MAX || strcmp(path, oldest) < 0)
            unlink(path);
    }
}

static void walk_file(const char *path, record_fn *fn, void *arg)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *p;
    ssize_t n = 0, k;

    if (fd < 0 || fstat(fd, &st) < 0 || !st.st_size || (uint64_t)st.st_size > 2 * FILE_MAX)
        return;
    p = xmalloc((size_t)st.st_size);
    while (n < st.st_size && (k = read(fd, p + n, (size_t)(st.st_size - n))) > 0)
        n += k;
    records_walk(p, (size_t)n, fn, arg);
    free(p);
}

static void on_key(void *arg, const struct record *r, const struct bin *bins, const char *key)
{
    struct job *j = arg;
    char text[METRIC_KEY_MAX + 1];

    (void)bins;
    if (r->key_n > METRIC_KEY_MAX || j->keys.n >= SEEN_MAX)
        return;
    memcpy(text, key, r->key_n);
    text[r->key_n] = 0;
    map_put(&j->keys, text, (void *)(uintptr_t)r->minute);
}

static void on_work(uv_work_t *w)
{
    struct job *j = w->data;
    int64_t from = INT64_MAX, to = 0;

    if (j->what == WRITE) {
        j->failed = write_records(j) < 0;
        drop_old(j->m);
    } else if (j->what == SCAN) {
        char names[64][16];
        uint32_t n = list_days(j->m, names);

        for (uint32_t i = 0; i < n; i++) {
            _auto_(freep) char *path = xasprintf("%s/%s", j->m->dir, names[i]);

            walk_file(path, on_key, j);
        }
    } else if (j->what == ASK) {
        for (uint32_t i = 0; i < j->asks_n; i++) {
            from = MIN(from, j->asks[i].from);
            to = MAX(to, j->asks[i].to);
        }
        from = MAX(from, minute_now() - (DAYS + 1) * 1440);
        to = MIN(to, minute_now() + 3 * 60);
        for (int64_t day = from / 1440; from < to && day <= (to - 1) / 1440; day++) {
            _auto_(freep) char *path = day_path(j->m, day * 1440);

            walk_file(path, on_record, j);
        }
    }
}

/* ---- jobs ---- */

static void next_job(struct series *m);
static void let_go(struct series *m);

static int key_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void each_key(struct job *j)
{
    struct series *m = j->m;
    const char **keys = xcalloc(m->seen.n + 1, sizeof *keys), *key;
    int64_t oldest = minute_now() - DAYS * 1440;
    uint32_t n = 0;
    void *minute;

    for (uint32_t i = 0; map_next(&m->seen, &i, &key, &minute);)
        if ((int64_t)(uintptr_t)minute >= oldest)
            keys[n++] = key;
    if (n)
        qsort(keys, n, sizeof *keys, key_order);
    j->each(j->arg, keys, n);
    free(keys);
}

static void job_end(struct job *j)
{
    struct series *m = j->m;
    const char *key;
    void *minute;

    if (j->failed)
        LOG(WARN, "series", "did=drop-points error=\"%s\"", j->err.msg);
    for (uint32_t i = 0; map_next(&j->keys, &i, &key, &minute);)
        map_put(&m->seen, key, minute);
    map_done(&j->keys);
    if (j->what == ASK)
        j->asked(j->arg);
    else if (j->what == EACH)
        each_key(j);
    else if (j->put)
        j->put(j->arg, j->failed ? &j->err : NULL);
    buf_done(&j->bytes);
    free(j);
    m->jobs_n--;
}

static void on_worked(uv_work_t *w, int status)
{
    struct job *j = w->data;
    struct series *m = j->m;

    (void)status;
    m->running = false;
    job_end(j);
    next_job(m);
}

static void next_job(struct series *m)
{
    struct job *j;

    if (m->running)
        return;
    if (list_empty(&m->jobs)) {
        let_go(m);
        return;
    }
    j = list_entry(list_first(&m->jobs), struct job, link);
    list_remove(&j->link);
    m->running = true;
    j->work.data = j;
    ASSERT(uv_queue_work(m->loop, &j->work, on_work, on_worked) == 0);
}

static struct job *job_new(struct series *m, int what)
{
    struct job *j = xcalloc(1, sizeof *j);

    j->m = m;
    j->what = what;
    list_push(&m->jobs, &j->link);
    m->jobs_n++;
    return j;
}

static void write_pending(struct series *m)
{
    if (!m->pending.n)
        return;
    job_new(m, WRITE)->bytes = m->pending;
    m->pending = (struct buf){0};
}

/* ---- counting ---- */

static struct hot *hot_of(struct series *m, const char *key, int64_t minute)
{
    struct hot *h = map_get(&m->hot, key);

    if (h && h->minute != minute) {
        record_write(&m->pending, h);
        h->minute = minute;
        memset(&h->c, 0, sizeof *h - offsetof(struct hot, c));
        return h;
    }
    if (h)
        return h;
    if (m->hot.n >= SERIES_MAX) {
        if (!m->full)
            LOG(WARN, "series", "did=not-count key=\"%.200s\" error=\"more than %d series in a minute\"", key, SERIES_MAX);
        m->full = true;
        return NULL;
    }
    h = xcalloc(1, sizeof *h);
    h->key = xstrdup(key);
    h->minute = minute;
    map_put(&m->hot, key, h);
    if (m->seen.n < SEEN_MAX)
        map_put(&m->seen, key, (void *)(uintptr_t)minute);
    return h;
}

void series_call(struct series *m, const char *key, const struct metric_call *c)
{
    struct hot *h = hot_of(m, key, minute_now());

    if (!h)
        return;
    h->c.concurrency = MAX(h->c.concurrency, c->concurrency);
    if (c->throttled) {
        h->c.throttles++;
        return;
    }
    h->c.invocations++;
    h->c.errors += c->error;
    point_add(&h->p, c->duration_ms, 1);
    h->bins[bin_of(c->duration_ms)]++;
}

static void hot_drop(struct series *m, struct hot *h)
{
    record_write(&m->pending, h);
    map_del(&m->hot, h->key);
    free(h->key);
    free(h);
}

static void drain(struct series *m, int64_t before)
{
    const char *key;
    void *h;

    for (uint32_t i = 0; map_next(&m->hot, &i, &key, &h);)
        if (((struct hot *)h)->minute < before)
            hot_drop(m, h);
    m->full = m->hot.n >= SERIES_MAX;
    write_pending(m);
    next_job(m);
}

static void on_tick(uv_timer_t *t)
{
    struct series *m = t->data;

    if (!m->stopping)
        drain(m, minute_now());
}

int series_put(struct series *m, const struct metric_value *v, uint32_t n, series_done_fn *done, void *arg, struct err *err)
{
    struct job *j;
    struct hot h;

    if (m->stopping || m->jobs_n >= JOBS_MAX)
        return err_set(err, TOO_MANY, "too many requests at once");
    for (uint32_t i = 0; i < n; i++)
        if (strlen(v[i].key) > METRIC_KEY_MAX)
            return err_set(err, INVALID_ARGUMENT, "name and dimensions are longer than %d bytes", METRIC_KEY_MAX);
    write_pending(m);
    j = job_new(m, WRITE);
    for (uint32_t i = 0; i < n; i++) {
        memset(&h, 0, sizeof h);
        h.key = (char *)v[i].key;
        h.minute = v[i].minute;
        if (v[i].set) {
            h.p = v[i].of;
            h.bins[bin_of(h.p.n ? h.p.sum / h.p.n : 0)] = (uint32_t)fmin(h.p.n, 4e9);
        } else {
            point_add(&h.p, v[i].value, v[i].count);
            h.bins[bin_of(v[i].value)] = (uint32_t)fmin(v[i].count, 4e9);
        }
        record_write(&j->bytes, &h);
        if (m->seen.n < SEEN_MAX || map_get(&m->seen, h.key))
            map_put(&m->seen, h.key, (void *)(uintptr_t)h.minute);
    }
    j->put = done;
    j->arg = arg;
    next_job(m);
    return 0;
}

void series_ask(struct series *m, struct arena *a, struct metric_ask *asks, uint32_t n, void (*fn)(void *arg), void *arg)
{
    struct job *j;
    const char *key;
    void *h;

    for (uint32_t i = 0; i < n; i++) {
        struct metric_ask *q = &asks[i];

        ASSERT(q->period > 0 && q->to >= q->from && (q->to - q->from) / q->period < METRICS_BUCKETS_MAX);
        q->buckets_n = (uint32_t)((q->to - q->from + q->period - 1) / q->period);
        q->buckets = arena_array(a, struct metric_bucket, q->buckets_n + 1);
        for (uint32_t k = 0; q->bins && k < q->buckets_n; k++)
            q->buckets[k].bins = arena_array(a, uint32_t, METRIC_BINS);
    }
    write_pending(m);
    j = job_new(m, ASK);
    j->a = a;
    j->asks = asks;
    j->asks_n = n;
    j->asked = fn;
    j->arg = arg;
    for (uint32_t i = 0; map_next(&m->hot, &i, &key, &h);)
        add_hot(j, h);
    next_job(m);
}

void series_each(struct series *m, void (*fn)(void *arg, const char *const *keys, uint32_t n), void *arg)
{
    struct job *j = job_new(m, EACH);

    j->each = fn;
    j->arg = arg;
    next_job(m);
}

/* ---- life ---- */

struct series *series_new(uv_loop_t *loop, const char *dir, struct err *err)
{
    struct series *m;

    if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
        err_sys(err, "make %s", dir);
        return NULL;
    }
    m = xcalloc(1, sizeof *m);
    m->loop = loop;
    m->dir = xstrdup(dir);
    list_init(&m->jobs);
    uv_timer_init(loop, &m->tick);
    m->tick.data = m;
    uv_timer_start(&m->tick, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&m->tick);
    job_new(m, SCAN);
    next_job(m);
    return m;
}

static void on_closed(uv_handle_t *t)
{
    struct series *m = t->data;
    void (*done)(void *) = m->done;
    void *arg = m->done_arg;

    map_done(&m->hot);
    map_done(&m->seen);
    buf_done(&m->pending);
    free(m->dir);
    free(m);
    if (done)
        done(arg);
}

static void let_go(struct series *m)
{
    if (!m->stopping || m->running || m->closed || !list_empty(&m->jobs))
        return;
    m->closed = true;
    uv_close((uv_handle_t *)&m->tick, on_closed);
}

void series_stop(struct series *m, void (*done)(void *arg), void *arg)
{
    m->done = done;
    m->done_arg = arg;
    m->stopping = true;
    drain(m, INT64_MAX);
}
