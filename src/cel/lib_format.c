/* cel/lib_format.c - "...".format([...]): %s %d %f %e %b %o %x %X with a precision.
 *
 * Kubernetes has an early version of it, in which %f and %e write numbers as an English text would
 * (1,234.500000 and 1.234500 x 10 to the 03); the language today writes them as C does. */
#include "cel/lib.h"

#include "base/buf.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

struct format {
    struct eval *e;
    struct buf out;
    bool plain; /* the language's version of today */
    struct cel_value error;
};

static bool wrong(struct format *f, const char *fmt, ...) _printf_(2, 3);
static bool wrong(struct format *f, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    f->error = fail(f->e, "%s", text);
    return false;
}

static bool as_string(struct format *f, struct cel_value v, int depth);

/* As Go's %q: what cannot be printed is escaped. */
static void quoted(struct buf *b, const char *s, size_t n)
{
    static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";

    buf_addc(b, '"');
    for (size_t at = 0; at < n;) {
        size_t was = at;
        uint32_t c = utf8_next(s, n, &at);
        const char *k = c && c < 0x80 ? strchr(from, (int)c) : NULL;
        if (k)
            buf_printf(b, "\\%c", to[k - from]);
        else if (c < 0x20 || c == 0x7f || (c == 0xfffd && at - was == 1))
            buf_printf(b, "\\x%02x", (unsigned char)s[was]);
        else
            buf_add(b, s + was, at - was);
    }
    buf_addc(b, '"');
}

/* A member of a list or map. */
static bool member(struct format *f, struct cel_value v, int depth)
{
    char text[400];

    if (f->plain)
        return as_string(f, v, depth);
    switch (v.kind) {
    case CEL_STRING: case CEL_BYTES:
        if (v.kind == CEL_BYTES)
            buf_addc(&f->out, 'b');
        quoted(&f->out, v.s, v.n);
        return true;
    case CEL_DOUBLE:
        if (isnan(v.d) || isinf(v.d)) {
            buf_printf(&f->out, "\"%s\"", isnan(v.d) ? "NaN" : v.d < 0 ? "-Inf" : "+Inf");
            return true;
        }
        snprintf(text, sizeof text, "%.6f", v.d);
        buf_adds(&f->out, text);
        return true;
    case CEL_TIMESTAMP:
        timestamp_write(text, v);
        buf_printf(&f->out, "timestamp(\"%s\")", text);
        return true;
    case CEL_DURATION:
        duration_write(text, v);
        buf_printf(&f->out, "duration(\"%s\")", text);
        return true;
    case CEL_TYPE:
        buf_printf(&f->out, "type(%s)", type_name(f->e->arena, v.t));
        return true;
    default:
        return as_string(f, v, depth);
    }
}

struct pair {
    char *key, *value;
};
static int pair_cmp(const void *x, const void *y)
{
    return strcmp(((const struct pair *)x)->key, ((const struct pair *)y)->key);
}

static char *taken(struct format *f, struct buf *was)
{
    char *s = arena_strndup(f->e->arena, f->out.p ? f->out.p : "", f->out.n);

    buf_done(&f->out);
    f->out = *was;
    return s;
}

static bool as_map(struct format *f, struct cel_value v, int depth)
{
    uint32_t n = map_len(v);
    struct pair *pairs = mem(f->e, n * sizeof *pairs);

    for (uint32_t i = 0; i < n; i++) {
        struct cel_value k = map_key_at(f->e, v, i);
        struct buf was = f->out;
        bool ok;
        buf_init(&f->out, 1 << 20);
        ok = k.kind == CEL_STRING || k.kind == CEL_BOOL || k.kind == CEL_INT || k.kind == CEL_UINT
                 ? member(f, k, depth)
                 : wrong(f, "no formatting function for map key of type %s", value_type_name(f->e->arena, k));
        pairs[i].key = taken(f, &was);
        if (!ok)
            return false;
        was = f->out;
        buf_init(&f->out, 1 << 20);
        ok = member(f, map_value_at(f->e, v, i), depth);
        pairs[i].value = taken(f, &was);
        if (!ok)
            return false;
    }
    qsort(pairs, n, sizeof *pairs, pair_cmp);
    buf_addc(&f->out, '{');
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&f->out, "%s%s%s%s", i ? ", " : "", pairs[i].key, f->plain ? ": " : ":", pairs[i].value);
    buf_addc(&f->out, '}');
    return true;
}

static bool as_string(struct format *f, struct cel_value v, int depth)
{
    char text[400];

    if (depth > 50)
        return wrong(f, "the value nests too deeply");
    switch (v.kind) {
    case CEL_LIST:
        buf_addc(&f->out, '[');
        for (uint32_t i = 0, n = list_len(v); i < n; i++) {
            if (i)
                buf_adds(&f->out, ", ");
            if (!member(f, list_at(f->e, v, i), depth + 1))
                return false;
        }
        buf_addc(&f->out, ']');
        return true;
    case CEL_MAP: case CEL_OBJECT:
        return as_map(f, v, depth + 1);
    case CEL_DOUBLE:
        if (f->plain && isinf(v.d)) {
            buf_adds(&f->out, v.d < 0 ? "-Infinity" : "Infinity");
            return true;
        }
        double_write(text, v.d);
        buf_adds(&f->out, text);
        return true;
    case CEL_NULL: case CEL_BOOL: case CEL_INT: case CEL_UINT: case CEL_TIMESTAMP: case CEL_DURATION: case CEL_TYPE:
        buf_adds(&f->out, cel_text(f->e->arena, v));
        return true;
    case CEL_STRING: case CEL_BYTES:
        buf_add(&f->out, v.s, v.n);
        return true;
    case CEL_ERROR:
        f->error = v;
        return false;
    default:
        return wrong(f, "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, "
                        "types, durations, and timestamps, was given %s", value_type_name(f->e->arena, v));
    }
}

static void grouped(struct buf *b, const char *number) /* 1234567.8 as 1,234,567.8 */
{
    size_t whole;

    if (*number == '-')
        buf_addc(b, *number++);
    whole = strspn(number, "0123456789");
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % 3 == 0)
            buf_addc(b, ',');
        buf_addc(b, number[i]);
    }
    buf_adds(b, number + whole);
}

static void scientific(struct buf *b, const char *number) /* 1.5e+03 with a real power of ten */
{
    static const char *const digits[] = {"\xe2\x81\xb0", "\xc2\xb9", "\xc2\xb2", "\xc2\xb3", "\xe2\x81\xb4",
                                         "\xe2\x81\xb5", "\xe2\x81\xb6", "\xe2\x81\xb7", "\xe2\x81\xb8", "\xe2\x81\xb9"};
    const char *e = strchr(number, 'e');

    buf_add(b, number, (size_t)(e - number));
    buf_adds(b, "\xc3\x97" "10");
    if (e[1] == '-')
        buf_adds(b, "\xe2\x81\xbb");
    for (e += 2; *e; e++)
        buf_adds(b, digits[*e - '0']);
}

static bool as_double(struct format *f, struct cel_value v, char clause, int precision)
{
    char text[1500];
    const char *what = clause == 'f' ? "fixed-point" : "scientific";
    double d = v.d;

    if (v.kind == CEL_STRING && !f->plain && ((v.n == 3 && !memcmp(v.s, "NaN", 3)) || (v.n == 8 && !memcmp(v.s, "Infinity", 8)) ||
                                 (v.n == 9 && !memcmp(v.s, "-Infinity", 9))))
        d = v.n == 3 ? NAN : v.n == 8 ? INFINITY : -INFINITY;
    else if (f->plain && v.kind == CEL_INT)
        d = (double)v.i;
    else if (f->plain && v.kind == CEL_UINT)
        d = (double)v.u;
    else if (v.kind != CEL_DOUBLE)
        return wrong(f, "error during formatting: %s clause can only be used on doubles, was given %s", what,
                     value_type_name(f->e->arena, v));
    if (isnan(d) || isinf(d)) {
        buf_adds(&f->out, isnan(d) ? "NaN" : f->plain ? (d < 0 ? "-Infinity" : "Infinity") : d < 0 ? "-\xe2\x88\x9e" : "\xe2\x88\x9e");
        return true;
    }
    if (precision > 1000)
        return wrong(f, "could not parse formatting clause: the precision is too large");
    if (clause == 'e' && !f->plain)
        precision = 6; /* that version took the precision for a width */
    snprintf(text, sizeof text, clause == 'f' ? "%.*f" : "%.*e", precision < 0 ? 6 : precision, d);
    if (f->plain)
        buf_adds(&f->out, text);
    else if (clause == 'f')
        grouped(&f->out, text);
    else
        scientific(&f->out, text);
    return true;
}

static void binary(struct buf *b, uint64_t u)
{
    char text[65];
    int at = 64;

    text[64] = '\0';
    do
        text[--at] = (char)('0' + (u & 1));
    while (u >>= 1);
    buf_adds(b, text + at);
}

static bool as_number(struct format *f, struct cel_value v, char clause)
{
    bool minus = v.kind == CEL_INT && v.i < 0;
    uint64_t u = minus ? 0 - (uint64_t)v.i : v.u;
    const char *name = value_type_name(f->e->arena, v);

    if (clause == 'b' && v.kind == CEL_BOOL) {
        buf_addc(&f->out, v.b ? '1' : '0');
        return true;
    }
    if ((clause == 'x' || clause == 'X') && (v.kind == CEL_STRING || v.kind == CEL_BYTES)) {
        for (uint32_t i = 0; i < v.n; i++)
            buf_printf(&f->out, clause == 'x' ? "%02x" : "%02X", (unsigned char)v.s[i]);
        return true;
    }
    if (f->plain && clause == 'd' && v.kind == CEL_DOUBLE)
        return isnan(v.d) || isinf(v.d) ? as_string(f, v, 0) : wrong(f, "error during formatting: decimal clause can only be used on integers, was given %s", name);
    if (v.kind != CEL_INT && v.kind != CEL_UINT) {
        switch (clause) {
        case 'd':
            return wrong(f, "error during formatting: decimal clause can only be used on integers, was given %s", name);
        case 'b':
            return wrong(f, "error during formatting: only integers and bools can be formatted as binary, was given %s", name);
        case 'o':
            return wrong(f, "error during formatting: octal clause can only be used on integers, was given %s", name);
        default:
            return wrong(f, "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was given %s", name);
        }
    }
    if (minus)
        buf_addc(&f->out, '-');
    if (clause == 'b')
        binary(&f->out, u);
    else if (clause == 'd')
        buf_printf(&f->out, "%" PRIu64, u);
    else if (clause == 'o')
        buf_printf(&f->out, "%" PRIo64, u);
    else
        buf_printf(&f->out, clause == 'x' ? "%" PRIx64 : "%" PRIX64, u);
    return true;
}

static bool clause(struct format *f, const char **s, const char *end, struct cel_value v)
{
    int precision = -1;
    char c;

    if (*s < end && **s == '.') {
        precision = 0;
        for ((*s)++; *s < end && isdigit((unsigned char)**s); (*s)++)
            precision = MIN(precision * 10 + (**s - '0'), 100000);
        if (*s >= end)
            return wrong(f, "could not parse formatting clause: error while parsing precision: could not find end of precision specifier");
    }
    if (*s >= end)
        return wrong(f, "unexpected end of string");
    c = *(*s)++;
    switch (c) {
    case 's':
        return as_string(f, v, 0);
    case 'f': case 'e':
        return as_double(f, v, c, precision);
    case 'd': case 'b': case 'o': case 'x': case 'X':
        return as_number(f, v, c);
    default:
        return wrong(f, "could not parse formatting clause: unrecognized formatting clause \"%c\"", c);
    }
}

FN(fn_format)
{
    struct format f = {.e = e, .plain = e->prog && (e->prog->env->flags & CEL_PLAIN)};
    const char *s, *end;
    struct cel_value r;
    uint32_t at = 0;

    if (args[0].kind != CEL_STRING || args[1].kind != CEL_LIST)
        return no_overload(e, call, args, n);
    buf_init(&f.out, 1 << 20);
    s = args[0].s;
    end = s + args[0].n;
    while (s < end && !f.error.s) {
        const char *p = memchr(s, '%', (size_t)(end - s));
        if (!p)
            p = end;
        buf_add(&f.out, s, (size_t)(p - s));
        s = p;
        if (s == end)
            break;
        s++;
        if (s < end && *s == '%') {
            buf_addc(&f.out, '%');
            s++;
        } else if (at >= list_len(args[1])) {
            wrong(&f, "index %u out of range", at);
        } else if (!clause(&f, &s, end, list_at(e, args[1], at++))) {
            break;
        }
    }
    if (!f.out.over && f.error.s == NULL) {
        /* copied before it is freed: making the copy may end the run */
        char *copy = arena_strndup(e->arena, f.out.p ? f.out.p : "", f.out.n);
        size_t len = f.out.n;
        buf_done(&f.out);
        e->bytes += len;
        return cel_strn(copy, len);
    }
    r = f.error.s ? f.error : fail_lit("the formatted text is too long");
    buf_done(&f.out);
    return r;
}

/* ---- while compiling ---- */

static const char *clause_why(char clause)
{
    switch (clause) {
    case 'd':
        return "decimal clause can only be used on integers";
    case 'f':
        return "fixed-point clause can only be used on doubles";
    case 'e':
        return "scientific clause can only be used on doubles";
    case 'b':
        return "only integers and bools can be formatted as binary";
    case 'o':
        return "octal clause can only be used on integers";
    case 's':
        return "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
    default:
        return "only integers, byte buffers, and strings can be formatted as hex";
    }
}

static bool clause_takes(char clause, const struct cel_type *t)
{
    enum cel_kind k = t->kind;

    if (k == CEL_DYN)
        return true;
    switch (clause) {
    case 'd': case 'o':
        return k == CEL_INT || k == CEL_UINT;
    case 'f': case 'e':
        return k == CEL_DOUBLE || k == CEL_STRING;
    case 'b':
        return k == CEL_INT || k == CEL_UINT || k == CEL_BOOL;
    case 's':
        return k != CEL_OBJECT && k != CEL_OPAQUE && k != CEL_OPTIONAL;
    default:
        return k == CEL_INT || k == CEL_UINT || k == CEL_STRING || k == CEL_BYTES;
    }
}

/* The part of an argument that %s cannot show, NULL: none. */
static const struct node *not_shown(const struct node *n)
{
    const struct node *bad = NULL;

    if (!clause_takes('s', n->type))
        return n;
    if (n->kind == N_LIST || n->kind == N_MAP)
        for (uint32_t i = 0; i < n->n && !bad; i++)
            bad = not_shown(n->args[i]);
    return bad;
}

void format_check(struct issues *is, const struct node *call)
{
    const struct node *text = call->args[0], *list = call->args[1], *arg;
    const char *s, *end;
    uint32_t at = 0;

    if (text->kind != N_CONST || text->value.kind != CEL_STRING || list->kind != N_LIST)
        return;
    for (s = text->value.s, end = s + text->value.n; s < end; s++) {
        if (*s != '%')
            continue;
        if (s + 1 < end && s[1] == '%') {
            s++;
            continue;
        }
        if (s + 1 >= end) {
            issue(is, call->pos, "unexpected end of string");
            return;
        }
        if (at >= list->n) {
            issue(is, call->pos, "index %u out of range", at);
            return;
        }
        s++;
        if (*s == '.')
            for (s++; s < end && isdigit((unsigned char)*s);)
                s++;
        if (s >= end) {
            issue(is, call->pos, "could not parse formatting clause: error while parsing precision: could not find end of precision specifier");
            return;
        }
        if (!strchr("sdfebxXo", *s)) {
            issue(is, call->pos, "could not parse formatting clause: unrecognized formatting clause \"%c\"", *s);
            return;
        }
        arg = list->args[at++];
        if (*s == 's' ? not_shown(arg) != NULL : !clause_takes(*s, arg->type)) {
            const struct node *bad = *s == 's' ? not_shown(arg) : arg;
            issue(is, bad->pos, "error during formatting: %s, was given %s", clause_why(*s), type_name(is->arena, bad->type));
            return;
        }
    }
    if (at < list->n)
        issue(is, call->pos, "too many arguments supplied to string.format (expected %u, got %u)", at, list->n);
}
