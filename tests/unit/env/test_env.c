#include "tt.h"

#include "env/clock.h"
#include "env/env.h"
#include "env/fs.h"
#include "env/mbox.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

/* Goal: the simulated world keeps its promises: time never goes back, a stopped or freed timer is
 * silent, each timer fires at its time, and a run is a function of its seed. Method: random timers
 * that start, stop and free each other; the trace of one seed is compared with its replay. */
struct world {
    struct env *env;
    struct tt_rng rng;
    struct {
        struct env_timer *t;
        int64_t due_us; /* 0: must not fire */
    } slot[8];
    int64_t last_us;
    uint64_t trace;
    int fired, silenced;
};
struct slot_arg {
    struct world *w;
    int i;
};
static struct slot_arg slot_args[8];

static void random_act(struct world *w)
{
    struct tt_rng *rng = &w->rng;
    int i = (int)tt_below(rng, 8);
    uint32_t delay = tt_below(rng, 50);

    switch (tt_below(rng, 3)) {
    case 0:
        env_timer_start(w->slot[i].t, delay, 0);
        w->slot[i].due_us = env_mono_us(w->env) + delay * 1000 + 1;
        break;
    case 1:
        w->silenced += w->slot[i].due_us != 0;
        env_timer_stop(w->slot[i].t);
        w->slot[i].due_us = 0;
        break;
    }
}

static void on_slot(void *arg)
{
    struct slot_arg *sa = arg;
    struct world *w = sa->w;
    struct tt_rng *rng = &w->rng;
    int64_t now_us = env_mono_us(w->env);

    TT_OK(w->slot[sa->i].due_us == now_us + 1);
    TT_OK(now_us >= w->last_us);
    w->slot[sa->i].due_us = 0;
    w->last_us = now_us;
    w->fired++;
    w->trace = w->trace * 31 + (uint64_t)sa->i + (uint64_t)now_us;
    random_act(w);
    random_act(w);
}

static uint64_t play(uint64_t seed, int *ret_fired)
{
    struct world w = {.env = env_sim_new(seed), .rng = {seed, seed}};

    for (int i = 0; i < 8; i++) {
        slot_args[i] = (struct slot_arg){&w, i};
        w.slot[i].t = env_timer_new(w.env, on_slot, &slot_args[i]);
        env_timer_start(w.slot[i].t, 1, 0);
        w.slot[i].due_us = 1001;
    }
    for (int i = 0; i < 300 && env_sim_step(w.env); i++)
        ;
    w.trace = w.trace * 31 + env_random(w.env);
    for (int i = 0; i < 8; i++)
        env_timer_free(w.slot[i].t);
    while (env_sim_step(w.env))
        ;
    env_free(w.env);
    *ret_fired = w.fired;
    return w.trace;
}

TT_PROP(env, a_run_is_a_function_of_its_seed, 100)
{
    int x, y, z;

    TT_OK(play(rng->seed, &x) == play(rng->seed, &y));
    TT_OK(x == y && x > 0);
    TT_OK(play(rng->seed, &x) != play(rng->seed + 1, &z));
}

/* Posts run in order, repeating timers keep their beat. */
static char seen[64];
static void note_a(void *arg) { strcat(seen, "a"); }
static void note_b(void *arg)
{
    strcat(seen, "b");
    env_post(arg, note_a, arg);
}
static void sim_post_and_repeat(void **state)
{
    struct env *env = env_sim_new(7);
    struct env_timer *t = env_timer_new(env, note_b, env);

    seen[0] = 0;
    env_post(env, note_b, env);
    env_post(env, note_a, env);
    env_timer_start(t, 10, 10);
    assert_int_equal(env_sim_settle(env), 3);
    assert_string_equal(seen, "baa");
    env_sim_run_until(env, env_now_ms(env) + 35);
    assert_string_equal(seen, "baabababa");
    env_timer_free(t);
    assert_false(env_sim_step(env));
    env_free(env);
}

/* Goal: posts and mailboxes lose nothing and keep each sender's order. Method: four threads. */
enum { SENDERS = 4, EACH = 5000 };
static struct env *real_env;
static uv_loop_t loop;
static struct mbox *box;
static int got_posts, next_of[SENDERS], got_msgs, next_msg_of[SENDERS];
struct note {
    struct mbox_msg msg;
    int sender, n;
};
static void on_post(void *arg)
{
    struct note *m = arg;

    assert_int_equal(m->n, next_of[m->sender]++);
    free(m);
    if (++got_posts == SENDERS * EACH && got_msgs == SENDERS * EACH)
        uv_stop(&loop);
}
static void on_msg(void *arg, struct mbox_msg *msg)
{
    struct note *m = container_of(msg, struct note, msg);

    assert_int_equal(m->n, next_msg_of[m->sender]++);
    free(m);
    if (++got_msgs == SENDERS * EACH && got_posts == SENDERS * EACH)
        uv_stop(&loop);
}
static void *sender(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        struct note *p = xcalloc(1, sizeof *p), *m = xcalloc(1, sizeof *m);

        p->sender = m->sender = *(int *)arg;
        p->n = m->n = i;
        env_post(real_env, on_post, p);
        mbox_send(box, &m->msg);
    }
    return NULL;
}
static void tick(void *arg) { ++*(int *)arg; }
static void real_threads(void **state)
{
    pthread_t th[SENDERS];
    int id[SENDERS], ticks = 0;
    struct env_timer *t;

    uv_loop_init(&loop);
    real_env = env_real_new(&loop);
    box = mbox_new(&loop, on_msg, NULL);
    t = env_timer_new(real_env, tick, &ticks);
    env_timer_start(t, 0, 1);
    for (int i = 0; i < SENDERS; i++) {
        id[i] = i;
        pthread_create(&th[i], NULL, sender, &id[i]);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(th[i], NULL);
    assert_int_equal(got_posts, SENDERS * EACH);
    assert_true(ticks > 0);
    env_timer_free(t);
    mbox_free(box);
    env_free(real_env);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void names(void **state)
{
    struct env *env = env_sim_new(3);
    char u[ENV_UUID_BYTES], s[ENV_SUFFIX_BYTES], t[CLOCK_TEXT_BYTES];

    env_uuid(env, u);
    assert_int_equal(strlen(u), 36);
    assert_true(u[14] == '4' && strchr("89ab", u[19]));
    assert_int_equal(strlen(env_suffix(env, s)), 5);
    assert_string_equal(clock_rfc3339_nano(1767225600000000042, t), "2026-01-01T00:00:00.000000042Z");
    env_free(env);
}

static void files(void **state)
{
    char dir[] = "/tmp/tt-fs-XXXXXX", path[200], deep[300];
    struct err err = {0};
    size_t n;
    char *text;
    struct stat st;

    assert_non_null(mkdtemp(dir));
    snprintf(deep, sizeof deep, "%s/a//b/c/", dir);
    assert_int_equal(fs_mkdirs(deep, 0700, &err), 0);
    assert_int_equal(fs_mkdirs(deep, 0700, &err), 0);
    snprintf(path, sizeof path, "%s/a/b/f", dir);
    assert_int_equal(fs_write(path, "hello", 5, 0640, &err), 0);
    assert_int_equal(fs_write(path, "hello you", 9, 0640, &err), 0);
    text = fs_read(path, 100, &n, &err);
    assert_string_equal(text, "hello you");
    assert_int_equal(n, 9);
    free(text);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_null(fs_read(path, 8, &n, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    snprintf(deep, sizeof deep, "%s/f2", path);
    assert_int_equal(fs_mkdirs(deep, 0700, &err), -1);
    assert_null(fs_read(deep, 8, &n, &err));
    snprintf(deep, sizeof deep, "%s/a/link", dir);
    assert_int_equal(symlink("/etc", deep), 0);
    assert_int_equal(fs_remove_tree(dir, &err), 0);
    assert_false(fs_exists(dir));
    assert_true(fs_exists("/etc/passwd"));
    assert_int_equal(fs_remove_tree(dir, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tt_env_a_run_is_a_function_of_its_seed),
        cmocka_unit_test(sim_post_and_repeat),
        cmocka_unit_test(real_threads),
        cmocka_unit_test(names),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
