/* Pure parts of the controllers: counting of jobs, taints, claims and volumes. */
#include "tt.h"

#include <unistd.h>

#include "codec/json.h"
#include "codec/kubetime.h"
#include "codec/obj.h"
#include "controller/claims.h"
#include "controller/cron.h"
#include "controller/jobs.h"
#include "controller/taints.h"

static struct val *parse(struct arena *a, const char *text)
{
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err);

    assert_non_null(v);
    return v;
}

static void jobs_want_what_is_left(void **state)
{
    assert_int_equal(job_wanted(3, 5, 0, 0), 3);
    assert_int_equal(job_wanted(3, 5, 4, 1), 1); /* never more than are still needed */
    assert_int_equal(job_wanted(3, 5, 5, 0), 0);
    assert_int_equal(job_wanted(0, 5, 0, 2), 0);
    assert_int_equal(job_wanted(4, -1, 0, 0), 4); /* work queue */
    assert_int_equal(job_wanted(4, -1, 1, 2), 2); /* one success: nobody new */
    assert_int_equal(job_backoff_ms(0), 0);
    assert_int_equal(job_backoff_ms(1), 10000);
    assert_int_equal(job_backoff_ms(3), 40000);
    assert_int_equal(job_backoff_ms(7), 600000);
    assert_int_equal(job_backoff_ms(1000), 600000);
}

/* Goal: the text of a set of indexes reads back as the same set. Method: random sets. */
TT_PROP(indexes, text_reads_back, 200)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct indexes x, y;
    int64_t n = tt_below(rng, 40) + 1;

    indexes_init(&x, a, n);
    indexes_init(&y, a, n);
    for (int64_t i = 0; i < n; i++)
        if (tt_below(rng, 2))
            indexes_add(&x, i);
    indexes_read(&y, indexes_text(&x, a));
    for (int64_t i = -1; i <= n; i++)
        TT_OK(indexes_has(&x, i) == indexes_has(&y, i));
    TT_OK(indexes_count(&x) == indexes_count(&y));
}

static void indexes_write_as_kubernetes(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct indexes x;

    indexes_init(&x, a, 12);
    indexes_read(&x, "0-2,5,6,9,999,x");
    assert_string_equal(indexes_text(&x, a), "0-2,5,6,9");
    assert_int_equal(indexes_count(&x), 6);
}

static void taints_are_borne(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *taints = parse(a, "[{\"key\":\"k\",\"effect\":\"NoExecute\",\"timeAdded\":\"1970-01-01T00:01:40Z\"},"
                                  "{\"key\":\"x\",\"effect\":\"NoSchedule\"}]");

    assert_int_equal(taints_bearable_until(taints, NULL, 0), 0);
    assert_int_equal(taints_bearable_until(taints, parse(a, "[{\"operator\":\"Exists\"}]"), 0), INT64_MAX);
    assert_int_equal(taints_bearable_until(taints, parse(a, "[{\"key\":\"k\",\"operator\":\"Exists\","
                                                            "\"effect\":\"NoExecute\",\"tolerationSeconds\":300},"
                                                            "{\"key\":\"k\",\"operator\":\"Exists\",\"tolerationSeconds\":20}]"), 0),
                     120000);
    assert_int_equal(taints_bearable_until(taints, parse(a, "[{\"key\":\"k\",\"value\":\"v\"}]"), 0), 0);
    assert_int_equal(taints_bearable_until(taints, parse(a, "[{\"key\":\"k\"}]"), 0), INT64_MAX);
    assert_int_equal(taints_bearable_until(parse(a, "[]"), NULL, 0), INT64_MAX);
}

static const struct obj *sealed(struct arena *a, const char *text)
{
    return obj_seal(parse(a, text), 1);
}

#define PV(name, size, more)                                                                       \
    "{\"metadata\":{\"name\":\"" name "\",\"labels\":{\"t\":\"" name "\"}},\"spec\":{\"capacity\":{\"storage\":\"" size    \
    "\"},\"accessModes\":[\"ReadWriteOnce\",\"ReadOnlyMany\"]" more "}}"
#define PVC(size, more)                                                                            \
    "{\"metadata\":{\"name\":\"c\",\"namespace\":\"n\",\"uid\":\"u1\"},\"spec\":{\"resources\":{\"requests\":"       \
    "{\"storage\":\"" size "\"}},\"accessModes\":[\"ReadWriteOnce\"]" more "}}"

static void choose(const char *pvc_text, const char *want)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct obj *pvs[] = {
        sealed(a, PV("big", "10Gi", "")),
        sealed(a, PV("small", "1Gi", "")),
        sealed(a, PV("fast", "5Gi", ",\"storageClassName\":\"fast\"")),
        sealed(a, PV("mine", "8Gi", ",\"storageClassName\":\"z\",\"claimRef\":{\"name\":\"r\",\"namespace\":\"n\"}")),
        sealed(a, PV("theirs", "2Gi", ",\"claimRef\":{\"name\":\"c\",\"namespace\":\"n\",\"uid\":\"other\"}")),
    };
    const struct obj *pvc = sealed(a, pvc_text), *got = volume_choose(pvs, 5, pvc);

    assert_string_equal(got ? got->name : "", want);
    for (size_t i = 0; i < 5; i++)
        obj_unref(pvs[i]);
    obj_unref(pvc);
}

static void claims_get_the_smallest_that_fits(void **state)
{
    choose(PVC("1Gi", ""), "small");
    choose(PVC("2Gi", ""), "big"); /* not the one that is reserved for a namesake of before */
    choose(PVC("20Gi", ""), "");
    choose(PVC("1Gi", ",\"storageClassName\":\"fast\""), "fast");
    choose(PVC("1Gi", ",\"volumeMode\":\"Block\""), "");
    choose(PVC("1Gi", ",\"selector\":{\"matchLabels\":{\"t\":\"big\"}}"), "big");
    choose("{\"metadata\":{\"name\":\"c\",\"namespace\":\"n\",\"uid\":\"u\"},\"spec\":{\"accessModes\":[\"ReadWriteMany\"]}}", "");
    choose("{\"metadata\":{\"name\":\"r\",\"namespace\":\"n\",\"uid\":\"u\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"]}}", "mine");
}

static void cron_knows_the_next_time(void **state)
{
    static const struct {
        const char *schedule, *after, *next;
    } rows[] = {
        {"* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"},
        {"*/15 * * * *", "2026-01-01T00:15:59Z", "2026-01-01T00:30:00Z"},
        {"0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"},
        {"@monthly", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"},
        {"30 6 * * MON-FRI", "2026-11-20T07:00:00Z", "2026-11-23T06:30:00Z"}, /* a Friday */
        {"0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"},       /* either will do */
        {"0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
        {"0 12 * * 7", "2026-11-20T00:00:00Z", "2026-11-22T12:00:00Z"},
    };
    static const char *const bad[] = {"", "* * * *", "* * * * * *", "60 * * * *", "a * * * *", "*/0 * * * *",
                                      "5-1 * * * *", "* 24 * * *", "* * 0 * *", "@often"};
    struct cron c;
    char text[KUBETIME_MAX];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(cron_parse(rows[i].schedule, &c));
        assert_string_equal(kubetime_text(text, cron_next(&c, NULL, kubetime_parse(rows[i].after) / 1000) * 1000), rows[i].next);
    }
    assert_true(cron_parse("0 0 31 2 *", &c));
    assert_int_equal(cron_next(&c, NULL, 0), -1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(cron_parse(bad[i], &c));
}

/* Goal: local clocks count, their changes too. The facts are those of the tz database. */
static void cron_knows_places(void **state)
{
    static const struct {
        const char *zone, *schedule, *after, *next;
    } rows[] = {
        {"Europe/Zurich", "0 3 * * *", "2026-06-01T00:00:00Z", "2026-06-01T01:00:00Z"},
        {"Europe/Zurich", "0 3 * * *", "2026-12-01T00:00:00Z", "2026-12-01T02:00:00Z"},
        {"Europe/Zurich", "0 12 * * *", "2050-07-01T00:00:00Z", "2050-07-01T10:00:00Z"}, /* by the rule */
        {"America/New_York", "30 9 * * *", "2026-01-01T00:00:00Z", "2026-01-01T14:30:00Z"},
        {"America/New_York", "30 2 * * *", "2026-03-08T05:00:00Z", "2026-03-09T06:30:00Z"}, /* is skipped */
        {"America/New_York", "0 0 9 3 *", "2026-03-01T00:00:00Z", "2026-03-09T04:00:00Z"},
        {"Asia/Kolkata", "0 0 * * *", "2026-01-01T00:00:00Z", "2026-01-01T18:30:00Z"},
        {"Australia/Sydney", "0 12 * * *", "2060-01-01T00:00:00Z", "2060-01-01T01:00:00Z"}, /* summer there */
        {"Etc/UTC", "@every 90m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"},
    };
    static const char *const bad[] = {"", "Nowhere/City", "../../etc/passwd", "/etc/passwd", "Europe"};
    char text[KUBETIME_MAX];
    struct err err;
    struct cron c;

    (void)state;
    if (access("/usr/share/zoneinfo/Europe/Zurich", R_OK) < 0)
        skip();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct zone *z = zone_load(rows[i].zone, &err);

        assert_non_null(z);
        assert_true(cron_parse(rows[i].schedule, &c));
        assert_string_equal(kubetime_text(text, cron_next(&c, z, kubetime_parse(rows[i].after) / 1000) * 1000), rows[i].next);
        zone_free(z);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_null(zone_load(bad[i], &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_want_what_is_left),
        cmocka_unit_test(tt_indexes_text_reads_back),
        cmocka_unit_test(indexes_write_as_kubernetes),
        cmocka_unit_test(taints_are_borne),
        cmocka_unit_test(claims_get_the_smallest_that_fits),
        cmocka_unit_test(cron_knows_the_next_time),
        cmocka_unit_test(cron_knows_places),
    };

    return cmocka_run_group_tests_name("controller-pure", tests, NULL, NULL);
}
