/* function/runtime/wasm/host.h - what the files of an HTTP component's WASI (host.c) share: its resources, its values and
 * arguments, and the rows that say which function answers which import.
 *
 * A new function of WASI? A static host_fn, and a row for it in its own file's table; host.c finds it there.
 * What may be called from outside of these files stands in wasm_so.h. */
#pragma once

#include "function/runtime/wasm/wasm_so.h"
#include "function/runtime/wasm/web.h"

#include <string.h>
#include <time.h>

enum { FIELDS_BYTES = 256 << 10 /* of one fields resource */ };

/* ---- resources ---- */

enum kind {
    K_NONE, K_ERROR, K_POLLABLE, K_INPUT, K_OUTPUT, K_FIELDS, K_REQUEST, K_OUTPARAM, K_INCOMING_BODY, K_FUTURE_TRAILERS, K_RESPONSE,
    K_OUTGOING_BODY, K_OUTGOING_REQUEST, K_OPTIONS, K_OTHER
};

struct fields { /* shared by who shows them unchanged; freed with the request */
    struct buf text; /* NAME 0, length as size_t, VALUE */
    bool fixed;
};

struct body { /* what a component says; freed with the request */
    struct buf data;
    bool mine; /* of the response that was set */
    bool finished, broken;
};

enum { STREAM_BODY = 0, STREAM_LOG, STREAM_NONE };
enum { READY_ALWAYS = 0, READY_BODY, READY_AT };
struct obj {
    uint8_t kind;
    uint8_t what;    /* STREAM_..., READY_... */
    bool taken;      /* the body, or its stream, was given out */
    uint16_t status;
    struct fields *fields;
    struct body *body;
    uint64_t at_ns;
    uint32_t next;   /* K_NONE: the next free one */
};

/* The request that is being answered: one at a time. Resources are numbers into objs, which may move with wasm_obj_new(). */
extern struct wasm_req {
    struct web *web;
    void *context;
    const char *const *env;
    struct obj *objs; /* 0 is none */
    uint32_t objs_n, objs_cap, free;
    void **held; /* struct fields and struct body */
    bool *held_body;
    uint32_t held_n, held_cap;
    size_t fields_bytes;
    bool set, exited, cut;
    int status;
    int64_t length; /* that the answer's fields announce; -1: none */
    struct fields *answer_fields;
    struct body *answer_body; /* NULL: none was made */
} wasm_req;

/* A call of the component's. */
struct in {
    const char *interface, *name;
    void *context;
    struct wasm_val *args;
    size_t n;
    struct wasm_val ret;
    bool has_ret;
    const char *trap; /* not NULL: the component ends with it */
};

static inline struct obj *obj_at(uint32_t rep, enum kind kind)
{
    return rep && rep < wasm_req.objs_n && wasm_req.objs[rep].kind == kind ? &wasm_req.objs[rep] : NULL;
}

static inline void obj_free(uint32_t rep)
{
    wasm_req.objs[rep] = (struct obj){.next = wasm_req.free};
    wasm_req.free = rep;
}

uint32_t wasm_obj_new(enum kind kind); /* zeroed; 0: there are too many */
/* For the table of resource types: the last handle of a resource of the kind in arg went. A body that was not finished
 * breaks the answer. */
void *wasm_on_drop(void *arg, void *context, uint32_t rep);
/* A struct body, zeroed (body), or a struct fields; it is there until wasm_held_free(), at the request's end. */
void *wasm_hold(size_t size, bool body);
void wasm_held_free(void);
struct fields *wasm_fields_new(void);

/* ---- values ----
 *
 * They own what they are made of; give() hands one to the library. */

static inline struct wasm_bytes bytes_of(const char *p, size_t n)
{
    struct wasm_bytes b;

    wasm_abi.wasm_byte_vec_new(&b, n, p);
    return b;
}

static inline struct wasm_val v_u64(uint64_t n)
{
    return (struct wasm_val){.kind = WASM_U64, .of.u64 = n};
}

static inline struct wasm_val v_bool(bool yes)
{
    return (struct wasm_val){.kind = WASM_BOOL, .of.boolean = yes};
}

static inline struct wasm_val v_str(const char *p, size_t n)
{
    return (struct wasm_val){.kind = WASM_STRING, .of.string = bytes_of(p, n)};
}

/* A list, or a tuple, of n values that are to be filled in. */
static inline struct wasm_val v_list(uint8_t kind, size_t n)
{
    struct wasm_val v = {.kind = kind};

    wasm_abi.wasmtime_component_vallist_new_uninit(&v.of.list, n);
    return v;
}

static inline struct wasm_val v_bytes(const void *p, size_t n)
{
    struct wasm_val v = v_list(WASM_LIST, n);

    for (size_t i = 0; i < n; i++)
        v.of.list.p[i] = (struct wasm_val){.kind = WASM_U8, .of.u8 = ((const uint8_t *)p)[i]};
    return v;
}

static inline struct wasm_val *boxed(struct wasm_val v)
{
    return wasm_abi.wasmtime_component_val_new(&v);
}

static inline struct wasm_val v_none(void)
{
    return (struct wasm_val){.kind = WASM_OPTION};
}

static inline struct wasm_val v_some(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_OPTION, .of.option = boxed(v)};
}

static inline struct wasm_val v_done(bool ok)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {ok, NULL}};
}

static inline struct wasm_val v_ok(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {true, boxed(v)}};
}

static inline struct wasm_val v_err(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {false, boxed(v)}};
}

static inline struct wasm_val v_case(const char *name)
{
    return (struct wasm_val){.kind = WASM_VARIANT, .of.variant = {bytes_of(name, strlen(name)), NULL}};
}

/* A handle for the component to own; rep 0, or too many of them: a trap. */
struct wasm_val wasm_resource(struct in *in, uint32_t rep);

static inline void give(struct in *in, struct wasm_val v)
{
    in->ret = v;
    in->has_ret = true;
}

static inline void closed(struct in *in)
{
    give(in, v_err(v_case("closed")));
}

/* ---- arguments ----
 *
 * in->args are the library's; who looks at a resource ends its hold on it (once), host.c does for all others. */

/* Its number, if it is of that kind; 0: a trap. */
uint32_t wasm_rep_of(struct in *in, struct wasm_val *v, enum kind kind);
struct obj *wasm_arg_res(struct in *in, size_t i, enum kind kind); /* the same of an argument; NULL: a trap */

/* The argument, if it is of that kind; else a trap. */
static inline struct wasm_val *arg(struct in *in, size_t i, enum wasm_kind kind)
{
    if (i < in->n && in->args[i].kind == kind)
        return &in->args[i];
    in->trap = "an argument is not of WASI's type";
    return NULL;
}

/* A list of bytes, behind what is in ret; false: it is none, or there is no room. */
bool wasm_add_bytes(const struct wasm_val *v, struct buf *ret);
/* Ends the hold on the resources in v that nobody looked at. */
void wasm_release(void *context, struct wasm_val *v);

/* ---- the rows ---- */

typedef void host_fn(struct in *in);
struct wasm_function {
    const char *interface, *name; /* without the version */
    host_fn *fn;                  /* gives one value, or none where there is no result; or traps */
};

/* Each ends with a row of NULLs. */
extern const struct wasm_function wasm_io_functions[], wasm_fields_functions[], wasm_http_functions[], wasm_cli_functions[];

host_fn wasm_none; /* an option without a value */

/* ---- io.c ---- */

host_fn wasm_always_ready; /* a pollable that is */
void wasm_new_pollable(struct in *in, uint8_t what, uint64_t at_ns); /* READY_...; at_ns: of CLOCK_MONOTONIC */

static inline uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- fields.c ---- */

void wasm_each_field(const struct fields *f, void (*fn)(void *arg, const char *name, const char *value, size_t n), void *arg);
bool wasm_is_ascii(const char *s); /* nothing that controls */
struct fields *wasm_fields_of(const struct web *w); /* what a component may see of the request's; fixed */

/* ---- http.c ---- */

/* Sends the head, when there is one, and what was written; false: it is broken. */
bool wasm_flush(struct body *b);
