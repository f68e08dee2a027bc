/* What a kubelet streams: logs, exec, attach, port-forward. This file: paths, and the sessions of
 * exec and attach.
 *
 * A session ties a link (a client) to a process by pipes, or by a terminal's master side. It ends
 * when the process has ended and its output was read to the end (or nothing came for a moment: a
 * child of it may hold the pipes for ever), or when the client goes away. */
#include "node/stream_int.h"

#include "codec/json.h"
#include "http/spdy.h"
#include "http/ws.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_MS = 500, ARGS_MAX = 1024 };

struct session;

struct end { /* our end of a pipe */
    struct session *s;
    uv_pipe_t pipe;
    int channel;
    bool open, paused;
    char buf[16384];
};

struct session {
    struct node *n;
    struct link *link; /* NULL: gone */
    bool attach, ended, closing, ended_input, held;
    struct link_want want;
    char *ns, *pod, *container;
    char **command;
    struct node_exec *exec;
    int theirs[3];
    int exit_code;
    bool waiting; /* for started() or joined: it will come */
    struct end in, out, err; /* with a terminal: out is the master side, both ways */
    int open_ends, handles;
    uv_timer_t linger;
    bool timer_open;
    int cols, rows; /* asked for before there was a terminal */
};

/* --- small things --- */

void stream_refuse(struct http_req *req, int status, const char *reason, const char *fmt, ...)
{
    struct val *v = val_map(req->arena);
    struct buf b = {0};
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    val_put_str(req->arena, v, "kind", "Status");
    val_put_str(req->arena, v, "apiVersion", "v1");
    val_need_map(req->arena, v, "metadata");
    val_put_str(req->arena, v, "status", "Failure");
    val_put_str(req->arena, v, "message", text);
    val_put_str(req->arena, v, "reason", reason);
    val_put_int(req->arena, v, "code", status);
    json_write(&b, v);
    http_reply(req, status, "application/json", b.p, b.n);
    buf_done(&b);
}

void stream_refuse_err(struct http_req *req, const struct err *err)
{
    stream_refuse(req, err_http(err->code), err_reason(err->code), "%s", err->msg);
}

bool stream_size_parse(const char *p, size_t n, int *ret_cols, int *ret_rows)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored = {0};
    const struct val *v = n < 1024 ? json_parse(a, p, n, &ignored) : NULL;
    int64_t cols = val_int_at(v, "Width", 0), rows = val_int_at(v, "Height", 0);

    if (cols < 1 || rows < 1 || cols > 65535 || rows > 65535)
        return false;
    *ret_cols = (int)cols;
    *ret_rows = (int)rows;
    return true;
}

/* --- the end of a session --- */

static void session_unref(struct session *s)
{
    if (s->handles || s->link || s->waiting || s->exec)
        return;
    for (char **c = s->command; c && *c; c++)
        free(*c);
    free(s->command);
    free(s->ns);
    free(s->pod);
    free(s->container);
    free(s);
}

static void handle_closed(uv_handle_t *h)
{
    struct session *s = h->data;

    s->handles--;
    session_unref(s);
}

static void session_finish(struct session *s);

static void end_close(struct end *e)
{
    if (!e->open)
        return;
    e->open = false;
    e->s->open_ends--;
    uv_close((uv_handle_t *)&e->pipe, handle_closed);
}

static void theirs_close(struct session *s)
{
    for (int i = 0; i < 3; i++) {
        closep(&s->theirs[i]);
        s->theirs[i] = -1;
    }
}

static void status_send(struct session *s)
{
    char text[512];
    int code = s->exit_code;

    if (!s->link)
        return;
    if (!s->link->v4) {
        if (code == 0)
            return;
        snprintf(text, sizeof(text), "command terminated with exit code %d", code);
    } else if (code == 0) {
        snprintf(text, sizeof(text), "{\"metadata\":{},\"status\":\"Success\"}");
    } else {
        snprintf(text, sizeof(text),
                 "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: "
                 "exit status %d\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\","
                 "\"message\":\"%d\"}]}}",
                 code, code);
    }
    s->link->ops->send(s->link, CH_ERROR, text, strlen(text));
}

static void failure_send(struct session *s, const char *message)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    struct buf b = {0};

    if (!s->link)
        return;
    if (s->link->v4) {
        val_need_map(a, v, "metadata");
        val_put_str(a, v, "status", "Failure");
        val_put_str(a, v, "message", message);
        val_put_str(a, v, "reason", "InternalError");
        val_put_int(a, v, "code", 500);
        json_write(&b, v);
    } else {
        buf_adds(&b, message);
    }
    s->link->ops->send(s->link, CH_ERROR, b.p, b.n);
    buf_done(&b);
}

/* Tells the client and lets everything go. */
static void session_finish(struct session *s)
{
    if (s->closing)
        return;
    s->closing = true;
    end_close(&s->in);
    end_close(&s->out);
    end_close(&s->err);
    theirs_close(s);
    if (s->timer_open) {
        s->timer_open = false;
        uv_close((uv_handle_t *)&s->linger, handle_closed);
    }
    if (s->link)
        s->link->ops->close(s->link);
}

static void on_linger(uv_timer_t *t)
{
    struct session *s = t->data;

    status_send(s);
    session_finish(s);
}

/* The process has ended; when its output has too, that was it. */
static void session_check(struct session *s)
{
    if (!s->ended || s->closing)
        return;
    if (!s->out.open && !s->err.open) {
        status_send(s);
        session_finish(s);
    } else if (s->timer_open) {
        uv_timer_start(&s->linger, on_linger, LINGER_MS, 0); /* anew with all that comes */
    }
}

/* --- from the process to the client --- */

static void out_alloc(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    struct end *e = container_of((uv_pipe_t *)h, struct end, pipe);

    (void)n;
    *ret = uv_buf_init(e->buf, sizeof(e->buf));
}

static void out_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct end *e = container_of((uv_pipe_t *)h, struct end, pipe);
    struct session *s = e->s;

    if (n < 0) { /* EOF; a terminal says EIO */
        end_close(e);
        s->ended |= s->attach && !s->out.open && !s->err.open;
        session_check(s);
        return;
    }
    if (n == 0 || !s->link)
        return;
    s->link->ops->send(s->link, e->channel, b->base, (size_t)n);
    if (s->link->ops->queued(s->link) > STREAM_QUEUE_MAX) {
        e->paused = true;
        uv_read_stop(h);
    }
    session_check(s);
}

static void link_drained(void *arg)
{
    struct session *s = arg;
    struct end *ends[] = {&s->out, &s->err};

    for (int i = 0; i < 2; i++)
        if (ends[i]->open && ends[i]->paused) {
            ends[i]->paused = false;
            uv_read_start((uv_stream_t *)&ends[i]->pipe, out_alloc, out_read);
        }
}

/* --- from the client to the process --- */

struct written {
    uv_write_t req;
    struct session *s;
    char data[];
};

static uv_stream_t *input_stream(struct session *s)
{
    if (s->want.tty && !s->attach)
        return s->out.open ? (uv_stream_t *)&s->out.pipe : NULL;
    return s->in.open ? (uv_stream_t *)&s->in.pipe : NULL;
}

static void input_done(struct session *s)
{
    if (s->in.open && s->ended_input && !uv_stream_get_write_queue_size((uv_stream_t *)&s->in.pipe))
        end_close(&s->in);
}

static void on_written(uv_write_t *r, int status)
{
    struct written *w = container_of(r, struct written, req);
    struct session *s = w->s;
    uv_stream_t *to;

    free(w);
    if (status == UV_ECANCELED || s->closing)
        return;
    if (status < 0) { /* the process reads no more: what comes is thrown away */
        end_close(&s->in);
        if (s->link && s->held)
            s->link->ops->hold(s->link, s->held = false);
        return;
    }
    to = input_stream(s);
    if (s->link && s->held && to && uv_stream_get_write_queue_size(to) < STREAM_QUEUE_MAX / 2)
        s->link->ops->hold(s->link, s->held = false);
    input_done(s);
}

static void link_input(void *arg, const char *p, size_t n)
{
    struct session *s = arg;
    uv_stream_t *to = input_stream(s);
    struct written *w;
    uv_buf_t b;

    if (!to || !n || s->closing || s->ended_input)
        return;
    w = xmalloc(sizeof(*w) + n);
    w->s = s;
    memcpy(w->data, p, n);
    b = uv_buf_init(w->data, (unsigned)n);
    if (uv_write(&w->req, to, &b, 1, on_written) < 0) {
        free(w);
        return;
    }
    if (uv_stream_get_write_queue_size(to) > STREAM_QUEUE_MAX && s->link)
        s->link->ops->hold(s->link, s->held = true);
}

static void link_input_end(void *arg)
{
    struct session *s = arg;

    if (s->ended_input)
        return;
    if (s->want.tty && !s->attach) {
        link_input(s, "\x04", 1); /* what a terminal has for an end */
        return;
    }
    s->ended_input = true;
    input_done(s);
}

static void link_resize(void *arg, int cols, int rows)
{
    struct session *s = arg;
    struct winsize w = {.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows};
    struct err ignored = {0};
    uv_os_fd_t fd;

    s->cols = cols;
    s->rows = rows;
    if (s->attach)
        node_resize(s->n, s->ns, s->pod, s->container, rows, cols, &ignored);
    else if (s->want.tty && s->out.open && uv_fileno((uv_handle_t *)&s->out.pipe, &fd) == 0)
        ioctl(fd, TIOCSWINSZ, &w);
}

static void link_closed(void *arg)
{
    struct session *s = arg;

    s->link = NULL;
    if (s->exec) { /* the client went away: nobody reads what the process writes */
        node_exec_signal(s->exec, SIGHUP);
        node_exec_forget(s->exec);
        s->exec = NULL;
        s->waiting = false;
    }
    session_finish(s);
    session_unref(s);
}

/* --- starting --- */

static int end_open(struct session *s, struct end *e, int fd, int channel, bool reads, struct err *err)
{
    int rc;

    e->s = s;
    e->channel = channel;
    uv_pipe_init(s->linger.loop, &e->pipe, 0);
    e->pipe.data = s;
    s->handles++;
    s->open_ends++;
    e->open = true;
    rc = uv_pipe_open(&e->pipe, fd);
    if (rc < 0) {
        close(fd);
        return err_set(err, INTERNAL, "open a stream: %s", uv_strerror(rc));
    }
    if (reads)
        uv_read_start((uv_stream_t *)&e->pipe, out_alloc, out_read);
    return 0;
}

/* A pipe: theirs is kept for the process, ours becomes a handle. */
static int pipe_make(struct session *s, struct end *e, int which, struct err *err)
{
    int fd[2];

    if (pipe2(fd, O_CLOEXEC) < 0)
        return err_sys(err, "pipe");
    s->theirs[which] = which == 0 ? fd[0] : fd[1];
    return end_open(s, e, which == 0 ? fd[1] : fd[0], which == 2 ? CH_STDERR : which, which != 0, err);
}

static int pipes_make(struct session *s, struct err *err)
{
    if (s->want.stdin_ && pipe_make(s, &s->in, 0, err) < 0)
        return -1;
    if ((s->want.stdout_ || s->want.tty) && pipe_make(s, &s->out, 1, err) < 0)
        return -1;
    if (s->want.stderr_ && !s->want.tty && pipe_make(s, &s->err, 2, err) < 0)
        return -1;
    return 0;
}

static void session_fail(struct session *s, const struct err *err)
{
    failure_send(s, err->msg);
    session_finish(s);
    session_unref(s);
}

static void exec_started(void *arg, struct node_exec *e, int master)
{
    struct session *s = arg;
    struct err err = {0};

    s->exec = e;
    s->waiting = false;
    theirs_close(s);
    if (s->closing) {
        closep(&master);
        node_exec_signal(e, SIGHUP);
        node_exec_forget(e);
        s->exec = NULL;
        session_unref(s);
        return;
    }
    if (master < 0)
        return;
    if (end_open(s, &s->out, master, CH_STDOUT, true, &err) < 0) {
        node_exec_signal(e, SIGKILL);
        node_exec_forget(e);
        s->exec = NULL;
        session_fail(s, &err);
        return;
    }
    if (s->cols)
        link_resize(s, s->cols, s->rows);
}

static void exec_failed(void *arg, const struct err *err)
{
    struct session *s = arg;

    s->waiting = false;
    s->exec = NULL;
    if (s->link && !s->closing && (err->sys == ENOENT || err->sys == EACCES)) {
        /* as a shell does, so that scripts can tell */
        int channel = s->want.stderr_ ? CH_STDERR : CH_STDOUT;

        s->link->ops->send(s->link, channel, err->msg, strlen(err->msg));
        s->link->ops->send(s->link, channel, "\r\n", 2);
        s->exit_code = err->sys == ENOENT ? 127 : 126;
        status_send(s);
        session_finish(s);
        return;
    }
    if (s->closing)
        session_unref(s);
    else
        session_fail(s, err);
}

static void exec_exited(void *arg, struct node_exec *e, int code)
{
    struct session *s = arg;

    (void)e;
    s->exec = NULL;
    s->ended = true;
    s->exit_code = code;
    if (s->closing) {
        session_unref(s);
        return;
    }
    session_check(s);
}

static void attach_joined(void *arg, const struct err *err)
{
    struct session *s = arg;

    s->waiting = false;
    theirs_close(s);
    if (err && !s->closing)
        session_fail(s, err);
    else if (s->closing)
        session_unref(s);
    else if (s->cols)
        link_resize(s, s->cols, s->rows);
}

static void link_ready(void *arg)
{
    struct session *s = arg;
    struct node_exec_args args = {.ns = s->ns, .pod = s->pod, .container = s->container,
                                  .command = (const char *const *)s->command, .tty = s->want.tty,
                                  .started = exec_started, .failed = exec_failed, .exited = exec_exited, .arg = s};
    struct err err = {0};
    int rc = s->want.tty && !s->attach ? 0 : pipes_make(s, &err);

    if (rc == 0) {
        memcpy(args.stdio, s->theirs, sizeof(args.stdio));
        s->waiting = true;
        rc = s->attach ? node_attach(s->n, s->ns, s->pod, s->container, s->theirs, attach_joined, s, &err)
                       : node_exec(s->n, &args, &s->exec, &err);
        if (rc < 0)
            s->waiting = false;
    }
    if (rc < 0)
        session_fail(s, &err);
}

static bool flag(struct http_req *req, const char *name, const char *other)
{
    const char *v = http_param(req, name);

    if (!v)
        v = http_param(req, other);
    return v && (streq(v, "1") || streq(v, "true"));
}

static char **command_of(struct http_req *req)
{
    char **v = xcalloc(ARGS_MAX + 1, sizeof(*v));
    const char *name, *value;
    size_t n = 0;

    for (size_t i = 0; http_param_next(req, &i, &name, &value) && n < ARGS_MAX;)
        if (streq(name, "command"))
            v[n++] = xstrdup(value);
    return v;
}

static void session_begin(struct node *n, struct http_req *req, bool attach, const char *ns, const char *pod,
                          const char *container)
{
    struct link_want want = {.stdin_ = flag(req, "input", "stdin"), .stdout_ = flag(req, "output", "stdout"),
                             .stderr_ = flag(req, "error", "stderr"), .tty = flag(req, "tty", "tty")};
    struct node_container c = {0};
    struct err err = {0};
    struct session *s;
    uint32_t channels = 1u << CH_ERROR | (want.stdin_ ? 1u << CH_STDIN : 0) | (want.stdout_ ? 1u << CH_STDOUT : 0) |
                        (want.stderr_ && !want.tty ? 1u << CH_STDERR : 0) | (want.tty ? 1u << CH_RESIZE : 0);
    uv_loop_t *loop = http_server_loop(req->server);

    if (node_find(n, ns, pod, container, false, &c, &err) < 0) {
        stream_refuse_err(req, &err);
        return;
    }
    if (!c.running) {
        stream_refuse(req, 400, "BadRequest", "container \"%s\" in pod \"%s\" is not running%s%s", c.name, pod,
                      str_empty(c.why) ? "" : ": ", c.why ? c.why : "");
        return;
    }
    if (attach) {
        want.tty = c.tty;
        want.stdin_ &= c.stdin_open;
    }
    if (want.tty)
        want.stderr_ = false;
    want.channels = channels;
    if (!want.stdin_ && !want.stdout_ && !want.stderr_ && !attach) {
        stream_refuse(req, 400, "BadRequest", "you must specify at least one of stdin, stdout, stderr");
        return;
    }
    s = xcalloc(1, sizeof(*s));
    s->n = n;
    s->attach = attach;
    s->want = want;
    s->theirs[0] = s->theirs[1] = s->theirs[2] = -1;
    s->ns = xstrdup(ns);
    s->pod = xstrdup(pod);
    s->container = xstrdup(c.name);
    s->command = attach ? NULL : command_of(req);
    uv_timer_init(loop, &s->linger);
    s->linger.data = s;
    s->handles = 1;
    s->timer_open = true;

    struct link_events ev = {link_ready, link_input, link_input_end, link_resize, link_drained, link_closed, s};
    s->waiting = true; /* nothing goes while the link is made */
    s->link = spdy_wanted(req) ? link_spdy(req, &want, &ev) : ws_wanted(req) ? link_ws(req, &want, &ev) : NULL;
    s->waiting = false;
    if (!s->link) {
        if (!spdy_wanted(req) && !ws_wanted(req))
            stream_refuse(req, 400, "BadRequest", "Upgrade request required");
        session_finish(s);
    } else if (s->link->ready_now) {
        link_ready(s);
    }
}

/* --- paths --- */

bool node_stream_request(struct node *n, struct http_req *req)
{
    static const char *const verbs[] = {"containerLogs", "exec", "attach", "portForward"};
    _auto_(freep) char *path = xstrdup(req->raw_path);
    char *part[6], *rest = path, *one;
    const char *name[6];
    int k = 0, verb = -1;

    while ((one = strsep(&rest, "/")) && k < 6)
        part[k++] = one;
    if (k < 4 || *part[0])
        return false;
    for (int i = 0; i < 4; i++)
        if (streq(part[1], verbs[i]))
            verb = i;
    if (verb < 0 || rest || k != (verb == 3 ? 4 : 5))
        return false;
    for (int i = 2; i < k; i++) {
        name[i] = http_unescape(req->arena, part[i], strlen(part[i]), false);
        if (str_empty(name[i]))
            return false;
    }
    switch (verb) {
    case 0:
        if (!streq(req->method, "GET"))
            stream_refuse(req, 405, "MethodNotAllowed", "logs are read by GET");
        else
            stream_logs(n, req, name[2], name[3], name[4]);
        break;
    case 3:
        stream_port_forward(n, req, name[2], name[3]);
        break;
    default:
        session_begin(n, req, verb == 2, name[2], name[3], name[4]);
    }
    return true;
}
