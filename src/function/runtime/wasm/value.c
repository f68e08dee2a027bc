/* value.c of zygote.so - what the files of a component's WASI share: resources, arguments, values; see host.h. */
#include "function/runtime/wasm/host.h"

#include <stdlib.h>

enum {
    OBJS_MAX = 1 << 14, /* resources that are held at once */
    HELD_MAX = 1 << 16, /* fields and bodies of a request */
};

struct wasm_req wasm_req;

/* ---- resources ---- */

uint32_t wasm_obj_new(enum kind kind)
{
    uint32_t rep = wasm_req.held_n >= HELD_MAX ? 0 : wasm_req.free;

    if (rep) {
        wasm_req.free = wasm_req.objs[rep].next;
    } else {
        if (wasm_req.objs_n >= OBJS_MAX || wasm_req.held_n >= HELD_MAX)
            return 0;
        if (wasm_req.objs_n >= wasm_req.objs_cap) {
            wasm_req.objs_cap = MAX(2 * wasm_req.objs_cap, 64u);
            wasm_req.objs = xrealloc(wasm_req.objs, wasm_req.objs_cap * sizeof *wasm_req.objs);
        }
        rep = wasm_req.objs_n++;
    }
    wasm_req.objs[rep] = (struct obj){.kind = kind};
    return rep;
}

void *wasm_hold(size_t size, bool body)
{
    void *p = xcalloc(1, size);

    if (wasm_req.held_n == wasm_req.held_cap) {
        wasm_req.held_cap = MAX(2 * wasm_req.held_cap, 16u);
        wasm_req.held = xrealloc(wasm_req.held, wasm_req.held_cap * sizeof *wasm_req.held);
        wasm_req.held_body = xrealloc(wasm_req.held_body, wasm_req.held_cap * sizeof *wasm_req.held_body);
    }
    wasm_req.held[wasm_req.held_n] = p;
    wasm_req.held_body[wasm_req.held_n++] = body;
    return p;
}

void wasm_held_free(void)
{
    for (uint32_t i = 0; i < wasm_req.held_n; i++) {
        buf_done(wasm_req.held_body[i] ? &((struct body *)wasm_req.held[i])->data : &((struct fields *)wasm_req.held[i])->text);
        free(wasm_req.held[i]);
    }
    wasm_req.held_n = 0;
    wasm_req.fields_bytes = 0;
}

struct fields *wasm_fields_new(void)
{
    struct fields *f = wasm_hold(sizeof *f, false);

    f->text.max = FIELDS_BYTES;
    return f;
}

void *wasm_on_drop(void *arg, void *context, uint32_t rep)
{
    struct obj *o = obj_at(rep, (enum kind)(uintptr_t)arg);

    (void)context;
    if (!o)
        return NULL;
    if (o->kind == K_OUTGOING_BODY && o->body && !o->body->finished)
        o->body->broken = true;
    obj_free(rep);
    return NULL;
}

/* ---- values ---- */

struct wasm_val wasm_resource(struct in *in, uint32_t rep)
{
    struct wasm_val v = {.kind = WASM_RESOURCE};
    void *host, *error;

    if (!rep) {
        in->trap = "it holds too many resources";
        return v_bool(false);
    }
    host = wasm_abi.wasmtime_component_resource_host_new(true, rep, wasm_req.objs[rep].kind);
    error = wasm_abi.wasmtime_component_resource_host_to_any(in->context, host, &v.of.resource);
    wasm_abi.wasmtime_component_resource_host_delete(host);
    if (!error)
        return v;
    wasm_abi.wasmtime_error_delete(error);
    in->trap = "the resource cannot be given out";
    return v_bool(false);
}

void wasm_none(struct in *in)
{
    give(in, v_none());
}

/* ---- arguments ---- */

/* Ends the argument's own hold on the resource, which the library wants before the call is over: who looks at it does it,
 * once, and wasm_release() for all others. Its number, if it is of that kind (K_NONE: of any); else 0. */
static uint32_t let_go(void *context, struct wasm_val *v, enum kind kind)
{
    uint32_t rep = 0, type;
    void *host, *error = wasm_abi.wasmtime_component_resource_any_to_host(context, v->of.resource, &host);

    if (error) {
        wasm_abi.wasmtime_error_delete(error);
    } else {
        type = wasm_abi.wasmtime_component_resource_host_type(host);
        rep = wasm_abi.wasmtime_component_resource_host_rep(host);
        if (kind == K_NONE && wasm_abi.wasmtime_component_resource_host_owned(host))
            wasm_on_drop((void *)(uintptr_t)type, context, rep); /* it was given to us, and we had no use for it */
        else if (type != (uint32_t)kind)
            rep = 0;
        wasm_abi.wasmtime_component_resource_host_delete(host);
    }
    wasm_abi.wasmtime_component_resource_any_delete(v->of.resource);
    *v = (struct wasm_val){.kind = WASM_BOOL};
    return rep;
}

/* Resources that nobody looked at. How deep values nest is the component's types' matter, which the library bounds. */
void wasm_release(void *context, struct wasm_val *v)
{
    if (v->kind == WASM_RESOURCE)
        let_go(context, v, K_NONE);
    else if ((v->kind == WASM_LIST || v->kind == WASM_TUPLE) && v->of.list.n && v->of.list.p[0].kind > WASM_U64)
        for (size_t i = 0; i < v->of.list.n; i++)
            wasm_release(context, &v->of.list.p[i]);
    else if (v->kind == WASM_TUPLE)
        for (size_t i = 1; i < v->of.list.n; i++)
            wasm_release(context, &v->of.list.p[i]);
    else if (v->kind == WASM_RECORD)
        for (size_t i = 0; i < v->of.record.n; i++)
            wasm_release(context, &v->of.record.p[i].val);
    else if (v->kind == WASM_OPTION && v->of.option)
        wasm_release(context, v->of.option);
    else if (v->kind == WASM_RESULT && v->of.result.val)
        wasm_release(context, v->of.result.val);
    else if (v->kind == WASM_VARIANT && v->of.variant.val)
        wasm_release(context, v->of.variant.val);
}

uint32_t wasm_rep_of(struct in *in, struct wasm_val *v, enum kind kind)
{
    uint32_t rep = v->kind == WASM_RESOURCE ? let_go(in->context, v, kind) : 0;

    if (obj_at(rep, kind))
        return rep;
    in->trap = "an argument is not of WASI's type";
    return 0;
}

struct obj *wasm_arg_res(struct in *in, size_t i, enum kind kind)
{
    uint32_t rep = i < in->n ? wasm_rep_of(in, &in->args[i], kind) : 0;

    if (rep)
        return &wasm_req.objs[rep];
    in->trap = "an argument is not of WASI's type";
    return NULL;
}

bool wasm_add_bytes(const struct wasm_val *v, struct buf *ret)
{
    if (v->kind != WASM_LIST || !buf_reserve(ret, v->of.list.n + 1))
        return false;
    for (size_t i = 0; i < v->of.list.n; i++) {
        if (v->of.list.p[i].kind != WASM_U8)
            return false;
        ret->p[ret->n++] = (char)v->of.list.p[i].of.u8;
    }
    return true;
}
