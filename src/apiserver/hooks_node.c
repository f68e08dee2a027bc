/* apiserver/hooks_node.c - NodeRestriction: a node changes itself and its own pods, and nothing about
 * itself that decides what runs there (taints, labels that belong to administrators). */
#include "apiserver/hooks.h"

/* The name of the node that asks, or NULL. */
static const char *node_of(const struct call *c)
{
    return c->user && str_starts(c->user->name, "system:node:") && auth_user_in(c->user, "system:nodes")
               ? c->user->name + strlen("system:node:")
               : NULL;
}

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

static const char *changed_label(const struct val *now, const struct val *was)
{
    VAL_EACH_MEMBER(now, m)
        if (!val_equal(&m->v, val_get(was, m->key)) && !label_allowed(m->key))
            return m->key;
    VAL_EACH_MEMBER(was, m)
        if (!val_get(now, m->key) && !label_allowed(m->key))
            return m->key;
    return NULL;
}

static int check_node(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const char *name = old ? old->name : val_str_at(v, "metadata.name", ""), *label;
    const struct val *was = old ? obj_val(old) : NULL, *now = val_at(v, "spec.taints");

    if (!streq(name, self))
        return fail_forbidden(c, name, "node \"%s\" is not allowed to modify node \"%s\"", self, name);
    /* the node of this machine is the machine: it says itself that it is the control plane */
    if (!v || streq0(self, c->api->node_name))
        return 0;
    if ((label = changed_label(val_at(v, "metadata.labels"), val_at(was, "metadata.labels"))))
        return fail_forbidden(c, name, "is not allowed to modify labels: %s", label);
    if (old && (val_len(now) || val_len(val_at(was, "spec.taints"))) && !c->sub &&
        !val_equal(now ? now : val_list(c->a),
                   val_at(was, "spec.taints") ? val_at(was, "spec.taints") : val_list(c->a)))
        return fail_forbidden(c, name, "node \"%s\" is not allowed to modify taints", self);
    return 0;
}

static int check_pod(struct call *c, const char *self, const struct val *v, const struct obj *old)
{
    const char *name = old ? old->name : val_str_at(v, "metadata.name", "");

    if (!old) {
        if (!val_get(val_at(v, "metadata.annotations"), "kubernetes.io/config.mirror"))
            return fail_forbidden(c, name, "pod does not have \"kubernetes.io/config.mirror\" annotation, "
                                  "node \"%s\" can only create mirror pods", self);
        if (!streq(val_str_at(v, "spec.nodeName", ""), self))
            return fail_forbidden(c, name, "node \"%s\" can only create pods with spec.nodeName set to itself", self);
        return 0;
    }
    if (!streq(val_str_at(obj_val(old), "spec.nodeName", ""), self))
        return fail_forbidden(c, name, "node \"%s\" can only change pods with spec.nodeName set to itself", self);
    return 0;
}

int restrict_node(struct call *c, const struct val *v, const struct obj *old)
{
    const char *self = node_of(c), *group = c->stored->group, *plural = c->stored->plural;
    const char *name = old ? old->name : val_str_at(v, "metadata.name", "");

    if (!self)
        return 0;
    if (!*group && streq(plural, "nodes"))
        return check_node(c, self, v, old);
    if (!*group && streq(plural, "pods"))
        return check_pod(c, self, v, old);
    if (streq(group, "coordination.k8s.io") && streq(plural, "leases") &&
        (!streq(c->path.ns, "kube-node-lease") || !streq(name, self)))
        return fail_forbidden(c, name, "can only access node lease with the same name as the requesting node");
    if (streq(group, "storage.k8s.io") && streq(plural, "csinodes") && !streq(name, self))
        return fail_forbidden(c, name, "can only access CSINode with the same name as the requesting node");
    return 0;
}

int restrict_node_token(struct call *c, const struct val *bound)
{
    const char *self = node_of(c);
    const struct obj *pod;

    if (!self)
        return 0;
    if (!streq(val_str_at(bound, "kind", ""), "Pod") || !*val_str_at(bound, "uid", ""))
        return fail_forbidden(c, c->path.name, "node requested token not bound to a pod");
    pod = api_lookup(c->api, c->a, "Pod", c->path.ns, val_str_at(bound, "name", ""));
    if (pod && !streq(val_str_at(obj_val(pod), "spec.nodeName", ""), self))
        return fail_forbidden(c, c->path.name, "node requested token bound to a pod scheduled on a different node");
    return 0;
}
