/* Goal: a pod violates the Pod Security Standards as upstream says, by level and version. Method: one pod with
 * everything wrong, and small ones for what versions changed. */
#include "tt.h"

#include "apiserver/podchecks.h"
#include "codec/json.h"

static struct arena *a;

static const char *violated(const char *level, const char *version, const char *text)
{
    struct pod_policy p;
    struct err err = {0};
    const struct val *v = json_parse(a, text, strlen(text), &err);
    const char *detail = "fine";

    assert_non_null(v);
    assert_true(pod_level_parse(level, &p.level));
    assert_true(pod_version_parse(version, &p.minor));
    pod_violates(a, p, val_get(v, "metadata"), val_get(v, "spec"), &detail, NULL);
    return detail;
}

static const char bare[] = "{\"spec\":{\"containers\":[{\"name\":\"a\"},{\"name\":\"b\"}]}}";

static void levels(void **state)
{
    (void)state;
    assert_string_equal(violated("privileged", "latest", bare), "fine");
    assert_string_equal(violated("baseline", "latest", bare), "fine");
    assert_string_equal(violated("restricted", "latest", bare),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), "
        "unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), "
        "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), "
        "seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")");
    assert_string_equal(violated("baseline", "latest",
        "{\"spec\":{\"hostPID\":true,\"hostNetwork\":true,\"securityContext\":{\"seLinuxOptions\":{\"type\":\"x\",\"user\":\"u\"},"
        "\"sysctls\":[{\"name\":\"kernel.msgmax\"}]},\"volumes\":[{\"name\":\"v\",\"hostPath\":{\"path\":\"/\"}}],\"containers\":["
        "{\"name\":\"a\",\"ports\":[{\"hostPort\":81},{\"hostPort\":80}],\"securityContext\":{\"privileged\":true,\"capabilities\":"
        "{\"add\":[\"NET_ADMIN\",\"CHOWN\"]},\"seccompProfile\":{\"type\":\"Unconfined\"}},\"livenessProbe\":{\"httpGet\":{\"host\":\"h\"}}}]}}"),
        "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add), "
        "host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), hostPort (container \"a\" uses hostPorts 80, 81), "
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\"), "
        "privileged (container \"a\" must not set securityContext.privileged=true), "
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set), "
        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\"), "
        "forbidden sysctls (kernel.msgmax)");
}

static void versions(void **state)
{
    static const char probe[] = "{\"spec\":{\"containers\":[{\"name\":\"a\",\"livenessProbe\":{\"tcpSocket\":{\"host\":\"h\"}}}]}}";
    static const char sysctl[] = "{\"spec\":{\"securityContext\":{\"sysctls\":[{\"name\":\"net.ipv4.tcp_rmem\"}]}}}";
    static const char users[] = "{\"spec\":{\"hostUsers\":false,\"containers\":[{\"name\":\"a\",\"securityContext\":{\"procMount\":\"Unmasked\"}}]}}";
    static const char notes[] = "{\"metadata\":{\"annotations\":{\"seccomp.security.alpha.kubernetes.io/pod\":\"unconfined\"}},\"spec\":{}}";
    static const char windows[] = "{\"spec\":{\"os\":{\"name\":\"windows\"},\"securityContext\":{\"runAsNonRoot\":true},\"containers\":[{\"name\":\"a\"}]}}";

    (void)state;
    assert_string_equal(violated("baseline", "v1.33", probe), "fine");
    assert_string_equal(violated("baseline", "v1.34", probe), "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")");
    assert_string_equal(violated("baseline", "v1.31", sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    assert_string_equal(violated("baseline", "v1.32", sysctl), "fine");
    assert_string_equal(violated("baseline", "v1.99", sysctl), "fine");
    assert_string_equal(violated("baseline", "v1.34", users), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")");
    assert_string_equal(violated("baseline", "v1.35", users), "fine");
    assert_non_null(strstr(violated("restricted", "v1.35", users), "procMount (container"));
    assert_string_equal(violated("baseline", "v1.18", notes),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")");
    assert_string_equal(violated("baseline", "v1.19", notes), "fine");
    assert_string_equal(violated("restricted", "v1.7", bare),
        "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)");
    assert_string_equal(violated("restricted", "latest", windows), "fine");
}

static void words(void **state)
{
    static const struct {
        const char *text;
        bool fine;
    } cases[] = {{"latest", true}, {"v1.0", true}, {"v1.25", true}, {"1.25", false}, {"v1.", false}, {"v1.01", false}, {"v2.0", false}, {"v1.5x", false}};
    enum pod_level level;
    int minor;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(pod_version_parse(cases[i].text, &minor), cases[i].fine);
    assert_false(pod_level_parse("Baseline", &level));
    assert_int_equal(level, POD_RESTRICTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(levels), cmocka_unit_test(versions), cmocka_unit_test(words)};
    int r;

    a = arena_new();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(a);
    return r;
}
