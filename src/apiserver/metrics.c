/* apiserver/metrics.c - /metrics, under the names that dashboards and alerts for a stock server use.
 *
 * Requests are counted where they are answered (front.c): a counter by labels and status, and two
 * histograms. What can be asked at the moment of the scrape (objects, watches, queues, the process)
 * is not counted but looked at then. Labels come from what was asked, so their number has a limit:
 * from there on everything new is counted as "other". */
#include "apiserver/api_int.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SERIES_MAX = 8000 };

static const double SECONDS[] = {0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2,
                                 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60};
static const double BYTES[] = {1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};

struct series {
    double sum;
    uint64_t n;
    uint64_t seconds[ARRAY_LEN(SECONDS)], bytes[ARRAY_LEN(BYTES)]; /* not cumulated */
    double bytes_sum;
};

/* What is counted by name, where it happens. */
static const struct named {
    const char *name, *type, *help;
} NAMED[] = {
#define RELOADS(what)                                                                              \
    {"apiserver_" what "_config_controller_automatic_reloads_total", "counter",                    \
     "Total number of automatic reloads of " what " configuration split by status and apiserver identity."}, \
    {"apiserver_" what "_config_controller_automatic_reload_last_timestamp_seconds", "gauge",      \
     "Timestamp of the last automatic reload of " what " configuration split by status and apiserver identity."}
    RELOADS("authentication"),
    RELOADS("authorization"),
#undef RELOADS
    {"apiserver_authorization_webhook_evaluations_total", "counter", "Round-trips to authorization webhooks."},
    {"apiserver_authorization_webhook_evaluations_fail_open_total", "counter",
     "NoOpinion results due to webhook timeout or error."},
    {"apiserver_authorization_match_condition_exclusions_total", "counter",
     "Total number of exclusions when an authorization webhook is skipped because match conditions exclude it."},
    {"apiserver_authorization_match_condition_evaluation_errors_total", "counter",
     "Total number of errors when an authorization webhook encounters a match condition error."},
    {"tandem_controller_cycles_total", "counter", "Objects that a controller wrote again and again, and that were held back."},
};

struct metrics {
    struct map requests;  /* labels with the code -> uint64_t */
    struct map durations; /* labels -> struct series */
    struct map watched;   /* labels -> uint64_t */
    struct map named;     /* name{labels} -> double */
    int64_t inflight[2];  /* read only, mutating */
    uint64_t requests_all;
};

struct metrics *metrics_new(void)
{
    return xcalloc(1, sizeof(struct metrics));
}

static void map_free(struct map *m)
{
    const char *key;
    void *value;

    for (uint32_t i = 0; map_next(m, &i, &key, &value);)
        free(value);
    map_done(m);
}

void *metrics_free(struct metrics *m)
{
    if (!m)
        return NULL;
    map_free(&m->requests);
    map_free(&m->durations);
    map_free(&m->watched);
    map_free(&m->named);
    free(m);
    return NULL;
}

static void *need(struct map *m, const char *labels, size_t size)
{
    void *p = map_get(m, labels);

    if (p)
        return p;
    if (m->n >= SERIES_MAX && (p = map_get(m, "other=\"true\"")))
        return p;
    p = xcalloc(1, size);
    map_put(m, m->n >= SERIES_MAX ? "other=\"true\"" : labels, p);
    return p;
}

/* A label's value from outside: what would end it is replaced, what is long is cut. */
static void put_label(struct buf *b, const char *name, const char *value)
{
    buf_adds(b, b->n ? "," : "");
    buf_adds(b, name);
    buf_adds(b, "=\"");
    for (int n = 0; *value && n < 128; value++, n++)
        buf_addc(b, *value == '"' || *value == '\\' || (unsigned char)*value < 0x20 ? '?' : *value);
    buf_addc(b, '"');
}

static const char *verb_label(const struct about *a)
{
    static const char *const names[][2] = {
        {"get", "GET"}, {"list", "LIST"}, {"watch", "WATCH"}, {"create", "POST"}, {"update", "PUT"},
        {"patch", "PATCH"}, {"delete", "DELETE"}, {"deletecollection", "DELETECOLLECTION"},
        {"post", "POST"}, {"put", "PUT"}};

    if (a->apply)
        return "APPLY";
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i][0], a->verb))
            return names[i][1];
    return "other";
}

static const char *scope(const struct about *a)
{
    if (*a->name || streq(a->verb, "create"))
        return a->resource_request ? "resource" : "";
    return *a->ns ? "namespace" : a->resource_request ? "cluster" : "";
}

/* Paths that are no resources: only their first word, so that nobody can make up names. */
static const char *page(const struct about *a, char out[64])
{
    static const char *const known[] = {"api", "apis", "healthz", "livez", "readyz", "metrics", "openapi",
                                        "openid", "version", "flagz", "statusz", "debug", ".well-known"};
    size_t n = strcspn(a->path + (*a->path == '/'), "/");

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strlen(known[i]) == n && strncmp(a->path + 1, known[i], n) == 0) {
            snprintf(out, 64, "/%s", known[i]);
            return out;
        }
    return "";
}

static void put_labels(struct buf *b, const struct about *a)
{
    char path[64];

    put_label(b, "component", a->resource_request ? "apiserver" : "");
    put_label(b, "dry_run", a->dry_run ? "All" : "");
    put_label(b, "group", a->group);
    put_label(b, "resource", a->resource);
    put_label(b, "scope", scope(a));
    put_label(b, "subresource", a->resource_request ? a->sub : page(a, path));
    put_label(b, "verb", verb_label(a));
    put_label(b, "version", a->version);
}

void metrics_request(struct metrics *m, const struct about *a, int status, double seconds, size_t bytes)
{
    struct buf b = {0};
    struct series *s;
    char code[16];
    bool found = status != 404 || a->resource_request; /* what is not served has no series of its own */
    struct about none = {.verb = a->verb, .group = "", .version = "", .resource = "", .sub = "",
                         .ns = "", .name = "", .path = "/"};

    m->requests_all++;
    put_labels(&b, found ? a : &none);
    s = need(&m->durations, b.p, sizeof *s);
    for (size_t i = 0; i < ARRAY_LEN(SECONDS); i++)
        if (seconds <= SECONDS[i]) {
            s->seconds[i]++;
            break;
        }
    for (size_t i = 0; i < ARRAY_LEN(BYTES); i++)
        if ((double)bytes <= BYTES[i]) {
            s->bytes[i]++;
            break;
        }
    s->n++;
    s->sum += seconds;
    s->bytes_sum += (double)bytes;
    snprintf(code, sizeof code, "%d", status);
    put_label(&b, "code", code);
    ++*(uint64_t *)need(&m->requests, b.p, sizeof(uint64_t));
    buf_done(&b);
}

void metrics_inflight(struct metrics *m, bool mutating, int by)
{
    m->inflight[mutating] += by;
}

uint64_t *metrics_watch_events(struct metrics *m, const char *group, const char *version, const char *plural)
{
    struct buf b = {0};
    uint64_t *n;

    put_label(&b, "group", group);
    put_label(&b, "resource", plural);
    put_label(&b, "version", version);
    n = need(&m->watched, b.p, sizeof *n);
    buf_done(&b);
    return n;
}

static double *named(struct metrics *m, const char *name, const char *labels)
{
    char key[512];

    snprintf(key, sizeof key, "%s{%s}", name, labels);
    return need(&m->named, key, sizeof(double));
}

void metrics_add(struct metrics *m, const char *name, const char *labels, double by)
{
    *named(m, name, labels) += by;
}

void api_count(struct api *api, const char *name, const char *labels, double by)
{
    metrics_add(api->metrics, name, labels, by);
}

void metrics_set(struct metrics *m, const char *name, const char *labels, double to)
{
    *named(m, name, labels) = to;
}

void metrics_reload(struct metrics *m, const char *what, bool good, int64_t now_ms)
{
    const char *labels = good ? "apiserver_id_hash=\"\",status=\"success\"" : "apiserver_id_hash=\"\",status=\"failure\"";
    char name[128];

    snprintf(name, sizeof name, "apiserver_%s_config_controller_automatic_reloads_total", what);
    metrics_add(m, name, labels, 1);
    snprintf(name, sizeof name, "apiserver_%s_config_controller_automatic_reload_last_timestamp_seconds", what);
    metrics_set(m, name, labels, (double)now_ms / 1000);
}

/* ---------------------------------------------------------------- the page */

static void head(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s [STABLE] %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_counts(struct buf *b, const char *name, const struct map *m)
{
    const char *labels;
    void *n;

    for (uint32_t i = 0; map_next(m, &i, &labels, &n);)
        buf_printf(b, "%s{%s} %llu\n", name, labels, (unsigned long long)*(uint64_t *)n);
}

static void put_named(struct buf *b, const struct metrics *m)
{
    const char *key;
    void *value;

    for (size_t k = 0; k < ARRAY_LEN(NAMED); k++) {
        size_t n = strlen(NAMED[k].name);
        bool any = false;

        for (uint32_t i = 0; map_next(&m->named, &i, &key, &value);) {
            if (strncmp(key, NAMED[k].name, n) != 0 || key[n] != '{')
                continue;
            if (!any)
                buf_printf(b, "# HELP %s [ALPHA] %s\n# TYPE %s %s\n", NAMED[k].name, NAMED[k].help, NAMED[k].name, NAMED[k].type);
            any = true;
            buf_printf(b, "%s %.15g\n", key, *(double *)value);
        }
    }
}

static void put_histogram(struct buf *b, const char *name, const char *labels, const double *le, size_t le_n,
                          const uint64_t *counts, uint64_t n, double sum)
{
    uint64_t up_to = 0;

    for (size_t i = 0; i < le_n; i++) {
        up_to += counts[i];
        buf_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels, le[i], (unsigned long long)up_to);
    }
    buf_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.9g\n%s_count{%s} %llu\n", name, labels,
               (unsigned long long)n, name, labels, sum, name, labels, (unsigned long long)n);
}

static void put_requests(struct buf *b, const struct metrics *m)
{
    const char *labels;
    void *p;

    head(b, "apiserver_request_total", "counter", "Requests that were answered, by verb, resource and code.");
    put_counts(b, "apiserver_request_total", &m->requests);
    head(b, "apiserver_request_duration_seconds", "histogram", "From the head of a request to its answer.");
    for (uint32_t i = 0; map_next(&m->durations, &i, &labels, &p);) {
        const struct series *s = p;

        put_histogram(b, "apiserver_request_duration_seconds", labels, SECONDS, ARRAY_LEN(SECONDS), s->seconds, s->n, s->sum);
    }
    head(b, "apiserver_response_sizes", "histogram", "Bytes of answers.");
    for (uint32_t i = 0; map_next(&m->durations, &i, &labels, &p);) {
        const struct series *s = p;

        put_histogram(b, "apiserver_response_sizes", labels, BYTES, ARRAY_LEN(BYTES), s->bytes, s->n, s->bytes_sum);
    }
    head(b, "apiserver_current_inflight_requests", "gauge", "Requests that are being answered, long-running ones left out.");
    buf_printf(b, "apiserver_current_inflight_requests{request_kind=\"mutating\"} %lld\n"
               "apiserver_current_inflight_requests{request_kind=\"readOnly\"} %lld\n",
               (long long)m->inflight[1], (long long)m->inflight[0]);
}

static void count_watch(void *arg, const struct resource *r, bool ns)
{
    struct buf b = {0};
    uint64_t *n;

    put_label(&b, "component", "apiserver");
    put_label(&b, "group", r->group);
    put_label(&b, "resource", r->plural);
    put_label(&b, "scope", ns ? "namespace" : "cluster");
    put_label(&b, "subresource", "");
    put_label(&b, "verb", "WATCH");
    put_label(&b, "version", r->version);
    n = need(arg, b.p, sizeof *n);
    ++*n;
    buf_done(&b);
}

static void put_watches(struct buf *b, struct api *api)
{
    struct map now = {0};

    watch_each(api, count_watch, &now);
    head(b, "apiserver_longrunning_requests", "gauge", "Watches that are open.");
    put_counts(b, "apiserver_longrunning_requests", &now);
    map_free(&now);
    head(b, "apiserver_watch_events_total", "counter", "Events that watches were told.");
    put_counts(b, "apiserver_watch_events_total", &api->metrics->watched);
}

static void put_objects(struct buf *b, struct api *api)
{
    struct store_stats st = store_stats(api->store);
    const struct resource *r;

    head(b, "apiserver_resource_objects", "gauge", "Objects of each kind.");
    for (uint32_t i = 0; (r = schema_next(api->schema, &i));)
        if (r == schema_stored(r) && !r->virtual_)
            buf_printf(b, "apiserver_resource_objects{group=\"%s\",resource=\"%s\"} %u\n", r->group, r->plural,
                       store_count(api->store, api_table(api, r), NULL));
    head(b, "apiserver_storage_objects", "gauge", "The same, as it was called before.");
    for (uint32_t i = 0; (r = schema_next(api->schema, &i));)
        if (r == schema_stored(r) && !r->virtual_)
            buf_printf(b, "apiserver_storage_objects{resource=\"%s%s%s\"} %u\n", r->plural, *r->group ? "." : "",
                       r->group, store_count(api->store, api_table(api, r), NULL));
    buf_printf(b,
               "# TYPE tandem_store_writes_total counter\ntandem_store_writes_total %llu\n"
               "# TYPE tandem_store_batches_total counter\ntandem_store_batches_total %llu\n"
               "# TYPE tandem_store_commit_seconds_total counter\ntandem_store_commit_seconds_total %.6f\n"
               "# TYPE tandem_store_rollbacks_total counter\ntandem_store_rollbacks_total %llu\n"
               "# TYPE tandem_store_objects gauge\ntandem_store_objects %u\n"
               "# TYPE tandem_store_history_events gauge\ntandem_store_history_events %u\n"
               "# TYPE tandem_store_history_bytes gauge\ntandem_store_history_bytes %zu\n"
               "# TYPE tandem_store_cache_bytes gauge\ntandem_store_cache_bytes %zu\n"
               "# TYPE tandem_store_revision gauge\ntandem_store_revision %lld\n",
               (unsigned long long)st.writes, (unsigned long long)st.batches, (double)st.commit_us / 1e6,
               (unsigned long long)st.rollbacks, st.objects, st.history, st.history_bytes, obj_cache_bytes(),
               (long long)store_head(api->store));
}

static uint64_t open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n > 3 ? n - 3 : 0; /* . and .. and the folder itself */
}

static void put_audit(struct buf *b, const struct api *api)
{
    struct audit_counts n = audit_counts(api->audit);

    head(b, "apiserver_audit_event_total", "counter", "Counter of audit events generated and sent to the audit backend.");
    buf_printf(b, "apiserver_audit_event_total %llu\n", (unsigned long long)n.events);
    head(b, "apiserver_audit_error_total", "counter", "Counter of audit events that failed to be audited properly.");
    buf_printf(b, "apiserver_audit_error_total{plugin=\"buffered\"} %llu\n", (unsigned long long)(n.dropped + n.failed));
}

static void put_process(struct buf *b, const struct api *api)
{
    struct rusage use;
    struct rlimit files = {0};
    long long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f) {
        if (fscanf(f, "%lld %lld", &pages, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &files);
    buf_printf(b,
               "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.2f\n"
               "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %lld\n"
               "# TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes %lld\n"
               "# TYPE process_open_fds gauge\nprocess_open_fds %llu\n"
               "# TYPE process_max_fds gauge\nprocess_max_fds %llu\n"
               "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %lld\n",
               (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                   (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6,
               resident * sysconf(_SC_PAGESIZE), pages * sysconf(_SC_PAGESIZE), (unsigned long long)open_fds(),
               (unsigned long long)files.rlim_cur, (long long)api->start_ms / 1000);
}

int metrics_serve(struct call *c)
{
    struct api *api = c->api;
    struct buf b = {.max = 64 << 20};
    struct err why;

    put_requests(&b, api->metrics);
    put_watches(&b, api);
    put_objects(&b, api);
    if (api->flow)
        flow_metrics(api->flow, &b);
    head(&b, "kubernetes_healthcheck", "gauge", "1: the check passes.");
    buf_printf(&b, "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} %d\n", !store_failing(api->store, &why));
    head(&b, "kubernetes_build_info", "gauge", "What this is.");
    buf_printf(&b, "kubernetes_build_info{git_version=\"%s\",major=\"1\",minor=\"36\",platform=\"linux/amd64\"} 1\n",
               KUBERNETES_VERSION);
    put_named(&b, api->metrics);
    put_audit(&b, api);
    put_process(&b, api);
    answer_text(c, 200, "text/plain; version=0.0.4; charset=utf-8", arena_memdup(c->a, b.p, b.n), b.n);
    buf_done(&b);
    return 0;
}
