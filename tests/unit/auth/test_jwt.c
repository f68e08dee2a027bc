/* Goal: tokens from outside count when a key of their own kind signed them, and in no other case; key sets
 * hold what signatures can be checked with; audit policies decide as they say. */
#include "tt.h"

#include "auth/audit_policy.h"
#include "auth/b64.h"
#include "auth/jwt.h"
#include "auth/token.h"
#include "codec/json.h"
#include "codec/yaml.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

static EVP_PKEY *rsa, *small_rsa, *p256, *p384, *p521;

static EVP_PKEY *key_for(const char *alg)
{
    return *alg != 'E' ? rsa : streq(alg, "ES256") ? p256 : streq(alg, "ES384") ? p384 : p521;
}

static const EVP_MD *md_of(const char *alg)
{
    return streq(alg + 2, "256") ? EVP_sha256() : streq(alg + 2, "384") ? EVP_sha384() : EVP_sha512();
}

/* A token as an issuer makes it, by OpenSSL alone. */
static char *make(struct arena *a, const char *alg, const char *said, EVP_PKEY *key, const char *kid)
{
    char *head = arena_printf(a, "{\"alg\":\"%s\",\"kid\":\"%s\"}", said, kid);
    char *text = arena_printf(a, "%s.%s", b64url(a, head, strlen(head)), b64url(a, "{\"sub\":\"ann\"}", 13));
    unsigned char sig[1024], raw[132];
    size_t n = sizeof(sig), half = streq(alg, "ES256") ? 32 : streq(alg, "ES384") ? 48 : 66;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pc;

    assert_int_equal(EVP_DigestSignInit(ctx, &pc, md_of(alg), NULL, key), 1);
    if (*alg == 'P') {
        EVP_PKEY_CTX_set_rsa_padding(pc, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(pc, RSA_PSS_SALTLEN_DIGEST);
    }
    assert_int_equal(EVP_DigestSign(ctx, sig, &n, (unsigned char *)text, strlen(text)), 1);
    EVP_MD_CTX_free(ctx);
    if (*alg == 'E') {
        const unsigned char *p = sig;
        ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &p, (long)n);

        BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, (int)half);
        BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + half, (int)half);
        ECDSA_SIG_free(s);
        return arena_printf(a, "%s.%s", text, b64url(a, raw, 2 * half));
    }
    return arena_printf(a, "%s.%s", text, b64url(a, sig, n));
}

static const char *const ALGS[] = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"};

static bool signed_by(struct arena *a, const char *token, EVP_PKEY *key)
{
    struct err err = {0};
    struct jwt t;

    return jwt_parse(token, a, &t, &err) == 0 && jwt_signed_by(&t, key);
}

static void test_algorithms(void **state)
{
    struct arena *a = arena_new();
    EVP_PKEY *const keys[] = {rsa, small_rsa, p256, p384, p521};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ALGS); i++) {
        EVP_PKEY *key = key_for(ALGS[i]);
        char *token = make(a, ALGS[i], ALGS[i], key, "k");

        if (!signed_by(a, token, key))
            fail_msg("%s is refused", ALGS[i]);
        for (size_t k = 0; k < ARRAY_LEN(keys); k++)
            if (keys[k] != key && signed_by(a, token, keys[k]))
                fail_msg("%s is taken with another key", ALGS[i]);
        for (size_t k = 0; k < ARRAY_LEN(ALGS); k++) /* says to be of another algorithm */
            if (k != i && signed_by(a, make(a, ALGS[i], ALGS[k], key, "k"), key))
                fail_msg("%s is taken as %s", ALGS[i], ALGS[k]);
    }
    assert_false(signed_by(a, make(a, "RS256", "RS256", small_rsa, "k"), small_rsa)); /* 1024 bits */
    arena_free(a);
}

/* RFC 7515, A.3 */
static void test_published(void **state)
{
    static const char keys[] =
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
        "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";
    static const char token[] =
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
        "Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    struct arena *a = arena_new();
    struct err err = {0};
    struct jwks *k = jwks_parse(keys, sizeof(keys) - 1, &err);
    struct jwt t;

    (void)state;
    assert_non_null(k);
    assert_int_equal(jwt_parse(token, a, &t, &err), 0);
    assert_true(jwks_verify(k, &t));
    assert_string_equal(val_str_at(t.claims, "iss", ""), "joe");
    jwks_free(k);
    arena_free(a);
}

static void test_unsigned_and_malformed(void **state)
{
    static const char *const heads[] = {"{\"alg\":\"none\"}", "{\"alg\":\"HS256\"}", "{\"alg\":\"NONE\"}", "{}", "[]", "{\"alg\":1}",
                                        "{\"alg\":\"es256\"}", "{\"alg\":\"ES256\",\"crit\":[\"b64\"]}", "{\"alg\":\"ES256\"", ""};
    static const char *const texts[] = {"", ".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.e30", "\x80.\xff.x", " . . "};
    struct arena *a = arena_new();
    char *huge = arena_alloc(a, JWT_BYTES_MAX + 2);
    struct err err = {0};
    struct jwt t;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        assert_int_equal(jwt_parse(arena_printf(a, "%s.e30.e30", b64url(a, heads[i], strlen(heads[i]))), a, &t, &err), -1);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_int_equal(jwt_parse(texts[i], a, &t, &err), -1);
    memset(huge, 'a', JWT_BYTES_MAX + 1);
    assert_int_equal(jwt_parse(huge, a, &t, &err), -1);
    assert_int_equal(err.code, ERR_UNAUTHENTICATED);
    arena_free(a);
}

static void test_key_sets(void **state)
{
    struct arena *a = arena_new();
    struct val *doc = val_map(a), *list = val_list(a);
    static const char *const bad[] = {
        "{}", "[]", "x", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AAAA\",\"e\":\"AQAB\"}]}",
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}]}",
        /* not on the curve */
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
        "\"y\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}]}",
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"\",\"y\":\"\"}]}"};
    EVP_PKEY *const keys[] = {rsa, p256, p384, p521};
    struct err err = {0};
    struct jwks *k;
    struct jwt t;
    size_t n;
    char *text;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if ((k = jwks_parse(bad[i], strlen(bad[i]), &err)))
            fail_msg("key set %zu is taken", i);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        val_push(a, list, jwt_jwk(keys[i], a));
    val_put(a, doc, "keys", list);
    text = json_text(a, doc, &n);
    k = jwks_parse(text, n, &err); /* what we publish, others can read */
    assert_int_equal(jwks_count(k), ARRAY_LEN(keys));
    for (size_t i = 0; i < ARRAY_LEN(ALGS); i++) {
        EVP_PKEY *key = key_for(ALGS[i]);

        assert_int_equal(jwt_parse(make(a, ALGS[i], ALGS[i], key, jwt_key_id(key, a)), a, &t, &err), 0);
        assert_true(jwks_verify(k, &t));
        assert_int_equal(jwt_parse(make(a, ALGS[i], ALGS[i], key, "another"), a, &t, &err), 0);
        assert_false(jwks_verify(k, &t));
    }
    assert_null(jwt_jwk(small_rsa, a));
    jwks_free(k);
    arena_free(a);
}

/* ---------------------------------------------------------------- our own tokens */

static const struct obj *nobody(void *arg, struct arena *a, const char *kind, const char *ns, const char *name)
{
    (void)arg, (void)a, (void)kind, (void)ns, (void)name;
    return NULL;
}

static const struct obj *account(void *arg, struct arena *a, const char *kind, const char *ns, const char *name)
{
    struct val *v = val_map(a), *meta = val_map(a);

    (void)arg;
    if (!streq(kind, "ServiceAccount"))
        return NULL;
    val_put_str(a, v, "kind", kind);
    val_put_str(a, meta, "name", name);
    val_put_str(a, meta, "namespace", ns);
    val_put_str(a, meta, "uid", "u-1");
    val_put(a, v, "metadata", meta);
    return obj_seal(v, 1);
}

static void test_keys_change(void **state)
{
    struct arena *a = arena_new();
    struct val *aud = val_list(a);
    struct token_spec spec = {.namespace_ = "ns", .account = "robot", .account_uid = "u-1", .audiences = aud,
                              .id = "id", .now = 1000, .seconds = 600};
    struct token_keys old = {.v = {p256}, .n = 1}, both = {.v = {rsa, p256}, .n = 2}, other = {.v = {p384}, .n = 1};
    struct token_check check = {.now = 1100, .lookup = account};
    struct token_found found = {0};
    struct err err = {0};
    char *token, *bad;

    (void)state;
    val_push_str(a, aud, TOKEN_ISSUER);
    assert_non_null(token = token_make(p256, &spec, a, &err));
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), 0);
    assert_string_equal(found.user.name, "system:serviceaccount:ns:robot");
    assert_int_equal(token_verify(&both, token, &check, a, &found, &err), 0); /* the new key signs, the old one is known */
    assert_int_equal(token_verify(&other, token, &check, a, &found, &err), -1);
    assert_int_equal(val_len(val_get(token_jwks(&both, a), "keys")), 2);
    check.seen = token_seen_new(); /* only the signature is remembered: time and account are not */
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), 0);
    assert_true(token_seen_has(check.seen, token));
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), 0);
    assert_string_equal(found.user.uid, "u-1");
    bad = arena_strdup(a, token);
    bad[strlen(bad) - 8] ^= 1;
    assert_false(token_seen_has(check.seen, bad));
    assert_int_equal(token_verify(&old, bad, &check, a, &found, &err), -1);
    assert_false(token_seen_has(check.seen, bad));
    check.lookup = nobody;
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), -1);
    check.lookup = account;
    check.now = 1600;
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), -1);
    check.seen = token_seen_free(check.seen);
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), -1);
    check = (struct token_check){.now = 1100, .lookup = nobody};
    assert_int_equal(token_verify(&old, token, &check, a, &found, &err), -1);
    arena_free(a);
}

/* ---------------------------------------------------------------- audit */

static void test_audit_policy(void **state)
{
    static const char text[] =
        "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [\n"
        "{level: None, users: [quiet]},\n"
        "{level: None, nonResourceURLs: [/healthz*, /version]},\n"
        "{level: Request, userGroups: [devs], verbs: [create]},\n"
        "{level: RequestResponse, namespaces: [prod], resources: [{group: '', resources: [pods/*, secrets]}], omitStages: [ResponseStarted]},\n"
        "{level: Metadata, resources: [{group: apps, resources: [deployments], resourceNames: [web]}, {group: '', resources: ['*/log']}]}]}";
    static const char *const devs[] = {"devs", NULL};
    static const struct auth_user quiet = {.name = "quiet"}, ann = {.name = "ann", .groups = devs}, bob = {.name = "bob"};
    static const struct {
        const struct auth_user *u;
        struct rbac_ask q;
        enum audit_level level;
    } t[] = {
        {&quiet, {.verb = "create", .group = "", .resource = "pods", .subresource = "", .ns = "prod", .name = ""}, AUDIT_NONE},
        {&bob, {.verb = "get", .path = "/healthz/etcd", .ns = "", .name = ""}, AUDIT_NONE},
        {&ann, {.verb = "create", .group = "x", .resource = "y", .subresource = "", .ns = "", .name = ""}, AUDIT_REQUEST},
        {&bob, {.verb = "create", .group = "", .resource = "secrets", .subresource = "", .ns = "prod", .name = ""}, AUDIT_REQUEST_RESPONSE},
        {&bob, {.verb = "create", .group = "", .resource = "pods", .subresource = "exec", .ns = "prod", .name = "p"}, AUDIT_REQUEST_RESPONSE},
        {&bob, {.verb = "create", .group = "", .resource = "secrets", .subresource = "", .ns = "test", .name = ""}, AUDIT_NONE},
        {&bob, {.verb = "get", .group = "apps", .resource = "deployments", .subresource = "", .ns = "test", .name = "web"}, AUDIT_METADATA},
        {&bob, {.verb = "get", .group = "apps", .resource = "deployments", .subresource = "", .ns = "test", .name = "x"}, AUDIT_NONE},
        {&bob, {.verb = "get", .group = "", .resource = "pods", .subresource = "log", .ns = "test", .name = "x"}, AUDIT_METADATA},
        {NULL, {.verb = "get", .group = "", .resource = "pods", .subresource = "log", .ns = "test", .name = "x"}, AUDIT_METADATA},
    };
    static const char *const wrong[] = {
        "{}", "{apiVersion: audit.k8s.io/v1, kind: Policy}", "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}",
        "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, omitStages: [Odd]}]}",
        "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]}",
        "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, nonResourceURLs: ['x*y']}]}",
        "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, users: bob}]}"};
    struct arena *a = arena_new();
    struct err err = {0};
    struct val *policy = yaml_parse(a, text, sizeof(text) - 1, NULL, NULL, &err);

    (void)state;
    assert_int_equal(audit_policy_check(policy, &err), 0);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        if (audit_policy_ask(policy, t[i].u, &t[i].q).level != t[i].level)
            fail_msg("case %zu", i);
    assert_int_equal(audit_policy_ask(policy, &bob, &t[3].q).omit, AUDIT_RECEIVED | AUDIT_STARTED);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(audit_policy_check(yaml_parse(a, wrong[i], strlen(wrong[i]), NULL, NULL, &err), &err), -1);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_algorithms),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_unsigned_and_malformed),
        cmocka_unit_test(test_key_sets),
        cmocka_unit_test(test_keys_change),
        cmocka_unit_test(test_audit_policy),
    };
    int r;

    rsa = EVP_RSA_gen(2048);
    small_rsa = EVP_RSA_gen(1024);
    p256 = EVP_EC_gen("P-256");
    p384 = EVP_EC_gen("P-384");
    p521 = EVP_EC_gen("P-521");
    r = cmocka_run_group_tests(tests, NULL, NULL);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(small_rsa);
    EVP_PKEY_free(p256);
    EVP_PKEY_free(p384);
    EVP_PKEY_free(p521);
    return r;
}
