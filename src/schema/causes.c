/* schema/causes.c - what is wrong with an object, and the Status that says so. */
#include "schema/schema_int.h"

#include "codec/json.h"

#include <stdarg.h>
#include <stdio.h>

void causes_push_(struct causes *c, enum cause_type t, const char *field, const char *message);

static const struct {
    const char *reason, *words;
} kinds[] = {
    [CAUSE_REQUIRED] = {"FieldValueRequired", "Required value"},
    [CAUSE_INVALID] = {"FieldValueInvalid", "Invalid value"},
    [CAUSE_NOT_SUPPORTED] = {"FieldValueNotSupported", "Unsupported value"},
    [CAUSE_DUPLICATE] = {"FieldValueDuplicate", "Duplicate value"},
    [CAUSE_FORBIDDEN] = {"FieldValueForbidden", "Forbidden"},
    [CAUSE_TOO_LONG] = {"FieldValueTooLong", "Too long"},
    [CAUSE_TOO_MANY] = {"FieldValueTooMany", "Too many"},
    [CAUSE_TYPE_INVALID] = {"FieldValueTypeInvalid", "Invalid value"},
    [CAUSE_NOT_FOUND] = {"FieldValueNotFound", "Not found"},
    [CAUSE_INTERNAL] = {"InternalError", "Internal error"},
};

const char *cause_reason(enum cause_type t)
{
    return kinds[t].reason;
}

static bool shows_value(enum cause_type t)
{
    return t != CAUSE_REQUIRED && t != CAUSE_FORBIDDEN && t != CAUSE_TOO_LONG &&
           t != CAUSE_TOO_MANY && t != CAUSE_INTERNAL;
}

void causes_add(struct causes *c, enum cause_type t, const char *field, const struct val *bad,
                const char *fmt, ...)
{
    _auto_(buf_done) struct buf b = {0};
    va_list ap;

    buf_adds(&b, kinds[t].words);
    if (shows_value(t)) {
        buf_adds(&b, ": ");
        if (bad)
            json_write(&b, bad);
        else
            buf_adds(&b, "null");
    }
    if (*fmt) {
        buf_adds(&b, ": ");
        va_start(ap, fmt);
        buf_vprintf(&b, fmt, ap);
        va_end(ap);
    }
    causes_push_(c, t, arena_strdup(c->a, field), arena_strndup(c->a, b.p, b.n));
}

struct val *causes_status_of(const struct causes *c, struct arena *a, const char *group,
                             const char *kind, const char *name)
{
    _auto_(buf_done) struct buf b = {0};
    struct val *st = val_map(a), *list = val_list(a), *details = val_map(a);

    buf_printf(&b, "%s%s%s \"%s\" is invalid: ", kind, *group ? "." : "", group, name);
    if (c->n > 1)
        buf_addc(&b, '[');
    for (uint32_t i = 0; i < c->n; i++)
        buf_printf(&b, "%s%s: %s", i ? ", " : "", c->v[i].field, c->v[i].message);
    if (c->n > 1)
        buf_addc(&b, ']');
    for (uint32_t i = 0; i < c->n; i++) {
        struct val *one = val_map(a);
        val_put_str(a, one, "reason", cause_reason(c->v[i].type));
        val_put_str(a, one, "message", c->v[i].message);
        val_put_str(a, one, "field", c->v[i].field);
        val_push(a, list, one);
    }
    val_put_str(a, st, "kind", "Status");
    val_put_str(a, st, "apiVersion", "v1");
    val_put(a, st, "metadata", val_map(a));
    val_put_str(a, st, "status", "Failure");
    val_put(a, st, "message", val_strn(a, b.p, b.n));
    val_put_str(a, st, "reason", "Invalid");
    if (*name)
        val_put_str(a, details, "name", name);
    if (*group)
        val_put_str(a, details, "group", group);
    val_put_str(a, details, "kind", kind);
    if (c->n)
        val_put(a, details, "causes", list);
    val_put(a, st, "details", details);
    val_put_int(a, st, "code", 422);
    return st;
}

struct val *causes_status(const struct causes *c, struct arena *a, const struct resource *r,
                          const char *name)
{
    return causes_status_of(c, a, r->group, r->kind, name);
}
