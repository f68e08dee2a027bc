/* auth/token.h - service-account tokens: JWTs signed with ES256 by the key of the instance.
 *
 * A token names its account by uid, and maybe one bound object (pod, secret, node) by uid: it ends
 * with whichever of them goes first, or with its time. Nothing about tokens is stored.
 * All times are seconds since 1970 and are handed in. */
#pragma once

#include "auth/user.h"
#include "base/err.h"
#include "codec/obj.h"

struct evp_pkey_st;

#define TOKEN_ISSUER "https://kubernetes.default.svc.cluster.local"

struct token_spec {
    const char *namespace_, *account, *account_uid;
    const struct val *audiences; /* list of strings, not empty */
    const char *bound_kind;      /* "Pod", "Secret", "Node" or NULL */
    const char *bound_name, *bound_uid;
    const char *node_name, *node_uid; /* of the bound pod, or NULL */
    const char *id;                   /* jti: a uid */
    int64_t now, seconds;
};
/* The token, in the arena. */
char *token_make(struct evp_pkey_st *key, const struct token_spec *spec, struct arena *a,
                 struct err *err) _must_check_;

/* How tokens look at the world: the object now, NULL when there is none. kind: "ServiceAccount",
 * "Pod", "Secret", "Node". Borrowed until the arena goes. */
typedef const struct obj *token_lookup_fn(void *arg, struct arena *a, const char *kind,
                                          const char *namespace_, const char *name);

/* Who a token speaks for. `audiences` (list of strings or NULL = the API's own): at least one must
 * be the token's; *ret_audiences (may be NULL) gets those that are. UNAUTHENTICATED when the token
 * is none of ours, over, too early, for others, or what it is bound to is gone. */
int token_verify(struct evp_pkey_st *key, const char *token, const struct val *audiences,
                 int64_t now, token_lookup_fn *lookup, void *arg, struct arena *a,
                 struct auth_user *ret_user, struct val **ret_audiences, struct err *err)
    _must_check_;

/* The documents of /openid/v1/jwks and /.well-known/openid-configuration. */
struct val *token_jwks(struct evp_pkey_st *key, struct arena *a);
struct val *token_openid(struct arena *a, const char *server_url);
