/* schema/jsonpath.h - the paths of printer columns, as kubectl's JSONPath has them: fields, quoted keys, indices,
 * ranges with steps, unions, wildcards, filters and recursive descent.
 *
 * A path is walked as it is read: nothing is compiled and nothing is kept. Bounds: RESULTS_MAX values at a time,
 * DEPTH_MAX nested filters and unions; what goes over them is an error. */
#pragma once

#include "codec/val.h"

/* What is inside the braces of a template, ".status.conditions[?(@.type=='Ready')].status". 0, or -1: the path is
 * wrong or does not fit the object. *ret: the first value it leads to, NULL when there is none. */
int jsonpath_first(struct arena *a, const struct val *obj, const char *path, const struct val **ret);
bool jsonpath_valid(const char *path); /* can it be read? */
/* The value as a template prints it: texts as they are, numbers, "<no value>", the others as JSON. */
char *jsonpath_text(struct arena *a, const struct val *v);
