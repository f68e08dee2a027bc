/* apiserver/front_int.h - between front.c, who.c and tunnel.c. */
#pragma once

#include "apiserver/api_int.h"
#include "apiserver/flow.h"
#include "http/client.h"
#include "http/server.h"
#include "http/ws.h"

struct front {
    struct api *api;
    struct http_server *server;
    struct http_client *client;
    struct http_origin *node;
    struct list watches; /* struct exchange.link */
    struct front_tls *tls;
    void (*renewed)(void *arg); /* NULL: nobody asks */
    void *renewed_arg;
    uint8_t modes[1024]; /* of impersonation, by user: impersonate.c */
    void (*stopped)(void *);
    void *stopped_arg;
};

/* One request on its way. Lives in the request's arena. */
struct exchange {
    struct front *f;
    struct http_req *http;
    struct api_request req;
    struct api_response resp;
    struct auth_user user;
    struct api_watch *watch;
    struct list link;
    struct arena *events; /* texts of watch events */
    struct ws *ws; /* the watch is a WebSocket */
    bool paused;
    /* a list on its way out (front.c) */
    struct buf piece;
    struct z_stream_s *z; /* compressing */
    bool streaming, posted;
    /* counting and queueing */
    struct about about;
    struct flow_ticket ticket;
    size_t sent; /* bytes of the answer */
    bool known, counted, over;
    const char *audit_id; /* NULL: not named yet */
    int64_t received_us;
};

void exchange_headers(struct exchange *x, const struct api_response *resp);
/* front_tls.c. ret holds texts to free() (but trust, which is *ret_trust). */
struct front_opts;
int front_tls_new(struct front *f, const struct front_opts *o, struct http_tls *ret, char **ret_trust,
                  struct err *err) _must_check_;
void *front_tls_free(struct front_tls *t);

/* The request is answered, or has become a stream: it holds no seat any more and is counted, once. */
void exchange_over(struct exchange *x, int status);
void exchange_reply(struct exchange *x, const struct api_response *resp);

/* who.c: fills x->user. AUTHN_NO: c->resp is the Status to answer (401, 403, 400), or c->waits and it runs again.
 * AUTHN_WAIT: the same, or front is called again by authn_woken(). */
enum authn_result who(struct exchange *x, struct call *c);
void authn_woken(void *exchange); /* front.c */
/* impersonate.c: Impersonate-* headers, when they are there. */
int impersonate(struct exchange *x, struct call *c);
/* What X-Remote-Extra-KEY and the like say, by their prefix in lower case; NULL: nothing. KEY is unescaped, in lower case. */
struct val *extra_headers(struct exchange *x, const char *prefix);

/* front.c: the answer of a call to the client; the end of a call whose client went while it waits. */
void exchange_answer(void *exchange, const struct api_response *resp);
void exchange_gone(struct http_req *http, void *exchange);

/* proxy.c */
bool proxy_streams(struct exchange *x); /* the body is to be passed on, so it is not read before */
bool proxy_serve(struct exchange *x);   /* true: another server's API; answered */
int proxy_target(struct call *c, struct exchange *x); /* pods, services, nodes */

/* tunnel.c: true: the path is one that goes through to a node, a pod or a service; answered. */
bool tunnel_serve(struct exchange *x);

/* front_watch.c: x->resp.watch goes out; its end, from our side. */
void watch_serve(struct exchange *x);
void watch_finish(struct exchange *x);
