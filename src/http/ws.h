/* http/ws.h - WebSocket (RFC 6455), server side, over an HTTP/1.1 request. */
#pragma once

#include "http/server.h"

struct ws;
enum ws_type { WS_TEXT = 1, WS_BINARY = 2 };

struct ws_opts {
    size_t message_bytes_max; /* [16 MiB] over it: close 1009 */
    uint32_t ping_ms;         /* a ping when nothing came for that long, closed after two [0 = none] */
    /* Whole messages (fragments put together); data is borrowed for the call. */
    void (*on_message)(struct ws *ws, enum ws_type type, const char *data, size_t n, void *arg);
    void (*on_drain)(struct ws *ws, void *arg); /* may be NULL; as http_on_drain */
    /* Exactly once, last, also after ws_close(): then ws and its request are dead. code is the
     * peer's close code, 1006 when it just went away. */
    void (*on_close)(struct ws *ws, int code, void *arg);
    void *arg;
};
bool ws_wanted(const struct http_req *req);
/* The first of ours (NULL-terminated, best first) that the client offers too, or NULL. */
const char *ws_pick(const struct http_req *req, const char *const *ours);
/* subprotocol NULL: none. On failure returns NULL and the request is still to be answered. */
struct ws *ws_accept(struct http_req *req, const char *subprotocol, const struct ws_opts *opts,
                     struct err *err) _must_check_;
struct http_req *ws_req(struct ws *ws);
void ws_send(struct ws *ws, enum ws_type type, const void *p, size_t n); /* copied */
/* One binary message of a one-byte prefix and the data: channel protocols. */
void ws_send_channel(struct ws *ws, uint8_t channel, const void *p, size_t n);
size_t ws_queued_bytes(const struct ws *ws);
void ws_pause(struct ws *ws);
void ws_resume(struct ws *ws);
/* Starts the closing handshake (1000 = normal); what is queued still goes out. */
void ws_close(struct ws *ws, int code, const char *reason);
