/* tests/fuzz/fuzz_http.h - hands bytes of the fuzzer to a server on a real Unix socket: what they are
 * preceded by (an upgrade, or nothing) is each target's own. Every connection must be over when the client
 * has gone. */
#pragma once

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "http/server.h"
#include "http/spdy.h"
#include "http/ws.h"

static uv_loop_t loop;
static struct http_server *server;
static char path[64];

static void on_body(struct http_req *q, char *p, size_t n, const struct err *err, void *arg)
{
    (void)arg;
    if (err && http_gone(q))
        http_abort(q);
    else
        http_reply(q, err ? err_http(err->code) : 200, "text/plain", err ? err->msg : p, err ? strlen(err->msg) : n);
}
static void on_message(struct ws *ws, enum ws_type type, const char *p, size_t n, void *arg)
{
    (void)arg;
    ws_send(ws, type, p, n);
}
static void on_data(struct spdy_stream *st, const char *p, size_t n, void *arg)
{
    (void)arg;
    spdy_write(st, p, n);
}
static void on_stream(struct spdy_stream *st, void *arg)
{
    (void)arg;
    spdy_stream_on(st, &(struct spdy_stream_opts){.on_data = on_data});
    spdy_reply(st);
}
static void on_request(struct http_req *q, void *arg)
{
    struct err err;

    (void)arg;
    if (ws_wanted(q) && ws_accept(q, NULL, &(struct ws_opts){.message_bytes_max = 65536, .on_message = on_message}, &err))
        return;
    if (spdy_wanted(q) && spdy_accept(q, NULL, &(struct spdy_opts){.on_stream = on_stream}, &err))
        return;
    (void)http_param(q, "a");
    http_body(q, 100000, on_body, NULL);
}

static void one(const char *before, const uint8_t *p, size_t n)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct err err;
    char sink[4096];
    int fd;

    if (!server) {
        uv_loop_init(&loop);
        snprintf(path, sizeof path, "/tmp/tandem-fuzz-%d.sock", (int)getpid());
        server = http_server_new(&loop, &(struct http_server_opts){.unix_path = path, .on_request = on_request}, &err);
        if (!server)
            abort();
    }
    if (n > 100000)
        return;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    memcpy(a.sun_path, path, sizeof path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        abort();
    if (write(fd, before, strlen(before)) < 0 || write(fd, p, n) < 0)
        (void)0; /* what does not fit is not sent */
    for (int i = 0; i < 8; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        while (read(fd, sink, sizeof sink) > 0)
            ;
    }
    close(fd);
    for (int i = 0; i < 1000 && http_server_conns(server); i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    if (http_server_conns(server))
        abort();
}
