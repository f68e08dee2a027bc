/* schema/rules_volume.c - volumes of pods: their sources, and what is read out of the pod itself
 * (downward API, as files and as environment). */
#include "schema/rules_int.h"

#include "schema/rules_pod.h"

#include <stdio.h>

static bool among(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (streq(s, *list))
            return true;
    return false;
}

static void whys_at(struct check *c, const char *rel, const struct val *v, const char *check)
{
    const struct named_check *named = named_check_find(check, strlen(check));
    const char *whys[4];
    uint32_t n = name_whys(named->fn, val_text(v, ""), whys);

    for (uint32_t i = 0; i < n; i++)
        check_fail(c, CAUSE_INVALID, rel, v, "%s", whys[i]);
}

/* ---- what a pod tells of itself ---- */

void pod_field_selector(struct check *c, const char *at, const struct val *ref,
                        const char *const *supported)
{
    static const char *const known[] = {
        "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace",
        "metadata.uid", "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName",
        "spec.schedulerName", "status.phase", "status.hostIP", "status.hostIPs", "status.podIP",
        "status.podIPs", "spec.host", NULL};
    const char *rel = arena_printf(c->a, "%s.fieldPath", at);
    const char *path = val_str_at(ref, "fieldPath", ""), *version = val_str_at(ref, "apiVersion", "");

    if (!*version) {
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.apiVersion", at), NULL, "%s", "");
        return;
    }
    if (!*path) {
        check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
        return;
    }
    const char *open = strstr(path, "['");
    if (open && str_ends(path, "']") && open > path) {
        const char *of = arena_strndup(c->a, path, (size_t)(open - path));
        char *key = arena_strndup(c->a, open + 2, strlen(open) - 4);
        bool notes = streq(of, "metadata.annotations");
        if (!notes && !streq(of, "metadata.labels")) {
            check_fail(c, CAUSE_INVALID, rel, val_get(ref, "fieldPath"),
                       "error converting fieldPath: field label does not support subscript");
            return;
        }
        for (char *p = key; notes && *p; p++)
            *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
        whys_at(c, at, val_str(c->a, key), "qualified");
        return;
    }
    if (!among(path, known) || !streq(version, "v1"))
        check_fail(c, CAUSE_INVALID, rel, val_get(ref, "fieldPath"),
                   "error converting fieldPath: field label not supported: %s", path);
    else if (!among(path, supported))
        check_fail(c, CAUSE_NOT_SUPPORTED, rel, val_get(ref, "fieldPath"),
                   "supported values: as documented");
}

void pod_resource_selector(struct check *c, const char *at, const struct val *ref, bool volume)
{
    static const char *const known[] = {"limits.cpu", "limits.memory", "limits.ephemeral-storage",
                                        "requests.cpu", "requests.memory",
                                        "requests.ephemeral-storage", NULL};
    static const char *const bytes[] = {"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi",
                                        "1Gi", "1Ti", "1Pi", "1Ei", NULL};
    static const char *const cores[] = {"1m", "1", NULL};
    const char *res = val_str_at(ref, "resource", ""), *div = val_str_at(ref, "divisor", "0");
    bool huge = str_starts(res, "requests.hugepages-") || str_starts(res, "limits.hugepages-");

    if (volume && !*val_str_at(ref, "containerName", ""))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.containerName", at), NULL, "%s", "");
    else if (!*res)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.resource", at), NULL, "%s", "");
    else if (!among(res, known) && !huge)
        check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.resource", at),
                   val_get(ref, "resource"), "supported values: as documented");
    bool cpu = str_ends(res, ".cpu");
    if ((!huge && !among(res, known)) || quantity_num(val_get(ref, "divisor"), 0) == 0)
        return;
    if (!among(div, cpu ? cores : bytes))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.divisor", at), val_get(ref, "resource"),
                   "only divisors of a power of the unit are supported");
}

/* One file of the downward API: told at the list's owner, without an index. */
HOOK(v_downward_file)
{
    static const char *const supported[] = {"metadata.name", "metadata.namespace", "metadata.labels",
                                            "metadata.annotations", "metadata.uid", NULL};
    const struct val *field = val_get(v, "fieldRef"), *res = val_get(v, "resourceFieldRef");
    (void)old;

    if (field) {
        pod_field_selector(c, "fieldRef", field, supported);
        if (res)
            check_fail(c, CAUSE_INVALID, "", val_str(c->a, "resource"),
                       "fieldRef and resourceFieldRef can not be specified simultaneously");
    } else if (res) {
        pod_resource_selector(c, "resourceFieldRef", res, true);
    } else {
        check_fail(c, CAUSE_REQUIRED, "", NULL, "one of fieldRef and resourceFieldRef is required");
    }
}

/* ---- projected volumes ---- */

static void path_once(struct check *c, struct map *seen, const struct val *path, const struct val *bad)
{
    if (val_is(path, VAL_STR) && path->n && map_put(seen, path->s, (void *)(uintptr_t)path))
        check_fail(c, CAUSE_INVALID, "", bad ? bad : path, "conflicting duplicate paths");
}

static void trust_bundle(struct check *c, const char *at, const struct val *b)
{
    const struct val *name = val_get(b, "name"), *signer = val_get(b, "signerName");

    if (name && signer)
        check_fail(c, CAUSE_INVALID, at, b, "only one of name and signerName may be used");
    else if (!name && !signer)
        check_fail(c, CAUSE_REQUIRED, at, NULL, "either name or signerName must be specified");
    if (name && !signer && !name->n)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "must be a valid object name");
    if (name && !signer && !strchr(name->s, ':'))
        whys_at(c, arena_printf(c->a, "%s.name", at), name, "dns-subdomain");
    if (name && !signer && val_get(b, "labelSelector"))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.labelSelector", at), val_get(b, "labelSelector"),
                   "labelSelector must be unset if name is specified");
    if (signer && !name && !signer->n)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.signerName", at), NULL, "must be a valid signer name");
    if (signer && !name && name_signer(signer->s))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.signerName", at), signer, "%s", name_signer(signer->s));
}

/* Path conflicts are between all sources; the token's path is told at the volume. */
HOOK(v_projected)
{
    static const char *const listed[] = {"secret", "configMap", "downwardAPI"};
    static const char *const cert_paths[] = {"credentialBundlePath", "keyPath", "certificateChainPath"};
    const struct val *sources = val_get(v, "sources");
    struct map seen = {0};
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(sources); i++) {
        const struct val *s = &sources->items[i], *token = val_get(s, "serviceAccountToken");
        const struct val *bundle = val_get(s, "clusterTrustBundle"), *cert = val_get(s, "podCertificate");
        if (val_is(s, VAL_MAP) && s->n > 1)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "sources[%u]", i), NULL,
                       "may not specify more than 1 volume type per source");
        for (uint32_t k = 0; k < ARRAY_LEN(listed); k++)
            VAL_EACH(val_at(s, arena_printf(c->a, "%s.items", listed[k])), it)
                path_once(c, &seen, val_get(it, "path"), NULL);
        if (token && !*val_str_at(token, "path", ""))
            check_fail(c, CAUSE_REQUIRED, "path", NULL, "%s", "");
        else if (token)
            whys_at(c, "path", val_get(token, "path"), "local-path");
        if (bundle)
            trust_bundle(c, arena_printf(c->a, "sources[%u].clusterTrustBundle", i), bundle);
        path_once(c, &seen, val_get(bundle, "path"), NULL);
        bool any = !cert;
        for (uint32_t k = 0; k < ARRAY_LEN(cert_paths); k++) {
            path_once(c, &seen, val_get(cert, cert_paths[k]), NULL);
            any |= *val_str_at(cert, cert_paths[k], "") != 0;
        }
        if (!any)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "sources[%u].podCertificate", i), NULL,
                       "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
    map_done(&seen);
}

/* ---- sources of storage systems ---- */

HOOK(v_fc)
{
    const struct val *wwns = val_get(v, "targetWWNs"), *ids = val_get(v, "wwids"), *lun = val_get(v, "lun");
    (void)old;

    if (!val_len(wwns) && !val_len(ids))
        check_fail(c, CAUSE_REQUIRED, "targetWWNs", NULL, "must specify either targetWWNs or wwids, but not both");
    if (val_len(wwns) && val_len(ids))
        check_fail(c, CAUSE_INVALID, "targetWWNs", wwns, "targetWWNs and wwids can not be specified simultaneously");
    if (val_len(wwns) && !lun)
        check_fail(c, CAUSE_REQUIRED, "lun", NULL, "lun is required if targetWWNs is specified");
    else if (val_len(wwns) && (lun->i < 0 || lun->i > 255))
        check_fail(c, CAUSE_INVALID, "lun", lun, "must be between 0 and 255, inclusive");
}

HOOK(v_flocker)
{
    const char *name = val_str_at(v, "datasetName", ""), *uuid = val_str_at(v, "datasetUUID", "");
    (void)old;

    if (!*name && !*uuid)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "one of datasetName and datasetUUID is required");
    if (*name && *uuid)
        check_fail(c, CAUSE_INVALID, "", val_str(c->a, "resource"),
                   "datasetName and datasetUUID can not be specified simultaneously");
    if (strchr(name, '/'))
        check_fail(c, CAUSE_INVALID, "datasetName", val_get(v, "datasetName"), "must not contain '/'");
}

HOOK(v_iscsi)
{
    (void)old;
    if ((val_bool_at(v, "chapAuthDiscovery", false) || val_bool_at(v, "chapAuthSession", false)) &&
        !val_get(v, "secretRef"))
        check_fail(c, CAUSE_REQUIRED, "secretRef", NULL, "%s", "");
}

HOOK(v_azure_disk)
{
    bool managed = streq(val_str_at(v, "kind", ""), "Managed");
    const struct val *uri = val_get(v, "diskURI");
    const char *s = val_text(uri, "");
    (void)old;

    if (*s && managed && !str_starts(s, "/subscriptions/"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "diskURI", uri, "supported values: \"/subscriptions/...\"");
    if (*s && !managed && !str_starts(s, "https://"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "diskURI", uri, "supported values: \"https://...\"");
}

/* ---- the volumes of a pod ---- */

static void one_volume(struct check *c, const struct val *v, uint32_t i, const char *pod)
{
    const char *name = val_str_at(v, "name", "");
    uint32_t sources = val_get(v, "emptyDir") != NULL;

    VAL_EACH_MEMBER(v, m)
        if (!streq(m->key, "name") && !streq(m->key, "emptyDir") && sources++)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "volumes[%u].%s", i, m->key), NULL,
                       "may not specify more than 1 volume type");
    const struct val *limit = val_at(v, "emptyDir.sizeLimit");
    if (limit && quantity_num(limit, 0) < 0)
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "volumes[%u].emptyDir.sizeLimit", i), NULL,
                   "SizeLimit field must be a valid resource quantity");
    if (val_get(v, "ephemeral") && *pod && *name)
        whys_at(c, arena_printf(c->a, "volumes[%u].name", i),
                val_str(c->a, arena_printf(c->a, "%s-%s", pod, name)), "dns-subdomain");
    const char *portal = val_str_at(v, "iscsi.targetPortal", "");
    if (val_at(v, "iscsi.initiatorName") && strlen(name) + 1 + strlen(portal) > 64)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "volumes[%u].name", i), val_get(v, "name"),
                   "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters");
    if (c->r && streq(c->r->kind, "Pod") && val_get(v, "image") && !*val_str_at(v, "image.reference", ""))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "volumes[%u].image.reference", i), NULL, "%s", "");
}

void pod_volumes(struct check *c, const struct val *list, struct map *ret_good)
{
    const struct type *t = schema_type(c->r->schema, "core.v1.Volume");
    const char *pod = c->r && streq(c->r->kind, "Pod") ? val_str_at(c->root, "metadata.name", "") : "";

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *v = &list->items[i];
        const char *name = val_str_at(v, "name", ""), *claim = val_str_at(v, "persistentVolumeClaim.claimName", "");
        uint32_t before = c->causes->n;
        one_volume(c, v, i, pod);
        uint32_t mark = check_push(c, ".volumes[%u]", i);
        validate_struct(c, t, v, NULL);
        check_pop(c, mark);
        if (*name && map_get(ret_good, name))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "volumes[%u].name", i), val_get(v, "name"), "%s", "");
        if (c->causes->n == before && *name)
            map_put(ret_good, name, (void *)(uintptr_t)v);
        for (uint32_t k = 0; *pod && *claim && k < list->n; k++)
            if (val_get(&list->items[k], "ephemeral") &&
                streq(claim, arena_printf(c->a, "%s-%s", pod, val_str_at(&list->items[k], "name", ""))))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "volumes[%u].persistentVolumeClaim.claimName", i),
                           val_at(v, "persistentVolumeClaim.claimName"),
                           "must not reference a PVC that gets created for an ephemeral volume");
    }
}
