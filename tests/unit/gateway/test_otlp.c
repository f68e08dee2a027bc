/* What of a call is told to a collector. */
#include "tt.h"

#include "base/base.h"
#include "function/function.h"
#include "function/trace.h"
#include "gateway/otlp_int.h"

#include <string.h>

static bool has(const struct buf *b, const char *text)
{
    return memmem(b->p, b->n, text, strlen(text)) != NULL;
}

/* A presigned request can be sent again by whoever reads its query. */
static void secrets_of_a_query_stay_here(void **state)
{
    char method[] = "GET", name[] = "f", arn[] = "arn:aws:lambda:us-east-1:000000000000:function:f", ns[] = "default";
    char query[] = "a=1&X-Amz-Signature=5ec2e7&x-amz-security-token=t0ken&sig&Signature=&b=X-Amz-Signature=2";
    struct function_span s = {.method = method, .name = name, .arn = arn, .namespace_ = ns, .query = query};
    struct buf b = {0};

    (void)state;
    strcpy(s.trace.id, "0123456789abcdef0123456789abcdef");
    strcpy(s.trace.span, "0123456789abcdef");
    assert_int_equal(otlp_encode(&b, &s), 1);
    assert_true(has(&b, "a=1&X-Amz-Signature=REDACTED&x-amz-security-token=REDACTED&sig&Signature=REDACTED&b=X-Amz-Signature=2"));
    assert_false(has(&b, "5ec2e7"));
    assert_false(has(&b, "t0ken"));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_of_a_query_stay_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
