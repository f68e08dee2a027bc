/* schema/rules_pod.c - what pods and pod templates must keep beyond what the kinds files say. */
#include "schema/rules_int.h"

#include <stdio.h>

/* ---- names within lists ---- */

static void unique_names(struct check *c, const char *list_name, const struct val *list,
                         const char *key, struct map *seen)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *name = val_str_at(&list->items[i], key, "");
        if (*name && map_put(seen, name, (void *)(uintptr_t)list))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s[%u].%s", list_name, i, key),
                       val_get(&list->items[i], key), "%s", "");
    }
}

/* ---- volumes ---- */

static void volumes(struct check *c, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *v = &list->items[i];
        uint32_t sources = 0;
        sources = val_get(v, "emptyDir") != NULL;
        VAL_EACH_MEMBER(v, m)
            if (!streq(m->key, "name") && !streq(m->key, "emptyDir") && sources++)
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "volumes[%u].%s", i, m->key), NULL,
                           "may not specify more than 1 volume type");
        const struct val *limit = val_at(v, "emptyDir.sizeLimit");
        if (limit && quantity_num(limit, 0) < 0)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "volumes[%u].emptyDir.sizeLimit", i),
                       NULL, "SizeLimit field must be a valid resource quantity");
    }
}

static bool has_named(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            return true;
    return false;
}

/* A volume that is wrong itself is none that can be mounted. */
static bool has_volume(struct check *c, const struct val *list, const char *name)
{
    VAL_EACH(list, it) {
        if (!streq(val_str_at(it, "name", ""), name))
            continue;
        struct causes mine = {.a = c->a}, *outer = c->causes;
        c->causes = &mine;
        validate_struct(c, schema_type(c->r->schema, "core.v1.Volume"), it, NULL);
        c->causes = outer;
        return val_len(it) == 2 && !mine.n;
    }
    return false;
}

static bool has_claim(const struct val *templates, const char *name)
{
    VAL_EACH(templates, t)
        if (streq(val_str_at(t, "metadata.name", ""), name))
            return true;
    return false;
}

static void mounts(struct check *c, const char *at, const struct val *ctr, const struct val *vols,
                   const struct val *claim_templates)
{
    const struct val *list = val_get(ctr, "volumeMounts"), *devs = val_get(ctr, "volumeDevices");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *m = &list->items[i];
        const char *name = val_str_at(m, "name", ""), *path = val_str_at(m, "mountPath", "");
        if (*name && !has_volume(c, vols, name) && !has_claim(claim_templates, name))
            check_fail(c, CAUSE_NOT_FOUND, arena_printf(c->a, "%s.volumeMounts[%u].name", at, i),
                       val_get(m, "name"), "%s", "");
        if (*path && map_put(&seen, path, (void *)(uintptr_t)m))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.volumeMounts[%u].mountPath", at, i),
                       val_get(m, "mountPath"), "must be unique");
        if (*val_str_at(m, "subPath", "") && *val_str_at(m, "subPathExpr", ""))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.volumeMounts[%u].subPathExpr", at, i),
                       val_get(m, "subPathExpr"), "subPathExpr and subPath are mutually exclusive");
    }
    for (uint32_t i = 0; i < val_items_n_(devs); i++) {
        const char *name = val_str_at(&devs->items[i], "name", "");
        if (*name && !has_volume(c, vols, name) && !has_claim(claim_templates, name))
            check_fail(c, CAUSE_NOT_FOUND, arena_printf(c->a, "%s.volumeDevices[%u].name", at, i),
                       val_get(&devs->items[i], "name"), "%s", "");
    }
    map_done(&seen);
}

/* ---- containers ---- */

static void ports(struct check *c, const char *at, const struct val *ctr, bool host_network)
{
    const struct val *list = val_get(ctr, "ports");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *p = &list->items[i];
        const char *name = val_str_at(p, "name", "");
        int64_t host = val_int_at(p, "hostPort", 0);
        if (*name && map_put(&seen, name, (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s.ports[%u].name", at, i),
                       val_get(p, "name"), "%s", "");
        if (host_network && host && host != val_int_at(p, "containerPort", 0))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.ports[%u].hostPort", at, i),
                       val_get(p, "hostPort"), "must match `containerPort` when `hostNetwork` is true");
    }
    map_done(&seen);
}

static void image(struct check *c, const char *at, const struct val *ctr)
{
    const struct val *v = val_get(ctr, "image");
    const char *s = val_text(v, "");
    size_t n = strlen(s);

    if (!n)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.image", at), NULL, "%s", "");
    else if (strchr(" \t\r\n", s[0]) || strchr(" \t\r\n", s[n - 1]))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.image", at), v,
                   "must not have leading or trailing whitespace");
}

static const char *const probes[] = {"livenessProbe", "readinessProbe", "startupProbe"};

static void containers(struct check *c, const struct val *spec, const char *list_name, bool init,
                       struct map *seen)
{
    const struct val *list = val_get(spec, list_name);
    bool host_network = val_bool_at(spec, "hostNetwork", false);
    const struct val *claims = val_at(c->root, "spec.volumeClaimTemplates");

    unique_names(c, list_name, list, "name", seen);
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *ctr = &list->items[i];
        const char *at = arena_printf(c->a, "%s[%u]", list_name, i);
        bool sidecar = init && streq(val_str_at(ctr, "restartPolicy", ""), "Always");
        image(c, at, ctr);
        ports(c, at, ctr, host_network);
        mounts(c, at, ctr, val_get(spec, "volumes"), claims);
        for (uint32_t k = 0; k < ARRAY_LEN(probes); k++) {
            const struct val *p = val_get(ctr, probes[k]);
            if (!p)
                continue;
            if (init && !sidecar)
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.%s", at, probes[k]), NULL,
                           "may not be set for init containers without restartPolicy=Always");
            else if (k != 1 && val_int_at(p, "successThreshold", 1) != 1)
                check_fail(c, CAUSE_INVALID,
                           arena_printf(c->a, "%s.%s.successThreshold", at, probes[k]),
                           val_get(p, "successThreshold"), "must be 1");
        }
        static const char *const moments[] = {"postStart", "preStop"};
        for (uint32_t k = 0; k < ARRAY_LEN(moments); k++) {
            const struct val *s = val_at(ctr, arena_printf(c->a, "lifecycle.%s.sleep.seconds", moments[k]));
            if (s && s->i > val_int_at(spec, "terminationGracePeriodSeconds", INT64_MAX))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.lifecycle.%s.sleep", at, moments[k]), s,
                           "must be less than the termination grace period");
        }
        if (init && !sidecar && val_get(ctr, "lifecycle"))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.lifecycle", at), NULL,
                       "may not be set for init containers without restartPolicy=Always");
    }
}

static void ephemeral(struct check *c, const struct val *spec, struct map *seen)
{
    static const char *const never[] = {"ports", "livenessProbe", "readinessProbe", "startupProbe",
                                        "lifecycle", "resources", "resizePolicy"};
    const struct val *list = val_get(spec, "ephemeralContainers");

    if (val_len(list) && !c->old_root && c->r && streq(c->r->kind, "Pod")) {
        check_fail(c, CAUSE_FORBIDDEN, "ephemeralContainers", NULL,
                   "cannot be set on create");
        return;
    }
    unique_names(c, "ephemeralContainers", list, "name", seen);
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *ctr = &list->items[i];
        const char *at = arena_printf(c->a, "ephemeralContainers[%u]", i), *why;
        const char *name = val_str_at(ctr, "name", ""), *target = val_str_at(ctr, "targetContainerName", "");
        if (!*name)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "%s", "");
        else if ((why = name_dns_label(name)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.name", at), val_get(ctr, "name"),
                       "%s", why);
        if (!*val_str_at(ctr, "image", ""))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.image", at), NULL, "%s", "");
        if (*target && !has_named(val_get(spec, "containers"), target) &&
            !has_named(val_get(spec, "initContainers"), target))
            check_fail(c, CAUSE_NOT_FOUND, arena_printf(c->a, "%s.targetContainerName", at),
                       val_get(ctr, "targetContainerName"), "%s", "");
        for (uint32_t k = 0; k < ARRAY_LEN(never); k++)
            if (val_get(ctr, never[k]) && val_len(val_get(ctr, never[k])))
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.%s", at, never[k]), NULL,
                           "cannot be set for an Ephemeral Container");
        mounts(c, at, ctr, val_get(spec, "volumes"), NULL);
    }
}

/* Windows pods may not use what only Linux knows, and the other way round. */
static void operating_system(struct check *c, const struct val *spec)
{
    static const char *const pod_linux[] = {
        "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls",
        "runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy",
        "appArmorProfile"};
    static const char *const ctr_linux[] = {
        "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
        "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup", "appArmorProfile"};
    static const char *const shared[] = {"hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"};
    static const char *const lists[] = {"containers", "initContainers"};

    if (!streq(val_str_at(spec, "os.name", ""), "windows"))
        return;
    for (uint32_t i = 0; i < ARRAY_LEN(pod_linux); i++)
        if (val_get(val_get(spec, "securityContext"), pod_linux[i]))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "securityContext.%s", pod_linux[i]),
                       NULL, "cannot be set for a windows pod");
    for (uint32_t i = 0; i < ARRAY_LEN(shared); i++)
        if (val_get(spec, shared[i]))
            check_fail(c, CAUSE_FORBIDDEN, shared[i], NULL, "cannot be set for a windows pod");
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(spec, lists[l]);
        for (uint32_t k = 0; k < val_items_n_(list); k++)
            for (uint32_t i = 0; i < ARRAY_LEN(ctr_linux); i++)
                if (val_get(val_get(&list->items[k], "securityContext"), ctr_linux[i]))
                    check_fail(c, CAUSE_FORBIDDEN,
                               arena_printf(c->a, "%s[%u].securityContext.%s", lists[l], k,
                                            ctr_linux[i]), NULL, "cannot be set for a windows pod");
    }
}

static void scheduling(struct check *c, const struct val *spec)
{
    const struct val *gates = val_get(spec, "schedulingGates");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(gates); i++) {
        const char *name = val_str_at(&gates->items[i], "name", ""), *why = name_qualified(name);
        if (why)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "schedulingGates[%u]", i),
                       val_get(&gates->items[i], "name"), "%s", why);
        if (map_put(&seen, name, (void *)(uintptr_t)gates))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "schedulingGates[%u]", i),
                       val_get(&gates->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    validate_labels(c, "nodeSelector", val_get(spec, "nodeSelector"));
    if (streq(val_str_at(spec, "dnsPolicy", ""), "None") &&
        !val_len(val_at(spec, "dnsConfig.nameservers")))
        check_fail(c, CAUSE_REQUIRED, val_get(spec, "dnsConfig") ? "dnsConfig.nameservers" : "dnsConfig",
                   NULL, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    const struct val *deadline = val_get(spec, "activeDeadlineSeconds");
    if (deadline && (deadline->i < 1 || deadline->i > INT32_MAX))
        check_fail(c, CAUSE_INVALID, "activeDeadlineSeconds", deadline,
                   "must be between 1 and 2147483647, inclusive");
}

HOOK(v_podspec)
{
    struct map seen = {0}, vols = {0};
    (void)old;

    unique_names(c, "volumes", val_get(v, "volumes"), "name", &vols);
    volumes(c, val_get(v, "volumes"));
    containers(c, v, "containers", false, &seen);
    containers(c, v, "initContainers", true, &seen);
    ephemeral(c, v, &seen);
    operating_system(c, v);
    scheduling(c, v);
    map_done(&seen);
    map_done(&vols);
}

HOOK(v_template)
{
    (void)old;
    validate_labels(c, "labels", val_at(v, "metadata.labels"));
    VAL_EACH_MEMBER(val_at(v, "metadata.annotations"), m) {
        char *lower = arena_strdup(c->a, m->key);
        for (char *p = lower; *p; p++)
            *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
        const char *why = name_qualified(lower);
        if (why)
            check_fail(c, CAUSE_INVALID, "annotations", NULL, "%s", why);
    }
    if (val_len(val_at(v, "spec.ephemeralContainers")))
        check_fail(c, CAUSE_FORBIDDEN, "spec.ephemeralContainers", NULL,
                   "ephemeral containers not allowed in pod template");
}

/* ---- probes and hooks ---- */

static void port(struct check *c, const char *rel, const struct val *p)
{
    const struct named_check *named = named_check_find("port-name", 9);
    const char *why[4];
    uint32_t n = val_is(p, VAL_STR) ? name_whys(named->fn, p->s, why) : 0;

    if (val_is(p, VAL_INT) && (p->i < 1 || p->i > 65535))
        check_fail(c, CAUSE_INVALID, rel, p, "must be between 1 and 65535, inclusive");
    for (uint32_t i = 0; i < n; i++)
        check_fail(c, CAUSE_INVALID, rel, p, "%s", why[i]);
}

HOOK(v_handler)
{
    static const char *const kinds[] = {"exec", "httpGet", "tcpSocket", "grpc", "sleep"};
    uint32_t n = 0;
    (void)old;

    for (uint32_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (val_get(v, kinds[i]) && n++)
            check_fail(c, CAUSE_FORBIDDEN, kinds[i], NULL, "may not specify more than 1 handler type");
    if (!n)
        check_fail(c, CAUSE_REQUIRED, "", NULL, "must specify a handler type");
    if (val_get(v, "httpGet"))
        port(c, "httpGet.port", val_at(v, "httpGet.port"));
    if (val_get(v, "tcpSocket"))
        port(c, "tcpSocket.port", val_at(v, "tcpSocket.port"));
    if (val_get(v, "grpc"))
        port(c, "grpc.port", val_at(v, "grpc.port"));
    const struct val *s = val_at(v, "sleep.seconds");
    if (s && s->i < 0)
        check_fail(c, CAUSE_INVALID, "sleep", s, "must be greater than 0");
}

/* ---- environment ---- */

HOOK(v_envvar)
{
    static const char *const paths[] = {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
        "spec.serviceAccountName", "status.hostIP", "status.podIP", "status.hostIPs",
        "status.podIPs"};
    const struct val *from = val_get(v, "valueFrom");
    (void)old;

    if (!from)
        return;
    if (*val_str_at(v, "value", ""))
        check_fail(c, CAUSE_INVALID, "valueFrom", NULL, "may not be specified when `value` is not empty");
    uint32_t n = val_len(from);
    if (n == 0)
        check_fail(c, CAUSE_INVALID, "valueFrom", NULL,
                   "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
                   "`secretKeyRef` or `fileKeyRef`");
    if (n > 1)
        check_fail(c, CAUSE_INVALID, "valueFrom", NULL, "may not have more than one field specified at a time");
    const struct val *path = val_at(from, "fieldRef.fieldPath");
    if (!path || !path->n)
        return;
    bool known = str_starts(path->s, "metadata.labels['") || str_starts(path->s, "metadata.annotations['");
    for (uint32_t i = 0; i < ARRAY_LEN(paths) && !known; i++)
        known = streq(paths[i], path->s);
    if (known)
        return;
    check_fail(c, CAUSE_INVALID, "valueFrom.fieldRef.fieldPath", path, "error converting fieldPath");
}

/* ---- resources ---- */

static bool standard_resource(const char *name)
{
    return streq(name, "cpu") || streq(name, "memory") || streq(name, "ephemeral-storage") ||
           streq(name, "storage") || str_starts(name, "hugepages-");
}

static void resource_list(struct check *c, const char *list, const struct val *map)
{
    VAL_EACH_MEMBER(map, m) {
        const char *rel = arena_printf(c->a, "%s[%s]", list, m->key), *why;
        bool standard = standard_resource(m->key);
        if ((why = name_qualified(m->key)))
            check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key), "%s", why);
        else if (!strchr(m->key, '/') && !standard) {
            check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key),
                       "must be a standard resource type or fully qualified");
            check_fail(c, CAUSE_INVALID, rel, val_str(c->a, m->key),
                       "must be a standard resource for containers");
        }
        double n = quantity_num(&m->v, 0);
        if (n < 0)
            check_fail(c, CAUSE_INVALID, rel, &m->v, "must be greater than or equal to 0");
        else if (strchr(m->key, '/') && n != (double)(int64_t)n)
            check_fail(c, CAUSE_INVALID, rel, &m->v, "must be an integer");
    }
}

HOOK(v_resources)
{
    const struct val *limits = val_get(v, "limits"), *requests = val_get(v, "requests");
    (void)old;

    resource_list(c, "limits", limits);
    resource_list(c, "requests", requests);
    VAL_EACH_MEMBER(requests, m) {
        const struct val *lim = val_getn(limits, m->key, m->n);
        bool fixed = strchr(m->key, '/') != NULL;
        if (lim && quantity_num(&m->v, 0) > quantity_num(lim, 0))
            check_fail(c, CAUSE_INVALID, "requests", &m->v,
                       "must be less than or equal to %s limit", m->key);
        else if (lim && fixed && quantity_num(&m->v, 0) != quantity_num(lim, 0))
            check_fail(c, CAUSE_INVALID, "requests", &m->v, "must be equal to %s limit of %s",
                       m->key, val_text(lim, ""));
        else if (!lim && fixed)
            check_fail(c, CAUSE_REQUIRED, "limits", NULL, "Limit must be set for non overcommitable resources");
    }
}

/* ---- security ---- */

HOOK(v_security_context)
{
    bool privileged = val_bool_at(v, "privileged", false);
    const struct val *escalation = val_get(v, "allowPrivilegeEscalation");
    (void)old;

    if (escalation && !escalation->b) {
        if (privileged)
            check_fail(c, CAUSE_INVALID, "", v, "cannot set `allowPrivilegeEscalation` to false and "
                       "`privileged` to true");
        VAL_EACH(val_at(v, "capabilities.add"), cap)
            if (streq(val_text(cap, ""), "CAP_SYS_ADMIN"))
                check_fail(c, CAUSE_INVALID, "", v, "cannot set `allowPrivilegeEscalation` to false "
                           "and `capabilities.Add` CAP_SYS_ADMIN");
    }
    if (streq(val_str_at(v, "procMount", ""), "Unmasked") && c->root &&
        !val_is(val_at(c->root, "spec.hostUsers"), VAL_BOOL))
        check_fail(c, CAUSE_INVALID, "procMount", val_get(v, "procMount"),
                   "`hostUsers` must be false to use `Unmasked`");
}

HOOK(v_sysctl)
{
    const char *s = val_str_at(v, "name", "");
    (void)old;

    if (!*s) {
        check_fail(c, CAUSE_REQUIRED, "name", NULL, "%s", "");
        return;
    }
    bool ok = strlen(s) <= 253;
    const char *parts = "abcdefghijklmnopqrstuvwxyz0123456789-_./";
    ok &= strspn(s, parts) == strlen(s) && !strchr("./-_", s[0]) && !strchr("./-_", s[strlen(s) - 1]);
    if (!ok)
        check_fail(c, CAUSE_INVALID, "name", val_get(v, "name"),
                   "must have at most 253 characters and match regex ...");
}

HOOK(v_seccomp)
{
    bool local = streq(val_str_at(v, "type", ""), "Localhost");
    const struct val *path = val_get(v, "localhostProfile");
    (void)old;

    if (local && !path)
        check_fail(c, CAUSE_REQUIRED, "localhostProfile", NULL, "must be set when seccomp type is Localhost");
    else if (!local && path)
        check_fail(c, CAUSE_INVALID, "localhostProfile", path, "can only be set when seccomp type is Localhost");
}

/* ---- tolerations, affinity ---- */

HOOK(v_toleration)
{
    static const char *const effects[] = {"NoSchedule", "PreferNoSchedule", "NoExecute", NULL};
    const char *op = val_str_at(v, "operator", ""), *key = val_str_at(v, "key", "");
    const char *effect = val_str_at(v, "effect", "");
    (void)old;

    if (!*key && !streq(op, "Exists"))
        check_fail(c, CAUSE_INVALID, "operator", val_get(v, "operator"),
                   "operator must be Exists when `key` is empty, which means \"match all values and "
                   "all keys\"");
    if (val_get(v, "tolerationSeconds") && !streq(effect, "NoExecute"))
        check_fail(c, CAUSE_INVALID, "effect", val_get(v, "effect"),
                   "effect must be 'NoExecute' when `tolerationSeconds` is set");
    if (!*op || streq(op, "Equal")) {
        const char *why = name_label_value(val_str_at(v, "value", ""));
        if (why)
            check_fail(c, CAUSE_INVALID, "operator", val_get(v, "value"), "%s", why);
    } else if (streq(op, "Exists")) {
        if (*val_str_at(v, "value", ""))
            check_fail(c, CAUSE_INVALID, "operator", v, "value must be empty when `operator` is 'Exists'");
    } else {
        check_fail(c, CAUSE_NOT_SUPPORTED, "operator", val_get(v, "operator"), "supported values: \"Equal\", \"Exists\"");
    }
    if (!*effect)
        return;
    for (uint32_t i = 0; effects[i]; i++)
        if (streq(effects[i], effect))
            return;
    check_fail(c, CAUSE_NOT_SUPPORTED, "effect", val_get(v, "effect"),
               "supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"");
}

HOOK(v_node_requirement)
{
    const char *op = val_str_at(v, "operator", "");
    uint32_t n = val_len(val_get(v, "values"));
    const char *why = name_qualified(val_str_at(v, "key", ""));
    (void)old;

    if (streq(op, "In") || streq(op, "NotIn")) {
        if (!n)
            check_fail(c, CAUSE_REQUIRED, "values", NULL, "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (streq(op, "Exists") || streq(op, "DoesNotExist")) {
        if (n)
            check_fail(c, CAUSE_FORBIDDEN, "values", NULL, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else if (streq(op, "Gt") || streq(op, "Lt")) {
        if (n != 1)
            check_fail(c, CAUSE_REQUIRED, "values", NULL, "must be specified single value when `operator` is 'Lt' or 'Gt'");
    } else {
        check_fail(c, CAUSE_INVALID, "operator", val_get(v, "operator"), "not a valid selector operator");
    }
    if (why)
        check_fail(c, CAUSE_INVALID, "key", val_get(v, "key"), "%s", why);
}

/* ---- updates of a pod: nearly nothing may change ---- */

static bool same_but_images(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const lists[] = {"containers", "initContainers"};
    struct val *x = val_copy(c->a, v);

    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        struct val *list = val_get(x, lists[l]);
        const struct val *was = val_get(old, lists[l]);
        for (uint32_t i = 0; i < val_items_n_(list) && i < val_items_n_(was); i++) {
            const struct val *img = val_get(&was->items[i], "image");
            if (img)
                val_put(c->a, &list->items[i], "image", img);
        }
    }
    static const char *const free_fields[] = {"activeDeadlineSeconds", "tolerations",
                                              "schedulingGates", "terminationGracePeriodSeconds"};
    for (uint32_t i = 0; i < ARRAY_LEN(free_fields); i++) {
        val_del(x, free_fields[i]);
        if (val_get(old, free_fields[i]))
            val_put(c->a, x, free_fields[i], val_get(old, free_fields[i]));
    }
    if (val_len(val_get(old, "schedulingGates"))) { /* a gated pod may be narrowed */
        static const char *const gated[] = {"nodeSelector", "affinity"};
        for (uint32_t i = 0; i < ARRAY_LEN(gated); i++) {
            val_del(x, gated[i]);
            if (val_get(old, gated[i]))
                val_put(c->a, x, gated[i], val_get(old, gated[i]));
        }
    }
    return val_equal(x, old);
}

static bool covers(const struct val *list, const struct val *all)
{
    VAL_EACH(all, a) {
        bool found = false;
        VAL_EACH(list, b)
            found |= val_equal(a, b);
        if (!found)
            return false;
    }
    return true;
}

static void pod_update(struct check *c, const struct val *spec, const struct val *was)
{
    const struct val *d = val_get(spec, "activeDeadlineSeconds"), *od = val_get(was, "activeDeadlineSeconds");

    if (val_len(val_get(spec, "containers")) != val_len(val_get(was, "containers"))) {
        check_fail(c, CAUSE_FORBIDDEN, "spec.containers", NULL, "pod updates may not add or remove containers");
        return;
    }
    if (val_len(val_get(spec, "initContainers")) != val_len(val_get(was, "initContainers"))) {
        check_fail(c, CAUSE_FORBIDDEN, "spec.initContainers", NULL, "pod updates may not add or remove containers");
        return;
    }
    if (od && (!d || d->i > od->i))
        check_fail(c, CAUSE_INVALID, "spec.activeDeadlineSeconds", d,
                   d ? "must be less than or equal to previous value"
                     : "must not update from a positive integer to nil value");
    if (!covers(val_get(spec, "tolerations"), val_get(was, "tolerations")))
        check_fail(c, CAUSE_FORBIDDEN, "spec.tolerations", NULL,
                   "existing toleration can not be modified except its tolerationSeconds");
    const struct val *gates = val_get(spec, "schedulingGates"), *had = val_get(was, "schedulingGates");
    for (uint32_t i = 0; i < val_items_n_(gates); i++)
        if (!has_named(had, val_str_at(&gates->items[i], "name", "")))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "spec.schedulingGates[%u].name", i),
                       NULL, "only deletion is allowed, but found new scheduling gate");
    if (!same_but_images(c, spec, was))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL,
                   "pod updates may not change fields other than `spec.containers[*].image`, "
                   "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` "
                   "(only additions to existing tolerations), `spec.terminationGracePeriodSeconds` "
                   "(allow it to be set to 1 if it was previously negative)");
}

HOOK(v_pod)
{
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");
    const struct val *nominated = val_at(v, "status.nominatedNodeName");

    if (streq(c->sub, "status") && nominated && nominated->n &&
        !streq(nominated->s, val_str_at(old, "status.nominatedNodeName", ""))) {
        if (*val_str_at(spec, "nodeName", ""))
            check_fail(c, CAUSE_FORBIDDEN, "status.nominatedNodeName", NULL,
                       "may not be set on a pod that has its node");
        else if (name_dns_subdomain(nominated->s))
            check_fail(c, CAUSE_INVALID, "status.nominatedNodeName", nominated, "%s",
                       name_dns_subdomain(nominated->s));
    }

    if (!c->old_root) {
        if (val_len(val_get(spec, "schedulingGates")) && *val_str_at(spec, "nodeName", ""))
            check_fail(c, CAUSE_FORBIDDEN, "spec.nodeName", NULL,
                       "cannot be set until all schedulingGates have been cleared");
        return;
    }
    if (!*c->sub)
        pod_update(c, spec, was);
    if (streq(c->sub, "ephemeralcontainers")) {
        const struct val *now = val_get(spec, "ephemeralContainers"),
                         *had = val_get(was, "ephemeralContainers");
        for (uint32_t i = 0; i < val_items_n_(had); i++) {
            bool same = false;
            VAL_EACH(now, n)
                same |= val_equal(n, &had->items[i]);
            if (!same)
                check_fail(c, CAUSE_FORBIDDEN, "spec.ephemeralContainers", NULL,
                           "existing ephemeral containers may not be removed or changed");
        }
    }
}
