#include "controller/ctl.h"

#include <stdio.h>

#include "base/log.h"
#include "client/workq.h"
#include "codec/selector.h"
#include "controller/ctl_int.h"
#include "controller/guard.h"
#include "controller/pods.h"

/* ---- the queue ---- */

static void lost(struct ctl *ctl, const char *key, const struct err *err)
{
    LOG(ERROR, "controller", "ctl=%s key=%s lost: %s", ctl->me->name, key, err->msg);
}

void ctl_want_key(struct ctl *ctl, const char *key)
{
    struct err err;

    if (workq_add(ctl->q, key, &err) < 0)
        lost(ctl, key, &err);
}

void ctl_want(struct ctl *ctl, const char *ns, const char *name)
{
    char key[CLIENT_KEY_BYTES];

    ctl_want_key(ctl, client_key_of(ns, name, key));
}

void ctl_want_obj(struct ctl *ctl, const struct obj *o)
{
    if (o)
        ctl_want(ctl, o->namespace_, o->name);
}

void ctl_want_in(struct ctl *ctl, const char *key, int64_t ms)
{
    struct err err;

    if (workq_add_after(ctl->q, key, MAX(ms, (int64_t)1), &err) < 0)
        lost(ctl, key, &err);
}

void ctl_want_all(struct ctl *ctl, enum kind kind, const char *ns)
{
    struct objs list = ctl_list(ctl, kind, ns);

    for (uint32_t i = 0; i < list.n; i++)
        ctl_want_obj(ctl, list.v[i]);
}

void ctl_want_controller_of(struct ctl *ctl, const struct obj *o, enum kind kind)
{
    const struct val *owner = o ? obj_controller(o) : NULL;

    if (owner && streq(val_text(val_get(owner, "kind"), ""), kind_rows[kind].kind))
        ctl_want(ctl, o->namespace_, val_text(val_get(owner, "name"), ""));
}

/* ---- reads ---- */

static void let_go(void *o)
{
    obj_unref(o);
}

static const struct obj *hold(struct ctl *ctl, const struct obj *o)
{
    if (o)
        arena_pin(ctl->arena, let_go, (void *)(uintptr_t)obj_ref(o));
    return o;
}

static const struct obj *take(struct ctl *ctl, const struct obj *o) /* the reference too */
{
    if (o)
        arena_pin(ctl->arena, let_go, (void *)(uintptr_t)o);
    return o;
}

static struct mirrored *of(struct ctl *ctl, enum kind kind)
{
    return &ctl->all->kinds[kind];
}

const struct obj *ctl_get(struct ctl *ctl, enum kind kind, const char *ns, const char *name)
{
    return hold(ctl, mirror_get(of(ctl, kind)->mirror, ns, name));
}

const struct obj *ctl_get_key(struct ctl *ctl, enum kind kind, const char *key)
{
    char buf[CLIENT_KEY_BYTES];
    const char *ns, *name;

    client_key_split(key, buf, &ns, &name);
    return ctl_get(ctl, kind, ns, name);
}

struct objs ctl_list(struct ctl *ctl, enum kind kind, const char *ns)
{
    return mirror_list(of(ctl, kind)->mirror, ctl->arena, ns);
}

uint32_t ctl_count(struct ctl *ctl, enum kind kind)
{
    return mirror_count(of(ctl, kind)->mirror);
}

struct objs ctl_owned(struct ctl *ctl, enum kind kind, const char *uid)
{
    return mirror_find(of(ctl, kind)->mirror, ctl->arena, of(ctl, kind)->by_owner, uid);
}

struct objs ctl_orphans(struct ctl *ctl, enum kind kind, const char *ns)
{
    return ctl_owned(ctl, kind, arena_printf(ctl->arena, "orphan/%s", ns));
}

struct objs ctl_pods_on(struct ctl *ctl, const char *node)
{
    return mirror_find(of(ctl, K_POD)->mirror, ctl->arena, of(ctl, K_POD)->by_node, node);
}

void objs_add(struct arena *a, struct objs *list, const struct obj *o)
{
    if ((list->n & (list->n - 1)) == 0 && (list->n == 0 || list->n >= 8)) {
        const struct obj **v = arena_array(a, const struct obj *, list->n ? 2 * list->n : 8);

        if (list->n)
            memcpy(v, list->v, list->n * sizeof *v);
        list->v = v;
    }
    list->v[list->n++] = o;
}

/* ---- claims ---- */

static int adopt(struct ctl *ctl, enum kind kind, const struct obj *o, const struct obj *owner,
                 enum kind owner_kind, const struct obj **ret, struct err *err)
{
    struct val *v = obj_edit(o, ctl->arena);

    val_push(ctl->arena, val_need_list(ctl->arena, val_get(v, "metadata"), "ownerReferences"),
             owner_reference(ctl->arena, owner_kind, owner));
    *ret = ctl_update(ctl, kind, v, err);
    return *ret ? 0 : -1;
}

static int release(struct ctl *ctl, enum kind kind, const struct obj *o, const struct obj *owner,
                   struct err *err)
{
    struct val *v = obj_edit(o, ctl->arena);
    struct val *refs = val_at(v, "metadata.ownerReferences");

    for (uint32_t i = refs ? refs->n : 0; i-- > 0;)
        if (streq(val_text(val_get(&refs->items[i], "uid"), ""), owner->uid))
            val_remove(refs, i);
    return ctl_update(ctl, kind, v, err) ? 0 : -1;
}

int ctl_claim(struct ctl *ctl, enum kind kind, const struct obj *owner, enum kind owner_kind,
              const struct val *selector, struct objs *ret, struct err *err)
{
    struct objs list = ctl_owned(ctl, kind, owner->uid), orphans = {0};

    *ret = (struct objs){0};
    for (uint32_t i = 0; i < list.n; i++) {
        if (selector_matches(selector, val_get(obj_meta(list.v[i]), "labels")))
            objs_add(ctl->arena, ret, list.v[i]);
        else if (!obj_deleting(owner) && !obj_deleting(list.v[i]) &&
                 release(ctl, kind, list.v[i], owner, err) < 0 && err->code != ERR_NOT_FOUND)
            return -1;
    }
    if (obj_deleting(owner))
        return 0;
    orphans = ctl_orphans(ctl, kind, owner->namespace_);
    for (uint32_t i = 0; i < orphans.n; i++) {
        const struct obj *mine;

        if (obj_deleting(orphans.v[i]) ||
            (kind == K_POD && pod_finished(orphans.v[i])) ||
            !selector_matches(selector, val_get(obj_meta(orphans.v[i]), "labels")))
            continue;
        if (adopt(ctl, kind, orphans.v[i], owner, owner_kind, &mine, err) < 0) {
            if (err->code == ERR_NOT_FOUND)
                continue;
            return -1;
        }
        objs_add(ctl->arena, ret, mine);
    }
    return 0;
}

/* ---- writes ----
 * Each is held back while the guard says that this controller goes round in circles with that object. */

/* Which object: by its name, or by what names are generated from. */
static const char *guard_key(struct ctl *ctl, enum kind kind, const char *ns, const struct val *v, bool *ret_named)
{
    const char *from = val_str_at(v, "metadata.generateName", ""), *name = val_str_at(v, "metadata.name", "");

    *ret_named = !*from;
    return arena_printf(ctl->arena, "%s/%s/%s%s", kind_rows[kind].kind, ns ? ns : "", *from ? "~" : "", *from ? from : name);
}

static int held(struct ctl *ctl, const char *key, struct err *err)
{
    int64_t ms = guard_held_ms(ctl->guard, key, ctl->now_ms);

    return ms ? err_set(err, TOO_MANY, "%s is held back for %lld ms: it was written again and again", key, (long long)ms) : 0;
}

static void noted(struct ctl *ctl, const char *key, enum guard_act act, const struct val *v, bool named)
{
    int64_t ms = guard_note(ctl->guard, key, act, v, named, ctl->now_ms);

    if (!ms)
        return;
    LOG(WARN, "controller", "ctl=%s object=%s did=hold-back ms=%lld why=\"%s again and again in a short time\"", ctl->me->name, key,
        (long long)ms, act == GUARD_WRITTEN ? "written with the same content" : "made");
    client_count(ctl->client, "tandem_controller_cycles_total", arena_printf(ctl->arena, "controller=\"%s\"", ctl->me->name), 1);
}

const struct obj *ctl_create(struct ctl *ctl, enum kind kind, const char *ns, const struct val *v,
                             struct err *err)
{
    const struct obj *made = NULL;
    bool named;
    const char *key = guard_key(ctl, kind, ns, v, &named);

    if (held(ctl, key, err) < 0 || client_create(ctl->client, kind_rows[kind].resource, ns, v, &made, err) < 0)
        return NULL;
    noted(ctl, key, GUARD_MADE, v, named);
    return take(ctl, made);
}

const struct obj *ctl_update(struct ctl *ctl, enum kind kind, const struct val *v, struct err *err)
{
    const struct obj *made = NULL;
    const char *key = arena_printf(ctl->arena, "%s/%s/%s", kind_rows[kind].kind, val_str_at(v, "metadata.namespace", ""),
                                   val_str_at(v, "metadata.name", ""));

    if (held(ctl, key, err) < 0 || client_update(ctl->client, kind_rows[kind].resource, v, &made, err) < 0)
        return NULL;
    noted(ctl, key, GUARD_WRITTEN, v, true);
    return take(ctl, made);
}

int ctl_update_status(struct ctl *ctl, enum kind kind, const struct obj *old, const struct val *v,
                      struct err *err)
{
    const char *key = arena_printf(ctl->arena, "%s/%s/%s/status", kind_rows[kind].kind, old->namespace_, old->name);
    const struct val *status = val_get(v, "status");

    if (val_equal(val_get(obj_val(old), "status"), status))
        return 0;
    if (held(ctl, key, err) < 0 || client_update_status(ctl->client, kind_rows[kind].resource, v, NULL, err) < 0)
        return -1;
    if (status)
        noted(ctl, key, GUARD_WRITTEN, status, true);
    return 0;
}

int ctl_delete(struct ctl *ctl, enum kind kind, const struct obj *o, const char *policy,
               int64_t grace_s, struct err *err)
{
    struct client_delete how = {.uid = o->uid, .propagation = policy, .grace_s = grace_s};
    struct err why;
    bool named;
    const char *key = guard_key(ctl, kind, o->namespace_, obj_val(o), &named);

    if (held(ctl, key, err) < 0)
        return -1;
    if (client_delete(ctl->client, kind_rows[kind].resource, o->namespace_, o->name, &how, &why) == 0) {
        noted(ctl, key, GUARD_DELETED, obj_val(o), named);
        return 0;
    }
    if (why.code == ERR_NOT_FOUND || why.code == ERR_CONFLICT) /* gone, or a namesake by now */
        return 0;
    *err = why;
    return -1;
}

const struct obj *ctl_finalizer(struct ctl *ctl, enum kind kind, const struct obj *o,
                                const char *name, bool there, struct err *err)
{
    struct val *v, *list;
    const struct obj *now = NULL;

    if (obj_has_finalizer(o, name) == there)
        return o;
    v = obj_edit(o, ctl->arena);
    list = val_need_list(ctl->arena, val_get(v, "metadata"), "finalizers");
    for (uint32_t i = list->n; i-- > 0;)
        if (streq(val_text(&list->items[i], ""), name))
            val_remove(list, i);
    if (there)
        val_push_str(ctl->arena, list, name);
    if (client_update(ctl->client, kind_rows[kind].resource, v, &now, err) < 0)
        return err->code == ERR_NOT_FOUND ? o : NULL;
    return now ? take(ctl, now) : o; /* with its last finalizer the object itself may be gone */
}

/* ---- telling ---- */

void ctl_put_count(struct arena *a, struct val *status, const char *key, int64_t n)
{
    if (n)
        val_put_int(a, status, key, n);
    else
        val_del(status, key);
}

const char *ctl_time(struct ctl *ctl)
{
    char buf[KUBETIME_MAX];

    return arena_strdup(ctl->arena, kubetime_text(buf, ctl->now_ms));
}

bool ctl_condition(struct ctl *ctl, struct val *v, const char *type, const char *status,
                   const char *reason, const char *message, bool update_time)
{
    struct arena *a = ctl->arena;
    struct val *list = val_need_list(a, val_need_map(a, v, "status"), "conditions"), *c = NULL;
    bool moved;

    VAL_EACH(list, it)
        if (streq(val_text(val_get(it, "type"), ""), type))
            c = it;
    if (c && streq(val_text(val_get(c, "status"), ""), status) &&
        streq(val_text(val_get(c, "reason"), ""), reason) &&
        streq(val_text(val_get(c, "message"), ""), message))
        return false;
    if (!c) {
        c = val_push(a, list, val_map(a));
        val_put_str(a, c, "type", type);
    }
    moved = !streq(val_text(val_get(c, "status"), ""), status);
    val_put_str(a, c, "status", status);
    if (update_time)
        val_put_str(a, c, "lastUpdateTime", ctl_time(ctl));
    if (moved)
        val_put_str(a, c, "lastTransitionTime", ctl_time(ctl));
    if (*reason)
        val_put_str(a, c, "reason", reason);
    else
        val_del(c, "reason");
    if (*message)
        val_put_str(a, c, "message", message);
    else
        val_del(c, "message");
    return true;
}

struct val *owner_reference(struct arena *a, enum kind kind, const struct obj *owner)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "apiVersion", kind_rows[kind].api_version);
    val_put_str(a, v, "kind", kind_rows[kind].kind);
    val_put_str(a, v, "name", owner->name);
    val_put_str(a, v, "uid", owner->uid);
    val_put_bool(a, v, "controller", true);
    val_put_bool(a, v, "blockOwnerDeletion", true);
    return v;
}
