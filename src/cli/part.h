/* cli/part.h - see part.c. */
#pragma once

#include "controller/controllers.h"

struct pki;

/* First call of a part's process: names it in the log, ties it to its supervisor (if one started
 * it), lifts the limit on open files. */
void part_begin(const char *name);

/* keys.c: what the controllers have signed and made with the keys of the instance. */
struct controllers_keys keys_of(struct pki *pki);
