/* schema/quantity.c - quantities, durations and times as Kubernetes reads and writes them.
 *
 * A quantity is kept as a count of 1e-9 in 128 bits (what is smaller rounds up, what is larger than
 * 2^63-1 is cut to it, both as upstream) together with the family of its suffix. */
#include "schema/schema_int.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

typedef __int128 i128;

enum family { DECIMAL_SI, BINARY_SI, DECIMAL_EXPONENT };

static const i128 NANO = 1000000000;

static bool suffix_parse(const char *s, enum family *ret_family, int *ret_exp10, int *ret_exp2)
{
    static const char binary[] = "KMGTPE", decimal[] = "kMGTPE", small[] = "num";
    const char *at;

    *ret_exp10 = *ret_exp2 = 0;
    *ret_family = DECIMAL_SI;
    if (!*s)
        return true;
    if (s[1] == 'i' && !s[2] && (at = strchr(binary, s[0]))) {
        *ret_family = BINARY_SI;
        *ret_exp2 = 10 * (int)(at - binary + 1);
        return true;
    }
    if (!s[1] && (at = strchr(decimal, s[0]))) {
        *ret_exp10 = 3 * (int)(at - decimal + 1);
        return true;
    }
    if (!s[1] && (at = strchr(small, s[0]))) {
        *ret_exp10 = 3 * (int)(at - small) - 9;
        return true;
    }
    if ((s[0] == 'e' || s[0] == 'E') && s[1]) {
        char *end;
        long e = strtol(s + 1, &end, 10);
        if (*end || isspace((unsigned char)s[1]) || e > 100 || e < -100)
            return false;
        *ret_family = DECIMAL_EXPONENT;
        *ret_exp10 = (int)e;
        return true;
    }
    return false;
}

static bool parse_nano(const char *s, i128 *ret, enum family *ret_family)
{
    bool minus = false, point = false, inexact = false;
    int digits = 0, scale = 0, exp10, exp2;
    i128 v = 0;
    i128 cap = ((i128)INT64_MAX) * NANO;

    if (*s == '+' || *s == '-')
        minus = *s++ == '-';
    for (; isdigit((unsigned char)*s) || (*s == '.' && !point); s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        digits++;
        if (v < ((i128)1 << 100)) {
            v = v * 10 + (*s - '0');
            scale -= point;
        } else {
            inexact |= *s != '0';
            scale += !point;
        }
    }
    if (!digits || !suffix_parse(s, ret_family, &exp10, &exp2))
        return false;
    if (!*s) /* a plain number is kept whole, as far as it goes */
        cap = ((i128)1 << 96) * 1000000000;
    /* to nano: v * 2^exp2 * 10^(scale + exp10 + 9), rounded up */
    int e = scale + exp10 + 9;
    i128 limit = (i128)1 << 110;
    for (; exp2 > 0 && v; exp2--) {
        if (v >= limit) { /* only with a long fraction: drop digits of it */
            v = v / 10;
            e++;
        }
        v *= 2;
    }
    for (; e < 0 && v; e++) {
        inexact |= v % 10 != 0;
        v /= 10;
    }
    for (; e > 0 && v && v <= cap; e--)
        v *= 10;
    v += inexact;
    if (v > cap)
        v = cap;
    *ret = minus ? -v : v;
    return true;
}

static int put_i128(char *out, i128 v)
{
    char tmp[48];
    int n = 0, k = 0;
    bool minus = v < 0;
    unsigned __int128 u = minus ? (unsigned __int128)-v : (unsigned __int128)v;

    do
        tmp[n++] = (char)('0' + (int)(u % 10));
    while (u /= 10);
    if (minus)
        out[k++] = '-';
    while (n)
        out[k++] = tmp[--n];
    out[k] = 0;
    return k;
}

static char *write_nano(struct arena *a, i128 v, enum family f)
{
    char out[80];

    if (v == 0)
        return arena_strdup(a, "0");
    if (f == BINARY_SI && ((v > -1024 * NANO && v < 1024 * NANO) || v % NANO != 0))
        f = DECIMAL_SI;
    if (f == BINARY_SI) {
        int step = 0;
        v /= NANO;
        while (v % 1024 == 0 && step < 6)
            v /= 1024, step++;
        int n = put_i128(out, v);
        snprintf(out + n, sizeof(out) - (size_t)n, "%s",
                 (const char *const[]){"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}[step]);
        return arena_strdup(a, out);
    }
    int e = -9;
    while (v % 10 == 0)
        v /= 10, e++;
    while (((e % 3) + 3) % 3)
        v *= 10, e--;
    while (f == DECIMAL_SI && e > 18)
        v *= 1000, e -= 3;
    int n = put_i128(out, v);
    if (f == DECIMAL_EXPONENT && e != 0)
        snprintf(out + n, sizeof(out) - (size_t)n, "e%d", e);
    else if (f == DECIMAL_SI)
        snprintf(out + n, sizeof(out) - (size_t)n, "%s",
                 (const char *const[]){"n", "u", "m", "", "k", "M", "G", "T", "P", "E"}[e / 3 + 3]);
    return arena_strdup(a, out);
}

bool schema_quantity_parse(const char *s, double *ret_value)
{
    i128 v;
    enum family f;

    if (!parse_nano(s, &v, &f))
        return false;
    *ret_value = (double)v / 1e9;
    return true;
}

static char *canonical(struct arena *a, const char *s, bool milli)
{
    const i128 step = 1000000;
    i128 v;
    enum family f;
    size_t n;

    s += strspn(s, " \t\r\n");
    for (n = strlen(s); n && strchr(" \t\r\n", s[n - 1]); n--)
        ;
    if (s[n])
        s = arena_strndup(a, s, n);
    if (!parse_nano(s, &v, &f))
        return NULL;
    if (milli && v % step)
        v = (v / step + (v > 0)) * step;
    return write_nano(a, v, f);
}

char *quantity_canonical(struct arena *a, const char *s)
{
    return canonical(a, s, false);
}

char *quantity_canonical_milli(struct arena *a, const char *s);
char *quantity_canonical_milli(struct arena *a, const char *s)
{
    return canonical(a, s, true);
}

static bool val_nano(const struct val *v, i128 *ret)
{
    enum family f;
    char tmp[64];

    if (val_is(v, VAL_STR))
        return parse_nano(v->s, ret, &f);
    if (val_is(v, VAL_INT)) {
        *ret = (i128)v->i * NANO;
        return true;
    }
    if (!val_is(v, VAL_DOUBLE))
        return false;
    snprintf(tmp, sizeof(tmp), "%.9f", val_num(v));
    return parse_nano(tmp, ret, &f);
}

double quantity_num(const struct val *v, double otherwise)
{
    i128 n;

    return val_nano(v, &n) ? (double)n / 1e9 : otherwise;
}

int64_t schema_quantity_milli(const struct val *v, int64_t otherwise)
{
    i128 n;

    if (!val_nano(v, &n))
        return otherwise;
    i128 m = n / 1000000;
    if (n % 1000000 > 0)
        m++;
    return m > INT64_MAX ? INT64_MAX : m < -INT64_MAX ? -INT64_MAX : (int64_t)m;
}

char *quantity_add(struct arena *a, const char *x, const char *y)
{
    i128 vx = 0, vy = 0;
    enum family fx = DECIMAL_SI, fy = DECIMAL_SI;

    if (!parse_nano(x, &vx, &fx) || vx == 0)
        fx = parse_nano(y, &vy, &fy) ? fy : fx;
    if (!parse_nano(y, &vy, &fy))
        vy = 0;
    return write_nano(a, vx + vy, fx);
}

/* ---- durations ---- */

bool duration_parse(const char *s, int64_t *ret_ns)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ns", 1},   {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
                 {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},        {"h", 3600e9}};
    bool minus = false;
    double total = 0;

    if (*s == '+' || *s == '-')
        minus = *s++ == '-';
    if (streq(s, "0")) {
        *ret_ns = 0;
        return true;
    }
    if (!*s)
        return false;
    while (*s) {
        size_t digits = strspn(s, "0123456789."), i;
        char num[64];
        if (!digits || digits >= sizeof(num) || (digits == 1 && *s == '.'))
            return false;
        memcpy(num, s, digits);
        num[digits] = 0;
        s += digits;
        for (i = 0; i < ARRAY_LEN(units); i++) {
            size_t n = strlen(units[i].unit);
            /* "m" only when it is not "ms" */
            if (strncmp(s, units[i].unit, n) == 0 && !islower((unsigned char)s[n])) {
                s += n;
                break;
            }
        }
        if (i == ARRAY_LEN(units))
            return false;
        total += strtod(num, NULL) * units[i].ns;
    }
    if (total > 9.2e18)
        return false;
    *ret_ns = (int64_t)(minus ? -total : total);
    return true;
}

/* As Go writes it: "1h0m0s", "1.5s", "10ms". */
static char *duration_text(struct arena *a, int64_t ns)
{
    char tmp[64];
    const char *sign = ns < 0 ? "-" : "";
    uint64_t u = ns < 0 ? (uint64_t)-ns : (uint64_t)ns;

    if (u == 0)
        return arena_strdup(a, "0s");
    if (u < 1000)
        return arena_printf(a, "%s%dns", sign, (int)u);
    if (u < 1000000)
        return arena_printf(a, "%s%.10g\xc2\xb5s", sign, (double)u / 1e3);
    if (u < 1000000000)
        return arena_printf(a, "%s%.10gms", sign, (double)u / 1e6);
    uint64_t s = u / 1000000000, frac = u % 1000000000;
    snprintf(tmp, sizeof(tmp), "%d", (int)(s % 60));
    if (frac) {
        size_t n = strlen(tmp);
        snprintf(tmp + n, sizeof(tmp) - n, ".%09d", (int)frac);
        for (n = strlen(tmp); tmp[n - 1] == '0'; n--)
            tmp[n - 1] = 0;
    }
    if (s < 60)
        return arena_printf(a, "%s%ss", sign, tmp);
    if (s < 3600)
        return arena_printf(a, "%s%dm%ss", sign, (int)(s / 60), tmp);
    return arena_printf(a, "%s%lldh%dm%ss", sign, (long long)(s / 3600), (int)(s / 60 % 60), tmp);
}

char *duration_canonical(struct arena *a, const char *s);
char *duration_canonical(struct arena *a, const char *s)
{
    int64_t ns;

    return duration_parse(s, &ns) ? duration_text(a, ns) : NULL;
}

/* ---- times ---- */

static bool digits_at(const char *s, int n, int *ret)
{
    *ret = 0;
    for (int i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i]))
            return false;
        *ret = *ret * 10 + (s[i] - '0');
    }
    return true;
}

bool time_parse(const char *s, int64_t *ret_us)
{
    int y, mo, d, h, mi, sec, oh = 0, om = 0;
    int64_t us = 0;

    if (strlen(s) < 20 || !digits_at(s, 4, &y) || s[4] != '-' || !digits_at(s + 5, 2, &mo) ||
        s[7] != '-' || !digits_at(s + 8, 2, &d) || s[10] != 'T' || !digits_at(s + 11, 2, &h) ||
        s[13] != ':' || !digits_at(s + 14, 2, &mi) || s[16] != ':' || !digits_at(s + 17, 2, &sec))
        return false;
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if (mo < 1 || mo > 12 || d < 1 || d > days[mo - 1] || (mo == 2 && d == 29 && !leap) ||
        h > 23 || mi > 59 || sec > 59)
        return false;
    s += 19;
    if (*s == '.' || *s == ',') {
        int64_t unit = 100000;
        for (s++; isdigit((unsigned char)*s); s++, unit /= 10)
            us += unit * (*s - '0');
    }
    if (*s == 'Z') {
        s++;
    } else {
        int sign = *s == '-' ? -1 : 1;
        if ((*s != '+' && *s != '-') || !digits_at(s + 1, 2, &oh) || s[3] != ':' ||
            !digits_at(s + 4, 2, &om) || oh > 23 || om > 59)
            return false;
        oh *= sign;
        om *= sign;
        s += 6;
    }
    if (*s)
        return false;
    struct tm tm = {.tm_year = y - 1900, .tm_mon = mo - 1, .tm_mday = d,
                    .tm_hour = h, .tm_min = mi, .tm_sec = sec};
    *ret_us = ((int64_t)timegm(&tm) - oh * 3600 - om * 60) * 1000000 + us;
    return true;
}

char *time_text(struct arena *a, int64_t us, bool micro)
{
    time_t t = (time_t)(us / 1000000);
    int64_t rest = us % 1000000;
    struct tm tm;
    char out[64];

    if (rest < 0) {
        rest += 1000000;
        t--;
    }
    gmtime_r(&t, &tm);
    size_t n = strftime(out, sizeof(out), "%Y-%m-%dT%H:%M:%S", &tm);
    if (tm.tm_year + 1900 < 1000) /* %Y does not pad */
        n = (size_t)snprintf(out, sizeof(out), "%04d-%02d-%02dT%02d:%02d:%02d",
                             (tm.tm_year + 1900) % 10000, tm.tm_mon % 12 + 1, tm.tm_mday % 32,
                             tm.tm_hour % 24, tm.tm_min % 60, tm.tm_sec % 61);
    snprintf(out + n, sizeof(out) - n, micro ? ".%06dZ" : "Z", (int)rest);
    return arena_strdup(a, out);
}
