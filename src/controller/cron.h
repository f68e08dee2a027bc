/* controller/cron.h - five fields of cron: when next? Pure. */
#pragma once

#include "base/base.h"

struct cron {
    uint64_t minutes, hours, days, months, weekdays; /* bits */
    bool any_day, any_weekday; /* written as '*': then the other one alone decides */
};
/* "0,30 6-18 1,15 * MON-FRI", "@hourly", ...; false: no schedule. */
bool cron_parse(const char *text, struct cron *ret);
/* The first whole minute after `after_s` (seconds since 1970, UTC); -1: never. */
int64_t cron_next(const struct cron *c, int64_t after_s);
