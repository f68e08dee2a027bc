/* The language of Logs Insights: what comes from several log groups, and what is refused or left out for being too much.
 * Queries of a real gateway: tests/real/test_insights.py. */
#include "tt.h"

#include "base/buf.h"
#include "door/aws/logs/insights.h"

#include <stdio.h>

struct world {
    struct arena *a, *scratch;
    struct iq *q;
};

static void ask(struct world *w, const char *text)
{
    struct err err = {0};

    w->a = arena_new();
    w->scratch = arena_new();
    w->q = insights_query_parse(w->a, text, strlen(text), &err);
    if (!w->q)
        fail_msg("%s", err.msg);
}

static void over(struct world *w)
{
    arena_free(w->a);
    arena_free(w->scratch);
}

static bool event(struct world *w, int64_t ms, const char *text)
{
    bool more = insights_query_event(w->q, w->scratch, "/g", &(struct log_event){.pos = {ms, 1, 1}, .time_ms = ms, .stream = "s", .text = text, .n = strlen(text)});

    arena_reset(w->scratch); /* nothing of it is kept */
    return more;
}

/* The first fields of the rows, one behind the other. */
static const char *firsts(struct world *w)
{
    struct buf b = {0};
    const char *text;

    VAL_EACH(insights_query_results(w->q, w->a, 0), row)
        buf_printf(&b, "%s ", val_str_at(&row->items[0], "value", ""));
    text = arena_strndup(w->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

/* Each group is asked for its latest ones; the latest of all of them are the answer. */
static void groups_are_merged(void **state)
{
    struct world w;

    for (int up = 0; up < 2; up++) {
        ask(&w, up ? "fields @message | sort @timestamp asc | limit 3" : "fields @message | limit 3");
        for (int i = 0; i < 3; i++)
            assert_int_equal(event(&w, up ? 10 + i : 30 - i, (const char *const[]){"a", "b", "c"}[i]), i < 2);
        insights_query_next_group(w.q);
        assert_true(event(&w, up ? 11 : 29, "d"));
        assert_true(event(&w, up ? 9 : 31, "e"));
        assert_string_equal(firsts(&w), "e a b ");
        assert_string_equal(firsts(&w), "e a b "); /* as often as it is asked for */
        assert_false(insights_query_full(w.q));
        over(&w);
    }
    ask(&w, "stats count(*) as n by x | sort n desc");
    event(&w, 1, "{\"x\":1}");
    insights_query_next_group(w.q);
    event(&w, 2, "{\"x\":2}");
    event(&w, 3, "{\"x\":2}");
    assert_string_equal(firsts(&w), "2 1 ");
    over(&w);
}

/* Names as somebody may write them, in quotes: found or not, no more. */
static void names_of_fields(void **state)
{
    static const char *const NAMES[][2] = {{"a.b.1.c", "x"}, {"a.b.2.c", ""}, {"`a.b.-1`", ""}, {"`a[-1`", ""}, {"`a[99999999999]`", ""}, {"`a.b[1].c`", ""},
                                           {"`.`", ""}, {"`a..b`", ""}, {"`d.e f`", "7"}, {"a.b.99999999999999999999", ""}, {"`g[0]`", "q"}};
    struct world w;

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        _auto_(freep) char *query = xasprintf("fields %s | display %s, @message", NAMES[i][0], NAMES[i][0]);
        _auto_(freep) char *want = xasprintf("%s ", *NAMES[i][1] ? NAMES[i][1] : "{\"a\":{\"b\":[1,{\"c\":\"x\"}]},\"d.e f\":7,\"g[0]\":\"q\"}");

        ask(&w, query);
        event(&w, 1, "{\"a\":{\"b\":[1,{\"c\":\"x\"}]},\"d.e f\":7,\"g[0]\":\"q\"}");
        assert_string_equal(firsts(&w), want);
        over(&w);
    }
}

static void too_much(void **state)
{
    struct world w;
    struct err err = {0};
    struct buf b = {0}, fields = {0};
    _auto_(arena_freep) struct arena *a = arena_new();
    char *digits = arena_raw(a, 100001);

    buf_adds(&b, "filter a = 1");
    for (int i = 1; i < IQ_TERMS_MAX; i++)
        buf_adds(&b, " or a=1");
    assert_non_null(insights_query_parse(a, b.p, b.n, &err));
    buf_adds(&b, " or a=1");
    assert_null(insights_query_parse(a, b.p, b.n, &err));
    assert_string_equal(err.msg, "more than 100 comparisons");
    buf_done(&b);

    buf_adds(&fields, "fields a");
    for (int i = 1; i < IQ_FIELDS_MAX; i++)
        buf_adds(&fields, ",a");
    buf_addc(&fields, 0);
    ask(&w, fields.p);
    for (int i = 0; i < IQ_CELLS_MAX / IQ_FIELDS_MAX; i++)
        assert_true(event(&w, 100000 - i, "{\"a\":1}"));
    assert_false(event(&w, 1, "{\"a\":1}"));
    assert_true(insights_query_full(w.q)); /* and says so */
    over(&w);
    buf_done(&fields);

    memset(digits, '1', 100000); /* no number: it would be read for each member */
    digits[100000] = 0;
    ask(&w, "fields @message | filter @message in [1, 2, 3] or @message > 5");
    assert_true(event(&w, 1, digits));
    assert_int_equal(insights_query_matched(w.q), 1); /* texts come behind numbers */
    over(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups_are_merged), cmocka_unit_test(names_of_fields), cmocka_unit_test(too_much)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
