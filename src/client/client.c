#include "client/client_int.h"

#include <stdio.h>

void events_free(struct client *c);

struct env *client_env(struct client *c)
{
    return c->env;
}

void client_count(struct client *c, const char *name, const char *labels, double by)
{
    if (c->ops->count)
        c->ops->count(c, name, labels, by);
}

bool client_is_local(const struct client *c)
{
    return c->ops->local;
}

int64_t client_seen(const struct client *c)
{
    return c->seen;
}

void *client_free(struct client *c)
{
    if (!c)
        return NULL;
    events_free(c);
    ASSERT(list_empty(&c->mirrors));
    for (struct list *l; (l = list_first(&c->calls));) {
        struct client_op *op = list_entry(l, struct client_op, link);
        struct client_result r = {0};
        struct err err;
        client_fn *fn = op->fn;
        void *arg = op->arg;

        err_set(&err, CANCELLED, "the client was closed");
        r.err = &err;
        client_cancel(op);
        fn(arg, &r);
    }
    c->ops->free(c);
    return NULL;
}

/* --- names ------------------------------------------------------------------------------------ */
struct client_resource client_resource(struct arena *a, const char *resource)
{
    const char *last = strrchr(resource, '/'), *first = strchr(resource, '/');

    ASSERT(last);
    if (first == last)
        return (struct client_resource){"", arena_strndup(a, resource, (size_t)(last - resource)), last + 1};
    return (struct client_resource){arena_strndup(a, resource, (size_t)(first - resource)),
                                    arena_strndup(a, first + 1, (size_t)(last - first - 1)), last + 1};
}

char *client_escape(struct arena *a, const char *s)
{
    struct buf b = {0};
    char *out;

    for (; *s; s++)
        if ((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
            strchr("-._~:", *s))
            buf_addc(&b, *s);
        else
            buf_printf(&b, "%%%02X", (unsigned char)*s);
    out = arena_strndup(a, b.n ? b.p : "", b.n);
    buf_done(&b);
    return out;
}

char *client_path(struct arena *a, const char *resource, const char *ns, const char *name, const char *sub)
{
    struct client_resource r = client_resource(a, resource);

    return arena_printf(a, "/%s%s/%s%s%s/%s%s%s%s%s", *r.group ? "apis/" : "api", r.group, r.version,
                        str_empty(ns) ? "" : "/namespaces/", str_empty(ns) ? "" : client_escape(a, ns),
                        r.plural, str_empty(name) ? "" : "/", str_empty(name) ? "" : client_escape(a, name),
                        str_empty(sub) ? "" : "/", str_empty(sub) ? "" : sub);
}

const char *client_method(enum client_verb verb)
{
    static const char *const method[] = {
        [CLIENT_GET] = "GET",      [CLIENT_LIST] = "GET",   [CLIENT_CREATE] = "POST",
        [CLIENT_UPDATE] = "PUT",   [CLIENT_PATCH] = "PATCH", [CLIENT_DELETE] = "DELETE",
    };

    return method[verb];
}

const char *client_content_type(const struct client_call *call)
{
    static const char *const type[] = {
        [CLIENT_PATCH_MERGE] = "application/merge-patch+json",
        [CLIENT_PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
        [CLIENT_PATCH_JSON] = "application/json-patch+json",
    };

    return call->verb == CLIENT_PATCH ? type[call->patch_type] : "application/json";
}

const char *client_key_of(const char *ns, const char *name, char out[CLIENT_KEY_BYTES])
{
    snprintf(out, CLIENT_KEY_BYTES, "%s%s%s", ns ? ns : "", str_empty(ns) ? "" : "/", name);
    return out;
}

const char *client_key(const struct obj *o, char out[CLIENT_KEY_BYTES])
{
    return client_key_of(o->namespace_, o->name, out);
}

void client_key_split(const char *key, char buf[CLIENT_KEY_BYTES], const char **ret_ns,
                      const char **ret_name)
{
    char *slash;

    snprintf(buf, CLIENT_KEY_BYTES, "%s", key);
    slash = strchr(buf, '/');
    *ret_ns = slash ? buf : "";
    *ret_name = slash ? slash + 1 : buf;
    if (slash)
        *slash = 0;
}

/* --- calls ------------------------------------------------------------------------------------ */
struct client_op *client_call(struct client *c, const struct client_call *call, client_fn *fn, void *arg)
{
    struct arena *a = arena_new();
    struct client_op *op = arena_new_of(a, struct client_op);

    op->c = c;
    op->arena = a;
    op->fn = fn;
    op->arg = arg;
    op->call = *call;
    op->call.resource = arena_strdup(a, call->resource);
    op->call.ns = call->ns ? arena_strdup(a, call->ns) : "";
    op->call.name = call->name ? arena_strdup(a, call->name) : "";
    op->call.sub = call->sub ? arena_strdup(a, call->sub) : "";
    op->call.query = call->query ? arena_strdup(a, call->query) : NULL;
    op->call.body = call->body ? val_copy(a, call->body) : NULL;
    list_push(&c->calls, &op->link);
    c->ops->call(c, op);
    return op;
}

void op_free(struct client_op *op)
{
    list_remove(&op->link);
    env_timer_free(op->timer);
    arena_free(op->arena); /* op lies in it */
}

void op_finish(struct client_op *op, const struct client_result *r)
{
    if (!op->cancelled) {
        list_remove(&op->link); /* fn may free the client */
        op->fn(op->arg, r);
    }
    op_free(op);
}

void op_fail(struct client_op *op, const struct err *err, int status)
{
    struct client_result r = {.err = err, .status = status};

    op_finish(op, &r);
}

void client_cancel(struct client_op *op)
{
    list_remove(&op->link);
    op->cancelled = true;
    op->c->ops->cancel(op);
}
