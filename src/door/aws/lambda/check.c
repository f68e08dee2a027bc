/* door/aws/lambda/check.c - what Lambda's model says of operations and their input, asked before an operation runs.
 *
 * The facts are data (shapes.json, made by tools/lambda-shapes): each operation's method and path, and the type,
 * bounds, pattern and values of each member of its input. All that is wrong with a request is told in one answer, in
 * Lambda's words. A value longer than its bound is not held against its pattern, and matching is cut after MATCH_STEPS:
 * what a caller sends is checked in bounded time. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>

#include "door/aws/lambda/lambda_int.h"

extern const char lambda_shapes_text[];

enum { PATTERNS_MAX = 96, MATCH_STEPS = 200000, SHOWN_MAX = 200, PROBLEMS_MAX = 10, DEPTH_MAX = 16 };

struct lambda_model {
    struct arena *a;
    const struct val *operations, *shapes;
    struct {
        const char *text; /* in the model: the same pointer is the same pattern */
        pcre2_code *code;
    } pattern[PATTERNS_MAX];
    unsigned patterns;
};

static struct lambda_model *model_of(struct aws_door *d)
{
    struct lambda_model *m = d->lambda_model;
    const struct val *all;
    struct err err;

    if (m)
        return m;
    m = xcalloc(1, sizeof *m);
    m->a = arena_new();
    all = json_parse(m->a, lambda_shapes_text, strlen(lambda_shapes_text), &err);
    ASSERT(val_is(all, VAL_MAP));
    m->operations = val_get(all, "operations");
    m->shapes = val_get(all, "shapes");
    return d->lambda_model = m;
}

void *lambda_model_free(struct lambda_model *m)
{
    if (!m)
        return NULL;
    for (unsigned i = 0; i < m->patterns; i++)
        pcre2_code_free(m->pattern[i].code);
    arena_free(m->a);
    free(m);
    return NULL;
}

/* ---- which operation ---- */

static bool at_path(struct aws_req *q, const struct val *o, const char *const *part, size_t n)
{
    const struct val *path = val_get(o, "path");
    size_t i = 0;

    if (!streq(val_str_at(o, "method", ""), q->req->method) || val_len(path) != n)
        return false;
    VAL_EACH(path, it) {
        const char *want = val_text(it, "");

        if (*want != '{' && !streq(want, part[i]))
            return false;
        i++;
    }
    VAL_EACH_MEMBER(val_get(o, "query"), m) {
        const char *said = http_param(q->req, m->key);

        if (!said || !streq(said, val_text(&m->v, "")))
            return false;
    }
    return true;
}

const struct val *lambda_operation(struct aws_req *q, const char *const *part, size_t n, const char **ret_name)
{
    const struct val *found = NULL;

    VAL_EACH_MEMBER(model_of(q->d)->operations, m)
        if (at_path(q, &m->v, part, n) && (!found || val_get(&m->v, "query"))) { /* the one that asks for more, first */
            found = &m->v;
            *ret_name = m->key;
        }
    return found;
}

/* ---- its input ---- */

struct check {
    struct aws_req *q;
    struct arena *a;
    struct lambda_model *model;
    struct buf told;
    unsigned problems;
    const char *malformed; /* what could not even be read */
};

_printf_(4, 5) static void problem(struct check *c, const char *path, const char *value, const char *fmt, ...)
{
    va_list ap;

    if (c->problems++ >= PROBLEMS_MAX)
        return;
    buf_adds(&c->told, c->problems > 1 ? "; Value " : "Value ");
    if (value)
        buf_printf(&c->told, "%s ", value);
    buf_printf(&c->told, "at '%s' failed to satisfy constraint: ", path);
    va_start(ap, fmt);
    buf_vprintf(&c->told, fmt, ap);
    va_end(ap);
}

static const struct val *shape_named(struct check *c, const char *name)
{
    return val_get(c->model->shapes, name);
}

static bool type_is(const struct val *shape, const char *type)
{
    return streq(val_str_at(shape, "type", ""), type);
}

/* Does all of s match? What takes too long does not. */
static bool matches(struct check *c, const char *pattern, const char *s, size_t n)
{
    struct lambda_model *m = c->model;
    pcre2_match_context *limits;
    pcre2_match_data *match;
    PCRE2_SIZE where;
    unsigned i = 0;
    int code, hit;

    while (i < m->patterns && m->pattern[i].text != pattern)
        i++;
    if (i == m->patterns) {
        ASSERT(i < PATTERNS_MAX);
        m->pattern[i].text = pattern;
        m->pattern[i].code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_ANCHORED |
                                           PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &code, &where, NULL);
        ASSERT(m->pattern[i].code);
        m->patterns++;
    }
    match = pcre2_match_data_create(1, NULL);
    limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, MATCH_STEPS);
    hit = pcre2_match(m->pattern[i].code, (PCRE2_SPTR)s, n, 0, 0, match, limits);
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    return hit >= 0;
}

static size_t characters(const struct val *v)
{
    size_t n = 0;

    for (size_t i = 0; i < v->n; i++)
        n += ((unsigned char)v->s[i] & 0xc0) != 0x80;
    return n;
}

static const char *listed(struct check *c, const struct val *values)
{
    struct buf b;
    char *text;

    buf_init(&b, 64 * 1024);
    VAL_EACH(values, it)
        buf_printf(&b, "%s%s", b.n ? ", " : "", val_text(it, ""));
    text = arena_strndup(c->a, b.n ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

/* 'text' as it is shown; NULL: it is not to be shown. */
static const char *shown(struct check *c, const struct val *shape, const struct val *v)
{
    const char *text;
    size_t n;

    if (val_bool_at(shape, "sensitive", false))
        return NULL;
    if (val_is(v, VAL_LIST))
        text = arena_printf(c->a, "[%s]", listed(c, v));
    else
        text = val_is(v, VAL_STR) ? v->s : json_text(c->a, v, NULL);
    n = strlen(text);
    if (n > SHOWN_MAX)
        for (n = SHOWN_MAX; n && ((unsigned char)text[n] & 0xc0) == 0x80;)
            n--;
    return arena_printf(c->a, "'%.*s'", (int)n, text);
}

/* What a scalar breaks, one text; NULL: nothing. all: every constraint there is, broken or not, as lists tell it. */
static const char *broken(struct check *c, const struct val *shape, const struct val *v, bool all)
{
    const struct val *min = val_get(shape, "min"), *max = val_get(shape, "max"), *values = val_get(shape, "enum");
    const char *pattern = val_str_at(shape, "pattern", NULL);
    bool text = val_is(v, VAL_STR), in_bounds = true, known = !values;
    double size = text ? (double)characters(v) : val_is_number(v) ? val_num(v) : 0;
    struct buf b;
    char *said;

    if (!text && !val_is_number(v))
        return NULL;
    buf_init(&b, 64 * 1024);
    if (!val_is_null(max) && (size > val_num_at(shape, "max", 0) || all)) {
        in_bounds = size <= val_num_at(shape, "max", 0);
        buf_printf(&b, "Member must have %s less than or equal to %s", text ? "length" : "value", json_text(c->a, max, NULL));
    }
    if (!val_is_null(min) && (size < val_num_at(shape, "min", 0) || all))
        buf_printf(&b, "%sMember must have %s greater than or equal to %s", b.n ? ", " : "", text ? "length" : "value", json_text(c->a, min, NULL));
    if (pattern && text && (all || (in_bounds && !matches(c, pattern, v->s, v->n))))
        buf_printf(&b, "%sMember must satisfy regular expression pattern: %s", b.n ? ", " : "", pattern);
    VAL_EACH(values, it)
        known |= streq(val_text(it, ""), val_text(v, ""));
    if (!known || (all && values))
        buf_printf(&b, "%sMember must satisfy enum value set: [%s]", b.n ? ", " : "", listed(c, values));
    said = b.n ? arena_strndup(c->a, b.p, b.n) : NULL;
    buf_done(&b);
    return said;
}

/* Is it of the shape's type? The words are those of Lambda's parser. */
static bool readable(struct check *c, const struct val *shape, const struct val *v)
{
    static const struct { const char *type, *words; bool text, whole, number, yes; } TYPES[] = {
        {"string", "a String", true, false, false, false}, {"blob", "a Blob", true, false, false, false},
        {"integer", "an Integer", false, true, false, false}, {"long", "a Long", false, true, false, false},
        {"double", "a Double", false, true, true, false}, {"float", "a Float", false, true, true, false},
        {"boolean", "a Boolean", false, false, false, true}, {"timestamp", "a Timestamp", true, true, true, false}};
    bool map = type_is(shape, "structure") || type_is(shape, "map"), list = type_is(shape, "list");

    if (map || list) {
        if (val_is(v, map ? VAL_MAP : VAL_LIST))
            return true;
        c->malformed = map ? "Unexpected field type" : "Expected list or null";
        return false;
    }
    if (val_is(v, VAL_MAP) || val_is(v, VAL_LIST)) {
        c->malformed = val_is(v, VAL_MAP) ? "Start of structure or map found where not expected." : "Start of list found where not expected";
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        if (!type_is(shape, TYPES[i].type))
            continue;
        if ((TYPES[i].text && val_is(v, VAL_STR) && strlen(v->s) == v->n) || (TYPES[i].whole && val_is(v, VAL_INT)) ||
            (TYPES[i].number && val_is(v, VAL_DOUBLE)) || (TYPES[i].yes && val_is(v, VAL_BOOL)))
            return true;
        c->malformed = arena_printf(c->a, "%s can not be converted to %s", val_is(v, VAL_STR) ? "STRING_VALUE" : val_is(v, VAL_BOOL)
                                    ? "BOOLEAN_VALUE" : "NUMBER_VALUE", TYPES[i].words);
        return false;
    }
    return true;
}

static bool is_scalar(const struct val *shape)
{
    return !type_is(shape, "structure") && !type_is(shape, "list") && !type_is(shape, "map");
}

static void check_value(struct check *c, const char *path, const char *member, const char *shape_name, const struct val *v, int depth);

static const char *below(struct check *c, const char *path, const char *member)
{
    char *low = arena_strdup(c->a, member);

    for (char *p = low; isupper((unsigned char)*p) && (p == low || isupper((unsigned char)p[1]) || !p[1]); p++)
        *p = (char)tolower((unsigned char)*p); /* KMSKeyArn: kmsKeyArn */
    return *path ? arena_printf(c->a, "%s.%s", path, low) : low;
}

static void check_structure(struct check *c, const char *path, const struct val *shape, const struct val *v, int depth)
{
    VAL_EACH_MEMBER(val_get(shape, "members"), m)
        if (!val_is_null(val_get(v, m->key)))
            check_value(c, below(c, path, m->key), m->key, val_str_at(&m->v, "shape", ""), val_get(v, m->key), depth + 1);
    VAL_EACH(val_get(shape, "required"), it)
        if (val_is_null(val_get(v, val_text(it, ""))))
            problem(c, below(c, path, val_text(it, "")), "null", "Member must not be null");
}

static void check_length(struct check *c, const char *path, const struct val *shape, const struct val *v)
{
    int64_t n = val_len(v), max = val_int_at(shape, "max", INT64_MAX), min = val_int_at(shape, "min", 0);

    if (n > max || n < min)
        problem(c, path, shown(c, shape, v), "Member must have length %s than or equal to %lld", n > max ? "less" : "greater",
                (long long)(n > max ? max : min));
}

static void check_list(struct check *c, const char *path, const struct val *shape, const struct val *v, int depth)
{
    const char *of = val_str_at(shape, "member", ""), *said = NULL;
    const struct val *member = shape_named(c, of);
    unsigned i = 0;

    check_length(c, path, shape, v);
    VAL_EACH(v, it) {
        i++;
        if (!is_scalar(member))
            check_value(c, arena_printf(c->a, "%s.%u.member", path, i), "", of, it, depth + 1);
        else if (!readable(c, member, it))
            return;
        else if (broken(c, member, it, false) && !streq(of, "Runtime"))
            said = broken(c, member, it, true);
    }
    if (said)
        problem(c, path, shown(c, shape, v), "Member must satisfy constraint: [%s]", said);
}

static void check_map(struct check *c, const char *path, const struct val *shape, const struct val *v, int depth)
{
    const struct val *key = shape_named(c, val_str_at(shape, "key", "")), *value = shape_named(c, val_str_at(shape, "value", ""));
    const char *keys = NULL, *values = NULL;

    check_length(c, path, shape, v);
    VAL_EACH_MEMBER(v, m) {
        struct val name = {.type = VAL_STR, .s = m->key, .n = (uint32_t)strlen(m->key)};

        if (broken(c, key, &name, false))
            keys = broken(c, key, &name, true);
        if (!is_scalar(value))
            check_value(c, arena_printf(c->a, "%s.%s.member", path, m->key), "", val_str_at(shape, "value", ""), &m->v, depth + 1);
        else if (!readable(c, value, &m->v))
            return;
        else if (broken(c, value, &m->v, false))
            values = broken(c, value, &m->v, true);
    }
    if (keys)
        problem(c, path, shown(c, shape, v), "Map keys must satisfy constraint: [%s]", keys);
    if (values)
        problem(c, path, shown(c, shape, v), "Map value must satisfy constraint: [%s]", values);
}

/* Checked by the operations, which know more than the model: names in all their forms (lambda_name_parse()), runtimes
 * (ours too, and an error of its own kind), file systems (volumes, whatever their name). */
static bool is_theirs(const char *member, const char *shape)
{
    return streq(member, "FunctionName") || streq(shape, "Runtime") || streq(shape, "FileSystemArn");
}

static void check_value(struct check *c, const char *path, const char *member, const char *shape_name, const struct val *v, int depth)
{
    const struct val *shape = shape_named(c, shape_name);
    const char *said;

    if (depth > DEPTH_MAX || c->malformed || !readable(c, shape, v) || is_theirs(member, shape_name))
        return;
    if (type_is(shape, "structure"))
        check_structure(c, path, shape, v, depth);
    else if (type_is(shape, "list"))
        check_list(c, path, shape, v, depth);
    else if (type_is(shape, "map"))
        check_map(c, path, shape, v, depth);
    else if ((said = broken(c, shape, v, false)))
        problem(c, path, shown(c, shape, v), "%s", said);
}

/* ---- the parts of a request ---- */

/* What text says for a shape; what is no number stays a text, and check_value() tells. */
static struct val *value_of(struct arena *a, const struct val *shape, const char *text)
{
    char *end;
    long long i;

    if (type_is(shape, "boolean") && (streq(text, "true") || streq(text, "false")))
        return val_bool(a, *text == 't');
    if (type_is(shape, "integer") || type_is(shape, "long")) {
        i = strtoll(text, &end, 10);
        if (end != text && !*end)
            return val_int(a, i);
    }
    return val_str(a, text);
}

/* The input as one map: labels of the path, query, headers, and the body's members. */
static struct val *input_of(struct check *c, const struct val *operation, const char *const *part, const struct val *body)
{
    const struct val *shape = shape_named(c, val_str_at(operation, "input", "")), *path = val_get(operation, "path");
    struct val *in = val_map(c->a);
    const char *name, *text;

    VAL_EACH_MEMBER(val_get(shape, "members"), m) {
        const char *where = val_str_at(&m->v, "in", NULL), *as = val_str_at(&m->v, "as", m->key);
        const struct val *of = shape_named(c, val_str_at(&m->v, "shape", ""));

        if (!where) {
            if (!val_is_null(val_get(body, m->key)))
                val_put(c->a, in, m->key, val_get(body, m->key));
        } else if (streq(where, "uri")) {
            for (uint32_t i = 0; i < val_len(path); i++)
                if (streq(val_text(&path->items[i], ""), arena_printf(c->a, "{%s}", as)))
                    val_put(c->a, in, m->key, value_of(c->a, of, part[i]));
        } else if (streq(where, "querystring") && type_is(of, "list")) {
            for (size_t i = 0; http_param_next(c->q->req, &i, &name, &text);)
                if (streq(name, as))
                    val_push_str(c->a, val_need_list(c->a, in, m->key), text);
        } else {
            text = streq(where, "querystring") ? http_param(c->q->req, as) : http_get(c->q->req, as);
            if (text)
                val_put(c->a, in, m->key, value_of(c->a, of, text));
        }
    }
    return in;
}

bool lambda_check(struct aws_req *q, const struct val *operation, const char *const *part, const struct val *body)
{
    struct check c = {.q = q, .a = q->req->arena, .model = model_of(q->d)};
    const char *input = val_str_at(operation, "input", NULL);

    if (!input)
        return true;
    buf_init(&c.told, 64 * 1024);
    check_structure(&c, "", shape_named(&c, input), input_of(&c, operation, part, body), 0);
    if (c.malformed)
        lambda_error(q, 400, "SerializationException", "%s", c.malformed);
    else if (c.problems)
        lambda_error(q, 400, "ValidationException", "%u validation error%s detected: %.*s", c.problems, c.problems > 1 ? "s" : "", (int)c.told.n,
                     c.told.p);
    buf_done(&c.told);
    return !c.malformed && !c.problems;
}
