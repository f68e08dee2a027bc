/* call.c of zygote.so - an instance of a Wasm function: one process, one call after the other, each in a store of its own.
 *
 * An instance of the module costs some microseconds: its memory is one slot of a pool that is made clean again by the
 * kernel's own copy of the first pages (copy on write), and its imports were resolved once. A loop without end is told
 * by the epoch, which a timer's signal counts up; the call fails then and the process goes on. */
#include "function/runtime/wasm/wasm_so.h"
#include "function/runtime/wasm/web.h"
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    ANSWER_MAX = 6 * 1024 * 1024 + 100, /* Lambda's own figure */
    OWN_MB = 8,                         /* of the function's memory, for this process */
    FRAMES_TOLD = 32,
    ENV_MAX = 512,
    BUFFER_KEPT = 1 << 20,
};

static struct {
    void *engine, *linker; /* made by the zygote */
    void *pre;             /* the module, its imports resolved; a component: NULL */
    bool component, http;
    const struct web *web; /* that a request is on */
    const char *path, *file;
    const char *const *env;  /* NAME, value, ..., NULL */
    const char *const *dirs; /* path, "r" or "w", ..., NULL; given to modules that open files */
    bool opens_files, reads_env;
    int64_t memory_bytes;
    uint64_t timeout_ms;
    struct buf in, out;
    const char *payload; /* of the call; what of it was not read yet */
    size_t payload_n;
    bool too_large;
    volatile sig_atomic_t late;
} w;

/* The clock that ends a call. It is not wound for each call anew, which would be two system calls: it goes off once in a time
 * limit at most and looks whether the call of that moment is due. */
static volatile uint64_t due_us; /* of the call; 0: there is none */
static volatile sig_atomic_t wound;

static void wind(uint64_t us)
{
    struct itimerval t = {.it_value = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)}};

    setitimer(ITIMER_REAL, &t, NULL);
}

static void on_alarm(int sig)
{
    uint64_t due = due_us, now = mono_us();

    (void)sig;
    if (due && now < due) {
        wind(due - now);
        return;
    }
    wound = 0;
    if (!due)
        return;
    w.late = 1;
    wasm_abi.wasmtime_engine_increment_epoch(w.engine); /* may be called by a signal's handler */
}

/* 0: there is no call any more. The limit is the same for all calls, so a clock that is wound goes off early enough. */
static void set_alarm(uint64_t ms)
{
    due_us = ms ? mono_us() + ms * 1000 : 0;
    if (ms && !wound) {
        wound = 1;
        wind(ms * 1000);
    }
}

static ptrdiff_t on_stdout(void *arg, const unsigned char *p, size_t n)
{
    (void)arg;
    if (w.out.n + n > ANSWER_MAX) {
        w.too_large = true;
        wasm_abi.wasmtime_engine_increment_epoch(w.engine); /* it need not go on */
        return -EFBIG;
    }
    buf_add(&w.out, p, n);
    return (ptrdiff_t)n;
}

static ptrdiff_t on_stderr(void *arg, const unsigned char *p, size_t n)
{
    (void)arg;
    return wasm_write_all(2, p, n) ? (ptrdiff_t)n : -EIO;
}

/* ---- standard input and output of a module that opens no files ----
 *
 * The library's own hand each write to a task of another thread, some 15 us. A module that has no other descriptors than
 * these gets them from here. */

enum { WASI_BADF = 8, WASI_FAULT = 21, WASI_INVAL = 28, WASI_IO = 29, VECTORS_MAX = 1024 };

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof n);
    return n;
}

/* The module's memory; NULL: it shows none. */
static uint8_t *memory_at(void *caller, uint64_t *ret_size)
{
    void *context = wasm_abi.wasmtime_caller_context(caller);
    struct wasm_extern e;

    if (!wasm_abi.wasmtime_caller_export_get(caller, "memory", 6, &e) || e.kind != WASM_EXTERN_MEMORY)
        return NULL;
    *ret_size = wasm_abi.wasmtime_memory_data_size(context, &e.of);
    return wasm_abi.wasmtime_memory_data(context, &e.of);
}

/* Moves bytes between a descriptor and a vector of the module's; 0 or WASI's error. */
static int32_t move(int fd, uint8_t *p, size_t n, uint32_t *total)
{
    if (fd == 0) {
        n = MIN(n, w.payload_n);
        memcpy(p, w.payload, n);
        w.payload += n;
        w.payload_n -= n;
    } else if (fd == 1 ? on_stdout(NULL, p, n) < 0 : on_stderr(NULL, p, n) < 0) {
        return WASI_IO;
    }
    *total += (uint32_t)n;
    return 0;
}

/* fd_read (writes NULL) and fd_write: (descriptor, vectors, how many, where the number of bytes goes) -> error. */
static void *on_fd(void *writes, void *caller, union wasm_raw *args, size_t args_n)
{
    uint32_t fd = (uint32_t)args[0].i32, at = (uint32_t)args[1].i32, n = (uint32_t)args[2].i32, ret = (uint32_t)args[3].i32;
    uint64_t size = 0;
    uint8_t *memory = memory_at(caller, &size);
    uint32_t total = 0;
    int32_t error = 0;

    (void)args_n;
    if (writes ? fd != 1 && fd != 2 : fd != 0)
        error = WASI_BADF;
    else if (n > VECTORS_MAX)
        error = WASI_INVAL;
    else if (!memory || (uint64_t)at + (uint64_t)n * 8 > size || (uint64_t)ret + 4 > size)
        error = WASI_FAULT;
    for (uint32_t i = 0; i < n && !error; i++) {
        uint32_t from = u32_at(memory + at + (size_t)i * 8), len = u32_at(memory + at + (size_t)i * 8 + 4);

        error = (uint64_t)from + len > size ? WASI_FAULT : move((int)fd, memory + from, len, &total);
    }
    if (!error)
        memcpy(memory + ret, &total, sizeof total);
    args[0].i32 = error;
    return NULL;
}

/* An error of the library, or NULL. */
static void *define_stdio(void *linker)
{
    static const char MODULE[] = "wasi_snapshot_preview1";
    struct wasm_list params, results;
    void *types[4], *result = wasm_abi.wasm_valtype_new(WASM_TYPE_I32), *type, *error;

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        types[i] = wasm_abi.wasm_valtype_new(WASM_TYPE_I32);
    wasm_abi.wasm_valtype_vec_new(&params, ARRAY_LEN(types), types);
    wasm_abi.wasm_valtype_vec_new(&results, 1, &result);
    type = wasm_abi.wasm_functype_new(&params, &results);
    wasm_abi.wasmtime_linker_allow_shadowing(linker, true);
    error = wasm_abi.wasmtime_linker_define_func_unchecked(linker, MODULE, sizeof MODULE - 1, "fd_read", 7, type, on_fd, NULL, NULL);
    if (!error)
        error = wasm_abi.wasmtime_linker_define_func_unchecked(linker, MODULE, sizeof MODULE - 1, "fd_write", 8, type, on_fd, &w, NULL);
    wasm_abi.wasm_functype_delete(type);
    return error;
}

static bool imports(const void *module, const char *name)
{
    struct wasm_list list;
    bool found = false;

    wasm_abi.wasmtime_module_imports(module, &list);
    for (size_t i = 0; i < list.n; i++)
        found |= wasm_name_is(wasm_abi.wasm_importtype_name(list.p[i]), name);
    wasm_abi.wasm_importtype_vec_delete(&list);
    return found;
}

static bool fill_env(void *wasi, const char *const *more)
{
    const char *names[ENV_MAX], *values[ENV_MAX];
    size_t n = 0;

    for (int part = 0; part < 2; part++)
        for (const char *const *e = part ? more : w.env; *e && n < ENV_MAX; e += 2) {
            names[n] = e[0];
            values[n++] = e[1];
        }
    return wasm_abi.wasi_config_set_env(wasi, n, names, values);
}

void *wasm_store(void)
{
    void *store = wasm_abi.wasmtime_store_new(w.engine, NULL, NULL);

    wasm_abi.wasmtime_store_limiter(store, w.memory_bytes, WASM_TABLE_ELEMENTS, -1, -1, -1);
    wasm_abi.wasmtime_context_set_epoch_deadline(wasm_abi.wasmtime_store_context(store), 1);
    return store;
}

/* A store with a WASI of its own. more: NAME, value, ..., NULL. */
static void *make_store(const char *payload, size_t n, const char *const *more, void **ret_error)
{
    void *store = wasm_store(), *context = wasm_abi.wasmtime_store_context(store);
    void *wasi = wasm_abi.wasi_config_new();
    struct wasm_bytes in;

    wasm_abi.wasi_config_set_argv(wasi, 1, &w.file);
    if (w.reads_env) /* its strings are copied, some microseconds */
        fill_env(wasi, more);
    if (w.opens_files) {
        wasm_abi.wasm_byte_vec_new(&in, n, payload);
        wasm_abi.wasi_config_set_stdin_bytes(wasi, &in);
    }
    w.payload = payload;
    w.payload_n = n;
    wasm_abi.wasi_config_set_stdout_custom(wasi, on_stdout, NULL, NULL);
    wasm_abi.wasi_config_set_stderr_custom(wasi, on_stderr, NULL, NULL);
    for (const char *const *d = w.dirs; w.opens_files && *d; d += 2)
        wasm_abi.wasi_config_preopen_dir(wasi, d[0], d[0], d[1][0] == 'w');
    *ret_error = wasm_abi.wasmtime_context_set_wasi(context, wasi);
    return store;
}

bool wasm_late(void)
{
    return w.late;
}

void wasm_clock_start(const struct web *web)
{
    w.late = 0;
    w.web = web;
    set_alarm(w.timeout_ms);
}

void wasm_clock_stop(void)
{
    set_alarm(0);
    w.web = NULL;
}

void wasm_alive(void)
{
    if (w.web && w.web->answered && !w.late)
        set_alarm(w.timeout_ms);
}

const char *const *wasm_env(void)
{
    return w.env;
}

/* What the first call would find undone: the library's own threads, which must not get our signal. */
static void warm_up(void)
{
    static const char *const none[] = {NULL};
    sigset_t set;
    void *error, *store;

    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    store = make_store("", 0, none, &error);
    if (error)
        wasm_abi.wasmtime_error_delete(error);
    wasm_abi.wasmtime_store_delete(store);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

bool wasm_load(struct buf *text)
{
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    void *module = NULL, *error;

    sigaction(SIGALRM, &act, NULL);
    if (w.component) {
        w.opens_files = w.reads_env = true;
        if (!wasm_component_load(w.engine, w.path, w.http, text))
            return false;
        if (!w.http)
            warm_up();
        return true;
    }
    error = wasm_abi.wasmtime_module_deserialize_file(w.engine, w.path, &module);
    w.opens_files = !error && (imports(module, "path_open") || imports(module, "path_filestat_get"));
    w.reads_env = !error && (imports(module, "environ_get") || imports(module, "environ_sizes_get"));
    if (!error && !w.opens_files)
        error = define_stdio(w.linker);
    if (!error)
        error = wasm_abi.wasmtime_linker_instantiate_pre(w.linker, module, &w.pre);
    if (error) {
        wasm_error_text(error, text);
        return false;
    }
    warm_up();
    return true;
}

/* ---- what went wrong ---- */

static void add_json(struct buf *b, const char *p, size_t n)
{
    buf_addc(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (c == '"' || c == '\\')
            buf_addc(b, '\\');
        if (c < 0x20)
            buf_printf(b, "\\u%04x", c);
        else
            buf_addc(b, (char)c);
    }
    buf_addc(b, '"');
}

static const char *env_value(const char *name)
{
    for (const char *const *e = w.env; *e; e += 2)
        if (streq(*e, name))
            return e[1];
    return "";
}

/* The functions on the module's stack, innermost first, as a JSON list. */
static void add_frames(struct buf *b, const struct wasm_list *frames)
{
    buf_addc(b, '[');
    for (size_t i = 0; i < frames->n && i < FRAMES_TOLD; i++) {
        const struct wasm_bytes *name = wasm_abi.wasmtime_frame_func_name(frames->p[i]);
        char number[32];
        int n = snprintf(number, sizeof number, "<function %u>", wasm_abi.wasm_frame_func_index(frames->p[i]));

        if (i)
            buf_addc(b, ',');
        add_json(b, name ? name->p : number, name ? name->n : (size_t)n);
    }
    buf_addc(b, ']');
}

/* In the log as the function's format wants it. */
static void log_failure(const char *type, const struct buf *text, const char *id, const char *trace)
{
    struct buf line = {0};

    if (streq(env_value("AWS_LAMBDA_LOG_FORMAT"), "JSON")) {
        char when[32];
        time_t now = time(NULL);
        struct tm tm;

        gmtime_r(&now, &tm);
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
        buf_printf(&line, "{\"timestamp\":\"%s\",\"level\":\"ERROR\",\"errorType\":\"%s\",\"errorMessage\":", when, type);
        add_json(&line, text->n ? text->p : "", text->n);
        buf_printf(&line, ",\"requestId\":\"%s\",\"stackTrace\":%s}\n", id, trace);
    } else {
        buf_printf(&line, "[ERROR] %s: %s\n", type, text->n ? text->p : "");
    }
    wasm_write_all(2, line.p, line.n);
    buf_done(&line);
}

void wasm_log_error(const char *type, const struct buf *text)
{
    log_failure(type, text, "", "[]");
}

/* The error as body of the answer, and in the log. */
static void add_failure(struct buf *body, const char *type, const struct buf *text, const char *id, const struct wasm_list *frames)
{
    struct buf trace = {0};

    add_frames(&trace, frames);
    buf_adds(body, "{\"errorMessage\":");
    add_json(body, text->p, text->n);
    buf_printf(body, ",\"errorType\":\"%s\",\"requestId\":\"%s\",\"stackTrace\":%s}", type, id, trace.p);
    log_failure(type, text, id, trace.p);
    buf_done(&trace);
}

/* "wasm trap: ..." of what the library says, which has the stack in front of it. */
static void trap_text(const void *trap, struct buf *ret)
{
    struct wasm_bytes m = {0};
    const char *at, *from = "wasm trap";

    wasm_abi.wasm_trap_message(trap, &m);
    at = m.n ? memmem(m.p, m.n, from, strlen(from)) : NULL;
    if (!at)
        at = m.p;
    for (size_t left = m.n - (size_t)(at - m.p); left && *at && *at != '\n'; left--, at++)
        buf_addc(ret, *at);
    wasm_abi.wasm_byte_vec_delete(&m);
}

/* How much memory it has, in bytes; 0: it shows none. */
static int64_t memory_of(void *context, const struct wasm_instance *i)
{
    struct wasm_extern e;

    if (!wasm_abi.wasmtime_instance_export_get(context, i, "memory", 6, &e) || e.kind != WASM_EXTERN_MEMORY)
        return 0;
    return (int64_t)wasm_abi.wasmtime_memory_data_size(context, &e.of);
}

/* ---- a call ---- */

/* How a call ended: one of these says it. */
struct end {
    void *error, *trap; /* NULL: it did not */
    bool failed;        /* a component that said so */
    int64_t memory;     /* the module's, at the end */
};

static uint8_t judge(struct end *e, const char *id, struct buf *body)
{
    struct wasm_list frames = {0};
    struct buf text = {.max = 4096}, why = {.max = 2048};
    const char *type = "Runtime.ExitError";
    uint8_t code = 255;
    int status = 0;
    bool exits = e->failed || (e->error && wasm_abi.wasmtime_error_exit_status(e->error, &status));

    status = e->failed ? 1 : status;
    buf_printf(&text, "RequestId: %s Error: ", id);
    if (e->trap) {
        wasm_abi.wasmtime_trap_code(e->trap, &code);
        wasm_abi.wasm_trap_trace(e->trap, &frames);
        trap_text(e->trap, &why);
        type = "Runtime.Trap";
        /* allocators that were refused more memory give up by this instruction; the limit's refusal itself is not told */
        if (code == WASM_TRAP_UNREACHABLE && e->memory > w.memory_bytes / 2)
            type = "Runtime.OutOfMemory";
        buf_printf(&text, "%s (memory: %lld of %lld MB)", why.p, (long long)(e->memory >> 20), (long long)(w.memory_bytes >> 20));
    } else if (exits) {
        buf_printf(&text, "Runtime exited with error: exit status %d", status);
    } else if (e->error) {
        wasm_error_text(STEAL(e->error), &why);
        type = strstr(why.p, "memory") && strstr(why.p, "limit") ? "Runtime.OutOfMemory" : "Runtime.Trap";
        buf_adds(&text, why.p);
    }
    if (e->trap || !exits || status) {
        add_failure(body, type, &text, id, &frames);
        code = RESULT_ERROR;
    } else {
        code = RESULT_OK;
    }
    if (frames.p)
        wasm_abi.wasm_frame_vec_delete(&frames);
    buf_done(&why);
    buf_done(&text);
    return code;
}

/* The module's, in the store of context. */
static void run_module(void *context, struct end *e)
{
    struct wasm_instance i;
    struct wasm_extern start;

    e->error = wasm_abi.wasmtime_instance_pre_instantiate(w.pre, context, &i, &e->trap);
    if (e->error || e->trap)
        return;
    if (wasm_abi.wasmtime_instance_export_get(context, &i, "_start", 6, &start)) /* it was there when it was compiled */
        e->error = wasm_abi.wasmtime_func_call(context, &start.of, NULL, 0, NULL, 0, &e->trap);
    e->memory = e->error || e->trap ? memory_of(context, &i) : 0;
}

/* Runs it in a store of its own; the answer is in w.out, or what went wrong in fail. */
static uint8_t run(const char *id, const char *payload, size_t n, const char *const *more, struct buf *fail)
{
    static const char TOO_LARGE[] = "{\"errorMessage\":\"Response payload size exceeded maximum allowed payload size (6291556 bytes).\","
                                    "\"errorType\":\"Function.ResponseSizeTooLarge\"}";
    struct end e = {0};
    uint8_t result = RESULT_OK;
    void *store, *context;

    w.late = 0;
    w.too_large = false;
    buf_reset(&w.out);
    store = make_store(payload, n, more, &e.error);
    context = wasm_abi.wasmtime_store_context(store);
    set_alarm(w.timeout_ms);
    if (!e.error && w.component)
        e.error = wasm_component_run(context, &e.failed);
    else if (!e.error)
        run_module(context, &e);
    set_alarm(0);
    if (w.too_large) {
        result = RESULT_ERROR;
        buf_add(fail, TOO_LARGE, sizeof TOO_LARGE - 1);
    } else if (w.late) {
        result = RESULT_TIMEOUT; /* the gateway has the words for it */
    } else if (e.error || e.trap || e.failed) {
        result = judge(&e, id, fail);
    }
    if (e.error)
        wasm_abi.wasmtime_error_delete(e.error);
    if (e.trap)
        wasm_abi.wasm_trap_delete(e.trap);
    wasm_abi.wasmtime_store_delete(store);
    return result;
}

/* Reads exactly n bytes more into w.in; the gateway has gone: leaves. */
static void read_more(size_t n)
{
    if (!buf_reserve(&w.in, n))
        _exit(125);
    while (n) {
        ssize_t got = read(3, w.in.p + w.in.n, n);

        if (got == 0 || (got < 0 && errno != EINTR))
            _exit(0);
        if (got > 0) {
            w.in.n += (size_t)got;
            n -= (size_t)got;
        }
    }
}

static void send_frame(const struct instance_frame *f, const char *body)
{
    struct iovec v[2] = {{(void *)f, sizeof *f}, {(void *)body, f->n}};
    ssize_t n = writev(3, v, f->n ? 2 : 1);

    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof *f && !wasm_write_all(3, (const char *)f + n, sizeof *f - (size_t)n))
        _exit(0);
    n = MAX(n - (ssize_t)sizeof *f, (ssize_t)0);
    if (!wasm_write_all(3, body + n, f->n - (size_t)n))
        _exit(0);
}

static char *text_at(size_t *at, size_t n)
{
    char *p = strndup(w.in.p + *at, n);

    *at += n;
    return p;
}

/* One call: w.in is the frame. */
static void serve_one(uint64_t init_us)
{
    struct instance_frame f, r = {.type = FRAME_RESULT, .b = init_us, .c = z_info.entered_us};
    char deadline[24], *id, *trace, *arn, *client;
    size_t at = sizeof f;
    struct buf fail = {0};
    struct timespec t;
    uint64_t since = mono_us();

    memcpy(&f, w.in.p, sizeof f);
    id = text_at(&at, f.request_id_n);
    trace = text_at(&at, f.trace_n);
    arn = text_at(&at, f.arn_n);
    client = text_at(&at, f.client_context_n);
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(deadline, sizeof deadline, "%llu", (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000 + w.timeout_ms);
    const char *more[] = {"AWS_LAMBDA_LOG_STREAM_NAME", z_info.stream, "LAMBDA_RUNTIME_AWS_REQUEST_ID", id, "LAMBDA_RUNTIME_DEADLINE_MS", deadline,
                          "LAMBDA_RUNTIME_INVOKED_FUNCTION_ARN", arn, *trace ? "_X_AMZN_TRACE_ID" : NULL, trace, NULL, NULL, NULL};
    if (*client) {
        size_t n = *trace ? 10 : 8;

        more[n] = "LAMBDA_RUNTIME_CLIENT_CONTEXT";
        more[n + 1] = client;
    }
    r.id = f.id;
    r.result = run(id, w.in.p + at, w.in.n - at, more, &fail);
    r.a = z_max_rss_kb();
    r.d = mono_us() - since;
    r.n = (uint32_t)(r.result == RESULT_OK ? w.out.n : fail.n);
    send_frame(&r, r.result == RESULT_OK ? w.out.p : fail.p);
    buf_done(&fail);
    free(id);
    free(trace);
    free(arn);
    free(client);
    if (w.out.cap > BUFFER_KEPT)
        buf_done(&w.out);
}

/* It was compiled, so this is rare: the first call shall hear why, and this process is of no use. */
_Noreturn static void init_failed(const struct buf *why, uint64_t id)
{
    static const struct wasm_list none;
    struct instance_frame r = {.type = FRAME_RESULT, .result = RESULT_INIT_ERROR, .id = id, .b = 1, .c = z_info.entered_us};
    struct buf body = {0};

    add_failure(&body, "Runtime.InvalidEntrypoint", why, "", &none);
    r.n = (uint32_t)body.n;
    send_frame(&r, body.p);
    _exit(1);
}

/* Serves until the gateway goes; begun by z_next() in an instance. ahead: load the module without waiting for a call. */
_Noreturn static void serve(bool ahead)
{
    struct instance_frame f, told = {.type = FRAME_INITED};
    struct buf why = {0};
    bool loaded = false;

    w.in.max = INSTANCE_FRAME_MAX + sizeof f;
    if (ahead) {
        if (!wasm_load(&why))
            _exit(124); /* the one who has a call shall see why */
        loaded = true;
        send_frame(&told, "");
    }
    for (;;) {
        uint64_t since, init_us = 0;

        if (w.in.cap > BUFFER_KEPT)
            buf_done(&w.in);
        buf_reset(&w.in);
        frame_wait();
        read_more(sizeof f);
        memcpy(&f, w.in.p, sizeof f);
        if (f.type != FRAME_INVOKE)
            _exit(0); /* SHUTDOWN */
        read_more(f.n);
        if (!loaded) {
            since = mono_us();
            if (!wasm_load(&why))
                init_failed(&why, f.id);
            loaded = true;
            init_us = MAX(mono_us() - since, (uint64_t)1);
            told.id = f.id;
            send_frame(&told, "");
        }
        serve_one(init_us);
    }
}

static const char *const *copy(const char *const *list)
{
    size_t n = 0;
    char **out;

    while (list[n])
        n++;
    out = xcalloc(n + 1, sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = xstrdup(list[i]);
    return (const char *const *)out;
}

EXPORT int z_wasm_begin(const char *path, const char *file, const char *const *env, const char *const *dirs, int memory_mb, uint64_t timeout_ms, int kind);
/* In the zygote, once: what its instances have in common. path: the machine code, where they see it. Nothing of the module is
 * read; an engine has no threads, its forks share what it has reserved. kind: what z_wasm_kind() says. 0 or -errno. */
EXPORT int z_wasm_begin(const char *path, const char *file, const char *const *env, const char *const *dirs, int memory_mb, uint64_t timeout_ms, int kind)
{
    struct buf why = {0};
    void *error;

    w.path = xstrdup(path);
    w.file = xstrdup(file);
    w.env = copy(env);
    w.dirs = copy(dirs);
    w.timeout_ms = timeout_ms;
    w.memory_bytes = (int64_t)MAX(memory_mb - OWN_MB, memory_mb / 2) << 20;
    w.component = kind != WASM_CORE;
    w.http = kind == WASM_HTTP;
    w.engine = wasm_engine(w.component);
    z_serve = w.http ? wasm_component_serve : serve;
    if (w.component) /* its linker is by what it imports */
        return 0;
    w.linker = wasm_abi.wasmtime_linker_new(w.engine);
    error = wasm_abi.wasmtime_linker_define_wasi(w.linker);
    if (error) {
        wasm_error_text(error, &why);
        dprintf(2, "wasm: %s\n", why.p);
        return -EINVAL;
    }
    return 0;
}
