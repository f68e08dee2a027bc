/* apiserver/api_int.h - inside of the room: one call on its way through the API.
 *
 * api_do() makes a struct call and hands it down: path.c says what is asked, access.c who may,
 * options.c reads the query, body.c the body, read.c / write.c / delete.c / watch.c do the verb,
 * hooks (hooks.h) add what one kind alone needs, answer.c gives the answer the wanted form.
 *
 * Every step gives back 0, or -1 after it has put a Status document into call->resp: so callers
 * just pass -1 on. */
#pragma once

#include "apiserver/apiserver.h"
#include "apiserver/audit.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "auth/pki.h"
#include "auth/rbac.h"
#include "auth/token.h"
#include "base/list.h"
#include "base/map.h"
#include "env/env.h"
#include "schema/schema.h"
#include "schema/select.h"
#include "store/store.h"

#ifndef KUBERNETES_VERSION
#define KUBERNETES_VERSION "v1.36.3"
#endif

struct kind_hooks;
struct memory;
struct outside;
struct webhooks;
struct policies;
struct aggregate;
struct node_pods;
struct draw;

/* How the storage of a kind behaves, where it is not the usual way (hooks.c has the table). */
enum kind_flag {
    KF_CREATE_ON_UPDATE = 1, /* a PUT may make the object */
    KF_NEEDS_VERSION = 2,    /* a PUT must say the resourceVersion */
    KF_RETURNS_DELETED = 4,  /* a DELETE answers with the object that was */
    KF_ORPHANS = 8,          /* without a propagationPolicy dependents are orphaned */
    KF_NO_GC = 16,           /* no foreground or orphan deletion (events) */
};

enum {
    BODY_BYTES_MAX = 3 << 20,
    OBJECT_BYTES_MAX = 1536 << 10, /* as etcd's default limit on requests */
    LIST_DEFAULT_TIMEOUT_S = 1800,
    PATCH_OPS_MAX = 10000,
};

struct api {
    struct env *env;
    struct store *store;
    struct schema *schema;
    struct pki *pki;
    char *host, *server_url, *node_socket, *state_dir, *node_name;
    int port;
    int64_t start_ms;
    struct rbac_source rbac;
    struct authn *authn;
    struct authz *authz; /* NULL: masters, nodes, RBAC */
    struct audit *audit; /* NULL: nothing is noted */

    uint32_t service_net;  /* host order: 10.96.0.0 */
    uint32_t service_bits; /* 16 */
    int node_port_first, node_port_last;
    struct env_timer *sweep; /* events that are over, schemas that nobody uses */
    struct store_watch *crds;
    struct list crd_jobs;        /* definitions to settle in the loop's next turn (crd.c) */
    struct env_timer *crd_settle;
    struct map crd_names; /* crd.c */
    struct store_watch *services; /* addresses.c */
    uint64_t requests, watches; /* for /metrics */
    char *flags; /* of /flagz */
    struct metrics *metrics;
    struct flow *flow;
    struct list watching; /* api_watch.all */
    struct told_cache *told;
    bool stopping; /* no longer ready */
    struct outside *outside;    /* outside.c */
    struct webhooks *webhooks;  /* webhooks.c */
    struct policies *policies; /* policies.c */
    struct aggregate *aggregate; /* aggregate.c */
    struct node_pods *node_pods; /* access_node.c; NULL: no node asked yet */
};

#define PROTOBUF_TYPE "application/vnd.kubernetes.protobuf"

enum form { FORM_OBJECT, FORM_TABLE, FORM_PARTIAL, FORM_PARTIAL_LIST, FORM_DISCOVERY };
enum encoding { ENC_JSON, ENC_YAML, ENC_PROTOBUF };

/* What the query says, read once by options.c. */
struct options {
    bool dry_run, watch, bookmarks, send_initial, send_initial_set, pretty, force, force_set;
    const char *field_manager;    /* NULL */
    const char *field_validation; /* "Strict", "Warn" (the default), "Ignore" */
    const char *label_selector, *field_selector; /* "" */
    const char *resource_version, *resource_version_match, *continue_; /* "" */
    int64_t limit, timeout_s;
    bool timeout_set;
};

struct path {
    bool resource;  /* /api/V/..., /apis/G/V/...; else look at the text */
    bool old_watch; /* /api/v1/watch/... */
    const char *text;
    const char *group, *version;      /* "" when the path is shorter */
    const char *ns, *plural, *name, *sub, *rest; /* "" each; rest: behind a sub-resource */
};

struct param {
    const char *name, *value;
};

struct call {
    struct api *api;
    const struct api_request *req;
    struct arena *a;
    int (*serve)(struct call *c);
    api_done_fn *done;
    void *arg;
    const struct auth_user *user; /* NULL: this process itself */

    struct path path;
    struct param *params;
    uint32_t params_n;
    struct options o;
    const char *verb; /* as RBAC names it: get list watch create update patch delete deletecollection */
    bool is_get, is_head;

    const struct resource *r; /* what was asked for */
    const struct resource *stored;
    const struct subresource *sub; /* NULL: the object itself */
    const struct kind_hooks *hooks; /* NULL: none */
    unsigned flags;                 /* enum kind_flag */
    struct store_table *table;
    int64_t now_ms;

    enum form form;
    enum encoding encoding;
    const char *form_version; /* "v1", "v1beta1" of the table or partial object */
    const char *include_object;

    const char *managed_sub;   /* the sub-resource that managedFields name, when sub does not say it */
    struct val *managed;       /* managedFields of what is written; NULL: not tracked */
    bool applying;             /* managed is set already */
    bool empties;              /* the body had empty lists that are still told from none: schema_settle() */
    bool parents_first;        /* order of unknown fields */
    const struct obj *deleted; /* delete.c: as it went */
    struct quota_charge *charges; /* quota.c: what storing the object adds to quotas */
    struct texts warnings;
    struct api_response resp;

    struct val *annotations; /* for the audit event; NULL: none */
    struct version *versions; /* convert.c: objects of a list in the wanted version */
    uint32_t versions_n, versions_at;
    const struct val *broken; /* the Status that ends the call, whatever comes later */
    bool taken;            /* somebody else answers now: done is not called */
    bool waits;            /* unwinding: an answer from outside is still to come (outside.h) */
    struct memory *memory; /* of earlier runs of this call, or NULL */
    struct draw *draws, *drawn;
};

/* What a request is about, for who counts and queues it. Texts live in the request's arena. */
struct about {
    const char *verb; /* as RBAC has it */
    const char *group, *version, *resource, *sub, *ns, *name, *path;
    bool resource_request, mutating, apply, dry_run;
};
void call_about(struct call *c, struct about *ret); /* reads path and query; never fails */

/* ---- metrics.c ---- */
struct metrics *metrics_new(void);
void *metrics_free(struct metrics *m);
/* A request that was answered; seconds from its head to its answer. */
void metrics_request(struct metrics *m, const struct about *a, int status, double seconds, size_t bytes);
/* The counter of events of that resource; stays as long as the metrics. */
uint64_t *metrics_watch_events(struct metrics *m, const char *group, const char *version, const char *plural);
void metrics_inflight(struct metrics *m, bool mutating, int by);
/* Adds to a counter that is in the table of metrics.c (NAMED), with labels as they are written. Labels come from
 * our own files, not from clients. */
void metrics_add(struct metrics *m, const char *name, const char *labels, double by);
void metrics_set(struct metrics *m, const char *name, const char *labels, double to);
/* A configuration file ("authentication", "authorization") was read again. */
void metrics_reload(struct metrics *m, const char *what, bool good, int64_t now_ms);
int metrics_serve(struct call *c);

/* ---- health.c ---- */
int health_serve(struct call *c, const char *which /* healthz, livez, readyz */, const char *check);
int flagz_serve(struct call *c);
int statusz_serve(struct call *c);

/* ---- flow.c ---- */
struct flow *flow_new(struct api *api);
void *flow_free(struct flow *f);
void flow_metrics(struct flow *f, struct buf *b);
int flow_dump(struct call *c, const char *what); /* /debug/api_priority_and_fairness/... */

/* ---- status.c: all of them fill call->resp and give back -1 ---- */
struct val *status_doc(struct arena *a, int code, const char *reason, const char *message);
int fail_status(struct call *c, const struct val *status); /* a Status document with its code */
int fail(struct call *c, int code, const char *reason, const char *fmt, ...) _printf_(4, 5);
int fail_err(struct call *c, const struct err *err); /* no details */
int fail_not_found(struct call *c, const char *name);
int fail_not_found_in(struct call *c, const char *group, const char *plural, const char *name);
int fail_exists(struct call *c, const char *name);
int fail_conflict(struct call *c, const char *name, const char *fmt, ...) _printf_(3, 4);
int fail_forbidden(struct call *c, const char *name, const char *fmt, ...) _printf_(3, 4);
int fail_causes(struct call *c, const struct causes *causes, const char *name);
int fail_causes_of(struct call *c, const struct causes *causes, const char *group, const char *kind,
                   const char *name);
int fail_no_method(struct call *c);
int fail_internal(struct call *c, const char *why); /* 500 "Internal error occurred: WHY" */
int fail_no_page(struct call *c); /* 404 for what we do not serve */
/* The Status of an answer put into words for the outside. */
struct val *status_success(struct arena *a, const char *group, const char *plural,
                           const char *name, const char *uid);

/* ---- path.c ---- */
/* false: the text is not of the form of a resource's path (then only text is set). */
bool path_parse(struct arena *a, const char *text, struct path *ret);
char *path_unescape(struct arena *a, const char *s, size_t n, bool plus); /* NULL: malformed */

/* ---- options.c ---- */
int options_params(struct call *c); /* splits the query; once is enough */
const char *param(const struct call *c, const char *name);
bool param_bool(const struct call *c, const char *name);
int options_read(struct call *c); /* what every verb knows */
int options_list(struct call *c); /* and the checks of a list or watch */
int options_write(struct call *c, const char *kind); /* CreateOptions, UpdateOptions, PatchOptions */

/* ---- answer.c ---- */
int answer_negotiate(struct call *c, bool list, bool forms);
void answer_val(struct call *c, int status, const struct val *v);
void answer_obj(struct call *c, int status, const struct obj *o); /* as stored; takes form and version */
void answer_tree(struct call *c, int status, struct val *v); /* a tree in the version c->r */
void answer_text(struct call *c, int status, const char *type, const char *text, size_t n);
/* Is the stored text of o what is wanted? */
bool answer_as_stored(const struct call *c, const struct obj *o);
/* A page of a list as one document of the wanted form. */
void answer_list(struct call *c, const struct obj **v, uint32_t n, int64_t revision,
                 const char *continue_, int64_t remaining);
const struct val *answer_item(struct call *c, const struct val *v, bool first); /* for watches */
/* With ENC_PROTOBUF: the answer, whatever it is by now, as bytes. */
void answer_protobuf(struct call *c);
/* What is written in place of the tree of an object in lists: its text without apiVersion, kind. */
void write_item(struct buf *b, const struct obj *o);

/* ---- convert.c ---- */
struct version {
    const struct obj *o;
    const struct val *v;
};
/* The object in the version that was asked for. With a conversion webhook: when it does not answer (yet),
 * c->waits or c->broken is set and the object comes as it is; then nothing may be written. */
const struct val *answer_version(struct call *c, const struct obj *o);
/* A tree of a custom resource in version `to`. */
const struct val *version_of(struct call *c, const struct val *v, const struct resource *to);
/* Asks for many at once, so that answer_version() has them. -1: they are not there (yet). */
int versions_ready(struct call *c, const struct obj *const *o, uint32_t n);
bool version_as_stored(const struct call *c, const struct obj *o); /* in the version that is asked for */
bool versions_by_webhook(const struct resource *r);
/* The same for who is no call: a watch. done exactly once, maybe from inside convert_go(); bad: the Status
 * of what went wrong, or NULL. The versions live until convert_free(), which may come at any time. */
struct convert_job;
typedef void convert_done_fn(void *arg, const struct val *bad, struct version *v, uint32_t n);
struct convert_job *convert_start(const struct call *shape, const struct obj *const *o, uint32_t n,
                                  convert_done_fn *done, void *arg);
void convert_go(struct api *api, struct convert_job *job);
void *convert_free(struct api *api, struct convert_job *job);
bool version_needs_webhook(const struct call *shape, const struct obj *o);

/* ---- access.c ---- */
void access_start(struct api *api);
int access_check(struct call *c);
bool access_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *ask);
/* The same, and why in Kubernetes' words ("": no reason is given). */
bool access_decides(struct api *api, const struct auth_user *u, const struct rbac_ask *ask,
                    struct arena *a, const char **ret_reason);
/* For who can wait: AUTHZ_WAIT unwinds the call with -1, and it runs again with the answer. */
enum authz_verdict access_verdict(struct call *c, const struct auth_user *u, const struct rbac_ask *ask,
                                  const char **ret_reason);
/* What this call asks for, by its verb, path and query. */
struct rbac_ask access_ask(struct call *c);
int access_refuse(struct call *c, const struct auth_user *u, const struct rbac_ask *q); /* 403 */
/* access_node.c: the node a user speaks for (system:node:NAME in system:nodes), or NULL; and what
 * the node authorizer lets it do. */
const char *node_of_user(const struct auth_user *u);
bool node_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *q);
void node_pods_free(struct node_pods *p);
/* May the user of this call do `verb` on that? While a webhook is asked the answer is false, and the call
 * runs again when it is known: refuse, and write nothing. */
bool access_also(struct call *c, const char *verb, const char *group, const char *resource,
                 const char *sub, const char *ns, const char *name);
const struct obj *api_lookup(void *api, struct arena *a, const char *kind, const char *ns,
                             const char *name);

/* ---- body.c ---- */
/* The body as a tree; strict (may be NULL) gets names of keys that come twice. NULL: failed. */
struct val *body_tree(struct call *c, struct texts *strict);
/* The body as an object of the type that is written (c->r, or the sub-resource's kind). */
struct val *body_object(struct call *c);
/* Decodes a tree as resource r (normal form, unknown fields by fieldValidation). patched: the
 * object comes out of a patch, so what is wrong is 422 and not 400. */
int body_decode(struct call *c, const struct resource *r, struct val *v, struct texts *strict,
                bool patched);
int body_field_validation(struct call *c, const struct texts *strict, bool patched);

/* ---- read.c ---- */
int read_get(struct call *c);
int read_list(struct call *c);
struct listed {
    const struct obj **v; /* pinned in the call's arena */
    uint32_t n;
    int64_t revision, remaining;
    char *next;
};
int list_find(struct call *c, struct listed *ret); /* by the options of the query */
bool parse_revision(const char *s, int64_t *ret);
struct val *too_new(struct call *c, int64_t wanted); /* the Status for a revision that is not there yet */
const struct obj *find(struct call *c); /* the object of the path, or NULL */

/* ---- watch.c ---- */
int watch_begin(struct call *c);
void watch_each(struct api *api, void (*fn)(void *arg, const struct resource *r, bool ns), void *arg);

/* ---- stream.c ---- */
/* The list as pieces; head: the document with everything but its items (an empty list comes last). */
struct api_stream *stream_new(struct call *c, const struct val *head, const struct obj *const *v, uint32_t n);

/* ---- write.c ---- */
int write_create(struct call *c);
int write_update(struct call *c);
int write_patch(struct call *c);
/* Stores v (in version c->stored) as a new object. On success *ret is borrowed until the arena goes. */
int put_new(struct call *c, struct val *v, const struct obj **ret);
/* Stores v in place of old (which may then go, when it was only held by finalizers). */
int put_over(struct call *c, const struct obj *old, struct val *v, const struct obj **ret);
/* The whole way of an update from a tree in version c->r: admission, validation, storing. */
int update_with(struct call *c, const struct obj *old, struct val *v, const struct obj **ret);
int create_with(struct call *c, struct val *v, const struct obj **ret);

/* ---- delete.c ---- */
int delete_one(struct call *c);
int delete_collection(struct call *c);
struct delete_options {
    int64_t grace_s; /* < 0: not said */
    const char *propagation; /* NULL: not said */
    const char *uid, *revision; /* preconditions or NULL */
    bool orphan_set, orphan;
};
/* Deletes one object. *ret: what it is now, when it stays (finalizers, grace); NULL: gone. */
int delete_object(struct call *c, const struct obj *o, const struct delete_options *how,
                  const struct obj **ret);

/* ---- apiserver.c ---- */
/* The verb as RBAC names it, of method, path and query; "": there is none. */
const char *call_verb(struct call *c);

/* ---- meta.c: everything that is no resource ---- */
int meta_serve(struct call *c);

/* ---- reviews.c, subs.c: create on kinds and sub-resources that are never stored ---- */
int review_create(struct call *c, struct val *v);
int bind_pod(struct call *c, const char *name, const struct val *binding);
int sub_serve(struct call *c); /* scale, binding, eviction, token, finalize, ... */

/* ---- stock.c ---- */
int stock_write(struct api *api, struct err *err);

/* ---- crd.c ---- */
int crd_start(struct api *api, struct err *err);
void crd_stop(struct api *api);

/* ---- aggregate.c: APIService objects ---- */
int aggregate_start(struct api *api, struct err *err);
/* Makes the objects of what this server serves itself, and takes back those of what it no longer does. */
void aggregate_locals(struct api *api);
void aggregate_stop(struct api *api);
const char *aggregate_ca_pem(const struct api *api); /* of front-proxy certificates */
/* Another server has /apis/GROUP/VERSION. */
struct remote;
const struct remote *aggregate_remote(const struct api *api, const char *group, const char *version);
bool aggregate_available(const struct remote *r);
/* Its kept connections; NULL and err. *ret_host: for the Host header, in the arena. */
struct http_origin *aggregate_origin(struct api *api, const struct remote *r, struct arena *a,
                                  const char **ret_host, struct err *err);
/* What discovery and OpenAPI documents show in addition; given back as it is when there is nothing. */
struct doc;
struct doc aggregate_groups(struct call *c, struct doc d);               /* APIGroupList */
struct doc aggregate_group(struct call *c, struct doc d, const char *group); /* APIGroup; d may be none */
struct doc aggregate_discovery(struct call *c, struct doc d);            /* APIGroupDiscoveryList of /apis */
struct doc aggregate_openapi_v3(struct call *c, struct doc d);           /* the index */

/* ---- outside.c: random that is the same in each run of a call (outside.h) ---- */
const char *call_uuid(struct call *c);
const char *call_suffix(struct call *c); /* five letters, as generateName's */
uint32_t call_below(struct call *c, uint32_t n);

/* ---- apiserver.c ---- */
/* A run of a call; serve does the work (NULL: that of the API), m: what it remembers of earlier ones, or
 * NULL. */
typedef int serve_fn(struct call *c);
void call_run(struct api *api, const struct api_request *req, serve_fn *serve, api_done_fn *done, void *arg,
              struct memory *m);
/* What is asked, for who serves a call himself: method, path, query, verb. */
int call_read(struct call *c);
void call_finish(struct call *c); /* gives the answer to who asked */

/* ---- addresses.c: IPAddress objects of services ---- */
int addresses_start(struct api *api, struct err *err);
void addresses_stop(struct api *api);
/* Is there an IPAddress of that name that is not this service's? */
bool address_taken(struct api *api, const char *ip, const char *ns, const char *service);
bool address_in_range(struct api *api, uint32_t ip); /* of any ServiceCIDR; host order */
/* A free address of a ServiceCIDR other than the first range, or NULL. */
const char *address_elsewhere(struct api *api, struct arena *a);

/* ---- small ---- */
void pin_obj(struct arena *a, const struct obj *o); /* the arena takes the reference over */
struct store_table *table_named(struct store *s, const char *group, const char *plural);
struct val *meta_of(struct arena *a, struct val *v); /* metadata, made when missing */
const char *now_text(struct call *c);
/* Runs a call inside the API itself (stock objects, cascades): as this process. */
int call_inner(struct api *api, struct arena *a, const char *method, const char *path,
               const struct val *body, struct api_response *ret);
