/* The sqlite engine: one database file, WAL, synchronous=FULL, and a committer thread.
 *
 * Tables
 *   meta(key, value)      format, cluster_uid, ceiling
 *   tbl(id, key)          the tables by number
 *   dict(id, tbl, body)   dictionaries that objects are packed with (codec/pack.h)
 *   object(revision, tbl, ns, name, uid, body)
 *                         one row for each live object. Its key is the revision of its last write:
 *                         rows are appended at the right edge of one B-tree and no index is kept;
 *                         the store tells which row a write replaces. The body is JSON or, packed,
 *                         'Z', the dictionary's number and the text's length (4 bytes each, low
 *                         byte first), and what pack_write() made.
 * The committer takes all batches that wait into one transaction, so that they share one fsync; it
 * is the only one who touches the database after the load. Checkpoints run there as well, after
 * the answer, when the WAL has grown; they are never in the way of a lone write.
 *
 * Errors. A transaction that fails is rolled back and all batches that wait fail with it. A full
 * disk is over when it is over; any other I/O error leaves it unknown what the kernel kept of the
 * file (a second fsync would say "fine"), so then the engine stays broken until a new process
 * reads the WAL again. */
#include "base/log.h"
#include "base/map.h"
#include "env/clock.h"
#include "store/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    FORMAT = 2,        /* 1 had no packed bodies and no dict; it is read and becomes 2 */
    PACKED_HEAD = 9,
    WAL_PAGES_MAX = 2000,        /* 8 MiB: then a checkpoint */
    WAL_ZEROED_BYTES = 4 << 20,  /* see wal_prepare() */
    IDLE_MS = 20,
};

enum stmt { BEGIN, COMMIT, ROLLBACK, INSERT, DELETE, CEILING, ADD_TABLE, ADD_DICT, STMTS };
static const char *const sql[STMTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [INSERT] = "INSERT INTO object(revision,tbl,ns,name,uid,body) VALUES(?,?,?,?,?,?)",
    [DELETE] = "DELETE FROM object WHERE revision=?",
    [CEILING] = "UPDATE meta SET value=? WHERE key='ceiling'",
    [ADD_TABLE] = "INSERT INTO tbl(id,key) VALUES(?,?)",
    [ADD_DICT] = "INSERT INTO dict(id,tbl,body) VALUES(?,?,?)",
};

struct engine {
    sqlite3 *db;
    sqlite3_stmt *stmt[STMTS];
    char *path;
    /* of the committer */
    struct map tables; /* key -> id as a pointer */
    int64_t tables_n, ceiling;
    struct buf body; /* the row that is being written */
    int wal_pages;
    bool zeroed;

    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t work, answered;
    struct store_batch *first, **last; /* wait for the committer */
    uint64_t done;                     /* batches answered */
    bool stop, failed, broken;

    struct mbox *answers;
    uint64_t polled; /* the store's thread: of done, how many it has seen */
};

static int sql_err(struct engine *e, const char *doing, struct err *err)
{
    int rc = sqlite3_errcode(e->db), sys = sqlite3_system_errno(e->db);

    if (rc == SQLITE_FULL || sys == ENOSPC || sys == EDQUOT)
        return err_set(err, NO_SPACE, "%s %s: no space left on the disk", doing, e->path);
    if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
        return err_set(err, UNAVAILABLE, "%s %s: in use by another process", doing, e->path);
    return err_set(err, IO, "%s %s: %s%s%s", doing, e->path, sqlite3_errmsg(e->db), sys ? ": " : "",
                   sys ? strerror(sys) : "");
}

static int exec(struct engine *e, const char *text, struct err *err)
{
    if (sqlite3_exec(e->db, text, NULL, NULL, NULL) != SQLITE_OK)
        return sql_err(e, "open", err);
    return 0;
}

static int step(struct engine *e, enum stmt which)
{
    int rc = sqlite3_step(e->stmt[which]);

    sqlite3_reset(e->stmt[which]);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : -1;
}

/* --- commits (the committer's thread) --------------------------------------------------------- */
static int table_id(struct engine *e, const char *key, int64_t *ret)
{
    void *known = map_get(&e->tables, key);

    if (known) {
        *ret = (int64_t)(intptr_t)known;
        return 0;
    }
    sqlite3_bind_int64(e->stmt[ADD_TABLE], 1, e->tables_n + 1);
    sqlite3_bind_text(e->stmt[ADD_TABLE], 2, key, -1, SQLITE_STATIC);
    if (step(e, ADD_TABLE) < 0)
        return -1;
    *ret = ++e->tables_n;
    map_put(&e->tables, key, (void *)(intptr_t)*ret);
    return 0;
}

static void put32(char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> 8 * i);
}

static uint32_t get32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int write_dict(struct engine *e, const struct store_change *c)
{
    sqlite3_stmt *q = e->stmt[ADD_DICT];
    const void *body;
    int64_t table;
    size_t n;

    if (table_id(e, c->table, &table) < 0)
        return -1;
    body = pack_content(c->dict, &n);
    sqlite3_bind_int64(q, 1, pack_id(c->dict));
    sqlite3_bind_int64(q, 2, table);
    sqlite3_bind_blob(q, 3, body, (int)n, SQLITE_STATIC);
    return step(e, ADD_DICT);
}

static void bind_body(struct engine *e, sqlite3_stmt *q, int column, const struct obj *o)
{
    if (!o->packed) {
        sqlite3_bind_blob(q, column, o->text, (int)o->text_n, SQLITE_STATIC);
        return;
    }
    buf_reset(&e->body);
    buf_reserve(&e->body, PACKED_HEAD + o->packed_n);
    e->body.p[0] = 'Z';
    put32(e->body.p + 1, (uint32_t)pack_id(o->pack));
    put32(e->body.p + 5, o->text_n);
    e->body.n = PACKED_HEAD;
    buf_add(&e->body, o->packed, o->packed_n);
    sqlite3_bind_blob(q, column, e->body.p, (int)e->body.n, SQLITE_STATIC);
}

static int write_change(struct engine *e, const struct store_change *c)
{
    sqlite3_stmt *ins = e->stmt[INSERT];
    int64_t table;

    if (c->dict)
        return write_dict(e, c);

    if (c->replaces) {
        sqlite3_bind_int64(e->stmt[DELETE], 1, c->replaces);
        if (step(e, DELETE) < 0)
            return -1;
        ASSERT(sqlite3_changes(e->db) == 1); /* else a deleted object would come back one day */
    }
    if (!c->obj)
        return 0;
    if (table_id(e, c->table, &table) < 0)
        return -1;
    sqlite3_bind_int64(ins, 1, c->revision);
    sqlite3_bind_int64(ins, 2, table);
    sqlite3_bind_text(ins, 3, c->obj->namespace_, -1, SQLITE_STATIC);
    sqlite3_bind_text(ins, 4, c->obj->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(ins, 5, c->obj->uid, -1, SQLITE_STATIC);
    bind_body(e, ins, 6, c->obj);
    return step(e, INSERT);
}

static int write_all(struct engine *e, const struct store_batch *batches)
{
    int64_t ceiling = e->ceiling;

    if (step(e, BEGIN) < 0)
        return -1;
    for (const struct store_batch *b = batches; b; b = b->next) {
        for (uint32_t i = 0; i < b->n; i++)
            if (write_change(e, &b->changes[i]) < 0)
                return -1;
        ceiling = b->ceiling;
    }
    if (ceiling != e->ceiling) {
        sqlite3_bind_int64(e->stmt[CEILING], 1, ceiling);
        if (step(e, CEILING) < 0)
            return -1;
    }
    if (step(e, COMMIT) < 0)
        return -1;
    e->ceiling = ceiling;
    return 0;
}

static void forget_tables(struct engine *e)
{
    /* ids given out in the transaction that failed are not on disk: read them again */
    sqlite3_stmt *q = NULL;

    map_done(&e->tables);
    e->tables = (struct map){0};
    e->tables_n = 0;
    if (sqlite3_prepare_v2(e->db, "SELECT id,key FROM tbl", -1, &q, NULL) == SQLITE_OK)
        while (sqlite3_step(q) == SQLITE_ROW) {
            e->tables_n = MAX(e->tables_n, sqlite3_column_int64(q, 0));
            map_put(&e->tables, (const char *)sqlite3_column_text(q, 1),
                    (void *)(intptr_t)sqlite3_column_int64(q, 0));
        }
    sqlite3_finalize(q);
}

/* One transaction for all; their common fate in *err, 0 or -1. */
static int commit(struct engine *e, const struct store_batch *batches, struct err *err)
{
    if (write_all(e, batches) == 0)
        return 0;
    sql_err(e, "write", err);
    if (!sqlite3_get_autocommit(e->db))
        step(e, ROLLBACK);
    forget_tables(e);
    return -1;
}

/* A write into a file's new blocks makes fdatasync commit the file system's journal too (about
 * twice the time). So the WAL is filled with zeros ahead of its end, a piece at a time while nobody
 * writes; SQLite takes zeros for "nothing here", and reuses the file after each checkpoint. */
static void wal_prepare(struct engine *e)
{
    static const char zeros[1 << 16];
    _auto_(freep) char *wal = xasprintf("%s-wal", e->path);
    _auto_(closep) int fd = open(wal, O_WRONLY | O_CLOEXEC);
    struct stat st;

    e->zeroed = true; /* unless there is more to do; a failure is only a matter of speed */
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size >= WAL_ZEROED_BYTES)
        return;
    if (pwrite(fd, zeros, sizeof zeros, st.st_size) == sizeof zeros)
        e->zeroed = fdatasync(fd) < 0;
}

static int on_wal(void *arg, _unused_ sqlite3 *db, _unused_ const char *name, int pages)
{
    ((struct engine *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

static void answer(struct engine *e, struct store_batch *batches, const struct err *err)
{
    uint64_t n = 0;

    for (struct store_batch *b = batches, *next; b; b = next, n++) {
        next = b->next; /* from mbox_send on, b is the store's */
        if (err) {
            b->failed = xmalloc(sizeof *b->failed);
            *b->failed = *err;
        }
        mbox_send(e->answers, &b->msg);
    }
    pthread_mutex_lock(&e->lock);
    e->done += n;
    pthread_cond_signal(&e->answered);
    pthread_mutex_unlock(&e->lock);
}

/* Waits for batches; does meanwhile what can wait until nobody writes. */
static struct store_batch *next_batches(struct engine *e)
{
    struct store_batch *batches;
    struct timespec idle;

    pthread_mutex_lock(&e->lock);
    while (!e->first && !e->stop) {
        if (e->zeroed) {
            pthread_cond_wait(&e->work, &e->lock);
            continue;
        }
        clock_gettime(CLOCK_REALTIME, &idle);
        idle.tv_nsec += IDLE_MS * 1000000;
        idle.tv_sec += idle.tv_nsec / 1000000000;
        idle.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&e->work, &e->lock, &idle) == ETIMEDOUT && !e->first && !e->stop) {
            pthread_mutex_unlock(&e->lock);
            wal_prepare(e);
            pthread_mutex_lock(&e->lock);
        }
    }
    batches = e->first;
    e->first = NULL;
    e->last = &e->first;
    pthread_mutex_unlock(&e->lock);
    return batches;
}

static void *committer(void *arg)
{
    struct engine *e = arg;

    pthread_setname_np(pthread_self(), "store-commit");
    for (;;) {
        struct store_batch *batches = next_batches(e);
        struct err err;
        bool failed;

        pthread_mutex_lock(&e->lock);
        failed = e->failed;
        pthread_mutex_unlock(&e->lock);
        if (!batches)
            return NULL;
        if (failed) { /* built on a transaction that failed; the store does not know yet */
            err_set(&err, UNAVAILABLE, "an earlier write failed");
            answer(e, batches, &err);
            continue;
        }
        if (commit(e, batches, &err) < 0) {
            pthread_mutex_lock(&e->lock);
            e->failed = true;
            e->broken = err.code != ERR_NO_SPACE;
            pthread_mutex_unlock(&e->lock);
            answer(e, batches, &err);
        } else {
            answer(e, batches, NULL);
            if (e->wal_pages > WAL_PAGES_MAX) { /* after the answer, so that a lone write does not wait */
                sqlite3_wal_checkpoint_v2(e->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
                e->wal_pages = 0;
            }
        }
    }
}

/* --- the store's thread ----------------------------------------------------------------------- */
static void on_answer(void *arg, struct mbox_msg *msg)
{
    struct engine *e = arg;
    struct store_batch *b = container_of(msg, struct store_batch, msg);
    _auto_(freep) struct err *err = b->failed;

    e->polled++;
    b->done(b, err);
}

static void engine_append(void *engine, struct store_batch *b)
{
    struct engine *e = engine;

    b->next = NULL;
    pthread_mutex_lock(&e->lock);
    *e->last = b;
    e->last = &b->next;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

static bool engine_recover(void *engine)
{
    struct engine *e = engine;
    bool ok;

    pthread_mutex_lock(&e->lock);
    ok = !e->broken;
    if (ok)
        e->failed = false;
    pthread_mutex_unlock(&e->lock);
    return ok;
}

static void engine_poll(void *engine)
{
    struct engine *e = engine;

    pthread_mutex_lock(&e->lock);
    while (e->done <= e->polled)
        pthread_cond_wait(&e->answered, &e->lock);
    pthread_mutex_unlock(&e->lock);
    mbox_drain(e->answers);
}

static void engine_close(void *engine)
{
    struct engine *e = engine;

    if (e->running) {
        pthread_mutex_lock(&e->lock);
        e->stop = true;
        pthread_cond_signal(&e->work);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
    }
    mbox_free(e->answers);
    for (int i = 0; i < STMTS; i++)
        sqlite3_finalize(e->stmt[i]);
    sqlite3_close(e->db);
    map_done(&e->tables);
    buf_done(&e->body);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->answered);
    free(e->path);
    free(e);
}

/* --- start ------------------------------------------------------------------------------------ */
static int check_format(struct engine *e, struct err *err)
{
    sqlite3_stmt *q = NULL;
    int64_t format = 0;

    if (sqlite3_prepare_v2(e->db, "SELECT value FROM meta WHERE key='format'", -1, &q, NULL) != SQLITE_OK)
        return sql_err(e, "open", err);
    if (sqlite3_step(q) == SQLITE_ROW)
        format = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    if (format == 1)
        return exec(e, "UPDATE meta SET value=2 WHERE key='format'", err);
    if (format != FORMAT)
        return err_set(err, INVALID_ARGUMENT, "%s has format %lld, this program reads %d", e->path,
                       (long long)format, FORMAT);
    return 0;
}

static int db_open(struct engine *e, struct err *err)
{
    int on = 1;

    if (sqlite3_open_v2(e->path, &e->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return sql_err(e, "open", err);
    sqlite3_busy_timeout(e->db, 3000); /* the process before us may still be dying */
    sqlite3_file_control(e->db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
    /* exclusive: two servers on one state are refused, and no shared memory file is needed */
    if (exec(e,
             "PRAGMA locking_mode=EXCLUSIVE;"
             "PRAGMA journal_mode=WAL;"
             "PRAGMA synchronous=FULL;"
             "PRAGMA wal_autocheckpoint=0;"
             "PRAGMA cache_size=-1024;"
             "PRAGMA temp_store=MEMORY;"
             "BEGIN IMMEDIATE;"
             "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
             "CREATE TABLE IF NOT EXISTS tbl(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);"
             "CREATE TABLE IF NOT EXISTS dict(id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, body BLOB NOT NULL);"
             "CREATE TABLE IF NOT EXISTS object(revision INTEGER PRIMARY KEY, tbl INTEGER NOT NULL,"
             " ns TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, body BLOB NOT NULL);"
             "INSERT OR IGNORE INTO meta VALUES('format',2),('ceiling',0),('cluster_uid','');"
             "COMMIT",
             err) < 0)
        return -1;
    sqlite3_wal_hook(e->db, on_wal, e);
    for (int i = 0; i < STMTS; i++)
        if (sqlite3_prepare_v3(e->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &e->stmt[i], NULL) != SQLITE_OK)
            return sql_err(e, "open", err);
    return check_format(e, err);
}

static void *engine_open(const struct store_args *args, struct err *err)
{
    struct engine *e = xcalloc(1, sizeof *e);

    ASSERT(env_loop(args->env)); /* a thread of its own is nothing for a simulation */
    e->path = xstrdup(args->path);
    e->last = &e->first;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->answered, NULL);
    e->answers = mbox_new(env_loop(args->env), on_answer, e);
    if (db_open(e, err) < 0) {
        engine_close(e);
        return NULL;
    }
    if (pthread_create(&e->thread, NULL, committer, e) != 0) {
        err_set(err, UNAVAILABLE, "no thread for the store's commits");
        engine_close(e);
        return NULL;
    }
    e->running = true;
    return e;
}

static const char *text(sqlite3_stmt *q, int column)
{
    const char *s = (const char *)sqlite3_column_text(q, column);

    return s ? s : "";
}

struct loading {
    struct engine *e;
    char **keys;        /* tables by number */
    struct pack **dict; /* by number */
    int64_t dict_n;     /* numbers below */
    store_load_fn *each;
    void *arg;
};

/* Runs one query; row() gives SQLITE_OK to go on. */
static int each_row(struct loading *l, const char *query, int (*row)(struct loading *l, sqlite3_stmt *q))
{
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(l->e->db, query, -1, &q, NULL);

    while (rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW)
        rc = row(l, q);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static const char *table_key(const struct loading *l, int64_t id)
{
    return id < 1 || id > l->e->tables_n ? NULL : l->keys[id];
}

static int load_dict(struct loading *l, sqlite3_stmt *q)
{
    struct store_row row = {.table = table_key(l, sqlite3_column_int64(q, 1))};
    int64_t id = sqlite3_column_int64(q, 0);

    if (!row.table || id < l->dict_n || id > UINT32_MAX)
        return SQLITE_CORRUPT;
    l->dict = xrealloc(l->dict, (size_t)(id + 1) * sizeof *l->dict);
    while (l->dict_n <= id)
        l->dict[l->dict_n++] = NULL;
    row.dict = pack_new(id, sqlite3_column_blob(q, 2), (size_t)sqlite3_column_bytes(q, 2));
    l->dict[id] = pack_ref(row.dict);
    l->each(l->arg, &row);
    return SQLITE_OK;
}

static int load_object(struct loading *l, sqlite3_stmt *q)
{
    struct store_row row = {.table = table_key(l, sqlite3_column_int64(q, 1))};
    int64_t revision = sqlite3_column_int64(q, 0);
    const unsigned char *body = sqlite3_column_blob(q, 5);
    size_t n = (size_t)sqlite3_column_bytes(q, 5);
    uint32_t id;

    if (!row.table || !n)
        return SQLITE_CORRUPT;
    if (*body != 'Z') {
        row.obj = obj_restore((const char *)body, n, revision, text(q, 2), text(q, 3), text(q, 4));
    } else {
        if (n < PACKED_HEAD)
            return SQLITE_CORRUPT;
        id = get32(body + 1);
        if (id && (id >= l->dict_n || !l->dict[id]))
            return SQLITE_CORRUPT;
        row.obj = obj_restore_packed(id ? l->dict[id] : NULL, body + PACKED_HEAD, n - PACKED_HEAD,
                                     get32(body + 5), revision, text(q, 2), text(q, 3), text(q, 4));
    }
    l->each(l->arg, &row);
    return SQLITE_OK;
}

static int engine_load(void *engine, struct store_meta *ret, store_load_fn *each, void *arg,
                       struct err *err)
{
    struct engine *e = engine;
    struct loading l = {.e = e, .each = each, .arg = arg};
    sqlite3_stmt *q = NULL;
    int rc;

    if (sqlite3_prepare_v2(e->db, "SELECT (SELECT value FROM meta WHERE key='cluster_uid'),"
                           "(SELECT value FROM meta WHERE key='ceiling')", -1, &q, NULL) != SQLITE_OK)
        return sql_err(e, "read", err);
    if (sqlite3_step(q) == SQLITE_ROW) {
        snprintf(ret->cluster_uid, sizeof ret->cluster_uid, "%s", text(q, 0));
        ret->ceiling = e->ceiling = sqlite3_column_int64(q, 1);
    }
    sqlite3_finalize(q);
    forget_tables(e);
    l.keys = xcalloc((size_t)e->tables_n + 1, sizeof *l.keys);
    for (uint32_t i = 0; i < e->tables.cap; i++)
        if (e->tables.slots[i].value)
            l.keys[(intptr_t)e->tables.slots[i].value] = e->tables.slots[i].key;
    sqlite3_exec(e->db, "PRAGMA mmap_size=1073741824", NULL, NULL, NULL); /* one copy less; only now */
    rc = each_row(&l, "SELECT id,tbl,body FROM dict ORDER BY id", load_dict);
    if (rc == SQLITE_OK)
        rc = each_row(&l, "SELECT revision,tbl,ns,name,uid,body FROM object ORDER BY revision", load_object);
    if (rc != SQLITE_OK)
        err_set(err, IO, "read %s: %s", e->path, sqlite3_errstr(rc));
    sqlite3_exec(e->db, "PRAGMA mmap_size=0", NULL, NULL, NULL);
    for (int64_t i = 0; i < l.dict_n; i++)
        pack_unref(l.dict[i]);
    free(l.dict);
    free(l.keys);
    return rc == SQLITE_OK ? 0 : -1;
}

static int engine_init(void *engine, const struct store_meta *meta, struct err *err)
{
    struct engine *e = engine;
    _auto_(freep) char *q = xasprintf("BEGIN IMMEDIATE;"
                                      "UPDATE meta SET value='%s' WHERE key='cluster_uid';"
                                      "UPDATE meta SET value=%lld WHERE key='ceiling';"
                                      "COMMIT",
                                      meta->cluster_uid, (long long)meta->ceiling);

    if (exec(e, q, err) < 0)
        return -1;
    e->ceiling = meta->ceiling;
    return 0;
}

const struct store_engine_ops store_sqlite = {
    .name = "sqlite",
    .packs = true,
    .open = engine_open,
    .load = engine_load,
    .init = engine_init,
    .append = engine_append,
    .recover = engine_recover,
    .poll = engine_poll,
    .close = engine_close,
};
