/* apiserver/apiserver.c - the life of the API, and the way of a call: what is asked (path.c), is
 * it allowed (access.c), who answers. */
#include "apiserver/admission.h"
#include "apiserver/hooks.h"
#include "apiserver/outside.h"
#include "apiserver/policies.h"
#include "apiserver/told.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <stdio.h>

struct store *api_store(struct api *api)
{
    return api->store;
}

struct schema *api_schema(struct api *api)
{
    return api->schema;
}

struct store_table *api_table(struct api *api, const struct resource *r)
{
    return store_table(api->store, r->table);
}

/* By the convention that schema keeps for resource.table. */
struct store_table *table_named(struct store *s, const char *group, const char *plural)
{
    char key[512];

    snprintf(key, sizeof(key), "%s%s%s", group, *group ? "/" : "", plural);
    return store_table(s, key);
}

static void unref_obj(void *o)
{
    obj_unref(o);
}

void pin_obj(struct arena *a, const struct obj *o)
{
    arena_pin(a, unref_obj, (void *)o);
}

/* ---------------------------------------------------------------- dispatch */

static const struct {
    const char *method, *one, *many;
} VERBS[] = {
    {"GET", "get", "list"},       {"HEAD", "get", "list"},    {"POST", "create", "create"},
    {"PUT", "update", "update"},  {"PATCH", "patch", "patch"}, {"DELETE", "delete", "deletecollection"},
};

/* The word that RBAC knows for it. */
const char *call_verb(struct call *c)
{
    const char *m = c->req->method;
    const struct path *p = &c->path;

    c->is_head = streq(m, "HEAD");
    c->is_get = c->is_head || streq(m, "GET");
    if (!p->resource) {
        char *low = arena_strdup(c->a, m);

        for (char *s = low; *s; s++)
            *s |= 0x20;
        return low;
    }
    for (size_t i = 0; i < ARRAY_LEN(VERBS); i++) {
        if (!streq(VERBS[i].method, m))
            continue;
        if (c->is_get && c->path.old_watch)
            return "watch";
        if (c->is_get && !*p->name && param_bool(c, "watch"))
            return "watch";
        return *p->name ? VERBS[i].one : VERBS[i].many;
    }
    return "";
}

static unsigned verb_bit(const char *verb)
{
    static const struct {
        const char *name;
        unsigned bit;
    } bits[] = {{"get", VERB_GET}, {"list", VERB_LIST}, {"watch", VERB_WATCH},
                {"create", VERB_CREATE}, {"update", VERB_UPDATE}, {"patch", VERB_PATCH},
                {"delete", VERB_DELETE}, {"deletecollection", VERB_DELETECOLLECTION}};

    for (size_t i = 0; i < ARRAY_LEN(bits); i++)
        if (streq(bits[i].name, verb))
            return bits[i].bit;
    return 0;
}

static int no_page_text(struct call *c)
{
    static const char text[] = "404 page not found\n";

    answer_text(c, 404, "text/plain; charset=utf-8", text, sizeof(text) - 1);
    return 0;
}

/* A group of built-in kinds, or a version that custom resources are served in. */
static bool known_place(const struct schema *s, const char *group, const char *version)
{
    const struct resource *r;

    for (uint32_t i = 0; (r = schema_next(s, &i));)
        if (streq(r->group, group) && (!r->custom || streq(r->version, version)))
            return true;
    return false;
}

/* What is served there; 404 and 405 as Kubernetes has them. */
static int resolve(struct call *c)
{
    struct path *p = &c->path;
    struct schema *s = c->api->schema;
    unsigned bit = verb_bit(c->verb);

    c->r = schema_resource(s, p->group, p->version, p->plural);
    if (!c->r)
        return known_place(s, p->group, p->version) ? fail_no_page(c) : (no_page_text(c), -1);
    c->stored = schema_stored(c->r);
    c->table = api_table(c->api, c->r);
    c->hooks = hooks_of(c->stored);
    c->flags = flags_of(c->stored);
    if (streq(c->r->plural, "endpoints") && !*c->r->group)
        texts_add(&c->warnings, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    if (!c->r->namespaced && *p->ns)
        return fail_no_page(c);
    if (c->r->namespaced && !*p->ns && *p->name && !p->old_watch)
        return fail_no_page(c);
    if (*p->sub) {
        if (!(c->sub = schema_sub(c->r, p->sub)))
            return c->r->custom && *p->name ? fail_not_found(c, p->name) : fail_no_page(c);
        return c->sub->verbs & bit ? 0 : fail_no_method(c);
    }
    if (!(c->r->verbs & bit) || (bit == VERB_CREATE && *p->name) ||
        ((bit == VERB_UPDATE || bit == VERB_PATCH) && !*p->name) ||
        (c->r->namespaced && !*p->ns && (bit == VERB_CREATE || bit == VERB_DELETECOLLECTION) &&
         !c->r->virtual_))
        return fail_no_method(c);
    return 0;
}

static int serve_resource(struct call *c)
{
    if (resolve(c) < 0)
        return -1;
    if (c->sub)
        return sub_serve(c);
    switch (verb_bit(c->verb)) {
    case VERB_GET:
        return read_get(c);
    case VERB_LIST:
        return read_list(c);
    case VERB_WATCH:
        return watch_begin(c);
    case VERB_CREATE:
        return write_create(c);
    case VERB_UPDATE:
        return write_update(c);
    case VERB_PATCH:
        return write_patch(c);
    case VERB_DELETE:
        return delete_one(c);
    case VERB_DELETECOLLECTION:
        return delete_collection(c);
    default:
        return fail_no_method(c);
    }
}

int call_read(struct call *c)
{
    if (options_params(c) < 0)
        return -1;
    path_parse(c->a, c->req->path, &c->path);
    c->verb = call_verb(c);
    return *c->verb ? 0 : fail_no_method(c);
}

static int serve(struct call *c)
{
    if (call_read(c) < 0 || (!c->req->allowed && access_check(c) < 0) || options_read(c) < 0)
        return -1;
    return c->path.resource ? serve_resource(c) : meta_serve(c);
}

void call_about(struct call *c, struct about *ret)
{
    const char *type = c->req->content_type ? c->req->content_type : "";
    const struct path *p = &c->path;

    c->is_get = streq(c->req->method, "GET") || streq(c->req->method, "HEAD");
    (void)!options_params(c);
    path_parse(c->a, c->req->path, &c->path);
    *ret = (struct about){.verb = call_verb(c), .group = p->group ? p->group : "",
                          .version = p->version ? p->version : "",
                          .resource = p->plural ? p->plural : "", .sub = p->sub ? p->sub : "",
                          .ns = p->ns ? p->ns : "", .name = p->name ? p->name : "",
                          .path = c->req->path, .resource_request = p->resource,
                          .mutating = !c->is_get, .dry_run = param(c, "dryRun") != NULL};
    ret->apply = streq(ret->verb, "patch") && str_starts(type, "application/apply-patch");
}

static void drop_twins(struct texts *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        bool twin = false;

        for (uint32_t k = 0; k < n; k++)
            twin |= streq(t->v[k], t->v[i]);
        if (!twin)
            t->v[n++] = t->v[i];
    }
    t->n = n;
}

/* Parts of this process are users like others (controllers, the scheduler): what they do is noted, too. */
static void begin_inner(struct api *api, const struct api_request *req)
{
    static const char *const here[] = {"127.0.0.1", NULL};
    struct call c = {.api = api, .req = req, .a = req->arena};
    char uuid[ENV_UUID_BYTES];
    struct rbac_ask q;
    struct audit_request rq = {.user_agent = req->user_agent, .source_ips = here, .user = req->user, .ask = &q,
                               .received_us = env_now_ms(api->env) * 1000};

    if (options_params(&c) < 0)
        return;
    path_parse(c.a, req->path, &c.path);
    c.verb = rq.verb = call_verb(&c);
    q = access_ask(&c);
    rq.id = arena_strdup(c.a, env_uuid(api->env, uuid));
    rq.uri = str_empty(req->query) ? req->path : arena_printf(c.a, "%s?%s", req->path, req->query);
    ((struct api_request *)(uintptr_t)req)->audit = audit_begin(api->audit, req->arena, &rq);
}

static void end_inner(const struct api_request *req, const struct api_response *resp)
{
    if (resp->watch)
        audit_started(req->audit, 200);
    audit_end(req->audit, resp->status);
    if (req->audit) /* the request may be used once more, when the event has gone */
        ((struct api_request *)(uintptr_t)req)->audit = NULL;
}

void call_finish(struct call *c)
{
    VAL_EACH_MEMBER(c->annotations, m)
        audit_note(c->req->audit, m->key, val_text(&m->v, ""));
    audit_answer(c->req->audit, &c->resp);
    if (!c->req->noted)
        end_inner(c->req, &c->resp);
    answer_protobuf(c);
    if (c->r && c->r->deprecated)
        texts_add(&c->warnings, "%s", c->r->deprecated);
    if (c->warnings.n) {
        drop_twins(&c->warnings);
        texts_add(&c->warnings, "%s", "");
        c->warnings.v[c->warnings.n - 1] = NULL;
        c->resp.warnings = c->warnings.v;
    }
    outside_forget(c);
    c->done(c->arg, &c->resp);
}

void call_run(struct api *api, const struct api_request *req, serve_fn *serve_, api_done_fn *done, void *arg,
              struct memory *m)
{
    struct call c = {.api = api, .req = req, .a = req->arena, .user = req->user, .serve = serve_, .done = done,
                     .arg = arg, .now_ms = env_now_ms(api->env)};

    outside_recall(&c, m);
    c.warnings.a = req->arena;
    c.resp.remaining = -1;
    if (serve_)
        serve_(&c);
    else
        serve(&c);
    if (c.broken && !c.waits)
        fail_status(&c, c.broken);
    if (c.taken)
        outside_forget(&c);
    else if (!outside_park(&c))
        call_finish(&c);
}

void api_do(struct api *api, const struct api_request *req, api_done_fn *done, void *arg)
{
    api->requests++;
    if (api->audit && req->user && !req->noted)
        begin_inner(api, req);
    call_run(api, req, NULL, done, arg, NULL);
}

static void take_response(void *arg, const struct api_response *resp)
{
    *(struct api_response *)arg = *resp;
}

int call_inner(struct api *api, struct arena *a, const char *method, const char *path,
               const struct val *body, struct api_response *ret)
{
    struct api_request req = {.arena = a, .method = method, .path = path, .body_val = body,
                              .user_agent = "tandem", .at_once = true};

    if (streq(method, "PATCH"))
        req.content_type = "application/merge-patch+json";
    api_do(api, &req, take_response, ret);
    return ret->status < 300 ? 0 : -1;
}

/* ---------------------------------------------------------------- life */

/* Events do not stay: an hour, as upstream keeps them. */
enum { EVENT_TTL_MS = 3600 * 1000, SWEEP_EVERY_MS = 60 * 1000 };

static void sweep_events(struct api *api)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct store_table *t = table_named(api->store, "", "events");
    int64_t before_us = (env_now_ms(api->env) - EVENT_TTL_MS) * 1000, us;
    struct store_iter it;
    struct err err = {0};
    const struct obj *o, **old = NULL;
    uint32_t n = 0;

    if (store_iter_init(&it, api->store, t, NULL, 0, NULL, NULL, &err) < 0)
        return;
    while ((o = store_iter_next(&it))) {
        unsigned had = obj_look(o);
        const struct val *v = obj_val(o);
        const char *when = val_str_at(v, "lastTimestamp",
                                      val_str_at(v, "metadata.creationTimestamp", ""));
        bool stays = !time_parse(when, &us) || us >= before_us;

        obj_look_away(o, had);
        if (stays)
            continue;
        old = xrealloc(old, (n + 1) * sizeof(*old));
        old[n++] = obj_ref(o);
    }
    store_iter_done(&it);
    for (uint32_t i = 0; i < n; i++) {
        const struct obj *last = obj_seal(obj_val(old[i]), store_next_revision(api->store));

        if (store_delete(api->store, t, old[i]->namespace_, old[i]->name, old[i]->revision, last,
                         &err) < 0)
            LOG(WARN, "api", "did=event-sweep err=\"%s\"", err.msg);
        obj_unref(last);
        obj_unref(old[i]);
    }
    free(old);
}

static void sweep(void *arg)
{
    struct api *api = arg;

    sweep_events(api);
    schema_trim(api->schema);
}

static int read_cidr(struct api *api, const char *cidr, struct err *err)
{
    char ip[64];
    const char *slash = strchr(cidr, '/');
    struct in_addr addr;

    if (!slash || (size_t)(slash - cidr) >= sizeof(ip))
        return err_set(err, INVALID_ARGUMENT, "service network \"%s\" is not ADDRESS/BITS", cidr);
    memcpy(ip, cidr, (size_t)(slash - cidr));
    ip[slash - cidr] = 0;
    api->service_bits = (uint32_t)atoi(slash + 1);
    if (inet_pton(AF_INET, ip, &addr) != 1 || api->service_bits < 8 || api->service_bits > 28)
        return err_set(err, INVALID_ARGUMENT, "service network \"%s\" is not usable", cidr);
    api->service_net = ntohl(addr.s_addr) & (0xffffffffu << (32 - api->service_bits));
    return 0;
}

struct api *api_new(const struct api_config *config, struct err *err)
{
    struct api *api = xcalloc(1, sizeof(*api));

    *api = (struct api){
        .env = config->env, .store = config->store, .schema = config->schema, .pki = config->pki,
        .host = xstrdup(config->host ? config->host : "127.0.0.1"),
        .port = config->port,
        .state_dir = xstrdup(config->state_dir ? config->state_dir : ""),
        .node_socket = config->node_socket ? xstrdup(config->node_socket)
                                           : xasprintf("%s/run/node.sock", config->state_dir),
        .node_name = config->node_name ? xstrdup(config->node_name) : NULL,
        .node_port_first = config->node_port_first ? config->node_port_first : 30000,
        .node_port_last = config->node_port_last ? config->node_port_last : 32767,
        .start_ms = env_now_ms(config->env),
    };
    api->server_url = xasprintf("https://%s:%d", api->host, api->port);
    list_init(&api->watching);
    api->told = told_cache_new(api->env);
    api->metrics = metrics_new();
    api->flags = xstrdup(config->flags ? config->flags : "");
    access_start(api);
    outside_start(api);
    if (!(api->authn = authn_new(api, config->authn, err)))
        return api_free(api);
    if (config->authz_path && !(api->authz = authz_new(api, config->authz_path, err)))
        return api_free(api);
    if (config->audit && !(api->audit = audit_new(api->env, config->audit, err)) && err->code)
        return api_free(api);
    if (read_cidr(api, config->service_cidr ? config->service_cidr : "10.96.0.0/16", err) < 0 ||
        aggregate_start(api, err) < 0 || crd_start(api, err) < 0 || webhooks_start(api, err) < 0 ||
        policies_start(api, err) < 0)
        return api_free(api);
    if (addresses_start(api, err) < 0 || stock_write(api, err) < 0)
        return api_free(api);
    aggregate_locals(api);
    api->flow = flow_new(api);
    api->sweep = env_timer_new(api->env, sweep, api);
    env_timer_start(api->sweep, SWEEP_EVERY_MS, SWEEP_EVERY_MS);
    return api;
}

void *api_free(struct api *api)
{
    if (!api)
        return NULL;
    aggregate_stop(api);
    outside_stop(api);
    webhooks_stop(api);
    policies_stop(api);
    env_timer_free(api->sweep);
    crd_stop(api);
    addresses_stop(api);
    node_pods_free(api->node_pods);
    authn_free(api->authn);
    authz_free(api->authz);
    audit_free(api->audit);
    api->flow = flow_free(api->flow);
    metrics_free(api->metrics);
    told_cache_free(api->told);
    free(api->flags);
    free(api->host);
    free(api->server_url);
    free(api->node_socket);
    free(api->node_name);
    free(api->state_dir);
    free(api);
    return NULL;
}
