/* schema/rules_pod.c - what pods and pod templates must keep beyond what the kinds files say. */
#include "schema/rules_int.h"

#include "schema/rules_pod.h"

#include "codec/quantity.h"

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

static bool has_named(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            return true;
    return false;
}

static const struct val *by_name(const struct val *list, const char *key, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, key, ""), name))
            return it;
    return NULL;
}

static void mount_modes(struct check *c, const char *at, const struct val *ctr, const struct val *m)
{
    static const char *const known[] = {"None", "HostToContainer", "Bidirectional"};
    const struct val *prop = val_get(m, "mountPropagation"), *rro = val_get(m, "recursiveReadOnly");
    const char *how = val_text(prop, ""), *deep = val_text(rro, "");
    bool ok = !prop;

    for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
        ok |= streq(known[i], how);
    if (!ok)
        check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.mountPropagation", at), prop,
                   "supported values: \"Bidirectional\", \"HostToContainer\", \"None\"");
    if (streq(how, "Bidirectional") && !val_bool_at(ctr, "securityContext.privileged", false))
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.mountPropagation", at), NULL,
                   "Bidirectional mount propagation is available only to privileged containers");
    if (!rro || streq(deep, "Disabled"))
        return;
    if (!streq(deep, "Enabled") && !streq(deep, "IfPossible")) {
        check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.recursiveReadOnly", at), rro,
                   "supported values: \"Disabled\", \"Enabled\", \"IfPossible\"");
        return;
    }
    if (!val_bool_at(m, "readOnly", false))
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.recursiveReadOnly", at), NULL,
                   "may only be specified when readOnly is true");
    if (prop && !streq(how, "None"))
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.recursiveReadOnly", at), NULL,
                   "may only be specified when mountPropagation is None or not specified");
}

static void local_path(struct check *c, const char *rel, const struct val *v)
{
    const char *s = val_text(v, "");
    const struct named_check *up = named_check_find("no-backsteps", 12);

    if (*s == '/')
        check_fail(c, CAUSE_INVALID, rel, v, "must be a relative path");
    if (*s && up->fn(s))
        check_fail(c, CAUSE_INVALID, rel, v, "%s", up->fn(s));
}

static void devices(struct check *c, const char *at, const struct val *ctr, const struct map *vols)
{
    const struct val *list = val_get(ctr, "volumeDevices"), *mounted = val_get(ctr, "volumeMounts");
    struct map names = {0}, paths = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *d = &list->items[i], *vol;
        const char *name = val_str_at(d, "name", ""), *path = val_str_at(d, "devicePath", "");
        const char *rel = arena_printf(c->a, "%s.volumeDevices[%u].name", at, i);
        const char *prel = arena_printf(c->a, "%s.volumeDevices[%u].devicePath", at, i);
        vol = map_get(vols, name);
        if (vol && !val_get(vol, "persistentVolumeClaim") && !val_get(vol, "ephemeral"))
            check_fail(c, CAUSE_INVALID, rel, val_get(d, "name"), "can only use volume source type of "
                       "PersistentVolumeClaim or Ephemeral for block mode");
        if (!vol)
            check_fail(c, CAUSE_NOT_FOUND, rel, val_get(d, "name"), "%s", "");
        if (*name && map_put(&names, name, (void *)(uintptr_t)d))
            check_fail(c, CAUSE_INVALID, rel, val_get(d, "name"), "must be unique");
        if (map_put(&paths, *path ? path : " ", (void *)(uintptr_t)d))
            check_fail(c, CAUSE_INVALID, prel, val_get(d, "devicePath"), "must be unique");
        if (by_name(mounted, "name", name))
            check_fail(c, CAUSE_INVALID, rel, val_get(d, "name"), "must not already exist in volumeMounts");
        if (by_name(mounted, "mountPath", path))
            check_fail(c, CAUSE_INVALID, prel, val_get(d, "devicePath"),
                       "must not already exist as a path in volumeMounts");
    }
    map_done(&names);
    map_done(&paths);
}

/* What is wrong with a sub-path or a mode is told at the list, as upstream does. */
static void mounts(struct check *c, const char *at, const struct val *ctr, const struct map *vols)
{
    const struct val *list = val_get(ctr, "volumeMounts"), *devs = val_get(ctr, "volumeDevices");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *m = &list->items[i];
        const char *name = val_str_at(m, "name", ""), *path = val_str_at(m, "mountPath", "");
        const char *whole = arena_printf(c->a, "%s.volumeMounts", at);
        if (!map_get(vols, name))
            check_fail(c, CAUSE_NOT_FOUND, arena_printf(c->a, "%s[%u].name", whole, i),
                       val_get(m, "name"), "%s", "");
        if (map_put(&seen, *path ? path : " ", (void *)(uintptr_t)m))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].mountPath", whole, i),
                       val_get(m, "mountPath"), "must be unique");
        if (by_name(devs, "name", name))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].name", whole, i), val_get(m, "name"),
                       "must not already exist in volumeDevices");
        if (by_name(devs, "devicePath", path))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].mountPath", whole, i), val_get(m, "mountPath"),
                       "must not already exist as a path in volumeDevices");
        if (*val_str_at(m, "subPath", "") && *val_str_at(m, "subPathExpr", ""))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].subPathExpr", whole, i),
                       val_get(m, "subPathExpr"), "subPathExpr and subPath are mutually exclusive");
        local_path(c, arena_printf(c->a, "%s.subPath", whole), val_get(m, "subPath"));
        local_path(c, arena_printf(c->a, "%s.subPathExpr", whole), val_get(m, "subPathExpr"));
        mount_modes(c, whole, ctr, m);
    }
    map_done(&seen);
    devices(c, at, ctr, vols);
}

static void env_from(struct check *c, const char *at, const struct val *list)
{
    VAL_EACH(list, it) {
        uint32_t n = (val_get(it, "configMapRef") != NULL) + (val_get(it, "secretRef") != NULL);
        if (n != 1)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.envFrom", at), val_str(c->a, ""),
                       n ? "may not have more than one field specified at a time"
                         : "must specify one of: `configMapRef` or `secretRef`");
    }
}

static void resize_policies(struct check *c, const char *at, const struct val *ctr, bool never)
{
    const struct val *list = val_get(ctr, "resizePolicy");
    const char *rel = arena_printf(c->a, "%s.resizePolicy", at);
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *p = &list->items[i];
        const char *name = val_str_at(p, "resourceName", ""), *how = val_str_at(p, "restartPolicy", "");
        if (map_put(&seen, *name ? name : " ", (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s[%u]", rel, i), val_get(p, "resourceName"), "%s", "");
        if (!*name)
            check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
        else if (!streq(name, "cpu") && !streq(name, "memory"))
            check_fail(c, CAUSE_NOT_SUPPORTED, rel, val_get(p, "resourceName"), "supported values: \"cpu\", \"memory\"");
        if (!*how)
            check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
        else if (!streq(how, "NotRequired") && !streq(how, "RestartContainer"))
            check_fail(c, CAUSE_NOT_SUPPORTED, rel, val_get(p, "restartPolicy"),
                       "supported values: \"NotRequired\", \"RestartContainer\"");
        if (never && !streq(how, "NotRequired"))
            check_fail(c, CAUSE_INVALID, rel, val_get(p, "restartPolicy"),
                       "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
    }
    map_done(&seen);
}

static void restart_rules(struct check *c, const char *at, const struct val *ctr)
{
    const struct val *policy = val_get(ctr, "restartPolicy"), *rules = val_get(ctr, "restartPolicyRules");
    const char *rel = arena_printf(c->a, "%s.restartPolicy", at), *s = val_text(policy, "");

    if (!policy && val_len(rules))
        check_fail(c, CAUSE_REQUIRED, rel, NULL, "must specify restartPolicy when restart rules are used");
    if (policy && !streq(s, "Always") && !streq(s, "Never") && !streq(s, "OnFailure"))
        check_fail(c, CAUSE_NOT_SUPPORTED, rel, policy, "supported values: \"Always\", \"Never\", \"OnFailure\"");
    if (val_len(rules) > 20)
        check_fail(c, CAUSE_TOO_MANY, arena_printf(c->a, "%s.restartPolicyRules", at), NULL, "must have at most 20 items");
    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *r = &rules->items[i], *codes = val_get(r, "exitCodes");
        const char *base = arena_printf(c->a, "%s.restartPolicyRules[%u]", at, i), *op;
        if (!streq(val_str_at(r, "action", ""), "Restart"))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.action", base), val_get(r, "action"),
                       "supported values: \"Restart\"");
        if (!codes) {
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.exitCodes", base), NULL, "must be specified");
            continue;
        }
        op = val_str_at(codes, "operator", "");
        if (!streq(op, "In") && !streq(op, "NotIn"))
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.exitCodes.operator", base),
                       val_get(codes, "operator"), "supported values: \"In\", \"NotIn\"");
        if (val_len(val_get(codes, "values")) > 255)
            check_fail(c, CAUSE_TOO_MANY, arena_printf(c->a, "%s.exitCodes.values", base), NULL,
                       "must have at most 255 items");
    }
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

/* Two ports of the pod's containers on one port of the node. */
static void host_ports(struct check *c, const char *at, const struct val *ctr, struct map *seen)
{
    const struct val *list = val_get(ctr, "ports");

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *p = &list->items[i];
        int64_t host = val_int_at(p, "hostPort", 0);
        const char *key = arena_printf(c->a, "%s/%s/%lld", val_str_at(p, "protocol", ""),
                                       val_str_at(p, "hostIP", ""), (long long)host);
        if (host && map_put(seen, key, (void *)(uintptr_t)p))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s.ports[%u].hostPort", at, i),
                       val_str(c->a, key), "%s", "");
    }
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
                       struct map *seen, const struct map *vols)
{
    struct map host = {0};
    const struct val *list = val_get(spec, list_name);
    bool host_network = val_bool_at(spec, "hostNetwork", false);

    unique_names(c, list_name, list, "name", seen);
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *ctr = &list->items[i];
        const char *at = arena_printf(c->a, "%s[%u]", list_name, i);
        bool sidecar = init && streq(val_str_at(ctr, "restartPolicy", ""), "Always");
        image(c, at, ctr);
        ports(c, at, ctr, host_network);
        mounts(c, at, ctr, vols);
        env_from(c, at, val_get(ctr, "envFrom"));
        resize_policies(c, at, ctr, streq(val_str_at(spec, "restartPolicy", ""), "Never"));
        restart_rules(c, at, ctr);
        if (init) { /* they run one after the other */
            map_done(&host);
            host = (struct map){0};
        }
        host_ports(c, init ? list_name : at, ctr, &host);
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
    map_done(&host);
}

static void ephemeral(struct check *c, const struct val *spec, struct map *seen, const struct map *vols)
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
        mounts(c, at, ctr, vols);
        env_from(c, at, val_get(ctr, "envFrom"));
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

static void dns(struct check *c, const struct val *conf, bool none)
{
    const struct val *servers = val_get(conf, "nameservers"), *searches = val_get(conf, "searches");
    const struct val *options = val_get(conf, "options");
    size_t chars = 0;

    if (none && !val_len(servers)) {
        check_fail(c, CAUSE_REQUIRED, conf ? "dnsConfig.nameservers" : "dnsConfig", NULL,
                   "must provide at least one DNS nameserver when `dnsPolicy` is None");
        return;
    }
    if (val_len(servers) > 3)
        check_fail(c, CAUSE_INVALID, "dnsConfig.nameservers", servers, "must not have more than 3 nameservers");
    if (val_len(searches) > 32)
        check_fail(c, CAUSE_INVALID, "dnsConfig.searches", searches, "must not have more than 32 search paths");
    VAL_EACH(searches, s)
        chars += strlen(val_text(s, "")) + (chars != 0);
    if (chars > 2048)
        check_fail(c, CAUSE_INVALID, "dnsConfig.searches", searches, "must not have more than 2048 characters "
                   "(including spaces) in the search list");
    for (uint32_t i = 0; i < val_items_n_(searches); i++) {
        const struct named_check *named = named_check_find("dns-underscore", 14);
        const char *s = val_text(&searches->items[i], ""), *whys[4];
        if (streq(s, "."))
            continue;
        uint32_t bad = name_whys(named->fn, str_ends(s, ".") ? arena_strndup(c->a, s, strlen(s) - 1) : s, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "dnsConfig.searches[%u]", i), &searches->items[i],
                       "%s", whys[k]);
    }
    for (uint32_t i = 0; i < val_items_n_(options); i++)
        if (!*val_str_at(&options->items[i], "name", ""))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "dnsConfig.options[%u]", i), NULL, "must not be empty");
}

/* matchLabelKeys and mismatchLabelKeys narrow a selector: they need one. */
static void label_keys(struct check *c, const char *at, const char *name, const struct val *v)
{
    const struct val *keys = val_get(v, name);

    if (val_len(keys) && !val_get(v, "labelSelector")) {
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s%s", at, name), NULL,
                   "must not be specified when labelSelector is not set");
        return;
    }
    for (uint32_t i = 0; i < val_items_n_(keys); i++) {
        const char *whys[4];
        uint32_t bad = name_whys(name_qualified, val_text(&keys->items[i], ""), whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s%s[%u]", at, name, i), &keys->items[i], "%s", whys[k]);
    }
}

static void spread(struct check *c, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *s = &list->items[i], *min = val_get(s, "minDomains");
        const char *at = arena_printf(c->a, "topologySpreadConstraints[%u].", i);
        const char *when = val_str_at(s, "whenUnsatisfiable", ""), *key = val_str_at(s, "topologyKey", "");
        bool twice = false;
        for (uint32_t k = i + 1; k < list->n; k++)
            twice |= streq(key, val_str_at(&list->items[k], "topologyKey", "")) &&
                     streq(when, val_str_at(&list->items[k], "whenUnsatisfiable", ""));
        if (twice)
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s{topologyKey, whenUnsatisfiable}", at), s, "%s", "");
        if (min && !streq(when, "DoNotSchedule"))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%sminDomains", at), min,
                       "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", when);
        label_keys(c, at, "matchLabelKeys", s);
    }
}

HOOK(v_affinity_term)
{
    (void)old;
    label_keys(c, "", "matchLabelKeys", v);
    label_keys(c, "", "mismatchLabelKeys", v);
}

HOOK(v_pod_security)
{
    struct map seen = {0};
    const struct val *list = val_get(v, "sysctls");
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *name = val_str_at(&list->items[i], "name", "");
        if (*name && map_put(&seen, name, (void *)(uintptr_t)list))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "sysctls[%u].name", i),
                       val_get(&list->items[i], "name"), "%s", "");
    }
    map_done(&seen);
}

HOOK(v_apparmor)
{
    const struct val *p = val_get(v, "localhostProfile");
    const char *type = val_str_at(v, "type", ""), *s = val_text(p, "");
    size_t n = strlen(s);
    (void)old;

    if (streq(type, "Localhost")) {
        if (n && (strchr(" \t\r\n", s[0]) || strchr(" \t\r\n", s[n - 1])))
            check_fail(c, CAUSE_INVALID, "localhostProfile", p, "must not be padded with whitespace");
        else if (!n)
            check_fail(c, CAUSE_REQUIRED, "localhostProfile", NULL, "must be set when AppArmor type is Localhost");
        if (n > 4095)
            check_fail(c, CAUSE_TOO_LONG, "localhostProfile", NULL, "may not be more than 4095 bytes");
    } else if ((streq(type, "RuntimeDefault") || streq(type, "Unconfined")) && p) {
        check_fail(c, CAUSE_INVALID, "localhostProfile", p, "can only be set when AppArmor type is Localhost");
    }
}

/* What pods of one host may not have together. */
static void host_rules(struct check *c, const struct val *spec)
{
    static const char *const lists[] = {"containers", "initContainers"};
    const struct val *users = val_get(spec, "hostUsers"), *full = val_get(spec, "hostnameOverride");
    bool net = val_bool_at(spec, "hostNetwork", false), pid = val_bool_at(spec, "hostPID", false);

    if (users && !users->b) {
        if (net)
            check_fail(c, CAUSE_FORBIDDEN, "hostNetwork", NULL, "when `hostUsers` is false");
        if (pid)
            check_fail(c, CAUSE_FORBIDDEN, "HostPID", NULL, "when `hostUsers` is false");
        if (val_bool_at(spec, "hostIPC", false))
            check_fail(c, CAUSE_FORBIDDEN, "HostIPC", NULL, "when `hostUsers` is false");
        for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
            const struct val *list = val_get(spec, lists[l]);
            for (uint32_t i = 0; i < val_items_n_(list); i++)
                if (val_len(val_get(&list->items[i], "volumeDevices")))
                    check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s[%u].volumeDevices", lists[l], i), NULL,
                               "when `hostUsers` is false");
        }
    }
    if (pid && val_bool_at(spec, "shareProcessNamespace", false))
        check_fail(c, CAUSE_INVALID, "securityContext.shareProcessNamespace", val_get(spec, "shareProcessNamespace"),
                   "ShareProcessNamespace and HostPID cannot both be enabled");
    if (full && val_bool_at(spec, "setHostnameAsFQDN", false))
        check_fail(c, CAUSE_FORBIDDEN, "hostnameOverride", NULL, "may not be specified when setHostnameAsFQDN is true");
    if (full && net)
        check_fail(c, CAUSE_FORBIDDEN, "hostnameOverride", NULL, "may not be specified when hostNetwork is true");
    if (full && full->n > 64)
        check_fail(c, CAUSE_TOO_LONG, "hostnameOverride", NULL, "may not be more than 64 bytes");
    VAL_EACH_MEMBER(val_get(spec, "overhead"), m)
        if (quantity_num(&m->v, 0) < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "overhead.limits[%s]", m->key), &m->v,
                       "must be greater than or equal to 0");
}

static void scheduling(struct check *c, const struct val *spec)
{
    const struct val *gates = val_get(spec, "schedulingGates");
    struct map seen = {0};

    for (uint32_t i = 0; i < val_items_n_(gates); i++) {
        const char *name = val_str_at(&gates->items[i], "name", ""), *whys[4];
        uint32_t bad = name_whys(name_qualified, name, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "schedulingGates[%u]", i),
                       val_get(&gates->items[i], "name"), "%s", whys[k]);
        if (map_put(&seen, *name ? name : " ", (void *)(uintptr_t)gates))
            check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "schedulingGates[%u]", i),
                       val_get(&gates->items[i], "name"), "%s", "");
    }
    map_done(&seen);
    validate_labels(c, "nodeSelector", val_get(spec, "nodeSelector"));
    dns(c, val_get(spec, "dnsConfig"), streq(val_str_at(spec, "dnsPolicy", ""), "None"));
    spread(c, val_get(spec, "topologySpreadConstraints"));
    const struct val *deadline = val_get(spec, "activeDeadlineSeconds");
    if (deadline && (deadline->i < 1 || deadline->i > INT32_MAX))
        check_fail(c, CAUSE_INVALID, "activeDeadlineSeconds", deadline,
                   "must be between 1 and 2147483647, inclusive");
}

/* The pods of a stateful set mount its claims as volumes, too: those come first. */
static const struct val *with_claims(struct check *c, const struct val *volumes)
{
    const struct val *claims = c->r && streq(c->r->kind, "StatefulSet") ? val_at(c->root, "spec.volumeClaimTemplates")
                                                                         : NULL;
    if (!val_len(claims))
        return volumes;
    struct val *all = val_list(c->a);
    VAL_EACH(claims, t) {
        const char *name = val_str_at(t, "metadata.name", "");
        struct val *v = val_map(c->a);
        if (by_name(all, "name", name))
            continue;
        val_put_str(c->a, v, "name", name);
        val_put_str(c->a, val_need_map(c->a, v, "persistentVolumeClaim"), "claimName", name);
        val_push(c->a, all, v);
    }
    uint32_t own = val_len(all);
    VAL_EACH(volumes, v) {
        bool hidden = false;
        for (uint32_t i = 0; i < own; i++)
            hidden |= streq(val_str_at(&all->items[i], "name", ""), val_str_at(v, "name", ""));
        if (!hidden)
            val_push(c->a, all, v);
    }
    return all;
}

HOOK(v_podspec)
{
    struct map seen = {0}, vols = {0};
    (void)old;

    pod_volumes(c, with_claims(c, val_get(v, "volumes")), &vols);
    containers(c, v, "containers", false, &seen, &vols);
    containers(c, v, "initContainers", true, &seen, &vols);
    ephemeral(c, v, &seen, &vols);
    operating_system(c, v);
    scheduling(c, v);
    host_rules(c, v);
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
    VAL_EACH(val_at(v, "httpGet.httpHeaders"), h) { /* told at the list */
        const struct named_check *named = named_check_find("header-name", 11);
        const char *why = named->fn(val_str_at(h, "name", ""));
        if (why)
            check_fail(c, CAUSE_INVALID, "httpGet.httpHeaders", val_get(h, "name"), "%s", why);
    }
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
    static const char *const supported[] = {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
        "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP",
        "status.podIPs", NULL};
    const struct val *from = val_get(v, "valueFrom");
    (void)old;

    if (!from)
        return;
    uint32_t n = val_len(from);
    if (n == 0)
        check_fail(c, CAUSE_INVALID, "valueFrom", val_str(c->a, ""),
                   "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
                   "`secretKeyRef` or `fileKeyRef`");
    else if (*val_str_at(v, "value", ""))
        check_fail(c, CAUSE_INVALID, "valueFrom", val_str(c->a, ""),
                   "may not be specified when `value` is not empty");
    else if (n > 1)
        check_fail(c, CAUSE_INVALID, "valueFrom", val_str(c->a, ""),
                   "may not have more than one field specified at a time");
    if (val_get(from, "fieldRef"))
        pod_field_selector(c, "valueFrom.fieldRef", val_get(from, "fieldRef"), supported);
    if (val_get(from, "resourceFieldRef"))
        pod_resource_selector(c, "valueFrom.resourceFieldRef", val_get(from, "resourceFieldRef"), false);
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

/* Values are judged in what must hold, not in what is preferred. */
static void node_requirement(struct check *c, const char *at, const struct val *v, bool values)
{
    const char *op = val_str_at(v, "operator", ""), *whys[4], *why;
    const struct val *list = val_get(v, "values");
    uint32_t n = val_len(list), bad = name_whys(name_qualified, val_str_at(v, "key", ""), whys);

    if (streq(op, "In") || streq(op, "NotIn")) {
        if (!n)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.values", at), NULL, "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (streq(op, "Exists") || streq(op, "DoesNotExist")) {
        if (n)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.values", at), NULL, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else if (streq(op, "Gt") || streq(op, "Lt")) {
        if (n != 1)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.values", at), NULL, "must be specified single value when `operator` is 'Lt' or 'Gt'");
    } else {
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.operator", at), val_get(v, "operator"), "not a valid selector operator");
    }
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.key", at), val_get(v, "key"), "%s", whys[i]);
    for (uint32_t i = 0; i < n && values; i++)
        if ((why = name_label_value(val_text(&list->items[i], ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.values[%u]", at, i), &list->items[i], "%s", why);
}

static void node_field(struct check *c, const char *at, const struct val *v)
{
    const char *op = val_str_at(v, "operator", ""), *whys[4];
    const struct val *list = val_get(v, "values");

    if (!streq(op, "In") && !streq(op, "NotIn"))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.operator", at), val_get(v, "operator"), "not a valid selector operator");
    else if (val_len(list) != 1)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.values", at), NULL,
                   "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
    if (!streq(val_str_at(v, "key", ""), "metadata.name")) {
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.key", at), val_get(v, "key"), "not a valid field selector key");
        return;
    }
    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        uint32_t bad = name_whys(name_dns_subdomain, val_text(&list->items[i], ""), whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.values[%u]", at, i), &list->items[i], "%s", whys[k]);
    }
}

HOOK(v_node_term)
{
    const struct val *exprs = val_get(v, "matchExpressions"), *fields = val_get(v, "matchFields");
    bool values = strstr(c->path, "preferredDuring") == NULL;
    (void)old;

    for (uint32_t i = 0; i < val_items_n_(exprs); i++)
        node_requirement(c, arena_printf(c->a, "matchExpressions[%u]", i), &exprs->items[i], values);
    for (uint32_t i = 0; i < val_items_n_(fields); i++)
        node_field(c, arena_printf(c->a, "matchFields[%u]", i), &fields->items[i]);
}

/* ---- updates of a pod: nearly nothing may change ---- */

/* What an update may give anew is taken from the old pod before the two are compared. */
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
    const char *const free_fields[] = {
        "activeDeadlineSeconds", "tolerations", "schedulingGates",
        val_int_at(old, "terminationGracePeriodSeconds", 0) < 0 &&
                val_int_at(v, "terminationGracePeriodSeconds", 0) == 1 ? "terminationGracePeriodSeconds" : NULL,
        val_len(val_get(old, "schedulingGates")) ? "nodeSelector" : NULL}; /* a gated pod may be narrowed */
    for (uint32_t i = 0; i < ARRAY_LEN(free_fields); i++) {
        if (!free_fields[i])
            continue;
        val_del(x, free_fields[i]);
        if (val_get(old, free_fields[i]))
            val_put(c->a, x, free_fields[i], val_get(old, free_fields[i]));
    }
    if (val_len(val_get(old, "schedulingGates"))) {
        const struct val *was = val_get(old, "affinity"), *node = val_get(was, "nodeAffinity");
        struct val *now = val_get(x, "affinity");
        if (!now && node)
            now = val_put(c->a, x, "affinity", val_map(c->a));
        if (now) {
            val_del(now, "nodeAffinity");
            if (node)
                val_put(c->a, now, "nodeAffinity", node);
            if (!val_len(now) && !was)
                val_del(x, "affinity");
        }
    }
    return val_equal(x, old);
}

/* Of a gated pod: what must hold of nodes may only be said more narrowly, term by term. */
static void narrowed(struct check *c, const struct val *spec, const struct val *was)
{
    static const char at[] = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    static const char path[] = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    static const char *const lists[] = {"matchExpressions", "matchFields"};
    const struct val *old_req = val_at(was, path), *req = val_at(spec, path);
    const struct val *terms = val_get(req, "nodeSelectorTerms"), *old_terms = val_get(old_req, "nodeSelectorTerms");

    if (!val_len(val_get(was, "schedulingGates")))
        return;
    VAL_EACH_MEMBER(val_get(was, "nodeSelector"), m) {
        const struct val *now = val_getn(val_get(spec, "nodeSelector"), m->key, m->n);
        if (!now || !val_equal(now, &m->v)) {
            check_fail(c, CAUSE_INVALID, "spec.nodeSelector", val_get(spec, "nodeSelector"),
                       "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
            break;
        }
    }
    if (!old_req || (req && val_equal(req, old_req)))
        return;
    if (!req || val_len(terms) != val_len(old_terms)) {
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.nodeSelectorTerms", at), terms,
                   "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (uint32_t i = 0; i < val_len(terms); i++) {
        bool ok = true;
        for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
            const struct val *now = val_get(&terms->items[i], lists[l]), *had = val_get(&old_terms->items[i], lists[l]);
            ok &= val_len(now) >= val_len(had);
            for (uint32_t k = 0; k < val_len(had) && k < val_len(now); k++)
                ok &= val_equal(&now->items[k], &had->items[k]);
        }
        bool bare = !val_len(val_get(&old_terms->items[i], lists[0])) && !val_len(val_get(&old_terms->items[i], lists[1]));
        if (!ok || (bare && !val_equal(&terms->items[i], &old_terms->items[i])))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.nodeSelectorTerms[%u]", at, i), &terms->items[i],
                       "only additions are allowed (no mutations or deletions)");
    }
}

/* Is each toleration still there, but for its seconds? */
static bool covers(struct check *c, const struct val *list, const struct val *all)
{
    VAL_EACH(all, a) {
        bool found = false;
        struct val *x = val_copy(c->a, a);
        val_del(x, "tolerationSeconds");
        VAL_EACH(list, b) {
            struct val *y = val_copy(c->a, b);
            val_del(y, "tolerationSeconds");
            found |= val_equal(x, y);
        }
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
    if (d && (d->i < 0 || d->i > INT32_MAX || (od && d->i > od->i))) {
        check_fail(c, CAUSE_INVALID, "spec.activeDeadlineSeconds", d,
                   od && d->i > od->i ? "must be less than or equal to previous value"
                                      : "must be between 0 and 2147483647, inclusive");
        return;
    }
    if (od && !d)
        check_fail(c, CAUSE_INVALID, "spec.activeDeadlineSeconds", d,
                   "must not update from a positive integer to nil value");
    if (!covers(c, val_get(spec, "tolerations"), val_get(was, "tolerations")))
        check_fail(c, CAUSE_FORBIDDEN, "spec.tolerations", NULL,
                   "existing toleration can not be modified except its tolerationSeconds");
    const struct val *gates = val_get(spec, "schedulingGates"), *had = val_get(was, "schedulingGates");
    for (uint32_t i = 0; i < val_items_n_(gates); i++) { /* a name given twice is told once, the last */
        const char *name = val_str_at(&gates->items[i], "name", "");
        bool later = false;
        for (uint32_t k = i + 1; k < gates->n; k++)
            later |= streq(name, val_str_at(&gates->items[k], "name", ""));
        if (!later && !has_named(had, name))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "spec.schedulingGates[%u].name", i),
                       NULL, "only deletion is allowed, but found new scheduling gate");
    }
    narrowed(c, spec, was);
    if (!same_but_images(c, spec, was))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL,
                   "pod updates may not change fields other than `spec.containers[*].image`, "
                   "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` "
                   "(only additions to existing tolerations), `spec.terminationGracePeriodSeconds` "
                   "(allow it to be set to 1 if it was previously negative)");
}

static void status_ips(struct check *c, const char *name, const struct val *list, const struct val *had)
{
    const struct named_check *ip = named_check_find("ip", 2);
    uint32_t six = 0;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *s = val_str_at(&list->items[i], "ip", "");
        bool kept = false;
        VAL_EACH(had, o)
            kept |= streq(s, val_str_at(o, "ip", ""));
        if (!kept && ip->fn(s))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.%s[%u]", name, i), val_get(&list->items[i], "ip"),
                       "%s", ip->fn(s));
        six += strchr(s, ':') != NULL;
    }
    if (val_len(list) > 2 || (val_len(list) == 2 && six != 1))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.%s", name), list,
                   "may specify no more than one IP for each IP family");
}

/* A container that has ended for good stays so. */
static void container_states(struct check *c, const struct val *v, const struct val *old, const char *restart)
{
    const struct val *list = val_at(v, "status.containerStatuses"), *had = val_at(old, "status.containerStatuses");

    if (streq(restart, "Always"))
        return;
    for (uint32_t i = 0; i < val_items_n_(had); i++) {
        const struct val *o = &had->items[i], *n = by_name(list, "name", val_str_at(o, "name", ""));
        const struct val *end = val_at(o, "state.terminated");
        if (!end || !n || val_at(n, "state.terminated"))
            continue;
        if (streq(restart, "OnFailure") && val_int_at(end, "exitCode", 0) != 0)
            continue;
        for (uint32_t k = 0; k < val_items_n_(list); k++)
            if (&list->items[k] == n)
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "status.containerStatuses[%u].state", k), NULL,
                           "may not be transitioned to non-terminated state");
    }
}

static void pod_status(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const own[] = {"PodScheduled", "Ready", "Initialized"};
    const struct val *conds = val_at(v, "status.conditions"), *nominated = val_at(v, "status.nominatedNodeName");
    const char *now = val_str_at(v, "status.qosClass", ""), *was = val_str_at(old, "status.qosClass", "");

    for (uint32_t i = 0; i < val_items_n_(conds); i++) {
        const char *type = val_str_at(&conds->items[i], "type", ""), *whys[4];
        bool system = false;
        for (uint32_t k = 0; k < ARRAY_LEN(own); k++)
            system |= streq(own[k], type);
        if (val_int_at(&conds->items[i], "observedGeneration", 0) < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.conditions[%u].observedGeneration", i),
                       val_get(&conds->items[i], "observedGeneration"), "must be a non-negative integer");
        uint32_t bad = system ? 0 : name_whys(name_qualified, type, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.conditions[%u].Type", i),
                       val_get(&conds->items[i], "type"), "%s", whys[k]);
    }
    if (nominated && nominated->n && !streq(nominated->s, val_str_at(old, "status.nominatedNodeName", ""))) {
        const char *why = name_dns_subdomain(nominated->s);
        if (why)
            check_fail(c, CAUSE_INVALID, "status.nominatedNodeName", nominated, "%s", why);
        if (*val_str_at(old, "spec.nodeName", ""))
            check_fail(c, CAUSE_FORBIDDEN, "status.nominatedNodeName", NULL,
                       "may not be set on pods that are already bound to a node");
    }
    if (val_int_at(v, "status.observedGeneration", 0) < 0)
        check_fail(c, CAUSE_INVALID, "status.observedGeneration", val_at(v, "status.observedGeneration"),
                   "must be a non-negative integer");
    if (!streq(now, was))
        check_fail(c, CAUSE_INVALID, "status.qosClass", val_at(v, "status.qosClass"), "field is immutable");
    container_states(c, v, old, val_str_at(old, "spec.restartPolicy", "Always"));
    status_ips(c, "podIPs", val_at(v, "status.podIPs"), val_at(old, "status.podIPs"));
    status_ips(c, "hostIPs", val_at(v, "status.hostIPs"), val_at(old, "status.hostIPs"));
}

/* ---- a resize ---- */

static bool gone(const struct val *now, const struct val *was)
{
    VAL_EACH_MEMBER(was, m)
        if (!val_get(now, m->key))
            return true;
    return false;
}

/* Nothing but cpu and memory: all else that is there is as it was, and nothing is new. */
static bool others_differ(const struct val *now, const struct val *was)
{
    static const char *const parts[] = {"requests", "limits"};
    const struct val *x = val_get(now, "claims"), *y = val_get(was, "claims");

    if (val_len(x) != val_len(y) || (x && y && !val_equal(x, y)))
        return true;
    for (uint32_t i = 0; i < ARRAY_LEN(parts); i++)
        VAL_EACH_MEMBER(val_get(now, parts[i]), m) {
            const struct val *had = val_get(val_get(was, parts[i]), m->key);
            if (!streq(m->key, "cpu") && !streq(m->key, "memory") && (!had || quantity_of(had) != quantity_of(&m->v)))
                return true;
        }
    return false;
}

static bool restarts_on_resize(const struct val *ctr)
{
    VAL_EACH(val_get(ctr, "resizePolicy"), p)
        if (streq(val_str_at(p, "restartPolicy", ""), "RestartContainer"))
            return true;
    return false;
}

static void resized_container(struct check *c, const char *list, uint32_t i, const struct val *now, const struct val *was)
{
    const struct val *x = val_get(now, "resources"), *y = val_get(was, "resources");
    const char *at = arena_printf(c->a, "spec.%s[%u]", list, i);
    bool init = streq(list, "initContainers");

    if (gone(val_get(x, "requests"), val_get(y, "requests")))
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.resources.requests", at), NULL, "resource requests cannot be removed");
    if (gone(val_get(x, "limits"), val_get(y, "limits")))
        check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.resources.limits", at), NULL, "resource limits cannot be removed");
    if (others_differ(x, y))
        check_fail(c, CAUSE_FORBIDDEN, init ? at : "spec", NULL, init ? "only cpu and memory resources for init or sidecar containers are mutable"
                                                                      : "only cpu and memory resources are mutable");
    if (init && !streq(val_str_at(was, "restartPolicy", ""), "Always") && restarts_on_resize(now) && !val_equal(now, was))
        check_fail(c, CAUSE_FORBIDDEN, at, NULL, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
}

/* Does the node say what a running container has? Then it can change it. */
static bool node_resizes(const struct val *pod)
{
    VAL_EACH(val_at(pod, "status.containerStatuses"), s)
        if (val_at(s, "state.running"))
            return val_get(s, "resources") != NULL;
    return true;
}

static void resize(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const lists[] = {"containers", "initContainers"};
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");
    const char *qos = val_str_at(old, "status.qosClass", ""), *os = val_str_at(was, "os.name", "");
    bool same = true;

    if (val_get(val_at(old, "metadata.annotations"), "kubernetes.io/config.mirror") || streq(os, "windows")) {
        check_fail(c, CAUSE_FORBIDDEN, "", NULL, streq(os, "windows") ? "windows pods cannot be resized" : "static pods cannot be resized");
        return;
    }
    if (!streq(*qos ? qos : pod_qos_class(was), pod_qos_class(spec)))
        check_fail(c, CAUSE_INVALID, "spec", val_at(v, "status.qosClass"), "Pod QOS Class may not change as a result of resizing");
    if (!node_resizes(old))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL, "Pod running on node without support for resize");
    if (val_get(was, "resources") && !val_get(spec, "resources"))
        check_fail(c, CAUSE_FORBIDDEN, "spec.resources", NULL, "pod-level resources cannot be removed");
    if (val_len(val_at(old, "status.nodeAllocatableResourceClaimStatuses")))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL, "pods with node allocatable resource claims cannot be resized");
    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *x = val_get(spec, lists[l]), *y = val_get(was, lists[l]);

        if (val_items_n_(x) != val_items_n_(y)) {
            same = false;
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "spec.%s", lists[l]), NULL, "%s may not be added or removed on resize", lists[l]);
            continue;
        }
        for (uint32_t i = 0; i < val_items_n_(x); i++)
            if (!streq(val_str_at(&x->items[i], "name", ""), val_str_at(&y->items[i], "name", ""))) {
                same = false;
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "spec.%s[%u].name", lists[l], i), NULL,
                           "%s may not be renamed or reordered on resize", lists[l]);
            }
    }
    for (uint32_t l = 0; l < ARRAY_LEN(lists) && same; l++)
        for (uint32_t i = 0; i < val_items_n_(val_get(was, lists[l])); i++)
            resized_container(c, lists[l], i, &val_get(spec, lists[l])->items[i], &val_get(was, lists[l])->items[i]);
}

HOOK(v_pod)
{
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");

    if (streq(c->sub, "status"))
        pod_status(c, v, old);
    if (!*c->sub && !*val_str_at(spec, "serviceAccountName", "")) {
        const struct val *vols = val_get(spec, "volumes");
        for (uint32_t i = 0; i < val_items_n_(vols); i++) {
            const struct val *sources = val_at(&vols->items[i], "projected.sources");
            for (uint32_t k = 0; k < val_items_n_(sources); k++)
                if (val_get(&sources->items[k], "serviceAccountToken"))
                    check_fail(c, CAUSE_FORBIDDEN,
                               arena_printf(c->a, "spec.volumes[%u].projected.sources[%u].serviceAccountToken", i, k),
                               NULL, "must not be specified when serviceAccountName is not set");
        }
    }
    if (!c->old_root) {
        if (val_len(val_get(spec, "schedulingGates")) && *val_str_at(spec, "nodeName", ""))
            check_fail(c, CAUSE_FORBIDDEN, "spec.nodeName", NULL,
                       "cannot be set until all schedulingGates have been cleared");
        return;
    }
    if (!*c->sub)
        pod_update(c, spec, was);
    if (streq(c->sub, "resize"))
        resize(c, v, old);
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
