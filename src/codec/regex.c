/* codec/regex.c - see regex.h. The pattern is read once by RE2's rules and written again for
 * libpcre2: groups do not capture, classes and escapes are spelt so that both mean the same. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "codec/regex.h"

#include "base/buf.h"

#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>

enum {
    DEPTH_MAX = 200,      /* of groups */
    REPEAT_MAX = 1000,    /* what RE2 takes */
    STEPS_BASE = 200000,  /* a search's steps: this, and */
    STEPS_PER_BYTE = 20,  /* this for each byte of the text, */
    STEPS_MAX = 4000000,  /* not more than this */
    SECOND_MAX = 4000000, /* bytes of text times bytes of pattern that the second search takes */
    WORKSPACE = 8000,
};

struct regex {
    pcre2_code *code;
    pcre2_match_context *context;
    char *text; /* rewritten */
    size_t text_n;
};

struct reader {
    const char *all, *s, *end;
    struct buf out;
    struct err *err;
    int depth;
    bool atom;           /* something to repeat stands before */
    const char *repeat;  /* the repetition just read, NULL: none */
};

static int wrong(struct reader *r, const char *what, const char *from, const char *to)
{
    return err_set(r->err, INVALID, "error parsing regexp: %s: `%.*s`", what, (int)MIN(to - from, 200), from);
}

static uint32_t utf8_get(const char *s, const char *end, int *ret_n) /* n 0: not UTF-8 */
{
    const unsigned char *u = (const unsigned char *)s;
    int n = *u < 0x80 ? 1 : *u >= 0xc2 && *u < 0xe0 ? 2 : *u >= 0xe0 && *u < 0xf0 ? 3 : *u >= 0xf0 && *u < 0xf5 ? 4 : 0;
    uint32_t c;

    *ret_n = 0;
    if (!n || end - s < n)
        return 0;
    c = n == 1 ? *u : *u & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (u[i] & 0x3f);
    }
    if ((n == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (n == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    *ret_n = n;
    return c;
}

static void put_char(struct reader *r, uint32_t c)
{
    if (c < 0x80 && isalnum((int)c))
        buf_addc(&r->out, (char)c);
    else
        buf_printf(&r->out, "\\x{%x}", c);
}

static bool octal(const char *s, const char *end)
{
    return s < end && *s >= '0' && *s <= '7';
}

/* An escape for one character at r->s (behind the \\): 0 and the character, 1: it is none of these. */
static int escape_char(struct reader *r, uint32_t *ret)
{
    static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
    const char *start = r->s - 1, *c;
    int n;
    uint32_t v = 0;

    if (r->s >= r->end)
        return err_set(r->err, INVALID, "error parsing regexp: trailing backslash at end of expression: ``");
    if ((c = strchr(from, *r->s)) && *r->s) {
        *ret = (uint32_t)to[c - from];
        r->s++;
        return 0;
    }
    if (*r->s == 'x') {
        r->s++;
        if (r->s < r->end && *r->s == '{') {
            for (r->s++, n = 0; r->s < r->end && isxdigit((unsigned char)*r->s) && n < 8; r->s++, n++)
                v = v * 16 + (uint32_t)(isdigit((unsigned char)*r->s) ? *r->s - '0' : tolower((unsigned char)*r->s) - 'a' + 10);
            if (!n || r->s >= r->end || *r->s != '}' || v > 0x10ffff)
                return wrong(r, "invalid escape sequence", start, MIN(r->s + 1, r->end));
            r->s++;
        } else {
            for (n = 0; n < 2 && r->s < r->end && isxdigit((unsigned char)*r->s); r->s++, n++)
                v = v * 16 + (uint32_t)(isdigit((unsigned char)*r->s) ? *r->s - '0' : tolower((unsigned char)*r->s) - 'a' + 10);
            if (n < 2)
                return wrong(r, "invalid escape sequence", start, r->s);
        }
        *ret = v;
        return 0;
    }
    if (*r->s == '0' || (octal(r->s, r->end) && octal(r->s + 1, r->end))) {
        for (n = 0; n < 3 && octal(r->s, r->end); n++)
            v = v * 8 + (uint32_t)(*r->s++ - '0');
        *ret = v;
        return 0;
    }
    if ((unsigned char)*r->s < 0x80 && !isalnum((unsigned char)*r->s)) {
        *ret = (unsigned char)*r->s++;
        return 0;
    }
    return 1;
}

/* \d \D \s \S \w \W \pX: written for outside or inside of a class. 1: it is none of these. */
static int escape_class(struct reader *r, bool inside)
{
    const char *start = r->s - 1, *close;

    switch (r->s < r->end ? *r->s : '\0') {
    case 'd': case 'D': case 'w': case 'W':
        buf_printf(&r->out, "\\%c", *r->s++);
        return 0;
    case 's':
        buf_adds(&r->out, inside ? "\\x09\\x0a\\x0c\\x0d\\x20" : "[\\x09\\x0a\\x0c\\x0d\\x20]");
        r->s++;
        return 0;
    case 'S': /* inside a class it is everything but those */
        buf_adds(&r->out, inside ? "\\x{0}-\\x{8}\\x{b}\\x{e}-\\x{1f}\\x{21}-\\x{10ffff}" : "[^\\x09\\x0a\\x0c\\x0d\\x20]");
        r->s++;
        return 0;
    case 'p': case 'P':
        if (r->s + 1 >= r->end)
            return wrong(r, "invalid character class range", start, r->end);
        if (r->s[1] != '{') {
            buf_printf(&r->out, "\\%c{%c}", r->s[0], r->s[1]);
            r->s += 2;
            return 0;
        }
        close = memchr(r->s, '}', (size_t)(r->end - r->s));
        if (!close || close - r->s > 60)
            return wrong(r, "invalid character class range", start, r->end);
        buf_addc(&r->out, '\\');
        buf_add(&r->out, r->s, (size_t)(close + 1 - r->s));
        r->s = close + 1;
        return 0;
    default:
        return 1;
    }
}

static int read_class(struct reader *r)
{
    static const char *const posix[] = {"alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph",
                                        "lower", "print", "punct", "space", "upper", "word", "xdigit"};
    const char *start = r->s++;
    bool first = true;

    buf_addc(&r->out, '[');
    if (r->s < r->end && *r->s == '^') {
        buf_addc(&r->out, '^');
        r->s++;
    }
    for (;; first = false) {
        uint32_t lo, hi;
        const char *item = r->s;
        int n, e;
        if (r->s >= r->end)
            return wrong(r, "missing closing ]", start, r->end);
        if (*r->s == ']' && !first)
            break;
        if (r->end - r->s > 2 && r->s[0] == '[' && r->s[1] == ':') {
            const char *close = memmem(r->s + 2, (size_t)(r->end - r->s - 2), ":]", 2);
            if (close) {
                const char *name = r->s + 2 + (r->s[2] == '^');
                size_t i;
                for (i = 0; i < ARRAY_LEN(posix); i++)
                    if (strlen(posix[i]) == (size_t)(close - name) && !memcmp(posix[i], name, strlen(posix[i])))
                        break;
                if (i == ARRAY_LEN(posix))
                    return wrong(r, "invalid character class range", r->s, close + 2);
                buf_add(&r->out, r->s, (size_t)(close + 2 - r->s));
                r->s = close + 2;
                continue;
            }
        }
        if (*r->s == '\\') {
            r->s++;
            e = escape_class(r, true);
            if (e <= 0) {
                if (e < 0)
                    return -1;
                continue;
            }
            e = escape_char(r, &lo);
            if (e > 0)
                return wrong(r, "invalid escape sequence", item, MIN(r->s + 1, r->end));
            if (e < 0)
                return -1;
        } else {
            lo = utf8_get(r->s, r->end, &n);
            if (!n)
                return err_set(r->err, INVALID, "error parsing regexp: invalid UTF-8");
            r->s += n;
        }
        hi = lo;
        if (r->end - r->s > 1 && *r->s == '-' && r->s[1] != ']') {
            r->s++;
            if (*r->s == '\\') {
                r->s++;
                e = escape_char(r, &hi);
                if (e)
                    return e < 0 ? -1 : wrong(r, "invalid character class range", item, MIN(r->s + 1, r->end));
            } else {
                hi = utf8_get(r->s, r->end, &n);
                if (!n)
                    return err_set(r->err, INVALID, "error parsing regexp: invalid UTF-8");
                r->s += n;
            }
            if (hi < lo)
                return wrong(r, "invalid character class range", item, r->s);
        }
        if ((lo >= 0xd800 && lo < 0xe000) || (hi >= 0xd800 && hi < 0xe000))
            return wrong(r, "invalid character class range", item, r->s);
        put_char(r, lo);
        if (hi != lo) {
            buf_addc(&r->out, '-');
            put_char(r, hi);
        }
    }
    r->s++;
    buf_addc(&r->out, ']');
    return 0;
}

static int read_group(struct reader *r)
{
    const char *start = r->s++;

    if (r->depth++ >= DEPTH_MAX)
        return err_set(r->err, INVALID, "error parsing regexp: expression nests too deeply");
    r->atom = false;
    if (r->s >= r->end || *r->s != '?') {
        buf_adds(&r->out, "(?:");
        return 0;
    }
    r->s++;
    if ((r->end - r->s > 1 && r->s[0] == 'P' && r->s[1] == '<') || (r->end - r->s > 1 && r->s[0] == '<' && r->s[1] != '=' && r->s[1] != '!')) {
        const char *name = r->s + (*r->s == 'P') + 1, *close = memchr(name, '>', (size_t)(r->end - name));
        if (!close)
            return wrong(r, "invalid named capture", start, r->end);
        for (const char *c = name; c < close; c++)
            if (!isalnum((unsigned char)*c) && *c != '_')
                close = name;
        if (close == name)
            return wrong(r, "invalid named capture", start, MIN(close + 1, r->end));
        buf_adds(&r->out, "(?:");
        r->s = close + 1;
        return 0;
    }
    buf_adds(&r->out, "(?");
    for (bool minus = false, any = false; r->s < r->end; r->s++) {
        char c = *r->s;
        if (strchr("imsU", c) && c) {
            any = true;
        } else if (c == '-' && !minus) {
            minus = true;
            any = false;
        } else if ((c == ':' || c == ')') && (any || !minus)) {
            r->s++;
            if (c == ')')
                r->depth--;
            buf_addc(&r->out, c);
            return 0;
        } else {
            return wrong(r, "invalid or unsupported Perl syntax", start, r->s + 1);
        }
        buf_addc(&r->out, c);
    }
    return wrong(r, "missing closing )", r->all, r->end);
}

static int digits(const char **s, const char *end)
{
    int v = 0;
    const char *start = *s;

    while (*s < end && isdigit((unsigned char)**s))
        v = v > 100000 ? v : v * 10 + (*(*s)++ - '0');
    if (*s == start || (*start == '0' && *s - start > 1))
        return -1;
    return v;
}

/* {n}, {n,} and {n,m}; 1: the brace is a character like others. */
static int read_braces(struct reader *r)
{
    const char *start = r->s, *s = r->s + 1;
    int lo = digits(&s, r->end), hi = lo;

    if (lo < 0)
        return 1;
    if (s < r->end && *s == ',') {
        s++;
        hi = s < r->end && *s == '}' ? INT32_MAX : digits(&s, r->end);
        if (hi < 0)
            return 1;
    }
    if (s >= r->end || *s != '}')
        return 1;
    s++;
    if (lo > REPEAT_MAX || (hi > REPEAT_MAX && hi != INT32_MAX) || hi < lo)
        return wrong(r, "invalid repeat count", start, s);
    if (!r->atom)
        return wrong(r, "missing argument to repetition operator", start, s);
    if (r->repeat)
        return wrong(r, "invalid nested repetition operator", r->repeat, s);
    buf_add(&r->out, start, (size_t)(s - start));
    r->s = s;
    return 0;
}

static int read_repeat(struct reader *r)
{
    const char *start = r->s;

    if (*r->s == '{') {
        int e = read_braces(r);
        if (e)
            return e;
    } else {
        if (!r->atom)
            return wrong(r, "missing argument to repetition operator", r->s, r->s + 1);
        if (r->repeat)
            return wrong(r, "invalid nested repetition operator", r->repeat, r->s + 1);
        buf_addc(&r->out, *r->s++);
    }
    if (r->s < r->end && *r->s == '?') {
        buf_addc(&r->out, '?');
        r->s++;
    }
    r->repeat = start;
    return 0;
}

static int read_escape(struct reader *r)
{
    const char *start = r->s++;
    uint32_t c;
    int e;

    if (r->s < r->end && *r->s == 'Q') {
        int n;
        for (r->s++; r->s < r->end; r->s += n) {
            if (r->end - r->s > 1 && r->s[0] == '\\' && r->s[1] == 'E') {
                r->s += 2;
                break;
            }
            c = utf8_get(r->s, r->end, &n);
            if (!n)
                return err_set(r->err, INVALID, "error parsing regexp: invalid UTF-8");
            put_char(r, c);
            r->atom = true;
        }
        return 0;
    }
    r->atom = true;
    if (r->s < r->end && strchr("bBAz", *r->s) && *r->s) {
        buf_printf(&r->out, "\\%c", *r->s++);
        return 0;
    }
    e = escape_class(r, false);
    if (e <= 0)
        return e;
    e = escape_char(r, &c);
    if (e > 0)
        return wrong(r, "invalid escape sequence", start, MIN(r->s + 1, r->end));
    if (!e && c >= 0xd800 && c < 0xe000)
        return wrong(r, "invalid escape sequence", start, r->s);
    if (!e)
        put_char(r, c);
    return e;
}

static int read_one(struct reader *r)
{
    int n, e;
    uint32_t c;
    const char *repeat = r->repeat;

    switch (*r->s) {
    case '*': case '+': case '?':
        return read_repeat(r);
    case '{':
        e = read_repeat(r);
        if (e <= 0)
            return e;
        break; /* a character */
    default:
        break;
    }
    (void)repeat;
    r->repeat = NULL;
    switch (*r->s) {
    case '(':
        return read_group(r);
    case ')':
        if (r->depth-- == 0)
            return wrong(r, "unexpected )", r->all, r->end);
        buf_addc(&r->out, ')');
        r->atom = true;
        r->s++;
        return 0;
    case '[':
        r->atom = true;
        return read_class(r);
    case '\\':
        return read_escape(r);
    case '|':
        buf_addc(&r->out, '|');
        r->atom = false;
        r->s++;
        return 0;
    case '^': case '$': case '.':
        buf_addc(&r->out, *r->s++);
        r->atom = true;
        return 0;
    default:
        c = utf8_get(r->s, r->end, &n);
        if (!n)
            return err_set(r->err, INVALID, "error parsing regexp: invalid UTF-8: `%.*s`", (int)MIN(r->end - r->all, 200), r->all);
        put_char(r, c);
        r->atom = true;
        r->s += n;
        return 0;
    }
}

static pcre2_code *compile(const char *text, size_t n, uint32_t options, char why[static 120])
{
    int code = 0;
    PCRE2_SIZE at;
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    pcre2_code *re;

    ASSERT(ctx);
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    re = pcre2_compile((PCRE2_SPTR)text, n, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | options,
                       &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    if (!re)
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, 120);
    return re;
}

struct regex *regex_new(const char *pattern, size_t n, struct err *err)
{
    struct reader r = {.all = pattern, .s = pattern, .end = pattern + n, .err = err};
    struct regex *re = NULL;
    char why[120];
    int e = 0;

    if (n > REGEX_PATTERN_MAX) {
        err_set(err, INVALID, "error parsing regexp: expression too large");
        return NULL;
    }
    buf_init(&r.out, 1 << 20);
    while (r.s < r.end && !e)
        e = read_one(&r);
    if (!e && r.depth)
        e = wrong(&r, "missing closing )", pattern, pattern + n);
    if (!e && r.out.over)
        e = err_set(err, INVALID, "error parsing regexp: expression too large");
    if (!e) {
        pcre2_code *code = compile(r.out.p ? r.out.p : "", r.out.n, PCRE2_MATCH_INVALID_UTF, why);
        if (!code) {
            e = err_set(err, INVALID, "error parsing regexp: %s: `%.*s`", why, (int)MIN(n, 200u), pattern);
        } else {
            re = xcalloc(1, sizeof *re);
            re->code = code;
            re->context = pcre2_match_context_create(NULL);
            ASSERT(re->context);
            pcre2_set_heap_limit(re->context, 20000);
            re->text_n = r.out.n;
            re->text = buf_take(&r.out);
        }
    }
    buf_done(&r.out);
    return re;
}

void *regex_free(struct regex *re)
{
    if (re) {
        pcre2_code_free(re->code);
        pcre2_match_context_free(re->context);
        free(re->text);
        free(re);
    }
    return NULL;
}

void regex_unpin(void *re)
{
    regex_free(re);
}

int regex_find(const struct regex *re, const char *s, size_t n, size_t from, size_t *ret_start, size_t *ret_end)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *ctx = pcre2_match_context_copy(re->context);
    int r;

    ASSERT(data && ctx);
    pcre2_set_match_limit(ctx, (uint32_t)MIN(STEPS_BASE + n * STEPS_PER_BYTE, (size_t)STEPS_MAX));
    r = pcre2_match(re->code, (PCRE2_SPTR)(n ? s : ""), n, from, 0, data, ctx);
    if (r >= 0) {
        PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
        *ret_start = v[0];
        *ret_end = v[1];
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(ctx);
    return r >= 0 ? 1 : r == PCRE2_ERROR_NOMATCH ? 0 : -1;
}

/* Breadth first: no way is gone twice, so time grows with the text only. */
static int second_search(const struct regex *re, const char *s, size_t n)
{
    _auto_(freep) char *text = NULL;
    _auto_(freep) int *workspace = NULL;
    char why[120];
    pcre2_match_data *data;
    pcre2_code *code;
    int r;

    if ((n + 1) * re->text_n > SECOND_MAX)
        return -1;
    text = xasprintf("(?s:.*?)(?:%.*s)", (int)re->text_n, re->text);
    code = compile(text, strlen(text), PCRE2_ANCHORED, why); /* text that is not UTF-8 it refuses */
    if (!code)
        return -1;
    workspace = xcalloc(WORKSPACE, sizeof *workspace);
    data = pcre2_match_data_create(1, NULL);
    ASSERT(data);
    r = pcre2_dfa_match(code, (PCRE2_SPTR)(n ? s : ""), n, 0, PCRE2_DFA_SHORTEST, data, re->context, workspace, WORKSPACE);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return r >= 0 ? 1 : r == PCRE2_ERROR_NOMATCH ? 0 : -1;
}

int regex_match(const struct regex *re, const char *s, size_t n)
{
    size_t start, end;
    int r = regex_find(re, s, n, 0, &start, &end);

    return r >= 0 ? r : second_search(re, s, n);
}

int regex_match_text(const char *pattern, const char *s)
{
    enum { KEPT = 32 };
    static _Thread_local struct {
        char *pattern;
        struct regex *re;
    } kept[KEPT];
    static _Thread_local uint32_t next;
    struct err err;
    uint32_t i;

    for (i = 0; i < KEPT; i++)
        if (kept[i].pattern && streq(kept[i].pattern, pattern))
            break;
    if (i == KEPT) {
        struct regex *re = regex_new(pattern, strlen(pattern), &err);
        if (!re)
            return -2;
        i = next++ % KEPT;
        free(kept[i].pattern);
        regex_free(kept[i].re);
        kept[i].pattern = xstrdup(pattern);
        kept[i].re = re;
    }
    return regex_match(kept[i].re, s, strlen(s));
}
