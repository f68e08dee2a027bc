/* codec/regex.h - regular expressions as Kubernetes understands them (RE2: no look-around, no back
 * references), in bounded time.
 *
 * The syntax is checked and rewritten here, with the words of the Go library for what is wrong;
 * libpcre2 matches. A search that would take too long is cut: for the question whether something
 * matches a second, breadth-first search decides; where that is too long too, the answer is -1.
 * A regex never changes once made, so any thread may use it. */
#pragma once

#include "base/err.h"

struct regex;

enum { REGEX_PATTERN_MAX = 64 * 1024 };

/* NULL and err (INVALID): "error parsing regexp: missing closing ]: `[a`" and so on. */
struct regex *regex_new(const char *pattern, size_t n, struct err *err);
void *regex_free(struct regex *re); /* NULL is fine */
void regex_unpin(void *re);         /* the same for arena_pin() */
DEFINE_AUTO(struct regex *, regex_free, regex_free)

/* 1: it is found anywhere in s, 0: it is not, -1: the search was cut. */
int regex_match(const struct regex *re, const char *s, size_t n);
/* The leftmost match at or after byte `from`; alternatives are tried in their order. */
int regex_find(const struct regex *re, const char *s, size_t n, size_t from, size_t *ret_start, size_t *ret_end);
/* The same for a pattern by its text, of which each thread keeps the last few compiled. -2: it is no
 * pattern. */
int regex_match_text(const char *pattern, const char *s);
