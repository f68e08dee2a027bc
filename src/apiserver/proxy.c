/* apiserver/proxy.c - requests that are passed on whole: to pods, services and nodes (/proxy), and to the
 * servers of aggregated APIs. Bodies stream both ways, upgrades go through. Who asks is told to an
 * aggregated server in X-Remote-* headers, which it believes for our front-proxy certificate; nobody else
 * hears of tokens or of those headers. */
#include "apiserver/audit.h"
#include "apiserver/front_int.h"
#include "apiserver/outside.h"

#include <arpa/inet.h>
#include <strings.h>

/* What a request that was passed on needs until its end. In its arena. */
struct passing {
    struct exchange *x;
    struct http_origin *own; /* freed at the end; NULL: kept by somebody else */
    const char *target;      /* host:port that it went to */
    const char *prefix;      /* of our path, where the target's begins; NULL: the same paths */
};

static void on_done(struct http_req *req, int status, const struct err *err, void *arg)
{
    struct passing *p = arg;

    (void)req;
    (void)err;
    audit_end(p->x->req.audit, status);
    if (p->own)
        http_origin_free(p->own);
}

/* A redirect to the target itself goes on through us. */
static const char *on_header(struct http_req *req, const char *name, const char *value, void *arg)
{
    struct passing *p = arg;
    const char *path = value, *host;
    size_t n;

    if (!p->prefix || strcasecmp(name, "location") != 0)
        return value;
    if ((host = strstr(value, "://"))) {
        host += 3;
        n = strcspn(host, "/?#");
        if (n != strlen(p->target) || strncmp(host, p->target, n) != 0)
            return value;
        path = host + n;
    }
    if (*path != '/' || str_starts(path, p->prefix))
        return value;
    return arena_printf(req->arena, "%s%s", p->prefix, path);
}

static bool on_fail(struct http_req *req, const struct err *err, void *arg)
{
    struct passing *p = arg;
    struct api_response bad = {.status = 503, .content_type = "application/json", .remaining = -1};

    bad.val = status_doc(req->arena, 503, "ServiceUnavailable",
                         arena_printf(req->arena, "error trying to reach service: %s", err->msg));
    if (p->own)
        http_origin_free(p->own);
    exchange_reply(p->x, &bad);
    return true;
}

static bool private_header(const char *name)
{
    return strcasecmp(name, "authorization") == 0 || strncasecmp(name, "x-remote-", 9) == 0 ||
           strncasecmp(name, "impersonate-", 12) == 0;
}

static void pass_on(struct passing *p, struct http_origin *to, const char *path, const char *host,
                    const struct http_header *add, size_t add_n)
{
    struct http_req *http = p->x->http;
    const char **drop = arena_array(http->arena, const char *, http->headers_n + 1);
    struct http_proxy_opts opts = {.path = path, .host = host, .add = add, .add_n = add_n, .drop = drop,
                                   .on_done = on_done, .on_header = on_header, .on_fail = on_fail, .arg = p};

    for (size_t i = 0; i < http->headers_n; i++)
        if (private_header(http->headers[i].name))
            drop[opts.drop_n++] = http->headers[i].name;
    if (http_upgrade_wanted(http))
        audit_started(p->x->req.audit, 101);
    http_proxy(http, to, &opts);
}

/* ---------------------------------------------------------------- pods, services, nodes */

/* "[scheme:]name[:port]"; false: it is none of these. */
static bool split_target(struct arena *a, const char *s, const char **scheme, const char **name,
                         const char **port)
{
    char *text = arena_strdup(a, s), *first = strchr(text, ':'), *last = strrchr(text, ':');

    *scheme = "http";
    *name = text;
    *port = "";
    if (first && first != last) {
        *first = *last = 0;
        if (*text && !streq(text, "http") && !streq(text, "https"))
            return false;
        *scheme = *text ? text : "http";
        *name = first + 1;
        *port = last + 1;
    } else if (first) {
        *first = 0;
        *port = first + 1;
    }
    return **name && !strchr(*name, ':');
}

/* Addresses of this machine itself, of nobody and of everybody are no pods. */
static bool is_global(const char *ip)
{
    struct in6_addr six;
    struct in_addr four;
    uint32_t n;

    if (inet_pton(AF_INET6, ip, &six) == 1)
        return !IN6_IS_ADDR_LOOPBACK(&six) && !IN6_IS_ADDR_MULTICAST(&six) && !IN6_IS_ADDR_LINKLOCAL(&six) &&
               !IN6_IS_ADDR_UNSPECIFIED(&six);
    if (inet_pton(AF_INET, ip, &four) != 1)
        return false;
    n = ntohl(four.s_addr);
    return n >> 24 != 127 && n >> 28 != 14 && n >> 16 != 0xa9fe && n != 0 && n != 0xffffffff;
}

static const char *url_of(struct arena *a, const char *scheme, const char *ip, int64_t port)
{
    return arena_printf(a, strchr(ip, ':') ? "%s://[%s]:%lld" : "%s://%s:%lld", scheme, ip, (long long)port);
}

static int pod_url(struct call *c, const char *scheme, const char *name, const char *port, const char **ret)
{
    const struct obj *o = store_get(c->api->store, c->table, c->path.ns, name);
    int64_t number = atoll(port);
    const char *ip;

    if (!o)
        return fail_not_found(c, name);
    if (!*port)
        VAL_EACH(val_at(obj_val(o), "spec.containers"), ct)
            if (!number)
                number = val_int_at(ct, "ports[0].containerPort", 0);
    ip = val_str_at(obj_val(o), "status.podIP", val_str_at(obj_val(o), "status.podIPs[0].ip", ""));
    if (!is_global(ip))
        return fail(c, 400, "BadRequest", "address not allowed");
    *ret = url_of(c->a, scheme, ip, number ? number : streq(scheme, "https") ? 443 : 80);
    return 0;
}

static int service_url(struct call *c, const char *scheme, const char *name, const char *port, const char **ret)
{
    bool number = *port && port[strspn(port, "0123456789")] == 0;
    struct err err = {0};
    char *url;

    if (outside_service(c->api, c->a, c->path.ns, name, number ? atoll(port) : 0, number ? NULL : port, scheme, &url,
                        &err) == 0) {
        *ret = url;
        return 0;
    }
    if (!store_get(c->api->store, c->table, c->path.ns, name))
        return fail_not_found(c, name);
    if (err.code == ERR_NOT_FOUND && number)
        return fail(c, 503, "ServiceUnavailable", "%s", err.msg);
    return fail(c, 503, "ServiceUnavailable", "no endpoints available for service \"%s\"", c->path.name);
}

/* The kubelet of another machine, or something else that listens there. */
static int node_url(struct call *c, const char *scheme, const char *name, const char *port, const char **ret)
{
    const struct obj *o = store_get(c->api->store, c->table, "", name);
    const char *ip = NULL;
    int64_t kubelet;

    if (!o)
        return fail_not_found(c, name);
    kubelet = val_int_at(obj_val(o), "status.daemonEndpoints.kubeletEndpoint.Port", 10250);
    VAL_EACH(val_at(obj_val(o), "status.addresses"), it)
        if (streq(val_str_at(it, "type", ""), "InternalIP") && !ip)
            ip = val_str_at(it, "address", "");
    if (!ip)
        return fail(c, 500, "InternalError", "no preferred addresses found; known addresses: []");
    *ret = url_of(c->a, *port && atoll(port) != kubelet ? scheme : "https", ip, *port ? atoll(port) : kubelet);
    return 0;
}

/* The path below /proxy as the client wrote it, and what comes before. */
static const char *rest_of(struct call *c, const char **ret_prefix)
{
    const char *raw = c->req->path, *at;

    for (at = raw; (at = strstr(at, "/proxy")); at += 6)
        if (!at[6] || at[6] == '/')
            break;
    if (!at) {
        *ret_prefix = raw;
        return "";
    }
    *ret_prefix = arena_strndup(c->a, raw, (size_t)(at + 6 - raw));
    return at + 6;
}

/* A page's relative links need the slash at its end. */
static int add_slash(struct call *c, struct exchange *x)
{
    const char *q = x->http->query;

    audit_end(x->req.audit, 301);
    http_header(x->http, "location", arena_printf(c->a, "%s/%s%s", c->req->path, *q ? "?" : "", q));
    http_reply(x->http, 301, "text/plain; charset=utf-8", "", 0);
    c->taken = true;
    return 0;
}

int proxy_target(struct call *c, struct exchange *x)
{
    const char *scheme, *name, *port, *url = NULL, *prefix, *rest = rest_of(c, &prefix), *q = x->http->query;
    struct passing *p = arena_new_of(c->a, struct passing);
    struct http_origin *to;
    struct err err = {0};
    int r;

    if (!split_target(c->a, c->path.name, &scheme, &name, &port))
        return fail(c, 400, "BadRequest", "invalid %.*s request \"%s\"", (int)strlen(c->r->plural) - 1, c->r->plural,
                    c->path.name);
    if (!*rest && c->is_get)
        return add_slash(c, x);
    *p = (struct passing){.x = x, .prefix = prefix};
    rest = arena_printf(c->a, "%s%s%s%s", *rest ? "" : "/", rest, *q ? "?" : "", q);
    if (streq(c->r->plural, "nodes") && !*port && streq0(c->api->node_name, name)) {
        c->taken = true;
        p->target = "localhost";
        pass_on(p, x->f->node, rest, NULL, NULL, 0);
        return 0;
    }
    r = streq(c->r->plural, "pods")       ? pod_url(c, scheme, name, port, &url)
        : streq(c->r->plural, "services") ? service_url(c, scheme, name, port, &url)
                                          : node_url(c, scheme, name, port, &url);
    if (r < 0)
        return -1;
    if (!(to = http_origin_new(x->f->client, url, &(struct http_origin_opts){.insecure = true}, &err)))
        return fail_err(c, &err);
    p->own = to;
    p->target = strstr(url, "://") + 3;
    c->taken = true;
    pass_on(p, to, rest, p->target, NULL, 0);
    return 0;
}

/* ---------------------------------------------------------------- aggregated APIs */

/* "/apis/G/V/..." and "/openapi/v3/apis/G/V" */
static const struct remote *remote_of(struct exchange *x)
{
    const char *p = x->http->raw_path, *group, *version;
    size_t n;

    if (str_starts(p, "/openapi/v3/"))
        p += strlen("/openapi/v3");
    if (!str_starts(p, "/apis/"))
        return NULL;
    p += strlen("/apis/");
    n = strcspn(p, "/");
    if (!p[n])
        return NULL;
    group = arena_strndup(x->http->arena, p, n);
    p += n + 1;
    version = arena_strndup(x->http->arena, p, strcspn(p, "/"));
    return aggregate_remote(x->f->api, group, version);
}

bool proxy_streams(struct exchange *x)
{
    struct path path;

    if (strstr(x->http->raw_path, "/proxy") && path_parse(x->http->arena, x->http->raw_path, &path) &&
        streq(path.sub, "proxy") && !*path.group)
        return true;
    return remote_of(x) != NULL;
}

/* X-Remote-User and so on. */
static struct http_header *remote_headers(struct exchange *x, size_t *ret_n)
{
    struct arena *a = x->http->arena;
    const struct auth_user *u = &x->user;
    size_t max = 3, n = 0;
    struct http_header *h;

    for (const char *const *g = u->groups; g && *g; g++)
        max++;
    VAL_EACH_MEMBER(u->extra, m)
        max += val_len(&m->v);
    h = arena_array(a, struct http_header, max);
    h[n++] = (struct http_header){"X-Remote-User", u->name};
    if (!str_empty(u->uid))
        h[n++] = (struct http_header){"X-Remote-Uid", u->uid};
    for (const char *const *g = u->groups; g && *g; g++)
        h[n++] = (struct http_header){"X-Remote-Group", *g};
    VAL_EACH_MEMBER(u->extra, m)
        VAL_EACH(&m->v, v)
            h[n++] = (struct http_header){arena_printf(a, "X-Remote-Extra-%s", http_escape(a, m->key, "")),
                                          val_text(v, "")};
    *ret_n = n;
    return h;
}

static int unavailable(struct call *c)
{
    static const char text[] = "service unavailable\n";

    answer_text(c, 503, "text/plain; charset=utf-8", text, sizeof(text) - 1);
    return -1;
}

static int remote_call(struct call *c)
{
    struct exchange *x = c->arg;
    const struct remote *r = remote_of(x);
    struct passing *p = arena_new_of(c->a, struct passing);
    struct http_header *headers;
    struct http_origin *to;
    struct err err = {0};
    const char *host;
    size_t n;

    if (call_read(c) < 0 || access_check(c) < 0)
        return -1;
    if (!r || !aggregate_available(r) || !(to = aggregate_origin(c->api, r, c->a, &host, &err)))
        return unavailable(c);
    headers = remote_headers(x, &n);
    *p = (struct passing){.x = x, .target = host};
    c->taken = true;
    pass_on(p, to, x->http->target, host, headers, n);
    return 0;
}

bool proxy_serve(struct exchange *x)
{
    if (!remote_of(x))
        return false;
    http_on_close(x->http, exchange_gone, x);
    call_run(x->f->api, &x->req, remote_call, exchange_answer, x, NULL);
    return true;
}
