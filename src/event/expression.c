#include "event/expression.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

static const char *const MONTHS[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const DAYS[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};

enum { MINUTES, HOURS, DAY, MONTH, WEEKDAY, YEAR, FIELDS };
static const struct field {
    const char *name;
    int low, high;
    const char *const *names;
} fields[FIELDS] = {
    {"minutes", 0, 59, NULL}, {"hours", 0, 23, NULL}, {"day of month", 1, 31, NULL}, {"month", 1, 12, MONTHS},
    {"day of week", 1, 7, DAYS}, {"year", EXPRESSION_YEAR_FIRST, EXPRESSION_YEAR_LAST, NULL},
};

/* ---- reading ---- */

static bool number(const char **p, const struct field *f, int *ret)
{
    int n = 0, digits = 0;

    for (; isdigit((unsigned char)**p) && digits < 5; ++*p, digits++)
        n = n * 10 + (**p - '0');
    *ret = n;
    for (int i = 0; !digits && f->names && f->names[i]; i++)
        if (strncasecmp(*p, f->names[i], 3) == 0) {
            *p += 3;
            *ret = f->low + i;
            return true;
        }
    return digits > 0;
}

static void set(struct expression *x, int which, int n)
{
    uint64_t *const bits[] = {&x->minutes, &x->hours, &x->days, &x->months, &x->weekdays};

    if (which == YEAR)
        x->years[(n - EXPRESSION_YEAR_FIRST) / 64] |= UINT64_C(1) << ((n - EXPRESSION_YEAR_FIRST) % 64);
    else
        *bits[which] |= UINT64_C(1) << n;
}

/* What only days can say: L, L-3, LW, 15W; of weekdays L (Saturday), 6L, 6#3. 1: read, 0: none of these, -1: wrong. */
static int special(const char *p, int which, struct expression *x)
{
    char *end;
    long n = strtol(p, &end, 10);

    if (which == DAY && *p == 'L') {
        if (streq(p, "LW")) {
            x->near_day = 32;
            return 1;
        }
        x->last_day = p[1] == '-' && isdigit((unsigned char)p[2]) ? (int)strtol(p + 2, &end, 10) : 0;
        return (p[1] == 0 || (p[1] == '-' && isdigit((unsigned char)p[2]) && !*end)) && x->last_day <= 30 ? 1 : -1;
    }
    if (which == DAY && end > p && streq(end, "W")) {
        x->near_day = (int)n;
        return n >= 1 && n <= 31 ? 1 : -1;
    }
    if (which == WEEKDAY) {
        const char *q = p;
        int day = 0;

        if (streq(p, "L")) {
            set(x, which, 7);
            return 1;
        }
        if (!number(&q, &fields[which], &day) || (*q != '#' && *q != 'L'))
            return 0;
        x->nth = *q == 'L' ? 6 : isdigit((unsigned char)q[1]) ? q[1] - '0' : 0;
        if (day < 1 || day > 7 || x->nth < 1 || q[*q == 'L' ? 1 : 2] || (*q == '#' && x->nth > 5))
            return -1;
        set(x, which, day);
        return 1;
    }
    return 0;
}

static int wrong(const char *text, int which, struct err *err)
{
    return err_set(err, INVALID_ARGUMENT, "the field %s of the cron expression is wrong: %s", fields[which].name, text);
}

static int read_field(const char *text, int which, struct expression *x, struct err *err)
{
    const struct field *f = &fields[which];
    const char *p = text;
    int rc = special(p, which, x);

    if (rc)
        return rc > 0 ? 0 : wrong(text, which, err);
    for (;; p++) {
        int from = f->low, to = f->high, step = 1;

        if (*p == '*' || (*p == '?' && (which == DAY || which == WEEKDAY) && !p[1] && p == text)) {
            p++;
        } else {
            if (!number(&p, f, &from))
                return wrong(text, which, err);
            if (*p == '-') {
                p++;
                if (!number(&p, f, &to))
                    return wrong(text, which, err);
            } else if (*p != '/') {
                to = from;
            }
        }
        if (*p == '/') {
            p++;
            if (!number(&p, f, &step) || step < 1)
                return wrong(text, which, err);
        }
        if (from < f->low || to > f->high || from > f->high || to < f->low)
            return wrong(text, which, err);
        for (int i = from;; i = i == f->high ? f->low : i + 1) { /* FRI-MON goes over the end */
            if ((i - from + f->high - f->low + 1) % (f->high - f->low + 1) % step == 0)
                set(x, which, i);
            if (i == to)
                break;
        }
        if (*p != ',')
            return *p ? wrong(text, which, err) : 0;
    }
}

static int read_cron(char *text, struct expression *x, struct err *err)
{
    char *word[FIELDS + 1], *save = NULL;
    int n = 0;

    for (char *w = strtok_r(text, " \t", &save); w && n <= FIELDS; w = strtok_r(NULL, " \t", &save))
        word[n++] = w;
    if (n != FIELDS)
        return err_set(err, INVALID_ARGUMENT, "a cron expression has six fields: minutes hours day-of-month month day-of-week year");
    if (streq(word[DAY], "?") == streq(word[WEEKDAY], "?"))
        return err_set(err, INVALID_ARGUMENT, "of day-of-month and day-of-week exactly one is '?' in a cron expression");
    x->by_weekday = streq(word[DAY], "?");
    for (int i = 0; i < FIELDS; i++)
        if (read_field(word[i], i, x, err) < 0)
            return -1;
    return 0;
}

static int read_rate(const char *text, struct expression *x, struct err *err)
{
    static const struct {
        const char *unit;
        int64_t s;
    } units[] = {{"minute", 60}, {"hour", 3600}, {"day", 86400}};
    char *end;
    long n = strtol(text, &end, 10);

    for (size_t i = 0; end > text && *end == ' ' && i < ARRAY_LEN(units); i++) {
        const char *unit = end + strspn(end, " ");
        size_t len = strlen(units[i].unit);

        if (strncmp(unit, units[i].unit, len) == 0 && (streq(unit + len, "s") || (n == 1 && !unit[len])) && n > 0 && n < 1000000) {
            x->every_s = n * units[i].s;
            return 0;
        }
    }
    return err_set(err, INVALID_ARGUMENT, "a rate is a whole number and minutes, hours or days: rate(5 minutes)");
}

static int read_at(const char *text, struct expression *x, struct err *err)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

    if (!end || *end || tm.tm_year + 1900 > EXPRESSION_YEAR_LAST || strlen(text) != 19)
        return err_set(err, INVALID_ARGUMENT, "a time is written as at(yyyy-mm-ddThh:mm:ss)");
    x->at_s = timegm(&tm);
    return 0;
}

int expression_parse(const char *text, struct expression *ret, struct err *err)
{
    char inner[EXPRESSION_MAX];
    const char *open = strchr(text, '(');
    size_t n = strlen(text), head = open ? (size_t)(open - text) : 0;

    *ret = (struct expression){.last_day = -1};
    if (!open || n >= sizeof inner || text[n - 1] != ')')
        return err_set(err, INVALID_ARGUMENT, "a schedule expression is rate(...), cron(...) or at(...)");
    memcpy(inner, open + 1, n - head - 2);
    inner[n - head - 2] = 0;
    if (head == 4 && strncmp(text, "rate", 4) == 0) {
        ret->kind = EXPRESSION_RATE;
        return read_rate(inner, ret, err);
    }
    if (head == 4 && strncmp(text, "cron", 4) == 0) {
        ret->kind = EXPRESSION_CRON;
        return read_cron(inner, ret, err);
    }
    if (head == 2 && strncmp(text, "at", 2) == 0) {
        ret->kind = EXPRESSION_AT;
        return read_at(inner, ret, err);
    }
    return err_set(err, INVALID_ARGUMENT, "a schedule expression is rate(...), cron(...) or at(...)");
}

/* ---- the next one ---- */

static bool leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_of(int year, int month)
{
    static const int n[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return n[month - 1] + (month == 2 && leap(year));
}

/* The day of the month of the working day nearest to `day`, in the same month. */
static int nearest_weekday(int day, int first_weekday /* of the 1st; 0 = Sunday */, int last)
{
    int weekday;

    day = day > last ? last : day;
    weekday = (first_weekday + day - 1) % 7;
    if (weekday == 6)
        return day > 1 ? day - 1 : day + 2;
    if (weekday == 0)
        return day < last ? day + 1 : day - 2;
    return day;
}

static bool day_fits(const struct expression *x, const struct tm *tm)
{
    int day = tm->tm_mday, year = tm->tm_year + 1900, last = days_of(year, tm->tm_mon + 1);
    int first_weekday = (tm->tm_wday - (day - 1) % 7 + 7) % 7;

    if (x->by_weekday)
        return (x->weekdays >> (tm->tm_wday + 1) & 1) &&
               (!x->nth || (x->nth == 6 ? day + 7 > last : (day - 1) / 7 + 1 == x->nth));
    if (x->near_day)
        return x->near_day == 32 ? day == nearest_weekday(last, first_weekday, last)
                                 : x->near_day <= last && day == nearest_weekday(x->near_day, first_weekday, last);
    if (x->last_day >= 0)
        return day == last - x->last_day;
    return x->days >> day & 1;
}

static bool year_fits(const struct expression *x, int year)
{
    int i = year - EXPRESSION_YEAR_FIRST;

    return i >= 0 && year <= EXPRESSION_YEAR_LAST && (x->years[i / 64] >> (i % 64) & 1);
}

/* The second at which the clocks of the place show `local`: the first one; -1: they leave it out. */
static int64_t utc_of(const struct zone *zone, int64_t local)
{
    int64_t best = -1;

    if (!zone)
        return local;
    for (int side = -1; side <= 1; side += 2) { /* what holds a day before, and a day after */
        int64_t t = local - zone_offset(zone, local + side * 86400);

        if (t + zone_offset(zone, t) == local && (best < 0 || t < best))
            best = t;
    }
    return best;
}

static int64_t next_cron(const struct expression *x, const struct zone *zone, int64_t after_s)
{
    int64_t local = after_s + (zone ? zone_offset(zone, after_s) : 0), midnight;
    time_t t;
    struct tm tm;

    midnight = local - (local % 86400 + 86400) % 86400;
    for (;; midnight += 86400) {
        t = (time_t)midnight;
        gmtime_r(&t, &tm);
        if (tm.tm_year + 1900 > EXPRESSION_YEAR_LAST)
            return -1;
        if (!year_fits(x, tm.tm_year + 1900)) {
            midnight += (int64_t)86400 * (365 + leap(tm.tm_year + 1900) - 1 - tm.tm_yday);
            continue;
        }
        if (!(x->months >> (tm.tm_mon + 1) & 1)) {
            midnight += (int64_t)86400 * (days_of(tm.tm_year + 1900, tm.tm_mon + 1) - tm.tm_mday);
            continue;
        }
        if (!day_fits(x, &tm))
            continue;
        for (int h = 0; h < 24; h++)
            for (int m = 0; m < 60 && (x->hours >> h & 1); m++) {
                int64_t utc;

                if (!(x->minutes >> m & 1) || (utc = utc_of(zone, midnight + h * 3600 + m * 60)) < 0)
                    continue;
                if (utc > after_s)
                    return utc;
            }
    }
}

int64_t expression_next(const struct expression *x, const struct zone *zone, int64_t start_s, int64_t after_s)
{
    int64_t t;

    switch (x->kind) {
    case EXPRESSION_RATE:
        return after_s < start_s ? start_s : start_s + ((after_s - start_s) / x->every_s + 1) * x->every_s;
    case EXPRESSION_AT:
        t = utc_of(zone, x->at_s);
        if (t < 0) /* an hour that the clocks leave out: as soon as it is over */
            t = x->at_s - zone_offset(zone, x->at_s - 86400);
        return t > after_s ? t : -1;
    case EXPRESSION_CRON:
        break;
    }
    return next_cron(x, zone, after_s < start_s ? start_s - 1 : after_s);
}
