/* schema/rules_net.c - networking, discovery, rbac, storage, node, scheduling, certificates. */
#include "schema/rules_int.h"

#include <stdio.h>

static const char *why_of(const char *check, const char *s)
{
    const struct named_check *n = named_check_find(check, strlen(check));

    return n->fn(s);
}

static bool same(const struct val *x, const struct val *y)
{
    return (!x && !y) || (x && y && val_equal(x, y));
}

/* ---- network policies ---- */

HOOK(v_networkpolicy)
{
    (void)old;
    if (val_len(val_get(v, "policyTypes")) > 2)
        check_fail(c, CAUSE_INVALID, "policyTypes", val_get(v, "policyTypes"), "may not specify more than two policyTypes");
}

HOOK(v_netpol_port)
{
    const struct val *p = val_get(v, "port"), *end = val_get(v, "endPort");
    (void)old;

    if (val_is(p, VAL_INT) && (p->i < 1 || p->i > 65535))
        check_fail(c, CAUSE_INVALID, "port", p, "must be between 1 and 65535, inclusive");
    const char *whys[4];
    uint32_t bad = val_is(p, VAL_STR) ? name_whys(named_check_find("port-name", 9)->fn, p->s, whys) : 0;
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, "port", p, "%s", whys[i]);
    if (!end)
        return;
    if (!p)
        check_fail(c, CAUSE_INVALID, "endPort", end, "may not be specified when `port` is not specified");
    else if (val_is(p, VAL_STR))
        check_fail(c, CAUSE_INVALID, "endPort", end, "may not be specified when `port` is non-numeric");
    else if (end->i < p->i)
        check_fail(c, CAUSE_INVALID, "endPort", end, "must be greater than or equal to `port`");
    if (p && !val_is(p, VAL_STR) && (end->i < 1 || end->i > 65535))
        check_fail(c, CAUSE_INVALID, "endPort", end, "must be between 1 and 65535, inclusive");
}

HOOK(v_netpol_peer)
{
    const struct val *block = val_get(v, "ipBlock"), *except = val_get(block, "except");
    bool selects = val_get(v, "podSelector") || val_get(v, "namespaceSelector");
    (void)old;

    if (!block && !selects)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "must specify a peer");
    if (block && selects)
        check_fail(c, CAUSE_FORBIDDEN, "", NULL, "may not specify both ipBlock and another peer");
    const char *cidr = val_str_at(block, "cidr", "");
    for (uint32_t i = 0; i < val_items_n_(except); i++) {
        const char *e = val_text(&except->items[i], ""), *why = why_of("cidr", e);
        int bits = strchr(cidr, '/') ? atoi(strchr(cidr, '/') + 1) : 0;
        int ebits = strchr(e, '/') ? atoi(strchr(e, '/') + 1) : 0;
        unsigned x[4] = {0}, y[4] = {0};
        bool inside = true;
        if (sscanf(cidr, "%u.%u.%u.%u", &x[0], &x[1], &x[2], &x[3]) == 4 &&
            sscanf(e, "%u.%u.%u.%u", &y[0], &y[1], &y[2], &y[3]) == 4) {
            uint32_t a = x[0] << 24 | x[1] << 16 | x[2] << 8 | x[3];
            uint32_t b = y[0] << 24 | y[1] << 16 | y[2] << 8 | y[3];
            uint32_t mask = bits ? ~0u << (32 - bits) : 0;
            inside = (a & mask) == (b & mask) && ebits > bits;
        }
        if (why || !inside)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "ipBlock.except[%u]", i), &except->items[i], "%s",
                       why ? why : "must be a strict subset of `cidr`");
    }
}

/* ---- ingress ---- */

HOOK(v_ingress)
{
    const struct val *spec = val_get(v, "spec");
    (void)old;

    if (*c->sub)
        return;
    if (!val_len(val_get(spec, "rules")) && !val_get(spec, "defaultBackend"))
        check_fail(c, CAUSE_INVALID, "spec", val_get(spec, "rules"), "either `defaultBackend` or `rules` must be specified");
    const struct val *rules = val_get(spec, "rules");
    for (uint32_t i = 0; i < val_items_n_(rules); i++)
        if (!why_of("ip", val_str_at(&rules->items[i], "host", "x")))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.rules[%u].host", i),
                       val_get(&rules->items[i], "host"), "must be a DNS name, not an IP address");
}

HOOK(v_ingress_backend)
{
    const struct val *svc = val_get(v, "service"), *res = val_get(v, "resource");
    const struct val *name = val_at(svc, "port.name"), *num = val_at(svc, "port.number");
    const char *why;
    (void)old;

    if (svc && res) {
        check_fail(c, CAUSE_INVALID, "", v, "cannot set both resource and service backends");
    } else if (!svc && !res) {
        check_fail(c, CAUSE_INVALID, "", val_str(c->a, ""), "resource or service backend is required");
    } else if (svc) {
        bool named = name && name->n, counted = num && num->i;
        if (named && counted)
            check_fail(c, CAUSE_INVALID, "", v, "cannot set both port name & port number");
        else if (!named && !counted)
            check_fail(c, CAUSE_REQUIRED, "", NULL, "port name or number is required");
        else if (named && (why = why_of("port-name", name->s)))
            check_fail(c, CAUSE_INVALID, "service.port.name", name, "%s", why);
        else if (counted && (num->i < 1 || num->i > 65535))
            check_fail(c, CAUSE_INVALID, "service.port.number", num, "must be between 1 and 65535, inclusive");
    }
}

/* Steps into the backend of a path, which the engine leaves to us: it is not looked at when the
 * path has no type. */
static void ingress_backend(struct check *c, const char *rel, const struct val *v)
{
    static const struct val none = {.type = VAL_MAP};
    uint32_t mark = check_push(c, ".%s", rel);

    validate_struct(c, schema_type(c->r->schema, "networking.v1.IngressBackend"), v ? v : &none, NULL);
    check_pop(c, mark);
}

HOOK(v_ingress_path)
{
    const char *type = val_str_at(v, "pathType", ""), *path = val_str_at(v, "path", "");
    static const char *const bad[] = {"//", "/./", "/../", "%2f", "%2F"};
    static const char *const bad_end[] = {"/..", "/."};
    (void)old;

    if (val_is_null(val_get(v, "pathType"))) {
        check_fail(c, CAUSE_REQUIRED, "pathType", NULL, "pathType must be specified");
        return;
    }
    ingress_backend(c, "backend", val_get(v, "backend"));
    if (streq(type, "Exact") || streq(type, "Prefix")) {
        if (*path != '/')
            check_fail(c, CAUSE_INVALID, "path", val_get(v, "path"), "must be an absolute path");
        for (uint32_t i = 0; i < ARRAY_LEN(bad); i++)
            if (*path && strstr(path, bad[i]))
                check_fail(c, CAUSE_INVALID, "path", val_get(v, "path"), "must not contain '%s'", bad[i]);
        for (uint32_t i = 0; i < ARRAY_LEN(bad_end); i++)
            if (str_ends(path, bad_end[i]))
                check_fail(c, CAUSE_INVALID, "path", val_get(v, "path"), "cannot end with '%s'", bad_end[i]);
    } else if (streq(type, "ImplementationSpecific") && *path && *path != '/') {
        check_fail(c, CAUSE_INVALID, "path", val_get(v, "path"), "must be an absolute path");
    } else if (!streq(type, "ImplementationSpecific")) {
        check_fail(c, CAUSE_NOT_SUPPORTED, "pathType", val_get(v, "pathType"),
                   "supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"");
    }
}

HOOK(v_ingressclass_parameters)
{
    const char *scope = val_str_at(v, "scope", ""), *ns = val_str_at(v, "namespace", "");
    const char *why;
    (void)old;

    if (streq(scope, "Namespace")) {
        if (!val_get(v, "namespace"))
            check_fail(c, CAUSE_REQUIRED, "namespace", NULL, "`parameters.scope` is set to 'Namespace'");
        else if ((why = name_dns_label(ns)))
            check_fail(c, CAUSE_INVALID, "namespace", val_get(v, "namespace"), "%s", why);
    } else if (streq(scope, "Cluster") && val_get(v, "namespace")) {
        check_fail(c, CAUSE_FORBIDDEN, "namespace", NULL, "`parameters.scope` is set to 'Cluster'");
    }
}

/* One range, or two of different families; a second one may come later, no other change. */
HOOK(v_servicecidr)
{
    const struct val *list = val_get(v, "cidrs"), *had = val_get(old, "cidrs");
    uint32_t n = val_len(list), o = val_len(had), six = 0;
    bool valid = true;

    for (uint32_t i = 0; old && i < n && (n == o || (o == 1 && n == 2 && i == 0)); i++)
        if (!val_equal(&list->items[i], &had->items[i]))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "cidrs[%u]", i), &list->items[i], "field is immutable");
    if (old && n != o && !(o == 1 && n == 2))
        check_fail(c, CAUSE_INVALID, "cidrs", list, "field is immutable");
    if (old && !(o == 1 && n == 2))
        return;
    if (!n) {
        check_fail(c, CAUSE_REQUIRED, "cidrs", NULL, "at least one CIDR required");
        return;
    }
    if (n > 2) {
        check_fail(c, CAUSE_INVALID, "cidrs", list, "may only hold up to 2 values");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const char *s = val_text(&list->items[i], ""), *why = why_of("cidr", s);
        six += strchr(s, ':') != NULL;
        valid &= !why;
        if (why)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "cidrs[%u]", i), &list->items[i], "%s", why);
    }
    if (n == 2 && six != 1 && valid)
        check_fail(c, CAUSE_INVALID, "cidrs", list, "may specify no more than one IP for each IP family");
}

HOOK(v_endpointslice)
{
    const char *type = val_str_at(v, "addressType", "");
    const struct val *eps = val_get(v, "endpoints"), *ports = val_get(v, "ports");
    bool known = streq(type, "IPv4") || streq(type, "IPv6") || streq(type, "FQDN");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(ports); i++) {
        const char *name = val_str_at(&ports->items[i], "name", "");
        if (map_put(&seen, *name ? name : " ", (void *)(uintptr_t)ports))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "ports[%u].name", i), val_get(&ports->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    if (old && !streq(type, val_str_at(old, "addressType", "")))
        known = false; /* the addresses are not judged by a type that may not come */

    for (uint32_t i = 0; i < val_items_n_(eps); i++) {
        const struct val *list = val_get(&eps->items[i], "addresses");
        if (val_len(list) > 100)
            check_fail(c, CAUSE_TOO_MANY, arena_printf(c->a, "endpoints[%u].addresses", i), NULL, "must have at most 100 items");
        for (uint32_t k = 0; k < val_items_n_(list); k++) {
            const char *s = val_text(&list->items[k], "");
            const char *why = !known ? NULL
                              : streq(type, "FQDN") ? name_dns_subdomain(s)
                              : streq(type, "IPv4") || streq(type, "IPv6") ? why_of("ip", s) : NULL;
            if (!why && known && streq(type, "IPv4") && strchr(s, ':'))
                why = "must be an IPv4 address";
            if (!why && known && streq(type, "IPv6") && !strchr(s, ':'))
                why = "must be an IPv6 address";
            if (!why && known && type[0] == 'I')
                why = special_address(s);
            if (why)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "endpoints[%u].addresses[%u]", i, k),
                           &list->items[k], "%s", why);
        }
    }
}

/* ---- rbac ---- */

HOOK(v_role)
{
    bool cluster = streq(c->r->kind, "ClusterRole");
    const struct val *rules = val_get(v, "rules");
    const struct val *sels = val_at(v, "aggregationRule.clusterRoleSelectors");
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(sels); i++) {
        struct causes mine = {.a = c->a}, *outer = c->causes;
        c->causes = &mine;
        validate_label_selector(c, "", &sels->items[i]);
        c->causes = outer;
        if (mine.n)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "aggregationRule.clusterRoleSelectors[%u]", i),
                       &sels->items[i], "invalid label selector");
    }
    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *r = &rules->items[i];
        uint32_t urls = val_len(val_get(r, "nonResourceURLs"));
        if (urls && !cluster)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "rules[%u].nonResourceURLs", i),
                       val_get(r, "nonResourceURLs"), "namespaced rules cannot apply to non-resource URLs");
        if (urls && cluster) {
            if (val_len(val_get(r, "apiGroups")) || val_len(val_get(r, "resources")) || val_len(val_get(r, "resourceNames")))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "rules[%u].nonResourceURLs", i),
                           val_get(r, "nonResourceURLs"), "rules cannot apply to both regular resources and non-resource URLs");
            continue;
        }
        if (urls)
            continue;
        if (!val_len(val_get(r, "apiGroups")))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "rules[%u].apiGroups", i), NULL,
                       "resource rules must supply at least one api group");
        if (!val_len(val_get(r, "resources")))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "rules[%u].resources", i), NULL,
                       "resource rules must supply at least one resource");
    }
}

HOOK(v_rolebinding)
{
    bool cluster = streq(c->r->kind, "ClusterRoleBinding");
    const char *kind = val_str_at(v, "roleRef.kind", "");
    (void)old;

    if (!(streq(kind, "ClusterRole") || (!cluster && streq(kind, "Role"))))
        check_fail(c, CAUSE_NOT_SUPPORTED, "roleRef.kind", val_at(v, "roleRef.kind"),
                   "supported values: \"ClusterRole\"%s", cluster ? "" : ", \"Role\"");
    const struct val *list = val_get(v, "subjects");
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *s = &list->items[i];
        if (streq(val_str_at(s, "kind", ""), "ServiceAccount") && !*val_str_at(s, "namespace", "") && cluster)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "subjects[%u].namespace", i), NULL, "%s", "");
    }
}

HOOK(v_subject)
{
    const char *kind = val_str_at(v, "kind", ""), *group = val_str_at(v, "apiGroup", "");
    const char *name = val_str_at(v, "name", ""), *why;
    (void)old;

    if (streq(kind, "ServiceAccount")) {
        if (*name && (why = name_dns_subdomain(name)))
            check_fail(c, CAUSE_INVALID, "name", val_get(v, "name"), "%s", why);
        if (*group)
            check_fail(c, CAUSE_NOT_SUPPORTED, "apiGroup", val_get(v, "apiGroup"), "supported values: \"\"");
    } else if (streq(kind, "User") || streq(kind, "Group")) {
        if (!streq(group, "rbac.authorization.k8s.io"))
            check_fail(c, CAUSE_NOT_SUPPORTED, "apiGroup", val_get(v, "apiGroup"),
                       "supported values: \"rbac.authorization.k8s.io\"");
    } else {
        check_fail(c, CAUSE_NOT_SUPPORTED, "kind", val_get(v, "kind"),
                   "supported values: \"Group\", \"ServiceAccount\", \"User\"");
    }
}

/* ---- storage ---- */

static bool same_terms(const struct val *x, const struct val *y)
{
    const struct val *a = val_get(x, "matchLabelExpressions"), *b = val_get(y, "matchLabelExpressions");

    return val_len(a) == val_len(b) && (!val_len(a) || val_equal(a, b));
}

HOOK(v_storageclass)
{
    const struct val *list = val_get(v, "allowedTopologies");
    const char *reclaim = val_str_at(v, "reclaimPolicy", "");
    (void)old;

    if (*reclaim && !streq(reclaim, "Delete") && !streq(reclaim, "Retain"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "reclaimPolicy", val_get(v, "reclaimPolicy"),
                   "supported values: \"Delete\", \"Retain\"");
    VAL_EACH_MEMBER(val_get(v, "parameters"), m)
        if (!m->n)
            check_fail(c, CAUSE_INVALID, "parameters", val_str(c->a, ""), "field can not be empty.");
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *exprs = val_get(&list->items[i], "matchLabelExpressions");
        bool again = !val_len(exprs); /* as upstream counts: nothing said is like the unsaid */
        for (uint32_t k = 0; k < val_items_n_(exprs); k++)
            for (uint32_t j = 0; j < k; j++)
                if (streq(val_str_at(&exprs->items[k], "key", ""), val_str_at(&exprs->items[j], "key", ""))) {
                    check_fail(c, CAUSE_DUPLICATE,
                               arena_printf(c->a, "allowedTopologies[%u].matchLabelExpressions[%u].key", i, k),
                               val_get(&exprs->items[k], "key"), "%s", "");
                    break;
                }
        for (uint32_t k = 0; k < i; k++)
            again |= same_terms(&list->items[i], &list->items[k]);
        if (again)
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "allowedTopologies[%u].matchLabelExpressions", i),
                       val_str(c->a, ""), "%s", "");
    }
}

HOOK(v_csidriver)
{
    const struct val *modes = val_get(v, "volumeLifecycleModes"), *tokens = val_get(v, "tokenRequests");
    struct map seen = {0};

    VAL_EACH(modes, m)
        if (!streq(val_text(m, ""), "Persistent") && !streq(val_text(m, ""), "Ephemeral"))
            check_fail(c, CAUSE_NOT_SUPPORTED, "volumeLifecycleModes", m,
                       "supported values: \"Ephemeral\", \"Persistent\"");
    for (uint32_t i = 0; i < val_items_n_(tokens); i++) {
        const char *audience = val_str_at(&tokens->items[i], "audience", "");
        if (map_put(&seen, *audience ? audience : " ", (void *)(uintptr_t)tokens))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "tokenRequests[%u].audience", i),
                       val_get(&tokens->items[i], "audience"), "%s", "");
    }
    map_done(&seen);
    if (old && !same(val_get(v, "attachRequired"), val_get(old, "attachRequired")))
        check_fail(c, CAUSE_INVALID, "attachedRequired", val_get(v, "attachRequired"), "field is immutable");
    if (old && !same(modes, val_get(old, "volumeLifecycleModes")))
        check_fail(c, CAUSE_INVALID, "volumeLifecycleModes", modes, "field is immutable");
}

HOOK(v_csinode)
{
    const struct val *drivers = val_at(v, "spec.drivers"), *had = val_at(old, "spec.drivers");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(drivers); i++) {
        const struct val *d = &drivers->items[i], *keys = val_get(d, "topologyKeys");
        const char *name = val_str_at(d, "name", "");
        struct map known = {0};
        if (*name && map_put(&seen, name, (void *)(uintptr_t)d))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "spec.drivers[%u].name", i), val_get(d, "name"), "%s", "");
        VAL_EACH(keys, k) {
            const char *s = val_text(k, "");
            if (!*s)
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "spec.drivers[%u]", i), NULL, "topologyKey cannot be empty");
            else if (map_put(&known, s, (void *)(uintptr_t)k))
                check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "spec.drivers[%u]", i), k, "%s", "");
            const char *whys[4];
            uint32_t bad = name_whys(name_qualified, s, whys);
            for (uint32_t n = 0; n < bad; n++)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.drivers[%u]", i), k, "%s", whys[n]);
        }
        map_done(&known);
    }
    map_done(&seen);
    for (uint32_t i = 0; i < val_items_n_(had); i++)
        VAL_EACH(drivers, d)
            if (streq(val_str_at(d, "name", ""), val_str_at(&had->items[i], "name", "")) &&
                !val_equal(d, &had->items[i]))
                check_fail(c, CAUSE_INVALID, "spec.drivers", drivers, "field is immutable");
}

HOOK(v_csicapacity)
{
    const struct val *cap = val_get(v, "capacity");
    const char *class = val_str_at(v, "storageClassName", ""), *why;
    (void)old;

    if (!*class && (why = name_dns_subdomain(class)))
        check_fail(c, CAUSE_INVALID, "storageClassName", val_get(v, "storageClassName"), "%s", why);
    if (cap && quantity_num(cap, 0) < 0)
        check_fail(c, CAUSE_INVALID, "capacity", cap, "must be greater than or equal to 0");
}

HOOK(v_attachment)
{
    const struct val *spec = val_get(v, "spec"), *src = val_get(spec, "source");
    const char *pv = val_str_at(src, "persistentVolumeName", ""), *node = val_str_at(spec, "nodeName", "");
    const struct val *inl = val_get(src, "inlineVolumeSpec");
    const char *why;

    if (*c->sub)
        return;
    if (!*node && (why = name_dns_subdomain(node)))
        check_fail(c, CAUSE_INVALID, "spec.nodeName", val_get(spec, "nodeName"), "%s", why);
    if (!val_get(src, "persistentVolumeName") && !inl)
        check_fail(c, CAUSE_REQUIRED, "spec.source", NULL, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
    if (val_get(src, "persistentVolumeName") && inl)
        check_fail(c, CAUSE_FORBIDDEN, "spec.source", NULL, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
    if (val_get(src, "persistentVolumeName") && !*pv && !inl)
        check_fail(c, CAUSE_REQUIRED, "spec.source.persistentVolumeName", NULL, "must specify non empty persistentVolumeName");
    if (inl && !val_get(inl, "csi"))
        check_fail(c, CAUSE_REQUIRED, "spec.source.inlineVolumeSpec.csi", NULL, "%s", "");
    if (old && !same(spec, val_get(old, "spec")))
        check_fail(c, CAUSE_INVALID, "spec", spec, "field is immutable");
}

HOOK(v_vac)
{
    VAL_EACH_MEMBER(val_get(v, "parameters"), m)
        if (!m->n)
            check_fail(c, CAUSE_INVALID, "parameters", val_str(c->a, ""), "field can not be empty.");
    if (old && !same(val_get(v, "driverName"), val_get(old, "driverName")))
        check_fail(c, CAUSE_FORBIDDEN, "driverName", NULL, "updates to driverName are forbidden.");
    if (old && !same(val_get(v, "parameters"), val_get(old, "parameters")))
        check_fail(c, CAUSE_FORBIDDEN, "parameters", NULL, "updates to parameters are forbidden.");
}

/* ---- node, scheduling ---- */

HOOK(v_runtime_scheduling)
{
    const struct val *list = val_get(v, "tolerations");
    (void)old;

    validate_labels(c, "nodeSelector", val_get(v, "nodeSelector"));
    for (uint32_t i = 0; i < val_items_n_(list); i++)
        for (uint32_t k = 0; k < i; k++)
            if (val_equal(&list->items[i], &list->items[k])) {
                check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "tolerations[%u]", i), &list->items[i], "%s", "");
                break;
            }
}

HOOK(v_runtime_class)
{
    (void)old;
    VAL_EACH_MEMBER(val_at(v, "overhead.podFixed"), m)
        if (quantity_num(&m->v, 0) < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "overhead.limits[%s]", m->key), &m->v,
                       "must be greater than or equal to 0");
}

HOOK(v_priorityclass)
{
    const struct val *value = val_get(v, "value");
    const char *name = val_str_at(v, "metadata.name", "");

    if (str_starts(name, "system-") && !streq(name, "system-node-critical") && !streq(name, "system-cluster-critical"))
        check_fail(c, CAUSE_FORBIDDEN, "metadata.name", NULL, "priority class names with 'system-' prefix are reserved for system use only");
    else if (!old && !str_starts(name, "system-") && val_int_at(v, "value", 0) > 1000000000)
        check_fail(c, CAUSE_FORBIDDEN, "value", NULL, "maximum allowed value of a user defined priority is 1000000000");
    const char *policy = val_str_at(v, "preemptionPolicy", "");
    if (old && !same(val_get(v, "preemptionPolicy"), val_get(old, "preemptionPolicy")))
        check_fail(c, CAUSE_INVALID, "preemptionPolicy", val_get(v, "preemptionPolicy"), "may not be changed in an update.");
    else if (!*policy)
        check_fail(c, CAUSE_REQUIRED, "preemptionPolicy", NULL, "%s", "");
    else if (!streq(policy, "Never") && !streq(policy, "PreemptLowerPriority"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "preemptionPolicy", val_get(v, "preemptionPolicy"), "supported values: \"Never\", \"PreemptLowerPriority\"");
    if (old && val_int_at(v, "value", 0) != val_int_at(old, "value", 0))
        check_fail(c, CAUSE_FORBIDDEN, "value", value, "may not be changed in an update.");
}

/* ---- certificates ---- */

static const struct val *csr_condition(const struct val *v, const char *type)
{
    VAL_EACH(val_at(v, "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), type))
            return c;
    return NULL;
}

/* Approval and denial are given through /approval alone, and never taken back. */
HOOK(v_csr_object)
{
    static const char *const verdicts[] = {"Approved", "Denied", "Failed"};
    const struct val *list = val_at(v, "status.conditions"), *cert = val_at(v, "status.certificate");
    bool status = streq(c->sub, "status"), moved = false;

    if (!old || !*c->sub)
        return;
    for (uint32_t i = 0; i < ARRAY_LEN(verdicts); i++) {
        bool had = csr_condition(old, verdicts[i]), has = csr_condition(v, verdicts[i]);
        moved |= (had && !has) || (i < 2 && status && has && !had);
    }
    if (moved)
        check_fail(c, CAUSE_FORBIDDEN, "status.conditions", NULL, status
                       ? "updates may not add or remove a condition of type \"Approved\" or \"Denied\""
                       : "updates may not remove a condition of type \"Approved\", \"Denied\" or \"Failed\"");
    else if (csr_condition(v, "Approved") && csr_condition(v, "Denied"))
        check_fail(c, CAUSE_INVALID, "status.conditions", list, "Approved and Denied conditions are mutually exclusive");
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *type = val_str_at(&list->items[i], "type", "");
        bool verdict = streq(type, "Approved") || streq(type, "Denied") || streq(type, "Failed");
        if (verdict && !streq(val_str_at(&list->items[i], "status", ""), "True"))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "status.conditions[%u].status", i),
                       val_get(&list->items[i], "status"), "supported values: \"True\"");
    }
    /* "-----BEGIN CERTIFICATE-----" in base64 */
    if (status && cert && cert->n && !same(cert, val_at(old, "status.certificate")) &&
        !str_starts(cert->s, "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"))
        check_fail(c, CAUSE_INVALID, "status.certificate", cert, "must contain at least one CERTIFICATE PEM block");
}

HOOK(v_csr)
{
    static const char *const usages[] = {
        "signing", "digital signature", "content commitment", "key encipherment", "key agreement",
        "data encipherment", "cert sign", "crl sign", "encipher only", "decipher only", "any",
        "server auth", "client auth", "code signing", "email protection", "s/mime",
        "ipsec end system", "ipsec tunnel", "ipsec user", "timestamping", "ocsp signing",
        "microsoft sgc", "netscape sgc"};
    const struct val *list = val_get(v, "usages");
    const char *signer = val_str_at(v, "signerName", ""), *slash = strchr(signer, '/');
    const char *request = val_str_at(v, "request", "");
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        bool known = false;
        for (uint32_t k = 0; k < ARRAY_LEN(usages); k++)
            known |= streq(usages[k], val_text(&list->items[i], ""));
        if (!known)
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "usages[%u]", i), &list->items[i], "supported values: as documented");
    }
    if (*signer && (!slash || !slash[1] || slash == signer ||
                    name_dns_subdomain(arena_strndup(c->a, signer, (size_t)(slash - signer))) ||
                    !memchr(signer, '.', (size_t)(slash - signer)) || name_dns_subdomain(slash + 1)))
        check_fail(c, CAUSE_INVALID, "signerName", val_get(v, "signerName"),
                   "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    /* "-----BEGIN CERTIFICATE REQUEST-----" in base64 */
    if (!str_starts(request, "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0"))
        check_fail(c, CAUSE_INVALID, "request", val_get(v, "request"), "PEM block type must be CERTIFICATE REQUEST");
}
