/* cel/eval.c - running a program: one walk over its nodes.
 *
 * An error is a value that goes up until && or || swallows it or the run ends with it. Cost and
 * memory are counted on the way; a run that takes too much leaves by longjmp (all it made is in
 * arenas). What is counted where is upstream's: it sees a.b[c].d as one attribute with qualifiers,
 * so a name costs 1, each qualifier 1, a call that is qualified 1 more; a name that is the branch of
 * ?: costs nothing. */
#include "cel/cel_int.h"
#include "cel/lib.h"

#include "codec/regex.h"

#include <stdio.h>

static struct cel_value ev(struct eval *e, const struct node *n);

void spend(struct eval *e, uint64_t cost)
{
    if (__builtin_add_overflow(e->cost, cost, &e->cost))
        e->cost = UINT64_MAX;
    if (__builtin_expect(e->cost > e->cost_limit, 0))
        eval_stop(e, "operation cancelled: actual cost limit exceeded");
}

static bool is_attribute(const struct node *n)
{
    switch (n->kind) {
    case N_IDENT: case N_SELECT:
        return true;
    case N_CALL:
        return n->op == OP_INDEX || n->op == OP_OPT_INDEX || n->op == OP_OPT_SELECT || n->op == OP_COND;
    default:
        return false;
    }
}

static struct cel_value ident(struct eval *e, const struct node *n)
{
    struct cel_value v;

    if (n->slot >= 0) {
        struct cel_value *slot = e->slots + n->slot;
        if (__builtin_expect(slot->kind == CEL_ERROR && slot->sub == SUB_LAZY, 0)) /* bound, first use */
            *slot = ev(e, (const struct node *)(const void *)slot->s);
        return *slot;
    }
    if (n->var < 0 || (uint32_t)n->var >= e->run->vars_n)
        return fail(e, "no such attribute(s): %s", n->name);
    v = e->run->vars[n->var];
    if (v.kind == CEL_ERROR && !v.s)
        return fail(e, "no such attribute(s): %s", n->name);
    return v;
}

static struct cel_value attribute(struct eval *e, const struct node *n, bool counted);

/* What stands before a qualifier. */
static struct cel_value operand(struct eval *e, const struct node *n, bool counted)
{
    struct cel_value v;

    if (is_attribute(n))
        return attribute(e, n, counted);
    v = ev(e, n);
    if (counted)
        spend(e, 1);
    return v;
}

static struct cel_value no_key(struct eval *e, struct cel_value key)
{
    return fail(e, "no such key: %.300s", cel_text(e->arena, key));
}

enum look { LOOK_VALUE, LOOK_OPTIONAL, LOOK_TEST };

static struct cel_value absent(struct eval *e, enum look look, struct cel_value error)
{
    return look == LOOK_OPTIONAL ? opt_none() : look == LOOK_TEST ? cel_bool(false) : error;
}
static struct cel_value present(struct eval *e, enum look look, struct cel_value v)
{
    if (is_error(v))
        return v;
    return look == LOOK_OPTIONAL ? opt_some(e, v) : look == LOOK_TEST ? cel_bool(true) : v;
}

/* The specification wants an error for a field of a number in an optional; upstream has none there
 * for what comes from documents. */
static bool scalar_in_plain(struct eval *e, struct cel_value v)
{
    return (e->prog->env->flags & CEL_PLAIN) && !is_map(v) && v.kind != CEL_LIST && v.kind != CEL_OPTIONAL;
}

static struct cel_value field(struct eval *e, struct cel_value v, const struct node *n, const char *name, size_t name_n, enum look look)
{
    struct cel_value out;

    if (is_error(v))
        return v;
    if (v.kind == CEL_OPTIONAL) {
        if (!v.some)
            return look == LOOK_TEST ? cel_bool(false) : v;
        if (look == LOOK_VALUE && scalar_in_plain(e, *v.some))
            return no_key(e, cel_strn(name, name_n));
        return field(e, *v.some, n, name, name_n, look == LOOK_VALUE ? LOOK_OPTIONAL : look);
    }
    if (v.kind == CEL_LIST)
        return fail_lit("unsupported index type 'string' in list");
    if (!is_map(v))
        return look == LOOK_VALUE ? no_key(e, cel_strn(name, name_n)) : absent(e, look, cel_null());
    if (look == LOOK_TEST && v.sub == SUB_LAZY) /* declared is enough: it is not made for the question */
        return cel_bool(n->raw && (!v.type || cel_type_field(v.type, n->raw, n->raw_n)));
    if (!field_find(e, v, name, name_n, n->raw, n->raw_n, &out))
        return look == LOOK_VALUE ? no_key(e, cel_strn(name, name_n)) : absent(e, look, cel_null());
    return present(e, look, out);
}

static bool index_of(struct cel_value i, int64_t *ret)
{
    if (i.kind == CEL_INT)
        *ret = i.i;
    else if (i.kind == CEL_UINT && i.u <= INT64_MAX)
        *ret = (int64_t)i.u;
    else if (i.kind == CEL_DOUBLE && i.d >= -9e18 && i.d <= 9e18 && i.d == (double)(int64_t)i.d)
        *ret = (int64_t)i.d;
    else
        return false;
    return true;
}

static struct cel_value indexed(struct eval *e, struct cel_value v, struct cel_value key, enum look look)
{
    struct cel_value out;
    int64_t i;

    if (is_error(v))
        return v;
    if (is_error(key))
        return key;
    if (v.kind == CEL_OPTIONAL) {
        if (!v.some)
            return v;
        return indexed(e, *v.some, key, LOOK_OPTIONAL);
    }
    if (v.kind == CEL_LIST) {
        if (!index_of(key, &i))
            return fail(e, "unsupported index type '%s' in list", value_type_name(e->arena, key));
        if (i < 0 || i >= (int64_t)list_len(v))
            return absent(e, look, look ? cel_null() : fail(e, "index out of bounds: %lld", (long long)i));
        return present(e, look, list_at(e, v, (uint32_t)i));
    }
    if (!is_map(v))
        return look == LOOK_VALUE ? no_key(e, key) : absent(e, look, cel_null());
    if (key.kind != CEL_STRING && key.kind != CEL_INT && key.kind != CEL_UINT && key.kind != CEL_BOOL && key.kind != CEL_DOUBLE)
        return fail(e, "unsupported key type: %s", value_type_name(e->arena, key));
    if (!map_find(e, v, key, &out))
        return absent(e, look, look ? cel_null() : no_key(e, key));
    return present(e, look, out);
}

static struct cel_value conditional(struct eval *e, const struct node *n)
{
    struct cel_value c = ev(e, n->args[0]);
    const struct node *branch;

    if (is_error(c))
        return c;
    if (c.kind != CEL_BOOL)
        return fail_lit("no such overload");
    branch = n->args[c.b ? 1 : 2];
    return is_attribute(branch) ? attribute(e, branch, false) : ev(e, branch);
}

/* A qualifier costs 1, unless it is an optional one that found nothing. */
static struct cel_value qualified(struct eval *e, struct cel_value before, struct cel_value v, enum look look)
{
    if (look == LOOK_OPTIONAL || before.kind == CEL_OPTIONAL)
        spend(e, is_error(v) || (v.kind == CEL_OPTIONAL && !v.some) ? 0 : 1);
    else
        spend(e, 1);
    return v;
}

/* An attribute; counted: its name costs something, which it does not as a branch of ?:. */
static struct cel_value attribute(struct eval *e, const struct node *n, bool counted)
{
    struct cel_value v, key;
    enum look look;

    switch (n->kind) {
    case N_IDENT:
        if (counted)
            spend(e, 1);
        return ident(e, n);
    case N_SELECT:
        v = operand(e, n->args[0], counted && !n->test);
        if (is_error(v))
            return v;
        return qualified(e, v, field(e, v, n, n->name, n->name_n, n->test ? LOOK_TEST : LOOK_VALUE), n->test ? LOOK_TEST : LOOK_VALUE);
    default:
        break;
    }
    if (n->op == OP_COND)
        return conditional(e, n);
    v = operand(e, n->args[0], counted);
    if (is_error(v))
        return v;
    if (n->op == OP_OPT_SELECT)
        return qualified(e, v, field(e, v, n, n->args[1]->value.s, n->args[1]->value.n, LOOK_OPTIONAL), LOOK_OPTIONAL);
    look = n->op == OP_OPT_INDEX ? LOOK_OPTIONAL : LOOK_VALUE;
    if (n->args[1]->kind == N_CONST)
        key = n->args[1]->value;
    else if (is_attribute(n->args[1]))
        key = attribute(e, n->args[1], false);
    else
        key = ev(e, n->args[1]);
    return qualified(e, v, indexed(e, v, key, look), look);
}

static struct cel_value logic(struct eval *e, const struct node *n, bool stop_at)
{
    struct cel_value err = cel_bool(!stop_at);

    for (uint32_t i = 0; i < n->n; i++) {
        struct cel_value v = ev(e, n->args[i]);
        if (v.kind == CEL_BOOL) {
            if (v.b == stop_at)
                return v;
        } else if (!is_error(err)) {
            err = is_error(v) ? v : fail_lit("no such overload");
        }
    }
    return err;
}

static struct cel_value equality(struct eval *e, const struct node *n)
{
    struct cel_value args[2] = {ev(e, n->args[0]), ev(e, n->args[1])}, r = values_equal(e, args[0], args[1]);

    if (n->op == OP_NE && r.kind == CEL_BOOL)
        r.b = !r.b;
    spend(e, call_cost(e, n, args, 2, r));
    return r;
}

static struct cel_value opt_or(struct eval *e, const struct node *n)
{
    struct cel_value v = ev(e, n->args[0]);

    if (is_error(v))
        return v;
    if (v.kind != CEL_OPTIONAL)
        return v;
    if (v.some)
        return n->op == OP_OPT_OR ? v : *v.some;
    v = ev(e, n->args[1]);
    if (n->op == OP_OPT_OR && !is_error(v) && v.kind != CEL_OPTIONAL)
        return fail_lit("no such overload");
    return v;
}

enum { ARGS_MAX = 8 };

/* Whether a value is of a type as far as a look at its first members tells. */
static bool fits_type(struct eval *e, const struct cel_type *t, struct cel_value v)
{
    if (t->kind == CEL_PARAM || t->kind == CEL_DYN)
        return true;
    if (t->kind != v.kind && !(t->kind == CEL_MAP && v.kind == CEL_OBJECT))
        return false;
    if (v.kind == CEL_LIST)
        return !list_len(v) || fits_type(e, t->elem, list_at(e, v, 0));
    if (v.kind == CEL_MAP)
        return !map_len(v) || (fits_type(e, t->key, map_key_at(e, v, 0)) && fits_type(e, t->elem, map_value_at(e, v, 0)));
    return true;
}

/* Whether the arguments are what the one overload takes that the checker left. */
static bool fits(struct eval *e, const struct overload *o, const struct cel_value *args)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (!fits_type(e, o->args[i], args[i]))
            return false;
    return true;
}

static bool is_const(const struct node *n)
{
    return n->kind == N_CONST || n->folded;
}

static struct cel_value call(struct eval *e, const struct node *n)
{
    struct cel_value args[ARGS_MAX], r, v;
    const struct cel_value *bad = NULL;

    switch ((enum op)n->op) {
    case OP_AND:
        return logic(e, n, false);
    case OP_OR:
        return logic(e, n, true);
    case OP_EQ: case OP_NE:
        return equality(e, n);
    case OP_COND: case OP_INDEX: case OP_OPT_INDEX: case OP_OPT_SELECT:
        return attribute(e, n, true);
    case OP_OPT_OR: case OP_OPT_OR_VALUE:
        return opt_or(e, n);
    case OP_NOT_STRICTLY_FALSE:
        v = ev(e, n->args[0]);
        spend(e, 1);
        return v.kind == CEL_BOOL ? v : cel_bool(true);
    case OP_NONE:
        break;
    }
    if (!n->fn || !n->over_n || n->n > ARGS_MAX)
        return fail(e, "no such overload: %.200s", n->name);
    for (uint32_t i = 0; i < n->n; i++) {
        args[i] = ev(e, n->args[i]);
        if (bad || !is_error(args[i]))
            continue;
        bad = args + i;
        if (i + 1 < n->n && (n->n > 2 || (n->fn->regex && is_const(n->args[1])) || (n->over_n > 1 && n->fn->guarded)))
            return *bad; /* upstream ends here, and counts no call */
    }
    if (!bad && n->fn->guarded && n->over_n == 1 && !fits(e, n->over[0], args))
        r = no_overload(e, n, args, n->n);
    else
        r = bad ? *bad : n->fn->fn(e, n, args, n->n);
    spend(e, call_cost(e, n, args, n->n, r));
    return r;
}

static struct cel_value list(struct eval *e, const struct node *n)
{
    struct cel_value l = list_new(e, n->n);

    spend(e, 10);
    for (uint32_t i = 0; i < n->n; i++) {
        struct cel_value v = ev(e, n->args[i]);
        if (is_error(v))
            return v;
        if (n->optional && n->optional[i]) {
            if (v.kind != CEL_OPTIONAL)
                return fail(e, "cannot initialize optional list element from non-optional value %.200s", cel_text(e->arena, v));
            if (!v.some)
                continue;
            v = *v.some;
        }
        l = list_push(e, l, v);
    }
    return l;
}

static struct cel_value map(struct eval *e, const struct node *n)
{
    struct cel_value m = map_new(e, n->n / 2), was;

    spend(e, 30);
    for (uint32_t i = 0; i + 1 < n->n; i += 2) {
        struct cel_value k = ev(e, n->args[i]), v;
        if (is_error(k))
            return k;
        v = ev(e, n->args[i + 1]);
        if (is_error(v))
            return v;
        if (k.kind != CEL_STRING && k.kind != CEL_INT && k.kind != CEL_UINT && k.kind != CEL_BOOL)
            return fail(e, "unsupported key type: %s", value_type_name(e->arena, k));
        if (n->optional && n->optional[i]) {
            if (v.kind != CEL_OPTIONAL)
                return fail(e, "cannot initialize optional entry '%.100s' from non-optional value %.200s", cel_text(e->arena, k),
                            cel_text(e->arena, v));
            if (!v.some)
                continue;
            v = *v.some;
        }
        if (map_find(e, m, k, &was))
            return fail(e, "Failed with repeated key: %.200s", cel_text(e->arena, k));
        m = map_push(e, m, k, v);
    }
    return m;
}

static struct cel_value structure(struct eval *e, const struct node *n)
{
    struct cel_value m = map_new(e, n->n);

    if (!n->decl)
        return fail(e, "unknown type: %.200s", n->name);
    spend(e, 40);
    for (uint32_t i = 0; i < n->n; i++) {
        struct cel_value v = ev(e, n->args[i]);
        if (is_error(v))
            return v;
        if (n->optional && n->optional[i]) {
            if (v.kind != CEL_OPTIONAL)
                return fail(e, "cannot initialize optional entry '%.100s' from non-optional value %.200s", n->names[i],
                            cel_text(e->arena, v));
            if (!v.some)
                continue;
            v = *v.some;
        }
        m = map_push(e, m, cel_str(n->names[i]), v);
    }
    m.kind = CEL_OBJECT;
    m.type = n->decl;
    return m;
}

static const char *go_kind(struct cel_value v) /* as upstream shows it where it forgot to be nice */
{
    static const char *const names[] = {[CEL_NULL] = "types.Null", [CEL_BOOL] = "types.Bool", [CEL_INT] = "types.Int",
        [CEL_UINT] = "types.Uint", [CEL_DOUBLE] = "types.Double", [CEL_STRING] = "types.String", [CEL_BYTES] = "types.Bytes",
        [CEL_TIMESTAMP] = "types.Timestamp", [CEL_DURATION] = "types.Duration", [CEL_TYPE] = "*types.Type",
        [CEL_OPTIONAL] = "*types.Optional"};

    return v.kind < ARRAY_LEN(names) && names[v.kind] ? names[v.kind] : "types.Object";
}

static struct cel_value fold(struct eval *e, const struct node *n)
{
    const struct fold *f = n->fold;
    struct cel_value range = ev(e, f->range), *accu = e->slots + f->accu_slot;
    uint32_t len;

    if (is_error(range))
        return range;
    if (f->bind) {
        *accu = (struct cel_value){.kind = CEL_ERROR, .sub = SUB_LAZY, .s = (const char *)(const void *)f->init};
        return ev(e, f->result);
    }
    if (range.kind != CEL_LIST && !is_map(range))
        return fail(e, f->iter2 ? "unsupported comprehension range type: %s" : "got '%s', expected iterable type", go_kind(range));
    *accu = ev(e, f->init);
    len = range.kind == CEL_LIST ? list_len(range) : map_len(range);
    for (uint32_t i = 0; i < len; i++) {
        struct cel_value c;
        if (range.kind == CEL_LIST) {
            if (f->iter2)
                e->slots[f->iter_slot] = cel_int(i);
            e->slots[f->iter2 ? f->iter2_slot : f->iter_slot] = list_at(e, range, i);
        } else {
            e->slots[f->iter_slot] = map_key_at(e, range, i);
            if (f->iter2)
                e->slots[f->iter2_slot] = map_value_at(e, range, i);
        }
        c = ev(e, f->cond);
        if (c.kind == CEL_BOOL && !c.b)
            break;
        *accu = ev(e, f->step);
        e->bytes += 1; /* a loop that makes nothing still takes its turn */
    }
    return ev(e, f->result);
}

static struct cel_value ev(struct eval *e, const struct node *n)
{
    if (n->folded)
        return n->value;
    switch ((enum node_kind)n->kind) {
    case N_CONST:
        return n->value;
    case N_IDENT:
        spend(e, 1);
        return ident(e, n);
    case N_SELECT:
        return attribute(e, n, true);
    case N_CALL:
        return call(e, n);
    case N_LIST:
        return list(e, n);
    case N_MAP:
        return map(e, n);
    case N_STRUCT:
        return structure(e, n);
    case N_FOLD:
        return fold(e, n);
    }
    UNREACHABLE();
}

/* ---- constants ---- */

static bool converts(const struct func *f)
{
    static const char *const names[] = {"bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(f->name, names[i]))
            return true;
    return false;
}

static bool can_fold(const struct node *n)
{
    if (n->kind == N_CALL) {
        if (n->op || !n->fn || !n->n)
            return false;
        if (streq(n->fn->name, "@in")) /* in an empty list */
            return n->args[1]->folded && n->args[1]->kind == N_LIST && n->args[1]->value.n == 0;
        return n->n == 1 && converts(n->fn) && is_const(n->args[0]);
    }
    if ((n->kind != N_LIST && n->kind != N_MAP) || n->optional)
        return false;
    for (uint32_t i = 0; i < n->n; i++)
        if (!is_const(n->args[i]))
            return false;
    return true;
}

/* Lists, maps and conversions of constants are made once; false and err: one of them can not be. */
static bool fold_constants(struct eval *e, struct node *n, struct cel_value *error)
{
    for (uint32_t i = 0; i < n->n; i++)
        if (!fold_constants(e, n->args[i], error))
            return false;
    if (n->kind == N_FOLD) {
        struct fold *f = n->fold;
        if (!fold_constants(e, f->range, error) || !fold_constants(e, f->init, error) || !fold_constants(e, f->cond, error) ||
            !fold_constants(e, f->step, error) || !fold_constants(e, f->result, error))
            return false;
        return true;
    }
    if (n->folded || !can_fold(n))
        return true;
    n->value = n->kind == N_CALL && streq(n->fn->name, "@in") ? cel_bool(false) : ev(e, n);
    if (is_error(n->value)) {
        *error = n->value;
        return !(n->kind == N_CALL || n->kind == N_MAP) || false;
    }
    n->folded = true;
    return true;
}

/* ---- the door ---- */

static void prepare_slots(struct eval *e, uint32_t n, struct cel_value *small, uint32_t small_n)
{
    e->slots = n <= small_n ? small : arena_array(e->arena, struct cel_value, n);
    for (uint32_t i = 0; i < n; i++)
        e->slots[i] = (struct cel_value){.kind = CEL_NULL};
}

static bool fold_program(struct cel_prog *p, struct cel_value *error)
{
    struct cel_run run = {.arena = p->arena};
    struct eval e = {.run = &run, .prog = p, .arena = p->arena, .cost_limit = UINT64_MAX, .bytes_max = CEL_BYTES_MAX};
    struct cel_value slots[16];

    prepare_slots(&e, p->slots, slots, ARRAY_LEN(slots));
    if (setjmp(e.stop)) {
        *error = fail_lit(e.stopped);
        return false;
    }
    return fold_constants(&e, p->root, error);
}

struct cel_prog *cel_compile(const struct cel_env *env, const char *text, size_t n, struct arena *a, const char **ret_issues)
{
    struct arena *own = arena_new();
    struct cel_prog *p = arena_new_of(own, struct cel_prog);
    struct issues is = {.arena = own};
    struct cel_value error = {0};

    p->arena = own;
    p->env = env;
    if (n > CEL_TEXT_MAX) {
        *ret_issues = arena_printf(a, "ERROR: <input>:1:1: expression size exceeds limit: size: %zu, limit %d", n, CEL_TEXT_MAX);
        arena_free(own);
        return NULL;
    }
    is.text = p->text = arena_strndup(own, text, n);
    is.text_n = p->text_n = n;
    p->uses = arena_alloc(own, env->vars_n + 1);
    p->root = cel_parse(env, own, &is);
    if (p->root && cel_check(env, p, &is)) {
        cel_cost_estimate(p);
        if (fold_program(p, &error) || (env->flags & CEL_UNCHECKED))
            return p;
        issue(&is, p->root->pos, "%.*s", (int)error.n, error.s);
    }
    *ret_issues = arena_strdup(a, issues_text(&is));
    arena_free(own);
    return NULL;
}

void *cel_prog_free(struct cel_prog *p)
{
    if (p)
        arena_free(p->arena);
    return NULL;
}
const struct cel_type *cel_prog_type(const struct cel_prog *p)
{
    return p->type;
}
struct cel_cost cel_prog_cost(const struct cel_prog *p)
{
    return p->cost;
}
size_t cel_prog_bytes(const struct cel_prog *p)
{
    return arena_bytes(p->arena);
}
bool cel_prog_uses(const struct cel_prog *p, int var)
{
    return var >= 0 && (uint32_t)var < p->env->vars_n && p->uses[var];
}

int cel_eval(const struct cel_prog *p, struct cel_run *run, struct cel_value *ret, struct err *err)
{
    struct eval e = {.run = run, .prog = p, .arena = run->arena,
                     .cost_limit = run->cost_limit ? run->cost_limit : CEL_COST_PER_CALL,
                     .bytes_max = run->bytes_max ? run->bytes_max : CEL_BYTES_MAX};
    struct cel_value slots[16], v;

    prepare_slots(&e, p->slots, slots, ARRAY_LEN(slots));
    if (setjmp(e.stop)) {
        run->cost = e.cost;
        return err_set(err, TOO_LARGE, "%s", e.stopped);
    }
    v = ev(&e, p->root);
    run->cost = e.cost;
    if (is_error(v))
        return err_set(err, INVALID, "%.*s", (int)MIN(v.n, 480u), v.s);
    *ret = v;
    return 0;
}
