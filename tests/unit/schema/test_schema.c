/* Goal: the kinds files load whole and fast, and the engine keeps its words.
 * Method: recorded answers of the real server (cases.jsonl: what was sent, what was said), laws of
 * patches by random trees, and small tables of selectors, quantities and names. */
#include "tt.h"

#include "codec/json.h"
#include "schema/patch.h"
#include "schema/publish.h"
#include "schema/crd_int.h"
#include "schema/formats.h"
#include "schema/jsonpath.h"
#include "schema/select.h"
#include "schema/table.h"

#include <time.h>

static struct schema *s;

static int setup(void **state)
{
    (void)state;
    s = schema_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    s = schema_free(s);
    return 0;
}

static struct val *parse(struct arena *a, const char *text)
{
    struct err err = {0};
    struct val *v = json_parse(a, text, strlen(text), &err);

    if (!v)
        fail_msg("%s: %s", text, err.msg);
    return v;
}

static void loads_fast(void **state)
{
    struct timespec t0, t1;
    uint32_t n = 0, i = 0;
    const struct resource *r;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    struct schema *x = schema_new();
    clock_gettime(CLOCK_MONOTONIC, &t1);
    while ((r = schema_next(x, &i))) {
        assert_non_null(resource_type(r));
        assert_true(r->verbs != 0);
        n++;
    }
    printf("schema: %u resources, loaded in %.2f ms\n", n,
           (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6);
    assert_true(n > 60);
    assert_non_null(schema_resource(x, "apps", "v1", "deployments"));
    assert_non_null(schema_kind_of(x, "v1", "Pod"));
    assert_non_null(schema_resource(x, "tandem.dev", "v1", "functions"));
    assert_string_equal(schema_stored(schema_resource(x, "autoscaling", "v1",
                                                      "horizontalpodautoscalers"))->version, "v2");
    assert_null(schema_resource(x, "apps", "v1beta1", "deployments"));
    schema_free(x);
}

/* ---- recorded answers ---- */

static int by_cause(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

/* "field reason", sorted, a line each */
static char *causes_text(struct arena *a, const struct causes *c)
{
    char **lines = arena_array(a, char *, c->n + 1), *out = arena_strdup(a, "");

    for (uint32_t i = 0; i < c->n; i++)
        lines[i] = arena_printf(a, "%s %s\n", c->v[i].field, cause_reason(c->v[i].type));
    qsort(lines, c->n, sizeof(*lines), by_cause);
    for (uint32_t i = 0; i < c->n; i++)
        out = arena_printf(a, "%s%s", out, lines[i]);
    return out;
}

static char *wanted_text(struct arena *a, const struct val *list)
{
    char *out = arena_strdup(a, "");
    char **lines = arena_array(a, char *, val_len(list) + 1);
    uint32_t n = 0;

    VAL_EACH(list, it)
        lines[n++] = arena_printf(a, "%s %s\n", it->items[0].s, it->items[1].s);
    qsort(lines, n, sizeof(*lines), by_cause);
    for (uint32_t i = 0; i < n; i++)
        out = arena_printf(a, "%s%s", out, lines[i]);
    return out;
}

static const struct resource *resource_of(struct arena *a, const struct val *in)
{
    const char *gv = val_str_at(in, "gv", ""), *slash = strchr(gv, '/');
    const char *group = slash ? arena_strndup(a, gv, (size_t)(slash - gv)) : "";
    const struct resource *r = schema_resource(s, group, slash ? slash + 1 : gv,
                                               val_str_at(in, "resource", ""));

    assert_non_null(r);
    return r;
}

static struct val *asked(struct arena *a, const struct resource *r, const struct val *in,
                         struct err *err)
{
    const char *op = val_str_at(in, "op", "");
    const struct val *old = val_get(in, "old"), *patch = val_get(in, "patch");

    if (streq(op, "merge"))
        return patch_merge(a, old, patch, err);
    if (streq(op, "strategic"))
        return patch_strategic(resource_type(r), a, old, patch, err);
    if (streq(op, "json"))
        return patch_json(a, old, patch, err);
    return val_copy(a, val_get(in, "body"));
}

static void plain_meta(struct val *v)
{
    static const char *const machine[] = {"uid", "resourceVersion", "creationTimestamp",
                                          "managedFields", "namespace", "selfLink",
                                          "deletionTimestamp"};

    for (uint32_t i = 0; i < ARRAY_LEN(machine); i++)
        val_del(val_get(v, "metadata"), machine[i]);
}

static void play(struct arena *a, const struct val *in, const char *line)
{
    const struct resource *r = resource_of(a, in);
    const struct val *old = val_get(in, "old"), *want = val_get(in, "want");
    const char *sub = val_str_at(in, "sub", "");
    struct causes causes = {.a = a};
    struct err err = {0};
    struct val *v = asked(a, r, in, &err);

    if (!v || schema_decode(r, a, v, NULL, &err) < 0)
        fail_msg("%.300s: %s", line, err.msg);
    schema_default(r, a, v);
    if (streq(val_str_at(in, "op", ""), "create"))
        schema_prepare_create(r, a, v);
    else
        schema_prepare_update(r, sub, a, v, old);
    schema_validate(r, sub, v, old, &causes);
    if (val_get(want, "causes")) {
        assert_string_equal(causes_text(a, &causes), wanted_text(a, val_get(want, "causes")));
        struct val *st = causes_status(&causes, a, r, "x");
        assert_int_equal(val_int_at(st, "code", 0), 422);
        return;
    }
    assert_string_equal(causes_text(a, &causes), "");
    plain_meta(v);
    if (!val_equal(v, val_get(want, "object")))
        fail_msg("%.200s\n have %s\n want %s", line, json_text(a, v, NULL),
                 json_text(a, val_get(want, "object"), NULL));
    /* what came out stays as it is when it goes in again */
    struct val again = *v;
    assert_int_equal(schema_decode(r, a, &again, NULL, &err), 0);
    schema_default(r, a, &again);
    if (!val_equal(&again, v))
        fail_msg("not the same the second time: %s\n then %s", json_text(a, v, NULL),
                 json_text(a, &again, NULL));
}

static void recorded_answers(void **state)
{
    const char *path = getenv("SCHEMA_CASES");
    FILE *f = fopen(path ? path : "tests/unit/schema/cases.jsonl", "r");
    char *line = NULL;
    size_t cap = 0;
    int n = 0;

    (void)state;
    assert_non_null(f);
    while (getline(&line, &cap, f) > 0) {
        struct arena *a = arena_new();
        play(a, parse(a, line), line);
        arena_free(a);
        n++;
    }
    assert_true(n > 40);
    free(line);
    fclose(f);
}

/* ---- patches ---- */

static struct val *random_tree(struct tt_rng *rng, struct arena *a, int depth)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e/f", "g~h"};
    uint32_t dice = tt_below(rng, depth > 3 ? 3 : 6);
    struct val *v;

    if (dice == 0)
        return val_int(a, tt_below(rng, 4));
    if (dice == 1)
        return val_str(a, keys[tt_below(rng, 4)]);
    if (dice == 2)
        return val_bool(a, tt_below(rng, 2));
    if (dice == 3) {
        v = val_list(a);
        for (uint32_t i = tt_below(rng, 4); i > 0; i--)
            val_push(a, v, random_tree(rng, a, depth + 1));
        return v;
    }
    v = val_map(a);
    for (uint32_t i = tt_below(rng, 5); i > 0; i--)
        val_put(a, v, keys[tt_below(rng, 6)], random_tree(rng, a, depth + 1));
    return v;
}

static struct val *random_map(struct tt_rng *rng, struct arena *a)
{
    struct val *v = val_map(a);

    for (uint32_t i = 1 + tt_below(rng, 4); i > 0; i--)
        val_put(a, v, (const char *const[]){"a", "b", "c", "d"}[tt_below(rng, 4)],
                random_tree(rng, a, 1));
    return v;
}

/* The merge patch that leads from x to y. */
static struct val *merge_diff(struct arena *a, const struct val *x, const struct val *y)
{
    struct val *p = val_map(a);

    VAL_EACH_MEMBER(x, m)
        if (!val_getn(y, m->key, m->n))
            val_put(a, p, m->key, val_null(a));
    VAL_EACH_MEMBER(y, m) {
        const struct val *had = val_getn(x, m->key, m->n);
        if (had && val_equal(had, &m->v))
            continue;
        if (val_is(had, VAL_MAP) && m->v.type == VAL_MAP)
            val_put(a, p, m->key, merge_diff(a, had, &m->v));
        else
            val_put(a, p, m->key, &m->v);
    }
    return p;
}

TT_PROP(patch, merge_of_diff_is_the_goal, 300)
{
    struct arena *a = arena_new();
    struct val *x = random_map(rng, a), *y = random_map(rng, a);
    char *before = json_text(a, x, NULL);
    struct val *got = patch_merge(a, x, merge_diff(a, x, y), &err);

    TT_OK(got && val_equal(got, y));
    TT_OK(streq(before, json_text(a, x, NULL))); /* the document itself is left alone */
    arena_free(a);
}

TT_PROP(patch, json_replace_and_back, 300)
{
    struct arena *a = arena_new();
    struct val *x = random_map(rng, a), *y = random_tree(rng, a, 1), *list = val_list(a);
    struct val *add = val_map(a), *test = val_map(a), *remove = val_map(a);
    const struct val *had = val_get(x, "z");

    val_put_str(a, add, "op", "add");
    val_put_str(a, add, "path", "/z");
    val_put(a, add, "value", y);
    val_put_str(a, test, "op", "test");
    val_put_str(a, test, "path", "/z");
    val_put(a, test, "value", y);
    val_put_str(a, remove, "op", "remove");
    val_put_str(a, remove, "path", "/z");
    val_push(a, list, add);
    val_push(a, list, test);
    val_push(a, list, remove);
    struct val *got = patch_json(a, x, list, &err);
    TT_OK(!had && got && val_equal(got, x));
    arena_free(a);
}

/* A strategic patch without lists that merge is a merge patch. */
TT_PROP(patch, strategic_is_merge_without_types, 300)
{
    struct arena *a = arena_new();
    struct val *x = random_map(rng, a), *y = random_map(rng, a);
    const struct type *none = schema_type(s, "meta.v1.Status");
    struct val *got = patch_strategic(none, a, x, merge_diff(a, x, y), &err);

    TT_OK(got && val_equal(got, y));
    arena_free(a);
}

static void strategic_lists(void **state)
{
    static const struct {
        const char *doc, *patch, *want;
    } cases[] = {
        {"{\"containers\":[{\"name\":\"a\",\"image\":\"1\"},{\"name\":\"b\"}]}",
         "{\"containers\":[{\"name\":\"a\",\"image\":\"2\"}]}",
         "{\"containers\":[{\"name\":\"a\",\"image\":\"2\"},{\"name\":\"b\"}]}"},
        {"{\"containers\":[{\"name\":\"a\"},{\"name\":\"b\"}]}",
         "{\"containers\":[{\"name\":\"a\",\"$patch\":\"delete\"}]}", "{\"containers\":[{\"name\":\"b\"}]}"},
        {"{\"containers\":[{\"name\":\"a\"},{\"name\":\"b\"}]}",
         "{\"$setElementOrder/containers\":[{\"name\":\"c\"},{\"name\":\"a\"},{\"name\":\"b\"}],"
         "\"containers\":[{\"name\":\"c\"}]}",
         "{\"containers\":[{\"name\":\"c\"},{\"name\":\"a\"},{\"name\":\"b\"}]}"},
        {"{\"containers\":[{\"name\":\"a\"}]}", "{\"containers\":[{\"$patch\":\"replace\"},{\"name\":\"z\"}]}",
         "{\"containers\":[{\"name\":\"z\"}]}"},
        {"{\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}}]}",
         "{\"volumes\":[{\"name\":\"v\",\"$retainKeys\":[\"name\",\"hostPath\"],\"hostPath\":{\"path\":\"/x\"}}]}",
         "{\"volumes\":[{\"name\":\"v\",\"hostPath\":{\"path\":\"/x\"}}]}"},
        {"{\"nodeSelector\":{\"a\":\"1\",\"b\":\"2\"}}", "{\"nodeSelector\":{\"a\":null}}",
         "{\"nodeSelector\":{\"b\":\"2\"}}"},
        {"{\"tolerations\":[{\"key\":\"a\"}]}", "{\"tolerations\":[{\"key\":\"b\"}]}",
         "{\"tolerations\":[{\"key\":\"b\"}]}"},
    };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena *a = arena_new();
        struct err err = {0};
        struct val *got = patch_strategic(schema_type(s, "core.v1.PodSpec"), a, parse(a, cases[i].doc),
                                          parse(a, cases[i].patch), &err);
        assert_non_null(got);
        assert_string_equal(json_text(a, got, NULL), cases[i].want);
        arena_free(a);
    }
}

/* ---- selectors ---- */

static void selectors(void **state)
{
    static const char labels[] = "{\"a\":\"b\",\"n\":\"5\",\"tier\":\"front\"}";
    static const struct {
        const char *text;
        int fits; /* -1: must not parse */
    } cases[] = {{"", 1}, {"a=b", 1}, {"a==b", 1}, {"a!=b", 0}, {"a=c", 0}, {"x!=y", 1}, {"a", 1},
                 {"!a", 0}, {"!x", 1}, {"tier in (front,back)", 1}, {"tier notin (front)", 0},
                 {"x notin (y)", 1}, {"n>4", 1}, {"n < 5", 0}, {"a=b,tier=front", 1},
                 {"a=b,tier=back", 0}, {"a,,b", -1}, {"a=b,", -1}, {"in (", -1}, {"a in b", -1},
                 {"=x", -1}, {"a=b c", -1}, {"bad key!", -1}, {"a=-x-", -1}, {"n>x", -1}};

    (void)state;
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena *a = arena_new();
        struct err err = {0};
        struct selector *sel = selector_parse(a, cases[i].text, &err);
        if ((sel != NULL) != (cases[i].fits >= 0))
            fail_msg("selector %s", cases[i].text);
        if (sel) {
            assert_int_equal(selector_match(sel, parse(a, labels)), cases[i].fits);
            struct selector *again = selector_parse(a, selector_text(a, sel), &err);
            assert_non_null(again); /* what is written can be read */
            assert_int_equal(selector_match(again, parse(a, labels)), cases[i].fits);
        }
        arena_free(a);
    }
}

static void field_selectors(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    const struct resource *pods = schema_resource(s, "", "v1", "pods");
    struct val *pod = parse(a, "{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\"},"
                               "\"spec\":{\"nodeName\":\"m\"},\"status\":{\"phase\":\"Running\"}}");
    struct field_selector *f =
        field_selector_parse(pods, a, "spec.nodeName=m,status.phase!=Failed,metadata.name==p", &err);

    (void)state;
    assert_non_null(f);
    assert_true(field_selector_match(f, pod));
    assert_string_equal(field_selector_exact(f, "metadata.name"), "p");
    assert_null(field_selector_exact(f, "status.phase"));
    f = field_selector_parse(pods, a, "spec.nodeName=", &err);
    assert_false(field_selector_match(f, pod));
    assert_null(field_selector_parse(pods, a, "spec.nonsense=1", &err));
    assert_null(field_selector_parse(pods, a, "nonsense", &err));
    arena_free(a);
}

/* ---- small values ---- */

static void quantities(void **state)
{
    static const char *const cases[][2] = {
        {"1000m", "1"}, {"0.5", "500m"}, {"1Gi", "1Gi"}, {"1024Mi", "1Gi"}, {"1.5Gi", "1536Mi"},
        {"1000", "1k"}, {"1500", "1500"}, {"100", "100"}, {"1e3", "1e3"}, {"0", "0"}, {"0Ki", "0"},
        {"-1", "-1"}, {"512", "512"}, {"1023Ki", "1023Ki"}, {"0.5Ki", "512"}, {"1n", "1n"},
        {"12e6", "12e6"}, {"100k", "100k"}, {"+5", "5"}, {".5", "500m"}};
    static const char *const bad[] = {"", "x", "1x", "1 Gi", "1KiB", "--1", "1e", ".", "1.2.3"};

    (void)state;
    struct arena *a = arena_new();
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(quantity_canonical(a, cases[i][0]), cases[i][1]);
    for (uint32_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_null(quantity_canonical(a, bad[i]));
    assert_string_equal(quantity_add(a, "500m", "1500m"), "2");
    assert_string_equal(quantity_add(a, "512Mi", "512Mi"), "1Gi");
    arena_free(a);
}

static void names(void **state)
{
    (void)state;
    assert_null(name_dns_label("a-1"));
    assert_non_null(name_dns_label("A"));
    assert_non_null(name_dns_label("a."));
    assert_null(name_dns_subdomain("a.b-c.d"));
    assert_non_null(name_dns_subdomain("a..b"));
    assert_non_null(name_dns1035_label("1a"));
    assert_null(name_qualified("example.com/a_B.c"));
    assert_non_null(name_qualified("/a"));
    assert_null(name_label_value(""));
    assert_non_null(name_label_value("-a"));
}

static void times(void **state)
{
    struct arena *a = arena_new();
    int64_t us;

    (void)state;
    assert_true(time_parse("2001-02-03T04:05:06.5+02:00", &us));
    assert_string_equal(time_text(a, us, true), "2001-02-03T02:05:06.500000Z");
    assert_string_equal(time_text(a, us, false), "2001-02-03T02:05:06Z");
    assert_false(time_parse("2001-02-30T00:00:00Z", &us));
    assert_false(time_parse("2001-02-03", &us));
    assert_true(duration_parse("1h30m", &us));
    assert_true(us == 5400ll * 1000000000);
    arena_free(a);
}

/* ---- decode, tables, documents ---- */

static void unknown_fields(void **state)
{
    struct arena *a = arena_new();
    struct texts strict = {.a = a};
    struct err err = {0};
    const struct resource *r = schema_resource(s, "", "v1", "configmaps");
    struct val *v = parse(a, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\","
                             "\"nonsense\":1},\"bogus\":2,\"data\":{\"a\":null}}");

    (void)state;
    assert_int_equal(schema_decode(r, a, v, &strict, &err), 0);
    assert_int_equal(strict.n, 2);
    assert_string_equal(strict.v[0], "unknown field \"metadata.nonsense\"");
    assert_string_equal(strict.v[1], "unknown field \"bogus\"");
    assert_string_equal(json_text(a, v, NULL), "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\","
                                               "\"metadata\":{\"name\":\"c\"},\"data\":{\"a\":\"\"}}");
    v = parse(a, "{\"metadata\":{\"labels\":{\"a\":5}}}");
    assert_int_equal(schema_decode(r, a, v, NULL, &err), -1);
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    arena_free(a);
}

static void tables(void **state)
{
    struct arena *a = arena_new();
    const struct resource *r = schema_resource(s, "", "v1", "pods");
    struct val *pod = parse(a, "{\"metadata\":{\"name\":\"p\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\"},"
                               "\"spec\":{\"containers\":[{\"name\":\"c\"}],\"nodeName\":\"n\"},"
                               "\"status\":{\"phase\":\"Running\",\"containerStatuses\":[{\"ready\":true,"
                               "\"restartCount\":2,\"state\":{\"running\":{}}}]}}");
    int64_t now;

    (void)state;
    assert_true(time_parse("2026-01-01T01:00:00Z", &now));
    struct val *row = table_row(r, a, pod, INCLUDE_NONE, "v1", now);
    assert_string_equal(json_text(a, val_get(row, "cells"), NULL),
                        "[\"p\",\"1/1\",\"Running\",\"2\",\"60m\",\"<none>\",\"n\",\"<none>\",\"<none>\"]");
    arena_free(a);
}

static const char crd_text[] =
    "{\"metadata\":{\"name\":\"things.example.com\"},\"spec\":{\"group\":\"example.com\",\"scope\":\"Namespaced\",\"names\":{\"plural\":\"things\","
    "\"singular\":\"thing\",\"kind\":\"Thing\",\"listKind\":\"ThingList\",\"shortNames\":[\"th\"]},"
    "\"versions\":[{\"name\":\"v1\",\"served\":true,\"storage\":true,\"subresources\":{\"status\":{}},"
    "\"schema\":{\"openAPIV3Schema\":{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\","
    "\"required\":[\"size\"],\"properties\":{\"size\":{\"type\":\"integer\",\"minimum\":1},"
    "\"colour\":{\"type\":\"string\",\"default\":\"red\",\"enum\":[\"red\",\"blue\"]}}}}}}}]}}";

static void custom_resources(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    struct causes causes = {.a = a}, again = {.a = a};
    struct texts strict = {.a = a};

    (void)state;
    const struct obj *crd = obj_seal(parse(a, crd_text), 7);
    assert_int_equal(schema_add_crd(s, crd, parse(a, crd_text), &err), 0);
    obj_unref(crd); /* the registry has its own reference */
    const struct resource *r = schema_resource(s, "example.com", "v1", "things");
    assert_non_null(r);
    assert_true(r->custom && r->has_status);
    assert_null(r->priv->made); /* nobody touched an object yet */
    struct val *v = parse(a, "{\"apiVersion\":\"example.com/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"t\"},"
                             "\"spec\":{\"size\":0,\"weight\":3}}");
    assert_int_equal(schema_decode(r, a, v, &strict, &err), 0);
    assert_int_equal(strict.n, 1);
    schema_default(r, a, v);
    assert_string_equal(val_str_at(v, "spec.colour", ""), "red");
    schema_prepare_create(r, a, v);
    schema_validate(r, "", v, NULL, &causes);
    assert_string_equal(causes_text(a, &causes), "spec.size FieldValueInvalid\n");
    assert_non_null(publish_openapi_v3(s, "apis/example.com/v1").text);
    schema_trim(s); /* used since the last one: stays */
    assert_non_null(r->priv->made);
    schema_trim(s);
    assert_null(r->priv->made);
    schema_validate(r, "", v, NULL, &again); /* made again */
    assert_string_equal(causes_text(a, &again), "spec.size FieldValueInvalid\n");
    const struct resource *held = resource_ref(r);
    const struct type *type = resource_type(held);
    for (int i = 0; i < 3; i++)
        schema_trim(s);
    assert_ptr_equal(held->priv->made->type, type); /* somebody may be at work with it */
    schema_remove_crd(s, "example.com", "things");
    assert_null(schema_resource(s, "example.com", "v1", "things"));
    assert_string_equal(held->kind, "Thing"); /* held over the removal */
    assert_ptr_equal(resource_type(held), type);
    resource_unref(held);
    arena_free(a);
}

/* Goal: paths of printer columns lead where kubectl's JSONPath leads, and what is none is refused. */
static void column_paths(void **state)
{
    static const struct {
        const char *path, *want; /* NULL: nothing is there; "!": an error; "?": can not even be read */
    } cases[] = {
        {".spec.n", "3"}, {".spec['n']", "3"}, {".spec.missing.more", NULL}, {".spec.none", "<no value>"},
        {".spec.a\\.b", "dot"}, {".spec['a\\.b']", "dot"}, {".list[0].k", "x"}, {".list[-1].k", "z"}, {".list[*].k", "x"},
        {".list[1:].k", "y"}, {".list[0:3:2].k", "x"}, {".list[9].k", "!"}, {".list[2,0].k", "z"}, {".list[]", "{\"k\":\"x\",\"v\":1}"},
        {".list[?(@.k==\"y\")].v", "2"}, {".list[?(@.k=='y')].v", "2"}, {".list[?(@.v>=2)].k", "y"}, {".list[?(@.v != 1)].k", "y"},
        {".list[?(@.v)].k", "x"}, {".list[?(@.w)].k", NULL}, {".list[?(@.ok==true)].k", "z"}, {".list[?(@.k==1)].v", "!"},
        {".list[?(@.k==\"a)b\")].v", NULL}, {".spec[?(@.k=='y')]", "!"}, {"..k", "x"}, {".spec.deep..end", "7"}, {".spec.*", "3"},
        {".spec.f", "1.5"}, {".spec.m", "{\"q\":[1,true]}"}, {".list[?(@.k==\"y\"].v", "?"}, {".list[x]", "?"}, {".list[", "?"},
        {".a#b", NULL}, {"....", "?"}, {".list[?(@.k == \"y\")].sub[?(@.t==\"T\")].s", "in"}, {".spec.n[0]", "!"},
    };
    struct arena *a = arena_new();
    struct val *v = parse(a, "{\"spec\":{\"n\":3,\"f\":1.5,\"none\":null,\"a.b\":\"dot\",\"deep\":{\"x\":[{\"end\":7}]},\"m\":{\"q\":[1,true]}},\"list\":["
                             "{\"k\":\"x\",\"v\":1},{\"k\":\"y\",\"v\":2,\"sub\":[{\"t\":\"S\",\"s\":\"no\"},{\"t\":\"T\",\"s\":\"in\"}]},{\"k\":\"z\",\"v\":3,\"ok\":true}]}");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *want = cases[i].want;
        const struct val *got = NULL;
        int r = jsonpath_first(a, v, cases[i].path, &got);

        if (jsonpath_valid(cases[i].path) != !(want && streq(want, "?")))
            fail_msg("%s: can it be read?", cases[i].path);
        if (want && (streq(want, "?") || streq(want, "!"))) {
            if (r == 0)
                fail_msg("%s: taken", cases[i].path);
        } else if (r < 0 || !got != !want || (got && !streq(jsonpath_text(a, got), want))) {
            fail_msg("%s: %s instead of %s", cases[i].path, r < 0 ? "an error" : got ? jsonpath_text(a, got) : "nothing", want ? want : "nothing");
        }
    }
    arena_free(a);
}

/* Goal: formats as a stock server judges them; what it does not know passes. */
static void text_formats(void **state)
{
    static const struct {
        const char *format, *good, *bad;
    } cases[] = {
        {"date", "2026-02-28", "2026-02-30"}, {"date-time", "2026-01-02T03:04:05.5Z", "2026-01-02 03:04:05Z"},
        {"duration", "22 ns", "soon"}, {"duration", "1h30m", "h"}, {"duration", "3 days", "3 moons"}, {"ipv4", "10.0.0.1", "10.0.0.256"},
        {"ipv6", "fe80::1", "10.0.0.1"}, {"cidr", "10.0.0.0/8", "10.0.0.0/33"}, {"mac", "00:00:5E:00:53:01", "00:00:5e:00:53"},
        {"uuid", "123E4567-e89b-12d3-a456-426614174000", "123e4567"}, {"uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"},
        {"isbn", "978-0321751041", "978-0321751042"}, {"isbn10", "0321751043", "0321751044"}, {"creditcard", "4111 1111 1111 1111", "4111111111111112"},
        {"ssn", "111-22-3333", "111-222-333"}, {"hexcolor", "#FFFFFF", "#FFFFFG"}, {"rgbcolor", "rgb(255,0,10)", "rgb(256,0,1)"}, {"byte", "aGk=", "aGk"},
        {"email", "Ann <ann@example.com>", "ann@"}, {"hostname", "www.example.com", "-a"}, {"uri", "https://x.y/z?q", "x y"}, {"uri", "/a", "a"},
        {"k8s-short-name", "a-1", "a.b"}, {"k8s-long-name", "a.b-1", "a..b"}, {"bsonobjectid", "507f1f77bcf86cd799439011", "507f"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (!format_fits(cases[i].format, cases[i].good) || format_fits(cases[i].format, cases[i].bad))
            fail_msg("%s: %s, %s", cases[i].format, cases[i].good, cases[i].bad);
    assert_true(format_fits("colour", "anything"));
    assert_true(format_fits("", ""));
}

static void documents(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    struct doc d = publish_resources(s, "apps", "v1");

    (void)state;
    assert_non_null(d.text);
    assert_non_null(strstr(d.text, "\"deployments/scale\""));
    assert_null(publish_resources(s, "apps", "v9").text);
    assert_ptr_equal(publish_resources(s, "apps", "v1").text, d.text); /* kept */
    d = publish_openapi_v2(s);
    struct val *v = json_parse(a, d.text, d.n, &err);
    assert_non_null(v);
    const struct val *defs = val_get(v, "definitions");
    assert_string_equal(val_text(val_get(val_get(val_get(val_get(defs, "io.k8s.api.core.v1.PodSpec"),
                                                         "properties"), "containers"),
                                         "x-kubernetes-patch-merge-key"), ""), "name");
    /* no reference leads nowhere */
    char *text = json_text(a, v, NULL);
    for (char *p = text; (p = strstr(p, "\"#/definitions/")); p++) {
        char *name = arena_strndup(a, p + 15, strcspn(p + 15, "\""));
        if (!val_get(defs, name))
            fail_msg("no definition %s", name);
    }
    /* discovery says what it answers; a schema in a schema has fields of no one type */
    const struct val *got = val_get(val_get(val_get(val_get(v, "paths"), "/apis/"), "get"), "responses");
    assert_string_equal(val_str_at(val_get(val_get(got, "200"), "schema"), "$ref", ""),
                        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList");
    got = val_get(defs, "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    assert_string_equal(val_str_at(val_get(val_get(got, "properties"), "items"), "$ref", ""),
                        "#/definitions/io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray");
    assert_non_null(publish_openapi_v3(s, "api/v1").text);
    assert_non_null(strstr(publish_openapi_v3(s, "apis").text, "schemas/io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList"));
    assert_null(publish_openapi_v3(s, "apis/nonsense/v1").text);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_fast),
        cmocka_unit_test(recorded_answers),
        cmocka_unit_test(tt_patch_merge_of_diff_is_the_goal),
        cmocka_unit_test(tt_patch_json_replace_and_back),
        cmocka_unit_test(tt_patch_strategic_is_merge_without_types),
        cmocka_unit_test(strategic_lists),
        cmocka_unit_test(selectors),
        cmocka_unit_test(field_selectors),
        cmocka_unit_test(quantities),
        cmocka_unit_test(names),
        cmocka_unit_test(times),
        cmocka_unit_test(unknown_fields),
        cmocka_unit_test(tables),
        cmocka_unit_test(custom_resources),
        cmocka_unit_test(column_paths),
        cmocka_unit_test(text_formats),
        cmocka_unit_test(documents),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
