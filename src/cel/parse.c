/* cel/parse.c - text to nodes, by recursive descent.
 *
 * Calls that name a macro are expanded on the spot (macro.c). The places of nodes are those that
 * upstream gives them (an operator's word, the bracket of a call), because errors show them. */
#include "cel/lex.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum { CODE_POINTS_MAX = 100000 };

struct parser {
    const struct cel_env *env;
    struct arena *a;
    struct issues *is;
    const char *text;
    size_t text_n;
    struct token t; /* the word at hand */
    uint32_t at;    /* behind it */
    uint32_t depth;
    uint32_t first_arg; /* where a call's first argument may be, or its bracket */
    bool bad;
};

#define EXPECTED_EXPR                                                                              \
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, "       \
    "STRING, BYTES, IDENTIFIER}"

#define EXPECTED_ARG                                                                               \
    "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, "  \
    "STRING, BYTES, IDENTIFIER}"

static struct node *parse_expr(struct parser *p);
static struct node *parse_unary(struct parser *p);

struct node *node_new(struct arena *a, enum node_kind kind, uint32_t pos)
{
    struct node *n = arena_new_of(a, struct node);

    n->kind = kind;
    n->pos = pos;
    n->var = n->slot = -1;
    n->depth = 1;
    return n;
}

static struct node *bad(struct parser *p, uint32_t pos, const char *fmt, ...) _printf_(3, 4);
static struct node *bad(struct parser *p, uint32_t pos, const char *fmt, ...)
{
    char msg[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (!p->bad) /* what follows a first error of syntax is a guess */
        issue(p->is, pos, "%s", msg);
    p->bad = true;
    p->t.kind = T_EOF;
    p->at = (uint32_t)p->text_n;
    return NULL;
}

static void advance(struct parser *p)
{
    if (p->bad)
        return;
    for (;;) {
        const char *from;
        size_t n;
        p->t = lex_next(p->text, p->text_n, &p->at);
        if (p->t.kind != T_BAD)
            return;
        from = p->text + p->t.pos;
        n = p->t.n;
        if (strchr("\"'", *from)) /* a string that does not end: it is wrong up to where it breaks */
            n = lex_bad_string(from, p->text_n - p->t.pos);
        issue(p->is, p->t.pos, "Syntax error: token recognition error at: '%.*s'", (int)MIN(n, (size_t)200), from);
        p->at = p->t.pos + (uint32_t)n;
        if (p->is->n >= ISSUES_MAX)
            p->at = (uint32_t)p->text_n;
    }
}

static bool is_op(struct parser *p, const char *op)
{
    return p->t.kind == T_OP && p->t.n == strlen(op) && !memcmp(p->text + p->t.pos, op, p->t.n);
}

static const char *word(struct parser *p)
{
    if (p->t.kind == T_EOF)
        return "<EOF>";
    return arena_strndup(p->a, p->text + p->t.pos, MIN(p->t.n, 200u));
}

static bool accept_op(struct parser *p, const char *op)
{
    if (!is_op(p, op))
        return false;
    advance(p);
    return true;
}

/* Whether the word at hand could stand behind op. */
static bool may_follow(struct parser *p, const char *op)
{
    bool operand = p->t.kind != T_EOF && p->t.kind != T_IN && (p->t.kind != T_OP || (p->t.n == 1 && strchr("[{(.-!", p->text[p->t.pos])));

    return *op == ':' ? operand : !operand || is_op(p, ".") || is_op(p, "[") || is_op(p, "-");
}

static bool expect_op(struct parser *p, const char *op, const char *expected)
{
    if (accept_op(p, op))
        return true;
    if (*expected == '\'' && may_follow(p, op)) /* it is only this word that is missing */
        bad(p, p->t.pos, "Syntax error: missing %s at '%s'", expected, word(p));
    else
        bad(p, p->t.pos, "Syntax error: mismatched input '%s' expecting %s", word(p), expected);
    return false;
}

static struct node *with_args(struct parser *p, struct node *n, struct node **args, uint32_t count)
{
    n->args = args;
    n->n = count;
    for (uint32_t i = 0; i < count; i++)
        if (args[i] && args[i]->depth >= n->depth)
            n->depth = (uint16_t)(args[i]->depth + 1);
    if (n->depth > DEPTH_NODE_MAX)
        return bad(p, n->pos, "expression recursion limit exceeded: %d", CEL_DEPTH_MAX);
    return n;
}

static struct node *call(struct parser *p, const char *name, uint32_t pos, struct node *x, struct node *y,
                         struct node *z)
{
    struct node *n = node_new(p->a, N_CALL, pos), **args = arena_array(p->a, struct node *, 3);

    n->name = name;
    n->name_n = (uint32_t)strlen(name);
    args[0] = x;
    args[1] = y;
    args[2] = z;
    return with_args(p, n, args, z ? 3 : y ? 2 : 1);
}

/* A growing row of nodes with a flag each. */
struct row {
    struct node **v;
    bool *opt;
    const char **names;
    uint32_t *poss;
    uint32_t n, cap;
    bool any_opt;
};
static void row_push(struct arena *a, struct row *r, struct node *x, bool opt, const char *name, uint32_t pos)
{
    if (r->n == r->cap) {
        struct row o = *r;
        r->cap = r->cap ? r->cap * 2 : 4;
        r->v = arena_array(a, struct node *, r->cap);
        r->opt = arena_array(a, bool, r->cap);
        r->names = arena_array(a, const char *, r->cap);
        r->poss = arena_array(a, uint32_t, r->cap);
        if (o.n) {
            memcpy(r->v, o.v, o.n * sizeof *o.v);
            memcpy(r->opt, o.opt, o.n * sizeof *o.opt);
            memcpy(r->names, o.names, o.n * sizeof *o.names);
            memcpy(r->poss, o.poss, o.n * sizeof *o.poss);
        }
    }
    r->v[r->n] = x;
    r->opt[r->n] = opt;
    r->names[r->n] = name;
    r->poss[r->n++] = pos;
    r->any_opt |= opt;
}

static struct node *number_literal(struct parser *p, bool minus, uint32_t pos)
{
    struct node *n = node_new(p->a, N_CONST, pos);
    char text[400];
    enum tok kind = p->t.kind;
    size_t len = p->t.n - (kind == T_UINT);
    char *end;

    if (len + 2 > sizeof text)
        return bad(p, pos, "invalid %s literal", kind == T_INT ? "int" : kind == T_UINT ? "uint" : "double");
    snprintf(text, sizeof text, "%s%.*s", minus ? "-" : "", (int)len, p->text + p->t.pos);
    errno = 0;
    if (kind == T_FLOAT) {
        n->value = cel_double(strtod(text, &end));
        if (isinf(n->value.d))
            return bad(p, pos, "invalid double literal");
    } else {
        bool hex = strchr(text, 'x') != NULL;
        int base = hex ? 16 : 10;
        if (kind == T_INT)
            n->value = cel_int(strtoll(text, &end, base));
        else
            n->value = cel_uint(strtoull(text, &end, base));
        if (errno)
            return bad(p, pos, "invalid %s literal", kind == T_INT ? "int" : "uint");
    }
    advance(p);
    return n;
}

static struct node *string_literal(struct parser *p)
{
    struct node *n = node_new(p->a, N_CONST, p->t.pos);
    bool bytes = p->t.kind == T_BYTES;
    const char *why = NULL, *s;
    size_t len;

    s = lex_unquote(p->a, p->text + p->t.pos + bytes, p->t.n - bytes, bytes, &len, &why);
    if (!s)
        return bad(p, p->t.pos, "%s", why);
    n->value = cel_strn(s, len);
    if (bytes)
        n->value.kind = CEL_BYTES;
    advance(p);
    return n;
}

bool reserved_word(const char *s, size_t n)
{
    static const char *const words[] = {
        "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
        "let", "loop", "package", "namespace", "null", "return", "true", "var", "void", "while"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strlen(words[i]) == n && !memcmp(words[i], s, n))
            return true;
    return false;
}

static bool parse_args(struct parser *p, struct row *r)
{
    if (accept_op(p, ")"))
        return true;
    p->first_arg = p->t.pos;
    do {
        struct node *x = parse_expr(p);
        if (!x)
            return false;
        row_push(p->a, r, x, false, NULL, x->pos);
    } while (accept_op(p, ","));
    return expect_op(p, ")", "{')', ','}");
}

static struct node *finish_call(struct parser *p, const char *name, uint32_t pos, struct node *target)
{
    struct row r = {0};
    struct node *n;
    bool wrong = false;

    if (!parse_args(p, &r))
        return NULL;
    n = macro_expand(p->a, p->is, p->env->flags, pos, name, target, r.v, r.n, &wrong);
    if (wrong) {
        p->bad = true;
        return NULL;
    }
    if (n) {
        uint16_t deepest = target ? target->depth : 0;
        for (uint32_t i = 0; i < r.n; i++)
            deepest = MAX(deepest, r.v[i]->depth);
        n->depth = (uint16_t)(deepest + 4); /* what macros put around their arguments */
        if (n->depth > DEPTH_NODE_MAX)
            return bad(p, pos, "expression recursion limit exceeded: %d", CEL_DEPTH_MAX);
        return n;
    }
    n = node_new(p->a, N_CALL, pos);
    n->name = name;
    n->name_n = (uint32_t)strlen(name);
    n->member = target != NULL;
    if (target) {
        struct node **args = arena_array(p->a, struct node *, r.n + 1);
        args[0] = target;
        for (uint32_t i = 0; i < r.n; i++)
            args[i + 1] = r.v[i];
        return with_args(p, n, args, r.n + 1);
    }
    return with_args(p, n, r.v, r.n);
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = node_new(p->a, N_LIST, p->t.pos);
    struct row r = {0};

    advance(p);
    while (!is_op(p, "]")) {
        bool opt = accept_op(p, "?");
        struct node *x;
        if (r.n == 0 && is_op(p, ",")) { /* [,] is an empty list */
            advance(p);
            break;
        }
        x = parse_expr(p);
        if (!x)
            return NULL;
        row_push(p->a, &r, x, opt, NULL, x->pos);
        if (!accept_op(p, ","))
            break;
    }
    if (!expect_op(p, "]", "{']', ','}"))
        return NULL;
    n->optional = r.any_opt ? r.opt : NULL;
    return with_args(p, n, r.v, r.n);
}

static struct node *parse_map(struct parser *p)
{
    struct node *n = node_new(p->a, N_MAP, p->t.pos);
    struct row r = {0};

    advance(p);
    while (!is_op(p, "}")) {
        bool opt = accept_op(p, "?");
        struct node *key, *value;
        uint32_t colon;
        if (r.n == 0 && is_op(p, ",")) {
            advance(p);
            break;
        }
        key = parse_expr(p);
        colon = p->t.pos;
        if (!key || !expect_op(p, ":", "':'") || !(value = parse_expr(p)))
            return NULL;
        row_push(p->a, &r, key, opt, NULL, colon);
        row_push(p->a, &r, value, opt, NULL, colon);
        if (!accept_op(p, ","))
            break;
    }
    if (!expect_op(p, "}", "{'}', ','}"))
        return NULL;
    n->optional = r.any_opt ? r.opt : NULL;
    n->poss = r.poss;
    return with_args(p, n, r.v, r.n);
}

/* The name after a point or in a struct, quoted or not; NULL: none is there. */
static const char *field_name(struct parser *p)
{
    const char *s = NULL;

    if (p->t.kind == T_IDENT)
        s = arena_strndup(p->a, p->text + p->t.pos, p->t.n);
    else if (p->t.kind == T_ESC_IDENT && (p->env->flags & CEL_PLAIN))
        s = arena_strndup(p->a, p->text + p->t.pos + 1, p->t.n - 2);
    else if (p->t.kind == T_ESC_IDENT)
        bad(p, p->t.pos, "unsupported syntax: '`'");
    if (s)
        advance(p);
    return s;
}

static struct node *parse_struct(struct parser *p, const char *name)
{
    struct node *n = node_new(p->a, N_STRUCT, p->t.pos);
    struct row r = {0};

    n->name = name;
    n->name_n = (uint32_t)strlen(name);
    advance(p);
    while (!is_op(p, "}")) {
        bool opt = accept_op(p, "?");
        const char *field;
        struct node *value;
        uint32_t colon;
        if (r.n == 0 && is_op(p, ",")) {
            advance(p);
            break;
        }
        field = field_name(p);
        if (!field)
            return bad(p, p->t.pos, "Syntax error: mismatched input '%s' expecting {'}', ',', '?', IDENTIFIER}", word(p));
        colon = p->t.pos;
        if (!expect_op(p, ":", "':'") || !(value = parse_expr(p)))
            return NULL;
        row_push(p->a, &r, value, opt, field, colon);
        if (!accept_op(p, ","))
            break;
    }
    if (!expect_op(p, "}", "{'}', ','}"))
        return NULL;
    n->optional = r.any_opt ? r.opt : NULL;
    n->names = r.names;
    n->poss = r.poss;
    return with_args(p, n, r.v, r.n);
}

static struct node *parse_ident(struct parser *p, bool dot, uint32_t dot_pos)
{
    const char *name;
    uint32_t pos = p->t.pos;
    struct node *n;

    if (p->t.kind != T_IDENT)
        return bad(p, p->t.pos, "Syntax error: mismatched input '%s' expecting IDENTIFIER", word(p));
    name = arena_strndup(p->a, p->text + pos, p->t.n);
    advance(p);
    if (reserved_word(name, strlen(name)))
        return bad(p, dot ? dot_pos : pos, "reserved identifier: %s", name);
    if (dot)
        name = arena_printf(p->a, ".%s", name);
    if (is_op(p, "(")) {
        uint32_t open = p->t.pos;
        advance(p);
        return finish_call(p, name, open, NULL);
    }
    n = node_new(p->a, N_IDENT, pos);
    n->name = name;
    n->name_n = (uint32_t)strlen(name);
    return n;
}

/* Whether the word after the one at hand may begin an expression. */
static bool starts_expr(struct parser *p)
{
    uint32_t at = p->at;
    struct token t = lex_next(p->text, p->text_n, &at);

    switch (t.kind) {
    case T_EOF: case T_BAD: case T_IN: case T_ESC_IDENT:
        return false;
    case T_OP:
        return t.n == 1 && strchr("[{(.-!", p->text[t.pos]);
    default:
        return true;
    }
}

static struct node *parse_primary(struct parser *p)
{
    struct node *n;
    uint32_t pos = p->t.pos;

    switch (p->t.kind) {
    case T_INT: case T_UINT: case T_FLOAT:
        return number_literal(p, false, pos);
    case T_STRING: case T_BYTES:
        return string_literal(p);
    case T_TRUE: case T_FALSE: case T_NULL:
        n = node_new(p->a, N_CONST, pos);
        n->value = p->t.kind == T_NULL ? cel_null() : cel_bool(p->t.kind == T_TRUE);
        advance(p);
        return n;
    case T_IDENT:
        return parse_ident(p, false, pos);
    case T_OP:
        if (accept_op(p, "(")) {
            n = parse_expr(p);
            return n && expect_op(p, ")", "')'") ? n : NULL;
        }
        if (is_op(p, "["))
            return parse_list(p);
        if (is_op(p, "{"))
            return parse_map(p);
        if (accept_op(p, "."))
            return parse_ident(p, true, pos);
        break;
    default:
        break;
    }
    if (p->t.kind == T_OP && starts_expr(p)) /* without this word it would go on */
        return bad(p, pos, "Syntax error: extraneous input '%s' expecting " EXPECTED_EXPR, word(p));
    return bad(p, pos, "Syntax error: mismatched input '%s' expecting %s", word(p), p->first_arg == pos && pos ? EXPECTED_ARG : EXPECTED_EXPR);
}

/* "a.b.c" when the node is such a chain of names, else NULL. */
static const char *qualified(struct parser *p, const struct node *n)
{
    const char *head;

    if (n->kind == N_IDENT)
        return n->name;
    if (n->kind != N_SELECT || n->test || !(head = qualified(p, n->args[0])))
        return NULL;
    return arena_printf(p->a, "%s.%s", head, n->name);
}

static struct node *parse_select(struct parser *p, struct node *n)
{
    uint32_t dot = p->t.pos;
    const char *name;
    struct node *s, **args;
    bool opt;

    advance(p);
    opt = accept_op(p, "?");
    name = NULL;
    {
        uint32_t pos = p->t.pos;
        name = field_name(p);
        if (!name)
            return p->t.kind == T_OP || p->t.kind == T_EOF
                       ? bad(p, pos, "Syntax error: no viable alternative at input '.%s'", p->t.kind == T_EOF ? "" : word(p))
                       : bad(p, pos, "Syntax error: mismatched input '%s' expecting IDENTIFIER", word(p));
        if (opt) {
            struct node *field = node_new(p->a, N_CONST, pos);
            field->value = cel_str(name);
            return call(p, "_?._", dot, n, field, NULL);
        }
    }
    if (is_op(p, "(")) {
        uint32_t open = p->t.pos;
        advance(p);
        return finish_call(p, name, open, n);
    }
    s = node_new(p->a, N_SELECT, dot);
    s->name = name;
    s->name_n = (uint32_t)strlen(name);
    args = arena_array(p->a, struct node *, 1);
    args[0] = n;
    return with_args(p, s, args, 1);
}

static struct node *parse_member(struct parser *p, struct node *n)
{
    while (n) {
        if (is_op(p, ".")) {
            n = parse_select(p, n);
        } else if (is_op(p, "[")) {
            uint32_t pos = p->t.pos;
            struct node *index;
            bool opt;
            advance(p);
            opt = accept_op(p, "?");
            index = parse_expr(p);
            if (!index || !expect_op(p, "]", "']'"))
                return NULL;
            n = call(p, opt ? "_[?_]" : "_[_]", pos, n, index, NULL);
        } else if (is_op(p, "{")) {
            const char *name = qualified(p, n);
            if (!name)
                break;
            n = parse_struct(p, name);
        } else {
            break;
        }
    }
    return n;
}

static struct node *parse_unary(struct parser *p)
{
    uint32_t pos = p->t.pos, count = 0;
    const char *op = is_op(p, "!") ? "!" : is_op(p, "-") ? "-" : NULL;
    struct node *n;

    if (!op)
        return parse_member(p, parse_primary(p));
    while (is_op(p, op)) {
        uint32_t minus = p->t.pos;
        advance(p);
        count++;
        if (*op == '-' && count == 1 && (p->t.kind == T_INT || p->t.kind == T_FLOAT))
            return parse_member(p, number_literal(p, true, minus));
    }
    if (*op == '!' && is_op(p, "-")) { /* only a negative number may follow */
        uint32_t minus = p->t.pos;
        advance(p);
        if (p->t.kind != T_INT && p->t.kind != T_FLOAT)
            return bad(p, minus, "Syntax error: no viable alternative at input '-'");
        n = parse_member(p, number_literal(p, true, minus));
    } else {
        n = parse_member(p, parse_primary(p));
    }
    if (!n || count % 2 == 0)
        return n;
    return call(p, *op == '!' ? "!_" : "-_", pos, n, NULL, NULL);
}

static struct node *parse_calc(struct parser *p, int level) /* 0: + and -, 1: * / % */
{
    struct node *n = level ? parse_unary(p) : parse_calc(p, 1);

    while (n) {
        const char *name = !level ? (is_op(p, "+") ? "_+_" : is_op(p, "-") ? "_-_" : NULL)
                                  : (is_op(p, "*")   ? "_*_"
                                     : is_op(p, "/") ? "_/_"
                                     : is_op(p, "%") ? "_%_"
                                                     : NULL);
        uint32_t pos = p->t.pos;
        struct node *right;
        if (!name)
            break;
        advance(p);
        right = level ? parse_unary(p) : parse_calc(p, 1);
        if (!right)
            return NULL;
        n = call(p, name, pos, n, right, NULL);
    }
    return n;
}

static struct node *parse_relation(struct parser *p)
{
    static const char *const ops[][2] = {{"<", "_<_"}, {"<=", "_<=_"}, {">", "_>_"},
                                         {">=", "_>=_"}, {"==", "_==_"}, {"!=", "_!=_"}};
    struct node *n = parse_calc(p, 0);

    while (n) {
        const char *name = p->t.kind == T_IN ? "@in" : NULL;
        uint32_t pos = p->t.pos;
        struct node *right;
        for (size_t i = 0; i < ARRAY_LEN(ops) && !name; i++)
            if (is_op(p, ops[i][0]))
                name = ops[i][1];
        if (!name)
            break;
        advance(p);
        right = parse_calc(p, 0);
        if (!right)
            return NULL;
        n = call(p, name, pos, n, right, NULL);
    }
    return n;
}

/* a && b && c is one node of three: evaluation and cost are the same as of nested pairs. */
static struct node *parse_logic(struct parser *p, bool is_or)
{
    struct node *n = is_or ? parse_logic(p, false) : parse_relation(p);
    struct row r = {0};
    uint32_t pos = p->t.pos;
    struct node *c;

    if (!n || !is_op(p, is_or ? "||" : "&&"))
        return n;
    row_push(p->a, &r, n, false, NULL, pos);
    while (accept_op(p, is_or ? "||" : "&&")) {
        n = is_or ? parse_logic(p, false) : parse_relation(p);
        if (!n)
            return NULL;
        row_push(p->a, &r, n, false, NULL, pos);
    }
    c = node_new(p->a, N_CALL, pos);
    c->name = is_or ? "_||_" : "_&&_";
    c->name_n = 4;
    return with_args(p, c, r.v, r.n);
}

static struct node *parse_expr(struct parser *p)
{
    struct node *n, *yes, *no;

    if (++p->depth > CEL_DEPTH_MAX)
        return bad(p, p->t.pos, "expression recursion limit exceeded: %d", CEL_DEPTH_MAX);
    n = parse_logic(p, true);
    if (n && is_op(p, "?")) {
        uint32_t pos = p->t.pos;
        advance(p);
        yes = parse_logic(p, true);
        if (!yes || !expect_op(p, ":", "':'") || !(no = parse_expr(p)))
            return NULL;
        n = call(p, "_?_:_", pos, n, yes, no);
    }
    p->depth--;
    return n;
}

struct node *cel_parse(const struct cel_env *env, struct arena *a, struct issues *is)
{
    struct parser p = {.env = env, .a = a, .is = is, .text = is->text, .text_n = is->text_n};
    size_t points = utf8_len(is->text, is->text_n);
    struct node *n;

    if (points > CODE_POINTS_MAX) {
        issue(is, 0, "expression code point size exceeds limit: size: %zu, limit %d", points, CODE_POINTS_MAX);
        return NULL;
    }
    advance(&p);
    n = parse_expr(&p);
    if (n && !p.bad && p.t.kind != T_EOF) {
        uint32_t at = p.at;
        struct token after = lex_next(p.text, p.text_n, &at);
        while (after.kind == T_BAD)
            after = lex_next(p.text, p.text_n, &at);
        bad(&p, p.t.pos, "Syntax error: %s input '%s' expecting %s", after.kind == T_EOF ? "extraneous" : "mismatched",
            word(&p), "<EOF>");
    }
    return p.bad || is->n ? NULL : n;
}
