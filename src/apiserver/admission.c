/* apiserver/admission.c - the chain of admission plugins as a table, in the order of a stock server. */
#include "apiserver/admission.h"

#include "apiserver/hooks.h"
#include "apiserver/policies.h"

#define ALL (ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT)
#define WRITE (ADMIT_CREATE | ADMIT_UPDATE)
#define INNER 16 /* also when the object is written for what was admitted already */

/* ---------------------------------------------------------------- plugins that are one call */

static int lifecycle(struct call *c, struct admission *ad)
{
    return ad->in && !*ad->sub ? admit_namespace(c, ad->name) : 0;
}

static int node_restriction(struct call *c, struct admission *ad)
{
    return ad->in ? restrict_node(c, ad->v, ad->old_obj) : 0;
}

/* What the table in hooks.c has for the kind. */
static int kind_mutate(struct call *c, struct admission *ad)
{
    if (!c->hooks || !ad->in)
        return 0;
    if (ad->op == ADMIT_CREATE)
        return c->hooks->admit_create ? c->hooks->admit_create(c, ad->v) : 0;
    return c->hooks->admit_update ? c->hooks->admit_update(c, ad->sub, ad->v, ad->old_obj) : 0;
}

static int pod_security(struct call *c, struct admission *ad)
{
    return ad->in ? podsecurity_check(c, ad->sub, ad->v, ad->old) : 0;
}

static int kind_validate(struct call *c, struct admission *ad)
{
    return ad->in && c->hooks && c->hooks->check ? c->hooks->check(c, ad->sub, ad->v, ad->old) : 0;
}

/* ---------------------------------------------------------------- the chain */

static const struct plugin {
    const char *name;
    unsigned ops; /* enum admission_op, INNER */
    int (*mutate)(struct call *c, struct admission *ad);
    int (*validate)(struct call *c, struct admission *ad);
} CHAIN[] = {
    {"NamespaceLifecycle", ADMIT_CREATE, lifecycle, NULL},
    {"LimitRanger", WRITE, limits_admit, limits_check},
    {"NodeRestriction", WRITE | ADMIT_DELETE | INNER, node_restriction, NULL},
    {"of the kind", WRITE | INNER, kind_mutate, NULL},
    {"MutatingAdmissionPolicy", WRITE, policies_mutate, NULL},
    {"MutatingAdmissionWebhook", ALL, webhooks_mutate, NULL},
    {"PodSecurity", WRITE | INNER, NULL, pod_security},
    {"rules of the kind", WRITE | INNER, NULL, kind_validate},
    {"ValidatingAdmissionPolicy", ALL, NULL, policies_validate},
    {"ValidatingAdmissionWebhook", ALL, NULL, webhooks_validate},
    {"ResourceQuota", WRITE | INNER, NULL, quota_admit},
};

static bool has_part(const struct plugin *p, const struct admission *ad)
{
    return (p->ops & ad->op) && (!ad->inner || (p->ops & INNER));
}

static int round_of(struct call *c, struct admission *ad)
{
    for (size_t i = 0; i < ARRAY_LEN(CHAIN); i++)
        if (CHAIN[i].mutate && has_part(&CHAIN[i], ad) && CHAIN[i].mutate(c, ad) < 0)
            return -1;
    return 0;
}

int admission_mutate(struct call *c, struct admission *ad)
{
    if (round_of(c, ad) < 0)
        return -1;
    if (!ad->changed)
        return 0;
    ad->again = true;
    return round_of(c, ad);
}

int admission_validate(struct call *c, struct admission *ad)
{
    for (size_t i = 0; i < ARRAY_LEN(CHAIN); i++)
        if (CHAIN[i].validate && has_part(&CHAIN[i], ad) && CHAIN[i].validate(c, ad) < 0)
            return -1;
    return 0;
}

/* ---------------------------------------------------------------- what plugins ask */

const char *admission_op_text(enum admission_op op)
{
    return op == ADMIT_CREATE ? "CREATE" : op == ADMIT_UPDATE ? "UPDATE" : op == ADMIT_DELETE ? "DELETE"
                                                                                              : "CONNECT";
}

const struct val *admission_options(struct call *c, struct admission *ad)
{
    struct val *v;

    if (ad->options || ad->op == ADMIT_CONNECT)
        return ad->options;
    v = val_map(c->a);
    val_put_str(c->a, v, "kind", ad->op == ADMIT_CREATE   ? "CreateOptions"
                                 : ad->op == ADMIT_DELETE ? "DeleteOptions"
                                 : streq(c->verb, "patch") ? "PatchOptions"
                                                           : "UpdateOptions");
    val_put_str(c->a, v, "apiVersion", "meta.k8s.io/v1");
    if (c->o.dry_run)
        val_push_str(c->a, val_need_list(c->a, v, "dryRun"), "All");
    if (c->o.force_set && streq(c->verb, "patch"))
        val_put_bool(c->a, v, "force", c->o.force);
    if (!str_empty(c->o.field_manager))
        val_put_str(c->a, v, "fieldManager", c->o.field_manager);
    if (!str_empty(param(c, "fieldValidation")))
        val_put_str(c->a, v, "fieldValidation", c->o.field_validation);
    return ad->options = v;
}

const struct obj *admission_namespace(struct call *c, const struct admission *ad)
{
    const struct obj *ns;

    if (str_empty(ad->ns))
        return NULL;
    ns = store_get(c->api->store, table_named(c->api->store, "", "namespaces"), "", ad->ns);
    if (ns)
        pin_obj(c->a, obj_ref(ns));
    return ns;
}

void call_annotate(struct call *c, const char *key, const char *value)
{
    if (!c->annotations)
        c->annotations = val_map(c->a);
    if (!val_get(c->annotations, key))
        val_put_str(c->a, c->annotations, key, value);
}

int admission_of_body(struct call *c, enum admission_op op, struct val *v, const struct val *old,
                      const char *name)
{
    struct admission ad = {.op = op, .sub = c->sub ? c->sub->name : "", .v = v, .old = old, .name = name,
                           .ns = c->path.ns};

    return admission_mutate(c, &ad) < 0 || admission_validate(c, &ad) < 0 ? -1 : 0;
}
