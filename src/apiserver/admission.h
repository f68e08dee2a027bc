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
    void *hooks;                /* webhooks.c: who was called in the first round */
};

/* Changes ad->v. Runs the plugins twice when one of the policies or webhooks changed it. */
int admission_mutate(struct call *c, struct admission *ad);
int admission_validate(struct call *c, struct admission *ad);

const char *admission_op_text(enum admission_op op); /* "CREATE", ... */
/* The options of the request as an object: CreateOptions, UpdateOptions, PatchOptions, DeleteOptions. */
const struct val *admission_options(struct call *c, struct admission *ad);
/* The object's namespace as plugins see it, NULL: none. */
const struct obj *admission_namespace(struct call *c, const struct admission *ad);
