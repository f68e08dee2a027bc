/* env/zone.h - how far a place's clocks are from UTC: the tz database of the system
 * (/usr/share/zoneinfo, or the folder that ZONEINFO names). */
#pragma once

#include "base/err.h"

struct zone;
/* "Europe/Zurich". NULL: no such place, or its file is broken. The caller's, to free. */
struct zone *zone_load(const char *name, struct err *err) _must_check_;
void *zone_free(struct zone *z); /* NULL is fine */
/* Seconds that local clocks are ahead of UTC at that second (NULL: none). */
int64_t zone_offset(const struct zone *z, int64_t utc_s);
