/* ServiceCIDRs: a finalizer and the condition Ready; one that goes stays while an address of a service
 * lies in no other one. */
#include <arpa/inet.h>
#include <stdio.h>

#include "controller/ctl.h"
#include "controller/pods.h"

#define FINALIZER "networking.k8s.io/service-cidr-finalizer"

enum { GRACE_MS = 10000 }; /* allocations that are under way end before the range does */

struct range {
    uint8_t net[16];
    int bits, bytes;
};

static bool parse(const char *text, struct range *r)
{
    char ip[INET6_ADDRSTRLEN];
    size_t n = strcspn(text, "/");
    bool six = strchr(text, ':');

    *r = (struct range){.bytes = six ? 16 : 4};
    if (n >= sizeof ip)
        return false;
    memcpy(ip, text, n);
    ip[n] = 0;
    r->bits = text[n] ? atoi(text + n + 1) : r->bytes * 8;
    return r->bits >= 0 && r->bits <= r->bytes * 8 && inet_pton(six ? AF_INET6 : AF_INET, ip, r->net) == 1;
}

static bool contains(const struct range *big, const struct range *small)
{
    if (big->bytes != small->bytes || big->bits > small->bits)
        return false;
    for (int i = 0; i < big->bits; i++)
        if ((big->net[i / 8] ^ small->net[i / 8]) >> (7 - i % 8) & 1)
            return false;
    return true;
}

/* Does another one, that stays, hold it? */
static bool held_elsewhere(struct ctl *ctl, const struct obj *self, const struct range *what)
{
    struct objs all = ctl_list(ctl, K_SERVICECIDR, NULL);
    struct range r;

    for (uint32_t i = 0; i < all.n; i++) {
        if (streq(all.v[i]->uid, self->uid) || obj_deleting(all.v[i]))
            continue;
        VAL_EACH(val_at(obj_val(all.v[i]), "spec.cidrs"), c)
            if (parse(val_text(c, ""), &r) && contains(&r, what))
                return true;
    }
    return false;
}

static bool may_go(struct ctl *ctl, const struct obj *cidr)
{
    struct objs all = ctl_list(ctl, K_IPADDRESS, NULL);
    struct range ip, r;

    for (uint32_t i = 0; i < all.n; i++) {
        bool ours = false;

        if (!streq0(obj_label(all.v[i], "ipaddress.kubernetes.io/managed-by"), "ipallocator.k8s.io") ||
            !parse(all.v[i]->name, &ip))
            continue;
        VAL_EACH(val_at(obj_val(cidr), "spec.cidrs"), c)
            ours |= parse(val_text(c, ""), &r) && contains(&r, &ip);
        if (ours && !held_elsewhere(ctl, cidr, &ip))
            return false;
    }
    return true;
}

static int tell(struct ctl *ctl, const struct obj *cidr, const char *is, const char *reason, const char *message,
                struct err *err)
{
    struct arena *a = ctl->arena;
    const struct val *old = condition_of(cidr, "Ready");
    struct val *v = obj_edit(cidr, a), *list, *c = NULL;

    if (old && streq(val_str_at(old, "status", ""), is) && streq(val_str_at(old, "reason", ""), reason) &&
        streq(val_str_at(old, "message", ""), message))
        return 0;
    list = val_need_list(a, val_need_map(a, v, "status"), "conditions");
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "Ready"))
            c = it;
    if (!c)
        c = val_push(a, list, val_map(a));
    val_put_str(a, c, "type", "Ready");
    if (!streq(val_str_at(c, "status", ""), is))
        val_put_str(a, c, "lastTransitionTime", ctl_time(ctl));
    val_put_str(a, c, "status", is);
    val_put_str(a, c, "reason", reason);
    val_put_str(a, c, "message", message);
    return ctl_update_status(ctl, K_SERVICECIDR, cidr, v, err);
}

static enum again servicecidr_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *cidr = ctl_get(ctl, K_SERVICECIDR, "", key);
    int64_t left;

    if (!cidr)
        return DONE;
    if (!obj_deleting(cidr)) {
        if (!(cidr = ctl_finalizer(ctl, K_SERVICECIDR, cidr, FINALIZER, true, err)))
            return RETRY;
        return tell(ctl, cidr, "True", "", "Kubernetes Service CIDR is ready", err) < 0 ? RETRY : DONE;
    }
    if (!obj_has_finalizer(cidr, FINALIZER))
        return DONE;
    if (!may_go(ctl, cidr))
        return tell(ctl, cidr, "False", "Terminating", "There are still IPAddresses referencing the ServiceCIDR, please "
                    "remove them or create a new ServiceCIDR", err) < 0 ? RETRY : DONE;
    left = kubetime_parse(obj_str(cidr, "metadata.deletionTimestamp", "")) + GRACE_MS - ctl->now_ms;
    if (left > 0) {
        ctl_want_in(ctl, key, left);
        return DONE;
    }
    return ctl_finalizer(ctl, K_SERVICECIDR, cidr, FINALIZER, false, err) ? DONE : RETRY;
}

static void servicecidr_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    if (kind == K_SERVICECIDR) {
        ctl_want_obj(ctl, now);
        if (!was || !now || obj_deleting(now)) /* others may have waited for it */
            ctl_want_all(ctl, K_SERVICECIDR, NULL);
    } else if (!now) {
        ctl_want_all(ctl, K_SERVICECIDR, NULL);
    }
}

extern const struct controller servicecidr_controller;
const struct controller servicecidr_controller = {
    .name = "servicecidr",
    .component = "service-cidr-controller",
    .reconcile = servicecidr_reconcile,
    .changed = servicecidr_changed,
    .kinds = KIND_BIT(K_SERVICECIDR) | KIND_BIT(K_IPADDRESS),
};
