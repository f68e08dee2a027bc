#include "codec/json.h"

#include "codec/json_scan.h"
#include "codec/val_build.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <yyjson.h>

struct reader {
    struct arena *a;
    json_duplicate_fn *dup;
    void *arg;
    struct err *err;
    struct buf path;
    int depth;
    bool merge;
};

static int read_value(struct reader *r, yyjson_val *from, struct val *to);

/* The shortest digits that read back the same, laid out as Go writes JSON: an exponent only below 1e-6 and
 * from 1e21 on. */
static void double_text(char out[40], double d)
{
    char e[40], digits[24];
    int exp, n = 0, at = 0;

    for (int p = 14; p <= 16; p++) {
        snprintf(e, sizeof e, "%.*e", p, d);
        if (strtod(e, NULL) == d)
            break;
    }
    exp = atoi(strchr(e, 'e') + 1);
    for (const char *p = e; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (e[0] == '-')
        out[at++] = '-';
    if (d != 0 && (exp < -6 || exp >= 21)) {
        out[at++] = digits[0];
        if (n > 1)
            out[at++] = '.';
        memcpy(out + at, digits + 1, (size_t)n - 1);
        sprintf(out + at + n - 1, "e%c%d", exp < 0 ? '-' : '+', abs(exp) % 1000);
        return;
    }
    if (exp < 0) {
        at += sprintf(out + at, "0.%.*s", -exp - 1, "00000");
        memcpy(out + at, digits, (size_t)n);
        at += n;
    }
    for (int i = 0; exp >= 0 && i <= MAX(n - 1, exp); i++) {
        if (i == exp + 1)
            out[at++] = '.';
        out[at++] = i < n ? digits[i] : '0';
    }
    out[at] = 0;
}

/* Bytes of the UTF-8 character at s; 0: it is none. */
static size_t utf8_len(const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    uint32_t c = p[0] & (0xff >> (len + 1));

    if (len == 1)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && (c < 0x10000 || c > 0x10ffff)) || (c >= 0xd800 && c < 0xe000))
        return 0;
    return len;
}

/* The number of the escape \uXXXX at byte i; 0: there is none. */
static unsigned escape_at(const char *text, size_t n, size_t i)
{
    unsigned c = 0;

    if (i + 6 > n || text[i] != '\\' || text[i + 1] != 'u')
        return 0;
    for (size_t k = i + 2; k < i + 6; k++) {
        char d = text[k];

        if (!(d >= '0' && d <= '9') && !((d | 32) >= 'a' && (d | 32) <= 'f'))
            return 0;
        c = c << 4 | (unsigned)(d <= '9' ? d - '0' : (d | 32) - 'a' + 10);
    }
    return c;
}

/* Maps of more than this many keys look for repetitions by a hash, small ones by comparing. */
enum { SMALL_MAP = 16 };

/* The member that already has this key, or NULL. table: slots of member index + 1, for big maps. */
static struct val *seen_before(struct val *map, uint32_t *table, uint32_t mask, const char *key,
                               uint32_t n)
{
    uint32_t h = 2166136261u;

    if (!table)
        return val_getn(map, key, n);
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)key[i]) * 16777619u;
    for (uint32_t i = h & mask;; i = (i + 1) & mask) {
        if (!table[i]) {
            table[i] = map->n + 1; /* the caller appends it next */
            return NULL;
        }
        if (map->members[table[i] - 1].n == n &&
            memcmp(map->members[table[i] - 1].key, key, n) == 0)
            return &map->members[table[i] - 1].v;
    }
}

/* A map that comes twice fills the same struct of a Go server: what only the first one says stays. */
static struct val *merged(struct arena *a, struct val *first, const struct val *second)
{
    VAL_EACH_MEMBER(second, m) {
        struct val *had = val_getn(first, m->key, m->n);

        if (had && had->type == VAL_MAP && m->v.type == VAL_MAP)
            merged(a, had, &m->v);
        else
            val_putn(a, first, m->key, m->n, &m->v);
    }
    return first;
}

/* A number of the document, as text that ends in 0. */
static int read_number(struct reader *r, const char *s, size_t n, struct val *to)
{
    size_t sign = s[0] == '-';
    char plain[40];
    double d;

    if (n - sign <= 18 && strspn(s + sign, "0123456789") == n - sign) {
        to->type = VAL_INT;
        for (size_t i = sign; i < n; i++)
            to->i = to->i * 10 + (s[i] - '0');
        to->i = sign ? -to->i : to->i;
        return 0;
    }
    if (strspn(s + sign, "0123456789") == n - sign) {
        errno = 0;
        to->i = strtoll(s, NULL, 10);
        to->type = VAL_INT;
        if (!errno)
            return 0;
    }
    d = strtod(s, NULL);
    if (!isfinite(d))
        return err_set(r->err, INVALID_ARGUMENT, "the number %.40s is out of range", s);
    *to = (struct val){.type = VAL_DOUBLE, .dbl = d};
    double_text(plain, d);
    if (strlen(plain) != n || memcmp(plain, s, n) != 0) {
        to->s = arena_strndup(r->a, s, n);
        to->n = (uint32_t)n;
    }
    return 0;
}

static int read_map(struct reader *r, yyjson_val *from, struct val *to)
{
    size_t count = yyjson_obj_size(from), i, max, path_n = r->path.n;
    uint32_t mask = (uint32_t)val_cap((uint32_t)count) * 2 - 1;
    _auto_(freep) uint32_t *table = count > SMALL_MAP ? xcalloc(mask + 1, sizeof *table) : NULL;
    yyjson_val *k, *v;

    to->type = VAL_MAP;
    to->members = count ? arena_raw(r->a, val_cap((uint32_t)count) * sizeof *to->members) : NULL;
    yyjson_obj_foreach(from, i, max, k, v)
    {
        const char *key = yyjson_get_str(k);
        uint32_t n = (uint32_t)yyjson_get_len(k);
        struct val *at = seen_before(to, table, mask, key, n);

        if (r->dup) {
            r->path.n = path_n;
            buf_printf(&r->path, "%s%s", path_n ? "." : "", key);
        }
        if (at && r->dup)
            r->dup(r->arg, r->path.p);
        if (!at) {
            struct val_member *m = &to->members[to->n++];

            *m = (struct val_member){.key = arena_strndup(r->a, key, n), .n = n};
            at = &m->v;
        }
        struct val once = *at;

        *at = (struct val){0};
        if (read_value(r, v, at) < 0)
            return -1;
        if (r->merge && once.type == VAL_MAP && at->type == VAL_MAP)
            *at = *merged(r->a, &once, at);
    }
    r->path.n = path_n;
    return 0;
}

static int read_list(struct reader *r, yyjson_val *from, struct val *to)
{
    size_t count = yyjson_arr_size(from), i, max, path_n = r->path.n;
    yyjson_val *v;

    to->type = VAL_LIST;
    to->items = count ? arena_raw(r->a, val_cap((uint32_t)count) * sizeof *to->items) : NULL;
    yyjson_arr_foreach(from, i, max, v)
    {
        struct val *at = &to->items[to->n++];

        if (r->dup) {
            r->path.n = path_n;
            buf_printf(&r->path, "[%zu]", i);
        }
        *at = (struct val){0};
        if (read_value(r, v, at) < 0)
            return -1;
    }
    r->path.n = path_n;
    return 0;
}

static int read_value(struct reader *r, yyjson_val *from, struct val *to)
{
    int rc = 0;

    switch (yyjson_get_type(from)) {
    case YYJSON_TYPE_NULL:
        to->type = VAL_NULL;
        break;
    case YYJSON_TYPE_BOOL:
        to->type = VAL_BOOL;
        to->b = yyjson_get_bool(from);
        break;
    case YYJSON_TYPE_NUM:
        if (yyjson_is_sint(from) || (yyjson_is_uint(from) && yyjson_get_uint(from) <= INT64_MAX)) {
            to->type = VAL_INT;
            to->i = yyjson_get_sint(from);
        } else {
            to->type = VAL_DOUBLE;
            to->dbl = yyjson_get_num(from);
        }
        break;
    case YYJSON_TYPE_RAW:
        rc = read_number(r, yyjson_get_raw(from), yyjson_get_len(from), to);
        break;
    case YYJSON_TYPE_STR:
        to->type = VAL_STR;
        to->n = (uint32_t)yyjson_get_len(from);
        to->s = arena_strndup(r->a, yyjson_get_str(from), to->n);
        break;
    case YYJSON_TYPE_ARR:
    case YYJSON_TYPE_OBJ:
        if (++r->depth > JSON_DEPTH_MAX)
            return err_set(r->err, INVALID_ARGUMENT, "JSON is nested more than %d levels deep",
                           JSON_DEPTH_MAX);
        rc = yyjson_is_obj(from) ? read_map(r, from, to) : read_list(r, from, to);
        r->depth--;
        break;
    default:
        UNREACHABLE();
    }
    return rc;
}

/* What Go reads where the text holds a half of a pair of surrogates or bytes that are no UTF-8: U+FFFD.
 * NULL: there is nothing of that kind. The caller's to free. */
static char *repaired(const char *text, size_t n, size_t *ret_n)
{
    static const char REPLACEMENT[] = "\xef\xbf\xbd";
    struct buf out = {0};
    bool any = false;
    unsigned hi, lo;

    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)text[i];
        size_t len = c < 0x80 ? 1 : utf8_len(text + i, n - i);

        if (c == '\\' && i + 1 < n && text[i + 1] != 'u') {
            buf_add(&out, text + i, 2);
            i += 2;
        } else if (c == '\\' && (hi = escape_at(text, n, i)) >= 0xd800 && hi < 0xe000) {
            lo = hi < 0xdc00 ? escape_at(text, n, i + 6) : 0;
            bool pair = lo >= 0xdc00 && lo < 0xe000;

            buf_add(&out, pair ? text + i : "\\ufffd", pair ? 12 : 6);
            any |= !pair;
            i += pair ? 12 : 6;
        } else if (!len) {
            buf_add(&out, REPLACEMENT, 3);
            any = true;
            i++;
        } else {
            buf_add(&out, text + i, len);
            i += len;
        }
    }
    *ret_n = out.n;
    if (any)
        return out.p;
    buf_done(&out);
    return NULL;
}

struct val *json_parse_with(struct arena *a, const char *text, size_t n, const struct json_reading *how,
                            struct err *err)
{
    struct reader r = {.a = a, .dup = how->duplicate, .arg = how->arg, .err = err, .merge = how->merge};
    yyjson_read_flag flags = how->as_written ? YYJSON_READ_NUMBER_AS_RAW : 0;
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, n, flags, NULL, &why);
    struct val *v;
    int rc;

    if (!doc && why.code == YYJSON_READ_ERROR_INVALID_STRING) {
        _auto_(freep) char *fixed = repaired(text, n, &n);

        doc = fixed ? yyjson_read_opts(fixed, n, flags, NULL, &why) : NULL;
    }
    if (!doc) {
        err_set(err, INVALID_ARGUMENT, "invalid JSON at byte %zu: %s", why.pos, why.msg);
        return NULL;
    }
    v = arena_new_of(a, struct val);
    rc = read_value(&r, yyjson_doc_get_root(doc), v);
    yyjson_doc_free(doc);
    buf_done(&r.path);
    return rc < 0 ? NULL : v;
}

struct val *json_parse_strict(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup,
                              void *arg, struct err *err)
{
    return json_parse_with(a, text, n, &(struct json_reading){.duplicate = dup, .arg = arg}, err);
}

struct val *json_parse(struct arena *a, const char *text, size_t n, struct err *err)
{
    return json_parse_strict(a, text, n, NULL, NULL, err);
}

/* How many bytes from s on go into a JSON string as they are. */
static size_t plain(const char *s, const char *end)
{
    const char *p = s;

    for (; end - p >= JSON_SCAN_BYTES; p += JSON_SCAN_BYTES) {
        uint64_t w = json_scan_word(p);
        uint64_t hit = json_scan_is(w, '"') | json_scan_is(w, '\\') | json_scan_below(w, 0x20);

        if (hit)
            return (size_t)(p - s) + (size_t)__builtin_ctzll(hit) / 8;
    }
    while (p < end && (uint8_t)*p >= 0x20 && *p != '"' && *p != '\\')
        p++;
    return (size_t)(p - s);
}

static void write_escape(struct buf *b, uint8_t c)
{
    static const char HEX[] = "0123456789abcdef";
    char esc[6] = {'\\', (char)c, '0', '0', HEX[c >> 4], HEX[c & 15]};
    size_t n = 2;

    switch (c) {
    case '\n':
        esc[1] = 'n';
        break;
    case '\t':
        esc[1] = 't';
        break;
    case '\r':
        esc[1] = 'r';
        break;
    case '"':
    case '\\':
        break;
    default:
        esc[1] = 'u';
        n = 6;
    }
    buf_add(b, esc, n);
}

void json_write_str(struct buf *b, const char *s, size_t n)
{
    const char *end = s + n;
    size_t run = plain(s, end);

    if (run == n && buf_reserve(b, n + 2)) { /* nearly all: one piece, written once */
        b->p[b->n] = '"';
        memcpy(b->p + b->n + 1, s, n);
        b->p[b->n + n + 1] = '"';
        b->n += n + 2;
        b->p[b->n] = 0;
        return;
    }
    buf_addc(b, '"');
    for (;; run = plain(s, end)) {
        buf_add(b, s, run);
        if ((s += run) == end)
            break;
        write_escape(b, (uint8_t)*s++);
    }
    buf_addc(b, '"');
}

static void write_int(struct buf *b, int64_t i)
{
    char digits[24], *p = digits + sizeof digits;
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;

    do
        *--p = (char)('0' + u % 10);
    while (u /= 10);
    if (i < 0)
        *--p = '-';
    buf_add(b, p, (size_t)(digits + sizeof digits - p));
}

static void write_double(struct buf *b, const struct val *v)
{
    char text[40];

    if (v->n) {
        buf_add(b, v->s, v->n);
        return;
    }
    if (!isfinite(v->dbl)) { /* JSON has no such number; no decoder of ours makes one */
        buf_adds(b, "null");
        return;
    }
    double_text(text, v->dbl);
    buf_adds(b, text);
}

static void write_value(struct buf *b, const struct val *v, int indent)
{
    int in = indent < 0 ? -1 : indent + 2;

    switch ((enum val_type)v->type) {
    case VAL_NULL:
        buf_add(b, "null", 4);
        return;
    case VAL_BOOL:
        buf_adds(b, v->b ? "true" : "false");
        return;
    case VAL_INT:
        write_int(b, v->i);
        return;
    case VAL_DOUBLE:
        write_double(b, v);
        return;
    case VAL_STR:
        if (v->flag == VAL_FLAG_JSON)
            buf_add(b, v->s, v->n);
        else
            json_write_str(b, v->s, v->n);
        return;
    case VAL_LIST:
    case VAL_MAP:
        break;
    }
    buf_addc(b, v->type == VAL_LIST ? '[' : '{');
    for (uint32_t i = 0; i < v->n; i++) {
        if (i)
            buf_addc(b, ',');
        if (in >= 0)
            buf_printf(b, "\n%*s", in, "");
        if (v->type == VAL_LIST) {
            write_value(b, &v->items[i], in);
            continue;
        }
        json_write_str(b, v->members[i].key, v->members[i].n);
        buf_add(b, ": ", in >= 0 ? 2 : 1);
        write_value(b, &v->members[i].v, in);
    }
    if (in >= 0 && v->n)
        buf_printf(b, "\n%*s", indent, "");
    buf_addc(b, v->type == VAL_LIST ? ']' : '}');
}

void json_write(struct buf *b, const struct val *v)
{
    write_value(b, v, -1);
}

void json_write_pretty(struct buf *b, const struct val *v)
{
    write_value(b, v, 0);
    buf_addc(b, '\n');
}

char *json_text(struct arena *a, const struct val *v, size_t *ret_n)
{
    struct buf b = {0};
    char *text;

    json_write(&b, v);
    text = arena_strndup(a, b.p, b.n);
    if (ret_n)
        *ret_n = b.n;
    buf_done(&b);
    return text;
}
