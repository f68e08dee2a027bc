/* cel/lib_std.c - operators, conversions and the rest of the standard library; optionals. */
#include "cel/lib.h"

#include "codec/regex.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define NO_OVERLOAD no_overload(e, call, args, n)
#define NS 1000000000

/* Kinds that an operator is for, as bits; upstream names the operator when its left side is none. */
#define KIND(k) (1u << CEL_##k)
enum {
    ADDERS = KIND(INT) | KIND(UINT) | KIND(DOUBLE) | KIND(STRING) | KIND(BYTES) | KIND(LIST) | KIND(TIMESTAMP) | KIND(DURATION),
    SUBTRACTORS = KIND(INT) | KIND(UINT) | KIND(DOUBLE) | KIND(TIMESTAMP) | KIND(DURATION),
    COMPARERS = KIND(BOOL) | KIND(INT) | KIND(UINT) | KIND(DOUBLE) | KIND(STRING) | KIND(BYTES) | KIND(TIMESTAMP) | KIND(DURATION),
};
static struct cel_value mismatch(struct eval *e, const struct node *call, struct cel_value left, unsigned kinds)
{
    if (!(kinds >> left.kind & 1) && call->fn)
        return fail(e, "no such overload: %s", call->fn->name);
    return fail_lit("no such overload");
}

FN(fn_not)
{
    return args[0].kind == CEL_BOOL ? cel_bool(!args[0].b) : fail_lit("no such overload");
}

/* ---- times: seconds and nanoseconds, in the bounds of timestamps and of Go's durations ---- */

static struct cel_value time_value(struct eval *e, uint8_t kind, __int128 ns)
{
    __int128 s = ns / NS, rest = ns % NS;

    if (rest < 0) {
        rest += NS;
        s--;
    }
    if (kind == CEL_DURATION ? ns > INT64_MAX || ns < INT64_MIN : s < -62135596800LL || s > 253402300799LL)
        return fail_lit(kind == CEL_DURATION ? "duration overflow" : "timestamp overflow");
    return (struct cel_value){.kind = kind, .i = (int64_t)s, .n = (uint32_t)rest};
}
static __int128 ns_of(struct cel_value v)
{
    return (__int128)v.i * NS + v.n;
}

/* A timestamp keeps the zone that it was written in: string() shows it. */
static struct cel_value zoned(struct cel_value v, struct cel_value from)
{
    if (v.kind == CEL_TIMESTAMP && from.kind == CEL_TIMESTAMP)
        v.sub = from.sub;
    return v;
}

/* ---- arithmetic ---- */

static struct cel_value add_lists(struct eval *e, struct cel_value x, struct cel_value y)
{
    uint32_t n = list_len(x), m = list_len(y);
    uint8_t how = x.type ? x.type->list_type : CEL_LIST_ATOMIC;
    struct cel_value out;

    if (x.sub == SUB_MADE && !x.type) {
        out = x;
    } else {
        out = list_new(e, n + m);
        for (uint32_t i = 0; i < n; i++)
            out = list_push(e, out, list_at(e, x, i));
        if (how != CEL_LIST_ATOMIC)
            out.type = x.type; /* a union of unions */
    }
    for (uint32_t i = 0; i < m; i++) {
        struct cel_value item = list_at(e, y, i);
        if (how == CEL_LIST_SET) {
            uint32_t k;
            for (k = 0; k < n && !values_same(e, list_at(e, x, k), item); k++)
                ;
            if (k < n)
                continue;
        } else if (how == CEL_LIST_MAP) {
            uint32_t k;
            for (k = 0; k < n && !list_keys_same(e, x.type, list_at(e, x, k), item); k++)
                ;
            if (k < n) { /* the newer one, in its old place; out is ours alone */
                ((struct cel_list *)out.list)->items[k] = item;
                continue;
            }
        }
        out = list_push(e, out, item);
    }
    return out;
}

FN(fn_add)
{
    struct cel_value x = args[0], y = args[1];
    int64_t i;
    uint64_t u;

    if ((x.kind == CEL_TIMESTAMP && y.kind == CEL_DURATION) || (x.kind == CEL_DURATION && y.kind == CEL_TIMESTAMP))
        return zoned(time_value(e, CEL_TIMESTAMP, ns_of(x) + ns_of(y)), x.kind == CEL_TIMESTAMP ? x : y);
    if (x.kind != y.kind)
        return mismatch(e, call, x, ADDERS);
    switch (x.kind) {
    case CEL_INT:
        return __builtin_add_overflow(x.i, y.i, &i) ? fail_lit("integer overflow") : cel_int(i);
    case CEL_UINT:
        return __builtin_add_overflow(x.u, y.u, &u) ? fail_lit("unsigned integer overflow") : cel_uint(u);
    case CEL_DOUBLE:
        return cel_double(x.d + y.d);
    case CEL_STRING: case CEL_BYTES: {
        char *s;
        if ((uint64_t)x.n + y.n > UINT32_MAX / 2)
            return fail_lit("the string is too long");
        s = mem(e, (size_t)x.n + y.n + 1);
        memcpy(s, x.s ? x.s : "", x.n);
        memcpy(s + x.n, y.s ? y.s : "", y.n);
        x.s = s;
        x.n += y.n;
        return x;
    }
    case CEL_DURATION:
        return time_value(e, CEL_DURATION, ns_of(x) + ns_of(y));
    case CEL_LIST:
        return add_lists(e, x, y);
    default:
        return mismatch(e, call, x, ADDERS);
    }
}

FN(fn_sub)
{
    struct cel_value x = args[0], y = args[1];
    int64_t i;
    uint64_t u;

    if (x.kind == CEL_TIMESTAMP && (y.kind == CEL_DURATION || y.kind == CEL_TIMESTAMP))
        return zoned(time_value(e, y.kind == CEL_DURATION ? CEL_TIMESTAMP : CEL_DURATION, ns_of(x) - ns_of(y)), x);
    if (x.kind != y.kind)
        return mismatch(e, call, x, SUBTRACTORS);
    switch (x.kind) {
    case CEL_INT:
        return __builtin_sub_overflow(x.i, y.i, &i) ? fail_lit("integer overflow") : cel_int(i);
    case CEL_UINT:
        return __builtin_sub_overflow(x.u, y.u, &u) ? fail_lit("unsigned integer overflow") : cel_uint(u);
    case CEL_DOUBLE:
        return cel_double(x.d - y.d);
    case CEL_DURATION:
        return time_value(e, CEL_DURATION, ns_of(x) - ns_of(y));
    default:
        return mismatch(e, call, x, SUBTRACTORS);
    }
}

FN(fn_mul)
{
    struct cel_value x = args[0], y = args[1];
    int64_t i;
    uint64_t u;

    if (x.kind != y.kind)
        return fail_lit("no such overload");
    switch (x.kind) {
    case CEL_INT:
        return __builtin_mul_overflow(x.i, y.i, &i) ? fail_lit("integer overflow") : cel_int(i);
    case CEL_UINT:
        return __builtin_mul_overflow(x.u, y.u, &u) ? fail_lit("unsigned integer overflow") : cel_uint(u);
    case CEL_DOUBLE:
        return cel_double(x.d * y.d);
    default:
        return fail_lit("no such overload");
    }
}

__attribute__((no_sanitize("float-divide-by-zero"))) static double divide(double x, double y)
{
    return x / y;
}

FN(fn_div)
{
    struct cel_value x = args[0], y = args[1];

    if (x.kind != y.kind)
        return fail_lit("no such overload");
    switch (x.kind) {
    case CEL_INT:
        if (y.i == 0)
            return fail_lit("division by zero");
        return x.i == INT64_MIN && y.i == -1 ? fail_lit("integer overflow") : cel_int(x.i / y.i);
    case CEL_UINT:
        return y.u == 0 ? fail_lit("division by zero") : cel_uint(x.u / y.u);
    case CEL_DOUBLE:
        return cel_double(divide(x.d, y.d));
    default:
        return fail_lit("no such overload");
    }
}

FN(fn_mod)
{
    struct cel_value x = args[0], y = args[1];

    if (x.kind != y.kind || (x.kind != CEL_INT && x.kind != CEL_UINT))
        return fail_lit("no such overload");
    if (y.u == 0)
        return fail_lit("modulus by zero");
    if (x.kind == CEL_UINT)
        return cel_uint(x.u % y.u);
    return x.i == INT64_MIN && y.i == -1 ? fail_lit("integer overflow") : cel_int(x.i % y.i);
}

FN(fn_neg)
{
    if (args[0].kind == CEL_DOUBLE)
        return cel_double(-args[0].d);
    if (args[0].kind != CEL_INT)
        return fail_lit("no such overload");
    return args[0].i == INT64_MIN ? fail_lit("integer overflow") : cel_int(-args[0].i);
}

static struct cel_value relation(struct eval *e, const struct node *call, struct cel_value *args, bool less, bool equal, bool more)
{
    int r = values_compare(args[0], args[1]);

    if (r >= 2)
        return r == 3 ? fail_lit("NaN values cannot be ordered") : mismatch(e, call, args[0], COMPARERS);
    return cel_bool(r < 0 ? less : r > 0 ? more : equal);
}
FN(fn_less)
{
    return relation(e, call, args, true, false, false);
}
FN(fn_less_eq)
{
    return relation(e, call, args, true, true, false);
}
FN(fn_greater)
{
    return relation(e, call, args, false, false, true);
}
FN(fn_greater_eq)
{
    return relation(e, call, args, false, true, true);
}

FN(fn_in)
{
    struct cel_value out;

    if (is_map(args[1]))
        return cel_bool(map_find(e, args[1], args[0], &out));
    if (args[1].kind != CEL_LIST)
        return fail_lit("no such overload");
    for (uint32_t i = 0, len = list_len(args[1]); i < len; i++)
        if (values_same(e, args[0], list_at(e, args[1], i)))
            return cel_bool(true);
    return cel_bool(false);
}

FN(fn_size)
{
    switch (args[0].kind) {
    case CEL_STRING: case CEL_BYTES: case CEL_LIST: case CEL_MAP: case CEL_OBJECT:
        return cel_int((int64_t)value_size(e, args[0]));
    default:
        return fail_lit("no such overload: size");
    }
}

FN(fn_type)
{
    return (struct cel_value){.kind = CEL_TYPE, .t = value_type(args[0])};
}

/* ---- conversions ---- */

static struct cel_value no_conversion(struct eval *e, struct cel_value v, const char *to)
{
    return fail(e, "type conversion error from '%s' to '%s'", value_type_name(e->arena, v), to);
}

FN(fn_bool)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"},
                             *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    if (args[0].kind == CEL_BOOL)
        return args[0];
    if (args[0].kind != CEL_STRING)
        return no_conversion(e, args[0], "bool");
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (args[0].n == strlen(yes[i]) && !memcmp(args[0].s, yes[i], args[0].n))
            return cel_bool(true);
        if (args[0].n == strlen(no[i]) && !memcmp(args[0].s, no[i], args[0].n))
            return cel_bool(false);
    }
    return no_conversion(e, args[0], "bool");
}

FN(fn_bytes)
{
    struct cel_value v = args[0];

    if (v.kind != CEL_STRING && v.kind != CEL_BYTES)
        return no_conversion(e, v, "bytes");
    v.kind = CEL_BYTES;
    return v;
}

FN(fn_dyn)
{
    return args[0];
}

/* The text 0-terminated, when it is short enough to be a number. */
static const char *short_text(struct cel_value v, char out[static 400])
{
    if (v.n >= 400 || memchr(v.s, '\0', v.n))
        return NULL;
    memcpy(out, v.s, v.n);
    out[v.n] = '\0';
    return out;
}

FN(fn_double)
{
    struct cel_value v = args[0];
    char text[400], *end;
    const char *s;
    double d;

    switch (v.kind) {
    case CEL_DOUBLE:
        return v;
    case CEL_INT:
        return cel_double((double)v.i);
    case CEL_UINT:
        return cel_double((double)v.u);
    case CEL_STRING:
        s = short_text(v, text);
        if (!s || !*s || strchr(" \t\n\r\v\f", *s) || strpbrk(s, "(_"))
            return no_conversion(e, v, "double");
        d = strtod(s, &end);
        if (*end)
            return no_conversion(e, v, "double");
        if (isinf(d) && !strpbrk(s, "iI"))
            return no_conversion(e, v, "double");
        return cel_double(d);
    default:
        return no_conversion(e, v, "double");
    }
}

FN(fn_int)
{
    struct cel_value v = args[0];
    char text[400], *end;
    const char *s;
    long long i;

    switch (v.kind) {
    case CEL_INT:
        return v;
    case CEL_UINT:
        return v.u > INT64_MAX ? fail_lit("integer overflow") : cel_int((int64_t)v.u);
    case CEL_DOUBLE:
        if (isnan(v.d) || v.d <= -9223372036854775808.0 || v.d >= 9223372036854775808.0)
            return fail_lit("integer overflow");
        return cel_int((int64_t)v.d);
    case CEL_TIMESTAMP:
        return cel_int(v.i);
    case CEL_DURATION:
        return cel_int((int64_t)ns_of(v));
    case CEL_STRING:
        s = short_text(v, text);
        if (!s || !*s || strspn(s, "+-0123456789") != strlen(s))
            return no_conversion(e, v, "int");
        errno = 0;
        i = strtoll(s, &end, 10);
        if (*end || end == s)
            return no_conversion(e, v, "int");
        return errno ? no_conversion(e, v, "int") : cel_int(i);
    default:
        return no_conversion(e, v, "int");
    }
}

FN(fn_uint)
{
    struct cel_value v = args[0];
    char text[400], *end;
    const char *s;
    unsigned long long u;

    switch (v.kind) {
    case CEL_UINT:
        return v;
    case CEL_INT:
        return v.i < 0 ? fail_lit("unsigned integer overflow") : cel_uint((uint64_t)v.i);
    case CEL_DOUBLE:
        if (isnan(v.d) || v.d < 0 || v.d >= 18446744073709551616.0)
            return fail_lit("unsigned integer overflow");
        return cel_uint((uint64_t)v.d);
    case CEL_STRING:
        s = short_text(v, text);
        if (!s || !*s || strspn(s, "0123456789") != strlen(s))
            return no_conversion(e, v, "uint");
        errno = 0;
        u = strtoull(s, &end, 10);
        return errno ? no_conversion(e, v, "uint") : cel_uint(u);
    default:
        return no_conversion(e, v, "uint");
    }
}

static bool utf8_valid(const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t was = at;
        if (utf8_next(s, n, &at) == 0xfffd && (at - was != 3 || memcmp(s + was, "\xef\xbf\xbd", 3) != 0))
            return false;
    }
    return true;
}

FN(fn_string)
{
    struct cel_value v = args[0];
    char text[64];
    const char *s;

    switch (v.kind) {
    case CEL_STRING:
        return v;
    case CEL_BOOL:
        return cel_str(v.b ? "true" : "false");
    case CEL_BYTES:
        if (!utf8_valid(v.s, v.n))
            return fail_lit("invalid UTF-8 in bytes, cannot convert to string");
        v.kind = CEL_STRING;
        return v;
    case CEL_DOUBLE:
        return double_text(e, v.d);
    case CEL_INT:
        return make_printf(e, "%" PRId64, v.i);
    case CEL_UINT:
        return make_printf(e, "%" PRIu64, v.u);
    case CEL_TIMESTAMP:
        timestamp_write(text, v);
        return make_str(e, text, strlen(text));
    case CEL_DURATION:
        duration_write(text, v);
        return make_str(e, text, strlen(text));
    case CEL_OPAQUE:
        s = opaque_text(e->arena, v);
        return s ? make_str(e, s, strlen(s)) : no_conversion(e, v, "string");
    default:
        return no_conversion(e, v, "string");
    }
}

FN(fn_timestamp)
{
    struct cel_value v = args[0], out;

    switch (v.kind) {
    case CEL_TIMESTAMP:
        return v;
    case CEL_INT:
        return time_value(e, CEL_TIMESTAMP, (__int128)v.i * NS);
    case CEL_STRING:
        if (!timestamp_read(v.s, v.n, &out))
            return no_conversion(e, v, "google.protobuf.Timestamp");
        return zoned(time_value(e, CEL_TIMESTAMP, ns_of(out)), out);
    default:
        return no_conversion(e, v, "google.protobuf.Timestamp");
    }
}

FN(fn_duration)
{
    struct cel_value v = args[0], out;

    switch (v.kind) {
    case CEL_DURATION:
        return v;
    case CEL_INT:
        return time_value(e, CEL_DURATION, v.i);
    case CEL_STRING:
        if (!duration_read(v.s, v.n, &out))
            return no_conversion(e, v, "google.protobuf.Duration");
        return out;
    default:
        return no_conversion(e, v, "google.protobuf.Duration");
    }
}

/* ---- strings of the standard library ---- */

FN(fn_contains)
{
    if (args[0].kind != CEL_STRING || args[1].kind != CEL_STRING)
        return fail_lit("no such overload");
    return cel_bool(!args[1].n || (args[0].n && memmem(args[0].s, args[0].n, args[1].s, args[1].n)));
}
FN(fn_starts)
{
    if (args[0].kind != CEL_STRING || args[1].kind != CEL_STRING)
        return fail_lit("no such overload");
    return cel_bool(args[1].n <= args[0].n && !memcmp(args[0].s, args[1].s, args[1].n));
}
FN(fn_ends)
{
    if (args[0].kind != CEL_STRING || args[1].kind != CEL_STRING)
        return fail_lit("no such overload");
    return cel_bool(args[1].n <= args[0].n && !memcmp(args[0].s + args[0].n - args[1].n, args[1].s, args[1].n));
}

/* The pattern of a call: compiled with the program when it is a constant. */
static struct regex *pattern(struct eval *e, const struct node *call, struct cel_value v, struct regex **ret_own, struct err *err)
{
    *ret_own = NULL;
    if (call->cache)
        return call->cache;
    return *ret_own = regex_new(v.s, v.n, err);
}

FN(fn_matches)
{
    struct regex *own, *re;
    struct err err;
    int r;

    if (args[0].kind != CEL_STRING || args[1].kind != CEL_STRING)
        return fail_lit("no such overload");
    re = pattern(e, call, args[1], &own, &err);
    if (!re)
        return fail(e, "%s", err.msg);
    r = regex_match(re, args[0].s, args[0].n);
    regex_free(own);
    return r < 0 ? fail_lit("the regular expression takes too long on this text") : cel_bool(r);
}

FN(fn_find)
{
    struct regex *own, *re;
    struct err err;
    size_t start, end;
    int r;

    if (args[0].kind != CEL_STRING || args[1].kind != CEL_STRING)
        return fail_lit("no such overload");
    re = pattern(e, call, args[1], &own, &err);
    if (!re)
        return fail(e, "Illegal regex: %s", err.msg);
    r = regex_find(re, args[0].s, args[0].n, 0, &start, &end);
    regex_free(own);
    if (r < 0)
        return fail_lit("the regular expression takes too long on this text");
    return r ? cel_strn(args[0].s + start, end - start) : cel_str("");
}

FN(fn_find_all)
{
    struct cel_value out, s = args[0];
    struct regex *re;
    struct err err;
    int64_t max = n > 2 ? args[2].i : -1;

    if (s.kind != CEL_STRING || args[1].kind != CEL_STRING || (n > 2 && args[2].kind != CEL_INT))
        return fail_lit("no such overload");
    re = call->cache ? call->cache : regex_new(args[1].s, args[1].n, &err);
    if (!re)
        return fail(e, "Illegal regex: %s", err.msg);
    if (!call->cache)
        arena_pin(e->arena, regex_unpin, re); /* list_push may leave by longjmp */
    out = list_new(e, 0);
    for (size_t at = 0, last = SIZE_MAX; at <= s.n && (max < 0 || out.n < max);) {
        size_t start, end;
        int r = regex_find(re, s.s, s.n, at, &start, &end);
        if (r < 0)
            return fail_lit("the regular expression takes too long on this text");
        if (!r)
            break;
        if (end > start || start != last) { /* an empty match right behind a match does not count */
            out = list_push(e, out, cel_strn(s.s + start, end - start));
            last = end;
        }
        if (end > start) {
            at = end;
        } else {
            at = start;
            if (at >= s.n)
                break;
            utf8_next(s.s, s.n, &at);
        }
        spend(e, 0);
        e->bytes += 8;
    }
    return out;
}

/* ---- optionals ---- */

FN(fn_opt_of)
{
    return opt_some(e, args[0]);
}

static bool is_zero(struct cel_value v)
{
    switch (v.kind) {
    case CEL_NULL:
        return true;
    case CEL_BOOL:
        return !v.b;
    case CEL_INT: case CEL_UINT:
        return v.u == 0;
    case CEL_DOUBLE:
        return v.d == 0;
    case CEL_STRING: case CEL_BYTES:
        return v.n == 0;
    case CEL_DURATION:
        return v.i == 0 && v.n == 0;
    case CEL_TIMESTAMP:
        return v.i == -62135596800LL && v.n == 0;
    case CEL_LIST:
        return list_len(v) == 0;
    case CEL_MAP: case CEL_OBJECT:
        return v.sub != SUB_LAZY && map_len(v) == 0;
    case CEL_OPTIONAL:
        return !v.some || is_zero(*v.some);
    default:
        return false;
    }
}
FN(fn_opt_non_zero)
{
    return is_zero(args[0]) ? opt_none() : opt_some(e, args[0]);
}
FN(fn_opt_none)
{
    return opt_none();
}
FN(fn_opt_value)
{
    if (args[0].kind != CEL_OPTIONAL)
        return NO_OVERLOAD;
    return args[0].some ? *args[0].some : fail_lit("optional.none() dereference");
}
FN(fn_opt_has)
{
    return args[0].kind == CEL_OPTIONAL ? cel_bool(args[0].some) : NO_OVERLOAD;
}

static struct cel_value end_of(struct eval *e, struct cel_value l, bool last)
{
    uint32_t len = list_len(l);
    struct cel_value v;

    if (!len)
        return opt_none();
    v = list_at(e, l, last ? len - 1 : 0);
    return is_error(v) ? v : opt_some(e, v);
}
FN(fn_last)
{
    return args[0].kind == CEL_LIST ? end_of(e, args[0], true) : NO_OVERLOAD;
}
FN(fn_first)
{
    return args[0].kind == CEL_LIST ? end_of(e, args[0], false) : NO_OVERLOAD;
}
FN(fn_unwrap)
{
    struct cel_value out;

    if (args[0].kind != CEL_LIST)
        return NO_OVERLOAD;
    out = list_new(e, 0);
    for (uint32_t i = 0, len = list_len(args[0]); i < len; i++) {
        struct cel_value v = list_at(e, args[0], i);
        if (v.kind != CEL_OPTIONAL)
            return fail(e, "value %.200s is not optional", cel_text(e->arena, v));
        if (v.some)
            out = list_push(e, out, *v.some);
    }
    return out;
}

static struct cel_value insert(struct eval *e, struct cel_value map, struct cel_value key, struct cel_value v)
{
    struct cel_value was;

    if (map.sub != SUB_MADE) { /* a tree: copied once */
        struct cel_value copy = map_new(e, map_len(map) + 1);
        for (uint32_t i = 0, len = map_len(map); i < len; i++)
            copy = map_push(e, copy, map_key_at(e, map, i), map_value_at(e, map, i));
        map = copy;
    }
    if (map_find(e, map, key, &was))
        return fail(e, "insert failed: key %.200s already exists", cel_text(e->arena, key));
    return map_push(e, map, key, v);
}

FN(fn_map_insert)
{
    struct cel_value map = args[0];

    if (!is_map(map))
        return NO_OVERLOAD;
    if (n == 3) {
        if (args[1].kind != CEL_STRING && args[1].kind != CEL_INT && args[1].kind != CEL_UINT && args[1].kind != CEL_BOOL)
            return fail(e, "unsupported key type: %s", value_type_name(e->arena, args[1]));
        return insert(e, map, args[1], args[2]);
    }
    if (!is_map(args[1]))
        return NO_OVERLOAD;
    for (uint32_t i = 0, len = map_len(args[1]); i < len && !is_error(map); i++)
        map = insert(e, map, map_key_at(e, args[1], i), map_value_at(e, args[1], i));
    return map;
}
