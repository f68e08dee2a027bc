/* apiserver/podsecurity.c - the plugin PodSecurity: a namespace's labels pod-security.kubernetes.io/enforce,
 * /audit and /warn name a level and a version of the standards (podchecks.h). Enforcing refuses pods; what
 * makes pods (deployments, ...) is only warned about. A tighter level is told about the pods that are
 * there. The stock configuration has no exemptions. */
#include "apiserver/podchecks.h"

#include "apiserver/admission.h"
#include "apiserver/hooks.h"

#define LABEL "pod-security.kubernetes.io/"

enum { PODS_MAX = 3000 }; /* looked at when a namespace's level changes */

struct policies {
    struct pod_policy enforce, audit, warn;
};

static const char *label(const struct val *labels, const char *key)
{
    return val_text(val_get(labels, key), NULL);
}

static void read_mode(struct arena *a, const struct val *labels, const char *mode, bool open,
                      struct pod_policy *p, struct causes *bad)
{
    const char *key = arena_printf(a, LABEL "%s", mode), *vkey = arena_printf(a, LABEL "%s-version", mode);
    const char *level = label(labels, key), *version = label(labels, vkey);

    if (level && !pod_level_parse(level, &p->level)) {
        causes_add(bad, CAUSE_INVALID, arena_printf(a, "metadata.labels[%s]", key), val_str(a, level),
                   "must be one of privileged, baseline, restricted");
        if (open)
            p->level = POD_PRIVILEGED;
    }
    if (version && !pod_version_parse(version, &p->minor))
        causes_add(bad, CAUSE_INVALID, arena_printf(a, "metadata.labels[%s]", vkey), val_str(a, version),
                   "must be \"latest\" or \"v1.x\"");
}

/* What a namespace's labels say; words that are wrong are added to bad. */
static struct policies policies_of(struct arena *a, const struct val *labels, struct causes *bad)
{
    const struct pod_policy none = {POD_PRIVILEGED, POD_LATEST};
    struct policies p = {none, none, none};
    const char *enforce = label(labels, LABEL "enforce");
    enum pod_level level;

    read_mode(a, labels, "enforce", false, &p.enforce, bad);
    read_mode(a, labels, "audit", true, &p.audit, bad);
    read_mode(a, labels, "warn", true, &p.warn, bad);
    if (!label(labels, LABEL "warn") && enforce && pod_level_parse(enforce, &level) && level > p.warn.level) {
        p.warn.level = level;
        if (!label(labels, LABEL "warn-version"))
            p.warn.minor = p.enforce.minor;
    }
    return p;
}

/* The pod's metadata and spec in an object of this kind; false: it has none. */
static bool pod_in(const struct resource *r, const struct val *v, const struct val **meta, const struct val **spec)
{
    static const struct {
        const char *group, *plural, *path;
    } kinds[] = {
        {"", "pods", ""}, {"", "podtemplates", "template"},
        {"", "replicationcontrollers", "spec.template"}, {"apps", "deployments", "spec.template"},
        {"apps", "replicasets", "spec.template"}, {"apps", "statefulsets", "spec.template"},
        {"apps", "daemonsets", "spec.template"}, {"batch", "jobs", "spec.template"},
        {"batch", "cronjobs", "spec.jobTemplate.spec.template"},
    };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (streq(kinds[i].plural, r->plural) && streq(kinds[i].group, r->group)) {
            const struct val *pod = *kinds[i].path ? val_at(v, kinds[i].path) : v;

            *meta = val_get(pod, "metadata");
            *spec = val_get(pod, "spec");
            return *spec != NULL;
        }
    return false;
}

/* ---------------------------------------------------------------- namespaces */

struct told { /* pods with the same to say */
    const char *reason, *name;
    uint32_t n;
};

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static void tell(struct call *c, const char *ns, struct pod_policy p, struct told *told, uint32_t n)
{
    const char **lines = arena_array(c->a, const char *, n ? n : 1);

    if (!n)
        return;
    texts_add(&c->warnings, "existing pods in namespace \"%s\" violate the new PodSecurity enforce level \"%s\"", ns,
              pod_policy_text(c->a, p));
    for (uint32_t i = 0; i < n; i++)
        lines[i] = told[i].n == 1   ? arena_printf(c->a, "%s: %s", told[i].name, told[i].reason)
                   : told[i].n == 2 ? arena_printf(c->a, "%s (and 1 other pod): %s", told[i].name, told[i].reason)
                                    : arena_printf(c->a, "%s (and %u other pods): %s", told[i].name, told[i].n - 1,
                                                   told[i].reason);
    qsort(lines, n, sizeof(lines[0]), by_text);
    for (uint32_t i = 0; i < n; i++)
        texts_add(&c->warnings, "%s", lines[i]);
}

static void check_pods(struct call *c, const char *ns, struct pod_policy p)
{
    struct store_table *pods = table_named(c->api->store, "", "pods");
    struct told *told = arena_array(c->a, struct told, 64);
    uint32_t n = 0, seen = 0, all = store_count(c->api->store, pods, ns);
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;

    if (store_iter_init(&it, c->api->store, pods, ns, 0, NULL, NULL, &err) < 0)
        return;
    if (all > PODS_MAX)
        texts_add(&c->warnings, "new PodSecurity enforce level only checked against the first %d of %u existing pods",
                  PODS_MAX, all);
    while (seen++ < PODS_MAX && (o = store_iter_next(&it))) {
        const char *reason;
        uint32_t i = 0;

        if (!pod_violates(c->a, p, obj_meta(o), val_get(obj_val(o), "spec"), NULL, &reason))
            continue;
        while (i < n && !streq(told[i].reason, reason))
            i++;
        if (i == 64) /* more kinds of trouble than anybody reads */
            continue;
        if (i == n)
            told[n++] = (struct told){reason, arena_strdup(c->a, o->name), 0};
        told[i].n++;
    }
    store_iter_done(&it);
    tell(c, ns, p, told, n);
}

int podsecurity_labels(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const char *ns = val_str_at(v, "metadata.name", "");
    struct causes bad = {.a = c->a}, before = {.a = c->a};
    struct policies p, was;
    bool same = true;

    if (*sub)
        return 0;
    p = policies_of(c->a, val_at(v, "metadata.labels"), &bad);
    was = policies_of(c->a, val_at(old, "metadata.labels"), &before);
    for (uint32_t i = 0; i < bad.n && i < before.n; i++)
        same &= streq(bad.v[i].field, before.v[i].field) && streq(bad.v[i].message, before.v[i].message);
    if (bad.n && (!old || bad.n != before.n || !same))
        return fail_causes(c, &bad, ns);
    if (old && p.enforce.level != POD_PRIVILEGED &&
        (p.enforce.minor != was.enforce.minor || p.enforce.level > was.enforce.level))
        check_pods(c, ns, p.enforce);
    return 0;
}

/* ---------------------------------------------------------------- pods and what makes them */

static bool container_same(const struct val *x, const struct val *y)
{
    return streq(val_str_at(x, "image", ""), val_str_at(y, "image", ""));
}

static bool list_same(const struct val *x, const struct val *y)
{
    uint32_t i = 0;

    if (val_len(x) != val_len(y))
        return false;
    VAL_EACH(x, ct)
        if (!container_same(ct, &y->items[i++]))
            return false;
    return true;
}

/* An update that changes nothing we look at: images and new ephemeral containers do. */
static bool insignificant(const struct val *now, const struct val *old)
{
    if (!list_same(val_get(now, "containers"), val_get(old, "containers")) ||
        !list_same(val_get(now, "initContainers"), val_get(old, "initContainers")))
        return false;
    VAL_EACH(val_get(now, "ephemeralContainers"), ct) {
        const struct val *was = NULL;

        VAL_EACH(val_get(old, "ephemeralContainers"), o)
            if (streq(val_str_at(o, "name", ""), val_str_at(ct, "name", "")))
                was = o;
        if (!was || !container_same(ct, was))
            return false;
    }
    return true;
}

static int judge(struct call *c, bool pod, const struct policies *p, const struct val *meta, const struct val *spec)
{
    const char *detail;

    if (pod) {
        call_annotate(c, LABEL "enforce-policy", pod_policy_text(c->a, p->enforce));
        if (pod_violates(c->a, p->enforce, meta, spec, &detail, NULL)) {
            const char *violated = detail, *level = pod_policy_text(c->a, p->enforce);

            if (pod_violates(c->a, p->audit, meta, spec, &detail, NULL))
                call_annotate(c, LABEL "audit-violations",
                                   arena_printf(c->a, "would violate PodSecurity \"%s\": %s",
                                                pod_policy_text(c->a, p->audit), detail));
            return fail_forbidden(c, val_str_at(meta, "name", ""), "violates PodSecurity \"%s\": %s", level, violated);
        }
    }
    if (pod_violates(c->a, p->audit, meta, spec, &detail, NULL))
        call_annotate(c, LABEL "audit-violations",
                           arena_printf(c->a, "would violate PodSecurity \"%s\": %s", pod_policy_text(c->a, p->audit), detail));
    if (pod_violates(c->a, p->warn, meta, spec, &detail, NULL))
        texts_add(&c->warnings, "would violate PodSecurity \"%s\": %s", pod_policy_text(c->a, p->warn), detail);
    return 0;
}

int podsecurity_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    bool pod = streq(c->stored->table, "pods");
    const struct val *meta, *spec, *was_meta, *was;
    struct causes bad = {.a = c->a};
    struct policies p;
    const struct obj *ns;

    if ((pod ? streq(sub, "status") : *sub != 0) || !pod_in(c->stored, v, &meta, &spec))
        return 0;
    if (pod && old && pod_in(c->stored, old, &was_meta, &was) && insignificant(spec, was))
        return 0;
    ns = store_get(c->api->store, table_named(c->api->store, "", "namespaces"), "", c->path.ns);
    if (!ns)
        return 0;
    p = policies_of(c->a, val_get(obj_meta(ns), "labels"), &bad);
    if (bad.n)
        call_annotate(c, LABEL "error", arena_printf(c->a, "Failed to parse policy: %s: %s", bad.v[0].field,
                                                          bad.v[0].message));
    else if (!pod && p.audit.level == POD_PRIVILEGED && p.warn.level == POD_PRIVILEGED)
        return 0;
    return judge(c, pod, &p, meta, spec);
}
