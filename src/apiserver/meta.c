/* apiserver/meta.c - what is no resource: discovery, OpenAPI, health, version, keys, metrics. */
#include "apiserver/api_int.h"

#include "schema/publish.h"

static const char TEXT[] = "text/plain; charset=utf-8";

static int plain(struct call *c, int status, const char *text)
{
    answer_text(c, status, TEXT, text, strlen(text));
    return 0;
}

static int no_page(struct call *c)
{
    return plain(c, 404, "404 page not found\n");
}

static int doc_answer(struct call *c, struct doc d, const char *type)
{
    if (!d.text)
        return no_page(c);
    answer_text(c, 200, type, d.text, d.n);
    c->resp.etag = str_empty(d.hash) ? NULL : arena_printf(c->a, "\"%s\"", d.hash);
    return 0;
}

/* Discovery comes in two shapes. 0: the plain one; 1: aggregated; -1: none that is wanted. */
static int discovery_shape(struct call *c, bool may_aggregate)
{
    const char *s = c->req->accept;

    if (str_empty(s))
        return 0;
    while (*s) {
        size_t n = strcspn(s, ",");
        const char *part = arena_strndup(c->a, s, n);

        if (strstr(part, "as=APIGroupDiscoveryList")) {
            if (may_aggregate && strstr(part, "application/json") && strstr(part, "v=v2") &&
                !strstr(part, "v=v2beta1") && strstr(part, "g=apidiscovery.k8s.io"))
                return 1;
        } else if (strstr(part, "application/yaml") || strstr(part, PROTOBUF_TYPE)) {
            c->encoding = strstr(part, PROTOBUF_TYPE) ? ENC_PROTOBUF : ENC_YAML;
            return 0;
        } else if (strstr(part, "application/json") || strstr(part, "*/*")) {
            return 0;
        }
        s += n + (s[n] == ',');
    }
    return -1;
}

static int discovery(struct call *c, struct doc (*make)(struct call *c, bool aggregated),
                     bool may_aggregate)
{
    int shape = discovery_shape(c, may_aggregate);
    struct doc d;

    if (shape < 0)
        return fail(c, 406, "NotAcceptable",
                    "only the following media types are accepted: application/json, application/yaml");
    d = make(c, shape == 1);
    if (shape == 1)
        return doc_answer(c, d, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    d.hash = "";
    if (d.text && c->encoding != ENC_JSON) {
        struct api_response text = {.body = d.text, .body_n = d.n};
        struct val *v = val_copy(c->a, api_response_val(c->a, &text));

        if (!val_get(v, "apiVersion")) /* the core's documents do not say it */
            val_put_str(c->a, v, "apiVersion", "v1");
        answer_val(c, 200, v);
        return 0;
    }
    return doc_answer(c, d, "application/json");
}

static struct doc make_api(struct call *c, bool aggregated)
{
    return aggregated ? publish_aggregated(c->api->schema, true, "v2")
                      : publish_api(c->api->schema, c->a,
                                    arena_printf(c->a, "%s:%d", c->api->host, c->api->port));
}

static struct doc make_apis(struct call *c, bool aggregated)
{
    return aggregated ? aggregate_discovery(c, publish_aggregated(c->api->schema, false, "v2"))
                      : aggregate_groups(c, publish_apis(c->api->schema));
}

/* /apis/G and /apis/G/V and /api/V */
static struct doc make_group(struct call *c, bool aggregated)
{
    const char *p = c->path.text + 1, *slash = strchr(p, '/'), *rest;
    size_t n;

    if (str_starts(p, "api/"))
        return publish_resources(c->api->schema, "", arena_strndup(c->a, p + 4, strcspn(p + 4, "/")));
    if (!slash)
        return (struct doc){0};
    n = strcspn(slash + 1, "/");
    rest = slash[1 + n] ? slash + 2 + n : "";
    if (!*rest)
        return aggregate_group(c, publish_group(c->api->schema, arena_strndup(c->a, slash + 1, n)),
                               arena_strndup(c->a, slash + 1, n));
    return publish_resources(c->api->schema, arena_strndup(c->a, slash + 1, n),
                             arena_strndup(c->a, rest, strcspn(rest, "/")));
}

static int serve_version(struct call *c)
{
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "major", "1");
    val_put_str(c->a, v, "minor", "36");
    val_put_str(c->a, v, "gitVersion", KUBERNETES_VERSION);
    val_put_str(c->a, v, "gitCommit", "");
    val_put_str(c->a, v, "gitTreeState", "clean");
    val_put_str(c->a, v, "buildDate", "2026-01-01T00:00:00Z");
    val_put_str(c->a, v, "goVersion", "none");
    val_put_str(c->a, v, "compiler", "cc");
    val_put_str(c->a, v, "platform", "linux/amd64");
    answer_val(c, 200, v);
    return 0;
}

static int serve_root(struct call *c)
{
    static const char *const paths[] = {
        "/.well-known/openid-configuration", "/api", "/api/v1", "/apis",
        "/debug/api_priority_and_fairness/dump_priority_levels", "/debug/api_priority_and_fairness/dump_queues",
        "/debug/api_priority_and_fairness/dump_requests", "/flagz", "/healthz", "/livez", "/metrics", "/openapi/v2",
        "/openapi/v3", "/openid/v1/jwks", "/readyz", "/statusz", "/version"};
    struct val *v = val_map(c->a), *list = val_list(c->a);

    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        val_push_str(c->a, list, paths[i]);
    val_put(c->a, v, "paths", list);
    answer_val(c, 200, v);
    return 0;
}

/* Which form of an OpenAPI document is wanted: by q, then in the order in which they were said. */
enum openapi_form { OPENAPI_NONE, OPENAPI_JSON, OPENAPI_PROTOBUF };
static enum openapi_form openapi_form(struct call *c, const char *version)
{
    static const char text[] = "application/com.github.proto-openapi.spec.";
    const char *s = c->req->accept;
    enum openapi_form best = OPENAPI_NONE;
    double best_q = 0;

    if (str_empty(s))
        return OPENAPI_JSON;
    for (size_t n; *s; s += n + (s[n] == ',')) {
        const char *type, *q;
        enum openapi_form form = OPENAPI_NONE;
        double weight = 1;

        n = strcspn(s, ",");
        type = arena_strndup(c->a, s + strspn(s, " \t"), n - MIN(n, strspn(s, " \t")));
        if ((q = strstr(type, "q=")))
            weight = atof(q + 2);
        if (str_starts(type, "application/json") || str_starts(type, "*/*") || str_starts(type, "application/*"))
            form = OPENAPI_JSON;
        else if (str_starts(type, text) && str_starts(type + strlen(text), version) &&
                 strstr(type, "v1.0+protobuf"))
            form = OPENAPI_PROTOBUF;
        if (form && weight > best_q) {
            best = form;
            best_q = weight;
        }
    }
    return best;
}

/* A document of one group-version. A hash in the query that is the document's makes it one that
 * caches may keep; another one is told the address of now. */
static int serve_openapi_v3(struct call *c, const char *path, enum openapi_form form)
{
    struct doc d = form == OPENAPI_PROTOBUF ? publish_openapi_v3_protobuf(c->api->schema, path)
                                            : publish_openapi_v3(c->api->schema, path);
    const char *hash = param(c, "hash");

    if (!d.text) {
        answer_text(c, 404, "", "", 0);
        return 0;
    }
    d.hash = publish_openapi_v3_hash(c->api->schema, c->a, path);
    if (!str_empty(hash) && !streq(hash, d.hash)) {
        answer_text(c, 301, TEXT, "", 0);
        c->resp.location = arena_printf(c->a, "/openapi/v3/%s?hash=%s", path, d.hash);
        return 0;
    }
    c->resp.immutable = !str_empty(hash);
    return doc_answer(c, d, form == OPENAPI_PROTOBUF
                                ? "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
                                : "application/json");
}

static int serve_openapi(struct call *c, const char *rest)
{
    enum openapi_form form;

    if (streq(rest, "v3") || streq(rest, "v3/"))
        return doc_answer(c, aggregate_openapi_v3(c, publish_openapi_v3_index(c->api->schema)), TEXT);
    if (!streq(rest, "v2") && !str_starts(rest, "v3/"))
        return no_page(c);
    if ((form = openapi_form(c, streq(rest, "v2") ? "v2" : "v3")) == OPENAPI_NONE)
        return plain(c, 406, "");
    if (str_starts(rest, "v3/"))
        return serve_openapi_v3(c, rest + 3, form);
    if (form == OPENAPI_PROTOBUF)
        return doc_answer(c, publish_openapi_v2_protobuf(c->api->schema),
                          "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    return doc_answer(c, publish_openapi_v2(c->api->schema), "application/json");
}

int meta_serve(struct call *c)
{
    const char *p = c->path.text;
    size_t n = strlen(p);

    if (n > 1 && p[n - 1] == '/' && !str_starts(p, "/openapi"))
        c->path.text = p = arena_strndup(c->a, p, n - 1);
    if (!c->is_get)
        return fail_no_method(c);
    if (streq(p, "/") || !*p)
        return serve_root(c);
    if (streq(p, "/api"))
        return discovery(c, make_api, true);
    if (streq(p, "/apis"))
        return discovery(c, make_apis, true);
    if (str_starts(p, "/api/") || str_starts(p, "/apis/"))
        return discovery(c, make_group, false);
    if (streq(p, "/version"))
        return serve_version(c);
    if (streq(p, "/metrics"))
        return metrics_serve(c);
    if (streq(p, "/flagz"))
        return flagz_serve(c);
    if (streq(p, "/statusz"))
        return statusz_serve(c);
    if (str_starts(p, "/debug/api_priority_and_fairness/"))
        return c->api->flow ? flow_dump(c, p + strlen("/debug/api_priority_and_fairness/")) : no_page(c);
    if (str_starts(p, "/openapi/"))
        return serve_openapi(c, p + strlen("/openapi/"));
    if (streq(p, "/openid/v1/jwks")) {
        answer_val(c, 200, token_jwks(pki_sa_keys(c->api->pki), c->a));
        c->resp.content_type = "application/jwk-set+json";
        return 0;
    }
    if (streq(p, "/.well-known/openid-configuration")) {
        answer_val(c, 200, token_openid(pki_sa_keys(c->api->pki), c->a, c->api->server_url));
        return 0;
    }
    static const char *const health[] = {"healthz", "livez", "readyz"};
    for (size_t i = 0; i < ARRAY_LEN(health); i++) {
        size_t len = strlen(health[i]);

        if (strncmp(p + 1, health[i], len) == 0 && (!p[1 + len] || p[1 + len] == '/'))
            return health_serve(c, health[i], p[1 + len] ? p + 2 + len : "");
    }
    return no_page(c);
}
