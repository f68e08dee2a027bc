#include "tt.h"

#include "codec/json.h"
#include "codec/json_scan.h"
#include "codec/kubetime.h"
#include "codec/obj.h"
#include "codec/quantity.h"
#include "codec/selector.h"
#include "codec/yaml.h"

static struct val *parse(struct arena *a, const char *text)
{
    struct err err;
    struct val *v = json_parse(a, text, strlen(text), &err);

    assert_non_null(v);
    return v;
}

static void json_reads_and_writes(void **state)
{
    static const char TEXT[] = "{\"a\":[1,-2.5,true,null,\"x\\n\\u0001\"],\"b\":{\"c\":{}},\"d\":[]}";
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = parse(a, TEXT);

    assert_string_equal(json_text(a, v, NULL), TEXT);
    assert_true(val_equal(v, val_copy(a, v)));
    assert_int_equal(val_int_at(v, "a[0]", 9), 1);
    assert_int_equal(val_int_at(v, "a[7]", 9), 9);
}

static struct val *own(struct arena *a, const char *text, size_t n)
{
    char *mine = arena_alloc(a, n + JSON_ROOM);
    struct err err;

    memcpy(mine, text, n);
    return json_parse_own(a, mine, n, &err);
}

static void json_reads_its_own(void **state)
{
    static const char *const good[] = {"{}", "[]", "null", "-7", "9223372036854775807", "-9223372036854775808", "1e+20", "-0.5",
        "{\"a\":[1,[],{},\"\\u0001\\u00e9\\ud83d\\ude00\\\\\\\"\\n and more of it\"],\"\":false}", "\"0123456\\t8\""};
    static const char *const bad[] = {"", "{", "[", "[1", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\" 1}", "{1:2}", "[1,]", "[1 2]", "\"a", "\"\\",
        "\"\\u12", "\"\\q\"", "tru", "-", "1x", "{}}", "nul", "[1}", "{\"a\":1]"};
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(val_equal(own(a, good[i], strlen(good[i])), parse(a, good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_null(json_parse(a, bad[i], strlen(bad[i]), &err)); /* both say no */
        assert_null(own(a, bad[i], strlen(bad[i])));
    }
    assert_null(own(a, "\"\\ud83d\"", 8)); /* nothing that we wrote */
    char *deep = arena_alloc(a, 3000);
    memset(deep, '[', 2000);
    assert_null(own(a, deep, 2000));
}

static void json_leaves_managed_fields(void **state)
{
    static const char TEXT[] =
        "{\"metadata\":{\"name\":\"a\",\"managedFields\":[{\"manager\":\"m\",\"fieldsV1\":{\"f:x\":{\"k:{\\\"}\\\\\":\\\"{\\\"}\":{}}},\"time\":\"t\"},"
        "{\"fieldsV1\":{}}]},\"spec\":{\"l\":[{\"fieldsV1\":{\"a\":1}}]}}";
    _auto_(arena_freep) struct arena *a = arena_new();
    char *mine = arena_alloc(a, sizeof TEXT + JSON_ROOM);
    struct err err;
    struct val *v;

    memcpy(mine, TEXT, sizeof TEXT);
    v = json_parse_lean(a, mine, sizeof TEXT - 1, &err);
    assert_non_null(v);
    assert_string_equal(val_str_at(v, "metadata.managedFields[0].time", ""), "t");
    assert_true(val_is(val_at(v, "metadata.managedFields[0].fieldsV1"), VAL_STR));
    assert_true(!val_at(v, "metadata.managedFields[0") && !val_at(v, "metadata.managedFields[-1]") && !val_at(v, "metadata[x]")); /* as somebody's CRD may have it */
    assert_int_equal(val_int_at(v, "spec.l[0].fieldsV1.a", 0), 1); /* not there */
    assert_string_equal(json_text(a, v, NULL), TEXT);
    assert_string_equal(json_text(a, val_copy(a, v), NULL), TEXT);
    for (size_t n = 0; n < sizeof TEXT - 1; n++) {
        memcpy(mine, TEXT, sizeof TEXT);
        assert_null(json_parse_lean(a, mine, n, &err));
    }
}

static struct val *any_val(struct tt_rng *rng, struct arena *a, int depth)
{
    static const char letters[] = "abc \"\\\n\t\r\001/\xc3\xa9";
    char text[64];
    uint32_t n = tt_below(rng, sizeof text);
    struct val *v;

    switch (tt_below(rng, depth ? 7 : 5)) {
    case 0:
        return val_null(a);
    case 1:
        return val_bool(a, tt_below(rng, 2));
    case 2:
        return val_int(a, (int64_t)tt_below(rng, UINT32_MAX) * (tt_below(rng, 2) ? 1 : -1000000007));
    case 3:
        return val_double(a, (double)tt_below(rng, UINT32_MAX) / 1024 - 17);
    case 4:
        for (uint32_t i = 0; i < n; i++)
            text[i] = letters[tt_below(rng, 11)];
        return val_strn(a, text, n);
    case 5:
        v = val_list(a);
        for (uint32_t i = tt_below(rng, 6); i; i--)
            val_push(a, v, any_val(rng, a, depth - 1));
        return v;
    default:
        v = val_map(a);
        for (uint32_t i = tt_below(rng, 6); i; i--) {
            snprintf(text, sizeof text, "key %u\"", i);
            val_put(a, v, text, any_val(rng, a, depth - 1));
        }
        return v;
    }
}

/* Goal: what json_write() writes reads back the same by both readers. Also cut short, which must be refused. */
TT_PROP(json, both_readers_agree, 300)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = any_val(rng, a, 5);
    size_t n;
    char *text = json_text(a, v, &n);

    assert_true(val_equal(own(a, text, n), v));
    assert_true(val_equal(parse(a, text), v));
    if (v->type == VAL_LIST || v->type == VAL_MAP)
        assert_null(own(a, text, tt_below(rng, (uint32_t)n)));
}

/* Goal: the end of an object or a list is found whatever is in its strings. Method: any value, as it stands in another one. */
TT_PROP(json, the_end_is_found, 400)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(buf_done) struct buf b = {0};
    struct val *v = any_val(rng, a, 5);
    size_t n;
    char *text = json_text(a, v, &n), *p;

    if (*text != '{' && *text != '[')
        return;
    buf_add(&b, text, n);
    buf_adds(&b, ",\"}\":[\"]\"]}}}]]]");
    p = arena_memdup(a, b.p, b.n);
    assert_ptr_equal(json_scan_close(p, p + b.n), p + n);
    p = arena_memdup(a, b.p, n);
    assert_ptr_equal(json_scan_close(p, p + n), p + n);
    assert_null(json_scan_close(p, p + tt_below(rng, (uint32_t)n)));
}

/* Goal: what is not looked into stays text that is written as it was, and the metadata are found. */
static void json_is_skimmed(void **state)
{
    static const char TEXT[] = "{\"env\":[1],\"metadata\":{\"name\":\"a\",\"labels\":{\"env\":\"x\\n\"},\"l\":{\"env\":[\"]\",{}]}},\"spec\":{\"env\":{\"a\":1}}}";
    static const struct json_key keys[] = {{"env", 3}, {0}};
    struct json_skim skim = {.unseen = keys};
    _auto_(arena_freep) struct arena *a = arena_new();
    char *mine = arena_alloc(a, sizeof TEXT + JSON_ROOM);
    struct err err;
    struct val *v;

    (void)state;
    memcpy(mine, TEXT, sizeof TEXT);
    v = json_parse_skim(a, mine, sizeof TEXT - 1, &skim, &err);
    assert_non_null(v);
    assert_int_equal(val_int_at(v, "env[0]", 0), 1);
    assert_string_equal(val_str_at(v, "metadata.labels.env", ""), "x\n");
    assert_int_equal(val_at(v, "metadata.l.env")->flag, VAL_FLAG_JSON);
    assert_int_equal(val_at(v, "spec.env")->flag, VAL_FLAG_JSON);
    assert_string_equal(json_text(a, v, NULL), TEXT);
    assert_memory_equal(TEXT + skim.meta, "{\"name\"", 7);
    assert_memory_equal(TEXT + skim.meta + skim.meta_n, ",\"spec\"", 7);
}

static void count(void *arg, const char *path)
{
    snprintf(arg, 100, "%s", path);
}

/* Goal: numbers are written as Go writes them, or as they were read where that was asked for. */
static void json_numbers_keep_their_form(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    static const char *const forms[][2] = {
        /* written, plain */
        {"12345678901234567890", "12345678901234567000"}, {"1E5", "100000"}, {"-0.0", "-0"},
        {"1.10", "1.1"}, {"1e21", "1e+21"}, {"1.5e300", "1.5e+300"}, {"0.0000001", "1e-7"}, {"1e-6", "0.000001"},
        {"0.1", "0.1"}, {"9223372036854775807", "9223372036854775807"}, {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775808", "9223372036854776000"}, {"-12", "-12"}, {"0.30000000000000004", "0.30000000000000004"},
        {"123456.789", "123456.789"}, {"2.5e-5", "0.000025"},
    };
    struct json_reading how = {.as_written = true};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct val *v = json_parse_with(a, forms[i][0], strlen(forms[i][0]), &how, &err);
        char own[64] = {0};

        assert_string_equal(json_text(a, parse(a, forms[i][0]), NULL), forms[i][1]);
        assert_string_equal(json_text(a, v, NULL), forms[i][0]);
        assert_string_equal(json_text(a, val_copy(a, v), NULL), forms[i][0]);
        assert_true(val_equal(v, parse(a, forms[i][1])));
        strcpy(own, forms[i][0]);
        assert_string_equal(json_text(a, json_parse_own(a, own, strlen(own), &err), NULL), forms[i][0]);
    }
    assert_true(!json_parse_with(a, "1e400", 5, &how, &err));
}

/* Goal: halves of surrogate pairs and bytes that are no UTF-8 are read as Go reads them, and nothing else changes. */
static void json_replaces_what_is_no_text(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};

    (void)state;
    assert_string_equal(parse(a, "\"a\\ud800b\"")->s, "a\xef\xbf\xbd" "b");
    assert_string_equal(parse(a, "\"\\udc00\\ud83d\\ude00\"")->s, "\xef\xbf\xbd\xf0\x9f\x98\x80");
    assert_string_equal(parse(a, "\"\\\\ud800 \xff\"")->s, "\\ud800 \xef\xbf\xbd");
    assert_string_equal(parse(a, "\"\xed\xa0\x80\"")->s, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_true(!json_parse(a, "{\"a\":\"\xff\",}", 11, &err));
}

/* Goal: a struct that comes twice is filled twice. */
static void json_merges_what_comes_twice(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    static const char TEXT[] = "{\"m\":{\"a\":1,\"b\":{\"x\":1}},\"m\":{\"b\":{\"y\":2},\"c\":3},\"l\":[1,2],\"l\":[3]}";
    struct val *v = json_parse_with(a, TEXT, strlen(TEXT), &(struct json_reading){.merge = true}, &err);

    (void)state;
    assert_string_equal(json_text(a, v, NULL), "{\"m\":{\"a\":1,\"b\":{\"x\":1,\"y\":2},\"c\":3},\"l\":[3]}");
}

static void json_tells_repeated_keys(void **state)
{
    static const char TEXT[] = "{\"s\":{\"x\":[{\"k\":1,\"k\":2}]}}";
    _auto_(arena_freep) struct arena *a = arena_new();
    char path[100] = "";
    struct err err;
    struct val *v = json_parse_strict(a, TEXT, strlen(TEXT), count, path, &err);

    assert_string_equal(path, "s.x[0].k");
    assert_int_equal(val_int_at(v, "s.x[0].k", 0), 2);
}

/* Goal: put, push, del, set keep what a map should hold, across the growth of arrays. */
TT_PROP(val, maps_keep_what_is_put, 100)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    int64_t model[24] = {0};

    for (int step = 1; step < 200; step++) {
        uint32_t k = tt_below(rng, 24);
        char key[8];

        snprintf(key, sizeof key, "k%u", k);
        if (tt_below(rng, 3)) {
            val_put_int(a, v, key, step);
            model[k] = step;
        } else {
            TT_OK(val_del(v, key) == (model[k] != 0));
            model[k] = 0;
        }
        for (k = 0; k < 24; k++) {
            snprintf(key, sizeof key, "k%u", k);
            TT_OK(val_int_at(v, key, 0) == model[k]);
        }
    }
    TT_OK(val_equal(v, parse(a, json_text(a, v, NULL))));
}

static void yaml_reads_as_kubernetes_does(void **state)
{
    static const char TEXT[] = "a: 0644\nb: \"0644\"\nc: yes\nd: ~\ne: 1.5\nf: [x, {y: z}]\n"
                               "g: |\n  two\n  lines\nh: 2026-01-01\ni: &x {k: 1}\nj: *x\n";
    _auto_(arena_freep) struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    struct val *v = yaml_parse(a, TEXT, strlen(TEXT), NULL, NULL, &err), *again;

    assert_non_null(v);
    assert_string_equal(json_text(a, v, NULL),
                        "{\"a\":420,\"b\":\"0644\",\"c\":true,\"d\":null,\"e\":1.5,\"f\":[\"x\",{\"y\":\"z\"}],"
                        "\"g\":\"two\\nlines\\n\",\"h\":\"2026-01-01\",\"i\":{\"k\":1},\"j\":{\"k\":1}}");
    yaml_write(&b, v);
    again = yaml_parse(a, b.p, b.n, NULL, NULL, &err);
    assert_non_null(again);
    assert_true(val_equal(v, again));
    buf_done(&b);
}

/* Found by the fuzzer: what JSON leaves as it is and YAML does not read, and keys too long for "key: value". */
static void yaml_writes_what_it_reads(void **state)
{
    static const char *const HARD[] = {"\x7f", "\xc2\x80", "a\xc2\x85z", "\xe2\x80\xa8", "\xef\xbb\xbf", "a\nb\tc\r",
                                       "\"\\", "- a", "? b", "0x1f", "1e3", "<<", "=", "---", " a", "a:", "\xf0\x9f\x90\xa7"};
    _auto_(arena_freep) struct arena *a = arena_new();
    char *key = arena_raw(a, 3001);
    struct val *v = val_map(a), *list = val_list(a), *again;
    struct buf b = {0};
    struct err err = {0};

    for (size_t i = 0; i < sizeof HARD / sizeof *HARD; i++) {
        val_put_str(a, v, HARD[i], HARD[i]);
        val_push(a, list, val_str(a, HARD[i]));
    }
    memset(key, 'k', 3000);
    key[3000] = 0;
    val_put(a, v, key, list);
    val_put(a, val_need_map(a, v, "in"), key, val_get(v, "---"));
    key[0] = 'm';
    val_put(a, v, key, val_get(v, "in"));
    val_push(a, list, val_get(v, "in"));
    yaml_write(&b, v);
    again = yaml_parse(a, b.p, b.n, NULL, NULL, &err);
    assert_string_equal(err.msg, "");
    assert_true(val_equal(v, again));
    buf_done(&b);
}

static void yaml_bomb_is_an_error(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;

    buf_adds(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 10; i++)
        buf_printf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1,
                   i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    assert_null(yaml_parse(a, b.p, b.n, NULL, NULL, &err));
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    buf_done(&b);
}

static void objects_are_sealed(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = parse(a, "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"namespace\":\"n\","
                             "\"labels\":{\"a.b/c\":\"d\"}}}");
    _auto_(obj_unrefp) const struct obj *o = obj_seal(v, 12);
    struct err err;
    _auto_(obj_unrefp) const struct obj *again = obj_load(o->text, o->text_n, 12, &err);

    assert_null(val_at(v, "metadata.resourceVersion"));
    assert_string_equal(val_str_at(obj_val(o), "metadata.resourceVersion", ""), "12");
    assert_string_equal(obj_label(o, "a.b/c"), "d");
    assert_string_equal(again->name, "p");
    assert_string_equal(again->namespace_, "n");
    assert_string_equal(again->text, o->text);
}

static void quantities_are_exact(void **state)
{
    static const struct {
        const char *in, *out;
        int64_t milli;
        bool binary;
    } rows[] = {
        {"100m", "100m", 100, false},      {"1.5", "1500m", 1500, false},
        {"2Gi", "2Gi", 2147483648000, true}, {"0.5Gi", "512Mi", 536870912000, true},
        {"1e3", "1k", 1000000, false},     {"1E", "1E", INT64_MAX, false},
        {"1500Ki", "1500Ki", 1536000000, true}, {"3n", "3n", 1, false},
        {"-2", "-2", -2000, false},        {"0.1n", "1n", 1, false},
    };
    static const char *const bad[] = {"", "m", "1.2.3", "1x", "1 Gi", "1e", "e3", "9e40Gi"};
    _auto_(arena_freep) struct arena *a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        quantity q;

        assert_true(quantity_parse(rows[i].in, &q));
        assert_int_equal(quantity_milli(q), rows[i].milli);
        assert_string_equal(quantity_text(a, q, rows[i].binary), rows[i].out);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        quantity q = 7;

        assert_false(quantity_parse(bad[i], &q));
        assert_true(q == 7);
    }
}

static void selectors_select(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *labels = parse(a, "{\"app\":\"web\",\"n\":\"7\"}");
    static const struct {
        const char *selector;
        bool want;
    } rows[] = {
        {"{}", true},
        {"{\"matchLabels\":{\"app\":\"web\"}}", true},
        {"{\"matchLabels\":{\"app\":\"db\"}}", false},
        {"{\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"In\",\"values\":[\"x\",\"web\"]}]}", true},
        {"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"NotIn\",\"values\":[\"x\"]}]}", true},
        {"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"Exists\"}]}", false},
        {"{\"matchExpressions\":[{\"key\":\"n\",\"operator\":\"Gt\",\"values\":[\"6\"]}]}", true},
        {"{\"matchExpressions\":[{\"key\":\"n\",\"operator\":\"Lt\",\"values\":[\"7\"]}]}", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(selector_matches(parse(a, rows[i].selector), labels), rows[i].want);
    assert_false(selector_matches(NULL, labels));
    assert_true(selector_matches(parse(a, "{}"), NULL));
}

static void times_are_rfc3339(void **state)
{
    char b[KUBETIME_MAX];

    assert_int_equal(kubetime_parse("1970-01-01T00:00:01Z"), 1000);
    assert_int_equal(kubetime_parse("2026-11-21T01:02:03.25+01:00"),
                     kubetime_parse("2026-11-21T00:02:03Z") + 250);
    assert_int_equal(kubetime_parse("2026-11-21"), -1);
    assert_int_equal(kubetime_parse(NULL), -1);
    assert_string_equal(kubetime_text(b, 1000), "1970-01-01T00:00:01Z");
    assert_string_equal(kubetime_micro(b, 1000007), "1970-01-01T00:00:01.000007Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_reads_and_writes),
        cmocka_unit_test(json_tells_repeated_keys),
        cmocka_unit_test(json_reads_its_own),
        cmocka_unit_test(json_leaves_managed_fields),
        cmocka_unit_test(tt_json_both_readers_agree),
        cmocka_unit_test(tt_json_the_end_is_found),
        cmocka_unit_test(json_is_skimmed),
        cmocka_unit_test(json_numbers_keep_their_form),
        cmocka_unit_test(json_replaces_what_is_no_text),
        cmocka_unit_test(json_merges_what_comes_twice),
        cmocka_unit_test(tt_val_maps_keep_what_is_put),
        cmocka_unit_test(yaml_reads_as_kubernetes_does),
        cmocka_unit_test(yaml_writes_what_it_reads),
        cmocka_unit_test(yaml_bomb_is_an_error),
        cmocka_unit_test(objects_are_sealed),
        cmocka_unit_test(quantities_are_exact),
        cmocka_unit_test(selectors_select),
        cmocka_unit_test(times_are_rfc3339),
    };

    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
