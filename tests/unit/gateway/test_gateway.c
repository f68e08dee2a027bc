/* Function URLs and the admin socket over real HTTP, real instances behind. Needs root. */
#include "tt.h"

#include "function/host.h"
#include "gateway/gateway_int.h"
#include "http/client.h"

static struct host H;
static struct gateway G;
static struct http_client *client;
static struct http_origin *front, *admin;

struct got {
    bool done;
    int status;
    char *body, *type, *cookie, *extra, *timing, *allow;
    size_t n;
};

static char *copy(const struct http_answer *a, const char *name)
{
    const char *v = http_answer_get(a, name);

    return v ? xstrdup(v) : NULL;
}

static void on_fetched(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct got *g = arg;

    g->done = true;
    if (!a)
        return;
    g->status = a->status;
    g->body = xmalloc(n + 1);
    memcpy(g->body, body, n);
    g->body[n] = 0;
    g->n = n;
    g->type = copy(a, "content-type");
    g->cookie = copy(a, "set-cookie");
    g->extra = copy(a, "x-extra");
    g->timing = copy(a, "x-tandem-timing");
    g->allow = copy(a, "access-control-allow-origin");
}

static void got_done(struct got *g)
{
    free(g->body);
    free(g->type);
    free(g->cookie);
    free(g->extra);
    free(g->timing);
    free(g->allow);
}

static struct got fetch(struct http_origin *o, const struct http_call_opts *opts)
{
    struct got g = {0};

    http_fetch(o, opts, 0, on_fetched, &g);
    while (!g.done)
        uv_run(&H.loop, UV_RUN_ONCE);
    return g;
}

static void request_becomes_event(void **state)
{
    static const struct http_header headers[] = {{"Cookie", "a=1; b=2"}, {"X-One", "1"}, {"X-One", "2"}, {"User-Agent", "t"}, {"Content-Type", "application/json"}};
    struct arena *a = arena_new();
    struct err err;
    struct got g = fetch(front, &(struct http_call_opts){.method = "POST", .path = "/function/echo/some%20path/x?q=1&q=2&r=%20", .headers = headers,
                                                         .headers_n = ARRAY_LEN(headers), .body = "{\"k\":1}", .body_n = 7});
    struct val *v;

    assert_int_equal(g.status, 200);
    assert_string_equal(g.type, "application/json");
    assert_non_null(strstr(g.timing, "cold=1"));
    assert_true(str_starts(g.timing, "rung=") && strstr(g.timing, ";handler=") && strstr(g.timing, ";total="));
    v = json_parse(a, g.body, g.n, &err);
    assert_string_equal(val_str_at(v, "version", ""), "2.0");
    assert_string_equal(val_str_at(v, "rawPath", ""), "/some%20path/x");
    assert_string_equal(val_str_at(v, "rawQueryString", ""), "q=1&q=2&r=%20");
    assert_string_equal(val_str_at(v, "queryStringParameters.q", ""), "1,2");
    assert_string_equal(val_str_at(v, "queryStringParameters.r", ""), " ");
    assert_string_equal(val_str_at(v, "cookies[1]", ""), "b=2");
    assert_string_equal(val_text(val_get(val_get(v, "headers"), "x-one"), ""), "1,2");
    assert_null(val_get(val_get(v, "headers"), "cookie"));
    assert_string_equal(val_str_at(v, "requestContext.http.method", ""), "POST");
    assert_string_equal(val_str_at(v, "requestContext.http.userAgent", ""), "t");
    assert_string_equal(val_str_at(v, "body", ""), "{\"k\":1}");
    assert_false(val_bool_at(v, "isBase64Encoded", true));
    got_done(&g);
    /* not text: base64. By host this time, the path is the whole one. */
    g = fetch(front, &(struct http_call_opts){.method = "POST", .path = "/x", .host = "echo.example.com:1234", .body = "\xff\x00z", .body_n = 3});
    v = json_parse(a, g.body, g.n, &err);
    assert_string_equal(val_str_at(v, "rawPath", ""), "/x");
    assert_string_equal(val_str_at(v, "body", ""), "/wB6");
    assert_true(val_bool_at(v, "isBase64Encoded", false));
    got_done(&g);
    arena_free(a);
}

static void answer_becomes_response(void **state)
{
    static const struct {
        const char *query, *body;
        int status;
    } rows[] = {
        {"full", "made", 201}, {"b64", "\x01\x02z", 200}, {"bare", "[1, 2]", 200}, {"text", "plain words", 200},
        {"raise", "{\"Message\":\"Internal Server Error\"}", 502}, {"odd", "{\"Message\":\"Internal Server Error\"}", 502},
        {"bad64", "{\"Message\":\"Internal Server Error\"}", 502},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char path[64];

        snprintf(path, sizeof path, "/function/answer/?%s", rows[i].query);
        struct got g = fetch(front, &(struct http_call_opts){.path = path});
        assert_int_equal(g.status, rows[i].status);
        assert_string_equal(g.body, rows[i].body);
        if (i == 0) {
            assert_string_equal(g.type, "text/x-mine");
            assert_string_equal(g.cookie, "c=d");
            assert_string_equal(g.extra, "5");
        }
        got_done(&g);
    }
}

static void doors_are_shut(void **state)
{
    static const struct http_header preflight[] = {{"Origin", "https://a.example"}, {"Access-Control-Request-Method", "PUT"}};
    static const struct {
        const char *path;
        int status;
    } rows[] = {{"/function/nobody/", 404}, {"/function/hidden/", 404}, {"/function/signed/", 403}, {"/", 404}, {"/function/", 404}};
    struct got g;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        g = fetch(front, &(struct http_call_opts){.path = rows[i].path});
        assert_int_equal(g.status, rows[i].status);
        got_done(&g);
    }
    g = fetch(front, &(struct http_call_opts){.method = "OPTIONS", .path = "/function/answer/", .headers = preflight, .headers_n = 2});
    assert_int_equal(g.status, 200);
    assert_string_equal(g.allow, "https://a.example");
    got_done(&g);
}

static void admin_answers(void **state)
{
    struct got g = fetch(admin, &(struct http_call_opts){.method = "POST", .path = "/invoke/default/echo", .body = "{\"z\":1}", .body_n = 7});

    assert_int_equal(g.status, 200);
    assert_non_null(strstr(g.body, "\"payload\":{\"z\": 1}}"));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/meter"});
    assert_non_null(strstr(g.body, "\"name\":\"echo\""));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/metrics"});
    assert_non_null(strstr(g.body, "\ntandem_function_requests_total{namespace=\"default\",function=\"echo\",version=\"$LATEST\"} "));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/log/default/echo"});
    assert_non_null(strstr(g.body, "REPORT RequestId"));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/follow/default/echo?once=1"});
    assert_int_equal(g.status, 200);
    assert_non_null(strstr(g.body, "Z\t/aws/lambda/echo\t"));
    assert_non_null(strstr(g.body, "\tREPORT RequestId"));
    assert_null(strstr(g.body, "/aws/lambda/answer"));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/follow/default?once=1&filter=%22END%20RequestId%22"});
    assert_non_null(strstr(g.body, "/aws/lambda/echo\t"));
    assert_null(strstr(g.body, "REPORT RequestId"));
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/follow/default?once=1&until=1"});
    assert_int_equal(g.status, 200);
    assert_true(!g.body || !*g.body);
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/follow/default?once=1&filter=%7B"});
    assert_int_equal(g.status, 400);
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/follow/default/nobody"});
    assert_int_equal(g.status, 404);
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.method = "POST", .path = "/invoke/default/nobody"});
    assert_int_equal(g.status, 404);
    got_done(&g);
    g = fetch(admin, &(struct http_call_opts){.path = "/nothing"});
    assert_int_equal(g.status, 404);
    got_done(&g);
}

static void on_front(struct http_req *req, void *arg)
{
    url_request(&G, req);
}

static void on_admin(struct http_req *req, void *arg)
{
    admin_request(&G, req);
}

static int set_up(void **state)
{
    struct functions_options o = {0};
    struct http_server_opts s = {.on_request = on_front, .no_h2 = true};
    struct err err;
    char url[128];

    if (host_start(&H, &o, &err) < 0)
        return -1;
    G.functions = H.fs;
    G.logs = H.logs;
    G.http = http_server_new(&H.loop, &s, &err);
    snprintf(url, sizeof url, "%s/run/gateway.sock", H.state);
    s = (struct http_server_opts){.unix_path = url, .on_request = on_admin};
    G.admin = http_server_new(&H.loop, &s, &err);
    client = http_client_new(&H.loop, &(struct http_client_opts){0});
    if (!G.http || !G.admin)
        return -1;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", http_server_port(G.http));
    front = http_origin_new(client, url, NULL, &err);
    snprintf(url, sizeof url, "unix:%s/run/gateway.sock", H.state);
    admin = http_origin_new(client, url, NULL, &err);
    host_function(&H, "echo", "def lambda_handler(e, c):\n    return e\n", "\"url\":{\"enabled\":true,\"authType\":\"NONE\"}");
    host_function(&H, "hidden", "def lambda_handler(e, c):\n    return e\n", "");
    host_function(&H, "signed", "def lambda_handler(e, c):\n    return e\n", "\"url\":{\"enabled\":true,\"authType\":\"AWS_IAM\"}");
    host_function(&H, "answer",
                  "def lambda_handler(e, c):\n    q = e['rawQueryString']\n"
                  "    if q == 'full': return {'statusCode': 201, 'headers': {'Content-Type': 'text/x-mine', 'X-Extra': 5}, 'cookies': ['c=d'], 'body': 'made'}\n"
                  "    if q == 'b64': return {'statusCode': 200, 'body': 'AQJ6', 'isBase64Encoded': True}\n"
                  "    if q == 'bad64': return {'statusCode': 200, 'body': 'AQ*', 'isBase64Encoded': True}\n"
                  "    if q == 'bare': return [1, 2]\n    if q == 'text': return 'plain words'\n"
                  "    if q == 'odd': return {'statusCode': 99}\n    raise ValueError(q)\n",
                  "\"url\":{\"enabled\":true,\"authType\":\"NONE\",\"cors\":{\"allowOrigins\":[\"https://a.example\"],\"allowMethods\":[\"PUT\"]}}");
    return 0;
}

static void on_gone(void *arg)
{
    ++*(int *)arg;
}

static int tear_down(void **state)
{
    int gone = 0;

    http_client_free(client);
    http_server_stop(G.http, 0, on_gone, &gone);
    http_server_stop(G.admin, 0, on_gone, &gone);
    while (gone < 2)
        uv_run(&H.loop, UV_RUN_ONCE);
    host_stop(&H);
    host_remove(&H);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_becomes_event),
        cmocka_unit_test(answer_becomes_response),
        cmocka_unit_test(doors_are_shut),
        cmocka_unit_test(admin_answers),
    };

    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
