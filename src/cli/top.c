/* tandem top: functions and workloads of pods at work. Rates and times are of the seconds between two looks at the gateway's
 * meter and the node's (meter/pods.json, ten seconds old at most); costs are the advisor's, of both models. */
#include "advisor/gather.h"
#include "cli/cli.h"
#include "codec/json.h"
#include "env/fs.h"

#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { ONCE_MS = 1000, EVERY_MS = 2000, BINS = 128, METER_MAX = 64 << 20 };

struct look { /* one reading */
    struct arena *a;
    const struct val *meter, *pods;
    struct prices prices;
    struct advices advice;
    double ms;
};
struct row {
    const char *ns, *name; /* "function/hello" */
    double calls_s, errors_s, p50_ms, p99_ms, cpu, memory_mb, limit_mb, cost_function, cost_pods; /* < 0: not known */
    int64_t total, instances, busy;
};
struct rows {
    struct row *v;
    uint32_t n, cap;
};

/* ---- looking ---- */

static int look(const struct cli_opts *o, struct look *ret, struct err *err)
{
    struct arena *a = arena_new();
    char *text;
    struct err ignored;
    size_t n;

    *ret = (struct look){.a = a};
    if (socket_request(o, a, "gateway", "GET", "/meter", NULL, 0, &text, &n, err) < 0 || !(ret->meter = json_parse(a, text, n, err))) {
        arena_free(a);
        ret->a = NULL;
        return -1;
    }
    ret->ms = val_num_at(ret->meter, "now_ms", 0);
    text = fs_read(arena_printf(a, "%s/meter/pods.json", o->state), METER_MAX, &n, &ignored);
    if (text)
        ret->pods = json_parse(a, text, n, &ignored);
    free(text);
    if (gather_advice(a, o->state, (int64_t)ret->ms, NULL, NULL, &ret->prices, &ret->advice, &ignored) < 0)
        ret->advice.n = 0; /* then nobody knows what it costs */
    return 0;
}

static const struct val *find(const struct val *list, const char *a_key, const char *a, const char *b_key, const char *b)
{
    VAL_EACH(list, it)
    if (streq(val_str_at(it, a_key, ""), a) && streq(val_str_at(it, b_key, ""), b))
        return it;
    return NULL;
}

/* ---- functions ---- */

/* The q-th of the durations in these bins (function/README.md: two a doubling), at its place within its bin. < 0: none. */
static double quantile(const double *bins, double q)
{
    double all = 0, want, seen = 0;

    for (int i = 0; i < BINS; i++)
        all += bins[i];
    if (all <= 0)
        return -1;
    want = q * all;
    for (int i = 0; i < BINS; i++) {
        double from = i ? pow(2, (i - 1) / 2.0) : 0, to = pow(2, i / 2.0);

        if (seen + bins[i] >= want && bins[i] > 0)
            return from + (to - from) * (want - seen) / bins[i];
        seen += bins[i];
    }
    return -1;
}

static void get_bins(const struct val *v, double sign, double *bins)
{
    int i = 0;

    VAL_EACH(val_get(v, "durations"), it)
    if (i < BINS && it->type == VAL_INT)
        bins[i++] += sign * (double)it->i;
}

static void price(struct row *r, const struct look *l, const char *kind, const char *ns, const char *name)
{
    r->cost_function = r->cost_pods = -1;
    for (uint32_t i = 0; i < l->advice.n; i++) {
        const struct advice *v = &l->advice.v[i];

        if (streq(v->use->kind, kind) && streq(v->use->ns, ns) && streq(v->use->name, name)) {
            r->cost_function = v->as_function / l->prices.hours;
            r->cost_pods = v->as_pods / l->prices.hours;
        }
    }
}

static struct row *row_new(struct arena *a, struct rows *all)
{
    if (all->n == all->cap) {
        struct row *v = arena_array(a, struct row, all->cap ? 2 * all->cap : 16);

        if (all->n)
            memcpy(v, all->v, all->n * sizeof *v);
        all->v = v;
        all->cap = all->cap ? 2 * all->cap : 16;
    }
    all->v[all->n] = (struct row){.calls_s = -1, .errors_s = -1, .p50_ms = -1, .p99_ms = -1, .cpu = -1, .memory_mb = -1, .limit_mb = -1};
    return &all->v[all->n++];
}

static void add_function(struct arena *a, struct rows *all, const struct val *f, const struct look *was, const struct look *now)
{
    const char *ns = val_str_at(f, "namespace", ""), *name = val_str_at(f, "name", "");
    const struct val *before = find(val_get(was->meter, "functions"), "namespace", ns, "name", name);
    double seconds = MAX((now->ms - was->ms) / 1000, 0.001), bins[BINS] = {0};
    struct row *r = row_new(a, all);

    r->ns = ns;
    r->name = arena_printf(a, "function/%s", name);
    r->total = val_int_at(f, "requests", 0);
    r->calls_s = MAX((double)(r->total - val_int_at(before, "requests", 0)), 0.0) / seconds;
    r->errors_s = MAX((double)(val_int_at(f, "errors", 0) - val_int_at(before, "errors", 0)), 0.0) / seconds;
    get_bins(f, 1, bins);
    if (r->calls_s > 0)
        get_bins(before, -1, bins); /* of these seconds; of a function that is quiet: of all its calls */
    r->p50_ms = quantile(bins, 0.5);
    r->p99_ms = quantile(bins, 0.99);
    r->cpu = MAX(val_num_at(f, "cpu_us", 0) - val_num_at(before, "cpu_us", 0), 0.0) / 1e6 / seconds;
    r->instances = val_int_at(f, "instances", 0);
    r->busy = val_int_at(f, "concurrency", 0);
    r->memory_mb = val_num_at(f, "memory_peak_kb", 0) / 1024;
    r->limit_mb = val_num_at(f, "memory_mb", 0);
    price(r, now, "Function", ns, name);
}

/* ---- pods ---- */

static void add_pod(struct arena *a, struct rows *all, const struct val *pod, const struct look *was, const struct look *now)
{
    const char *kind, *name, *full, *ns = val_str_at(pod, "namespace", "");
    const struct val *before = find(val_get(was->pods, "pods"), "uid", val_str_at(pod, "uid", ""), "namespace", ns);
    double seconds = val_num_at(pod, "seconds", 0) - val_num_at(before, "seconds", 0);
    double cpu_us = val_num_at(pod, "cpu_us", 0) - val_num_at(before, "cpu_us", 0);
    struct row *r = NULL;

    workload_of(a, pod, &kind, &name);
    full = arena_printf(a, "%s/%s", kind, name);
    for (char *c = (char *)(uintptr_t)full; *c && *c != '/'; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    for (uint32_t i = 0; i < all->n && !r; i++)
        if (streq(all->v[i].ns, ns) && streq(all->v[i].name, full))
            r = &all->v[i];
    if (!r) {
        r = row_new(a, all);
        r->ns = ns;
        r->name = full;
        r->cpu = r->memory_mb = 0;
        price(r, now, kind, ns, name);
    }
    if (seconds <= 0 || cpu_us < 0) { /* the node has not looked again: its mean until now */
        seconds = val_num_at(pod, "seconds", 0);
        cpu_us = val_num_at(pod, "cpu_us", 0);
    }
    r->instances++;
    r->cpu += seconds > 0 ? cpu_us / 1e6 / seconds : 0;
    r->memory_mb += val_num_at(pod, "memory_bytes", 0) / (1 << 20);
}

static int busiest(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int by_ns;

    if (a->calls_s != b->calls_s)
        return a->calls_s < b->calls_s ? 1 : -1;
    by_ns = strcmp(a->ns, b->ns);
    return by_ns ? by_ns : strcmp(a->name, b->name);
}

static void rows_of(struct arena *a, const struct look *was, const struct look *now, struct rows *ret)
{
    *ret = (struct rows){0};
    VAL_EACH(val_get(now->meter, "functions"), f)
    if (!val_bool_at(f, "removed", false))
        add_function(a, ret, f, was, now);
    VAL_EACH(val_get(now->pods, "pods"), pod)
    add_pod(a, ret, pod, was, now);
    if (ret->n)
        qsort(ret->v, ret->n, sizeof *ret->v, busiest);
}

/* ---- showing ---- */

static const char *number(char out[24], double d, int decimals)
{
    if (d < 0)
        return "-";
    snprintf(out, 24, "%.*f", decimals, d);
    return out;
}

static const char *times(char out[24], double ms)
{
    if (ms >= 0 && ms < 1)
        return "<1";
    return number(out, ms, ms < 10 ? 1 : 0);
}

static void row_print(const struct row *r, const char *end)
{
    char b[9][24], memory[64];

    if (r->limit_mb > 0)
        snprintf(memory, sizeof memory, "%.0f/%.0f", r->memory_mb, r->limit_mb);
    else
        snprintf(memory, sizeof memory, "%.0f", r->memory_mb);
    printf("%-12.12s %-32.32s %9s %8s %7s %7s %6s %6lld %10s %10s %10s%s", r->ns, r->name, number(b[0], r->calls_s, 1),
           number(b[1], r->errors_s, 1), times(b[2], r->p50_ms), times(b[3], r->p99_ms), number(b[4], r->cpu < 0 ? -1 : r->cpu * 100, 1),
           (long long)r->instances, memory, number(b[5], r->cost_function, 6), number(b[6], r->cost_pods, 6), end);
}

static void print_table(const struct rows *all, bool in_place)
{
    const char *end = in_place ? "\033[K\n" : "\n";
    struct winsize w = {0};
    uint32_t n = all->n;

    if (in_place && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 3)
        n = MIN(n, (uint32_t)w.ws_row - 2u);
    printf("%s%-12s %-32s %9s %8s %7s %7s %6s %6s %10s %10s %10s%s", in_place ? "\033[H" : "", "NAMESPACE", "WORKLOAD", "CALLS/S", "ERRORS/S",
           "P50 ms", "P99 ms", "CPU %", "INST", "MEMORY MB", "$/H FUNC", "$/H PODS", end);
    for (uint32_t i = 0; i < n; i++)
        row_print(&all->v[i], end);
    if (in_place)
        printf("\033[J");
    fflush(stdout);
}

static void put_known(struct arena *a, struct val *v, const char *key, double d)
{
    if (d >= 0)
        val_put(a, v, key, val_double(a, d));
}

static void print_json(struct arena *a, const struct rows *all)
{
    struct val *list = val_list(a);

    for (uint32_t i = 0; i < all->n; i++) {
        const struct row *r = &all->v[i];
        struct val *v = val_map(a);

        val_put_str(a, v, "namespace", r->ns);
        val_put_str(a, v, "workload", r->name);
        put_known(a, v, "callsPerSecond", r->calls_s);
        put_known(a, v, "errorsPerSecond", r->errors_s);
        put_known(a, v, "p50Ms", r->p50_ms);
        put_known(a, v, "p99Ms", r->p99_ms);
        put_known(a, v, "cpuCores", r->cpu);
        val_put_int(a, v, "instances", r->instances);
        put_known(a, v, "memoryMB", r->memory_mb);
        put_known(a, v, "memoryLimitMB", r->limit_mb);
        put_known(a, v, "costPerHourAsFunction", r->cost_function);
        put_known(a, v, "costPerHourAsPods", r->cost_pods);
        val_put_int(a, v, "calls", r->total);
        val_push(a, list, v);
    }
    printf("%s\n", json_text(a, list, NULL));
}

int cmd_top(struct cli_opts *o, int argc, char **argv)
{
    bool in_place = isatty(STDOUT_FILENO) && !o->once && !o->json;
    struct look was, now;
    struct err err;

    (void)argc, (void)argv;
    if (o->args_n)
        return complain(EXIT_USAGE, "usage: tandem top [--once] [--json]");
    if (look(o, &was, &err) < 0)
        return complain_err(&err);
    if (in_place)
        printf("\033[2J");
    for (int wait_ms = ONCE_MS;; wait_ms = EVERY_MS) {
        struct rows all;

        nanosleep(&(struct timespec){wait_ms / 1000, wait_ms % 1000 * 1000000L}, NULL);
        if (look(o, &now, &err) < 0) {
            arena_free(was.a);
            return complain_err(&err);
        }
        rows_of(now.a, &was, &now, &all);
        if (o->json)
            print_json(now.a, &all);
        else
            print_table(&all, in_place);
        arena_free(was.a);
        was = now;
        if (!in_place)
            break;
    }
    arena_free(was.a);
    return EXIT_SUCCESS;
}
