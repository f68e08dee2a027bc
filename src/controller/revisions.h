/* controller/revisions.h - the past templates of StatefulSets and DaemonSets, kept as ControllerRevisions.
 *
 * A revision holds {"spec":{"template":{..., "$patch":"replace"}}}, a strategic merge patch: what
 * `kubectl rollout undo` sends to go back. Its name is OWNER-HASH; the number .revision grows with
 * each change. A template that comes back gets the highest number anew, not a second revision. */
#pragma once

#include "controller/ctl.h"

struct revisions {
    struct objs all;       /* of this owner, the oldest number first */
    const struct obj *now; /* that of today's template */
    const char *hash;      /* HASH of its name */
    int64_t collisions;    /* for status.collisionCount: names that others had */
};

/* Adopts orphans that match, finds or makes the revision of today's template. hash_label: the label
 * of a revision that says its hash. */
int revisions_sync(struct ctl *ctl, enum kind kind, const struct obj *owner, const char *hash_label,
                 struct revisions *ret, struct err *err) _must_check_;
/* The template that a revision keeps (a copy in the arena), or NULL. */
struct val *revisions_template(struct ctl *ctl, const struct obj *revision);
const struct obj *revisions_named(const struct revisions *h, const char *name); /* or NULL */
/* Deletes the oldest that are not live, but for spec.revisionHistoryLimit (10) of them. */
int revisions_trim(struct ctl *ctl, const struct obj *owner, const struct revisions *h,
                 bool (*live)(void *arg, const struct obj *revision), void *arg, struct err *err) _must_check_;
