/* apiserver/policies.h - ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings.
 *
 * policies.c keeps what is bound (made anew when one of the four tables changes; programs live as long as a
 * policy's spec) and says what matches a request; policies_run.c evaluates; policies_check.c says what is
 * wrong with expressions when a policy, a binding or a webhook configuration is written. */
#pragma once

#include "apiserver/policyexpr.h"

struct policies;

enum policy_kind { POLICY_VALIDATING, POLICY_MUTATING };

struct validation { /* in the order of the policy's list, which has message and reason */
    const struct expr *e, *message; /* message: NULL: none */
};
struct policy_binding {
    const struct obj *o;
    const struct val *spec; /* copied: a tree of an object does not last */
};
struct policy {
    const struct obj *o;
    const struct val *spec;
    bool ignore; /* failurePolicy */
    bool if_needed;
    struct policy_binding *bindings;
    uint32_t bindings_n;
    /* compiled, when it first matches; NULL: not yet */
    struct exprs *x;
    const struct expr **conditions, **mutations, **annotations;
    struct validation *validations;
    uint32_t conditions_n, mutations_n, annotations_n, validations_n;
};

/* The policies that are bound, by name; 0 for what is never subject to them. Borrowed until the call gives
 * way to the loop. */
uint32_t policies_of(struct call *c, enum policy_kind kind, struct policy **ret);
bool policies_any(struct call *c); /* is there one that might have a say? */
void policy_compile(struct call *c, enum policy_kind kind, struct policy *one);

/* Does a policy's matchConstraints or a binding's matchResources (NULL: all) match? 1: yes, *ret: as what;
 * 0: no; -1: *ret_why. */
int policy_match(struct call *c, const struct admission *ad, const struct val *resources,
                 struct admission_as *ret, const char **ret_why);
/* The parameters of a binding: a list with NULL in it when there are none to give. -1: *ret_why;
 * -2: the policy itself is wrong. */
int policy_params(struct call *c, const struct policy *p,
                  const struct policy_binding *b, const struct val ***ret, uint32_t *ret_n, const char **ret_why);

/* policies_run.c: the plugins */
int policies_mutate(struct call *c, struct admission *ad);
int policies_validate(struct call *c, struct admission *ad);

/* policies_check.c: adds what is wrong with the expressions of v, a policy or a webhook configuration. */
void policies_check(struct call *c, const struct val *v, const struct val *old, struct causes *causes);

int policies_start(struct api *api, struct err *err);
void policies_stop(struct api *api);
