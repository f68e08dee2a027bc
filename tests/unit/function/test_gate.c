/* How many short calls run at once: the policy on a clock of its own, then a function. The part with processes needs root;
 * it says so and passes without. */
#include "tt.h"

#include "function/function_int.h"
#include "function/host.h"

enum { CALLS_MAX = 512, STEP_US = 50, CORES = 2 };

/* A pool in small: instances that are idle, calls that wait or are at work; each works as long as it likes, all at once. */
struct sim {
    struct gates all;
    struct gate gate;
    int64_t now, start_us;
    int made, idle, at_work, at_work_max, ended, waiting;
    int64_t waited_max_us;
    struct sim_call {
        struct gate_pass pass;
        int64_t came_us, work_us, end_us; /* end: 0: it waits */
        bool warm;
    } calls[CALLS_MAX];
    int first, n; /* who waits first, how many came */
};

static void sim_feed(struct sim *s)
{
    while (s->first < s->n) {
        struct sim_call *c = &s->calls[s->first];
        enum gate_says says = gate_ask(&s->gate, c->came_us, s->now);

        if (says == GATE_WAIT || (says == GATE_WARM && !s->idle))
            return;
        c->warm = s->idle > 0;
        if (c->warm)
            s->idle--;
        else
            s->made++;
        c->end_us = s->now + c->work_us + (c->warm ? 0 : s->start_us);
        gate_in(&s->gate, &c->pass, c->warm, s->start_us, s->now);
        s->waited_max_us = MAX(s->waited_max_us, s->now - c->came_us);
        s->at_work_max = MAX(s->at_work_max, ++s->at_work);
        s->first++;
    }
}

static void sim_step(struct sim *s)
{
    s->now += STEP_US;
    for (int i = 0; i < s->first; i++) {
        struct sim_call *c = &s->calls[i];

        if (!c->end_us || c->end_us > s->now)
            continue;
        c->end_us = 0;
        gate_out(&s->gate, &c->pass);
        gate_seen(&s->gate, &c->pass, c->work_us, c->work_us + 30);
        s->idle++;
        s->at_work--;
        s->ended++;
        sim_feed(s);
    }
    if (s->now % 1000 == 0 && s->first < s->n) { /* the timer */
        gate_look(&s->gate);
        sim_feed(s);
    }
}

static void sim_call(struct sim *s, int64_t work_us)
{
    s->calls[s->n++] = (struct sim_call){.came_us = s->now, .work_us = work_us};
    if (s->first == s->n - 1)
        sim_feed(s);
}

static void sim_end(struct sim *s)
{
    for (int i = 0; s->ended < s->n; i++) {
        assert_true(i < 1000000); /* somebody waits for ever */
        sim_step(s);
    }
    assert_int_equal(s->gate.n, 0);
    assert_true(list_empty(&s->gate.at_work));
}

static void sim_begin(struct sim *s)
{
    *s = (struct sim){.start_us = 1500, .all = {.cores = CORES}};
    gate_init(&s->gate, &s->all);
    s->now = 1000000;
}

/* One after the other, until the gate knows them. */
static void sim_learn(struct sim *s, int64_t work_us)
{
    sim_begin(s);
    for (int i = 0; i < 20; i++) {
        sim_call(s, work_us);
        sim_end(s);
    }
    assert_int_equal(s->made, 1);
}

/* Goal: where nothing is known all start at once. */
static void a_first_burst_passes(void **state)
{
    static struct sim s;

    (void)state;
    sim_begin(&s);
    for (int i = 0; i < 64; i++)
        sim_call(&s, 50);
    assert_int_equal(s.made, 64);
    assert_int_equal(s.at_work, 64);
    sim_end(&s);
}

/* Goal: a burst of short calls is served by few, in the order in which they came, and long before a machine has forked 64. */
static void short_calls_need_few(void **state)
{
    static struct sim s;
    int64_t began;

    (void)state;
    sim_learn(&s, 50);
    assert_true(gate_shut(&s.gate));
    s.at_work_max = 0;
    began = s.now;
    for (int i = 0; i < 64; i++)
        sim_call(&s, 50);
    assert_int_equal(s.at_work, CORES); /* as many as can run are given somebody at once, new or not */
    sim_end(&s);
    assert_true(s.at_work_max <= (int)gate_limit(&s.all) && s.made <= (int)gate_limit(&s.all));
    assert_true(s.now - began < 3000);
}

/* Goal: calls that sleep all at once hold nobody up for long: the first of them open the gate. And then it shuts again. */
static void calls_that_get_long_open_it(void **state)
{
    static struct sim s;

    (void)state;
    sim_learn(&s, 50);
    for (int i = 0; i < 64; i++)
        sim_call(&s, 1000000);
    for (int i = 0; i < 200; i++) /* 10 ms */
        sim_step(&s);
    assert_int_equal(s.at_work, 64);
    assert_true(s.waited_max_us <= 6000);
    sim_end(&s);
    for (int i = 0; i < 30; i++) {
        sim_call(&s, 50);
        sim_end(&s);
    }
    assert_true(gate_shut(&s.gate));
}

/* Goal: what sits in the middle is open: it is not CPU time alone. */
static void calls_of_a_millisecond_pass(void **state)
{
    static struct sim s;

    (void)state;
    sim_begin(&s);
    for (int i = 0; i < 20; i++) {
        sim_call(&s, 1000);
        sim_end(&s);
    }
    for (int i = 0; i < 16; i++)
        sim_call(&s, 1000);
    assert_int_equal(s.at_work, 16);
    sim_end(&s);
}

/* Goal: whatever handlers do, no call waits longer than the gate's promise, and everybody is served in the end.
 * Method: calls at random times of random lengths, some of them long. */
TT_PROP(gate, keeps_its_promise, 300)
{
    static struct sim s;
    uint32_t longs = tt_below(rng, 100), pause = tt_below(rng, 8);
    int waits = 0;

    sim_learn(&s, 50);
    for (int i = 0; i < 400; i++) {
        for (uint32_t k = tt_below(rng, pause + 1); k > 0; k--)
            sim_step(&s);
        sim_call(&s, tt_below(rng, 100) < longs ? 300 + tt_below(rng, 200000) : tt_below(rng, 250));
        waits = MAX(waits, s.n - s.first);
        TT_OK(s.gate.n <= gate_limit(&s.all));
    }
    sim_end(&s);
    /* at the worst all before it were long, of a start, and seen late: the same again for those a timer looks at late */
    TT_OK(s.waited_max_us <= (waits / (int)gate_limit(&s.all) + 1) * (10000 + 500 + 1000));
}

/* 64 who call again as soon as they are answered; CPU: the cores are shared among those at work, else each sleeps. Gives
 * back how many were answered in so many us; *ret_at_work: how many were at work on average in the last half. */
static int closed_loop(int64_t work_us, bool cpu, int64_t us, uint32_t cores, double *ret_at_work)
{
    enum { CALLERS = 64 };
    struct gates all = {.cores = cores};
    struct gate g;
    struct { struct gate_pass pass; int64_t since_us, out_us; double left_us; bool out; } c[CALLERS] = {0};
    int queue[CALLERS], waiting = CALLERS, answered = 0, out = 0;
    double sum = 0, steps = 0;

    gate_init(&g, &all);
    for (int i = 0; i < CALLERS; i++)
        queue[i] = i;
    for (int64_t now = 10; now < us; now += 10) {
        int were = out;

        for (int i = 0; i < CALLERS; i++) {
            if (!c[i].out || (c[i].left_us -= cpu ? 10 * MIN(1.0, (double)MAX(cores, 2u) / were) : 10) > 0)
                continue;
            c[i].out = false;
            c[i].since_us = now;
            out--;
            answered++;
            gate_out(&g, &c[i].pass);
            gate_seen(&g, &c[i].pass, now - c[i].out_us, now - c[i].out_us + 20);
            queue[waiting++] = i;
        }
        if (now % 1000 == 0 && waiting)
            gate_look(&g);
        while (waiting && gate_ask(&g, c[queue[0]].since_us, now) != GATE_WAIT) {
            int i = queue[0];

            memmove(queue, queue + 1, (size_t)--waiting * sizeof *queue);
            c[i].out = true;
            c[i].out_us = now;
            c[i].left_us = (double)work_us;
            gate_in(&g, &c[i].pass, true, 1500, now);
            out++;
        }
        if (now > us / 2) {
            sum += out;
            steps++;
        }
    }
    *ret_at_work = sum / steps;
    return answered;
}

/* Goal: calls that look long only because 64 of them share two cores are found out; calls that sleep for as long are, too,
 * and lose next to nothing by being tried. */
static void crowds_are_told_from_sleepers(void **state)
{
    double at_work;
    int open, gated;

    (void)state;
    closed_loop(60, true, 2000000, CORES, &at_work);
    assert_true(at_work <= 2 * CORES + 1);
    for (int64_t ms = 1; ms <= 8; ms *= 2) {
        open = closed_loop(ms * 1000, false, 4000000, 0, &at_work);
        gated = closed_loop(ms * 1000, false, 4000000, CORES, &at_work);
        assert_true(gated > open * 0.95 && at_work > 60);
    }
}

/* Goal: two that call without a pause have the same share; a third one is never held up by them. */
static void versions_share_the_machine(void **state)
{
    struct gates all = {.cores = 4};
    struct gate noisy[2], quiet;
    struct gate_pass passes[2][8] = {0}, p = {0}, known = {.warm = true};
    uint32_t let_in[2] = {0};

    (void)state;
    gate_init(&quiet, &all);
    for (int k = 0; k < 2; k++)
        gate_init(&noisy[k], &all);
    for (int i = 0; i < 20; i++) {
        gate_seen(&noisy[0], &known, 50, 80);
        gate_seen(&noisy[1], &known, 50, 80);
        gate_seen(&quiet, &known, 50, 80);
    }
    while (let_in[0] < 8 && gate_ask(&noisy[0], 0, 100) != GATE_WAIT)
        gate_in(&noisy[0], &passes[0][let_in[0]++], true, 0, 100);
    assert_int_equal(let_in[0], gate_limit(&all)); /* alone: all of it */
    assert_int_equal(gate_ask(&quiet, 100, 100), GATE_ANY);
    for (int round = 0; round < 50; round++) { /* one ends, and whoever may takes its place; the second one comes along */
        if (let_in[0])
            gate_out(&noisy[0], &passes[0][--let_in[0]]);
        if (let_in[1])
            gate_out(&noisy[1], &passes[1][--let_in[1]]);
        for (int k = 0; k < 2; k++)
            while (let_in[k] < 8 && gate_ask(&noisy[k], 0, 100) != GATE_WAIT)
                gate_in(&noisy[k], &passes[k][let_in[k]++], true, 0, 100);
    }
    assert_int_equal(let_in[0], gate_limit(&all) / 2);
    assert_int_equal(let_in[1], gate_limit(&all) / 2);
    assert_int_equal(gate_ask(&quiet, 100, 100), GATE_ANY);
    gate_in(&quiet, &p, true, 0, 100);
    assert_int_equal(all.active, 3);
    gate_out(&quiet, &p);
    gate_out(&quiet, &p);
    for (int k = 0; k < 2; k++)
        while (let_in[k])
            gate_out(&noisy[k], &passes[k][--let_in[k]]);
    assert_int_equal(all.active, 0);
}

/* ---- a function ---- */

static struct host host;

static void put(const char *name)
{
    struct answer a;

    host_function(&host, name, "import time\ndef lambda_handler(e, c):\n    t = time.time()\n    time.sleep(e['s'])\n    return [t, time.time()]\n",
                  "\"timeoutSeconds\":30");
    for (int i = 0; i < 40; i++) {
        host_call(&host, name, "{\"s\":0}", &a);
        assert_int_equal(a.err.code, ERR_OK);
        answer_done(&a);
    }
}

static void crowd(const char *name, const char *event, int n, struct answer *answers)
{
    for (int i = 0; i < n; i++)
        host_send(&host, name, event, &answers[i]);
    for (int i = 0; i < n; i++) {
        host_wait(&host, &answers[i]);
        assert_int_equal(answers[i].err.code, ERR_OK);
        assert_null(answers[i].error);
    }
}

static uint32_t instances(const char *name)
{
    const struct version *v = function_find(host.fs, NULL, name)->now;

    return v->instances_n;
}

/* Goal: 64 short calls at once need few instances. A busy machine makes calls look long: some round is quiet enough. */
static void short_calls_share_instances(void **state)
{
    struct answer a[64];
    uint32_t least = UINT32_MAX;

    (void)state;
    for (int round = 0; round < 20 && least > 16; round++) {
        char name[16];

        snprintf(name, sizeof name, "short%d", round);
        put(name);
        crowd(name, "{\"s\":0}", 64, a);
        least = MIN(least, instances(name));
        for (int i = 0; i < 64; i++)
            answer_done(&a[i]);
    }
    assert_true(least <= 16);
}

/* Goal: the same function, once its calls wait for something, has as many instances as calls. Method: each tells when it
 * ran; all of them ran when the first one ended. */
static void slow_calls_run_at_once(void **state)
{
    struct answer a[24];
    double last_start = 0, first_end = 1e18;

    (void)state;
    put("slow");
    crowd("slow", "{\"s\":4}", 24, a);
    for (int i = 0; i < 24; i++) {
        double start, end;

        assert_int_equal(sscanf(a[i].payload, "[%lf, %lf]", &start, &end), 2);
        last_start = MAX(last_start, start);
        first_end = MIN(first_end, end);
        answer_done(&a[i]);
    }
    assert_true(last_start < first_end);
    assert_true(instances("slow") >= 24);
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(a_first_burst_passes),
        cmocka_unit_test(short_calls_need_few),
        cmocka_unit_test(calls_that_get_long_open_it),
        cmocka_unit_test(calls_of_a_millisecond_pass),
        cmocka_unit_test(tt_gate_keeps_its_promise),
        cmocka_unit_test(versions_share_the_machine),
        cmocka_unit_test(crowds_are_told_from_sleepers),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_calls_share_instances),
        cmocka_unit_test(slow_calls_run_at_once),
    };
    int failed = cmocka_run_group_tests(pure, NULL, NULL);
    struct functions_options o = {.keep_ms = 60000, .cores = CORES};
    struct err err;

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return failed;
    }
    assert_int_equal(host_start(&host, &o, &err), 0);
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    host_stop(&host);
    host_remove(&host);
    return failed;
}
