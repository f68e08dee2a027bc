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
    want_error("b", "\"errorType\":\"Function.ResponseSizeTooLarge\"", "6291556 bytes", "END RequestId: ");
    want("echo", "echo");
    assert_int_equal(cold_starts(), before); /* the process outlives what its modules do */
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
    refused(NULL, "\0asm\x0d\0\1\0", 8, "component");
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
