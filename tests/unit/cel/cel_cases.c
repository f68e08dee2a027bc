/* cel_cases: runs expressions from outside, for tests/cel/run and for comparisons by hand.
 *
 * cel_cases check FILE: lines of JSON, one case each:
 *   {"name", "expr", "check": false when types are not to be looked at, "vars": [{"name", "type", "value"}],
 *    "check_only": it need not run, "want": an expression | "error": true, "type": the type that the checker finds}
 *   Values are expressions, too. Prints what differs and ends with "N passed, N failed".
 * cel_cases print SCHEMA OBJECT: reads {"expr": ...} lines, prints issues, type, cost, value of each, with
 *   the variables self (by the schema), object and some plain ones.
 * cel_cases bench SCHEMA OBJECT EXPR: the time that compiling and running it takes. */
#include "cel/cel.h"
#include "codec/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "r");
    char *s = NULL;

    *n = 0;
    if (!f)
        return NULL;
    s = xmalloc(64 << 20);
    *n = fread(s, 1, (64 << 20) - 1, f);
    s[*n] = '\0';
    fclose(f);
    return s;
}

/* ---- check ---- */

static const struct cel_type *type_read(struct arena *a, const char **s)
{
    static const struct {
        const char *name;
        const struct cel_type *t;
    } plain[] = {{"null", &cel_null_type}, {"bool", &cel_bool_type}, {"int", &cel_int_type}, {"uint", &cel_uint_type},
        {"double", &cel_double_type}, {"string", &cel_string_type}, {"bytes", &cel_bytes_type},
        {"timestamp", &cel_timestamp_type}, {"duration", &cel_duration_type}, {"dyn", &cel_dyn_type}};
    size_t n = strcspn(*s, "(), ");
    const char *name = *s;

    *s += n;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (strlen(plain[i].name) == n && !memcmp(plain[i].name, name, n))
            return plain[i].t;
    if (**s == '(') {
        struct cel_type *t = cel_type_new(a, n == 4   ? CEL_LIST
                                             : n == 3 ? CEL_MAP
                                                      : CEL_OPTIONAL);
        ++*s;
        t->elem = type_read(a, s);
        if (**s == ',') {
            *s += 2;
            t->key = t->elem;
            t->elem = type_read(a, s);
        }
        ++*s;
        return t;
    }
    return &cel_dyn_type;
}

static void prog_release(void *p)
{
    cel_prog_free(p);
}
static void env_release(void *env)
{
    cel_env_free(env);
}

static int evaluate(struct arena *a, const struct cel_env *env, const struct val *expr, const struct cel_value *vars, uint32_t n,
                    struct cel_value *ret, const char **ret_why, const char **ret_type)
{
    const char *issues = NULL;
    struct cel_prog *p = cel_compile(env, val_text(expr, ""), expr ? expr->n : 0, a, &issues);
    struct cel_run run = {.arena = a, .vars = vars, .vars_n = n};
    struct err err;

    if (!p) {
        *ret_why = issues;
        return -2;
    }
    arena_pin(a, prog_release, p);
    if (ret_type)
        *ret_type = cel_type_text(a, cel_prog_type(p));
    if (cel_eval(p, &run, ret, &err) < 0) {
        *ret_why = arena_strdup(a, err.msg);
        return -1;
    }
    return 0;
}

/* The same value of the same type: by an expression, because equality is the language's. */
static bool same(struct arena *a, struct cel_value x, struct cel_value y)
{
    struct cel_env *env = cel_env_new();
    struct cel_value vars[2] = {x, y}, r;
    const char *why = "";
    bool ok;

    arena_pin(a, env_release, env);
    cel_env_set(env, CEL_PLAIN);
    cel_env_var(env, "x", &cel_dyn_type);
    cel_env_var(env, "y", &cel_dyn_type);
    if (x.kind == CEL_DOUBLE && y.kind == CEL_DOUBLE && isnan(x.d) && isnan(y.d))
        return true;
    ok = evaluate(a, env, val_lit(a, "x == y && type(x) == type(y)"), vars, 2, &r, &why, NULL) == 0 && r.b;
    if (x.kind == CEL_DOUBLE && ok)
        ok = signbit(x.d) == signbit(y.d);
    return ok;
}

static const char *check_case(struct arena *a, const struct val *c)
{
    struct cel_env *env = cel_env_new();
    const struct val *vars = val_get(c, "vars");
    struct cel_value values[64], got, want;
    const char *why = "", *type = NULL, *want_type = val_str_at(c, "type", NULL);
    uint32_t n = 0;
    int r;

    arena_pin(a, env_release, env);
    cel_env_set(env, CEL_PLAIN | (val_bool_at(c, "check", true) ? 0 : CEL_UNCHECKED));
    VAL_EACH(vars, v) {
        const char *t = val_str_at(v, "type", "dyn");
        const struct val *value = val_get(v, "value");
        struct cel_env *empty = cel_env_new();
        arena_pin(a, env_release, empty);
        cel_env_set(empty, CEL_PLAIN);
        cel_env_var(env, val_str_at(v, "name", ""), type_read(a, &t));
        values[n] = (struct cel_value){.kind = CEL_ERROR};
        if (value && evaluate(a, empty, value, NULL, 0, values + n, &why, NULL) < 0)
            return arena_printf(a, "the variable %s: %s", val_text(value, ""), why);
        n++;
    }
    r = evaluate(a, env, val_get(c, "expr"), values, n, &got, &why, &type);
    if (val_bool_at(c, "error", false))
        return r < 0 ? NULL : arena_printf(a, "got %s, wanted an error", cel_text(a, got));
    if (r == -2 || (r < 0 && !val_bool_at(c, "check_only", false)))
        return arena_printf(a, "got the error %s", why);
    if (want_type && !streq(type, want_type))
        return arena_printf(a, "type %s, wanted %s", type, want_type);
    if (!val_get(c, "want"))
        return NULL;
    env = cel_env_new();
    arena_pin(a, env_release, env);
    cel_env_set(env, CEL_PLAIN);
    if (evaluate(a, env, val_get(c, "want"), NULL, 0, &want, &why, NULL) < 0)
        return arena_printf(a, "the wanted value: %s", why);
    return same(a, got, want) ? NULL : arena_printf(a, "got %s, wanted %s", cel_text(a, got), cel_text(a, want));
}

static int check(const char *path)
{
    size_t n, passed = 0, failed = 0;
    _auto_(freep) char *text = slurp(path, &n);
    struct err err;

    if (!text)
        return 2;
    for (char *line = text, *end; *line; line = end + 1) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct val *c;
        const char *why;
        end = strchrnul(line, '\n');
        c = json_parse(a, line, (size_t)(end - line), &err);
        why = c ? check_case(a, c) : err.msg;
        if (why)
            printf("%s: %s\n    %s\n", val_str_at(c, "name", "?"), val_str_at(c, "expr", ""), why);
        passed += !why;
        failed += why != NULL;
        if (!*end)
            break;
    }
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed != 0;
}

/* ---- print ---- */

static int64_t limit_of(const struct val *s, const char *name, int64_t otherwise)
{
    const struct val *v = val_get(s, name);
    return val_is(v, VAL_INT) ? v->i : otherwise;
}

enum { REQUEST_MAX = 3 * 1024 * 1024 };

/* A schema as a type, with the sizes that Kubernetes reckons; ret_min: the least bytes in JSON. */
static struct cel_type *schema_type(struct arena *a, const struct val *s, const char *name, int64_t *ret_min)
{
    const char *type = val_str_at(s, "type", ""), *format = val_str_at(s, "format", "");
    struct cel_type *t;
    int64_t min = 0;

    if (val_bool_at(s, "x-kubernetes-int-or-string", false)) {
        t = cel_type_new(a, CEL_DYN);
        t->int_or_string = true;
        t->max_elements = REQUEST_MAX - 2;
        *ret_min = 1;
        return t;
    }
    if (streq(type, "array")) {
        t = cel_type_list(a, schema_type(a, val_get(s, "items"), arena_printf(a, "%s.@idx", name), &min));
        t->max_elements = limit_of(s, "maxItems", (REQUEST_MAX - 2) / (min + 1));
        *ret_min = 2;
        return t;
    }
    if (streq(type, "object") && val_is(val_get(s, "additionalProperties"), VAL_MAP)) {
        t = cel_type_map(a, &cel_string_type, schema_type(a, val_get(s, "additionalProperties"), arena_printf(a, "%s.@elem", name), &min));
        t->max_elements = limit_of(s, "maxProperties", (REQUEST_MAX - 2) / (min + 6));
        *ret_min = 2;
        return t;
    }
    if (streq(type, "object")) {
        const struct val *props = val_get(s, "properties");
        struct cel_field *fields = arena_array(a, struct cel_field, val_len(props) + 1);
        *ret_min = 2;
        t = cel_type_new(a, CEL_OBJECT);
        t->name = name;
        t->fields = fields;
        t->max_elements = 0;
        VAL_EACH_MEMBER(props, m) {
            fields[t->fields_n].name = m->key;
            fields[t->fields_n++].type = schema_type(a, &m->v, arena_printf(a, "%s.%s", name, m->key), &min);
            VAL_EACH(val_get(s, "required"), r) {
                if (streq(val_text(r, ""), m->key))
                    *ret_min += (int64_t)m->n + min + 4;
            }
        }
        return t;
    }
    if (streq(type, "string")) {
        t = cel_type_new(a, streq(format, "date-time") || streq(format, "date") ? CEL_TIMESTAMP
                            : streq(format, "duration")                         ? CEL_DURATION
                            : streq(format, "byte")                             ? CEL_BYTES
                                                                                : CEL_STRING);
        t->date = streq(format, "date");
        t->max_elements = t->kind == CEL_STRING || t->kind == CEL_BYTES ? REQUEST_MAX - 2 : t->date ? 12 : 32;
        if (val_get(s, "maxLength"))
            t->max_elements = limit_of(s, "maxLength", 0) * (t->kind == CEL_STRING ? 4 : 1);
        *ret_min = 2;
        return t;
    }
    *ret_min = streq(type, "boolean") ? 4 : 1;
    return (struct cel_type *)(streq(type, "boolean")  ? &cel_bool_type
                               : streq(type, "number") ? &cel_double_type
                                                       : &cel_int_type);
}

static void print_one(struct arena *a, const struct cel_env *env, const struct cel_value *vars, uint32_t n, const char *expr)
{
    struct val *out = val_map(a);
    const char *issues = NULL, *text;
    struct cel_prog *p = cel_compile(env, expr, strlen(expr), a, &issues);
    struct cel_run run = {.arena = a, .vars = vars, .vars_n = n};
    struct cel_value v;
    struct err err;

    val_put_str(a, out, "expr", expr);
    if (!p) {
        val_put_str(a, out, "issues", issues);
    } else {
        val_put_str(a, out, "type", cel_type_text(a, cel_prog_type(p)));
        val_put_str(a, out, "min", arena_printf(a, "%" PRIu64, cel_prog_cost(p).min));
        val_put_str(a, out, "max", arena_printf(a, "%" PRIu64, cel_prog_cost(p).max));
        if (cel_eval(p, &run, &v, &err) < 0)
            val_put_str(a, out, "err", err.msg);
        else
            val_put_str(a, out, "value", cel_text(a, v));
        val_put_str(a, out, "cost", arena_printf(a, "%" PRIu64, run.cost));
        cel_prog_free(p);
    }
    text = json_text(a, out, NULL);
    puts(text);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void bench_one(const struct cel_env *env, const struct cel_value *vars, uint32_t n, const char *expr)
{
    enum { RUNS = 200000, COMPILES = 2000 };
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *issues = NULL;
    struct cel_prog *p = NULL;
    struct cel_value v;
    struct err err;
    int64_t start = now_ns();

    for (int i = 0; i < COMPILES; i++) {
        cel_prog_free(p);
        p = cel_compile(env, expr, strlen(expr), a, &issues);
        if (!p) {
            puts(issues);
            return;
        }
    }
    printf("compile %.1f us, %zu bytes\n", (double)(now_ns() - start) / COMPILES / 1000, cel_prog_bytes(p));
    start = now_ns();
    for (int i = 0; i < RUNS; i++) {
        struct cel_run run = {.arena = a, .vars = vars, .vars_n = n};
        if (cel_eval(p, &run, &v, &err) < 0) {
            puts(err.msg);
            break;
        }
        if (i % 100 == 99)
            arena_reset(a);
    }
    printf("run %.0f ns\n", (double)(now_ns() - start) / RUNS);
    cel_prog_free(p);
}

static int print(const char *schema_path, const char *object_path, const char *bench)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    size_t sn, on;
    _auto_(freep) char *schema_text = slurp(schema_path, &sn), *object_text = slurp(object_path, &on), *line = NULL;
    struct err err;
    struct val *schema = json_parse(a, schema_text ? schema_text : "", sn, &err);
    struct val *object = json_parse(a, object_text ? object_text : "", on, &err);
    _auto_(cel_env_freep) struct cel_env *env = cel_env_new();
    static const char plain[] = "{\"ls\":[\"a\",\"b\",\"c\"],\"li\":[3,1,2],\"m\":{\"one\":1,\"two\":2}}";
    struct val *p = json_parse(a, plain, strlen(plain), &err);
    struct cel_type *self;
    size_t cap = 0;
    int64_t min;

    if (!schema || !object)
        return 2;
    self = schema_type(a, schema, "selfType", &min);
    {
        const struct cel_type *ls = cel_type_list(a, &cel_string_type), *li = cel_type_list(a, &cel_int_type),
                              *m = cel_type_map(a, &cel_string_type, &cel_int_type);
        struct cel_value vars[] = {cel_tree(a, object, self), cel_tree(a, object, NULL), cel_bool(true), cel_int(5),
            cel_str("hello world"), cel_tree(a, val_get(p, "ls"), ls), cel_tree(a, val_get(p, "li"), li), cel_tree(a, val_get(p, "m"), m)};
        cel_env_var(env, "self", self);
        cel_env_var(env, "object", &cel_dyn_type);
        cel_env_var(env, "b", &cel_bool_type);
        cel_env_var(env, "i", &cel_int_type);
        cel_env_var(env, "s", &cel_string_type);
        cel_env_var(env, "ls", ls);
        cel_env_var(env, "li", li);
        cel_env_var(env, "m", m);
        if (bench)
            bench_one(env, vars, ARRAY_LEN(vars), bench);
        for (ssize_t n; !bench && (n = getline(&line, &cap, stdin)) > 0;) {
            _auto_(arena_freep) struct arena *one = arena_new();
            struct val *c = json_parse(one, line, (size_t)n, &err);
            if (c)
                print_one(one, env, vars, ARRAY_LEN(vars), val_str_at(c, "expr", ""));
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && streq(argv[1], "check"))
        return check(argv[2]);
    if (argc == 4 && streq(argv[1], "print"))
        return print(argv[2], argv[3], NULL);
    if (argc == 5 && streq(argv[1], "bench"))
        return print(argv[2], argv[3], argv[4]);
    fprintf(stderr, "usage: cel_cases check FILE | print SCHEMA OBJECT | bench SCHEMA OBJECT EXPR\n");
    return 2;
}
