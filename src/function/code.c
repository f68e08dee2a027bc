#include "function/code.h"

#include "base/buf.h"
#include "base/map.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Nothing of a zip is looked up through a symbolic link or outside the folder, whatever its names
 * say: the kernel refuses it here even if a check above were wrong. */
static int open_beneath(int dir, const char *path, uint64_t flags, mode_t mode)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

DEFINE_AUTO(struct archive *, archive_read_free, archive_read_free)
DEFINE_AUTO(struct archive *, archive_write_free, archive_write_free)

static void sha256_hex(const void *p, size_t n, char ret[CODE_HEX])
{
    unsigned char md[32];

    ASSERT(EVP_Digest(p, n, md, NULL, EVP_sha256(), NULL) == 1);
    for (int i = 0; i < 32; i++)
        snprintf(ret + 2 * i, 3, "%02x", md[i]);
}

static bool is_sha256_hex(const char *s)
{
    return s && strlen(s) == CODE_HEX - 1 && strspn(s, "0123456789abcdef") == CODE_HEX - 1;
}

/* The name as it may be used: no "." parts, no final "/". NULL and err for what would leave the
 * folder or could not be a file name; "" for the folder itself. */
static char *clean_name(const char *name, struct err *err)
{
    _auto_(freep) char *out = NULL;
    size_t n = 0;

    if (!name || !*name || strlen(name) > 1000) {
        err_set(err, INVALID_ARGUMENT, "the zip holds an entry whose name is empty, too long or not text");
        return NULL;
    }
    if (name[0] == '/') {
        err_set(err, INVALID_ARGUMENT, "the zip holds an absolute path: %.200s", name);
        return NULL;
    }
    out = xmalloc(strlen(name) + 1);
    for (const char *p = name; *p;) {
        size_t part = strcspn(p, "/");

        if (part == 2 && p[0] == '.' && p[1] == '.') {
            err_set(err, INVALID_ARGUMENT, "the zip holds a path with \"..\": %.200s", name);
            return NULL;
        }
        if (part > 255) {
            err_set(err, INVALID_ARGUMENT, "the zip holds a name longer than 255 bytes");
            return NULL;
        }
        if (part && !(part == 1 && p[0] == '.')) {
            if (n)
                out[n++] = '/';
            memcpy(out + n, p, part);
            n += part;
        }
        p += part;
        p += *p == '/';
    }
    out[n] = 0;
    return STEAL(out);
}

/* A link is kept when it is relative and never climbs above where it lies. */
static bool link_stays(const char *target)
{
    if (str_empty(target) || target[0] == '/')
        return false;
    for (const char *p = target; *p; p += strcspn(p, "/"), p += *p == '/')
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]))
            return false;
    return true;
}

static int make_folders(int dir, const char *path, size_t n, struct err *err)
{
    char part[1024];

    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        _auto_(closep) int fd = open_beneath(dir, part, O_PATH | O_DIRECTORY, 0);
        if (fd >= 0)
            continue;
        /* the parent was opened without links the turn before, and nobody else writes here */
        if (errno != ENOENT || mkdirat(dir, part, 0755) < 0)
            return err_set(err, INVALID_ARGUMENT, "the zip holds %.200s twice, as a file and as a folder",
                           part);
    }
    return 0;
}

static int write_all(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n) {
        ssize_t w = write(fd, at, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

static int unpack_file(struct archive *ar, struct archive_entry *e, int dir, const char *name,
                       int64_t *total, struct err *err)
{
    mode_t mode = archive_entry_perm(e) & 0111 ? 0755 : 0644;
    _auto_(closep) int fd = open_beneath(dir, name, O_WRONLY | O_CREAT | O_TRUNC, mode);
    char piece[65536];

    if (fd < 0)
        return errno == ENOSPC || errno == EDQUOT || errno == EMFILE
                   ? err_sys(err, "unpack %.200s", name)
                   : err_set(err, INVALID_ARGUMENT, "the zip holds %.200s twice, in different forms", name);
    for (;;) {
        ssize_t n = archive_read_data(ar, piece, sizeof piece);

        if (n == 0)
            break;
        if (n < 0)
            return err_set(err, INVALID_ARGUMENT,
                           "could not unzip %.200s: %s", name,
                           archive_error_string(ar) ? archive_error_string(ar) : "damaged");
        *total += n;
        if (*total > CODE_UNPACKED_MAX)
            return err_set(err, TOO_LARGE, "unzipped size must be smaller than %d bytes", CODE_UNPACKED_MAX);
        if (write_all(fd, piece, (size_t)n) < 0)
            return err_sys(err, "unpack %.200s", name);
    }
    if (fchmod(fd, mode) < 0)
        return err_sys(err, "unpack %.200s", name);
    return 0;
}

static int unpack_entry(struct archive *ar, struct archive_entry *e, int dir, int64_t *total,
                        struct err *err)
{
    _auto_(freep) char *name = clean_name(archive_entry_pathname(e), err);
    const char *slash;
    mode_t type;

    if (!name)
        return -1;
    if (!*name)
        return 0;
    type = archive_entry_filetype(e);
    if (archive_entry_hardlink(e))
        return err_set(err, INVALID_ARGUMENT, "the zip holds a hard link: %.200s", name);
    if (type == AE_IFDIR)
        return make_folders(dir, name, strlen(name), err);
    slash = strrchr(name, '/');
    if (slash && make_folders(dir, name, (size_t)(slash - name), err) < 0)
        return -1;
    if (type == AE_IFLNK) {
        const char *target = archive_entry_symlink(e);

        if (!link_stays(target))
            return err_set(err, INVALID_ARGUMENT, "the zip holds a link that leaves the folder: %.200s", name);
        if (symlinkat(target, dir, name) < 0)
            return err_set(err, INVALID_ARGUMENT, "the zip holds %.200s twice", name);
        return 0;
    }
    if (type != AE_IFREG && type != 0)
        return err_set(err, INVALID_ARGUMENT, "the zip holds something that is no file: %.200s", name);
    return unpack_file(ar, e, dir, name, total, err);
}

static int unpack(const void *zip, size_t n, int dir, struct err *err)
{
    _auto_(archive_read_freep) struct archive *ar = archive_read_new();
    struct archive_entry *e;
    int64_t total = 0;
    int files = 0, r;

    archive_read_support_format_zip(ar);
    if (n < 22 || archive_read_open_memory(ar, zip, n) != ARCHIVE_OK)
        return err_set(err, INVALID_ARGUMENT,
                       "could not unzip uploaded file. Please check your file, then try to upload again.");
    while ((r = archive_read_next_header(ar, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
        if (++files > CODE_FILES_MAX)
            return err_set(err, TOO_LARGE, "the zip holds more than %d files", CODE_FILES_MAX);
        if (unpack_entry(ar, e, dir, &total, err) < 0)
            return -1;
    }
    if (r != ARCHIVE_EOF)
        return err_set(err, INVALID_ARGUMENT,
                       "could not unzip uploaded file. Please check your file, then try to upload again.");
    if (!files)
        return err_set(err, INVALID_ARGUMENT, "uploaded file must be a non-empty zip");
    return 0;
}

static void remove_tree(const char *path)
{
    char *const argv[] = {(char *)path, NULL};
    FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    FTSENT *f;

    while (fts && (f = fts_read(fts)))
        if (f->fts_info == FTS_DP)
            rmdir(f->fts_accpath);
        else if (f->fts_info != FTS_D)
            unlink(f->fts_accpath);
    if (fts)
        fts_close(fts);
}

static int make_dirs(const char *state, struct err *err)
{
    static const char *const names[] = {"blobs", "blobs/sha256", "functions"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _auto_(freep) char *path = xasprintf("%s/%s", state, names[i]);

        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make %s", path);
    }
    return 0;
}

/* Unpacks under a name of its own, then renames: who sees the folder sees all of it. */
static int unpack_as(const char *state, const char *hex, const void *zip, size_t n, struct err *err)
{
    _auto_(freep) char *done = xasprintf("%s/functions/%s", state, hex);
    _auto_(freep) char *part = xasprintf("%s/functions/.%s.XXXXXX", state, hex);
    _auto_(closep) int dir = -1;

    if (utimensat(AT_FDCWD, done, NULL, 0) == 0) /* it is there, and needed from now on */
        return 0;
    if (!mkdtemp(part))
        return err_sys(err, "make %s", part);
    dir = open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fchmod(dir, 0755) < 0) {
        err_sys(err, "make %s", part);
        remove_tree(part);
        return -1;
    }
    if (unpack(zip, n, dir, err) < 0) {
        remove_tree(part);
        return -1;
    }
    if (rename(part, done) < 0) {
        int e = errno;

        remove_tree(part);
        errno = e;
        if (access(done, F_OK) < 0) /* else somebody was faster with the same bytes */
            return err_sys(err, "make %s", done);
    }
    return 0;
}

static int keep_blob(const char *state, const char *hex, const void *zip, size_t n, struct err *err)
{
    _auto_(freep) char *dir_name = xasprintf("%s/blobs/sha256", state);
    _auto_(freep) char *done = xasprintf("%s/%s", dir_name, hex);
    _auto_(freep) char *part = xasprintf("%s/.%s.XXXXXX", dir_name, hex);
    _auto_(closep) int fd = -1;
    _auto_(closep) int dir = -1;

    if (utimensat(AT_FDCWD, done, NULL, 0) == 0)
        return 0;
    fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "make %s", part);
    if (write_all(fd, zip, n) < 0 || fdatasync(fd) < 0 || rename(part, done) < 0) {
        err_sys(err, "keep the code");
        unlink(part);
        return -1;
    }
    dir = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0)
        return err_sys(err, "keep the code");
    return 0;
}

/* Who puts code shares it, who removes some has it alone: what is put while it is being removed stays. */
static int lock(const char *state, int how)
{
    _auto_(freep) char *path = xasprintf("%s/blobs/.lock", state);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    while (fd >= 0 && flock(fd, how) < 0 && errno == EINTR)
        ;
    return fd;
}

/* The record at a zip's end (before a comment of up to 64 KiB), whose directory lies inside. The reader
 * would make do without, and take a file that was cut on its way for a smaller one. */
static bool has_end(const unsigned char *p, size_t n)
{
    for (size_t back = 22; back <= n && back <= 22 + 65535; back++) {
        const unsigned char *e = p + n - back;
        uint64_t size, off;

        if (memcmp(e, "PK\5\6", 4) != 0)
            continue;
        size = e[12] | e[13] << 8 | e[14] << 16 | (uint64_t)e[15] << 24;
        off = e[16] | e[17] << 8 | e[18] << 16 | (uint64_t)e[19] << 24;
        return off == 0xffffffff || size + off <= n - back;
    }
    return false;
}

int code_put(const char *state, const void *zip, size_t n, char ret_sha256[CODE_HEX],
             struct err *err)
{
    char hex[CODE_HEX];

    if (n > CODE_ZIP_MAX)
        return err_set(err, TOO_LARGE, "the zip is larger than %d bytes", CODE_ZIP_MAX);
    if (!n)
        return err_set(err, INVALID_ARGUMENT, "uploaded file must be a non-empty zip");
    if (!has_end(zip, n))
        return err_set(err, INVALID_ARGUMENT, "the zip has no end: it was cut, or is none");
    sha256_hex(zip, n, hex);
    /* unpacked first: a zip that cannot be unpacked must not stay behind as a blob */
    if (make_dirs(state, err) < 0)
        return -1;
    _auto_(closep) int held = lock(state, LOCK_SH);
    if (unpack_as(state, hex, zip, n, err) < 0 || keep_blob(state, hex, zip, n, err) < 0)
        return -1;
    memcpy(ret_sha256, hex, CODE_HEX);
    return 0;
}

char *code_folder(const char *state, const char *sha256, struct err *err)
{
    _auto_(freep) char *folder = NULL;
    _auto_(freep) char *blob = NULL;
    _auto_(freep) char *bytes = NULL;
    _auto_(closep) int fd = -1;
    struct stat st;
    char hex[CODE_HEX];

    if (!is_sha256_hex(sha256)) {
        err_set(err, INVALID_ARGUMENT, "spec.codeSha256 is not the sha256 of a zip in hex");
        return NULL;
    }
    folder = xasprintf("%s/functions/%s", state, sha256);
    if (access(folder, F_OK) == 0)
        return STEAL(folder);
    blob = xasprintf("%s/blobs/sha256/%s", state, sha256);
    fd = open(blob, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > CODE_ZIP_MAX) {
        err_set(err, NOT_FOUND, "the code %.12s... is not on this machine", sha256);
        return NULL;
    }
    bytes = xmalloc((size_t)st.st_size + 1);
    for (off_t at = 0; at < st.st_size;) {
        ssize_t r = pread(fd, bytes + at, (size_t)(st.st_size - at), at);

        if (r <= 0) {
            err_sys(err, "read %s", blob);
            return NULL;
        }
        at += r;
    }
    sha256_hex(bytes, (size_t)st.st_size, hex);
    if (!streq(hex, sha256)) {
        err_set(err, IO, "the code %.12s... is damaged on disk", sha256);
        return NULL;
    }
    if (make_dirs(state, err) < 0 || unpack_as(state, sha256, bytes, (size_t)st.st_size, err) < 0)
        return NULL;
    return STEAL(folder);
}

/* ---- folder -> zip ---- */

static int zip_open(struct archive *ar, void *arg)
{
    return ARCHIVE_OK;
}

static la_ssize_t zip_write(struct archive *ar, void *arg, const void *p, size_t n)
{
    struct buf *b = arg;

    buf_add(b, p, n);
    if (b->over) {
        archive_set_error(ar, ENOSPC, "too big");
        return -1;
    }
    return (la_ssize_t)n;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int zip_add(struct archive *ar, const FTSENT *f, const char *name, struct err *err)
{
    struct archive_entry *e = archive_entry_new();
    _auto_(closep) int fd = -1;
    char piece[65536];
    ssize_t n = 0;
    int ret = 0;

    archive_entry_set_pathname(e, name);
    archive_entry_set_mtime(e, f->fts_statp->st_mtime, 0);
    archive_entry_set_perm(e, f->fts_statp->st_mode & 0111 ? 0755 : 0644);
    if (f->fts_info == FTS_SL) {
        ssize_t len = readlink(f->fts_accpath, piece, sizeof piece - 1);

        piece[MAX(len, 0)] = 0;
        archive_entry_set_filetype(e, AE_IFLNK);
        archive_entry_set_symlink(e, piece);
    } else {
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_size(e, f->fts_statp->st_size);
        fd = open(f->fts_accpath, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            ret = err_sys(err, "read %s", f->fts_path);
    }
    if (ret == 0 && archive_write_header(ar, e) != ARCHIVE_OK)
        ret = err_set(err, TOO_LARGE, "%s: %s", f->fts_path, archive_error_string(ar));
    while (ret == 0 && fd >= 0 && (n = read(fd, piece, sizeof piece)) > 0)
        if (archive_write_data(ar, piece, (size_t)n) < 0)
            ret = err_set(err, TOO_LARGE, "%s: %s", f->fts_path, archive_error_string(ar));
    if (ret == 0 && n < 0)
        ret = err_sys(err, "read %s", f->fts_path);
    archive_entry_free(e);
    return ret;
}

int code_zip_file(const char *path, char **ret_zip, size_t *ret_n, struct err *err)
{
    _auto_(archive_write_freep) struct archive *ar = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    const char *slash = strrchr(path, '/');
    struct buf out = {.max = CODE_ZIP_MAX};
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char piece[65536];
    ssize_t n = -1;
    bool good = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

    if (!good)
        err_sys(err, "read %s", path);
    archive_write_set_format_zip(ar);
    archive_write_set_bytes_per_block(ar, 65536);
    archive_write_set_bytes_in_last_block(ar, 1);
    archive_write_open(ar, &out, zip_open, zip_write, NULL);
    archive_entry_set_pathname(e, slash ? slash + 1 : path);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, good ? st.st_size : 0); /* no time: the same bytes are the same zip */
    if (good && archive_write_header(ar, e) == ARCHIVE_OK)
        while ((n = read(fd, piece, sizeof piece)) > 0 && archive_write_data(ar, piece, (size_t)n) == n)
            ;
    archive_entry_free(e);
    if (good && (n != 0 || archive_write_close(ar) != ARCHIVE_OK || out.over)) {
        err_set(err, TOO_LARGE, "%s makes a zip of more than %d bytes", path, CODE_ZIP_MAX);
        good = false;
    }
    if (!good) {
        archive_write_free(STEAL(ar)); /* before its buffer */
        buf_done(&out);
        return -1;
    }
    *ret_n = out.n;
    *ret_zip = buf_take(&out);
    return 0;
}

int code_zip_folder(const char *folder, char **ret_zip, size_t *ret_n, struct err *err)
{
    _auto_(archive_write_freep) struct archive *ar = archive_write_new();
    char *const argv[] = {(char *)folder, NULL};
    size_t prefix = strlen(folder);
    struct buf out = {.max = CODE_ZIP_MAX};
    int ret = 0, files = 0;
    FTSENT *f;
    FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, by_name);

    archive_write_set_format_zip(ar);
    archive_write_set_bytes_per_block(ar, 65536);
    archive_write_set_bytes_in_last_block(ar, 1); /* no zeros behind it */
    archive_write_open(ar, &out, zip_open, zip_write, NULL);
    while (ret == 0 && fts && (f = fts_read(fts))) {
        if (f->fts_info == FTS_D && (streq(f->fts_name, ".git") || streq(f->fts_name, "__pycache__"))) {
            fts_set(fts, f, FTS_SKIP);
        } else if (f->fts_info == FTS_NS || f->fts_info == FTS_DNR || f->fts_info == FTS_ERR) {
            errno = f->fts_errno;
            ret = err_sys(err, "read %s", f->fts_path);
        } else if (f->fts_info == FTS_F || f->fts_info == FTS_SL) {
            const char *name = f->fts_path + prefix;

            ret = zip_add(ar, f, name + strspn(name, "/"), err);
            files++;
        }
    }
    if (fts)
        fts_close(fts);
    if (ret == 0 && !files)
        ret = err_set(err, INVALID_ARGUMENT, "%s holds no files", folder);
    if (ret == 0 && (archive_write_close(ar) != ARCHIVE_OK || out.over))
        ret = err_set(err, TOO_LARGE, "%s makes a zip of more than %d bytes", folder, CODE_ZIP_MAX);
    if (ret < 0) {
        archive_write_free(STEAL(ar));
        buf_done(&out);
        return -1;
    }
    *ret_n = out.n;
    *ret_zip = buf_take(&out);
    return 0;
}

/* ---- what nobody needs ---- */

/* Not touched for keep_s: taken out of sight under the lock, then removed. */
static bool remove_old(const char *state, const char *folder, const char *name, int64_t keep_s)
{
    _auto_(freep) char *path = xasprintf("%s/%s/%s", state, folder, name);
    _auto_(freep) char *gone = xasprintf("%s/%s/.gone.%s", state, folder, name + (name[0] == '.'));
    _auto_(closep) int held = lock(state, LOCK_EX);
    struct timespec now;
    struct stat st;

    clock_gettime(CLOCK_REALTIME, &now); /* the files' clock */
    if (lstat(path, &st) < 0 || st.st_mtime + keep_s > now.tv_sec)
        return false;
    if (!str_starts(name, ".gone.") && rename(path, gone) < 0)
        return false;
    closep(&held);
    held = -1;
    remove_tree(str_starts(name, ".gone.") ? path : gone);
    return true;
}

uint32_t code_collect(const char *state, const struct map *used, struct map *idle, int64_t now_s, int64_t keep_s)
{
    static const char *const folders[] = {"blobs/sha256", "functions"};
    struct map next = {0};
    uint32_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        _auto_(freep) char *path = xasprintf("%s/%s", state, folders[i]);
        DIR *dir = opendir(path);
        struct dirent *e;

        while (dir && (e = readdir(dir))) {
            char hex[CODE_HEX];
            uintptr_t since;

            snprintf(hex, sizeof hex, "%s", e->d_name + (e->d_name[0] == '.'));
            if (e->d_name[0] == '.' && (is_sha256_hex(hex) || str_starts(e->d_name, ".gone.")))
                n += remove_old(state, folders[i], e->d_name, keep_s); /* who made it was killed at it */
            if (e->d_name[0] == '.' || !is_sha256_hex(hex) || map_get(used, hex))
                continue;
            since = (uintptr_t)map_get(idle, hex);
            since = since ? since : (uintptr_t)now_s + 1;
            if (now_s + 1 - (int64_t)since < keep_s || !remove_old(state, folders[i], e->d_name, keep_s))
                map_put(&next, hex, (void *)since);
            else
                n++;
        }
        if (dir)
            closedir(dir);
    }
    map_done(idle);
    *idle = next;
    return n;
}

void code_forget_folders(const char *state)
{
    _auto_(freep) char *path = xasprintf("%s/functions", state);
    DIR *dir = opendir(path);
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        if (!streq(e->d_name, ".") && !streq(e->d_name, "..")) {
            _auto_(freep) char *one = xasprintf("%s/%s", path, e->d_name);

            remove_tree(one);
        }
    if (dir)
        closedir(dir);
}
