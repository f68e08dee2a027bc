/* Type checks of ValidatingAdmissionPolicies: what their expressions get wrong about the kinds they are for.
 *
 * A policy works whatever is found here; its author reads it in status.typeChecking. Each policy is looked at
 * once a generation, for the kinds that its rules name without a star. */
#include <stdlib.h>

#include "controller/ctl_int.h"
#include "schema/admitexpr.h"
#include "schema/celtype.h"

enum { TYPES_MAX = 10 };

static bool starred(const struct val *list)
{
    VAL_EACH(list, it)
        if (strchr(val_text(it, ""), '*'))
            return true;
    return false;
}

static int by_kind(const void *x, const void *y)
{
    const struct resource *a = *(const struct resource *const *)x, *b = *(const struct resource *const *)y;
    int r = strcmp(a->group, b->group);

    r = r ? r : strcmp(a->version, b->version);
    return r ? r : strcmp(a->kind, b->kind);
}

static void add_type(const struct resource **v, uint32_t *n, const struct resource *r)
{
    for (uint32_t i = 0; i < *n; i++)
        if (v[i] == r)
            return;
    if (*n < TYPES_MAX)
        v[(*n)++] = r;
}

static uint32_t types_of(const struct schema *schema, const struct val *spec, const struct resource **v)
{
    uint32_t n = 0;

    VAL_EACH(val_at(spec, "matchConstraints.resourceRules"), rule) {
        const struct val *groups = val_get(rule, "apiGroups"), *versions = val_get(rule, "apiVersions");

        if (starred(groups) || starred(versions))
            continue;
        VAL_EACH(groups, g)
            VAL_EACH(versions, ver)
                VAL_EACH(val_get(rule, "resources"), res) {
                    const char *plural = val_text(res, "");
                    const struct resource *r = strpbrk(plural, "*/")
                                                   ? NULL : schema_resource(schema, val_text(g, ""), val_text(ver, ""), plural);

                    if (r)
                        add_type(v, &n, r);
                }
    }
    qsort(v, n, sizeof(v[0]), by_kind);
    return n;
}

/* What an expression gets wrong about the kinds, or NULL. */
static const char *issues(struct ctl *ctl, const struct val *spec, const struct resource **types, uint32_t n,
                          const char *text)
{
    const struct schema *schema = ctl->all->opts.schema;
    const struct val *kind = val_get(spec, "paramKind");
    const struct resource *p = kind ? schema_kind_of(schema, val_str_at(kind, "apiVersion", ""),
                                                     val_str_at(kind, "kind", "")) : NULL;
    const char *all = NULL;

    for (uint32_t i = 0; i < n; i++) {
        const struct expr *e;
        _auto_(exprs_freep) struct exprs *x = exprs_checking(kind != NULL, schema_cel_type(ctl->arena, resource_type(types[i])),
                                                             p ? schema_cel_type(ctl->arena, resource_type(p)) : NULL);

        VAL_EACH(val_get(spec, "variables"), v)
            exprs_add(x, EXPR_VARIABLE, val_str_at(v, "name", ""), val_str_at(v, "expression", ""));
        e = exprs_add(x, EXPR_VALIDATION, "", text);
        if (e->why)
            all = arena_printf(ctl->arena, "%s%s%s/%s, Kind=%s: %s\n", all ? all : "", all ? "\n" : "", types[i]->group,
                               types[i]->version, types[i]->kind, e->why);
    }
    return all;
}

static void check(struct ctl *ctl, struct val *warnings, const struct val *spec, const struct resource **types,
                  uint32_t n, uint32_t i, const char *key, const char *text)
{
    const char *said = *text ? issues(ctl, spec, types, n, text) : NULL;
    struct val *w;

    if (!said)
        return;
    w = val_map(ctl->arena);
    val_put(ctl->arena, w, "fieldRef", val_printf(ctl->arena, "spec.validations[%u].%s", i, key));
    val_put_str(ctl->arena, w, "warning", said);
    val_push(ctl->arena, warnings, w);
}

static enum again policystatus_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *o = ctl_get_key(ctl, K_POLICY, key);
    const struct val *spec = o ? val_get(obj_val(o), "spec") : NULL;
    const struct resource *types[TYPES_MAX];
    struct val *v, *status, *warnings;
    uint32_t n, i = 0;

    if (!o || !ctl->all->opts.schema ||
        val_int_at(obj_val(o), "metadata.generation", 0) <= val_int_at(obj_val(o), "status.observedGeneration", 0))
        return DONE;
    warnings = val_list(ctl->arena);
    n = types_of(ctl->all->opts.schema, spec, types);
    VAL_EACH(val_get(spec, "validations"), one) {
        check(ctl, warnings, spec, types, n, i, "expression", val_str_at(one, "expression", ""));
        check(ctl, warnings, spec, types, n, i, "messageExpression", val_str_at(one, "messageExpression", ""));
        i++;
    }
    v = obj_edit(o, ctl->arena);
    status = val_need_map(ctl->arena, v, "status");
    val_put_int(ctl->arena, status, "observedGeneration", val_int_at(obj_val(o), "metadata.generation", 0));
    status = val_need_map(ctl->arena, status, "typeChecking");
    if (val_len(warnings))
        val_put(ctl->arena, status, "expressionWarnings", warnings);
    else
        val_del(status, "expressionWarnings");
    return ctl_update_status(ctl, K_POLICY, o, v, err) < 0 ? RETRY : DONE;
}

static void policystatus_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    (void)kind;
    (void)was;
    ctl_want_obj(ctl, now);
}

extern const struct controller policystatus_controller;
const struct controller policystatus_controller = {
    .name = "policystatus",
    .component = "validatingadmissionpolicy-status-controller",
    .reconcile = policystatus_reconcile,
    .changed = policystatus_changed,
    .kinds = KIND_BIT(K_POLICY),
};
