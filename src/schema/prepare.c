/* schema/prepare.c - what a create or an update may not say, by kind.
 *
 * Kinds with a status sub-resource: a create empties the status (but of nodes, whose kubelets
 * bring it), an update keeps the old one, an update of the status keeps everything else. */
#include "schema/rules_pod.h"
#include "schema/schema_int.h"

static const struct val *empty_status(const struct resource *r, struct arena *a)
{
    const struct field *f = type_field(resource_type(r), "status", 6);
    struct val *v = val_map(a);
    struct err err = {0};

    if (!f || f->type->kind != TYPE_STRUCT)
        return NULL;
    if (schema_decode_type(r->schema, f->type, r->kind, r->version, a, v, NULL, &err) < 0)
        return NULL;
    /* of a pointer or omitzero field nothing stays when nothing is in it */
    return v->n || (f->flags & FIELD_KEEP) ? v : NULL;
}

static bool is(const struct resource *r, const char *group, const char *plural)
{
    return streq(r->group, group) && streq(r->plural, plural);
}

/* The class that the eviction order goes by. */
const char *pod_qos_class(const struct val *spec)
{
    static const char *const lists[] = {"containers", "initContainers"};
    static const char *const computed[] = {"cpu", "memory"};
    bool any = false, guaranteed = true;

    const struct val *whole = val_get(spec, "resources"); /* of the pod: then only they count */
    if (val_len(val_get(whole, "limits")) || val_len(val_get(whole, "requests"))) {
        for (uint32_t i = 0; i < ARRAY_LEN(computed); i++) {
            const struct val *x = val_get(val_get(whole, "requests"), computed[i]);
            const struct val *y = val_get(val_get(whole, "limits"), computed[i]);
            any |= (quantity_num(x, 0) > 0) || (quantity_num(y, 0) > 0);
            guaranteed &= quantity_num(y, 0) > 0 && (!x || quantity_num(x, 0) == quantity_num(y, 0));
        }
        return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
    }
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++)
        VAL_EACH(val_get(spec, lists[l]), c) {
            const struct val *req = val_at(c, "resources.requests");
            const struct val *lim = val_at(c, "resources.limits");
            for (uint32_t i = 0; i < ARRAY_LEN(computed); i++) {
                const struct val *x = val_get(req, computed[i]), *y = val_get(lim, computed[i]);
                any |= (quantity_num(x, 0) > 0) || (quantity_num(y, 0) > 0);
                guaranteed &= quantity_num(y, 0) > 0 &&
                              (!x || quantity_num(x, 0) == quantity_num(y, 0));
            }
        }
    return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

/* An API service without a service behind it is this server's own. */
static void local_available(struct arena *a, struct val *v)
{
    struct val *list = val_list(a), *one = val_map(a);
    const struct val *now = val_at(v, "metadata.creationTimestamp");

    if (val_at(v, "spec.service") || val_len(val_at(v, "status.conditions")))
        return;
    val_put_str(a, one, "type", "Available");
    val_put_str(a, one, "status", "True");
    val_put(a, one, "lastTransitionTime", now ? now : val_null(a));
    val_put_str(a, one, "reason", "Local");
    val_put_str(a, one, "message", "Local APIServices are always available");
    val_push(a, list, one);
    val_set_at(a, v, "status.conditions", list);
}

/* A job that leaves its selector to the server gets one of its own uid. */
static void job_selector(struct arena *a, struct val *v)
{
    const char *uid = val_str_at(v, "metadata.uid", ""), *name = val_str_at(v, "metadata.name", "");
    static const char *const by_uid[] = {"batch.kubernetes.io/controller-uid", "controller-uid"};
    static const char *const by_name[] = {"batch.kubernetes.io/job-name", "job-name"};
    struct val *spec = val_need_map(a, v, "spec");
    const struct val *own = val_at(v, "metadata.labels"), *of_pods = val_at(spec, "template.metadata.labels");
    bool shared = !val_len(own) || (of_pods && val_equal(own, of_pods)); /* by default they are one */

    if (!*uid || val_bool_at(spec, "manualSelector", false))
        return;
    struct val *meta = val_need_map(a, val_need_map(a, spec, "template"), "metadata");
    struct val *labels = val_need_map(a, meta, "labels");
    for (uint32_t i = 0; i < 2; i++) {
        if (!val_get(labels, by_uid[i]))
            val_put_str(a, labels, by_uid[i], uid);
        if (!val_get(labels, by_name[i]))
            val_put_str(a, labels, by_name[i], name);
    }
    struct val *sel = val_need_map(a, spec, "selector");
    val_put_str(a, val_need_map(a, sel, "matchLabels"), by_uid[0], uid);
    if (shared && !name_label_value(name))
        val_set_at(a, v, "metadata.labels", val_copy(a, val_at(spec, "template.metadata.labels")));
}

/* Endpoints that are written anew lose what only the beta version had a meaning for. */
static void drop_topology(struct arena *a, struct val *v)
{
    struct val *list = val_copy(a, val_get(v, "endpoints"));

    if (!list)
        return;
    VAL_EACH(list, e)
        val_del(e, "deprecatedTopology");
    val_put(a, v, "endpoints", list);
}

static void create_special(const struct resource *r, struct arena *a, struct val *v)
{
    if (is(r, "", "pods"))
        val_set_at(a, v, "status.phase", val_lit(a, "Pending"));
    if (is(r, "", "pods"))
        val_set_at(a, v, "status.qosClass", val_lit(a, pod_qos_class(val_get(v, "spec"))));
    if (is(r, "discovery.k8s.io", "endpointslices"))
        drop_topology(a, v);
    if (is(r, "batch", "jobs"))
        job_selector(a, v);
    if (is(r, "", "persistentvolumes") && val_at(v, "metadata.creationTimestamp"))
        val_set_at(a, v, "status.lastPhaseTransitionTime", val_at(v, "metadata.creationTimestamp"));
    if (is(r, "apiregistration.k8s.io", "apiservices"))
        local_available(a, v);
    if (is(r, "", "namespaces")) {
        struct val *fin = val_list(a);
        val_push_str(a, fin, "kubernetes");
        if (!val_len(val_at(v, "spec.finalizers")))
            val_set_at(a, v, "spec.finalizers", fin);
    }
    if (is(r, "certificates.k8s.io", "certificatesigningrequests"))
        val_put(a, v, "status", val_map(a));
}

/* A claim or a snapshot: what the old field can name. */
static bool old_source(const struct val *ref)
{
    const char *group = val_str_at(ref, "apiGroup", ""), *kind = val_str_at(ref, "kind", "");

    return (!*group && streq(kind, "PersistentVolumeClaim")) ||
           (streq(group, "snapshot.storage.k8s.io") && streq(kind, "VolumeSnapshot"));
}

/* dataSource and dataSourceRef are the old and the new name of one thing, as long as no other
 * namespace is meant. */
static void claim_sources(struct arena *a, struct val *spec, const struct val *was)
{
    const struct val *source = val_get(spec, "dataSource"), *ref = val_get(spec, "dataSourceRef");

    if (!was || (!val_get(was, "dataSource") && !val_get(was, "dataSourceRef"))) {
        if (source && !old_source(source)) {
            val_del(spec, "dataSource");
            source = NULL;
        }
    }
    if (val_get(ref, "namespace"))
        return;
    if (source && !ref)
        val_put(a, spec, "dataSourceRef", val_copy(a, source));
    else if (ref && !source && old_source(ref))
        val_put(a, spec, "dataSource", val_copy(a, ref));
}

/* What belongs to a feature that is off. */
static void drop_off(const struct type *t, struct val *v)
{
    if (t->elem && t->elem->kind < TYPE_LIST)
        return;
    if (t->kind == TYPE_LIST)
        VAL_EACH(v, it)
            drop_off(t->elem, it);
    if (t->kind == TYPE_MAP)
        VAL_EACH_MEMBER(v, m)
            drop_off(t->elem, &m->v);
    if (t->kind != TYPE_STRUCT || !t->has_off || !val_is(v, VAL_MAP))
        return;
    for (uint32_t i = v->n; i-- > 0;) {
        const struct field *f = type_field(t, v->members[i].key, v->members[i].n);

        if (f && (f->flags & FIELD_OFF))
            val_del(v, f->name);
        else if (f && f->type->kind >= TYPE_LIST)
            drop_off(f->type, &v->members[i].v);
    }
}

void schema_prepare_create(const struct resource *r, struct arena *a, struct val *v)
{
    struct val *meta = val_need_map(a, v, "metadata");

    val_del(meta, "deletionTimestamp");
    val_del(meta, "deletionGracePeriodSeconds");
    if (r->generation || r->custom)
        val_put_int(a, meta, "generation", 1);
    if (r->custom) {
        if (r->has_status)
            val_del(v, "status");
        return;
    }
    drop_off(r->described, v);
    if (r->has_status && !is(r, "", "nodes") && !is(r, "apiregistration.k8s.io", "apiservices")) {
        const struct val *st = empty_status(r, a);
        if (st)
            val_put(a, v, "status", st);
        else
            val_del(v, "status");
    }
    if (!r->virtual_)
        schema_default(r, a, v); /* of what the status holds now */
    create_special(r, a, v);
    if (is(r, "", "persistentvolumeclaims") && val_is(val_get(v, "spec"), VAL_MAP))
        claim_sources(a, val_get(v, "spec"), NULL);
}

/* Did anything change that the generation counts? All but metadata and status. */
static bool spec_changed(const struct val *v, const struct val *old)
{
    VAL_EACH_MEMBER(v, m) {
        if (streq(m->key, "metadata") || streq(m->key, "status") || streq(m->key, "apiVersion"))
            continue;
        const struct val *o = val_getn(old, m->key, m->n);
        if (!o || !val_equal(&m->v, o))
            return true;
    }
    VAL_EACH_MEMBER(old, m)
        if (!streq(m->key, "metadata") && !streq(m->key, "status") &&
            !streq(m->key, "apiVersion") && !val_getn(v, m->key, m->n))
            return true;
    return false;
}

static void keep(struct arena *a, struct val *v, const struct val *old, const char *key)
{
    const struct val *o = val_get(old, key);

    if (o)
        val_put(a, v, key, o);
    else
        val_del(v, key);
}

/* Addresses and ports that were allocated stay when an update does not name others. */
static void service_keep(struct arena *a, struct val *spec, const struct val *old)
{
    const char *type = val_str_at(spec, "type", ""), *was = val_str_at(old, "type", "");
    static const char *const kept[] = {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"};

    if (streq(type, "ExternalName") || streq(was, "ExternalName"))
        return;
    const char *ip = val_str_at(spec, "clusterIP", ""), *had_ip = val_str_at(old, "clusterIP", "");
    const struct val *ips = val_get(spec, "clusterIPs"), *had_ips = val_get(old, "clusterIPs");
    if (*ip && !streq(ip, had_ip) && ips && had_ips && val_equal(ips, had_ips)) {
        struct val *one = val_list(a); /* only the old name of the field was changed */
        val_push_str(a, one, ip);
        val_put(a, spec, "clusterIPs", one);
    }
    bool named = *val_str_at(spec, "clusterIP", "") || val_len(val_get(spec, "clusterIPs"));
    for (uint32_t i = named ? 2 : 0; i < ARRAY_LEN(kept); i++)
        if (!val_get(spec, kept[i]) && val_get(old, kept[i]))
            val_put(a, spec, kept[i], val_get(old, kept[i]));
    if (*val_str_at(spec, "clusterIP", "") && !val_len(val_get(spec, "clusterIPs")) &&
        streq(val_str_at(spec, "clusterIP", ""), val_str_at(old, "clusterIP", "")))
        keep(a, spec, old, "clusterIPs");
}

/* A write to a sub-resource: the object is the old one but for what the sub-resource holds. */
static void only_part(const struct resource *r, const char *sub, struct arena *a, struct val *v,
                      const struct val *old)
{
    struct val part = {0}, meta = {0};
    const struct val *p = val_get(v, streq(sub, "status") ? "status" : "spec");
    bool status = streq(sub, "status");

    if (p)
        part = *p;
    if (val_get(v, "metadata"))
        meta = *val_get(v, "metadata");
    *v = (struct val){.type = VAL_MAP};
    VAL_EACH_MEMBER(old, m)
        val_putn(a, v, m->key, m->n, &m->v);
    if (p)
        val_put(a, v, status ? "status" : "spec", &part);
    else
        val_del(v, "status");
    if (meta.type != VAL_MAP)
        return;
    const struct val *om = val_get(old, "metadata");
    if (r->custom || r->priv->status_meta) { /* metadata stays, but who manages what is told anew */
        struct val *kept = val_copy(a, om);
        keep(a, kept, &meta, "managedFields");
        keep(a, kept, &meta, "resourceVersion");
        val_put(a, v, "metadata", kept);
        return;
    }
    if (is(r, "apps", "deployments"))
        keep(a, &meta, om, "labels");
    if (is(r, "", "pods")) {
        keep(a, &meta, om, "ownerReferences");
        keep(a, &meta, om, "deletionTimestamp");
    }
    val_put(a, v, "metadata", &meta);
}

/* Counts the changes of a daemon set's template, as its old clients want it. */
static void template_generation(struct arena *a, struct val *v, const struct val *old)
{
    static const char key[] = "deprecated.daemonset.template.generation";
    const struct val *was = val_get(val_at(old, "metadata.annotations"), key);
    const struct val *x = val_at(v, "spec.template"), *y = val_at(old, "spec.template");
    int64_t n = strtoll(val_text(was, "1"), NULL, 10);

    if (x && y && !val_equal(x, y))
        n++;
    struct val *notes = val_need_map(a, val_need_map(a, v, "metadata"), "annotations");
    val_put(a, notes, key, val_printf(a, "%lld", (long long)n));
}

/* A version that becomes the one that is stored is noted with the write that says so. */
static void stored_versions(struct arena *a, struct val *v)
{
    VAL_EACH(val_at(v, "spec.versions"), ver) {
        const char *name = val_str_at(ver, "name", "");
        bool known = false;
        if (!val_bool_at(ver, "storage", false) || !val_at(v, "status.storedVersions"))
            continue;
        struct val *st = val_copy(a, val_get(v, "status"));
        VAL_EACH(val_get(st, "storedVersions"), s)
            known |= streq(val_text(s, ""), name);
        if (!known)
            val_push_str(a, val_need_list(a, st, "storedVersions"), name);
        val_put(a, v, "status", st);
    }
}

/* Containers as they were, with the resources that they are to have; NULL: they are not the same containers, which
 * validation will say. */
static struct val *resized(struct arena *a, const struct val *now, const struct val *was)
{
    static const char *const taken[] = {"resources", "resizePolicy"};
    struct val *out = val_list(a);

    if (val_len(now) != val_len(was))
        return NULL;
    for (uint32_t i = 0; i < val_len(was); i++) {
        struct val *c = val_copy(a, &was->items[i]);

        if (!streq(val_str_at(c, "name", ""), val_str_at(&now->items[i], "name", "")))
            return NULL;
        for (size_t k = 0; k < ARRAY_LEN(taken); k++) {
            const struct val *x = val_get(&now->items[i], taken[k]);

            if (x)
                val_put(a, c, taken[k], val_copy(a, x));
            else
                val_del(c, taken[k]);
        }
        val_push(a, out, c);
    }
    return out;
}

/* A resize changes resources and how they may change, whatever else was sent. */
static void only_resources(struct arena *a, struct val *v, const struct val *old)
{
    static const char *const lists[] = {"containers", "initContainers"};
    const struct val *now = val_get(v, "spec"), *was = val_get(old, "spec"), *all = val_get(now, "resources");
    struct val *spec, *list[2];

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        if (!(list[i] = resized(a, val_get(now, lists[i]), val_get(was, lists[i]))))
            return;
    spec = val_copy(a, was);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        if (val_len(list[i]))
            val_put(a, spec, lists[i], list[i]);
    if (all)
        val_put(a, spec, "resources", val_copy(a, all));
    else
        val_del(spec, "resources");
    val_put(a, v, "spec", spec);
}

void schema_prepare_update(const struct resource *r, const char *sub, struct arena *a,
                           struct val *v, const struct val *old)
{
    const struct val *om = val_get(old, "metadata");

    if (!r->custom)
        drop_off(r->described, v);
    if (streq(sub, "approval")) { /* the conditions and nothing else */
        const struct val *list = val_at(v, "status.conditions");
        struct val kept = list ? *list : (struct val){0};
        only_part(r, "status", a, v, old);
        struct val *st = val_copy(a, val_get(old, "status") ? val_get(old, "status") : val_map(a));
        if (list)
            val_put(a, st, "conditions", &kept);
        else
            val_del(st, "conditions");
        val_put(a, v, "status", st);
    } else if (streq(sub, "ephemeralcontainers")) { /* that list and nothing else */
        const struct val *list = val_at(v, "spec.ephemeralContainers");
        struct val *spec = val_copy(a, val_get(old, "spec")), kept = list ? *list : (struct val){0};
        const struct val *rv = val_at(v, "metadata.resourceVersion"), *managed = val_at(v, "metadata.managedFields");
        struct val *m2 = val_copy(a, om);
        if (list)
            val_put(a, spec, "ephemeralContainers", &kept);
        else
            val_del(spec, "ephemeralContainers");
        if (rv)
            val_put(a, m2, "resourceVersion", rv);
        if (managed)
            val_put(a, m2, "managedFields", managed);
        *v = (struct val){.type = VAL_MAP};
        VAL_EACH_MEMBER(old, m)
            val_putn(a, v, m->key, m->n, &m->v);
        val_put(a, v, "spec", spec);
        val_put(a, v, "metadata", m2);
    } else if (*sub && !streq(sub, "approval") && !streq(sub, "finalize"))
        only_part(r, sub, a, v, old);
    else if (!*sub && r->has_status)
        keep(a, v, old, "status");
    if (streq(sub, "resize"))
        only_resources(a, v, old);
    if (!*sub && is(r, "certificates.k8s.io", "certificatesigningrequests"))
        keep(a, v, old, "spec"); /* what was asked for was asked for */
    if (!*sub && is(r, "apiextensions.k8s.io", "customresourcedefinitions"))
        stored_versions(a, v);
    struct val *meta = val_need_map(a, v, "metadata");
    keep(a, meta, om, "generation");
    if (!*sub && is(r, "", "services") && streq(val_str_at(old, "spec.type", ""), "LoadBalancer") &&
        !streq(val_str_at(v, "spec.type", ""), "LoadBalancer"))
        val_set_at(a, val_put(a, v, "status", val_copy(a, val_get(v, "status") ? val_get(v, "status") : val_map(a))),
                   "loadBalancer", val_map(a));
    if (!*sub && is(r, "", "services"))
        service_keep(a, val_need_map(a, v, "spec"), val_get(old, "spec"));
    if (!*sub && is(r, "", "persistentvolumeclaims") && val_is(val_get(v, "spec"), VAL_MAP))
        claim_sources(a, val_get(v, "spec"), val_get(old, "spec"));
    if (!*sub && is(r, "", "pods")) /* set when the pod is placed, never taken back */
        val_set_at(a, v, "status.qosClass", val_lit(a, val_str_at(old, "status.qosClass", "")));
    if (!*sub && is(r, "apps", "daemonsets"))
        template_generation(a, v, old);
    if (streq(sub, "status") && is(r, "", "pods") && !*val_str_at(v, "status.qosClass", "") &&
        *val_str_at(old, "status.qosClass", ""))
        val_set_at(a, v, "status.qosClass", val_at(old, "status.qosClass"));
    if (streq(sub, "status") && is(r, "", "persistentvolumes") && val_at(old, "status.lastPhaseTransitionTime") &&
        !val_at(v, "status.lastPhaseTransitionTime"))
        val_set_at(a, v, "status.lastPhaseTransitionTime", val_at(old, "status.lastPhaseTransitionTime"));
    if (streq(sub, "status") || r->priv->generation_fixed || !(r->generation || r->custom || r->priv->generation_later))
        return;
    const struct val *notes = val_get(meta, "annotations"), *had = val_get(om, "annotations");
    bool notes_count = is(r, "apps", "deployments") &&
                       !(val_len(notes) == val_len(had) && (!val_len(had) || val_equal(notes, had)));
    if (spec_changed(v, old) || notes_count)
        val_put_int(a, meta, "generation", val_int_at(om, "generation", 0) + 1);
    const struct val *ends = val_get(v, "endpoints"), *were = val_get(old, "endpoints");
    if (is(r, "discovery.k8s.io", "endpointslices") && ends && !(were && val_equal(ends, were)))
        drop_topology(a, v); /* after the count: that somebody said it again is a change */
}
