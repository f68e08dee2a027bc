/* The rules of a ClusterRole with an aggregationRule are those of all roles that its selectors choose,
 * in the order of their names, each once. */
#include "codec/selector.h"
#include "controller/ctl.h"

static bool chosen(const struct val *selectors, const struct obj *o)
{
    VAL_EACH(selectors, sel)
        if (selector_matches(sel, val_get(obj_meta(o), "labels")))
            return true;
    return false;
}

static bool holds(const struct val *rules, const struct val *rule)
{
    VAL_EACH(rules, it)
        if (val_equal(it, rule))
            return true;
    return false;
}

static enum again clusterroles_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *role = ctl_get(ctl, K_CLUSTERROLE, "", key);
    const struct val *selectors = role ? val_at(obj_val(role), "aggregationRule.clusterRoleSelectors") : NULL;
    struct val *rules = val_list(ctl->arena), *v;
    struct objs all;

    if (!role || obj_deleting(role) || !val_get(obj_val(role), "aggregationRule"))
        return DONE;
    all = ctl_list(ctl, K_CLUSTERROLE, NULL);
    for (uint32_t i = 0; i < all.n; i++) {
        if (streq(all.v[i]->name, role->name) || !chosen(selectors, all.v[i]))
            continue;
        VAL_EACH(val_get(obj_val(all.v[i]), "rules"), rule)
            if (!holds(rules, rule))
                val_push(ctl->arena, rules, rule);
    }
    if (!val_len(rules) && !val_len(val_get(obj_val(role), "rules")))
        return DONE;
    if (val_equal(rules, val_get(obj_val(role), "rules")))
        return DONE;
    v = obj_edit(role, ctl->arena);
    val_put(ctl->arena, v, "rules", rules);
    return ctl_update(ctl, K_CLUSTERROLE, v, err) ? DONE : RETRY;
}

/* Any role may be chosen by any other one; those that gather are few. */
static void clusterroles_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    struct objs all;

    (void)was;
    if (now && val_get(obj_val(now), "aggregationRule"))
        ctl_want_key(ctl, now->name);
    all = ctl_list(ctl, kind, NULL);
    for (uint32_t i = 0; i < all.n; i++) {
        const struct val *selectors = val_at(obj_val(all.v[i]), "aggregationRule.clusterRoleSelectors");

        if (selectors && ((now && chosen(selectors, now)) || (was && chosen(selectors, was))))
            ctl_want_key(ctl, all.v[i]->name);
    }
}

extern const struct controller clusterroles_controller;
const struct controller clusterroles_controller = {
    .name = "clusterroles",
    .component = "clusterrole-aggregation-controller",
    .reconcile = clusterroles_reconcile,
    .changed = clusterroles_changed,
    .kinds = KIND_BIT(K_CLUSTERROLE),
};
