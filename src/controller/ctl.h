/* controller/ctl.h - what a controller sees: the world as it is known now, its writes, its queue.
 *
 * A controller is one file with one `const struct controller NAME_controller` and one line in
 * controllers.def. Its reconcile() is called with one key at a time: list -> diff -> act -> tell.
 * Events only put keys on the queue; a pass may be cut anywhere and run again.
 *
 * Reads come from mirrors of the store's head, so they hold our own last write. What they give back
 * is held until the pass ends (it is pinned in ctl->arena): a write in between does not pull it
 * away. Writes name the revision they saw; a CONFLICT is answered by another pass. */
#pragma once

#include "client/client.h"
#include "codec/kubetime.h"
#include "codec/obj.h"
#include "env/env.h"

struct controllers;
struct guard;

enum kind {
#define KIND(name, resource, api_version, kind) K_##name,
#include "controller/kinds.def"
#undef KIND
    KINDS
};
struct kind_row {
    const char *resource, *api_version, *kind;
};
extern const struct kind_row kind_rows[KINDS];

enum again {
    DONE,  /* nothing left to do for this key until something changes */
    RETRY, /* err is set: again, later and later */
    AGAIN, /* a burst is done, there is more: again, behind the other keys */
};

struct ctl {
    struct controllers *all;
    struct client *client;
    struct env *env;
    struct arena *arena; /* of this pass */
    const struct controller *me;
    int64_t now_ms; /* wall clock, at the start of the pass */
    int burst;      /* objects made or removed in one pass, at most */
    struct workq *q;
    struct guard *guard;
    void *mine; /* what start() made for itself; stop() takes it back */
};

struct controller {
    const char *name;      /* "replicaset": in logs and opts->only */
    const char *component; /* "replicaset-controller": in events */
    enum again (*reconcile)(struct ctl *ctl, const char *key, struct err *err);
    /* Each change of an object of the kinds below, before and after (one of them may be NULL): asks
     * for keys with ctl_want...(). Writes nothing. What was there at the start comes too. */
    void (*changed)(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now);
    uint64_t kinds; /* KIND_BIT(K_POD) | ... */
    void (*start)(struct ctl *ctl); /* may be NULL: once, when the mirrors are filled */
    void (*stop)(struct ctl *ctl);  /* may be NULL */
};
#define KIND_BIT(k) (UINT64_C(1) << (k))

/* ---- the queue ---- */
void ctl_want(struct ctl *ctl, const char *ns, const char *name);
void ctl_want_key(struct ctl *ctl, const char *key);
void ctl_want_obj(struct ctl *ctl, const struct obj *o); /* NULL is fine */
/* Again when the clock says so; the earliest wish counts. */
void ctl_want_in(struct ctl *ctl, const char *key, int64_t ms);
void ctl_want_all(struct ctl *ctl, enum kind kind, const char *ns); /* ns NULL: everywhere */
/* The owner with controller: true, if it is of that kind. */
void ctl_want_controller_of(struct ctl *ctl, const struct obj *o, enum kind kind);

/* ---- reads: held until the pass ends ---- */
const struct obj *ctl_get(struct ctl *ctl, enum kind kind, const char *ns, const char *name);
const struct obj *ctl_get_key(struct ctl *ctl, enum kind kind, const char *key);
struct objs ctl_list(struct ctl *ctl, enum kind kind, const char *ns); /* NULL: all */
uint32_t ctl_count(struct ctl *ctl, enum kind kind);
struct objs ctl_owned(struct ctl *ctl, enum kind kind, const char *uid);
struct objs ctl_orphans(struct ctl *ctl, enum kind kind, const char *ns); /* without a controller */
struct objs ctl_pods_on(struct ctl *ctl, const char *node);
/* What the owner has and should have: owned and matching ones (orphans that match are adopted,
 * owned ones that no longer match are let go). */
int ctl_claim(struct ctl *ctl, enum kind kind, const struct obj *owner, enum kind owner_kind,
              const struct val *selector, struct objs *ret, struct err *err) _must_check_;
void objs_add(struct arena *a, struct objs *list, const struct obj *o); /* grows by doubling */

/* ---- writes: what they give back is held until the pass ends; TOO_MANY: they go round in circles (guard.h) ---- */
const struct obj *ctl_create(struct ctl *ctl, enum kind kind, const char *ns, const struct val *v,
                             struct err *err) _must_check_;
/* v is an edit (obj_edit) and still carries the revision that was seen. */
const struct obj *ctl_update(struct ctl *ctl, enum kind kind, const struct val *v,
                             struct err *err) _must_check_;
/* Writes v's status when it differs from that of old. */
int ctl_update_status(struct ctl *ctl, enum kind kind, const struct obj *old, const struct val *v,
                      struct err *err) _must_check_;
/* This very object (its uid is the precondition); NOT_FOUND counts as done. policy and grace as in
 * struct client_delete. */
int ctl_delete(struct ctl *ctl, enum kind kind, const struct obj *o, const char *policy,
               int64_t grace_s, struct err *err) _must_check_;
/* Adds or takes away a finalizer; nothing is written when it is so already. Gives back the object
 * as it is now (NULL: failed; gone counts as done and gives back o). */
const struct obj *ctl_finalizer(struct ctl *ctl, enum kind kind, const struct obj *o,
                                const char *name, bool there, struct err *err) _must_check_;

/* ---- telling ---- */
/* A count as Go writes one with omitempty: 0 is not written. */
void ctl_put_count(struct arena *a, struct val *status, const char *key, int64_t n);
#define ctl_event(ctl, about, type, reason, ...)                                                   \
    client_event((ctl)->client, (ctl)->me->component, about, type, reason, __VA_ARGS__)
/* Sets a condition in status.conditions of an edited tree. lastTransitionTime moves with the
 * status; with update_time also lastUpdateTime on each difference. True: something changed. */
bool ctl_condition(struct ctl *ctl, struct val *v, const char *type, const char *status,
                   const char *reason, const char *message, bool update_time);
const char *ctl_time(struct ctl *ctl); /* now as metav1.Time, in the arena */
struct val *owner_reference(struct arena *a, enum kind kind, const struct obj *owner);
