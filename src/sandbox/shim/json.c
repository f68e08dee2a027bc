/* codec/json.h for the static shim: the same interface without yyjson, which is packaged as a
 * shared glibc library only. Reads what shim_send writes: small trusted documents, so it is
 * plain recursive descent. */
#include "codec/json.h"

#include "codec/val_build.h"

#include <inttypes.h>
#include <stdio.h>

struct reader {
    struct arena *a;
    const char *p, *end;
    int depth;
    bool bad;
};

static void blanks(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r'))
        r->p++;
}

static bool word(struct reader *r, const char *w)
{
    size_t n = strlen(w);

    if ((size_t)(r->end - r->p) < n || memcmp(r->p, w, n) != 0)
        return false;
    r->p += n;
    return true;
}

static unsigned hex4(struct reader *r)
{
    unsigned v = 0;

    for (int i = 0; i < 4; i++) {
        char c = r->p < r->end ? *r->p++ : 0;
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 99;
        if (d == 99)
            r->bad = true;
        v = v << 4 | (d & 15);
    }
    return v;
}

static char *put_utf8(char *o, unsigned c)
{
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 63));
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    return o;
}

/* The text behind the opening quote; n is its length after escapes. */
static const char *string(struct reader *r, uint32_t *ret_n)
{
    const char *from = ++r->p, *q = from;
    static const char esc[] = "\"\\/bfnrt", is[] = "\"\\/\b\f\n\r\t";

    while (q < r->end && *q != '"')
        q += *q == '\\' && q + 1 < r->end ? 2 : 1;
    char *out = arena_raw(r->a, (size_t)(q - from) + 1), *o = out;
    while (r->p < r->end && *r->p != '"') {
        if (*r->p != '\\') {
            *o++ = *r->p++;
            continue;
        }
        r->p++;
        char c = r->p < r->end ? *r->p++ : 0;
        const char *e = c ? strchr(esc, c) : NULL;
        if (e) {
            *o++ = is[e - esc];
        } else if (c == 'u') {
            unsigned u = hex4(r);
            if (u >= 0xd800 && u < 0xdc00 && word(r, "\\u"))
                u = 0x10000 + ((u - 0xd800) << 10) + (hex4(r) - 0xdc00);
            o = put_utf8(o, u);
        } else {
            r->bad = true;
            break;
        }
    }
    if (r->p >= r->end)
        r->bad = true;
    r->p++;
    *o = 0;
    *ret_n = (uint32_t)(o - out);
    return out;
}

static struct val value(struct reader *r)
{
    struct val v = {.type = VAL_NULL};

    blanks(r);
    if (r->bad || r->p >= r->end || r->depth > 100) {
        r->bad = true;
        return v;
    }
    switch (*r->p) {
    case '{':
    case '[': {
        bool map = *r->p == '{';
        struct val *made = map ? val_map(r->a) : val_list(r->a);
        char close = map ? '}' : ']';
        r->p++;
        r->depth++;
        blanks(r);
        while (!r->bad && r->p < r->end && *r->p != close) {
            const char *key = NULL;
            uint32_t n = 0;
            if (map) {
                if (*r->p != '"') {
                    r->bad = true;
                    break;
                }
                key = string(r, &n);
                blanks(r);
                if (!word(r, ":")) {
                    r->bad = true;
                    break;
                }
            }
            struct val item = value(r);
            if (map)
                val_putn(r->a, made, key, n, &item);
            else
                val_push(r->a, made, &item);
            blanks(r);
            if (word(r, ","))
                blanks(r);
            else if (r->p >= r->end || *r->p != close)
                r->bad = true;
        }
        r->depth--;
        if (r->p >= r->end)
            r->bad = true;
        r->p++;
        return *made;
    }
    case '"':
        v.type = VAL_STR;
        v.s = string(r, &v.n);
        return v;
    case 't':
    case 'f':
        v.type = VAL_BOOL;
        v.b = *r->p == 't';
        r->bad |= !word(r, v.b ? "true" : "false");
        return v;
    case 'n':
        r->bad |= !word(r, "null");
        return v;
    default: {
        char *end;
        v.type = VAL_INT;
        v.i = strtoll(r->p, &end, 10); /* the text ends in 0: shim_recv sees to it */
        if (end == r->p)
            r->bad = true;
        if (*end == '.' || *end == 'e' || *end == 'E') {
            v.type = VAL_DOUBLE;
            v.dbl = strtod(r->p, &end);
        }
        r->p = end;
        return v;
    }
    }
}

struct val *json_parse(struct arena *a, const char *text, size_t n, struct err *err)
{
    struct reader r = {.a = a, .p = text, .end = text + n};
    struct val *v = val_null(a);

    *v = value(&r);
    blanks(&r);
    if (r.bad || r.p != r.end) {
        err_set(err, INVALID_ARGUMENT, "no JSON at byte %td", r.p - text);
        return NULL;
    }
    return v;
}

void json_write_str(struct buf *b, const char *s, size_t n)
{
    buf_addc(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            buf_addc(b, '\\');
            buf_addc(b, (char)c);
        } else if (c < 0x20) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_addc(b, (char)c);
        }
    }
    buf_addc(b, '"');
}

void json_write(struct buf *b, const struct val *v)
{
    bool first = true;

    switch ((enum val_type)(v ? v->type : VAL_NULL)) {
    case VAL_NULL:
        buf_adds(b, "null");
        break;
    case VAL_BOOL:
        buf_adds(b, v->b ? "true" : "false");
        break;
    case VAL_INT:
        buf_printf(b, "%" PRId64, v->i);
        break;
    case VAL_DOUBLE:
        buf_printf(b, "%.17g", val_num(v));
        break;
    case VAL_STR:
        json_write_str(b, v->s, v->n);
        break;
    case VAL_LIST:
        buf_addc(b, '[');
        VAL_EACH (v, it) {
            if (!first)
                buf_addc(b, ',');
            first = false;
            json_write(b, it);
        }
        buf_addc(b, ']');
        break;
    case VAL_MAP:
        buf_addc(b, '{');
        VAL_EACH_MEMBER (v, m) {
            if (!first)
                buf_addc(b, ',');
            first = false;
            json_write_str(b, m->key, m->n);
            buf_addc(b, ':');
            json_write(b, &m->v);
        }
        buf_addc(b, '}');
        break;
    }
}
