/* apiserver/authn_int.h - between authn.c and oidc.c. */
#pragma once

#include "apiserver/authn.h"
#include "auth/jwt.h"

struct oidc;

/* The issuers of an AuthenticationConfiguration. A file that turns bad later leaves the last good one
 * in force. */
struct oidc *oidc_new(struct api *api, const char *path, struct err *err) _must_check_;
void *oidc_free(struct oidc *o);
enum authn_result oidc_token(struct oidc *o, const struct jwt *t, const struct authn_ask *q,
                      struct authn_answer *ret, struct err *err);
void oidc_forget(struct oidc *o, void *wake_arg);
/* The anonymous part of the file: NULL when it does not say. */
const struct val *oidc_anonymous(const struct oidc *o);
