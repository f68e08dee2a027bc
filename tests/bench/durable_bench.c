/* What durable executions cost, engine alone: a played function, real files. durable_bench DIR [executions [sleepers [files]]]
 *
 *   run     executions of three steps each, 64 at once: wall and CPU time of one, pool threads included
 *   sleep   executions that wait for an hour: memory of one
 *   start   a gateway's: so many files of ended executions are read
 * Only the first syncs its files. */
#include "codec/json.h"
#include "function/durable/durable.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

static bool no_sync;

int fdatasync(int fd)
{
    return no_sync ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd)
{
    return no_sync ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

enum { AT_ONCE = 64 };

struct bench {
    uv_loop_t loop;
    struct durable *d;
    int left, steps, ended;
    bool sleeps;
};

struct play {
    struct bench *b;
    char arn[256];
    int step;
    function_done_fn *done;
    void *arg;
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static long pss_kb(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    char line[200];
    long kb = 0;

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %ld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return kb;
}

static void on_begun(void *arg, const struct err *err, const char *arn)
{
    if (err->code)
        exit((fprintf(stderr, "%s\n", err->msg), 1));
}

static void begin(struct bench *b)
{
    struct durable_start s = {.ns = "default", .name = "f", .qualifier = "$LATEST", .payload = "{\"n\":1}", .n = 7};

    if (b->left <= 0)
        return;
    b->left--;
    durable_start(b->d, &s, on_begun, b);
}

static void answer(struct play *p, const char *text)
{
    struct function_result r = {.payload = text, .n = strlen(text), .version = "$LATEST", .request_id = "r"};
    struct bench *b = p->b;

    p->done(p->arg, &r);
    free(p);
    b->ended++;
    begin(b);
}

static void next(struct play *p, const char *token);

static void on_checkpoint(void *arg, const struct val *v, const struct err *err)
{
    struct play *p = arg;

    if (!v)
        exit((fprintf(stderr, "%s\n", err->msg), 1));
    next(p, val_str_at(v, "CheckpointToken", ""));
}

static void next(struct play *p, const char *token)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    char *text;

    if (p->step == p->b->steps) {
        answer(p, p->b->sleeps ? "{\"Status\":\"PENDING\"}" : "{\"Status\":\"SUCCEEDED\",\"Result\":\"7\"}");
        return;
    }
    p->step++;
    text = p->b->sleeps ? arena_strdup(a, "[{\"Id\":\"w\",\"Type\":\"WAIT\",\"Action\":\"START\",\"WaitOptions\":{\"WaitSeconds\":3600}}]")
                        : arena_printf(a, "[{\"Id\":\"s%d\",\"Type\":\"STEP\",\"Action\":\"START\"},{\"Id\":\"s%d\",\"Type\":\"STEP\",\"Action\":\"SUCCEED\",\"Payload\":\"1\"}]", p->step, p->step);
    durable_checkpoint(p->b->d, p->arn, token, NULL, json_parse(a, text, strlen(text), &err), on_checkpoint, p);
}

static void invoke(void *arg, const struct function_call *c, function_done_fn *done, void *done_arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct play *p = xcalloc(1, sizeof *p);
    struct err err;
    struct val *v = json_parse(a, c->payload, c->n, &err);

    p->b = arg;
    p->done = done;
    p->arg = done_arg;
    snprintf(p->arn, sizeof p->arn, "%s", val_str_at(v, "DurableExecutionArn", ""));
    next(p, val_str_at(v, "CheckpointToken", ""));
}

static int target(void *arg, const char *ns, const char *name, const char *qualifier, struct durable_target *ret, struct err *err)
{
    *ret = (struct durable_target){.durable = true, .version = "$LATEST", .timeout_s = 86400, .retention_days = 2};
    return 0;
}

static void engine(struct bench *b, const char *top, const char *name)
{
    char dir[300];
    struct durable_options o = {.loop = &b->loop, .dir = dir, .invoke = invoke, .target = target, .arg = b};
    struct err err;

    snprintf(dir, sizeof dir, "%s/%s", top, name);
    uv_loop_init(&b->loop);
    b->d = durable_open(&o, &err);
    if (!b->d)
        exit((fprintf(stderr, "%s\n", err.msg), 1));
    durable_run(b->d, 0);
}

static void go(struct bench *b, int n, int steps, bool sleeps)
{
    b->left = n;
    b->steps = steps;
    b->sleeps = sleeps;
    for (int i = 0; i < AT_ONCE; i++)
        begin(b);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    if (b->ended != n)
        exit((fprintf(stderr, "%d of %d\n", b->ended, n), 1));
}

static void end(struct bench *b)
{
    durable_close(b->d, NULL, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    uv_loop_close(&b->loop);
}

int main(int argc, char **argv)
{
    int run = argc > 2 ? atoi(argv[2]) : 2000, sleep = argc > 3 ? atoi(argv[3]) : 10000, files = argc > 4 ? atoi(argv[4]) : 100000;
    struct bench b = {0};
    double t, c;
    long kb;

    if (argc < 2)
        return 2;
    if (!freopen("/dev/null", "w", stderr))
        return 1;
    engine(&b, argv[1], "run");
    t = seconds(), c = cpu_seconds();
    go(&b, run, 3, false);
    printf("run    n=%d per_s=%.0f us=%.0f cpu_us=%.0f\n", run, run / (seconds() - t), (seconds() - t) * 1e6 / run, (cpu_seconds() - c) * 1e6 / run);
    end(&b);
    no_sync = true;
    b = (struct bench){0};
    engine(&b, argv[1], "sleep");
    go(&b, 100, 1, true);
    b.ended = 0;
    kb = pss_kb();
    go(&b, sleep, 1, true);
    printf("sleep  n=%d bytes=%ld\n", sleep, (pss_kb() - kb) * 1024 / (sleep ? sleep : 1));
    end(&b);
    b = (struct bench){0};
    engine(&b, argv[1], "files");
    go(&b, files, 3, false);
    end(&b);
    b = (struct bench){0};
    kb = pss_kb();
    t = seconds(), c = cpu_seconds();
    engine(&b, argv[1], "files");
    printf("start  n=%d ms=%.0f cpu_ms=%.0f bytes=%ld\n", files, (seconds() - t) * 1e3, (cpu_seconds() - c) * 1e3, (pss_kb() - kb) * 1024 / (files ? files : 1));
    end(&b);
    return 0;
}
