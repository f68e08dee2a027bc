/* sandbox/mnt.h - mounts for a root that is being built, by the new mount API.
 *
 * Targets are resolved inside the root (openat2 RESOLVE_IN_ROOT): a symlink in an image cannot lead
 * a mount out of it. Missing targets are made. All act in the caller's mount namespace.
 * Plain C; single-threaded callers (shim, zygote children). */
#pragma once

#include "base/err.h"

#include <sys/types.h>

struct sandbox_mount;

/* After CLONE_NEWNS / unshare: nothing we mount goes back, what the host mounts later comes in
 * (slave) or does not (private). */
int mnt_detach_propagation(bool slave, struct err *err);
/* A detached overlay (fd for mnt_move), lower[0] is the top layer. upper == NULL: read-only. Made
 * ahead it costs nothing on the start path. */
int mnt_overlay_fd(const char *const lower[], size_t lower_n, const char *upper, const char *work,
                   struct err *err);
/* A detached copy of a directory or file as a bind mount. flags: MOUNT_ATTR_*. */
int mnt_bind_fd(int dirfd, const char *source, bool recursive, uint64_t attr, struct err *err);
/* A detached new file system: type "tmpfs", "proc", ...; options "size=1m,mode=755". */
int mnt_fs_fd(const char *type, const char *options, uint64_t attr, struct err *err);
/* Attaches a detached mount at `target` below root_fd (made when absent: a directory, or an empty
 * file when `file`). Closes mount_fd, also on failure. */
int mnt_move(int mount_fd, int root_fd, const char *target, bool file, struct err *err);
int mnt_move_path(int mount_fd, const char *path, struct err *err); /* at a plain host path */
/* Opens/makes a place below root_fd (O_PATH). */
int mnt_open_in(int root_fd, const char *path, bool make, bool file, struct err *err);
/* One entry of a spec (sandbox/spec.h). */
int mnt_apply(int root_fd, const struct sandbox_mount *m, struct err *err);
/* Makes root_path (a mount point) the root of this mount namespace and lets the old one go. */
int mnt_pivot(const char *root_path, struct err *err);
int mnt_mask(const char *path,
             struct err *err); /* /dev/null or an empty tmpfs over it; absent is fine */
/* The same for many paths: *empty_fd (-1 at first, the caller closes it) is copied for each
 * directory. */
int mnt_mask_with(const char *path, int *empty_fd, struct err *err);
int mnt_read_only(const char *path, struct err *err); /* as it is, but read-only; absent is fine */
