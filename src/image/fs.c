/* Files: durable replacement, removal of trees, digests. */
#include "image/image_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int fsat_mkdirs(const char *path, mode_t mode, struct err *err)
{
    _auto_(freep) char *p = xstrdup(path);

    for (char *s = p + 1;; s++) {
        char c = *s;

        if (c && c != '/')
            continue;
        *s = 0;
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return err_sys(err, "mkdir %s", p);
        *s = c;
        if (!c)
            return 0;
    }
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);

        if (w < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

int fsat_write(int dirfd, const char *name, const void *p, size_t n, struct err *err)
{
    static _Atomic uint32_t serial;
    char tmp[96];
    _auto_(closep) int fd = -1;

    snprintf(tmp, sizeof(tmp), ".tmp-%d-%u", (int)getpid(), ++serial);
    fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(err, "create %s", tmp);
    if (write_all(fd, p, n) < 0 || fsync(fd) < 0 || renameat(dirfd, tmp, dirfd, name) < 0) {
        err_sys(err, "write %s", name);
        unlinkat(dirfd, tmp, 0);
        return -1;
    }
    if (fsync(dirfd) < 0)
        return err_sys(err, "fsync the folder of %s", name);
    return 0;
}

int fsat_read(int dirfd, const char *name, size_t max, struct buf *ret, struct err *err)
{
    _auto_(closep) int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return err_sys(err, "open %s", name);
    for (;;) {
        if (!buf_reserve(ret, 65536))
            return err_set(err, TOO_LARGE, "%s is larger than %zu bytes", name, max);
        n = read(fd, ret->p + ret->n, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read %s", name);
        if (n == 0)
            break;
        ret->n += (size_t)n;
        if (ret->n > max)
            return err_set(err, TOO_LARGE, "%s is larger than %zu bytes", name, max);
    }
    ret->p[ret->n] = 0;
    return 0;
}

int fsat_remove_tree(int dirfd, const char *name, struct err *err)
{
    struct dirent *de;
    int fd, rc = 0;
    DIR *d;

    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return err_sys(err, "remove %s", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "open %s", name);
    d = fdopendir(fd);
    if (!d) {
        close(fd);
        return err_sys(err, "list %s", name);
    }
    while (rc == 0 && (de = readdir(d)))
        if (!streq(de->d_name, ".") && !streq(de->d_name, ".."))
            rc = fsat_remove_tree(fd, de->d_name, err);
    closedir(d);
    if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(err, "remove %s", name);
    return rc;
}

int64_t fs_tree_bytes(int dirfd, const char *name)
{
    struct stat st;
    struct dirent *de;
    int64_t sum;
    int fd;
    DIR *d;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    sum = (int64_t)st.st_blocks * 512;
    if (!S_ISDIR(st.st_mode))
        return sum;
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        closep(&fd);
        return sum;
    }
    while ((de = readdir(d)))
        if (!streq(de->d_name, ".") && !streq(de->d_name, ".."))
            sum += fs_tree_bytes(fd, de->d_name);
    closedir(d);
    return sum;
}

void sha_init(struct sha *s)
{
    s->ctx = EVP_MD_CTX_new();
    ASSERT(s->ctx && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1);
}

void sha_add(struct sha *s, const void *p, size_t n)
{
    ASSERT(EVP_DigestUpdate(s->ctx, p, n) == 1);
}

void sha_end(struct sha *s, char ret[DIGEST_N + 1])
{
    unsigned char md[32];

    ASSERT(EVP_DigestFinal_ex(s->ctx, md, NULL) == 1);
    memcpy(ret, "sha256:", 7);
    for (int i = 0; i < 32; i++)
        snprintf(ret + 7 + 2 * i, 3, "%02x", md[i]);
    sha_done(s);
}

void sha_done(struct sha *s)
{
    EVP_MD_CTX_free(s->ctx);
    s->ctx = NULL;
}

void sha_of(const void *p, size_t n, char ret[DIGEST_N + 1])
{
    struct sha s;

    sha_init(&s);
    sha_add(&s, p, n);
    sha_end(&s, ret);
}
