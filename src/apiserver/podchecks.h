/* apiserver/podchecks.h - the Pod Security Standards: what pods of a level may not say, by version of the
 * standards. Pure: no store, no call. */
#pragma once

#include "base/arena.h"
#include "codec/val.h"

enum pod_level { POD_PRIVILEGED, POD_BASELINE, POD_RESTRICTED };
enum { POD_LATEST = 1 << 16 }; /* as a version: 1.POD_LATEST */

struct pod_policy {
    enum pod_level level;
    int minor; /* of version 1.x */
};

/* What is wrong: "a (b), c (d)" in *ret_detail, "a, c" in *ret_reason (may be NULL). false: all is
 * fine. meta: of the pod or of the template. */
bool pod_violates(struct arena *a, struct pod_policy p, const struct val *meta, const struct val *spec,
                  const char **ret_detail, const char **ret_reason);

/* NULL: no label. false: not one of the words, then it is the strictest (latest). */
bool pod_level_parse(const char *s, enum pod_level *ret);
bool pod_version_parse(const char *s, int *ret_minor);
const char *pod_policy_text(struct arena *a, struct pod_policy p); /* "restricted:v1.25" */
