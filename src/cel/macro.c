/* cel/macro.c - macros: calls that are rewritten before types are looked at.
 *
 * The shapes of the loops are upstream's to the node, because costs are counted on them. */
#include "cel/cel_int.h"

#define ACCU "@result"

struct m { /* one expansion */
    struct arena *a;
    struct issues *is;
    uint32_t pos;
    bool bad;
};

static struct node *lit(struct m *m, struct cel_value v)
{
    struct node *n = node_new(m->a, N_CONST, m->pos);

    n->value = v;
    return n;
}
static struct node *ident(struct m *m, const char *name)
{
    struct node *n = node_new(m->a, N_IDENT, m->pos);

    n->name = name;
    n->name_n = (uint32_t)strlen(name);
    return n;
}
static struct node *make(struct m *m, enum node_kind kind, const char *name, struct node *x, struct node *y, struct node *z)
{
    struct node *n = node_new(m->a, kind, m->pos);

    n->name = name;
    n->name_n = name ? (uint32_t)strlen(name) : 0;
    n->args = arena_array(m->a, struct node *, 3);
    n->args[0] = x;
    n->args[1] = y;
    n->args[2] = z;
    n->n = z ? 3 : y ? 2 : x ? 1 : 0;
    return n;
}
#define CALL(name, ...) make(m, N_CALL, name, __VA_ARGS__)

static struct node *member(struct m *m, const char *name, struct node *target)
{
    struct node *n = CALL(name, target, NULL, NULL);

    n->member = true;
    return n;
}

static struct node *loop(struct m *m, struct node *range, const char *iter, const char *iter2, struct node *init,
                         struct node *cond, struct node *step, struct node *result)
{
    struct node *n = node_new(m->a, N_FOLD, m->pos);

    n->fold = arena_new_of(m->a, struct fold);
    *n->fold = (struct fold){.iter = iter, .iter2 = iter2, .accu = ACCU, .range = range, .init = init,
                             .cond = cond, .step = step, .result = result};
    return n;
}

static struct node *bind(struct m *m, const char *name, struct node *init, struct node *result)
{
    struct node *n = loop(m, make(m, N_LIST, NULL, NULL, NULL, NULL), "#unused", NULL, init,
                          lit(m, cel_bool(false)), ident(m, name), result);

    n->fold->accu = name;
    n->fold->bind = true;
    return n;
}

static const char *wrong(struct m *m, uint32_t pos, const char *why)
{
    issue(m->is, pos, "%s", why);
    m->bad = true;
    return NULL;
}

static const char *variable(struct m *m, struct node *n)
{
    if (n->kind != N_IDENT || n->name[0] == '.')
        return wrong(m, n->pos, "argument must be a simple name");
    if (streq(n->name, "__result__"))
        return wrong(m, n->pos, "iteration variable overwrites accumulator variable");
    return n->name;
}

enum what { ALL, EXISTS, ONE };
static struct node *quantifier(struct m *m, enum what what, struct node *target, const char *iter, const char *iter2,
                               struct node *pred)
{
    struct node *accu = ident(m, ACCU);

    switch (what) {
    case ALL:
        return loop(m, target, iter, iter2, lit(m, cel_bool(true)), CALL("@not_strictly_false", accu, NULL, NULL),
                    CALL("_&&_", ident(m, ACCU), pred, NULL), ident(m, ACCU));
    case EXISTS:
        return loop(m, target, iter, iter2, lit(m, cel_bool(false)),
                    CALL("@not_strictly_false", CALL("!_", accu, NULL, NULL), NULL, NULL),
                    CALL("_||_", ident(m, ACCU), pred, NULL), ident(m, ACCU));
    default:
        return loop(m, target, iter, iter2, lit(m, cel_int(0)), lit(m, cel_bool(true)),
                    CALL("_?_:_", pred, CALL("_+_", accu, lit(m, cel_int(1)), NULL), ident(m, ACCU)),
                    CALL("_==_", ident(m, ACCU), lit(m, cel_int(1)), NULL));
    }
}

/* accu + [item], or accu when the filter says no */
static struct node *collect(struct m *m, struct node *target, const char *iter, const char *iter2, struct node *filter,
                            struct node *item)
{
    struct node *step = CALL("_+_", ident(m, ACCU), make(m, N_LIST, NULL, item, NULL, NULL), NULL);

    if (filter)
        step = CALL("_?_:_", filter, step, ident(m, ACCU));
    return loop(m, target, iter, iter2, make(m, N_LIST, NULL, NULL, NULL, NULL), lit(m, cel_bool(true)), step,
                ident(m, ACCU));
}

static struct node *collect_map(struct m *m, struct node *target, const char *iter, const char *iter2,
                                struct node *filter, struct node *item, bool entry)
{
    struct node *step = entry ? CALL("cel.@mapInsert", ident(m, ACCU), item, NULL)
                              : CALL("cel.@mapInsert", ident(m, ACCU), ident(m, iter), item);

    if (filter)
        step = CALL("_?_:_", filter, step, ident(m, ACCU));
    return loop(m, target, iter, iter2, make(m, N_MAP, NULL, NULL, NULL, NULL), lit(m, cel_bool(true)), step,
                ident(m, ACCU));
}

static struct node *has(struct m *m, struct node *arg)
{
    struct node *n;

    if (arg->kind != N_SELECT || arg->test) {
        wrong(m, arg->pos, "invalid argument to has() macro");
        return NULL;
    }
    n = make(m, N_SELECT, arg->name, arg->args[0], NULL, NULL);
    n->test = true;
    return n;
}

static struct node *opt_map(struct m *m, const char *name, struct node *target, struct node **args)
{
    struct node *inner;

    if (args[0]->kind != N_IDENT) {
        wrong(m, args[0]->pos, arena_printf(m->a, "%s() variable name must be a simple identifier", name));
        return NULL;
    }
    inner = bind(m, args[0]->name, member(m, "value", target), args[1]);
    if (streq(name, "optMap"))
        inner = CALL("optional.of", inner, NULL, NULL);
    return CALL("_?_:_", member(m, "hasValue", target), inner, CALL("optional.none", NULL, NULL, NULL));
}

static struct node *one_variable(struct m *m, const char *name, struct node *target, struct node **args, uint32_t n)
{
    const char *iter = variable(m, args[0]);

    if (!iter)
        return NULL;
    if (streq(name, "all"))
        return quantifier(m, ALL, target, iter, NULL, args[1]);
    if (streq(name, "exists"))
        return quantifier(m, EXISTS, target, iter, NULL, args[1]);
    if (streq(name, "map"))
        return collect(m, target, iter, NULL, n == 3 ? args[1] : NULL, args[n - 1]);
    if (streq(name, "filter"))
        return collect(m, target, iter, NULL, args[1], ident(m, iter));
    return quantifier(m, ONE, target, iter, NULL, args[1]);
}

static struct node *two_variables(struct m *m, const char *name, struct node *target, struct node **args, uint32_t n)
{
    const char *iter = variable(m, args[0]), *iter2 = iter ? variable(m, args[1]) : NULL;
    struct node *filter = n == 4 ? args[2] : NULL;

    if (!iter2)
        return NULL;
    if (streq(iter, iter2)) {
        wrong(m, args[1]->pos, arena_printf(m->a, "duplicate variable name: %s", iter));
        return NULL;
    }
    if (streq(name, "all"))
        return quantifier(m, ALL, target, iter, iter2, args[2]);
    if (streq(name, "exists"))
        return quantifier(m, EXISTS, target, iter, iter2, args[2]);
    if (streq(name, "transformList"))
        return collect(m, target, iter, iter2, filter, args[n - 1]);
    if (streq(name, "transformMap"))
        return collect_map(m, target, iter, iter2, filter, args[n - 1], false);
    if (streq(name, "transformMapEntry"))
        return collect_map(m, target, iter, iter2, filter, args[n - 1], true);
    return quantifier(m, ONE, target, iter, iter2, args[2]);
}

/* cel.bind(in, target, in.@sortByAssociatedKeys(in.map(e, key))) */
static struct node *sort_by(struct m *m, struct node *target, struct node **args)
{
    static const char name[] = "@__sortBy_input__";
    const char *iter = variable(m, args[0]);
    struct node *sorted;

    if (!iter)
        return NULL;
    if (target->kind == N_CONST || target->kind == N_MAP || target->kind == N_STRUCT) {
        wrong(m, target->pos, "sortBy can only be applied to a list, identifier, comprehension, call or select expression");
        return NULL;
    }
    sorted = CALL("@sortByAssociatedKeys", ident(m, name), collect(m, ident(m, name), iter, NULL, NULL, args[1]), NULL);
    sorted->member = true;
    return bind(m, name, target, sorted);
}

static bool one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (streq(name, *names))
            return true;
    return false;
}

struct node *macro_expand(struct arena *a, struct issues *is, unsigned flags, uint32_t pos, const char *name,
                          struct node *target, struct node **args, uint32_t n, bool *bad)
{
    static const char *const one[] = {"all", "exists", "exists_one", "existsOne", "map", "filter", NULL};
    static const char *const two[] = {"all", "exists", "exists_one", "existsOne", NULL};
    static const char *const transform[] = {"transformList", "transformMap", "transformMapEntry", NULL};
    struct m here = {.a = a, .is = is, .pos = pos}, *m = &here;
    struct node *r = NULL;

    if (!target)
        r = n == 1 && streq(name, "has") ? has(m, args[0]) : NULL;
    else if ((n == 2 && one_of(name, one)) || (n == 3 && streq(name, "map")))
        r = one_variable(m, name, target, args, n);
    else if ((n == 3 && one_of(name, two)) || ((n == 3 || n == 4) && one_of(name, transform)))
        r = two_variables(m, name, target, args, n);
    else if (n == 2 && streq(name, "sortBy"))
        r = sort_by(m, target, args);
    else if (n == 2 && (streq(name, "optMap") || streq(name, "optFlatMap")))
        r = opt_map(m, name, target, args);
    else if (n == 3 && streq(name, "bind") && (flags & CEL_PLAIN) && target->kind == N_IDENT && streq(target->name, "cel")) {
        if (args[0]->kind != N_IDENT)
            wrong(m, args[0]->pos, "cel.bind() variable names must be simple identifiers");
        else
            r = bind(m, args[0]->name, args[1], args[2]);
    }
    *bad = m->bad;
    return r;
}
