#include "controller/cron.h"

#include <ctype.h>
#include <strings.h>
#include <time.h>

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const day_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static bool number(const char **p, const char *const *names, int first, int *ret)
{
    int n = 0, digits = 0;

    for (; isdigit((unsigned char)**p) && digits < 4; ++*p, digits++)
        n = n * 10 + (**p - '0');
    if (digits) {
        *ret = n;
        return true;
    }
    for (int i = 0; names && names[i]; i++)
        if (strncasecmp(*p, names[i], 3) == 0) {
            *p += 3;
            *ret = i + first;
            return true;
        }
    return false;
}

/* One field: a list of *, N, N-M, each with /STEP. */
static bool field(const char **p, int low, int high, const char *const *names, uint64_t *ret, bool *any)
{
    *ret = 0;
    *any = false;
    for (;; ++*p) {
        int from, to, step = 1;

        if (**p == '*' || **p == '?') {
            ++*p;
            from = low;
            to = high;
            *any = **p != '/';
        } else {
            if (!number(p, names, low, &from))
                return false;
            to = from;
            if (**p == '-') {
                ++*p;
                if (!number(p, names, low, &to))
                    return false;
            } else if (**p == '/') {
                to = high;
            }
        }
        if (**p == '/') {
            ++*p;
            if (!number(p, NULL, 0, &step) || step < 1)
                return false;
        }
        if (from < low || to > high || from > to)
            return false;
        for (int i = from; i <= to; i += step)
            *ret |= UINT64_C(1) << i;
        if (**p != ',')
            return **p == 0 || **p == ' ' || **p == '\t';
    }
}

/* "1h30m", of hours, minutes and seconds; a second at least. */
static bool every(const char *p, int64_t *ret)
{
    int64_t all = 0;

    while (*p) {
        char *end;
        long n = strtol(p, &end, 10);

        if (end == p || n < 0 || n > 1000000 || !*end || !strchr("hms", *end))
            return false;
        all += n * (*end == 'h' ? 3600 : *end == 'm' ? 60 : 1);
        p = end + 1;
    }
    *ret = all;
    return all > 0;
}

bool cron_parse(const char *text, struct cron *ret)
{
    static const struct {
        const char *name, *means;
    } words[] = {
        {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"},
    };
    struct cron c = {0};
    struct {
        int low, high;
        const char *const *names;
        uint64_t *bits;
        bool any;
    } fields[] = {
        {0, 59, NULL, &c.minutes, false},
        {0, 23, NULL, &c.hours, false},
        {1, 31, NULL, &c.days, false},
        {1, 12, month_names, &c.months, false},
        {0, 7, day_names, &c.weekdays, false},
    };

    if (str_starts(text, "@every ")) {
        if (!every(text + strlen("@every "), &c.every_s))
            return false;
        *ret = c;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (streq(text, words[i].name))
            text = words[i].means;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        while (*text == ' ' || *text == '\t')
            text++;
        if (!field(&text, fields[i].low, fields[i].high, fields[i].names, fields[i].bits, &fields[i].any))
            return false;
    }
    while (*text == ' ' || *text == '\t')
        text++;
    if (*text)
        return false;
    c.weekdays |= c.weekdays >> 7 & 1; /* 7 is Sunday too */
    c.any_day = fields[2].any;
    c.any_weekday = fields[4].any;
    *ret = c;
    return true;
}

static bool day_fits(const struct cron *c, const struct tm *tm)
{
    bool day = c->days >> tm->tm_mday & 1, weekday = c->weekdays >> tm->tm_wday & 1;

    if (c->any_day || c->any_weekday)
        return day && weekday;
    return day || weekday; /* both are given: either will do, as cron always had it */
}

/* So many seconds on, by local clocks: a change of the offset on the way is taken out again. */
static int64_t forward(const struct zone *zone, int64_t t, int64_t local_s)
{
    int64_t to = t + local_s;

    to -= zone_offset(zone, to) - zone_offset(zone, t);
    return MAX(to, t + 60);
}

int64_t cron_next(const struct cron *c, const struct zone *zone, int64_t after_s)
{
    int64_t t = (after_s / 60 + 1) * 60, end = after_s + INT64_C(86400) * 366 * 8;

    if (c->every_s)
        return after_s + c->every_s;
    while (t < end) {
        time_t when = (time_t)(t + zone_offset(zone, t));
        struct tm tm;

        gmtime_r(&when, &tm);
        if (!(c->months >> (tm.tm_mon + 1) & 1) || !day_fits(c, &tm))
            t = forward(zone, t, 86400 - when % 86400);
        else if (!(c->hours >> tm.tm_hour & 1))
            t = forward(zone, t, 3600 - when % 3600);
        else if (!(c->minutes >> tm.tm_min & 1))
            t += 60;
        else
            return t;
    }
    return -1;
}
