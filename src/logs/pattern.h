/* logs/pattern.h - CloudWatch Logs' filter patterns.
 *
 *   ERROR timeout        both words are in the text (as they are written)
 *   "out of memory"      the phrase is in it;   ?A ?B   one of them is;   -DEBUG   it is not
 *   %4[0-9]{2}%          the expression matches
 *   { $.level = "ERROR" && ($.ms > 100 || $.user.id NOT EXISTS) }   of texts that are JSON objects
 *   [ip, user != "root", ..., status = 4*, bytes > 1000]            of texts of columns, parted by blanks
 *
 * With words or -words beside them, ?words do not count (as the service does). An empty pattern matches all.
 * A pattern has no state that matching changes but its scratch memory: one thread at a time. */
#pragma once

#include "base/err.h"

enum { LOG_PATTERN_MAX = 1024 };

struct log_pattern;
/* NULL and INVALID_ARGUMENT with what is wrong. */
struct log_pattern *log_pattern_parse(const char *text, struct err *err) _must_check_;
void *log_pattern_free(struct log_pattern *p); /* NULL is fine */
bool log_pattern_match(struct log_pattern *p, const char *text, size_t n);
DEFINE_AUTO(struct log_pattern *, log_pattern_free, log_pattern_free)
