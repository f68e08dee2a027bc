/* Goal: a Wasm module is a function like others - its answers, its errors in the platform's form, its limits - and one call
 * never sees what another left. Method: one module that does what its payload says, in real zygotes and instances.
 * Needs root and wasmtime's library; says so and passes without. */
#include "tt.h"

#include "function/wasm.h"

#include <fcntl.h>
#include <sched.h>

static struct host H;

static void want(const char *event, const char *payload)
{
    struct answer a;

    host_call(&H, "w", event, &a);
    if (a.err.code != ERR_OK || a.error || !a.payload || !streq(a.payload, payload))
        fprintf(stderr, "err=%d %s error=%s payload=%s\n%s\n", a.err.code, a.err.msg, a.error ? a.error : "-",
                a.payload ? a.payload : "-", a.tail ? a.tail : "");
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    assert_string_equal(a.payload, payload);
    answer_done(&a);
}

static void want_error(const char *event, const char *type, const char *part, const char *in_log)
{
    struct answer a;

    host_call(&H, "w", event, &a);
    if (a.err.code != ERR_OK || !a.error || !strstr(a.payload, type) || !strstr(a.payload, part) || !strstr(a.tail, in_log))
        fprintf(stderr, "want %s, %s and %s, got err=%d %s error=%s payload=%.500s\n%.2000s\n", type, part, in_log, a.err.code, a.err.msg,
                a.error ? a.error : "-", a.payload ? a.payload : "-", a.tail ? a.tail : "");
    assert_int_equal(a.err.code, ERR_OK);
    assert_string_equal(a.error, "Unhandled");
    assert_non_null(strstr(a.payload, type));
    assert_non_null(strstr(a.payload, part));
    assert_non_null(strstr(a.tail, in_log));
    answer_done(&a);
}

/* How many processes of it have been started. */
static int64_t cold_starts(void)
{
    struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    int64_t n = -1;

    functions_meter_json(H.fs, &b);
    VAL_EACH(val_get(json_parse(a, b.p, b.n, &err), "functions"), it)
    if (streq(val_str_at(it, "name", ""), "w"))
        n = val_int_at(it, "cold_starts", -1);
    buf_done(&b);
    arena_free(a);
    return n;
}

static const char SPEC[] = "\"timeoutSeconds\":2,\"memoryMB\":64,\"environment\":{\"MINE\":\"yes\"}";

static bool put(bool files, const char *spec)
{
    _auto_(freep) char *text = wat_text(files);

    return host_wasm(&H, "w", text, spec);
}

static void answers_and_logs(void **state)
{
    struct answer a;

    host_call(&H, "w", "echo this", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_string_equal(a.payload, "echo this");
    assert_true(a.cold && a.init_us > 0);
    assert_non_null(strstr(a.tail, "START RequestId: "));
    assert_non_null(strstr(a.tail, " MB\tInit Duration: "));
    answer_done(&a);
    host_call(&H, "w", "print", &a);
    assert_string_equal(a.payload, "p");
    assert_false(a.cold);
    assert_non_null(strstr(a.tail, "\nprint\nEND RequestId: "));
    answer_done(&a);
    want("a", "main.wasm");
}

static void environment_is_whole(void **state)
{
    struct answer a;
    bool mine = false, id = false, name = false, trace = false;

    host_call(&H, "w", "v", &a);
    for (size_t at = 0; at < a.n; at += strlen(a.payload + at) + 1) {
        const char *e = a.payload + at;

        mine |= streq(e, "MINE=yes");
        name |= streq(e, "AWS_LAMBDA_FUNCTION_NAME=w");
        id |= str_starts(e, "LAMBDA_RUNTIME_AWS_REQUEST_ID=") && streq(strchr(e, '=') + 1, a.id);
        trace |= str_starts(e, "TOKIO") || str_starts(e, "LD_PRELOAD");
    }
    assert_true(mine && name && id && !trace);
    answer_done(&a);
}

static void calls_share_nothing(void **state)
{
    for (int i = 0; i < 5; i++)
        want("c", "1");
}

static void errors_are_the_platforms(void **state)
{
    int64_t before = cold_starts();

    want_error("t", "\"errorType\":\"Runtime.Trap\"", "integer divide by zero", "[ERROR] Runtime.Trap: RequestId: ");
    want_error("x", "\"errorType\":\"Runtime.ExitError\"", "Runtime exited with error: exit status 3", "[ERROR] Runtime.ExitError");
    want_error("l", "\"errorType\":\"Sandbox.Timedout\"", "Task timed out after 2.00 seconds", "Task timed out after 2.00 seconds");
    want_error("g", "\"errorType\":\"Runtime.OutOfMemory\"", "of 56 MB", "[ERROR] Runtime.OutOfMemory");
    want("echo", "echo");
    assert_int_equal(cold_starts(), before); /* the process outlives what its modules do */
}

static void answers_have_a_limit(void **state)
{
    assert_true(put(false, "\"timeoutSeconds\":30,\"memoryMB\":64")); /* 6 MB are some work on a busy machine */
    want_error("b", "\"errorType\":\"Function.ResponseSizeTooLarge\"", "6291556 bytes", "END RequestId: ");
    want("echo", "echo");
    assert_true(put(false, SPEC));
}

static void who_waits_is_ended(void **state)
{
    want_error("s", "\"errorType\":\"Sandbox.Timedout\"", "Task timed out after 2.00 seconds", "Task timed out");
    want("echo", "echo");
}

static void memory_can_be_used(void **state)
{
    want("w", "w"); /* all that it may have, written to */
    want("echo", "echo");
}

/* A module that hands our fd_read or fd_write these, and exits with what it says. */
static void want_errno(const char *which, unsigned fd, unsigned at, unsigned n, unsigned ret, int want_status)
{
    _auto_(freep) char *text = xasprintf(
        "(module (import \"wasi_snapshot_preview1\" \"%s\" (func $f (param i32 i32 i32 i32) (result i32)))"
        " (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (memory (export \"memory\") 1)"
        " (func (export \"_start\") (i32.store (i32.const 8) (i32.const 65530)) (i32.store (i32.const 12) (i32.const 7))"
        " (i32.store (i32.const 24) (i32.const -1)) (i32.store (i32.const 28) (i32.const -1))"
        " (call $exit (call $f (i32.const %u) (i32.const %u) (i32.const %u) (i32.const %u)))))", which, fd, at, n, ret);
    char status[48];

    assert_true(host_wasm(&H, "w", text, SPEC));
    snprintf(status, sizeof status, "exit status %d\"", want_status);
    if (want_status)
        want_error("payload", "Runtime.ExitError", status, "exit status");
    else
        want("payload", "");
}

static void pointers_are_looked_at(void **state)
{
    static const char *const both[] = {"fd_read", "fd_write"};

    for (unsigned i = 0; i < 2; i++) {
        want_errno(both[i], i, 0, 0, 40, 0);
        want_errno(both[i], i, 0, 1, 40, 0);             /* a vector of 0 bytes at 0 */
        want_errno(both[i], i, 8, 1, 40, 21);            /* its end is one byte behind the memory's */
        want_errno(both[i], i, 24, 1, 40, 21);           /* 4 GB at 4 GB */
        want_errno(both[i], i, 65532, 1, 40, 21);        /* the vector itself is cut */
        want_errno(both[i], i, 0xffffffff, 1, 40, 21);
        want_errno(both[i], i, 0, 1, 65533, 21);         /* no place for the number */
        want_errno(both[i], i, 0, 0xffffffff, 40, 28);
        want_errno(both[i], 7, 0, 1, 40, 8);
        want_errno(both[i], 1 - i, 0, 1, 40, 8);         /* the other direction */
    }
    assert_true(put(false, SPEC));
    want("echo", "echo");
}

static void files_are_those_given(void **state)
{
    char path[128];

    snprintf(path, sizeof path, "%s/volumes", H.state);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/volumes/wasm-data", H.state);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/volumes/wasm-data/hello", H.state);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_int_equal(write(fd, "from a volume", 13), 13);
    close(fd);
    _auto_(freep) char *spec = xasprintf("%s,\"fileSystems\":[{\"volume\":\"wasm-data\",\"localMountPath\":\"/mnt/data\"}]", SPEC);
    assert_true(put(true, spec));
    want("fhello", "from a volume");
    want_error("f../../etc/passwd", "Runtime.ExitError", "exit status 63", "ExitError"); /* EPERM: it leaves the folder */
}

static void a_module_may_want_too_much(void **state)
{
    assert_true(host_wasm(&H, "w", "(module (memory (export \"memory\") 2000) (func (export \"_start\")))", "\"memoryMB\":64"));
    want_error("x", "\"errorType\":\"Runtime.OutOfMemory\"", "exceeds memory limits", "OutOfMemory");
    assert_true(host_wasm(&H, "w", "(module (func $f (call $f)) (func (export \"_start\") (call $f)))", "\"memoryMB\":64"));
    want_error("x", "\"errorType\":\"Runtime.Trap\"", "call stack exhausted", "Trap");
}

static void refused(const char *wat, const void *bytes, size_t n, const char *part)
{
    struct wat_bytes wasm = {n, (char *)(uintptr_t)bytes};
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct err err = {0};
    static int count;
    char name[16]; /* a uid that was removed does not come back */
    struct answer a;
    int there;

    snprintf(name, sizeof name, "bad-%d", ++count);
    if (wat)
        assert_true(wat_compile(wat, &wasm));
    host_zip_bytes(&zip, "bad.wasm", wasm.p, wasm.n, 0644);
    if (wat)
        wat_free(&wasm);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, name, sha, "\"runtime\":\"wasm\",\"handler\":\"bad.wasm\"");
    for (int i = 0; (there = functions_wasm_state(H.fs, "default", name, &err)) == 0 && i < 3000; i++)
        host_sleep(&H, 10);
    assert_int_equal(there, -1);
    if (!strstr(err.msg, part))
        fprintf(stderr, "want %s, got %s\n", part, err.msg);
    assert_non_null(strstr(err.msg, part));
    host_call(&H, name, "x", &a);
    assert_int_equal(a.err.code, ERR_NOT_IMPLEMENTED);
    assert_non_null(strstr(a.err.msg, part));
    answer_done(&a);
    functions_remove(H.fs, "default", name);
}

static void bad_modules_are_refused(void **state)
{
    static const char BAD_BODY[] = "\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\7\12\1\6_start\0\0\12\5\1\3\0\x6a\x0b"; /* i32.add of nothing */

    refused(NULL, "not wasm at all", 15, "no WebAssembly module");
    refused(NULL, "\0asm", 4, "no WebAssembly module");
    refused(NULL, "\0asm\x0d\0\1\0", 8, "exports neither");
    refused(NULL, BAD_BODY, sizeof BAD_BODY - 1, "type mismatch");
    refused(NULL, "\0asm\1\0\0\0\1\xff\xff\xff\xff\xff", 14, "refused: ");
    refused("(module (func (export \"run\")))", NULL, 0, "exports no function _start");
    refused("(module (import \"env\" \"host_thing\" (func)) (func (export \"_start\")))", NULL, 0, "env::host_thing");
    refused("(module (memory 65536) (memory 65536) (func (export \"_start\")))", NULL, 0, "memor");
}

static void text_is_a_module_too(void **state)
{
    const char *const files[] = {"main.wat", ";; nothing\n(module (func (export \"_start\")))", NULL};
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct err err;
    struct answer a;

    host_zip(&zip, files);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, "text", sha, "\"runtime\":\"wasm\",\"handler\":\"main.wat\"");
    host_call(&H, "text", "{}", &a);
    assert_int_equal(a.err.code, ERR_OK);
    assert_null(a.error);
    assert_int_equal(a.n, 0);
    answer_done(&a);
    functions_remove(H.fs, "default", "text");
    refused(NULL, "(module (func (export \"_start\") (i32.nothing)))", 47, "unknown operator");
}

static void no_file_is_told(void **state)
{
    struct wat_bytes wasm;
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct err err = {0};
    int there;

    assert_true(wat_compile("(module)", &wasm));
    host_zip_bytes(&zip, "main.wasm", wasm.p, wasm.n, 0644);
    wat_free(&wasm);
    assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
    buf_done(&zip);
    host_put(&H, "other", sha, "\"runtime\":\"wasm\",\"handler\":\"../main.wasm\"");
    for (int i = 0; (there = functions_wasm_state(H.fs, "default", "other", &err)) == 0 && i < 3000; i++)
        host_sleep(&H, 10);
    assert_int_equal(there, -1);
    assert_non_null(strstr(err.msg, "no such file in the code"));
    functions_remove(H.fs, "default", "other");
}

/* ---- components ---- */

/* A command of WASI 0.2: says FIRST, then ends as RESULT (0 well, 1 not). */
static const char COMMAND[] =
    "(component\n"
    "  (import \"wasi:io/error@0.2.0\" (instance $errors (export \"error\" (type (sub resource)))))\n"
    "  (alias export $errors \"error\" (type $error))\n"
    "  (import \"wasi:io/streams@0.2.0\" (instance $streams\n"
    "    (export \"output-stream\" (type $out (sub resource)))\n"
    "    (alias outer 1 $error (type $e)) (export \"error\" (type $err (eq $e)))\n"
    "    (type $v (variant (case \"last-operation-failed\" (own $err)) (case \"closed\")))\n"
    "    (export \"stream-error\" (type $se (eq $v)))\n"
    "    (export \"[method]output-stream.blocking-write-and-flush\"\n"
    "      (func (param \"self\" (borrow $out)) (param \"contents\" (list u8)) (result (result (error $se)))))))\n"
    "  (alias export $streams \"output-stream\" (type $output))\n"
    "  (import \"wasi:cli/stdout@0.2.0\" (instance $stdout\n"
    "    (alias outer 1 $output (type $o)) (export \"output-stream\" (type $out (eq $o)))\n"
    "    (export \"get-stdout\" (func (result (own $out))))))\n"
    "  (core module $memory (memory (export \"memory\") 1) (data (i32.const 32) \"said\"))\n"
    "  (core instance $mem (instantiate $memory)) (alias core export $mem \"memory\" (core memory $m))\n"
    "  (core func $get (canon lower (func $stdout \"get-stdout\")))\n"
    "  (core func $write (canon lower (func $streams \"[method]output-stream.blocking-write-and-flush\") (memory $m)))\n"
    "  (core func $drop (canon resource.drop $output))\n"
    "  (core module $main (import \"h\" \"get\" (func $get (result i32))) (import \"h\" \"write\" (func $write (param i32 i32 i32 i32)))\n"
    "    (import \"h\" \"drop\" (func $drop (param i32)))\n"
    "    (func (export \"run\") (result i32) (local $o i32) (local.set $o (call $get))\n"
    "      (call $write (local.get $o) (i32.const 32) (i32.const 4) (i32.const 64)) (call $drop (local.get $o)) BODY))\n"
    "  (core instance $it (instantiate $main (with \"h\" (instance (export \"get\" (func $get)) (export \"write\" (func $write)) (export \"drop\" (func $drop))))))\n"
    "  (func $run (result (result)) (canon lift (core func $it \"run\")))\n"
    "  (instance $i (export \"run\" (func $run))) (export \"wasi:cli/run@0.2.0\" (instance $i)))\n";

static bool put_command(const char *body)
{
    const char *at = strstr(COMMAND, "BODY");
    _auto_(freep) char *text = xasprintf("%.*s%s%s", (int)(at - COMMAND), COMMAND, body, at + 4);

    return host_wasm(&H, "w", text, SPEC);
}

static void components_are_commands_too(void **state)
{
    assert_true(put_command("(i32.const 0)"));
    for (int i = 0; i < 3; i++)
        want("x", "said");
    assert_true(put_command("(i32.const 1)"));
    want_error("x", "\"errorType\":\"Runtime.ExitError\"", "exit status 1", "Runtime.ExitError");
    assert_true(put_command("unreachable"));
    want_error("x", "\"errorType\":\"Runtime.Trap\"", "unreachable", "Runtime.Trap");
    assert_true(put_command("(loop $ever (br $ever)) (i32.const 0)"));
    want_error("x", "\"errorType\":\"Sandbox.Timedout\"", "Task timed out", "Task timed out");
    refused("(component)", NULL, 0, "exports neither wasi:cli/run");
    refused("(component (import \"wasi:http/types@0.2.0\" (instance)) (core module $m (func (export \"f\") (result i32) (i32.const 0)))"
            " (core instance $c (instantiate $m)) (func $f (result (result)) (canon lift (core func $c \"f\")))"
            " (instance $i (export \"run\" (func $f))) (export \"wasi:cli/run@0.2.0\" (instance $i)))", NULL, 0, "wasi:http/types@0.2.0, which is not of");
    refused("(component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))", NULL, 0, "no function run");
}

/* ---- modules that mean harm ---- */

/* n times the piece, its # as a number that counts up, between two texts. The caller's. */
static char *many(const char *before, const char *piece, int n, const char *after)
{
    struct buf b = {0};

    buf_adds(&b, before);
    for (int i = 0; i < n; i++)
        for (const char *p = piece; *p; p++)
            if (*p == '#')
                buf_addi(&b, i);
            else
                buf_addc(&b, *p);
    buf_adds(&b, after);
    return buf_take(&b);
}

static void hostile_modules_end_themselves(void **state)
{
    _auto_(freep) char *nested = many("(module (func (export \"_start\") ", "block ", 30000, " ");
    _auto_(freep) char *deep = many(nested, "end ", 30000, "))");
    _auto_(freep) char *functions = many("(module (func (export \"_start\"))", "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const #)))", 20000, ")");
    _auto_(freep) char *imports = many("(module ", "(import \"wasi_snapshot_preview1\" \"f#\" (func))", 5000, "(func (export \"_start\")))");
    _auto_(freep) char *exports = many("(module (func $f)", "(export \"e#\" (func $f))", 20000, "(export \"_start\" (func $f)))");
    _auto_(freep) char *memories = many("(module (func (export \"_start\"))", "(memory 1)", 90, ")");
    int64_t before;

    assert_true(host_wasm(&H, "w", "(module (func $s (loop $l (br $l))) (start $s) (func (export \"_start\")))", SPEC));
    want_error("x", "\"errorType\":\"Sandbox.Timedout\"", "Task timed out", "Task timed out");
    before = cold_starts();
    want_error("x", "\"errorType\":\"Sandbox.Timedout\"", "Task timed out", "Task timed out");
    assert_int_equal(cold_starts(), before);
    assert_true(host_wasm(&H, "w", functions, SPEC));
    want("x", "");
    assert_true(host_wasm(&H, "w", exports, SPEC));
    want("x", "");
    assert_true(host_wasm(&H, "w", deep, SPEC));
    want("x", "");
    refused("(module (table 10000000 funcref) (func (export \"_start\")))", NULL, 0, "table");
    refused("(module (global (export \"_start\") i32 (i32.const 0)))", NULL, 0, "exports no function _start");
    refused("(module (func (export \"_start\") (param i32)))", NULL, 0, "exports no function _start");
    refused("(module (import \"wasi_snapshot_preview1\" \"fd_read\" (func (param i64))) (func (export \"_start\")))", NULL, 0, "incompatible import type");
    refused(imports, NULL, 0, "wasi_snapshot_preview1::f0");
    refused(memories, NULL, 0, "memor");
    assert_true(host_wasm(&H, "w", "(module (memory (export \"memory\") 1 65536) (func (export \"_start\") (drop (memory.grow (i32.const 65535)))))", SPEC));
    want("x", "");
    assert_true(host_wasm(&H, "w", "(module (table $t 1 funcref) (func (export \"_start\") (loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 100000)))))))", SPEC));
    want("x", "");
    want("x", "");
}

/* Bytes of a good module that were changed: it is refused with a text or does something; nothing else is harmed. */
static void damaged_modules_are_survived(void **state)
{
    _auto_(freep) char *text = wat_text(false);
    struct wat_bytes wasm;
    int good = 0, bad = 0;
    uint32_t seed = 12345;

    assert_true(wat_compile(text, &wasm));
    for (int round = 0; round < 25; round++) {
        _auto_(freep) char *copy = xmalloc(wasm.n);
        struct buf zip = {0};
        char sha[CODE_HEX], name[24];
        struct err err = {0};
        struct answer a;
        int there;

        memcpy(copy, wasm.p, wasm.n);
        for (int i = 0; i < 1 + round % 3; i++) {
            seed = seed * 1664525 + 1013904223;
            copy[8 + (seed >> 8) % (wasm.n - 8)] ^= (char)(1 << (seed >> 29));
        }
        snprintf(name, sizeof name, "damaged-%d", round);
        host_zip_bytes(&zip, "main.wasm", copy, wasm.n - (round % 5 == 4 ? wasm.n / 3 : 0), 0644);
        assert_int_equal(code_put(H.state, zip.p, zip.n, sha, &err), 0);
        buf_done(&zip);
        host_put(&H, name, sha, "\"runtime\":\"wasm\",\"handler\":\"main.wasm\",\"timeoutSeconds\":0.3,\"memoryMB\":64");
        for (int i = 0; (there = functions_wasm_state(H.fs, "default", name, &err)) == 0 && i < 3000; i++)
            host_sleep(&H, 10);
        assert_int_not_equal(there, 0);
        if (there < 0)
            assert_non_null(strstr(err.msg, "is refused: "));
        host_call(&H, name, "echo", &a);
        assert_true((a.err.code == ERR_OK) == (there > 0));
        good += there > 0;
        bad += there < 0;
        answer_done(&a);
        functions_remove(H.fs, "default", name);
    }
    wat_free(&wasm);
    assert_true(good > 0 && bad > 0);
}

/* What is not the library that the code was written for is told by what it lacks. */
static void another_library_is_refused(void **state)
{
    const char *const places[] = {"/lib/x86_64-linux-gnu/libz.so.1", "/lib/aarch64-linux-gnu/libz.so.1", "/lib64/libz.so.1"};
    const char *had = getenv("TANDEM_WASMTIME"), *other = NULL;
    _auto_(freep) char *kept = had ? xstrdup(had) : NULL;

    for (size_t i = 0; i < ARRAY_LEN(places) && !other; i++)
        other = access(places[i], R_OK) == 0 ? places[i] : NULL;
    if (!other)
        skip();
    setenv("TANDEM_WASMTIME", other, 1);
    refused(NULL, "\0asm\1\0\0\0", 8, "lacks wasm_config_new: tandem works with version 50");
    if (kept)
        setenv("TANDEM_WASMTIME", kept, 1);
    else
        unsetenv("TANDEM_WASMTIME");
}

static int set_up(void **state)
{
    struct functions_options o = {.retry_ms = {50, 100}};
    struct err err;

    if (host_start(&H, &o, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return put(false, SPEC) ? 0 : -1;
}

static int tear_down(void **state)
{
    host_stop(&H);
    host_remove(&H);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_and_logs),
        cmocka_unit_test(environment_is_whole),
        cmocka_unit_test(calls_share_nothing),
        cmocka_unit_test(errors_are_the_platforms),
        cmocka_unit_test(answers_have_a_limit),
        cmocka_unit_test(who_waits_is_ended),
        cmocka_unit_test(memory_can_be_used),
        cmocka_unit_test(pointers_are_looked_at),
        cmocka_unit_test(files_are_those_given),
        /* the same by the library's standard streams */
        cmocka_unit_test(environment_is_whole),
        cmocka_unit_test(calls_share_nothing),
        cmocka_unit_test(errors_are_the_platforms),
        cmocka_unit_test(who_waits_is_ended),
        cmocka_unit_test(memory_can_be_used),
        cmocka_unit_test(a_module_may_want_too_much),
        cmocka_unit_test(bad_modules_are_refused),
        cmocka_unit_test(text_is_a_module_too),
        cmocka_unit_test(no_file_is_told),
        cmocka_unit_test(components_are_commands_too),
        cmocka_unit_test(hostile_modules_end_themselves),
        cmocka_unit_test(damaged_modules_are_survived),
        cmocka_unit_test(another_library_is_refused),
    };
    struct err err;

    if (geteuid() != 0 || function_runtime_check("wasm", &err) < 0) {
        fprintf(stderr, "skipped: needs root and wasmtime's library\n");
        return 77;
    }
    if (unshare(CLONE_NEWNET) < 0)
        fprintf(stderr, "no network namespace of our own\n");
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
