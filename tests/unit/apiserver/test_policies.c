/* Goal: which policies have a say in a request, and what they do to it. Method: the API over a store in memory
 * and a simulated world, with policies of one validation each. */
#include "apiserver/api_int.h" /* before cmocka, which takes the word fail for itself */
#include "codec/json.h"

#include "../api_world.h"

static void keep(void *arg, const struct api_response *resp)
{
    *(struct api_response *)arg = *resp;
}

/* As an administrator: what the process itself does is subject to no policy. Between two calls the loop had
 * its turn, so that nothing is kept that does not last. */
static struct api_response ask(struct api_world *w, const char *method, const char *path, const char *body)
{
    static const char *const groups[] = {GROUP_MASTERS, GROUP_AUTHENTICATED, NULL};
    static const struct auth_user admin = {.name = "admin", .uid = "", .groups = groups};
    struct api_response *resp = arena_new_of(w->a, struct api_response);
    struct api_request req = {.arena = w->a, .user = &admin, .method = method, .path = path,
                              .content_type = streq(method, "PATCH") ? "application/merge-patch+json" : NULL,
                              .body = body, .body_n = body ? strlen(body) : 0};

    env_sim_run_until(w->env, env_now_ms(w->env) + 50);
    obj_cache_trim();
    api_do(w->api, &req, keep, resp);
    for (int i = 0; i < 100 && !resp->status; i++) /* it asks outside */
        env_sim_run_until(w->env, env_now_ms(w->env) + 1000);
    return *resp;
}

static const char *message(struct api_world *w, const struct api_response *r)
{
    return val_str_at(api_response_val(w->a, r), "message", "");
}

#define POLICIES "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
#define BINDINGS "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
#define MAPS "/api/v1/namespaces/default/configmaps"

/* A policy "p" with this spec, and its binding. */
static void policy(struct api_world *w, const char *spec, const char *binding)
{
    struct api_response r = ask(w, "POST", POLICIES, arena_printf(w->a, "{\"metadata\":{\"name\":\"p\"},\"spec\":{%s}}", spec));

    if (r.status != 201)
        fail_msg("%s", message(w, &r));
    r = ask(w, "POST", BINDINGS, arena_printf(w->a, "{\"metadata\":{\"name\":\"b\"},\"spec\":{\"policyName\":\"p\","
                                              "\"validationActions\":[\"Deny\"]%s}}", binding));
    if (r.status != 201)
        fail_msg("%s", message(w, &r));
}

static void gone(struct api_world *w)
{
    assert_int_equal(ask(w, "DELETE", BINDINGS "/b", NULL).status, 200);
    assert_int_equal(ask(w, "DELETE", POLICIES "/p", NULL).status, 200);
}

#define MAP_RULE "{\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],\"operations\":[\"*\"],\"resources\":[\"configmaps\"]}"
#define NEVER "\"validations\":[{\"expression\":\"false\"}]"

static void matches(void **state)
{
    static const struct {
        const char *constraints, *binding, *more;
        bool denied;
    } cases[] = {
        {"\"resourceRules\":[" MAP_RULE "]", "", "", true},
        {"\"resourceRules\":[{\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],\"operations\":[\"UPDATE\"],\"resources\":[\"configmaps\"]}]", "", "", false},
        {"\"resourceRules\":[{\"apiGroups\":[\"*\"],\"apiVersions\":[\"*\"],\"operations\":[\"CREATE\"],\"resources\":[\"*\"]}]", "", "", true},
        {"\"resourceRules\":[" MAP_RULE "],\"excludeResourceRules\":[" MAP_RULE "]", "", "", false},
        {"\"resourceRules\":[{\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],\"operations\":[\"*\"],\"resources\":[\"configmaps\"],"
         "\"resourceNames\":[\"m\"]}]", "", "", true},
        {"\"resourceRules\":[{\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],\"operations\":[\"*\"],\"resources\":[\"configmaps\"],"
         "\"resourceNames\":[\"other\"]}]", "", "", false},
        {"\"resourceRules\":[" MAP_RULE "],\"objectSelector\":{\"matchLabels\":{\"a\":\"b\"}}", "", "", false},
        {"\"resourceRules\":[" MAP_RULE "],\"objectSelector\":{\"matchLabels\":{\"a\":\"b\"}}", "", ",\"labels\":{\"a\":\"b\"}", true},
        {"\"resourceRules\":[" MAP_RULE "],\"namespaceSelector\":{\"matchLabels\":{\"kubernetes.io/metadata.name\":\"other\"}}", "", "", false},
        {"\"resourceRules\":[" MAP_RULE "]", ",\"matchResources\":{\"objectSelector\":{\"matchLabels\":{\"a\":\"b\"}}}", "", false},
        {"\"resourceRules\":[" MAP_RULE "]", ",\"matchResources\":{\"resourceRules\":[" MAP_RULE "]}", "", true},
        {"\"resourceRules\":[" MAP_RULE "]", ",\"matchResources\":{\"excludeResourceRules\":[" MAP_RULE "]}", "", false},
    };
    struct api_world *w = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int status;

        policy(w, arena_printf(w->a, "\"matchConstraints\":{%s}," NEVER, cases[i].constraints), cases[i].binding);
        status = ask(w, "POST", MAPS, arena_printf(w->a, "{\"metadata\":{\"name\":\"m\"%s}}", cases[i].more)).status;
        if (status != (cases[i].denied ? 422 : 201))
            fail_msg("case %zu: %d", i, status);
        gone(w);
        ask(w, "DELETE", MAPS "/m", NULL);
    }
}

/* A rule about autoscaling/v1 sees what comes as v2, in its own form; Exact does not. */
static void equivalent(void **state)
{
    static const char rule[] = "\"resourceRules\":[{\"apiGroups\":[\"autoscaling\"],\"apiVersions\":[\"v1\"],\"operations\":[\"CREATE\"],"
                               "\"resources\":[\"horizontalpodautoscalers\"]}]";
    static const char body[] = "{\"apiVersion\":\"autoscaling/v2\",\"kind\":\"HorizontalPodAutoscaler\",\"metadata\":{\"name\":\"h\"},\"spec\":"
                               "{\"maxReplicas\":3,\"scaleTargetRef\":{\"apiVersion\":\"x/v1\",\"kind\":\"X\",\"name\":\"x\"},\"metrics\":[{\"type\":\"Resource\",\"resource\":"
                               "{\"name\":\"cpu\",\"target\":{\"type\":\"Utilization\",\"averageUtilization\":55}}}]}}";
    static const char path[] = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    struct api_world *w = *state;
    struct api_response r;

    policy(w, arena_printf(w->a, "\"matchConstraints\":{%s},\"validations\":[{\"expression\":\"object.apiVersion != 'autoscaling/v1'\","
                           "\"messageExpression\":\"request.requestKind.version + ' ' + string(object.spec.targetCPUUtilizationPercentage)\"}]", rule), "");
    r = ask(w, "POST", path, body);
    assert_int_equal(r.status, 422);
    if (!strstr(message(w, &r), "denied request: v2 55"))
        fail_msg("%s", message(w, &r));
    gone(w);
    policy(w, arena_printf(w->a, "\"matchConstraints\":{%s,\"matchPolicy\":\"Exact\"}," NEVER, rule), "");
    assert_int_equal(ask(w, "POST", path, body).status, 201);
}

static void parameters(void **state)
{
    struct api_world *w = *state;
    struct api_response r;

    assert_int_equal(ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"one\",\"labels\":{\"limit\":\"yes\"}},\"data\":{\"max\":\"4\"}}").status, 201);
    assert_int_equal(ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"two\",\"labels\":{\"limit\":\"yes\"}},\"data\":{\"max\":\"2\"}}").status, 201);
    policy(w, "\"paramKind\":{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\"},\"matchConstraints\":{\"resourceRules\":[{\"apiGroups\":[\"\"],"
              "\"apiVersions\":[\"v1\"],\"operations\":[\"CREATE\"],\"resources\":[\"secrets\"]}]},\"validations\":[{\"expression\":"
              "\"object.metadata.name.size() <= int(params.data.max)\",\"messageExpression\":\"'longer than ' + params.data.max\"}]",
           ",\"paramRef\":{\"selector\":{\"matchLabels\":{\"limit\":\"yes\"}},\"parameterNotFoundAction\":\"Deny\"}");
    assert_int_equal(ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"ab\"}}").status, 201);
    r = ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"abc\"}}");
    assert_int_equal(r.status, 422);
    assert_non_null(strstr(message(w, &r), "denied request: longer than 2")); /* each of them has to agree */
    ask(w, "DELETE", MAPS "/two", NULL);
    assert_int_equal(ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"abc\"}}").status, 201);
    ask(w, "DELETE", MAPS "/one", NULL);
    r = ask(w, "POST", "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"x\"}}");
    assert_int_equal(r.status, 422);
    assert_non_null(strstr(message(w, &r), "failed to configure binding: no params found"));
}

/* What cannot be evaluated: by the failure policy. Budgets end what takes too long. */
static void failures(void **state)
{
    static const char expensive[] = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, "
        "[1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a + b + c + d + e + f > 0))))))";
    static const char *const actions[] = {"Fail", "Ignore"};
    struct api_world *w = *state;
    struct api_response r;

    for (int i = 0; i < 2; i++) {
        const char *head = arena_printf(w->a, "\"failurePolicy\":\"%s\",\"matchConstraints\":{\"resourceRules\":[" MAP_RULE "]}", actions[i]);

        policy(w, arena_printf(w->a, "%s,\"validations\":[{\"expression\":\"object.data.x == 'y'\"}]", head), "");
        r = ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"m\"},\"data\":{\"z\":\"y\"}}");
        assert_int_equal(r.status, i ? 201 : 422);
        assert_true(i || strstr(message(w, &r), "resulted in error: no such key: x"));
        gone(w);
        policy(w, arena_printf(w->a, "%s,\"matchConditions\":[{\"name\":\"c\",\"expression\":\"object.data.x == 'y'\"}]," NEVER, head), "");
        assert_int_equal(ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"n\"}}").status, i ? 201 : 422);
        gone(w);
        policy(w, arena_printf(w->a, "%s,\"validations\":[{\"expression\":\"%s\"}]", head, expensive), "");
        r = ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"o\"}}");
        assert_int_equal(r.status, i ? 201 : 422);
        assert_true(i || strstr(message(w, &r), "cost"));
        gone(w);
    }
}

/* Variables are evaluated when they are asked for, and see those before them. */
static void variables(void **state)
{
    struct api_world *w = *state;
    struct api_response r;

    policy(w, "\"matchConstraints\":{\"resourceRules\":[" MAP_RULE "]},\"variables\":[{\"name\":\"bad\",\"expression\":\"object.data.none\"},"
              "{\"name\":\"n\",\"expression\":\"size(object.metadata.name)\"},{\"name\":\"twice\",\"expression\":\"variables.n * 2\"}],"
              "\"validations\":[{\"expression\":\"variables.twice < 6 || variables.bad == 'x'\",\"messageExpression\":\"'is ' + string(variables.twice)\"}]", "");
    assert_int_equal(ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"ab\"},\"data\":{}}").status, 201);
    r = ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"abc\"},\"data\":{\"none\":\"y\"}}");
    assert_non_null(strstr(message(w, &r), "denied request: is 6"));
    r = ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"abcd\"},\"data\":{\"a\":\"y\"}}");
    assert_non_null(strstr(message(w, &r), "composited variable \"bad\" fails to evaluate: no such key: none"));
    /* a new spec counts from the next request on */
    assert_int_equal(ask(w, "PATCH", POLICIES "/p", "{\"spec\":{\"validations\":[{\"expression\":\"true\"}]}}").status, 200);
    assert_int_equal(ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"abcd\"}}").status, 201);
}

/* A webhook whose match conditions say no is not asked; here nobody can be asked, which shows who would be. */
static void match_conditions(void **state)
{
    static const struct {
        const char *expression, *failure;
        int status;
    } cases[] = {
        {"object.metadata.name != 'm'", "Fail", 201},
        {"object.metadata.name == 'm' && request.userInfo.username == 'admin'", "Fail", 500},
        {"authorizer.group('').resource('configmaps').check('create').allowed()", "Fail", 500},
        {"object.data.x == 'y'", "Fail", 403},
        {"object.data.x == 'y'", "Ignore", 201},
    };
    static const char hooks[] = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    struct api_world *w = *state;
    struct api_response r;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        r = ask(w, "POST", hooks, arena_printf(w->a, "{\"metadata\":{\"name\":\"h\"},\"webhooks\":[{\"name\":\"h.example.com\","
            "\"clientConfig\":{\"url\":\"https://192.0.2.9/\"},\"admissionReviewVersions\":[\"v1\"],\"sideEffects\":\"None\",\"failurePolicy\":\"%s\","
            "\"rules\":[" MAP_RULE "],\"matchConditions\":[{\"name\":\"c\",\"expression\":\"%s\"}]}]}", cases[i].failure, cases[i].expression));
        assert_int_equal(r.status, 201);
        r = ask(w, "POST", MAPS, "{\"metadata\":{\"name\":\"m\"}}");
        if (r.status != cases[i].status)
            fail_msg("case %zu: %d %s", i, r.status, message(w, &r));
        ask(w, "DELETE", arena_printf(w->a, "%s/h", hooks), NULL);
        ask(w, "DELETE", MAPS "/m", NULL);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, api_world_set_up, api_world_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {T(matches), T(equivalent), T(parameters), T(failures), T(variables),
                                       T(match_conditions)};

    return cmocka_run_group_tests_name("policies", tests, NULL, NULL);
}
