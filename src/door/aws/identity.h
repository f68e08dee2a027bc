/* door/aws/identity.h - who may do what at the AWS doors: access keys, users, roles, sessions and their policies.
 *
 * Keys are Secrets of type tandem.dev/access-key; users, roles and policies are objects of the kinds IAMUser, IAMRole
 * and IAMPolicy, seen through mirrors. A key is the account's root, unless its Secret's annotation tandem.dev/user
 * names a user. Sessions of roles lie in no store: a session token is sealed with a key of STATE/iam and says
 * all about itself (auth/session.h).
 * A decision keeps nothing: a policy that changes counts from the next request on.
 * Thread: the gateway's loop. */
#pragma once

#include "auth/policy.h"
#include "client/client.h"

struct identity;

#define IAM_ROLES "tandem.dev/v1/iamroles"
#define IAM_USERS "tandem.dev/v1/iamusers"
#define IAM_POLICIES "tandem.dev/v1/iampolicies"
#define A_KEY_USER "tandem.dev/user"     /* of a key: the name of its user */
#define A_KEY_STATUS "tandem.dev/status" /* "Inactive": it signs nothing */

struct identity_opts {
    struct client *client; /* outlives it */
    const char *state;     /* the state folder */
    const char *region, *account; /* NULL: us-east-1, 000000000000 */
    /* A role came or went (its ARN): what runs with it may want other keys. NULL: all roles are known now. */
    void (*role_changed)(void *arg, const char *arn);
    void *arg;
};
/* NULL: the key of sessions can neither be read nor made. */
struct identity *identity_new(const struct identity_opts *o, struct err *err) _must_check_;
void *identity_free(struct identity *id);
bool identity_ready(const struct identity *id); /* roles are known: false only for a moment after a start */
const char *identity_account(const struct identity *id);
const char *identity_region(const struct identity *id);

/* 16 hexadecimal digits of the text's SHA-256, in the arena: what stands in the names of objects whose AWS name does not
 * fit. No two names that somebody can find by trying share it. */
char *aws_name_hash(struct arena *a, const char *text);

/* ---- who asks ---- */

enum caller_kind { CALLER_ROOT, CALLER_USER, CALLER_ROLE };
struct caller {
    enum caller_kind kind;
    const char *key_id, *secret;
    const char *arn;  /* as GetCallerIdentity has it */
    const char *id;   /* UserId: the account, AIDA..., AROA...:SESSION */
    const char *name; /* of the user or role; NULL: root */
    const char *session; /* name of the role's session; NULL: none */
    int64_t issued_s;    /* of a session token; 0: long-lived */
    struct val *tags;    /* principal tags: map of texts; never NULL */
    struct policy_who who;
    struct policy_set set; /* what counts for him; resource empty */
};
/* Whose key is this? token: the session's, NULL: none. secret: the key's Secret, when the caller has it
 * (NULL: from the mirror). Parts lie in the arena.
 * NOT_FOUND: no such key, or its user or role is gone. EXPIRED: the session is over. INVALID_ARGUMENT: the token is
 * none of ours, or of another key. FORBIDDEN: the key is inactive. UNAVAILABLE: nothing is known yet. */
int identity_find(struct identity *id, struct arena *a, const char *key_id, const char *token, const struct obj *secret,
                  int64_t now_s, struct caller *ret, struct err *err) _must_check_;
/* Who signed at that time, as a text that only this instance can make or read: what is done for him later (a stack's
 * steps) shows it instead of a signature. In the arena. token: of his session, or NULL. */
char *identity_caller_seal(struct identity *id, struct arena *a, const char *key_id, const char *token, int64_t now_s);
/* identity_find() by such a text. INVALID_ARGUMENT: it is none of ours. */
int identity_caller_open(struct identity *id, struct arena *a, const char *sealed, struct caller *ret, struct err *err) _must_check_;
/* Says of a document, named by about, that this door wrote it (auth/session.h: session_sign). */
char *identity_sign(struct identity *id, struct arena *a, const char *about, const struct val *v);
/* A fresh access key: the Secret that holds it, called so (NULL: "access-key-" and its id in lower case). All in the arena. */
struct val *identity_new_key(struct arena *a, const char *name, const char **ret_id, const char **ret_secret);
/* What lies in a key's Secret: "accessKeyId", ... in the arena; NULL: it has none. */
const char *identity_secret_text(struct arena *a, const struct obj *secret, const char *name);

/* May he? context: map of further condition keys (lower case), may be NULL; what is known of the caller
 * himself is added. resource: the resource's own policy, or NULL. */
enum policy_verdict identity_decide(struct identity *id, struct arena *a, const struct caller *c, const char *action,
                                    const char *resource, const struct val *context, const struct val *resource_policy,
                                    enum policy_kind resource_kind);
/* "User: ARN is not authorized to perform: ACTION on resource: RESOURCE because ...". */
char *identity_refusal(struct arena *a, const struct caller *c, enum policy_verdict verdict, enum policy_kind resource_kind,
                       const char *action, const char *resource);

/* What every request says of itself: condition keys in lower case. region: what it was signed for; NULL: ours. */
struct http_req;
struct val *identity_context(const struct identity *id, const struct http_req *req, const char *region);
/* The policy that lies at a resource, in an annotation; NULL: none. One that cannot be read (made by hand) denies all. */
const struct val *identity_policy_at(struct arena *a, const struct obj *o, const char *annotation);

/* ---- roles ---- */

/* The role of an ARN; borrowed as from a mirror; NULL: IAM knows none. */
const struct obj *identity_role(struct identity *id, const char *arn);
/* Does its trust let this service (or whoever) do that action? context as above. */
enum policy_verdict identity_trusts(struct identity *id, struct arena *a, const struct obj *role, const struct policy_who *who,
                                    const char *action, const struct val *context);

struct session_opts {
    const char *name;            /* of the session */
    const char *policies[11];    /* session policies: their texts, NULL-terminated */
    const struct val *tags;      /* map of texts; NULL: none */
    const struct val *transitive; /* list of their keys that go on; NULL: none */
    int64_t now_s, seconds;
};
struct session_keys {
    const char *key_id, *secret, *token;
    int64_t expires_s;
    const char *arn, *id; /* AssumedRoleUser */
};
/* Keys of a session. who: the user or root whose own session it is (GetSessionToken), or NULL; role: NULL then. */
void identity_session(struct identity *id, struct arena *a, const struct obj *role, const struct caller *who,
                      const struct session_opts *o, struct session_keys *ret);
