#include "volume/volume.h"

#include "codec/json.h"
#include "env/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define X_ETAG "user.tandem.etag" /* "ETAG SIZE MTIME_NS" */
#define X_META "user.tandem.meta" /* JSON */

const char *volume_key_problem(const char *key)
{
    size_t n = strlen(key);
    const char *p = key;

    if (!n)
        return "it is empty";
    if (n > VOLUME_KEY_MAX)
        return "it is longer than 1,024 bytes";
    if (strncmp(key, VOLUME_PRIVATE, strlen(VOLUME_PRIVATE)) == 0 &&
        (key[strlen(VOLUME_PRIVATE)] == '/' || !key[strlen(VOLUME_PRIVATE)]))
        return "names that begin with .tandem are the volume's own";
    while (*p) {
        size_t part = strcspn(p, "/");

        if (!part)
            return "it has an empty part (\"//\" or a leading \"/\"), and keys are paths of files here";
        if (part > 255)
            return "a part of it is longer than 255 bytes, and keys are paths of files here";
        if ((part == 1 && p[0] == '.') || (part == 2 && p[0] == '.' && p[1] == '.'))
            return "it has a part \".\" or \"..\", and keys are paths of files here";
        p += part;
        p += *p == '/';
    }
    return NULL;
}

bool volume_name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == n &&
           name[0] != '.' && name[0] != '-' && name[n - 1] != '-' && name[n - 1] != '.' &&
           !strstr(name, "..");
}

static int open_beneath(int root, const char *path, int flags, mode_t mode)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int volume_root(const char *state, const char *name, bool make, struct err *err)
{
    _auto_(freep) char *path = xasprintf("%s/volumes/%s", state, name);
    int fd;

    if (!volume_name_ok(name))
        return err_set(err, NOT_FOUND, "%s is no name of a volume", name);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    if (errno != ENOENT || !make)
        return err_sys(err, "volume %s", name);
    if (fs_mkdirs(path, 0755, err) < 0)
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0777) < 0)
        return err_sys(err, "volume %s", name);
    return fd;
}

int volume_destroy(const char *state, const char *name, struct err *err)
{
    _auto_(freep) char *path = xasprintf("%s/volumes/%s", state, name);

    ASSERT(volume_name_ok(name));
    return fs_remove_tree(path, err);
}

bool volume_empty(int root)
{
    int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *d;
    bool empty = true;

    while (dir && empty && (d = readdir(dir)))
        empty = streq(d->d_name, ".") || streq(d->d_name, "..") || streq(d->d_name, VOLUME_PRIVATE);
    if (dir)
        closedir(dir);
    return empty;
}

static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* False: not the kept one, so what was kept beside it does not hold either. */
static bool etag_of(int fd, const struct stat *st, char out[VOLUME_ETAG_BYTES])
{
    char text[160], etag[VOLUME_ETAG_BYTES];
    long long size, mtime;
    ssize_t n = fgetxattr(fd, X_ETAG, text, sizeof text - 1);
    uint64_t h = 14695981039346656037u;

    if (n > 0) {
        text[n] = 0;
        if (sscanf(text, "%63s %lld %lld", etag, &size, &mtime) == 3 && size == st->st_size &&
            mtime == mtime_ns(st)) {
            memcpy(out, etag, sizeof etag);
            return true;
        }
    }
    snprintf(text, sizeof text, "%" PRIu64 "/%lld/%lld", (uint64_t)st->st_ino, (long long)st->st_size,
             (long long)mtime_ns(st));
    for (const char *p = text; *p; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211u;
    /* "-0" like a multipart ETag: clients then know that it is not the MD5 of the bytes */
    snprintf(out, VOLUME_ETAG_BYTES, "%016" PRIx64 "%016" PRIx64 "-0", h, h * 0x9e3779b97f4a7c15u);
    return false;
}

void volume_etag(int fd, const struct stat *st, char out[VOLUME_ETAG_BYTES])
{
    etag_of(fd, st, out);
}

static void tell(int fd, struct arena *a, const struct stat *st, struct volume_info *ret)
{
    struct err ignored;
    ssize_t n;

    *ret = (struct volume_info){.size = S_ISDIR(st->st_mode) ? 0 : st->st_size, .mtime_ns = mtime_ns(st),
                                .inode = st->st_ino, .folder = S_ISDIR(st->st_mode)};
    if (!etag_of(fd, st, ret->etag) && !ret->folder)
        return;
    n = a ? fgetxattr(fd, X_META, NULL, 0) : 0;
    if (n > 0) {
        char *text = arena_raw(a, (size_t)n);

        n = fgetxattr(fd, X_META, text, (size_t)n);
        if (n > 0)
            ret->meta = json_parse(a, text, (size_t)n, &ignored);
    }
}

int volume_read(int root, struct arena *a, const char *key, struct volume_info *ret, struct err *err)
{
    bool folder = str_ends(key, "/");
    struct stat st;
    int fd;

    if (volume_key_problem(key))
        return err_set(err, NOT_FOUND, "%s: %s", key, volume_key_problem(key));
    fd = open_beneath(root, key, O_RDONLY | O_NONBLOCK | (folder ? O_DIRECTORY : 0), 0);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP || errno == EXDEV || errno == ENXIO))
        errno = ENOENT;
    if (fd < 0)
        return err_sys(err, "%s", key);
    if (fstat(fd, &st) < 0 || (folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))) {
        close(fd);
        return err_set(err, NOT_FOUND, "%s is no file", key);
    }
    tell(fd, a, &st, ret);
    return fd;
}

int volume_stat(int root, struct arena *a, const char *key, struct volume_info *ret, struct err *err)
{
    int fd = volume_read(root, a, key, ret, err);

    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

/* The private folder, for root alone: pods may not look into half-made files. */
static int private_folder(int root)
{
    if (mkdirat(root, VOLUME_PRIVATE, 0700) < 0 && errno != EEXIST)
        return -1;
    return 0;
}

int volume_temp(int root, char name[VOLUME_TEMP_BYTES], struct err *err)
{
    static _Atomic uint64_t counter;
    struct timespec now;
    int fd;

    clock_gettime(CLOCK_REALTIME, &now);
    if (private_folder(root) < 0)
        return err_sys(err, "make " VOLUME_PRIVATE);
    snprintf(name, VOLUME_TEMP_BYTES, VOLUME_PRIVATE "/tmp-%llx-%x-%llx", (long long)now.tv_sec,
             (unsigned)getpid(), (unsigned long long)atomic_fetch_add(&counter, 1));
    fd = open_beneath(root, name, O_RDWR | O_CREAT | O_EXCL, 0666);
    if (fd < 0)
        return err_sys(err, "make a temporary file");
    (void)!fchmod(fd, 0666);
    return fd;
}

/* Makes the folders of a key, opens the last one and points *leaf at the file's name. */
static int open_parent(int root, const char *key, bool make, const char **leaf, struct err *err)
{
    char path[VOLUME_KEY_MAX + 1];
    char *slash;
    int fd;

    snprintf(path, sizeof path, "%s", key);
    slash = strrchr(path, '/');
    *leaf = slash ? key + (slash - path) + 1 : key;
    if (!slash) {
        fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? err_sys(err, "open the volume") : fd;
    }
    *slash = 0;
    fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0 || !make || errno != ENOENT)
        return fd >= 0 ? fd : err_sys(err, "%s", path);
    for (char *p = path;; p++) { /* one part after the other, each beneath the root */
        if (*p && *p != '/')
            continue;
        char was = *p;

        *p = 0;
        fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 && errno == ENOENT) {
            const char *name;
            int parent = open_parent(root, path, false, &name, err);

            if (parent < 0)
                return -1;
            if (mkdirat(parent, name, 0777) < 0 && errno != EEXIST) {
                err_sys(err, "make the folder %s", path);
                close(parent);
                return -1;
            }
            (void)!fchmodat(parent, name, 0777, 0);
            fsync(parent);
            close(parent);
            fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0);
        }
        if (fd < 0)
            return err_sys(err, "%s", path);
        if (!was)
            return fd;
        close(fd);
        *p = was;
    }
}

void volume_keep_etag(int fd, const struct stat *st, const char *etag)
{
    char text[160];

    snprintf(text, sizeof text, "%s %lld %lld", etag, (long long)st->st_size, (long long)mtime_ns(st));
    (void)!fsetxattr(fd, X_ETAG, text, strlen(text), 0);
}

static int commit(int root, int fd, const char *temp, const char *key, const char *etag,
                  const struct val *meta, bool must_be_new, struct volume_info *ret, struct err *err)
{
    const char *leaf;
    struct stat st;
    _auto_(closep) int parent = -1;

    if (fstat(fd, &st) < 0)
        return err_sys(err, "%s", key);
    volume_keep_etag(fd, &st, etag);
    if (meta) {
        struct buf b = {0};
        int rc;

        json_write(&b, meta);
        rc = fsetxattr(fd, X_META, b.p, b.n, 0);
        buf_done(&b);
        if (rc < 0 && errno != ENOTSUP)
            return err_sys(err, "keep the metadata of %s", key);
    }
    if (fsync(fd) < 0)
        return err_sys(err, "write %s", key);
    parent = open_parent(root, key, true, &leaf, err);
    if (parent < 0)
        return -1;
    if (renameat2(root, temp, parent, leaf, must_be_new ? RENAME_NOREPLACE : 0) < 0 || fsync(parent) < 0)
        return err_sys(err, "%s", key);
    if (ret)
        tell(fd, NULL, &st, ret);
    return 0;
}

int volume_commit(int root, int fd, const char *temp, const char *key, const char *etag,
                  const struct val *meta, bool must_be_new, struct volume_info *ret, struct err *err)
{
    int rc = volume_key_problem(key) ? err_set(err, INVALID_ARGUMENT, "%s", volume_key_problem(key))
                                     : commit(root, fd, temp, key, etag, meta, must_be_new, ret, err);

    if (rc < 0)
        unlinkat(root, temp, 0);
    return rc;
}

int volume_make_folder(int root, const char *key, struct err *err)
{
    char path[VOLUME_KEY_MAX + 4];
    const char *leaf;
    int fd;

    snprintf(path, sizeof path, "%sx", key); /* the parent of something in it is the folder */
    fd = open_parent(root, path, true, &leaf, err);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

int volume_remove(int root, const char *key, bool *ret_was, struct err *err)
{
    char path[VOLUME_KEY_MAX + 1];
    size_t n = strlen(key);
    bool folder = n && key[n - 1] == '/';

    if (ret_was)
        *ret_was = false;
    if (volume_key_problem(key))
        return 0; /* it never was a key */
    snprintf(path, sizeof path, "%.*s", (int)(folder ? n - 1 : n), key);
    for (int flags = folder ? AT_REMOVEDIR : 0;; flags = AT_REMOVEDIR) {
        const char *leaf;
        int parent = open_parent(root, path, false, &leaf, err), rc;
        char *slash = strrchr(path, '/');

        if (parent < 0)
            return err->code == ERR_NOT_FOUND || err->sys == ENOTDIR ? 0 : -1;
        rc = unlinkat(parent, leaf, flags);
        if (rc == 0) {
            fsync(parent);
            if (ret_was)
                *ret_was = true;
        }
        close(parent);
        if (rc < 0 && flags == 0 && errno != ENOENT && errno != EISDIR && errno != ENOTDIR)
            return err_sys(err, "remove %s", key);
        if (rc < 0 || !slash)
            return 0;
        *slash = 0; /* and the folder that it leaves empty */
    }
}
