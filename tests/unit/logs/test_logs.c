/* Log groups: what is read agrees with a model of what was said, over restarts; bounds hold; patterns. */
#include "tt.h"

#include "base/buf.h"
#include "base/log.h"
#include "logs/logs.h"
#include "logs/pattern.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

struct world {
    uv_loop_t loop;
    char dir[64];
    struct logs *l;
    bool done;
    uint64_t group_max;
};

static void set_done(void *arg)
{
    ((struct world *)arg)->done = true;
}

static void wait_done(struct world *w)
{
    while (!w->done)
        uv_run(&w->loop, UV_RUN_ONCE);
    w->done = false;
}

static void open_logs(struct world *w)
{
    struct err err;

    w->l = logs_new(&(struct logs_options){.loop = &w->loop, .dir = w->dir, .group_bytes_max = w->group_max}, &err);
    assert_non_null(w->l);
}

static void close_logs(struct world *w)
{
    logs_stop(w->l, set_done, w);
    wait_done(w);
}

static void world_new(struct world *w)
{
    *w = (struct world){0};
    snprintf(w->dir, sizeof w->dir, "/tmp/tt-logs-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    uv_loop_init(&w->loop);
    open_logs(w);
}

static void world_free(struct world *w)
{
    char cmd[128];

    close_logs(w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", w->dir);
    assert_int_equal(system(cmd), 0);
}

struct got {
    struct world *w;
    struct arena *a;
    int64_t *times;
    const char **texts;
    uint32_t n, cap;
    struct log_pos next;
    bool end;
    enum err_code code;
};

static void on_page(void *arg, const struct log_page *p, const struct err *err)
{
    struct got *g = arg;

    g->w->done = true;
    g->code = err ? err->code : ERR_OK;
    if (err)
        return;
    for (uint32_t i = 0; i < p->n; i++) {
        assert_true(g->n < g->cap);
        assert_true(i == 0 || log_pos_compare(p->events[i - 1].pos, p->events[i].pos) < 0);
        g->times[g->n] = p->events[i].time_ms;
        g->texts[g->n++] = arena_printf(g->a, "%s %s", p->events[i].stream, p->events[i].text);
    }
    g->next = p->next;
    g->end = p->end;
}

static void got_new(struct got *g, struct world *w, uint32_t cap)
{
    *g = (struct got){.w = w, .a = arena_new(), .cap = cap};
    g->times = arena_array(g->a, int64_t, cap);
    g->texts = arena_array(g->a, const char *, cap);
}

static void ask(struct got *g, struct log_query q)
{
    logs_query(g->w->l, &q, on_page, g);
    wait_done(g->w);
}

/* All pages, forward. */
static void ask_all(struct got *g, struct log_query q)
{
    int pages = 0;

    q.at = LOG_POS_FIRST;
    do {
        ask(g, q);
        assert_int_equal(g->code, ERR_OK);
        q.at = g->next;
        assert_true(++pages < 100000);
    } while (!g->end);
}

struct model {
    int64_t time;
    uint32_t seq;
    char text[48];
};

static int model_order(const void *a, const void *b)
{
    const struct model *x = a, *y = b;

    return x->time != y->time ? (x->time < y->time ? -1 : 1) : x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Goal: a reader gets exactly what was said, in the order of time, page by page, whatever the times were and whenever
 * the room was closed and opened. Method: random lines into random streams against an array. */
TT_PROP(logs, readers_get_what_was_said, 12)
{
    enum { LINES = 3000, STREAMS = 7 };
    struct world w;
    struct got g;
    struct model *m = calloc(LINES, sizeof *m);
    uint32_t n = 0, restarts = 0;

    world_new(&w);
    for (; n < LINES; n++) {
        char stream[8], pad[4000];
        uint32_t s = tt_below(rng, STREAMS), len = tt_below(rng, 50) ? tt_below(rng, 30) : tt_below(rng, sizeof pad - 1);

        snprintf(stream, sizeof stream, "s%u", s);
        m[n].time = 1700000000000 + (tt_below(rng, 10) ? n : tt_below(rng, LINES));
        m[n].seq = n;
        snprintf(m[n].text, sizeof m[n].text, "%s %u.", stream, n);
        memset(pad, 'x', sizeof pad);
        snprintf(pad, 20, "%u.", n);
        pad[strlen(pad)] = 'x';
        pad[MAX(len, 20u)] = 0;
        logs_line(w.l, "default", "g", stream, m[n].time, pad, strlen(pad));
        if (tt_below(rng, 600) == 0) {
            close_logs(&w);
            open_logs(&w);
            restarts++;
        }
        if (tt_below(rng, 300) == 0)
            uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    qsort(m, n, sizeof *m, model_order);

    got_new(&g, &w, n);
    ask_all(&g, (struct log_query){.ns = "default", .group = "g", .from_ms = 0, .to_ms = INT64_MAX, .limit = 1 + tt_below(rng, 500)});
    TT_OK(g.n == n);
    for (uint32_t i = 0; i < n; i++)
        TT_OK(g.times[i] == m[i].time && str_starts(g.texts[i], m[i].text));
    arena_free(g.a);

    /* one stream, a range, backward in pages */
    char want[8];
    snprintf(want, sizeof want, "s%u", tt_below(rng, STREAMS));
    int64_t from = 1700000000000 + tt_below(rng, LINES), to = from + tt_below(rng, LINES);
    struct log_query q = {.ns = "default", .group = "g", .streams = (const char *[]){want}, .streams_n = 1, .from_ms = from, .to_ms = to,
                          .at = LOG_POS_LAST, .backward = true, .limit = 1 + tt_below(rng, 60)};
    uint32_t left = n, read = 0;
    for (bool end = false; !end;) {
        got_new(&g, &w, n);
        ask(&g, q);
        q.at = g.next;
        end = g.end;
        for (uint32_t i = g.n; i-- > 0; read++) {
            while (left-- > 0 && !(m[left].time >= from && m[left].time < to && str_starts(m[left].text, want)))
                ;
            TT_OK(g.times[i] == m[left].time && str_starts(g.texts[i], m[left].text));
        }
        arena_free(g.a);
    }
    for (; left > 0; left--)
        TT_OK(!(m[left - 1].time >= from && m[left - 1].time < to && str_starts(m[left - 1].text, want)));
    (void)restarts;
    (void)read;
    world_free(&w);
    free(m);
}

static void on_put(void *arg, const struct err *err)
{
    struct world *w = arg;

    assert_null(err);
    w->done = true;
}

static void put_one(struct world *w, const char *stream, int64_t time, const char *text)
{
    struct err err;
    struct log_put p = {time, text, strlen(text)};

    assert_int_equal(logs_put(w->l, "default", "g", stream, &p, 1, on_put, w, &err), 0);
    wait_done(w);
}

/* Goal: what was acknowledged is there after a kill, a torn end is cut off and written over. Method: the folder is
 * copied while the room is open, as a kill leaves it, garbage is put behind it, and the copy is opened. */
static void test_killed(void **state)
{
    struct world w, k = {0};
    struct err err;
    struct got g;
    char cmd[300];

    (void)state;
    world_new(&w);
    assert_int_equal(logs_group_put(w.l, "default", "g", "uid-1", 0, &err), 0);
    assert_int_equal(logs_stream_make(w.l, "default", "g", "s", &err), 0);
    assert_int_equal(logs_stream_make(w.l, "default", "g", "s", &err), -1);
    assert_int_equal(err.code, ERR_ALREADY_EXISTS);
    put_one(&w, "s", 1000, "one");
    put_one(&w, "s", 2000, "two");
    snprintf(k.dir, sizeof k.dir, "%.50s-copy", w.dir);
    snprintf(cmd, sizeof cmd, "cp -a %s %s && for f in %s/*/*.log; do printf 'torn off here and no record' >> $f; done", w.dir, k.dir, k.dir);
    assert_int_equal(system(cmd), 0);
    uv_loop_init(&k.loop);
    open_logs(&k);
    put_one(&k, "s", 3000, "three");
    got_new(&g, &k, 10);
    ask_all(&g, (struct log_query){.ns = "default", .group = "g", .to_ms = INT64_MAX});
    assert_int_equal(g.n, 3);
    assert_string_equal(g.texts[2], "s three");
    arena_free(g.a);
    struct log_group_info info;
    assert_true(logs_group_get(k.l, "default", "g", &info));
    assert_string_equal(info.uid, "uid-1");
    assert_int_equal(info.streams, 1);

    /* a deleted stream stays deleted, its events with it */
    assert_int_equal(logs_stream_remove(k.l, "default", "g", "s", &err), 0);
    close_logs(&k);
    open_logs(&k);
    got_new(&g, &k, 10);
    ask_all(&g, (struct log_query){.ns = "default", .group = "g", .to_ms = INT64_MAX});
    assert_int_equal(g.n, 0);
    arena_free(g.a);
    logs_group_remove(k.l, "default", "g", "another uid");
    assert_true(logs_group_get(k.l, "default", "g", &info));
    logs_group_remove(k.l, "default", "g", "uid-1");
    assert_false(logs_group_get(k.l, "default", "g", &info));
    close_logs(&k);
    open_logs(&k);
    assert_false(logs_group_get(k.l, "default", "g", &info));
    world_free(&k);
    world_free(&w);
}

/* Goal: a printer without end fills neither memory nor disk, and what is lost is told by number. */
static void test_bounded(void **state)
{
    struct world w;
    struct got g;
    struct log_group_info info;
    char line[1000];
    uint64_t lost = 0, told = 0;

    (void)state;
    world_new(&w);
    close_logs(&w);
    w.group_max = 10 << 20;
    open_logs(&w);
    memset(line, 'y', sizeof line);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 3000; i++)
            logs_line(w.l, "default", "g", "s", 1700000000000 + round, line, sizeof line);
        got_new(&g, &w, 20000); /* waits until it is written */
        ask(&g, (struct log_query){.ns = "default", .group = "g", .from_ms = 1700000000000 + round, .to_ms = INT64_MAX, .at = LOG_POS_LAST, .backward = true, .limit = 1});
        arena_free(g.a);
    }
    assert_true(logs_group_get(w.l, "default", "g", &info));
    assert_true(info.bytes < (16 << 20));
    assert_true(info.bytes > (4 << 20));
    got_new(&g, &w, 200000);
    struct err err;
    ask_all(&g, (struct log_query){.ns = "default", .group = "g", .to_ms = INT64_MAX, .pattern = log_pattern_parse("\"lines\"", &err)});
    for (uint32_t i = 0; i < g.n; i++)
        told += strstr(g.texts[i], "were lost here") != NULL;
    arena_free(g.a);
    (void)lost;
    assert_true(told > 0);
    world_free(&w);
}

static void on_retained(struct world *w, uint32_t want)
{
    struct got g;

    got_new(&g, w, 10);
    ask_all(&g, (struct log_query){.ns = "default", .group = "g", .to_ms = INT64_MAX});
    assert_int_equal(g.n, want);
    arena_free(g.a);
}

static void test_retention_hides(void **state)
{
    struct world w;
    struct err err;
    struct timespec t;

    (void)state;
    clock_gettime(CLOCK_REALTIME, &t);
    world_new(&w);
    assert_int_equal(logs_group_put(w.l, "default", "g", NULL, 0, &err), 0);
    assert_int_equal(logs_stream_make(w.l, "default", "g", "s", &err), 0);
    put_one(&w, "s", (t.tv_sec - 3 * 86400) * 1000, "old");
    put_one(&w, "s", t.tv_sec * 1000, "new");
    on_retained(&w, 2);
    assert_int_equal(logs_group_put(w.l, "default", "g", NULL, 1, &err), 0);
    on_retained(&w, 1);
    world_free(&w);
}

static void test_patterns(void **state)
{
    static const struct {
        const char *pattern, *text;
        int want; /* -1: no pattern */
    } rows[] = {
        {"", "anything", 1},
        {"ERROR", "[ERROR] 400 bad", 1},
        {"ERROR", "error", 0},
        {"ERROR timeout", "timeout after ERROR", 1},
        {"ERROR timeout", "ERROR only", 0},
        {"\"out of memory\"", "it ran out of memory", 1},
        {"\"out of memory\"", "out of a memory", 0},
        {"?ERROR ?WARN", "a WARN here", 1},
        {"?ERROR ?WARN", "INFO", 0},
        {"ERROR -EXITING", "ERROR EXITING", 0},
        {"ERROR -EXITING", "ERROR", 1},
        {"?A B", "B", 1},
        {"-DEBUG", "INFO", 1},
        {"%4[0-9]{2}%", "status 404", 1},
        {"%4[0-9]{2}%", "status 504", 0},
        {"\"open", "x", -1},
        {"{ $.a = \"x\" }", "{\"a\":\"x\"}", 1},
        {"{ $.a = x* }", "{\"a\":\"xyz\"}", 1},
        {"{ $.a = x* }", "{\"a\":\"yxz\"}", 0},
        {"{ $.a != \"x\" }", "{\"b\":1}", 0},
        {"{ $.a.b[1].c > 10 }", "{\"a\":{\"b\":[0,{\"c\":11.5}]}}", 1},
        {"{ $.a.b[1].c > 10 }", "{\"a\":{\"b\":[0,{\"c\":10}]}}", 0},
        {"{ ($.a = 1 || $.b = 2) && $.c IS TRUE }", "{\"b\":2,\"c\":true}", 1},
        {"{ ($.a = 1 || $.b = 2) && $.c IS TRUE }", "{\"b\":2,\"c\":false}", 0},
        {"{ $.a NOT EXISTS }", "{\"b\":2}", 1},
        {"{ $.a IS NULL }", "{\"a\":null}", 1},
        {"{ $.['a b'] = 1 }", "{\"a b\":1}", 1},
        {"{ $.a = %^h.llo$% }", "{\"a\":\"hello\"}", 1},
        {"{ $.a = 1 }", "no json", 0},
        {"{ $.a = 1", "x", -1},
        {"{ $.a }", "x", -1},
        {"{ a = 1 }", "x", -1},
        {"{ $.a > x }", "x", -1},
        {"[ip, user, ..., status = 4*, bytes > 100]", "1.2.3.4 frank [10/Oct/2000 13:25] \"GET / HTTP\" 404 1534", 1},
        {"[ip, user, ..., status = 4*, bytes > 100]", "1.2.3.4 frank [10/Oct/2000 13:25] \"GET / HTTP\" 200 1534", 0},
        {"[ip, user, ..., status = 4*, bytes > 100]", "1.2.3.4 frank 404 99", 0},
        {"[a, b != x && b != y]", "1 z", 1},
        {"[a, b != x && b != y]", "1 y", 0},
        {"[a, b]", "1 2 3", 0},
        {"[a = 1 || a = 2, b]", "2 3", 1},
        {"[..., ...]", "x", -1},
        {"[]", "x y", 1},
        {"[a, b", "x", -1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};
        _auto_(log_pattern_freep) struct log_pattern *p = log_pattern_parse(rows[i].pattern, &err);
        int got = p ? log_pattern_match(p, rows[i].text, strlen(rows[i].text)) : -1;

        if (got != rows[i].want)
            fprintf(stderr, "%s on %s: %d %s\n", rows[i].pattern, rows[i].text, got, err.msg);
        assert_int_equal(got, rows[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tt_logs_readers_get_what_was_said),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_retention_hides),
        cmocka_unit_test(test_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
