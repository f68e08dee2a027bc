/* apiserver/tunnel.c - what goes through us to somebody else: logs, exec, attach and port-forward to
 * the node of a pod (over its unix socket), and the HTTP proxies to pods and services.
 * Checked here: access, that the pod is there, which container is meant. The bytes are not looked at. */
#include "apiserver/front_int.h"

#include <stdio.h>

static void answer(struct exchange *x, struct call *c)
{
    exchange_reply(x, &c->resp);
}

/* The container that is meant: the one named, the only one, or the annotated default. */
static const char *pick_container(struct call *c, const struct val *pod)
{
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    const char *name = param(c, "container");
    const struct val *all = val_at(pod, "spec.containers");
    const char *fallback = val_text(val_get(val_at(pod, "metadata.annotations"),
                                            "kubectl.kubernetes.io/default-container"), NULL);
    struct buf b = {.max = 4096};

    if (!str_empty(name)) {
        for (size_t i = 0; i < ARRAY_LEN(lists); i++)
            VAL_EACH(val_get(val_get(pod, "spec"), lists[i]), ct)
                if (streq(val_str_at(ct, "name", ""), name))
                    return name;
        fail(c, 400, "BadRequest", "container %s is not valid for pod %s", name, c->path.name);
        return NULL;
    }
    if (val_len(all) == 1)
        return val_str_at(&all->items[0], "name", "");
    VAL_EACH(all, ct)
        if (fallback && streq(val_str_at(ct, "name", ""), fallback))
            return fallback;
    VAL_EACH(all, ct)
        buf_printf(&b, "%s%s", b.n ? " " : "", val_str_at(ct, "name", ""));
    fail(c, 400, "BadRequest", "a container name must be specified for pod %s, choose one of: [%s]",
         c->path.name, b.p ? b.p : "");
    buf_done(&b);
    return NULL;
}

/* The query as a kubelet reads it: stdin, stdout and stderr are input, output and error there. */
static const char *node_query(struct call *c, bool streams)
{
    struct buf b = {.max = 65536};
    const char *text;

    for (uint32_t i = 0; i < c->params_n; i++) {
        const struct param *p = &c->params[i];
        const char *name = p->name;

        if (streams) {
            name = streq(name, "stdin") ? "input" : streq(name, "stdout") ? "output"
                 : streq(name, "stderr") ? "error" : name;
            if (name != p->name || streq(name, "tty")) {
                if (streq(p->value, "true") || streq(p->value, "1"))
                    buf_printf(&b, "%s%s=1", b.n ? "&" : "?", name);
                continue;
            }
            if (streq(name, "container"))
                continue;
        }
        buf_printf(&b, "%s%s=%s", b.n ? "&" : "?", http_escape(c->a, name, ""),
                   http_escape(c->a, p->value, ""));
    }
    text = arena_strdup(c->a, b.p ? b.p : "");
    buf_done(&b);
    return text;
}

/* The node is not there, or does not answer. */
static bool on_fail(struct http_req *req, const struct err *err, void *arg)
{
    struct exchange *x = arg;
    struct api_response bad = {.status = 500, .content_type = "application/json", .remaining = -1};

    bad.val = status_doc(req->arena, 500, "InternalError",
                         arena_printf(req->arena, "Internal error occurred: the node does not answer: %s",
                                      err->msg));
    exchange_reply(x, &bad);
    return true;
}

static void pass(struct exchange *x, struct http_origin *to, const char *path)
{
    static const char *const drop[] = {"authorization"};
    struct http_proxy_opts opts = {.path = path, .on_fail = on_fail, .arg = x, .drop = drop,
                                   .drop_n = ARRAY_LEN(drop)};

    audit_started(x->req.audit, http_upgrade_wanted(x->http) ? 101 : 200);
    http_proxy(x->http, to, &opts);
}

static const struct obj *bound_pod(struct call *c)
{
    const struct obj *pod = find(c);

    if (!pod) {
        fail_not_found(c, c->path.name);
        return NULL;
    }
    if (!*val_str_at(obj_val(pod), "spec.nodeName", "")) {
        fail(c, 400, "BadRequest", "pod %s does not have a host assigned", c->path.name);
        return NULL;
    }
    return pod;
}

static int to_node(struct exchange *x, struct call *c)
{
    const char *sub = c->path.sub, *container, *base;
    bool logs = streq(sub, "log"), streams = streq(sub, "exec") || streq(sub, "attach");
    const struct obj *pod = find(c);

    if (!pod)
        return fail_not_found(c, c->path.name);
    if (logs && !*val_str_at(obj_val(pod), "spec.nodeName", "")) {
        if (!pick_container(c, obj_val(pod)))
            return -1;
        answer_text(c, 200, "text/plain", "", 0); /* nothing ran, so there is nothing to read */
        answer(x, c);
        return 0;
    }
    if (!bound_pod(c))
        return -1;
    if (streams && !http_upgrade_wanted(x->http))
        return fail(c, 400, "BadRequest", "Upgrade request required");
    if (streq(sub, "exec") && str_empty(param(c, "command")))
        return fail(c, 400, "BadRequest", "you must specify at least 1 command for the container");
    if (streq(sub, "portforward")) {
        pass(x, x->f->node, arena_printf(c->a, "/portForward/%s/%s%s", c->path.ns, c->path.name,
                                         node_query(c, false)));
        return 0;
    }
    if (!(container = pick_container(c, obj_val(pod))))
        return -1;
    base = logs ? "containerLogs" : streq(sub, "exec") ? "exec" : "attach";
    pass(x, x->f->node, arena_printf(c->a, "/%s/%s/%s/%s%s", base, c->path.ns, c->path.name,
                                     container, node_query(c, streams)));
    return 0;
}

/* ---------------------------------------------------------------- proxies */

/* "[scheme:]name[:port]" */
static void split_target(struct arena *a, const char *s, const char **scheme, const char **name,
                         const char **port)
{
    char *text = arena_strdup(a, s), *first = strchr(text, ':'), *last = strrchr(text, ':');

    *scheme = "http";
    *name = text;
    *port = "";
    if (!first)
        return;
    if (first != last) {
        *first = *last = 0;
        *scheme = *text ? text : "http";
        *name = first + 1;
        *port = last + 1;
    } else {
        *first = 0;
        *port = first + 1;
    }
}

/* An address behind the service, and the port there. */
static bool service_target(struct call *c, const char *name, const char *port, const char **ret_ip,
                           int64_t *ret_port)
{
    struct store_table *t = table_named(c->api->store, "discovery.k8s.io", "endpointslices");
    const struct obj *svc = store_get(c->api->store, table_named(c->api->store, "", "services"),
                                      c->path.ns, name), *o;
    const char *port_name = NULL;
    struct store_iter it;
    struct err err = {0};

    if (!svc)
        return false;
    VAL_EACH(val_at(obj_val(svc), "spec.ports"), p)
        if (!*port || streq(port, val_str_at(p, "name", "")) || atoll(port) == val_int_at(p, "port", -1)) {
            port_name = arena_strdup(c->a, val_str_at(p, "name", ""));
            break;
        }
    if (!port_name || store_iter_init(&it, c->api->store, t, c->path.ns, 0, NULL, NULL, &err) < 0)
        return false;
    *ret_ip = NULL;
    while (!*ret_ip && (o = store_iter_next(&it))) {
        const struct val *v = obj_val(o);

        if (!streq0(obj_label(o, "kubernetes.io/service-name"), name))
            continue;
        VAL_EACH(val_get(v, "ports"), p)
            if (streq(val_str_at(p, "name", ""), port_name))
                *ret_port = val_int_at(p, "port", 0);
        VAL_EACH(val_get(v, "endpoints"), e)
            if (val_bool_at(e, "conditions.ready", true) && val_len(val_get(e, "addresses")) && !*ret_ip)
                *ret_ip = arena_strdup(c->a, val_text(&val_get(e, "addresses")->items[0], ""));
    }
    store_iter_done(&it);
    return *ret_ip && *ret_port;
}

static void proxy_done(struct http_req *req, int status, const struct err *err, void *arg)
{
    (void)req;
    (void)status;
    (void)err;
    http_origin_free(arg);
}

static int to_proxy(struct exchange *x, struct call *c)
{
    const char *scheme, *name, *port, *ip = NULL;
    bool pod = streq(c->path.plural, "pods");
    struct http_proxy_opts opts = {0};
    struct http_origin *origin;
    struct err err = {0};
    int64_t number = 0;

    split_target(c->a, c->path.name, &scheme, &name, &port);
    if (pod) {
        const struct obj *o = store_get(c->api->store, c->table, c->path.ns, name);

        if (!o)
            return fail_not_found(c, name);
        ip = arena_strdup(c->a, val_str_at(obj_val(o), "status.podIP", ""));
        number = *port ? atoll(port) : val_int_at(obj_val(o), "spec.containers[0].ports[0].containerPort", 80);
        if (!*ip)
            return fail(c, 400, "BadRequest", "address not allowed");
    } else if (!service_target(c, name, port, &ip, &number)) {
        if (!store_get(c->api->store, c->table, c->path.ns, name))
            return fail_not_found(c, name);
        return fail(c, 503, "ServiceUnavailable", "no endpoints available for service \"%s\"", name);
    }
    origin = http_origin_new(x->f->client, arena_printf(c->a, "%s://%s:%lld", scheme, ip, (long long)number),
                             &(struct http_origin_opts){.insecure = true}, &err);
    if (!origin)
        return fail_err(c, &err);
    opts.path = arena_printf(c->a, "/%s%s%s", c->path.rest, *x->http->query ? "?" : "", x->http->query);
    opts.on_done = proxy_done;
    opts.arg = origin;
    http_proxy(x->http, origin, &opts);
    return 0;
}

bool tunnel_serve(struct exchange *x)
{
    static const char *const subs[] = {"log", "exec", "attach", "portforward", "proxy"};
    struct call *c = arena_new_of(x->http->arena, struct call);
    bool ours = false, get = streq(x->req.method, "GET");
    const char *m = x->req.method;

    *c = (struct call){.api = x->f->api, .req = &x->req, .a = x->http->arena, .user = x->req.user,
                       .now_ms = env_now_ms(x->f->api->env)};
    if (!path_parse(c->a, x->req.path, &c->path) || *c->path.group || !*c->path.ns ||
        (!streq(c->path.plural, "pods") && !streq(c->path.plural, "services")))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(subs); i++)
        ours |= streq(c->path.sub, subs[i]) && (i == 4 || streq(c->path.plural, "pods"));
    if (!ours)
        return false;
    c->verb = get || streq(m, "HEAD") ? "get" : streq(m, "POST") ? "create" : streq(m, "PUT") ? "update"
            : streq(m, "PATCH") ? "patch" : "delete";
    c->is_get = get;
    c->r = schema_resource(c->api->schema, "", "v1", c->path.plural);
    c->stored = c->r;
    if (!c->r || options_params(c) < 0)
        return false;
    c->table = api_table(c->api, c->r);
    if (access_check(c) < 0)
        answer(x, c);
    else if ((streq(c->path.sub, "proxy") ? to_proxy(x, c) : to_node(x, c)) < 0)
        answer(x, c);
    return true;
}
