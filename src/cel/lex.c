/* cel/lex.c - the words of an expression, by the grammar of the language. */
#include "cel/lex.h"

#include <ctype.h>

static bool ident_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}
static bool ident_part(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}
static bool octal(char c)
{
    return c >= '0' && c <= '7';
}

/* Bytes of the escape that starts at s[0] == '\\', 0: there is no such escape. */
static size_t escape_len(const char *s, size_t n)
{
    size_t hex = 0;

    if (n < 2)
        return 0;
    switch (s[1]) {
    case 'a': case 'b': case 'f': case 'n': case 'r': case 't': case 'v':
    case '"': case '\'': case '\\': case '?': case '`':
        return 2;
    case 'x': case 'X':
        hex = 2;
        break;
    case 'u':
        hex = 4;
        break;
    case 'U':
        hex = 8;
        break;
    default:
        return n >= 4 && s[1] >= '0' && s[1] <= '3' && octal(s[2]) && octal(s[3]) ? 4 : 0;
    }
    if (n < 2 + hex)
        return 0;
    for (size_t i = 0; i < hex; i++)
        if (!isxdigit((unsigned char)s[2 + i]))
            return 0;
    return 2 + hex;
}

/* Bytes of a quoted string at s (with its prefix r), 0: it does not end or holds a wrong escape. */
static size_t string_len(const char *s, size_t n)
{
    size_t i = 0;
    bool raw = n && (s[0] == 'r' || s[0] == 'R');
    char q;

    i += raw;
    if (i >= n || (s[i] != '"' && s[i] != '\''))
        return 0;
    q = s[i];
    if (n - i >= 6 && s[i + 1] == q && s[i + 2] == q) {
        for (i += 3; i + 3 <= n;) {
            if (s[i] == q && s[i + 1] == q && s[i + 2] == q)
                return i + 3;
            if (s[i] == '\\' && !raw) {
                size_t e = escape_len(s + i, n - i);
                if (!e)
                    return 0;
                i += e;
            } else {
                i++;
            }
        }
        return (size_t)raw + 2; /* it does not end: an empty string, then one that does not end */
    }
    for (i++; i < n;) {
        if (s[i] == q)
            return i + 1;
        if (s[i] == '\n' || s[i] == '\r')
            return 0;
        if (s[i] == '\\' && !raw) {
            size_t e = escape_len(s + i, n - i);
            if (!e)
                return 0;
            i += e;
        } else {
            i++;
        }
    }
    return 0;
}

size_t lex_bad_string(const char *s, size_t n)
{
    size_t i = 1;

    while (i < n && s[i] != '\n') {
        size_t e = s[i] == '\\' ? escape_len(s + i, n - i) : 1;
        if (!e)
            return MIN(i + 2, n);
        i += e;
    }
    return i;
}

static size_t digits(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n && isdigit((unsigned char)s[i]))
        i++;
    return i;
}

static size_t exponent(const char *s, size_t n)
{
    size_t i = 1, d;

    if (!n || (s[0] != 'e' && s[0] != 'E'))
        return 0;
    if (i < n && (s[i] == '+' || s[i] == '-'))
        i++;
    d = digits(s + i, n - i);
    return d ? i + d : 0;
}

static struct token number(const char *text, size_t text_n, uint32_t pos)
{
    const char *s = text + pos;
    size_t n = text_n - pos, i, e;
    struct token t = {T_INT, pos, 0};

    if (n > 2 && s[0] == '0' && s[1] == 'x' && isxdigit((unsigned char)s[2])) {
        for (i = 2; i < n && isxdigit((unsigned char)s[i]);)
            i++;
    } else {
        i = digits(s, n);
        if (i + 1 < n && s[i] == '.' && isdigit((unsigned char)s[i + 1])) {
            t.kind = T_FLOAT;
            i += 1 + digits(s + i + 1, n - i - 1);
            i += exponent(s + i, n - i);
        } else if ((e = exponent(s + i, n - i))) {
            t.kind = T_FLOAT;
            i += e;
        }
    }
    if (t.kind == T_INT && i < n && (s[i] == 'u' || s[i] == 'U')) {
        t.kind = T_UINT;
        i++;
    }
    t.n = (uint32_t)i;
    return t;
}

struct token lex_next(const char *text, size_t text_n, uint32_t *at)
{
    uint32_t pos = *at;
    struct token t;
    const char *s;
    size_t n;

    for (;;) {
        while (pos < text_n && strchr(" \t\r\n\f", text[pos]) && text[pos])
            pos++;
        if (pos + 1 >= text_n || text[pos] != '/' || text[pos + 1] != '/')
            break;
        while (pos < text_n && text[pos] != '\n')
            pos++;
    }
    t = (struct token){T_EOF, pos, 0};
    s = text + pos;
    n = text_n - pos;
    if (!n) {
        *at = pos;
        return t;
    }
    if (isdigit((unsigned char)*s) || (*s == '.' && n > 1 && isdigit((unsigned char)s[1]))) {
        t = number(text, text_n, pos);
    } else if ((t.n = (uint32_t)string_len(s, n))) {
        t.kind = T_STRING;
    } else if ((*s == 'b' || *s == 'B') && (t.n = (uint32_t)string_len(s + 1, n - 1))) {
        t.kind = T_BYTES;
        t.n++;
    } else if (ident_start(*s)) {
        while (t.n < n && ident_part(s[t.n]))
            t.n++;
        t.kind = t.n == 4 && !memcmp(s, "true", 4)    ? T_TRUE
                 : t.n == 5 && !memcmp(s, "false", 5) ? T_FALSE
                 : t.n == 4 && !memcmp(s, "null", 4)  ? T_NULL
                 : t.n == 2 && !memcmp(s, "in", 2)    ? T_IN
                                                      : T_IDENT;
    } else if (*s == '`') {
        size_t i = 1;
        while (i < n && (isalnum((unsigned char)s[i]) || strchr("_.-/ ", s[i])) && s[i])
            i++;
        t.kind = i > 1 && i < n && s[i] == '`' ? T_ESC_IDENT : T_BAD;
        t.n = t.kind == T_BAD ? 1 : (uint32_t)i + 1;
    } else if (n > 1 && (!memcmp(s, "==", 2) || !memcmp(s, "!=", 2) || !memcmp(s, "<=", 2) ||
                         !memcmp(s, ">=", 2) || !memcmp(s, "&&", 2) || !memcmp(s, "||", 2))) {
        t.kind = T_OP;
        t.n = 2;
    } else if (*s && strchr("<>[]{}().,-!?:+*/%", *s)) {
        t.kind = T_OP;
        t.n = 1;
    } else {
        t.kind = T_BAD;
        t.n = 1;
        while (t.n < n && ((unsigned char)s[t.n] & 0xc0) == 0x80)
            t.n++;
    }
    *at = pos + t.n;
    return t;
}

static size_t utf8_put(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static uint32_t number_of(const char *s, size_t n, int base)
{
    uint32_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v * (uint32_t)base +
            (uint32_t)(isdigit((unsigned char)s[i]) ? s[i] - '0' : tolower((unsigned char)s[i]) - 'a' + 10);
    return v;
}

/* One escape at s (escape_len() said it is one): its bytes into out. false and *why: not allowed. */
static bool unescape(const char *s, size_t len, bool bytes, char *out, size_t *o, const char **why)
{
    static const char from[] = "abfnrtv\"'\\?`", to[] = "\a\b\f\n\r\t\v\"'\\?`";
    const char *c = strchr(from, s[1]);
    uint32_t v;

    if (c) {
        out[(*o)++] = to[c - from];
        return true;
    }
    if (s[1] == 'x' || s[1] == 'X') {
        v = number_of(s + 2, 2, 16);
    } else if (s[1] == 'u' || s[1] == 'U') {
        if (bytes) {
            *why = "unable to unescape string";
            return false;
        }
        v = number_of(s + 2, len - 2, 16);
        if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) {
            *why = "invalid unicode code point";
            return false;
        }
    } else {
        v = number_of(s + 1, 3, 8);
    }
    if (bytes)
        out[(*o)++] = (char)v;
    else
        *o += utf8_put(out + *o, v);
    return true;
}

const char *lex_unquote(struct arena *a, const char *s, size_t n, bool bytes, size_t *ret_n, const char **why)
{
    bool raw = *s == 'r' || *s == 'R';
    size_t quotes = 1, o = 0;
    char *out;

    s += raw;
    n -= raw;
    if (n >= 6 && s[1] == s[0] && s[2] == s[0])
        quotes = 3;
    s += quotes;
    n -= 2 * quotes;
    out = arena_raw(a, n + 5);
    for (size_t i = 0; i < n;) {
        if (s[i] == '\\' && !raw) {
            size_t len = escape_len(s + i, n - i);
            if (!unescape(s + i, len, bytes, out, &o, why))
                return NULL;
            i += len;
        } else if (s[i] == '\r') { /* line ends are always \n */
            out[o++] = '\n';
            i += i + 1 < n && s[i + 1] == '\n' ? 2 : 1;
        } else {
            out[o++] = s[i++];
        }
    }
    out[o] = '\0';
    *ret_n = o;
    return out;
}
