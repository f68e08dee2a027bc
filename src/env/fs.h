/* env/fs.h - the few file operations that every room needs, each right once. Blocking: on the
 * loop only for small local files. Paths are not interpreted; errors carry the path. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <sys/types.h>

/* The whole file (free() it), with a 0 behind the last byte; TOO_LARGE above max_bytes. */
char *fs_read(const char *path, size_t max_bytes, size_t *ret_n, struct err *err) _must_check_;
/* Replaces the file as one step that survives a power loss: temporary file beside it, fsync,
 * rename, fsync of the folder. After an error the old file is still there, whole. */
int fs_write(const char *path, const void *p, size_t n, mode_t mode, struct err *err) _must_check_;
/* As fs_write without the fsyncs: whole for every reader, but may be gone after a power loss. */
int fs_write_fast(const char *path, const void *p, size_t n, mode_t mode, struct err *err) _must_check_;
int fs_mkdirs(const char *path, mode_t mode, struct err *err) _must_check_; /* and its parents; there is fine */
bool fs_exists(const char *path);
/* What a file looked like the last time; zeroed: it was never looked at. */
struct fs_mark {
    int64_t s, ns, size, inode;
};
/* Has the file (links followed) another time, size or inode than at the last call? What is not there is
 * no change: it may be just being replaced. */
bool fs_changed(const char *path, struct fs_mark *m);
/* Removes a file or a folder with all in it; follows no links, crosses no mounts; absent is fine. */
int fs_remove_tree(const char *path, struct err *err);
int fs_sync_dir(const char *path, struct err *err);
/* Writes all of it, over EINTR and short writes. */
int fs_write_all(int fd, const void *p, size_t n, struct err *err) _must_check_;
