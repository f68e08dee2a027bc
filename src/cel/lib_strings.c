/* cel/lib_strings.c - the strings extension: characters are code points, indexes count them. */
#include "cel/lib.h"

#include <ctype.h>
#include <inttypes.h>

#define NO_OVERLOAD no_overload(e, call, args, n)

uint32_t utf8_next(const char *s, size_t n, size_t *at)
{
    const unsigned char *u = (const unsigned char *)s + *at;
    int len = *u < 0x80 ? 1 : *u >= 0xc2 && *u < 0xe0 ? 2 : *u >= 0xe0 && *u < 0xf0 ? 3 : *u >= 0xf0 && *u < 0xf5 ? 4 : 0;
    uint32_t c;

    if (!len || n - *at < (size_t)len) {
        (*at)++;
        return 0xfffd;
    }
    c = len == 1 ? *u : *u & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80) {
            (*at)++;
            return 0xfffd;
        }
        c = c << 6 | (u[i] & 0x3f);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (len == 4 && (c < 0x10000 || c > 0x10ffff))) {
        (*at)++;
        return 0xfffd;
    }
    *at += (size_t)len;
    return c;
}

/* Byte offset of the i-th character, SIZE_MAX: the string is shorter. */
static size_t offset_of(struct cel_value s, int64_t i)
{
    size_t at = 0;

    while (i > 0 && at < s.n) {
        utf8_next(s.s, s.n, &at);
        i--;
    }
    return i == 0 ? at : SIZE_MAX;
}

static int64_t index_at(struct cel_value s, size_t offset) /* the character at a byte offset */
{
    int64_t i = 0;

    for (size_t at = 0; at < offset; i++)
        utf8_next(s.s, s.n, &at);
    return i;
}

static bool strings(struct cel_value *args, uint32_t n, const char *kinds)
{
    for (uint32_t i = 0; i < n; i++)
        if (args[i].kind != (kinds[i] == 's' ? CEL_STRING : CEL_INT))
            return false;
    return true;
}

static struct cel_value out_of_range(struct eval *e, int64_t i)
{
    return fail(e, "index out of range: %" PRId64, i);
}

FN(fn_char_at)
{
    size_t at, end;

    if (!strings(args, n, "si"))
        return NO_OVERLOAD;
    at = args[1].i < 0 ? SIZE_MAX : offset_of(args[0], args[1].i);
    if (at == SIZE_MAX)
        return out_of_range(e, args[1].i);
    end = at;
    if (end < args[0].n)
        utf8_next(args[0].s, args[0].n, &end);
    return cel_strn(args[0].s + at, end - at);
}

static struct cel_value index_in_list(struct eval *e, struct cel_value *args, bool last)
{
    uint32_t len = list_len(args[0]);

    for (uint32_t k = 0; k < len; k++) {
        uint32_t i = last ? len - 1 - k : k;
        if (values_same(e, list_at(e, args[0], i), args[1]))
            return cel_int(i);
    }
    return cel_int(-1);
}

FN(fn_index_of)
{
    struct cel_value s = args[0], sub = args[1];
    int64_t from = n > 2 ? args[2].i : 0;
    size_t at;
    const char *hit;

    if (s.kind == CEL_LIST && n == 2)
        return index_in_list(e, args, false);
    if (!strings(args, n, "ssi"))
        return NO_OVERLOAD;
    if (!sub.n)
        return cel_int(from);
    if (from < 0)
        return out_of_range(e, from);
    at = offset_of(s, from);
    if (at == SIZE_MAX || at >= s.n)
        return cel_int(-1);
    hit = memmem(s.s + at, s.n - at, sub.s, sub.n);
    return cel_int(hit ? index_at(s, (size_t)(hit - s.s)) : -1);
}

FN(fn_last_index_of)
{
    struct cel_value s = args[0], sub = args[1];
    size_t at, len;

    if (s.kind == CEL_LIST && n == 2)
        return index_in_list(e, args, true);
    if (!strings(args, n, "ssi"))
        return NO_OVERLOAD;
    len = utf8_len(s.s, s.n);
    if (!sub.n)
        return cel_int(n > 2 ? args[2].i : (int64_t)len);
    if (n > 2 && args[2].i < 0)
        return out_of_range(e, args[2].i);
    if (s.n < sub.n || (n > 2 && args[2].i >= (int64_t)len))
        return cel_int(-1);
    at = n > 2 ? offset_of(s, args[2].i) : s.n;
    at = MIN(at, (size_t)(s.n - sub.n));
    for (;; at--) {
        if (!memcmp(s.s + at, sub.s, sub.n))
            return cel_int(index_at(s, at));
        if (!at)
            return cel_int(-1);
    }
}

static struct cel_value change_case(struct eval *e, struct cel_value s, int (*change)(int))
{
    struct cel_value out = make_str(e, s.s ? s.s : "", s.n);

    for (uint32_t i = 0; i < out.n; i++)
        if ((unsigned char)out.s[i] < 0x80)
            ((char *)out.s)[i] = (char)change((unsigned char)out.s[i]);
    return out;
}
FN(fn_lower)
{
    return args[0].kind == CEL_STRING ? change_case(e, args[0], tolower) : NO_OVERLOAD;
}
FN(fn_upper)
{
    return args[0].kind == CEL_STRING ? change_case(e, args[0], toupper) : NO_OVERLOAD;
}

FN(fn_replace)
{
    struct cel_value s = args[0], old = args[1], new = args[2];
    int64_t max = n > 3 ? args[3].i : -1, count = 0;
    size_t size, o = 0;
    char *out;

    if (!strings(args, n, "sssi"))
        return NO_OVERLOAD;
    if (max == 0)
        return s;
    /* how often first: the result is made once */
    if (!old.n)
        count = (int64_t)utf8_len(s.s, s.n) + 1;
    else
        for (const char *p = s.s, *hit; (hit = memmem(p, (size_t)(s.s + s.n - p), old.s, old.n)); p = hit + old.n)
            count++;
    if (max >= 0 && count > max)
        count = max;
    if ((uint64_t)count * new.n > CEL_BYTES_MAX)
        eval_stop(e, "operation cancelled: the evaluation takes too much memory");
    size = s.n + (size_t)count * new.n;
    out = mem(e, size + 1);
    for (size_t at = 0; at <= s.n;) {
        const char *hit = !count ? NULL : old.n ? memmem(s.s + at, s.n - at, old.s, old.n) : s.s + at;
        size_t keep = hit ? (size_t)(hit - s.s) - at : s.n - at, next;
        if (keep)
            memcpy(out + o, s.s + at, keep);
        o += keep;
        at += keep;
        if (!hit)
            break;
        memcpy(out + o, new.s, new.n);
        o += new.n;
        count--;
        if (old.n) {
            at += old.n;
        } else if (at < s.n) { /* between all characters */
            next = at;
            utf8_next(s.s, s.n, &next);
            memcpy(out + o, s.s + at, next - at);
            o += next - at;
            at = next;
        } else {
            break;
        }
    }
    return cel_strn(out, o);
}

FN(fn_split)
{
    struct cel_value s = args[0], sep = args[1], out;
    int64_t max = n > 2 ? args[2].i : -1;
    size_t at = 0;

    if (!strings(args, n, "ssi"))
        return NO_OVERLOAD;
    out = list_new(e, 0);
    if (max == 0)
        return out;
    if (!sep.n) {
        while (at < s.n && (max < 0 || out.n < max - 1)) {
            size_t start = at;
            utf8_next(s.s, s.n, &at);
            out = list_push(e, out, cel_strn(s.s + start, at - start));
        }
        return at < s.n ? list_push(e, out, cel_strn(s.s + at, s.n - at)) : out;
    }
    while (max < 0 || out.n < max - 1) {
        const char *hit = memmem(s.s + at, s.n - at, sep.s, sep.n);
        if (!hit)
            break;
        out = list_push(e, out, cel_strn(s.s + at, (size_t)(hit - s.s) - at));
        at = (size_t)(hit - s.s) + sep.n;
    }
    return list_push(e, out, cel_strn(s.s + at, s.n - at));
}

FN(fn_substring)
{
    struct cel_value s = args[0];
    size_t start, end;

    if (!strings(args, n, "sii"))
        return NO_OVERLOAD;
    if (n > 2 && args[1].i > args[2].i)
        return fail(e, "invalid substring range. start: %" PRId64 ", end: %" PRId64, args[1].i, args[2].i);
    start = args[1].i < 0 ? SIZE_MAX : offset_of(s, args[1].i);
    if (start == SIZE_MAX)
        return out_of_range(e, args[1].i);
    end = n > 2 ? offset_of(s, args[2].i) : s.n;
    return end == SIZE_MAX ? out_of_range(e, args[2].i) : cel_strn(s.s + start, end - start);
}

static bool white(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

FN(fn_trim)
{
    struct cel_value s = args[0];
    size_t at = 0, start = SIZE_MAX, end = 0;

    if (s.kind != CEL_STRING)
        return NO_OVERLOAD;
    while (at < s.n) {
        size_t was = at;
        if (!white(utf8_next(s.s, s.n, &at))) {
            start = MIN(start, was);
            end = at;
        }
    }
    return start == SIZE_MAX ? cel_str("") : cel_strn(s.s + start, end - start);
}

FN(fn_quote)
{
    static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";
    struct cel_value s = args[0];
    size_t o = 0;
    char *out;

    if (s.kind != CEL_STRING)
        return NO_OVERLOAD;
    out = mem(e, (size_t)s.n * 3 + 3);
    out[o++] = '"';
    for (size_t at = 0; at < s.n;) {
        size_t was = at;
        uint32_t c = utf8_next(s.s, s.n, &at);
        const char *k = c && c < 0x80 ? strchr(from, (int)c) : NULL;
        if (k) {
            out[o++] = '\\';
            out[o++] = to[k - from];
        } else if (c == 0xfffd) {
            memcpy(out + o, "\xef\xbf\xbd", 3);
            o += 3;
        } else {
            memcpy(out + o, s.s + was, at - was);
            o += at - was;
        }
    }
    out[o++] = '"';
    return cel_strn(out, o);
}

FN(fn_join)
{
    struct cel_value sep = n > 1 ? args[1] : cel_str("");
    uint32_t len;
    size_t size = 0, o = 0;
    char *out;

    if (args[0].kind != CEL_LIST || sep.kind != CEL_STRING)
        return NO_OVERLOAD;
    len = list_len(args[0]);
    for (uint32_t i = 0; i < len; i++) {
        struct cel_value v = list_at(e, args[0], i);
        if (is_error(v))
            return v;
        if (v.kind != CEL_STRING)
            return fail(e, "join: invalid input: %.200s", cel_text(e->arena, v));
        size += v.n + (i ? sep.n : 0);
    }
    out = mem(e, size + 1);
    for (uint32_t i = 0; i < len; i++) {
        struct cel_value v = list_at(e, args[0], i);
        if (i) {
            memcpy(out + o, sep.s, sep.n);
            o += sep.n;
        }
        memcpy(out + o, v.s, v.n);
        o += v.n;
    }
    return cel_strn(out, o);
}

struct cel_value string_reverse(struct eval *e, struct cel_value s)
{
    char *out = mem(e, (size_t)s.n + 1);
    size_t o = s.n;

    for (size_t at = 0; at < s.n;) {
        size_t was = at;
        utf8_next(s.s, s.n, &at);
        o -= at - was;
        memcpy(out + o, s.s + was, at - was);
    }
    return cel_strn(out, s.n);
}

FN(fn_escape_key)
{
    struct cel_value s = args[0];
    size_t o = 0;
    char *out;

    if (s.kind != CEL_STRING)
        return NO_OVERLOAD;
    out = mem(e, (size_t)s.n * 2 + 1);
    for (uint32_t i = 0; i < s.n; i++) {
        if (s.s[i] == '~' || s.s[i] == '/') {
            out[o++] = '~';
            out[o++] = s.s[i] == '~' ? '0' : '1';
        } else {
            out[o++] = s.s[i];
        }
    }
    return cel_strn(out, o);
}
