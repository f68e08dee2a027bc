/* cel/lib_time.c - timestamps, durations, time zones, base64.
 *
 * A timestamp is seconds since 1970 and nanoseconds, in the years 1 to 9999. Zones are read from the
 * system's database (TZif files) or are an offset like +05:30. */
#include "cel/lib.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define NS 1000000000

static int64_t days_of(int64_t y, int m, int d) /* since 1970-01-01 */
{
    int64_t era, yoe, doy;

    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct civil {
    int64_t year;
    int month, day, hour, minute, second, weekday, yearday;
};
static struct civil civil_of(int64_t seconds)
{
    int64_t days = seconds / 86400, rest = seconds % 86400, era, doe, yoe, doy, mp;
    struct civil c;

    if (rest < 0) {
        rest += 86400;
        days--;
    }
    c.weekday = (int)(((days + 4) % 7 + 7) % 7);
    era = (days + 719468 >= 0 ? days + 719468 : days + 719468 - 146096) / 146097;
    doe = days + 719468 - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    c.day = (int)(doy - (153 * mp + 2) / 5 + 1);
    c.month = (int)(mp < 10 ? mp + 3 : mp - 9);
    c.year = yoe + era * 400 + (c.month <= 2);
    c.hour = (int)(rest / 3600);
    c.minute = (int)(rest / 60 % 60);
    c.second = (int)(rest % 60);
    c.yearday = (int)(days - days_of(c.year, 1, 1));
    return c;
}

/* ---- reading ---- */

static bool num(const char **s, const char *end, int width, int *ret)
{
    int v = 0;

    if (end - *s < width)
        return false;
    for (int i = 0; i < width; i++, (*s)++) {
        if (!isdigit((unsigned char)**s))
            return false;
        v = v * 10 + (**s - '0');
    }
    *ret = v;
    return true;
}
static bool chr(const char **s, const char *end, const char *any)
{
    if (*s >= end || !**s || !strchr(any, **s))
        return false;
    (*s)++;
    return true;
}

static bool date_part(const char **s, const char *end, int *y, int *m, int *d)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (!num(s, end, 4, y) || !chr(s, end, "-") || !num(s, end, 2, m) || !chr(s, end, "-") || !num(s, end, 2, d))
        return false;
    return *m >= 1 && *m <= 12 && *d >= 1 &&
           *d <= days[*m - 1] + (*m == 2 && *y % 4 == 0 && (*y % 100 != 0 || *y % 400 == 0));
}

static bool read_time(const char *s, size_t n, bool lax, struct cel_value *ret)
{
    const char *end = s + n;
    int y, m, d, h, min, sec, ns = 0, zh, zm, width = 100000000, offset = 0;
    int64_t t;

    if (!date_part(&s, end, &y, &m, &d) || !chr(&s, end, lax ? "Tt " : "T") || !num(&s, end, 2, &h) || !chr(&s, end, ":") ||
        !num(&s, end, 2, &min))
        return false;
    sec = 0;
    if (!chr(&s, end, ":") || !num(&s, end, 2, &sec))
        return false;
    if (s < end && (*s == '.' || (!lax && *s == ','))) {
        s++;
        if (s >= end || !isdigit((unsigned char)*s))
            return false;
        for (; s < end && isdigit((unsigned char)*s); s++, width /= 10)
            ns += width * (*s - '0');
    }
    if (h > 23 || min > 59 || sec > 59)
        return false;
    t = days_of(y, m, d) * 86400 + h * 3600 + min * 60 + sec;
    if (!chr(&s, end, lax ? "Zz" : "Z")) {
        bool minus = s < end && *s == '-';
        if (lax && s == end)
            ; /* without a zone it is UTC */
        else if (!chr(&s, end, "+-") || !num(&s, end, 2, &zh) || (!chr(&s, end, ":") && !lax) || !num(&s, end, 2, &zm) || zh > 24 || zm > 60)
            return false;
        else
            offset = (minus ? -1 : 1) * (zh * 3600 + zm * 60);
        t -= offset;
        if (offset % 900 || offset > 900 * 127 || offset < -900 * 127)
            offset = 0; /* no such zone is in use: shown in UTC */
    }
    if (s != end)
        return false;
    *ret = (struct cel_value){.kind = CEL_TIMESTAMP, .sub = (uint8_t)(int8_t)(offset / 900), .i = t, .n = (uint32_t)ns};
    return true;
}
bool timestamp_read(const char *s, size_t n, struct cel_value *ret)
{
    return read_time(s, n, false, ret);
}
bool timestamp_read_lax(const char *s, size_t n, struct cel_value *ret)
{
    return read_time(s, n, true, ret);
}
bool date_read(const char *s, size_t n, struct cel_value *ret)
{
    const char *end = s + n;
    int y, m, d;

    if (!date_part(&s, end, &y, &m, &d) || s != end)
        return false;
    *ret = (struct cel_value){.kind = CEL_TIMESTAMP, .i = days_of(y, m, d) * 86400};
    return true;
}

/* A unit's name: its nanoseconds, 0: unknown. */
static int64_t unit_ns(const char *s, size_t n, bool lax)
{
    static const struct {
        const char *name;
        int64_t ns;
        bool lax;
    } units[] = {{"ns", 1, 0}, {"us", 1000, 0}, {"\xc2\xb5s", 1000, 0}, {"\xce\xbcs", 1000, 0}, {"ms", 1000000, 0},
        {"s", NS, 0}, {"m", 60LL * NS, 0}, {"h", 3600LL * NS, 0}, {"d", 86400LL * NS, 1}, {"w", 604800LL * NS, 1},
        {"nano", 1, 1}, {"micro", 1000, 1}, {"milli", 1000000, 1}, {"sec", NS, 1}, {"second", NS, 1}, {"seconds", NS, 1},
        {"min", 60LL * NS, 1}, {"minute", 60LL * NS, 1}, {"minutes", 60LL * NS, 1}, {"hr", 3600LL * NS, 1},
        {"hour", 3600LL * NS, 1}, {"hours", 3600LL * NS, 1}, {"day", 86400LL * NS, 1}, {"days", 86400LL * NS, 1},
        {"week", 604800LL * NS, 1}, {"weeks", 604800LL * NS, 1}, {"wk", 604800LL * NS, 1}};

    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (strlen(units[i].name) == n && !memcmp(units[i].name, s, n) && (lax || !units[i].lax))
            return units[i].ns;
    return 0;
}

static bool read_duration(const char *s, size_t n, bool lax, struct cel_value *ret)
{
    const char *end = s + n;
    bool minus = false;
    __int128 total = 0;
    int64_t sec;

    if (s < end && (*s == '-' || *s == '+'))
        minus = *s++ == '-';
    if (end - s == 1 && *s == '0')
        s = end;
    else if (s == end)
        return false;
    while (s < end) {
        __int128 whole = 0, part = 0, scale = 1;
        const char *start = s, *unit;
        int64_t ns;
        for (; s < end && isdigit((unsigned char)*s); s++)
            if (whole < (__int128)INT64_MAX)
                whole = whole * 10 + (*s - '0');
        if (s < end && *s == '.') {
            for (s++; s < end && isdigit((unsigned char)*s); s++)
                if (scale < (__int128)1000000000000000LL) {
                    part = part * 10 + (*s - '0');
                    scale *= 10;
                }
            if (s - start == 1)
                return false;
        }
        if (s == start)
            return false;
        while (lax && s < end && *s == ' ')
            s++;
        for (unit = s; s < end && *s != '.' && !isdigit((unsigned char)*s) && *s != ' ';)
            s++;
        ns = unit_ns(unit, (size_t)(s - unit), lax);
        if (!ns)
            return false;
        while (lax && s < end && *s == ' ')
            s++;
        total += whole * ns + part * ns / scale;
        if (total > (__int128)INT64_MAX + minus)
            return false;
    }
    if (minus)
        total = -total;
    sec = (int64_t)(total / NS);
    if (total % NS < 0)
        sec--;
    *ret = (struct cel_value){.kind = CEL_DURATION, .i = sec, .n = (uint32_t)(total - (__int128)sec * NS)};
    return true;
}
bool duration_read(const char *s, size_t n, struct cel_value *ret)
{
    return read_duration(s, n, false, ret);
}
bool duration_read_lax(const char *s, size_t n, struct cel_value *ret)
{
    return read_duration(s, n, true, ret);
}

/* ---- writing ---- */

static void fraction(char *out, uint32_t ns) /* ".5" without zeros at its end, "" for 0 */
{
    size_t n;

    *out = '\0';
    if (!ns)
        return;
    n = (size_t)sprintf(out, ".%09u", ns);
    while (out[n - 1] == '0')
        out[--n] = '\0';
}

void timestamp_write(char out[static 64], struct cel_value v)
{
    int minutes = (int8_t)v.sub * 15, abs = minutes < 0 ? -minutes : minutes;
    struct civil c = civil_of(v.i + minutes * 60);
    char part[16], zone[16] = "Z";

    if (minutes)
        snprintf(zone, sizeof zone, "%c%02d:%02d", minutes < 0 ? '-' : '+', abs / 60, abs % 60);
    fraction(part, v.n);
    snprintf(out, 64, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d%s%s", c.year, c.month, c.day, c.hour, c.minute, c.second, part, zone);
}

void duration_write(char out[static 64], struct cel_value v)
{
    __int128 ns = (__int128)v.i * NS + v.n;
    bool minus = ns < 0;
    char part[16];

    if (minus)
        ns = -ns;
    fraction(part, (uint32_t)(ns % NS));
    snprintf(out, 64, "%s%" PRId64 "%ss", minus ? "-" : "", (int64_t)(ns / NS), part);
}

/* ---- zones ---- */

static uint64_t big(const unsigned char *p, int n)
{
    uint64_t v = 0;

    while (n--)
        v = v << 8 | *p++;
    return v;
}

/* The offset at a moment by a TZif file; false: it is none. */
static bool zone_offset(const unsigned char *p, size_t n, int64_t at, int *ret)
{
    const unsigned char *end = p + n;
    uint64_t isutc, isstd, leap, times, types, chars, i;
    int size = 4;

    for (int part = 0;; part++) {
        uint64_t bytes;
        if (end - p < 44 || memcmp(p, "TZif", 4) != 0)
            return false;
        isutc = big(p + 20, 4), isstd = big(p + 24, 4), leap = big(p + 28, 4);
        times = big(p + 32, 4), types = big(p + 36, 4), chars = big(p + 40, 4);
        if (times > 10000 || types > 256 || !types || chars > 4096 || leap > 1000 || isutc > 256 || isstd > 256)
            return false;
        bytes = times * (uint64_t)size + times + types * 6 + chars + leap * (uint64_t)(size + 4) + isstd + isutc;
        if ((uint64_t)(end - p) < 44 + bytes)
            return false;
        if (part == 1 || p[4] < '2')
            break;
        p += 44 + bytes; /* the second part has 64 bit times */
        size = 8;
    }
    p += 44;
    for (i = times; i > 0; i--) {
        int64_t t = size == 8 ? (int64_t)big(p + (i - 1) * 8, 8) : (int32_t)big(p + (i - 1) * 4, 4);
        if (t <= at)
            break;
    }
    {
        const unsigned char *indexes = p + times * (uint64_t)size, *infos = indexes + times;
        unsigned which = i ? indexes[i - 1] : 0;
        if (which >= types)
            return false;
        *ret = (int)(int32_t)big(infos + which * 6, 4);
    }
    return true;
}

static bool zone_of(struct cel_value tz, int64_t at, int *ret)
{
    char path[128], file[65536];
    const char *s = tz.s, *end = tz.s + tz.n;
    bool minus = false;
    int h, m;
    FILE *f;
    size_t n;

    if (tz.n == 0 || (tz.n == 3 && !memcmp(s, "UTC", 3))) {
        *ret = 0;
        return true;
    }
    if (memchr(s, ':', tz.n)) {
        if (*s == '-' || *s == '+')
            minus = *s++ == '-';
        if (!num(&s, end, 2, &h) || !chr(&s, end, ":") || !num(&s, end, 2, &m) || s != end || h > 23 || m > 59)
            return false;
        *ret = (minus ? -1 : 1) * (h * 3600 + m * 60);
        return true;
    }
    if (tz.n > 60 || *s == '/' || *s == '-')
        return false;
    for (size_t i = 0; i < tz.n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("/_+-", s[i]))
            return false;
    snprintf(path, sizeof path, "/usr/share/zoneinfo/%.*s", (int)tz.n, s);
    f = fopen(path, "re");
    if (!f)
        return false;
    n = fread(file, 1, sizeof file, f);
    fclose(f);
    return zone_offset((const unsigned char *)file, n, at, ret);
}

static struct cel_value duration_part(struct cel_value v, char what)
{
    int64_t ms = v.i * 1000 + v.n / 1000000;
    int64_t s = v.i + (v.i < 0 && v.n); /* towards zero */

    switch (what) {
    case 'H':
        return cel_int(s / 3600);
    case 'M':
        return cel_int(s / 60);
    case 'S':
        return cel_int(s);
    default:
        return cel_int(ms); /* all of them: upstream differs from the specification here */
    }
}

FN(fn_time)
{
    const char *name = call->fn->name + 3; /* behind "get" */
    int offset = 0;
    struct civil c;

    if (args[0].kind == CEL_DURATION && n == 1)
        return duration_part(args[0], streq(name, "Milliseconds") ? 'm' : *name);
    if (args[0].kind != CEL_TIMESTAMP || (n > 1 && args[1].kind != CEL_STRING))
        return no_overload(e, call, args, n);
    if (n > 1 && !zone_of(args[1], args[0].i, &offset))
        return fail(e, "unknown time zone %.*s", (int)MIN(args[1].n, 100u), args[1].s);
    c = civil_of(args[0].i + offset);
    if (streq(name, "FullYear"))
        return cel_int(c.year);
    if (streq(name, "Month"))
        return cel_int(c.month - 1);
    if (streq(name, "DayOfYear"))
        return cel_int(c.yearday);
    if (streq(name, "DayOfMonth"))
        return cel_int(c.day - 1);
    if (streq(name, "Date"))
        return cel_int(c.day);
    if (streq(name, "DayOfWeek"))
        return cel_int(c.weekday);
    if (streq(name, "Hours"))
        return cel_int(c.hour);
    if (streq(name, "Minutes"))
        return cel_int(c.minute);
    if (streq(name, "Seconds"))
        return cel_int(c.second);
    return cel_int(args[0].n / 1000000);
}

/* ---- base64 ---- */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool base64_read(const char *s, size_t n, char *out, size_t *ret_n)
{
    uint32_t bits = 0;
    size_t o = 0, chars = 0, pads = 0;

    for (size_t i = 0; i < n; i++) {
        const char *c;
        if (s[i] == '\r' || s[i] == '\n')
            continue;
        chars++;
        if (s[i] == '=') {
            pads++;
            continue;
        }
        c = s[i] ? strchr(base64, s[i]) : NULL;
        if (!c || pads)
            return false;
        bits = bits << 6 | (uint32_t)(c - base64);
        if (chars % 4 == 0) {
            out[o++] = (char)(bits >> 16);
            out[o++] = (char)(bits >> 8);
            out[o++] = (char)bits;
            bits = 0;
        }
    }
    if (chars % 4 || pads > 2)
        return false;
    if (pads == 2) {
        out[o++] = (char)(bits >> 4);
    } else if (pads == 1) {
        out[o++] = (char)(bits >> 10);
        out[o++] = (char)(bits >> 2);
    }
    *ret_n = o;
    return true;
}

void base64_write(const char *s, size_t n, char *out)
{
    size_t i;

    for (i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)s[i] << 16;
        if (i + 1 < n)
            v |= (uint32_t)(unsigned char)s[i + 1] << 8;
        if (i + 2 < n)
            v |= (unsigned char)s[i + 2];
        *out++ = base64[v >> 18];
        *out++ = base64[v >> 12 & 63];
        *out++ = i + 1 < n ? base64[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? base64[v & 63] : '=';
    }
    *out = '\0';
}
