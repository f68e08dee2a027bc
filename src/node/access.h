/* node/access.h - what the streaming server (logs, exec, attach, port-forward) asks of the pods.
 *
 * Thread: the node's loop. Names are the API's; container NULL or "" is the pod's only one, or
 * the one the annotation kubectl.kubernetes.io/default-container names, else the first. */
#pragma once

#include "base/err.h"

struct node;
struct http_req;

struct node_container { /* a snapshot; strings are good until control goes back to the loop */
    const char *uid;    /* the pod's */
    const char *name;
    const char *log_path; /* of its current (or with `previous` the last but one) run; CRI lines;
                           * rotated files are PATH.1 (newer) .. PATH.4; NULL: never ran */
    bool running, tty, stdin_open;
    const char *why; /* not running: the waiting or terminated reason, for messages */
};
/* NOT_FOUND: no such pod or container on this node; INVALID_ARGUMENT: the pod has several and none
 * is named. */
int node_find(struct node *n, const char *ns, const char *pod, const char *container, bool previous,
              struct node_container *ret, struct err *err) _must_check_;

struct node_exec;
struct node_exec_args {
    const char *ns, *pod, *container;
    const char *const *command; /* NULL-ended */
    bool tty;
    int stdio[3]; /* without tty: what the process gets as 0-2 (-1 = /dev/null); they stay the
                   * caller's, and may be closed once started() or failed() has come */
    /* Exactly one of the two comes, later. master: the terminal's master side, the callee owns it
     * (-1 without tty). */
    void (*started)(void *arg, struct node_exec *e, int master);
    void (*failed)(void *arg, const struct err *err);
    /* After started(), unless node_exec_forget(): the process ended (code 128+N for a signal); e is
     * dead. */
    void (*exited)(void *arg, struct node_exec *e, int code);
    void *arg;
};
/* -1: nothing will be called. *ret_e (may be NULL) may be forgotten at once. */
int node_exec(struct node *n, const struct node_exec_args *args, struct node_exec **ret_e,
              struct err *err) _must_check_;
void node_exec_signal(struct node_exec *e, int sig);
/* No callback any more; the process itself goes on (signal it first if it shall not). e is dead. */
void node_exec_forget(struct node_exec *e);

/* Joins a running container's streams: stdio[0] is read and written to its stdin (if it has one),
 * its output is written to stdio[1] and stdio[2] (with a tty all to [1]); -1 = not wanted. They
 * stay the caller's and may be closed when done() has come (err NULL: joined). The ends close when
 * the container ends. */
int node_attach(struct node *n, const char *ns, const char *pod, const char *container,
                const int stdio[3], void (*done)(void *arg, const struct err *err), void *arg,
                struct err *err) _must_check_;
int node_resize(struct node *n, const char *ns, const char *pod, const char *container, int rows,
                int cols, struct err *err);
/* A TCP socket (not yet connected, non-blocking, close-on-exec) inside the pod's network namespace:
 * connect it to 127.0.0.1:PORT for port-forward. The caller owns it. */
int node_pod_socket(struct node *n, const char *ns, const char *pod, int *ret_fd,
                    struct err *err) _must_check_;

/* What the streaming room gives the node: answers a request whose path it knows; false: not one of
 * its paths. */
bool node_stream_request(struct node *n, struct http_req *req);
