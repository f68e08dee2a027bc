#include "codec/selector.h"

#include <errno.h>

static bool has(const struct val *values, const char *s)
{
    VAL_EACH(values, v)
        if (streq0(val_text(v, NULL), s))
            return true;
    return false;
}

static bool number(const char *s, long long *ret)
{
    char *end;

    errno = 0;
    *ret = s ? strtoll(s, &end, 10) : 0;
    return s && *s && !*end && !errno;
}

bool requirement_matches(const struct val *requirement, const char *have)
{
    const char *op = val_text(val_get(requirement, "operator"), "");
    const struct val *values = val_get(requirement, "values");
    long long x, y;

    if (streq(op, "In"))
        return have && has(values, have);
    if (streq(op, "NotIn"))
        return !have || !has(values, have);
    if (streq(op, "Exists"))
        return have;
    if (streq(op, "DoesNotExist"))
        return !have;
    if (!streq(op, "Gt") && !streq(op, "Lt"))
        return false;
    if (!number(have, &x) || val_len(values) != 1 || !number(val_text(values->items, NULL), &y))
        return false;
    return streq(op, "Gt") ? x > y : x < y;
}

bool labels_contain(const struct val *labels, const struct val *wanted)
{
    VAL_EACH_MEMBER(wanted, m)
        if (!streq0(val_text(val_getn(labels, m->key, m->n), NULL), val_text(&m->v, "")))
            return false;
    return true;
}

bool selector_matches(const struct val *selector, const struct val *labels)
{
    if (!val_is(selector, VAL_MAP) || !labels_contain(labels, val_get(selector, "matchLabels")))
        return false;
    VAL_EACH(val_get(selector, "matchExpressions"), r)
        if (!requirement_matches(r,
                                 val_text(val_get(labels, val_text(val_get(r, "key"), "")), NULL)))
            return false;
    return true;
}
