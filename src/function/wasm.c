/* Wasm modules as code: where wasmtime's library is, what the machine code of a module is called, and whether it is there.
 *
 * A version's zygote compiles (runtime/wasm/wasm.c) and leaves STATE/functions/SHA256.HASH.wasm beside the unpacked code, or
 * .error with a text when the module is refused; HASH is of the file's name, the library and this machine's processor. So
 * both answers are kept by content: nothing is compiled or refused twice, a new library asks anew. */
#include "function/function_int.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COMPILERS_MAX = 2 }; /* at once, for functions that nobody has called; each may take 1 GB */
enum { SETTINGS = 2 }; /* of make_engine(): with others, machine code of before is not what is wanted */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const unsigned char *at = p;

    for (size_t i = 0; i < n; i++)
        h = (h ^ at[i]) * 0x100000001b3;
    return h;
}

static const char *library(void)
{
    static const char *const places[] = {WASMTIME_LIBRARY, "/usr/lib/tandem/libwasmtime.so", "/usr/local/lib/libwasmtime.so",
                                         "/usr/lib/x86_64-linux-gnu/libwasmtime.so", "/usr/lib/aarch64-linux-gnu/libwasmtime.so"};
    const char *named = getenv("TANDEM_WASMTIME");

    if (!str_empty(named))
        return named[0] == '/' && access(named, R_OK) == 0 ? named : NULL;
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (access(places[i], R_OK) == 0)
            return places[i];
    return NULL;
}

int wasm_check(struct err *err)
{
    return library() ? 0 : err_set(err, NOT_IMPLEMENTED, "the runtime wasm is not on this machine: install wasmtime's C library as "
                                   "/usr/local/lib/libwasmtime.so, or name it in TANDEM_WASMTIME");
}

/* Machine code is for a processor: what it can do, in a number. */
static uint64_t processor(void)
{
    static uint64_t h;
    FILE *f = h ? NULL : fopen("/proc/cpuinfo", "r");
    char line[8192];

    while (f && fgets(line, sizeof line, f))
        if (str_starts(line, "flags") || str_starts(line, "Features")) {
            h = mix(0xcbf29ce484222325, line, strlen(line));
            break;
        }
    if (f)
        fclose(f);
    return h ? h : (h = 1);
}

static char *path_of(const struct version *v, const char *ending)
{
    uint64_t h = mix(processor(), v->handler, strlen(v->handler));
    const char *lib = library();
    int settings = v->http_port ? -SETTINGS : SETTINGS; /* what is asked of a component differs */
    struct stat st;

    if (lib && stat(lib, &st) == 0) {
        h = mix(h, &st.st_size, sizeof st.st_size);
        h = mix(h, &st.st_mtim.tv_sec, sizeof st.st_mtim.tv_sec);
    }
    h = mix(h, &settings, sizeof settings);
    return xasprintf("%s/functions/%s.%016llx.%s", v->f->fs->state, v->sha256, (unsigned long long)h, ending);
}

int version_wasm(struct version *v, struct err *err)
{
    _auto_(freep) char *code = path_of(v, "wasm");
    _auto_(freep) char *refused = path_of(v, "error");
    char text[160] = "";
    int fd;

    if (access(code, R_OK) == 0)
        return 1;
    fd = open(refused, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(fd);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    return err_set(err, NOT_IMPLEMENTED, "the Wasm module %.60s is refused: %s", v->handler, text);
}

void version_wasm_config(struct version *v, struct arena *a, struct val *config)
{
    struct val *c = val_need_map(a, config, "wasm");
    _auto_(freep) char *code = path_of(v, "wasm");
    _auto_(freep) char *refused = path_of(v, "error");
    const char *lib = library();

    val_put_str(a, c, "library", lib ? lib : "");
    val_put_str(a, c, "file", v->handler);
    val_put_str(a, c, "code", code);
    val_put_str(a, c, "error", refused);
    val_put_int(a, c, "memory_mb", v->memory_mb);
}

void version_wasm_settled(struct version *v)
{
    struct functions *fs = v->f->fs;
    struct err err;

    if (v->broken.code == ERR_OK && version_wasm(v, &err) < 0)
        v->broken = err;
    if (fs->on_state && !fs->stopping && v == v->f->now && streq(v->shown, "$LATEST"))
        fs->on_state(fs->state_arg, v->f->namespace_, v->f->name);
}

static int compilers(struct functions *fs)
{
    int n = 0;

    LIST_EACH(&fs->all, l)
    {
        struct version *v = list_entry(l, struct function, link)->now;

        n += v && v->wasm && v->zygote == ZYGOTE_STARTING;
    }
    return n;
}

int functions_wasm_state(struct functions *fs, const char *ns, const char *name, struct err *err)
{
    struct function *f = function_find(fs, ns, name);
    struct version *v = f ? f->now : NULL;
    int there;

    if (!v || !v->wasm || fs->stopping)
        return 1;
    if (v->broken.code != ERR_OK) {
        *err = v->broken;
        return -1;
    }
    there = version_wasm(v, err);
    if (there < 0)
        v->broken = *err;
    if (!there && v->zygote == ZYGOTE_NONE && compilers(fs) < COMPILERS_MAX)
        zygote_start(v);
    return there;
}
