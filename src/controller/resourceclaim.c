/* Resource claims of pods: a claim is made of each template that a pod names, the pod's status says
 * which, and when the pod is done the claim is free again or goes with it.
 *
 * Keys: NAMESPACE/NAME of a pod; !NAMESPACE/NAME of a claim. Who allocates devices is the scheduler's
 * business (scheduler/devices.c). */
#include <stdio.h>

#include "controller/ctl.h"
#include "controller/pods.h"

#define FINALIZER "resource.kubernetes.io/delete-protection"
#define POD_CLAIM "resource.kubernetes.io/pod-claim-name"

enum { BASE_MAX = 57 };

static bool done(const struct obj *pod)
{
    return pod_finished(pod) || (obj_deleting(pod) && !*pod_node(pod));
}

/* ---- of pods ---- */

static const char *noted(const struct obj *pod, const char *name)
{
    VAL_EACH(val_at(obj_val(pod), "status.resourceClaimStatuses"), s)
        if (streq(val_str_at(s, "name", ""), name))
            return val_str_at(s, "resourceClaimName", "");
    return "";
}

/* The claim that was made for this one of the pod's, or NULL. */
static const struct obj *made_for(struct ctl *ctl, const struct obj *pod, const char *name)
{
    struct objs all = ctl_owned(ctl, K_CLAIM, pod->uid);

    for (uint32_t i = 0; i < all.n; i++)
        if (streq0(obj_annotation(all.v[i], POD_CLAIM), name) && !obj_deleting(all.v[i]))
            return all.v[i];
    return NULL;
}

static const struct obj *make(struct ctl *ctl, const struct obj *pod, const char *name, const char *template,
                              struct err *err)
{
    struct arena *a = ctl->arena;
    const struct obj *t = ctl_get(ctl, K_CLAIMTEMPLATE, pod->namespace_, template);
    size_t all = strlen(pod->name) + strlen(name) + 2, pod_n = strlen(pod->name), name_n = strlen(name);
    const struct val *labels, *notes;
    struct val *v, *meta, *ref;

    if (!t) {
        err_set(err, NOT_FOUND, "resource claim template \"%s\": resourceclaimtemplate.resource.k8s.io \"%s\" not found", template, template);
        return NULL;
    }
    if (all > BASE_MAX) { /* both parts are cut, in proportion */
        pod_n = pod_n * BASE_MAX / all;
        name_n = name_n * BASE_MAX / all;
    }
    v = val_map(a);
    meta = val_put(a, v, "metadata", val_map(a));
    val_put(a, meta, "generateName", val_printf(a, "%.*s-%.*s-", (int)pod_n, pod->name, (int)name_n, name));
    labels = val_at(obj_val(t), "spec.metadata.labels");
    notes = val_at(obj_val(t), "spec.metadata.annotations");
    if (labels)
        val_put(a, meta, "labels", val_copy(a, labels));
    if (notes)
        val_put(a, meta, "annotations", val_copy(a, notes));
    val_put_str(a, val_need_map(a, meta, "annotations"), POD_CLAIM, name);
    ref = owner_reference(a, K_POD, pod);
    val_del(ref, "blockOwnerDeletion");
    val_push(a, val_need_list(a, meta, "ownerReferences"), ref);
    val_put(a, v, "spec", val_copy(a, val_at(obj_val(t), "spec.spec")));
    return ctl_create(ctl, K_CLAIM, pod->namespace_, v, err);
}

/* The pod has its node: what it uses must not be given to others meanwhile. */
static int reserve(struct ctl *ctl, const struct obj *pod, const char *claim_name, struct err *err)
{
    const struct obj *claim = ctl_get(ctl, K_CLAIM, pod->namespace_, claim_name);
    struct arena *a = ctl->arena;
    struct val *v, *ref;

    if (!claim || !val_is(val_at(obj_val(claim), "status.allocation"), VAL_MAP))
        return 0;
    VAL_EACH(val_at(obj_val(claim), "status.reservedFor"), r)
        if (streq(val_str_at(r, "uid", ""), pod->uid))
            return 0;
    v = obj_edit(claim, a);
    ref = val_map(a);
    val_put_str(a, ref, "resource", "pods");
    val_put_str(a, ref, "name", pod->name);
    val_put_str(a, ref, "uid", pod->uid);
    val_push(a, val_need_list(a, val_need_map(a, v, "status"), "reservedFor"), ref);
    return ctl_update_status(ctl, K_CLAIM, claim, v, err);
}

static int look_at_pod(struct ctl *ctl, const struct obj *pod, struct err *err)
{
    struct arena *a = ctl->arena;
    struct val *list = val_list(a), *v;
    bool any = false;

    VAL_EACH(val_at(obj_val(pod), "spec.resourceClaims"), c) {
        const char *name = val_str_at(c, "name", ""), *direct = val_str_at(c, "resourceClaimName", "");
        const char *template = val_str_at(c, "resourceClaimTemplateName", "");
        const struct obj *claim;
        struct val *s;

        if (*template) {
            claim = *noted(pod, name) ? ctl_get(ctl, K_CLAIM, pod->namespace_, noted(pod, name)) : NULL;
            if (!claim && !(claim = made_for(ctl, pod, name)) && !(claim = make(ctl, pod, name, template, err))) {
                ctl_event(ctl, pod, "Warning", "FailedResourceClaimCreation", "PodResourceClaim %s: %s", name, err->msg);
                return -1;
            }
            s = val_push(a, list, val_map(a));
            val_put_str(a, s, "name", name);
            val_put_str(a, s, "resourceClaimName", claim->name);
            any |= !streq(noted(pod, name), claim->name);
            direct = claim->name;
        }
        if (*pod_node(pod) && *direct && reserve(ctl, pod, direct, err) < 0)
            return -1;
    }
    if (!any)
        return 0;
    pod = ctl_get(ctl, K_POD, pod->namespace_, pod->name);
    if (!pod)
        return 0;
    v = obj_edit(pod, a);
    val_put(a, val_need_map(a, v, "status"), "resourceClaimStatuses", list);
    return ctl_update_status(ctl, K_POD, pod, v, err);
}

/* ---- of claims ---- */

static bool still_used(struct ctl *ctl, const struct obj *claim, const struct val *ref)
{
    const struct obj *pod;

    if (*val_str_at(ref, "apiGroup", "") || !streq(val_str_at(ref, "resource", ""), "pods"))
        return true; /* nobody we know */
    pod = ctl_get(ctl, K_POD, claim->namespace_, val_str_at(ref, "name", ""));
    return pod && streq(pod->uid, val_str_at(ref, "uid", "")) && !done(pod);
}

static int free_claim(struct ctl *ctl, const struct obj *claim, struct err *err)
{
    struct val *v = obj_edit(claim, ctl->arena), *status = val_need_map(ctl->arena, v, "status");
    struct val *list = val_get(status, "reservedFor");
    uint32_t was = val_len(list);

    for (uint32_t i = was; i-- > 0;)
        if (!still_used(ctl, claim, &list->items[i]))
            val_remove(list, i);
    if (val_len(list) == was && !(obj_deleting(claim) && !was))
        return 0;
    if (!val_len(list)) {
        val_del(status, "reservedFor");
        val_del(status, "allocation");
        val_del(status, "devices");
    }
    if (ctl_update_status(ctl, K_CLAIM, claim, v, err) < 0)
        return -1;
    if (val_len(list) || !obj_has_finalizer(claim, FINALIZER))
        return 0;
    claim = ctl_get(ctl, K_CLAIM, claim->namespace_, claim->name);
    return !claim || ctl_finalizer(ctl, K_CLAIM, claim, FINALIZER, false, err) ? 0 : -1;
}

static enum again look_at_claim(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *claim = ctl_get_key(ctl, K_CLAIM, key), *pod;
    const struct val *owner;

    if (!claim)
        return DONE;
    if (free_claim(ctl, claim, err) < 0)
        return RETRY;
    claim = ctl_get_key(ctl, K_CLAIM, key);
    owner = claim ? obj_controller(claim) : NULL;
    if (!owner || obj_deleting(claim) || val_len(val_at(obj_val(claim), "status.reservedFor")) ||
        !streq(val_str_at(owner, "kind", ""), "Pod"))
        return DONE;
    pod = ctl_get(ctl, K_POD, claim->namespace_, val_str_at(owner, "name", ""));
    if (!pod || (streq(pod->uid, val_str_at(owner, "uid", "")) && !done(pod)))
        return DONE; /* a pod that is gone is the collector's business */
    return ctl_delete(ctl, K_CLAIM, claim, NULL, -1, err) < 0 ? RETRY : DONE;
}

static enum again resourceclaim_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *pod;

    if (*key == '!')
        return look_at_claim(ctl, key + 1, err);
    pod = ctl_get_key(ctl, K_POD, key);
    if (!pod || obj_deleting(pod) || pod_finished(pod))
        return DONE;
    return look_at_pod(ctl, pod, err) < 0 ? RETRY : DONE;
}

static void want_claim(struct ctl *ctl, const char *ns, const char *name)
{
    char key[CLIENT_KEY_BYTES + 1] = "!";

    if (!*name)
        return;
    client_key_of(ns, name, key + 1);
    ctl_want_key(ctl, key);
}

static void resourceclaim_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    const struct obj *o = now ? now : was;
    struct objs pods;

    if (kind == K_CLAIM) {
        want_claim(ctl, o->namespace_, o->name);
        ctl_want_controller_of(ctl, o, K_POD);
    } else if (kind == K_CLAIMTEMPLATE) {
        pods = ctl_list(ctl, K_POD, o->namespace_);
        for (uint32_t i = 0; i < pods.n; i++)
            if (val_at(obj_val(pods.v[i]), "spec.resourceClaims"))
                ctl_want_obj(ctl, pods.v[i]);
    } else if (val_at(obj_val(o), "spec.resourceClaims")) {
        ctl_want_obj(ctl, o);
        if (!now || done(now))
            VAL_EACH(val_at(obj_val(o), "spec.resourceClaims"), c) {
                want_claim(ctl, o->namespace_, val_str_at(c, "resourceClaimName", ""));
                want_claim(ctl, o->namespace_, noted(o, val_str_at(c, "name", "")));
            }
    }
}

extern const struct controller resourceclaim_controller;
const struct controller resourceclaim_controller = {
    .name = "resourceclaim",
    .component = "resource_claim",
    .reconcile = resourceclaim_reconcile,
    .changed = resourceclaim_changed,
    .kinds = KIND_BIT(K_CLAIM) | KIND_BIT(K_CLAIMTEMPLATE) | KIND_BIT(K_POD),
};
