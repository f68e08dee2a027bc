/* /containerLogs/NS/POD/CONTAINER: a container's output from its log files.
 *
 * A file holds lines "TIME stdout|stderr F|P TEXT" (P: the line goes on in the next one of that
 * stream). PATH is the newest; PATH.1 .. PATH.4 are older. The reader opens all of them, oldest
 * first, and reads on from one to the next; so a rotation while it reads loses nothing. Following
 * waits for the folder to change (inotify) and looks at the container twice a second: when it has
 * ended and all was read, the answer ends. */
#include "node/stream_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILES_MAX = 16, TURN_BYTES = 512 << 10, LINE_MAX_BYTES = 1 << 20, LOOK_MS = 500 };

struct logs {
    struct node *n;
    struct http_req *req; /* NULL: gone or finished */
    char *ns, *pod, *container, *uid, *path;
    bool follow, timestamps, want_out, want_err;
    char since[40];    /* "2026-01-02T03:04:05.000000000Z" or "" */
    int64_t limit;     /* bytes left to send, -1 none */
    int fd[FILES_MAX]; /* oldest first */
    int n_fd, at;
    struct buf in, out;
    size_t used;       /* of in */
    bool mid_line[2];  /* the last part of the stream had no end: no new time */
    bool ended, started, last_look;
    uv_timer_t timer;
    uv_fs_event_t watch;
    int handles;
    bool timer_open, watch_open;
};

static void logs_go(struct logs *g);

static void logs_free(struct logs *g)
{
    if (g->handles || g->req)
        return;
    for (int i = 0; i < g->n_fd; i++)
        closep(&g->fd[i]);
    buf_done(&g->in);
    buf_done(&g->out);
    free(g->ns);
    free(g->pod);
    free(g->container);
    free(g->uid);
    free(g->path);
    free(g);
}

static void handle_closed(uv_handle_t *h)
{
    struct logs *g = h->data;

    g->handles--;
    logs_free(g);
}

static void logs_end(struct logs *g)
{
    struct http_req *req = g->req;

    g->req = NULL;
    if (req)
        http_end(req);
    if (g->timer_open)
        uv_close((uv_handle_t *)&g->timer, handle_closed);
    if (g->watch_open)
        uv_close((uv_handle_t *)&g->watch, handle_closed);
    g->timer_open = g->watch_open = false;
    logs_free(g);
}

/* --- lines --- */

/* Times with fractions of any length, in UTC. */
static int time_cmp(const char *a, size_t n, const char *b)
{
    int c = strncmp(a, b, MIN(n, (size_t)19));
    bool more_a = n > 20, more_b = strlen(b) > 20;

    for (size_t i = 20; !c && (more_a || more_b); i++) {
        more_a = more_a && i < n && a[i] >= '0' && a[i] <= '9';
        more_b = more_b && b[i] >= '0' && b[i] <= '9';
        c = (more_a ? a[i] : '0') - (more_b ? b[i] : '0');
    }
    return c;
}

static void emit(struct logs *g, const char *p, size_t n)
{
    if (g->limit >= 0) {
        n = MIN(n, (size_t)g->limit);
        g->limit -= (int64_t)n;
    }
    buf_add(&g->out, p, n);
}

static void line(struct logs *g, const char *p, size_t n)
{
    const char *end = p + n, *stream, *tag, *text;
    int which;

    stream = memchr(p, ' ', n);
    tag = stream ? memchr(stream + 1, ' ', (size_t)(end - stream - 1)) : NULL;
    if (!tag)
        return; /* no line of ours */
    text = memchr(tag + 1, ' ', (size_t)(end - tag - 1));
    text = text ? text + 1 : end;
    which = tag - stream == 7 && !memcmp(stream + 1, "stderr", 6);
    if (which ? !g->want_err : !g->want_out)
        return;
    if (g->since[0] && time_cmp(p, (size_t)(stream - p), g->since) < 0)
        return;
    if (g->timestamps && !g->mid_line[which]) {
        emit(g, p, (size_t)(stream - p));
        emit(g, " ", 1);
    }
    emit(g, text, (size_t)(end - text));
    g->mid_line[which] = tag[1] == 'P';
    if (!g->mid_line[which])
        emit(g, "\n", 1);
}

/* Takes whole lines out of what was read. */
static void lines(struct logs *g)
{
    char *nl;

    while (g->used < g->in.n && (nl = memchr(g->in.p + g->used, '\n', g->in.n - g->used))) {
        line(g, g->in.p + g->used, (size_t)(nl - g->in.p) - g->used);
        g->used = (size_t)(nl - g->in.p) + 1;
    }
    buf_eat(&g->in, g->used);
    g->used = 0;
    if (g->in.n > LINE_MAX_BYTES)
        buf_reset(&g->in);
}

/* --- files --- */

static void open_all(struct logs *g)
{
    for (int i = FILES_MAX - 1; i >= 0; i--) {
        _auto_(freep) char *p = i ? xasprintf("%s.%d", g->path, i) : xstrdup(g->path);
        int fd = open(p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

        if (fd >= 0)
            g->fd[g->n_fd++] = fd;
    }
}

/* How many bytes from the end the last `want` lines begin; over all files. Sets where reading
 * begins. */
static void seek_tail(struct logs *g, int64_t want)
{
    _auto_(freep) char *chunk = xmalloc(STREAM_CHUNK);

    if (want == 0) {
        g->at = g->n_fd ? g->n_fd - 1 : 0;
        if (g->n_fd)
            lseek(g->fd[g->at], 0, SEEK_END);
        return;
    }
    for (int f = g->n_fd - 1; f >= 0; f--) {
        struct stat st;
        off_t pos;
        bool first = true; /* the newline at a file's very end ends a line, it does not begin one */

        if (fstat(g->fd[f], &st) < 0)
            continue;
        for (pos = st.st_size; pos > 0;) {
            size_t n = (size_t)MIN((off_t)STREAM_CHUNK, pos);

            pos -= (off_t)n;
            if (pread(g->fd[f], chunk, n, pos) != (ssize_t)n)
                break;
            for (size_t i = n; i-- > 0;) {
                if (chunk[i] == '\n' && !first && --want == 0) {
                    lseek(g->fd[f], pos + (off_t)i + 1, SEEK_SET);
                    g->at = f;
                    return;
                }
                first = false;
            }
        }
        if (st.st_size > 0 && --want == 0) { /* the first line of this file */
            g->at = f;
            return;
        }
    }
}

/* The newest file was renamed: go on with the one that has its name now. */
static bool next_file(struct logs *g)
{
    struct stat have, now;
    int fd;

    if (g->at + 1 < g->n_fd) {
        g->at++;
        return true;
    }
    fd = open(g->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    if (g->n_fd && fstat(g->fd[g->at], &have) == 0 && fstat(fd, &now) == 0 && have.st_ino == now.st_ino &&
        have.st_dev == now.st_dev) {
        close(fd);
        return false;
    }
    if (g->n_fd && lseek(g->fd[g->at], 0, SEEK_CUR) < have.st_size) {
        close(fd); /* written between our last look and the rotation */
        return true;
    }
    for (int i = 0; i < g->n_fd; i++)
        closep(&g->fd[i]);
    g->fd[0] = fd;
    g->n_fd = 1;
    g->at = 0;
    return true;
}

/* --- the answer --- */

static void container_look(struct logs *g)
{
    struct node_container c = {0};
    struct err err = {0};

    if (g->ended)
        return;
    if (node_find(g->n, g->ns, g->pod, g->container, false, &c, &err) < 0 || !streq(c.uid, g->uid) || !c.running ||
        !streq0(c.log_path, g->path))
        g->ended = true;
}

static void on_timer(uv_timer_t *t)
{
    struct logs *g = t->data;

    container_look(g);
    logs_go(g);
}

static void on_change(uv_fs_event_t *h, const char *name, int events, int status)
{
    (void)name;
    (void)events;
    (void)status;
    logs_go(h->data);
}

static void on_drain(struct http_req *req, void *arg)
{
    (void)req;
    logs_go(arg);
}

static void on_gone(struct http_req *req, void *arg)
{
    (void)req;
    logs_end(arg);
}

static void flush(struct logs *g)
{
    if (g->out.n)
        http_write(g->req, g->out.p, g->out.n);
    buf_reset(&g->out);
}

/* Reads and sends until there is nothing more for now, or the client is behind. */
static void logs_go(struct logs *g)
{
    size_t turn = 0;

    while (g->req && turn < TURN_BYTES) {
        ssize_t n = 0;

        if (http_queued_bytes(g->req) > STREAM_QUEUE_MAX)
            return; /* on_drain */
        if (g->n_fd) {
            buf_reserve(&g->in, STREAM_CHUNK);
            n = read(g->fd[g->at], g->in.p + g->in.n, STREAM_CHUNK);
        }
        if (n > 0) {
            g->in.n += (size_t)n;
            turn += (size_t)n;
            lines(g);
            flush(g);
            if (g->limit == 0)
                logs_end(g);
            continue;
        }
        if (next_file(g))
            continue;
        if (!g->follow || (g->ended && g->last_look)) {
            logs_end(g);
            return;
        }
        /* what the container wrote last may reach the file just after its end was seen */
        g->last_look = g->ended;
        return;
    }
    if (g->req && g->timer_open)
        uv_timer_start(&g->timer, on_timer, 0, LOOK_MS); /* there is more: after the others' turn */
}

static bool number(struct http_req *req, const char *name, int64_t *ret, bool *bad)
{
    const char *v = http_param(req, name);
    char *end;

    if (str_empty(v))
        return false;
    *ret = strtoll(v, &end, 10);
    if (*end || *ret < 0) {
        *bad = true;
        stream_refuse(req, 422, "Invalid", "PodLogOptions is invalid: %s: Invalid value: \"%.40s\": must be greater than or equal to 0", name, v);
    }
    return !*bad;
}

static bool flag(struct http_req *req, const char *name)
{
    const char *v = http_param(req, name);

    return v && (streq(v, "1") || streq(v, "true"));
}

static void since_seconds(struct logs *g, int64_t s)
{
    struct timespec t;
    struct tm tm;
    char text[24];
    time_t at;

    clock_gettime(CLOCK_REALTIME, &t);
    at = t.tv_sec - (time_t)MIN(s, (int64_t)t.tv_sec);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &tm));
    snprintf(g->since, sizeof(g->since), "%s.%09ldZ", text, t.tv_nsec);
}

/* RFC 3339, with an offset or Z -> UTC. */
static bool since_time(struct logs *g, const char *v)
{
    struct tm tm = {0};
    char fraction[12] = "000000000", text[24];
    const char *rest = strptime(v, "%Y-%m-%dT%H:%M:%S", &tm);
    int hours = 0, minutes = 0;
    time_t at;

    if (!rest)
        return false;
    if (*rest == '.') {
        rest++;
        for (int i = 0; *rest >= '0' && *rest <= '9'; i++, rest++)
            if (i < 9)
                fraction[i] = *rest;
    }
    at = timegm(&tm);
    if (*rest == '+' || *rest == '-' || *rest == ' ') { /* a '+' that nobody escaped is a blank */
        if (sscanf(rest + 1, "%2d:%2d", &hours, &minutes) != 2)
            return false;
        at += (*rest == '-' ? 1 : -1) * (hours * 3600 + minutes * 60);
    } else if (!streq(rest, "Z")) {
        return false;
    }
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &tm));
    snprintf(g->since, sizeof(g->since), "%s.%sZ", text, fraction);
    return true;
}

static void follow_start(struct logs *g)
{
    uv_loop_t *loop = http_server_loop(g->req->server);
    char *slash = strrchr(g->path, '/');
    _auto_(freep) char *dir = slash ? xstrndup(g->path, (size_t)(slash - g->path)) : xstrdup(".");

    uv_timer_init(loop, &g->timer);
    g->timer.data = g;
    g->timer_open = true;
    uv_fs_event_init(loop, &g->watch);
    g->watch.data = g;
    g->watch_open = true;
    g->handles = 2;
    uv_timer_start(&g->timer, on_timer, LOOK_MS, LOOK_MS);
    uv_fs_event_start(&g->watch, on_change, dir, 0); /* without it the timer looks */
}

void stream_logs(struct node *n, struct http_req *req, const char *ns, const char *pod, const char *container)
{
    int64_t tail = -1, seconds = -1, limit = -1;
    const char *since = http_param(req, "sinceTime"), *stream = http_param(req, "stream");
    bool previous = flag(req, "previous"), bad = false;
    struct node_container c = {0};
    struct err err = {0};
    struct logs *g;

    if (node_find(n, ns, pod, container, previous, &c, &err) < 0) {
        stream_refuse_err(req, &err);
        return;
    }
    number(req, "tailLines", &tail, &bad);
    if (!bad)
        number(req, "sinceSeconds", &seconds, &bad);
    if (!bad)
        number(req, "limitBytes", &limit, &bad);
    if (bad)
        return;
    if (!c.log_path) {
        if (previous)
            stream_refuse(req, 400, "BadRequest", "previous terminated container \"%s\" in pod \"%s\" not found", c.name, pod);
        else
            stream_refuse(req, 400, "BadRequest", "container \"%s\" in pod \"%s\" is waiting to start: %s", c.name, pod,
                          str_empty(c.why) ? "no logs available yet" : c.why);
        return;
    }
    g = xcalloc(1, sizeof(*g));
    g->n = n;
    g->limit = limit;
    g->follow = flag(req, "follow") && !previous;
    g->timestamps = flag(req, "timestamps");
    g->want_out = str_empty(stream) || streq(stream, "All") || streq(stream, "Stdout");
    g->want_err = str_empty(stream) || streq(stream, "All") || streq(stream, "Stderr");
    if (seconds >= 0)
        since_seconds(g, seconds);
    if (!str_empty(since) && !since_time(g, since)) {
        stream_refuse(req, 400, "BadRequest", "sinceTime: \"%.60s\" is no time", since);
        free(g);
        return;
    }
    g->ns = xstrdup(ns);
    g->pod = xstrdup(pod);
    g->container = xstrdup(c.name);
    g->uid = xstrdup(c.uid);
    g->path = xstrdup(c.log_path);
    g->ended = !c.running;
    g->req = req;
    open_all(g);
    if (tail >= 0)
        seek_tail(g, tail);
    http_header(req, "Content-Type", "text/plain");
    http_start(req, 200, -1);
    http_on_drain(req, on_drain, g);
    http_on_close(req, on_gone, g);
    follow_start(g);
    logs_go(g);
}
