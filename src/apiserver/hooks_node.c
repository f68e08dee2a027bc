/* apiserver/hooks_node.c - NodeRestriction: a node changes itself and its own pods, and nothing about
 * itself that decides what runs there (taints, labels that belong to administrators). */
#include "apiserver/hooks.h"

#include "auth/b64.h"

/* Labels of kubernetes.io and k8s.io that a node may set on itself. */
static bool label_allowed(const char *key)
{
    static const char *const fine[] = {
        "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type", "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone", "beta.kubernetes.io/arch", "beta.kubernetes.io/os"};
    const char *slash = strchr(key, '/');
    char domain[256];

    if (!slash || (size_t)(slash - key) >= sizeof(domain))
        return true;
    memcpy(domain, key, (size_t)(slash - key));
    domain[slash - key] = 0;
    if (streq(domain, "node-restriction.kubernetes.io") || str_ends(domain, ".node-restriction.kubernetes.io"))
        return false;
    if (!streq(domain, "kubernetes.io") && !str_ends(domain, ".kubernetes.io") && !streq(domain, "k8s.io") &&
        !str_ends(domain, ".k8s.io"))
        return true;
    if (streq(domain, "kubelet.kubernetes.io") || str_ends(domain, ".kubelet.kubernetes.io") ||
        streq(domain, "node.kubernetes.io") || str_ends(domain, ".node.kubernetes.io"))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(fine); i++)
        if (streq(key, fine[i]))
            return true;
    return false;
}

/* The labels that differ and are not the node's to set, "a, b"; NULL: none. */
static const char *changed_labels(struct arena *a, const struct val *now, const struct val *was)
{
    const char *text = NULL;

    VAL_EACH_MEMBER(now, m)
        if (!val_equal(&m->v, val_get(was, m->key)) && !label_allowed(m->key))
            text = text ? arena_printf(a, "%s, %s", text, m->key) : m->key;
    VAL_EACH_MEMBER(was, m)
        if (!val_get(now, m->key) && !label_allowed(m->key))
            text = text ? arena_printf(a, "%s, %s", text, m->key) : m->key;
    return text;
}

static bool same(struct arena *a, const struct val *x, const struct val *y)
{
    struct val *none = val_list(a);

    if (!val_len(x) && !val_len(y))
        return true;
    return val_equal(x ? x : none, y ? y : none);
}

static int check_node(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const char *name = old ? old->name : val_str_at(v, "metadata.name", ""), *labels;
    const struct val *was = old ? obj_val(old) : NULL;

    if (!streq(name, self))
        return fail_forbidden(c, name, "node \"%s\" is not allowed to modify node \"%s\"", self, name);
    /* the node of this machine is the machine: it says itself that it is the control plane */
    if (!v || streq0(self, c->api->node_name))
        return 0;
    if (!val_is_null(val_at(v, "spec.configSource")) &&
        (!old || !val_equal(val_at(v, "spec.configSource"), val_at(was, "spec.configSource"))))
        return fail_forbidden(c, name, old ? "node \"%s\" is not allowed to update configSource to a new "
                              "non-nil configSource" : "node \"%s\" is not allowed to create pods with a "
                              "non-nil configSource", self);
    if (old && !same(c->a, val_at(v, "spec.taints"), val_at(was, "spec.taints")))
        return fail_forbidden(c, name, "node \"%s\" is not allowed to modify taints", self);
    if (old && !same(c->a, val_at(v, "metadata.ownerReferences"), val_at(was, "metadata.ownerReferences")))
        return fail_forbidden(c, name, "node \"%s\" is not allowed to modify ownerReferences", self);
    labels = changed_labels(c->a, val_at(v, "metadata.labels"), val_at(was, "metadata.labels"));
    if (labels && old)
        return fail_forbidden(c, name, "is not allowed to modify labels: %s", labels);
    if (labels)
        return fail_forbidden(c, name, "node \"%s\" is not allowed to set the following labels: %s", self,
                              labels);
    return 0;
}

/* ---------------------------------------------------------------- pods */

static int check_owner(struct call *c, const char *self, const char *name, const struct val *v)
{
    const struct val *owners = val_at(v, "metadata.ownerReferences"), *owner;
    const struct obj *node;

    if (val_len(owners) > 1)
        return fail_forbidden(c, name, "node \"%s\" can only create pods with a single owner reference "
                              "set to itself", self);
    owner = val_len(owners) ? &owners->items[0] : NULL;
    if (!owner || !streq(val_str_at(owner, "apiVersion", ""), "v1") ||
        !streq(val_str_at(owner, "kind", ""), "Node") || !streq(val_str_at(owner, "name", ""), self))
        return fail_forbidden(c, name, "node \"%s\" can only create pods with an owner reference set to "
                              "itself", self);
    if (!val_bool_at(owner, "controller", false))
        return fail_forbidden(c, name, "node \"%s\" can only create pods with a controller owner "
                              "reference set to itself", self);
    if (val_bool_at(owner, "blockOwnerDeletion", false))
        return fail_forbidden(c, name, "node \"%s\" must not set blockOwnerDeletion on an owner "
                              "reference", self);
    if (!(node = api_lookup(c->api, c->a, "Node", "", self)))
        return fail_not_found_in(c, "", "nodes", self);
    if (!streq(node->uid, val_str_at(owner, "uid", "")))
        return fail_forbidden(c, name, "node %s UID mismatch: expected %s got %s", self,
                              val_str_at(owner, "uid", ""), node->uid);
    return 0;
}

/* What of the API a pod names, as the plural; NULL: nothing. */
static const char *names_objects(const struct val *pod)
{
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    static const struct {
        const char *source, *plural;
    } volumes[] = {{"secret", "secrets (via secret volumes)"}, {"configMap", "configmaps (via configmap volumes)"},
                   {"persistentVolumeClaim", "persistentvolumeclaims"},
                   {"ephemeral", "persistentvolumeclaims"}, {"projected", "api objects (via projected volumes)"},
                   {"csi", "csidrivers (via CSI volumes)"}};
    const struct val *spec = val_get(pod, "spec");

    if (*val_str_at(spec, "serviceAccountName", ""))
        return "serviceaccounts";
    if (val_len(val_get(spec, "imagePullSecrets")))
        return "secrets (via imagePullSecrets)";
    if (val_len(val_get(spec, "resourceClaims")))
        return "resourceclaims";
    VAL_EACH(val_get(spec, "volumes"), vol)
        for (size_t i = 0; i < ARRAY_LEN(volumes); i++)
            if (val_get(vol, volumes[i].source))
                return volumes[i].plural;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(spec, lists[i]), ct) {
            VAL_EACH(val_get(ct, "envFrom"), e)
                return val_get(e, "secretRef") ? "secrets" : "configmaps";
            VAL_EACH(val_get(ct, "env"), e)
                if (val_at(e, "valueFrom.secretKeyRef") || val_at(e, "valueFrom.configMapKeyRef"))
                    return val_at(e, "valueFrom.secretKeyRef") ? "secrets" : "configmaps";
        }
    return NULL;
}

static int check_mirror(struct call *c, const char *self, const char *name, const struct val *v)
{
    const char *what;

    if (!val_get(val_at(v, "metadata.annotations"), "kubernetes.io/config.mirror"))
        return fail_forbidden(c, name, "pod does not have \"kubernetes.io/config.mirror\" annotation, "
                              "node \"%s\" can only create mirror pods", self);
    if (!streq(val_str_at(v, "spec.nodeName", ""), self))
        return fail_forbidden(c, name, "node \"%s\" can only create pods with spec.nodeName set to itself", self);
    if (check_owner(c, self, name, v) < 0)
        return -1;
    if ((what = names_objects(v)))
        return fail_forbidden(c, name, "node \"%s\" can not create pods that reference %s", self, what);
    return 0;
}

static int check_pod_status(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const struct val *was = obj_val(old);

    if (!streq(val_str_at(was, "spec.nodeName", ""), self))
        return fail_forbidden(c, old->name, "node \"%s\" can only update pod status for pods with "
                              "spec.nodeName set to itself", self);
    if (!same(c->a, val_at(v, "metadata.labels"), val_at(was, "metadata.labels")))
        return fail_forbidden(c, old->name, "node \"%s\" cannot update labels through pod status", self);
    if (!same(c->a, val_at(v, "status.resourceClaimStatuses"), val_at(was, "status.resourceClaimStatuses")))
        return fail_forbidden(c, old->name, "node \"%s\" cannot update resource claim statues", self);
    if (!same(c->a, val_at(v, "status.extendedResourceClaimStatus"),
              val_at(was, "status.extendedResourceClaimStatus")))
        return fail_forbidden(c, old->name, "node \"%s\" cannot update extended resource claim status", self);
    return 0;
}

static int check_pod(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const char *name = old ? old->name : val_str_at(v, "metadata.name", "");

    if (!old)
        return check_mirror(c, self, name, v);
    if (!v)
        return streq(val_str_at(obj_val(old), "spec.nodeName", ""), self)
                   ? 0
                   : fail_forbidden(c, name, "node \"%s\" can only delete pods with spec.nodeName set to "
                                    "itself", self);
    if (c->sub && streq(c->sub->name, "status"))
        return check_pod_status(c, self, v, old);
    if (c->sub)
        return fail_forbidden(c, name, "unexpected pod subresource \"%s\", only 'status' and 'eviction' are "
                              "allowed", c->sub->name);
    return fail_forbidden(c, name, "unexpected operation \"UPDATE\", node \"%s\" can only create and delete "
                          "mirror pods", self);
}

int restrict_node_eviction(struct call *c, const struct obj *pod)
{
    const char *self = node_of_user(c->user);

    if (!self || streq(val_str_at(obj_val(pod), "spec.nodeName", ""), self))
        return 0;
    return fail_forbidden(c, pod->name, "node %s can only evict pods with spec.nodeName set to itself", self);
}

/* ---------------------------------------------------------------- other kinds */

/* Only how far an expansion of the volume has come. */
static int check_claim(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    static const char *const free_[] = {"capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"};
    const char *name = old ? old->name : "";
    struct val *x, *y;

    if (!old || !v || !c->sub || !streq(c->sub->name, "status"))
        return fail_forbidden(c, name, "may only update PVC status");
    x = val_copy(c->a, v);
    y = val_copy(c->a, obj_val(old));
    for (size_t i = 0; i < ARRAY_LEN(free_); i++) {
        val_del(val_get(x, "status"), free_[i]);
        val_del(val_get(y, "status"), free_[i]);
    }
    val_del(val_get(x, "metadata"), "managedFields");
    val_del(val_get(y, "metadata"), "managedFields");
    val_del(val_get(x, "metadata"), "resourceVersion");
    val_del(val_get(y, "metadata"), "resourceVersion");
    return val_equal(x, y) ? 0
                           : fail_forbidden(c, name, "node \"%s\" is not allowed to update fields other than "
                                            "status.quantity and status.conditions", self);
}

static int check_slice(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const struct val *at = old ? obj_val(old) : v;

    if ((old && v) || streq(val_str_at(at, "spec.nodeName", ""), self))
        return 0;
    return fail_forbidden(c, old ? old->name : "", "can only %s ResourceSlice with the same NodeName as the "
                          "requesting node", old ? "delete" : "create");
}

static int check_request(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const char *signer = val_str_at(v, "spec.signerName", ""), *text = val_str_at(v, "spec.request", "");
    const char *name = val_str_at(v, "metadata.name", "");
    struct err err = {0};
    unsigned char *pem;
    char *cn = NULL;
    size_t n;

    if (old || (!streq(signer, "kubernetes.io/kubelet-serving") &&
                !streq(signer, "kubernetes.io/kube-apiserver-client-kubelet")))
        return 0;
    pem = base64_decode(c->a, text, strlen(text), &n);
    if (!pem || pki_read_request((char *)pem, n, c->a, &cn, NULL, &err) < 0)
        return fail_forbidden(c, name, "unable to parse csr: %s", err.msg);
    if (!str_starts(cn, "system:node:") || !streq(cn + strlen("system:node:"), self))
        return fail_forbidden(c, name, "can only create a node CSR with CN=system:node:%s", self);
    return 0;
}

int restrict_node(struct call *c, const struct val *v, const struct obj *old)
{
    const char *self = node_of_user(c->user), *group = c->stored->group, *plural = c->stored->plural;
    const char *name = old ? old->name : val_str_at(v, "metadata.name", "");

    if (!self)
        return 0;
    if (!*group && streq(plural, "nodes"))
        return check_node(c, self, v, old);
    if (!*group && streq(plural, "pods"))
        return check_pod(c, self, v, old);
    if (!*group && streq(plural, "persistentvolumeclaims"))
        return check_claim(c, self, v, old);
    if (streq(group, "resource.k8s.io") && streq(plural, "resourceslices"))
        return check_slice(c, self, v, old);
    if (streq(group, "certificates.k8s.io") && streq(plural, "certificatesigningrequests"))
        return check_request(c, self, v, old);
    if (streq(group, "coordination.k8s.io") && streq(plural, "leases")) {
        if (!streq(c->path.ns, "kube-node-lease"))
            return fail_forbidden(c, name, "can only access leases in the \"kube-node-lease\" system namespace");
        if (!streq(name, self))
            return fail_forbidden(c, name, "can only access node lease with the same name as the requesting node");
    }
    if (streq(group, "storage.k8s.io") && streq(plural, "csinodes") && !streq(name, self))
        return fail_forbidden(c, name, "can only access CSINode with the same name as the requesting node");
    return 0;
}

/* ---------------------------------------------------------------- tokens */

/* Does a driver with that name ask for tokens for this audience? */
static bool driver_wants(struct call *c, const char *driver, const char *audience)
{
    const struct obj *o = *driver ? store_get(c->api->store, table_named(c->api->store, "storage.k8s.io", "csidrivers"),
                                              "", driver) : NULL;

    VAL_EACH(val_at(o ? obj_val(o) : NULL, "spec.tokenRequests"), t)
        if (streq(val_str_at(t, "audience", ""), audience))
            return true;
    return false;
}

static const char *driver_of_claim(struct call *c, const char *claim)
{
    struct store *s = c->api->store;
    const struct obj *o = store_get(s, table_named(s, "", "persistentvolumeclaims"), c->path.ns, claim);

    o = o ? store_get(s, table_named(s, "", "persistentvolumes"), "", val_str_at(obj_val(o), "spec.volumeName", ""))
          : NULL;
    return o ? arena_strdup(c->a, val_str_at(obj_val(o), "spec.csi.driver", "")) : "";
}

static bool pod_wants(struct call *c, const struct obj *pod, const char *audience)
{
    VAL_EACH(val_at(obj_val(pod), "spec.volumes"), v) {
        const char *claim = val_str_at(v, "persistentVolumeClaim.claimName", "");

        VAL_EACH(val_at(v, "projected.sources"), s)
            if (val_get(s, "serviceAccountToken") &&
                streq(val_str_at(s, "serviceAccountToken.audience", ""), audience))
                return true;
        if (val_get(v, "ephemeral"))
            claim = arena_printf(c->a, "%s-%s", pod->name, val_str_at(v, "name", ""));
        if (driver_wants(c, *claim ? driver_of_claim(c, claim) : val_str_at(v, "csi.driver", ""), audience))
            return true;
    }
    return false;
}

static int check_audience(struct call *c, const struct obj *pod, const struct val *list)
{
    const char *audience = val_len(list) ? val_text(&list->items[0], "") : "";

    if (val_len(list) > 1)
        return fail_forbidden(c, c->path.name, "node may only request 0 or 1 audiences");
    /* none asked for is filled in as our own before it comes here */
    if (streq(audience, TOKEN_ISSUER) && pod_wants(c, pod, ""))
        return 0;
    if (pod_wants(c, pod, audience) ||
        access_also(c, "request-serviceaccounts-token-audience", "", audience, "", c->path.ns, c->path.name))
        return 0;
    return fail_forbidden(c, c->path.name, "audience \"%s\" not found in pod spec volume, %s is not authorized "
                          "to request tokens for this audience", audience, c->user->name);
}

int restrict_node_token(struct call *c, const struct val *spec)
{
    const char *self = node_of_user(c->user), *uid;
    const struct val *bound = val_get(spec, "boundObjectRef");
    const struct obj *pod;

    if (!self)
        return 0;
    if (!streq(val_str_at(bound, "apiVersion", ""), "v1") || !streq(val_str_at(bound, "kind", ""), "Pod") ||
        !*val_str_at(bound, "name", ""))
        return fail_forbidden(c, c->path.name, "node requested token not bound to a pod");
    uid = val_str_at(bound, "uid", "");
    if (!*uid)
        return fail_forbidden(c, c->path.name, "node requested token with a pod binding without a uid");
    if (!(pod = api_lookup(c->api, c->a, "Pod", c->path.ns, val_str_at(bound, "name", ""))))
        return fail_not_found_in(c, "", "pods", val_str_at(bound, "name", ""));
    if (!streq(uid, pod->uid))
        return fail_forbidden(c, c->path.name, "the UID in the bound object reference (%s) does not match the UID "
                              "in record. The object might have been deleted and then recreated", uid);
    if (!streq(val_str_at(obj_val(pod), "spec.nodeName", ""), self))
        return fail_forbidden(c, c->path.name, "node requested token bound to a pod scheduled on a different node");
    return check_audience(c, pod, val_get(spec, "audiences"));
}
