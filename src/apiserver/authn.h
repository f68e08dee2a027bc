/* apiserver/authn.h - what is taken for a credential, beyond client certificates: bearer tokens of
 * service accounts, of bootstrapping nodes, and of OpenID Connect issuers; who may speak for others as
 * a front proxy; where nobody may ask.
 * Thread: the loop of the API. */
#pragma once

#include "auth/token.h"

struct api;
struct audit_event;
struct call;
struct authn;
struct http_peer;

enum authn_result {
    AUTHN_OK,
    AUTHN_NO,
    AUTHN_WAIT, /* not known yet: wake() comes, then ask again; or ask->call waits and runs again */
};

struct authn_opts {
    const char *config_path;      /* AuthenticationConfiguration, read again when it changes; NULL: none */
    const char *proxy_names;      /* "a,b": the CNs that count; NULL or "": any */
    const char *hook_path;        /* a kubeconfig that names who knows other tokens (TokenReview); NULL: none */
    const char *hook_version;     /* "v1", or "v1beta1" (also for NULL) */
    int64_t hook_keep_ms;         /* how long its answers are kept; 0: not at all */
};
struct authn *authn_new(struct api *api, const struct authn_opts *opts, struct err *err) _must_check_;
void *authn_free(struct authn *n);

struct authn_ask {
    const char *token;
    const struct val *audiences; /* NULL: the API's own */
    int64_t now_s;
    struct arena *arena;
    struct audit_event *audit; /* NULL is fine */
    void (*wake)(void *arg);   /* NULL: never AUTHN_WAIT; what is known now decides */
    void *wake_arg;
    struct call *call;         /* what waits for a webhook; NULL: none is asked, only what is kept decides */
};
struct authn_answer {
    struct auth_user user;
    const struct val *audiences; /* those wanted that the token is for; NULL: it does not say */
    const char *warning;         /* for the client, or NULL */
};
/* err says why on AUTHN_NO. */
enum authn_result authn_token(struct authn *n, const struct authn_ask *q, struct authn_answer *ret,
                       struct err *err);
/* Who waits is woken, and nobody waits from here on: the server stops. */
void authn_close(struct authn *n);

/* Whose certificates are those of front proxies: the CA as PEM; NULL: nobody's. */
int authn_trust_proxies(struct authn *n, const char *ca_pem, struct err *err) _must_check_;
/* The certificate is one of a front proxy (and of nobody else). */
bool authn_is_front_proxy(const struct authn *n, const struct http_peer *peer);
bool authn_allows_anonymous(const struct authn *n, const char *path);
