/* Goal: logs come whole and in order, whatever the options and rotations; exec over WebSocket
 * carries streams, the end of stdin and the exit code. Method: the streaming files with a stand-in
 * for the pods (files of the test, processes of this machine), asked over real sockets. */
#include "tt.h"

#include "base/buf.h"
#include "http/server.h"
#include "node/access.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

static char dir[] = "/tmp/tandem-stream-XXXXXX";
static char log_path[64];
static atomic_bool running;
static bool log_there = true;
static uv_loop_t loop;
static int port;

/* --- the pods --- */

int node_find(struct node *n, const char *ns, const char *pod, const char *container, bool previous,
              struct node_container *ret, struct err *err)
{
    (void)n;
    (void)ns;
    (void)container;
    if (!streq(pod, "p"))
        return err_set(err, NOT_FOUND, "pods \"%s\" not found", pod);
    *ret = (struct node_container){.uid = "u", .name = "c", .log_path = log_there && !previous ? log_path : NULL,
                                   .running = running, .why = "ContainerCreating"};
    return 0;
}

struct node_exec {
    struct node_exec_args args;
    pid_t pid;
    uv_timer_t timer;
    bool forgotten;
};

static void exec_look(uv_timer_t *t)
{
    struct node_exec *e = container_of(t, struct node_exec, timer);
    int status;

    if (waitpid(e->pid, &status, WNOHANG) != e->pid)
        return;
    uv_close((uv_handle_t *)t, (uv_close_cb)NULL);
    if (!e->forgotten)
        e->args.exited(e->args.arg, e, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void exec_tell(uv_timer_t *t)
{
    struct node_exec *e = container_of(t, struct node_exec, timer);

    uv_timer_start(t, exec_look, 5, 5);
    if (!e->forgotten)
        e->args.started(e->args.arg, e, -1);
}

int node_exec(struct node *n, const struct node_exec_args *args, struct node_exec **ret_e, struct err *err)
{
    static struct node_exec one[16];
    static int at;
    struct node_exec *e = &one[at++];
    posix_spawn_file_actions_t fa;

    (void)n;
    (void)err;
    *e = (struct node_exec){.args = *args};
    posix_spawn_file_actions_init(&fa);
    for (int i = 0; i < 3; i++)
        if (args->stdio[i] >= 0)
            posix_spawn_file_actions_adddup2(&fa, args->stdio[i], i);
    assert_int_equal(posix_spawnp(&e->pid, args->command[0], &fa, NULL, (char **)(uintptr_t)args->command, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    uv_timer_init(&loop, &e->timer);
    uv_timer_start(&e->timer, exec_tell, 1, 0);
    *ret_e = e;
    return 0;
}

void node_exec_signal(struct node_exec *e, int sig)
{
    kill(e->pid, sig);
}

void node_exec_forget(struct node_exec *e)
{
    e->forgotten = true;
}

int node_attach(struct node *n, const char *ns, const char *pod, const char *container, const int stdio[3],
                void (*done)(void *arg, const struct err *err), void *arg, struct err *err)
{
    (void)n, (void)ns, (void)pod, (void)container, (void)stdio, (void)done, (void)arg;
    return err_set(err, NOT_IMPLEMENTED, "no attach here");
}

int node_resize(struct node *n, const char *ns, const char *pod, const char *container, int rows, int cols, struct err *err)
{
    (void)n, (void)ns, (void)pod, (void)container, (void)rows, (void)cols, (void)err;
    return 0;
}

int node_pod_socket(struct node *n, const char *ns, const char *pod, int *ret_fd, struct err *err)
{
    (void)n, (void)ns;
    if (!streq(pod, "p"))
        return err_set(err, NOT_FOUND, "pods \"%s\" not found", pod);
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return 0;
}

/* --- asking --- */

static void on_request(struct http_req *req, void *arg)
{
    if (!node_stream_request(arg, req))
        http_reply_str(req, 404, "text/plain", "no such path");
}

struct ask {
    uv_work_t work;
    const char *target, *headers; /* headers: NULL for a plain GET */
    const uint8_t *send;          /* after the answer's head: frames */
    size_t send_n;
    void (*meanwhile)(void);
    struct buf got; /* all of it, to the end */
    int status;
    char *body;
    size_t body_n;
};

static void ask_work(uv_work_t *w)
{
    struct ask *a = container_of(w, struct ask, work);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval wait = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct buf q = {0};
    bool sent = false;
    ssize_t n;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    buf_printf(&q, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", a->target, a->headers ? a->headers : "Connection: close\r\n");
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && send(fd, q.p, q.n, 0) == (ssize_t)q.n)
        do {
            buf_reserve(&a->got, 65536);
            n = recv(fd, a->got.p + a->got.n, 65536, 0);
            if (n > 0) {
                a->got.n += (size_t)n;
                a->got.p[a->got.n] = 0;
            }
            if (!sent && a->got.n && strstr(a->got.p, "\r\n\r\n")) {
                sent = true;
                if (a->send_n && send(fd, a->send, a->send_n, 0) < 0)
                    break;
                if (a->meanwhile)
                    a->meanwhile();
            }
        } while (n > 0);
    close(fd);
    buf_done(&q);
}

static void ask_done(uv_work_t *w, int status)
{
    (void)status;
    uv_stop(w->loop);
}

static void unchunk(struct ask *a)
{
    char *to = a->body, *from = a->body;

    for (;;) {
        char *end;
        size_t n = strtoul(from, &end, 16);

        if (!n || end == from)
            break;
        from = end + 2;
        memmove(to, from, n);
        to += n;
        from += n + 2;
    }
    *to = 0;
    a->body_n = (size_t)(to - a->body);
}

static void ask(struct ask *a)
{
    uv_queue_work(&loop, &a->work, ask_work, ask_done);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(a->got.n > 12);
    a->status = (int)strtol(a->got.p + 9, NULL, 10);
    a->body = strstr(a->got.p, "\r\n\r\n");
    assert_non_null(a->body);
    a->body += 4;
    a->body_n = a->got.n - (size_t)(a->body - a->got.p);
    if (strcasestr(a->got.p, "transfer-encoding: chunked"))
        unchunk(a);
}

static void expect_log(const char *query, const char *want)
{
    char target[256];
    struct ask a = {.target = target};

    snprintf(target, sizeof(target), "/containerLogs/ns/p/c?%s", query);
    ask(&a);
    assert_int_equal(a.status, 200);
    if (!streq(a.body, want))
        fail_msg("%s: \"%s\" instead of \"%s\"", query, a.body, want);
    buf_done(&a.got);
}

static void put(const char *suffix, const char *text, const char *how)
{
    char path[96];
    FILE *f;

    snprintf(path, sizeof(path), "%s%s", log_path, suffix);
    f = fopen(path, how);
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* --- tests --- */

#define T0 "2026-01-01T00:00:00.100000000Z"
#define T1 "2026-01-01T00:00:01.000000000Z"
#define T2 "2026-01-01T00:00:02.500000000Z"

static void logs_with_options(void **state)
{
    (void)state;
    running = false;
    put(".2", T0 " stdout F a\n" T0 " stdout F b\n", "w");
    put(".1", T1 " stderr F c\n" T1 " stdout P par\n", "w"); /* a rotation within a line */
    put("", T1 " stdout F tial\n" T2 " stdout F e\nbroken\n" T2 " stdout F \n", "w");
    expect_log("", "a\nb\nc\npartial\ne\n\n");
    expect_log("tailLines=2", "\n");  /* raw lines: a broken one counts */
    expect_log("tailLines=3", "e\n\n");
    expect_log("tailLines=5", "partial\ne\n\n");
    expect_log("tailLines=6", "c\npartial\ne\n\n");
    expect_log("tailLines=7", "b\nc\npartial\ne\n\n");
    expect_log("tailLines=8", "a\nb\nc\npartial\ne\n\n");
    expect_log("tailLines=800", "a\nb\nc\npartial\ne\n\n");
    expect_log("tailLines=0", "");
    expect_log("limitBytes=5", "a\nb\nc");
    expect_log("timestamps=true&tailLines=5", T1 " partial\n" T2 " e\n" T2 " \n");
    expect_log("sinceTime=2026-01-01T00:00:02Z", "e\n\n");
    expect_log("sinceTime=2026-01-01T00:00:02.5Z", "e\n\n");
    expect_log("sinceTime=2026-01-01T00:00:02.500000001Z", "");
    expect_log("sinceTime=2026-01-01T02:00:02%2B02:00", "e\n\n");
    expect_log("sinceSeconds=5", "");
    expect_log("stream=Stderr", "c\n");
    expect_log("follow=true&tailLines=3", "e\n\n"); /* it has ended */
}

static void logs_that_cannot_be(void **state)
{
    static const struct {
        const char *target;
        int status;
        const char *says;
    } t[] = {{"/containerLogs/ns/nosuch/c", 404, "not found"},
             {"/containerLogs/ns/p/c?tailLines=-1", 422, "tailLines"},
             {"/containerLogs/ns/p/c?sinceTime=yesterday", 400, "yesterday"},
             {"/containerLogs/ns/p/c?previous=true", 400, "previous terminated container"},
             {"/exec/ns/p/c?command=true&output=1", 400, "pgrade"},
             {"/portForward/ns/p", 400, "pgrade"},
             {"/containerLogs/ns/p", 404, ""},
             {"/containerLogs/ns/p/c/d", 404, ""}};

    (void)state;
    running = true;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct ask a = {.target = t[i].target};

        ask(&a);
        if (a.status != t[i].status || !strstr(a.body, t[i].says))
            fail_msg("%s: %d %s", t[i].target, a.status, a.body);
        buf_done(&a.got);
    }
    log_there = false;
    struct ask a = {.target = "/containerLogs/ns/p/c"};
    ask(&a);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "waiting to start: ContainerCreating"));
    buf_done(&a.got);
    log_there = true;
}

static void write_and_rotate(void)
{
    char path[96];

    for (int i = 0; i < 40; i++) {
        char line[64];

        snprintf(line, sizeof(line), T1 " stdout F %d\n", i);
        put("", line, "a");
        if (i % 15 == 14) {
            snprintf(path, sizeof(path), "%s.1", log_path);
            rename(log_path, path);
        }
        usleep(5000);
    }
    running = false;
}

static void following_loses_nothing_at_a_rotation(void **state)
{
    struct ask a = {.target = "/containerLogs/ns/p/c?follow=true", .meanwhile = write_and_rotate};
    struct buf want = {0};
    char path[96];

    (void)state;
    for (int i = 1; i < 3; i++) {
        snprintf(path, sizeof(path), "%s.%d", log_path, i);
        unlink(path);
    }
    put("", T0 " stdout F first\n", "w");
    running = true;
    ask(&a);
    buf_adds(&want, "first\n");
    for (int i = 0; i < 40; i++)
        buf_printf(&want, "%d\n", i);
    assert_string_equal(a.body, want.p);
    buf_done(&want);
    buf_done(&a.got);
}

#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

/* What came on a channel of the frames behind the head. */
static void channel(const struct ask *a, int which, char ret[4096])
{
    const uint8_t *p = (const uint8_t *)a->body, *end = p + a->body_n;
    size_t n = 0;

    while (end - p >= 2) {
        size_t len = p[1] & 127;
        const uint8_t *data = p + 2;

        if (len == 126) {
            len = (size_t)(p[2] << 8 | p[3]);
            data += 2;
        }
        if ((p[0] & 15) <= 2 && len && data[0] == which) {
            memcpy(ret + n, data + 1, len - 1);
            n += len - 1;
        }
        p = data + len;
    }
    ret[n] = 0;
}

static void exec_over_websocket(void **state)
{
    static const uint8_t v5[] = {0x82, 0x84, 0, 0, 0, 0, 0, 'h', 'i', '\n',  /* stdin "hi\n", mask 0 */
                                 0x82, 0x82, 0, 0, 0, 0, 255, 0};           /* the end of stdin */
    struct ask a = {.target = "/exec/ns/p/c?command=sh&command=-c&command=cat;echo%20err%20%3E%262;exit%205&input=1&output=1&error=1",
                    .headers = UPGRADE "Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n", .send = v5, .send_n = sizeof(v5)};
    char text[4096];

    (void)state;
    running = true;
    ask(&a);
    assert_int_equal(a.status, 101);
    channel(&a, 1, text);
    assert_string_equal(text, "hi\n");
    channel(&a, 2, text);
    assert_string_equal(text, "err\n");
    channel(&a, 3, text);
    assert_non_null(strstr(text, "NonZeroExitCode"));
    assert_non_null(strstr(text, "\"message\":\"5\""));
    buf_done(&a.got);
    struct ask b = {.target = "/exec/ns/p/c?command=true&output=1", .headers = UPGRADE "Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n"};
    b.headers = UPGRADE "Sec-WebSocket-Protocol: v9.channel.k8s.io\r\nConnection: close\r\n";
    ask(&b);
    assert_int_equal(b.status, 400);
    buf_done(&b.got);
}

static int setup(void **state)
{
    struct http_server_opts o = {.on_request = on_request};
    struct http_server *s;
    struct err err = {0};

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(dir));
    snprintf(log_path, sizeof(log_path), "%s/0.log", dir);
    uv_loop_init(&loop);
    s = http_server_new(&loop, &o, &err);
    assert_non_null(s);
    port = http_server_port(s);
    *state = s;
    return 0;
}

static void stopped(void *arg)
{
    (void)arg;
}

static int teardown(void **state)
{
    char cmd[64];

    http_server_stop(*state, 100, stopped, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logs_with_options),
        cmocka_unit_test(logs_that_cannot_be),
        cmocka_unit_test(following_loses_nothing_at_a_rotation),
        cmocka_unit_test(exec_over_websocket),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
