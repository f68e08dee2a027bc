/* Arrays have room for the next power of two of their length, so no capacity is kept: a push
 * moves the array only when n is 0 or a power of two. Who builds an array by hand (json.c) keeps
 * to that with val_cap(). */
#include "codec/val_build.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static struct val *make(struct arena *a, enum val_type type)
{
    struct val *v = arena_new_of(a, struct val);

    v->type = (uint8_t)type;
    return v;
}

struct val *val_null(struct arena *a)
{
    return make(a, VAL_NULL);
}

struct val *val_bool(struct arena *a, bool b)
{
    struct val *v = make(a, VAL_BOOL);

    v->b = b;
    return v;
}

struct val *val_int(struct arena *a, int64_t i)
{
    struct val *v = make(a, VAL_INT);

    v->i = i;
    return v;
}

struct val *val_double(struct arena *a, double d)
{
    struct val *v = make(a, VAL_DOUBLE);

    v->dbl = d;
    return v;
}

double val_num(const struct val *v)
{
    if (!val_is(v, VAL_DOUBLE))
        return val_is(v, VAL_INT) ? (double)v->i : 0;
    return v->n ? strtod(v->s, NULL) : v->dbl;
}

struct val *val_strn(struct arena *a, const char *s, size_t n)
{
    struct val *v = make(a, VAL_STR);

    ASSERT(n <= UINT32_MAX);
    v->s = arena_strndup(a, s, n);
    v->n = (uint32_t)n;
    return v;
}

struct val *val_str(struct arena *a, const char *s)
{
    return val_strn(a, s, strlen(s));
}

struct val *val_lit(struct arena *a, const char *s)
{
    struct val *v = make(a, VAL_STR);

    v->s = s;
    v->n = (uint32_t)strlen(s);
    return v;
}

struct val *val_printf(struct arena *a, const char *fmt, ...)
{
    char *text = NULL;
    struct val *v;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    v = val_strn(a, text, (size_t)n);
    free(text);
    return v;
}

struct val *val_list(struct arena *a)
{
    return make(a, VAL_LIST);
}

struct val *val_map(struct arena *a)
{
    return make(a, VAL_MAP);
}

static void copy_into(struct arena *a, struct val *to, const struct val *v)
{
    *to = *v;
    to->flag = v->type == VAL_STR ? v->flag : 0;
    if (v->type == VAL_STR || (v->type == VAL_DOUBLE && v->n)) {
        to->s = arena_strndup(a, v->s, v->n);
    } else if (v->type == VAL_LIST && v->n) {
        to->items = arena_raw(a, val_cap(v->n) * sizeof *to->items);
        for (uint32_t i = 0; i < v->n; i++)
            copy_into(a, &to->items[i], &v->items[i]);
    } else if (v->type == VAL_MAP && v->n) {
        to->members = arena_raw(a, val_cap(v->n) * sizeof *to->members);
        for (uint32_t i = 0; i < v->n; i++) {
            to->members[i].key = arena_strndup(a, v->members[i].key, v->members[i].n);
            to->members[i].n = v->members[i].n;
            copy_into(a, &to->members[i].v, &v->members[i].v);
        }
    }
}

struct val *val_copy(struct arena *a, const struct val *v)
{
    struct val *to = arena_new_of(a, struct val);

    copy_into(a, to, v);
    return to;
}

struct val *val_getn(const struct val *map, const char *key, size_t n)
{
    if (!map || map->type != VAL_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->n; i++)
        if (map->members[i].n == n && memcmp(map->members[i].key, key, n) == 0)
            return &map->members[i].v;
    return NULL;
}

struct val *val_get(const struct val *map, const char *key)
{
    return val_getn(map, key, strlen(key));
}

/* Room for one more element behind n. */
static void *grown(struct arena *a, void *array, uint32_t n, size_t size)
{
    void *p;

    ASSERT(n < UINT32_MAX / 2);
    if (n & (n - 1)) /* neither 0 nor a power of two: there is room */
        return array;
    p = arena_raw(a, size * (n ? (size_t)n * 2 : 1));
    if (n)
        memcpy(p, array, size * n);
    return p;
}

struct val *val_append_(struct arena *a, struct val *map, const char *key, uint32_t n)
{
    struct val_member *m;

    map->members = grown(a, map->members, map->n, sizeof *map->members);
    m = &map->members[map->n++];
    *m = (struct val_member){.key = key, .n = n};
    return &m->v;
}

struct val *val_putn(struct arena *a, struct val *map, const char *key, size_t n,
                     const struct val *value)
{
    struct val *at, v = *value;

    ASSERT(map->type == VAL_MAP);
    at = val_getn(map, key, n);
    if (!at)
        at = val_append_(a, map, arena_strndup(a, key, n), (uint32_t)n);
    *at = v;
    return at;
}

struct val *val_put(struct arena *a, struct val *map, const char *key, const struct val *value)
{
    return val_putn(a, map, key, strlen(key), value);
}

bool val_del(struct val *map, const char *key)
{
    struct val *at = val_get(map, key);
    struct val_member *m;

    if (!at)
        return false;
    m = container_of(at, struct val_member, v);
    memmove(m, m + 1, (size_t)(map->members + map->n - (m + 1)) * sizeof *m);
    /* Room must stay what n says it is: after shrinking to a power of two the next push copies
     * once more than needed, which is right, only not free. */
    map->n--;
    return true;
}

static struct val *need(struct arena *a, struct val *map, const char *key, enum val_type type)
{
    struct val *at = val_get(map, key);

    if (val_is(at, type))
        return at;
    return val_put(a, map, key, &(struct val){.type = (uint8_t)type});
}

struct val *val_need_map(struct arena *a, struct val *map, const char *key)
{
    return need(a, map, key, VAL_MAP);
}

struct val *val_need_list(struct arena *a, struct val *map, const char *key)
{
    return need(a, map, key, VAL_LIST);
}

void val_put_str(struct arena *a, struct val *map, const char *key, const char *s)
{
    size_t n = strlen(s);

    val_put(a, map, key,
            &(struct val){.type = VAL_STR, .n = (uint32_t)n, .s = arena_strndup(a, s, n)});
}

void val_put_int(struct arena *a, struct val *map, const char *key, int64_t i)
{
    val_put(a, map, key, &(struct val){.type = VAL_INT, .i = i});
}

void val_put_bool(struct arena *a, struct val *map, const char *key, bool b)
{
    val_put(a, map, key, &(struct val){.type = VAL_BOOL, .b = b});
}

struct val *val_push(struct arena *a, struct val *list, const struct val *value)
{
    struct val v = *value;

    ASSERT(list->type == VAL_LIST);
    list->items = grown(a, list->items, list->n, sizeof *list->items);
    list->items[list->n] = v;
    return &list->items[list->n++];
}

void val_push_str(struct arena *a, struct val *list, const char *s)
{
    size_t n = strlen(s);

    val_push(a, list, &(struct val){.type = VAL_STR, .n = (uint32_t)n, .s = arena_strndup(a, s, n)});
}

void val_remove(struct val *list, uint32_t i)
{
    ASSERT(list->type == VAL_LIST && i < list->n);
    memmove(&list->items[i], &list->items[i + 1], (list->n - i - 1) * sizeof *list->items);
    list->n--;
}

/* Takes one step of a path; *rest moves behind it. NULL: it is missing, or none. */
static struct val *step(const struct val *v, const char **rest)
{
    const char *p = *rest;
    size_t n;

    if (*p == '[') {
        char *end;
        unsigned long i = strtoul(p + 1, &end, 10);

        if (*end != ']') /* paths come from clients, too (a CRD's scale): there is no such step */
            return NULL;
        end++;
        *rest = *end == '.' ? end + 1 : end;
        return i < val_items_n_(v) ? &v->items[i] : NULL;
    }
    n = strcspn(p, ".[");
    *rest = p[n] == '.' ? p + n + 1 : p + n;
    return val_getn(v, p, n);
}

struct val *val_at(const struct val *v, const char *path)
{
    struct val *at = (struct val *)(uintptr_t)v;

    while (at && *path)
        at = step(at, &path);
    return at;
}

const char *val_str_at(const struct val *v, const char *path, const char *otherwise)
{
    return val_text(val_at(v, path), otherwise);
}

int64_t val_int_at(const struct val *v, const char *path, int64_t otherwise)
{
    const struct val *at = val_at(v, path);

    if (val_is(at, VAL_INT))
        return at->i;
    double d = val_is(at, VAL_DOUBLE) ? val_num(at) : 0.5;

    return d == floor(d) && fabs(d) < 9e18 ? (int64_t)d : otherwise;
}

bool val_bool_at(const struct val *v, const char *path, bool otherwise)
{
    const struct val *at = val_at(v, path);

    return val_is(at, VAL_BOOL) ? at->b : otherwise;
}

double val_num_at(const struct val *v, const char *path, double otherwise)
{
    const struct val *at = val_at(v, path);

    return val_is_number(at) ? val_num(at) : otherwise;
}

struct val *val_set_at(struct arena *a, struct val *root, const char *path, const struct val *value)
{
    struct val *at = root;

    for (;;) {
        const char *before = path;
        struct val *next = step(at, &path);
        size_t n = strcspn(before, ".[");

        if (!*path) {
            if (*before == '[') {
                ASSERT(next);
                *next = *value;
                return next;
            }
            return val_putn(a, at, before, n, value);
        }
        if (!next || (next->type != VAL_MAP && next->type != VAL_LIST)) {
            ASSERT(*before != '[' && *path != '[');
            next = val_putn(a, at, before, n, &(struct val){.type = VAL_MAP});
        }
        at = next;
    }
}

bool val_equal(const struct val *x, const struct val *y)
{
    if (x == y)
        return true;
    if (!x || !y)
        return false;
    if (x->type != y->type) {
        if (!val_is_number(x) || !val_is_number(y))
            return false;
        return val_num(x) == val_num(y);
    }
    switch ((enum val_type)x->type) {
    case VAL_NULL:
        return true;
    case VAL_BOOL:
        return x->b == y->b;
    case VAL_INT:
        return x->i == y->i;
    case VAL_DOUBLE:
        return val_num(x) == val_num(y);
    case VAL_STR:
        return x->n == y->n && memcmp(x->s, y->s, x->n) == 0;
    case VAL_LIST:
        if (x->n != y->n)
            return false;
        for (uint32_t i = 0; i < x->n; i++)
            if (!val_equal(&x->items[i], &y->items[i]))
                return false;
        return true;
    case VAL_MAP:
        if (x->n != y->n)
            return false;
        for (uint32_t i = 0; i < x->n; i++) {
            const struct val_member *m = &x->members[i];
            /* usually at the same place */
            const struct val *other =
                y->members[i].n == m->n && memcmp(y->members[i].key, m->key, m->n) == 0
                    ? &y->members[i].v
                    : val_getn(y, m->key, m->n);

            if (!other || !val_equal(&m->v, other))
                return false;
        }
        return true;
    }
    UNREACHABLE();
}

static int by_key(const void *x, const void *y)
{
    return strcmp(((const struct val_member *)x)->key, ((const struct val_member *)y)->key);
}

void val_sort_keys(struct val *v)
{
    if (v->type == VAL_MAP && v->n)
        qsort(v->members, v->n, sizeof *v->members, by_key);
    VAL_EACH_MEMBER(v, m)
        val_sort_keys(&m->v);
    VAL_EACH(v, e)
        val_sort_keys(e);
}
