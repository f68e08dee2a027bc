/* HorizontalPodAutoscalers: what can be said and done without metrics. The bounds hold (more than
 * maxReplicas comes down, less than minReplicas goes up), the scale of the target shows in the
 * status, and the condition ScalingActive says what is missing. Nobody serves metrics.k8s.io here;
 * when somebody does, this is the place to ask. */
#include <stdio.h>

#include "controller/ctl_int.h"
#include "controller/pods.h"
#include "schema/schema.h"

enum { EVERY_MS = 15000 };

struct pass {
    struct ctl *ctl;
    const struct obj *hpa;
    struct val *v, *status; /* the edit */
    const struct resource *r;
    const struct obj *target;
    int64_t current, desired;
};

static void condition(struct pass *p, const char *type, const char *is, const char *reason, const char *message)
{
    ctl_condition(p->ctl, p->v, type, is, reason, message, false);
    p->status = val_get(p->v, "status");
}

static int find_target(struct pass *p, struct err *err)
{
    const struct val *ref = val_at(obj_val(p->hpa), "spec.scaleTargetRef"), *scale;
    const struct schema *schema = p->ctl->all->opts.schema;
    const char *kind = val_str_at(ref, "kind", ""), *name = val_str_at(ref, "name", "");
    struct arena *a = p->ctl->arena;

    p->r = schema_kind_of(schema, val_str_at(ref, "apiVersion", "v1"), kind);
    if (!p->r)
        return err_set(err, NOT_FOUND, "no matches for kind \"%s\" in version \"%s\"", kind, val_str_at(ref, "apiVersion", "v1"));
    p->r = schema_stored(p->r);
    p->target = client_get(p->ctl->client, a, arena_printf(a, "%s/%s", p->r->api_version, p->r->plural), p->hpa->namespace_, name);
    if (!p->target)
        return err_set(err, NOT_FOUND, "%s%s%s \"%s\" not found", p->r->plural, *p->r->group ? "." : "", p->r->group, name);
    scale = schema_scale_get(p->r, a, obj_val(p->target), err);
    if (!scale)
        return err_set(err, NOT_FOUND, "the server could not find the requested resource");
    p->current = val_int_at(scale, "spec.replicas", 0);
    val_put_int(a, p->status, "currentReplicas", val_int_at(scale, "status.replicas", 0));
    return 0;
}

static int rescale(struct pass *p, const char *why, struct err *err)
{
    struct arena *a = p->ctl->arena;
    struct val *patch = val_map(a);

    val_put_int(a, val_need_map(a, patch, "spec"), "replicas", p->desired);
    if (client_patch(p->ctl->client, arena_printf(a, "%s/%s", p->r->api_version, p->r->plural), p->hpa->namespace_,
                     p->target->name, "scale", CLIENT_PATCH_MERGE, patch, NULL, err) < 0) {
        ctl_event(p->ctl, p->hpa, "Warning", "FailedRescale", "New size: %lld; reason: %s; error: %s", (long long)p->desired, why, err->msg);
        condition(p, "AbleToScale", "False", "FailedUpdateScale",
                  arena_printf(a, "the HPA controller was unable to update the target scale: %s", err->msg));
        return -1;
    }
    ctl_event(p->ctl, p->hpa, "Normal", "SuccessfulRescale", "New size: %lld; reason: %s", (long long)p->desired, why);
    condition(p, "AbleToScale", "True", "SucceededRescale",
              arena_printf(a, "the HPA controller was able to update the target scale to %lld", (long long)p->desired));
    val_put_str(a, p->status, "lastScaleTime", ctl_time(p->ctl));
    return 0;
}

/* Why the first of the metrics cannot be had. */
static void no_metrics(struct pass *p)
{
    static const struct {
        const char *type, *reason, *what;
    } rows[] = {
        {"Resource", "FailedGetResourceMetric", "resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"},
        {"ContainerResource", "FailedGetContainerResourceMetric", "resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"},
        {"Pods", "FailedGetPodsMetric", "custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"},
        {"Object", "FailedGetObjectMetric", "custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"},
        {"External", "FailedGetExternalMetric", "external metrics API: the server could not find the requested resource"},
    };
    const char *type = val_str_at(obj_val(p->hpa), "spec.metrics[0].type", "Resource");
    const char *name = val_str_at(obj_val(p->hpa), "spec.metrics[0].resource.name", "cpu"), *text;
    size_t i = 0;

    while (i + 1 < ARRAY_LEN(rows) && !streq(rows[i].type, type))
        i++;
    text = streq(type, "Resource")
               ? arena_printf(p->ctl->arena, "the HPA was unable to compute the replica count: failed to get %s utilization: unable to get "
                              "metrics for resource %s: unable to fetch metrics from %s", name, name, rows[i].what)
               : arena_printf(p->ctl->arena, "the HPA was unable to compute the replica count: unable to fetch metrics from %s", rows[i].what);
    condition(p, "ScalingActive", "False", rows[i].reason, text);
    ctl_event(p->ctl, p->hpa, "Warning", rows[i].reason, "%s", text + strlen("the HPA was unable to compute the replica count: "));
    ctl_event(p->ctl, p->hpa, "Warning", "FailedComputeMetricsReplicas", "invalid metrics (1 invalid out of %u), first error is: %s",
              MAX(val_len(val_at(obj_val(p->hpa), "spec.metrics")), 1u), text + strlen("the HPA was unable to compute the replica count: "));
}

static int judge(struct pass *p, struct err *err)
{
    int64_t most = obj_int(p->hpa, "spec.maxReplicas", 0), least = obj_int(p->hpa, "spec.minReplicas", 1);

    p->desired = p->current;
    if (p->current == 0 && least != 0) {
        condition(p, "ScalingActive", "False", "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
        return 0;
    }
    if (p->current > most) {
        p->desired = most;
        return rescale(p, "Current number of replicas above Spec.MaxReplicas", err);
    }
    if (p->current < least) {
        p->desired = least;
        return rescale(p, "Current number of replicas below Spec.MinReplicas", err);
    }
    no_metrics(p);
    return 0;
}

static enum again hpa_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .hpa = ctl_get_key(ctl, K_HPA, key)};
    struct err why = {0};
    int done;

    if (!p.hpa || obj_deleting(p.hpa))
        return DONE;
    p.v = obj_edit(p.hpa, ctl->arena);
    p.status = val_need_map(ctl->arena, p.v, "status");
    val_put_int(ctl->arena, p.status, "observedGeneration", obj_generation(p.hpa));
    done = find_target(&p, &why);
    if (done < 0) {
        ctl_event(ctl, p.hpa, "Warning", "FailedGetScale", "%s", why.msg);
        condition(&p, "AbleToScale", "False", "FailedGetScale",
                  arena_printf(ctl->arena, "the HPA controller was unable to get the target's current scale: %s", why.msg));
    } else {
        condition(&p, "AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale");
        done = judge(&p, &why);
        val_put_int(ctl->arena, p.status, "desiredReplicas", p.desired);
    }
    ctl_want_in(ctl, key, EVERY_MS);
    return ctl_update_status(ctl, K_HPA, p.hpa, p.v, err) < 0 ? RETRY : DONE;
}

static void hpa_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    (void)kind;
    if (!was || !now || obj_generation(was) != obj_generation(now))
        ctl_want_obj(ctl, now ? now : was);
}

extern const struct controller hpa_controller;
const struct controller hpa_controller = {
    .name = "hpa",
    .component = "horizontal-pod-autoscaler",
    .reconcile = hpa_reconcile,
    .changed = hpa_changed,
    .kinds = KIND_BIT(K_HPA),
};
