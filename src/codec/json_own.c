/* codec/json_own.c - reading back the text that json_write() made.
 *
 * Such text is compact, names no key twice and is good UTF-8, so one pass over it makes the tree: strings
 * stay where they are (their closing quote becomes the 0 behind them), members are collected on a stack and
 * moved to the arena when their map or list ends and their number is known. What does not read as
 * JSON is still refused, and nothing behind the end is looked at but JSON_ROOM bytes. */
#include "codec/json.h"
#include "codec/json_part.h"
#include "codec/json_scan.h"
#include "codec/val_build.h"

#include <stdlib.h>

static bool value(struct json_part *r, struct val *to);

static void put_utf8(char **to, uint32_t c)
{
    char *o = *to;

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
    *to = o;
}

static bool hex4(const char *p, uint32_t *ret)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++) {
        int c = p[i], d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;

        if (d < 0)
            return false;
        v = v << 4 | (uint32_t)d;
    }
    *ret = v;
    return true;
}

/* p: behind a backslash. Writes what the escape means and gives the place behind it; NULL: it means nothing. */
static const char *unescape(const char *p, const char *end, char **to)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *at = p < end && *p ? strchr(names, *p) : NULL;
    uint32_t c, low;

    if (at) {
        *(*to)++ = means[at - names];
        return p + 1;
    }
    if (end - p < 5 || *p != 'u' || !hex4(p + 1, &c))
        return NULL;
    p += 5;
    if (c >= 0xd800 && c < 0xdc00) {
        if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, &low) || low < 0xdc00 || low > 0xdfff)
            return NULL;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        p += 6;
    }
    put_utf8(to, c);
    return p;
}

/* r->p: behind the opening quote. */
static bool string(struct json_part *r, const char **ret, uint32_t *ret_n)
{
    char *s = r->p, *p = json_scan_quote(s, r->end), *to = p;

    while (p < r->end && *p == '\\') {
        const char *from = unescape(p + 1, r->end, &to), *next;

        if (!from)
            return false;
        next = json_scan_quote((char *)(uintptr_t)from, r->end);
        memmove(to, from, (size_t)(next - from));
        to += next - from;
        p = (char *)(uintptr_t)next;
    }
    if (p >= r->end)
        return false;
    *to = 0;
    *ret = s;
    *ret_n = (uint32_t)(to - s);
    r->p = p + 1;
    return true;
}

static bool number(struct json_part *r, struct val *to)
{
    char *p = r->p, *digits = p + (*p == '-'), *after;
    uint64_t u = 0;
    bool minus = *p == '-', whole = true;

    for (p = digits; *p >= '0' && *p <= '9'; p++)
        whole &= !__builtin_mul_overflow(u, (uint64_t)10, &u) && !__builtin_add_overflow(u, (uint64_t)(*p - '0'), &u);
    if (p == digits)
        return false;
    if (*p != '.' && *p != 'e' && *p != 'E' && whole && u <= (uint64_t)INT64_MAX + minus && !(minus && !u)) {
        to->type = VAL_INT;
        to->i = (int64_t)(minus ? 0 - u : u);
        r->p = p;
        return true;
    }
    (void)strtod(r->p, &after);
    *to = (struct val){.type = VAL_DOUBLE, .n = (uint32_t)(after - r->p), .s = r->p}; /* as it was written */
    r->p = after;
    return true;
}

static struct val_member *push(struct json_part *r)
{
    if (r->n == r->cap)
        r->stack = xrealloc(r->stack, (r->cap = r->cap ? r->cap * 2 : 64) * sizeof *r->stack);
    r->stack[r->n] = (struct val_member){0};
    return &r->stack[r->n++];
}

static bool list(struct json_part *r, struct val *to)
{
    uint32_t from = r->n;

    to->type = VAL_LIST;
    if (*++r->p == ']') {
        r->p++;
        return true;
    }
    for (;; r->p++) {
        struct val v = {0};

        if (!value(r, &v))
            return false;
        push(r)->v = v;
        if (*r->p != ',')
            break;
    }
    if (*r->p++ != ']')
        return false;
    to->n = r->n - from;
    to->items = arena_raw(r->a, val_cap(to->n) * sizeof *to->items);
    for (uint32_t i = 0; i < to->n; i++)
        to->items[i] = r->stack[from + i].v;
    r->n = from;
    return true;
}

/* A map or list that stays text. */
static bool as_text(struct json_part *r, struct val *to)
{
    char *from = r->p, *end = json_scan_close(from, r->end);

    if (!end)
        return false;
    *to = (struct val){.type = VAL_STR, .flag = VAL_FLAG_JSON, .n = (uint32_t)(end - from), .s = from};
    r->p = end;
    return true;
}

static bool key_is(const struct val_member *m, const char *key, uint32_t n)
{
    return m->n == n && memcmp(m->key, key, n) == 0;
}

static bool is_unseen(const struct json_skim *s, const struct val_member *m)
{
    for (const struct json_key *k = s->unseen; k->n; k++)
        if (key_is(m, k->s, k->n))
            return true;
    return false;
}

/* The value of a map's member. metadata.managedFields[N].fieldsV1 is four levels down. */
static bool member(struct json_part *r, struct val_member *m)
{
    struct json_skim *s = r->skim;
    bool ok;

    if (s && (*r->p == '{' || *r->p == '[')) {
        size_t from = (size_t)(r->p - r->begin);

        if (r->depth > 1 && is_unseen(s, m))
            return as_text(r, &m->v);
        ok = value(r, &m->v);
        if (r->depth == 1 && key_is(m, "metadata", 8)) {
            s->meta = from;
            s->meta_n = (size_t)(r->p - r->begin) - from;
        }
        return ok;
    }
    if (r->lean && r->depth == 1 && key_is(m, "metadata", 8)) {
        r->in_meta = true;
        ok = value(r, &m->v);
        r->in_meta = false;
        return ok;
    }
    if (r->in_meta && r->depth == 4 && *r->p == '{' && key_is(m, "fieldsV1", 8))
        return as_text(r, &m->v);
    return value(r, &m->v);
}

static bool map(struct json_part *r, struct val *to)
{
    uint32_t from = r->n;

    to->type = VAL_MAP;
    if (*++r->p == '}') {
        r->p++;
        return true;
    }
    for (;; r->p++) {
        struct val_member m = {0};

        if (*r->p++ != '"' || !string(r, &m.key, &m.n) || *r->p++ != ':' || !member(r, &m))
            return false;
        *push(r) = m;
        if (*r->p != ',')
            break;
    }
    if (*r->p++ != '}')
        return false;
    to->n = r->n - from;
    to->members = arena_raw(r->a, val_cap(to->n) * sizeof *to->members);
    memcpy(to->members, &r->stack[from], to->n * sizeof *to->members);
    r->n = from;
    return true;
}

static bool word(struct json_part *r, const char *text, size_t n)
{
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, text, n) != 0)
        return false;
    r->p += n;
    return true;
}

static bool value(struct json_part *r, struct val *to)
{
    bool ok;

    switch (*r->p) {
    case '"':
        r->p++;
        to->type = VAL_STR;
        return string(r, &to->s, &to->n);
    case '{':
    case '[':
        if (++r->depth > JSON_DEPTH_MAX)
            return false;
        ok = *r->p == '{' ? map(r, to) : list(r, to);
        r->depth--;
        return ok;
    case 't':
    case 'f':
        to->type = VAL_BOOL;
        to->b = *r->p == 't';
        return to->b ? word(r, "true", 4) : word(r, "false", 5);
    case 'n':
        return word(r, "null", 4);
    default:
        return number(r, to);
    }
}

void json_part_init(struct json_part *r, struct arena *a, char *text, size_t n)
{
    *r = (struct json_part){.a = a, .p = text, .begin = text, .end = text + n};
    memset(text + n, 0, JSON_ROOM);
}

void json_part_done(struct json_part *r)
{
    free(r->stack);
}

bool json_part_value(struct json_part *r, struct val *ret)
{
    return value(r, ret);
}

bool json_part_string(struct json_part *r, const char **ret, uint32_t *ret_n)
{
    return *r->p++ == '"' && string(r, ret, ret_n);
}

bool json_part_as_text(struct json_part *r, struct val *ret)
{
    return (*r->p == '{' || *r->p == '[') && as_text(r, ret);
}

static struct val *parse(struct arena *a, char *text, size_t n, bool lean, struct json_skim *skim, struct err *err)
{
    struct json_part r;
    struct val *v = arena_new_of(a, struct val);
    bool ok;

    json_part_init(&r, a, text, n);
    r.lean = lean;
    r.skim = skim;
    ok = value(&r, v) && r.p == r.end;
    json_part_done(&r);
    if (ok)
        return v;
    err_set(err, INVALID_ARGUMENT, "invalid JSON at byte %zu", (size_t)(r.p - text));
    return NULL;
}

struct val *json_parse_own(struct arena *a, char *text, size_t n, struct err *err)
{
    return parse(a, text, n, false, NULL, err);
}

struct val *json_parse_lean(struct arena *a, char *text, size_t n, struct err *err)
{
    return parse(a, text, n, true, NULL, err);
}

struct val *json_parse_skim(struct arena *a, char *text, size_t n, struct json_skim *skim, struct err *err)
{
    skim->meta = skim->meta_n = 0;
    return parse(a, text, n, false, skim, err);
}
