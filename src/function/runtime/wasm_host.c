/* wasm_host.c of zygote.so - WASI 0.2 as an HTTP component sees it: wasi:http, io, clocks, random and what of cli it needs.
 *
 * The library has these, too, but offers no way to make the two resources that wasi:http/incoming-handler is called with
 * (incoming-request, response-outparam), and theirs and ours do not mix: a body's stream must be the input-stream that all
 * other interfaces know. So an HTTP component gets all of WASI from here, over one connection (wasm_web.h).
 *
 * FUNCTIONS says what there is, by interface and name. Whatever else a component imports of WASI is answered by refuse():
 * the error that its result type has for that, else a trap that names it. There are no files and no sockets.
 *
 * The component is not trusted, nor is what it says its imports look like: the library checks results against the
 * imported type, and we check each argument's kind before we look into it. Resources are numbers into objs, which the
 * guest cannot make up; all end with the request. */
#include "function/runtime/wasm_so.h"
#include "function/runtime/wasm_web.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

enum {
    OBJS_MAX = 1 << 14,       /* resources that are held at once */
    FIELDS_BYTES = 256 << 10, /* of one fields resource */
    FIELDS_ALL = 8 << 20,     /* of all that were made for a request */
    SAY_BYTES = 64 << 10,     /* written and not sent, as check-write has it */
    UNSENT_BYTES = 1 << 20,   /* the same of who does not ask; an answer that was not set yet cannot be sent */
    HELD_MAX = 1 << 16,       /* fields and bodies of a request */
    RANDOM_MAX = 1 << 20,
    POLL_MAX = 1024,
};

/* ---- resources ---- */

enum kind {
    K_NONE, K_ERROR, K_POLLABLE, K_INPUT, K_OUTPUT, K_FIELDS, K_REQUEST, K_OUTPARAM, K_INCOMING_BODY, K_FUTURE_TRAILERS, K_RESPONSE,
    K_OUTGOING_BODY, K_OUTGOING_REQUEST, K_OPTIONS, K_OTHER
};
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

static struct {
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
} x;

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

static struct obj *obj_at(uint32_t rep, enum kind kind)
{
    return rep && rep < x.objs_n && x.objs[rep].kind == kind ? &x.objs[rep] : NULL;
}

static void obj_free(uint32_t rep)
{
    x.objs[rep] = (struct obj){.next = x.free};
    x.free = rep;
}

/* Zeroed; 0: there are too many. */
static uint32_t obj_new(enum kind kind)
{
    uint32_t rep = x.held_n >= HELD_MAX ? 0 : x.free;

    if (rep) {
        x.free = x.objs[rep].next;
    } else {
        if (x.objs_n >= OBJS_MAX || x.held_n >= HELD_MAX)
            return 0;
        if (x.objs_n >= x.objs_cap) {
            x.objs_cap = MAX(2 * x.objs_cap, 64u);
            x.objs = xrealloc(x.objs, x.objs_cap * sizeof *x.objs);
        }
        rep = x.objs_n++;
    }
    x.objs[rep] = (struct obj){.kind = kind};
    return rep;
}

static void *hold(size_t size, bool body)
{
    void *p = xcalloc(1, size);

    if (x.held_n == x.held_cap) {
        x.held_cap = MAX(2 * x.held_cap, 16u);
        x.held = xrealloc(x.held, x.held_cap * sizeof *x.held);
        x.held_body = xrealloc(x.held_body, x.held_cap * sizeof *x.held_body);
    }
    x.held[x.held_n] = p;
    x.held_body[x.held_n++] = body;
    return p;
}

static struct fields *fields_new(void)
{
    struct fields *f = hold(sizeof *f, false);

    f->text.max = FIELDS_BYTES;
    return f;
}

/* The last handle of a resource went: a body that was not finished breaks the answer. */
static void *on_drop(void *arg, void *context, uint32_t rep)
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

static struct wasm_bytes bytes_of(const char *p, size_t n)
{
    struct wasm_bytes b;

    wasm_abi.wasm_byte_vec_new(&b, n, p);
    return b;
}

static struct wasm_val v_u64(uint64_t n)
{
    return (struct wasm_val){.kind = WASM_U64, .of.u64 = n};
}

static struct wasm_val v_bool(bool yes)
{
    return (struct wasm_val){.kind = WASM_BOOL, .of.boolean = yes};
}

static struct wasm_val v_str(const char *p, size_t n)
{
    return (struct wasm_val){.kind = WASM_STRING, .of.string = bytes_of(p, n)};
}

/* A list, or a tuple, of n values that are to be filled in. */
static struct wasm_val v_list(uint8_t kind, size_t n)
{
    struct wasm_val v = {.kind = kind};

    wasm_abi.wasmtime_component_vallist_new_uninit(&v.of.list, n);
    return v;
}

static struct wasm_val v_bytes(const void *p, size_t n)
{
    struct wasm_val v = v_list(WASM_LIST, n);

    for (size_t i = 0; i < n; i++)
        v.of.list.p[i] = (struct wasm_val){.kind = WASM_U8, .of.u8 = ((const uint8_t *)p)[i]};
    return v;
}

static struct wasm_val *boxed(struct wasm_val v)
{
    return wasm_abi.wasmtime_component_val_new(&v);
}

static struct wasm_val v_none(void)
{
    return (struct wasm_val){.kind = WASM_OPTION};
}

static struct wasm_val v_some(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_OPTION, .of.option = boxed(v)};
}

static struct wasm_val v_done(bool ok)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {ok, NULL}};
}

static struct wasm_val v_ok(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {true, boxed(v)}};
}

static struct wasm_val v_err(struct wasm_val v)
{
    return (struct wasm_val){.kind = WASM_RESULT, .of.result = {false, boxed(v)}};
}

static struct wasm_val v_case(const char *name)
{
    return (struct wasm_val){.kind = WASM_VARIANT, .of.variant = {bytes_of(name, strlen(name)), NULL}};
}

static struct wasm_val v_res(struct in *in, uint32_t rep)
{
    struct wasm_val v = {.kind = WASM_RESOURCE};
    void *host, *error;

    if (!rep) {
        in->trap = "it holds too many resources";
        return v_bool(false);
    }
    host = wasm_abi.wasmtime_component_resource_host_new(true, rep, x.objs[rep].kind);
    error = wasm_abi.wasmtime_component_resource_host_to_any(in->context, host, &v.of.resource);
    wasm_abi.wasmtime_component_resource_host_delete(host);
    if (!error)
        return v;
    wasm_abi.wasmtime_error_delete(error);
    in->trap = "the resource cannot be given out";
    return v_bool(false);
}

static void give(struct in *in, struct wasm_val v)
{
    in->ret = v;
    in->has_ret = true;
}

static void closed(struct in *in)
{
    give(in, v_err(v_case("closed")));
}

/* ---- arguments ---- */

/* Ends the argument's own hold on the resource, which the library wants before the call is over: who looks at it does it,
 * once, and release() for all others. Its number, if it is of that kind (K_NONE: of any); else 0. */
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
            on_drop((void *)(uintptr_t)type, context, rep); /* it was given to us, and we had no use for it */
        else if (type != (uint32_t)kind)
            rep = 0;
        wasm_abi.wasmtime_component_resource_host_delete(host);
    }
    wasm_abi.wasmtime_component_resource_any_delete(v->of.resource);
    *v = (struct wasm_val){.kind = WASM_BOOL};
    return rep;
}

/* Resources that nobody looked at. How deep values nest is the component's types' matter, which the library bounds. */
static void release(void *context, struct wasm_val *v)
{
    if (v->kind == WASM_RESOURCE)
        let_go(context, v, K_NONE);
    else if ((v->kind == WASM_LIST || v->kind == WASM_TUPLE) && v->of.list.n && v->of.list.p[0].kind > WASM_U64)
        for (size_t i = 0; i < v->of.list.n; i++)
            release(context, &v->of.list.p[i]);
    else if (v->kind == WASM_TUPLE)
        for (size_t i = 1; i < v->of.list.n; i++)
            release(context, &v->of.list.p[i]);
    else if (v->kind == WASM_RECORD)
        for (size_t i = 0; i < v->of.record.n; i++)
            release(context, &v->of.record.p[i].val);
    else if (v->kind == WASM_OPTION && v->of.option)
        release(context, v->of.option);
    else if (v->kind == WASM_RESULT && v->of.result.val)
        release(context, v->of.result.val);
    else if (v->kind == WASM_VARIANT && v->of.variant.val)
        release(context, v->of.variant.val);
}

/* 0: a trap. */
static uint32_t rep_of(struct in *in, struct wasm_val *v, enum kind kind)
{
    uint32_t rep = v->kind == WASM_RESOURCE ? let_go(in->context, v, kind) : 0;

    if (obj_at(rep, kind))
        return rep;
    in->trap = "an argument is not of WASI's type";
    return 0;
}

static struct obj *arg_res(struct in *in, size_t i, enum kind kind)
{
    uint32_t rep = i < in->n ? rep_of(in, &in->args[i], kind) : 0;

    if (rep)
        return &x.objs[rep];
    in->trap = "an argument is not of WASI's type";
    return NULL;
}

/* The argument, if it is of that kind; else a trap. */
static struct wasm_val *arg(struct in *in, size_t i, enum wasm_kind kind)
{
    if (i < in->n && in->args[i].kind == kind)
        return &in->args[i];
    in->trap = "an argument is not of WASI's type";
    return NULL;
}

/* A list of bytes, behind what is in ret; false: it is none, or there is no room. */
static bool add_bytes(const struct wasm_val *v, struct buf *ret)
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

/* ---- wasi:io ---- */

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void error_text(struct in *in)
{
    give(in, v_str("the stream is broken", 20));
}

static bool is_ready(const struct obj *o)
{
    return o->what == READY_BODY ? web_readable(x.web) : o->what == READY_AT ? now_ns(CLOCK_MONOTONIC) >= o->at_ns : true;
}

/* Sleeps until one of them may be ready. */
static void sleep_for(struct in *in, struct obj *const *list, size_t n)
{
    struct pollfd p = {x.web->fd, POLLIN, 0};
    bool body = false;
    uint64_t until = UINT64_MAX, now = now_ns(CLOCK_MONOTONIC);
    struct timespec t;

    for (size_t i = 0; i < n; i++) {
        body |= list[i]->what == READY_BODY;
        if (list[i]->what == READY_AT)
            until = MIN(until, list[i]->at_ns);
    }
    until = until > now ? until - now : 0;
    t = (struct timespec){(time_t)MIN(until / 1000000000, (uint64_t)100000), (long)(until % 1000000000)};
    ppoll(&p, body ? 1 : 0, &t, NULL);
    if (wasm_late())
        in->trap = "its time limit has come";
}

static void pollable_ready(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_POLLABLE);

    if (o)
        give(in, v_bool(is_ready(o)));
}

static void pollable_block(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_POLLABLE);

    while (o && !in->trap && !is_ready(o))
        sleep_for(in, &o, 1);
}

static void poll_list(struct in *in)
{
    struct wasm_val *v = arg(in, 0, WASM_LIST);
    struct obj *list[POLL_MAX];
    uint32_t ready[POLL_MAX];
    size_t n = 0, found = 0;

    if (!v || v->of.list.n == 0 || v->of.list.n > POLL_MAX) {
        in->trap = "poll() wants 1 to 1024 pollables";
        return;
    }
    for (size_t i = 0; i < v->of.list.n; i++) {
        uint32_t rep = rep_of(in, &v->of.list.p[i], K_POLLABLE);

        if (!rep)
            return;
        list[n++] = &x.objs[rep];
    }
    for (;;) {
        for (size_t i = 0; i < n; i++)
            if (is_ready(list[i]))
                ready[found++] = (uint32_t)i;
        if (found)
            break;
        sleep_for(in, list, n);
        if (in->trap)
            return;
    }
    give(in, v_list(WASM_LIST, found));
    for (size_t i = 0; i < found; i++)
        in->ret.of.list.p[i] = (struct wasm_val){.kind = WASM_U32, .of.u32 = ready[i]};
}

static void new_pollable(struct in *in, uint8_t what, uint64_t at_ns)
{
    uint32_t rep = obj_new(K_POLLABLE);

    if (rep) {
        x.objs[rep].what = what;
        x.objs[rep].at_ns = at_ns;
    }
    give(in, v_res(in, rep));
}

static void input_subscribe(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_INPUT);

    if (o)
        new_pollable(in, o->what == STREAM_BODY ? READY_BODY : READY_ALWAYS, 0);
}

static void always_ready(struct in *in)
{
    new_pollable(in, READY_ALWAYS, 0);
}

/* How many bytes came into p; -1: the call was answered, there are none. */
static int input_take(struct in *in, char *p, size_t max, bool wait)
{
    struct obj *o = arg_res(in, 0, K_INPUT);
    const struct wasm_val *want = o ? arg(in, 1, WASM_U64) : NULL;
    int n;

    if (!want)
        return -1;
    n = o->what != STREAM_BODY ? -1 : want->of.u64 ? web_read(x.web, p, (size_t)MIN(want->of.u64, (uint64_t)max), wait) : 0;
    wasm_alive();
    if (n >= 0)
        return n;
    if (wasm_late())
        in->trap = "its time limit has come";
    else if (n == -2) {
        struct wasm_val v = v_case("last-operation-failed");

        v.of.variant.val = boxed(v_res(in, obj_new(K_ERROR)));
        give(in, v_err(v));
    } else
        closed(in);
    return -1;
}

static void read_some(struct in *in, bool wait)
{
    char piece[WEB_PIECE];
    int n = input_take(in, piece, sizeof piece, wait);

    if (n >= 0)
        give(in, v_ok(v_bytes(piece, (size_t)n)));
}

static void input_read(struct in *in)
{
    read_some(in, false);
}

static void input_blocking_read(struct in *in)
{
    read_some(in, true);
}

static void skip_some(struct in *in, bool wait)
{
    char piece[WEB_PIECE];
    int n = input_take(in, piece, sizeof piece, wait);

    if (n >= 0)
        give(in, v_ok(v_u64((uint64_t)n)));
}

static void input_skip(struct in *in)
{
    skip_some(in, false);
}

static void input_blocking_skip(struct in *in)
{
    skip_some(in, true);
}

/* ---- the answer ---- */

static void each_field(const struct fields *f, void (*fn)(void *arg, const char *name, const char *value, size_t n), void *arg_)
{
    for (size_t at = 0; at < f->text.n;) {
        const char *name = f->text.p + at;
        size_t n;

        at += strlen(name) + 1;
        memcpy(&n, f->text.p + at, sizeof n);
        at += sizeof n;
        fn(arg_, name, f->text.p + at, n);
        at += n;
    }
}

static void add_line(void *arg_, const char *name, const char *value, size_t n)
{
    struct buf *b = arg_;

    if (strcasecmp(name, "content-length") == 0) {
        char digits[24];

        snprintf(digits, sizeof digits, "%.*s", (int)MIN(n, sizeof digits - 1), value);
        x.length = n && n < 19 && strspn(digits, "0123456789") == n ? (int64_t)strtoll(digits, NULL, 10) : -1;
        return;
    }
    buf_adds(b, name);
    buf_adds(b, ": ");
    buf_add(b, value, n);
    buf_adds(b, "\r\n");
}

/* Sends the head, when there is one, and what was written; false: it is broken. */
static bool flush(struct body *b)
{
    bool ok = !b->broken;

    if (!ok || !b->mine || !x.set)
        return ok;
    if (!x.web->answered) {
        struct buf lines = {0};

        x.length = -1;
        each_field(x.answer_fields, add_line, &lines);
        if (x.length < 0 && b->finished)
            x.length = (int64_t)b->data.n;
        ok = web_answer(x.web, x.status, lines.n ? lines.p : "", lines.n, x.length);
        buf_done(&lines);
    }
    ok = ok && web_say(x.web, b->data.p, b->data.n);
    buf_reset(&b->data);
    b->broken |= !ok;
    wasm_alive();
    return ok;
}

/* The bytes are a list, or zeroes. False: it was answered with an error. */
static bool output_put(struct in *in, bool zeroes, struct body **ret)
{
    struct obj *o = arg_res(in, 0, K_OUTPUT);
    const struct wasm_val *v = o ? arg(in, 1, zeroes ? WASM_U64 : WASM_LIST) : NULL;
    struct buf line = {.max = SAY_BYTES};
    struct buf *b;

    if (!v)
        return false;
    if (o->what == STREAM_NONE || (o->body && (o->body->finished || o->body->broken))) {
        closed(in);
        return false;
    }
    *ret = o->body;
    b = o->what == STREAM_LOG ? &line : &o->body->data;
    if (o->what == STREAM_BODY && b->n >= SAY_BYTES)
        (void)flush(o->body);
    if (b->n > UNSENT_BYTES || (zeroes ? v->of.u64 > SAY_BYTES || !buf_reserve(b, (size_t)v->of.u64 + 1) : !add_bytes(v, b))) {
        in->trap = "it writes more than check-write permits";
        buf_done(&line);
        return false;
    }
    if (zeroes) {
        memset(b->p + b->n, 0, (size_t)v->of.u64);
        b->n += (size_t)v->of.u64;
    }
    if (o->what == STREAM_LOG) {
        wasm_write_all(2, line.p, line.n);
        buf_done(&line);
    }
    return true;
}

static struct body *output_body(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_OUTPUT);

    return o ? o->body : NULL;
}

/* NULL: the log, which is written at once. */
static void send_body(struct in *in, struct body *b)
{
    if (b && !flush(b)) {
        if (wasm_late())
            in->trap = "its time limit has come";
        else
            closed(in);
    } else
        give(in, v_done(true));
}

static void output_flush(struct in *in)
{
    struct body *b = output_body(in);

    if (!in->trap)
        send_body(in, b);
}

static void output_check_write(struct in *in)
{
    struct body *b = output_body(in);

    if (in->trap)
        return;
    if (b && (b->broken || b->finished))
        closed(in);
    else
        give(in, v_ok(v_u64(!b ? SAY_BYTES / 2 : b->data.n < SAY_BYTES ? SAY_BYTES - b->data.n : 0)));
    if (b && x.set && b->mine && b->data.n >= SAY_BYTES / 2)
        (void)flush(b);
}

static void put(struct in *in, bool zeroes, bool send)
{
    struct body *b = NULL;

    if (!output_put(in, zeroes, &b))
        return;
    if (send)
        send_body(in, b);
    else
        give(in, v_done(true));
}

static void output_write(struct in *in)
{
    put(in, false, false);
}

static void output_write_flush(struct in *in)
{
    put(in, false, true);
}

static void output_zeroes(struct in *in)
{
    put(in, true, false);
}

static void output_zeroes_flush(struct in *in)
{
    put(in, true, true);
}

static void splice(struct in *in, bool wait)
{
    struct obj *to = arg_res(in, 0, K_OUTPUT), *from = to ? arg_res(in, 1, K_INPUT) : NULL;
    const struct wasm_val *want = from ? arg(in, 2, WASM_U64) : NULL;
    char piece[WEB_PIECE];
    int n;

    if (!want)
        return;
    if (to->what != STREAM_BODY || from->what != STREAM_BODY || to->body->broken || to->body->finished || to->body->data.n > UNSENT_BYTES) {
        closed(in);
        return;
    }
    n = web_read(x.web, piece, (size_t)MIN(want->of.u64, (uint64_t)sizeof piece), wait);
    if (n < 0 || (n > 0 && !(buf_add(&to->body->data, piece, (size_t)n), flush(to->body)))) {
        if (wasm_late())
            in->trap = "its time limit has come";
        else
            closed(in);
        return;
    }
    wasm_alive();
    give(in, v_ok(v_u64((uint64_t)n)));
}

static void output_splice(struct in *in)
{
    splice(in, false);
}

static void output_blocking_splice(struct in *in)
{
    splice(in, true);
}

/* ---- wasi:http/types: fields ---- */

static bool is_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", p[i]) || !p[i])
            return false;
    return n > 0 && n < 8192;
}

static bool is_forbidden(const char *name)
{
    static const char *const hops[] = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
                                       "transfer-encoding", "upgrade", "host", "http2-settings", "te"};

    for (size_t i = 0; i < ARRAY_LEN(hops); i++)
        if (strcasecmp(name, hops[i]) == 0)
            return true;
    return false;
}

static bool field_add(struct fields *f, const char *name, const char *value, size_t n)
{
    size_t all = strlen(name) + 1 + sizeof n + n;

    if (x.fields_bytes + all > FIELDS_ALL || !buf_reserve(&f->text, all + 1))
        return false;
    x.fields_bytes += all;
    buf_add(&f->text, name, strlen(name) + 1);
    buf_add(&f->text, &n, sizeof n);
    if (n)
        buf_add(&f->text, value, n);
    return true;
}

struct pick { /* what each_field() looks for */
    const char *name;
    size_t n;            /* found */
    struct wasm_val *to; /* NULL: only counted */
    struct fields *rest; /* or: those that are not of that name */
    bool pairs;
};

static void pick_one(void *arg_, const char *name, const char *value, size_t n)
{
    struct pick *p = arg_;
    bool same = !p->name || strcasecmp(name, p->name) == 0;

    if (p->rest && !same)
        field_add(p->rest, name, value, n);
    if (p->rest || !same)
        return;
    if (p->to && p->pairs) {
        p->to[p->n] = v_list(WASM_TUPLE, 2);
        p->to[p->n].of.list.p[0] = v_str(name, strlen(name));
        p->to[p->n].of.list.p[1] = v_bytes(value, n);
    } else if (p->to) {
        p->to[p->n] = v_bytes(value, n);
    }
    p->n++;
}

static struct wasm_val field_list(const struct fields *f, const char *name, bool pairs)
{
    struct pick p = {.name = name, .pairs = pairs};
    struct wasm_val v;

    each_field(f, pick_one, &p);
    v = v_list(WASM_LIST, p.n);
    p.n = 0;
    p.to = v.of.list.p;
    if (v.of.list.n)
        each_field(f, pick_one, &p);
    return v;
}

/* The name in the argument, as a text that is freed by the caller; NULL: a trap. */
static char *arg_name(struct in *in, size_t i)
{
    const struct wasm_val *v = arg(in, i, WASM_STRING);

    return v ? strndup(v->of.string.n ? v->of.string.p : "", v->of.string.n) : NULL;
}

static void fields_new_empty(struct in *in)
{
    uint32_t rep = obj_new(K_FIELDS);

    if (rep)
        x.objs[rep].fields = fields_new();
    give(in, v_res(in, rep));
}

static void fields_read(struct in *in, bool only_has)
{
    struct obj *o = arg_res(in, 0, K_FIELDS);
    char *name = o ? arg_name(in, 1) : NULL;
    struct pick p = {.name = name};

    if (!name)
        return;
    if (only_has) {
        each_field(o->fields, pick_one, &p);
        give(in, v_bool(p.n > 0));
    } else {
        give(in, field_list(o->fields, name, false));
    }
    free(name);
}

static void fields_get(struct in *in)
{
    fields_read(in, false);
}

static void fields_has(struct in *in)
{
    fields_read(in, true);
}

static void fields_entries(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_FIELDS);

    if (o)
        give(in, field_list(o->fields, NULL, true));
}

static void fields_clone(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_FIELDS);
    struct fields *from = o ? o->fields : NULL;
    uint32_t rep = o ? obj_new(K_FIELDS) : 0;

    if (!o)
        return;
    if (rep) {
        x.objs[rep].fields = fields_new();
        x.fields_bytes += from->text.n;
        if (x.fields_bytes > FIELDS_ALL)
            in->trap = "its fields are too big";
        else if (from->text.n)
            buf_add(&x.objs[rep].fields->text, from->text.p, from->text.n);
    }
    give(in, v_res(in, rep));
}

/* Takes a value out of a list of bytes and appends it; NULL, or header-error's case. */
static const char *field_put(struct fields *f, const char *name, const struct wasm_val *value)
{
    struct buf b = {.max = FIELDS_BYTES};
    const char *why = NULL;

    if (!add_bytes(value, &b))
        why = "invalid-syntax";
    for (size_t i = 0; i < b.n && !why; i++)
        if (b.p[i] == '\r' || b.p[i] == '\n' || !b.p[i])
            why = "invalid-syntax";
    if (!why && !field_add(f, name, b.p, b.n))
        why = "invalid-syntax";
    buf_done(&b);
    return why;
}

/* "" fields: header-error's case for a change of them; NULL: they may be. */
static const char *may_change(const struct obj *o, const char *name, size_t n)
{
    if (!is_token(name, n) || strlen(name) != n)
        return "invalid-syntax";
    if (is_forbidden(name))
        return "forbidden";
    return o->fields->fixed ? "immutable" : NULL;
}

static void say_changed(struct in *in, const char *why)
{
    give(in, why ? v_err(v_case(why)) : v_done(true));
}

enum change { SET, APPEND, DELETE };
static void change(struct in *in, enum change how)
{
    struct obj *o = arg_res(in, 0, K_FIELDS);
    char *name = o ? arg_name(in, 1) : NULL;
    const struct wasm_val *v = name && how != DELETE ? arg(in, 2, WASM_LIST) : NULL;
    const char *why;

    if (!name || (how != DELETE && !v)) {
        free(name);
        return;
    }
    why = may_change(o, name, in->args[1].of.string.n);
    if (!why && how != APPEND) {
        struct fields *rest = fields_new();
        struct pick p = {.name = name, .rest = rest};

        each_field(o->fields, pick_one, &p);
        buf_done(&o->fields->text);
        o->fields->text = rest->text;
        rest->text = (struct buf){.max = FIELDS_BYTES};
    }
    if (!why && how == APPEND)
        why = field_put(o->fields, name, v);
    for (size_t i = 0; !why && how == SET && i < v->of.list.n; i++)
        why = field_put(o->fields, name, &v->of.list.p[i]);
    say_changed(in, why);
    free(name);
}

static void fields_set(struct in *in)
{
    change(in, SET);
}

static void fields_append(struct in *in)
{
    change(in, APPEND);
}

static void fields_delete(struct in *in)
{
    change(in, DELETE);
}

static void fields_from_list(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_LIST);
    uint32_t rep = v ? obj_new(K_FIELDS) : 0;
    const char *why = NULL;

    if (!v)
        return;
    if (rep)
        x.objs[rep].fields = fields_new();
    for (size_t i = 0; rep && !why && i < v->of.list.n; i++) {
        const struct wasm_val *pair = &v->of.list.p[i];
        char *name;

        if (pair->kind != WASM_TUPLE || pair->of.list.n != 2 || pair->of.list.p[0].kind != WASM_STRING) {
            in->trap = "an argument is not of WASI's type";
            return;
        }
        name = strndup(pair->of.list.p[0].of.string.n ? pair->of.list.p[0].of.string.p : "", pair->of.list.p[0].of.string.n);
        why = may_change(&x.objs[rep], name, pair->of.list.p[0].of.string.n);
        if (!why)
            why = field_put(x.objs[rep].fields, name, &pair->of.list.p[1]);
        free(name);
    }
    if (why && rep)
        obj_free(rep);
    give(in, why ? v_err(v_case(why)) : v_ok(v_res(in, rep)));
}

/* ---- wasi:http/types: the request ---- */

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if (*s < ' ' || *s == 0x7f)
            return false;
    return true;
}

static void request_method(struct in *in)
{
    static const struct {
        llhttp_method_t method;
        const char *name;
    } known[] = {{HTTP_GET, "get"}, {HTTP_HEAD, "head"}, {HTTP_POST, "post"}, {HTTP_PUT, "put"}, {HTTP_DELETE, "delete"},
                 {HTTP_CONNECT, "connect"}, {HTTP_OPTIONS, "options"}, {HTTP_TRACE, "trace"}, {HTTP_PATCH, "patch"}};
    const char *name = llhttp_method_name((llhttp_method_t)x.web->parser.method);
    struct wasm_val v;

    if (!arg_res(in, 0, K_REQUEST))
        return;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (x.web->parser.method == known[i].method) {
            give(in, v_case(known[i].name));
            return;
        }
    v = v_case("other");
    v.of.variant.val = boxed(v_str(name, strlen(name)));
    give(in, v);
}

static void request_path(struct in *in)
{
    if (arg_res(in, 0, K_REQUEST))
        give(in, v_some(v_str(x.web->url.p, x.web->url.n)));
}

static void request_scheme(struct in *in)
{
    const char *proto = web_field(x.web, "x-forwarded-proto");

    if (arg_res(in, 0, K_REQUEST))
        give(in, v_some(v_case(proto && strcasecmp(proto, "https") == 0 ? "HTTPS" : "HTTP")));
}

static void request_authority(struct in *in)
{
    const char *host = web_field(x.web, "host");

    if (arg_res(in, 0, K_REQUEST))
        give(in, host && is_ascii(host) ? v_some(v_str(host, strlen(host))) : v_none());
}

static void show_fields(struct in *in, enum kind of)
{
    struct obj *o = arg_res(in, 0, of);
    struct fields *f = o ? o->fields : NULL;
    uint32_t rep = o ? obj_new(K_FIELDS) : 0;

    if (!o)
        return;
    if (rep)
        x.objs[rep].fields = f;
    give(in, v_res(in, rep));
}

static void request_headers(struct in *in)
{
    show_fields(in, K_REQUEST);
}

/* What can be had once. */
static void take(struct in *in, enum kind of, enum kind kind)
{
    struct obj *o = arg_res(in, 0, of);
    uint32_t at = o ? (uint32_t)(o - x.objs) : 0, rep;

    if (!o)
        return;
    if (o->taken) {
        give(in, v_done(false));
        return;
    }
    o->taken = true;
    rep = obj_new(kind);
    o = &x.objs[at]; /* it may have moved */
    if (rep && (kind == K_OUTGOING_BODY || kind == K_OUTPUT)) {
        if (!o->body)
            o->body = hold(sizeof *o->body, true);
        x.objs[rep].body = o->body;
    }
    give(in, v_ok(v_res(in, rep)));
}

static void request_consume(struct in *in)
{
    take(in, K_REQUEST, K_INCOMING_BODY);
}

static void incoming_body_stream(struct in *in)
{
    take(in, K_INCOMING_BODY, K_INPUT);
}

/* Consumes the argument; what it was. */
static struct obj consume(struct in *in, size_t i, enum kind kind)
{
    struct obj *o = arg_res(in, i, kind), was = {0};

    if (o) {
        was = *o;
        obj_free((uint32_t)(o - x.objs));
    }
    return was;
}

static void incoming_body_finish(struct in *in)
{
    if (consume(in, 0, K_INCOMING_BODY).kind)
        give(in, v_res(in, obj_new(K_FUTURE_TRAILERS)));
}

static void trailers_get(struct in *in)
{
    if (arg_res(in, 0, K_FUTURE_TRAILERS))
        give(in, v_some(v_ok(v_ok(v_none()))));
}

/* ---- wasi:http/types: the answer ---- */

static void new_of_fields(struct in *in, enum kind kind)
{
    struct obj was = consume(in, 0, K_FIELDS);
    uint32_t rep;

    if (!was.kind)
        return;
    rep = obj_new(kind);
    if (rep) {
        was.fields->fixed = true;
        x.objs[rep].fields = was.fields;
        x.objs[rep].status = 200;
    }
    give(in, v_res(in, rep));
}

static void response_new(struct in *in)
{
    new_of_fields(in, K_RESPONSE);
}

static void response_status(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_RESPONSE);

    if (o)
        give(in, (struct wasm_val){.kind = WASM_U16, .of.u16 = o->status});
}

static void response_set_status(struct in *in)
{
    struct obj *o = arg_res(in, 0, K_RESPONSE);
    const struct wasm_val *v = o ? arg(in, 1, WASM_U16) : NULL;
    bool ok = v && v->of.u16 >= 200 && v->of.u16 <= 999;

    if (!v)
        return;
    if (ok)
        o->status = v->of.u16;
    give(in, v_done(ok));
}

static void response_headers(struct in *in)
{
    show_fields(in, K_RESPONSE);
}

static void response_body(struct in *in)
{
    take(in, K_RESPONSE, K_OUTGOING_BODY);
}

static void outgoing_body_write(struct in *in)
{
    take(in, K_OUTGOING_BODY, K_OUTPUT);
}

static void outgoing_body_finish(struct in *in)
{
    const struct wasm_val *t = in->n > 1 ? arg(in, 1, WASM_OPTION) : NULL;
    struct obj was = consume(in, 0, K_OUTGOING_BODY), *f = NULL;
    uint32_t rep = was.kind && t && t->of.option ? rep_of(in, t->of.option, K_FIELDS) : 0;
    struct buf lines = {0};
    bool ok = true;

    if (!was.kind || in->trap)
        return;
    f = rep ? &x.objs[rep] : NULL;
    if (was.body) {
        if (f && !x.web->answered && was.body->mine && x.set)
            ok = flush(was.body); /* with trailers it has to be in chunks */
        was.body->finished = true;
        if (f && was.body->mine && x.set && (ok = flush(was.body))) {
            int64_t length = x.length;

            each_field(f->fields, add_line, &lines);
            x.length = length;
            ok = web_end(x.web, lines.n ? lines.p : "", lines.n);
            x.cut = true; /* it has been ended here; the connection says the rest */
            x.web->close = !ok;
        }
    }
    buf_done(&lines);
    if (rep)
        obj_free(rep);
    give(in, ok ? v_done(true) : v_err(v_case("HTTP-protocol-error")));
}

static void outparam_set(struct in *in)
{
    const struct wasm_val *v = arg(in, 1, WASM_RESULT);
    uint32_t rep = 0;
    struct obj o;

    if (!v || !consume(in, 0, K_OUTPARAM).kind)
        return;
    if (x.set) {
        in->trap = "the answer was set before";
        return;
    }
    if (v->of.result.ok && v->of.result.val)
        rep = rep_of(in, v->of.result.val, K_RESPONSE);
    if (in->trap)
        return;
    if (!rep) {
        struct buf text = {0};
        const struct wasm_val *why = v->of.result.val;

        buf_adds(&text, "the component answers with the error ");
        if (why && why->kind == WASM_VARIANT && why->of.variant.name.n)
            buf_add(&text, why->of.variant.name.p, why->of.variant.name.n);
        wasm_log_error("Runtime.ErrorCode", &text);
        buf_done(&text);
        return; /* nothing is set: 502 */
    }
    o = x.objs[rep];
    obj_free(rep);
    x.set = true;
    x.status = o.status;
    x.answer_fields = o.fields;
    x.answer_body = o.body ? o.body : hold(sizeof *o.body, true);
    x.answer_body->mine = true;
    x.answer_body->finished |= !o.body;
}

/* ---- requests that go out: there is no network ---- */

static void outgoing_request_new(struct in *in)
{
    new_of_fields(in, K_OUTGOING_REQUEST);
}

static void outgoing_request_body(struct in *in)
{
    take(in, K_OUTGOING_REQUEST, K_OUTGOING_BODY);
}

static void outgoing_request_headers(struct in *in)
{
    show_fields(in, K_OUTGOING_REQUEST);
}

static void options_new(struct in *in)
{
    give(in, v_res(in, obj_new(K_OPTIONS)));
}

static void fine(struct in *in)
{
    give(in, v_done(true));
}

static void none(struct in *in)
{
    give(in, v_none());
}

static void handle_out(struct in *in)
{
    const struct wasm_val *t = in->n > 1 ? arg(in, 1, WASM_OPTION) : NULL;
    uint32_t rep = t && t->of.option ? rep_of(in, t->of.option, K_OPTIONS) : 0;

    if (!consume(in, 0, K_OUTGOING_REQUEST).kind || in->trap)
        return;
    if (rep)
        obj_free(rep);
    give(in, v_err(v_case("HTTP-request-denied")));
}

/* ---- wasi:cli, clocks, random, filesystem ---- */

static void environment(struct in *in)
{
    size_t n = 0;

    while (x.env[n * 2])
        n++;
    give(in, v_list(WASM_LIST, n));
    for (size_t i = 0; i < n; i++) {
        struct wasm_val pair = v_list(WASM_TUPLE, 2);

        pair.of.list.p[0] = v_str(x.env[2 * i], strlen(x.env[2 * i]));
        pair.of.list.p[1] = v_str(x.env[2 * i + 1], strlen(x.env[2 * i + 1]));
        in->ret.of.list.p[i] = pair;
    }
}

static void no_list(struct in *in)
{
    give(in, v_list(WASM_LIST, 0));
}

static void exit_now(struct in *in)
{
    x.exited = true;
    in->trap = "it exits";
}

static void stdin_get(struct in *in)
{
    uint32_t rep = obj_new(K_INPUT);

    if (rep)
        x.objs[rep].what = STREAM_NONE;
    give(in, v_res(in, rep));
}

static void log_get(struct in *in)
{
    uint32_t rep = obj_new(K_OUTPUT);

    if (rep)
        x.objs[rep].what = STREAM_LOG;
    give(in, v_res(in, rep));
}

static void clock_now(struct in *in)
{
    give(in, v_u64(now_ns(CLOCK_MONOTONIC)));
}

static void one(struct in *in)
{
    give(in, v_u64(1));
}

static void subscribe_instant(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_U64);

    if (v)
        new_pollable(in, READY_AT, v->of.u64);
}

static void subscribe_duration(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_U64);
    uint64_t now = now_ns(CLOCK_MONOTONIC);

    if (v)
        new_pollable(in, READY_AT, v->of.u64 > UINT64_MAX - now ? UINT64_MAX : now + v->of.u64);
}

static void datetime(struct in *in, uint64_t seconds, uint32_t nanoseconds)
{
    struct wasm_val v = {.kind = WASM_RECORD};

    wasm_abi.wasmtime_component_valrecord_new_uninit(&v.of.record, 2);
    v.of.record.p[0] = (struct wasm_field){bytes_of("seconds", 7), v_u64(seconds)};
    v.of.record.p[1] = (struct wasm_field){bytes_of("nanoseconds", 11), {.kind = WASM_U32, .of.u32 = nanoseconds}};
    give(in, v);
}

static void wall_now(struct in *in)
{
    uint64_t now = now_ns(CLOCK_REALTIME);

    datetime(in, now / 1000000000, (uint32_t)(now % 1000000000));
}

static void wall_resolution(struct in *in)
{
    datetime(in, 0, 1);
}

static void random_fill(void *p, size_t n)
{
    for (char *at = p; n;) {
        ssize_t got = getrandom(at, n, 0);

        if (got < 0 && errno != EINTR)
            abort();
        at += MAX(got, (ssize_t)0);
        n -= (size_t)MAX(got, (ssize_t)0);
    }
}

static void random_u64(struct in *in)
{
    uint64_t n;

    random_fill(&n, sizeof n);
    give(in, v_u64(n));
}

static void random_bytes(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_U64);
    char *p;

    if (v && v->of.u64 > RANDOM_MAX)
        in->trap = "it wants more than 1 MB of random bytes at once";
    if (!v || in->trap)
        return;
    p = xmalloc((size_t)v->of.u64 + 1);
    random_fill(p, (size_t)v->of.u64);
    give(in, v_bytes(p, (size_t)v->of.u64));
    free(p);
}

static void random_seed(struct in *in)
{
    uint64_t n[2];

    random_fill(n, sizeof n);
    give(in, v_list(WASM_TUPLE, 2));
    in->ret.of.list.p[0] = v_u64(n[0]);
    in->ret.of.list.p[1] = v_u64(n[1]);
}

static void network_get(struct in *in)
{
    give(in, v_res(in, obj_new(K_OTHER)));
}

/* ---- the table ---- */

typedef void host_fn(struct in *in);
static const struct function {
    const char *interface, *name;
    host_fn *fn;
} FUNCTIONS[] = {
    {"wasi:io/error", "[method]error.to-debug-string", error_text},
    {"wasi:io/poll", "[method]pollable.ready", pollable_ready},
    {"wasi:io/poll", "[method]pollable.block", pollable_block},
    {"wasi:io/poll", "poll", poll_list},
    {"wasi:io/streams", "[method]input-stream.read", input_read},
    {"wasi:io/streams", "[method]input-stream.blocking-read", input_blocking_read},
    {"wasi:io/streams", "[method]input-stream.skip", input_skip},
    {"wasi:io/streams", "[method]input-stream.blocking-skip", input_blocking_skip},
    {"wasi:io/streams", "[method]input-stream.subscribe", input_subscribe},
    {"wasi:io/streams", "[method]output-stream.check-write", output_check_write},
    {"wasi:io/streams", "[method]output-stream.write", output_write},
    {"wasi:io/streams", "[method]output-stream.blocking-write-and-flush", output_write_flush},
    {"wasi:io/streams", "[method]output-stream.flush", output_flush},
    {"wasi:io/streams", "[method]output-stream.blocking-flush", output_flush},
    {"wasi:io/streams", "[method]output-stream.subscribe", always_ready},
    {"wasi:io/streams", "[method]output-stream.write-zeroes", output_zeroes},
    {"wasi:io/streams", "[method]output-stream.blocking-write-zeroes-and-flush", output_zeroes_flush},
    {"wasi:io/streams", "[method]output-stream.splice", output_splice},
    {"wasi:io/streams", "[method]output-stream.blocking-splice", output_blocking_splice},
    {"wasi:http/types", "http-error-code", none},
    {"wasi:http/types", "[constructor]fields", fields_new_empty},
    {"wasi:http/types", "[static]fields.from-list", fields_from_list},
    {"wasi:http/types", "[method]fields.get", fields_get},
    {"wasi:http/types", "[method]fields.has", fields_has},
    {"wasi:http/types", "[method]fields.set", fields_set},
    {"wasi:http/types", "[method]fields.delete", fields_delete},
    {"wasi:http/types", "[method]fields.append", fields_append},
    {"wasi:http/types", "[method]fields.entries", fields_entries},
    {"wasi:http/types", "[method]fields.clone", fields_clone},
    {"wasi:http/types", "[method]incoming-request.method", request_method},
    {"wasi:http/types", "[method]incoming-request.path-with-query", request_path},
    {"wasi:http/types", "[method]incoming-request.scheme", request_scheme},
    {"wasi:http/types", "[method]incoming-request.authority", request_authority},
    {"wasi:http/types", "[method]incoming-request.headers", request_headers},
    {"wasi:http/types", "[method]incoming-request.consume", request_consume},
    {"wasi:http/types", "[method]incoming-body.stream", incoming_body_stream},
    {"wasi:http/types", "[static]incoming-body.finish", incoming_body_finish},
    {"wasi:http/types", "[method]future-trailers.subscribe", always_ready},
    {"wasi:http/types", "[method]future-trailers.get", trailers_get},
    {"wasi:http/types", "[constructor]outgoing-response", response_new},
    {"wasi:http/types", "[method]outgoing-response.status-code", response_status},
    {"wasi:http/types", "[method]outgoing-response.set-status-code", response_set_status},
    {"wasi:http/types", "[method]outgoing-response.headers", response_headers},
    {"wasi:http/types", "[method]outgoing-response.body", response_body},
    {"wasi:http/types", "[method]outgoing-body.write", outgoing_body_write},
    {"wasi:http/types", "[static]outgoing-body.finish", outgoing_body_finish},
    {"wasi:http/types", "[static]response-outparam.set", outparam_set},
    {"wasi:http/types", "[constructor]outgoing-request", outgoing_request_new},
    {"wasi:http/types", "[method]outgoing-request.body", outgoing_request_body},
    {"wasi:http/types", "[method]outgoing-request.headers", outgoing_request_headers},
    {"wasi:http/types", "[method]outgoing-request.set-method", fine},
    {"wasi:http/types", "[method]outgoing-request.set-path-with-query", fine},
    {"wasi:http/types", "[method]outgoing-request.set-scheme", fine},
    {"wasi:http/types", "[method]outgoing-request.set-authority", fine},
    {"wasi:http/types", "[constructor]request-options", options_new},
    {"wasi:http/types", "[method]request-options.connect-timeout", none},
    {"wasi:http/types", "[method]request-options.first-byte-timeout", none},
    {"wasi:http/types", "[method]request-options.between-bytes-timeout", none},
    {"wasi:http/types", "[method]request-options.set-connect-timeout", fine},
    {"wasi:http/types", "[method]request-options.set-first-byte-timeout", fine},
    {"wasi:http/types", "[method]request-options.set-between-bytes-timeout", fine},
    {"wasi:http/outgoing-handler", "handle", handle_out},
    {"wasi:cli/environment", "get-environment", environment},
    {"wasi:cli/environment", "get-arguments", no_list},
    {"wasi:cli/environment", "initial-cwd", none},
    {"wasi:cli/exit", "exit", exit_now},
    {"wasi:cli/exit", "exit-with-code", exit_now},
    {"wasi:cli/stdin", "get-stdin", stdin_get},
    {"wasi:cli/stdout", "get-stdout", log_get},
    {"wasi:cli/stderr", "get-stderr", log_get},
    {"wasi:cli/terminal-stdin", "get-terminal-stdin", none},
    {"wasi:cli/terminal-stdout", "get-terminal-stdout", none},
    {"wasi:cli/terminal-stderr", "get-terminal-stderr", none},
    {"wasi:clocks/monotonic-clock", "now", clock_now},
    {"wasi:clocks/monotonic-clock", "resolution", one},
    {"wasi:clocks/monotonic-clock", "subscribe-instant", subscribe_instant},
    {"wasi:clocks/monotonic-clock", "subscribe-duration", subscribe_duration},
    {"wasi:clocks/wall-clock", "now", wall_now},
    {"wasi:clocks/wall-clock", "resolution", wall_resolution},
    {"wasi:random/random", "get-random-bytes", random_bytes},
    {"wasi:random/random", "get-random-u64", random_u64},
    {"wasi:random/insecure", "get-insecure-random-bytes", random_bytes},
    {"wasi:random/insecure", "get-insecure-random-u64", random_u64},
    {"wasi:random/insecure-seed", "insecure-seed", random_seed},
    {"wasi:filesystem/preopens", "get-directories", no_list},
    {"wasi:filesystem/types", "filesystem-error-code", none},
    {"wasi:sockets/instance-network", "instance-network", network_get},
};

/* ---- calls ---- */

static void *on_call(void *arg_, void *context, const void *type, struct wasm_val *args, size_t n, struct wasm_val *rets, size_t rets_n)
{
    const struct function *f = arg_;
    struct in in = {.interface = f->interface, .name = f->name, .context = context, .args = args, .n = n};

    (void)type;
    f->fn(&in);
    for (size_t i = 0; i < n; i++)
        release(context, &args[i]);
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
        release(context, &args[i]);
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
        error = wasm_abi.wasmtime_component_linker_instance_add_resource(to, name, n, type, on_drop, (void *)(uintptr_t)kind, NULL);
        wasm_abi.wasmtime_component_resource_type_delete(type);
        return error;
    }
    for (size_t i = 0; i < ARRAY_LEN(FUNCTIONS); i++)
        if (same(interface, interface_n, FUNCTIONS[i].interface) && same(name, n, FUNCTIONS[i].name))
            return wasm_abi.wasmtime_component_linker_instance_add_func(to, name, n, on_call, (void *)&FUNCTIONS[i], NULL);
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

    x.web = w;
    x.context = context;
    x.env = env;
    x.objs_n = x.objs_n ? 1 : 0;
    x.free = 0;
    if (!x.objs_n)
        obj_new(K_OTHER); /* 0 is none */
    x.set = x.exited = x.cut = false;
    x.length = -1;
    request = obj_new(K_REQUEST);
    x.objs[request].fields = fields_new();
    for (size_t at = 0; at < w->fields.n;) {
        const char *name = w->fields.p + at, *value = name + strlen(name) + 1;

        if (!is_forbidden(name) && is_ascii(name))
            field_add(x.objs[request].fields, name, value, strlen(value));
        at = (size_t)(value - w->fields.p) + strlen(value) + 1;
    }
    x.objs[request].fields->fixed = true;
    ret_args[0] = v_res(&in, request);
    ret_args[1] = v_res(&in, obj_new(K_OUTPARAM));
    return !in.trap;
}

bool wasm_host_end(bool failed)
{
    bool good = false;

    if (x.cut)
        good = !x.web->close && !x.web->answered;
    else if (!x.set)
        good = !x.web->answered && !wasm_late() && web_refuse(x.web, 502, "Internal Server Error");
    else if (failed && !x.web->answered && !x.answer_body->finished)
        good = web_refuse(x.web, 502, "Internal Server Error");
    else if (x.answer_body->finished)
        good = flush(x.answer_body) && web_end(x.web, "", 0);
    for (uint32_t i = 0; i < x.held_n; i++) {
        buf_done(x.held_body[i] ? &((struct body *)x.held[i])->data : &((struct fields *)x.held[i])->text);
        free(x.held[i]);
    }
    x.held_n = 0;
    x.fields_bytes = 0;
    return good;
}

bool wasm_host_exited(void)
{
    return x.exited;
}
