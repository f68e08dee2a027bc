/* apiserver/audit_sink.h - where audit events go: a file that is turned over, and a webhook.
 *
 * Neither holds the loop back. The file has a thread of its own and a buffer of AUDIT_BUFFER_MAX
 * bytes; the webhook keeps as many events and sends them in batches. What does not fit is dropped,
 * counted, and said once a second in our own log. */
#pragma once

#include "apiserver/audit.h"

enum { AUDIT_BUFFER_MAX = 16 << 20 };

struct audit_log;
struct audit_log *audit_log_new(const struct audit_opts *opts, struct err *err) _must_check_;
void *audit_log_free(struct audit_log *l); /* writes what it has; NULL is fine */
void audit_log_add(struct audit_log *l, const char *line, size_t n); /* with its newline */
void audit_log_counts(struct audit_log *l, struct audit_counts *n);

/* path: a kubeconfig; its current context names the URL, the CA and who we are there. */
struct audit_hook;
struct audit_hook *audit_hook_new(struct env *env, const char *path, struct err *err) _must_check_;
void *audit_hook_free(struct audit_hook *h); /* what is not sent is lost; NULL is fine */
void audit_hook_add(struct audit_hook *h, const char *event, size_t n); /* one JSON object */
void audit_hook_counts(const struct audit_hook *h, struct audit_counts *n);
