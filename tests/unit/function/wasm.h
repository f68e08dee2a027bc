/* tests/unit/function/wasm.h - modules for tests and benches, from their text form by wasmtime's own wat2wasm. */
#pragma once

#include "host.h"

#include <dlfcn.h>

/* What the first byte of the payload says: e echo · v environment (as WASI gives it: NAME=VALUE and a 0 each) · a arguments ·
 * t trap · l loop without end · s sleep for a minute · g take memory until it is refused, then give up as allocators do ·
 * w take it and write to all of it, too · b print without end · x exit with 3 · p print to standard error · c count ·
 * f the size of the file that the rest of the payload names, below the third preopened folder (/var/task, /tmp, ...), or its error. */
static const char WAT_IMPORTS[] =
    "(module\n"
    "  (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"environ_get\" (func $environ (param i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"environ_sizes_get\" (func $environ_sizes (param i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"args_get\" (func $args (param i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"args_sizes_get\" (func $args_sizes (param i32 i32) (result i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))\n"
    "  (import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))\n"
    "";
static const char WAT_OPEN[] =
    "  (import \"wasi_snapshot_preview1\" \"path_open\" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))\n";
static const char WAT_BODY[] =
    "  (memory (export \"memory\") 4)\n"
    "  (global $n (mut i32) (i32.const 48))\n"
    "  (func $print (param $fd i32) (param $at i32) (param $n i32) (result i32)\n"
    "    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $n))\n"
    "    (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))\n"
    "  (func (export \"_start\") (local $n i32) (local $c i32)\n"
    "    (block $done (loop $more\n" /* the payload to 1024 and up, at most 64 KiB of it */
    "      (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $n)))\n"
    "      (i32.store (i32.const 4) (i32.sub (i32.const 65536) (local.get $n)))\n"
    "      (br_if $done (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))\n"
    "      (br_if $done (i32.eqz (i32.load (i32.const 8))))\n"
    "      (local.set $n (i32.add (local.get $n) (i32.load (i32.const 8))))\n"
    "      (br $more)))\n"
    "    (local.set $c (i32.load8_u (i32.const 1024)))\n"
    "    (if (i32.eq (local.get $c) (i32.const 101)) (then (drop (call $print (i32.const 1) (i32.const 1024) (local.get $n)))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 118)) (then\n"
    "      (drop (call $environ_sizes (i32.const 16) (i32.const 20)))\n"
    "      (drop (call $environ (i32.const 131072) (i32.const 135168)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 135168) (i32.load (i32.const 20))))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 97)) (then\n"
    "      (drop (call $args_sizes (i32.const 16) (i32.const 20)))\n"
    "      (drop (call $args (i32.const 131072) (i32.const 135168)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 135168) (i32.load (i32.const 20))))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 116)) (then (drop (i32.div_u (local.get $n) (i32.const 0)))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 108)) (then (loop $ever (br $ever))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 115)) (then\n" /* one subscription to the monotonic clock: 60 s */
    "      (i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const 60000000000))\n"
    "      (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8)))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 103)) (then\n"
    "      (loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)))\n"
    "    (if (i32.eq (local.get $c) (i32.const 119)) (then\n"
    "      (loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))\n"
    "      (memory.fill (i32.const 200000) (i32.const 7) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 200000)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 1024) (local.get $n)))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 98)) (then (loop $ever\n"
    "      (drop (call $print (i32.const 1) (i32.const 1024) (i32.const 65536))) (br $ever))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 120)) (then (call $exit (i32.const 3))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 112)) (then\n"
    "      (drop (call $print (i32.const 2) (i32.const 1024) (local.get $n)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 1024) (i32.const 1)))))\n"
    "    (if (i32.eq (local.get $c) (i32.const 99)) (then\n"
    "      (global.set $n (i32.add (global.get $n) (i32.const 1)))\n"
    "      (i32.store8 (i32.const 100000) (i32.add (i32.load8_u (i32.const 100000)) (global.get $n)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 100000) (i32.const 1)))))\n"
    "";
static const char WAT_FILE[] =
    "    (if (i32.eq (local.get $c) (i32.const 102)) (then\n"
    "      (local.set $c (call $open (i32.const 5) (i32.const 0) (i32.const 1025) (i32.sub (local.get $n) (i32.const 1))\n"
    "        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))\n"
    "      (if (local.get $c) (then (call $exit (local.get $c))))\n"
    "      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1000))\n"
    "      (drop (call $read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))\n"
    "      (drop (call $print (i32.const 1) (i32.const 1024) (i32.load (i32.const 8))))))\n";

/* files: it can open some, and then wasmtime's own standard streams serve it, not ours. The caller's. */
static inline char *wat_text(bool files)
{
    return xasprintf("%s%s%s%s))\n", WAT_IMPORTS, files ? WAT_OPEN : "", WAT_BODY, files ? WAT_FILE : "");
}

struct wat_bytes {
    size_t n;
    char *p;
};

/* False: there is no library, or the text is wrong. */
static inline bool wat_compile(const char *text, struct wat_bytes *ret)
{
    const char *named = getenv("TANDEM_WASMTIME");
    void *lib = dlopen(named ? named : WASMTIME_LIBRARY, RTLD_NOW);
    void *(*compile)(const char *, size_t, struct wat_bytes *) = NULL;

    if (lib)
        *(void **)&compile = dlsym(lib, "wasmtime_wat2wasm");
    return compile && compile(text, strlen(text), ret) == NULL;
}

static inline void wat_free(struct wat_bytes *wasm)
{
    const char *named = getenv("TANDEM_WASMTIME");
    void (*done)(struct wat_bytes *);

    *(void **)&done = dlsym(dlopen(named ? named : WASMTIME_LIBRARY, RTLD_NOW), "wasm_byte_vec_delete");
    done(wasm);
}

/* The module as a function's code; spec as in host_put(). False as wat_compile(). */
static inline bool host_wasm(struct host *h, const char *name, const char *wat, const char *spec)
{
    struct wat_bytes wasm;
    struct buf zip = {0}, all = {0};
    char sha[CODE_HEX];
    struct err err;

    if (!wat_compile(wat, &wasm))
        return false;
    host_zip_bytes(&zip, "main.wasm", wasm.p, wasm.n, 0644);
    wat_free(&wasm);
    if (code_put(h->state, zip.p, zip.n, sha, &err) < 0)
        abort();
    buf_printf(&all, "\"runtime\":\"wasm\",\"handler\":\"main.wasm\"%s%s", *spec ? "," : "", spec);
    host_put(h, name, sha, all.p);
    buf_done(&all);
    buf_done(&zip);
    return true;
}
