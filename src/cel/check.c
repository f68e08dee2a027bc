/* cel/check.c - types of all nodes, overloads of all calls, places of all variables.
 *
 * Types are inferred by unification: a type variable (CEL_PARAM) has a number, `subst` says what it
 * stands for. An attempt that fails is undone by the trail. Errors have upstream's words. */
#include "cel/cel_int.h"
#include "cel/lib.h"
#include "codec/regex.h"

#include <stdio.h>

enum { VARS_MAX = 200000 };

struct scope { /* a variable of a comprehension; the innermost first */
    const char *name;
    const struct cel_type *type;
    uint32_t slot;
    const struct scope *up;
};
struct checker {
    const struct cel_env *env;
    struct cel_prog *prog;
    struct arena *a;
    struct issues *is;
    const struct scope *scope;
    uint32_t slots, slots_max;
    const struct cel_type **subst;
    uint32_t vars, vars_cap;
    struct trail {
        uint32_t var;
        const struct cel_type *was;
    } *trail;
    uint32_t trail_n, trail_cap;
    bool plain;
};

static void check(struct checker *c, struct node *n);

/* ---- unification ---- */

static const struct cel_type *new_var(struct checker *c)
{
    struct cel_type *t = cel_type_new(c->a, CEL_PARAM);

    if (c->vars == c->vars_cap) {
        uint32_t cap = c->vars_cap ? c->vars_cap * 2 : 32;
        const struct cel_type **s = arena_array(c->a, const struct cel_type *, cap);
        if (c->vars)
            memcpy(s, c->subst, c->vars * sizeof *s);
        c->subst = s;
        c->vars_cap = cap;
    }
    t->name = arena_printf(c->a, "_var%u", c->vars);
    t->max_elements = c->vars++;
    return t;
}

static void bind_var(struct checker *c, const struct cel_type *var, const struct cel_type *to)
{
    uint32_t v = (uint32_t)var->max_elements;

    if (c->trail_n == c->trail_cap) {
        uint32_t cap = c->trail_cap ? c->trail_cap * 2 : 64;
        struct trail *t = arena_array(c->a, struct trail, cap);
        if (c->trail_n)
            memcpy(t, c->trail, c->trail_n * sizeof *t);
        c->trail = t;
        c->trail_cap = cap;
    }
    c->trail[c->trail_n++] = (struct trail){v, c->subst[v]};
    c->subst[v] = to;
}

static void undo(struct checker *c, uint32_t to)
{
    while (c->trail_n > to) {
        c->trail_n--;
        c->subst[c->trail[c->trail_n].var] = c->trail[c->trail_n].was;
    }
}

static const struct cel_type *found(struct checker *c, const struct cel_type *t)
{
    return t->kind == CEL_PARAM ? c->subst[t->max_elements] : NULL;
}

static bool same(const struct cel_type *x, const struct cel_type *y)
{
    if (x == y)
        return true;
    if (x->kind != y->kind || !streq0(x->name, y->name))
        return false;
    if (x->kind == CEL_OBJECT && !x->name)
        return false;
    if (x->kind == CEL_PARAM)
        return x->max_elements == y->max_elements;
    if (!x->key != !y->key || !x->elem != !y->elem)
        return false;
    return (!x->key || same(x->key, y->key)) && (!x->elem || same(x->elem, y->elem));
}

/* The type with its variables replaced; what stays open becomes dyn when asked. */
static const struct cel_type *substitute(struct checker *c, const struct cel_type *t, bool to_dyn)
{
    const struct cel_type *s = found(c, t), *key, *elem;
    struct cel_type *n;

    if (s)
        return substitute(c, s, to_dyn);
    if (t->kind == CEL_PARAM)
        return to_dyn ? &cel_dyn_type : t;
    if (!t->elem)
        return t;
    key = t->key ? substitute(c, t->key, to_dyn) : NULL;
    elem = substitute(c, t->elem, to_dyn);
    if (key == t->key && elem == t->elem)
        return t;
    n = cel_type_new(c->a, t->kind);
    n->key = key;
    n->elem = elem;
    return n;
}

static bool dyn_or_error(const struct cel_type *t)
{
    return t->kind == CEL_DYN || t->kind == CEL_ERROR;
}

static bool less_specific(const struct cel_type *x, const struct cel_type *y)
{
    if (x->kind == CEL_DYN || x->kind == CEL_PARAM)
        return true;
    if (y->kind == CEL_DYN || y->kind == CEL_PARAM || x->kind != y->kind)
        return false;
    if (x->kind == CEL_TYPE)
        return true;
    if (x->kind == CEL_LIST || x->kind == CEL_MAP || x->kind == CEL_OPTIONAL)
        return (!x->key || less_specific(x->key, y->key)) && less_specific(x->elem, y->elem);
    return same(x, y);
}

static bool occurs(struct checker *c, const struct cel_type *var, const struct cel_type *in)
{
    const struct cel_type *s;

    if (same(var, in))
        return true;
    if (in->kind == CEL_PARAM)
        return (s = found(c, in)) && occurs(c, var, s);
    return (in->key && occurs(c, var, in->key)) || (in->elem && occurs(c, var, in->elem));
}

static bool assignable(struct checker *c, const struct cel_type *x, const struct cel_type *y);

/* Whether variable y may stand for x; *has: it already stood for something. */
static bool substitution(struct checker *c, const struct cel_type *x, const struct cel_type *y, bool *has)
{
    const struct cel_type *s;

    *has = true;
    if (same(x, y))
        return true;
    s = found(c, y);
    if (s) {
        if (same(x, s))
            return true;
        if (assignable(c, x, s)) {
            const struct cel_type *most = less_specific(x, s) ? x : s;
            if (!occurs(c, y, most))
                bind_var(c, y, most);
            return true;
        }
        return false;
    }
    *has = false;
    if (occurs(c, y, x))
        return false;
    bind_var(c, y, x);
    return true;
}

static bool nullable(const struct cel_type *t)
{
    return t->kind == CEL_NULL || t->kind == CEL_OPAQUE || t->kind == CEL_OPTIONAL || t->kind == CEL_OBJECT ||
           t->kind == CEL_DURATION || t->kind == CEL_TIMESTAMP;
}

static bool assignable(struct checker *c, const struct cel_type *x, const struct cel_type *y)
{
    bool has;

    if (y->kind == CEL_PARAM) {
        if (substitution(c, x, y, &has))
            return true;
        if (has)
            return false;
    }
    if (x->kind == CEL_PARAM)
        return substitution(c, y, x, &has);
    if (dyn_or_error(x) || dyn_or_error(y))
        return true;
    if (x->kind == CEL_NULL)
        return nullable(y);
    if (y->kind == CEL_NULL)
        return nullable(x);
    if (x->kind != y->kind)
        return false;
    switch (x->kind) {
    case CEL_TYPE:
        return true;
    case CEL_LIST: case CEL_MAP: case CEL_OPTIONAL:
        return (!x->key || assignable(c, x->key, y->key)) && assignable(c, x->elem, y->elem);
    default:
        return same(x, y);
    }
}

static bool try_assign(struct checker *c, const struct cel_type *x, const struct cel_type *y)
{
    uint32_t mark = c->trail_n;

    if (assignable(c, x, y))
        return true;
    undo(c, mark);
    return false;
}

static const char *text(struct checker *c, const struct cel_type *t)
{
    return cel_type_text(c->a, substitute(c, t, false));
}

static void mismatch(struct checker *c, const struct node *n, const struct cel_type *want, const struct cel_type *got)
{
    issue(c->is, n->pos, "expected type '%s' but found '%s'", text(c, want), text(c, got));
}

/* ---- names ---- */

static const struct scope *local(struct checker *c, const char *name)
{
    for (const struct scope *s = c->scope; s; s = s->up)
        if (streq(s->name, name))
            return s;
    return NULL;
}

static const struct cel_type *type_of(struct checker *c, const struct cel_type *t)
{
    struct cel_type *n = cel_type_new(c->a, CEL_TYPE);

    n->elem = t;
    return n;
}

/* Makes n an identifier when the name is a variable or a type. */
static bool resolve(struct checker *c, struct node *n, const char *name)
{
    const struct cel_type *t;
    bool root = *name == '.';

    name += root;
    for (uint32_t i = 0; i < c->env->vars_n; i++)
        if (streq(c->env->vars[i].name, name)) {
            n->kind = N_IDENT;
            n->n = 0; /* of a dotted name, the names before the point are no nodes of their own */
            n->name = c->env->vars[i].name;
            n->name_n = (uint32_t)strlen(name);
            n->var = (int32_t)i;
            n->type = c->env->vars[i].type;
            c->prog->uses[i] = 1;
            return true;
        }
    if ((t = type_by_name(c->env, name, strlen(name))) || streq(name, "optional_type")) {
        if (!t) {
            struct cel_type *opt = cel_type_new(c->a, CEL_OPTIONAL);
            opt->elem = &cel_dyn_type;
            t = opt;
        }
        n->kind = N_CONST;
        n->n = 0;
        n->value = (struct cel_value){.kind = CEL_TYPE, .t = t};
        n->type = type_of(c, t);
        n->name = name;
        return true;
    }
    return false;
}

static void check_ident(struct checker *c, struct node *n)
{
    const struct scope *s = *n->name == '.' ? NULL : local(c, n->name);

    if (s) {
        n->slot = (int32_t)s->slot;
        n->type = s->type;
        return;
    }
    if (resolve(c, n, n->name))
        return;
    n->type = &cel_error_type;
    issue(c->is, n->pos, "undeclared reference to '%s' (in container '')", n->name);
}

static const char *qualified(struct checker *c, const struct node *n)
{
    const char *head;

    if (n->kind == N_IDENT)
        return local(c, n->name) ? NULL : n->name;
    if (n->kind != N_SELECT || n->test || !(head = qualified(c, n->args[0])))
        return NULL;
    return arena_printf(c->a, "%s.%s", head, n->name);
}

/* The declared type of a field, by the name that the expression uses. */
static const struct cel_type *field_type(struct checker *c, const struct cel_type *t, const char *name, const char **ret_raw)
{
    const char *raw = cel_unescape(c->a, name, strlen(name)), *again = raw ? cel_escape(c->a, raw) : NULL;
    const struct cel_type *f = NULL;

    if (again && streq(again, name))
        f = cel_type_field(t, raw, strlen(raw));
    if (!f && (reserved_word(name, strlen(name)) || (c->env->flags & CEL_PLAIN))) {
        raw = name;
        f = cel_type_field(t, name, strlen(name));
    }
    if (f)
        *ret_raw = raw;
    return f;
}

/* The type of operand.field; sets the raw names in n. */
static const struct cel_type *select_type(struct checker *c, struct node *n, struct node *operand, const char *name, bool optional)
{
    const struct cel_type *t, *r = &cel_error_type;
    bool opt;
    struct cel_type *o;

    check(c, operand);
    t = substitute(c, operand->type, false);
    opt = t->kind == CEL_OPTIONAL;
    if (opt)
        t = substitute(c, t->elem, false);
    n->raw = NULL;
    switch (t->kind) {
    case CEL_MAP:
        r = t->elem;
        break;
    case CEL_OBJECT: {
        const struct cel_type *f = field_type(c, t, name, &n->raw);
        if (f)
            r = f;
        else
            issue(c->is, n->pos, "undefined field '%s'", name);
        break;
    }
    case CEL_PARAM:
        try_assign(c, &cel_dyn_type, t);
        r = &cel_dyn_type;
        break;
    default:
        if (!dyn_or_error(t))
            issue(c->is, n->pos, "type '%s' does not support field selection", text(c, t));
        r = &cel_dyn_type;
    }
    if (!n->raw)
        n->raw = cel_unescape(c->a, name, strlen(name));
    n->raw_n = n->raw ? (uint32_t)strlen(n->raw) : 0;
    if (!opt && !optional)
        return r;
    o = cel_type_new(c->a, CEL_OPTIONAL);
    o->elem = r;
    return o;
}

static void check_select(struct checker *c, struct node *n)
{
    const char *q = qualified(c, n);
    const struct cel_type *t;

    if (q && resolve(c, n, q))
        return;
    t = select_type(c, n, n->args[0], n->name, false);
    n->type = n->test ? &cel_bool_type : substitute(c, t, false);
}

/* ---- calls ---- */

static const struct cel_type *instance(struct checker *c, const struct cel_type *t, const struct cel_type *const vars[2])
{
    struct cel_type *n;

    if (t->kind == CEL_PARAM)
        return vars[t->max_elements];
    if (!t->elem)
        return t;
    n = cel_type_new(c->a, t->kind);
    n->key = t->key ? instance(c, t->key, vars) : NULL;
    n->elem = instance(c, t->elem, vars);
    return n;
}

static void no_match(struct checker *c, struct node *n, const struct func *f)
{
    char sig[2000];
    size_t at = 0;
    uint32_t first = n->member;

    sig[0] = '\0';
    if (n->member)
        at += (size_t)snprintf(sig, sizeof sig, "%.500s.", cel_type_text(c->a, substitute(c, n->args[0]->type, true)));
    at += (size_t)snprintf(sig + at, sizeof sig - at, "(");
    for (uint32_t i = first; i < n->n && at < sizeof sig - 600; i++)
        at += (size_t)snprintf(sig + at, sizeof sig - at, "%s%.500s", i > first ? ", " : "",
                               cel_type_text(c->a, substitute(c, n->args[i]->type, true)));
    snprintf(sig + at, sizeof sig - at, ")");
    issue(c->is, n->pos, "found no matching overload for '%s' applied to '%s'", f->name, sig);
}

static void resolve_logic(struct checker *c, struct node *n, const struct func *f)
{
    bool wrong = false;

    for (uint32_t i = 0; i < n->n; i++)
        if (!try_assign(c, n->args[i]->type, &cel_bool_type)) {
            mismatch(c, n->args[i], &cel_bool_type, n->args[i]->type);
            wrong = true;
        }
    n->over = arena_array(c->a, const struct overload *, 1);
    n->over[0] = f->over;
    n->over_n = 1;
    n->type = wrong ? &cel_error_type : &cel_bool_type;
}

static void resolve_call(struct checker *c, struct node *n, const struct func *f)
{
    const struct cel_type *result = NULL;

    n->fn = f;
    n->op = f->op;
    if (f->op == OP_AND || f->op == OP_OR) {
        resolve_logic(c, n, f);
        return;
    }
    n->over = arena_array(c->a, const struct overload *, f->over_n);
    n->over_n = 0;
    for (uint32_t i = 0; i < f->over_n; i++) {
        const struct overload *o = f->over + i;
        const struct cel_type *vars[2] = {NULL, NULL}, *r;
        uint32_t mark = c->trail_n, k;
        if (o->member != n->member || o->n != n->n || (!c->plain && streq(o->id, "string_reverse")))
            continue;
        if (c->vars + 2 > VARS_MAX) {
            issue(c->is, n->pos, "the expression has too many types to infer");
            n->type = &cel_error_type;
            return;
        }
        for (k = 0; k < o->params; k++)
            vars[k] = new_var(c);
        for (k = 0; k < n->n; k++)
            if (!assignable(c, n->args[k]->type, o->params ? instance(c, o->args[k], vars) : o->args[k]))
                break;
        if (k < n->n) {
            undo(c, mark);
            continue;
        }
        n->over[n->over_n++] = o;
        r = substitute(c, o->params ? instance(c, o->result, vars) : o->result, false);
        if (!result)
            result = r;
        else if (result->kind != CEL_DYN && !same(r, result))
            result = &cel_dyn_type;
    }
    if (!result) {
        no_match(c, n, f);
        result = &cel_error_type;
    }
    n->type = result;
}

static void check_opt_select(struct checker *c, struct node *n)
{
    struct node *field = n->args[1];
    const struct cel_type *t;

    field->type = &cel_string_type;
    n->fn = func_find(c->env, n->name, n->name_n);
    n->op = OP_OPT_SELECT;
    n->over = arena_array(c->a, const struct overload *, 1);
    n->over[0] = n->fn->over;
    n->over_n = 1;
    field->pos = field->pos ? field->pos : n->pos;
    t = select_type(c, n, n->args[0], field->value.s, true);
    n->type = substitute(c, t, false);
}

static void undeclared(struct checker *c, struct node *n)
{
    n->type = &cel_error_type;
    issue(c->is, n->pos, "undeclared reference to '%s' (in container '')", n->name);
}

static void check_call(struct checker *c, struct node *n)
{
    const struct func *f;
    const char *q;

    if (streq(n->name, "_?._")) {
        check_opt_select(c, n);
        return;
    }
    for (uint32_t i = n->member; i < n->n; i++)
        check(c, n->args[i]);
    if (!n->member) {
        const char *name = n->name + (*n->name == '.');
        f = func_find(c->env, name, strlen(name));
        if (f)
            resolve_call(c, n, f);
        else
            undeclared(c, n);
        return;
    }
    /* a.b.c(): the function a.b.c, or c of a.b */
    q = qualified(c, n->args[0]);
    if (q) {
        const char *name = arena_printf(c->a, "%s.%s", q + (*q == '.'), n->name);
        f = func_find(c->env, name, strlen(name));
        if (f) {
            n->member = false;
            n->args++;
            n->n--;
            n->name = f->name;
            n->name_n = (uint32_t)strlen(f->name);
            resolve_call(c, n, f);
            return;
        }
    }
    check(c, n->args[0]);
    f = func_find(c->env, n->name, n->name_n);
    if (f)
        resolve_call(c, n, f);
    else
        undeclared(c, n);
}

/* ---- lists, maps, structs, loops ---- */

static const struct cel_type *join(struct checker *c, const struct cel_type *was, const struct cel_type *now)
{
    if (!was)
        return now;
    if (try_assign(c, was, now))
        return less_specific(was, now) ? was : now;
    return &cel_dyn_type;
}

static const struct cel_type *unwrap(struct checker *c, const struct node *n, const struct cel_type *t)
{
    struct cel_type *o;

    t = substitute(c, t, false);
    if (t->kind == CEL_OPTIONAL)
        return t->elem;
    if (t->kind != CEL_DYN) {
        o = cel_type_new(c->a, CEL_OPTIONAL);
        o->elem = t;
        mismatch(c, n, o, t);
    }
    return t;
}

static void check_list(struct checker *c, struct node *n)
{
    const struct cel_type *elem = NULL;

    for (uint32_t i = 0; i < n->n; i++) {
        const struct cel_type *t;
        check(c, n->args[i]);
        t = n->args[i]->type;
        if (n->optional && n->optional[i])
            t = unwrap(c, n->args[i], t);
        elem = join(c, elem, t);
    }
    n->type = cel_type_list(c->a, elem ? elem : new_var(c));
}

static void check_map(struct checker *c, struct node *n)
{
    const struct cel_type *key = NULL, *value = NULL;

    for (uint32_t i = 0; i + 1 < n->n; i += 2) {
        const struct cel_type *t;
        check(c, n->args[i]);
        key = join(c, key, n->args[i]->type);
        check(c, n->args[i + 1]);
        t = n->args[i + 1]->type;
        if (n->optional && n->optional[i])
            t = unwrap(c, n->args[i + 1], t);
        value = join(c, value, t);
    }
    n->type = cel_type_map(c->a, key ? key : new_var(c), value ? value : new_var(c));
}

static void check_struct(struct checker *c, struct node *n)
{
    const char *name = n->name + (*n->name == '.');
    const struct cel_type *t = type_by_name(c->env, name, strlen(name));

    n->type = &cel_error_type;
    if (!t) {
        for (uint32_t i = 0; i < c->env->vars_n; i++)
            if (streq(c->env->vars[i].name, name)) {
                issue(c->is, n->pos, "'%s' is not a type", cel_type_text(c->a, c->env->vars[i].type));
                return;
            }
        issue(c->is, n->pos, "undeclared reference to '%s' (in container '')", n->name);
        return;
    }
    if (t->kind != CEL_OBJECT) {
        issue(c->is, n->pos, "'%s' is not a message type", cel_type_text(c->a, t));
        t = NULL;
    }
    n->decl = t;
    n->type = t ? t : &cel_error_type;
    for (uint32_t i = 0; i < n->n; i++) {
        const struct cel_type *ft = &cel_error_type, *vt;
        const char *raw = n->names[i];
        check(c, n->args[i]);
        if (t) {
            const struct cel_type *f = field_type(c, t, n->names[i], &raw);
            if (f)
                ft = f;
            else
                issue(c->is, n->poss[i], "undefined field '%s'", n->names[i]);
        }
        vt = n->args[i]->type;
        if (n->optional && n->optional[i])
            vt = unwrap(c, n->args[i], vt);
        if (!try_assign(c, ft, vt))
            issue(c->is, n->poss[i], "expected type of field '%s' is '%s' but provided type is '%s'", n->names[i],
                  text(c, ft), text(c, vt));
        n->names[i] = raw; /* from now on as in the document */
    }
}

static uint32_t new_slot(struct checker *c)
{
    if (++c->slots > c->slots_max)
        c->slots_max = c->slots;
    return c->slots - 1;
}

static void check_fold(struct checker *c, struct node *n)
{
    struct fold *f = n->fold;
    const struct scope *outer = c->scope;
    uint32_t slots = c->slots;
    const struct cel_type *range, *t1 = &cel_dyn_type, *t2 = &cel_dyn_type, *accu;
    struct scope accu_scope, s1, s2;

    check(c, f->range);
    if (f->bind) { /* run when the name is first used: then no slot of it may be taken */
        uint32_t most = c->slots_max;
        c->slots_max = c->slots;
        check(c, f->init);
        c->slots = c->slots_max;
        c->slots_max = MAX(most, c->slots_max);
    } else {
        check(c, f->init);
    }
    range = substitute(c, f->range->type, false);
    accu = f->init->type;
    switch (range->kind) {
    case CEL_LIST:
        t1 = f->iter2 ? &cel_int_type : range->elem;
        t2 = range->elem;
        break;
    case CEL_MAP:
        t1 = range->key;
        t2 = range->elem;
        break;
    case CEL_DYN: case CEL_ERROR: case CEL_PARAM:
        try_assign(c, &cel_dyn_type, range);
        break;
    default:
        issue(c->is, f->range->pos, "expression of type '%s' cannot be range of a comprehension (must be list, map, or dynamic)",
              text(c, range));
        t1 = t2 = &cel_error_type;
    }
    f->accu_slot = new_slot(c);
    accu_scope = (struct scope){f->accu, accu, f->accu_slot, outer};
    f->iter_slot = new_slot(c);
    s1 = (struct scope){f->iter, t1, f->iter_slot, &accu_scope};
    c->scope = &s1;
    if (f->iter2) {
        f->iter2_slot = new_slot(c);
        s2 = (struct scope){f->iter2, t2, f->iter2_slot, &s1};
        c->scope = &s2;
    }
    check(c, f->cond);
    if (!try_assign(c, &cel_bool_type, f->cond->type))
        mismatch(c, f->cond, &cel_bool_type, f->cond->type);
    check(c, f->step);
    if (!try_assign(c, accu, f->step->type))
        mismatch(c, f->step, accu, f->step->type);
    c->scope = &accu_scope;
    check(c, f->result);
    c->scope = outer;
    c->slots = slots;
    n->type = substitute(c, f->result->type, false);
}

static void check(struct checker *c, struct node *n)
{
    if (n->type) /* a part that a macro uses twice */
        return;
    switch ((enum node_kind)n->kind) {
    case N_CONST:
        if (!n->type)
            n->type = value_type(n->value);
        break;
    case N_IDENT:
        check_ident(c, n);
        break;
    case N_SELECT:
        check_select(c, n);
        break;
    case N_CALL:
        check_call(c, n);
        break;
    case N_LIST:
        check_list(c, n);
        break;
    case N_MAP:
        check_map(c, n);
        break;
    case N_STRUCT:
        check_struct(c, n);
        break;
    case N_FOLD:
        check_fold(c, n);
        break;
    }
}

/* Every node below and n itself; a subtree that a macro used twice is seen twice. */
static void walk(struct checker *c, struct node *n, void (*fn)(struct checker *, struct node *))
{
    for (uint32_t i = 0; i < n->n; i++)
        walk(c, n->args[i], fn);
    if (n->kind == N_FOLD) {
        walk(c, n->fold->range, fn);
        walk(c, n->fold->init, fn);
        walk(c, n->fold->cond, fn);
        walk(c, n->fold->step, fn);
        walk(c, n->fold->result, fn);
    }
    fn(c, n);
}

static void close_types(struct checker *c, struct node *n)
{
    n->type = n->type ? substitute(c, n->type, true) : &cel_error_type; /* behind an error none was found */
}

static const struct cel_type *entry_type(const struct node *n, uint32_t i)
{
    const struct cel_type *t = n->args[i]->type;

    return n->optional && n->optional[i] && t->kind == CEL_OPTIONAL ? t->elem : t;
}

/* Kubernetes wants lists and maps that are written out to hold one type each; arguments of format()
 * may be mixed. */
static void check_mixed(struct checker *c, struct node *n, bool may)
{
    uint32_t step = n->kind == N_MAP ? 2 : 1;

    may |= n->kind == N_CALL && streq(n->name, "format");
    if ((n->kind == N_LIST || n->kind == N_MAP) && !may)
        for (uint32_t i = step; i < n->n; i++)
            if (!same(entry_type(n, i % step), entry_type(n, i))) {
                mismatch(c, n->args[i], entry_type(n, i % step), entry_type(n, i));
                if (step == 1)
                    break;
            }
    for (uint32_t i = 0; i < n->n; i++)
        check_mixed(c, n->args[i], may);
    if (n->kind == N_FOLD) {
        check_mixed(c, n->fold->range, may);
        check_mixed(c, n->fold->init, may);
        check_mixed(c, n->fold->cond, may);
        check_mixed(c, n->fold->step, may);
        check_mixed(c, n->fold->result, may);
    }
}

/* What upstream looks at once types are right: constant arguments that can never work. */
static void check_constants(struct checker *c, struct node *n)
{
    struct node *arg;

    if (n->kind != N_CALL || !n->fn || !n->n)
        return;
    if (streq(n->fn->name, "format") && n->n == 2) {
        format_check(c->is, n);
        return;
    }
    arg = n->args[n->n > 1 ? 1 : 0];
    if (arg->kind != N_CONST || arg->value.kind != CEL_STRING)
        return;
    if (streq(n->fn->name, "duration") || streq(n->fn->name, "timestamp")) {
        struct cel_run run = {.arena = c->a};
        struct eval e = {.run = &run, .arena = c->a, .bytes_max = CEL_BYTES_MAX, .cost_limit = UINT64_MAX};
        struct cel_value v = arg->value;
        if (is_error(n->fn->fn(&e, n, &v, 1)))
            issue(c->is, arg->pos, "invalid %s argument", n->fn->name);
    } else if (n->n >= 2 && (streq(n->fn->name, "matches") || streq(n->fn->name, "find") || streq(n->fn->name, "findAll"))) {
        struct err err;
        struct regex *re = regex_new(arg->value.s, arg->value.n, &err);
        if (!re) {
            issue(c->is, arg->pos, "%s", *n->fn->name == 'm' ? "invalid matches argument" : err.msg);
        } else {
            arena_pin(c->a, regex_unpin, re);
            n->cache = re;
        }
    }
}

bool cel_check(const struct cel_env *env, struct cel_prog *p, struct issues *is)
{
    struct checker c = {.env = env, .prog = p, .a = p->arena, .is = is, .plain = (env->flags & CEL_PLAIN) != 0};

    check(&c, p->root);
    walk(&c, p->root, close_types);
    if (!is->n && !(env->flags & (CEL_UNCHECKED | CEL_PLAIN)))
        walk(&c, p->root, check_constants);
    if (!is->n && !c.plain && !(env->flags & CEL_UNCHECKED))
        check_mixed(&c, p->root, false);
    p->slots = c.slots_max;
    p->type = p->root->type;
    if (env->flags & CEL_UNCHECKED)
        is->n = 0;
    return is->n == 0;
}
