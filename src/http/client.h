/* http/client.h - an HTTP/1.1 client on the caller's loop: pooled keep-alive connections per
 * origin (TCP, TLS, Unix socket), bodies streamed both ways, proxying and tunnels.
 *
 * Every call and callback happens on the loop's thread. A call ends with exactly one on_done;
 * after it the pointer is dead. No callback comes from inside http_call() itself. */
#pragma once

#include "http/server.h"

struct http_client;
struct http_origin;
struct http_call;

struct http_client_opts {
    uint32_t idle_conns_max;     /* kept per origin [32] */
    uint32_t idle_timeout_ms;    /* [60000] */
    uint32_t connect_timeout_ms; /* [10000] */
};
struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_opts *opts);
/* Cuts what runs (on_done with CANCELLED, from inside), frees itself when its handles are closed.
 * Origins must not be used after. */
struct http_client *http_client_free(struct http_client *c);
/* How many ms it will not look at time limits; -1: there are none. For tests: who is idle must sleep. */
int64_t http_client_sleeps(const struct http_client *c);

/* A connection that somebody else makes, see http_origin_opts.dial. */
struct http_dial;
struct http_origin_opts {
    /* Not NULL: asked for each new connection instead of connect(). Exactly one http_dialed() answers it, later and
     * from the loop, also when the origin or the call has gone meanwhile. Not for TLS. */
    void (*dial)(void *arg, struct http_dial *d);
    void *dial_arg;
    const char *ca_pem;          /* NULL: the system's */
    const char *cert_pem, *key_pem; /* client certificate, or NULL */
    const char *server_name;     /* checked in the certificate, and SNI [host of the URL] */
    bool insecure;               /* do not verify */
    uint32_t conns_max;          /* more calls wait for a connection [0 = no limit] */
};
/* url: "http://host:port", "https://host:port", "unix:/path". Belongs to the client, lives until
 * http_origin_free() or http_client_free(). opts may be NULL. */
struct http_origin *http_origin_new(struct http_client *c, const char *url,
                                    const struct http_origin_opts *opts, struct err *err)
    _must_check_;
/* fd: a connected stream socket (TCP), ours from here on; -1: there is none to be had. */
void http_dialed(struct http_dial *d, int fd);
/* Idle connections are closed, calls under way end by themselves. */
struct http_origin *http_origin_free(struct http_origin *o);

struct http_answer {
    int status;
    const struct http_header *headers; /* names in lower case */
    size_t headers_n;
    int64_t body_bytes; /* -1: not known */
    struct arena *arena; /* goes with the call */
};
const char *http_answer_get(const struct http_answer *a, const char *name);

struct http_call_opts {
    const char *method;  /* ["GET"] */
    const char *path;    /* with query, encoded; ["/"] */
    const char *host;    /* Host header [from the URL, "localhost" for Unix sockets] */
    const struct http_header *headers;
    size_t headers_n;
    const void *body;    /* copied; with stream_body: its first part */
    size_t body_n;
    bool stream_body;    /* more comes by http_call_write(), until http_call_end() */
    int64_t body_bytes;  /* with stream_body: length if known, else -1 or 0 (chunked) */
    bool idempotent;     /* a POST or PATCH that may be sent twice */
    uint32_t timeout_ms; /* until the answer's headers are there [0 = none] */
    uint32_t idle_timeout_ms; /* without a byte of the answer's body [0 = none] */
    /* All may be NULL but on_done. */
    void (*on_head)(struct http_call *call, const struct http_answer *a, void *arg);
    void (*on_data)(struct http_call *call, const char *data, size_t n, void *arg);
    void (*on_drain)(struct http_call *call, void *arg); /* queue of the body sent fell under 64 KiB */
    /* err NULL: answered in full. a NULL: no answer came. Last callback of the call. */
    void (*on_done)(struct http_call *call, const struct http_answer *a, const struct err *err,
                    void *arg);
    void *arg;
};
/* All of opts is copied. An idempotent call without stream_body is sent once more when a pooled
 * connection turns out dead before any byte of an answer.
 * With an Upgrade header (and Connection: Upgrade) among headers, an answer of 101 makes the call
 * a tunnel: after on_head, on_data brings raw bytes, http_call_write() sends them, http_call_end()
 * shuts our side, on_done comes when the peer closes. */
struct http_call *http_call(struct http_origin *o, const struct http_call_opts *opts);
void http_call_write(struct http_call *call, const void *p, size_t n); /* copied */
void http_call_end(struct http_call *call);
size_t http_call_queued_bytes(const struct http_call *call);
void http_call_pause(struct http_call *call); /* stops reading the answer */
void http_call_resume(struct http_call *call);
void http_call_cancel(struct http_call *call); /* no callback any more; the pointer is dead */

/* The same, with the answer's body collected: cb exactly once; body (0-terminated) and a live for
 * the call of cb. max_bytes 0 = 64 MiB. Only method, path, host, headers, body and timeouts of
 * opts are used. */
typedef void http_fetch_cb(const struct http_answer *a, char *body, size_t n,
                           const struct err *err, void *arg);
struct http_call *http_fetch(struct http_origin *o, const struct http_call_opts *opts,
                             size_t max_bytes, http_fetch_cb *cb, void *arg);

/* ---- from a server's request to an origin ---- */

struct http_proxy_opts {
    const char *path;            /* path and query upstream [the request's target] */
    const char *host;            /* [the request's host] */
    const struct http_header *add; /* set on the request, replacing the same names */
    size_t add_n;
    const char *const *drop;     /* request headers not passed on (besides hop-by-hop ones) */
    size_t drop_n;
    uint32_t timeout_ms;         /* until the upstream's headers [0 = none] */
    bool no_forwarded;           /* do not add X-Forwarded-For/-Proto/-Host */
    /* Called once at the end: status sent to the client (0: none), err what went wrong upstream
     * (the client got 502/504), or NULL. May be NULL. req is still valid inside. */
    void (*on_done)(struct http_req *req, int status, const struct err *err, void *arg);
    void *arg;
    /* May be NULL: the value of a header of the answer as the client is to see it. */
    const char *(*on_header)(struct http_req *req, const char *name, const char *value, void *arg);
    /* May be NULL. Asked when the upstream could not be reached or failed before any answer: true = the callee answers
     * (or proxies again) itself. Only if no body byte was consumed. */
    bool (*on_fail)(struct http_req *req, const struct err *err, void *arg);
};
/* Streams request and answer both ways with backpressure and finishes the request. Upgrades are
 * handed to http_tunnel(). */
void http_proxy(struct http_req *req, struct http_origin *o, const struct http_proxy_opts *opts);
/* Forwards an upgrade request and then splices bytes both ways until either side closes. If the
 * upstream does not answer 101 its answer is passed on. opts may be NULL. */
void http_tunnel(struct http_req *req, struct http_origin *o, const struct http_proxy_opts *opts);
