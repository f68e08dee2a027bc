/* Goal: circles are noticed and slowed down more and more, what controllers rightly do is not. */
#include "tt.h"

#include "codec/json.h"
#include "controller/guard.h"

static struct val *parse(struct arena *a, const char *text)
{
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err);

    assert_non_null(v);
    return v;
}

static void rewriting(void **state)
{
    struct arena *a = arena_new();
    struct guard *g = guard_new();
    const struct val *x = parse(a, "{\"spec\":{\"a\":1}}");
    int64_t now = 1000000, held = 0;
    int n = 0;

    (void)state;
    for (int i = 0; i < 100; i++) /* different each time */
        assert_int_equal(guard_note(g, "k", GUARD_WRITTEN, parse(a, arena_printf(a, "{\"spec\":{\"a\":%d}}", i)), true, now + i), 0);
    for (int i = 0; i < 50; i++) /* the same, but seldom */
        assert_int_equal(guard_note(g, "slow", GUARD_WRITTEN, x, true, now + i * 2000), 0);
    while (!held && n < 100) { /* to and fro; a time and a revision make no difference */
        held = guard_note(g, "fro", GUARD_WRITTEN, parse(a, arena_printf(a, "{\"metadata\":{\"resourceVersion\":\"%d\"},\"spec\":{\"a\":%d},"
                          "\"lastTransitionTime\":\"%d\"}", n, n % 2, n)), true, now + n * 10);
        n++;
    }
    assert_int_equal(held, GUARD_DELAY_MS);
    assert_int_equal(n, 2 * GUARD_RETURNS_MAX - 1);
    now += n * 10;
    assert_in_range(guard_held_ms(g, "fro", now), GUARD_DELAY_MS - 20, GUARD_DELAY_MS);
    assert_int_equal(guard_held_ms(g, "k", now), 0); /* only that one */
    for (int64_t want = 2 * GUARD_DELAY_MS; want <= 2 * GUARD_DELAY_MAX_MS; want *= 2) { /* on and on */
        now += held;
        assert_int_equal(guard_held_ms(g, "fro", now), 0);
        held = 0;
        for (int i = 0; i < GUARD_RETURNS_MAX; i++)
            held = guard_note(g, "fro", GUARD_WRITTEN, x, true, now);
        assert_int_equal(held, MIN(want, (int64_t)GUARD_DELAY_MAX_MS));
    }
    now += GUARD_CALM_MS + 1; /* it was quiet: forgotten */
    for (int i = 0; i < GUARD_RETURNS_MAX; i++)
        held = guard_note(g, "fro", GUARD_WRITTEN, x, true, now);
    assert_int_equal(held, GUARD_DELAY_MS);
    guard_free(g);
    arena_free(a);
}

static void making(void **state)
{
    struct arena *a = arena_new();
    struct guard *g = guard_new();
    const struct val *young = parse(a, "{\"metadata\":{\"creationTimestamp\":\"2026-01-01T00:00:00Z\"}}");
    int64_t now = 1767225600000 + 3000, held = 0;
    int n = 0;

    (void)state;
    for (int i = 0; i < 500; i++) /* up and down again */
        assert_int_equal(guard_note(g, "Pod/d/~web-", GUARD_MADE, young, false, now), 0);
    for (int i = 0; i < 500; i++)
        assert_int_equal(guard_note(g, "Pod/d/~web-", GUARD_DELETED, young, false, now), 0);
    for (int i = 0; i < 500; i++) { /* a roll-out: old ones go, new ones come */
        assert_int_equal(guard_note(g, "Pod/d/~ds-", GUARD_DELETED, young, false, now + 60000 + i), 0);
        assert_int_equal(guard_note(g, "Pod/d/~ds-", GUARD_MADE, young, false, now + 60000 + i), 0);
    }
    while (!held && n++ < 100) { /* made, deleted, made */
        held = guard_note(g, "Pod/d/~mad-", GUARD_MADE, young, false, now);
        guard_note(g, "Pod/d/~mad-", GUARD_DELETED, young, false, now);
    }
    assert_int_equal(n, GUARD_RETURNS_MAX + 1);
    for (n = 0, held = 0; !held && n < 100; n++) /* the same name again and again: somebody else takes it away */
        held = guard_note(g, "ConfigMap/d/x", GUARD_MADE, young, true, now);
    assert_int_equal(n, GUARD_RETURNS_MAX);
    guard_free(g);
    arena_free(a);
}

static void bound(void **state)
{
    struct arena *a = arena_new();
    struct guard *g = guard_new();
    const struct val *x = parse(a, "{}");

    (void)state;
    for (int i = 0; i < 3 * GUARD_OBJECTS_MAX; i++) /* more than it looks at: nothing is lost, nothing is held */
        assert_int_equal(guard_note(g, arena_printf(a, "k%d", i), GUARD_WRITTEN, x, true, 1000 + i * 10), 0);
    guard_free(g);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rewriting), cmocka_unit_test(making), cmocka_unit_test(bound)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
