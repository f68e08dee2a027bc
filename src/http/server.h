/* http/server.h - the HTTP server: HTTP/1.1 and HTTP/2 on one port, cleartext or TLS.
 *
 * Lives on one libuv loop that the caller runs; every call and every callback happens on that
 * loop's thread. The handler is called once per request, when its headers are complete; it may
 * answer at once or much later.
 *
 * The life of a request: it belongs to the handler until the handler finishes it with exactly one
 * of http_reply(), http_end(), http_abort() or an upgrade. That holds also when the client has gone away
 * in between (http_gone() says so, on_close tells at once): writes then go nowhere, and the
 * request still waits to be finished. So a pointer kept by an asynchronous handler never dangles.
 * After finishing, the pointer and the arena are dead.
 *
 * Output is copied unless said otherwise, and leaves when the loop turn ends at the latest. */
#pragma once

#include <sys/types.h>
#include <uv.h>

#include "base/arena.h"
#include "base/err.h"

struct http_server;
struct http_req;
struct http_raw;

struct http_header {
    const char *name; /* in requests: lower case */
    const char *value;
};

/* PEM texts (not paths); all are copied. */
struct http_tls {
    const char *cert_pem;      /* chain, leaf first */
    const char *key_pem;
    const char *client_ca_pem; /* NULL: no client certificate is asked for */
};

/* 0 or NULL takes the default in brackets. */
struct http_server_opts {
    const char *addr;          /* "127.0.0.1", "0.0.0.0", "::" ... ["127.0.0.1"] */
    int port;                  /* 0 = the kernel picks, see http_server_port() */
    const char *unix_path;     /* listen here instead; a stale socket file is replaced */
    mode_t unix_mode;          /* [0600] */
    bool reuse_port;           /* SO_REUSEPORT, for one server per thread */
    const struct http_tls *tls; /* NULL: cleartext, HTTP/1.1 and HTTP/2 with prior knowledge */
    bool no_h2;
    size_t header_bytes_max;   /* [65536] over it: 431 */
    size_t body_bytes_max;     /* [3 MiB] for http_body(..., 0, ...) */
    size_t bodies_bytes_max;   /* [256 MiB] of all bodies that http_body() holds; over it: 503 */
    uint32_t conns_max;        /* [8192] for further ones the longest idle one goes; they are closed when none idles */
    uint32_t header_timeout_ms; /* [20000] from first byte to complete headers, and TLS handshake */
    uint32_t idle_timeout_ms;  /* [180000] a keep-alive connection without requests */
    uint32_t body_timeout_ms;  /* [60000] no progress in a body that somebody waits for */
    uint32_t write_timeout_ms; /* [60000] no progress while output is queued: slow client */
    void (*on_request)(struct http_req *req, void *arg);
    void *arg;
};

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_opts *opts,
                                    struct err *err) _must_check_;
int http_server_port(const struct http_server *s); /* 0 for Unix sockets */
uv_loop_t *http_server_loop(const struct http_server *s);
/* New connections get these; running ones keep theirs. */
int http_server_set_tls(struct http_server *s, const struct http_tls *tls, struct err *err)
    _must_check_;
/* Stops accepting, tells clients (Connection: close, GOAWAY), lets requests finish until
 * deadline_ms, then cuts them; done (may be NULL) is called when the server is gone and freed. */
void http_server_stop(struct http_server *s, uint32_t deadline_ms, void (*done)(void *), void *arg);
uint32_t http_server_conns(const struct http_server *s);

/* ---- a request ---- */

struct http_peer {
    char addr[64];       /* "10.42.0.7", "::1", "" for a Unix socket */
    int port;
    bool tls;
    bool cert;           /* a client certificate was sent ... */
    bool cert_trusted;   /* ... and is valid now under client_ca_pem; else cn and orgs are not set */
    const char *cert_error; /* why it is not trusted, or NULL */
    const char *cn;      /* subject */
    const char *uid;     /* subject's 1.3.6.1.4.1.57683.2 (Kubernetes' user uid), or NULL */
    const char *fingerprint; /* SHA-256 of the certificate in hex; with cert_trusted */
    const char *root;    /* ... and of the CA at the end of its chain */
    const char *const *orgs; /* subject O's, orgs_n of them */
    size_t orgs_n;
};

struct http_req {
    const char *method;   /* "GET" */
    const char *target;   /* as sent: path and query, still encoded */
    const char *raw_path; /* the path of it, still encoded */
    const char *path;     /* decoded; a %00 makes the request a 400 before the handler sees it */
    const char *query;    /* without '?', still encoded; "" when none */
    const char *host;     /* Host or :authority, "" when none */
    int version;          /* 10, 11 or 20 */
    const struct http_header *headers; /* pseudo headers left out */
    size_t headers_n;
    int64_t body_bytes;   /* Content-Length; 0 none; -1 not known (chunked, HTTP/2) */
    const struct http_peer *peer;
    struct arena *arena;  /* goes with the request */
    void *user;           /* the handler's */
    struct http_server *server;
    uint64_t start_ns;    /* uv_hrtime() when the headers were complete */
};

const char *http_get(const struct http_req *req, const char *name); /* first value or NULL */
/* All values of a comma list header, over repeated lines too: does it hold this token? */
bool http_has_token(const struct http_req *req, const char *name, const char *token);
/* Iterates the values of one header: for (size_t i = 0; (v = http_get_next(req, name, &i));) */
const char *http_get_next(const struct http_req *req, const char *name, size_t *i);

/* Decoded query parameters; '+' is a blank. Values live in the request's arena. */
const char *http_param(struct http_req *req, const char *name); /* first one or NULL */
bool http_param_next(struct http_req *req, size_t *i, const char **ret_name, const char **ret_value);
/* The same for any string of that form (x-www-form-urlencoded bodies). */
bool http_form_next(struct arena *a, const char *s, size_t n, size_t *i, const char **ret_name,
                    const char **ret_value);
/* Decodes %XX (and '+' if plus); NULL when malformed or when it decodes to a 0 byte. */
char *http_unescape(struct arena *a, const char *s, size_t n, bool plus);
/* Escapes all but unreserved characters and those in keep ("/" for paths). */
char *http_escape(struct arena *a, const char *s, const char *keep);

/* ---- body in ---- exactly one of the two, or none (an unread body is thrown away) */

/* Collects the body (at most max_bytes; 0 = the server's default) and calls cb exactly once,
 * maybe from inside this call:
 * err NULL: data (0-terminated, in the arena) is whole. err TOO_LARGE: answer 413.
 * err CANCELLED: the client went away; finish the request all the same. */
void http_body(struct http_req *req, size_t max_bytes,
               void (*cb)(struct http_req *req, char *data, size_t n, const struct err *err,
                          void *arg),
               void *arg);
/* Hands the body over as it comes (data borrowed for the call), then on_end exactly once. The
 * request may be finished inside either; no more calls come then. */
void http_body_stream(struct http_req *req,
                      void (*on_data)(struct http_req *req, const char *data, size_t n, void *arg),
                      void (*on_end)(struct http_req *req, const struct err *err, void *arg),
                      void *arg);
void http_body_pause(struct http_req *req);  /* the client is held back soon after */
void http_body_resume(struct http_req *req); /* held data comes from the loop, not from inside */

/* ---- answer ---- */

/* Adds a header to the answer, before http_start()/http_reply(); copied. Bytes that may not stand
 * in a header are replaced by '?'. Date, Content-Length and connection headers are ours. */
void http_header(struct http_req *req, const char *name, const char *value);
void http_headerf(struct http_req *req, const char *name, const char *fmt, ...) _printf_(3, 4);
/* The whole answer at once; the body is copied. Finishes the request. */
void http_reply(struct http_req *req, int status, const char *content_type, const void *body,
                size_t n);
void http_reply_str(struct http_req *req, int status, const char *content_type, const char *body);
/* As http_reply, but borrows body until release(arg) is called (NULL: it never goes away). */
void http_reply_obj(struct http_req *req, int status, const char *content_type, const void *body,
                    size_t n, void (*release)(void *), void *arg);

/* In parts: start, any number of writes, end. length -1: not known (chunked). For HEAD the
 * writes are thrown away. A length that is not kept cuts the connection. */
void http_start(struct http_req *req, int status, int64_t length);
void http_write(struct http_req *req, const void *p, size_t n); /* copied */
void http_write_obj(struct http_req *req, const void *p, size_t n, void (*release)(void *),
                    void *arg);
/* Sends n bytes of an open file from off on, without blocking the loop. Comes in place among the
 * writes; the descriptor is closed by us, also on failure. Backpressure is ours: the file is read as the
 * client takes it. done (NULL: the request is finished by us) tells when the last byte is queued, or
 * that the client went away or the file could not be read (ok false). Until done the request may
 * not be written to nor finished, and on_close does not come. done may come from inside. */
void http_write_file(struct http_req *req, int fd, uint64_t off, uint64_t n,
                     void (*done)(struct http_req *req, bool ok, void *arg), void *arg);
void http_trailer(struct http_req *req, const char *name, const char *value); /* before http_end */
void http_end(struct http_req *req);   /* finishes the request */
void http_abort(struct http_req *req); /* finishes it by cutting the connection (h2: RST_STREAM) */
bool http_started(const struct http_req *req);
bool http_gone(const struct http_req *req); /* the client went away */
size_t http_queued_bytes(const struct http_req *req); /* written, not yet taken by the kernel */
/* on_drain: the queue fell under 64 KiB after it had been over it. */
void http_on_drain(struct http_req *req, void (*cb)(struct http_req *req, void *arg), void *arg);
/* Called at most once, when the client goes away before the request is finished. The request may
 * be finished inside. */
void http_on_close(struct http_req *req, void (*cb)(struct http_req *req, void *arg), void *arg);

/* ---- upgrade: a raw duplex of bytes (HTTP/1.1 only) ---- */

struct http_raw_opts {
    void (*on_data)(struct http_raw *raw, const char *data, size_t n, void *arg);
    void (*on_end)(struct http_raw *raw, void *arg);   /* the peer sent its last byte; may be NULL: we close */
    void (*on_drain)(struct http_raw *raw, void *arg); /* may be NULL */
    void (*on_close)(struct http_raw *raw, void *arg); /* exactly once, last; then raw and req are dead */
    void *arg;
};
/* The value of the Upgrade header if the request asks for an upgrade, else NULL. */
const char *http_upgrade_wanted(const struct http_req *req);
/* Answers 101 (with http_header()s set before; Connection and Upgrade: protocol are ours), or 200
 * when protocol is NULL (CONNECT). On failure (HTTP/2, no Upgrade, body not empty) returns NULL and the
 * request is still to be answered. */
struct http_raw *http_upgrade(struct http_req *req, const char *protocol,
                              const struct http_raw_opts *opts, struct err *err) _must_check_;
struct http_req *http_raw_req(struct http_raw *raw);
void http_raw_write(struct http_raw *raw, const void *p, size_t n); /* copied */
size_t http_raw_queued_bytes(const struct http_raw *raw);
void http_raw_pause(struct http_raw *raw);
void http_raw_resume(struct http_raw *raw);
void http_raw_end(struct http_raw *raw);   /* no more from us, half close after what is queued */
void http_raw_close(struct http_raw *raw); /* flushes what the kernel takes at once, then on_close */
const char *http_status_text(int status);
