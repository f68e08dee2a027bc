/* apiserver/hooks.h - what one kind needs beyond its description in schema/: admission (defaults
 * from other objects, allocations) and rules that need the store.
 *
 * One row a kind in hooks.c; each function may be NULL. Trees are in the stored version. */
#pragma once

#include "apiserver/api_int.h"

struct kind_hooks {
    const char *group, *plural;
    /* On create, before the defaults' second pass and validation: changes v or fails. */
    int (*admit_create)(struct call *c, struct val *v);
    /* The same on updates; sub is "" or "status", ... */
    int (*admit_update)(struct call *c, const char *sub, struct val *v, const struct obj *old);
    /* Rules that need other objects, after validation; old is NULL on create. */
    int (*check)(struct call *c, const char *sub, const struct val *v, const struct val *old);
    /* Takes addresses and the like, last of all; old is NULL on create. */
    /* before the validation: what is allocated is judged with the rest; nothing may be kept of it */
    int (*begin)(struct call *c, struct val *v, const struct obj *old);
    int (*allocate)(struct call *c, struct val *v, const struct obj *old);
    int (*check_delete)(struct call *c, const struct obj *o);
    /* Adds what must be done before it may go (finalizers). */
    void (*hold)(struct call *c, struct val *v);
    /* How long it takes to go: sets grace_s. Without it: at once. */
    void (*deleting)(struct call *c, const struct obj *o, struct delete_options *how);
};
const struct kind_hooks *hooks_of(const struct resource *stored);
unsigned flags_of(const struct resource *stored);

/* For every namespaced kind: its namespace is there and stays. */
int admit_namespace(struct call *c, const char *name);

/* hooks_node.c: what a node may do to itself and to its pods only. old is NULL on create, v on
 * delete. */
int restrict_node(struct call *c, const struct val *v, const struct obj *old);
int restrict_node_eviction(struct call *c, const struct obj *pod);
int restrict_node_token(struct call *c, const struct val *spec); /* of a TokenRequest */

/* podsecurity.c */
int podsecurity_labels(struct call *c, const char *sub, const struct val *v, const struct val *old);
int podsecurity_check(struct call *c, const char *sub, const struct val *v, const struct val *old);
/* crd.c */
void crd_hold(struct call *c, struct val *v);
/* -1: the definition of this custom resource is going, and takes no new ones. */
int crd_takes_more(struct call *c);

/* hooks_pod.c */
int pod_admit_create(struct call *c, struct val *v);
int pod_admit_update(struct call *c, const char *sub, struct val *v, const struct obj *old);
int pod_check(struct call *c, const char *sub, const struct val *v, const struct val *old);
void topology_labels(struct call *c, struct val *v, const char *node);
int pod_allocate(struct call *c, struct val *v, const struct obj *old);
void pod_deleting(struct call *c, const struct obj *o, struct delete_options *how);
/* hooks_service.c */
int service_admit_update(struct call *c, const char *sub, struct val *v, const struct obj *old);
int service_allocate(struct call *c, struct val *v, const struct obj *old);
/* limits.c: LimitRanges: defaults for the containers of a new pod; bounds for pods and claims */
struct admission;
int limits_admit(struct call *c, struct admission *ad);
int limits_check(struct call *c, struct admission *ad);

/* quota.c: the last look of admission; then, right before the object is put (never on a dry run),
 * what it uses is added to the quotas. */
struct admission;
int quota_admit(struct call *c, struct admission *ad);
int quota_charge(struct call *c);

void put_label(struct call *c, struct val *v, const char *key, const char *value);
void add_finalizer(struct call *c, struct val *v, const char *name);
