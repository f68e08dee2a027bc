/* apiserver/reviews.c - kinds that are asked and never stored: who am I, may I, whose token is it;
 * and bindings, which change a pod. */
#include "apiserver/hooks.h"

static struct val *user_info(struct call *c, const struct auth_user *u)
{
    struct val *v = val_map(c->a), *groups = val_list(c->a);

    if (!u) {
        val_put_str(c->a, v, "username", "system:apiserver");
        val_push_str(c->a, groups, GROUP_MASTERS);
        val_put(c->a, v, "groups", groups);
        return v;
    }
    val_put_str(c->a, v, "username", u->name);
    if (!str_empty(u->uid))
        val_put_str(c->a, v, "uid", u->uid);
    for (const char *const *g = u->groups; g && *g; g++)
        val_push_str(c->a, groups, *g);
    if (val_len(groups))
        val_put(c->a, v, "groups", groups);
    if (val_len(u->extra))
        val_put(c->a, v, "extra", u->extra);
    return v;
}

static int self_subject(struct call *c, struct val *v)
{
    struct val *status = val_map(c->a);

    val_put_str(c->a, meta_of(c->a, v), "creationTimestamp", now_text(c));
    val_put(c->a, status, "userInfo", user_info(c, c->user));
    val_put(c->a, v, "status", status);
    answer_val(c, 201, v);
    return 0;
}

/* ---------------------------------------------------------------- may */

/* What a review says that it is about; only "namespace" of a local one may be there. */
static void check_review_meta(struct causes *bad, const struct val *v, bool local)
{
    VAL_EACH_MEMBER(val_get(v, "metadata"), m) {
        if (local && streq(m->key, "namespace"))
            continue;
        if (val_is_null(&m->v) || streq(m->key, "creationTimestamp"))
            continue;
        causes_add(bad, CAUSE_INVALID, "metadata", NULL, "must be empty%s",
                   local ? " except for namespace" : "");
        return;
    }
}

static void check_requirements(struct call *c, struct causes *bad, const struct val *ra,
                               const char *which)
{
    const struct val *sel = val_get(ra, which), *reqs = val_get(sel, "requirements");
    const char *path = arena_printf(c->a, "spec.resourceAttributes.%s", which);
    uint32_t i = 0;

    if (!val_is(sel, VAL_MAP))
        return;
    if (*val_str_at(sel, "rawSelector", "") && val_len(reqs))
        causes_add(bad, CAUSE_INVALID, arena_printf(c->a, "%s.rawSelector", path), NULL,
                   "may not specify both");
    if (!*val_str_at(sel, "rawSelector", "") && !val_len(reqs))
        causes_add(bad, CAUSE_REQUIRED, arena_printf(c->a, "%s.requirements", path), NULL, "%s", "");
    VAL_EACH(reqs, r) {
        const char *at = arena_printf(c->a, "%s.requirements[%u]", path, i++);
        const char *key = val_str_at(r, "key", ""), *op = val_str_at(r, "operator", "");
        bool values = val_len(val_get(r, "values")) > 0;

        if (streq(which, "labelSelector") && name_qualified(key))
            causes_add(bad, CAUSE_INVALID, arena_printf(c->a, "%s.key", at), val_str(c->a, key), "%s",
                       name_qualified(key));
        else if (!*key)
            causes_add(bad, CAUSE_REQUIRED, arena_printf(c->a, "%s.key", at), NULL, "%s", "");
        if (streq(op, "In") || streq(op, "NotIn")) {
            if (!values)
                causes_add(bad, CAUSE_REQUIRED, arena_printf(c->a, "%s.values", at), NULL,
                           "must be specified when `operator` is 'In' or 'NotIn'");
        } else if (streq(op, "Exists") || streq(op, "DoesNotExist")) {
            if (values)
                causes_add(bad, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.values", at), NULL,
                           "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
    }
}

static int check_access_review(struct call *c, const struct val *v, bool self, bool local)
{
    const struct val *spec = val_get(v, "spec"), *ra = val_get(spec, "resourceAttributes");
    const struct val *na = val_get(spec, "nonResourceAttributes");
    struct causes bad = {.a = c->a};

    if (ra && na)
        causes_add(&bad, CAUSE_INVALID, "spec.nonResourceAttributes", NULL,
                   "cannot be specified in combination with resourceAttributes");
    if (!ra && !na)
        causes_add(&bad, CAUSE_INVALID, "spec.resourceAttributes", NULL,
                   "exactly one of nonResourceAttributes or resourceAttributes must be specified");
    if (!self && !*val_str_at(spec, "user", "") && !val_len(val_get(spec, "groups")))
        causes_add(&bad, CAUSE_INVALID, "spec.user", NULL,
                   "at least one of user or group must be specified");
    if (ra) {
        check_requirements(c, &bad, ra, "labelSelector");
        check_requirements(c, &bad, ra, "fieldSelector");
    }
    check_review_meta(&bad, v, local);
    if (local && ra && !streq(val_str_at(ra, "namespace", ""), c->path.ns))
        causes_add(&bad, CAUSE_INVALID, "spec.resourceAttributes.namespace", NULL,
                   "must match metadata.namespace");
    if (local && na)
        causes_add(&bad, CAUSE_INVALID, "spec.nonResourceAttributes", NULL,
                   "disallowed on this kind of request");
    return bad.n ? fail_causes_of(c, &bad, c->r->group, "", "") : 0;
}

/* A selector of a review as text. What can not be understood selects nothing narrower: it is left out,
 * so that nobody gets more by it. */
static const char *selector_text_of(struct arena *a, const struct val *sel)
{
    const char *raw = val_str_at(sel, "rawSelector", ""), *text = "";

    if (*raw)
        return raw;
    VAL_EACH(val_get(sel, "requirements"), r) {
        const char *key = val_str_at(r, "key", ""), *op = val_str_at(r, "operator", "");
        const struct val *values = val_get(r, "values");
        const char *part = NULL;

        if (streq(op, "In") && val_len(values) == 1)
            part = arena_printf(a, "%s=%s", key, val_text(&values->items[0], ""));
        else if (streq(op, "NotIn") && val_len(values) == 1)
            part = arena_printf(a, "%s!=%s", key, val_text(&values->items[0], ""));
        if (part)
            text = *text ? arena_printf(a, "%s,%s", text, part) : part;
    }
    return text;
}

static int access_review(struct call *c, struct val *v)
{
    bool self = streq(c->r->kind, "SelfSubjectAccessReview");
    bool local = streq(c->r->kind, "LocalSubjectAccessReview");
    enum authz_verdict verdict;
    const struct val *spec = val_get(v, "spec"), *ra = val_get(spec, "resourceAttributes");
    struct auth_user named = {0};
    const struct auth_user *u = c->user;
    struct rbac_ask q;
    struct val *status = val_map(c->a);
    const char *reason = "";

    if (check_access_review(c, v, self, local) < 0)
        return -1;
    if (!self) {
        const struct val *groups = val_get(spec, "groups");
        const char **list = arena_array(c->a, const char *, val_len(groups) + 1);
        int n = 0;

        VAL_EACH(groups, g)
            list[n++] = val_text(g, "");
        named = (struct auth_user){.name = val_str_at(spec, "user", ""),
                                   .uid = val_str_at(spec, "uid", ""), .groups = list,
                                   .extra = val_get(spec, "extra")};
        u = &named;
    }
    if (ra)
        q = (struct rbac_ask){.verb = val_str_at(ra, "verb", ""), .group = val_str_at(ra, "group", ""),
                              .resource = val_str_at(ra, "resource", ""),
                              .subresource = val_str_at(ra, "subresource", ""),
                              .ns = val_str_at(ra, "namespace", ""), .name = val_str_at(ra, "name", ""),
                              .version = val_str_at(ra, "version", ""),
                              .field_selector = selector_text_of(c->a, val_get(ra, "fieldSelector")),
                              .label_selector = selector_text_of(c->a, val_get(ra, "labelSelector"))};
    else
        q = (struct rbac_ask){.verb = val_str_at(spec, "nonResourceAttributes.verb", ""),
                              .path = val_str_at(spec, "nonResourceAttributes.path", ""),
                              .group = "", .resource = "", .subresource = "", .ns = "", .name = ""};
    verdict = access_verdict(c, u, &q, &reason);
    if (verdict == AUTHZ_WAIT)
        return -1;
    val_put_bool(c->a, status, "allowed", verdict == AUTHZ_ALLOW);
    if (verdict == AUTHZ_DENY)
        val_put_bool(c->a, status, "denied", true);
    if (*reason)
        val_put_str(c->a, status, "reason", reason);
    val_put(c->a, v, "status", status);
    if (local)
        val_put_str(c->a, meta_of(c->a, v), "namespace", c->path.ns);
    answer_val(c, 201, v);
    return 0;
}

static int rules_review(struct call *c, struct val *v)
{
    const char *ns = val_str_at(v, "spec.namespace", "");
    struct val *status = val_map(c->a), *rules = val_list(c->a), *urls = val_list(c->a);
    static const char *const masters[] = {GROUP_MASTERS, NULL};
    struct auth_user self = {.name = "system:apiserver", .groups = masters};

    if (!*ns)
        return fail(c, 400, "BadRequest", "no namespace on request");
    rbac_rules(&c->api->rbac, c->user ? c->user : &self, ns, c->a, rules, urls);
    val_put(c->a, status, "resourceRules", rules);
    val_put(c->a, status, "nonResourceRules", urls);
    val_put_bool(c->a, status, "incomplete", node_of_user(c->user) != NULL);
    if (node_of_user(c->user))
        val_put_str(c->a, status, "evaluationError", "node authorizer does not support user rule resolution");
    val_put(c->a, v, "spec", val_map(c->a)); /* upstream answers without what was asked */
    val_put(c->a, v, "status", status);
    answer_val(c, 201, v);
    return 0;
}

/* ---------------------------------------------------------------- tokens */

static int token_review(struct call *c, struct val *v)
{
    const char *token = val_str_at(v, "spec.token", "");
    struct authn_ask q = {.token = token, .audiences = val_at(v, "spec.audiences"),
                          .now_s = c->now_ms / 1000, .arena = c->a, .call = c};
    struct val *status = val_map(c->a);
    struct authn_answer got = {0};
    struct err err = {0};
    enum authn_result r;

    if (!*token)
        return fail(c, 400, "BadRequest", "token is required for TokenReview in authentication");
    r = authn_token(c->api->authn, &q, &got, &err);
    if (r == AUTHN_WAIT)
        return -1;
    if (r == AUTHN_OK) {
        val_put_bool(c->a, status, "authenticated", true);
        val_put(c->a, status, "user", user_info(c, &got.user));
        if (val_len(got.audiences))
            val_put(c->a, status, "audiences", got.audiences);
    } else {
        val_put(c->a, status, "user", val_map(c->a));
        val_put_str(c->a, status, "error", err.msg);
    }
    val_put(c->a, v, "status", status);
    answer_val(c, 201, v);
    return 0;
}

static int binding(struct call *c, struct val *v)
{
    const char *name = val_str_at(v, "metadata.name", "");

    if (!*name)
        return fail(c, 400, "BadRequest", "name of the pod is required");
    return bind_pod(c, name, v);
}

static const struct {
    const char *kind;
    int (*serve)(struct call *c, struct val *v);
} REVIEWS[] = {
    {"SelfSubjectReview", self_subject},        {"SelfSubjectAccessReview", access_review},
    {"SubjectAccessReview", access_review},     {"LocalSubjectAccessReview", access_review},
    {"SelfSubjectRulesReview", rules_review},   {"TokenReview", token_review},
    {"Binding", binding},
};

int review_create(struct call *c, struct val *v)
{
    for (size_t i = 0; i < ARRAY_LEN(REVIEWS); i++)
        if (streq(REVIEWS[i].kind, c->r->kind))
            return REVIEWS[i].serve(c, v);
    return fail_no_method(c);
}
