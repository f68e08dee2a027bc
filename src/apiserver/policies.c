/* apiserver/policies.c - which policies there are, and whether they match. See policies.h. */
#include "apiserver/policies.h"

#include "base/log.h"
#include "schema/select.h"

enum {
    PROGRAMS_BYTES_MAX = 64 << 20, /* then all are compiled again when they are wanted */
    PARAMS_MAX = 1000,             /* objects that one binding's selector gives */
};

static const char *const TABLES[] = {"validatingadmissionpolicies", "mutatingadmissionpolicies",
                                     "validatingadmissionpolicybindings", "mutatingadmissionpolicybindings"};

struct policies {
    struct api *api;
    struct store_watch *watch[4];
    struct arena *arena; /* of the lists; pins the objects */
    struct policy *v[2];
    uint32_t n[2];
    bool stale;
};

static struct store_table *table(struct api *api, int i)
{
    return table_named(api->store, "admissionregistration.k8s.io", TABLES[i]);
}

static void on_change(void *arg, const struct store_event *ev)
{
    (void)ev;
    ((struct policies *)arg)->stale = true;
}

/* ---------------------------------------------------------------- the lists */

static void drop_programs(struct policy *p)
{
    p->x = exprs_free(p->x);
    p->conditions = p->mutations = p->annotations = NULL;
    p->validations = NULL;
    p->conditions_n = p->mutations_n = p->annotations_n = p->validations_n = 0;
}

static bool same_spec(const struct policy *x, const struct policy *y)
{
    return streq(x->o->uid, y->o->uid) &&
           val_int_at(obj_val(x->o), "metadata.generation", 0) == val_int_at(obj_val(y->o), "metadata.generation", 0);
}

/* Programs move to the list that replaces this one, where the spec is as it was. */
static void take_programs(struct policy *to, struct policy *from, uint32_t n)
{
    struct policy kept;

    for (uint32_t i = 0; i < n; i++) {
        if (!from[i].x || !same_spec(&from[i], to))
            continue;
        kept = *to;
        *to = from[i];
        to->o = kept.o;
        to->spec = kept.spec;
        to->bindings = kept.bindings;
        to->bindings_n = kept.bindings_n;
        from[i].x = NULL;
        return;
    }
}

static uint32_t bindings_to(struct policies *p, int kind, const char *name, struct policy_binding *ret)
{
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;
    uint32_t n = 0;

    if (store_iter_init(&it, p->api->store, table(p->api, 2 + kind), NULL, 0, NULL, NULL, &ignored) < 0)
        return 0;
    while ((o = store_iter_next(&it)))
        if (streq(val_str_at(obj_val(o), "spec.policyName", ""), name)) {
            if (ret) {
                pin_obj(p->arena, obj_ref(o));
                ret[n] = (struct policy_binding){o, val_get(obj_edit(o, p->arena), "spec")};
            }
            n++;
        }
    store_iter_done(&it);
    return n;
}

static void read_kind(struct policies *p, int kind, struct policy *was, uint32_t was_n)
{
    struct store_table *t = table(p->api, kind);
    uint32_t max = store_count(p->api->store, t, NULL), n = 0;
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;

    p->v[kind] = arena_array(p->arena, struct policy, max + 1);
    p->n[kind] = 0;
    if (!max || !store_count(p->api->store, table(p->api, 2 + kind), NULL) ||
        store_iter_init(&it, p->api->store, t, NULL, 0, NULL, NULL, &ignored) < 0)
        return;
    while ((o = store_iter_next(&it)) && n < max) {
        uint32_t bound = bindings_to(p, kind, o->name, NULL);
        struct policy *one = &p->v[kind][n];

        if (!bound)
            continue;
        pin_obj(p->arena, obj_ref(o));
        *one = (struct policy){.o = o, .spec = val_get(obj_edit(o, p->arena), "spec")};
        one->ignore = streq(val_str_at(one->spec, "failurePolicy", "Fail"), "Ignore");
        one->if_needed = streq(val_str_at(one->spec, "reinvocationPolicy", "Never"), "IfNeeded");
        one->bindings = arena_array(p->arena, struct policy_binding, bound);
        one->bindings_n = bindings_to(p, kind, o->name, one->bindings);
        take_programs(one, was, was_n);
        n++;
    }
    store_iter_done(&it);
    p->n[kind] = n;
}

static void read_all(struct policies *p)
{
    struct arena *was_arena = p->arena;
    struct policy *was[2] = {p->v[0], p->v[1]};
    uint32_t was_n[2] = {p->n[0], p->n[1]};

    p->stale = false;
    p->arena = arena_new();
    for (int k = 0; k < 2; k++) {
        read_kind(p, k, was[k], was_n[k]);
        for (uint32_t i = 0; i < was_n[k]; i++)
            drop_programs(&was[k][i]);
    }
    arena_free(was_arena);
}

uint32_t policies_of(struct call *c, enum policy_kind kind, struct policy **ret)
{
    struct policies *p = c->api->policies;

    if (!p || !c->user || (streq(c->r->group, "admissionregistration.k8s.io") && admission_exempt(c)))
        return 0;
    if (p->stale)
        read_all(p);
    *ret = p->v[kind];
    return p->n[kind];
}

bool policies_any(struct call *c)
{
    struct policy *ignored;

    return policies_of(c, POLICY_VALIDATING, &ignored) || policies_of(c, POLICY_MUTATING, &ignored);
}

/* ---------------------------------------------------------------- programs */

static void make_room(struct policies *p, const struct policy *but)
{
    size_t bytes = 0;

    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < p->n[k]; i++)
            bytes += p->v[k][i].x ? exprs_bytes(p->v[k][i].x) : 0;
    if (bytes < PROGRAMS_BYTES_MAX)
        return;
    LOG(WARN, "api", "did=drop_policy_programs bytes=%zu", bytes);
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < p->n[k]; i++)
            if (&p->v[k][i] != but)
                drop_programs(&p->v[k][i]);
}

static void compile_validating(struct policy *one)
{
    const struct val *list = val_get(one->spec, "validations"), *notes = val_get(one->spec, "auditAnnotations");
    struct arena *a = exprs_arena(one->x);

    one->validations = arena_array(a, struct validation, val_len(list) + 1);
    VAL_EACH(list, v) {
        const char *message = val_str_at(v, "messageExpression", "");

        one->validations[one->validations_n++] = (struct validation){
            .e = exprs_add(one->x, EXPR_VALIDATION, "", val_str_at(v, "expression", "")),
            .message = *message ? exprs_add(one->x, EXPR_MESSAGE, "", message) : NULL};
    }
    one->annotations = arena_array(a, const struct expr *, val_len(notes) + 1);
    VAL_EACH(notes, v)
        one->annotations[one->annotations_n++] =
            exprs_add(one->x, EXPR_AUDIT, val_str_at(v, "key", ""), val_str_at(v, "valueExpression", ""));
}

static void compile_mutating(struct policy *one)
{
    const struct val *list = val_get(one->spec, "mutations");

    one->mutations = arena_array(exprs_arena(one->x), const struct expr *, val_len(list) + 1);
    VAL_EACH(list, m) {
        bool patch = streq(val_str_at(m, "patchType", ""), "JSONPatch");

        one->mutations[one->mutations_n++] =
            exprs_add(one->x, patch ? EXPR_JSONPATCH : EXPR_APPLY, "",
                      val_str_at(m, patch ? "jsonPatch.expression" : "applyConfiguration.expression", ""));
    }
}

void policy_compile(struct call *c, enum policy_kind kind, struct policy *one)
{
    if (one->x)
        return;
    make_room(c->api->policies, one);
    one->x = exprs_new(val_get(one->spec, "paramKind") != NULL, true);
    VAL_EACH(val_get(one->spec, "variables"), v)
        exprs_add(one->x, EXPR_VARIABLE, val_str_at(v, "name", ""), val_str_at(v, "expression", ""));
    exprs_add_all(one->x, EXPR_MATCH, val_get(one->spec, "matchConditions"), &one->conditions, &one->conditions_n);
    if (kind == POLICY_VALIDATING)
        compile_validating(one);
    else
        compile_mutating(one);
}

/* ---------------------------------------------------------------- what matches */

static bool rule_names(const struct val *rule, const char *name)
{
    const struct val *names = val_get(rule, "resourceNames");

    VAL_EACH(names, n)
        if (streq(val_text(n, ""), name))
            return true;
    return !val_len(names);
}

/* Those of the rules that are about this name. */
static const struct val *rules_for(struct call *c, const struct val *rules, const char *name)
{
    struct val *list;
    bool all = true;

    VAL_EACH(rules, r)
        all &= rule_names(r, name);
    if (all)
        return rules;
    list = val_list(c->a);
    VAL_EACH(rules, r)
        if (rule_names(r, name))
            val_push(c->a, list, r);
    return list;
}

int policy_match(struct call *c, const struct admission *ad, const struct val *resources,
                 struct admission_as *ret, const char **ret_why)
{
    bool equivalent = !streq(val_str_at(resources, "matchPolicy", "Equivalent"), "Exact");
    const char *name = ad->name ? ad->name : "";
    const struct val *rules = val_get(resources, "resourceRules");
    struct admission_as ignored;
    int in;

    if (!resources)
        return 1;
    if (!admission_match_object(c, ad, val_get(resources, "objectSelector")) ||
        admission_match_rules(c, ad, rules_for(c, val_get(resources, "excludeResourceRules"), name), equivalent, &ignored) ||
        (val_len(rules) && !admission_match_rules(c, ad, rules_for(c, rules, name), equivalent, ret)))
        return 0;
    in = admission_match_namespace(c, ad, val_get(resources, "namespaceSelector"));
    if (in < 0) {
        *ret_why = arena_printf(c->a, "namespaces \"%s\" not found", ad->ns);
        c->resp = (struct api_response){.remaining = -1};
    }
    return in;
}

/* ---------------------------------------------------------------- parameters */

static void add_param(struct call *c, const struct obj *o, const struct val **v, uint32_t *n)
{
    pin_obj(c->a, obj_ref(o));
    v[(*n)++] = obj_val(o);
}

static int select_params(struct call *c, const struct store_table *t, const char *ns, const struct val *selector,
                         const struct val ***ret, uint32_t *n, const char **ret_why)
{
    struct err err = {0};
    struct selector *s = selector_of(c->a, selector, &err);
    const struct val **v = arena_array(c->a, const struct val *, PARAMS_MAX);
    struct store_iter it;
    const struct obj *o;

    if (!s || store_iter_init(&it, c->api->store, t, ns, 0, NULL, NULL, &err) < 0) {
        *ret_why = arena_strdup(c->a, err.msg);
        return -1;
    }
    while (*n < PARAMS_MAX && (o = store_iter_next(&it)))
        if (selector_match(s, val_get(obj_meta(o), "labels")))
            add_param(c, o, v, n);
    store_iter_done(&it);
    *ret = v;
    return 0;
}

int policy_params(struct call *c, const struct policy *p,
                  const struct policy_binding *b, const struct val ***ret, uint32_t *ret_n, const char **ret_why)
{
    static const struct val *const none[] = {NULL};
    const struct val *kind = val_get(p->spec, "paramKind"), *ref = val_get(b->spec, "paramRef");
    const char *name = val_str_at(ref, "name", ""), *ns = val_str_at(ref, "namespace", "");
    const struct resource *r;
    const struct store_table *t;
    const struct obj *o;

    *ret = (const struct val **)none;
    *ret_n = 1;
    if (!kind)
        return 0;
    r = schema_kind_of(c->api->schema, val_str_at(kind, "apiVersion", ""), val_str_at(kind, "kind", ""));
    if (!r) {
        *ret_why = arena_printf(c->a, "failed to find resource referenced by paramKind: '%s, Kind=%s'",
                                val_str_at(kind, "apiVersion", ""), val_str_at(kind, "kind", ""));
        return -2;
    }
    if (!ref)
        return 0;
    if (!r->namespaced && *ns) {
        *ret_why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
        return -1;
    }
    if (r->namespaced && !*ns)
        ns = c->path.ns;
    if (r->namespaced && !*ns) {
        *ret_why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
        return -1;
    }
    t = store_table(c->api->store, r->table);
    *ret_n = 0;
    if (*name) {
        const struct val **one = arena_array(c->a, const struct val *, 1);

        *ret = one;
        if ((o = store_get(c->api->store, t, r->namespaced ? ns : "", name)))
            add_param(c, o, one, ret_n);
    } else if (select_params(c, t, r->namespaced ? ns : NULL, val_get(ref, "selector"), ret, ret_n, ret_why) < 0) {
        return -1;
    }
    if (!*ret_n && streq(val_str_at(ref, "parameterNotFoundAction", ""), "Deny")) {
        *ret_why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return -1;
    }
    return 0;
}

/* ---------------------------------------------------------------- life */

int policies_start(struct api *api, struct err *err)
{
    struct policies *p = xcalloc(1, sizeof(*p));

    api->policies = p;
    p->api = api;
    p->arena = arena_new();
    p->stale = true;
    for (int i = 0; i < 4; i++)
        if (!(p->watch[i] = store_watch(api->store, table(api, i), 0, STORE_WATCH_HEAD, on_change, p, err)))
            return -1;
    return 0;
}

void policies_stop(struct api *api)
{
    struct policies *p = api->policies;

    if (!p)
        return;
    for (int i = 0; i < 4; i++)
        store_watch_free(p->watch[i]);
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < p->n[k]; i++)
            drop_programs(&p->v[k][i]);
    arena_free(p->arena);
    free(p);
    api->policies = NULL;
}
