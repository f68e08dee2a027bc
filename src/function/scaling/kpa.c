#include "function/scaling/kpa.h"

#include "base/base.h"

#include <math.h>
#include <stdlib.h>

enum { TICK_S = 2, RPS_DEFAULT = 200, UP_MAX = 1000, DOWN_MAX = 2, SECOND_US = 1000000, SCALE_MAX = 100000 };

/* Values by second, in a ring. */
struct window {
    double *bucket, total;
    int64_t seconds, first, last; /* the seconds of the first and the last value; first -1: none */
};

/* The most of the last ticks: candidates, each less than the one before it, oldest first. */
struct most {
    struct {
        int64_t tick;
        int n;
    } *v;
    int size, first, length;
};

struct kpa {
    struct autoscaling s;
    double target, total, up, down;
    struct window stable, panic;
    struct most delay; /* size 0: none */
    int64_t panic_us;  /* it panics since, or went on; 0: it does not */
    int panic_most;
    /* what is being seen */
    int64_t seen_us, second; /* second: the one under way */
    uint32_t under_way, came;
    double area; /* calls x us in it */
    bool seen; /* somebody was there in it */
    /* what is wanted */
    int wanted, ready;
    bool begun; /* the initial number was there */
    int64_t looked_us, active_us, inactive_us; /* inactive_us: it may go to none since; 0: it may not */
    struct kpa_view view;
};

/* ---- windows ---- */

static void window_init(struct window *w, int64_t seconds)
{
    *w = (struct window){.seconds = MAX(seconds, (int64_t)1), .first = -1, .last = -1};
    w->bucket = xcalloc((size_t)w->seconds, sizeof *w->bucket);
}

static void window_add(struct window *w, int64_t second, double value)
{
    if (w->first < 0 || second - w->last >= w->seconds) { /* nothing for as long as it is: it begins again */
        memset(w->bucket, 0, (size_t)w->seconds * sizeof *w->bucket);
        w->total = 0;
        w->first = second;
    } else {
        for (int64_t s = w->last + 1; s <= second; s++) {
            w->total -= w->bucket[s % w->seconds];
            w->bucket[s % w->seconds] = 0;
        }
    }
    w->last = MAX(second, w->last);
    w->bucket[second % w->seconds] += value;
    w->total += value;
}

static double window_average(const struct window *w, int64_t second)
{
    double total = w->total;
    int64_t n = MIN(w->last - w->first + 1, w->seconds);

    if (w->first < 0 || second - w->last >= w->seconds)
        return 0;
    if (second > w->last) {
        for (int64_t s = w->last + 1; s <= second; s++)
            total -= w->bucket[s % w->seconds];
        n = MIN(w->last - w->first + 1, w->seconds - (second - w->last));
    }
    return floor(MAX(total, 0.0) / (double)n * 1e6 + 1e-6) / 1e6;
}

/* ---- the delay ---- */

static void most_init(struct most *m, int64_t ms)
{
    *m = (struct most){.size = (int)((ms + TICK_S * 1000 - 1) / (TICK_S * 1000))};
    if (m->size)
        m->v = xcalloc((size_t)m->size, sizeof *m->v);
}

static int most_of(struct most *m, int64_t tick, int n)
{
    /* who is not more and came before can never be the most again */
    while (m->length && m->v[(m->first + m->length - 1) % m->size].n <= n)
        m->length--;
    while (m->length && tick - m->v[m->first].tick >= m->size) {
        m->first = (m->first + 1) % m->size;
        m->length--;
    }
    if (!m->length || m->v[(m->first + m->length - 1) % m->size].tick != tick) {
        m->v[(m->first + m->length) % m->size].tick = tick;
        m->v[(m->first + m->length) % m->size].n = n;
        m->length++;
    } /* else a larger one of the same tick stands there */
    return m->v[m->first].n;
}

/* ---- making ---- */

static void resolve(struct kpa *k, int each)
{
    const struct autoscaling *s = &k->s;

    if (s->rps)
        k->total = s->target > 0 ? s->target : RPS_DEFAULT;
    else
        k->total = s->target > 0 ? MIN(s->target, (double)each) : each;
    k->target = MAX(k->total * s->utilization, 0.01);
}

static int within(const struct kpa *k, int n)
{
    n = MAX(n, k->s.min);
    n = k->s.max ? MIN(n, k->s.max) : n;
    return MIN(MAX(n, 0), SCALE_MAX);
}

static void begin(struct kpa *k)
{
    window_init(&k->stable, k->s.window_ms / 1000);
    window_init(&k->panic, (int64_t)((double)k->s.window_ms * k->s.panic_window / 1000));
}

struct kpa *kpa_new(const struct autoscaling *s, int each, int64_t now_us)
{
    struct kpa *k = xcalloc(1, sizeof *k);

    k->s = *s;
    k->up = UP_MAX;
    k->down = DOWN_MAX;
    resolve(k, each);
    begin(k);
    most_init(&k->delay, s->delay_ms);
    k->seen_us = k->looked_us = k->active_us = now_us;
    k->second = now_us / SECOND_US;
    k->wanted = within(k, s->initial);
    k->view = (struct kpa_view){.target = k->target, .wanted = k->wanted};
    return k;
}

void *kpa_free(struct kpa *k)
{
    if (k) {
        free(k->stable.bucket);
        free(k->panic.bucket);
        free(k->delay.v);
        free(k);
    }
    return NULL;
}

void kpa_change(struct kpa *k, const struct autoscaling *s, int each)
{
    struct autoscaling was = k->s;

    k->s = *s;
    resolve(k, each);
    if (was.rps != s->rps || was.window_ms != s->window_ms || was.panic_window != s->panic_window) {
        free(k->stable.bucket);
        free(k->panic.bucket);
        begin(k);
    }
    if (was.delay_ms != s->delay_ms) {
        free(k->delay.v);
        most_init(&k->delay, s->delay_ms);
    }
    k->wanted = within(k, k->wanted);
    k->view.wanted = k->wanted;
    k->view.target = k->target;
}

const struct autoscaling *kpa_says(const struct kpa *k)
{
    return &k->s;
}

/* ---- seeing ---- */

/* A second is written when it is over, as the next one's: what is told of it comes then. With no instance and no call
 * nobody tells anything. */
static void close_second(struct kpa *k)
{
    double value = k->s.rps ? k->came : k->area / SECOND_US;

    k->second++;
    if (k->seen || k->under_way || k->ready || k->wanted) {
        window_add(&k->stable, k->second, value);
        window_add(&k->panic, k->second, value);
    }
    k->area = 0;
    k->came = 0;
    k->seen = false;
}

static void advance(struct kpa *k, int64_t now_us)
{
    int64_t last = now_us / SECOND_US;

    if (last - k->second > k->stable.seconds + 1) { /* what lies further back than the window does not count */
        k->second = last - k->stable.seconds - 1;
        k->seen_us = k->second * SECOND_US;
        k->area = 0;
        k->came = 0;
    }
    while (k->second < last) {
        int64_t end = (k->second + 1) * SECOND_US;

        k->area += (double)k->under_way * (double)(end - k->seen_us);
        k->seen_us = end;
        close_second(k);
    }
    k->area += (double)k->under_way * (double)MAX(now_us - k->seen_us, (int64_t)0);
    k->seen_us = MAX(now_us, k->seen_us);
}

bool kpa_averages(struct kpa *k, int64_t now_us, double *ret_stable, double *ret_panic)
{
    advance(k, now_us);
    *ret_stable = window_average(&k->stable, k->second);
    *ret_panic = window_average(&k->panic, k->second);
    return k->stable.first >= 0 && k->second - k->stable.last <= k->stable.seconds;
}

bool kpa_seen(struct kpa *k, int calls, int64_t now_us)
{
    advance(k, now_us);
    k->under_way = calls < 0 && (uint32_t)-calls > k->under_way ? 0 : k->under_way + (uint32_t)calls;
    k->came += (uint32_t)MAX(calls, 0);
    k->seen = true;
    if (calls <= 0 || k->wanted)
        return false;
    k->wanted = k->view.wanted = within(k, MAX(k->s.activation, 1));
    k->active_us = k->looked_us = now_us;
    k->inactive_us = 0;
    return true;
}

/* ---- deciding ---- */

static double clamp(double n, double low, double high)
{
    return MIN(MAX(n, low), high);
}

int kpa_decide(struct kpa *k, double stable, double panic, int ready, int64_t now_us)
{
    double have = MAX(ready, 1);
    double high = MIN(ceil(k->up * have), (double)SCALE_MAX), low = floor(have / k->down);
    double by_stable = ceil(stable / k->target), by_panic = ceil(panic / k->target);
    int n = (int)clamp(by_stable, low, high), n_panic = (int)clamp(by_panic, low, high);
    bool over = by_panic / have >= k->s.panic_threshold;

    if (k->s.activation > 1) {
        n = by_stable > 0 ? MAX(n, k->s.activation) : n;
        n_panic = by_panic > 0 ? MAX(n_panic, k->s.activation) : n_panic;
    }
    if (over) {
        k->panic_us = MAX(now_us, (int64_t)1);
    } else if (k->panic_us && now_us - k->panic_us > k->s.window_ms * 1000) {
        k->panic_us = 0; /* what surged is in the stable window by now */
        k->panic_most = 0;
    }
    if (k->panic_us)
        n = k->panic_most = MAX(MAX(n, n_panic), k->panic_most);
    if (k->delay.size)
        n = most_of(&k->delay, now_us / (TICK_S * SECOND_US), n);
    k->view.stable = stable;
    k->view.panic = panic;
    k->view.panics = k->panic_us != 0;
    k->view.excess = k->s.burst == 0  ? 0
                     : k->s.burst < 0 ? -1
                                      : (int)clamp(floor(ready * k->total - k->s.burst - panic), INT32_MIN, INT32_MAX);
    return n;
}

/* The last one stays while it has not been wanted for a window, and for the time that it is to be retained. */
static int to_none(struct kpa *k, int64_t now_us)
{
    if (!k->inactive_us && now_us - k->active_us < k->s.window_ms * 1000)
        return 1;
    if (!k->inactive_us)
        k->inactive_us = now_us;
    return now_us - k->inactive_us < k->s.retention_ms * 1000 ? 1 : 0;
}

bool kpa_look(struct kpa *k, int ready, int64_t now_us)
{
    double stable, panic;
    int n;

    k->ready = ready;
    if (now_us - k->looked_us < TICK_S * SECOND_US)
        return false;
    k->looked_us = now_us;
    if (!kpa_averages(k, now_us, &stable, &panic))
        return false;
    n = within(k, kpa_decide(k, stable, panic, ready, now_us));
    k->begun |= ready >= within(k, k->s.initial);
    if (!k->begun)
        n = MAX(n, within(k, k->s.initial));
    if (n > 0) {
        if (!k->wanted || k->inactive_us)
            k->active_us = now_us;
        k->inactive_us = 0;
    } else if (k->wanted) {
        n = within(k, to_none(k, now_us));
    }
    k->wanted = k->view.wanted = n;
    return true;
}

int kpa_wanted(const struct kpa *k)
{
    return k->wanted;
}

void kpa_rates(struct kpa *k, double target, double total, double up, double down)
{
    k->target = k->view.target = target;
    k->total = total;
    k->up = up;
    k->down = down;
}

struct kpa_view kpa_view(const struct kpa *k)
{
    return k->view;
}
