/* schema/quota.h - what an object uses of a ResourceQuota: the arithmetic that admission (which
 * charges) and the quota controller (which counts anew) share.
 *
 * A quota's spec.hard names amounts. Which of the names one kind uses, and how much, is said here:
 *   pods           pods, cpu, memory, ephemeral-storage, requests.*, limits.*, hugepages-*,
 *                  requests.EXTENDED, count/pods; scopes
 *   services       services, services.nodeports, services.loadbalancers, count/services
 *   claims         persistentvolumeclaims, requests.storage, CLASS.storageclass.storage.k8s.io/...;
 *                  the scope VolumeAttributesClass
 *   resourceclaims count/..., CLASS.deviceclass.resource.k8s.io/devices, requests.EXTENDED
 *   all others     count/RESOURCE.GROUP, and the old names (configmaps, secrets, ...)
 * Trees are in the stored version. Everything that is made lies in the arena of the amounts. */
#pragma once

#include "codec/quantity.h"

struct amount {
    const char *name;
    quantity q;
    bool binary; /* the form it is written in: Ki, Mi, ... */
};
struct amounts {
    struct arena *a;
    struct amount *v;
    uint32_t n;
};

struct amount *amounts_get(const struct amounts *list, const char *name); /* NULL: not in it */
void amounts_add(struct amounts *list, const char *name, quantity q, bool binary);
void amounts_read(struct amounts *list, const struct val *map); /* {"cpu": "1", ...}, added */
/* "a=1,b=2Gi" in the order of the names. */
char *amounts_text(const struct amounts *list);

/* What an evaluation needs of the world outside of the object; any of them may be NULL. What they
 * give back is borrowed for the call. */
struct quota_world {
    void *arg;
    int64_t now_ms;
    const struct val *(*pod)(void *arg, const char *ns, const char *name);
    const struct val *(*class_named)(void *arg, const char *name);     /* a DeviceClass */
    const struct val *(*class_for)(void *arg, const char *extended); /* that gives this resource */
};

/* Does the kind use the amount of this name? */
bool quota_tracks(const struct quota_world *w, const char *group, const char *plural,
                  const char *name);
/* Do all scopes of the quota's spec hold for the object? A scope that means nothing for its kind
 * does not hold. */
bool quota_scopes_hold(const char *group, const char *plural, const struct val *spec,
                       const struct val *v);
/* Adds what the object uses. */
void quota_usage(const struct quota_world *w, const char *group, const char *plural,
                 const struct val *v, struct amounts *ret);
/* What a pod asks for in whole; which: "requests" or "limits". Containers at once, or the init container
 * that needs most (with the restartable ones before it); what is said for the pod itself goes before.
 * in_full: also what runs and was allocated (a resize is charged before it is done), and overhead. */
void pod_sum(const struct val *pod, const char *which, bool in_full, struct amounts *ret);
/* For pods: a quota on cpu or memory wants each container to say how much. NULL: fine, else
 * "must specify requests.cpu for: c1,c2; ..." in the arena. tracked: the quota's names that the
 * kind uses. */
char *quota_missing(struct arena *a, const struct amounts *tracked, const struct val *pod);
/* Does an update of this kind (sub-resource "" or its name) need a look? */
bool quota_update_counts(const char *group, const char *plural, const char *sub,
                         const struct val *v, const struct val *old);
