/* STATE/durable/XX/ID.log, XX the first two digits of the id: records one after the other, each
 *
 *   u32 magic, u32 n, u32 crc over the n bytes, u32 0
 *   n bytes   JSON {head, x, ops[], events[]}
 *   u32 n     once more: so the last record is found from the end
 *
 * head (first record only) is what never changes; x are the execution's numbers as they are from then on; ops are
 * operations that are new or different; events belong to the history. A record is a whole change: it counts or it does
 * not, and a torn one can only be the last. Of an ended execution only the first and the last record are read at start;
 * of a running one all, and then forgotten until something happens to it. */
#include "function/durable/durable_int.h"

#include "base/log.h"
#include "env/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    MAGIC = 0x31727564,
    LOAD_AGAIN_MS = 1000,      /* after a disk that refused */
    AT_ONCE_BYTES = 256 << 10, /* of a file that is read in one go */
    READERS = 4,               /* threads beside the first one, when a gateway begins */
};
struct header {
    uint32_t magic, n, crc, zero;
};

static char *shard_path(const struct exec *e)
{
    return xasprintf("%s/%.2s", e->d->dir, e->id);
}

char *exec_path(const struct exec *e)
{
    return xasprintf("%s/%.2s/%s.log", e->d->dir, e->id, e->id);
}

/* ---- what a record says ---- */

static void put_str(struct arena *a, struct val *v, const char *key, const char *s)
{
    if (s)
        val_put_str(a, v, key, s);
}

static struct val *head_of(struct arena *a, const struct exec *e)
{
    struct val *v = val_map(a);

    put_str(a, v, "id", e->id);
    put_str(a, v, "name", e->name);
    put_str(a, v, "arn", e->arn);
    put_str(a, v, "ns", e->ns);
    put_str(a, v, "object", e->object);
    put_str(a, v, "version", e->version);
    put_str(a, v, "kmsKey", e->kms_key);
    put_str(a, v, "trace", e->trace);
    put_str(a, v, "parent", e->parent);
    put_str(a, v, "parentOp", e->parent_op);
    put_str(a, v, "input", e->input_sha);
    val_put_int(a, v, "start", e->start_ms);
    val_put_int(a, v, "timeoutS", e->timeout_s);
    val_put_int(a, v, "retentionDays", e->retention_days);
    return v;
}

static char *keep(const struct val *v, const char *key)
{
    const char *s = val_str_at(v, key, NULL);

    return s ? xstrdup(s) : NULL;
}

static void head_take(struct exec *e, const struct val *v)
{
    e->name = keep(v, "name");
    e->arn = keep(v, "arn");
    e->ns = keep(v, "ns");
    e->object = keep(v, "object");
    e->version = keep(v, "version");
    e->kms_key = keep(v, "kmsKey");
    e->trace = keep(v, "trace");
    e->parent = keep(v, "parent");
    e->parent_op = keep(v, "parentOp");
    snprintf(e->input_sha, sizeof e->input_sha, "%s", val_str_at(v, "input", ""));
    e->start_ms = val_int_at(v, "start", 0);
    e->timeout_s = (int)val_int_at(v, "timeoutS", DURABLE_TIMEOUT_DEFAULT_S);
    e->retention_days = (int)val_int_at(v, "retentionDays", DURABLE_RETENTION_DEFAULT_DAYS);
}

static void put_some(struct arena *a, struct val *v, const char *key, const struct val *x)
{
    if (!val_is_null(x))
        val_put(a, v, key, x);
}

static struct val *numbers_of(struct arena *a, const struct exec *e)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "status", durable_status_names[e->status]);
    val_put_int(a, v, "end", e->end_ms);
    val_put_int(a, v, "timeoutAt", e->timeout_at_ms);
    val_put_int(a, v, "clockLeft", e->clock_left_ms);
    val_put_int(a, v, "token", e->token);
    val_put_int(a, v, "inv", e->inv);
    val_put_int(a, v, "fails", e->fails);
    val_put_int(a, v, "badPending", e->bad_pending);
    val_put_int(a, v, "events", e->events_n);
    val_put_int(a, v, "touched", (int64_t)e->touched);
    val_put_int(a, v, "seen", (int64_t)e->seen);
    val_put_bool(a, v, "running", e->running);
    val_put_bool(a, v, "wants", e->wants);
    val_put_int(a, v, "invAt", e->inv_ms);
    val_put_int(a, v, "retryAt", e->retry_at_ms);
    put_some(a, v, "pause", e->ops->pause);
    put_some(a, v, "result", e->ops->result);
    put_some(a, v, "error", e->ops->error);
    put_some(a, v, "last", e->ops->last);
    return v;
}

static void numbers_take(struct exec *e, const struct val *v)
{
    const char *status = val_str_at(v, "status", "");

    for (int i = 0; i < D_STATUSES; i++)
        if (streq(status, durable_status_names[i]))
            e->status = (enum durable_status)i;
    e->end_ms = val_int_at(v, "end", 0);
    e->timeout_at_ms = val_int_at(v, "timeoutAt", 0);
    e->clock_left_ms = val_int_at(v, "clockLeft", 0);
    e->token = (uint32_t)val_int_at(v, "token", 0);
    e->inv = (uint32_t)val_int_at(v, "inv", 0);
    e->fails = (uint32_t)val_int_at(v, "fails", 0);
    e->bad_pending = (uint32_t)val_int_at(v, "badPending", 0);
    e->events_n = (uint32_t)val_int_at(v, "events", 0);
    e->touched = (uint64_t)val_int_at(v, "touched", 0);
    e->seen = (uint64_t)val_int_at(v, "seen", 0);
    e->running = val_bool_at(v, "running", false);
    e->wants = val_bool_at(v, "wants", false);
    e->inv_ms = val_int_at(v, "invAt", 0);
    e->retry_at_ms = val_int_at(v, "retryAt", 0);
}

/* ---- reading ---- */

static bool header_fits(const struct header *h, off_t left)
{
    return h->magic == MAGIC && !h->zero && h->n >= 2 && (off_t)(sizeof *h + h->n + sizeof(uint32_t)) <= left;
}

/* A file that is read; a small one in one go. */
struct source {
    int fd;
    char *text; /* all of it, or NULL */
    off_t size;
};

static void source_close(struct source *s)
{
    closep(&s->fd);
    free(s->text);
}

static bool source_get(const struct source *s, void *p, size_t n, off_t at)
{
    if (!s->text)
        return pread(s->fd, p, n, at) == (ssize_t)n;
    if (at < 0 || at > s->size || (off_t)n > s->size - at)
        return false;
    memcpy(p, s->text + at, n);
    return true;
}

static int source_open(struct source *s, const char *path, struct err *err)
{
    struct stat st;

    *s = (struct source){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (s->fd < 0)
        return err_sys(err, "open %s", path);
    if (fstat(s->fd, &st) < 0)
        return err_sys(err, "read %s", path);
    s->size = st.st_size;
    if (s->size > AT_ONCE_BYTES)
        return 0;
    s->text = xmalloc((size_t)s->size + 1);
    return pread(s->fd, s->text, (size_t)s->size, 0) == (ssize_t)s->size ? 0 : err_sys(err, "read %s", path);
}

/* The record's JSON in the arena; NULL when it is not whole. */
static struct val *record_read(struct arena *a, const struct source *s, off_t at, const struct header *h)
{
    char *text = arena_raw(a, (size_t)h->n + JSON_ROOM);
    struct err err;
    uint32_t n;

    if (!source_get(s, text, h->n, at + (off_t)sizeof *h) || !source_get(s, &n, sizeof n, at + (off_t)sizeof *h + h->n) || n != h->n ||
        crc32(0, (const Bytef *)text, h->n) != h->crc)
        return NULL;
    return json_parse(a, text, h->n, &err);
}

static off_t record_bytes(const struct header *h)
{
    return (off_t)(sizeof *h + h->n + sizeof(uint32_t));
}

static struct durable_ops *ops_new(void)
{
    struct durable_ops *ops = xcalloc(1, sizeof *ops);

    ops->a = arena_new();
    ops->list = val_list(ops->a);
    ops->changed = val_list(ops->a);
    ops->events = val_list(ops->a);
    return ops;
}

static void ops_free(struct durable_ops *ops)
{
    if (!ops)
        return;
    map_done(&ops->by_id);
    arena_free(ops->a);
    free(ops);
}

void exec_ops_new(struct exec *e)
{
    e->ops = ops_new();
}

/* What a file holds. */
struct file {
    struct durable_ops *ops;
    const struct val *head, *x;
    off_t whole, size;
};

/* On any thread. */
static int file_read(const char *path, struct file *f, struct err *err)
{
    _auto_(source_close) struct source from = {.fd = -1};

    if (source_open(&from, path, err) < 0)
        return -1;
    f->size = from.size;
    f->ops = ops_new();
    for (struct header h; source_get(&from, &h, sizeof h, f->whole) && header_fits(&h, f->size - f->whole);) {
        struct val *v = record_read(f->ops->a, &from, f->whole, &h);

        if (!v)
            break;
        f->whole += record_bytes(&h);
        if (!f->head)
            f->head = val_get(v, "head");
        f->x = val_get(v, "x");
        f->ops->pause = val_get(f->x, "pause");
        f->ops->result = val_get(f->x, "result");
        f->ops->error = val_get(f->x, "error");
        f->ops->last = val_get(f->x, "last");
        VAL_EACH(val_get(v, "ops"), it)
            op_put(f->ops, it);
    }
    if (f->x && val_str_at(f->head, "arn", NULL))
        return 0;
    ops_free(STEAL(f->ops));
    return err_set(err, IO, "%s is damaged", path);
}

/* It is what the file says; where the disk did not fail, what is known is known better: an invocation of an earlier life is over. */
static void file_take(struct exec *e, struct file *f)
{
    bool ended = exec_ended(e);

    if (!e->arn)
        head_take(e, f->head);
    if (e->reread || !e->link.next)
        numbers_take(e, f->x);
    if (e->link.next && exec_ended(e) != ended)
        exec_count_end(e, !ended);
    e->ops = STEAL(f->ops);
    if (f->whole < f->size)
        LOG(INFO, "function", "execution=%s did=read torn_bytes=%lld", e->id, (long long)(f->size - f->whole));
    e->size = f->whole;
    if (e->reread && e->running && !e->invoked) { /* what it answered is lost */
        e->running = false;
        e->wants = !exec_ended(e);
    }
    e->reread = false;
}

struct durable_ops *exec_load(struct exec *e, struct err *err)
{
    _auto_(freep) char *path = NULL;
    struct file f = {0};

    if (e->ops)
        return e->ops;
    path = exec_path(e);
    if (file_read(path, &f, err) < 0)
        return NULL;
    file_take(e, &f);
    return e->ops;
}

struct loading {
    struct durable_job j;
    struct exec *e;
    char *path;
    struct file f;
    struct err err;
};

static void load_run(struct durable_job *j)
{
    struct loading *l = container_of(j, struct loading, j);

    (void)!file_read(l->path, &l->f, &l->err);
}

static void load_done(struct durable_job *j)
{
    struct loading *l = container_of(j, struct loading, j);
    struct exec *e = l->e;
    struct err err = l->err;
    struct list *w;

    e->loading = false;
    if (err.code) {
        LOG(ERROR, "function", "execution=%s did=load error=\"%s\"", e->id, err.msg);
        e->not_before_ms = durable_now(e->d) + LOAD_AGAIN_MS;
    } else {
        file_take(e, &l->f);
    }
    free(l->path);
    free(l);
    while ((w = list_first(&e->load_waits))) { /* those who come meanwhile are put behind them */
        struct exec_wait *x = list_entry(w, struct exec_wait, link);

        list_remove(w);
        x->run(x, &err);
    }
    if (err.code)
        exec_waits_fail(e, &err);
    e->holds--;
    exec_settle(e);
}

void exec_load_begin(struct exec *e)
{
    struct loading *l;

    if (e->loading || e->ops)
        return;
    l = xcalloc(1, sizeof *l);
    l->e = e;
    l->path = exec_path(e);
    e->loading = true;
    e->holds++;
    durable_job(e->d, &l->j, load_run, load_done);
}

void exec_with_ops(struct exec *e, struct exec_wait *w)
{
    struct err ok = {0};

    w->e = e;
    if (exec_ready(e)) {
        w->run(w, &ok);
        return;
    }
    list_push(&e->load_waits, &w->link);
    exec_load_begin(e);
}

void exec_unload(struct exec *e)
{
    ops_free(STEAL(e->ops));
}

/* ---- histories ---- */

/* Payloads stay away: {Truncated: true}. */
static void strip(struct arena *a, struct val *event)
{
    static const char *const names[] = {"Input", "Result", "Error", "Reason"};

    VAL_EACH_MEMBER(event, m) {
        for (size_t i = 0; i < ARRAY_LEN(names) && m->v.type == VAL_MAP; i++) {
            struct val *x = val_get(&m->v, names[i]);

            if (val_is(x, VAL_MAP)) {
                val_del(x, "Payload");
                val_put_bool(a, x, "Truncated", true);
            }
        }
    }
}

/* false: the page is full. */
static bool event_take(struct exec_events *h, const struct val *event, size_t *used)
{
    int64_t id = val_int_at(event, "EventId", 0);
    struct val *v;

    if (h->reverse ? id > h->first : id < h->first)
        return true;
    if ((int)val_len(h->list) >= h->n)
        return false;
    v = val_copy(h->a, event);
    if (!h->data)
        strip(h->a, v);
    *used += view_size(v);
    if (*used > h->bytes && val_len(h->list))
        return false;
    val_push(h->a, h->list, v);
    return true;
}

static bool events_take(struct exec_events *h, const struct val *events, size_t *used)
{
    uint32_t n = val_len(events);

    for (uint32_t i = 0; i < n; i++)
        if (!event_take(h, &events->items[h->reverse ? n - 1 - i : i], used))
            return false;
    return true;
}

/* Where the record before the one at `at` begins; -1: there is none. */
static off_t record_before(const struct source *s, off_t at)
{
    uint32_t n;
    off_t begin = at - (off_t)sizeof n;

    if (begin < 0 || !source_get(s, &n, sizeof n, begin))
        return -1;
    begin -= (off_t)n + (off_t)sizeof(struct header);
    return begin < 0 ? -1 : begin;
}

int exec_events_read(struct exec_events *h, struct err *err)
{
    _auto_(source_close) struct source from = {.fd = -1};
    off_t at = h->at;
    size_t used = 0;

    if (source_open(&from, h->path, err) < 0)
        return -1;
    h->list = val_list(h->a);
    if (at < 0)
        at = h->reverse ? record_before(&from, h->size) : 0;
    for (bool more = true; more && at >= 0 && at < h->size;) {
        _auto_(arena_freep) struct arena *own = arena_new();
        struct header x;
        struct val *v;

        if (!source_get(&from, &x, sizeof x, at) || !header_fits(&x, h->size - at) || !(v = record_read(own, &from, at, &x)))
            return at == h->at ? err_set(err, INVALID_ARGUMENT, "Invalid Marker") : err_set(err, IO, "%s is damaged", h->path);
        h->last_at = at;
        more = events_take(h, val_get(v, "events"), &used);
        at = h->reverse ? record_before(&from, at) : at + record_bytes(&x);
    }
    return 0;
}

/* ---- what an earlier life left ---- */

/* Of one that has ended the first record and the last tell all that the index holds. */
static bool read_ended(struct exec *e, const struct source *from)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    off_t size = from->size, at;
    struct header h, l;
    struct val *first, *last;
    uint32_t n;

    if (size < (off_t)(sizeof h + sizeof n) || !source_get(from, &h, sizeof h, 0) || !header_fits(&h, size) ||
        !source_get(from, &n, sizeof n, size - (off_t)sizeof n))
        return false;
    at = size - (off_t)(sizeof l + n + sizeof n);
    if (at < 0 || !source_get(from, &l, sizeof l, at) || l.n != n || !header_fits(&l, size - at))
        return false;
    last = record_read(a, from, at, &l);
    if (!last)
        return false;
    numbers_take(e, val_get(last, "x"));
    if (!exec_ended(e) || !(first = record_read(a, from, 0, &h)))
        return false;
    head_take(e, val_get(first, "head"));
    e->size = size;
    return e->arn != NULL;
}

/* Several threads read, one folder each; what they find enters the engine one by one. */
struct reader {
    struct durable *d;
    struct val *shards;
    atomic_uint next;
    uv_mutex_t lock;
};

static void read_one(struct reader *r, const char *id)
{
    struct exec *e = exec_new(r->d, id);
    _auto_(freep) char *path = exec_path(e);
    _auto_(source_close) struct source from = {.fd = -1};
    struct file f = {0};
    struct err err = {0};
    bool ended = source_open(&from, path, &err) == 0 && read_ended(e, &from), there = ended || (!err.code && file_read(path, &f, &err) == 0);

    uv_mutex_lock(&r->lock);
    if (!there) {
        LOG(WARN, "function", "execution=%s did=skip why=\"%s\"", id, err.msg);
        exec_free(e);
    } else {
        if (!ended)
            file_take(e, &f);
        durable_adopt(e);
    }
    uv_mutex_unlock(&r->lock);
}

static void read_shard(struct reader *r, const char *name)
{
    _auto_(freep) char *path = xasprintf("%s/%s", r->d->dir, name);
    DIR *dir = opendir(path);
    struct dirent *f;

    if (!dir)
        return;
    while ((f = readdir(dir))) {
        size_t n = strlen(f->d_name);
        _auto_(freep) char *id = NULL;

        if (n <= 4 || !str_ends(f->d_name, ".log"))
            continue;
        id = xstrndup(f->d_name, n - 4);
        read_one(r, id);
    }
    closedir(dir);
}

static void read_shards(void *arg)
{
    struct reader *r = arg;

    for (uint32_t i; (i = atomic_fetch_add(&r->next, 1)) < val_len(r->shards);)
        read_shard(r, r->shards->items[i].s);
}

int durable_read_all(struct durable *d, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct reader r = {.d = d, .shards = val_list(a)};
    uv_thread_t threads[READERS];
    int n = 0;
    DIR *dir;
    struct dirent *f;

    if (mkdir(d->dir, 0700) < 0 && errno != EEXIST)
        return err_sys(err, "make %s", d->dir);
    dir = opendir(d->dir);
    if (!dir)
        return err_sys(err, "read %s", d->dir);
    while ((f = readdir(dir)))
        if (strlen(f->d_name) == 2 && f->d_name[0] != '.')
            val_push(a, r.shards, val_str(a, f->d_name));
    closedir(dir);
    d->reading = true;
    uv_mutex_init(&r.lock);
    while (n < MIN((int)READERS, (int)val_len(r.shards) - 1) && uv_thread_create(&threads[n], read_shards, &r) == 0)
        n++;
    read_shards(&r);
    while (n)
        uv_thread_join(&threads[--n]);
    uv_mutex_destroy(&r.lock);
    durable_sort(d);
    return 0;
}

/* ---- writing ---- */

static int make_dir(const char *path, const char *above)
{
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : -1;
    _auto_(closep) int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

static int write_all(int fd, const struct buf *b, off_t at)
{
    for (size_t done = 0; done < b->n;) {
        ssize_t n = pwrite(fd, b->p + done, b->n - done, at + (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n ? errno : EIO;
            return -1;
        }
        done += (size_t)n;
    }
    return fdatasync(fd);
}

/* What a kill left behind that is not whole: a record that is shorter would leave the rest of it, with records in it that
 * were never answered. */
static int cut_torn(int fd, off_t whole)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? -1 : st.st_size > whole ? ftruncate(fd, whole) : 0;
}

/* On a pool thread: the execution's file and e->writing are its own until it is done. */
static void on_work(uv_work_t *w)
{
    struct exec *e = w->data;
    _auto_(freep) char *path = exec_path(e), *shard = shard_path(e);
    _auto_(closep) int fd = -1;

    e->write_error = 0;
    if (e->new_file && make_dir(shard, e->d->dir) < 0) {
        e->write_error = errno;
        return;
    }
    fd = open(path, O_WRONLY | O_CLOEXEC | (e->new_file ? O_CREAT | O_TRUNC : 0), 0600);
    if (fd < 0 || cut_torn(fd, e->size) < 0 || write_all(fd, &e->writing, e->size) < 0) {
        e->write_error = errno;
        if (fd >= 0)
            (void)!ftruncate(fd, e->size); /* what did not get there whole was never there */
    } else if (e->new_file) {
        _auto_(closep) int dir = open(shard, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (dir < 0 || fsync(dir) < 0)
            e->write_error = errno;
    }
    if (e->write_error && e->new_file)
        (void)!unlink(path); /* who started it was told that it is not there */
}

static void write_next(struct exec *e);

static void tell(struct list *waiters, const struct err *err)
{
    struct list *l;

    while ((l = list_first(waiters))) {
        struct durable_waiter *w = list_entry(l, struct durable_waiter, link);

        list_remove(l);
        w->fn(w, err);
    }
}

/* The disk would not have it: the execution is again what the disk says. */
static void undo(struct exec *e, struct err *err)
{
    LOG(ERROR, "function", "execution=%s did=commit error=\"%s\"", e->id, err->msg);
    buf_done(&e->pending);
    e->launch = false;
    while (!list_empty(&e->pending_waiters)) {
        struct list *l = list_first(&e->pending_waiters);

        list_remove(l);
        list_push(&e->writing_waiters, l);
    }
    exec_unload(e);
    e->not_before_ms = durable_now(e->d) + LOAD_AGAIN_MS;
    if (e->new_file)
        return;
    e->reread = true; /* until then nothing that is known of it counts */
    exec_load_begin(e);
}

static void on_written(uv_work_t *w, int status)
{
    struct exec *e = w->data;
    struct durable *d = e->d;
    struct err err = {0};
    struct list told;

    (void)status;
    d->at_work--;
    e->busy = false;
    if (e->write_error) {
        errno = e->write_error;
        err_sys(&err, "keep execution %s", e->id);
        undo(e, &err);
    } else {
        e->size += (off_t)e->writing.n;
        e->new_file = false;
    }
    buf_done(&e->writing);
    list_init(&told);
    while (!list_empty(&e->writing_waiters)) {
        struct list *l = list_first(&e->writing_waiters);

        list_remove(l);
        list_push(&told, l);
    }
    e->holds++; /* a waiter may make it go */
    if (e->pending.n)
        write_next(e);
    tell(&told, &err);
    e->holds--;
    if (e->new_file && e->write_error)
        e->gone = true; /* it never was */
    exec_settle(e);
    durable_maybe_closed(d);
}

static void write_next(struct exec *e)
{
    if (e->busy)
        return;
    e->busy = true;
    e->d->at_work++;
    e->writing = e->pending;
    e->pending = (struct buf){0};
    while (!list_empty(&e->pending_waiters)) {
        struct list *l = list_first(&e->pending_waiters);

        list_remove(l);
        list_push(&e->writing_waiters, l);
    }
    e->work.data = e;
    uv_queue_work(e->d->loop, &e->work, on_work, on_written);
}

bool exec_full(const struct exec *e, struct err *err)
{
    if (e->size + (off_t)(e->writing.n + e->pending.n) <= DURABLE_BYTES_MAX)
        return false;
    err_set(err, TOO_LARGE, "The execution has written more than %d bytes.", DURABLE_BYTES_MAX);
    return true;
}

void exec_commit(struct exec *e, struct durable_waiter *w)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *ops = val_list(a);
    struct header h = {.magic = MAGIC};
    const char *text;
    size_t n;

    if (e->new_file && !e->busy && !e->pending.n)
        val_put(a, v, "head", head_of(a, e));
    val_put(a, v, "x", numbers_of(a, e));
    VAL_EACH(e->ops->changed, it)
        val_push(a, ops, op_at(e, (uint32_t)it->i));
    if (val_len(ops))
        val_put(a, v, "ops", ops);
    if (val_len(e->ops->events))
        val_put(a, v, "events", e->ops->events);
    text = json_text(a, v, &n);
    h.n = (uint32_t)n;
    h.crc = (uint32_t)crc32(0, (const Bytef *)text, (uInt)n);
    buf_add(&e->pending, &h, sizeof h);
    buf_add(&e->pending, text, n);
    buf_add(&e->pending, &h.n, sizeof h.n);
    e->ops->changed = val_list(e->ops->a);
    e->ops->events = val_list(e->ops->a);
    if (w)
        list_push(&e->pending_waiters, &w->link);
    write_next(e);
}

/* ---- going ---- */

struct removal {
    struct durable_job j;
    struct exec *e;
    char *path, *shard; /* shard: its folder is synced, too; else NULL */
    struct err err;
    void (*done)(void *arg, const struct err *err);
    void *arg;
};

static void remove_run(struct durable_job *j)
{
    struct removal *r = container_of(j, struct removal, j);

    if (unlink(r->path) < 0 && errno != ENOENT)
        err_sys(&r->err, "remove %s", r->path);
    else if (r->shard)
        (void)!fs_sync_dir(r->shard, &r->err);
}

static void remove_done(struct durable_job *j)
{
    struct removal *r = container_of(j, struct removal, j);

    if (r->err.code) /* the next life has it again */
        LOG(WARN, "function", "execution=%s did=remove error=\"%s\"", r->e->id, r->err.msg);
    r->e->holds--;
    exec_settle(r->e);
    if (r->done)
        r->done(r->arg, &r->err);
    free(r->path);
    free(r->shard);
    free(r);
}

/* Where its time is over the folder need not be synced: what a power loss brings back has its time over still. */
void exec_drop(struct exec *e, bool lasting, void (*done)(void *arg, const struct err *err), void *arg)
{
    struct removal *r = xcalloc(1, sizeof *r);

    ASSERT(!e->busy && !e->gone);
    *r = (struct removal){.e = e, .path = exec_path(e), .shard = lasting ? shard_path(e) : NULL, .done = done, .arg = arg};
    e->gone = true;
    exec_leave(e);
    e->holds++;
    durable_job(e->d, &r->j, remove_run, remove_done);
}
