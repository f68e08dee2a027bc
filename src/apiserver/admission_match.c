/* apiserver/admission_match.c - what a rule of a webhook or a policy matches, and the request as they see
 * it (AdmissionRequest). */
#include "apiserver/admission.h"

#include "schema/select.h"

static bool is_namespaces(const struct resource *r)
{
    return streq(r->plural, "namespaces") && !*r->group;
}

/* The word, or "*". */
static bool named(const struct val *list, const char *word)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), "*") || streq(val_text(it, ""), word))
            return true;
    return false;
}

static bool scope_fits(const struct val *rule, const struct resource *r, const char *ns)
{
    const char *scope = val_str_at(rule, "scope", "*");
    bool cluster = is_namespaces(r) || str_empty(ns);

    return streq(scope, "*") || streq(scope, cluster ? "Cluster" : "Namespaced");
}

/* "pods", "pods/status", "pods/x", "x/status": with x = "*". */
static bool resource_fits(const struct val *rule, const char *plural, const char *sub)
{
    VAL_EACH(val_get(rule, "resources"), it) {
        const char *s = val_text(it, ""), *slash = strchr(s, '/');
        size_t n = slash ? (size_t)(slash - s) : strlen(s);
        bool main = (n == 1 && *s == '*') || (strlen(plural) == n && strncmp(s, plural, n) == 0);
        const char *want = slash ? slash + 1 : "";

        if (main && (streq(want, "*") || streq(want, sub)))
            return true;
    }
    return false;
}

static bool rule_fits(const struct val *rule, const struct admission *ad, const struct resource *r)
{
    return scope_fits(rule, r, ad->ns) && named(val_get(rule, "operations"), admission_op_text(ad->op)) &&
           named(val_get(rule, "apiGroups"), r->group) && named(val_get(rule, "apiVersions"), r->version) &&
           resource_fits(rule, r->plural, ad->sub);
}

static struct admission_as as_of(const struct call *c, const struct admission *ad, const struct resource *r)
{
    const struct subresource *sub = *ad->sub ? schema_sub(r, ad->sub) : NULL;

    (void)c;
    if (!sub || !sub->kind || (ad->in && streq(sub->kind, ad->in->kind)))
        return (struct admission_as){r, r->group, r->version, r->kind};
    return (struct admission_as){r, sub->group, sub->version, sub->kind};
}

bool admission_match_rules(struct call *c, const struct admission *ad, const struct val *rules,
                           bool equivalent, struct admission_as *ret)
{
    const struct resource *r;

    VAL_EACH(rules, rule)
        if (rule_fits(rule, ad, c->r)) {
            *ret = as_of(c, ad, c->r);
            return true;
        }
    if (!equivalent)
        return false;
    VAL_EACH(rules, rule)
        for (uint32_t i = 0; (r = schema_next(c->api->schema, &i));)
            if (r != c->r && streq(r->table, c->r->table) && streq(r->plural, c->r->plural) &&
                (!*ad->sub || schema_sub(r, ad->sub)) && rule_fits(rule, ad, r)) {
                *ret = as_of(c, ad, r);
                return true;
            }
    return false;
}

/* ---------------------------------------------------------------- selectors */

static bool labels_fit(struct call *c, const struct val *selector, const struct val *labels)
{
    struct err ignored = {0};
    struct selector *s = selector_of(c->a, selector, &ignored);

    return s && selector_match(s, labels);
}

static bool selects_all(const struct val *selector)
{
    return !val_len(val_get(selector, "matchLabels")) && !val_len(val_get(selector, "matchExpressions"));
}

int admission_match_namespace(struct call *c, const struct admission *ad, const struct val *selector)
{
    const struct obj *ns;

    if (str_empty(ad->ns) && !is_namespaces(c->r))
        return 1; /* nothing that lies in no namespace is spared by its labels */
    if (selects_all(selector))
        return 1;
    if (is_namespaces(c->r) && !*ad->sub && ad->v)
        return labels_fit(c, selector, val_at(ad->v, "metadata.labels"));
    if (!(ns = admission_namespace(c, ad))) {
        fail_not_found_in(c, "", "namespaces", ad->ns);
        return -1;
    }
    return labels_fit(c, selector, val_get(obj_meta(ns), "labels"));
}

bool admission_match_object(struct call *c, const struct admission *ad, const struct val *selector)
{
    const struct val *now = val_get(ad->v, "metadata"), *was = val_get(ad->old, "metadata");

    if (selects_all(selector))
        return true;
    return (now && labels_fit(c, selector, val_get(now, "labels"))) ||
           (was && labels_fit(c, selector, val_get(was, "labels")));
}

bool admission_exempt(const struct call *c)
{
    static const char *const kinds[] = {
        "ValidatingWebhookConfiguration",   "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",          "MutatingAdmissionPolicyBinding",
    };

    if (!streq(c->r->group, "admissionregistration.k8s.io"))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (streq(kinds[i], c->r->kind))
            return true;
    return false;
}

/* ---------------------------------------------------------------- the request */

const struct val *admission_convert(struct call *c, const struct admission *ad,
                                    const struct admission_as *as, const struct val *v)
{
    struct err err = {0};
    struct val *out;

    if (!v || !ad->in || as->r == ad->in)
        return v;
    out = val_copy(c->a, v);
    if (schema_convert(ad->in, as->r, c->a, out, &err) == 0)
        return out;
    fail(c, 500, "InternalError", "Internal error occurred: %s", err.msg);
    return NULL;
}

static struct val *kind_val(struct call *c, const char *group, const char *version, const char *kind)
{
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "group", group);
    val_put_str(c->a, v, "version", version);
    val_put_str(c->a, v, "kind", kind);
    return v;
}

static struct val *resource_val(struct call *c, const struct resource *r)
{
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "group", r->group);
    val_put_str(c->a, v, "version", r->version);
    val_put_str(c->a, v, "resource", r->plural);
    return v;
}

static struct val *user_val(struct call *c)
{
    struct val *v = val_map(c->a);
    const struct auth_user *u = c->user;

    if (!u)
        return v;
    val_put_str(c->a, v, "username", u->name);
    if (!str_empty(u->uid))
        val_put_str(c->a, v, "uid", u->uid);
    for (const char *const *g = u->groups; g && *g; g++)
        val_push_str(c->a, val_need_list(c->a, v, "groups"), *g);
    if (val_len(u->extra))
        val_put(c->a, v, "extra", u->extra);
    return v;
}

struct val *admission_request(struct call *c, struct admission *ad, const struct admission_as *as,
                              const struct val *object, const struct val *old)
{
    struct admission_as asked = as_of(c, ad, c->r);
    const struct val *options = admission_options(c, ad), *null = val_null(c->a);
    struct val *v = val_map(c->a);

    val_put(c->a, v, "kind", kind_val(c, as->group, as->version, as->kind));
    val_put(c->a, v, "resource", resource_val(c, as->r));
    if (*ad->sub)
        val_put_str(c->a, v, "subResource", ad->sub);
    val_put(c->a, v, "requestKind", kind_val(c, asked.group, asked.version, asked.kind));
    val_put(c->a, v, "requestResource", resource_val(c, asked.r));
    if (*ad->sub)
        val_put_str(c->a, v, "requestSubResource", ad->sub);
    if (!str_empty(ad->name))
        val_put_str(c->a, v, "name", ad->name);
    if (!str_empty(ad->ns))
        val_put_str(c->a, v, "namespace", ad->ns);
    val_put_str(c->a, v, "operation", admission_op_text(ad->op));
    val_put(c->a, v, "userInfo", user_val(c));
    val_put(c->a, v, "object", object ? object : null);
    val_put(c->a, v, "oldObject", old ? old : null);
    val_put_bool(c->a, v, "dryRun", c->o.dry_run);
    val_put(c->a, v, "options", options ? options : null);
    return v;
}
