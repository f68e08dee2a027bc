/* gateway/gateway_int.h - what the files of this room share.
 *   gateway.c  the process: loop, signals, servers, the mirror of functions and their status
 *   url.c      function URLs: HTTP request -> event (payload format 2.0), answer -> HTTP
 *   admin.c    the admin socket
 *   keys.c     access keys
 *   aws.c      where the AWS door hangs on */
#pragma once

#include "function/function.h"
#include "gateway/gateway.h"
#include "http/server.h"

struct gateway {
    const struct gateway_options *o;
    uv_loop_t loop;
    struct functions *functions;
    struct http_server *http, *admin;
    struct keys *keys; /* NULL until the server is there */
    int port; /* of http */
};

/* One request on the gateway port. */
void url_request(struct gateway *g, struct http_req *req);
/* One request on the admin socket. */
void admin_request(struct gateway *g, struct http_req *req);

/* The text in base64, in the arena. */
char *base64_text(struct arena *a, const void *p, size_t n, size_t *ret_n);
/* "queue=0;start=812;init=633;run=1201;cold=1", microseconds. */
void timing_text(const struct function_result *r, char *out, size_t n);
