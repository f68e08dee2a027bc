/* schema/admitexpr.c - see admitexpr.h. */
#include "schema/admitexpr.h"

/* ---------------------------------------------------------------- types */

#define OBJECT(f, n_)                                                                              \
    {.kind = CEL_OBJECT, .name = n_, .fields = f, .fields_n = ARRAY_LEN(f), .max_elements = -1}

static const struct cel_type strings = {.kind = CEL_LIST, .elem = &cel_string_type, .max_elements = -1};
static const struct cel_type string_map = {
    .kind = CEL_MAP, .key = &cel_string_type, .elem = &cel_string_type, .max_elements = -1};
static const struct cel_type strings_map = {
    .kind = CEL_MAP, .key = &cel_string_type, .elem = &strings, .max_elements = -1};

static const struct cel_field kind_fields[] = {
    {"group", &cel_string_type}, {"version", &cel_string_type}, {"kind", &cel_string_type}};
static const struct cel_type kind_type = OBJECT(kind_fields, "kubernetes.GroupVersionKind");
static const struct cel_field resource_fields[] = {
    {"group", &cel_string_type}, {"version", &cel_string_type}, {"resource", &cel_string_type}};
static const struct cel_type gvr_type = OBJECT(resource_fields, "kubernetes.GroupVersionResource");
static const struct cel_field user_fields[] = {
    {"username", &cel_string_type}, {"uid", &cel_string_type}, {"groups", &strings}, {"extra", &strings_map}};
static const struct cel_type user_type = OBJECT(user_fields, "kubernetes.UserInfo");
static const struct cel_field request_fields[] = {
    {"kind", &kind_type}, {"resource", &gvr_type}, {"subResource", &cel_string_type},
    {"requestKind", &kind_type}, {"requestResource", &gvr_type}, {"requestSubResource", &cel_string_type},
    {"name", &cel_string_type}, {"namespace", &cel_string_type}, {"operation", &cel_string_type},
    {"userInfo", &user_type}, {"dryRun", &cel_bool_type}, {"options", &cel_dyn_type}};
const struct cel_type admit_request_type = OBJECT(request_fields, "kubernetes.AdmissionRequest");

static const struct cel_field ns_spec_fields[] = {{"finalizers", &strings}};
static const struct cel_type ns_spec_type = OBJECT(ns_spec_fields, "kubernetes.NamespaceSpec");
static const struct cel_field ns_condition_fields[] = {
    {"status", &cel_string_type}, {"type", &cel_string_type}, {"lastTransitionTime", &cel_timestamp_type},
    {"message", &cel_string_type}, {"reason", &cel_string_type}};
static const struct cel_type ns_condition_type = OBJECT(ns_condition_fields, "kubernetes.NamespaceCondition");
static const struct cel_type ns_conditions = {.kind = CEL_LIST, .elem = &ns_condition_type, .max_elements = -1};
static const struct cel_field ns_status_fields[] = {{"conditions", &ns_conditions}, {"phase", &cel_string_type}};
static const struct cel_type ns_status_type = OBJECT(ns_status_fields, "kubernetes.NamespaceStatus");
static const struct cel_field ns_meta_fields[] = {
    {"name", &cel_string_type}, {"generateName", &cel_string_type}, {"namespace", &cel_string_type},
    {"labels", &string_map}, {"annotations", &string_map}, {"UID", &cel_string_type},
    {"creationTimestamp", &cel_timestamp_type}, {"deletionGracePeriodSeconds", &cel_int_type},
    {"deletionTimestamp", &cel_timestamp_type}, {"generation", &cel_int_type},
    {"resourceVersion", &cel_string_type}, {"finalizers", &strings}};
static const struct cel_type ns_meta_type = OBJECT(ns_meta_fields, "kubernetes.NamespaceMetadata");
static const struct cel_field ns_fields[] = {
    {"metadata", &ns_meta_type}, {"spec", &ns_spec_type}, {"status", &ns_status_type}};
const struct cel_type admit_namespace_type = OBJECT(ns_fields, "kubernetes.Namespace");

/* Object{...} of mutations: any name below "Object", any field, not checked before the result is merged. */
static const struct cel_type *any_field(const struct cel_type *t, const char *name, size_t n)
{
    (void)t, (void)name, (void)n;
    return &cel_dyn_type;
}

/* ---------------------------------------------------------------- environments */

static const struct cel_type *variable_type(const struct cel_type *t, const char *name, size_t n)
{
    const struct exprs *x = t->data;

    for (uint32_t i = x->vars_n; i-- > 0;) /* the last of a name counts */
        if (strlen(x->vars[i].field.name) == n && memcmp(x->vars[i].field.name, name, n) == 0)
            return x->vars[i].field.type;
    return NULL;
}

static const struct cel_type *find_type(void *data, const char *name, size_t n)
{
    struct exprs *x = data;
    struct object_type *o;

    if (n < 6 || memcmp(name, "Object", 6) != 0 || (n > 6 && name[6] != '.'))
        return NULL;
    for (o = x->objects; o; o = o->next)
        if (strlen(o->type.name) == n && memcmp(o->type.name, name, n) == 0)
            return &o->type;
    o = arena_new_of(x->arena, struct object_type);
    o->type = (struct cel_type){.kind = CEL_OBJECT, .name = arena_strndup(x->arena, name, n),
                                .field = any_field, .max_elements = -1};
    o->next = x->objects;
    x->objects = o;
    return &o->type;
}

struct exprs *exprs_new(bool params, bool variables)
{
    struct arena *a = arena_new();
    struct exprs *x = arena_new_of(a, struct exprs);

    x->arena = a;
    x->params = params;
    x->variables = variables;
    x->type = (struct cel_type){.kind = CEL_OBJECT, .name = "kubernetes.variables", .field = variable_type,
                                .data = x, .max_elements = -1};
    return x;
}

struct exprs *exprs_checking(bool params, const struct cel_type *object, const struct cel_type *params_type)
{
    struct exprs *x = exprs_new(params, true);

    x->object_type = object;
    x->params_type = params_type;
    x->checking = true;
    return x;
}

void *exprs_free(struct exprs *x)
{
    if (!x)
        return NULL;
    for (struct expr_list *l = x->all; l; l = l->next)
        cel_prog_free(l->e.prog);
    for (int i = 0; i < EXPR_FLAVOURS; i++)
        cel_env_free(x->env[i]);
    return arena_free(x->arena);
}

struct arena *exprs_arena(struct exprs *x)
{
    return x->arena;
}

size_t exprs_bytes(const struct exprs *x)
{
    return x->bytes + arena_bytes(x->arena);
}

static struct cel_env *env_of(struct exprs *x, enum expr_flavour f)
{
    struct cel_env *env = x->env[f];
    int8_t *at = x->at[f];

    if (env)
        return env;
    env = x->env[f] = cel_env_new();
    memset(at, -1, EXPR_SLOTS);
    at[SLOT_OBJECT] = (int8_t)cel_env_var(env, "object", x->object_type ? x->object_type : &cel_dyn_type);
    at[SLOT_OLD] = (int8_t)cel_env_var(env, "oldObject", x->object_type ? x->object_type : &cel_dyn_type);
    at[SLOT_NAMESPACE] = (int8_t)cel_env_var(env, "namespaceObject", &admit_namespace_type);
    at[SLOT_REQUEST] = (int8_t)cel_env_var(env, "request", &admit_request_type);
    if (x->params)
        at[SLOT_PARAMS] = (int8_t)cel_env_var(env, "params", x->params_type ? x->params_type : &cel_dyn_type);
    if (x->variables)
        at[SLOT_VARIABLES] = (int8_t)cel_env_var(env, "variables", &x->type);
    if (f != FLAVOUR_PLAIN) {
        at[SLOT_AUTHORIZER] = (int8_t)cel_env_var(env, "authorizer", &cel_authorizer_type);
        at[SLOT_RESOURCE] = (int8_t)cel_env_var(env, "authorizer.requestResource", &cel_resource_check_type);
    }
    if (f == FLAVOUR_MUTATION) {
        cel_env_types(env, find_type, x);
        cel_env_jsonpatch(env);
    }
    return env;
}

enum expr_flavour expr_flavour_of(enum expr_use use)
{
    return use == EXPR_MESSAGE ? FLAVOUR_PLAIN : use == EXPR_APPLY || use == EXPR_JSONPATCH ? FLAVOUR_MUTATION : FLAVOUR_AUTHORIZER;
}

/* ---------------------------------------------------------------- compiling */

/* NULL: the type is what the use wants, else why not. */
static const char *unwanted(struct exprs *x, enum expr_use use, const struct cel_type *t)
{
    static const char *const wanted[] = {
        [EXPR_MATCH] = "bool", [EXPR_VALIDATION] = "bool", [EXPR_MESSAGE] = "string", [EXPR_APPLY] = "Object",
        [EXPR_JSONPATCH] = "list(JSONPatch)"};
    const char *is = cel_type_text(x->arena, t);

    if (use == EXPR_VARIABLE || x->checking)
        return NULL;
    if (use == EXPR_AUDIT)
        return streq(is, "string") || t->kind == CEL_NULL
                   ? NULL : arena_printf(x->arena, "must evaluate to one of [string null_type] but got %s", is);
    return streq(is, wanted[use]) ? NULL : arena_printf(x->arena, "must evaluate to %s but got %s", wanted[use], is);
}

static void compile(struct exprs *x, struct expr *e)
{
    const char *issues = "";

    e->prog = cel_compile(env_of(x, expr_flavour_of(e->use)), e->text, strlen(e->text), x->arena, &issues);
    if (!e->prog) {
        e->why = arena_printf(x->arena, x->checking ? "%s" : "compilation failed: %s", issues);
        return;
    }
    if ((e->why = unwanted(x, e->use, cel_prog_type(e->prog))))
        e->prog = cel_prog_free(e->prog);
    else
        x->bytes += cel_prog_bytes(e->prog);
}

/* The type that a variable has for those that name it: what is no scalar, list or map is not checked. */
static const struct cel_type *declared(struct arena *a, const struct cel_type *t)
{
    if (t->kind == CEL_LIST)
        return cel_type_list(a, declared(a, t->elem));
    if (t->kind == CEL_MAP)
        return cel_type_map(a, declared(a, t->key), declared(a, t->elem));
    return t->kind >= CEL_NULL && t->kind <= CEL_DURATION ? t : &cel_dyn_type;
}

const struct expr *exprs_add(struct exprs *x, enum expr_use use, const char *name, const char *text)
{
    struct expr_list *l = arena_new_of(x->arena, struct expr_list);

    l->e = (struct expr){.use = use, .name = arena_strdup(x->arena, name), .text = arena_strdup(x->arena, text)};
    l->next = x->all;
    x->all = l;
    compile(x, &l->e);
    if (use != EXPR_VARIABLE)
        return &l->e;
    if (x->vars_n == x->vars_cap) {
        uint32_t cap = x->vars_cap ? 2 * x->vars_cap : 4;
        struct expr_variable *v = arena_array(x->arena, struct expr_variable, cap);

        if (x->vars_n)
            memcpy(v, x->vars, x->vars_n * sizeof(*v));
        x->vars = v;
        x->vars_cap = cap;
    }
    x->vars[x->vars_n++] = (struct expr_variable){
        {l->e.name, l->e.prog ? declared(x->arena, cel_prog_type(l->e.prog)) : &cel_dyn_type}, &l->e};
    return &l->e;
}

void exprs_add_all(struct exprs *x, enum expr_use use, const struct val *list, const struct expr ***ret,
                   uint32_t *ret_n)
{
    const struct expr **v = arena_array(x->arena, const struct expr *, val_len(list) + 1);
    uint32_t n = 0;

    VAL_EACH(list, it)
        v[n++] = exprs_add(x, use, val_str_at(it, "name", ""), val_str_at(it, "expression", ""));
    *ret = v;
    *ret_n = n;
}
