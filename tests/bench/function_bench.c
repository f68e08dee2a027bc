/* function_bench: what a function costs without HTTP and API around it. Rows: what, value, unit.
 *
 * Cold: each request meets a function without instances, its zygote up (fork + sandbox + import +
 * handler); "ahead" takes an instance that was forked before. Warm: one instance, one caller.
 * 0 -> 200: that many requests at once whose handlers sleep. PSS: of idle instances. Needs root. */
#include "../unit/function/host.h"

#include "network/network.h"

#include <sched.h>

/* Each instance with a network of its own, in a network namespace of the bench's own. */
#define NETWORK .pod_cidr = "10.78.0.0/16", .instance = "be4c4be4"

enum { COLD = 200, WARM = 3000, BURST = 200, IDLE = 50 };

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

static void percentiles(const char *what, int64_t *us, int n)
{
    char note[96];

    qsort(us, (size_t)n, sizeof *us, by_value);
    snprintf(note, sizeof note, "min %lld us, p99 %lld us, n=%d", (long long)us[0], (long long)us[n * 99 / 100], n);
    row(what, (double)us[n / 2], "us", note);
}

static int64_t call(struct host *h, const char *name, const char *event, bool want_cold)
{
    struct answer a;
    int64_t us;

    host_call(h, name, event, &a);
    if (a.err.code != ERR_OK || a.error || a.cold != want_cold)
        fprintf(stderr, "%s: err=%s error=%s cold=%d payload=%s\n", name, a.err.msg, a.error ? a.error : "-", a.cold, a.payload);
    us = a.wall_us;
    if (getenv("TAIL"))
        fprintf(stderr, "%s", a.tail);
    if (getenv("SPLIT"))
        fprintf(stderr, "wall %lld queue %lld start %lld init %lld run %lld\n", (long long)us, (long long)a.queue_us,
                (long long)a.start_us, (long long)a.init_us, (long long)(a.duration_us - a.start_us - a.init_us));
    answer_done(&a);
    return us;
}

/* Each request in a fresh function version would start zygotes; so instances are let go between. */
static void cold(const char *what, int stems, const char *code, int n)
{
    struct functions_options o = {.keep_ms = 1, .stems = stems, .zygote_keep_ms = 600000, NETWORK};
    struct host h = {0};
    struct err err;
    int64_t us[COLD];

    if (host_start(&h, &o, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    host_function(&h, "f", code, getenv("SMAPS") ? "\"memoryMB\":1769,\"environment\":{\"SMAPS\":\"1\"}" : "\"memoryMB\":1769");
    host_sleep(&h, 1500); /* its byte code is made meanwhile */
    for (int i = 0; i < n; i++) {
        us[i] = call(&h, "f", "{\"x\":1}", true);
        host_sleep(&h, 270); /* longer than a tick: the idle instance has gone */
    }
    percentiles(what, us, n);
    host_stop(&h);
    host_remove(&h);
}

static void first_ever(void)
{
    struct functions_options o = {.stems = -1, NETWORK};
    struct host h = {0};
    struct err err;
    int64_t us[20];
    char name[16];

    if (host_start(&h, &o, &err) < 0)
        exit(1);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "f%d", i);
        host_function(&h, name, "def lambda_handler(e, c):\n    return {'n': 1}\n", "");
        us[i] = call(&h, name, "{}", true);
        functions_remove(h.fs, "default", name);
    }
    percentiles("function: first call ever, zygote started for it", us, 20);
    host_stop(&h);
    host_remove(&h);
}

static void warm(void)
{
    struct functions_options o = {NETWORK};
    struct host h = {0};
    struct err err;
    static int64_t us[WARM];
    int64_t began;

    if (host_start(&h, &o, &err) < 0)
        exit(1);
    host_function(&h, "f", "def lambda_handler(e, c):\n    return {'n': e['x']}\n", "\"memoryMB\":1769");
    call(&h, "f", "{\"x\":1}", true);
    host_sleep(&h, 100);
    began = host_us();
    for (int i = 0; i < WARM; i++)
        us[i] = call(&h, "f", "{\"x\":1}", false);
    began = host_us() - began;
    percentiles("function: warm, one caller", us, WARM);
    row("function: warm, one caller", WARM * 1e6 / (double)began, "/s", "");
    host_stop(&h);
    host_remove(&h);
}

static double pss_kb(int pid)
{
    char path[64], line[128];
    long kb = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %ld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (double)kb;
}

static void burst(void)
{
    struct functions_options o = {.keep_ms = 60000, NETWORK};
    static struct answer a[BURST];
    struct host h = {0};
    struct err err;
    int64_t began, last = 0;
    struct buf b = {0};
    double sum = 0;
    int n = 0;

    if (host_start(&h, &o, &err) < 0)
        exit(1);
    host_function(&h, "f", "import time\ndef lambda_handler(e, c):\n    time.sleep(1)\n    return 1\n", "\"memoryMB\":1769");
    host_sleep(&h, 1500);
    began = host_us();
    for (int i = 0; i < BURST; i++)
        host_send(&h, "f", "{}", &a[i]);
    for (int i = 0; i < BURST; i++) {
        host_wait(&h, &a[i]);
        last = MAX(last, a[i].at_us + a[i].wall_us);
        if (a[i].err.code != ERR_OK || a[i].error)
            fprintf(stderr, "burst: %s %s\n", a[i].err.msg, a[i].payload);
        answer_done(&a[i]);
    }
    row("function: 0 -> 200 instances", (double)(last - began - 1000000) / 1000, "ms", "last answer, less the handler's second");
    functions_instances_json(h.fs, &b);
    for (char *p = b.p; (p = strstr(p, "\"pid\":")) && n < 1000; p += 6) {
        sum += pss_kb(atoi(p + 6));
        n++;
    }
    buf_done(&b);
    row("function: PSS of an idle instance", n ? sum / n / 1024 : 0, "MB", "one of 200");
    host_stop(&h);
    host_remove(&h);
}

int main(int argc, char **argv)
{
    static const char HELLO[] = "def lambda_handler(e, c):\n    return {'n': e['x']}\n";
    const char *only = argc > 1 ? argv[1] : "";

    if (geteuid() != 0) {
        fprintf(stderr, "function_bench needs root\n");
        return 1;
    }
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
        return 1;
    if (strstr("first", only))
        first_ever();
    if (strstr("cold", only))
        cold("function: cold, forked for the request", -1, HELLO, 60);
    if (strstr("ahead", only))
        cold("function: cold, sandbox forked ahead", 1, HELLO, 60);
    if (strstr("warm", only))
        warm();
    if (strstr("burst", only))
        burst();
    return 0;
}
