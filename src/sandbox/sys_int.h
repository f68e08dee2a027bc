/* sandbox/sys_int.h - the system calls that libcs lack or name differently, by number.
 *
 * glibc's sys/mount.h and linux/mount.h fight over the same names and musl has neither, so the few
 * constants and structs of the new mount API are spelled here once. */
#pragma once

#include "base/base.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

enum {
    X_FSOPEN_CLOEXEC = 1,
    X_FSMOUNT_CLOEXEC = 1,
    X_FSCONFIG_SET_FLAG = 0,
    X_FSCONFIG_SET_STRING = 1,
    X_FSCONFIG_CMD_CREATE = 6,
    X_OPEN_TREE_CLONE = 1,
    X_AT_RECURSIVE = 0x8000,
    X_AT_EMPTY_PATH = 0x1000,
    X_MOVE_F_EMPTY_PATH = 0x4,
    X_MOVE_T_EMPTY_PATH = 0x40,
    X_ATTR_RDONLY = 1,
    X_ATTR_NOSUID = 2,
    X_ATTR_NODEV = 4,
    X_ATTR_NOEXEC = 8,
    X_RESOLVE_NO_MAGICLINKS = 2,
    X_RESOLVE_IN_ROOT = 0x10,
};
struct x_mount_attr {
    uint64_t attr_set, attr_clr, propagation, userns_fd;
};
struct x_open_how {
    uint64_t flags, mode, resolve;
};
struct x_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};
#define X_CLONE_PIDFD 0x1000ull
#define X_CLONE_INTO_CGROUP 0x200000000ull

static inline int x_openat2(int dirfd, const char *path, int flags, uint64_t resolve)
{
    struct x_open_how how = {.flags = (uint64_t)(unsigned)flags, .resolve = resolve};

    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}
static inline int x_open_tree(int dirfd, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dirfd, path, flags);
}
static inline int x_move_mount(int from, int to_fd, const char *to, unsigned flags)
{
    return (int)syscall(SYS_move_mount, from, "", to_fd, to, flags);
}
static inline int x_mount_setattr(int fd, unsigned flags, uint64_t set, uint64_t clr,
                                  uint64_t propagation)
{
    struct x_mount_attr a = {set, clr, propagation, 0};

    return (int)syscall(SYS_mount_setattr, fd, "", flags | X_AT_EMPTY_PATH, &a, sizeof a);
}
static inline int x_close_range(unsigned from, unsigned to, unsigned flags)
{
    return (int)syscall(SYS_close_range, from, to, flags);
}
