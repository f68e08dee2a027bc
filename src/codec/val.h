/* codec/val.h - a JSON value as a tree in an arena.
 *
 * The one form in which documents are looked at and changed: what JSON, YAML and protobuf decode
 * to, and what every engine of the house (defaults, patches, merges, tables) works on. 16 bytes a
 * value. Maps keep the order in which keys came and hold each key once. Strings end in 0 and also
 * know their length (they may hold a 0).
 *
 * A number that is no int64 is a VAL_DOUBLE; where somebody reads it back as it was written (objects that
 * are kept whole), it keeps its text instead of its value: n > 0 bytes at s, then a byte that is no part of a number.
 * So ask val_num().
 *
 * Owner: the arena that was handed in. A tree may share parts with another tree of the same
 * arena; so a part is changed only by who built or copied it. A sealed tree is `const`. */
#pragma once

#include "base/arena.h"

enum val_type { VAL_NULL, VAL_BOOL, VAL_INT, VAL_DOUBLE, VAL_STR, VAL_LIST, VAL_MAP };

/* A string's flag: it is JSON text that stands for the value it spells (json_parse_lean). To be written only. */
enum { VAL_FLAG_JSON = 1 };

struct val_member;
struct val {
    uint8_t type;
    uint8_t flag; /* for the engine that walks the tree; 0 when made */
    uint32_t n;   /* bytes of a string (or of a number's text), items of a list, members of a map */
    union {
        bool b;
        int64_t i;
        double dbl; /* val_num() */
        const char *s;
        struct val *items;
        struct val_member *members;
    };
};
struct val_member {
    const char *key; /* ends in 0 */
    uint32_t n;      /* its bytes */
    struct val v;
};

/* makers: a new value in the arena; strings are copied by val_str, borrowed by val_lit */
struct val *val_null(struct arena *a);
struct val *val_bool(struct arena *a, bool b);
struct val *val_int(struct arena *a, int64_t i);
struct val *val_double(struct arena *a, double d);
struct val *val_str(struct arena *a, const char *s);
struct val *val_strn(struct arena *a, const char *s, size_t n);
struct val *val_lit(struct arena *a, const char *s); /* s outlives the arena */
struct val *val_printf(struct arena *a, const char *fmt, ...) _printf_(2, 3);
struct val *val_list(struct arena *a);
struct val *val_map(struct arena *a);
struct val *val_copy(struct arena *a, const struct val *v); /* deep, strings too */
void val_sort_keys(struct val *v); /* of all maps in it, by bytes; v is the caller's own, not shared */

static inline bool val_is(const struct val *v, enum val_type type)
{
    return v && v->type == type;
}
static inline bool val_is_null(const struct val *v) /* absent or null */
{
    return !v || v->type == VAL_NULL;
}
static inline bool val_is_number(const struct val *v)
{
    return v && (v->type == VAL_INT || v->type == VAL_DOUBLE);
}

double val_num(const struct val *v); /* of a VAL_INT or VAL_DOUBLE; 0 for others */

/* Maps. get: NULL when v is no map or has no such key. put: replaces or appends, stores a shallow
 * copy of value, gives back where it lies (valid until the next put to this map). */
struct val *val_get(const struct val *map, const char *key);
struct val *val_getn(const struct val *map, const char *key, size_t n);
struct val *val_put(struct arena *a, struct val *map, const char *key, const struct val *value);
struct val *val_putn(struct arena *a, struct val *map, const char *key, size_t n,
                     const struct val *value);
bool val_del(struct val *map, const char *key); /* true: it was there; keeps the order */
/* The member, made as a fresh empty map (list) when it is absent or of another type. */
struct val *val_need_map(struct arena *a, struct val *map, const char *key);
struct val *val_need_list(struct arena *a, struct val *map, const char *key);

/* Short forms of put. */
void val_put_str(struct arena *a, struct val *map, const char *key, const char *s); /* copies */
void val_put_int(struct arena *a, struct val *map, const char *key, int64_t i);
void val_put_bool(struct arena *a, struct val *map, const char *key, bool b);

/* Lists. push stores a shallow copy, gives back where it lies (until the next push). */
struct val *val_push(struct arena *a, struct val *list, const struct val *value);
void val_push_str(struct arena *a, struct val *list, const char *s);
void val_remove(struct val *list, uint32_t i);

/* By path: names with '.' between, [N] for items: "spec.template.spec.containers[0].name". For
 * names that hold dots use val_get. NULL when a step is missing. */
struct val *val_at(const struct val *v, const char *path);
const char *val_str_at(const struct val *v, const char *path, const char *otherwise);
int64_t val_int_at(const struct val *v, const char *path, int64_t otherwise); /* doubles that are whole too */
bool val_bool_at(const struct val *v, const char *path, bool otherwise);
double val_num_at(const struct val *v, const char *path, double otherwise);
/* Sets what lies at the path, making maps on the way (no [N] that does not exist yet). */
struct val *val_set_at(struct arena *a, struct val *root, const char *path, const struct val *value);

/* Deep and by meaning: order of keys does not count, 1 equals 1.0. */
bool val_equal(const struct val *x, const struct val *y);

/* The string, or otherwise when v is no string. */
static inline const char *val_text(const struct val *v, const char *otherwise)
{
    return v && v->type == VAL_STR ? v->s : otherwise;
}

/* VAL_EACH_MEMBER(map, m) / VAL_EACH(list, it): nothing for other types and NULL. The body may
 * change the value at hand, not the number of members. */
#define VAL_EACH_MEMBER(map, m)                                                                    \
    for (struct val_member *m = val_members_(map),                                                 \
                           *m##_end = m ? m + val_members_n_(map) : m;                             \
         m != m##_end; m++)
#define VAL_EACH(list, it)                                                                         \
    for (struct val *it = val_items_(list), *it##_end = it ? it + val_items_n_(list) : it;         \
         it != it##_end; it++)
static inline struct val_member *val_members_(const struct val *v)
{
    return v && v->type == VAL_MAP ? v->members : NULL;
}
static inline uint32_t val_members_n_(const struct val *v)
{
    return v && v->type == VAL_MAP ? v->n : 0;
}
static inline struct val *val_items_(const struct val *v)
{
    return v && v->type == VAL_LIST ? v->items : NULL;
}
static inline uint32_t val_items_n_(const struct val *v)
{
    return v && v->type == VAL_LIST ? v->n : 0;
}
#define val_len(v) (val_items_n_(v) + val_members_n_(v))
