/* A version: how an object's code is run. Which interpreter, environment, mounts and limits; what its zygote is told; another one
 * takes its place when the object changes. */
#include "function/function_int.h"

#include "codec/json.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UID_FIRST = 0x30000000, START_AHEAD_MAX = 8 };

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
    v->wasm = streq(v->runtime, "wasm") && !val_len(val_at(spec, "http.command")); /* packageType Image: below */
    v->handler = xstrdup(val_str_at(spec, "handler", v->wasm ? "main.wasm" : "lambda_function.lambda_handler"));
    v->sha256 = xstrdup(val_str_at(spec, "codeSha256", ""));
    v->shown = xstrdup(f->shown);
    v->no_network = streq(val_str_at(spec, "network", "Default"), "None");
    v->memory_mb = (int)MIN(MAX(val_int_at(spec, "memoryMB", 128), (int64_t)32), (int64_t)10240);
    v->timeout_ms = (int)(MIN(MAX(val_num_at(spec, "timeoutSeconds", 3), 0.05), 900.0) * 1000);
    v->tmp_mb = (int)MIN(MAX(val_int_at(spec, "ephemeralStorageMB", 512), (int64_t)1), (int64_t)10240);
    v->ctl_fd = -1;
    list_init(&v->instances);
    list_init(&v->idle);
    list_init(&v->stems);
    gate_init(&v->gate, &f->fs->gates);
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
        if (v->wasm)
            v->places = 1; /* an instance is one thread */
    }
    if (!v->http_port)
        v->places = v->wasm || f->debug ? 1 : (int)MIN(MAX(val_int_at(spec, "concurrency", 1), (int64_t)1), (int64_t)CONCURRENCY_MAX);
    if (v->no_network && !functions_net_open_bare(f->fs))
        err_set(&v->broken, UNAVAILABLE, "no network could be made that is empty");
    v->snap_start = streq(val_str_at(spec, "snapStart", ""), "PublishedVersions") && !streq(f->shown, "$LATEST");
    if (f->debug) {
        v->timeout_ms = DEBUG_MS;
        v->no_node_base = true; /* it is started with its inspector */
        v->limits.memory_bytes += (int64_t)DEBUG_MB << 20;
    }
    make_env(v, val_get(spec, "environment"));
    if (find_runtime(v->image || (v->http_port && !v->wasm) ? "provided" : v->runtime, &kind, &v->interpreter, &v->program, err) == 0)
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
    free(v->snap.said_reason);
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
        val_put_bool(a, c, "own_net", !version_has_net(v));
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
        val_put_bool(a, c, "own_net", !version_has_net(v));
    } else {
        role_put_keys(v, a, env);
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
    if (fs->net && !v->no_network) {
        _auto_(freep) char *resolv = xasprintf("nameserver %s\n", fs->dns);

        val_put_str(a, c, "resolv", resolv);
    }
    return json_text(a, c, NULL);
}

void version_let_go(struct version *v)
{
    struct function *f = v->f;
    struct err err;

    if (!v->removed || v->image_job || v->unpacking || v->instances_n || v->zygote == ZYGOTE_STARTING || v->zygote == ZYGOTE_READY ||
        v->ctl_closing)
        return;
    version_sample(v);
    if (f->fs->has_cgroups && cgroup_remove(&f->fs->cgroups, v->cgroup, &err) < 0)
        LOG(DEBUG, "function", "did=cgroup-remove what=%s error=\"%s\"", v->cgroup, err.msg);
    version_free(v);
    function_let_go(f);
}

void version_retire(struct version *v)
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

const struct val *version_spec(const struct obj *o)
{
    const struct val *spec = val_get(obj_val(o), "spec"), *template = val_get(spec, "template");

    return val_is_null(template) ? spec : template;
}

bool version_same(const struct obj *a, const struct obj *b)
{
    static const char *const names[] = {"runtime", "handler", "codeSha256", "memoryMB", "timeoutSeconds",
                                        "environment", "ephemeralStorageMB", "fileSystems", "layers", "role", "packageType",
                                        "image", "imageDigest", "imageConfig", "loggingConfig", "http", "snapStart", "concurrency", "network"};
    const struct val *x = version_spec(a), *y = version_spec(b);

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

void version_replace(struct function *f)
{
    struct version *v = version_new(f, version_spec(f->obj));
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
