/* apiserver/expression.h - CEL expressions of configuration files, over the one variable that they have:
 * `claims` of a token, `user` that was made of them, or `request` of an access review. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

enum expression_about { EXPRESSION_CLAIMS, EXPRESSION_USER, EXPRESSION_REVIEW };
struct expression;
/* INVALID_ARGUMENT: it is empty or does not compile. */
struct expression *expression_new(enum expression_about about, const char *text, struct err *err)
    _must_check_;
void *expression_free(struct expression *x);
/* The result as a tree in the arena. UNAUTHENTICATED: it fails for this value. */
int expression_run(const struct expression *x, const struct val *about, struct arena *a,
                   const struct val **ret, struct err *err) _must_check_;
