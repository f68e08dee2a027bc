/* Volume binder: every claim gets a volume, every volume knows its claim, and what nobody claims
 * any more is reclaimed as its policy says.
 *
 * Claims of a class with provisioner tandem.dev get a PersistentVolume over a Volume of ours
 * (spec.csi {driver tandem.dev, volumeHandle NAME}): a new one named after the claim, or the one
 * that the annotation tandem.dev/volume names. A Volume that was named by a person is never deleted
 * here: whoever named it may hold pictures in it that outlive the claim.
 *
 * A binding is four writes (volume spec, volume status, claim spec, claim status), any of which
 * may be the last before a crash: each pass looks at what is there and writes the next one.
 * Keys: "c/NAMESPACE/NAME" for a claim, "v/NAME" for a volume, "class" for the StorageClass. */
#include <stdio.h>

#include "codec/quantity.h"
#include "codec/selector.h"
#include "controller/claims.h"
#include "controller/ctl.h"
#include "controller/pods.h"

#define DRIVER "tandem.dev"
#define CLASS "tandem-shared"
#define CHOOSE "tandem.dev/volume"
#define KEPT "tandem.dev/kept" /* in volumeAttributes: the Volume outlives the PersistentVolume */
#define BY_CONTROLLER "pv.kubernetes.io/bound-by-controller"
#define COMPLETED "pv.kubernetes.io/bind-completed"
#define PROVISIONED_BY "pv.kubernetes.io/provisioned-by"
#define PROVISIONER "volume.kubernetes.io/storage-provisioner"
#define SELECTED_NODE "volume.kubernetes.io/selected-node"
#define DEFAULT_CLASS "storageclass.kubernetes.io/is-default-class"
#define PVC_PROTECTION "kubernetes.io/pvc-protection"
#define PV_PROTECTION "kubernetes.io/pv-protection"

static void want_claim(struct ctl *ctl, const char *ns, const char *name)
{
    char key[CLIENT_KEY_BYTES + 2];

    snprintf(key, sizeof key, "c/%s/%s", ns, name);
    ctl_want_key(ctl, key);
}

static void want_volume(struct ctl *ctl, const char *name)
{
    char key[CLIENT_KEY_BYTES + 2];

    snprintf(key, sizeof key, "v/%s", name);
    ctl_want_key(ctl, key);
}

/* ---- the class ---- */

static int make_class(struct ctl *ctl, struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *v, *meta;

    if (ctl_get(ctl, K_STORAGECLASS, "", CLASS))
        return 0;
    v = val_map(a);
    meta = val_need_map(a, v, "metadata");
    val_put_str(a, meta, "name", CLASS);
    val_put_str(a, val_need_map(a, meta, "annotations"), DEFAULT_CLASS, "true");
    val_put_str(a, v, "provisioner", DRIVER);
    val_put_str(a, v, "reclaimPolicy", "Delete");
    val_put_str(a, v, "volumeBindingMode", "Immediate");
    val_put_bool(a, v, "allowVolumeExpansion", true);
    if (!ctl_create(ctl, K_STORAGECLASS, "", v, err) && err->code != ERR_ALREADY_EXISTS)
        return -1;
    return 0;
}

static const char *default_class(struct ctl *ctl)
{
    struct objs all = ctl_list(ctl, K_STORAGECLASS, NULL);
    const struct obj *best = NULL;

    for (uint32_t i = 0; i < all.n; i++)
        if (streq0(obj_annotation(all.v[i], DEFAULT_CLASS), "true") &&
            (!best || obj_created_ms(all.v[i]) > obj_created_ms(best)))
            best = all.v[i];
    return best ? best->name : NULL;
}

/* ---- binding ---- */

static struct val *claim_ref(struct arena *a, const struct obj *pvc)
{
    struct val *ref = val_map(a);

    val_put_str(a, ref, "apiVersion", "v1");
    val_put_str(a, ref, "kind", "PersistentVolumeClaim");
    val_put_str(a, ref, "namespace", pvc->namespace_);
    val_put_str(a, ref, "name", pvc->name);
    val_put_str(a, ref, "uid", pvc->uid);
    val_put(a, ref, "resourceVersion", val_printf(a, "%lld", (long long)pvc->revision));
    return ref;
}

static int volume_phase(struct ctl *ctl, const struct obj *pv, const char *phase, const char *reason,
                        const char *message, struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *v, *status;

    if (!pv || streq(obj_str(pv, "status.phase", ""), phase))
        return 0;
    v = obj_edit(pv, a);
    status = val_need_map(a, v, "status");
    val_put_str(a, status, "phase", phase);
    val_put_str(a, status, "lastPhaseTransitionTime", ctl_time(ctl));
    val_del(status, "reason");
    val_del(status, "message");
    if (reason)
        val_put_str(a, status, "reason", reason);
    if (message)
        val_put_str(a, status, "message", message);
    return ctl_update_status(ctl, K_PV, pv, v, err);
}

static int bind_volume(struct ctl *ctl, const struct obj *pv, const struct obj *pvc, struct err *err)
{
    struct arena *a = ctl->arena;

    if (!streq(obj_str(pv, "spec.claimRef.uid", ""), pvc->uid)) {
        struct val *v = obj_edit(pv, a);

        if (!val_at(v, "spec.claimRef"))
            val_put_str(a, val_need_map(a, val_get(v, "metadata"), "annotations"), BY_CONTROLLER, "yes");
        val_put(a, val_get(v, "spec"), "claimRef", claim_ref(a, pvc));
        pv = ctl_update(ctl, K_PV, v, err);
        if (!pv)
            return -1;
    }
    return volume_phase(ctl, pv, "Bound", NULL, NULL, err);
}

static int bind_claim(struct ctl *ctl, const struct obj *pv, const struct obj *pvc, struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *v, *status;

    if (!streq(obj_str(pvc, "spec.volumeName", ""), pv->name) || !obj_annotation(pvc, COMPLETED)) {
        struct val *notes;

        v = obj_edit(pvc, a);
        notes = val_need_map(a, val_get(v, "metadata"), "annotations");
        if (!streq(val_str_at(v, "spec.volumeName", ""), pv->name))
            val_put_str(a, notes, BY_CONTROLLER, "yes");
        val_put_str(a, notes, COMPLETED, "yes");
        val_put_str(a, val_get(v, "spec"), "volumeName", pv->name);
        pvc = ctl_update(ctl, K_PVC, v, err);
        if (!pvc)
            return -1;
    }
    v = obj_edit(pvc, a);
    status = val_need_map(a, v, "status");
    if (!streq(val_str_at(status, "phase", ""), "Bound") && val_at(obj_val(pv), "spec.volumeAttributesClassName"))
        val_put(a, status, "currentVolumeAttributesClassName", val_at(obj_val(pv), "spec.volumeAttributesClassName"));
    val_put_str(a, status, "phase", "Bound");
    val_put(a, status, "accessModes", val_at(obj_val(pv), "spec.accessModes"));
    val_put(a, status, "capacity", val_at(obj_val(pv), "spec.capacity"));
    return ctl_update_status(ctl, K_PVC, pvc, v, err);
}

static int bind(struct ctl *ctl, const struct obj *pv, const struct obj *pvc, struct err *err)
{
    if (bind_volume(ctl, pv, pvc, err) < 0)
        return -1;
    pv = ctl_get(ctl, K_PV, "", pv->name);
    return pv ? bind_claim(ctl, pv, pvc, err) : err_set(err, CONFLICT, "the volume is gone");
}

static int claim_phase(struct ctl *ctl, const struct obj *pvc, const char *phase, struct err *err)
{
    struct val *v;

    if (streq(obj_str(pvc, "status.phase", ""), phase))
        return 0;
    v = obj_edit(pvc, ctl->arena);
    val_put_str(ctl->arena, val_need_map(ctl->arena, v, "status"), "phase", phase);
    return ctl_update_status(ctl, K_PVC, pvc, v, err);
}

/* ---- provisioning ---- */

static int make_shared(struct ctl *ctl, const char *name, bool chosen, const struct obj *pvc,
                       struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *v, *meta;

    if (ctl_get(ctl, K_VOLUME, "", name))
        return 0;
    v = val_map(a);
    meta = val_need_map(a, v, "metadata");
    val_put_str(a, meta, "name", name);
    if (!chosen)
        val_put_str(a, val_need_map(a, meta, "annotations"), "tandem.dev/claim",
                    arena_printf(a, "%s/%s", pvc->namespace_, pvc->name));
    val_put(a, val_need_map(a, v, "spec"), "capacity",
            val_at(obj_val(pvc), "spec.resources.requests.storage"));
    if (!ctl_create(ctl, K_VOLUME, "", v, err) && err->code != ERR_ALREADY_EXISTS)
        return -1;
    return 0;
}

static struct val *build_volume(struct ctl *ctl, const struct obj *pvc, const struct obj *class,
                                const char *pv_name, const char *shared, bool kept)
{
    struct arena *a = ctl->arena;
    const struct val *want = val_get(obj_val(pvc), "spec");
    struct val *v = val_map(a), *meta = val_need_map(a, v, "metadata"), *spec, *csi;

    val_put_str(a, meta, "name", pv_name);
    val_put_str(a, val_need_map(a, meta, "annotations"), PROVISIONED_BY, DRIVER);
    spec = val_need_map(a, v, "spec");
    val_put(a, spec, "accessModes", val_get(want, "accessModes"));
    val_put(a, spec, "capacity", val_map(a));
    val_put(a, val_get(spec, "capacity"), "storage", val_at(want, "resources.requests.storage"));
    val_put(a, spec, "claimRef", claim_ref(a, pvc));
    csi = val_need_map(a, spec, "csi");
    val_put_str(a, csi, "driver", DRIVER);
    val_put_str(a, csi, "volumeHandle", shared);
    if (kept)
        val_put_str(a, val_need_map(a, csi, "volumeAttributes"), KEPT, "true");
    if (val_len(val_get(obj_val(class), "mountOptions")))
        val_put(a, spec, "mountOptions", val_get(obj_val(class), "mountOptions"));
    val_put_str(a, spec, "persistentVolumeReclaimPolicy",
                val_str_at(obj_val(class), "reclaimPolicy", "Delete"));
    val_put_str(a, spec, "storageClassName", class->name);
    val_put_str(a, spec, "volumeMode", "Filesystem");
    return v;
}

static int provision(struct ctl *ctl, const struct obj *pvc, const struct obj *class, struct err *err)
{
    struct arena *a = ctl->arena;
    const char *pv_name = arena_printf(a, "pvc-%s", pvc->uid);
    const char *chosen = obj_annotation(pvc, CHOOSE);
    const char *shared = str_empty(chosen) ? pv_name : chosen;
    const struct obj *pv = ctl_get(ctl, K_PV, "", pv_name);

    if (!streq(volume_mode(val_get(obj_val(pvc), "spec")), "Filesystem")) {
        ctl_event(ctl, pvc, "Warning", "ProvisioningFailed",
                  "class %s makes file systems, not volumes of mode Block", class->name);
        return claim_phase(ctl, pvc, "Pending", err);
    }
    if (val_at(obj_val(pvc), "spec.selector")) {
        ctl_event(ctl, pvc, "Warning", "ProvisioningFailed",
                  "claim.spec.selector is not supported for dynamic provisioning");
        return claim_phase(ctl, pvc, "Pending", err);
    }
    if (!pv) {
        if (make_shared(ctl, shared, !str_empty(chosen), pvc, err) < 0) {
            ctl_event(ctl, pvc, "Warning", "ProvisioningFailed",
                      "failed to make Volume \"%s\": %s", shared, err->msg);
            return -1;
        }
        pv = ctl_create(ctl, K_PV, "",
                        build_volume(ctl, pvc, class, pv_name, shared, !str_empty(chosen)), err);
        if (!pv)
            return -1;
        ctl_event(ctl, pvc, "Normal", "ProvisioningSucceeded", "Successfully provisioned volume %s",
                  pv_name);
    }
    return bind(ctl, pv, pvc, err);
}

/* ---- claims ---- */

/* The scheduler chose a node for the first consumer: only what can be reached from there. */
static struct objs reachable(struct ctl *ctl, const struct obj *pvc)
{
    const char *chosen = obj_annotation(pvc, SELECTED_NODE);
    const struct obj *node = chosen ? ctl_get(ctl, K_NODE, "", chosen) : NULL;
    struct objs pvs = ctl_list(ctl, K_PV, NULL), near = {0};

    for (uint32_t i = 0; node && i < pvs.n; i++)
        if (node_selector_matches(val_at(obj_val(pvs.v[i]), "spec.nodeAffinity.required"),
                                  val_get(obj_meta(node), "labels"), node->name))
            objs_add(ctl->arena, &near, pvs.v[i]);
    return node ? near : pvs;
}

static int find_volume(struct ctl *ctl, const struct obj *pvc, struct err *err)
{
    const char *class_name = obj_str(pvc, "spec.storageClassName", "");
    struct objs pvs = reachable(ctl, pvc);
    const struct obj *pv = volume_choose(pvs.v, pvs.n, pvc), *class;
    const char *provisioner;
    bool waits;

    class = *class_name ? ctl_get(ctl, K_STORAGECLASS, "", class_name) : NULL;
    waits = class && streq(obj_str(class, "volumeBindingMode", ""), "WaitForFirstConsumer") &&
            !obj_annotation(pvc, SELECTED_NODE);
    if (pv && (!waits || volume_is_for(pv, pvc)))
        return bind(ctl, pv, pvc, err);
    if (waits) {
        ctl_event(ctl, pvc, "Normal", "WaitForFirstConsumer",
                  "waiting for first consumer to be created before binding");
        return claim_phase(ctl, pvc, "Pending", err);
    }
    if (!class) {
        if (*class_name)
            ctl_event(ctl, pvc, "Warning", "ProvisioningFailed",
                      "storageclass.storage.k8s.io \"%s\" not found", class_name);
        else
            ctl_event(ctl, pvc, "Normal", "FailedBinding",
                      "no persistent volumes available for this claim and no storage class is set");
        return claim_phase(ctl, pvc, "Pending", err);
    }
    provisioner = obj_str(class, "provisioner", "");
    if (streq(provisioner, DRIVER))
        return provision(ctl, pvc, class, err);
    if (streq(provisioner, "kubernetes.io/no-provisioner")) {
        ctl_event(ctl, pvc, "Normal", "FailedBinding",
                  "no persistent volumes available for this claim and no storage class is set");
    } else {
        if (!streq0(obj_annotation(pvc, PROVISIONER), provisioner)) {
            struct val *v = obj_edit(pvc, ctl->arena);

            val_put_str(ctl->arena, val_need_map(ctl->arena, val_get(v, "metadata"), "annotations"),
                        PROVISIONER, provisioner);
            pvc = ctl_update(ctl, K_PVC, v, err);
            if (!pvc)
                return -1;
        }
        ctl_event(ctl, pvc, "Normal", "ExternalProvisioning",
                  "Waiting for a volume to be created either by the external provisioner '%s' or "
                  "manually by the system administrator. If volume creation is delayed, please "
                  "verify that the provisioner is running and correctly registered.", provisioner);
    }
    return claim_phase(ctl, pvc, "Pending", err);
}

static bool in_use(struct ctl *ctl, const struct obj *pvc)
{
    struct objs pods = ctl_list(ctl, K_POD, pvc->namespace_);

    for (uint32_t i = 0; i < pods.n; i++) {
        if (pod_finished(pods.v[i]))
            continue;
        VAL_EACH(val_at(obj_val(pods.v[i]), "spec.volumes"), v)
            if (streq(val_str_at(v, "persistentVolumeClaim.claimName", ""), pvc->name))
                return true;
    }
    return false;
}

/* The claim asks for more than it has: one of ours has room as the disk has. */
static int grow(struct ctl *ctl, const struct obj *pvc, const struct obj *pv, struct err *err)
{
    const struct val *want = val_at(obj_val(pvc), "spec.resources.requests.storage");
    struct val *v;

    if (!streq(obj_str(pv, "spec.csi.driver", ""), DRIVER) ||
        quantity_of(want) <= quantity_of(val_at(obj_val(pv), "spec.capacity.storage")))
        return 0;
    v = obj_edit(pv, ctl->arena);
    val_put(ctl->arena, val_at(v, "spec.capacity"), "storage", want);
    if (!ctl_update(ctl, K_PV, v, err))
        return -1;
    return bind_claim(ctl, ctl_get(ctl, K_PV, "", pv->name), pvc, err);
}

static int sync_claim(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *pvc = ctl_get_key(ctl, K_PVC, key), *pv;
    const char *name;

    if (!pvc)
        return 0;
    if (obj_deleting(pvc)) {
        if (obj_has_finalizer(pvc, PVC_PROTECTION) && !in_use(ctl, pvc) &&
            !ctl_finalizer(ctl, K_PVC, pvc, PVC_PROTECTION, false, err))
            return -1;
        return 0;
    }
    name = obj_str(pvc, "spec.volumeName", "");
    if (!*name && !val_at(obj_val(pvc), "spec.storageClassName") && default_class(ctl)) {
        struct val *v = obj_edit(pvc, ctl->arena); /* made before there was a default class */

        val_put_str(ctl->arena, val_get(v, "spec"), "storageClassName", default_class(ctl));
        pvc = ctl_update(ctl, K_PVC, v, err);
        if (!pvc)
            return -1;
    }
    if (!*name)
        return find_volume(ctl, pvc, err);
    pv = ctl_get(ctl, K_PV, "", name);
    if (!pv || (val_at(obj_val(pv), "spec.claimRef") && !volume_is_for(pv, pvc))) {
        if (!obj_annotation(pvc, COMPLETED))
            return claim_phase(ctl, pvc, "Pending", err); /* it asks for one that is not there yet */
        if (!streq(obj_str(pvc, "status.phase", ""), "Lost"))
            ctl_event(ctl, pvc, "Warning", pv ? "ClaimMisbound" : "ClaimLost", pv
                      ? "Two claims are bound to the same volume, this one is bound incorrectly"
                      : "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
        return claim_phase(ctl, pvc, "Lost", err);
    }
    if (bind(ctl, pv, pvc, err) < 0)
        return -1;
    pv = ctl_get(ctl, K_PV, "", name);
    pvc = ctl_get_key(ctl, K_PVC, key);
    return pv && pvc ? grow(ctl, pvc, pv, err) : 0;
}

/* ---- volumes ---- */

static int reclaim(struct ctl *ctl, const struct obj *pv, struct err *err)
{
    const char *policy = obj_str(pv, "spec.persistentVolumeReclaimPolicy", "Retain");
    const struct obj *shared;

    if (streq(policy, "Recycle")) {
        ctl_event(ctl, pv, "Warning", "VolumeFailedRecycle", "Recycling is not supported");
        return volume_phase(ctl, pv, "Failed", "VolumeFailedRecycle", "Recycling is not supported", err);
    }
    if (!streq(policy, "Delete") || !streq(obj_str(pv, "spec.csi.driver", ""), DRIVER))
        return 0;
    shared = ctl_get(ctl, K_VOLUME, "", obj_str(pv, "spec.csi.volumeHandle", ""));
    if (shared && !val_at(obj_val(pv), "spec.csi.volumeAttributes") &&
        ctl_delete(ctl, K_VOLUME, shared, NULL, -1, err) < 0)
        return -1;
    return ctl_delete(ctl, K_PV, pv, NULL, -1, err);
}

static int sync_volume(struct ctl *ctl, const char *name, struct err *err)
{
    const struct obj *pv = ctl_get(ctl, K_PV, "", name), *pvc;
    const struct val *ref;

    if (!pv)
        return 0;
    ref = val_at(obj_val(pv), "spec.claimRef");
    if (obj_deleting(pv)) {
        pvc = ref ? ctl_get(ctl, K_PVC, val_str_at(ref, "namespace", ""), val_str_at(ref, "name", ""))
                  : NULL;
        if (obj_has_finalizer(pv, PV_PROTECTION) && !(pvc && volume_is_for(pv, pvc)) &&
            !ctl_finalizer(ctl, K_PV, pv, PV_PROTECTION, false, err))
            return -1;
        return 0;
    }
    if (!ref || !*val_str_at(ref, "uid", "")) {
        if (ref)
            want_claim(ctl, val_str_at(ref, "namespace", ""), val_str_at(ref, "name", ""));
        return volume_phase(ctl, pv, "Available", NULL, NULL, err);
    }
    pvc = ctl_get(ctl, K_PVC, val_str_at(ref, "namespace", ""), val_str_at(ref, "name", ""));
    if (pvc && streq(pvc->uid, val_str_at(ref, "uid", ""))) {
        const char *bound = obj_str(pvc, "spec.volumeName", "");

        if (*bound && !streq(bound, pv->name)) { /* it took another one: this is free again */
            struct val *v = obj_edit(pv, ctl->arena);

            if (streq0(obj_annotation(pv, PROVISIONED_BY), DRIVER))
                return reclaim(ctl, pv, err);
            val_del(val_get(v, "spec"), "claimRef");
            return ctl_update(ctl, K_PV, v, err) ? 0 : -1;
        }
        want_claim(ctl, pvc->namespace_, pvc->name);
        return 0;
    }
    if (volume_phase(ctl, pv, "Released", NULL, NULL, err) < 0)
        return -1;
    pv = ctl_get(ctl, K_PV, "", name);
    return pv ? reclaim(ctl, pv, err) : 0;
}

/* ---- keys ---- */

static enum again volumebind_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    int done;

    if (key[0] == 'v')
        done = sync_volume(ctl, key + 2, err);
    else if (str_starts(key, "c/"))
        done = sync_claim(ctl, key + 2, err);
    else
        done = make_class(ctl, err);
    return done < 0 ? RETRY : DONE;
}

static void want_pending(struct ctl *ctl)
{
    struct objs all = ctl_list(ctl, K_PVC, NULL);

    for (uint32_t i = 0; i < all.n; i++)
        if (!streq(obj_str(all.v[i], "status.phase", ""), "Bound"))
            want_claim(ctl, all.v[i]->namespace_, all.v[i]->name);
}

static void pod_changed(struct ctl *ctl, const struct obj *was, const struct obj *now)
{
    const struct obj *pod = now ? now : was;

    if (now && !pod_finished(now) && was)
        return; /* it does not end here: nothing is set free */
    VAL_EACH(val_at(obj_val(pod), "spec.volumes"), v) {
        const char *name = val_str_at(v, "persistentVolumeClaim.claimName", "");
        const struct obj *pvc = *name ? ctl_get(ctl, K_PVC, pod->namespace_, name) : NULL;

        if (pvc && (obj_deleting(pvc) || !now))
            want_claim(ctl, pvc->namespace_, pvc->name);
    }
}

static void volumebind_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                               const struct obj *now)
{
    const struct obj *o = now ? now : was;

    if (kind == K_POD) {
        pod_changed(ctl, was, now);
    } else if (kind == K_PVC) {
        const char *volume = obj_str(o, "spec.volumeName", "");
        const struct obj *made;

        want_claim(ctl, o->namespace_, o->name);
        if (*volume)
            want_volume(ctl, volume);
        made = now ? NULL : ctl_get(ctl, K_PV, "", arena_printf(ctl->arena, "pvc-%s", o->uid));
        if (made)
            want_volume(ctl, made->name);
    } else if (kind == K_PV) {
        const struct val *ref = val_at(obj_val(o), "spec.claimRef");

        want_volume(ctl, o->name);
        if (ref)
            want_claim(ctl, val_str_at(ref, "namespace", ""), val_str_at(ref, "name", ""));
        if (now && !ref)
            want_pending(ctl);
    } else if (kind == K_STORAGECLASS) {
        if (!now)
            ctl_want_key(ctl, "class");
        want_pending(ctl);
    }
}

static void volumebind_start(struct ctl *ctl)
{
    ctl_want_key(ctl, "class");
}

extern const struct controller volumebind_controller;
const struct controller volumebind_controller = {
    .name = "volumebind",
    .component = "persistentvolume-controller",
    .reconcile = volumebind_reconcile,
    .changed = volumebind_changed,
    .kinds = KIND_BIT(K_PVC) | KIND_BIT(K_PV) | KIND_BIT(K_STORAGECLASS) | KIND_BIT(K_POD),
    .start = volumebind_start,
};
