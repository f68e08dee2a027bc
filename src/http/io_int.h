/* http/io_int.h - one connection as two runs of bytes: a uv stream (TCP or Unix), with or without
 * TLS on it, an output queue that leaves once per loop turn, and pausing of input.
 *
 * The owner embeds struct io. No callback comes from inside a call of these functions except
 * io_flush(); after io_close() only closed() comes. */
#pragma once

#include <openssl/ssl.h>
#include <uv.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/list.h"

enum {
    IO_READ_BYTES = 65536,
    IO_CHUNK_BYTES = 16384,
    IO_LOW = 65536,   /* on_drain below this ... */
    IO_HIGH = 262144, /* ... nothing is pulled above this */
};

struct chunk {
    struct chunk *next;
    const char *p;
    size_t n, cap; /* cap 0: borrowed */
    void (*release)(void *arg);
    void *arg;
    char data[];
};
struct chunks {
    struct chunk *head, *tail;
    size_t n; /* bytes */
};

/* What all connections of a loop share. One per loop and thread, counted. */
struct turn {
    uv_loop_t *loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    struct list dirty;
    unsigned refs, handles;
    struct chunk *spare;
    unsigned spare_n;
    char *rbuf, *plain, *record; /* record: what the next TLS record holds, gathered */
    struct turn *next;
};
struct turn *turn_ref(uv_loop_t *loop);
void turn_unref(struct turn *t);

void chunks_add(struct turn *t, struct chunks *q, const void *p, size_t n);
void chunks_borrow(struct chunks *q, const void *p, size_t n, void (*release)(void *), void *arg);
void chunks_eat(struct turn *t, struct chunks *q, size_t n);
void chunks_move(struct turn *t, struct chunks *from, struct chunks *to, size_t n);
void chunks_drop(struct turn *t, struct chunks *q);

struct io_ops {
    void (*data)(void *owner, const char *p, size_t n);
    /* error 0: the peer sent its last byte; else (UV_E...): the connection is broken */
    void (*eof)(void *owner, int error);
    void (*pull)(void *owner);  /* about to flush: last chance to write; may be NULL */
    void (*drain)(void *owner); /* may be NULL */
    void (*ready)(void *owner, const struct err *err); /* connected and TLS done; may be NULL */
    void (*closed)(void *owner);                       /* memory may go now */
};

struct io {
    struct turn *turn;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } h;
    const struct io_ops *ops;
    void *owner;
    SSL *ssl;
    BIO *rbio, *wbio;
    struct list dirty;
    struct chunks out;
    size_t inflight;   /* bytes of the queue that uv_write holds */
    char *cipher;      /* or encrypted bytes it holds */
    size_t cipher_n;
    uv_write_t wreq;
    uv_connect_t creq;
    uv_shutdown_t sreq;
    uint64_t progress_ms; /* last time that output moved, or that the queue was empty */
    bool inited, connected, handshaken, reading, want_read, kick, writing, over, eof_seen;
    bool shut_wanted, shut_sent, shut_done, failed, closing;
    long cert_error; /* first failure of the peer's chain (server side) */
};

/* Makes the handle; ctx NULL: cleartext. server: which side of TLS we are. */
int io_init(struct io *io, struct turn *t, bool unix_socket, const struct io_ops *ops, void *owner);
void io_tls(struct io *io, SSL_CTX *ctx, bool server, const char *server_name);
void io_accepted(struct io *io);  /* after uv_accept(): starts reading (and the handshake) */
void io_connected(struct io *io); /* after a connect */
void io_read(struct io *io, bool on);
void io_write(struct io *io, const void *p, size_t n);
void io_borrow(struct io *io, const void *p, size_t n, void (*release)(void *), void *arg);
void io_dirty(struct io *io); /* flush at the end of this turn */
void io_flush(struct io *io); /* flush now */
void io_shutdown(struct io *io); /* FIN after all that is queued */
void io_close(struct io *io);    /* at once; closed() follows */
static inline size_t io_queued(const struct io *io)
{
    return io->out.n + io->cipher_n;
}

/* tls.c */
struct http_tls;
SSL_CTX *tls_server_ctx(const struct http_tls *tls, bool h2, struct err *err);
struct http_origin_opts;
SSL_CTX *tls_client_ctx(const struct http_origin_opts *o, struct err *err);
struct http_peer;
void tls_peer(struct io *io, struct arena *a, struct http_peer *ret);
int tls_err(struct err *err, const char *what);
