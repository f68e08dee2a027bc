/* cel/lib_lists.c - lists and sets. */
#include "cel/lib.h"

#include <inttypes.h>
#include <math.h>

#define NO_OVERLOAD no_overload(e, call, args, n)

FN(fn_is_sorted)
{
    struct cel_value prev = {0};

    if (args[0].kind != CEL_LIST)
        return NO_OVERLOAD;
    for (uint32_t i = 0, len = list_len(args[0]); i < len; i++) {
        struct cel_value v = list_at(e, args[0], i);
        int r;
        if (is_error(v))
            return v;
        r = i ? values_compare(prev, v) : values_compare(v, v);
        if (r >= 2)
            return fail_lit(r == 3 ? "NaN values cannot be ordered" : "no such overload");
        if (i && r > 0)
            return cel_bool(false);
        prev = v;
    }
    return cel_bool(true);
}

FN(fn_sum)
{
    struct cel_value sum = {0};

    if (args[0].kind != CEL_LIST)
        return NO_OVERLOAD;
    if (call->over_n) { /* zero of the type that the call has */
        switch (call->over[0]->result->kind) {
        case CEL_UINT:
            sum = cel_uint(0);
            break;
        case CEL_DOUBLE:
            sum = cel_double(0);
            break;
        case CEL_DURATION:
            sum.kind = CEL_DURATION;
            break;
        default:
            sum = cel_int(0);
        }
    }
    for (uint32_t i = 0, len = list_len(args[0]); i < len; i++) {
        struct cel_value two[2] = {sum, list_at(e, args[0], i)};
        if (is_error(two[1]))
            return two[1];
        if (i == 0 && call->over_n > 1) /* known only now */
            two[0] = (struct cel_value){.kind = two[1].kind};
        if (two[1].kind != CEL_INT && two[1].kind != CEL_UINT && two[1].kind != CEL_DOUBLE && two[1].kind != CEL_DURATION)
            return fail_lit("no such overload");
        sum = call->fn ? func_find(e->prog->env, "_+_", 3)->fn(e, call, two, 2) : sum;
        if (is_error(sum))
            return sum;
    }
    return sum;
}

static struct cel_value extreme(struct eval *e, struct cel_value l, int sign, const char *name)
{
    struct cel_value best = {0};
    uint32_t len = list_len(l);

    if (!len)
        return fail(e, "%s called on empty list", name);
    for (uint32_t i = 0; i < len; i++) {
        struct cel_value v = list_at(e, l, i);
        int r;
        if (is_error(v))
            return v;
        r = i ? values_compare(v, best) : values_compare(v, v);
        if (r >= 2)
            return fail_lit(r == 3 ? "NaN values cannot be ordered" : "no such overload");
        if (!i || r * sign > 0)
            best = v;
    }
    return best;
}
FN(fn_max)
{
    return args[0].kind == CEL_LIST ? extreme(e, args[0], 1, "max") : NO_OVERLOAD;
}
FN(fn_min)
{
    return args[0].kind == CEL_LIST ? extreme(e, args[0], -1, "min") : NO_OVERLOAD;
}

FN(fn_slice)
{
    int64_t start = args[1].i, end = args[2].i;
    struct cel_value out;

    if (args[0].kind != CEL_LIST || args[1].kind != CEL_INT || args[2].kind != CEL_INT)
        return NO_OVERLOAD;
    if (start < 0 || end < 0)
        return fail(e, "cannot slice(%" PRId64 ", %" PRId64 "), negative indexes not supported", start, end);
    if (start > end)
        return fail(e, "cannot slice(%" PRId64 ", %" PRId64 "), start index must be less than or equal to end index", start, end);
    if (end > (int64_t)list_len(args[0]))
        return fail(e, "cannot slice(%" PRId64 ", %" PRId64 "), list is length %u", start, end, list_len(args[0]));
    out = list_new(e, (uint32_t)(end - start));
    for (int64_t i = start; i < end; i++)
        out = list_push(e, out, list_at(e, args[0], (uint32_t)i));
    return out;
}

static struct cel_value flatten(struct eval *e, struct cel_value out, struct cel_value l, int64_t depth)
{
    for (uint32_t i = 0, len = list_len(l); i < len; i++) {
        struct cel_value v = list_at(e, l, i);
        if (is_error(v))
            return v;
        if (v.kind == CEL_LIST && depth > 0)
            out = flatten(e, out, v, depth - 1);
        else
            out = list_push(e, out, v);
        if (is_error(out))
            break;
    }
    return out;
}
FN(fn_flatten)
{
    int64_t depth = n > 1 ? args[1].i : 1;

    if (args[0].kind != CEL_LIST || (n > 1 && args[1].kind != CEL_INT))
        return NO_OVERLOAD;
    if (depth < 0)
        return fail_lit("level must be non-negative");
    return flatten(e, list_new(e, 0), args[0], MIN(depth, (int64_t)300));
}

/* A merge sort of indexes by the keys: no worse than n log n, whatever the keys are. */
static void sort(const struct cel_value *keys, uint32_t *v, uint32_t *tmp, uint32_t n)
{
    uint32_t half = n / 2, a = 0, b = half, o = 0;

    if (n < 2)
        return;
    sort(keys, v, tmp, half);
    sort(keys, v + half, tmp, n - half);
    while (a < half && b < n)
        tmp[o++] = values_compare(keys[v[b]], keys[v[a]]) == -1 ? v[b++] : v[a++];
    while (a < half)
        tmp[o++] = v[a++];
    while (b < n)
        tmp[o++] = v[b++];
    memcpy(v, tmp, n * sizeof *v);
}

static struct cel_value sort_by(struct eval *e, struct cel_value l, struct cel_value by)
{
    uint32_t n = list_len(l), *order, *tmp;
    struct cel_value *keys, out;

    if (n != list_len(by))
        return fail(e, "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got %u and %u elements "
                       "respectively", n, list_len(by));
    if (!n)
        return l;
    keys = mem(e, n * sizeof *keys);
    order = mem(e, n * sizeof *order);
    tmp = mem(e, n * sizeof *tmp);
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
        keys[i] = list_at(e, by, i);
        if (is_error(keys[i]))
            return keys[i];
        if (values_compare(keys[i], keys[i]) == 2)
            return fail_lit("list elements must be comparable");
        if (keys[i].kind != keys[0].kind)
            return fail_lit("list elements must have the same type");
    }
    sort(keys, order, tmp, n);
    out = list_new(e, n);
    for (uint32_t i = 0; i < n; i++)
        out = list_push(e, out, list_at(e, l, order[i]));
    return out;
}
FN(fn_sort)
{
    return args[0].kind == CEL_LIST ? sort_by(e, args[0], args[0]) : NO_OVERLOAD;
}
FN(fn_sort_by)
{
    return args[0].kind == CEL_LIST && args[1].kind == CEL_LIST ? sort_by(e, args[0], args[1]) : NO_OVERLOAD;
}

FN(fn_range)
{
    int64_t len = args[0].i;
    struct cel_value out;

    if (args[0].kind != CEL_INT)
        return NO_OVERLOAD;
    if (len > 0 && (uint64_t)len > e->bytes_max / sizeof(struct cel_value))
        eval_stop(e, "operation cancelled: the evaluation takes too much memory");
    out = list_new(e, len > 0 ? (uint32_t)len : 0);
    for (int64_t i = 0; i < len; i++)
        out = list_push(e, out, cel_int(i));
    return out;
}

FN(fn_reverse)
{
    struct cel_value out;
    uint32_t len;

    if (args[0].kind == CEL_STRING && e->prog && (e->prog->env->flags & CEL_PLAIN))
        return string_reverse(e, args[0]);
    if (args[0].kind != CEL_LIST)
        return NO_OVERLOAD;
    len = list_len(args[0]);
    out = list_new(e, len);
    for (uint32_t i = 0; i < len; i++)
        out = list_push(e, out, list_at(e, args[0], len - 1 - i));
    return out;
}

static bool contains(struct eval *e, struct cel_value l, struct cel_value v)
{
    for (uint32_t i = 0, len = list_len(l); i < len; i++)
        if (values_same(e, v, list_at(e, l, i)))
            return true;
    return false;
}

/* Comparing each with each is paid before it is done: it may be long. */
static void spend_product(struct eval *e, uint64_t a, uint64_t b)
{
    uint64_t cost = a * b;

    if (cost > e->cost_limit - MIN(e->cost, e->cost_limit))
        eval_stop(e, "operation cancelled: actual cost limit exceeded");
}

FN(fn_distinct)
{
    struct cel_value out;

    if (args[0].kind != CEL_LIST)
        return NO_OVERLOAD;
    spend_product(e, list_len(args[0]), list_len(args[0]));
    out = list_new(e, 0);
    for (uint32_t i = 0, len = list_len(args[0]); i < len; i++) {
        struct cel_value v = list_at(e, args[0], i);
        if (!contains(e, out, v))
            out = list_push(e, out, v);
    }
    return out;
}

static bool all_in(struct eval *e, struct cel_value l, struct cel_value sub)
{
    for (uint32_t i = 0, len = list_len(sub); i < len; i++)
        if (!contains(e, l, list_at(e, sub, i)))
            return false;
    return true;
}
FN(fn_sets_contains)
{
    if (args[0].kind != CEL_LIST || args[1].kind != CEL_LIST)
        return NO_OVERLOAD;
    spend_product(e, list_len(args[0]), list_len(args[1]));
    return cel_bool(all_in(e, args[0], args[1]));
}
FN(fn_sets_equivalent)
{
    if (args[0].kind != CEL_LIST || args[1].kind != CEL_LIST)
        return NO_OVERLOAD;
    spend_product(e, list_len(args[0]), list_len(args[1]));
    return cel_bool(all_in(e, args[0], args[1]) && all_in(e, args[1], args[0]));
}
FN(fn_sets_intersects)
{
    if (args[0].kind != CEL_LIST || args[1].kind != CEL_LIST)
        return NO_OVERLOAD;
    spend_product(e, list_len(args[0]), list_len(args[1]));
    for (uint32_t i = 0, len = list_len(args[0]); i < len; i++)
        if (contains(e, args[1], list_at(e, args[0], i)))
            return cel_bool(true);
    return cel_bool(false);
}
