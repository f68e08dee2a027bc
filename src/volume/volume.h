/* volume/volume.h - the files of a shared volume, which is a bucket too.
 *
 * A volume is a plain tree at STATE/volumes/NAME: pods and functions get it by a bind mount and the
 * S3 door reads and writes the same files, so there is nothing to keep in step. A key is a path below
 * the root. What S3 knows beside the bytes (ETag, content type, user metadata) lies in extended
 * attributes of the file and counts only as long as size and mtime are what they were when it was
 * written: a file that a pod changed since has an ETag of its own, made of inode, mtime and size.
 *
 * A put is seen whole or not at all: bytes go to a temporary file in ROOT/.tandem, are synced, and are
 * renamed to the key; the folder is synced before the call returns. Nothing leaves the root: paths are
 * resolved by the kernel with RESOLVE_BENEATH.
 *
 * All calls block on the disk: pool threads only. Descriptors belong to the caller. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

#include <sys/stat.h>

#define VOLUME_PRIVATE ".tandem" /* of the root: temporary files and uploads; no key begins so */
enum { VOLUME_KEY_MAX = 1024, VOLUME_ETAG_BYTES = 64 };

/* NULL: the key can be a file here; else why not. A key that ends in '/' is a folder. */
const char *volume_key_problem(const char *key);
bool volume_name_ok(const char *name); /* a volume's, and so a bucket's */

/* The root's descriptor, or -1. make: it is made (mode 0777: pods run as any user). NOT_FOUND. */
int volume_root(const char *state, const char *name, bool make, struct err *err) _must_check_;
/* Removes the tree. */
int volume_destroy(const char *state, const char *name, struct err *err) _must_check_;
/* Nothing in it but what is private? */
bool volume_empty(int root);

struct volume_info {
    int64_t size, mtime_ns;
    uint64_t inode;
    bool folder;
    char etag[VOLUME_ETAG_BYTES]; /* without quotes */
    const struct val *meta;       /* as given to volume_commit(), in the arena; NULL: none */
};
/* Opens a key for reading and tells about it. NOT_FOUND; folders only by a key that ends in '/'. */
int volume_read(int root, struct arena *a, const char *key, struct volume_info *ret, struct err *err)
    _must_check_;
int volume_stat(int root, struct arena *a, const char *key, struct volume_info *ret, struct err *err)
    _must_check_;

/* A temporary file open for reading and writing; name (NAME_MAX bytes) is its path below the root. */
enum { VOLUME_TEMP_BYTES = 64 };
int volume_temp(int root, char name[VOLUME_TEMP_BYTES], struct err *err) _must_check_;
/* The ETag of an open file: the kept one while it still holds, else one of inode, mtime and size. */
void volume_etag(int fd, const struct stat *st, char out[VOLUME_ETAG_BYTES]);
/* Keeps an ETag with the bytes as they are now; where the file system has no attributes it stays opaque. */
void volume_keep_etag(int fd, const struct stat *st, const char *etag);
/* Syncs the temporary file, attaches etag and meta (NULL: none) and renames it to the key, making folders on
 * the way. Durable when it returns 0. On failure the temporary file is gone.
 * must_be_new: ALREADY_EXISTS when the key has a file, which then stays. */
int volume_commit(int root, int fd, const char *temp, const char *key, const char *etag,
                  const struct val *meta, bool must_be_new, struct volume_info *ret, struct err *err) _must_check_;
/* mkdir -p of a key that ends in '/'. */
int volume_make_folder(int root, const char *key, struct err *err) _must_check_;
/* Removes a file (or an empty folder) and then the folders that it leaves empty. Absent is fine. *ret_was
 * (may be NULL): something was removed. */
int volume_remove(int root, const char *key, bool *ret_was, struct err *err) _must_check_;

/* Keys in the order of their bytes. With a delimiter "/" the walk does not go below the first one behind the
 * prefix: such keys come once, as a folder's name. */
struct volume_entry {
    const char *key;
    bool prefix; /* a common prefix, ends in the delimiter */
    int64_t size, mtime_ns;
    char etag[VOLUME_ETAG_BYTES];
};
struct volume_list {
    struct volume_entry *v;
    uint32_t n;
    bool more; /* cut at max */
};
/* after: only keys behind this one (NULL: from the start). What was in its folder before is skipped cheaply. */
int volume_list(int root, struct arena *a, const char *prefix, const char *delimiter, const char *after,
                uint32_t max, struct volume_list *ret, struct err *err) _must_check_;
