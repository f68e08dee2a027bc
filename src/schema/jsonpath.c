/* schema/jsonpath.c - see jsonpath.h.
 *
 * A node takes a set of values and makes another one; a path is its nodes one after the other. So a filter is two
 * walks from each item, a union several from the same set. Text between quotes and numbers are nodes, too, which
 * give themselves: that is what the right side of a comparison is. */
#include "schema/jsonpath.h"

#include "codec/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RESULTS_MAX = 20000, DEPTH_MAX = 16, DESCENT_MAX = 200 };

struct set {
    const struct val **v;
    uint32_t n, cap;
};

struct walk {
    struct arena *a;
    const char *p, *end;
    struct set now;
    int depth;
};

static int go(struct walk *w);

static int add(struct arena *a, struct set *s, const struct val *v)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        const struct val **more = arena_array(a, const struct val *, cap);

        if (s->n)
            memcpy(more, s->v, s->n * sizeof(*more));
        s->v = more;
        s->cap = cap;
    }
    s->v[s->n++] = v;
    return s->n <= RESULTS_MAX ? 0 : -1;
}

/* Another walk, over text of ours, from the values in `from`. */
static int walk_over(struct walk *w, const char *text, size_t n, struct set from, struct set *ret)
{
    struct walk inner = {.a = w->a, .p = text, .end = text + n, .now = from, .depth = w->depth + 1};

    if (inner.depth > DEPTH_MAX || go(&inner) < 0)
        return -1;
    *ret = inner.now;
    return 0;
}

static int literal(struct walk *w, const struct val *v, bool each)
{
    struct set out = {0};

    for (uint32_t i = 0; i < (each ? w->now.n : 1); i++)
        if (add(w->a, &out, v) < 0)
            return -1;
    w->now = out;
    return 0;
}

/* ---- names ---- */

static bool ends(char c)
{
    return c && strchr(" \t\r\n.,[]$@{}", c) != NULL;
}

static bool word(const struct walk *w)
{
    return w->p < w->end && (isalnum((unsigned char)*w->p) || *w->p == '_' || (unsigned char)*w->p >= 0x80);
}

static int every(struct walk *w)
{
    struct set out = {0};

    for (uint32_t i = 0; i < w->now.n; i++) {
        const struct val *v = w->now.v[i];

        if (v->type == VAL_LIST)
            VAL_EACH(v, it)
                if (add(w->a, &out, it) < 0)
                    return -1;
        if (v->type == VAL_MAP)
            VAL_EACH_MEMBER(v, m)
                if (add(w->a, &out, &m->v) < 0)
                    return -1;
    }
    w->now = out;
    return 0;
}

/* The name up to what may not be in one; a backslash takes what follows as it is. */
static int field(struct walk *w)
{
    char *name = arena_alloc(w->a, (size_t)(w->end - w->p) + 1);
    const char *from = w->p;
    struct set out = {0};
    size_t n = 0;

    for (; w->p < w->end && !ends(*w->p); w->p++) {
        if (*w->p == '\\' && w->p + 1 < w->end)
            w->p++;
        if (*w->p != '\\')
            name[n++] = *w->p;
    }
    if (w->p - from == 1 && *from == '*')
        return every(w);
    for (uint32_t i = 0; i < w->now.n; i++) {
        const struct val *v = w->now.v[i]->type == VAL_MAP ? val_getn(w->now.v[i], name, (uint32_t)n) : NULL;

        if (v && add(w->a, &out, v) < 0)
            return -1;
    }
    w->now = out;
    return 0;
}

static int descend(struct arena *a, struct set *out, const struct val *v, int depth)
{
    if (depth > DESCENT_MAX || (v->type != VAL_MAP && v->type != VAL_LIST) || !v->n)
        return depth > DESCENT_MAX ? -1 : 0;
    if (add(a, out, v) < 0)
        return -1;
    if (v->type == VAL_LIST)
        VAL_EACH(v, it)
            if (descend(a, out, it, depth + 1) < 0)
                return -1;
    if (v->type == VAL_MAP)
        VAL_EACH_MEMBER(v, m)
            if (descend(a, out, &m->v, depth + 1) < 0)
                return -1;
    return 0;
}

static int everywhere(struct walk *w)
{
    struct set out = {0};

    w->p += 2;
    if (w->p + 1 < w->end && w->p[0] == '.' && w->p[1] == '.')
        return -1;
    for (uint32_t i = 0; i < w->now.n; i++)
        if (descend(w->a, &out, w->now.v[i], 0) < 0)
            return -1;
    w->now = out;
    return word(w) ? field(w) : 0;
}

/* ---- brackets ---- */

struct part {
    bool known, derived;
    long n;
};

/* "-1", ":", "2:", "1:7:2" as its three numbers. */
static int slice_parts(const char *s, size_t n, struct part part[3])
{
    const char *end = s + n;

    for (int i = 0; i < 3; i++) {
        const char *digits;
        char *over;

        part[i] = (struct part){0};
        if (i && (s == end || *s != ':')) {
            if (s != end)
                return -1;
            if (i == 1)
                part[1] = (struct part){true, true, part[0].n + 1};
            continue;
        }
        s += i > 0;
        digits = s + (s < end && *s == '-');
        while (digits < end && isdigit((unsigned char)*digits))
            digits++;
        if (digits > s) {
            part[i].known = true;
            part[i].n = strtol(s, &over, 10);
            if (over != digits || labs(part[i].n) > INT32_MAX)
                return -1;
        }
        s = digits;
    }
    return s == end ? 0 : -1;
}

static int slice(struct walk *w, const char *s, size_t n)
{
    struct part part[3];
    struct set out = {0};

    if (slice_parts(s, n, part) < 0)
        return -1;
    for (uint32_t i = 0; i < w->now.n; i++) {
        const struct val *v = w->now.v[i];
        long from = part[0].known ? part[0].n : 0, to, step = part[2].known ? part[2].n : 1, len = v->n;

        if (v->type == VAL_NULL)
            continue;
        if (v->type != VAL_LIST)
            return -1;
        from += from < 0 ? len : 0;
        to = part[1].known ? part[1].n : len;
        to += to < 0 || (to == 0 && part[1].derived) ? len : 0;
        if (from == to)
            break;
        if (from < 0 || from >= len || to < 0 || to > len || from > to || step <= 0)
            return -1;
        for (; from < to; from += step)
            if (add(w->a, &out, &v->items[from]) < 0)
                return -1;
    }
    w->now = out;
    return 0;
}

static int each_of(struct walk *w, const char *s, size_t n)
{
    struct set out = {0};

    while (n) {
        size_t len = 0;
        struct set got;

        while (len < n && s[len] != ',')
            len++;
        const char *one = s;
        size_t one_n = len;
        while (one_n && *one == ' ')
            one++, one_n--;
        while (one_n && one[one_n - 1] == ' ')
            one_n--;
        one = arena_printf(w->a, "[%.*s]", (int)one_n, one);
        if (walk_over(w, one, one_n + 2, w->now, &got) < 0)
            return -1;
        for (uint32_t i = 0; i < got.n; i++)
            if (add(w->a, &out, got.v[i]) < 0)
                return -1;
        s += len + (len < n);
        n -= len + (len < n);
    }
    w->now = out;
    return 0;
}

static int bracket(struct walk *w)
{
    const char *s = w->p + 1, *close = memchr(s, ']', (size_t)(w->end - s));
    size_t n;

    if (!close || memchr(s, '\n', (size_t)(close - s)))
        return -1;
    n = (size_t)(close - s);
    w->p = close + 1;
    if (n == 1 && *s == '*')
        return slice(w, ":", 1);
    if (memchr(s, ',', n))
        return each_of(w, s, n);
    if (n >= 2 && *s == '\'' && s[n - 1] == '\'' && !memchr(s + 1, '\'', n - 2)) {
        const char *path = arena_printf(w->a, ".%.*s", (int)(n - 2), s + 1);

        return walk_over(w, path, n - 1, w->now, &w->now);
    }
    return slice(w, s, n);
}

/* ---- filters ---- */

/* *ret_n: the text between "[?(" and ")]"; quotes hide what closes. */
static const char *filter_text(struct walk *w, size_t *ret_n)
{
    const char *s = w->p + 3, *p = s;
    char quote = 0;
    bool closed = false;

    for (; p < w->end && *p != '\n'; p++) {
        if (*p == '"' || *p == '\'') {
            if (!quote)
                quote = *p;
            else if (*p == quote && p[-1] != '\\')
                closed = true;
        } else if (*p == ')' && (!quote || closed)) {
            *ret_n = (size_t)(p - s);
            if (p + 1 >= w->end || p[1] != ']')
                return NULL;
            w->p = p + 2;
            return s;
        }
    }
    return NULL;
}

/* -2: the two can not be compared. */
static int order(const struct val *x, const struct val *y)
{
    if (x->type != y->type)
        return -2;
    switch (x->type) {
    case VAL_INT:
        return x->i < y->i ? -1 : x->i > y->i;
    case VAL_DOUBLE:
        return val_num(x) < val_num(y) ? -1 : val_num(x) > val_num(y);
    case VAL_STR: {
        int c = strcmp(x->s, y->s);
        return c < 0 ? -1 : c > 0;
    }
    case VAL_BOOL:
        return x->b != y->b;
    default:
        return -2;
    }
}

/* 1: it holds, 0: it does not, -1: it makes no sense. */
static int compare(const char *op, size_t n, const struct val *x, const struct val *y)
{
    int c = order(x, y);
    bool equal_only = x->type == VAL_BOOL;

    if (c == -2)
        return -1;
    if (n == 2 && memcmp(op, "==", 2) == 0)
        return c == 0;
    if (n == 2 && memcmp(op, "!=", 2) == 0)
        return c != 0;
    if (equal_only)
        return -1;
    if (n == 1 && (*op == '<' || *op == '>'))
        return *op == '<' ? c < 0 : c > 0;
    if (n == 2 && op[1] == '=' && (*op == '<' || *op == '>'))
        return *op == '<' ? c <= 0 : c >= 0;
    return -1;
}

/* 1: the item stays, 0: it goes, -1: error. */
static int passes(struct walk *w, const struct val *it, const char *s, size_t n)
{
    struct set one = {0}, left, right;
    size_t at = 0, op = 0;

    add(w->a, &one, it);
    while (at < n && !strchr("!<>=", s[at]))
        at++;
    while (at + op < n && strchr("!<>=", s[at + op]))
        op++;
    if (!at || !op || at + op == n) /* only: is it there? */
        return walk_over(w, s, n, one, &left) == 0 && left.n > 0;
    if (walk_over(w, s, at, one, &left) < 0)
        return -1;
    if (left.n != 1)
        return left.n ? -1 : 0;
    if (walk_over(w, s + at + op, n - at - op, one, &right) < 0)
        return -1;
    if (right.n != 1)
        return right.n ? -1 : 0;
    return compare(s + at, op, left.v[0], right.v[0]);
}

static int filter(struct walk *w)
{
    struct set out = {0}, none = {0};
    size_t n;
    const char *s = filter_text(w, &n);

    if (!s)
        return -1;
    if (!w->now.n) { /* what stands there must still be readable */
        size_t at = strcspn(s, "!<>="), op = at < n ? strspn(s + at, "!<>=") : 0;

        if (!at || !op || at + op >= n)
            return walk_over(w, s, n, none, &none);
        return walk_over(w, s, at, none, &none) < 0 ? -1 : walk_over(w, s + at + op, n - at - op, none, &none);
    }
    for (uint32_t i = 0; i < w->now.n; i++) {
        const struct val *v = w->now.v[i];

        if (v->type != VAL_LIST)
            return -1;
        VAL_EACH(v, it) {
            int r = passes(w, it, s, n);

            if (r < 0 || (r && add(w->a, &out, it) < 0))
                return -1;
        }
    }
    w->now = out;
    return 0;
}

/* ---- what stands for itself ---- */

static int quoted(struct walk *w)
{
    char quote = *w->p++, *out = arena_alloc(w->a, (size_t)(w->end - w->p) + 1);
    size_t n = 0;

    for (; w->p < w->end && *w->p != '\n'; w->p++) {
        if (*w->p == quote) {
            w->p++;
            return literal(w, val_strn(w->a, out, n), false);
        }
        if (*w->p == '\\' && w->p + 1 < w->end) {
            static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
            const char *c = strchr(from, *++w->p);

            if (!c || !*c)
                return -1;
            out[n++] = to[c - from];
        } else {
            out[n++] = *w->p;
        }
    }
    return -1;
}

static int number(struct walk *w)
{
    const char *s = w->p;
    size_t n;
    char text[64], *over;

    w->p += *w->p == '+' || *w->p == '-';
    while (w->p < w->end && (*w->p == '.' || isdigit((unsigned char)*w->p)))
        w->p++;
    n = (size_t)(w->p - s);
    if (n >= sizeof(text))
        return -1;
    memcpy(text, s, n);
    text[n] = 0;
    if (!strchr(text, '.')) {
        long long i = strtoll(text, &over, 10);

        return *over || over == text ? -1 : literal(w, val_int(w->a, i), true);
    }
    double d = strtod(text, &over);
    return *over || over == text ? -1 : literal(w, val_double(w->a, d), true);
}

static int word_node(struct walk *w)
{
    const char *s = w->p;
    size_t n;

    while (w->p < w->end && !ends(*w->p))
        w->p++;
    n = (size_t)(w->p - s);
    if (n == 4 && memcmp(s, "true", 4) == 0)
        return literal(w, val_bool(w->a, true), true);
    if (n == 5 && memcmp(s, "false", 5) == 0)
        return literal(w, val_bool(w->a, false), true);
    return -1; /* range and end have no use in one action */
}

/* ---- the walk ---- */

static int step(struct walk *w)
{
    size_t left = (size_t)(w->end - w->p);

    if (left >= 3 && memcmp(w->p, "[?(", 3) == 0)
        return filter(w);
    if (left >= 2 && memcmp(w->p, "..", 2) == 0)
        return everywhere(w);
    switch (*w->p) {
    case ' ':
    case '@':
    case '$':
        w->p++;
        return 0;
    case '[':
        return bracket(w);
    case '"':
    case '\'':
        return quoted(w);
    case '.':
        w->p++;
        return field(w);
    }
    if (*w->p == '+' || *w->p == '-' || isdigit((unsigned char)*w->p))
        return number(w);
    return word(w) ? word_node(w) : -1;
}

static int go(struct walk *w)
{
    while (w->p < w->end && *w->p != '}')
        if (step(w) < 0)
            return -1;
    return 0;
}

int jsonpath_first(struct arena *a, const struct val *obj, const char *path, const struct val **ret)
{
    struct walk w = {.a = a, .p = path, .end = path + strlen(path)};

    if (add(a, &w.now, obj) < 0 || go(&w) < 0)
        return -1;
    *ret = w.now.n ? w.now.v[0] : NULL;
    return 0;
}

bool jsonpath_valid(const char *path)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct walk w = {.a = a, .p = path, .end = path + strlen(path)};

    return go(&w) == 0;
}

char *jsonpath_text(struct arena *a, const struct val *v)
{
    _auto_(buf_done) struct buf b = {0};

    if (v->type == VAL_NULL)
        return arena_strdup(a, "<no value>");
    if (v->type == VAL_STR)
        return arena_strndup(a, v->s, v->n);
    if (v->type == VAL_DOUBLE && fabs(val_num(v)) >= 1e21)
        return arena_printf(a, "%.17g", val_num(v));
    json_write(&b, v);
    return arena_strndup(a, b.p, b.n);
}
