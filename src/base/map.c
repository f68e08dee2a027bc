#include "base/map.h"

static char GRAVE[1];

uint32_t str_hash(const char *s, size_t n)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 16777619u;
    h ^= h >> 15;
    return h;
}

void map_done(struct map *m)
{
    for (uint32_t i = 0; i < m->cap; i++)
        if (m->slots[i].key != GRAVE)
            free(m->slots[i].key);
    free(m->slots);
    *m = (struct map){0};
}

static struct map_slot *find(const struct map *m, const char *key, size_t n, uint32_t hash)
{
    if (!m->cap)
        return NULL;
    for (uint32_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->slots[i];

        if (!s->key)
            return NULL;
        if (s->key != GRAVE && s->hash == hash && strncmp(s->key, key, n) == 0 && !s->key[n])
            return s;
    }
}

void *map_getn(const struct map *m, const char *key, size_t n)
{
    struct map_slot *s = find(m, key, n, str_hash(key, n));

    return s ? s->value : NULL;
}

void *map_get(const struct map *m, const char *key)
{
    return map_getn(m, key, strlen(key));
}

static void insert(struct map *m, char *key, void *value, uint32_t hash)
{
    uint32_t i = hash & (m->cap - 1);

    while (m->slots[i].key)
        i = (i + 1) & (m->cap - 1);
    m->slots[i] = (struct map_slot){.key = key, .value = value, .hash = hash};
    m->used++;
    m->n++;
}

static void grow(struct map *m)
{
    struct map old = *m;

    m->cap = 16;
    while (m->cap < old.n * 2 + 2)
        m->cap *= 2;
    m->slots = xcalloc(m->cap, sizeof *m->slots);
    m->n = m->used = 0;
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i].key && old.slots[i].key != GRAVE)
            insert(m, old.slots[i].key, old.slots[i].value, old.slots[i].hash);
    free(old.slots);
}

void *map_put(struct map *m, const char *key, void *value)
{
    size_t n = strlen(key);
    uint32_t hash = str_hash(key, n);
    struct map_slot *s = find(m, key, n, hash);

    ASSERT(value);
    if (s) {
        void *was = s->value;

        s->value = value;
        return was;
    }
    if ((m->used + 1) * 4 >= m->cap * 3)
        grow(m);
    insert(m, xstrndup(key, n), value, hash);
    return NULL;
}

void *map_del(struct map *m, const char *key)
{
    size_t n = strlen(key);
    struct map_slot *s = find(m, key, n, str_hash(key, n));
    void *was;

    if (!s)
        return NULL;
    was = s->value;
    free(s->key);
    *s = (struct map_slot){.key = GRAVE};
    m->n--;
    return was;
}

bool map_next(const struct map *m, uint32_t *i, const char **ret_key, void **ret_value)
{
    for (; *i < m->cap; (*i)++) {
        struct map_slot *s = &m->slots[*i];

        if (!s->key || s->key == GRAVE)
            continue;
        if (ret_key)
            *ret_key = s->key;
        if (ret_value)
            *ret_value = s->value;
        (*i)++;
        return true;
    }
    return false;
}
