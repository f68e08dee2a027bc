/* sandbox/shim.h - talking to a pod's shim.
 *
 * One static single-threaded process per pod: it holds the pod's namespaces, starts its containers,
 * copies their output into CRI log files, reaps them, and keeps what became of them in
 * DIR/shim.json. It outlives every other part: whoever connects to DIR/shim.sock sees all of it.
 *
 * Wire: SOCK_SEQPACKET, one JSON document a message, descriptors as SCM_RIGHTS. A request is
 * {"id":N,"do":VERB,...}, its answer {"id":N,"ok":true,...} or
 * {"id":N,"ok":false,"error":TEXT,"sys":ERRNO}; news are {"event":NAME,...} to everybody who is
 * connected. Verbs: hello                                  ->
 * {"pid","pod":{...},"containers":[STATE...]} start   {"spec":{...}}                 -> STATE
 *   signal  {"container","signal"[,"all"]} -> {}          (all: the whole group)
 *   exec    {"container","spec":{args,env,cwd,user,tty}} + fds stdin stdout stderr (tty: none)
 *                                          -> {"exec":N,"pid":P} (+ fd: the pty's master when tty)
 *   attach  {"container","stdin":bool} + fd of a stream socket or pipe pair (out, err[, in]) -> {}
 *   resize  {"container","rows","cols"}    -> {}
 *   remove  {"container"}                  -> {}          (only one that is not running)
 *   rotate/flush are automatic
 *   stop    {}                             -> {}          kills everything, removes groups, leaves
 * Events: exit {"container", STATE}, exec-exit {"exec":N,"code":C}.
 * STATE:
 * {"id","name","state":"running"|"exited","pid","started_ns","finished_ns","code","signal","oom"}
 */
#pragma once

#include "base/err.h"
#include "codec/val.h"

#include <sys/types.h>

enum { SHIM_FDS_MAX = 4, SHIM_MESSAGE_MAX = 4 << 20 };

struct shim_message {
    const char *text; /* in the arena of shim_recv */
    size_t n;
    int fds[SHIM_FDS_MAX]; /* the receiver closes them */
    int fds_n;
};

/* log_path (NULL: none): what it has to say, appended. Starts DIR's shim (posix_spawn: fine from
 * threaded programs) in its own session. `pod` is its configuration:
 * {"instance","uid","net_ns","hostname","host_ipc","share_pid","cgroup"...}. Returns once the
 * socket takes connections. */
int shim_spawn(const char *binary, const char *dir, const char *log_path, const struct val *pod,
               int *ret_fd, pid_t *ret_pid, struct err *err);
int shim_connect(const char *dir, int *ret_fd, struct err *err); /* UNAVAILABLE: nobody there */
int shim_send(int fd, const struct val *v, const int *fds, int fds_n, struct err *err);
/* One message; *ret_v in the arena. 0, or -1: UNAVAILABLE = closed, TIMEOUT = would block. */
int shim_recv(int fd, struct arena *a, struct val **ret_v, struct shim_message *ret_m,
              struct err *err);
