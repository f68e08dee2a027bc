#include "controller/revisions.h"

#include "controller/pods.h"
#include "controller/rollout.h"

enum { LIMIT = 10, COLLISIONS_MAX = 100 };

static struct val *data_of(struct ctl *ctl, const struct obj *owner)
{
    struct arena *a = ctl->arena;
    struct val *data = val_map(a), *template = val_copy(a, val_at(obj_val(owner), "spec.template"));

    val_put_str(a, template, "$patch", "replace");
    val_put(a, val_need_map(a, data, "spec"), "template", template);
    return data;
}

/* The same template? (An empty creationTimestamp, as Go writes it, says nothing.) */
static bool same_data(struct ctl *ctl, const struct obj *revision, const struct val *data)
{
    const struct val *have = val_get(obj_val(revision), "data");
    struct val *copy;

    if (val_equal(have, data))
        return true;
    if (!val_is(val_at(have, "spec.template.metadata.creationTimestamp"), VAL_NULL))
        return false;
    copy = val_copy(ctl->arena, have);
    val_del(val_at(copy, "spec.template.metadata"), "creationTimestamp");
    return val_equal(copy, data);
}

struct val *revisions_template(struct ctl *ctl, const struct obj *revision)
{
    struct val *t = val_copy(ctl->arena, val_at(obj_val(revision), "data.spec.template"));

    if (!val_is(t, VAL_MAP))
        return NULL;
    val_del(t, "$patch");
    return t;
}

const struct obj *revisions_named(const struct revisions *h, const char *name)
{
    for (uint32_t i = 0; i < h->all.n; i++)
        if (streq(h->all.v[i]->name, name))
            return h->all.v[i];
    return NULL;
}

static int oldest_first(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;
    int64_t ra = obj_int(a, "revision", 0), rb = obj_int(b, "revision", 0);

    if (ra != rb)
        return ra < rb ? -1 : 1;
    ra = obj_created_ms(a);
    rb = obj_created_ms(b);
    return ra != rb ? (ra < rb ? -1 : 1) : strcmp(a->name, b->name);
}

static const struct obj *make(struct ctl *ctl, enum kind kind, const struct obj *owner, const char *hash_label,
                              const struct val *data, int64_t number, struct revisions *h, struct err *err)
{
    struct arena *a = ctl->arena;
    const struct val *template = val_at(obj_val(owner), "spec.template");

    for (int i = 0; i < COLLISIONS_MAX; i++, h->collisions++) {
        struct val *v = val_map(a), *meta = val_put(a, v, "metadata", val_map(a)), *labels;
        const struct obj *made, *there;
        const char *name;

        h->hash = template_hash(a, template, h->collisions);
        name = arena_printf(a, "%s-%s", owner->name, h->hash);
        val_put_str(a, meta, "name", name);
        labels = val_at(template, "metadata.labels") ? val_copy(a, val_at(template, "metadata.labels")) : val_map(a);
        val_put_str(a, labels, hash_label, h->hash);
        val_put(a, meta, "labels", labels);
        if (val_len(val_get(obj_meta(owner), "annotations")))
            val_put(a, meta, "annotations", val_copy(a, val_get(obj_meta(owner), "annotations")));
        val_push(a, val_need_list(a, meta, "ownerReferences"), owner_reference(a, kind, owner));
        val_put(a, v, "data", data);
        val_put_int(a, v, "revision", number);
        made = ctl_create(ctl, K_REVISION, owner->namespace_, v, err);
        if (made || err->code != ERR_ALREADY_EXISTS)
            return made;
        there = ctl_get(ctl, K_REVISION, owner->namespace_, name);
        if (there && same_data(ctl, there, data) && obj_controller(there) &&
            streq(val_str_at(obj_controller(there), "uid", ""), owner->uid))
            return there;
    }
    return NULL;
}

int revisions_sync(struct ctl *ctl, enum kind kind, const struct obj *owner, const char *hash_label,
                 struct revisions *ret, struct err *err)
{
    struct val *data = data_of(ctl, owner);
    struct revisions h = {.collisions = obj_int(owner, "status.collisionCount", 0)};
    const struct obj *same = NULL;
    int64_t last = 0;

    if (ctl_claim(ctl, K_REVISION, owner, kind, val_at(obj_val(owner), "spec.selector"), &h.all, err) < 0)
        return -1;
    if (h.all.n)
        qsort(h.all.v, h.all.n, sizeof *h.all.v, oldest_first);
    for (uint32_t i = 0; i < h.all.n; i++) {
        last = obj_int(h.all.v[i], "revision", 0);
        if (same_data(ctl, h.all.v[i], data))
            same = h.all.v[i];
    }
    if (same && obj_int(same, "revision", 0) < last) { /* it is back */
        struct val *v = obj_edit(same, ctl->arena);

        val_put_int(ctl->arena, v, "revision", last + 1);
        if (!(same = ctl_update(ctl, K_REVISION, v, err)))
            return -1;
        for (uint32_t i = 0; i < h.all.n; i++)
            if (streq(h.all.v[i]->uid, same->uid))
                h.all.v[i] = same;
    } else if (!same) {
        if (!(same = make(ctl, kind, owner, hash_label, data, last + 1, &h, err)))
            return -1;
        objs_add(ctl->arena, &h.all, same);
    }
    h.now = same;
    h.hash = same->name + MIN(strlen(same->name), strlen(owner->name) + 1);
    if (obj_label(same, hash_label))
        h.hash = arena_strdup(ctl->arena, obj_label(same, hash_label));
    *ret = h;
    return 0;
}

int revisions_trim(struct ctl *ctl, const struct obj *owner, const struct revisions *h,
                 bool (*live)(void *arg, const struct obj *revision), void *arg, struct err *err)
{
    int64_t spare = -obj_int(owner, "spec.revisionHistoryLimit", LIMIT);

    for (uint32_t i = 0; i < h->all.n; i++)
        spare += h->all.v[i] != h->now && !live(arg, h->all.v[i]);
    for (uint32_t i = 0; i < h->all.n && spare > 0; i++) {
        if (h->all.v[i] == h->now || live(arg, h->all.v[i]))
            continue;
        if (ctl_delete(ctl, K_REVISION, h->all.v[i], NULL, -1, err) < 0)
            return -1;
        spare--;
    }
    return 0;
}
