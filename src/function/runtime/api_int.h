/* function/runtime/api_int.h - between the files of the Runtime API (all of zygote.so).
 *   api.c    the loop, the gateway's socket, the runtime's process, invocations
 *   conn.c   HTTP connections: requests in, answers out
 *   ext.c    extensions
 *   telemetry.c  what extensions are told of output and of the platform
 *
 * One process, one thread, one loop over poll(). It runs as the function's user behind the same
 * filter: what it says is trusted no more than the function itself. */
#pragma once

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "function/runtime/zygote.h"

#include <poll.h>

#include <llhttp.h>

enum { CONNS_MAX = 928, CONNS_FEW = 96, /* with one call at a time */ BODY_MAX = 6 * 1024 * 1024 + 100, HEAD_MAX = 16384, FIELDS_MAX = 512 * 1024 };

struct task;
struct ext;

struct conn {
    int fd; /* -1: free */
    llhttp_t parser;
    struct buf url, fields, body, out; /* fields: NAME 0 VALUE 0 ..., trailers behind headers */
    size_t out_at;
    bool waiting; /* for the next invocation */
    bool whole, too_large, close;
    struct task *stream; /* its body goes to the gateway as it comes */
    struct ext *ext;     /* an extension waits here for its next event */
};

/* conn.c */
extern struct conn conns[CONNS_MAX];
extern int conns_n; /* of them are used */
int conns_open(int places); /* listens on the loopback, for so many calls at once; the port, or -1 with errno */
int conns_poll(struct pollfd *p); /* fills in up to CONNS_MAX + 1 of them, and says how many */
void conns_ready(const struct pollfd *p);
void conns_flush(void); /* what lies in their buffers, as far as it goes now */
/* The last value of that name (any case); NULL: none. Borrowed until the request is answered. */
const char *conn_field(const struct conn *c, const char *name);
void conn_answer(struct conn *c, int status, const char *word, const char *type, const char *body, size_t n);
void conn_error(struct conn *c, int status, const char *word, const char *type, const char *message);
void conn_accepted(struct conn *c); /* 202 {"status":"OK"} */
void conn_write(struct conn *c);
/* A line of an answer's head; what is no text becomes blanks. Nothing when n is 0. */
void conn_header(struct buf *b, const char *name, const char *value, size_t n);

/* ext.c */
void ext_start(void); /* those of /opt/extensions */
bool ext_all_registered(void);
bool ext_all_ready(void);
int ext_kind(void); /* 0: none, 1: external ones, 2: only internal ones */
void ext_invoke(const struct instance_frame *f, const char *texts);
/* Tells them to end; true: there are processes to wait for. */
bool ext_shutdown(const char *reason, uint64_t deadline_ms);
bool ext_exited(pid_t pid, const char **ret_name); /* false: it was none of them */
bool ext_any_alive(void);
void ext_conn_gone(struct conn *c);
const char *ext_name(struct conn *c); /* who sends this request; NULL: an error was answered */
/* A request below /2020-01-01/extension/. Not NULL: an extension says that it failed; the type of the error. */
const char *ext_request(struct conn *c, const char *what, bool get, bool inited);

/* telemetry.c */
enum { TELEMETRY_SOURCES = 12 };
int telemetry_pipe(bool extension); /* where a program is to print to, close it after its start; -1: where we do */
int telemetry_poll(struct pollfd *p); /* fills in TELEMETRY_SOURCES of them */
void telemetry_ready(const struct pollfd *p);
void telemetry_drain(void); /* what lies in the pipes now */
/* An event of the platform; the record is JSON text. */
void telemetry_event(const char *type, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void telemetry_closed(void); /* nobody subscribes any more */
void telemetry_flush(bool all); /* batches that are due, or all */
int telemetry_next_ms(void);    /* until one is due; -1: none waits */
void telemetry_subscribe(struct conn *c, const char *name, bool legacy, bool inited);

/* api.c */
void api_request(struct conn *c);     /* a request is whole */
void api_head(struct conn *c);        /* its head is: c->stream is set when the body goes to api_stream() */
void api_stream(struct conn *c, const char *p, size_t n);
void api_stream_broken(struct conn *c); /* the connection ended in the middle */
bool api_held_back(void);             /* the gateway takes no more for now */
uint64_t wall_ms(void);
