/* sandbox/start.h - from a spec to a running process.
 *
 * For single-threaded callers only (shim, zygote, tests): a child is cloned and works on before it
 * execs. Threaded parts talk to a shim (sandbox/shim.h).
 * What a step may refuse comes back as text in err; err.sys says which form:
 * ENOENT/ENOTDIR at exec = "no such file" (exit code 127), EACCES/ENOEXEC = 126, others 128. */
#pragma once

#include "sandbox/spec.h"

struct sandbox_child {
    pid_t pid;  /* seen from the caller's pid namespace */
    int pid_fd; /* CLONE_PIDFD; the owner closes it */
    int master; /* with spec->tty: the master side of the terminal, else -1; the owner closes it */
};

/* Clones into the spec's namespaces and group, enters and execs. stdio[3]: descriptors for 0-2 (-1
 * = /dev/null); they stay the caller's. host may be NULL when spec->cgroup is. Returns when exec
 * has happened or failed. */
int sandbox_start(const struct cgroup_host *host, const struct sandbox_spec *s, const int stdio[3],
                  struct sandbox_child *ret_child, struct err *err);

/* The parts of it, for a child that was cloned otherwise (a forked function instance):
 * sandbox_clone: clone3 with the spec's new_* namespaces (+ NEWNS) and group; like fork(): 0 in the
 * child. sandbox_enter: in the child: joins namespaces, builds the root, pivots, ids, capabilities,
 * limits, seccomp. After it the process is inside for good. On failure the child must _exit.
 * sandbox_exec: looks args[0] up in PATH and replaces the process. */
pid_t sandbox_clone(const struct cgroup_host *host, const struct sandbox_spec *s, int *ret_pid_fd,
                    struct err *err);
int sandbox_enter(const struct cgroup_host *host, const struct sandbox_spec *s, struct err *err);
int sandbox_exec(const struct sandbox_spec *s, struct err *err);

/* A further process in a running one's namespaces and group (kubectl exec): `what` is what to run
 * (args, env, cwd, user, caps, tty, cgroup; mounts and namespaces are not looked at), target_pid_fd
 * whose namespaces. stdio as above; with tty, ret_child->master. */
int sandbox_exec_in(const struct cgroup_host *host, int target_pid_fd,
                    const struct sandbox_spec *what, const int stdio[3],
                    struct sandbox_child *ret_child, struct err *err);
