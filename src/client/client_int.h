/* client/client_int.h - inside of the client: the backends' table, operations, mirrors. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "client/client.h"
#include "store/index.h"

struct client_ops {
    bool local;
    /* starts it; ends with op_finish() or op_fail(), never inside this call */
    void (*call)(struct client *c, struct client_op *op);
    void (*cancel)(struct client_op *op); /* what backend holds; then op_free() is due at once or by the backend */
    void (*mirror_start)(struct client *c, struct mirror *m);
    void (*mirror_stop)(struct mirror *m);
    void (*free)(struct client *c);
    void (*count)(struct client *c, const char *name, const char *labels, double by); /* NULL: nowhere */
};
struct client { /* head of struct local / struct remote */
    const struct client_ops *ops;
    struct env *env;
    struct list calls, mirrors;
    int64_t seen;
    struct events *events; /* event.c; NULL: none told yet */
};

/* "apps/v1/deployments" taken apart, in the arena. */
struct client_resource {
    const char *group, *version, *plural;
};
struct client_resource client_resource(struct arena *a, const char *resource);
/* "/apis/apps/v1/namespaces/default/deployments/web/status"; ns, name and sub may be NULL or "". */
char *client_path(struct arena *a, const char *resource, const char *ns, const char *name, const char *sub);
const char *client_method(enum client_verb verb);
const char *client_content_type(const struct client_call *call);
char *client_escape(struct arena *a, const char *s); /* for a query */

/* --- calls --- */
struct client_op {
    struct list link; /* client.calls */
    struct client *c;
    struct arena *arena;
    struct client_call call; /* deep copy */
    client_fn *fn;
    void *arg;
    struct env_timer *timer;
    void *backend;  /* local: the api_request under way; remote: struct http_call */
    bool cancelled; /* nobody wants the answer; freed when it comes */
};
void op_finish(struct client_op *op, const struct client_result *r); /* calls fn, frees */
void op_fail(struct client_op *op, const struct err *err, int status);
void op_free(struct client_op *op);

/* --- mirrors (mirror.c) --- */
struct mirror_index {
    mirror_key_fn *key_of;
    struct map buckets; /* key -> struct index */
};
struct mirror {
    struct list link; /* client.mirrors */
    struct client *c;
    struct arena *arena; /* of args' copies */
    struct mirror_args args;
    struct index objs;
    struct mirror_index *indexes;
    int indexes_n;
    int64_t revision;
    bool synced;
    bool telling; /* the callbacks may be called: the first content has been told */
    uint32_t hold;
    bool dead;
    void *backend;
};
void mirror_hold(struct mirror *m);
bool mirror_release(struct mirror *m); /* false: it is gone (was freed in a callback) */
/* One object is there now, or has gone (last). The caller holds the mirror when it goes on. */
void mirror_set(struct mirror *m, const struct obj *o);
void mirror_del(struct mirror *m, const char *ns, const char *name, const struct obj *last);
/* Everything that is there: tells only differences. */
void mirror_replace(struct mirror *m, const struct obj **v, uint32_t n);
void mirror_tell_first(struct mirror *m); /* added() for all, then synced() */
void mirror_tell_synced(struct mirror *m);
