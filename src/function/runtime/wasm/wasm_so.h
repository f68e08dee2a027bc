/* function/runtime/wasm/wasm_so.h - what the Wasm files of zygote.so share: wasm.c has the library and the compiler, call.c
 * the instance, component.c what differs for components, host.c (with host.h's files) the WASI 0.2 of HTTP components, web.c
 * their connection. */
#pragma once

#include "base/buf.h"
#include "function/runtime/wasm/wasmtime_abi.h"

struct web;

extern struct wasm_abi wasm_abi; /* filled by z_wasm_load() */

/* The same for the compiler and for instances: a module that does not fit is refused when it is compiled. A component is
 * of several core modules, so its engine has room for more of everything. */
void *wasm_engine(bool component);
/* The causes of an error, in one line, behind what is in ret. Frees the error. */
void wasm_error_text(void *error, struct buf *ret);
bool wasm_name_is(const struct wasm_bytes *name, const char *want);
bool wasm_write_all(int fd, const void *p, size_t n);

enum { WASM_TABLE_ELEMENTS = 1 << 20 };
enum { WASM_CORE = 0, WASM_COMMAND = 1, WASM_HTTP = 2 }; /* what a function's code is */

/* ---- component.c ---- */

/* What a component is, by what it exports. */
struct wasm_world {
    bool http;         /* wasi:http/incoming-handler, else wasi:cli/run */
    char interface[64]; /* the export, with its version */
    void *func;         /* where the function in it is */
};
/* False: a text why it is none that is served. */
bool wasm_component_world(const void *engine, const void *component, bool http, struct wasm_world *ret, struct buf *text);
/* A linker with all that it imports; NULL: a text why not. */
void *wasm_component_linker(void *engine, const void *component, const struct wasm_world *world, struct buf *text);
/* In an instance: maps the machine code. False: a text why not. */
bool wasm_component_load(void *engine, const char *path, bool http, struct buf *text);
bool wasm_component_loaded(void);
/* A command, in a store that has its WASI: NULL or an error. *ret_failed: it ended by itself, but badly. */
void *wasm_component_run(void *context, bool *ret_failed);
/* Answers the request on w. False: its connection is of no use any more. */
bool wasm_component_answer(struct web *w);
/* Serves HTTP requests until the gateway goes. */
_Noreturn void wasm_component_serve(bool ahead);

/* ---- host.c ---- */

/* Defines the interface (a component's import, with its version) in a linker: all that `type` says it has. False: a text why not. */
bool wasm_host_define(void *engine, void *linker_root, const char *interface, size_t n, const void *type, struct buf *text);
/* A request begins on w: resources for the handler's two arguments. env: NAME, value, ..., NULL. False: the library refuses. */
bool wasm_host_begin(struct web *w, void *context, const char *const *env, struct wasm_val ret_args[2]);
/* The component has returned, or has ended with an error (failed). False: the connection is of no use any more. */
bool wasm_host_end(bool failed);
bool wasm_host_exited(void); /* the component ended itself: its error is none */

/* ---- call.c ---- */

bool wasm_load(struct buf *text); /* maps the machine code; false: a text why not */
void *wasm_store(void);           /* with the function's limits, without a WASI */
bool wasm_late(void);             /* the time limit of this call has come */
/* HTTP: the time limit counts until the answer begins, from then on from each byte that was said or heard (wasm_alive()). */
void wasm_clock_start(const struct web *w);
void wasm_clock_stop(void);
void wasm_alive(void);
const char *const *wasm_env(void);
/* What went wrong with a request, into the log. */
void wasm_log_error(const char *type, const struct buf *text);
