/* component.c of zygote.so - a function that is a component (WASI 0.2).
 *
 *   wasi:cli/run                an event comes and goes as with core modules (call.c); WASI is the library's.
 *   wasi:http/incoming-handler  an HTTP function (spec.http): the instance is what elsewhere is the program that listens.
 *     It makes the gateway's connections itself (socket pairs, frames DIAL and DIALED) and reads HTTP/1.1 from them, so bodies
 *     stream both ways through the gateway's proxy and have no limit. WASI is ours (host.c). One request at a time.
 *
 * Every event and every request has a store and an instance of the component of its own. */
#include "function/runtime/wasm/wasm_so.h"
#include "function/runtime/wasm/web.h"
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IMPORTS_MAX = 256, /* interfaces; WASI 0.2 has some 40 */
    CONNS_MAX = 64,    /* the gateway's, most of them idle */
};

static struct {
    void *engine, *component, *linker;
    struct wasm_world world;
    struct web conns[CONNS_MAX]; /* fd -1 or 0: none */
} c;

/* ---- what it is ---- */

static bool exports(const void *engine, const void *type, const char *prefix, char *ret, size_t max)
{
    size_t n = wasm_abi.wasmtime_component_type_export_count(type, engine), name_n;
    const char *name;
    bool found = false;
    void *ext;

    for (size_t i = 0; i < n && !found; i++) {
        if (!wasm_abi.wasmtime_component_type_export_nth(type, engine, i, &name, &name_n, &ext))
            continue;
        wasm_abi.wasmtime_component_extern_delete(ext);
        found = name_n < max && name_n > strlen(prefix) && memcmp(name, prefix, strlen(prefix)) == 0;
        if (found)
            snprintf(ret, max, "%.*s", (int)name_n, name);
    }
    return found;
}

bool wasm_component_world(const void *engine, const void *component, bool http, struct wasm_world *ret, struct buf *text)
{
    void *type = wasm_abi.wasmtime_component_type(component), *of = NULL;
    char other[64];
    bool is_http = exports(engine, type, "wasi:http/incoming-handler@0.2.", ret->interface, sizeof ret->interface);
    bool is_command = exports(engine, type, "wasi:cli/run@0.2.", is_http && http ? other : ret->interface, sizeof other);

    ret->http = http;
    wasm_abi.wasmtime_component_type_delete(type);
    if (http && !is_http)
        buf_adds(text, "it is a component that exports no wasi:http/incoming-handler@0.2: it is no HTTP function (spec.http)");
    else if (!http && !is_command && is_http)
        buf_adds(text, "it is an HTTP component (wasi:http/incoming-handler): it wants spec.http, as tandem deploy sets it");
    else if (!http && !is_command)
        buf_adds(text, "it is a component that exports neither wasi:cli/run@0.2 nor wasi:http/incoming-handler@0.2");
    else
        of = wasm_abi.wasmtime_component_get_export_index(component, NULL, ret->interface, strlen(ret->interface));
    ret->func = of ? wasm_abi.wasmtime_component_get_export_index(component, of, http ? "handle" : "run", http ? 6 : 3) : NULL;
    if (!text->n && !ret->func)
        buf_printf(text, "its export %s has no function %s", ret->interface, http ? "handle" : "run");
    return !text->n;
}

/* ---- what it imports ---- */

static bool is_wasi(const char *name, size_t n)
{
    static const char *const packages[] = {"wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"};
    const char *at = memchr(name, '@', n);

    for (size_t i = 0; i < ARRAY_LEN(packages) && at; i++)
        if (n > strlen(packages[i]) && memcmp(name, packages[i], strlen(packages[i])) == 0)
            return (size_t)(name + n - at) > 5 && memcmp(at, "@0.2.", 5) == 0;
    return false;
}

/* One import. False: a text why not. */
static bool import(void *engine, void *root, const struct wasm_world *world, const char *name, size_t n, void *ext, struct buf *text)
{
    struct wasm_item item;
    bool good = is_wasi(name, n) && (world->http || n < 10 || memcmp(name, "wasi:http/", 10) != 0);

    if (!good) {
        buf_printf(text, "it imports %.*s, which is not of %s", (int)MIN(n, (size_t)100), name,
                   world->http ? "WASI 0.2" : "WASI 0.2 for commands");
        return false;
    }
    wasm_abi.wasmtime_component_extern_type(ext, &item);
    if (item.kind != WASM_ITEM_INSTANCE)
        buf_printf(text, "it imports %.*s, but not as an interface", (int)MIN(n, (size_t)100), name);
    else if (world->http)
        (void)!wasm_host_define(engine, root, name, n, item.of.ptr, text);
    wasm_abi.wasmtime_component_item_delete(&item);
    return !text->n;
}

void *wasm_component_linker(void *engine, const void *component, const struct wasm_world *world, struct buf *text)
{
    void *linker = wasm_abi.wasmtime_component_linker_new(engine), *type = wasm_abi.wasmtime_component_type(component);
    void *error = world->http ? NULL : wasm_abi.wasmtime_component_linker_add_wasip2(linker), *root, *ext;
    size_t n = wasm_abi.wasmtime_component_type_import_count(type, engine), name_n;
    const char *name;

    if (error)
        wasm_error_text(error, text);
    if (n > IMPORTS_MAX)
        buf_printf(text, "it imports %zu interfaces; %d are the limit", n, IMPORTS_MAX);
    root = wasm_abi.wasmtime_component_linker_root(linker);
    for (size_t i = 0; i < n && !text->n; i++) {
        if (!wasm_abi.wasmtime_component_type_import_nth(type, engine, i, &name, &name_n, &ext))
            continue;
        (void)!import(engine, root, world, name, name_n, ext, text);
        wasm_abi.wasmtime_component_extern_delete(ext);
    }
    wasm_abi.wasmtime_component_linker_instance_delete(root);
    wasm_abi.wasmtime_component_type_delete(type);
    if (!text->n)
        return linker;
    wasm_abi.wasmtime_component_linker_delete(linker);
    return NULL;
}

/* ---- in an instance ---- */

bool wasm_component_load(void *engine, const char *path, bool http, struct buf *text)
{
    void *error = wasm_abi.wasmtime_component_deserialize_file(engine, path, &c.component);

    if (error) {
        wasm_error_text(error, text);
        return false;
    }
    c.engine = engine;
    if (!wasm_component_world(engine, c.component, http, &c.world, text))
        return false;
    c.linker = wasm_component_linker(engine, c.component, &c.world, text);
    return c.linker != NULL;
}

bool wasm_component_loaded(void)
{
    return c.component != NULL;
}

static void *call(void *context, const struct wasm_val *args, size_t n, struct wasm_val *rets, size_t rets_n)
{
    struct wasm_component_instance i;
    struct wasm_component_func f;
    void *error = wasm_abi.wasmtime_component_linker_instantiate(c.linker, context, c.component, &i);

    if (error)
        return error;
    if (!wasm_abi.wasmtime_component_instance_get_func(&i, context, c.world.func, &f))
        return wasm_abi.wasmtime_error_new("its export is no function");
    return wasm_abi.wasmtime_component_func_call(&f, context, args, n, rets, rets_n);
}

void *wasm_component_run(void *context, bool *ret_failed)
{
    struct wasm_val ret = {.kind = WASM_BOOL};
    void *error = call(context, NULL, 0, &ret, 1);

    if (!error) {
        *ret_failed = ret.kind == WASM_RESULT && !ret.of.result.ok;
        wasm_abi.wasmtime_component_val_delete(&ret);
    }
    return error;
}

/* ---- requests ---- */

static bool url_is_text(const struct web *w)
{
    for (size_t i = 0; i < w->url.n; i++)
        if (w->url.p[i] <= ' ' || w->url.p[i] == 0x7f) /* bytes beyond 127, too: char is signed */
            return false;
    return w->url.n > 0;
}

bool wasm_component_answer(struct web *w)
{
    struct wasm_val args[2] = {{.kind = WASM_BOOL}, {.kind = WASM_BOOL}};
    struct buf text = {.max = 4096};
    void *store, *context, *error = NULL;
    bool good;

    if (!url_is_text(w))
        return web_refuse(w, 400, "Bad Request");
    store = wasm_store();
    context = wasm_abi.wasmtime_store_context(store);
    if (!wasm_host_begin(w, context, wasm_env(), args))
        error = wasm_abi.wasmtime_error_new("there is no room for the request");
    else
        error = call(context, args, 2, NULL, 0);
    good = wasm_host_end(error != NULL);
    if (error && !wasm_host_exited()) {
        if (wasm_late())
            buf_adds(&text, "Task timed out: ");
        wasm_error_text(error, &text);
        wasm_log_error(wasm_late() ? "Sandbox.Timedout" : "Runtime.Trap", &text);
    } else if (error) {
        wasm_abi.wasmtime_error_delete(error);
    }
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        wasm_abi.wasmtime_component_val_delete(&args[i]);
    wasm_abi.wasmtime_store_delete(store);
    buf_done(&text);
    return good;
}

/* ---- the gateway's connections ---- */

static bool tell(uint8_t type, uint64_t id, int fd, uint8_t result)
{
    struct instance_frame f = {.type = type, .id = id, .result = result};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec v = {&f, sizeof f};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
    }
    return sendmsg(3, &m, MSG_NOSIGNAL) == (ssize_t)sizeof f;
}

/* A free place; the one that has been idle for longest gives up its own when there is none. */
static struct web *place(void)
{
    static size_t next;

    for (size_t i = 0; i < CONNS_MAX; i++)
        if (c.conns[i].fd <= 0)
            return &c.conns[i];
    next = (next + 1) % CONNS_MAX;
    web_close(&c.conns[next]);
    return &c.conns[next];
}

static void dial(uint64_t id)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        tell(FRAME_DIALED, id, -1, 1);
        return;
    }
    web_open(place(), ends[0]);
    if (!tell(FRAME_DIALED, id, ends[1], 0))
        _exit(0);
    close(ends[1]);
}

static void on_frame(void)
{
    struct instance_frame f;
    ssize_t n = recv(3, &f, sizeof f, MSG_WAITALL);

    if (n < 0 && errno == EINTR)
        return;
    if (n != (ssize_t)sizeof f || f.type == FRAME_SHUTDOWN)
        _exit(0);
    if (f.type == FRAME_DIAL)
        dial(f.id);
}

static void on_conn(struct web *w)
{
    int rc;

    do {
        rc = web_head(w);
        if (rc <= 0)
            break;
        wasm_clock_start(w);
        rc = wasm_component_answer(w) ? 1 : -1;
        wasm_clock_stop();
    } while (rc > 0 && w->raw.n);
    if (rc < 0)
        web_close(w);
}

_Noreturn void wasm_component_serve(bool ahead)
{
    struct buf why = {0};

    (void)ahead; /* always: a place is given out when it can be answered in */
    if (!wasm_load(&why)) {
        wasm_log_error("Runtime.InvalidEntrypoint", &why);
        _exit(1);
    }
    if (!tell(FRAME_INITED, 0, -1, 0))
        _exit(0);
    for (;;) {
        struct pollfd p[CONNS_MAX + 1] = {{3, POLLIN, 0}};
        struct web *of[CONNS_MAX];
        nfds_t n = 1;

        for (size_t i = 0; i < CONNS_MAX; i++)
            if (c.conns[i].fd > 0) {
                of[n - 1] = &c.conns[i];
                p[n++] = (struct pollfd){c.conns[i].fd, POLLIN, 0};
            }
        if (poll(p, n, -1) < 0)
            continue;
        for (nfds_t i = 1; i < n; i++)
            if (p[i].revents)
                on_conn(of[i - 1]);
        if (p[0].revents)
            on_frame();
    }
}
