/* Goal: a schedule's expression names the times that its author meant, by the clocks of his place. */
#include "tt.h"

#include "codec/kubetime.h"
#include "event/expression.h"

static const struct {
    const char *text, *zone, *after, *next; /* next NULL: never */
} TIMES[] = {
    {"rate(5 minutes)", NULL, "2026-01-01T00:02:00Z", "2026-01-01T00:05:00Z"},
    {"rate(1 hour)", NULL, "2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z"}, /* the start is the first one */
    {"rate(1 day)", NULL, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
    {"at(2026-11-20T13:00:00)", NULL, "2026-11-20T12:59:59Z", "2026-11-20T13:00:00Z"},
    {"at(2026-11-20T13:00:00)", NULL, "2026-11-20T13:00:00Z", NULL},
    {"at(2026-11-20T13:00:00)", "Europe/Zurich", "2026-11-20T11:00:00Z", "2026-11-20T12:00:00Z"},
    {"at(2026-03-29T02:30:00)", "Europe/Zurich", "2026-03-01T00:00:00Z", "2026-03-29T01:30:00Z"}, /* a time that is left out */
    {"cron(0 10 * * ? *)", NULL, "2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z"},
    {"cron(15 12 * * ? *)", NULL, "2026-01-01T10:00:00Z", "2026-01-01T12:15:00Z"},
    {"cron(0 18 ? * MON-FRI *)", NULL, "2026-01-02T18:00:00Z", "2026-01-05T18:00:00Z"},
    {"cron(0 8 1 * ? *)", NULL, "2026-01-01T09:00:00Z", "2026-02-01T08:00:00Z"},
    {"cron(0/15 * * * ? *)", NULL, "2026-01-01T09:46:00Z", "2026-01-01T10:00:00Z"},
    {"cron(0/30 20-2 ? * MON-FRI *)", NULL, "2026-01-01T02:30:00Z", "2026-01-01T20:00:00Z"},
    {"cron(30 0 1 1,7 ? *)", NULL, "2026-01-01T00:30:00Z", "2026-07-01T00:30:00Z"},
    {"cron(0 0 L * ? *)", NULL, "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z"},
    {"cron(0 0 L-3 * ? *)", NULL, "2028-02-01T00:00:00Z", "2028-02-26T00:00:00Z"},
    {"cron(0 0 LW * ? *)", NULL, "2026-02-01T00:00:00Z", "2026-02-27T00:00:00Z"}, /* the 28th is a Saturday */
    {"cron(0 0 15W * ? *)", NULL, "2026-02-01T00:00:00Z", "2026-02-16T00:00:00Z"},
    {"cron(0 0 1W * ? *)", NULL, "2026-07-31T12:00:00Z", "2026-08-03T00:00:00Z"}, /* never into the month before */
    {"cron(0 0 ? * 6#3 *)", NULL, "2026-01-01T00:00:00Z", "2026-01-16T00:00:00Z"},
    {"cron(0 0 ? * FRIL *)", NULL, "2026-01-01T00:00:00Z", "2026-01-30T00:00:00Z"},
    {"cron(0 0 ? * L *)", NULL, "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"},
    {"cron(0 0 29 2 ? *)", NULL, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
    {"cron(0 0 1 1 ? 2030)", NULL, "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"},
    {"cron(0 0 1 1 ? 2025)", NULL, "2026-01-01T00:00:00Z", NULL},
    {"cron(0 0 31 2 ? *)", NULL, "2026-01-01T00:00:00Z", NULL},
    {"cron(30 2 * * ? *)", "Europe/Zurich", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"}, /* 29 March has no 2:30 */
    {"cron(30 2 * * ? *)", "Europe/Zurich", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}, /* 25 October has two: one counts */
    {"cron(30 2 * * ? *)", "America/New_York", "2026-01-01T00:00:00Z", "2026-01-01T07:30:00Z"},
};

static void the_next_time(void **state)
{
    int64_t start = kubetime_parse("2026-01-01T00:00:00Z") / 1000;

    for (size_t i = 0; i < ARRAY_LEN(TIMES); i++) {
        struct expression x;
        struct err err = {0};
        struct zone *zone = TIMES[i].zone ? zone_load(TIMES[i].zone, &err) : NULL;
        char text[KUBETIME_MAX] = "never";
        int64_t next;

        if (expression_parse(TIMES[i].text, &x, &err) < 0)
            fail_msg("%s: %s", TIMES[i].text, err.msg);
        next = expression_next(&x, zone, start, kubetime_parse(TIMES[i].after) / 1000);
        if (next >= 0)
            kubetime_text(text, next * 1000);
        if (!streq(text, TIMES[i].next ? TIMES[i].next : "never"))
            fail_msg("%s after %s: %s, wanted %s", TIMES[i].text, TIMES[i].after, text, TIMES[i].next ? TIMES[i].next : "never");
        zone_free(zone);
    }
}

static void what_is_no_expression(void **state)
{
    static const char *const WRONG[] = {
        "", "rate", "rate()", "rate(5)", "rate(0 minutes)", "rate(-1 minutes)", "rate(5 minute)", "rate(5 weeks)", "rate(5 minutes",
        "at(2026-11-20)", "at(2026-11-20T25:00:00)", "at(2026-11-20T13:00:00Z)", "cron(* * * * *)", "cron(0 10 * * * *)",
        "cron(0 10 ? * ? *)", "cron(60 10 * * ? *)", "cron(0 24 * * ? *)", "cron(0 10 0 * ? *)", "cron(0 10 * 13 ? *)",
        "cron(0 10 ? * 8 *)", "cron(0 10 ? * MON#6 *)", "cron(0 10 32W * ? *)", "cron(0 10 * * ? 1969)", "cron(0 10 * * ? 2200)",
        "cron(0/0 10 * * ? *)", "cron(0 10 L-31 * ? *)", "cron(a 10 * * ? *)", "every(5 minutes)", "CRON(0 10 * * ? *)",
    };

    for (size_t i = 0; i < ARRAY_LEN(WRONG); i++) {
        struct expression x;
        struct err err = {0};

        if (expression_parse(WRONG[i], &x, &err) == 0)
            fail_msg("%s was read", WRONG[i]);
        assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_time),
        cmocka_unit_test(what_is_no_expression),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
