/* schema/openapi_pb.c - OpenAPI documents in the protobuf form that client-go asks for.
 *
 * The messages are gnostic's (openapiv2/OpenAPIv2.proto, openapiv3/OpenAPIv3.proto): each JSON
 * member is a numbered field, an object with free keys is a list of {name 1, value 2}, what has no
 * field of its own (x-kubernetes-...) is a list of named YAML texts, and a choice (parameter or
 * reference) is a message around the one that was chosen. The tables below say which member is
 * what; the writer walks document and table together. Members that no table knows are left out.
 *
 * Only what our documents can hold is listed, so the tables are shorter than gnostic's. */
#include "schema/publish.h"
#include "schema/schema_int.h"

#include "codec/json.h"

#include <stdio.h>

enum gtype {
    G_TEXT,      /* string */
    G_BOOL,
    G_INT,
    G_DOUBLE,
    G_TEXTS,     /* repeated string */
    G_ANY,       /* Any {yaml 2} */
    G_ANYS,
    G_MSG,
    G_MSGS,      /* repeated message */
    G_NAMED,     /* message {additional_properties 1: repeated {name 1, value 2}} */
    G_TYPE,      /* TypeItem {value 1}: v2's type is a name or several */
    G_DEFAULT,   /* DefaultType {number 1, boolean 2, string 3} */
    G_ITEMS,     /* ItemsItem {1: repeated message} */
};

enum wrap { W_NONE, W_REF, W_ADDITIONAL, W_PARAMETER_2, W_SCHEMA };

struct gmsg;
struct gfield {
    const char *key;
    uint8_t number, type;
    const struct gmsg *of;
};
struct gmsg {
    enum wrap wrap;           /* what lies around the message */
    uint8_t rest;             /* number of x-... members; 0: none */
    uint8_t named;            /* number of all other members, as {name 1, value 2}; 0: none */
    const struct gmsg *named_of;
    const struct gfield *fields; /* ends with key NULL */
};

#define MSG(name) static const struct gmsg name
#define FIELDS(...) (const struct gfield[]) { __VA_ARGS__, {0} }
#define NUMBERS(a, b, c, d, e, f, g, h, i, j)                                                      \
    {"multipleOf", a, G_DOUBLE, NULL}, {"maximum", b, G_DOUBLE, NULL},                             \
    {"exclusiveMaximum", c, G_BOOL, NULL}, {"minimum", d, G_DOUBLE, NULL},                         \
    {"exclusiveMinimum", e, G_BOOL, NULL}, {"maxLength", f, G_INT, NULL},                          \
    {"minLength", g, G_INT, NULL}, {"pattern", h, G_TEXT, NULL}, {"maxItems", i, G_INT, NULL},     \
    {"minItems", j, G_INT, NULL}

MSG(info) = {W_NONE, 0, 0, NULL, FIELDS({"title", 1, G_TEXT, NULL}, {"version", 2, G_TEXT, NULL},
                                        {"description", 3, G_TEXT, NULL})};
MSG(docs) = {W_NONE, 3, 0, NULL, FIELDS({"description", 1, G_TEXT, NULL}, {"url", 2, G_TEXT, NULL})};

/* ---- v2 ---- */
MSG(schema2);
MSG(additional2) = {W_ADDITIONAL, 0, 0, &schema2, NULL};
MSG(schema2) = {W_NONE, 31, 0, NULL, FIELDS(
    {"$ref", 1, G_TEXT, NULL}, {"format", 2, G_TEXT, NULL}, {"title", 3, G_TEXT, NULL},
    {"description", 4, G_TEXT, NULL}, {"default", 5, G_ANY, NULL},
    NUMBERS(6, 7, 8, 9, 10, 11, 12, 13, 14, 15), {"uniqueItems", 16, G_BOOL, NULL},
    {"maxProperties", 17, G_INT, NULL}, {"minProperties", 18, G_INT, NULL},
    {"required", 19, G_TEXTS, NULL}, {"enum", 20, G_ANYS, NULL},
    {"additionalProperties", 21, G_MSG, &additional2}, {"type", 22, G_TYPE, NULL},
    {"items", 23, G_ITEMS, &schema2}, {"allOf", 24, G_MSGS, &schema2},
    {"properties", 25, G_NAMED, &schema2}, {"discriminator", 26, G_TEXT, NULL},
    {"readOnly", 27, G_BOOL, NULL}, {"externalDocs", 29, G_MSG, &docs},
    {"example", 30, G_ANY, NULL})};
MSG(body_schema2) = {W_SCHEMA, 0, 0, &schema2, NULL};
MSG(body2) = {W_NONE, 6, 0, NULL, FIELDS(
    {"description", 1, G_TEXT, NULL}, {"name", 2, G_TEXT, NULL}, {"in", 3, G_TEXT, NULL},
    {"required", 4, G_BOOL, NULL}, {"schema", 5, G_MSG, &schema2})};
/* parameters of the path and of headers; those of the query have one field more in between */
MSG(path_parameter2) = {W_NONE, 22, 0, NULL, FIELDS(
    {"required", 1, G_BOOL, NULL}, {"in", 2, G_TEXT, NULL}, {"description", 3, G_TEXT, NULL},
    {"name", 4, G_TEXT, NULL}, {"type", 5, G_TEXT, NULL}, {"format", 6, G_TEXT, NULL},
    {"uniqueItems", 19, G_BOOL, NULL}, {"enum", 20, G_ANYS, NULL})};
MSG(query_parameter2) = {W_NONE, 23, 0, NULL, FIELDS(
    {"required", 1, G_BOOL, NULL}, {"in", 2, G_TEXT, NULL}, {"description", 3, G_TEXT, NULL},
    {"name", 4, G_TEXT, NULL}, {"allowEmptyValue", 5, G_BOOL, NULL}, {"type", 6, G_TEXT, NULL},
    {"format", 7, G_TEXT, NULL}, {"uniqueItems", 20, G_BOOL, NULL}, {"enum", 21, G_ANYS, NULL})};
MSG(parameter2) = {W_PARAMETER_2, 0, 0, NULL, NULL};
MSG(reference) = {W_NONE, 0, 0, NULL, FIELDS({"$ref", 1, G_TEXT, NULL},
                                             {"description", 2, G_TEXT, NULL})};
MSG(response2) = {W_REF, 5, 0, NULL, FIELDS({"description", 1, G_TEXT, NULL},
                                            {"schema", 2, G_MSG, &body_schema2})};
MSG(responses2) = {W_NONE, 2, 1, &response2, NULL};
MSG(operation2) = {W_NONE, 13, 0, NULL, FIELDS(
    {"tags", 1, G_TEXTS, NULL}, {"summary", 2, G_TEXT, NULL}, {"description", 3, G_TEXT, NULL},
    {"externalDocs", 4, G_MSG, &docs}, {"operationId", 5, G_TEXT, NULL},
    {"produces", 6, G_TEXTS, NULL}, {"consumes", 7, G_TEXTS, NULL},
    {"parameters", 8, G_MSGS, &parameter2}, {"responses", 9, G_MSG, &responses2},
    {"schemes", 10, G_TEXTS, NULL}, {"deprecated", 11, G_BOOL, NULL})};
MSG(path2) = {W_NONE, 10, 0, NULL, FIELDS(
    {"get", 2, G_MSG, &operation2}, {"put", 3, G_MSG, &operation2},
    {"post", 4, G_MSG, &operation2}, {"delete", 5, G_MSG, &operation2},
    {"options", 6, G_MSG, &operation2}, {"head", 7, G_MSG, &operation2},
    {"patch", 8, G_MSG, &operation2}, {"parameters", 9, G_MSGS, &parameter2})};
MSG(paths2) = {W_NONE, 1, 2, &path2, NULL};
MSG(document2) = {W_NONE, 16, 0, NULL, FIELDS(
    {"swagger", 1, G_TEXT, NULL}, {"info", 2, G_MSG, &info}, {"host", 3, G_TEXT, NULL},
    {"basePath", 4, G_TEXT, NULL}, {"consumes", 6, G_TEXTS, NULL}, {"produces", 7, G_TEXTS, NULL},
    {"paths", 8, G_MSG, &paths2}, {"definitions", 9, G_NAMED, &schema2})};

/* ---- v3 ---- */
MSG(info3) = {W_NONE, 0, 0, NULL, FIELDS({"title", 1, G_TEXT, NULL}, {"description", 2, G_TEXT, NULL},
                                         {"version", 6, G_TEXT, NULL})};
MSG(schema3);
MSG(plain_schema3); /* without the choice of a reference around it */
MSG(additional3) = {W_ADDITIONAL, 0, 0, &schema3, NULL};
#define SCHEMA3_FIELDS FIELDS(                                                                     \
    {"nullable", 1, G_BOOL, NULL}, {"readOnly", 3, G_BOOL, NULL}, {"writeOnly", 4, G_BOOL, NULL},  \
    {"externalDocs", 6, G_MSG, &docs}, {"example", 7, G_ANY, NULL},                                \
    {"deprecated", 8, G_BOOL, NULL}, {"title", 9, G_TEXT, NULL},                                   \
    NUMBERS(10, 11, 12, 13, 14, 15, 16, 17, 18, 19), {"uniqueItems", 20, G_BOOL, NULL},            \
    {"maxProperties", 21, G_INT, NULL}, {"minProperties", 22, G_INT, NULL},                        \
    {"required", 23, G_TEXTS, NULL}, {"enum", 24, G_ANYS, NULL}, {"type", 25, G_TEXT, NULL},       \
    {"allOf", 26, G_MSGS, &schema3}, {"oneOf", 27, G_MSGS, &schema3},                              \
    {"anyOf", 28, G_MSGS, &schema3}, {"not", 29, G_MSG, &plain_schema3},                           \
    {"items", 30, G_ITEMS, &schema3}, {"properties", 31, G_NAMED, &schema3},                       \
    {"additionalProperties", 32, G_MSG, &additional3}, {"default", 33, G_DEFAULT, NULL},           \
    {"description", 34, G_TEXT, NULL}, {"format", 35, G_TEXT, NULL})
MSG(schema3) = {W_REF, 36, 0, NULL, SCHEMA3_FIELDS};
MSG(plain_schema3) = {W_NONE, 36, 0, NULL, SCHEMA3_FIELDS};
MSG(media3) = {W_NONE, 5, 0, NULL, FIELDS({"schema", 1, G_MSG, &schema3})};
MSG(parameter3) = {W_REF, 14, 0, NULL, FIELDS(
    {"name", 1, G_TEXT, NULL}, {"in", 2, G_TEXT, NULL}, {"description", 3, G_TEXT, NULL},
    {"required", 4, G_BOOL, NULL}, {"deprecated", 5, G_BOOL, NULL},
    {"allowEmptyValue", 6, G_BOOL, NULL}, {"schema", 10, G_MSG, &schema3},
    {"content", 13, G_NAMED, &media3})};
MSG(request3) = {W_REF, 4, 0, NULL, FIELDS({"description", 1, G_TEXT, NULL},
                                           {"content", 2, G_NAMED, &media3},
                                           {"required", 3, G_BOOL, NULL})};
MSG(response3) = {W_REF, 5, 0, NULL, FIELDS({"description", 1, G_TEXT, NULL},
                                            {"content", 3, G_NAMED, &media3})};
MSG(responses3) = {W_NONE, 3, 2, &response3, FIELDS({"default", 1, G_MSG, &response3})};
MSG(operation3) = {W_NONE, 13, 0, NULL, FIELDS(
    {"tags", 1, G_TEXTS, NULL}, {"summary", 2, G_TEXT, NULL}, {"description", 3, G_TEXT, NULL},
    {"externalDocs", 4, G_MSG, &docs}, {"operationId", 5, G_TEXT, NULL},
    {"parameters", 6, G_MSGS, &parameter3}, {"requestBody", 7, G_MSG, &request3},
    {"responses", 8, G_MSG, &responses3}, {"deprecated", 10, G_BOOL, NULL})};
MSG(path3) = {W_NONE, 14, 0, NULL, FIELDS(
    {"get", 4, G_MSG, &operation3}, {"put", 5, G_MSG, &operation3},
    {"post", 6, G_MSG, &operation3}, {"delete", 7, G_MSG, &operation3},
    {"options", 8, G_MSG, &operation3}, {"head", 9, G_MSG, &operation3},
    {"patch", 10, G_MSG, &operation3}, {"parameters", 13, G_MSGS, &parameter3})};
MSG(paths3) = {W_NONE, 2, 1, &path3, NULL};
MSG(components3) = {W_NONE, 10, 0, NULL, FIELDS({"schemas", 1, G_NAMED, &schema3})};
MSG(document3) = {W_NONE, 9, 0, NULL, FIELDS(
    {"openapi", 1, G_TEXT, NULL}, {"info", 2, G_MSG, &info3}, {"paths", 4, G_MSG, &paths3},
    {"components", 5, G_MSG, &components3})};

/* ---- writing ---- */

static void varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_addc(b, (char)(v | 0x80));
    buf_addc(b, (char)v);
}

static void bytes(struct buf *b, uint32_t number, const char *p, size_t n)
{
    varint(b, (uint64_t)number << 3 | 2);
    varint(b, n);
    buf_add(b, p ? p : "", n);
}

static void number(struct buf *b, uint32_t n, uint64_t v)
{
    varint(b, (uint64_t)n << 3);
    varint(b, v);
}

/* Takes the inner message's bytes. */
static void inner(struct buf *b, uint32_t n, struct buf *m)
{
    bytes(b, n, m->p, m->n);
    buf_done(m);
}

static void put_double(struct buf *b, uint32_t n, const struct val *v)
{
    double d = val_num(v);

    varint(b, (uint64_t)n << 3 | 1);
    buf_add(b, &d, sizeof d); /* little-endian, as this machine writes it */
}

/* JSON is YAML. */
static void put_any(struct buf *b, uint32_t n, const struct val *v)
{
    struct buf m = {0}, text = {0};

    json_write(&text, v);
    buf_addc(&text, '\n');
    inner(&m, 2, &text);
    inner(b, n, &m);
}

static void put_msg(struct buf *b, uint32_t n, const struct val *v, const struct gmsg *g);

static void put_named(struct buf *b, uint32_t n, const char *name, size_t name_n, const struct val *v,
                      const struct gmsg *g)
{
    struct buf m = {0};

    bytes(&m, 1, name, name_n);
    if (g)
        put_msg(&m, 2, v, g);
    else
        put_any(&m, 2, v);
    inner(b, n, &m);
}

static void put_field(struct buf *b, const struct gfield *f, const struct val *v)
{
    struct buf m = {0};

    switch ((enum gtype)f->type) {
    case G_TEXT:
        if (v->type == VAL_STR && v->n)
            bytes(b, f->number, v->s, v->n);
        break;
    case G_BOOL:
        if (v->type == VAL_BOOL && v->b)
            number(b, f->number, 1);
        break;
    case G_INT:
        if (v->type == VAL_INT && v->i)
            number(b, f->number, (uint64_t)v->i);
        break;
    case G_DOUBLE:
        put_double(b, f->number, v);
        break;
    case G_TEXTS:
        VAL_EACH(v, e)
            bytes(b, f->number, val_text(e, ""), strlen(val_text(e, "")));
        break;
    case G_ANY:
        put_any(b, f->number, v);
        break;
    case G_ANYS:
        VAL_EACH(v, e)
            put_any(b, f->number, e);
        break;
    case G_MSG:
        put_msg(b, f->number, v, f->of);
        break;
    case G_MSGS:
        VAL_EACH(v, e)
            put_msg(b, f->number, e, f->of);
        break;
    case G_NAMED:
        VAL_EACH_MEMBER(v, e)
            put_named(&m, 1, e->key, e->n, &e->v, f->of);
        inner(b, f->number, &m);
        break;
    case G_TYPE:
        if (v->type == VAL_STR)
            bytes(&m, 1, v->s, v->n);
        VAL_EACH(v, e)
            bytes(&m, 1, val_text(e, ""), strlen(val_text(e, "")));
        inner(b, f->number, &m);
        break;
    case G_DEFAULT: /* lists and objects have no form in it */
        if (v->type == VAL_INT || v->type == VAL_DOUBLE)
            put_double(&m, 1, v);
        else if (v->type == VAL_BOOL)
            number(&m, 2, v->b);
        else if (v->type == VAL_STR)
            bytes(&m, 3, v->s, v->n);
        else
            break;
        inner(b, f->number, &m);
        break;
    case G_ITEMS:
        if (v->type == VAL_MAP)
            put_msg(&m, 1, v, f->of);
        VAL_EACH(v, e)
            put_msg(&m, 1, e, f->of);
        inner(b, f->number, &m);
        break;
    }
}

static void put_members(struct buf *b, const struct val *v, const struct gmsg *g)
{
    for (const struct gfield *f = g->fields; f && f->key; f++) {
        const struct val *at = val_get(v, f->key);

        if (at)
            put_field(b, f, at);
    }
    if (!g->rest && !g->named)
        return;
    VAL_EACH_MEMBER(v, e) {
        bool extension = str_starts(e->key, "x-"), known = false;

        for (const struct gfield *f = g->fields; f && f->key && !known; f++)
            known = streq(f->key, e->key);
        if (extension && g->rest)
            put_named(b, g->rest, e->key, e->n, &e->v, NULL);
        else if (!extension && !known && g->named)
            put_named(b, g->named, e->key, e->n, &e->v, g->named_of);
    }
}

static void put_parameter2(struct buf *b, const struct val *v)
{
    const char *in = val_str_at(v, "in", "");
    struct buf m = {0}, choice = {0}, whole = {0};

    if (streq(in, "body")) {
        put_members(&m, v, &body2);
        inner(&choice, 1, &m);
    } else {
        bool query = streq(in, "query");
        struct buf kind = {0};

        put_members(&m, v, query ? &query_parameter2 : &path_parameter2);
        inner(&kind, streq(in, "header") ? 1 : query ? 3 : 4, &m);
        inner(&choice, 2, &kind);
    }
    inner(&whole, 1, &choice);
    buf_add(b, whole.p, whole.n);
    buf_done(&whole);
}

static void put_msg(struct buf *b, uint32_t n, const struct val *v, const struct gmsg *g)
{
    struct buf m = {0}, around = {0};
    bool is_ref = val_get(v, "$ref") != NULL;

    switch (g->wrap) {
    case W_NONE:
        put_members(&m, v, g);
        break;
    case W_REF:
        put_members(&around, v, is_ref ? &reference : g);
        inner(&m, is_ref ? 2 : 1, &around);
        break;
    case W_ADDITIONAL:
        if (v->type == VAL_BOOL)
            number(&m, 2, v->b);
        else
            put_msg(&m, 1, v, g->named_of);
        break;
    case W_SCHEMA:
        put_msg(&m, 1, v, g->named_of);
        break;
    case W_PARAMETER_2:
        if (is_ref) {
            put_members(&around, v, &reference);
            inner(&m, 2, &around);
        } else {
            put_parameter2(&m, v);
        }
        break;
    }
    inner(b, n, &m);
}

struct doc publish_keep_bytes(struct schema *s, const char *key, struct buf *b);
bool publish_kept(struct schema *s, const char *key, struct doc *ret);

/* The JSON document in its protobuf form, kept beside it. */
static struct doc as_protobuf(struct schema *s, const char *key, struct doc json, const struct gmsg *g)
{
    struct err ignored = {0};
    struct doc d = {0};
    struct buf b = {0};
    struct arena *a;
    struct val *v;

    if (!json.text || publish_kept(s, key, &d))
        return d;
    a = arena_new();
    if ((v = json_parse(a, json.text, json.n, &ignored))) {
        put_members(&b, v, g);
        d = publish_keep_bytes(s, key, &b);
    }
    arena_free(a);
    return d;
}

struct doc publish_openapi_v2_protobuf(struct schema *s)
{
    return as_protobuf(s, "openapi v2 protobuf", publish_openapi_v2(s), &document2);
}

struct doc publish_openapi_v3_protobuf(struct schema *s, const char *path)
{
    char key[400];

    snprintf(key, sizeof key, "openapi v3 protobuf %.300s", path);
    return as_protobuf(s, key, publish_openapi_v3(s, path), &document3);
}
