/* cel/type.c - types, their names, and the table of functions. */
#include "cel/cel_int.h"

#include "base/buf.h"
#include "base/map.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>

#define PLAIN(name, k, max) const struct cel_type name = {.kind = k, .max_elements = max}
PLAIN(cel_error_type, CEL_ERROR, -1);
PLAIN(cel_null_type, CEL_NULL, 0);
PLAIN(cel_bool_type, CEL_BOOL, 0);
PLAIN(cel_int_type, CEL_INT, 0);
PLAIN(cel_uint_type, CEL_UINT, 0);
PLAIN(cel_double_type, CEL_DOUBLE, 0);
PLAIN(cel_string_type, CEL_STRING, 0);
PLAIN(cel_bytes_type, CEL_BYTES, 0);
PLAIN(cel_timestamp_type, CEL_TIMESTAMP, 0);
PLAIN(cel_duration_type, CEL_DURATION, 0);
PLAIN(cel_dyn_type, CEL_DYN, 0);
PLAIN(cel_type_type, CEL_TYPE, -1);
const struct cel_type cel_list_dyn_type = {.kind = CEL_LIST, .elem = &cel_dyn_type, .max_elements = -1};
const struct cel_type cel_map_dyn_type = {
    .kind = CEL_MAP, .key = &cel_string_type, .elem = &cel_dyn_type, .max_elements = -1};

#define OPAQUE(var, text) const struct cel_type var = {.kind = CEL_OPAQUE, .name = text, .max_elements = -1}
OPAQUE(cel_ip_type, "net.IP");
OPAQUE(cel_cidr_type, "net.CIDR");
OPAQUE(cel_url_type, "kubernetes.URL");
OPAQUE(cel_quantity_type, "kubernetes.Quantity");
OPAQUE(cel_semver_type, "kubernetes.Semver");
OPAQUE(cel_format_type, "kubernetes.NamedFormat");
OPAQUE(cel_path_check_type, "kubernetes.authorization.PathCheck");
OPAQUE(cel_group_check_type, "kubernetes.authorization.GroupCheck");
OPAQUE(cel_resource_check_type, "kubernetes.authorization.ResourceCheck");
OPAQUE(cel_decision_type, "kubernetes.authorization.Decision");
OPAQUE(cel_authorizer_type, "kubernetes.authorization.Authorizer");

static const struct cel_field jsonpatch_fields[] = {
    {"op", &cel_string_type}, {"path", &cel_string_type}, {"from", &cel_string_type}, {"value", &cel_dyn_type}};
const struct cel_type cel_jsonpatch_type = {.kind = CEL_OBJECT, .name = "JSONPatch", .fields = jsonpatch_fields,
                                            .fields_n = ARRAY_LEN(jsonpatch_fields), .max_elements = -1};

struct cel_type *cel_type_new(struct arena *a, enum cel_kind kind)
{
    struct cel_type *t = arena_new_of(a, struct cel_type);

    t->kind = (uint8_t)kind;
    t->max_elements = -1;
    return t;
}
struct cel_type *cel_type_list(struct arena *a, const struct cel_type *elem)
{
    struct cel_type *t = cel_type_new(a, CEL_LIST);

    t->elem = elem;
    return t;
}
struct cel_type *cel_type_map(struct arena *a, const struct cel_type *key, const struct cel_type *elem)
{
    struct cel_type *t = cel_type_new(a, CEL_MAP);

    t->key = key;
    t->elem = elem;
    return t;
}

const struct cel_type *cel_type_field(const struct cel_type *t, const char *name, size_t n)
{
    if (!t->fields)
        return t->field ? t->field(t, name, n) : NULL;
    for (uint32_t i = 0; i < t->fields_n; i++)
        if (strlen(t->fields[i].name) == n && !memcmp(t->fields[i].name, name, n))
            return t->fields[i].type;
    return NULL;
}

bool type_is_dyn(const struct cel_type *t)
{
    return t->kind == CEL_DYN;
}

static void type_write(struct buf *b, const struct cel_type *t, int depth)
{
    static const char *const names[] = {[CEL_ERROR] = "!error!", [CEL_NULL] = "null", [CEL_BOOL] = "bool",
        [CEL_INT] = "int", [CEL_UINT] = "uint", [CEL_DOUBLE] = "double", [CEL_STRING] = "string",
        [CEL_BYTES] = "bytes", [CEL_TIMESTAMP] = "timestamp", [CEL_DURATION] = "duration",
        [CEL_LIST] = "list", [CEL_MAP] = "map", [CEL_OBJECT] = "object", [CEL_TYPE] = "type",
        [CEL_OPTIONAL] = "optional_type", [CEL_OPAQUE] = "opaque", [CEL_DYN] = "dyn", [CEL_PARAM] = "param"};

    buf_adds(b, t->name ? t->name : names[t->kind]);
    if (!t->elem || depth > 32)
        return;
    buf_addc(b, '(');
    if (t->key) {
        type_write(b, t->key, depth + 1);
        buf_adds(b, ", ");
    }
    type_write(b, t->elem, depth + 1);
    buf_addc(b, ')');
}

const char *cel_type_text(struct arena *a, const struct cel_type *t)
{
    struct buf b;
    const char *text;

    buf_init(&b, 4096);
    type_write(&b, t, 0);
    text = arena_strndup(a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

bool cel_type_fits(const struct cel_type *from, const struct cel_type *to)
{
    if (type_is_dyn(from) || type_is_dyn(to) || from->kind == CEL_ERROR || to->kind == CEL_ERROR)
        return true;
    if (from->kind == CEL_NULL)
        return to->nullable || to->kind == CEL_NULL || to->kind == CEL_OBJECT || to->kind == CEL_OPAQUE ||
               to->kind == CEL_OPTIONAL || to->kind == CEL_TIMESTAMP || to->kind == CEL_DURATION;
    if (from->kind != to->kind)
        return false;
    if (from->name || to->name)
        if (!streq0(from->name, to->name))
            return false;
    if (from->kind == CEL_TYPE)
        return true;
    if (from->key && to->key && !cel_type_fits(from->key, to->key))
        return false;
    return !from->elem || !to->elem || cel_type_fits(from->elem, to->elem);
}

const struct cel_type *type_by_name(const struct cel_env *env, const char *name, size_t n)
{
    static const struct {
        const char *name;
        const struct cel_type *type;
    } known[] = {{"bool", &cel_bool_type}, {"int", &cel_int_type}, {"uint", &cel_uint_type},
        {"double", &cel_double_type}, {"string", &cel_string_type}, {"bytes", &cel_bytes_type},
        {"list", &cel_list_dyn_type}, {"map", &cel_map_dyn_type}, {"null_type", &cel_null_type},
        {"type", &cel_type_type}, {"google.protobuf.Timestamp", &cel_timestamp_type},
        {"google.protobuf.Duration", &cel_duration_type}, {"net.IP", &cel_ip_type},
        {"net.CIDR", &cel_cidr_type}, {"kubernetes.URL", &cel_url_type},
        {"kubernetes.Quantity", &cel_quantity_type}, {"kubernetes.Semver", &cel_semver_type},
        {"kubernetes.NamedFormat", &cel_format_type}};

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strlen(known[i].name) == n && !memcmp(known[i].name, name, n))
            return known[i].type;
    if (env->jsonpatch && n == 9 && !memcmp(name, "JSONPatch", 9))
        return &cel_jsonpatch_type;
    return env->find ? env->find(env->find_data, name, n) : NULL;
}

/* ---- escaping ---- */

static const struct {
    const char *raw, *word;
} escapes[] = {{"__", "__underscores__"}, {".", "__dot__"}, {"-", "__dash__"}, {"/", "__slash__"}};

const char *cel_escape(struct arena *a, const char *name)
{
    struct buf b;
    const char *r = NULL;

    if (!*name || (*name >= '0' && *name <= '9'))
        return NULL;
    if (reserved_word(name, strlen(name)))
        return arena_printf(a, "__%s__", name);
    buf_init(&b, 1 << 20);
    for (const char *s = name; *s;) {
        size_t i;
        for (i = 0; i < ARRAY_LEN(escapes); i++)
            if (str_starts(s, escapes[i].raw))
                break;
        if (i < ARRAY_LEN(escapes)) {
            buf_adds(&b, escapes[i].word);
            s += strlen(escapes[i].raw);
        } else if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '_') {
            buf_addc(&b, *s++);
        } else {
            goto out;
        }
    }
    r = arena_strndup(a, b.p, b.n);
out:
    buf_done(&b);
    return r;
}

const char *cel_unescape(struct arena *a, const char *ident, size_t n)
{
    char *out = arena_raw(a, n + 1);
    size_t o = 0;

    for (size_t i = 0; i < n;) {
        size_t end = i + 2, k;
        if (i + 4 >= n || ident[i] != '_' || ident[i + 1] != '_' || ident[i + 2] == '_') {
            out[o++] = ident[i++];
            continue;
        }
        while (end < n && ident[end] != '_')
            end++;
        if (end + 1 >= n || ident[end + 1] != '_') { /* no second pair: as it stands */
            out[o++] = ident[i++];
            continue;
        }
        for (k = 0; k < ARRAY_LEN(escapes); k++)
            if (strlen(escapes[k].word) == end + 2 - i && !memcmp(escapes[k].word, ident + i, end + 2 - i))
                break;
        if (k < ARRAY_LEN(escapes)) {
            memcpy(out + o, escapes[k].raw, strlen(escapes[k].raw));
            o += strlen(escapes[k].raw);
        } else if (reserved_word(ident + i + 2, end - i - 2) && i == 0 && end + 2 == n) {
            memcpy(out, ident + 2, end - 2);
            o = end - 2;
        } else {
            return NULL;
        }
        i = end + 2;
    }
    out[o] = '\0';
    return out;
}

/* ---- functions ---- */

FN(fn_not); FN(fn_add); FN(fn_div); FN(fn_mod); FN(fn_mul); FN(fn_neg); FN(fn_sub); FN(fn_less); FN(fn_less_eq);
FN(fn_greater); FN(fn_greater_eq); FN(fn_in); FN(fn_size); FN(fn_type); FN(fn_bool); FN(fn_bytes); FN(fn_double);
FN(fn_duration); FN(fn_dyn); FN(fn_int); FN(fn_string); FN(fn_timestamp); FN(fn_uint); FN(fn_contains); FN(fn_ends);
FN(fn_starts); FN(fn_matches); FN(fn_time); FN(fn_opt_of); FN(fn_opt_non_zero); FN(fn_opt_none); FN(fn_opt_value);
FN(fn_opt_has); FN(fn_last); FN(fn_first); FN(fn_unwrap); FN(fn_map_insert); FN(fn_char_at); FN(fn_index_of);
FN(fn_last_index_of); FN(fn_lower); FN(fn_upper); FN(fn_replace); FN(fn_split); FN(fn_substring); FN(fn_trim);
FN(fn_format); FN(fn_quote); FN(fn_join); FN(fn_is_sorted); FN(fn_sum); FN(fn_max); FN(fn_min); FN(fn_slice);
FN(fn_flatten); FN(fn_sort); FN(fn_sort_by); FN(fn_range); FN(fn_reverse); FN(fn_distinct); FN(fn_sets_contains);
FN(fn_sets_equivalent); FN(fn_sets_intersects); FN(fn_find); FN(fn_find_all); FN(fn_url); FN(fn_url_part);
FN(fn_url_query); FN(fn_is_url); FN(fn_ip); FN(fn_ip_test); FN(fn_ip_canonical); FN(fn_is_ip); FN(fn_cidr);
FN(fn_contains_ip); FN(fn_contains_cidr); FN(fn_prefix_length); FN(fn_masked); FN(fn_is_cidr); FN(fn_quantity);
FN(fn_is_quantity); FN(fn_quantity_sign); FN(fn_is_greater); FN(fn_is_less); FN(fn_compare_to);
FN(fn_quantity_float); FN(fn_quantity_int); FN(fn_quantity_is_int); FN(fn_quantity_add); FN(fn_semver);
FN(fn_is_semver); FN(fn_semver_part); FN(fn_format_validate); FN(fn_format_named); FN(fn_format_constant);
FN(fn_authz_build); FN(fn_authz_check); FN(fn_decision); FN(fn_escape_key);

/* The table as it is written; built once into `functions`. */
static const struct row {
    const char *func; /* NULL: an overload of the function before */
    enum op op;
    enum lib lib;
    cel_fn fn;
    const char *id, *sig;
    bool member;
} rows[] = {
#define FUNC(name, op_, lib_, fn_) {.func = name, .op = op_, .lib = LIB_##lib_, .fn = fn_},
#define OVER(id_, member_, sig_) {.id = id_, .sig = sig_, .member = member_},
#include "cel/funcs.def"
#undef FUNC
#undef OVER
};

static struct map functions; /* name -> struct func *; made once, lives as long as the process */
static pthread_once_t functions_once = PTHREAD_ONCE_INIT;

static const struct cel_type *sig_type(struct arena *a, const char **s, const struct cel_type *params)
{
    static const struct {
        char c;
        const struct cel_type *t;
    } plain[] = {{'b', &cel_bool_type}, {'i', &cel_int_type}, {'u', &cel_uint_type}, {'d', &cel_double_type},
        {'s', &cel_string_type}, {'y', &cel_bytes_type}, {'t', &cel_timestamp_type},
        {'r', &cel_duration_type}, {'n', &cel_null_type}, {'*', &cel_dyn_type}, {'I', &cel_ip_type},
        {'C', &cel_cidr_type}, {'U', &cel_url_type}, {'Q', &cel_quantity_type}, {'V', &cel_semver_type},
        {'F', &cel_format_type}, {'Z', &cel_authorizer_type}, {'P', &cel_path_check_type},
        {'G', &cel_group_check_type}, {'R', &cel_resource_check_type}, {'D', &cel_decision_type}};
    char c = *(*s)++;
    struct cel_type *t;

    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (plain[i].c == c)
            return plain[i].t;
    if (c == 'A' || c == 'B')
        return params + (c - 'A');
    if (c == 'M') {
        const struct cel_type *key = sig_type(a, s, params);
        return cel_type_map(a, key, sig_type(a, s, params));
    }
    ASSERT(c == 'L' || c == 'O' || c == 'T');
    t = cel_type_new(a, c == 'L' ? CEL_LIST : c == 'O' ? CEL_OPTIONAL : CEL_TYPE);
    t->elem = sig_type(a, s, params);
    return t;
}

/* Functions that upstream binds as a whole or that look at their arguments themselves. */
static bool one_implementation(const char *name)
{
    static const char *const names[] = {"size", "sort", "contains", "startsWith", "endsWith", "matches", "find", "findAll"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i], name))
            return true;
    return false;
}

static void functions_make(void)
{
    static const struct cel_type params[] = {{.kind = CEL_PARAM, .name = "A", .max_elements = 0},
                                             {.kind = CEL_PARAM, .name = "B", .max_elements = 1}};
    struct arena *a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(rows);) {
        const struct row *r = rows + i++;
        struct func *f = arena_new_of(a, struct func);
        size_t first = i;
        struct overload *over;
        *f = (struct func){.name = r->func, .op = (uint8_t)r->op, .lib = (uint8_t)r->lib, .fn = r->fn};
        while (i < ARRAY_LEN(rows) && !rows[i].func)
            i++;
        f->over_n = (uint32_t)(i - first);
        f->over = over = arena_array(a, struct overload, f->over_n);
        for (size_t k = 0; k < f->over_n; k++) {
            const char *s = rows[first + k].sig;
            over[k].id = rows[first + k].id;
            over[k].func = f;
            over[k].member = rows[first + k].member;
            over[k].params = strchr(s, 'B') ? 2 : strchr(s, 'A') ? 1 : 0;
            while (*s != ':')
                over[k].args[over[k].n++] = sig_type(a, &s, params);
            s++;
            over[k].result = sig_type(a, &s, params);
        }
        cost_class(f, over);
        f->regex = streq(f->name, "matches") || streq(f->name, "find") || streq(f->name, "findAll");
        f->guarded = isalpha((unsigned char)*f->name) && !one_implementation(f->name);
        map_put(&functions, f->name, f);
    }
    /* the arena lives on */
    static struct arena *keep;
    keep = a;
    (void)keep;
}

const struct func *func_find(const struct cel_env *env, const char *name, size_t n)
{
    const struct func *f = map_getn(&functions, name, n);

    return f && f->lib == LIB_JSONPATCH && !env->jsonpatch ? NULL : f;
}

/* ---- environments ---- */

struct cel_env *cel_env_new(void)
{
    struct arena *a = arena_new();
    struct cel_env *env = arena_new_of(a, struct cel_env);

    pthread_once(&functions_once, functions_make);
    env->arena = a;
    return env;
}

void *cel_env_free(struct cel_env *env)
{
    if (env)
        arena_free(env->arena);
    return NULL;
}

int cel_env_var(struct cel_env *env, const char *name, const struct cel_type *type)
{
    if (env->vars_n == env->vars_cap) {
        uint32_t cap = env->vars_cap ? env->vars_cap * 2 : 8;
        struct env_var *v = arena_array(env->arena, struct env_var, cap);
        if (env->vars_n)
            memcpy(v, env->vars, env->vars_n * sizeof *v);
        env->vars = v;
        env->vars_cap = cap;
    }
    env->vars[env->vars_n] = (struct env_var){arena_strdup(env->arena, name), type};
    return (int)env->vars_n++;
}

void cel_env_types(struct cel_env *env, cel_type_find find, void *data)
{
    env->find = find;
    env->find_data = data;
}
void cel_env_jsonpatch(struct cel_env *env)
{
    env->jsonpatch = true;
}
void cel_env_set(struct cel_env *env, unsigned flags)
{
    env->flags |= flags;
}
