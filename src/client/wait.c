/* client/wait.c - verbs and reads at once on the remote backend.
 *
 * Controllers and the scheduler are written for verbs that are done when they return. In a process of
 * their own (tandem controllers) they may wait: the request runs on a loop of its own, turned here until
 * the answer is there, so no callback of the caller's loop comes from inside. Reads are always asked of
 * the server. What a write brought is put into this client's mirrors at once, so that they hold our own
 * last write as the local ones do; the watch brings it again, and older news of it are left out
 * (reflect.c). Where waiting would stop others (the node, the gateway), client_call() is the way. */
#include "base/log.h"
#include "client/remote_int.h"

#include <uv.h>

struct waiter {
    uv_loop_t loop;
    struct env *env;
    struct http_client *http;
    struct client *client;
};

struct waited {
    const struct client_call *call;
    bool done;
    int rc;
    struct err *err;
    const struct obj *obj; /* a reference */
    struct arena *a;
    const struct val **ret_val;
};

static void waited_done(void *arg, const struct client_result *r)
{
    struct waited *w = arg;

    w->done = true;
    if (r->err) {
        *w->err = *r->err;
        w->rc = -1;
        return;
    }
    w->obj = r->obj ? obj_ref(r->obj) : NULL;
    if (w->ret_val)
        *w->ret_val = val_copy(w->a, r->val);
}

static struct waiter *waiter_of(struct remote *r, struct err *err)
{
    struct waiter *w = r->waiter;

    if (w)
        return w;
    w = xcalloc(1, sizeof *w);
    uv_loop_init(&w->loop);
    w->env = env_real_new(&w->loop);
    w->http = http_client_new(&w->loop, NULL);
    w->client = client_remote_new(w->env, w->http, r->path, r->agent, err);
    r->waiter = w;
    return w->client ? w : (waiter_free(r), NULL);
}

void waiter_free(struct remote *r)
{
    struct waiter *w = STEAL(r->waiter);

    if (!w)
        return;
    client_free(w->client);
    http_client_free(w->http);
    env_free(w->env);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* handles close */
    uv_loop_close(&w->loop);
    free(w);
}

/* The mirrors of the whole kind see what was written; deleted: the answer to a deletion, which is the
 * object when it stays for a while. */
static void tell_mirrors(struct client *c, const char *resource, const char *ns, const char *name,
                         const struct obj *o, bool deleted)
{
    bool stays = o && obj_deleting(o) &&
                 (val_len(val_get(obj_meta(o), "finalizers")) ||
                  val_int_at(obj_meta(o), "deletionGracePeriodSeconds", 0) > 0);

    LIST_EACH(&c->mirrors, l) {
        struct mirror *m = list_entry(l, struct mirror, link);

        if (!streq(m->args.resource, resource) || m->args.ns || m->args.field_selector ||
            m->args.label_selector || !m->synced)
            continue;
        if (deleted && !stays)
            reflect_gone(m, ns ? ns : "", name);
        else if (o)
            reflect_news(m, o);
    }
}

int remote_at_once(struct client *c, const struct client_call *call, const struct obj **ret,
                   struct arena *a, const struct val **ret_val, struct err *err)
{
    struct waited w = {.call = call, .err = err, .a = a, .ret_val = ret_val};
    struct waiter *on = waiter_of((struct remote *)c, err);
    bool write = call->verb != CLIENT_GET && call->verb != CLIENT_LIST;

    if (!on)
        return -1;
    uv_update_time(&on->loop); /* it may have stood still for long: limits count from now */
    client_call(on->client, call, waited_done, &w);
    while (!w.done)
        uv_run(&on->loop, UV_RUN_ONCE);
    c->seen = MAX(c->seen, on->client->seen);
    if (w.rc == 0 && write && (str_empty(call->sub) || streq(call->sub, "status")))
        tell_mirrors(c, call->resource, call->ns, call->name, w.obj, call->verb == CLIENT_DELETE);
    if (ret && w.rc == 0)
        *ret = STEAL(w.obj);
    obj_unref(w.obj);
    return w.rc;
}

static void unpin(void *o)
{
    obj_unref(o);
}

const struct obj *remote_get_at_once(struct client *c, struct arena *a, const char *resource,
                                     const char *ns, const char *name)
{
    struct client_call call = {.verb = CLIENT_GET, .resource = resource, .ns = ns, .name = name};
    const struct obj *o = NULL;
    struct err err = {0};

    if (remote_at_once(c, &call, &o, a, NULL, &err) < 0 || !o)
        return NULL;
    arena_pin(a, unpin, (void *)(uintptr_t)o);
    return o;
}

struct objs remote_list_at_once(struct client *c, struct arena *a, const char *resource, const char *ns,
                                client_keep_fn *keep, void *arg)
{
    struct client_call call = {.verb = CLIENT_LIST, .resource = resource, .ns = ns};
    const struct val *list = NULL;
    struct objs all = {0};
    struct err err = {0};
    const struct obj **v;
    uint32_t n;

    for (int i = 0; i < 3 && remote_at_once(c, &call, NULL, a, &list, &err) < 0; i++)
        if (err.code == ERR_NOT_FOUND) /* a kind that is not served has no objects */
            return all;
    if (!list) {
        LOG(WARN, "client", "did=list resource=%s err=\"%s\"", resource, err.msg);
        return all;
    }
    v = remote_list_objs(a, list, &n);
    all.v = v;
    for (uint32_t i = 0; i < n; i++) {
        if (keep && !keep(arg, v[i])) {
            obj_unref(v[i]);
            continue;
        }
        v[all.n++] = v[i];
        arena_pin(a, unpin, (void *)(uintptr_t)v[i]);
    }
    return all;
}
