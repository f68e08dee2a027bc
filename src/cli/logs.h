/* cli/logs.h - lines of functions, as commands read them. */
#pragma once

#include "base/buf.h"
#include "cli/cli.h"

struct log_seen {
    const char *time, *group, *stream; /* "2026-01-31T12:00:00.123Z", "/aws/lambda/hello", "2026/01/31/[$LATEST]..." */
    char *text;
    size_t n;
};
typedef bool log_event_fn(void *arg, const struct log_seen *e); /* false: enough */

/* Lines of a function, or of all of the namespace (name NULL), from how on ("since=MS", "tail=N", "&filter=..."); with follow
 * until fn has enough or the instance is stopped. Standard output is flushed after each piece. */
int logs_read(const struct cli_opts *o, const char *name, const char *how, bool follow, log_event_fn *fn, void *arg,
              struct err *err) _must_check_;
int64_t logs_seen_ms(const char *time); /* of log_seen.time, ms since 1970 */
/* "10m" ago or "2026-01-31T12:00:00Z", in ms since 1970. 0 or EXIT_USAGE after a line on standard error. */
int logs_since_ms(const char *word, int64_t *ret);
