/* Two bits say where a key is, beside what is remembered of it:
 *   WANTED        on q->ready, waits for its turn
 *   BUSY          taken, not yet done
 *   WANTED|BUSY   changed while taken: goes to q->ready when done, not before
 * A key that waits for a delay has its own timer; one with neither bit, no timer and no failures is
 * not in the table. */
#include "client/workq.h"

#include "base/list.h"
#include "base/map.h"

#include <inttypes.h>

enum { WANTED = 1, BUSY = 2 };
enum { RETRY_MS_MIN = 5, RETRY_MS_MAX = 1000 * 1000 };

struct item {
    struct list link; /* on q->ready */
    struct workq *q;
    struct env_timer *timer;
    int64_t due_ms; /* when timer runs */
    uint32_t failures;
    uint8_t state;
    char key[];
};
struct workq {
    struct env *env;
    struct map items;
    struct list ready;
    uint32_t keys, keys_max, ready_n;
    env_fn *ready_fn;
    void *ready_arg;
    struct env_timer *wake;
};

static int64_t now_ms(struct workq *q)
{
    return env_mono_us(q->env) / 1000;
}

static void wake(void *arg)
{
    struct workq *q = arg;

    if (q->ready_n)
        q->ready_fn(q->ready_arg);
}

struct workq *workq_new(struct env *env, uint32_t keys_max)
{
    struct workq *q = xcalloc(1, sizeof *q);

    q->env = env;
    q->keys_max = keys_max;
    list_init(&q->ready);
    return q;
}

void workq_on_ready(struct workq *q, env_fn *ready, void *arg)
{
    q->ready_fn = ready;
    q->ready_arg = arg;
    if (!q->wake)
        q->wake = env_timer_new(q->env, wake, q);
    if (q->ready_n)
        env_timer_start(q->wake, 0, 0);
}

static void item_free(struct item *it)
{
    list_remove(&it->link);
    env_timer_free(it->timer);
    it->q->keys--;
    free(it);
}

void *workq_free(struct workq *q)
{
    const char *key;
    void *it;

    if (!q)
        return NULL;
    for (uint32_t i = 0; map_next(&q->items, &i, &key, &it);)
        item_free(it);
    map_done(&q->items);
    env_timer_free(q->wake);
    free(q);
    return NULL;
}

static void item_tidy(struct item *it)
{
    if (it->state || it->failures || (it->timer && env_timer_active(it->timer)))
        return;
    map_del(&it->q->items, it->key);
    item_free(it);
}

static struct item *item_need(struct workq *q, const char *key, struct err *err)
{
    struct item *it = map_get(&q->items, key);
    size_t n = strlen(key) + 1;

    if (it)
        return it;
    if (q->keys >= q->keys_max) {
        err_set(err, TOO_MANY, "work queue is full (%" PRIu32 " keys)", q->keys_max);
        return NULL;
    }
    it = xcalloc(1, sizeof *it + n);
    it->q = q;
    memcpy(it->key, key, n);
    map_put(&q->items, key, it);
    q->keys++;
    return it;
}

static void make_ready(struct item *it)
{
    struct workq *q = it->q;

    list_push(&q->ready, &it->link);
    if (q->ready_n++ == 0 && q->wake)
        env_timer_start(q->wake, 0, 0);
}

static void want(struct item *it)
{
    if (it->state & WANTED)
        return; /* somebody will look anyway, and will see this change too */
    it->state |= WANTED;
    if (!(it->state & BUSY))
        make_ready(it);
}

int workq_add(struct workq *q, const char *key, struct err *err)
{
    struct item *it = item_need(q, key, err);

    if (!it)
        return -1;
    want(it);
    return 0;
}

static void on_due(void *arg)
{
    want(arg);
}

int workq_add_after(struct workq *q, const char *key, int64_t delay_ms, struct err *err)
{
    struct item *it;

    if (delay_ms <= 0)
        return workq_add(q, key, err);
    it = item_need(q, key, err);
    if (!it)
        return -1;
    if (!it->timer)
        it->timer = env_timer_new(q->env, on_due, it);
    if (env_timer_active(it->timer) && it->due_ms <= now_ms(q) + delay_ms)
        return 0;
    it->due_ms = now_ms(q) + delay_ms;
    env_timer_start(it->timer, delay_ms, 0);
    return 0;
}

int workq_retry(struct workq *q, const char *key, struct err *err)
{
    struct item *it = item_need(q, key, err);
    int64_t delay_ms = RETRY_MS_MAX;

    if (!it)
        return -1;
    if (it->failures < 18)
        delay_ms = MIN((int64_t)RETRY_MS_MIN << it->failures, (int64_t)RETRY_MS_MAX);
    it->failures++;
    delay_ms += env_below(q->env, (uint32_t)(delay_ms / 8 + 1));
    return workq_add_after(q, key, delay_ms, err);
}

void workq_forget(struct workq *q, const char *key)
{
    struct item *it = map_get(&q->items, key);

    if (!it)
        return;
    it->failures = 0;
    item_tidy(it);
}

uint32_t workq_failures(const struct workq *q, const char *key)
{
    const struct item *it = map_get(&q->items, key);

    return it ? it->failures : 0;
}

const char *workq_take(struct workq *q)
{
    struct list *l = list_first(&q->ready);
    struct item *it;

    if (!l)
        return NULL;
    it = list_entry(l, struct item, link);
    list_remove(l);
    q->ready_n--;
    it->state = BUSY;
    return it->key;
}

void workq_done(struct workq *q, const char *key)
{
    struct item *it = map_get(&q->items, key);

    ASSERT(it && (it->state & BUSY));
    it->state &= (uint8_t)~BUSY;
    if (it->state & WANTED)
        make_ready(it);
    else
        item_tidy(it);
}

uint32_t workq_len(const struct workq *q)
{
    return q->ready_n;
}
