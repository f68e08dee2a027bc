/* Tar to directory, as a lower layer of an overlay.
 *
 * The compressed stream goes through one libarchive reader (raw format: it only decompresses), its
 * plain bytes through SHA-256 (that is the diff-id) into a second reader that knows tar. Entries
 * are written relative to the layer's root with openat2(RESOLVE_IN_ROOT), so neither "..", nor an
 * absolute path, nor a symlink the archive itself made can lead out of it.
 *
 * Kept: owner, mode, times, hardlinks, sparse holes, xattrs user.* and security.capability.
 * Whiteouts: ".wh.NAME" becomes a 0:0 character device NAME, ".wh..wh..opq" the xattr
 * trusted.overlay.opaque=y of its folder: what overlayfs wants. Left out: device nodes (a
 * container gets a /dev of its own; a disk's node in a hostile image must not reach one), and
 * trusted.* (it would steer overlayfs). */
#include "image/image_int.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct dir_time { /* set at the end: writing into a folder changes its times */
    char *path;
    struct timespec mtime;
};

struct unpack {
    const struct unpack_options *o;
    int root, fd; /* fd: the source */
    struct archive *plain, *tar;
    struct sha sha;
    int64_t bytes, entries; /* of the plain stream */
    bool cancelled, hash_on;
    char *parent; /* path of the folder that parent_fd is, NULL: none */
    int parent_fd;
    struct dir_time *times;
    size_t n_times, cap_times;
    char *in, *out; /* buffers of the two readers */
};
enum { IN_BYTES = 1 << 16, OUT_BYTES = 1 << 17 };

static int open_in(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

    return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
}

/* "./a//b/" -> "a/b" in place; false for what climbs. */
static bool path_clean(char *p)
{
    char *to = p, *from = p;

    while (*from) {
        size_t n;

        while (*from == '/')
            from++;
        n = strcspn(from, "/");
        if (n == 0)
            break;
        if (n == 2 && from[0] == '.' && from[1] == '.')
            return false;
        if (!(n == 1 && from[0] == '.')) {
            if (n > 255)
                return false;
            if (to != p)
                *to++ = '/';
            memmove(to, from, n);
            to += n;
        }
        from += n;
    }
    *to = 0;
    return true;
}

/* The folder path below root, made when it is missing. */
static int open_dir_made(int root, const char *path)
{
    _auto_(freep) char *p = xstrdup(path);
    int fd = open_in(root, p, O_PATH | O_DIRECTORY);

    if (fd >= 0 || errno != ENOENT)
        return fd;
    for (char *s = p;; s++) {
        char c = *s;

        if (c && c != '/')
            continue;
        *s = 0;
        fd = open_in(root, p, O_PATH | O_DIRECTORY);
        if (fd < 0 && errno == ENOENT) {
            char *base = strrchr(p, '/');
            int up;

            if (base)
                *base = 0;
            up = open_in(root, base ? p : "", O_PATH | O_DIRECTORY);
            if (base)
                *base = '/';
            if (up < 0)
                return -1;
            if (mkdirat(up, base ? base + 1 : p, 0755) < 0 && errno != EEXIST) {
                closep(&up);
                return -1;
            }
            close(up);
            fd = open_in(root, p, O_PATH | O_DIRECTORY);
        }
        if (fd < 0)
            return -1;
        *s = c;
        if (!c)
            return fd;
        close(fd);
    }
}

/* The folder that path lies in; *ret_base = the last part. Keeps the last one open. */
static int parent_of(struct unpack *u, char *path, const char **ret_base, struct err *err)
{
    char *slash = strrchr(path, '/');
    const char *dir = slash ? path : "";

    *ret_base = slash ? slash + 1 : path;
    if (slash)
        *slash = 0;
    if (!u->parent || !streq(u->parent, dir)) {
        closep(&u->parent_fd);
        u->parent_fd = -1;
        free(u->parent);
        u->parent = NULL;
        u->parent_fd = open_dir_made(u->root, dir);
        if (u->parent_fd >= 0)
            u->parent = xstrdup(dir);
    }
    if (u->parent_fd < 0)
        err_sys(err, "folder %s", dir);
    if (slash)
        *slash = '/';
    return u->parent_fd;
}

static void forget_parent(struct unpack *u) /* a folder was replaced: its descriptor may be stale */
{
    free(u->parent);
    u->parent = NULL;
}

static int fail(struct err *err, const char *path)
{
    return err_sys(err, "unpack %s", path);
}

static bool owned(const struct unpack *u)
{
    return !u->o->files_only && geteuid() == 0;
}

static int put_xattrs(struct unpack *u, struct archive_entry *e, int fd)
{
    const char *name;
    const void *value;
    size_t n;

    archive_entry_xattr_reset(e);
    while (archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK)
        if (str_starts(name, "user.") || streq(name, "security.capability"))
            if (fsetxattr(fd, name, value, n, 0) < 0 && errno != ENOTSUP && errno != EPERM)
                return -1;
    return 0;
}

/* Owner first: it clears the set-uid bits that the mode then sets. */
static int put_meta(struct unpack *u, struct archive_entry *e, int fd)
{
    if (owned(u) && fchown(fd, (uid_t)archive_entry_uid(e), (gid_t)archive_entry_gid(e)) < 0)
        return -1;
    if (fchmod(fd, archive_entry_mode(e) & 07777) < 0)
        return -1;
    return u->o->files_only ? 0 : put_xattrs(u, e, fd);
}

static struct timespec mtime_of(struct archive_entry *e)
{
    if (!archive_entry_mtime_is_set(e))
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return (struct timespec){archive_entry_mtime(e), archive_entry_mtime_nsec(e)};
}

/* Makes room for an entry that replaces what the same archive put there before. */
static int make_room(struct unpack *u, int dir, const char *base, struct err *err)
{
    if (unlinkat(dir, base, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail(err, base);
    forget_parent(u);
    return fsat_remove_tree(dir, base, err);
}

static int put_dir(struct unpack *u, struct archive_entry *e, const char *path, int dir,
                   const char *base, struct err *err)
{
    struct stat st;
    bool opaque = false;
    int rc;
    _auto_(closep) int fd = -1;

    if (!*base) { /* the root itself */
        fd = open_in(u->root, "", O_RDONLY | O_DIRECTORY);
    } else {
        if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode)) {
            opaque = S_ISCHR(st.st_mode) && st.st_rdev == 0; /* removed and made anew */
            if (make_room(u, dir, base, err) < 0)
                return -1;
        }
        if (mkdirat(dir, base, 0755) < 0 && errno != EEXIST)
            return fail(err, path);
        fd = openat(dir, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0)
        return fail(err, path);
    rc = put_meta(u, e, fd);
    if (rc == 0 && opaque && !u->o->bottom)
        rc = fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0);
    if (rc < 0)
        return fail(err, path);
    if (u->n_times == u->cap_times) {
        u->cap_times = u->cap_times ? u->cap_times * 2 : 64;
        u->times = xrealloc(u->times, u->cap_times * sizeof(*u->times));
    }
    u->times[u->n_times++] = (struct dir_time){xstrdup(path), mtime_of(e)};
    return 0;
}

static int put_data(struct unpack *u, int fd, int64_t size, const char *path, struct err *err)
{
    const void *p;
    la_int64_t at;
    size_t n;
    int rc;

    while ((rc = archive_read_data_block(u->tar, &p, &n, &at)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
        const char *c = p;

        while (n) {
            ssize_t w = pwrite(fd, c, n, at);

            if (w < 0 && errno == EINTR)
                continue;
            if (w < 0)
                return fail(err, path);
            c += w;
            at += w;
            n -= (size_t)w;
        }
    }
    if (rc != ARCHIVE_EOF)
        return err->code ? -1 : err_set(err, INVALID, "bad archive at %s: %s", path, archive_error_string(u->tar));
    if (size > 0 && ftruncate(fd, size) < 0) /* a hole at the end */
        return fail(err, path);
    return 0;
}

static int put_file(struct unpack *u, struct archive_entry *e, const char *path, int dir,
                    const char *base, struct err *err)
{
    struct timespec t[2] = {mtime_of(e), mtime_of(e)};
    _auto_(closep) int fd = -1;

    if (archive_entry_size(e) > UNPACK_BYTES_MAX)
        return err_set(err, TOO_LARGE, "%s is too large", path);
    if (make_room(u, dir, base, err) < 0)
        return -1;
    fd = openat(dir, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(err, path);
    if (put_data(u, fd, archive_entry_size(e), path, err) < 0)
        return -1;
    if (put_meta(u, e, fd) < 0 || futimens(fd, t) < 0)
        return fail(err, path);
    return 0;
}

static int put_hardlink(struct unpack *u, struct archive_entry *e, const char *path, int dir,
                        const char *base, struct err *err)
{
    _auto_(freep) char *target = xstrdup(archive_entry_hardlink(e));
    char *slash;
    struct stat st, here;
    _auto_(closep) int from = -1;

    if (!path_clean(target) || !*target)
        return err_set(err, INVALID, "%s is a link that leaves the image: %.100s", path, target);
    slash = strrchr(target, '/');
    if (slash)
        *slash = 0;
    from = open_in(u->root, slash ? target : "", O_PATH | O_DIRECTORY);
    if (from < 0 || fstatat(from, slash ? slash + 1 : target, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(err, INVALID, "%s is a link to %.100s, which is not there", path,
                       archive_entry_hardlink(e));
    if (S_ISDIR(st.st_mode))
        return err_set(err, INVALID, "%s is a hard link to a folder", path);
    if (fstatat(dir, base, &here, AT_SYMLINK_NOFOLLOW) == 0 && here.st_ino == st.st_ino)
        return 0; /* to itself */
    if (make_room(u, dir, base, err) < 0)
        return -1;
    if (linkat(from, slash ? slash + 1 : target, dir, base, 0) < 0)
        return fail(err, path);
    return 0;
}

static int put_whiteout(struct unpack *u, const char *path, int dir, const char *base,
                        struct err *err)
{
    const char *name = base + 4;
    struct stat st;
    _auto_(closep) int fd = -1;

    if (u->o->bottom)
        return 0;
    if (streq(base, ".wh..wh..opq")) {
        fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } else if (str_starts(name, ".wh.")) {
        return 0; /* aufs' own notes */
    } else if (!*name || streq(name, ".") || streq(name, "..")) {
        return err_set(err, INVALID, "bad whiteout %s", path);
    } else if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISDIR(st.st_mode))
            return 0; /* it hides the lower one already */
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else {
        return mknodat(dir, name, S_IFCHR, makedev(0, 0)) < 0 ? fail(err, path) : 0;
    }
    if (fd < 0 || fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0)
        return fail(err, path);
    return 0;
}

static int put_symlink(struct unpack *u, struct archive_entry *e, const char *path, int dir,
                       const char *base, struct err *err)
{
    struct timespec t[2] = {mtime_of(e), mtime_of(e)};
    const char *to = archive_entry_symlink(e);

    if (str_empty(to))
        return err_set(err, INVALID, "%s is an empty symlink", path);
    if (make_room(u, dir, base, err) < 0)
        return -1;
    if (symlinkat(to, dir, base) < 0)
        return fail(err, path);
    if (owned(u) && fchownat(dir, base, (uid_t)archive_entry_uid(e), (gid_t)archive_entry_gid(e),
                             AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, path);
    utimensat(dir, base, t, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int put_entry(struct unpack *u, struct archive_entry *e, struct err *err)
{
    const char *given = archive_entry_pathname(e), *base;
    _auto_(freep) char *path = given ? xstrdup(given) : NULL;
    mode_t type = archive_entry_filetype(e);
    int dir;

    if (!path || !path_clean(path))
        return err_set(err, INVALID, "the archive holds a path that leaves it: %.200s",
                       given ? given : "(not readable)");
    if (!*path)
        return type == AE_IFDIR && !u->o->files_only ? put_dir(u, e, "", -1, "", err) : 0;
    dir = parent_of(u, path, &base, err);
    if (dir < 0)
        return -1;
    if (u->o->files_only && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
        return 0;
    if (!u->o->files_only && str_starts(base, ".wh."))
        return put_whiteout(u, path, dir, base, err);
    if (archive_entry_hardlink(e))
        return put_hardlink(u, e, path, dir, base, err);
    switch (type) {
    case AE_IFDIR:
        return put_dir(u, e, path, dir, base, err);
    case AE_IFREG:
        return put_file(u, e, path, dir, base, err);
    case AE_IFLNK:
        return put_symlink(u, e, path, dir, base, err);
    case AE_IFIFO:
        if (make_room(u, dir, base, err) < 0)
            return -1;
        if (mkfifoat(dir, base, 0600) < 0 || fchmodat(dir, base, archive_entry_mode(e) & 07777, 0) < 0 ||
            (owned(u) && fchownat(dir, base, (uid_t)archive_entry_uid(e),
                                  (gid_t)archive_entry_gid(e), AT_SYMLINK_NOFOLLOW) < 0))
            return fail(err, path);
        return 0;
    default:
        return 0; /* device nodes and sockets: see above */
    }
}

/* --- the two readers --- */

static la_ssize_t source_read(struct archive *a, void *arg, const void **ret)
{
    struct unpack *u = arg;
    ssize_t n;

    do
        n = read(u->fd, u->in, IN_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        archive_set_error(a, errno, "read: %s", strerror(errno));
        return -1;
    }
    if (n > 0 && u->o->progress) {
        off_t at = lseek(u->fd, 0, SEEK_CUR);

        if (!u->o->progress(u->o->arg, u->o->what ? u->o->what : "unpack", at > 0 ? at : 0, u->o->total)) {
            u->cancelled = true;
            archive_set_error(a, ECANCELED, "cancelled");
            return -1;
        }
    }
    *ret = u->in;
    return n;
}

static la_ssize_t plain_read(struct archive *a, void *arg, const void **ret)
{
    struct unpack *u = arg;
    la_ssize_t n = archive_read_data(u->plain, u->out, OUT_BYTES);

    if (n < 0) {
        archive_set_error(a, EIO, "%s", archive_error_string(u->plain));
        return -1;
    }
    u->bytes += n;
    if (u->bytes > UNPACK_BYTES_MAX) {
        archive_set_error(a, EFBIG, "larger than the limit when unpacked");
        return -1;
    }
    if (u->hash_on)
        sha_add(&u->sha, u->out, (size_t)n);
    *ret = u->out;
    return n;
}

static int readers_open(struct unpack *u, struct err *err)
{
    struct archive_entry *e;

    u->in = xmalloc(IN_BYTES);
    u->out = xmalloc(OUT_BYTES);
    u->plain = archive_read_new();
    u->tar = archive_read_new();
    ASSERT(u->plain && u->tar);
    /* by name: "all" would run programs for formats that no library reads */
    archive_read_support_filter_gzip(u->plain);
    archive_read_support_filter_zstd(u->plain);
    archive_read_support_filter_xz(u->plain);
    archive_read_support_filter_bzip2(u->plain);
    archive_read_support_format_raw(u->plain);
    archive_read_support_format_empty(u->plain);
    if (archive_read_open(u->plain, u, NULL, source_read, NULL) != ARCHIVE_OK ||
        archive_read_next_header(u->plain, &e) != ARCHIVE_OK)
        return err_set(err, INVALID, "not an archive: %s",
                       archive_error_string(u->plain) ? archive_error_string(u->plain) : "it is empty");
    archive_read_support_format_tar(u->tar);
    archive_read_support_format_gnutar(u->tar);
    archive_read_support_format_empty(u->tar);
    if (archive_read_open(u->tar, u, NULL, plain_read, NULL) != ARCHIVE_OK)
        return err_set(err, INVALID, "not a tar archive: %s", archive_error_string(u->tar));
    return 0;
}

static void unpack_done(struct unpack *u)
{
    if (u->tar)
        archive_read_free(u->tar);
    if (u->plain)
        archive_read_free(u->plain);
    if (u->hash_on && u->sha.ctx)
        sha_done(&u->sha);
    closep(&u->parent_fd);
    free(u->parent);
    for (size_t i = 0; i < u->n_times; i++)
        free(u->times[i].path);
    free(u->times);
    free(u->in);
    free(u->out);
}

static int unpack_all(struct unpack *u, struct err *err)
{
    struct archive_entry *e;
    const void *rest;
    la_ssize_t n;
    int rc;

    if (readers_open(u, err) < 0)
        return -1;
    while ((rc = archive_read_next_header(u->tar, &e)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
        if (++u->entries > UNPACK_ENTRIES_MAX)
            return err_set(err, TOO_LARGE, "the archive has more than %d entries", UNPACK_ENTRIES_MAX);
        if (put_entry(u, e, err) < 0)
            return -1;
    }
    if (rc != ARCHIVE_EOF)
        return err_set(err, INVALID, "bad archive: %s",
                       archive_error_string(u->tar) ? archive_error_string(u->tar) : "cut short");
    do /* what follows the end mark belongs to the digest */
        n = plain_read(u->tar, u, &rest);
    while (n > 0);
    if (n < 0)
        return err_set(err, INVALID, "bad archive: %s", archive_error_string(u->tar));
    for (size_t i = u->n_times; i-- > 0;) {
        struct timespec t[2] = {u->times[i].mtime, u->times[i].mtime};
        int fd = open_in(u->root, u->times[i].path, O_RDONLY | O_DIRECTORY);

        if (fd >= 0) {
            futimens(fd, t);
            close(fd);
        }
    }
    return 0;
}

int image_unpack(int fd, int dirfd, const struct unpack_options *o, char ret_diff_id[DIGEST_N + 1],
                 int64_t *ret_bytes, struct err *err)
{
    struct unpack u = {.o = o, .root = dirfd, .fd = fd, .parent_fd = -1, .hash_on = true};
    struct err e = {0};
    int rc;

    sha_init(&u.sha);
    rc = unpack_all(&u, &e);
    if (rc < 0)
        *err = u.cancelled ? (struct err){.code = ERR_CANCELLED, .msg = "cancelled"} : e;
    if (rc == 0)
        sha_end(&u.sha, ret_diff_id);
    if (rc == 0 && ret_bytes)
        *ret_bytes = u.bytes;
    unpack_done(&u);
    return rc;
}

int image_unpack_layer(struct image_store *s, int fd, const struct unpack_options *o,
                       const char *want, char ret_diff_id[DIGEST_N + 1], int64_t *ret_bytes,
                       struct err *err)
{
    struct err ignored = {0};
    char tmp[64];
    _auto_(closep) int dir = -1;
    int rc;

    layer_tmp_name(tmp);
    if (mkdirat(s->dirfd, tmp, 0755) < 0)
        return err_sys(err, "mkdir %s/%s", s->dir, tmp);
    dir = openat(s->dirfd, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = dir < 0 ? err_sys(err, "open %s/%s", s->dir, tmp)
                 : image_unpack(fd, dir, o, ret_diff_id, ret_bytes, err);
    if (rc == 0 && want && !streq(want, ret_diff_id))
        rc = err_set(err, INVALID, "a layer unpacks to %s, the config says %s", ret_diff_id, want);
    if (rc == 0)
        rc = layer_commit(s, tmp, ret_diff_id, err);
    if (rc < 0)
        fsat_remove_tree(s->dirfd, tmp, &ignored);
    return rc;
}

int image_tar_is_layout(int fd, struct err *err)
{
    struct unpack_options o = {0};
    struct unpack u = {.o = &o, .root = -1, .fd = fd, .parent_fd = -1};
    struct archive_entry *e;
    int rc = readers_open(&u, err), next;

    while (rc == 0 && ((next = archive_read_next_header(u.tar, &e)) == ARCHIVE_OK || next == ARCHIVE_WARN)) {
        const char *given = archive_entry_pathname(e);
        _auto_(freep) char *p = xstrdup(given ? given : "");
        char *slash;

        if (!path_clean(p) || !*p)
            continue; /* "./" */
        slash = strchr(p, '/');
        if (slash)
            *slash = 0;
        if (streq(p, "blobs") || streq(p, "oci-layout") || streq(p, "index.json") ||
            streq(p, "manifest.json") || streq(p, "repositories"))
            rc = 1;
        else if (strspn(p, "0123456789abcdef") == HEX_N && (!p[HEX_N] || streq(p + HEX_N, ".json")))
            rc = 1; /* docker save of old */
        break;
    }
    unpack_done(&u);
    if (rc >= 0 && lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(err, "rewind the archive");
    return rc;
}
