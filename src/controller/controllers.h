/* controller/controllers.h - all controllers of the cluster, on the loop of who starts them.
 *
 * They see the world through the client that is handed in (local), tell the time and sleep through
 * env, and never block: each turn of the loop works on a bounded number of keys. Stopped at any
 * point and started again they go on where the objects say. */
#pragma once

#include "base/err.h"

struct arena;
struct client;
struct val;
struct env;
struct schema;
struct controllers;

/* What needs the keys of the instance: the controllers hold none. Texts of requests and certificates
 * are base64 of PEM, as they lie in objects. Results are in the arena. */
struct controllers_keys {
    int (*sign)(void *arg, const char *request, const struct val *usages, int64_t seconds,
                struct arena *a, char **ret_cert, struct err *err);
    /* {cn, orgs: [...], dns: N, ips: N, emails: N, uris: N}; NULL: it is no request */
    const struct val *(*read)(void *arg, const char *request, struct arena *a, struct err *err);
    char *(*token)(void *arg, const char *ns, const char *account, const char *account_uid,
                   const char *secret, struct arena *a); /* that lies in a secret */
    /* JWS of text by the secret (HS256), without the text: "head..signature" */
    char *(*jws)(void *arg, const char *id, const char *secret, const char *text, struct arena *a);
    char *(*base64)(void *arg, const char *text, struct arena *a);
    char *(*unbase64)(void *arg, const char *text, struct arena *a); /* "" when it is none */
    void *arg;
};

struct controllers_opts {
    const struct schema *schema; /* which kinds exist: for the collector and namespace deletion */
    const char *ca_pem;          /* text of the cluster's CA, published to every namespace; NULL: not */
    const struct controllers_keys *keys; /* NULL: nothing is signed */
    /* 0: the defaults of Kubernetes */
    int64_t node_grace_ms;     /* a lease this old makes a node unknown: 40,000 */
    int64_t finished_pods_max; /* pods kept after they ended: 12,500 */
    /* NULL: all. Else names with commas between, as kube-controller-manager reads them: "*" all,
     * "job" or "job-controller" that one, "-job" not that one, "-*" none. The first that fits
     * decides; what is not named runs when "*" is. */
    const char *only;
};

/* The client, env and what opts point to outlive it. With a remote client (a process of its own) each
 * write waits for its answer, and nothing is done before all mirrors are filled. */
struct controllers *controllers_start(struct client *client, struct env *env,
                                      const struct controllers_opts *opts,
                                      struct err *err) _must_check_;
/* Another text of the cluster's CA (borrowed, as opts->ca_pem): published to every namespace again. */
void controllers_set_ca(struct controllers *all, const char *ca_pem);
void *controllers_stop(struct controllers *all); /* NULL is fine */

struct controllers_stats {
    uint64_t passes, failures;
    uint32_t queued; /* keys that wait right now */
};
struct controllers_stats controllers_stats(const struct controllers *all);
