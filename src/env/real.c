/* The real env: libuv's timers and one async handle through which posts of all threads come. The
 * async handle keeps the loop alive until env_free(). */
#include "env/clock.h"
#include "env/env_int.h"
#include "env/random.h"

#include <errno.h>
#include <pthread.h>
#include <sys/random.h>
#include <uv.h>

struct real {
    struct env env;
    uv_loop_t *loop;
    uv_async_t wake;
    pthread_mutex_t lock; /* guards first, last */
    struct env_posted *first, **last;
    uint32_t timers;
    uint8_t pool[512]; /* random bytes not yet given out: one system call for many uuids */
    size_t pool_left;
};
struct real_timer {
    struct env_timer t;
    uv_timer_t uv;
};

static int64_t real_now_ms(_unused_ struct env *env)
{
    return clock_real_ms();
}

static int64_t real_mono_us(_unused_ struct env *env)
{
    return clock_mono_us();
}

static void real_bytes(struct env *env, void *p, size_t n)
{
    struct real *r = (struct real *)env;

    if (n > sizeof r->pool / 4) {
        random_bytes(p, n);
        return;
    }
    if (n > r->pool_left) {
        random_bytes(r->pool, sizeof r->pool);
        r->pool_left = sizeof r->pool;
    }
    r->pool_left -= n;
    memcpy(p, r->pool + r->pool_left, n);
    memset(r->pool + r->pool_left, 0, n); /* what was given out may be a secret */
}

static void on_timer(uv_timer_t *uv)
{
    struct real_timer *t = container_of(uv, struct real_timer, uv);

    t->t.fn(t->t.arg);
}

static struct env_timer *real_timer_new(struct env *env, _unused_ env_fn *fn, _unused_ void *arg)
{
    struct real *r = (struct real *)env;
    struct real_timer *t = xcalloc(1, sizeof *t);

    uv_timer_init(r->loop, &t->uv);
    r->timers++;
    return &t->t;
}

static void real_timer_start(struct env_timer *et, int64_t delay_ms, int64_t repeat_ms)
{
    struct real_timer *t = (struct real_timer *)et;

    uv_update_time(t->uv.loop); /* the loop's time is as old as this turn */
    uv_timer_start(&t->uv, on_timer, (uint64_t)delay_ms, (uint64_t)repeat_ms);
}

static void real_timer_stop(struct env_timer *et)
{
    uv_timer_stop(&((struct real_timer *)et)->uv);
}

static bool real_timer_active(const struct env_timer *et)
{
    return uv_is_active((const uv_handle_t *)&((const struct real_timer *)et)->uv);
}

static void timer_closed(uv_handle_t *h)
{
    free(container_of((uv_timer_t *)h, struct real_timer, uv));
}

static void real_timer_free(struct env_timer *et)
{
    struct real_timer *t = (struct real_timer *)et;

    ((struct real *)et->env)->timers--;
    uv_close((uv_handle_t *)&t->uv, timer_closed);
}

static void real_post(struct env *env, env_fn *fn, void *arg)
{
    struct real *r = (struct real *)env;
    struct env_posted *p = xmalloc(sizeof *p);
    bool first;

    *p = (struct env_posted){.fn = fn, .arg = arg};
    pthread_mutex_lock(&r->lock);
    first = !r->first;
    *r->last = p;
    r->last = &p->next;
    pthread_mutex_unlock(&r->lock);
    if (first)
        uv_async_send(&r->wake);
}

/* Runs what was posted until now; what these post comes in the loop's next turn, so that sockets
 * and timers have theirs in between. */
static void on_wake(uv_async_t *h)
{
    struct real *r = container_of(h, struct real, wake);
    struct env_posted *all;

    pthread_mutex_lock(&r->lock);
    all = r->first;
    r->first = NULL;
    r->last = &r->first;
    pthread_mutex_unlock(&r->lock);
    while (all) {
        struct env_posted *p = all;

        all = p->next;
        p->fn(p->arg);
        free(p);
    }
}

static void wake_closed(uv_handle_t *h)
{
    struct real *r = container_of((uv_async_t *)h, struct real, wake);

    for (struct env_posted *p = r->first, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void real_free(struct env *env)
{
    struct real *r = (struct real *)env;

    ASSERT(r->timers == 0);
    uv_close((uv_handle_t *)&r->wake, wake_closed);
}

static uv_loop_t *real_loop(struct env *env)
{
    return ((struct real *)env)->loop;
}

static const struct env_ops real_ops = {
    .now_ms = real_now_ms,
    .mono_us = real_mono_us,
    .bytes = real_bytes,
    .timer_new = real_timer_new,
    .timer_start = real_timer_start,
    .timer_stop = real_timer_stop,
    .timer_active = real_timer_active,
    .timer_free = real_timer_free,
    .post = real_post,
    .free = real_free,
    .loop = real_loop,
};

struct env *env_real_new(uv_loop_t *loop)
{
    struct real *r = xcalloc(1, sizeof *r);

    r->env.ops = &real_ops;
    r->loop = loop;
    r->last = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    ASSERT(uv_async_init(loop, &r->wake, on_wake) == 0);
    return &r->env;
}
