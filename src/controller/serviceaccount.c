/* Every live namespace has a ServiceAccount "default". */
#include "controller/ctl.h"

static enum again serviceaccount_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", key);
    struct val *v;

    if (!ns || obj_deleting(ns) || ctl_get(ctl, K_SERVICEACCOUNT, key, "default"))
        return DONE;
    v = val_map(ctl->arena);
    val_put_str(ctl->arena, val_need_map(ctl->arena, v, "metadata"), "name", "default");
    if (!ctl_create(ctl, K_SERVICEACCOUNT, key, v, err) && err->code != ERR_ALREADY_EXISTS)
        return RETRY;
    return DONE;
}

static void serviceaccount_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                                   const struct obj *now)
{
    if (kind == K_NAMESPACE && now)
        ctl_want_key(ctl, now->name);
    else if (kind == K_SERVICEACCOUNT && !now && streq(was->name, "default"))
        ctl_want_key(ctl, was->namespace_);
}

extern const struct controller serviceaccount_controller;
const struct controller serviceaccount_controller = {
    .name = "serviceaccount",
    .component = "service-account-controller",
    .reconcile = serviceaccount_reconcile,
    .changed = serviceaccount_changed,
    .kinds = KIND_BIT(K_NAMESPACE) | KIND_BIT(K_SERVICEACCOUNT),
};
