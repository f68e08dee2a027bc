#include "sandbox/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PATH_MAX_ = 512 };

static const char *const CONTROLLER[CGROUP_HIERARCHIES] = {"cpu", "cpuacct", "memory", "pids", ""};

/* ---- what the machine has ---------------------------------------------------------------- */

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ',') &&
            (p[n] == ',' || p[n] == 0 || p[n] == '\n' || p[n] == ' '))
            return true;
    return false;
}

/* "36 35 98:0 ROOT POINT OPTIONS ... - TYPE SOURCE SUPER_OPTIONS" */
static void host_line(struct cgroup_host *h, char *line)
{
    char *point = NULL, *super = NULL, *p = line;
    char *dash = strstr(line, " - ");
    bool v1;

    if (!dash)
        return;
    *dash = 0;
    for (int i = 0; i < 4 && p; i++)
        p = strchr(p, ' '), p = p ? p + 1 : NULL;
    if (!p)
        return;
    point = p;
    if ((p = strchr(point, ' ')))
        *p = 0;
    v1 = str_starts(dash + 3, "cgroup ");
    if (!v1 && !str_starts(dash + 3, "cgroup2 "))
        return;
    if (strlen(point) >= sizeof h->mount[0])
        return;
    if (!v1) {
        if (!*h->mount[CGROUP_V2])
            strcpy(h->mount[CGROUP_V2], point);
        return;
    }
    super = strchr(dash + 3, ' ');
    super = super ? strchr(super + 1, ' ') : NULL;
    for (int c = 0; super && c < CGROUP_V2; c++)
        if (has_word(super + 1, CONTROLLER[c]) && !*h->mount[c])
            strcpy(h->mount[c], point);
}

int cgroup_host_init(struct cgroup_host *h, const char *instance, struct err *err)
{
    struct cgroup_host host = {0};
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[2048];

    if (!f)
        return err_sys(err, "open /proc/self/mountinfo");
    while (fgets(line, sizeof line, f))
        host_line(&host, line);
    fclose(f);
    if ((size_t)snprintf(host.top, sizeof host.top, "tandem-%s", instance) >= sizeof host.top)
        return err_set(err, INVALID_ARGUMENT, "instance name too long: %s", instance);
    host.v2_controls = *host.mount[CGROUP_V2] && !*host.mount[CGROUP_MEMORY];
    if (host.v2_controls)
        for (int c = 0; c < CGROUP_V2; c++)
            *host.mount[c] = 0;
    if (!*host.mount[CGROUP_V2] && !*host.mount[CGROUP_MEMORY])
        return err_set(err, NOT_IMPLEMENTED,
                       "no cgroup file system is mounted (neither v2 nor a v1 memory controller)");
    /* The v2 tree counts cpu time without any controller, so cpuacct is only for hosts without. */
    if (*host.mount[CGROUP_V2] || streq(host.mount[CGROUP_CPUACCT], host.mount[CGROUP_CPU]))
        *host.mount[CGROUP_CPUACCT] = 0;
    *h = host;
    return 0;
}

static bool any_mounted(void)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[2048];
    bool any = false;

    while (f && fgets(line, sizeof line, f))
        any |= strstr(line, " - cgroup ") || strstr(line, " - cgroup2 ");
    if (f)
        fclose(f);
    return any;
}

int cgroup_mount_missing(struct err *err)
{
    char line[128], name[64], options[16][128] = {{0}}, path[192];
    int hierarchy, wanted[16] = {0};
    FILE *f;

    if (any_mounted())
        return 0;
    /* "name hierarchy groups enabled": controllers of one hierarchy can only be mounted together,
     * those of hierarchy 0 belong to v2. */
    if (!(f = fopen("/proc/cgroups", "re")))
        return err_sys(err, "open /proc/cgroups");
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%63s %d", name, &hierarchy) != 2 || *name == '#' || hierarchy <= 0 ||
            hierarchy >= 16)
            continue;
        size_t n = strlen(options[hierarchy]);
        snprintf(options[hierarchy] + n, sizeof options[0] - n, "%s%s", n ? "," : "", name);
        wanted[hierarchy] |= streq(name, "cpu") || streq(name, "cpuacct") ||
                             streq(name, "memory") || streq(name, "pids");
    }
    fclose(f);
    bool v1 = false;
    for (int i = 1; i < 16; i++)
        v1 |= wanted[i];
    if (v1 && mount("tandem", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                    "mode=755") < 0)
        return err_sys(err, "mount /sys/fs/cgroup");
    for (int i = 1; i < 16; i++) {
        if (!wanted[i])
            continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", options[i]);
        if (mkdir(path, 0755) < 0 ||
            mount("cgroup", path, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, options[i]) < 0)
            return err_sys(err, "mount cgroup %s", options[i]);
    }
    snprintf(path, sizeof path, v1 ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup");
    if ((v1 && mkdir(path, 0755) < 0) ||
        mount("cgroup2", path, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return v1 ? 0 : err_sys(err, "mount cgroup2"); /* v1 alone will do */
    return 0;
}

bool cgroup_favor_dynmods(void)
{
    static int kept = -1; /* kernels before 6.18 forget the mode with the mount */
    int fs, m;

    if (kept >= 0)
        return true;
    fs = (int)syscall(SYS_fsopen, "cgroup", 1 /* FSOPEN_CLOEXEC */);
    if (fs < 0)
        return false;
    if (syscall(SYS_fsconfig, fs, 0 /* SET_FLAG */, "none", NULL, 0) < 0 ||
        syscall(SYS_fsconfig, fs, 1 /* SET_STRING */, "name", "tandem", 0) < 0 ||
        syscall(SYS_fsconfig, fs, 0, "favordynmods", NULL, 0) < 0 ||
        syscall(SYS_fsconfig, fs, 6 /* CMD_CREATE */, NULL, NULL, 0) < 0) {
        close(fs);
        return false;
    }
    m = (int)syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, 0);
    close(fs);
    kept = m;
    return m >= 0;
}

/* ---- small file work --------------------------------------------------------------------- */

static bool used(const struct cgroup_host *h, int c)
{
    return h->mount[c][0] != 0;
}

static const char *place(char out[PATH_MAX_], const struct cgroup_host *h, int c, const char *path,
                         const char *file)
{
    snprintf(out, PATH_MAX_, "%s/%s%s%s%s%s", h->mount[c], h->top, *path ? "/" : "", path,
             *file ? "/" : "", file);
    return out;
}

static int write_text(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC), bad = 0;

    if (fd < 0)
        return -1;
    if (write(fd, text, strlen(text)) < 0)
        bad = errno;
    close(fd);
    errno = bad;
    return bad ? -1 : 0;
}

static int write_num(const struct cgroup_host *h, int c, const char *path, const char *file,
                     int64_t n)
{
    char at[PATH_MAX_], text[32];

    snprintf(text, sizeof text, "%" PRId64, n);
    return write_text(place(at, h, c, path, file), text);
}

/* The file's text, cut to the buffer; "" when it is not there. */
static size_t read_text(const struct cgroup_host *h, int c, const char *path, const char *file,
                        char *text, size_t cap)
{
    char at[PATH_MAX_];
    int fd = open(place(at, h, c, path, file), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, cap - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static int64_t read_num(const struct cgroup_host *h, int c, const char *path, const char *file)
{
    char text[64];

    return read_text(h, c, path, file, text, sizeof text) ? strtoll(text, NULL, 10) : 0;
}

/* The number behind "key " in a flat keyed file. */
static int64_t read_key(const struct cgroup_host *h, int c, const char *path, const char *file,
                        const char *key)
{
    char text[4096], *p = text;
    size_t n = strlen(key);

    read_text(h, c, path, file, text, sizeof text);
    while (p && *p) {
        if (strncmp(p, key, n) == 0 && p[n] == ' ')
            return strtoll(p + n + 1, NULL, 10);
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    return 0;
}

/* ---- making ------------------------------------------------------------------------------ */

/* mkdir -p below the hierarchy's mount; on plain v2 every level hands its controllers down. */
static int make_dirs(const struct cgroup_host *h, int c, const char *path, struct err *err)
{
    char at[PATH_MAX_], file[PATH_MAX_ + 32];
    size_t base = strlen(h->mount[c]);

    place(at, h, c, path, "");
    if (mkdir(at, 0755) == 0 && !h->v2_controls)
        return 0;
    if (errno == EEXIST && !h->v2_controls)
        return 0;
    for (char *p = at + base; p;) {
        *p = 0;
        if (strlen(at) > base && mkdir(at, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make cgroup %s", at);
        if (h->v2_controls && c == CGROUP_V2) {
            snprintf(file, sizeof file, "%s/cgroup.subtree_control", at);
            if (write_text(file, "+cpu +memory +pids") < 0) { /* one by one: some may be missing */
                (void)write_text(file, "+cpu");
                (void)write_text(file, "+memory");
                (void)write_text(file, "+pids");
            }
        }
        *p = '/';
        p = strchr(p + 1, '/');
    }
    if (mkdir(at, 0755) < 0 && errno != EEXIST)
        return err_sys(err, "make cgroup %s", at);
    return 0;
}

static int limit_v2(const struct cgroup_host *h, const char *path, const struct cgroup_limits *l,
                    struct err *err)
{
    char at[PATH_MAX_], text[64];

    if (l->memory_bytes && write_num(h, CGROUP_V2, path, "memory.max", l->memory_bytes) < 0)
        return err_sys(err, "limit memory of cgroup %s", path);
    /* Where the kernel gives us no such controller, a wish (weight) or a safety net (pids) is left out;
     * what somebody asked for by number is an error. */
    if (l->pids && write_num(h, CGROUP_V2, path, "pids.max", l->pids) < 0 && errno != ENOENT)
        return err_sys(err, "limit pids of cgroup %s", path);
    if (l->cpu_quota_us) {
        snprintf(text, sizeof text, "%" PRId64 " %" PRId64, l->cpu_quota_us,
                 l->cpu_period_us ? l->cpu_period_us : 100000);
        if (write_text(place(at, h, CGROUP_V2, path, "cpu.max"), text) < 0)
            return err_sys(err, "limit cpu of cgroup %s", path);
    }
    if (l->cpu_shares) { /* the curve the container world agreed on: 2..262144 -> 1..10000 */
        int64_t weight = 1 + (MAX(l->cpu_shares, (int64_t)2) - 2) * 9999 / 262142;
        if (write_num(h, CGROUP_V2, path, "cpu.weight", weight) < 0 && errno != ENOENT)
            return err_sys(err, "set cpu weight of cgroup %s", path);
    }
    return 0;
}

int cgroup_limit(const struct cgroup_host *h, const char *path, const struct cgroup_limits *l,
                 struct err *err)
{
    if (h->v2_controls)
        return limit_v2(h, path, l, err);
    if (l->memory_bytes && used(h, CGROUP_MEMORY) &&
        write_num(h, CGROUP_MEMORY, path, "memory.limit_in_bytes", l->memory_bytes) < 0)
        return err_sys(err, "limit memory of cgroup %s", path);
    if (l->pids && used(h, CGROUP_PIDS) && write_num(h, CGROUP_PIDS, path, "pids.max", l->pids) < 0)
        return err_sys(err, "limit pids of cgroup %s", path);
    if (l->cpu_quota_us && used(h, CGROUP_CPU)) {
        if (l->cpu_period_us && l->cpu_period_us != 100000 &&
            write_num(h, CGROUP_CPU, path, "cpu.cfs_period_us", l->cpu_period_us) < 0)
            return err_sys(err, "set cpu period of cgroup %s", path);
        if (write_num(h, CGROUP_CPU, path, "cpu.cfs_quota_us", l->cpu_quota_us) < 0)
            return err_sys(err, "limit cpu of cgroup %s", path);
    }
    if (l->cpu_shares && used(h, CGROUP_CPU) &&
        write_num(h, CGROUP_CPU, path, "cpu.shares", MAX(l->cpu_shares, (int64_t)2)) < 0)
        return err_sys(err, "set cpu shares of cgroup %s", path);
    return 0;
}

int cgroup_make(const struct cgroup_host *h, const char *path, const struct cgroup_limits *limits,
                struct err *err)
{
    if (strlen(path) >= CGROUP_PATH_MAX || strstr(path, ".."))
        return err_set(err, INVALID_ARGUMENT, "bad cgroup path %s", path);
    for (int c = 0; c < CGROUP_HIERARCHIES; c++)
        if (used(h, c) && make_dirs(h, c, path, err) < 0)
            return -1;
    return limits ? cgroup_limit(h, path, limits, err) : 0;
}

int cgroup_attach(const struct cgroup_host *h, const char *path, pid_t pid, struct err *err)
{
    for (int c = 0; c < CGROUP_HIERARCHIES; c++)
        if (used(h, c) && write_num(h, c, path, "cgroup.procs", pid) < 0)
            return err_sys(err, "attach to cgroup %s/%s/%s", h->mount[c], h->top, path);
    return 0;
}

int cgroup_open_attach(const struct cgroup_host *h, const char *path, int fds[CGROUP_FDS],
                       struct err *err)
{
    char at[PATH_MAX_];

    for (int c = 0; c < CGROUP_FDS; c++)
        fds[c] = -1;
    for (int c = 0; c < CGROUP_FDS; c++) {
        if (!used(h, c))
            continue;
        fds[c] = open(place(at, h, c, path, "cgroup.procs"), O_WRONLY | O_CLOEXEC);
        if (fds[c] < 0) {
            err_sys(err, "open %s", at);
            cgroup_close_fds(fds);
            return -1;
        }
    }
    return 0;
}

int cgroup_attach_fds(const int fds[CGROUP_FDS])
{
    for (int c = 0; c < CGROUP_FDS; c++)
        if (fds[c] >= 0 && write(fds[c], "0", 1) < 0)
            return errno;
    return 0;
}

void cgroup_close_fds(int fds[CGROUP_FDS])
{
    for (int c = 0; c < CGROUP_FDS; c++)
        closep(&fds[c]), fds[c] = -1;
}

int cgroup_open_v2(const struct cgroup_host *h, const char *path)
{
    char at[PATH_MAX_];

    if (!used(h, CGROUP_V2))
        return -1;
    return open(place(at, h, CGROUP_V2, path, ""), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* ---- ending ------------------------------------------------------------------------------ */

/* The hierarchy that knows who is inside: v2, else memory. */
static int members(const struct cgroup_host *h)
{
    return used(h, CGROUP_V2) ? CGROUP_V2 : CGROUP_MEMORY;
}

/* Calls fn for each group below and at `dir`, deepest first. */
static int walk(const char *dir, int (*fn)(const char *dir, void *arg), void *arg)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    char sub[PATH_MAX_];
    int bad = 0;

    if (!d)
        return errno == ENOENT ? 0 : -1;
    while ((e = readdir(d))) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(sub, sizeof sub, "%s/%s", dir, e->d_name) < sizeof sub)
            bad |= walk(sub, fn, arg);
    }
    closedir(d);
    return fn(dir, arg) | bad;
}

static int kill_members(const char *dir, void *arg)
{
    char file[PATH_MAX_ + 32], line[32];
    FILE *f;
    int *count = arg;

    snprintf(file, sizeof file, "%s/cgroup.procs", dir);
    if (!(f = fopen(file, "re")))
        return 0;
    while (fgets(line, sizeof line, f)) {
        pid_t pid = (pid_t)atoi(line);
        if (pid > 0 && count)
            (*count)++;
        if (pid > 0 && !count)
            kill(pid, SIGKILL);
    }
    fclose(f);
    return 0;
}

int cgroup_kill(const struct cgroup_host *h, const char *path, struct err *err)
{
    char at[PATH_MAX_];

    if (used(h, CGROUP_V2)) {
        if (write_text(place(at, h, CGROUP_V2, path, "cgroup.kill"), "1") == 0 || errno == ENODEV)
            return 0;
        if (access(place(at, h, CGROUP_V2, path, ""), F_OK) < 0)
            return 0; /* no group, nobody to kill */
    }
    /* No cgroup.kill (v1, or before 5.14): whoever forks while we read is met by the next round of
     * the caller, who waits for empty. */
    if (walk(place(at, h, members(h), path, ""), kill_members, NULL) < 0)
        return err_sys(err, "kill cgroup %s", path);
    return 0;
}

bool cgroup_empty(const struct cgroup_host *h, const char *path)
{
    char at[PATH_MAX_];
    int count = 0;

    if (used(h, CGROUP_V2))
        return read_key(h, CGROUP_V2, path, "cgroup.events", "populated") == 0;
    (void)walk(place(at, h, CGROUP_MEMORY, path, ""), kill_members, &count);
    return count == 0;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool cgroup_wait_empty(const struct cgroup_host *h, const char *path, int timeout_ms)
{
    char at[PATH_MAX_], text[64];
    int64_t end = now_ms() + timeout_ms, left;
    int fd = -1;

    if (used(h, CGROUP_V2))
        fd = open(place(at, h, CGROUP_V2, path, "cgroup.events"), O_RDONLY | O_CLOEXEC);
    while (!cgroup_empty(h, path) && (left = end - now_ms()) > 0) {
        struct pollfd p = {.fd = fd, .events = POLLPRI};
        ssize_t n = fd >= 0 ? pread(fd, text, sizeof text - 1, 0) : 0; /* reading arms the poll */
        text[MAX(n, (ssize_t)0)] = 0;
        if (strstr(text, "populated 0"))
            break;
        poll(&p, fd >= 0, fd >= 0 ? (int)MIN(left, (int64_t)100) : 2);
    }
    closep(&fd);
    return cgroup_empty(h, path);
}

static int remove_one(const char *dir, void *arg)
{
    (void)arg;
    if (rmdir(dir) == 0 || errno == ENOENT)
        return 0;
    return -1;
}

int cgroup_remove(const struct cgroup_host *h, const char *path, struct err *err)
{
    char at[PATH_MAX_];

    for (int c = 0; c < CGROUP_HIERARCHIES; c++) {
        if (!used(h, c))
            continue;
        place(at, h, c, path, "");
        /* Groups without children, the usual case, go in one call. */
        if (rmdir(at) == 0 || errno == ENOENT)
            continue;
        if (walk(at, remove_one, NULL) < 0 && access(at, F_OK) == 0) {
            errno = EBUSY;
            return err_sys(err, "remove cgroup %s", at);
        }
    }
    return 0;
}

int64_t cgroup_cpu_us(const struct cgroup_host *h, const char *path)
{
    if (used(h, CGROUP_V2))
        return read_key(h, CGROUP_V2, path, "cpu.stat", "usage_usec");
    return read_num(h, used(h, CGROUP_CPUACCT) ? CGROUP_CPUACCT : CGROUP_CPU, path, "cpuacct.usage") / 1000;
}

int cgroup_usage_end(const struct cgroup_host *h, const char *path, struct cgroup_usage *ret_usage, struct err *err)
{
    struct cgroup_usage u = {.cpu_us = cgroup_cpu_us(h, path)};
    char at[PATH_MAX_];

    if (!u.cpu_us && access(place(at, h, members(h), path, ""), F_OK) < 0)
        return err_sys(err, "cgroup %s", path);
    if (h->v2_controls) {
        u.memory_peak_bytes = read_num(h, CGROUP_V2, path, "memory.peak");
        u.oom_kills = read_key(h, CGROUP_V2, path, "memory.events", "oom_kill");
    } else if (used(h, CGROUP_MEMORY)) {
        u.memory_peak_bytes = read_num(h, CGROUP_MEMORY, path, "memory.max_usage_in_bytes");
        u.oom_kills = read_key(h, CGROUP_MEMORY, path, "memory.oom_control", "oom_kill");
    }
    *ret_usage = u;
    return 0;
}

int cgroup_renew(const struct cgroup_host *h, const char *path, bool uncap, int64_t *ret_left, struct err *err)
{
    if (h->v2_controls)
        return err_set(err, NOT_IMPLEMENTED, "a group of plain cgroup v2 cannot be used again");
    *ret_left = 0;
    if (used(h, CGROUP_MEMORY)) {
        if (write_num(h, CGROUP_MEMORY, path, "memory.max_usage_in_bytes", 0) < 0)
            return err_sys(err, "renew cgroup %s", path);
        *ret_left = read_num(h, CGROUP_MEMORY, path, "memory.usage_in_bytes");
    }
    if (uncap && used(h, CGROUP_CPU) && write_num(h, CGROUP_CPU, path, "cpu.cfs_quota_us", -1) < 0)
        return err_sys(err, "renew cgroup %s", path);
    return 0;
}

int cgroup_usage(const struct cgroup_host *h, const char *path, struct cgroup_usage *ret_usage,
                 struct err *err)
{
    struct cgroup_usage u = {.cpu_us = cgroup_cpu_us(h, path)};
    char at[PATH_MAX_];

    if (access(place(at, h, members(h), path, ""), F_OK) < 0)
        return err_sys(err, "cgroup %s", path);
    if (h->v2_controls) {
        u.memory_bytes = read_num(h, CGROUP_V2, path, "memory.current") -
                         read_key(h, CGROUP_V2, path, "memory.stat", "inactive_file");
        u.memory_peak_bytes = read_num(h, CGROUP_V2, path, "memory.peak");
        u.oom_kills = read_key(h, CGROUP_V2, path, "memory.events", "oom_kill");
        u.pids = read_num(h, CGROUP_V2, path, "pids.current");
    } else {
        if (used(h, CGROUP_MEMORY)) {
            u.memory_bytes = read_num(h, CGROUP_MEMORY, path, "memory.usage_in_bytes") -
                             read_key(h, CGROUP_MEMORY, path, "memory.stat", "total_inactive_file");
            u.memory_peak_bytes = read_num(h, CGROUP_MEMORY, path, "memory.max_usage_in_bytes");
            u.oom_kills = read_key(h, CGROUP_MEMORY, path, "memory.oom_control", "oom_kill");
        }
        if (used(h, CGROUP_PIDS))
            u.pids = read_num(h, CGROUP_PIDS, path, "pids.current");
    }
    u.memory_bytes = MAX(u.memory_bytes, (int64_t)0);
    *ret_usage = u;
    return 0;
}

int cgroup_freeze(const struct cgroup_host *h, const char *path, bool frozen, struct err *err)
{
    char at[PATH_MAX_];

    if (!used(h, CGROUP_V2))
        return err_set(err, NOT_IMPLEMENTED, "freezing needs a cgroup v2 tree");
    if (write_text(place(at, h, CGROUP_V2, path, "cgroup.freeze"), frozen ? "1" : "0") < 0)
        return err_sys(err, "freeze cgroup %s", path);
    return 0;
}
