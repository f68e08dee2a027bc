/* The API over a store in memory and a simulated world: the same code as in the server, but for
 * the sockets. Goal: the promises of apiserver.h and what watches are told. */
#include "apiserver/api_int.h" /* before cmocka, which takes the word fail for itself */
#include "apiserver/told.h"
#include "codec/json.h"

#include "../api_world.h"

static void keep(void *arg, const struct api_response *resp)
{
    *(struct api_response *)arg = *resp;
}

static struct api_response ask_as(struct api_world *w, const struct auth_user *user, const char *method,
                                  const char *target, const char *type, const char *body)
{
    struct api_response resp = {0};
    const char *q = strchr(target, '?');
    struct api_request req = {.arena = w->a, .user = user, .method = method, .content_type = type,
                              .body = body, .body_n = body ? strlen(body) : 0};

    req.path = q ? arena_strndup(w->a, target, (size_t)(q - target)) : target;
    req.query = q ? q + 1 : NULL;
    api_do(w->api, &req, keep, &resp);
    return resp;
}

static struct api_response ask(struct api_world *w, const char *method, const char *target, const char *body)
{
    return ask_as(w, NULL, method, target, NULL, body);
}

static const char *at(struct api_world *w, const struct api_response *r, const char *path)
{
    return val_str_at(api_response_val(w->a, r), path, "");
}

/* ---------------------------------------------------------------- paths */

static void test_paths(void **state)
{
    static const struct {
        const char *text;
        bool resource;
        const char *group, *version, *ns, *plural, *name, *sub, *rest;
    } t[] = {
        {"/api/v1/pods", true, "", "v1", "", "pods", "", "", ""},
        {"/api/v1/namespaces/a/pods/b", true, "", "v1", "a", "pods", "b", "", ""},
        {"/api/v1/namespaces/a", true, "", "v1", "", "namespaces", "a", "", ""},
        {"/api/v1/namespaces/a/status", true, "", "v1", "", "namespaces", "a", "status", ""},
        {"/apis/apps/v1/namespaces/a/deployments/d/scale", true, "apps", "v1", "a", "deployments", "d", "scale", ""},
        {"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:x%2Fy", true,
         "rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:x/y", "", ""},
        {"/api/v1/namespaces/a/services/s:80/proxy/x/y%20z", true, "", "v1", "a", "services", "s:80", "proxy", "x/y%20z"},
        {"/api/v1", false, "", "", "", "", "", "", ""},
        {"/apis/apps", false, "", "", "", "", "", "", ""},
        {"/api//pods", false, "", "", "", "", "", "", ""},
        {"/healthz/a/b/c", false, "", "", "", "", "", "", ""},
        {"/api/v1/pods/%00", false, "", "", "", "", "", "", ""},
        {"/api/v1/pods/%zz", false, "", "", "", "", "", "", ""},
    };
    _auto_(arena_freep) struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct path p;

        assert_int_equal(path_parse(a, t[i].text, &p), t[i].resource);
        if (!t[i].resource)
            continue;
        assert_string_equal(p.group, t[i].group);
        assert_string_equal(p.version, t[i].version);
        assert_string_equal(p.ns, t[i].ns);
        assert_string_equal(p.plural, t[i].plural);
        assert_string_equal(p.name, t[i].name);
        assert_string_equal(p.sub, t[i].sub);
        assert_string_equal(p.rest, t[i].rest);
    }
}

/* ---------------------------------------------------------------- writes */

#define CMS "/api/v1/namespaces/default/configmaps"

static void test_life_of_an_object(void **state)
{
    struct api_world *w = *state;
    struct api_response r = ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"1\"}}");
    const char *rv;

    assert_int_equal(r.status, 201);
    assert_non_null(r.obj); /* as stored: nobody parses it again */
    assert_true(r.revision > 0);
    assert_string_equal(at(w, &r, "metadata.namespace"), "default");
    rv = arena_strdup(w->a, at(w, &r, "metadata.resourceVersion"));
    assert_int_equal(ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"}}").status, 409);
    r = ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"data\":{\"x\":null,\"y\":\"2\"}}");
    assert_int_equal(r.status, 200);
    assert_string_equal(at(w, &r, "data.y"), "2");
    assert_string_equal(at(w, &r, "data.x"), "");
    /* a version that is no more loses */
    r = ask(w, "PUT", CMS "/a", arena_printf(w->a, "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"%s\"}}", rv));
    assert_int_equal(r.status, 409);
    assert_string_equal(at(w, &r, "reason"), "Conflict");
    /* nothing changed: no new version */
    r = ask(w, "GET", CMS "/a", NULL);
    rv = arena_strdup(w->a, at(w, &r, "metadata.resourceVersion"));
    r = ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"data\":{\"y\":\"2\"}}");
    assert_string_equal(at(w, &r, "metadata.resourceVersion"), rv);
    /* held by a finalizer, then gone with it */
    r = ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"metadata\":{\"finalizers\":[\"x.example.com/y\"]}}");
    assert_int_equal(r.status, 200);
    assert_int_equal(ask(w, "DELETE", CMS "/a", NULL).status, 200);
    r = ask(w, "GET", CMS "/a", NULL);
    assert_int_equal(r.status, 200);
    assert_true(*at(w, &r, "metadata.deletionTimestamp"));
    assert_int_equal(ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"metadata\":{\"finalizers\":null}}").status, 200);
    assert_int_equal(ask(w, "GET", CMS "/a", NULL).status, 404);
}

static void test_dry_run_leaves_nothing(void **state)
{
    struct api_world *w = *state;
    int64_t before = store_head(w->store);

    assert_int_equal(ask(w, "POST", CMS "?dryRun=All", "{\"metadata\":{\"name\":\"a\"}}").status, 201);
    assert_int_equal(ask(w, "POST", "/api/v1/namespaces/default/services?dryRun=All",
                         "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":80}]}}").status, 201);
    assert_int_equal(store_head(w->store), before);
}

static void test_bad_input_is_told(void **state)
{
    struct api_world *w = *state;
    static const struct {
        const char *method, *target, *body;
        int status;
    } t[] = {
        {"POST", CMS, "{", 400},
        {"POST", CMS, "[]", 400},
        {"POST", CMS, "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}", 400},
        {"POST", CMS, "{\"metadata\":{\"name\":\"Bad Name\"}}", 422},
        {"POST", CMS "/a", "{}", 405},
        {"POST", "/api/v1/namespaces/none/configmaps", "{\"metadata\":{\"name\":\"a\"}}", 404},
        {"GET", CMS "?limit=x", NULL, 400},
        {"GET", CMS "?labelSelector=a,,b", NULL, 400},
        {"GET", CMS "?resourceVersionMatch=Exact", NULL, 422},
        {"GET", "/api/v1/nonsense", NULL, 404},
        {"GET", "/apis/no.such.group/v1/things", NULL, 404},
        {"DELETE", CMS "/a?propagationPolicy=Odd", NULL, 422},
        {"BREW", CMS, NULL, 405},
    };

    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct api_response r = ask(w, t[i].method, t[i].target, t[i].body);

        if (r.status != t[i].status)
            fail_msg("%s %s %s: %d and not %d", t[i].method, t[i].target, t[i].body, r.status, t[i].status);
    }
}

static void test_pages(void **state)
{
    struct api_world *w = *state;
    const char *next = "";
    uint32_t seen = 0, pages = 0;

    for (int i = 0; i < 25; i++)
        ask(w, "POST", CMS, arena_printf(w->a, "{\"metadata\":{\"name\":\"p%02d\"}}", i));
    do {
        struct api_response r = ask(w, "GET", arena_printf(w->a, CMS "?limit=10%s%s",
                                    *next ? "&continue=" : "", next), NULL);

        assert_int_equal(r.status, 200);
        if (!pages)
            ask(w, "DELETE", CMS "/p20", NULL); /* pages show the world of the first one */
        next = r.continue_ ? r.continue_ : "";
        seen += r.objs_n;
        pages++;
    } while (*next);
    assert_int_equal(seen, 25);
    assert_int_equal(pages, 3);
}

static struct buf list_text(struct api_world *w, const char *path, const char *query, const char *accept, bool stream)
{
    struct api_response resp = {0};
    struct api_request req = {.arena = w->a, .method = "GET", .path = path, .query = query, .accept = accept, .may_stream = stream};
    struct buf b = {0};

    api_do(w->api, &req, keep, &resp);
    assert_int_equal(resp.status, 200);
    assert_int_equal(stream, resp.stream != NULL);
    if (stream)
        while (api_stream_next(resp.stream, &b))
            ;
    else
        api_response_text(&b, &resp);
    return b;
}

/* Goal: a list that goes out piece by piece, mostly from texts, is the one that is put together of trees, whatever its form. */
static void test_streams_say_the_same(void **state)
{
#define AS(form) "as=" form ";v=v1;g=meta.k8s.io"
    static const char *const accept[] = {"application/json", "application/json;" AS("Table"), "application/json;" AS("PartialObjectMetadataList"),
        PROTOBUF_TYPE, PROTOBUF_TYPE ";" AS("PartialObjectMetadataList"), PROTOBUF_TYPE};
    static const char *const query[] = {"", "includeObject=Object", "includeObject=None"};
    static const char *const path[] = {"/api/v1/pods", "/apis/apps/v1/daemonsets", "/apis/autoscaling/v1/horizontalpodautoscalers",
        "/apis/autoscaling/v2/horizontalpodautoscalers", "/apis/rbac.authorization.k8s.io/v1/clusterroles"};
#define TEMPLATE "\"selector\":{\"matchLabels\":{\"x\":\"y\"}},\"template\":{\"metadata\":{\"labels\":{\"x\":\"y\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}"
    struct api_world *w = *state;
    struct api_response r;

    ask(w, "POST", "/api/v1/namespaces/default/serviceaccounts", "{\"metadata\":{\"name\":\"default\"}}");
    for (int i = 0; i < 12; i++) {
        r = ask(w, "POST", "/api/v1/namespaces/default/pods", arena_printf(w->a,
            "{\"metadata\":{\"name\":\"p%d\",\"annotations\":{\"spec\":\"}\\\"{\",\"n\":\"%d\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\","
            "\"env\":[{\"name\":\"A\",\"value\":\"]\\n%d\"}]}]}}", i, i / 4, i % 2));
        assert_int_equal(r.status, 201);
    }
    r = ask(w, "POST", "/apis/apps/v1/namespaces/default/daemonsets",
            "{\"metadata\":{\"name\":\"d\",\"annotations\":{\"deprecated.daemonset.template.generation\":\"3\",\"z\":\"1\"}},\"spec\":{" TEMPLATE "}}");
    assert_int_equal(r.status, 201);
    r = ask(w, "POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            "{\"metadata\":{\"name\":\"h\"},\"spec\":{\"scaleTargetRef\":{\"kind\":\"Deployment\",\"name\":\"d\",\"apiVersion\":\"apps/v1\"},\"maxReplicas\":3,"
            "\"metrics\":[{\"type\":\"Resource\",\"resource\":{\"name\":\"memory\",\"target\":{\"type\":\"Utilization\",\"averageUtilization\":4}}}]}}");
    assert_int_equal(r.status, 201);
    for (size_t p = 0; p < ARRAY_LEN(path); p++)
        for (size_t i = 0; i < ARRAY_LEN(accept); i++)
            for (size_t q = 0; q < ARRAY_LEN(query); q++) {
                struct buf whole = list_text(w, path[p], query[q], accept[i], false);
                struct buf pieces = list_text(w, path[p], query[q], accept[i], true);

                if (whole.n != pieces.n || memcmp(whole.p, pieces.p, whole.n) != 0)
                    fail_msg("%s?%s as %s:\n%.*s\n%.*s", path[p], query[q], accept[i], (int)whole.n, whole.p, (int)pieces.n, pieces.p);
                buf_done(&whole);
                buf_done(&pieces);
            }
}

/* ---------------------------------------------------------------- access */

static void test_access(void **state)
{
    struct api_world *w = *state;
    static const char *const groups[] = {"system:authenticated", NULL};
    struct auth_user bob = {.name = "bob", .uid = "", .groups = groups};

    assert_int_equal(ask_as(w, &bob, "GET", CMS, NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &bob, "GET", "/version", NULL, NULL).status, 200);
    assert_int_equal(ask(w, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        "{\"metadata\":{\"name\":\"b\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\","
        "\"name\":\"system:aggregate-to-view\"},\"subjects\":[{\"kind\":\"User\",\"name\":\"bob\"}]}").status, 201);
    assert_int_equal(ask_as(w, &bob, "GET", CMS, NULL, NULL).status, 200);
    assert_int_equal(ask_as(w, &bob, "GET", "/api/v1/namespaces/default/secrets", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &bob, "GET", "/api/v1/namespaces/kube-system/configmaps", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &bob, "POST", CMS, NULL, "{\"metadata\":{\"name\":\"z\"}}").status, 403);
}

static void test_node_sees_what_its_pods_use(void **state)
{
    struct api_world *w = *state;
    static const char *const groups[] = {"system:nodes", "system:authenticated", NULL};
    struct auth_user node = {.name = "system:node:n1", .uid = "", .groups = groups};

    ask(w, "POST", "/api/v1/namespaces/default/serviceaccounts", "{\"metadata\":{\"name\":\"default\"}}");
    ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"used\"}}");
    ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"other\"}}");
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/namespaces/default/secrets/used", NULL, NULL).status, 403);
    assert_int_equal(ask(w, "POST", "/api/v1/namespaces/default/pods",
        "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"nodeName\":\"n1\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}],"
        "\"volumes\":[{\"name\":\"v\",\"secret\":{\"secretName\":\"used\"}}]}}").status, 201);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/namespaces/default/secrets/used", NULL, NULL).status, 200);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/namespaces/default/secrets/other", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/pods", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", NULL, NULL).status, 200);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/nodes", NULL, NULL).status, 403);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/nodes/n1", NULL, NULL).status, 404);
    assert_int_equal(ask_as(w, &node, "GET", "/api/v1/nodes/n2", NULL, NULL).status, 403);
}

/* ---------------------------------------------------------------- tokens */

static void test_token_ends_with_what_it_is_bound_to(void **state)
{
    struct api_world *w = *state;
    struct auth_user u;
    struct token_found found = {0};
    struct err err = {0};
    struct api_response r;
    int64_t now = env_now_ms(w->env) / 1000;
    const char *token, *uid;
    struct val *other;
    char *bad;

    ask(w, "POST", "/api/v1/namespaces/default/serviceaccounts", "{\"metadata\":{\"name\":\"robot\"}}");
    r = ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"s\"}}");
    uid = at(w, &r, "metadata.uid");
    r = ask(w, "POST", "/api/v1/namespaces/default/serviceaccounts/robot/token",
            arena_printf(w->a, "{\"spec\":{\"expirationSeconds\":600,\"boundObjectRef\":{\"kind\":\"Secret\",\"apiVersion\":"
                         "\"v1\",\"name\":\"s\",\"uid\":\"%s\"}}}", uid));
    assert_int_equal(r.status, 201);
    token = at(w, &r, "status.token");
    assert_int_equal(token_verify(pki_sa_keys(w->pki), token, &(struct token_check){.audiences = NULL, .now = now, .lookup = api_lookup, .arg = w->api}, w->a, &found, &err), 0);
    u = found.user;
    assert_string_equal(u.name, "system:serviceaccount:default:robot");
    assert_true(auth_user_in(&u, "system:serviceaccounts:default"));
    /* too late, another audience, a spoiled letter */
    assert_int_equal(token_verify(pki_sa_keys(w->pki), token, &(struct token_check){.audiences = NULL, .now = now + 601, .lookup = api_lookup, .arg = w->api}, w->a, &found, &err), -1);
    other = val_list(w->a);
    val_push_str(w->a, other, "vault");
    assert_int_equal(token_verify(pki_sa_keys(w->pki), token, &(struct token_check){.audiences = other, .now = now, .lookup = api_lookup, .arg = w->api}, w->a, &found, &err), -1);
    bad = arena_strdup(w->a, token);
    bad[strlen(bad) - 10] = bad[strlen(bad) - 10] == 'A' ? 'B' : 'A';
    assert_int_equal(token_verify(pki_sa_keys(w->pki), bad, &(struct token_check){.audiences = NULL, .now = now, .lookup = api_lookup, .arg = w->api}, w->a, &found, &err), -1);
    /* the secret goes, and the token with it */
    assert_int_equal(ask(w, "DELETE", "/api/v1/namespaces/default/secrets/s", NULL).status, 200);
    assert_int_equal(token_verify(pki_sa_keys(w->pki), token, &(struct token_check){.audiences = NULL, .now = now, .lookup = api_lookup, .arg = w->api}, w->a, &found, &err), -1);
}

/* ---------------------------------------------------------------- watches */

struct heard {
    char text[512]; /* "ADDED a, MODIFIED a, BOOKMARK, ..." */
    struct api_watch *stop_after_two;
    int n;
};

static bool hear(void *arg, const struct api_event *ev)
{
    static const char *const names[] = {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "END"};
    struct heard *h = arg;
    size_t n = strlen(h->text);

    h->n++;
    snprintf(h->text + n, sizeof(h->text) - n, "%s%s%s%s", n ? ", " : "", names[ev->type], ev->obj ? " " : "",
             ev->obj ? ev->obj->name : "");
    return ev->type != API_END && ev->type != API_ERROR;
}

static struct api_watch *watch(struct api_world *w, const char *target, struct heard *h)
{
    struct api_response r = ask(w, "GET", target, NULL);

    assert_int_equal(r.status, 200);
    assert_non_null(r.watch);
    api_watch_start(r.watch, hear, h);
    assert_int_equal(h->n, 0); /* never from inside */
    return r.watch;
}

static void test_watch_tells_selection(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};
    struct api_watch *watcher;

    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\",\"labels\":{\"t\":\"x\"}}}");
    watcher = watch(w, CMS "?watch=1&labelSelector=t%3Dx", &h);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED a");
    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"b\"}}"); /* not selected */
    ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"data\":{\"k\":\"v\"}}");
    ask_as(w, NULL, "PATCH", CMS "/a", "application/merge-patch+json", "{\"metadata\":{\"labels\":null}}");
    ask_as(w, NULL, "PATCH", CMS "/b", "application/merge-patch+json", "{\"metadata\":{\"labels\":{\"t\":\"x\"}}}");
    ask(w, "DELETE", CMS "/b", NULL);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED a, MODIFIED a, DELETED a, ADDED b, DELETED b");
    api_watch_free(watcher);
}

/* Goal: watches that want the same get one text, others another. Method: a front that leaves the
 * address of its own record as the text and notes what it finds. */
struct reader {
    int made, found;
    char last[64]; /* texts go with the turn */
};

static bool read_text(void *arg, const struct api_event *ev)
{
    struct reader *r = arg;
    struct buf b = {0};

    if (!ev->told) /* what was there at the start is each reader's own */
        return true;
    if (ev->told->text) {
        r->found++;
    } else {
        assert_true(ev->val || ev->obj);
        buf_printf(&b, "%d %s %s", ev->type, ev->obj->name, ev->val ? "changed" : "as stored");
        told_put(ev->told, &b);
        r->made++;
    }
    snprintf(r->last, sizeof r->last, "%s", ev->told->text);
    return true;
}

static void test_watch_texts_are_shared(void **state)
{
    static const char *const accept[] = {"application/json", "application/json",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"};
    struct api_world *w = *state;
    struct reader r[4] = {0};
    struct api_watch *v[4];

    for (int i = 0; i < 4; i++) {
        struct api_response resp = {0};
        struct api_request req = {.arena = w->a, .method = "GET", .path = i & 1 ? "/api/v1/configmaps" : CMS,
                                  .query = "watch=1", .accept = accept[i]};

        api_do(w->api, &req, keep, &resp);
        assert_int_equal(resp.status, 200);
        v[i] = resp.watch;
        api_watch_texts(v[i]);
        api_watch_start(v[i], read_text, &r[i]);
    }
    api_world_settle(w);
    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"}}");
    api_world_settle(w);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(r[i].made, i == 0 || i == 2);
        assert_int_equal(r[i].found, i == 1 || i == 3);
    }
    assert_string_equal(r[1].last, "0 a as stored");
    assert_string_equal(r[3].last, "0 a changed");
    ask(w, "DELETE", CMS "/a", NULL);
    api_world_settle(w);
    assert_string_equal(r[1].last, "2 a as stored");
    assert_int_equal(r[1].found + r[1].made, 2);
    for (int i = 0; i < 4; i++)
        api_watch_free(v[i]);
}

static void test_watch_from_a_revision(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};
    struct api_watch *watcher;
    struct api_response r = ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"}}");
    const char *rv = at(w, &r, "metadata.resourceVersion");

    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"b\"}}");
    watcher = watch(w, arena_printf(w->a, CMS "?watch=true&resourceVersion=%s", rv), &h);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED b"); /* what came behind it, and no list */
    /* a reader that is behind waits; nothing is lost */
    api_watch_pause(watcher, true);
    ask(w, "DELETE", CMS "/a", NULL);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED b");
    api_watch_pause(watcher, false);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED b, DELETED a");
    api_watch_free(watcher);
}

static void test_watch_initial_events_and_end(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};

    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"}}");
    watch(w, CMS "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=90", &h);
    api_world_settle(w);
    assert_string_equal(h.text, "ADDED a, BOOKMARK");
    env_sim_run_until(w->env, env_now_ms(w->env) + 120000);
    assert_string_equal(h.text, "ADDED a, BOOKMARK, BOOKMARK, BOOKMARK, END"); /* one a minute, one before the end */
}

/* Goal: whoever pages through a list whose revision is forgotten gets a 410 with a token that works. */
static void test_pages_across_compaction(void **state)
{
    struct api_world *w = *state;
    struct api_response r;
    const char *token, *second;

    for (const char *n = "abc"; *n; n++)
        ask(w, "POST", CMS, arena_printf(w->a, "{\"metadata\":{\"name\":\"%c\"}}", *n));
    api_world_settle(w);
    r = ask(w, "GET", CMS "?limit=1", NULL);
    assert_int_equal(r.remaining, 2);
    token = arena_strdup(w->a, at(w, &r, "metadata.continue"));
    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"b2\"}}");
    api_world_settle(w);
    r = ask(w, "GET", arena_printf(w->a, CMS "?limit=1&continue=%s", token), NULL);
    assert_string_equal(at(w, &r, "items[0].metadata.name"), "b");
    assert_int_equal(r.remaining, 1); /* as it was: without b2 */
    store_compact(w->store, store_head(w->store));
    r = ask(w, "GET", arena_printf(w->a, CMS "?limit=1&continue=%s", token), NULL);
    assert_int_equal(r.status, 410);
    assert_string_equal(at(w, &r, "reason"), "Expired");
    second = arena_strdup(w->a, at(w, &r, "metadata.continue"));
    r = ask(w, "GET", arena_printf(w->a, CMS "?limit=2&continue=%s", second), NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(at(w, &r, "items[0].metadata.name"), "b");
    assert_string_equal(at(w, &r, "items[1].metadata.name"), "b2");
    r = ask(w, "GET", CMS "?resourceVersion=1&resourceVersionMatch=Exact", NULL);
    assert_int_equal(r.status, 410);
    assert_string_equal(at(w, &r, "metadata.continue"), "");
    /* "0" comes whole, whatever the limit; a revision to come is a 504 that says when to ask again */
    r = ask(w, "GET", CMS "?limit=1&resourceVersion=0", NULL);
    assert_int_equal(r.objs_n, 4);
    r = ask(w, "GET", CMS "?resourceVersion=900000000", NULL);
    assert_int_equal(r.status, 504);
    assert_string_equal(r.retry_after, "1");
    assert_string_equal(at(w, &r, "details.causes[0].reason"), "ResourceVersionTooLarge");
}

static void test_watch_of_the_future(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};

    watch(w, CMS "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&"
              "resourceVersion=900000000", &h);
    api_world_settle(w);
    assert_string_equal(h.text, "ERROR"); /* not a list of today under the name of tomorrow */
}

static void test_watch_too_old(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};

    for (int i = 0; i < 10; i++)
        ask(w, "POST", CMS, arena_printf(w->a, "{\"metadata\":{\"name\":\"n%d\"}}", i));
    api_world_settle(w);
    store_compact(w->store, store_head(w->store));
    watch(w, CMS "?watch=true&resourceVersion=1", &h);
    api_world_settle(w);
    assert_string_equal(h.text, "ERROR");
}

static void test_watch_freed_at_once(void **state)
{
    struct api_world *w = *state;
    struct heard h = {0};
    struct api_watch *watcher;

    ask(w, "POST", CMS, "{\"metadata\":{\"name\":\"a\"}}");
    watcher = watch(w, CMS "?watch=1", &h);
    api_watch_free(watcher); /* while it still waits for the disk */
    api_world_settle(w);
    assert_int_equal(h.n, 0);
}

/* ---------------------------------------------------------------- apply */

static struct api_response apply(struct api_world *w, const char *manager, const char *data)
{
    return ask_as(w, NULL, "PATCH", arena_printf(w->a, CMS "/c?fieldManager=%s", manager),
                  "application/apply-patch+yaml",
                  arena_printf(w->a, "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {%s}}", data));
}

static void test_apply_knows_who_said_what(void **state)
{
    struct api_world *w = *state;
    struct api_response r = apply(w, "one", "a: x, b: x");
    const char *rv;

    assert_int_equal(r.status, 201);
    rv = arena_strdup(w->a, at(w, &r, "metadata.resourceVersion"));
    r = apply(w, "one", "a: x, b: x"); /* the same again changes nothing */
    assert_string_equal(at(w, &r, "metadata.resourceVersion"), rv);
    r = apply(w, "two", "a: y"); /* one's word against two's */
    assert_int_equal(r.status, 409);
    assert_string_equal(at(w, &r, "details.causes[0].field"), ".data.a");
    assert_int_equal(apply(w, "two&force=true", "a: y, c: z").status, 200);
    r = apply(w, "one", "b: x"); /* one says a no more, but two does: it stays */
    assert_string_equal(at(w, &r, "data.a"), "y");
    r = apply(w, "one", ""); /* nobody says b any more */
    assert_string_equal(at(w, &r, "data.b"), "");
    assert_string_equal(at(w, &r, "data.c"), "z");
}

static struct api_response apply_scaler(struct api_world *w, const char *version, const char *manager, int max)
{
    return ask_as(w, NULL, "PATCH",
                  arena_printf(w->a, "/apis/autoscaling/%s/namespaces/default/horizontalpodautoscalers/h?fieldManager=%s", version, manager),
                  "application/apply-patch+yaml",
                  arena_printf(w->a, "{apiVersion: autoscaling/%s, kind: HorizontalPodAutoscaler, metadata: {name: h}, "
                               "spec: {maxReplicas: %d, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}", version, max));
}

/* Managers are heard in the version in which they spoke. */
static void test_apply_across_versions(void **state)
{
    struct api_world *w = *state;
    struct api_response r = apply_scaler(w, "v2", "one", 5);

    assert_int_equal(r.status, 201);
    r = apply_scaler(w, "v1", "two", 6);
    assert_int_equal(r.status, 409);
    assert_string_equal(at(w, &r, "details.causes[0].field"), ".spec.maxReplicas");
    assert_string_equal(at(w, &r, "details.causes[0].message"), "conflict with \"one\" using autoscaling/v2");
    assert_int_equal(apply_scaler(w, "v1", "two&force=true", 6).status, 200);
    r = apply_scaler(w, "v2", "one", 6); /* both say so now */
    assert_int_equal(r.status, 200);
}

/* A kubectl that applied from the client's side left its words in an annotation: kubectl's apply from
 * the server's side may change them, others may not, and the annotation follows. */
static void test_kubectl_goes_over_to_apply(void **state)
{
    static const char last[] = "metadata.annotations";
    struct api_world *w = *state;
    struct api_response r = ask_as(w, NULL, "POST", CMS "?fieldManager=kubectl-client-side-apply", "application/json",
        "{\"metadata\":{\"name\":\"c\",\"annotations\":{\"kubectl.kubernetes.io/last-applied-configuration\":"
        "\"{\\\"apiVersion\\\":\\\"v1\\\",\\\"kind\\\":\\\"ConfigMap\\\",\\\"data\\\":{\\\"a\\\":\\\"x\\\"}}\"}},"
        "\"data\":{\"a\":\"x\",\"b\":\"x\"}}");

    assert_int_equal(r.status, 201);
    assert_int_equal(apply(w, "other", "a: y").status, 409);
    assert_int_equal(apply(w, "kubectl", "b: y").status, 409); /* b was not among its words */
    r = apply(w, "kubectl", "a: y");
    assert_int_equal(r.status, 200);
    assert_string_equal(val_text(val_get(val_at(api_response_val(w->a, &r), last), "kubectl.kubernetes.io/last-applied-configuration"), ""),
                        "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"y\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\",\"namespace\":\"default\"}}\n");
}

/* Old managers are put together, and an update may write the list itself. */
static void test_managers_are_few(void **state)
{
    struct api_world *w = *state;
    struct api_response r = apply(w, "m0", "a: x"); /* from here on the server keeps a list */
    const struct val *managers;
    bool ancient = false;

    for (int i = 1; i <= 14; i++) {
        r = ask_as(w, NULL, "PATCH", arena_printf(w->a, CMS "/c?fieldManager=m%d", i), "application/merge-patch+json",
                   arena_printf(w->a, "{\"data\":{\"k%d\":\"v\"}}", i));
        assert_int_equal(r.status, 200);
    }
    managers = val_at(api_response_val(w->a, &r), "metadata.managedFields");
    assert_int_equal(val_len(managers), 11);
    VAL_EACH(managers, m)
        ancient |= streq(val_str_at(m, "manager", ""), "ancient-changes");
    assert_true(ancient);
    r = ask_as(w, NULL, "PATCH", CMS "/c?fieldManager=x", "application/json-patch+json",
               "[{\"op\":\"replace\",\"path\":\"/metadata/managedFields\",\"value\":[{}]}]");
    assert_int_equal(r.status, 200);
    assert_int_equal(val_len(val_at(api_response_val(w->a, &r), "metadata.managedFields")), 0);
}

/* ---------------------------------------------------------------- services */

static void test_service_addresses(void **state)
{
    struct api_world *w = *state;
    struct api_response r = ask(w, "POST", "/api/v1/namespaces/default/services",
        "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":80}]}}");
    const char *ip = arena_strdup(w->a, at(w, &r, "spec.clusterIP"));
    int64_t port = val_int_at(api_response_val(w->a, &r), "spec.ports[0].nodePort", 0);

    assert_int_equal(r.status, 201);
    assert_true(str_starts(ip, "10.96."));
    assert_true(port >= 30000 && port <= 32767);
    /* taken, and free again when the service goes */
    r = ask(w, "POST", "/api/v1/namespaces/default/services", arena_printf(w->a,
        "{\"metadata\":{\"name\":\"t\"},\"spec\":{\"clusterIP\":\"%s\",\"ports\":[{\"port\":80}]}}", ip));
    assert_int_equal(r.status, 422);
    ask(w, "DELETE", "/api/v1/namespaces/default/services/s", NULL);
    r = ask(w, "POST", "/api/v1/namespaces/default/services", arena_printf(w->a,
        "{\"metadata\":{\"name\":\"t\"},\"spec\":{\"clusterIP\":\"%s\",\"ports\":[{\"port\":80}]}}", ip));
    assert_int_equal(r.status, 201);
}

#define T(f) cmocka_unit_test_setup_teardown(f, api_world_set_up, api_world_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths), T(test_life_of_an_object), T(test_dry_run_leaves_nothing),
        T(test_bad_input_is_told), T(test_pages), T(test_streams_say_the_same), T(test_access), T(test_node_sees_what_its_pods_use),
        T(test_token_ends_with_what_it_is_bound_to), T(test_watch_tells_selection), T(test_watch_texts_are_shared),
        T(test_watch_from_a_revision), T(test_watch_initial_events_and_end), T(test_pages_across_compaction),
        T(test_watch_from_a_revision), T(test_watch_initial_events_and_end), T(test_watch_of_the_future),
        T(test_watch_from_a_revision), T(test_watch_initial_events_and_end), T(test_watch_too_old),
        T(test_watch_freed_at_once), T(test_apply_knows_who_said_what),
        T(test_apply_across_versions), T(test_kubectl_goes_over_to_apply), T(test_managers_are_few), T(test_service_addresses),
    };

    return cmocka_run_group_tests_name("apiserver", tests, NULL, NULL);
}
