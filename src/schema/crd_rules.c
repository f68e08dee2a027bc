/* schema/crd_rules.c - x-kubernetes-validations: rules in CEL that custom resources are judged by.
 *
 * The schema's nodes that have rules, or lead to some, become a tree of their own (struct node) with
 * the compiled programs: it is made when the first object of a version is judged (definitions that
 * nobody uses cost nothing), and, with its causes told, when a definition is written. What a rule may
 * cost is estimated as upstream does: the largest number of elements that fit into a request, unless
 * the schema says less. */
#include "schema/crd_int.h"

#include "cel/cel.h"

#include <string.h>

enum {
    DEPTH_MAX = 100,
    REQUEST_MAX = 3 * 1024 * 1024, /* bytes of a request, for the estimates */
    MESSAGE_MAX = 5 * 1024,
    NODES_MAX = 5000, /* with rules, in one schema */
};
#define RULE_COST_MAX 10000000u   /* estimated, of one rule in all places */
#define SCHEMA_COST_MAX 100000000u /* estimated, of all rules */
#define RUN_COST_MAX 10000000u    /* spent on one object */

struct rule_prog {
    const struct val *rule;
    struct cel_prog *prog, *message;
    bool transition; /* uses oldSelf */
    bool optional;   /* oldSelf is an optional */
};

struct node {
    const struct val *js;
    const struct cel_type *type;
    struct cel_env *env, *optional_env;
    struct rule_prog *rules;
    uint32_t rules_n;
    struct kid {
        const char *name;
        struct node *node;
    } *kids;
    uint32_t kids_n;
    struct node *items, *more;
};

/* ---- types ---- */

static uint64_t min_size(const struct val *js, int depth);

static bool flag(const struct val *js, const char *key)
{
    return val_bool_at(js, key, false);
}

static uint64_t object_min(const struct val *js, int depth)
{
    uint64_t n = 2;

    VAL_EACH(val_get(js, "required"), need) {
        const struct val *p = val_get(val_get(js, "properties"), val_text(need, ""));
        if (p && !val_get(p, "default"))
            n += strlen(val_text(need, "")) + min_size(p, depth + 1) + 4;
    }
    return n;
}

/* The fewest bytes that a value takes in a request. */
static uint64_t min_size(const struct val *js, int depth)
{
    const char *type = val_str_at(js, "type", ""), *format = val_str_at(js, "format", "");

    if (depth > DEPTH_MAX || flag(js, "x-kubernetes-int-or-string"))
        return 1;
    if (streq(type, "object"))
        return val_is(val_get(js, "additionalProperties"), VAL_MAP) ? 2 : object_min(js, depth);
    if (streq(type, "array"))
        return 2;
    if (streq(type, "boolean"))
        return 4;
    if (streq(type, "string"))
        return streq(format, "date") ? 12 : streq(format, "date-time") ? 22 : streq(format, "duration") ? 4 : 2;
    return 1;
}

static int64_t limit_of(const struct val *js, const char *key)
{
    const struct val *v = val_get(js, key);

    return val_is(v, VAL_INT) ? MAX(v->i, 0) : -1;
}

static int64_t text_max(const struct val *js)
{
    const char *format = val_str_at(js, "format", "");
    int64_t max = limit_of(js, "maxLength");

    if (streq(format, "duration"))
        return 2562048; /* what upstream reckons for the longest one is the request */
    if (streq(format, "date"))
        return 10;
    if (streq(format, "date-time"))
        return 35;
    if (max >= 0)
        return streq(format, "byte") ? max : max * 4; /* a letter may take four bytes */
    if (val_len(val_get(js, "enum")) && !streq(format, "byte")) {
        VAL_EACH(val_get(js, "enum"), e)
            max = MAX(max, (int64_t)strlen(val_text(e, "")));
        return max;
    }
    return REQUEST_MAX - 2;
}

static const struct cel_type *type_of(struct arena *a, const struct val *js, bool resource, int depth);

static const struct cel_type *text_type(struct arena *a, const struct val *js)
{
    const char *format = val_str_at(js, "format", "");
    enum cel_kind kind = streq(format, "byte")                                     ? CEL_BYTES
                         : streq(format, "duration")                               ? CEL_DURATION
                         : streq(format, "date") || streq(format, "date-time") ? CEL_TIMESTAMP
                                                                                   : CEL_STRING;
    struct cel_type *t = cel_type_new(a, kind);

    t->date = streq(format, "date");
    t->max_elements = text_max(js);
    t->nullable = flag(js, "nullable");
    return t;
}

static const struct cel_type *object_type(struct arena *a, const struct val *js, bool resource, int depth)
{
    static const char *const words[] = {"apiVersion", "kind"};
    const struct val *props = val_get(js, "properties");
    struct cel_type *t = cel_type_new(a, CEL_OBJECT);
    struct cel_field *f = arena_array(a, struct cel_field, val_len(props) + 3);
    uint32_t n = 0;

    t->name = "object";
    t->nullable = flag(js, "nullable");
    if (resource || flag(js, "x-kubernetes-embedded-resource")) {
        struct cel_type *meta = cel_type_new(a, CEL_OBJECT);
        struct cel_field *mf = arena_array(a, struct cel_field, 2);
        meta->name = "object";
        mf[0] = (struct cel_field){"name", &cel_string_type};
        mf[1] = (struct cel_field){"generateName", &cel_string_type};
        meta->fields = mf;
        meta->fields_n = 2;
        for (uint32_t i = 0; i < ARRAY_LEN(words); i++)
            f[n++] = (struct cel_field){words[i], &cel_string_type};
        f[n++] = (struct cel_field){"metadata", meta};
    }
    uint32_t own = n;
    VAL_EACH_MEMBER(props, m) {
        bool taken = false;
        for (uint32_t i = 0; i < own; i++)
            taken |= streq(f[i].name, m->key);
        const struct cel_type *ft = taken ? NULL : type_of(a, &m->v, false, depth + 1);
        if (ft)
            f[n++] = (struct cel_field){m->key, ft};
    }
    t->fields = f;
    t->fields_n = n;
    return t;
}

/* NULL: nothing is known of it, rules cannot see it. */
static const struct cel_type *type_of(struct arena *a, const struct val *js, bool resource, int depth)
{
    const char *type = val_str_at(js, "type", ""), *kind = val_str_at(js, "x-kubernetes-list-type", "");
    const struct val *items = val_get(js, "items"), *more = val_get(js, "additionalProperties");
    const struct val *keys = val_get(js, "x-kubernetes-list-map-keys");
    struct cel_type *t;

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return NULL;
    if (flag(js, "x-kubernetes-int-or-string")) {
        t = cel_type_new(a, CEL_DYN);
        t->int_or_string = true;
        t->max_elements = REQUEST_MAX - 2;
        t->nullable = flag(js, "nullable");
        return t;
    }
    if (streq(type, "array")) {
        const struct cel_type *elem = type_of(a, items, false, depth + 1);
        if (!elem)
            return NULL;
        t = cel_type_list(a, elem);
        t->max_elements = limit_of(js, "maxItems");
        if (t->max_elements < 0)
            t->max_elements = (int64_t)((REQUEST_MAX - 2) / (min_size(items, depth + 1) + 1));
        t->list_type = streq(kind, "map") ? CEL_LIST_MAP : streq(kind, "set") ? CEL_LIST_SET : CEL_LIST_ATOMIC;
        if (t->list_type == CEL_LIST_MAP) {
            const char **w = arena_array(a, const char *, val_len(keys) + 1);
            VAL_EACH(keys, k)
                w[t->list_keys_n++] = val_text(k, "");
            t->list_keys = w;
        }
        t->nullable = flag(js, "nullable");
        return t;
    }
    if (streq(type, "object") && val_is(more, VAL_MAP)) {
        const struct cel_type *elem = type_of(a, more, false, depth + 1);
        if (!elem)
            return NULL;
        t = cel_type_map(a, &cel_string_type, elem);
        t->max_elements = limit_of(js, "maxProperties");
        if (t->max_elements < 0)
            t->max_elements = (int64_t)((REQUEST_MAX - 2) / (min_size(more, depth + 1) + 6));
        t->nullable = flag(js, "nullable");
        return t;
    }
    if (streq(type, "object"))
        return object_type(a, js, resource, depth);
    if (streq(type, "string"))
        return text_type(a, js);
    enum cel_kind scalar = streq(type, "integer") ? CEL_INT : streq(type, "number") ? CEL_DOUBLE
                           : streq(type, "boolean") ? CEL_BOOL : CEL_DYN;
    if (scalar == CEL_DYN)
        return NULL;
    t = cel_type_new(a, scalar);
    t->nullable = flag(js, "nullable");
    return t;
}

/* ---- the tree of rules ---- */

struct build {
    struct arena *a;
    struct check *c; /* NULL: causes are told nobody */
    uint32_t nodes;
    uint64_t total; /* estimated cost of all rules */
    struct {
        const char *path;
        uint64_t cost;
    } dear[4]; /* the most expensive ones, the dearest first */
};

static uint64_t times(uint64_t x, uint64_t y)
{
    uint64_t r;

    return __builtin_mul_overflow(x, y, &r) ? UINT64_MAX : r;
}

static uint64_t plus(uint64_t x, uint64_t y)
{
    uint64_t r;

    return __builtin_add_overflow(x, y, &r) ? UINT64_MAX : r;
}

static void observe(struct build *b, const char *rel, uint64_t cost)
{
    const char *path = check_path(b->c, "%s", rel);
    uint32_t at = 0, n = ARRAY_LEN(b->dear);

    b->total = plus(b->total, cost);
    if (cost < SCHEMA_COST_MAX / 100)
        return;
    while (at < n && b->dear[at].path && b->dear[at].cost >= cost)
        at++;
    if (at == n)
        return;
    memmove(&b->dear[at + 1], &b->dear[at], (n - at - 1) * sizeof(b->dear[0]));
    b->dear[at].path = path;
    b->dear[at].cost = cost;
}

static struct cel_env *env_of(const struct cel_type *self, bool optional, struct arena *a)
{
    struct cel_env *env = cel_env_new();
    const struct cel_type *old = self;

    if (optional) {
        struct cel_type *t = cel_type_new(a, CEL_OPTIONAL);
        t->elem = self;
        old = t;
    }
    cel_env_var(env, "self", self);
    cel_env_var(env, "oldSelf", old);
    return env;
}

/* The estimate, told when it is too much. many: how often the place may occur; 0: no bound is given. */
static void cost_check(struct build *b, const struct cel_prog *p, const struct val *js, uint64_t many, const char *rel)
{
    uint64_t places = many ? many : REQUEST_MAX / (min_size(js, 0) + 1);
    uint64_t cost = times(cel_prog_cost(p).max, places);

    if (cost > RULE_COST_MAX)
        check_fail(b->c, CAUSE_FORBIDDEN, rel, NULL,
                   "estimated rule cost exceeds budget (try simplifying the rule, or adding maxItems, maxProperties, "
                   "and maxLength where arrays, maps, and strings are declared)");
    observe(b, rel, cost);
}

/* One rule; false: it cannot be run. */
static bool rule_compile(struct build *b, struct node *n, const struct val *r, uint32_t i, struct rule_prog *ret,
                         uint64_t many, bool correlates)
{
    const struct val *opt = val_get(r, "optionalOldSelf");
    const char *text = val_str_at(r, "rule", ""), *message = val_str_at(r, "messageExpression", ""), *issues = NULL;
    const char *at = arena_printf(b->a, "x-kubernetes-validations[%u]", i);
    const char *rel = arena_printf(b->a, "%s.rule", at), *mrel = arena_printf(b->a, "%s.messageExpression", at);
    struct cel_env **env = val_is(opt, VAL_BOOL) && opt->b ? &n->optional_env : &n->env;

    ret->rule = r;
    ret->optional = env == &n->optional_env;
    if (!*env)
        *env = env_of(n->type, ret->optional, b->a);
    ret->prog = cel_compile(*env, text, strlen(text), b->a, &issues);
    if (ret->prog && cel_prog_type(ret->prog)->kind != CEL_BOOL) {
        ret->prog = cel_prog_free(ret->prog);
        issues = "cel expression must evaluate to a bool";
    }
    if (!ret->prog) {
        if (b->c)
            check_fail(b->c, CAUSE_INVALID, rel, r, "compilation failed: %s", issues);
        if (b->c && opt)
            check_fail(b->c, CAUSE_INVALID, arena_printf(b->a, "%s.optionalOldSelf", at), opt,
                       "may not be set if oldSelf is not used in rule");
        return false;
    }
    ret->transition = cel_prog_uses(ret->prog, 1);
    if (*message) {
        ret->message = cel_compile(*env, message, strlen(message), b->a, &issues);
        if (ret->message && cel_prog_type(ret->message)->kind != CEL_STRING) {
            ret->message = cel_prog_free(ret->message);
            issues = "messageExpression must evaluate to a string";
        }
    }
    if (!b->c)
        return true;
    cost_check(b, ret->prog, n->js, many, rel);
    if (*message && !ret->message)
        check_fail(b->c, CAUSE_INVALID, mrel, r, "messageExpression compilation failed: %s", issues);
    else if (ret->message)
        cost_check(b, ret->message, n->js, 1, mrel);
    if (ret->transition && !correlates)
        check_fail(b->c, CAUSE_INVALID, rel, val_get(r, "rule"), "oldSelf cannot be used on the uncorrelatable portion "
                   "of the schema");
    if (!ret->transition && opt)
        check_fail(b->c, CAUSE_INVALID, arena_printf(b->a, "%s.optionalOldSelf", at), opt,
                   "may not be set if oldSelf is not used in rule");
    return true;
}

static struct node *node_build(struct build *b, const struct val *js, uint64_t many, bool correlates, int depth);

static uint64_t more_places(uint64_t many, const struct val *js, const char *key)
{
    int64_t most = limit_of(js, key);

    return many && most >= 0 ? MAX(times(many, (uint64_t)most), 1u) : 0;
}

static void kids_build(struct build *b, struct node *n, uint64_t many, bool correlates, int depth)
{
    const struct val *js = n->js, *props = val_get(js, "properties");
    bool map = streq(val_str_at(js, "x-kubernetes-list-type", ""), "map");
    bool atomic = streq(val_str_at(js, "x-kubernetes-map-type", ""), "atomic");
    uint32_t mark;

    VAL_EACH_MEMBER(props, m) {
        mark = b->c ? check_push(b->c, ".properties[%s]", m->key) : 0;
        struct node *kid = node_build(b, &m->v, many, correlates && !atomic, depth + 1);
        if (b->c)
            check_pop(b->c, mark);
        if (!kid)
            continue;
        if (!n->kids)
            n->kids = arena_array(b->a, struct kid, val_len(props));
        n->kids[n->kids_n++] = (struct kid){m->key, kid};
    }
    mark = b->c ? check_push(b->c, ".items") : 0;
    n->items = node_build(b, val_get(js, "items"), more_places(many, js, "maxItems"), correlates && map, depth + 1);
    if (b->c) {
        check_pop(b->c, mark);
        mark = check_push(b->c, ".additionalProperties");
    }
    n->more = node_build(b, val_get(js, "additionalProperties"), more_places(many, js, "maxProperties"),
                         correlates && !atomic, depth + 1);
    if (b->c)
        check_pop(b->c, mark);
}

/* NULL: there is no rule here, nor below. */
static struct node *node_build(struct build *b, const struct val *js, uint64_t many, bool correlates, int depth)
{
    const struct val *rules = val_get(js, "x-kubernetes-validations");
    struct node *n;

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP) || b->nodes >= NODES_MAX)
        return NULL;
    n = arena_new_of(b->a, struct node);
    n->js = js;
    if (val_len(rules))
        n->type = type_of(b->a, js, depth == 0, depth);
    if (n->type) {
        b->nodes++;
        n->rules = arena_array(b->a, struct rule_prog, rules->n);
        for (uint32_t i = 0; i < rules->n; i++)
            if (rule_compile(b, n, &rules->items[i], i, &n->rules[n->rules_n], many, correlates))
                n->rules_n++;
            else
                n->rules[n->rules_n] = (struct rule_prog){0};
    }
    kids_build(b, n, many, correlates, depth);
    return n->env || n->optional_env || n->kids_n || n->items || n->more ? n : NULL;
}

static void node_done(struct node *n)
{
    if (!n)
        return;
    for (uint32_t i = 0; i < n->rules_n; i++) {
        cel_prog_free(n->rules[i].prog);
        cel_prog_free(n->rules[i].message);
    }
    for (uint32_t i = 0; i < n->kids_n; i++)
        node_done(n->kids[i].node);
    node_done(n->items);
    node_done(n->more);
    cel_env_free(n->env);
    cel_env_free(n->optional_env);
}

void crd_rules_check(struct check *c, const struct val *js)
{
    struct build b = {.a = c->a, .c = c};
    struct node *n = node_build(&b, js, 1, true, 0);

    node_done(n);
    if (b.total <= SCHEMA_COST_MAX)
        return;
    uint32_t mark = c->path_n;
    for (uint32_t i = 0; i < ARRAY_LEN(b.dear) && b.dear[i].path; i++)
        causes_add(c->causes, CAUSE_FORBIDDEN, b.dear[i].path, NULL,
                   "contributed to estimated rule & messageExpression cost total exceeding cost limit for entire OpenAPIv3 schema");
    check_fail(c, CAUSE_FORBIDDEN, "", NULL, "x-kubernetes-validations estimated rule & messageExpression cost total for "
               "entire OpenAPIv3 schema exceeds budget");
    check_pop(c, mark);
}

/* ---- judging an object ---- */

struct judge {
    struct check *c;
    uint64_t left; /* of the budget */
    bool over;
};

static int run(struct judge *j, const struct cel_prog *p, const struct cel_value vars[2], struct cel_value *ret,
               struct err *err)
{
    struct cel_run r = {.arena = j->c->a, .vars = vars, .vars_n = 2};
    int rc = cel_eval(p, &r, ret, err);

    j->left = r.cost > j->left ? 0 : j->left - r.cost;
    j->over |= j->left == 0;
    return rc;
}

static const char *message_of(struct judge *j, const struct rule_prog *r, const struct cel_value vars[2])
{
    const char *given = val_str_at(r->rule, "message", "");
    struct cel_value v;
    struct err err = {0};

    if (r->message && run(j, r->message, vars, &v, &err) == 0 && v.kind == CEL_STRING && v.n <= MESSAGE_MAX) {
        char *text = arena_strndup(j->c->a, v.s, v.n);
        if (text[strspn(text, " \t\r\n")] && !strpbrk(text, "\r\n"))
            return text;
    }
    return *given ? given : arena_printf(j->c->a, "failed rule: %s", val_str_at(r->rule, "rule", ""));
}

static enum cause_type cause_of(const struct val *rule)
{
    const char *reason = val_str_at(rule, "reason", "");

    return streq(reason, "FieldValueRequired")    ? CAUSE_REQUIRED
           : streq(reason, "FieldValueForbidden") ? CAUSE_FORBIDDEN
           : streq(reason, "FieldValueDuplicate") ? CAUSE_DUPLICATE
                                                  : CAUSE_INVALID;
}

/* What is wrong with the whole is told at no field at all, which upstream writes so. */
static void tell(struct judge *j, enum cause_type t, const char *below, const struct val *v, const char *text)
{
    const char *path = check_path(j->c, "%s", *below == '.' && !j->c->path_n ? below + 1 : "");

    if (*below && j->c->path_n)
        path = arena_printf(j->c->a, "%s%s", path, below);
    causes_add(j->c->causes, t, *path ? path : "<nil>", v, "%s", text);
}

static void one_rule(struct judge *j, const struct node *n, const struct rule_prog *r, const struct val *v,
                     const struct val *old)
{
    struct cel_value vars[2] = {cel_tree(j->c->a, v, n->type), {.kind = CEL_ERROR}}, was, out;
    struct err err = {0};

    if (r->transition && !old && !r->optional)
        return;
    if (!r->transition && old && val_equal(v, old)) /* what was there before may stay */
        return;
    if (old)
        was = cel_tree(j->c->a, old, n->type);
    if (r->optional)
        vars[1] = (struct cel_value){.kind = CEL_OPTIONAL, .some = old ? &was : NULL};
    else if (old)
        vars[1] = was;
    if (run(j, r->prog, vars, &out, &err) < 0) {
        tell(j, CAUSE_INVALID, "", v, arena_printf(j->c->a, "%s evaluating rule: %s", err.msg,
                                                   val_str_at(r->rule, "message", val_str_at(r->rule, "rule", ""))));
        return;
    }
    if (out.kind == CEL_BOOL && out.b)
        return;
    tell(j, cause_of(r->rule), val_str_at(r->rule, "fieldPath", ""), v, message_of(j, r, vars));
}

static const struct val *same_item(const struct val *js, const struct val *item, const struct val *old)
{
    const struct val *keys = val_get(js, "x-kubernetes-list-map-keys");

    if (!streq(val_str_at(js, "x-kubernetes-list-type", ""), "map"))
        return NULL;
    VAL_EACH(old, o) {
        bool same = true;
        VAL_EACH(keys, k) {
            const struct val *x = val_get(item, val_text(k, "")), *y = val_get(o, val_text(k, ""));
            same &= x && y && val_equal(x, y);
        }
        if (same)
            return o;
    }
    return NULL;
}

const struct val *crd_same_item(const struct val *js, const struct val *item, const struct val *old)
{
    return same_item(js, item, old);
}

static void judge(struct judge *j, const struct node *n, const struct val *v, const struct val *old)
{
    if (!v || v->type == VAL_NULL)
        return;
    for (uint32_t i = 0; i < n->rules_n && !j->over; i++)
        one_rule(j, n, &n->rules[i], v, old);
    for (uint32_t i = 0; i < n->kids_n && !j->over && v->type == VAL_MAP; i++) {
        const char *name = n->kids[i].name;
        const struct val *kid = val_get(v, name);
        if (!kid)
            continue;
        uint32_t mark = check_push(j->c, "%s%s", j->c->path_n ? "." : "", name);
        judge(j, n->kids[i].node, kid, val_get(old, name));
        check_pop(j->c, mark);
    }
    for (uint32_t i = 0; n->items && i < val_items_n_(v) && !j->over; i++) {
        uint32_t mark = check_push(j->c, "[%u]", i);
        judge(j, n->items, &v->items[i], same_item(n->js, &v->items[i], old));
        check_pop(j->c, mark);
    }
    if (n->more && v->type == VAL_MAP)
        VAL_EACH_MEMBER(v, m) {
            if (val_getn(val_get(n->js, "properties"), m->key, m->n) || j->over)
                continue;
            uint32_t mark = check_push(j->c, "[%s]", m->key);
            judge(j, n->more, &m->v, val_getn(old, m->key, m->n));
            check_pop(j->c, mark);
        }
}

static struct node *rules_of(const struct resource *r)
{
    struct crd_made *made = crd_made(r);
    struct build b = {.a = made->arena};

    if (!made->rules_made)
        made->rules = node_build(&b, made->type->json, 1, true, 0);
    made->rules_made = true;
    return made->rules;
}

bool crd_rules_any(const struct resource *r)
{
    return rules_of(r) != NULL;
}

void crd_rules_judge(struct check *c, const struct resource *r, const struct val *v, const struct val *old)
{
    struct node *top = rules_of(r);
    struct judge j = {.c = c, .left = RUN_COST_MAX};

    if (!top)
        return;
    judge(&j, top, v, old);
    if (j.over)
        tell(&j, CAUSE_INVALID, "", NULL, "validation failed due to running out of cost budget, no further validation "
             "rules will be run");
}

void crd_rules_free(struct crd_made *made)
{
    node_done(made->rules);
    made->rules = NULL;
}
