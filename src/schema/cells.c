/* schema/cells.c - cells of tables that a path can not say: what kubectl shows of pods, jobs,
 * services and the like. Each gives text (or a number) for one object. */
#include "schema/schema_int.h"

#include <stdio.h>

char *labels_text(struct arena *a, const struct val *map);
char *label_selector_text(struct arena *a, const struct val *v);

#define CELL(name)                                                                                 \
    static const struct val *name(_unused_ struct arena *a, _unused_ const struct val *o,          \
                                  _unused_ int64_t now_us)

static const struct val *text(struct arena *a, const char *s)
{
    return val_lit(a, s);
}

static const char *at(const struct val *o, const char *path)
{
    return val_str_at(o, path, "");
}

static const struct val *taken(struct arena *a, struct buf *b, const char *otherwise)
{
    const struct val *v = b->n ? val_strn(a, b->p, b->n) : val_lit(a, otherwise);

    buf_done(b);
    return v;
}

static const char *since(struct arena *a, const char *time, int64_t now_us)
{
    int64_t us;

    return *time && time_parse(time, &us) ? age_text(a, now_us - us) : "<unknown>";
}

static const struct val *condition(const struct val *o, const char *path, const char *type)
{
    VAL_EACH(val_at(o, path), c)
        if (streq(val_text(val_get(c, "type"), ""), type))
            return c;
    return NULL;
}

static bool condition_true(const struct val *o, const char *type)
{
    return streq(val_text(val_get(condition(o, "status.conditions", type), "status"), ""), "True");
}

static const struct val *joined(struct arena *a, const struct val *list, const char *key,
                                const char *by, const char *otherwise)
{
    struct buf b = {0};

    VAL_EACH(list, it)
        buf_printf(&b, "%s%s", b.n ? by : "", val_text(key ? val_get(it, key) : it, ""));
    return taken(a, &b, otherwise);
}

/* ---- pods ---- */

struct pod_view {
    int total, ready;
    int64_t restarts;
    int64_t last_restart_us; /* 0: none */
    const char *reason;
};

static bool restartable(const struct val *pod, const char *init_name)
{
    VAL_EACH(val_at(pod, "spec.initContainers"), c)
        if (streq(at(c, "name"), init_name))
            return streq(at(c, "restartPolicy"), "Always");
    return false;
}

static void last_restart(int64_t *last, const struct val *status)
{
    const char *t = at(status, "lastState.terminated.finishedAt");
    int64_t us;

    if (*t && time_parse(t, &us) && us > *last)
        *last = us;
}

static const char *ended(struct arena *a, const struct val *terminated, const char *prefix)
{
    const char *reason = at(terminated, "reason");
    int64_t sig = val_int_at(terminated, "signal", 0);

    if (*reason)
        return arena_printf(a, "%s%s", prefix, reason);
    if (sig)
        return arena_printf(a, "%sSignal:%lld", prefix, (long long)sig);
    return arena_printf(a, "%sExitCode:%lld", prefix,
                        (long long)val_int_at(terminated, "exitCode", 0));
}

/* true: a container of the list still keeps the pod from starting; *side sums the sidecars */
static bool init_containers(struct arena *a, const struct val *pod, struct pod_view *p,
                            struct pod_view *side)
{
    const struct val *list = val_at(pod, "status.initContainerStatuses");

    for (uint32_t i = 0; i < val_len(list); i++) {
        const struct val *s = &list->items[i];
        const struct val *term = val_at(s, "state.terminated");
        const char *waiting = at(s, "state.waiting.reason");
        bool sidecar = restartable(pod, at(s, "name"));
        p->restarts += val_int_at(s, "restartCount", 0);
        last_restart(&p->last_restart_us, s);
        if (sidecar) {
            side->restarts += val_int_at(s, "restartCount", 0);
            last_restart(&side->last_restart_us, s);
        }
        if (term && val_int_at(term, "exitCode", 0) == 0)
            continue;
        if (sidecar && val_bool_at(s, "started", false)) {
            p->ready += val_bool_at(s, "ready", false);
            continue;
        }
        if (term)
            p->reason = ended(a, term, "Init:");
        else if (*waiting && !streq(waiting, "PodInitializing"))
            p->reason = arena_printf(a, "Init:%s", waiting);
        else
            p->reason = arena_printf(a, "Init:%u/%u", i, val_len(val_at(pod, "spec.initContainers")));
        return true;
    }
    return false;
}

static void containers(struct arena *a, const struct val *pod, struct pod_view *p)
{
    const struct val *list = val_at(pod, "status.containerStatuses");
    bool running = false;
    const char *bad = "";

    for (int64_t i = (int64_t)val_len(list) - 1; i >= 0; i--) {
        const struct val *s = &list->items[i];
        const struct val *term = val_at(s, "state.terminated");
        const char *waiting = at(s, "state.waiting.reason");
        p->restarts += val_int_at(s, "restartCount", 0);
        last_restart(&p->last_restart_us, s);
        if (*waiting) {
            p->reason = waiting;
        } else if (term) {
            p->reason = ended(a, term, "");
            if (val_int_at(term, "exitCode", 0))
                bad = p->reason;
        } else if (val_bool_at(s, "ready", false) && val_at(s, "state.running")) {
            running = true;
            p->ready++;
        }
    }
    if (!streq(p->reason, "Completed"))
        return;
    if (running && condition_true(pod, "Ready"))
        p->reason = "Running";
    else if (*bad)
        p->reason = bad;
    else if (running)
        p->reason = "NotReady";
}

static struct pod_view pod_view(struct arena *a, const struct val *o)
{
    struct pod_view p = {.total = (int)val_len(val_at(o, "spec.containers"))};
    struct pod_view side = {0};
    const char *phase = at(o, "status.phase"), *why = at(o, "status.reason");

    p.reason = *why ? why : phase;
    const struct val *scheduled = condition(o, "status.conditions", "PodScheduled");
    if (scheduled && streq(at(scheduled, "reason"), "SchedulingGated"))
        p.reason = "SchedulingGated";
    VAL_EACH(val_at(o, "spec.initContainers"), c)
        p.total += streq(at(c, "restartPolicy"), "Always");
    bool initializing = init_containers(a, o, &p, &side);
    if (!initializing || condition_true(o, "Initialized")) {
        p.restarts = side.restarts;
        p.last_restart_us = side.last_restart_us;
        containers(a, o, &p);
    }
    bool deleting = !val_is_null(val_at(o, "metadata.deletionTimestamp"));
    if (deleting && streq(why, "NodeLost"))
        p.reason = "Unknown";
    else if (deleting && !streq(phase, "Succeeded") && !streq(phase, "Failed"))
        p.reason = "Terminating";
    return p;
}

CELL(pod_ready)
{
    struct pod_view p = pod_view(a, o);

    return val_printf(a, "%d/%d", p.ready, p.total);
}

CELL(pod_status)
{
    return text(a, pod_view(a, o).reason);
}

CELL(pod_restarts)
{
    struct pod_view p = pod_view(a, o);

    if (p.restarts && p.last_restart_us)
        return val_printf(a, "%lld (%s ago)", (long long)p.restarts,
                          age_text(a, now_us - p.last_restart_us));
    return val_printf(a, "%lld", (long long)p.restarts);
}

CELL(pod_ip)
{
    const char *ip = at(o, "status.podIPs[0].ip");

    return text(a, *ip ? ip : "<none>");
}

CELL(pod_gates)
{
    const struct val *gates = val_at(o, "spec.readinessGates");
    int good = 0;

    if (!val_len(gates))
        return text(a, "<none>");
    VAL_EACH(gates, g)
        good += condition_true(o, at(g, "conditionType"));
    return val_printf(a, "%d/%u", good, val_len(gates));
}

/* ---- workloads ---- */

CELL(template_containers)
{
    return joined(a, val_at(o, "spec.template.spec.containers"), "name", ",", "");
}
CELL(template_images)
{
    return joined(a, val_at(o, "spec.template.spec.containers"), "image", ",", "");
}
CELL(podtemplate_containers)
{
    return joined(a, val_at(o, "template.spec.containers"), "name", ",", "");
}
CELL(podtemplate_images)
{
    return joined(a, val_at(o, "template.spec.containers"), "image", ",", "");
}
CELL(cronjob_containers)
{
    return joined(a, val_at(o, "spec.jobTemplate.spec.template.spec.containers"), "name", ",", "");
}
CELL(cronjob_images)
{
    return joined(a, val_at(o, "spec.jobTemplate.spec.template.spec.containers"), "image", ",", "");
}
CELL(cronjob_selector)
{
    return text(a, label_selector_text(a, val_at(o, "spec.jobTemplate.spec.selector")));
}
CELL(cronjob_suspend)
{
    const struct val *v = val_at(o, "spec.suspend");

    return text(a, !v ? "<unset>" : v->b ? "True" : "False");
}
CELL(cronjob_last)
{
    const char *t = at(o, "status.lastScheduleTime");

    return text(a, *t ? since(a, t, now_us) : "<none>");
}

CELL(ready_replicas)
{
    return val_printf(a, "%lld/%lld", (long long)val_int_at(o, "status.readyReplicas", 0),
                      (long long)val_int_at(o, "spec.replicas", 0));
}

CELL(deployment_selector)
{
    const char *s = label_selector_text(a, val_at(o, "spec.selector"));

    return text(a, streq(s, "<none>") ? "" : s);
}

CELL(job_status)
{
    static const struct {
        const char *type, *shown;
    } known[] = {{"Complete", "Complete"}, {"Failed", "Failed"}, {"", "Terminating"},
                 {"Suspended", "Suspended"}, {"FailureTarget", "FailureTarget"},
                 {"SuccessCriteriaMet", "SuccessCriteriaMet"}};

    for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
        if (*known[i].type ? condition_true(o, known[i].type)
                           : !val_is_null(val_at(o, "metadata.deletionTimestamp")))
            return text(a, known[i].shown);
    return text(a, "Running");
}

CELL(job_completions)
{
    long long done = val_int_at(o, "status.succeeded", 0);
    long long parallel = val_int_at(o, "spec.parallelism", 0);

    if (val_at(o, "spec.completions"))
        return val_printf(a, "%lld/%lld", done, (long long)val_int_at(o, "spec.completions", 0));
    if (parallel > 1)
        return val_printf(a, "%lld/1 of %lld", done, parallel);
    return val_printf(a, "%lld/1", done);
}

CELL(job_duration)
{
    int64_t from, to;

    if (!time_parse(at(o, "status.startTime"), &from))
        return text(a, "");
    if (!time_parse(at(o, "status.completionTime"), &to))
        to = now_us;
    return text(a, age_text(a, to - from));
}

CELL(revision_controller)
{
    VAL_EACH(val_at(o, "metadata.ownerReferences"), r)
        if (val_bool_at(r, "controller", false)) {
            const char *slash = strchr(at(r, "apiVersion"), '/');
            char *kind = arena_strdup(a, at(r, "kind"));
            for (char *p = kind; *p; p++)
                *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
            int n = slash ? (int)(slash - at(r, "apiVersion")) : 0;
            return val_printf(a, "%s%s%.*s/%s", kind, n ? "." : "", n, at(r, "apiVersion"),
                              at(r, "name"));
        }
    return text(a, "<none>");
}

/* ---- autoscaling ---- */

CELL(hpa_reference)
{
    return val_printf(a, "%s/%s", at(o, "spec.scaleTargetRef.kind"), at(o, "spec.scaleTargetRef.name"));
}

static void hpa_resource(struct buf *b, const struct val *spec, const struct val *now)
{
    const char *avg = at(spec, "target.averageValue");
    const struct val *use = val_at(spec, "target.averageUtilization");
    const struct val *have = val_at(now, "current.averageUtilization");

    buf_printf(b, "%s: ", at(spec, "name"));
    if (*avg) {
        const char *cur = at(now, "current.averageValue");
        buf_printf(b, "%s/%s", now ? (*cur ? cur : "<nil>") : "<unknown>", avg);
        return;
    }
    if (have)
        buf_printf(b, "%lld%%/", (long long)have->i);
    else
        buf_adds(b, "<unknown>/");
    if (use)
        buf_printf(b, "%lld%%", (long long)use->i);
    else
        buf_adds(b, "<auto>");
}

static void hpa_other(struct buf *b, const struct val *spec, const struct val *now, bool pods)
{
    const char *avg = at(spec, "target.averageValue");

    if (*avg) {
        const char *cur = at(now, "current.averageValue");
        buf_printf(b, "%s/%s%s", *cur ? cur : "<unknown>", avg, pods ? "" : " (avg)");
    } else {
        const char *cur = at(now, "current.value");
        buf_printf(b, "%s/%s", *cur ? cur : "<unknown>", at(spec, "target.value"));
    }
}

CELL(hpa_metrics)
{
    static const struct {
        const char *type, *member;
        int how;
    } known[] = {{"Resource", "resource", 0}, {"ContainerResource", "containerResource", 0},
                 {"Pods", "pods", 1}, {"Object", "object", 2}, {"External", "external", 2}};
    const struct val *specs = val_at(o, "spec.metrics"), *now = val_at(o, "status.currentMetrics");
    struct buf b = {0};

    for (uint32_t i = 0; i < val_len(specs) && i < 2; i++) {
        const char *type = at(&specs->items[i], "type");
        uint32_t k = 0;
        while (k < ARRAY_LEN(known) && !streq(type, known[k].type))
            k++;
        buf_adds(&b, i ? ", " : "");
        if (k == ARRAY_LEN(known)) {
            buf_adds(&b, "<unknown type>");
            continue;
        }
        const struct val *spec = val_get(&specs->items[i], known[k].member);
        const struct val *cur = i < val_len(now) ? val_get(&now->items[i], known[k].member) : NULL;
        if (known[k].how == 0)
            hpa_resource(&b, spec, cur);
        else
            hpa_other(&b, spec, cur, known[k].how == 1);
    }
    if (val_len(specs) > 2)
        buf_printf(&b, " + %u more...", val_len(specs) - 2);
    return taken(a, &b, "<none>");
}

CELL(hpa1_metrics)
{
    const struct val *want = val_at(o, "spec.targetCPUUtilizationPercentage");
    const struct val *have = val_at(o, "status.currentCPUUtilizationPercentage");

    if (!want)
        return text(a, "<none>");
    if (have)
        return val_printf(a, "cpu: %lld%%/%lld%%", (long long)have->i, (long long)want->i);
    return val_printf(a, "cpu: <unknown>/%lld%%", (long long)want->i);
}

/* ---- core ---- */

CELL(config_data)
{
    return val_int(a, (int64_t)val_len(val_get(o, "data")) + val_len(val_get(o, "binaryData")));
}

CELL(phase)
{
    if (!val_is_null(val_at(o, "metadata.deletionTimestamp")))
        return text(a, "Terminating");
    return text(a, at(o, "status.phase"));
}

static const struct val *modes(struct arena *a, const struct val *list)
{
    static const struct {
        const char *mode, *shown;
    } known[] = {{"ReadWriteOnce", "RWO"}, {"ReadOnlyMany", "ROX"}, {"ReadWriteMany", "RWX"},
                 {"ReadWriteOncePod", "RWOP"}};
    struct buf b = {0};

    for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
        VAL_EACH(list, m)
            if (streq(val_text(m, ""), known[i].mode)) {
                buf_printf(&b, "%s%s", b.n ? "," : "", known[i].shown);
                break;
            }
    return taken(a, &b, "");
}

static const char *class_of(const struct val *o)
{
    const char *old = val_text(val_get(val_at(o, "metadata.annotations"),
                                       "volume.beta.kubernetes.io/storage-class"), "");

    return *old ? old : at(o, "spec.storageClassName");
}

CELL(pvc_capacity)
{
    const char *size = at(o, "status.capacity.storage");

    return text(a, !*at(o, "spec.volumeName") ? "" : *size ? size : "0");
}
CELL(pvc_modes)
{
    return *at(o, "spec.volumeName") ? modes(a, val_at(o, "status.accessModes")) : text(a, "");
}
CELL(pvc_class)
{
    return text(a, class_of(o));
}
CELL(pv_capacity)
{
    const char *size = at(o, "spec.capacity.storage");

    return text(a, *size ? size : "0");
}
CELL(pv_modes)
{
    return modes(a, val_at(o, "spec.accessModes"));
}
CELL(pv_class)
{
    return text(a, class_of(o));
}
CELL(pv_claim)
{
    if (!val_at(o, "spec.claimRef"))
        return text(a, "");
    return val_printf(a, "%s/%s", at(o, "spec.claimRef.namespace"), at(o, "spec.claimRef.name"));
}

CELL(node_status)
{
    const struct val *ready = condition(o, "status.conditions", "Ready");
    const char *s = !ready ? "Unknown" : streq(at(ready, "status"), "True") ? "Ready" : "NotReady";

    return val_printf(a, "%s%s", s,
                      val_bool_at(o, "spec.unschedulable", false) ? ",SchedulingDisabled" : "");
}

static int text_cmp(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

CELL(node_roles)
{
    static const char prefix[] = "node-role.kubernetes.io/";
    const struct val *labels = val_at(o, "metadata.labels");
    const char **roles = arena_array(a, const char *, val_len(labels) + 1);
    uint32_t n = 0;
    struct buf b = {0};

    VAL_EACH_MEMBER(labels, m)
        if (str_starts(m->key, prefix) && m->key[sizeof(prefix) - 1])
            roles[n++] = m->key + sizeof(prefix) - 1;
        else if (streq(m->key, "kubernetes.io/role") && *val_text(&m->v, ""))
            roles[n++] = m->v.s;
    qsort(roles, n, sizeof(*roles), text_cmp);
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&b, "%s%s", i ? "," : "", roles[i]);
    return taken(a, &b, "<none>");
}

static const struct val *node_address(struct arena *a, const struct val *o, const char *type)
{
    VAL_EACH(val_at(o, "status.addresses"), ad)
        if (streq(at(ad, "type"), type))
            return text(a, at(ad, "address"));
    return text(a, "<none>");
}
CELL(node_internal)
{
    return node_address(a, o, "InternalIP");
}
CELL(node_external)
{
    return node_address(a, o, "ExternalIP");
}
CELL(node_kernel)
{
    const char *k = at(o, "status.nodeInfo.kernelVersion");
    const char *arch = at(o, "status.nodeInfo.architecture");

    return val_printf(a, *arch ? "%s (%s)" : "%s", *k ? k : "<unknown>", arch);
}

CELL(service_ip)
{
    const char *ip = at(o, "spec.clusterIPs[0]");

    return text(a, *ip ? ip : "<none>");
}

CELL(service_external)
{
    const char *type = at(o, "spec.type");
    const struct val *ips = val_at(o, "spec.externalIPs");
    struct buf b = {0};

    if (streq(type, "ExternalName"))
        return text(a, at(o, "spec.externalName"));
    if (streq(type, "LoadBalancer"))
        VAL_EACH(val_at(o, "status.loadBalancer.ingress"), in)
            buf_printf(&b, "%s%s", b.n ? "," : "", *at(in, "ip") ? at(in, "ip") : at(in, "hostname"));
    VAL_EACH(ips, ip)
        buf_printf(&b, "%s%s", b.n ? "," : "", val_text(ip, ""));
    return taken(a, &b, streq(type, "LoadBalancer") ? "<pending>" : "<none>");
}

CELL(service_ports)
{
    struct buf b = {0};

    VAL_EACH(val_at(o, "spec.ports"), p) {
        int64_t node = val_int_at(p, "nodePort", 0);
        buf_printf(&b, "%s%lld", b.n ? "," : "", (long long)val_int_at(p, "port", 0));
        if (node > 0)
            buf_printf(&b, ":%lld", (long long)node);
        buf_printf(&b, "/%s", at(p, "protocol"));
    }
    return taken(a, &b, "<none>");
}

static void endpoint(struct buf *b, int *shown, int *count, const char *ip, int64_t port)
{
    (*count)++;
    if (*shown == 3)
        return;
    (*shown)++;
    buf_adds(b, b->n ? "," : "");
    if (port && strchr(ip, ':'))
        buf_printf(b, "[%s]:%lld", ip, (long long)port);
    else if (port)
        buf_printf(b, "%s:%lld", ip, (long long)port);
    else
        buf_adds(b, ip);
}

CELL(endpoints)
{
    struct buf b = {0};
    int shown = 0, count = 0;

    VAL_EACH(val_get(o, "subsets"), ss) {
        const struct val *ports = val_get(ss, "ports");
        if (!val_len(ports))
            VAL_EACH(val_get(ss, "addresses"), ad)
                endpoint(&b, &shown, &count, at(ad, "ip"), 0);
        VAL_EACH(ports, p)
            VAL_EACH(val_get(ss, "addresses"), ad)
                endpoint(&b, &shown, &count, at(ad, "ip"), val_int_at(p, "port", 0));
    }
    if (count > 3)
        buf_printf(&b, " + %d more...", count - 3);
    return taken(a, &b, val_len(val_get(o, "subsets")) ? "" : "<none>");
}

CELL(cs_status)
{
    const struct val *c = condition(o, "conditions", "Healthy");

    return text(a, c && streq(at(c, "status"), "True") ? "Healthy" : "Unhealthy");
}
CELL(cs_message)
{
    return text(a, at(condition(o, "conditions", "Healthy"), "message"));
}
CELL(cs_error)
{
    return text(a, at(condition(o, "conditions", "Healthy"), "error"));
}

static const struct val *quota(struct arena *a, const struct val *o, bool limits)
{
    const struct val *hard = val_at(o, "status.hard"), *used = val_at(o, "status.used");
    const char **names = arena_array(a, const char *, val_len(hard) + 1);
    uint32_t n = 0;
    struct buf b = {0};

    VAL_EACH_MEMBER(hard, m)
        if (str_starts(m->key, "limits.") == limits)
            names[n++] = m->key;
    qsort(names, n, sizeof(*names), text_cmp);
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&b, "%s%s: %s/%s", i ? ", " : "", names[i], val_text(val_get(used, names[i]), "0"),
                   val_text(val_get(hard, names[i]), "0"));
    return taken(a, &b, "");
}
CELL(quota_requests)
{
    return quota(a, o, false);
}
CELL(quota_limits)
{
    return quota(a, o, true);
}

/* ---- events: core v1 and events.k8s.io name the fields differently ---- */

static const char *either(const struct val *o, const char *x, const char *y)
{
    const char *s = at(o, x);

    return *s ? s : at(o, y);
}

CELL(event_first)
{
    const char *t = either(o, "firstTimestamp", "deprecatedFirstTimestamp");

    return text(a, since(a, *t ? t : at(o, "eventTime"), now_us));
}
CELL(event_last)
{
    const char *t = either(o, "lastTimestamp", "deprecatedLastTimestamp");

    if (val_get(o, "series"))
        return text(a, since(a, at(o, "series.lastObservedTime"), now_us));
    return *t ? text(a, since(a, t, now_us)) : event_first(a, o, now_us);
}
CELL(event_count)
{
    int64_t n = val_int_at(o, "count", val_int_at(o, "deprecatedCount", 0));

    if (val_get(o, "series"))
        n = val_int_at(o, "series.count", 0);
    return val_int(a, n ? n : 1);
}
CELL(event_object)
{
    char *kind = arena_strdup(a, either(o, "involvedObject.kind", "regarding.kind"));
    const char *name = either(o, "involvedObject.name", "regarding.name");

    for (char *p = kind; *p; p++)
        *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
    return *name ? val_printf(a, "%s/%s", kind, name) : text(a, kind);
}
CELL(event_source)
{
    const char *c = either(o, "source.component", "deprecatedSource.component");
    const char *h = either(o, "source.host", "deprecatedSource.host");

    c = *c ? c : either(o, "reportingComponent", "reportingController");
    h = *h ? h : at(o, "reportingInstance");
    return *h ? val_printf(a, "%s, %s", c, h) : text(a, c);
}
CELL(event_message)
{
    const char *s = either(o, "message", "note");
    size_t n;

    s += strspn(s, " \t\r\n");
    for (n = strlen(s); n && strchr(" \t\r\n", s[n - 1]); n--)
        ;
    return val_strn(a, s, n);
}

/* ---- networking ---- */

CELL(ingressclass_parameters)
{
    const char *group = at(o, "spec.parameters.apiGroup");

    if (!val_at(o, "spec.parameters"))
        return text(a, "<none>");
    return val_printf(a, "%s%s%s/%s", at(o, "spec.parameters.kind"), *group ? "." : "", group,
                      at(o, "spec.parameters.name"));
}

CELL(default_name)
{
    static const char *const keys[] = {"storageclass.kubernetes.io/is-default-class",
                                       "storageclass.beta.kubernetes.io/is-default-class",
                                       "ingressclass.kubernetes.io/is-default-class"};
    const struct val *notes = val_at(o, "metadata.annotations");

    for (uint32_t i = 0; i < ARRAY_LEN(keys); i++)
        if (streq(val_text(val_get(notes, keys[i]), ""), "true"))
            return val_printf(a, "%s (default)", at(o, "metadata.name"));
    return text(a, at(o, "metadata.name"));
}

CELL(ingress_hosts)
{
    struct buf b = {0};
    int n = 0;

    VAL_EACH(val_at(o, "spec.rules"), r) {
        if (!*at(r, "host"))
            continue;
        if (n++ < 3)
            buf_printf(&b, "%s%s", b.n ? "," : "", at(r, "host"));
    }
    if (n > 3)
        buf_printf(&b, " + %d more...", n - 3);
    return taken(a, &b, "*");
}
CELL(ingress_address)
{
    struct buf b = {0};

    VAL_EACH(val_at(o, "status.loadBalancer.ingress"), in)
        buf_printf(&b, "%s%s", b.n ? "," : "", *at(in, "ip") ? at(in, "ip") : at(in, "hostname"));
    return taken(a, &b, "");
}
CELL(ingress_ports)
{
    return text(a, val_len(val_at(o, "spec.tls")) ? "80, 443" : "80");
}

CELL(ipaddress_parent)
{
    const struct val *p = val_at(o, "spec.parentRef");

    if (!p)
        return text(a, "<none>");
    const char *group = at(p, "group"), *ns = at(p, "namespace");
    return val_printf(a, "%s%s%s%s%s/%s", at(p, "resource"), *group ? "." : "", group,
                      *ns ? "/" : "", ns, at(p, "name"));
}

CELL(slice_ports)
{
    const struct val *ports = val_get(o, "ports");
    struct buf b = {0};

    for (uint32_t i = 0; i < val_len(ports) && i < 3; i++) {
        const struct val *port = val_get(&ports->items[i], "port");
        buf_adds(&b, i ? "," : "");
        if (port)
            buf_printf(&b, "%lld", (long long)port->i);
        else
            buf_adds(&b, *at(&ports->items[i], "name") ? at(&ports->items[i], "name") : "*");
    }
    if (val_len(ports) > 3)
        buf_printf(&b, " + %u more...", val_len(ports) - 3);
    return taken(a, &b, "<unset>");
}
CELL(slice_endpoints)
{
    struct buf b = {0};
    int shown = 0, count = 0;

    VAL_EACH(val_get(o, "endpoints"), e)
        VAL_EACH(val_get(e, "addresses"), ad)
            endpoint(&b, &shown, &count, val_text(ad, ""), 0);
    if (count > 3)
        buf_printf(&b, " + %d more...", count - 3);
    return taken(a, &b, "<unset>");
}

/* ---- rbac, certificates, policies, others ---- */

CELL(binding_role)
{
    return val_printf(a, "%s/%s", at(o, "roleRef.kind"), at(o, "roleRef.name"));
}

static const struct val *subjects(struct arena *a, const struct val *o, const char *kind)
{
    struct buf b = {0};

    VAL_EACH(val_get(o, "subjects"), s)
        if (streq(at(s, "kind"), kind)) {
            buf_adds(&b, b.n ? ", " : "");
            if (streq(kind, "ServiceAccount"))
                buf_printf(&b, "%s/", at(s, "namespace"));
            buf_adds(&b, at(s, "name"));
        }
    return taken(a, &b, "");
}
CELL(binding_users)
{
    return subjects(a, o, "User");
}
CELL(binding_groups)
{
    return subjects(a, o, "Group");
}
CELL(binding_accounts)
{
    return subjects(a, o, "ServiceAccount");
}

CELL(csr_duration)
{
    const struct val *s = val_at(o, "spec.expirationSeconds");

    return text(a, s ? age_text(a, s->i * 1000000) : "<none>");
}
CELL(csr_condition)
{
    const char *s = condition(o, "status.conditions", "Denied")     ? "Denied"
                    : condition(o, "status.conditions", "Approved") ? "Approved"
                                                                    : "Pending";

    return val_printf(a, "%s%s%s", s, condition(o, "status.conditions", "Failed") ? ",Failed" : "",
                      *at(o, "status.certificate") ? ",Issued" : "");
}

CELL(csidriver_attach)
{
    return val_bool(a, val_bool_at(o, "spec.attachRequired", true));
}
CELL(csidriver_tokens)
{
    if (!val_at(o, "spec.tokenRequests"))
        return text(a, "<unset>");
    return joined(a, val_at(o, "spec.tokenRequests"), "audience", ",", "");
}

CELL(policy_param_kind)
{
    if (!val_at(o, "spec.paramKind"))
        return text(a, "<unset>");
    return val_printf(a, "%s/%s", at(o, "spec.paramKind.apiVersion"), at(o, "spec.paramKind.kind"));
}
/* A LabelSelector as Go prints a struct. */
static const struct val *go_selector(struct arena *a, const struct val *sel)
{
    struct buf b = {0};

    buf_adds(&b, "&LabelSelector{MatchLabels:map[string]string{");
    VAL_EACH_MEMBER(val_get(sel, "matchLabels"), m)
        buf_printf(&b, "%s: %s,", m->key, val_text(&m->v, ""));
    buf_adds(&b, "},MatchExpressions:[]LabelSelectorRequirement{");
    VAL_EACH(val_get(sel, "matchExpressions"), e) {
        buf_printf(&b, "LabelSelectorRequirement{Key:%s,Operator:%s,Values:[", at(e, "key"), at(e, "operator"));
        VAL_EACH(val_get(e, "values"), x)
            buf_printf(&b, "%s ", val_text(x, ""));
        if (b.p[b.n - 1] == ' ')
            b.n--;
        buf_adds(&b, "],},");
    }
    buf_adds(&b, "},}");
    return taken(a, &b, "");
}

CELL(policy_param)
{
    const char *name = at(o, "spec.paramRef.name"), *ns = at(o, "spec.paramRef.namespace");

    if (!*name && val_at(o, "spec.paramRef.selector"))
        return go_selector(a, val_at(o, "spec.paramRef.selector"));
    if (!*name)
        return text(a, "<unset>");
    return val_printf(a, "%s/%s", *ns ? ns : "*", name);
}

CELL(claim_state)
{
    bool deleted = !val_is_null(val_at(o, "metadata.deletionTimestamp"));
    bool allocated = val_at(o, "status.allocation") != NULL;

    return val_printf(a, "%s%s%s", deleted ? "deleted" : "", deleted && allocated ? "," : "",
                      !allocated                                     ? (deleted ? "" : "pending")
                      : val_len(val_at(o, "status.reservedFor")) ? "allocated,reserved"
                                                                 : "allocated");
}

CELL(flowschema_dangling)
{
    const struct val *c = condition(o, "status.conditions", "Dangling");

    return text(a, c ? at(c, "status") : "?");
}

CELL(apiservice_service)
{
    if (!val_at(o, "spec.service"))
        return text(a, "Local");
    return val_printf(a, "%s/%s", at(o, "spec.service.namespace"), at(o, "spec.service.name"));
}
CELL(apiservice_available)
{
    const struct val *c = condition(o, "status.conditions", "Available");

    if (!c)
        return text(a, "Unknown");
    if (streq(at(c, "status"), "True"))
        return text(a, "True");
    return val_printf(a, "%s (%s)", at(c, "status"), at(c, "reason"));
}

static const struct {
    const char *name;
    cell_fn *fn;
} cells[] = {
#define ROW(x) {#x, x}
    ROW(pod_ready), ROW(pod_status), ROW(pod_restarts), ROW(pod_ip), ROW(pod_gates),
    ROW(template_containers), ROW(template_images), ROW(podtemplate_containers),
    ROW(podtemplate_images), ROW(cronjob_containers), ROW(cronjob_images), ROW(cronjob_selector),
    ROW(cronjob_suspend), ROW(cronjob_last), ROW(ready_replicas), ROW(deployment_selector),
    ROW(job_status), ROW(job_completions), ROW(job_duration), ROW(revision_controller),
    ROW(hpa_reference), ROW(hpa_metrics), ROW(hpa1_metrics), ROW(config_data), ROW(phase),
    ROW(pvc_capacity), ROW(pvc_modes), ROW(pvc_class), ROW(pv_capacity), ROW(pv_modes),
    ROW(pv_class), ROW(pv_claim), ROW(node_status), ROW(node_roles), ROW(node_internal),
    ROW(node_external), ROW(node_kernel), ROW(service_ip), ROW(service_external),
    ROW(service_ports), ROW(endpoints), ROW(cs_status), ROW(cs_message), ROW(cs_error),
    ROW(quota_requests), ROW(quota_limits), ROW(event_first), ROW(event_last), ROW(event_count),
    ROW(event_object), ROW(event_source), ROW(event_message), ROW(ingressclass_parameters),
    ROW(default_name), ROW(ingress_hosts), ROW(ingress_address), ROW(ingress_ports),
    ROW(ipaddress_parent), ROW(slice_ports), ROW(slice_endpoints), ROW(binding_role),
    ROW(binding_users), ROW(binding_groups), ROW(binding_accounts), ROW(csr_duration),
    ROW(csr_condition), ROW(csidriver_attach), ROW(csidriver_tokens), ROW(policy_param_kind),
    ROW(policy_param), ROW(claim_state), ROW(flowschema_dangling), ROW(apiservice_service),
    ROW(apiservice_available),
#undef ROW
};

cell_fn *cell_find(const char *name)
{
    for (uint32_t i = 0; i < ARRAY_LEN(cells); i++)
        if (streq(cells[i].name, name))
            return cells[i].fn;
    return NULL;
}
