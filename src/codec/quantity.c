#include "codec/quantity.h"

#include <math.h>
#include <stdio.h>

static const struct suffix {
    const char *text;
    int8_t exp10; /* power of ten, or 0 */
    uint8_t exp2; /* power of two, or 0 */
} suffixes[] = {
    {"n", -9, 0}, {"u", -6, 0}, {"m", -3, 0}, {"", 0, 0},   {"k", 3, 0},   {"M", 6, 0},
    {"G", 9, 0},  {"T", 12, 0}, {"P", 15, 0}, {"E", 18, 0}, {"Ki", 0, 10}, {"Mi", 0, 20},
    {"Gi", 0, 30}, {"Ti", 0, 40}, {"Pi", 0, 50}, {"Ei", 0, 60},
};

enum { DIGITS_MAX = 27 }; /* the mantissa stays far inside 127 bits with 2^60 in front */

static quantity pow10q(int e)
{
    quantity p = 1;

    while (e-- > 0)
        p *= 10;
    return p;
}

/* mantissa * 10^exp10 * 2^exp2 in billionths, rounded up (away from 0); false: too big */
static bool scale(quantity m, int exp10, int exp2, quantity *ret_q)
{
    const quantity most = (quantity)1 << 124;
    quantity div = 1;

    exp10 += 9;
    for (; exp10 < 0 && div < pow10q(30); exp10++)
        div *= 10;
    if (exp10 < 0)
        m = m > 0;
    for (; exp10 > 0 && m; exp10--) {
        if (m > most / 10)
            return false;
        m *= 10;
    }
    for (; exp2 > 0; exp2--) {
        if (m > most / 2)
            return false;
        m *= 2;
    }
    *ret_q = (m + div - 1) / div;
    return true;
}

bool quantity_parse(const char *s, quantity *ret_q)
{
    bool minus = false, any = false, point = false;
    int digits = 0, exp10 = 0, exp2 = 0;
    quantity m = 0;

    if (!s)
        return false;
    if (*s == '+' || *s == '-')
        minus = *s++ == '-';
    for (; (*s >= '0' && *s <= '9') || (*s == '.' && !point); s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        any = true;
        if (digits < DIGITS_MAX) {
            m = m * 10 + (*s - '0');
            digits += m != 0;
            exp10 -= point;
        } else if (!point) {
            exp10++;
        }
    }
    if (!any)
        return false;
    if ((*s == 'e' || *s == 'E') && s[1]) {
        char *end;
        long e = strtol(s + 1, &end, 10);

        if (*end || end == s + 1 || e > 40 || e < -40 || strchr(s, ' '))
            return false;
        exp10 += (int)e;
    } else {
        size_t i = 0;

        while (i < ARRAY_LEN(suffixes) && !streq(s, suffixes[i].text))
            i++;
        if (i == ARRAY_LEN(suffixes))
            return false;
        exp10 += suffixes[i].exp10;
        exp2 = suffixes[i].exp2;
    }
    if (!scale(m, exp10, exp2, &m))
        return false;
    *ret_q = minus ? -m : m;
    return true;
}

quantity quantity_of(const struct val *v)
{
    quantity q = 0;

    if (!v)
        return 0;
    if (v->type == VAL_STR)
        quantity_parse(v->s, &q);
    else if (v->type == VAL_INT)
        q = quantity_from_value(v->i);
    else if (v->type == VAL_DOUBLE && fabs(val_num(v)) < 1e18)
        q = (quantity)ceil(val_num(v) * 1e9);
    return q;
}

static int64_t ceil_div(quantity q, quantity by)
{
    quantity r = q / by;

    if (q > 0 && r * by != q)
        r++;
    return r > INT64_MAX ? INT64_MAX : r < INT64_MIN ? INT64_MIN : (int64_t)r;
}

int64_t quantity_milli(quantity q)
{
    return ceil_div(q, QUANTITY_ONE / 1000);
}

int64_t quantity_value(quantity q)
{
    return ceil_div(q, QUANTITY_ONE);
}

bool quantity_is_binary(const char *s)
{
    return s && str_ends(s, "i");
}

char *quantity_text(struct arena *a, quantity q, bool binary)
{
    const char *sign = q < 0 ? "-" : "";
    quantity m = q < 0 ? -q : q;

    if (m == 0)
        return arena_strdup(a, "0");
    if (binary && m % QUANTITY_ONE == 0) {
        size_t i = ARRAY_LEN(suffixes);

        m /= QUANTITY_ONE;
        while (i-- > 0 && suffixes[i].exp2) /* biggest that leaves a whole number */
            if (m % ((quantity)1 << suffixes[i].exp2) == 0)
                return arena_printf(a, "%s%lld%s", sign, (long long)(m >> suffixes[i].exp2),
                                    suffixes[i].text);
        return arena_printf(a, "%s%lld", sign, (long long)m);
    }
    for (int i = 9; i >= 0; i--) {
        quantity unit = pow10q(suffixes[i].exp10 + 9);

        if (m % unit == 0)
            return arena_printf(a, "%s%lld%s", sign, (long long)(m / unit), suffixes[i].text);
    }
    UNREACHABLE();
}
