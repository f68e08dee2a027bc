#include "codec/yaml.h"

#include "codec/val_build.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <yaml.h>

struct reader {
    struct arena *a;
    yaml_document_t *doc;
    json_duplicate_fn *dup;
    yaml_tag_fn *tag;
    void *arg;
    struct err *err;
    struct buf path;
    int nodes, depth;
};

static bool is_one_of(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (streq(s, *list))
            return true;
    return false;
}

static bool read_number(const char *s, struct val *to)
{
    const char *digits = s + (*s == '-' || *s == '+');
    char *end;
    size_t n = strlen(s);

    if (strspn(s, "0123456789+-.eExXoabcdefABCDEF_") != n || !strpbrk(s, "0123456789"))
        return false;
    errno = 0;
    if (digits[0] == '0' && digits[1] == 'o')
        to->i = strtoll(digits + 2, &end, 8) * (*s == '-' ? -1 : 1);
    else if (digits[0] == '0' && digits[1] && strspn(digits, "01234567") == strlen(digits))
        to->i = strtoll(s, &end, 8); /* YAML 1.1: 0644 is octal */
    else if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
        to->i = strtoll(s, &end, 16);
    else
        to->i = strtoll(s, &end, 10);
    if (!*end && !errno && end != s) {
        to->type = VAL_INT;
        return true;
    }
    if (strspn(s, "0123456789+-.eE") != n)
        return false;
    to->dbl = strtod(s, &end);
    if (*end || !isfinite(to->dbl))
        return false;
    to->type = VAL_DOUBLE;
    return true;
}

static void read_scalar(struct reader *r, const yaml_node_t *node, struct val *to)
{
    static const char *const NULLS[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const YES[] = {"true", "True", "TRUE", "yes", "Yes", "YES",
                                      "on",   "On",   "ON",   NULL};
    static const char *const NO[] = {"false", "False", "FALSE", "no", "No", "NO",
                                     "off",   "Off",   "OFF",   NULL};
    const char *s = (const char *)node->data.scalar.value;
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (node->tag && str_starts((const char *)node->tag, "tag:yaml.org,2002:") && !plain &&
        !streq((const char *)node->tag, YAML_STR_TAG))
        plain = true; /* !!int "3" */
    if (r->tag && node->tag && node->tag[0] == '!')
        plain = false;
    if (plain) {
        if (is_one_of(s, NULLS)) {
            to->type = VAL_NULL;
            return;
        }
        if (is_one_of(s, YES) || is_one_of(s, NO)) {
            to->type = VAL_BOOL;
            to->b = is_one_of(s, YES);
            return;
        }
        if (read_number(s, to))
            return;
    }
    to->type = VAL_STR;
    to->n = (uint32_t)node->data.scalar.length;
    to->s = arena_strndup(r->a, s, to->n);
}

static int read_node(struct reader *r, int index, struct val *to);

static int read_pair(struct reader *r, const yaml_node_pair_t *pair, struct val *to)
{
    yaml_node_t *k = yaml_document_get_node(r->doc, pair->key);
    struct val *at;
    const char *key;
    uint32_t n;

    if (k->type != YAML_SCALAR_NODE)
        return err_set(r->err, INVALID_ARGUMENT, "YAML line %zu: a key must be a scalar",
                       k->start_mark.line + 1);
    key = (const char *)k->data.scalar.value;
    n = (uint32_t)k->data.scalar.length;
    if (streq(key, "<<") && k->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) { /* merge key */
        struct val from = {0};

        if (read_node(r, pair->value, &from) < 0)
            return -1;
        VAL_EACH_MEMBER(&from, m)
            if (!val_getn(to, m->key, m->n))
                val_putn(r->a, to, m->key, m->n, &m->v);
        return 0;
    }
    at = val_getn(to, key, n);
    if (at && r->dup) {
        r->path.n = 0;
        buf_printf(&r->path, "line %zu: key \"%s\" already set in map", k->start_mark.line + 1, key);
        r->dup(r->arg, r->path.p);
    }
    if (!at)
        at = val_append_(r->a, to, arena_strndup(r->a, key, n), n);
    *at = (struct val){0};
    {
        struct val v = {0}; /* read aside: reading may move to->members */

        if (read_node(r, pair->value, &v) < 0)
            return -1;
        *val_getn(to, key, n) = v;
    }
    return 0;
}

static int read_untagged(struct reader *r, yaml_node_t *node, struct val *to);

static int read_node(struct reader *r, int index, struct val *to)
{
    yaml_node_t *node = yaml_document_get_node(r->doc, index);

    if (!node) {
        to->type = VAL_NULL;
        return 0;
    }
    if (read_untagged(r, node, to) < 0)
        return -1;
    return r->tag && node->tag && node->tag[0] == '!' && node->tag[1]
               ? r->tag(r->arg, r->a, (const char *)node->tag, to, r->err)
               : 0;
}

static int read_untagged(struct reader *r, yaml_node_t *node, struct val *to)
{
    if (++r->nodes > YAML_NODES_MAX)
        return err_set(r->err, INVALID_ARGUMENT, "YAML expands to more than %d values",
                       YAML_NODES_MAX);
    if (node->type == YAML_SCALAR_NODE) {
        read_scalar(r, node, to);
        return 0;
    }
    if (++r->depth > JSON_DEPTH_MAX)
        return err_set(r->err, INVALID_ARGUMENT, "YAML is nested more than %d levels deep",
                       JSON_DEPTH_MAX);
    if (node->type == YAML_SEQUENCE_NODE) {
        to->type = VAL_LIST;
        for (yaml_node_item_t *it = node->data.sequence.items.start;
             it < node->data.sequence.items.top; it++) {
            struct val v = {0};

            if (read_node(r, *it, &v) < 0)
                return -1;
            val_push(r->a, to, &v);
        }
    } else {
        to->type = VAL_MAP;
        for (yaml_node_pair_t *p = node->data.mapping.pairs.start;
             p < node->data.mapping.pairs.top; p++) {
            if (read_pair(r, p, to) < 0)
                return -1;
        }
    }
    r->depth--;
    return 0;
}

/* 1: a document was read into to; 0: the stream is at its end; -1: err. */
static int read_document(struct arena *a, yaml_parser_t *parser, json_duplicate_fn *dup, yaml_tag_fn *tag, void *arg,
                         struct val *to, struct err *err)
{
    yaml_document_t doc;
    struct reader r = {.a = a, .doc = &doc, .dup = dup, .tag = tag, .arg = arg, .err = err};
    int rc = 1;

    if (!yaml_parser_load(parser, &doc))
        return err_set(err, INVALID_ARGUMENT, "invalid YAML at line %zu: %s",
                       parser->problem_mark.line + 1,
                       parser->problem ? parser->problem : "cannot be read");
    if (!yaml_document_get_root_node(&doc))
        rc = 0;
    else if (read_node(&r, 1, to) < 0)
        rc = -1;
    buf_done(&r.path);
    yaml_document_delete(&doc);
    return rc;
}

static struct val *parse_one(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup, yaml_tag_fn *tag,
                             void *arg, struct err *err)
{
    struct val *v = val_null(a);
    yaml_parser_t parser;
    int rc;

    yaml_parser_initialize(&parser);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    rc = read_document(a, &parser, dup, tag, arg, v, err);
    yaml_parser_delete(&parser);
    return rc < 0 ? NULL : v;
}

struct val *yaml_parse(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup,
                       void *arg, struct err *err)
{
    return parse_one(a, text, n, dup, NULL, arg, err);
}

struct val *yaml_parse_tagged(struct arena *a, const char *text, size_t n, yaml_tag_fn *tag, void *arg, struct err *err)
{
    return parse_one(a, text, n, NULL, tag, arg, err);
}

struct val *yaml_parse_all(struct arena *a, const char *text, size_t n, struct err *err)
{
    struct val *all = val_list(a);
    yaml_parser_t parser;
    int rc;

    yaml_parser_initialize(&parser);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    for (;;) {
        struct val v = {0};

        rc = read_document(a, &parser, NULL, NULL, NULL, &v, err);
        if (rc <= 0)
            break;
        val_push(a, all, &v);
    }
    yaml_parser_delete(&parser);
    return rc < 0 ? NULL : all;
}

/* A plain scalar that reads back as the same string. */
static bool plain_enough(const char *s, size_t n)
{
    struct val v = {0};
    static const char *const WORDS[] = {"~",    "null", "Null", "NULL", "true", "True", "TRUE",
                                        "yes",  "Yes",  "YES",  "on",   "On",   "ON",   "false",
                                        "False", "FALSE", "no", "No",   "NO",   "off",  "Off",
                                        "OFF",  "y",    "n",    "Y",    "N",    NULL};

    if (!n || strlen(s) != n || is_one_of(s, WORDS) || read_number(s, &v))
        return false;
    if (strchr("-?:,[]{}#&*!|>'\"%@` .=<", s[0]))
        return false;
    if (s[n - 1] == ' ' || s[n - 1] == ':')
        return false;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || (uint8_t)s[i] >= 0x7f || (s[i] == ':' && s[i + 1] == ' ') ||
            (s[i] == ' ' && s[i + 1] == '#'))
            return false;
    return true;
}

/* Bytes of the character at s that YAML does not take as it is (it is no printable one, or a line
 * break there and not in JSON), and its number; 0: it may stand. s is valid UTF-8. */
static size_t not_printable(const uint8_t *s, size_t n, unsigned *c)
{
    if (*s < 0x80) {
        *c = *s;
        return *s < 0x20 || *s == 0x7f;
    }
    if ((*s & 0xe0) == 0xc0 && n >= 2) {
        *c = (*s & 0x1fu) << 6 | (s[1] & 0x3fu);
        return *c < 0xa0 ? 2 : 0;
    }
    if ((*s & 0xf0) == 0xe0 && n >= 3) {
        *c = (*s & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
        return *c == 0x2028 || *c == 0x2029 || *c == 0xfeff || *c >= 0xfffe ? 3 : 0;
    }
    return 0;
}

static void write_quoted(struct buf *b, const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text, *end = s + n;
    unsigned c;

    buf_addc(b, '"');
    while (s < end) {
        size_t odd = not_printable(s, (size_t)(end - s), &c);

        if (*s == '\n')
            buf_adds(b, "\\n");
        else if (*s == '\t')
            buf_adds(b, "\\t");
        else if (odd)
            buf_printf(b, "\\u%04x", c);
        else if (*s == '"' || *s == '\\')
            buf_printf(b, "\\%c", *s);
        else
            buf_addc(b, (char)*s);
        s += odd ? odd : 1;
    }
    buf_addc(b, '"');
}

static void write_text(struct buf *b, const char *s, size_t n)
{
    if (plain_enough(s, n))
        buf_add(b, s, n);
    else
        write_quoted(b, s, n);
}

/* "KEY:"; true: in the long form ("? KEY" and ":" on the next line), since a parser looks no
 * further than 1,024 characters for the colon of the short one. */
static bool write_key(struct buf *b, const char *key, size_t n, int indent)
{
    enum { SHORT_KEY_MAX = 128 };
    bool is_long = n > SHORT_KEY_MAX;

    if (is_long)
        buf_adds(b, "? ");
    write_text(b, key, n);
    if (is_long)
        buf_printf(b, "\n%*s", indent, "");
    buf_addc(b, ':');
    return is_long;
}

static void write_node(struct buf *b, const struct val *v, int indent, bool in_list)
{
    bool first = in_list;

    if ((v->type != VAL_LIST && v->type != VAL_MAP) || !v->n) {
        if (v->type == VAL_STR)
            write_text(b, v->s, v->n);
        else
            json_write(b, v);
        buf_addc(b, '\n');
        return;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *it = v->type == VAL_LIST ? &v->items[i] : &v->members[i].v;
        bool nested = (it->type == VAL_LIST || it->type == VAL_MAP) && it->n;

        if (!first)
            buf_printf(b, "%*s", indent, "");
        first = false;
        if (v->type == VAL_LIST) {
            buf_adds(b, "- ");
            write_node(b, it, indent + 2, true);
            continue;
        }
        bool is_long = write_key(b, v->members[i].key, v->members[i].n, indent);
        buf_addc(b, nested ? '\n' : ' ');
        write_node(b, it, nested && it->type == VAL_LIST && !is_long ? indent : indent + 2, false);
    }
}

void yaml_write(struct buf *b, const struct val *v)
{
    write_node(b, v, 0, false);
}
