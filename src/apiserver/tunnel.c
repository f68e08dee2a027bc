/* apiserver/tunnel.c - what goes through us to somebody else: logs, exec, attach and port-forward to
 * the node of a pod (over its unix socket), and the HTTP proxies to pods and services.
 * Checked here: access, that the pod is there, which container is meant. The bytes are not looked at. */
#include "apiserver/admission.h"
#include "apiserver/front_int.h"

#include <stdio.h>

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
        return 0;
    }
    if (!bound_pod(c))
        return -1;
    if (streams && !http_upgrade_wanted(x->http))
        return fail(c, 400, "BadRequest", "Upgrade request required");
    if (streq(sub, "exec") && str_empty(param(c, "command")))
        return fail(c, 400, "BadRequest", "you must specify at least 1 command for the container");
    if (streq(sub, "portforward")) {
        c->taken = true;
        pass(x, x->f->node, arena_printf(c->a, "/portForward/%s/%s%s", c->path.ns, c->path.name,
                                         node_query(c, false)));
        return 0;
    }
    if (!(container = pick_container(c, obj_val(pod))))
        return -1;
    c->taken = true;
    base = logs ? "containerLogs" : streq(sub, "exec") ? "exec" : "attach";
    pass(x, x->f->node, arena_printf(c->a, "/%s/%s/%s/%s%s", base, c->path.ns, c->path.name,
                                     container, node_query(c, streams)));
    return 0;
}

/* ---------------------------------------------------------------- */

static bool flag(const struct call *c, const char *name, bool otherwise)
{
    const char *s = param(c, name);

    return s ? streq(s, "true") || streq(s, "1") : otherwise;
}

/* The query as the options object that admission sees. */
static struct val *options_of(struct call *c)
{
    const char *sub = c->path.sub;
    bool exec = streq(sub, "exec");
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "kind", c->sub->kind);
    val_put_str(c->a, v, "apiVersion", "v1");
    if (exec || streq(sub, "attach")) {
        if (flag(c, "stdin", false))
            val_put_bool(c->a, v, "stdin", true);
        if (flag(c, "stdout", !exec))
            val_put_bool(c->a, v, "stdout", true);
        if (flag(c, "stderr", !exec))
            val_put_bool(c->a, v, "stderr", true);
        if (flag(c, "tty", false))
            val_put_bool(c->a, v, "tty", true);
        if (!str_empty(param(c, "container")))
            val_put_str(c->a, v, "container", param(c, "container"));
    }
    for (uint32_t i = 0; i < c->params_n; i++) {
        if (exec && streq(c->params[i].name, "command"))
            val_push_str(c->a, val_need_list(c->a, v, "command"), c->params[i].value);
        if (streq(sub, "portforward") && streq(c->params[i].name, "ports"))
            val_push(c->a, val_need_list(c->a, v, "ports"), val_int(c->a, atoll(c->params[i].value)));
    }
    if (streq(sub, "proxy") && *c->path.rest)
        val_put_str(c->a, v, "path", c->path.rest);
    return v;
}

static int tunnel_call(struct call *c)
{
    struct exchange *x = c->arg;

    if (call_read(c) < 0)
        return -1;
    c->r = schema_resource(c->api->schema, "", "v1", c->path.plural);
    c->stored = c->r;
    c->sub = c->r ? schema_sub(c->r, c->path.sub) : NULL;
    c->table = c->r ? api_table(c->api, c->r) : NULL;
    if (!c->sub)
        return fail_no_page(c);
    if (access_check(c) < 0)
        return -1;
    if (!streq(c->path.sub, "log") && admission_of_body(c, ADMIT_CONNECT, options_of(c), NULL, c->path.name) < 0)
        return -1;
    return streq(c->path.sub, "proxy") ? proxy_target(c, x) : to_node(x, c);
}

bool tunnel_serve(struct exchange *x)
{
    static const char *const subs[] = {"log", "exec", "attach", "portforward", "proxy"};
    struct path path;
    bool ours = false;

    if (!path_parse(x->http->arena, x->req.path, &path) || *path.group || !*path.sub)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(subs); i++)
        ours |= streq(path.sub, subs[i]) &&
                ((streq(path.plural, "pods") && *path.ns) ||
                 (i == 4 && ((streq(path.plural, "services") && *path.ns) || streq(path.plural, "nodes"))));
    if (!ours)
        return false;
    http_on_close(x->http, exchange_gone, x);
    call_run(x->f->api, &x->req, tunnel_call, exchange_answer, x, NULL);
    return true;
}
