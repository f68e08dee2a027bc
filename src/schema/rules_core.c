/* schema/rules_core.c - rules of core kinds other than pods that data can not say. */
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

static bool among(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (streq(s, *list))
            return true;
    return false;
}

/* ---- config maps and secrets ---- */

static size_t keys_of_data(struct check *c, const char *name, const struct val *map)
{
    size_t total = 0;

    VAL_EACH_MEMBER(map, m) {
        const char *why = why_of("config-key", m->key);
        if (why)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%s]", name, m->key),
                       val_str(c->a, m->key), "%s", why);
        total += m->v.type == VAL_STR ? m->v.n : 0;
    }
    return total;
}

/* What was immutable stays so. */
static void immutable_data(struct check *c, const struct val *v, const struct val *old,
                           const char *const *fields)
{
    if (!old || !val_bool_at(old, "immutable", false))
        return;
    if (!val_bool_at(v, "immutable", false))
        check_fail(c, CAUSE_FORBIDDEN, "immutable", NULL, "field is immutable when `immutable` is set");
    for (; *fields; fields++) {
        const struct val *x = val_get(v, *fields), *y = val_get(old, *fields);
        if (val_len(x) != val_len(y) || (val_len(x) && !val_equal(x, y)))
            check_fail(c, CAUSE_FORBIDDEN, *fields, NULL, "field is immutable when `immutable` is set");
    }
}

HOOK(v_configmap)
{
    static const char *const fields[] = {"data", "binaryData", NULL};
    const struct val *data = val_get(v, "data"), *binary = val_get(v, "binaryData");
    size_t total = keys_of_data(c, "data", data);

    VAL_EACH_MEMBER(binary, m)
        if (val_getn(data, m->key, m->n))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "data[%s]", m->key), NULL,
                       "duplicate of key present in binaryData");
    total += keys_of_data(c, "binaryData", binary) / 4 * 3;
    if (total > 1048576)
        check_fail(c, CAUSE_TOO_LONG, "[]", NULL, "may not be more than 1048576 bytes");
    immutable_data(c, v, old, fields);
}

static void need_key(struct check *c, const struct val *data, const char *key)
{
    if (!val_get(data, key))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "data[%s]", key), NULL, "%s", "");
}

HOOK(v_secret)
{
    static const char *const fields[] = {"data", NULL};
    const struct val *data = val_get(v, "data");
    const char *type = val_str_at(v, "type", "");

    if (keys_of_data(c, "data", data) / 4 * 3 > 1048576)
        check_fail(c, CAUSE_TOO_LONG, "data", NULL, "may not be more than 1048576 bytes");
    if (streq(type, "kubernetes.io/dockercfg"))
        need_key(c, data, ".dockercfg");
    else if (streq(type, "kubernetes.io/dockerconfigjson"))
        need_key(c, data, ".dockerconfigjson");
    else if (streq(type, "kubernetes.io/basic-auth")) {
        if (!val_get(data, "username") && !val_get(data, "password")) {
            need_key(c, data, "username");
            need_key(c, data, "password");
        }
    } else if (streq(type, "kubernetes.io/ssh-auth")) {
        if (!val_len(val_get(data, "ssh-privatekey")) && !*val_text(val_get(data, "ssh-privatekey"), ""))
            check_fail(c, CAUSE_REQUIRED, "data[ssh-privatekey]", NULL, "%s", "");
    } else if (streq(type, "kubernetes.io/tls")) {
        need_key(c, data, "tls.crt");
        need_key(c, data, "tls.key");
    } else if (streq(type, "kubernetes.io/service-account-token") &&
               !*val_text(val_get(val_at(v, "metadata.annotations"),
                                  "kubernetes.io/service-account.name"), "")) {
        check_fail(c, CAUSE_REQUIRED, "metadata.annotations[kubernetes.io/service-account.name]",
                   NULL, "%s", "");
    }
    if (old && !streq(type, val_str_at(old, "type", "")))
        check_fail(c, CAUSE_INVALID, "type", val_get(v, "type"), "field is immutable");
    immutable_data(c, v, old, fields);
}

/* ---- namespaces, nodes ---- */

HOOK(v_namespace)
{
    (void)old;
    VAL_EACH(val_at(v, "spec.finalizers"), f) {
        const char *s = val_text(f, ""), *whys[4];
        uint32_t bad = name_whys(name_qualified, s, whys);
        for (uint32_t i = 0; i < bad; i++)
            check_fail(c, CAUSE_INVALID, "spec.finalizers", f, "%s", whys[i]);
        if (!strchr(s, '/') && !streq(s, "kubernetes"))
            check_fail(c, CAUSE_INVALID, "spec.finalizers", f,
                       "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/* Told at metadata.taints, as upstream does. */
static void taints(struct check *c, const struct val *list)
{
    static const char *const effects[] = {"NoSchedule", "PreferNoSchedule", "NoExecute", NULL};
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *t = &list->items[i];
        const char *key = val_str_at(t, "key", ""), *effect = val_str_at(t, "effect", ""), *whys[4];
        uint32_t bad = name_whys(name_qualified, key, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "metadata.taints[%u].key", i), val_get(t, "key"), "%s", whys[k]);
        if (name_label_value(val_str_at(t, "value", "")))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "metadata.taints[%u].value", i), val_get(t, "value"), "%s",
                       name_label_value(val_str_at(t, "value", "")));
        if (!*effect)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "metadata.taints[%u].effect", i), NULL, "%s", "");
        else if (!among(effect, effects))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "metadata.taints[%u].effect", i), val_get(t, "effect"),
                       "supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"");
        if (map_put(&seen, arena_printf(c->a, "%s %s", key, effect), (void *)(uintptr_t)t))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "metadata.taints[%u]", i), t, "%s", "");
    }
    map_done(&seen);
}

HOOK(v_node)
{
    const struct val *ranges = val_at(v, "spec.podCIDRs");
    uint32_t six = 0;
    VAL_EACH(ranges, it)
        six += strchr(val_text(it, ""), ':') != NULL;
    if (!*c->sub && val_len(ranges) > 1 && (val_len(ranges) != 2 || six != 1))
        check_fail(c, CAUSE_INVALID, "spec.podCIDRs", ranges, "may specify no more than one CIDR for each IP family");
    for (int i = 0; i < (old ? 2 : 1) && !*c->sub; i++) /* an update is told twice */
        taints(c, val_at(v, "spec.taints"));
    if (!old || *c->sub)
        return;
    const struct val *was = val_at(old, "spec.podCIDRs"), *now = val_at(v, "spec.podCIDRs");
    if (val_len(was) && (!now || !val_equal(was, now)))
        check_fail(c, CAUSE_FORBIDDEN, "spec.podCIDRs", NULL,
                   "node updates may not change podCIDR except from \"\" to valid");
    const char *id = val_str_at(old, "spec.providerID", "");
    if (*id && !streq(id, val_str_at(v, "spec.providerID", "")))
        check_fail(c, CAUSE_FORBIDDEN, "spec.providerID", NULL,
                   "node updates may not change providerID except from \"\" to valid");
}

/* ---- quotas and ranges ---- */

static bool quota_resource(const char *s)
{
    static const char *const known[] = {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets",
        "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers", NULL};

    return among(s, known) || strchr(s, '/') || str_starts(s, "hugepages-") ||
           str_starts(s, "requests.hugepages-") || str_starts(s, "limits.hugepages-");
}

static bool counted(const char *s)
{
    static const char *const known[] = {
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets",
        "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers", NULL};

    return among(s, known) || str_starts(s, "count/");
}

static bool standard_quota(const char *s)
{
    static const char *const known[] = {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets",
        "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers", NULL};

    return among(s, known);
}

/* May what the scope picks be counted by that resource? */
static bool scope_counts(const char *scope, const char *resource)
{
    static const char *const pods[] = {"pods", "cpu", "memory", "limits.cpu", "limits.memory",
                                       "requests.cpu", "requests.memory", NULL};
    static const char *const of_pods[] = {"Terminating", "NotTerminating", "NotBestEffort",
                                          "PriorityClass", "CrossNamespacePodAffinity", NULL};

    if (among(scope, of_pods))
        return among(resource, pods);
    if (streq(scope, "BestEffort"))
        return streq(resource, "pods");
    return streq(scope, "VolumeAttributesClass") &&
           (streq(resource, "persistentvolumeclaims") || streq(resource, "requests.storage"));
}

static void quota_scopes(struct check *c, const char *rel, const struct val *list, const struct val *v)
{
    static const char *const known[] = {"Terminating", "NotTerminating", "BestEffort",
                                        "NotBestEffort", "PriorityClass",
                                        "CrossNamespacePodAffinity", "VolumeAttributesClass", NULL};
    bool seen[8] = {0};

    VAL_EACH(list, it) {
        const char *s = val_is(it, VAL_STR) ? it->s : val_str_at(it, "scopeName", "");
        uint32_t k = 0;
        while (known[k] && !streq(known[k], s))
            k++;
        if (!known[k]) {
            check_fail(c, CAUSE_INVALID, rel, list, "unsupported scope");
            continue;
        }
        seen[k] = true;
        VAL_EACH_MEMBER(val_get(v, "hard"), m)
            if (standard_quota(m->key) && !scope_counts(s, m->key))
                check_fail(c, CAUSE_INVALID, rel, list, "unsupported scope applied to resource");
    }
    if (seen[0] && seen[1])
        check_fail(c, CAUSE_INVALID, rel, list, "conflicting scopes");
    if (seen[2] && seen[3])
        check_fail(c, CAUSE_INVALID, rel, list, "conflicting scopes");
}

static void quota_amount(struct check *c, const char *list, const struct val_member *m)
{
    const char *rel = arena_printf(c->a, "%s[%s]", list, m->key), *whys[4];
    uint32_t bad = name_whys(name_qualified, m->key, whys);

    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key), "%s", whys[i]);
    if (!bad && !strchr(m->key, '/') && !quota_resource(m->key)) {
        check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key), "must be a standard resource type or fully qualified");
        check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key), "must be a standard resource for quota");
    }
    double n = quantity_num(&m->v, 0);
    if (n < 0)
        check_fail(c, CAUSE_INVALID, rel, &m->v, "must be greater than or equal to 0");
    if (counted(m->key) && n != (double)(int64_t)n)
        check_fail(c, CAUSE_INVALID, rel, &m->v, "must be an integer");
}

HOOK(v_quota_status)
{
    (void)old;
    VAL_EACH_MEMBER(val_get(v, "hard"), m)
        quota_amount(c, "hard", m);
    VAL_EACH_MEMBER(val_get(v, "used"), m)
        quota_amount(c, "used", m);
}

HOOK(v_quota)
{
    VAL_EACH_MEMBER(val_get(v, "hard"), m)
        quota_amount(c, "hard", m);
    quota_scopes(c, "scopes", val_get(v, "scopes"), v);
    const struct val *exprs = val_at(v, "scopeSelector.matchExpressions");
    quota_scopes(c, "scopeSelector.matchExpressions", exprs, v);
    VAL_EACH(exprs, e) {
        const char *op = val_str_at(e, "operator", "");
        uint32_t n = val_len(val_get(e, "values"));
        bool in = streq(op, "In") || streq(op, "NotIn"), ex = streq(op, "Exists") || streq(op, "DoesNotExist");
        if (in && !n)
            check_fail(c, CAUSE_REQUIRED, "scopeSelector.matchExpressions.values", NULL,
                       "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
        else if (ex && n)
            check_fail(c, CAUSE_INVALID, "scopeSelector.matchExpressions.values", NULL,
                       "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector");
        else if (!in && !ex)
            check_fail(c, CAUSE_INVALID, "scopeSelector.matchExpressions.operator", NULL,
                       "not a valid selector operator");
    }
    if (old && (val_len(val_get(v, "scopes")) || val_len(val_get(old, "scopes"))) &&
        !(val_get(v, "scopes") && val_get(old, "scopes") &&
          val_equal(val_get(v, "scopes"), val_get(old, "scopes"))))
        check_fail(c, CAUSE_INVALID, "scopes", val_get(v, "scopes"), "field is immutable");
}

static void range_item(struct check *c, const struct val *it, uint32_t i)
{
    static const char *const lists[] = {"max", "min", "default", "defaultRequest",
                                        "maxLimitRequestRatio"};
    const char *type = val_str_at(it, "type", "");

    if (streq(type, "Pod"))
        for (uint32_t k = 2; k < 4; k++)
            if (val_len(val_get(it, lists[k])))
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "limits[%u].%s", i, lists[k]), NULL,
                           "may not be specified when `type` is 'Pod'");
    if (streq(type, "PersistentVolumeClaim") && !val_at(it, "min.storage") && !val_at(it, "max.storage"))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "limits[%u].limits", i), NULL,
                   "either minimum or maximum storage value is required, but neither was provided");
    struct map keys = {0};
    for (uint32_t k = 0; k < ARRAY_LEN(lists); k++)
        VAL_EACH_MEMBER(val_get(it, lists[k]), m)
            map_put(&keys, m->key, m->key ? (void *)(uintptr_t)m : NULL);
    const char *key;
    void *value;
    for (uint32_t at = 0; map_next(&keys, &at, &key, &value);) {
        const struct val *max = val_get(val_get(it, "max"), key), *min = val_get(val_get(it, "min"), key);
        const struct val *def = val_get(val_get(it, "default"), key);
        const struct val *req = val_get(val_get(it, "defaultRequest"), key);
        const struct val *ratio = val_get(val_get(it, "maxLimitRequestRatio"), key);
#define BAD(list, v, text)                                                                         \
    check_fail(c, CAUSE_INVALID, arena_printf(c->a, "limits[%u]." list "[%s]", i, key), v, text)
        if (min && max && quantity_num(min, 0) > quantity_num(max, 0))
            BAD("min", min, "min value is greater than max value");
        if (req && min && quantity_num(min, 0) > quantity_num(req, 0))
            BAD("defaultRequest", req, "min value is greater than default request value");
        if (req && max && quantity_num(req, 0) > quantity_num(max, 0))
            BAD("defaultRequest", req, "default request value is greater than max value");
        if (req && def && quantity_num(req, 0) > quantity_num(def, 0))
            BAD("defaultRequest", req, "default request value is greater than default limit value");
        if (def && min && quantity_num(min, 0) > quantity_num(def, 0))
            BAD("default", min, "min value is greater than default value");
        if (def && max && quantity_num(def, 0) > quantity_num(max, 0))
            BAD("default", max, "default value is greater than max value");
        if (ratio && quantity_num(ratio, 0) < 1)
            BAD("maxLimitRequestRatio", ratio, "ratio is less than 1");
        if (ratio && min && max && quantity_num(min, 0) > 0 &&
            quantity_num(ratio, 0) > quantity_num(max, 0) / quantity_num(min, 1))
            BAD("maxLimitRequestRatio", ratio, "ratio is greater than max/min");
#undef BAD
    }
    map_done(&keys);
}

HOOK(v_limitrange)
{
    const struct val *list = val_get(v, "limits");
    struct map seen = {0};
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *type = val_str_at(&list->items[i], "type", "");
        static const char *const known[] = {"Pod", "Container", "PersistentVolumeClaim", NULL};
        const char *whys[4];
        uint32_t bad = name_whys(name_qualified, type, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "limits[%u].type", i),
                       val_get(&list->items[i], "type"), "%s", whys[k]);
        if (!bad && !among(type, known) && !strchr(type, '/'))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "limits[%u].type", i),
                       val_get(&list->items[i], "type"), "must be a standard limit type or fully qualified");
        if (*type && map_put(&seen, type, (void *)(uintptr_t)list))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "limits[%u].type", i),
                       val_get(&list->items[i], "type"), "%s", "");
        range_item(c, &list->items[i], i);
    }
    map_done(&seen);
}

/* ---- endpoints, events ---- */

const char *special_address(const char *ip)
{
    if (streq(ip, "0.0.0.0") || streq(ip, "::"))
        return "may not be unspecified";
    if (str_starts(ip, "127.") || streq(ip, "::1"))
        return "may not be in the loopback range";
    if (str_starts(ip, "169.254.") || str_starts(ip, "fe80:") || str_starts(ip, "224.0.0.") ||
        str_starts(ip, "ff02:"))
        return "may not be in the link-local range";
    return NULL;
}

static void endpoint_addresses(struct check *c, const char *at, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *a = &list->items[i];
        const char *ip = val_str_at(a, "ip", ""), *why = why_of("ip", ip);
        const char *host = val_str_at(a, "hostname", ""), *node = val_str_at(a, "nodeName", "");
        const char *rel = arena_printf(c->a, "%s[%u].ip", at, i);
        if (why) { /* upstream says it twice */
            check_fail(c, CAUSE_INVALID, rel, val_get(a, "ip"), "%s", why);
            check_fail(c, CAUSE_INVALID, rel, val_get(a, "ip"), "must be a valid IP address");
        } else if ((why = special_address(ip))) {
            check_fail(c, CAUSE_INVALID, rel, val_get(a, "ip"), "%s", why);
        }
        if (*host && (why = name_dns_label(host)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].hostname", at, i),
                       val_get(a, "hostname"), "%s", why);
        if (val_get(a, "nodeName") && (why = name_dns_subdomain(node)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].nodeName", at, i),
                       val_get(a, "nodeName"), "%s", why);
    }
}

HOOK(v_endpoints)
{
    const struct val *subsets = val_get(v, "subsets");
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(subsets); i++) {
        const struct val *s = &subsets->items[i], *ports = val_get(s, "ports");
        if (!val_len(val_get(s, "addresses")) && !val_len(val_get(s, "notReadyAddresses")))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "subsets[%u]", i), NULL,
                       "must specify `addresses` or `notReadyAddresses`");
        endpoint_addresses(c, arena_printf(c->a, "subsets[%u].addresses", i), val_get(s, "addresses"));
        endpoint_addresses(c, arena_printf(c->a, "subsets[%u].notReadyAddresses", i),
                           val_get(s, "notReadyAddresses"));
        for (uint32_t k = 0; k < val_items_n_(ports); k++) {
            const struct val *p = &ports->items[k];
            const char *at = arena_printf(c->a, "subsets[%u].ports[%u]", i, k), *why;
            const char *name = val_str_at(p, "name", ""), *app = val_str_at(p, "appProtocol", "");
            int64_t n = val_int_at(p, "port", 0);
            if (!*name && ports->n > 1)
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "%s", "");
            else if (*name && (why = name_dns_label(name)))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.name", at), val_get(p, "name"), "%s", why);
            if (n < 1 || n > 65535)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.port", at), val_get(p, "port"),
                           "must be between 1 and 65535, inclusive");
            const char *whys[4], *proto = val_str_at(p, "protocol", "");
            uint32_t bad = val_get(p, "appProtocol") ? name_whys(name_qualified, app, whys) : 0;
            for (uint32_t j = 0; j < bad; j++)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.appProtocol", at),
                           val_get(p, "appProtocol"), "%s", whys[j]);
            if (!streq(proto, "TCP") && !streq(proto, "UDP") && !streq(proto, "SCTP"))
                check_fail(c, *proto ? CAUSE_NOT_SUPPORTED : CAUSE_REQUIRED, arena_printf(c->a, "%s.protocol", at),
                           val_get(p, "protocol"), "supported values: \"SCTP\", \"TCP\", \"UDP\"");
        }
    }
}

/* Where an event lies: with what it is about, as far as that has a namespace. Events with a time of
 * their own may lie elsewhere when they say of which namespace that is. */
static void event_place(struct check *c, const struct val *v, const char *about, bool timed)
{
    const struct val *of = val_get(val_get(v, about), "namespace");
    const char *ns = val_str_at(v, "metadata.namespace", "");
    bool system = streq(ns, "default") || (timed && streq(ns, "kube-system"));

    if (*ns && (*val_text(of, "") ? !timed && !streq(ns, val_text(of, "")) : !system))
        check_fail(c, CAUSE_INVALID, "involvedObject.namespace", of, "does not match event.namespace");
}

HOOK(v_event)
{
    static const char *const once[] = {"action", "reason"};
    const char *whys[4];
    bool timed = !val_is_null(val_get(v, "eventTime"));
    (void)old;

    event_place(c, v, "involvedObject", timed);
    if (!timed)
        return;
    const char *who = val_str_at(v, "reportingComponent", ""), *one = val_str_at(v, "reportingInstance", "");
    if (!*who)
        check_fail(c, CAUSE_REQUIRED, "reportingComponent", NULL, "%s", "");
    uint32_t bad = name_whys(name_qualified, who, whys);
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, "reportingComponent", val_get(v, "reportingComponent"), "%s", whys[i]);
    if (!*one)
        check_fail(c, CAUSE_REQUIRED, "reportingInstance", NULL, "%s", "");
    if (strlen(one) > 128)
        check_fail(c, CAUSE_INVALID, "reportingInstance", val_get(v, "reportingInstance"), "can have at most 128 characters");
    for (uint32_t i = 0; i < ARRAY_LEN(once); i++) {
        const char *s = val_str_at(v, once[i], "");
        if (!*s)
            check_fail(c, CAUSE_REQUIRED, once[i], NULL, "%s", "");
        if (strlen(s) > 128)
            check_fail(c, CAUSE_INVALID, once[i], val_get(v, once[i]), "can have at most 128 characters");
    }
    if (strlen(val_str_at(v, "message", "")) > 1024)
        check_fail(c, CAUSE_INVALID, "message", val_get(v, "message"), "can have at most 1024 characters");
}

static void event_series(struct check *c, const struct val *series)
{
    const struct val *count = val_get(series, "count");

    if (!series)
        return;
    if (val_is_null(val_get(series, "lastObservedTime")))
        check_fail(c, CAUSE_REQUIRED, "series.lastObservedTime", NULL, "%s", "");
    if (!count || count->i < 2)
        check_fail(c, CAUSE_INVALID, "series.count", count, "should be at least 2");
}

/* What only a new event of events.k8s.io must say, and what it may not: the fields of the old API. */
static void event_begins(struct check *c, const struct val *v, bool timed)
{
    static const char *const unset[][2] = {{"deprecatedFirstTimestamp", "firstTimestamp"},
                                           {"deprecatedLastTimestamp", "lastTimestamp"}};
    const char *type = val_str_at(v, "type", "");

    event_series(c, val_get(v, "series"));
    if (!timed)
        check_fail(c, CAUSE_REQUIRED, "eventTime", NULL, "%s", "");
    if (!streq(type, "Normal") && !streq(type, "Warning"))
        check_fail(c, CAUSE_INVALID, "type", val_get(v, "type"), "has invalid value: %s", type);
    for (uint32_t i = 0; i < ARRAY_LEN(unset); i++)
        if (!val_is_null(val_get(v, unset[i][0])))
            check_fail(c, CAUSE_INVALID, unset[i][1], val_get(v, unset[i][0]), "needs to be unset");
    if (val_int_at(v, "deprecatedCount", 0))
        check_fail(c, CAUSE_INVALID, "count", val_get(v, "deprecatedCount"), "needs to be unset");
    if (*val_str_at(v, "deprecatedSource.component", "") || *val_str_at(v, "deprecatedSource.host", ""))
        check_fail(c, CAUSE_INVALID, "source", val_get(v, "deprecatedSource"), "needs to be unset");
}

/* An event of events.k8s.io stays as it is, but for its series. The reason is told twice, as upstream does. */
static void event_stays(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const kept[][2] = {
        {"regarding", "involvedObject"}, {"reason", "reason"}, {"note", "message"}, {"deprecatedSource", "source"},
        {"deprecatedFirstTimestamp", "firstTimestamp"}, {"deprecatedLastTimestamp", "lastTimestamp"},
        {"deprecatedCount", "count"}, {"reason", "reason"}, {"type", "type"}, {"eventTime", "eventTime"},
        {"action", "action"}, {"related", "related"}, {"reportingController", "reportingController"},
        {"reportingInstance", "reportingInstance"}};

    if (!same(val_get(v, "series"), val_get(old, "series")))
        event_series(c, val_get(v, "series"));
    for (uint32_t i = 0; i < ARRAY_LEN(kept); i++)
        if (!same(val_get(v, kept[i][0]), val_get(old, kept[i][0])))
            check_fail(c, CAUSE_INVALID, kept[i][1], val_get(v, kept[i][0]), "field is immutable");
}

/* The stricter rules of events.k8s.io. */
HOOK(v_event_new)
{
    static const char *const need[] = {"reportingController", "reportingInstance", "action", "reason"};

    bool timed = !val_is_null(val_get(v, "eventTime"));
    for (uint32_t i = 0; i < ARRAY_LEN(need) && timed; i++)
        if (!*val_str_at(v, need[i], ""))
            check_fail(c, CAUSE_REQUIRED, need[i], NULL, "%s", "");
    const char *whys[4];
    uint32_t bad = timed ? name_whys(name_qualified, val_str_at(v, "reportingController", ""), whys) : 0;
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, "reportingController", val_get(v, "reportingController"), "%s", whys[i]);
    static const char *const short_ones[] = {"reason", "action", "reportingInstance"};
    for (uint32_t i = 0; i < ARRAY_LEN(short_ones); i++)
        if (strlen(val_str_at(v, short_ones[i], "")) > 128)
            check_fail(c, CAUSE_INVALID, short_ones[i], val_get(v, short_ones[i]), "can have at most 128 characters");
    event_place(c, v, "regarding", timed);
    if (old)
        event_stays(c, v, old);
    else
        event_begins(c, v, timed);
}

/* ---- services ---- */

static void service_ports(struct check *c, const struct val *spec, const char *type)
{
    const struct val *ports = val_get(spec, "ports");
    struct map names = {0}, pairs = {0}, nodes = {0};

    for (uint32_t i = 0; i < val_items_n_(ports); i++) {
        const struct val *p = &ports->items[i], *target = val_get(p, "targetPort");
        const char *at = arena_printf(c->a, "spec.ports[%u]", i);
        const char *name = val_str_at(p, "name", "");
        int64_t node = val_int_at(p, "nodePort", 0);
        if (!*name && ports->n > 1)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "%s", "");
        if (*name && !name_dns_label(name) && map_put(&names, name, (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s.name", at), val_get(p, "name"), "%s", "");
        if (val_is(target, VAL_INT) && (target->i < 1 || target->i > 65535))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.targetPort", at), target,
                       "must be between 1 and 65535, inclusive");
        const char *whys[4];
        uint32_t bad = val_is(target, VAL_STR)
                           ? name_whys(named_check_find("port-name", 9)->fn, target->s, whys) : 0;
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.targetPort", at), target, "%s", whys[k]);
        const char *pair = arena_printf(c->a, "%lld/%s", (long long)val_int_at(p, "port", 0),
                                        val_str_at(p, "protocol", ""));
        if (map_put(&pairs, pair, (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, at, p, "%s", "");
        if (!node)
            continue;
        if (streq(type, "ClusterIP"))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.nodePort", at), NULL,
                       "may not be used when `type` is '%s'", type);
        pair = arena_printf(c->a, "%lld/%s", (long long)node, val_str_at(p, "protocol", ""));
        if (map_put(&nodes, pair, (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s.nodePort", at), val_get(p, "nodePort"), "%s", "");
    }
    map_done(&names);
    map_done(&pairs);
    map_done(&nodes);
}

static bool is_headless(const struct val *spec)
{
    const struct val *ips = val_get(spec, "clusterIPs");

    return val_len(ips) == 1 && streq(val_text(&ips->items[0], ""), "None");
}

/* Addresses against the families they are said to be of. */
static void ips_of_families(struct check *c, const struct val *spec)
{
    const struct val *ips = val_get(spec, "clusterIPs"), *families = val_get(spec, "ipFamilies");
    uint32_t six = 0;

    VAL_EACH(ips, ip)
        six += strchr(val_text(ip, ""), ':') != NULL;
    if (val_len(ips) > 1 && (val_len(ips) != 2 || six != 1))
        check_fail(c, CAUSE_INVALID, "spec.clusterIPs", ips, "may specify no more than one IP for each IP family");
    for (uint32_t i = 0; i < val_items_n_(ips) && i < val_items_n_(families) && !is_headless(spec); i++) {
        const char *f = val_text(&families->items[i], "");
        bool v6 = strchr(val_text(&ips->items[i], ""), ':') != NULL;
        if ((streq(f, "IPv4") && v6) || (streq(f, "IPv6") && !v6))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.clusterIPs[%u]", i), &ips->items[i],
                       "expected an %s value as indicated by `ipFamilies[%u]`", f, i);
    }
}

static void service_ips(struct check *c, const struct val *spec)
{
    const struct val *ips = val_get(spec, "clusterIPs"), *families = val_get(spec, "ipFamilies");
    const char *ip = val_str_at(spec, "clusterIP", "");
    static const char *const known[] = {"IPv4", "IPv6", NULL};
    static const char *const policies[] = {"SingleStack", "PreferDualStack", "RequireDualStack", NULL};
    const struct val *policy = val_get(spec, "ipFamilyPolicy");
    struct map seen = {0};
    bool bad = false;

    if (*ip && !val_len(ips))
        check_fail(c, CAUSE_REQUIRED, "spec.clusterIPs", NULL, "%s", "");
    else if (*ip && !streq(val_text(&ips->items[0], ""), ip))
        check_fail(c, CAUSE_INVALID, "spec.clusterIPs", ips, "first value must match `clusterIP`");
    else if (!*ip && val_len(ips))
        check_fail(c, CAUSE_INVALID, "spec.clusterIPs", ips, "must be empty when `clusterIP` is not specified");
    for (uint32_t i = 0; i < val_items_n_(families); i++) {
        const char *f = val_text(&families->items[i], "");
        if (!among(f, known))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "spec.ipFamilies[%u]", i),
                       &families->items[i], "supported values: \"IPv4\", \"IPv6\"");
        if (map_put(&seen, *f ? f : " ", (void *)(uintptr_t)families))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "spec.ipFamilies[%u]", i),
                       &families->items[i], "%s", "");
    }
    map_done(&seen);
    if (policy && !among(val_text(policy, ""), policies))
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.ipFamilyPolicy", policy,
                   "supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"");
    for (uint32_t i = 0; i < val_items_n_(ips); i++) {
        const char *s = val_text(&ips->items[i], ""), *why;
        if (i == 0 && streq(s, "None")) {
            if (ips->n > 1) {
                check_fail(c, CAUSE_INVALID, "spec.clusterIPs", ips, "'None' must be the first and only value");
                bad = true;
            }
            continue;
        }
        if ((why = why_of("ip", s))) {
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.clusterIPs[%u]", i), &ips->items[i], "%s", why);
            bad = true;
        }
    }
    if (val_len(ips) > 2)
        check_fail(c, CAUSE_INVALID, "spec.clusterIPs", ips, "may only hold up to 2 values");
    if (!bad)
        ips_of_families(c, spec);
}

void schema_validate_service_ips(const struct resource *r, const struct val *v, struct causes *causes)
{
    struct check c = {.causes = causes, .a = causes->a, .r = r, .sub = "", .root = v};

    service_ips(&c, val_get(v, "spec"));
}

static void service_lists(struct check *c, const struct val *spec, const char *type)
{
    const struct val *ext = val_get(spec, "externalIPs"), *src = val_get(spec, "loadBalancerSourceRanges");
    bool balancer = streq(type, "LoadBalancer");
    const char *why;

    for (uint32_t i = 0; i < val_items_n_(ext); i++)
        if ((why = why_of("ip", val_text(&ext->items[i], ""))) ||
            (why = special_address(val_text(&ext->items[i], ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.externalIPs[%u]", i), &ext->items[i], "%s", why);
    if (val_len(src) && !balancer)
        check_fail(c, CAUSE_FORBIDDEN, "spec.LoadBalancerSourceRanges", NULL,
                   "may only be used when `type` is 'LoadBalancer'");
    for (uint32_t i = 0; i < val_items_n_(src); i++)
        if ((why = why_of("cidr", val_text(&src->items[i], ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.LoadBalancerSourceRanges[%u]", i),
                       &src->items[i], "%s", why);
    if (val_get(spec, "allocateLoadBalancerNodePorts") && !balancer)
        check_fail(c, CAUSE_FORBIDDEN, "spec.allocateLoadBalancerNodePorts", NULL,
                   "may only be used when `type` is 'LoadBalancer'");
    const char *class = val_str_at(spec, "loadBalancerClass", "");
    if (val_get(spec, "loadBalancerClass") && !balancer)
        check_fail(c, CAUSE_FORBIDDEN, "spec.loadBalancerClass", NULL,
                   "may only be used when `type` is 'LoadBalancer'");
    const char *whys[4];
    uint32_t bad = balancer && val_get(spec, "loadBalancerClass") ? name_whys(name_qualified, class, whys) : 0;
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, "spec.loadBalancerClass", val_get(spec, "loadBalancerClass"), "%s", whys[i]);
    if (balancer && !val_get(spec, "allocateLoadBalancerNodePorts"))
        check_fail(c, CAUSE_REQUIRED, "allocateLoadBalancerNodePorts", NULL, "%s", "");
}

static void service_policies(struct check *c, const struct val *spec, const char *type)
{
    static const char *const both[] = {"Cluster", "Local", NULL};
    static const char *const spread[] = {"PreferClose", "PreferSameZone", "PreferSameNode", NULL};
    static const char *const affinity[] = {"ClientIP", "None", NULL};
    const char *ext = val_str_at(spec, "externalTrafficPolicy", "");
    bool outside = streq(type, "NodePort") || streq(type, "LoadBalancer") ||
                   (streq(type, "ClusterIP") && val_len(val_get(spec, "externalIPs")));
    const struct {
        const char *name;
        const char *const *known;
    } words[] = {{"internalTrafficPolicy", both}, {"trafficDistribution", spread},
                 {"sessionAffinity", affinity}};

    for (uint32_t i = 0; i < ARRAY_LEN(words); i++) {
        const struct val *v = val_get(spec, words[i].name);
        if (v && !among(val_text(v, ""), words[i].known))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "spec.%s", words[i].name), v,
                       "supported values: as documented");
    }
    if (*ext && !outside)
        check_fail(c, CAUSE_INVALID, "spec.externalTrafficPolicy", val_get(spec, "externalTrafficPolicy"),
                   "may only be set for externally-accessible services");
    else if (*ext && !among(ext, both))
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.externalTrafficPolicy",
                   val_get(spec, "externalTrafficPolicy"), "supported values: \"Cluster\", \"Local\"");
    if (outside && !*ext)
        check_fail(c, CAUSE_REQUIRED, "spec.externalTrafficPolicy", NULL, "%s", "");
    bool checked = streq(type, "LoadBalancer") && streq(ext, "Local");
    int64_t health = val_int_at(spec, "healthCheckNodePort", 0);
    if (checked && !health)
        check_fail(c, CAUSE_REQUIRED, "spec.healthCheckNodePort", NULL, "%s", "");
    else if (checked && (health < 1 || health > 65535))
        check_fail(c, CAUSE_INVALID, "spec.healthCheckNodePort", val_get(spec, "healthCheckNodePort"),
                   "must be between 1 and 65535, inclusive");
    const struct val *was = c->old_root ? val_at(c->old_root, "spec") : NULL;
    if (checked && was && streq(val_str_at(was, "type", ""), "LoadBalancer") &&
        streq(val_str_at(was, "externalTrafficPolicy", ""), "Local") && health != val_int_at(was, "healthCheckNodePort", 0))
        check_fail(c, CAUSE_FORBIDDEN, "spec.healthCheckNodePort", NULL, "field is immutable");
    if (health && !checked)
        check_fail(c, CAUSE_INVALID, "spec.healthCheckNodePort", val_get(spec, "healthCheckNodePort"),
                   "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
}

static void balancer_status(struct check *c, const struct val *v, const struct val *old, const char *type)
{
    const struct val *in = val_at(v, "status.loadBalancer.ingress"), *had = val_at(old, "status.loadBalancer.ingress");

    if (!streq(type, "LoadBalancer") && val_len(in)) {
        check_fail(c, CAUSE_FORBIDDEN, "status.loadBalancer.ingress", NULL,
                   "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (uint32_t i = 0; i < val_items_n_(in); i++) {
        const struct val *x = &in->items[i], *mode = val_get(x, "ipMode");
        const char *ip = val_str_at(x, "ip", ""), *host = val_str_at(x, "hostname", ""), *why;
        const char *at = arena_printf(c->a, "status.loadBalancer.ingress[%u]", i), *whys[4];
        bool kept = false;
        VAL_EACH(had, o)
            kept |= streq(ip, val_str_at(o, "ip", ""));
        if (*ip && !kept && (why = why_of("ip", ip)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.ip", at), val_get(x, "ip"), "%s", why);
        if (!mode && *ip)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.ipMode", at), NULL, "must be specified when `ip` is set");
        else if (mode && !*ip)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.ipMode", at), NULL, "may not be specified when `ip` is not set");
        else if (mode && !streq(mode->s, "VIP") && !streq(mode->s, "Proxy"))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.ipMode", at), mode, "supported values: \"Proxy\", \"VIP\"");
        uint32_t bad = *host ? name_whys(name_dns_subdomain, host, whys) : 0;
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.hostname", at), val_get(x, "hostname"), "%s", whys[k]);
        if (*host && !why_of("ip", host))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.hostname", at), val_get(x, "hostname"),
                       "must be a DNS name, not an IP address");
    }
}

/* A list that may grow by a second entry and lose it again; the first stays. */
static void first_stays(struct check *c, const char *name, const struct val *spec, const struct val *was, bool own_index)
{
    const struct val *now = val_get(spec, name), *had = val_get(was, name);
    uint32_t n = val_len(now), o = val_len(had);
    const char *first = arena_printf(c->a, "spec.%s[0]", name);

    if (n == o) {
        for (uint32_t i = 0; i < n; i++)
            if (!val_equal(&now->items[i], &had->items[i]))
                check_fail(c, CAUSE_INVALID, own_index ? arena_printf(c->a, "spec.%s[%u]", name, i) : first, now,
                           "may not change once set");
        return;
    }
    if (o > n && n == 0 && (own_index || !val_len(val_get(spec, "clusterIPs"))))
        check_fail(c, CAUSE_INVALID, first, now, "the primary value can not be unset");
    if (n && o && !val_equal(&now->items[0], &had->items[0]))
        check_fail(c, CAUSE_INVALID, first, now, "may not change once set");
    if (o > n && n == 1 && !streq(val_str_at(spec, "ipFamilyPolicy", ""), "SingleStack"))
        check_fail(c, CAUSE_INVALID, "spec.ipFamilyPolicy", val_get(spec, "ipFamilyPolicy"),
                   "must be set to 'SingleStack' when releasing the secondary value");
}

static void service_changes(struct check *c, const struct val *spec, const struct val *was, const char *type)
{
    const char *old_type = val_str_at(was, "type", "");
    const struct val *cls = val_get(spec, "loadBalancerClass"), *ocls = val_get(was, "loadBalancerClass");

    if (streq(type, "LoadBalancer") && streq(old_type, "LoadBalancer") &&
        ((cls != NULL) != (ocls != NULL) || (cls && !val_equal(cls, ocls))))
        check_fail(c, CAUSE_INVALID, "spec.loadBalancerClass", cls, "may not change once set");
    if (streq(type, "ExternalName") || streq(old_type, "ExternalName"))
        return;
    bool headless = is_headless(spec), was_headless = is_headless(was);
    if (!(headless && was_headless))
        first_stays(c, "clusterIPs", spec, was, true);
    if (!headless && !was_headless)
        first_stays(c, "ipFamilies", spec, was, false);
}

HOOK(v_service)
{
    static const char *const types[] = {"ClusterIP", "ExternalName", "LoadBalancer", "NodePort", NULL};
    static const char *const never[] = {"ipFamilyPolicy", "ipFamilies", "clusterIPs"};
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec"), *conf = val_get(spec, "sessionAffinityConfig");
    const char *type = val_str_at(spec, "type", ""), *why, *affinity = val_str_at(spec, "sessionAffinity", "");
    bool headless = is_headless(spec), external = streq(type, "ExternalName");

    if (streq(c->sub, "status")) {
        balancer_status(c, v, old, type);
        return;
    }
    if (!among(type, types))
        check_fail(c, *type ? CAUSE_NOT_SUPPORTED : CAUSE_REQUIRED, "spec.type", val_get(spec, "type"),
                   "supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"");
    if (!val_len(val_get(spec, "ports")) && !headless && !external)
        check_fail(c, CAUSE_REQUIRED, "spec.ports", NULL, "%s", "");
    if (headless && (streq(type, "LoadBalancer") || streq(type, "NodePort")))
        check_fail(c, CAUSE_INVALID, "spec.clusterIPs[0]", val_str(c->a, "None"),
                   "may not be set to 'None' for %s services", type);
    if (external) {
        const char *name = val_str_at(spec, "externalName", "");
        for (uint32_t i = 0; i < ARRAY_LEN(never); i++)
            if (val_len(val_get(spec, never[i])) || *val_text(val_get(spec, never[i]), ""))
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "spec.%s", never[i]), NULL,
                           "may not be set for ExternalName services");
        if (!*name || streq(name, "."))
            check_fail(c, CAUSE_REQUIRED, "spec.externalName", NULL, "%s", "");
        else if ((why = name_dns_subdomain(str_ends(name, ".") ? arena_strndup(c->a, name, strlen(name) - 1)
                                                               : name)))
            check_fail(c, CAUSE_INVALID, "spec.externalName", val_get(spec, "externalName"), "%s", why);
    } else {
        service_ips(c, spec);
    }
    if (streq(affinity, "ClientIP") && !val_at(conf, "clientIP.timeoutSeconds"))
        check_fail(c, CAUSE_REQUIRED, "spec.sessionAffinityConfig", NULL, "when session affinity type is ClientIP");
    else if (streq(affinity, "None") && conf)
        check_fail(c, CAUSE_FORBIDDEN, "spec.sessionAffinityConfig", NULL, "must not be set when session affinity is None");
    validate_labels(c, "spec.selector", val_get(spec, "selector"));
    service_ports(c, spec, type);
    service_lists(c, spec, type);
    service_policies(c, spec, type);
    if (was)
        service_changes(c, spec, was, type);
}

/* ---- volumes and claims ---- */

static const char *const modes[] = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod", NULL};

static void access_modes(struct check *c, const struct val *list)
{
    bool alone = false;

    if (!val_len(list))
        check_fail(c, CAUSE_REQUIRED, "accessModes", NULL, "at least 1 access mode is required");
    VAL_EACH(list, m) {
        if (!among(val_text(m, ""), modes))
            check_fail(c, CAUSE_NOT_SUPPORTED, "accessModes", m, "supported values: as documented");
        alone |= streq(val_text(m, ""), "ReadWriteOncePod");
    }
    if (alone && val_len(list) > 1)
        check_fail(c, CAUSE_FORBIDDEN, "accessModes", NULL,
                   "may not use ReadWriteOncePod with other access modes");
}

static void volume_mode(struct check *c, const struct val *v)
{
    static const char *const known[] = {"Block", "Filesystem", NULL};
    const struct val *mode = val_get(v, "volumeMode");

    if (mode && !among(val_text(mode, ""), known))
        check_fail(c, CAUSE_NOT_SUPPORTED, "volumeMode", mode, "supported values: \"Block\", \"Filesystem\"");
}

static bool is_volume_source(const char *key)
{
    static const char *const not_source[] = {
        "capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName",
        "mountOptions", "volumeMode", "nodeAffinity", "volumeAttributesClassName", NULL};

    return !among(key, not_source);
}

HOOK(v_volume_spec)
{
    static const char *const reclaim[] = {"Delete", "Recycle", "Retain", NULL};
    bool inside = c->path_n > 4; /* within a VolumeAttachment */
    const struct val *cap = val_get(v, "capacity"), *policy = val_get(v, "persistentVolumeReclaimPolicy");
    uint32_t sources = 0;
    (void)old;

    access_modes(c, val_get(v, "accessModes"));
    if (!inside) {
        if (!val_len(cap))
            check_fail(c, CAUSE_REQUIRED, "capacity", NULL, "%s", "");
        if (!val_get(cap, "storage") || val_len(cap) > 1)
            check_fail(c, CAUSE_NOT_SUPPORTED, "capacity", cap, "supported values: \"storage\"");
        VAL_EACH_MEMBER(cap, m)
            for (int twice = quantity_num(&m->v, 0) < 0; twice >= 0 && quantity_num(&m->v, 0) <= 0; twice--)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "capacity[%s]", m->key), &m->v,
                           "must be greater than zero");
        if (policy && policy->n && !among(policy->s, reclaim))
            check_fail(c, CAUSE_NOT_SUPPORTED, "persistentVolumeReclaimPolicy", policy,
                       "supported values: \"Delete\", \"Recycle\", \"Retain\"");
    }
    const char *class = val_str_at(v, "storageClassName", ""), *why;
    if (*class && (why = name_dns_subdomain(class)))
        check_fail(c, CAUSE_INVALID, "storageClassName", val_get(v, "storageClassName"), "%s", why);
    volume_mode(c, v);
    VAL_EACH_MEMBER(v, m)
        if (is_volume_source(m->key) && sources++)
            check_fail(c, CAUSE_FORBIDDEN, m->key, NULL, "may not specify more than 1 volume type");
    if (!sources)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "must specify a volume type");
}

HOOK(v_volume_object)
{
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");
    struct val a = {.type = VAL_MAP}, b = {.type = VAL_MAP};

    if (!was || *c->sub)
        return;
    VAL_EACH_MEMBER(spec, m)
        if (is_volume_source(m->key))
            val_put(c->a, &a, m->key, &m->v);
    VAL_EACH_MEMBER(was, m)
        if (is_volume_source(m->key))
            val_put(c->a, &b, m->key, &m->v);
    if (!val_equal(&a, &b))
        check_fail(c, CAUSE_FORBIDDEN, "spec.persistentvolumesource", NULL,
                   "spec.persistentvolumesource is immutable after creation");
    if (!same(val_get(spec, "volumeMode"), val_get(was, "volumeMode")))
        check_fail(c, CAUSE_INVALID, "volumeMode", val_get(spec, "volumeMode"), "field is immutable");
    if (val_get(was, "nodeAffinity") && !same(val_get(spec, "nodeAffinity"), val_get(was, "nodeAffinity")))
        check_fail(c, CAUSE_INVALID, "nodeAffinity", val_get(spec, "nodeAffinity"), "field is immutable");
}

static bool same_text(const struct val *x, const struct val *y, const char *key)
{
    return streq(val_str_at(x, key, ""), val_str_at(y, key, ""));
}

/* What a claim is filled from: dataSource or dataSourceRef. */
static void claim_source(struct check *c, const char *at, const struct val *ref)
{
    const char *group = val_str_at(ref, "apiGroup", ""), *kind = val_str_at(ref, "kind", ""), *why;
    const char *ns = val_str_at(ref, "namespace", "");

    if (!val_is(ref, VAL_MAP))
        return;
    if (!*val_str_at(ref, "name", ""))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "%s", "");
    if (!*kind)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.kind", at), NULL, "%s", "");
    if (!*group && !streq(kind, "PersistentVolumeClaim"))
        check_fail(c, CAUSE_INVALID, at, val_get(ref, "kind"),
                   "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    if (*group && (why = name_dns_subdomain(group)))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.apiGroup", at), val_get(ref, "apiGroup"), "%s", why);
    if (*ns && (why = name_dns_label(ns)))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.namespace", at), val_get(ref, "namespace"), "%s", why);
}

static void claim_sources(struct check *c, const struct val *spec)
{
    const struct val *old_form = val_get(spec, "dataSource"), *ref = val_get(spec, "dataSourceRef");

    claim_source(c, "dataSource", old_form);
    claim_source(c, "dataSourceRef", ref);
    if (!old_form || !ref)
        return;
    if (*val_str_at(ref, "namespace", ""))
        check_fail(c, CAUSE_INVALID, "", old_form, "may not be specified when dataSourceRef.namespace is specified");
    else if (!same_text(old_form, ref, "apiGroup") || !same_text(old_form, ref, "kind") || !same_text(old_form, ref, "name"))
        check_fail(c, CAUSE_INVALID, "", old_form, "must match dataSourceRef");
}

HOOK(v_claim_spec)
{
    const struct val *size = val_at(v, "resources.requests.storage");
    const char *class = val_str_at(v, "storageClassName", ""), *why;
    (void)old;

    access_modes(c, val_get(v, "accessModes"));
    if (!size)
        check_fail(c, CAUSE_REQUIRED, "resources[storage]", NULL, "%s", "");
    else if (quantity_num(size, 0) <= 0)
        check_fail(c, CAUSE_INVALID, "resources[storage]", size, "must be greater than zero");
    if (*class && (why = name_dns_subdomain(class)))
        check_fail(c, CAUSE_INVALID, "storageClassName", val_get(v, "storageClassName"), "%s", why);
    volume_mode(c, v);
    claim_sources(c, v);
    class = val_str_at(v, "volumeAttributesClassName", "");
    if (*class && (why = name_dns_subdomain(class)))
        check_fail(c, CAUSE_INVALID, "volumeAttributesClassName", val_get(v, "volumeAttributesClassName"), "%s", why);
}

HOOK(v_claim_object)
{
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");

    if (streq(c->sub, "status")) {
        static const char *const known[] = {"ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending",
                                            "NodeResizeInProgress", "NodeResizeInfeasible", NULL};
        VAL_EACH_MEMBER(val_at(v, "status.allocatedResourceStatuses"), m)
            if (!among(val_text(&m->v, ""), known))
                check_fail(c, CAUSE_NOT_SUPPORTED, "status.allocatedResourceStatuses", &m->v,
                           "supported values: as documented");
    }
    if (!was || *c->sub)
        return;
    struct val *x = val_copy(c->a, spec), *y = val_copy(c->a, was);
    bool bound = streq(val_str_at(old, "status.phase", ""), "Bound");
    const struct val *size = val_at(spec, "resources.requests.storage"),
                     *had = val_at(was, "resources.requests.storage");
    /* bound by whoever binds; grown while bound; the attributes class may move */
    if (bound) {
        val_del(x, "volumeAttributesClassName");
        val_del(y, "volumeAttributesClassName");
    }
    if (!*val_str_at(was, "volumeName", "")) {
        val_del(x, "volumeName");
        val_del(y, "volumeName");
    }
    if (val_get(val_get(x, "resources"), "requests")) {
        val_del(val_at(x, "resources.requests"), "storage");
        val_del(val_at(y, "resources.requests"), "storage");
    }
    bool class_given = val_get(was, "storageClassName") == NULL && val_get(spec, "storageClassName");
    if (class_given)
        val_del(x, "storageClassName");
    if (!val_equal(x, y) || (!bound && size && had && quantity_num(size, 0) != quantity_num(had, 0)))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL,
                   "spec is immutable after creation except resources.requests and "
                   "volumeAttributesClassName for bound claims");
    if (quantity_num(size, 0) < quantity_num(had, 0) &&
        quantity_num(size, 0) <= quantity_num(val_at(old, "status.capacity.storage"), 0))
        check_fail(c, CAUSE_FORBIDDEN, "spec.resources.requests.storage", NULL,
                   "field can not be less than status.capacity");
    if (!same(val_get(spec, "volumeMode"), val_get(was, "volumeMode")))
        check_fail(c, CAUSE_INVALID, "volumeMode", val_get(spec, "volumeMode"), "field is immutable");
    if (val_at(old, "status.currentVolumeAttributesClassName") && !*val_str_at(spec, "volumeAttributesClassName", "") &&
        !same(val_get(spec, "volumeAttributesClassName"), val_get(was, "volumeAttributesClassName")))
        check_fail(c, CAUSE_FORBIDDEN, "spec.volumeAttributesClassName", NULL,
                   "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil");
}

HOOK(v_label_selector)
{
    (void)old;
    validate_label_selector(c, "", v);
}
