/* schema/deviceexpr.c - see deviceexpr.h. */
#include "schema/deviceexpr.h"

#include "base/map.h"

#include <string.h>

enum { EXPRESSIONS_MAX = 1024, COST_MAX = 1000000, DOMAINS_MAX = 256 };

struct device_exprs {
    struct arena *arena; /* types, reasons */
    struct cel_env *env;
    const struct cel_type *type;
    struct map progs; /* text -> struct kept */
};
struct kept {
    struct cel_prog *prog; /* NULL: it does not compile */
    char *why;
};

struct cel_env *device_env(struct arena *a, const struct cel_type **ret_type)
{
    struct cel_env *env = cel_env_new();
    struct cel_type *device = cel_type_new(a, CEL_OBJECT);
    struct cel_field *f = arena_array(a, struct cel_field, 4);

    f[0] = (struct cel_field){"driver", &cel_string_type};
    f[1] = (struct cel_field){"attributes", cel_type_map(a, &cel_string_type, cel_type_map(a, &cel_string_type, &cel_dyn_type))};
    f[2] = (struct cel_field){"capacity", cel_type_map(a, &cel_string_type, cel_type_map(a, &cel_string_type, &cel_quantity_type))};
    f[3] = (struct cel_field){"allowMultipleAllocations", &cel_bool_type};
    device->name = "kubernetes.DRADevice";
    device->fields = f;
    device->fields_n = 4;
    cel_env_var(env, "device", device);
    if (ret_type)
        *ret_type = device;
    return env;
}

struct device_exprs *device_exprs_new(void)
{
    struct device_exprs *x = xcalloc(1, sizeof(*x));

    x->arena = arena_new();
    x->env = device_env(x->arena, &x->type);
    return x;
}

static void forget(struct device_exprs *x)
{
    const char *text;
    void *it;

    for (uint32_t i = 0; map_next(&x->progs, &i, &text, &it);) {
        struct kept *k = it;

        cel_prog_free(k->prog);
        free(k->why);
        free(k);
    }
    map_done(&x->progs);
    x->progs = (struct map){0};
}

void *device_exprs_free(struct device_exprs *x)
{
    if (!x)
        return NULL;
    forget(x);
    cel_env_free(x->env);
    arena_free(x->arena);
    free(x);
    return NULL;
}

static struct kept *program(struct device_exprs *x, const char *text)
{
    struct kept *k = map_get(&x->progs, text);
    _auto_(arena_freep) struct arena *a = NULL;
    const char *issues = "";

    if (k)
        return k;
    if (x->progs.n >= EXPRESSIONS_MAX)
        forget(x);
    a = arena_new();
    k = xcalloc(1, sizeof(*k));
    if (!(k->prog = cel_compile(x->env, text, strlen(text), a, &issues)))
        k->why = xstrdup(issues);
    map_put(&x->progs, text, k);
    return k;
}

/* ---- a device as a value ---- */

struct domain {
    const char *name;
    size_t n;
    struct cel_value (*pairs)[2];
    uint32_t pairs_n;
};
struct domains {
    struct domain v[DOMAINS_MAX];
    uint32_t n;
};

static struct domain *domain_of(struct domains *d, const char *name, size_t n)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->v[i].n == n && memcmp(d->v[i].name, name, n) == 0)
            return &d->v[i];
    if (d->n == DOMAINS_MAX)
        return NULL;
    d->v[d->n] = (struct domain){.name = name, .n = n};
    return &d->v[d->n++];
}

/* A domain that no attribute is in reads as an empty one: so all texts of the expression that may be one are there. */
static void add_asked(struct domains *d, const char *text)
{
    for (const char *s = text; (s = strpbrk(s, "'\""));) {
        const char *end = strchr(s + 1, *s);

        if (!end)
            return;
        if (end - s > 1 && end - s < 128)
            domain_of(d, s + 1, (size_t)(end - s - 1));
        s = end + 1;
    }
}

static struct cel_value attribute_value(struct arena *a, const struct val *v)
{
    static const char *const lists[] = {"ints", "bools", "strings", "versions"};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        const struct val *list = val_get(v, lists[i]);
        struct cel_value *items;
        uint32_t n = 0;

        if (!val_is(list, VAL_LIST))
            continue;
        items = arena_array(a, struct cel_value, list->n + 1);
        VAL_EACH(list, it)
            items[n++] = i == 3 ? cel_semver(a, val_text(it, "")) : cel_tree(a, it, NULL);
        return cel_list_of(a, items, n);
    }
    if (val_is(val_get(v, "int"), VAL_INT))
        return cel_int(val_get(v, "int")->i);
    if (val_is(val_get(v, "bool"), VAL_BOOL))
        return cel_bool(val_get(v, "bool")->b);
    if (val_is(val_get(v, "version"), VAL_STR))
        return cel_semver(a, val_get(v, "version")->s);
    return cel_str(val_str_at(v, "string", ""));
}

static struct cel_value by_domain(struct arena *a, const char *driver, const struct val *members, bool capacity, const char *text)
{
    struct domains *d = arena_new_of(a, struct domains);
    struct cel_value (*pairs)[2];

    d->n = 0;
    VAL_EACH_MEMBER(members, m) {
        const char *slash = strchr(m->key, '/'), *id = slash ? slash + 1 : m->key;
        struct domain *in = slash ? domain_of(d, m->key, (size_t)(slash - m->key)) : domain_of(d, driver, strlen(driver));

        if (!in)
            continue;
        if (!in->pairs)
            in->pairs = (void *)arena_array(a, struct cel_value, 2 * members->n);
        in->pairs[in->pairs_n][0] = cel_str(id);
        in->pairs[in->pairs_n++][1] = capacity ? cel_quantity(a, val_text(val_get(&m->v, "value"), "")) : attribute_value(a, &m->v);
    }
    add_asked(d, text);
    pairs = (void *)arena_array(a, struct cel_value, 2 * d->n + 2);
    for (uint32_t i = 0; i < d->n; i++) {
        pairs[i][0] = cel_strn(d->v[i].name, d->v[i].n);
        pairs[i][1] = cel_map_of(a, (const struct cel_value (*)[2])d->v[i].pairs, d->v[i].pairs_n);
    }
    return cel_map_of(a, (const struct cel_value (*)[2])pairs, d->n);
}

int device_chosen(struct device_exprs *x, const char *expression, const char *driver, const struct val *device,
                  struct arena *a, struct err *err)
{
    struct kept *k = program(x, expression);
    struct cel_value fields[4][2] = {
        {cel_str("driver"), cel_str(driver)},
        {cel_str("attributes"), by_domain(a, driver, val_get(device, "attributes"), false, expression)},
        {cel_str("capacity"), by_domain(a, driver, val_get(device, "capacity"), true, expression)},
        {cel_str("allowMultipleAllocations"), cel_bool(val_bool_at(device, "allowMultipleAllocations", false))}};
    struct cel_value var, out;
    struct cel_run run = {.arena = a, .cost_limit = COST_MAX, .vars = &var, .vars_n = 1};

    if (!k->prog)
        return err_set(err, INVALID, "compilation failed: %s", k->why);
    var = cel_object_of(a, x->type, (const struct cel_value (*)[2])fields, 4);
    if (cel_eval(k->prog, &run, &out, err) < 0)
        return -1;
    if (out.kind != CEL_BOOL)
        return err_set(err, INVALID, "the selector gives no bool");
    return out.b;
}

const struct val *device_attribute(struct arena *a, const char *driver, const struct val *device, const char *name)
{
    const struct val *all = val_get(device, "attributes"), *v = val_get(all, name);
    const char *slash = strchr(name, '/');

    (void)a;
    if (!v && slash && strlen(driver) == (size_t)(slash - name) && strncmp(name, driver, (size_t)(slash - name)) == 0)
        v = val_get(all, slash + 1);
    return v;
}
