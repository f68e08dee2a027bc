/* apiserver/authn_int.h - between authn.c, oidc.c (the file, issuers and their keys), oidc_claims.c
 * (what a token's claims say of a user) and authn_hook.c (a webhook that knows tokens). */
#pragma once

#include "apiserver/authn.h"
#include "auth/jwt.h"

struct oidc;

/* The issuers of an AuthenticationConfiguration. A file that turns bad later leaves the last good one
 * in force. */
struct oidc *oidc_new(struct api *api, const char *path, struct err *err) _must_check_;
void *oidc_free(struct oidc *o);
void oidc_close(struct oidc *o); /* nobody waits any more, from here on */
enum authn_result oidc_token(struct oidc *o, const struct jwt *t, const struct authn_ask *q,
                             struct authn_answer *ret, struct err *err);
/* The anonymous part of the file: NULL when it does not say. */
const struct val *oidc_anonymous(const struct oidc *o);

/* o->hook_path names it. */
struct token_hook;
struct token_hook *token_hook_new(struct api *api, const struct authn_opts *o, struct err *err) _must_check_;
void *token_hook_free(struct token_hook *h);
/* AUTHN_WAIT: q->call unwinds. */
enum authn_result token_hook_ask(struct token_hook *h, const struct authn_ask *q, struct authn_answer *ret, struct err *err);

/* What one issuer's entry (JWTAuthenticator) makes of claims. conf outlives it. */
struct mapping;
struct mapping *mapping_new(const struct val *conf, struct err *err) _must_check_;
void *mapping_free(struct mapping *m);
/* UNAUTHENTICATED: a claim is missing or a rule says no. Groups do not hold system:authenticated. */
int mapping_user(const struct mapping *m, const struct val *claims, struct arena *a,
                 struct auth_user *ret, struct err *err) _must_check_;
