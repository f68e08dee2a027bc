/* apiserver/body.c - what arrives: media types, text to trees, the object that was meant. */
#include "apiserver/api_int.h"

#include "codec/json.h"
#include "codec/yaml.h"
#include "schema/protobuf.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

/* "application/json; charset=utf-8" -> "application/json"; NULL when it is no media type. */
static const char *media_type(struct call *c)
{
    const char *t = c->req->content_type, *semi;
    size_t n;

    if (str_empty(t))
        return "application/json";
    semi = strchr(t, ';');
    n = semi ? (size_t)(semi - t) : strlen(t);
    while (n && isspace((unsigned char)t[n - 1]))
        n--;
    if (semi && !strchr(semi, '='))
        return NULL;
    return arena_strndup(c->a, t, n);
}

static int fail_media(struct call *c)
{
    return fail(c, 415, "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json, application/yaml, application/vnd.kubernetes.protobuf");
}

/* What could not be read, as upstream shows it: the beginning, as it is when it looks like JSON. */
static const char *summary(struct call *c)
{
    const char *p = c->req->body ? c->req->body : "";
    size_t n = MIN(c->req->body_n, (size_t)30);
    const char *more = c->req->body_n > 30 ? " ..." : "";
    char hex[61];

    if (!c->req->body_n)
        return "<empty>";
    if (*p == '{')
        return arena_printf(c->a, "%.*s%s", (int)n, p, more);
    for (size_t i = 0; i < n; i++)
        snprintf(hex + i * 2, 3, "%02x", (unsigned char)p[i]);
    return arena_printf(c->a, "%s%s", hex, more);
}

static int fail_unread(struct call *c, const struct err *err)
{
    const char *kind = c->sub ? c->sub->kind : c->r ? c->r->kind : "";

    if (!streq(c->verb, "create") && !streq(c->verb, "update"))
        return fail(c, 400, "BadRequest", "%s", err->msg);
    return fail(c, 400, "BadRequest", "the object provided is unrecognized (must be of type %s): "
                "couldn't get version/kind; json parse error: %s (%s)", kind, err->msg, summary(c));
}

struct val *body_tree(struct call *c, struct texts *strict)
{
    const char *type = media_type(c);
    struct err err = {0};
    struct val *v;

    if (c->req->body_val)
        return val_copy(c->a, c->req->body_val);
    if (type && streq(type, "application/json")) {
        bool typed = c->r && !c->r->custom; /* custom resources are maps all the way down */
        struct json_reading how = {.duplicate = strict ? schema_note_duplicate : NULL, .arg = strict,
                                   .as_written = typed, .merge = typed};
        v = json_parse_with(c->a, c->req->body ? c->req->body : "", c->req->body_n, &how, &err);
    } else if (type && streq(type, "application/yaml")) {
        v = yaml_parse(c->a, c->req->body ? c->req->body : "", c->req->body_n,
                       strict ? schema_note_line : NULL, strict, &err);
        if (v)
            val_sort_keys(v); /* upstream makes JSON of it first, and tells of unknown fields in that order */
    } else if (type && streq(type, PROTOBUF_TYPE) && !(c->r && c->r->custom)) {
        v = protobuf_read(c->api->schema, c->a, c->req->body ? c->req->body : "", c->req->body_n, &err);
    } else {
        fail_media(c);
        return NULL;
    }
    if (!v)
        fail_unread(c, &err);
    return v;
}

/* Where in a JSON text the things are that strict decoding told of. */
struct told {
    const char *text; /* `unknown field "spec.x"` */
    size_t at;
    uint32_t left; /* the how-manieth time its key comes is the one that counts */
};
struct scan {
    const char *p, *begin, *end;
    struct buf path;
    struct told *v;
    uint32_t n, depth;
};

static void scan_value(struct scan *s);

static void scan_blanks(struct scan *s)
{
    while (s->p < s->end && (isspace((unsigned char)*s->p) || *s->p == ',' || *s->p == ':'))
        s->p++;
}

static void scan_string(struct scan *s, const char **ret, size_t *ret_n)
{
    *ret = ++s->p;
    while (s->p < s->end && *s->p != '"')
        s->p += *s->p == '\\' && s->p + 1 < s->end ? 2 : 1;
    *ret_n = (size_t)(s->p - *ret);
    if (s->p < s->end)
        s->p++;
}

static void scan_key(struct scan *s, const char *begin)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const char *quoted = strchr(s->v[i].text, '"');

        if (s->v[i].left && quoted && strncmp(quoted + 1, s->path.p, s->path.n) == 0 &&
            streq(quoted + 1 + s->path.n, "\"") && --s->v[i].left == 0)
            s->v[i].at = (size_t)(begin - s->begin);
    }
}

static void scan_value(struct scan *s)
{
    size_t n, mark = s->path.n;
    char open;
    const char *key, *begin;
    int i = 0;

    scan_blanks(s);
    if (s->p >= s->end || s->depth > 100)
        return;
    open = *s->p;
    if (open == '"') {
        scan_string(s, &key, &n);
        return;
    }
    if (open != '{' && open != '[') {
        s->p += strcspn(s->p, ",]} \t\r\n");
        return;
    }
    s->depth++;
    for (s->p++; scan_blanks(s), s->p < s->end && *s->p != '}' && *s->p != ']';) {
        begin = s->p;
        s->path.n = mark;
        if (open == '[') {
            buf_printf(&s->path, "[%d]", i++);
        } else if (*begin == '"') {
            scan_string(s, &key, &n);
            buf_printf(&s->path, "%s%.*s", mark ? "." : "", (int)n, key);
            scan_key(s, begin);
        }
        scan_value(s);
        if (s->p == begin)
            return;
    }
    s->path.n = mark;
    s->depth--;
    if (s->p < s->end)
        s->p++;
}

static int told_order(const void *x, const void *y)
{
    const struct told *a = x, *b = y;

    return a->at < b->at ? -1 : a->at > b->at;
}

/* Doubled and unknown fields were found one after the other; they are told as the document has
 * them. Only JSON: in YAML the doubled keys are seen by another parser, before. */
static void document_order(struct call *c, struct texts *strict)
{
    const char *type = media_type(c);
    struct scan s = {.p = c->req->body, .begin = c->req->body, .path = {.max = 1 << 14}};
    uint32_t doubled = 0;

    for (uint32_t i = 0; i < strict->n; i++)
        doubled += str_starts(strict->v[i], "duplicate ");
    if (!doubled || doubled == strict->n || !s.p || !type || !streq(type, "application/json"))
        return;
    s.end = s.p + c->req->body_n;
    s.n = strict->n;
    s.v = arena_array(c->a, struct told, s.n);
    for (uint32_t i = 0; i < s.n; i++) {
        s.v[i] = (struct told){.text = strict->v[i], .at = SIZE_MAX, .left = 1};
        if (!str_starts(s.v[i].text, "duplicate "))
            continue;
        s.v[i].left = 2;
        for (uint32_t k = 0; k < i; k++)
            s.v[i].left += streq(strict->v[k], strict->v[i]);
    }
    scan_value(&s);
    buf_done(&s.path);
    qsort(s.v, s.n, sizeof *s.v, told_order);
    for (uint32_t i = 0; i < s.n; i++)
        strict->v[i] = s.v[i].text;
}

static int depth(const char *path)
{
    int n = 0;

    for (; *path; path++)
        n += *path == '.';
    return n;
}

int body_field_validation(struct call *c, const struct texts *strict, bool patched)
{
    const char *mode = str_empty(c->o.field_validation) ? "Warn" : c->o.field_validation;
    struct buf b = {.max = 1 << 16};

    if (!strict->n || streq(mode, "Ignore"))
        return 0;
    document_order(c, (struct texts *)(uintptr_t)strict);
    if (c->parents_first) /* as upstream names them when the document came out of a strategic merge */
        for (uint32_t i = 1; i < strict->n; i++)
            for (uint32_t k = i; k > 0 && depth(strict->v[k]) < depth(strict->v[k - 1]); k--) {
                const char *t = strict->v[k];
                strict->v[k] = strict->v[k - 1];
                strict->v[k - 1] = t;
            }
    if (streq(mode, "Warn")) {
        for (uint32_t i = 0; i < strict->n; i++)
            texts_add(&c->warnings, "%s", strict->v[i]);
        return 0;
    }
    for (uint32_t i = 0; i < strict->n; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", strict->v[i]);
    if (patched) {
        struct causes bad = {.a = c->a};

        causes_add(&bad, CAUSE_INVALID, "patch", NULL, "strict decoding error: %s", b.p);
        fail_causes_of(c, &bad, "", "", "");
    } else {
        fail(c, 400, "BadRequest", "%s in version \"%s\" cannot be handled as a %s: strict decoding error: %s",
             c->r->kind, c->r->version, c->r->kind, b.p);
    }
    buf_done(&b);
    return -1;
}

/* A merged object is not decoded from text upstream but taken over value by value, and what does
 * not fit is told in other words: "cannot unmarshal string ... of type map[..." -> "cannot restore
 * map from string". */
static const char *restore_words(struct call *c, const char *msg)
{
    static const struct {
        const char *json, *go;
    } names[] = {{"number", "float64"}, {"array", "slice"}, {"object", "map"}};
    const char *from = strstr(msg, "cannot unmarshal "), *type = strstr(msg, " of type "), *word;

    if (!c->parents_first || !from || !type)
        return msg;
    from += strlen("cannot unmarshal ");
    type += strlen(" of type ");
    word = arena_strndup(c->a, from, strcspn(from, " "));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(word, names[i].json))
            word = names[i].go;
    if (str_starts(type, "map["))
        return arena_printf(c->a, "cannot restore map from %s", word);
    if (str_starts(type, "[]"))
        return arena_printf(c->a, "cannot restore slice from %s", word);
    return strchr(type, '.') ? arena_printf(c->a, "cannot restore struct from: %s", word) : msg;
}

int body_decode(struct call *c, const struct resource *r, struct val *v, struct texts *strict,
                bool patched)
{
    struct err err = {0};
    bool empty = false;
    int rc = schema_decode_given(r, c->a, v, strict, &empty, &err);

    c->empties |= empty;
    if (rc < 0) {
        if (patched) {
            struct causes bad = {.a = c->a};

            causes_add(&bad, CAUSE_INVALID, "patch", NULL, "%s", restore_words(c, err.msg));
            return fail_causes_of(c, &bad, "", "", "");
        }
        return fail(c, 400, "BadRequest", "%s", err.msg);
    }
    return strict ? body_field_validation(c, strict, patched) : 0;
}

/* apiVersion and kind of a body: absent means what the path says; anything else must be that. */
static int check_kind(struct call *c, struct val *v, const char *api_version, const char *kind)
{
    const struct val *av = val_get(v, "apiVersion"), *k = val_get(v, "kind");
    const char *has_version = val_text(av, ""), *has_kind = val_text(k, "");
    struct val *fresh;

    if ((av && !val_is(av, VAL_STR) && !val_is_null(av)) || (k && !val_is(k, VAL_STR) && !val_is_null(k)))
        return fail(c, 400, "BadRequest",
                    "couldn't get version/kind; json parse error: json: cannot unmarshal into Go "
                    "struct field .apiVersion of type string");
    if (*has_kind && *has_version && !streq(has_version, api_version))
        return fail(c, 400, "BadRequest",
                    streq(has_kind, kind)
                        ? "the API version in the data (%s) does not match the expected API version (%s)"
                        : "no kind \"%s\" is registered for version \"%s\"",
                    streq(has_kind, kind) ? has_version : has_kind,
                    streq(has_kind, kind) ? api_version : has_version);
    if (*has_version && !streq(has_version, api_version))
        return fail(c, 400, "BadRequest",
                    "the API version in the data (%s) does not match the expected API version (%s)",
                    has_version, api_version);
    if (*has_kind && !streq(has_kind, kind))
        return fail(c, 400, "BadRequest", "%s in version \"%s\" cannot be handled as a %s: no kind "
                    "\"%s\" is registered for version \"%s\"",
                    has_kind, c->r->version, kind, has_kind, api_version);
    /* first of all members, so that lists can leave them out without parsing */
    fresh = val_map(c->a);
    val_put_str(c->a, fresh, "apiVersion", api_version);
    val_put_str(c->a, fresh, "kind", kind);
    VAL_EACH_MEMBER(v, m)
        if (!streq(m->key, "apiVersion") && !streq(m->key, "kind"))
            val_putn(c->a, fresh, m->key, m->n, &m->v);
    *v = *fresh;
    return 0;
}

struct val *body_object(struct call *c)
{
    const struct subresource *sub = c->sub;
    const char *group = sub ? sub->group : c->r->group, *kind = sub ? sub->kind : c->r->kind;
    const char *version = sub ? sub->version : c->r->version;
    const char *api_version = *group ? arena_printf(c->a, "%s/%s", group, version) : version;
    struct texts strict = {.a = c->a};
    struct val *v = body_tree(c, &strict);
    struct err err = {0};

    if (!v)
        return NULL;
    if (!val_is(v, VAL_MAP)) {
        fail(c, 400, "BadRequest", "couldn't get version/kind; json parse error: json: cannot "
             "unmarshal into Go value of type struct { APIVersion string; Kind string }");
        return NULL;
    }
    if (check_kind(c, v, api_version, kind) < 0)
        return NULL;
    if (!sub || streq(kind, c->r->kind)) {
        if (body_decode(c, c->r, v, &strict, false) < 0)
            return NULL;
        audit_object(c->req->audit, v);
        return v;
    }
    if (sub->type && schema_decode_type(c->api->schema, sub->type, kind, version, c->a, v, &strict,
                                        &err) < 0) {
        fail(c, 400, "BadRequest", "%s", err.msg);
        return NULL;
    }
    if (body_field_validation(c, &strict, false) < 0)
        return NULL;
    audit_object(c->req->audit, v);
    return v;
}
