/* auth/token.h - service-account tokens: JWTs signed by the key of the instance.
 *
 * A token names its account by uid, and maybe one bound object (pod, secret, node) by uid: it ends
 * with whichever of them goes first, or with its time. Nothing about tokens is stored.
 * All times are seconds since 1970 and are handed in. */
#pragma once

#include "auth/user.h"
#include "base/err.h"
#include "codec/obj.h"

struct evp_pkey_st;
struct jwt;

#define TOKEN_ISSUER "https://kubernetes.default.svc.cluster.local"
#define TOKEN_LEGACY_ISSUER "kubernetes/serviceaccount"

struct token_spec {
    const char *namespace_, *account, *account_uid;
    const struct val *audiences; /* list of strings, not empty */
    const char *bound_kind;      /* "Pod", "Secret", "Node" or NULL */
    const char *bound_name, *bound_uid;
    const char *node_name, *node_uid; /* of the bound pod, or NULL */
    const char *id;                   /* jti: a uid */
    int64_t now, seconds;
    int64_t warn_after; /* from then on its use is worth a note; 0: never */
};
/* The token, in the arena. */
char *token_make(struct evp_pkey_st *key, const struct token_spec *spec, struct arena *a,
                 struct err *err) _must_check_;

/* The token of a secret of type kubernetes.io/service-account-token: it has no end of its own. */
char *token_make_legacy(struct evp_pkey_st *key, const char *ns, const char *account,
                        const char *account_uid, const char *secret, struct arena *a);

/* JWS of a text by a secret (HS256), the text left out: "head..signature". For cluster-info. */
char *token_detached(const char *id, const char *secret, const char *text, struct arena *a);

/* The keys of an instance: the first one signs, any of them verifies. */
enum { TOKEN_KEYS_MAX = 16 };
struct token_keys {
    struct evp_pkey_st *v[TOKEN_KEYS_MAX];
    uint32_t n;
};

/* How tokens look at the world: the object now, NULL when there is none. kind: "ServiceAccount",
 * "Pod", "Secret", "Node". Borrowed until the arena goes. */
typedef const struct obj *token_lookup_fn(void *arg, struct arena *a, const char *kind,
                                          const char *namespace_, const char *name);
/* Tokens whose signature was found good, with what they say: to check it takes longer than all else of a
 * small request. Only that is remembered; time, audience and objects are looked at each time. For one set
 * of keys; a bounded number of tokens, each as text, and the newest of those that share a place. */
struct token_seen;
struct token_seen *token_seen_new(void);
void *token_seen_free(struct token_seen *s);
bool token_seen_has(const struct token_seen *s, const char *token);

struct token_check {
    const struct val *audiences; /* list of strings, one must be the token's; NULL or empty: the API's own */
    struct token_seen *seen;     /* NULL: the signature is checked each time */
    int64_t now;
    token_lookup_fn *lookup;
    void *arg;
};
struct token_found {
    struct auth_user user;
    struct val *audiences; /* those of the token that were wanted */
    const char *legacy;    /* the secret that the token lies in, or NULL */
    bool legacy_auto;      /* ... and it was made by the system, not by a person */
    bool stale;            /* its owner should have asked for a new one by now */
};
/* Who a token speaks for. UNAUTHENTICATED when it is none of ours, over, too early, for others, or
 * what it is bound to is gone. */
int token_verify(const struct token_keys *keys, const char *token, const struct token_check *q,
                 struct arena *a, struct token_found *ret, struct err *err) _must_check_;
bool token_is_ours(const struct jwt *t); /* by its issuer alone */

/* The documents of /openid/v1/jwks and /.well-known/openid-configuration. */
struct val *token_jwks(const struct token_keys *keys, struct arena *a);
struct val *token_openid(const struct token_keys *keys, struct arena *a, const char *server_url);
