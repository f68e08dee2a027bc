/* apiserver/policies_check.c - what is wrong with the expressions of a policy or a webhook configuration that
 * is about to be written: each one is compiled as it will be run. The other rules of these kinds are data and
 * schema/rules_admission.c. */
#include "apiserver/policies.h"

enum { VALUE_EXPRESSION_MAX = 5 * 1024 };

struct checking {
    struct call *c;
    struct causes *causes;
};

static bool blank(const char *s)
{
    return !s[strspn(s, " \t\r\n\v\f")];
}

static void add_if_wrong(struct checking *k, const struct expr *e, const char *field)
{
    if (e->why)
        causes_add(k->causes, CAUSE_INVALID, arena_strdup(k->c->a, field), val_str(k->c->a, e->text), "%s",
                   arena_strdup(k->c->a, e->why));
}

/* Compiles what is at key of each item; what is missing there is told by the schema. */
static void check_list(struct checking *k, struct exprs *x, enum expr_use use, const struct val *list,
                       const char *path, const char *key)
{
    uint32_t i = 0;

    VAL_EACH(list, it) {
        const char *text = val_str_at(it, key, "");

        if (!blank(text))
            add_if_wrong(k, exprs_add(x, use, val_str_at(it, "name", ""), text),
                         arena_printf(k->c->a, "%s[%u].%s", path, i, key));
        i++;
    }
}

/* Conditions stand alone: they see no variables. Those that were there before are not judged again. */
static void check_conditions(struct checking *k, bool params, const struct val *list, const struct val *was,
                             const char *path)
{
    if (!val_len(list) || (was && val_equal(list, was)))
        return;
    _auto_(exprs_freep) struct exprs *x = exprs_new(params, false);
    check_list(k, x, EXPR_MATCH, list, path, "expression");
}

static void check_validating(struct checking *k, const struct val *spec)
{
    bool params = val_get(spec, "paramKind") != NULL;
    _auto_(exprs_freep) struct exprs *x = exprs_new(params, val_len(val_get(spec, "variables")) > 0);
    const struct val *list = val_get(spec, "validations");

    check_list(k, x, EXPR_VARIABLE, val_get(spec, "variables"), "spec.variables", "expression");
    check_list(k, x, EXPR_VALIDATION, list, "spec.validations", "expression");
    check_list(k, x, EXPR_MESSAGE, list, "spec.validations", "messageExpression");
    check_list(k, x, EXPR_AUDIT, val_get(spec, "auditAnnotations"), "spec.auditAnnotations", "valueExpression");
}

static void check_mutating(struct checking *k, const struct val *spec)
{
    _auto_(exprs_freep) struct exprs *x = exprs_new(val_get(spec, "paramKind") != NULL, true);
    uint32_t i = 0;

    check_list(k, x, EXPR_VARIABLE, val_get(spec, "variables"), "spec.variables", "expression");
    VAL_EACH(val_get(spec, "mutations"), m) {
        bool patch = streq(val_str_at(m, "patchType", ""), "JSONPatch");
        const char *key = patch ? "jsonPatch" : "applyConfiguration";
        const char *text = val_str_at(val_get(m, key), "expression", "");

        if (!blank(text))
            add_if_wrong(k, exprs_add(x, patch ? EXPR_JSONPATCH : EXPR_APPLY, "", text),
                         arena_printf(k->c->a, "spec.mutations[%u].%s.expression", i, key));
        i++;
    }
}

void policies_check(struct call *c, const struct val *v, const struct val *old, struct causes *causes)
{
    struct checking k = {c, causes};
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");
    bool validating = streq(c->stored->kind, "ValidatingAdmissionPolicy");
    uint32_t i = 0;

    if (!streq(c->stored->group, "admissionregistration.k8s.io") || (c->sub && streq(c->sub->name, "status")))
        return;
    VAL_EACH(val_get(v, "webhooks"), w) {
        const struct val *before = val_get(old, "webhooks");

        check_conditions(&k, false, val_get(w, "matchConditions"),
                         i < val_len(before) ? val_get(&before->items[i], "matchConditions") : NULL,
                         arena_printf(c->a, "webhooks[%u].matchConditions", i));
        i++;
    }
    if (!validating && !streq(c->stored->kind, "MutatingAdmissionPolicy"))
        return;
    check_conditions(&k, val_get(spec, "paramKind") != NULL, val_get(spec, "matchConditions"),
                     val_get(was, "matchConditions"), "spec.matchConditions");
    if (was && val_equal(spec, was))
        return;
    if (validating)
        check_validating(&k, spec);
    else
        check_mutating(&k, spec);
}
