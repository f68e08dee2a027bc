/* http/io.c - see io_int.h. Output waits in chunks until the loop turn ends (a uv_prepare runs right
 * before the loop sleeps), so that an answer made of many writes is one system call. */
#include "http/io_int.h"

#include <openssl/err.h>

enum { IO_SMALL_BYTES = 2000, SPARE_MAX = 64, PASSES = 8, IOV = 16, RECORD_BYTES = 16384 };

static _Thread_local struct turn *turns;

static void turn_run(struct turn *t)
{
    for (int pass = 0; pass < PASSES && !list_empty(&t->dirty); pass++) {
        struct list now;

        list_init(&now);
        now = t->dirty;
        now.next->prev = now.prev->next = &now;
        list_init(&t->dirty);
        while (!list_empty(&now)) {
            struct io *io = list_entry(now.next, struct io, dirty);

            list_remove(&io->dirty);
            io_flush(io);
        }
    }
}
static void on_idle(uv_idle_t *h)
{
    (void)h;
}
static void on_prepare(uv_prepare_t *h)
{
    struct turn *t = h->data;

    turn_run(t);
    if (list_empty(&t->dirty))
        uv_idle_stop(&t->idle);
    else
        uv_idle_start(&t->idle, on_idle); /* the loop must not sleep over it */
}

struct turn *turn_ref(uv_loop_t *loop)
{
    struct turn *t;

    for (t = turns; t; t = t->next)
        if (t->loop == loop) {
            t->refs++;
            return t;
        }
    t = xcalloc(1, sizeof *t);
    t->loop = loop;
    t->refs = 1;
    t->handles = 2;
    list_init(&t->dirty);
    t->rbuf = xmalloc(IO_READ_BYTES);
    t->plain = xmalloc(IO_READ_BYTES);
    t->record = xmalloc(RECORD_BYTES);
    uv_prepare_init(loop, &t->prepare);
    uv_idle_init(loop, &t->idle);
    t->prepare.data = t->idle.data = t;
    uv_prepare_start(&t->prepare, on_prepare);
    uv_unref((uv_handle_t *)&t->prepare);
    t->next = turns;
    turns = t;
    return t;
}

static void turn_closed(uv_handle_t *h)
{
    struct turn *t = h->data;

    if (--t->handles > 0)
        return;
    while (t->spare) {
        struct chunk *c = t->spare;

        t->spare = c->next;
        free(c);
    }
    free(t->rbuf);
    free(t->plain);
    free(t->record);
    free(t);
}

void turn_unref(struct turn *t)
{
    if (--t->refs > 0)
        return;
    for (struct turn **p = &turns; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    uv_close((uv_handle_t *)&t->prepare, turn_closed);
    uv_close((uv_handle_t *)&t->idle, turn_closed);
}

/* ---- chunks ---- */

static void chunk_free(struct turn *t, struct chunk *c)
{
    if (c->cap == 0) {
        if (c->release)
            c->release(c->arg);
    } else if (c->cap == IO_CHUNK_BYTES && t->spare_n < SPARE_MAX) {
        c->next = t->spare;
        t->spare = c;
        t->spare_n++;
        return;
    }
    free(c);
}

static void chunks_push(struct chunks *q, struct chunk *c)
{
    c->next = NULL;
    if (q->tail)
        q->tail->next = c;
    else
        q->head = c;
    q->tail = c;
    q->n += c->n;
}

void chunks_add(struct turn *t, struct chunks *q, const void *p, size_t n)
{
    const char *s = p;

    while (n) {
        struct chunk *c = q->tail;
        size_t room = c && c->cap ? c->cap - (size_t)(c->p - c->data) - c->n : 0;
        size_t take;

        if (!room) {
            size_t cap = n > IO_CHUNK_BYTES ? n : IO_CHUNK_BYTES;

            /* many queues at once, and each with little: a thousand watches that hear the same */
            if (!t->spare && !q->head && n <= IO_SMALL_BYTES / 2)
                cap = IO_SMALL_BYTES;
            if (cap == IO_CHUNK_BYTES && t->spare) {
                c = t->spare;
                t->spare = c->next;
                t->spare_n--;
            } else {
                c = xmalloc(sizeof *c + cap);
            }
            *c = (struct chunk){.p = c->data, .cap = cap};
            chunks_push(q, c);
            room = cap;
        }
        take = MIN(room, n);
        memcpy((char *)c->p + c->n, s, take);
        c->n += take;
        q->n += take;
        s += take;
        n -= take;
    }
}

void chunks_borrow(struct chunks *q, const void *p, size_t n, void (*release)(void *), void *arg)
{
    struct chunk *c;

    if (!n) {
        if (release)
            release(arg);
        return;
    }
    c = xmalloc(sizeof *c);
    *c = (struct chunk){.p = p, .n = n, .release = release, .arg = arg};
    chunks_push(q, c);
}

void chunks_eat(struct turn *t, struct chunks *q, size_t n)
{
    ASSERT(n <= q->n);
    q->n -= n;
    while (n) {
        struct chunk *c = q->head;

        if (n < c->n) {
            c->p += n;
            c->n -= n;
            return;
        }
        n -= c->n;
        q->head = c->next;
        if (!q->head)
            q->tail = NULL;
        chunk_free(t, c);
    }
}

void chunks_move(struct turn *t, struct chunks *from, struct chunks *to, size_t n)
{
    while (n) {
        struct chunk *c = from->head;
        size_t take = MIN(c->n, n);

        if (take == c->n && c->n >= 4096) { /* whole and worth it: hand the chunk over */
            from->head = c->next;
            if (!from->head)
                from->tail = NULL;
            from->n -= take;
            chunks_push(to, c);
        } else {
            chunks_add(t, to, c->p, take);
            chunks_eat(t, from, take);
        }
        n -= take;
    }
}

void chunks_drop(struct turn *t, struct chunks *q)
{
    chunks_eat(t, q, q->n);
}

/* ---- the stream ---- */

int io_init(struct io *io, struct turn *t, bool unix_socket, const struct io_ops *ops, void *owner)
{
    *io = (struct io){.turn = t, .ops = ops, .owner = owner};
    io->progress_ms = uv_now(t->loop);
    int rc = unix_socket ? uv_pipe_init(t->loop, &io->h.pipe, 0) : uv_tcp_init(t->loop, &io->h.tcp);
    io->h.handle.data = io;
    io->inited = rc == 0;
    return rc;
}

void io_tls(struct io *io, SSL_CTX *ctx, bool server, const char *server_name)
{
    io->ssl = SSL_new(ctx);
    ASSERT(io->ssl);
    io->rbio = BIO_new(BIO_s_mem());
    io->wbio = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(io->rbio, -1);
    BIO_set_mem_eof_return(io->wbio, -1);
    SSL_set_bio(io->ssl, io->rbio, io->wbio);
    SSL_set_app_data(io->ssl, io);
    if (server) {
        SSL_set_accept_state(io->ssl);
    } else {
        SSL_set_connect_state(io->ssl);
        /* an address is checked against the certificate's addresses, and is no SNI */
        if (server_name &&
            X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(io->ssl), server_name) != 1) {
            ERR_clear_error();
            SSL_set_tlsext_host_name(io->ssl, server_name);
            SSL_set1_host(io->ssl, server_name);
        }
    }
}

static void io_read_sync(struct io *io);

static void io_fail(struct io *io, int error)
{
    if (io->failed || io->closing)
        return;
    io->failed = true;
    if (io->reading)
        uv_read_stop(&io->h.stream);
    io->reading = false;
    io->ops->eof(io->owner, error);
}

static void tls_handshake(struct io *io)
{
    int r;

    ERR_clear_error();
    r = SSL_do_handshake(io->ssl);
    io_dirty(io);
    if (r == 1) {
        io->handshaken = true;
        io_read_sync(io);
        if (io->ops->ready)
            io->ops->ready(io->owner, NULL);
        return;
    }
    r = SSL_get_error(io->ssl, r);
    if (r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE)
        return;
    io_flush(io); /* the alert */
    if (io->ops->ready && !io->closing) {
        struct err err = {0};
        long v = SSL_get_verify_result(io->ssl);

        if (v != X509_V_OK)
            err_set(&err, BAD_GATEWAY, "TLS: %s", X509_verify_cert_error_string(v));
        else
            tls_err(&err, "TLS handshake");
        io->failed = true;
        io->ops->ready(io->owner, &err);
    } else {
        io_fail(io, UV_EPROTO);
    }
}

/* Hands over what TLS has decrypted, until it is empty or the owner pauses. */
static void tls_deliver(struct io *io)
{
    if (!io->handshaken)
        tls_handshake(io);
    while (io->handshaken && io->want_read && !io->closing && !io->failed) {
        int r;

        ERR_clear_error();
        r = SSL_read(io->ssl, io->turn->plain, IO_READ_BYTES);
        if (r > 0) {
            io->ops->data(io->owner, io->turn->plain, (size_t)r);
            continue;
        }
        r = SSL_get_error(io->ssl, r);
        if (BIO_pending(io->wbio))
            io_dirty(io);
        if (r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE)
            break;
        io_fail(io, r == SSL_ERROR_ZERO_RETURN ? 0 : UV_EPROTO);
        return;
    }
    if (io->eof_seen && io->want_read && !io->closing)
        io_fail(io, UV_ECONNRESET);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
    struct io *io = h->data;

    (void)hint;
    *ret = uv_buf_init(io->turn->rbuf, IO_READ_BYTES);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct io *io = h->data;

    if (n == 0 || io->closing)
        return;
    if (n < 0) {
        uv_read_stop(h);
        io->reading = false;
        if (n == UV_EOF && !io->ssl) {
            io->eof_seen = true;
            io->ops->eof(io->owner, 0);
        } else if (n == UV_EOF) {
            io->eof_seen = true;
            tls_deliver(io);
        } else {
            io_fail(io, (int)n);
        }
        return;
    }
    if (io->ssl) {
        BIO_write(io->rbio, buf->base, (int)n);
        tls_deliver(io);
    } else {
        io->ops->data(io->owner, buf->base, (size_t)n);
    }
    if (!io->closing && (io->out.n || list_linked(&io->dirty) || io->ops->pull))
        io_flush(io);
}

static void io_read_sync(struct io *io)
{
    /* TLS reads on while its handshake runs, whatever the owner wants */
    bool want = (io->want_read || (io->ssl && !io->handshaken)) && io->connected && !io->closing &&
                !io->failed && !io->eof_seen;

    if (want == io->reading)
        return;
    io->reading = want;
    if (want)
        uv_read_start(&io->h.stream, on_alloc, on_read);
    else
        uv_read_stop(&io->h.stream);
}

void io_read(struct io *io, bool on)
{
    if (io->want_read == on)
        return;
    io->want_read = on;
    io_read_sync(io);
    if (on && io->ssl && (BIO_pending(io->rbio) || SSL_has_pending(io->ssl) || io->eof_seen)) {
        io->kick = true;
        io_dirty(io);
    }
}

void io_accepted(struct io *io)
{
    io->connected = true;
    io->want_read = true;
    io_read_sync(io);
}

void io_connected(struct io *io)
{
    io->connected = true;
    io_read_sync(io);
    if (io->ssl)
        tls_handshake(io);
    else if (io->ops->ready)
        io->ops->ready(io->owner, NULL);
}

void io_write(struct io *io, const void *p, size_t n)
{
    if (io->closing || io->failed)
        return;
    chunks_add(io->turn, &io->out, p, n);
    io->over |= io->out.n > IO_LOW;
    io_dirty(io);
}

void io_borrow(struct io *io, const void *p, size_t n, void (*release)(void *), void *arg)
{
    if (io->closing || io->failed) {
        if (release)
            release(arg);
        return;
    }
    chunks_borrow(&io->out, p, n, release, arg);
    io->over |= io->out.n > IO_LOW;
    io_dirty(io);
}

void io_dirty(struct io *io)
{
    if (!io->closing && !list_linked(&io->dirty))
        list_push(&io->turn->dirty, &io->dirty);
}

static void on_written(uv_write_t *req, int status)
{
    struct io *io = container_of(req, struct io, wreq);

    io->writing = false;
    if (io->closing)
        return; /* closed() drops the queue */
    if (io->cipher) {
        free(STEAL(io->cipher));
        io->cipher_n = 0;
    } else {
        chunks_eat(io->turn, &io->out, io->inflight);
        io->inflight = 0;
    }
    io->progress_ms = uv_now(io->turn->loop);
    if (status < 0)
        io_fail(io, status);
    else
        io_flush(io);
}

/* False: stop for now (the kernel's buffer is full, or it broke). */
static bool flush_plain(struct io *io)
{
    uv_buf_t v[IOV];
    unsigned n = 0;
    size_t bytes = 0;
    int r;

    for (struct chunk *c = io->out.head; c && n < IOV; c = c->next) {
        v[n++] = uv_buf_init((char *)c->p, (unsigned)MIN(c->n, (size_t)IO_HIGH));
        bytes += v[n - 1].len;
        if (v[n - 1].len < c->n || bytes > IO_HIGH) /* in pieces, so that progress shows */
            break;
    }
    if (!n)
        return false;
    r = uv_try_write(&io->h.stream, v, n);
    if (r >= 0) {
        chunks_eat(io->turn, &io->out, (size_t)r);
        io->progress_ms = uv_now(io->turn->loop);
        return r > 0;
    }
    if (r != UV_EAGAIN) {
        io_fail(io, r);
        return false;
    }
    io->inflight = bytes;
    io->writing = true;
    io->progress_ms = uv_now(io->turn->loop);
    r = uv_write(&io->wreq, &io->h.stream, v, n, on_written);
    if (r < 0) {
        io->writing = false;
        io_fail(io, r);
    }
    return false;
}

/* What the next record is to hold: small pieces go into one, a record costs more than the copy. */
static size_t gather(struct io *io, const char **ret)
{
    struct chunk *c = io->out.head;
    struct turn *t = io->turn;
    size_t n = 0;

    *ret = c->p;
    if (!c->next || c->n >= RECORD_BYTES)
        return MIN(c->n, (size_t)RECORD_BYTES);
    for (; c && n < RECORD_BYTES; c = c->next) {
        size_t take = MIN(c->n, RECORD_BYTES - n);

        memcpy(t->record + n, c->p, take);
        n += take;
    }
    *ret = t->record;
    return n;
}

static bool flush_tls(struct io *io)
{
    const char *from;
    char *p;
    long n;
    int r;

    while (io->handshaken && io->out.head && BIO_pending(io->wbio) < IO_READ_BYTES) {
        ERR_clear_error();
        n = (long)gather(io, &from);
        r = SSL_write(io->ssl, from, (int)n);
        if (r <= 0) {
            r = SSL_get_error(io->ssl, r);
            if (r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE)
                break;
            io_fail(io, UV_EPROTO);
            return false;
        }
        chunks_eat(io->turn, &io->out, (size_t)r);
    }
    n = BIO_get_mem_data(io->wbio, &p);
    if (n <= 0)
        return false;
    uv_buf_t v = uv_buf_init(p, (unsigned)n);
    r = uv_try_write(&io->h.stream, &v, 1);
    if (r < 0 && r != UV_EAGAIN) {
        io_fail(io, r);
        return false;
    }
    if (r == n) {
        (void)BIO_reset(io->wbio);
        io->progress_ms = uv_now(io->turn->loop);
        return true;
    }
    if (r < 0)
        r = 0;
    io->cipher_n = (size_t)(n - r);
    io->cipher = xmalloc(io->cipher_n);
    memcpy(io->cipher, p + r, io->cipher_n);
    (void)BIO_reset(io->wbio);
    io->writing = true;
    io->progress_ms = uv_now(io->turn->loop);
    v = uv_buf_init(io->cipher, (unsigned)io->cipher_n);
    r = uv_write(&io->wreq, &io->h.stream, &v, 1, on_written);
    if (r < 0) {
        io->writing = false;
        io_fail(io, r);
    }
    return false;
}

static void on_shut(uv_shutdown_t *req, int status)
{
    struct io *io = container_of(req, struct io, sreq);

    (void)status;
    io->shut_done = true;
    if (io->eof_seen && !io->closing)
        io_fail(io, UV_EOF); /* both sides are done */
}

void io_flush(struct io *io)
{
    list_remove(&io->dirty);
    if (io->closing || io->failed || !io->connected)
        return;
    if (io->kick) {
        io->kick = false;
        tls_deliver(io);
        if (io->closing || io->failed)
            return;
        list_remove(&io->dirty);
    }
    do {
        if (io->ops->pull && io_queued(io) < IO_HIGH && (!io->ssl || io->handshaken))
            io->ops->pull(io->owner);
        if (io->closing || io->failed)
            return;
        list_remove(&io->dirty);
    } while (!io->writing && (io->ssl ? flush_tls(io) : flush_plain(io)));
    if (io->closing || io->failed)
        return;
    if (io_queued(io) > IO_LOW) {
        io->over = true;
    } else if (io->over) {
        io->over = false;
        if (io->ops->drain)
            io->ops->drain(io->owner);
        if (io->closing)
            return;
    }
    if (io->kick) /* the owner wants to read on since pull() or drain(): what is decrypted waits */
        io_dirty(io);
    if (!io_queued(io) && !io->writing) {
        io->progress_ms = uv_now(io->turn->loop);
        if (io->shut_wanted && !io->shut_sent) {
            io->shut_sent = true;
            if (io->ssl && io->handshaken) {
                ERR_clear_error();
                SSL_shutdown(io->ssl);
                flush_tls(io);
            }
            if (!io->failed && !io->closing)
                uv_shutdown(&io->sreq, &io->h.stream, on_shut);
        }
    }
}

void io_shutdown(struct io *io)
{
    io->shut_wanted = true;
    io_dirty(io);
}

static void on_closed(uv_handle_t *h)
{
    struct io *io = h->data;

    chunks_drop(io->turn, &io->out);
    free(STEAL(io->cipher));
    if (io->ssl)
        SSL_free(io->ssl);
    io->ssl = NULL;
    io->ops->closed(io->owner);
}

void io_close(struct io *io)
{
    if (io->closing)
        return;
    io->closing = true;
    list_remove(&io->dirty);
    uv_close(&io->h.handle, on_closed);
}
