/* apiserver/hooks.c - the table of what kinds need, and the small ones of its functions. */
#include "apiserver/hooks.h"

#include "auth/b64.h"

#include "codec/quantity.h"

int admit_namespace(struct call *c, const char *name)
{
    const struct obj *ns;
    struct val *s, *d, *cause;

    if (!c->r->namespaced || !*c->path.ns)
        return 0;
    ns = store_get(c->api->store, table_named(c->api->store, "", "namespaces"), "", c->path.ns);
    if (!ns)
        return fail_not_found_in(c, "", "namespaces", c->path.ns);
    if (!obj_deleting(ns) || streq(c->stored->group, "authorization.k8s.io"))
        return 0;
    fail_forbidden(c, name, "unable to create new content in namespace %s because it is "
                   "being terminated", c->path.ns);
    s = val_copy(c->a, c->resp.val);
    d = val_need_map(c->a, s, "details");
    cause = val_map(c->a);
    val_put_str(c->a, cause, "reason", "NamespaceTerminating");
    val_put(c->a, cause, "message", val_printf(c->a, "namespace %s is being terminated", c->path.ns));
    val_put_str(c->a, cause, "field", "metadata.namespace");
    val_push(c->a, val_need_list(c->a, d, "causes"), cause);
    return fail_status(c, s);
}

void put_label(struct call *c, struct val *v, const char *key, const char *value)
{
    val_put_str(c->a, val_need_map(c->a, meta_of(c->a, v), "labels"), key, value);
}

void add_finalizer(struct call *c, struct val *v, const char *name)
{
    struct val *list = val_need_list(c->a, meta_of(c->a, v), "finalizers");

    VAL_EACH(list, f)
        if (streq(val_text(f, ""), name))
            return;
    val_push_str(c->a, list, name);
}

/* ---------------------------------------------------------------- namespaces */

static int namespace_create(struct call *c, struct val *v)
{
    struct val *spec = val_need_map(c->a, v, "spec"), *list = val_list(c->a);

    put_label(c, v, "kubernetes.io/metadata.name", val_str_at(v, "metadata.name", ""));
    bool ours = false;
    VAL_EACH(val_get(spec, "finalizers"), f) {
        ours |= streq(val_text(f, ""), "kubernetes");
        val_push(c->a, list, f);
    }
    if (!ours)
        val_push_str(c->a, list, "kubernetes");
    val_put(c->a, spec, "finalizers", list);
    return 0;
}

static int namespace_update(struct call *c, const char *sub, struct val *v, const struct obj *old)
{
    (void)sub;
    put_label(c, v, "kubernetes.io/metadata.name", old->name);
    /* spec.finalizers change by /finalize only */
    if (val_get(obj_val(old), "spec"))
        val_put(c->a, v, "spec", val_get(obj_val(old), "spec"));
    return 0;
}

static int namespace_check_delete(struct call *c, const struct obj *o)
{
    static const char *const kept[] = {"default", "kube-system", "kube-public"};

    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        if (streq(o->name, kept[i]))
            return fail_forbidden(c, o->name, "this namespace may not be deleted");
    return 0;
}

/* ---------------------------------------------------------------- RBAC: nobody gives what he lacks */

static bool may(struct call *c, const char *verb, const char *resource, const char *name)
{
    return access_also(c, verb, "rbac.authorization.k8s.io", resource, "", c->path.ns, name);
}

static int role_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    struct err err = {0};
    const char *name = val_str_at(v, "metadata.name", "");

    (void)sub;
    if (!c->user || (old && val_equal(val_get(v, "rules"), val_get(old, "rules")) &&
                     val_equal(val_get(v, "aggregationRule"), val_get(old, "aggregationRule"))))
        return 0;
    if (may(c, "escalate", c->stored->plural, name))
        return 0;
    if (rbac_holds(&c->api->rbac, c->user, c->path.ns, val_get(v, "rules"), &err) < 0)
        return fail_forbidden(c, name, "%s", err.msg);
    if (val_get(v, "aggregationRule") &&
        !access_also(c, "*", "*", "*", "", "", ""))
        return fail_forbidden(c, name, "user \"%s\" must have cluster-admin rights to change an "
                              "aggregation rule", c->user->name);
    return 0;
}

static int binding_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const struct val *ref = val_get(v, "roleRef");
    const char *kind = val_str_at(ref, "kind", ""), *role = val_str_at(ref, "name", "");
    const char *name = val_str_at(v, "metadata.name", "");
    bool cluster = streq(kind, "ClusterRole");
    const struct obj *o;
    struct err err = {0};

    (void)sub;
    if (!c->user || (old && val_equal(ref, val_get(old, "roleRef")) &&
                     val_equal(val_get(v, "subjects"), val_get(old, "subjects"))))
        return 0;
    if (auth_user_in(c->user, GROUP_MASTERS) ||
        may(c, "bind", cluster ? "clusterroles" : "roles", role))
        return 0;
    o = c->api->rbac.get(c->api, cluster ? "clusterroles" : "roles", cluster ? "" : c->path.ns, role);
    if (!o) /* as upstream words it: the role's name under the binding's resource */
        return fail_not_found(c, role);
    if (rbac_holds(&c->api->rbac, c->user, c->path.ns,
                   val_get(obj_val(o), "rules"), &err) < 0)
        return fail_forbidden(c, name, "%s", err.msg);
    return 0;
}

/* ---------------------------------------------------------------- storage */

static bool is_default_class(const struct obj *o)
{
    const char *s = obj_annotation(o, "storageclass.kubernetes.io/is-default-class");

    return streq0(s ? s : obj_annotation(o, "storageclass.beta.kubernetes.io/is-default-class"), "true");
}

/* The newest default class of a table, or NULL. */
static const struct obj *default_class(struct call *c, const char *group, const char *plural,
                                       bool (*is_default)(const struct obj *o))
{
    struct store_iter it;
    struct err err = {0};
    const struct obj *o, *best = NULL;

    if (store_iter_init(&it, c->api->store, table_named(c->api->store, group, plural), NULL, 0,
                        NULL, NULL, &err) < 0)
        return NULL;
    while ((o = store_iter_next(&it))) {
        if (!is_default(o) ||
            (best && strcmp(val_str_at(obj_val(o), "metadata.creationTimestamp", ""),
                            val_str_at(obj_val(best), "metadata.creationTimestamp", "")) <= 0))
            continue;
        best = o;
        pin_obj(c->a, obj_ref(o));
    }
    store_iter_done(&it);
    return best;
}

static int claim_create(struct call *c, struct val *v)
{
    struct val *spec = val_need_map(c->a, v, "spec");
    const struct obj *class_;

    add_finalizer(c, v, "kubernetes.io/pvc-protection");
    if (val_get(spec, "storageClassName") ||
        val_get(val_at(v, "metadata.annotations"), "volume.beta.kubernetes.io/storage-class"))
        return 0;
    if ((class_ = default_class(c, "storage.k8s.io", "storageclasses", is_default_class)))
        val_put_str(c->a, spec, "storageClassName", class_->name);
    return 0;
}

static const char *class_of(const struct val *claim)
{
    const char *old = val_text(val_get(val_at(claim, "metadata.annotations"),
                                       "volume.beta.kubernetes.io/storage-class"), NULL);

    return old ? old : val_str_at(claim, "spec.storageClassName", "");
}

/* Only bound claims grow, and only where their class lets them. */
static int claim_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const struct obj *class_;

    if (*sub || !old || quantity_of(val_at(v, "spec.resources.requests.storage")) <=
                            quantity_of(val_at(old, "spec.resources.requests.storage")))
        return 0;
    if (!streq(val_str_at(old, "status.phase", ""), "Bound"))
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "Only bound persistent volume claims can be expanded");
    class_ = *class_of(v) ? store_get(c->api->store, table_named(c->api->store, "storage.k8s.io", "storageclasses"),
                                      "", class_of(v)) : NULL;
    if (!class_ || !streq(class_of(v), class_of(old)) ||
        !val_bool_at(obj_val(class_), "allowVolumeExpansion", false))
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "only dynamically provisioned pvc can be resized and the storageclass that "
                              "provisions the pvc must support resize");
    return 0;
}

static int volume_create(struct call *c, struct val *v)
{
    add_finalizer(c, v, "kubernetes.io/pv-protection");
    return 0;
}

static bool is_default_ingress(const struct obj *o)
{
    return streq0(obj_annotation(o, "ingressclass.kubernetes.io/is-default-class"), "true");
}

static int ingress_create(struct call *c, struct val *v)
{
    struct val *spec = val_need_map(c->a, v, "spec");
    const struct obj *class_;

    if (val_get(spec, "ingressClassName") ||
        val_get(val_at(v, "metadata.annotations"), "kubernetes.io/ingress.class"))
        return 0;
    if ((class_ = default_class(c, "networking.k8s.io", "ingressclasses", is_default_ingress)))
        val_put_str(c->a, spec, "ingressClassName", class_->name);
    return 0;
}

/* One without any name gets one, alone among all kinds. */
static int limits_create(struct call *c, struct val *v)
{
    if (!*val_str_at(v, "metadata.name", "") && !*val_str_at(v, "metadata.generateName", ""))
        val_put_str(c->a, meta_of(c->a, v), "name", call_uuid(c));
    return 0;
}

static int attributes_create(struct call *c, struct val *v)
{
    add_finalizer(c, v, "kubernetes.io/vac-protection");
    return 0;
}

/* ---------------------------------------------------------------- generations */

/* Some kinds count more than changes of their spec. */
static int count_change(struct call *c, struct val *v, const struct obj *old, const char *const *keys)
{
    struct val *meta = meta_of(c->a, v);
    int64_t was = val_int_at(obj_meta(old), "generation", 0);
    bool changed = false;

    for (; *keys; keys++)
        changed |= !val_equal(val_get(meta, *keys) ? val_get(meta, *keys) : val_map(c->a),
                              val_get(obj_meta(old), *keys) ? val_get(obj_meta(old), *keys) : val_map(c->a));
    if (changed && !c->sub && val_int_at(meta, "generation", 0) == was)
        val_put_int(c->a, meta, "generation", was + 1);
    return 0;
}

static int deployment_allocate(struct call *c, struct val *v, const struct obj *old)
{
    static const char *const keys[] = {"annotations", NULL};

    return old ? count_change(c, v, old, keys) : 0;
}

static int slice_allocate(struct call *c, struct val *v, const struct obj *old)
{
    static const char *const keys[] = {"labels", NULL};

    return old ? count_change(c, v, old, keys) : 0;
}

/* ---------------------------------------------------------------- others */

static int node_create(struct call *c, struct val *v)
{
    struct val *taints, *t;

    taints = val_need_list(c->a, val_need_map(c->a, v, "spec"), "taints");
    VAL_EACH(taints, x)
        if (streq(val_str_at(x, "key", ""), "node.kubernetes.io/not-ready") &&
            streq(val_str_at(x, "effect", ""), "NoSchedule"))
            return 0;
    t = val_map(c->a);
    val_put_str(c->a, t, "key", "node.kubernetes.io/not-ready");
    val_put_str(c->a, t, "effect", "NoSchedule");
    val_push(c->a, taints, t);
    return 0;
}

/* Nobody becomes a master by a certificate of the signer for clients (CertificateSubjectRestriction). */
static int csr_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const char *text = val_str_at(v, "spec.request", "");
    struct err ignored = {0};
    unsigned char *pem;
    char **orgs = NULL;
    size_t n;

    (void)sub;
    if (old || !streq(val_str_at(v, "spec.signerName", ""), "kubernetes.io/kube-apiserver-client"))
        return 0;
    pem = base64_decode(c->a, text, strlen(text), &n);
    if (!pem || pki_read_request((char *)pem, n, c->a, NULL, &orgs, &ignored) < 0)
        return 0; /* validation says what is wrong with it */
    for (; orgs && *orgs; orgs++)
        if (streq(*orgs, GROUP_MASTERS))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""), "use of kubernetes.io/kube-apiserver-client "
                                  "signer with system:masters group is not allowed");
    return 0;
}

static int csr_create(struct call *c, struct val *v)
{
    struct val *spec = val_need_map(c->a, v, "spec"), *groups = val_list(c->a);
    const struct auth_user *u = c->user;

    val_del(spec, "username");
    val_del(spec, "groups");
    val_del(spec, "uid");
    val_del(spec, "extra");
    if (!u)
        return 0;
    val_put_str(c->a, spec, "username", u->name);
    if (!str_empty(u->uid))
        val_put_str(c->a, spec, "uid", u->uid);
    for (const char *const *g = u->groups; g && *g; g++)
        val_push_str(c->a, groups, *g);
    val_put(c->a, spec, "groups", groups);
    if (val_len(u->extra))
        val_put(c->a, spec, "extra", u->extra);
    return 0;
}

static bool may_signer(struct call *c, const char *verb, const char *signer)
{
    const char *slash = strchr(signer, '/');
    const char *any = arena_printf(c->a, "%.*s/*", slash ? (int)(slash - signer) : 0, signer);

    return access_also(c, verb, "certificates.k8s.io", "signers", "", "", signer) ||
           access_also(c, verb, "certificates.k8s.io", "signers", "", "", any);
}

/* The certificate and the conditions: what a signer writes. */
static bool same_signature(const struct val *x, const struct val *y)
{
    const struct val *a = val_at(x, "status.conditions"), *b = val_at(y, "status.conditions");

    return streq(val_str_at(x, "status.certificate", ""), val_str_at(y, "status.certificate", "")) &&
           ((!val_len(a) && !val_len(b)) || val_equal(a, b));
}

static int csr_update(struct call *c, const char *sub, struct val *v, const struct obj *old)
{
    const char *signer = val_str_at(obj_val(old), "spec.signerName", "");

    VAL_EACH(val_at(v, "status.conditions"), cond) {
        if (val_is_null(val_get(cond, "lastUpdateTime")))
            val_put_str(c->a, cond, "lastUpdateTime", now_text(c));
        if (val_is_null(val_get(cond, "lastTransitionTime")))
            val_put_str(c->a, cond, "lastTransitionTime", now_text(c));
    }
    if (streq(sub, "approval") && !may_signer(c, "approve", signer))
        return fail_forbidden(c, old->name, "user not permitted to approve requests with "
                              "signerName \"%s\"", signer);
    if (streq(sub, "status") && !same_signature(obj_val(old), v) && !may_signer(c, "sign", signer))
        return fail_forbidden(c, old->name, "user not permitted to sign requests with "
                              "signerName \"%s\"", signer);
    return 0;
}

static int priority_check_delete(struct call *c, const struct obj *o)
{
    return str_starts(o->name, "system-")
               ? fail_forbidden(c, o->name, "this is a system priority class and cannot be deleted")
               : 0;
}

static int priority_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const char *name = val_str_at(v, "metadata.name", "");
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    const char *other = NULL;

    (void)old;
    if (*sub || !val_bool_at(v, "globalDefault", false))
        return 0;
    if (store_iter_init(&it, c->api->store, c->table, NULL, 0, NULL, NULL, &err) < 0)
        return fail_err(c, &err);
    while (!other && (o = store_iter_next(&it)))
        if (val_bool_at(obj_val(o), "globalDefault", false) && !streq(o->name, name))
            other = arena_strdup(c->a, o->name);
    store_iter_done(&it);
    return other ? fail_forbidden(c, name, "PriorityClass %s is already marked as default. Only one default can exist", other) : 0;
}

/* ---------------------------------------------------------------- the tables */

static const struct kind_hooks HOOKS[] = {
    {"", "namespaces", .admit_create = namespace_create, .admit_update = namespace_update,
     .check = podsecurity_labels, .check_delete = namespace_check_delete},
    {"", "pods", .admit_create = pod_admit_create, .admit_update = pod_admit_update,
     .check = pod_check, .allocate = pod_allocate, .deleting = pod_deleting},
    {"", "services", .admit_update = service_admit_update, .begin = service_allocate},
    {"", "persistentvolumeclaims", .admit_create = claim_create, .check = claim_check},
    {"", "persistentvolumes", .admit_create = volume_create},
    {"", "limitranges", .admit_create = limits_create},
    {"", "nodes", .admit_create = node_create},
    {"storage.k8s.io", "volumeattributesclasses", .admit_create = attributes_create},
    {"apiextensions.k8s.io", "customresourcedefinitions", .hold = crd_hold},
    {"apps", "deployments", .allocate = deployment_allocate},
    {"discovery.k8s.io", "endpointslices", .allocate = slice_allocate},
    {"networking.k8s.io", "ingresses", .admit_create = ingress_create},
    {"rbac.authorization.k8s.io", "roles", .check = role_check},
    {"rbac.authorization.k8s.io", "clusterroles", .check = role_check},
    {"rbac.authorization.k8s.io", "rolebindings", .check = binding_check},
    {"rbac.authorization.k8s.io", "clusterrolebindings", .check = binding_check},
    {"certificates.k8s.io", "certificatesigningrequests", .admit_create = csr_create,
     .admit_update = csr_update, .check = csr_check},
    {"scheduling.k8s.io", "priorityclasses", .check = priority_check,
     .check_delete = priority_check_delete},
};

static const struct {
    const char *group, *plural;
    unsigned flags;
} FLAGS[] = {
    {"coordination.k8s.io", "leases", KF_CREATE_ON_UPDATE | KF_NEEDS_VERSION},
    {"node.k8s.io", "runtimeclasses", KF_CREATE_ON_UPDATE | KF_NEEDS_VERSION},
    {"", "events", KF_CREATE_ON_UPDATE | KF_NO_GC},
    {"events.k8s.io", "events", KF_CREATE_ON_UPDATE | KF_NO_GC},
    {"", "services", KF_CREATE_ON_UPDATE | KF_RETURNS_DELETED},
    {"", "endpoints", KF_CREATE_ON_UPDATE},
    {"", "limitranges", KF_CREATE_ON_UPDATE},
    {"rbac.authorization.k8s.io", "clusterroles", KF_CREATE_ON_UPDATE},
    {"rbac.authorization.k8s.io", "clusterrolebindings", KF_CREATE_ON_UPDATE},
    {"rbac.authorization.k8s.io", "roles", KF_CREATE_ON_UPDATE},
    {"rbac.authorization.k8s.io", "rolebindings", KF_CREATE_ON_UPDATE},
    {"admissionregistration.k8s.io", "validatingadmissionpolicies", KF_NEEDS_VERSION},
    {"admissionregistration.k8s.io", "validatingadmissionpolicybindings", KF_NEEDS_VERSION},
    {"admissionregistration.k8s.io", "mutatingadmissionpolicies", KF_NEEDS_VERSION},
    {"admissionregistration.k8s.io", "mutatingadmissionpolicybindings", KF_NEEDS_VERSION},
    {"admissionregistration.k8s.io", "validatingwebhookconfigurations", KF_NEEDS_VERSION},
    {"admissionregistration.k8s.io", "mutatingwebhookconfigurations", KF_NEEDS_VERSION},
    {"apiextensions.k8s.io", "customresourcedefinitions", KF_NEEDS_VERSION},
    {"apiregistration.k8s.io", "apiservices", KF_NEEDS_VERSION},
    {"policy", "poddisruptionbudgets", KF_NEEDS_VERSION},
    {"storage.k8s.io", "csidrivers", KF_NEEDS_VERSION | KF_RETURNS_DELETED},
    {"storage.k8s.io", "csistoragecapacities", KF_NEEDS_VERSION},
    {"storage.k8s.io", "volumeattachments", KF_NEEDS_VERSION | KF_RETURNS_DELETED},
    {"storage.k8s.io", "csinodes", KF_RETURNS_DELETED | KF_NEEDS_VERSION},
    {"storage.k8s.io", "storageclasses", KF_RETURNS_DELETED},
    {"storage.k8s.io", "volumeattributesclasses", KF_RETURNS_DELETED},
    {"", "pods", KF_RETURNS_DELETED},
    {"", "podtemplates", KF_RETURNS_DELETED},
    {"", "serviceaccounts", KF_RETURNS_DELETED},
    {"", "resourcequotas", KF_RETURNS_DELETED},
    {"", "persistentvolumes", KF_RETURNS_DELETED},
    {"", "persistentvolumeclaims", KF_RETURNS_DELETED},
    {"resource.k8s.io", "deviceclasses", KF_RETURNS_DELETED},
    {"resource.k8s.io", "resourceclaims", KF_RETURNS_DELETED},
    {"resource.k8s.io", "resourceclaimtemplates", KF_RETURNS_DELETED},
    {"resource.k8s.io", "resourceslices", KF_RETURNS_DELETED},
    {"batch", "jobs", KF_ORPHANS},
    {"", "replicationcontrollers", KF_ORPHANS},
};

const struct kind_hooks *hooks_of(const struct resource *r)
{
    for (size_t i = 0; i < ARRAY_LEN(HOOKS); i++)
        if (streq(HOOKS[i].plural, r->plural) && streq(HOOKS[i].group, r->group))
            return &HOOKS[i];
    return NULL;
}

unsigned flags_of(const struct resource *r)
{
    for (size_t i = 0; i < ARRAY_LEN(FLAGS); i++)
        if (streq(FLAGS[i].plural, r->plural) && streq(FLAGS[i].group, r->group))
            return FLAGS[i].flags;
    return 0;
}
