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
    struct waiter *waiter; /* wait.c; NULL until somebody waits */
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

/* The items of a list, each with its kind: references for the caller, the array in the arena. */
const struct obj **remote_list_objs(struct arena *a, const struct val *list, uint32_t *ret_n);

/* ---- wait.c: verbs and reads that are done when they return ---- */
int remote_at_once(struct client *c, const struct client_call *call, const struct obj **ret,
                   struct arena *a, const struct val **ret_val, struct err *err) _must_check_;
const struct obj *remote_get_at_once(struct client *c, struct arena *a, const char *resource,
                                     const char *ns, const char *name);
struct objs remote_list_at_once(struct client *c, struct arena *a, const char *resource, const char *ns,
                                client_keep_fn *keep, void *arg);
void waiter_free(struct remote *r);

/* What our own write brought: in the mirror at once. reflect_gone: it is deleted, and news of it that
 * are still on their way do not bring it back. */
void reflect_news(struct mirror *m, const struct obj *o);
void reflect_gone(struct mirror *m, const char *ns, const char *name);
void reflect_start(struct client *c, struct mirror *m);
void reflect_stop(struct mirror *m);
