/* Pods that nobody will ever finish or miss: those of nodes that are gone, those deleted before
 * they had a node, and the oldest of the finished ones when they become too many.
 *
 * One key, "all", looked at every 20 s. */
#include "base/map.h"
#include "controller/ctl_int.h"
#include "controller/pods.h"

enum { EVERY_MS = 20000, QUARANTINE_MS = 40000 };

struct memory {
    struct map missing; /* node name -> struct since: a node may come right back */
};
struct since {
    int64_t ms;
};

static bool gone_for_good(struct ctl *ctl, const char *node)
{
    struct memory *m = ctl->mine;
    struct since *s = map_get(&m->missing, node);

    if (ctl_get(ctl, K_NODE, "", node)) {
        free(map_del(&m->missing, node));
        return false;
    }
    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->ms = ctl->now_ms;
        map_put(&m->missing, node, s);
    }
    return ctl->now_ms - s->ms >= QUARANTINE_MS;
}

static int collect(struct ctl *ctl, const struct obj *pod, const char *why, struct err *err)
{
    if (why && !pod_finished(pod)) {
        struct val *v = obj_edit(pod, ctl->arena);

        val_put_str(ctl->arena, val_need_map(ctl->arena, v, "status"), "phase", "Failed");
        ctl_condition(ctl, v, "DisruptionTarget", "True", "DeletionByPodGC", why, false);
        if (ctl_update_status(ctl, K_POD, pod, v, err) < 0 && err->code != ERR_NOT_FOUND)
            return -1;
    }
    return ctl_delete(ctl, K_POD, pod, NULL, 0, err);
}

static int oldest_first(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;
    int64_t ta = obj_created_ms(a), tb = obj_created_ms(b);

    return ta != tb ? (ta > tb) - (ta < tb) : strcmp(a->name, b->name);
}

static enum again podgc_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct objs pods = ctl_list(ctl, K_POD, NULL), ended = {0};
    int64_t spare;

    ctl_want_in(ctl, key, EVERY_MS);
    for (uint32_t i = 0; i < pods.n; i++) {
        const struct obj *p = pods.v[i];
        int done = 0;

        if (*pod_node(p) && gone_for_good(ctl, pod_node(p)))
            done = collect(ctl, p, "PodGC: node no longer exists", err);
        else if (!*pod_node(p) && obj_deleting(p))
            done = collect(ctl, p, NULL, err);
        else if (pod_finished(p) && !obj_deleting(p))
            objs_add(ctl->arena, &ended, p);
        if (done < 0)
            return RETRY;
    }
    spare = (int64_t)ended.n - ctl->all->opts.finished_pods_max;
    if (spare > 0)
        qsort(ended.v, ended.n, sizeof *ended.v, oldest_first);
    for (int64_t i = 0; i < spare; i++)
        if (collect(ctl, ended.v[i], NULL, err) < 0)
            return RETRY;
    return DONE;
}

static void podgc_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                          const struct obj *now)
{
    (void)was;
    if (kind == K_NODE && !now)
        ctl_want_key(ctl, "all");
    if (kind == K_POD && now && obj_deleting(now) && !*pod_node(now))
        ctl_want_key(ctl, "all");
}

static void podgc_start(struct ctl *ctl)
{
    ctl->mine = xcalloc(1, sizeof(struct memory));
    ctl_want_key(ctl, "all");
}

static void podgc_stop(struct ctl *ctl)
{
    struct memory *m = ctl->mine;
    const char *key;
    void *s;

    for (uint32_t i = 0; map_next(&m->missing, &i, &key, &s);)
        free(s);
    map_done(&m->missing);
    free(m);
    ctl->mine = NULL;
}

extern const struct controller podgc_controller;
const struct controller podgc_controller = {
    .name = "podgc",
    .component = "pod-garbage-collector",
    .reconcile = podgc_reconcile,
    .changed = podgc_changed,
    .kinds = KIND_BIT(K_POD) | KIND_BIT(K_NODE),
    .start = podgc_start,
    .stop = podgc_stop,
};
