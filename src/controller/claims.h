/* controller/claims.h - which volume fits which claim. Pure, over trees of objects. */
#pragma once

#include "codec/obj.h"

/* "Filesystem" unless it says otherwise. */
const char *volume_mode(const struct val *spec);
/* All modes that the claim asks for are among those of the volume. */
bool access_modes_cover(const struct val *have, const struct val *want);
/* Could this claim have this free volume? Class, size, modes, selector; a volume that is reserved
 * for another claim fits nobody else. */
bool volume_fits(const struct obj *pv, const struct obj *pvc);
/* The smallest that fits, one that is reserved for the claim before all others; NULL: none. */
const struct obj *volume_choose(const struct obj *const *pvs, uint32_t n, const struct obj *pvc);
/* Reserved for (or bound to) this claim: names agree, and the uid where there is one. */
bool volume_is_for(const struct obj *pv, const struct obj *pvc);
