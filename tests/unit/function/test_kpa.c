/* Knative's autoscaler against values worked out by its published algorithm (those of knative/serving's own tests among
 * them: target 10, up and down by ten at most, a stable window of 60 s, a panic at twice). */
#include "tt.h"

#include "codec/json.h"
#include "function/scaling/kpa.h"

static const int64_t S = 1000000, T0 = 1000000 * (int64_t)1000000;
#define KN "autoscaling.knative.dev/"

/* {"min-scale": "2", ...} without the group's name in front. */
static bool says(const char *text, struct autoscaling *ret, autoscaling_fault_fn *fault, void *arg)
{
    struct arena *a = arena_new();
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err), *full = val_map(a);
    bool fine;

    assert_non_null(v);
    VAL_EACH_MEMBER(v, m)
    val_put(a, full, arena_printf(a, "%s%s", strchr(m->key, '/') ? "" : KN, m->key), val_copy(a, &m->v));
    fine = autoscaling_read(full, ret, fault, arg);
    arena_free(a);
    return fine;
}

static struct kpa *made(const char *text, int each)
{
    struct autoscaling s;

    assert_true(says(text, &s, NULL, NULL));
    return kpa_new(&s, each, T0);
}

/* ---- annotations ---- */

struct told {
    char text[600];
};

static void on_fault(void *arg, const char *key, const char *other, const struct val *bad, const char *message)
{
    struct told *t = arg;
    size_t n = strlen(t->text);

    snprintf(t->text + n, sizeof t->text - n, "%s%s: %s%s%s", n ? "\n" : "", message, key + strlen(KN), other ? ", " : "",
             other ? other + strlen(KN) : "");
}

static void annotations_are_judged(void **state)
{
    static const struct {
        const char *given, *told;
    } rows[] = {
        {"{\"min-scale\":\"0\",\"max-scale\":\"0\"}", ""},
        {"{\"min-scale\":\"-1\"}", "expected 0 <= -1 <= 2147483647: min-scale"},
        {"{\"maxScale\":\"-1\"}", "expected 0 <= -1 <= 2147483647: maxScale"},
        {"{\"min-scale\":\"foo\"}", "invalid value: foo: min-scale"},
        {"{\"min-scale\":\" 1\"}", "invalid value:  1: min-scale"},
        {"{\"max-scale\":\"99999999999\"}", "expected 0 <= 99999999999 <= 2147483647: max-scale"},
        {"{\"min-scale\":\"5\",\"max-scale\":\"2\"}", "max-scale=2 is less than min-scale=5: max-scale, min-scale"},
        {"{\"panic-window-percentage\":\"202\"}", "expected 1 <= 202 <= 100: panic-window-percentage"},
        {"{\"panic-window-percentage\":\"fifty\"}", "invalid value: fifty: panic-window-percentage"},
        {"{\"panic-threshold-percentage\":\"109\"}", "expected 110 <= 109 <= 1000: panic-threshold-percentage"},
        {"{\"target\":\"0\"}", "target 0 should be at least 0.01: target"},
        {"{\"target\":\"NaN\"}", "invalid value: NaN: target"},
        {"{\"target-utilization-percentage\":\"0\"}", "expected 1 <= 0 <= 100: target-utilization-percentage"},
        {"{\"target-burst-capacity\":\"-2\"}", "invalid value: -2: target-burst-capacity"},
        {"{\"target-burst-capacity\":\"-1\"}", ""},
        {"{\"window\":\"5s\"}", "expected 6s <= 5s <= 1h0m0s: window"},
        {"{\"window\":\"61m\"}", "expected 6s <= 61m <= 1h0m0s: window"},
        {"{\"window\":\"9s1ms\"}", "must be specified with at most second precision: window"},
        {"{\"window\":\"twenty-two\"}", "invalid value: twenty-two: window"},
        {"{\"scale-down-delay\":\"-1s\"}", "expected 0s <= -1s <= 1h0m0s: scale-down-delay"},
        {"{\"scale-to-zero-pod-retention-period\":\"1h1s\"}", "expected 0s <= 1h1s <= 1h0m0s: scale-to-zero-pod-retention-period"},
        {"{\"metric\":\"cpu\"}", "invalid value: cpu: metric"},
        {"{\"class\":\"other.example.com\",\"metric\":\"cpu\"}", ""},
        {"{\"class\":\"foo.autoscaling.knative.dev\"}", "invalid value: foo.autoscaling.knative.dev: class"},
        {"{\"activation-scale\":\"0\"}", "activation-scale=0 must be greater than 0: activation-scale"},
        {"{\"activation-scale\":\"4\",\"max-scale\":\"3\"}", "max-scale=3 is less than activation-scale=4: activation-scale"},
        {"{\"metric-aggregation-algorithm\":\"cubic\"}", "invalid value: cubic: metric-aggregation-algorithm"},
        {"{\"class\":\"kpa.autoscaling.knative.dev\",\"metric\":\"rps\",\"target\":\"150\",\"min-scale\":\"1\",\"max-scale\":\"9\","
         "\"initial-scale\":\"3\",\"scale-down-delay\":\"15m\",\"window\":\"1h\"}", ""},
    };
    struct autoscaling s;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct told t = {0};

        assert_int_equal(says(rows[i].given, &s, on_fault, &t), !*rows[i].told);
        assert_string_equal(t.text, rows[i].told);
    }
    assert_true(s.given && s.rps);
    assert_int_equal(s.max, 9);
    assert_int_equal(s.initial, 3);
    assert_int_equal(s.delay_ms, 900000);
    assert_int_equal(s.window_ms, 3600000);
    assert_true(says("{\"maxScale\":\"5\",\"max-scale\":\"7\"}", &s, NULL, NULL)); /* the new name wins */
    assert_int_equal(s.max, 7);
    assert_true(says("{\"example.com/a\":\"b\"}", &s, NULL, NULL));
    assert_false(s.given);
    assert_true(autoscaling_read(NULL, &s, NULL, NULL));
    assert_false(s.given);
}

/* ---- decisions ---- */

static void want(struct kpa *k, double stable, double panic, int ready, int64_t at_s, int n)
{
    assert_int_equal(kpa_decide(k, stable, panic, ready, T0 + at_s * S), n);
}

static struct kpa *by_ten(const char *text, double target)
{
    struct kpa *k = made(text, 100);

    kpa_rates(k, target, target / 0.75, 10, 10);
    return k;
}

static void decisions(void **state)
{
    struct kpa *k = by_ten("{\"target-burst-capacity\":\"100\"}", 10);

    want(k, 50, 10, 1, 0, 5);
    want(k, 100, 10, 1, 0, 10);
    want(k, 0, 0, 1, 0, 0);
    want(k, 1, 0, 1, 0, 1);
    want(k, 1000, 200, 1, 200, 10); /* x10 at most, and that is a panic */
    assert_true(kpa_view(k).panics);
    k = kpa_free(k);

    k = by_ten("{\"target-burst-capacity\":\"61\"}", 10); /* down by a tenth at most */
    want(k, 1, 1, 100, 0, 10);
    want(k, 1, 1, 10, 2, 1);
    assert_int_equal(kpa_view(k).excess, 10 * 10 / 0.75 - 61 - 1 - 0.33); /* floor(133.3 - 62) */
    k = kpa_free(k);

    k = by_ten("{\"target-burst-capacity\":\"-1\"}", 1);
    kpa_rates(k, 1, 1, 1.1, 10); /* grows by one at least */
    want(k, 3, 3.1, 2, 0, 3);
    assert_int_equal(kpa_view(k).excess, -1);
    kpa_rates(k, 10, 10, 10, 1.1);
    want(k, 1, 1, 100, 2, 90);
    k = kpa_free(k);

    k = by_ten("{\"activation-scale\":\"2\"}", 10);
    want(k, 0, 0, 1, 0, 0);
    want(k, 1, 0, 1, 0, 2);
    k = kpa_free(k);
}

/* A slow rise after a surge: the panic ends a window after it began, though the panic window is above the stable one. */
static void panics(void **state)
{
    struct kpa *k = by_ten("{\"window\":\"60s\"}", 1);

    want(k, 11, 25, 10, 0, 25);
    want(k, 30, 41, 40, 30, 41);
    assert_true(kpa_view(k).panics);
    want(k, 50, 56, 55, 62, 50);
    assert_false(kpa_view(k).panics);
    k = kpa_free(k);

    k = by_ten("{}", 10); /* no descent while it lasts */
    k = kpa_free(k);
    k = by_ten("{\"window\":\"60s\"}", 10);
    want(k, 100, 100, 1, 0, 10);
    want(k, 100, 1000, 10, 1, 100);
    want(k, 1, 1, 10, 31, 100);
    want(k, 1, 1, 10, 62, 1);
    k = kpa_free(k);

    k = by_ten("{\"window\":\"60s\"}", 1); /* it goes on when it is over the mark again */
    want(k, 11, 25, 10, 0, 25);
    want(k, 30, 80, 40, 30, 80);
    want(k, 30, 30, 80, 61, 80);
    want(k, 30, 30, 80, 91, 30);
    k = kpa_free(k);
}

/* The most of five minutes counts. */
static void delays(void **state)
{
    struct kpa *k = by_ten("{\"scale-down-delay\":\"5m\",\"panic-threshold-percentage\":\"1000\"}", 10);
    static const struct {
        int at_s, load, n;
    } rows[] = {{2, 40, 4}, {300, 0, 4}, {302, 0, 0}, {540, 40, 4}, {600, 30, 4}, {660, 0, 4}, {840, 0, 3}, {900, 0, 0}};

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        want(k, rows[i].load, rows[i].load, 1, rows[i].at_s, rows[i].n);
    kpa_free(k);
}

static void targets(void **state)
{
    static const struct {
        const char *given;
        int each;
        double target;
    } rows[] = {
        {"{\"min-scale\":\"0\"}", 1, 0.7},     {"{\"min-scale\":\"0\"}", 80, 56},       {"{\"target\":\"100\"}", 80, 56},
        {"{\"target\":\"10\"}", 80, 7},        {"{\"metric\":\"rps\"}", 1, 140},        {"{\"metric\":\"rps\",\"target\":\"50\"}", 1, 35},
        {"{\"target\":\"0.01\",\"target-utilization-percentage\":\"1\"}", 80, 0.01},
        {"{\"target-utilization-percentage\":\"100\"}", 5, 5},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kpa *k = made(rows[i].given, rows[i].each);

        assert_true(kpa_view(k).target > rows[i].target - 1e-9 && kpa_view(k).target < rows[i].target + 1e-9);
        kpa_free(k);
    }
}

/* ---- samples ---- */

static void average(struct kpa *k, double at_s, double stable, double panic)
{
    double s, p;

    (void)kpa_averages(k, T0 + (int64_t)(at_s * 1e6), &s, &p);
    if (s < stable - 1e-5 || s > stable + 1e-5 || p < panic - 1e-5 || p > panic + 1e-5)
        fail_msg("after %g s: %g and %g, not %g and %g", at_s, s, p, stable, panic);
}

/* Calls are weighed by the time they take of a second; a window is as long as what was seen of it. */
static void windows_are_of_seconds(void **state)
{
    struct kpa *k = made("{\"window\":\"10s\",\"panic-window-percentage\":\"20\"}", 1);

    average(k, 0, 0, 0);
    kpa_seen(k, 1, T0 + S / 2);
    average(k, 1, 0.5, 0.5);            /* half of the first second */
    average(k, 2.2, 0.75, 0.75);        /* 0.5, 1 */
    kpa_seen(k, 1, T0 + 3 * S);
    average(k, 4, 4.5 / 4, 1.5);        /* 0.5, 1, 1, 2; the panic window is of two */
    kpa_seen(k, -2, T0 + 5 * S);
    average(k, 9, 6.5 / 9, 0);          /* ..., 2, 0, 0, 0, 0 */
    average(k, 11, 6.0 / 10, 0);        /* the first has left */
    average(k, 15, 0, 0);
    kpa_free(k);

    k = made("{\"metric\":\"rps\",\"window\":\"10s\",\"panic-window-percentage\":\"20\"}", 1);
    for (int i = 0; i < 40; i++) { /* 20 a second for two seconds, over at once */
        kpa_seen(k, 1, T0 + i * S / 20);
        kpa_seen(k, -1, T0 + i * S / 20 + 1);
    }
    average(k, 2, 20, 20);
    average(k, 3, 40.0 / 3, 10);
    average(k, 4, 10, 0);
    kpa_free(k);
}

/* ---- a life ---- */

struct trace {
    struct kpa *k;
    int64_t at; /* us after T0 */
    uint32_t load;
};

/* So many calls at once for so long; instances are there as soon as they are wanted. */
static void live(struct trace *t, uint32_t load, int s)
{
    for (; t->load < load; t->load++)
        kpa_seen(t->k, 1, T0 + t->at);
    for (; t->load > load; t->load--)
        kpa_seen(t->k, -1, T0 + t->at);
    for (int64_t end = t->at + s * S; t->at < end;) {
        t->at += S / 4;
        kpa_look(t->k, kpa_wanted(t->k), T0 + t->at);
    }
}

static void from_none_and_back(void **state)
{
    struct trace t = {.k = made("{\"target\":\"10\",\"target-utilization-percentage\":\"100\",\"activation-scale\":\"2\","
                                "\"scale-to-zero-pod-retention-period\":\"20s\",\"max-scale\":\"12\"}", 80)};

    assert_int_equal(kpa_wanted(t.k), 1); /* initial */
    live(&t, 0, 50);
    assert_int_equal(kpa_wanted(t.k), 1); /* for a window at least */
    live(&t, 0, 20);
    assert_int_equal(kpa_wanted(t.k), 1); /* retained */
    live(&t, 0, 20);
    assert_int_equal(kpa_wanted(t.k), 0);
    live(&t, 0, 600);
    assert_int_equal(kpa_wanted(t.k), 0);
    t.load = 2;
    assert_true(kpa_seen(t.k, 1, T0 + t.at)); /* a call comes: at once, two */
    assert_int_equal(kpa_wanted(t.k), 2);
    assert_false(kpa_seen(t.k, 1, T0 + t.at));
    live(&t, 80, 4); /* a surge: within two looks the panic window has it */
    assert_true(kpa_view(t.k).panics);
    live(&t, 80, 70);
    assert_int_equal(kpa_wanted(t.k), 8);
    live(&t, 500, 70);
    assert_int_equal(kpa_wanted(t.k), 12); /* max */
    live(&t, 30, 30);
    assert_int_equal(kpa_wanted(t.k), 12); /* it panics still */
    live(&t, 30, 120);
    assert_int_equal(kpa_wanted(t.k), 3);
    live(&t, 0, 62);
    assert_int_equal(kpa_wanted(t.k), 1); /* 2 (activation) while the average is above nothing, then by halves */
    live(&t, 0, 30);
    assert_int_equal(kpa_wanted(t.k), 0);
    kpa_free(t.k);
}

static void bounds(void **state)
{
    struct trace t = {.k = made("{\"min-scale\":\"2\",\"max-scale\":\"4\",\"initial-scale\":\"9\"}", 1)};

    assert_int_equal(kpa_wanted(t.k), 4);
    live(&t, 0, 300);
    assert_int_equal(kpa_wanted(t.k), 2);
    live(&t, 50, 60);
    assert_int_equal(kpa_wanted(t.k), 4);
    kpa_free(t.k);
    t = (struct trace){.k = made("{\"initial-scale\":\"0\"}", 1)};
    assert_int_equal(kpa_wanted(t.k), 0);
    live(&t, 0, 10);
    assert_int_equal(kpa_wanted(t.k), 0);
    kpa_free(t.k);
}

/* The initial number is waited for; nothing is less before. */
static void initial_comes_first(void **state)
{
    struct kpa *k = made("{\"initial-scale\":\"5\"}", 1);

    for (int i = 1; i <= 40; i++)
        kpa_look(k, i < 30 ? 3 : 5, T0 + i * 2 * S);
    assert_true(kpa_wanted(k) < 5);
    kpa_free(k);
    k = made("{\"initial-scale\":\"5\"}", 1);
    for (int i = 1; i <= 40; i++)
        kpa_look(k, 3, T0 + i * 2 * S);
    assert_int_equal(kpa_wanted(k), 5);
    kpa_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(annotations_are_judged), cmocka_unit_test(decisions),         cmocka_unit_test(panics),
        cmocka_unit_test(delays),                 cmocka_unit_test(targets),           cmocka_unit_test(windows_are_of_seconds),
        cmocka_unit_test(from_none_and_back),     cmocka_unit_test(bounds),            cmocka_unit_test(initial_comes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
