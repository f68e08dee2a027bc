/* cli.c of zygote.so - what of wasi:cli, clocks and random an HTTP component needs, and the little of files and sockets that
 * all import; see host.h.
 *
 * Standard output and error are the log, standard input is at its end. There are no files and no network. */
#include "function/runtime/wasm/host.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum { RANDOM_MAX = 1 << 20 };

static void environment(struct in *in)
{
    size_t n = 0;

    while (wasm_req.env[n * 2])
        n++;
    give(in, v_list(WASM_LIST, n));
    for (size_t i = 0; i < n; i++) {
        struct wasm_val pair = v_list(WASM_TUPLE, 2);

        pair.of.list.p[0] = v_str(wasm_req.env[2 * i], strlen(wasm_req.env[2 * i]));
        pair.of.list.p[1] = v_str(wasm_req.env[2 * i + 1], strlen(wasm_req.env[2 * i + 1]));
        in->ret.of.list.p[i] = pair;
    }
}

static void no_list(struct in *in)
{
    give(in, v_list(WASM_LIST, 0));
}

static void exit_now(struct in *in)
{
    wasm_req.exited = true;
    in->trap = "it exits";
}

static void stdin_get(struct in *in)
{
    uint32_t rep = wasm_obj_new(K_INPUT);

    if (rep)
        wasm_req.objs[rep].what = STREAM_NONE;
    give(in, wasm_resource(in, rep));
}

static void log_get(struct in *in)
{
    uint32_t rep = wasm_obj_new(K_OUTPUT);

    if (rep)
        wasm_req.objs[rep].what = STREAM_LOG;
    give(in, wasm_resource(in, rep));
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
        wasm_new_pollable(in, READY_AT, v->of.u64);
}

static void subscribe_duration(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_U64);
    uint64_t now = now_ns(CLOCK_MONOTONIC);

    if (v)
        wasm_new_pollable(in, READY_AT, v->of.u64 > UINT64_MAX - now ? UINT64_MAX : now + v->of.u64);
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
    give(in, wasm_resource(in, wasm_obj_new(K_OTHER)));
}

/* ---- the rows ---- */

const struct wasm_function wasm_cli_functions[] = {
    {"wasi:cli/environment", "get-environment", environment},
    {"wasi:cli/environment", "get-arguments", no_list},
    {"wasi:cli/environment", "initial-cwd", wasm_none},
    {"wasi:cli/exit", "exit", exit_now},
    {"wasi:cli/exit", "exit-with-code", exit_now},
    {"wasi:cli/stdin", "get-stdin", stdin_get},
    {"wasi:cli/stdout", "get-stdout", log_get},
    {"wasi:cli/stderr", "get-stderr", log_get},
    {"wasi:cli/terminal-stdin", "get-terminal-stdin", wasm_none},
    {"wasi:cli/terminal-stdout", "get-terminal-stdout", wasm_none},
    {"wasi:cli/terminal-stderr", "get-terminal-stderr", wasm_none},
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
    {"wasi:filesystem/types", "filesystem-error-code", wasm_none},
    {"wasi:sockets/instance-network", "instance-network", network_get},
    {0},
};
