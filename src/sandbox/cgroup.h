/* sandbox/cgroup.h - resource groups on cgroup v1, v2 and hybrid hosts.
 *
 * One name space for all three: a group is a path below "tandem-<instance>", for example
 * "pods/<uid>/<container>", and lies at the same place in every hierarchy of the host. On a hybrid
 * host the controllers (cpu, memory, pids) are the v1 ones and the v2 tree, which has none of them,
 * still gives kill, "is it empty" and cpu time.
 * Plain C without threads, locks or allocation: the shim (static musl) and forked children use it
 * too. Costs: docs of limits: make + limits 70 us, attach 10-20 us after cgroup_favor_dynmods(),
 * 10 ms and more without it (so fork inside the group where that could not be had). */
#pragma once

#include "base/err.h"

#include <sys/types.h>

enum cgroup_hierarchy {
    CGROUP_CPU,
    CGROUP_CPUACCT,
    CGROUP_MEMORY,
    CGROUP_PIDS,
    CGROUP_V2,
    CGROUP_HIERARCHIES
};
enum { CGROUP_PATH_MAX = 256, CGROUP_FDS = CGROUP_HIERARCHIES };

/* What this machine has. A value: copy it as you like. */
struct cgroup_host {
    char mount[CGROUP_HIERARCHIES][96]; /* where; "" = absent; two v1 controllers may share one */
    char top[48];                       /* "tandem-<instance>" */
    bool v2_controls;                   /* plain v2: limits and usage come from CGROUP_V2 */
};

/* 0 = no limit, in every field. */
struct cgroup_limits {
    int64_t memory_bytes;
    int64_t cpu_quota_us;  /* per cpu_period_us */
    int64_t cpu_period_us; /* 0 = 100,000 */
    int64_t cpu_shares;    /* v1 shares, 2..262144; on v2 turned into cpu.weight */
    int64_t pids;
};

struct cgroup_usage {
    int64_t cpu_us;
    int64_t memory_bytes; /* without the page cache that can go at once (inactive_file), as
                             kubelet's working set */
    int64_t memory_peak_bytes;
    int64_t oom_kills;
    int64_t pids;
};

/* Looks at /proc/self/mountinfo. `instance` is a short id ([0-9a-z-]). Nothing is made yet. */
int cgroup_host_init(struct cgroup_host *h, const char *instance, struct err *err);

/* Mounts what the kernel has below /sys/fs/cgroup when nothing of it is mounted there (in a mount
 * namespace with a fresh /sys, as `ip netns exec` makes). Something mounted already: does nothing.
 * Before cgroup_host_init(). */
int cgroup_mount_missing(struct err *err);

/* Once at daemon start, by a process that is still single-threaded or does not mind a short-lived
 * child: switches the kernel to cheap cgroup attaches (see limits, fact 2). false: could not, all
 * works, only slower. */
bool cgroup_favor_dynmods(void);

/* Makes the group, its parents and sets the limits. An existing group is fine (limits are set). */
int cgroup_make(const struct cgroup_host *h, const char *path, const struct cgroup_limits *limits,
                struct err *err);
int cgroup_limit(const struct cgroup_host *h, const char *path, const struct cgroup_limits *limits,
                 struct err *err);
/* Moves a process (0 = the caller) into the group in every hierarchy. */
int cgroup_attach(const struct cgroup_host *h, const char *path, pid_t pid, struct err *err);
/* The same by descriptors opened ahead (cgroup_open_attach), for a child between fork and exec:
 * no path look-ups. Unused entries are -1. cgroup_attach_fds moves the caller; 0 or errno. */
int cgroup_open_attach(const struct cgroup_host *h, const char *path, int fds[CGROUP_FDS],
                       struct err *err);
int cgroup_attach_fds(const int fds[CGROUP_FDS]);
void cgroup_close_fds(int fds[CGROUP_FDS]);
/* A directory descriptor for clone3(CLONE_INTO_CGROUP), or -1 without a v2 tree. */
int cgroup_open_v2(const struct cgroup_host *h, const char *path);

/* SIGKILL to all in the group and below it. Does not wait. */
int cgroup_kill(const struct cgroup_host *h, const char *path, struct err *err);
bool cgroup_empty(const struct cgroup_host *h, const char *path); /* an absent group is empty */
/* Waits until it is empty; false after timeout_ms. Blocks: not on a loop thread. */
bool cgroup_wait_empty(const struct cgroup_host *h, const char *path, int timeout_ms);
int cgroup_usage(const struct cgroup_host *h, const char *path, struct cgroup_usage *ret_usage,
                 struct err *err);
/* Only what is asked when somebody has ended: cpu_us, memory_peak_bytes, oom_kills. */
int cgroup_usage_end(const struct cgroup_host *h, const char *path, struct cgroup_usage *ret_usage, struct err *err);
/* CPU time of all that is or was in the group or below it; 0 when there is none such. */
int64_t cgroup_cpu_us(const struct cgroup_host *h, const char *path);
/* An empty group is to be used again: its memory peak is forgotten, and (uncap) its limit of CPU time. ret_left: memory
 * that is still charged to it. -1 when the kernel offers no way (plain v2). Counters of time and kills go on. */
int cgroup_renew(const struct cgroup_host *h, const char *path, bool uncap, int64_t *ret_left, struct err *err);
/* Removes the group and all below it; an absent one is fine. Busy (processes left) is an error. */
int cgroup_remove(const struct cgroup_host *h, const char *path, struct err *err);
/* Frozen processes get no cpu time (v1 freezer is not used: v2 tree, or NOT_IMPLEMENTED). */
int cgroup_freeze(const struct cgroup_host *h, const char *path, bool frozen, struct err *err);
