/* apiserver/outside.h - what a call asks outside of this process (webhooks, conversions), remembered.
 *
 * A call never blocks. A step that needs an answer from outside asks for it here: when it is known it
 * gets it at once; when not, the question goes out, the step gives back -1 with nothing in call->resp,
 * and the call unwinds. When all its answers are there the call runs again from its start, with its
 * memory: the answers by what was asked, the time, and the random draws (call_uuid() and friends), so it
 * asks the same questions, and all code between stays synchronous. What changed in the store meanwhile is
 * seen by the second run, which may then ask something new.
 * So: nothing may be written to the store before the last question is answered.
 *
 * Bounds: CALLS_MAX calls wait at once (429 beyond), QUESTIONS_MAX a call, ANSWER_MAX bytes an answer,
 * WAIT_MAX_MS for a whole call (504), CONNS_MAX connections to one place. A client that goes takes its
 * call with it (api_cancel()). A call that asks nothing has no memory and pays nothing. */
#pragma once

#include "apiserver/api_int.h"

enum {
    OUTSIDE_CALLS_MAX = 4096,
    OUTSIDE_QUESTIONS_MAX = 16384, /* a collection is deleted object by object */
    OUTSIDE_ANSWER_MAX = 8 << 20,
    OUTSIDE_WAIT_MAX_MS = 34000, /* as a stock server bounds writes */
    OUTSIDE_WAIT_MANY_MS = 300000, /* of a collection */
    OUTSIDE_CONNS_MAX = 128,
    OUTSIDE_ORIGINS_MAX = 256,
};

/* Where something is. Texts are the caller's. */
struct place {
    const char *url;         /* "https://10.0.0.7:8443" */
    const char *host;        /* Host header; NULL: of the URL */
    const char *server_name; /* what its certificate must say; NULL: host of the URL */
    const char *ca_pem;      /* NULL: what this machine trusts */
    const char *cert_pem, *key_pem;
    const char *token;       /* a bearer token to send, or NULL */
    bool insecure;
};
struct http_origin;
/* The kept connections to a place, shared by all who name it alike; lives until the API goes. NULL: the
 * place is unusable, or there is no network (simulation). */
struct http_origin *outside_origin(struct api *api, const struct place *p, struct err *err);

/* https://ADDRESS:PORT of a ready endpoint of a service's port (by number, or by name when name is not
 * NULL); in the arena. UNAVAILABLE when there is none, NOT_FOUND when the service is not there. */
int outside_service(struct api *api, struct arena *a, const char *ns, const char *name, int64_t port,
                    const char *port_name, const char *scheme, char **ret_url, struct err *err);

/* An answer. err.code 0: status, body (0-terminated, in the call's arena). */
struct outside_answer {
    struct err err;
    int status;
    const char *body;
    size_t n;
};
/* The id of a question, the same in each run of the call: from who asks and what. A UUID. */
const char *outside_id(struct call *c, const char *who, const void *what, size_t n);
/* The answer to a question if it is there; NULL: not (yet). */
const struct outside_answer *outside_known(struct call *c, const char *id);
/* POSTs JSON. Only when outside_known() said NULL. The caller then unwinds with -1 (it may ask more
 * before). */
void outside_post(struct call *c, const char *id, const struct place *p, const char *path,
                  const char *text, size_t n, uint32_t timeout_ms);

/* Bytes of a base64 text, 0-terminated, in the arena; NULL: it is none. */
char *base64_bytes(struct arena *a, const char *s, size_t *ret_n);
/* What is wrong with an answer that is no 2xx, as a Kubernetes client words it; NULL: nothing. */
const char *outside_trouble(struct arena *a, const struct outside_answer *answer);
/* caBundle, service and url of a WebhookClientConfig. *ret_url is the URL as messages show it; 0, or -1
 * and err when the place cannot be found. */
int outside_client_config(struct api *api, struct arena *a, const struct val *config, struct place *ret,
                          const char **ret_path, const char **ret_url, struct err *err);

/* ---- for apiserver.c ---- */
void outside_start(struct api *api);
void outside_stop(struct api *api); /* ends what waits with 503 */
/* true: the call unwound because it waits; it will be run again by `again`, or ended by `end` with a
 * Status in call->resp. c may go. */
bool outside_park(struct call *c);
void outside_forget(struct call *c); /* the call is over */
/* fills what a run of a call starts with from its memory, which may be NULL */
void outside_recall(struct call *c, struct memory *m);
