#include "tt.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"

static int released;
static void release(void *what)
{
    released = released * 10 + *(int *)what;
}

static void arena_runs_pins_last_first(void **state)
{
    struct arena *a = arena_new();
    static int one = 1, two = 2;

    released = 0;
    arena_pin(a, release, &one);
    memset(arena_alloc(a, 1 << 20), 1, 1 << 20); /* big block behind the first */
    for (int i = 0; i < 5000; i++)
        memset(arena_alloc(a, 100), 2, 100);
    arena_pin(a, release, &two);
    arena_free(a);
    assert_int_equal(released, 21);
}

static void arena_reset_can_be_used_again(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 300; i++)
            assert_string_equal(arena_printf(a, "%0*d", i + 1, 7) + i, "7");
        arena_reset(a);
        assert_int_equal(arena_bytes(a), 0);
    }
}

static void buf_keeps_its_limit(void **state)
{
    struct buf b;

    buf_init(&b, 10);
    buf_adds(&b, "12345");
    buf_adds(&b, "1234567");
    assert_true(b.over);
    assert_string_equal(b.p, "12345");
    buf_eat(&b, 3);
    assert_string_equal(b.p, "45");
    buf_printf(&b, "%s", "123456789");
    assert_true(b.over);
    assert_string_equal(b.p, "45");
    buf_done(&b);
}

/* Goal: what is formatted is whole, whether it fits into the room that there is, fills it or does not. */
static void buf_formats_at_every_edge(void **state)
{
    for (size_t before = 0; before < 600; before++) {
        _auto_(buf_done) struct buf b = {0};
        char want[900];

        for (size_t i = 0; i < before; i++)
            buf_addc(&b, 'x');
        buf_printf(&b, "%d-%s", 1234, "abcdefgh");
        buf_printf(&b, "%s", "");
        memset(want, 'x', before);
        strcpy(want + before, "1234-abcdefgh");
        assert_string_equal(b.p, want);
        assert_int_equal(b.n, before + 13);
    }
}

static void buf_writes_numbers(void **state)
{
    static const long long v[] = {0, 7, -1, 10, 99, 1234567890123, LLONG_MAX, LLONG_MIN};

    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        _auto_(buf_done) struct buf b = {0};
        char want[32];

        buf_addi(&b, v[i]);
        snprintf(want, sizeof want, "%lld", v[i]);
        assert_string_equal(b.p, want);
    }
}

/* Goal: map agrees with a plain array. Method: random puts and deletes of 40 keys. */
TT_PROP(map, agrees_with_model, 50)
{
    struct map m = {0};
    void *model[40] = {0};
    int deleted = 0;

    for (int step = 0; step < 500; step++) {
        uint32_t k = tt_below(rng, 40);
        char key[8];

        snprintf(key, sizeof key, "k%u", k);
        if (tt_below(rng, 2)) {
            void *v = &model[tt_below(rng, 40)];

            TT_OK(map_put(&m, key, v) == model[k]);
            model[k] = v;
        } else {
            TT_OK(map_del(&m, key) == model[k]);
            deleted += model[k] != NULL;
            model[k] = NULL;
        }
        TT_OK(map_get(&m, key) == model[k]);
    }
    TT_OK(deleted > 0);
    map_done(&m);
}

static void errors_take_context_on_the_way_up(void **state)
{
    struct err err;

    assert_int_equal(err_set(&err, NOT_FOUND, "no file %d", 3), -1);
    assert_int_equal(err_wrap(&err, "pull %s", "x"), -1);
    assert_string_equal(err.msg, "pull x: no file 3");
    assert_int_equal(err_http(err.code), 404);
    assert_string_equal(err_reason(err.code), "NotFound");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_runs_pins_last_first),
        cmocka_unit_test(arena_reset_can_be_used_again),
        cmocka_unit_test(buf_keeps_its_limit),
        cmocka_unit_test(buf_formats_at_every_edge),
        cmocka_unit_test(buf_writes_numbers),
        cmocka_unit_test(tt_map_agrees_with_model),
        cmocka_unit_test(errors_take_context_on_the_way_up),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
