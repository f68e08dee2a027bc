#include "env/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

char *fs_read(const char *path, size_t max_bytes, size_t *ret_n, struct err *err)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct buf b;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        err_sys(err, "read %s", path);
        return NULL;
    }
    buf_init(&b, max_bytes);
    if (st.st_size > 0)
        buf_reserve(&b, MIN((size_t)st.st_size, max_bytes));
    for (;;) { /* to the end, not to st_size: files of /proc say 0 */
        char block[16384];
        ssize_t n = read(fd, block, sizeof block);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err_sys(err, "read %s", path);
        else if (n > 0)
            buf_add(&b, block, (size_t)n);
        if (b.over)
            err_set(err, TOO_LARGE, "read %s: more than %zu bytes", path, max_bytes);
        if (n < 0 || b.over) {
            buf_done(&b);
            return NULL;
        }
        if (n == 0)
            break;
    }
    if (ret_n)
        *ret_n = b.n;
    return buf_take(&b);
}

bool fs_changed(const char *path, struct fs_mark *m)
{
    struct stat st;
    struct fs_mark now;

    if (stat(path, &st) < 0)
        return false;
    now = (struct fs_mark){st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_size, (int64_t)st.st_ino};
    if (memcmp(&now, m, sizeof(now)) == 0)
        return false;
    *m = now;
    return true;
}

int fs_write_all(int fd, const void *p, size_t n, struct err *err)
{
    for (size_t at = 0; at < n;) {
        ssize_t did = write(fd, (const char *)p + at, n - at);

        if (did < 0 && errno == EINTR)
            continue;
        if (did < 0)
            return err_sys(err, "write");
        at += (size_t)did;
    }
    return 0;
}

int fs_sync_dir(const char *path, struct err *err)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return err_sys(err, "fsync %s", path);
    return 0;
}

static int write_file(const char *path, const void *p, size_t n, mode_t mode, bool durable,
                      struct err *err)
{
    static _Atomic uint32_t count;
    _auto_(freep) char *tmp = xasprintf("%s.tmp-%d-%" PRIu32, path, (int)getpid(), count++);
    _auto_(freep) char *dir = xstrdup(path);
    _auto_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    char *slash = strrchr(dir, '/');

    if (fd < 0)
        return err_sys(err, "write %s", path);
    /* fchmod: mode is meant as it is, whatever the umask says */
    if (fs_write_all(fd, p, n, err) < 0) {
        unlink(tmp);
        return err_wrap(err, "%s", path);
    }
    if (fchmod(fd, mode) < 0 || (durable && fsync(fd) < 0) || rename(tmp, path) < 0) {
        err_sys(err, "write %s", path);
        unlink(tmp);
        return -1;
    }
    if (slash)
        slash[slash == dir] = 0;
    return durable ? fs_sync_dir(slash ? dir : ".", err) : 0;
}

int fs_write(const char *path, const void *p, size_t n, mode_t mode, struct err *err)
{
    return write_file(path, p, n, mode, true, err);
}

int fs_write_fast(const char *path, const void *p, size_t n, mode_t mode, struct err *err)
{
    return write_file(path, p, n, mode, false, err);
}

int fs_mkdirs(const char *path, mode_t mode, struct err *err)
{
    _auto_(freep) char *own = xstrdup(path);
    struct stat st;

    for (char *p = own + 1;; p++) {
        char was = *p;

        if (was && was != '/')
            continue;
        *p = 0;
        if (mkdir(own, mode) < 0 && errno != EEXIST)
            return err_sys(err, "mkdir %s", own);
        *p = was;
        if (!was)
            break;
    }
    if (stat(path, &st) < 0)
        return err_sys(err, "mkdir %s", path);
    errno = ENOTDIR;
    return S_ISDIR(st.st_mode) ? 0 : err_sys(err, "mkdir %s", path);
}

bool fs_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static int remove_at(int at, const char *name, dev_t dev, int depth);

static int remove_inside(int fd, dev_t dev, int depth)
{
    DIR *d = fdopendir(fd); /* owns fd */
    int rc = 0;

    if (!d) {
        close(fd);
        return -1;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
            rc |= remove_at(dirfd(d), e->d_name, dev, depth + 1);
    closedir(d);
    return rc;
}

static int remove_at(int at, const char *name, dev_t dev, int depth)
{
    struct stat st;
    int fd;

    if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (depth > 1000) {
        errno = ELOOP;
        return -1;
    }
    fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0 || st.st_dev != dev) { /* something is mounted here: not ours to empty */
        close(fd);
        errno = EBUSY;
        return -1;
    }
    if (remove_inside(fd, dev, depth) < 0)
        return -1;
    return unlinkat(at, name, AT_REMOVEDIR);
}

int fs_remove_tree(const char *path, struct err *err)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(err, "remove %s", path);
    if (remove_at(AT_FDCWD, path, st.st_dev, 0) < 0)
        return err_sys(err, "remove %s", path);
    return 0;
}
