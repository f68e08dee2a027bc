/* schema/rules_pod.h - between the files of the pods' rules. */
#pragma once

#include "schema/schema_int.h"

/* rules_volume.c: the list of volumes at spec.volumes (c stands at the pod spec); ret_good gets the
 * volumes with nothing wrong, by name: only those can be mounted. The caller ends the map. */
void pod_volumes(struct check *c, const struct val *list, struct map *ret_good);
/* fieldRef and resourceFieldRef at `at`. */
void pod_field_selector(struct check *c, const char *at, const struct val *ref,
                        const char *const *supported);
void pod_resource_selector(struct check *c, const char *at, const struct val *ref, bool volume);

/* names.c: "example.com/signer"; NULL: fine. */
const char *name_signer(const char *s);
/* prepare.c: "Guaranteed", "Burstable" or "BestEffort", by what the containers ask for. */
const char *pod_qos_class(const struct val *spec);
