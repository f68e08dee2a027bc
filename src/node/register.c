/* The Node object of this machine: made or brought up to date at start, its status when something
 * changed and every five minutes, its Lease every ten seconds. */
#include "codec/json.h"
#include "codec/kubetime.h"
#include "env/clock.h"
#include "node/node_int.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
    LEASE_S = 40,
    RENEW_MS = 10000,
    STATUS_MS = 300000,
    RETRY_MS = 500,
    PODS_MAX = 500,
    IMAGES_MAX = 50
};

/* The address of the interface that packets to the outside would leave by; else any; else loopback.
 */
void node_host_ip(char out[64])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)}, own;
    socklen_t n = sizeof own;
    struct ifaddrs *all, *i;
    _auto_(closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strcpy(out, "127.0.0.1");
    inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        getsockname(fd, (struct sockaddr *)&own, &n) == 0) {
        inet_ntop(AF_INET, &own.sin_addr, out, 64);
        return;
    }
    if (getifaddrs(&all) < 0)
        return;
    for (i = all; i; i = i->ifa_next)
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK) &&
            i->ifa_flags & IFF_UP) {
            inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, out, 64);
            break;
        }
    freeifaddrs(all);
}

static void first_line(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");

    out[0] = 0;
    if (!f)
        return;
    if (fgets(out, (int)cap, f))
        out[strcspn(out, "\n")] = 0;
    fclose(f);
}

static void os_name(char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen("/etc/os-release", "re");

    snprintf(out, cap, "Linux");
    while (f && fgets(line, sizeof line, f))
        if (str_starts(line, "PRETTY_NAME=\"")) {
            line[strcspn(line + 13, "\"") + 13] = 0;
            snprintf(out, cap, "%s", line + 13);
        }
    if (f)
        fclose(f);
}

static const char *arch_name(void)
{
#if defined(__aarch64__)
    return "arm64";
#else
    return "amd64";
#endif
}

static void put_condition(struct arena *a, struct val *list, const char *type, const char *status,
                          const char *reason, const char *message, int64_t since_ms)
{
    struct val *c = val_map(a);
    char text[KUBETIME_MAX];

    val_put_str(a, c, "type", type);
    val_put_str(a, c, "status", status);
    val_put_str(a, c, "lastHeartbeatTime", kubetime_text(text, clock_real_ms()));
    val_put_str(a, c, "lastTransitionTime", kubetime_text(text, since_ms));
    val_put_str(a, c, "reason", reason);
    val_put_str(a, c, "message", message);
    val_push(a, list, c);
}

static struct val *resources(struct node *n, struct arena *a)
{
    struct val *v = val_map(a);
    struct statvfs fs;

    val_put_str(a, v, "cpu", arena_printf(a, "%lld", (long long)n->cpu_n));
    val_put_str(a, v, "memory", arena_printf(a, "%lldKi", (long long)(n->memory_bytes / 1024)));
    val_put_str(a, v, "pods", arena_printf(a, "%d", PODS_MAX));
    if (statvfs(n->o.state, &fs) == 0)
        val_put_str(
            a, v, "ephemeral-storage",
            arena_printf(a, "%lldKi", (long long)((uint64_t)fs.f_blocks * fs.f_frsize / 1024)));
    val_put_str(a, v, "hugepages-1Gi", "0");
    val_put_str(a, v, "hugepages-2Mi", "0");
    return v;
}

static void put_images(struct node *n, struct arena *a, struct val *status)
{
    struct image **list = NULL;
    size_t count = 0;
    struct err err;
    struct val *out = val_need_list(a, status, "images");

    if (image_ls(n->images, &list, &count, &err) < 0)
        return;
    for (size_t i = 0; i < count && i < IMAGES_MAX; i++) {
        struct val *v = val_map(a), *names = val_need_list(a, v, "names");
        if (!str_empty(list[i]->repo_digest))
            val_push_str(a, names, list[i]->repo_digest);
        val_push_str(a, names, list[i]->name);
        val_put_int(a, v, "sizeBytes", list[i]->size);
        val_push(a, out, v);
    }
    image_list_free(list, count);
}

static struct val *status_of(struct node *n, struct arena *a)
{
    struct val *s = val_map(a), *list, *v, *info;
    char text[256];
    struct utsname u;

    list = val_need_list(a, s, "addresses");
    v = val_map(a);
    val_put_str(a, v, "type", "InternalIP");
    val_put_str(a, v, "address", n->host_ip);
    val_push(a, list, v);
    v = val_map(a);
    val_put_str(a, v, "type", "Hostname");
    val_put_str(a, v, "address", n->o.name);
    val_push(a, list, v);
    val_put(a, s, "capacity", resources(n, a));
    val_put(a, s, "allocatable", resources(n, a));
    list = val_need_list(a, s, "conditions");
    put_condition(a, list, "MemoryPressure", "False", "KubeletHasSufficientMemory",
                  "kubelet has sufficient memory available", n->boot_ms);
    put_condition(a, list, "DiskPressure", "False", "KubeletHasNoDiskPressure",
                  "kubelet has no disk pressure", n->boot_ms);
    put_condition(a, list, "PIDPressure", "False", "KubeletHasSufficientPID",
                  "kubelet has sufficient PID available", n->boot_ms);
    put_condition(a, list, "Ready", "True", "KubeletReady", "tandem node is posting ready status",
                  n->boot_ms);
    info = val_need_map(a, s, "nodeInfo");
    uname(&u);
    os_name(text, sizeof text);
    val_put_str(a, info, "osImage", text);
    val_put_str(a, info, "kernelVersion", u.release);
    val_put_str(a, info, "machineID", n->machine_id);
    val_put_str(a, info, "systemUUID", n->machine_id);
    val_put_str(a, info, "bootID", n->boot_id);
    val_put_str(a, info, "containerRuntimeVersion", "tandem://0.1.0");
    val_put_str(a, info, "kubeletVersion", n->o.version);
    val_put_str(a, info, "kubeProxyVersion", n->o.version);
    val_put_str(a, info, "operatingSystem", "linux");
    val_put_str(a, info, "architecture", arch_name());
    put_images(n, a, s);
    return s;
}

/* ---- writing
 * --------------------------------------------------------------------------------------- */

static void write_status(struct node *n);

static void status_written(void *arg, const struct client_result *r)
{
    struct node *n = arg;

    n->node_write_busy = false;
    if (r->err && r->err->code != ERR_CANCELLED) {
        LOG(WARN, "node", "did=write_node_status err=\"%s\" then=\"again soon\"", r->err->msg);
        if (r->err->code == ERR_NOT_FOUND)
            n->registered = false;
        env_timer_start(n->beat, RETRY_MS, STATUS_MS);
        return;
    }
    if (!n->node_dirty)
        return;
    n->node_dirty = false;
    write_status(n);
}

static void write_status(struct node *n)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *body = val_map(a);

    if (n->node_write_busy) {
        n->node_dirty = true;
        return;
    }
    n->node_write_busy = true;
    val_put(a, body, "status", status_of(n, a));
    client_call(n->client,
                &(struct client_call){.verb = CLIENT_PATCH,
                                      .resource = "v1/nodes",
                                      .name = n->o.name,
                                      .sub = "status",
                                      .body = body,
                                      .patch_type = CLIENT_PATCH_STRATEGIC},
                status_written, n);
}

static struct val *labels(struct node *n, struct arena *a)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "kubernetes.io/hostname", n->o.name);
    val_put_str(a, v, "kubernetes.io/os", "linux");
    val_put_str(a, v, "kubernetes.io/arch", arch_name());
    val_put_str(a, v, "beta.kubernetes.io/os", "linux");
    val_put_str(a, v, "beta.kubernetes.io/arch", arch_name());
    val_put_str(a, v, "node-role.kubernetes.io/control-plane", "");
    return v;
}

static void registered(void *arg, const struct client_result *r)
{
    struct node *n = arg;

    n->node_write_busy = false;
    if (r->err && r->err->code == ERR_CANCELLED)
        return;
    if (r->err && r->err->code != ERR_ALREADY_EXISTS) {
        LOG(WARN, "node", "did=register err=\"%s\" then=\"again soon\"", r->err->msg);
        env_timer_start(n->beat, RETRY_MS, STATUS_MS);
        return;
    }
    n->registered = true;
    LOG(INFO, "node", "did=registered node=%s ip=%s", n->o.name, n->host_ip);
    write_status(n);
}

static void create(struct node *n)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *m, *s;

    val_put_str(a, v, "apiVersion", "v1");
    val_put_str(a, v, "kind", "Node");
    m = val_need_map(a, v, "metadata");
    val_put_str(a, m, "name", n->o.name);
    val_put(a, m, "labels", labels(n, a));
    s = val_need_map(a, v, "spec");
    if (n->o.pod_cidr) {
        val_put_str(a, s, "podCIDR", n->o.pod_cidr);
        val_push_str(a, val_need_list(a, s, "podCIDRs"), n->o.pod_cidr);
    }
    val_put_str(a, s, "providerID", arena_printf(a, "tandem://%s", n->o.name));
    val_put(a, v, "status", status_of(n, a));
    n->node_write_busy = true;
    client_call(n->client,
                &(struct client_call){.verb = CLIENT_CREATE, .resource = "v1/nodes", .body = v},
                registered, n);
}

static void beat(void *arg)
{
    struct node *n = arg;

    if (n->node_write_busy)
        return;
    if (n->registered)
        write_status(n);
    else
        create(n);
}

void node_status_poke(struct node *n)
{
    if (n->registered)
        env_timer_start(n->beat, 200, STATUS_MS);
}

int node_register_start(struct node *n, struct err *err)
{
    struct sysinfo si;

    (void)err;
    sysinfo(&si);
    n->memory_bytes = (int64_t)si.totalram * si.mem_unit;
    n->cpu_n = sysconf(_SC_NPROCESSORS_ONLN);
    n->boot_ms = clock_real_ms();
    first_line("/etc/machine-id", n->machine_id, sizeof n->machine_id);
    first_line("/proc/sys/kernel/random/boot_id", n->boot_id, sizeof n->boot_id);
    n->beat = env_timer_new(n->env, beat, n);
    env_timer_start(n->beat, 0, STATUS_MS);
    n->lease = client_lease(n->client, "kube-node-lease", n->o.name, n->o.name, LEASE_S, RENEW_MS);
    return 0;
}
