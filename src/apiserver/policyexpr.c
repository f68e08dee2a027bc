/* apiserver/policyexpr.c - see policyexpr.h. */
#include "apiserver/policyexpr.h"

#include "base/buf.h"

/* ---------------------------------------------------------------- the authorizer */

struct asker {
    struct call *c;
    struct cel_authorizer auth;
};

/* authorizer.serviceAccount(ns, name): asks for somebody else. */
static const struct auth_user *account(struct arena *a, const char *ns, const char *name)
{
    struct auth_user *u = arena_new_of(a, struct auth_user);
    const char **groups = arena_array(a, const char *, 4);

    groups[0] = "system:serviceaccounts";
    groups[1] = arena_printf(a, "system:serviceaccounts:%s", ns);
    groups[2] = GROUP_AUTHENTICATED;
    groups[3] = NULL;
    *u = (struct auth_user){.name = arena_printf(a, "system:serviceaccount:%s:%s", ns, name), .uid = "",
                            .groups = groups};
    return u;
}

static void check(void *data, const struct cel_check *q, struct arena *a, struct cel_decision *ret)
{
    struct asker *x = data;
    const struct auth_user *u = q->service_account_name
                                    ? account(a, q->service_account_namespace ? q->service_account_namespace : "",
                                              q->service_account_name)
                                    : x->c->user;
    struct rbac_ask ask = {.verb = q->verb ? q->verb : ""};

    if (q->path) {
        ask.path = q->path;
    } else {
        ask.group = q->group ? q->group : "";
        ask.resource = q->resource ? q->resource : "";
        ask.subresource = q->subresource ? q->subresource : "";
        ask.ns = q->namespace_ ? q->namespace_ : "";
        ask.name = q->name ? q->name : "";
    }
    *ret = (struct cel_decision){.allowed = access_allows(x->c->api, u, &ask), .reason = ""};
}

/* ---------------------------------------------------------------- running */

struct expr_run {
    const struct exprs *x;
    struct arena *a;
    struct cel_value slots[EXPR_SLOTS];
    struct cel_value *vars; /* what the policy's variables are */
    uint8_t *known;         /* 0: not asked for yet, 1: being evaluated, 2: known */
    uint64_t left;
};

static struct cel_value error_value(struct arena *a, const char *fmt, ...) _printf_(2, 3);
static struct cel_value error_value(struct arena *a, const char *fmt, ...)
{
    struct buf b = {.max = 1 << 14};
    struct cel_value v = {.kind = CEL_ERROR};
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    v.n = (uint32_t)b.n;
    v.s = arena_strdup(a, b.n ? b.p : "");
    buf_done(&b);
    return v;
}

static int run_prog(struct expr_run *r, const struct expr *e, struct cel_value *ret, struct err *err)
{
    enum expr_flavour f = expr_flavour_of(e->use);
    struct cel_value vars[EXPR_SLOTS];
    struct cel_run run = {.arena = r->a, .vars = vars};
    int done;

    for (int i = 0; i < EXPR_SLOTS; i++)
        if (r->x->at[f][i] >= 0) {
            vars[r->x->at[f][i]] = r->slots[i];
            run.vars_n++;
        }
    done = cel_eval(e->prog, &run, ret, err);
    r->left = run.cost > r->left ? 0 : r->left - run.cost;
    return done;
}

static struct cel_value variable(void *data, struct cel_run *run, const char *name, size_t n)
{
    struct expr_run *r = data;
    const struct expr_variable *v;
    struct err err = {0};
    uint32_t i = r->x->vars_n;

    (void)run;
    while (i-- > 0)
        if (strlen(r->x->vars[i].field.name) == n && memcmp(r->x->vars[i].field.name, name, n) == 0)
            break;
    if (i == UINT32_MAX)
        return error_value(r->a, "no such key: %.*s", (int)n, name);
    v = &r->x->vars[i];
    if (r->known[i] == 2)
        return r->vars[i];
    if (r->known[i] == 1) /* a variable sees those before it only, so this cannot be */
        return error_value(r->a, "composited variable \"%s\" names itself", v->e->name);
    r->known[i] = 1;
    if (!v->e->prog)
        r->vars[i] = error_value(r->a, "composited variable \"%s\" fails to compile: %s", v->e->name, v->e->why);
    else if (run_prog(r, v->e, &r->vars[i], &err) < 0)
        r->vars[i] = error_value(r->a, "composited variable \"%s\" fails to evaluate: %s", v->e->name, err.msg);
    r->known[i] = 2;
    return r->vars[i];
}

struct expr_run *expr_run_new(const struct exprs *x, struct call *c, struct admission *ad,
                              const struct admission_as *as, const struct val *object, const struct val *old,
                              const struct val *params)
{
    struct expr_run *r = arena_new_of(c->a, struct expr_run);
    struct asker *asker = arena_new_of(c->a, struct asker);
    bool of_ns = streq(c->stored->table, "namespaces");
    const struct obj *ns = of_ns ? NULL : admission_namespace(c, ad);
    struct cel_check what = {
        .group = c->r->group, .version = c->r->version, .resource = c->r->plural, .subresource = ad->sub,
        .namespace_ = ad->ns ? ad->ns : "", .name = ad->name ? ad->name : ""};

    *asker = (struct asker){c, {check, asker}};
    r->x = x;
    r->a = c->a;
    r->slots[SLOT_OBJECT] = cel_tree(c->a, object, NULL);
    r->slots[SLOT_OLD] = cel_tree(c->a, old, NULL);
    r->slots[SLOT_NAMESPACE] = cel_tree(c->a, ns ? obj_val(ns) : NULL, &admit_namespace_type);
    r->slots[SLOT_REQUEST] = cel_tree(c->a, admission_request(c, ad, as, NULL, NULL), &admit_request_type);
    r->slots[SLOT_PARAMS] = cel_tree(c->a, params, NULL);
    r->slots[SLOT_AUTHORIZER] = cel_authorizer(c->a, &asker->auth);
    r->slots[SLOT_RESOURCE] = cel_resource_check(c->a, &asker->auth, &what);
    r->slots[SLOT_VARIABLES] = cel_lazy(c->a, &x->type, variable, r);
    r->vars = arena_array(c->a, struct cel_value, x->vars_n + 1);
    r->known = arena_alloc(c->a, x->vars_n + 1);
    return r;
}

void expr_run_budget(struct expr_run *r, uint64_t cost)
{
    r->left = cost;
    memset(r->known, 0, r->x->vars_n);
}

uint64_t expr_run_left(const struct expr_run *r)
{
    return r->left;
}

int expr_eval(struct expr_run *r, const struct expr *e, struct cel_value *ret, const char **ret_why)
{
    struct err err = {0};
    int done;

    if (!e->prog) {
        *ret_why = arena_printf(r->a, "compilation error: %s", e->why);
        return -1;
    }
    done = run_prog(r, e, ret, &err);
    if (r->left == 0) {
        *ret_why = "validation failed due to running out of cost budget, no further validation rules will be run";
        return -2;
    }
    if (done == 0)
        return 0;
    *ret_why = arena_printf(r->a, "expression '%s' resulted in error: %s", e->text, err.msg);
    return -1;
}

int exprs_match(struct expr_run *r, const struct expr *const *v, uint32_t n, bool ignore, const char **ret_why)
{
    struct texts bad = {.a = r->a};
    struct buf b = {.max = 1 << 14};

    if (!n)
        return 1;
    expr_run_budget(r, EXPR_BUDGET_MATCH);
    for (uint32_t i = 0; i < n; i++) {
        struct cel_value x;
        const char *why;
        int done = expr_eval(r, v[i], &x, &why);

        if (done == -2) {
            *ret_why = why;
            return ignore ? 0 : -1;
        }
        if (done < 0)
            texts_add(&bad, "%s", why);
        else if (!x.b)
            return 0; /* whatever else failed */
    }
    if (!bad.n)
        return 1;
    for (uint32_t i = 0; i < bad.n; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", bad.v[i]);
    *ret_why = bad.n > 1 ? arena_printf(r->a, "[%s]", b.p) : bad.v[0];
    buf_done(&b);
    return ignore ? 0 : -1;
}
