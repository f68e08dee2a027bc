#include "codec/json.h"

#include "codec/json_scan.h"
#include "codec/val_build.h"

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
};

static int read_value(struct reader *r, yyjson_val *from, struct val *to);

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
        *at = (struct val){0};
        if (read_value(r, v, at) < 0)
            return -1;
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
            to->d = yyjson_get_num(from);
        }
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

struct val *json_parse_strict(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup,
                              void *arg, struct err *err)
{
    struct reader r = {.a = a, .dup = dup, .arg = arg, .err = err};
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, n, 0, NULL, &why);
    struct val *v;
    int rc;

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

static void write_double(struct buf *b, double d)
{
    char text[40];

    if (!isfinite(d)) { /* JSON has no such number; no decoder of ours makes one */
        buf_adds(b, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back the same */
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
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
        write_double(b, v->d);
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
