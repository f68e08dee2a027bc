/* Objects are packed when they are put: in memory and on disk they are a small difference to a
 * dictionary, which is the text of a few objects of their table.
 *
 * A table gets its first dictionary when it has had a few writes, and another one when the present
 * one does badly and a candidate is a good deal better (pods that run look different from pods
 * that were just made). A dictionary is written in the batch of the first object that needs it.
 * Old ones stay as long as objects need them; a table makes DICTS_MAX at most. */
#include "store/store_int.h"

#include "base/log.h"

#include <inttypes.h>

enum {
    FIRST_AFTER = 16, /* writes */
    LOOK_EVERY = 256, /* writes */
    DICTS_MAX = 6,
    BAD_PERCENT = 15, /* packed size, from where a look is taken */
    SAMPLES_MAX = 16,
};

/* The latest objects of the table, each once, the newest last: zstd likes the best at the end. */
static struct pack *candidate(struct store_table *t)
{
    const struct obj *take[SAMPLES_MAX];
    uint32_t n = 0;
    size_t bytes = 0;
    struct buf b = {0};
    struct pack *p = NULL;

    for (struct list *l = t->history.prev; l != &t->history && n < SAMPLES_MAX; l = l->prev) {
        const struct obj *o = list_entry(l, struct hist, in_table)->obj;
        bool twice = false;

        for (uint32_t i = 0; i < n; i++)
            twice |= streq(take[i]->name, o->name) && streq(take[i]->namespace_, o->namespace_);
        if (twice || bytes + o->text_n > PACK_DICT_BYTES_MAX)
            continue;
        take[n++] = o;
        bytes += o->text_n;
    }
    while (n)
        obj_text_add(&b, take[--n]);
    if (b.n >= PACK_TEXT_MIN)
        p = pack_new(t->s->last_dict + 1, b.p, b.n);
    buf_done(&b);
    return p;
}

static void adopt(struct store_table *t, struct pack *p)
{
    pack_rest(t->pack);
    pack_unref(t->pack);
    t->pack = p;
    t->pack_revision = store_next_revision(t->s);
    t->packs++;
    t->s->last_dict = pack_id(p);
    *batch_change(t->s) = (struct store_change){
        .revision = t->pack_revision, .table = t->key, .dict = pack_ref(p)};
    LOG(DEBUG, "store", "table=%s did=dictionary id=%" PRId64, t->key, pack_id(p));
}

static void consider(struct store_table *t, const struct obj *o)
{
    struct pack *p = t->packs < DICTS_MAX ? candidate(t) : NULL;
    uint32_t now = o->text_n, then = o->text_n;

    if (!p)
        return;
    free(pack_write(t->pack, obj_text(o), o->text_n, &now));
    free(pack_write(p, obj_text(o), o->text_n, &then));
    if (then < now - now / 4)
        adopt(t, p);
    else
        pack_unref(p);
}

void packing_put(struct store_table *t, const struct obj *o)
{
    if (o->packed || o->text_n < PACK_TEXT_MIN)
        return;
    t->pack_writes++;
    if (t->pack_writes >= LOOK_EVERY || (!t->packs && t->pack_writes >= FIRST_AFTER)) {
        if (!t->packs || t->pack_out > t->pack_in / 100 * BAD_PERCENT)
            consider(t, o);
        t->pack_writes = 0;
        t->pack_in = t->pack_out = 0;
    }
    obj_pack(o, t->pack);
    t->pack_in += o->text_n;
    t->pack_out += o->packed ? o->packed_n : o->text_n;
}

void packing_load(struct store_table *t, struct pack *dict)
{
    pack_unref(t->pack);
    t->pack = dict; /* they come in order: the last one is in use */
    t->packs++;
    t->s->last_dict = MAX(t->s->last_dict, pack_id(dict));
}

/* A dictionary that may not be on disk is not used any more; what was packed with it was taken
 * back, too. */
void packing_taken_back(struct store *s)
{
    for (struct store_table *t = s->tables; t; t = t->next)
        if (t->pack_revision > s->durable)
            t->pack = pack_unref(t->pack);
}

void packing_done(struct store_table *t)
{
    pack_unref(t->pack);
}
