/* http/http_int.h - the inside of the server: connections, requests, and what the two protocols
 * (h1.c, h2.c) do for a request. */
#pragma once

#include <llhttp.h>
#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/list.h"
#include "http/io_int.h"
#include "http/server.h"

enum conn_mode { C_NEW, C_H1, C_H2, C_RAW, C_LINGER };

struct req;

struct conn {
    struct io io;
    struct http_server *s; /* NULL once closed */
    struct list link;
    struct list kicked; /* requests whose held body wants to be handed over */
    struct list reqs;
    unsigned refs; /* 1 for the io, 1 per request */
    enum conn_mode mode;
    struct http_peer peer;
    struct arena *arena; /* of peer; NULL for cleartext */
    uint64_t since_ms;   /* last input, or when the state at hand began */
    uint64_t linger_ms;
    struct buf stash; /* input that nobody has parsed yet */

    /* HTTP/1.1 */
    llhttp_t parser;
    struct req *req;  /* the one in work */
    struct buf head;  /* url \0 name \0 value \0 ... */
    uint32_t fields;
    bool ev_head, ev_done, msg_done, too_big, broken, close_after, half_closed, in_head, discarding;
    bool in_feed;
    size_t discarded;

    nghttp2_session *h2;
    bool in_h2, goaway, noisy;
    uint32_t noise;     /* of frames that only make work: a bucket that runs empty with time (h2.c) */
    uint64_t noise_ms;
    size_t unframed;    /* bytes since the last frame that was for somebody */
    struct http_raw *raw;
};

struct http_raw {
    struct req *req;
    struct http_raw_opts o;
    bool closing, ended;
};

struct http_server {
    struct http_server_opts o;
    struct turn *turn;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } l;
    uv_timer_t tick;
    char *unix_path;
    int port;
    SSL_CTX *tls;
    struct list conns;
    uint32_t conns_n;
    unsigned handles;
    size_t bodies; /* bytes of collected bodies that requests hold */
    bool listening, stopping, ticking;
    uint64_t deadline_ms;
    void (*done)(void *);
    void *done_arg;
    struct arena *spare[32];
    unsigned spare_n;
    char date[40];
    time_t date_at;
    struct buf scratch;
};

struct req_ops {
    void (*start)(struct req *r);
    void (*write)(struct req *r, const void *p, size_t n);
    void (*borrow)(struct req *r, const void *p, size_t n, void (*release)(void *), void *arg);
    void (*end)(struct req *r);   /* the request may be freed by it */
    void (*abort)(struct req *r); /* so here */
    void (*go_on)(struct req *r); /* 100 Continue */
    void (*flow)(struct req *r, bool on);
    void (*credit)(struct req *r, size_t n); /* n body bytes were consumed */
    size_t (*queued)(const struct req *r);
};

enum body_mode { BODY_NONE, BODY_COLLECT, BODY_STREAM };

struct hdrs {
    struct http_header *h;
    size_t n, cap;
};

struct req {
    struct http_req pub;
    const struct req_ops *ops;
    struct conn *conn;
    struct list link, kick;
    bool given; /* to a handler, which will finish it */
    bool head_only, expect, started, finished, gone, close_told, chunked, no_body;
    int status;
    int64_t out_length, out_bytes;
    struct hdrs in, out, trailers, params;
    bool params_made, has_date;

    /* body in */
    enum body_mode mode;
    bool body_done, body_told, paused;
    struct err *body_err;
    struct buf held, all;
    size_t body_held; /* of conn.s.bodies */
    size_t body_max;
    void (*on_body)(struct http_req *, char *, size_t, const struct err *, void *);
    void (*on_data)(struct http_req *, const char *, size_t, void *);
    void (*on_end)(struct http_req *, const struct err *, void *);
    void *body_arg;

    void (*on_drain)(struct http_req *, void *);
    void *drain_arg;
    void (*on_close)(struct http_req *, void *);
    void *close_arg;
    struct file_job *file;

    /* HTTP/2 */
    int32_t stream;
    struct chunks q;
    bool deferred, ended, closed, drain_due;
    size_t head_bytes, discarded;
    const char *scheme;
};

/* req.c */
void hdrs_add(struct hdrs *h, struct arena *a, const char *name, const char *value);
struct req *req_new(struct conn *c, const struct req_ops *ops);
void req_free(struct req *r); /* the memory; nothing is told */
/* Fills path, query, host and the like from target, headers; false: not a valid request. */
bool req_ready(struct req *r);
void req_dispatch(struct req *r);
void req_body_in(struct req *r, const char *p, size_t n);
void req_body_end(struct req *r);
void req_body_fail(struct req *r, const struct err *err);
void req_kicked(struct req *r);
void req_gone(struct req *r); /* the client went away; r may be freed by the handler inside */
void req_drained(struct req *r);

/* server.c */
void conn_close(struct conn *c);      /* now */
void conn_close_soon(struct conn *c); /* after what is queued, then waits for the peer's FIN */
void conn_unref(struct conn *c);
void conn_data(struct conn *c, const char *p, size_t n);
const char *server_date(struct http_server *s);

/* h1.c */
void h1_begin(struct conn *c);
void h1_feed(struct conn *c, const char *p, size_t n);
void h1_eof(struct conn *c);
void h1_kick(struct conn *c);
void h1_tick(struct conn *c, uint64_t now);
bool h1_idle(const struct conn *c);

/* h2.c */
int h2_begin(struct conn *c);
void h2_feed(struct conn *c, const char *p, size_t n);
void h2_pull(struct conn *c);
void h2_goaway(struct conn *c);
void h2_done(struct conn *c);

/* raw.c */
void raw_closed(struct http_raw *raw);
/* Input not wanted now: comes again by on_data after http_raw_resume(). */
void raw_hold(struct http_raw *raw, const char *p, size_t n);
