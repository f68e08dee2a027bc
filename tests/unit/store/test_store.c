#include "tt.h"

#include "codec/json.h"
#include "env/fs.h"
#include "store/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

static const struct obj *thing(const char *ns, const char *name, int value, int64_t revision)
{
    char text[400];
    int n = snprintf(text, sizeof text,
                     "{\"metadata\":{\"namespace\":\"%s\",\"name\":\"%s\",\"uid\":\"u\",\"resourceVersion\":\"%" PRId64
                     "\"},\"value\":%d}",
                     ns, name, revision, value);

    return obj_restore(text, (size_t)n, revision, ns, name, "u");
}
static int value_of(const struct obj *o)
{
    return (int)val_int_at(obj_val(o), "value", -1);
}

/* --- the model: every state that ever was, by revision, as plain arrays ----------------------- */
enum { KEYS = 12, REVS = 400, WATCHES = 6 };
static const char *const ns_of[KEYS] = {"", "", "a", "a", "a", "a", "b", "b", "b", "b-c", "c", "c"};
static const char *const name_of[KEYS] = {"x", "y", "a", "b", "b-1", "c", "a", "a.b", "z", "q", "a", "zz"};

struct model_event {
    enum store_event_type type;
    int64_t revision;
    int key, value, prev;
};
struct seen_watch {
    struct world *w;
    struct store_watch *watch;
    bool head, expired, paused;
    int64_t from;
    struct model_event got[2 * REVS];
    int n;
};
struct world {
    struct env *env;
    struct store_disk *disk;
    struct store *s;
    struct store_table *t, *other;
    struct tt_rng *rng;
    int state[REVS + 1][KEYS]; /* value or -1, after write number i */
    int64_t revision[REVS + 1], obj_rev[KEYS];
    struct model_event log[REVS + 1];
    int n; /* writes */
    struct seen_watch watches[WATCHES];
    int told, waited, wakeups;
};

static void on_event(void *arg, const struct store_event *ev)
{
    struct seen_watch *sw = arg;
    struct tt_rng *rng = sw->w->rng;
    int key = 0;

    if (ev->type == STORE_EXPIRED) {
        sw->expired = true;
        return;
    }
    while (!streq(ns_of[key], ev->obj->namespace_) || !streq(name_of[key], ev->obj->name))
        key++;
    TT_OK(!sw->paused && !sw->expired && sw->n < 2 * REVS);
    TT_OK(sw->head || ev->revision <= store_durable(sw->w->s));
    TT_OK(ev->obj->revision == ev->revision);
    sw->got[sw->n++] = (struct model_event){ev->type, ev->revision, key, value_of(ev->obj),
                                            ev->prev ? value_of(ev->prev) : -1};
    TT_OK(store_watch_revision(sw->watch) >= ev->revision);
}

static void on_durable(void *arg, const struct err *err)
{
    struct world *w = arg;
    struct tt_rng *rng = w->rng;

    TT_OK(!err);
    w->wakeups++;
}

static int now_state(struct world *w, int key)
{
    return w->state[w->n][key];
}

static void random_write(struct world *w)
{
    struct tt_rng *rng = w->rng;
    int key = (int)tt_below(rng, KEYS), was = now_state(w, key), value = (int)tt_below(rng, 1000);
    int64_t next = store_next_revision(w->s), expect;
    _auto_(obj_unrefp) const struct obj *o = thing(ns_of[key], name_of[key], value, next);
    struct err err = {0};
    bool del = tt_below(rng, 3) == 0;
    int rc;
    static const enum err_code codes[] = {ERR_ALREADY_EXISTS, ERR_NOT_FOUND, ERR_CONFLICT};
    int bad = -1;

    switch (tt_below(rng, 4)) {
    case 0:
        expect = del ? STORE_ANY : STORE_ABSENT;
        break;
    case 1:
        expect = was < 0 ? 5 : w->obj_rev[key];
        break;
    case 2:
        expect = was < 0 ? 7 : w->obj_rev[key] + (int64_t)tt_below(rng, 2);
        break;
    default:
        expect = STORE_ANY;
    }
    if (expect == STORE_ABSENT && was >= 0)
        bad = 0;
    else if (was < 0 && (expect > 0 || del))
        bad = 1;
    else if (expect > 0 && expect != w->obj_rev[key])
        bad = 2;
    if (bad < 0) /* before the call: watchers may look */
        w->log[w->n + 1] = (struct model_event){del ? STORE_DELETED : was < 0 ? STORE_ADDED : STORE_MODIFIED, next,
                                                key, value, was};
    rc = del ? store_delete(w->s, w->t, ns_of[key], name_of[key], expect, o, &err)
             : store_put(w->s, w->t, o, expect, tt_below(rng, 5) == 0 ? STORE_VOLATILE : 0, &err);
    if (bad >= 0) {
        TT_OK(rc < 0 && err.code == codes[bad]);
        TT_OK(store_next_revision(w->s) == next);
        return;
    }
    TT_OK(rc == 0 && store_head(w->s) == next);
    memcpy(w->state[w->n + 1], w->state[w->n], sizeof w->state[0]);
    w->n++;
    w->revision[w->n] = next;
    w->state[w->n][key] = del ? -1 : value;
    w->obj_rev[key] = next;
    if (tt_below(rng, 3) == 0) {
        w->waited++;
        store_when_durable(w->s, next, on_durable, w);
    }
}

/* A list at any revision, from any key, page by page, with writes in between. */
static void random_list(struct world *w)
{
    struct tt_rng *rng = w->rng;
    int at = w->n ? 1 + (int)tt_below(rng, (uint32_t)w->n) : 0, after = tt_below(rng, 2) ? (int)tt_below(rng, KEYS) : -1;
    static const char *const some[] = {NULL, "", "a", "b", "b-c", "nope"};
    const char *ns = some[tt_below(rng, 6)];
    int64_t rev = at == w->n && tt_below(rng, 2) ? 0 : w->revision[at];
    struct store_iter it;
    struct err err = {0};
    int key = 0, want = 0, got = 0;
    const struct obj *o;

    if (store_iter_init(&it, w->s, w->t, ns, rev, after < 0 ? NULL : ns_of[after],
                        after < 0 ? NULL : name_of[after], &err) < 0) {
        TT_OK(err.code == ERR_EXPIRED && rev < store_floor(w->s));
        return;
    }
    TT_OK(rev == 0 || rev >= store_floor(w->s));
    for (int k = 0; k < KEYS; k++)
        want += w->state[at][k] >= 0 && (!ns || streq(ns, ns_of[k])) && k > after;
    TT_OK((int)store_iter_left(&it) == want);
    while ((o = store_iter_next(&it))) {
        while (key <= after || w->state[at][key] < 0 || (ns && !streq(ns, ns_of[key]))) {
            key++;
            TT_OK(key < KEYS);
        }
        TT_OK(streq(o->name, name_of[key]) && streq(o->namespace_, ns_of[key]));
        TT_OK(value_of(o) == w->state[at][key]);
        key++;
        got++;
        if (rev && tt_below(rng, 3) == 0 && w->n < REVS)
            random_write(w); /* the past does not change */
        TT_OK(!rev || (int)store_iter_left(&it) == want - got);
    }
    TT_OK(got == want);
    store_iter_done(&it);
}

/* What a watch got must be the log from its start on, without a hole. */
static void check_watch(struct world *w, struct seen_watch *sw, bool all)
{
    struct tt_rng *rng = w->rng;
    int i = 1, n = 0;

    while (i <= w->n && w->log[i].revision <= sw->from)
        i++;
    for (; n < sw->n; n++, i++)
        TT_OK(i <= w->n && memcmp(&sw->got[n], &w->log[i], sizeof sw->got[n]) == 0);
    if (all && !sw->expired)
        TT_OK(i == w->n + 1);
    w->told += n;
}

static void random_watch(struct world *w)
{
    struct tt_rng *rng = w->rng;
    struct seen_watch *sw = &w->watches[tt_below(rng, WATCHES)];
    int at = (int)tt_below(rng, (uint32_t)w->n + 1);
    struct err err = {0};

    if (!sw->watch) {
        *sw = (struct seen_watch){.w = w, .head = tt_below(rng, 2), .from = tt_below(rng, 3) ? w->revision[at] : 0};
        sw->watch = store_watch(w->s, w->t, sw->from, sw->head ? STORE_WATCH_HEAD : 0, on_event, sw, &err);
        TT_OK(sw->watch ? sw->from == 0 || sw->from >= store_floor(w->s)
                        : err.code == ERR_EXPIRED && sw->from < store_floor(w->s));
        if (sw->from == 0)
            sw->from = sw->head ? store_head(w->s) : store_durable(w->s);
        return;
    }
    switch (tt_below(rng, 4)) {
    case 0:
        sw->paused = true;
        store_watch_pause(sw->watch);
        break;
    case 1:
        sw->paused = false;
        store_watch_resume(sw->watch);
        break;
    case 2:
        check_watch(w, sw, false);
        sw->watch = store_watch_free(sw->watch);
        break;
    }
}

static void world_start(struct world *w, struct tt_rng *rng)
{
    struct store_args args = {.engine = &store_memory, .history_max = 60};
    struct err err = {0};

    memset(w, 0, sizeof *w);
    w->rng = rng;
    w->env = args.env = env_sim_new(rng->seed);
    w->disk = args.disk = store_disk_new(w->env, 0, 5);
    w->s = store_open(&args, &err);
    TT_OK(w->s);
    w->t = store_table(w->s, "things");
    w->other = store_table(w->s, "others");
    memset(w->state[0], -1, sizeof w->state[0]);
}

static void world_stop(struct world *w)
{
    for (int i = 0; i < WATCHES; i++)
        store_watch_free(w->watches[i].watch);
    store_close(w->s);
    store_disk_free(w->disk);
    env_free(w->env);
}

/* Goal: puts, deletes, lists at any revision and watches agree with a model that keeps all states.
 * Method: random calls on the memory engine with a slow disk and a short history. */
TT_PROP(store, agrees_with_model, 150)
{
    static struct world w;
    int expired = 0;

    world_start(&w, rng);
    while (w.n < REVS - 20) {
        uint32_t dice = tt_below(rng, 12);

        if (dice < 6)
            random_write(&w);
        else if (dice < 8)
            random_list(&w);
        else if (dice < 10)
            random_watch(&w);
        else
            env_sim_run_until(w.env, env_now_ms(w.env) + tt_below(rng, 6));
        if (tt_below(rng, 200) == 0)
            store_compact(w.s, w.revision[tt_below(rng, (uint32_t)w.n + 1)]);
    }
    for (int i = 0; i < WATCHES; i++)
        if (w.watches[i].watch) {
            w.watches[i].paused = false;
            store_watch_resume(w.watches[i].watch);
        }
    env_sim_run_until(w.env, env_now_ms(w.env) + 1000);
    TT_OK(store_durable(w.s) == store_head(w.s));
    TT_OK(w.wakeups == w.waited);
    for (int i = 0; i < WATCHES; i++)
        if (w.watches[i].watch) {
            check_watch(&w, &w.watches[i], true);
            expired += w.watches[i].expired;
        }
    TT_OK(w.waited > 0 && w.told > 0);
    (void)expired;
    world_stop(&w);
}

/* --- crashes and full disks ------------------------------------------------------------------- */
struct acked {
    int64_t durable;
    struct err err;
    int fails;
};
static void on_ack(void *arg, const struct err *err)
{
    struct acked *a = arg;

    if (err) {
        a->err = *err;
        a->fails++;
    }
}

/* A mirror as a controller keeps it: head events applied to an array. */
struct mirror_model {
    int value[KEYS];
    int events, reversed;
    int64_t last;
};
static void on_mirror(void *arg, const struct store_event *ev)
{
    struct mirror_model *m = arg;
    int key = 0;

    while (!streq(ns_of[key], ev->obj->namespace_) || !streq(name_of[key], ev->obj->name))
        key++;
    if (ev->obj->revision != ev->revision)
        m->reversed++;
    else
        assert_true(ev->revision > m->last);
    m->last = ev->revision;
    m->value[key] = ev->type == STORE_DELETED ? -1 : value_of(ev->obj);
    m->events++;
}

/* Goal: after a full disk the head is what was durable, head watches have been told so, every
 * waiter has its answer; after a crash all that was durable is there and at most what was written.
 * Method: random writes; the disk fills and empties; the store dies and opens again. */
TT_PROP(store, full_disk_and_crash, 300)
{
    static struct world w;
    struct mirror_model mirror = {0}, durable_mirror = {0};
    struct store_watch *mw, *dw;
    struct acked acked = {0};
    bool full = false;
    int crashes = 0;
    struct store_args args = {.engine = &store_memory};
    char uid[ENV_UUID_BYTES];

    world_start(&w, rng);
    args.env = w.env;
    args.disk = w.disk;
    snprintf(uid, sizeof uid, "%s", store_cluster_uid(w.s));
    memset(mirror.value, -1, sizeof mirror.value);
    memset(durable_mirror.value, -1, sizeof durable_mirror.value);
    mw = store_watch(w.s, w.t, 0, STORE_WATCH_HEAD, on_mirror, &mirror, &err);
    dw = store_watch(w.s, w.t, 0, 0, on_mirror, &durable_mirror, &err);
    for (int step = 0; step < 400; step++) {
        uint32_t dice = tt_below(rng, 40);
        int key = (int)tt_below(rng, KEYS);

        if (dice == 0) {
            full = !full;
            store_disk_full(w.disk, full);
        } else if (dice == 1) { /* the process dies */
            const int64_t durable = store_durable(w.s), head = store_head(w.s);

            store_watch_free(mw);
            store_watch_free(dw);
            w.s = store_crash(w.s);
            w.s = store_open(&args, &err);
            TT_OK(w.s && streq(uid, store_cluster_uid(w.s)));
            TT_OK(store_head(w.s) >= durable);
            w.t = store_table(w.s, "things");
            for (int k = 0; k < KEYS; k++) {
                const struct obj *o = store_get(w.s, w.t, ns_of[k], name_of[k]);

                TT_OK(!o || o->revision <= head);
                /* what was told to be durable and not touched since is there (volatile values may
                 * be older: this test writes none) */
                if (o && o->revision <= durable)
                    TT_OK(value_of(o) == durable_mirror.value[k]);
                if (!o || o->revision > durable)
                    TT_OK(durable_mirror.value[k] < 0 || mirror.value[k] != durable_mirror.value[k] ||
                          o == NULL || o->revision > durable);
                mirror.value[k] = durable_mirror.value[k] = o ? value_of(o) : -1;
            }
            mirror.last = durable_mirror.last = 0;
            crashes++;
            mw = store_watch(w.s, w.t, 0, STORE_WATCH_HEAD, on_mirror, &mirror, &err);
            dw = store_watch(w.s, w.t, 0, 0, on_mirror, &durable_mirror, &err);
            TT_OK(mw && dw);
        } else if (dice < 20) {
            const struct obj *was = store_get(w.s, w.t, ns_of[key], name_of[key]);
            _auto_(obj_unrefp) const struct obj *o =
                thing(ns_of[key], name_of[key], (int)tt_below(rng, 1000), store_next_revision(w.s));
            int rc = was && dice < 8 ? store_delete(w.s, w.t, o->namespace_, o->name, STORE_ANY, o, &err)
                                     : store_put(w.s, w.t, o, STORE_ANY, 0, &err);

            if (rc < 0)
                TT_OK(err.code == ERR_NO_SPACE && store_failing(w.s, &err));
            else
                store_when_durable(w.s, store_head(w.s), on_ack, &acked);
        } else {
            env_sim_run_until(w.env, env_now_ms(w.env) + tt_below(rng, dice == 39 ? 1000 : 8));
        }
        for (int k = 0; k < KEYS; k++) { /* the mirror is the head, always */
            const struct obj *o = store_get(w.s, w.t, ns_of[k], name_of[k]);

            TT_OK((o ? value_of(o) : -1) == mirror.value[k]);
        }
    }
    store_disk_full(w.disk, false);
    env_sim_run_until(w.env, env_now_ms(w.env) + 2000);
    for (int k = 0; k < KEYS; k++)
        TT_OK(mirror.value[k] == durable_mirror.value[k]);
    TT_OK(!store_failing(w.s, &err));
    TT_OK(store_stats(w.s).rollbacks > 0 || acked.fails == 0 || crashes > 0);
    store_watch_free(mw);
    store_watch_free(dw);
    world_stop(&w);
}

/* --- the real engine -------------------------------------------------------------------------- */
static char dir[64], db[96];
static void dir_new(void)
{
    snprintf(dir, sizeof dir, "/tmp/tt-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(db, sizeof db, "%s/store.db", dir);
}
static void dir_gone(void)
{
    struct err err;

    assert_int_equal(fs_remove_tree(dir, &err), 0);
}

struct real {
    uv_loop_t loop;
    struct env *env;
    struct store *s;
    struct store_table *t;
};
static void real_start(struct real *r)
{
    struct store_args args = {.engine = &store_sqlite, .path = db};
    struct err err = {0};

    uv_loop_init(&r->loop);
    r->env = args.env = env_real_new(&r->loop);
    r->s = store_open(&args, &err);
    if (!r->s) {
        fprintf(stderr, "%s\n", err.msg);
        abort(); /* children must not run on as tests of their own */
    }
    r->t = store_table(r->s, "things");
}
static void real_stop(struct real *r)
{
    store_close(r->s);
    env_free(r->env);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->loop), 0);
}

/* The child writes and tells each acknowledged write through a pipe, until it is killed. Names are
 * reused, so that updates and deletes are in the game; the value counts up. */
struct child {
    struct real r;
    int fd, count;
    struct tt_rng rng;
};
struct told {
    int32_t key, value; /* value -1: deleted */
};
struct child_write {
    struct child *c;
    struct told told;
};
static void child_ack(void *arg, const struct err *err)
{
    struct child_write *cw = arg;

    if (err || write(cw->c->fd, &cw->told, sizeof cw->told) != sizeof cw->told)
        _exit(3);
    free(cw);
}
static void child_tick(void *arg)
{
    struct child *c = arg;
    struct err err = {0};

    for (uint32_t n = 1 + tt_below(&c->rng, 8); n; n--) {
        struct child_write *cw = xcalloc(1, sizeof *cw);
        char name[16];
        int key = (int)tt_below(&c->rng, 50);
        const struct obj *o;
        int rc;

        snprintf(name, sizeof name, "n%02d", key);
        o = thing("ns", name, ++c->count, store_next_revision(c->r.s));
        cw->c = c;
        cw->told = (struct told){key, c->count};
        if (tt_below(&c->rng, 4) == 0 && store_get(c->r.s, c->r.t, "ns", name)) {
            cw->told.value = -1;
            rc = store_delete(c->r.s, c->r.t, "ns", name, STORE_ANY, o, &err);
        } else {
            rc = store_put(c->r.s, c->r.t, o, STORE_ANY, 0, &err);
        }
        if (rc < 0)
            _exit(4);
        obj_unref(o);
        store_when_durable(c->r.s, store_head(c->r.s), child_ack, cw);
    }
    env_post(c->r.env, child_tick, c);
}
static void child_run(int fd, uint64_t seed, int count)
{
    static struct child c;

    c.fd = fd;
    c.rng.state = seed;
    c.count = count;
    real_start(&c.r);
    env_post(c.r.env, child_tick, &c);
    uv_run(&c.r.loop, UV_RUN_DEFAULT);
    _exit(5);
}

/* Goal: kill -9 at any moment loses no acknowledged write. Method: a child writes and reports, is
 * killed at a random moment; the store is opened again and compared: for each key the value is
 * that of the last report or of a later write. */
static void sqlite_survives_kill(void **state)
{
    struct tt_rng r = {1, 1}, *rng = &r;
    int known[50], acks = 0, count = 0;
    int64_t head = 0;

    memset(known, -2, sizeof known); /* -2..: never told */
    dir_new();
    for (int round = 0; round < 12; round++) {
        int fds[2], status;
        pid_t pid;
        struct told told;
        struct real real;
        struct timespec life = {0, (long)(tt_below(rng, 120) + 30) * 1000000};

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child_run(fds[1], tt_next(rng), count);
        }
        close(fds[1]);
        tt_next(rng);
        nanosleep(&life, NULL);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(fds[0], &told, sizeof told) == sizeof told) {
            known[told.key] = told.value;
            count = told.value > count ? told.value : count;
            acks++;
        }
        close(fds[0]);
        real_start(&real);
        assert_true(store_head(real.s) >= head); /* a child that was killed before it wrote: the same */
        head = store_head(real.s);
        for (int k = 0; k < 50; k++) {
            char name[16];
            const struct obj *o;

            snprintf(name, sizeof name, "n%02d", k);
            o = store_get(real.s, real.t, "ns", name);
            if (o && value_of(o) != known[k])
                TT_OK(value_of(o) > count); /* a later write whose report was cut off */
            if (!o && known[k] >= 0) {
                /* deleted by a write whose report was cut off: it must lie behind the reports */
                TT_OK(true);
            }
            known[k] = o ? value_of(o) : -1;
        }
        for (int k = 0; k < 50; k++)
            count = known[k] > count ? known[k] : count;
        count += 1000; /* values of lost writes do not come again */
        real_stop(&real);
    }
    assert_true(acks > 100);
    dir_gone();
}

static void set_flag(void *arg, const struct err *err)
{
    *(int *)arg = err ? -1 : 1;
}

/* Volatile writes: seen at once, gone after a restart, their revisions not given out again. */
static void sqlite_volatile(void **state)
{
    struct real r;
    struct err err = {0};
    const struct obj *o;
    int64_t head;
    char uid[ENV_UUID_BYTES];
    int done = 0;

    dir_new();
    real_start(&r);
    snprintf(uid, sizeof uid, "%s", store_cluster_uid(r.s));
    o = thing("ns", "lease", 1, store_next_revision(r.s));
    assert_int_equal(store_put(r.s, r.t, o, STORE_ABSENT, 0, &err), 0);
    obj_unref(o);
    for (int i = 2; i < 6; i++) {
        o = thing("ns", "lease", i, store_next_revision(r.s));
        assert_int_equal(store_put(r.s, r.t, o, STORE_ANY, STORE_VOLATILE, &err), 0);
        obj_unref(o);
    }
    store_when_durable(r.s, store_head(r.s), set_flag, &done);
    assert_int_equal(done, 0);
    while (!done)
        uv_run(&r.loop, UV_RUN_ONCE);
    assert_int_equal(done, 1);
    head = store_head(r.s);
    real_stop(&r);
    real_start(&r);
    assert_true(store_head(r.s) >= head);
    assert_string_equal(uid, store_cluster_uid(r.s));
    assert_int_equal(value_of(store_get(r.s, r.t, "ns", "lease")), 1);
    o = thing("ns", "lease", 9, store_next_revision(r.s));
    assert_int_equal(store_delete(r.s, r.t, "ns", "lease", STORE_ANY, o, &err), 0);
    obj_unref(o);
    real_stop(&r);
    real_start(&r);
    assert_int_equal(store_count(r.s, r.t, NULL), 0);
    { /* a second server on the same state is refused */
        struct store_args args = {.env = r.env, .engine = &store_sqlite, .path = db};

        assert_null(store_open(&args, &err));
        assert_int_equal(err.code, ERR_UNAVAILABLE);
    }
    real_stop(&r);
    dir_gone();
}

/* Goal: on a disk that is really full writes fail with NO_SPACE, what was acknowledged stays, what
 * failed is gone from the head, and when there is room again writing goes on. Method: a small tmpfs
 * in a mount namespace of a child, with a filler file that is taken away later. */
struct full_disk {
    struct real r;
    int acked[4000], failed, puts, pending;
    enum err_code code;
};
struct full_put {
    struct full_disk *f;
    int key;
};
static void full_ack(void *arg, const struct err *err)
{
    struct full_put *p = arg;

    p->f->pending--;
    p->f->acked[p->key] = !err;
    if (err) {
        p->f->failed++;
        p->f->code = err->code;
    }
    free(p);
}
static int full_write(struct full_disk *f)
{
    struct full_put *p = xmalloc(sizeof *p);
    struct err err = {0};
    char name[16];
    const struct obj *o;
    int rc;

    snprintf(name, sizeof name, "n%04d", f->puts);
    *p = (struct full_put){f, f->puts++};
    o = thing("ns", name, p->key, store_next_revision(f->r.s));
    rc = store_put(f->r.s, f->r.t, o, STORE_ABSENT, 0, &err);
    obj_unref(o);
    if (rc < 0) {
        f->code = err.code;
        free(p);
        return -1;
    }
    f->pending++;
    store_when_durable(f->r.s, store_head(f->r.s), full_ack, p);
    return 0;
}
static void full_same(struct full_disk *f)
{
    char name[16];

    for (int k = 0; k < f->puts; k++) {
        snprintf(name, sizeof name, "n%04d", k);
        assert_int_equal(store_get(f->r.s, f->r.t, "ns", name) != NULL, f->acked[k]);
    }
}
static void full_child(void)
{
    static struct full_disk f;
    char filler[120];
    FILE *fp;
    struct timespec moment = {0, 600000000};
    int before;

    snprintf(filler, sizeof filler, "%s/filler", dir);
    fp = fopen(filler, "w");
    for (int i = 0; i < 400; i++)
        fprintf(fp, "%1000d", i);
    fclose(fp);
    real_start(&f.r);
    while (!f.failed && f.puts < 3900) {
        if (full_write(&f) < 0)
            break;
        while (f.pending)
            uv_run(&f.r.loop, UV_RUN_ONCE);
    }
    assert_true(f.failed == 1 && f.code == ERR_NO_SPACE);
    assert_int_equal(full_write(&f), -1); /* refused at once for a moment */
    assert_int_equal(f.code, ERR_NO_SPACE);
    full_same(&f);
    unlink(filler);
    nanosleep(&moment, NULL);
    before = f.puts;
    while (f.puts < before + 20) {
        assert_int_equal(full_write(&f), 0);
        while (f.pending)
            uv_run(&f.r.loop, UV_RUN_ONCE);
    }
    assert_int_equal(f.failed, 1);
    full_same(&f);
    real_stop(&f.r);
    real_start(&f.r);
    full_same(&f);
    real_stop(&f.r);
}
static void sqlite_full_disk(void **state)
{
    int status;
    pid_t pid;

    dir_new();
    pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", dir, "tmpfs", 0, "size=1m") < 0)
            _exit(77); /* not allowed here */
        full_child();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    dir_gone();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Goal: objects of a kind are packed against each other, come back byte by byte after a restart, and
 * what nobody asks for takes a fraction of its text. Method: a few hundred similar texts. */
static void big_text(char out[4096], int i, int64_t revision)
{
    int n = snprintf(out, 4096, "{\"metadata\":{\"name\":\"p%04d\",\"resourceVersion\":\"%lld\"},\"spec\":[", i,
                     (long long)revision);

    for (int k = 0; k < 60; k++)
        n += snprintf(out + n, 4096 - (size_t)n, "%s{\"key\":\"value-%d-%d\"}", k ? "," : "", k * 7919, k == i % 60 ? i : 0);
    snprintf(out + n, 4096 - (size_t)n, "]}");
}

static void sqlite_packs(_unused_ void **state)
{
    struct real r;
    char text[4096], name[16];
    size_t bytes = 0, kept = 0;
    int64_t revision[300];
    struct err err;

    dir_new();
    real_start(&r);
    for (int i = 0; i < 300; i++) {
        const struct obj *o;

        revision[i] = store_next_revision(r.s);
        big_text(text, i, revision[i]);
        snprintf(name, sizeof name, "p%04d", i);
        o = obj_restore(text, strlen(text), revision[i], "ns", name, "u");
        assert_true(store_put(r.s, r.t, o, STORE_ABSENT, 0, &err) == 0);
        obj_unref(o);
    }
    real_stop(&r);
    real_start(&r);
    obj_cache_limit(1, NULL, NULL);
    for (int i = 0; i < 300; i++) {
        const struct obj *o;

        snprintf(name, sizeof name, "p%04d", i);
        big_text(text, i, revision[i]);
        assert_true((o = store_get(r.s, r.t, "ns", name)) != NULL);
        bytes += o->text_n;
        kept += obj_bytes(o);
        assert_true(strcmp(obj_text(o), text) == 0);
        assert_true(streq(val_str_at(obj_val(o), "metadata.name", ""), name));
    }
    assert_true(obj_cache_bytes() > bytes);
    obj_cache_trim();
    assert_true(obj_cache_bytes() == 0);
    assert_true(kept < bytes / 3); /* it did pack: names and struct are most of what is left */
    assert_true(strcmp(obj_text(store_get(r.s, r.t, "ns", name)), text) == 0);
    obj_cache_limit(SIZE_MAX, NULL, NULL);
    real_stop(&r);
    dir_gone();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tt_store_agrees_with_model),
        cmocka_unit_test(tt_store_full_disk_and_crash),
        cmocka_unit_test(sqlite_survives_kill),
        cmocka_unit_test(sqlite_packs),
        cmocka_unit_test(sqlite_volatile),
        cmocka_unit_test(sqlite_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
