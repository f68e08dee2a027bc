/* What every function used: counted at the end of each call, kept in STATE/meter/functions.json.
 *
 * Written every few seconds when something changed (a crash forgets at most those) and when the
 * gateway stops. Counters only grow; a function that is removed keeps its row. */
#include "function/function_int.h"

#include "base/log.h"
#include "codec/json.h"
#include "series/series.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Counters that are written and read back under their own names. */
#define COUNTERS(X)                                                                                \
    X(requests) X(errors) X(throttles) X(cold_starts) X(busy_us) X(billed_ms) X(gb_us) X(cpu_us)   \
        X(init_us) X(queue_us) X(memory_peak_kb) X(concurrency_peak) X(async_events)               \
            X(async_retries) X(async_dropped) X(answered_warm) X(answered_stem) X(answered_zygote)     \
                X(answered_runtime) X(answered_fresh) X(evicted)

struct meter *meter_of(struct functions *fs, const char *key)
{
    struct meter *m = map_get(&fs->meters, key);

    if (!m) {
        m = xcalloc(1, sizeof *m);
        m->key = xstrdup(key);
        map_put(&fs->meters, key, m);
    }
    return m;
}

/* Two bins a doubling: 0: below 1 ms, 1: below 1.41, 2: below 2, ... the last one all above. */
int gap_bin(uint64_t ms)
{
    int bit;

    if (!ms)
        return 0;
    bit = 63 - __builtin_clzll(ms);
    /* the upper half of [2^bit, 2^(bit+1)) begins at 2^bit * sqrt(2) */
    return MIN(1 + 2 * bit + ((ms * ms) >> (2 * MIN(bit, 31) + 1) ? 1 : 0), GAP_BINS - 1);
}

/* "fn US NAMESPACE US NAME US VERSION" (series/README.md). */
static const char *series_of(struct function *f)
{
    if (!f->series)
        f->series = xasprintf("fn" METRIC_SEP "%s" METRIC_SEP "%s" METRIC_SEP "%s", f->namespace_, function_own_name(f), f->shown);
    return f->series;
}

char *meter_alias(struct function *f, const char *qualifier)
{
    if (!f->fs->metrics || str_empty(qualifier) || *qualifier == '$' || !qualifier[strspn(qualifier, "0123456789")])
        return NULL;
    return xasprintf("as" METRIC_SEP "%s" METRIC_SEP "%s" METRIC_SEP "%s", f->namespace_, function_own_name(f), qualifier);
}

void meter_throttle(struct function *f, const char *qualifier)
{
    struct metric_call c = {.throttled = true, .concurrency = f->busy};
    _auto_(freep) char *alias = meter_alias(f, qualifier);

    f->m->throttles++;
    f->fs->meters_dirty = true;
    pool_wake(f->fs);
    if (f->fs->metrics)
        series_call(f->fs->metrics, series_of(f), &c);
    if (alias)
        series_call(f->fs->metrics, alias, &c);
}

void meter_call(struct function *f, const struct function_result *r, int64_t handler_us, uint64_t billed_ms,
                uint64_t memory_kb, const char *alias_series)
{
    struct meter *m = f->m;

    m->requests++;
    m->errors += r->function_error != NULL;
    m->cold_starts += r->cold;
    (*(uint64_t *const[]){&m->answered_warm, &m->answered_stem, &m->answered_zygote, &m->answered_runtime,
                          &m->answered_fresh}[r->rung])++;
    m->busy_us += (uint64_t)r->duration_us;
    m->billed_ms += billed_ms;
    m->gb_us += billed_ms * 1000 * m->memory_mb / 1024;
    spending_count(f, billed_ms * 1000 * m->memory_mb / 1024);
    m->init_us += (uint64_t)r->init_us;
    m->queue_us += (uint64_t)r->queue_us;
    m->memory_peak_kb = MAX(m->memory_peak_kb, memory_kb);
    m->duration_bins[gap_bin((uint64_t)handler_us / 1000)]++;
    m->last_ms = wall_ms();
    if (!m->first_ms)
        m->first_ms = m->last_ms;
    f->fs->meters_dirty = true;
    if (f->fs->metrics) {
        struct metric_call c = {.error = r->function_error, .duration_ms = (double)handler_us / 1000, .concurrency = f->busy};

        series_call(f->fs->metrics, series_of(f), &c);
        if (alias_series)
            series_call(f->fs->metrics, alias_series, &c);
    }
}

void meter_active(struct function *f, int64_t us, uint64_t billed_ms)
{
    f->m->billed_ms += billed_ms;
    f->m->gb_us += billed_ms * 1000 * f->m->memory_mb / 1024;
    spending_use(f, billed_ms * 1000 * f->m->memory_mb / 1024);
    f->fs->meters_dirty = true;
}

static void put_bins(struct arena *a, struct val *o, const char *name, const uint64_t *bins)
{
    struct val *list = val_list(a);
    int n = GAP_BINS;

    while (n && !bins[n - 1])
        n--;
    for (int i = 0; i < n; i++)
        val_push(a, list, val_int(a, (int64_t)bins[i]));
    val_put(a, o, name, list);
}

static void get_bins(const struct val *o, const char *name, uint64_t *bins)
{
    int i = 0;

    VAL_EACH(val_get(o, name), it)
    if (i < GAP_BINS && it->type == VAL_INT)
        bins[i++] = (uint64_t)it->i;
}

static void live_processes(struct functions *fs, struct arena *a, struct val *o, const char *key)
{
    struct function *f = map_get(&fs->by_key, key);
    int64_t instances = 0, idle = 0, zygotes = 0, stems = 0;

    if (!f) {
        val_put_bool(a, o, "removed", true);
        return;
    }
    LIST_EACH(&f->versions, k)
    {
        struct version *v = list_entry(k, struct version, link);

        zygotes += v->zygote == ZYGOTE_STARTING || v->zygote == ZYGOTE_READY;
        LIST_EACH(&v->instances, l)
        {
            struct instance *i = list_entry(l, struct instance, link);

            stems += i->state == INSTANCE_STEM;
            instances += i->state == INSTANCE_IDLE || i->state == INSTANCE_BUSY;
            idle += i->state == INSTANCE_IDLE;
        }
    }
    val_put_int(a, o, "instances", instances);
    val_put_int(a, o, "instancesIdle", idle);
    val_put_int(a, o, "forkedAhead", stems);
    val_put_int(a, o, "zygotes", zygotes);
    val_put_int(a, o, "processes", instances + stems + zygotes);
    val_put_int(a, o, "concurrency", f->busy);
    val_put_int(a, o, "waiting", f->waiting_n);
    scale_tell(f, a, o);
}

static struct val *meter_val(struct functions *fs, struct arena *a, const struct meter *m, bool live)
{
    struct val *o = val_map(a);
    const char *slash = strchr(m->key, '/');

    val_put(a, o, "namespace", val_strn(a, m->key, slash ? (size_t)(slash - m->key) : 0));
    val_put_str(a, o, "name", slash ? slash + 1 : m->key);
    val_put_int(a, o, "memory_mb", m->memory_mb);
#define X(c) val_put_int(a, o, #c, (int64_t)m->c);
    COUNTERS(X)
#undef X
    val_put_int(a, o, "first_ms", m->first_ms);
    val_put_int(a, o, "last_ms", m->last_ms);
    put_bins(a, o, "gaps", m->gaps);
    put_bins(a, o, "durations", m->duration_bins);
    if (live)
        live_processes(fs, a, o, m->key);
    return o;
}

static void all_json(struct functions *fs, struct buf *out, bool live)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *top = val_map(a), *list = val_list(a);
    const char *key;
    void *m;

    val_put_int(a, top, "version", 1);
    val_put_int(a, top, "now_ms", wall_ms());
    for (uint32_t i = 0; map_next(&fs->meters, &i, &key, &m);)
        val_push(a, list, meter_val(fs, a, m, live));
    val_put(a, top, "functions", list);
    val_put(a, top, "spending", spendings_val(fs, a));
    if (live)
        capacity_tell(fs, a, top);
    json_write(out, top);
}

void functions_meter_json(struct functions *fs, struct buf *out)
{
    all_json(fs, out, true);
}

void functions_meter_prometheus(struct functions *fs, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t at;
        double unit;
    } rows[] = {
        {"requests_total", "Calls that ran.", offsetof(struct meter, requests), 1},
        {"errors_total", "Calls that failed.", offsetof(struct meter, errors), 1},
        {"throttles_total", "Calls that were refused.", offsetof(struct meter, throttles), 1},
        {"cold_starts_total", "Calls that a new instance answered.", offsetof(struct meter, cold_starts), 1},
        {"busy_seconds_total", "Wall time of calls.", offsetof(struct meter, busy_us), 1e-6},
        {"billed_seconds_total", "Billed time.", offsetof(struct meter, billed_ms), 1e-3},
        {"billed_gb_seconds_total", "Billed time by memory.", offsetof(struct meter, gb_us), 1e-6},
        {"cpu_seconds_total", "CPU time of instances.", offsetof(struct meter, cpu_us), 1e-6},
        {"init_seconds_total", "Time that initialization took.", offsetof(struct meter, init_us), 1e-6},
        {"async_events_total", "Events accepted.", offsetof(struct meter, async_events), 1},
        {"evicted_total", "Idle processes that went because memory was short.", offsetof(struct meter, evicted), 1},
        {"async_dropped_total", "Events given up.", offsetof(struct meter, async_dropped), 1},
    };
    const char *key;
    void *it;

    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        buf_printf(out, "# HELP tandem_function_%s %s\n# TYPE tandem_function_%s counter\n", rows[k].name, rows[k].help, rows[k].name);
        for (uint32_t i = 0; map_next(&fs->meters, &i, &key, &it);) {
            const char *slash = strchr(key, '/'), *colon = slash ? strchr(slash, ':') : NULL;

            if (slash) /* names are those of objects: nothing in them has to be escaped */
                buf_printf(out, "tandem_function_%s{namespace=\"%.*s\",function=\"%.*s\",version=\"%s\"} %.9g\n", rows[k].name,
                           (int)(slash - key), key, (int)(colon ? colon - slash - 1 : (long)strlen(slash + 1)), slash + 1,
                           colon ? colon + 1 : "$LATEST", (double)*(const uint64_t *)(const void *)((const char *)it + rows[k].at) * rows[k].unit);
        }
    }
    if (fs->budget_kb)
        buf_printf(out, "# HELP tandem_functions_memory_bytes Memory that functions hold (at the last look), and that pods leave to them.\n"
                        "# TYPE tandem_functions_memory_bytes gauge\ntandem_functions_memory_bytes{of=\"held\"} %lld\n"
                        "tandem_functions_memory_bytes{of=\"budget\"} %lld\n", (long long)fs->held_kb * 1024, (long long)fs->budget_kb * 1024);
    buf_printf(out, "# HELP tandem_functions_busy Calls at work or waiting.\n# TYPE tandem_functions_busy gauge\ntandem_functions_busy %u\n", fs->busy);
}

void functions_instances_json(struct functions *fs, struct buf *out)
{
    static const char *const states[] = {"ahead", "busy", "idle", "dying"};
    static const char *const zygotes[] = {"none", "starting", "ready", "gone"};
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *top = val_map(a), *list = val_list(a);

    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        LIST_EACH(&f->versions, k)
        {
            struct version *v = list_entry(k, struct version, link);
            struct val *o = val_map(a), *il = val_list(a);

            val_put_str(a, o, "namespace", f->namespace_);
            val_put_str(a, o, "name", f->name);
            val_put_int(a, o, "version", (int64_t)v->number);
            val_put_bool(a, o, "retired", v->removed);
            val_put_str(a, o, "zygote", zygotes[v->zygote]);
            if (v->zygote == ZYGOTE_STARTING || v->zygote == ZYGOTE_READY)
                val_put_int(a, o, "zygotePid", v->zygote_pid);
            LIST_EACH(&v->instances, j)
            {
                struct instance *i = list_entry(j, struct instance, link);
                struct val *io = val_map(a);

                val_put_int(a, io, "pid", i->pid);
                val_put_str(a, io, "state", states[i->state]);
                val_put_str(a, io, "stream", i->stream);
                val_put_bool(a, io, "warm", i->warm);
                val_push(a, il, io);
            }
            val_put(a, o, "instances", il);
            val_push(a, list, o);
        }
    }
    val_put(a, top, "functions", list);
    json_write(out, top);
}

/* ---- on disk ---- */

void meters_write(struct functions *fs, bool durable)
{
    _auto_(freep) char *path = xasprintf("%s/meter/functions.json", fs->state);
    _auto_(freep) char *part = xasprintf("%s.new", path);
    struct buf text = {0};
    int fd;

    fs->meter_written_us = now_us();
    fs->meters_dirty = false;
    all_json(fs, &text, false);
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    /* without the fsync a power loss may forget it, a crash of ours never */
    if (fd < 0 || write(fd, text.p, text.n) != (ssize_t)text.n || (durable && fdatasync(fd) < 0) ||
        rename(part, path) < 0)
        LOG(WARN, "function", "did=write-meter error=\"%s\"", strerror(errno));
    if (fd >= 0)
        close(fd);
    buf_done(&text);
}

void meters_read(struct functions *fs)
{
    _auto_(freep) char *path = xasprintf("%s/meter/functions.json", fs->state);
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    struct val *top;
    struct err err;
    char *text;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > 256 << 20)
        return;
    text = arena_raw(a, (size_t)st.st_size + 1);
    if (pread(fd, text, (size_t)st.st_size, 0) != st.st_size ||
        !(top = json_parse(a, text, (size_t)st.st_size, &err))) {
        LOG(WARN, "function", "did=read-meter path=%s error=\"not what we wrote; starting at zero\"", path);
        return;
    }
    spendings_read(fs, val_get(top, "spending"));
    VAL_EACH(val_get(top, "functions"), o)
    {
        const char *name = val_str_at(o, "name", NULL);
        char key[512];
        struct meter *m;

        if (!name)
            continue;
        snprintf(key, sizeof key, "%s/%s", val_str_at(o, "namespace", "default"), name);
        m = meter_of(fs, key);
#define X(c) m->c = (uint64_t)val_int_at(o, #c, 0);
        COUNTERS(X)
#undef X
        m->memory_mb = (uint32_t)val_int_at(o, "memory_mb", 0);
        m->first_ms = val_int_at(o, "first_ms", 0);
        m->last_ms = val_int_at(o, "last_ms", 0);
        get_bins(o, "gaps", m->gaps);
        get_bins(o, "durations", m->duration_bins);
    }
}

void meters_free(struct functions *fs)
{
    const char *key;
    void *m;

    for (uint32_t i = 0; map_next(&fs->meters, &i, &key, &m);) {
        free(((struct meter *)m)->key);
        free(m);
    }
    map_done(&fs->meters);
}
