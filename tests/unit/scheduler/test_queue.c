/* The queue of waiting pods: order, pauses, and that nobody is forgotten. */
#include "tt.h"

#include "scheduler/queue.h"

static const struct obj *pod(uint32_t i, int64_t priority)
{
    char text[160];
    struct err err;
    int n = snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"p\",\"uid\":\"%u\"},\"spec\":{\"priority\":%lld}}", i, (long long)priority);

    return obj_load(text, (size_t)n, 1, &err);
}

static void put(struct queue *q, uint32_t i, int64_t priority, int64_t now)
{
    _auto_(obj_unrefp) const struct obj *o = pod(i, priority);

    waitq_put(q, o, now, true);
}

static const char *first(struct queue *q)
{
    return queue_first(q) ? queue_first(q)->pod->uid : "";
}

static void priority_then_order(void **state)
{
    struct queue q;

    queue_init(&q);
    put(&q, 1, 0, 0);
    put(&q, 2, 10, 0);
    put(&q, 3, 0, 0);
    put(&q, 4, 10, 0);
    assert_string_equal(first(&q), "2");
    queue_drop(&q, "2");
    assert_string_equal(first(&q), "4");
    queue_drop(&q, "4");
    assert_string_equal(first(&q), "1");
    queue_done(&q);
}

static void unfit_wait_for_news_and_their_pause(void **state)
{
    struct queue q;

    queue_init(&q);
    put(&q, 1, 0, 0);
    queue_unfit(&q, queue_first(&q), 0);
    assert_int_equal(queue_wake(&q, 30000), 60000); /* nothing changed: nobody tries */
    assert_string_equal(first(&q), "");
    queue_stir(&q, 30000);
    assert_string_equal(first(&q), "1");
    queue_unfit(&q, queue_first(&q), 30000); /* second time: 2 s */
    queue_stir(&q, 30001);
    assert_string_equal(first(&q), "");
    assert_int_equal(queue_wake(&q, 30001), 32000);
    queue_wake(&q, 32000);
    assert_string_equal(first(&q), "1");
    queue_unfit(&q, queue_first(&q), 32000);
    queue_wake(&q, 92000); /* a minute passed: in case some news was missed */
    assert_string_equal(first(&q), "1");
    queue_done(&q);
}

/* Goal: whoever was put and not dropped comes up in the end, in the right order. Method: random
 * calls against a model; then time passes and all are taken. */
TT_PROP(queue, forgets_nobody, 200)
{
    enum { N = 12 };
    struct queue q;
    bool in[N] = {0};
    int64_t priority[N], now = 0, last = INT64_MAX;
    uint32_t left = 0;

    for (int i = 0; i < N; i++)
        priority[i] = tt_below(rng, 3);
    queue_init(&q);
    for (int step = 0; step < 200; step++) {
        uint32_t i = tt_below(rng, N), dice = tt_below(rng, 6);
        struct waiting *w = queue_first(&q);
        char uid[12];

        snprintf(uid, sizeof uid, "%u", i);
        now += tt_below(rng, 700);
        if (dice < 2) {
            put(&q, i, priority[i], now);
            in[i] = true;
        } else if (dice == 2) {
            queue_drop(&q, uid);
            in[i] = false;
        } else if (dice == 3 && w) {
            queue_unfit(&q, w, now);
        } else if (dice == 4 && w) {
            queue_pause(&q, w, now);
        } else {
            tt_below(rng, 2) ? queue_stir(&q, now) : (void)queue_wake(&q, now);
        }
    }
    queue_wake(&q, now + 100000);
    for (int i = 0; i < N; i++)
        left += in[i];
    TT_OK(q.unfit_n == 0 && q.heap_n == left);
    while (queue_first(&q)) {
        uint32_t i = (uint32_t)atoi(first(&q));

        TT_OK(in[i] && priority[i] <= last);
        last = priority[i];
        queue_drop(&q, queue_first(&q)->pod->uid);
        left--;
    }
    TT_OK(left == 0);
    queue_done(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(priority_then_order),
        cmocka_unit_test(unfit_wait_for_news_and_their_pause),
        cmocka_unit_test(tt_queue_forgets_nobody),
    };

    return cmocka_run_group_tests_name("scheduler-queue", tests, NULL, NULL);
}
