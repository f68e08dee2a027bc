/* Commands about the instance itself: down, status, kubeconfig, version. */
#include "cli/cli.h"

#include "base/buf.h"
#include "codec/json.h"
#include "env/fs.h"
#include "node/node.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { DOWN_LIMIT_MS = 40000 };

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, (ms % 1000) * 1000000L}, NULL);
}

int cmd_down(struct cli_opts *o, int argc, char **argv)
{
    int pid = instance_pid(o);

    if (pid) {
        if (kill(pid, SIGTERM) < 0)
            return complain(EXIT_FAILURE, "cannot stop process %d: %s", pid, strerror(errno));
        for (int waited = 0; instance_pid(o); waited += 10) {
            if (waited > DOWN_LIMIT_MS)
                return complain(EXIT_FAILURE, "process %d does not stop", pid);
            sleep_ms(10);
        }
    }
    /* The parts are gone; what they left on purpose (containers, links, rules) goes now. */
    struct err err;

    if (geteuid() == 0 && node_teardown(o->state, o->id, &err) < 0)
        return complain_err(&err);
    if (!pid)
        fprintf(stderr, "no instance was running with the state folder %s\n", o->state);
    return EXIT_SUCCESS;
}

/* Proportional set size of a process in bytes, 0 when it is gone. */
static int64_t pss_of(int pid)
{
    char path[64], line[128];
    int64_t kib = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    f = fopen(path, "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (str_starts(line, "Pss:"))
            kib = strtoll(line + 4, NULL, 10);
    fclose(f);
    return kib * 1024;
}

/* The second word of a process' command line ("server", "node", ...) if it is a child of parent. */
static bool part_name(int pid, int parent, char *name, size_t n)
{
    char path[64], text[512];
    size_t got, at;
    FILE *f;
    int ppid = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (!f)
        return false;
    got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = 0;
    if (!strrchr(text, ')') || sscanf(strrchr(text, ')') + 2, "%*c %d", &ppid) != 1 || ppid != parent)
        return false;
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    f = fopen(path, "re");
    if (!f)
        return false;
    got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = 0;
    at = strlen(text) + 1;
    snprintf(name, n, "%.60s", at < got ? text + at : text);
    return true;
}

static struct val *processes(struct arena *a, int supervisor)
{
    struct val *list = val_list(a), *row = val_map(a);
    struct dirent *d;
    DIR *proc = opendir("/proc");

    val_put_str(a, row, "name", "supervisor");
    val_put_int(a, row, "pid", supervisor);
    val_put_int(a, row, "pssBytes", pss_of(supervisor));
    val_push(a, list, row);
    while (proc && (d = readdir(proc))) {
        int pid = atoi(d->d_name);
        char name[64];

        if (pid <= 0 || !part_name(pid, supervisor, name, sizeof name))
            continue;
        row = val_map(a);
        val_put_str(a, row, "name", name);
        val_put_int(a, row, "pid", pid);
        val_put_int(a, row, "pssBytes", pss_of(pid));
        val_push(a, list, row);
    }
    if (proc)
        closedir(proc);
    return list;
}

static int64_t count_of(const struct cli_opts *o, struct arena *a, const char *path)
{
    struct err err;
    struct val *v = api_request(o, a, "GET", path, NULL, &err);

    return v ? (int64_t)val_len(val_get(v, "items")) : -1;
}

int cmd_status(struct cli_opts *o, int argc, char **argv)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    int pid = instance_pid(o);
    struct buf b = {0};

    val_put_str(a, v, "state", o->state);
    val_put_bool(a, v, "running", pid != 0);
    if (pid) {
        val_put_str(a, v, "api", arena_printf(a, "https://127.0.0.1:%d", o->api_port));
        val_put_str(a, v, "gateway", arena_printf(a, "http://127.0.0.1:%d", o->gateway_port));
        val_put_str(a, v, "aws", arena_printf(a, "http://127.0.0.1:%d", o->aws_port));
        val_put(a, v, "processes", processes(a, pid));
        val_put_int(a, v, "nodes", count_of(o, a, "/api/v1/nodes"));
        val_put_int(a, v, "pods", count_of(o, a, "/api/v1/pods"));
        val_put_int(a, v, "functions", count_of(o, a, "/apis/tandem.dev/v1/functions"));
        val_put_int(a, v, "volumes", count_of(o, a, "/apis/tandem.dev/v1/volumes"));
    }
    if (o->json) {
        json_write_pretty(&b, v);
        fputs(b.p, stdout);
        buf_done(&b);
    } else if (!pid) {
        printf("no instance is running with the state folder %s\n", o->state);
    } else {
        printf("state      %s\nkubernetes %s\ngateway    %s\naws        %s\n", o->state,
               val_str_at(v, "api", ""), val_str_at(v, "gateway", ""), val_str_at(v, "aws", ""));
        printf("holds      %d nodes, %d pods, %d functions, %d volumes\n\n%-12s %8s %10s\n",
               (int)val_int_at(v, "nodes", 0), (int)val_int_at(v, "pods", 0),
               (int)val_int_at(v, "functions", 0), (int)val_int_at(v, "volumes", 0), "process",
               "pid", "memory");
        VAL_EACH(val_get(v, "processes"), row)
            printf("%-12s %8d %7.1f MB\n", val_str_at(row, "name", ""),
                   (int)val_int_at(row, "pid", 0), (double)val_int_at(row, "pssBytes", 0) / 1e6);
    }
    return pid ? EXIT_SUCCESS : EXIT_FAILURE;
}

int cmd_kubeconfig(struct cli_opts *o, int argc, char **argv)
{
    _auto_(freep) char *path = xasprintf("%s/kubeconfig", o->state);
    struct err err;
    size_t n;
    _auto_(freep) char *text = fs_read(path, 1 << 20, &n, &err);

    if (!text)
        return complain(EXIT_FAILURE, "no instance has run with the state folder %s; start one "
                        "with: tandem up --detach --state %s", o->state, o->state);
    fwrite(text, 1, n, stdout);
    return EXIT_SUCCESS;
}

int cmd_version(struct cli_opts *o, int argc, char **argv)
{
    if (o->json)
        printf("{\"version\":\"%s\",\"kubernetes\":\"%s\"}\n", TANDEM_VERSION, KUBERNETES_VERSION);
    else
        printf("tandem %s (Kubernetes API %s)\n", TANDEM_VERSION, KUBERNETES_VERSION);
    return EXIT_SUCCESS;
}
