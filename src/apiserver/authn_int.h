/* apiserver/authn_int.h - between authn.c, oidc.c (the file, issuers and their keys) and oidc_claims.c
 * (what a token's claims say of a user). */
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

/* What one issuer's entry (JWTAuthenticator) makes of claims. conf outlives it. */
struct mapping;
struct mapping *mapping_new(const struct val *conf, struct err *err) _must_check_;
void *mapping_free(struct mapping *m);
/* UNAUTHENTICATED: a claim is missing or a rule says no. Groups do not hold system:authenticated. */
int mapping_user(const struct mapping *m, const struct val *claims, struct arena *a,
                 struct auth_user *ret, struct err *err) _must_check_;
