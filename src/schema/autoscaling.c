#include "schema/autoscaling.h"

#include "schema/rules_int.h"
#include "schema/schema.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WINDOW_MIN_S = 6, WINDOW_MAX_S = 3600 };
static const int64_t SECOND_NS = 1000000000;

struct reader {
    const struct val *all;
    autoscaling_fault_fn *fault;
    void *arg;
    bool fine;
};

static void _printf_(5, 6) wrong(struct reader *r, const char *key, const char *other, const struct val *bad, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->fine = false;
    if (r->fault)
        r->fault(r->arg, key, other, bad, text);
}

/* The annotation by its name, or by the one that it had before; *ret_key: which. NULL: neither. */
static const struct val *find(const struct reader *r, const char *now, const char *before, const char **ret_key)
{
    const char *const names[] = {now, before};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct val *v = names[i] ? val_get(r->all, names[i]) : NULL;

        if (val_is(v, VAL_STR)) {
            *ret_key = names[i];
            return v;
        }
    }
    return NULL;
}

#define KEY(name) AUTOSCALING_GROUP name

/* false: it is not there, or wrong. */
static bool read_int(struct reader *r, const char *now, const char *before, int *ret, const char **ret_key, const struct val **ret_val)
{
    const struct val *v = find(r, now, before, ret_key);
    const char *s = v ? v->s : "";
    char *end;
    long n;

    *ret_val = v;
    if (!v)
        return false;
    errno = 0;
    n = strtol(s, &end, 10);
    if (end == s || *end || (s[0] != '-' && s[0] != '+' && (s[0] < '0' || s[0] > '9'))) {
        wrong(r, *ret_key, NULL, v, "invalid value: %.100s", s);
        return false;
    }
    if (errno || n < 0 || n > INT32_MAX) {
        wrong(r, *ret_key, NULL, v, "expected 0 <= %.100s <= %d", s, INT32_MAX);
        return false;
    }
    *ret = (int)n;
    return true;
}

/* Out of bounds is the caller's to say. */
static bool read_number(struct reader *r, const char *now, const char *before, double *ret, const char **ret_key, const struct val **ret_val)
{
    const struct val *v = find(r, now, before, ret_key);
    char *end;
    double n;

    *ret_val = v;
    if (!v)
        return false;
    n = strtod(v->s, &end);
    if (end == v->s || *end || !isfinite(n) || v->s[0] == ' ') {
        wrong(r, *ret_key, NULL, v, "invalid value: %.100s", v->s);
        return false;
    }
    *ret = n;
    return true;
}

static void read_percent(struct reader *r, const char *now, const char *before, double low, double high, double *ret)
{
    const struct val *v;
    const char *key;
    double n;

    if (!read_number(r, now, before, &n, &key, &v))
        return;
    if (n < low || n > high)
        wrong(r, key, NULL, v, "expected %g <= %.100s <= %g", low, v->s, high);
    else
        *ret = n / 100;
}

static void read_time(struct reader *r, const char *now, const char *before, int64_t low_s, bool seconds, int64_t *ret_ms)
{
    const char *key;
    const struct val *v = find(r, now, before, &key);
    int64_t ns;

    if (!v)
        return;
    if (!duration_parse(v->s, &ns))
        wrong(r, key, NULL, v, "invalid value: %.100s", v->s);
    else if (ns < low_s * SECOND_NS || ns > WINDOW_MAX_S * SECOND_NS)
        wrong(r, key, NULL, v, "expected %llds <= %.100s <= 1h0m0s", (long long)low_s, v->s);
    else if (seconds && ns % SECOND_NS)
        wrong(r, key, NULL, v, "must be specified with at most second precision");
    else
        *ret_ms = ns / 1000000;
}

static void read_class(struct reader *r, struct autoscaling *ret)
{
    const char *key;
    const struct val *v = find(r, KEY("class"), NULL, &key);

    if (!v || streq(v->s, AUTOSCALING_KPA))
        return;
    if (streq(v->s, "hpa.autoscaling.knative.dev"))
        ret->class_ = AUTOSCALING_BY_HPA;
    else if (str_ends(v->s, ".knative.dev"))
        wrong(r, key, NULL, v, "invalid value: %.100s", v->s);
    else
        ret->class_ = AUTOSCALING_BY_OTHERS;
}

static void read_metric(struct reader *r, struct autoscaling *ret)
{
    const char *key;
    const struct val *v = find(r, KEY("metric"), NULL, &key);
    bool known = v && (streq(v->s, "concurrency") || streq(v->s, "rps"));

    if (v && ((ret->class_ == AUTOSCALING_BY_KPA && !known) || (ret->class_ == AUTOSCALING_BY_HPA && !*v->s)))
        wrong(r, key, NULL, v, "invalid value: %.100s", v->s);
    ret->rps = v && streq(v->s, "rps");
    v = find(r, KEY("metric-aggregation-algorithm"), "autoscaling.knative.dev/metricAggregationAlgorithm", &key);
    if (!v || !*v->s || ret->class_ != AUTOSCALING_BY_KPA || streq(v->s, "linear"))
        return;
    if (streq(v->s, "weighted-exponential") || streq(v->s, "weightedExponential"))
        wrong(r, key, NULL, v, "not built: supported values: \"linear\"");
    else
        wrong(r, key, NULL, v, "invalid value: %.100s", v->s);
}

static void read_bounds(struct reader *r, struct autoscaling *ret)
{
    const char *min_key, *max_key, *key;
    const struct val *v;

    (void)read_int(r, KEY("min-scale"), KEY("minScale"), &ret->min, &min_key, &v);
    if (read_int(r, KEY("max-scale"), KEY("maxScale"), &ret->max, &max_key, &v) && ret->max && ret->max < ret->min) {
        wrong(r, KEY("max-scale"), KEY("min-scale"), v, "max-scale=%d is less than min-scale=%d", ret->max, ret->min);
        ret->min = ret->max;
    }
    if (read_int(r, KEY("activation-scale"), KEY("activationScale"), &ret->activation, &key, &v)) {
        if (ret->activation < 1)
            wrong(r, key, NULL, v, "activation-scale=%d must be greater than 0", ret->activation);
        else if (ret->max && ret->activation > ret->max)
            wrong(r, key, NULL, v, "max-scale=%d is less than activation-scale=%d", ret->max, ret->activation);
        if (ret->activation < 1 || (ret->max && ret->activation > ret->max))
            ret->activation = 1;
    }
    v = find(r, KEY("initial-scale"), KEY("initialScale"), &key);
    if (v && *v->s == '-')
        wrong(r, key, NULL, v, "invalid value: %.100s: must be greater than 0", v->s);
    else
        (void)read_int(r, KEY("initial-scale"), KEY("initialScale"), &ret->initial, &key, &v);
}

static bool is_said(const struct val *annotations)
{
    VAL_EACH_MEMBER(annotations, m)
    if (str_starts(m->key, AUTOSCALING_GROUP))
        return true;
    return false;
}

bool autoscaling_read(const struct val *annotations, struct autoscaling *ret, autoscaling_fault_fn *fault, void *arg)
{
    struct reader r = {annotations, fault, arg, true};
    const struct val *v;
    const char *key;
    double n;

    *ret = (struct autoscaling){.utilization = 0.7, .burst = 211, .initial = 1, .activation = 1, .window_ms = 60000,
                                .panic_window = 0.1, .panic_threshold = 2};
    ret->given = val_is(annotations, VAL_MAP) && is_said(annotations);
    if (!ret->given)
        return true;
    read_class(&r, ret);
    read_bounds(&r, ret);
    read_percent(&r, KEY("panic-window-percentage"), KEY("panicWindowPercentage"), 1, 100, &ret->panic_window);
    read_percent(&r, KEY("panic-threshold-percentage"), KEY("panicThresholdPercentage"), 110, 1000, &ret->panic_threshold);
    if (read_number(&r, KEY("target"), NULL, &n, &key, &v)) {
        if (n < 0.01)
            wrong(&r, key, NULL, v, "target %.100s should be at least 0.01", v->s);
        else
            ret->target = n;
    }
    read_percent(&r, KEY("target-utilization-percentage"), KEY("targetUtilizationPercentage"), 1, 100, &ret->utilization);
    if (read_number(&r, KEY("target-burst-capacity"), KEY("targetBurstCapacity"), &n, &key, &v)) {
        if (n < 0 && n != -1)
            wrong(&r, key, NULL, v, "invalid value: %.100s", v->s);
        else
            ret->burst = n;
    }
    read_time(&r, KEY("window"), NULL, WINDOW_MIN_S, true, &ret->window_ms);
    read_time(&r, KEY("scale-to-zero-pod-retention-period"), KEY("scaleToZeroPodRetentionPeriod"), 0, false, &ret->retention_ms);
    read_time(&r, KEY("scale-down-delay"), KEY("scaleDownDelay"), 0, true, &ret->delay_ms);
    read_metric(&r, ret);
    return r.fine;
}

/* ---- of functions ---- */

static void add_fault(void *arg, const char *key, const char *other, const struct val *bad, const char *message)
{
    struct check *c = arg;

    (void)other; /* the message names it */
    check_fail(c, CAUSE_INVALID, arena_printf(c->a, "metadata.annotations[%s]", key), bad, "%s",
               str_starts(message, "invalid value: ") ? "is no value that it takes" : message);
}

/* A Function, a FunctionVersion. */
HOOK(v_autoscaling)
{
    struct autoscaling s;

    (void)old;
    if (!str_empty(c->sub))
        return;
    (void)autoscaling_read(val_at(v, "metadata.annotations"), &s, add_fault, c);
    if (s.class_ == AUTOSCALING_BY_HPA)
        check_fail(c, CAUSE_NOT_SUPPORTED, "metadata.annotations[" KEY("class") "]", val_get(val_at(v, "metadata.annotations"), KEY("class")),
                   "supported values: \"" AUTOSCALING_KPA "\"");
}
