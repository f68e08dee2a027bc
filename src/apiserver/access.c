/* apiserver/access.c - may the user do that? Node authorizer (what nodes may read follows from the
 * pods bound to them) first, then RBAC. */
#include "apiserver/api_int.h"

static struct store_table *rbac_table(struct api *api, const char *resource)
{
    return table_named(api->store, "rbac.authorization.k8s.io", resource);
}

static const struct obj *rbac_get(void *arg, const char *resource, const char *ns, const char *name)
{
    struct api *api = arg;

    return store_get(api->store, rbac_table(api, resource), ns, name);
}

static void rbac_each(void *arg, const char *resource, const char *ns,
                      bool (*fn)(void *fn_arg, const struct obj *o), void *fn_arg)
{
    struct api *api = arg;
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;

    if (store_iter_init(&it, api->store, rbac_table(api, resource), *ns ? ns : NULL, 0, NULL, NULL,
                        &ignored) < 0)
        return;
    while ((o = store_iter_next(&it)) && fn(fn_arg, o))
        ;
    store_iter_done(&it);
}

void access_start(struct api *api)
{
    api->rbac = (struct rbac_source){.get = rbac_get, .each = rbac_each, .arg = api};
}

static bool pod_uses(const struct val *pod, const char *kind, const char *name)
{
    const struct val *spec = val_get(pod, "spec");

    if (streq(kind, "serviceaccounts"))
        return streq(val_str_at(spec, "serviceAccountName", "default"), name);
    VAL_EACH(val_get(spec, "volumes"), v) {
        if (streq(kind, "secrets") && streq(val_str_at(v, "secret.secretName", ""), name))
            return true;
        if (streq(kind, "configmaps") && streq(val_str_at(v, "configMap.name", ""), name))
            return true;
        if (streq(kind, "persistentvolumeclaims") &&
            streq(val_str_at(v, "persistentVolumeClaim.claimName", ""), name))
            return true;
        VAL_EACH(val_at(v, "projected.sources"), s) {
            if (streq(kind, "secrets") && streq(val_str_at(s, "secret.name", ""), name))
                return true;
            if (streq(kind, "configmaps") && streq(val_str_at(s, "configMap.name", ""), name))
                return true;
        }
    }
    VAL_EACH(val_get(spec, "imagePullSecrets"), s)
        if (streq(kind, "secrets") && streq(val_str_at(s, "name", ""), name))
            return true;
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        VAL_EACH(val_get(spec, lists[i]), ct) {
            const char *ref = streq(kind, "secrets") ? "secretKeyRef" : "configMapKeyRef";
            const char *from = streq(kind, "secrets") ? "secretRef" : "configMapRef";

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

/* Does a pod bound to the node use that object? */
static bool node_uses(struct api *api, const char *node, const struct rbac_ask *q)
{
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;
    bool yes = false;

    if (store_iter_init(&it, api->store, table_named(api->store, "", "pods"), q->ns, 0, NULL,
                        NULL, &ignored) < 0)
        return false;
    while (!yes && (o = store_iter_next(&it)))
        yes = streq(val_str_at(obj_val(o), "spec.nodeName", ""), node) &&
              pod_uses(obj_val(o), q->resource, q->name);
    store_iter_done(&it);
    return yes;
}

static bool node_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *q)
{
    static const char *const by_pod[] = {"secrets", "configmaps", "persistentvolumeclaims",
                                         "serviceaccounts"};
    const char *node = u->name + strlen("system:node:");
    const struct obj *role;

    if (!auth_user_in(u, "system:nodes") || !str_starts(u->name, "system:node:"))
        return false;
    if (!q->path && !*q->group) {
        for (size_t i = 0; i < ARRAY_LEN(by_pod); i++)
            if (streq(q->resource, by_pod[i]))
                return *q->name && *q->ns &&
                       (streq(q->verb, "get") || streq(q->verb, "list") || streq(q->verb, "watch") ||
                        streq(q->subresource, "token") || streq(q->subresource, "status")) &&
                       node_uses(api, node, q);
    }
    /* everything else by the role system:node, which nobody is bound to */
    role = rbac_get(api, "clusterroles", "", "system:node");
    return role && rbac_rules_allow(val_get(obj_val(role), "rules"), q);
}

bool access_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *ask)
{
    if (!u || auth_user_in(u, GROUP_MASTERS))
        return true;
    return node_allows(api, u, ask) || rbac_allows(&api->rbac, u, ask);
}

bool access_also(struct call *c, const char *verb, const char *group, const char *resource,
                 const char *sub, const char *ns, const char *name)
{
    struct rbac_ask q = {.verb = verb, .group = group, .resource = resource, .subresource = sub,
                         .ns = ns, .name = name};

    return access_allows(c->api, c->user, &q);
}

int access_check(struct call *c)
{
    struct path *p = &c->path;
    struct rbac_ask q = {.verb = c->verb, .group = p->group, .resource = p->plural,
                         .subresource = p->sub, .ns = p->ns, .name = p->name};

    if (!p->resource) {
        struct val *s;

        q.path = p->text;
        if (access_allows(c->api, c->user, &q))
            return 0;
        s = status_doc(c->a, 403, "Forbidden",
                       arena_printf(c->a, "forbidden: User \"%s\" cannot %s path \"%s\"",
                                    c->user->name, q.verb, q.path));
        val_put(c->a, s, "details", val_map(c->a));
        return fail_status(c, s);
    }
    /* a namespace is asked about inside itself */
    if (streq(p->plural, "namespaces") && !*p->group && *p->name && !*p->ns)
        q.ns = p->name;
    if (access_allows(c->api, c->user, &q))
        return 0;
    return fail_forbidden(c, p->name,
                          "User \"%s\" cannot %s resource \"%s%s%s\" in API group \"%s\" %s%s%s",
                          c->user->name, q.verb, p->plural, *p->sub ? "/" : "", p->sub, p->group,
                          *p->ns ? "in the namespace \"" : "at the cluster scope", p->ns,
                          *p->ns ? "\"" : "");
}

const struct obj *api_lookup(void *arg, struct arena *a, const char *kind, const char *ns,
                             const char *name)
{
    struct api *api = arg;
    const char *plural = streq(kind, "ServiceAccount") ? "serviceaccounts"
                         : streq(kind, "Pod")          ? "pods"
                         : streq(kind, "Secret")       ? "secrets"
                         : streq(kind, "Node")         ? "nodes"
                                                       : NULL;
    const struct obj *o = plural ? store_get(api->store, table_named(api->store, "", plural),
                                             streq(kind, "Node") ? "" : ns, name)
                                 : NULL;

    if (o)
        pin_obj(a, obj_ref(o));
    return o;
}
