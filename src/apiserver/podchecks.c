/* apiserver/podchecks.c - the checks of the Pod Security Standards. CHECKS says which of them a level has in
 * which version; each looks at a pod and says what is wrong. */
#include "apiserver/podchecks.h"

#include "base/buf.h"

enum { NAMES_MAX = 256 };

struct names { /* a list, or a set in the order of the text */
    const char *v[NAMES_MAX];
    uint32_t n;
};
struct look {
    struct arena *a;
    const struct val *meta, *spec, *context; /* context: spec.securityContext */
    int minor;
    struct names bad; /* containers */
    struct names values;
    bool pod; /* the pod itself says something bad */
    const char *title;
};

static void add(struct names *l, const char *s)
{
    if (l->n < NAMES_MAX)
        l->v[l->n++] = s;
}

static void add_once(struct names *l, const char *s)
{
    uint32_t i = 0;

    while (i < l->n && strcmp(l->v[i], s) < 0)
        i++;
    if ((i < l->n && streq(l->v[i], s)) || l->n >= NAMES_MAX)
        return;
    memmove(&l->v[i + 1], &l->v[i], (l->n - i) * sizeof(l->v[0]));
    l->v[i] = s;
    l->n++;
}

static const char *joined(struct arena *a, const struct names *l, const char *quote)
{
    struct buf b = {.max = 1 << 16};
    char *text;

    for (uint32_t i = 0; i < l->n; i++)
        buf_printf(&b, "%s%s%s%s", i ? ", " : "", quote, l->v[i], quote);
    text = arena_strdup(a, b.n ? b.p : "");
    buf_done(&b);
    return text;
}

static const char *quoted(struct look *x, const struct names *l)
{
    return joined(x->a, l, "\"");
}

static const char *many(const struct names *l, const char *one, const char *more)
{
    return l->n == 1 ? one : more;
}

/* "container "a"", "containers "a", "b"" */
static const char *containers(struct look *x, const struct names *l)
{
    return arena_printf(x->a, "%s %s", many(l, "container", "containers"), quoted(x, l));
}

/* "pod", "container "a"", "pod and container "a"" */
static const char *setters(struct look *x)
{
    return !x->bad.n ? "pod" : !x->pod ? containers(x, &x->bad) : arena_printf(x->a, "pod and %s", containers(x, &x->bad));
}

static bool listed(const char *const *list, const char *s)
{
    for (; *list; list++)
        if (streq(*list, s))
            return true;
    return false;
}

#define EACH_CONTAINER(x, ct)                                                                      \
    for (int i_ = 0; i_ < 3; i_++)                                                                 \
        VAL_EACH(val_get((x)->spec, container_lists[i_]), ct)
static const char *const container_lists[] = {"initContainers", "containers", "ephemeralContainers"};

static const char *name_of(const struct val *ct)
{
    return val_str_at(ct, "name", "");
}

/* A field of the security context that may not be true. */
static void bad_flags(struct look *x, const char *path)
{
    EACH_CONTAINER(x, ct)
        if (val_bool_at(val_get(ct, "securityContext"), path, false))
            add(&x->bad, name_of(ct));
    x->pod = val_bool_at(x->context, path, false);
}

static bool windows(const struct look *x, int since)
{
    return x->minor >= since && streq(val_str_at(x->spec, "os.name", ""), "windows");
}

/* Pods in a user namespace of their own may do more. */
static bool own_users(const struct look *x)
{
    return x->minor >= 35 && !val_bool_at(x->spec, "hostUsers", true);
}

/* ---------------------------------------------------------------- baseline */

static const char *app_armor(struct look *x)
{
    static const char *const fine[] = {"RuntimeDefault", "Localhost", NULL};
    const char *type = val_str_at(x->context, "appArmorProfile.type", "");
    struct names notes = {0};
    struct buf who = {.max = 1 << 14};
    const char *text;

    if (val_get(x->context, "appArmorProfile") && !listed(fine, type)) {
        x->pod = true;
        add_once(&x->values, type);
    }
    EACH_CONTAINER(x, ct) {
        const struct val *p = val_at(ct, "securityContext.appArmorProfile");

        if (p && !listed(fine, val_str_at(p, "type", ""))) {
            add(&x->bad, name_of(ct));
            add_once(&x->values, val_str_at(p, "type", ""));
        }
    }
    VAL_EACH_MEMBER(val_get(x->meta, "annotations"), m) {
        const char *s = val_text(&m->v, "");

        if (str_starts(m->key, "container.apparmor.security.beta.kubernetes.io/") && *s &&
            !streq(s, "runtime/default") && !str_starts(s, "localhost/"))
            add_once(&notes, arena_printf(x->a, "%s=\"%s\"", m->key, s));
    }
    if (!x->pod && !x->bad.n && !notes.n)
        return NULL;
    buf_adds(&who, x->pod || x->bad.n ? setters(x) : "");
    if (notes.n)
        buf_printf(&who, "%s%s", who.n ? " and " : "", many(&notes, "annotation", "annotations"));
    for (uint32_t i = 0; i < notes.n; i++)
        add(&x->values, notes.v[i]);
    x->title = many(&x->values, "forbidden AppArmor profile", "forbidden AppArmor profiles");
    text = arena_printf(x->a, "%s must not set AppArmor profile type to %s", who.p, quoted(x, &x->values));
    buf_done(&who);
    return text;
}

static const char *capabilities(struct look *x)
{
    static const char *const fine[] = {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", NULL};

    EACH_CONTAINER(x, ct) {
        bool bad = false;

        VAL_EACH(val_at(ct, "securityContext.capabilities.add"), cap)
            if (!listed(fine, val_text(cap, ""))) {
                bad = true;
                add_once(&x->values, val_text(cap, ""));
            }
        if (bad)
            add(&x->bad, name_of(ct));
    }
    return x->bad.n ? arena_printf(x->a, "%s must not include %s in securityContext.capabilities.add",
                                   containers(x, &x->bad), quoted(x, &x->values)) : NULL;
}

static const char *host_namespaces(struct look *x)
{
    static const char *const keys[] = {"hostNetwork", "hostPID", "hostIPC"};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (val_bool_at(x->spec, keys[i], false))
            add(&x->values, arena_printf(x->a, "%s=true", keys[i]));
    return x->values.n ? joined(x->a, &x->values, "") : NULL;
}

static const char *host_paths(struct look *x)
{
    VAL_EACH(val_get(x->spec, "volumes"), v)
        if (val_get(v, "hostPath"))
            add(&x->values, val_str_at(v, "name", ""));
    return x->values.n ? arena_printf(x->a, "%s %s", many(&x->values, "volume", "volumes"), quoted(x, &x->values)) : NULL;
}

static const char *host_ports(struct look *x)
{
    EACH_CONTAINER(x, ct) {
        bool bad = false;

        VAL_EACH(val_get(ct, "ports"), p) {
            int64_t port = val_int_at(p, "hostPort", 0);

            if (!port)
                continue;
            bad = true;
            add_once(&x->values, arena_printf(x->a, "%lld", (long long)port));
        }
        if (bad)
            add(&x->bad, name_of(ct));
    }
    return x->bad.n ? arena_printf(x->a, "%s %s %s %s", containers(x, &x->bad), many(&x->bad, "uses", "use"),
                                   many(&x->values, "hostPort", "hostPorts"), joined(x->a, &x->values, "")) : NULL;
}

static const char *host_probes(struct look *x)
{
    static const char *const places[] = {"livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart",
                                         "lifecycle.preStop"};
    static const char *const hosts[] = {"httpGet.host", "tcpSocket.host"};

    EACH_CONTAINER(x, ct)
        for (size_t i = 0; i < ARRAY_LEN(places) * ARRAY_LEN(hosts); i++) {
            const char *s = val_str_at(val_at(ct, places[i / 2]), hosts[i % 2], "");

            if (*s) {
                add_once(&x->bad, name_of(ct));
                add_once(&x->values, s);
            }
        }
    return x->bad.n ? arena_printf(x->a, "%s %s %s %s", containers(x, &x->bad), many(&x->bad, "uses", "use"),
                                   many(&x->values, "probe or lifecycle host", "probe or lifecycle hosts"),
                                   quoted(x, &x->values)) : NULL;
}

static const char *privileged(struct look *x)
{
    bad_flags(x, "privileged");
    return x->bad.n ? arena_printf(x->a, "%s must not set securityContext.privileged=true", containers(x, &x->bad)) : NULL;
}

static const char *proc_mount_all(struct look *x)
{
    EACH_CONTAINER(x, ct) {
        const char *s = val_str_at(ct, "securityContext.procMount", "Default");

        if (!streq(s, "Default")) {
            add(&x->bad, name_of(ct));
            add_once(&x->values, s);
        }
    }
    return x->bad.n ? arena_printf(x->a, "%s must not set securityContext.procMount to %s", containers(x, &x->bad),
                                   quoted(x, &x->values)) : NULL;
}

static const char *proc_mount(struct look *x)
{
    return own_users(x) ? NULL : proc_mount_all(x);
}

static bool selinux_bad(struct look *x, const struct val *o, bool *user, bool *role)
{
    static const char *const types[] = {"", "container_t", "container_init_t", "container_kvm_t", NULL};
    const char *type = val_str_at(o, "type", "");
    bool bad = !listed(types, type) && !(x->minor >= 31 && streq(type, "container_engine_t"));

    if (bad)
        add_once(&x->values, type);
    *user |= *val_str_at(o, "user", "") != 0;
    *role |= *val_str_at(o, "role", "") != 0;
    return bad || *val_str_at(o, "user", "") || *val_str_at(o, "role", "");
}

static const char *selinux(struct look *x)
{
    bool user = false, role = false;
    struct names data = {0};

    x->pod = selinux_bad(x, val_get(x->context, "seLinuxOptions"), &user, &role);
    EACH_CONTAINER(x, ct)
        if (selinux_bad(x, val_at(ct, "securityContext.seLinuxOptions"), &user, &role))
            add(&x->bad, name_of(ct));
    if (!x->pod && !x->bad.n)
        return NULL;
    if (x->values.n)
        add(&data, arena_printf(x->a, "%s %s", many(&x->values, "type", "types"), quoted(x, &x->values)));
    if (user)
        add(&data, "user may not be set");
    if (role)
        add(&data, "role may not be set");
    return arena_printf(x->a, "%s set forbidden securityContext.seLinuxOptions: %s%s%s%s%s", setters(x), data.v[0],
                        data.n > 1 ? "; " : "", data.n > 1 ? data.v[1] : "", data.n > 2 ? "; " : "",
                        data.n > 2 ? data.v[2] : "");
}

static void seccomp_note(struct look *x, const char *key)
{
    const char *s = val_text(val_get(val_get(x->meta, "annotations"), key), NULL);

    if (s && !streq(s, "runtime/default") && !streq(s, "docker/default") && !str_starts(s, "localhost/"))
        add_once(&x->values, arena_printf(x->a, "%s=\"%s\"", key, s));
}

static const char *seccomp_notes(struct look *x)
{
    seccomp_note(x, "seccomp.security.alpha.kubernetes.io/pod");
    EACH_CONTAINER(x, ct)
        seccomp_note(x, arena_printf(x->a, "container.seccomp.security.alpha.kubernetes.io/%s", name_of(ct)));
    return x->values.n ? arena_printf(x->a, "forbidden %s %s", many(&x->values, "annotation", "annotations"),
                                      joined(x->a, &x->values, "")) : NULL;
}

/* Those that say something bad; in quiet those that say nothing. */
static void seccomp_look(struct look *x, bool *ret_pod_set, struct names *quiet)
{
    static const char *const fine[] = {"RuntimeDefault", "Localhost", NULL};
    const struct val *p = val_get(x->context, "seccompProfile");
    const char *type = val_str_at(p, "type", "");

    *ret_pod_set = p && listed(fine, type);
    if (p && !*ret_pod_set) {
        x->pod = true;
        add_once(&x->values, type);
    }
    EACH_CONTAINER(x, ct) {
        p = val_at(ct, "securityContext.seccompProfile");
        if (!p) {
            add(quiet, name_of(ct));
        } else if (!listed(fine, val_str_at(p, "type", ""))) {
            add(&x->bad, name_of(ct));
            add_once(&x->values, val_str_at(p, "type", ""));
        }
    }
}

static const char *seccomp_bad(struct look *x)
{
    return arena_printf(x->a, "%s must not set securityContext.seccompProfile.type to %s", setters(x), quoted(x, &x->values));
}

static const char *seccomp(struct look *x)
{
    struct names quiet = {0};
    bool set;

    seccomp_look(x, &set, &quiet);
    return x->pod || x->bad.n ? seccomp_bad(x) : NULL;
}

static const char *sysctls(struct look *x)
{
    static const struct {
        const char *name;
        int since;
    } fine[] = {
        {"kernel.shm_rmid_forced", 0}, {"net.ipv4.ip_local_port_range", 0}, {"net.ipv4.tcp_syncookies", 0},
        {"net.ipv4.ping_group_range", 0}, {"net.ipv4.ip_unprivileged_port_start", 0},
        {"net.ipv4.ip_local_reserved_ports", 27}, {"net.ipv4.tcp_keepalive_time", 29},
        {"net.ipv4.tcp_fin_timeout", 29}, {"net.ipv4.tcp_keepalive_intvl", 29},
        {"net.ipv4.tcp_keepalive_probes", 29}, {"net.ipv4.tcp_rmem", 32}, {"net.ipv4.tcp_wmem", 32},
    };

    VAL_EACH(val_get(x->context, "sysctls"), s) {
        bool ok = false;

        for (size_t i = 0; i < ARRAY_LEN(fine); i++)
            ok |= x->minor >= fine[i].since && streq(fine[i].name, name_of(s));
        if (!ok)
            add(&x->values, name_of(s));
    }
    return x->values.n ? joined(x->a, &x->values, "") : NULL;
}

static const char *host_process(struct look *x)
{
    bad_flags(x, "windowsOptions.hostProcess");
    return x->pod || x->bad.n ? arena_printf(x->a, "%s must not set securityContext.windowsOptions.hostProcess=true",
                                             setters(x)) : NULL;
}

/* ---------------------------------------------------------------- restricted */

static const char *escalation(struct look *x)
{
    if (windows(x, 25))
        return NULL;
    EACH_CONTAINER(x, ct)
        if (val_bool_at(ct, "securityContext.allowPrivilegeEscalation", true))
            add(&x->bad, name_of(ct));
    return x->bad.n ? arena_printf(x->a, "%s must set securityContext.allowPrivilegeEscalation=false",
                                   containers(x, &x->bad)) : NULL;
}

static const char *capabilities_few(struct look *x)
{
    struct names adding = {0};
    const char *drop, *more;

    if (windows(x, 25))
        return NULL;
    EACH_CONTAINER(x, ct) {
        bool all = false, bad = false;

        VAL_EACH(val_at(ct, "securityContext.capabilities.drop"), cap)
            all |= streq(val_text(cap, ""), "ALL");
        if (!all)
            add(&x->bad, name_of(ct));
        VAL_EACH(val_at(ct, "securityContext.capabilities.add"), cap)
            if (!streq(val_text(cap, ""), "NET_BIND_SERVICE")) {
                bad = true;
                add_once(&x->values, val_text(cap, ""));
            }
        if (bad)
            add(&adding, name_of(ct));
    }
    drop = x->bad.n ? arena_printf(x->a, "%s must set securityContext.capabilities.drop=[\"ALL\"]",
                                   containers(x, &x->bad)) : "";
    more = adding.n ? arena_printf(x->a, "%s must not include %s in securityContext.capabilities.add",
                                   containers(x, &adding), quoted(x, &x->values)) : "";
    return *drop || *more ? arena_printf(x->a, "%s%s%s", drop, *drop && *more ? "; " : "", more) : NULL;
}

static const char *volume_types(struct look *x)
{
    static const char *const fine[] = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
                                       "persistentVolumeClaim", "projected", "secret", NULL};

    VAL_EACH(val_get(x->spec, "volumes"), v) {
        const char *type = "unknown";

        VAL_EACH_MEMBER(v, m)
            if (!streq(m->key, "name"))
                type = m->key;
        if (listed(fine, type))
            continue;
        add(&x->bad, name_of(v));
        add_once(&x->values, type);
    }
    return x->bad.n ? arena_printf(x->a, "%s %s %s %s %s", many(&x->bad, "volume", "volumes"), quoted(x, &x->bad),
                                   many(&x->bad, "uses", "use"),
                                   many(&x->values, "restricted volume type", "restricted volume types"),
                                   quoted(x, &x->values)) : NULL;
}

static const char *non_root(struct look *x)
{
    const struct val *pod = val_get(x->context, "runAsNonRoot");
    struct names quiet = {0};

    if (own_users(x))
        return NULL;
    x->pod = val_is(pod, VAL_BOOL) && !pod->b;
    EACH_CONTAINER(x, ct) {
        const struct val *own = val_at(ct, "securityContext.runAsNonRoot");

        if (val_is(own, VAL_BOOL) && !own->b)
            add(&x->bad, name_of(ct));
        else if (!own && !(val_is(pod, VAL_BOOL) && pod->b))
            add(&quiet, name_of(ct));
    }
    if (x->pod || x->bad.n)
        return arena_printf(x->a, "%s must not set securityContext.runAsNonRoot=false", setters(x));
    return quiet.n ? arena_printf(x->a, "pod or %s must set securityContext.runAsNonRoot=true", containers(x, &quiet)) : NULL;
}

static const char *user_zero(struct look *x)
{
    if (own_users(x))
        return NULL;
    x->pod = val_int_at(x->context, "runAsUser", 1) == 0;
    EACH_CONTAINER(x, ct)
        if (val_int_at(ct, "securityContext.runAsUser", 1) == 0)
            add(&x->bad, name_of(ct));
    return x->pod || x->bad.n ? arena_printf(x->a, "%s must not set runAsUser=0", setters(x)) : NULL;
}

static const char *seccomp_set(struct look *x)
{
    struct names quiet = {0};
    bool set;

    if (windows(x, 25))
        return NULL;
    seccomp_look(x, &set, &quiet);
    if (x->pod || x->bad.n)
        return seccomp_bad(x);
    return !set && quiet.n ? arena_printf(x->a, "pod or %s must set securityContext.seccompProfile.type to \"RuntimeDefault\" "
                                          "or \"Localhost\"", containers(x, &quiet)) : NULL;
}

/* ---------------------------------------------------------------- the table */

/* In the order in which they are told. A check is in versions from <= v < to; not_from: the restricted
 * level has a stricter one of its own since that version. */
static const struct {
    const char *title;
    enum pod_level level;
    int from, to, not_from;
    const char *(*fn)(struct look *x);
} CHECKS[] = {
    {"", POD_BASELINE, 0, POD_LATEST, POD_LATEST, app_armor},
    {"non-default capabilities", POD_BASELINE, 0, POD_LATEST, 22, capabilities},
    {"host namespaces", POD_BASELINE, 0, POD_LATEST, POD_LATEST, host_namespaces},
    {"hostPath volumes", POD_BASELINE, 0, POD_LATEST, 0, host_paths},
    {"hostPort", POD_BASELINE, 0, POD_LATEST, POD_LATEST, host_ports},
    {"probe or lifecycle host", POD_BASELINE, 34, POD_LATEST, POD_LATEST, host_probes},
    {"privileged", POD_BASELINE, 0, POD_LATEST, POD_LATEST, privileged},
    {"procMount", POD_BASELINE, 0, POD_LATEST, 35, proc_mount},
    {"seLinuxOptions", POD_BASELINE, 0, POD_LATEST, POD_LATEST, selinux},
    {"seccompProfile", POD_BASELINE, 0, 19, 19, seccomp_notes},
    {"seccompProfile", POD_BASELINE, 19, POD_LATEST, 19, seccomp},
    {"forbidden sysctls", POD_BASELINE, 0, POD_LATEST, POD_LATEST, sysctls},
    {"hostProcess", POD_BASELINE, 0, POD_LATEST, POD_LATEST, host_process},
    {"allowPrivilegeEscalation != false", POD_RESTRICTED, 8, POD_LATEST, POD_LATEST, escalation},
    {"unrestricted capabilities", POD_RESTRICTED, 22, POD_LATEST, POD_LATEST, capabilities_few},
    {"procMount", POD_RESTRICTED, 35, POD_LATEST, POD_LATEST, proc_mount_all},
    {"restricted volume types", POD_RESTRICTED, 0, POD_LATEST, POD_LATEST, volume_types},
    {"runAsNonRoot != true", POD_RESTRICTED, 0, POD_LATEST, POD_LATEST, non_root},
    {"runAsUser=0", POD_RESTRICTED, 23, POD_LATEST, POD_LATEST, user_zero},
    {"seccompProfile", POD_RESTRICTED, 19, POD_LATEST, POD_LATEST, seccomp_set},
};

enum { NEWEST = 35 }; /* the last version that changed a check */

bool pod_violates(struct arena *a, struct pod_policy p, const struct val *meta, const struct val *spec,
                  const char **ret_detail, const char **ret_reason)
{
    struct buf detail = {.max = 1 << 16}, reason = {.max = 1 << 14};
    int v = MIN(p.minor, (int)NEWEST);
    bool any;

    for (size_t i = 0; p.level != POD_PRIVILEGED && i < ARRAY_LEN(CHECKS); i++) {
        struct look x = {.a = a, .meta = meta, .spec = spec, .context = val_get(spec, "securityContext"),
                         .minor = v, .title = CHECKS[i].title};
        const char *bad;

        if (CHECKS[i].level > p.level || v < CHECKS[i].from || v >= CHECKS[i].to ||
            (p.level == POD_RESTRICTED && v >= CHECKS[i].not_from) || !(bad = CHECKS[i].fn(&x)))
            continue;
        buf_printf(&detail, "%s%s (%s)", detail.n ? ", " : "", x.title, bad);
        buf_printf(&reason, "%s%s", reason.n ? ", " : "", x.title);
    }
    any = detail.n > 0;
    if (any && ret_detail)
        *ret_detail = arena_strdup(a, detail.p);
    if (any && ret_reason)
        *ret_reason = arena_strdup(a, reason.p);
    buf_done(&detail);
    buf_done(&reason);
    return any;
}

/* ---------------------------------------------------------------- words */

static const char *const levels[] = {"privileged", "baseline", "restricted"};

bool pod_level_parse(const char *s, enum pod_level *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (streq(levels[i], s)) {
            *ret = (enum pod_level)i;
            return true;
        }
    *ret = POD_RESTRICTED;
    return false;
}

bool pod_version_parse(const char *s, int *ret_minor)
{
    size_t n = str_starts(s, "v1.") ? strspn(s + 3, "0123456789") : 0;

    *ret_minor = POD_LATEST;
    if (streq(s, "latest"))
        return true;
    if (!n || n > 4 || s[3 + n] || (n > 1 && s[3] == '0'))
        return false;
    *ret_minor = atoi(s + 3);
    return true;
}

const char *pod_policy_text(struct arena *a, struct pod_policy p)
{
    return p.minor == POD_LATEST ? arena_printf(a, "%s:latest", levels[p.level])
                                 : arena_printf(a, "%s:v1.%d", levels[p.level], p.minor);
}
