/* zygote.so - what Python cannot do itself: namespaces, mounts, the way into the sandbox.
 *
 * Loaded by driver.py through ctypes. Single-threaded all the way. Two kinds of callers:
 *   the zygote, as root, in a mount namespace of its own that holds the function's root and little else
 *     (the fewer mounts, the cheaper each instance's copy);
 *   the instance, a fork of the zygote, which goes through enter() once and is inside for good.
 *
 * The order of enter() matters: groups first (everything after is charged to the instance), then
 * namespaces and mounts (need root), then ids, capabilities, and the filter last. */
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"
#include "sandbox/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/mount.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { CHILDREN_MAX = 4096, NEXT_COMPILED = 100, NEXT_AHEAD, NEXT_AHEAD_INIT, NEXT_REHEARSE, NEXT_RESTORE, NEXT_RESTORE_AHEAD, SETTLE_MS = 30, HOT_MAX = 8192, READ_MAX = 8192 };

static struct {
    int ctl, sig, pid_ns, proc;
    struct zygote_ask ask; /* the one z_next() gave back */
    int fds[ZYGOTE_FDS_MAX];
    int fds_n;
    struct child {
        pid_t pid;
        uint32_t slot, what;
    } children[CHILDREN_MAX];
    uint32_t children_n;
    /* what every instance gets */
    uint32_t uid;
    char tmp_options[64];
    char code[1024]; /* writable path of the code, for the compiler */
    bool own_net;       /* an instance without a pooled network gets an empty one, not the zygote's */
    char workdir[1024]; /* where instances start; "": /var/task */
    struct seccomp_filter filter;
    bool rehearsed, ready, settled;
    int hot_fd; /* in the rehearsal's child: where the addresses go */
    int ring;   /* holds the pins */
    char call[256]; /* one to rehearse with */
    unsigned call_n;
    unsigned long read[READ_MAX]; /* pages of files that a request reads, ascending */
    int read_n;
    int root;               /* a new zygote of a Node: where its root will be sent */
    int sig_write;          /* of a zygote whose threads may get the signal */
    void (*forked)(void);   /* see z_resume() */
} z = {.sig_write = -1, .ctl = -1, .sig = -1, .pid_ns = -1, .proc = -1, .hot_fd = -1, .ring = -1};

void (*z_serve)(bool ahead);

/* What an instance asks of us, read by the driver without a call. */
EXPORT struct z_info z_info;

/* ---- the zygote's own start ---- */

/* What base and zygote have in common. ctl: the socket to the gateway. From here on the process
 * dies with its parent (gateway or base). */
static int begin(int ctl)
{
    sigset_t set;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -errno;
    if (getppid() == 1)
        return -ESRCH;
    z.ctl = ctl;
    z.children_n = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    z.sig = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    z.pid_ns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    z.proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* for later, when /proc is out of sight */
    return z.sig < 0 || z.pid_ns < 0 || z.proc < 0 ? -errno : 0;
}

enum { CTL_FD = 3, PROC_FD = 4 }; /* across an exec */
enum { IMAGE_FD = 4, KEYS_FD = 5, HIGH_FD = 64 }; /* in an instance of a version with snapshots */

static void on_child(int sig)
{
    int e = errno;

    (void)sig;
    (void)!write(z.sig_write, "", 1);
    errno = e;
}

EXPORT int z_exec(const char *const *argv, const char *const *envp);
/* The zygote becomes another program, which goes on with z_resume(). -errno: it did not. */
EXPORT int z_exec(const char *const *argv, const char *const *envp)
{
    if (dup2(z.proc, PROC_FD) < 0)
        return -errno;
    z.proc = PROC_FD;
    execve(argv[0], (char *const *)argv, (char *const *)envp);
    return -errno;
}

/* Threads of the new program may be given the signal of a child's end and drop it: a handler tells it by a pipe. */
EXPORT int z_resume(void (*forked)(void))
{
    struct sigaction act = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    z.ctl = CTL_FD;
    z.proc = PROC_FD;
    z.sig = ends[0];
    z.sig_write = ends[1];
    z.forked = forked;
    if (fcntl(CTL_FD, F_SETFD, FD_CLOEXEC) < 0 || fcntl(PROC_FD, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    z.pid_ns = openat(z.proc, "ns/pid", O_RDONLY | O_CLOEXEC);
    if (z.pid_ns < 0 || sigaction(SIGCHLD, &act, NULL) < 0)
        return -errno;
    return getppid() == 1 ? -ESRCH : 0;
}

EXPORT int z_base(int ctl);
EXPORT int z_base(int ctl)
{
    return begin(ctl);
}

/* In a zygote. Own network: empty, shared by instances that get none of their own. */
EXPORT int z_start(int ctl);
EXPORT int z_start(int ctl)
{
    int r = begin(ctl);

    if (r < 0)
        return r;
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return -errno;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    return 0;
}

/* In a zygote: the loopback of the network that it shares with instances that have none. */
EXPORT int z_loopback_up(void);
EXPORT int z_loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int ret = fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    return ret;
}

EXPORT int z_mount(const char *what, const char *where, const char *type, unsigned long flags,
                   const char *data);
EXPORT int z_mount(const char *what, const char *where, const char *type, unsigned long flags,
                   const char *data)
{
    return mount(what, where, type, flags, data) < 0 ? -errno : 0;
}

/* A user namespace in which root is mapped to `uid` outside and everybody else to himself: as the
 * map of a mount it shows root's files as uid's, makes uid's new files root's, and leaves what
 * others own to the bits. The descriptor, or -errno. */
static int user_ns_of(uint32_t uid)
{
    char path[64], map[64];
    int ready[2], fd = -EIO, e = 0;
    pid_t pid;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    pid = fork();
    if (pid < 0) {
        e = errno;
        close(ready[0]);
        close(ready[1]);
        return -e;
    }
    if (pid == 0) {
        char ok = unshare(CLONE_NEWUSER) == 0;

        /* we end it below; should we be killed before that, nobody else would: unshare cleared its
         * death signal, so it ends itself */
        alarm(5);
        (void)!write(ready[1], &ok, 1);
        for (;;)
            pause();
    }
    if (read(ready[0], map, 1) == 1 && map[0]) {
        static const char *const names[] = {"uid_map", "gid_map"};

        for (int i = 0; i < 2 && !e; i++) {
            snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
            int n = snprintf(map, sizeof map, "0 %u 1\n1 1 65535\n", uid);
            int f = open(path, O_WRONLY | O_CLOEXEC);

            if (f < 0 || write(f, map, (size_t)n) != n)
                e = errno;
            if (f >= 0)
                close(f);
        }
        snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
        fd = e ? -e : open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && !e)
            fd = -errno;
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    return fd;
}

/* Binds a host directory. flags: MOUNT_ATTR_*. uid != 0: root's files appear as uid's (when the
 * file system can do that; otherwise they stay root's and the bits decide). */
EXPORT int z_bind(const char *from, const char *to, unsigned long attr, unsigned uid);
EXPORT int z_bind(const char *from, const char *to, unsigned long attr, unsigned uid)
{
    struct mount_attr m = {.attr_set = attr};
    int e = 0, fd = (int)syscall(SYS_open_tree, AT_FDCWD, from,
                                 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);

    if (fd < 0)
        return -errno;
    if (uid) {
        int ns = user_ns_of(uid);

        if (ns >= 0) {
            struct mount_attr map = {.attr_set = attr | MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)ns};

            if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &map, sizeof map) == 0)
                m.attr_set = 0;
            close(ns);
        }
    }
    if (m.attr_set && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &m, sizeof m) < 0)
        e = errno;
    if (!e && syscall(SYS_move_mount, fd, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        e = errno;
    close(fd);
    return -e;
}

/* root (a mount point) becomes "/"; the host's tree is gone from here. */
EXPORT int z_pivot(const char *root);
EXPORT int z_pivot(const char *root)
{
    if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
        chdir("/") < 0)
        return -errno;
    return 0;
}

/* What every instance has in common is done here once and copied by each fork: host name, limits, mask, folder, and a
 * bounding set without capabilities (the zygote keeps those it has: it starts no program). */
static int inherit(const char *host)
{
    static const struct {
        int what;
        rlim_t n;
    } limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, 1024}};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct rlimit l = {limits[i].n, limits[i].n};

        if (setrlimit((__rlimit_resource_t)limits[i].what, &l) < 0)
            return -errno;
    }
    if (sethostname(host, strlen(host)) < 0 || chdir(z.workdir[0] ? z.workdir : "/var/task") < 0 || setgroups(0, NULL) < 0)
        return -errno;
    umask(022);
    for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ;
    return 0;
}

EXPORT int z_config(unsigned uid, unsigned tmp_mb, const char *host, const char *code)
{
    z.uid = uid;
    snprintf(z.tmp_options, sizeof z.tmp_options, "size=%um,mode=1777", tmp_mb);
    snprintf(z.code, sizeof z.code, "%s", code);
    seccomp_default(&z.filter, 0); /* made once, copied by fork */
    return inherit(host);
}

EXPORT void z_own_net(void);
EXPORT void z_own_net(void)
{
    z.own_net = true;
}

EXPORT void z_workdir(const char *path);
EXPORT void z_workdir(const char *path)
{
    snprintf(z.workdir, sizeof z.workdir, "%s", path);
}

FILE *z_open_maps(void)
{
    char path[48];
    int fd;

    snprintf(path, sizeof path, "../%d/maps", getpid()); /* z.proc is the zygote's own folder */
    fd = openat(z.proc, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? NULL : fdopen(fd, "r");
}

/* ---- memory that forks share ----
 *
 * A fork costs what the page tables of its parent hold: each entry is copied, and taken away at the end. Of the 3,600 pages
 * of a Python some 900 matter to a request. So the entries of all others are left out: the writable memory of a runtime that
 * has loaded is moved into a file in memory, mapped privately where it was ("freeze"); then any page that nobody has
 * written since is a page of a file, and its entry can be dropped at will: who needs it, faults it in. What a request reads
 * is found by a rehearsal in a child ("learn"). */

struct map {
    unsigned long from, to;
    int prot;
    bool file;  /* of an inode: what nobody wrote can be read again */
    bool ours;  /* this library's */
    bool stack;
};

static int page_map(pid_t pid)
{
    char path[48];

    snprintf(path, sizeof path, "../%d/pagemap", pid);
    return openat(z.proc, path, O_RDONLY | O_CLOEXEC);
}

/* The private mappings that can be read, without the kernel's. */
static int read_maps(struct map *maps, int max)
{
    char line[512], prot[8], *name;
    unsigned long inode;
    FILE *f = z_open_maps();
    int n = 0, at;

    while (f && n < max && fgets(line, sizeof line, f)) {
        struct map *m = &maps[n];

        if (sscanf(line, "%lx-%lx %7s %*s %*s %lu %n", &m->from, &m->to, prot, &inode, &at) < 4 || prot[0] != 'r' || prot[3] != 'p')
            continue;
        name = line + at;
        if (strncmp(name, "[v", 2) == 0)
            continue;
        m->stack = strncmp(name, "[stack", 6) == 0;
        m->ours = strstr(name, "/zygote.") != NULL;
        m->prot = PROT_READ | (prot[1] == 'w' ? PROT_WRITE : 0) | (prot[2] == 'x' ? PROT_EXEC : 0);
        m->file = inode != 0;
        n++;
    }
    if (f)
        fclose(f);
    return n;
}

enum { PAGE_PRESENT = 63, PAGE_FILE = 61, PAGE_OWN = 56, GAP_MAX = 16, RUNS_MAX = 512 };

/* Entries of a pagemap, read some hundred at a time. */
struct pages {
    int fd;
    unsigned long from;
    size_t n;
    uint64_t entry[512];
};

/* 0: nothing is there. Within [at, to) the pages that follow are asked for next. */
static uint64_t page_at(struct pages *p, unsigned long at, unsigned long to)
{
    if (at < p->from || (at - p->from) / 4096 >= p->n) {
        ssize_t got = pread(p->fd, p->entry, MIN((to - at) / 4096, sizeof p->entry / 8) * 8, (off_t)(at / 4096 * 8));

        p->from = at;
        p->n = got > 0 ? (size_t)got / 8 : 0;
    }
    return p->n ? p->entry[(at - p->from) / 4096] : 0;
}

static bool has(uint64_t entry, int bit)
{
    return entry >> bit & 1;
}

struct run {
    unsigned long from, to;
    int prot;
};

/* The parts of the writable mappings that hold something: in between lies what was never touched. */
static int touched(const struct map *maps, int n, int pagemap, struct run *runs)
{
    struct pages p = {.fd = pagemap};
    int runs_n = 0;

    for (int i = 0; i < n; i++) {
        struct run *last = NULL;

        if (!(maps[i].prot & PROT_WRITE) || maps[i].stack)
            continue;
        for (unsigned long at = maps[i].from; at < maps[i].to; at += 4096) {
            uint64_t entry = page_at(&p, at, maps[i].to);

            if (!has(entry, PAGE_PRESENT) || (maps[i].file && !last && has(entry, PAGE_FILE)))
                continue;
            if (last && at - last->to <= GAP_MAX * 4096) {
                last->to = at + 4096;
            } else if (runs_n == RUNS_MAX) {
                return runs_n;
            } else {
                last = &runs[runs_n++];
                *last = (struct run){at, at + 4096, maps[i].prot};
            }
        }
    }
    return runs_n;
}

EXPORT int z_freeze(void);
/* 0, or -errno and nothing has changed. Nothing but the stack may change while it works, so all it needs lies there. */
EXPORT int z_freeze(void)
{
    struct map maps[512];
    struct run runs[RUNS_MAX];
    int n = read_maps(maps, 512), fd = memfd_create("runtime", MFD_CLOEXEC), pagemap = page_map(getpid()), e = 0;
    off_t at = 0;

    if (fd < 0 || pagemap < 0)
        e = errno;
    n = e ? 0 : touched(maps, n, pagemap, runs);
    for (int i = 0; i < n && !e; i++) {
        size_t size = runs[i].to - runs[i].from;

        if (pwrite(fd, (void *)runs[i].from, size, at) != (ssize_t)size)
            e = errno ? errno : EIO;
        at += (off_t)size;
    }
    at = 0;
    for (int i = 0; i < n && !e; i++) {
        size_t size = runs[i].to - runs[i].from;

        if (mmap((void *)runs[i].from, size, runs[i].prot, MAP_PRIVATE | MAP_FIXED, fd, at) == MAP_FAILED)
            _exit(125); /* what was there may be lost */
        at += (off_t)size;
    }
    if (fd >= 0)
        close(fd);
    if (pagemap >= 0)
        close(pagemap);
    return -e;
}

/* A private mapping of a file gets its page tables copied by fork only when it holds a page of its
 * own; else every child faults each page of the interpreter's code in again. So each of them gets
 * one: a byte is written with the value it has. Costs a page each, once; saves some 100 us a fork. */
EXPORT void z_own_mappings(void);
EXPORT void z_own_mappings(void)
{
    struct map maps[512];
    int n = read_maps(maps, 512);

    for (int i = 0; i < n; i++) {
        void *at = (void *)maps[i].from;
        size_t size = maps[i].to - maps[i].from;

        if (!maps[i].file || maps[i].prot & PROT_WRITE || mprotect(at, size, maps[i].prot | PROT_WRITE) < 0)
            continue; /* a security module may forbid it: then it is slower */
        *(volatile char *)at = *(volatile char *)at;
        mprotect(at, size, maps[i].prot);
    }
}

static bool is_hot(unsigned long at)
{
    int from = 0, to = z.read_n;

    while (from < to) {
        int mid = (from + to) / 2;

        if (z.read[mid] < at)
            from = mid + 1;
        else
            to = mid;
    }
    return from < z.read_n && z.read[from] == at;
}

EXPORT void z_drop_cold(void);
/* Page table entries of what can be read again from its file and no request reads. */
EXPORT void z_drop_cold(void)
{
    struct map maps[512];
    int n = z.read_n ? read_maps(maps, 512) : 0;
    struct pages p = {.fd = page_map(getpid())};

    for (int i = 0; i < n && p.fd >= 0; i++) {
        unsigned long from = 0; /* of the run that can go; 0: none */
        bool any = false;       /* something of it is there */

        if (!maps[i].file || maps[i].ours)
            continue;
        for (unsigned long at = maps[i].from; at <= maps[i].to; at += 4096) {
            uint64_t entry = at < maps[i].to ? page_at(&p, at, maps[i].to) : 0;
            bool there = has(entry, PAGE_PRESENT), cold = at < maps[i].to && (!there || (has(entry, PAGE_FILE) && !is_hot(at)));

            if (cold && !from) {
                from = at;
                any = false;
            }
            any |= cold && there;
            if (!cold && from) {
                if (any)
                    madvise((void *)from, at - from, MADV_DONTNEED);
                from = 0;
            }
        }
    }
    if (p.fd >= 0)
        close(p.fd);
}

/* In the rehearsal's child: from here on a page of a file is present only when it was touched. Neighbours are told apart by
 * advice that differs: a fault fills in what lies around it, but in its own mapping only. */
static void watch(void)
{
    static struct map maps[512];
    int n = read_maps(maps, 512), pagemap = page_map(getpid());

    for (int i = 0; i < n; i++)
        for (unsigned long at = maps[i].from; maps[i].file && at < maps[i].to; at += 4096) {
            uint64_t entry;

            if ((at / 4096) & 1)
                madvise((void *)at, 4096, MADV_SEQUENTIAL);
            if (pread(pagemap, &entry, sizeof entry, (off_t)(at / 4096 * 8)) == 8 && has(entry, PAGE_PRESENT) && has(entry, PAGE_FILE))
                madvise((void *)at, 4096, MADV_DONTNEED);
        }
    close(pagemap);
}

/* What the child (a fork of ours) has of the pages that are mapped here: written, those that it has got of its own; else all
 * that are present in it. Ascending; their number. */
static int pages_of(pid_t pid, bool written, unsigned long *at, int max)
{
    static struct map maps[512];
    int maps_n = read_maps(maps, 512), pagemap = page_map(pid), n = 0;
    uint64_t entry[512];

    for (int i = 0; i < maps_n && pagemap >= 0; i++)
        for (unsigned long from = maps[i].from; from < maps[i].to && (!written || maps[i].prot & PROT_WRITE);) {
            size_t want = MIN((maps[i].to - from) / 4096, sizeof entry / 8) * 8;

            if (pread(pagemap, entry, want, (off_t)(from / 4096 * 8)) != (ssize_t)want)
                break;
            for (size_t k = 0; k < want / 8; k++, from += 4096)
                if (has(entry[k], PAGE_PRESENT) && (!written || has(entry[k], PAGE_OWN)) && n < max)
                    at[n++] = from;
        }
    if (pagemap >= 0)
        close(pagemap);
    return n;
}

/* A child that is to answer a call that lies at descriptor 3, and then to call z_rehearsed(). 0 in it; else its pid when it
 * is there, and waits to be looked at and killed; -1: it did not get so far. Not in the list of children. */
static pid_t rehearse(bool watched)
{
    int ends[2], pair[2];
    char byte;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        if (z.forked)
            z.forked();
        close(ends[0]);
        z.hot_fd = ends[1];
        alarm(5);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || dup2(pair[0], 3) < 0 ||
            write(pair[1], z.call, z.call_n) != (ssize_t)z.call_n)
            _exit(1);
        if (watched)
            watch();
        return 0;
    }
    close(ends[1]);
    if (pid > 0 && read(ends[0], &byte, 1) != 1) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        pid = -1;
    }
    close(ends[0]);
    return pid;
}

/* In the rehearsal's child, at its end. */
EXPORT void z_rehearsed(void)
{
    (void)!write(z.hot_fd, "", 1);
    for (;;)
        pause();
}

EXPORT int z_learn(const void *call, unsigned n);
/* 1 in a child that rehearses; 0 in the caller when it did, else -errno. The call is the one to rehearse with from now on. */
EXPORT int z_learn(const void *call, unsigned n)
{
    pid_t pid;

    if (n > sizeof z.call)
        return -EINVAL;
    memcpy(z.call, call, n);
    z.call_n = n;
    pid = rehearse(true);
    if (pid <= 0)
        return pid < 0 ? -ECHILD : 1;
    z.read_n = pages_of(pid, false, z.read, READ_MAX);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

/* ---- the zygote's loop ---- */

static int tell(const struct zygote_tell *t)
{
    while (send(z.ctl, t, sizeof *t, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

EXPORT int z_ready(int forks)
{
    z.ready = true;
    return tell(&(struct zygote_tell){.what = TELL_READY, .pid = getpid(), .status = forks});
}

EXPORT int z_base_ready(void)
{
    return tell(&(struct zygote_tell){.what = TELL_READY, .pid = getpid()});
}

/* The namespaces that make up a function's root and where it stands, in the order in which they are entered. */
static const struct {
    const char *name;
    int type;
} root_parts[] = {{"ns/net", CLONE_NEWNET}, {"ns/ipc", CLONE_NEWIPC}, {"ns/uts", CLONE_NEWUTS}, {"ns/mnt", CLONE_NEWNS}};
enum { ROOT_PARTS = sizeof root_parts / sizeof root_parts[0] };

EXPORT int z_give_root(void);
/* A process that has made a root sends it to whoever is at the other end of descriptor 3. */
EXPORT int z_give_root(void)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * ROOT_PARTS)];
    } c = {0};
    struct iovec iov = {"", 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    int fds[ROOT_PARTS];

    for (int i = 0; i < ROOT_PARTS; i++)
        if ((fds[i] = openat(z.proc, root_parts[i].name, O_RDONLY | O_CLOEXEC)) < 0)
            return -errno;
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(h), fds, sizeof fds);
    return sendmsg(z.ctl, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

EXPORT int z_take_root(void)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * ROOT_PARTS)];
    } c;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    int fds[ROOT_PARTS], e = 0;
    struct cmsghdr *h;
    ssize_t n;

    do
        n = recvmsg(z.root, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    close(z.root);
    z.root = -1;
    h = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    if (!h || h->cmsg_type != SCM_RIGHTS || h->cmsg_len != CMSG_LEN(sizeof fds))
        return -ENOENT;
    memcpy(fds, CMSG_DATA(h), sizeof fds);
    for (int i = 0; i < ROOT_PARTS; i++) {
        if (!e && setns(fds[i], root_parts[i].type) < 0)
            e = errno;
        close(fds[i]);
    }
    return -e;
}

EXPORT void z_failed(const char *text, int e)
{
    struct zygote_tell t = {.what = TELL_FAILED, .slot = z.ask.slot, .status = e};

    snprintf(t.text, sizeof t.text, "%s", text);
    tell(&t);
}

static void close_fds(void)
{
    for (int i = 0; i < z.fds_n; i++)
        close(z.fds[i]);
    z.fds_n = 0;
}

/* true: the compiler has done its work. */
static bool reap(void)
{
    bool compiled = false;
    struct signalfd_siginfo info;
    struct rusage u;
    int status;
    pid_t pid;

    while (read(z.sig, &info, sizeof info) > 0)
        ;
    while ((pid = wait4(-1, &status, WNOHANG, &u)) > 0) {
        if (!WIFEXITED(status) && !WIFSIGNALED(status)) {
            kill(pid, SIGKILL); /* it asked to be traced by us, and stopped */
            continue;
        }
        for (uint32_t i = 0; i < z.children_n; i++) {
            if (z.children[i].pid != pid)
                continue;
            tell(&(struct zygote_tell){
                .what = TELL_EXIT,
                .slot = z.children[i].slot,
                .pid = pid,
                .status = status,
                .cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                          (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec),
                .max_rss_kb = (uint64_t)u.ru_maxrss});
            compiled |= z.children[i].what == ASK_COMPILE && status == 0;
            z.children[i] = z.children[--z.children_n];
            break;
        }
    }
    return compiled;
}

/* One message and its descriptors. 1: it is in z.ask; 0: the gateway has gone. */
static int take_ask(void)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * ZYGOTE_FDS_MAX)];
    } c;
    struct iovec iov = {&z.ask, sizeof z.ask};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    ssize_t n;

    do
        n = recvmsg(z.ctl, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof z.ask)
        return 0;
    z.fds_n = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            z.fds_n = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(z.fds, CMSG_DATA(h), (size_t)z.fds_n * sizeof(int));
        }
    return 1;
}

static void enter(void);

/* In a fork of a base whose runtime keeps its descriptors: what was the base's own is made anew. */
static void begin_anew(void)
{
    char path[32];
    int ends[2], proc;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || dup2(z.fds[0], 3) < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        _exit(125);
    close(z.fds[0]);
    z.root = z.fds[1];
    z.fds_n = 0;
    snprintf(path, sizeof path, "../%d", getpid());
    proc = openat(z.proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(z.sig);
    close(z.sig_write);
    close(z.pid_ns);
    close(z.proc);
    z.sig = ends[0];
    z.sig_write = ends[1];
    z.proc = proc;
    z.pid_ns = openat(proc, "ns/pid", O_RDONLY | O_CLOEXEC);
    z.children_n = 0;
    if (proc < 0 || z.pid_ns < 0 || fcntl(3, F_SETFD, FD_CLOEXEC) < 0)
        _exit(125);
    z.forked();
}

/* A zygote for a function. 0 in it. */
static int fork_zygote(void)
{
    pid_t pid = z.children_n < CHILDREN_MAX ? fork() : -1;

    if (pid == 0 && z.forked) {
        begin_anew();
        return 0;
    }
    if (pid == 0) {
        if (dup2(z.fds[0], 3) < 0 || syscall(SYS_close_range, 4, ~0u, 0) < 0)
            _exit(125);
        return 0;
    }
    close_fds();
    if (pid < 0) {
        z_failed("fork", errno);
        return -1;
    }
    z.children[z.children_n++] = (struct child){pid, z.ask.slot, z.ask.what};
    tell(&(struct zygote_tell){.what = TELL_FORKED, .slot = z.ask.slot, .pid = pid});
    return 1;
}

/* The child is the first process of a pid namespace. It is forked here and not by Python's
 * os.fork(): the interpreter has one thread, which goes on in the child holding the same locks, so
 * there is nothing to set right after the fork - and every object that is not touched is a page
 * that need not be copied. 0 in the child, which is in its sandbox then. */
static int fork_one(void)
{
    pid_t pid = -1;
    int e = EAGAIN;

    if (z.children_n < CHILDREN_MAX) {
        if (unshare(CLONE_NEWPID) == 0) {
            pid = fork();
            if (pid == 0) {
                if (z.forked)
                    z.forked();
                enter();
                return 0;
            }
        }
        e = errno;
        setns(z.pid_ns, CLONE_NEWPID); /* else further children would join the first one's */
    }
    close_fds();
    if (pid < 0) {
        z_failed("fork", e);
        return -1;
    }
    z.children[z.children_n++] = (struct child){pid, z.ask.slot, z.ask.what};
    tell(&(struct zygote_tell){.what = TELL_FORKED, .slot = z.ask.slot, .pid = pid});
    return 1;
}

/* In an instance: no request lies there, it was forked ahead. */
static bool nothing_yet(void)
{
    struct pollfd p = {3, POLLIN, 0};

    return poll(&p, 1, 0) == 0;
}

/* ---- pages that every instance writes ----
 *
 * A page that an instance writes to is copied when it does: a fault, some 3 us each, and a Python that answers its
 * first request writes to 200 (reference counts). A page that is pinned for a device, however, the kernel copies in
 * the fork itself, for a fifth of that. So in a quiet moment a child rehearses a request, without any code of the
 * user, and the pages that it got of its own the zygote has pinned by a ring of io_uring that is used for nothing else.
 * Where that is not allowed, forks are as they were. */

static void pin(unsigned long *at, int n)
{
    static struct iovec ranges[HOT_MAX];
    struct io_uring_params p = {0};
    int ranges_n = 0;

    for (int i = 0; i < n; i++) {
        struct iovec *last = ranges_n ? &ranges[ranges_n - 1] : NULL;

        if (last && (unsigned long)last->iov_base + last->iov_len == at[i])
            last->iov_len += 4096;
        else
            ranges[ranges_n++] = (struct iovec){(void *)at[i], 4096};
    }
    z.ring = (int)syscall(SYS_io_uring_setup, 1, &p);
    if (z.ring >= 0 && syscall(SYS_io_uring_register, z.ring, IORING_REGISTER_BUFFERS, ranges, ranges_n) < 0) {
        close(z.ring);
        z.ring = -1;
    }
}

/* The pages that this one, a fork of ours, has written to are copied by forks to come. */
static void pin_as(pid_t pid)
{
    static unsigned long at[HOT_MAX];
    int n = pages_of(pid, true, at, HOT_MAX);

    z.rehearsed = true;
    if (n)
        pin(at, n);
}

EXPORT int z_rehearse(void)
{
    pid_t pid = rehearse(false);

    z.rehearsed = true;
    if (pid <= 0)
        return pid < 0 ? -ECHILD : 1;
    pin_as(pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

/* In a quiet moment: as z_rehearse(). */
static int settle(void)
{
    int r = z.rehearsed ? 0 : z_rehearse();

    z.settled = true;
    if (r != 1)
        z_drop_cold();
    return r;
}

static int what_next(void)
{
    if (z.ask.what != ASK_FORK)
        return (int)z.ask.what;
    if (z.ask.image && !z.ask.init) { /* it is to be restored, but not before there is a call */
        struct pollfd p = {3, POLLIN, 0};

        while (poll(&p, 1, -1) < 0 && errno == EINTR)
            ;
    }
    if (!nothing_yet())
        return z.ask.image ? NEXT_RESTORE : ASK_FORK;
    return !z.ask.init ? NEXT_AHEAD : z.ask.image ? NEXT_RESTORE_AHEAD : NEXT_AHEAD_INIT;
}

/* Waits, forks, reaps. Gives back ASK_FORK, NEXT_AHEAD(_INIT), NEXT_RESTORE(_AHEAD), NEXT_REHEARSE, ASK_COMPILE, ASK_SNAPSHOT or
 * (base) ASK_ZYGOTE in the child that is to do it, in the zygote NEXT_COMPILED when byte code has been made, 0: leave. */
EXPORT int z_next(void)
{
    for (;;) {
        struct pollfd p[2] = {{z.ctl, POLLIN, 0}, {z.sig, POLLIN, 0}};

        int n = poll(p, 2, z.ready && !z.settled ? SETTLE_MS : -1);

        if (n < 0 && errno != EINTR)
            return 0;
        if (n == 0 && settle() == 1)
            return NEXT_REHEARSE;
        if (p[1].revents && reap()) {
            z.settled = false; /* it will be read: that touches pages */
            return NEXT_COMPILED;
        }
        if (!p[0].revents)
            continue;
        if (!take_ask())
            return 0;
        if (z.ask.what == ASK_KILL) {
            for (uint32_t i = 0; i < z.children_n; i++)
                if (z.children[i].slot == z.ask.slot || z.ask.slot == ZYGOTE_ALL)
                    kill(z.children[i].pid, SIGKILL);
            close_fds();
            continue;
        }
        if (z.ask.what == ASK_ZYGOTE && z.fds_n == (z.forked ? 2 : 1)) {
            if (fork_zygote() == 0)
                return ASK_ZYGOTE;
            continue;
        }
        if ((z.ask.what == ASK_FORK || z.ask.what == ASK_COMPILE || z.ask.what == ASK_SNAPSHOT) &&
            z.fds_n == 2 + z.ask.cgroup_n + !!z.ask.net + !!z.ask.image + !!z.ask.keys) {
            if (fork_one() == 0) {
                z_info.what = (uint32_t)what_next();
                if (z_serve)
                    z_serve(z_info.what == NEXT_AHEAD_INIT);
                return (int)z_info.what;
            }
            continue;
        }
        z_failed("message", EINVAL);
        close_fds();
    }
}

/* ---- the instance ---- */

_Noreturn static void give_up(const char *step)
{
    dprintf(z.fds[1], "sandbox: %s: %s\n", step, strerror(errno));
    _exit(125);
}

static void drop_all(void)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};

    if (setresgid(z.uid, z.uid, z.uid) < 0 || setresuid(z.uid, z.uid, z.uid) < 0)
        give_up("ids");
    if (syscall(SYS_capset, &h, d) < 0)
        give_up("capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        give_up("no_new_privs");
}

/* The image and the socket of keys, to where the driver wants them. Gives back the first number that is to be closed. */
static unsigned arrange_more(void)
{
    int last = z.fds_n - 1, keys = -1, image = -1;

    if (z.ask.keys)
        keys = fcntl(z.fds[last--], F_DUPFD, HIGH_FD);
    if (z.ask.image)
        image = fcntl(z.fds[last], F_DUPFD, HIGH_FD);
    if ((z.ask.keys && (keys < 0 || dup2(keys, KEYS_FD) < 0)) || (z.ask.image && (image < 0 || dup2(image, IMAGE_FD) < 0)))
        give_up("descriptors");
    if (z.ask.keys && !z.ask.image)
        close(IMAGE_FD);
    return z.ask.keys ? KEYS_FD + 1 : z.ask.image ? IMAGE_FD + 1 : 4;
}

/* Moves the descriptors to where the driver wants them (0 null, 1 and 2 log, 3 socket) and closes
 * all others. Their numbers are 4 and up already: 0-3 are taken in the zygote (3 is ctl). */
static void arrange_fds(void)
{
    if (dup2(z.fds[1], 1) < 0 || dup2(z.fds[1], 2) < 0 || dup2(z.fds[0], 3) < 0)
        give_up("descriptors");
    if (z.forked) { /* a runtime that goes on with its own: ours are these */
        const int ours[] = {z.sig, z.sig_write, z.pid_ns, z.proc, z.ring};

        for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
            if (ours[i] >= 0)
                close(ours[i]);
        close_fds();
        signal(SIGCHLD, SIG_DFL);
    } else if (syscall(SYS_close_range, arrange_more(), ~0u, 0) < 0) {
        give_up("descriptors");
    }
    z.fds[1] = 2;
}

/* Behind the filter, as the function's user, before anything of it has run: the keeper of its credentials. */
static void start_keeper(void)
{
    int listener = keys_listen();
    pid_t pid = listener < 0 ? 0 : fork();

    if (pid < 0)
        give_up("keeper of credentials");
    if (pid == 0 && listener >= 0) {
        close(3);
        if (z.ask.image)
            close(IMAGE_FD);
        prctl(PR_SET_NAME, "credentials");
        keys_serve(KEYS_FD, listener);
    }
    close(listener);
    close(KEYS_FD);
}

/* Who makes a snapshot is not the first process, other than those that go on from it: libraries that look for a fork
 * by getpid() (OpenSSL's random numbers) find one. libc is not asked: what it keeps of its process is to be that of the
 * first one. */
static void step_aside(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), one;
    int status = 0;

    if (pid < 0)
        give_up("fork");
    if (pid == 0)
        return;
    close(IMAGE_FD); /* the socket stays: its end is to be ours, with a status */
    while ((one = waitpid(-1, &status, 0)) != pid)
        if (one < 0 && errno != EINTR)
            _exit(125);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* In the child of the fork. After it this process is a function instance for good. */
static void enter(void)
{
    sigset_t none;
    struct err err;

    for (int i = 0; i < z.ask.cgroup_n; i++)
        if (write(z.fds[2 + i], "0", 1) != 1)
            give_up("cgroup");
    if (z.ask.net && setns(z.fds[2 + z.ask.cgroup_n], CLONE_NEWNET) < 0)
        give_up("network namespace");
    if (!z.ask.net && z.own_net && (unshare(CLONE_NEWNET) < 0 || z_loopback_up() < 0))
        give_up("own network");
    /* the host name is the zygote's: nobody in here may change it */
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWCGROUP) < 0)
        give_up("namespaces");
    if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, z.tmp_options) < 0)
        give_up("/tmp");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        give_up("/proc");
    if (z.ask.what == ASK_COMPILE && mount(z.code, "/var/task", NULL, MS_BIND, NULL) < 0)
        give_up("/var/task");
    if (z.ask.cpu >= 0) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET((size_t)z.ask.cpu, &set);
        sched_setaffinity(0, sizeof set, &set); /* only a matter of speed */
    }
    arrange_fds();
    if (z.ask.what == ASK_COMPILE && chdir("/var/task") < 0)
        give_up("/var/task");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    drop_all();
    /* after the change of ids, which clears it; the zygote may have died meanwhile */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        give_up("death signal");
    prctl(PR_SET_DUMPABLE, 1); /* own /proc files; there is nobody else in here */
    if (seccomp_load(&z.filter, &err) < 0)
        give_up("seccomp");
    if (z.ask.keys)
        start_keeper();
    if (z.ask.what == ASK_SNAPSHOT)
        step_aside();
    z_info.entered_us = mono_us();
    memcpy(z_info.stream, z.ask.stream, sizeof z_info.stream - 1);
}

EXPORT uint64_t z_max_rss_kb(void)
{
    struct rusage self, children;

    if (getrusage(RUSAGE_SELF, &self) < 0 || getrusage(RUSAGE_CHILDREN, &children) < 0)
        return 0;
    return (uint64_t)MAX(self.ru_maxrss, children.ru_maxrss);
}
