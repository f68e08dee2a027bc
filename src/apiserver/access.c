/* apiserver/access.c - may the user do that? Masters may; nodes what access_node.c says; all others
 * what RBAC gives them. */
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

/* In the order of the configuration file, if there is one. c NULL: nothing is waited for. */
static enum authz_verdict decide(struct api *api, struct call *c, const struct auth_user *u,
                                 const struct rbac_ask *ask, struct arena *a, const char **ret_reason)
{
    *ret_reason = "";
    if (!u || auth_user_in(u, GROUP_MASTERS))
        return AUTHZ_ALLOW;
    if (api->authz)
        return authz_decide(api->authz, c, u, ask, a, ret_reason);
    if (node_allows(api, u, ask))
        return AUTHZ_ALLOW;
    return rbac_decides(&api->rbac, u, ask, a, ret_reason) ? AUTHZ_ALLOW : AUTHZ_NONE;
}

bool access_decides(struct api *api, const struct auth_user *u, const struct rbac_ask *ask,
                    struct arena *a, const char **ret_reason)
{
    return decide(api, NULL, u, ask, a, ret_reason) == AUTHZ_ALLOW;
}

bool access_allows(struct api *api, const struct auth_user *u, const struct rbac_ask *ask)
{
    _auto_(arena_freep) struct arena *a = NULL;
    const char *reason;

    if (!u || auth_user_in(u, GROUP_MASTERS))
        return true;
    if (!api->authz)
        return node_allows(api, u, ask) || rbac_allows(&api->rbac, u, ask);
    a = arena_new();
    return authz_decide(api->authz, NULL, u, ask, a, &reason) == AUTHZ_ALLOW;
}

enum authz_verdict access_verdict(struct call *c, const struct auth_user *u, const struct rbac_ask *ask,
                                  const char **ret_reason)
{
    return decide(c->api, c, u, ask, c->a, ret_reason);
}

bool access_also(struct call *c, const char *verb, const char *group, const char *resource,
                 const char *sub, const char *ns, const char *name)
{
    struct rbac_ask q = {.verb = verb, .group = group, .resource = resource, .subresource = sub,
                         .ns = ns, .name = name};
    const char *reason;

    return decide(c->api, c, c->user, &q, c->a, &reason) == AUTHZ_ALLOW;
}

struct rbac_ask access_ask(struct call *c)
{
    const struct path *p = &c->path;
    struct rbac_ask q = {.verb = c->verb, .group = "", .resource = "", .subresource = "", .ns = "",
                         .name = ""};
    const char *sel;

    if (!p->resource) {
        q.path = p->text;
        return q;
    }
    q.group = p->group;
    q.version = p->version;
    q.resource = p->plural;
    q.subresource = p->sub;
    q.ns = p->ns;
    q.name = p->name;
    /* a namespace is asked about inside itself */
    if (streq(p->plural, "namespaces") && !*p->group && *p->name && !*p->ns)
        q.ns = p->name;
    if (streq(c->verb, "list") || streq(c->verb, "watch") || streq(c->verb, "deletecollection")) {
        /* a list of the one object that a field selector names is about that object */
        q.field_selector = sel = param(c, "fieldSelector");
        q.label_selector = param(c, "labelSelector");
        if (!*q.name && sel && str_starts(sel, "metadata.name=") && !strchr(sel, ','))
            q.name = sel + strlen("metadata.name=") + (sel[strlen("metadata.name=")] == '=');
    }
    return q;
}

int access_refuse(struct call *c, const struct auth_user *u, const struct rbac_ask *q)
{
    const struct path *p = &c->path;
    struct val *s;

    if (!q->path)
        return fail_forbidden(c, p->name, "User \"%s\" cannot %s resource \"%s%s%s\" in API group "
                              "\"%s\" %s%s%s", u->name, q->verb, p->plural, *p->sub ? "/" : "",
                              p->sub, p->group,
                              *p->ns ? "in the namespace \"" : "at the cluster scope", p->ns,
                              *p->ns ? "\"" : "");
    s = status_doc(c->a, 403, "Forbidden",
                   arena_printf(c->a, "forbidden: User \"%s\" cannot %s path \"%s\"", u->name,
                                q->verb, q->path));
    val_put(c->a, s, "details", val_map(c->a));
    return fail_status(c, s);
}

int access_check(struct call *c)
{
    struct rbac_ask q = access_ask(c);
    const char *reason = "";
    enum authz_verdict v;

    if (!c->req->audit && !c->api->authz) /* nobody asks why */
        return access_allows(c->api, c->user, &q) ? 0 : access_refuse(c, c->user, &q);
    v = decide(c->api, c, c->user, &q, c->a, &reason);
    if (v == AUTHZ_WAIT)
        return -1;
    audit_note(c->req->audit, "authorization.k8s.io/decision", v == AUTHZ_ALLOW ? "allow" : "forbid");
    audit_note(c->req->audit, "authorization.k8s.io/reason", reason);
    return v == AUTHZ_ALLOW ? 0 : access_refuse(c, c->user, &q);
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
