/* Real zygotes, real instances: what a handler may do, and what happens to one that does more. */
#include "tt.h"

#include "function/host.h"

static struct host H;

static void hello(void **state)
{
    struct answer a;

    host_function(&H, "hello", "def lambda_handler(event, context):\n    print('hi', event)\n    return {'a': event['x'] + 1}\n", "");
    host_call(&H, "hello", "{\"x\":41}", &a);
    fprintf(stderr, "%d %s %s\n%s\n", a.err.code, a.err.msg, a.payload, a.tail);
    assert_int_equal(a.err.code, ERR_OK);
    assert_string_equal(a.payload, "{\"a\": 42}");
    answer_done(&a);
    for (int i = 0; i < 3; i++) {
        host_call(&H, "hello", "{\"x\":41}", &a);
        fprintf(stderr, "wall %lld start %lld init %lld cold %d\n", (long long)a.wall_us, (long long)a.start_us, (long long)a.init_us, a.cold);
        answer_done(&a);
    }
}

static int set_up(void **state)
{
    struct functions_options o = {0};
    struct err err;

    if (host_start(&H, &o, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    host_stop(&H);
    host_remove(&H);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
