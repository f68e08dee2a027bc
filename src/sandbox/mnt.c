#include "sandbox/mnt.h"

#include "sandbox/spec.h"
#include "sandbox/sys_int.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { PATH_MAX_ = 4096 };

int mnt_detach_propagation(bool slave, struct err *err)
{
    if (mount(NULL, "/", NULL, MS_REC | (slave ? MS_SLAVE : MS_PRIVATE), NULL) < 0)
        return err_sys(err, "make the mount namespace %s", slave ? "a slave" : "private");
    return 0;
}

/* ---- detached mounts --------------------------------------------------------------------- */

static int set_string(int fs, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, fs, X_FSCONFIG_SET_STRING, key, value, 0);
}

/* What the kernel wrote into the context's log, the only place where it says why. */
static void fs_log(int fs, char *text, size_t cap)
{
    ssize_t n = read(fs, text, cap - 1);

    text[n > 0 ? n : 0] = 0;
    if (n > 0 && text[n - 1] == '\n')
        text[n - 1] = 0;
}

static int fs_finish(int fs, const char *what, uint64_t attr, struct err *err)
{
    char why[200];
    int m, sys;

    if (syscall(SYS_fsconfig, fs, X_FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        sys = errno;
        fs_log(fs, why, sizeof why);
        close(fs);
        errno = sys;
        return err_sys(err, "mount %s%s%s", what, *why ? ": " : "", why);
    }
    m = (int)syscall(SYS_fsmount, fs, X_FSMOUNT_CLOEXEC, (unsigned)attr);
    sys = errno;
    close(fs);
    errno = sys;
    return m < 0 ? err_sys(err, "mount %s", what) : m;
}

int mnt_overlay_fd(const char *const lower[], size_t lower_n, const char *upper, const char *work,
                   struct err *err)
{
    int fs = (int)syscall(SYS_fsopen, "overlay", X_FSOPEN_CLOEXEC);
    bool one_by_one = true;

    if (fs < 0)
        return err_sys(err, "open file system overlay");
    for (size_t i = 0; i < lower_n && one_by_one; i++)
        if (set_string(fs, "lowerdir+", lower[i]) < 0) {
            if (i > 0 || errno != EINVAL) {
                err_sys(err, "overlay layer %s", lower[i]);
                close(fs);
                return -1;
            }
            one_by_one = false; /* before 6.7: one string with ':' between */
        }
    if (!one_by_one) {
        char all[PATH_MAX_];
        size_t at = 0;
        for (size_t i = 0; i < lower_n && at < sizeof all; i++)
            at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ":" : "", lower[i]);
        if (at >= sizeof all || set_string(fs, "lowerdir", all) < 0) {
            err_sys(err, "overlay of %zu layers", lower_n);
            close(fs);
            return -1;
        }
    }
    if (upper && (set_string(fs, "upperdir", upper) < 0 || set_string(fs, "workdir", work) < 0)) {
        err_sys(err, "overlay upper %s", upper);
        close(fs);
        return -1;
    }
    return fs_finish(fs, "overlay", X_ATTR_NODEV, err);
}

int mnt_bind_fd(int dirfd, const char *source, bool recursive, uint64_t attr, struct err *err)
{
    unsigned rec = recursive ? X_AT_RECURSIVE : 0;
    int fd = x_open_tree(dirfd, source,
                         X_OPEN_TREE_CLONE | O_CLOEXEC | rec | (*source ? 0 : X_AT_EMPTY_PATH));

    if (fd < 0)
        return err_sys(err, "bind %s", source);
    if (attr && x_mount_setattr(fd, rec, attr, 0, 0) < 0) {
        err_sys(err, "bind %s: set flags", source);
        close(fd);
        return -1;
    }
    return fd;
}

int mnt_fs_fd(const char *type, const char *options, uint64_t attr, struct err *err)
{
    int fs = (int)syscall(SYS_fsopen, type, X_FSOPEN_CLOEXEC);
    char copy[256], *save = NULL;

    if (fs < 0)
        return err_sys(err, "open file system %s", type);
    snprintf(copy, sizeof copy, "%s", options ? options : "");
    for (char *o = strtok_r(copy, ",", &save); o; o = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(o, '=');
        int bad;
        if (eq)
            *eq++ = 0;
        bad = eq ? set_string(fs, o, eq)
                 : (int)syscall(SYS_fsconfig, fs, X_FSCONFIG_SET_FLAG, o, NULL, 0);
        if (bad < 0) {
            err_sys(err, "mount %s: option %s", type, o);
            close(fs);
            return -1;
        }
    }
    return fs_finish(fs, type, attr, err);
}

/* ---- places inside a root ---------------------------------------------------------------- */

static int open_in_root(int root_fd, const char *path, int flags)
{
    return x_openat2(root_fd, *path ? path : ".", flags | O_CLOEXEC,
                     X_RESOLVE_IN_ROOT | X_RESOLVE_NO_MAGICLINKS);
}

/* mkdir -p, every step inside the root; the last one a file when asked for. */
static int make_in_root(int root_fd, const char *path, bool file)
{
    char so_far[PATH_MAX_];
    size_t n = strlen(path);
    int parent = open_in_root(root_fd, ".", O_PATH | O_DIRECTORY), next;

    if (n >= sizeof so_far) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t at = 0; parent >= 0 && at < n;) {
        while (path[at] == '/')
            at++;
        size_t end = at;
        while (end < n && path[end] != '/')
            end++;
        if (end == at)
            break;
        memcpy(so_far, path, end);
        so_far[end] = 0;
        const char *name = so_far + at;
        size_t rest = end;
        while (path[rest] == '/')
            rest++;
        bool last = rest >= n;
        next = open_in_root(root_fd, so_far, O_PATH);
        if (next < 0 && errno == ENOENT) {
            int bad = last && file ? mknodat(parent, name, S_IFREG | 0644, 0)
                                   : mkdirat(parent, name, 0755);
            if (bad == 0 || errno == EEXIST)
                next = open_in_root(root_fd, so_far, O_PATH);
        }
        int sys = errno;
        close(parent);
        errno = sys;
        parent = next;
        at = end;
    }
    return parent;
}

int mnt_open_in(int root_fd, const char *path, bool make, bool file, struct err *err)
{
    int fd = open_in_root(root_fd, path, O_PATH);

    if (fd < 0 && errno == ENOENT && make)
        fd = make_in_root(root_fd, path, file);
    return fd < 0 ? err_sys(err, "%s in the container's root", path) : fd;
}

int mnt_move(int mount_fd, int root_fd, const char *target, bool file, struct err *err)
{
    _auto_(closep) int from = mount_fd;
    _auto_(closep) int to = mnt_open_in(root_fd, target, true, file, err);

    if (to < 0)
        return err_wrap(err, "mount point");
    if (x_move_mount(from, to, "", X_MOVE_F_EMPTY_PATH | X_MOVE_T_EMPTY_PATH) < 0)
        return err_sys(err, "mount at %s", target);
    return 0;
}

int mnt_move_path(int mount_fd, const char *path, struct err *err)
{
    _auto_(closep) int from = mount_fd;

    if (x_move_mount(from, AT_FDCWD, path, X_MOVE_F_EMPTY_PATH) < 0)
        return err_sys(err, "mount at %s", path);
    return 0;
}

/* ---- the entries of a spec --------------------------------------------------------------- */

static uint64_t attr_of(const struct sandbox_mount *m)
{
    return (m->read_only ? X_ATTR_RDONLY : 0) | (m->no_suid ? X_ATTR_NOSUID : 0) |
           (m->no_dev ? X_ATTR_NODEV : 0) | (m->no_exec ? X_ATTR_NOEXEC : 0);
}

static int apply_bind(int root_fd, const struct sandbox_mount *m, struct err *err)
{
    _auto_(closep) int from = open(m->source, O_PATH | O_CLOEXEC);
    struct stat st;
    int fd;

    if (from < 0 && errno == ENOENT && m->optional)
        return 0;
    if (from < 0)
        return err_sys(err, "bind %s", m->source);
    if (!str_empty(m->sub_path)) {
        int below = mnt_open_in(from, m->sub_path, true, false, err);
        if (below < 0)
            return err_wrap(err, "subPath of %s", m->source);
        close(from);
        from = below;
    }
    if (fstat(from, &st) < 0)
        return err_sys(err, "bind %s", m->source);
    fd = mnt_bind_fd(from, "", m->recursive, attr_of(m), err);
    if (fd < 0)
        return err_wrap(err, "%s", m->source);
    if (!m->propagate &&
        x_mount_setattr(fd, m->recursive ? X_AT_RECURSIVE : 0, 0, 0, MS_PRIVATE) < 0) {
        close(fd);
        return err_sys(err, "bind %s", m->source);
    }
    return mnt_move(fd, root_fd, m->target, !S_ISDIR(st.st_mode), err);
}

/* /dev as a container gets it. Built while detached: no path look-ups through the root. */
static int apply_dev(int root_fd, const struct sandbox_mount *m, struct err *err)
{
    static const struct {
        const char *name;
        unsigned major, minor;
    } nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                 {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                           {"/proc/self/fd/0", "stdin"},
                                           {"/proc/self/fd/1", "stdout"},
                                           {"/proc/self/fd/2", "stderr"},
                                           {"pts/ptmx", "ptmx"}};
    static const char *const dirs[] = {"pts", "shm", "mqueue"};
    int fd = mnt_fs_fd("tmpfs", "size=65536k,mode=755", X_ATTR_NOSUID, err);
    mode_t mask;

    if (fd < 0)
        return -1;
    mask = umask(0);
    for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
        if (mknodat(fd, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0)
            goto bad;
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        if (symlinkat(links[i][0], fd, links[i][1]) < 0)
            goto bad;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        if (mkdirat(fd, dirs[i], 0755) < 0)
            goto bad;
    umask(mask);
    return mnt_move(fd, root_fd, m->target, false, err);
bad:
    err_sys(err, "fill /dev");
    umask(mask);
    close(fd);
    return -1;
}

int mnt_apply(int root_fd, const struct sandbox_mount *m, struct err *err)
{
    char options[64] = "";
    int fd;

    switch ((enum sandbox_mount_kind)m->kind) {
    case SANDBOX_BIND:
        return apply_bind(root_fd, m, err);
    case SANDBOX_DEV:
        return apply_dev(root_fd, m, err);
    case SANDBOX_TMPFS:
        if (m->size_bytes)
            snprintf(options, sizeof options, "mode=%o,size=%lld",
                     (unsigned)(m->mode ? m->mode : 01777), (long long)m->size_bytes);
        else
            snprintf(options, sizeof options, "mode=%o", (unsigned)(m->mode ? m->mode : 01777));
        fd = mnt_fs_fd("tmpfs", options, attr_of(m), err);
        break;
    case SANDBOX_PROC:
        fd = mnt_fs_fd("proc", "", attr_of(m) | X_ATTR_NOSUID | X_ATTR_NODEV | X_ATTR_NOEXEC, err);
        break;
    case SANDBOX_SYSFS:
        fd = mnt_fs_fd("sysfs", "", attr_of(m) | X_ATTR_NOSUID | X_ATTR_NODEV | X_ATTR_NOEXEC, err);
        break;
    case SANDBOX_MQUEUE:
        fd =
            mnt_fs_fd("mqueue", "", attr_of(m) | X_ATTR_NOSUID | X_ATTR_NODEV | X_ATTR_NOEXEC, err);
        break;
    case SANDBOX_DEVPTS:
        fd = mnt_fs_fd("devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5",
                       attr_of(m) | X_ATTR_NOSUID | X_ATTR_NOEXEC, err);
        break;
    case SANDBOX_CGROUP: /* needs the host's layout: start.c does it */
        return 0;
    default:
        return err_set(err, INVALID_ARGUMENT, "mount of unknown kind %d", (int)m->kind);
    }
    return fd < 0 ? -1 : mnt_move(fd, root_fd, m->target, false, err);
}

/* ---- changing over ----------------------------------------------------------------------- */

int mnt_pivot(const char *root_path, struct err *err)
{
    if (chdir(root_path) < 0)
        return err_sys(err, "enter root %s", root_path);
    /* Both at the same place: the old root then lies on top of the new one and is let go without a
     * directory to put it in. */
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return err_sys(err, "pivot to %s", root_path);
    if (umount2(".", MNT_DETACH) < 0)
        return err_sys(err, "let the old root go");
    if (chdir("/") < 0)
        return err_sys(err, "chdir /");
    return 0;
}

int mnt_mask(const char *path, struct err *err)
{
    int empty = -1, bad = mnt_mask_with(path, &empty, err);

    closep(&empty);
    return bad;
}

int mnt_mask_with(const char *path, int *empty_fd, struct err *err)
{
    struct stat st;
    int fd;

    if (lstat(path, &st) < 0 || S_ISLNK(st.st_mode))
        return 0;
    if (!S_ISDIR(st.st_mode)) {
        fd = mnt_bind_fd(AT_FDCWD, "/dev/null", false, 0, err);
        return fd < 0 ? err_wrap(err, "mask %s", path) : mnt_move_path(fd, path, err);
    }
    if (*empty_fd < 0)
        *empty_fd = mnt_fs_fd("tmpfs", "size=0,nr_inodes=1,mode=755", X_ATTR_RDONLY, err);
    fd = *empty_fd < 0 ? -1 : mnt_bind_fd(*empty_fd, "", false, 0, err);
    if (fd < 0 && *empty_fd >= 0) /* before 6.15 a mount that hangs nowhere cannot be copied */
        fd = mnt_fs_fd("tmpfs", "size=0,nr_inodes=1,mode=755", X_ATTR_RDONLY, err);
    return fd < 0 ? err_wrap(err, "mask %s", path) : mnt_move_path(fd, path, err);
}

int mnt_read_only(const char *path, struct err *err)
{
    int fd = x_open_tree(AT_FDCWD, path, X_OPEN_TREE_CLONE | X_AT_RECURSIVE | O_CLOEXEC);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0)
        return err_sys(err, "make %s read-only", path);
    if (x_mount_setattr(fd, X_AT_RECURSIVE, X_ATTR_RDONLY, 0, 0) < 0) {
        close(fd);
        return err_sys(err, "make %s read-only", path);
    }
    return mnt_move_path(fd, path, err);
}
