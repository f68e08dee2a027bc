#include "codec/obj.h"

#include "codec/json.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

struct obj_tree {
    struct arena *arena;
    const struct val *v;
};

/* One block: the struct, the text, then namespace, name and uid. */
struct obj *obj_restore(const char *text, size_t n, int64_t revision, const char *ns,
                        const char *name, const char *uid)
{
    size_t ns_n = strlen(ns) + 1, name_n = strlen(name) + 1, uid_n = strlen(uid) + 1;
    struct obj *o = xmalloc(sizeof *o + n + 1 + ns_n + name_n + uid_n);
    char *p = (char *)(o + 1);

    ASSERT(n < UINT32_MAX);
    atomic_init(&o->refs, 1);
    atomic_init(&o->tree, NULL);
    o->revision = revision;
    o->text_n = (uint32_t)n;
    o->text = memcpy(p, text, n);
    p[n] = 0;
    p += n + 1;
    o->namespace_ = memcpy(p, ns, ns_n);
    o->name = memcpy(p + ns_n, name, name_n);
    o->uid = memcpy(p + ns_n + name_n, uid, uid_n);
    return o;
}

static struct obj *make(const char *text, size_t n, const struct val *meta, int64_t revision)
{
    return obj_restore(text, n, revision, val_text(val_get(meta, "namespace"), ""),
                       val_text(val_get(meta, "name"), ""), val_text(val_get(meta, "uid"), ""));
}

struct obj *obj_seal(const struct val *v, int64_t revision)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char rv[24];
    struct val top = *v, meta = *val_get(v, "metadata");
    struct buf b = {0};
    struct obj *o;

    ASSERT(v->type == VAL_MAP && meta.type == VAL_MAP);
    snprintf(rv, sizeof rv, "%" PRId64, revision);
    /* shallow copies of the two maps, so that the caller's tree stays as it is */
    top.members = arena_memdup(a, v->members, v->n * sizeof *v->members);
    meta.members = arena_raw(a, (meta.n + 1) * sizeof *meta.members * 2);
    memcpy(meta.members, val_get(v, "metadata")->members, meta.n * sizeof *meta.members);
    if (val_get(&meta, "resourceVersion"))
        *val_get(&meta, "resourceVersion") = *val_lit(a, rv);
    else
        meta.members[meta.n++] = (struct val_member){
            .key = "resourceVersion", .n = sizeof "resourceVersion" - 1, .v = *val_lit(a, rv)};
    *val_get(&top, "metadata") = meta;
    json_write(&b, &top);
    o = make(b.p, b.n, &meta, revision);
    buf_done(&b);
    return o;
}

static struct obj_tree *tree_new(const char *text, size_t n, struct err *err)
{
    struct arena *a = arena_new();
    struct obj_tree *t = arena_new_of(a, struct obj_tree);

    t->arena = a;
    t->v = json_parse(a, text, n, err);
    return t->v ? t : arena_free(a);
}

struct obj *obj_load(const char *text, size_t n, int64_t revision, struct err *err)
{
    struct obj_tree *t = tree_new(text, n, err);
    struct obj *o;

    if (!t)
        return NULL;
    if (!val_is(val_get(t->v, "metadata"), VAL_MAP)) {
        arena_free(t->arena);
        err_set(err, INVALID_ARGUMENT, "object has no metadata");
        return NULL;
    }
    o = make(text, n, val_get(t->v, "metadata"), revision);
    arena_free(t->arena);
    return o;
}

struct obj *obj_ref(const struct obj *o)
{
    struct obj *own = (struct obj *)(uintptr_t)o;

    atomic_fetch_add_explicit(&own->refs, 1, memory_order_relaxed);
    return own;
}

void *obj_unref(const struct obj *o)
{
    struct obj *own = (struct obj *)(uintptr_t)o;
    struct obj_tree *t;

    if (!o || atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    t = atomic_load(&own->tree);
    if (t)
        arena_free(t->arena);
    free(own);
    return NULL;
}

const struct val *obj_val(const struct obj *o)
{
    struct obj *own = (struct obj *)(uintptr_t)o;
    struct obj_tree *t = atomic_load_explicit(&own->tree, memory_order_acquire), *was = NULL;
    struct err err;

    if (t)
        return t->v;
    t = tree_new(o->text, o->text_n, &err);
    ASSERT(t); /* it was JSON when it was sealed */
    if (atomic_compare_exchange_strong(&own->tree, &was, t))
        return t->v;
    arena_free(t->arena); /* another thread was faster */
    return was->v;
}

struct val *obj_edit(const struct obj *o, struct arena *a)
{
    struct err err;
    struct val *v = json_parse(a, o->text, o->text_n, &err);

    ASSERT(v);
    return v;
}

const struct val *obj_meta(const struct obj *o)
{
    return val_get(obj_val(o), "metadata");
}

const char *obj_label(const struct obj *o, const char *key)
{
    return val_text(val_get(val_get(obj_meta(o), "labels"), key), NULL);
}

const char *obj_annotation(const struct obj *o, const char *key)
{
    return val_text(val_get(val_get(obj_meta(o), "annotations"), key), NULL);
}

bool obj_deleting(const struct obj *o)
{
    return !val_is_null(val_get(obj_meta(o), "deletionTimestamp"));
}

const struct val *obj_controller(const struct obj *o)
{
    VAL_EACH(val_get(obj_meta(o), "ownerReferences"), r)
        if (val_bool_at(r, "controller", false))
            return r;
    return NULL;
}

size_t obj_bytes(const struct obj *o)
{
    struct obj_tree *t = atomic_load(&((struct obj *)(uintptr_t)o)->tree);

    return sizeof *o + o->text_n + 64 + (t ? arena_bytes(t->arena) : 0);
}
