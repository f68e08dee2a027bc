/* Secrets that hold tokens.
 *   kubernetes.io/service-account-token  gets a token of the account that its annotation names, the CA
 *                                        and its namespace; goes with the account
 *   bootstrap.kubernetes.io/token        goes when its time is over; signs the ConfigMap
 *                                        kube-public/cluster-info for who knows the token */
#include "controller/ctl_int.h"

#define ACCOUNT "kubernetes.io/service-account.name"
#define ACCOUNT_UID "kubernetes.io/service-account.uid"
#define INFO "cluster-info"
#define SIGNATURE "jws-kubeconfig-"

static const char *data_of(const struct obj *o, const char *key)
{
    return val_text(val_get(val_get(obj_val(o), "data"), key), "");
}

/* ---------------------------------------------------------------- of accounts */

static enum again fill(struct ctl *ctl, const struct obj *secret, struct err *err)
{
    const struct controllers_keys *keys = ctl->all->opts.keys;
    const char *account = obj_annotation(secret, ACCOUNT), *uid = obj_annotation(secret, ACCOUNT_UID);
    const struct obj *sa = account ? ctl_get(ctl, K_SERVICEACCOUNT, secret->namespace_, account) : NULL;
    struct arena *a = ctl->arena;
    struct val *v, *data;
    const char *ca;

    if (str_empty(account))
        return DONE;
    if (!sa || (!str_empty(uid) && !streq(uid, sa->uid)))
        return ctl_delete(ctl, K_SECRET, secret, NULL, -1, err) < 0 ? RETRY : DONE;
    ca = keys->base64(keys->arg, ctl->all->opts.ca_pem ? ctl->all->opts.ca_pem : "", a);
    if (*data_of(secret, "token") && streq(data_of(secret, "ca.crt"), ca) && *data_of(secret, "namespace") &&
        !str_empty(uid))
        return DONE;
    v = obj_edit(secret, a);
    val_put_str(a, val_need_map(a, val_get(v, "metadata"), "annotations"), ACCOUNT_UID, sa->uid);
    data = val_need_map(a, v, "data");
    val_put_str(a, data, "ca.crt", ca);
    val_put_str(a, data, "namespace", keys->base64(keys->arg, secret->namespace_, a));
    if (!*data_of(secret, "token")) {
        char *token = keys->token(keys->arg, secret->namespace_, account, sa->uid, secret->name, a);

        if (!token)
            return err_set(err, INTERNAL, "no token could be made"), RETRY;
        val_put_str(a, data, "token", keys->base64(keys->arg, token, a));
    }
    return ctl_update(ctl, K_SECRET, v, err) ? DONE : RETRY;
}

/* ---------------------------------------------------------------- of bootstrap */

static const char *plain(struct ctl *ctl, const struct obj *secret, const char *key)
{
    const struct controllers_keys *keys = ctl->all->opts.keys;

    return keys->unbase64(keys->arg, data_of(secret, key), ctl->arena);
}

static enum again clean(struct ctl *ctl, const char *key, const struct obj *secret, struct err *err)
{
    int64_t until = kubetime_parse(plain(ctl, secret, "expiration"));

    if (until < 0)
        return DONE;
    if (until <= ctl->now_ms)
        return ctl_delete(ctl, K_SECRET, secret, NULL, -1, err) < 0 ? RETRY : DONE;
    ctl_want_in(ctl, key, until - ctl->now_ms + 1000);
    return DONE;
}

static bool signs(struct ctl *ctl, const struct obj *secret)
{
    int64_t until = kubetime_parse(plain(ctl, secret, "expiration"));

    return streq(val_str_at(obj_val(secret), "type", ""), "bootstrap.kubernetes.io/token") &&
           streq(plain(ctl, secret, "usage-bootstrap-signing"), "true") && !obj_deleting(secret) &&
           (until < 0 || until > ctl->now_ms);
}

/* The signatures are those of the tokens that sign now, over the kubeconfig as it is now. */
static enum again sign_info(struct ctl *ctl, struct err *err)
{
    const struct controllers_keys *keys = ctl->all->opts.keys;
    const struct obj *info = ctl_get(ctl, K_CONFIGMAP, "kube-public", INFO);
    const char *text = info ? data_of(info, "kubeconfig") : "";
    struct val *v, *data;
    struct objs all;

    if (!*text)
        return DONE;
    data = val_map(ctl->arena);
    VAL_EACH_MEMBER(val_get(obj_val(info), "data"), m)
        if (!str_starts(m->key, SIGNATURE))
            val_put(ctl->arena, data, m->key, &m->v);
    all = ctl_list(ctl, K_SECRET, "kube-system");
    for (uint32_t i = 0; i < all.n; i++) {
        const char *id = plain(ctl, all.v[i], "token-id"), *secret = plain(ctl, all.v[i], "token-secret"), *jws;

        if (signs(ctl, all.v[i]) && *id && *secret &&
            (jws = keys->jws(keys->arg, id, arena_printf(ctl->arena, "%s.%s", id, secret), text, ctl->arena)))
            val_put_str(ctl->arena, data, arena_printf(ctl->arena, SIGNATURE "%s", id), jws);
    }
    if (val_equal(data, val_get(obj_val(info), "data")))
        return DONE;
    v = obj_edit(info, ctl->arena);
    val_put(ctl->arena, v, "data", data);
    return ctl_update(ctl, K_CONFIGMAP, v, err) ? DONE : RETRY;
}

static enum again tokens_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *secret = ctl_get_key(ctl, K_SECRET, key);
    const char *type = secret ? val_str_at(obj_val(secret), "type", "") : "";

    if (!ctl->all->opts.keys)
        return DONE;
    if (streq(key, INFO))
        return sign_info(ctl, err);
    if (!secret || obj_deleting(secret))
        return DONE;
    if (streq(type, "kubernetes.io/service-account-token"))
        return fill(ctl, secret, err);
    return streq(type, "bootstrap.kubernetes.io/token") ? clean(ctl, key, secret, err) : DONE;
}

static void tokens_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    const struct obj *o = now ? now : was;
    const char *type = val_str_at(obj_val(o), "type", "");

    if (kind == K_SECRET && streq(type, "kubernetes.io/service-account-token")) {
        ctl_want_obj(ctl, now);
    } else if (kind == K_SECRET && streq(type, "bootstrap.kubernetes.io/token")) {
        ctl_want_obj(ctl, now);
        ctl_want_key(ctl, INFO);
    } else if (kind == K_CONFIGMAP && streq(o->name, INFO) && streq(o->namespace_, "kube-public")) {
        ctl_want_key(ctl, INFO);
    } else if (kind == K_SERVICEACCOUNT && (!was || !now)) {
        struct objs all = ctl_list(ctl, K_SECRET, o->namespace_);

        for (uint32_t i = 0; i < all.n; i++)
            if (streq0(obj_annotation(all.v[i], ACCOUNT), o->name))
                ctl_want_obj(ctl, all.v[i]);
    }
}

extern const struct controller tokens_controller;
const struct controller tokens_controller = {
    .name = "tokens",
    .component = "serviceaccount-token-controller",
    .reconcile = tokens_reconcile,
    .changed = tokens_changed,
    .kinds = KIND_BIT(K_SECRET) | KIND_BIT(K_SERVICEACCOUNT) | KIND_BIT(K_CONFIGMAP),
};
