/* apiserver/podsecurity.c - the Pod Security Standards: a namespace's labels
 * pod-security.kubernetes.io/enforce and /warn name the level (privileged, baseline, restricted).
 * Enforcing refuses pods; what makes pods (deployments, ...) is only warned about. */
#include "apiserver/hooks.h"

#include <stdarg.h>

enum level { PRIVILEGED, BASELINE, RESTRICTED };

struct inspect {
    struct arena *a;
    const struct val *spec, *pod_context;
    struct buf text;
    uint32_t n;
};

static enum level level_of(const char *s)
{
    return !s || streq(s, "privileged") ? PRIVILEGED : streq(s, "baseline") ? BASELINE : RESTRICTED;
}

static void found(struct inspect *x, const char *fmt, ...) _printf_(2, 3);
static void found(struct inspect *x, const char *fmt, ...)
{
    va_list ap;

    buf_adds(&x->text, x->n++ ? ", " : "");
    va_start(ap, fmt);
    buf_vprintf(&x->text, fmt, ap);
    va_end(ap);
}

static bool listed(const char *const *list, const char *s)
{
    for (; *list; list++)
        if (streq(*list, s))
            return true;
    return false;
}

/* Calls fn for each container of any sort; it gives back what is wrong, or NULL. All that are wrong
 * come behind one title. */
typedef const char *container_fn(struct inspect *x, const struct val *ct, const struct val *context);

static void each_container(struct inspect *x, const char *title, container_fn *fn)
{
    static const char *const lists[] = {"initContainers", "containers", "ephemeralContainers"};
    struct buf b = {.max = 1 << 14};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(x->spec, lists[i]), ct) {
            const char *bad = fn(x, ct, val_get(ct, "securityContext"));

            if (bad)
                buf_printf(&b, "%s%s", b.n ? "; " : "", bad);
        }
    if (b.n)
        found(x, "%s (%s)", title, b.p);
    buf_done(&b);
}

static const char *say(struct inspect *x, const struct val *ct, const char *what)
{
    return arena_printf(x->a, "container \"%s\" must %s", val_str_at(ct, "name", ""), what);
}

/* ---------------------------------------------------------------- baseline */

static const char *privileged(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return val_bool_at(sc, "privileged", false) ? say(x, ct, "not set securityContext.privileged=true") : NULL;
}

static const char *capabilities(struct inspect *x, const struct val *ct, const struct val *sc)
{
    static const char *const fine[] = {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", NULL};

    VAL_EACH(val_at(sc, "capabilities.add"), cap)
        if (!listed(fine, val_text(cap, "")))
            return say(x, ct, arena_printf(x->a, "not include \"%s\" in securityContext.capabilities.add",
                                           val_text(cap, "")));
    return NULL;
}

static const char *host_ports(struct inspect *x, const struct val *ct, const struct val *sc)
{
    (void)sc;
    VAL_EACH(val_get(ct, "ports"), p)
        if (val_int_at(p, "hostPort", 0))
            return arena_printf(x->a, "container \"%s\" uses hostPort %lld", val_str_at(ct, "name", ""),
                                (long long)val_int_at(p, "hostPort", 0));
    return NULL;
}

static const char *proc_mount(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return streq(val_str_at(sc, "procMount", "Default"), "Default")
               ? NULL : say(x, ct, "not set securityContext.procMount to \"Unmasked\"");
}

static bool bad_selinux(const struct val *sc)
{
    static const char *const types[] = {"", "container_t", "container_init_t", "container_kvm_t",
                                        "container_engine_t", NULL};

    return !listed(types, val_str_at(sc, "seLinuxOptions.type", "")) ||
           *val_str_at(sc, "seLinuxOptions.user", "") || *val_str_at(sc, "seLinuxOptions.role", "");
}

static const char *selinux(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return bad_selinux(sc) ? say(x, ct, "not set forbidden securityContext.seLinuxOptions") : NULL;
}

static const char *apparmor(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return streq(val_str_at(sc, "appArmorProfile.type", ""), "Unconfined")
               ? say(x, ct, "not set securityContext.appArmorProfile.type to \"Unconfined\"") : NULL;
}

static const char *seccomp(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return streq(val_str_at(sc, "seccompProfile.type", ""), "Unconfined")
               ? say(x, ct, "not set securityContext.seccompProfile.type to \"Unconfined\"") : NULL;
}

static void host_things(struct inspect *x)
{
    static const char *const keys[] = {"hostNetwork", "hostPID", "hostIPC"};
    static const char *const sysctls[] = {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", NULL};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (val_bool_at(x->spec, keys[i], false))
            found(x, "host namespaces (%s=true)", keys[i]);
    VAL_EACH(val_get(x->spec, "volumes"), v)
        if (val_get(v, "hostPath"))
            found(x, "hostPath volumes (volume \"%s\")", val_str_at(v, "name", ""));
    VAL_EACH(val_get(x->pod_context, "sysctls"), s)
        if (!listed(sysctls, val_str_at(s, "name", "")))
            found(x, "forbidden sysctls (%s)", val_str_at(s, "name", ""));
    if (bad_selinux(x->pod_context))
        found(x, "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions)");
    if (streq(val_str_at(x->pod_context, "seccompProfile.type", ""), "Unconfined"))
        found(x, "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")");
    if (streq(val_str_at(x->pod_context, "appArmorProfile.type", ""), "Unconfined"))
        found(x, "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")");
}

/* ---------------------------------------------------------------- restricted */

static const char *escalation(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return val_bool_at(sc, "allowPrivilegeEscalation", true)
               ? say(x, ct, "set securityContext.allowPrivilegeEscalation=false") : NULL;
}

static const char *dropped(struct inspect *x, const struct val *ct, const struct val *sc)
{
    bool all = false;

    VAL_EACH(val_at(sc, "capabilities.drop"), cap)
        all |= streq(val_text(cap, ""), "ALL");
    VAL_EACH(val_at(sc, "capabilities.add"), cap)
        if (!streq(val_text(cap, ""), "NET_BIND_SERVICE"))
            return say(x, ct, arena_printf(x->a, "not include \"%s\" in securityContext.capabilities.add",
                                           val_text(cap, "")));
    return all ? NULL : say(x, ct, "set securityContext.capabilities.drop=[\"ALL\"]");
}

static const char *non_root(struct inspect *x, const struct val *ct, const struct val *sc)
{
    bool pod = val_bool_at(x->pod_context, "runAsNonRoot", false);

    return val_bool_at(sc, "runAsNonRoot", pod)
               ? NULL : arena_printf(x->a, "pod or container \"%s\" must set securityContext.runAsNonRoot=true",
                                     val_str_at(ct, "name", ""));
}

static const char *user_zero(struct inspect *x, const struct val *ct, const struct val *sc)
{
    return val_int_at(sc, "runAsUser", 1) == 0 ? say(x, ct, "not set runAsUser=0") : NULL;
}

static const char *seccomp_set(struct inspect *x, const struct val *ct, const struct val *sc)
{
    const char *type = val_str_at(sc, "seccompProfile.type", val_str_at(x->pod_context, "seccompProfile.type", ""));

    return streq(type, "RuntimeDefault") || streq(type, "Localhost")
               ? NULL : arena_printf(x->a, "pod or container \"%s\" must set securityContext.seccompProfile.type "
                                     "to \"RuntimeDefault\" or \"Localhost\"", val_str_at(ct, "name", ""));
}

static void volume_types(struct inspect *x)
{
    static const char *const fine[] = {"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
                                       "persistentVolumeClaim", "projected", "secret", NULL};

    VAL_EACH(val_get(x->spec, "volumes"), v)
        VAL_EACH_MEMBER(v, m)
            if (!listed(fine, m->key))
                found(x, "restricted volume types (volume \"%s\" uses restricted volume type \"%s\")",
                      val_str_at(v, "name", ""), m->key);
}

/* ---------------------------------------------------------------- */

static void inspect(struct inspect *x, enum level level)
{
    if (level >= BASELINE) {
        host_things(x);
        each_container(x, "privileged", privileged);
        if (level == BASELINE)
            each_container(x, "non-default capabilities", capabilities);
        each_container(x, "hostPort", host_ports);
        each_container(x, "procMount", proc_mount);
        each_container(x, "seLinuxOptions", selinux);
        each_container(x, "forbidden AppArmor profile", apparmor);
        if (level == BASELINE)
            each_container(x, "seccompProfile", seccomp);
    }
    if (level == RESTRICTED) {
        volume_types(x);
        each_container(x, "allowPrivilegeEscalation != false", escalation);
        each_container(x, "unrestricted capabilities", dropped);
        each_container(x, "runAsNonRoot != true", non_root);
        each_container(x, "runAsUser=0", user_zero);
        if (val_int_at(x->pod_context, "runAsUser", 1) == 0)
            found(x, "runAsUser=0 (pod must not set runAsUser=0)");
        each_container(x, "seccompProfile", seccomp_set);
    }
}

/* The pod's spec in an object of this kind, or NULL. */
static const struct val *spec_of(const struct resource *r, const struct val *v)
{
    static const struct {
        const char *group, *plural, *path;
    } kinds[] = {
        {"", "pods", "spec"}, {"", "podtemplates", "template.spec"},
        {"", "replicationcontrollers", "spec.template.spec"}, {"apps", "deployments", "spec.template.spec"},
        {"apps", "replicasets", "spec.template.spec"}, {"apps", "statefulsets", "spec.template.spec"},
        {"apps", "daemonsets", "spec.template.spec"}, {"batch", "jobs", "spec.template.spec"},
        {"batch", "cronjobs", "spec.jobTemplate.spec.template.spec"},
    };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (streq(kinds[i].plural, r->plural) && streq(kinds[i].group, r->group))
            return val_at(v, kinds[i].path);
    return NULL;
}

static char *violations(struct call *c, const struct val *spec, const char *level, const char *version)
{
    struct inspect x = {.a = c->a, .spec = spec, .pod_context = val_get(spec, "securityContext"),
                        .text = {.max = 1 << 14}};
    char *text;

    inspect(&x, level_of(level));
    text = x.n ? arena_printf(c->a, "PodSecurity \"%s:%s\": %s", level, version ? version : "latest", x.text.p)
               : NULL;
    buf_done(&x.text);
    return text;
}

/* "PodSecurity "x": a (b), c (d)" -> "a, c" */
static char *only_titles(char *text)
{
    char *from = strstr(text, "\": "), *to = text;
    int depth = 0;

    for (from = from ? from + 3 : text; *from; from++) {
        if (*from == '(' && to > text && to[-1] == ' ')
            to--;
        depth += *from == '(';
        if (!depth)
            *to++ = *from;
        depth -= *from == ')';
    }
    *to = 0;
    return text;
}

/* Labels of a namespace that mean something here: right words, and what a tighter level would
 * have refused. */
int podsecurity_labels(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    static const char *const modes[] = {"enforce", "audit", "warn"};
    static const char *const levels[] = {"privileged", "baseline", "restricted", NULL};
    const struct val *labels = val_at(v, "metadata.labels");
    const char *ns = val_str_at(v, "metadata.name", ""), *level, *was;
    struct causes bad = {.a = c->a};
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    bool told = false;

    if (*sub)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const char *key = arena_printf(c->a, "pod-security.kubernetes.io/%s", modes[i]);
        const char *vkey = arena_printf(c->a, "%s-version", key);
        const char *has = val_text(val_get(labels, key), NULL), *version = val_text(val_get(labels, vkey), NULL);

        if (has && !listed(levels, has))
            causes_add(&bad, CAUSE_INVALID, arena_printf(c->a, "metadata.labels[%s]", key), val_str(c->a, has),
                       "must be one of privileged, baseline, restricted");
        if (version && !streq(version, "latest") &&
            (strncmp(version, "v1.", 3) != 0 || !version[3] || version[3 + strspn(version + 3, "0123456789")]))
            causes_add(&bad, CAUSE_INVALID, arena_printf(c->a, "metadata.labels[%s]", vkey),
                       val_str(c->a, version), "must be \"latest\" or \"v1.x\"");
    }
    if (bad.n)
        return fail_causes(c, &bad, ns);
    level = val_text(val_get(labels, "pod-security.kubernetes.io/enforce"), NULL);
    was = val_text(val_get(val_at(old, "metadata.labels"), "pod-security.kubernetes.io/enforce"), NULL);
    if (!old || level_of(level) == PRIVILEGED || streq0(level, was) ||
        store_iter_init(&it, c->api->store, table_named(c->api->store, "", "pods"), ns, 0, NULL, NULL, &err) < 0)
        return 0;
    while ((o = store_iter_next(&it))) {
        char *text = violations(c, val_get(obj_val(o), "spec"), level, NULL);

        if (!text)
            continue;
        if (!told)
            texts_add(&c->warnings, "existing pods in namespace \"%s\" violate the new PodSecurity enforce "
                      "level \"%s:latest\"", ns, level);
        told = true;
        texts_add(&c->warnings, "%s: %s", o->name, only_titles(text));
    }
    store_iter_done(&it);
    return 0;
}

int podsecurity_check(struct call *c, const char *sub, const struct val *v, const struct val *old)
{
    const struct val *spec = *sub && !streq(sub, "ephemeralcontainers") ? NULL : spec_of(c->stored, v);
    bool pod = spec && streq(c->stored->plural, "pods");
    const struct obj *ns;
    const char *level;
    char *bad;

    if (!spec || (old && val_equal(spec, spec_of(c->stored, old))))
        return 0;
    ns = store_get(c->api->store, table_named(c->api->store, "", "namespaces"), "", c->path.ns);
    if (!ns)
        return 0;
    level = obj_label(ns, "pod-security.kubernetes.io/enforce");
    if (pod && level && level_of(level) != PRIVILEGED &&
        (bad = violations(c, spec, level, obj_label(ns, "pod-security.kubernetes.io/enforce-version"))))
        return fail_forbidden(c, val_str_at(v, "metadata.name", ""), "violates %s", bad);
    level = obj_label(ns, "pod-security.kubernetes.io/warn");
    if (level && level_of(level) != PRIVILEGED &&
        (bad = violations(c, spec, level, obj_label(ns, "pod-security.kubernetes.io/warn-version"))))
        texts_add(&c->warnings, "would violate %s", bad);
    return 0;
}
