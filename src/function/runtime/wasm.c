/* wasm.c of zygote.so - a function that is a WebAssembly module: compiled once, then a fresh instance of it per call.
 *
 * A command of WASI preview 1: the payload on its standard input, its standard output is the answer, its standard error the
 * log, its end the end of the call. wasmtime's library does the work (wasmtime_abi.h); three kinds of callers:
 *   the zygote, as root: maps the library, no more. Nothing of wasmtime runs in it, it never looks into a module.
 *   the compiler, a child of it in an empty root, without rights: bytes in, machine code or a text out by a pipe.
 *   an instance, in its sandbox: maps the machine code and serves calls, one after the other, each in a store of its own.
 *
 * An instance of the module costs some microseconds: its memory is one slot of a pool that is made clean again by the
 * kernel's own copy of the first pages (copy on write), and its imports were resolved once. A loop without end is told
 * by the epoch, which a timer's signal counts up; the call fails then and the process goes on. */
#include "function/runtime/wasmtime_abi.h"
#include "base/buf.h"
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"
#include "sandbox/seccomp.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    ANSWER_MAX = 6 * 1024 * 1024 + 100, /* Lambda's own figure */
    COMPILE_CPU_S = 60,
    COMPILE_DATA_GB = 3,
    MODULE_MAX = 250 * 1024 * 1024, /* all that a zip may unpack to */
    CODE_MAX = 1 << 30,
    TABLE_ELEMENTS = 1 << 20,
    INSTANCE_BYTES = 16 << 20, /* what wasmtime keeps beside memories and tables; address space only */
    RESIDENT_BYTES = 64 << 10, /* of a memory, cleaned by writing instead of unmapping */
    OWN_MB = 8,                /* of the function's memory, for this process */
    FRAMES_TOLD = 32,
    ENV_MAX = 512,
    BUFFER_KEPT = 1 << 20,
};

static struct wasm_abi abi;

/* ---- the library ---- */

EXPORT int z_wasm_load(const char *library);
/* 0, or -ENOENT: it cannot be loaded, -ENOSYS: it is another version and lacks something; told on standard error. */
EXPORT int z_wasm_load(const char *library)
{
    void *lib;

    setenv("TOKIO_WORKER_THREADS", "1", 1); /* in the library: who waits in a call of WASI's waits in our thread */
    setenv("RAYON_NUM_THREADS", "4", 1);    /* the same: the compiler's helpers */
    lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        dprintf(2, "wasm: %s\n", dlerror());
        return -ENOENT;
    }
#define X(result, name, args)                                      \
    *(void **)&abi.name = dlsym(lib, #name);                       \
    if (!abi.name) {                                               \
        dprintf(2, "wasm: %s has no function " #name "\n", library); \
        return -ENOSYS;                                            \
    }
    WASM_ABI(X)
#undef X
    return 0;
}

/* The same for the compiler and for instances: a module that does not fit is refused when it is compiled. */
static void *make_engine(void)
{
    void *config = abi.wasm_config_new(), *pool = abi.wasmtime_pooling_allocation_config_new();

    abi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, 1);
    abi.wasmtime_pooling_allocation_config_total_component_instances_set(pool, 1);
    abi.wasmtime_pooling_allocation_config_total_memories_set(pool, 1);
    abi.wasmtime_pooling_allocation_config_total_tables_set(pool, 4);
    abi.wasmtime_pooling_allocation_config_total_stacks_set(pool, 1);
    abi.wasmtime_pooling_allocation_config_total_gc_heaps_set(pool, 1);
    abi.wasmtime_pooling_allocation_config_table_elements_set(pool, TABLE_ELEMENTS);
    abi.wasmtime_pooling_allocation_config_max_core_instance_size_set(pool, INSTANCE_BYTES);
    abi.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, RESIDENT_BYTES);
    abi.wasmtime_pooling_allocation_strategy_set(config, pool);
    abi.wasmtime_pooling_allocation_config_delete(pool);
    abi.wasmtime_config_epoch_interruption_set(config, true);
    return abi.wasm_engine_new_with_config(config);
}

/* The causes of an error, in one line: its text is the outermost and below it "Caused by:" and one a line, the innermost
 * last. The place in the module is left out. Frees the error. */
static void error_text(void *error, struct buf *ret)
{
    struct wasm_bytes m = {0};
    size_t at = 0;

    abi.wasmtime_error_message(error, &m);
    while (at < m.n) {
        size_t end = at, from;

        while (end < m.n && m.p[end] != '\n' && m.p[end])
            end++;
        for (from = at; from < end && (m.p[from] == ' ' || (m.p[from] >= '0' && m.p[from] <= '9') || m.p[from] == ':'); from++)
            ;
        if (end > from && !(end - from == 10 && memcmp(m.p + from, "Caused by:", 10) == 0)) {
            if (ret->n)
                buf_adds(ret, ": ");
            buf_add(ret, m.p + from, end - from);
        }
        at = end + 1;
    }
    if (!ret->n)
        buf_adds(ret, "unknown error");
    abi.wasm_byte_vec_delete(&m);
    abi.wasmtime_error_delete(error);
}

static bool name_is(const struct wasm_bytes *name, const char *want)
{
    return name->n == strlen(want) && memcmp(name->p, want, name->n) == 0;
}

/* ---- the compiler ---- */

/* "": good. */
static void check_exports(const void *module, struct buf *text)
{
    struct wasm_list list;
    bool found = false;

    abi.wasmtime_module_exports(module, &list);
    for (size_t i = 0; i < list.n; i++) {
        const void *type = abi.wasm_exporttype_type(list.p[i]), *f;

        if (!name_is(abi.wasm_exporttype_name(list.p[i]), "_start") || abi.wasm_externtype_kind(type) != WASM_EXTERN_FUNC)
            continue;
        f = abi.wasm_externtype_as_functype_const(type);
        found = f && abi.wasm_functype_params(f)->n == 0 && abi.wasm_functype_results(f)->n == 0;
    }
    if (!found)
        buf_adds(text, "it exports no function _start without parameters: it is no command (a library or a reactor is none)");
    abi.wasm_exporttype_vec_delete(&list);
}

static bool write_all(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n) {
        ssize_t w = write(fd, at, n);

        if (w < 0 && errno != EINTR)
            return false;
        if (w > 0) {
            at += w;
            n -= (size_t)w;
        }
    }
    return true;
}

_Noreturn static void refuse(int out, const char *text, size_t n)
{
    write_all(out, "E", 1);
    write_all(out, text, MIN(n, (size_t)1000));
    _exit(0);
}

/* A module in the text form, which is what a file that begins so must be; else the bytes as they are. Or a text why not. */
static const unsigned char *from_text(const unsigned char *p, size_t *n, struct buf *text)
{
    struct wasm_bytes wasm;
    size_t at = 0;
    void *error;

    while (at < *n && strchr(" \t\r\n", p[at]) && p[at])
        at++;
    if (at == *n || (p[at] != '(' && p[at] != ';'))
        return p;
    error = abi.wasmtime_wat2wasm((const char *)p, *n, &wasm);
    if (error) {
        error_text(error, text);
        return p;
    }
    *n = wasm.n;
    return (const unsigned char *)wasm.p;
}

/* In the compiler. Says "C" and the machine code, or "E" and why not. */
_Noreturn static void compile(int in, int out)
{
    void *engine, *linker, *module, *pre, *error;
    struct wasm_bytes code;
    struct buf text = {0};
    struct stat st;
    const unsigned char *wasm;
    size_t n;

    if (fstat(in, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MODULE_MAX)
        refuse(out, "it is no file, or too big", 25);
    n = (size_t)st.st_size;
    wasm = n ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, in, 0) : NULL;
    if (n && wasm != MAP_FAILED)
        wasm = from_text(wasm, &n, &text);
    if (text.n)
        refuse(out, text.p, text.n);
    if (n < 8 || wasm == MAP_FAILED || memcmp(wasm, "\0asm", 4) != 0)
        refuse(out, "it is no WebAssembly module (they begin with \\0asm)", 51);
    if (wasm[4] != 1 || wasm[6] == 1) {
        static const char COMPONENT[] = "it is a component; supported are core modules that are WASI preview 1 commands "
                                        "(target wasm32-wasip1)";
        refuse(out, COMPONENT, sizeof COMPONENT - 1);
    }
    engine = make_engine();
    error = abi.wasmtime_module_new(engine, wasm, n, &module);
    linker = abi.wasmtime_linker_new(engine);
    if (!error)
        check_exports(module, &text);
    if (!error && !text.n && !(error = abi.wasmtime_linker_define_wasi(linker)))
        error = abi.wasmtime_linker_instantiate_pre(linker, module, &pre);
    if (!error && !text.n)
        error = abi.wasmtime_module_serialize(module, &code);
    if (error)
        error_text(error, &text);
    if (text.n)
        refuse(out, text.p, text.n);
    _exit(write_all(out, "C", 1) && write_all(out, code.p, code.n) ? 0 : 1);
}

/* Nothing to see, nothing to gain, an end in time: the compiler reads what an attacker may have written. */
_Noreturn static void begin_compile(int in, int out, uint32_t uid, const char *empty)
{
    static const struct {
        int what;
        rlim_t n;
    } limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_CPU, COMPILE_CPU_S}, {RLIMIT_DATA, (rlim_t)COMPILE_DATA_GB << 30},
                  {RLIMIT_FSIZE, 0}, {RLIMIT_NOFILE, 64}};
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    static struct seccomp_filter filter;
    struct err err;

    for (size_t i = 0; i < ARRAY_LEN(limits); i++)
        if (setrlimit((__rlimit_resource_t)limits[i].what, &(struct rlimit){limits[i].n, limits[i].n}) < 0)
            _exit(125);
    if (dup2(in, 3) < 0 || dup2(out, 4) < 0 || syscall(SYS_close_range, 5, ~0u, 0) < 0)
        _exit(125);
    if (chroot(empty) < 0 || chdir("/") < 0 || setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 ||
        syscall(SYS_capset, &h, d) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(125);
    seccomp_default(&filter, 0);
    if (seccomp_load(&filter, &err) < 0)
        _exit(125);
    compile(3, 4);
}

/* What the compiler says, into a file that appears whole or not at all; true: it is there. */
static bool keep(int from, const char *path, const char *error_path, struct buf *ret_text)
{
    char part[1100], piece[65536], kind = 0;
    size_t total = 0;
    bool good = true;
    ssize_t n;
    int fd = -1;

    snprintf(part, sizeof part, "%s.%d", path, getpid());
    while ((n = read(from, piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR)) {
        const char *p = piece;

        if (n > 0 && !kind) {
            kind = *p++;
            n--;
            fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        }
        total += n > 0 ? (size_t)n : 0;
        if (kind != 'C' && n > 0)
            buf_add(ret_text, p, (size_t)n);
        good = good && fd >= 0 && total <= CODE_MAX && (n <= 0 || write_all(fd, p, (size_t)n));
    }
    if (fd >= 0)
        close(fd);
    good = good && fd >= 0 && (kind == 'C' || kind == 'E') && rename(part, kind == 'C' ? path : error_path) == 0;
    if (!good)
        unlink(part);
    return good && kind == 'C';
}

/* -EINVAL, the reason kept. */
static int no(const char *error_path, const char *text)
{
    char part[1100];
    int fd;

    snprintf(part, sizeof part, "%s.%d", error_path, getpid());
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || !write_all(fd, text, strlen(text)) || rename(part, error_path) < 0)
        unlink(part);
    if (fd >= 0)
        close(fd);
    return -EINVAL;
}

EXPORT int z_wasm_compile(const char *code, const char *file, const char *path, const char *error_path, unsigned uid, const char *empty);
/* In the zygote, before anything but the library: the module `file` of the folder `code` becomes machine code at `path`, or,
 * when it is refused, a text at `error_path`. empty: a folder with nothing in it. 0; -EINVAL: refused; else -errno. */
EXPORT int z_wasm_compile(const char *code, const char *file, const char *path, const char *error_path, unsigned uid, const char *empty)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    _auto_(closep) int dir = open(code, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _auto_(closep) int in = (int)syscall(SYS_openat2, dir, file, &how, sizeof how);
    struct buf text = {.max = 4096};
    int ends[2], status = -1;
    sigset_t set, old;
    bool good;
    pid_t pid;

    if (in < 0)
        return no(error_path, "there is no such file in the code");
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &old);
    pid = fork();
    if (pid == 0)
        begin_compile(in, ends[1], uid, empty);
    close(ends[1]);
    good = pid > 0 && keep(ends[0], path, error_path, &text);
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    sigprocmask(SIG_SETMASK, &old, NULL);
    if (text.n)
        dprintf(2, "wasm: %s: %s\n", file, text.p);
    buf_done(&text);
    if (good && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (good)
        unlink(path); /* it was cut */
    if (pid > 0 && (WIFSIGNALED(status) || WEXITSTATUS(status) != 125) && status != 0)
        return no(error_path, "compiling it took more than 60 s or 3 GB");
    return status == 0 ? -EINVAL : -EAGAIN;
}

/* ---- an instance ---- */

static struct {
    void *engine, *pre;
    const char *file;
    const char *const *env;  /* NAME, value, ..., NULL */
    const char *const *dirs; /* path, "r" or "w", ..., NULL; given to modules that open files */
    bool opens_files;
    int64_t memory_bytes;
    uint64_t timeout_ms;
    struct buf in, out;
    bool too_large;
    volatile sig_atomic_t late;
} w;

static void on_alarm(int sig)
{
    (void)sig;
    w.late = 1;
    abi.wasmtime_engine_increment_epoch(w.engine); /* may be called by a signal's handler */
}

static ptrdiff_t on_stdout(void *arg, const unsigned char *p, size_t n)
{
    (void)arg;
    if (w.out.n + n > ANSWER_MAX) {
        w.too_large = true;
        abi.wasmtime_engine_increment_epoch(w.engine); /* it need not go on */
        return -EFBIG;
    }
    buf_add(&w.out, p, n);
    return (ptrdiff_t)n;
}

static ptrdiff_t on_stderr(void *arg, const unsigned char *p, size_t n)
{
    (void)arg;
    return write_all(2, p, n) ? (ptrdiff_t)n : -EIO;
}

static bool imports(const void *module, const char *name)
{
    struct wasm_list list;
    bool found = false;

    abi.wasmtime_module_imports(module, &list);
    for (size_t i = 0; i < list.n; i++)
        found |= name_is(abi.wasm_importtype_name(list.p[i]), name);
    abi.wasm_importtype_vec_delete(&list);
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
    return abi.wasi_config_set_env(wasi, n, names, values);
}

/* A store with a WASI of its own. more: NAME, value, ..., NULL. */
static void *make_store(const char *payload, size_t n, const char *const *more, void **ret_error)
{
    void *store = abi.wasmtime_store_new(w.engine, NULL, NULL), *context = abi.wasmtime_store_context(store);
    void *wasi = abi.wasi_config_new();
    struct wasm_bytes in;

    abi.wasmtime_store_limiter(store, w.memory_bytes, TABLE_ELEMENTS, -1, -1, -1);
    abi.wasmtime_context_set_epoch_deadline(context, 1);
    abi.wasi_config_set_argv(wasi, 1, &w.file);
    fill_env(wasi, more);
    abi.wasm_byte_vec_new(&in, n, payload);
    abi.wasi_config_set_stdin_bytes(wasi, &in);
    abi.wasi_config_set_stdout_custom(wasi, on_stdout, NULL, NULL);
    abi.wasi_config_set_stderr_custom(wasi, on_stderr, NULL, NULL);
    for (const char *const *d = w.dirs; w.opens_files && *d; d += 2)
        abi.wasi_config_preopen_dir(wasi, d[0], d[0], d[1][0] == 'w');
    *ret_error = abi.wasmtime_context_set_wasi(context, wasi);
    return store;
}

/* The clock that ends a call; 0: none any more. */
static void set_alarm(uint64_t ms)
{
    struct itimerval t = {.it_value = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)}};

    setitimer(ITIMER_REAL, &t, NULL);
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
        abi.wasmtime_error_delete(error);
    abi.wasmtime_store_delete(store);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* True, or a text. */
static bool load(const char *path, struct buf *text)
{
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    void *linker, *module = NULL, *error;

    sigaction(SIGALRM, &act, NULL);
    w.engine = make_engine();
    error = abi.wasmtime_module_deserialize_file(w.engine, path, &module);
    linker = abi.wasmtime_linker_new(w.engine);
    if (!error)
        error = abi.wasmtime_linker_define_wasi(linker);
    if (!error)
        error = abi.wasmtime_linker_instantiate_pre(linker, module, &w.pre);
    if (error) {
        error_text(error, text);
        return false;
    }
    w.opens_files = imports(module, "path_open") || imports(module, "path_filestat_get");
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
        const struct wasm_bytes *name = abi.wasmtime_frame_func_name(frames->p[i]);
        char number[32];
        int n = snprintf(number, sizeof number, "<function %u>", abi.wasm_frame_func_index(frames->p[i]));

        if (i)
            buf_addc(b, ',');
        add_json(b, name ? name->p : number, name ? name->n : (size_t)n);
    }
    buf_addc(b, ']');
}

/* The error as body of the answer, and in the log as the function's format wants it. */
static void add_failure(struct buf *body, const char *type, const struct buf *text, const char *id, const struct wasm_list *frames)
{
    struct buf trace = {0}, line = {0};

    add_frames(&trace, frames);
    buf_adds(body, "{\"errorMessage\":");
    add_json(body, text->p, text->n);
    buf_printf(body, ",\"errorType\":\"%s\",\"requestId\":\"%s\",\"stackTrace\":%s}", type, id, trace.p);
    if (streq(env_value("AWS_LAMBDA_LOG_FORMAT"), "JSON")) {
        char when[32];
        time_t now = time(NULL);
        struct tm tm;

        gmtime_r(&now, &tm);
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
        buf_printf(&line, "{\"timestamp\":\"%s\",\"level\":\"ERROR\",\"errorType\":\"%s\",\"errorMessage\":", when, type);
        add_json(&line, text->p, text->n);
        buf_printf(&line, ",\"requestId\":\"%s\",\"stackTrace\":%s}\n", id, trace.p);
    } else {
        buf_printf(&line, "[ERROR] %s: %s\n", type, text->p);
    }
    write_all(2, line.p, line.n);
    buf_done(&line);
    buf_done(&trace);
}

/* "wasm trap: ..." of what the library says, which has the stack in front of it. */
static void trap_text(const void *trap, struct buf *ret)
{
    struct wasm_bytes m = {0};
    const char *at, *from = "wasm trap";

    abi.wasm_trap_message(trap, &m);
    at = m.n ? memmem(m.p, m.n, from, strlen(from)) : NULL;
    if (!at)
        at = m.p;
    for (size_t left = m.n - (size_t)(at - m.p); left && *at && *at != '\n'; left--, at++)
        buf_addc(ret, *at);
    abi.wasm_byte_vec_delete(&m);
}

/* How much memory it has, in bytes; 0: it shows none. */
static int64_t memory_of(void *context, const struct wasm_instance *i)
{
    struct wasm_extern e;

    if (!abi.wasmtime_instance_export_get(context, i, "memory", 6, &e) || e.kind != WASM_EXTERN_MEMORY)
        return 0;
    return (int64_t)abi.wasmtime_memory_data_size(context, &e.of);
}

/* ---- a call ---- */

/* How a call ended: one of these says it. */
struct end {
    void *error, *trap; /* NULL: it did not */
    int64_t memory;     /* the module's, at the end */
};

static uint8_t judge(struct end *e, const char *id, struct buf *body)
{
    struct wasm_list frames = {0};
    struct buf text = {.max = 4096}, why = {.max = 2048};
    const char *type = "Runtime.ExitError";
    uint8_t code = 255;
    int status = 0;
    bool exits = e->error && abi.wasmtime_error_exit_status(e->error, &status);

    buf_printf(&text, "RequestId: %s Error: ", id);
    if (e->trap) {
        abi.wasmtime_trap_code(e->trap, &code);
        abi.wasm_trap_trace(e->trap, &frames);
        trap_text(e->trap, &why);
        type = "Runtime.Trap";
        /* allocators that were refused more memory give up by this instruction; the limit's refusal itself is not told */
        if (code == WASM_TRAP_UNREACHABLE && e->memory > w.memory_bytes / 2)
            type = "Runtime.OutOfMemory";
        buf_printf(&text, "%s (memory: %lld of %lld MB)", why.p, (long long)(e->memory >> 20), (long long)(w.memory_bytes >> 20));
    } else if (exits) {
        buf_printf(&text, "Runtime exited with error: exit status %d", status);
    } else if (e->error) {
        error_text(STEAL(e->error), &why);
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
        abi.wasm_frame_vec_delete(&frames);
    buf_done(&why);
    buf_done(&text);
    return code;
}

/* Runs it in a store of its own; the answer is in w.out, or what went wrong in fail. */
static uint8_t run(const char *id, const char *payload, size_t n, const char *const *more, struct buf *fail)
{
    static const char TOO_LARGE[] = "{\"errorMessage\":\"Response payload size exceeded maximum allowed payload size (6291556 bytes).\","
                                    "\"errorType\":\"Function.ResponseSizeTooLarge\"}";
    struct wasm_instance i;
    struct wasm_extern start;
    struct end e = {0};
    uint8_t result = RESULT_OK;
    void *store, *context;

    w.late = 0;
    w.too_large = false;
    buf_reset(&w.out);
    store = make_store(payload, n, more, &e.error);
    context = abi.wasmtime_store_context(store);
    set_alarm(w.timeout_ms);
    if (!e.error)
        e.error = abi.wasmtime_instance_pre_instantiate(w.pre, context, &i, &e.trap);
    if (!e.error && !e.trap) {
        if (abi.wasmtime_instance_export_get(context, &i, "_start", 6, &start)) /* it was there when it was compiled */
            e.error = abi.wasmtime_func_call(context, &start.of, NULL, 0, NULL, 0, &e.trap);
        e.memory = e.error || e.trap ? memory_of(context, &i) : 0;
    }
    set_alarm(0);
    if (w.too_large) {
        result = RESULT_ERROR;
        buf_add(fail, TOO_LARGE, sizeof TOO_LARGE - 1);
    } else if (w.late) {
        result = RESULT_TIMEOUT; /* the gateway has the words for it */
    } else if (e.error || e.trap) {
        result = judge(&e, id, fail);
    }
    if (e.error)
        abi.wasmtime_error_delete(e.error);
    if (e.trap)
        abi.wasm_trap_delete(e.trap);
    abi.wasmtime_store_delete(store);
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
    if ((size_t)n < sizeof *f && !write_all(3, (const char *)f + n, sizeof *f - (size_t)n))
        _exit(0);
    n = MAX(n - (ssize_t)sizeof *f, (ssize_t)0);
    if (!write_all(3, body + n, f->n - (size_t)n))
        _exit(0);
}

static char *text_at(size_t *at, size_t n)
{
    char *p = strndup(w.in.p + *at, n);

    *at += n;
    return p;
}

/* One call: w.in is the frame. */
static void serve_one(uint64_t init_us, uint64_t ready_us)
{
    struct instance_frame f, r = {.type = FRAME_RESULT, .b = init_us, .c = ready_us};
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
    const char *more[] = {"LAMBDA_RUNTIME_AWS_REQUEST_ID", id, "LAMBDA_RUNTIME_DEADLINE_MS", deadline,
                          "LAMBDA_RUNTIME_INVOKED_FUNCTION_ARN", arn, *trace ? "_X_AMZN_TRACE_ID" : NULL, trace, NULL, NULL, NULL};
    if (*client) {
        size_t n = *trace ? 8 : 6;

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
_Noreturn static void init_failed(const struct buf *why, uint64_t id, uint64_t ready_us)
{
    static const struct wasm_list none;
    struct instance_frame r = {.type = FRAME_RESULT, .result = RESULT_INIT_ERROR, .id = id, .b = 1, .c = ready_us};
    struct buf body = {0};

    add_failure(&body, "Runtime.InvalidEntrypoint", why, "", &none);
    r.n = (uint32_t)body.n;
    send_frame(&r, body.p);
    _exit(1);
}

EXPORT void z_serve_wasm(const char *path, const char *file, const char *const *env, const char *const *dirs, int memory_mb, uint64_t timeout_ms, int ahead, uint64_t ready_us);
/* Serves until the gateway goes. path: the machine code; ahead: load it without waiting for a call. */
EXPORT void z_serve_wasm(const char *path, const char *file, const char *const *env, const char *const *dirs, int memory_mb, uint64_t timeout_ms, int ahead, uint64_t ready_us)
{
    struct instance_frame f, told = {.type = FRAME_INITED};
    struct buf why = {0};
    bool loaded = false;

    w.file = file;
    w.env = env;
    w.dirs = dirs;
    w.timeout_ms = timeout_ms;
    w.memory_bytes = (int64_t)MAX(memory_mb - OWN_MB, memory_mb / 2) << 20;
    w.in.max = INSTANCE_FRAME_MAX + sizeof f;
    if (ahead) {
        if (!load(path, &why))
            _exit(124); /* the one who has a call shall see why */
        loaded = true;
        send_frame(&told, "");
    }
    for (;;) {
        uint64_t since, init_us = 0;

        if (w.in.cap > BUFFER_KEPT)
            buf_done(&w.in);
        buf_reset(&w.in);
        read_more(sizeof f);
        memcpy(&f, w.in.p, sizeof f);
        if (f.type != FRAME_INVOKE)
            _exit(0); /* SHUTDOWN */
        read_more(f.n);
        if (!loaded) {
            since = mono_us();
            if (!load(path, &why))
                init_failed(&why, f.id, ready_us);
            loaded = true;
            init_us = MAX(mono_us() - since, (uint64_t)1);
            told.id = f.id;
            send_frame(&told, "");
        }
        serve_one(init_us, ready_us);
    }
}
