/* From a spec to a process: what the parent does, what the child does, in this order.
 *
 *   parent  group is there (the caller made it); pid namespace to join; clone3 with the new
 *           namespaces, on v2 straight into the group
 *   child   v1 groups, cgroup namespace, joined namespaces, session, limits that need root,
 *           root file system, pivot, masks, terminal, who am I, capabilities, filter, exec
 *
 * The child tells the parent over a socket that closes at exec: an error with its text, or the
 * master side of its terminal. Nothing said and closed means that the program runs. */
#include "sandbox/start.h"

#include "sandbox/caps.h"
#include "sandbox/mnt.h"
#include "sandbox/seccomp.h"
#include "sandbox/sys_int.h"
#include "sandbox/user_int.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

enum { HIGH_FD = 100 };

/* ---- clone ------------------------------------------------------------------------------- */

static pid_t clone_into(const struct cgroup_host *host, const char *group, uint64_t flags,
                        int *ret_pid_fd, struct err *err)
{
    int pid_fd = -1;
    _auto_(closep) int into = host && group ? cgroup_open_v2(host, group) : -1;
    struct x_clone_args args = {
        .flags = flags | X_CLONE_PIDFD | (into >= 0 ? X_CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&pid_fd,
        .exit_signal = SIGCHLD,
        .cgroup = into >= 0 ? (uint64_t)into : 0,
    };
    pid_t pid;

    /* clone3 without a stack is fork; libc's fork would run handlers and knows no group. */
    pid = (pid_t)syscall(SYS_clone3, &args,
                         into >= 0 ? sizeof args : sizeof args - sizeof args.cgroup);
    if (pid < 0)
        return err_sys(err, "clone");
    if (pid > 0)
        *ret_pid_fd = pid_fd;
    return pid;
}

/* The pid namespace of the next child, by what `fd` is (a namespace file or a pid fd). Only this
 * one is switched in the parent: the kernel knows it as "for children". */
static int pid_ns_for_children(int fd, int *ret_back, struct err *err)
{
    *ret_back = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (*ret_back < 0)
        return err_sys(err, "open own pid namespace");
    if (setns(fd, CLONE_NEWPID) < 0) {
        err_sys(err, "join pid namespace");
        close(*ret_back);
        *ret_back = -1;
        return -1;
    }
    return 0;
}

static void pid_ns_back(int back)
{
    if (back >= 0) {
        int bad = setns(back, CLONE_NEWPID);
        ASSERT(bad == 0); /* our own, as root: or all further children would land elsewhere */
        close(back);
    }
}

pid_t sandbox_clone(const struct cgroup_host *host, const struct sandbox_spec *s, int *ret_pid_fd,
                    struct err *err)
{
    uint64_t flags = CLONE_NEWNS | (s->new_pid && !s->pid_ns ? CLONE_NEWPID : 0) |
                     (s->new_ipc && !s->ipc_ns ? CLONE_NEWIPC : 0) |
                     (s->new_uts && !s->uts_ns ? CLONE_NEWUTS : 0) |
                     (s->new_net && !s->net_ns ? CLONE_NEWNET : 0);
    int back = -1;
    pid_t pid;

    if (s->pid_ns) {
        _auto_(closep) int ns = open(s->pid_ns, O_RDONLY | O_CLOEXEC);
        if (ns < 0)
            return err_sys(err, "open %s", s->pid_ns);
        if (pid_ns_for_children(ns, &back, err) < 0)
            return -1;
    }
    pid = clone_into(host, s->cgroup, flags, ret_pid_fd, err);
    if (pid != 0)
        pid_ns_back(back);
    return pid;
}

/* ---- in the child ------------------------------------------------------------------------ */

static int write_file(const char *path, const char *text, struct err *err)
{
    _auto_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return err_sys(err, "write %s", path);
    return 0;
}

/* born: the clone went into the v2 group already. */
static int enter_group(const struct cgroup_host *host, const struct sandbox_spec *s, bool born,
                       struct err *err)
{
    int fds[CGROUP_FDS], bad;

    if (host && s->cgroup) {
        struct cgroup_host rest = *host;
        if (born)
            rest.mount[CGROUP_V2][0] = 0;
        if (cgroup_open_attach(&rest, s->cgroup, fds, err) < 0)
            return -1;
        bad = cgroup_attach_fds(fds);
        cgroup_close_fds(fds);
        if (bad) {
            errno = bad;
            return err_sys(err, "enter cgroup %s", s->cgroup);
        }
    }
    if (s->new_cgroup && unshare(CLONE_NEWCGROUP) < 0)
        return err_sys(err, "new cgroup namespace");
    return 0;
}

static int join_ns(const char *path, int type, struct err *err)
{
    if (!path)
        return 0;
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, type) < 0)
        return err_sys(err, "join namespace %s", path);
    return 0;
}

static int write_sysctls(const struct sandbox_spec *s, struct err *err)
{
    char path[256];

    for (uint32_t i = 0; i < s->sysctls_n; i++) {
        const char *eq = strchr(s->sysctls[i], '=');
        if (!eq || (size_t)snprintf(path, sizeof path, "/proc/sys/%.*s", (int)(eq - s->sysctls[i]),
                                    s->sysctls[i]) >= sizeof path)
            return err_set(err, INVALID_ARGUMENT, "sysctl %s", s->sysctls[i]);
        if (strstr(path, ".."))
            return err_set(err, INVALID_ARGUMENT, "sysctl %s", s->sysctls[i]);
        for (char *p = path + strlen("/proc/sys/"); *p; p++)
            if (*p == '.')
                *p = '/';
        if (write_file(path, eq + 1, err) < 0)
            return err_wrap(err, "sysctl %s", s->sysctls[i]);
    }
    return 0;
}

static int set_limits(const struct sandbox_spec *s, struct err *err)
{
    char text[24];

    if (s->oom_score_adj) {
        snprintf(text, sizeof text, "%d", (int)s->oom_score_adj);
        /* Going below what we have ourselves needs CAP_SYS_RESOURCE, which a machine inside another
         * one may not give us: then it is only less well protected. */
        struct err why = {0};
        if (write_file("/proc/self/oom_score_adj", text, &why) < 0 && why.sys != EACCES &&
            why.sys != EPERM) {
            *err = why;
            return -1;
        }
    }
    for (uint32_t i = 0; i < s->rlimits_n; i++) {
        struct rlimit r = {(rlim_t)s->rlimits[i].soft, (rlim_t)s->rlimits[i].hard};
        if (setrlimit((int)s->rlimits[i].resource, &r) < 0)
            return err_sys(err, "set resource limit %d", (int)s->rlimits[i].resource);
    }
    return 0;
}

/* /sys/fs/cgroup inside: plain v2 is a mount of its own (the namespace makes our group its root),
 * v1 a tmpfs with our groups bound to where programs look for their limits. */
static int mount_cgroups(const struct cgroup_host *host, const struct sandbox_spec *s, int root_fd,
                         const struct sandbox_mount *m, struct err *err)
{
    static const char *const names[CGROUP_HIERARCHIES] = {"cpu", "cpuacct", "memory", "pids",
                                                          "unified"};
    uint64_t attr =
        X_ATTR_NOSUID | X_ATTR_NODEV | X_ATTR_NOEXEC | (m->read_only ? X_ATTR_RDONLY : 0);
    char path[640], target[128];
    int fd;

    if (!host || !s->cgroup)
        return 0;
    if (host->v2_controls) {
        fd = mnt_fs_fd("cgroup2", "", attr, err);
        return fd < 0 ? -1 : mnt_move(fd, root_fd, m->target, false, err);
    }
    fd = mnt_fs_fd("tmpfs", "mode=755,size=64k", X_ATTR_NOSUID | X_ATTR_NODEV | X_ATTR_NOEXEC, err);
    if (fd < 0 || mnt_move(fd, root_fd, m->target, false, err) < 0)
        return -1;
    for (int c = 0; c < CGROUP_HIERARCHIES; c++) {
        if (!*host->mount[c])
            continue;
        snprintf(path, sizeof path, "%s/%s/%s", host->mount[c], host->top, s->cgroup);
        snprintf(target, sizeof target, "%s/%s", m->target, names[c]);
        fd = mnt_bind_fd(AT_FDCWD, path, false, attr, err);
        if (fd < 0 || mnt_move(fd, root_fd, target, false, err) < 0)
            return -1;
    }
    return 0;
}

static int make_dirs(const char *path, struct err *err)
{
    char at[512];

    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at)
        return err_set(err, INVALID_ARGUMENT, "path too long: %s", path);
    if (mkdir(at, 0755) == 0 || errno == EEXIST)
        return 0;
    for (char *p = strchr(at + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(at, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make %s", at);
        *p = '/';
    }
    if (mkdir(at, 0755) < 0 && errno != EEXIST)
        return err_sys(err, "make %s", at);
    return 0;
}

/* The spec's root as a mount point: the overlay, or the plain directory bound to itself. */
static int mount_root(const struct sandbox_spec *s, struct err *err)
{
    int fd;

    if (s->lower_n) {
        if (make_dirs(s->root, err) < 0)
            return -1;
        if (s->upper && (make_dirs(s->upper, err) < 0 || make_dirs(s->work, err) < 0))
            return -1;
        fd = mnt_overlay_fd(s->lower, s->lower_n, s->upper, s->work, err);
    } else {
        fd = mnt_bind_fd(AT_FDCWD, s->root, true, 0, err);
    }
    return fd < 0 ? -1 : mnt_move_path(fd, s->root, err);
}

static int add_devices(int root_fd, const struct sandbox_spec *s, struct err *err)
{
    for (uint32_t i = 0; i < s->devices_n; i++) {
        int fd = mnt_bind_fd(AT_FDCWD, s->devices[i].source, false, 0, err);
        if (fd < 0 || mnt_move(fd, root_fd, s->devices[i].target, true, err) < 0)
            return err_wrap(err, "device %s", s->devices[i].source);
    }
    return 0;
}

static int build_root(const struct cgroup_host *host, const struct sandbox_spec *s, struct err *err)
{
    bool propagate = false;

    for (uint32_t i = 0; i < s->mounts_n; i++)
        propagate |= s->mounts[i].propagate;
    if (mnt_detach_propagation(propagate, err) < 0 || mount_root(s, err) < 0)
        return -1;
    _auto_(closep) int root_fd = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return err_sys(err, "open root %s", s->root);
    for (uint32_t i = 0; i < s->mounts_n; i++) {
        const struct sandbox_mount *m = &s->mounts[i];
        int bad = m->kind == SANDBOX_CGROUP ? mount_cgroups(host, s, root_fd, m, err)
                                            : mnt_apply(root_fd, m, err);
        if (bad < 0)
            return -1;
    }
    if (add_devices(root_fd, s, err) < 0)
        return -1;
    if (mnt_pivot(s->root, err) < 0)
        return -1;
    for (uint32_t i = 0; i < s->read_only_n; i++)
        if (mnt_read_only(s->read_only[i], err) < 0)
            return -1;
    _auto_(closep) int empty = -1;
    for (uint32_t i = 0; i < s->masked_n; i++)
        if (mnt_mask_with(s->masked[i], &empty, err) < 0)
            return -1;
    return 0;
}

/* cwd is made while the root can still be written to; who enters it is decided later. */
static int finish_root(const struct sandbox_spec *s, struct err *err)
{
    if (s->hostname && s->new_uts && sethostname(s->hostname, strlen(s->hostname)) < 0)
        return err_sys(err, "set host name %s", s->hostname);
    if (!str_empty(s->cwd) && make_dirs(s->cwd, err) < 0)
        return err_wrap(err, "working directory");
    if (s->read_only_root &&
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) < 0)
        return err_sys(err, "make the root read-only");
    return 0;
}

/* Ids, capabilities, filter. Without no_new_privs the filter needs CAP_SYS_ADMIN, so it comes
 * before they are gone; with it, last, so that it sees as few of our own calls as possible. */
static int become(const struct sandbox_spec *s, const struct sandbox_user *u, struct err *err)
{
    struct seccomp_filter filter;
    bool root = u->uid == 0;

    umask(s->umask ? (mode_t)s->umask : 022);
    if (caps_drop_bounding((uint64_t)s->caps, err) < 0)
        return -1;
    if (setgroups_sys(u->groups, u->groups_n) < 0)
        return err_sys(err, "set supplementary groups");
    if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0)
        return err_sys(err, "set group %u", u->gid);
    if (s->seccomp)
        seccomp_default(&filter, (uint64_t)s->caps);
    if (s->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(err, "set no_new_privs");
    if (s->seccomp && !s->no_new_privs && seccomp_load(&filter, err) < 0)
        return -1;
    if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
        return err_sys(err, "set user %u", u->uid);
    if (caps_set((uint64_t)s->caps, root, err) < 0)
        return -1;
    /* Changing who we are cleared it: the container ends with its shim. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return err_sys(err, "set parent death signal");
    if (!str_empty(s->cwd) && chdir(s->cwd) < 0)
        return err_sys(err, "enter working directory %s", s->cwd);
    if (s->seccomp && s->no_new_privs && seccomp_load(&filter, err) < 0)
        return -1;
    return 0;
}

/* The environment of the process to be: the spec's, with what every program may count on. */
static int set_environ(const struct sandbox_spec *s, const struct sandbox_user *u, struct err *err)
{
    bool has_home = false, has_path = false;
    char **env = xcalloc(s->env_n + 3, sizeof *env); /* lives until exec */
    uint32_t n = 0;

    (void)err;
    for (uint32_t i = 0; i < s->env_n; i++) {
        has_home |= str_starts(s->env[i], "HOME=");
        has_path |= str_starts(s->env[i], "PATH=");
        env[n++] = (char *)(uintptr_t)s->env[i];
    }
    if (!has_path)
        env[n++] = xstrdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if (!has_home)
        env[n++] = xasprintf("HOME=%s", u->home);
    environ = env;
    return 0;
}

static int enter(const struct cgroup_host *host, const struct sandbox_spec *s, int report_fd,
                 struct err *err);

int sandbox_enter(const struct cgroup_host *host, const struct sandbox_spec *s, struct err *err)
{
    return enter(host, s, -1, err);
}

int sandbox_exec(const struct sandbox_spec *s, struct err *err)
{
    const char *path = "", *name = s->args_n ? s->args[0] : "";
    char **argv, file[4096];
    int bad = ENOENT;

    if (str_empty(name))
        return err_set(err, INVALID_ARGUMENT, "no command specified");
    argv = xcalloc(s->args_n + 1, sizeof *argv);
    for (uint32_t i = 0; i < s->args_n; i++)
        argv[i] = (char *)(uintptr_t)s->args[i];
    if (strchr(name, '/')) {
        execve(name, argv, environ);
        return err_sys(err, "exec %s", name);
    }
    for (char **e = environ; *e; e++)
        if (str_starts(*e, "PATH="))
            path = *e + 5;
    while (*path) {
        size_t n = strcspn(path, ":");
        if ((size_t)snprintf(file, sizeof file, "%.*s/%s", (int)n, path, name) < sizeof file) {
            execve(file, argv, environ);
            if (errno != ENOENT && errno != ENOTDIR)
                bad = errno;
        }
        path += n + (path[n] == ':');
    }
    errno = bad;
    if (bad == ENOENT) {
        err_sys(err, "exec");
        err->sys = ENOENT;
        snprintf(err->msg, sizeof err->msg, "exec \"%s\": executable file not found in $PATH",
                 name);
        return -1;
    }
    return err_sys(err, "exec %s", name);
}

/* ---- child and parent talk ---------------------------------------------------------------- */

struct report {
    int32_t code, sys;
    char msg[496];
};

static void send_fd(int sock, const void *data, size_t n, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u = {0};
    struct iovec iov = {(void *)(uintptr_t)data, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = u.room;
        m.msg_controllen = sizeof u.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    (void)!sendmsg(sock, &m, MSG_NOSIGNAL);
}

/* Reads what the child says until it execs or dies. 0: it runs. */
static int hear(int sock, int *ret_master, struct err *err)
{
    struct report r;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    ssize_t n;

    for (;;) {
        struct iovec iov = {&r, sizeof r};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = u.room,
                           .msg_controllen = sizeof u.room};
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        if (c && c->cmsg_type == SCM_RIGHTS) {
            memcpy(ret_master, CMSG_DATA(c), sizeof(int));
            continue;
        }
        r.msg[sizeof r.msg - 1] = 0;
        err_set_(err, (enum err_code)r.code, r.sys, "%s", r.msg);
        return -1;
    }
}

_noreturn_ static void give_up(int sock, const struct err *err)
{
    struct report r = {.code = (int32_t)err->code, .sys = err->sys};

    snprintf(r.msg, sizeof r.msg, "%s", err->msg);
    send_fd(sock, &r, sizeof r, -1);
    _exit(127);
}

/* A terminal of the container's own devpts: `tty` and job control work inside. */
static int take_terminal(int report_fd, const struct sandbox_user *u, struct err *err)
{
    _auto_(closep) int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int unlock = 0, slave;
    char hello = 't';

    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return err_sys(err, "open a terminal");
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    if (slave < 0)
        return err_sys(err, "open the terminal's other side");
    (void)!fchown(slave, u->uid, (gid_t)-1);
    if (ioctl(slave, TIOCSCTTY, 0) < 0) {
        err_sys(err, "take the terminal");
        close(slave);
        return -1;
    }
    for (int i = 0; i < 3; i++)
        dup2(slave, i);
    if (slave > 2)
        close(slave);
    send_fd(report_fd, &hello, 1, master);
    return 0;
}

static int enter(const struct cgroup_host *host, const struct sandbox_spec *s, int report_fd,
                 struct err *err)
{
    struct sandbox_user user = {0};

    if (enter_group(host, s, report_fd >= 0, err) < 0 ||
        join_ns(s->net_ns, CLONE_NEWNET, err) < 0 || join_ns(s->ipc_ns, CLONE_NEWIPC, err) < 0 ||
        join_ns(s->uts_ns, CLONE_NEWUTS, err) < 0)
        return -1;
    if (set_limits(s, err) < 0 || write_sysctls(s, err) < 0 || build_root(host, s, err) < 0 ||
        finish_root(s, err) < 0 || sandbox_user_find(s, &user, err) < 0)
        return -1;
    if (s->tty && report_fd >= 0 && take_terminal(report_fd, &user, err) < 0)
        return -1;
    return become(s, &user, err) < 0 || set_environ(s, &user, err) < 0 ? -1 : 0;
}

/* Signals as a fresh program expects them, streams at 0-2, all else gone at exec. Returns where the
 * report socket lies now. */
static int settle(const int stdio[3], bool tty, int sock)
{
    sigset_t none;
    int null_fd = -1, report = fcntl(sock, F_DUPFD_CLOEXEC, HIGH_FD), high[3] = {-1, -1, -1};

    sigemptyset(&none);
    for (int i = 1; i < 32; i++)
        if (i != SIGKILL && i != SIGSTOP)
            signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    for (int i = 0; i < 3 && !tty; i++) /* first away from 0-2, whatever order they came in */
        if (stdio && stdio[i] >= 0)
            high[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, HIGH_FD);
    for (int i = 0; i < 3; i++) {
        if (high[i] < 0 && null_fd < 0)
            null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(high[i] >= 0 ? high[i] : null_fd, i);
    }
    x_close_range(3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
    return report;
}

static int started(pid_t pid, int pid_fd, int sock, struct sandbox_child *ret_child,
                   struct err *err)
{
    int master = -1;

    if (hear(sock, &master, err) < 0) {
        closep(&master);
        waitpid(pid, NULL, 0);
        close(pid_fd);
        return -1;
    }
    *ret_child = (struct sandbox_child){.pid = pid, .pid_fd = pid_fd, .master = master};
    return 0;
}

int sandbox_start(const struct cgroup_host *host, const struct sandbox_spec *s, const int stdio[3],
                  struct sandbox_child *ret_child, struct err *err)
{
    int pair[2], pid_fd = -1;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "socket pair");
    pid = sandbox_clone(host, s, &pid_fd, err);
    if (pid == 0) {
        struct err bad = {0};
        int report = settle(stdio, s->tty, pair[1]);
        if (enter(host, s, report, &bad) == 0)
            (void)sandbox_exec(s, &bad);
        give_up(report, &bad);
    }
    close(pair[1]);
    int done = pid < 0 ? -1 : started(pid, pid_fd, pair[0], ret_child, err);
    close(pair[0]);
    return done;
}

int sandbox_exec_in(const struct cgroup_host *host, int target_pid_fd,
                    const struct sandbox_spec *what, const int stdio[3],
                    struct sandbox_child *ret_child, struct err *err)
{
    int pair[2], pid_fd = -1, back = -1;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "socket pair");
    if (pid_ns_for_children(target_pid_fd, &back, err) < 0) {
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    pid = clone_into(host, what->cgroup, 0, &pid_fd, err);
    if (pid == 0) {
        struct err bad = {0};
        struct sandbox_user user = {0};
        int target = fcntl(target_pid_fd, F_DUPFD_CLOEXEC, HIGH_FD);
        int report = settle(stdio, what->tty, pair[1]);
        if (enter_group(host, what, true, &bad) < 0 || set_limits(what, &bad) < 0)
            give_up(report, &bad);
        if (setns(target,
                  CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0) {
            err_sys(&bad, "join the container");
            give_up(report, &bad);
        }
        if (sandbox_user_find(what, &user, &bad) < 0 ||
            (what->tty && take_terminal(report, &user, &bad) < 0) ||
            become(what, &user, &bad) < 0 || set_environ(what, &user, &bad) < 0)
            give_up(report, &bad);
        (void)sandbox_exec(what, &bad);
        give_up(report, &bad);
    }
    pid_ns_back(back);
    close(pair[1]);
    int done = pid < 0 ? -1 : started(pid, pid_fd, pair[0], ret_child, err);
    close(pair[0]);
    return done;
}
