/* schema/strategic.c - Kubernetes' strategic merge patch.
 *
 * Maps merge member by member as in RFC 7386. A list that the type says is merged (FIELD_MERGE) is
 * merged by its merge key, or as a set when its items are scalars; any other list is replaced.
 * Directives: `$patch: replace|delete|merge` in a map or as an item of a list; `$retainKeys: [..]`
 * (only these members stay); `$deleteFromPrimitiveList/NAME: [..]`; `$setElementOrder/NAME: [..]`
 * (the order of a merged list: items that the list names come in its order; the others of the
 * server stay in theirs, in front of what they stood in front of). */
#include "schema/patch.h"
#include "schema/schema_int.h"

#include "codec/json.h"

#define DELETE_FROM "$deleteFromPrimitiveList/"
#define ORDER "$setElementOrder/"

enum { DEPTH_MAX = 200 };

struct merging {
    struct arena *a;
    struct err *err;
    int depth;
};

static int merge_map(struct merging *m, const struct type *t, struct val *out,
                     const struct val *doc, const struct val *patch);

static const char *directive(const struct val *v)
{
    return val_text(val_get(v, "$patch"), NULL);
}

static bool is_directive(const char *key)
{
    return streq(key, "$patch") || streq(key, "$retainKeys") || str_starts(key, DELETE_FROM) ||
           str_starts(key, ORDER);
}

/* What a patch says about something that is not there yet: itself, without directives and nulls. */
static int plain(struct merging *m, const struct type *t, struct val *out, const struct val *v)
{
    struct val none = {.type = VAL_MAP};

    if (v->type == VAL_MAP && t && t->kind == TYPE_STRUCT)
        return merge_map(m, t, out, &none, v);
    if (v->type == VAL_MAP && t && t->kind == TYPE_MAP)
        return merge_map(m, t, out, &none, v);
    if (v->type == VAL_LIST && t && t->kind == TYPE_LIST) {
        *out = (struct val){.type = VAL_LIST};
        VAL_EACH(v, it) {
            struct val one;
            const char *how = directive(it);
            if (how && (streq(how, "delete") || streq(how, "replace")))
                continue;
            if (plain(m, t->elem, &one, it) < 0)
                return -1;
            val_push(m->a, out, &one);
        }
        return 0;
    }
    *out = *v;
    return 0;
}

static int64_t find_key(const struct val *list, const char *key, const struct val *value)
{
    for (uint32_t i = 0; i < list->n; i++) {
        const struct val *have = val_get(&list->items[i], key);
        if (have && val_equal(have, value))
            return i;
    }
    return -1;
}

static int64_t find_scalar(const struct val *list, const struct val *value)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (val_equal(&list->items[i], value))
            return i;
    return -1;
}

static void remove_all(struct val *list, const char *key, const struct val *value)
{
    int64_t i;

    while ((i = find_key(list, key, value)) >= 0)
        val_remove(list, (uint32_t)i);
}

static struct val list_copy(struct arena *a, const struct val *list)
{
    struct val out = {.type = VAL_LIST};

    VAL_EACH(list, it)
        val_push(a, &out, it);
    return out;
}

static int merge_items(struct merging *m, const struct type *elem, const char *key,
                       struct val *out, const struct val *patch)
{
    bool replace = false;

    VAL_EACH(patch, it) { /* a {$patch: replace} item: the others of the patch are the list */
        const char *how = directive(it);
        if (how && streq(how, "replace"))
            replace = true;
    }
    if (replace)
        *out = (struct val){.type = VAL_LIST};
    VAL_EACH(patch, it) {
        const char *how = directive(it);
        const struct val *id = val_get(it, key);
        if (how && streq(how, "replace"))
            continue;
        if (how && !streq(how, "delete") && !streq(how, "merge"))
            return err_set(m->err, INVALID_ARGUMENT, "unknown patch type found: %.40s", how);
        if (!id)
            return err_set(m->err, INTERNAL, /* so says upstream of it */
                           "map: does not contain declared merge key: %s", key);
        if (how && streq(how, "delete")) {
            remove_all(out, key, id);
            continue;
        }
        int64_t at = find_key(out, key, id);
        struct val one, none = {.type = VAL_MAP};
        if (merge_map(m, elem, &one, at < 0 ? &none : &out->items[at], it) < 0)
            return -1;
        if (at < 0)
            val_push(m->a, out, &one);
        else
            out->items[at] = one;
    }
    return 0;
}

static const struct val *identity(const struct val *item, const char *key)
{
    return key ? val_get(item, key) : item;
}

static int64_t place_in(const struct val *order, const struct val *item, const char *key)
{
    const struct val *id = identity(item, key);

    if (!id)
        return -1;
    for (uint32_t i = 0; i < order->n; i++) {
        const struct val *o = identity(&order->items[i], key);
        if (o && val_equal(o, id))
            return i;
    }
    return -1;
}

static void take_next_unnamed(struct arena *a, struct val *out, const struct val *list,
                              const struct val *order, const char *key, uint32_t *i)
{
    while (*i < list->n && place_in(order, &list->items[*i], key) < 0)
        val_push(a, out, &list->items[(*i)++]);
}

/* The items that `order` names in its order; each of the others before the named item that it
 * stood before in the server's list. */
static struct val ordered(struct arena *a, const struct val *list, const struct val *order,
                          const char *key, const struct val *server)
{
    struct val out = {.type = VAL_LIST}, named = {.type = VAL_LIST}, rest = {.type = VAL_LIST};

    for (uint32_t o = 0; o < order->n; o++)
        VAL_EACH(list, it)
            if (place_in(order, it, key) == (int64_t)o) {
                val_push(a, &named, it);
                break;
            }
    /* unnamed ones keep the server's order; server tells where the named ones stood */
    VAL_EACH(server, it) {
        const struct val *id = identity(it, key);
        if (!id || place_in(order, it, key) >= 0)
            continue;
        int64_t at = key ? find_key(list, key, id) : find_scalar(list, id);
        if (at >= 0)
            val_push(a, &rest, &list->items[at]);
    }
    uint32_t r = 0;
    VAL_EACH(&named, it) {
        const struct val *id = identity(it, key);
        int64_t stood = key ? find_key(server, key, id) : find_scalar(server, id);
        while (stood >= 0 && r < rest.n) {
            const struct val *rid = identity(&rest.items[r], key);
            int64_t rs = key ? find_key(server, key, rid) : find_scalar(server, rid);
            if (rs > stood)
                break;
            val_push(a, &out, &rest.items[r++]);
        }
        val_push(a, &out, it);
    }
    take_next_unnamed(a, &out, &rest, &(struct val){.type = VAL_LIST}, key, &r);
    return out;
}

/* A list whose field merges. */
static int merge_list(struct merging *m, const struct field *f, const struct type *t,
                      struct val *out, const struct val *doc, const struct val *patch_list,
                      const struct val *deletes, const struct val *order)
{
    struct val empty = {.type = VAL_LIST};
    const struct val *server = val_is(doc, VAL_LIST) ? doc : &empty;

    *out = list_copy(m->a, server);
    VAL_EACH(deletes, d) {
        int64_t i;
        while ((i = find_scalar(out, d)) >= 0)
            val_remove(out, (uint32_t)i);
    }
    if (f->merge_key) {
        if (patch_list && merge_items(m, t->elem, f->merge_key, out, patch_list) < 0)
            return -1;
    } else {
        VAL_EACH(patch_list, it)
            if (find_scalar(out, it) < 0)
                val_push(m->a, out, it);
    }
    /* without an order of its own the patch's list is the order */
    if (val_is(order, VAL_LIST) || patch_list)
        *out = ordered(m->a, out, val_is(order, VAL_LIST) ? order : patch_list, f->merge_key, server);
    return 0;
}

static const struct val *with_prefix(struct arena *a, const struct val *patch, const char *prefix,
                                     const char *name)
{
    return val_get(patch, arena_printf(a, "%s%s", prefix, name));
}

static int merge_member(struct merging *m, const struct type *t, const char *key, uint32_t n,
                        struct val *out, const struct val *doc, const struct val *patch,
                        const struct val *whole)
{
    const struct field *f = t && t->kind == TYPE_STRUCT ? type_field(t, key, n) : NULL;
    const struct type *ft = f ? f->type : t && t->kind == TYPE_MAP ? t->elem : NULL;
    bool merges = f && (f->flags & FIELD_MERGE) && ft->kind == TYPE_LIST;

    if (merges && (!patch || patch->type == VAL_LIST)) {
        const struct val *del = with_prefix(m->a, whole, DELETE_FROM, f->name);
        const struct val *order = with_prefix(m->a, whole, ORDER, f->name);
        return merge_list(m, f, ft, out, doc, patch, del, order);
    }
    if (f && (f->flags & FIELD_REPLACE) && val_is(doc, patch->type)) {
        *out = *patch; /* word by word: a directive within is none */
        return 0;
    }
    if (patch->type == VAL_MAP) {
        struct val none = {.type = VAL_MAP};
        return merge_map(m, ft, out, val_is(doc, VAL_MAP) ? doc : &none, patch);
    }
    return plain(m, ft, out, patch);
}

static bool retained(const struct val *keep, const char *key)
{
    VAL_EACH(keep, k)
        if (streq(val_text(k, ""), key))
            return true;
    return false;
}

static int merge_map(struct merging *m, const struct type *t, struct val *out,
                     const struct val *doc, const struct val *patch)
{
    const char *how = directive(patch);
    const struct val *keep = val_get(patch, "$retainKeys");
    struct val none = {.type = VAL_MAP};

    if (++m->depth > DEPTH_MAX)
        return err_set(m->err, INVALID_ARGUMENT, "the patch is nested too deeply");
    if (how && streq(how, "delete")) {
        *out = none;
        m->depth--;
        return 0;
    }
    if (how && streq(how, "replace"))
        doc = &none;
    else if (how && !streq(how, "merge"))
        return err_set(m->err, INVALID_ARGUMENT, "unknown patch type found: %.40s", how);
    if (keep && keep->type != VAL_LIST)
        return err_set(m->err, INVALID_ARGUMENT, "invalid patch format of $retainKeys");
    VAL_EACH_MEMBER(patch, pm)
        if (keep && pm->v.type != VAL_NULL && !is_directive(pm->key) && !retained(keep, pm->key))
            return err_set(m->err, INVALID_ARGUMENT,
                           "$retainKeys list doesn't contain all fields present in the patch");
    *out = none;
    VAL_EACH_MEMBER(doc, dm) {
        if (keep && !retained(keep, dm->key))
            continue;
        const struct val *p = val_getn(patch, dm->key, dm->n);
        bool by_directive = val_len(with_prefix(m->a, patch, DELETE_FROM, dm->key)) ||
                            val_len(with_prefix(m->a, patch, ORDER, dm->key));
        if (p && p->type == VAL_NULL)
            continue;
        if (!p && !(by_directive && dm->v.type == VAL_LIST)) {
            val_putn(m->a, out, dm->key, dm->n, &dm->v);
            continue;
        }
        struct val v;
        const struct field *f = t && t->kind == TYPE_STRUCT ? type_field(t, dm->key, dm->n) : NULL;
        if (!p && !(f && (f->flags & FIELD_MERGE) && f->type->kind == TYPE_LIST)) {
            val_putn(m->a, out, dm->key, dm->n, &dm->v);
            continue;
        }
        if (merge_member(m, t, dm->key, dm->n, &v, &dm->v, p, patch) < 0)
            return -1;
        val_putn(m->a, out, dm->key, dm->n, &v);
    }
    VAL_EACH_MEMBER(patch, pm) {
        struct val v;
        if (is_directive(pm->key) || pm->v.type == VAL_NULL || val_getn(out, pm->key, pm->n))
            continue;
        if (val_getn(doc, pm->key, pm->n) && !keep)
            continue; /* merged above */
        if (merge_member(m, t, pm->key, pm->n, &v, NULL, &pm->v, patch) < 0)
            return -1;
        val_putn(m->a, out, pm->key, pm->n, &v);
    }
    m->depth--;
    return 0;
}

struct val *patch_strategic(const struct type *t, struct arena *a, const struct val *doc,
                            const struct val *patch, struct err *err)
{
    struct merging m = {.a = a, .err = err};
    struct val *out = arena_new_of(a, struct val);

    if (patch->type != VAL_MAP) {
        err_set(err, INVALID_ARGUMENT, "json: cannot unmarshal patch: it must be an object");
        return NULL;
    }
    return merge_map(&m, t, out, doc, patch) < 0 ? NULL : out;
}
