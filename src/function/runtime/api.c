/* api.c of zygote.so - Lambda's Runtime API in the sandbox, for runtimes that are programs of their own
 * (provided.*, nodejs*): the first process of the instance stays, starts the runtime, and translates
 * between the frames of the gateway's socket (descriptor 3) and HTTP on the instance's loopback.
 *
 *   frame INVOKE --> answer of GET .../invocation/next      POST .../ID/response|error --> frame RESULT
 *
 * One loop over poll(), no thread. It runs as the function's user behind the same filter: what it says
 * is trusted no more than the function itself. */
#include "base/buf.h"
#include "function/runtime/zygote.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <llhttp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define INVOCATION "/2018-06-01/runtime/invocation/"

enum { CONNS_MAX = 32, BODY_MAX = 6 * 1024 * 1024, HEAD_MAX = 16384, LEAVE_UNSEEN = 124 };

struct conn {
    int fd; /* -1: free */
    llhttp_t parser;
    struct buf url, body, out;
    size_t out_at;
    bool waiting; /* for the next invocation */
    bool whole, too_large, close;
};

static struct {
    int listener, signals, port;
    pid_t child; /* 0: not started yet */
    const char *const *argv;
    struct conn conns[CONNS_MAX];
    struct buf in; /* of the gateway's socket */
    struct instance_frame call;
    char *texts; /* request id, trace, arn, client context, payload: as the frame has them */
    bool have, given, inited, ahead;
    uint64_t started_us, init_us, ready_us, timeout_ms;
} api;

extern char **environ;

static uint64_t wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the gateway's side ---- */

static void write_all(const void *p, size_t n)
{
    const char *at = p;

    while (n) {
        ssize_t w = write(3, at, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            _exit(0); /* the gateway has gone */
        at += w;
        n -= (size_t)w;
    }
}

/* The most memory the runtime has had, in KiB. */
static uint64_t child_peak_kb(void)
{
    char path[64], text[4096], *at;
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/status", api.child);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof text - 1);
        close(fd);
    }
    if (n <= 0)
        return 0;
    text[n] = 0;
    at = strstr(text, "VmHWM:");
    return at ? strtoull(at + 6, NULL, 10) : 0;
}

static void tell(uint8_t type, uint8_t result, uint64_t id, const void *body, size_t n)
{
    struct instance_frame f = {.n = (uint32_t)n, .type = type, .result = result, .id = id};

    if (type == FRAME_RESULT) {
        f.a = child_peak_kb();
        f.b = api.init_us;
        f.c = api.ready_us;
        api.init_us = 0; /* told once */
    }
    write_all(&f, sizeof f);
    write_all(body, n);
}

static void finish(uint8_t result, const void *body, size_t n)
{
    uint64_t id = api.call.id;

    free(api.texts);
    api.texts = NULL;
    api.have = api.given = false;
    tell(FRAME_RESULT, result, id, body, n);
}

static void start_runtime(void)
{
    sigset_t none;
    char text[32];

    snprintf(text, sizeof text, "127.0.0.1:%d", api.port);
    setenv("AWS_LAMBDA_RUNTIME_API", text, 1);
    api.started_us = mono_us();
    api.child = fork();
    if (api.child < 0) {
        dprintf(2, "start the runtime: %s\n", strerror(errno));
        _exit(125);
    }
    if (api.child)
        return;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close(3); /* the rest is close-on-exec */
    execve(api.argv[0], (char *const *)api.argv, environ);
    dprintf(2, "RequestId: Error: fork/exec %s: %s\n", api.argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* ---- the runtime's side ---- */

static void answer(struct conn *c, int status, const char *word, const char *type, const char *body, size_t n)
{
    buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", status, word, type, n,
               c->close ? "Connection: close\r\n" : "");
    buf_add(&c->out, body, n);
}

static void answer_error(struct conn *c, int status, const char *word, const char *type, const char *message)
{
    char text[400];
    int n = snprintf(text, sizeof text, "{\"errorMessage\":\"%s\",\"errorType\":\"%s\"}", message, type);

    answer(c, status, word, "application/json", text, (size_t)n);
}

static void accepted(struct conn *c)
{
    static const char OK[] = "{\"status\":\"OK\"}\n";

    answer(c, 202, "Accepted", "application/json", OK, sizeof OK - 1);
}

/* A header's value holds no line ends, whatever a caller sent. */
static void header(struct buf *b, const char *name, const char *value, size_t n)
{
    if (!n)
        return;
    buf_printf(b, "%s: ", name);
    for (size_t i = 0; i < n; i++)
        buf_addc(b, (uint8_t)value[i] < ' ' || value[i] == 0x7f ? ' ' : value[i]);
    buf_adds(b, "\r\n");
}

static void give(void)
{
    const struct instance_frame *f = &api.call;
    struct conn *c = NULL;
    const char *at = api.texts;
    size_t body_n = f->n - f->request_id_n - f->trace_n - f->arn_n - f->client_context_n;
    uint64_t deadline = f->a;
    char text[32];

    for (int i = 0; i < CONNS_MAX && !c; i++)
        if (api.conns[i].fd >= 0 && api.conns[i].waiting)
            c = &api.conns[i];
    if (c && !api.inited) {
        api.inited = true;
        if (api.ahead) {
            tell(FRAME_INITED, 0, 0, NULL, 0);
        } else {
            api.init_us = MAX(mono_us() - api.started_us, (uint64_t)1);
            tell(FRAME_INITED, 0, f->id, NULL, 0);
            deadline = wall_ms() + api.timeout_ms; /* the handler's time starts here */
            api.call.a = deadline;
        }
    }
    if (!c || !api.have || api.given)
        return;
    buf_adds(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    header(&c->out, "Lambda-Runtime-Aws-Request-Id", at, f->request_id_n);
    at += f->request_id_n;
    header(&c->out, "Lambda-Runtime-Trace-Id", at, f->trace_n);
    at += f->trace_n;
    header(&c->out, "Lambda-Runtime-Invoked-Function-Arn", at, f->arn_n);
    at += f->arn_n;
    header(&c->out, "Lambda-Runtime-Client-Context", at, f->client_context_n);
    at += f->client_context_n;
    header(&c->out, "Lambda-Runtime-Deadline-Ms", text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)deadline));
    buf_printf(&c->out, "Content-Length: %zu\r\n\r\n", body_n ? body_n : 2);
    buf_add(&c->out, body_n ? at : "{}", body_n ? body_n : 2);
    c->waiting = false;
    api.given = true;
}

/* POST .../invocation/ID/response or /error. */
static void on_outcome(struct conn *c, const char *rest)
{
    size_t id_n = strcspn(rest, "/");
    const char *what = rest + id_n;
    bool response = streq(what, "/response");

    if (!response && !streq(what, "/error")) {
        answer_error(c, 404, "Not Found", "NotFound", "404 page not found");
    } else if (!api.given || id_n != api.call.request_id_n || memcmp(rest, api.texts, id_n) != 0) {
        answer_error(c, 400, "Bad Request", "InvalidRequestID", "Invalid request ID");
    } else if (c->too_large) {
        static const char TEXT[] = "{\"errorMessage\":\"Response payload size exceeded maximum allowed payload size (6291556 bytes).\","
                                   "\"errorType\":\"Function.ResponseSizeTooLarge\"}";

        answer_error(c, 413, "Request Entity Too Large", "RequestEntityTooLarge", "Exceeded maximum allowed payload size (6291556 bytes).");
        finish(RESULT_ERROR, TEXT, sizeof TEXT - 1);
    } else {
        accepted(c);
        finish(response ? RESULT_OK : RESULT_ERROR, c->body.p ? c->body.p : "", c->body.n);
    }
}

static void on_init_error(struct conn *c)
{
    accepted(c);
    (void)!send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (api.ahead && !api.have)
        _exit(LEAVE_UNSEEN); /* who has a call shall see how it fails: the next instance loads with it */
    if (api.have)
        finish(RESULT_INIT_ERROR, c->body.p ? c->body.p : "{}", c->body.p ? c->body.n : 2);
    _exit(1);
}

static void on_request(struct conn *c)
{
    bool get = c->parser.method == HTTP_GET, post = c->parser.method == HTTP_POST;
    const char *url;

    buf_addc(&c->url, 0);
    url = c->url.p;
    c->close = !llhttp_should_keep_alive(&c->parser);
    if (get && streq(url, INVOCATION "next")) {
        c->waiting = true;
        give();
    } else if (post && str_starts(url, INVOCATION)) {
        on_outcome(c, url + sizeof INVOCATION - 1);
    } else if (post && streq(url, "/2018-06-01/runtime/init/error")) {
        on_init_error(c);
    } else {
        answer_error(c, 404, "Not Found", "NotFound", "404 page not found");
    }
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (c->url.n + n > HEAD_MAX)
        return HPE_USER;
    buf_add(&c->url, at, n);
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    c->too_large |= c->body.n + n > BODY_MAX + 100;
    if (!c->too_large)
        buf_add(&c->body, at, n);
    return 0;
}

static int on_complete(llhttp_t *p)
{
    ((struct conn *)p->data)->whole = true;
    return HPE_PAUSED;
}

static llhttp_settings_t settings;

static void conn_close(struct conn *c)
{
    close(c->fd);
    buf_done(&c->url);
    buf_done(&c->body);
    buf_done(&c->out);
    *c = (struct conn){.fd = -1};
}

static void conn_new(void)
{
    int fd = accept4(api.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    for (int i = 0; i < CONNS_MAX; i++)
        if (api.conns[i].fd < 0) {
            struct conn *c = &api.conns[i];

            *c = (struct conn){.fd = fd};
            llhttp_init(&c->parser, HTTP_REQUEST, &settings);
            c->parser.data = c;
            return;
        }
    close(fd);
}

static void conn_write(struct conn *c)
{
    while (c->out_at < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + c->out_at, c->out.n - c->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            conn_close(c);
            return;
        }
        c->out_at += (size_t)n;
    }
    c->out_at = 0;
    buf_reset(&c->out);
    if (c->close && !c->waiting)
        conn_close(c);
}

/* One request after the other; a second one behind it in the same bytes is parsed when its turn comes. */
static bool conn_feed(struct conn *c, const char *p, size_t n)
{
    while (n) {
        llhttp_errno_t e = llhttp_execute(&c->parser, p, n);
        const char *end = p + n;

        if (e != HPE_OK && e != HPE_PAUSED && e != HPE_PAUSED_UPGRADE)
            return false;
        if (!c->whole)
            return e == HPE_OK;
        end = llhttp_get_error_pos(&c->parser);
        llhttp_resume(&c->parser);
        on_request(c);
        c->whole = c->too_large = false;
        buf_reset(&c->url);
        buf_reset(&c->body);
        n -= (size_t)(end - p);
        p = end;
    }
    return true;
}

static void conn_read(struct conn *c)
{
    char piece[65536];
    ssize_t n = read(c->fd, piece, sizeof piece);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !conn_feed(c, piece, (size_t)n)) {
        conn_close(c);
        return;
    }
    conn_write(c);
}

/* ---- the loop ---- */

static void read_gateway(void)
{
    char piece[65536];
    ssize_t n = recv(3, piece, sizeof piece, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        _exit(0);
    buf_add(&api.in, piece, (size_t)n);
    if (api.have || api.in.n < sizeof api.call)
        return;
    memcpy(&api.call, api.in.p, sizeof api.call);
    if (api.in.n < sizeof api.call + api.call.n)
        return;
    api.texts = xmalloc((size_t)api.call.n + 1);
    memcpy(api.texts, api.in.p + sizeof api.call, api.call.n);
    buf_eat(&api.in, sizeof api.call + api.call.n);
    api.have = true;
    if (!api.child)
        start_runtime();
    give();
    for (int i = 0; i < CONNS_MAX; i++)
        if (api.conns[i].fd >= 0 && api.conns[i].out.n)
            conn_write(&api.conns[i]);
}

/* We are the first process in here: every orphan is ours. The runtime's end is the instance's. */
static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(api.signals, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == api.child)
            _exit(api.ahead && !api.inited && !api.have ? LEAVE_UNSEEN
                  : WIFEXITED(status)                   ? WEXITSTATUS(status)
                                                        : 128 + WTERMSIG(status));
}

static int listen_here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9001)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) { /* shared with others: any port */
        at.sin_port = 0;
        if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
            return -1;
    }
    if (listen(fd, 16) < 0 || getsockname(fd, (struct sockaddr *)&at, &n) < 0)
        return -1;
    api.port = ntohs(at.sin_port);
    return fd;
}

/* Serves until the instance ends. argv: the runtime's program, NULL at the end. now: start it without
 * waiting for a call; ahead: none has come yet. ready_us: when the sandbox stood. */
EXPORT void z_serve_api(const char *const *argv, int now, int ahead, uint64_t timeout_ms, uint64_t ready_us);
EXPORT void z_serve_api(const char *const *argv, int now, int ahead, uint64_t timeout_ms, uint64_t ready_us)
{
    sigset_t set;

    api.argv = argv;
    api.ahead = ahead && now;
    api.timeout_ms = timeout_ms;
    api.ready_us = ready_us;
    buf_init(&api.in, INSTANCE_FRAME_MAX + sizeof(struct instance_frame));
    llhttp_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    for (int i = 0; i < CONNS_MAX; i++)
        api.conns[i].fd = -1;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    api.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    api.listener = listen_here();
    if (api.signals < 0 || api.listener < 0) {
        dprintf(2, "the Runtime API cannot listen: %s\n", strerror(errno));
        _exit(125);
    }
    if (now)
        start_runtime();
    for (;;) {
        struct pollfd p[3 + CONNS_MAX] = {{3, POLLIN, 0}, {api.signals, POLLIN, 0}, {api.listener, POLLIN, 0}};

        for (int i = 0; i < CONNS_MAX; i++)
            p[3 + i] = (struct pollfd){api.conns[i].fd, (short)(POLLIN | (api.conns[i].out.n ? POLLOUT : 0)), 0};
        if (poll(p, 3 + CONNS_MAX, -1) < 0 && errno != EINTR)
            _exit(125);
        for (int i = 0; i < CONNS_MAX; i++) {
            struct conn *c = &api.conns[i];

            if (c->fd >= 0 && (p[3 + i].revents & POLLOUT))
                conn_write(c);
            if (c->fd >= 0 && (p[3 + i].revents & (POLLIN | POLLHUP | POLLERR)))
                conn_read(c);
        }
        if (p[0].revents)
            read_gateway();
        if (p[1].revents)
            reap(); /* after the sockets: what it said last counts */
        if (p[2].revents & POLLIN)
            conn_new();
    }
}
