/* event/expression.h - when is it time: EventBridge's schedule expressions. Pure.
 *
 *   rate(5 minutes)               every so often from a start on: minutes, hours, days
 *   cron(0 8 ? * MON-FRI *)       minutes hours day-of-month month day-of-week year; , - * / ? L W #
 *   at(2026-11-20T13:00:00)       once
 * Cron and at are of the clocks of a place: an hour that its clocks leave out is left out, one that they show
 * twice counts once (the first time). */
#pragma once

#include "base/err.h"
#include "env/zone.h"

enum { EXPRESSION_MAX = 256, EXPRESSION_YEAR_FIRST = 1970, EXPRESSION_YEAR_LAST = 2199 };

struct expression {
    enum expression_kind { EXPRESSION_RATE, EXPRESSION_CRON, EXPRESSION_AT } kind;
    int64_t every_s; /* rate */
    int64_t at_s;    /* at: by the clocks of the place, as if they were UTC */
    uint64_t minutes, hours, days, months, weekdays, years[4]; /* cron: bits; weekdays from 1 = Sunday */
    int last_day;    /* L: 0, L-3: 3; -1: not asked for */
    int near_day;    /* 15W: the weekday nearest to the 15th; 32: LW, the month's last weekday; 0: not asked for */
    int nth;         /* 6#2: of `weekdays` only the second; 6: 6L, the last; 0: not asked for */
    bool by_weekday; /* the day of the month is '?' */
};

/* INVALID_ARGUMENT with what is wrong. */
int expression_parse(const char *text, struct expression *ret, struct err *err) _must_check_;
/* The first time after after_s (seconds since 1970, UTC) that the expression names; a rate counts from start_s on,
 * which is its first one. zone NULL: UTC. -1: never again. */
int64_t expression_next(const struct expression *x, const struct zone *zone, int64_t start_s, int64_t after_s);
