/* schema/warn_pod.c - what of a pod, or a template of pods, is worth a word. */
#include "schema/warn.h"

#include <string.h>

static bool fractional(const struct val *v)
{
    double n = quantity_num(v, 0);

    return n > -9e15 && n < 9e15 && n != (double)(int64_t)n;
}

void warn_fractional(struct texts *w, const char *at, const struct val *list, const char *name)
{
    const struct val *v = val_get(list, name);

    if (v && fractional(v))
        texts_add(w, "%s[%s]: fractional byte value \"%s\" is invalid, must be an integer", at, name,
                  val_text(v, ""));
}

void warn_claim_spec(struct texts *w, const char *at, const struct val *spec)
{
    warn_fractional(w, arena_printf(w->a, "%s.resources.requests", at), val_at(spec, "resources.requests"), "storage");
    warn_fractional(w, arena_printf(w->a, "%s.resources.limits", at), val_at(spec, "resources.limits"), "storage");
}

const char *warn_old_label(const char *key)
{
    static const char *const old[][2] = {
        {"beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"},
        {"beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"},
        {"failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"},
        {"failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"},
        {"beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"}};

    for (uint32_t i = 0; i < ARRAY_LEN(old); i++)
        if (streq(key, old[i][0]))
            return old[i][1];
    return NULL;
}

void warn_node_term(struct texts *w, const char *at, const struct val *term, bool values)
{
    const struct val *list = val_get(term, "matchExpressions");

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *e = &list->items[i], *given = val_get(e, "values");
        const char *key = val_str_at(e, "key", ""), *why = warn_old_label(key);
        if (why)
            texts_add(w, "%s.matchExpressions[%u].key: %s is %s", at, i, key, why);
        for (uint32_t k = 0; k < val_items_n_(given) && values; k++)
            if ((why = name_label_value(val_text(&given->items[k], ""))))
                texts_add(w, "%s.matchExpressions[%u].values[%u]: %s is invalid, %s", at, i, k,
                          val_text(&given->items[k], ""), why);
    }
}

/* ---- volumes: paths that hide each other ---- */

struct path_of {
    const char *path, *source;
};

struct paths {
    struct path_of *v;
    uint32_t n;
};

static bool below(const char *p, const char *dir)
{
    size_t n = strlen(dir);

    return strncmp(p, dir, n) == 0 && (p[n] == '/' || !p[n]);
}

static const char *shown(struct arena *a, const struct path_of *p)
{
    return *p->source ? arena_printf(a, "\"%s\" (%s)", p->path, p->source) : arena_printf(a, "\"%s\"", p->path);
}

static void path_add(struct texts *w, struct paths *seen, const char *volume, const char *what,
                     const char *path, const char *source)
{
    size_t n = strlen(path);

    while (n && path[n - 1] == '/')
        n--;
    struct path_of p = {arena_strndup(w->a, path, n), source};
    for (uint32_t i = 0; i < seen->n && n; i++)
        if (*seen->v[i].path && (below(p.path, seen->v[i].path) || below(seen->v[i].path, p.path)))
            texts_add(w, "volume \"%s\" (%s): overlapping paths: %s with %s", volume, what, shown(w->a, &p),
                      shown(w->a, &seen->v[i]));
    if (!(seen->n & (seen->n - 1))) {
        struct path_of *more = arena_array(w->a, struct path_of, seen->n ? seen->n * 2 : 1);
        if (seen->n)
            memcpy(more, seen->v, seen->n * sizeof(*more));
        seen->v = more;
    }
    seen->v[seen->n++] = p;
}

static void items(struct texts *w, struct paths *seen, const char *volume, const char *what,
                  const struct val *list, const char *source)
{
    VAL_EACH(list, it)
        path_add(w, seen, volume, what, val_str_at(it, "path", ""), source);
}

static void projected(struct texts *w, const char *volume, const struct val *p)
{
    struct paths seen = {0};

    VAL_EACH(val_get(p, "sources"), s) {
        const struct val *cm = val_get(s, "configMap"), *secret = val_get(s, "secret");
        const struct val *token = val_get(s, "serviceAccountToken"), *bundle = val_get(s, "clusterTrustBundle");
        if (!val_len(s)) {
            texts_add(w, "volume \"%s\" (Projected) has no sources provided", volume);
            continue;
        }
        if (cm)
            items(w, &seen, volume, "Projected", val_get(cm, "items"),
                  arena_printf(w->a, "ConfigMap \"%s\"", val_str_at(cm, "name", "")));
        else if (secret)
            items(w, &seen, volume, "Projected", val_get(secret, "items"),
                  arena_printf(w->a, "Secret \"%s\"", val_str_at(secret, "name", "")));
        else if (val_get(s, "downwardAPI"))
            items(w, &seen, volume, "Projected", val_at(s, "downwardAPI.items"), "DownwardAPI");
        else if (token)
            path_add(w, &seen, volume, "Projected", val_str_at(token, "path", ""), "ServiceAccountToken");
        else if (bundle)
            path_add(w, &seen, volume, "Projected", val_str_at(bundle, "path", ""),
                     arena_printf(w->a, "ClusterTrustBundle \"%s\"",
                                  val_str_at(bundle, "name", val_str_at(bundle, "signerName", ""))));
    }
}

static void overlaps(struct texts *w, const struct val *volumes)
{
    VAL_EACH(volumes, v) {
        const struct val *cm = val_get(v, "configMap"), *secret = val_get(v, "secret");
        const char *name = val_str_at(v, "name", "");
        struct paths a = {0}, b = {0}, c = {0};
        if (cm)
            items(w, &a, name, arena_printf(w->a, "ConfigMap \"%s\"", val_str_at(cm, "name", "")),
                  val_get(cm, "items"), "");
        if (secret)
            items(w, &b, name, arena_printf(w->a, "Secret \"%s\"", val_str_at(secret, "secretName", "")),
                  val_get(secret, "items"), "");
        if (val_get(v, "downwardAPI"))
            items(w, &c, name, "DownwardAPI", val_at(v, "downwardAPI.items"), "");
        if (val_get(v, "projected"))
            projected(w, name, val_get(v, "projected"));
    }
}

static void volumes(struct texts *w, const char *at, const struct val *list)
{
    static const char *const old[][2] = {
        {"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
        {"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
        {"scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
        {"flocker", "deprecated in v1.22, non-functional in v1.25+"},
        {"storageos", "deprecated in v1.22, non-functional in v1.25+"},
        {"quobyte", "deprecated in v1.22, non-functional in v1.25+"},
        {"glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
        {"cephfs", "deprecated in v1.28, non-functional in v1.31+"},
        {"rbd", "deprecated in v1.28, non-functional in v1.31+"}};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *v = &list->items[i];
        for (uint32_t k = 0; k < ARRAY_LEN(old); k++)
            if (val_get(v, old[k][0]))
                texts_add(w, "%s.volumes[%u].%s: %s", at, i,
                          streq(old[k][0], "storageos") ? "storageOS" : old[k][0], old[k][1]);
        if (val_at(v, "ephemeral.volumeClaimTemplate"))
            warn_claim_spec(w, arena_printf(w->a, "%s.volumes[%u].ephemeral.volumeClaimTemplate.spec", at, i),
                            val_at(v, "ephemeral.volumeClaimTemplate.spec"));
    }
    overlaps(w, list);
}

/* ---- containers ---- */

/* All containers in the order upstream visits them. */
static const char *const lists[] = {"initContainers", "containers", "ephemeralContainers"};

static void env(struct texts *w, const char *at, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *e = &list->items[i];
        const char *name = val_str_at(e, "name", ""), *value = val_str_at(e, "value", "");
        const char *ref = arena_printf(w->a, "$(%s)", name);
        bool again = false;
        for (uint32_t k = 0; k < i && !again; k++)
            again = streq(name, val_str_at(&list->items[k], "name", ""));
        if (again && (val_get(e, "valueFrom") || streq(value, ref) || !strstr(value, ref)))
            texts_add(w, "%s.env[%u]: hides previous definition of \"%s\", which may be dropped when using apply",
                      at, i, name);
    }
}

static void port_pair(struct texts *w, const char *at, const struct val *p, const char *oat, const struct val *o)
{
    const char *ip = val_str_at(p, "hostIP", ""), *oip = val_str_at(o, "hostIP", "");
    int64_t host = val_int_at(p, "hostPort", 0), ohost = val_int_at(o, "hostPort", 0);

    if (val_int_at(p, "containerPort", 0) != val_int_at(o, "containerPort", 0) ||
        !streq(val_str_at(p, "protocol", ""), val_str_at(o, "protocol", "")))
        return;
    if (streq(ip, oip) && host == ohost)
        texts_add(w, "%s: duplicate port definition with %s", at, oat);
    else if (!host || !ohost)
        texts_add(w, "%s: overlapping port definition with %s", at, oat);
    else if (host == ohost && !*ip != !*oip)
        texts_add(w, "%s: dangerously ambiguous port definition with %s", at, oat);
}

static void ports(struct texts *w, const char *at, const struct val *spec)
{
    struct seen {
        const char *at;
        const struct val *p;
    } *seen;
    uint32_t n = 0, all = 0;

    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++)
        VAL_EACH(val_get(spec, lists[l]), c)
            all += val_len(val_get(c, "ports"));
    if (all < 1 || all > 1000)
        return;
    seen = arena_array(w->a, struct seen, all);
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(spec, lists[l]);
        for (uint32_t i = 0; i < val_items_n_(list); i++) {
            const struct val *ps = val_get(&list->items[i], "ports");
            for (uint32_t k = 0; k < val_items_n_(ps); k++)
                seen[n++] = (struct seen){arena_printf(w->a, "%s.%s[%u].ports[%u]", at, lists[l], i, k),
                                          &ps->items[k]};
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (*val_str_at(seen[i].p, "hostIP", "") && !val_int_at(seen[i].p, "hostPort", 0))
            texts_add(w, "%s: hostIP set without hostPort", seen[i].at);
        for (uint32_t k = 0; k < i; k++)
            port_pair(w, seen[i].at, seen[i].p, seen[k].at, seen[k].p);
    }
    for (uint32_t i = 0; i < n; i++) {
        const char *name = val_str_at(seen[i].p, "name", "");
        for (uint32_t k = 0; k < i && *name; k++)
            if (streq(name, val_str_at(seen[k].p, "name", ""))) {
                texts_add(w, "%s: duplicate port name \"%s\" with %s, services and probes that select ports by "
                             "name will use %s", seen[i].at, name, seen[k].at, seen[k].at);
                break;
            }
    }
}

static void container(struct texts *w, const char *at, const struct val *c, const struct val *notes,
                      const char *meta, bool template, const struct val *spec)
{
    static const char *const sides[] = {"limits", "requests"}, *const bytes[] = {"memory", "ephemeral-storage"};
    const char *name = val_str_at(c, "name", ""), *key;

    key = arena_printf(w->a, "container.seccomp.security.alpha.kubernetes.io/%s", name);
    if (val_get(notes, key) && !val_at(c, "securityContext.seccompProfile"))
        texts_add(w, "%s.annotations[%s]: non-functional in v1.27+; use the \"seccompProfile\" field instead", meta, key);
    key = arena_printf(w->a, "container.apparmor.security.beta.kubernetes.io/%s", name);
    if (template && val_get(notes, key) && !val_at(c, "securityContext.appArmorProfile") &&
        !val_at(spec, "securityContext.appArmorProfile"))
        texts_add(w, "%s.annotations[%s]: deprecated since v1.30; use the \"appArmorProfile\" field instead", meta, key);
    for (uint32_t b = 0; b < ARRAY_LEN(bytes); b++)
        for (uint32_t s = 0; s < ARRAY_LEN(sides); s++)
            warn_fractional(w, arena_printf(w->a, "%s.resources.%s", at, sides[s]),
                            val_get(val_get(c, "resources"), sides[s]), bytes[b]);
    env(w, at, val_get(c, "env"));
}

/* ---- the rest ---- */

static void annotations(struct texts *w, const char *meta, const struct val *notes)
{
    static const char *const old[][2] = {
        {"scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"},
        {"security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"},
        {"security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"}};

    for (uint32_t i = 0; i < ARRAY_LEN(old); i++)
        if (val_get(notes, old[i][0]))
            texts_add(w, "%s.annotations[%s]: %s", meta, old[i][0], old[i][1]);
}

static const char need[] = "requiredDuringSchedulingIgnoredDuringExecution";
static const char like[] = "preferredDuringSchedulingIgnoredDuringExecution";

static void node_affinity(struct texts *w, const char *at, const struct val *node)
{
    const struct val *terms = val_get(val_get(node, need), "nodeSelectorTerms");

    for (uint32_t i = 0; i < val_items_n_(terms); i++)
        warn_node_term(w, arena_printf(w->a, "%s.%s.nodeSelectorTerms[%u]", at, need, i), &terms->items[i], false);
    terms = val_get(node, like);
    for (uint32_t i = 0; i < val_items_n_(terms); i++)
        warn_node_term(w, arena_printf(w->a, "%s.%s[%u].preference", at, like, i),
                       val_get(&terms->items[i], "preference"), true);
}

static void pod_affinity(struct texts *w, const char *at, const struct val *of)
{
    const struct val *must = val_get(of, need), *may = val_get(of, like);

    for (uint32_t i = 0; i < val_items_n_(must); i++)
        if (!val_get(&must->items[i], "labelSelector"))
            texts_add(w, "%s.%s[%u].labelSelector: a null labelSelector results in matching no pod", at, need, i);
    for (uint32_t i = 0; i < val_items_n_(may); i++)
        if (!val_at(&may->items[i], "podAffinityTerm.labelSelector"))
            texts_add(w, "%s.%s[%u].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
                      at, like, i);
}

static void doubles(struct texts *w, const char *at, const struct val *list, const char *key)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *x = val_str_at(&list->items[i], key, "");
        for (uint32_t k = 0; k < i; k++)
            if (streq(x, val_str_at(&list->items[k], key, ""))) {
                texts_add(w, "%s[%u].%s: duplicate %s \"%s\"", at, i, key, key, x);
                break;
            }
    }
}

void warn_pod(struct texts *w, const char *root, const struct val *meta, const struct val *spec)
{
    struct arena *a = w->a;
    const struct val *notes = val_get(meta, "annotations"), *spread = val_get(spec, "topologySpreadConstraints");
    const struct val *secrets = val_get(spec, "imagePullSecrets"), *aliases = val_get(spec, "hostAliases");
    const struct val *servers = val_at(spec, "dnsConfig.nameservers"), *grace = val_get(spec, "terminationGracePeriodSeconds");
    const char *at = arena_printf(a, "%s%sspec", root, *root ? "." : ""), *why;
    const char *meta_at = arena_printf(a, "%s%smetadata", root, *root ? "." : "");

    VAL_EACH_MEMBER(val_get(spec, "nodeSelector"), m)
        if ((why = warn_old_label(m->key)))
            texts_add(w, "%s.nodeSelector[%s]: %s", at, m->key, why);
    node_affinity(w, arena_printf(a, "%s.affinity.nodeAffinity", at), val_at(spec, "affinity.nodeAffinity"));
    for (uint32_t i = 0; i < val_items_n_(spread); i++) {
        const char *key = val_str_at(&spread->items[i], "topologyKey", "");
        if ((why = warn_old_label(key)))
            texts_add(w, "%s.topologySpreadConstraints[%u].topologyKey: %s is %s", at, i, key, why);
        if (!val_get(&spread->items[i], "labelSelector"))
            texts_add(w, "%s.topologySpreadConstraints[%u].labelSelector: a null labelSelector results in "
                         "matching no pod", at, i);
    }
    annotations(w, meta_at, notes);
    volumes(w, at, val_get(spec, "volumes"));
    doubles(w, arena_printf(a, "%s.hostAliases", at), aliases, "ip");
    doubles(w, arena_printf(a, "%s.imagePullSecrets", at), secrets, "name");
    for (uint32_t i = 0; i < val_items_n_(secrets); i++)
        if (!*val_str_at(&secrets->items[i], "name", ""))
            texts_add(w, "%s.imagePullSecrets[%u].name: invalid empty name \"\"", at, i);
    warn_fractional(w, arena_printf(a, "%s.overhead", at), val_get(spec, "overhead"), "memory");
    warn_fractional(w, arena_printf(a, "%s.overhead", at), val_get(spec, "overhead"), "ephemeral-storage");
    if (val_get(notes, "seccomp.security.alpha.kubernetes.io/pod") && !val_at(spec, "securityContext.seccompProfile"))
        texts_add(w, "%s.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "
                     "\"seccompProfile\" field instead", meta_at);
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(spec, lists[l]);
        for (uint32_t i = 0; i < val_items_n_(list); i++)
            container(w, arena_printf(a, "%s.%s[%u]", at, lists[l], i), &list->items[i], notes, meta_at, *root != 0,
                      spec);
    }
    ports(w, at, spec);
    if (*root && val_is(grace, VAL_INT) && grace->i < 0) /* of a pod it is set right */
        texts_add(w, "%s.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be "
                     "treated as 1", at);
    pod_affinity(w, arena_printf(a, "%s.affinity.podAffinity", at), val_at(spec, "affinity.podAffinity"));
    pod_affinity(w, arena_printf(a, "%s.affinity.podAntiAffinity", at), val_at(spec, "affinity.podAntiAffinity"));
    for (uint32_t i = 0; i < val_items_n_(servers); i++)
        warn_ip(w, arena_printf(a, "%s.dnsConfig.nameservers[%u]", at, i), val_text(&servers->items[i], ""));
    for (uint32_t i = 0; i < val_items_n_(aliases); i++)
        warn_ip(w, arena_printf(a, "%s.hostAliases[%u].ip", at, i), val_str_at(&aliases->items[i], "ip", ""));
}
