/* apiserver/authz.h - who decides what a user may do, in which order: an AuthorizationConfiguration file
 * with nodes' rules, RBAC and webhooks.
 *
 * A webhook is asked about a request as that request comes by: the call waits (apiserver/outside.h) and
 * runs again with the answer. Answers are kept for as long as the file says (CACHE_MAX of them), and no
 * shorter than KEEP_MS. The file is read again when it changes; a bad one is told (log, metrics) and what
 * was in force stays. Who asks without a call (decisions inside of a decision) is told what is kept; what is
 * not kept counts as a webhook that can not be reached (failurePolicy).
 * Thread: the loop of the API. */
#pragma once

#include "auth/rbac.h"

struct api;
struct authz;
struct call;

enum authz_verdict { AUTHZ_NONE, AUTHZ_ALLOW, AUTHZ_DENY, AUTHZ_WAIT };

/* INVALID_ARGUMENT says what is wrong in the file. */
struct authz *authz_new(struct api *api, const char *path, struct err *err) _must_check_;
void *authz_free(struct authz *z);
/* c may be NULL: nothing is waited for. AUTHZ_WAIT: the call unwinds with -1. *ret_reason: "" or why. */
enum authz_verdict authz_decide(struct authz *z, struct call *c, const struct auth_user *u,
                                const struct rbac_ask *ask, struct arena *a, const char **ret_reason);
/* The spec of a SubjectAccessReview that asks this. */
struct val *authz_spec(struct arena *a, const struct auth_user *u, const struct rbac_ask *ask);
