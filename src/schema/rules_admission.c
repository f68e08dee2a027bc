/* schema/rules_admission.c - admission registration, flow control, API services, device claims. */
#include "schema/rules_int.h"

#include "cel/cel.h"
#include "schema/deviceexpr.h"

#include <stdio.h>

static bool same(const struct val *x, const struct val *y)
{
    return (!x && !y) || (x && y && val_equal(x, y));
}

/* ---- webhooks and policies ---- */

HOOK(v_webhooks)
{
    const struct val *list = val_get(v, "webhooks");
    struct map seen = {0};
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *w = &list->items[i], *versions = val_get(w, "admissionReviewVersions");
        const char *name = val_str_at(w, "name", "");
        bool known = false;
        if (*name && map_put(&seen, name, (void *)(uintptr_t)w))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "webhooks[%u].name", i), val_get(w, "name"), "%s", "");
        for (uint32_t k = 0; k < val_items_n_(versions); k++) {
            const char *x = val_text(&versions->items[k], ""), *why = name_dns1035_label(x);
            bool again = false;
            for (uint32_t j = 0; j < k; j++)
                again |= streq(x, val_text(&versions->items[j], ""));
            known |= streq(x, "v1") || streq(x, "v1beta1");
            if (again || why)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "webhooks[%u].admissionReviewVersions[%u]", i, k),
                           &versions->items[k], "%s", again ? "duplicate version" : why);
        }
        if (val_len(versions) && !known)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "webhooks[%u].admissionReviewVersions", i),
                       versions, "must include at least one of v1, v1beta1");
    }
    map_done(&seen);
}

/* "https://host[:port]/path", no user, fragment, query. */
static void webhook_url(struct check *c, const struct val *url)
{
    const char *s = val_text(url, ""), *rest = s, *colon = strstr(s, "://");

    if (!str_starts(s, "https://"))
        check_fail(c, CAUSE_INVALID, "url", url, "'https' is the only allowed URL scheme");
    if (colon)
        rest = colon + 3;
    if (!colon || !*rest || *rest == '/')
        check_fail(c, CAUSE_INVALID, "url", url, "host must be specified");
    if (colon && memchr(rest, '@', strcspn(rest, "/?#")))
        check_fail(c, CAUSE_INVALID, "url", url, "user information is not permitted in the URL");
    if (strchr(s, '#'))
        check_fail(c, CAUSE_INVALID, "url", url, "fragments are not permitted in the URL");
    if (strchr(s, '?'))
        check_fail(c, CAUSE_INVALID, "url", url, "query parameters are not permitted in the URL");
}

static void service_path(struct check *c, const struct val *path)
{
    const char *s = val_text(path, ""), *p;
    uint32_t i = 0;

    if (!*s || streq(s, "/"))
        return;
    if (*s != '/')
        check_fail(c, CAUSE_INVALID, "service.path", path, "must start with a '/'");
    for (p = *s == '/' ? s + 1 : s;; i++) {
        size_t n = strcspn(p, "/");
        char *part = arena_strndup(c->a, p, n);
        const char *why = name_dns_subdomain(part);
        if (!n && p[n])
            check_fail(c, CAUSE_INVALID, "service.path", path, "segment[%u] may not be empty", i);
        else if (n && why)
            check_fail(c, CAUSE_INVALID, "service.path", path, "segment[%u]: %s", i, why);
        if (!p[n])
            return;
        p += n + 1;
    }
}

HOOK(v_webhook_client)
{
    const struct val *url = val_get(v, "url"), *svc = val_get(v, "service");
    (void)old;

    if ((url != NULL) == (svc != NULL))
        check_fail(c, CAUSE_REQUIRED, "", NULL, "exactly one of url or service is required");
    else if (url)
        webhook_url(c, url);
    if (!svc)
        return;
    if (!*val_str_at(svc, "name", "")) /* upstream has the two the other way round */
        check_fail(c, CAUSE_REQUIRED, "service.namespace", NULL, "service name is required");
    if (!*val_str_at(svc, "namespace", ""))
        check_fail(c, CAUSE_REQUIRED, "service.name", NULL, "service namespace is required");
    const struct val *port = val_get(svc, "port");
    service_path(c, val_get(svc, "path"));
    if (port && (port->i < 1 || port->i > 65535))
        check_fail(c, CAUSE_INVALID, "service.port", port, "port is not valid: must be between 1 and 65535, inclusive");
}

static bool has_star(const struct val *list)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), "*"))
            return true;
    return false;
}

static bool same_half(const char *x, size_t n, const char *y, size_t m)
{
    return n == m && memcmp(x, y, n) == 0;
}

/* Of "pods", "pods/status", a star for all, and stars in either half: what one says, another may not say again. */
static void check_resources(struct check *c, const struct val *list)
{
    bool all = false, star = false, plain = false;

    for (uint32_t i = 0; i < list->n; i++) {
        const char *s = val_text(&list->items[i], ""), *slash = strchr(s, '/');

        all |= streq(s, "*/*");
        star |= streq(s, "*");
        if (!slash) {
            plain = !streq(s, "*");
            continue;
        }
        for (uint32_t k = 0; k < i; k++) {
            const char *t = val_text(&list->items[k], ""), *mid = strchr(t, '/');

            if (mid && streq(mid + 1, "*") && same_half(t, (size_t)(mid - t), s, (size_t)(slash - s)))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "resources[%u]", i), &list->items[i],
                           "if '%.*s/*' is present, must not specify %s", (int)(mid - t), t, s);
            if (mid && *t == '*' && mid == t + 1 && streq(mid + 1, slash + 1))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "resources[%u]", i), &list->items[i],
                           "if '*/%s' is present, must not specify %s", mid + 1, s);
        }
    }
    if (list->n > 1 && all)
        check_fail(c, CAUSE_INVALID, "resources", list, "if '*/*' is present, must not specify other resources");
    if (star && plain)
        check_fail(c, CAUSE_INVALID, "resources", list,
                   "if '*' is present, must not specify other resources without subresources");
}

HOOK(v_admission_rule)
{
    static const char *const ops[] = {"*", "CREATE", "UPDATE", "DELETE", "CONNECT"};
    static const char *const lists[] = {"apiGroups", "apiVersions", "resources"};
    const struct val *operations = val_get(v, "operations");
    (void)old;

    if (!val_len(operations))
        check_fail(c, CAUSE_REQUIRED, "operations", NULL, "%s", "");
    if (has_star(operations) && operations->n > 1)
        check_fail(c, CAUSE_INVALID, "operations", operations, "if '*' is present, must not specify other operations");
    for (uint32_t i = 0; i < val_items_n_(operations); i++) {
        bool known = false;
        for (uint32_t k = 0; k < ARRAY_LEN(ops); k++)
            known |= streq(ops[k], val_text(&operations->items[i], ""));
        if (!known)
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "operations[%u]", i),
                       &operations->items[i], "supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"");
    }
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(v, lists[l]);
        if (!val_len(list))
            check_fail(c, CAUSE_REQUIRED, lists[l], NULL, "%s", "");
        else if (l < 2 && has_star(list) && list->n > 1)
            check_fail(c, CAUSE_INVALID, lists[l], list, "if '*' is present, must not specify other values");
        else if (l == 2)
            check_resources(c, list);
        for (uint32_t i = 0; l && i < val_items_n_(list); i++)
            if (!*val_text(&list->items[i], ""))
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s[%u]", lists[l], i), NULL, "%s", "");
    }
}

HOOK(v_match_resources)
{
    (void)old;
    if (streq(c->path, "spec.matchConstraints") && !val_len(val_get(v, "resourceRules")))
        check_fail(c, CAUSE_REQUIRED, "resourceRules", NULL, "%s", "");
}

HOOK(v_policy_spec)
{
    static const char *const ops[] = {"*", "CREATE", "UPDATE"};
    bool validating = streq(c->r->kind, "ValidatingAdmissionPolicy");
    (void)old;

    VAL_EACH(validating ? NULL : val_at(v, "matchConstraints.resourceRules"), rule)
        VAL_EACH(val_get(rule, "operations"), op) { /* what can be changed; told without an index */
            bool known = false;
            for (uint32_t i = 0; i < ARRAY_LEN(ops); i++)
                known |= streq(ops[i], val_text(op, ""));
            if (!known)
                check_fail(c, CAUSE_NOT_SUPPORTED, "matchConstraints.resourceRules.operations", op,
                           "supported values: \"*\", \"CREATE\", \"UPDATE\"");
        }
    if (!validating)
        return;
    if (!val_len(val_get(v, "validations")) && !val_len(val_get(v, "auditAnnotations"))) {
        check_fail(c, CAUSE_REQUIRED, "validations", NULL, "validations or auditAnnotations must contain at least one item");
        check_fail(c, CAUSE_REQUIRED, "auditAnnotations", NULL, "validations or auditAnnotations must contain at least one item");
    }
}

HOOK(v_mutation)
{
    const char *type = val_str_at(v, "patchType", "");
    (void)old;

    if (streq(type, "ApplyConfiguration")) {
        if (!val_get(v, "applyConfiguration"))
            check_fail(c, CAUSE_REQUIRED, "applyConfiguration", NULL, "%s", "");
        if (val_get(v, "jsonPatch"))
            check_fail(c, CAUSE_INVALID, "jsonPatch", val_get(v, "jsonPatch"), "not supported when patchType is ApplyConfiguration");
    } else if (streq(type, "JSONPatch")) {
        if (!val_get(v, "jsonPatch"))
            check_fail(c, CAUSE_REQUIRED, "jsonPatch", NULL, "%s", "");
        if (val_get(v, "applyConfiguration"))
            check_fail(c, CAUSE_INVALID, "applyConfiguration", val_get(v, "applyConfiguration"), "not supported when patchType is JSONPatch");
    }
}

HOOK(v_param_ref)
{
    bool name = *val_str_at(v, "name", ""), sel = val_get(v, "selector") != NULL;
    (void)old;

    if (name && sel) {
        check_fail(c, CAUSE_FORBIDDEN, "name", NULL, "name and selector are mutually exclusive");
        check_fail(c, CAUSE_FORBIDDEN, "selector", NULL, "name and selector are mutually exclusive");
    } else if (!name && !sel) {
        check_fail(c, CAUSE_REQUIRED, "", NULL, "one of name or selector must be specified");
    }
}

HOOK(v_binding_actions)
{
    bool deny = false, warn = false;
    (void)old;

    VAL_EACH(val_get(v, "validationActions"), a) {
        deny |= streq(val_text(a, ""), "Deny");
        warn |= streq(val_text(a, ""), "Warn");
    }
    if (deny && warn)
        check_fail(c, CAUSE_INVALID, "validationActions", val_get(v, "validationActions"), "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
}

/* ---- flow control ---- */

/* The first place is that of the one that exempts. */
HOOK(v_flow_schema)
{
    const struct val *place = val_at(v, "spec.matchingPrecedence");
    (void)old;

    if (!*c->sub && place && val_is(place, VAL_INT) && place->i == 1 && !streq(val_str_at(v, "metadata.name", ""), "exempt"))
        check_fail(c, CAUSE_INVALID, "spec.matchingPrecedence", place, "only the schema named 'exempt' may have matchingPrecedence 1");
}

HOOK(v_flow_rule)
{
    (void)old;
    if (!val_len(val_get(v, "resourceRules")) && !val_len(val_get(v, "nonResourceRules")))
        check_fail(c, CAUSE_REQUIRED, "", NULL, "at least one of resourceRules and nonResourceRules has to be non-empty");
}

HOOK(v_flow_subject)
{
    static const struct {
        const char *kind, *member;
    } known[] = {{"User", "user"}, {"Group", "group"}, {"ServiceAccount", "serviceAccount"}};
    const char *kind = val_str_at(v, "kind", "");
    (void)old;

    bool known_kind = streq(kind, "User") || streq(kind, "Group") || streq(kind, "ServiceAccount");
    if (!*kind)
        check_fail(c, CAUSE_NOT_SUPPORTED, "kind", val_get(v, "kind"), "supported values: \"Group\", \"ServiceAccount\", \"User\"");
    for (uint32_t i = 0; i < ARRAY_LEN(known); i++) {
        const struct val *m = val_get(v, known[i].member);
        bool mine = streq(kind, known[i].kind);
        if (mine && !m)
            check_fail(c, CAUSE_REQUIRED, known[i].member, NULL, "%s is required when subject kind is '%s'", known[i].member, kind);
        else if (!mine && m && known_kind)
            check_fail(c, CAUSE_FORBIDDEN, known[i].member, NULL, "%s is forbidden when subject kind is not '%s'", known[i].member, known[i].kind);
        if (!mine || !m)
            continue;
        const char *name = val_str_at(m, "name", ""), *ns = val_str_at(m, "namespace", ""), *why;
        if (!*name)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", known[i].member), NULL, "%s", "");
        else if (i == 2 && !streq(name, "*") && (why = name_dns_subdomain(name)))
            check_fail(c, CAUSE_INVALID, "serviceAccount.name", val_get(m, "name"), "%s", why);
        if (i == 2 && !*ns)
            check_fail(c, CAUSE_REQUIRED, "serviceAccount.namespace", NULL, "must specify namespace for service account");
        else if (i == 2 && !streq(ns, "*") && (why = name_dns_label(ns)))
            check_fail(c, CAUSE_INVALID, "serviceAccount.namespace", val_get(m, "namespace"), "%s", why);
    }
}

static void flow_verbs(struct check *c, const struct val *verbs)
{
    static const char *const known[] = {"*", "get", "list", "create", "update", "delete", "deletecollection",
                                        "patch", "watch", "proxy", "post", "put", "head", "options", "connect",
                                        "impersonate", "bind", "escalate", "use", "approve", "sign", "attest"};

    if (has_star(verbs) && verbs->n > 1)
        check_fail(c, CAUSE_INVALID, "verbs", verbs, "if '*' is present, must not specify other verbs");
    VAL_EACH(verbs, verb) {
        bool ok = false;
        for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
            ok |= streq(known[i], val_text(verb, ""));
        if (!ok) {
            check_fail(c, CAUSE_NOT_SUPPORTED, "verbs", verbs, "supported values: as documented");
            break;
        }
    }
}

HOOK(v_flow_resource_rule)
{
    const struct val *ns = val_get(v, "namespaces");
    bool cluster = val_bool_at(v, "clusterScope", false);
    (void)old;

    flow_verbs(c, val_get(v, "verbs"));
    if (has_star(val_get(v, "apiGroups")) && val_get(v, "apiGroups")->n > 1)
        check_fail(c, CAUSE_INVALID, "apiGroups", val_get(v, "apiGroups"), "if '*' is present, must not specify other api groups");
    if (has_star(val_get(v, "resources")) && val_get(v, "resources")->n > 1)
        check_fail(c, CAUSE_INVALID, "resources", val_get(v, "resources"), "if '*' is present, must not specify other resources");
    if (!val_len(ns) && !cluster)
        check_fail(c, CAUSE_REQUIRED, "namespaces", NULL, "resource rules that are not cluster scoped must supply at least one namespace");
    if (has_star(ns) && ns->n > 1)
        check_fail(c, CAUSE_INVALID, "namespaces", ns, "if '*' is present, must not specify other namespaces");
    for (uint32_t i = 0; i < val_items_n_(ns); i++) {
        const char *s = val_text(&ns->items[i], ""), *why;
        if (!streq(s, "*") && (why = name_dns_label(s)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "namespaces[%u]", i), &ns->items[i], "%s", why);
    }
}

HOOK(v_flow_url_rule)
{
    const struct val *urls = val_get(v, "nonResourceURLs");
    (void)old;

    flow_verbs(c, val_get(v, "verbs"));
    if (has_star(urls)) {
        if (urls->n > 1)
            check_fail(c, CAUSE_INVALID, "nonResourceURLs", urls, "if '*' is present, must not specify other non-resource URLs");
        return;
    }
    for (uint32_t i = 0; i < val_items_n_(urls); i++) {
        const char *s = val_text(&urls->items[i], ""), *star = strchr(s, '*');
        bool bad = *s != '/' || strchr(s, ' ') || strstr(s, "//") || (star && (star[1] || star == s || star[-1] != '/'));
        if (bad)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "nonResourceURLs[%u]", i), &urls->items[i], "must start with a '/' and hold no '//', ' ', nor '*' but at its end");
    }
}

HOOK(v_priority_level)
{
    const char *type = val_str_at(v, "type", ""), *name = val_str_at(c->root, "metadata.name", "");
    (void)old;

    if (streq(name, "exempt") ? streq(type, "Limited") : streq(type, "Exempt"))
        check_fail(c, CAUSE_INVALID, "type", val_get(v, "type"), "type must be 'Exempt' if and only if name is 'exempt'");
    if (streq(type, "Limited") && !val_get(v, "limited"))
        check_fail(c, CAUSE_REQUIRED, "limited", NULL, "must not be empty when type is Limited");
    if (streq(type, "Exempt") && val_get(v, "limited"))
        check_fail(c, CAUSE_FORBIDDEN, "limited", NULL, "must be nil if the type is not Limited");
    if (streq(type, "Limited") && val_get(v, "exempt"))
        check_fail(c, CAUSE_FORBIDDEN, "exempt", NULL, "must be nil if the type is Limited");
}

HOOK(v_limit_response)
{
    const char *type = val_str_at(v, "type", "");
    const struct val *q = val_get(v, "queuing");
    (void)old;

    if (!*type)
        check_fail(c, CAUSE_REQUIRED, "type", NULL, "limit response must be specified");
    if (streq(type, "Reject") && q)
        check_fail(c, CAUSE_FORBIDDEN, "queuing", NULL, "must be nil if limited.limitResponse.type is not Limited");
    if (streq(type, "Queue") && !q)
        check_fail(c, CAUSE_REQUIRED, "queuing", NULL, "must not be empty if limited.limitResponse.type is Limited");
    if (q && val_int_at(q, "handSize", 0) > val_int_at(q, "queues", 0))
        check_fail(c, CAUSE_INVALID, "queuing.handSize", val_get(q, "handSize"), "should not be greater than queues (%lld)", (long long)val_int_at(q, "queues", 0));
}

/* ---- API services ---- */

HOOK(v_apiservice)
{
    const struct val *spec = val_get(v, "spec"), *svc = val_get(spec, "service");
    const char *group = val_str_at(spec, "group", ""), *version = val_str_at(spec, "version", ""), *why;
    const char *name = val_str_at(v, "metadata.name", "");
    (void)old;

    if (*c->sub)
        return;
    const char *want = arena_printf(c->a, "%s.%s", version, group);
    if (*name && !streq(name, want))
        check_fail(c, CAUSE_INVALID, "metadata.name", val_at(v, "metadata.name"), "must be `spec.version+\".\"+spec.group`: %s", want);
    if (!*group && !streq(version, "v1"))
        check_fail(c, CAUSE_REQUIRED, "spec.group", NULL, "only v1 may have an empty group and it better be legacy kube");
    if (*group && (why = name_dns_subdomain(group)))
        check_fail(c, CAUSE_INVALID, "spec.group", val_get(spec, "group"), "%s", why);
    if ((why = name_dns1035_label(version)))
        check_fail(c, CAUSE_INVALID, "spec.version", val_get(spec, "version"), "%s", why);
    int64_t group_min = val_int_at(spec, "groupPriorityMinimum", 0), prio = val_int_at(spec, "versionPriority", 0);
    if (group_min <= 0 || group_min > 20000)
        check_fail(c, CAUSE_INVALID, "spec.groupPriorityMinimum", val_get(spec, "groupPriorityMinimum"), "must be positive and less than 20000");
    if (prio <= 0 || prio > 1000)
        check_fail(c, CAUSE_INVALID, "spec.versionPriority", val_get(spec, "versionPriority"), "must be positive and less than 1000");
    bool skip = val_bool_at(spec, "insecureSkipTLSVerify", false);
    if (!svc) {
        if (*val_str_at(spec, "caBundle", ""))
            check_fail(c, CAUSE_INVALID, "spec.caBundle", NULL, "local APIServices may not have a caBundle");
        if (skip)
            check_fail(c, CAUSE_INVALID, "spec.insecureSkipTLSVerify", val_get(spec, "insecureSkipTLSVerify"), "local APIServices may not have insecureSkipTLSVerify");
        return;
    }
    if (!*val_str_at(svc, "namespace", ""))
        check_fail(c, CAUSE_REQUIRED, "spec.service.namespace", NULL, "%s", "");
    if (!*val_str_at(svc, "name", ""))
        check_fail(c, CAUSE_REQUIRED, "spec.service.name", NULL, "%s", "");
    int64_t port = val_int_at(svc, "port", 443);
    if (port < 1 || port > 65535)
        check_fail(c, CAUSE_INVALID, "spec.service.port", val_get(svc, "port"), "port is not valid: must be between 1 and 65535, inclusive");
    if (skip && *val_str_at(spec, "caBundle", ""))
        check_fail(c, CAUSE_INVALID, "spec.insecureSkipTLSVerify", val_get(spec, "insecureSkipTLSVerify"), "may not be true if caBundle is present");
}

/* ---- device claims ---- */

HOOK(v_cel_selector)
{
    const struct val *expr = val_get(v, "expression");
    const char *s = val_text(expr, ""), *issues = NULL;

    if (old && expr && val_get(old, "expression") && val_equal(expr, val_get(old, "expression")))
        return; /* what was taken once stays */
    if (strlen(s) > 10 * 1024) {
        check_fail(c, CAUSE_TOO_LONG, "expression", NULL, "may not be more than 10240 bytes");
        return;
    }
    _auto_(cel_env_freep) struct cel_env *env = device_env(c->a, NULL);
    _auto_(cel_prog_freep) struct cel_prog *p = cel_compile(env, s, strlen(s), c->a, &issues);
    if (!p)
        check_fail(c, CAUSE_INVALID, "expression", expr, "compilation failed: %s", issues);
    else if (cel_prog_type(p)->kind != CEL_BOOL && cel_prog_type(p)->kind != CEL_DYN)
        check_fail(c, CAUSE_INVALID, "expression", expr, "must evaluate to bool or the unknown type");
}

HOOK(v_opaque_config)
{
    const struct val *p = val_get(v, "parameters");
    (void)old;

    if (p && p->type != VAL_NULL && p->type != VAL_MAP)
        check_fail(c, CAUSE_INVALID, "parameters", p, "must be an object");
}

/* "domain/name", both of C's letters. */
static void qualified_attribute(struct check *c, const char *rel, const struct val *v)
{
    const char *s = val_text(v, ""), *slash = strchr(s, '/'), *name = slash ? slash + 1 : s;
    const struct named_check *ident = named_check_find("c-identifier", 12);

    if (!slash)
        check_fail(c, CAUSE_INVALID, rel, v, "must include the driver domain");
    else if (name_dns_subdomain(arena_strndup(c->a, s, (size_t)(slash - s))))
        check_fail(c, CAUSE_INVALID, rel, v, "%s", name_dns_subdomain(arena_strndup(c->a, s, (size_t)(slash - s))));
    if (strlen(name) > 32)
        check_fail(c, CAUSE_TOO_LONG, rel, NULL, "may not be more than 32 bytes");
    if (ident->fn(name))
        check_fail(c, CAUSE_INVALID, rel, v, "%s", ident->fn(name));
}

HOOK(v_device_request)
{
    bool exactly = val_get(v, "exactly"), first = val_len(val_get(v, "firstAvailable"));
    (void)old;

    if (!exactly && !first)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "exactly one of `exactly` or `firstAvailable` is required");
    const struct val *list = val_get(v, "firstAvailable");
    struct map seen = {0};
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *name = val_str_at(&list->items[i], "name", "");
        if (map_put(&seen, *name ? name : " ", (void *)(uintptr_t)list))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "firstAvailable[%u]", i), val_get(&list->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    if (exactly && first)
        check_fail(c, CAUSE_INVALID, "", v, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set");
}

static bool known_request(const struct val *requests, const char *name)
{
    VAL_EACH(requests, r) {
        const char *own = val_str_at(r, "name", "");
        size_t n = strlen(own);
        if (streq(own, name))
            return true;
        if (strncmp(own, name, n) == 0 && name[n] == '/')
            VAL_EACH(val_get(r, "firstAvailable"), s)
                if (streq(val_str_at(s, "name", ""), name + n + 1))
                    return true;
    }
    return false;
}

HOOK(v_device_claim)
{
    static const char *const lists[] = {"constraints", "config"};
    const struct val *requests = val_get(v, "requests");
    struct map seen = {0};
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(requests); i++) {
        const char *name = val_str_at(&requests->items[i], "name", "");
        if (*name && map_put(&seen, name, (void *)(uintptr_t)requests))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "requests[%u]", i), val_get(&requests->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(v, lists[l]);
        for (uint32_t i = 0; i < val_items_n_(list); i++) {
            const struct val *names = val_get(&list->items[i], "requests");
            const struct val *match = val_get(&list->items[i], "matchAttribute");
            if (l == 0 && !match && !val_get(&list->items[i], "distinctAttribute"))
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "constraints[%u]", i), NULL,
                           "exactly one of the constraint types is required");
            if (l == 0 && match)
                qualified_attribute(c, arena_printf(c->a, "constraints[%u].matchAttribute", i), match);
            for (uint32_t k = 0; k < val_items_n_(names); k++) {
                const char *at = arena_printf(c->a, "%s[%u].requests[%u]", lists[l], i, k);
                char *own = arena_strdup(c->a, val_text(&names->items[k], "")), *sub = strchr(own, '/');
                if (sub)
                    *sub++ = 0;
                const char *why = name_dns_label(own);
                for (uint32_t j = 0; j < k; j++)
                    if (val_equal(&names->items[j], &names->items[k])) {
                        check_fail(c, CAUSE_DUPLICATE, at, &names->items[k], "%s", "");
                        break;
                    }
                if (why)
                    check_fail(c, CAUSE_INVALID, at, &names->items[k], "%s", why);
                if (sub && (why = name_dns_label(sub)))
                    check_fail(c, CAUSE_INVALID, at, &names->items[k], "%s", why);
            }
            for (uint32_t k = 0; k < val_items_n_(names); k++)
                if (!known_request(requests, val_text(&names->items[k], "")))
                    check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].requests[%u]", lists[l], i, k),
                               &names->items[k], "must be the name of a request in the claim");
        }
    }
}

/* "NAME", or "NAME/SUB" of one that has several to choose from. */
static bool claim_asks(const struct val *requests, const char *name)
{
    size_t n = strcspn(name, "/");

    VAL_EACH(requests, r) {
        const char *main = val_str_at(r, "name", "");

        if (strlen(main) != n || strncmp(main, name, n) != 0)
            continue;
        if (!name[n])
            return true;
        VAL_EACH(val_get(r, "firstAvailable"), s)
            if (streq(val_str_at(s, "name", ""), name + n + 1))
                return true;
    }
    return false;
}

static void claim_status(struct check *c, const struct val *v)
{
    const struct val *results = val_at(v, "status.allocation.devices.results");
    const struct val *requests = val_at(v, "spec.devices.requests");

    if (val_len(val_at(v, "status.reservedFor")) && !val_at(v, "status.allocation"))
        check_fail(c, CAUSE_FORBIDDEN, "status.reservedFor", NULL, "may not be specified when `allocated` is not set");
    for (uint32_t i = 0; i < val_items_n_(results); i++) {
        const char *name = val_str_at(&results->items[i], "request", "");

        if (*name && !claim_asks(requests, name))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.allocation.devices.results[%u].request", i),
                       val_get(&results->items[i], "request"), "must be the name of a request in the claim");
    }
}

HOOK(v_resourceclaim)
{
    if (streq(c->sub, "status"))
        claim_status(c, v);
    if (old && !*c->sub && !same(val_get(v, "spec"), val_get(old, "spec")))
        check_fail(c, CAUSE_INVALID, "spec", val_get(v, "spec"), "field is immutable");
}

HOOK(v_resourceclaimtemplate)
{
    validate_labels(c, "spec.metadata.labels", val_at(v, "spec.metadata.labels"));
    if (old && !same(val_get(v, "spec"), val_get(old, "spec")))
        check_fail(c, CAUSE_INVALID, "spec", val_get(v, "spec"), "field is immutable");
}

HOOK(v_device_attribute)
{
    static const char *const kinds[] = {"int", "bool", "string", "version", "ints", "bools", "strings", "versions"};
    uint32_t n = 0;
    (void)old;

    for (uint32_t i = 0; i < ARRAY_LEN(kinds); i++)
        n += !val_is_null(val_get(v, kinds[i]));
    if (n != 1)
        check_fail(c, CAUSE_INVALID, "", v, n ? "may have only one of the values" : "exactly one value must be specified");
}

HOOK(v_resourceslice)
{
    const struct val *devices = val_get(v, "devices");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(devices); i++) {
        const char *name = val_str_at(&devices->items[i], "name", "");
        if (*name && map_put(&seen, name, (void *)(uintptr_t)devices))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "devices[%u]", i), val_get(&devices->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    static const char *const nodes[] = {"nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"};
    uint32_t n = 0;
    (void)old;

    for (uint32_t i = 0; i < ARRAY_LEN(nodes); i++) {
        const struct val *x = val_get(v, nodes[i]);
        n += x && !(x->type == VAL_BOOL && !x->b) && !(x->type == VAL_STR && !x->n);
    }
    if (n == 0)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required");
    if (n > 1)
        check_fail(c, CAUSE_INVALID, "", v, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set");
}
