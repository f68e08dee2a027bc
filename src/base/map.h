/* base/map.h - a hash map from strings to pointers (open addressing, FNV-1a, keys copied).
 *
 * Owner: who made it; values stay the caller's. Iteration order is that of the slots: for an
 * order that a seed can replay, sort or use a list beside it. */
#pragma once

#include "base/base.h"

struct map {
    struct map_slot *slots;
    uint32_t cap, n, used; /* used counts graves too */
};
struct map_slot {
    char *key; /* NULL: never used; MAP_GRAVE: removed */
    void *value;
    uint32_t hash;
};

void map_done(struct map *m);
void *map_get(const struct map *m, const char *key);            /* NULL: absent */
void *map_getn(const struct map *m, const char *key, size_t n); /* key need not end in 0 */
void *map_put(struct map *m, const char *key, void *value);     /* the value before, or NULL; value not NULL */
void *map_del(struct map *m, const char *key);                  /* the value it had, or NULL */
uint32_t str_hash(const char *s, size_t n);

/* for (uint32_t i = 0; map_next(&m, &i, &key, &value);) - deleting the key at hand is fine. */
bool map_next(const struct map *m, uint32_t *i, const char **ret_key, void **ret_value);
