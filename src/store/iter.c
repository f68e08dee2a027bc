/* Walking a table, now or as it was. The past is the head with the changes since then taken back:
 * the history of the table is read backwards, and for each key the oldest change after the
 * revision tells what was there. That list, sorted, is merged with the walk of the head. */
#include "store/store_int.h"

#include <inttypes.h>

struct store_past {
    const struct obj *key; /* for its namespace and name */
    const struct obj *was; /* what was there; NULL: nothing */
};

static int past_cmp(const void *x, const void *y)
{
    const struct store_past *a = x, *b = y;

    return key_cmp(a->key->namespace_, a->key->name, b->key->namespace_, b->key->name);
}

static void past_free(struct store_iter *it)
{
    for (uint32_t i = 0; i < it->past_n; i++) {
        obj_unref(it->past[i].key);
        obj_unref(it->past[i].was);
    }
    free(it->past);
    it->past = NULL;
    it->past_n = it->past_at = 0;
}

static void past_build(struct store_iter *it)
{
    struct list *h = (struct list *)(uintptr_t)&it->t->history;
    uint32_t n = 0, cap = 0;
    struct map keys = {0}; /* key -> place in past + 1: the oldest change of a key counts */

    past_free(it);
    for (struct list *l = h->prev; l != h; l = l->prev) {
        struct hist *c = list_entry(l, struct hist, in_table);
        const struct obj *was = c->type == STORE_ADDED ? NULL : c->prev;
        char key[640];
        size_t key_n;
        uintptr_t at;

        if (c->revision <= it->revision)
            break;
        if (it->ns && !streq(c->obj->namespace_, it->ns))
            continue;
        key_n = strlen(c->obj->namespace_) + strlen(c->obj->name) + 2;
        ASSERT(key_n <= sizeof key);
        stpcpy(stpcpy(stpcpy(key, c->obj->namespace_), "/"), c->obj->name);
        at = (uintptr_t)map_get(&keys, key);
        if (!at) {
            if (n == cap)
                it->past = xrealloc(it->past, (cap = cap ? 2 * cap : 16) * sizeof *it->past);
            it->past[n++] = (struct store_past){.key = obj_ref(c->obj)};
            at = n;
            map_put(&keys, key, (void *)at);
        }
        obj_unref(it->past[at - 1].was);
        it->past[at - 1].was = was ? obj_ref(was) : NULL;
    }
    map_done(&keys);
    it->past_n = n;
    if (n)
        qsort(it->past, n, sizeof *it->past, past_cmp);
}

/* Differs when the place has to be looked up again: the past also goes stale by a change in place. */
static uint64_t stamp(const struct store_iter *it)
{
    return it->revision ? (uint64_t)it->s->head : it->t->head.change;
}

/* Finds the place behind the last object given out (or behind after_*), in head and past. */
static void seek(struct store_iter *it)
{
    const char *ns = it->last ? it->last->namespace_ : it->after_ns;
    const char *name = it->last ? it->last->name : it->after_name;
    struct index_place p = {0}, end;

    if (it->revision)
        past_build(it);
    it->change = stamp(it);
    if (ns) {
        if (index_seek(&it->t->head, ns, name, &p))
            p.at++;
        while (it->past_at < it->past_n &&
               key_cmp(it->past[it->past_at].key->namespace_, it->past[it->past_at].key->name, ns, name) <= 0)
            it->past_at++;
    } else if (it->ns) {
        index_range(&it->t->head, it->ns, &p, &end);
    }
    it->block = p.block;
    it->at = p.at;
}

int store_iter_init(struct store_iter *it, struct store *s, const struct store_table *t,
                    const char *ns, int64_t revision, const char *after_ns, const char *after_name,
                    struct err *err)
{
    *it = (struct store_iter){.s = s, .t = t, .ns = ns};
    if (revision > s->head)
        return err_set(err, INVALID_ARGUMENT, "revision %" PRId64 " is in the future (now %" PRId64 ")",
                       revision, s->head);
    if (revision && revision < s->floor)
        return err_set(err, EXPIRED,
                       "The provided continue parameter is too old to display a consistent list result: "
                       "revision %" PRId64 ", kept from %" PRId64, revision, s->floor);
    it->revision = revision; /* also when it is the head: writes may come while we walk */
    if (after_name) {
        /* a key before the namespace is as good as none */
        bool before = ns && strcmp(after_ns, ns) < 0;

        it->after_ns = xstrdup(before ? ns : after_ns);
        it->after_name = xstrdup(before ? "" : after_name);
    }
    s->hold++; /* the history must not move on under us */
    seek(it);
    return 0;
}

static const struct obj *give(struct store_iter *it, const struct obj *o)
{
    obj_unref(it->last);
    it->last = obj_ref(o);
    return o;
}

const struct obj *store_iter_next(struct store_iter *it)
{
    if (!it->s)
        return NULL;
    if (it->change != stamp(it))
        seek(it);
    for (;;) {
        struct index_place p = {it->block, it->at};
        struct index_item *item = index_at(&it->t->head, &p);
        struct store_past *past = it->past_at < it->past_n ? &it->past[it->past_at] : NULL;
        int c;

        if (item && it->ns && !streq(item->obj->namespace_, it->ns))
            item = NULL;
        if (!item && !past)
            return NULL;
        c = !past   ? -1
            : !item ? 1
                    : key_cmp(item->obj->namespace_, item->obj->name, past->key->namespace_, past->key->name);
        if (c <= 0) {
            it->block = p.block;
            it->at = p.at + 1;
        }
        if (c >= 0)
            it->past_at++;
        if (c < 0)
            return give(it, item->obj);
        if (past->was)
            return give(it, past->was);
    }
}

uint32_t store_iter_left(struct store_iter *it)
{
    struct index_place from, first, end;
    uint32_t n;

    if (!it->s)
        return 0;
    if (it->change != stamp(it))
        seek(it);
    from = (struct index_place){it->block, it->at};
    index_range(&it->t->head, it->ns, &first, &end);
    n = index_rank(&it->t->head, end);
    n -= MIN(n, index_rank(&it->t->head, from));
    for (uint32_t i = it->past_at; i < it->past_n; i++) {
        bool now = index_find(&it->t->head, it->past[i].key->namespace_, it->past[i].key->name);

        if (now && !it->past[i].was)
            n--;
        else if (!now && it->past[i].was)
            n++;
    }
    return n;
}

void store_iter_done(struct store_iter *it)
{
    if (!it->s)
        return;
    past_free(it);
    obj_unref(it->last);
    free(it->after_ns);
    free(it->after_name);
    watch_release(it->s);
    *it = (struct store_iter){0};
}
