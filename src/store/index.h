/* store/index.h - objects in the order (namespace, name): a sorted array in blocks.
 *
 * Two binary searches find a place (blocks, then inside one); an insert moves half a block. Walking
 * 10,000 objects touches 80 runs of memory. Holds a reference to each object. */
#pragma once

#include "codec/obj.h"

enum { INDEX_BLOCK = 128 };
struct index_item {
    const struct obj *obj;
    int64_t disk; /* the store's: revision under which the engine holds it; 0: not */
};
struct index_block {
    uint32_t n;
    struct index_item v[INDEX_BLOCK];
};
struct index {
    struct index_block **blocks; /* none is empty */
    uint32_t blocks_n, blocks_cap;
    uint32_t n;      /* objects in all */
    uint64_t change; /* grows with every insert and remove: places are stale then */
};
struct index_place {
    uint32_t block, at;
};

void index_done(struct index *x);
int key_cmp(const char *ns1, const char *name1, const char *ns2, const char *name2);
/* The first object at or behind the key; true: exactly there. */
bool index_seek(const struct index *x, const char *ns, const char *name, struct index_place *ret);
/* The item at that place or NULL at the end; normalises the place (end of a block = start of the next). */
struct index_item *index_at(const struct index *x, struct index_place *p);
struct index_item *index_find(const struct index *x, const char *ns, const char *name);
struct index_item *index_insert(struct index *x, struct index_place p, const struct obj *o); /* takes a new reference */
void index_replace(struct index_item *it, const struct obj *o); /* same key */
void index_remove(struct index *x, struct index_place p);
uint32_t index_rank(const struct index *x, struct index_place p); /* objects before it */
/* [first, end) of a namespace; NULL: of all. */
void index_range(const struct index *x, const char *ns, struct index_place *ret_first,
                 struct index_place *ret_end);
