/* How a write travels: store_put() changes the head, appends to the history and to the open batch;
 * head watches are told. At the end of the loop's turn the batch goes to the engine. When the
 * engine says done, `durable` moves: waiters and durable watches are told. When it says failed,
 * take_back() undoes the history down to `durable`, newest first. */
#include "store/store_int.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

/* --- tables and small questions --------------------------------------------------------------- */
struct store_table *store_table(struct store *s, const char *key)
{
    struct store_table *t = map_get(&s->tables_by_key, key);

    if (t)
        return t;
    t = xcalloc(1, sizeof *t);
    t->s = s;
    t->key = xstrdup(key);
    list_init(&t->history);
    list_init(&t->watches);
    if (s->last_table)
        s->last_table->next = t;
    else
        s->tables = t;
    s->last_table = t;
    map_put(&s->tables_by_key, key, t);
    return t;
}

const char *store_table_key(const struct store_table *t)
{
    return t->key;
}

struct store_table *store_table_next(struct store *s, const struct store_table *after)
{
    return after ? after->next : s->tables;
}

const char *store_cluster_uid(const struct store *s)
{
    return s->cluster_uid;
}

int64_t store_head(const struct store *s)
{
    return s->head;
}

int64_t store_next_revision(const struct store *s)
{
    return s->head + 1;
}

int64_t store_durable(const struct store *s)
{
    return s->durable;
}

int64_t store_floor(const struct store *s)
{
    return s->floor;
}

const struct obj *store_get(_unused_ const struct store *s, const struct store_table *t,
                            const char *ns, const char *name)
{
    struct index_item *it = index_find(&t->head, ns, name);

    return it ? it->obj : NULL;
}

uint32_t store_count(_unused_ const struct store *s, const struct store_table *t, const char *ns)
{
    struct index_place first, end;

    if (!ns)
        return t->head.n;
    index_range(&t->head, ns, &first, &end);
    return index_rank(&t->head, end) - index_rank(&t->head, first);
}

struct store_stats store_stats(const struct store *s)
{
    struct store_stats st = s->stats;

    for (struct store_table *t = s->tables; t; t = t->next)
        st.objects += t->head.n;
    st.history = s->history_n;
    st.history_bytes = s->history_bytes;
    return st;
}

/* --- durability ------------------------------------------------------------------------------- */
static void waiters_tell(struct store *s, int64_t up_to, const struct err *err)
{
    for (struct list *l; (l = list_first(&s->waiters));) {
        struct waiter *w = list_entry(l, struct waiter, link);

        if (w->revision > up_to)
            break;
        list_remove(l);
        w->fn(w->arg, err);
        free(w);
    }
}

static void batch_free(struct store_batch *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        obj_unref(b->changes[i].obj);
        pack_unref(b->changes[i].dict);
    }
    free(b->changes);
    free(b);
}

/* What is durable now: everything before the first write that still waits. */
static void durable_move(struct store *s)
{
    int64_t d = s->head;
    struct store_batch *first = NULL;

    LIST_EACH(&s->in_flight, l) {
        struct store_batch *b = list_entry(l, struct store_batch, link);

        if (b->n) {
            first = b;
            break;
        }
    }
    if (!first && s->open && s->open->n)
        first = s->open;
    if (first)
        d = first->changes[0].revision - 1;
    d = MIN(d, s->ceiling_durable);
    if (d <= s->durable)
        return;
    s->durable = d;
    waiters_tell(s, s->durable, NULL);
    watch_pump_durable(s);
}

void store_when_durable(struct store *s, int64_t revision, store_durable_fn *fn, void *arg)
{
    struct waiter *w;
    struct list *before = &s->waiters;

    revision = MIN(revision, s->head);
    if (revision <= s->durable) {
        fn(arg, NULL);
        return;
    }
    w = xmalloc(sizeof *w);
    *w = (struct waiter){.revision = revision, .fn = fn, .arg = arg};
    while (before->prev != &s->waiters &&
           list_entry(before->prev, struct waiter, link)->revision > revision)
        before = before->prev;
    list_insert(before, &w->link);
}

/* --- when the disk fails ---------------------------------------------------------------------- */
/* Puts one change of the head back to what was before. */
static void undo(struct hist *h)
{
    struct store_table *t = h->t;
    const struct obj *key = h->obj;
    struct index_place p;
    bool there = index_seek(&t->head, key->namespace_, key->name, &p);

    ASSERT(there == (h->type != STORE_DELETED));
    if (h->type == STORE_ADDED) {
        index_remove(&t->head, p);
    } else if (h->type == STORE_MODIFIED) {
        struct index_item *it = index_at(&t->head, &p);

        index_replace(it, h->prev);
        it->disk = h->disk_before;
    } else {
        index_insert(&t->head, p, h->prev)->disk = h->disk_before;
    }
}

static void hist_free(struct store *s, struct hist *h)
{
    s->history_n--;
    s->history_bytes -= (h->prev ? obj_bytes(h->prev) : 0) + sizeof *h;
    list_remove(&h->all);
    list_remove(&h->in_table);
    obj_unref(h->obj);
    obj_unref(h->prev);
    free(h);
}

static void take_back(struct store *s, const struct err *err)
{
    struct hist **undone;
    uint32_t n = 0;

    ASSERT(!s->hold); /* failures come by a post */
    s->failed = true;
    s->stats.rollbacks++;
    s->why = *err;
    LOG(ERROR, "store", "did=take-back writes=%" PRId64 " why=\"%s\"", s->head - s->durable, err->msg);
    if (s->open) {
        batch_free(s->open);
        s->open = NULL;
        env_timer_stop(s->flush);
    }
    LIST_EACH(&s->in_flight, l) {
        list_remove(l); /* nobody waits for it any more */
        list_push(&s->dead, l);
    }
    s->ceiling_queued = s->ceiling_durable;
    packing_taken_back(s);

    for (struct list *l = s->history.prev; l != &s->history && hist_of(l)->revision > s->durable; l = l->prev)
        n++;
    undone = xcalloc(n + 1, sizeof *undone);
    n = 0;
    for (struct list *l = s->history.prev; l != &s->history && hist_of(l)->revision > s->durable; l = l->prev) {
        undone[n++] = hist_of(l);
        undo(hist_of(l));
    }
    /* The head is again what is durable, under a revision of its own, so that none is used twice.
     * Where the ceiling forbids that (the disk failed right after the start) it falls back instead:
     * what lies above `durable` was never told outside. */
    s->head = s->head < s->ceiling_durable ? s->head + 1 : s->durable;
    s->next_head = s->next_durable = NULL;
    watch_take_back(s, undone, n);
    for (uint32_t i = 0; i < n; i++)
        hist_free(s, undone[i]);
    free(undone);
    waiters_tell(s, INT64_MAX, err);
    s->durable = s->head;
    watch_pump_durable(s); /* nothing to tell; moves the cursors */
    s->refuse_until_ms = env_mono_us(s->env) / 1000 + REFUSE_MS;
}

/* All batches that were taken back have come home: the engine may start afresh. */
static void recover(struct store *s)
{
    if (!s->failed || !list_empty(&s->dead) || s->broken)
        return;
    if (!s->ops->recover(s->engine)) {
        s->broken = true;
        LOG(ERROR, "store", "did=stop-writes why=\"%s\" hint=\"restart the server when the disk works again\"",
            s->why.msg);
    }
    s->failed = false;
}

bool store_failing(const struct store *s, struct err *ret_why)
{
    if (!s->broken && !s->failed &&
        env_mono_us(s->env) / 1000 >= s->refuse_until_ms)
        return false;
    *ret_why = s->why;
    return true;
}

/* --- batches ---------------------------------------------------------------------------------- */
static void batch_done(struct store_batch *b, const struct err *err);

static struct store_batch *batch_open(struct store *s)
{
    if (!s->open) {
        s->open = xcalloc(1, sizeof *s->open);
        s->open->done = batch_done;
        s->open->store = s;
        if (!s->closing)
            env_timer_start(s->flush, 0, 0);
    }
    return s->open;
}

struct store_change *batch_change(struct store *s)
{
    struct store_batch *b = batch_open(s);

    if (b->n == b->cap)
        b->changes = xrealloc(b->changes, (b->cap = b->cap ? 2 * b->cap : 4) * sizeof *b->changes);
    b->changes[b->n] = (struct store_change){0};
    return &b->changes[b->n++];
}

static void flush(void *arg)
{
    struct store *s = arg;
    struct store_batch *b = STEAL(s->open);

    if (!b)
        return;
    if (s->head + CEILING_LEFT > s->ceiling_queued)
        s->ceiling_queued = s->head + CEILING_STEP;
    b->ceiling = s->ceiling_queued;
    b->sent_us = env_mono_us(s->env);
    list_push(&s->in_flight, &b->link);
    s->ops->append(s->engine, b);
}

static void batch_done(struct store_batch *b, const struct err *err)
{
    struct store *s = b->store;

    list_remove(&b->link);
    if (s->failed) {
        ASSERT(err); /* it was behind one that failed */
    } else if (err) {
        take_back(s, err);
    } else {
        s->stats.batches++;
        s->stats.commit_us += (uint64_t)(env_mono_us(s->env) - b->sent_us);
        s->ceiling_durable = MAX(s->ceiling_durable, b->ceiling);
        durable_move(s);
    }
    batch_free(b);
    recover(s);
}

/* --- writing ---------------------------------------------------------------------------------- */
static int may_write(const struct store *s, struct err *err)
{
    if (!store_failing(s, err))
        return 0;
    return err_wrap(err, "the store does not take writes now");
}

static int check_revision(const struct store_table *t, const struct index_item *it, const char *ns,
                          const char *name, int64_t expect, struct err *err)
{
    const char *slash = *ns ? "/" : "";

    if (it && expect == STORE_ABSENT)
        return err_set(err, ALREADY_EXISTS, "%s \"%s%s%s\" already exists", t->key, ns, slash, name);
    if (!it && expect > 0)
        return err_set(err, NOT_FOUND, "%s \"%s%s%s\" not found", t->key, ns, slash, name);
    if (it && expect > 0 && it->obj->revision != expect)
        return err_set(err, CONFLICT, "%s \"%s%s%s\" is at revision %" PRId64 ", not %" PRId64, t->key,
                       ns, slash, name, it->obj->revision, expect);
    return 0;
}

/* Into history and batch; then the head watches hear of it. obj: what is there now or, for a
 * delete, its last state. Takes the reference prev. */
static void committed(struct store *s, struct store_table *t, enum store_event_type type,
                      const struct obj *obj, const struct obj *prev, int64_t disk_before,
                      bool to_disk)
{
    struct hist *h = xcalloc(1, sizeof *h);

    if (s->packs && to_disk)
        packing_put(t, obj);
    s->head = obj->revision;
    h->t = t;
    h->type = type;
    h->obj = obj_ref(obj);
    h->prev = prev;
    h->revision = s->head;
    h->disk_before = disk_before;
    h->at_ms = env_mono_us(s->env) / 1000;
    list_push(&s->history, &h->all);
    list_push(&t->history, &h->in_table);
    s->history_n++;
    s->history_bytes += (prev ? obj_bytes(prev) : 0) + sizeof *h;
    if (!s->next_head)
        s->next_head = h;
    if (!s->next_durable)
        s->next_durable = h;

    if (to_disk) {
        *batch_change(s) = (struct store_change){.revision = s->head,
                                                 .replaces = disk_before,
                                                 .table = t->key,
                                                 .obj = type == STORE_DELETED ? NULL : obj_ref(obj)};
        s->stats.writes++;
    } else {
        s->stats.volatile_writes++;
        if (s->head + CEILING_LEFT > s->ceiling_queued)
            batch_open(s); /* only moves the ceiling */
    }
    history_trim(s);
    watch_pump_head(s);
    if (!to_disk)
        durable_move(s);
}

int store_put(struct store *s, struct store_table *t, const struct obj *o, int64_t expect_revision,
              unsigned flags, struct err *err)
{
    struct index_place p;
    bool there = index_seek(&t->head, o->namespace_, o->name, &p);
    struct index_item *it = there ? index_at(&t->head, &p) : NULL;
    const struct obj *prev = NULL;
    int64_t disk_before = it ? it->disk : 0;
    bool to_disk = !(flags & STORE_VOLATILE);

    if (may_write(s, err) < 0 ||
        check_revision(t, it, o->namespace_, o->name, expect_revision, err) < 0)
        return -1;
    ASSERT(o->revision == s->head + 1 && *o->name);
    if (it) {
        prev = obj_ref(it->obj);
        index_replace(it, o);
    } else {
        it = index_insert(&t->head, p, o);
    }
    if (to_disk)
        it->disk = o->revision;
    committed(s, t, prev ? STORE_MODIFIED : STORE_ADDED, o, prev, disk_before, to_disk);
    return 0;
}

int store_delete(struct store *s, struct store_table *t, const char *ns, const char *name,
                 int64_t expect_revision, const struct obj *last, struct err *err)
{
    struct index_place p;
    bool there = index_seek(&t->head, ns, name, &p);
    struct index_item *it = there ? index_at(&t->head, &p) : NULL;
    const struct obj *prev;
    int64_t disk_before;

    ASSERT(expect_revision != STORE_ABSENT);
    if (may_write(s, err) < 0)
        return -1;
    if (!it)
        return err_set(err, NOT_FOUND, "%s \"%s%s%s\" not found", t->key, ns, *ns ? "/" : "", name);
    if (check_revision(t, it, ns, name, expect_revision, err) < 0)
        return -1;
    ASSERT(last->revision == s->head + 1 && streq(last->name, name) && streq(last->namespace_, ns));
    prev = obj_ref(it->obj);
    disk_before = it->disk;
    index_remove(&t->head, p);
    committed(s, t, STORE_DELETED, last, prev, disk_before, disk_before != 0);
    return 0;
}

/* --- history ---------------------------------------------------------------------------------- */
static bool trim_one(struct store *s)
{
    struct list *l = list_first(&s->history);
    struct hist *h;

    if (!l || s->hold)
        return false;
    h = hist_of(l);
    if (h == s->next_head || h == s->next_durable || h->revision > s->durable)
        return false; /* somebody must still be told, or it may have to be taken back */
    s->floor = h->revision;
    hist_free(s, h);
    return true;
}

void history_trim(struct store *s)
{
    int64_t old_ms = env_mono_us(s->env) / 1000 - s->history_age_ms;

    while (s->history_n && (s->history_n > s->history_max || s->history_bytes > s->history_bytes_max ||
                            hist_of(s->history.next)->at_ms < old_ms))
        if (!trim_one(s))
            break;
}

void store_compact(struct store *s, int64_t revision)
{
    while (s->history_n && hist_of(s->history.next)->revision <= revision)
        if (!trim_one(s))
            return;
    revision = MIN(revision, s->durable);
    s->floor = MAX(s->floor, revision);
}

/* --- life ------------------------------------------------------------------------------------- */
static void load_one(void *arg, const struct store_row *row)
{
    struct store *s = arg;
    struct store_table *t = s->last_table && streq(s->last_table->key, row->table)
                                ? s->last_table
                                : store_table(s, row->table);
    struct obj *o = row->obj;
    struct index_place p;
    struct index_item *it;

    if (row->dict) {
        packing_load(t, row->dict);
        return;
    }
    /* One row for each object: the engine deletes the old one in the same commit. Should two be
     * there all the same, the newer one counts (rows come in the order of revisions). */
    if (index_seek(&t->head, o->namespace_, o->name, &p)) {
        it = index_at(&t->head, &p);
        index_replace(it, o);
    } else {
        it = index_insert(&t->head, p, o);
    }
    it->disk = o->revision;
    s->head = MAX(s->head, o->revision);
    obj_unref(o);
}

static void trim(_unused_ void *arg)
{
    obj_cache_trim();
}

static void trim_soon(void *arg)
{
    env_timer_start(((struct store *)arg)->trim, 0, 0);
}

static void store_drop(struct store *s)
{
    LIST_EACH(&s->history, l)
        hist_free(s, hist_of(l));
    LIST_EACH(&s->waiters, l)
        free(list_entry(l, struct waiter, link));
    while (s->tables) {
        struct store_table *t = s->tables;

        s->tables = t->next;
        index_done(&t->head);
        packing_done(t);
        free(t->key);
        free(t);
    }
    map_done(&s->tables_by_key);
    if (s->open)
        batch_free(s->open);
    env_timer_free(s->flush);
    env_timer_free(s->catch_up);
    if (s->cache_mine)
        obj_cache_limit(SIZE_MAX, NULL, NULL);
    env_timer_free(s->trim);
    free(s);
}

struct store *store_open(const struct store_args *args, struct err *err)
{
    struct store *s = xcalloc(1, sizeof *s);
    struct store_meta meta = {0};

    s->env = args->env;
    s->ops = args->engine;
    s->history_max = args->history_max ? args->history_max : HISTORY_MAX;
    s->history_bytes_max = args->history_bytes_max ? args->history_bytes_max : HISTORY_BYTES_MAX;
    s->history_age_ms = args->history_age_ms ? args->history_age_ms : HISTORY_AGE_MS;
    list_init(&s->history);
    list_init(&s->in_flight);
    list_init(&s->dead);
    list_init(&s->waiters);
    list_init(&s->watches_all);
    list_init(&s->lagging);
    s->flush = env_timer_new(s->env, flush, s);
    s->catch_up = env_timer_new(s->env, watch_catch_up, s);
    s->trim = env_timer_new(s->env, trim, s);
    s->packs = s->ops->packs;
    if (args->cache_bytes) {
        s->cache_mine = true;
        obj_cache_limit(args->cache_bytes, trim_soon, s);
    }
    s->engine = s->ops->open(args, err);
    if (!s->engine || s->ops->load(s->engine, &meta, load_one, s, err) < 0)
        goto fail;
    if (!*meta.cluster_uid) {
        env_uuid(s->env, meta.cluster_uid);
        meta.ceiling = CEILING_STEP;
        if (s->ops->init(s->engine, &meta, err) < 0)
            goto fail;
    } else {
        s->head = MAX(s->head, meta.ceiling);
    }
    memcpy(s->cluster_uid, meta.cluster_uid, sizeof s->cluster_uid);
    s->ceiling_queued = s->ceiling_durable = meta.ceiling;
    s->durable = s->floor = s->head;
    if (s->head + CEILING_LEFT > s->ceiling_queued)
        batch_open(s); /* moves the ceiling, soon */
    return s;
fail:
    if (s->engine)
        s->ops->close(s->engine);
    store_drop(s);
    return NULL;
}

static void no_watches(const struct store *s)
{
    for (struct store_table *t = s->tables; t; t = t->next)
        ASSERT(list_empty(&t->watches));
    ASSERT(list_empty(&s->watches_all) && !s->hold);
}

void *store_close(struct store *s)
{
    if (!s)
        return NULL;
    no_watches(s);
    s->closing = true;
    flush(s);
    while (!list_empty(&s->in_flight) || !list_empty(&s->dead))
        s->ops->poll(s->engine);
    if (!s->broken && s->ceiling_durable != s->head) { /* the last word: no gap in the revisions */
        batch_open(s)->ceiling = s->head;
        list_push(&s->in_flight, &s->open->link);
        s->ops->append(s->engine, STEAL(s->open));
        while (!list_empty(&s->in_flight) || !list_empty(&s->dead))
            s->ops->poll(s->engine);
    }
    s->ops->close(s->engine);
    store_drop(s);
    return NULL;
}

void *store_crash(struct store *s)
{
    ASSERT(s->ops->crash);
    no_watches(s);
    s->ops->crash(s->engine);
    LIST_EACH(&s->in_flight, l)
        batch_free(list_entry(l, struct store_batch, link));
    LIST_EACH(&s->dead, l)
        batch_free(list_entry(l, struct store_batch, link));
    store_drop(s);
    return NULL;
}
