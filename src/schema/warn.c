/* schema/warn.c - what is allowed and yet worth a word (`Warning:` headers of writes), by kind. */
#include "schema/warn.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* ---- addresses ---- */

void warn_ip(struct texts *w, const char *at, const char *ip)
{
    unsigned char b[16];
    char text[INET6_ADDRSTRLEN];

    if (!strchr(ip, ':') || inet_pton(AF_INET6, ip, b) != 1 || !inet_ntop(AF_INET6, b, text, sizeof(text)))
        return;
    if (!streq(text, ip))
        texts_add(w, "%s: IPv6 address \"%s\" should be in RFC 5952 canonical format (\"%s\")", at, ip, text);
}

void warn_cidr(struct texts *w, const char *at, const char *cidr)
{
    const char *slash = strchr(cidr, '/');
    unsigned char b[16], base[16];
    char ip[64], text[INET6_ADDRSTRLEN], net[INET6_ADDRSTRLEN];
    int family = strchr(cidr, ':') ? AF_INET6 : AF_INET, size = family == AF_INET6 ? 16 : 4;

    if (!slash || (size_t)(slash - cidr) >= sizeof(ip))
        return;
    memcpy(ip, cidr, (size_t)(slash - cidr));
    ip[slash - cidr] = 0;
    if (inet_pton(family, ip, b) != 1)
        return;
    int bits = atoi(slash + 1);
    for (int i = 0; i < size; i++)
        base[i] = bits >= 8 * (i + 1) ? b[i] : bits <= 8 * i ? 0 : (unsigned char)(b[i] & (0xff << (8 - (bits - 8 * i))));
    inet_ntop(family, b, text, sizeof(text));
    inet_ntop(family, base, net, sizeof(net));
    if (memcmp(b, base, (size_t)size) != 0)
        texts_add(w, "%s: CIDR value \"%s\" is ambiguous in this context (should be \"%s/%d\" or \"%s/%d\"?)", at,
                  cidr, net, bits, text, size * 8);
    else if (family == AF_INET6 && !streq(text, ip))
        texts_add(w, "%s: IPv6 CIDR value \"%s\" should be in RFC 5952 canonical format (\"%s/%d\")", at, cidr,
                  text, bits);
}

/* Every address at path.member of the list at `list`; member "": the items themselves. */
static void ips(struct texts *w, const char *at, const struct val *list, const char *member)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++)
        warn_ip(w, arena_printf(w->a, "%s[%u]%s%s", at, i, *member ? "." : "", member),
                *member ? val_str_at(&list->items[i], member, "") : val_text(&list->items[i], ""));
}

static void cidrs(struct texts *w, const char *at, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++)
        warn_cidr(w, arena_printf(w->a, "%s[%u]", at, i), val_text(&list->items[i], ""));
}

/* ---- kinds ---- */

static void service(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *spec = val_get(v, "spec"), *ext = val_get(spec, "externalIPs");
    const char *type = val_str_at(spec, "type", ""), *balancer = val_str_at(spec, "loadBalancerIP", "");
    bool headless = streq(type, "ClusterIP") && streq(val_str_at(spec, "clusterIP", ""), "None");
    bool external = streq(type, "ExternalName");
    (void)old;

    if (val_get(val_at(v, "metadata.annotations"), "service.kubernetes.io/topology-aware-hints"))
        texts_add(w, "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use "
                     "service.kubernetes.io/topology-mode instead");
    if (!headless && !external)
        ips(w, "spec.clusterIPs", val_get(spec, "clusterIPs"), "");
    if (headless && *balancer)
        texts_add(w, "spec.loadBalancerIP is ignored for headless services");
    if (headless && val_len(ext))
        texts_add(w, "spec.externalIPs is ignored for headless services");
    if (headless && !streq(val_str_at(spec, "sessionAffinity", "None"), "None"))
        texts_add(w, "spec.SessionAffinity is ignored for headless services");
    ips(w, "spec.externalIPs", ext, "");
    if (val_len(ext) && !headless && !external)
        texts_add(w, "spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    warn_ip(w, "spec.loadBalancerIP", balancer);
    cidrs(w, "spec.loadBalancerSourceRanges", val_get(spec, "loadBalancerSourceRanges"));
    if (external && val_len(ext))
        texts_add(w, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    if (!external && *val_str_at(spec, "externalName", ""))
        texts_add(w, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    if (streq(val_str_at(spec, "trafficDistribution", ""), "PreferClose"))
        texts_add(w, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
}

static void volume(struct texts *w, const struct val *v, const struct val *old)
{
    static const char *const notes[][2] = {
        {"volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead"},
        {"volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"}};
    static const char *const gone[][2] = {
        {"cephfs", "deprecated in v1.28, non-functional in v1.31+"},
        {"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
        {"scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
        {"storageos", "deprecated in v1.22, non-functional in v1.25+"},
        {"glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
        {"rbd", "deprecated in v1.28, non-functional in v1.31+"}};
    const struct val *spec = val_get(v, "spec"), *terms = val_at(spec, "nodeAffinity.required.nodeSelectorTerms");
    (void)old;

    for (uint32_t i = 0; i < ARRAY_LEN(notes); i++)
        if (val_get(val_at(v, "metadata.annotations"), notes[i][0]))
            texts_add(w, "metadata.annotations[%s]: %s", notes[i][0], notes[i][1]);
    if (streq(val_str_at(spec, "persistentVolumeReclaimPolicy", ""), "Recycle"))
        texts_add(w, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the "
                     "recommended approach is to use dynamic provisioning.");
    for (uint32_t i = 0; i < val_items_n_(terms); i++)
        warn_node_term(w, arena_printf(w->a, "spec.nodeAffinity.required.nodeSelectorTerms[%u]", i), &terms->items[i], false);
    for (uint32_t i = 0; i < ARRAY_LEN(gone); i++)
        if (val_get(spec, gone[i][0]))
            texts_add(w, "spec.%s: %s", streq(gone[i][0], "storageos") ? "storageOS" : gone[i][0], gone[i][1]);
}

static void claim(struct texts *w, const struct val *v, const struct val *old)
{
    (void)old;
    if (val_get(val_at(v, "metadata.annotations"), "volume.beta.kubernetes.io/storage-class"))
        texts_add(w, "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "
                     "\"storageClassName\" attribute instead");
    warn_claim_spec(w, "spec", val_get(v, "spec"));
}

static void node(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *spec = val_get(v, "spec");
    (void)old;

    if (val_get(spec, "configSource"))
        texts_add(w, "spec.configSource: the feature is removed");
    if (*val_str_at(spec, "externalID", ""))
        texts_add(w, "spec.externalID: this field is deprecated, and is unused by Kubernetes");
    cidrs(w, "spec.podCIDRs", val_get(spec, "podCIDRs"));
}

static void endpoints(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *subsets = val_get(v, "subsets");
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(subsets); i++) {
        ips(w, arena_printf(w->a, "subsets[%u].addresses", i), val_get(&subsets->items[i], "addresses"), "ip");
        ips(w, arena_printf(w->a, "subsets[%u].notReadyAddresses", i), val_get(&subsets->items[i], "notReadyAddresses"), "ip");
    }
}

static void slice(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *list = val_get(v, "endpoints");

    if (!old && streq(val_str_at(v, "addressType", ""), "FQDN"))
        texts_add(w, "spec.addressType: FQDN endpoints are deprecated");
    for (uint32_t i = 0; i < val_items_n_(list); i++)
        ips(w, arena_printf(w->a, "endpoints[%u].addresses", i), val_get(&list->items[i], "addresses"), "");
}

static void ingress(struct texts *w, const struct val *v, const struct val *old)
{
    static const char key[] = "kubernetes.io/ingress.class";

    if (!old && val_get(val_at(v, "metadata.annotations"), key) && !val_at(v, "spec.ingressClassName"))
        texts_add(w, "annotation \"%s\" is deprecated, please use 'spec.ingressClassName' instead", key);
}

static void policy_blocks(struct texts *w, const struct val *spec, const char *way, const char *peers)
{
    const struct val *rules = val_get(spec, way);

    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *list = val_get(&rules->items[i], peers);
        for (uint32_t k = 0; k < val_items_n_(list); k++) {
            const struct val *block = val_get(&list->items[k], "ipBlock");
            const char *at = arena_printf(w->a, "spec.%s[%u].%s[%u].ipBlock", way, i, peers, k);
            if (!block)
                continue;
            warn_cidr(w, arena_printf(w->a, "%s.cidr", at), val_str_at(block, "cidr", ""));
            cidrs(w, arena_printf(w->a, "%s.except", at), val_get(block, "except"));
        }
    }
}

static void network_policy(struct texts *w, const struct val *v, const struct val *old)
{
    (void)old;
    policy_blocks(w, val_get(v, "spec"), "ingress", "from");
    policy_blocks(w, val_get(v, "spec"), "egress", "to");
}

static void quota(struct texts *w, const struct val *v, const struct val *old)
{
    static const char *const names[] = {"cpu", "memory", "ephemeral-storage"};
    const struct val *hard = val_at(v, "spec.hard");

    for (uint32_t i = 0; i < ARRAY_LEN(names) && !old; i++) {
        const char *req = arena_printf(w->a, "requests.%s", names[i]), *lim = arena_printf(w->a, "limits.%s", names[i]);
        const struct val *r = val_get(hard, req), *l = val_get(hard, lim);
        if (!r && i < 2)
            r = val_get(hard, req = names[i]);
        if (r && l && quantity_num(r, 0) > quantity_num(l, 0))
            texts_add(w, "ResourceQuota %s (%s) should be less than %s (%s)", req, val_text(r, ""), lim, val_text(l, ""));
    }
}

static void service_account(struct texts *w, const struct val *v, const struct val *old)
{
    static const char key[] = "kubernetes.io/enforce-mountable-secrets";

    if (val_get(val_at(v, "metadata.annotations"), key) && !val_get(val_at(old, "metadata.annotations"), key))
        texts_add(w, "metadata.annotations[%s]: deprecated in v1.32+; prefer separate namespaces to isolate access "
                     "to mounted secrets", key);
}

static void csi_driver(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *list = val_at(v, "spec.tokenRequests"), *had = val_at(old, "spec.tokenRequests");

    if (val_len(list) && !val_at(v, "spec.serviceAccountTokenInSecrets") && !(had && val_equal(list, had)))
        texts_add(w, "spec.tokenRequests is given without spec.serviceAccountTokenInSecrets: tokens travel in the "
                     "volume context; true is recommended");
}

static void storage_class(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *topos = val_get(v, "allowedTopologies");
    const char *why;
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(topos); i++) {
        const struct val *exprs = val_get(&topos->items[i], "matchLabelExpressions");
        for (uint32_t k = 0; k < val_items_n_(exprs); k++)
            if ((why = warn_old_label(val_str_at(&exprs->items[k], "key", ""))))
                texts_add(w, "allowedTopologies[%u].matchLabelExpressions[%u].key: %s", i, k, why);
    }
}

static void storage_capacity(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *topo = val_get(v, "nodeTopology");
    const char *why;
    (void)old;

    warn_node_term(w, "nodeTopology", topo, false);
    VAL_EACH_MEMBER(val_get(topo, "matchLabels"), m)
        if ((why = warn_old_label(m->key)))
            texts_add(w, "nodeTopology.matchLabels.%s: %s", m->key, why);
}

static void runtime_class(struct texts *w, const struct val *v, const struct val *old)
{
    const char *why;
    (void)old;

    VAL_EACH_MEMBER(val_at(v, "scheduling.nodeSelector"), m)
        if ((why = warn_old_label(m->key)))
            texts_add(w, "scheduling.nodeSelector: %s", why);
}

static void resource_slice(struct texts *w, const struct val *v, const struct val *old)
{
    const char *driver = val_str_at(v, "spec.driver", "");
    (void)old;

    for (const char *p = driver; *p; p++)
        if (*p >= 'A' && *p <= 'Z') {
            texts_add(w, "spec.driver: driver names should be lowercase; \"%s\" contains uppercase characters", driver);
            return;
        }
}

/* Formats that nobody knows are no rules. */
static void formats(struct texts *w, const struct val *js, int depth)
{
    static const char *const known[] = {
        "bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5",
        "isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password", "date", "duration",
        "datetime", "date-time", "int32", "int64", "float", "double", "k8s-short-name", "k8s-long-name"};
    static const char *const lists[] = {"allOf", "anyOf", "oneOf"}, *const single[] = {"items", "additionalProperties", "not"};
    const char *format = val_str_at(js, "format", "");
    bool ok = !*format;

    if (depth > 100 || !val_is(js, VAL_MAP))
        return;
    for (uint32_t i = 0; i < ARRAY_LEN(known) && !ok; i++)
        ok = streq(known[i], format);
    if (!ok)
        texts_add(w, "unrecognized format \"%s\"", format);
    VAL_EACH_MEMBER(val_get(js, "properties"), m)
        formats(w, &m->v, depth + 1);
    for (uint32_t i = 0; i < ARRAY_LEN(single); i++)
        formats(w, val_get(js, single[i]), depth + 1);
    for (uint32_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(js, lists[i]), it)
            formats(w, it, depth + 1);
}

static void definition(struct texts *w, const struct val *v, const struct val *old)
{
    if (old) /* told once, when it is made */
        return;
    VAL_EACH(val_at(v, "spec.versions"), ver)
        formats(w, val_at(ver, "schema.openAPIV3Schema"), 0);
}

/* ---- kinds with pods in them ---- */

static void stateful_set(struct texts *w, const struct val *v, const struct val *old)
{
    const struct val *list = val_at(v, "spec.volumeClaimTemplates");

    for (uint32_t i = 0; i < val_items_n_(list); i++)
        warn_claim_spec(w, arena_printf(w->a, "spec.volumeClaimTemplates[%u]%s", i, old ? ".Spec" : ""),
                        val_get(&list->items[i], "spec"));
    if (val_int_at(v, "spec.revisionHistoryLimit", 0) < 0)
        texts_add(w, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is "
                     "recommended");
}

static void cron_job(struct texts *w, const struct val *v, const struct val *old)
{
    if (old && strstr(val_str_at(v, "spec.schedule", ""), "TZ"))
        texts_add(w, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead");
}

static void pod(struct texts *w, const struct val *v, const struct val *old)
{
    if (old)
        return;
    VAL_EACH_MEMBER(val_at(v, "metadata.annotations"), m)
        if (str_starts(m->key, "container.apparmor.security.beta.kubernetes.io/"))
            texts_add(w, "metadata.annotations[%s]: deprecated since v1.30; use the \"appArmorProfile\" field "
                         "instead", m->key);
}

static const struct warned {
    const char *group, *plural;
    const char *template; /* where its pods are described; NULL: nowhere */
    bool label_name;      /* the name becomes part of host names */
    bool on_create;       /* the template is looked at on create alone */
    void (*fn)(struct texts *w, const struct val *v, const struct val *old);
} kinds[] = {
    {"", "pods", "", true, true, pod},
    {"", "podtemplates", "template", false, false, NULL},
    {"", "replicationcontrollers", "spec.template", true, false, NULL},
    {"apps", "deployments", "spec.template", true, false, NULL},
    {"apps", "replicasets", "spec.template", true, false, NULL},
    {"apps", "statefulsets", "spec.template", false, false, stateful_set},
    {"apps", "daemonsets", "spec.template", false, false, NULL},
    {"batch", "jobs", "spec.template", true, false, NULL},
    {"batch", "cronjobs", "spec.jobTemplate.spec.template", true, false, cron_job},
    {"", "services", NULL, false, false, service},
    {"", "persistentvolumes", NULL, false, false, volume},
    {"", "persistentvolumeclaims", NULL, false, false, claim},
    {"", "nodes", NULL, false, false, node},
    {"", "endpoints", NULL, false, false, endpoints},
    {"", "resourcequotas", NULL, false, false, quota},
    {"", "serviceaccounts", NULL, false, false, service_account},
    {"discovery.k8s.io", "endpointslices", NULL, false, false, slice},
    {"networking.k8s.io", "ingresses", NULL, false, false, ingress},
    {"networking.k8s.io", "networkpolicies", NULL, false, false, network_policy},
    {"node.k8s.io", "runtimeclasses", NULL, false, false, runtime_class},
    {"resource.k8s.io", "resourceslices", NULL, false, false, resource_slice},
    {"apiextensions.k8s.io", "customresourcedefinitions", NULL, false, false, definition},
    {"storage.k8s.io", "csidrivers", NULL, false, false, csi_driver},
    {"storage.k8s.io", "csistoragecapacities", NULL, false, false, storage_capacity},
    {"storage.k8s.io", "storageclasses", NULL, false, false, storage_class},
};

void schema_warn(const struct resource *r, const struct val *v, const struct val *old,
                 struct texts *warnings)
{
    for (uint32_t i = 0; i < ARRAY_LEN(kinds) && !r->custom; i++) {
        const struct warned *k = &kinds[i];
        const char *name = val_str_at(v, "metadata.name", "");
        if (!streq(k->plural, r->plural) || !streq(k->group, r->group))
            continue;
        if (k->fn)
            k->fn(warnings, v, old);
        if (k->label_name && !old && *name && name_dns_label(name))
            texts_add(warnings, "metadata.name: this is used in Pod names and hostnames, which can result in "
                                "surprising behavior; a DNS label is recommended: %s", name_dns_label(name));
        if (k->template && !(k->on_create && old)) {
            const struct val *x = *k->template ? val_at(v, k->template) : v, *y = val_at(old, k->template);
            bool counted = r->generation && old; /* then any change of the spec tells it again */
            bool changed = counted ? val_int_at(v, "metadata.generation", 0) != val_int_at(old, "metadata.generation", 0)
                                   : !(y && val_equal(x, y));
            if (x && changed)
                warn_pod(warnings, k->template, val_get(x, "metadata"), val_get(x, "spec"));
        }
        return;
    }
}
