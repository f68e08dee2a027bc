#include "controller/claims.h"

#include "codec/quantity.h"
#include "codec/selector.h"

const char *volume_mode(const struct val *spec)
{
    return val_str_at(spec, "volumeMode", "Filesystem");
}

bool access_modes_cover(const struct val *have, const struct val *want)
{
    VAL_EACH(want, w) {
        bool found = false;

        VAL_EACH(have, h)
            found |= streq(val_text(h, "h"), val_text(w, "w"));
        if (!found)
            return false;
    }
    return true;
}

bool volume_is_for(const struct obj *pv, const struct obj *pvc)
{
    const struct val *ref = val_at(obj_val(pv), "spec.claimRef");
    const char *uid = val_str_at(ref, "uid", "");

    return ref && streq(val_str_at(ref, "name", ""), pvc->name) &&
           streq(val_str_at(ref, "namespace", ""), pvc->namespace_) &&
           (!*uid || streq(uid, pvc->uid));
}

bool volume_fits(const struct obj *pv, const struct obj *pvc)
{
    const struct val *have = val_get(obj_val(pv), "spec"), *want = val_get(obj_val(pvc), "spec");
    const char *phase = val_str_at(obj_val(pv), "status.phase", "Available");

    if (obj_deleting(pv) || streq(phase, "Released") || streq(phase, "Failed"))
        return false;
    if (val_get(have, "claimRef") && !volume_is_for(pv, pvc))
        return false;
    if (!streq(volume_mode(have), volume_mode(want)) ||
        quantity_of(val_at(have, "capacity.storage")) <
            quantity_of(val_at(want, "resources.requests.storage")) ||
        !access_modes_cover(val_get(have, "accessModes"), val_get(want, "accessModes")))
        return false;
    if (volume_is_for(pv, pvc))
        return true; /* reserved by hand: class and labels are the admin's business */
    return streq(val_str_at(have, "storageClassName", ""), val_str_at(want, "storageClassName", "")) &&
           (!val_get(want, "selector") ||
            selector_matches(val_get(want, "selector"), val_get(obj_meta(pv), "labels")));
}

const struct obj *volume_choose(const struct obj *const *pvs, uint32_t n, const struct obj *pvc)
{
    const struct obj *best = NULL;

    for (uint32_t i = 0; i < n; i++) {
        if (!volume_fits(pvs[i], pvc))
            continue;
        if (volume_is_for(pvs[i], pvc))
            return pvs[i];
        if (!best || quantity_of(val_at(obj_val(pvs[i]), "spec.capacity.storage")) <
                         quantity_of(val_at(obj_val(best), "spec.capacity.storage")))
            best = pvs[i];
    }
    return best;
}
