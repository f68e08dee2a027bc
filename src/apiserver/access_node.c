/* apiserver/access_node.c - the node authorizer: what a node may do follows from the pods that are
 * bound to it, by the relations
 *   secret, configmap, serviceaccount, claim, resourceclaim -> pod -> node
 *   secret -> volume -> claim -> pod -> node
 *   attachment -> node, resourceslice -> node
 * They are looked up in the store as they are now. Beside it there is only an index of which pods are on which
 * node, made when the first node asks: what a node may see costs what its own pods are, not those of a namespace.
 * What is not about one of these kinds follows from the rules of the role system:node. */
#include "apiserver/api_int.h"

/* A pod never moves, so it is put in once, when it has a node, and taken out when it goes. */
struct node_pods {
    struct api *api;
    struct store_watch *watch;
    struct map where;   /* NAMESPACE/NAME -> the map that it is in */
    struct map by_node; /* node -> struct map of NAMESPACE/NAME */
    bool broken;        /* the watch was cut: made anew at the next question */
};

struct relation {
    struct api *api;
    const char *node;
    const struct rbac_ask *q;
};

/* ---------------------------------------------------------------- what a pod uses */

struct ref {
    const char *volume, *name; /* members of a volume, and of the name inside it */
};

static bool volume_names(const struct val *volume, const struct ref *refs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (streq(val_str_at(val_get(volume, refs[i].volume), refs[i].name, ""), name))
            return true;
    return false;
}

/* env and envFrom of all containers */
static bool environment_names(const struct val *spec, const char *ref, const char *from, const char *name)
{
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        VAL_EACH(val_get(spec, lists[i]), ct) {
            VAL_EACH(val_get(ct, "env"), e)
                if (streq(val_str_at(val_get(val_get(e, "valueFrom"), ref), "name", ""), name))
                    return true;
            VAL_EACH(val_get(ct, "envFrom"), e)
                if (streq(val_str_at(val_get(e, from), "name", ""), name))
                    return true;
        }
    }
    return false;
}

static bool projected_names(const struct val *volume, const char *kind, const char *name)
{
    VAL_EACH(val_at(volume, "projected.sources"), s)
        if (streq(val_str_at(val_get(s, kind), "name", ""), name))
            return true;
    return false;
}

static bool uses_secret(const struct val *spec, const char *name)
{
    static const struct ref refs[] = {
        {"secret", "secretName"}, {"azureFile", "secretName"}, {"cephfs", "secretRef.name"},
        {"cinder", "secretRef.name"}, {"flexVolume", "secretRef.name"}, {"rbd", "secretRef.name"},
        {"scaleIO", "secretRef.name"}, {"iscsi", "secretRef.name"}, {"storageos", "secretRef.name"},
        {"csi", "nodePublishSecretRef.name"}};

    VAL_EACH(val_get(spec, "imagePullSecrets"), s)
        if (streq(val_str_at(s, "name", ""), name))
            return true;
    VAL_EACH(val_get(spec, "volumes"), v)
        if (volume_names(v, refs, ARRAY_LEN(refs), name) || projected_names(v, "secret", name))
            return true;
    return environment_names(spec, "secretKeyRef", "secretRef", name);
}

static bool uses_configmap(const struct val *spec, const char *name)
{
    static const struct ref refs[] = {{"configMap", "name"}};

    VAL_EACH(val_get(spec, "volumes"), v)
        if (volume_names(v, refs, ARRAY_LEN(refs), name) || projected_names(v, "configMap", name))
            return true;
    return environment_names(spec, "configMapKeyRef", "configMapRef", name);
}

static bool uses_claim(const struct obj *pod, const char *name)
{
    size_t n = strlen(pod->name);

    VAL_EACH(val_at(obj_val(pod), "spec.volumes"), v) {
        if (streq(val_str_at(v, "persistentVolumeClaim.claimName", ""), name))
            return true;
        if (val_get(v, "ephemeral") && strncmp(name, pod->name, n) == 0 && name[n] == '-' &&
            streq(name + n + 1, val_str_at(v, "name", "")))
            return true;
    }
    return false;
}

static bool uses_resource_claim(const struct val *pod, const char *name)
{
    VAL_EACH(val_at(pod, "spec.resourceClaims"), rc)
        if (streq(val_str_at(rc, "resourceClaimName", ""), name))
            return true;
    VAL_EACH(val_at(pod, "status.resourceClaimStatuses"), st)
        if (streq(val_str_at(st, "resourceClaimName", ""), name))
            return true;
    return streq(val_str_at(pod, "status.extendedResourceClaimStatus.resourceClaimName", ""), name);
}

static bool pod_uses(const struct obj *pod, const char *resource, const char *name)
{
    const struct val *v = obj_val(pod), *spec = val_get(v, "spec");

    /* a node makes mirror pods itself, so they give it nothing */
    if (obj_annotation(pod, "kubernetes.io/config.mirror"))
        return false;
    if (streq(resource, "secrets"))
        return uses_secret(spec, name);
    if (streq(resource, "configmaps"))
        return uses_configmap(spec, name);
    if (streq(resource, "persistentvolumeclaims"))
        return uses_claim(pod, name);
    if (streq(resource, "serviceaccounts"))
        return streq(val_str_at(spec, "serviceAccountName", ""), name);
    return streq(resource, "resourceclaims") && uses_resource_claim(v, name);
}

/* ---------------------------------------------------------------- relations */

static void pods_add(struct node_pods *p, const struct obj *o)
{
    _auto_(freep) char *key = xasprintf("%s/%s", o->namespace_, o->name);
    const char *node;
    struct map *pods;

    if (map_get(&p->where, key))
        return;
    node = val_str_at(obj_val(o), "spec.nodeName", "");
    if (!*node)
        return;
    if (!(pods = map_get(&p->by_node, node))) {
        pods = xcalloc(1, sizeof(*pods));
        map_put(&p->by_node, node, pods);
    }
    map_put(pods, key, pods);
    map_put(&p->where, key, pods);
}

static void pods_event(void *arg, const struct store_event *ev)
{
    struct node_pods *p = arg;
    _auto_(freep) char *key = NULL;
    struct map *pods;

    if (ev->type == STORE_EXPIRED) {
        p->broken = true;
        return;
    }
    if (ev->type != STORE_DELETED) {
        pods_add(p, ev->obj);
        return;
    }
    key = xasprintf("%s/%s", ev->obj->namespace_, ev->obj->name);
    if ((pods = map_del(&p->where, key)))
        map_del(pods, key);
}

void node_pods_free(struct node_pods *p)
{
    const char *node;
    void *pods;

    if (!p)
        return;
    store_watch_free(p->watch);
    for (uint32_t i = 0; map_next(&p->by_node, &i, &node, &pods);) {
        map_done(pods);
        free(pods);
    }
    map_done(&p->by_node);
    map_done(&p->where);
    free(p);
}

/* The pods of a node, or NULL. */
static struct map *pods_of(struct api *api, const char *node)
{
    struct store_table *t = table_named(api->store, "", "pods");
    struct node_pods *p = api->node_pods;
    struct err err = {0};
    struct store_iter it;
    const struct obj *o;

    if (p && p->broken) {
        node_pods_free(p);
        api->node_pods = p = NULL;
    }
    if (!p) {
        p = xcalloc(1, sizeof(*p));
        p->api = api;
        if (store_iter_init(&it, api->store, t, NULL, 0, NULL, NULL, &err) < 0) {
            node_pods_free(p);
            return NULL;
        }
        while ((o = store_iter_next(&it)))
            pods_add(p, o);
        store_iter_done(&it);
        if (!(p->watch = store_watch(api->store, t, 0, STORE_WATCH_HEAD, pods_event, p, &err))) {
            node_pods_free(p);
            return NULL;
        }
        api->node_pods = p;
    }
    return map_get(&p->by_node, node);
}

static bool by_pod(const struct relation *r, const char *resource, const char *ns, const char *name)
{
    struct store_table *t = table_named(r->api->store, "", "pods");
    struct map *pods = pods_of(r->api, r->node);
    const struct obj *o;
    const char *key;
    size_t n = strlen(ns);
    void *ignored;

    for (uint32_t i = 0; pods && map_next(pods, &i, &key, &ignored);)
        if (strncmp(key, ns, n) == 0 && key[n] == '/' && (o = store_get(r->api->store, t, ns, key + n + 1)) &&
            streq(val_str_at(obj_val(o), "spec.nodeName", ""), r->node) && pod_uses(o, resource, name))
            return true;
    return false;
}

static bool volume_bound_here(const struct relation *r, const struct val *pv)
{
    const struct val *claim = val_at(pv, "spec.claimRef");

    return claim && by_pod(r, "persistentvolumeclaims", val_str_at(claim, "namespace", ""),
                           val_str_at(claim, "name", ""));
}

/* Does the volume name that secret, for the node to read? Those of a controller are not for it. */
static bool volume_uses_secret(const struct val *pv, const char *ns, const char *name)
{
    static const char *const refs[] = {
        "cephfs.secretRef", "cinder.secretRef", "flexVolume.secretRef", "rbd.secretRef",
        "scaleIO.secretRef", "iscsi.secretRef", "storageos.secretRef", "csi.nodePublishSecretRef",
        "csi.nodeStageSecretRef", "csi.nodeExpandSecretRef"};
    const struct val *spec = val_get(pv, "spec"), *azure = val_get(spec, "azureFile");
    const char *claim_ns = val_str_at(spec, "claimRef.namespace", "");

    if (azure && streq(val_str_at(azure, "secretName", ""), name) &&
        streq(val_str_at(azure, "secretNamespace", claim_ns), ns))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        const struct val *ref = val_at(spec, refs[i]);

        if (ref && streq(val_str_at(ref, "name", ""), name) &&
            streq(val_str_at(ref, "namespace", claim_ns), ns))
            return true;
    }
    return false;
}

static bool secret_by_volume(const struct relation *r)
{
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;
    bool yes = false;

    if (store_iter_init(&it, r->api->store, table_named(r->api->store, "", "persistentvolumes"),
                        NULL, 0, NULL, NULL, &ignored) < 0)
        return false;
    while (!yes && (o = store_iter_next(&it)))
        yes = volume_uses_secret(obj_val(o), r->q->ns, r->q->name) &&
              volume_bound_here(r, obj_val(o));
    store_iter_done(&it);
    return yes;
}

static const struct obj *named(const struct relation *r, const char *group, const char *plural)
{
    return store_get(r->api->store, table_named(r->api->store, group, plural), r->q->ns, r->q->name);
}

static bool related(const struct relation *r)
{
    const struct rbac_ask *q = r->q;
    const struct obj *o;

    if (!*q->name)
        return false;
    if (streq(q->resource, "persistentvolumes"))
        return (o = named(r, "", "persistentvolumes")) && volume_bound_here(r, obj_val(o));
    if (streq(q->resource, "volumeattachments"))
        return (o = named(r, "storage.k8s.io", "volumeattachments")) &&
               streq(val_str_at(obj_val(o), "spec.nodeName", ""), r->node);
    if (streq(q->resource, "resourceslices"))
        return (o = named(r, "resource.k8s.io", "resourceslices")) &&
               streq(val_str_at(obj_val(o), "spec.nodeName", ""), r->node);
    if (streq(q->resource, "pods"))
        return (o = named(r, "", "pods")) &&
               streq(val_str_at(obj_val(o), "spec.nodeName", ""), r->node);
    return by_pod(r, q->resource, q->ns, q->name) ||
           (streq(q->resource, "secrets") && secret_by_volume(r));
}

/* ---------------------------------------------------------------- decisions by kind */

static bool verb_in(const struct relation *r, const char *words)
{
    size_t n = strlen(r->q->verb);

    for (const char *at = words; (at = strstr(at, r->q->verb)); at += n)
        if ((at == words || at[-1] == ' ') && (!at[n] || at[n] == ' '))
            return true;
    return false;
}

static bool only_mine(const struct relation *r, const char *field)
{
    const char *s = r->q->field_selector;
    size_t n = strlen(field);

    while (s && *s) {
        size_t len = strcspn(s, ",");
        const char *v = s + n;

        if (strncmp(s, field, n) == 0 && *v == '=') {
            v += v[1] == '=' ? 2 : 1;
            if ((size_t)(s + len - v) == strlen(r->node) && strncmp(v, r->node, strlen(r->node)) == 0)
                return true;
        }
        s += len + (s[len] == ',');
    }
    return false;
}

static bool decide_read(const struct relation *r)
{
    return verb_in(r, "get list watch") && !*r->q->subresource && *r->q->ns && related(r);
}

static bool decide_get(const struct relation *r)
{
    return streq(r->q->verb, "get") && !*r->q->subresource && related(r);
}

static bool decide_claim(const struct relation *r)
{
    if (streq(r->q->subresource, "status"))
        return verb_in(r, "update patch") && related(r);
    return decide_get(r);
}

static bool decide_account(const struct relation *r)
{
    if (streq(r->q->verb, "get") && !*r->q->subresource)
        return decide_read(r);
    return streq(r->q->verb, "create") && streq(r->q->subresource, "token") && related(r);
}

static bool decide_lease(const struct relation *r)
{
    return verb_in(r, "get create update patch delete") && streq(r->q->ns, "kube-node-lease") &&
           (streq(r->q->verb, "create") || streq(r->q->name, r->node));
}

static bool decide_csinode(const struct relation *r)
{
    return verb_in(r, "get create update patch delete") && !*r->q->subresource &&
           (streq(r->q->verb, "create") || streq(r->q->name, r->node));
}

static bool decide_slice(const struct relation *r)
{
    if (*r->q->subresource)
        return false;
    if (streq(r->q->verb, "create"))
        return true; /* NodeRestriction looks at the object */
    if (verb_in(r, "list watch deletecollection"))
        return only_mine(r, "spec.nodeName");
    return verb_in(r, "get update patch delete") && related(r);
}

static bool decide_node(const struct relation *r)
{
    if (streq(r->q->subresource, "status"))
        return verb_in(r, "update patch");
    if (*r->q->subresource)
        return false;
    return verb_in(r, "create update patch") ||
           (verb_in(r, "get list watch") && streq(r->q->name, r->node));
}

static bool decide_pod(const struct relation *r)
{
    if (streq(r->q->subresource, "status"))
        return verb_in(r, "update patch");
    if (streq(r->q->subresource, "eviction"))
        return streq(r->q->verb, "create");
    if (*r->q->subresource)
        return false;
    if (verb_in(r, "list watch"))
        return only_mine(r, "spec.nodeName") || related(r);
    return verb_in(r, "create delete") || decide_get(r);
}

static const struct {
    const char *group, *resource;
    bool (*decide)(const struct relation *r);
} BY_KIND[] = {
    {"", "secrets", decide_read},
    {"", "configmaps", decide_read},
    {"", "persistentvolumeclaims", decide_claim},
    {"", "persistentvolumes", decide_get},
    {"resource.k8s.io", "resourceclaims", decide_get},
    {"storage.k8s.io", "volumeattachments", decide_get},
    {"", "serviceaccounts", decide_account},
    {"coordination.k8s.io", "leases", decide_lease},
    {"storage.k8s.io", "csinodes", decide_csinode},
    {"resource.k8s.io", "resourceslices", decide_slice},
    {"", "nodes", decide_node},
    {"", "pods", decide_pod},
};

const char *node_of_user(const struct auth_user *u)
{
    static const char prefix[] = "system:node:";

    return u && str_starts(u->name, prefix) && auth_user_in(u, "system:nodes")
               ? u->name + sizeof(prefix) - 1
               : NULL;
}

bool node_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *q)
{
    struct relation r = {.api = api, .node = node_of_user(u), .q = q};
    const struct obj *role;

    if (!r.node || !*r.node)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(BY_KIND) && !q->path; i++)
        if (streq(q->resource, BY_KIND[i].resource) && streq(q->group, BY_KIND[i].group))
            return BY_KIND[i].decide(&r);
    role = api->rbac.get(api->rbac.arg, "clusterroles", "", "system:node");
    return role && rbac_rules_allow(val_get(obj_val(role), "rules"), q);
}
