/* auth/policy_int.h - between policy.c (statements), policy_match.c (patterns) and policy_cond.c (conditions). */
#pragma once

#include "auth/policy.h"

/* A pattern with its variables replaced. Bytes ANY and ONE are its wildcards, all others stand for
 * themselves, so a value that holds a '*' is not a pattern. */
enum { MATCH_ANY = 1, MATCH_ONE = 2 };
struct match {
    const char *s;
    size_t n;
};
enum match_how { MATCH_WILD = 1, MATCH_VARS = 2, MATCH_FOLD = 4 }; /* FOLD: in lower case */
/* false: it names a variable that has no value here: nothing matches. */
bool match_make(const struct policy_ask *ask, const char *pattern, unsigned how, struct match *ret);
bool match_text(const struct match *m, const char *text, size_t n);
/* Segment by segment: five that are separated by ':', and the rest. */
bool match_arn(const struct match *m, const char *arn);
char *match_lower(struct arena *a, const char *s);

/* The first value of a context key, or NULL. */
const char *context_text(const struct val *context, const char *key, struct arena *a);

int cond_check(const struct val *condition, struct err *err);
bool cond_holds(const struct val *condition, bool vars, const struct policy_ask *ask);
