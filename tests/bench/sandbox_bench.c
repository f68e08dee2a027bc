/* sandbox_bench: from the decision to start a container to its program's first instruction, and the
 * CPU time of start and end, next to crun and bwrap with the same root and the same program (a
 * static one that writes the clock). Rows: what, median, unit, beside, note. Needs root. */
#include "base/base.h"
#include "codec/json.h"
#include "sandbox/caps.h"
#include "sandbox/cgroup.h"
#include "sandbox/start.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OWN = 200, OTHERS = 20 };

static struct {
    char dir[64];
    struct cgroup_host host;
    int64_t us[OWN];
} B;

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t cpu_us(void) /* of ended children */
{
    struct rusage r;

    getrusage(RUSAGE_CHILDREN, &r);
    return (int64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void row(const char *what, int n, int64_t cpu)
{
    char note[96];

    qsort(B.us, (size_t)n, sizeof B.us[0], by_value);
    snprintf(note, sizeof note, "min %lld us, p99 %lld us, cpu %lld us, n=%d", (long long)B.us[0],
             (long long)B.us[n * 99 / 100], (long long)(cpu / n), n);
    printf("%-50s %12.2f %-8s %-28s %s\n", what, (double)B.us[n / 2], "us", "", note);
    fflush(stdout);
}

static struct sandbox_spec *spec_of(struct arena *a, int i)
{
    struct sandbox_spec *s = arena_new_of(a, struct sandbox_spec);

    s->id = s->name = "bench";
    s->lower = arena_array(a, const char *, 1);
    s->lower[0] = arena_printf(a, "%s/rootfs", B.dir);
    s->lower_n = 1;
    s->upper = arena_printf(a, "%s/u%d/upper", B.dir, i);
    s->work = arena_printf(a, "%s/u%d/work", B.dir, i);
    s->root = arena_printf(a, "%s/u%d/root", B.dir, i);
    s->args = arena_array(a, const char *, 1);
    s->args[0] = "/stamp";
    s->args_n = 1;
    s->caps = (int64_t)caps_default();
    s->seccomp = true;
    s->new_pid = s->new_ipc = s->new_uts = s->new_net = s->new_cgroup = true;
    s->hostname = "bench";
    s->cgroup = arena_printf(a, "b/%d", i);
    s->limits = (struct cgroup_limits){.memory_bytes = 64 << 20, .pids = 64, .cpu_shares = 512};
    sandbox_spec_defaults(s, a);
    return s;
}

static void fail(const struct err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    exit(1);
}

static void own(const char *what, bool in_pod)
{
    struct err err = {0};
    int64_t cpu = cpu_us();

    for (int i = 0; i < OWN; i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct sandbox_spec *s = spec_of(a, 2 * i + in_pod);
        struct sandbox_child c;
        int p[2], stdio[3] = {-1, -1, 2};
        int64_t at, began;

        if (pipe(p) < 0)
            exit(1);
        if (in_pod) /* its shim has them */
            s->new_net = s->new_ipc = s->new_uts = false;
        stdio[1] = p[1];
        began = now_us();
        if (cgroup_make(&B.host, s->cgroup, &s->limits, &err) < 0 ||
            sandbox_start(&B.host, s, stdio, &c, &err) < 0)
            fail(&err);
        if (read(p[0], &at, sizeof at) != sizeof at)
            exit(1);
        B.us[i] = at - began;
        waitpid(c.pid, NULL, 0);
        close(c.pid_fd);
        close(p[0]);
        close(p[1]);
        (void)cgroup_remove(&B.host, s->cgroup, &err);
    }
    row(what, OWN, cpu_us() - cpu);
}

/* Another starter: argv with %d for the number of the run. */
static void other(const char *what, const char *const *argv)
{
    int64_t cpu = cpu_us();

    for (int i = 0; i < OTHERS; i++) {
        char number[40];
        const char *args[64];
        int p[2], n = 0;
        int64_t at, began;

        snprintf(number, sizeof number, "bench%d-%d", (int)getpid(), i);
        for (; argv[n]; n++)
            args[n] = streq(argv[n], "%d") ? number : argv[n];
        args[n] = NULL;
        if (pipe(p) < 0)
            exit(1);
        began = now_us();
        pid_t pid = vfork();
        if (pid == 0) {
            dup2(p[1], 1);
            execvp(args[0], (char *const *)(uintptr_t)args);
            _exit(127);
        }
        close(p[1]);
        if (read(p[0], &at, sizeof at) != sizeof at) {
            printf("%-50s not measured: %s failed\n", what, argv[0]);
            return;
        }
        B.us[i] = at - began;
        waitpid(pid, NULL, 0);
        close(p[0]);
    }
    row(what, OTHERS, cpu_us() - cpu);
}

static void crun(void)
{
    char command[256], bundle[96];

    if (system("command -v crun >/dev/null") != 0)
        return;
    /* It refuses hybrid hosts: it is shown the v1 part alone. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return;
    if (!B.host.v2_controls)
        (void)umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    snprintf(bundle, sizeof bundle, "%s", B.dir);
    snprintf(command, sizeof command,
             "cd %s && crun spec && sed -i 's/\"terminal\": true/\"terminal\": false/; "
             "s#\"sh\"#\"/stamp\"#' config.json",
             B.dir);
    if (system(command) != 0)
        return;
    other("container: start to first instruction, crun",
          (const char *const[]){"crun", "run", "-b", bundle, "%d", NULL});
}

int main(void)
{
    struct err err = {0};
    char command[256], path[96];

    strcpy(B.dir, "/tmp/tandem-bench-XXXXXX");
    if (!mkdtemp(B.dir) || cgroup_host_init(&B.host, "bench", &err) < 0)
        fail(&err);
    (void)cgroup_favor_dynmods();
    snprintf(command, sizeof command,
             "cd %s && mkdir -p rootfs/proc rootfs/dev rootfs/sys && cp %s rootfs/stamp", B.dir,
             STAMP);
    if (system(command) != 0)
        return 1;
    own("container: start to first instruction, own", false);
    own("container: the same in a pod that is there", true);
    snprintf(path, sizeof path, "%s/rootfs", B.dir);
    fflush(stdout);
    if (system("command -v bwrap >/dev/null") == 0)
        other("container: start to first instruction, bwrap",
              (const char *const[]){"bwrap", "--unshare-all", "--bind", path, "/", "--proc",
                                    "/proc", "--dev", "/dev", "/stamp", NULL});
    pid_t pid = fork();
    if (pid == 0) {
        crun();
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    (void)cgroup_remove(&B.host, "", &err);
    snprintf(command, sizeof command, "rm -rf %s", B.dir);
    return system(command) != 0;
}
