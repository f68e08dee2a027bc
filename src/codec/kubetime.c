#include "codec/kubetime.h"

#include <stdio.h>
#include <time.h>

int64_t kubetime_parse(const char *s)
{
    int y, mo, d, h, mi, sec, n = 0;
    int64_t ms = 0, scale = 100, off = 0;
    struct tm tm;

    if (!s || sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d%n", &y, &mo, &d, &h, &mi, &sec, &n) != 6 || n < 19)
        return -1;
    s += n;
    if (*s == '.')
        for (s++; *s >= '0' && *s <= '9'; s++, scale /= 10)
            ms += (*s - '0') * scale;
    if (*s == '+' || *s == '-') {
        int oh, om;

        if (sscanf(s + 1, "%2d:%2d", &oh, &om) != 2)
            return -1;
        off = (*s == '-' ? -1 : 1) * (oh * 3600 + om * 60);
    } else if (!streq(s, "Z") && !streq(s, "z")) {
        return -1;
    }
    tm = (struct tm){.tm_year = y - 1900, .tm_mon = mo - 1, .tm_mday = d,
                     .tm_hour = h, .tm_min = mi, .tm_sec = sec};
    return ((int64_t)timegm(&tm) - off) * 1000 + ms;
}

static void civil(struct tm *tm, int64_t s)
{
    time_t t = (time_t)s;

    gmtime_r(&t, tm);
}

const char *kubetime_text(char buf[static KUBETIME_MAX], int64_t ms)
{
    struct tm tm;

    civil(&tm, ms / 1000);
    strftime(buf, KUBETIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return buf;
}

const char *kubetime_micro(char buf[static KUBETIME_MAX], int64_t us)
{
    struct tm tm;
    size_t n;

    civil(&tm, us / 1000000);
    n = strftime(buf, KUBETIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, KUBETIME_MAX - n, ".%06dZ", (int)(us % 1000000));
    return buf;
}
