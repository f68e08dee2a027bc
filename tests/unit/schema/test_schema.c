/* Goal: the kinds files load whole and fast, and the engine keeps its words on small cases. */
#include "tt.h"

#include "codec/json.h"
#include "schema/patch.h"
#include "schema/publish.h"
#include "schema/schema.h"
#include "schema/select.h"
#include "schema/table.h"

#include <time.h>

static struct schema *s;

static int setup(void **state)
{
    (void)state;
    s = schema_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    s = schema_free(s);
    return 0;
}

static void loads_fast(void **state)
{
    struct timespec t0, t1;
    uint32_t n = 0, i = 0;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    struct schema *x = schema_new();
    clock_gettime(CLOCK_MONOTONIC, &t1);
    while (schema_next(x, &i))
        n++;
    printf("schema: %u resources, loaded in %.2f ms\n", n,
           (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6);
    assert_true(n > 60);
    assert_non_null(schema_resource(x, "apps", "v1", "deployments"));
    assert_non_null(schema_kind_of(x, "v1", "Pod"));
    assert_non_null(schema_resource(x, "tandem.dev", "v1", "functions"));
    schema_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_fast),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
