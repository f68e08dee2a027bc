/* The wire format is protocol buffers' (varints, 64-bit, length-delimited). What differs from a
 * field's plain type: amounts, times, int-or-strings and raw JSON are small messages; a map is a
 * repeated {key 1, value 2}; a list as a map's value is a message {items 1}; fields with an outer
 * number lie in an inlined message of that number. */
#include "schema/protobuf_int.h"

#include "codec/json.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>

enum { DEPTH_MAX = 100, FIELD_NUMBER_MAX = 1 << 29 };
enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct in {
    const uint8_t *p, *end;
};

struct reader {
    struct arena *a;
    struct err *err;
    int depth;
};

/* ---- reading ---- */

static int bad(struct reader *r, const char *why)
{
    return err_set(r->err, INVALID_ARGUMENT, "invalid protobuf: %s", why);
}

static bool take_varint(struct in *in, uint64_t *ret)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64 && in->p < in->end; shift += 7) {
        uint8_t byte = *in->p++;

        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = v;
            return true;
        }
    }
    return false;
}

struct item { /* one field as it lies on the wire */
    uint32_t number;
    enum wire wire;
    uint64_t v;
    struct in bytes;
};

/* 1: an item; 0: the end; -1: err. */
static int take_item(struct reader *r, struct in *in, struct item *it)
{
    uint64_t tag, n;

    if (in->p == in->end)
        return 0;
    if (!take_varint(in, &tag) || !(tag >> 3) || (tag >> 3) > FIELD_NUMBER_MAX)
        return bad(r, "a tag is broken");
    *it = (struct item){.number = (uint32_t)(tag >> 3), .wire = (enum wire)(tag & 7)};
    switch (it->wire) {
    case WIRE_VARINT:
        return take_varint(in, &it->v) ? 1 : bad(r, "a number is broken");
    case WIRE_64:
    case WIRE_32:
        n = it->wire == WIRE_64 ? 8 : 4;
        if ((uint64_t)(in->end - in->p) < n)
            return bad(r, "it ends in a number");
        it->v = 0;
        memcpy(&it->v, in->p, n);
        in->p += n;
        return 1;
    case WIRE_BYTES:
        if (!take_varint(in, &n) || n > (uint64_t)(in->end - in->p))
            return bad(r, "it ends in a field");
        it->bytes = (struct in){in->p, in->p + n};
        in->p += n;
        return 1;
    }
    return bad(r, "an unknown wire type");
}

/* The small message's fields 1..3 by number. */
static int take_small(struct reader *r, struct in in, struct item small[4])
{
    struct item it;
    int rc;

    memset(small, 0, 4 * sizeof *small);
    while ((rc = take_item(r, &in, &it)) > 0)
        if (it.number < 4)
            small[it.number] = it;
    return rc;
}

static struct val text_val(struct arena *a, struct in b)
{
    size_t n = (size_t)(b.end - b.p);

    return (struct val){.type = VAL_STR, .n = (uint32_t)n,
                        .s = arena_strndup(a, b.p ? (const char *)b.p : "", n)};
}

static struct val base64_val(struct arena *a, struct in b)
{
    size_t n = (size_t)(b.end - b.p);
    char *out = arena_raw(a, (n + 2) / 3 * 4 + 1);
    int got = EVP_EncodeBlock((unsigned char *)out, b.p, (int)n);

    return (struct val){.type = VAL_STR, .n = (uint32_t)got, .s = out};
}

/* Nanoseconds as Go prints a duration. */
static struct val duration_val(struct arena *a, int64_t ns)
{
    uint64_t u = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns, s = u / 1000000000, rest = u % 1000000000;
    const char *sign = ns < 0 ? "-" : "";
    char tail[16] = "";

    if (rest) {
        snprintf(tail, sizeof tail, ".%09" PRIu64, rest);
        for (char *p = tail + strlen(tail) - 1; *p == '0'; p--)
            *p = 0;
    }
    if (s >= 3600)
        return *val_printf(a, "%s%" PRIu64 "h%" PRIu64 "m%" PRIu64 "%ss", sign, s / 3600,
                           s / 60 % 60, s % 60, tail);
    if (s >= 60)
        return *val_printf(a, "%s%" PRIu64 "m%" PRIu64 "%ss", sign, s / 60, s % 60, tail);
    return *val_printf(a, "%s%" PRIu64 "%ss", sign, s, tail);
}

static int read_struct(struct reader *r, struct in in, const struct type *t, uint16_t outer,
                       struct val *to);

/* A field that lies in inlined messages, seen from inside `outer`: the number of the next message
 * on the way to it; 0: it is not below outer, or directly in it. */
static uint32_t inlined(const struct field *f, uint16_t outer)
{
    if (!outer)
        return f->proto_outer & 0xff;
    return outer < 256 && (f->proto_outer & 0xff) == outer ? f->proto_outer >> 8 : 0;
}
static uint16_t deeper(uint16_t outer, uint32_t number)
{
    return (uint16_t)(outer ? outer | number << 8 : number);
}

/* Raw JSON in a message {raw 1}. Some clients put an enveloped object in its place. */
static int read_raw(struct reader *r, struct in in, struct val *to)
{
    struct item small[4];
    struct val *v;
    size_t n;

    if (take_small(r, in, small) < 0)
        return -1;
    n = (size_t)(small[1].bytes.end - small[1].bytes.p);
    if (!n) {
        to->type = VAL_NULL;
        return 0;
    }
    v = json_parse(r->a, (const char *)small[1].bytes.p, n, r->err);
    if (!v)
        return err_wrap(r->err, "raw JSON in protobuf");
    *to = *v;
    return 0;
}

static int read_time(struct reader *r, const struct item *it, bool micro, struct val *to)
{
    struct item small[4];
    int64_t seconds;

    if (take_small(r, it->bytes, small) < 0)
        return -1;
    if (it->bytes.p == it->bytes.end) { /* the zero time is an empty message, null in JSON */
        to->type = VAL_NULL;
        return 0;
    }
    seconds = (int64_t)small[1].v;
    if (seconds < -62135596800 || seconds > 253402300799 || small[2].v > 999999999)
        return bad(r, "a time outside the years 1 to 9999");
    *to = *val_lit(r->a, time_text(r->a, seconds * 1000000 + (int64_t)small[2].v / 1000, micro));
    return 0;
}

/* Schemas of custom resources: what in JSON is "a schema or a list / a bool / names". */
enum either { EITHER_NONE, EITHER_LIST, EITHER_BOOL, EITHER_NAMES };
bool protobuf_either(const struct type *t)
{
    return t->name && streq(t->name, "apiextensions.v1.JSONSchemaProps");
}

static enum either either_of(const struct type *owner, const struct field *f)
{
    if (!protobuf_either(owner))
        return EITHER_NONE;
    if (streq(f->name, "items"))
        return EITHER_LIST;
    if (streq(f->name, "additionalProperties") || streq(f->name, "additionalItems"))
        return EITHER_BOOL;
    return streq(f->name, "dependencies") ? EITHER_NAMES : EITHER_NONE;
}

static int read_either(struct reader *r, struct in in, const struct type *schema, enum either e,
                       struct val *to)
{
    uint32_t schema_number = e == EITHER_BOOL ? 2 : 1, other = e == EITHER_BOOL ? 1 : 2;
    bool have = false;
    struct item it;
    int rc;

    *to = (struct val){.type = e == EITHER_BOOL ? VAL_BOOL : VAL_LIST};
    while ((rc = take_item(r, &in, &it)) > 0) {
        struct val v = {0};

        if (it.number == schema_number && it.wire == WIRE_BYTES) {
            if (read_struct(r, it.bytes, schema, 0, &v) < 0)
                return -1;
            *to = v;
            have = true;
        } else if (it.number == other && !have && e == EITHER_BOOL) {
            to->b = it.v != 0;
        } else if (it.number == other && !have) {
            if (e == EITHER_NAMES)
                v = text_val(r->a, it.bytes);
            else if (read_struct(r, it.bytes, schema, 0, &v) < 0)
                return -1;
            val_push(r->a, to, &v);
        }
    }
    return rc;
}

/* One value of type t. Lists and maps are put together by read_struct. */
static int read_value(struct reader *r, const struct item *it, const struct type *t, struct val *to)
{
    struct item small[4];
    bool bytes = it->wire == WIRE_BYTES;

    *to = (struct val){0};
    switch ((enum type_kind)t->kind) {
    case TYPE_BOOL:
    case TYPE_INT32:
    case TYPE_INT64:
        if (it->wire != WIRE_VARINT)
            return bad(r, "a number has another wire type");
        *to = t->kind == TYPE_BOOL ? (struct val){.type = VAL_BOOL, .b = it->v != 0}
                                   : (struct val){.type = VAL_INT, .i = (int64_t)it->v};
        return 0;
    case TYPE_DOUBLE:
        if (it->wire != WIRE_64)
            return bad(r, "a number has another wire type");
        to->type = VAL_DOUBLE;
        memcpy(&to->dbl, &it->v, sizeof to->dbl);
        return 0;
    default:
        break;
    }
    if (!bytes)
        return bad(r, "a field has another wire type");
    switch ((enum type_kind)t->kind) {
    case TYPE_STRING:
        *to = text_val(r->a, it->bytes);
        return 0;
    case TYPE_BYTES:
        *to = base64_val(r->a, it->bytes);
        return 0;
    case TYPE_QUANTITY:
        if (take_small(r, it->bytes, small) < 0)
            return -1;
        *to = text_val(r->a, small[1].bytes);
        return 0;
    case TYPE_INT_OR_STRING:
        if (take_small(r, it->bytes, small) < 0)
            return -1;
        *to = small[1].v ? text_val(r->a, small[3].bytes)
                         : (struct val){.type = VAL_INT, .i = (int32_t)small[2].v};
        return 0;
    case TYPE_TIME:
    case TYPE_MICRO_TIME:
        return read_time(r, it, t->kind == TYPE_MICRO_TIME, to);
    case TYPE_DURATION:
        if (take_small(r, it->bytes, small) < 0)
            return -1;
        *to = duration_val(r->a, (int64_t)small[1].v);
        return 0;
    case TYPE_RAW:
    case TYPE_ANY:
        return read_raw(r, it->bytes, to);
    case TYPE_STRUCT:
        return read_struct(r, it->bytes, t, 0, to);
    case TYPE_LIST: { /* as a map's value, or boxed: {items 1} */
        struct in in = it->bytes;
        struct item one;
        int rc;

        to->type = VAL_LIST;
        while ((rc = take_item(r, &in, &one)) > 0) {
            struct val v;

            if (one.number == 1 && read_value(r, &one, t->elem, &v) == 0)
                val_push(r->a, to, &v);
        }
        return rc;
    }
    default:
        return bad(r, "a field of a type that has no protobuf form");
    }
}

static int read_map_entry(struct reader *r, const struct type *owner, const struct field *f,
                          struct in in, struct val *map)
{
    struct item it, value = {.wire = WIRE_BYTES};
    struct val v = {0}, key = {.type = VAL_STR, .s = ""};
    bool have = false;
    int rc;

    while ((rc = take_item(r, &in, &it)) > 0) {
        if (it.number == 1 && it.wire == WIRE_BYTES)
            key = text_val(r->a, it.bytes);
        else if (it.number == 2) {
            value = it;
            have = true;
        }
    }
    if (rc < 0)
        return -1;
    if (either_of(owner, f) == EITHER_NAMES)
        rc = read_either(r, value.bytes, owner, EITHER_NAMES, &v);
    else if (have)
        rc = read_value(r, &value, f->type->elem, &v);
    else if (f->type->elem->kind == TYPE_STRING || f->type->elem->kind == TYPE_BYTES)
        v = (struct val){.type = VAL_STR, .s = ""};
    if (rc < 0)
        return -1;
    val_putn(r->a, map, key.s, key.n, &v);
    return 0;
}

static int read_field(struct reader *r, const struct type *t, const struct field *f,
                      const struct item *it, struct val *to)
{
    enum either e = either_of(t, f);
    struct in in = it->bytes;
    struct val v = {0}, *list;

    if (f->type->kind == TYPE_MAP) {
        if (it->wire != WIRE_BYTES)
            return bad(r, "a map has another wire type");
        return read_map_entry(r, t, f, in, val_need_map(r->a, to, f->name));
    }
    if (f->type->kind != TYPE_LIST || (f->flags & FIELD_BOXED)) {
        if (e != EITHER_NONE ? read_either(r, in, t, e, &v) < 0 : read_value(r, it, f->type, &v) < 0)
            return -1;
        val_put(r->a, to, f->name, &v);
        return 0;
    }
    list = val_need_list(r->a, to, f->name);
    if (it->wire == WIRE_BYTES && (f->type->elem->kind == TYPE_INT32 || f->type->elem->kind == TYPE_INT64)) {
        uint64_t n;

        while (in.p < in.end) { /* packed numbers */
            if (!take_varint(&in, &n))
                return bad(r, "packed numbers are broken");
            val_push(r->a, list, &(struct val){.type = VAL_INT, .i = (int64_t)n});
        }
        return 0;
    }
    if (read_value(r, it, f->type->elem, &v) < 0)
        return -1;
    val_push(r->a, val_need_list(r->a, to, f->name), &v);
    return 0;
}

/* The fields of t that lie in the inlined message `outer` (0: those of t itself). */
static int read_struct(struct reader *r, struct in in, const struct type *t, uint16_t outer,
                       struct val *to)
{
    struct item it;
    int rc;

    if (++r->depth > DEPTH_MAX)
        return bad(r, "it is nested too deep");
    to->type = VAL_MAP;
    while ((rc = take_item(r, &in, &it)) > 0) {
        const struct field *f = NULL;

        for (uint16_t i = 0; i < t->fields_n && !f; i++) {
            const struct field *at = &t->fields[i];

            if (inlined(at, outer) == it.number) {
                if (it.wire != WIRE_BYTES)
                    return bad(r, "an inlined message has another wire type");
                if (read_struct(r, it.bytes, t, deeper(outer, it.number), to) < 0)
                    return -1;
                break;
            }
            if (at->proto == it.number && at->proto_outer == outer)
                f = at;
        }
        if (f && read_field(r, t, f, &it, to) < 0)
            return err_wrap(r->err, "%s", f->name);
    }
    r->depth--;
    return rc;
}

/* ---- kinds ---- */

/* "rbac.authorization.k8s.io/v1", "Role" -> "rbac.v1.Role", as the types are named. */
const struct type *protobuf_type(const struct schema *s, struct arena *a, const char *api_version, const char *kind)
{
    const char *slash = strchr(api_version, '/'), *version = slash ? slash + 1 : api_version;
    const struct resource *res = schema_kind_of(s, api_version, kind);
    const struct type *t = NULL;

    if (res)
        return res->custom ? NULL : res->described;
    if (slash)
        t = schema_type(s, arena_printf(a, "%.*s.%s.%s", (int)strcspn(api_version, "./"),
                                        api_version, version, kind));
    else
        t = schema_type(s, arena_printf(a, "core.%s.%s", version, kind));
    return t ? t : schema_type(s, arena_printf(a, "meta.v1.%s", kind));
}

bool protobuf_is(const char *p, size_t n)
{
    return n >= 4 && memcmp(p, "k8s\0", 4) == 0;
}

struct val *protobuf_read(const struct schema *s, struct arena *a, const char *p, size_t n,
                          struct err *err)
{
    struct reader r = {.a = a, .err = err};
    struct item unknown[5] = {0}, it, meta[4];
    struct in in = {(const uint8_t *)p + 4, (const uint8_t *)p + n};
    const char *api_version, *kind;
    struct val *v = val_map(a);
    const struct type *t;
    int rc;

    if (!protobuf_is(p, n)) {
        err_set(err, INVALID_ARGUMENT,
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
        return NULL;
    }
    while ((rc = take_item(&r, &in, &it)) > 0)
        if (it.number < ARRAY_LEN(unknown) && it.wire == WIRE_BYTES)
            unknown[it.number] = it;
    if (rc < 0 || take_small(&r, unknown[1].bytes, meta) < 0)
        return NULL;
    api_version = text_val(a, meta[1].bytes).s;
    kind = text_val(a, meta[2].bytes).s;
    t = protobuf_type(s, a, api_version, kind);
    if (!t) {
        err_set(err, INVALID_ARGUMENT, "no kind \"%s\" is registered for version \"%s\"", kind, api_version);
        return NULL;
    }
    val_put_str(a, v, "kind", kind);
    val_put_str(a, v, "apiVersion", api_version);
    return read_struct(&r, unknown[2].bytes, t, 0, v) < 0 ? NULL : v;
}

/* ---- writing ---- */

enum { VARINT_MAX = 10 };

static char *varint_to(char *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (char)(v | 0x80);
    *p++ = (char)v;
    return p;
}

static void put_varint(struct buf *b, uint64_t v)
{
    if (!buf_reserve(b, VARINT_MAX))
        return;
    b->n = (size_t)(varint_to(b->p + b->n, v) - b->p);
}

static void put_tag(struct buf *b, uint32_t number, enum wire w)
{
    put_varint(b, (uint64_t)number << 3 | (uint64_t)w);
}

void put_bytes(struct buf *b, uint32_t number, const char *p, size_t n)
{
    char *to;

    if (!buf_reserve(b, 2 * VARINT_MAX + n))
        return;
    to = varint_to(b->p + b->n, (uint64_t)number << 3 | WIRE_BYTES);
    to = varint_to(to, n);
    if (n)
        memcpy(to, p, n);
    b->n = (size_t)(to - b->p) + n;
}

size_t message_begin(struct buf *b, uint32_t number)
{
    put_tag(b, number, WIRE_BYTES);
    buf_addc(b, 0);
    return b->n;
}

void message_end(struct buf *b, size_t from)
{
    char length[VARINT_MAX];
    size_t n = b->n - from, more;

    if (b->over)
        return;
    more = (size_t)(varint_to(length, n) - length) - 1;
    if (more) {
        if (!buf_reserve(b, more))
            return;
        memmove(b->p + from + more, b->p + from, n);
        b->n += more;
    }
    memcpy(b->p + from - 1, length, more + 1);
}

static void put_number(struct buf *b, uint32_t number, uint64_t v)
{
    put_tag(b, number, WIRE_VARINT);
    put_varint(b, v);
}

static void write_struct(struct buf *b, const struct val *v, const struct type *t, uint16_t outer);

/* The small messages: what lies in them, without their own tag. */
static void write_small(struct buf *m, const struct val *v, const struct type *t)
{
    int64_t us = 0, ns = 0;

    switch ((enum type_kind)t->kind) {
    case TYPE_QUANTITY:
        if (v->type == VAL_STR)
            put_bytes(m, 1, v->s, v->n);
        else
            json_write(m, v); /* not reached: normal form has text */
        break;
    case TYPE_INT_OR_STRING:
        put_number(m, 1, v->type == VAL_STR);
        put_number(m, 2, v->type == VAL_INT ? (uint64_t)v->i : 0);
        put_bytes(m, 3, v->type == VAL_STR ? v->s : "", v->type == VAL_STR ? v->n : 0);
        break;
    case TYPE_TIME:
    case TYPE_MICRO_TIME:
        if (v->type == VAL_STR && time_parse(v->s, &us)) {
            int64_t seconds = us / 1000000 - (us % 1000000 < 0);

            put_number(m, 1, (uint64_t)seconds);
            put_number(m, 2, (uint64_t)(us - seconds * 1000000) * 1000);
        }
        break;
    case TYPE_DURATION:
        if (v->type == VAL_STR && duration_parse(v->s, &ns))
            put_number(m, 1, (uint64_t)ns);
        break;
    default: { /* raw JSON */
        size_t from = message_begin(m, 1);

        json_write(m, v);
        message_end(m, from);
    }
    }
}

static void write_base64(struct buf *b, uint32_t number, const struct val *v)
{
    unsigned char *out = xmalloc(v->n / 4 * 3 + 4);
    int n = EVP_DecodeBlock(out, (const unsigned char *)v->s, (int)v->n);

    for (uint32_t i = v->n; n > 0 && i && v->s[i - 1] == '='; i--)
        n--;
    put_bytes(b, number, (const char *)out, n > 0 ? (size_t)n : 0);
    free(out);
}

void protobuf_value(struct buf *b, uint32_t number, const struct val *v, const struct type *t)
{
    size_t from;
    uint64_t bits;
    double d;

    switch ((enum type_kind)t->kind) {
    case TYPE_BOOL:
        put_number(b, number, val_is(v, VAL_BOOL) && v->b);
        return;
    case TYPE_INT32:
    case TYPE_INT64:
        put_number(b, number, (uint64_t)val_int_at(v, "", 0));
        return;
    case TYPE_DOUBLE:
        d = val_num_at(v, "", 0);
        memcpy(&bits, &d, sizeof bits);
        put_tag(b, number, WIRE_64);
        buf_add(b, &bits, sizeof bits);
        return;
    case TYPE_STRING:
        if (v->type == VAL_STR)
            put_bytes(b, number, v->s, v->n);
        return;
    case TYPE_BYTES:
        if (v->type == VAL_STR)
            write_base64(b, number, v);
        return;
    case TYPE_MAP:
        return; /* maps of maps have no protobuf form */
    default:
        break;
    }
    from = message_begin(b, number);
    if (t->kind == TYPE_STRUCT)
        write_struct(b, v, t, 0);
    else if (t->kind != TYPE_LIST)
        write_small(b, v, t);
    else /* as a map's value, or boxed */
        VAL_EACH(v, it)
            protobuf_value(b, 1, it, t->elem);
    message_end(b, from);
}

static void write_either(struct buf *b, uint32_t number, const struct val *v, const struct type *schema,
                         enum either e)
{
    size_t from = message_begin(b, number);

    if (e == EITHER_BOOL)
        put_number(b, 1, v->type == VAL_BOOL ? v->b : 1);
    if (v->type == VAL_MAP)
        protobuf_value(b, e == EITHER_BOOL ? 2 : 1, v, schema);
    VAL_EACH(v, it)
        if (e == EITHER_NAMES)
            put_bytes(b, 2, val_text(it, ""), it->n);
        else
            protobuf_value(b, 2, it, schema);
    message_end(b, from);
}

static void write_field(struct buf *b, const struct type *owner, const struct field *f, const struct val *v,
                        enum either e)
{
    if (f->type->kind == TYPE_LIST && !(f->flags & FIELD_BOXED)) {
        VAL_EACH(v, it)
            protobuf_value(b, f->proto, it, f->type->elem);
    } else if (f->type->kind == TYPE_MAP) {
        VAL_EACH_MEMBER(v, m)
        {
            size_t from = message_begin(b, f->proto);

            put_bytes(b, 1, m->key, m->n);
            if (e == EITHER_NAMES)
                write_either(b, 2, &m->v, owner, e);
            else
                protobuf_value(b, 2, &m->v, f->type->elem);
            message_end(b, from);
        }
    } else if (e != EITHER_NONE) {
        write_either(b, f->proto, v, owner, e);
    } else {
        protobuf_value(b, f->proto, v, f->type);
    }
}

/* What there is to write at one level: a field with its value, or (v NULL) an inlined message. */
struct slot {
    uint32_t number;
    const struct field *f;
    const struct val *v;
};

/* Keeps them sorted by number; most come in that order. */
static void slot_put(struct slot *slots, uint32_t *n, struct slot s)
{
    uint32_t at = *n;

    while (at && slots[at - 1].number > s.number)
        at--;
    if (at && slots[at - 1].number == s.number)
        return; /* another field of the same inlined message */
    memmove(&slots[at + 1], &slots[at], (*n - at) * sizeof *slots);
    slots[at] = s;
    ++*n;
}

const struct field *field_next(const struct type *t, const char *name, uint32_t n, uint16_t *at)
{
    for (uint16_t i = *at, left = t->fields_n; left; left--, i++) {
        const struct field *f;

        if (i >= t->fields_n)
            i = 0;
        f = &t->fields[i];
        if (f->name_n == n && memcmp(f->name, name, n) == 0) {
            *at = (uint16_t)(i + 1);
            return f;
        }
    }
    return NULL;
}

/* Absent fields are left out, inlined messages are not. The caller's array has room for all members and fields. */
static uint32_t slots_of(struct slot *slots, const struct val *v, const struct type *t, uint16_t outer)
{
    uint32_t n = 0, number;
    uint16_t at = 0;

    VAL_EACH_MEMBER(v, m) {
        const struct field *f = val_is_null(&m->v) ? NULL : field_next(t, m->key, m->n, &at);

        if (f && f->proto && f->proto_outer == outer)
            slot_put(slots, &n, (struct slot){.number = f->proto, .f = f, .v = &m->v});
    }
    for (uint16_t i = 0; t->has_inlined && i < t->fields_n; i++)
        if (t->fields[i].proto_outer != outer && (number = inlined(&t->fields[i], outer)))
            slot_put(slots, &n, (struct slot){.number = number, .f = &t->fields[i]});
    return n;
}

static void write_struct(struct buf *b, const struct val *v, const struct type *t, uint16_t outer)
{
    enum { FEW = 64 };
    struct slot few[FEW + 1];
    uint32_t most = v->n + (t->has_inlined ? t->fields_n : 0), n;
    _auto_(freep) struct slot *many = most > FEW ? xmalloc((most + 1) * sizeof *many) : NULL;
    struct slot *slots = many ? many : few;
    bool either = protobuf_either(t);

    if (v->type != VAL_MAP)
        return;
    n = slots_of(slots, v, t, outer);
    for (uint32_t i = 0; i < n; i++) {
        size_t from;

        if (slots[i].v) {
            write_field(b, t, slots[i].f, slots[i].v, either ? either_of(t, slots[i].f) : EITHER_NONE);
            continue;
        }
        from = message_begin(b, slots[i].number);
        write_struct(b, v, t, deeper(outer, slots[i].number));
        message_end(b, from);
    }
}

/* A list has no type of its own when only its items are described. */
static int write_list(const struct schema *s, struct arena *a, struct buf *m, const char *api_version,
                      const char *kind, const struct val *v, struct err *err)
{
    const struct type *meta = schema_type(s, "meta.v1.ListMeta"), *item = NULL;
    size_t n = strlen(kind);

    if (n > 4 && str_ends(kind, "List"))
        item = protobuf_type(s, a, api_version, arena_strndup(a, kind, n - 4));
    if (!item || !meta)
        return err_set(err, NOT_FOUND, "%s %s has no protobuf form", api_version, kind);
    if (val_get(v, "metadata"))
        protobuf_value(m, 1, val_get(v, "metadata"), meta);
    VAL_EACH(val_get(v, "items"), it)
        protobuf_value(m, 2, it, item);
    return 0;
}

/* The mark of the encoding, and what is in it. */
static void put_head(struct buf *b, const char *api_version, const char *kind)
{
    size_t from;

    buf_add(b, "k8s\0", 4);
    from = message_begin(b, 1);
    put_bytes(b, 1, api_version, strlen(api_version));
    put_bytes(b, 2, kind, strlen(kind));
    message_end(b, from);
}

int protobuf_write(const struct schema *s, struct buf *b, const struct val *v, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *api_version = val_str_at(v, "apiVersion", ""), *kind = val_str_at(v, "kind", "");
    const struct type *t = protobuf_type(s, a, api_version, kind);
    size_t began = b->n, from;

    put_head(b, api_version, kind);
    from = message_begin(b, 2);
    if (t) {
        write_struct(b, v, t, 0);
    } else if (write_list(s, a, b, api_version, kind, v, err) < 0) {
        b->n = began;
        return -1;
    }
    message_end(b, from);
    put_bytes(b, 3, "", 0);
    put_bytes(b, 4, "", 0);
    return 0;
}

int protobuf_list_begin(const struct schema *s, struct buf *m, const struct val *metadata,
                        struct err *err)
{
    const struct type *meta = schema_type(s, "meta.v1.ListMeta");

    if (!meta)
        return err_set(err, NOT_FOUND, "lists have no protobuf form");
    protobuf_value(m, 1, metadata, meta);
    return 0;
}

int protobuf_list_item(const struct schema *s, struct arena *a, struct buf *m, const char *item_api_version,
                       const char *item_kind, const struct val *v, struct err *err)
{
    const struct type *t = protobuf_type(s, a, item_api_version, item_kind);

    if (!t)
        return err_set(err, NOT_FOUND, "%s %s has no protobuf form", item_api_version, item_kind);
    protobuf_value(m, 2, v, t);
    return 0;
}

void protobuf_list_head(struct buf *b, const char *api_version, const char *kind, size_t n)
{
    put_head(b, api_version, kind);
    put_tag(b, 2, WIRE_BYTES);
    put_varint(b, n);
}

void protobuf_list_tail(struct buf *b)
{
    put_bytes(b, 3, "", 0);
    put_bytes(b, 4, "", 0);
}
