/* The remote backend: an API server somewhere, by HTTP. */
#include "client/remote_int.h"

#include "codec/json.h"
#include "env/fs.h"

#include <sys/stat.h>

static struct remote *remote_of(struct client *c)
{
    ASSERT(!c->ops->local);
    return (struct remote *)c;
}

/* --- requests --------------------------------------------------------------------------------- */
static const char *bearer(struct remote *r)
{
    int64_t now = env_mono_us(r->c.env) / 1000;
    struct err err;
    char *text;

    if (!r->config.token_file)
        return r->config.token;
    if (!r->token || now - r->token_ms > 60 * 1000) { /* it is replaced before it runs out */
        text = fs_read(r->config.token_file, 1 << 16, NULL, &err);
        if (text) {
            text[strcspn(text, "\r\n")] = 0;
            free(r->token);
            r->token = text;
        }
        r->token_ms = now;
    }
    return r->token;
}

/* --- credentials ------------------------------------------------------------------------------ */
enum { LOOK_MS = 30000 };

static int64_t changed_ns(const char *path)
{
    struct stat st;

    return stat(path, &st) < 0 ? 0 : (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static struct http_origin *origin_of(struct remote *r, const struct kubeconfig *k, const char *url,
                                     struct err *err)
{
    struct http_origin_opts opts = {.ca_pem = k->ca_pem, .cert_pem = k->cert_pem, .key_pem = k->key_pem,
                                    .server_name = k->server_name, .insecure = k->insecure};

    return http_origin_new(r->http, url, &opts, err);
}

/* The server makes certificates anew before they end: the next requests use them. Where it is does not
 * change; what can not be read leaves all as it was. */
struct http_origin *remote_origin(struct remote *r)
{
    int64_t now = env_mono_us(r->c.env) / 1000, changed;
    struct kubeconfig k = {0};
    struct http_origin *o;
    struct err err;

    if (now - r->looked_ms < LOOK_MS)
        return r->origin;
    r->looked_ms = now;
    changed = changed_ns(r->path);
    if (changed == r->changed_ns)
        return r->origin;
    r->changed_ns = changed;
    if (kubeconfig_read(r->arena, r->path, &k, &err) < 0 || !k.server || !streq(k.server, r->config.server))
        return r->origin;
    if (!(o = origin_of(r, &k, k.server, &err)))
        return r->origin;
    http_origin_free(r->origin);
    r->config = k;
    return r->origin = o;
}

/* --- headers ---------------------------------------------------------------------------------- */
size_t remote_headers(struct remote *r, struct arena *a, const char *content_type,
                      struct http_header out[HEADERS_MAX])
{
    const char *token = bearer(r);
    size_t n = 0;

    out[n++] = (struct http_header){.name = "accept", .value = "application/json"};
    out[n++] = (struct http_header){.name = "user-agent", .value = r->agent};
    if (content_type)
        out[n++] = (struct http_header){.name = "content-type", .value = content_type};
    if (token)
        out[n++] = (struct http_header){.name = "authorization", .value = arena_printf(a, "Bearer %s", token)};
    return n;
}

int remote_status_err(int status, const char *body, size_t n, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored;
    struct val *v = json_parse(a, body ? body : "", n, &ignored);
    const char *reason = val_str_at(v, "reason", ""), *message = val_str_at(v, "message", NULL);
    enum err_code code = status >= 500 ? ERR_INTERNAL : ERR_INVALID_ARGUMENT;
    bool found = false;

    for (int i = 1; i < ERR_COUNT && !found; i++) /* by reason: 409 and 410 have two meanings each */
        if (err_http(i) == status && streq(err_reason(i), reason)) {
            code = i;
            found = true;
        }
    for (int i = 1; i < ERR_COUNT && !found; i++)
        if (err_http(i) == status) {
            code = i;
            found = true;
        }
    return err_set_(err, code, 0, "%s", message ? message : "the server answered without a reason");
}

const struct obj *remote_obj(const struct val *v)
{
    const struct val *meta = val_get(v, "metadata");

    if (!val_is(meta, VAL_MAP) || !val_get(meta, "name"))
        return NULL;
    return obj_seal(v, strtoll(val_str_at(meta, "resourceVersion", "0"), NULL, 10));
}

const struct obj **remote_list_objs(struct arena *a, const struct val *list, uint32_t *ret_n)
{
    const char *kind = val_str_at(list, "kind", ""), *api = val_str_at(list, "apiVersion", "");
    size_t kind_n = str_ends(kind, "List") ? strlen(kind) - 4 : 0;
    const struct obj **out = arena_array(a, const struct obj *, val_len(val_get(list, "items")) + 1);

    *ret_n = 0;
    VAL_EACH(val_get(list, "items"), it) {
        struct val full = *it;
        const struct obj *o;

        if (kind_n && val_is(it, VAL_MAP) && !val_get(it, "kind")) { /* servers leave it out in lists */
            struct val *v = val_map(a);

            val_put_str(a, v, "apiVersion", api);
            val_put(a, v, "kind", val_strn(a, kind, kind_n));
            VAL_EACH_MEMBER(it, m)
                val_putn(a, v, m->key, m->n, &m->v);
            full = *v;
        }
        if ((o = remote_obj(&full)))
            out[(*ret_n)++] = o;
    }
    return out;
}

static void answered(const struct http_answer *ans, char *body, size_t n, const struct err *err, void *arg)
{
    struct client_op *op = arg;
    struct client_result r = {.err = err, .status = ans ? ans->status : 0};
    const struct obj *o = NULL;
    struct err own;

    op->backend = NULL;
    if (!err && r.status >= 300) {
        remote_status_err(r.status, body, n, &own);
        r.err = &own;
    } else if (!err) {
        r.val = json_parse(op->arena, body, n, &own);
        if (!r.val) {
            err_wrap(&own, "answer of the API server");
            r.err = &own;
        } else if ((o = remote_obj(r.val))) {
            r.obj = o;
            if (op->call.verb != CLIENT_GET && op->call.verb != CLIENT_LIST)
                op->c->seen = MAX(op->c->seen, o->revision);
        }
    }
    op_finish(op, &r);
    obj_unref(o);
}

static void remote_call(struct client *c, struct client_op *op)
{
    struct remote *r = remote_of(c);
    struct client_call *call = &op->call;
    struct arena *a = op->arena;
    struct http_header headers[HEADERS_MAX];
    char *path = client_path(a, call->resource, call->ns, call->name, call->sub);
    struct http_call_opts opts = {
        .method = client_method(call->verb),
        .path = arena_printf(a, "%s%s%s%s", r->prefix, path, str_empty(call->query) ? "" : "?",
                             str_empty(call->query) ? "" : call->query),
        .headers = headers,
        .timeout_ms = (uint32_t)(call->timeout_ms ? call->timeout_ms : 30000),
    };

    if (call->body)
        opts.body = json_text(a, call->body, &opts.body_n);
    opts.headers_n = remote_headers(r, a, call->body ? client_content_type(call) : NULL, headers);
    op->backend = http_fetch(remote_origin(r), &opts, ANSWER_BYTES_MAX, answered, op);
}

static void remote_cancel(struct client_op *op)
{
    if (op->backend)
        http_call_cancel(op->backend);
    op_free(op);
}

/* --- life ------------------------------------------------------------------------------------- */
static void remote_free(struct client *c)
{
    struct remote *r = remote_of(c);

    waiter_free(r);
    http_origin_free(r->origin);
    free(r->token);
    arena_free(r->arena);
    free(r);
}

static const struct client_ops remote_ops = {
    .local = false,
    .call = remote_call,
    .cancel = remote_cancel,
    .mirror_start = reflect_start,
    .mirror_stop = reflect_stop,
    .free = remote_free,
};

struct client *client_remote_new(struct env *env, struct http_client *http, const char *kubeconfig_path,
                                 const char *user_agent, struct err *err)
{
    struct remote *r = xcalloc(1, sizeof *r);
    char *url, *slash;

    r->arena = arena_new();
    r->c.ops = &remote_ops;
    r->c.env = env;
    list_init(&r->c.calls);
    list_init(&r->c.mirrors);
    if (kubeconfig_read(r->arena, kubeconfig_path, &r->config, err) < 0)
        goto fail;
    r->agent = arena_strdup(r->arena, user_agent);
    r->prefix = "";
    url = arena_strdup(r->arena, r->config.server);
    slash = strstr(url, "://") ? strchr(strstr(url, "://") + 3, '/') : NULL;
    if (slash) { /* https://host/some/path, as proxies in front of clusters have it */
        r->prefix = arena_strdup(r->arena, slash);
        if (str_ends(r->prefix, "/"))
            r->prefix = arena_strndup(r->arena, r->prefix, strlen(r->prefix) - 1);
        *slash = 0;
    }
    r->http = http;
    r->path = arena_strdup(r->arena, kubeconfig_path);
    r->looked_ms = env_mono_us(env) / 1000;
    r->changed_ns = changed_ns(r->path);
    r->origin = origin_of(r, &r->config, url, err);
    if (!r->origin)
        goto fail;
    return &r->c;
fail:
    arena_free(r->arena);
    free(r);
    return NULL;
}
