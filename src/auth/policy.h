/* auth/policy.h - IAM policy documents: are they well-formed, and what do they say to a request?
 *
 * A document is a tree as JSON decodes it ({Version, Statement: [...]}). Everything here is a pure function
 * of the document and the request: no clock, no objects, nothing is kept. What is understood: both
 * versions, Action and NotAction, Resource and NotResource with wildcards and variables, Principal and
 * NotPrincipal, all condition operators with IfExists, ForAllValues and ForAnyValue.
 * Bounds: a document of n bytes is judged in O(n x longest value of the request); documents have a size of at most
 * POLICY_BYTES_MAX, and only the nesting that the language has.
 * Thread: any; what is made lies in the arena. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

enum { POLICY_BYTES_MAX = 20480 };

/* Who a document lies with says which parts it has: an identity's names no principal, a trust policy names no
 * resource (it lies at the role) and only STS' actions. */
enum policy_kind { POLICY_IDENTITY, POLICY_TRUST, POLICY_RESOURCE };

/* INVALID with the text that IAM has for it. */
int policy_check(const struct val *doc, enum policy_kind kind, struct err *err) _must_check_;
/* The document of a text (VAL_STR) or of a tree, checked. NULL: INVALID. */
const struct val *policy_read(struct arena *a, const struct val *doc, enum policy_kind kind, struct err *err) _must_check_;
/* Bytes that count against the quotas: all but white space. */
size_t policy_bytes(const char *text);

/* Who asks, for documents that name principals. NULL members: he has none. */
struct policy_who {
    const char *account; /* 12 digits */
    const char *arn;     /* of the user, the role's session, or the account's root */
    const char *role;    /* the ARN of the role that the session is of */
    const char *service; /* "lambda.amazonaws.com": a service acts by itself */
    const char *federated; /* the ARN of the provider whose token he shows */
    bool root;
};
struct policy_ask {
    const char *action;   /* "s3:GetObject" */
    const char *resource; /* ARN or "*" */
    const struct val *context; /* map: key in lower case -> text or list of texts; NULL: empty */
    const struct policy_who *who;
    struct arena *arena; /* for what is made on the way */
};

enum policy_says {
    POLICY_SAYS_NOTHING,
    POLICY_SAYS_ACCOUNT, /* allows it to the account: its own policies decide */
    POLICY_SAYS_ROLE,    /* allows it to the role whose session asks */
    POLICY_SAYS_ALLOW,
    POLICY_SAYS_DENY,
};
/* What one document says (checked before, of that kind). */
enum policy_says policy_says(const struct val *doc, enum policy_kind kind, const struct policy_ask *ask);

/* All that counts for one request, in one account. Each list's documents are checked before. */
struct policy_docs {
    const struct val **v;
    uint32_t n;
};
struct policy_set {
    bool root;                   /* the account itself: everything that no resource denies him */
    struct policy_docs identity; /* of the user or role */
    struct policy_docs boundary; /* counts when has_boundary */
    struct policy_docs session;  /* counts when has_session */
    bool has_boundary, has_session;
    const struct val *resource;  /* the resource's own; NULL: none */
    enum policy_kind resource_kind;
    bool resource_must;          /* nobody gets by without it: a role's trust */
};
enum policy_verdict {
    POLICY_ALLOWED,
    POLICY_DENY_IDENTITY, POLICY_DENY_BOUNDARY, POLICY_DENY_SESSION, POLICY_DENY_RESOURCE, /* by a Deny */
    POLICY_NO_IDENTITY, POLICY_NO_BOUNDARY, POLICY_NO_SESSION, POLICY_NO_RESOURCE,         /* by no Allow */
};
/* A Deny anywhere denies. Else: identity and boundary and session allow it, or the resource's policy names
 * who asks (a role's session that is named by its role keeps its boundary and session policies). */
enum policy_verdict policy_decide(const struct policy_set *set, const struct policy_ask *ask);
/* "because no identity-based policy allows the s3:GetObject action", ... */
char *policy_why(struct arena *a, enum policy_verdict verdict, enum policy_kind resource_kind, const char *action);

/* Does a text match a pattern with * and ?, byte by byte? For lists of names and tests. */
bool policy_glob(const char *pattern, const char *text);
