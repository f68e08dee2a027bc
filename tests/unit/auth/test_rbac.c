/* RBAC decisions over a handful of objects, and the certificates of an instance. */
#include "tt.h"

#include "auth/pki.h"
#include "auth/rbac.h"
#include "codec/yaml.h"

#include <unistd.h>

static const char *const TEXTS[] = {
    "{kind: ClusterRole, metadata: {name: reader}, rules: [{verbs: [get, list], apiGroups: [''], resources: [pods, pods/log]},"
    " {verbs: [get], apiGroups: [apps], resources: ['*/scale']}, {verbs: [get], nonResourceURLs: ['/custom/*']}]}",
    "{kind: ClusterRole, metadata: {name: named}, rules: [{verbs: ['*'], apiGroups: [''], resources: [secrets], resourceNames: [one]}]}",
    "{kind: ClusterRole, metadata: {name: all}, rules: []}",
    "{kind: ClusterRole, metadata: {name: part, labels: {part: 'yes'}}, rules: [{verbs: [watch], apiGroups: ['*'], resources: ['*']}]}",
    "{kind: ClusterRoleBinding, metadata: {name: b1}, roleRef: {kind: ClusterRole, name: reader}, subjects: [{kind: User, name: ann}]}",
    "{kind: ClusterRoleBinding, metadata: {name: b2}, roleRef: {kind: ClusterRole, name: part}, subjects: [{kind: Group, name: team}]}",
    "{kind: RoleBinding, metadata: {name: b3, namespace: ns}, roleRef: {kind: ClusterRole, name: named},"
    " subjects: [{kind: ServiceAccount, name: robot, namespace: other}]}",
};

static const struct obj *OBJECTS[ARRAY_LEN(TEXTS)];

static const struct obj *get(void *arg, const char *resource, const char *ns, const char *name)
{
    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(TEXTS); i++)
        if (streq(OBJECTS[i]->name, name) && streq(resource, "clusterroles") &&
            streq(val_str_at(obj_val(OBJECTS[i]), "kind", ""), "ClusterRole"))
            return OBJECTS[i];
    return NULL;
}

static void each(void *arg, const char *resource, const char *ns,
                 bool (*fn)(void *fn_arg, const struct obj *o), void *fn_arg)
{
    const char *kind = streq(resource, "clusterroles") ? "ClusterRole"
                       : streq(resource, "rolebindings") ? "RoleBinding" : "ClusterRoleBinding";

    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(TEXTS); i++)
        if (streq(val_str_at(obj_val(OBJECTS[i]), "kind", ""), kind) &&
            (!streq(kind, "RoleBinding") || streq(OBJECTS[i]->namespace_, ns)) && !fn(fn_arg, OBJECTS[i]))
            return;
}

static const struct rbac_source SOURCE = {.get = get, .each = each};

static int make_objects(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(TEXTS); i++)
        OBJECTS[i] = obj_seal(yaml_parse(a, TEXTS[i], strlen(TEXTS[i]), NULL, NULL, &err), 1);
    arena_free(a);
    return 0;
}

static int drop_objects(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(TEXTS); i++)
        obj_unref(OBJECTS[i]);
    return 0;
}

static void test_decisions(void **state)
{
    static const char *const team[] = {"team", NULL}, *const masters[] = {GROUP_MASTERS, NULL};
    struct auth_user ann = {.name = "ann"}, tim = {.name = "tim", .groups = team};
    struct auth_user robot = {.name = "system:serviceaccount:other:robot"};
    struct auth_user boss = {.name = "boss", .groups = masters};
    const struct {
        const struct auth_user *u;
        struct rbac_ask q;
        bool yes;
    } t[] = {
        {&ann, {.verb = "get", .group = "", .resource = "pods", .subresource = "", .ns = "x", .name = "p"}, true},
        {&ann, {.verb = "get", .group = "", .resource = "pods", .subresource = "log", .ns = "x", .name = "p"}, true},
        {&ann, {.verb = "get", .group = "", .resource = "pods", .subresource = "exec", .ns = "x", .name = "p"}, false},
        {&ann, {.verb = "delete", .group = "", .resource = "pods", .subresource = "", .ns = "x", .name = "p"}, false},
        {&ann, {.verb = "get", .group = "apps", .resource = "deployments", .subresource = "scale", .ns = "x", .name = "d"}, true},
        {&ann, {.verb = "get", .group = "apps", .resource = "deployments", .subresource = "", .ns = "x", .name = "d"}, false},
        {&ann, {.verb = "get", .path = "/custom/a/b", .group = "", .resource = "", .subresource = "", .ns = "", .name = ""}, true},
        {&ann, {.verb = "get", .path = "/custom", .group = "", .resource = "", .subresource = "", .ns = "", .name = ""}, false},
        {&tim, {.verb = "watch", .group = "any", .resource = "things", .subresource = "", .ns = "x", .name = ""}, true},
        {&tim, {.verb = "list", .group = "any", .resource = "things", .subresource = "", .ns = "x", .name = ""}, false},
        {&robot, {.verb = "update", .group = "", .resource = "secrets", .subresource = "", .ns = "ns", .name = "one"}, true},
        {&robot, {.verb = "update", .group = "", .resource = "secrets", .subresource = "", .ns = "ns", .name = "two"}, false},
        {&robot, {.verb = "list", .group = "", .resource = "secrets", .subresource = "", .ns = "ns", .name = ""}, false},
        {&robot, {.verb = "update", .group = "", .resource = "secrets", .subresource = "", .ns = "other", .name = "one"}, false},
        {&boss, {.verb = "frob", .group = "x", .resource = "y", .subresource = "z", .ns = "", .name = ""}, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        if (rbac_allows(&SOURCE, t[i].u, &t[i].q) != t[i].yes)
            fail_msg("case %zu", i);
}

static void test_nobody_gives_more_than_he_has(void **state)
{
    static const struct {
        const char *rules;
        bool yes;
    } t[] = {
        {"[{verbs: [get], apiGroups: [''], resources: [pods]}]", true},
        {"[{verbs: [get], apiGroups: [''], resources: [pods], resourceNames: [x]}]", true},
        {"[{verbs: [get, watch], apiGroups: [''], resources: [pods]}]", false},
        {"[{verbs: ['*'], apiGroups: [''], resources: [pods]}]", false},
        {"[{verbs: [get], apiGroups: [''], resources: ['*']}]", false},
        {"[{verbs: [get], nonResourceURLs: [/custom/x]}]", true},
        {"[{verbs: [get], nonResourceURLs: ['*']}]", false},
    };
    _auto_(arena_freep) struct arena *a = arena_new();
    struct auth_user ann = {.name = "ann"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct err err = {0};
        const struct val *rules = yaml_parse(a, t[i].rules, strlen(t[i].rules), NULL, NULL, &err);

        if ((rbac_holds(&SOURCE, &ann, "x", rules, &err) == 0) != t[i].yes)
            fail_msg("case %zu", i);
    }
}

static void count(void *arg, const char *resource, struct val *object)
{
    ++*(int *)arg;
    assert_true(*val_str_at(object, "metadata.name", ""));
    assert_true(streq(resource, "roles") || streq(resource, "clusterroles") ||
                streq(resource, "rolebindings") || streq(resource, "clusterrolebindings"));
}

static void test_stock_roles_can_be_read(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    int n = 0;

    (void)state;
    rbac_bootstrap(a, count, &n);
    assert_true(n > 50);
}

static void test_certificates_are_kept(void **state)
{
    char dir[] = "/tmp/ttpkiXXXXXX", command[64], *cert, *key, *again, *cn, **orgs;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    struct pki *p;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        if (!(p = pki_open(dir, "192.0.2.7", &err)))
            fail_msg("%s", err.msg);
        assert_int_equal(pki_client(p, "admin", "ann", "system:masters", a, &cert, &key, &err), 0);
        if (i)
            assert_string_equal(cert, again);
        again = cert;
        pki_free(p);
    }
    assert_int_equal(pki_cert_subject(cert, strlen(cert), a, &cn, &orgs, &err), 0);
    assert_string_equal(cn, "ann");
    assert_string_equal(orgs[0], "system:masters");
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions), cmocka_unit_test(test_nobody_gives_more_than_he_has),
        cmocka_unit_test(test_stock_roles_can_be_read), cmocka_unit_test(test_certificates_are_kept),
    };

    return cmocka_run_group_tests_name("rbac", tests, make_objects, drop_objects);
}
