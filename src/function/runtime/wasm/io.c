/* io.c of zygote.so - wasi:io of an HTTP component: pollables, the streams of bodies and of the log; see host.h.
 *
 * Whoever waits here waits for the one connection (web.h) and for clocks, and ends when the time limit has gone by. */
#include "function/runtime/wasm/host.h"

#include <poll.h>

enum {
    SAY_BYTES = 64 << 10,   /* written and not sent, as check-write has it */
    UNSENT_BYTES = 1 << 20, /* the same of who does not ask; an answer that was not set yet cannot be sent */
    POLL_MAX = 1024,
};

/* ---- pollables and what is read ---- */

static void error_text(struct in *in)
{
    give(in, v_str("the stream is broken", 20));
}

static bool is_ready(const struct obj *o)
{
    return o->what == READY_BODY ? web_readable(wasm_req.web) : o->what == READY_AT ? now_ns(CLOCK_MONOTONIC) >= o->at_ns : true;
}

/* Sleeps until one of them may be ready. */
static void sleep_for(struct in *in, struct obj *const *list, size_t n)
{
    struct pollfd p = {wasm_req.web->fd, POLLIN, 0};
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
    struct obj *o = wasm_arg_res(in, 0, K_POLLABLE);

    if (o)
        give(in, v_bool(is_ready(o)));
}

static void pollable_block(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_POLLABLE);

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
        uint32_t rep = wasm_rep_of(in, &v->of.list.p[i], K_POLLABLE);

        if (!rep)
            return;
        list[n++] = &wasm_req.objs[rep];
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

void wasm_new_pollable(struct in *in, uint8_t what, uint64_t at_ns)
{
    uint32_t rep = wasm_obj_new(K_POLLABLE);

    if (rep) {
        wasm_req.objs[rep].what = what;
        wasm_req.objs[rep].at_ns = at_ns;
    }
    give(in, wasm_resource(in, rep));
}

static void input_subscribe(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_INPUT);

    if (o)
        wasm_new_pollable(in, o->what == STREAM_BODY ? READY_BODY : READY_ALWAYS, 0);
}

void wasm_always_ready(struct in *in)
{
    wasm_new_pollable(in, READY_ALWAYS, 0);
}

/* How many bytes came into p; -1: the call was answered, there are none. */
static int input_take(struct in *in, char *p, size_t max, bool wait)
{
    struct obj *o = wasm_arg_res(in, 0, K_INPUT);
    const struct wasm_val *want = o ? arg(in, 1, WASM_U64) : NULL;
    int n;

    if (!want)
        return -1;
    n = o->what != STREAM_BODY ? -1 : want->of.u64 ? web_read(wasm_req.web, p, (size_t)MIN(want->of.u64, (uint64_t)max), wait) : 0;
    wasm_alive();
    if (n >= 0)
        return n;
    if (wasm_late())
        in->trap = "its time limit has come";
    else if (n == -2) {
        struct wasm_val v = v_case("last-operation-failed");

        v.of.variant.val = boxed(wasm_resource(in, wasm_obj_new(K_ERROR)));
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

/* ---- what is written ---- */

/* The bytes are a list, or zeroes. False: it was answered with an error. */
static bool output_put(struct in *in, bool zeroes, struct body **ret)
{
    struct obj *o = wasm_arg_res(in, 0, K_OUTPUT);
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
        (void)wasm_flush(o->body);
    if (b->n > UNSENT_BYTES || (zeroes ? v->of.u64 > SAY_BYTES || !buf_reserve(b, (size_t)v->of.u64 + 1) : !wasm_add_bytes(v, b))) {
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
    struct obj *o = wasm_arg_res(in, 0, K_OUTPUT);

    return o ? o->body : NULL;
}

/* NULL: the log, which is written at once. */
static void send_body(struct in *in, struct body *b)
{
    if (b && !wasm_flush(b)) {
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
    if (b && wasm_req.set && b->mine && b->data.n >= SAY_BYTES / 2)
        (void)wasm_flush(b);
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
    struct obj *to = wasm_arg_res(in, 0, K_OUTPUT), *from = to ? wasm_arg_res(in, 1, K_INPUT) : NULL;
    const struct wasm_val *want = from ? arg(in, 2, WASM_U64) : NULL;
    char piece[WEB_PIECE];
    int n;

    if (!want)
        return;
    if (to->what != STREAM_BODY || from->what != STREAM_BODY || to->body->broken || to->body->finished || to->body->data.n > UNSENT_BYTES) {
        closed(in);
        return;
    }
    n = web_read(wasm_req.web, piece, (size_t)MIN(want->of.u64, (uint64_t)sizeof piece), wait);
    if (n < 0 || (n > 0 && !(buf_add(&to->body->data, piece, (size_t)n), wasm_flush(to->body)))) {
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

/* ---- the rows ---- */

const struct wasm_function wasm_io_functions[] = {
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
    {"wasi:io/streams", "[method]output-stream.subscribe", wasm_always_ready},
    {"wasi:io/streams", "[method]output-stream.write-zeroes", output_zeroes},
    {"wasi:io/streams", "[method]output-stream.blocking-write-zeroes-and-flush", output_zeroes_flush},
    {"wasi:io/streams", "[method]output-stream.splice", output_splice},
    {"wasi:io/streams", "[method]output-stream.blocking-splice", output_blocking_splice},
    {0},
};
