/* wasm.c of zygote.so - a function that is a WebAssembly module or component: compiled once, then a fresh instance of it per call.
 *
 * A command (a module of WASI preview 1, a component of WASI 0.2): the payload on its standard input, its standard output is
 * the answer, its standard error the log, its end the end of the call. Or an HTTP component (component.c). wasmtime's
 * library does the work (wasmtime_abi.h); three kinds of callers (call.c and component.c have the third):
 *   the zygote, as root: maps the library and makes an engine and a linker. It never looks into a module.
 *   the compiler, a child of it in an empty root, without rights: bytes in, machine code or a text out by a pipe.
 *   an instance, in its sandbox: maps the machine code and serves calls, one after the other, each in a store of its own. */
#include "function/runtime/wasm/wasm_so.h"
#include "sandbox/seccomp.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    WASMTIME_MAJOR = 50, /* what wasmtime_abi.h was written for and is tested with */
    COMPILE_CPU_S = 60,
    COMPILE_MB = 1024, /* of memory, and at most a quarter of the machine's */
    MODULE_MAX = 250 * 1024 * 1024, /* all that a zip may unpack to */
    CODE_MAX = 1 << 30,
    INSTANCE_BYTES = 16 << 20, /* what wasmtime keeps beside memories and tables; address space only */
    RESIDENT_BYTES = 64 << 10, /* of a memory, cleaned by writing instead of unmapping */
    SNIFF_BYTES = 64 << 10,    /* of a text, to tell what it is */
};
/* How much of what an engine sets aside, as address space. */
static const struct room {
    uint32_t instances, memories, tables;
    size_t elements; /* of a table */
} ROOMS[2] = {{1, 1, 4, WASM_TABLE_ELEMENTS}, {128, 8, 64, WASM_TABLE_ELEMENTS / 8}};

struct wasm_abi wasm_abi;

/* ---- the library ---- */

static int no(const char *error_path, const char *text);

EXPORT int z_wasm_load(const char *library, const char *error_path);
/* 0, or -ENOENT: it cannot be loaded, told on standard error; -EINVAL: it is another version and lacks something, told at error_path. */
EXPORT int z_wasm_load(const char *library, const char *error_path)
{
    char text[200];
    void *lib;

    setenv("TOKIO_WORKER_THREADS", "1", 1); /* in the library: who waits in a call of WASI's waits in our thread */
    setenv("RAYON_NUM_THREADS", "4", 1);    /* the same: the compiler's helpers */
    lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        dprintf(2, "wasm: %s\n", dlerror());
        return -ENOENT;
    }
#define X(result, name, args)                                      \
    *(void **)&wasm_abi.name = dlsym(lib, #name);                       \
    if (!wasm_abi.name) {                                               \
        snprintf(text, sizeof text, "wasmtime's library lacks " #name ": tandem works with version %d of it", WASMTIME_MAJOR); \
        return no(error_path, text);                               \
    }
    WASM_ABI(X)
#undef X
    return 0;
}

void *wasm_engine(bool component)
{
    void *config = wasm_abi.wasm_config_new(), *pool = wasm_abi.wasmtime_pooling_allocation_config_new();
    const struct room *room = &ROOMS[component];

    wasm_abi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, room->instances);
    wasm_abi.wasmtime_pooling_allocation_config_total_component_instances_set(pool, 1);
    wasm_abi.wasmtime_pooling_allocation_config_total_memories_set(pool, room->memories);
    wasm_abi.wasmtime_pooling_allocation_config_total_tables_set(pool, room->tables);
    wasm_abi.wasmtime_pooling_allocation_config_total_stacks_set(pool, 1);
    wasm_abi.wasmtime_pooling_allocation_config_total_gc_heaps_set(pool, 1);
    wasm_abi.wasmtime_pooling_allocation_config_table_elements_set(pool, room->elements);
    wasm_abi.wasmtime_pooling_allocation_config_max_core_instance_size_set(pool, INSTANCE_BYTES);
    wasm_abi.wasmtime_pooling_allocation_config_max_component_instance_size_set(pool, INSTANCE_BYTES);
    wasm_abi.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, RESIDENT_BYTES);
    wasm_abi.wasmtime_pooling_allocation_strategy_set(config, pool);
    wasm_abi.wasmtime_pooling_allocation_config_delete(pool);
    wasm_abi.wasmtime_config_epoch_interruption_set(config, true);
    wasm_abi.wasmtime_config_wasm_component_model_set(config, true);
    wasm_abi.wasmtime_config_wasm_component_model_async_set(config, false); /* WASI 0.3 */
    return wasm_abi.wasm_engine_new_with_config(config);
}

/* A frame of a stack: "0x12ab - MODULE!FUNCTION"; its function, or NULL. */
static const char *frame_name(const char *p, size_t n, size_t *ret_n)
{
    const char *at = n > 2 && p[0] == '0' && p[1] == 'x' ? memmem(p, n, " - ", 3) : NULL, *bang;

    if (!at)
        return NULL;
    at += 3;
    bang = memchr(at, '!', (size_t)(p + n - at));
    at = bang ? bang + 1 : at;
    *ret_n = (size_t)(p + n - at);
    return at;
}

/* The library's text is the outermost cause and below it "Caused by:" and one a line, the innermost last; the line of the
 * stack is followed by its frames. The stack comes last here, its innermost functions by name. */
void wasm_error_text(void *error, struct buf *ret)
{
    struct wasm_bytes m = {0};
    struct buf stack = {.max = 400};
    size_t at = 0, began = ret->n;

    wasm_abi.wasmtime_error_message(error, &m);
    while (at < m.n) {
        size_t end = at, from, digits, name_n;
        const char *name;

        while (end < m.n && m.p[end] != '\n' && m.p[end])
            end++;
        for (from = at; from < end && m.p[from] == ' '; from++)
            ;
        for (digits = from; digits < end && m.p[digits] >= '0' && m.p[digits] <= '9'; digits++)
            ;
        if (digits > from && digits < end && m.p[digits] == ':')
            for (from = digits + 1; from < end && m.p[from] == ' '; from++)
                ;
        at = end + 1;
        if (end == from || memcmp(m.p + from, "Caused by:", MIN(end - from, (size_t)10)) == 0 ||
            (end - from > 16 && memmem(m.p + from, end - from, "wasm backtrace:", 15)))
            continue;
        name = frame_name(m.p + from, end - from, &name_n);
        if (name) {
            buf_adds(&stack, stack.n ? ", " : " (in ");
            buf_add(&stack, name, name_n);
            continue;
        }
        if (ret->n > began)
            buf_adds(ret, ": ");
        buf_add(ret, m.p + from, end - from);
    }
    if (ret->n == began)
        buf_adds(ret, "unknown error");
    if (stack.n) {
        buf_add(ret, stack.p, stack.n);
        buf_adds(ret, ")");
    }
    buf_done(&stack);
    wasm_abi.wasm_byte_vec_delete(&m);
    wasm_abi.wasmtime_error_delete(error);
}

bool wasm_name_is(const struct wasm_bytes *name, const char *want)
{
    return name->n == strlen(want) && memcmp(name->p, want, name->n) == 0;
}

/* ---- the compiler ---- */

/* "": good. */
static void check_exports(const void *module, struct buf *text)
{
    struct wasm_list list;
    bool found = false;

    wasm_abi.wasmtime_module_exports(module, &list);
    for (size_t i = 0; i < list.n; i++) {
        const void *type = wasm_abi.wasm_exporttype_type(list.p[i]), *f;

        if (!wasm_name_is(wasm_abi.wasm_exporttype_name(list.p[i]), "_start") || wasm_abi.wasm_externtype_kind(type) != WASM_EXTERN_FUNC)
            continue;
        f = wasm_abi.wasm_externtype_as_functype_const(type);
        found = f && wasm_abi.wasm_functype_params(f)->n == 0 && wasm_abi.wasm_functype_results(f)->n == 0;
    }
    if (!found)
        buf_adds(text, "it exports no function _start without parameters: it is no command (a library or a reactor is none)");
    wasm_abi.wasm_exporttype_vec_delete(&list);
}

bool wasm_write_all(int fd, const void *p, size_t n)
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
    wasm_write_all(out, "E", 1);
    wasm_write_all(out, text, MIN(n, (size_t)1000));
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
    error = wasm_abi.wasmtime_wat2wasm((const char *)p, *n, &wasm);
    if (error) {
        wasm_error_text(error, text);
        return p;
    }
    *n = wasm.n;
    return (const unsigned char *)wasm.p;
}

/* What machine code says of the library that made it, as text in a section of its own: its length and itself, behind a byte. */
static int made_by(const struct wasm_bytes *code)
{
    static const char NAME[] = ".wasmtime.engine";
    Elf64_Ehdr h;
    Elf64_Shdr names, one;

    if (code->n < sizeof h)
        return -1;
    memcpy(&h, code->p, sizeof h);
    if (h.e_shoff > code->n || h.e_shentsize != sizeof one || (uint64_t)h.e_shnum * sizeof one > code->n - h.e_shoff || h.e_shstrndx >= h.e_shnum)
        return -1;
    memcpy(&names, code->p + h.e_shoff + h.e_shstrndx * sizeof one, sizeof names);
    for (size_t i = 0; i < h.e_shnum; i++) {
        uint64_t at;

        memcpy(&one, code->p + h.e_shoff + i * sizeof one, sizeof one);
        at = names.sh_offset + one.sh_name;
        if (at > code->n || code->n - at < sizeof NAME || memcmp(code->p + at, NAME, sizeof NAME) != 0)
            continue;
        if (one.sh_offset > code->n || one.sh_size < 3 || one.sh_size > code->n - one.sh_offset)
            return -1;
        return atoi(code->p + one.sh_offset + 2); /* "50", or "50.0.1" */
    }
    return -1;
}

/* Is it a component, in either form? Of a text only the first word counts. */
static bool is_component(const unsigned char *p, size_t n)
{
    size_t at = 0;

    if (n >= 8 && memcmp(p, "\0asm", 4) == 0)
        return p[6] == 1;
    while (at + 1 < n) {
        if (p[at] == ';' && p[at + 1] == ';') {
            while (at < n && p[at] != '\n')
                at++;
        } else if (p[at] == '(' && p[at + 1] == ';') {
            while (at + 1 < n && !(p[at] == ';' && p[at + 1] == ')'))
                at++;
            at += 2;
        } else if (p[at] == '(') {
            at++;
            while (at < n && strchr(" \t\r\n", p[at]) && p[at])
                at++;
            return n - at >= 9 && memcmp(p + at, "component", 9) == 0;
        } else {
            at++;
        }
    }
    return false;
}

/* A core module: checked, and as machine code; or a text why not. */
static void compile_module(void *engine, const unsigned char *wasm, size_t n, struct wasm_bytes *ret, struct buf *text)
{
    void *linker = wasm_abi.wasmtime_linker_new(engine), *module, *pre;
    void *error = wasm_abi.wasmtime_module_new(engine, wasm, n, &module);

    if (!error)
        check_exports(module, text);
    if (!error && !text->n && !(error = wasm_abi.wasmtime_linker_define_wasi(linker)))
        error = wasm_abi.wasmtime_linker_instantiate_pre(linker, module, &pre);
    if (!error && !text->n)
        error = wasm_abi.wasmtime_module_serialize(module, ret);
    if (error)
        wasm_error_text(error, text);
}

static void compile_component(void *engine, const unsigned char *wasm, size_t n, bool http, struct wasm_bytes *ret, struct buf *text)
{
    struct wasm_world world;
    void *component, *error = wasm_abi.wasmtime_component_new(engine, wasm, n, &component);

    if (!error && wasm_component_world(engine, component, http, &world, text) && wasm_component_linker(engine, component, &world, text))
        error = wasm_abi.wasmtime_component_serialize(component, ret);
    if (error)
        wasm_error_text(error, text);
}

/* In the compiler. Says "C" and the machine code, or "E" and why not. */
_Noreturn static void compile(int in, int out, bool http)
{
    struct wasm_bytes code = {0};
    struct buf text = {0};
    struct stat st;
    const unsigned char *wasm;
    size_t n;
    int major;

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
    if (is_component(wasm, n))
        compile_component(wasm_engine(true), wasm, n, http, &code, &text);
    else if (http)
        buf_adds(&text, "an HTTP function (spec.http) of runtime wasm is a component that exports wasi:http/incoming-handler@0.2, and this is a core module");
    else
        compile_module(wasm_engine(false), wasm, n, &code, &text);
    major = text.n ? WASMTIME_MAJOR : made_by(&code);
    if (major != WASMTIME_MAJOR)
        buf_printf(&text, "the wasmtime library of this machine is version %d; tandem works with version %d", major, WASMTIME_MAJOR);
    if (text.n)
        refuse(out, text.p, text.n);
    _exit(wasm_write_all(out, "C", 1) && wasm_write_all(out, code.p, code.n) ? 0 : 1);
}

static rlim_t compile_bytes(void)
{
    rlim_t machine = (rlim_t)sysconf(_SC_PHYS_PAGES) * (rlim_t)sysconf(_SC_PAGESIZE), most = (rlim_t)COMPILE_MB << 20;

    return MIN(most, machine / 4);
}

/* Nothing to see, nothing to gain, an end in time: the compiler reads what an attacker may have written. */
_Noreturn static void begin_compile(int in, int out, uint32_t uid, const char *empty, bool http)
{
    const struct {
        int what;
        rlim_t n;
    } limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_CPU, COMPILE_CPU_S}, {RLIMIT_DATA, compile_bytes()},
                  {RLIMIT_FSIZE, 0}, {RLIMIT_NOFILE, 64}};
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    static struct seccomp_filter filter;
    int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    struct err err;

    if (oom >= 0)
        (void)!write(oom, "1000", 4); /* when memory is short it is the first to go */
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
    compile(3, 4, http);
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
    unlink(part); /* of one who was killed and had our number */
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
        good = good && fd >= 0 && total <= CODE_MAX && (n <= 0 || wasm_write_all(fd, p, (size_t)n));
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
    unlink(part);
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || !wasm_write_all(fd, text, strlen(text)) || rename(part, error_path) < 0)
        unlink(part);
    if (fd >= 0)
        close(fd);
    return -EINVAL;
}

/* Why a compiler that said nothing ended, when it will end so again; "": it may do better another time. */
static void why_ended(int status, const struct rusage *used, char *ret, size_t max)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    *ret = 0;
    if (sig == SIGXCPU || (sig == SIGKILL && used->ru_utime.tv_sec + used->ru_stime.tv_sec >= COMPILE_CPU_S - 1))
        snprintf(ret, max, "compiling it took more than %d s", COMPILE_CPU_S);
    else if (sig == SIGABRT) /* how an allocation that fails ends there */
        snprintf(ret, max, "compiling it took more than %llu MB of memory", (unsigned long long)compile_bytes() >> 20);
    else if (sig && sig != SIGKILL && sig != SIGTERM) /* those come from outside: memory was short, or somebody stopped it */
        snprintf(ret, max, "the compiler ended by signal %d", sig);
}

/* The file, for reading only, and nothing that lies outside of the folder. */
static int open_code(const char *code, const char *file)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    _auto_(closep) int dir = open(code, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return (int)syscall(SYS_openat2, dir, file, &how, sizeof how);
}

EXPORT int z_wasm_kind(const char *code, const char *file, int http);
/* Of the module `file` of the folder `code`: WASM_CORE, WASM_COMMAND or WASM_HTTP, by its first bytes and what it was deployed as. */
EXPORT int z_wasm_kind(const char *code, const char *file, int http)
{
    _auto_(closep) int in = open_code(code, file);
    static unsigned char first[SNIFF_BYTES];
    ssize_t n = in < 0 ? 0 : read(in, first, sizeof first);

    return http ? WASM_HTTP : n > 0 && is_component(first, (size_t)n) ? WASM_COMMAND : WASM_CORE;
}

EXPORT int z_wasm_compile(const char *code, const char *file, const char *path, const char *error_path, unsigned uid, const char *empty, int http);
/* In the zygote, before anything but the library: the module `file` of the folder `code` becomes machine code at `path`, or,
 * when it is refused, a text at `error_path`. empty: a folder with nothing in it. 0; -EINVAL: refused; else -errno: it may go
 * better another time (memory was short, the compiler was killed). */
EXPORT int z_wasm_compile(const char *code, const char *file, const char *path, const char *error_path, unsigned uid, const char *empty, int http)
{
    _auto_(closep) int in = open_code(code, file);
    struct buf text = {.max = 4096};
    int ends[2], status = -1;
    struct rusage used = {0};
    sigset_t set, old;
    char why[100];
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
        begin_compile(in, ends[1], uid, empty, http);
    close(ends[1]);
    good = pid > 0 && keep(ends[0], path, error_path, &text);
    close(ends[0]);
    while (pid > 0 && wait4(pid, &status, 0, &used) < 0 && errno == EINTR)
        ;
    sigprocmask(SIG_SETMASK, &old, NULL);
    if (text.n)
        dprintf(2, "wasm: %s: %s\n", file, text.p);
    buf_done(&text);
    if (good && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (good)
        unlink(path); /* it was cut */
    if (pid > 0)
        why_ended(status, &used, why, sizeof why);
    if (pid > 0 && *why)
        return no(error_path, why);
    return status == 0 ? -EINVAL : -EAGAIN;
}
