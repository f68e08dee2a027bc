/* apiserver/managed.h - who manages which fields (metadata.managedFields), and server-side apply.
 *
 * An object is tracked when a client from outside made it or when it was applied; what is not
 * tracked (what controllers make) costs nothing, and starts to be when it is applied. */
#pragma once

#include "apiserver/api_int.h"

/* After create or update by c's client: what managedFields say now, NULL: the object is not
 * tracked. Trees are in version c->r, without what admission adds; live is NULL on create. */
struct val *managed_update(struct call *c, const struct val *live, const struct val *now);

/* Applies config to live (NULL: there is none). *ret_new: the object to write, NULL when nothing
 * changes; *ret_managed: its managedFields. Fails with 409 and a cause for each conflict. */
int managed_apply(struct call *c, const struct val *live, const struct val *config,
                  const struct val **ret_new, struct val **ret_managed);
