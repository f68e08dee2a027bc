/* The files of groups: written by rounds on a pool thread, read back at start.
 *
 * A segment: 8 bytes SEGMENT_MAGIC, then records (logs_int.h), each at a multiple of 8.
 * An index, in native order: struct index_head, its blocks, the numbers of deleted streams (padded to 8), then of each
 * stream a struct index_stream and its name (padded to 8). It counts only for a segment of the size that it names. */
#include "logs/logs_int.h"

#include "base/log.h"
#include "codec/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define INDEX_MAGIC "TDIDX01\n"
struct index_head {
    char magic[8];
    uint64_t bytes; /* of the segment */
    int64_t max;
    uint32_t blocks, gone, streams, crc; /* crc: of all behind this struct */
};
struct index_stream {
    uint32_t id, n;
    int64_t created, first, last, ingested;
    uint64_t bytes;
};

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

char *segment_path(const char *dir, uint32_t number, const char *ending)
{
    return xasprintf("%s/%08u.%s", dir, number, ending);
}

/* ---- blocks ---- */

static void blocks_push(struct blocks *b, const struct block *one)
{
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 4;
        b->v = xrealloc(b->v, b->cap * sizeof *b->v);
    }
    b->v[b->n++] = *one;
}

/* The next of a segment: grown onto the last one while that is small. */
void blocks_add(struct blocks *b, const struct block *more)
{
    struct block *last = b->n ? &b->v[b->n - 1] : NULL;

    if (!last || last->n + more->n > BLOCK_BYTES || last->offset + last->n != more->offset) {
        blocks_push(b, more);
        return;
    }
    last->n += more->n;
    last->min = MIN(last->min, more->min);
    last->max = MAX(last->max, more->max);
    last->mask |= more->mask;
}

static void block_of(struct blocks *b, const struct record *r, size_t offset)
{
    struct block one = {.offset = (uint32_t)offset, .n = (uint32_t)record_bytes(r->n), .min = INT64_MAX, .max = INT64_MIN};

    if (r->kind == RECORD_EVENT) {
        one.min = one.max = r->time;
        one.mask = 1ull << (r->stream % 64);
    }
    blocks_add(b, &one);
}

/* ---- records ---- */

static uint32_t record_crc(const struct record *r)
{
    return (uint32_t)crc32(0, (const Bytef *)r + sizeof r->crc, (uInt)(sizeof *r - sizeof r->crc + r->n));
}

size_t records_walk(const char *p, size_t n, bool check, record_fn *fn, void *arg)
{
    size_t at = 0;

    while (n - at >= sizeof(struct record)) {
        const struct record *r = (const void *)(p + at);

        if ((r->kind != RECORD_EVENT && r->kind != RECORD_STREAM && r->kind != RECORD_GONE) || r->n > LOGS_EVENT_MAX ||
            record_bytes(r->n) > n - at || (check && r->crc != record_crc(r)))
            break;
        if (!fn(arg, r, (const char *)(r + 1), at))
            break;
        at += record_bytes(r->n);
    }
    return at;
}

/* ---- a round ---- */

static bool seal(void *arg, const struct record *r, const char *text, size_t offset)
{
    struct share *s = arg;
    struct record *own = (void *)(s->bytes.p + offset);

    (void)text;
    own->crc = record_crc(r);
    block_of(&s->blocks, r, s->offset + offset);
    return true;
}

static int write_all(int fd, const char *p, size_t n, uint64_t at)
{
    while (n) {
        ssize_t k = pwrite(fd, p, n, (off_t)at);

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

static int write_file(const char *path, const char *p, size_t n, bool sync, struct err *err)
{
    _auto_(freep) char *part = xasprintf("%s.new", path);
    _auto_(closep) int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || write_all(fd, p, n, 0) < 0 || (sync && fdatasync(fd) < 0) || rename(part, path) < 0)
        return err_sys(err, "write %s", path);
    return 0;
}

static void sync_folder(const char *path)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        (void)!fsync(fd);
}

static int share_write(struct share *s)
{
    _auto_(freep) char *path = segment_path(s->dir, s->segment, "log");
    _auto_(closep) int fd = -1;

    if (s->meta) {
        _auto_(freep) char *meta = xasprintf("%s/group", s->dir);

        if (mkdir(s->dir, 0755) < 0 && errno != EEXIST)
            return err_sys(&s->err, "make %s", s->dir);
        if (write_file(meta, s->meta, strlen(s->meta), s->sync, &s->err) < 0)
            return -1;
    }
    if (s->idx.n) {
        _auto_(freep) char *idx = segment_path(s->dir, s->idx_segment, "idx");

        if (write_file(idx, s->idx.p, s->idx.n, false, &s->err) < 0)
            LOG(WARN, "logs", "did=write-index error=\"%s\"", s->err.msg); /* it can be made again */
    }
    if (!s->bytes.n)
        return 0;
    if (!s->offset)
        s->offset = strlen(SEGMENT_MAGIC);
    ASSERT(records_walk(s->bytes.p, s->bytes.n, false, seal, s) == s->bytes.n);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(&s->err, "open %s", path);
    if ((s->offset == strlen(SEGMENT_MAGIC) && write_all(fd, SEGMENT_MAGIC, strlen(SEGMENT_MAGIC), 0) < 0) ||
        write_all(fd, s->bytes.p, s->bytes.n, s->offset) < 0 || (s->sync && fdatasync(fd) < 0))
        return err_sys(&s->err, "write %s", path);
    if (s->sync && (s->meta || s->offset == strlen(SEGMENT_MAGIC)))
        sync_folder(s->dir);
    return 0;
}

static void remove_folder(const char *path)
{
    DIR *d = opendir(path);

    for (struct dirent *e; d && (e = readdir(d));) {
        _auto_(freep) char *file = xasprintf("%s/%s", path, e->d_name);

        if (e->d_name[0] != '.')
            unlink(file);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

void round_run(struct round *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        r->v[i].failed = share_write(&r->v[i]) < 0;
    for (uint32_t i = 0; i < r->unlink_n; i++) {
        unlink(r->unlink[i]);
        free(r->unlink[i]);
    }
    for (uint32_t i = 0; i < r->remove_n; i++) {
        remove_folder(r->remove[i]);
        free(r->remove[i]);
    }
    free(r->unlink);
    free(r->remove);
}

/* ---- the index of a segment ---- */

void index_streams(const struct log_group *g, struct segment *s)
{
    static const char zeros[8];

    buf_reset(&s->names);
    s->names_n = 0;
    LIST_EACH(&g->streams, k)
    {
        const struct stream *t = list_entry(k, struct stream, link);
        struct index_stream is = {t->id, (uint32_t)strlen(t->name), t->created, t->first, t->last, t->ingested, t->bytes};

        if (t->named_in != s->number)
            continue;
        buf_add(&s->names, &is, sizeof is);
        buf_add(&s->names, t->name, is.n);
        buf_add(&s->names, zeros, padded(is.n) - is.n);
        s->names_n++;
    }
}

void index_write(const struct segment *s, struct buf *out)
{
    struct index_head h = {.bytes = s->bytes, .max = s->max, .blocks = s->blocks.n, .gone = s->gone_n, .streams = s->names_n};
    static const char zeros[8];
    size_t gone = s->gone_n * sizeof *s->gone;

    memcpy(h.magic, INDEX_MAGIC, 8);
    buf_add(out, &h, sizeof h);
    buf_add(out, s->blocks.v, s->blocks.n * sizeof *s->blocks.v);
    buf_add(out, s->gone, gone);
    buf_add(out, zeros, padded(gone) - gone);
    buf_add(out, s->names.p, s->names.n);
    h.crc = (uint32_t)crc32(0, (const Bytef *)out->p + sizeof h, (uInt)(out->n - sizeof h));
    memcpy(out->p, &h, sizeof h);
}

void index_leave(struct log_group *g)
{
    struct segment *open = group_segment(g);
    _auto_(freep) char *path = segment_path(g->dir, open->number, "idx");
    struct buf b = {0};
    struct err err;

    if (!g->made || g->removed || open->bytes <= 8)
        return;
    index_streams(g, open);
    index_write(open, &b);
    if (write_file(path, b.p, b.n, false, &err) < 0)
        LOG(WARN, "logs", "did=write-index error=\"%s\"", err.msg);
    buf_done(&b);
}

/* ---- reading back ---- */

static char *read_file(const char *path, size_t max, size_t *ret_n)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *p;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
        return NULL;
    p = xmalloc((size_t)st.st_size + 1);
    *ret_n = 0;
    for (ssize_t n; *ret_n < (size_t)st.st_size; *ret_n += (size_t)n) {
        n = read(fd, p + *ret_n, (size_t)st.st_size - *ret_n);
        if (n <= 0)
            break;
    }
    p[*ret_n] = 0;
    return p;
}

static void name_stream(struct log_group *g, uint32_t id, const char *name, uint32_t n, int64_t created, uint32_t segment)
{
    struct stream *t = stream_by_id(g, id);

    if (!t)
        t = stream_add(g, name, n, id, created);
    t->named_in = segment;
}

struct scan {
    struct log_group *g;
    struct segment *s;
};

static bool scanned(void *arg, const struct record *r, const char *text, size_t offset)
{
    struct scan *c = arg;
    struct stream *t = NULL;

    block_of(&c->s->blocks, r, offset + 8);
    if (r->kind == RECORD_STREAM) {
        name_stream(c->g, r->stream, text, r->n, r->time, c->s->number);
    } else if (r->kind == RECORD_GONE) {
        segment_gone(c->s, r->stream);
        t = stream_by_id(c->g, r->stream);
        if (t)
            stream_forget(c->g, t);
    } else {
        c->s->max = MAX(c->s->max, r->time);
        t = stream_by_id(c->g, r->stream);
        if (t)
            stream_saw(t, r->time, r->ingested, r->n);
    }
    return true;
}

/* False: it has to be scanned. */
static bool index_read(struct log_group *g, struct segment *s, const char *p, size_t n)
{
    struct index_head h;
    size_t at = sizeof h;
    const uint32_t *gone;

    if (n < sizeof h)
        return false;
    memcpy(&h, p, sizeof h);
    if (memcmp(h.magic, INDEX_MAGIC, 8) != 0 || h.bytes != s->bytes || h.crc != crc32(0, (const Bytef *)p + at, (uInt)(n - at)) ||
        (uint64_t)h.blocks * sizeof(struct block) + (uint64_t)h.gone * 4 > n - at)
        return false;
    for (uint32_t i = 0; i < h.blocks; i++)
        blocks_push(&s->blocks, (const struct block *)(const void *)(p + at) + i);
    at += h.blocks * sizeof(struct block);
    gone = (const void *)(p + at);
    at += padded(h.gone * sizeof *gone);
    for (uint32_t i = 0; i < h.streams && n - at >= sizeof(struct index_stream) && at <= n; i++) {
        struct index_stream is;
        struct stream *t;

        memcpy(&is, p + at, sizeof is);
        if (padded(is.n) > n - at - sizeof is)
            break;
        name_stream(g, is.id, p + at + sizeof is, is.n, is.created, s->number);
        t = stream_by_id(g, is.id);
        t->first = is.first;
        t->last = is.last;
        t->ingested = is.ingested;
        t->bytes = is.bytes;
        at += sizeof is + padded(is.n);
    }
    for (uint32_t i = 0; i < h.gone; i++) {
        struct stream *t = stream_by_id(g, gone[i]);

        segment_gone(s, gone[i]);
        if (t)
            stream_forget(g, t);
    }
    s->max = h.max;
    return true;
}

/* A torn end is cut off: what comes next is written there. */
static void load_segment(struct log_group *g, uint32_t number, bool last)
{
    _auto_(freep) char *path = segment_path(g->dir, number, "log"), *idx_path = segment_path(g->dir, number, "idx");
    _auto_(freep) char *idx = NULL, *text = NULL;
    struct segment *s = segment_add(g, number);
    struct scan c = {g, s};
    struct stat st;
    size_t n = 0;

    if (stat(path, &st) < 0 || st.st_size < 8)
        return; /* it will be written from its beginning */
    s->bytes = (uint64_t)st.st_size;
    s->indexed = !last;
    idx = read_file(idx_path, 64 << 20, &n);
    if (!idx || !index_read(g, s, idx, n)) {
        text = read_file(path, 64 << 20, &n);
        if (!text || n < 8 || memcmp(text, SEGMENT_MAGIC, 8) != 0)
            n = 0;
        s->bytes = n ? 8 + records_walk(text + 8, n - 8, true, scanned, &c) : 0;
        if (s->bytes < (uint64_t)st.st_size) {
            LOG(WARN, "logs", "path=%s did=cut-torn-end bytes=%llu", path, (unsigned long long)((uint64_t)st.st_size - s->bytes));
            (void)!truncate(path, (off_t)s->bytes);
        }
    }
    g->bytes += s->bytes;
    g->logs->bytes += s->bytes;
}

static int number_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void load_group(struct logs *l, const char *folder)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(freep) char *dir = xasprintf("%s/%s", l->dir, folder), *meta = xasprintf("%s/group", dir), *text = NULL;
    uint32_t *numbers = NULL, n = 0;
    struct log_group *g;
    struct val *v;
    struct err err;
    size_t len = 0;
    DIR *d;

    text = read_file(meta, 64 << 10, &len);
    v = text ? json_parse(a, text, len, &err) : NULL;
    if (str_empty(val_str_at(v, "name", NULL)) || str_empty(val_str_at(v, "namespace", NULL)) ||
        group_find(l, val_str_at(v, "namespace", ""), val_str_at(v, "name", "")) || l->groups.n >= GROUPS_MAX || !(d = opendir(dir))) {
        LOG(WARN, "logs", "path=%s did=skip error=\"no log group, or one too many\"", dir);
        return;
    }
    g = group_new(l, val_str_at(v, "namespace", ""), val_str_at(v, "name", ""));
    g->created = val_int_at(v, "created", g->created);
    free(g->uid);
    g->uid = xstrdup(val_str_at(v, "uid", ""));
    g->made = true;
    for (struct dirent *e; (e = readdir(d));)
        if (strlen(e->d_name) == 12 && str_ends(e->d_name, ".log")) {
            numbers = xrealloc(numbers, (n + 1) * sizeof *numbers);
            numbers[n++] = (uint32_t)strtoul(e->d_name, NULL, 10);
        }
    closedir(d);
    if (n)
        qsort(numbers, n, sizeof *numbers, number_order);
    for (uint32_t i = 0; i < n; i++)
        load_segment(g, numbers[i], i + 1 == n);
    free(numbers);
}

int logs_load(struct logs *l, struct err *err)
{
    DIR *d = opendir(l->dir);

    if (!d)
        return err_sys(err, "read %s", l->dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (str_starts(e->d_name, ".gone-")) { /* removed, and killed before it was gone */
            _auto_(freep) char *path = xasprintf("%s/%s", l->dir, e->d_name);

            remove_folder(path);
        } else if (e->d_name[0] != '.') {
            load_group(l, e->d_name);
        }
    }
    closedir(d);
    return 0;
}
