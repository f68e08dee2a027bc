/* schema/patch.h - the three patches of the API.
 *
 * Each gives a new tree in the arena and leaves `doc` as it is (parts may be shared with it).
 * NULL and err: INVALID_ARGUMENT = the patch is no patch (400), INVALID = it does not fit the
 * document (422: a test that fails, a path that is not there). */
#pragma once

#include "schema/schema.h"

/* RFC 6902. `copied_max` limits what "copy" may make (values). */
struct val *patch_json(struct arena *a, const struct val *doc, const struct val *patch,
                       struct err *err) _must_check_;
/* RFC 7386. */
struct val *patch_merge(struct arena *a, const struct val *doc, const struct val *patch,
                        struct err *err) _must_check_;
/* Kubernetes' strategic merge, by the patch strategies and merge keys of the type: $patch,
 * $retainKeys, $deleteFromPrimitiveList/x, $setElementOrder/x. */
struct val *patch_strategic(const struct type *t, struct arena *a, const struct val *doc,
                            const struct val *patch, struct err *err) _must_check_;
