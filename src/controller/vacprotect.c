/* VolumeAttributesClasses stay while a claim or a volume names them: their finalizer comes off when
 * they are being deleted and nobody does. (It is put on when they are made, and again here for those
 * that somebody took it from.) */
#include "controller/ctl.h"
#include "controller/pods.h"

#define PROTECTION "kubernetes.io/vac-protection"

static bool names(const struct obj *o, const char *name)
{
    static const char *const places[] = {"spec.volumeAttributesClassName", "status.currentVolumeAttributesClassName",
                                         "status.modifyVolumeStatus.targetVolumeAttributesClassName"};

    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (streq(obj_str(o, places[i], ""), name))
            return true;
    return false;
}

static bool in_use(struct ctl *ctl, const char *name)
{
    static const enum kind kinds[] = {K_PVC, K_PV};

    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct objs all = ctl_list(ctl, kinds[k], NULL);

        for (uint32_t i = 0; i < all.n; i++)
            if (names(all.v[i], name))
                return true;
    }
    return false;
}

static enum again vacprotect_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *vac = ctl_get(ctl, K_VAC, "", key);

    if (!vac)
        return DONE;
    if (!obj_deleting(vac))
        return ctl_finalizer(ctl, K_VAC, vac, PROTECTION, true, err) ? DONE : RETRY;
    if (!obj_has_finalizer(vac, PROTECTION) || in_use(ctl, key))
        return DONE;
    return ctl_finalizer(ctl, K_VAC, vac, PROTECTION, false, err) ? DONE : RETRY;
}

static void vacprotect_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    if (kind == K_VAC)
        ctl_want_obj(ctl, now);
    else if (was && ctl_count(ctl, K_VAC)) /* one that was named may be free now */
        ctl_want_all(ctl, K_VAC, NULL);
}

extern const struct controller vacprotect_controller;
const struct controller vacprotect_controller = {
    .name = "vacprotect",
    .component = "volumeattributesclass-protection-controller",
    .reconcile = vacprotect_reconcile,
    .changed = vacprotect_changed,
    .kinds = KIND_BIT(K_VAC) | KIND_BIT(K_PVC) | KIND_BIT(K_PV),
};
