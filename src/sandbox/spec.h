/* sandbox/spec.h - what one isolated process tree is, as a value.
 *
 * The node fills it from a pod's container and sends it to the pod's shim as JSON; the function
 * room fills it for an instance. Strings and arrays live in the arena of who filled it. A field
 * left 0 means "nothing special" everywhere: no limit, no mount, no hostname, the caller's
 * namespace. */
#pragma once

#include "base/err.h"
#include "codec/val.h"
#include "sandbox/cgroup.h"

enum sandbox_mount_kind {
    SANDBOX_BIND,  /* source on the host -> target */
    SANDBOX_TMPFS, /* size_bytes, mode */
    SANDBOX_PROC,  /* of the process's own pid namespace */
    SANDBOX_SYSFS,
    SANDBOX_MQUEUE,
    SANDBOX_DEVPTS, /* with its own ptmx */
    SANDBOX_CGROUP, /* the group's own view, read-only unless privileged */
    SANDBOX_DEV,    /* tmpfs with null zero full random urandom tty, links, pts, shm, mqueue */
    SANDBOX_MOUNT_KINDS
};
struct sandbox_mount {
    int64_t kind;       /* enum sandbox_mount_kind */
    const char *source; /* BIND: an absolute host path */
    const char
        *sub_path; /* BIND: below source, symlinks cannot leave it; made as directory when absent */
    const char *target; /* absolute, inside the root */
    bool read_only, recursive, no_exec, no_suid, no_dev;
    bool propagate;     /* BIND: later mounts of the host show (HostToContainer) */
    bool optional;      /* BIND: a source that is not there is skipped */
    int64_t size_bytes; /* TMPFS; 0 = kernel's default (half the memory) */
    int64_t mode;       /* TMPFS; 0 = 01777 */
};

struct sandbox_rlimit {
    int64_t resource; /* RLIMIT_NOFILE ... */
    int64_t soft, hard;
};
struct sandbox_device { /* a host device node shown under /dev (or elsewhere) */
    const char *source, *target;
};

enum sandbox_stdio {
    SANDBOX_STDIO_INHERIT, /* descriptors 0-2 that the starter is handed */
    SANDBOX_STDIO_LOG,     /* shim: pipes into log_path */
    SANDBOX_STDIO_NULL,
};

struct sandbox_spec {
    const char *id;   /* unique in its pod: "<container>.<attempt>" */
    const char *name; /* the container's name, for messages */

    /* root: overlay of lower[] (first = top) with upper/work, or the plain directory `root` */
    const char **lower;
    uint32_t lower_n;
    const char *upper, *work; /* NULL: no writable layer; made when absent */
    const char *root; /* where it is mounted (a directory, made when absent); with lower_n == 0 the
                       * root itself */
    bool read_only_root;
    struct sandbox_mount *mounts; /* in order */
    uint32_t mounts_n;
    const char **masked; /* paths inside; sandbox_default_paths() gives the usual ones */
    uint32_t masked_n;
    const char **read_only; /* paths inside */
    uint32_t read_only_n;
    struct sandbox_device *devices;
    uint32_t devices_n;

    /* process */
    const char **args;
    uint32_t args_n;
    const char **env; /* "NAME=value" */
    uint32_t env_n;
    const char *cwd;  /* NULL: "/"; made when absent */
    const char *user; /* as in an image: "name", "uid", "uid:gid", "name:group"; looked up inside;
                         NULL: uid, gid */
    int64_t uid, gid;
    bool gid_set;    /* gid counts even when `user` is given */
    int64_t *groups; /* supplementary */
    uint32_t groups_n;
    int64_t caps; /* bits; sandbox/caps.h */
    bool no_new_privs, seccomp, privileged;
    struct sandbox_rlimit *rlimits;
    uint32_t rlimits_n;
    int64_t oom_score_adj;
    int64_t umask;        /* 0 = 022 */
    const char *hostname; /* only with new_uts */
    const char **sysctls; /* "net.core.somaxconn=1024": written in the new namespaces */
    uint32_t sysctls_n;

    /* namespaces: a path (/proc/N/ns/x or a pinned file) to join, else new_x for a fresh one, else
     * the starter's. The mount namespace is always fresh. */
    const char *net_ns, *ipc_ns, *uts_ns, *pid_ns;
    bool new_net, new_ipc, new_uts, new_pid, new_cgroup;

    /* resources: a path for sandbox/cgroup.h; NULL = stay in the starter's group */
    const char *cgroup;
    struct cgroup_limits limits;

    /* streams */
    int64_t stdio;        /* enum sandbox_stdio */
    const char *log_path; /* CRI lines: "2026-01-02T03:04:05.000000006Z stdout F text" */
    int64_t log_max_bytes, log_files; /* rotation: 0 = 10 MiB, 5 */
    bool tty, stdin_open, stdin_once;
    const char *
        termination_log; /* host path of the file the container writes its last words to, or NULL */
};

/* The tree (in the arena) of a spec, and back; unknown members are ignored. */
struct val *sandbox_spec_write(const struct sandbox_spec *s, struct arena *a);
int sandbox_spec_read(struct sandbox_spec *ret_s, const struct val *v, struct arena *a,
                      struct err *err);

/* The usual masked and read-only paths below /proc and /sys, and the usual mounts (/proc, /dev,
 * /dev/pts, /dev/shm, /dev/mqueue, /sys read-only, /sys/fs/cgroup) put into the spec. */
void sandbox_spec_defaults(struct sandbox_spec *s, struct arena *a);
