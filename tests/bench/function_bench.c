/* function_bench: what a function costs without HTTP and API around it. Rows: what, value, unit.
 *
 * Wall time lies on a machine that others use, so each row has the minimum and the CPU time beside it: of the gateway
 * (this process) and of all that runs for functions (their cgroup, what has ended in it included).
 *
 * cold, ahead: each request meets a function without a used instance, 270 ms after the one before (caches are cold then);
 * rate: the same back to back. first: a function's first call ever. warm: one caller, and sixteen. burst: 0 -> 1,000
 * instances, and what an idle one takes. events: asynchronous ones, acknowledged when they are on disk. noisy: a quiet
 * function beside one that is flooded. Needs root. */
#include "../unit/function/wasm.h"

#include "network/network.h"

#include <sched.h>
#include <sys/resource.h>

/* Each instance with a network of its own, in a network namespace of the bench's own. */
#define NETWORK .pod_cidr = "10.78.0.0/16", .instance = "be4c4be4"
#define CGROUP "tandem-be4c4be4/functions"

enum { COLD = 400, WARM = 3000, BURST = 1000, EVENTS = 4000 };

static const char HELLO[] = "def lambda_handler(e, c):\n    return {'n': 1}\n";
static const char HELLO_JS[] = "exports.handler = (e, c, done) => done(null, {n: 1});\n";
static const char HELLO_ASYNC_JS[] = "exports.handler = async (e) => { await new Promise((r) => setTimeout(r, 0)); return {n: 1}; };\n";

/* As small as the others: reads nothing, says {"n":1}. */
static const char WASM_HELLO[] = "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))"
                                 " (memory (export \"memory\") 17) (data (i32.const 8) \"{\\\"n\\\":1}\")"
                                 " (func (export \"_start\") (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 7))"
                                 " (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 24)))))";

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void row(const char *what, double value, const char *unit, const char *note)
{
    printf("%-50s %12.2f %-8s %-28s %s\n", what, value, unit, "", note);
    fflush(stdout);
}

/* CPU time so far: of this process, and of the functions' cgroup. */
struct cpu {
    double gateway_us, functions_us;
};

static struct cpu cpu_now(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/unified/" CGROUP "/cpu.stat", "/sys/fs/cgroup/" CGROUP "/cpu.stat"};
    struct cpu c = {0};
    struct rusage u;
    double n;

    getrusage(RUSAGE_SELF, &u);
    c.gateway_us = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        FILE *f = fopen(files[i], "r");

        if (f && fscanf(f, "usage_usec %lf", &n) == 1)
            c.functions_us = n;
        if (f)
            fclose(f);
    }
    return c;
}

static void cpu_row(const char *what, struct cpu from, int n)
{
    struct cpu to = cpu_now();
    double gateway = (to.gateway_us - from.gateway_us) / n, functions = (to.functions_us - from.functions_us) / n;
    char note[128], name[112];

    snprintf(name, sizeof name, "%s: CPU", what);
    snprintf(note, sizeof note, "gateway %.0f + functions %.0f: %.0f/s per core", gateway, functions, 1e6 / (gateway + functions));
    row(name, gateway + functions, "us", note);
}

static void percentiles(const char *what, int64_t *us, int n)
{
    char note[96];

    qsort(us, (size_t)n, sizeof *us, by_value);
    snprintf(note, sizeof note, "min %lld us, p99 %lld us, n=%d", (long long)us[0], (long long)us[n * 99 / 100], n);
    row(what, (double)us[n / 2], "us", note);
}

/* What the runtime is called, what its code is. */
enum kind { PYTHON, PYTHON_BOTO, NODE, NODE_ASYNC, NATIVE, WASM };
static const char *const kind_names[] = {"Python", "Python, 8 modules", "Node", "Node, async", "C", "Wasm"};

static void put(struct host *h, const char *name, enum kind kind)
{
    static const char MODULES[] = "import asyncio, csv, decimal, email.message, hashlib, http.client, urllib.request, uuid\n"
                                  "def lambda_handler(e, c):\n    return {'n': 1}\n";
    const char *js[] = {"index.js", kind == NODE ? HELLO_JS : HELLO_ASYNC_JS, NULL};
    char sha[CODE_HEX], path[300], *slash;
    struct buf zip = {0}, program = {0};
    struct err err;
    char piece[65536];
    size_t n;
    FILE *f;

    if (kind <= PYTHON_BOTO) {
        host_function(h, name, kind == PYTHON ? HELLO : MODULES, "\"memoryMB\":1769");
        return;
    }
    if (kind == WASM) {
        host_wasm(h, name, WASM_HELLO, "\"memoryMB\":1769");
        return;
    }
    if (kind == NATIVE) {
        ssize_t len = readlink("/proc/self/exe", path, sizeof path - 20);

        path[MAX(len, (ssize_t)0)] = 0;
        slash = strrchr(path, '/');
        strcpy(slash ? slash + 1 : path, "bootstrap");
        f = fopen(path, "r");
        while (f && (n = fread(piece, 1, sizeof piece, f)) > 0)
            buf_add(&program, piece, n);
        if (!f)
            exit(2);
        fclose(f);
        host_zip_bytes(&zip, "bootstrap", program.p, program.n, 0755);
        buf_done(&program);
    } else {
        host_zip(&zip, js);
    }
    if (code_put(h->state, zip.p, zip.n, sha, &err) < 0)
        exit(2);
    buf_done(&zip);
    host_put(h, name, sha, kind == NATIVE ? "\"runtime\":\"provided.al2023\",\"handler\":\"x\",\"memoryMB\":1769"
                                          : "\"runtime\":\"nodejs20.x\",\"handler\":\"index.handler\",\"memoryMB\":1769");
}

static bool missing(enum kind kind)
{
    struct err err;

    if (kind == WASM)
        return function_runtime_check("wasm", &err) < 0;
    return (kind == NODE || kind == NODE_ASYNC) && function_runtime_check("nodejs20.x", &err) < 0;
}

static void begin(struct host *h, const struct functions_options *o)
{
    struct err err;

    if (host_start(h, o, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
}

static void end(struct host *h)
{
    host_stop(h);
    host_remove(h);
}

static int rungs[FUNCTION_RUNGS];
static int64_t handler_us; /* of the last call */

static int64_t call(struct host *h, const char *name)
{
    struct answer a;
    int64_t us;

    host_call(h, name, "{\"x\":1}", &a);
    if (a.err.code != ERR_OK || a.error)
        fprintf(stderr, "%s: err=%s error=%s payload=%s\n", name, a.err.msg, a.error ? a.error : "-", a.payload ? a.payload : "-");
    us = a.wall_us;
    handler_us = a.handler_us;
    rungs[a.rung]++;
    if (getenv("TAIL"))
        fprintf(stderr, "%s", a.tail);
    if (getenv("SPLIT"))
        fprintf(stderr, "%s wall %lld queue %lld place %lld fork %lld init %lld handler %lld answer %lld\n", function_rung_names[a.rung],
                (long long)us, (long long)a.queue_us, (long long)a.place_us, (long long)a.start_us, (long long)a.init_us,
                (long long)a.handler_us, (long long)(a.duration_us - a.start_us - a.init_us - a.handler_us));
    answer_done(&a);
    return us;
}

static void title(char out[96], const char *what, enum kind kind)
{
    snprintf(out, 96, "%s: %s", kind_names[kind], what);
}

/* Which rungs answered since the last time: the row is of that one, or says so. */
static void check_rung(const char *what, enum function_rung want, int n)
{
    if (rungs[want] < n * 9 / 10)
        row(what, rungs[want], "of them", "were of the rung that is measured");
    memset(rungs, 0, sizeof rungs);
}

/* Spaced: what a rare request feels. Then back to back: what the machine can do. */
static void cold(enum kind kind, bool ahead, int n, int rate_n)
{
    struct functions_options o = {.keep_ms = -1, .stems = ahead ? 1 : -1, .zygote_keep_ms = 600000, NETWORK};
    enum function_rung rung = ahead ? FUNCTION_STEM : FUNCTION_ZYGOTE;
    struct host h = {0};
    int64_t us[COLD];
    char what[96];
    struct cpu c;

    if (missing(kind))
        return;
    begin(&h, &o);
    put(&h, "f", kind);
    call(&h, "f"); /* the zygote's own start */
    host_sleep(&h, 1500); /* byte code is made meanwhile, if any */
    memset(rungs, 0, sizeof rungs);
    for (int i = 0; i < n; i++) {
        us[i] = call(&h, "f");
        host_sleep(&h, 270);
    }
    title(what, ahead ? "stem, once in 270 ms" : "zygote, once in 270 ms", kind);
    percentiles(what, us, n);
    check_rung(what, rung, n);
    if (rate_n) {
        c = cpu_now();
        for (int i = 0; i < rate_n; i++) {
            us[i] = call(&h, "f");
            if (ahead)
                host_sleep(&h, 20); /* the next one is made meanwhile */
        }
        host_sleep(&h, 100); /* their ends are work, too */
        title(what, ahead ? "stem, once in 20 ms" : "zygote, back to back", kind);
        percentiles(what, us, rate_n);
        check_rung(what, rung, rate_n);
        cpu_row(what, c, rate_n);
    }
    end(&h);
}

/* In a process that is there each call makes an instance of the module and unmakes it: that is Wasm's start. */
static void module(void)
{
    struct functions_options o = {NETWORK};
    static int64_t us[WARM];
    struct host h = {0};
    struct answer a;

    if (missing(WASM))
        return;
    begin(&h, &o);
    put(&h, "f", WASM);
    call(&h, "f");
    for (int i = 0; i < WARM; i++) {
        call(&h, "f");
        us[i] = handler_us;
    }
    percentiles("Wasm: instance made, run, unmade", us, WARM);
    host_wasm(&h, "g", "(module (func (export \"_start\")))", "\"memoryMB\":1769");
    host_call(&h, "g", "{}", &a);
    answer_done(&a);
    for (int i = 0; i < WARM; i++) {
        call(&h, "g");
        us[i] = handler_us;
    }
    percentiles("Wasm: the same, of a module that does nothing", us, WARM);
    end(&h);
}

/* A function that nobody has called: its zygote is made for the call, and before that the runtime's own. */
static void first(enum kind kind)
{
    struct functions_options o = {.stems = -1, NETWORK};
    struct host h = {0};
    int64_t us[20], fresh;
    char name[16], what[96];

    if (missing(kind))
        return;
    begin(&h, &o);
    put(&h, "f", kind);
    fresh = call(&h, "f");
    title(what, "first of all calls (fresh)", kind);
    row(what, (double)fresh, "us", "the runtime's own zygote is started for it");
    memset(rungs, 0, sizeof rungs);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "f%d", i);
        put(&h, name, kind);
        us[i] = call(&h, name);
        functions_remove(h.fs, "default", name);
    }
    title(what, "deployed to answered (runtime)", kind);
    percentiles(what, us, 20);
    end(&h);
}

static void warm(enum kind kind)
{
    struct functions_options o = {NETWORK};
    static struct answer a[16];
    static int64_t us[WARM];
    struct host h = {0};
    char what[96];
    struct cpu c;
    int sent = 0, done = 0;

    if (missing(kind))
        return;
    begin(&h, &o);
    put(&h, "f", kind);
    call(&h, "f");
    host_sleep(&h, 300);
    for (int i = 0; i < 20; i++) {
        us[i] = call(&h, "f");
        host_sleep(&h, 270);
    }
    title(what, "warm, once in 270 ms", kind);
    percentiles(what, us, 20);
    c = cpu_now();
    for (int i = 0; i < WARM; i++)
        us[i] = call(&h, "f");
    title(what, "warm, one caller", kind);
    percentiles(what, us, WARM);
    cpu_row(what, c, WARM);
    /* sixteen calls are always under way, as from sixteen connections */
    for (int i = 0; i < 16; i++)
        host_send(&h, "f", "{}", &a[i]);
    host_sleep(&h, 500);
    c = cpu_now();
    while (done < WARM * 4) {
        for (int i = 0; i < 16; i++) {
            if (!a[i].done)
                continue;
            answer_done(&a[i]);
            done++;
            host_send(&h, "f", "{}", &a[i]);
        }
        uv_run(&h.loop, UV_RUN_ONCE);
        sent++;
    }
    title(what, "warm, sixteen callers", kind);
    cpu_row(what, c, done);
    for (int i = 0; i < 16; i++) {
        host_wait(&h, &a[i]);
        answer_done(&a[i]);
    }
    end(&h);
}

static double file_kb(const char *path, const char *line_of)
{
    char line[128];
    long kb = 0;
    FILE *f = fopen(path, "r");
    size_t n = strlen(line_of);

    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, line_of, n) == 0 && sscanf(line + n, " %ld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (double)kb;
}

static void burst(void)
{
    struct functions_options o = {.keep_ms = 60000, NETWORK, .concurrency_max = BURST, .scale_per_10s = -1};
    static struct answer a[BURST];
    struct host h = {0};
    int64_t began, last = 0;
    struct buf b = {0};
    double sum = 0, free_kb;
    char path[64];
    struct cpu c;
    int n = 0;

    begin(&h, &o);
    host_function(&h, "f", "import time\ndef lambda_handler(e, c):\n    time.sleep(4)\n    return 1\n", "\"memoryMB\":1769,\"timeoutSeconds\":60");
    host_sleep(&h, 1500);
    free_kb = file_kb("/proc/meminfo", "MemAvailable:");
    c = cpu_now();
    began = host_us();
    for (int i = 0; i < BURST; i++)
        host_send(&h, "f", "{}", &a[i]);
    for (int i = 0; i < BURST; i++) {
        host_wait(&h, &a[i]);
        last = MAX(last, a[i].at_us + a[i].wall_us);
        n += a[i].cold;
        if (a[i].err.code != ERR_OK || a[i].error)
            fprintf(stderr, "burst: %s %s\n", a[i].err.msg, a[i].payload ? a[i].payload : "-");
        answer_done(&a[i]);
    }
    row("Python: 0 -> 1,000 instances", (double)(last - began - 4000000) / 1000, "ms", "last answer, less the handler's 4 seconds");
    if (n < BURST)
        row("Python: 0 -> 1,000 instances", n, "of them", "were made");
    cpu_row("Python: 0 -> 1,000 instances", c, BURST);
    row("Python: idle instance, all memory", (free_kb - file_kb("/proc/meminfo", "MemAvailable:")) / BURST / 1024, "MB", "one of 1,000, by MemAvailable");
    functions_instances_json(h.fs, &b);
    n = 0;
    for (char *p = b.p; (p = strstr(p, "\"pid\":")) && n < 100; p += 6) {
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", atoi(p + 6));
        sum += file_kb(path, "Pss:");
        n++;
    }
    buf_done(&b);
    row("Python: idle instance, PSS", n ? sum / n / 1024 : 0, "MB", "of 1,000");
    end(&h);
}

static int queued;

static void on_queued(void *arg, const struct err *err, const char *id)
{
    (void)arg;
    (void)id;
    if (err->code != ERR_OK)
        fprintf(stderr, "event: %s\n", err->msg);
    queued++;
}

static void events(void)
{
    struct functions_options o = {NETWORK};
    struct host h = {0};
    int64_t began;
    struct cpu c;
    int sent = 0;

    begin(&h, &o);
    host_function(&h, "f", HELLO, "\"memoryMB\":1769,\"reservedConcurrency\":4");
    call(&h, "f");
    c = cpu_now();
    began = host_us();
    while (queued < EVENTS) {
        for (; sent < EVENTS && sent - queued < 512; sent++)
            function_invoke_async(h.fs, &(struct function_call){.name = "f", .payload = "{\"x\":1}", .n = 7}, on_queued, NULL);
        uv_run(&h.loop, UV_RUN_ONCE);
    }
    row("events: acknowledged, on disk", EVENTS * 1e6 / (double)(host_us() - began), "/s", "512 under way; they run meanwhile");
    cpu_row("events: acknowledged", c, EVENTS);
    end(&h);
}

static void noisy(void)
{
    struct functions_options o = {NETWORK};
    static struct answer loud[64];
    static int64_t us[200];
    struct host h = {0};

    begin(&h, &o);
    host_function(&h, "quiet", HELLO, "\"memoryMB\":128");
    host_function(&h, "loud", "def lambda_handler(e, c):\n    n = 0\n    while c.get_remaining_time_in_millis() > 1000:\n        n += 1\n    return n\n",
                  "\"memoryMB\":128,\"timeoutSeconds\":8,\"reservedConcurrency\":64");
    call(&h, "quiet");
    for (int i = 0; i < 200; i++) {
        us[i] = call(&h, "quiet");
        host_sleep(&h, 10);
    }
    percentiles("quiet function, alone", us, 200);
    for (int i = 0; i < 64; i++)
        host_send(&h, "loud", "{}", &loud[i]);
    host_sleep(&h, 1000);
    for (int i = 0; i < 200; i++) {
        us[i] = call(&h, "quiet");
        host_sleep(&h, 10);
    }
    percentiles("quiet function, beside 64 that burn CPU", us, 200);
    for (int i = 0; i < 64; i++) {
        host_wait(&h, &loud[i]);
        answer_done(&loud[i]);
    }
    end(&h);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    int which = argc > 2 ? atoi(argv[2]) : -1;

    if (geteuid() != 0) {
        fprintf(stderr, "function_bench needs root\n");
        return 1;
    }
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
        return 1;
    for (int kind = PYTHON; kind <= WASM; kind++) {
        if (which >= 0 && which != kind)
            continue;
        if (strstr("first", only))
            first((enum kind)kind);
        if (strstr("cold", only))
            cold((enum kind)kind, false, 30, kind <= PYTHON_BOTO ? COLD : 50);
        if (strstr("ahead", only))
            cold((enum kind)kind, true, 30, kind <= PYTHON_BOTO ? 100 : 50);
        if (strstr("warm", only) && kind != PYTHON_BOTO)
            warm((enum kind)kind);
    }
    if (strstr("module", only) && (which < 0 || which == WASM))
        module();
    if (strstr("burst", only))
        burst();
    if (strstr("events", only))
        events();
    if (strstr("noisy", only))
        noisy();
    return 0;
}
