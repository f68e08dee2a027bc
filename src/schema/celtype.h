/* schema/celtype.h - a described type as CEL sees it: for type checks of expressions over whole objects. */
#pragma once

#include "cel/cel.h"
#include "schema/type.h"

/* Made as far as it is asked for; lies in the arena and lives as long as it and the type. Quantities,
 * ints-or-strings and what is not described are dyn, times are timestamps. */
const struct cel_type *schema_cel_type(struct arena *a, const struct type *t);
