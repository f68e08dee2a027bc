/* schema/default.c - fills in what the client left out.
 *
 * For each struct: its fields' defaults (those with a default-if behind the field they look at),
 * then its hook, then the same for the structs inside. So a struct that a default made gets the
 * defaults of its own. Running it twice changes nothing. */
#include "schema/schema_int.h"

static bool given(const struct field *f, const struct val *v)
{
    if (!v || v->type == VAL_NULL)
        return false;
    if (f->flags & FIELD_PTR)
        return true;
    switch (v->type) {
    case VAL_BOOL:
        return v->b;
    case VAL_INT:
        return v->i != 0;
    case VAL_STR:
    case VAL_LIST:
        return v->n != 0;
    default:
        return true;
    }
}

static bool condition(const struct field *f, const struct val *v)
{
    for (const struct rule *r = f->rules; r; r = r->next) {
        if (r->op != RULE_DEFAULT_IF)
            continue;
        const char *have = val_text(val_get(v, r->words[0]), "");
        bool hit = false;
        for (uint32_t i = 1; i < r->words_n; i++)
            hit |= streq(have, r->words[i]);
        if (!hit)
            return false;
    }
    return true;
}

static void default_value(const struct type *t, struct arena *a, struct val *v,
                          const struct val *root)
{
    if (t->kind == TYPE_STRUCT) {
        if (v->type == VAL_MAP)
            default_type(t, a, v, root);
    } else if (t->kind == TYPE_LIST) {
        VAL_EACH(v, it)
            default_value(t->elem, a, it, root);
    } else if (t->kind == TYPE_MAP && t->elem->kind >= TYPE_LIST) {
        VAL_EACH_MEMBER(v, m)
            default_value(t->elem, a, &m->v, root);
    }
}

void default_type(const struct type *t, struct arena *a, struct val *v, const struct val *root)
{
    for (uint32_t i = 0; i < t->fields_n; i++) {
        const struct field *f = &t->fields[i];
        if (f->def && !given(f, val_getn(v, f->name, f->name_n)) && condition(f, v))
            val_putn(a, v, f->name, f->name_n, val_copy(a, f->def));
    }
    for (const struct rule *r = t->rules; r; r = r->next)
        if (r->op == RULE_DEFAULT_HOOK)
            ((default_hook_fn *)(uintptr_t)r->fn)(a, v, root);
    VAL_EACH_MEMBER(v, m) {
        const struct field *f = type_field(t, m->key, m->n);
        if (f && f->type->kind >= TYPE_LIST)
            default_value(f->type, a, &m->v, root);
    }
}

void schema_default(const struct resource *r, struct arena *a, struct val *v)
{
    if (r->custom)
        crd_default(resource_type(r), a, v);
    else
        default_type(r->described, a, v, v);
}

/* ---- hooks: what data can not say ---- */

static void copy_missing(struct arena *a, struct val *to, const struct val *from)
{
    VAL_EACH_MEMBER(from, m)
        if (!val_getn(to, m->key, m->n))
            val_putn(a, to, m->key, m->n, &m->v);
}

/* "Always" for :latest and no tag, else "IfNotPresent". */
static const char *pull_policy(const char *image)
{
    const char *name = strrchr(image, '/');
    const char *tag = strrchr(name ? name : image, ':');
    bool always = strchr(image, '@') ? false : !tag || streq(tag, ":latest");

    return always ? "Always" : "IfNotPresent";
}

static void d_container(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    const char *image = val_text(val_get(v, "image"), "");

    if (*val_text(val_get(v, "imagePullPolicy"), ""))
        return;
    val_put(a, v, "imagePullPolicy", val_lit(a, pull_policy(image)));
}

static void host_ports(struct arena *a, struct val *containers)
{
    VAL_EACH(containers, c)
        VAL_EACH(val_get(c, "ports"), p)
            if (!val_int_at(p, "hostPort", 0))
                val_put_int(a, p, "hostPort", val_int_at(p, "containerPort", 0));
}

static void requests_of_limits(struct arena *a, struct val *containers)
{
    VAL_EACH(containers, c) {
        struct val *limits = val_at(c, "resources.limits");
        if (val_len(limits))
            copy_missing(a, val_need_map(a, val_get(c, "resources"), "requests"), limits);
    }
}

/* podIP is the first of podIPs: when they differ, the old field is right. */
static void pod_ips(struct arena *a, struct val *status)
{
    const char *one = val_str_at(status, "podIP", ""), *first = val_str_at(status, "podIPs[0].ip", "");

    if (*one && !streq(one, first)) {
        struct val *list = val_list(a), *it = val_map(a);
        val_put_str(a, it, "ip", one);
        val_push(a, list, it);
        val_put(a, status, "podIPs", list);
    } else if (!*one && *first) {
        val_put_str(a, status, "podIP", first);
    }
}

static void d_pod(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *spec = val_get(v, "spec");

    if (val_is(val_get(v, "status"), VAL_MAP))
        pod_ips(a, val_get(v, "status"));

    if (!val_is(spec, VAL_MAP))
        return;
    requests_of_limits(a, val_get(spec, "containers"));
    requests_of_limits(a, val_get(spec, "initContainers"));
    struct val *limits = val_at(spec, "resources.limits");
    if (val_len(limits))
        copy_missing(a, val_need_map(a, val_get(spec, "resources"), "requests"), limits);
    if (!val_get(spec, "enableServiceLinks"))
        val_put_bool(a, spec, "enableServiceLinks", true);
    if (val_bool_at(spec, "hostNetwork", false)) {
        host_ports(a, val_get(spec, "containers"));
        host_ports(a, val_get(spec, "initContainers"));
    }
}

/* serviceAccount is the old name of serviceAccountName: both are shown. */
static void d_podspec(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    const char *name = val_text(val_get(v, "serviceAccountName"), "");
    const char *old = val_text(val_get(v, "serviceAccount"), "");

    if (*name && !streq(old, name))
        val_put_str(a, v, "serviceAccount", name);
    else if (*old && !*name)
        val_put_str(a, v, "serviceAccountName", old);
}

static void d_volume(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    bool source = false;

    VAL_EACH_MEMBER(v, m)
        source |= !streq(m->key, "name");
    if (!source)
        val_put(a, v, "emptyDir", val_map(a));
    struct val *image = val_get(v, "image");
    if (image && !*val_text(val_get(image, "pullPolicy"), ""))
        val_put(a, image, "pullPolicy", val_lit(a, pull_policy(val_str_at(image, "reference", ""))));
}

static bool is_one_of(const char *s, const char *x, const char *y)
{
    return streq(s, x) || streq(s, y);
}

static void d_service(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *spec = val_need_map(a, v, "spec");
    const char *type = val_text(val_get(spec, "type"), "");
    const char *affinity = val_text(val_get(spec, "sessionAffinity"), "");

    if (!*type)
        val_put(a, spec, "type", val_lit(a, type = "ClusterIP"));
    if (!*affinity || streq(affinity, "None"))
        val_del(spec, "sessionAffinityConfig");
    else if (streq(affinity, "ClientIP") &&
             !val_at(spec, "sessionAffinityConfig.clientIP.timeoutSeconds"))
        val_set_at(a, spec, "sessionAffinityConfig.clientIP.timeoutSeconds", val_int(a, 10800));
    VAL_EACH(val_get(spec, "ports"), p) {
        const struct val *target = val_get(p, "targetPort");
        if (!target || (target->type == VAL_INT && target->i == 0) ||
            (target->type == VAL_STR && target->n == 0))
            val_put_int(a, p, "targetPort", val_int_at(p, "port", 0));
    }
    bool outside = is_one_of(type, "NodePort", "LoadBalancer") ||
                   (streq(type, "ClusterIP") && val_len(val_get(spec, "externalIPs")));
    if (outside && !*val_text(val_get(spec, "externalTrafficPolicy"), ""))
        val_put(a, spec, "externalTrafficPolicy", val_lit(a, "Cluster"));
    if (!val_get(spec, "internalTrafficPolicy") &&
        (is_one_of(type, "NodePort", "LoadBalancer") || streq(type, "ClusterIP")))
        val_put(a, spec, "internalTrafficPolicy", val_lit(a, "Cluster"));
    if (!streq(type, "LoadBalancer"))
        return;
    if (!val_get(spec, "allocateLoadBalancerNodePorts"))
        val_put_bool(a, spec, "allocateLoadBalancerNodePorts", true);
    VAL_EACH(val_at(v, "status.loadBalancer.ingress"), in)
        if (*val_text(val_get(in, "ip"), "") && !val_get(in, "ipMode"))
            val_put(a, in, "ipMode", val_lit(a, "VIP"));
}

static char *base64(struct arena *a, const char *s, size_t n)
{
    static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = arena_raw(a, (n + 2) / 3 * 4 + 1), *p = out;
    const unsigned char *u = (const unsigned char *)s;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t w = (uint32_t)u[i] << 16;
        w |= i + 1 < n ? (uint32_t)u[i + 1] << 8 : 0;
        w |= i + 2 < n ? u[i + 2] : 0;
        *p++ = abc[w >> 18];
        *p++ = abc[w >> 12 & 63];
        *p++ = i + 1 < n ? abc[w >> 6 & 63] : '=';
        *p++ = i + 2 < n ? abc[w & 63] : '=';
    }
    *p = 0;
    return out;
}

/* stringData is only ever written: it ends up in data. */
static void d_secret(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *plain = val_get(v, "stringData");

    if (val_len(plain)) {
        struct val *data = val_need_map(a, v, "data");
        VAL_EACH_MEMBER(val_get(v, "stringData"), m)
            if (m->v.type == VAL_STR)
                val_putn(a, data, m->key, m->n, val_lit(a, base64(a, m->v.s, m->v.n)));
    }
    val_del(v, "stringData");
}

static void d_namespace(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *meta = val_need_map(a, v, "metadata");
    const char *name = val_text(val_get(meta, "name"), "");

    if (*name)
        val_put_str(a, val_need_map(a, meta, "labels"), "kubernetes.io/metadata.name", name);
}

static void d_node(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *status = val_get(v, "status");
    struct val *capacity = val_get(status, "capacity"), *spec = val_get(v, "spec");
    const char *one = val_str_at(spec, "podCIDR", "");
    const struct val *all = val_get(spec, "podCIDRs");
    if (*one && !(val_len(all) && streq(val_text(&all->items[0], ""), one))) {
        struct val *list = val_list(a); /* the old field with one of them goes before */
        val_push_str(a, list, one);
        val_put(a, spec, "podCIDRs", list);
    } else if (!*one && val_len(all)) {
        val_put(a, spec, "podCIDR", &all->items[0]);
    }

    if (val_len(capacity) && !val_len(val_get(status, "allocatable")))
        val_put(a, status, "allocatable", val_copy(a, capacity));
}

static void d_claim(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    if (*val_str_at(v, "status.phase", "") == 0)
        val_set_at(a, v, "status.phase", val_lit(a, "Pending"));
}

static void d_limitrange(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    if (!streq(val_text(val_get(v, "type"), ""), "Container"))
        return;
    struct val def = {.type = VAL_MAP}, request = {.type = VAL_MAP};
    copy_missing(a, &def, val_get(v, "default"));
    copy_missing(a, &def, val_get(v, "max"));
    copy_missing(a, &request, val_get(v, "defaultRequest"));
    copy_missing(a, &request, &def);
    copy_missing(a, &request, val_get(v, "min"));
    if (def.n)
        val_put(a, v, "default", &def);
    if (request.n)
        val_put(a, v, "defaultRequest", &request);
}

static void d_volume_object(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *spec = val_get(v, "spec");

    if (!*val_str_at(v, "status.phase", ""))
        val_set_at(a, v, "status.phase", val_lit(a, "Pending"));
    if (spec && !*val_str_at(spec, "persistentVolumeReclaimPolicy", ""))
        val_put(a, spec, "persistentVolumeReclaimPolicy", val_lit(a, "Retain"));
    if (spec && !val_get(spec, "volumeMode"))
        val_put(a, spec, "volumeMode", val_lit(a, "Filesystem"));
}

/* Only the names of secrets are kept. */
static void d_serviceaccount(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    VAL_EACH(val_get(v, "secrets"), s) {
        const struct val *name = val_get(s, "name");
        struct val one = {.type = VAL_MAP};
        if (name)
            val_put(a, &one, "name", name);
        *s = one;
    }
}

static void d_rc(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    const struct val *labels = val_at(v, "spec.template.metadata.labels");

    if (!val_len(labels))
        return;
    if (!val_len(val_at(v, "spec.selector")))
        val_set_at(a, v, "spec.selector", val_copy(a, labels));
    if (!val_len(val_at(v, "metadata.labels")))
        val_set_at(a, v, "metadata.labels", val_copy(a, labels));
}

static void d_daemonset(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *notes = val_need_map(a, val_need_map(a, v, "metadata"), "annotations");

    if (!val_get(notes, "deprecated.daemonset.template.generation"))
        val_put(a, notes, "deprecated.daemonset.template.generation", val_lit(a, "1"));
}

static void d_statefulset_strategy(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    if (!*val_text(val_get(v, "type"), "")) {
        val_put(a, v, "type", val_lit(a, "RollingUpdate"));
        val_need_map(a, v, "rollingUpdate");
    }
    struct val *rolling = val_get(v, "rollingUpdate");
    if (rolling && streq(val_text(val_get(v, "type"), ""), "RollingUpdate") &&
        !val_get(rolling, "partition"))
        val_put_int(a, rolling, "partition", 0);
}

static void d_statefulset(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    VAL_EACH(val_get(v, "volumeClaimTemplates"), t) {
        val_put(a, t, "kind", val_lit(a, "PersistentVolumeClaim"));
        val_put(a, t, "apiVersion", val_lit(a, "v1"));
    }
}

static struct val *policy(struct arena *a, const char *type, int value)
{
    struct val *p = val_map(a);

    val_put_str(a, p, "type", type);
    val_put_int(a, p, "value", value);
    val_put_int(a, p, "periodSeconds", 15);
    return p;
}

static void d_hpa(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *behavior = val_get(v, "behavior");

    if (!val_len(val_get(v, "metrics"))) {
        struct val *one = val_map(a);
        val_put_str(a, one, "type", "Resource");
        val_set_at(a, one, "resource.name", val_lit(a, "cpu"));
        val_set_at(a, one, "resource.target.type", val_lit(a, "Utilization"));
        val_set_at(a, one, "resource.target.averageUtilization", val_int(a, 80));
        val_push(a, val_need_list(a, v, "metrics"), one);
    }
    if (!val_is(behavior, VAL_MAP))
        return;
    for (int up = 1; up >= 0; up--) {
        struct val *rules = val_need_map(a, behavior, up ? "scaleUp" : "scaleDown");
        if (up && !val_get(rules, "stabilizationWindowSeconds"))
            val_put_int(a, rules, "stabilizationWindowSeconds", 0);
        if (!val_get(rules, "selectPolicy"))
            val_put(a, rules, "selectPolicy", val_lit(a, "Max"));
        if (val_get(rules, "policies"))
            continue;
        struct val *list = val_need_list(a, rules, "policies");
        if (up)
            val_push(a, list, policy(a, "Pods", 4));
        val_push(a, list, policy(a, "Percent", 100));
    }
}

/* What v2 holds beside travels in annotations of v1. */
static void d_hpa1(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *spec = val_get(v, "spec");

    if (spec && !val_get(spec, "targetCPUUtilizationPercentage") &&
        !val_get(val_at(v, "metadata.annotations"), "autoscaling.alpha.kubernetes.io/metrics"))
        val_put_int(a, spec, "targetCPUUtilizationPercentage", 80);
}

static void d_job(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *spec = val_need_map(a, v, "spec");
    const struct val *labels = val_at(spec, "template.metadata.labels");
    static const struct {
        const char *name, *text;
    } texts[] = {{"completionMode", "NonIndexed"}};

    if (!val_get(spec, "completions") && !val_get(spec, "parallelism"))
        val_put_int(a, spec, "completions", 1);
    if (!val_get(spec, "parallelism"))
        val_put_int(a, spec, "parallelism", 1);
    if (!val_get(spec, "backoffLimit"))
        val_put_int(a, spec, "backoffLimit", val_get(spec, "backoffLimitPerIndex") ? INT32_MAX : 6);
    if (val_len(labels) && !val_len(val_at(v, "metadata.labels")))
        val_set_at(a, v, "metadata.labels", val_copy(a, labels));
    for (uint32_t i = 0; i < ARRAY_LEN(texts); i++)
        if (!val_get(spec, texts[i].name))
            val_put(a, spec, texts[i].name, val_lit(a, texts[i].text));
    if (!val_get(spec, "suspend"))
        val_put_bool(a, spec, "suspend", false);
    if (!val_get(spec, "podReplacementPolicy"))
        val_put(a, spec, "podReplacementPolicy",
                val_lit(a, val_get(spec, "podFailurePolicy") ? "Failed" : "TerminatingOrFailed"));
    if (!val_get(spec, "manualSelector"))
        val_put_bool(a, spec, "manualSelector", false);
}

static void d_networkpolicy(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    if (val_len(val_get(v, "policyTypes")))
        return;
    struct val *types = val_list(a);
    val_push_str(a, types, "Ingress");
    if (val_len(val_get(v, "egress")))
        val_push_str(a, types, "Egress");
    val_put(a, v, "policyTypes", types);
}

static void d_crd(struct arena *a, struct val *v, _unused_ const struct val *root)
{
    struct val *names = val_at(v, "spec.names");
    const char *kind = val_text(val_get(names, "kind"), "");

    if (names && !*val_text(val_get(names, "singular"), "")) {
        char *lower = arena_strdup(a, kind);
        for (char *p = lower; *p; p++)
            *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
        val_put_str(a, names, "singular", lower);
    }
    if (names && *kind && !*val_text(val_get(names, "listKind"), ""))
        val_put(a, names, "listKind", val_printf(a, "%sList", kind));
    if (val_len(val_at(v, "status.storedVersions")))
        return;
    VAL_EACH(val_at(v, "spec.versions"), ver)
        if (val_bool_at(ver, "storage", false)) {
            struct val *stored = val_list(a);
            val_push_str(a, stored, val_text(val_get(ver, "name"), ""));
            val_set_at(a, v, "status.storedVersions", stored);
            break;
        }
}

static const struct {
    const char *name;
    default_hook_fn *fn;
} hooks[] = {
    {"pod", d_pod},
    {"podspec", d_podspec},
    {"container", d_container},
    {"volume", d_volume},
    {"service", d_service},
    {"secret", d_secret},
    {"namespace", d_namespace},
    {"node", d_node},
    {"claim", d_claim},
    {"volume_object", d_volume_object},
    {"serviceaccount", d_serviceaccount},
    {"limitrange", d_limitrange},
    {"replicationcontroller", d_rc},
    {"daemonset", d_daemonset},
    {"statefulset_strategy", d_statefulset_strategy},
    {"statefulset", d_statefulset},
    {"hpa", d_hpa},
    {"hpa1", d_hpa1},
    {"job", d_job},
    {"networkpolicy", d_networkpolicy},
    {"crd", d_crd},
};

default_hook_fn *default_hook_find(const char *name)
{
    for (uint32_t i = 0; i < ARRAY_LEN(hooks); i++)
        if (streq(hooks[i].name, name))
            return hooks[i].fn;
    return NULL;
}
