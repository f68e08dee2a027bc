/* schema/celtype.c - see celtype.h. */
#include "schema/celtype.h"

#include "base/map.h"

/* All types of one root: a described type becomes one CEL type, so recursive ones end. */
struct made {
    struct made *next;
    const struct type *of;
    struct cel_type type;
};
struct maker {
    struct arena *arena;
    struct made *all;
};
struct origin { /* data of an object's type */
    struct maker *m;
    const struct type *t;
};

static const struct cel_type *convert(struct maker *m, const struct type *t);

static const struct cel_type *field_of(const struct cel_type *t, const char *name, size_t n)
{
    const struct origin *o = t->data;
    const struct field *f = type_field(o->t, name, n);

    return f ? convert(o->m, f->type) : NULL;
}

static const struct cel_type *object_of(struct maker *m, const struct type *t)
{
    struct made *x = m->all;
    struct origin *o;

    while (x && x->of != t)
        x = x->next;
    if (x)
        return &x->type;
    x = arena_new_of(m->arena, struct made);
    o = arena_new_of(m->arena, struct origin);
    *o = (struct origin){m, t};
    x->of = t;
    x->type = (struct cel_type){.kind = CEL_OBJECT, .name = t->name ? t->name : "object", .field = field_of,
                                .data = o, .max_elements = -1};
    x->next = m->all;
    m->all = x;
    return &x->type;
}

static const struct cel_type *convert(struct maker *m, const struct type *t)
{
    switch (t->kind) {
    case TYPE_STRING:
    case TYPE_DURATION:
        return &cel_string_type;
    case TYPE_BOOL:
        return &cel_bool_type;
    case TYPE_INT32:
    case TYPE_INT64:
        return &cel_int_type;
    case TYPE_DOUBLE:
        return &cel_double_type;
    case TYPE_BYTES:
        return &cel_bytes_type;
    case TYPE_TIME:
    case TYPE_MICRO_TIME:
        return &cel_timestamp_type;
    case TYPE_LIST:
        return cel_type_list(m->arena, convert(m, t->elem));
    case TYPE_MAP:
        return cel_type_map(m->arena, &cel_string_type, convert(m, t->elem));
    case TYPE_STRUCT:
        return t->preserve || t->embedded ? &cel_dyn_type : object_of(m, t);
    default:
        return &cel_dyn_type;
    }
}

const struct cel_type *schema_cel_type(struct arena *a, const struct type *t)
{
    struct maker *m = arena_new_of(a, struct maker);

    m->arena = a;
    return convert(m, t);
}
