/* controller/guard.c - see guard.h. */
#include "controller/guard.h"

#include "base/map.h"
#include "codec/kubetime.h"

#include <string.h>

enum { CONTENTS = 8, DEPTH_MAX = 100 };

struct seen {
    int64_t since_ms;             /* of the window */
    int64_t until_ms, last_ms;    /* held back until; the last time that it was */
    int64_t delay_ms;
    uint64_t content[CONTENTS];
    uint8_t times[CONTENTS], at;  /* a ring: the oldest is written over */
    uint8_t made;
    bool died_young;
};
struct guard {
    struct map objects; /* key -> struct seen */
};

struct guard *guard_new(void)
{
    return xcalloc(1, sizeof(struct guard));
}

void *guard_free(struct guard *g)
{
    const char *key;
    void *s;

    if (!g)
        return NULL;
    for (uint32_t i = 0; map_next(&g->objects, &i, &key, &s);)
        free(s);
    map_done(&g->objects);
    free(g);
    return NULL;
}

/* ---- content ---- */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const unsigned char *s = p;

    for (size_t i = 0; i < n; i++)
        h = (h ^ s[i]) * UINT64_C(1099511628211);
    return h;
}

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);

    return n >= k && streq(s + n - k, tail);
}

static bool counts(const char *key)
{
    return !ends_in(key, "Time") && !ends_in(key, "Timestamp") && !streq(key, "resourceVersion") && !streq(key, "managedFields") &&
           !ends_in(key, "eneration") && !streq(key, "uid");
}

static uint64_t content_of(const struct val *v, uint64_t h, int depth)
{
    h = mix(h, &v->type, sizeof(v->type));
    if (depth > DEPTH_MAX)
        return h;
    switch (v->type) {
    case VAL_BOOL:
        return mix(h, &v->b, sizeof(v->b));
    case VAL_INT:
        return mix(h, &v->i, sizeof(v->i));
    case VAL_DOUBLE:
        return mix(h, &(double){val_num(v)}, sizeof(double));
    case VAL_STR:
        return mix(h, v->s, v->n);
    case VAL_LIST:
        VAL_EACH(v, it)
            h = content_of(it, h, depth + 1);
        return h;
    case VAL_MAP:
        VAL_EACH_MEMBER(v, m)
            if (counts(m->key))
                h = content_of(&m->v, mix(h, m->key, m->n), depth + 1);
        return h;
    }
    return h;
}

/* How often this content was written in the window, this time too. */
static int written(struct seen *s, uint64_t content)
{
    for (int i = 0; i < CONTENTS; i++)
        if (s->times[i] && s->content[i] == content)
            return ++s->times[i];
    s->at = (uint8_t)((s->at + 1) % CONTENTS);
    s->content[s->at] = content;
    s->times[s->at] = 1;
    return 1;
}

/* ---- objects ---- */

static bool quiet(const struct seen *s, int64_t now_ms)
{
    return now_ms - s->since_ms > GUARD_WINDOW_MS && (!s->delay_ms || now_ms - s->last_ms > GUARD_CALM_MS);
}

static struct seen *seen_of(struct guard *g, const char *key, int64_t now_ms)
{
    struct seen *s = map_get(&g->objects, key);
    const char *other;
    void *it;

    if (s)
        return s;
    if (g->objects.n >= GUARD_OBJECTS_MAX)
        for (uint32_t i = 0; map_next(&g->objects, &i, &other, &it);)
            if (quiet(it, now_ms)) {
                free(it);
                map_del(&g->objects, other);
            }
    if (g->objects.n >= GUARD_OBJECTS_MAX)
        return NULL;
    s = xcalloc(1, sizeof(*s));
    s->since_ms = now_ms;
    map_put(&g->objects, key, s);
    return s;
}

static void begin_anew(struct seen *s, int64_t now_ms)
{
    s->since_ms = now_ms;
    memset(s->times, 0, sizeof(s->times));
    s->made = 0;
    s->died_young = false;
}

int64_t guard_held_ms(const struct guard *g, const char *key, int64_t now_ms)
{
    const struct seen *s = map_get(&g->objects, key);

    return s && s->until_ms > now_ms ? s->until_ms - now_ms : 0;
}

static int note(struct seen *s, enum guard_act act, const struct val *v, bool named, int64_t now_ms)
{
    int64_t born;

    switch (act) {
    case GUARD_MADE:
        s->made += named || s->died_young;
        s->died_young = false;
        return s->made;
    case GUARD_DELETED:
        born = kubetime_parse(val_str_at(v, "metadata.creationTimestamp", ""));
        s->died_young |= born >= 0 && now_ms - born < GUARD_WINDOW_MS;
        return 0;
    case GUARD_WRITTEN:
        return written(s, content_of(v, UINT64_C(14695981039346656037), 0));
    }
    return 0;
}

int64_t guard_note(struct guard *g, const char *key, enum guard_act act, const struct val *v, bool named, int64_t now_ms)
{
    struct seen *s = seen_of(g, key, now_ms);

    if (!s)
        return 0;
    if (now_ms - s->since_ms > GUARD_WINDOW_MS)
        begin_anew(s, now_ms);
    if (s->delay_ms && now_ms - s->last_ms > GUARD_CALM_MS)
        s->delay_ms = 0;
    if (note(s, act, v, named, now_ms) < GUARD_RETURNS_MAX)
        return 0;
    begin_anew(s, now_ms);
    s->delay_ms = s->delay_ms ? MIN(2 * s->delay_ms, (int64_t)GUARD_DELAY_MAX_MS) : GUARD_DELAY_MS;
    s->last_ms = now_ms;
    s->until_ms = now_ms + s->delay_ms;
    return s->delay_ms;
}
