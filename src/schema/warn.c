/* schema/warn.c - what is allowed and yet worth a word (`Warning:` headers of writes). */
#include "schema/schema_int.h"

static void fractional(struct texts *w, struct arena *a, const char *at, const struct val *list)
{
    (void)a;
    VAL_EACH_MEMBER(list, m) {
        bool bytes = streq(m->key, "memory") || streq(m->key, "storage") ||
                     streq(m->key, "ephemeral-storage");
        double n = quantity_num(&m->v, 0);
        if (bytes && n != (double)(int64_t)n)
            texts_add(w, "%s[%s]: fractional byte value \"%s\" is invalid, must be an integer", at,
                      m->key, val_text(&m->v, ""));
    }
}

static void doubles(struct texts *w, const char *at, const struct val *list, const char *key,
                    const char *what)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++)
        for (uint32_t k = 0; k < i; k++) {
            const char *x = val_str_at(&list->items[i], key, ""), *y = val_str_at(&list->items[k], key, "");
            if (streq(x, y)) {
                texts_add(w, "%s[%u].%s: duplicate %s \"%s\"", at, i, key, what, x);
                break;
            }
        }
}

static void container(struct texts *w, struct arena *a, const char *at, const struct val *c)
{
    const struct val *env = val_get(c, "env"), *ports = val_get(c, "ports");

    for (uint32_t i = 0; i < val_items_n_(env); i++)
        for (uint32_t k = 0; k < i; k++)
            if (streq(val_str_at(&env->items[i], "name", ""), val_str_at(&env->items[k], "name", ""))) {
                texts_add(w, "%s.env[%u]: hides previous definition of \"%s\", which may be dropped "
                             "when using apply", at, i, val_str_at(&env->items[i], "name", ""));
                break;
            }
    for (uint32_t i = 0; i < val_items_n_(ports); i++)
        for (uint32_t k = 0; k < i; k++)
            if (val_int_at(&ports->items[i], "containerPort", 0) == val_int_at(&ports->items[k], "containerPort", 0) &&
                streq(val_str_at(&ports->items[i], "protocol", ""), val_str_at(&ports->items[k], "protocol", ""))) {
                texts_add(w, "%s.ports[%u]: duplicate port definition with \"%s.ports[%u]\"", at, i, at, k);
                break;
            }
    fractional(w, a, arena_printf(a, "%s.resources.limits", at), val_at(c, "resources.limits"));
    fractional(w, a, arena_printf(a, "%s.resources.requests", at), val_at(c, "resources.requests"));
}

static void node_labels(struct texts *w, const char *at, const struct val *map)
{
    static const char *const old[][2] = {{"beta.kubernetes.io/os", "kubernetes.io/os"},
                                         {"beta.kubernetes.io/arch", "kubernetes.io/arch"},
                                         {"failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"},
                                         {"failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"},
                                         {"beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"}};

    for (uint32_t i = 0; i < ARRAY_LEN(old); i++)
        if (val_get(map, old[i][0]))
            texts_add(w, "%s[%s]: deprecated since v1.14; use \"%s\" instead", at, old[i][0], old[i][1]);
}

static void pod_spec(struct texts *w, struct arena *a, const char *at, const struct val *spec)
{
    static const char *const lists[] = {"initContainers", "containers"};
    const struct val *spread = val_get(spec, "topologySpreadConstraints"), *vols = val_get(spec, "volumes");

    node_labels(w, arena_printf(a, "%s.nodeSelector", at), val_get(spec, "nodeSelector"));
    for (uint32_t i = 0; i < val_items_n_(spread); i++)
        if (!val_get(&spread->items[i], "labelSelector"))
            texts_add(w, "%s.topologySpreadConstraints[%u].labelSelector: a null labelSelector results in "
                         "matching no pod", at, i);
    for (uint32_t i = 0; i < val_items_n_(vols); i++)
        if (val_get(&vols->items[i], "gitRepo"))
            texts_add(w, "%s.volumes[%u].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                      at, i);
    static const char *const old_sources[] = {
        "cephfs", "flocker", "glusterfs", "photonPersistentDisk", "quobyte", "rbd", "scaleIO", "storageos"};
    for (uint32_t i = 0; i < val_items_n_(vols); i++)
        for (uint32_t k = 0; k < ARRAY_LEN(old_sources); k++)
            if (val_get(&vols->items[i], old_sources[k]))
                texts_add(w, "%s.volumes[%u].%s: deprecated", at, i, old_sources[k]);
    static const char *const terms[] = {"requiredDuringSchedulingIgnoredDuringExecution"};
    static const char *const kinds[] = {"podAffinity", "podAntiAffinity"};
    for (uint32_t k = 0; k < ARRAY_LEN(kinds); k++) {
        const struct val *list = val_get(val_get(val_get(spec, "affinity"), kinds[k]), terms[0]);
        for (uint32_t i = 0; i < val_items_n_(list); i++)
            if (!val_get(&list->items[i], "labelSelector"))
                texts_add(w, "%s.affinity.%s.%s[%u].labelSelector: a null labelSelector results in matching no pod",
                          at, kinds[k], terms[0], i);
    }
    doubles(w, arena_printf(a, "%s.hostAliases", at), val_get(spec, "hostAliases"), "ip", "ip");
    doubles(w, arena_printf(a, "%s.imagePullSecrets", at), val_get(spec, "imagePullSecrets"), "name", "name");
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(spec, lists[l]);
        for (uint32_t i = 0; i < val_items_n_(list); i++)
            container(w, a, arena_printf(a, "%s.%s[%u]", at, lists[l], i), &list->items[i]);
    }
}

void schema_warn(const struct resource *r, const struct val *v, const struct val *old,
                 struct texts *warnings)
{
    static const struct {
        const char *plural, *path;
    } with_pods[] = {{"pods", "spec"}, {"podtemplates", "template.spec"},
                     {"cronjobs", "spec.jobTemplate.spec.template.spec"}, {"deployments", "spec.template.spec"},
                     {"replicasets", "spec.template.spec"}, {"statefulsets", "spec.template.spec"},
                     {"daemonsets", "spec.template.spec"}, {"jobs", "spec.template.spec"},
                     {"replicationcontrollers", "spec.template.spec"}};
    struct arena *a = warnings->a;

    if (streq(r->plural, "pods") && !old)
        VAL_EACH_MEMBER(val_at(v, "metadata.annotations"), m)
            if (str_starts(m->key, "container.apparmor.security.beta.kubernetes.io/"))
                texts_add(warnings, "metadata.annotations[%s]: deprecated since v1.30; use the "
                                    "\"appArmorProfile\" field instead", m->key);
    for (uint32_t i = 0; i < ARRAY_LEN(with_pods) && !r->custom; i++) {
        if (!streq(with_pods[i].plural, r->plural))
            continue;
        const struct val *x = val_at(v, with_pods[i].path), *y = val_at(old, with_pods[i].path);
        if (x && !(y && val_equal(x, y)))
            pod_spec(warnings, a, with_pods[i].path, x);
    }
    if (streq(r->plural, "statefulsets") && val_int_at(v, "spec.revisionHistoryLimit", 0) < 0)
        texts_add(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; "
                            "a value >= 0 is recommended");
    if (streq(r->plural, "persistentvolumeclaims") && !*r->group)
        fractional(warnings, a, "spec.resources.requests", val_at(v, "spec.resources.requests"));
}
