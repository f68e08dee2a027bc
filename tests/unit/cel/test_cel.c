/* The interpreter through its door: trees read by their types, Kubernetes' libraries and costs, errors
 * with their places, bounds. What upstream answers was taken from its own libraries. */
#include "tt.h"

#include "cel/cel.h"
#include "codec/json.h"
#include "codec/regex.h"

#include <time.h>

static const char *const SET_KEYS[] = {"name"};
static const struct cel_type STR10 = {.kind = CEL_STRING, .max_elements = 10};
static const struct cel_type SET = {.kind = CEL_LIST, .elem = &STR10, .list_type = CEL_LIST_SET, .max_elements = 5};
static const struct cel_field PORT_FIELDS[] = {{"name", &STR10}, {"port", &cel_int_type}};
static const struct cel_type PORT = {.kind = CEL_OBJECT, .name = "self.ports", .fields = PORT_FIELDS, .fields_n = 2};
static const struct cel_type PORTS = {.kind = CEL_LIST, .elem = &PORT, .list_type = CEL_LIST_MAP, .list_keys = SET_KEYS,
                                      .list_keys_n = 1, .max_elements = 20};
static const struct cel_type LABELS = {.kind = CEL_MAP, .key = &cel_string_type, .elem = &STR10, .max_elements = 8};
static const struct cel_type INT_OR_STRING = {.kind = CEL_DYN, .int_or_string = true, .max_elements = 100};
static const struct cel_type NULLABLE = {.kind = CEL_STRING, .nullable = true, .max_elements = 10};
static const struct cel_type DATE = {.kind = CEL_TIMESTAMP, .date = true, .max_elements = 12};
static const struct cel_field FIELDS[] = {{"replicas", &cel_int_type}, {"max", &cel_int_type}, {"name", &STR10}, {"set", &SET},
    {"ports", &PORTS}, {"labels", &LABELS}, {"any", &INT_OR_STRING}, {"maybe", &NULLABLE}, {"day", &DATE},
    {"at", &cel_timestamp_type}, {"wait", &cel_duration_type}, {"bytes", &cel_bytes_type}, {"ratio", &cel_double_type},
    {"my-key", &STR10}, {"my.key/x__y", &STR10}, {"namespace", &STR10}};
static const struct cel_type SELF = {.kind = CEL_OBJECT, .name = "self", .fields = FIELDS, .fields_n = ARRAY_LEN(FIELDS)};

static const char DOCUMENT[] =
    "{\"replicas\":3,\"max\":5,\"name\":\"web\",\"set\":[\"a\",\"b\"],\"ports\":[{\"name\":\"x\",\"port\":1},{\"name\":\"y\",\"port\":2}],"
    "\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"any\":\"10%\",\"maybe\":null,\"day\":\"2024-02-29\",\"at\":\"2024-02-29T12:30:00.5+02:00\","
    "\"wait\":\"1h30m\",\"bytes\":\"aGk=\",\"ratio\":2,\"my-key\":\"k\",\"my.key/x__y\":\"deep\",\"namespace\":\"ns\"}";

struct bench {
    struct arena *a;
    struct cel_env *env;
    struct cel_value vars[6];
    uint32_t vars_n;
    struct cel_run run;
    const char *said; /* issues or error */
};

static struct cel_value lazy_field(void *data, struct cel_run *run, const char *name, size_t n)
{
    ++*(int *)data;
    run->cost += 7;
    return n == 3 && !memcmp(name, "bad", 3) ? (struct cel_value){.kind = CEL_ERROR, .n = 4, .s = "oops"} : cel_int(42);
}

static void authorize(void *data, const struct cel_check *c, struct arena *a, struct cel_decision *ret)
{
    struct buf *b = data;

    buf_printf(b, "%s|%s|%s|%s|%s|%s|%s|%s|%s\n", c->path ? c->path : "-", c->group, c->resource, c->subresource, c->namespace_, c->name,
               c->verb, c->service_account_name ? c->service_account_name : "-", c->label_selector ? c->label_selector : "-");
    ret->allowed = streq(c->verb, "get");
    ret->reason = arena_strdup(a, ret->allowed ? "may" : "may not");
}

static int lazy_calls;
static struct buf asked;
static const struct cel_authorizer AUTHORIZER = {authorize, &asked};

static void bench_init(struct bench *b, unsigned flags)
{
    static const struct cel_field lazy_fields[] = {{"good", &cel_int_type}, {"bad", &cel_int_type}};
    static const struct cel_type lazy = {.kind = CEL_OBJECT, .name = "variables", .fields = lazy_fields, .fields_n = 2};
    struct err err;
    struct val *doc;

    *b = (struct bench){.a = arena_new(), .env = cel_env_new()};
    doc = json_parse(b->a, DOCUMENT, sizeof DOCUMENT - 1, &err);
    assert_non_null(doc);
    cel_env_set(b->env, flags);
    cel_env_jsonpatch(b->env);
    lazy_calls = 0;
    cel_env_var(b->env, "self", &SELF);
    cel_env_var(b->env, "object", &cel_dyn_type);
    cel_env_var(b->env, "variables", &lazy);
    cel_env_var(b->env, "authorizer", &cel_authorizer_type);
    b->vars[0] = cel_tree(b->a, doc, &SELF);
    b->vars[1] = cel_tree(b->a, doc, NULL);
    b->vars[2] = cel_lazy(b->a, &lazy, lazy_field, &lazy_calls);
    b->vars[3] = cel_authorizer(b->a, &AUTHORIZER);
    b->vars_n = 4;
}

static void bench_done(struct bench *b)
{
    cel_env_free(b->env);
    arena_free(b->a);
    buf_done(&asked);
}

static void release(void *p)
{
    cel_prog_free(p);
}

/* 0 and the value; -1: it failed, -2: it did not compile; b->said says why. */
static int run(struct bench *b, const char *expr, struct cel_value *ret)
{
    const char *issues = NULL;
    struct cel_prog *p = cel_compile(b->env, expr, strlen(expr), b->a, &issues);
    struct err err;
    uint64_t limit = b->run.cost_limit;
    size_t bytes = b->run.bytes_max;

    b->said = issues;
    if (!p)
        return -2;
    arena_pin(b->a, release, p); /* the value may point into it */
    b->run = (struct cel_run){.arena = b->a, .vars = b->vars, .vars_n = b->vars_n, .cost_limit = limit, .bytes_max = bytes};
    if (cel_eval(p, &b->run, ret, &err) == 0) {
        b->said = cel_text(b->a, *ret);
        return 0;
    }
    b->said = arena_strdup(b->a, err.msg);
    return -1;
}

struct expectation {
    const char *expr, *said;
    int r;
};
static void expect(const struct expectation *e, size_t n, unsigned flags)
{
    struct bench b;
    struct cel_value v;

    bench_init(&b, flags);
    for (size_t i = 0; i < n; i++) {
        int r = run(&b, e[i].expr, &v);
        if (r != e[i].r || !streq(b.said, e[i].said))
            fail_msg("%s\n  said %s (%d)\n  not  %s (%d)", e[i].expr, b.said, r, e[i].said, e[i].r);
    }
    bench_done(&b);
}
#define EXPECT(...)                                                                                \
    do {                                                                                           \
        static const struct expectation e_[] = {__VA_ARGS__};                                      \
        expect(e_, ARRAY_LEN(e_), 0);                                                              \
    } while (0)

static void trees_are_read_by_their_types(void **state)
{
    EXPECT({"self.replicas <= self.max", "true"}, {"self.ratio", "2"}, {"type(self.ratio)", "double"}, {"self.at", "2024-02-29T12:30:00.5+02:00"},
           {"self.at.getHours()", "10"}, {"self.day.getDate()", "29"}, {"self.wait", "5400s"}, {"self.bytes == b'hi'", "true"},
           {"self.maybe", "null"}, {"self.any", "10%"}, {"type(self.any) == string", "true"}, {"self.my__dash__key", "k"},
           {"self.my__dot__key__slash__x__underscores__y", "deep"}, {"self.__namespace__ + self.namespace", "nsns"},
           {"has(self.name) && !has(object.nope)", "true"}, {"object.ports[1].port", "2"}, {"object['my-key']", "k"},
           {"object.nope", "no such key: nope", -1}, {"self.ports.map(p, p.name)", "[x, y]"});
    /* the orders of sets and keyed lists do not count; + is a union */
    EXPECT({"self.set == ['b', 'a']", "true"}, {"['b', 'a'] == self.set", "false"}, {"self.set + ['c', 'a']", "[a, b, c]"},
           {"self.ports == [self.ports[1], self.ports[0]]", "true"}, {"self.ports + [self.ports[0]]", "[{name: x, port: 1}, {name: y, port: 2}]"},
           {"object.set == ['b', 'a']", "false"});
    (void)state;
}

static void data_that_does_not_fit_is_an_error_when_read(void **state)
{
    struct bench b;
    struct cel_value v;
    struct err err;

    static const char wrong[] = "{\"replicas\":\"x\",\"name\":null,\"any\":true,\"at\":\"soon\"}";

    bench_init(&b, 0);
    b.vars[0] = cel_tree(b.a, json_parse(b.a, wrong, sizeof wrong - 1, &err), &SELF);
    assert_int_equal(run(&b, "self.replicas", &v), -1);
    assert_string_equal(b.said, "invalid data, expected int, got string");
    assert_int_equal(run(&b, "self.name", &v), -1);
    assert_string_equal(b.said, "invalid data, got null for schema with nullable=false");
    assert_int_equal(run(&b, "self.any", &v), -1);
    assert_int_equal(run(&b, "self.at", &v), -1);
    assert_int_equal(run(&b, "self.at == timestamp(0) || true", &v), 0); /* || swallows it */
    bench_done(&b);
    (void)state;
}

static void issues_have_their_places(void **state)
{
    EXPECT({"self.nope", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^", -2},
           {"foo + 1", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo + 1\n | ^", -2},
           {"self.name + 1", "ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(string, int)'\n | self.name + 1\n | ..........^", -2},
           {"1 +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', "
                   "'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^", -2},
           {"[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^", -2},
           {"\n\n  '\xe6\x97\xa5' + x", "ERROR: <input>:3:9: undeclared reference to 'x' (in container '')\n |   '\xe6\x97\xa5' + x\n | ...\xef\xbc\x8e....^", -2},
           {"self.name.matches('a**')", "ERROR: <input>:1:19: invalid matches argument\n | self.name.matches('a**')\n | ..................^", -2},
           {"self.replicas.all(x, true)", "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or "
                                          "dynamic)\n | self.replicas.all(x, true)\n | ....^", -2});
    (void)state;
}

static void libraries_of_kubernetes(void **state)
{
    EXPECT({"['b', 'a'].isSorted() || [1, 2].sum() == 3", "true"}, {"[duration('1s'), duration('2m')].max()", "120s"},
           {"'hello world'.find('o w')", "o w"}, {"'a1b22'.findAll('[0-9]+')", "[1, 22]"},
           {"url('https://[::1]:80/a%20b?x=1&x=2').getHostname()", "::1"}, {"url('https://h/?x=1&x=2').getQuery()", "{x: [1, 2]}"},
           {"ip('2001:db8::0001') == ip('2001:DB8::1')", "true"}, {"cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')", "true"},
           {"cidr('10.0.0.0/8').containsIP('10.9.9.9') && !cidr('10.0.0.0/8').containsIP('11.0.0.1')", "true"},
           {"quantity('1.5Gi').isGreaterThan(quantity('1536M'))", "true"}, {"quantity('50k').add(20).asInteger()", "50020"},
           {"semver('1.2.3').isLessThan(semver('1.2.3-rc.1'))", "false"}, {"semver('v1.2', true).patch()", "0"},
           {"format.dns1123Label().validate('x-').hasValue()", "true"}, {"format.dns1123LabelPrefix().validate('x-').hasValue()", "false"},
           {"optional.none().orValue('x')", "x"}, {"object.?nope.?deeper.orValue(1)", "1"},
           {"self.labels.transformMap(k, v, v + k)", "{a: 1a, b: 2b}"}, {"self.labels.all(k, v, k != v)", "true"},
           {"[3, 1, 2].sortBy(x, -x)", "[3, 2, 1]"}, {"[[1], [2, 3]].flatten().reverse()", "[3, 2, 1]"}, {"lists.range(3)", "[0, 1, 2]"},
           {"sets.equivalent([1, 2, 2], [2, 1])", "true"}, {"'%s has %d of %.1f'.format([self.name, self.replicas, 1234.56])", "web has 3 of 1,234.6"},
           {"jsonpatch.escapeKey('a/b~c')", "a~1b~0c"}, {"'tacocat'.lastIndexOf('a', 4)", "1"}, {"'a-b'.split('-').join('+')", "a+b"},
           {"timestamp('2024-03-10T12:00:00Z').getHours('America/New_York')", "8"}, {"duration('1d')", "ERROR: <input>:1:10: invalid duration "
           "argument\n | duration('1d')\n | .........^", -2});
    (void)state;
}

static void objects_are_constructed(void **state)
{
    struct bench b;
    struct cel_value v;
    struct val *out;
    struct err err;

    bench_init(&b, 0);
    assert_int_equal(run(&b, "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: {'x': [1, 2]}}]", &v), 0);
    assert_int_equal(cel_to_val(b.a, v, &out, &err), 0);
    assert_string_equal(json_text(b.a, out, NULL), "[{\"op\":\"add\",\"path\":\"/metadata/labels/a~1b\",\"value\":{\"x\":[1,2]}}]");
    assert_int_equal(run(&b, "JSONPatch{op: 'add', ?path: optional.none()}", &v), 0);
    assert_string_equal(b.said, "{op: add}");
    assert_int_equal(run(&b, "JSONPatch{nope: 1}", &v), -2);
    assert_int_equal(run(&b, "Nothing{}", &v), -2);
    bench_done(&b);
    (void)state;
}

static void lazy_objects_are_made_once(void **state)
{
    struct bench b;
    struct cel_value v;

    bench_init(&b, 0);
    assert_int_equal(run(&b, "has(variables.good)", &v), 0);
    assert_int_equal(lazy_calls, 0);
    assert_int_equal(run(&b, "variables.good + variables.good", &v), 0);
    assert_string_equal(b.said, "84");
    assert_int_equal(lazy_calls, 1);
    assert_int_equal(b.run.cost, 7 + 2 + 2 + 1); /* the callback's, two selections, + */
    assert_int_equal(run(&b, "variables.bad == 1", &v), -1);
    assert_string_equal(b.said, "oops");
    assert_int_equal(run(&b, "variables.bad == 1 || true", &v), 0);
    assert_int_equal(run(&b, "variables.nope", &v), -2);
    bench_done(&b);
    (void)state;
}

static void the_authorizer_is_asked(void **state)
{
    struct bench b;
    struct cel_value v;

    bench_init(&b, 0);
    assert_int_equal(run(&b, "authorizer.group('apps').resource('deployments').subresource('scale').namespace('ns').name('web').check('get').allowed()", &v), 0);
    assert_true(v.b);
    assert_int_equal(b.run.cost, 350000 + 7);
    assert_int_equal(run(&b, "authorizer.serviceAccount('ns', 'robot').path('/healthz').check('post').reason()", &v), 0);
    assert_string_equal(b.said, "may not");
    assert_int_equal(run(&b, "authorizer.group('').resource('pods').labelSelector('a=b').check('list').errored()", &v), 0);
    assert_string_equal(asked.p, "-|apps|deployments|scale|ns|web|get|-|-\n/healthz||||||post|robot|-\n-||pods||||list|-|a=b\n");
    assert_int_equal(run(&b, "authorizer.group('').resource(' ').check('get').allowed()", &v), -1);
    assert_string_equal(b.said, "resource must not be empty");
    bench_done(&b);
    (void)state;
}

static void costs_are_upstreams(void **state)
{
    static const struct {
        const char *expr;
        uint64_t min, max, cost;
    } cases[] = {
        {"self.replicas <= self.max", 5, 5, 5},
        {"self.set.all(x, x.startsWith('a') || x == 'b')", 3, 38, 15},
        {"self.name.matches('^[a-z]+$')", 4, 6, 4},
        {"has(self.name) ? self.name.size() : 0", 1, 4, 4},
        {"self.labels.exists(k, self.labels[k] == '2')", 3, 75, 19},
        {"url('https://example.com').getHost()", 3, 3, 3},
        {"cidr('10.0.0.0/8').containsIP('10.1.1.1')", 3, 6, 3},
    };
    struct bench b;
    struct cel_value v;

    bench_init(&b, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *issues = NULL;
        _auto_(cel_prog_freep) struct cel_prog *p = cel_compile(b.env, cases[i].expr, strlen(cases[i].expr), b.a, &issues);
        assert_non_null(p);
        assert_int_equal(run(&b, cases[i].expr, &v), 0);
        if (cel_prog_cost(p).min != cases[i].min || cel_prog_cost(p).max != cases[i].max || b.run.cost != cases[i].cost)
            print_error("%s: %llu..%llu, cost %llu\n", cases[i].expr, (unsigned long long)cel_prog_cost(p).min,
                     (unsigned long long)cel_prog_cost(p).max, (unsigned long long)b.run.cost);
    }
    bench_done(&b);
    (void)state;
}

static void runs_are_bounded(void **state)
{
    struct bench b;
    struct cel_value v;
    struct timespec start, end;
    static char deep[4000];

    bench_init(&b, 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(run(&b, "lists.range(10000).all(x, lists.range(10000).all(y, x + y >= 0))", &v), -1);
    assert_string_equal(b.said, "operation cancelled: actual cost limit exceeded");
    assert_int_equal(run(&b, "lists.range(900000).map(x, lists.range(900000))", &v), -1);
    b.run.bytes_max = 1 << 20;
    b.run.cost_limit = UINT64_MAX;
    assert_int_equal(run(&b, "lists.range(100000).size()", &v), -1);
    assert_string_equal(b.said, "operation cancelled: the evaluation takes too much memory");
    assert_int_equal(run(&b, "['0123456789'].map(x, x + x).map(x, x + x).map(x, x.replace('', x)).map(x, x.replace('', x)).map(x, x.replace('', x))", &v), -1);
    assert_int_equal(run(&b, "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a|a?)+$')", &v), 0);
    assert_false(v.b);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec - start.tv_sec < 20);
    memset(deep, '(', sizeof deep - 1);
    assert_int_equal(run(&b, deep, &v), -2);
    memset(deep, '-', sizeof deep - 1);
    assert_int_equal(run(&b, deep, &v), -2);
    memset(deep, '[', sizeof deep - 1);
    assert_int_equal(run(&b, deep, &v), -2);
    for (size_t i = 0; i + 2 < sizeof deep; i += 2)
        memcpy(deep + i, "a.", 2);
    assert_int_equal(run(&b, deep, &v), -2);
    bench_done(&b);
    (void)state;
}

static void names_are_escaped_both_ways(void **state)
{
    static const char *const pairs[][2] = {{"a-b", "a__dash__b"}, {"a.b/c", "a__dot__b__slash__c"}, {"a__b", "a__underscores__b"},
        {"namespace", "__namespace__"}, {"in", "__in__"}, {"a_b", "a_b"}, {"_", "_"}, {"a___b", "a__underscores___b"}};
    _auto_(arena_freep) struct arena *a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        assert_string_equal(cel_escape(a, pairs[i][0]), pairs[i][1]);
        assert_string_equal(cel_unescape(a, pairs[i][1], strlen(pairs[i][1])), pairs[i][0]);
    }
    assert_null(cel_escape(a, "1a"));
    assert_null(cel_escape(a, ""));
    assert_null(cel_escape(a, "a b"));
    assert_null(cel_unescape(a, "a__nope__b", 10));
    (void)state;
}

static void regular_expressions_are_re2s(void **state)
{
    static const struct {
        const char *pattern, *text;
        int match;      /* -2: refused */
        const char *why;
    } cases[] = {
        {"^[a-z]([-a-z0-9]*[a-z0-9])?$", "web-1", 1, NULL}, {"a$", "a\n", 0, NULL}, {"(?m)a$", "a\nb", 1, NULL}, {"\\s", "\v", 0, NULL},
        {"[[:alpha:]]\\d{2,3}", "x12", 1, NULL}, {"\\pL+", "\xc3\xa9", 1, NULL}, {"\\Qa.b\\E", "a.b", 1, NULL}, {"(?P<n>x)(?:y)", "xy", 1, NULL},
        {"a{,2}", "a{,2}", 1, NULL}, {"\\x{65e5}", "\xe6\x97\xa5", 1, NULL}, {"[^a]", "\n", 1, NULL}, {".", "\n", 0, NULL}, {"(?s).", "\n", 1, NULL},
        {"(", "", -2, "error parsing regexp: missing closing ): `(`"}, {"a**", "", -2, "error parsing regexp: invalid nested repetition operator: `**`"},
        {"[z-a]", "", -2, "error parsing regexp: invalid character class range: `z-a`"}, {"(?=a)", "", -2, "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
        {"\\1", "", -2, "error parsing regexp: invalid escape sequence: `\\1`"}, {"a{1001}", "", -2, "error parsing regexp: invalid repeat count: `{1001}`"},
        {"[a", "", -2, "error parsing regexp: missing closing ]: `[a`"}, {"*", "", -2, "error parsing regexp: missing argument to repetition operator: `*`"},
        {"a)", "", -2, "error parsing regexp: unexpected ): `a)`"}, {"\\", "", -2, "error parsing regexp: trailing backslash at end of expression: ``"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = {0};
        _auto_(regex_freep) struct regex *re = regex_new(cases[i].pattern, strlen(cases[i].pattern), &err);
        int r = re ? regex_match(re, cases[i].text, strlen(cases[i].text)) : -2;
        if (r != cases[i].match || (cases[i].why && !streq(err.msg, cases[i].why)))
            fail_msg("%s: %d %s", cases[i].pattern, r, err.msg);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_are_read_by_their_types), cmocka_unit_test(data_that_does_not_fit_is_an_error_when_read),
        cmocka_unit_test(issues_have_their_places), cmocka_unit_test(libraries_of_kubernetes),
        cmocka_unit_test(objects_are_constructed), cmocka_unit_test(lazy_objects_are_made_once),
        cmocka_unit_test(the_authorizer_is_asked), cmocka_unit_test(costs_are_upstreams), cmocka_unit_test(runs_are_bounded),
        cmocka_unit_test(names_are_escaped_both_ways), cmocka_unit_test(regular_expressions_are_re2s),
    };
    return cmocka_run_group_tests_name("cel", tests, NULL, NULL);
}
