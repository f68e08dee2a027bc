/* controller/cron.h - five fields of cron: when next? Pure. */
#pragma once

#include "env/zone.h"

struct cron {
    uint64_t minutes, hours, days, months, weekdays; /* bits */
    bool any_day, any_weekday; /* written as '*': then the other one alone decides */
    int64_t every_s;           /* "@every 1h30m": so long after the last time; else 0 */
};
/* "0,30 6-18 1,15 * MON-FRI", "@hourly", ...; false: no schedule. */
bool cron_parse(const char *text, struct cron *ret);
/* The first whole minute after `after_s` (seconds since 1970, UTC) that local clocks (of zone; NULL: UTC)
 * show as the schedule says; -1: never. */
int64_t cron_next(const struct cron *c, const struct zone *zone, int64_t after_s);
