/* The registry: functions by name, their aliases, versions and families; start and stop of it all. */
#include "function/function_int.h"

#include "codec/json.h"
#include "env/clock.h"
#include "function/code.h"
#include "function/queue.h"
#include "http/client.h"
#include "function/runtime_files.h"
#include "network/network.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int64_t wall_ms(void)
{
    return clock_real_ms();
}

const char *wall_text(int64_t ms, char out[32])
{
    static __thread time_t last_s;
    static __thread char last[24];
    time_t s = (time_t)(ms / 1000);

    if (s != last_s) {
        struct tm tm;

        gmtime_r(&s, &tm);
        strftime(last, sizeof last, "%Y-%m-%dT%H:%M:%S", &tm);
        last_s = s;
    }
    snprintf(out, 32, "%s.%03dZ", last, (int)(ms % 1000));
    return out;
}

static char *key_of(const char *ns, const char *name, char out[512])
{
    size_t at = 0; /* by hand: some are made for each request */

    for (const char *s = str_empty(ns) ? "default" : ns; *s && at < 510; s++)
        out[at++] = *s;
    out[at++] = '/';
    for (; *name && at < 511; name++)
        out[at++] = *name;
    out[at] = 0;
    return out;
}

struct function *function_find(struct functions *fs, const char *ns, const char *name)
{
    char key[512];
    struct function *f = name ? map_get(&fs->by_key, key_of(ns, name, key)) : NULL;

    return f;
}

/* The version that a call through this alias goes to; NULL: no such alias. With weights each of n
 * calls in a row goes where the golden ratio's row of fractions falls: exact in the long run, and
 * not in blocks. */
static const char *alias_version(struct function *head, const char *name)
{
    double u;

    VAL_EACH(val_at(obj_val(head->obj), "spec.aliases"), it)
    {
        if (!streq(val_str_at(it, "name", ""), name))
            continue;
        u = (double)++head->family->routed * 0.61803398874989485;
        u -= (double)(uint64_t)u;
        VAL_EACH(val_get(it, "additionalVersions"), w)
        {
            if (u < val_num_at(w, "weight", 0))
                return val_str_at(w, "version", "");
            u -= val_num_at(w, "weight", 0);
        }
        return val_str_at(it, "version", "");
    }
    return NULL;
}

struct function *function_route(struct functions *fs, const char *ns, const char *name, const char *qualifier)
{
    struct function *head = function_find(fs, ns, name), *f;
    const char *version;
    char key[512], with[800];

    if (strchr(name, '!') || (qualifier && strchr(qualifier, '!'))) /* a function that is being debugged has such a key: that is not a way to it */
        return NULL;
    if (!head || str_empty(qualifier) || streq(qualifier, "$LATEST"))
        return head;
    snprintf(with, sizeof with, "%s:%s", key_of(ns, name, key), qualifier);
    f = map_get(&fs->by_key, with);
    if (f || !(version = alias_version(head, qualifier)))
        return f;
    if (streq(version, "$LATEST"))
        return head;
    snprintf(with, sizeof with, "%s:%s", key, version);
    return map_get(&fs->by_key, with);
}

bool functions_known(const struct functions *fs, const char *ns, const char *name)
{
    return function_find((struct functions *)fs, ns, name) != NULL;
}

const struct obj *functions_get(const struct functions *fs, const char *ns, const char *name)
{
    struct function *f = function_find((struct functions *)fs, ns, name);

    return f ? f->obj : NULL;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = val_int_at(obj_val(*(const struct obj *const *)a), "spec.version", 0);
    int64_t y = val_int_at(obj_val(*(const struct obj *const *)b), "spec.version", 0);

    return x < y ? -1 : x > y;
}

const struct obj **functions_versions(const struct functions *fs, struct arena *a, const char *ns, const char *name,
                                      size_t *ret_n)
{
    struct function *head = function_find((struct functions *)fs, ns, name);
    const struct obj **v = NULL;
    size_t n = 0, cap = 0;

    for (int round = 0; head && round < 2; round++) { /* counted, then taken */
        if (round)
            v = arena_raw(a, (cap + 1) * sizeof *v);
        LIST_EACH(&fs->all, l)
        {
            struct function *f = list_entry(l, struct function, link);

            if (f->family != head->family || f == head || f->removed || f->debug || !f->obj)
                continue;
            if (round)
                v[n++] = f->obj;
            else
                cap++;
        }
    }
    if (n)
        qsort(v, n, sizeof *v, by_number);
    *ret_n = n;
    return v;
}

const char *functions_node_ip(const struct functions *fs)
{
    return fs->node_ip;
}

/* ---- functions ---- */

static struct family *family_of(struct functions *fs, const char *ns, const char *name)
{
    char key[512];
    struct family *y = map_get(&fs->families, key_of(ns, name, key));

    if (!y) {
        y = xcalloc(1, sizeof *y);
        y->key = xstrdup(key);
        y->reserved = -1;
        map_put(&fs->families, key, y);
    }
    y->refs++;
    return y;
}

static void family_let_go(struct functions *fs, struct family *y)
{
    if (--y->refs)
        return;
    map_del(&fs->families, y->key);
    free(y->key);
    free(y);
}

static struct function *function_new(struct functions *fs, const struct obj *o, const char *name, const char *shown,
                                     const char *key)
{
    struct function *f = xcalloc(1, sizeof *f);

    f->fs = fs;
    f->key = xstrdup(key);
    f->namespace_ = xstrdup(str_empty(o->namespace_) ? "default" : o->namespace_);
    f->name = xstrdup(name);
    f->shown = xstrdup(shown);
    f->family = family_of(fs, o->namespace_, name);
    f->id = ++fs->id_next;
    list_init(&f->versions);
    list_init(&f->waiting);
    f->m = meter_of(fs, key);
    list_push(&fs->all, &f->link);
    map_put(&fs->by_key, key, f);
    return f;
}

void function_let_go(struct function *f)
{
    struct functions *fs = f->fs;

    if (!f->removed || !list_empty(&f->versions) || f->busy)
        return;
    family_let_go(fs, f->family);
    obj_unref(f->obj);
    list_remove(&f->link);
    list_remove(&f->gated);
    list_remove(&f->net_link);
    free(f->key);
    free(f->namespace_);
    free(f->name);
    free(f->shown);
    free(f->series);
    free(f->arn);
    scale_done(f);
    free(f);
    if (list_empty(&fs->all))
        bases_stop(fs); /* no function, no process */
    functions_let_go(fs);
}

static bool is_gone(const struct functions *fs, const char *uid)
{
    for (size_t i = 0; !str_empty(uid) && i < ARRAY_LEN(fs->gone); i++)
        if (streq(fs->gone[i], uid))
            return true;
    return false;
}

static void put(struct functions *fs, const struct obj *o, const char *name, const char *shown, const char *key)
{
    struct function *f = map_get(&fs->by_key, key);
    const struct val *spec = version_spec(o);
    const char *tracing = val_str_at(spec, "tracingMode", "");
    bool same;

    if (fs->stopping || is_gone(fs, o->uid))
        return;
    if (f && f->obj && streq0(f->obj->uid, o->uid) && o->revision < f->obj->revision)
        return;
    if (!f)
        f = function_new(fs, o, name, shown, key);
    same = f->obj && f->now && version_same(f->obj, o);
    obj_unref(f->obj);
    f->obj = obj_ref(o);
    f->async_retries = (int)val_int_at(spec, "retries", 2);
    f->async_age_s = (int)val_int_at(spec, "maximumEventAgeSeconds", 21600);
    f->durable = val_is(val_get(spec, "durable"), VAL_MAP);
    if (!same)
        version_replace(f);
    if (!f->debug)
        scale_read(f);
    f->now->tracing = streq(tracing, "Active") ? TRACING_ACTIVE : streq(tracing, "PassThrough") ? TRACING_PASS_THROUGH : TRACING_UNSAID;
}

/* How many instances each of a family keeps loaded, by what the Function says. */
static void provision(struct functions *fs, const char *ns, const char *name)
{
    struct function *head = function_find(fs, ns, name);

    if (!head || fs->stopping)
        return;
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);
        int64_t n = 0;

        if (f->family != head->family || f->removed || f->debug)
            continue;
        VAL_EACH(val_at(obj_val(head->obj), "spec.provisioned"), it)
        if (function_route(fs, ns, name, val_str_at(it, "qualifier", "")) == f)
            n += val_int_at(it, "instances", 0);
        f->provisioned = (int)MIN(MAX(n, (int64_t)0), (int64_t)fs->concurrency_max);
        if (f->provisioned && f->now && f->now->broken.code == ERR_OK) {
            pool_wake(fs);
            zygote_start(f->now);
            pool_refill_soon(fs);
        }
    }
}

void functions_put(struct functions *fs, const struct obj *o)
{
    char key[512];
    struct function *f;

    put(fs, o, o->name, "$LATEST", key_of(o->namespace_, o->name, key));
    f = map_get(&fs->by_key, key);
    if (!f)
        return;
    f->family->reserved = val_int_at(version_spec(f->obj), "reservedConcurrency", -1);
    if (f->family->debug)
        function_put_debug(f);
    spending_limit(fs, f->family->key, val_num_at(version_spec(f->obj), "spendingLimit", -1));
    provision(fs, o->namespace_, o->name);
}

/* "NAMESPACE/NAME:VERSION"; NULL: not a version that can be called. */
static const char *version_key(const struct obj *o, char key[512], char shown[24])
{
    const struct val *spec = val_get(obj_val(o), "spec");
    const char *name = val_str_at(spec, "function", NULL);
    int64_t number = val_int_at(spec, "version", 0);

    if (str_empty(name) || strlen(name) > 253 || number <= 0)
        return NULL;
    snprintf(shown, 24, "%lld", (long long)number);
    snprintf(key, 512, "%s/%s:%s", str_empty(o->namespace_) ? "default" : o->namespace_, name, shown);
    return name;
}

void functions_put_version(struct functions *fs, const struct obj *o)
{
    char key[512], shown[24];
    const char *name = version_key(o, key, shown);

    if (!name)
        return;
    put(fs, o, name, shown, key);
    provision(fs, o->namespace_, name);
}

struct function *function_put_debug(struct function *head)
{
    _auto_(freep) char *key = xasprintf("%s:!debug", head->key); /* no qualifier can be that */
    struct function *f = head->family->debug;

    if (!f) {
        f = head->family->debug = function_new(head->fs, head->obj, head->name, "$LATEST", key);
        f->debug = true;
    }
    put(head->fs, head->obj, head->name, "$LATEST", key);
    return f;
}

void function_drop(struct function *f)
{
    struct err err;

    map_del(&f->fs->by_key, f->key);
    f->removed = true;
    if (f->family->debug == f)
        f->family->debug = NULL;
    function_image_release(f);
    if (!f->debug && f->obj && !str_empty(f->obj->uid))
        snprintf(f->fs->gone[f->fs->gone_next++ % ARRAY_LEN(f->fs->gone)], sizeof f->fs->gone[0], "%s", f->obj->uid);
    LOG(INFO, "function", "function=%s did=remove", f->key);
    err_set(&err, NOT_FOUND, "Function not found: %s", f->name);
    pool_fail_waiting(f, &err);
    if (f->now)
        version_retire(STEAL(f->now));
    else
        function_let_go(f);
}

static void function_remove(struct function *f)
{
    if (!f->fs->stopping && f->family->debug && f->obj && f == function_find(f->fs, f->namespace_, f->name))
        debug_end(f->family->debug);
    function_drop(f);
}

void functions_remove(struct functions *fs, const char *ns, const char *name)
{
    struct function *f = function_find(fs, ns, name);

    if (f)
        function_remove(f);
}

void functions_remove_version(struct functions *fs, const struct obj *o)
{
    char key[512], shown[24];
    struct function *f = version_key(o, key, shown) ? map_get(&fs->by_key, key) : NULL;

    if (f)
        function_remove(f);
}

int functions_image_state(struct functions *fs, const char *ns, const char *name, struct err *err)
{
    struct function *f = function_find(fs, ns, name);

    return f && f->now && f->now->image && !fs->stopping ? version_image(f->now, err) : 1;
}

int functions_provisioned(const struct functions *fs, const char *ns, const char *name, const char *qualifier)
{
    struct function *f = function_route((struct functions *)fs, ns, name, qualifier);
    int n = 0;

    if (!f || !f->now)
        return 0;
    LIST_EACH(&f->now->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        n += i->inited || i->warm;
    }
    return MIN(n, f->provisioned);
}

/* ---- all of it ---- */

static char *read_small(const char *path)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = xcalloc(1, 16384);

    if (fd < 0 || read(fd, text, 16383) < 0)
        text[0] = 0;
    return text;
}

static int make_state_dirs(struct functions *fs, struct err *err)
{
    static const char *const names[] = {"", "/run", "/run/function", "/run/function/root", "/functions",
                                        "/meter", "/queue"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _auto_(freep) char *path = xasprintf("%s%s", fs->state, names[i]);

        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make %s", path);
    }
    return 0;
}

static int write_file(const char *path, const void *p, size_t n, struct err *err)
{
    _auto_(freep) char *part = xasprintf("%s.new", path);
    _auto_(closep) int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, p, n) != (ssize_t)n || rename(part, path) < 0)
        return err_sys(err, "write %s", path);
    return 0;
}

/* The zygote's program comes with ours and is put beside the sockets, where no package or user
 * replaces it under us. */
static int write_runtime(struct functions *fs, const char *dir, struct err *err)
{
    fs->driver = dir ? xasprintf("%s/driver.py", dir) : xasprintf("%s/run/function/driver.py", fs->state);
    fs->node_runtime = dir ? xasprintf("%s/index.mjs", dir) : xasprintf("%s/run/function/index.mjs", fs->state);
    fs->library = dir ? xasprintf("%s/zygote.so", dir) : xasprintf("%s/run/function/zygote.so", fs->state);
    fs->root = xasprintf("%s/run/function/root", fs->state);
    if (dir)
        return 0;
    if (write_file(fs->driver, runtime_driver, runtime_driver_n, err) < 0 ||
        write_file(fs->node_runtime, runtime_node, runtime_node_n, err) < 0)
        return -1;
    return write_file(fs->library, runtime_library, runtime_library_n, err);
}

/* Unpacked code was written without waiting for the disk; after a power loss it may have holes.
 * So it is only believed within one boot of the machine, and made again from the blobs after. */
static void forget_code_of_other_boots(struct functions *fs)
{
    _auto_(freep) char *now = read_small("/proc/sys/kernel/random/boot_id");
    _auto_(freep) char *path = xasprintf("%s/functions/.boot", fs->state);
    _auto_(freep) char *then = read_small(path);
    struct err err;

    if (streq(now, then))
        return;
    code_forget_folders(fs->state);
    if (write_file(path, now, strlen(now), &err) < 0)
        LOG(WARN, "function", "did=boot-mark error=\"%s\"", err.msg);
}

static const char *instance_of_path(const char *path, char out[16])
{
    snprintf(out, 16, "%08x", str_hash(path, strlen(path)));
    return out;
}

static void clean_cgroups(struct functions *fs)
{
    struct err err;

    if (!fs->has_cgroups)
        return;
    if (cgroup_kill(&fs->cgroups, "functions", &err) == 0)
        cgroup_wait_empty(&fs->cgroups, "functions", 2000);
    if (cgroup_remove(&fs->cgroups, "functions", &err) < 0)
        LOG(WARN, "function", "did=clean-cgroups error=\"%s\"", err.msg);
    /* ours is the last one when no pod is left; else this does nothing */
    for (int i = 0; i < CGROUP_HIERARCHIES; i++)
        if (fs->cgroups.mount[i][0]) {
            _auto_(freep) char *top = xasprintf("%s/%s", fs->cgroups.mount[i], fs->cgroups.top);

            rmdir(top);
        }
}

static char *dup0(const char *s, const char *otherwise)
{
    s = s ? s : otherwise;
    return s ? xstrdup(s) : NULL;
}

static void options_take(struct functions *fs, const struct functions_options *o)
{
    char id[16];

    fs->loop = o->loop;
    fs->state = xstrdup(o->state);
    fs->instance = xstrdup(o->instance ? o->instance : instance_of_path(o->state, id));
    fs->region = dup0(o->region, "us-east-1");
    fs->account = dup0(o->account, "000000000000");
    fs->node_ip = dup0(o->node_ip, "127.0.0.1");
    fs->aws_port = o->aws_port;
    fs->logs = o->logs;
    fs->metrics = o->metrics;
    fs->tracing = o->tracing;
    fs->price_gb_s = o->price_gb_s;
    fs->price_request = o->price_request;
    snprintf(fs->currency, sizeof fs->currency, "%s", o->currency ? o->currency : "USD");
    fs->on_spending = o->on_spending;
    fs->on_state = o->on_state;
    fs->state_arg = o->state_arg;
    fs->on_snapshot = o->on_snapshot;
    fs->snapshot_arg = o->snapshot_arg;
    fs->spending_arg = o->spending_arg;
    fs->evict_mb = o->evict_mb;
    fs->evict_stall = o->evict_stall;
    fs->memory_of = o->memory ? o->memory : functions_memory;
    fs->memory_arg = o->memory_arg;
    fs->cpu_strict = o->cpu_strict;
    fs->lazy_init = o->lazy_init;
    fs->concurrency_max = o->concurrency_max ? o->concurrency_max : 1000;
    fs->waiting_max = o->waiting_max ? o->waiting_max : 10000;
    fs->scale_burst = o->scale_burst ? o->scale_burst : 1000;
    fs->scale_per_10s = o->scale_per_10s ? o->scale_per_10s : o->keep_ms < 0 ? -1 : 1000;
    fs->keep_ms = o->keep_ms ? o->keep_ms : 10000;
    fs->zygote_keep_ms = o->zygote_keep_ms ? o->zygote_keep_ms : 60000;
    fs->gates.cores = o->cores < 0 || o->keep_ms < 0 ? 0 : o->cores ? (uint32_t)o->cores : uv_available_parallelism();
    fs->stems = o->stems < 0 ? 0 : o->stems ? o->stems : 1;
    fs->retry_ms[0] = o->retry_ms[0] ? o->retry_ms[0] : 60000;
    fs->retry_ms[1] = o->retry_ms[1] ? o->retry_ms[1] : 120000;
}

static void functions_free(struct functions *fs)
{
    void (*stopped)(void *) = fs->stopped;
    void *arg = fs->stopped_arg;

    functions_net_close(fs);
    functions_images_close(fs);
    if (fs->http)
        http_client_free(fs->http);
    meters_free(fs);
    spendings_free(fs);
    map_done(&fs->by_key);
    map_done(&fs->families);
    free(fs->state);
    free(fs->instance);
    free(fs->region);
    free(fs->account);
    free(fs->node_ip);
    free(fs->access_key);
    free(fs->secret_key);
    free(fs->dns);
    free(fs->driver);
    free(fs->node_runtime);
    free(fs->library);
    free(fs->root);
    free(fs->corpses);
    closep(&fs->null_fd);
    free(fs);
    if (stopped)
        stopped(arg);
}

struct functions *functions_new(const struct functions_options *o, struct err *err)
{
    struct functions *fs = xcalloc(1, sizeof *fs);
    struct err e;

    options_take(fs, o);
    list_init(&fs->all);
    list_init(&fs->bases);
    list_init(&fs->wishes);
    list_init(&fs->to_limit);
    list_init(&fs->gated);
    list_init(&fs->flooding);
    list_init(&fs->net_waiters);
    fs->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < ARRAY_LEN(fs->slots); i++)
        list_init(&fs->slots[i]);
    if (make_state_dirs(fs, err) < 0 || write_runtime(fs, o->runtime_dir, err) < 0) {
        functions_free(fs);
        return NULL;
    }
    forget_code_of_other_boots(fs);
    fs->has_cgroups = cgroup_host_init(&fs->cgroups, fs->instance, &e) == 0;
    if (!fs->has_cgroups)
        LOG(WARN, "function", "did=run-without-limits error=\"%s\"", e.msg);
    else
        cgroup_favor_dynmods();
    clean_cgroups(fs); /* an earlier life was killed */
    functions_net_open(fs, o->pod_cidr, o->service_cidr, o->node_ip != NULL);
    meters_read(fs);
    fs->meter_written_us = now_us();
    fs->queue = functions_durable_open(fs, err) < 0 ? NULL : queue_open(fs, err);
    if (!fs->queue) {
        functions_free(fs);
        return NULL;
    }
    uv_timer_init(fs->loop, &fs->tick);
    uv_timer_init(fs->loop, &fs->refill);
    uv_timer_init(fs->loop, &fs->flood);
    uv_timer_init(fs->loop, &fs->give);
    uv_timer_init(fs->loop, &fs->gate);
    fs->tick.data = fs->refill.data = fs->flood.data = fs->give.data = fs->gate.data = fs;
    fs->handles = 5;
    collector_start(fs);
    pool_wake(fs);
    fs->settled = !o->events_wait;
    if (!o->events_wait)
        queue_start(fs->queue, 1000);
    return fs;
}

void functions_settled(struct functions *fs)
{
    fs->settled = true;
    if (!fs->stopping)
        queue_start(fs->queue, 0);
}

bool functions_all_known(const struct functions *fs)
{
    return fs->settled;
}

void function_not_found(const struct functions *fs, const char *name, const char *qualifier, struct err *err)
{
    if (!fs->settled)
        err_set(err, UNAVAILABLE, "tandem is starting: its functions are not known yet");
    else
        err_set(err, NOT_FOUND, "Function not found: %s%s%s", name ? name : "", qualifier ? ":" : "", qualifier ? qualifier : "");
}

static void on_timer_closed(uv_handle_t *h)
{
    struct functions *fs = h->data;

    fs->handles--;
    functions_let_go(fs);
}

void functions_let_go(struct functions *fs)
{
    if (!fs->stopping || !list_empty(&fs->all) || fs->queue || fs->durable)
        return;
    bases_stop(fs);
    if (fs->handles)
        return;
    zygotes_reap(fs);
    meters_write(fs, true);
    clean_cgroups(fs);
    functions_free(fs);
}

static void on_queue_closed(void *arg)
{
    struct functions *fs = arg;

    fs->queue = NULL;
    functions_let_go(fs);
}

void functions_stop(struct functions *fs, void (*stopped)(void *arg), void *arg)
{
    struct err err;

    ASSERT(!fs->stopping);
    fs->stopped = stopped;
    fs->stopped_arg = arg;
    fs->stopping = true;
    functions_images_cancel(fs);
    err_set(&err, UNAVAILABLE, "tandem is stopping");
    queue_close(fs->queue, on_queue_closed, fs);
    functions_durable_close(fs);
    fs->handles++; /* not before the loop below is through */
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        pool_fail_waiting(f, &err);
        LIST_EACH(&f->versions, k)
        {
            instances_kill(list_entry(k, struct version, link));
        }
        if (!f->removed)
            function_remove(f);
    }
    fs->handles--;
    uv_close((uv_handle_t *)&fs->tick, on_timer_closed);
    uv_close((uv_handle_t *)&fs->refill, on_timer_closed);
    uv_close((uv_handle_t *)&fs->flood, on_timer_closed);
    uv_close((uv_handle_t *)&fs->give, on_timer_closed);
    uv_close((uv_handle_t *)&fs->gate, on_timer_closed);
    collector_stop(fs);
}
