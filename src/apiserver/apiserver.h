/* apiserver/apiserver.h - the Kubernetes API as one function: a request in, an answer out.
 *
 * api_do() knows every path, verb, selector and rule of the API and nothing of sockets. The HTTP
 * front (apiserver/front.h) wraps it; parts of the same process call it directly (client/).
 * The answer holds sealed objects where it can, so that a caller in the process never parses JSON
 * again, and the HTTP front writes the stored text as it is.
 *
 * Thread: the loop that owns the store. done may run before api_do() returns, or later (webhooks,
 * tunnels): the caller keeps the request and its arena until done has run, exactly once.
 * Durability: the answer shows the head of the store. Whoever tells the outside waits for
 * resp->revision first (store_when_durable); parts of the same process need not. */
#pragma once

#include "auth/user.h"
#include "base/buf.h"
#include "codec/obj.h"
#include "codec/val.h"

struct api;
struct store;
struct env;
struct schema;
struct api_watch;
struct told;
struct pki;
struct resource;
struct store_table;

struct api_config {
    struct env *env;
    struct store *store;
    struct schema *schema;
    struct pki *pki;
    const char *state_dir; /* STATE */
    const char *instance;  /* short id of this instance, "" is fine */
    const char *host;      /* where clients reach us, for the kubernetes endpoints: "127.0.0.1" */
    int port;
    const char *service_cidr;             /* NULL: 10.96.0.0/16 */
    int node_port_first, node_port_last;  /* 0: 30000-32767 */
    const char *node_socket;              /* NULL: STATE/run/node.sock */
    const struct audit_opts *audit; /* apiserver/audit.h; NULL: nothing is noted */
    const char *authz_path;         /* an AuthorizationConfiguration file; NULL: node rules, then RBAC */
    const struct authn_opts *authn; /* apiserver/authn.h; NULL: what needs no configuration */
    const char *flags;     /* "name=value\n" lines for /flagz; NULL: none */
    const char *node_name; /* the node of this machine: it mirrors what its pods may use; NULL: none */
};

/* All that is in config outlives the API. Makes the API over a store and writes the stock objects (namespaces,
 * priority classes, RBAC, the kubernetes service) that are missing. */
struct api *api_new(const struct api_config *config, struct err *err) _must_check_;
void *api_free(struct api *api);
struct store *api_store(struct api *api);
struct schema *api_schema(struct api *api);
/* The store's table of a resource in any of its versions. */
struct store_table *api_table(struct api *api, const struct resource *r);

/* Adds to a counter of /metrics that metrics.c names; for parts of this process. */
void api_count(struct api *api, const char *name, const char *labels, double by);

struct api_request {
    struct arena *arena;          /* the caller's; holds the request and the answer */
    const struct auth_user *user; /* NULL: this process itself, may do everything, no webhook is asked */
    const char *method;           /* GET HEAD POST PUT PATCH DELETE, as in HTTP */
    const char *path;             /* as in HTTP, percent-encoded, without the query */
    const char *query;            /* as in HTTP, without '?'; NULL or "": none */
    const char *accept;           /* NULL: application/json */
    const char *content_type;     /* NULL: application/json */
    const char *body;             /* text, or */
    size_t body_n;
    const struct val *body_val; /* ... a tree, which wins (in-process: no text is made or parsed) */
    const char *user_agent;     /* for the default fieldManager; NULL is fine */
    bool may_stream; /* the caller can take resp->stream: lists are not put together first */
    bool at_once; /* done runs before api_do() returns: what needs an answer from outside fails */
    struct audit_event *audit;  /* apiserver/audit.h; NULL: nothing is noted */
    bool allowed; /* the caller asked already (access_check()) and it is */
    bool noted; /* the caller began (and ends) the audit event; else api_do() does it for who has a user */
};

struct api_response {
    int status;               /* HTTP */
    const char *content_type; /* of body; "application/json" mostly */
    /* Exactly one of: */
    const struct obj *obj;         /* one stored object, as stored; borrowed until the arena goes */
    const struct obj *const *objs; /* a list as stored: objs_n of them, list_revision, continue_ */
    const struct val *val;         /* a document made for this answer (Status, review, Table, ...) */
    const char *body;              /* text made for this answer, body_n bytes */
    struct api_stream *stream;     /* a list, piece by piece: api_stream_next() */
    struct api_watch *watch;       /* a stream of events: api_watch_start() or api_watch_free() */
    size_t body_n;

    uint32_t objs_n;
    int64_t list_revision;
    const char *continue_;        /* NULL or "": the list is whole */
    int64_t remaining;            /* remainingItemCount; < 0: not told */
    const char *list_api_version; /* "v1", "apps/v1": for objs */
    const char *list_kind;        /* "PodList" */

    int64_t revision;             /* tell nobody outside before this one is durable */
    const char *const *warnings;  /* texts for Warning headers, NULL-terminated; may be NULL */
    const char *retry_after;      /* seconds for Retry-After, or NULL */
    const char *etag;             /* or NULL */
    const char *location;         /* where else to look (with a 301), or NULL */
    bool immutable;               /* caches may keep it for ever */
};
typedef void api_done_fn(void *arg, const struct api_response *resp);

void api_do(struct api *api, const struct api_request *req, api_done_fn *done, void *arg);
/* The client went: if the request waits for something outside it ends now (done runs from inside). */
void api_cancel(struct api *api, const struct api_request *req);

/* The answer as a tree, whatever form it has (lists are put together); in the request's arena. */
const struct val *api_response_val(struct arena *a, const struct api_response *resp);
/* ... and as JSON text. */
void api_response_text(struct buf *b, const struct api_response *resp);
/* For a status >= 300: code and message as an err. Gives back 0 for others. */
int api_response_err(const struct api_response *resp, struct err *err);

/* A list on its way out. It holds the objects as they were, nothing else, so that a long list costs
 * its references and not its text. Appends a piece (about 64 KiB, or nothing yet) to b; false: it was the last one.
 * Lives in the request's arena. */
bool api_stream_next(struct api_stream *s, struct buf *b);

/* A watch. fn gets each event once, in the order of revisions, from the loop, never from inside
 * api_watch_start(). Events are durable when they come. A false return stops and frees the watch.
 * After API_ERROR and API_END the watch is over; free it (or return false). The watch owns all it
 * needs: the request may go. */
enum api_event_type { API_ADDED, API_MODIFIED, API_DELETED, API_BOOKMARK, API_ERROR, API_END };
struct api_event {
    enum api_event_type type;
    const struct obj *obj; /* ADDED, MODIFIED, DELETED: as stored; borrowed for the call */
    const struct val *val; /* the document to show, when it is not obj as stored: another version,
                              a Table, a bookmark, the Status of an ERROR */
    int64_t revision;
    struct told *told; /* api_watch_texts() only, or NULL: holds the event's text (then there is no val), or
                          where it is to be left for the next watch */
};
typedef bool api_event_fn(void *arg, const struct api_event *event);
void api_watch_start(struct api_watch *w, api_event_fn *fn, void *arg);
void api_watch_texts(struct api_watch *w); /* before the start: fn writes texts, and shares them (told.h) */
/* Stop reading (a slow reader); events wait in the store's history, not in memory of the watch.
 * A reader that stays behind what the history keeps gets API_ERROR 410. */
void api_watch_pause(struct api_watch *w, bool paused);
void *api_watch_free(struct api_watch *w); /* at any time but inside fn */
