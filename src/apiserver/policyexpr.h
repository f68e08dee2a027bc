/* apiserver/policyexpr.h - running the expressions of admission (schema/admitexpr.h) over a request. A run's
 * variables are evaluated when first asked for, once. */
#pragma once

#include "apiserver/admission.h"
#include "schema/admitexpr.h"

enum {
    EXPR_BUDGET = 10000000,      /* of all expressions of one binding, in CEL's cost */
    EXPR_BUDGET_MATCH = 2500000, /* of the match conditions */
    EXPR_MESSAGE_MAX = 5 * 1024,
};

/* One request as the expressions see it. object and old as admission_convert() gave them; params NULL: null. */
struct expr_run;
struct expr_run *expr_run_new(const struct exprs *x, struct call *c, struct admission *ad,
                              const struct admission_as *as, const struct val *object, const struct val *old,
                              const struct val *params);
void expr_run_budget(struct expr_run *r, uint64_t cost); /* starts anew: budget, variables */
uint64_t expr_run_left(const struct expr_run *r);
/* 0: *ret. -1: the expression failed, *ret_why says how. -2: no budget is left: all of them failed. */
int expr_eval(struct expr_run *r, const struct expr *e, struct cel_value *ret, const char **ret_why);

/* Do all match conditions hold? 1: yes; 0: no; -1: that cannot be said, *ret_why. ignore: as the failure
 * policy says, what cannot be said is a no. */
int exprs_match(struct expr_run *r, const struct expr *const *v, uint32_t n, bool ignore, const char **ret_why);
