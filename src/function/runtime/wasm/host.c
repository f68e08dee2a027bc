/* host.c of zygote.so - WASI 0.2 as an HTTP component sees it: wasi:http, io, clocks, random and what of cli it needs.
 *
 * The library has these, too, but offers no way to make the two resources that wasi:http/incoming-handler is called with
 * (incoming-request, response-outparam), and theirs and ours do not mix: a body's stream must be the input-stream that all
 * other interfaces know. So an HTTP component gets all of WASI from here, over one connection (web.h).
 *
 * What there is stands in tables, by interface and name, each at the end of the file that does it: io.c, fields.c, http.c,
 * cli.c. This file links them, makes the calls and begins and ends a request. Whatever else a component imports of WASI is
 * answered by refuse(): the error that its result type has for that, else a trap that names it. There are no files and no
 * sockets.
 *
 * The component is not trusted, nor is what it says its imports look like: the library checks results against the
 * imported type, and we check each argument's kind before we look into it. Resources are numbers (host.h), which the
 * guest cannot make up; all end with the request. */
#include "function/runtime/wasm/host.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- calls ---- */

static void *on_call(void *arg_, void *context, const void *type, struct wasm_val *args, size_t n, struct wasm_val *rets, size_t rets_n)
{
    const struct wasm_function *f = arg_;
    struct in in = {.interface = f->interface, .name = f->name, .context = context, .args = args, .n = n};

    (void)type;
    f->fn(&in);
    for (size_t i = 0; i < n; i++)
        wasm_release(context, &args[i]);
    if (in.trap) {
        char text[200];

        snprintf(text, sizeof text, "%s: %s", f->name, in.trap);
        if (in.has_ret)
            wasm_abi.wasmtime_component_val_delete(&in.ret);
        return wasm_abi.wasmtime_error_new(text);
    }
    if (in.has_ret != (rets_n == 1)) {
        if (in.has_ret)
            wasm_abi.wasmtime_component_val_delete(&in.ret);
        return wasm_abi.wasmtime_error_new("the import is not of WASI's type");
    }
    if (in.has_ret)
        rets[0] = in.ret;
    return NULL;
}

/* The error that a result type has for what is not to be had: an enum's case, by our preference. */
static bool refusal(const struct wasm_valtype *result, struct wasm_val *ret)
{
    static const char *const wanted[] = {"access-denied", "not-supported", "unsupported", "access"};
    struct wasm_valtype e;
    bool found = false;

    if (result->kind != WASM_TYPE_RESULT || !wasm_abi.wasmtime_component_result_type_err(result->of, &e))
        return false;
    for (size_t w = 0; w < ARRAY_LEN(wanted) && !found && e.kind == WASM_TYPE_ENUM; w++)
        for (size_t i = 0; i < wasm_abi.wasmtime_component_enum_type_names_count(e.of) && !found; i++) {
            const char *name;
            size_t n;

            if (!wasm_abi.wasmtime_component_enum_type_names_nth(e.of, i, &name, &n) || n != strlen(wanted[w]) || memcmp(name, wanted[w], n) != 0)
                continue;
            *ret = v_err((struct wasm_val){.kind = WASM_ENUM, .of.string = bytes_of(name, n)});
            found = true;
        }
    wasm_abi.wasmtime_component_valtype_delete(&e);
    return found;
}

static void *refuse(void *name, void *context, const void *type, struct wasm_val *args, size_t n, struct wasm_val *rets, size_t rets_n)
{
    struct wasm_valtype result;
    bool refused = false;
    char text[200];

    for (size_t i = 0; i < n; i++)
        wasm_release(context, &args[i]);
    if (rets_n == 1 && wasm_abi.wasmtime_component_func_type_result(type, &result)) {
        refused = refusal(&result, rets);
        wasm_abi.wasmtime_component_valtype_delete(&result);
    }
    if (refused)
        return NULL;
    snprintf(text, sizeof text, "%s is not to be had in an HTTP component here", (const char *)name);
    return wasm_abi.wasmtime_error_new(text);
}

/* ---- linking ---- */

/* By the names they have, wherever they are used; others are never made. */
static const struct {
    const char *name;
    enum kind kind;
} KINDS[] = {
    {"error", K_ERROR}, {"io-error", K_ERROR}, {"pollable", K_POLLABLE}, {"input-stream", K_INPUT}, {"output-stream", K_OUTPUT},
    {"fields", K_FIELDS}, {"headers", K_FIELDS}, {"trailers", K_FIELDS}, {"incoming-request", K_REQUEST},
    {"response-outparam", K_OUTPARAM}, {"incoming-body", K_INCOMING_BODY}, {"future-trailers", K_FUTURE_TRAILERS},
    {"outgoing-response", K_RESPONSE}, {"outgoing-body", K_OUTGOING_BODY}, {"outgoing-request", K_OUTGOING_REQUEST},
    {"request-options", K_OPTIONS},
};

static const struct wasm_function *const TABLES[] = {wasm_io_functions, wasm_fields_functions, wasm_http_functions, wasm_cli_functions};

static bool same(const char *p, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(p, want, n) == 0;
}

static void *define(void *engine, void *to, const char *interface, size_t interface_n, const char *name, size_t n, const struct wasm_item *item)
{
    void *type, *error;
    char full[200];

    (void)engine;
    if (item->kind == WASM_ITEM_RESOURCE) {
        enum kind kind = K_OTHER;

        for (size_t i = 0; i < ARRAY_LEN(KINDS); i++)
            if (same(name, n, KINDS[i].name))
                kind = KINDS[i].kind;
        if (kind == K_OTHER) /* each its own: they are no names for one another */
            for (size_t i = 0; i < n; i++)
                kind = (enum kind)(((uint32_t)kind * 31 + (unsigned char)name[i]) | 1u << 30);
        if (same(name, n, "network"))
            kind = K_OTHER;
        type = wasm_abi.wasmtime_component_resource_type_new_host(kind);
        error = wasm_abi.wasmtime_component_linker_instance_add_resource(to, name, n, type, wasm_on_drop, (void *)(uintptr_t)kind, NULL);
        wasm_abi.wasmtime_component_resource_type_delete(type);
        return error;
    }
    for (size_t i = 0; i < ARRAY_LEN(TABLES); i++)
        for (const struct wasm_function *f = TABLES[i]; f->fn; f++)
            if (same(interface, interface_n, f->interface) && same(name, n, f->name))
                return wasm_abi.wasmtime_component_linker_instance_add_func(to, name, n, on_call, (void *)f, NULL);
    snprintf(full, sizeof full, "%.*s#%.*s", (int)interface_n, interface, (int)MIN(n, (size_t)100), name);
    return wasm_abi.wasmtime_component_linker_instance_add_func(to, name, n, refuse, xstrdup(full), free);
}

bool wasm_host_define(void *engine, void *root, const char *interface, size_t n, const void *type, struct buf *text)
{
    const char *at = memchr(interface, '@', n), *name;
    size_t count = wasm_abi.wasmtime_component_instance_type_export_count(type, engine), name_n;
    void *to, *ext, *error = wasm_abi.wasmtime_component_linker_instance_add_instance(root, interface, n, &to);
    bool good = true;

    for (size_t i = 0; i < count && !error && good; i++) {
        struct wasm_item item;

        if (!wasm_abi.wasmtime_component_instance_type_export_nth(type, engine, i, &name, &name_n, &ext))
            continue;
        wasm_abi.wasmtime_component_extern_type(ext, &item);
        wasm_abi.wasmtime_component_extern_delete(ext);
        if (item.kind == WASM_ITEM_FUNC || item.kind == WASM_ITEM_RESOURCE)
            error = define(engine, to, interface, at ? (size_t)(at - interface) : n, name, name_n, &item);
        else if (item.kind != WASM_ITEM_TYPE)
            good = false;
        wasm_abi.wasmtime_component_item_delete(&item);
    }
    if (!good)
        buf_printf(text, "it imports of %.*s what is no function, resource or type", (int)MIN(n, (size_t)100), interface);
    if (error)
        wasm_error_text(error, text);
    wasm_abi.wasmtime_component_linker_instance_delete(to);
    return !error && good;
}

/* ---- a request ---- */

bool wasm_host_begin(struct web *w, void *context, const char *const *env, struct wasm_val ret_args[2])
{
    struct in in = {.context = context};
    uint32_t request;

    wasm_req.web = w;
    wasm_req.context = context;
    wasm_req.env = env;
    wasm_req.objs_n = wasm_req.objs_n ? 1 : 0;
    wasm_req.free = 0;
    if (!wasm_req.objs_n)
        wasm_obj_new(K_OTHER); /* 0 is none */
    wasm_req.set = wasm_req.exited = wasm_req.cut = false;
    wasm_req.length = -1;
    request = wasm_obj_new(K_REQUEST);
    wasm_req.objs[request].fields = wasm_fields_of(w);
    ret_args[0] = wasm_resource(&in, request);
    ret_args[1] = wasm_resource(&in, wasm_obj_new(K_OUTPARAM));
    return !in.trap;
}

bool wasm_host_end(bool failed)
{
    bool good = false;

    if (wasm_req.cut)
        good = !wasm_req.web->close && !wasm_req.web->answered;
    else if (!wasm_req.set)
        good = !wasm_req.web->answered && !wasm_late() && web_refuse(wasm_req.web, 502, "Internal Server Error");
    else if (failed && !wasm_req.web->answered && !wasm_req.answer_body->finished)
        good = web_refuse(wasm_req.web, 502, "Internal Server Error");
    else if (wasm_req.answer_body->finished)
        good = wasm_flush(wasm_req.answer_body) && web_end(wasm_req.web, "", 0);
    wasm_held_free();
    return good;
}

bool wasm_host_exited(void)
{
    return wasm_req.exited;
}
