/* door/aws/cloudformation/plan.c - a template made ready: transforms done, conditions decided, resources in the order in which they can
 * be made; and what would change if a stack followed it. */
#include "door/aws/cloudformation/cfn_int.h"

#include <stdio.h>

/* ---- the document ---- */

struct val *cfn_given(struct arena *a, const struct val *spec)
{
    struct val *map = val_map(a);

    VAL_EACH(val_get(spec, "parameters"), p)
    {
        const char *key = val_str_at(p, "ParameterKey", "");
        const struct val *resolved = val_get(p, "ResolvedValue"), *v = resolved ? resolved : val_get(p, "ParameterValue");

        if (v)
            val_put(a, map, key, v);
    }
    return map;
}

static bool is_ssm(const struct val *def)
{
    return str_starts(val_str_at(def, "Type", ""), "AWS::SSM::Parameter::Value<");
}

struct val *cfn_document(struct cfn_scope *scope, const char *text, size_t n, const struct val *given, bool ssm_unknown,
                         struct err *err)
{
    struct arena *a = scope->a;
    struct val *doc = cfn_parse(a, text, n, err);

    if (!doc || cfn_check(doc, err) < 0)
        return NULL;
    scope->doc = doc;
    scope->params = cfn_parameters(a, doc, given, err);
    if (!scope->params)
        return NULL;
    VAL_EACH_MEMBER(val_get(doc, "Parameters"), m)
        if (ssm_unknown && is_ssm(&m->v))
            val_put_str(a, scope->params, m->key, CFN_UNKNOWN);
    if (cfn_has_transform(doc, "AWS::LanguageExtensions")) {
        doc = cfn_expand_loops(scope, err);
        if (!doc)
            return NULL;
        scope->doc = doc;
    }
    if (cfn_has_transform(doc, "AWS::Serverless-2016-10-31")) {
        doc = cfn_sam(scope, err);
        if (!doc)
            return NULL;
        scope->doc = doc;
    }
    if (cfn_check(doc, err) < 0)
        return NULL;
    return doc;
}

const char *cfn_needs_capability(const struct val *doc)
{
    static const struct {
        const char *type, *name;
    } IAM[] = {{"AWS::IAM::Role", "RoleName"}, {"AWS::IAM::User", "UserName"}, {"AWS::IAM::Group", "GroupName"},
               {"AWS::IAM::ManagedPolicy", "ManagedPolicyName"}, {"AWS::IAM::InstanceProfile", "InstanceProfileName"},
               {"AWS::IAM::Policy", NULL}, {"AWS::IAM::AccessKey", NULL}, {"AWS::IAM::UserToGroupAddition", NULL}};
    const char *needs = NULL;

    VAL_EACH_MEMBER(val_get(doc, "Resources"), m)
        for (size_t i = 0; i < ARRAY_LEN(IAM); i++)
            if (streq(val_str_at(&m->v, "Type", ""), IAM[i].type)) {
                if (IAM[i].name && val_get(val_get(&m->v, "Properties"), IAM[i].name))
                    return "CAPABILITY_NAMED_IAM";
                needs = "CAPABILITY_IAM";
            }
    return needs;
}

/* ---- the order ---- */

/* Only of what is to be made: a condition may leave the others out. */
static int unknown_types(const struct cfn_plan *p, struct err *err)
{
    struct buf b = {0};
    int rc = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        const char *type = p->items[i].type;

        if (!cfn_type_of(type) && !(b.p && strstr(b.p, type)) && b.n < 300)
            buf_printf(&b, "%s%s", b.n ? ", " : "", type);
    }
    if (b.n)
        rc = err_set(err, INVALID_ARGUMENT, "Template format error: Unrecognized resource types: [%s]", b.p);
    buf_done(&b);
    return rc;
}

static int find_needs(struct cfn_plan *p, struct cfn_item *it, struct err *err)
{
    const struct val *on = val_get(it->def, "DependsOn"), *props = val_get(it->def, "Properties");
    struct val one = {0};

    it->needs = val_list(p->a);
    if (props && cfn_needs(&p->scope, props, it->needs, err) < 0)
        return -1;
    if (val_is(on, VAL_STR)) {
        one = (struct val){.type = VAL_LIST, .n = 1, .items = (struct val *)on};
        on = &one;
    }
    VAL_EACH(on, name)
    {
        bool known = false;

        if (!val_get(val_get(p->doc, "Resources"), val_text(name, "")))
            return err_set(err, INVALID_ARGUMENT, "Template format error: Unresolved resource dependencies [%.100s] in the Resources "
                           "block of the template", val_text(name, ""));
        VAL_EACH(it->needs, n)
            known |= streq(n->s, name->s);
        if (!known)
            val_push(p->a, it->needs, name);
    }
    return 0;
}

struct cfn_item *cfn_plan_item(const struct cfn_plan *p, const char *logical)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (streq(p->items[i].logical, logical))
            return &p->items[i];
    return NULL;
}

static int sort_items(struct cfn_plan *p, struct err *err)
{
    struct cfn_item *sorted = arena_array(p->a, struct cfn_item, p->n + 1);
    bool *taken = arena_array(p->a, bool, p->n + 1);
    uint32_t n = 0;

    while (n < p->n) {
        uint32_t before = n;

        for (uint32_t i = 0; i < p->n; i++) {
            bool ready = !taken[i];

            VAL_EACH(p->items[i].needs, name)
            {
                struct cfn_item *other = ready ? cfn_plan_item(p, name->s) : NULL;

                if (other && !taken[other - p->items])
                    ready = false;
            }
            if (ready) {
                sorted[n++] = p->items[i];
                taken[i] = true;
            }
        }
        if (n == before) {
            struct buf b;

            buf_init(&b, 300);
            for (uint32_t i = 0; i < p->n; i++)
                if (!taken[i])
                    buf_printf(&b, "%s%s", b.n ? ", " : "", p->items[i].logical);
            err_set(err, INVALID_ARGUMENT, "Circular dependency between resources: [%s]", b.p);
            buf_done(&b);
            return -1;
        }
    }
    p->items = sorted;
    return 0;
}

static const char *on_import(void *arg, const char *name)
{
    struct cfn_stack *s = arg;

    LIST_EACH(&s->c->stacks, l)
    {
        struct cfn_stack *other = list_entry(l, struct cfn_stack, link);

        if (streq(other->status, "DELETE_COMPLETE"))
            continue;
        VAL_EACH(other->outputs, o)
            if (streq(val_str_at(o, "ExportName", ""), name))
                return val_str_at(o, "OutputValue", "");
    }
    return NULL;
}

/* Of resources that are there now. */
static const struct val *on_attribute(void *arg, struct arena *a, const char *logical, const char *attribute, struct err *err)
{
    struct cfn_stack *s = arg;
    struct cfn_res *r = cfn_res_find(s, logical);
    const struct val *v;

    if (!r || !r->made || !r->phys) {
        if (s->plan && !cfn_plan_item(s->plan, logical)) {
            err_set(err, INVALID_ARGUMENT, "Template format error: Unresolved resource dependencies [%.100s] in the Resources block "
                    "of the template", logical);
            return NULL;
        }
        return NULL;
    }
    if (!attribute)
        return val_get(r->attrs, "Ref") ? val_get(r->attrs, "Ref") : val_str(a, r->phys);
    v = val_get(r->attrs, attribute);
    if (!v)
        err_set(err, INVALID_ARGUMENT, "Requested attribute %.80s does not exist in schema for %.80s", attribute, r->type);
    return v;
}

static int add_items(struct cfn_plan *p, struct err *err)
{
    const struct val *all = val_get(p->doc, "Resources");

    p->items = arena_array(p->a, struct cfn_item, val_len(all) + 1);
    VAL_EACH_MEMBER(all, m)
    {
        int wanted = cfn_condition(&p->scope, val_str_at(&m->v, "Condition", NULL), err);
        struct cfn_item *it = &p->items[p->n];

        if (wanted < 0)
            return -1;
        if (!wanted)
            continue;
        *it = (struct cfn_item){.logical = m->key, .type = val_str_at(&m->v, "Type", ""), .def = &m->v};
        if (find_needs(p, it, err) < 0)
            return -1;
        p->n++;
    }
    VAL_EACH_MEMBER(val_get(p->doc, "Outputs"), m)
    {
        struct val *names = val_list(p->a);
        int wanted = cfn_condition(&p->scope, val_str_at(&m->v, "Condition", NULL), err);

        if (wanted < 0 || (wanted && cfn_needs(&p->scope, &m->v, names, err) < 0))
            return -1;
    }
    return sort_items(p, err);
}

struct cfn_plan *cfn_plan_new(struct cfn_stack *s, const struct val *spec, bool ssm_unknown, struct err *err)
{
    struct arena *a = arena_new();
    struct cfn_plan *p = arena_new_of(a, struct cfn_plan);
    const char *text = val_str_at(spec, "template", "");

    p->a = a;
    p->scope = (struct cfn_scope){.a = a, .account = s->c->d->account, .region = s->c->d->region, .stack_name = s->name,
                                  .stack_id = s->id, .attribute = on_attribute, .import = on_import, .arg = s};
    if (val_len(val_get(spec, "notificationARNs")))
        p->scope.notification_arns = val_copy(a, val_get(spec, "notificationARNs"));
    p->doc = cfn_document(&p->scope, text, strlen(text), val_copy(a, cfn_given(a, spec)), ssm_unknown, err);
    if (!p->doc || cfn_rules(&p->scope, err) < 0 || add_items(p, err) < 0 || unknown_types(p, err) < 0)
        return cfn_plan_free(p);
    return p;
}

void *cfn_plan_free(struct cfn_plan *p)
{
    return p ? arena_free(p->a) : NULL;
}

struct val *cfn_item_props(struct cfn_plan *p, const struct cfn_item *it, struct err *err)
{
    const struct val *props = val_get(it->def, "Properties");

    return props ? cfn_eval(&p->scope, props, err) : val_map(p->a);
}

struct import {
    const char *name;
    bool found;
};
static const char *on_import_seen(void *arg, const char *name)
{
    struct import *i = arg;

    i->found |= streq(i->name, name);
    return "";
}
static const struct val *on_anything(void *arg, struct arena *a, const char *logical, const char *attribute, struct err *err)
{
    (void)arg, (void)a, (void)logical, (void)attribute, (void)err;
    return NULL;
}

bool cfn_imports(struct cfn_stack *s, const char *export)
{
    struct err err;
    struct import seen = {.name = export};
    _auto_(cfn_plan_freep) struct cfn_plan *p = NULL;

    if (streq(s->status, "DELETE_COMPLETE") || streq(s->status, "REVIEW_IN_PROGRESS") ||
        !strstr(val_str_at(s->spec, "template", ""), "ImportValue"))
        return false;
    p = cfn_plan_new(s, s->spec, true, &err);
    if (!p)
        return false;
    p->scope.import = on_import_seen;
    p->scope.attribute = on_anything;
    p->scope.arg = &seen;
    for (uint32_t i = 0; i < p->n; i++)
        (void)!cfn_item_props(p, &p->items[i], &err);
    VAL_EACH_MEMBER(val_get(p->doc, "Outputs"), m)
        (void)!cfn_eval(&p->scope, val_get(&m->v, "Value"), &err);
    return seen.found;
}

/* ---- what would change ---- */

struct diff {
    struct cfn_stack *s;
    struct cfn_plan *plan;
    struct val *replaced; /* logical name -> true: made new */
};

static const struct val *later(void *arg, struct arena *a, const char *logical, const char *attribute, struct err *err)
{
    struct diff *d = arg;

    if (val_get(d->replaced, logical) || !cfn_res_find(d->s, logical))
        return NULL;
    return on_attribute(d->s, a, logical, attribute, err);
}

static const char *later_import(void *arg, const char *name)
{
    return on_import(((struct diff *)arg)->s, name);
}

static void name_change(struct arena *a, struct val *change, const char *action, const char *logical, const char *phys, const char *type)
{
    val_put_str(a, change, "Action", action);
    val_put_str(a, change, "LogicalResourceId", logical);
    if (phys)
        val_put_str(a, change, "PhysicalResourceId", phys);
    val_put_str(a, change, "ResourceType", type);
}

static void property_change(struct arena *a, struct val *details, const char *name, const char *recreation, bool dynamic)
{
    struct val *d = val_map(a), *target = val_need_map(a, d, "Target");

    val_put_str(a, target, "Attribute", "Properties");
    val_put_str(a, target, "Name", name);
    val_put_str(a, target, "RequiresRecreation", recreation);
    val_put_str(a, d, "Evaluation", dynamic ? "Dynamic" : "Static");
    val_put_str(a, d, "ChangeSource", dynamic ? "ResourceReference" : "DirectModification");
    val_push(a, details, d);
}

static bool unknown_in(struct arena *a, const struct val *v)
{
    return v && strstr(json_text(a, v, NULL), CFN_UNKNOWN);
}

static void modify(struct diff *d, struct arena *a, struct val *changes, const struct cfn_item *it, const struct cfn_res *r,
                   const struct val *props)
{
    const struct cfn_type *t = cfn_type_of(it->type);
    struct val *change = val_map(a), *details = val_list(a);
    bool replace = false, perhaps = false;

    for (int pass = 0; pass < 2; pass++)
        VAL_EACH_MEMBER(pass ? r->props : props, m)
        {
            const struct val *other = val_getn(pass ? props : r->props, m->key, m->n);
            bool dynamic, always = cfn_type_replaces(t, m->key) || !t->update;

            if (other && (pass || val_equal(&m->v, other)))
                continue;
            dynamic = unknown_in(a, pass ? NULL : &m->v);
            property_change(a, details, m->key, always ? dynamic ? "Conditionally" : "Always" : "Never", dynamic);
            replace |= always && !dynamic;
            perhaps |= always && dynamic;
        }
    name_change(a, change, "Modify", it->logical, r->phys, it->type);
    val_put_str(a, change, "Replacement", replace ? "True" : perhaps ? "Conditional" : "False");
    val_push_str(a, val_need_list(a, change, "Scope"), "Properties");
    val_put(a, change, "Details", details);
    if (replace || perhaps)
        val_put_bool(d->plan->a, d->replaced, it->logical, true);
    val_push(a, changes, change);
}

struct val *cfn_changes(struct cfn_stack *s, struct arena *a, const struct val *spec, struct err *err)
{
    _auto_(cfn_plan_freep) struct cfn_plan *plan = cfn_plan_new(s, spec, true, err);
    struct val *changes = val_list(a);
    struct diff d = {.s = s, .plan = plan};

    if (!plan)
        return NULL;
    d.replaced = val_map(plan->a);
    plan->scope.attribute = later;
    plan->scope.arg = &d;
    plan->scope.import = later_import;
    for (uint32_t i = 0; i < plan->n; i++) {
        struct cfn_item *it = &plan->items[i];
        struct cfn_res *r = cfn_res_find(s, it->logical);
        struct val *props, *change;

        props = cfn_item_props(plan, it, err);
        if (!props)
            return NULL;
        if (!r || !r->made || !streq(r->type, it->type)) {
            change = val_map(a);
            name_change(a, change, "Add", it->logical, NULL, it->type);
            val_put(a, change, "Scope", val_list(a));
            val_put(a, change, "Details", val_list(a));
            val_push(a, changes, change);
            val_put_bool(plan->a, d.replaced, it->logical, true);
        } else if (!val_equal(props, r->props ? r->props : val_map(plan->a)) || r->dirty) {
            modify(&d, a, changes, it, r, props);
        }
    }
    for (uint32_t i = 0; i < s->res_n; i++) {
        struct cfn_res *r = s->res[i];
        struct val *change = val_map(a);

        if (r->old || !r->made || cfn_plan_item(plan, r->logical))
            continue;
        name_change(a, change, "Remove", r->logical, r->phys, r->type);
        val_put(a, change, "Scope", val_list(a));
        val_put(a, change, "Details", val_list(a));
        val_push(a, changes, change);
    }
    return val_copy(a, changes);
}
