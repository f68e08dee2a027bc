/* client/client.h - the one door through which controllers, scheduler, node, functions, gateway and
 * advisor see the world: Kubernetes objects, read and written by their API.
 *
 * Two backends behind the same calls:
 *   local   in the server's process: reads are the store's head, so they always hold our own last
 *           write; verbs are done when they return.
 *   remote  any Kubernetes API server over HTTP(S): verbs answer later (client_call), reads go
 *           through mirrors.
 * Code that uses only mirrors and client_call() runs on both.
 *
 * A resource is named "v1/pods", "apps/v1/deployments", "tandem.dev/v1/functions"; ns is "" for
 * cluster-wide kinds and, where reading, NULL for all namespaces.
 * Thread: the loop that made it. */
#pragma once

#include "codec/obj.h"
#include "env/env.h"

struct client;
struct api;
struct schema;
struct http_client;

/* --- making one ------------------------------------------------------------------------------- */
/* name: who writes ("system:kube-controller-manager", "system:kube-scheduler", ...): its groups follow
 * from it. All else outlives the client. */
struct client *client_local_new(struct env *env, struct api *api, struct schema *schema,
                                const char *user);
/* From a kubeconfig (its current context; certificates, tokens, files or data). user_agent names
 * the part ("tandem-node"). */
struct client *client_remote_new(struct env *env, struct http_client *http, const char *kubeconfig_path,
                                 const char *user_agent, struct err *err) _must_check_;
/* Ends what is under way: callbacks of calls come with CANCELLED, mirrors must be freed before. */
void *client_free(struct client *c);
DEFINE_AUTO(struct client *, client_free, client_free)

struct env *client_env(struct client *c);
bool client_is_local(const struct client *c);
/* Revision of our own last write (either backend). */
int64_t client_seen(const struct client *c);

/* --- reading at once: the store's head, or (remote) what the server answers: the caller waits -- */
struct objs {
    const struct obj **v;
    uint32_t n;
};
/* Objects are pinned in the arena: good until it goes. NULL: not there. */
const struct obj *client_get(struct client *c, struct arena *a, const char *resource, const char *ns,
                             const char *name);
/* In the order (namespace, name); keep NULL: all. */
typedef bool client_keep_fn(void *arg, const struct obj *o);
struct objs client_list(struct client *c, struct arena *a, const char *resource, const char *ns,
                        client_keep_fn *keep, void *arg);
/* Those whose controller owner reference (or, with any_owner, any owner reference) has this uid. */
struct objs client_owned(struct client *c, struct arena *a, const char *resource, const char *ns,
                         const char *owner_uid);

/* --- writing at once: remote, the caller waits; only for processes that may (wait.c) ----------- */
/* Through the whole API: admission, defaults, validation, finalizers. v may lack apiVersion and
 * kind (they follow from the resource). ret (may be NULL): the object as written, a reference for
 * the caller. Errors carry the API's code and text. */
int client_create(struct client *c, const char *resource, const char *ns, const struct val *v,
                  const struct obj **ret, struct err *err) _must_check_;
/* Adds to a counter of /metrics of the API in this process; of a remote one: nothing. labels: a="b",c="d". */
void client_count(struct client *c, const char *name, const char *labels, double by);
/* Replaces; with metadata.resourceVersion in v only that version (CONFLICT otherwise). */
int client_update(struct client *c, const char *resource, const struct val *v,
                  const struct obj **ret, struct err *err) _must_check_;
int client_update_status(struct client *c, const char *resource, const struct val *v,
                         const struct obj **ret, struct err *err) _must_check_;
enum client_patch_type { CLIENT_PATCH_MERGE, CLIENT_PATCH_STRATEGIC, CLIENT_PATCH_JSON };
int client_patch(struct client *c, const char *resource, const char *ns, const char *name,
                 const char *sub /* "", "status", ... */, enum client_patch_type type,
                 const struct val *patch, const struct obj **ret, struct err *err) _must_check_;
/* POST to a sub-resource: pods/binding, pods/eviction, serviceaccounts/token. ret_val in the arena. */
int client_post_sub(struct client *c, struct arena *a, const char *resource, const char *ns,
                    const char *name, const char *sub, const struct val *v,
                    const struct val **ret_val, struct err *err) _must_check_;
struct client_delete {
    const char *uid;          /* precondition, or NULL */
    int64_t revision;         /* precondition, or 0 */
    const char *propagation;  /* "Background", "Foreground", "Orphan"; NULL: the kind's default */
    int64_t grace_s;          /* < 0: the object's own */
};
int client_delete(struct client *c, const char *resource, const char *ns, const char *name,
                  const struct client_delete *how /* NULL: no preconditions, defaults */,
                  struct err *err) _must_check_;

/* --- writing and reading later (both backends) ------------------------------------------------ */
enum client_verb {
    CLIENT_GET,
    CLIENT_LIST,
    CLIENT_CREATE,
    CLIENT_UPDATE,
    CLIENT_PATCH,
    CLIENT_DELETE,
};
struct client_call {
    enum client_verb verb;
    const char *resource, *ns, *name, *sub; /* NULL = "" */
    const char *query;                      /* "fieldSelector=...", encoded; NULL: none */
    const struct val *body;                 /* object, patch or DeleteOptions; NULL: none */
    enum client_patch_type patch_type;
    int64_t timeout_ms; /* 0: 30 s; remote only */
};
struct client_result {
    const struct err *err; /* NULL: done */
    int status;            /* HTTP; 0: no answer came */
    const struct obj *obj; /* when one object was answered; borrowed for the call of fn */
    const struct val *val; /* the document, always when err is NULL; borrowed */
};
typedef void client_fn(void *arg, const struct client_result *r);
struct client_op;
/* All of call is copied (the body too). fn exactly once, never inside this call, unless cancelled. */
struct client_op *client_call(struct client *c, const struct client_call *call, client_fn *fn, void *arg);
void client_cancel(struct client_op *op); /* before fn: it is not called any more */

/* --- mirrors: the world as we know it, kept up to date (both backends) ------------------------ */
struct mirror;
struct mirror_args {
    const char *resource;
    const char *ns;             /* NULL or "": all */
    const char *field_selector; /* "spec.nodeName=n1"; NULL: all */
    const char *label_selector; /* "a=b,c"; NULL: all */
    /* News, after the mirror itself has changed. All may be NULL. Objects are borrowed. After a
     * relist only real differences are told. */
    void (*added)(void *arg, const struct obj *o);
    void (*changed)(void *arg, const struct obj *was, const struct obj *o);
    void (*removed)(void *arg, const struct obj *last);
    void (*synced)(void *arg); /* once: all that was there has been told */
    void *arg;
};
/* Local: filled when this returns (added() and synced() still come, by a post). Remote: list, then
 * watch; a lost connection is taken up where it was, 410 lists again, failures back off (up to 30 s). */
struct mirror *client_mirror(struct client *c, const struct mirror_args *args);
void *mirror_free(struct mirror *m); /* no callback any more; from inside a callback too */
bool mirror_synced(const struct mirror *m);
int64_t mirror_revision(const struct mirror *m); /* everything up to here is in it */
uint32_t mirror_count(const struct mirror *m);

/* Borrowed until control goes back to the loop or we write ourselves. */
const struct obj *mirror_get(const struct mirror *m, const char *ns, const char *name);
/* Pinned in the arena, in the order (namespace, name). ns NULL: all. */
struct objs mirror_list(const struct mirror *m, struct arena *a, const char *ns);

/* An index: key_of tells the key of an object (written to out, or a pointer into the object), NULL:
 * not in it. Made before or after the mirror is filled. Gives back its number. */
typedef const char *mirror_key_fn(const struct obj *o, char *out, size_t out_n);
int mirror_index(struct mirror *m, mirror_key_fn *key_of);
struct objs mirror_find(const struct mirror *m, struct arena *a, int index, const char *key);

const char *key_controller_uid(const struct obj *o, char *out, size_t n); /* for mirror_index */
const char *key_node_name(const struct obj *o, char *out, size_t n);      /* spec.nodeName of a pod */

/* --- events (kind Event): what a person sees in kubectl describe ------------------------------ */
/* type "Normal" or "Warning". Told later, never waited for; the same (object, type, reason, text)
 * within ten minutes counts up one event instead of making another. component as in "kubelet". */
void client_event(struct client *c, const char *component, const struct obj *about, const char *type,
                  const char *reason, const char *fmt, ...) _printf_(6, 7);

/* --- leases ----------------------------------------------------------------------------------- */
/* Keeps coordination.k8s.io/v1 Lease ns/name held by holder and renewed until freed (node
 * heartbeats; leader election of one). */
struct lease;
struct lease *client_lease(struct client *c, const char *ns, const char *name, const char *holder,
                           int64_t duration_s, int64_t renew_ms);
void *client_lease_free(struct lease *l);

/* --- small things ----------------------------------------------------------------------------- */
/* "ns/name" or "name": keys for work queues. They give back out. */
enum { CLIENT_KEY_BYTES = 64 + 254 + 2 };
const char *client_key(const struct obj *o, char out[CLIENT_KEY_BYTES]);
const char *client_key_of(const char *ns, const char *name, char out[CLIENT_KEY_BYTES]);
/* The other way: ns and name (pointing into buf, a copy of key). */
void client_key_split(const char *key, char buf[CLIENT_KEY_BYTES], const char **ret_ns,
                      const char **ret_name);
