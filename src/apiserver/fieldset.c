/* apiserver/fieldset.c - see fieldset.h. The rules are those of upstream's structured merge: scalars
 * and atomic lists, maps and structs are leaves; other lists are told apart by their keys; an empty
 * list or map on both sides is a leaf. */
#include "apiserver/fieldset.h"

#include "codec/json.h"

enum { ADDED = 1, REMOVED = 2, MODIFIED = 4 };

/* ---------------------------------------------------------------- sets */

struct fset *fset_new(struct arena *a)
{
    return arena_new_of(a, struct fset);
}

struct fset *fset_kid(const struct fset *s, const char *key)
{
    for (struct fset *k = s ? s->kids : NULL; k; k = k->next)
        if (streq(k->key, key))
            return k;
    return NULL;
}

struct fset *fset_need(struct arena *a, struct fset *s, const char *key)
{
    struct fset *k, **at = &s->kids;

    for (; *at; at = &(*at)->next)
        if (streq((*at)->key, key))
            return *at;
    k = fset_new(a);
    k->key = arena_strdup(a, key);
    return *at = k;
}

void fset_add(struct arena *a, struct fset *s, const char *path)
{
    while (*path) {
        size_t n = strcspn(path, " ");

        s = fset_need(a, s, arena_strndup(a, path, n));
        path += n + (path[n] == ' ');
    }
    s->member = true;
}

bool fset_empty(const struct fset *s)
{
    for (const struct fset *k = s ? s->kids : NULL; k; k = k->next)
        if (k->member || !fset_empty(k))
            return false;
    return true;
}

bool fset_equal(const struct fset *x, const struct fset *y)
{
    struct fset *other;

    for (const struct fset *k = x ? x->kids : NULL; k; k = k->next) {
        other = fset_kid(y, k->key);
        if (!other ? k->member || !fset_empty(k) : k->member != other->member || !fset_equal(k, other))
            return false;
    }
    for (const struct fset *k = y ? y->kids : NULL; k; k = k->next)
        if (!fset_kid(x, k->key) && (k->member || !fset_empty(k)))
            return false;
    return true;
}

static void add_all(struct arena *a, struct fset *to, const struct fset *from)
{
    for (const struct fset *k = from ? from->kids : NULL; k; k = k->next) {
        struct fset *mine = fset_need(a, to, k->key);

        mine->member |= k->member;
        add_all(a, mine, k);
    }
}

struct fset *fset_union(struct arena *a, const struct fset *x, const struct fset *y)
{
    struct fset *s = fset_new(a);

    add_all(a, s, x);
    add_all(a, s, y);
    return s;
}

struct fset *fset_both(struct arena *a, const struct fset *x, const struct fset *y)
{
    struct fset *s = fset_new(a);

    for (const struct fset *k = x->kids; k; k = k->next) {
        const struct fset *other = fset_kid(y, k->key);
        struct fset *below, *mine;

        if (!other)
            continue;
        below = fset_both(a, k, other);
        if (!(k->member && other->member) && fset_empty(below))
            continue;
        mine = fset_need(a, s, k->key);
        mine->member = k->member && other->member;
        mine->kids = below->kids;
    }
    return s;
}

struct fset *fset_without(struct arena *a, const struct fset *x, const struct fset *y, bool deep)
{
    struct fset *s = fset_new(a);

    for (const struct fset *k = x->kids; k; k = k->next) {
        const struct fset *other = fset_kid(y, k->key);
        bool member = k->member && !(other && other->member);
        struct fset *below, *mine;

        if (deep && other && other->member)
            continue;
        below = other ? fset_without(a, k, other, deep) : NULL;
        if (!member && (other ? fset_empty(below) : fset_empty(k)))
            continue;
        mine = fset_need(a, s, k->key);
        mine->member = member;
        mine->kids = other ? below->kids : k->kids;
    }
    return s;
}

struct fset *fset_read(struct arena *a, const struct val *v)
{
    struct fset *s = fset_new(a);

    VAL_EACH_MEMBER(v, m) {
        struct fset *below;

        if (streq(m->key, "."))
            continue;
        below = fset_need(a, s, m->key);
        below->member = !val_len(&m->v) || val_get(&m->v, ".");
        below->kids = fset_read(a, &m->v)->kids;
    }
    return s;
}

struct val *fset_write(struct arena *a, const struct fset *s)
{
    struct val *v = val_map(a);

    for (const struct fset *k = s->kids; k; k = k->next) {
        struct val *below, *with;

        if (!k->member && fset_empty(k))
            continue;
        below = fset_write(a, k);
        if (k->member && val_len(below)) {
            with = val_map(a);
            val_put(a, with, ".", val_map(a));
            VAL_EACH_MEMBER(below, m)
                val_put(a, with, m->key, &m->v);
            below = with;
        }
        val_put(a, v, k->key, below);
    }
    return v;
}

static const char *readable(struct arena *a, const char *key)
{
    struct err ignored = {0};
    struct val *v;
    struct buf b = {0};
    char *text;

    if (str_starts(key, "f:"))
        return arena_printf(a, ".%s", key + 2);
    if (str_starts(key, "v:"))
        return arena_printf(a, "[=%s]", key + 2);
    v = json_parse(a, key + 2, strlen(key + 2), &ignored);
    buf_addc(&b, '[');
    VAL_EACH_MEMBER(v, m) {
        buf_printf(&b, "%s%s=", b.n > 1 ? "," : "", m->key);
        json_write(&b, &m->v);
    }
    buf_addc(&b, ']');
    text = arena_strdup(a, b.p);
    buf_done(&b);
    return text;
}

static void each_below(struct arena *a, const struct fset *s, const char *path,
                       void (*fn)(void *arg, const char *path), void *arg)
{
    for (const struct fset *k = s->kids; k; k = k->next) {
        const char *here = arena_printf(a, "%s%s", path, readable(a, k->key));

        if (k->member)
            fn(arg, here);
        each_below(a, k, here, fn, arg);
    }
}

void fset_each(struct arena *a, const struct fset *s, void (*fn)(void *arg, const char *path), void *arg)
{
    each_below(a, s, "", fn, arg);
}

/* ---------------------------------------------------------------- types */

/* How a value of that type is looked at. No type (what nobody described): maps by key, else a leaf. */
enum shape { SHAPE_LEAF, SHAPE_LIST, SHAPE_MAP };

static enum shape shape_of(const struct type *t, const struct val *x, const struct val *y)
{
    const struct val *v = val_is_null(x) ? y : x;

    if (!t)
        return val_is(v, VAL_MAP) ? SHAPE_MAP : SHAPE_LEAF;
    if (t->topology == TOPO_ATOMIC)
        return SHAPE_LEAF;
    if (t->kind == TYPE_LIST)
        return t->topology == TOPO_SET || t->topology == TOPO_MAP ? SHAPE_LIST : SHAPE_LEAF;
    return t->kind == TYPE_MAP || t->kind == TYPE_STRUCT ? SHAPE_MAP : SHAPE_LEAF;
}

static const struct field *field_of(const struct type *t, const char *name, size_t n)
{
    return t && t->kind == TYPE_STRUCT ? type_field(t, name, n) : NULL;
}

static const struct type *below(const struct type *t, const char *name, size_t n)
{
    const struct field *f = field_of(t, name, n);

    if (f)
        return f->type;
    return t && t->kind == TYPE_MAP ? t->elem : NULL;
}

/* The path element of a list's item. */
static const char *item_key(struct arena *a, const struct type *t, const struct val *item)
{
    struct val *keys;

    if (t->topology == TOPO_SET)
        return arena_printf(a, "v:%s", json_text(a, item, NULL));
    keys = val_map(a);
    /* in the order of the alphabet, as upstream writes them */
    for (const char *last = "";;) {
        const char *best = NULL;
        const struct val *v;
        const struct field *f;

        for (const char *const *k = t->keys; k && *k; k++)
            if (strcmp(*k, last) > 0 && (!best || strcmp(*k, best) < 0))
                best = *k;
        if (!best)
            break;
        last = best;
        v = val_get(item, best);
        f = field_of(t->elem, best, strlen(best));
        if (val_is_null(v) && f && f->def)
            v = f->def;
        if (v) /* a key that the item lacks is no part of its name */
            val_put(a, keys, best, v);
    }
    return arena_printf(a, "k:%s", json_text(a, keys, NULL));
}

static const struct val *find_item(struct arena *a, const struct type *t, const struct val *list, const char *key)
{
    VAL_EACH(list, it)
        if (streq(item_key(a, t, it), key))
            return it;
    return NULL;
}

static const char *field_key(struct arena *a, const char *name)
{
    return arena_printf(a, "f:%s", name);
}

/* ---------------------------------------------------------------- what is set */

static void fields_into(struct arena *a, const struct type *t, const struct val *v, struct fset *s, bool *twice)
{
    switch (shape_of(t, v, NULL)) {
    case SHAPE_LEAF:
        s->member = true;
        break;
    case SHAPE_LIST:
        VAL_EACH(v, it) {
            const char *key = item_key(a, t, it);
            struct fset *kid;

            if (twice && (fset_kid(s, key) || streq(key, "k:{}"))) /* no key at all is as bad */
                *twice = true;
            kid = fset_need(a, s, key);
            fields_into(a, t->elem, it, kid, twice);
            kid->member = true;
        }
        break;
    case SHAPE_MAP:
        VAL_EACH_MEMBER(v, m) {
            struct fset *kid = fset_need(a, s, field_key(a, m->key));

            fields_into(a, below(t, m->key, m->n), &m->v, kid, twice);
            if (val_is_null(&m->v) || (val_is(&m->v, VAL_MAP) && !val_len(&m->v)) || !field_of(t, m->key, m->n))
                kid->member = true;
        }
        break;
    }
}

struct fset *typed_fields(struct arena *a, const struct type *t, const struct val *v, bool *ret_twice)
{
    struct fset *s = fset_new(a);

    fields_into(a, t, v, s, ret_twice);
    return s;
}

/* ---------------------------------------------------------------- what differs */

static void compare(struct arena *a, const struct type *t, const struct val *l, const struct val *r, struct fset *s)
{
    enum shape shape = shape_of(t, l, r);

    if (!l && !r)
        return;
    if (shape == SHAPE_LEAF || (!val_len(l) && !val_len(r))) {
        if (!l)
            s->mark = ADDED;
        else if (!r)
            s->mark = REMOVED;
        else if (!val_equal(l, r))
            s->mark = MODIFIED;
        return;
    }
    if (shape == SHAPE_LIST) {
        VAL_EACH(l, it) {
            const char *key = item_key(a, t, it);

            compare(a, t->elem, it, find_item(a, t, r, key), fset_need(a, s, key));
        }
        VAL_EACH(r, it) {
            const char *key = item_key(a, t, it);

            if (!find_item(a, t, l, key))
                compare(a, t->elem, NULL, it, fset_need(a, s, key));
        }
    } else {
        VAL_EACH_MEMBER(l, m)
            compare(a, below(t, m->key, m->n), &m->v, val_getn(r, m->key, m->n),
                    fset_need(a, s, field_key(a, m->key)));
        VAL_EACH_MEMBER(r, m)
            if (!val_getn(l, m->key, m->n))
                compare(a, below(t, m->key, m->n), NULL, &m->v, fset_need(a, s, field_key(a, m->key)));
    }
    if (!l)
        s->mark = ADDED;
    else if (!r)
        s->mark = REMOVED;
}

static struct fset *marked(struct arena *a, const struct fset *s, uint8_t mark)
{
    struct fset *out = fset_new(a);

    for (const struct fset *k = s->kids; k; k = k->next) {
        struct fset *sub = marked(a, k, mark), *mine;

        if (!(k->mark & mark) && !sub->kids)
            continue;
        mine = fset_need(a, out, k->key);
        mine->member = k->mark & mark;
        mine->kids = sub->kids;
    }
    return out;
}

struct typed_diff typed_compare(struct arena *a, const struct type *t, const struct val *was,
                                const struct val *now)
{
    struct fset *s = fset_new(a);

    compare(a, t, was, now, s);
    return (struct typed_diff){.added = marked(a, s, ADDED), .removed = marked(a, s, REMOVED),
                               .modified = marked(a, s, MODIFIED)};
}

/* ---------------------------------------------------------------- merge */

/* Items of both: the order of what is shared follows the config, the live ones keep their places. */
static const struct val *merge_list(struct arena *a, const struct type *t, const struct val *l, const struct val *r)
{
    uint32_t ln = val_len(l), rn = val_len(r), li = 0, ri = 0, shared_n = 0, shared_at = 0;
    const char **lk = arena_array(a, const char *, ln + 1), **rk = arena_array(a, const char *, rn + 1);
    const char **shared = arena_array(a, const char *, rn + 1), *next = NULL;
    bool *merged = arena_array(a, bool, rn + 1);
    struct val *out = val_list(a);
#define IN(keys, n, key)                                                                           \
    ({                                                                                             \
        int _at = -1;                                                                              \
        for (uint32_t _i = 0; _i < (n) && _at < 0; _i++)                                           \
            if (streq((keys)[_i], (key)))                                                          \
                _at = (int)_i;                                                                     \
        _at;                                                                                       \
    })

    for (uint32_t i = 0; i < ln; i++)
        lk[i] = item_key(a, t, &l->items[i]);
    for (uint32_t i = 0; i < rn; i++)
        rk[i] = item_key(a, t, &r->items[i]);
    for (uint32_t i = 0; i < rn; i++)
        if (IN(lk, ln, rk[i]) >= 0)
            shared[shared_n++] = rk[i];
    if (shared_n)
        next = shared[shared_at++];
    while (li < ln || ri < rn) {
        if (li < ln && ri < rn) {
            if (streq(lk[li], rk[ri])) {
                merged[ri] = true;
                val_push(a, out, typed_merge(a, t->elem, &l->items[li], &r->items[ri]));
                li++;
                ri++;
                next = shared_at < shared_n ? shared[shared_at++] : NULL;
                continue;
            }
            if (IN(rk, rn, lk[li]) >= 0 && next && !streq(next, lk[li])) {
                li++; /* it comes where the config has it */
                continue;
            }
        }
        if (li < ln) {
            int at = IN(rk, rn, lk[li]);

            if (at < 0) {
                val_push(a, out, &l->items[li++]);
                continue;
            }
            if (merged[at])
                li++;
        }
        if (ri < rn) {
            int at = IN(lk, ln, rk[ri]);

            merged[ri] = true;
            val_push(a, out, typed_merge(a, t->elem, at < 0 ? NULL : &l->items[at], &r->items[ri]));
            if (next && streq(next, rk[ri]))
                next = shared_at < shared_n ? shared[shared_at++] : NULL;
            ri++;
        }
    }
#undef IN
    return out;
}

const struct val *typed_merge(struct arena *a, const struct type *t, const struct val *l, const struct val *r)
{
    struct val *out;

    if (!r || !l)
        return r ? r : l;
    switch (shape_of(t, r, l)) {
    case SHAPE_LEAF:
        return r;
    case SHAPE_LIST:
        return val_is(l, VAL_LIST) && val_is(r, VAL_LIST) ? merge_list(a, t, l, r) : r;
    default:
        break;
    }
    if (!val_is(l, VAL_MAP) || !val_is(r, VAL_MAP))
        return r;
    out = val_map(a);
    VAL_EACH_MEMBER(l, m)
        val_putn(a, out, m->key, m->n, typed_merge(a, below(t, m->key, m->n), &m->v, val_getn(r, m->key, m->n)));
    VAL_EACH_MEMBER(r, m)
        if (!val_getn(l, m->key, m->n))
            val_putn(a, out, m->key, m->n, &m->v);
    return out;
}

/* ---------------------------------------------------------------- remove */

const struct val *typed_remove(struct arena *a, const struct type *t, const struct val *v, const struct fset *what)
{
    struct val *out;

    switch (shape_of(t, v, NULL)) {
    case SHAPE_LEAF:
        return v;
    case SHAPE_LIST:
        out = val_list(a);
        VAL_EACH(v, it) {
            const struct fset *k = fset_kid(what, item_key(a, t, it));

            if (!k || !k->member)
                val_push(a, out, k && k->kids ? typed_remove(a, t->elem, it, k) : it);
        }
        return val_len(out) || !val_len(v) ? out : val_null(a);
    default:
        out = val_map(a);
        VAL_EACH_MEMBER(v, m) {
            const struct fset *k = fset_kid(what, field_key(a, m->key));

            if (!k || !k->member)
                val_putn(a, out, m->key, m->n,
                         k && k->kids ? typed_remove(a, below(t, m->key, m->n), &m->v, k) : &m->v);
        }
        return val_len(out) || !val_len(v) ? out : val_null(a);
    }
}

struct fset *typed_named(struct arena *a, const struct type *t, const struct fset *s)
{
    struct fset *out = fset_new(a);

    for (const struct fset *k = s->kids; k; k = k->next) {
        struct fset *mine = fset_need(a, out, k->key);
        const char *name = k->key + 2;
        bool field = str_starts(k->key, "f:");
        const struct type *sub = field ? below(t, name, strlen(name))
                                       : t && t->kind == TYPE_LIST ? t->elem : NULL;

        mine->member = k->member || (field && k->kids && field_of(t, name, strlen(name)));
        mine->kids = typed_named(a, sub, k)->kids;
    }
    return out;
}
