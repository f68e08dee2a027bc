/* schema/decode.c - what a client sent into the form that the server keeps.
 *
 * The tree is rebuilt, never changed in place: what comes from a patch shares parts with sealed
 * objects. Per struct: each member finds its field, its value is decoded by the field's type, and
 * the fields are written in the type's order under the rules of a Go server (type.h, FIELD_*):
 * empty values of omitempty fields go, those of others are written as "", 0, null or {}. Empty
 * lists and maps count as absent, for the server keeps objects in a form that can not tell; on its
 * way there an object may tell (schema_decode_given, schema_settle). */
#include "schema/schema_int.h"

#include "codec/val_build.h"

#include <stdio.h>

char *duration_canonical(struct arena *a, const char *s);
char *quantity_canonical_milli(struct arena *a, const char *s);

enum { PATH_MAX_N = 1024, DEPTH_MAX = 200, UNKNOWN_MAX = 100 };

struct decoder {
    struct arena *a;
    struct texts *strict; /* NULL: nobody asks for unknown fields */
    struct err *err;
    const char *owner; /* name of the struct at hand, for error texts */
    bool tell_empty; /* lists that were given empty stay, where a field tells them from none */
    bool empty;      /* there was one */
    bool milli; /* within a list of resources: nothing finer than 0.001 is kept */
    char path[PATH_MAX_N];
    uint32_t path_n, depth;
};

static bool decode(struct decoder *d, const struct type *t, struct val *out, const struct val *in);

static uint32_t path_push(struct decoder *d, const char *key, size_t n)
{
    uint32_t mark = d->path_n;
    int k = snprintf(d->path + mark, PATH_MAX_N - mark, "%s%.*s", mark ? "." : "", (int)n, key);

    d->path_n = k < 0 || mark + (uint32_t)k >= PATH_MAX_N ? PATH_MAX_N - 1 : mark + (uint32_t)k;
    return mark;
}

static uint32_t path_index(struct decoder *d, uint32_t i)
{
    uint32_t mark = d->path_n;
    int k = snprintf(d->path + mark, PATH_MAX_N - mark, "[%u]", i);

    d->path_n = k < 0 || mark + (uint32_t)k >= PATH_MAX_N ? PATH_MAX_N - 1 : mark + (uint32_t)k;
    return mark;
}

static void path_pop(struct decoder *d, uint32_t mark)
{
    d->path_n = mark;
    d->path[mark] = 0;
}

static const char *json_name(const struct val *v)
{
    switch (v->type) {
    case VAL_BOOL:
        return "bool";
    case VAL_INT:
    case VAL_DOUBLE:
        return "number";
    case VAL_STR:
        return "string";
    case VAL_LIST:
        return "array";
    case VAL_MAP:
        return "object";
    default:
        return "null";
    }
}

static const char *go_name(const struct type *t)
{
    switch (t->kind) {
    case TYPE_STRING:
    case TYPE_TIME:
    case TYPE_MICRO_TIME:
    case TYPE_DURATION:
        return "string";
    case TYPE_BOOL:
        return "bool";
    case TYPE_INT32:
    case TYPE_INT_OR_STRING:
        return "int32";
    case TYPE_INT64:
        return "int64";
    case TYPE_DOUBLE:
        return "float64";
    case TYPE_BYTES:
        return "[]uint8";
    case TYPE_MAP:
        return t->elem->kind == TYPE_STRING ? "map[string]string" : "map[string]json.RawMessage";
    case TYPE_LIST:
        return t->elem->kind == TYPE_STRING ? "[]string" : "[]json.RawMessage";
    default:
        return t->name ? t->name : "object";
    }
}

static bool wrong_type(struct decoder *d, const struct type *t, const struct val *in)
{
    err_set(d->err, INVALID_ARGUMENT,
            "json: cannot unmarshal %s into Go struct field %s.%s of type %s", json_name(in),
            d->owner ? d->owner : "", d->path, go_name(t));
    return false;
}

static void set_str(struct decoder *d, struct val *out, const char *s)
{
    (void)d;
    *out = (struct val){.type = VAL_STR, .n = (uint32_t)strlen(s), .s = s};
}

static bool decode_int(struct decoder *d, const struct type *t, struct val *out,
                       const struct val *in)
{
    if (in->type == VAL_INT) /* 3.0 is no integer, as for Go */
        *out = (struct val){.type = VAL_INT, .i = in->i};
    else
        return wrong_type(d, t, in);
    if (t->kind == TYPE_INT32 && (out->i > INT32_MAX || out->i < INT32_MIN)) {
        err_set(d->err, INVALID_ARGUMENT,
                "json: cannot unmarshal number %lld into Go struct field %s.%s of type int32",
                (long long)out->i, d->owner ? d->owner : "", d->path);
        return false;
    }
    return true;
}

static bool decode_bytes(struct decoder *d, const struct type *t, struct val *out,
                         const struct val *in)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t n = 0, pad = 0;

    if (in->type != VAL_STR)
        return wrong_type(d, t, in);
    char *clean = arena_raw(d->a, in->n + 1u);
    for (uint32_t i = 0; i < in->n; i++) {
        char c = in->s[i];
        if (c == '\n' || c == '\r')
            continue;
        if (c == '=')
            pad++;
        else if (pad || !c || !strchr(alphabet, c)) {
            err_set(d->err, INVALID_ARGUMENT, "illegal base64 data at input byte %u", i);
            return false;
        }
        clean[n++] = c;
    }
    clean[n] = 0;
    if (n % 4 || pad > 2) {
        err_set(d->err, INVALID_ARGUMENT, "illegal base64 data at input byte %u", in->n);
        return false;
    }
    *out = (struct val){.type = VAL_STR, .n = n, .s = clean};
    return true;
}

static bool decode_quantity(struct decoder *d, const struct type *t, struct val *out,
                            const struct val *in)
{
    char number[64];
    const char *text = number;

    if (in->type == VAL_STR)
        text = in->s;
    else if (in->type == VAL_INT)
        snprintf(number, sizeof(number), "%lld", (long long)in->i);
    else if (in->type == VAL_DOUBLE && in->n)
        text = arena_strndup(d->a, in->s, in->n);
    else if (in->type == VAL_DOUBLE)
        snprintf(number, sizeof(number), "%.15g", in->dbl);
    else
        return wrong_type(d, t, in);
    char *canonical = d->milli ? quantity_canonical_milli(d->a, text)
                               : quantity_canonical(d->a, text);
    if (!canonical) {
        err_set(d->err, INVALID_ARGUMENT, "quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
        return false;
    }
    set_str(d, out, canonical);
    return true;
}

static bool decode_time(struct decoder *d, const struct type *t, struct val *out,
                        const struct val *in)
{
    int64_t us;
    bool micro = t->kind == TYPE_MICRO_TIME;

    if (in->type != VAL_STR)
        return wrong_type(d, t, in);
    bool digits = !micro || (in->n > 26 && in->s[19] == '.' &&
                             strspn(in->s + 20, "0123456789") == 6);
    if (!digits || !time_parse(in->s, &us)) {
        err_set(d->err, INVALID_ARGUMENT,
                "parsing time \"%.60s\" as \"2006-01-02T15:04:05%sZ07:00\": cannot parse it",
                in->s, micro ? ".000000" : "");
        return false;
    }
    set_str(d, out, time_text(d->a, us, micro));
    return true;
}

static bool decode_list(struct decoder *d, const struct type *t, struct val *out,
                        const struct val *in)
{
    if (in->type != VAL_LIST)
        return wrong_type(d, t, in);
    *out = (struct val){.type = VAL_LIST, .n = in->n};
    if (!in->n)
        return true;
    out->items = arena_alloc(d->a, val_cap(in->n) * sizeof(struct val));
    for (uint32_t i = 0; i < in->n; i++) {
        uint32_t mark = path_index(d, i);
        if (!decode(d, t->elem, &out->items[i], &in->items[i]))
            return false;
        path_pop(d, mark);
    }
    return true;
}

static bool decode_map(struct decoder *d, const struct type *t, struct val *out,
                       const struct val *in)
{
    if (in->type != VAL_MAP)
        return wrong_type(d, t, in);
    *out = (struct val){.type = VAL_MAP, .n = in->n};
    if (!in->n)
        return true;
    out->members = arena_alloc(d->a, val_cap(in->n) * sizeof(struct val_member));
    d->milli = t->elem->kind == TYPE_QUANTITY;
    for (uint32_t i = 0; i < in->n; i++) {
        uint32_t mark = path_push(d, in->members[i].key, in->members[i].n);
        out->members[i].key = in->members[i].key;
        out->members[i].n = in->members[i].n;
        if (!decode(d, t->elem, &out->members[i].v, &in->members[i].v))
            return false;
        path_pop(d, mark);
    }
    d->milli = false;
    return true;
}

/* What stands for a field that was not given; false: nothing does. */
static bool absent(struct decoder *d, const struct field *f, struct val *out)
{
    if (!(f->flags & FIELD_KEEP))
        return false;
    *out = (struct val){.type = VAL_NULL};
    if (f->flags & FIELD_PTR)
        return true;
    switch (f->type->kind) {
    case TYPE_STRING:
        set_str(d, out, "");
        break;
    case TYPE_BOOL:
        *out = (struct val){.type = VAL_BOOL};
        break;
    case TYPE_INT32:
    case TYPE_INT64:
    case TYPE_INT_OR_STRING:
        *out = (struct val){.type = VAL_INT};
        break;
    case TYPE_DOUBLE:
        *out = (struct val){.type = VAL_INT};
        break;
    case TYPE_QUANTITY:
        set_str(d, out, "0");
        break;
    case TYPE_DURATION:
        set_str(d, out, "0s");
        break;
    case TYPE_STRUCT: {
        struct val empty = {.type = VAL_MAP};
        return decode(d, f->type, out, &empty);
    }
    default:
        break;
    }
    return true;
}

/* Would Go's omitempty leave it out (f is neither kept nor a pointer)? */
static bool empty(const struct val *v)
{
    switch (v->type) {
    case VAL_NULL:
        return true;
    case VAL_BOOL:
        return !v->b;
    case VAL_INT:
        return v->i == 0;
    case VAL_DOUBLE:
        return val_num(v) == 0;
    default:
        return v->n == 0;
    }
}

static bool dropped(struct decoder *d, const struct field *f, const struct val *v)
{
    enum type_kind k = f->type->kind;

    if (k == TYPE_LIST || k == TYPE_MAP) {
        if (v->n || !d->tell_empty || !(f->flags & (FIELD_KEEP | FIELD_GIVEN)))
            return v->n == 0;
        d->empty = true;
        return false;
    }
    if (k == TYPE_STRUCT)
        return (f->flags & FIELD_ZERO) && v->n == 0;
    if (k == TYPE_ANY || k == TYPE_RAW || (f->flags & FIELD_PTR))
        return false;
    return !(f->flags & FIELD_KEEP) && empty(v);
}

static void unknown(struct decoder *d, const struct val_member *m)
{
    if (!d->strict || d->strict->n >= UNKNOWN_MAX)
        return;
    uint32_t mark = path_push(d, m->key, m->n);
    texts_add(d->strict, "unknown field \"%s\"", d->path);
    path_pop(d, mark);
}

/* "A schema, or a list of them, or a bool, or names" within a custom resource's schema: what is a
 * schema there takes the form of one (inside of a union nobody is told of unknown fields). */
static bool decode_either(struct decoder *d, const struct type *schema, struct val *out,
                          const struct val *in)
{
    struct texts *strict = d->strict;
    struct val one = {.type = VAL_LIST};
    bool ok = true;

    *out = *in;
    d->strict = NULL;
    if (in->type == VAL_MAP) {
        ok = decode(d, schema, out, in);
    } else if (in->type == VAL_LIST) {
        *out = one;
        for (uint32_t i = 0; i < in->n && ok; i++) {
            struct val v = in->items[i];

            if (v.type == VAL_MAP)
                ok = decode(d, schema, &v, &in->items[i]);
            val_push(d->a, out, &v);
        }
    }
    d->strict = strict;
    return ok;
}

static bool is_either(const struct type *owner, const struct field *f)
{
    return f->type->kind == TYPE_ANY && owner->name &&
           streq(owner->name, "apiextensions.v1.JSONSchemaProps") &&
           (streq(f->name, "items") || streq(f->name, "additionalProperties") ||
            streq(f->name, "additionalItems"));
}

static bool decode_struct(struct decoder *d, const struct type *t, struct val *out,
                          const struct val *in)
{
    const struct val *slots_small[64];
    const char *owner = d->owner;
    bool ok = true;

    if (in->type != VAL_MAP)
        return wrong_type(d, t, in);
    if (!t->fields_n) { /* a struct without fields */
        *out = (struct val){.type = VAL_MAP};
        return true;
    }
    const struct val **slots = slots_small;
    if (t->fields_n > ARRAY_LEN(slots_small))
        slots = arena_array(d->a, const struct val *, t->fields_n);
    else
        memset(slots_small, 0, t->fields_n * sizeof(*slots));
    *out = (struct val){.type = VAL_MAP};
    out->members = arena_alloc(d->a, val_cap(t->fields_n) * sizeof(struct val_member));
    if (t->name)
        d->owner = strrchr(t->name, '.') ? strrchr(t->name, '.') + 1 : t->name;
    for (uint32_t i = 0; i < in->n && ok; i++) { /* in the document's order, for what is told */
        const struct val_member *m = &in->members[i];
        const struct field *f = type_field(t, m->key, m->n);
        if (!f) {
            unknown(d, m);
            continue;
        }
        if (m->v.type == VAL_NULL)
            continue;
        uint32_t mark = path_push(d, m->key, m->n);
        struct val *v = arena_new_of(d->a, struct val);
        ok = is_either(t, f) ? decode_either(d, t, v, &m->v) : decode(d, f->type, v, &m->v);
        path_pop(d, mark);
        slots[f - t->fields] = v;
    }
    for (uint32_t i = 0; i < t->fields_n && ok; i++) {
        const struct field *f = &t->fields[i];
        struct val_member *m = &out->members[out->n];
        uint32_t mark = path_push(d, f->name, f->name_n);
        bool here = slots[i] && !dropped(d, f, slots[i]);
        if (here)
            m->v = *slots[i];
        if (ok && !here)
            here = absent(d, f, &m->v);
        path_pop(d, mark);
        if (!ok || !here)
            continue;
        m->key = f->name;
        m->n = f->name_n;
        out->n++;
    }
    d->owner = owner;
    /* the array has room for val_cap(fields_n), which is at least val_cap(n) */
    return ok;
}

/* A null item of a list or value of a map: the zero value of the element. */
static bool decode_null(struct decoder *d, const struct type *t, struct val *out)
{
    struct field f = {.type = t, .flags = FIELD_KEEP};

    return absent(d, &f, out) || d->err->code == ERR_OK;
}

static bool decode(struct decoder *d, const struct type *t, struct val *out, const struct val *in)
{
    bool ok = true;

    if (in->type == VAL_NULL && t->kind != TYPE_ANY && t->kind != TYPE_RAW)
        return decode_null(d, t, out);
    if (d->depth >= DEPTH_MAX) {
        err_set(d->err, INVALID_ARGUMENT, "exceeded max depth");
        return false;
    }
    d->depth++;
    switch (t->kind) {
    case TYPE_STRING:
        ok = in->type == VAL_STR || wrong_type(d, t, in);
        *out = *in;
        break;
    case TYPE_BOOL:
        ok = in->type == VAL_BOOL || wrong_type(d, t, in);
        *out = *in;
        break;
    case TYPE_INT32:
    case TYPE_INT64:
        ok = decode_int(d, t, out, in);
        break;
    case TYPE_DOUBLE:
        ok = val_is_number(in) || wrong_type(d, t, in);
        *out = in->type == VAL_DOUBLE ? (struct val){.type = VAL_DOUBLE, .dbl = val_num(in)} : *in;
        break;
    case TYPE_BYTES:
        ok = decode_bytes(d, t, out, in);
        break;
    case TYPE_QUANTITY:
        ok = decode_quantity(d, t, out, in);
        break;
    case TYPE_INT_OR_STRING:
        if (in->type == VAL_STR)
            *out = *in;
        else
            ok = decode_int(d, &(struct type){.kind = TYPE_INT32}, out, in);
        break;
    case TYPE_TIME:
    case TYPE_MICRO_TIME:
        ok = decode_time(d, t, out, in);
        break;
    case TYPE_DURATION: {
        char *text = in->type == VAL_STR ? duration_canonical(d->a, in->s) : NULL;
        if (in->type != VAL_STR)
            ok = wrong_type(d, t, in);
        else if (!text)
            ok = err_set(d->err, INVALID_ARGUMENT, "time: invalid duration \"%.60s\"", in->s) == 0;
        else
            set_str(d, out, text);
        break;
    }
    case TYPE_RAW: /* a whole object or nothing */
    case TYPE_ANY:
        *out = *in;
        break;
    case TYPE_LIST:
        ok = decode_list(d, t, out, in);
        break;
    case TYPE_MAP:
        ok = decode_map(d, t, out, in);
        break;
    case TYPE_STRUCT:
        ok = decode_struct(d, t, out, in);
        break;
    default:
        UNREACHABLE();
    }
    d->depth--;
    out->flag = 0;
    return ok;
}

int crd_decode(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
               struct err *err);

static int decode_type(struct decoder *d, const struct type *t, const char *kind, const char *version,
                       struct val *v, struct err *err)
{
    struct val out = {0};
    struct err why = {0};

    d->err = &why;
    if (!decode(d, t, &out, v))
        return err_set(err, INVALID_ARGUMENT, "%s in version \"%s\" cannot be handled as a %s: %s",
                       kind, version, kind, why.msg);
    *v = out;
    return 0;
}

int schema_decode_type(const struct schema *s, const struct type *t, const char *kind,
                       const char *version, struct arena *a, struct val *v, struct texts *strict,
                       struct err *err)
{
    struct decoder d = {.a = a, .strict = strict};

    (void)s;
    return decode_type(&d, t, kind, version, v, err);
}

/* the two that every kind has and no type forces */
static int name_kind(const struct resource *r, struct arena *a, struct val *v)
{
    val_put(a, v, "kind", val_lit(a, r->kind));
    val_put(a, v, "apiVersion", val_lit(a, r->api_version));
    return 0;
}

int schema_decode(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
                  struct err *err)
{
    struct decoder d = {.a = a, .strict = strict};

    if (r->custom)
        return crd_decode(r, a, v, strict, err);
    if (decode_type(&d, r->described, r->kind, r->version, v, err) < 0)
        return -1;
    return name_kind(r, a, v);
}

int schema_decode_given(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
                        bool *ret_empty, struct err *err)
{
    struct decoder d = {.a = a, .strict = strict, .tell_empty = true};

    *ret_empty = false;
    if (r->custom)
        return crd_decode(r, a, v, strict, err);
    if (decode_type(&d, r->described, r->kind, r->version, v, err) < 0)
        return -1;
    *ret_empty = d.empty;
    return name_kind(r, a, v);
}

static void settle(const struct type *t, struct val *v, bool stored)
{
    if (t->kind == TYPE_LIST) {
        VAL_EACH(v, it)
            settle(t->elem, it, stored);
        return;
    }
    if (t->kind == TYPE_MAP)
        VAL_EACH_MEMBER(v, m)
            settle(t->elem, &m->v, stored);
    if (t->kind != TYPE_STRUCT || !val_is(v, VAL_MAP))
        return;
    for (uint32_t i = v->n; i-- > 0;) {
        struct val_member *m = &v->members[i];
        const struct field *f = type_field(t, m->key, m->n);

        if (!f || f->type->kind < TYPE_LIST)
            continue;
        if (m->v.type != VAL_NULL && (f->type->kind == TYPE_STRUCT || m->v.n))
            settle(f->type, &m->v, stored);
        else if (f->flags & FIELD_KEEP)
            m->v = (struct val){.type = VAL_NULL};
        else if (stored && (f->flags & FIELD_GIVEN))
            val_del(v, m->key);
    }
}

void schema_settle(const struct resource *r, struct val *v, bool stored)
{
    if (!r->custom)
        settle(r->described, v, stored);
}
