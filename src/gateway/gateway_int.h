/* gateway/gateway_int.h - what the files of this room share.
 *   gateway.c  the process: loop, signals, servers, the mirror of functions and their status
 *   url.c      function URLs: HTTP request -> event (payload format 2.0), answer -> HTTP
 *   url_stream.c  answers that come in pieces
 *   url_http.c    requests for HTTP functions
 *   admin.c    the admin socket;  follow.c: logs there, as they grow
 *   keys.c     access keys
 *   debug.c    the way to a debugger
 *   otlp.c, otlp_span.c  traces of calls to a collector
 *   groups.c   log groups: LogGroup objects and what logs/ keeps
 *   aws.c      where the AWS door hangs on;  triggers.c: where schedules and rules do
 *   capacity.c what pods leave to functions */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "codec/val.h"
#include "door/aws/identity.h"
#include "function/function.h"
#include "gateway/gateway.h"
#include "http/server.h"

struct gateway {
    const struct gateway_options *o;
    uv_loop_t loop;
    struct functions *functions;
    struct logs *logs;
    struct series *metrics;
    struct groups *groups; /* NULL until the server is there */
    struct http_server *http, *admin;
    struct keys *keys; /* NULL until the server is there */
    struct identity *identity; /* likewise: who may do what */
    struct otlp *otlp; /* NULL: traces go nowhere */
    struct list debugs; /* of debug.c */
    int port; /* of http */
};

/* A request for a function URL; in the request's arena. */
struct url {
    struct gateway *g;
    struct http_req *req;
    const char *name; /* of the function */
    const char *alias; /* NULL: the function as a whole */
    const char *path; /* as the function sees it, encoded */
    char id[FUNCTION_ID_MAX];
    uint64_t ticket;
    struct caller caller; /* is_signed: who */
    bool is_signed, invoked, answered;
    bool streams; /* InvokeMode RESPONSE_STREAM */
    bool started, wants_prelude;
    int status; /* that it started with */
    bool broken; /* the prelude is none: what follows is not looked at */
    struct buf prelude; /* freed when the call is done */
};

/* url_stream.c: for calls of a URL that streams. Their arg is the struct url. */
extern const struct function_stream url_stream;
/* Both say which status was sent. */
int url_stream_done(struct url *u, const struct function_result *r);
/* An answer that was streamed by the function and collected for us. */
int url_collected(struct url *u, const struct function_result *r);
/* url_http.c: spec is the function's. */
void url_http(struct url *u, const struct val *spec);
/* Who signed it (u->caller), and may he call lambda:InvokeFunctionUrl, by his policies or the function's? FORBIDDEN, ... */
int url_may(struct url *u, const void *body, size_t n, struct err *err) _must_check_;
/* {"Message": ...} */
void url_say(struct http_req *req, int status, const char *message);
/* Status, headers and cookies of {statusCode, headers, cookies}; the content type (NULL: none was
 * named) is not among the headers. -1: no status that HTTP has. */
int url_head(struct http_req *req, const struct val *v, int *ret_status, const char **ret_type);

/* One request on the gateway port. */
void url_request(struct gateway *g, struct http_req *req);
/* One request on the admin socket. */
void admin_request(struct gateway *g, struct http_req *req);

/* follow.c: lines as they come, of one group or (NULL) of all of a namespace. */
void follow_request(struct gateway *g, struct http_req *req, const char *ns, const char *group);

/* debug.c: GET /debug/NS/NAME; the debugger's port is open as long as the answer goes on. */
void debug_request(struct gateway *g, struct http_req *req, const char *ns, const char *name);
void debug_stop(struct gateway *g); /* ends them all */

/* The text in base64, in the arena. */
char *base64_text(struct arena *a, const void *p, size_t n, size_t *ret_n);
