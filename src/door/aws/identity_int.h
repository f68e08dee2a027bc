/* door/aws/identity_int.h - between identity.c (who asks, what counts) and iam/, sts.c (what is told and changed). */
#pragma once

#include "door/aws/identity.h"

struct iam_managed { /* a policy that AWS ships; iam_managed.json */
    const char *arn, *name, *path, *id, *description, *version, *created;
    const struct val *document;
};
struct identity {
    struct identity_opts o;
    char *region, *account;
    struct arena *arena; /* of the shipped policies */
    struct iam_managed *managed;
    uint32_t managed_n;
    unsigned char key[32];
    struct mirror *keys, *roles, *users, *policies;
    struct env_timer *timer;
    struct iam_wait *waits;
};

/* Names: what an object of an IAM name is called (IAM's names differ by more than case). */
const char *iam_object_name(struct arena *a, const char *name);
const char *iam_name_of(const struct obj *o);
const char *iam_arn_of(struct identity *id, struct arena *a, const struct obj *o, const char *type /* "role" */);
/* "AROA..." as it was made, or for one that kubectl made: from its uid. */
const char *iam_id_of(struct arena *a, const struct obj *o, const char *prefix);
const char *iam_created_of(const struct obj *o);
char *iam_new_id(struct arena *a, const char *prefix);

/* NULL: there is none of that name. */
const struct obj *iam_find(struct mirror *m, struct arena *a, const char *name);
/* A policy of AWS or of the account by its ARN. */
const struct iam_managed *iam_managed(const struct identity *id, const char *arn);
const struct obj *iam_policy(struct identity *id, struct arena *a, const char *arn);
/* The default version's document, or that of a version; NULL: there is none. */
const struct val *iam_policy_document(const struct obj *policy, const char *version);

/* Tells when the mirror shows an object at that revision (0: that it is gone), or after two seconds anyway. */
typedef void iam_wait_fn(void *arg);
void iam_wait(struct identity *id, struct mirror *m, const char *ns, const char *name, int64_t revision, iam_wait_fn *fn, void *arg);

/* The mirror goes: who waits for it is told. */
void iam_wait_end(struct identity *id, const struct mirror *m);

/* All documents that count for a user or role. What is malformed denies everything. */
void iam_load(struct identity *id, struct arena *a, const struct obj *o, struct policy_set *set);
