/* apiserver/hooks_pod.c - what stock admission adds to a pod: its service account and token,
 * priority, tolerations; and how long its end takes. */
#include "schema/quota.h"

#include "apiserver/hooks.h"

#define TOKEN_PATH "/var/run/secrets/kubernetes.io/serviceaccount"

static const struct obj *get(struct call *c, const char *group, const char *plural, const char *ns,
                             const char *name)
{
    const struct obj *o = store_get(c->api->store, table_named(c->api->store, group, plural), ns, name);

    if (o)
        pin_obj(c->a, obj_ref(o));
    return o;
}

/* ---------------------------------------------------------------- service account */

static struct val *token_volume(struct call *c, const char *name)
{
    static const char text[] =
        "{\"projected\":{\"sources\":[{\"serviceAccountToken\":{\"expirationSeconds\":3607,\"path\":"
        "\"token\"}},{\"configMap\":{\"name\":\"kube-root-ca.crt\",\"items\":[{\"key\":\"ca.crt\","
        "\"path\":\"ca.crt\"}]}},{\"downwardAPI\":{\"items\":[{\"path\":\"namespace\",\"fieldRef\":"
        "{\"apiVersion\":\"v1\",\"fieldPath\":\"metadata.namespace\"}}]}}],\"defaultMode\":420}}";
    struct api_response doc = {.body = text, .body_n = sizeof(text) - 1};
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "name", name);
    VAL_EACH_MEMBER(api_response_val(c->a, &doc), m)
        val_put(c->a, v, m->key, &m->v);
    return v;
}

static bool mounted(const struct val *container)
{
    VAL_EACH(val_get(container, "volumeMounts"), m)
        if (streq(val_str_at(m, "mountPath", ""), TOKEN_PATH))
            return true;
    return false;
}

static void mount_token(struct call *c, struct val *spec)
{
    static const char *const lists[] = {"initContainers", "containers"};
    const char *name = NULL;
    bool any = false;

    VAL_EACH(val_get(spec, "volumes"), v)
        if (str_starts(val_str_at(v, "name", ""), "kube-api-access-"))
            name = val_str_at(v, "name", "");
    if (!name)
        name = arena_printf(c->a, "kube-api-access-%s", call_suffix(c));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        VAL_EACH(val_get(spec, lists[i]), ct) {
            struct val *m;

            if (!val_is(ct, VAL_MAP) || mounted(ct))
                continue;
            m = val_map(c->a);
            val_put_str(c->a, m, "name", name);
            val_put_bool(c->a, m, "readOnly", true);
            val_put_str(c->a, m, "mountPath", TOKEN_PATH);
            val_push(c->a, val_need_list(c->a, ct, "volumeMounts"), m);
            any = true;
        }
    }
    if (!any)
        return;
    VAL_EACH(val_get(spec, "volumes"), v)
        if (streq(val_str_at(v, "name", ""), name))
            return;
    val_push(c->a, val_need_list(c->a, spec, "volumes"), token_volume(c, name));
}

static int admit_account(struct call *c, struct val *v, struct val *spec)
{
    const char *name = val_str_at(spec, "serviceAccountName", "");
    const struct obj *account;
    const struct val *automount;

    if (val_get(val_at(v, "metadata.annotations"), "kubernetes.io/config.mirror")) {
        if (*name)
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "a mirror pod may not reference service accounts");
        return 0;
    }
    if (!*name) {
        name = "default";
        val_put_str(c->a, spec, "serviceAccountName", name);
        val_put_str(c->a, spec, "serviceAccount", name);
    }
    if (!(account = get(c, "", "serviceaccounts", c->path.ns, name)))
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "error looking up service account %s/%s: serviceaccount \"%s\" not found",
                              c->path.ns, name, name);
    automount = val_get(spec, "automountServiceAccountToken");
    if (val_is_null(automount))
        automount = val_get(obj_val(account), "automountServiceAccountToken");
    if (val_is_null(automount) || (val_is(automount, VAL_BOOL) && automount->b))
        mount_token(c, spec);
    if (!val_len(val_get(spec, "imagePullSecrets")) &&
        val_len(val_get(obj_val(account), "imagePullSecrets")))
        val_put(c->a, spec, "imagePullSecrets", val_get(obj_val(account), "imagePullSecrets"));
    return 0;
}

/* ---------------------------------------------------------------- priority */

static int admit_priority(struct call *c, struct val *v, struct val *spec)
{
    const char *name = val_str_at(spec, "priorityClassName", "");
    const struct val *given = val_get(spec, "priority");
    const char *policy = "PreemptLowerPriority";
    int64_t value = 0;
    const struct obj *class_ = NULL;

    if (*name) {
        if (!(class_ = get(c, "scheduling.k8s.io", "priorityclasses", "", name)))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "no PriorityClass with name %s was found", name);
    } else {
        struct store_iter it;
        struct err err = {0};
        const struct obj *o;

        if (store_iter_init(&it, c->api->store,
                            table_named(c->api->store, "scheduling.k8s.io", "priorityclasses"),
                            NULL, 0, NULL, NULL, &err) < 0)
            return fail_err(c, &err);
        while ((o = store_iter_next(&it)))
            if (val_bool_at(obj_val(o), "globalDefault", false) &&
                (!class_ || val_int_at(obj_val(o), "value", 0) < value)) {
                class_ = o;
                pin_obj(c->a, obj_ref(o));
                value = val_int_at(obj_val(o), "value", 0);
            }
        store_iter_done(&it);
        if (class_)
            val_put_str(c->a, spec, "priorityClassName", class_->name);
    }
    if (class_) {
        value = val_int_at(obj_val(class_), "value", 0);
        policy = val_str_at(obj_val(class_), "preemptionPolicy", policy);
    }
    if (val_is(given, VAL_INT) && given->i != value)
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "the integer value of priority (%lld) must not be provided in pod "
                              "spec; priority admission controller computed %lld from the given "
                              "PriorityClass name", (long long)given->i, (long long)value);
    val_put_int(c->a, spec, "priority", value);
    if (val_is(val_get(spec, "preemptionPolicy"), VAL_STR) &&
        !streq(val_str_at(spec, "preemptionPolicy", ""), policy))
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "the string value of PreemptionPolicy (%s) must not be provided in pod "
                              "spec; priority admission controller computed %s from the given "
                              "PriorityClass name",
                              val_str_at(spec, "preemptionPolicy", ""), policy);
    val_put_str(c->a, spec, "preemptionPolicy", policy);
    return 0;
}

/* ---------------------------------------------------------------- tolerations */

static bool tolerates(const struct val *list, const char *key)
{
    VAL_EACH(list, t) {
        const char *k = val_str_at(t, "key", ""), *effect = val_str_at(t, "effect", "");

        if ((!*k || streq(k, key)) && (!*effect || streq(effect, "NoExecute")))
            return true;
    }
    return false;
}

static void admit_tolerations(struct call *c, struct val *spec)
{
    static const char *const keys[] = {"node.kubernetes.io/not-ready",
                                       "node.kubernetes.io/unreachable"};
    struct val *list = val_need_list(c->a, spec, "tolerations");

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct val *t;

        if (tolerates(list, keys[i]))
            continue;
        t = val_map(c->a);
        val_put_str(c->a, t, "key", keys[i]);
        val_put_str(c->a, t, "operator", "Exists");
        val_put_str(c->a, t, "effect", "NoExecute");
        val_put_int(c->a, t, "tolerationSeconds", 300);
        val_push(c->a, list, t);
    }
}

static bool same_toleration(const struct val *x, const struct val *y)
{
    static const char *const keys[] = {"key", "operator", "value", "effect", "tolerationSeconds"};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct val *p = val_get(x, keys[i]), *q = val_get(y, keys[i]);

        if (i == 1 && (!p || !q)) { /* an operator that is left out is Equal */
            if (!streq(val_text(p, "Equal"), val_text(q, "Equal")))
                return false;
        } else if (!val_equal(p, q)) {
            return false;
        }
    }
    return true;
}

static const struct obj *runtime_class(struct call *c, const struct val *v, int *ret_failed)
{
    const char *name = val_str_at(v, "spec.runtimeClassName", "");
    const struct obj *o = *name ? get(c, "node.k8s.io", "runtimeclasses", "", name) : NULL;

    *ret_failed = *name && !o
                      ? fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                       "pod rejected: RuntimeClass \"%s\" not found", name)
                      : 0;
    return o;
}

static bool same_amounts(const struct val *x, const struct val *y)
{
    if (val_len(x) != val_len(y))
        return false;
    VAL_EACH_MEMBER(x, m)
        if (!val_get(y, m->key) || quantity_of(val_get(y, m->key)) != quantity_of(&m->v))
            return false;
    return true;
}

static int admit_runtime(struct call *c, struct val *v, struct val *spec)
{
    const struct val *overhead, *sched;
    const struct obj *o;
    int failed;

    if (!(o = runtime_class(c, v, &failed)))
        return failed;
    overhead = val_at(obj_val(o), "overhead.podFixed");
    if (val_get(obj_val(o), "overhead")) {
        if (val_len(val_get(spec, "overhead")) && !same_amounts(overhead, val_get(spec, "overhead")))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        if (val_len(overhead))
            val_put(c->a, spec, "overhead", overhead);
    }
    sched = val_get(obj_val(o), "scheduling");
    VAL_EACH_MEMBER(val_get(sched, "nodeSelector"), m) {
        const struct val *own = val_get(val_get(spec, "nodeSelector"), m->key);

        if (own && !val_equal(own, &m->v))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; "
                                  "pod.spec.nodeSelector[%s] = %s", m->key, val_text(&m->v, ""),
                                  m->key, val_text(own, ""));
        val_put(c->a, val_need_map(c->a, spec, "nodeSelector"), m->key, &m->v);
    }
    VAL_EACH(val_get(sched, "tolerations"), t) {
        struct val *list = val_need_list(c->a, spec, "tolerations");
        bool there = false;

        VAL_EACH(list, own)
            there |= same_toleration(own, t);
        if (!there)
            val_push(c->a, list, t);
    }
    return 0;
}

/* ---------------------------------------------------------------- what a new pod may say in the end */

static int check_runtime(struct call *c, const struct val *v)
{
    const struct val *has = val_at(v, "spec.overhead");
    const struct obj *o;
    int failed;

    o = runtime_class(c, v, &failed);
    if (failed < 0)
        return -1;
    if (o && val_get(obj_val(o), "overhead")) {
        if (!same_amounts(val_at(obj_val(o), "overhead.podFixed"), has))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
    } else if (has) {
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                              "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
    }
    return 0;
}

/* Does anything in the pod name a secret? Secrets are named by secretName, secretRef and secretKeyRef,
 * and by imagePullSecrets. */
static bool names_secret(const struct val *v)
{
    VAL_EACH_MEMBER(v, m)
        if (streq(m->key, "secretName") || streq(m->key, "secretRef") || streq(m->key, "secretKeyRef") ||
            streq(m->key, "imagePullSecrets") || (streq(m->key, "secret") && val_is(&m->v, VAL_MAP)) ||
            names_secret(&m->v))
            return true;
    VAL_EACH(v, it)
        if (names_secret(it))
            return true;
    return false;
}

static int check_mirror(struct call *c, const struct val *v)
{
    const char *name = val_str_at(v, "metadata.name", "");

    if (*val_str_at(v, "spec.serviceAccountName", ""))
        return fail_forbidden(c, name, "a mirror pod may not reference service accounts");
    if (names_secret(val_get(v, "spec")))
        return fail_forbidden(c, name, "a mirror pod may not reference secrets");
    VAL_EACH(val_at(v, "spec.volumes"), vol)
        VAL_EACH(val_at(vol, "projected.sources"), s)
            if (val_get(s, "serviceAccountToken"))
                return fail_forbidden(c, name, "a mirror pod may not use ServiceAccountToken volume projections");
    return 0;
}

static bool named_in(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            return true;
    return false;
}

static int check_container_secrets(struct call *c, const struct val *v, const struct val *account,
                                   const char *list, const char *sort)
{
    const char *name = val_str_at(v, "metadata.name", ""), *who = val_str_at(account, "metadata.name", "");
    const struct val *fine = val_get(account, "secrets");

    VAL_EACH(val_get(val_get(v, "spec"), list), ct) {
        VAL_EACH(val_get(ct, "env"), e) {
            const char *s = val_str_at(e, "valueFrom.secretKeyRef.name", "");

            if (val_at(e, "valueFrom.secretKeyRef") && !named_in(fine, s))
                return fail_forbidden(c, name, "%s %s with envVar %s referencing secret.secretName=\"%s\" is not allowed "
                                      "because service account %s does not reference that secret", sort,
                                      val_str_at(ct, "name", ""), val_str_at(e, "name", ""), s, who);
        }
        VAL_EACH(val_get(ct, "envFrom"), e) {
            const char *s = val_str_at(e, "secretRef.name", "");

            if (val_get(e, "secretRef") && !named_in(fine, s))
                return fail_forbidden(c, name, "%s %s with envFrom referencing secret.secretName=\"%s\" is not allowed "
                                      "because service account %s does not reference that secret", sort,
                                      val_str_at(ct, "name", ""), s, who);
        }
    }
    return 0;
}

/* An account with the annotation kubernetes.io/enforce-mountable-secrets lends its pods those secrets only
 * that it lists. */
static int check_secrets(struct call *c, const struct val *v, const struct val *account, bool ephemeral)
{
    const char *name = val_str_at(v, "metadata.name", ""), *who = val_str_at(account, "metadata.name", "");
    const char *on = val_text(val_get(val_at(account, "metadata.annotations"),
                                      "kubernetes.io/enforce-mountable-secrets"), "");
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    bool enforced = false;
    uint32_t i = 0;

    for (size_t k = 0; k < ARRAY_LEN(yes); k++)
        enforced |= streq(on, yes[k]);
    if (!enforced)
        return 0;
    if (ephemeral)
        return check_container_secrets(c, v, account, "ephemeralContainers", "ephemeral container");
    VAL_EACH(val_at(v, "spec.volumes"), vol) {
        const char *s = val_str_at(vol, "secret.secretName", "");

        if (val_get(vol, "secret") && !named_in(val_get(account, "secrets"), s))
            return fail_forbidden(c, name, "volume with secret.secretName=\"%s\" is not allowed because service account "
                                  "%s does not reference that secret", s, who);
    }
    if (check_container_secrets(c, v, account, "initContainers", "init container") < 0 ||
        check_container_secrets(c, v, account, "containers", "container") < 0)
        return -1;
    VAL_EACH(val_at(v, "spec.imagePullSecrets"), p) {
        if (!named_in(val_get(account, "imagePullSecrets"), val_str_at(p, "name", "")))
            return fail_forbidden(c, name, "imagePullSecrets[%u].name=\"%s\" is not allowed because service account %s "
                                  "does not reference that imagePullSecret", i, val_str_at(p, "name", ""), who);
        i++;
    }
    return 0;
}

static int check_account(struct call *c, const struct val *v, bool ephemeral)
{
    const char *name = val_str_at(v, "metadata.name", ""), *account = val_str_at(v, "spec.serviceAccountName", "");
    const struct obj *o;

    if (!ephemeral && val_get(val_at(v, "metadata.annotations"), "kubernetes.io/config.mirror"))
        return check_mirror(c, v);
    if (!*account)
        return fail_forbidden(c, name, "no service account specified for pod %s/%s", c->path.ns, name);
    if (!(o = get(c, "", "serviceaccounts", c->path.ns, account)))
        return fail_forbidden(c, name, "error looking up service account %s/%s: serviceaccount \"%s\" not found",
                              c->path.ns, account, account);
    return check_secrets(c, v, obj_val(o), ephemeral);
}

/* A resize has to fit on the node that the pod is on. */
static int check_resize(struct call *c, const struct val *v, const struct val *old)
{
    static const char *const keys[] = {"cpu", "memory"};
    const char *name = val_str_at(v, "metadata.name", ""), *node = val_str_at(v, "spec.nodeName", ""), *reason;
    struct amounts requests = {.a = c->a};
    struct buf b = {.max = 512};
    const struct obj *o;
    const char *os;
    struct val *s, *cause;

    if (!*node || val_int_at(v, "metadata.generation", 0) == val_int_at(old, "metadata.generation", 0))
        return 0;
    if (!(o = get(c, "", "nodes", "", node)))
        return fail_forbidden(c, name, "node \"%s\" not found", node);
    os = obj_label(o, "kubernetes.io/os");
    pod_sum(v, "requests", true, &requests);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct amount *r = amounts_get(&requests, keys[i]);
        quantity has = quantity_of(val_get(val_at(obj_val(o), "status.allocatable"), keys[i]));

        if (r && r->q > has)
            buf_printf(&b, "%s%s, requested: %lld, allocatable: %lld", b.n ? "; " : "", keys[i],
                       (long long)(i ? quantity_value(r->q) : quantity_milli(r->q)),
                       (long long)(i ? quantity_value(has) : quantity_milli(has)));
    }
    reason = os && !streq(os, "linux") ? "UnsupportedPlatform" : "NodeCapacity";
    if (os && !streq(os, "linux"))
        fail_forbidden(c, name, "pod resize is only supported on linux nodes, node \"%s\" is \"%s\"", node, os);
    else if (b.n)
        fail_forbidden(c, name, "node didn't have enough allocatable resources: %s", b.p);
    else
        return 0;
    buf_done(&b);
    s = val_copy(c->a, c->resp.val);
    cause = val_map(c->a);
    val_put_str(c->a, cause, "reason", reason);
    val_push(c->a, val_need_list(c->a, val_need_map(c->a, s, "details"), "causes"), cause);
    return fail_status(c, s);
}

int pod_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    if (old)
        return streq(sub, "ephemeralcontainers") ? check_account(c, v, true)
               : streq(sub, "resize")            ? check_resize(c, v, old)
                                                 : 0;
    if (*sub)
        return 0;
    return check_account(c, v, false) < 0 || check_runtime(c, v) < 0 ? -1 : 0;
}

/* ---------------------------------------------------------------- topology */

/* The zone and region of its node become labels of the pod. */
void topology_labels(struct call *c, struct val *v, const char *node)
{
    static const char *const keys[] = {"topology.kubernetes.io/region", "topology.kubernetes.io/zone"};
    const struct obj *o = *node ? get(c, "", "nodes", "", node) : NULL;

    for (size_t i = 0; o && i < ARRAY_LEN(keys); i++)
        if (obj_label(o, keys[i]))
            put_label(c, v, keys[i], obj_label(o, keys[i]));
}

int pod_admit_create(struct call *c, struct val *v)
{
    struct val *spec = val_get(v, "spec");

    if (!val_is(spec, VAL_MAP))
        return 0; /* validation says what is missing */
    if (admit_account(c, v, spec) < 0 || admit_priority(c, v, spec) < 0)
        return -1;
    admit_tolerations(c, spec);
    if (admit_runtime(c, v, spec) < 0)
        return -1;
    topology_labels(c, v, val_str_at(spec, "nodeName", ""));
    return 0;
}

/* A pod with gates says why nobody schedules it. */
int pod_allocate(struct call *c, struct val *v, const struct obj *old)
{
    struct val *cond, *list;

    if (old || !val_len(val_at(v, "spec.schedulingGates")))
        return 0;
    cond = val_map(c->a);
    val_put_str(c->a, cond, "type", "PodScheduled");
    val_put_str(c->a, cond, "status", "False");
    val_put(c->a, cond, "lastProbeTime", val_null(c->a));
    val_put_str(c->a, cond, "lastTransitionTime", now_text(c));
    val_put_str(c->a, cond, "reason", "SchedulingGated");
    val_put_str(c->a, cond, "message", "Scheduling is blocked due to non-empty scheduling gates");
    list = val_need_list(c->a, val_need_map(c->a, v, "status"), "conditions");
    val_push(c->a, list, cond);
    return 0;
}

int pod_admit_update(struct call *c, const char *sub, struct val *v, const struct obj *old)
{
    struct val *spec = val_get(v, "spec");
    const struct val *was = val_get(obj_val(old), "spec");
    static const char *const kept[] = {"priority", "preemptionPolicy"};

    if (*sub || !val_is(spec, VAL_MAP))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        if (!val_get(spec, kept[i]) && val_get(was, kept[i]))
            val_put(c->a, spec, kept[i], val_get(was, kept[i]));
    admit_tolerations(c, spec);
    return 0;
}

void pod_deleting(struct call *c, const struct obj *o, struct delete_options *how)
{
    const struct val *v = obj_val(o);
    const char *phase = val_str_at(v, "status.phase", "");

    (void)c;
    if (how->grace_s < 0)
        how->grace_s = val_int_at(v, "spec.terminationGracePeriodSeconds", 30);
    if (how->grace_s < 0)
        how->grace_s = 1;
    /* nobody runs it: it can go at once */
    if (!*val_str_at(v, "spec.nodeName", "") || streq(phase, "Failed") || streq(phase, "Succeeded"))
        how->grace_s = 0;
}
