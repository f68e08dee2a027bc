/* Every live namespace has the ConfigMap kube-root-ca.crt: what pods check the API server with. */
#include "controller/ctl_int.h"

#define NAME "kube-root-ca.crt"

static enum again rootca_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", key), *cm;
    const char *ca = ctl->all->opts.ca_pem;
    struct arena *a = ctl->arena;
    struct val *v, *data;

    if (!ca || !ns || obj_deleting(ns))
        return DONE;
    cm = ctl_get(ctl, K_CONFIGMAP, key, NAME);
    if (cm && streq0(val_text(val_get(val_get(obj_val(cm), "data"), "ca.crt"), NULL), ca) &&
        val_len(val_get(obj_val(cm), "data")) == 1)
        return DONE;
    v = cm ? obj_edit(cm, a) : val_map(a);
    val_put_str(a, val_need_map(a, v, "metadata"), "name", NAME);
    val_put_str(a, val_need_map(a, val_get(v, "metadata"), "annotations"), "kubernetes.io/description",
                "Contains a CA bundle that can be used to verify the kube-apiserver when using "
                "internal endpoints such as the internal service IP or kubernetes.default.svc. "
                "No other usage is guaranteed across distributions of Kubernetes clusters.");
    data = val_map(a);
    val_put_str(a, data, "ca.crt", ca);
    val_put(a, v, "data", data);
    if (cm ? !ctl_update(ctl, K_CONFIGMAP, v, err) : !ctl_create(ctl, K_CONFIGMAP, key, v, err))
        return err->code == ERR_ALREADY_EXISTS ? AGAIN : RETRY;
    return DONE;
}

static void rootca_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                           const struct obj *now)
{
    if (kind == K_NAMESPACE && now)
        ctl_want_key(ctl, now->name);
    else if (kind == K_CONFIGMAP && streq((now ? now : was)->name, NAME))
        ctl_want_key(ctl, (now ? now : was)->namespace_);
}

extern const struct controller rootca_controller;
const struct controller rootca_controller = {
    .name = "rootca",
    .component = "root-ca-cert-publisher",
    .reconcile = rootca_reconcile,
    .changed = rootca_changed,
    .kinds = KIND_BIT(K_NAMESPACE) | KIND_BIT(K_CONFIGMAP),
};
