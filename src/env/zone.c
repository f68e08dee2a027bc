/* A TZif file (RFC 8536): a header of six counts, then, of its 64-bit part, the seconds at which the
 * offset changes, the number of the type that holds from each on, and the types (offset, is it
 * summer, abbreviation). A line of text at the end, a POSIX TZ rule, says how it goes on. */
#include "env/zone.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>

enum { FILE_MAX = 1 << 18, TRANSITIONS_MAX = 4096 };

struct rule { /* when in a year summer begins or ends */
    char form;  /* 'M' month.week.day, 'J' day without 29 February, 'D' day with it */
    int month, week, day;
    int64_t at_s;
};
struct zone {
    int64_t *when;
    int32_t *offset; /* from when[i] on */
    uint32_t n;
    int32_t first;   /* before when[0] */
    bool ruled, summer;
    int32_t std, dst; /* of the rule */
    struct rule begin, end;
};

static int64_t big(const uint8_t *p, int n)
{
    int64_t v = (int8_t)p[0];

    for (int i = 1; i < n; i++)
        v = v * 256 + p[i];
    return v;
}

/* ---- the rule ---- */

static bool skip_name(const char **p)
{
    const char *from = *p;

    if (**p == '<') {
        const char *end = strchr(*p, '>');

        *p = end ? end + 1 : *p;
        return end != NULL;
    }
    while (isalpha((unsigned char)**p))
        ++*p;
    return *p - from >= 3;
}

static bool number(const char **p, int64_t *ret)
{
    char *end;

    *ret = strtoll(*p, &end, 10);
    if (end == *p)
        return false;
    *p = end;
    return true;
}

/* [+-]hh[:mm[:ss]] */
static bool clock_s(const char **p, int64_t *ret)
{
    int64_t sign = **p == '-' ? -1 : 1, part, all = 0;

    if (**p == '-' || **p == '+')
        ++*p;
    for (int unit = 3600; unit; unit /= 60) {
        if (!number(p, &part))
            return false;
        all += part * unit;
        if (unit == 1 || **p != ':')
            break;
        ++*p;
    }
    *ret = sign * all;
    return true;
}

static bool read_rule(const char **p, struct rule *r)
{
    int64_t v[3] = {0};

    *r = (struct rule){.form = 'D', .at_s = 7200};
    if (**p == 'M' || **p == 'J')
        r->form = *(*p)++;
    for (int i = 0; i < (r->form == 'M' ? 3 : 1); i++) {
        if (!number(p, &v[i]))
            return false;
        if (r->form == 'M' && i < 2 && *(*p)++ != '.')
            return false;
    }
    r->month = (int)v[0];
    r->week = (int)v[1];
    r->day = (int)(r->form == 'M' ? v[2] : v[0]);
    if (**p != '/')
        return true;
    ++*p;
    return clock_s(p, &r->at_s);
}

static bool read_tail(struct zone *z, const char *p)
{
    int64_t s;

    if (!skip_name(&p) || !clock_s(&p, &s))
        return false;
    z->std = (int32_t)-s;
    if (!*p)
        return z->ruled = true;
    if (!skip_name(&p))
        return false;
    z->dst = z->std + 3600;
    if (*p && *p != ',') {
        if (!clock_s(&p, &s))
            return false;
        z->dst = (int32_t)-s;
    }
    if (*p++ != ',' || !read_rule(&p, &z->begin) || *p++ != ',' || !read_rule(&p, &z->end))
        return false;
    return z->ruled = z->summer = true;
}

static bool leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days since 1970 of 1 January. */
static int64_t year_days(int64_t year)
{
    year--;
    return year * 365 + year / 4 - year / 100 + year / 400 - 719162;
}

/* The second of the year, by local clocks, at which the rule holds. */
static int64_t rule_s(const struct rule *r, int64_t year)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    int64_t day = r->day;

    if (r->form == 'J') {
        day = r->day - 1 + (leap(year) && r->day >= 60);
    } else if (r->form == 'M') {
        int month = MIN(MAX(r->month, 1), 12);
        int64_t first = before[month - 1] + (leap(year) && month > 2);
        int64_t days = before[month] - before[month - 1] + (leap(year) && month == 2);
        int64_t weekday = (year_days(year) + first + 4) % 7; /* 1 January 1970 was a Thursday */

        day = (r->day - weekday + 7) % 7 + 7 * (r->week - 1);
        while (day >= days)
            day -= 7;
        day += first;
    }
    return day * 86400 + r->at_s;
}

static int32_t by_rule(const struct zone *z, int64_t utc_s)
{
    time_t t = (time_t)(utc_s + z->std);
    int64_t year, start, begin, end;
    struct tm tm;

    if (!z->summer)
        return z->std;
    gmtime_r(&t, &tm);
    year = tm.tm_year + 1900;
    start = year_days(year) * 86400;
    begin = start + rule_s(&z->begin, year) - z->std;
    end = start + rule_s(&z->end, year) - z->dst;
    if (begin < end)
        return utc_s >= begin && utc_s < end ? z->dst : z->std;
    return utc_s >= begin || utc_s < end ? z->dst : z->std; /* south of the equator */
}

/* ---- the file ---- */

static bool parse(struct zone *z, const uint8_t *p, size_t n)
{
    int64_t c[6]; /* isutc, isstd, leap, time, type, char */
    size_t skip;
    const uint8_t *times, *which, *types;
    char tail[128] = "";

    for (int pass = 0; pass < 2; pass++) {
        int size = pass ? 8 : 4;

        if (n < 44 || memcmp(p, "TZif", 4) != 0 || p[4] < '2')
            return false;
        for (int i = 0; i < 6; i++)
            c[i] = big(p + 20 + 4 * i, 4);
        for (int i = 0; i < 6; i++)
            if (c[i] < 0 || c[i] > FILE_MAX)
                return false;
        skip = 44 + (size_t)(c[3] * size + c[3] + c[4] * 6 + c[5] + c[2] * (size + 4) + c[1] + c[0]);
        if (skip > n)
            return false;
        if (!pass) {
            p += skip;
            n -= skip;
        }
    }
    if (c[4] < 1 || c[3] > TRANSITIONS_MAX)
        return false;
    times = p + 44;
    which = times + c[3] * 8;
    types = which + c[3];
    z->when = xcalloc((size_t)c[3] + 1, sizeof *z->when);
    z->offset = xcalloc((size_t)c[3] + 1, sizeof *z->offset);
    z->first = (int32_t)big(types, 4);
    for (int64_t i = 0; i < c[3]; i++) {
        if (which[i] >= c[4])
            return false;
        z->when[z->n] = big(times + 8 * i, 8);
        z->offset[z->n++] = (int32_t)big(types + 6 * which[i], 4);
    }
    if (n > skip + 1 && p[skip] == '\n') {
        for (size_t i = skip + 1, k = 0; i < n && p[i] != '\n' && k + 1 < sizeof tail; i++)
            tail[k++] = (char)p[i];
        read_tail(z, tail);
    }
    return true;
}

static bool safe_name(const char *name)
{
    if (!*name || *name == '/' || strlen(name) > 100 || strstr(name, ".."))
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr("/_+-", *name))
            return false;
    return true;
}

struct zone *zone_load(const char *name, struct err *err)
{
    const char *folder = getenv("ZONEINFO");
    struct zone *z = xcalloc(1, sizeof *z);
    uint8_t *text = xmalloc(FILE_MAX);
    char path[512];
    size_t n = 0;
    FILE *f = NULL;

    if (streq(name, "UTC") || streq(name, "Etc/UTC")) {
        free(text);
        return z;
    }
    snprintf(path, sizeof path, "%s/%s", folder && *folder ? folder : "/usr/share/zoneinfo", name);
    if (safe_name(name) && (f = fopen(path, "rbe"))) {
        n = fread(text, 1, FILE_MAX, f);
        fclose(f);
    }
    if (!n || !parse(z, text, n)) {
        err_set(err, INVALID_ARGUMENT, "unknown time zone %.100s", name);
        z = zone_free(z);
    }
    free(text);
    return z;
}

void *zone_free(struct zone *z)
{
    if (!z)
        return NULL;
    free(z->when);
    free(z->offset);
    free(z);
    return NULL;
}

int64_t zone_offset(const struct zone *z, int64_t utc_s)
{
    uint32_t low = 0, high;

    if (!z)
        return 0;
    high = z->n;
    if (!z->n || utc_s < z->when[0])
        return z->n ? z->first : z->ruled ? by_rule(z, utc_s) : z->first;
    while (low + 1 < high) {
        uint32_t mid = low + (high - low) / 2;

        if (z->when[mid] <= utc_s)
            low = mid;
        else
            high = mid;
    }
    return low + 1 == z->n && z->ruled ? by_rule(z, utc_s) : z->offset[low];
}
