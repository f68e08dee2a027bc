/* auth/audit_policy.h - which requests are noted, and how much of them: audit.k8s.io/v1 Policy.
 *
 * The first rule that matches decides; without one nothing is noted. The tree of the policy stays
 * the caller's; it is checked once, then asked for each request. */
#pragma once

#include "auth/rbac.h"

enum audit_level { AUDIT_NONE, AUDIT_METADATA, AUDIT_REQUEST, AUDIT_REQUEST_RESPONSE };
enum audit_stage {
    AUDIT_RECEIVED = 1, /* RequestReceived */
    AUDIT_STARTED = 2,  /* ResponseStarted: of answers that take long */
    AUDIT_COMPLETE = 4, /* ResponseComplete */
    AUDIT_PANIC = 8,
};

struct audit_verdict {
    enum audit_level level;
    unsigned omit; /* enum audit_stage */
    bool omit_managed_fields;
};

/* INVALID_ARGUMENT names the first rule that is wrong. */
int audit_policy_check(const struct val *policy, struct err *err) _must_check_;
/* u NULL: nobody (authentication failed). */
struct audit_verdict audit_policy_ask(const struct val *policy, const struct auth_user *u,
                                      const struct rbac_ask *ask);
const char *audit_level_name(enum audit_level level);
const char *audit_stage_name(enum audit_stage stage);
