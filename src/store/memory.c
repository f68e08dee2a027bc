/* The memory engine, for the simulation: a disk that takes a random time for an fsync, can be full
 * and forgets what was in flight when the machine dies - or, as real disks do, keeps part of it. */
#include "base/list.h"
#include "base/map.h"
#include "store/engine.h"

#include <stdio.h>

struct row {
    char *table;
    const struct obj *obj;
    int64_t revision;
};
struct store_disk {
    struct env *env;
    int64_t min_ms, max_ms;
    bool full;
    struct store_meta meta;
    struct map rows; /* decimal revision -> struct row */
};
struct memory {
    struct store_disk *disk;
    struct env_timer *timer;
    struct store_batch *first, **last; /* in flight */
    struct store_batch *committing;    /* up to this one: in the fsync that is under way */
    bool failed;
};

struct store_disk *store_disk_new(struct env *env, int64_t fsync_ms_min, int64_t fsync_ms_max)
{
    struct store_disk *d = xcalloc(1, sizeof *d);

    ASSERT(fsync_ms_min <= fsync_ms_max);
    d->env = env;
    d->min_ms = fsync_ms_min;
    d->max_ms = fsync_ms_max;
    return d;
}

static void row_free(struct row *r)
{
    obj_unref(r->obj);
    free(r->table);
    free(r);
}

void *store_disk_free(struct store_disk *d)
{
    const char *key;
    void *row;

    if (!d)
        return NULL;
    for (uint32_t i = 0; map_next(&d->rows, &i, &key, &row);)
        row_free(row);
    map_done(&d->rows);
    free(d);
    return NULL;
}

void store_disk_full(struct store_disk *d, bool full)
{
    d->full = full;
}

static const char *row_key(char buf[24], int64_t revision)
{
    snprintf(buf, 24, "%lld", (long long)revision);
    return buf;
}

static void apply(struct store_disk *d, const struct store_batch *b)
{
    char key[24];

    for (uint32_t i = 0; i < b->n; i++) {
        const struct store_change *c = &b->changes[i];

        if (c->replaces) {
            struct row *was = map_del(&d->rows, row_key(key, c->replaces));

            ASSERT(was);
            row_free(was);
        }
        if (c->obj) {
            struct row *r = xmalloc(sizeof *r);

            *r = (struct row){.table = xstrdup(c->table), .obj = obj_ref(c->obj), .revision = c->revision};
            ASSERT(!map_put(&d->rows, row_key(key, c->revision), r));
        }
    }
    d->meta.ceiling = b->ceiling;
}

static void start(struct memory *m)
{
    struct store_disk *d = m->disk;

    if (!m->first || m->committing)
        return;
    for (m->committing = m->first; m->committing->next;)
        m->committing = m->committing->next;
    env_timer_start(m->timer, d->min_ms + env_below(d->env, (uint32_t)(d->max_ms - d->min_ms + 1)), 0);
}

/* The fsync is over: all batches of the group have the same fate. */
static void group_done(void *arg)
{
    struct memory *m = arg;
    struct store_batch *end = m->committing, *b;
    struct err err;

    m->failed = m->failed || m->disk->full;
    err_set(&err, NO_SPACE, "no space left on the simulated disk");
    do {
        b = m->first;
        m->first = b->next;
        if (!m->first)
            m->last = &m->first;
        if (!m->failed)
            apply(m->disk, b);
        b->done(b, m->failed ? &err : NULL);
    } while (b != end);
    m->committing = NULL;
    start(m);
}

static void *memory_open(const struct store_args *args, _unused_ struct err *err)
{
    struct memory *m = xcalloc(1, sizeof *m);

    m->disk = args->disk;
    m->last = &m->first;
    m->timer = env_timer_new(args->env, group_done, m);
    return m;
}

static int by_revision(const void *x, const void *y)
{
    const struct row *a = *(struct row *const *)x, *b = *(struct row *const *)y;

    return a->revision < b->revision ? -1 : a->revision > b->revision;
}

static int memory_load(void *engine, struct store_meta *ret_meta, store_load_fn *each, void *arg,
                       _unused_ struct err *err)
{
    struct store_disk *d = ((struct memory *)engine)->disk;
    struct row **rows = xcalloc(d->rows.n + 1, sizeof *rows);
    uint32_t n = 0;
    const char *key;
    void *row;

    for (uint32_t i = 0; map_next(&d->rows, &i, &key, &row);)
        rows[n++] = row;
    qsort(rows, n, sizeof *rows, by_revision);
    for (uint32_t i = 0; i < n; i++)
        each(arg, &(struct store_row){.table = rows[i]->table, .obj = obj_ref(rows[i]->obj)});
    free(rows);
    *ret_meta = d->meta;
    return 0;
}

static int memory_init(void *engine, const struct store_meta *meta, _unused_ struct err *err)
{
    ((struct memory *)engine)->disk->meta = *meta;
    return 0;
}

static void memory_append(void *engine, struct store_batch *b)
{
    struct memory *m = engine;

    b->next = NULL;
    *m->last = b;
    m->last = &b->next;
    start(m);
}

static bool memory_recover(void *engine)
{
    ((struct memory *)engine)->failed = false;
    return true;
}

static void memory_poll(void *engine)
{
    struct memory *m = engine;

    ASSERT(m->first);
    env_timer_stop(m->timer);
    start(m);
    env_timer_stop(m->timer);
    group_done(m);
}

static void memory_close(void *engine)
{
    struct memory *m = engine;

    ASSERT(!m->first);
    env_timer_free(m->timer);
    free(m);
}

static void memory_crash(void *engine)
{
    struct memory *m = engine;

    /* a disk may have kept a prefix of what it was not yet asked to promise */
    if (!m->failed && !m->disk->full)
        for (struct store_batch *b = m->first; b && env_below(m->disk->env, 2); b = b->next)
            apply(m->disk, b);
    env_timer_free(m->timer);
    free(m);
}

const struct store_engine_ops store_memory = {
    .name = "memory",
    .open = memory_open,
    .load = memory_load,
    .init = memory_init,
    .append = memory_append,
    .recover = memory_recover,
    .poll = memory_poll,
    .close = memory_close,
    .crash = memory_crash,
};
