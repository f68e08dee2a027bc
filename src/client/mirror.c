/* A mirror's content: an ordered set of sealed objects and its indexes. The backend feeds it
 * (mirror_set, mirror_del, mirror_replace); callbacks come after the content has changed. */
#include "client/client_int.h"

struct mirror *client_mirror(struct client *c, const struct mirror_args *args)
{
    struct mirror *m = xcalloc(1, sizeof *m);

    m->c = c;
    m->arena = arena_new();
    m->args = *args;
    m->args.resource = arena_strdup(m->arena, args->resource);
    m->args.ns = str_empty(args->ns) ? NULL : arena_strdup(m->arena, args->ns);
    m->args.field_selector = str_empty(args->field_selector) ? NULL : arena_strdup(m->arena, args->field_selector);
    m->args.label_selector = str_empty(args->label_selector) ? NULL : arena_strdup(m->arena, args->label_selector);
    list_push(&c->mirrors, &m->link);
    c->ops->mirror_start(c, m);
    return m;
}

static void buckets_done(struct mirror_index *x)
{
    const char *key;
    void *bucket;

    for (uint32_t i = 0; map_next(&x->buckets, &i, &key, &bucket);) {
        index_done(bucket);
        free(bucket);
    }
    map_done(&x->buckets);
}

void mirror_hold(struct mirror *m)
{
    m->hold++;
}

bool mirror_release(struct mirror *m)
{
    if (--m->hold || !m->dead)
        return !m->dead;
    for (int i = 0; i < m->indexes_n; i++)
        buckets_done(&m->indexes[i]);
    free(m->indexes);
    index_done(&m->objs);
    arena_free(m->arena);
    free(m);
    return false;
}

void *mirror_free(struct mirror *m)
{
    if (!m)
        return NULL;
    mirror_hold(m);
    list_remove(&m->link);
    m->c->ops->mirror_stop(m);
    m->dead = true;
    mirror_release(m);
    return NULL;
}

/* --- indexes ---------------------------------------------------------------------------------- */
static void bucket_add_(struct mirror_index *x, const struct obj *o)
{
    char buf[512];
    const char *key = x->key_of(o, buf, sizeof buf);
    struct index *bucket;
    struct index_place p;

    if (!key)
        return;
    bucket = map_get(&x->buckets, key);
    if (!bucket) {
        bucket = xcalloc(1, sizeof *bucket);
        map_put(&x->buckets, key, bucket);
    }
    ASSERT(!index_seek(bucket, o->namespace_, o->name, &p));
    index_insert(bucket, p, o);
}

/* Indexing thousands of objects leaves none of their trees behind. */
static void bucket_add(struct mirror_index *x, const struct obj *o)
{
    unsigned had = obj_look(o);

    bucket_add_(x, o);
    obj_look_away(o, had);
}

static void bucket_del(struct mirror_index *x, const struct obj *o)
{
    char buf[512];
    const char *key = x->key_of(o, buf, sizeof buf);
    struct index *bucket = key ? map_get(&x->buckets, key) : NULL;
    struct index_place p;

    if (!key)
        return;
    ASSERT(bucket && index_seek(bucket, o->namespace_, o->name, &p));
    index_remove(bucket, p);
    if (bucket->n == 0) {
        map_del(&x->buckets, key);
        index_done(bucket);
        free(bucket);
    }
}

int mirror_index(struct mirror *m, mirror_key_fn *key_of)
{
    struct mirror_index *x;
    struct index_place p = {0};
    struct index_item *it;

    m->indexes = xrealloc(m->indexes, (size_t)(m->indexes_n + 1) * sizeof *m->indexes);
    x = &m->indexes[m->indexes_n];
    *x = (struct mirror_index){.key_of = key_of};
    for (; (it = index_at(&m->objs, &p)); p.at++)
        bucket_add(x, it->obj);
    return m->indexes_n++;
}

/* --- feeding ---------------------------------------------------------------------------------- */
void mirror_set(struct mirror *m, const struct obj *o)
{
    struct index_place p;
    const struct obj *was = NULL;

    mirror_hold(m);
    if (index_seek(&m->objs, o->namespace_, o->name, &p)) {
        struct index_item *it = index_at(&m->objs, &p);

        was = obj_ref(it->obj);
        for (int i = 0; i < m->indexes_n; i++)
            bucket_del(&m->indexes[i], was);
        index_replace(it, o);
    } else {
        index_insert(&m->objs, p, o);
    }
    for (int i = 0; i < m->indexes_n; i++)
        bucket_add(&m->indexes[i], o);
    if (m->telling && was && m->args.changed)
        m->args.changed(m->args.arg, was, o);
    if (m->telling && !was && m->args.added)
        m->args.added(m->args.arg, o);
    obj_unref(was);
    mirror_release(m);
}

void mirror_del(struct mirror *m, const char *ns, const char *name, const struct obj *last)
{
    struct index_place p;
    const struct obj *was;

    if (!index_seek(&m->objs, ns, name, &p))
        return;
    mirror_hold(m);
    was = obj_ref(index_at(&m->objs, &p)->obj);
    for (int i = 0; i < m->indexes_n; i++)
        bucket_del(&m->indexes[i], was);
    index_remove(&m->objs, p);
    if (m->telling && m->args.removed)
        m->args.removed(m->args.arg, last ? last : was);
    obj_unref(was);
    mirror_release(m);
}

static int by_key(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;

    return key_cmp(a->namespace_, a->name, b->namespace_, b->name);
}

void mirror_replace(struct mirror *m, const struct obj **v, uint32_t n)
{
    struct arena *a = arena_new();
    struct objs old = mirror_list(m, a, NULL);

    mirror_hold(m);
    if (n)
        qsort(v, n, sizeof *v, by_key);
    for (uint32_t i = 0, j = 0; i < old.n && !m->dead; i++) { /* gone while we did not look */
        while (j < n && by_key(&v[j], &old.v[i]) < 0)
            j++;
        if (j == n || by_key(&v[j], &old.v[i]) != 0)
            mirror_del(m, old.v[i]->namespace_, old.v[i]->name, NULL);
    }
    for (uint32_t i = 0; i < n && !m->dead; i++) {
        struct index_item *it = index_find(&m->objs, v[i]->namespace_, v[i]->name);

        if (!it || it->obj->revision != v[i]->revision || !streq(it->obj->uid, v[i]->uid))
            mirror_set(m, v[i]);
    }
    arena_free(a);
    mirror_release(m);
}

void mirror_tell_synced(struct mirror *m)
{
    if (m->synced)
        return;
    m->synced = true;
    if (m->args.synced)
        m->args.synced(m->args.arg);
}

void mirror_tell_first(struct mirror *m)
{
    struct arena *a = arena_new();
    struct objs all = mirror_list(m, a, NULL);

    mirror_hold(m);
    m->telling = true; /* what callbacks write is told at once */
    for (uint32_t i = 0; i < all.n && !m->dead && m->args.added; i++) {
        unsigned had = obj_look(all.v[i]);

        if (mirror_get(m, all.v[i]->namespace_, all.v[i]->name) == all.v[i])
            m->args.added(m->args.arg, all.v[i]);
        obj_look_away(all.v[i], had);
    }
    if (!m->dead) {
        m->synced = true;
        if (m->args.synced)
            m->args.synced(m->args.arg);
    }
    arena_free(a);
    mirror_release(m);
}

/* --- reading ---------------------------------------------------------------------------------- */
bool mirror_synced(const struct mirror *m)
{
    return m->synced;
}

int64_t mirror_revision(const struct mirror *m)
{
    return m->revision;
}

uint32_t mirror_count(const struct mirror *m)
{
    return m->objs.n;
}

const struct obj *mirror_get(const struct mirror *m, const char *ns, const char *name)
{
    struct index_item *it = index_find(&m->objs, ns, name);

    return it ? it->obj : NULL;
}

static void unpin(void *o)
{
    obj_unref(o);
}

static struct objs pin_range(const struct index *x, struct arena *a, const char *ns)
{
    struct index_place p, end;
    struct objs all = {0};
    struct index_item *it;

    index_range(x, ns, &p, &end);
    all.v = arena_array(a, const struct obj *, x->n ? x->n : 1);
    for (; (it = index_at(x, &p)) && (!ns || streq(it->obj->namespace_, ns)); p.at++) {
        all.v[all.n++] = it->obj;
        arena_pin(a, unpin, obj_ref(it->obj));
    }
    return all;
}

struct objs mirror_list(const struct mirror *m, struct arena *a, const char *ns)
{
    return pin_range(&m->objs, a, ns);
}

struct objs mirror_find(const struct mirror *m, struct arena *a, int index, const char *key)
{
    const struct index *bucket;

    ASSERT(index >= 0 && index < m->indexes_n);
    bucket = map_get(&m->indexes[index].buckets, key);
    return bucket ? pin_range(bucket, a, NULL) : (struct objs){0};
}

const char *key_controller_uid(const struct obj *o, _unused_ char *out, _unused_ size_t n)
{
    return val_text(val_get(obj_controller(o), "uid"), NULL);
}

const char *key_node_name(const struct obj *o, _unused_ char *out, _unused_ size_t n)
{
    return val_str_at(obj_val(o), "spec.nodeName", NULL);
}
