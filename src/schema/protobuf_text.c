/* schema/protobuf_text.c - the texts of objects as protobuf messages, without a tree between them.
 *
 * The text is walked beside the type: what is a string, a struct, a list or a map goes from one to the other as it is
 * met, all else (times, numbers, inlined messages, ...) by way of the value that it spells, as protobuf.c writes it. Fields
 * are told in ascending order: members mostly come so; where they do not, the struct's fields are put in order
 * when all are written.
 *
 * Objects of a list look like each other: pods of one Deployment differ in a dozen words. So each place of the type
 * (metadata.managedFields[0].fieldsV1, spec.containers[0], ...) remembers the text that stood there last and what was
 * written for it. A value that begins with that text is that text, since no object or list is the beginning of
 * another one, and is not read again. Places that hold something new each time are soon tried less often. */
#include "codec/json_part.h"
#include "codec/json_scan.h"
#include "schema/protobuf_int.h"

enum {
    KIDS_OF_LIST = 8,            /* items further on are not remembered */
    PLACE_TEXT_MIN = 32,         /* less is written as quickly */
    PLACE_TEXT_MAX = 64 << 10,
    PLACES_BYTES_MAX = 512 << 10, /* of all places */
    MISSES_FREE = 4, REST_MAX = 64, /* after so many the place is left alone for 2, 4, 8 ... objects */
};

/* One block holds the text and, behind it, what is written for it. */
struct place {
    char *text;
    uint32_t text_n, out_n, cap;
    uint32_t misses, rest;
    struct place **kids; /* of a struct by field, of a list by item, of a map none */
    uint32_t kids_n;
};

struct protobuf_items {
    const struct type *type;
    bool meta_only;
    struct place *top;
    size_t bytes;
};

struct text {
    struct json_part j;
    struct buf *b;
    const char *as_was, *from; /* the text before it is changed, and where its copy in j begins */
    struct protobuf_items *w;
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

/* ---- places ---- */

static void place_free(struct place *pl)
{
    if (!pl)
        return;
    for (uint32_t i = 0; i < pl->kids_n; i++)
        place_free(pl->kids[i]);
    free(pl->kids);
    free(pl->text);
    free(pl);
}

/* Memory for a place; NULL: there is enough of it already. */
static void *take(struct protobuf_items *w, size_t n)
{
    if (w->bytes + n > PLACES_BYTES_MAX)
        return NULL;
    w->bytes += n;
    return xcalloc(1, n);
}

/* NULL: nothing is remembered there. */
static struct place *place_kid(struct text *x, struct place *pl, uint32_t i, uint32_t of)
{
    if (!pl || i >= of)
        return NULL;
    if (!pl->kids) {
        if (!(pl->kids = take(x->w, of * sizeof *pl->kids)))
            return NULL;
        pl->kids_n = of;
    }
    if (!pl->kids[i])
        pl->kids[i] = take(x->w, sizeof *pl);
    return pl->kids[i];
}

/* The same as the last time: written again. */
static bool again(struct text *x, struct place *pl)
{
    if (!pl->text_n || pl->text_n > (size_t)(x->j.end - x->j.p) || memcmp(x->j.p, pl->text, pl->text_n) != 0)
        return false;
    buf_add(x->b, pl->text + pl->text_n, pl->out_n);
    x->j.p += pl->text_n;
    pl->misses = 0;
    return true;
}

static void remember(struct text *x, struct place *pl, const char *text, size_t n, const char *out, size_t out_n)
{
    size_t need = n + out_n;

    if (n < PLACE_TEXT_MIN || need > PLACE_TEXT_MAX)
        return;
    if (need > pl->cap) {
        if (x->w->bytes - pl->cap + need > PLACES_BYTES_MAX)
            return;
        x->w->bytes += need - pl->cap;
        free(pl->text);
        pl->text = xmalloc(need);
        pl->cap = (uint32_t)need;
    }
    memcpy(pl->text, text, n);
    memcpy(pl->text + n, out, out_n);
    pl->text_n = (uint32_t)n;
    pl->out_n = (uint32_t)out_n;
}

typedef bool write_fn(struct text *x, uint32_t number, const struct type *t, struct place *pl);

/* write() at a place: what is written for an object or a list, tags and all. */
static bool at_place(struct text *x, struct place *pl, write_fn *write, uint32_t number, const struct type *t)
{
    const char *began = x->j.p;
    size_t from = x->b->n;

    if (!pl || (*began != '{' && *began != '['))
        return write(x, number, t, pl);
    if (pl->rest) {
        pl->rest--;
        return write(x, number, t, pl);
    }
    if (again(x, pl))
        return true;
    if (++pl->misses > MISSES_FREE)
        pl->rest = MIN(1u << MIN(pl->misses - MISSES_FREE, 16u), (uint32_t)REST_MAX);
    if (!write(x, number, t, pl))
        return false;
    if (!x->b->over)
        remember(x, pl, x->as_was + (began - x->from), (size_t)(x->j.p - began), x->b->p + from, x->b->n - from);
    return true;
}

/* ---- writing ---- */

static write_fn value;

static bool list(struct text *x, uint32_t number, const struct type *t, struct place *pl)
{
    uint32_t i = 0;

    if (*x->j.p != '[')
        return by_value(x, number, t); /* not reached: normal form has lists */
    if (*++x->j.p == ']') {
        x->j.p++;
        return true;
    }
    for (;; x->j.p++) {
        if (!at_place(x, t->elem->kind == TYPE_STRUCT ? place_kid(x, pl, i++, KIDS_OF_LIST) : NULL, value, number, t->elem))
            return false;
        if (*x->j.p != ',')
            break;
    }
    return *x->j.p++ == ']';
}

static bool map(struct text *x, uint32_t number, const struct type *t, _unused_ struct place *pl)
{
    if (*x->j.p != '{')
        return by_value(x, number, t);
    if (*++x->j.p == '}') {
        x->j.p++;
        return true;
    }
    for (;; x->j.p++) {
        size_t from = message_begin(x->b, number);
        const char *key;
        uint32_t n;

        if (!json_part_string(&x->j, &key, &n) || *x->j.p++ != ':')
            return false;
        put_bytes(x->b, 1, key, n);
        if (!value(x, 2, t->elem, NULL))
            return false;
        message_end(x->b, from);
        if (*x->j.p != ',')
            break;
    }
    return *x->j.p++ == '}';
}

static bool field(struct text *x, const struct field *f, struct place *pl)
{
    write_fn *write = f->type->kind == TYPE_LIST && !(f->flags & FIELD_BOXED) ? list
                      : f->type->kind == TYPE_MAP                             ? map
                                                                              : value;

    return at_place(x, pl, write, f->proto, f->type);
}

/* What nobody wants to know. */
static bool skip(struct text *x)
{
    struct val v = {0};

    return *x->j.p == '{' || *x->j.p == '[' ? json_part_as_text(&x->j, &v) : json_part_value(&x->j, &v);
}

/* Only what may be long has a place. */
static struct place *kid_of(struct text *x, struct place *pl, const struct type *t, const struct field *f)
{
    switch ((enum type_kind)f->type->kind) {
    case TYPE_STRUCT:
    case TYPE_LIST:
    case TYPE_MAP:
    case TYPE_RAW:
    case TYPE_ANY:
        return place_kid(x, pl, (uint32_t)(f - t->fields), t->fields_n);
    default:
        return NULL;
    }
}

static bool members(struct text *x, const struct type *t, struct place *pl)
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
        if (!(f && f->proto ? field(x, f, kid_of(x, pl, t, f)) : skip(x)))
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

static bool value(struct text *x, uint32_t number, const struct type *t, struct place *pl)
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
        if (*x->j.p != '{' || !json_part_as_text(&x->j, &v))
            break;
        from = message_begin(x->b, number);
        put_bytes(x->b, 1, v.s, v.n);
        message_end(x->b, from);
        return true;
    case TYPE_STRUCT:
        if (*x->j.p != '{' || t->has_inlined || protobuf_either(t))
            break;
        from = message_begin(x->b, number);
        ok = members(x, t, pl);
        message_end(x->b, from);
        return ok;
    default:
        break;
    }
    return by_value(x, number, t);
}

/* PartialObjectMetadata {metadata 1} of the object's metadata, wherever it comes; the rest is not looked at. */
static bool partial(struct text *x, const struct type *t, struct place *pl)
{
    const struct field *f = type_field(t, "metadata", 8);
    size_t from = message_begin(x->b, 2);
    bool ok = f && *x->j.p == '{';

    for (const char *key; ok && *x->j.p != '}';) {
        uint32_t n;

        x->j.p++;
        ok = json_part_string(&x->j, &key, &n) && *x->j.p++ == ':';
        if (!ok)
            break;
        if (n == f->name_n && memcmp(key, f->name, n) == 0) {
            ok = field(x, f, kid_of(x, pl, t, f));
            break;
        }
        ok = skip(x) && (*x->j.p == ',' || *x->j.p == '}');
    }
    message_end(x->b, from);
    return ok;
}

struct protobuf_items *protobuf_items_new(const struct schema *s, const char *api_version, const char *kind, bool meta_only,
                                          struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct type *t = meta_only ? schema_type(s, "meta.v1.PartialObjectMetadata") : protobuf_type(s, a, api_version, kind);
    struct protobuf_items *w;

    if (!t) {
        err_set(err, NOT_FOUND, "%s %s has no protobuf form", api_version, kind);
        return NULL;
    }
    w = xcalloc(1, sizeof *w);
    w->type = t;
    w->meta_only = meta_only;
    w->top = xcalloc(1, sizeof *w->top);
    return w;
}

void *protobuf_items_free(struct protobuf_items *w)
{
    if (!w)
        return NULL;
    place_free(w->top);
    free(w);
    return NULL;
}

int protobuf_items_add(struct protobuf_items *w, struct arena *a, struct buf *m, char *text, size_t n, struct err *err)
{
    struct text x = {.b = m, .w = w, .from = text};
    size_t began = m->n;
    bool ok;

    x.as_was = arena_memdup(a, text, n);
    json_part_init(&x.j, a, text, n);
    ok = w->meta_only ? partial(&x, w->type, w->top) : value(&x, 2, w->type, w->top) && x.j.p == x.j.end;
    json_part_done(&x.j);
    if (ok)
        return 0;
    m->n = began;
    return err_set(err, INTERNAL, "an object's text can not be read");
}
