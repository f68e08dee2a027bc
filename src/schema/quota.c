/* schema/quota.c - how much of a quota's amounts an object uses, kind by kind. */
#include "schema/quota.h"

#include "base/buf.h"
#include "schema/schema.h"

#define CLASS_STORAGE ".storageclass.storage.k8s.io/"
#define CLASS_DEVICES ".deviceclass.resource.k8s.io/devices"
#define IMPLICIT_DEVICES "deviceclass.resource.kubernetes.io/"

enum { DEVICES_MAX = 32 }; /* that one request for all devices can get */

/* ---------------------------------------------------------------- lists of amounts */

struct amount *amounts_get(const struct amounts *list, const char *name)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (streq(list->v[i].name, name))
            return &list->v[i];
    return NULL;
}

static struct amount *need(struct amounts *list, const char *name)
{
    struct amount *x = amounts_get(list, name);

    if (x)
        return x;
    if ((list->n & (list->n - 1)) == 0) { /* full at each power of two */
        struct amount *v = arena_array(list->a, struct amount, list->n ? 2 * list->n : 1);

        if (list->n)
            memcpy(v, list->v, list->n * sizeof(*v));
        list->v = v;
    }
    x = &list->v[list->n++];
    *x = (struct amount){.name = arena_strdup(list->a, name)};
    return x;
}

void amounts_add(struct amounts *list, const char *name, quantity q, bool binary)
{
    struct amount *x = need(list, name);

    if (x->q == 0) /* the form of what is first said */
        x->binary = binary;
    x->q += q;
}

void amounts_read(struct amounts *list, const struct val *map)
{
    VAL_EACH_MEMBER(map, m)
        amounts_add(list, m->key, quantity_of(&m->v), quantity_is_binary(val_text(&m->v, NULL)));
}

/* list = the greater of list and more, name by name. */
static void amounts_max(struct amounts *list, const struct amounts *more)
{
    for (uint32_t i = 0; i < more->n; i++) {
        const struct amount *y = &more->v[i];
        struct amount *x = amounts_get(list, y->name);

        if (!x || y->q > x->q) {
            x = need(list, y->name);
            x->q = y->q;
            x->binary = y->binary;
        }
    }
}

static void amounts_sum(struct amounts *list, const struct amounts *more)
{
    for (uint32_t i = 0; i < more->n; i++)
        amounts_add(list, more->v[i].name, more->v[i].q, more->v[i].binary);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(((const struct amount *)x)->name, ((const struct amount *)y)->name);
}

char *amounts_text(const struct amounts *list)
{
    struct buf b = {.max = 1 << 16};
    char *text;

    if (list->n)
        qsort(list->v, list->n, sizeof(*list->v), by_name);
    for (uint32_t i = 0; i < list->n; i++)
        buf_printf(&b, "%s%s=%s", i ? "," : "", list->v[i].name,
                   quantity_text(list->a, list->v[i].q, list->v[i].binary));
    text = arena_strdup(list->a, b.n ? b.p : "");
    buf_done(&b);
    return text;
}

/* ---------------------------------------------------------------- names */

static bool is_kind(const char *group, const char *plural, const char *g, const char *p)
{
    return streq(plural, p) && streq(group, g);
}

static bool native(const char *name)
{
    return !strchr(name, '/') || strstr(name, "kubernetes.io/");
}

static bool extended(const char *name)
{
    return str_starts(name, IMPLICIT_DEVICES) ||
           (!native(name) && !str_starts(name, "requests.") && !name_qualified(name));
}

/* "requests.nvidia.com/gpu" */
static bool extended_quota(const char *name)
{
    return str_starts(name, "requests.") &&
           (!native(name) || str_starts(name, "requests." IMPLICIT_DEVICES));
}

/* "count/deployments.apps" */
static bool is_count(const char *group, const char *plural, const char *name)
{
    size_t n = strlen(plural);

    if (!str_starts(name, "count/") || strncmp(name + 6, plural, n) != 0)
        return false;
    name += 6 + n;
    return *group ? *name == '.' && streq(name + 1, group) : !*name;
}

static bool pod_tracks(const char *name)
{
    static const char *const names[] = {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage",
        "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i], name))
            return true;
    return str_starts(name, "hugepages-") || str_starts(name, "requests.hugepages-") ||
           extended_quota(name);
}

static bool claim_tracks(const char *name)
{
    static const char *const names[] = {"persistentvolumeclaims", "requests.storage"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (streq(names[i], name) ||
            (str_ends(name, names[i]) && strlen(name) >= strlen(CLASS_STORAGE) + strlen(names[i]) &&
             str_starts(name + strlen(name) - strlen(names[i]) - strlen(CLASS_STORAGE), CLASS_STORAGE)))
            return true;
    return false;
}

static bool device_tracks(const struct quota_world *w, const char *name)
{
    if (str_ends(name, CLASS_DEVICES))
        return true;
    if (!extended_quota(name))
        return false;
    name += strlen("requests.");
    if (str_starts(name, IMPLICIT_DEVICES))
        return w->class_named && w->class_named(w->arg, name + strlen(IMPLICIT_DEVICES));
    return w->class_for && w->class_for(w->arg, name);
}

bool quota_tracks(const struct quota_world *w, const char *group, const char *plural,
                  const char *name)
{
    static const char *const olds[] = {"configmaps", "resourcequotas", "replicationcontrollers", "secrets"};

    if (is_kind(group, plural, "", "events"))
        return false;
    if (is_count(group, plural, name))
        return true;
    if (is_kind(group, plural, "resource.k8s.io", "resourceclaims"))
        return device_tracks(w, name);
    if (*group)
        return false;
    if (streq(plural, "pods"))
        return pod_tracks(name);
    if (streq(plural, "persistentvolumeclaims"))
        return claim_tracks(name);
    if (streq(plural, "services"))
        return streq(name, "services") || streq(name, "services.nodeports") ||
               streq(name, "services.loadbalancers");
    for (size_t i = 0; i < ARRAY_LEN(olds); i++)
        if (streq(olds[i], plural))
            return streq(name, plural);
    return false;
}

/* ---------------------------------------------------------------- scopes */

/* A scope's selector against the one value that the object has (NULL: none). */
static bool selects(const char *op, const struct val *values, const char *has)
{
    bool in = false;

    VAL_EACH(values, v)
        in |= has && streq(val_text(v, ""), has);
    if (streq(op, "In"))
        return in;
    if (streq(op, "NotIn"))
        return !in;
    if (streq(op, "DoesNotExist"))
        return !has;
    return has != NULL;
}

static bool terminating(const struct val *pod)
{
    return val_int_at(pod, "spec.activeDeadlineSeconds", -1) >= 0;
}

static bool terms_cross(const struct val *terms, const char *inner)
{
    VAL_EACH(terms, t) {
        const struct val *term = inner ? val_get(t, inner) : t;

        if (val_len(val_get(term, "namespaces")) || !val_is_null(val_get(term, "namespaceSelector")))
            return true;
    }
    return false;
}

static bool crosses(const struct val *pod)
{
    static const char *const kinds[] = {"podAffinity", "podAntiAffinity"};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct val *x = val_get(val_at(pod, "spec.affinity"), kinds[i]);

        if (terms_cross(val_get(x, "requiredDuringSchedulingIgnoredDuringExecution"), NULL) ||
            terms_cross(val_get(x, "preferredDuringSchedulingIgnoredDuringExecution"), "podAffinityTerm"))
            return true;
    }
    return false;
}

static bool pod_in_scope(const char *scope, const char *op, const struct val *values,
                         const struct val *pod)
{
    const char *class_ = val_str_at(pod, "spec.priorityClassName", "");
    bool best = streq(val_str_at(pod, "status.qosClass", ""), "BestEffort");

    if (streq(scope, "Terminating"))
        return terminating(pod);
    if (streq(scope, "NotTerminating"))
        return !terminating(pod);
    if (streq(scope, "BestEffort"))
        return best;
    if (streq(scope, "NotBestEffort"))
        return !best;
    if (streq(scope, "PriorityClass"))
        return selects(op, values, *class_ ? class_ : NULL);
    if (streq(scope, "CrossNamespacePodAffinity"))
        return crosses(pod);
    return false;
}

static bool claim_in_scope(const char *scope, const char *op, const struct val *values,
                           const struct val *claim)
{
    const char *names[] = {val_str_at(claim, "spec.volumeAttributesClassName", ""),
                           val_str_at(claim, "status.currentVolumeAttributesClassName", ""),
                           val_str_at(claim, "status.modifyVolumeStatus.targetVolumeAttributesClassName", "")};
    bool any = false;

    if (!streq(scope, "VolumeAttributesClass"))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        any |= *names[i] != 0;
        if (*names[i] && selects(op, values, names[i]))
            return true;
    }
    return !any && selects(op, values, NULL);
}

static bool in_scope(const char *group, const char *plural, const char *scope, const char *op,
                     const struct val *values, const struct val *v)
{
    if (is_kind(group, plural, "", "pods"))
        return pod_in_scope(scope, op, values, v);
    if (is_kind(group, plural, "", "persistentvolumeclaims"))
        return claim_in_scope(scope, op, values, v);
    return false;
}

bool quota_scopes_hold(const char *group, const char *plural, const struct val *spec,
                       const struct val *v)
{
    VAL_EACH(val_get(spec, "scopes"), s)
        if (!in_scope(group, plural, val_text(s, ""), "Exists", NULL, v))
            return false;
    VAL_EACH(val_at(spec, "scopeSelector.matchExpressions"), m)
        if (!in_scope(group, plural, val_str_at(m, "scopeName", ""), val_str_at(m, "operator", ""),
                      val_get(m, "values"), v))
            return false;
    return true;
}

/* ---------------------------------------------------------------- pods */

static const struct val *status_of(const struct val *pod, const char *name)
{
    static const char *const lists[] = {"containerStatuses", "initContainerStatuses"};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(val_get(pod, "status"), lists[i]), s)
            if (streq(val_str_at(s, "name", ""), name))
                return s;
    return NULL;
}

static bool infeasible(const struct val *pod)
{
    VAL_EACH(val_at(pod, "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), "PodResizePending"))
            return streq(val_str_at(c, "reason", ""), "Infeasible");
    return false;
}

/* What counts of spec, what runs, what was allocated: a resize is charged before it is done. */
static struct amounts effective(struct arena *a, const struct val *pod, const char *which,
                                const struct val *spec, const struct val *actual,
                                const struct val *allocated)
{
    struct amounts r = {.a = a}, x = {.a = a}, y = {.a = a};

    if (!actual || !infeasible(pod))
        amounts_read(&r, spec);
    if (!actual)
        return r;
    amounts_read(&x, val_get(actual, which));
    amounts_max(&r, &x);
    if (streq(which, "requests")) {
        amounts_read(&y, allocated);
        amounts_max(&r, &y);
    }
    return r;
}

static bool pod_level(const char *name)
{
    return streq(name, "cpu") || streq(name, "memory") || str_starts(name, "hugepages-");
}

void pod_sum(const struct val *pod, const char *which, bool in_full, struct amounts *ret)
{
    const struct val *spec = val_get(pod, "spec"), *own = val_at(spec, "resources");
    struct arena *a = ret->a;
    struct amounts sidecars = {.a = a}, inits = {.a = a};

    VAL_EACH(val_get(spec, "containers"), c) {
        const struct val *s = in_full ? status_of(pod, val_str_at(c, "name", "")) : NULL;
        struct amounts x = effective(a, pod, which, val_get(val_get(c, "resources"), which),
                                     val_get(s, "resources"), val_get(s, "allocatedResources"));
        amounts_sum(ret, &x);
    }
    VAL_EACH(val_get(spec, "initContainers"), c) {
        bool stays = streq(val_str_at(c, "restartPolicy", ""), "Always");
        const struct val *s = in_full && stays ? status_of(pod, val_str_at(c, "name", "")) : NULL;
        struct amounts x = effective(a, pod, which, val_get(val_get(c, "resources"), which),
                                     val_get(s, "resources"), val_get(s, "allocatedResources"));
        if (stays) {
            amounts_sum(ret, &x);
            amounts_sum(&sidecars, &x);
            amounts_max(&inits, &sidecars);
        } else {
            amounts_sum(&x, &sidecars);
            amounts_max(&inits, &x);
        }
    }
    amounts_max(ret, &inits);
    VAL_EACH_MEMBER(val_get(own, which), m) {
        if (!pod_level(m->key))
            continue;
        struct amount *x = need(ret, m->key);
        x->q = quantity_of(&m->v);
        x->binary = quantity_is_binary(val_text(&m->v, NULL));
    }
    VAL_EACH_MEMBER(in_full ? val_get(spec, "overhead") : NULL, m) {
        struct amount *x = amounts_get(ret, m->key);

        if (streq(which, "requests") || (x && x->q))
            amounts_add(ret, m->key, quantity_of(&m->v), quantity_is_binary(val_text(&m->v, NULL)));
    }
}

static void put_as(struct amounts *ret, const char *prefix, const struct amount *x)
{
    amounts_add(ret, arena_printf(ret->a, "%s%s", prefix, x->name), x->q, x->binary);
}

/* The names that a quota has for requests and limits. */
static void pod_names(const struct amounts *requests, const struct amounts *limits,
                      struct amounts *ret)
{
    static const char *const plain[] = {"cpu", "memory", "ephemeral-storage"};

    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        const struct amount *r = amounts_get(requests, plain[i]), *l = amounts_get(limits, plain[i]);

        if (r) {
            put_as(ret, "", r);
            put_as(ret, "requests.", r);
        }
        if (l)
            put_as(ret, "limits.", l);
    }
    for (uint32_t i = 0; i < requests->n; i++) {
        const struct amount *r = &requests->v[i];

        if (str_starts(r->name, "hugepages-")) {
            put_as(ret, "", r);
            put_as(ret, "requests.", r);
        } else if (extended(r->name)) {
            put_as(ret, "requests.", r);
        }
    }
}

/* Finished pods, and those whose time to go is over, use nothing but their place in the store. */
static bool pod_alive(const struct quota_world *w, const struct val *pod)
{
    const char *phase = val_str_at(pod, "status.phase", "");
    const struct val *grace = val_at(pod, "metadata.deletionGracePeriodSeconds");
    int64_t us;

    if (streq(phase, "Failed") || streq(phase, "Succeeded"))
        return false;
    if (!grace || !time_parse(val_str_at(pod, "metadata.deletionTimestamp", ""), &us))
        return true;
    return w->now_ms <= us / 1000 + val_int_at(pod, "metadata.deletionGracePeriodSeconds", 0) * 1000;
}

static void pod_usage(const struct quota_world *w, const struct val *pod, struct amounts *ret)
{
    struct amounts requests = {.a = ret->a}, limits = {.a = ret->a};

    if (!pod_alive(w, pod))
        return;
    pod_sum(pod, "requests", true, &requests);
    pod_sum(pod, "limits", true, &limits);
    amounts_add(ret, "pods", QUANTITY_ONE, false);
    pod_names(&requests, &limits, ret);
}

char *quota_missing(struct arena *a, const struct amounts *tracked, const struct val *pod)
{
    static const char *const wanted[] = {"cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu",
                                         "requests.memory"};
    static const char *const lists[] = {"containers", "initContainers"};
    static const char *const levels[] = {"requests", "limits"};
    struct buf all = {.max = 1 << 14};
    char *text;

    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        VAL_EACH_MEMBER(val_get(val_at(pod, "spec.resources"), levels[i]), m)
            if (pod_level(m->key))
                return NULL; /* the pod says it for all of them */
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        bool limit = str_starts(wanted[i], "limits.");
        const char *dot = strchr(wanted[i], '.'), *name = dot ? dot + 1 : wanted[i];
        struct amounts who = {.a = a}; /* a set in the order of the names */

        if (!amounts_get(tracked, wanted[i]))
            continue;
        for (size_t k = 0; k < ARRAY_LEN(lists); k++)
            VAL_EACH(val_get(val_get(pod, "spec"), lists[k]), c)
                if (!val_get(val_get(val_get(c, "resources"), limit ? "limits" : "requests"), name))
                    need(&who, val_str_at(c, "name", ""));
        if (!who.n)
            continue;
        qsort(who.v, who.n, sizeof(*who.v), by_name);
        buf_printf(&all, "%s%s for: ", all.n ? "; " : "must specify ", wanted[i]);
        for (uint32_t k = 0; k < who.n; k++)
            buf_printf(&all, "%s%s", k ? "," : "", who.v[k].name);
    }
    text = all.n ? arena_strdup(a, all.p) : NULL;
    buf_done(&all);
    return text;
}

/* ---------------------------------------------------------------- other kinds */

static void service_usage(const struct val *v, struct amounts *ret)
{
    const char *type = val_str_at(v, "spec.type", "");
    const struct val *ports = val_at(v, "spec.ports");
    int64_t node_ports = 0;

    if (streq(type, "NodePort") || streq(type, "LoadBalancer"))
        node_ports = val_len(ports);
    if (streq(type, "LoadBalancer") && !val_bool_at(v, "spec.allocateLoadBalancerNodePorts", true)) {
        node_ports = 0;
        VAL_EACH(ports, p)
            node_ports += val_int_at(p, "nodePort", 0) != 0;
    }
    amounts_add(ret, "services", QUANTITY_ONE, false);
    amounts_add(ret, "services.nodeports", quantity_from_value(node_ports), false);
    amounts_add(ret, "services.loadbalancers", streq(type, "LoadBalancer") ? QUANTITY_ONE : 0, false);
}

static void claim_usage(const struct val *v, struct amounts *ret)
{
    const struct val *asked = val_at(v, "spec.resources.requests.storage");
    const struct val *has = val_at(v, "status.allocatedResources.storage");
    const struct val *old = val_get(val_at(v, "metadata.annotations"), "volume.beta.kubernetes.io/storage-class");
    const char *class_ = old ? val_text(old, "") : val_str_at(v, "spec.storageClassName", "");
    const struct val *counts = has && asked && quantity_of(has) > quantity_of(asked) ? has : asked;
    quantity q = quantity_of(counts);
    bool binary = quantity_is_binary(val_text(counts, NULL));

    q = (q + QUANTITY_ONE - 1) / QUANTITY_ONE * QUANTITY_ONE; /* whole bytes */
    amounts_add(ret, "persistentvolumeclaims", QUANTITY_ONE, false);
    if (asked)
        amounts_add(ret, "requests.storage", q, binary);
    if (!*class_)
        return;
    amounts_add(ret, arena_printf(ret->a, "%s" CLASS_STORAGE "persistentvolumeclaims", class_),
                QUANTITY_ONE, false);
    if (asked)
        amounts_add(ret, arena_printf(ret->a, "%s" CLASS_STORAGE "requests.storage", class_), q, binary);
}

static void count_devices(const struct val *request, struct amounts *ret)
{
    const char *mode = val_str_at(request, "allocationMode", "");
    const char *class_ = val_str_at(request, "deviceClassName", "");
    int64_t n = streq(mode, "ExactCount") ? val_int_at(request, "count", 0) : streq(mode, "All") ? DEVICES_MAX : 0;

    amounts_add(ret, arena_printf(ret->a, "%s" CLASS_DEVICES, class_), quantity_from_value(n), false);
}

/* What the pod that owns a claim for its extended resources was charged for already. */
static void owner_usage(const struct quota_world *w, const struct val *v, struct amounts *ret)
{
    const struct val *pod;

    if (!w->pod || !streq(val_text(val_get(val_at(v, "metadata.annotations"),
                                           "resource.kubernetes.io/extended-resource-claim"), ""), "true"))
        return;
    VAL_EACH(val_at(v, "metadata.ownerReferences"), o) {
        if (!val_bool_at(o, "controller", false) || !streq(val_str_at(o, "kind", ""), "Pod") ||
            !streq(val_str_at(o, "apiVersion", ""), "v1"))
            continue;
        pod = w->pod(w->arg, val_str_at(v, "metadata.namespace", ""), val_str_at(o, "name", ""));
        if (pod && streq(val_str_at(pod, "metadata.uid", ""), val_str_at(o, "uid", "")) &&
            streq(val_str_at(pod, "status.extendedResourceClaimStatus.resourceClaimName",
                             val_str_at(v, "metadata.name", "")), val_str_at(v, "metadata.name", "")))
            pod_usage(w, pod, ret);
    }
}

static void device_usage(const struct quota_world *w, const struct val *v, struct amounts *ret)
{
    struct amounts devices = {.a = ret->a}, paid = {.a = ret->a};

    VAL_EACH(val_at(v, "spec.devices.requests"), r) {
        struct amounts most = {.a = ret->a};

        VAL_EACH(val_get(r, "firstAvailable"), s) {
            struct amounts one = {.a = ret->a};

            count_devices(s, &one);
            amounts_max(&most, &one);
        }
        if (val_get(r, "exactly"))
            count_devices(val_get(r, "exactly"), &most);
        amounts_sum(&devices, &most);
    }
    amounts_sum(ret, &devices);
    owner_usage(w, v, &paid);
    for (uint32_t i = 0; i < devices.n; i++) {
        size_t n = strlen(devices.v[i].name) - strlen(CLASS_DEVICES);
        char *class_ = arena_printf(ret->a, "%.*s", (int)n, devices.v[i].name);
        const struct val *o = w->class_named ? w->class_named(w->arg, class_) : NULL;
        const char *names[] = {
            arena_printf(ret->a, "requests." IMPLICIT_DEVICES "%s", class_),
            *val_str_at(o, "spec.extendedResourceName", "")
                ? arena_printf(ret->a, "requests.%s", val_str_at(o, "spec.extendedResourceName", "")) : NULL};

        for (size_t k = 0; *class_ && k < ARRAY_LEN(names); k++) {
            const struct amount *had = names[k] ? amounts_get(&paid, names[k]) : NULL;
            quantity q = devices.v[i].q - (had ? had->q : 0);

            if (names[k] && q > 0)
                amounts_add(ret, names[k], q, false);
        }
    }
}

void quota_usage(const struct quota_world *w, const char *group, const char *plural,
                 const struct val *v, struct amounts *ret)
{
    static const char *const olds[] = {"configmaps", "resourcequotas", "replicationcontrollers", "secrets"};

    amounts_add(ret, arena_printf(ret->a, "count/%s%s%s", plural, *group ? "." : "", group),
                QUANTITY_ONE, false);
    if (is_kind(group, plural, "", "pods"))
        pod_usage(w, v, ret);
    else if (is_kind(group, plural, "", "services"))
        service_usage(v, ret);
    else if (is_kind(group, plural, "", "persistentvolumeclaims"))
        claim_usage(v, ret);
    else if (is_kind(group, plural, "resource.k8s.io", "resourceclaims"))
        device_usage(w, v, ret);
    for (size_t i = 0; !*group && i < ARRAY_LEN(olds); i++)
        if (streq(olds[i], plural))
            amounts_add(ret, plural, QUANTITY_ONE, false);
}

bool quota_update_counts(const char *group, const char *plural, const char *sub,
                         const struct val *v, const struct val *old)
{
    static const char *const watched[] = {
        "spec.volumeAttributesClassName", "status.currentVolumeAttributesClassName",
        "status.modifyVolumeStatus.targetVolumeAttributesClassName", "status.allocatedResources"};

    if (is_kind(group, plural, "", "pods"))
        return streq(sub, "resize") || (!*sub && terminating(v) != terminating(old));
    if (is_kind(group, plural, "", "services") ||
        is_kind(group, plural, "resource.k8s.io", "resourceclaims"))
        return !*sub;
    if (!is_kind(group, plural, "", "persistentvolumeclaims"))
        return false;
    for (size_t i = 0; streq(sub, "status") && i < ARRAY_LEN(watched); i++)
        if (!val_equal(val_at(v, watched[i]), val_at(old, watched[i])))
            return true;
    return !*sub;
}
