/* schema/convert.c - one kind in its several versions: events (core and events.k8s.io) and
 * autoscaling v1 and v2; and the Scale of an object. All other versions differ in apiVersion only. */
#include "schema/schema_int.h"

#include "codec/json.h"
#include "schema/select.h"

struct rename {
    const char *from, *to;
};
static const struct rename core_to_events[] = {
    {"involvedObject", "regarding"},          {"message", "note"},
    {"source", "deprecatedSource"},           {"firstTimestamp", "deprecatedFirstTimestamp"},
    {"lastTimestamp", "deprecatedLastTimestamp"}, {"count", "deprecatedCount"},
    {"reportingComponent", "reportingController"},
};

static void rename_event(struct arena *a, struct val *v, bool to_events)
{
    struct val out = {.type = VAL_MAP};

    VAL_EACH_MEMBER(v, m) {
        const char *key = m->key;
        for (uint32_t i = 0; i < ARRAY_LEN(core_to_events); i++) {
            const struct rename *r = &core_to_events[i];
            if (streq(key, to_events ? r->from : r->to)) {
                key = to_events ? r->to : r->from;
                break;
            }
        }
        val_put(a, &out, key, &m->v);
    }
    *v = out;
}

#define NOTE "autoscaling.alpha.kubernetes.io/"

static const struct val *take_note(struct arena *a, struct val *v, const char *name)
{
    struct val *notes = val_at(v, "metadata.annotations");
    const char *key = arena_printf(a, NOTE "%s", name);
    const struct val *text = val_get(notes, key);
    struct err err = {0};
    struct val *parsed;

    if (!val_is(text, VAL_STR))
        return NULL;
    parsed = json_parse(a, text->s, text->n, &err);
    val_del(notes, key);
    if (!notes->n)
        val_del(val_get(v, "metadata"), "annotations");
    return parsed;
}

static void put_note(struct arena *a, struct val *v, const char *name, const struct val *what)
{
    struct val *notes = val_need_map(a, val_need_map(a, v, "metadata"), "annotations");

    val_put(a, notes, arena_printf(a, NOTE "%s", name), val_lit(a, json_text(a, what, NULL)));
}

static struct val *fresh_meta(struct arena *a, struct val *v)
{
    struct val *meta = val_copy(a, val_get(v, "metadata")); /* annotations are about to change */

    return val_put(a, v, "metadata", meta);
}

static bool is_cpu_utilization(const struct val *m)
{
    return streq(val_str_at(m, "type", ""), "Resource") &&
           streq(val_str_at(m, "resource.name", ""), "cpu") &&
           val_at(m, "resource.target.averageUtilization") != NULL;
}

/* The metrics that were measured, in the words of v1 and in those of v2: which part of the metric, where
 * it lies in v1 and where in v2. */
static const struct {
    const char *part, *v1, *v2;
} MEASURED[] = {
    {"resource", "name", "name"},
    {"resource", "currentAverageUtilization", "current.averageUtilization"},
    {"resource", "currentAverageValue", "current.averageValue"},
    {"containerResource", "name", "name"},
    {"containerResource", "currentAverageUtilization", "current.averageUtilization"},
    {"containerResource", "currentAverageValue", "current.averageValue"},
    {"containerResource", "container", "container"},
    {"object", "target", "describedObject"},
    {"object", "metricName", "metric.name"},
    {"object", "currentValue", "current.value"},
    {"object", "selector", "metric.selector"},
    {"object", "averageValue", "current.averageValue"},
    {"pods", "metricName", "metric.name"},
    {"pods", "currentAverageValue", "current.averageValue"},
    {"pods", "selector", "metric.selector"},
    {"external", "metricName", "metric.name"},
    {"external", "metricSelector", "metric.selector"},
    {"external", "currentValue", "current.value"},
    {"external", "currentAverageValue", "current.averageValue"},
};

/* Quantities that v1 has no way to leave out. */
static bool always_told(const char *part, const char *key)
{
    bool average = streq(key, "currentAverageValue");

    return streq(part, "object") || streq(part, "external") ? streq(key, "currentValue") : average;
}

static const struct val *measured_to_v1(struct arena *a, const struct val *list)
{
    struct val *out = val_list(a);

    VAL_EACH(list, m) {
        struct val *one = val_map(a);

        val_put_str(a, one, "type", val_str_at(m, "type", ""));
        for (uint32_t i = 0; i < ARRAY_LEN(MEASURED); i++) {
            const struct val *from = val_get(m, MEASURED[i].part), *x = val_at(from, MEASURED[i].v2);

            if (!x && from && always_told(MEASURED[i].part, MEASURED[i].v1))
                x = val_lit(a, "0");
            if (x)
                val_put(a, val_need_map(a, one, MEASURED[i].part), MEASURED[i].v1, x);
        }
        val_push(a, out, one);
    }
    return out;
}

static const struct val *measured_to_v2(struct arena *a, const struct val *list)
{
    struct val *out = val_list(a);

    VAL_EACH(list, m) {
        struct val *one = val_map(a);

        val_put_str(a, one, "type", val_str_at(m, "type", ""));
        for (uint32_t i = 0; i < ARRAY_LEN(MEASURED); i++) {
            const struct val *x = val_get(val_get(m, MEASURED[i].part), MEASURED[i].v1);

            if (x)
                val_set_at(a, val_need_map(a, one, MEASURED[i].part), MEASURED[i].v2, x);
        }
        val_push(a, out, one);
    }
    return out;
}

static void hpa_to_v1(struct arena *a, struct val *v)
{
    struct val spec = {.type = VAL_MAP}, others = {.type = VAL_LIST}, status = {.type = VAL_MAP};
    const struct val *from = val_get(v, "spec"), *st = val_get(v, "status");
    static const char *const same[] = {"scaleTargetRef", "minReplicas", "maxReplicas"};
    static const char *const told[] = {"observedGeneration", "lastScaleTime", "currentReplicas",
                                       "desiredReplicas"};
    bool cpu = false;

    fresh_meta(a, v);
    for (uint32_t i = 0; i < ARRAY_LEN(same); i++)
        if (val_get(from, same[i]))
            val_put(a, &spec, same[i], val_get(from, same[i]));
    VAL_EACH(val_get(from, "metrics"), m) {
        if (!cpu && is_cpu_utilization(m)) {
            val_put(a, &spec, "targetCPUUtilizationPercentage",
                    val_at(m, "resource.target.averageUtilization"));
            cpu = true;
        } else {
            val_push(a, &others, m);
        }
    }
    for (uint32_t i = 0; i < ARRAY_LEN(told); i++)
        if (val_get(st, told[i]))
            val_put(a, &status, told[i], val_get(st, told[i]));
    VAL_EACH(val_get(st, "currentMetrics"), m)
        if (streq(val_str_at(m, "resource.name", ""), "cpu") &&
            val_at(m, "resource.current.averageUtilization"))
            val_put(a, &status, "currentCPUUtilizationPercentage",
                    val_at(m, "resource.current.averageUtilization"));
    if (others.n)
        put_note(a, v, "metrics", &others);
    if (val_get(from, "behavior"))
        put_note(a, v, "behavior", val_get(from, "behavior"));
    if (val_len(val_get(st, "currentMetrics")))
        put_note(a, v, "current-metrics", measured_to_v1(a, val_get(st, "currentMetrics")));
    if (val_len(val_get(st, "conditions")))
        put_note(a, v, "conditions", val_get(st, "conditions"));
    val_put(a, v, "spec", &spec);
    val_put(a, v, "status", &status);
}

static void hpa_to_v2(struct arena *a, struct val *v)
{
    const struct val *cpu = val_at(v, "spec.targetCPUUtilizationPercentage");
    const struct val *now = val_at(v, "status.currentCPUUtilizationPercentage");
    struct val metrics = {.type = VAL_LIST}, spec, status = {.type = VAL_MAP};

    fresh_meta(a, v);
    spec = *val_copy(a, val_get(v, "spec"));
    if (val_get(v, "status"))
        status = *val_copy(a, val_get(v, "status"));
    val_del(&spec, "targetCPUUtilizationPercentage");
    val_del(&status, "currentCPUUtilizationPercentage");
    const struct val *others = take_note(a, v, "metrics"), *behavior = take_note(a, v, "behavior");
    const struct val *conditions = take_note(a, v, "conditions"), *measured = take_note(a, v, "current-metrics");
    VAL_EACH(others, m)
        val_push(a, &metrics, m);
    if (cpu) {
        struct val *m = val_map(a);
        val_put_str(a, m, "type", "Resource");
        val_set_at(a, m, "resource.name", val_lit(a, "cpu"));
        val_set_at(a, m, "resource.target.type", val_lit(a, "Utilization"));
        val_set_at(a, m, "resource.target.averageUtilization", cpu);
        val_push(a, &metrics, m);
    }
    if (metrics.n)
        val_put(a, &spec, "metrics", &metrics);
    if (behavior)
        val_put(a, &spec, "behavior", behavior);
    if (conditions)
        val_put(a, &status, "conditions", conditions);
    if (val_is(measured, VAL_LIST)) { /* says it all */
        val_put(a, &status, "currentMetrics", measured_to_v2(a, measured));
    } else if (now) {
        struct val *m = val_map(a), *list = val_list(a);
        val_put_str(a, m, "type", "Resource");
        val_set_at(a, m, "resource.name", val_lit(a, "cpu"));
        val_set_at(a, m, "resource.current.averageUtilization", now);
        val_push(a, list, m);
        val_put(a, &status, "currentMetrics", list);
    }
    val_put(a, v, "spec", &spec);
    val_put(a, v, "status", &status);
}

int schema_convert(const struct resource *from, const struct resource *to, struct arena *a,
                   struct val *v, struct err *err)
{
    if (from == to)
        return 0;
    struct val top = {.type = VAL_MAP}; /* v may be a sealed tree's copy of the top only */
    VAL_EACH_MEMBER(v, m)
        val_putn(a, &top, m->key, m->n, &m->v);
    *v = top;
    val_put(a, v, "apiVersion", val_lit(a, to->api_version));
    bool differs = true;
    if (streq(from->kind, "Event") && streq(from->table, "events") && !from->custom)
        rename_event(a, v, *to->group != 0);
    else if (streq(from->group, "autoscaling") && streq(to->version, "v1"))
        hpa_to_v1(a, v);
    else if (streq(from->group, "autoscaling"))
        hpa_to_v2(a, v);
    else
        differs = false;
    if (to->custom) /* what the other version does not describe is not shown in it */
        return schema_decode(to, a, v, NULL, err);
    if (!differs)
        return 0;
    return schema_decode(to, a, v, NULL, err);
}

/* ---- scale ---- */

/* Where a kind keeps what its Scale shows; custom resources tell in their definition. */
static const struct subresource *scale_of(const struct resource *r, const char **ret_spec,
                                          const char **ret_status, const char **ret_selector)
{
    const struct subresource *sub = schema_sub(r, "scale");

    if (!sub)
        return NULL;
    *ret_spec = sub->scale_spec ? sub->scale_spec : ".spec.replicas";
    *ret_status = sub->scale_status ? sub->scale_status : ".status.replicas";
    *ret_selector = r->custom ? sub->scale_selector : ".spec.selector";
    return sub;
}

struct val *schema_scale_get(const struct resource *r, struct arena *a, const struct val *obj,
                             struct err *err)
{
    const char *spec_path, *status_path, *selector_path;
    static const char *const meta_keys[] = {"name", "namespace", "uid", "resourceVersion",
                                            "creationTimestamp"};

    if (!scale_of(r, &spec_path, &status_path, &selector_path)) {
        err_set(err, NOT_FOUND, "the server could not find the requested resource");
        return NULL;
    }
    if (r->custom && !val_at(obj, spec_path + 1)) {
        err_set(err, INTERNAL, "the spec replicas field \"%s\" does not exist", spec_path);
        return NULL;
    }
    struct val *v = val_map(a), *meta = val_map(a), *spec = val_map(a), *status = val_map(a);
    for (uint32_t i = 0; i < ARRAY_LEN(meta_keys); i++)
        if (val_get(val_get(obj, "metadata"), meta_keys[i]))
            val_put(a, meta, meta_keys[i], val_get(val_get(obj, "metadata"), meta_keys[i]));
    int64_t want = val_int_at(obj, spec_path + 1, 0);
    if (want)
        val_put_int(a, spec, "replicas", want);
    val_put_int(a, status, "replicas", val_int_at(obj, status_path + 1, 0));
    const struct val *sel = selector_path ? val_at(obj, selector_path + 1) : NULL;
    if (val_is(sel, VAL_STR)) {
        if (sel->n)
            val_put(a, status, "selector", sel);
    } else if (sel) {
        bool plain = !val_get(sel, "matchLabels") && !val_get(sel, "matchExpressions");
        struct selector *parsed = plain ? selector_of_map(a, sel) : selector_of(a, sel, err);
        const char *text = parsed ? selector_text(a, parsed) : "";
        if (*text)
            val_put_str(a, status, "selector", text);
    }
    val_put_str(a, v, "kind", "Scale");
    val_put_str(a, v, "apiVersion", "autoscaling/v1");
    val_put(a, v, "metadata", meta);
    val_put(a, v, "spec", spec);
    val_put(a, v, "status", status);
    return v;
}

/* A CRD's path, which may be any text below .spec: what it leads through is a map, or nothing yet. */
static bool can_put(const struct val *v, const char *path)
{
    if (strchr(path, '['))
        return false;
    for (size_t n; v && v->type != VAL_LIST; path += n + 1) {
        n = strcspn(path, ".");
        if (!path[n])
            return true;
        v = val_getn(v, path, n);
    }
    return !v;
}

int schema_scale_put(const struct resource *r, struct arena *a, struct val *obj,
                     const struct val *scale, struct err *err)
{
    const char *spec_path, *status_path, *selector_path;

    if (!scale_of(r, &spec_path, &status_path, &selector_path))
        return err_set(err, NOT_FOUND, "the server could not find the requested resource");
    if (!can_put(obj, spec_path + 1))
        return err_set(err, INVALID_ARGUMENT, "the spec replicas field \"%.200s\" cannot be set", spec_path);
    val_set_at(a, obj, spec_path + 1, val_int(a, val_int_at(scale, "spec.replicas", 0)));
    return 0;
}
