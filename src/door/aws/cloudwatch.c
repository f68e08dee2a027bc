/* door/aws/cloudwatch.c - CloudWatch's metrics, in the three forms that clients speak: JSON (X-Amz-Target), QUERY (a form,
 * answered in XML) and Smithy's RPC v2 with CBOR. Whatever the form, an operation sees one tree and answers one; the names
 * Timestamp(s) tell which numbers are times.
 *
 * Metrics of functions (namespace AWS/Lambda) are kept by function and version, so those by FunctionName, and those
 * without dimensions, are sums of series; others are what clients put. */
#include "door/aws/aws_int.h"
#include "door/aws/cbor.h"
#include "series/series.h"

#include <math.h>
#include <stdio.h>
#include <time.h>
#include <zlib.h>

enum { QUERIES_MAX = 500, DIMENSIONS_MAX = 30, BODY_PLAIN_MAX = 4 << 20, POINTS_MAX = 1440, PAGE = 500 };
#define CW_NS "default"
#define SEP METRIC_SEP

static const char *const LAMBDA_METRICS[METRICS_OF_CALLS] = {"Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions"};

/* ---- forms ---- */

enum form { JSON, QUERY, CBOR };

static enum form form_of(const struct aws_req *q)
{
    return http_get(q->req, "smithy-protocol") ? CBOR : http_get(q->req, "x-amz-target") ? JSON : QUERY;
}

static bool is_time(const char *key)
{
    return streq(key, "Timestamp") || streq(key, "Timestamps");
}

static void fail(struct aws_req *q, int status, const char *code, const char *type, const char *text)
{
    if (form_of(q) == QUERY) {
        query_error(q, status, code, text);
        return;
    }
    http_header(q->req, "x-amzn-query-error", arena_printf(q->req->arena, "%s;%s", code, status < 500 ? "Sender" : "Receiver"));
    if (form_of(q) == JSON)
        json_error(q, status, type, text);
    else
        cbor_error(q, status, type, text);
}

static void invalid(struct aws_req *q, const char *text)
{
    fail(q, 400, "InvalidParameterValue", "InvalidParameterValueException", text);
}

static void missing(struct aws_req *q, const char *name)
{
    fail(q, 400, "MissingParameter", "MissingRequiredParameterException", arena_printf(q->req->arena, "The parameter %s is required.", name));
}

static void xml_value(struct aws_req *q, struct buf *b, const char *name, const struct val *v)
{
    struct arena *a = q->req->arena;
    double d;

    switch (v->type) {
    case VAL_MAP:
        buf_printf(b, "<%s>", name);
        if (streq(name, "ExtendedStatistics")) {
            VAL_EACH_MEMBER(v, m)
            buf_printf(b, "<entry><key>%s</key><value>%.17g</value></entry>", m->key, val_num_at(v, m->key, 0));
        } else {
            VAL_EACH_MEMBER(v, m)
            xml_value(q, b, m->key, &m->v);
        }
        buf_printf(b, "</%s>", name);
        break;
    case VAL_LIST:
        buf_printf(b, "<%s>", name);
        VAL_EACH(v, it)
        xml_value(q, b, is_time(name) ? "member.Timestamp" : "member", it);
        buf_printf(b, "</%s>", name);
        break;
    case VAL_STR:
        xml_element(b, name, v->s);
        break;
    default:
        d = v->type == VAL_BOOL ? v->b : val_num(v);
        if (is_time(name) || streq(name, "member.Timestamp"))
            xml_element(b, is_time(name) ? name : "member", iso_time(a, (int64_t)(d * 1000)));
        else
            buf_printf(b, "<%s>%.17g</%s>", name, d, name);
    }
}

static void reply(struct aws_req *q, const char *operation, const struct val *v)
{
    struct buf b = {0};

    switch (form_of(q)) {
    case JSON:
        json_reply(q, v);
        return;
    case QUERY:
        query_begin(q, &b, operation);
        VAL_EACH_MEMBER(v, m)
        xml_value(q, &b, m->key, &m->v);
        query_end(q, &b, operation);
        break;
    case CBOR:
        cbor_write(&b, v, is_time);
        http_header(q->req, "smithy-protocol", "rpc-v2-cbor");
        http_header(q->req, "x-amzn-RequestId", q->id);
        http_reply(q->req, 200, "application/cbor", b.p, b.n);
    }
    buf_done(&b);
}

/* "MetricData.member.3.Dimensions.member.1.Name" = value, into the tree; lists grow one by one. False: not so. */
static bool query_put(struct arena *a, struct val *at, char *path, const char *value)
{
    for (int depth = 0; depth < 16; depth++) {
        char *dot = strchr(path, '.');
        struct val *next;

        if (dot)
            *dot = 0;
        if (val_is(at, VAL_LIST)) {
            unsigned long i = strtoul(path, NULL, 10);

            if (i < 1 || i > at->n + 1 || i > 1000)
                return false;
            if (i == at->n + 1)
                val_push(a, at, dot ? val_map(a) : val_str(a, value));
            if (!dot)
                return true;
            next = &at->items[i - 1];
        } else if (val_is(at, VAL_MAP)) {
            if (!dot) {
                val_put_str(a, at, path, value);
                return true;
            }
            next = str_starts(dot + 1, "member.") ? val_need_list(a, at, path) : val_need_map(a, at, path);
            if (str_starts(dot + 1, "member."))
                dot += strlen("member.");
        } else {
            return false;
        }
        at = next;
        path = dot + 1;
    }
    return false;
}

static struct val *read_query(struct aws_req *q, struct err *err)
{
    struct arena *a = q->req->arena;
    struct val *v = val_map(a);

    for (uint32_t i = 0; i < q->form_n; i++)
        if (!query_put(a, v, arena_strdup(a, q->form[i].name), q->form[i].value)) {
            err_set(err, INVALID_ARGUMENT, "the parameter %.100s is malformed", q->form[i].name);
            return NULL;
        }
    return v;
}

/* PutMetricData may come packed. */
static int unpack(struct aws_req *q, struct err *err)
{
    const char *coding = http_get(q->req, "content-encoding");
    z_stream z = {.next_in = (Bytef *)q->body, .avail_in = (uInt)q->body_n};
    char *out;
    int r;

    if (!coding || !streq(coding, "gzip"))
        return 0;
    out = arena_raw(q->req->arena, BODY_PLAIN_MAX + 1);
    z.next_out = (Bytef *)out;
    z.avail_out = BODY_PLAIN_MAX;
    if (inflateInit2(&z, 31) != Z_OK)
        return err_set(err, INTERNAL, "gzip");
    r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    if (r != Z_STREAM_END)
        return err_set(err, INVALID_ARGUMENT, "the body is no gzip, or too long unpacked");
    q->body = out;
    q->body_n = BODY_PLAIN_MAX - z.avail_out;
    out[q->body_n] = 0;
    return 0;
}

/* ---- values of requests, whatever their form ---- */

static double number_of(const struct val *v, double otherwise)
{
    char *end;
    double d;

    if (val_is_number(v))
        return val_num(v);
    if (!val_is(v, VAL_STR) || !v->n)
        return otherwise;
    d = strtod(v->s, &end);
    return *end ? otherwise : d;
}

/* Seconds since 1970; NAN: it says none. */
static double time_of(const struct val *v)
{
    struct tm tm = {0};
    const char *rest;

    if (val_is_number(v))
        return number_of(v, NAN);
    if (!val_is(v, VAL_STR))
        return NAN;
    rest = strptime(v->s, "%Y-%m-%dT%H:%M:%S", &tm);
    return rest ? (double)timegm(&tm) : number_of(v, NAN);
}

/* ---- series ---- */

static int text_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

struct dimensions {
    const char *v[DIMENSIONS_MAX]; /* NAME=VALUE, in order */
    uint32_t n;
};

static int read_dimensions(struct aws_req *q, const struct val *list, struct dimensions *d)
{
    d->n = 0;
    VAL_EACH(list, it)
    {
        const char *name = val_str_at(it, "Name", ""), *value = val_str_at(it, "Value", "");

        if (d->n == DIMENSIONS_MAX || !*name || !*value || strlen(name) > 255 || strlen(value) > 1024 || strpbrk(name, SEP "=") || strpbrk(value, SEP)) {
            invalid(q, "The value of the parameter Dimensions is malformed: a name and a value each, at most 30.");
            return -1;
        }
        d->v[d->n++] = arena_printf(q->req->arena, "%s=%s", name, value);
    }
    qsort(d->v, d->n, sizeof *d->v, text_order);
    return 0;
}

static const char *dimension(const struct dimensions *d, const char *name)
{
    size_t n = strlen(name);

    for (uint32_t i = 0; i < d->n; i++)
        if (strncmp(d->v[i], name, n) == 0 && d->v[i][n] == '=')
            return d->v[i] + n + 1;
    return NULL;
}

/* The series of one metric: prefix, whole, metric of an ask. False: there can be none. */
static bool series_of(struct aws_req *q, const char *ns, const char *name, const struct dimensions *d, struct metric_ask *ask)
{
    struct arena *a = q->req->arena;
    const char *function = dimension(d, "FunctionName"), *resource = dimension(d, "Resource"), *colon;
    struct buf b = {0};

    ask->metric = -1;
    if (streq(ns, "AWS/Lambda")) {
        for (int i = 0; i < METRICS_OF_CALLS; i++)
            if (streq(name, LAMBDA_METRICS[i]))
                ask->metric = i;
        if (ask->metric < 0 || d->n > 3 || (d->n && !function))
            return false;
        ask->whole = resource;
        colon = resource ? strchr(resource, ':') : NULL;
        if (!function)
            ask->prefix = "fn" SEP CW_NS SEP;
        else if (!resource)
            ask->prefix = arena_printf(a, "fn" SEP CW_NS SEP "%s" SEP, function);
        else if (!colon || !colon[1 + strspn(colon + 1, "0123456789")])
            ask->prefix = arena_printf(a, "fn" SEP CW_NS SEP "%s" SEP "%s", function, colon ? colon + 1 : "$LATEST");
        else
            ask->prefix = arena_printf(a, "as" SEP CW_NS SEP "%s" SEP "%s", function, colon + 1);
        return true;
    }
    buf_printf(&b, "cw" SEP "%s" SEP "%s", ns, name);
    for (uint32_t i = 0; i < d->n; i++)
        buf_printf(&b, SEP "%s", d->v[i]);
    ask->prefix = arena_strdup(a, b.p);
    ask->whole = true;
    buf_done(&b);
    return true;
}

static const char *unit_of(const char *ns, int metric)
{
    (void)ns;
    return metric == METRIC_DURATION ? "Milliseconds" : metric >= 0 ? "Count" : "None";
}

/* -1: no statistic of that name. pNN and pNN.N want bins. */
static bool stat_known(const char *s, bool *ret_bins)
{
    static const char *const names[] = {"SampleCount", "Average", "Sum", "Minimum", "Maximum"};
    char *end;
    double p;

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(s, names[i]))
            return true;
    if (*s != 'p' || !s[1])
        return false;
    p = strtod(s + 1, &end);
    *ret_bins = true;
    return !*end && p >= 0 && p <= 100;
}

static double stat_value(const struct metric_bucket *b, const char *s)
{
    switch (*s) {
    case 'A': return b->p.n ? b->p.sum / b->p.n : 0;
    case 'p': return metric_percentile(b, strtod(s + 1, NULL));
    case 'M': return streq(s, "Minimum") ? b->p.min : b->p.max;
    default: return streq(s, "Sum") ? b->p.sum : b->p.n;
    }
}

/* Range and period of a request into an ask, in minutes. False: answered. */
static bool read_range(struct aws_req *q, const struct val *in, double period_s, struct metric_ask *ask, uint32_t most)
{
    double from = time_of(val_get(in, "StartTime")), to = time_of(val_get(in, "EndTime"));
    int64_t period = (int64_t)period_s;

    if (isnan(from) || isnan(to) || from < 0 || to > 1e11) {
        missing(q, isnan(from) ? "StartTime" : "EndTime");
        return false;
    }
    if (from >= to) {
        invalid(q, "The parameter StartTime must be less than the parameter EndTime.");
        return false;
    }
    if (period < 1 || (period >= 60 ? period % 60 : period != 1 && period != 5 && period != 10 && period != 30) || period > 86400 * 30) {
        invalid(q, "The parameter Period must be a multiple of 60.");
        return false;
    }
    ask->period = MAX(period / 60, (int64_t)1); /* nothing is kept finer than a minute */
    ask->from = (int64_t)floor(from / 60) / ask->period * ask->period;
    ask->to = (int64_t)ceil(to / 60);
    if ((ask->to - ask->from) / ask->period >= most) {
        fail(q, 400, "InvalidParameterCombination", "InvalidParameterCombinationException",
             arena_printf(q->req->arena, "You have requested up to %lld datapoints, which exceeds the limit of %u. You may reduce the datapoints requested "
                          "by increasing Period, or decreasing the time range.", (long long)((ask->to - ask->from) / ask->period + 1), most));
        return false;
    }
    return true;
}

/* ---- GetMetricStatistics ---- */

struct stats {
    struct aws_req *q;
    const struct val *in;
    struct metric_ask ask;
    const char *unit;
    bool none;
};

static void on_stats(void *arg)
{
    struct stats *s = arg;
    struct arena *a = s->q->req->arena;
    struct val *out = val_map(a), *list = val_list(a);

    for (uint32_t i = 0; !s->none && i < s->ask.buckets_n; i++) {
        const struct metric_bucket *b = &s->ask.buckets[i];
        struct val *v, *more = val_map(a);

        if (!b->p.n)
            continue;
        v = val_map(a);
        val_put(a, v, "Timestamp", val_double(a, (double)((s->ask.from + i * s->ask.period) * 60)));
        VAL_EACH(val_get(s->in, "Statistics"), it)
        val_put(a, v, val_text(it, ""), val_double(a, stat_value(b, val_text(it, ""))));
        VAL_EACH(val_get(s->in, "ExtendedStatistics"), it)
        val_put(a, more, val_text(it, ""), val_double(a, stat_value(b, val_text(it, ""))));
        if (val_len(more))
            val_put(a, v, "ExtendedStatistics", more);
        val_put_str(a, v, "Unit", s->unit);
        val_push(a, list, v);
    }
    val_put_str(a, out, "Label", val_str_at(s->in, "MetricName", ""));
    val_put(a, out, "Datapoints", list);
    reply(s->q, "GetMetricStatistics", out);
}

static void get_statistics(struct aws_req *q, const struct val *in)
{
    struct stats *s = arena_new_of(q->req->arena, struct stats);
    const char *const needed[] = {"Namespace", "MetricName", "StartTime", "EndTime", "Period"};
    struct dimensions d;
    const char *const lists[] = {"Statistics", "ExtendedStatistics"};

    s->q = q;
    s->in = in;
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (!val_get(in, needed[i])) {
            missing(q, needed[i]);
            return;
        }
    if (!val_len(val_get(in, "Statistics")) && !val_len(val_get(in, "ExtendedStatistics"))) {
        missing(q, "Statistics");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(in, lists[i]), it)
        if (!stat_known(val_text(it, ""), &s->ask.bins)) {
            invalid(q, arena_printf(q->req->arena, "The value %.60s for parameter %s is not supported.", val_text(it, ""), lists[i]));
            return;
        }
    if (read_dimensions(q, val_get(in, "Dimensions"), &d) < 0 || !read_range(q, in, number_of(val_get(in, "Period"), 0), &s->ask, POINTS_MAX))
        return;
    s->none = !series_of(q, val_str_at(in, "Namespace", ""), val_str_at(in, "MetricName", ""), &d, &s->ask);
    s->unit = unit_of(val_str_at(in, "Namespace", ""), s->ask.metric);
    series_ask(q->d->o.metrics, q->req->arena, &s->ask, s->none ? 0 : 1, on_stats, s);
}

/* ---- GetMetricData ---- */

struct data {
    struct aws_req *q;
    const struct val *in;
    struct metric_ask *asks;
    uint32_t n;
    bool *none;
};

static void on_data(void *arg)
{
    struct data *s = arg;
    struct arena *a = s->q->req->arena;
    struct val *out = val_map(a), *results = val_list(a);
    bool up = streq(val_str_at(s->in, "ScanBy", ""), "TimestampAscending");
    uint32_t at = 0;

    VAL_EACH(val_get(s->in, "MetricDataQueries"), q)
    {
        const struct metric_ask *ask = &s->asks[at];
        const char *stat = val_str_at(q, "MetricStat.Stat", "");
        struct val *v = val_map(a), *times = val_list(a), *values = val_list(a);

        for (uint32_t k = 0; !s->none[at] && k < ask->buckets_n; k++) {
            uint32_t i = up ? k : ask->buckets_n - 1 - k;

            if (!ask->buckets[i].p.n)
                continue;
            val_push(a, times, val_double(a, (double)((ask->from + i * ask->period) * 60)));
            val_push(a, values, val_double(a, stat_value(&ask->buckets[i], stat)));
        }
        at++;
        if (streq(val_text(val_get(q, "ReturnData"), ""), "false") || !val_bool_at(q, "ReturnData", true))
            continue;
        val_put_str(a, v, "Id", val_str_at(q, "Id", ""));
        val_put_str(a, v, "Label", val_str_at(q, "Label", val_str_at(q, "MetricStat.Metric.MetricName", "")));
        val_put(a, v, "Timestamps", times);
        val_put(a, v, "Values", values);
        val_put_str(a, v, "StatusCode", "Complete");
        val_push(a, results, v);
    }
    val_put(a, out, "MetricDataResults", results);
    val_put(a, out, "Messages", val_list(a));
    reply(s->q, "GetMetricData", out);
}

static void get_data(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const struct val *queries = val_get(in, "MetricDataQueries");
    struct data *s = arena_new_of(a, struct data);
    uint64_t points = 0;

    *s = (struct data){q, in, arena_array(a, struct metric_ask, val_len(queries) + 1), 0, arena_array(a, bool, val_len(queries) + 1)};
    if (!val_len(queries) || val_len(queries) > QUERIES_MAX) {
        invalid(q, "The parameter MetricDataQueries wants 1 to 500 queries.");
        return;
    }
    VAL_EACH(queries, it)
    {
        struct metric_ask *ask = &s->asks[s->n];
        const struct val *m = val_at(it, "MetricStat.Metric");
        const char *stat = val_str_at(it, "MetricStat.Stat", "");
        struct dimensions d;

        if (val_get(it, "Expression")) {
            fail(q, 501, "NotImplemented", "NotImplementedException", "tandem does not reckon metric math: ask for each metric by MetricStat");
            return;
        }
        if (!stat_known(stat, &ask->bins)) {
            invalid(q, arena_printf(a, "The value %.60s for parameter MetricDataQueries.member.%u.MetricStat.Stat is not supported.", stat, s->n + 1));
            return;
        }
        if (read_dimensions(q, val_get(m, "Dimensions"), &d) < 0 ||
            !read_range(q, in, number_of(val_at(it, "MetricStat.Period"), 0), ask, ask->bins ? POINTS_MAX : METRICS_BUCKETS_MAX))
            return;
        points += (uint64_t)((ask->to - ask->from) / ask->period + 1) * (ask->bins ? 16 : 1);
        s->none[s->n] = !series_of(q, val_str_at(m, "Namespace", ""), val_str_at(m, "MetricName", ""), &d, ask);
        if (s->none[s->n])
            *ask = (struct metric_ask){.prefix = "\n", .whole = true, .period = 1};
        s->n++;
    }
    if (points > METRICS_BUCKETS_MAX) {
        invalid(q, "The request asks for more than 100,800 datapoints: take fewer metrics, longer periods or a shorter range.");
        return;
    }
    series_ask(q->d->o.metrics, a, s->asks, s->n, on_data, s);
}

/* ---- ListMetrics ---- */

struct listing {
    struct aws_req *q;
    const struct val *in;
    struct val *list;
    uint32_t from, seen;
    bool more;
};

static bool dimensions_fit(const struct val *filters, const struct val *dimensions)
{
    VAL_EACH(filters, f)
    {
        bool hit = false;

        VAL_EACH(dimensions, d)
        hit |= streq(val_str_at(d, "Name", ""), val_str_at(f, "Name", "")) &&
               (!val_get(f, "Value") || streq(val_str_at(d, "Value", ""), val_str_at(f, "Value", "")));
        if (!hit)
            return false;
    }
    return true;
}

static void list_one(struct listing *l, const char *ns, const char *name, const struct val *dimensions)
{
    struct arena *a = l->q->req->arena;
    const char *want_ns = val_str_at(l->in, "Namespace", NULL), *want = val_str_at(l->in, "MetricName", NULL);
    struct val *v;

    if ((want_ns && !streq(want_ns, ns)) || (want && !streq(want, name)) || !dimensions_fit(val_get(l->in, "Dimensions"), dimensions))
        return;
    if (l->seen++ < l->from)
        return;
    if (val_len(l->list) == PAGE) {
        l->more = true;
        return;
    }
    v = val_map(a);
    val_put_str(a, v, "Namespace", ns);
    val_put_str(a, v, "MetricName", name);
    val_put(a, v, "Dimensions", dimensions);
    val_push(a, l->list, v);
}

static void add_dimension(struct arena *a, struct val *list, const char *name, const char *value)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "Name", name);
    val_put_str(a, v, "Value", value);
    val_push(a, list, v);
}

/* A series of a function's calls: by its resource, and (told once, of the first of its versions) by function and in all. */
static void list_calls(struct listing *l, const char *name, const char *version, bool first, bool first_of_all)
{
    struct arena *a = l->q->req->arena;

    for (int i = 0; i < METRICS_OF_CALLS; i++) {
        struct val *d = val_list(a), *f = val_list(a);

        if (first_of_all)
            list_one(l, "AWS/Lambda", LAMBDA_METRICS[i], val_list(a));
        add_dimension(a, f, "FunctionName", name);
        if (first)
            list_one(l, "AWS/Lambda", LAMBDA_METRICS[i], f);
        add_dimension(a, d, "FunctionName", name);
        add_dimension(a, d, "Resource", streq(version, "$LATEST") ? name : arena_printf(a, "%s:%s", name, version));
        list_one(l, "AWS/Lambda", LAMBDA_METRICS[i], d);
    }
}

static void on_keys(void *arg, const char *const *keys, uint32_t n)
{
    struct listing *l = arg;
    struct arena *a = l->q->req->arena;
    struct val *out = val_map(a);
    const char *last = "";

    for (uint32_t i = 0; i < n; i++) {
        char *text = arena_strdup(a, keys[i]), *kind = strsep(&text, SEP), *ns = text ? strsep(&text, SEP) : NULL;
        char *name = text ? strsep(&text, SEP) : NULL;

        if (!name)
            continue;
        if (streq(kind, "cw")) {
            struct val *d = val_list(a);

            for (char *one; (one = strsep(&text, SEP));) {
                char *value = strchr(one, '=');

                if (value) {
                    *value = 0;
                    add_dimension(a, d, one, value + 1);
                }
            }
            list_one(l, ns, name, d);
        } else if (text && streq(ns, CW_NS)) {
            list_calls(l, name, text, streq(kind, "fn") && !streq(last, name), streq(kind, "fn") && !*last);
            if (streq(kind, "fn"))
                last = name;
        }
    }
    val_put(a, out, "Metrics", l->list);
    if (l->more)
        val_put_str(a, out, "NextToken", arena_printf(a, "%u", l->from + PAGE));
    reply(l->q, "ListMetrics", out);
}

static void list_metrics(struct aws_req *q, const struct val *in)
{
    struct listing *l = arena_new_of(q->req->arena, struct listing);

    *l = (struct listing){.q = q, .in = in, .list = val_list(q->req->arena)};
    l->from = (uint32_t)strtoul(val_str_at(in, "NextToken", "0"), NULL, 10);
    series_each(q->d->o.metrics, on_keys, l);
}

/* ---- PutMetricData ---- */

static void on_put(void *arg, const struct err *err)
{
    struct aws_req *q = arg;

    if (err)
        fail(q, 500, "InternalServiceError", "InternalServiceFault", err->msg);
    else
        reply(q, "PutMetricData", val_map(q->req->arena));
}

static bool put_one(struct aws_req *q, const char *ns, const struct val *it, struct metric_value *v, uint32_t *n, uint32_t room)
{
    const char *name = val_str_at(it, "MetricName", "");
    double when = time_of(val_get(it, "Timestamp")), now = (double)time(NULL);
    const struct val *set = val_get(it, "StatisticValues"), *values = val_get(it, "Values"), *counts = val_get(it, "Counts");
    struct metric_ask ask = {0};
    struct metric_value one = {.count = 1};
    struct dimensions d;

    if (!*name || strlen(name) > 255 || strpbrk(name, SEP)) {
        missing(q, "MetricData.member.MetricName");
        return false;
    }
    if (read_dimensions(q, val_get(it, "Dimensions"), &d) < 0)
        return false;
    when = isnan(when) ? now : when;
    if (when > now + 7200 || when < now - 14 * 86400) {
        invalid(q, "The parameter MetricData.member.Timestamp must be between two weeks ago and two hours from now.");
        return false;
    }
    (void)!series_of(q, ns, name, &d, &ask);
    one.key = ask.prefix;
    one.minute = (int64_t)when / 60;
    if (set) {
        one.set = true;
        one.of = (struct metric_point){number_of(val_get(set, "SampleCount"), 0), number_of(val_get(set, "Sum"), 0),
                                       number_of(val_get(set, "Minimum"), 0), number_of(val_get(set, "Maximum"), 0)};
        v[(*n)++] = one;
        return true;
    }
    if (!val_len(values)) {
        one.value = number_of(val_get(it, "Value"), NAN);
        if (!isfinite(one.value)) {
            invalid(q, "The value for the parameter MetricData.member.Value must be a number.");
            return false;
        }
        v[(*n)++] = one;
        return true;
    }
    for (uint32_t i = 0; i < val_len(values); i++) {
        one.value = number_of(&values->items[i], NAN);
        one.count = i < val_len(counts) ? number_of(&counts->items[i], 1) : 1;
        if (!isfinite(one.value) || !(one.count > 0) || *n == room) {
            invalid(q, "The values and counts of MetricData are numbers, at most 150 of a metric.");
            return false;
        }
        v[(*n)++] = one;
    }
    return true;
}

static void put_data(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *ns = val_str_at(in, "Namespace", "");
    const struct val *data = val_get(in, "MetricData");
    uint32_t n = 0, room = val_len(data) * 151 + 1;
    struct metric_value *v;
    struct err err;

    if (!*ns || strlen(ns) > 255 || strpbrk(ns, SEP)) {
        missing(q, "Namespace");
        return;
    }
    if (str_starts(ns, "AWS/")) {
        invalid(q, "The value AWS/ for parameter Namespace is invalid: it is reserved.");
        return;
    }
    if (!val_len(data) || val_len(data) > 1000) {
        invalid(q, "The collection MetricData must not have a size greater than 1000, nor be empty.");
        return;
    }
    v = arena_array(a, struct metric_value, room);
    VAL_EACH(data, it)
    if (!put_one(q, ns, it, v, &n, room - 1))
        return;
    if (series_put(q->d->o.metrics, v, n, on_put, q, &err) < 0)
        fail(q, 400, "Throttling", "ThrottlingException", err.msg);
}

/* ---- operations ---- */

static const struct {
    const char *name;
    void (*run)(struct aws_req *q, const struct val *in);
} OPERATIONS[] = {
    {"GetMetricData", get_data},
    {"GetMetricStatistics", get_statistics},
    {"ListMetrics", list_metrics},
    {"PutMetricData", put_data},
};

void cloudwatch_request(struct aws_req *q)
{
    const char *name;
    struct val *in = NULL;
    struct err err = {0};

    if (unpack(q, &err) < 0) {
        invalid(q, err.msg);
        return;
    }
    name = form_of(q) == QUERY ? query_param(q, "Action") : json_operation(q); /* as it was authorized */
    for (size_t i = 0; name && i < ARRAY_LEN(OPERATIONS); i++) {
        if (!streq(OPERATIONS[i].name, name))
            continue;
        switch (form_of(q)) {
        case JSON: in = json_parse(q->req->arena, q->body_n ? q->body : "{}", q->body_n ? q->body_n : 2, &err); break;
        case QUERY: in = read_query(q, &err); break;
        case CBOR: in = q->body_n ? cbor_read(q->req->arena, q->body, q->body_n, &err) : val_map(q->req->arena); break;
        }
        if (!val_is(in, VAL_MAP))
            fail(q, 400, "MalformedInput", "SerializationException", err.code ? err.msg : "the request's body is no object");
        else
            OPERATIONS[i].run(q, in);
        return;
    }
    if (name)
        fail(q, 501, "NotImplemented", "NotImplementedException", arena_printf(q->req->arena, "tandem does not serve the CloudWatch operation %s", name));
    else
        fail(q, 400, "MissingAction", "UnknownOperationException", "the request names no operation");
}
