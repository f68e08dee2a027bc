#include "door/aws/cbor.h"

#include <math.h>

enum { DEPTH_MAX = 32, KEYS_MAX = 1000 }; /* of one map: each new one is looked for among the others */

struct in {
    const unsigned char *p, *end;
    struct arena *a;
    struct err *err;
    int depth;
};

static int wrong(struct in *s)
{
    return err_set(s->err, INVALID_ARGUMENT, "the body is no CBOR that can be read");
}

static double half(uint16_t h)
{
    int e = h >> 10 & 31;
    double m = h & 1023, v = e == 0 ? ldexp(m, -24) : e != 31 ? ldexp(m + 1024, e - 25) : m ? NAN : INFINITY;

    return h & 0x8000 ? -v : v;
}

/* The head's argument; *ret_info 31: indefinite. */
static int head(struct in *s, int *ret_major, int *ret_info, uint64_t *ret_n)
{
    int bytes;

    if (s->p == s->end)
        return wrong(s);
    *ret_major = *s->p >> 5;
    *ret_info = *s->p++ & 31;
    *ret_n = (uint64_t)*ret_info;
    if (*ret_info < 24 || *ret_info == 31)
        return 0;
    bytes = 1 << (*ret_info - 24);
    if (*ret_info > 27 || s->end - s->p < bytes)
        return wrong(s);
    *ret_n = 0;
    while (bytes--)
        *ret_n = *ret_n << 8 | *s->p++;
    return 0;
}

static struct val *item(struct in *s);

static bool at_break(struct in *s)
{
    if (s->p < s->end && *s->p == 0xff) {
        s->p++;
        return true;
    }
    return false;
}

static struct val *text(struct in *s, int major, int info, uint64_t n)
{
    struct buf b = {0};
    struct val *v;

    if (info != 31) {
        if (n > (uint64_t)(s->end - s->p)) {
            wrong(s);
            return NULL;
        }
        s->p += n;
        return val_strn(s->a, (const char *)s->p - n, n);
    }
    while (!at_break(s)) {
        int m, i;

        if (head(s, &m, &i, &n) < 0 || m != major || i == 31 || n > (uint64_t)(s->end - s->p)) {
            wrong(s);
            buf_done(&b);
            return NULL;
        }
        buf_add(&b, s->p, n);
        s->p += n;
    }
    v = val_strn(s->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return v;
}

static struct val *many(struct in *s, bool map, int info, uint64_t n)
{
    struct val *v = map ? val_map(s->a) : val_list(s->a);

    for (uint64_t i = 0; info == 31 ? !at_break(s) : i < n; i++) {
        struct val *key = map ? item(s) : NULL, *one;

        if ((map && (!val_is(key, VAL_STR) || i >= KEYS_MAX)) || !(one = item(s))) {
            wrong(s);
            return NULL;
        }
        if (map)
            val_putn(s->a, v, key->s, key->n, one);
        else
            val_push(s->a, v, one);
    }
    return v;
}

static struct val *simple(struct in *s, int info, uint64_t n)
{
    float f;
    double d;
    uint32_t n32 = (uint32_t)n;

    switch (info) {
    case 20: case 21: return val_bool(s->a, info == 21);
    case 22: case 23: return val_null(s->a);
    case 25: return val_double(s->a, half((uint16_t)n));
    case 26:
        memcpy(&f, &n32, sizeof f);
        return val_double(s->a, f);
    case 27:
        memcpy(&d, &n, sizeof d);
        return val_double(s->a, d);
    default:
        wrong(s);
        return NULL;
    }
}

static struct val *item(struct in *s)
{
    int major, info;
    uint64_t n;
    struct val *v = NULL;

    if (++s->depth > DEPTH_MAX || head(s, &major, &info, &n) < 0 || (info == 31 && (major < 2 || major > 5))) {
        wrong(s);
        return NULL;
    }
    switch (major) {
    case 0: v = n <= INT64_MAX ? val_int(s->a, (int64_t)n) : val_double(s->a, (double)n); break;
    case 1: v = n < INT64_MAX ? val_int(s->a, -1 - (int64_t)n) : val_double(s->a, -1 - (double)n); break;
    case 2: case 3: v = text(s, major, info, n); break;
    case 4: case 5: v = many(s, major == 5, info, n); break;
    case 6: v = item(s); break;
    case 7: v = simple(s, info, n); break;
    }
    s->depth--;
    return v;
}

struct val *cbor_read(struct arena *a, const void *p, size_t n, struct err *err)
{
    struct in s = {p, (const unsigned char *)p + n, a, err, 0};
    struct val *v = item(&s);

    if (v && s.p != s.end) {
        wrong(&s);
        return NULL;
    }
    return v;
}

/* ---- writing ---- */

static void put_head(struct buf *b, int major, uint64_t n)
{
    int bytes = n < 24 ? 0 : n < 256 ? 1 : n < 65536 ? 2 : n >> 32 ? 8 : 4;

    buf_addc(b, (char)(major << 5 | (bytes ? 23 + (bytes == 1 ? 1 : bytes == 2 ? 2 : bytes == 4 ? 3 : 4) : (int)n)));
    while (bytes--)
        buf_addc(b, (char)(n >> (8 * bytes)));
}

static void put_double(struct buf *b, double d)
{
    uint64_t n;

    memcpy(&n, &d, sizeof n);
    buf_addc(b, (char)0xfb);
    for (int i = 7; i >= 0; i--)
        buf_addc(b, (char)(n >> (8 * i)));
}

static void put(struct buf *b, const struct val *v, bool time, bool (*is_time)(const char *key))
{
    if (time && val_is_number(v))
        buf_addc(b, (char)0xc1);
    switch (v->type) {
    case VAL_NULL: buf_addc(b, (char)0xf6); break;
    case VAL_BOOL: buf_addc(b, (char)(v->b ? 0xf5 : 0xf4)); break;
    case VAL_INT: put_head(b, v->i < 0, v->i < 0 ? (uint64_t)(-1 - v->i) : (uint64_t)v->i); break;
    case VAL_DOUBLE: put_double(b, val_num(v)); break;
    case VAL_STR:
        put_head(b, 3, v->n);
        buf_add(b, v->s, v->n);
        break;
    case VAL_LIST:
        put_head(b, 4, v->n);
        VAL_EACH(v, it)
        put(b, it, time, is_time);
        break;
    case VAL_MAP:
        put_head(b, 5, v->n);
        VAL_EACH_MEMBER(v, m)
        {
            put_head(b, 3, strlen(m->key));
            buf_adds(b, m->key);
            put(b, &m->v, is_time && is_time(m->key), is_time);
        }
        break;
    }
}

void cbor_write(struct buf *b, const struct val *v, bool (*is_time)(const char *key))
{
    put(b, v, false, is_time);
}
