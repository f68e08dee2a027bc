/* cel/value.c - values: how trees, lists and maps are read, compared and made. */
#include "cel/cel_int.h"
#include "cel/lib.h"

#include "base/buf.h"
#include "base/map.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ---- memory and errors ---- */

void eval_stop(struct eval *e, const char *why)
{
    e->stopped = why;
    longjmp(e->stop, 1);
}

void *mem(struct eval *e, size_t n)
{
    e->bytes += n + 16;
    if (__builtin_expect(e->bytes > e->bytes_max, 0)) {
        if (!e->prog) /* a constant looked at while compiling: these are small */
            UNREACHABLE();
        eval_stop(e, "operation cancelled: the evaluation takes too much memory");
    }
    return arena_alloc(e->arena, n ? n : 1);
}

struct cel_value fail_lit(const char *msg)
{
    return (struct cel_value){.kind = CEL_ERROR, .n = (uint32_t)strlen(msg), .s = msg};
}

struct cel_value fail(struct eval *e, const char *fmt, ...)
{
    char text[1000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct cel_value v = make_str(e, text, strlen(text));
    v.kind = CEL_ERROR;
    return v;
}

struct cel_value no_overload(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n)
{
    char text[600];
    size_t at = (size_t)snprintf(text, sizeof text, "no such overload: %.100s(", call->fn ? call->fn->name : call->name);

    for (uint32_t i = 0; i < n && at < sizeof text - 120; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.100s", i ? ", " : "", value_type_name(e->arena, args[i]));
    return fail(e, "%s)", text);
}

struct cel_value make_str(struct eval *e, const char *s, size_t n)
{
    char *copy = mem(e, n + 1);

    memcpy(copy, s, n);
    return cel_strn(copy, n);
}

struct cel_value make_printf(struct eval *e, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return make_str(e, text, strlen(text));
}

/* ---- lists ---- */

struct cel_value list_new(struct eval *e, uint32_t cap)
{
    struct cel_list *l = mem(e, sizeof *l);

    l->cap = cap;
    l->items = cap ? mem(e, cap * sizeof *l->items) : NULL;
    return (struct cel_value){.kind = CEL_LIST, .sub = SUB_MADE, .list = l};
}

struct cel_value list_push(struct eval *e, struct cel_value list, struct cel_value item)
{
    struct cel_list *l = (struct cel_list *)list.list;

    if (l->used != list.n || l->used == l->cap) { /* somebody grew it another way, or it is full */
        uint32_t cap = list.n < 4 ? 8 : list.n * 2;
        struct cel_list *o = l;
        l = mem(e, sizeof *l);
        l->items = mem(e, cap * sizeof *l->items);
        if (list.n)
            memcpy(l->items, o->items, list.n * sizeof *l->items);
        l->cap = cap;
        l->used = list.n;
        list.list = l;
    }
    l->items[l->used++] = item;
    list.n = l->used;
    return list;
}

uint32_t list_len(struct cel_value list)
{
    return list.sub == SUB_TREE ? list.val->n : list.n;
}

struct cel_value list_at(struct eval *e, struct cel_value list, uint32_t i)
{
    if (list.sub == SUB_TREE)
        return tree_value(e, list.val->items + i, list.type ? list.type->elem : NULL);
    return list.list->items[i];
}

/* ---- maps ---- */

struct cel_value map_new(struct eval *e, uint32_t cap)
{
    struct cel_map *m = mem(e, sizeof *m);

    m->cap = cap;
    m->entries = cap ? mem(e, cap * sizeof *m->entries) : NULL;
    return (struct cel_value){.kind = CEL_MAP, .sub = SUB_MADE, .map = m};
}

enum { INDEX_FROM = 9 };

/* Keys that are equal hash equally: whole numbers by their value, whatever their type. */
static uint32_t key_hash(struct cel_value k)
{
    char text[16];

    switch (k.kind) {
    case CEL_STRING:
        return str_hash(k.s, k.n);
    case CEL_BOOL:
        return k.b ? 7 : 5;
    case CEL_DOUBLE:
        if (k.d != floor(k.d) || k.d < -9.2e18 || k.d > 1.8e19)
            return 3;
        k.i = k.d < 9.2e18 ? (int64_t)k.d : (int64_t)(uint64_t)k.d;
        break;
    default:
        break;
    }
    memcpy(text, &k.i, 8);
    return str_hash(text, 8);
}

static void index_add(struct cel_map *m, uint32_t i)
{
    uint32_t at = key_hash(m->entries[i].key) & (m->index_cap - 1);

    while (m->index[at])
        at = (at + 1) & (m->index_cap - 1);
    m->index[at] = i + 1;
}

struct cel_value map_push(struct eval *e, struct cel_value map, struct cel_value key, struct cel_value v)
{
    struct cel_map *m = (struct cel_map *)map.map;

    if (m->used != map.n || m->used == m->cap) {
        uint32_t cap = map.n < 4 ? 8 : map.n * 2;
        struct cel_map *o = m;
        m = mem(e, sizeof *m);
        m->entries = mem(e, cap * sizeof *m->entries);
        if (map.n)
            memcpy(m->entries, o->entries, map.n * sizeof *m->entries);
        m->cap = cap;
        m->used = map.n;
        map.map = m;
    }
    m->entries[m->used++] = (struct cel_entry){key, v};
    map.n = m->used;
    if (m->used >= INDEX_FROM) {
        if (m->index_cap < m->used * 2) {
            m->index_cap = 32;
            while (m->index_cap < m->used * 3)
                m->index_cap *= 2;
            m->index = mem(e, m->index_cap * sizeof *m->index);
            for (uint32_t i = 0; i < m->used; i++)
                index_add(m, i);
        } else {
            index_add(m, m->used - 1);
        }
    }
    return map;
}

uint32_t map_len(struct cel_value map)
{
    if (map.sub == SUB_TREE)
        return map.val->n;
    return map.sub == SUB_LAZY ? 0 : map.n;
}

struct cel_value map_key_at(struct eval *e, struct cel_value map, uint32_t i)
{
    const struct val_member *m;

    if (map.sub != SUB_TREE)
        return map.map->entries[i].key;
    m = map.val->members + i;
    if (map.kind == CEL_OBJECT) {
        const char *name = cel_escape(e->arena, m->key);
        if (name)
            return cel_str(name);
    }
    return cel_strn(m->key, m->n);
}

static const struct cel_type *member_type(struct cel_value map, const char *name, size_t n)
{
    if (!map.type)
        return NULL;
    return map.kind == CEL_OBJECT ? cel_type_field(map.type, name, n) : map.type->elem;
}

struct cel_value map_value_at(struct eval *e, struct cel_value map, uint32_t i)
{
    const struct val_member *m;

    if (map.sub != SUB_TREE)
        return map.map->entries[i].value;
    m = map.val->members + i;
    return tree_value(e, &m->v, member_type(map, m->key, m->n));
}

static bool key_equal(struct cel_value a, struct cel_value b)
{
    if (a.kind == CEL_STRING)
        return b.kind == CEL_STRING && a.n == b.n && !memcmp(a.s, b.s, a.n);
    if (a.kind == CEL_BOOL)
        return b.kind == CEL_BOOL && a.b == b.b;
    return b.kind != CEL_STRING && b.kind != CEL_BOOL && values_compare(a, b) == 0;
}

static bool made_find(struct cel_value map, struct cel_value key, struct cel_value *ret)
{
    const struct cel_map *m = map.map;

    if (key.kind != CEL_STRING && key.kind != CEL_BOOL && key.kind != CEL_INT && key.kind != CEL_UINT && key.kind != CEL_DOUBLE)
        return false;
    if (m->index) {
        uint32_t at = key_hash(key) & (m->index_cap - 1);
        for (; m->index[at]; at = (at + 1) & (m->index_cap - 1)) {
            uint32_t i = m->index[at] - 1;
            if (i < map.n && key_equal(m->entries[i].key, key)) {
                *ret = m->entries[i].value;
                return true;
            }
        }
        return false;
    }
    for (uint32_t i = 0; i < map.n; i++)
        if (key_equal(m->entries[i].key, key)) {
            *ret = m->entries[i].value;
            return true;
        }
    return false;
}

bool map_find(struct eval *e, struct cel_value map, struct cel_value key, struct cel_value *ret)
{
    const struct val *v;

    if (map.kind == CEL_OBJECT) {
        const char *raw;
        if (key.kind != CEL_STRING)
            return false;
        raw = cel_unescape(e->arena, key.s, key.n);
        return field_find(e, map, key.s, key.n, raw, raw ? strlen(raw) : 0, ret);
    }
    if (map.sub == SUB_MADE)
        return made_find(map, key, ret);
    if (key.kind != CEL_STRING || !(v = val_getn(map.val, key.s, key.n)))
        return false;
    *ret = tree_value(e, v, member_type(map, key.s, key.n));
    return true;
}

static bool lazy_find(struct eval *e, struct cel_value obj, const char *name, size_t n, struct cel_value *ret)
{
    struct cel_lazy *l = (struct cel_lazy *)obj.lazy;
    struct lazy_field *f;

    for (f = l->known; f; f = f->next)
        if (strlen(f->name) == n && !memcmp(f->name, name, n)) {
            *ret = f->value;
            return true;
        }
    if (obj.type && !cel_type_field(obj.type, name, n))
        return false;
    /* the callback may run another program: its cost is this run's */
    e->run->cost = e->cost;
    *ret = l->get(l->data, e->run, name, n);
    e->cost = e->run->cost;
    f = mem(e, sizeof *f);
    f->name = arena_strndup(e->arena, name, n);
    f->value = *ret;
    f->next = l->known;
    l->known = f;
    return true;
}

bool field_find(struct eval *e, struct cel_value obj, const char *name, size_t n, const char *raw, size_t raw_n,
                struct cel_value *ret)
{
    const struct val *v;

    if (obj.kind == CEL_MAP)
        return map_find(e, obj, cel_strn(name, n), ret);
    if (!raw)
        return false;
    if (obj.sub == SUB_LAZY)
        return lazy_find(e, obj, raw, raw_n, ret);
    if (obj.sub == SUB_MADE)
        return made_find(obj, cel_strn(raw, raw_n), ret);
    v = val_getn(obj.val, raw, raw_n);
    if (!v)
        return false;
    *ret = tree_value(e, v, member_type(obj, raw, raw_n));
    return true;
}

/* ---- optional ---- */

struct cel_value opt_some(struct eval *e, struct cel_value v)
{
    struct cel_value *some = mem(e, sizeof *some);

    *some = v;
    return (struct cel_value){.kind = CEL_OPTIONAL, .some = some};
}

struct cel_value opt_none(void)
{
    return (struct cel_value){.kind = CEL_OPTIONAL};
}

/* ---- trees ---- */

static const char *go_type(const struct val *v)
{
    static const char *const names[] = {"nil", "bool", "int64", "float64", "string", "[]interface {}",
                                        "map[string]interface {}"};
    return names[v->type];
}

static struct cel_value tree_dyn(const struct val *v)
{
    switch ((enum val_type)v->type) {
    case VAL_NULL:
        return cel_null();
    case VAL_BOOL:
        return cel_bool(v->b);
    case VAL_INT:
        return cel_int(v->i);
    case VAL_DOUBLE:
        return cel_double(val_num(v));
    case VAL_STR:
        return cel_strn(v->s, v->n);
    case VAL_LIST:
        return (struct cel_value){.kind = CEL_LIST, .sub = SUB_TREE, .val = v};
    case VAL_MAP:
        return (struct cel_value){.kind = CEL_MAP, .sub = SUB_TREE, .val = v};
    }
    return cel_null();
}

static struct cel_value tree_base64(struct eval *e, const struct val *v)
{
    struct cel_value out;
    size_t n;
    char *bytes = mem(e, v->n + 4);

    if (!base64_read(v->s, v->n, bytes, &n))
        return fail(e, "Invalid byte formatted string %.200s: illegal base64 data", v->s);
    out = cel_strn(bytes, n);
    out.kind = CEL_BYTES;
    return out;
}

static struct cel_value tree_string(struct eval *e, const struct val *v, const struct cel_type *type)
{
    struct cel_value out;

    if (v->type != VAL_STR)
        return fail(e, "invalid data, expected string, got %s", go_type(v));
    switch (type->kind) {
    case CEL_TIMESTAMP:
        if (type->date ? !date_read(v->s, v->n, &out) : !timestamp_read_lax(v->s, v->n, &out))
            return fail(e, "Invalid %s formatted string %.200s", type->date ? "date" : "date-time", v->s);
        return out;
    case CEL_DURATION:
        if (!duration_read_lax(v->s, v->n, &out))
            return fail(e, "Invalid duration %.200s", v->s);
        return out;
    case CEL_BYTES:
        return tree_base64(e, v);
    default:
        return cel_strn(v->s, v->n);
    }
}

struct cel_value tree_value(struct eval *e, const struct val *v, const struct cel_type *type)
{
    struct cel_value out;

    if (!type)
        return tree_dyn(v);
    if (v->type == VAL_NULL && type->kind != CEL_DYN && type->kind != CEL_NULL)
        return type->nullable ? cel_null() : fail_lit("invalid data, got null for schema with nullable=false");
    switch (type->kind) {
    case CEL_BOOL:
        return v->type == VAL_BOOL ? cel_bool(v->b) : fail(e, "invalid data, expected bool, got %s", go_type(v));
    case CEL_INT:
        if (v->type == VAL_DOUBLE && val_num(v) == floor(val_num(v)) && fabs(val_num(v)) < 9e18)
            return cel_int((int64_t)val_num(v));
        return v->type == VAL_INT ? cel_int(v->i) : fail(e, "invalid data, expected int, got %s", go_type(v));
    case CEL_DOUBLE:
        if (v->type == VAL_INT)
            return cel_double((double)v->i);
        return v->type == VAL_DOUBLE ? cel_double(val_num(v)) : fail(e, "invalid data, expected float, got %s", go_type(v));
    case CEL_STRING: case CEL_TIMESTAMP: case CEL_DURATION: case CEL_BYTES:
        return tree_string(e, v, type);
    case CEL_LIST:
        if (v->type != VAL_LIST)
            return fail_lit("invalid data, expected an array for the provided schema with type=array");
        out = tree_dyn(v);
        out.type = type;
        return out;
    case CEL_MAP: case CEL_OBJECT:
        if (v->type != VAL_MAP)
            return fail_lit("invalid data, expected a map for the provided schema with type=object");
        out = tree_dyn(v);
        out.kind = type->kind;
        out.type = type;
        return out;
    default:
        if (type->int_or_string && v->type != VAL_INT && v->type != VAL_STR)
            return fail_lit("invalid data, expected XIntOrString value to be either a string or integer");
        return tree_dyn(v);
    }
}

struct cel_value cel_tree(struct arena *a, const struct val *v, const struct cel_type *type)
{
    static const struct val nothing = {.type = VAL_NULL};
    struct cel_run run = {.arena = a};
    struct eval e = {.run = &run, .arena = a, .bytes_max = SIZE_MAX};

    return tree_value(&e, v ? v : &nothing, type);
}

struct cel_value cel_lazy(struct arena *a, const struct cel_type *type, cel_lazy_fn get, void *data)
{
    struct cel_lazy *l = arena_new_of(a, struct cel_lazy);

    l->get = get;
    l->data = data;
    return (struct cel_value){.kind = CEL_OBJECT, .sub = SUB_LAZY, .lazy = l, .type = type};
}

struct cel_value cel_timestamp_ms(int64_t ms)
{
    int64_t s = ms / 1000, rest = ms % 1000;

    if (rest < 0) {
        rest += 1000;
        s--;
    }
    return (struct cel_value){.kind = CEL_TIMESTAMP, .i = s, .n = (uint32_t)(rest * 1000000)};
}

/* ---- order and equality ---- */

static int order(bool less, bool more)
{
    return less ? -1 : more ? 1 : 0;
}

/* As upstream: inside the range of the integers both are compared as doubles, so what a double cannot
 * tell apart is equal. */
static int double_int(double d, int64_t i)
{
    return d < -9223372036854775808.0 ? -1 : d > 9223372036854775808.0 ? 1 : order(d < (double)i, d > (double)i);
}
static int double_uint(double d, uint64_t u)
{
    return d < 0 ? -1 : d > 18446744073709551616.0 ? 1 : order(d < (double)u, d > (double)u);
}

static bool is_number(struct cel_value v)
{
    return v.kind == CEL_INT || v.kind == CEL_UINT || v.kind == CEL_DOUBLE;
}

static int compare_numbers(struct cel_value a, struct cel_value b)
{
    if ((a.kind == CEL_DOUBLE && isnan(a.d)) || (b.kind == CEL_DOUBLE && isnan(b.d)))
        return 3;
    if (a.kind == b.kind)
        return a.kind == CEL_INT    ? order(a.i < b.i, a.i > b.i)
               : a.kind == CEL_UINT ? order(a.u < b.u, a.u > b.u)
                                    : order(a.d < b.d, a.d > b.d);
    if (a.kind == CEL_DOUBLE)
        return b.kind == CEL_INT ? double_int(a.d, b.i) : double_uint(a.d, b.u);
    if (b.kind == CEL_DOUBLE)
        return a.kind == CEL_INT ? -double_int(b.d, a.i) : -double_uint(b.d, a.u);
    if (a.kind == CEL_INT)
        return a.i < 0 ? -1 : order((uint64_t)a.i < b.u, (uint64_t)a.i > b.u);
    return b.i < 0 ? 1 : order(a.u < (uint64_t)b.i, a.u > (uint64_t)b.i);
}

int values_compare(struct cel_value a, struct cel_value b)
{
    if (is_number(a) && is_number(b))
        return compare_numbers(a, b);
    if (a.kind != b.kind)
        return 2;
    switch (a.kind) {
    case CEL_BOOL:
        return (int)a.b - (int)b.b;
    case CEL_STRING: case CEL_BYTES: {
        uint32_t n = MIN(a.n, b.n);
        int r = n ? memcmp(a.s, b.s, n) : 0;
        return r ? order(r < 0, r > 0) : order(a.n < b.n, a.n > b.n);
    }
    case CEL_TIMESTAMP: case CEL_DURATION:
        return a.i != b.i ? order(a.i < b.i, true) : order(a.n < b.n, a.n > b.n);
    default:
        return 2;
    }
}

static struct cel_value lists_equal(struct eval *e, struct cel_value a, struct cel_value b);

static bool type_same_value(const struct cel_type *x, const struct cel_type *y)
{
    return x->kind == y->kind && streq0(x->name, y->name);
}

static struct cel_value maps_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    uint32_t n = map_len(a);

    if (n != map_len(b) || a.sub == SUB_LAZY || b.sub == SUB_LAZY)
        return cel_bool(false);
    for (uint32_t i = 0; i < n; i++) {
        struct cel_value other, r;
        if (!map_find(e, b, map_key_at(e, a, i), &other))
            return cel_bool(false);
        r = values_equal(e, map_value_at(e, a, i), other);
        if (is_error(r) || !r.b)
            return r;
    }
    return cel_bool(true);
}

/* x-kubernetes-list-type set: the same members in any order. */
static struct cel_value sets_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    uint32_t n = list_len(a);

    for (uint32_t i = 0; i < n; i++) {
        struct cel_value item = list_at(e, b, i);
        uint32_t k;
        for (k = 0; k < n && !values_same(e, list_at(e, a, k), item); k++)
            ;
        if (k == n)
            return cel_bool(false);
    }
    return cel_bool(true);
}

/* Whether two items of a list of type map have the same keys. */
bool list_keys_same(struct eval *e, const struct cel_type *t, struct cel_value a, struct cel_value b)
{
    if (!is_map(a) || !is_map(b))
        return false;
    for (uint32_t i = 0; i < t->list_keys_n; i++) {
        const char *key = t->list_keys[i];
        size_t n = strlen(key);
        struct cel_value x, y;
        bool has_x = field_find(e, a, key, n, key, n, &x), has_y = field_find(e, b, key, n, key, n, &y);
        if (has_x != has_y || (has_x && !values_same(e, x, y)))
            return false;
    }
    return true;
}

static struct cel_value keyed_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    uint32_t n = list_len(a);

    for (uint32_t i = 0; i < n; i++) {
        struct cel_value item = list_at(e, b, i), r;
        uint32_t k;
        for (k = 0; k < n && !list_keys_same(e, a.type, list_at(e, a, k), item); k++)
            ;
        if (k == n)
            return cel_bool(false);
        r = values_equal(e, list_at(e, a, k), item);
        if (is_error(r) || !r.b)
            return r;
    }
    return cel_bool(true);
}

static struct cel_value lists_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    uint32_t n = list_len(a);
    uint8_t how = a.type ? a.type->list_type : CEL_LIST_ATOMIC;

    if (n != list_len(b))
        return cel_bool(false);
    if (how == CEL_LIST_SET)
        return sets_equal(e, a, b);
    if (how == CEL_LIST_MAP)
        return keyed_equal(e, a, b);
    for (uint32_t i = 0; i < n; i++) {
        struct cel_value r = values_equal(e, list_at(e, a, i), list_at(e, b, i));
        if (is_error(r) || !r.b)
            return r;
    }
    return cel_bool(true);
}

enum { EQUAL_DEPTH_MAX = 500 };

struct cel_value values_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    struct cel_value r;

    if (is_error(a))
        return a;
    if (is_error(b))
        return b;
    if (is_number(a) && is_number(b))
        return cel_bool(compare_numbers(a, b) == 0);
    if (is_map(a) && is_map(b)) {
        if (a.kind == CEL_OBJECT && b.kind == CEL_OBJECT && a.type && b.type && a.sub == SUB_MADE && !type_same_value(a.type, b.type))
            return cel_bool(false);
        if (++e->depth > EQUAL_DEPTH_MAX)
            return fail_lit("values nest too deeply to be compared");
        r = maps_equal(e, a, b);
        e->depth--;
        return r;
    }
    if (a.kind != b.kind) /* what has a declared shape is not compared with what has none like it */
        return a.sub == SUB_TREE && a.type && (a.kind == CEL_LIST || is_map(a)) ? fail_lit("no such overload") : cel_bool(false);
    switch (a.kind) {
    case CEL_NULL:
        return cel_bool(true);
    case CEL_LIST:
        if (++e->depth > EQUAL_DEPTH_MAX)
            return fail_lit("values nest too deeply to be compared");
        r = lists_equal(e, a, b);
        e->depth--;
        return r;
    case CEL_TYPE:
        return cel_bool(type_same_value(a.t, b.t));
    case CEL_OPTIONAL:
        if (!a.some || !b.some)
            return cel_bool(!a.some && !b.some);
        return values_equal(e, *a.some, *b.some);
    case CEL_OPAQUE:
        return opaque_equal(e, a, b);
    default:
        return cel_bool(values_compare(a, b) == 0);
    }
}

bool values_same(struct eval *e, struct cel_value a, struct cel_value b)
{
    struct cel_value r = values_equal(e, a, b);

    return r.kind == CEL_BOOL && r.b;
}

/* ---- names, sizes, texts ---- */

size_t utf8_len(const char *s, size_t n)
{
    size_t points = 0;

    for (size_t i = 0; i < n; i++)
        points += ((unsigned char)s[i] & 0xc0) != 0x80;
    return points;
}

const char *type_name(struct arena *a, const struct cel_type *t)
{
    switch (t->kind) {
    case CEL_NULL:
        return "null_type";
    case CEL_TIMESTAMP:
        return "google.protobuf.Timestamp";
    case CEL_DURATION:
        return "google.protobuf.Duration";
    case CEL_LIST:
        return "list";
    case CEL_MAP:
        return "map";
    case CEL_TYPE:
        return "type";
    case CEL_OPTIONAL:
        return "optional_type";
    default:
        return cel_type_text(a, t);
    }
}

const struct cel_type *value_type(struct cel_value v)
{
    static const struct cel_type optional = {.kind = CEL_OPTIONAL, .elem = &cel_dyn_type},
                                 object = {.kind = CEL_MAP, .key = &cel_string_type, .elem = &cel_dyn_type};

    switch ((enum cel_kind)v.kind) {
    case CEL_NULL:
        return &cel_null_type;
    case CEL_BOOL:
        return &cel_bool_type;
    case CEL_INT:
        return &cel_int_type;
    case CEL_UINT:
        return &cel_uint_type;
    case CEL_DOUBLE:
        return &cel_double_type;
    case CEL_STRING:
        return &cel_string_type;
    case CEL_BYTES:
        return &cel_bytes_type;
    case CEL_TIMESTAMP:
        return &cel_timestamp_type;
    case CEL_DURATION:
        return &cel_duration_type;
    case CEL_LIST:
        return &cel_list_dyn_type;
    case CEL_MAP:
        return &cel_map_dyn_type;
    case CEL_TYPE:
        return &cel_type_type;
    case CEL_OPTIONAL:
        return &optional;
    case CEL_OBJECT:
        return v.sub == SUB_MADE && v.type ? v.type : &object; /* trees are maps to who asks */
    case CEL_OPAQUE:
        return v.type;
    default:
        return &cel_error_type;
    }
}

const char *value_type_name(struct arena *a, struct cel_value v)
{
    return type_name(a, value_type(v));
}

uint64_t value_size(struct eval *e, struct cel_value v)
{
    switch (v.kind) {
    case CEL_STRING:
        return utf8_len(v.s, v.n);
    case CEL_BYTES:
        return v.n;
    case CEL_LIST:
        return list_len(v);
    case CEL_MAP: case CEL_OBJECT:
        return map_len(v);
    case CEL_OPTIONAL:
        return v.some ? value_size(e, *v.some) : 1;
    case CEL_OPAQUE:
        return opaque_size(v);
    default:
        return 1;
    }
}

/* As strconv's 'g' with the fewest digits: 1, 0.1, 1e+06, 1.5e-07. */
void double_write(char out[static 40], double d)
{
    char text[40], *exp;
    int prec, e10;

    if (isnan(d) || isinf(d)) {
        strcpy(out, isnan(d) ? "NaN" : d < 0 ? "-Inf" : "+Inf");
        return;
    }
    for (prec = 0; prec < 17; prec++) {
        snprintf(text, sizeof text, "%.*e", prec, d);
        if (strtod(text, NULL) == d)
            break;
    }
    exp = strchr(text, 'e');
    e10 = atoi(exp + 1);
    if (e10 < -4 || e10 >= 6)
        strcpy(out, text);
    else
        snprintf(out, 40, "%.*f", MAX(prec - e10, 0), d);
}

struct cel_value double_text(struct eval *e, double d)
{
    char text[40];

    double_write(text, d);
    return make_str(e, text, strlen(text));
}

static void text_write(struct buf *b, struct arena *a, struct cel_value v, int depth);

static void text_items(struct buf *b, struct arena *a, struct cel_value v, int depth)
{
    struct cel_run run = {.arena = a};
    struct eval e = {.run = &run, .arena = a, .bytes_max = SIZE_MAX};
    bool list = v.kind == CEL_LIST;
    uint32_t n = list ? list_len(v) : map_len(v);

    buf_addc(b, list ? '[' : '{');
    for (uint32_t i = 0; i < n && !b->over; i++) {
        if (i)
            buf_adds(b, ", ");
        if (!list) {
            text_write(b, a, map_key_at(&e, v, i), depth + 1);
            buf_adds(b, ": ");
        }
        text_write(b, a, list ? list_at(&e, v, i) : map_value_at(&e, v, i), depth + 1);
    }
    buf_addc(b, list ? ']' : '}');
}

static void text_write(struct buf *b, struct arena *a, struct cel_value v, int depth)
{
    char text[64];
    const char *s;

    if (depth > 50)
        return;
    switch ((enum cel_kind)v.kind) {
    case CEL_NULL:
        buf_adds(b, "null");
        break;
    case CEL_BOOL:
        buf_adds(b, v.b ? "true" : "false");
        break;
    case CEL_INT:
        buf_printf(b, "%" PRId64, v.i);
        break;
    case CEL_UINT:
        buf_printf(b, "%" PRIu64, v.u);
        break;
    case CEL_DOUBLE:
        double_write(text, v.d);
        buf_adds(b, text);
        break;
    case CEL_STRING: case CEL_BYTES: case CEL_ERROR:
        buf_add(b, v.s, v.n);
        break;
    case CEL_TIMESTAMP:
        timestamp_write(text, v);
        buf_adds(b, text);
        break;
    case CEL_DURATION:
        duration_write(text, v);
        buf_adds(b, text);
        break;
    case CEL_LIST: case CEL_MAP: case CEL_OBJECT:
        text_items(b, a, v, depth);
        break;
    case CEL_TYPE:
        buf_adds(b, type_name(a, v.t));
        break;
    case CEL_OPTIONAL:
        if (!v.some) {
            buf_adds(b, "optional.none()");
            break;
        }
        buf_adds(b, "optional(");
        text_write(b, a, *v.some, depth + 1);
        buf_addc(b, ')');
        break;
    default:
        s = opaque_text(a, v);
        buf_adds(b, s ? s : v.type ? v.type->name : "?");
    }
}

const char *cel_text(struct arena *a, struct cel_value v)
{
    struct buf b;
    const char *text;

    buf_init(&b, 64 * 1024);
    text_write(&b, a, v, 0);
    text = arena_strndup(a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

/* ---- results as trees ---- */

static int to_val(struct arena *a, struct cel_value v, struct val *ret, int depth, struct err *err);

static int items_to_val(struct arena *a, struct cel_value v, struct val *ret, int depth, struct err *err)
{
    struct cel_run run = {.arena = a};
    struct eval e = {.run = &run, .arena = a, .bytes_max = SIZE_MAX};
    bool list = v.kind == CEL_LIST;
    uint32_t n = list ? list_len(v) : map_len(v);
    struct val *out = list ? val_list(a) : val_map(a), item;

    if (v.sub == SUB_LAZY)
        return err_set(err, INVALID, "variables have no form in JSON");
    if (v.sub == SUB_TREE && v.val->type == out->type) {
        *ret = *v.val;
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct cel_value x = list ? list_at(&e, v, i) : map_value_at(&e, v, i);
        if (x.kind == CEL_OPTIONAL) {
            if (!x.some)
                continue;
            x = *x.some;
        }
        if (to_val(a, x, &item, depth + 1, err) < 0)
            return -1;
        if (list) {
            val_push(a, out, &item);
        } else {
            struct cel_value k = map_key_at(&e, v, i);
            const char *key = cel_text(a, k);
            val_put(a, out, key, &item);
        }
    }
    *ret = *out;
    return 0;
}

static int to_val(struct arena *a, struct cel_value v, struct val *ret, int depth, struct err *err)
{
    const char *s = NULL;
    char *text;

    *ret = (struct val){.type = VAL_NULL};
    if (depth > 200)
        return err_set(err, INVALID, "the value nests too deeply");
    switch ((enum cel_kind)v.kind) {
    case CEL_NULL:
        return 0;
    case CEL_BOOL:
        *ret = *val_bool(a, v.b);
        return 0;
    case CEL_INT:
        *ret = *val_int(a, v.i);
        return 0;
    case CEL_UINT:
        *ret = v.u <= INT64_MAX ? *val_int(a, (int64_t)v.u) : *val_double(a, (double)v.u);
        return 0;
    case CEL_DOUBLE:
        if (isnan(v.d) || isinf(v.d))
            return err_set(err, INVALID, "the value %f has no form in JSON", v.d);
        *ret = *val_double(a, v.d);
        return 0;
    case CEL_STRING:
        *ret = *val_strn(a, v.s, v.n);
        return 0;
    case CEL_BYTES:
        text = arena_raw(a, (v.n + 2) / 3 * 4 + 1);
        base64_write(v.s, v.n, text);
        *ret = *val_lit(a, text);
        return 0;
    case CEL_TIMESTAMP: case CEL_DURATION:
        s = cel_text(a, v);
        break;
    case CEL_LIST: case CEL_MAP: case CEL_OBJECT:
        return items_to_val(a, v, ret, depth, err);
    case CEL_OPTIONAL:
        return v.some ? to_val(a, *v.some, ret, depth + 1, err) : 0;
    case CEL_OPAQUE:
        s = opaque_text(a, v);
        break;
    default:
        break;
    }
    if (!s)
        return err_set(err, INVALID, "a value of type %s has no form in JSON", value_type_name(a, v));
    *ret = *val_lit(a, s);
    return 0;
}

static void misnamed(struct arena *a, struct cel_value v, const char *path, int depth, struct buf *b)
{
    bool object = v.kind == CEL_OBJECT && v.type && v.type->name && str_starts(v.type->name, "Object");
    bool list = v.kind == CEL_LIST;
    struct cel_run run = {.arena = a};
    struct eval e = {.run = &run, .arena = a, .bytes_max = SIZE_MAX};

    if (depth > 200 || b->n > 4096 || (!list && v.kind != CEL_MAP && v.kind != CEL_OBJECT) || v.sub == SUB_LAZY ||
        v.sub == SUB_TREE)
        return;
    if (object && !path)
        path = v.type->name;
    if (object && !streq(path, v.type->name))
        buf_printf(b, "%sunexpected type name \"%s\", expected \"%s\", which matches field name path from root Object type",
                   b->n ? "\n" : "", v.type->name, path);
    if (v.kind == CEL_OBJECT && !object) /* a patch: its value begins anew */
        path = NULL;
    for (uint32_t i = 0; i < (list ? list_len(v) : map_len(v)); i++) {
        struct cel_value x = list ? list_at(&e, v, i) : map_value_at(&e, v, i);

        misnamed(a, x, object && path ? arena_printf(a, "%s.%s", path, cel_text(a, map_key_at(&e, v, i))) : path, depth + 1, b);
    }
}

const char *cel_misnamed(struct arena *a, struct cel_value v)
{
    _auto_(buf_done) struct buf b = {0};

    misnamed(a, v, NULL, 0, &b);
    return b.n ? arena_strndup(a, b.p, b.n) : NULL;
}

int cel_to_val(struct arena *a, struct cel_value v, struct val **ret, struct err *err)
{
    struct val out;

    if (to_val(a, v, &out, 0, err) < 0)
        return -1;
    *ret = arena_memdup(a, &out, sizeof out);
    return 0;
}
