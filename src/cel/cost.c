/* cel/cost.c - what a program may cost before it runs, and what a call did cost when it ran.
 *
 * Both by upstream's rules, because they decide which rules a CRD may have and where a run is cut.
 * Sizes are estimated from constants and from the declared types that an expression reaches by a
 * path from the variable `self`; a node's `decl` is where its path leads (NULL: it has none). */
#include "cel/lib.h"

#include <math.h>

enum kube { /* how Kubernetes' own functions are counted; by the function's name */
    K_NONE, K_CHECK, K_ONE, K_SELECTOR, K_TRAVERSE, K_URL, K_STRING, K_REPLACE, K_SPLIT, K_JOIN, K_FIND,
    K_PARSE, K_IP, K_CANONICAL, K_CONTAINS_IP, K_CONTAINS_CIDR, K_VALIDATE,
};
static const struct {
    const char *name;
    enum kube kube;
} kubes[] = {{"check", K_CHECK}, {"serviceAccount", K_ONE}, {"path", K_ONE}, {"group", K_ONE}, {"resource", K_ONE},
    {"subresource", K_ONE}, {"namespace", K_ONE}, {"name", K_ONE}, {"allowed", K_ONE}, {"reason", K_ONE},
    {"error", K_ONE}, {"errored", K_ONE}, {"fieldSelector", K_SELECTOR}, {"labelSelector", K_SELECTOR},
    {"isSorted", K_TRAVERSE}, {"sum", K_TRAVERSE}, {"max", K_TRAVERSE}, {"min", K_TRAVERSE},
    {"indexOf", K_TRAVERSE}, {"lastIndexOf", K_TRAVERSE}, {"url", K_URL}, {"jsonpatch.escapeKey", K_URL},
    {"lowerAscii", K_STRING}, {"upperAscii", K_STRING}, {"substring", K_STRING}, {"trim", K_STRING},
    {"replace", K_REPLACE}, {"split", K_SPLIT}, {"join", K_JOIN}, {"find", K_FIND}, {"findAll", K_FIND},
    {"cidr", K_PARSE}, {"isIP", K_PARSE}, {"isCIDR", K_PARSE}, {"ip", K_IP}, {"ip.isCanonical", K_CANONICAL},
    {"masked", K_ONE}, {"prefixLength", K_ONE}, {"family", K_ONE}, {"isUnspecified", K_ONE},
    {"isLoopback", K_ONE}, {"isLinkLocalMulticast", K_ONE}, {"isLinkLocalUnicast", K_ONE},
    {"isGlobalUnicast", K_ONE}, {"containsIP", K_CONTAINS_IP}, {"containsCIDR", K_CONTAINS_CIDR},
    {"quantity", K_PARSE}, {"isQuantity", K_PARSE}, {"semver", K_PARSE}, {"isSemver", K_PARSE},
    {"validate", K_VALIDATE}, {"format.named", K_ONE}, {"sign", K_ONE}, {"asInteger", K_ONE},
    {"isInteger", K_ONE}, {"asApproximateFloat", K_ONE}, {"isGreaterThan", K_ONE}, {"isLessThan", K_ONE},
    {"compareTo", K_ONE}, {"add", K_ONE}, {"sub", K_ONE}, {"major", K_ONE}, {"minor", K_ONE}, {"patch", K_ONE},
    {"getScheme", K_ONE}, {"getHostname", K_ONE}, {"getHost", K_ONE}, {"getPort", K_ONE},
    {"getEscapedPath", K_ONE}, {"getQuery", K_ONE}};

enum std { /* by the overload's id */
    S_ONE, S_STARTS, S_TO_BYTES, S_TO_STRING, S_QUOTE, S_FORMAT, S_IN_LIST, S_COMPARE, S_ADD, S_ADD_LIST,
    S_MATCHES, S_CONTAINS, S_LOGIC, S_COND, S_INDEX_LIST, S_INDEX_MAP,
    S_SLICE, S_FLATTEN, S_RANGE, S_REVERSE, S_DISTINCT, S_SORT, S_SORT_BY, S_SETS, S_SETS_TWICE,
};
static const struct {
    const char *id;
    enum std std;
} stds[] = {{"starts_with_string", S_STARTS}, {"ends_with_string", S_STARTS}, {"string_to_bytes", S_TO_BYTES},
    {"bytes_to_string", S_TO_STRING}, {"strings_quote", S_QUOTE}, {"string_format", S_FORMAT},
    {"in_list", S_IN_LIST}, {"equals", S_COMPARE}, {"not_equals", S_COMPARE}, {"less_string", S_COMPARE},
    {"greater_string", S_COMPARE}, {"less_equals_string", S_COMPARE}, {"greater_equals_string", S_COMPARE},
    {"less_bytes", S_COMPARE}, {"greater_bytes", S_COMPARE}, {"less_equals_bytes", S_COMPARE},
    {"greater_equals_bytes", S_COMPARE}, {"add_string", S_ADD}, {"add_bytes", S_ADD}, {"add_list", S_ADD_LIST},
    {"matches_string", S_MATCHES}, {"contains_string", S_CONTAINS}, {"logical_and", S_LOGIC},
    {"logical_or", S_LOGIC}, {"conditional", S_COND}, {"index_list", S_INDEX_LIST}, {"index_map", S_INDEX_MAP},
    {"list_slice", S_SLICE}, {"list_flatten", S_FLATTEN}, {"list_flatten_int", S_FLATTEN},
    {"lists_range", S_RANGE}, {"list_reverse", S_REVERSE}, {"list_distinct", S_DISTINCT},
    {"list_sets_contains_list", S_SETS}, {"list_sets_intersects_list", S_SETS},
    {"list_sets_equivalent_list", S_SETS_TWICE}};

void cost_class(struct func *f, struct overload *over)
{
    for (size_t i = 0; i < ARRAY_LEN(kubes); i++)
        if (streq(kubes[i].name, f->name))
            f->cost = (uint8_t)kubes[i].kube;
    for (uint32_t k = 0; k < f->over_n; k++) {
        for (size_t i = 0; i < ARRAY_LEN(stds); i++)
            if (streq(stds[i].id, over[k].id))
                over[k].cost = (uint8_t)stds[i].std;
        if (streq(f->name, "sort") || streq(f->name, "@sortByAssociatedKeys"))
            over[k].cost = *f->name == 's' ? S_SORT : S_SORT_BY;
    }
}

#define UNBOUNDED CEL_COST_UNBOUNDED

static uint64_t sat_add(uint64_t x, uint64_t y)
{
    return y && x > UNBOUNDED - y ? UNBOUNDED : x + y;
}
static uint64_t sat_mul(uint64_t x, uint64_t y)
{
    return y && x > UNBOUNDED / y ? UNBOUNDED : x * y;
}
static uint64_t by_factor(uint64_t x, double y)
{
    double r = ceil((double)x * y);

    return r >= 18446744073709551616.0 ? UNBOUNDED : (uint64_t)r;
}

/* ---- a call that ran ---- */

static uint64_t tenth(uint64_t n) /* walking along a string: a tenth a character, rounded up */
{
    return n / 10 + (n % 10 != 0);
}
static uint64_t quarter(uint64_t n)
{
    return n / 4 + (n % 4 != 0);
}

static uint64_t traversal(struct eval *e, struct cel_value v, int depth)
{
    uint64_t cost = 0;

    if (v.kind == CEL_STRING || v.kind == CEL_BYTES)
        return v.n / 10;
    if (depth > 100 || (v.kind != CEL_LIST && !is_map(v)))
        return 1;
    if (v.kind == CEL_LIST)
        for (uint32_t i = 0, n = list_len(v); i < n; i++)
            cost = sat_add(cost, traversal(e, list_at(e, v, i), depth + 1));
    else
        for (uint32_t i = 0, n = map_len(v); i < n; i++)
            cost = sat_add(cost, sat_add(traversal(e, map_key_at(e, v, i), depth + 1), traversal(e, map_value_at(e, v, i), depth + 1)));
    return cost;
}

static uint64_t allocating(double factor, uint64_t size)
{
    return by_factor(size, factor) + 11;
}

static uint64_t self_compare(struct eval *e, struct cel_value l)
{
    uint64_t n = value_size(e, l);
    double factor = 2;

    if (l.kind != CEL_LIST || !n)
        return allocating(factor, 0);
    l = list_at(e, l, 0);
    if (l.kind == CEL_STRING || l.kind == CEL_BYTES)
        factor += 0.1;
    return (uint64_t)((double)(n * n) * factor) + 11;
}

static uint64_t kube_cost(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n, struct cel_value result)
{
    uint64_t size = n ? value_size(e, args[0]) : 0, second = n > 1 ? value_size(e, args[1]) : 0, cost;

    switch ((enum kube)call->fn->cost) {
    case K_CHECK:
        return 350000;
    case K_SELECTOR:
        return 10 + tenth(second) + by_factor(by_factor(second, 0.5), 50);
    case K_TRAVERSE:
        return n ? traversal(e, args[0], 0) : 0;
    case K_URL: case K_STRING: case K_PARSE:
        return tenth(size);
    case K_IP:
        return args[0].kind == CEL_OPAQUE ? 1 : tenth(size);
    case K_REPLACE: case K_SPLIT: case K_CANONICAL:
        return tenth(2 * size);
    case K_JOIN:
        return tenth(2 * value_size(e, result));
    case K_FIND:
        return tenth(1 + size) * quarter(second);
    case K_CONTAINS_IP:
        return tenth(2 * size) + (args[1].kind == CEL_STRING ? tenth(second) : 0);
    case K_CONTAINS_CIDR:
        cost = tenth(2 * size) + tenth(size) + 1;
        return cost + (args[1].kind == CEL_STRING ? tenth(second) : 0);
    case K_VALIDATE:
        if (args[0].kind != CEL_OPAQUE)
            return 1;
        return tenth(1 + second) * quarter((uint64_t)format_size(((const struct format_value *)args[0].opaque)->index));
    default:
        return 1;
    }
}

uint64_t call_cost(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n, struct cel_value result)
{
    uint64_t a, b;
    enum std std = call->over_n == 1 ? (enum std)call->over[0]->cost : S_ONE;

    switch (std) { /* the lists and sets of upstream's extensions count first */
    case S_SLICE: case S_RANGE: case S_REVERSE:
        return allocating(1, value_size(e, result));
    case S_FLATTEN:
        return allocating(n > 1 ? (double)args[1].i : 1, value_size(e, args[0]));
    case S_DISTINCT: case S_SORT:
        return self_compare(e, args[0]);
    case S_SORT_BY:
        return self_compare(e, args[1]);
    case S_SETS: case S_SETS_TWICE:
        return 1 + sat_mul(value_size(e, args[0]), value_size(e, args[1])) * (std == S_SETS ? 1 : 2);
    default:
        break;
    }
    if (call->fn && call->fn->cost)
        return kube_cost(e, call, args, n, result);
    if (call->op == OP_EQ && args[0].kind == CEL_OPAQUE)
        return 1;
    switch (std) {
    case S_STARTS: case S_TO_BYTES: case S_TO_STRING: case S_QUOTE: case S_FORMAT:
        return tenth(value_size(e, args[0]));
    case S_IN_LIST:
        return call->args[1]->folded ? 0 : value_size(e, args[1]);
    case S_COMPARE:
        if (args[0].kind == CEL_INT || args[0].kind == CEL_BOOL)
            a = 1;
        else
            a = value_size(e, args[0]);
        b = value_size(e, args[1]);
        return tenth(MIN(a, b));
    case S_ADD:
        return tenth(value_size(e, args[0]) + value_size(e, args[1]));
    case S_MATCHES:
        return tenth(1 + value_size(e, args[0])) * quarter(value_size(e, args[1]));
    case S_CONTAINS:
        return tenth(value_size(e, args[0])) * tenth(value_size(e, args[1]));
    default:
        return 1;
    }
}

/* ---- the estimate ---- */

struct entry_est {
    bool list;
    struct size_est key, val;
};
struct local {
    const struct cel_type *decl;
    uint32_t steps; /* of its path */
    struct size_est size;
    struct entry_est *entry;
};
struct coster {
    struct cel_prog *p;
    const struct cel_type *root; /* of self, NULL: sizes of paths are not known */
    struct local *locals;
};

/* A path that leads to nothing declared. */
static const struct cel_type nowhere = {.kind = CEL_DYN, .max_elements = -1};

static struct cel_cost cost(struct coster *c, struct node *n);

static struct cel_cost fixed(uint64_t n)
{
    return (struct cel_cost){n, n};
}
static struct cel_cost add(struct cel_cost x, struct cel_cost y)
{
    return (struct cel_cost){sat_add(x.min, y.min), sat_add(x.max, y.max)};
}
static struct cel_cost mul(struct cel_cost x, struct cel_cost y)
{
    return (struct cel_cost){sat_mul(x.min, y.min), sat_mul(x.max, y.max)};
}
static struct cel_cost either(struct cel_cost x, struct cel_cost y)
{
    return (struct cel_cost){MIN(x.min, y.min), MAX(x.max, y.max)};
}
static struct cel_cost scaled(struct size_est s, double factor)
{
    return (struct cel_cost){by_factor(s.min, factor), by_factor(s.max, factor)};
}
static struct size_est size_of(uint64_t min, uint64_t max)
{
    return (struct size_est){true, min, max};
}
static struct size_est size_union(struct size_est x, struct size_est y)
{
    return size_of(MIN(x.min, y.min), MAX(x.max, y.max));
}
static struct size_est size_add(struct size_est x, struct size_est y)
{
    return size_of(sat_add(x.min, y.min), sat_add(x.max, y.max));
}
static struct size_est size_mul(struct size_est x, struct size_est y)
{
    return size_of(sat_mul(x.min, y.min), sat_mul(x.max, y.max));
}

enum step { STEP_ITEMS, STEP_KEYS, STEP_INDICES, STEP_FIELD };
/* One step further; a path that begins here begins at the root, whatever its first step is called. */
static const struct cel_type *path_step(struct coster *c, const struct cel_type *at, enum step step, const struct node *field)
{
    const struct cel_type *t = NULL;

    if (!at)
        return c->root;
    if (step == STEP_ITEMS)
        t = at->elem;
    else if (step == STEP_KEYS)
        t = at->key;
    else if (step == STEP_FIELD && at->kind == CEL_OBJECT && field->raw)
        t = cel_type_field(at, field->raw, field->raw_n);
    return t ? t : &nowhere;
}

static const struct cel_type *path(struct coster *c, const struct node *n)
{
    if (n->kind == N_IDENT && n->slot >= 0)
        return c->locals[n->slot].decl;
    return n->kind == N_STRUCT ? NULL : n->decl;
}

static uint32_t path_steps(struct coster *c, const struct node *n)
{
    return n->kind == N_IDENT && n->slot >= 0 ? c->locals[n->slot].steps : n->steps;
}

static struct size_est path_size(const struct cel_type *decl)
{
    if (!decl || decl->max_elements < 0)
        return (struct size_est){0};
    return size_of(0, (uint64_t)decl->max_elements);
}

static bool scalar(const struct cel_type *t)
{
    switch (t->kind) {
    case CEL_BOOL: case CEL_DOUBLE: case CEL_DURATION: case CEL_INT: case CEL_TIMESTAMP: case CEL_UINT:
        return true;
    case CEL_OPTIONAL:
        return scalar(t->elem);
    default:
        return false;
    }
}

static struct size_est size(struct coster *c, struct node *n)
{
    struct size_est s;

    if (n->size.known)
        return n->size;
    if (n->kind == N_CONST && n->value.kind != CEL_TYPE) {
        uint64_t v = n->value.kind == CEL_STRING ? utf8_len(n->value.s, n->value.n) : n->value.kind == CEL_BYTES ? n->value.n : 1;
        return size_of(v, v);
    }
    if (n->kind == N_LIST)
        return size_of(n->n, n->n);
    if (n->kind == N_MAP)
        return size_of(n->n / 2, n->n / 2);
    s = path_size(path(c, n));
    if (s.known)
        return n->size = s;
    if (scalar(n->type))
        return size_of(1, 1);
    if (n->kind == N_IDENT && n->slot >= 0)
        return c->locals[n->slot].size;
    return s;
}

static struct size_est size_or_unknown(struct coster *c, struct node *n)
{
    struct size_est s = size(c, n);

    return s.known ? s : size_of(0, UNBOUNDED);
}

static struct entry_est *entry(struct coster *c, const struct node *n)
{
    if (n->entry)
        return n->entry;
    return n->kind == N_IDENT && n->slot >= 0 ? c->locals[n->slot].entry : NULL;
}

static struct entry_est *entry_new(struct coster *c, bool list, struct size_est key, struct size_est val)
{
    struct entry_est *e = arena_new_of(c->p->arena, struct entry_est);

    *e = (struct entry_est){list, key, val};
    return e;
}

static struct entry_est *entry_union(struct coster *c, const struct entry_est *x, const struct entry_est *y)
{
    if (!x || !y)
        return NULL;
    return entry_new(c, x->list, size_union(x->key, y->key), size_union(x->val, y->val));
}

/* What a call costs and how large its result is. */
struct call_est {
    struct cel_cost cost;
    struct size_est size;
};

static struct call_est only(struct cel_cost cost_)
{
    return (struct call_est){.cost = cost_};
}

static uint64_t int_or(const struct node *n, uint64_t otherwise)
{
    if (n->kind != N_CONST || n->value.kind != CEL_INT)
        return otherwise;
    return n->value.i < 0 ? 0 : (uint64_t)n->value.i;
}

static struct call_est allocating_est(double factor, struct size_est s)
{
    return (struct call_est){add(scaled(s, factor), fixed(11)), s};
}

static bool extension(struct coster *c, const struct overload *o, struct node *target, struct node **args, uint32_t n, struct call_est *ret)
{
    struct size_est s;
    uint64_t start, end;
    double factor = 2;

    switch ((enum std)o->cost) {
    case S_SLICE:
        s = size_or_unknown(c, target);
        start = int_or(args[0], 0);
        end = int_or(args[1], s.max) - start;
        *ret = allocating_est(1, size_of(end, end));
        return true;
    case S_FLATTEN:
        *ret = allocating_est(n ? (double)int_or(args[0], UNBOUNDED) : 1, size_or_unknown(c, target));
        return true;
    case S_RANGE:
        end = int_or(args[0], UNBOUNDED);
        *ret = allocating_est(1, size_of(end, end));
        return true;
    case S_REVERSE:
        *ret = allocating_est(1, size_or_unknown(c, target));
        return true;
    case S_DISTINCT:
        s = size_or_unknown(c, target);
        *ret = allocating_est(2, size_mul(s, s));
        return true;
    case S_SORT: case S_SORT_BY: {
        const struct cel_type *keys = o->args[o->cost == S_SORT ? 0 : 1]->elem;
        if (keys->kind == CEL_STRING || keys->kind == CEL_BYTES)
            factor += 0.1;
        s = size_or_unknown(c, o->cost == S_SORT ? target : args[0]);
        *ret = allocating_est(factor, size_mul(s, s));
        return true;
    }
    case S_SETS: case S_SETS_TWICE:
        s = size_mul(size_or_unknown(c, args[0]), size_or_unknown(c, args[1]));
        *ret = only(add(scaled(s, o->cost == S_SETS ? 1 : 2), fixed(1)));
        return true;
    default:
        return false;
    }
}

/* The size of the items of a list, by its path. false: it is no list. */
static bool item_size(struct coster *c, struct node *list, const struct cel_type **ret_type, struct size_est *ret)
{
    const struct cel_type *at = path(c, list);

    if (!list->type->elem)
        return false;
    *ret_type = list->type->key ? list->type->key : list->type->elem;
    *ret = at ? path_size(path_step(c, at, STEP_ITEMS, NULL)) : (struct size_est){0};
    if (!ret->known)
        *ret = size_of(0, UNBOUNDED);
    return true;
}

static struct call_est replace_est(struct coster *c, struct node *target, struct node **args)
{
    struct size_est sz = size_or_unknown(c, target), from = size_or_unknown(c, args[0]), to = size_or_unknown(c, args[1]);
    struct size_est count = size_of(0, 0), kept = size_of(0, 0);

    if (from.min == 0) {
        count.max = sat_add(sz.max, 1);
        kept.max = sz.max;
    } else if (to.max <= from.min) {
        kept.max = sz.max;
    } else {
        count.max = by_factor(sz.max, 1.0 / (double)from.min);
        count.max = (uint64_t)MIN(ceil((double)sz.max / (double)from.min), 18446744073709549568.0);
    }
    if (from.max == 0) {
        count.min = sat_add(sz.min, 1);
        kept.min = sz.min;
    } else if (from.max <= to.min) {
        kept.min = sz.min;
    } else {
        count.min = (uint64_t)MIN(ceil((double)sz.min / (double)from.max), 18446744073709549568.0);
    }
    return (struct call_est){scaled(sz, 0.2), size_add(size_mul(count, to), kept)};
}

static struct call_est join_est(struct coster *c, struct node *target, struct node **args, uint32_t n)
{
    struct size_est sz = size_of(0, 0), list = size_or_unknown(c, target), items;
    const struct cel_type *t;

    if (item_size(c, target, &t, &items))
        sz = size_mul(list, items);
    if (n)
        sz = size_add(sz, size_mul(size_or_unknown(c, args[0]), size_of(list.min ? list.min - 1 : 0, list.max ? list.max - 1 : 0)));
    return (struct call_est){scaled(sz, 0.1), sz};
}

static bool kube_est(struct coster *c, struct node *call, const struct overload *o, struct node *target, struct node **args,
                     uint32_t n, struct call_est *ret)
{
    struct size_est sz, items;
    const struct cel_type *t;
    struct cel_cost comp;

    switch ((enum kube)o->func->cost) {
    case K_NONE:
        return false;
    case K_CHECK:
        *ret = only(fixed(350000));
        return true;
    case K_ONE:
        *ret = only(fixed(1));
        return true;
    case K_SELECTOR:
        sz = size_or_unknown(c, args[0]);
        comp = scaled(sz, 0.5);
        *ret = only(add(add(fixed(10), scaled(sz, 0.1)), (struct cel_cost){by_factor(comp.min, 50), by_factor(comp.max, 50)}));
        return true;
    case K_TRAVERSE:
        if (!item_size(c, target, &t, &items)) {
            *ret = only(scaled(size_or_unknown(c, target), 0.1));
            return true;
        }
        comp = fixed(1);
        if (t->kind == CEL_STRING || t->kind == CEL_BYTES)
            comp = add(comp, scaled(items, 0.1));
        sz = size_or_unknown(c, target);
        *ret = only(mul((struct cel_cost){sz.min, sz.max}, comp));
        return true;
    case K_URL:
        sz = size_or_unknown(c, args[0]);
        *ret = (struct call_est){scaled(sz, 0.1), sz};
        return true;
    case K_STRING:
        sz = size_or_unknown(c, target);
        *ret = (struct call_est){scaled(sz, 0.1), sz};
        return true;
    case K_REPLACE:
        *ret = replace_est(c, target, args);
        return true;
    case K_SPLIT:
        sz = size_or_unknown(c, target);
        *ret = (struct call_est){scaled(sz, 0.2), size_of(0, sz.max)};
        if (n > 1 && args[1]->kind == N_CONST && args[1]->value.kind == CEL_INT)
            ret->size.max = (uint64_t)args[1]->value.i;
        return true;
    case K_JOIN:
        *ret = join_est(c, target, args, n);
        return true;
    case K_FIND:
        sz = size_or_unknown(c, target);
        *ret = (struct call_est){mul(scaled(size_add(sz, size_of(1, 1)), 0.1), scaled(size_or_unknown(c, args[0]), 0.25)), size_of(0, sz.max)};
        return true;
    case K_IP:
        if (target) {
            *ret = only(fixed(1));
            return true;
        }
        /* fall through */
    case K_PARSE:
        *ret = only(scaled(size_or_unknown(c, args[0]), 0.1));
        return true;
    case K_CANONICAL:
        *ret = only(scaled(size_or_unknown(c, args[0]), 0.2));
        return true;
    case K_CONTAINS_IP: case K_CONTAINS_CIDR:
        comp = scaled(size_of(8, 32), 0.1);
        if (o->func->cost == K_CONTAINS_CIDR)
            comp = add(add(comp, scaled(size_of(4, 16), 0.1)), fixed(1));
        if (o->args[1]->kind == CEL_STRING)
            comp = add(comp, scaled(size_or_unknown(c, args[0]), 0.1));
        *ret = only(comp);
        return true;
    case K_VALIDATE:
        comp = scaled(size_or_unknown(c, args[0]), 0.1);
        *ret = only((struct cel_cost){by_factor(comp.min, 32), by_factor(comp.max, 32)});
        return true;
    }
    return false;
}

static bool opaque_equals(struct coster *c, struct node **args, struct call_est *ret)
{
    const struct cel_type *t = args[0]->type;
    struct size_est x, y;

    if (t->kind != CEL_OPAQUE || args[1]->type->kind != CEL_OPAQUE || !streq(t->name, args[1]->type->name))
        return false;
    if (t == &cel_format_type) {
        *ret = only((struct cel_cost){1, 7});
    } else if (t == &cel_url_type) {
        x = size_of(1, 1);
        y = size(c, args[1]);
        if (y.known)
            x = y;
        *ret = only((struct cel_cost){1, by_factor(x.max, 0.1)});
    } else {
        *ret = only(fixed(1));
    }
    return true;
}

static struct call_est std_est(struct coster *c, struct node *call, const struct overload *o, struct node *target, struct node **args,
                               uint32_t n, struct cel_cost *costs)
{
    struct cel_cost sum = {0, 0};
    struct size_est x, y;

    for (uint32_t i = 0; i < n; i++)
        sum = add(sum, costs[i]);
    switch ((enum std)o->cost) {
    case S_FORMAT:
        return only(add(scaled(size_or_unknown(c, target), 0.1), sum));
    case S_TO_BYTES:
        x = size_or_unknown(c, args[0]);
        return (struct call_est){add(scaled(x, 0.1), sum), size_of(x.min, x.max * 4)};
    case S_TO_STRING:
        x = size_or_unknown(c, args[0]);
        return (struct call_est){add(scaled(x, 0.1), sum), size_of(x.min / 4, x.max)};
    case S_QUOTE:
        x = size_or_unknown(c, args[0]);
        return (struct call_est){add(scaled(x, 0.1), sum), size_of(x.min + 2, x.max * 2 + 2)};
    case S_STARTS:
        return only(add(scaled(size_or_unknown(c, args[0]), 0.1), sum));
    case S_IN_LIST:
        return only(add(scaled(size_or_unknown(c, args[1]), 1), sum));
    case S_MATCHES:
        return only(add(mul(scaled(size_add(size_or_unknown(c, target), size_of(1, 1)), 0.1), scaled(size_or_unknown(c, args[0]), 0.25)), sum));
    case S_CONTAINS:
        return only(add(mul(scaled(size_or_unknown(c, target), 0.1), scaled(size_or_unknown(c, args[0]), 0.1)), sum));
    case S_LOGIC:
        return only((struct cel_cost){costs[0].min, sum.max});
    case S_COND:
        call->entry = entry_union(c, entry(c, args[1]), entry(c, args[2]));
        return (struct call_est){add(costs[0], either(costs[1], costs[2])),
                                 size_union(size_or_unknown(c, args[1]), size_or_unknown(c, args[2]))};
    case S_ADD: case S_ADD_LIST: {
        struct entry_est *u = entry_union(c, entry(c, args[0]), entry(c, args[1]));
        if (u)
            call->entry = u;
        x = size_add(size_or_unknown(c, args[0]), size_or_unknown(c, args[1]));
        return (struct call_est){add(o->cost == S_ADD_LIST ? fixed(1) : scaled(x, 0.1), sum), x};
    }
    case S_COMPARE:
        x = size_or_unknown(c, args[0]);
        y = size_or_unknown(c, args[1]);
        x.max = MIN(x.max, y.max);
        return only(add(scaled(size_of(x.max > 0, x.max), 0.1), sum));
    default:
        return only(add(fixed(1), sum));
    }
}

static struct call_est call_est(struct coster *c, struct node *call, const struct overload *o, struct node *target, struct node **args,
                                uint32_t n, struct cel_cost *costs)
{
    struct call_est r;

    if (extension(c, o, target, args, n, &r) || kube_est(c, call, o, target, args, n, &r) ||
        (call->op == OP_EQ && opaque_equals(c, args, &r))) {
        for (uint32_t i = 0; i < n; i++)
            r.cost = add(r.cost, costs[i]);
        return r;
    }
    return std_est(c, call, o, target, args, n, costs);
}

static struct cel_cost cost_call(struct coster *c, struct node *n)
{
    struct node *target = n->member ? n->args[0] : NULL, **args = n->member ? n->args + 1 : n->args;
    uint32_t count = n->n - n->member;
    struct cel_cost *costs = arena_array(c->p->arena, struct cel_cost, count + 1), sum = {0, 0}, fn = {UNBOUNDED, 0};
    struct size_est result = {0};

    if (streq(n->name, "dyn") && count == 1) {
        sum = add(fixed(1), cost(c, args[0]));
        n->size = size(c, args[0]);
        n->entry = entry(c, args[0]);
        return sum;
    }
    for (uint32_t i = 0; i < count; i++) {
        costs[i] = cost(c, args[i]);
        size(c, args[i]);
    }
    if (!n->over_n)
        return sum;
    if (target)
        sum = cost(c, target);
    for (uint32_t i = 0; i < n->over_n; i++) {
        struct call_est r = call_est(c, n, n->over[i], target, args, count, costs);
        enum std std = (enum std)n->over[i]->cost;
        fn = either(fn, r.cost);
        if (r.size.known)
            result = result.known ? size_union(result, r.size) : r.size;
        if (std == S_INDEX_LIST || std == S_INDEX_MAP) {
            struct entry_est *e = entry(c, args[0]);
            result = e ? e->val : (struct size_est){0};
            n->decl = path_step(c, path(c, args[0]), STEP_ITEMS, NULL);
            n->steps = path_steps(c, args[0]) + 1;
        }
        if (!result.known)
            result = size(c, n);
    }
    if (result.known)
        n->size = result;
    return add(sum, fn);
}

static struct cel_cost cost_items(struct coster *c, struct node *n)
{
    struct size_est key = size_of(UNBOUNDED, 0), val = size_of(UNBOUNDED, 0);
    struct cel_cost sum = {0, 0};
    bool list = n->kind == N_LIST;

    if (!n->n)
        key.min = val.min = 0;
    for (uint32_t i = 0; i < n->n; i++) {
        bool is_key = !list && i % 2 == 0;
        struct size_est s;
        sum = add(sum, cost(c, n->args[i]));
        s = size_or_unknown(c, n->args[i]);
        if (is_key)
            key = size_union(key, s);
        else
            val = size_union(val, s);
    }
    n->entry = entry_new(c, list, list ? size_of(1, 1) : key, val);
    return add(sum, fixed(list ? 10 : 30));
}

static void push_iter(struct coster *c, const struct fold *f)
{
    struct entry_est *e = entry(c, f->range);
    bool list = e ? e->list : f->range->type->kind == CEL_LIST;
    const struct cel_type *at = path(c, f->range);
    struct size_est none = {0};
    struct local *first = c->locals + f->iter_slot;
    uint32_t steps = path_steps(c, f->range);

    *first = (struct local){path_step(c, at, !list ? STEP_KEYS : f->iter2 ? STEP_INDICES : STEP_ITEMS, NULL), steps + 1,
                            !e ? none : list && !f->iter2 ? e->val : e->key, NULL};
    if (f->iter2) {
        c->locals[f->iter2_slot] = (struct local){path_step(c, at, STEP_ITEMS, NULL), steps + 1, e ? e->val : none, NULL};
        /* Upstream extends one array twice: unless it is full, the second path replaces the first.
         * Its capacity doubles from 1. */
        if (steps & (steps - 1))
            first->decl = c->locals[f->iter2_slot].decl;
    }
}

static struct cel_cost cost_fold(struct coster *c, struct node *n)
{
    struct fold *f = n->fold;
    struct cel_cost sum = cost(c, f->range), loop;
    struct size_est range;

    sum = add(sum, cost(c, f->init));
    c->locals[f->accu_slot] = (struct local){path(c, f->init), path_steps(c, f->init), size(c, f->init), entry(c, f->init)};
    if (f->bind) {
        sum = add(sum, cost(c, f->result));
        n->size = size(c, f->result);
        n->entry = entry(c, f->result);
        return sum;
    }
    push_iter(c, f);
    loop = cost(c, f->cond);
    loop = add(loop, cost(c, f->step));
    sum = add(sum, cost(c, f->result));
    range = size_or_unknown(c, f->range);
    sum = add(sum, mul((struct cel_cost){range.min, range.max}, loop));
    if (f->init->kind == N_CONST) {
        n->size = size(c, f->init);
    } else if (f->init->kind == N_LIST || f->init->kind == N_MAP) {
        struct entry_est *e = entry(c, f->step);
        n->size = range;
        if (e)
            n->entry = e;
    }
    return sum;
}

static struct cel_cost cost(struct coster *c, struct node *n)
{
    struct cel_cost sum = {0, 0};
    const struct cel_type *t;

    switch ((enum node_kind)n->kind) {
    case N_CONST:
        if (n->value.kind != CEL_TYPE)
            return sum;
        n->decl = c->root; /* a type's name is a name like others */
        n->steps = 1;
        return fixed(1);
    case N_IDENT:
        if (n->slot < 0) {
            n->decl = c->root;
            n->steps = 1;
        }
        return fixed(1);
    case N_SELECT:
        sum = cost(c, n->args[0]);
        if (n->test)
            return sum;
        t = n->args[0]->type;
        if (t->kind == CEL_MAP || t->kind == CEL_OBJECT)
            sum = add(sum, fixed(1));
        n->decl = path_step(c, path(c, n->args[0]), STEP_FIELD, n);
        n->steps = path_steps(c, n->args[0]) + 1;
        return sum;
    case N_CALL:
        return cost_call(c, n);
    case N_LIST: case N_MAP:
        return cost_items(c, n);
    case N_STRUCT:
        for (uint32_t i = 0; i < n->n; i++)
            sum = add(sum, cost(c, n->args[i]));
        return add(sum, fixed(40));
    case N_FOLD:
        return cost_fold(c, n);
    }
    return sum;
}

void cel_cost_estimate(struct cel_prog *p)
{
    struct coster c = {.p = p, .locals = arena_array(p->arena, struct local, p->slots + 1)};

    for (uint32_t i = 0; i < p->env->vars_n; i++)
        if (streq(p->env->vars[i].name, "self"))
            c.root = p->env->vars[i].type;
    p->cost = cost(&c, p->root);
}
