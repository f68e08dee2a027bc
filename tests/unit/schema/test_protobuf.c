/* Goal: what is written as protobuf reads back as the same object, whatever small messages, maps and
 * inlined messages it holds, and broken bytes are errors. */
#include "tt.h"

#include "codec/json.h"
#include "schema/protobuf.h"

static const char *const OBJECTS[] = {
    "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"namespace\":\"n\",\"creationTimestamp\":"
    "\"2026-01-02T03:04:05Z\",\"labels\":{\"a\":\"b\",\"c\":\"\"}},\"spec\":{\"volumes\":[{\"name\":\"v\",\"projected\":"
    "{\"sources\":[{\"secret\":{\"name\":\"s\",\"items\":[{\"key\":\"k\",\"path\":\"p\",\"mode\":256}]}}]}}],\"containers\":[{\"name\":\"c\","
    "\"image\":\"i\",\"resources\":{\"limits\":{\"cpu\":\"100m\",\"memory\":\"1Gi\"}},\"livenessProbe\":{\"httpGet\":{\"path\":\"/\","
    "\"port\":\"web\"},\"periodSeconds\":3},\"readinessProbe\":{\"tcpSocket\":{\"port\":80}},\"securityContext\":{\"runAsUser\":0,"
    "\"runAsNonRoot\":false}}],\"terminationGracePeriodSeconds\":0}}",
    "{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"s\"},\"data\":{\"a\":\"AAEC/w==\",\"b\":\"eA==\"},\"type\":\"Opaque\"}",
    "{\"kind\":\"Deployment\",\"apiVersion\":\"apps/v1\",\"metadata\":{\"name\":\"d\"},\"spec\":{\"replicas\":0,\"selector\":{\"matchLabels\":"
    "{\"x\":\"y\"}},\"template\":{\"metadata\":{\"labels\":{\"x\":\"y\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}},"
    "\"strategy\":{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxUnavailable\":\"25%\",\"maxSurge\":1}}}}",
    "{\"kind\":\"ControllerRevision\",\"apiVersion\":\"apps/v1\",\"metadata\":{\"name\":\"r\"},\"data\":{\"any\":[1,{\"x\":null}]},\"revision\":-3}",
    "{\"kind\":\"SubjectAccessReview\",\"apiVersion\":\"authorization.k8s.io/v1\",\"spec\":{\"user\":\"u\",\"extra\":{\"k\":[\"a\",\"b\"]}}}",
    "{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\",\"metadata\":{\"name\":\"l\"},\"spec\":{\"renewTime\":\"2026-01-02T03:04:05.000007Z\"}}",
    "{\"kind\":\"CustomResourceDefinition\",\"apiVersion\":\"apiextensions.k8s.io/v1\",\"metadata\":{\"name\":\"c\"},\"spec\":{\"versions\":[{"
    "\"name\":\"v1\",\"schema\":{\"openAPIV3Schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"string\","
    "\"enum\":[\"x\"]}},\"b\":{\"additionalProperties\":{\"type\":\"integer\",\"maximum\":1.5}},\"c\":{\"additionalProperties\":true}}}}}]}}",
    "{\"kind\":\"ValidatingAdmissionPolicy\",\"apiVersion\":\"admissionregistration.k8s.io/v1\",\"metadata\":{\"name\":\"v\"},\"spec\":{"
    "\"matchConstraints\":{\"resourceRules\":[{\"resourceNames\":[\"n\"],\"operations\":[\"CREATE\"],\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],"
    "\"resources\":[\"pods\"],\"scope\":\"*\"}]}}}",
    "{\"kind\":\"Stack\",\"apiVersion\":\"tandem.dev/v1\",\"metadata\":{\"name\":\"s\"},\"spec\":{\"caller\":\"c\",\"parentId\":\"p\","
    "\"rootId\":\"r\",\"seal\":\"x\"}}",
    "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"gracePeriodSeconds\":0,\"propagationPolicy\":\"Orphan\"}",
    "{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\"},"
    "\"data\":{\"k\":\"v\"}},{\"metadata\":{\"name\":\"b\"}}]}",
};

static void reads_what_it_wrote(void **state)
{
    _auto_(schema_freep) struct schema *s = schema_new();

    for (size_t i = 0; i < ARRAY_LEN(OBJECTS); i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct err err = {0};
        struct val *v = json_parse(a, OBJECTS[i], strlen(OBJECTS[i]), &err), *again;
        struct buf b = {0};

        assert_non_null(v);
        assert_int_equal(protobuf_write(s, &b, v, &err), 0);
        assert_true(protobuf_is(b.p, b.n));
        if (streq(val_str_at(v, "kind", ""), "ConfigMapList")) { /* lists are only written */
            assert_null(protobuf_read(s, a, b.p, b.n - 1, &err));
        } else {
            again = protobuf_read(s, a, b.p, b.n, &err);
            if (!again || !val_equal(v, again))
                fail_msg("%s\n%s", OBJECTS[i], again ? json_text(a, again, NULL) : err.msg);
        }
        buf_done(&b);
    }
}

/* Every cut and every flipped byte gives an error or another object, never a crash (ASan looks). */
TT_PROP(protobuf, broken_bytes_are_no_crash, 60)
{
    static struct schema *s;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct buf b = {0};
    struct val *v = json_parse(a, OBJECTS[0], strlen(OBJECTS[0]), &err);
    int refused = 0;

    if (!s)
        s = schema_new();
    TT_OK(protobuf_write(s, &b, v, &err) == 0);
    for (int i = 0; i < 100; i++) {
        char *copy = arena_memdup(a, b.p, b.n);
        size_t n = tt_below(rng, 2) ? b.n : tt_below(rng, (uint32_t)b.n);

        copy[tt_below(rng, (uint32_t)b.n)] ^= (char)(1 << tt_below(rng, 8));
        refused += protobuf_read(s, a, copy, n, &err) == NULL;
    }
    TT_OK(refused > 0);
    buf_done(&b);
}

/* A row of pods that share parts and differ in others, by chance: each is written as its tree would be, whatever the
 * places before it remember; and its metadata alone. */
TT_PROP(protobuf, likeness_does_not_show, 60)
{
    static const char *const NAMES[] = {"a", "b\\n", "c-long-enough-to-need-another-byte-of-length-somewhere"};
    static struct schema *s;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct protobuf_items *whole, *meta;

    if (!s)
        s = schema_new();
    whole = protobuf_items_new(s, "v1", "Pod", false, &err);
    meta = protobuf_items_new(s, "v1", "Pod", true, &err);
    TT_OK(whole && meta);
    for (int i = 0; i < 60; i++) {
        struct buf json = {0}, tree = {0}, text = {0};
        struct val *v, *partial = val_map(a);
        char *own;
        uint32_t containers = tt_below(rng, 3);

        buf_printf(&json, "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"%s\",\"labels\":{\"app\":\"%s\",\"x\":\"y\"},"
                   "\"managedFields\":[{\"manager\":\"m\",\"time\":\"2026-01-02T03:04:0%uZ\",\"fieldsV1\":{\"f:spec\":{\"f:0\":{},\"f:%s\":{}}}}]},"
                   "\"spec\":{\"nodeName\":\"%s\",\"containers\":[", NAMES[tt_below(rng, 3)], NAMES[tt_below(rng, 2)], tt_below(rng, 2),
                   NAMES[tt_below(rng, 2)], NAMES[tt_below(rng, 2)]);
        for (uint32_t k = 0; k <= containers; k++)
            buf_printf(&json, "%s{\"name\":\"%s\",\"resources\":{\"limits\":{\"cpu\":\"%u\"}},\"env\":[{\"name\":\"E\",\"value\":\"%s\"}]}",
                       k ? "," : "", NAMES[k], 1 + tt_below(rng, 2), NAMES[tt_below(rng, 2)]);
        buf_adds(&json, "]}}");
        v = json_parse(a, json.p, json.n, &err);
        TT_OK(v != NULL);
        TT_OK(protobuf_list_item(s, a, &tree, "v1", "Pod", v, &err) == 0);
        own = arena_alloc(a, json.n + JSON_ROOM);
        memcpy(own, json.p, json.n);
        TT_OK(protobuf_items_add(whole, a, &text, own, json.n, &err) == 0);
        TT_OK(text.n == tree.n && memcmp(text.p, tree.p, text.n) == 0);
        buf_reset(&tree);
        buf_reset(&text);
        val_put(a, partial, "metadata", val_get(v, "metadata"));
        TT_OK(protobuf_list_item(s, a, &tree, "v1", "PartialObjectMetadata", partial, &err) == 0);
        memcpy(own, json.p, json.n);
        TT_OK(protobuf_items_add(meta, a, &text, own, json.n, &err) == 0);
        TT_OK(text.n == tree.n && memcmp(text.p, tree.p, text.n) == 0);
        buf_done(&json);
        buf_done(&tree);
        buf_done(&text);
    }
    protobuf_items_free(whole);
    protobuf_items_free(meta);
}

/* The bytes that a stock server's types give: verbs are a slice type with a name, so a message of their own. */
static void a_named_slice_is_a_message(void **state)
{
    static const char TEXT[] = "{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":\"v1\",\"resources\":[{\"name\":\"pods\","
                               "\"singularName\":\"pod\",\"namespaced\":true,\"kind\":\"Pod\",\"verbs\":[\"get\",\"list\"],\"shortNames\":[\"po\"]}]}";
    static const char VERBS[] = "\x22\x0b\x0a\x03get\x0a\x04list";
    _auto_(schema_freep) struct schema *s = schema_new();
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(buf_done) struct buf b = {0};
    struct err err = {0};
    struct val *v = json_parse(a, TEXT, strlen(TEXT), &err);

    assert_int_equal(protobuf_write(s, &b, v, &err), 0);
    assert_non_null(memmem(b.p, b.n, VERBS, sizeof VERBS - 1));
}

static void foreign_bytes_are_refused(void **state)
{
    _auto_(schema_freep) struct schema *s = schema_new();
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};

    assert_null(protobuf_read(s, a, "{}", 2, &err));
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    assert_null(protobuf_read(s, a, "k8s\0\x0a\x07\x0a\x02v1\x12\x01X", 13, &err));
    assert_non_null(strstr(err.msg, "no kind \"X\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_it_wrote),
        cmocka_unit_test(a_named_slice_is_a_message),
        cmocka_unit_test(tt_protobuf_broken_bytes_are_no_crash),
        cmocka_unit_test(tt_protobuf_likeness_does_not_show),
        cmocka_unit_test(foreign_bytes_are_refused),
    };

    return cmocka_run_group_tests_name("protobuf", tests, NULL, NULL);
}
