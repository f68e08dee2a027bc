/* schema/validate.c - walks an object beside its old self by its type, and runs the rules that the
 * kinds files give fields and structs; hooks in rules_*.c say what data can not.
 *
 * Lists of structs with keys are walked item by item; old items are paired by position only for
 * rules that compare (immutable), which the files use on single fields. */
#include "schema/schema_int.h"

#include <stdarg.h>
#include <stdio.h>

void validate_metadata(struct check *c, const struct val *v, const struct val *old);

uint32_t check_push(struct check *c, const char *fmt, ...)
{
    uint32_t mark = c->path_n;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(c->path + mark, sizeof(c->path) - mark, fmt, ap);
    va_end(ap);
    c->path_n = n < 0 || mark + (uint32_t)n >= sizeof(c->path) ? (uint32_t)sizeof(c->path) - 1
                                                               : mark + (uint32_t)n;
    return mark;
}

void check_pop(struct check *c, uint32_t mark)
{
    c->path_n = mark;
    c->path[mark] = 0;
}

const char *check_path(struct check *c, const char *fmt, ...)
{
    char rel[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(rel, sizeof(rel), fmt, ap);
    va_end(ap);
    bool dot = c->path_n && *rel && *rel != '[';
    return arena_printf(c->a, "%s%s%s", c->path, dot ? "." : "", rel);
}

void check_fail(struct check *c, enum cause_type t, const char *rel, const struct val *bad,
                const char *fmt, ...)
{
    bool dot = c->path_n && *rel && *rel != '[';
    _auto_(buf_done) struct buf msg = {0};
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&msg, fmt, ap);
    va_end(ap);
    causes_add(c->causes, t, arena_printf(c->a, "%s%s%s", c->path, dot ? "." : "", rel), bad,
               "%s", msg.p ? msg.p : "");
}

static bool is_empty(const struct val *v)
{
    return val_is_null(v) || (v->type == VAL_STR && v->n == 0) ||
           (v->type == VAL_LIST && v->n == 0) ||
           (v->type == VAL_MAP && v->n == 0);
}

/* The words of "supported values: ..." */
static const char *supported(struct check *c, const struct rule *r)
{
    _auto_(buf_done) struct buf b = {0};

    buf_adds(&b, "supported values: ");
    for (uint32_t i = 0; i < r->words_n; i++)
        buf_printf(&b, "%s\"%s\"", i ? ", " : "", r->words[i]);
    return arena_strndup(c->a, b.p, b.n);
}

static bool among(const struct rule *r, const char *s)
{
    for (uint32_t i = 0; i < r->words_n; i++)
        if (streq(r->words[i], s))
            return true;
    return false;
}

static void check_text(struct check *c, const struct rule *r, const char *rel, const struct val *v)
{
    const struct named_check *named = r->fn;

    if (!val_is(v, VAL_STR))
        return;
    const char *why[4];
    uint32_t n = name_whys(named->fn, v->s, why);
    for (uint32_t i = 0; i < n; i++)
        check_fail(c, CAUSE_INVALID, rel, v, "%s", why[i]);
}

static void check_unique(struct check *c, const struct rule *r, const char *name,
                         const struct val *list)
{
    const char *key = r->words_n ? r->words[0] : NULL;
    struct map seen = {0};

    for (uint32_t i = 0; i < val_len(list); i++) {
        const struct val *it = &list->items[i];
        const struct val *v = key ? val_get(it, key) : it;
        if (!val_is(v, VAL_STR) || !v->n)
            continue;
        if (map_put(&seen, v->s, (void *)(uintptr_t)v))
            check_fail(c, CAUSE_DUPLICATE,
                       arena_printf(c->a, "%s[%u]%s%s", name, i, key ? "." : "", key ? key : ""),
                       v, "%s", "");
    }
    map_done(&seen);
}

static void check_range(struct check *c, const struct rule *r, const char *name,
                        const struct val *v)
{
    if (val_is(v, VAL_LIST)) {
        for (uint32_t i = 0; i < v->n; i++)
            check_range(c, r, arena_printf(c->a, "%s[%u]", name, i), &v->items[i]);
        return;
    }
    double have = val_num(v);

    if (!val_is_number(v))
        return;
    if (r->op == RULE_MIN && have < (double)r->num)
        check_fail(c, CAUSE_INVALID, name, v, "must be greater than or equal to %lld",
                   (long long)r->num);
    if (r->op == RULE_MAX && have > (double)r->num)
        check_fail(c, CAUSE_INVALID, name, v, "must be less than or equal to %lld",
                   (long long)r->num);
}

/* What causes call the field; NULL: by its name, with indexes. */
static const char *told_as(const struct field *f)
{
    for (const struct rule *r = f->rules; r; r = r->next)
        if (r->op == RULE_TOLD)
            return r->words[0];
    return NULL;
}

/* false: nothing more is to be said about this field */
static bool field_rule(struct check *c, const struct rule *r, const struct field *f,
                       const struct val *v, const struct val *old)
{
    const char *told = told_as(f), *name = told ? told : f->name;

    switch (r->op) {
    case RULE_NEED:
        if (!is_empty(v) || (val_is(v, VAL_MAP) && (f->flags & FIELD_PTR)) ||
            ((f->type->kind == TYPE_RAW || f->type->kind == TYPE_ANY) && !val_is_null(v)))
            return true;
        check_fail(c, CAUSE_REQUIRED, name, NULL, "%s", "");
        return false;
    case RULE_NEED_NUM:
        if (val_is_number(v) && (v->type != VAL_INT || v->i))
            return true;
        check_fail(c, CAUSE_REQUIRED, name, NULL, "%s", "");
        return false;
    case RULE_NEED_KEY:
        if (!val_is_null(v))
            return true;
        check_fail(c, CAUSE_REQUIRED, name, NULL, "%s", "");
        return false;
    case RULE_ONE_OF:
        if (val_is(v, VAL_STR) ? (v->n || (f->flags & FIELD_PTR) || r->num) && !among(r, v->s)
                               : r->num != 0) { /* oneof0: the empty text is none of them */
            check_fail(c, CAUSE_NOT_SUPPORTED, name, v, "%s", supported(c, r));
            return false;
        }
        return true;
    case RULE_EACH_ONE_OF:
        for (uint32_t i = 0; i < val_items_n_(v); i++)
            if (val_is(&v->items[i], VAL_STR) && !among(r, v->items[i].s))
                check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s[%u]", name, i),
                           &v->items[i], "%s", supported(c, r));
        return true;
    case RULE_CHECK:
        if (val_is(v, VAL_STR) && (v->n || r->num == 2)) /* check-given: the empty text was given */
            check_text(c, r, name, v);
        else if (r->num == 1 && is_empty(v)) /* check0: the empty text is looked at, too */
            check_text(c, r, name, &(struct val){.type = VAL_STR, .s = ""});
        return true;
    case RULE_EACH:
        for (uint32_t i = 0; i < val_items_n_(v); i++)
            check_text(c, r, told ? told : arena_printf(c->a, "%s[%u]", name, i), &v->items[i]);
        return true;
    case RULE_MIN:
    case RULE_MAX:
        check_range(c, r, name, v);
        return true;
    case RULE_MAX_LEN:
        if (v && (v->type == VAL_STR || v->type == VAL_LIST) && (int64_t)v->n > r->num)
            check_fail(c, v->type == VAL_STR ? CAUSE_TOO_LONG : CAUSE_TOO_MANY, name, NULL,
                       "may not be more than %lld %s", (long long)r->num,
                       v->type == VAL_STR ? "bytes" : "items");
        return true;
    case RULE_UNIQUE:
        check_unique(c, r, name, v);
        return true;
    case RULE_IMMUTABLE:
        if (c->old_root && old && !val_equal(v ? v : &(struct val){0},
                                             val_get(old, name) ? val_get(old, name)
                                                                : &(struct val){0}))
            check_fail(c, CAUSE_INVALID, name, v, "field is immutable");
        return true;
    case RULE_FORBID:
        if (!is_empty(v) || (v && v->type == VAL_MAP))
            check_fail(c, CAUSE_FORBIDDEN, name, NULL, "may not be set");
        return true;
    case RULE_SKIP:
        return false;
    case RULE_SKIP_UPDATE:
        return !c->old_root;
    default:
        return true;
    }
}

static void fields_exclusive(struct check *c, const struct rule *r, const struct val *v)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->words_n; i++)
        if (!val_is_null(val_get(v, r->words[i])) && n++)
            check_fail(c, CAUSE_FORBIDDEN, r->words[i], NULL,
                       "may not specify more than one of these");
    if (!n && r->op == RULE_ONE_FIELD)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "must specify one of these");
}

static void validate_value(struct check *c, const struct type *t, const struct val *v,
                           const struct val *old, bool indexed)
{
    if (t->kind == TYPE_STRUCT) {
        if (v->type == VAL_MAP)
            validate_struct(c, t, v, val_is(old, VAL_MAP) ? old : NULL);
    } else if (t->kind == TYPE_LIST && t->elem->kind == TYPE_STRUCT) {
        for (uint32_t i = 0; i < val_items_n_(v); i++) {
            uint32_t mark = indexed ? check_push(c, "[%u]", i) : c->path_n;
            validate_value(c, t->elem, &v->items[i],
                           i < val_items_n_(old) ? &old->items[i] : NULL, true);
            check_pop(c, mark);
        }
    } else if (t->kind == TYPE_MAP && t->elem->kind == TYPE_STRUCT) {
        VAL_EACH_MEMBER(v, m) {
            uint32_t mark = check_push(c, "[%s]", m->key);
            validate_value(c, t->elem, &m->v, val_getn(old, m->key, m->n), true);
            check_pop(c, mark);
        }
    }
}

static bool part_of_write(const struct check *c, const struct field *f)
{
    if (c->path_n) /* only the root is split */
        return true;
    if (streq(f->name, "metadata"))
        return false; /* validated apart */
    if (streq(c->sub, "status"))
        return streq(f->name, "status");
    return !streq(f->name, "status") || !c->r || !c->r->has_status;
}

void validate_struct(struct check *c, const struct type *t, const struct val *v,
                     const struct val *old)
{
    for (uint32_t i = 0; i < t->fields_n; i++) {
        const struct field *f = &t->fields[i];
        if (!f->rules && f->type->kind < TYPE_LIST)
            continue;
        if (!part_of_write(c, f))
            continue;
        const struct val *fv = val_getn(v, f->name, f->name_n);
        bool go_on = true;
        for (const struct rule *r = f->rules; r; r = r->next)
            if (go_on || r->op == RULE_IMMUTABLE)
                go_on &= field_rule(c, r, f, fv, old);
        if (!go_on || val_is_null(fv) || f->type->kind < TYPE_LIST)
            continue;
        const char *told = told_as(f);
        bool here = told && streq(told, ".");
        uint32_t mark = here ? c->path_n
                             : check_push(c, "%s%s", c->path_n ? "." : "", told ? told : f->name);
        validate_value(c, f->type, fv, val_getn(old, f->name, f->name_n), !told);
        check_pop(c, mark);
    }
    for (const struct rule *r = t->rules; r; r = r->next) {
        if (r->op == RULE_HOOK)
            ((validate_hook_fn *)(uintptr_t)r->fn)(c, v, old);
        else if (r->op == RULE_ONE_FIELD || r->op == RULE_MOST_ONE_FIELD)
            fields_exclusive(c, r, v);
    }
}

void schema_validate(const struct resource *r, const char *sub, const struct val *v,
                     const struct val *old, struct causes *causes)
{
    struct check c = {.causes = causes, .a = causes->a, .r = r, .sub = sub, .root = v,
                      .old_root = old};

    validate_metadata(&c, v, old);
    if (r->custom)
        crd_validate(r, sub, v, old, causes);
    else {
        if (old && r->priv->twice && !*sub) {
            struct check once = c;
            once.old_root = NULL;
            validate_struct(&once, r->described, v, NULL);
        }
        validate_struct(&c, r->described, v, old);
    }
}
