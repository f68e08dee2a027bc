/* apiserver/admission.h - what stands between a decoded object and the store: the plugins of a stock
 * server, in its order. admission.c has the table.
 *
 * A write goes: decode -> defaults -> admission_mutate() -> prepare -> validation -> allocation ->
 * admission_validate() -> store. A plugin's function gives 0, or -1 after it put a Status into
 * call->resp, or -1 because the call waits for an answer from outside (apiserver/outside.h): the call
 * is then run again from its start, so nothing here may leave a trace before the store is written. */
#pragma once

#include "apiserver/api_int.h"

enum admission_op { ADMIT_CREATE = 1, ADMIT_UPDATE = 2, ADMIT_DELETE = 4, ADMIT_CONNECT = 8 };

struct admission {
    enum admission_op op;
    const char *sub;            /* the sub-resource that is asked for, or "" */
    const char *name;           /* "" when it is to be generated */
    const char *ns;             /* for a namespace: its own name */
    /* The version that v and old are in: c->stored; or NULL: v is of the sub-resource's own kind
     * (Scale, Eviction, Binding, TokenRequest, PodExecOptions ...), which says apiVersion and kind. */
    const struct resource *in;
    struct val *v;              /* may be changed by mutate; NULL on DELETE */
    const struct val *old;      /* NULL on CREATE and CONNECT */
    const struct obj *old_obj;  /* the same as it is stored, when it is a stored object */
    const struct val *options;  /* CreateOptions, ...; NULL: admission_options() makes it */
    bool again;                 /* second round: something changed v after plugins had seen it */
    bool changed;               /* set by what wants that second round */
    bool inner;                 /* the object is written for what was admitted already (Scale): only
                                   what the kind itself needs runs */
    void *hooks;                /* webhooks.c: who was called in the first round */
    void *policies;             /* policies_run.c: the same of policies */
};

/* Changes ad->v. Runs the plugins twice when one of the policies or webhooks changed it. */
int admission_mutate(struct call *c, struct admission *ad);
int admission_validate(struct call *c, struct admission *ad);

const char *admission_op_text(enum admission_op op); /* "CREATE", ... */
/* The options of the request as an object: CreateOptions, UpdateOptions, PatchOptions, DeleteOptions. */
const struct val *admission_options(struct call *c, struct admission *ad);
/* The object's namespace as plugins see it, NULL: none. */
const struct obj *admission_namespace(struct call *c, const struct admission *ad);

/* For the audit event of the request. */
void call_annotate(struct call *c, const char *key, const char *value);

/* ---- webhooks.c ---- */
int webhooks_start(struct api *api, struct err *err);
void webhooks_stop(struct api *api);
bool webhooks_any(struct call *c); /* is there one that might be asked about this call? */
int webhooks_mutate(struct call *c, struct admission *ad);
int webhooks_validate(struct call *c, struct admission *ad);

/* ---- admission_match.c: rules, selectors and requests as webhooks and policies have them ---- */

/* As what a rule sees the request: the asked-for resource, or (matchPolicy Equivalent) the same kind in
 * another version or group. */
struct admission_as {
    const struct resource *r;
    const char *group, *version, *kind; /* of the object: r's, or the sub-resource's own */
};
/* Does one of the rules (RuleWithOperations) match? *ret: as what. */
bool admission_match_rules(struct call *c, const struct admission *ad, const struct val *rules,
                           bool equivalent, struct admission_as *ret);
/* 1: selected; 0: not; -1: the namespace is not there (a 404 is in call->resp). selector is a
 * LabelSelector or NULL (all). */
int admission_match_namespace(struct call *c, const struct admission *ad, const struct val *selector);
/* The new or the old object has the labels. */
bool admission_match_object(struct call *c, const struct admission *ad, const struct val *selector);
/* Configurations of admission itself are never subject to it. */
bool admission_exempt(const struct call *c);
/* v (which is in ad->in) in the version that the rule sees; NULL stays NULL. NULL and the Status in
 * call->resp, or call->waits, when it cannot be converted. */
const struct val *admission_convert(struct call *c, const struct admission *ad,
                                    const struct admission_as *as, const struct val *v);
/* The AdmissionRequest of that, without its uid; object and old as admission_convert() gave them. */
struct val *admission_request(struct call *c, struct admission *ad, const struct admission_as *as,
                              const struct val *object, const struct val *old);
/* Creates on sub-resources and on kinds that are never stored: the body goes through the chain. */
int admission_of_body(struct call *c, enum admission_op op, struct val *v, const struct val *old,
                      const char *name);
