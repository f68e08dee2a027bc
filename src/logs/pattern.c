/* The filter language: a pattern becomes a tree of conditions; a text is words, a JSON tree or columns.
 *
 *   expr    = and { "||" and }          and = unary { "&&" unary }         unary = "(" expr ")" | condition
 *   condition = what op value | what IS (NULL|TRUE|FALSE) | what [NOT] EXISTS
 * In { } `what` is a path ($.a.b[0], $['a b']), in [ ] a column's name. */
#include "logs/pattern.h"

#include "base/arena.h"
#include "codec/json.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <strings.h>

enum { DEPTH_MAX = 32, COLUMNS_MAX = 100 };

enum node_kind { AND, OR, COMPARE, IS_NULL, IS_TRUE, IS_FALSE, EXISTS, NOT_EXISTS };
enum op { EQ, NE, LT, LE, GT, GE };

struct step { /* of a path: a key, or a number in a list (key NULL) */
    const char *key;
    uint32_t index;
};

struct node {
    enum node_kind kind;
    struct node *a, *b;
    /* COMPARE and the others */
    struct step *path;
    uint32_t path_n;
    uint32_t column;
    enum op op;
    bool number, word; /* word: not quoted, so that it may be a boolean too */
    double d;
    const char *text; /* with '*' where anything may stand */
    pcre2_code *regex;
};

struct term {
    const char *text;
    pcre2_code *regex;
    char sort; /* 0, '?', '-' */
};

struct log_pattern {
    struct arena *arena, *scratch;
    enum { WORDS, JSON, COLUMNS } form;
    struct term *terms;
    uint32_t terms_n;
    bool plain; /* a word or -word is among them */
    struct node *top; /* NULL: any */
    const char **columns; /* names; "..." stands for any number of them */
    uint32_t columns_n;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_code **codes;
    uint32_t codes_n;
};

struct parse {
    struct log_pattern *p;
    const char *at;
    int depth;
    struct err *err;
};

void *log_pattern_free(struct log_pattern *p)
{
    if (!p)
        return NULL;
    for (uint32_t i = 0; i < p->codes_n; i++)
        pcre2_code_free(p->codes[i]);
    free(p->codes);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
    arena_free(p->scratch);
    arena_free(p->arena);
    free(p);
    return NULL;
}

/* ---- small things ---- */

static int wrong(struct parse *s, const char *what)
{
    return err_set(s->err, INVALID_ARGUMENT, "Invalid filter pattern: %s, at \"%.40s\"", what, s->at);
}

static void blanks(struct parse *s)
{
    while (isspace((unsigned char)*s->at))
        s->at++;
}

static bool take(struct parse *s, const char *token)
{
    blanks(s);
    if (!str_starts(s->at, token))
        return false;
    s->at += strlen(token);
    return true;
}

static bool take_word(struct parse *s, const char *word)
{
    size_t n = strlen(word);

    blanks(s);
    if (strncasecmp(s->at, word, n) != 0 || isalnum((unsigned char)s->at[n]) || s->at[n] == '_')
        return false;
    s->at += n;
    return true;
}

static pcre2_code *compile(struct parse *s, const char *text, size_t n)
{
    struct log_pattern *p = s->p;
    int code;
    PCRE2_SIZE where;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)text, n, PCRE2_NEVER_BACKSLASH_C, &code, &where, NULL);

    if (!re) {
        wrong(s, "the expression between % is malformed");
        return NULL;
    }
    p->codes = xrealloc(p->codes, (p->codes_n + 1) * sizeof *p->codes);
    p->codes[p->codes_n++] = re;
    return re;
}

/* "..." with \" and \\ in it; at the opening quote. */
static char *quoted(struct parse *s)
{
    char *out = arena_raw(s->p->arena, strlen(s->at) + 1), *o = out;

    for (s->at++; *s->at && *s->at != '"'; s->at++) {
        if (*s->at == '\\' && (s->at[1] == '"' || s->at[1] == '\\'))
            s->at++;
        *o++ = *s->at;
    }
    *o = 0;
    if (*s->at != '"') {
        wrong(s, "a quote is not closed");
        return NULL;
    }
    s->at++;
    return out;
}

/* %...%; at the opening one. NULL: it is not closed, or malformed. */
static pcre2_code *regex(struct parse *s)
{
    const char *end = strchr(s->at + 1, '%');
    pcre2_code *re;

    if (!end || end == s->at + 1) {
        wrong(s, "an expression is not closed by %");
        return NULL;
    }
    re = compile(s, s->at + 1, (size_t)(end - s->at - 1));
    s->at = end + 1;
    return re;
}

/* ---- words ---- */

static int parse_words(struct parse *s)
{
    struct log_pattern *p = s->p;

    p->terms = arena_array(p->arena, struct term, strlen(s->at) / 2 + 1);
    for (blanks(s); *s->at; blanks(s)) {
        struct term *t = &p->terms[p->terms_n];

        t->sort = (*s->at == '?' || *s->at == '-') && s->at[1] && !isspace((unsigned char)s->at[1]) ? *s->at++ : 0;
        if (*s->at == '"') {
            t->text = quoted(s);
            if (!t->text)
                return -1;
        } else if (*s->at == '%' && strchr(s->at + 1, '%')) {
            t->regex = regex(s);
            if (!t->regex)
                return -1;
        } else {
            size_t n = strcspn(s->at, " \t\r\n");

            t->text = arena_strndup(p->arena, s->at, n);
            s->at += n;
        }
        p->plain |= t->sort != '?';
        p->terms_n++;
    }
    return 0;
}

/* ---- conditions ---- */

static int parse_path(struct parse *s, struct node *n)
{
    struct arena *a = s->p->arena;

    if (!take(s, "$"))
        return wrong(s, "a path begins with $");
    n->path = arena_array(a, struct step, strlen(s->at) + 1);
    while (*s->at == '.' || *s->at == '[') {
        struct step *t = &n->path[n->path_n];

        if (n->path_n == 32)
            return wrong(s, "the path is too long");
        if (s->at[0] == '[' && (s->at[1] == '\'' || s->at[1] == '"')) {
            const char *end = strchr(s->at + 2, s->at[1]);

            if (!end || end[1] != ']')
                return wrong(s, "a key's bracket is not closed");
            t->key = arena_strndup(a, s->at + 2, (size_t)(end - s->at - 2));
            s->at = end + 2;
        } else if (s->at[0] == '[') {
            char *end;

            if (!isdigit((unsigned char)s->at[1]))
                return wrong(s, "a place in a list is a number");
            t->index = (uint32_t)strtoul(s->at + 1, &end, 10);
            if (*end != ']')
                return wrong(s, "a bracket is not closed");
            s->at = end + 1;
        } else {
            size_t len = strcspn(s->at + 1, " \t\r\n.[]=!<>&|(){}\"'");

            if (s->at[1] == '[' && !len) { /* $.['a b'] */
                s->at++;
                continue;
            }
            if (!len)
                return wrong(s, "a key is missing");
            t->key = arena_strndup(a, s->at + 1, len);
            s->at += 1 + len;
        }
        n->path_n++;
    }
    return 0;
}

static int parse_value(struct parse *s, struct node *n)
{
    size_t len;
    char *end;

    blanks(s);
    if (*s->at == '"')
        return (n->text = quoted(s)) ? 0 : -1;
    if (*s->at == '%')
        return (n->regex = regex(s)) ? 0 : -1;
    len = strcspn(s->at, " \t\r\n,&|(){}[]\"");
    if (!len)
        return wrong(s, "a value is missing");
    n->text = arena_strndup(s->p->arena, s->at, len);
    n->word = true;
    n->d = strtod(n->text, &end);
    n->number = !*end && isfinite(n->d) && !strpbrk(n->text, "xXnN");
    s->at += len;
    return 0;
}

static int parse_op(struct parse *s, struct node *n)
{
    static const struct {
        const char *text;
        enum op op;
    } ops[] = {{"!=", NE}, {"<=", LE}, {">=", GE}, {"==", EQ}, {"=", EQ}, {"<", LT}, {">", GT}};

    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (take(s, ops[i].text)) {
            n->kind = COMPARE;
            n->op = ops[i].op;
            if (parse_value(s, n) < 0)
                return -1;
            return n->op >= LT && !n->number ? wrong(s, "less and greater want a number") : 0;
        }
    if (take_word(s, "IS")) {
        n->kind = take_word(s, "NULL") ? IS_NULL : take_word(s, "TRUE") ? IS_TRUE : IS_FALSE;
        return n->kind == IS_FALSE && !take_word(s, "FALSE") ? wrong(s, "IS wants NULL, TRUE or FALSE") : 0;
    }
    n->kind = take_word(s, "NOT") ? NOT_EXISTS : EXISTS;
    return take_word(s, "EXISTS") ? 0 : wrong(s, "an operator is missing");
}

static struct node *node_new(struct parse *s, enum node_kind kind, struct node *a, struct node *b)
{
    struct node *n = arena_new_of(s->p->arena, struct node);

    n->kind = kind;
    n->a = a;
    n->b = b;
    return n;
}

static struct node *parse_or(struct parse *s, int column);

static struct node *parse_unary(struct parse *s, int column)
{
    struct node *n;

    if (++s->depth > DEPTH_MAX) {
        wrong(s, "too many brackets");
        return NULL;
    }
    if (take(s, "(")) {
        n = parse_or(s, column);
        if (n && !take(s, ")")) {
            wrong(s, "a bracket is not closed");
            return NULL;
        }
        s->depth--;
        return n;
    }
    n = node_new(s, COMPARE, NULL, NULL);
    blanks(s);
    if (column < 0) {
        if (parse_path(s, n) < 0)
            return NULL;
    } else {
        size_t len = strspn(s->at, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");

        if (len != strlen(s->p->columns[column]) || strncmp(s->at, s->p->columns[column], len) != 0) {
            wrong(s, "a condition names its own column");
            return NULL;
        }
        s->at += len;
        n->column = (uint32_t)column;
    }
    s->depth--;
    return parse_op(s, n) < 0 ? NULL : n;
}

static struct node *parse_and(struct parse *s, int column)
{
    struct node *n = parse_unary(s, column);

    while (n && take(s, "&&")) {
        struct node *b = parse_unary(s, column);

        n = b ? node_new(s, AND, n, b) : NULL;
    }
    return n;
}

static struct node *parse_or(struct parse *s, int column)
{
    struct node *n = parse_and(s, column);

    while (n && take(s, "||")) {
        struct node *b = parse_and(s, column);

        n = b ? node_new(s, OR, n, b) : NULL;
    }
    return n;
}

static int parse_columns(struct parse *s)
{
    struct log_pattern *p = s->p;
    bool any = false;

    p->columns = arena_array(p->arena, const char *, COLUMNS_MAX);
    s->at++;
    if (take(s, "]"))
        return 0;
    do {
        size_t len;
        const char *start;

        blanks(s);
        if (p->columns_n == COLUMNS_MAX)
            return wrong(s, "too many columns");
        if (take(s, "...")) {
            if (any)
                return wrong(s, "... may come once");
            any = true;
            p->columns[p->columns_n++] = "...";
            continue;
        }
        start = s->at + (*s->at == '(');
        len = strspn(start, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
        p->columns[p->columns_n++] = arena_strndup(p->arena, start, len);
        if (!len) /* a column without a name */
            continue;
        start += len;
        start += strspn(start, " \t");
        if (*start == ',' || *start == ']') {
            s->at = start;
        } else {
            struct node *n = parse_or(s, (int)p->columns_n - 1);

            if (!n)
                return -1;
            p->top = p->top ? node_new(s, AND, p->top, n) : n;
        }
    } while (take(s, ","));
    return take(s, "]") ? 0 : wrong(s, "the list of columns is not closed");
}

struct log_pattern *log_pattern_parse(const char *text, struct err *err)
{
    struct log_pattern *p = xcalloc(1, sizeof *p);
    struct parse s = {p, text, 0, err};
    int ret = 0;

    p->arena = arena_new();
    p->scratch = arena_new();
    p->match = pcre2_match_data_create(1, NULL);
    p->limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(p->limits, 100000);
    pcre2_set_depth_limit(p->limits, 1000);
    blanks(&s);
    if (strlen(text) > LOG_PATTERN_MAX) {
        ret = err_set(err, INVALID_ARGUMENT, "Invalid filter pattern: it is longer than %d characters", LOG_PATTERN_MAX);
    } else if (*s.at == '{') {
        p->form = JSON;
        s.at++;
        p->top = parse_or(&s, -1);
        ret = !p->top ? -1 : take(&s, "}") ? 0 : wrong(&s, "the bracket is not closed");
    } else if (*s.at == '[') {
        p->form = COLUMNS;
        ret = parse_columns(&s);
    } else {
        ret = parse_words(&s);
    }
    blanks(&s);
    if (ret == 0 && *s.at)
        ret = wrong(&s, "there is more behind its end");
    if (ret < 0)
        return log_pattern_free(p);
    return p;
}

/* ---- matching ---- */

static bool regex_hits(struct log_pattern *p, const pcre2_code *re, const char *text, size_t n)
{
    return pcre2_match(re, (PCRE2_SPTR)text, n, 0, 0, p->match, p->limits) >= 0;
}

static bool has(const char *text, size_t n, const char *part)
{
    return memmem(text, n, part, strlen(part)) != NULL;
}

static bool match_words(struct log_pattern *p, const char *text, size_t n)
{
    bool one = !p->terms_n || p->plain;

    for (uint32_t i = 0; i < p->terms_n; i++) {
        const struct term *t = &p->terms[i];
        bool hit;

        if (p->plain && t->sort == '?')
            continue;
        hit = t->regex ? regex_hits(p, t->regex, text, n) : has(text, n, t->text);
        if (t->sort == '?')
            one |= hit;
        else if (hit == (t->sort == '-'))
            return false;
    }
    return one;
}

/* '*' in the pattern stands for anything; no recursion, no more than n * m steps. */
static bool glob(const char *pattern, const char *text, size_t n)
{
    const char *star = NULL;
    size_t at = 0, back = 0;

    while (at < n) {
        if (*pattern == '*') {
            star = ++pattern;
            back = at;
        } else if (*pattern && *pattern == text[at]) {
            pattern++;
            at++;
        } else if (star) {
            pattern = star;
            at = ++back;
        } else {
            return false;
        }
    }
    return !pattern[strspn(pattern, "*")];
}

static bool order_fits(enum op op, double x, double y)
{
    switch (op) {
    case EQ: return x == y;
    case NE: return x != y;
    case LT: return x < y;
    case LE: return x <= y;
    case GT: return x > y;
    case GE: return x >= y;
    }
    return false;
}

static bool text_fits(struct log_pattern *p, const struct node *c, const char *text, size_t n)
{
    bool hit = c->regex ? regex_hits(p, c->regex, text, n) : glob(c->text, text, n);

    return c->op == EQ ? hit : c->op == NE ? !hit : false;
}

static const struct val *at_path(const struct val *v, const struct node *c)
{
    for (uint32_t i = 0; v && i < c->path_n; i++) {
        const struct step *t = &c->path[i];

        if (t->key)
            v = val_get(v, t->key);
        else
            v = val_is(v, VAL_LIST) && t->index < v->n ? &v->items[t->index] : NULL;
    }
    return v;
}

static bool value_fits(struct log_pattern *p, const struct node *c, const struct val *v)
{
    if (!v || v->type == VAL_MAP || v->type == VAL_LIST)
        return false; /* != too wants something to be there */
    if (val_is_number(v)) {
        double d = val_num(v);
        char text[40];

        if (c->number)
            return order_fits(c->op, d, c->d);
        snprintf(text, sizeof text, "%.17g", d);
        return text_fits(p, c, text, strlen(text));
    }
    if (v->type == VAL_STR && c->number && c->op >= LT)
        return false;
    if (v->type == VAL_STR)
        return text_fits(p, c, v->s, v->n);
    if (v->type == VAL_BOOL && c->word)
        return text_fits(p, c, v->b ? "true" : "false", v->b ? 4 : 5);
    return false;
}

static bool holds_json(struct log_pattern *p, const struct node *c, const struct val *top)
{
    const struct val *v;

    if (c->kind == AND)
        return holds_json(p, c->a, top) && holds_json(p, c->b, top);
    if (c->kind == OR)
        return holds_json(p, c->a, top) || holds_json(p, c->b, top);
    v = at_path(top, c);
    switch (c->kind) {
    case IS_NULL: return val_is(v, VAL_NULL);
    case IS_TRUE: return val_is(v, VAL_BOOL) && v->b;
    case IS_FALSE: return val_is(v, VAL_BOOL) && !v->b;
    case EXISTS: return v;
    case NOT_EXISTS: return !v;
    default: return value_fits(p, c, v);
    }
}

struct column {
    const char *text;
    size_t n;
};

/* Parted by blanks; "..." and [...] are one column. */
static uint32_t split(const char *text, size_t n, struct column *out, uint32_t max)
{
    const char *end = text + n;
    uint32_t found = 0;

    while (text < end) {
        const char *stop = NULL;

        if (isspace((unsigned char)*text)) {
            text++;
            continue;
        }
        if (found == max)
            return max + 1;
        if (*text == '"' || *text == '[')
            stop = memchr(text + 1, *text == '"' ? '"' : ']', (size_t)(end - text - 1));
        if (stop) {
            text++;
        } else {
            for (stop = text; stop < end && !isspace((unsigned char)*stop); stop++)
                ;
        }
        out[found++] = (struct column){text, (size_t)(stop - text)};
        text = stop + (stop < end);
    }
    return found;
}

static bool holds_column(struct log_pattern *p, const struct node *c, const struct column *v)
{
    const struct column *x;

    if (c->kind == AND)
        return holds_column(p, c->a, v) && holds_column(p, c->b, v);
    if (c->kind == OR)
        return holds_column(p, c->a, v) || holds_column(p, c->b, v);
    x = &v[c->column];
    if (c->kind == EXISTS || c->kind == NOT_EXISTS)
        return c->kind == EXISTS;
    if (c->kind != COMPARE)
        return false;
    if (c->number) {
        char number[64], *end;
        double d;

        snprintf(number, sizeof number, "%.*s", (int)MIN(x->n, sizeof number - 1), x->text);
        d = strtod(number, &end);
        if (end != number && !*end)
            return order_fits(c->op, d, c->d);
    }
    return c->op < LT && text_fits(p, c, x->text, x->n);
}

static bool match_columns(struct log_pattern *p, const char *text, size_t n)
{
    struct column found[COLUMNS_MAX * 2], v[COLUMNS_MAX] = {0};
    uint32_t many = split(text, n, found, ARRAY_LEN(found)), at = 0, any = COLUMNS_MAX;

    for (uint32_t i = 0; i < p->columns_n; i++)
        if (streq(p->columns[i], "..."))
            any = i;
    if (!p->columns_n || many > ARRAY_LEN(found))
        return !p->columns_n;
    if (any == COLUMNS_MAX ? many != p->columns_n : many + 1 < p->columns_n)
        return false;
    for (uint32_t i = 0; i < p->columns_n; i++)
        if (i == any)
            at += many + 1 - p->columns_n;
        else
            v[i] = found[at++];
    return !p->top || holds_column(p, p->top, v);
}

bool log_pattern_match(struct log_pattern *p, const char *text, size_t n)
{
    struct err err;
    struct val *v;

    switch (p->form) {
    case WORDS:
        return match_words(p, text, n);
    case COLUMNS:
        return match_columns(p, text, n);
    case JSON:
        while (n && isspace((unsigned char)*text)) {
            text++;
            n--;
        }
        if (!n || *text != '{')
            return false;
        arena_reset(p->scratch);
        v = json_parse(p->scratch, text, n, &err);
        return v && holds_json(p, p->top, v);
    }
    return false;
}
