/* http/spdy.h - SPDY/3.1, server side, as kubectl's exec, attach and port-forward speak it:
 * after an HTTP/1.1 upgrade to "SPDY/3.1", or inside the binary messages of a WebSocket with the
 * subprotocol "SPDY/3.1+portforward.k8s.io". */
#pragma once

#include "http/server.h"

struct spdy;
struct spdy_stream;

struct spdy_opts {
    /* A new stream. Answer with spdy_reply() or spdy_reset(), now or later; set its callbacks with
     * spdy_stream_on() before returning. */
    void (*on_stream)(struct spdy_stream *st, void *arg);
    /* Exactly once, last: all streams had their on_close, spdy and its request are dead after. */
    void (*on_close)(struct spdy *s, void *arg);
    void *arg;
};
struct spdy_stream_opts {
    void (*on_data)(struct spdy_stream *st, const char *data, size_t n, void *arg);
    void (*on_end)(struct spdy_stream *st, void *arg);   /* the peer sent FIN */
    void (*on_drain)(struct spdy_stream *st, void *arg);
    void (*on_close)(struct spdy_stream *st, void *arg); /* exactly once, last: both FINs, RST or gone */
    void *arg;
};
bool spdy_wanted(const struct http_req *req);
/* Picks the X-Stream-Protocol-Version: the first of ours (NULL-terminated, best first) the client
 * offers; NULL when it offers none of them. */
const char *spdy_pick(const struct http_req *req, const char *const *ours);
/* protocol goes into X-Stream-Protocol-Version (NULL: left out). On failure NULL, the request is
 * still to be answered. */
struct spdy *spdy_accept(struct http_req *req, const char *protocol, const struct spdy_opts *opts,
                         struct err *err) _must_check_;
/* Over a WebSocket: accepts it with ws_protocol (offered by the client, e.g.
 * "SPDY/3.1+portforward.k8s.io") and speaks SPDY inside. */
struct spdy *spdy_accept_ws(struct http_req *req, const char *ws_protocol,
                            const struct spdy_opts *opts, struct err *err) _must_check_;
struct http_req *spdy_req(struct spdy *s);
size_t spdy_queued_bytes(const struct spdy *s);
void spdy_close(struct spdy *s); /* GOAWAY, flush, close */

struct spdy *spdy_stream_session(struct spdy_stream *st);
uint32_t spdy_stream_id(const struct spdy_stream *st);
const char *spdy_stream_get(const struct spdy_stream *st, const char *name); /* header or NULL */
void spdy_stream_on(struct spdy_stream *st, const struct spdy_stream_opts *opts);
void spdy_reply(struct spdy_stream *st); /* SYN_REPLY, no headers */
/* Copied; waits for the peer's window. */
void spdy_write(struct spdy_stream *st, const void *p, size_t n);
void spdy_end(struct spdy_stream *st); /* FIN after what is queued */
void spdy_reset(struct spdy_stream *st, uint32_t status); /* RST_STREAM; on_close follows */
size_t spdy_stream_queued_bytes(const struct spdy_stream *st);
void spdy_stream_pause(struct spdy_stream *st); /* the peer's window is not opened any more */
void spdy_stream_resume(struct spdy_stream *st);
