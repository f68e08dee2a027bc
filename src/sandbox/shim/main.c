/* The shim of one pod: see sandbox/shim.h for what it promises and the wire.
 *
 * One thread, one epoll set. Everything in it is a `struct src` (a descriptor with a function).
 * Descriptor 3 is the listening socket, 4 the pod's configuration, argv[1] the pod's directory:
 *   {"instance","uid","net_ns","hostname","host_net","host_ipc","host_pid","share_pid","cgroup",
 *    "limits":{...},"sysctls":[...]}
 * shim.json there is what became of the containers, rewritten at each change.
 *
 * Only kill -9 ends it before "stop"; the containers then end with it (parent death signal), and
 * the node sees the closed connection. */
#include "base/arena.h"
#include "base/list.h"
#include "base/log.h"
#include "codec/json.h"
#include "sandbox/sys_int.h"
#include "sandbox/shim.h"
#include "sandbox/shim/crilog.h"
#include "sandbox/start.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { LISTEN_FD = 3, POD_FD = 4, CONTAINERS_MAX = 256, ATTACH_PENDING_MAX = 256 << 10 };

struct src {
    int fd;
    uint32_t want; /* epoll events now asked for; 0 = not in the set */
    void (*ready)(struct src *s, uint32_t events);
};

struct attach { /* somebody looks at a container's streams */
    struct list link;
    struct container *c;
    struct src in, out, err;
    struct buf pending[2];
    bool ended;
};

struct container {
    struct list link;
    struct arena *arena; /* the spec */
    struct sandbox_spec spec;
    bool running;
    pid_t pid;
    int pid_fd;
    int64_t started_ns, finished_ns, cpu_us, memory_peak;
    int code, signal;
    bool oom;
    struct src out[2]; /* stdout, stderr; with a tty only [0], the master */
    int in;            /* write end of its stdin, the master with a tty, or -1 */
    struct crilog log;
    struct crilog_stream stream[2];
    struct list attached;
    bool stalled; /* a reader of ours is slow: its output waits */
};

struct exec {
    struct list link;
    int64_t nr;
    pid_t pid;
    int pid_fd;
    struct container *c;
};

struct client {
    struct list link;
    struct src src;
    bool dead;
};

static struct {
    const char *dir;
    struct arena *arena; /* the pod */
    struct val *pod;
    struct cgroup_host host;
    char *group, *pid_ns;
    struct err setup; /* why nothing can start here; code OK = it can */
    int ep;
    struct src listener, signals;
    struct list containers, execs, clients;
    struct list graves; /* clients, attaches and containers to free after this turn */
    int64_t exec_nr;
    int state_fd; /* shim.json */
    size_t state_bytes;
    bool leaving;
} S = {.state_fd = -1};

/* ---- descriptors --------------------------------------------------------------------------- */

static void src_want(struct src *s, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = s};

    if (s->fd < 0 || s->want == events)
        return;
    if (!s->want)
        epoll_ctl(S.ep, EPOLL_CTL_ADD, s->fd, &e);
    else
        epoll_ctl(S.ep, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, s->fd, &e);
    s->want = events;
}

static void src_close(struct src *s)
{
    if (s->fd < 0)
        return;
    src_want(s, 0);
    close(s->fd);
    s->fd = -1;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- what is told -------------------------------------------------------------------------- */

static struct val *state_of(const struct container *c, struct arena *a)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "id", c->spec.id);
    val_put_str(a, v, "name", c->spec.name ? c->spec.name : "");
    val_put_str(a, v, "state", c->running ? "running" : "exited");
    val_put_int(a, v, "pid", c->pid);
    val_put_int(a, v, "started_ns", c->started_ns);
    if (!c->running) {
        val_put_int(a, v, "finished_ns", c->finished_ns);
        val_put_int(a, v, "code", c->code);
        val_put_int(a, v, "signal", c->signal);
        val_put_bool(a, v, "oom", c->oom);
        val_put_int(a, v, "cpu_us", c->cpu_us);
        val_put_int(a, v, "memory_peak", c->memory_peak);
    }
    return v;
}

static struct val *all_states(struct arena *a)
{
    struct val *list = val_list(a);

    LIST_EACH (&S.containers, l)
        val_push(a, list, state_of(list_entry(l, struct container, link), a));
    return list;
}

/* In place, as one write: kill -9 leaves the old or the new text. What the old one had more is
 * overwritten with blanks, which JSON does not mind. */
static void save(void)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct buf text = {0};
    struct val *v = val_map(a);
    char path[600];
    size_t n;

    val_put(a, v, "pod", S.pod);
    val_put(a, v, "containers", all_states(a));
    json_write(&text, v);
    n = text.n;
    while (text.n < S.state_bytes)
        buf_addc(&text, ' ');
    S.state_bytes = n;
    if (S.state_fd < 0) {
        snprintf(path, sizeof path, "%s/shim.json", S.dir);
        S.state_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    if (S.state_fd < 0 || pwrite(S.state_fd, text.p, text.n, 0) != (ssize_t)text.n)
        LOG(WARN, "shim", "did=save err=\"%s\" then=\"kept in memory only\"", strerror(errno));
    buf_done(&text);
}

static void client_close(struct client *c)
{
    if (c->dead)
        return;
    c->dead = true;
    src_close(&c->src);
    list_remove(&c->link);
    list_push(&S.graves, &c->link);
}

static void tell(struct client *c, const struct val *v, const int *fds, int n)
{
    struct err err = {0};

    if (shim_send(c->src.fd, v, fds, n, &err) < 0)
        client_close(c); /* gone or not reading: it asks for the state when it is back */
}

static void tell_all(const struct val *v)
{
    LIST_EACH (&S.clients, l)
        tell(list_entry(l, struct client, link), v, NULL, 0);
}

static struct container *find(const char *id)
{
    LIST_EACH (&S.containers, l) {
        struct container *c = list_entry(l, struct container, link);
        if (streq0(c->spec.id, id))
            return c;
    }
    return NULL;
}

/* ---- streams ------------------------------------------------------------------------------- */

static void streams_pause(struct container *c)
{
    bool slow = false;

    LIST_EACH (&c->attached, l) {
        struct attach *at = list_entry(l, struct attach, link);
        slow |= at->pending[0].n > ATTACH_PENDING_MAX || at->pending[1].n > ATTACH_PENDING_MAX;
    }
    if (slow == c->stalled)
        return;
    c->stalled = slow;
    for (int i = 0; i < 2; i++)
        src_want(&c->out[i], slow ? 0 : EPOLLIN);
}

static void attach_end(struct attach *at)
{
    if (at->ended)
        return;
    at->ended = true;
    src_close(&at->in);
    src_close(&at->out);
    src_close(&at->err);
    buf_done(&at->pending[0]);
    buf_done(&at->pending[1]);
    list_remove(&at->link);
    list_push(&S.graves, &at->link);
}

static void attach_flush(struct attach *at, int i)
{
    struct src *s = i ? &at->err : &at->out;
    struct buf *b = &at->pending[i];

    while (b->n && s->fd >= 0) {
        ssize_t n = write(s->fd, b->p, b->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            src_close(s);
            buf_reset(b);
            break;
        }
        if (n < 0)
            break;
        buf_eat(b, (size_t)n);
    }
    src_want(s, b->n ? EPOLLOUT : 0);
    /* The container is over and all of it is delivered: the end of the stream tells so. */
    if (!at->c->running && !b->n)
        src_close(s);
    if (!at->c->running && at->out.fd < 0 && at->err.fd < 0)
        attach_end(at);
}

static void attach_out_ready(struct src *s, uint32_t events)
{
    struct attach *at = container_of(s, struct attach, out);

    (void)events;
    attach_flush(at, 0);
    streams_pause(at->c);
}

static void attach_err_ready(struct src *s, uint32_t events)
{
    struct attach *at = container_of(s, struct attach, err);

    (void)events;
    attach_flush(at, 1);
    streams_pause(at->c);
}

/* One piece of input; the container's pipe is written blocking-free, so a container that does not
 * read leaves the rest with the sender. */
static void attach_in_ready(struct src *s, uint32_t events)
{
    struct attach *at = container_of(s, struct attach, in);
    struct container *c = at->c;
    char piece[4096];
    ssize_t n;
    size_t done = 0;

    (void)events;
    n = read(s->fd, piece, sizeof piece);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        src_close(s);
        if (c->spec.stdin_once && !c->spec.tty && c->in >= 0) {
            close(c->in);
            c->in = -1;
        }
        return;
    }
    while (done < (size_t)n && c->in >= 0) {
        ssize_t w = write(c->in, piece + done, (size_t)n - done);
        if (w < 0 && errno == EAGAIN) {
            struct timespec nap = {0, 1000000}; /* full pipe: rare, and never for long on a tty */
            nanosleep(&nap, NULL);
            if (!c->running)
                break;
            if (waitpid(c->pid, NULL, WNOHANG | WNOWAIT) != 0)
                break;
            continue;
        }
        if (w <= 0)
            break;
        done += (size_t)w;
    }
}

static bool stream_read(struct container *c, int i) /* false: nothing more now */
{
    static char piece[65536];
    ssize_t n = read(c->out[i].fd, piece, sizeof piece);

    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) { /* EIO: the last holder of a tty is gone */
        src_close(&c->out[i]);
        if (c->spec.tty)
            c->in = -1;
        crilog_end(&c->log, &c->stream[i]);
        return false;
    }
    crilog_write(&c->log, &c->stream[i], piece, (size_t)n);
    LIST_EACH (&c->attached, l) {
        struct attach *at = list_entry(l, struct attach, link);
        if ((i ? at->err.fd : at->out.fd) < 0)
            continue;
        buf_add(&at->pending[i], piece, (size_t)n);
        attach_flush(at, i);
    }
    streams_pause(c);
    return !c->stalled && (size_t)n == sizeof piece;
}

static void stdout_ready(struct src *s, uint32_t events)
{
    (void)events;
    (void)stream_read(container_of(s, struct container, out[0]), 0);
}

static void stderr_ready(struct src *s, uint32_t events)
{
    (void)events;
    (void)stream_read(container_of(s, struct container, out[1]), 1);
}

/* ---- containers ---------------------------------------------------------------------------- */

static void container_free(struct container *c)
{
    LIST_EACH (&c->attached, l)
        attach_end(list_entry(l, struct attach, link));
    for (int i = 0; i < 2; i++) {
        if (c->spec.tty && c->in == c->out[i].fd)
            c->in = -1;
        src_close(&c->out[i]);
        buf_done(&c->stream[i].line);
    }
    closep(&c->in);
    closep(&c->pid_fd);
    crilog_close(&c->log);
    list_remove(&c->link);
    list_push(&S.graves, &c->link); /* an event of this turn may still point at it */
    c->arena = arena_free(c->arena);
}

/* What the pod decides for all its containers. */
static void apply_pod(struct sandbox_spec *s)
{
    if (S.pid_ns)
        s->pid_ns = S.pid_ns;
    else if (!val_bool_at(S.pod, "host_pid", false))
        s->new_pid = true;
    s->new_cgroup = true;
}

static void nonblock(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* Pipes for 0-2: child[] goes to the container, mine[] stays. */
static int open_streams(struct container *c, int child[3], struct err *err)
{
    int p[2];

    child[0] = child[1] = child[2] = -1;
    if (c->spec.tty || c->spec.stdio != SANDBOX_STDIO_LOG)
        return 0;
    if (c->spec.stdin_open) {
        if (pipe2(p, O_CLOEXEC) < 0)
            return err_sys(err, "pipe");
        child[0] = p[0];
        c->in = p[1];
        nonblock(c->in);
    }
    for (int i = 0; i < 2; i++) {
        if (pipe2(p, O_CLOEXEC) < 0)
            return err_sys(err, "pipe");
        c->out[i].fd = p[0];
        child[1 + i] = p[1];
        nonblock(p[0]);
    }
    return 0;
}

static void watch_streams(struct container *c, int master)
{
    if (c->spec.tty) {
        nonblock(master);
        c->out[0].fd = c->in = master;
    }
    for (int i = 0; i < 2; i++)
        src_want(&c->out[i], EPOLLIN);
}

static int container_start(const struct val *spec, struct container **ret_c, struct err *err)
{
    struct container *c, *old;
    struct sandbox_child child;
    struct sandbox_spec s;
    struct arena *arena = arena_new();
    int fds[3];

    if (sandbox_spec_read(&s, spec, arena, err) < 0 ||
        (str_empty(s.id) && err_set(err, INVALID_ARGUMENT, "a spec without id") < 0)) {
        arena_free(arena);
        return -1;
    }
    old = find(s.id);
    if (old && old->running) {
        arena_free(arena);
        return err_set(err, ALREADY_EXISTS, "container %s runs already", s.id);
    }
    if (old)
        container_free(old);
    apply_pod(&s);
    c = xcalloc(1, sizeof *c);
    *c = (struct container){.arena = arena, .spec = s, .pid_fd = -1, .in = -1};
    c->out[0] = (struct src){.fd = -1, .ready = stdout_ready};
    c->out[1] = (struct src){.fd = -1, .ready = stderr_ready};
    c->stream[0].name = "stdout";
    c->stream[1].name = "stderr";
    list_init(&c->attached);
    list_push(&S.containers, &c->link);
    crilog_open(&c->log, s.log_path, s.log_max_bytes, (int)s.log_files);

    int bad = open_streams(c, fds, err);
    if (bad == 0 && s.cgroup)
        bad = cgroup_make(&S.host, s.cgroup, &s.limits, err);
    if (bad == 0)
        bad = sandbox_start(&S.host, &c->spec, fds, &child, err);
    for (int i = 0; i < 3; i++)
        closep(&fds[i]);
    if (bad < 0) {
        struct err ignored = {0};
        if (s.cgroup)
            (void)cgroup_remove(&S.host, s.cgroup, &ignored);
        container_free(c);
        return -1;
    }
    c->running = true;
    c->pid = child.pid;
    c->pid_fd = child.pid_fd;
    c->started_ns = now_ns();
    watch_streams(c, child.master);
    *ret_c = c;
    return 0;
}

static void container_exited(struct container *c, int status)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct cgroup_usage u = {0};
    struct err err = {0};
    struct val *v;

    c->running = false;
    c->finished_ns = now_ns();
    c->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    c->code = WIFSIGNALED(status) ? 128 + c->signal : WEXITSTATUS(status);
    if (c->spec.cgroup) {
        /* Without a pid namespace of its own, what it left behind goes with it. */
        (void)cgroup_kill(&S.host, c->spec.cgroup, &err);
        if (cgroup_usage(&S.host, c->spec.cgroup, &u, &err) == 0) {
            c->oom = u.oom_kills > 0 && c->code != 0;
            c->cpu_us = u.cpu_us;
            c->memory_peak = u.memory_peak_bytes;
        }
        if (cgroup_wait_empty(&S.host, c->spec.cgroup, 200))
            (void)cgroup_remove(&S.host, c->spec.cgroup, &err);
    }
    c->stalled = false;
    for (int i = 0; i < 2; i++) {
        while (c->out[i].fd >= 0 && stream_read(c, i))
            ;
        if (c->out[i].fd >= 0) {
            if (c->in == c->out[i].fd)
                c->in = -1;
            src_close(&c->out[i]);
            crilog_end(&c->log, &c->stream[i]);
        }
    }
    closep(&c->in);
    c->in = -1;
    closep(&c->pid_fd);
    c->pid_fd = -1;
    crilog_close(&c->log);
    LIST_EACH (&c->attached, l) {
        struct attach *at = list_entry(l, struct attach, link);
        src_close(&at->in);
        for (int i = 0; i < 2 && !at->ended; i++)
            attach_flush(at, i);
    }
    save(); /* first kept, then told: who hears of it may rely on it */
    v = state_of(c, a);
    val_put_str(a, v, "event", "exit");
    val_put_str(a, v, "container", c->spec.id);
    tell_all(v);
}

static void exec_exited(struct exec *e, int status)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);

    val_put_str(a, v, "event", "exec-exit");
    val_put_int(a, v, "exec", e->nr);
    val_put_int(a, v, "code", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    tell_all(v);
    list_remove(&e->link);
    closep(&e->pid_fd);
    free(e);
}

static void signals_ready(struct src *s, uint32_t events)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    (void)events;
    while (read(s->fd, &info, sizeof info) == sizeof info)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        LIST_EACH (&S.containers, l) {
            struct container *c = list_entry(l, struct container, link);
            if (c->running && c->pid == pid)
                container_exited(c, status);
        }
        LIST_EACH (&S.execs, l) {
            struct exec *e = list_entry(l, struct exec, link);
            if (e->pid == pid)
                exec_exited(e, status);
        }
    }
}

/* ---- verbs --------------------------------------------------------------------------------- */

struct call {
    struct client *client;
    struct arena *a;
    const struct val *ask;
    struct shim_message *m;
    struct val *answer;
    int fd; /* goes with the answer and is closed then; -1 none */
    bool changed;
    struct err *err;
};

static struct container *need(struct call *q, bool running)
{
    const char *id = val_str_at(q->ask, "container", "");
    struct container *c = find(id);

    if (!c) {
        err_set(q->err, NOT_FOUND, "no container %s here", id);
        return NULL;
    }
    if (running && !c->running) {
        err_set(q->err, CONFLICT, "container %s is not running", id);
        return NULL;
    }
    return c;
}

static int do_hello(struct call *q)
{
    val_put_int(q->a, q->answer, "pid", getpid());
    val_put(q->a, q->answer, "pod", S.pod);
    val_put(q->a, q->answer, "containers", all_states(q->a));
    return 0;
}

static int do_start(struct call *q)
{
    struct container *c;

    if (S.setup.code != ERR_OK) {
        *q->err = S.setup;
        return -1;
    }
    if (container_start(val_get(q->ask, "spec"), &c, q->err) < 0)
        return -1;
    val_put(q->a, q->answer, "container", state_of(c, q->a));
    q->changed = true;
    return 0;
}

static int do_signal(struct call *q)
{
    int sig = (int)val_int_at(q->ask, "signal", SIGTERM);
    int64_t nr = val_int_at(q->ask, "exec", 0);
    struct container *c;

    if (nr) {
        LIST_EACH (&S.execs, l) {
            struct exec *e = list_entry(l, struct exec, link);
            if (e->nr == nr)
                (void)syscall(SYS_pidfd_send_signal, e->pid_fd, sig, NULL, 0);
        }
        return 0;
    }
    if (!(c = need(q, false)))
        return -1;
    if (!c->running)
        return 0;
    if (val_bool_at(q->ask, "all", false) && c->spec.cgroup && sig == SIGKILL)
        return cgroup_kill(&S.host, c->spec.cgroup, q->err);
    if (syscall(SYS_pidfd_send_signal, c->pid_fd, sig, NULL, 0) < 0 && errno != ESRCH)
        return err_sys(q->err, "signal %d", sig);
    return 0;
}

static int do_exec(struct call *q)
{
    struct container *c = need(q, true);
    struct sandbox_spec ask = {0}, what;
    struct sandbox_child child;
    int fds[3] = {-1, -1, -1};
    uint32_t n = 0;

    if (!c || sandbox_spec_read(&ask, val_get(q->ask, "spec"), q->a, q->err) < 0)
        return -1;
    what = c->spec;
    what.args = ask.args;
    what.args_n = ask.args_n;
    what.tty = ask.tty;
    what.sysctls_n = 0;
    if (ask.user)
        what.user = ask.user;
    if (ask.cwd)
        what.cwd = ask.cwd;
    what.env = arena_array(q->a, const char *, c->spec.env_n + ask.env_n + 1);
    for (uint32_t i = 0; i < c->spec.env_n; i++)
        what.env[n++] = c->spec.env[i];
    for (uint32_t i = 0; i < ask.env_n; i++)
        what.env[n++] = ask.env[i];
    what.env_n = n;
    for (int i = 0; i < 3 && i < q->m->fds_n; i++)
        fds[i] = q->m->fds[i];
    if (sandbox_exec_in(&S.host, c->pid_fd, &what, fds, &child, q->err) < 0)
        return -1;
    struct exec *e = xcalloc(1, sizeof *e);
    *e = (struct exec){.nr = ++S.exec_nr, .pid = child.pid, .pid_fd = child.pid_fd, .c = c};
    list_push(&S.execs, &e->link);
    val_put_int(q->a, q->answer, "exec", e->nr);
    val_put_int(q->a, q->answer, "pid", e->pid);
    q->fd = child.master;
    return 0;
}

static int do_attach(struct call *q)
{
    struct container *c = need(q, true);
    struct attach *at;
    int *fds = q->m->fds, n = 0, left = q->m->fds_n;
    static const char *const names[3] = {"stdin", "stdout", "stderr"};

    if (!c)
        return -1;
    at = xcalloc(1, sizeof *at);
    at->c = c;
    at->in = (struct src){.fd = -1, .ready = attach_in_ready};
    at->out = (struct src){.fd = -1, .ready = attach_out_ready};
    at->err = (struct src){.fd = -1, .ready = attach_err_ready};
    struct src *srcs[3] = {&at->in, &at->out, &at->err};
    for (int i = 0; i < 3; i++) {
        if (!val_bool_at(q->ask, names[i], false) || n >= left)
            continue;
        nonblock(fds[n]);
        srcs[i]->fd = STEAL_FD(fds[n]);
        n++;
    }
    list_push(&c->attached, &at->link);
    if (c->in >= 0)
        src_want(&at->in, EPOLLIN);
    return 0;
}

static int do_resize(struct call *q)
{
    struct container *c = need(q, true);
    struct winsize w = {.ws_row = (unsigned short)val_int_at(q->ask, "rows", 24),
                        .ws_col = (unsigned short)val_int_at(q->ask, "cols", 80)};

    if (!c)
        return -1;
    if (!c->spec.tty || c->in < 0)
        return err_set(q->err, INVALID_ARGUMENT, "container %s has no terminal", c->spec.id);
    return ioctl(c->in, TIOCSWINSZ, &w) < 0 ? err_sys(q->err, "resize") : 0;
}

static int do_remove(struct call *q)
{
    struct container *c = need(q, false);

    if (!c)
        return -1;
    if (c->running)
        return err_set(q->err, CONFLICT, "container %s still runs", c->spec.id);
    container_free(c);
    q->changed = true;
    return 0;
}

static int do_stop(struct call *q)
{
    struct err ignored = {0};

    LIST_EACH (&S.containers, l) {
        struct container *c = list_entry(l, struct container, link);
        if (!c->running)
            continue;
        if (c->spec.cgroup)
            (void)cgroup_kill(&S.host, c->spec.cgroup, &ignored);
        (void)syscall(SYS_pidfd_send_signal, c->pid_fd, SIGKILL, NULL, 0);
    }
    if (S.group) {
        (void)cgroup_kill(&S.host, S.group, &ignored);
        (void)cgroup_wait_empty(&S.host, S.group, 2000);
    }
    S.leaving = true;
    return 0;
    (void)q;
}

static const struct {
    const char *name;
    int (*fn)(struct call *q);
} VERBS[] = {{"hello", do_hello},   {"start", do_start},   {"signal", do_signal},
             {"exec", do_exec},     {"attach", do_attach}, {"resize", do_resize},
             {"remove", do_remove}, {"stop", do_stop}};

static void client_answer(struct client *cl, struct arena *a, const struct val *ask,
                          struct shim_message *m)
{
    struct err err = {0};
    struct call q = {
        .client = cl, .a = a, .ask = ask, .m = m, .answer = val_map(a), .fd = -1, .err = &err};
    const char *verb = val_str_at(ask, "do", "");
    int bad = -1;
    size_t i;

    val_put_int(a, q.answer, "id", val_int_at(ask, "id", 0));
    for (i = 0; i < ARRAY_LEN(VERBS) && !streq(VERBS[i].name, verb); i++)
        ;
    if (i < ARRAY_LEN(VERBS))
        bad = VERBS[i].fn(&q);
    else
        err_set(&err, NOT_IMPLEMENTED, "no verb \"%s\"", verb);
    val_put_bool(a, q.answer, "ok", bad == 0);
    if (bad < 0) {
        val_put_str(a, q.answer, "error", err.msg);
        val_put_int(a, q.answer, "sys", err.sys);
        val_put_int(a, q.answer, "code", err.code);
    }
    tell(cl, q.answer, &q.fd, q.fd >= 0);
    closep(&q.fd);
    if (q.changed)
        save();
}

static void client_ready(struct src *s, uint32_t events)
{
    struct client *cl = container_of(s, struct client, src);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct shim_message m = {0};
    struct err err = {0};
    struct val *v;

    (void)events;
    if (shim_recv(s->fd, a, &v, &m, &err) < 0) {
        if (err.code != ERR_TIMEOUT)
            client_close(cl);
        return;
    }
    client_answer(cl, a, v, &m);
    for (int i = 0; i < m.fds_n; i++)
        closep(&m.fds[i]);
}

static void listener_ready(struct src *s, uint32_t events)
{
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC), room = SHIM_MESSAGE_MAX;
    struct client *c;
    struct timeval patience = {.tv_sec = 1};

    (void)events;
    if (fd < 0)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    c = xcalloc(1, sizeof *c);
    c->src = (struct src){.fd = fd, .ready = client_ready};
    list_push(&S.clients, &c->link);
    src_want(&c->src, EPOLLIN);
}

/* ---- the pod ------------------------------------------------------------------------------- */

/* Pid 1 of a shared pid namespace: reaps, and ends when the shim does. */
_noreturn_ static void pause_main(void)
{
    sigset_t set;
    int sig;

    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_NAME, "pause", 0, 0, 0);
    x_close_range(3, ~0u, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_SETMASK, &set, NULL);
    for (;;) {
        if (sigwait(&set, &sig) == 0 && sig != SIGCHLD)
            _exit(0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

static int share_pid(struct err *err)
{
    struct x_clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args - sizeof args.cgroup);

    if (pid < 0)
        return err_sys(err, "clone the pod's first process");
    if (pid == 0)
        pause_main();
    S.pid_ns = xasprintf("/proc/%d/ns/pid", (int)pid);
    return 0;
}

static int write_sysctl(const char *text, struct err *err)
{
    char path[256] = "/proc/sys/";
    const char *eq = strchr(text, '=');
    size_t n = strlen(path);

    if (!eq || (size_t)(eq - text) + n >= sizeof path || strstr(text, ".."))
        return err_set(err, INVALID_ARGUMENT, "sysctl %s", text);
    for (const char *p = text; p < eq; p++)
        path[n++] = *p == '.' ? '/' : *p;
    path[n] = 0;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, eq + 1, strlen(eq + 1)) >= 0;
    if (!ok)
        err_sys(err, "sysctl %s", text);
    closep(&fd);
    return ok ? 0 : -1;
}

static int pod_setup(struct err *err)
{
    const char *net = val_str_at(S.pod, "net_ns", NULL),
               *host = val_str_at(S.pod, "hostname", NULL);
    int flags = val_bool_at(S.pod, "host_ipc", false) ? 0 : CLONE_NEWIPC;
    struct cgroup_limits limits = {
        .memory_bytes = val_int_at(S.pod, "limits.memory_bytes", 0),
        .cpu_quota_us = val_int_at(S.pod, "limits.cpu_quota_us", 0),
        .cpu_shares = val_int_at(S.pod, "limits.cpu_shares", 0),
        .pids = val_int_at(S.pod, "limits.pids", 0),
    };

    if (!val_bool_at(S.pod, "host_uts", false))
        flags |= CLONE_NEWUTS;
    if (cgroup_host_init(&S.host, val_str_at(S.pod, "instance", "x"), err) < 0)
        return -1;
    if (S.group && cgroup_make(&S.host, S.group, &limits, err) < 0)
        return -1;
    if (flags && unshare(flags) < 0)
        return err_sys(err, "unshare ipc and host name");
    if (net) {
        int fd = open(net, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) {
            err_sys(err, "join network namespace %s", net);
            closep(&fd);
            return -1;
        }
        close(fd);
    }
    if (host && flags & CLONE_NEWUTS && sethostname(host, strlen(host)) < 0)
        return err_sys(err, "set host name %s", host);
    const struct val *sysctls = val_get(S.pod, "sysctls");
    VAL_EACH (sysctls, it)
        if (write_sysctl(val_text(it, ""), err) < 0)
            return -1;
    return val_bool_at(S.pod, "share_pid", false) ? share_pid(err) : 0;
}

static struct val *read_pod(struct arena *a, struct err *err)
{
    struct buf text = {0};
    struct val *v;
    ssize_t n = 1;

    while (n > 0) {
        char piece[4096];
        if ((n = read(POD_FD, piece, sizeof piece)) > 0)
            buf_add(&text, piece, (size_t)n);
    }
    close(POD_FD);
    v = json_parse(a, text.p ? text.p : "", text.n, err);
    buf_done(&text);
    return v;
}

static void bury(void)
{
    LIST_EACH (&S.graves, l) {
        list_remove(l);
        free(l); /* link is the first member of all three */
    }
}

static void leave(void)
{
    struct err ignored = {0};
    char path[600];

    if (S.group)
        (void)cgroup_remove(&S.host, S.group, &ignored);
    snprintf(path, sizeof path, "%s/shim.sock", S.dir);
    (void)unlink(path);
    _exit(0);
}

int main(int argc, char **argv)
{
    struct epoll_event events[32];
    sigset_t chld;
    struct err err = {0};

    if (argc != 2) {
        fprintf(stderr, "usage: tandem-shim POD_DIR, with a listening socket as descriptor 3\n");
        return 2;
    }
    _Static_assert(offsetof(struct client, link) == 0 && offsetof(struct attach, link) == 0 &&
                       offsetof(struct container, link) == 0,
                   "bury() frees by link");
    log_set_part("shim");
    list_init(&S.containers);
    list_init(&S.execs);
    list_init(&S.clients);
    list_init(&S.graves);
    S.dir = argv[1];
    S.arena = arena_new();
    S.pod = read_pod(S.arena, &err);
    if (!S.pod) {
        LOG(ERROR, "shim", "did=start err=\"%s\"", err.msg);
        return 1;
    }
    S.group = (char *)(uintptr_t)val_str_at(S.pod, "cgroup", NULL);
    for (int i = 1; i < 32; i++) /* nobody asks us to leave but by "stop" */
        if (i != SIGKILL && i != SIGSTOP && i != SIGCHLD && i != SIGSEGV && i != SIGABRT &&
            i != SIGBUS && i != SIGFPE && i != SIGILL)
            signal(i, SIG_IGN);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "tandem-shim", 0, 0, 0);
    if (pod_setup(&S.setup) < 0)
        LOG(ERROR, "shim", "did=setup err=\"%s\"", S.setup.msg);

    S.ep = epoll_create1(EPOLL_CLOEXEC);
    fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC);
    S.listener = (struct src){.fd = LISTEN_FD, .ready = listener_ready};
    S.signals =
        (struct src){.fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK), .ready = signals_ready};
    src_want(&S.listener, EPOLLIN);
    src_want(&S.signals, EPOLLIN);
    for (;;) {
        int n = epoll_wait(S.ep, events, ARRAY_LEN(events), -1);
        for (int i = 0; i < n; i++) {
            struct src *s = events[i].data.ptr;
            if (s->fd >= 0 && s->want)
                s->ready(s, events[i].events);
        }
        bury();
        if (S.leaving)
            leave();
    }
}
