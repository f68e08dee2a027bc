/* schema/select.c - label selectors (text and object form) and field selectors.
 *
 * Grammar of the text: requirements with ',' between: KEY, !KEY, KEY = V, KEY == V, KEY != V,
 * KEY in (V,..), KEY notin (V,..), KEY > N, KEY < N; blanks between words. */
#include "schema/select.h"
#include "schema/schema_int.h"

#include <stdio.h>

enum op { OP_IN, OP_NOT_IN, OP_EXISTS, OP_NOT_EXISTS, OP_GT, OP_LT };

struct requirement {
    struct requirement *next;
    enum op op;
    bool equals; /* written = or != */
    const char *key;
    const char **values;
    uint32_t values_n;
};

struct selector {
    struct requirement *first, **last;
    bool nothing;
};

static struct selector *make(struct arena *a)
{
    struct selector *s = arena_new_of(a, struct selector);

    s->last = &s->first;
    return s;
}

static struct requirement *require(struct arena *a, struct selector *s, const char *key, enum op op)
{
    struct requirement *r = arena_new_of(a, struct requirement);

    r->key = key;
    r->op = op;
    *s->last = r;
    s->last = &r->next;
    return r;
}

static void add_value(struct arena *a, struct requirement *r, const char *v)
{
    if ((r->values_n & (r->values_n - 1)) == 0) {
        const char **more = arena_array(a, const char *, r->values_n ? r->values_n * 2 : 1);
        if (r->values_n)
            memcpy(more, r->values, r->values_n * sizeof(*more));
        r->values = more;
    }
    r->values[r->values_n++] = v;
}

/* ---- text ---- */

struct scan {
    struct arena *a;
    const char *p;
    struct err *err;
};

static void blanks(struct scan *s)
{
    while (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')
        s->p++;
}

/* A word: anything but blanks and the signs of the grammar. */
static const char *word(struct scan *s)
{
    blanks(s);
    const char *from = s->p;
    while (*s->p && !strchr(" \t\r\n,()=!<>", *s->p))
        s->p++;
    return arena_strndup(s->a, from, (size_t)(s->p - from));
}

static int unable(struct scan *s, const char *what)
{
    return err_set(s->err, INVALID_ARGUMENT,
                   "unable to parse requirement: found '%.40s', expected: %s", s->p, what);
}

static int check_key(struct scan *s, const char *key)
{
    const char *why = *key ? name_qualified(key) : "name part must be non-empty";

    return why ? err_set(s->err, INVALID_ARGUMENT,
                         "unable to parse requirement: <nil>: Invalid value: \"%.80s\": %s", key, why)
               : 0;
}

static int check_value(struct scan *s, const char *v)
{
    const char *why = name_label_value(v);

    return why ? err_set(s->err, INVALID_ARGUMENT,
                         "unable to parse requirement: values[0]: Invalid value: \"%.80s\": %s", v, why)
               : 0;
}

static int value_list(struct scan *s, struct requirement *r)
{
    blanks(s);
    if (*s->p != '(')
        return unable(s, "'('");
    s->p++;
    for (;;) {
        const char *v = word(s);
        if (check_value(s, v) < 0)
            return -1;
        add_value(s->a, r, v);
        blanks(s);
        if (*s->p == ')') {
            s->p++;
            return 0;
        }
        if (*s->p++ != ',') {
            s->p--;
            return unable(s, "',', or ')'");
        }
    }
}

static int number(struct scan *s, const char *v)
{
    char *end;

    strtoll(v, &end, 10);
    return !*v || *end ? err_set(s->err, INVALID_ARGUMENT,
                                 "unable to parse requirement: values[0]: Invalid value: \"%.80s\": "
                                 "for 'Gt', 'Lt' operators, the value must be an integer", v)
                       : 0;
}

static int one_requirement(struct scan *s, struct selector *sel)
{
    blanks(s);
    if (*s->p == '!') {
        s->p++;
        const char *key = word(s);
        require(s->a, sel, key, OP_NOT_EXISTS);
        return check_key(s, key);
    }
    const char *key = word(s);
    if (check_key(s, key) < 0)
        return -1;
    blanks(s);
    if (!*s->p || *s->p == ',') {
        require(s->a, sel, key, OP_EXISTS);
        return 0;
    }
    if (*s->p == '=' || (*s->p == '!' && s->p[1] == '=')) {
        struct requirement *r = require(s->a, sel, key, *s->p == '=' ? OP_IN : OP_NOT_IN);
        r->equals = true;
        s->p += *s->p == '!' ? 2 : s->p[1] == '=' ? 2 : 1;
        const char *v = word(s);
        add_value(s->a, r, v);
        return check_value(s, v);
    }
    if (*s->p == '>' || *s->p == '<') {
        struct requirement *r = require(s->a, sel, key, *s->p++ == '>' ? OP_GT : OP_LT);
        const char *v = word(s);
        add_value(s->a, r, v);
        return number(s, v);
    }
    const char *op = word(s);
    if (!streq(op, "in") && !streq(op, "notin"))
        return err_set(s->err, INVALID_ARGUMENT, "unable to parse requirement: found '%.40s', "
                       "expected: in, notin, =, ==, !=, gt, lt", *op ? op : s->p);
    return value_list(s, require(s->a, sel, key, streq(op, "in") ? OP_IN : OP_NOT_IN));
}

struct selector *selector_parse(struct arena *a, const char *text, struct err *err)
{
    struct selector *sel = make(a);
    struct scan s = {a, text, err};

    blanks(&s);
    if (!*s.p)
        return sel;
    for (;;) {
        if (one_requirement(&s, sel) < 0)
            return NULL;
        blanks(&s);
        if (!*s.p)
            return sel;
        if (*s.p != ',') {
            unable(&s, "',' or 'end of string'");
            return NULL;
        }
        s.p++;
        blanks(&s);
        if (!*s.p || *s.p == ',') {
            unable(&s, "identifier after ','");
            return NULL;
        }
    }
}

/* ---- objects ---- */

struct selector *selector_of_map(struct arena *a, const struct val *map)
{
    struct selector *s = make(a);

    VAL_EACH_MEMBER(map, m)
        add_value(a, require(a, s, arena_strdup(a, m->key), OP_IN),
                  arena_strdup(a, val_text(&m->v, "")));
    return s;
}

struct selector *selector_of(struct arena *a, const struct val *v, struct err *err)
{
    static const char *const name[] = {"In", "NotIn", "Exists", "DoesNotExist"};

    if (val_is_null(v)) {
        struct selector *none = make(a);
        none->nothing = true;
        return none;
    }
    struct selector *s = selector_of_map(a, val_get(v, "matchLabels"));
    VAL_EACH(val_get(v, "matchExpressions"), e) {
        const char *op = val_text(val_get(e, "operator"), "");
        uint32_t i = 0;
        while (i < ARRAY_LEN(name) && !streq(op, name[i]))
            i++;
        if (i == ARRAY_LEN(name)) {
            err_set(err, INVALID_ARGUMENT, "\"%.40s\" is not a valid label selector operator", op);
            return NULL;
        }
        struct requirement *r = require(a, s, arena_strdup(a, val_text(val_get(e, "key"), "")),
                                        (enum op)i);
        VAL_EACH(val_get(e, "values"), x)
            add_value(a, r, arena_strdup(a, val_text(x, "")));
    }
    return s;
}

static bool has_value(const struct requirement *r, const char *v)
{
    for (uint32_t i = 0; i < r->values_n; i++)
        if (streq(r->values[i], v))
            return true;
    return false;
}

static bool matches(const struct requirement *r, const char *v)
{
    switch (r->op) {
    case OP_IN:
        return v && has_value(r, v);
    case OP_NOT_IN:
        return !v || !has_value(r, v);
    case OP_EXISTS:
        return v != NULL;
    case OP_NOT_EXISTS:
        return v == NULL;
    default: {
        char *end;
        long long have = v ? strtoll(v, &end, 10) : 0;
        if (!v || !*v || *end)
            return false;
        long long want = strtoll(r->values[0], NULL, 10);
        return r->op == OP_GT ? have > want : have < want;
    }
    }
}

bool selector_match(const struct selector *s, const struct val *labels)
{
    if (s->nothing)
        return false;
    for (const struct requirement *r = s->first; r; r = r->next)
        if (!matches(r, val_text(val_get(labels, r->key), NULL)))
            return false;
    return true;
}

bool selector_everything(const struct selector *s)
{
    return !s->nothing && !s->first;
}

const char *selector_exact(const struct selector *s, const char *key)
{
    for (const struct requirement *r = s->first; r; r = r->next)
        if (r->op == OP_IN && r->values_n == 1 && streq(r->key, key))
            return r->values[0];
    return NULL;
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static int by_key(const void *x, const void *y)
{
    return strcmp((*(struct requirement *const *)x)->key, (*(struct requirement *const *)y)->key);
}

char *selector_text(struct arena *a, const struct selector *s)
{
    _auto_(buf_done) struct buf b = {0};
    uint32_t n = 0, i = 0;

    for (const struct requirement *r = s->first; r; r = r->next)
        n++;
    const struct requirement **sorted = arena_array(a, const struct requirement *, n + 1);
    for (const struct requirement *r = s->first; r; r = r->next)
        sorted[i++] = r;
    qsort(sorted, n, sizeof(*sorted), by_key);
    for (i = 0; i < n; i++) {
        const struct requirement *r = sorted[i];
        buf_adds(&b, i ? "," : "");
        buf_printf(&b, "%s%s", r->op == OP_NOT_EXISTS ? "!" : "", r->key);
        if (r->op == OP_EXISTS || r->op == OP_NOT_EXISTS)
            continue;
        if (r->op == OP_GT || r->op == OP_LT) {
            buf_printf(&b, "%s%s", r->op == OP_GT ? ">" : "<", r->values[0]);
            continue;
        }
        if (r->values_n == 1 && (r->op == OP_IN ? true : r->equals)) {
            buf_printf(&b, "%s%s", r->op == OP_IN ? "=" : "!=", r->values[0]);
            continue;
        }
        const char **v = arena_array(a, const char *, r->values_n + 1);
        if (r->values_n)
            memcpy(v, r->values, r->values_n * sizeof(*v));
        qsort(v, r->values_n, sizeof(*v), by_text);
        buf_adds(&b, r->op == OP_IN ? " in (" : " notin (");
        for (uint32_t k = 0; k < r->values_n; k++)
            buf_printf(&b, "%s%s", k ? "," : "", v[k]);
        buf_addc(&b, ')');
    }
    return arena_strndup(a, b.p ? b.p : "", b.n);
}

/* ---- fields ---- */

struct field_term {
    struct field_term *next;
    const char *field, *value;
    bool not_equal;
};
struct field_selector {
    struct field_term *first, **last;
};

static bool selectable(const struct resource *r, const char *field)
{
    if (streq(field, "metadata.name") || (streq(field, "metadata.namespace") && r->namespaced))
        return true;
    if (streq(field, "metadata.namespace"))
        return true;
    for (const char *const *f = r->priv->selects; *f; f++)
        if (streq(*f, field))
            return true;
    return false;
}

/* "\," and "\=" and "\\" are escapes. */
static const char *field_text(struct arena *a, const char *from, size_t n)
{
    char *out = arena_raw(a, n + 1), *w = out;

    for (size_t i = 0; i < n; i++) {
        if (from[i] == '\\' && i + 1 < n && strchr(",=\\", from[i + 1]))
            i++;
        *w++ = from[i];
    }
    *w = 0;
    return out;
}

static size_t term_end(const char *p)
{
    size_t n = 0;

    while (p[n] && p[n] != ',') {
        if (p[n] == '\\' && p[n + 1])
            n++;
        n++;
    }
    return n;
}

static int field_term(const struct resource *r, struct arena *a, struct field_selector *fs,
                      const char *p, size_t n, struct err *err)
{
    size_t i = 0;

    while (i < n && p[i] != '=' && !(p[i] == '!' && i + 1 < n && p[i + 1] == '='))
        i++;
    if (i == n)
        return err_set(err, INVALID_ARGUMENT,
                       "invalid selector: '%.*s'; can't understand '%.*s'", (int)n, p, (int)n, p);
    struct field_term *t = arena_new_of(a, struct field_term);
    t->not_equal = p[i] == '!';
    t->field = field_text(a, p, i);
    i += t->not_equal || (i + 1 < n && p[i + 1] == '=') ? 2 : 1;
    t->value = field_text(a, p + i, n - i);
    if (!selectable(r, t->field))
        return err_set(err, INVALID_ARGUMENT, "field label not supported: %.100s", t->field);
    *fs->last = t;
    fs->last = &t->next;
    return 0;
}

struct field_selector *field_selector_parse(const struct resource *r, struct arena *a,
                                            const char *text, struct err *err)
{
    struct field_selector *fs = arena_new_of(a, struct field_selector);

    fs->last = &fs->first;
    while (*text) {
        size_t n = term_end(text);
        if (n && field_term(r, a, fs, text, n, err) < 0)
            return NULL;
        text += n;
        text += *text == ',';
    }
    return fs;
}

/* What the field reads as in a selector. */
static const char *field_value(const struct val *obj, const char *field, char out[32])
{
    const struct val *v = val_at(obj, field);

    if (streq(field, "spec.hostNetwork") || streq(field, "spec.unschedulable"))
        return val_is(v, VAL_BOOL) && v->b ? "true" : "false";
    if (streq(field, "source")) {
        const char *from = val_str_at(obj, "source.component", "");
        return *from ? from : val_str_at(obj, "reportingComponent", "");
    }
    if (streq(field, "reportingController") && !v)
        return val_str_at(obj, "reportingComponent", "");
    if (val_is(v, VAL_STR))
        return v->s;
    if (val_is(v, VAL_BOOL))
        return v->b ? "true" : "false";
    if (val_is(v, VAL_INT)) {
        snprintf(out, 32, "%lld", (long long)v->i);
        return out;
    }
    return streq(field, "status.replicas") || streq(field, "status.successful") ? "0" : "";
}

bool field_selector_match(const struct field_selector *f, const struct val *obj)
{
    char out[32];

    for (const struct field_term *t = f->first; t; t = t->next)
        if (streq(field_value(obj, t->field, out), t->value) == t->not_equal)
            return false;
    return true;
}

bool field_selector_everything(const struct field_selector *f)
{
    return !f->first;
}

const char *field_selector_exact(const struct field_selector *f, const char *field)
{
    for (const struct field_term *t = f->first; t; t = t->next)
        if (!t->not_equal && streq(t->field, field))
            return t->value;
    return NULL;
}
