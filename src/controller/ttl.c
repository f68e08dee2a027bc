/* How long nodes may keep secrets and config maps before they ask again: an annotation that grows
 * with the cluster, so that many nodes do not ask all the time. */
#include "controller/ctl.h"

#define TTL "node.alpha.kubernetes.io/ttl"

static const char *ttl_for(uint32_t nodes)
{
    return nodes <= 100 ? "0" : nodes <= 500 ? "15" : nodes <= 1000 ? "30" : nodes <= 2000 ? "60" : "300";
}

static enum again ttl_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *node = ctl_get(ctl, K_NODE, "", key);
    const char *wanted = ttl_for(ctl_count(ctl, K_NODE));
    struct val *v;

    if (!node || obj_deleting(node) || streq0(obj_annotation(node, TTL), wanted))
        return DONE;
    v = obj_edit(node, ctl->arena);
    val_put_str(ctl->arena, val_need_map(ctl->arena, val_get(v, "metadata"), "annotations"), TTL, wanted);
    return ctl_update(ctl, K_NODE, v, err) || err->code == ERR_NOT_FOUND ? DONE : RETRY;
}

static void ttl_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    (void)kind;
    if (was && now && streq0(obj_annotation(now, TTL), obj_annotation(was, TTL) ? obj_annotation(was, TTL) : ""))
        return;
    ctl_want_obj(ctl, now);
    if ((!was || !now) && ctl_count(ctl, K_NODE) >= 100) /* all may stand on the other side of a step now */
        ctl_want_all(ctl, K_NODE, NULL);
}

extern const struct controller ttl_controller;
const struct controller ttl_controller = {
    .name = "ttl",
    .component = "ttl-controller",
    .reconcile = ttl_reconcile,
    .changed = ttl_changed,
    .kinds = KIND_BIT(K_NODE),
};
