/* api.c of zygote.so - Lambda's Runtime API in the sandbox, for runtimes that are programs of their own
 * (provided.*, nodejs*): the first process of the instance stays, starts the runtime, and translates
 * between the frames of the gateway's socket (descriptor 3) and HTTP on the instance's loopback.
 *
 *   frame INVOKE --> answer of GET .../invocation/next      POST .../ID/response|error --> frame RESULT
 *
 * An answer that streams (Lambda-Runtime-Function-Response-Mode: streaming) becomes STREAM, DATA as
 * it comes, and RESULT at its end. When the gateway does not take it, we do not read it: the runtime
 * is held back by its own socket. */
#include "function/runtime/api_int.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define RUNTIME "/2018-06-01/runtime/"
#define INVOCATION RUNTIME "invocation/"
#define EXTENSION "/2020-01-01/extension/"

enum { LEAVE_UNSEEN = 124, HELD_BYTES = 256 * 1024 };

/* An invocation that the gateway sent and that has no result yet. */
struct task {
    struct list link; /* api.tasks, oldest first */
    struct instance_frame f;
    bool given;    /* the runtime has it */
    uint64_t given_us;
    bool streams;  /* its answer is on its way in, on the one connection that began it */
    char texts[]; /* request id, trace, arn, client context, payload: as the frame has them */
};

static struct {
    int signals, port;
    pid_t child; /* 0: not started yet */
    const char *const *argv;
    int http_port; /* 0: the runtime speaks the Runtime API */
    int debug_port; /* of its debugger; 0: none */
    bool begun;    /* extensions were started, the runtime follows them */
    uint64_t end_us; /* shutting down: when it is over */
    struct buf in, out; /* of the gateway's socket */
    size_t out_at;
    struct list tasks;
    bool inited, ahead;
    uint64_t started_us, init_us, ready_us, handler_us, timeout_ms;
} api;

uint64_t wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the gateway's side ---- */

static void flush_gateway(int flags)
{
    while (api.out_at < api.out.n) {
        ssize_t n = send(3, api.out.p + api.out_at, api.out.n - api.out_at, MSG_NOSIGNAL | flags);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            _exit(0); /* the gateway has gone */
        api.out_at += (size_t)n;
    }
    api.out_at = 0;
    buf_reset(&api.out);
}

bool api_held_back(void)
{
    return api.out.n - api.out_at > HELD_BYTES;
}

_Noreturn static void leave(int status)
{
    telemetry_drain();
    telemetry_flush(true);
    flush_gateway(0);
    _exit(status);
}

/* The most memory the runtime has had, in KiB. The kernel writes a page of text for it: a call of less than a third of
 * a millisecond, which touches no megabyte, gets what was seen a moment ago. */
static uint64_t child_peak_kb(void)
{
    static uint64_t seen_kb, seen_us;
    char path[64], text[4096], *at;
    uint64_t now = mono_us();
    ssize_t n = -1;
    int fd;

    if (seen_us && api.handler_us < 300 && now - seen_us < 50000)
        return seen_kb;
    seen_us = now;
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
    return seen_kb = at ? strtoull(at + 6, NULL, 10) : 0;
}

static void tell(uint8_t type, uint8_t result, uint64_t id, const void *body, size_t n)
{
    struct instance_frame f = {.n = (uint32_t)n, .type = type, .result = result, .id = id};

    if (type == FRAME_RESULT) {
        f.a = child_peak_kb();
        f.b = api.init_us;
        f.c = api.ready_us;
        f.d = api.handler_us;
        api.init_us = 0; /* told once */
    }
    buf_add(&api.out, &f, sizeof f);
    if (n)
        buf_add(&api.out, body, n);
    flush_gateway(MSG_DONTWAIT);
}

/* The end of an invocation, for those who subscribed to the platform's events. */
static void tell_subscribers(const struct task *t, uint8_t result, uint64_t init_us, size_t bytes)
{
    const char *status = result == RESULT_OK ? "success" : "error", *memory = getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
    uint64_t billed = (api.handler_us + init_us + 999) / 1000;
    char init[64] = "";

    if (init_us)
        snprintf(init, sizeof init, ",\"initDurationMs\":%.3f", (double)init_us / 1000);
    telemetry_event("platform.runtimeDone", "{\"requestId\":\"%.*s\",\"status\":\"%s\",\"metrics\":{\"durationMs\":%.3f,\"producedBytes\":%zu}}",
                    t->f.request_id_n, t->texts, status, (double)api.handler_us / 1000, bytes);
    telemetry_event("platform.report", "{\"requestId\":\"%.*s\",\"status\":\"%s\",\"metrics\":{\"durationMs\":%.3f,\"billedDurationMs\":%llu,"
                    "\"memorySizeMB\":%d,\"maxMemoryUsedMB\":%llu%s}}", t->f.request_id_n, t->texts, status, (double)api.handler_us / 1000,
                    (unsigned long long)billed, memory ? atoi(memory) : 0, (unsigned long long)(child_peak_kb() + 1023) / 1024, init);
}

static void finish(struct task *t, uint8_t result, const void *body, size_t n)
{
    uint64_t id = t->f.id;

    uint64_t init_us = api.init_us;

    api.handler_us = t->given ? MAX(mono_us() - t->given_us, (uint64_t)1) : 0;
    telemetry_drain(); /* what it printed lies in the log before its answer does */
    tell(FRAME_RESULT, result, id, body, n);
    list_remove(&t->link);
    if (ext_kind())
        tell_subscribers(t, result, init_us, n);
    free(t);
}

static void start_runtime(void);

/* Extensions first; the runtime when all of them are registered. */
static void begin(void)
{
    char text[32];

    if (!api.begun) {
        api.begun = true;
        snprintf(text, sizeof text, "127.0.0.1:%d", api.port);
        setenv("AWS_LAMBDA_RUNTIME_API", text, 1);
        api.started_us = mono_us();
        ext_start();
        if (ext_kind())
            telemetry_event("platform.initStart", "{\"initializationType\":\"on-demand\",\"phase\":\"init\",\"functionName\":\"%s\",\"functionVersion\":\"%s\"}",
                            getenv("AWS_LAMBDA_FUNCTION_NAME"), getenv("AWS_LAMBDA_FUNCTION_VERSION"));
    }
    if (!api.child && ext_all_registered())
        start_runtime();
}

static struct task *first_task(bool given);
static void not_started(const char *why);
static void die(const char *type, const char *why);
static void read_gateway(void);

static void start_runtime(void)
{
    sigset_t none;
    char text[1280];
    int n, ends[2]; /* closes when the program runs, else says why it does not */
    int out = ext_kind() ? telemetry_pipe(false) : -1;

    api.child = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
    if (api.child < 0) {
        dprintf(2, "start the runtime: %s\n", strerror(errno));
        _exit(125);
    }
    if (api.child) {
        if (out >= 0)
            close(out);
        close(ends[1]);
        n = (int)read(ends[0], text, sizeof text - 1);
        close(ends[0]);
        if (n > 0) {
            text[n] = 0;
            not_started(text);
        }
        return;
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close(3); /* the rest is close-on-exec */
    if (out >= 0 && (dup2(out, 1) < 0 || dup2(out, 2) < 0))
        _exit(126);
    if (api.argv[0])
        execvp(api.argv[0], (char *const *)api.argv);
    else
        errno = ENOENT;
    if (errno == ENOENT && api.argv[0] && streq(api.argv[0], "/opt/bootstrap"))
        n = snprintf(text, sizeof text, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]");
    else
        n = snprintf(text, sizeof text, "fork/exec %s: %s", api.argv[0] ? api.argv[0] : "(no entry point)", strerror(errno));
    (void)!write(ends[1], text, (size_t)MIN(n, (int)sizeof text - 1));
    _exit(126);
}

static void not_started(const char *why)
{
    dprintf(2, "%s\tRuntime.InvalidEntrypoint\n", why);
    die("Runtime.InvalidEntrypoint", why);
}

/* Ends the instance; whoever calls, or comes first, is told why. */
static void die(const char *type, const char *why)
{
    struct task *t = list_empty(&api.tasks) ? NULL : list_entry(api.tasks.next, struct task, link);
    struct buf b = {0};

    if (!t && api.inited)
        leave(1); /* it is idle: nobody's affair */
    if (api.ahead && !t)
        _exit(LEAVE_UNSEEN);
    for (; !t; t = first_task(false)) { /* the call that we were forked for is on its way */
        struct pollfd p = {3, POLLIN, 0};

        poll(&p, 1, -1);
        read_gateway();
    }
    buf_printf(&b, "{\"errorType\":\"%s\",\"errorMessage\":\"RequestId: %.*s Error: ", strpbrk(type, "\"\\") ? "Extension.Error" : type,
               t->f.request_id_n, t->texts);
    for (const char *s = why; *s; s++)
        buf_addc(&b, *s == '"' || *s == '\\' || (uint8_t)*s < ' ' ? '?' : *s);
    buf_adds(&b, "\"}");
    finish(t, RESULT_INIT_ERROR, b.p, b.n);
    leave(1);
}

/* ---- invocations ---- */

static struct task *first_task(bool given)
{
    LIST_EACH(&api.tasks, l)
    if (list_entry(l, struct task, link)->given == given)
        return list_entry(l, struct task, link);
    return NULL;
}

/* The task of .../ID/...; NULL: none that the runtime has. */
static struct task *task_of(const char *id, size_t n)
{
    LIST_EACH(&api.tasks, l)
    {
        struct task *t = list_entry(l, struct task, link);

        if (t->given && !t->streams && t->f.request_id_n == n && memcmp(t->texts, id, n) == 0)
            return t;
    }
    return NULL;
}

static struct conn *waiting_conn(void)
{
    for (int i = 0; i < conns_n; i++)
        if (conns[i].fd >= 0 && conns[i].waiting)
            return &conns[i];
    return NULL;
}

/* The runtime asks for work the first time: it is initialised. */
static void became_ready(void)
{
    struct task *t = first_task(false);

    api.inited = true;
    if (ext_kind()) {
        telemetry_event("platform.initRuntimeDone", "{\"initializationType\":\"on-demand\",\"phase\":\"init\",\"status\":\"success\"}");
        telemetry_event("platform.initReport", "{\"initializationType\":\"on-demand\",\"phase\":\"init\",\"status\":\"success\",\"metrics\":{\"durationMs\":%.3f}}",
                        (double)(mono_us() - api.started_us) / 1000);
        telemetry_closed();
    }
    if (api.ahead || !t) {
        tell(FRAME_INITED, (uint8_t)ext_kind(), 0, NULL, 0);
        return;
    }
    api.init_us = MAX(mono_us() - api.started_us, (uint64_t)1);
    tell(FRAME_INITED, (uint8_t)ext_kind(), t->f.id, NULL, 0);
    t->f.a = wall_ms() + api.timeout_ms; /* the handler's time starts here */
}

static void give_one(struct conn *c, struct task *t)
{
    const struct instance_frame *f = &t->f;
    const char *at = t->texts;
    size_t body_n = f->n - f->request_id_n - f->trace_n - f->arn_n - f->client_context_n;
    char text[32];

    buf_adds(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    conn_header(&c->out, "Lambda-Runtime-Aws-Request-Id", at, f->request_id_n);
    at += f->request_id_n;
    conn_header(&c->out, "Lambda-Runtime-Trace-Id", at, f->trace_n);
    at += f->trace_n;
    conn_header(&c->out, "Lambda-Runtime-Invoked-Function-Arn", at, f->arn_n);
    at += f->arn_n;
    conn_header(&c->out, "Lambda-Runtime-Client-Context", at, f->client_context_n);
    at += f->client_context_n;
    conn_header(&c->out, "Lambda-Runtime-Deadline-Ms", text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)f->a));
    buf_printf(&c->out, "Content-Length: %zu\r\n\r\n", body_n ? body_n : 2);
    buf_add(&c->out, body_n ? at : "{}", body_n ? body_n : 2);
    c->waiting = false;
    t->given = true;
    t->given_us = mono_us();
}

static void give(void)
{
    struct conn *c;
    struct task *t;

    if (!api.inited && waiting_conn() && ext_all_ready())
        became_ready();
    while ((t = first_task(false)) && (c = waiting_conn()) && ext_all_ready()) {
        give_one(c, t);
        ext_invoke(&t->f, t->texts);
        if (ext_kind())
            telemetry_event("platform.start", "{\"requestId\":\"%.*s\",\"version\":\"%s\"}", t->f.request_id_n, t->texts,
                            getenv("AWS_LAMBDA_FUNCTION_VERSION"));
    }
}

/* ---- the runtime's side ---- */

/* POST .../invocation/ID/response or /error. The task, or NULL when an error was answered. */
static struct task *outcome_of(struct conn *c, const char *rest, bool *ret_response)
{
    size_t id_n = strcspn(rest, "/");
    const char *what = rest + id_n;
    struct task *t = task_of(rest, id_n);

    *ret_response = streq(what, "/response");
    if (!*ret_response && !streq(what, "/error"))
        conn_error(c, 404, "Not Found", "NotFound", "404 page not found");
    else if (!t)
        conn_error(c, 400, "Bad Request", "InvalidRequestID", "Invalid request ID");
    else
        return t;
    return NULL;
}

static void on_outcome(struct conn *c, const char *rest)
{
    bool response;
    struct task *t = outcome_of(c, rest, &response);

    if (!t)
        return;
    if (c->too_large) {
        static const char TEXT[] = "{\"errorMessage\":\"Response payload size exceeded maximum allowed payload size (6291556 bytes).\","
                                   "\"errorType\":\"Function.ResponseSizeTooLarge\"}";

        conn_error(c, 413, "Request Entity Too Large", "RequestEntityTooLarge", "Exceeded maximum allowed payload size (6291556 bytes).");
        finish(t, RESULT_ERROR, TEXT, sizeof TEXT - 1);
    } else {
        conn_accepted(c);
        finish(t, response ? RESULT_OK : RESULT_ERROR, c->body.p ? c->body.p : "", c->body.n);
    }
}

static void on_init_error(struct conn *c)
{
    struct task *t = first_task(false);

    conn_accepted(c);
    (void)!send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (api.ahead && !t)
        _exit(LEAVE_UNSEEN); /* who has a call shall see how it fails: the next instance loads with it */
    if (t)
        finish(t, RESULT_INIT_ERROR, c->body.p ? c->body.p : "{}", c->body.p ? c->body.n : 2);
    leave(1);
}

/* ---- SnapStart: a runtime that takes part in it asks whether it has been restored ---- */

static bool snap_start(void)
{
    const char *kind = getenv("AWS_LAMBDA_INITIALIZATION_TYPE");

    return kind && streq(kind, "snap-start");
}

static void on_restore_error(struct conn *c)
{
    struct task *t = first_task(false);

    conn_accepted(c);
    (void)!send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (api.ahead && !t)
        _exit(LEAVE_UNSEEN);
    if (t)
        finish(t, RESULT_RESTORE_ERROR, c->body.p ? c->body.p : "{}", c->body.p ? c->body.n : 2);
    leave(1);
}

/* ---- answers that stream ---- */

void api_head(struct conn *c)
{
    const char *mode = conn_field(c, "Lambda-Runtime-Function-Response-Mode"), *expect = conn_field(c, "Expect"), *type;
    bool response;
    struct task *t;

    if (expect && strcasecmp(expect, "100-continue") == 0) {
        buf_adds(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        (void)!send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        buf_reset(&c->out);
    }
    if (!mode || strcasecmp(mode, "streaming") != 0 || c->parser.method != HTTP_POST || !str_starts(c->url.p, INVOCATION))
        return;
    t = task_of(c->url.p + sizeof INVOCATION - 1, strcspn(c->url.p + sizeof INVOCATION - 1, "/"));
    response = str_ends(c->url.p, "/response");
    if (!t || !response)
        return; /* answered when it is whole */
    c->stream = t;
    t->streams = true;
    type = conn_field(c, "Content-Type");
    tell(FRAME_STREAM, 0, t->f.id, type, type ? strlen(type) : 0);
}

void api_stream(struct conn *c, const char *p, size_t n)
{
    tell(FRAME_DATA, 0, c->stream->f.id, p, n);
}

void api_stream_broken(struct conn *c)
{
    static const char TEXT[] = "{\"errorMessage\":\"Response stream was closed before its end\",\"errorType\":\"Runtime.TruncatedResponse\"}";
    struct task *t = c->stream;

    c->stream = NULL;
    finish(t, RESULT_ERROR, TEXT, sizeof TEXT - 1);
}

static int base64_of(char c)
{
    return isupper(c) ? c - 'A' : islower(c) ? c - 'a' + 26 : isdigit(c) ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* What the trailer says of the error is JSON in base64; whoever sends it bare is understood, too. */
static void add_error_body(struct buf *b, const char *text)
{
    uint32_t bits = 0;
    int have = 0;

    if (*text == '{') {
        buf_adds(b, text);
        return;
    }
    for (; *text && base64_of(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)base64_of(*text);
        have += 6;
        if (have >= 8)
            buf_addc(b, (char)(bits >> (have -= 8)));
    }
}

static void on_stream_end(struct conn *c)
{
    const char *type = conn_field(c, "Lambda-Runtime-Function-Error-Type"), *body = conn_field(c, "Lambda-Runtime-Function-Error-Body");
    struct buf text = {0};
    struct task *t = c->stream;

    c->stream = NULL;
    conn_accepted(c);
    if (body)
        add_error_body(&text, body);
    if (type && !text.n)
        buf_printf(&text, "{\"errorType\":\"%.200s\",\"errorMessage\":\"\"}", strpbrk(type, "\"\\") ? "Unhandled" : type);
    finish(t, text.n ? RESULT_ERROR : RESULT_OK, text.p ? text.p : "", text.n);
    buf_done(&text);
}

/* ---- requests ---- */

void api_request(struct conn *c)
{
    bool get = c->parser.method == HTTP_GET, post = c->parser.method == HTTP_POST;
    const char *url = c->url.p;

    if (c->stream) {
        on_stream_end(c);
    } else if (get && streq(url, RUNTIME "restore/next") && snap_start()) {
        conn_answer(c, 200, "OK", "application/json", "", 0); /* nothing was saved: it is restored at once */
    } else if (post && streq(url, RUNTIME "restore/error") && snap_start()) {
        on_restore_error(c);
    } else if (get && streq(url, INVOCATION "next")) {
        c->waiting = true;
        give();
    } else if (post && str_starts(url, INVOCATION)) {
        on_outcome(c, url + sizeof INVOCATION - 1);
    } else if (c->parser.method == HTTP_PUT && (streq(url, "/2022-07-01/telemetry") || streq(url, "/2020-08-15/logs"))) {
        const char *name = ext_name(c);

        if (name)
            telemetry_subscribe(c, name, str_ends(url, "/logs"), api.inited);
    } else if ((get || post) && str_starts(url, EXTENSION)) {
        const char *failed = ext_request(c, url + sizeof EXTENSION - 1, get, api.inited);

        if (failed) {
            (void)!send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
            die(failed, "an extension reported that it failed");
        }
        if (api.begun)
            begin();
        give();
    } else if (post && streq(url, "/2018-06-01/runtime/init/error")) {
        on_init_error(c);
    } else {
        conn_error(c, 404, "Not Found", "NotFound", "404 page not found");
    }
}

/* ---- the loop ---- */

static void take_invoke(const struct instance_frame *f, const char *texts)
{
    struct task *t = xcalloc(1, sizeof *t + f->n + 1);

    t->f = *f;
    memcpy(t->texts, texts, f->n);
    list_push(&api.tasks, &t->link);
    begin();
    give();
}

/* ---- HTTP functions: connections to the program, handed to the gateway ---- */

static int connect_program(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), 
                             .sin_port = htons((uint16_t)(api.http_port ? api.http_port : api.debug_port))};
    struct timeval limit = {.tv_sec = 2};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void dial(uint64_t id)
{
    struct instance_frame f = {.type = FRAME_DIALED, .id = id};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } c = {0};
    struct iovec iov = {&f, sizeof f};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    int fd = connect_program();

    f.result = fd < 0;
    if (fd >= 0) {
        struct cmsghdr *h;

        m.msg_control = &c;
        m.msg_controllen = sizeof c.space;
        h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof fd);
    }
    if (sendmsg(3, &m, MSG_NOSIGNAL) < 0)
        _exit(0);
    if (fd >= 0)
        close(fd);
}

/* Does the program listen? Asked again and again after its start. */
static void knock(void)
{
    int fd = connect_program();

    if (fd < 0)
        return;
    close(fd);
    api.inited = true;
    tell(FRAME_INITED, 0, 0, NULL, 0);
}

/* SIGTERM to everybody in here; who is left at the end is killed with us. */
static void shut_down(uint64_t ms, uint64_t reason)
{
    api.end_us = mono_us() + ms * 1000;
    if (ext_kind()) {
        telemetry_drain();
        telemetry_flush(true);
        if (api.child > 0)
            kill(api.child, reason ? SIGKILL : SIGTERM);
        if (!ext_shutdown(reason ? "timeout" : "spindown", wall_ms() + ms) && !api.child)
            _exit(0);
        conns_flush();
        return;
    }
    kill(-1, SIGTERM);
    if (!api.child)
        _exit(0);
}

static void read_gateway(void)
{
    char piece[65536];
    ssize_t n = recv(3, piece, sizeof piece, MSG_DONTWAIT);
    struct instance_frame f;
    size_t at = 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        _exit(0);
    buf_add(&api.in, piece, (size_t)n);
    while (api.in.n - at >= sizeof f) {
        memcpy(&f, api.in.p + at, sizeof f);
        if (api.in.n - at < sizeof f + f.n)
            break;
        if (f.type == FRAME_INVOKE)
            take_invoke(&f, api.in.p + at + sizeof f);
        else if (f.type == FRAME_DIAL)
            dial(f.id);
        else if (f.type == FRAME_SHUTDOWN)
            shut_down(f.a, f.b);
        at += sizeof f + f.n;
    }
    if (at)
        buf_eat(&api.in, at);
    conns_flush();
}

/* We are the first process in here: every orphan is ours. The runtime's end is the instance's. */
static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(api.signals, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        const char *name;

        if (ext_exited(pid, &name)) {
            char why[200];

            if (api.end_us && !ext_any_alive())
                leave(0);
            if (api.end_us)
                continue;
            snprintf(why, sizeof why, "exit code %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
            dprintf(2, "EXTENSION\tName: %s\tState: Crashed\tError: %s\n", name, why);
            die("Extension.Crash", why);
        }
        if (pid == api.child && api.end_us && ext_any_alive())
            continue; /* extensions may take their time */
        if (pid == api.child)
            leave(api.end_us ? 0
                  : api.ahead && !api.inited && !api.http_port && list_empty(&api.tasks) ? LEAVE_UNSEEN
                  : WIFEXITED(status)                                ? WEXITSTATUS(status)
                                                                     : 128 + WTERMSIG(status));
    }
}

/* Until something is due, for poll(). */
static int next_ms(void)
{
    if (api.end_us) /* subscribers still get what comes late */
        return 1 + (int)(MAX(api.end_us, mono_us()) - mono_us()) / 1000;
    if (api.http_port && !api.inited) /* often at first, then not to be in the way */
        return mono_us() - api.started_us < 200000 ? 2 : 20;
    return telemetry_next_ms();
}

EXPORT void z_http(int port);
EXPORT void z_http(int port)
{
    api.http_port = port;
}

EXPORT void z_debug(int port);
EXPORT void z_debug(int port)
{
    api.debug_port = port;
}

/* Serves until the instance ends. argv: the runtime's program, NULL at the end. now: start it without
 * waiting for a call; ahead: none has come yet. ready_us: when the sandbox stood. */
EXPORT void z_serve_api(const char *const *argv, int now, int ahead, uint64_t timeout_ms, uint64_t ready_us);
EXPORT void z_serve_api(const char *const *argv, int now, int ahead, uint64_t timeout_ms, uint64_t ready_us)
{
    const char *most = getenv("AWS_LAMBDA_MAX_CONCURRENCY");
    sigset_t set;

    api.argv = argv;
    api.ahead = ahead && now;
    api.timeout_ms = timeout_ms;
    api.ready_us = ready_us;
    list_init(&api.tasks);
    prctl(PR_SET_DUMPABLE, 0); /* the program is of the same user: it shall not trace us, nor keep a descriptor that we hand out */
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    api.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    api.port = conns_open(most && atoi(most) > 1 ? atoi(most) : 0);
    if (api.signals < 0 || api.port < 0) {
        dprintf(2, "the Runtime API cannot listen: %s\n", strerror(errno));
        _exit(125);
    }
    if (now)
        begin();
    for (;;) {
        struct pollfd p[2 + CONNS_MAX + 1 + TELEMETRY_SOURCES];
        int n = 2 + conns_poll(p + 2), from = n;

        p[0] = (struct pollfd){3, (short)(POLLIN | (api.out.n ? POLLOUT : 0)), 0};
        p[1] = (struct pollfd){api.signals, POLLIN, 0};
        n += telemetry_poll(p + from);

        if (poll(p, (nfds_t)n, next_ms()) < 0 && errno != EINTR)
            _exit(125);
        if (api.end_us && mono_us() >= api.end_us)
            _exit(0);
        if (api.http_port && !api.inited && api.child)
            knock();
        telemetry_ready(p + from);
        telemetry_flush(api.end_us != 0);
        conns_ready(p + 2);
        if (p[0].revents & POLLOUT)
            flush_gateway(MSG_DONTWAIT);
        if (p[0].revents & ~POLLOUT)
            read_gateway();
        if (p[1].revents)
            reap(); /* after the sockets: what it said last counts */
    }
}
