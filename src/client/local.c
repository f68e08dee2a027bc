/* The local backend: verbs are calls of api_do(), reads look into the store's head, mirrors are
 * head watches of the store. */
#include "apiserver/apiserver.h"
#include "base/log.h"
#include "client/client_int.h"
#include "client/remote_int.h"
#include "codec/json.h"
#include "schema/schema.h"
#include "schema/select.h"
#include "store/store.h"

#include <stdio.h>

struct local {
    struct client c;
    struct api *api;
    struct schema *schema;
    struct store *store;
    struct auth_user user;
    const char *groups[3];
    char *name, *agent;
    struct map tables; /* resource string -> struct store_table, asked for every read */
    struct list late;  /* struct late: verbs "at once" that wait for a webhook, or failed after one */
    uint32_t late_n;
};

enum { LATE_MAX = 4096, LATE_KEPT_MS = 30000 };

/* A verb that could not be done at once: somebody outside was to be asked first. Its caller was told
 * TIMEOUT and comes again, with the same words: while the first one is under way it is not sent again
 * (two pods would come of one wish), and when it failed the caller hears why the next time. When it
 * worked he sees it in what he reads. */
struct late {
    struct list link;
    char *what;
    struct at_once *w; /* while it is under way */
    struct err err;
    int64_t until_ms; /* 0: under way */
};

static struct local *local_of(struct client *c)
{
    ASSERT(c->ops->local);
    return (struct local *)c;
}

static const struct resource *resource_of(struct local *l, const char *resource)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct client_resource r = client_resource(a, resource);

    return schema_resource(l->schema, r.group, r.version, r.plural);
}

static struct store_table *table_of(struct local *l, const char *resource)
{
    struct store_table *t = map_get(&l->tables, resource);

    if (!t) {
        const struct resource *r = resource_of(l, resource);

        if (r) {
            t = api_table(l->api, r);
        } else { /* a kind that is not served (yet): the table its objects will have */
            _auto_(arena_freep) struct arena *a = arena_new();
            struct client_resource cr = client_resource(a, resource);

            t = store_table(l->store, *cr.group ? arena_printf(a, "%s/%s", cr.group, cr.plural) : cr.plural);
        }
        map_put(&l->tables, resource, t);
    }
    return t;
}

/* --- reading ---------------------------------------------------------------------------------- */
static void unpin(void *o)
{
    obj_unref(o);
}

const struct obj *client_get(struct client *c, struct arena *a, const char *resource, const char *ns,
                             const char *name)
{
    struct local *l;
    const struct obj *o;

    if (!c->ops->local)
        return remote_get_at_once(c, a, resource, ns, name);
    l = local_of(c);
    o = store_get(l->store, table_of(l, resource), ns ? ns : "", name);

    if (o)
        arena_pin(a, unpin, obj_ref(o));
    return o;
}

struct objs client_list(struct client *c, struct arena *a, const char *resource, const char *ns,
                        client_keep_fn *keep, void *arg)
{
    struct local *l;
    struct store_iter it;
    struct objs all = {0};
    uint32_t cap = 0;
    const struct obj *o;
    struct err err;

    if (!c->ops->local)
        return remote_list_at_once(c, a, resource, ns, keep, arg);
    l = local_of(c);
    if (store_iter_init(&it, l->store, table_of(l, resource), ns, 0, NULL, NULL, &err) < 0)
        return all; /* the head can always be walked */
    while ((o = store_iter_next(&it))) {
        unsigned had = obj_look(o);

        if (keep && !keep(arg, o)) {
            obj_look_away(o, had);
            continue;
        }
        if (all.n == cap) {
            const struct obj **more = arena_array(a, const struct obj *, cap = cap ? 2 * cap : 32);

            if (all.n)
                memcpy(more, all.v, all.n * sizeof *more);
            all.v = more;
        }
        all.v[all.n++] = o;
        arena_pin(a, unpin, obj_ref(o));
    }
    store_iter_done(&it);
    return all;
}

static bool is_owned(void *uid, const struct obj *o)
{
    return streq0(val_text(val_get(obj_controller(o), "uid"), NULL), uid);
}

struct objs client_owned(struct client *c, struct arena *a, const char *resource, const char *ns,
                         const char *owner_uid)
{
    return client_list(c, a, resource, ns, is_owned, (void *)(uintptr_t)owner_uid);
}

/* --- verbs at once ---------------------------------------------------------------------------- */
/* Lives until both are over: the caller's wait (which is only for the call itself) and the answer. */
struct at_once {
    struct arena *arena;
    struct api_request req;
    struct client *c;
    struct err *err;
    const struct obj **ret;
    struct arena *val_arena;
    const struct val **ret_val;
    int rc;
    bool done;
    struct late *late; /* the caller was told TIMEOUT long ago */
};

static void late_free(struct local *l, struct late *late)
{
    list_remove(&late->link);
    l->late_n--;
    free(late->what);
    free(late);
}

static char *late_text(const struct at_once *w)
{
    struct buf b = {0};

    buf_printf(&b, "%s %s ", w->req.method, w->req.path);
    if (w->req.body_val)
        json_write(&b, w->req.body_val);
    return buf_take(&b);
}

/* True: this verb is under way (TIMEOUT), or it failed since it was asked for (why it did). */
static bool late_known(struct at_once *w)
{
    struct local *l = local_of(w->c);
    int64_t now = env_now_ms(w->c->env);
    _auto_(freep) char *what = NULL;

    if (list_empty(&l->late))
        return false;
    what = late_text(w);
    LIST_EACH(&l->late, it) {
        struct late *late = list_entry(it, struct late, link);

        if (late->until_ms && late->until_ms < now) {
            late_free(l, late);
        } else if (streq(late->what, what)) {
            if (!late->until_ms) {
                err_set(w->err, TIMEOUT, "%s %s still waits for a webhook", w->req.method, w->req.path);
            } else {
                *w->err = late->err;
                late_free(l, late);
            }
            return true;
        }
    }
    return false;
}

static void late_done(struct at_once *w, const struct api_response *resp)
{
    struct local *l = local_of(w->c);

    w->late->w = NULL;
    if (api_response_err(resp, &w->late->err) < 0)
        w->late->until_ms = env_now_ms(w->c->env) + LATE_KEPT_MS;
    else
        late_free(l, w->late);
    arena_free(w->arena);
}

static void at_once_done(void *arg, const struct api_response *resp)
{
    struct at_once *w = arg;

    w->done = true;
    w->c->seen = MAX(w->c->seen, resp->revision);
    if (w->late) {
        late_done(w, resp);
        return;
    }
    w->rc = api_response_err(resp, w->err);
    if (w->rc < 0)
        return;
    if (w->ret)
        *w->ret = resp->obj ? obj_ref(resp->obj) : NULL;
    if (w->ret_val)
        *w->ret_val = val_copy(w->val_arena, api_response_val(w->arena, resp));
}

/* A body may lack what the resource says anyway. */
static const struct val *complete(struct local *l, struct arena *a, const char *resource, const struct val *v)
{
    const struct resource *r;
    struct val *full;

    if (val_get(v, "kind") && val_get(v, "apiVersion"))
        return v;
    r = resource_of(l, resource);
    if (!r)
        return v; /* the API says so better */
    full = val_map(a);
    val_put_str(a, full, "apiVersion", r->api_version);
    val_put_str(a, full, "kind", r->kind);
    VAL_EACH_MEMBER(v, m)
        val_putn(a, full, m->key, m->n, &m->v);
    return full;
}

static struct at_once *at_once_new(struct client *c, struct err *err)
{
    struct arena *a = arena_new();
    struct at_once *w = arena_new_of(a, struct at_once);
    struct local *l = local_of(c);

    w->arena = a;
    w->c = c;
    w->err = err;
    w->req = (struct api_request){.arena = a, .user = &l->user, .user_agent = l->agent};
    return w;
}

static int at_once_go(struct at_once *w)
{
    struct local *l = local_of(w->c);
    int rc;

    if (late_known(w)) {
        arena_free(w->arena);
        return -1;
    }
    w->req.at_once = l->late_n >= LATE_MAX;
    api_do(l->api, &w->req, at_once_done, w);
    if (!w->done) {
        w->late = xcalloc(1, sizeof(*w->late));
        w->late->what = late_text(w);
        w->late->w = w;
        if (w->req.body_val) /* it is read again when the answer is there; the caller's is gone then */
            w->req.body_val = val_copy(w->arena, w->req.body_val);
        list_push(&l->late, &w->late->link);
        l->late_n++;
        return err_set(w->err, TIMEOUT, "%s %s waits for a webhook", w->req.method, w->req.path);
    }
    rc = w->rc;
    arena_free(w->arena);
    return rc;
}

int client_create(struct client *c, const char *resource, const char *ns, const struct val *v,
                  const struct obj **ret, struct err *err)
{
    struct client_call call = {.verb = CLIENT_CREATE, .resource = resource, .ns = ns, .body = v};
    struct at_once *w;

    if (!c->ops->local)
        return remote_at_once(c, &call, ret, NULL, NULL, err);
    w = at_once_new(c, err);

    w->req.method = "POST";
    w->req.path = client_path(w->arena, resource, ns, NULL, NULL);
    w->req.body_val = complete(local_of(c), w->arena, resource, v);
    w->ret = ret;
    return at_once_go(w);
}

static int put(struct client *c, const char *resource, const struct val *v, const char *sub,
               const struct obj **ret, struct err *err)
{
    struct client_call call = {.verb = CLIENT_UPDATE, .resource = resource, .sub = sub, .body = v,
                               .ns = val_str_at(v, "metadata.namespace", ""),
                               .name = val_str_at(v, "metadata.name", "")};
    struct at_once *w;

    if (!c->ops->local)
        return remote_at_once(c, &call, ret, NULL, NULL, err);
    w = at_once_new(c, err);
    w->req.method = "PUT";
    w->req.path = client_path(w->arena, resource, val_str_at(v, "metadata.namespace", ""),
                              val_str_at(v, "metadata.name", ""), sub);
    w->req.body_val = complete(local_of(c), w->arena, resource, v);
    w->ret = ret;
    return at_once_go(w);
}

int client_update(struct client *c, const char *resource, const struct val *v,
                  const struct obj **ret, struct err *err)
{
    return put(c, resource, v, NULL, ret, err);
}

int client_update_status(struct client *c, const char *resource, const struct val *v,
                         const struct obj **ret, struct err *err)
{
    return put(c, resource, v, "status", ret, err);
}

int client_patch(struct client *c, const char *resource, const char *ns, const char *name,
                 const char *sub, enum client_patch_type type, const struct val *patch,
                 const struct obj **ret, struct err *err)
{
    struct client_call call = {.verb = CLIENT_PATCH, .patch_type = type, .resource = resource, .ns = ns,
                               .name = name, .sub = sub, .body = patch};
    struct at_once *w;

    if (!c->ops->local)
        return remote_at_once(c, &call, ret, NULL, NULL, err);
    w = at_once_new(c, err);
    w->req.method = "PATCH";
    w->req.path = client_path(w->arena, resource, ns, name, sub);
    w->req.content_type = client_content_type(&call);
    w->req.body_val = patch;
    w->ret = ret;
    return at_once_go(w);
}

int client_post_sub(struct client *c, struct arena *a, const char *resource, const char *ns,
                    const char *name, const char *sub, const struct val *v,
                    const struct val **ret_val, struct err *err)
{
    struct client_call call = {.verb = CLIENT_CREATE, .resource = resource, .ns = ns, .name = name,
                               .sub = sub, .body = v};
    struct at_once *w;

    if (!c->ops->local)
        return remote_at_once(c, &call, NULL, a, ret_val, err);
    w = at_once_new(c, err);

    w->req.method = "POST";
    w->req.path = client_path(w->arena, resource, ns, name, sub);
    w->req.body_val = v;
    w->ret_val = ret_val;
    w->val_arena = a;
    return at_once_go(w);
}

static struct val *delete_options(struct arena *a, const struct client_delete *how)
{
    struct val *o = val_map(a);

    val_put_str(a, o, "apiVersion", "v1");
    val_put_str(a, o, "kind", "DeleteOptions");
    if (how && how->uid)
        val_put_str(a, val_need_map(a, o, "preconditions"), "uid", how->uid);
    if (how && how->revision)
        val_put_str(a, val_need_map(a, o, "preconditions"), "resourceVersion",
                    arena_printf(a, "%lld", (long long)how->revision));
    if (how && how->propagation)
        val_put_str(a, o, "propagationPolicy", how->propagation);
    if (how && how->grace_s >= 0)
        val_put_int(a, o, "gracePeriodSeconds", how->grace_s);
    return o;
}

int client_delete(struct client *c, const char *resource, const char *ns, const char *name,
                  const struct client_delete *how, struct err *err)
{
    struct at_once *w;

    if (!c->ops->local) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct client_call call = {.verb = CLIENT_DELETE, .resource = resource, .ns = ns, .name = name,
                                   .body = delete_options(a, how)};

        return remote_at_once(c, &call, NULL, NULL, NULL, err);
    }
    w = at_once_new(c, err);
    w->req.method = "DELETE";
    w->req.path = client_path(w->arena, resource, ns, name, NULL);
    w->req.body_val = delete_options(w->arena, how);
    return at_once_go(w);
}

/* --- verbs later ------------------------------------------------------------------------------ */
static void call_done(void *arg, const struct api_response *resp)
{
    struct client_op *op = arg;
    struct client_result r = {.status = resp->status};
    struct err err;

    op->backend = NULL;
    op->c->seen = MAX(op->c->seen, resp->revision);
    if (op->cancelled) {
        op_free(op);
        return;
    }
    if (api_response_err(resp, &err) < 0) {
        r.err = &err;
    } else {
        r.obj = resp->obj;
        r.val = resp->obj ? obj_val(resp->obj) : api_response_val(op->arena, resp);
    }
    op_finish(op, &r);
}

static void call_go(void *arg)
{
    struct client_op *op = arg;
    struct local *l = local_of(op->c);
    struct arena *a = op->arena;
    struct api_request *req = arena_new_of(a, struct api_request);
    const struct client_call *call = &op->call;
    bool whole = call->verb == CLIENT_CREATE || call->verb == CLIENT_UPDATE;

    req->arena = a;
    req->user = &l->user;
    req->user_agent = l->agent;
    req->method = client_method(call->verb);
    req->path = client_path(a, call->resource, call->ns, call->name, call->sub);
    req->query = call->query;
    req->content_type = client_content_type(call);
    req->body_val = call->body && whole && (str_empty(call->sub) || streq(call->sub, "status"))
                        ? complete(l, a, call->resource, call->body)
                        : call->body;
    op->backend = req;
    api_do(l->api, req, call_done, op);
}

static void local_call(struct client *c, struct client_op *op)
{
    op->timer = env_timer_new(c->env, call_go, op);
    env_timer_start(op->timer, 0, 0);
}

static void local_cancel(struct client_op *op)
{
    if (!op->backend) /* else call_done() frees it */
        op_free(op);
}

/* --- mirrors ---------------------------------------------------------------------------------- */
struct view {
    struct mirror *m;
    struct store_watch *watch;
    struct env_timer *first; /* tells what was there, once */
    struct arena *arena;
    const struct selector *labels;
    const struct field_selector *fields;
};

static bool wanted(const struct view *v, const struct obj *o)
{
    const struct mirror_args *args = &v->m->args;

    if (args->ns && !streq(o->namespace_, args->ns))
        return false;
    if (v->labels && !selector_match(v->labels, val_get(obj_meta(o), "labels")))
        return false;
    return !v->fields || field_selector_match(v->fields, obj_val(o));
}

static void on_event(void *arg, const struct store_event *ev)
{
    struct view *v = arg;
    struct mirror *m = v->m;

    ASSERT(ev->type != STORE_EXPIRED); /* a head watch that is never paused */
    m->revision = ev->revision;
    if (ev->type == STORE_DELETED || !wanted(v, ev->obj))
        mirror_del(m, ev->obj->namespace_, ev->obj->name, ev->obj);
    else
        mirror_set(m, ev->obj);
}

static void tell_first(void *arg)
{
    mirror_tell_first(((struct view *)arg)->m);
}

static void local_mirror_start(struct client *c, struct mirror *m)
{
    struct local *l = local_of(c);
    const struct resource *r = resource_of(l, m->args.resource);
    struct store_table *t = table_of(l, m->args.resource);
    struct view *v = arena_new_of(m->arena, struct view);
    struct store_iter it;
    const struct obj *o;
    struct err err = {0};
    bool ok = true;

    v->m = m;
    m->backend = v;
    if (m->args.label_selector)
        ok = (v->labels = selector_parse(m->arena, m->args.label_selector, &err)) != NULL;
    if (ok && m->args.field_selector && r)
        ok = (v->fields = field_selector_parse(r, m->arena, m->args.field_selector, &err)) != NULL;
    if (!ok)
        LOG(ERROR, "client", "mirror=%s err=\"%s\"", m->args.resource, err.msg);
    ASSERT(ok); /* selectors of mirrors are written by us */
    ASSERT(store_iter_init(&it, l->store, t, m->args.ns, 0, NULL, NULL, &err) == 0);
    while ((o = store_iter_next(&it))) {
        unsigned had = obj_look(o);

        if (wanted(v, o))
            mirror_set(m, o);
        obj_look_away(o, had);
    }
    store_iter_done(&it);
    m->revision = store_head(l->store);
    m->synced = true;
    v->watch = store_watch(l->store, t, 0, STORE_WATCH_HEAD, on_event, v, &err);
    ASSERT(v->watch);
    v->first = env_timer_new(c->env, tell_first, v);
    env_timer_start(v->first, 0, 0);
}

static void local_mirror_stop(struct mirror *m)
{
    struct view *v = m->backend;

    store_watch_free(v->watch);
    env_timer_free(v->first);
}

static void local_free(struct client *c)
{
    struct local *l = local_of(c);

    LIST_EACH(&l->late, it) {
        struct late *late = list_entry(it, struct late, link);

        if (late->w)
            api_cancel(l->api, &late->w->req); /* ends with an error that nobody hears */
        late_free(l, late);
    }
    map_done(&l->tables);
    free(l->name);
    free(l->agent);
    free(l);
}

static void local_count(struct client *c, const char *name, const char *labels, double by)
{
    api_count(((struct local *)c)->api, name, labels, by);
}

static const struct client_ops local_ops = {
    .local = true,
    .call = local_call,
    .cancel = local_cancel,
    .mirror_start = local_mirror_start,
    .mirror_stop = local_mirror_stop,
    .free = local_free,
    .count = local_count,
};

struct client *client_local_new(struct env *env, struct api *api, struct schema *schema, const char *user)
{
    struct local *l = xcalloc(1, sizeof *l);
    const char *colon = strrchr(user, ':');

    l->c.ops = &local_ops;
    l->c.env = env;
    list_init(&l->c.calls);
    list_init(&l->c.mirrors);
    list_init(&l->late);
    l->api = api;
    l->schema = schema ? schema : api_schema(api);
    l->store = api_store(api);
    l->name = xstrdup(user);
    l->agent = xstrdup(colon ? colon + 1 : user); /* "kube-controller-manager": the field manager */
    l->groups[0] = GROUP_MASTERS; /* parts of the server itself; their names are for the audit */
    l->groups[1] = GROUP_AUTHENTICATED;
    l->user = (struct auth_user){.name = l->name, .uid = "", .groups = l->groups};
    return &l->c;
}
