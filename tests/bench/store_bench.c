/* store_bench [FOLDER]: what a durable write costs, beside the disk's own floor in the same run.
 *
 * W writers each put a 3 KB object and wait until it is durable before they put the next one; a
 * list, a restart with 100,000 objects, a fan-out to 1,000 watches. One JSON object a line. */
#include "env/clock.h"
#include "env/fs.h"
#include "store/engine.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { BODY = 3000, RUN_US = 3000000, LATENCIES = 400000 };

struct bench {
    uv_loop_t loop;
    struct env *env;
    struct store *s;
    struct store_table *t;
    char path[256];
    int64_t until_us;
    uint32_t writes, running, names;
    int64_t latency_us[LATENCIES];
    uint64_t events;
};
struct writer {
    struct bench *b;
    int64_t began_us;
};

static const struct obj *make_obj(struct bench *b, uint32_t number)
{
    static char text[BODY + 200];
    char name[32];
    int n;

    snprintf(name, sizeof name, "pod-%08u", number);
    n = snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"},\"x\":\"", name);
    memset(text + n, 'x', BODY - (size_t)n);
    strcpy(text + BODY - 2, "\"}");
    return obj_restore(text, BODY, store_next_revision(b->s), "default", name, "uid");
}

static void open_store(struct bench *b)
{
    struct store_args args = {.engine = &store_sqlite, .path = b->path};
    struct err err;

    uv_loop_init(&b->loop);
    b->env = args.env = env_real_new(&b->loop);
    b->s = store_open(&args, &err);
    if (!b->s) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    b->t = store_table(b->s, "pods");
}

static void close_store(struct bench *b)
{
    store_close(b->s);
    env_free(b->env);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    uv_loop_close(&b->loop);
}

static void put(struct bench *b)
{
    const struct obj *o = make_obj(b, b->names++);
    struct err err;

    if (store_put(b->s, b->t, o, STORE_ABSENT, 0, &err) < 0)
        abort();
    obj_unref(o);
}

static void next(void *arg);
static void durable(void *arg, const struct err *err)
{
    struct writer *w = arg;
    struct bench *b = w->b;
    int64_t now = clock_mono_us();

    if (err)
        abort();
    if (b->writes < LATENCIES)
        b->latency_us[b->writes] = now - w->began_us;
    b->writes++;
    if (now < b->until_us) {
        env_post(b->env, next, w);
        return;
    }
    free(w);
    if (--b->running == 0)
        uv_stop(&b->loop);
}

static void next(void *arg)
{
    struct writer *w = arg;

    w->began_us = clock_mono_us();
    put(w->b);
    store_when_durable(w->b->s, store_head(w->b->s), durable, w);
}

static int cmp(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;

    return a < b ? -1 : a > b;
}

static void writers(struct bench *b, uint32_t n)
{
    int64_t began = clock_mono_us();

    b->until_us = began + RUN_US;
    b->writes = 0;
    b->running = n;
    for (uint32_t i = 0; i < n; i++) {
        struct writer *w = malloc(sizeof *w);

        w->b = b;
        env_post(b->env, next, w);
    }
    uv_run(&b->loop, UV_RUN_DEFAULT);
    qsort(b->latency_us, MIN(b->writes, (uint32_t)LATENCIES), sizeof *b->latency_us, cmp);
    printf("{\"what\":\"durable creates, %u writers\",\"per_s\":%.0f,\"p50_us\":%lld,\"p99_us\":%lld,\"min_us\":%lld}\n", n,
           b->writes * 1e6 / (double)(clock_mono_us() - began), (long long)b->latency_us[b->writes / 2],
           (long long)b->latency_us[b->writes * 99ull / 100], (long long)b->latency_us[0]);
}

/* 3 KB + fdatasync, one after the other: into a file that grows, and over one that is there. */
static void floor_of_disk(const char *dir, bool grows)
{
    char path[300], block[BODY];
    int fd, n = 0;
    int64_t began, *lat = malloc(sizeof *lat * 100000);

    memset(block, 'x', sizeof block);
    snprintf(path, sizeof path, "%s/floor", dir);
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    for (int i = 0; !grows && i < 4000; i++)
        if (write(fd, block, sizeof block) < 0)
            abort();
    fsync(fd);
    lseek(fd, 0, SEEK_SET);
    began = clock_mono_us();
    while (clock_mono_us() - began < RUN_US / 2 && n < 4000) {
        int64_t t = clock_mono_us();

        if (write(fd, block, sizeof block) < 0 || fdatasync(fd) < 0)
            abort();
        lat[n++] = clock_mono_us() - t;
    }
    printf("{\"what\":\"raw write+fdatasync, %s file\",\"per_s\":%.0f,", grows ? "growing" : "preallocated",
           n * 1e6 / (double)(clock_mono_us() - began));
    qsort(lat, (size_t)n, sizeof *lat, cmp);
    printf("\"p50_us\":%lld,\"p99_us\":%lld,\"min_us\":%lld}\n", (long long)lat[n / 2], (long long)lat[n * 99 / 100],
           (long long)lat[0]);
    free(lat);
    close(fd);
    unlink(path);
}

static int64_t cpu(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static void count(void *arg, _unused_ const struct store_event *ev)
{
    ((struct bench *)arg)->events++;
}

static void lists_and_restart(struct bench *b)
{
    struct store_iter it;
    struct err err;
    int64_t began, took, cpu_us;
    uint32_t n = 0;
    static struct store_watch *w[1000];

    while (b->names < 100000) {
        put(b);
        if (b->names % 1000 == 0)
            uv_run(&b->loop, UV_RUN_NOWAIT);
    }
    close_store(b);
    began = clock_mono_us();
    cpu_us = cpu();
    open_store(b);
    took = clock_mono_us() - began;
    printf("{\"what\":\"open with %u objects\",\"ms\":%.0f,\"cpu_ms\":%.0f}\n", store_count(b->s, b->t, NULL),
           (double)took / 1e3, (double)(cpu() - cpu_us) / 1e3);

    began = clock_mono_us();
    if (store_iter_init(&it, b->s, b->t, "default", 0, NULL, NULL, &err) < 0)
        abort();
    while (n < 10000 && store_iter_next(&it))
        n++;
    store_iter_done(&it);
    printf("{\"what\":\"walk %u objects\",\"us\":%lld}\n", n, (long long)(clock_mono_us() - began));

    for (int i = 0; i < 1000; i++)
        w[i] = store_watch(b->s, b->t, 0, STORE_WATCH_HEAD, count, b, &err);
    began = clock_mono_us();
    for (int i = 0; i < 1000; i++)
        put(b);
    printf("{\"what\":\"write told to 1000 watches\",\"us\":%.1f,\"events\":%llu}\n",
           (double)(clock_mono_us() - began) / 1000, (unsigned long long)b->events);
    for (int i = 0; i < 1000; i++)
        store_watch_free(w[i]);
}

int main(int argc, char **argv)
{
    static struct bench b;
    char dir[200];
    struct err err;

    snprintf(dir, sizeof dir, "%s/store-bench-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 2;
    }
    snprintf(b.path, sizeof b.path, "%s/store.db", dir);
    floor_of_disk(dir, true);
    floor_of_disk(dir, false);
    open_store(&b);
    writers(&b, 1);
    writers(&b, 32);
    writers(&b, 128);
    floor_of_disk(dir, false);
    lists_and_restart(&b);
    close_store(&b);
    return fs_remove_tree(dir, &err) < 0;
}
