#include "codec/obj.h"

#include "base/list.h"
#include "codec/json.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* What can be made again: the tree, and the text of a packed object. */
struct obj_more {
    struct list link; /* cache.all */
    struct obj *o;
    struct arena *arena; /* of the tree */
    const struct val *v; /* NULL: no tree */
    size_t bytes;
    _Atomic bool used; /* since the cache was trimmed last */
};

/* Oldest first. What was used since the last trim gets a second round. */
static struct {
    pthread_mutex_t lock;
    struct list all;
    size_t bytes, limit;
    bool woken;
    void (*wake)(void *);
    void *arg;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER,
           .all = {&cache.all, &cache.all},
           .limit = SIZE_MAX};

static struct obj *mutable(const struct obj *o)
{
    return (struct obj *)(uintptr_t)o;
}

static struct obj_more *more_of(const struct obj *o)
{
    return atomic_load_explicit(&mutable(o)->more, memory_order_acquire);
}

/* --- the cache -------------------------------------------------------------------------------- */
/* All of these: the lock is held. */
static struct obj_more *more_need(struct obj *o)
{
    struct obj_more *m = more_of(o);

    if (m)
        return m;
    m = xcalloc(1, sizeof *m);
    m->o = o;
    atomic_init(&m->used, true);
    list_push(&cache.all, &m->link);
    atomic_store_explicit(&o->more, m, memory_order_release);
    return m;
}

static void more_grow(struct obj_more *m, size_t bytes)
{
    m->bytes += bytes;
    cache.bytes += bytes;
}

/* true: the caller calls cache.wake once it has let go of the lock. */
static bool over_limit(void)
{
    if (cache.bytes <= cache.limit || cache.woken || !cache.wake)
        return false;
    return cache.woken = true;
}

static void more_drop(struct obj_more *m)
{
    struct obj *o = m->o;

    cache.bytes -= m->bytes;
    list_remove(&m->link);
    arena_free(m->arena);
    if (o->packed) {
        free((void *)(uintptr_t)o->text);
        o->text = NULL;
    }
    atomic_store_explicit(&o->more, NULL, memory_order_release);
    free(m);
}

void obj_cache_limit(size_t bytes, void (*wake)(void *arg), void *arg)
{
    pthread_mutex_lock(&cache.lock);
    cache.limit = bytes;
    cache.wake = wake;
    cache.arg = arg;
    cache.woken = false;
    pthread_mutex_unlock(&cache.lock);
}

void obj_cache_trim(void)
{
    size_t down_to;

    pthread_mutex_lock(&cache.lock);
    cache.woken = false;
    down_to = cache.limit - cache.limit / 4;
    while (cache.bytes > down_to) {
        struct list *l = list_first(&cache.all);
        struct obj_more *m = l ? list_entry(l, struct obj_more, link) : NULL;

        if (!m)
            break;
        if (cache.limit && atomic_exchange(&m->used, false)) {
            list_remove(l);
            list_push(&cache.all, l);
        } else {
            more_drop(m);
        }
    }
    pthread_mutex_unlock(&cache.lock);
}

size_t obj_cache_bytes(void)
{
    return cache.bytes;
}

enum { HAD_TEXT = 1, HAD_TREE = 2 };

unsigned obj_look(const struct obj *o)
{
    const struct obj_more *m = more_of(o);

    return (o->text ? HAD_TEXT : 0u) | (m && m->v ? HAD_TREE : 0u);
}

void obj_look_away(const struct obj *o, unsigned had)
{
    struct obj_more *m = more_of(o);

    if (!m || (had & HAD_TREE))
        return;
    pthread_mutex_lock(&cache.lock);
    if (!(had & HAD_TEXT) || !o->packed) {
        more_drop(m);
    } else if (m->v) {
        more_grow(m, (size_t)0 - arena_bytes(m->arena));
        m->arena = arena_free(m->arena);
        m->v = NULL;
    }
    pthread_mutex_unlock(&cache.lock);
}

/* --- making ----------------------------------------------------------------------------------- */
/* One block: the struct, `extra` bytes, then namespace, name and uid. */
static struct obj *block(size_t extra, int64_t revision, const char *ns, const char *name,
                         const char *uid)
{
    size_t ns_n = strlen(ns) + 1, name_n = strlen(name) + 1, uid_n = strlen(uid) + 1;
    struct obj *o = xmalloc(sizeof *o + extra + ns_n + name_n + uid_n);
    char *p = (char *)(o + 1) + extra;

    memset(o, 0, sizeof *o);
    atomic_init(&o->refs, 1);
    atomic_init(&o->more, NULL);
    o->revision = revision;
    o->namespace_ = memcpy(p, ns, ns_n);
    o->name = memcpy(p + ns_n, name, name_n);
    o->uid = memcpy(p + ns_n + name_n, uid, uid_n);
    return o;
}

/* Takes the text over. */
static struct obj *make_of(char *text, size_t n, int64_t revision, const char *ns, const char *name,
                           const char *uid)
{
    struct obj *o = block(0, revision, ns, name, uid);

    ASSERT(n < UINT32_MAX);
    o->text = text;
    o->text_n = (uint32_t)n;
    return o;
}

static char *copied(const char *text, size_t n)
{
    char *p = xmalloc(n + 1);

    memcpy(p, text, n);
    p[n] = 0;
    return p;
}

struct obj *obj_restore(const char *text, size_t n, int64_t revision, const char *ns,
                        const char *name, const char *uid)
{
    return make_of(copied(text, n), n, revision, ns, name, uid);
}

struct obj *obj_restore_packed(struct pack *pack, const void *packed, size_t n, size_t text_n,
                               int64_t revision, const char *ns, const char *name, const char *uid)
{
    struct obj *o = block(n, revision, ns, name, uid);

    ASSERT(text_n < UINT32_MAX && n < UINT32_MAX);
    o->text_n = (uint32_t)text_n;
    o->packed = memcpy(o + 1, packed, n);
    o->packed_n = (uint32_t)n;
    o->pack = pack_ref(pack);
    return o;
}

static struct obj *make(char *text, size_t n, const struct val *meta, int64_t revision)
{
    return make_of(text, n, revision, val_text(val_get(meta, "namespace"), ""),
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
    o = make(copied(b.p, b.n), b.n, &meta, revision); /* a buffer has room to spare */
    buf_done(&b);
    return o;
}

struct obj *obj_load(const char *text, size_t n, int64_t revision, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *v = json_parse(a, text, n, err);
    struct buf b = {0};
    struct obj *o;

    if (!v)
        return NULL;
    if (!val_is(val_get(v, "metadata"), VAL_MAP)) {
        err_set(err, INVALID_ARGUMENT, "object has no metadata");
        return NULL;
    }
    json_write(&b, v); /* as json_parse_own() wants it */
    o = make(copied(b.p, b.n), b.n, val_get(v, "metadata"), revision);
    buf_done(&b);
    return o;
}

struct obj *obj_ref(const struct obj *o)
{
    struct obj *own = mutable(o);

    atomic_fetch_add_explicit(&own->refs, 1, memory_order_relaxed);
    return own;
}

void *obj_unref(const struct obj *o)
{
    struct obj *own = mutable(o);

    if (!o || atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    if (more_of(o)) {
        pthread_mutex_lock(&cache.lock);
        if (more_of(o)) /* unless the trim was faster */
            more_drop(more_of(o));
        pthread_mutex_unlock(&cache.lock);
    }
    free((void *)(uintptr_t)own->text);
    if (own->packed != own + 1)
        free((void *)(uintptr_t)own->packed);
    pack_unref(own->pack);
    free(own);
    return NULL;
}

void obj_pack(const struct obj *o, struct pack *p)
{
    struct obj *own = mutable(o);
    uint32_t n;
    bool wake;

    if (o->packed || !(own->packed = pack_write(p, o->text, o->text_n, &n)))
        return;
    own->packed_n = n;
    own->pack = pack_ref(p);
    pthread_mutex_lock(&cache.lock);
    more_grow(more_need(own), o->text_n);
    wake = over_limit();
    pthread_mutex_unlock(&cache.lock);
    if (wake)
        cache.wake(cache.arg);
}

/* --- looking ---------------------------------------------------------------------------------- */
static char *unpack(const struct obj *o)
{
    char *text = xmalloc((size_t)o->text_n + 1);

    /* bytes of our own, from memory or from the database that we wrote: there is no going on */
    ASSERT(pack_read(o->pack, o->packed, o->packed_n, text, o->text_n));
    return text;
}

const char *obj_text(const struct obj *o)
{
    struct obj *own = mutable(o);
    struct obj_more *m = more_of(o);
    char *text;
    bool wake;

    if (o->text) {
        if (m)
            atomic_store_explicit(&m->used, true, memory_order_relaxed);
        return o->text;
    }
    text = unpack(o);
    pthread_mutex_lock(&cache.lock);
    m = more_need(own);
    if (own->text) { /* another thread was faster */
        free(text);
    } else {
        own->text = text;
        more_grow(m, o->text_n);
    }
    wake = over_limit();
    pthread_mutex_unlock(&cache.lock);
    if (wake)
        cache.wake(cache.arg);
    return own->text;
}

void obj_text_add(struct buf *b, const struct obj *o)
{
    if (o->text) {
        buf_add(b, o->text, o->text_n);
        return;
    }
    if (!buf_reserve(b, (size_t)o->text_n + 1))
        return;
    ASSERT(pack_read(o->pack, o->packed, o->packed_n, b->p + b->n, o->text_n));
    b->n += o->text_n;
}

const struct val *obj_val(const struct obj *o)
{
    struct obj_more *m = more_of(o);
    struct arena *a;
    struct val *v;
    bool wake;

    if (m && m->v) {
        atomic_store_explicit(&m->used, true, memory_order_relaxed);
        return m->v;
    }
    a = arena_new();
    v = obj_edit(o, a);
    pthread_mutex_lock(&cache.lock);
    m = more_need(mutable(o));
    if (m->v) { /* another thread was faster */
        arena_free(a);
    } else {
        m->arena = a;
        more_grow(m, arena_bytes(a));
        m->v = v;
    }
    v = (struct val *)(uintptr_t)m->v;
    wake = over_limit();
    pthread_mutex_unlock(&cache.lock);
    if (wake)
        cache.wake(cache.arg);
    return v;
}

char *obj_text_own(const struct obj *o, struct arena *a)
{
    char *text = arena_raw(a, (size_t)o->text_n + JSON_ROOM);

    if (o->text)
        memcpy(text, o->text, o->text_n);
    else
        ASSERT(pack_read(o->pack, o->packed, o->packed_n, text, o->text_n));
    return text;
}

struct val *obj_edit(const struct obj *o, struct arena *a)
{
    struct err err;
    struct val *v = json_parse_own(a, obj_text_own(o, a), o->text_n, &err);

    ASSERT(v); /* it was JSON when it was sealed */
    return v;
}

struct val *obj_show(const struct obj *o, struct arena *a)
{
    struct err err;
    struct val *v = json_parse_lean(a, obj_text_own(o, a), o->text_n, &err);

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
    return sizeof *o + 112 + (o->packed ? o->packed_n : o->text_n);
}
