/* client/remote_int.h - between remote.c (calls) and reflect.c (mirrors). */
#pragma once

#include "client/client_int.h"
#include "client/kubeconfig.h"
#include "http/client.h"

enum { ANSWER_BYTES_MAX = 256 << 20, HEADERS_MAX = 4 };

struct remote {
    struct client c;
    struct arena *arena;
    struct kubeconfig config;
    struct http_origin *origin;
    const char *agent, *prefix; /* prefix: path in the server's URL, mostly "" */
    char *token;                /* as last read from token_file */
    int64_t token_ms;
    struct http_client *http;
    char *path;                 /* of the kubeconfig: looked at again, its certificates get replaced */
    int64_t looked_ms, changed_ns;
};
/* The origin, with the credentials that the kubeconfig holds now. */
struct http_origin *remote_origin(struct remote *r);
/* The headers that every request carries; content_type NULL: no body. Returns how many. */
size_t remote_headers(struct remote *r, struct arena *a, const char *content_type,
                      struct http_header out[HEADERS_MAX]);
/* What an answer >= 300 means. Returns -1. */
int remote_status_err(int status, const char *body, size_t n, struct err *err);
/* An object of an answer, sealed with its own resourceVersion; a reference for the caller. */
const struct obj *remote_obj(const struct val *v);

void reflect_start(struct client *c, struct mirror *m);
void reflect_stop(struct mirror *m);
