/* The registry: objects in, versions of code and configuration out; start and stop of it all. */
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
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { UID_FIRST = 0x30000000, START_AHEAD_MAX = 8 };

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

/* ---- versions ---- */

/* Beside Python's own: what runs as a program of its own and speaks the Runtime API (runtime/api.c). */
enum kind_of_runtime { RUNTIME_PYTHON, RUNTIME_NODE, RUNTIME_PROVIDED, RUNTIME_WASM };

static char *find_program(const char *name)
{
    static const char *const places[] = {"/usr/bin", "/usr/local/bin"};

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        char *path = xasprintf("%s/%s", places[i], name);

        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

static int python_of(const char *runtime, char **ret, struct err *err)
{
    const char *version = runtime + 6;
    char name[24];

    *ret = NULL;
    if (strlen(version) > 5 || strlen(version) < 4 || strspn(version + 2, "0123456789") != strlen(version + 2) ||
        atoi(version + 2) < 10 || atoi(version + 2) > 13)
        return err_set(err, NOT_IMPLEMENTED, "the runtime %.40s is not supported: use python3.10 to python3.13", runtime);
    snprintf(name, sizeof name, "python%s", version);
    *ret = find_program(name);
    return *ret ? 0 : err_set(err, NOT_IMPLEMENTED, "the runtime %.40s is not on this machine: install %s", runtime, name);
}

/* The major version of this machine's node; 0: there is none. Asked once in a process, by starting it
 * (some 40 ms). */
static int node_major(const char *node)
{
    static int major = -1;
    char text[32] = "", *argv[] = {(char *)node, "--version", NULL}, *envp[] = {NULL};
    posix_spawn_file_actions_t fa;
    int ends[2];
    pid_t pid;

    if (!node || major >= 0)
        return node ? major : 0;
    major = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 0;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, ends[1], 1);
    if (posix_spawn(&pid, node, &fa, NULL, argv, envp) == 0) {
        close(ends[1]);
        ends[1] = -1;
        if (read(ends[0], text, sizeof text - 1) > 1 && text[0] == 'v')
            major = atoi(text + 1);
        waitpid(pid, NULL, 0);
    }
    posix_spawn_file_actions_destroy(&fa);
    close(ends[0]);
    closep(&ends[1]);
    return major;
}

/* The program that a runtime's instances are forked from (a Python, for all of them) and, for others
 * than Python, the program that they start. */
static int find_runtime(const char *runtime, enum kind_of_runtime *ret_kind, char **ret_interpreter, char **ret_program,
                        struct err *err)
{
    static const char *const pythons[] = {"python3.11", "python3.12", "python3.13", "python3.10", "python3"};
    _auto_(freep) char *node = NULL;

    *ret_interpreter = *ret_program = NULL;
    *ret_kind = RUNTIME_PYTHON;
    if (str_starts(runtime, "python3."))
        return python_of(runtime, ret_interpreter, err);
    if (str_starts(runtime, "nodejs") && str_ends(runtime, ".x")) {
        *ret_kind = RUNTIME_NODE;
        node = find_program("node");
        if (node_major(node) < MAX(atoi(runtime + 6), 18))
            return err_set(err, NOT_IMPLEMENTED, "the runtime %.40s is not on this machine: install Node.js %d or later", runtime,
                           MAX(atoi(runtime + 6), 18));
        *ret_program = STEAL(node);
    } else if (streq(runtime, "provided.al2023") || streq(runtime, "provided.al2") || streq(runtime, "provided")) {
        *ret_kind = RUNTIME_PROVIDED;
        *ret_program = xstrdup("/var/task/bootstrap"); /* or /opt/bootstrap: the driver looks */
    } else if (streq(runtime, "wasm")) { /* in the zygote's own process, as Python is */
        *ret_kind = RUNTIME_WASM;
        if (wasm_check(err) < 0)
            return -1;
    } else {
        return err_set(err, NOT_IMPLEMENTED, "the runtime %.40s is not supported: use python3.10 to python3.13, nodejs18.x or "
                       "later, provided.al2023 or wasm", runtime);
    }
    for (size_t i = 0; i < ARRAY_LEN(pythons) && !*ret_interpreter; i++)
        *ret_interpreter = find_program(pythons[i]);
    if (*ret_interpreter)
        return 0;
    freep(ret_program);
    *ret_program = NULL;
    return err_set(err, NOT_IMPLEMENTED, "python3 is not on this machine: instances of %.40s are started by it", runtime);
}

int function_runtime_check(const char *runtime, struct err *err)
{
    _auto_(freep) char *path = NULL;
    _auto_(freep) char *program = NULL;
    enum kind_of_runtime kind;

    return find_runtime(runtime ? runtime : "", &kind, &path, &program, err);
}

static void add_env(char ***env, size_t *n, const char *name, const char *value)
{
    *env = xrealloc(*env, (*n + 3) * sizeof **env);
    (*env)[(*n)++] = xstrdup(name);
    (*env)[(*n)++] = xstrdup(value);
    (*env)[*n] = NULL;
}

/* What Lambda shows its functions, then the function's own. */
static void make_env(struct version *v, const struct val *own)
{
    struct function *f = v->f;
    struct functions *fs = f->fs;
    char memory[16];
    size_t n = 0;
    static const char *const levels[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
    _auto_(freep) char *runtime = xasprintf("AWS_Lambda_%s", v->image ? "Image" : v->runtime);

    snprintf(memory, sizeof memory, "%d", v->memory_mb);
    const char *const fixed[][2] = {
        {"_HANDLER", v->handler},
        {"LAMBDA_TASK_ROOT", "/var/task"},
        {"LAMBDA_RUNTIME_DIR", "/var/runtime"},
        {"AWS_REGION", fs->region},
        {"AWS_DEFAULT_REGION", fs->region},
        {"AWS_EXECUTION_ENV", runtime},
        {"AWS_LAMBDA_FUNCTION_NAME", f->name},
        {"AWS_LAMBDA_FUNCTION_VERSION", v->shown},
        {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory},
        {"AWS_LAMBDA_LOG_GROUP_NAME", flog_group(v)},
        {"AWS_LAMBDA_LOG_FORMAT", v->log_json ? "JSON" : "Text"},
        {v->log_json ? "AWS_LAMBDA_LOG_LEVEL" : "AWS_LAMBDA_LOG_FORMAT", v->log_json ? levels[v->log_app] : "Text"},
        {"AWS_LAMBDA_INITIALIZATION_TYPE", v->image && v->snap_start ? "snap-start" : "on-demand"},
        {"TZ", ":UTC"},
        /* what follows is the image's to say, where there is one */
        {"LANG", "en_US.UTF-8"},
        {"PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"},
        {"LD_LIBRARY_PATH", "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"},
        {"PYTHONPATH", "/var/runtime"},
        {"HOME", "/tmp"},
    };

    for (size_t i = 0; i < ARRAY_LEN(fixed) - (v->image ? 5 : 0); i++)
        if ((!val_get(own, fixed[i][0]) || i < 3) && !(v->image && i < 3))
            add_env(&v->env, &n, fixed[i][0], fixed[i][1]);
    if (v->places > 1 && !v->http_port) {
        char most[16];

        snprintf(most, sizeof most, "%d", v->places);
        add_env(&v->env, &n, "AWS_LAMBDA_MAX_CONCURRENCY", most);
    }
    if (fs->aws_port && !val_get(own, "AWS_ENDPOINT_URL")) {
        _auto_(freep) char *url = xasprintf("http://%s:%d", fs->node_ip, fs->aws_port);

        add_env(&v->env, &n, "AWS_ENDPOINT_URL", url);
    }
    VAL_EACH_MEMBER(own, m)
    if (val_is(&m->v, VAL_STR))
        add_env(&v->env, &n, m->key, m->v.s);
}

static int read_mounts(struct version *v, const struct val *list, struct err *err)
{
    VAL_EACH(list, it)
    {
        const char *volume = val_str_at(it, "volume", NULL);
        const char *target = val_str_at(it, "localMountPath", NULL);

        if (str_empty(volume) || strchr(volume, '/') || volume[0] == '.' || !target || !str_starts(target, "/mnt/") ||
            strstr(target, "..") || strlen(target) > 200 || strlen(target) == 5)
            return err_set(err, INVALID, "spec.fileSystems: want a volume's name and a localMountPath below /mnt/");
        v->mounts = xrealloc(v->mounts, (v->mounts_n + 1) * sizeof *v->mounts);
        v->mounts[v->mounts_n++] = (struct volume_mount){
            .volume = xstrdup(volume), .target = xstrdup(target), .read_only = val_bool_at(it, "readOnly", false)};
    }
    return 0;
}

/* Weight by memory, 1,769 MB = one CPU. The cap is the same with cpu_strict, as on Lambda; without,
 * a small function may use a whole CPU while nobody else wants it. */
static void set_limits(struct version *v)
{
    int64_t quota = (int64_t)v->memory_mb * 100000 / 1769;

    v->limits = (struct cgroup_limits){
        .memory_bytes = (int64_t)v->memory_mb << 20,
        .cpu_shares = MAX((int64_t)v->memory_mb * 1024 / 1769, (int64_t)8),
        .cpu_quota_us = MAX(quota, (int64_t)(v->f->fs->cpu_strict ? 5000 : 100000)),
        .cpu_period_us = 100000,
        .pids = 1024,
    };
}

static enum log_level_of_function level_of(const char *text)
{
    static const char *const names[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"};

    for (int i = 0; i < (int)ARRAY_LEN(names); i++)
        if (streq(names[i], text))
            return (enum log_level_of_function)i;
    return LEVEL_INFO;
}

static void read_logging(struct version *v, const struct val *c)
{
    const char *group = val_str_at(c, "logGroup", "");

    v->log_json = streq(val_str_at(c, "logFormat", "Text"), "JSON");
    v->log_app = level_of(val_str_at(c, "applicationLogLevel", "INFO"));
    v->log_system = level_of(val_str_at(c, "systemLogLevel", "INFO"));
    if (*group)
        v->log_group = xstrdup(group);
}

static struct version *version_new(struct function *f, const struct val *spec)
{
    struct version *v = xcalloc(1, sizeof *v);
    struct err *err = &v->broken;
    enum kind_of_runtime kind;

    v->f = f;
    v->number = ++f->fs->version_next;
    v->runtime = xstrdup(val_str_at(spec, "runtime", "python3.11"));
    v->wasm = streq(v->runtime, "wasm") && val_is_null(val_get(spec, "http")); /* packageType Image: below */
    v->handler = xstrdup(val_str_at(spec, "handler", v->wasm ? "main.wasm" : "lambda_function.lambda_handler"));
    v->sha256 = xstrdup(val_str_at(spec, "codeSha256", ""));
    v->shown = xstrdup(f->shown);
    v->memory_mb = (int)MIN(MAX(val_int_at(spec, "memoryMB", 128), (int64_t)32), (int64_t)10240);
    v->timeout_ms = (int)(MIN(MAX(val_num_at(spec, "timeoutSeconds", 3), 0.05), 900.0) * 1000);
    v->tmp_mb = (int)MIN(MAX(val_int_at(spec, "ephemeralStorageMB", 512), (int64_t)1), (int64_t)10240);
    v->ctl_fd = -1;
    list_init(&v->instances);
    list_init(&v->idle);
    list_init(&v->stems);
    list_init(&v->berths);
    v->snap.image = -1;
    snprintf(v->cgroup, sizeof v->cgroup, "functions/%.63s.%.80s-%llu", f->namespace_, f->name,
             (unsigned long long)v->number);
    set_limits(v);
    read_logging(v, val_get(spec, "loggingConfig"));
    if (streq(val_str_at(spec, "packageType", "Zip"), "Image") || !str_empty(val_str_at(spec, "image", NULL))) {
        v->image = xstrdup(val_str_at(spec, "image", ""));
        v->image_digest = xstrdup(val_str_at(spec, "imageDigest", ""));
        v->image_config = val_get(spec, "imageConfig");
        v->wasm = false;
    }
    v->spec_of = obj_ref(f->obj);
    if (!val_is_null(val_get(spec, "http"))) {
        v->http_port = (int)MIN(MAX(val_int_at(spec, "http.port", 8080), (int64_t)1), (int64_t)65535);
        v->places = (int)MIN(MAX(val_int_at(spec, "http.concurrency", 80), (int64_t)1), (int64_t)10000);
        v->http_command = val_at(spec, "http.command");
    }
    if (!v->http_port)
        v->places = v->wasm || f->debug ? 1 : (int)MIN(MAX(val_int_at(spec, "concurrency", 1), (int64_t)1), (int64_t)CONCURRENCY_MAX);
    v->snap_start = streq(val_str_at(spec, "snapStart", ""), "PublishedVersions") && !streq(f->shown, "$LATEST");
    if (f->debug) {
        v->timeout_ms = DEBUG_MS;
        v->no_node_base = true; /* it is started with its inspector */
        v->limits.memory_bytes += (int64_t)DEBUG_MB << 20;
    }
    make_env(v, val_get(spec, "environment"));
    if (find_runtime(v->image || v->http_port ? "provided" : v->runtime, &kind, &v->interpreter, &v->program, err) == 0)
        (void)!read_mounts(v, val_get(spec, "fileSystems"), err);
    if ((v->places > 1 || f->debug) && !v->program && !v->wasm && v->interpreter)
        v->program = xstrdup(v->interpreter); /* Python, as a client of the Runtime API */
    VAL_EACH(val_get(spec, "layers"), it)
    if (v->layers_n < FUNCTION_LAYERS_MAX && !v->image)
        v->layers[v->layers_n++] = xstrdup(val_str_at(it, "codeSha256", ""));
    if (v->wasm && err->code == ERR_OK)
        (void)!version_wasm(v, err); /* it may have been refused already */
    if (v->snap_start && !v->program && !v->wasm && err->code == ERR_OK) {
        const char *state = val_str_at(obj_val(f->obj), "status.state", "");

        v->snap.state = streq(state, "Failed") ? SNAP_FAILED : SNAP_WANTED;
        v->snap.good = streq(state, "Active");
    }
    v->used_us = now_us();
    list_push(&f->versions, &v->link);
    return v;
}

static void version_free(struct version *v)
{
    version_image_done(v);
    snapshot_drop(v);
    obj_unref(v->spec_of);
    free(v->runtime);
    free(v->handler);
    free(v->sha256);
    free(v->shown);
    free(v->log_group);
    free(v->interpreter);
    free(v->program);
    free(v->folder);
    for (char **e = v->env; e && *e; e++)
        free(*e);
    free(v->env);
    for (uint32_t i = 0; i < v->mounts_n; i++) {
        free(v->mounts[i].volume);
        free(v->mounts[i].target);
    }
    free(v->mounts);
    for (uint32_t i = 0; i < v->layers_n; i++) {
        free(v->layers[i]);
        free(v->layer_folders[i]);
    }
    list_remove(&v->link);
    free(v);
}

/* The volume's folder on this machine. */
static char *volume_folder(const struct functions *fs, const char *volume)
{
    return xasprintf("%s/volumes/%s", fs->state, volume);
}

static char *read_small(const char *path)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = xcalloc(1, 16384);

    if (fd < 0 || read(fd, text, 16383) < 0)
        text[0] = 0;
    return text;
}

static const struct val *spec_of(const struct obj *o);
static void version_replace(struct function *f);

/* The keys of its role, or those that all functions share. */
void version_keys(struct version *v, struct arena *a, struct function_keys *ret)
{
    struct functions *fs = v->f->fs;
    const char *role = v->f->obj ? val_str_at(spec_of(v->f->obj), "role", "") : "";
    struct function_keys k = {0};
    bool own = *role && fs->keys_of && fs->keys_of(fs->keys_arg, a, role, v->f->name, &k);

    v->keyless = own && !k.access_key;
    v->renew_us = own && k.seconds ? now_us() + k.seconds * 1000000 / 2 : 0;
    if (!own)
        k = (struct function_keys){.access_key = fs->access_key, .secret_key = fs->secret_key};
    *ret = k;
}

static void add_keys(struct version *v, struct arena *a, struct val *env)
{
    struct function_keys k;

    version_keys(v, a, &k);
    if (!k.access_key || !k.secret_key)
        return;
    val_put_str(a, env, "AWS_ACCESS_KEY_ID", k.access_key);
    val_put_str(a, env, "AWS_SECRET_ACCESS_KEY", k.secret_key);
    if (k.session_token)
        val_put_str(a, env, "AWS_SESSION_TOKEN", k.session_token);
}

/* Its keys are others now. Who has them in his environment starts anew. */
static void version_renew(struct version *v)
{
    if (v->snap.state != SNAP_NONE)
        snapshot_keys_renew(v);
    else
        version_replace(v->f);
}

char *node_base_config(const struct version *v, const char *code, struct arena *a)
{
    struct functions *fs = v->f->fs;
    struct val *c = val_map(a), *env = val_map(a);
    _auto_(freep) char *resolv = fs->net ? xasprintf("nameserver %s\n", fs->dns) : NULL;

    val_put_str(a, c, "root", fs->root);
    val_put_str(a, c, "code", code);
    val_push_str(a, val_need_list(a, c, "exec"), v->program);
    val_push_str(a, val_get(c, "exec"), "/var/runtime/index.mjs");
    val_put_str(a, c, "runtime_file", fs->node_runtime);
    val_put_bool(a, c, "fork", true);
    val_put_bool(a, c, "base", true);
    val_put_bool(a, c, "compile", false);
    val_put_int(a, c, "uid", UID_FIRST);
    val_put_int(a, c, "tmp_mb", 1);
    val_put_int(a, c, "timeout_ms", 1000);
    val_put(a, env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", val_printf(a, "%d", v->memory_mb));
    val_put(a, c, "env", env);
    val_put(a, c, "volumes", val_list(a));
    if (resolv)
        val_put_str(a, c, "resolv", resolv);
    return json_text(a, c, NULL);
}

char *version_config(struct version *v, struct arena *a)
{
    struct functions *fs = v->f->fs;
    struct val *c = val_map(a), *env = val_map(a), *volumes = val_list(a);
    _auto_(freep) char *compiled = xasprintf("%s.compiled", v->folder ? v->folder : "");

    val_put_str(a, c, "root", fs->root);
    val_put_str(a, c, "code", v->folder ? v->folder : "");
    v->compile_wanted = !v->program && !v->wasm && access(compiled, F_OK) < 0;
    if (v->wasm) {
        version_wasm_config(v, a, c);
    } else if (v->image) {
        version_image_config(v, a, c, env);
    } else if (v->http_port && val_len(v->http_command)) {
        val_put(a, c, "exec", val_copy(a, v->http_command));
    } else if (v->program) {
        bool node = str_starts(v->runtime, "nodejs");

        val_push_str(a, val_need_list(a, c, "exec"), v->program);
        if (str_starts(v->runtime, "python3.")) {
            val_push_str(a, val_get(c, "exec"), "-S");
            val_push_str(a, val_get(c, "exec"), "/var/runtime/bootstrap.py");
            val_put_bool(a, c, "bootstrap", true);
        }
        if (node) {
            val_push_str(a, val_get(c, "exec"), "/var/runtime/index.mjs");
            val_put_str(a, c, "runtime_file", fs->node_runtime);
            val_put_bool(a, c, "fork", v->places == 1 && fs->node_failures < NODE_FAILURES_MAX);
            if (v->from_node)
                val_put_bool(a, c, "give", true);
        }
    }
    if (v->f->debug)
        debug_config(v, a, c, env);
    val_put_bool(a, c, "compile", v->compile_wanted);
    val_put_int(a, c, "uid", UID_FIRST + v->f->id);
    val_put_int(a, c, "tmp_mb", v->tmp_mb);
    if (v->http_port) {
        _auto_(freep) char *revision = xasprintf("%s-%s", v->f->name, streq(v->shown, "$LATEST") ? "latest" : v->shown);

        val_put_int(a, c, "http_port", v->http_port);
        val_put_bool(a, c, "own_net", !fs->net);
        val_put(a, env, "PORT", val_printf(a, "%d", v->http_port));
        val_put_str(a, env, "K_SERVICE", v->f->name);
        val_put_str(a, env, "K_CONFIGURATION", v->f->name);
        val_put_str(a, env, "K_REVISION", revision);
    }
    val_put_str(a, c, "handler", v->handler);
    val_put_str(a, c, "version", v->shown);
    val_put_int(a, c, "timeout_ms", v->timeout_ms);
    if (v->snap.state != SNAP_NONE) {
        snapshot_env(v, a, env);
        val_put_bool(a, c, "snapshot", true);
        val_put_bool(a, c, "own_net", !fs->net);
    } else {
        add_keys(v, a, env);
    }
    for (char **e = v->env; e && *e; e += 2) /* the function's own come last and count */
        val_put_str(a, env, e[0], e[1]);
    if (v->f->provisioned)
        val_put_str(a, env, "AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency");
    val_put(a, c, "env", env);
    for (uint32_t i = 0; i < v->mounts_n; i++) {
        struct val *m = val_map(a);
        _auto_(freep) char *source = volume_folder(fs, v->mounts[i].volume);

        val_put_str(a, m, "source", source);
        val_put_str(a, m, "target", v->mounts[i].target);
        val_put_bool(a, m, "readOnly", v->mounts[i].read_only);
        val_push(a, volumes, m);
    }
    val_put(a, c, "volumes", volumes);
    for (uint32_t i = 0; i < v->layers_n; i++)
        val_push_str(a, val_need_list(a, c, "layers"), v->layer_folders[i]);
    if (fs->net) {
        _auto_(freep) char *resolv = xasprintf("nameserver %s\n", fs->dns);

        val_put_str(a, c, "resolv", resolv);
    }
    return json_text(a, c, NULL);
}

const char *functions_node_ip(const struct functions *fs)
{
    return fs->node_ip;
}

void functions_set_key(struct functions *fs, const char *access_key, const char *secret_key)
{
    if (streq0(fs->access_key, access_key) && streq0(fs->secret_key, secret_key))
        return;
    free(fs->access_key);
    free(fs->secret_key);
    fs->access_key = access_key ? xstrdup(access_key) : NULL;
    fs->secret_key = secret_key ? xstrdup(secret_key) : NULL;
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        if (f->now && f->now->zygote != ZYGOTE_NONE) /* it runs with the old ones, or none */
            version_renew(f->now);
    }
}

void functions_set_keys_of(struct functions *fs, function_keys_fn *keys_of, void *arg)
{
    fs->keys_of = keys_of;
    fs->keys_arg = arg;
}

void functions_role_changed(struct functions *fs, const char *role)
{
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);
        bool runs = !f->removed && f->obj && f->now && f->now->zygote != ZYGOTE_NONE;

        if (!fs->stopping && runs && (role ? streq(val_str_at(spec_of(f->obj), "role", ""), role) : f->now->keyless))
            version_renew(f->now);
    }
}

enum { RENEW_LOOK_US = 60 * 1000000 };

void functions_renew_keys(struct functions *fs)
{
    int64_t now = now_us();

    if (fs->stopping || now - fs->renew_look_us < RENEW_LOOK_US)
        return;
    fs->renew_look_us = now;
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        if (!f->removed && f->obj && f->now && f->now->zygote != ZYGOTE_NONE && f->now->renew_us && now > f->now->renew_us)
            version_renew(f->now);
    }
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

void version_let_go(struct version *v)
{
    struct function *f = v->f;
    struct err err;

    if (!v->removed || v->image_job || v->instances_n || v->zygote == ZYGOTE_STARTING || v->zygote == ZYGOTE_READY ||
        v->ctl_closing)
        return;
    version_sample(v);
    if (f->fs->has_cgroups && cgroup_remove(&f->fs->cgroups, v->cgroup, &err) < 0)
        LOG(DEBUG, "function", "did=cgroup-remove what=%s error=\"%s\"", v->cgroup, err.msg);
    version_free(v);
    function_let_go(f);
}

/* No request will go to it any more: the idle ones end now, the busy ones when they are done. */
static void version_retire(struct version *v)
{
    v->removed = true;
    version_image_cancel(v);
    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        if (i->maker || (i->state != INSTANCE_BUSY && !i->leases_n))
            instance_stop(i, serve_grace_ms(i));
    }
    if (!v->instances_n)
        zygote_stop(v);
    version_let_go(v);
}

static bool same_part(const struct val *a, const struct val *b, const char *name)
{
    const struct val *x = val_get(a, name), *y = val_get(b, name);

    return (val_is_null(x) && val_is_null(y)) || (x && y && val_equal(x, y));
}

/* What is to run, of a Function or a FunctionVersion. */
static const struct val *spec_of(const struct obj *o)
{
    const struct val *spec = val_get(obj_val(o), "spec"), *template = val_get(spec, "template");

    return val_is_null(template) ? spec : template;
}

/* Does a change of the object change what its instances are? */
static bool same_version(const struct obj *a, const struct obj *b)
{
    static const char *const names[] = {"runtime", "handler", "codeSha256", "memoryMB", "timeoutSeconds",
                                        "environment", "ephemeralStorageMB", "fileSystems", "layers", "role", "packageType",
                                        "image", "imageDigest", "imageConfig", "loggingConfig", "http", "snapStart", "concurrency"};
    const struct val *x = spec_of(a), *y = spec_of(b);

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!same_part(x, y, names[i]))
            return false;
    return true;
}

static bool may_start_ahead(struct functions *fs)
{
    int n = 0;

    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    n += list_entry(k, struct version, link)->zygote != ZYGOTE_NONE;
    return n < START_AHEAD_MAX;
}

/* What is to run from now on, by f->obj. */
static void version_replace(struct function *f)
{
    struct version *v = version_new(f, spec_of(f->obj));
    struct version *old = f->now;

    f->now = v;
    if (old)
        version_retire(old);
    f->m->memory_mb = (uint32_t)v->memory_mb;
    LOG(INFO, "function", "function=%s did=version runtime=%s memory_mb=%d code=%.12s", f->key, v->runtime, v->memory_mb,
        v->sha256);
    /* ready before the first call; it leaves again when none comes */
    if (v->broken.code == ERR_OK && v->snap.state != SNAP_FAILED && (f->waiting_n || (snapshot_awaited(v) && !v->snap.good) || (!f->fs->short_us && may_start_ahead(f->fs))))
        zygote_start(v);
    pool_feed(f);
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
    const struct val *spec = spec_of(o);
    const char *tracing = val_str_at(spec, "tracingMode", "");
    bool same;

    if (fs->stopping || is_gone(fs, o->uid))
        return;
    if (f && f->obj && streq0(f->obj->uid, o->uid) && o->revision < f->obj->revision)
        return;
    if (!f)
        f = function_new(fs, o, name, shown, key);
    same = f->obj && f->now && same_version(f->obj, o);
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
    f->family->reserved = val_int_at(spec_of(f->obj), "reservedConcurrency", -1);
    if (f->family->debug)
        function_put_debug(f);
    spending_limit(fs, f->family->key, val_num_at(spec_of(f->obj), "spendingLimit", -1));
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

/* ---- network namespaces: the second half of the pod addresses, from a pool ---- */

int functions_net_take(struct functions *fs, const char *owner, struct err *err)
{
    const struct net_ns *ns = net_take(fs->net, owner, err);

    return ns ? ns->fd : -1;
}

void functions_net_give(struct functions *fs, const char *owner)
{
    net_give_back(fs->net, owner, true); /* nobody in there has the right to change it */
}

static void open_network(struct functions *fs, const struct functions_options *o)
{
    struct net_options n = {.instance = fs->instance, .pod_cidr = o->pod_cidr, .pool = 'f', .idle_min = 8, .idle_max = 64,
                            .service_cidr = o->service_cidr ? o->service_cidr : "10.96.0.0/16", .loop = fs->loop};
    _auto_(freep) char *state = xasprintf("%s/run/net.json", fs->state);
    struct err err;

    n.state_path = state;
    if (!o->pod_cidr)
        return;
    fs->net = net_open(&n, &err);
    if (!fs->net) {
        LOG(WARN, "function", "did=run-without-network error=\"%s\"", err.msg);
        return;
    }
    net_sweep(fs->net); /* instances of an earlier life are dead */
    fs->dns = xstrdup(net_host_ip(fs->net));
    if (!o->node_ip) {
        free(fs->node_ip);
        fs->node_ip = xstrdup(net_host_ip(fs->net));
    }
}

/* ---- all of it ---- */

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
    fs->stems = o->stems < 0 ? 0 : o->stems ? o->stems : 1;
    fs->retry_ms[0] = o->retry_ms[0] ? o->retry_ms[0] : 60000;
    fs->retry_ms[1] = o->retry_ms[1] ? o->retry_ms[1] : 120000;
}

static void functions_free(struct functions *fs)
{
    void (*stopped)(void *) = fs->stopped;
    void *arg = fs->stopped_arg;

    if (fs->net)
        net_close(fs->net);
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
    list_init(&fs->flooding);
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
    open_network(fs, o);
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
    fs->tick.data = fs->refill.data = fs->flood.data = fs->give.data = fs;
    fs->handles = 4;
    collector_start(fs);
    pool_wake(fs);
    if (!o->events_wait)
        queue_start(fs->queue, 1000);
    return fs;
}

void functions_settled(struct functions *fs)
{
    if (!fs->stopping)
        queue_start(fs->queue, 0);
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
            struct version *v = list_entry(k, struct version, link);

            LIST_EACH(&v->instances, j)
            instance_kill(list_entry(j, struct instance, link));
        }
        if (!f->removed)
            function_remove(f);
    }
    fs->handles--;
    uv_close((uv_handle_t *)&fs->tick, on_timer_closed);
    uv_close((uv_handle_t *)&fs->refill, on_timer_closed);
    uv_close((uv_handle_t *)&fs->flood, on_timer_closed);
    uv_close((uv_handle_t *)&fs->give, on_timer_closed);
    collector_stop(fs);
}
