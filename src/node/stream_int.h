/* node/stream_int.h - inside the streaming files of the node: a client that speaks channels.
 *
 * exec and attach are the same thing to a client whichever way it came: five channels, of which
 * stdin and resize come in. A link is one such connection, over WebSocket (stream_ws.c) or SPDY
 * (stream_spdy.c); a session (stream.c) is what is at our end. */
#pragma once

#include "base/buf.h"
#include "base/log.h"
#include "http/server.h"
#include "node/access.h"

#include <uv.h>

enum { CH_STDIN, CH_STDOUT, CH_STDERR, CH_ERROR, CH_RESIZE, CHANNELS };
enum { STREAM_QUEUE_MAX = 1 << 20, STREAM_CHUNK = 64 << 10 };

struct link;
struct link_want { /* what the request asks for */
    bool stdin_, stdout_, stderr_, tty;
    uint32_t channels; /* the client opens these (bits) */
};
struct link_events { /* all on the loop; arg is the session */
    void (*ready)(void *arg);                            /* all channels are there */
    void (*input)(void *arg, const char *p, size_t n);   /* stdin */
    void (*input_end)(void *arg);
    void (*resize)(void *arg, int cols, int rows);
    void (*drained)(void *arg);                          /* the queue is short again */
    void (*closed)(void *arg);                           /* exactly once, last: the link is dead */
    void *arg;
};
struct link_ops {
    void (*send)(struct link *l, int channel, const void *p, size_t n);
    size_t (*queued)(const struct link *l);
    void (*hold)(struct link *l, bool on); /* no input for a while */
    void (*close)(struct link *l);         /* after what is queued; closed() follows */
};
struct link {
    const struct link_ops *ops;
    struct link_events ev;
    struct link_want want;
    bool v4; /* the error channel carries a Status; before, words */
    bool ready_now; /* ready() will not come: it is */
};
/* NULL: the request was answered with an error. */
struct link *link_ws(struct http_req *req, const struct link_want *want, const struct link_events *ev);
struct link *link_spdy(struct http_req *req, const struct link_want *want, const struct link_events *ev);

/* {"Width":N,"Height":N} of a resize channel. */
bool stream_size_parse(const char *p, size_t n, int *ret_cols, int *ret_rows);
/* An error answer as a Status. */
void stream_refuse(struct http_req *req, int status, const char *reason, const char *fmt, ...) _printf_(4, 5);
void stream_refuse_err(struct http_req *req, const struct err *err);

/* stream_logs.c, stream_port.c */
void stream_logs(struct node *n, struct http_req *req, const char *ns, const char *pod, const char *container);
void stream_port_forward(struct node *n, struct http_req *req, const char *ns, const char *pod);
