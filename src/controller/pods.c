#include "controller/pods.h"

int64_t obj_int(const struct obj *o, const char *path, int64_t otherwise)
{
    return val_int_at(obj_val(o), path, otherwise);
}

const char *obj_str(const struct obj *o, const char *path, const char *otherwise)
{
    return val_str_at(obj_val(o), path, otherwise);
}

const char *pod_phase(const struct obj *pod)
{
    return obj_str(pod, "status.phase", "Pending");
}

bool pod_finished(const struct obj *pod)
{
    const char *phase = pod_phase(pod);

    return streq(phase, "Succeeded") || streq(phase, "Failed");
}

bool pod_active(const struct obj *pod)
{
    return !pod_finished(pod) && !obj_deleting(pod);
}

const struct val *condition_of(const struct obj *o, const char *type)
{
    VAL_EACH(val_at(obj_val(o), "status.conditions"), c)
        if (streq(val_text(val_get(c, "type"), ""), type))
            return c;
    return NULL;
}

bool condition_true(const struct obj *o, const char *type)
{
    return streq(val_text(val_get(condition_of(o, type), "status"), ""), "True");
}

bool pod_ready(const struct obj *pod)
{
    return condition_true(pod, "Ready");
}

static int64_t time_at(const struct val *v, const char *path)
{
    int64_t ms = kubetime_parse(val_str_at(v, path, ""));

    return ms < 0 ? 0 : ms;
}

bool pod_available(const struct obj *pod, int64_t min_ready_s, int64_t now_ms, int64_t *ret_wait_ms)
{
    const struct val *c = condition_of(pod, "Ready");
    int64_t left;

    if (ret_wait_ms)
        *ret_wait_ms = -1;
    if (!streq(val_text(val_get(c, "status"), ""), "True"))
        return false;
    if (min_ready_s <= 0)
        return true;
    left = time_at(c, "lastTransitionTime") + min_ready_s * 1000 - now_ms;
    if (left > 0 && ret_wait_ms)
        *ret_wait_ms = left;
    return left <= 0;
}

const char *pod_node(const struct obj *pod)
{
    return obj_str(pod, "spec.nodeName", "");
}

int64_t obj_created_ms(const struct obj *o)
{
    return time_at(obj_val(o), "metadata.creationTimestamp");
}

int64_t obj_generation(const struct obj *o)
{
    return obj_int(o, "metadata.generation", 0);
}

bool obj_has_finalizer(const struct obj *o, const char *name)
{
    VAL_EACH(val_get(obj_meta(o), "finalizers"), f)
        if (streq(val_text(f, ""), name))
            return true;
    return false;
}

/* ---- who goes first ---- */

struct rank {
    const struct obj *pod;
    int keys[5]; /* the smaller goes first */
    int64_t ready_ms, created_ms;
    uint32_t at;
};

static int rank_compare(const void *x, const void *y)
{
    const struct rank *a = x, *b = y;

    for (size_t i = 0; i < ARRAY_LEN(a->keys); i++)
        if (a->keys[i] != b->keys[i])
            return a->keys[i] < b->keys[i] ? -1 : 1;
    if (a->ready_ms != b->ready_ms) /* ready for the shorter time */
        return a->ready_ms > b->ready_ms ? -1 : 1;
    if (a->created_ms != b->created_ms)
        return a->created_ms > b->created_ms ? -1 : 1;
    return a->at > b->at ? -1 : 1;
}

static int restarts(const struct obj *pod)
{
    int64_t most = 0;

    VAL_EACH(val_at(obj_val(pod), "status.containerStatuses"), c)
        most = MAX(most, val_int_at(c, "restartCount", 0));
    return (int)MIN(most, (int64_t)100000);
}

void pods_sort_cheapest_first(struct objs *pods)
{
    struct rank *ranks = xcalloc(pods->n + 1, sizeof *ranks);

    for (uint32_t i = 0; i < pods->n; i++) {
        const struct obj *p = pods->v[i];
        const char *phase = pod_phase(p), *cost = obj_annotation(p, "controller.kubernetes.io/pod-deletion-cost");
        const char *node = pod_node(p);
        int same = 0;

        for (uint32_t k = 0; *node && pods->n <= 512 && k < pods->n; k++)
            same += k != i && streq(pod_node(pods->v[k]), node) && pod_active(pods->v[k]);
        ranks[i] = (struct rank){
            .pod = p,
            .keys = {*node != 0,
                     streq(phase, "Pending") ? 0 : streq(phase, "Unknown") ? 1 : 2,
                     pod_ready(p), cost ? atoi(cost) : 0, -same},
            .ready_ms = time_at(condition_of(p, "Ready"), "lastTransitionTime"),
            .created_ms = obj_created_ms(p),
            .at = i,
        };
        if (restarts(p) && pod_ready(p)) /* among equals the one that fell over more often */
            ranks[i].ready_ms += restarts(p);
    }
    qsort(ranks, pods->n, sizeof *ranks, rank_compare);
    for (uint32_t i = 0; i < pods->n; i++)
        pods->v[i] = ranks[i].pod;
    free(ranks);
}

/* ---- making ---- */

struct val *pod_of_template(struct arena *a, const struct val *template, enum kind kind,
                            const struct obj *owner, const char *generate_prefix)
{
    struct val *pod = val_map(a), *meta = val_put(a, pod, "metadata", val_map(a));
    static const char *const kept[] = {"labels", "annotations", "finalizers"};

    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const struct val *part = val_at(val_get(template, "metadata"), kept[i]);

        if (part && val_len(part))
            val_put(a, meta, kept[i], val_copy(a, part));
    }
    val_put(a, meta, "generateName", val_printf(a, "%s-", generate_prefix));
    val_put_str(a, meta, "namespace", owner->namespace_);
    val_push(a, val_need_list(a, meta, "ownerReferences"), owner_reference(a, kind, owner));
    if (val_get(template, "spec"))
        val_put(a, pod, "spec", val_copy(a, val_get(template, "spec")));
    return pod;
}
