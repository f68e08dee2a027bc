/* The exporter: otlp.h. */
#include "gateway/otlp_int.h"

#include "base/log.h"
#include "env/fs.h"
#include "http/client.h"

#include <errno.h>
#include <stdio.h>

enum { BATCH_BYTES = 256 << 10, WAITING_BYTES = 2 << 20, CALL_BYTES = 64 << 10, DELAY_MS = 1000, TRIES_MAX = 5, BACKOFF_MS = 1000,
       BACKOFF_MAX_MS = 30000, HEADERS_MAX = 20, STOP_MS = 1000 };

/* How roots are sampled; by_parent: what the caller decided wins. */
enum sampler { ALWAYS_ON, ALWAYS_OFF, RATIO };

struct otlp {
    uv_loop_t *loop;
    struct http_origin *origin;
    struct arena *arena; /* of what is configured */
    const char *path;
    struct http_header headers[HEADERS_MAX + 1];
    size_t headers_n;
    uint32_t timeout_ms;
    enum sampler sampler;
    bool by_parent;
    uint64_t below; /* RATIO: ids whose last 56 bits are less */
    struct buf resource;           /* encoded: Resource and scope */
    struct buf waiting, sending;   /* encoded spans */
    uint32_t waiting_n, sending_n; /* spans */
    struct http_call *call;        /* of sending */
    int tries;
    uv_timer_t timer, last;
    int handles;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
    uint64_t sent, dropped_full, dropped_failed, rejected, failures;
    int64_t told_us; /* when somebody was told of a failure last */
};

/* ---- what the environment says ---- */

static const char *env(const char *name)
{
    const char *s = getenv(name);

    return str_empty(s) ? NULL : s;
}

/* The one for traces, else the one for all signals. */
static const char *env_of(const char *traces, const char *all)
{
    const char *s = env(traces);

    return s ? s : env(all);
}

/* "name=value,name=value", values escaped as in URLs; each() gets pieces of the arena. */
static void each_pair(struct arena *a, const char *s, void (*each)(void *arg, const char *name, const char *value), void *arg)
{
    while (s && *s) {
        size_t n = strcspn(s, ",");
        const char *eq = memchr(s, '=', n);

        if (eq && eq > s) {
            const char *name = arena_strndup(a, s, (size_t)(eq - s)), *value = http_unescape(a, eq + 1, (size_t)(s + n - eq - 1), false);

            name += strspn(name, " ");
            if (value && *name)
                each(arg, name, value + strspn(value, " "));
        }
        s += n + (s[n] == ',');
    }
}

static void add_header(void *arg, const char *name, const char *value)
{
    struct otlp *o = arg;

    if (o->headers_n < HEADERS_MAX && !strpbrk(name, " \t\r\n:") && !strpbrk(value, "\r\n"))
        o->headers[o->headers_n++] = (struct http_header){name, value};
}

static void add_attr(void *arg, const char *name, const char *value)
{
    if (!streq(name, "service.name") || !env("OTEL_SERVICE_NAME"))
        otlp_attr(arg, 1, name, value);
}

static void read_sampler(struct otlp *o)
{
    const char *s = env("OTEL_TRACES_SAMPLER"), *arg = env("OTEL_TRACES_SAMPLER_ARG");
    double ratio = arg ? strtod(arg, NULL) : 1;

    s = s ? s : "parentbased_always_on";
    o->by_parent = str_starts(s, "parentbased_");
    s += o->by_parent ? strlen("parentbased_") : 0;
    o->sampler = streq(s, "always_off") ? ALWAYS_OFF : streq(s, "traceidratio") ? RATIO : ALWAYS_ON;
    o->below = (uint64_t)(MIN(MAX(ratio, 0.0), 1.0) * (double)(UINT64_C(1) << 56));
}

static void write_resource(struct otlp *o)
{
    const char *given = env("OTEL_RESOURCE_ATTRIBUTES"), *name = env("OTEL_SERVICE_NAME");
    size_t at = otlp_begin(&o->resource, 1);
    char host[65] = "";

    gethostname(host, sizeof host - 1);
    if (name || !given || !strstr(given, "service.name="))
        otlp_attr(&o->resource, 1, "service.name", name ? name : "tandem");
    otlp_attr(&o->resource, 1, "host.name", host);
    each_pair(o->arena, given, add_attr, &o->resource);
    otlp_end(&o->resource, at);
}

/* Splits "http://host:4318/base" into what is connected to and the path. */
static int read_endpoint(struct otlp *o, const char *url, bool whole, const char **ret_origin, struct err *err)
{
    const char *host = strstr(url, "://"), *path = host ? strchr(host + 3, '/') : NULL;
    size_t n;

    if (!str_starts(url, "http://") && !str_starts(url, "https://"))
        return err_set(err, INVALID_ARGUMENT, "the endpoint of traces wants http:// or https://, not '%.200s'", url);
    *ret_origin = path ? arena_strndup(o->arena, url, (size_t)(path - url)) : arena_strdup(o->arena, url);
    n = path ? strlen(path) : 0;
    if (whole) {
        o->path = path ? arena_strdup(o->arena, path) : "/";
        return 0;
    }
    while (n && path[n - 1] == '/')
        n--;
    o->path = arena_printf(o->arena, "%.*s/v1/traces", (int)n, path ? path : "");
    return 0;
}

static int configure(struct otlp *o, struct http_client *http, const char *endpoint, bool whole, struct err *err)
{
    const char *timeout = env_of("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"), *origin = NULL;
    const char *ca = env_of("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
    struct http_origin_opts opts = {.conns_max = 1};
    _auto_(freep) char *pem = NULL;
    size_t n;

    if (read_endpoint(o, endpoint, whole, &origin, err) < 0)
        return -1;
    if (ca && !(pem = fs_read(ca, 1 << 20, &n, err)))
        return err_wrap(err, "the certificate for traces");
    opts.ca_pem = pem;
    o->origin = http_origin_new(http, origin, &opts, err);
    if (!o->origin)
        return err_wrap(err, "the endpoint of traces");
    o->headers[o->headers_n++] = (struct http_header){"Content-Type", "application/x-protobuf"};
    each_pair(o->arena, env_of("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"), add_header, o);
    o->timeout_ms = timeout && atoi(timeout) > 0 ? (uint32_t)atoi(timeout) : 10000;
    read_sampler(o);
    write_resource(o);
    LOG(INFO, "gateway", "did=trace to=%s%s", origin, o->path);
    return 0;
}

static void otlp_free(struct otlp *o)
{
    buf_done(&o->resource);
    buf_done(&o->waiting);
    buf_done(&o->sending);
    arena_free(o->arena);
    free(o);
}

struct otlp *otlp_new(uv_loop_t *loop, struct http_client *http, const char *endpoint, struct err *err)
{
    const char *protocol = env_of("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"), *url = endpoint;
    const char *disabled = env("OTEL_SDK_DISABLED"), *exporter = env("OTEL_TRACES_EXPORTER");
    bool whole = false;
    struct otlp *o;

    err->code = ERR_OK;
    if (endpoint && streq(endpoint, "none"))
        return NULL;
    if (!url && ((disabled && streq(disabled, "true")) || (exporter && streq(exporter, "none"))))
        return NULL;
    if (!url && (url = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")))
        whole = true;
    if (!url && !(url = env("OTEL_EXPORTER_OTLP_ENDPOINT")))
        return NULL;
    if (!endpoint && protocol && !streq(protocol, "http/protobuf")) {
        err_set(err, NOT_IMPLEMENTED, "traces are sent by http/protobuf only, not by %.40s (OTEL_EXPORTER_OTLP_PROTOCOL)", protocol);
        return NULL;
    }
    o = xcalloc(1, sizeof *o);
    o->loop = loop;
    o->arena = arena_new();
    buf_init(&o->waiting, WAITING_BYTES);
    if (configure(o, http, url, whole, err) < 0) {
        otlp_free(o);
        return NULL;
    }
    uv_timer_init(loop, &o->timer);
    uv_timer_init(loop, &o->last);
    o->timer.data = o->last.data = o;
    o->handles = 2;
    return o;
}

bool otlp_sample(void *arg, const char *id, int decided)
{
    const struct otlp *o = arg;

    if (o->by_parent && decided >= 0)
        return decided;
    return o->sampler == ALWAYS_ON || (o->sampler == RATIO && (strtoull(id + 16, NULL, 16) & ((UINT64_C(1) << 56) - 1)) < o->below);
}

/* ---- sending ---- */

static void send_batch(struct otlp *o);
static void maybe_stopped(struct otlp *o);

static void on_timer(uv_timer_t *t)
{
    send_batch(t->data);
}

/* The batch is over, one way or the other: the next one. */
static void batch_over(struct otlp *o)
{
    buf_done(&o->sending);
    o->sending_n = 0;
    o->tries = 0;
    if (o->stopping)
        maybe_stopped(o);
    else if (o->waiting.n)
        uv_timer_start(&o->timer, on_timer, o->waiting.n >= BATCH_BYTES ? 0 : DELAY_MS, 0);
}

/* ExportTraceServiceResponse.partial_success.rejected_spans, of a body that somebody else wrote. */
static uint64_t rejected_in(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    size_t at = 2;

    if (n < 4 || p[0] != 0x0a || p[2] != 0x08) /* field 1, its length, field 1 in there */
        return 0;
    for (int shift = 0; ++at < n && shift < 63; shift += 7) {
        v |= (uint64_t)(p[at] & 0x7f) << shift;
        if (!(p[at] & 0x80))
            return v;
    }
    return 0;
}

static void tell(struct otlp *o, const char *what, const char *why)
{
    int64_t now = (int64_t)(uv_hrtime() / 1000);

    o->failures++;
    if (o->told_us && now - o->told_us < 60000000)
        return; /* the counters tell the rest */
    o->told_us = now;
    LOG(WARN, "gateway", "did=trace-%s error=\"%s\" dropped=%llu", what, why, (unsigned long long)(o->dropped_full + o->dropped_failed));
}

static void on_answer(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct otlp *o = arg;
    int status = a ? a->status : 0;
    bool again = err || status == 429 || (status >= 502 && status <= 504);
    const char *after = a ? http_answer_get(a, "retry-after") : NULL;
    int64_t wait_ms = MIN((int64_t)BACKOFF_MS << o->tries, (int64_t)BACKOFF_MAX_MS);
    char text[40];

    o->call = NULL;
    if (!err && status >= 200 && status < 300) {
        uint64_t rejected = MIN(rejected_in((const unsigned char *)body, n), (uint64_t)o->sending_n);

        o->rejected += rejected;
        o->sent += o->sending_n - rejected;
        batch_over(o);
        return;
    }
    snprintf(text, sizeof text, "it answered %d", status);
    tell(o, again ? "retry" : "refused", err ? err->msg : text);
    if (!again || o->stopping || ++o->tries >= TRIES_MAX) {
        o->dropped_failed += o->sending_n;
        batch_over(o);
        return;
    }
    if (after && atoi(after) > 0)
        wait_ms = MIN((int64_t)atoi(after) * 1000, (int64_t)BACKOFF_MAX_MS);
    uv_timer_start(&o->timer, on_timer, (uint64_t)wait_ms, 0);
}

/* What failed, once more; else what waits. */
static void send_batch(struct otlp *o)
{
    struct buf b = {0};
    size_t at, spans;

    if (o->call)
        return;
    if (!o->sending.n) {
        if (!o->waiting.n)
            return;
        o->sending = o->waiting;
        o->sending_n = o->waiting_n;
        buf_init(&o->waiting, WAITING_BYTES);
        o->waiting_n = 0;
    }
    at = otlp_begin(&b, 1); /* ResourceSpans */
    buf_add(&b, o->resource.p, o->resource.n);
    spans = otlp_begin(&b, 2); /* ScopeSpans */
    otlp_bytes(&b, 1, "\x0a\x06tandem", 8); /* the scope's name */
    buf_add(&b, o->sending.p, o->sending.n);
    otlp_end(&b, spans);
    otlp_end(&b, at);
    o->call = http_fetch(o->origin, &(struct http_call_opts){.method = "POST", .path = o->path, .headers = o->headers, .headers_n = o->headers_n,
        .body = b.p, .body_n = b.n, .timeout_ms = o->timeout_ms, .idle_timeout_ms = o->timeout_ms}, 64 << 10, on_answer, o);
    buf_done(&b);
}

void otlp_span(void *arg, const struct function_span *s)
{
    struct otlp *o = arg;
    struct buf b;
    uint32_t n;

    buf_init(&b, CALL_BYTES);
    n = otlp_encode(&b, s);
    if (o->stopping || b.over || o->waiting.n + b.n > WAITING_BYTES) {
        o->dropped_full += n;
    } else {
        buf_add(&o->waiting, b.p, b.n);
        o->waiting_n += n;
    }
    buf_done(&b);
    if (o->call || o->sending.n || o->stopping)
        return; /* its end starts the next */
    if (o->waiting.n >= BATCH_BYTES)
        send_batch(o);
    else if (!uv_is_active((uv_handle_t *)&o->timer))
        uv_timer_start(&o->timer, on_timer, DELAY_MS, 0);
}

void otlp_prometheus(const struct otlp *o, struct buf *out)
{
    const struct {
        const char *result;
        uint64_t n;
    } rows[] = {{"sent", o ? o->sent : 0}, {"dropped_full", o ? o->dropped_full : 0}, {"dropped_failed", o ? o->dropped_failed : 0},
                {"rejected", o ? o->rejected : 0}};

    if (!o)
        return;
    buf_adds(out, "# HELP tandem_trace_spans_total Spans for the collector, by what became of them.\n# TYPE tandem_trace_spans_total counter\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        buf_printf(out, "tandem_trace_spans_total{result=\"%s\"} %llu\n", rows[i].result, (unsigned long long)rows[i].n);
    buf_printf(out, "# HELP tandem_trace_export_failures_total Exports that the collector did not take.\n"
                    "# TYPE tandem_trace_export_failures_total counter\ntandem_trace_export_failures_total %llu\n"
                    "# HELP tandem_trace_waiting_bytes Spans that are not sent yet.\n# TYPE tandem_trace_waiting_bytes gauge\n"
                    "tandem_trace_waiting_bytes %zu\n", (unsigned long long)o->failures, o->waiting.n + o->sending.n);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *h)
{
    struct otlp *o = h->data;
    void (*stopped)(void *) = o->stopped;
    void *arg = o->stopped_arg;

    if (--o->handles)
        return;
    otlp_free(o);
    stopped(arg);
}

static void finish(struct otlp *o)
{
    if (uv_is_closing((uv_handle_t *)&o->timer))
        return;
    if (o->call)
        http_call_cancel(o->call);
    o->call = NULL;
    if (o->waiting_n + o->sending_n)
        LOG(WARN, "gateway", "did=drop-spans n=%u why=\"the collector did not take them in time\"", o->waiting_n + o->sending_n);
    o->origin = http_origin_free(o->origin);
    uv_close((uv_handle_t *)&o->timer, on_closed);
    uv_close((uv_handle_t *)&o->last, on_closed);
}

static void on_last(uv_timer_t *t)
{
    finish(t->data);
}

static void maybe_stopped(struct otlp *o)
{
    if (o->waiting.n && !o->failures)
        send_batch(o);
    if (!o->call)
        finish(o);
}

void otlp_stop(struct otlp *o, void (*stopped)(void *arg), void *arg)
{
    o->stopping = true;
    o->stopped = stopped;
    o->stopped_arg = arg;
    uv_timer_stop(&o->timer);
    uv_timer_start(&o->last, on_last, STOP_MS, 0);
    send_batch(o);
    if (!o->call)
        finish(o);
}
