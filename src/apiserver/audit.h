/* apiserver/audit.h - who did what: audit.k8s.io/v1 events of requests.
 *
 * An event is begun when it is known who asks, gets its notes on the way, and ends with the answer
 * (or, for what takes long, when the connection goes). What the policy does not want costs one
 * look at the policy. Lines go to back ends (audit_sink.h) that never hold a request back: when
 * one of them can not keep up, events are dropped and counted.
 * Thread: the loop of the API. */
#pragma once

#include "auth/audit_policy.h"

struct audit;
struct audit_event;
struct env;
struct api_response;

struct audit_opts {
    const char *policy_path;  /* NULL: nothing is noted */
    const char *log_path;     /* "-": standard output; NULL: none */
    int log_mb_max;           /* a bigger file is put aside; 0: 100 */
    int log_files_max;        /* so many are kept; 0: all */
    int log_days_max;         /* and so long; 0: for ever */
    const char *webhook_path; /* a kubeconfig that names where to; NULL: none */
};
/* INVALID_ARGUMENT: the policy is wrong, or there is a back end without a policy. Gives back NULL
 * without error (err->code OK) when nothing is wanted. */
struct audit *audit_new(struct env *env, const struct audit_opts *opts, struct err *err);
void *audit_free(struct audit *au); /* waits until what was taken is written */
struct audit_counts {
    uint64_t events, dropped, failed;
};
struct audit_counts audit_counts(const struct audit *au);

struct audit_request {
    const char *id; /* Audit-ID */
    const char *uri, *verb, *user_agent;
    const char *const *source_ips; /* NULL-terminated */
    const struct auth_user *user;  /* NULL: authentication failed */
    const struct rbac_ask *ask;
    const char *api_version; /* of the resource asked for: "v1"; NULL */
    int64_t received_us;
};
/* NULL: this one is not noted (all functions below take NULL). The event lies in the arena and ends
 * with it at the latest. */
struct audit_event *audit_begin(struct audit *au, struct arena *a, const struct audit_request *rq);
void audit_note(struct audit_event *ev, const char *key, const char *value);
void audit_impersonated(struct audit_event *ev, const struct auth_user *u, const char *constraint);
void audit_object(struct audit_event *ev, const struct val *v); /* what was sent */
void audit_patch(struct audit_event *ev, const char *text, size_t n);
void audit_answer(struct audit_event *ev, const struct api_response *resp); /* kept for the end */
void audit_started(struct audit_event *ev, int code);                      /* of what takes long */
void audit_end(struct audit_event *ev, int code);                          /* once; later ones do nothing */
