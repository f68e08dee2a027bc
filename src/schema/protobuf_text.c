/* schema/protobuf_text.c - an object's text as a protobuf message, without a tree between them.
 *
 * The text is walked beside the type: what is a string, a struct, a list or a map goes from one to the other as it is
 * met, all else (times, numbers, inlined messages, ...) by way of the value that it spells, as protobuf.c writes it. Fields
 * are told in ascending order: members mostly come so; where they do not, the struct's fields are put in order
 * when all are written. */
#include "codec/json_part.h"
#include "codec/json_scan.h"
#include "schema/protobuf_int.h"

struct text {
    struct json_part j;
    struct buf *b;
};

/* Where the fields of a number begin in the message. */
struct span {
    uint32_t number;
    size_t from;
};

static bool by_value(struct text *x, uint32_t number, const struct type *t)
{
    struct val v = {0};

    if (!json_part_value(&x->j, &v))
        return false;
    protobuf_value(x->b, number, &v, t);
    return true;
}

/* A string without escapes, taken; or nothing. */
static bool plain_string(struct text *x, const char **ret, size_t *ret_n)
{
    char *from = x->j.p + 1, *end;

    if (x->j.p[0] != '"')
        return false;
    end = json_scan_quote(from, x->j.end);
    if (end >= x->j.end || *end != '"')
        return false;
    *ret = from;
    *ret_n = (size_t)(end - from);
    x->j.p = end + 1;
    return true;
}

static void in_order(struct text *x, struct span *v, uint32_t n)
{
    size_t began = v[0].from, all = x->b->n - began, *end;
    char *was;

    if (x->b->over)
        return;
    was = arena_memdup(x->j.a, x->b->p + began, all);
    end = arena_raw(x->j.a, n * sizeof *end);
    for (uint32_t i = 0; i < n; i++)
        end[i] = i + 1 < n ? v[i + 1].from : x->b->n;
    x->b->n = began;
    for (uint32_t done = 0; done < n; done++) { /* few, and nearly in order */
        uint32_t least = UINT32_MAX;

        for (uint32_t i = 0; i < n; i++)
            if (v[i].number && (least == UINT32_MAX || v[i].number < v[least].number))
                least = i;
        buf_add(x->b, was + v[least].from - began, end[least] - v[least].from);
        v[least].number = 0;
    }
}

static bool value(struct text *x, uint32_t number, const struct type *t);

static bool list(struct text *x, const struct field *f)
{
    if (*x->j.p != '[')
        return by_value(x, f->proto, f->type); /* not reached: normal form has lists */
    if (*++x->j.p == ']') {
        x->j.p++;
        return true;
    }
    for (;; x->j.p++) {
        if (!value(x, f->proto, f->type->elem))
            return false;
        if (*x->j.p != ',')
            break;
    }
    return *x->j.p++ == ']';
}

static bool map(struct text *x, const struct field *f)
{
    if (*x->j.p != '{')
        return by_value(x, f->proto, f->type);
    if (*++x->j.p == '}') {
        x->j.p++;
        return true;
    }
    for (;; x->j.p++) {
        size_t from = message_begin(x->b, f->proto);
        const char *key;
        uint32_t n;

        if (!json_part_string(&x->j, &key, &n) || *x->j.p++ != ':')
            return false;
        put_bytes(x->b, 1, key, n);
        if (!value(x, 2, f->type->elem))
            return false;
        message_end(x->b, from);
        if (*x->j.p != ',')
            break;
    }
    return *x->j.p++ == '}';
}

static bool field(struct text *x, const struct field *f)
{
    if (f->type->kind == TYPE_LIST && !(f->flags & FIELD_BOXED))
        return list(x, f);
    if (f->type->kind == TYPE_MAP)
        return map(x, f);
    return value(x, f->proto, f->type);
}

/* What nobody wants to know. */
static bool skip(struct text *x)
{
    struct val v = {0};

    return *x->j.p == '{' ? json_part_map(&x->j, &v) : json_part_value(&x->j, &v);
}

static bool members(struct text *x, const struct type *t)
{
    enum { FEW = 48 };
    struct span few[FEW], *v = few;
    uint32_t n = 0, cap = FEW;
    uint16_t at = 0;
    bool ordered = true;

    if (*++x->j.p == '}') {
        x->j.p++;
        return true;
    }
    for (;; x->j.p++) {
        const struct field *f;
        size_t from = x->b->n;
        const char *key;
        uint32_t key_n;

        if (!json_part_string(&x->j, &key, &key_n) || *x->j.p++ != ':')
            return false;
        f = *x->j.p == 'n' ? NULL : field_next(t, key, key_n, &at); /* null is as good as absent */
        if (!(f && f->proto ? field(x, f) : skip(x)))
            return false;
        if (x->b->n > from) {
            if (n == cap) {
                struct span *more = arena_raw(x->j.a, (cap *= 2) * sizeof *more);

                v = memcpy(more, v, n * sizeof *more);
            }
            ordered &= !n || v[n - 1].number < f->proto;
            v[n++] = (struct span){f->proto, from};
        }
        if (*x->j.p != ',')
            break;
    }
    if (!ordered)
        in_order(x, v, n);
    return *x->j.p++ == '}';
}

static bool value(struct text *x, uint32_t number, const struct type *t)
{
    const char *s;
    size_t n, from;
    struct val v = {0};
    bool ok;

    switch ((enum type_kind)t->kind) {
    case TYPE_STRING:
        if (!plain_string(x, &s, &n))
            break;
        put_bytes(x->b, number, s, n);
        return true;
    case TYPE_QUANTITY:
        if (!plain_string(x, &s, &n))
            break;
        from = message_begin(x->b, number);
        put_bytes(x->b, 1, s, n);
        message_end(x->b, from);
        return true;
    case TYPE_RAW:
    case TYPE_ANY:
        if (*x->j.p != '{' || !json_part_map(&x->j, &v))
            break;
        from = message_begin(x->b, number);
        put_bytes(x->b, 1, v.s, v.n);
        message_end(x->b, from);
        return true;
    case TYPE_STRUCT:
        if (*x->j.p != '{' || t->has_inlined || protobuf_either(t))
            break;
        from = message_begin(x->b, number);
        ok = members(x, t);
        message_end(x->b, from);
        return ok;
    default:
        break;
    }
    return by_value(x, number, t);
}

int protobuf_list_text(const struct schema *s, struct arena *a, struct buf *m, const char *item_api_version,
                       const char *item_kind, char *text, size_t n, struct err *err)
{
    const struct type *t = protobuf_type(s, a, item_api_version, item_kind);
    struct text x = {.b = m};
    size_t began = m->n;
    bool ok;

    if (!t)
        return err_set(err, NOT_FOUND, "%s %s has no protobuf form", item_api_version, item_kind);
    json_part_init(&x.j, a, text, n);
    ok = value(&x, 2, t) && x.j.p == x.j.end;
    json_part_done(&x.j);
    if (ok)
        return 0;
    m->n = began;
    return err_set(err, INTERNAL, "a %s's text can not be read", item_kind);
}
