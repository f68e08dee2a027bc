/* apiserver/stock.c - the objects of a new cluster. Level-triggered: each start makes what is
 * missing and changes nothing that is there (what an administrator deleted comes back, what he
 * edited stays). */
#include "apiserver/api_int.h"

#include "base/log.h"
#include "codec/yaml.h"

#include <arpa/inet.h>

extern const char api_stock_text[]; /* stock.yaml, by tools/embed */

static int make(struct api *api, struct arena *a, const char *collection, const struct val *v,
                struct err *err)
{
    struct api_response resp = {0};

    if (call_inner(api, a, "POST", collection, v, &resp) == 0 || resp.status == 409)
        return 0;
    api_response_err(&resp, err);
    return err_wrap(err, "%s %s", val_str_at(v, "kind", ""), val_str_at(v, "metadata.name", ""));
}

static const char *collection_of(struct api *api, struct arena *a, const struct val *v)
{
    const struct resource *r = schema_kind_of(api->schema, val_str_at(v, "apiVersion", ""),
                                              val_str_at(v, "kind", ""));
    const char *ns = val_str_at(v, "metadata.namespace", "");

    if (!r)
        return NULL;
    return arena_printf(a, "%s/%s%s%s%s/%s", *r->group ? "/apis" : "/api", r->api_version,
                        *ns ? "/namespaces/" : "", ns, "", r->plural);
}

/* The store is asked first: a POST that ends in 409 costs a decode and a validation. */
static bool have(struct api *api, const struct val *v)
{
    const struct resource *r = schema_kind_of(api->schema, val_str_at(v, "apiVersion", ""),
                                              val_str_at(v, "kind", ""));

    return r && store_get(api->store, api_table(api, r), val_str_at(v, "metadata.namespace", ""),
                          val_str_at(v, "metadata.name", ""));
}

static int make_one(struct api *api, struct arena *a, const struct val *v, struct err *err)
{
    const char *path;

    if (have(api, v) || !(path = collection_of(api, a, v)))
        return 0;
    return make(api, a, path, v, err);
}

static bool listed(const struct val *list, const struct val *v)
{
    VAL_EACH(list, it)
        if (val_equal(it, v))
            return true;
    return false;
}

/* A stock role or binding that is there gets what it lacks: rules, subjects, labels; unless its annotation
 * autoupdate says false. What somebody added stays. */
static int keep_up(struct api *api, struct arena *a, const struct val *want, struct err *err)
{
    static const char *const lists[] = {"rules", "subjects"};
    const struct resource *r = schema_kind_of(api->schema, val_str_at(want, "apiVersion", ""),
                                              val_str_at(want, "kind", ""));
    const char *ns = val_str_at(want, "metadata.namespace", ""), *name = val_str_at(want, "metadata.name", "");
    const struct obj *o = store_get(api->store, api_table(api, r), ns, name);
    struct api_response resp = {0};
    struct val *v, *labels;
    bool changed = false;

    if (!o || streq0(obj_annotation(o, "rbac.authorization.kubernetes.io/autoupdate"), "false") ||
        val_get(want, "aggregationRule"))
        return 0;
    v = obj_edit(o, a);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(want, lists[i]), it)
            if (!listed(val_get(v, lists[i]), it)) {
                val_push(a, val_need_list(a, v, lists[i]), it);
                changed = true;
            }
    labels = val_need_map(a, val_get(v, "metadata"), "labels");
    VAL_EACH_MEMBER(val_at(want, "metadata.labels"), m)
        if (!val_get(labels, m->key)) {
            val_put(a, labels, m->key, &m->v);
            changed = true;
        }
    if (!changed)
        return 0;
    if (call_inner(api, a, "PUT", arena_printf(a, "%s/%s", collection_of(api, a, want), name), v, &resp) < 0)
        return api_response_err(&resp, err) < 0 ? err_wrap(err, "stock object %s", name) : -1;
    return 0;
}

struct roles {
    struct api *api;
    struct arena *a;
    struct err *err;
    int r;
};

static void make_role(void *arg, const char *resource, struct val *object)
{
    struct roles *w = arg;

    (void)resource;
    if (w->r == 0 && (have(w->api, object) ? keep_up(w->api, w->a, object, w->err)
                                           : make_one(w->api, w->a, object, w->err)) < 0)
        w->r = -1;
}

static struct val *object(struct arena *a, const char *text, struct err *err)
{
    return yaml_parse(a, text, strlen(text), NULL, NULL, err);
}

static int make_text(struct api *api, struct arena *a, const char *text, struct err *err)
{
    struct val *v = object(a, text, err);

    return v ? make_one(api, a, v, err) : -1;
}

/* The service, its endpoints and its slice follow the address that we are reached at. */
static int make_kubernetes(struct api *api, struct arena *a, struct err *err)
{
    struct in_addr first = {.s_addr = htonl(api->service_net + 1)}, host;
    char ip[INET_ADDRSTRLEN];
    const char *endpoints, *slice;
    struct api_response resp = {0};
    struct val *v;

    inet_ntop(AF_INET, &first, ip, sizeof(ip));
    if (make_text(api, a, arena_printf(a,
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: kubernetes\n  namespace: default\n"
        "  labels: {component: apiserver, provider: kubernetes}\nspec:\n  clusterIP: %s\n"
        "  ports: [{name: https, port: 443, protocol: TCP, targetPort: %d}]\n", ip, api->port), err) < 0)
        return -1;
    /* endpoints may not be loopback addresses; a server that is only reached there has none */
    if (inet_pton(AF_INET, api->host, &host) != 1 || (ntohl(host.s_addr) >> 24) == 127)
        return 0;
    endpoints = arena_printf(a,
        "apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: kubernetes\n  namespace: default\n"
        "  labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}\nsubsets:\n"
        "- addresses: [{ip: %s}]\n  ports: [{name: https, port: %d, protocol: TCP}]\n",
        api->host, api->port);
    slice = arena_printf(a,
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata:\n"
        "  name: kubernetes\n  namespace: default\n  labels: {kubernetes.io/service-name: kubernetes}\n"
        "endpoints:\n- addresses: [%s]\n  conditions: {ready: true}\n"
        "ports: [{name: https, port: %d, protocol: TCP}]\n", api->host, api->port);
    if (!(v = object(a, endpoints, err)))
        return -1;
    call_inner(api, a, "PUT", "/api/v1/namespaces/default/endpoints/kubernetes", v, &resp);
    if (!(v = object(a, slice, err)))
        return -1;
    if (call_inner(api, a, "PUT",
                   "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", v, &resp) < 0)
        make_one(api, a, v, err);
    return 0;
}

/* This machine's node sees by mirrors what the pods of all namespaces may use: it is the machine
 * itself. A node of another machine has only what the node authorizer gives it. */
static int make_node(struct api *api, struct arena *a, struct err *err)
{
    if (str_empty(api->node_name))
        return 0;
    return make_text(api, a, arena_printf(a,
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n"
        "  name: tandem:node:%s\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, "
        "name: 'tandem:node'}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, "
        "name: 'system:node:%s'}]\n", api->node_name, api->node_name), err);
}

/* These follow what this server is: what a start finds otherwise it puts right. */
static int keep_data(struct api *api, struct arena *a, const struct val *v, struct err *err)
{
    const struct obj *o = store_get(api->store, table_named(api->store, "", "configmaps"),
                                    val_str_at(v, "metadata.namespace", ""), val_str_at(v, "metadata.name", ""));
    struct api_response resp = {0};
    struct val *body = val_map(a);

    if (!o || val_equal(val_get(obj_val(o), "data"), val_get(v, "data")))
        return make_one(api, a, v, err);
    val_put(a, body, "data", val_get(v, "data"));
    call_inner(api, a, "PATCH", arena_printf(a, "/api/v1/namespaces/%s/configmaps/%s", o->namespace_, o->name),
               body, &resp);
    return 0;
}

static int make_trust(struct api *api, struct arena *a, struct err *err)
{
    struct val *v = val_map(a), *meta = val_map(a), *data = val_map(a);

    val_put_str(a, v, "apiVersion", "v1");
    val_put_str(a, v, "kind", "ConfigMap");
    val_put_str(a, meta, "name", "extension-apiserver-authentication");
    val_put_str(a, meta, "namespace", "kube-system");
    val_put(a, v, "metadata", meta);
    val_put_str(a, data, "client-ca-file", pki_ca_pem(api->pki));
    val_put_str(a, data, "requestheader-allowed-names", "[\"" FRONT_PROXY_CLIENT "\"]");
    val_put_str(a, data, "requestheader-client-ca-file", aggregate_ca_pem(api));
    val_put_str(a, data, "requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]");
    val_put_str(a, data, "requestheader-group-headers", "[\"X-Remote-Group\"]");
    val_put_str(a, data, "requestheader-uid-headers", "[\"X-Remote-Uid\"]");
    val_put_str(a, data, "requestheader-username-headers", "[\"X-Remote-User\"]");
    val_put(a, v, "data", data);
    return keep_data(api, a, v, err);
}

static int make_cidr(struct api *api, struct arena *a, struct err *err)
{
    struct in_addr net = {.s_addr = htonl(api->service_net)};
    char ip[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &net, ip, sizeof(ip));
    return make_text(api, a, arena_printf(a,
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata:\n  name: kubernetes\n"
        "spec:\n  cidrs: [%s/%u]\n", ip, api->service_bits), err);
}

int stock_write(struct api *api, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct roles roles = {.api = api, .a = a, .err = err};
    struct val *docs = yaml_parse_all(a, api_stock_text, strlen(api_stock_text), err);

    if (!docs)
        return err_wrap(err, "stock objects");
    VAL_EACH(docs, v)
        if (make_one(api, a, v, err) < 0)
            return -1;
    rbac_bootstrap(a, make_role, &roles);
    if (roles.r < 0 || make_kubernetes(api, a, err) < 0 || make_trust(api, a, err) < 0)
        return -1;
    return make_node(api, a, err) < 0 ? -1 : make_cidr(api, a, err);
}
