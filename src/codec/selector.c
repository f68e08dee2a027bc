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

bool node_term_matches(const struct val *term, const struct val *labels, const char *name)
{
    const struct val *expressions = val_get(term, "matchExpressions");
    const struct val *fields = val_get(term, "matchFields");

    if (!val_len(expressions) && !val_len(fields))
        return false;
    VAL_EACH(expressions, r)
        if (!requirement_matches(r,
                                 val_text(val_get(labels, val_text(val_get(r, "key"), "")), NULL)))
            return false;
    VAL_EACH(fields, r)
        if (!streq(val_text(val_get(r, "key"), ""), "metadata.name") || !requirement_matches(r, name))
            return false;
    return true;
}

bool node_selector_matches(const struct val *node_selector, const struct val *labels, const char *name)
{
    if (!node_selector)
        return true;
    VAL_EACH(val_get(node_selector, "nodeSelectorTerms"), term)
        if (node_term_matches(term, labels, name))
            return true;
    return false;
}
