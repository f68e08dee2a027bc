#include "node/access.h"

#include "node/node_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct node_exec {
    struct list link;
    struct node *n;
    char *uid;
    int64_t nr; /* the shim's; 0: not started yet */
    struct node_exec_args args;
    bool forgotten;
    int early_signal;
};
static struct list EXECS = {&EXECS, &EXECS}; /* the loop's; a node process has one */

static struct ctr *find(struct node *n, const char *ns, const char *pod, const char *container,
                        struct err *err)
{
    struct pod *p = pod_by_name(n, ns, pod);
    struct ctr *c = NULL;
    const char *named;

    if (!p || !p->o) {
        err_set(err, NOT_FOUND, "pod \"%s/%s\" is not on this node", ns, pod);
        return NULL;
    }
    if (!str_empty(container)) {
        c = pod_ctr(p, container);
        if (!c)
            err_set(err, NOT_FOUND, "container \"%s\" not found in pod \"%s_%s\"", container, pod,
                    ns);
        return c;
    }
    named = obj_annotation(p->o, "kubectl.kubernetes.io/default-container");
    if (named && (c = pod_ctr(p, named)))
        return c;
    for (uint32_t i = 0; i < p->ctrs_n && !c; i++)
        if (p->ctrs[i].kind == CTR_MAIN)
            c = &p->ctrs[i];
    if (!c)
        err_set(err, NOT_FOUND, "pod \"%s/%s\" has no containers", ns, pod);
    return c;
}

int node_find(struct node *n, const char *ns, const char *pod, const char *container, bool previous,
              struct node_container *ret, struct err *err)
{
    static char log_path[4096];
    struct ctr *c = find(n, ns, pod, container, err);
    struct arena *a;

    if (!c)
        return -1;
    const struct ctr_run *r = previous ? &c->last : &c->now;
    if (previous && !c->last.there && c->state == CTR_EXITED && *c->wait_reason)
        r = &c->now; /* it waits for its next run: what it ran is the previous one */
    *ret = (struct node_container){
        .uid = c->pod->uid,
        .name = c->name,
        .running = !previous && c->state == CTR_RUNNING,
        .tty = val_bool_at(ctr_spec(c), "tty", false),
        .stdin_open = val_bool_at(ctr_spec(c), "stdin", false),
        .why = c->state == CTR_EXITED && !*c->wait_reason ? c->now.reason : c->wait_reason,
    };
    if (r->there) {
        a = arena_new();
        snprintf(log_path, sizeof log_path, "%s", ctr_log_path(a, c, r->attempt));
        arena_free(a);
        ret->log_path = log_path;
    }
    return 0;
}

/* ---- exec ---------------------------------------------------------------------------------------
 */

static void exec_free(struct node_exec *e)
{
    list_remove(&e->link);
    free(e->uid);
    free(e);
}

static void nothing(void *arg, const struct val *answer, int fd)
{
    (void)arg;
    (void)answer;
    closep(&fd);
}

static void exec_answer(void *arg, const struct val *answer, int fd)
{
    struct node_exec *e = arg;
    struct node_exec_args args = e->args;
    struct err err = {0};

    if (answer && val_bool_at(answer, "ok", false)) {
        e->nr = val_int_at(answer, "exec", 0);
        if (e->early_signal)
            node_exec_signal(e, e->early_signal);
        if (e->forgotten) {
            closep(&fd);
            exec_free(e);
            return;
        }
        args.started(args.arg, e, fd);
        return;
    }
    closep(&fd);
    slink_error(answer, &err);
    bool forgotten = e->forgotten;
    exec_free(e);
    if (!forgotten)
        args.failed(args.arg, &err);
}

int node_exec(struct node *n, const struct node_exec_args *args, struct node_exec **ret_e,
              struct err *err)
{
    struct ctr *c = find(n, args->ns, args->pod, args->container, err);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct sandbox_spec s = {0};
    struct val *v;
    char id[NAME_BYTES];
    int fds[3], nulls = -1;

    if (!c)
        return -1;
    if (c->state != CTR_RUNNING || !c->pod->shim)
        return err_set(err, CONFLICT, "container \"%s\" is not running", c->name);
    while (args->command && args->command[s.args_n])
        s.args_n++;
    if (!s.args_n)
        return err_set(err, INVALID_ARGUMENT, "no command to run");
    s.args = (const char **)(uintptr_t)args->command;
    s.tty = args->tty;
    ctr_id(c, c->now.attempt, id);
    v = slink_verb(a, "exec", id);
    val_put(a, v, "spec", sandbox_spec_write(&s, a));
    for (int i = 0; i < 3; i++) {
        fds[i] = args->stdio[i];
        if (fds[i] < 0 && !args->tty) {
            if (nulls < 0)
                nulls = open("/dev/null", O_RDWR | O_CLOEXEC);
            fds[i] = nulls;
        }
    }
    struct node_exec *e = xcalloc(1, sizeof *e);
    *e = (struct node_exec){.n = n, .uid = xstrdup(c->pod->uid), .args = *args};
    e->args.command = NULL;
    list_push(&EXECS, &e->link);
    slink_call(c->pod->shim, a, v, fds, args->tty ? 0 : 3, exec_answer, e);
    closep(&nulls);
    if (ret_e)
        *ret_e = e;
    return 0;
}

void node_exec_signal(struct node_exec *e, int sig)
{
    struct pod *p = map_get(&e->n->by_uid, e->uid);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v;

    if (!e->nr) {
        e->early_signal = sig;
        return;
    }
    if (!p || !p->shim)
        return;
    v = slink_verb(a, "signal", NULL);
    val_put_int(a, v, "exec", e->nr);
    val_put_int(a, v, "signal", sig);
    slink_call(p->shim, a, v, NULL, 0, nothing, NULL);
}

void node_exec_forget(struct node_exec *e)
{
    if (e->nr)
        exec_free(e);
    else
        e->forgotten = true; /* its answer frees it */
}

void exec_ended(struct pod *p, int64_t nr, int code)
{
    LIST_EACH (&EXECS, l) {
        struct node_exec *e = list_entry(l, struct node_exec, link);
        if (e->nr != nr || !streq(e->uid, p->uid))
            continue;
        struct node_exec_args args = e->args;
        list_remove(&e->link);
        args.exited(args.arg, e, code);
        free(e->uid);
        free(e);
        return;
    }
}

void execs_dropped(struct pod *p)
{
    bool again = true;

    while (again) { /* a callback may end others */
        again = false;
        LIST_EACH (&EXECS, l) {
            struct node_exec *e = list_entry(l, struct node_exec, link);
            if (!e->nr || !streq(e->uid, p->uid))
                continue;
            exec_ended(p, e->nr, 137);
            again = true;
            break;
        }
    }
}

/* ---- attach, resize, sockets
 * --------------------------------------------------------------------- */

struct attach_arg {
    void (*done)(void *arg, const struct err *err);
    void *arg;
};

static void attached(void *arg, const struct val *answer, int fd)
{
    struct attach_arg *w = arg;
    struct err err = {0};

    closep(&fd);
    if (answer && val_bool_at(answer, "ok", false)) {
        w->done(w->arg, NULL);
    } else {
        slink_error(answer, &err);
        w->done(w->arg, &err);
    }
    free(w);
}

int node_attach(struct node *n, const char *ns, const char *pod, const char *container,
                const int stdio[3], void (*done)(void *arg, const struct err *err), void *arg,
                struct err *err)
{
    static const char *const names[3] = {"stdin", "stdout", "stderr"};
    struct ctr *c = find(n, ns, pod, container, err);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct attach_arg *w;
    struct val *v;
    char id[NAME_BYTES];
    int fds[3], fds_n = 0;

    if (!c)
        return -1;
    if (c->state != CTR_RUNNING || !c->pod->shim)
        return err_set(err, CONFLICT, "container \"%s\" is not running", c->name);
    ctr_id(c, c->now.attempt, id);
    v = slink_verb(a, "attach", id);
    for (int i = 0; i < 3; i++)
        if (stdio[i] >= 0) {
            val_put_bool(a, v, names[i], true);
            fds[fds_n++] = stdio[i];
        }
    w = xcalloc(1, sizeof *w);
    *w = (struct attach_arg){done, arg};
    slink_call(c->pod->shim, a, v, fds, fds_n, attached, w);
    return 0;
}

int node_resize(struct node *n, const char *ns, const char *pod, const char *container, int rows,
                int cols, struct err *err)
{
    struct ctr *c = find(n, ns, pod, container, err);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v;
    char id[NAME_BYTES];

    if (!c)
        return -1;
    if (c->state != CTR_RUNNING || !c->pod->shim)
        return err_set(err, CONFLICT, "container \"%s\" is not running", c->name);
    ctr_id(c, c->now.attempt, id);
    v = slink_verb(a, "resize", id);
    val_put_int(a, v, "rows", rows);
    val_put_int(a, v, "cols", cols);
    slink_call(c->pod->shim, a, v, NULL, 0, nothing, NULL);
    return 0;
}

int node_pod_socket(struct node *n, const char *ns, const char *pod, int *ret_fd, struct err *err)
{
    struct pod *p = pod_by_name(n, ns, pod);
    char path[64];

    if (!p || !p->o || !p->shim_pid || !p->shim)
        return err_set(err, NOT_FOUND, "pod \"%s/%s\" does not run on this node", ns, pod);
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)p->shim_pid);
    _auto_(closep) int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    _auto_(closep) int pods = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0 || pods < 0)
        return err_sys(err, "open the pod's network namespace");
    /* Only this thread goes there and back; a socket stays where it was made. */
    if (setns(pods, CLONE_NEWNET) < 0)
        return err_sys(err, "join the pod's network namespace");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), sys = errno;
    int back = setns(own, CLONE_NEWNET);
    ASSERT(back == 0);
    errno = sys;
    if (fd < 0)
        return err_sys(err, "socket");
    *ret_fd = fd;
    return 0;
}
