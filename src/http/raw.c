/* http/raw.c - after an upgrade: the connection as a duplex of bytes. */
#include <strings.h>

#include "http/http_int.h"

const char *http_upgrade_wanted(const struct http_req *req)
{
    if (req->version == 20 || !http_has_token(req, "connection", "upgrade"))
        return NULL;
    return http_get(req, "upgrade");
}

struct http_raw *http_upgrade(struct http_req *req, const char *protocol,
                              const struct http_raw_opts *opts, struct err *err)
{
    struct req *r = container_of(req, struct req, pub);
    struct conn *c = r->conn;
    struct http_raw *raw;

    ASSERT(!r->started && !r->finished);
    if (req->version == 20) {
        err_set(err, INVALID_ARGUMENT, "an upgrade needs HTTP/1.1");
        return NULL;
    }
    if (protocol && !http_upgrade_wanted(req)) {
        err_set(err, INVALID_ARGUMENT, "the request does not ask for an upgrade");
        return NULL;
    }
    if (req->body_bytes != 0) {
        err_set(err, INVALID_ARGUMENT, "an upgrade request must not have a body");
        return NULL;
    }
    if (http_gone(req)) {
        err_set(err, CANCELLED, "the client went away");
        return NULL;
    }
    raw = arena_new_of(req->arena, struct http_raw);
    *raw = (struct http_raw){.req = r, .o = *opts};
    r->started = true;
    if (protocol) {
        struct buf *b = &c->s->scratch;

        buf_reset(b);
        buf_printf(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n", protocol);
        for (size_t i = 0; i < r->out.n; i++)
            buf_printf(b, "%s: %s\r\n", r->out.h[i].name, r->out.h[i].value);
        buf_adds(b, "\r\n");
        io_write(&c->io, b->p, b->n);
    } else {
        static const char ok[] = "HTTP/1.1 200 OK\r\n\r\n";

        io_write(&c->io, ok, sizeof ok - 1);
    }
    c->mode = C_RAW;
    c->raw = raw;
    c->since_ms = uv_now(c->io.turn->loop);
    io_read(&c->io, true);
    io_dirty(&c->io); /* what the client sent ahead is handed over from the loop */
    return raw;
}

struct http_req *http_raw_req(struct http_raw *raw)
{
    return &raw->req->pub;
}

void http_raw_write(struct http_raw *raw, const void *p, size_t n)
{
    if (!raw->closing && !raw->ended)
        io_write(&raw->req->conn->io, p, n);
}

size_t http_raw_queued_bytes(const struct http_raw *raw)
{
    return io_queued(&raw->req->conn->io);
}

void http_raw_pause(struct http_raw *raw)
{
    if (!raw->closing)
        io_read(&raw->req->conn->io, false);
}

void http_raw_resume(struct http_raw *raw)
{
    if (raw->closing)
        return;
    io_read(&raw->req->conn->io, true);
    if (raw->req->conn->stash.n)
        io_dirty(&raw->req->conn->io);
}

void http_raw_end(struct http_raw *raw)
{
    if (raw->closing || raw->ended)
        return;
    raw->ended = true;
    io_shutdown(&raw->req->conn->io);
}

void http_raw_close(struct http_raw *raw)
{
    if (raw->closing)
        return;
    raw->closing = true;
    conn_close_soon(raw->req->conn);
}

void raw_hold(struct http_raw *raw, const char *p, size_t n)
{
    buf_add(&raw->req->conn->stash, p, n);
}

void raw_closed(struct http_raw *raw)
{
    struct req *r = raw->req;

    raw->closing = true;
    r->finished = true;
    if (raw->o.on_close)
        raw->o.on_close(raw, raw->o.arg);
    req_free(r);
}
