/* apiserver/aggregate.c - APIService objects: which group and version is served here, and which by another
 * server behind a service.
 *
 * For what is served here the objects are made and taken back (label kube-aggregator.kubernetes.io/automanaged).
 * The others are asked in turn for their list of resources: that says whether they are there (condition
 * Available) and what discovery shows of them; their last answer is shown as stale when they are not. Requests
 * to them are passed on by proxy.c.
 * Bounds: REMOTES_MAX of them, ANSWER_MAX bytes of a document, one question at a time to each. */
#include "apiserver/outside.h"

#include "base/log.h"
#include "codec/json.h"
#include "http/client.h"
#include "schema/publish.h"

#include <openssl/sha.h>
#include <stdio.h>

enum { REMOTES_MAX = 1024, PROBE_EVERY_MS = 30000, PROBE_FAILED_MS = 2000, PROBE_TIMEOUT_MS = 5000,
       DOCUMENT_MAX = 16 << 20 };

#define AUTOMANAGED "kube-aggregator.kubernetes.io/automanaged"

struct remote {
    struct aggregate *of;
    struct arena *a; /* what follows, as the object says it */
    const char *name, *group, *version, *ns, *service, *ca_pem;
    int64_t port;
    bool insecure, bad_bundle;

    struct http_call *call;
    struct env_timer *next;
    bool available, known, openapi; /* openapi: the question under way is for that */
    struct buf resources; /* its APIResourceList, the last one that came */
    struct buf index;     /* its index of OpenAPI v3 documents */
};

struct aggregate {
    struct api *api;
    struct store_watch *watch;
    struct store_table *table;
    struct map remotes; /* "GROUP/VERSION" -> struct remote */
    struct arena *a;
    char *ca_pem, *cert_pem, *key_pem;
};

const char *aggregate_ca_pem(const struct api *api)
{
    return api->aggregate->ca_pem;
}

/* ---------------------------------------------------------------- what is served here */

static const struct {
    const char *group, *version; /* NULL: any other version of it */
    int group_priority, version_priority;
} PRIORITIES[] = {
    {"", "v1", 18000, 1}, {"apps", NULL, 17800, 15}, {"events.k8s.io", NULL, 17750, 15},
    {"authentication.k8s.io", NULL, 17700, 15}, {"authorization.k8s.io", NULL, 17600, 15},
    {"autoscaling", "v2", 17500, 30}, {"autoscaling", NULL, 17500, 15}, {"batch", NULL, 17400, 15},
    {"certificates.k8s.io", NULL, 17300, 15}, {"networking.k8s.io", NULL, 17200, 15},
    {"policy", NULL, 17100, 15}, {"rbac.authorization.k8s.io", NULL, 17000, 15},
    {"storage.k8s.io", NULL, 16800, 15}, {"apiextensions.k8s.io", NULL, 16700, 15},
    {"admissionregistration.k8s.io", NULL, 16700, 15}, {"scheduling.k8s.io", NULL, 16600, 15},
    {"coordination.k8s.io", NULL, 16500, 15}, {"node.k8s.io", NULL, 16300, 15},
    {"discovery.k8s.io", NULL, 16200, 15}, {"resource.k8s.io", "v1", 16200, 21},
    {"resource.k8s.io", NULL, 16200, 15}, {"flowcontrol.apiserver.k8s.io", "v1", 16100, 21},
    {"flowcontrol.apiserver.k8s.io", NULL, 16100, 18},
};

static void condition(struct arena *a, struct val *status, const char *value, const char *reason,
                      const char *message, const char *now)
{
    struct val *list = val_need_list(a, status, "conditions"), *cond = NULL;

    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "Available"))
            cond = it;
    if (!cond)
        cond = val_push(a, list, val_map(a));
    val_put_str(a, cond, "type", "Available");
    if (!streq(val_str_at(cond, "status", ""), value))
        val_put_str(a, cond, "lastTransitionTime", now);
    val_put_str(a, cond, "status", value);
    val_put_str(a, cond, "reason", reason);
    val_put_str(a, cond, "message", message);
}

static const char *now_of(struct api *api, struct arena *a)
{
    return time_text(a, env_now_ms(api->env) * 1000, false);
}

static void make_local(struct aggregate *g, struct arena *a, const char *name, const struct resource *r)
{
    struct val *v = val_map(a), *meta = val_map(a), *spec = val_map(a);
    int group = 1000, version = 100;
    char uuid[ENV_UUID_BYTES];
    const char *now = now_of(g->api, a);
    struct err err = {0};
    const struct obj *o;

    for (size_t i = ARRAY_LEN(PRIORITIES); i-- > 0 && !r->custom;)
        if (streq(PRIORITIES[i].group, r->group) &&
            (!PRIORITIES[i].version || streq(PRIORITIES[i].version, r->version))) {
            group = PRIORITIES[i].group_priority;
            version = PRIORITIES[i].version_priority;
        }
    val_put_str(a, v, "kind", "APIService");
    val_put_str(a, v, "apiVersion", "apiregistration.k8s.io/v1");
    val_put_str(a, meta, "name", name);
    val_put_str(a, meta, "uid", env_uuid(g->api->env, uuid));
    val_put_str(a, meta, "creationTimestamp", now);
    val_put_str(a, val_need_map(a, meta, "labels"), AUTOMANAGED, r->custom ? "true" : "onstart");
    val_put(a, v, "metadata", meta);
    if (*r->group)
        val_put_str(a, spec, "group", r->group);
    val_put_str(a, spec, "version", r->version);
    val_put_int(a, spec, "groupPriorityMinimum", group);
    val_put_int(a, spec, "versionPriority", version);
    val_put(a, v, "spec", spec);
    condition(a, val_need_map(a, v, "status"), "True", "Local", "Local APIServices are always available", now);
    o = obj_seal(v, store_next_revision(g->api->store));
    if (store_put(g->api->store, g->table, o, STORE_ABSENT, 0, &err) < 0)
        LOG(WARN, "api", "apiservice=%s err=\"%s\"", name, err.msg);
    obj_unref(o);
}

static void drop_local(struct aggregate *g, const struct obj *o)
{
    const struct obj *last = obj_seal(obj_val(o), store_next_revision(g->api->store));
    struct err err = {0};

    if (store_delete(g->api->store, g->table, "", o->name, o->revision, last, &err) < 0)
        LOG(WARN, "api", "apiservice=%s err=\"%s\"", o->name, err.msg);
    obj_unref(last);
}

void aggregate_locals(struct api *api)
{
    struct aggregate *g = api->aggregate;
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct obj **gone = NULL, *o;
    struct map have = {0};
    const struct resource *r;
    struct store_iter it;
    struct err err = {0};
    uint32_t n = 0;

    for (uint32_t i = 0; (r = schema_next(api->schema, &i));) {
        const char *name = arena_printf(a, "%s.%s", r->version, r->group);

        if (streq(r->group, "apiregistration.k8s.io") || map_get(&have, name))
            continue;
        map_put(&have, name, (void *)r);
        if (!store_get(api->store, g->table, "", name))
            make_local(g, a, name, r);
    }
    if (store_iter_init(&it, api->store, g->table, NULL, 0, NULL, NULL, &err) == 0) {
        while ((o = store_iter_next(&it)))
            if (obj_label(o, AUTOMANAGED) && !map_get(&have, o->name)) {
                gone = xrealloc(gone, (n + 1) * sizeof(*gone));
                gone[n++] = obj_ref(o);
            }
        store_iter_done(&it);
    }
    for (uint32_t i = 0; i < n; i++) {
        drop_local(g, gone[i]);
        obj_unref(gone[i]);
    }
    free(gone);
    map_done(&have);
}

/* ---------------------------------------------------------------- are the others there? */

static void tell(struct remote *r, bool yes, const char *reason, const char *message)
{
    struct aggregate *g = r->of;
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct obj *o = store_get(g->api->store, g->table, "", r->name), *now;
    struct err err = {0};
    struct val *v;

    if (!r->known || r->available != yes)
        LOG(INFO, "api", "apiservice=%s available=%d reason=%s", r->name, yes, reason);
    r->known = true;
    r->available = yes;
    if (!o)
        return;
    v = obj_edit(o, a);
    condition(a, val_need_map(a, v, "status"), yes ? "True" : "False", reason, message, now_of(g->api, a));
    if (val_equal(v, obj_val(o)))
        return;
    now = obj_seal(v, store_next_revision(g->api->store));
    if (store_put(g->api->store, g->table, now, o->revision, 0, &err) < 0)
        LOG(WARN, "api", "apiservice=%s err=\"%s\"", r->name, err.msg);
    obj_unref(now);
}

static void ask(struct remote *r, const char *path);

static void on_answer(const struct http_answer *ans, char *body, size_t n, const struct err *err, void *arg)
{
    struct remote *r = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    bool index = r->openapi;
    struct buf *to = index ? &r->index : &r->resources;
    bool good = !err && ans->status >= 200 && ans->status < 300;
    const char *url = arena_printf(a, "https://%s.%s.svc:%lld/apis/%s/%s", r->service, r->ns, (long long)r->port,
                                   r->group, r->version);

    r->call = NULL;
    r->openapi = false;
    if (good) {
        buf_reset(to);
        buf_add(to, body, n);
    }
    if (!index && good) {
        tell(r, true, "Passed", "all checks passed");
        r->openapi = true;
        ask(r, "/openapi/v3");
        return;
    }
    if (!index && err)
        tell(r, false, "FailedDiscoveryCheck", arena_printf(a, "failing or missing response from %s: Get \"%s\": %s",
                                                            url, url, err->msg));
    else if (!index)
        tell(r, false, "FailedDiscoveryCheck", arena_printf(a, "failing or missing response from %s: bad status "
                                                            "from %s: %d", url, url, ans->status));
    env_timer_start(r->next, r->available ? PROBE_EVERY_MS : PROBE_FAILED_MS, 0);
}

static void ask(struct remote *r, const char *path)
{
    static const struct http_header headers[] = {{"accept", "application/json"},
                                                 {"x-remote-user", "system:kube-aggregator"},
                                                 {"x-remote-group", "system:masters"}};
    _auto_(arena_freep) struct arena *a = arena_new();
    struct http_call_opts opts = {.path = path, .headers = headers, .headers_n = ARRAY_LEN(headers),
                                  .timeout_ms = PROBE_TIMEOUT_MS, .idle_timeout_ms = PROBE_TIMEOUT_MS};
    struct err err = {0};
    struct http_origin *o = aggregate_origin(r->of->api, r, a, &opts.host, &err);

    if (o) {
        r->call = http_fetch(o, &opts, DOCUMENT_MAX, on_answer, r);
        return;
    }
    r->openapi = false;
    if (err.code == ERR_NOT_FOUND && !strstr(err.msg, "port"))
        tell(r, false, "ServiceNotFound", arena_printf(a, "service/%s in \"%s\" is not present", r->service, r->ns));
    else if (err.code == ERR_NOT_FOUND)
        tell(r, false, "ServicePortError", arena_printf(a, "service/%s in \"%s\" is not listening on port %lld",
                                                        r->service, r->ns, (long long)r->port));
    else if (err.code == ERR_UNAVAILABLE)
        tell(r, false, "MissingEndpoints", arena_printf(a, "endpointslices for service/%s in \"%s\" have no "
                                                        "addresses", r->service, r->ns));
    else
        tell(r, false, "FailedDiscoveryCheck", err.msg);
    env_timer_start(r->next, PROBE_FAILED_MS, 0);
}

static void probe(void *arg)
{
    struct remote *r = arg;
    _auto_(arena_freep) struct arena *a = arena_new();

    if (!r->call)
        ask(r, arena_printf(a, "/apis/%s/%s", r->group, r->version));
}

struct http_origin *aggregate_origin(struct api *api, const struct remote *r, struct arena *a, const char **ret_host,
                                  struct err *err)
{
    struct place place = {.ca_pem = r->ca_pem, .cert_pem = r->of->cert_pem, .key_pem = r->of->key_pem,
                          .insecure = r->insecure};
    char *url;

    if (r->bad_bundle) {
        err_set(err, INVALID_ARGUMENT, "caBundle is no base64");
        return NULL;
    }
    place.server_name = arena_printf(a, "%s.%s.svc", r->service, r->ns);
    *ret_host = arena_printf(a, "%s:%lld", place.server_name, (long long)r->port);
    if (outside_service(api, a, r->ns, r->service, r->port, NULL, "https", &url, err) < 0)
        return NULL;
    place.url = url;
    return outside_origin(api, &place, err);
}

bool aggregate_available(const struct remote *r)
{
    return r->available;
}

const struct remote *aggregate_remote(const struct api *api, const char *group, const char *version)
{
    char key[512];

    if (!api->aggregate || !api->aggregate->remotes.n)
        return NULL;
    snprintf(key, sizeof(key), "%s/%s", group, version);
    return map_get(&api->aggregate->remotes, key);
}

/* ---------------------------------------------------------------- the objects */

static void remote_free(struct remote *r)
{
    if (r->call)
        http_call_cancel(r->call);
    env_timer_free(r->next);
    buf_done(&r->resources);
    buf_done(&r->index);
    arena_free(r->a);
    free(r);
}

/* What the object says, taken over into r. */
static void remote_read(struct remote *r, const struct obj *o)
{
    struct arena *a = arena_new();
    const struct val *spec = val_get(obj_val(o), "spec");
    const char *bundle = val_str_at(spec, "caBundle", "");
    size_t n;

    arena_free(r->a);
    r->a = a;
    r->name = arena_strdup(a, o->name);
    r->group = arena_strdup(a, val_str_at(spec, "group", ""));
    r->version = arena_strdup(a, val_str_at(spec, "version", ""));
    r->ns = arena_strdup(a, val_str_at(spec, "service.namespace", ""));
    r->service = arena_strdup(a, val_str_at(spec, "service.name", ""));
    r->port = val_int_at(spec, "service.port", 443);
    r->insecure = val_bool_at(spec, "insecureSkipTLSVerify", false);
    r->ca_pem = *bundle ? base64_bytes(a, bundle, &n) : NULL;
    r->bad_bundle = *bundle && !r->ca_pem;
}

static void object_changed(struct aggregate *g, const struct obj *o, bool there)
{
    const struct val *spec = val_get(obj_val(o), "spec");
    _auto_(freep) char *key = xasprintf("%s/%s", val_str_at(spec, "group", ""), val_str_at(spec, "version", ""));
    struct remote *r = map_get(&g->remotes, key);

    there &= *val_str_at(spec, "service.name", "") != 0;
    if (!there) {
        if (r)
            remote_free(map_del(&g->remotes, key));
        return;
    }
    if (!r && g->remotes.n >= REMOTES_MAX) {
        LOG(WARN, "api", "apiservice=%s err=\"too many\"", o->name);
        return;
    }
    if (!r) {
        r = xcalloc(1, sizeof(*r));
        r->of = g;
        r->next = env_timer_new(g->api->env, probe, r);
        map_put(&g->remotes, key, r);
    }
    remote_read(r, o);
    env_timer_start(r->next, 0, 0);
}

static void on_event(void *arg, const struct store_event *ev)
{
    const struct val *was = ev->prev ? val_get(obj_val(ev->prev), "spec") : NULL;

    if (ev->type == STORE_EXPIRED || (ev->type != STORE_DELETED && was &&
                                      val_equal(was, val_get(obj_val(ev->obj), "spec"))))
        return; /* our own word about it */
    if (ev->type != STORE_DELETED && was)
        object_changed(arg, ev->prev, false);
    object_changed(arg, ev->obj, ev->type != STORE_DELETED);
}

int aggregate_start(struct api *api, struct err *err)
{
    struct aggregate *g = xcalloc(1, sizeof(*g));
    struct store_iter it;
    const struct obj *o;

    api->aggregate = g;
    g->api = api;
    g->a = arena_new();
    g->table = table_named(api->store, "apiregistration.k8s.io", "apiservices");
    if (pki_front_proxy(api->pki, g->a, &g->ca_pem, &g->cert_pem, &g->key_pem, err) < 0 ||
        store_iter_init(&it, api->store, g->table, NULL, 0, NULL, NULL, err) < 0)
        return -1;
    while ((o = store_iter_next(&it)))
        object_changed(g, o, true);
    store_iter_done(&it);
    g->watch = store_watch(api->store, g->table, 0, STORE_WATCH_HEAD, on_event, g, err);
    return g->watch ? 0 : -1;
}

void aggregate_stop(struct api *api)
{
    struct aggregate *g = api->aggregate;
    const char *key;
    void *r;

    if (!g)
        return;
    store_watch_free(g->watch);
    for (uint32_t i = 0; map_next(&g->remotes, &i, &key, &r);)
        remote_free(r);
    map_done(&g->remotes);
    arena_free(g->a);
    free(g);
    api->aggregate = NULL;
}

/* ---------------------------------------------------------------- documents */

static bool any(struct call *c)
{
    return c->api->aggregate->remotes.n > 0;
}

static struct doc doc_of(struct call *c, const struct val *v)
{
    unsigned char sum[SHA512_DIGEST_LENGTH];
    struct buf b = {0};
    struct doc d;
    char *hex = arena_alloc(c->a, 2 * sizeof(sum) + 1);

    json_write(&b, v);
    d = (struct doc){.text = arena_strndup(c->a, b.p, b.n), .n = b.n, .hash = hex};
    SHA512((unsigned char *)b.p, b.n, sum);
    for (size_t i = 0; i < sizeof(sum); i++)
        snprintf(hex + 2 * i, 3, "%02X", sum[i]);
    buf_done(&b);
    return d;
}

static struct val *tree_of(struct call *c, struct doc d)
{
    struct err ignored = {0};

    return d.text ? json_parse(c->a, d.text, d.n, &ignored) : NULL;
}

/* {"groupVersion": "G/V", "version": "V"} into a group's versions, the group made when it is new. */
static void add_version(struct call *c, struct val *groups, const char *group, const char *version)
{
    const char *gv = arena_printf(c->a, "%s/%s", group, version);
    struct val *it = NULL, *one = val_map(c->a);

    VAL_EACH(groups, g)
        if (streq(val_str_at(g, "name", ""), group))
            it = g;
    val_put_str(c->a, one, "groupVersion", gv);
    val_put_str(c->a, one, "version", version);
    if (!it) {
        it = val_push(c->a, groups, val_map(c->a));
        val_put_str(c->a, it, "name", group);
        val_need_list(c->a, it, "versions");
        val_put(c->a, it, "preferredVersion", one);
    }
    VAL_EACH(val_get(it, "versions"), v)
        if (streq(val_str_at(v, "version", ""), version))
            return;
    val_push(c->a, val_need_list(c->a, it, "versions"), one);
}

struct doc aggregate_groups(struct call *c, struct doc d)
{
    struct val *v;
    const char *key;
    void *at;

    if (!any(c) || !(v = tree_of(c, d)))
        return d;
    for (uint32_t i = 0; map_next(&c->api->aggregate->remotes, &i, &key, &at);) {
        const struct remote *r = at;

        add_version(c, val_need_list(c->a, v, "groups"), r->group, r->version);
    }
    return doc_of(c, v);
}

struct doc aggregate_group(struct call *c, struct doc d, const char *group)
{
    struct val *all = val_list(c->a), *v = tree_of(c, d), *out;
    bool ours = false;
    const char *key;
    void *at;

    if (!any(c))
        return d;
    if (v)
        val_push(c->a, all, v);
    for (uint32_t i = 0; map_next(&c->api->aggregate->remotes, &i, &key, &at);) {
        const struct remote *r = at;

        if (!streq(r->group, group))
            continue;
        ours = true;
        add_version(c, all, r->group, r->version);
    }
    if (!ours)
        return d;
    out = val_map(c->a);
    val_put_str(c->a, out, "kind", "APIGroup");
    val_put_str(c->a, out, "apiVersion", "v1");
    VAL_EACH_MEMBER(&all->items[0], m)
        val_put(c->a, out, m->key, &m->v);
    return doc_of(c, out);
}

static void put_kind(struct call *c, struct val *to, const struct remote *r, const struct val *it)
{
    struct val *kind = val_map(c->a);

    val_put_str(c->a, kind, "group", val_str_at(it, "group", r->group));
    val_put_str(c->a, kind, "version", val_str_at(it, "version", r->version));
    val_put_str(c->a, kind, "kind", val_str_at(it, "kind", ""));
    val_put(c->a, to, "responseKind", kind);
}

/* An APIResourceList as the resources of aggregated discovery. */
static struct val *discovery_resources(struct call *c, const struct remote *r)
{
    static const char *const same[] = {"verbs", "shortNames", "categories"};
    struct val *out = val_list(c->a), *list;
    struct err ignored = {0};

    list = r->resources.n ? json_parse(c->a, r->resources.p, r->resources.n, &ignored) : NULL;
    VAL_EACH(val_get(list, "resources"), it) {
        const char *name = val_str_at(it, "name", ""), *slash = strchr(name, '/');
        struct val *one = val_map(c->a), *parent = NULL;

        if (slash) {
            VAL_EACH(out, o)
                if (strlen(val_str_at(o, "resource", "")) == (size_t)(slash - name) &&
                    str_starts(name, val_str_at(o, "resource", "")))
                    parent = o;
            if (!parent)
                continue;
            val_put_str(c->a, one, "subresource", slash + 1);
            put_kind(c, one, r, it);
            val_put(c->a, one, "verbs", val_get(it, "verbs") ? val_get(it, "verbs") : val_list(c->a));
            val_push(c->a, val_need_list(c->a, parent, "subresources"), one);
            continue;
        }
        val_put_str(c->a, one, "resource", name);
        put_kind(c, one, r, it);
        val_put_str(c->a, one, "scope", val_bool_at(it, "namespaced", false) ? "Namespaced" : "Cluster");
        val_put_str(c->a, one, "singularResource", val_str_at(it, "singularName", ""));
        for (size_t i = 0; i < ARRAY_LEN(same); i++)
            if (val_get(it, same[i]))
                val_put(c->a, one, same[i], val_get(it, same[i]));
        val_push(c->a, out, one);
    }
    return out;
}

struct doc aggregate_discovery(struct call *c, struct doc d)
{
    struct val *v, *items;
    const char *key;
    void *at;

    if (!any(c) || !(v = tree_of(c, d)))
        return d;
    items = val_need_list(c->a, v, "items");
    for (uint32_t i = 0; map_next(&c->api->aggregate->remotes, &i, &key, &at);) {
        const struct remote *r = at;
        struct val *group = NULL, *version = val_map(c->a), *resources = discovery_resources(c, r);

        VAL_EACH(items, it)
            if (streq(val_str_at(it, "metadata.name", ""), r->group))
                group = it;
        if (!group) {
            group = val_push(c->a, items, val_map(c->a));
            val_put_str(c->a, val_need_map(c->a, group, "metadata"), "name", r->group);
            val_put(c->a, val_get(group, "metadata"), "creationTimestamp", val_null(c->a));
        }
        val_put_str(c->a, version, "version", r->version);
        if (val_len(resources))
            val_put(c->a, version, "resources", resources);
        val_put_str(c->a, version, "freshness", r->available ? "Current" : "Stale");
        val_push(c->a, val_need_list(c->a, group, "versions"), version);
    }
    return doc_of(c, v);
}

struct doc aggregate_openapi_v3(struct call *c, struct doc d)
{
    struct err ignored = {0};
    struct val *v, *paths;
    const char *key;
    void *at;

    if (!any(c) || !(v = tree_of(c, d)))
        return d;
    paths = val_need_map(c->a, v, "paths");
    for (uint32_t i = 0; map_next(&c->api->aggregate->remotes, &i, &key, &at);) {
        const struct remote *r = at;
        const char *name = arena_printf(c->a, "apis/%s/%s", r->group, r->version);
        const struct val *theirs = r->index.n ? json_parse(c->a, r->index.p, r->index.n, &ignored) : NULL;

        if (val_get(val_get(theirs, "paths"), name))
            val_put(c->a, paths, name, val_get(val_get(theirs, "paths"), name));
    }
    return doc_of(c, v);
}
