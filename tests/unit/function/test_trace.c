/* Trace context: what is read of headers, what is handed on, who decides whether a call is sampled. */
#include "tt.h"

#include "function/function_int.h"

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void both_forms_are_read(void **state)
{
    static const struct {
        const char *w3c, *xray;
        int read, decided;
        const char *id, *parent, *rest;
    } rows[] = {
        {"00-" ID "-" SPAN "-01", NULL, 0, 1, ID, SPAN, ""},
        {"00-" ID "-" SPAN "-00", NULL, 0, 0, ID, SPAN, ""},
        {"00-" ID "-" SPAN "-03", NULL, 0, 1, ID, SPAN, ""},
        {"01-" ID "-" SPAN "-01-more", NULL, 0, 1, ID, SPAN, ""},
        {"00-" ID "-" SPAN "-01-more", NULL, -1, -1, "", "", ""},
        {"01-" ID "-" SPAN "-01more", NULL, -1, -1, "", "", ""},
        {"ff-" ID "-" SPAN "-01", NULL, -1, -1, "", "", ""},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", NULL, -1, -1, "", "", ""},
        {"00-00000000000000000000000000000000-" SPAN "-01", NULL, -1, -1, "", "", ""},
        {"00-" ID "-0000000000000000-01", NULL, -1, -1, "", "", ""},
        {"00-" ID "-" SPAN "-0", NULL, -1, -1, "", "", ""},
        {"", NULL, -1, -1, "", "", ""},
        {NULL, "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=" SPAN ";Sampled=1", 0, 1, ID, SPAN, ""},
        {NULL, "Root=1-4BF92F35-77b34da6a3ce929d0e0e4736", 0, -1, ID, "", ""},
        {NULL, "Sampled=0; Self=1-1-2; Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Lineage=a:1;Sampled=?", 0, -1, ID, "", ";Lineage=a:1"},
        {NULL, "Root=1-4bf92f35-77b34da6a3ce929d0e0e473;Sampled=1", -1, -1, "", "", ""},
        {NULL, "Sampled=1", -1, -1, "", "", ""},
        {"nonsense", "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled=0", 0, 0, ID, "", ""},
        {"00-" ID "-" SPAN "-01", "Root=1-11111111-111111111111111111111111;Sampled=0", 0, 1, ID, SPAN, ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct function_trace t = {0};
        char rest[TRACE_REST_MAX];
        int decided;

        assert_int_equal(trace_read(&t, rows[i].w3c, rows[i].xray, &decided, rest), rows[i].read);
        assert_int_equal(decided, rows[i].decided);
        assert_string_equal(t.id, rows[i].id);
        assert_string_equal(t.parent, rows[i].parent);
        assert_string_equal(rest, rows[i].rest);
    }
}

/* Goal: a header of any bytes is read within its bounds and never makes an id that is none. */
TT_PROP(trace, any_bytes_are_survived, 3000)
{
    static const char *const PARTS[] = {"00-", "Root=1-", ";", "Parent=", "Sampled=1", "-", "77b34da6a3ce929d0e0e", SPAN, "4bf92f35", " ", "Self=", "=", "\xff", "Lineage=x"};
    struct function_trace t = {0};
    char text[1000] = "", rest[TRACE_REST_MAX];
    int decided;

    for (uint32_t n = tt_below(rng, 24); n; n--)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s", PARTS[tt_below(rng, ARRAY_LEN(PARTS))]);
    if (trace_read(&t, tt_below(rng, 2) ? text : NULL, text, &decided, rest) == 0) {
        TT_OK(strspn(t.id, "0123456789abcdef") == 32 && (!*t.parent || strspn(t.parent, "0123456789abcdef") == 16));
        TT_OK(strlen(rest) < sizeof rest && decided >= -1 && decided <= 1);
    }
}

static int asked;

static bool always(void *arg, const char *id, int decided)
{
    (void)arg;
    assert_int_equal(strlen(id), 32);
    asked = decided;
    return decided != 0;
}

static void take(void *arg, const struct function_span *s)
{
    (void)arg, (void)s;
}

static void who_decides(void **state)
{
    static const char YES[] = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=" SPAN ";Sampled=1;Lineage=z";
    static const char NO[] = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=" SPAN ";Sampled=0";
    struct functions fs = {.sampled_s = -1};
    struct function f = {.fs = &fs};
    struct version v = {.f = &f};
    struct function_call q = {0};
    struct function_trace t;
    char text[TRACE_TEXT_MAX], parent[TRACEPARENT_BYTES];
    int n = 0;

    (void)state;
    /* nobody takes spans: what the caller said goes through, and it stays the parent */
    for (int mode = TRACING_UNSAID; mode <= TRACING_ACTIVE; mode++) {
        v.tracing = (enum tracing_mode)mode;
        q.trace_id = YES;
        trace_begin(&t, &v, &q, false, text);
        assert_string_equal(text, YES);
        assert_true(t.sampled && !*t.span && trace_parent_text(&t, parent));
        assert_string_equal(parent, "00-" ID "-" SPAN "-01");
        q.trace_id = NO;
        trace_begin(&t, &v, &q, false, text);
        assert_string_equal(text, NO);
        assert_false(t.sampled);
    }
    q.trace_id = NULL; /* nothing was said: an id all the same, sampled only when Active */
    v.tracing = TRACING_PASS_THROUGH;
    trace_begin(&t, &v, &q, false, text);
    assert_false(t.sampled || *t.span || trace_parent_text(&t, parent));
    assert_int_equal(strlen(text), strlen(NO));
    assert_string_equal(text + strlen(text) - 10, ";Sampled=0");
    v.tracing = TRACING_ACTIVE;
    for (int i = 0; i < 2000; i++) {
        trace_begin(&t, &v, &q, false, text);
        n += t.sampled;
    }
    assert_in_range(n, 30, 220); /* 5 %, and the first of each second */
    /* spans are taken: each sampled call has its own, which is the parent of what comes after */
    fs.tracing = (struct functions_tracing){always, take, NULL};
    q.trace_id = YES;
    trace_begin(&t, &v, &q, false, text);
    assert_true(t.sampled && strlen(t.span) == 16);
    assert_string_equal(t.parent, SPAN);
    assert_non_null(strstr(text, t.span));
    assert_non_null(strstr(text, ";Sampled=1;Lineage=z"));
    q.trace_id = NULL;
    v.tracing = TRACING_UNSAID;
    trace_begin(&t, &v, &q, false, text);
    assert_true(t.sampled && asked == -1);
    v.tracing = TRACING_PASS_THROUGH;
    trace_begin(&t, &v, &q, true, text);
    assert_false(t.sampled);
    assert_null(strstr(text, "Parent")); /* who runs the event finds its own */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_forms_are_read),
        cmocka_unit_test(who_decides),
        cmocka_unit_test(tt_trace_any_bytes_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
