#include "store/index.h"

void index_done(struct index *x)
{
    for (uint32_t b = 0; b < x->blocks_n; b++) {
        for (uint32_t i = 0; i < x->blocks[b]->n; i++)
            obj_unref(x->blocks[b]->v[i].obj);
        free(x->blocks[b]);
    }
    free(x->blocks);
    *x = (struct index){.change = x->change + 1};
}

int key_cmp(const char *ns1, const char *name1, const char *ns2, const char *name2)
{
    int c = strcmp(ns1, ns2);

    return c ? c : strcmp(name1, name2);
}

static int cmp(const struct index_item *it, const char *ns, const char *name)
{
    return key_cmp(it->obj->namespace_, it->obj->name, ns, name);
}

bool index_seek(const struct index *x, const char *ns, const char *name, struct index_place *ret)
{
    uint32_t lo = 0, hi = x->blocks_n;
    struct index_block *b;

    while (lo < hi) { /* the first block whose last object is at or behind the key */
        uint32_t mid = (lo + hi) / 2;

        b = x->blocks[mid];
        if (cmp(&b->v[b->n - 1], ns, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ret = (struct index_place){.block = lo};
    if (lo == x->blocks_n)
        return false;
    b = x->blocks[lo];
    for (lo = 0, hi = b->n; lo < hi;) {
        uint32_t mid = (lo + hi) / 2;
        int c = cmp(&b->v[mid], ns, name);

        if (c == 0) {
            ret->at = mid;
            return true;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    ret->at = lo;
    return false;
}

struct index_item *index_at(const struct index *x, struct index_place *p)
{
    while (p->block < x->blocks_n && p->at >= x->blocks[p->block]->n) {
        p->block++;
        p->at = 0;
    }
    return p->block < x->blocks_n ? &x->blocks[p->block]->v[p->at] : NULL;
}

struct index_item *index_find(const struct index *x, const char *ns, const char *name)
{
    struct index_place p;

    return index_seek(x, ns, name, &p) ? &x->blocks[p.block]->v[p.at] : NULL;
}

static struct index_block *block_add(struct index *x, uint32_t at)
{
    if (x->blocks_n == x->blocks_cap)
        x->blocks = xrealloc(x->blocks, (x->blocks_cap = x->blocks_cap ? 2 * x->blocks_cap : 4) *
                                            sizeof(struct index_block *));
    memmove(&x->blocks[at + 1], &x->blocks[at], (x->blocks_n - at) * sizeof *x->blocks);
    x->blocks[at] = xmalloc(sizeof(struct index_block));
    x->blocks[at]->n = 0;
    x->blocks_n++;
    return x->blocks[at];
}

struct index_item *index_insert(struct index *x, struct index_place p, const struct obj *o)
{
    struct index_block *b;

    if (p.block == x->blocks_n) { /* behind all: goes to the end of the last block */
        if (x->blocks_n == 0)
            block_add(x, 0);
        p.block = x->blocks_n - 1;
        p.at = x->blocks[p.block]->n;
    }
    b = x->blocks[p.block];
    if (b->n == INDEX_BLOCK) {
        struct index_block *right = block_add(x, p.block + 1);
        /* names that count up arrive at the end: leave such blocks full */
        uint32_t keep = p.block + 2 == x->blocks_n && p.at == INDEX_BLOCK ? INDEX_BLOCK : INDEX_BLOCK / 2;

        right->n = INDEX_BLOCK - keep;
        memcpy(right->v, &b->v[keep], right->n * sizeof *b->v);
        b->n = keep;
        if (p.at > keep || keep == INDEX_BLOCK) {
            p.block++;
            p.at -= keep;
            b = right;
        }
    }
    memmove(&b->v[p.at + 1], &b->v[p.at], (b->n - p.at) * sizeof *b->v);
    b->v[p.at] = (struct index_item){.obj = obj_ref(o)};
    b->n++;
    x->n++;
    x->change++;
    return &b->v[p.at];
}

void index_replace(struct index_item *it, const struct obj *o)
{
    const struct obj *was = it->obj;

    it->obj = obj_ref(o);
    obj_unref(was);
}

void index_remove(struct index *x, struct index_place p)
{
    struct index_block *b = x->blocks[p.block];

    obj_unref(b->v[p.at].obj);
    b->n--;
    memmove(&b->v[p.at], &b->v[p.at + 1], (b->n - p.at) * sizeof *b->v);
    if (b->n == 0) {
        free(b);
        x->blocks_n--;
        memmove(&x->blocks[p.block], &x->blocks[p.block + 1],
                (x->blocks_n - p.block) * sizeof *x->blocks);
    }
    x->n--;
    x->change++;
}

uint32_t index_rank(const struct index *x, struct index_place p)
{
    uint32_t n = p.at;

    for (uint32_t b = 0; b < p.block; b++)
        n += x->blocks[b]->n;
    return n;
}

void index_range(const struct index *x, const char *ns, struct index_place *ret_first,
                 struct index_place *ret_end)
{
    *ret_first = (struct index_place){0};
    *ret_end = (struct index_place){.block = x->blocks_n};
    if (ns) {
        char behind[320]; /* the least string behind ns: ns with a byte 1 appended */
        size_t n = MIN(strlen(ns), sizeof behind - 2);

        memcpy(behind, ns, n);
        memcpy(behind + n, "\1", 2);
        index_seek(x, ns, "", ret_first);
        index_seek(x, behind, "", ret_end);
    }
}
