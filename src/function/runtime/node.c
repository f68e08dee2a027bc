/* node.c of zygote.so - the same library as an addon of Node: a Node process can be a zygote, too.
 *
 * The function's zygote (driver.py) builds the root and then becomes a Node, started from nowhere else than the root's own
 * read-only /usr, with an environment that holds nothing of the user's. index.mjs loads this, warms what a request goes
 * through and forks instances as Python's zygote does. What makes a Node survive its fork:
 *   - it is started --single-threaded --v8-pool-size=0: V8 has no helper threads that a child would wait for;
 *   - V8 marks memory that a fork shall not copy; the mark is taken off all of it (MADV_DOFORK);
 *   - the loop's descriptors are made anew in the child (uv_loop_fork), before the sandbox closes over it;
 *   - it is left by _exit only (index.mjs): what threads would be joined at a normal end are not there.
 * Node-API and libuv are found in the program that loads us; in Python they are absent (weak) and nothing here runs. */
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define THEIRS __attribute__((weak, visibility("default")))

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value callback(napi_env, napi_callback_info);
struct uv_loop_s;

THEIRS int napi_create_function(napi_env, const char *, size_t, callback *, void *, napi_value *);
THEIRS int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
THEIRS int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
THEIRS int napi_get_value_int64(napi_env, napi_value, int64_t *);
THEIRS int napi_get_value_string_utf8(napi_env, napi_value, char *, size_t, size_t *);
THEIRS int napi_create_int64(napi_env, int64_t, napi_value *);
THEIRS int napi_create_string_utf8(napi_env, const char *, size_t, napi_value *);
THEIRS int napi_get_uv_event_loop(napi_env, struct uv_loop_s **);
THEIRS int uv_loop_fork(struct uv_loop_s *);

static struct uv_loop_s *loop;

/* In the child, still as root and outside. */
static void on_forked(void)
{
    if (uv_loop_fork(loop) != 0)
        _exit(125);
}

/* Every page of V8's, in a child too. */
static void fork_all_memory(void)
{
    unsigned long from, to;
    char line[512];
    FILE *f = z_open_maps();

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx", &from, &to) == 2)
            madvise((void *)from, to - from, MADV_DOFORK); /* those of the kernel refuse: not ours to copy */
    if (f)
        fclose(f);
}

static int64_t int_arg(napi_env env, napi_value v)
{
    int64_t n = 0;

    napi_get_value_int64(env, v, &n);
    return n;
}

static napi_value number(napi_env env, int64_t n)
{
    napi_value v = NULL;

    napi_create_int64(env, n, &v);
    return v;
}

/* resume(): the process is the zygote that it was before it became a Node. */
static napi_value js_resume(napi_env env, napi_callback_info info)
{
    (void)info;
    if (napi_get_uv_event_loop(env, &loop) != 0 || !loop)
        return number(env, -EINVAL);
    return number(env, z_resume(on_forked));
}

/* config(uid, tmp_mb, host) */
static napi_value js_config(napi_env env, napi_callback_info info)
{
    napi_value v[3] = {0};
    size_t n = 3, len;
    char host[64] = "";

    napi_get_cb_info(env, info, &n, v, NULL, NULL);
    if (n == 3)
        napi_get_value_string_utf8(env, v[2], host, sizeof host, &len);
    return number(env, n == 3 ? z_config((unsigned)int_arg(env, v[0]), (unsigned)int_arg(env, v[1]), host, "") : -EINVAL);
}

/* rehearse(): 1 in the child, which is to do what a request does and then rehearsed(); 0: it did; else it could not. */
static napi_value js_rehearse(napi_env env, napi_callback_info info)
{
    (void)info;
    fork_all_memory();
    return number(env, z_rehearse());
}

static napi_value js_rehearsed(napi_env env, napi_callback_info info)
{
    (void)env;
    (void)info;
    z_rehearsed();
    return NULL;
}

static napi_value js_ready(napi_env env, napi_callback_info info)
{
    (void)info;
    fork_all_memory();
    return number(env, z_ready(1));
}

static napi_value js_base_ready(napi_env env, napi_callback_info info)
{
    (void)info;
    fork_all_memory();
    return number(env, z_base_ready());
}

static napi_value js_take_root(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, z_take_root());
}

static napi_value js_next(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, z_next());
}

static napi_value js_failed(napi_env env, napi_callback_info info)
{
    napi_value v = NULL;
    char text[64] = "";
    size_t n = 1, len;

    napi_get_cb_info(env, info, &n, &v, NULL, NULL);
    if (n == 1)
        napi_get_value_string_utf8(env, v, text, sizeof text, &len);
    z_failed(text, EINVAL);
    return NULL;
}

static napi_value js_exit(napi_env env, napi_callback_info info)
{
    napi_value v = NULL;
    size_t n = 1;

    napi_get_cb_info(env, info, &n, &v, NULL, NULL);
    _exit(n == 1 ? (int)int_arg(env, v) : 0);
}

static napi_value js_entered_us(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, (int64_t)z_info.entered_us);
}

static napi_value js_now_us(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, (int64_t)mono_us());
}

/* random(): 1 .. 2^31 - 1, of the kernel's. */
static napi_value js_random(napi_env env, napi_callback_info info)
{
    uint32_t n = 0;

    (void)info;
    (void)!getrandom(&n, sizeof n, 0);
    return number(env, (int64_t)(n >> 1) + !(n >> 1));
}

static napi_value js_pid(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, getpid());
}

static napi_value js_wait(napi_env env, napi_callback_info info)
{
    (void)info;
    frame_wait();
    return number(env, 0);
}

static napi_value js_memory_kb(napi_env env, napi_callback_info info)
{
    (void)info;
    return number(env, (int64_t)z_max_rss_kb());
}

static napi_value js_stream(napi_env env, napi_callback_info info)
{
    napi_value v = NULL;

    (void)info;
    napi_create_string_utf8(env, z_info.stream, strnlen(z_info.stream, sizeof z_info.stream), &v);
    return v;
}

EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports);
EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
    static const struct {
        const char *name;
        callback *call;
    } rows[] = {{"resume", js_resume}, {"config", js_config}, {"rehearse", js_rehearse}, {"rehearsed", js_rehearsed},
                {"ready", js_ready}, {"baseReady", js_base_ready}, {"takeRoot", js_take_root}, {"next", js_next}, {"failed", js_failed}, {"exit", js_exit},
                {"enteredUs", js_entered_us}, {"nowUs", js_now_us}, {"memoryKb", js_memory_kb}, {"stream", js_stream}, {"random", js_random},
                {"pid", js_pid}, {"wait", js_wait}};

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        napi_value f;

        if (napi_create_function(env, rows[i].name, strlen(rows[i].name), rows[i].call, NULL, &f) == 0)
            napi_set_named_property(env, exports, rows[i].name, f);
    }
    return exports;
}
