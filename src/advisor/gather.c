#include "advisor/gather.h"

#include <ctype.h>
#include <stdio.h>

#include "codec/json.h"
#include "env/fs.h"

enum { FILE_MAX = 64 << 20 };
static const double GONE_MS = 3600e3; /* a workload without pods for so long is no row any more */
static const double FORGET_MS = 14 * 86400e3;

extern const char advisor_prices[];
extern const uint32_t advisor_prices_n;

/* *ret NULL: there is no such file. */
static int read_json(struct arena *a, const char *path, struct val **ret, struct err *err)
{
    size_t n;
    char *text;

    *ret = NULL;
    if (!fs_exists(path))
        return 0;
    text = fs_read(path, FILE_MAX, &n, err);
    if (!text)
        return -1;
    *ret = json_parse(a, text, n, err);
    free(text);
    return *ret ? 0 : err_wrap(err, "%s", path);
}

int gather_prices(struct arena *a, const char *state, struct prices *ret, struct err *err)
{
    const char *path = arena_printf(a, "%s/prices.json", state);
    struct val *v;

    if (read_json(a, path, &v, err) < 0)
        return -1;
    if (v)
        return prices_from(v, ret, err) < 0 ? err_wrap(err, "%s", path) : 0;
    v = json_parse(a, advisor_prices, advisor_prices_n, err);
    return v ? prices_from(v, ret, err) : -1;
}

/* ---- pods to workloads ---- */

void workload_of(struct arena *a, const struct val *pod, const char **ret_kind, const char **ret_name)
{
    const char *kind = val_str_at(pod, "owner.kind", ""), *name = val_str_at(pod, "owner.name", "");
    const char *hash = val_text(val_get(val_get(pod, "labels"), "pod-template-hash"), NULL);
    size_t n = strlen(name);

    if (streq(kind, "ReplicaSet") && hash && str_ends(name, hash) && n > strlen(hash) + 1) {
        *ret_kind = "Deployment";
        *ret_name = arena_strndup(a, name, n - strlen(hash) - 1);
        return;
    }
    if (streq(kind, "Job")) { /* those of a CronJob end in the minute they were made for */
        size_t digits = 0;

        while (digits < n && isdigit((unsigned char)name[n - 1 - digits]))
            digits++;
        if (digits >= 8 && n > digits + 1 && name[n - 1 - digits] == '-') {
            *ret_kind = "CronJob";
            *ret_name = arena_strndup(a, name, n - digits - 1);
            return;
        }
    }
    *ret_kind = *kind ? kind : "Pod";
    *ret_name = *kind ? name : val_str_at(pod, "name", "");
}

static const char *blocked_by_kind(const char *kind)
{
    static const struct {
        const char *kind, *why;
    } rows[] = {
        {"DaemonSet", "one on each node (DaemonSet)"},
        {"StatefulSet", "its pods keep their names and volumes (StatefulSet)"},
        {"Job", "runs to its end and is paid by its seconds already (Job)"},
        {"CronJob", "runs to its end and is paid by its seconds already (CronJob)"},
        {"Node", "belongs to its node"},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (streq(kind, rows[i].kind))
            return rows[i].why;
    return NULL;
}

static void add_to(struct arena *a, struct val *v, const char *key, double d)
{
    val_put(a, v, key, val_double(a, val_num_at(v, key, 0) + d));
}

static void put_num(struct arena *a, struct val *v, const char *key, double d)
{
    val_put(a, v, key, val_double(a, d));
}

static void add_pod(struct arena *a, struct val *w, const struct val *pod, const struct val *before)
{
    double seconds = val_num_at(pod, "seconds", 0) - val_num_at(before, "seconds", 0);
    double cpu = (val_num_at(pod, "cpu_us", 0) - val_num_at(before, "cpu_us", 0)) / 1e6;
    double gb = MAX(val_num_at(pod, "memory_request_bytes", 0), val_num_at(pod, "memory_bytes", 0)) / (1 << 30);
    double asked = val_num_at(pod, "cpu_request_milli", 0) / 1000;

    if (seconds < 0 || cpu < 0) { /* it began anew: all of it is news */
        seconds = val_num_at(pod, "seconds", 0);
        cpu = val_num_at(pod, "cpu_us", 0) / 1e6;
    }
    add_to(a, w, "pod_s", seconds);
    add_to(a, w, "cpu_s", cpu);
    add_to(a, w, "vcpu_s", MAX(asked * seconds, cpu)); /* what is reserved or used, whatever is more */
    add_to(a, w, "gb_s", gb * seconds);
    put_num(a, w, "peak_gb",
            MAX(val_num_at(w, "peak_gb", 0), val_num_at(pod, "memory_peak_bytes", 0) / (1 << 30)));
}

void workloads_add(struct arena *a, struct val *top, const struct val *pods,
                   gather_blocked_fn *blocked, void *arg)
{
    struct val *seen = val_map(a), *all;
    const struct val *before = val_copy(a, val_get(top, "pods") ? val_get(top, "pods") : val_map(a));
    double now = val_num_at(pods, "time_ms", 0);

    if (now <= val_num_at(top, "time_ms", 0))
        return; /* this reading is in already */
    all = val_need_map(a, top, "workloads");
    VAL_EACH(val_get(pods, "pods"), pod) {
        const char *kind, *name, *ns = val_str_at(pod, "namespace", ""), *uid = val_str_at(pod, "uid", "");
        const char *why;
        double started = val_num_at(pod, "started_ms", now);
        struct val *w, *last;

        workload_of(a, pod, &kind, &name);
        w = val_need_map(a, all, arena_printf(a, "%s/%s/%s", ns, kind, name));
        if (!val_get(w, "kind")) {
            val_put_str(a, w, "kind", kind);
            val_put_str(a, w, "namespace", ns);
            val_put_str(a, w, "name", name);
            put_num(a, w, "first_ms", started);
        }
        put_num(a, w, "first_ms", MIN(val_num_at(w, "first_ms", now), started));
        put_num(a, w, "last_ms", now);
        add_pod(a, w, pod, val_get(before, uid));
        why = blocked_by_kind(kind);
        if (!why && blocked)
            why = blocked(arg, a, ns, val_str_at(pod, "name", ""));
        if (why)
            val_put_str(a, w, "blocked", why);
        else if (blocked)
            val_del(w, "blocked");
        last = val_put(a, seen, uid, val_map(a));
        put_num(a, last, "seconds", val_num_at(pod, "seconds", 0));
        put_num(a, last, "cpu_us", val_num_at(pod, "cpu_us", 0));
    }
    for (uint32_t i = all->n; i-- > 0;)
        if (now - val_num_at(&all->members[i].v, "last_ms", 0) > FORGET_MS)
            val_del(all, all->members[i].key);
    val_put(a, top, "pods", seen);
    put_num(a, top, "time_ms", now);
}

struct val *gather_workloads(struct arena *a, const char *state, gather_blocked_fn *blocked, void *arg,
                             struct err *err)
{
    struct val *top, *pods;

    if (read_json(a, arena_printf(a, "%s/meter/workloads.json", state), &top, err) < 0 ||
        read_json(a, arena_printf(a, "%s/meter/pods.json", state), &pods, err) < 0)
        return NULL;
    if (!val_is(top, VAL_MAP))
        top = val_map(a);
    if (pods)
        workloads_add(a, top, pods, blocked, arg);
    return top;
}

int gather_save(const char *state, const struct val *workloads, struct err *err)
{
    _auto_(freep) char *path = xasprintf("%s/meter/workloads.json", state);
    _auto_(freep) char *folder = xasprintf("%s/meter", state);
    struct buf b = {0};
    int rc;

    json_write(&b, workloads);
    rc = fs_mkdirs(folder, 0755, err) < 0 ? -1 : fs_write_fast(path, b.p, b.n, 0644, err);
    buf_done(&b);
    return rc;
}

/* ---- rows ---- */

static void add_use(struct arena *a, struct uses *u, const struct use *one)
{
    if ((u->n & (u->n - 1)) == 0) {
        struct use *v = arena_array(a, struct use, u->n ? 2 * u->n : 1);

        if (u->n)
            memcpy(v, u->v, u->n * sizeof *v);
        u->v = v;
    }
    u->v[u->n++] = *one;
}

static struct use function_use(const struct val *f, int64_t now_ms)
{
    double first = val_num_at(f, "first_ms", 0);

    return (struct use){
        .kind = "Function",
        .ns = val_str_at(f, "namespace", "default"),
        .name = val_str_at(f, "name", ""),
        .seconds = first > 0 && (double)now_ms > first ? ((double)now_ms - first) / 1000 : 0,
        .requests = val_num_at(f, "requests", 0),
        .busy_s = val_num_at(f, "busy_us", 0) / 1e6,
        .gb_s = val_num_at(f, "gb_us", 0) / 1e6,
        .cold = val_num_at(f, "cold_starts", 0),
        .cold_s = val_num_at(f, "init_us", 0) / 1e6,
        .cpu_s = val_num_at(f, "cpu_us", 0) / 1e6,
        .memory_gb = val_num_at(f, "memory_mb", 0) / 1024,
        .peak_gb = val_num_at(f, "memory_peak_kb", 0) / (1 << 20),
    };
}

static struct use pod_use(const struct val *w)
{
    return (struct use){
        .kind = val_str_at(w, "kind", "Pod"),
        .ns = val_str_at(w, "namespace", ""),
        .name = val_str_at(w, "name", ""),
        .seconds = (val_num_at(w, "last_ms", 0) - val_num_at(w, "first_ms", 0)) / 1000,
        .cpu_s = val_num_at(w, "cpu_s", 0),
        .peak_gb = val_num_at(w, "peak_gb", 0),
        .pod_s = val_num_at(w, "pod_s", 0),
        .vcpu_s = val_num_at(w, "vcpu_s", 0),
        .pod_gb_s = val_num_at(w, "gb_s", 0),
        .blocked = val_str_at(w, "blocked", NULL),
    };
}

static int by_name(const void *x, const void *y)
{
    const struct use *a = x, *b = y;
    int d = strcmp(a->ns, b->ns);

    d = d ? d : strcmp(a->kind, b->kind);
    return d ? d : strcmp(a->name, b->name);
}

int gather_uses(struct arena *a, const char *state, const struct val *workloads, int64_t now_ms,
                gather_alive_fn *alive, void *arg, struct uses *ret, struct err *err)
{
    struct val *functions;

    *ret = (struct uses){0};
    if (read_json(a, arena_printf(a, "%s/meter/functions.json", state), &functions, err) < 0)
        return -1;
    VAL_EACH(val_get(functions, "functions"), f) {
        struct use u = function_use(f, now_ms);

        if (u.requests > 0 && u.seconds > 0 && (!alive || alive(arg, u.kind, u.ns, u.name)))
            add_use(a, ret, &u);
    }
    VAL_EACH_MEMBER(val_get(workloads, "workloads"), m) {
        struct use u = pod_use(&m->v);

        if (val_num_at(workloads, "time_ms", 0) - val_num_at(&m->v, "last_ms", 0) < GONE_MS &&
            u.seconds > 0 && (!alive || alive(arg, u.kind, u.ns, u.name)))
            add_use(a, ret, &u);
    }
    if (ret->n)
        qsort(ret->v, ret->n, sizeof *ret->v, by_name);
    return 0;
}

int gather_advice(struct arena *a, const char *state, int64_t now_ms, gather_alive_fn *alive, void *arg,
                  struct prices *ret_prices, struct advices *ret, struct err *err)
{
    struct uses uses;
    struct val *workloads;

    if (gather_prices(a, state, ret_prices, err) < 0 ||
        !(workloads = gather_workloads(a, state, NULL, NULL, err)) ||
        gather_uses(a, state, workloads, now_ms, alive, arg, &uses, err) < 0)
        return -1;
    *ret = (struct advices){.v = arena_array(a, struct advice, uses.n + 1), .n = uses.n};
    for (uint32_t i = 0; i < uses.n; i++)
        advise(a, ret_prices, &uses.v[i], &ret->v[i]);
    return 0;
}
