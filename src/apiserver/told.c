/* apiserver/told.c - see told.h. */
#include "apiserver/told.h"

#include "env/env.h"
#include "schema/schema.h"

enum { SLOTS = 8 };

struct told_cache {
    struct env_timer *end; /* of the turn */
    struct told *v[SLOTS];
    uint32_t next; /* the one to be replaced */
    bool used; /* in this turn */
};

static bool same(const struct told_key *a, const struct told_key *b)
{
    return a->obj == b->obj && a->r == b->r && a->type == b->type && a->form == b->form &&
           a->encoding == b->encoding && streq0(a->form_version, b->form_version) &&
           streq0(a->include_object, b->include_object);
}

static char *copy(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

struct told *told_ref(struct told *t)
{
    t->refs++;
    return t;
}

void told_unref(void *told)
{
    struct told *t = told;

    if (!t || --t->refs > 0)
        return;
    obj_unref(t->key.obj);
    resource_unref(t->key.r);
    free((char *)(uintptr_t)t->key.form_version);
    free((char *)(uintptr_t)t->key.include_object);
    free((char *)(uintptr_t)t->text);
    free(t);
}

static void forget(struct told_cache *c)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        told_unref(c->v[i]);
        c->v[i] = NULL;
    }
}

static void turn_ends(void *arg)
{
    struct told_cache *c = arg;

    c->used = false;
    forget(c);
}

struct told *told_find(struct told_cache *c, const struct told_key *key)
{
    struct told *t;

    for (uint32_t i = 1; i <= SLOTS; i++) { /* the newest first */
        t = c->v[(c->next - i) % SLOTS];
        if (t && same(&t->key, key))
            return t;
    }
    t = xcalloc(1, sizeof *t);
    t->refs = 1;
    t->key = *key;
    obj_ref(key->obj);
    resource_ref(key->r);
    t->key.form_version = copy(key->form_version);
    t->key.include_object = copy(key->include_object);
    told_unref(c->v[c->next % SLOTS]);
    c->v[c->next++ % SLOTS] = t;
    if (!c->used)
        env_timer_start(c->end, 0, 0);
    c->used = true;
    return t;
}

void told_put(struct told *t, struct buf *b)
{
    t->n = b->n;
    t->text = b->n ? buf_take(b) : NULL;
}

struct told_cache *told_cache_new(struct env *env)
{
    struct told_cache *c = xcalloc(1, sizeof *c);

    c->end = env_timer_new(env, turn_ends, c);
    return c;
}

void *told_cache_free(struct told_cache *c)
{
    if (!c)
        return NULL;
    forget(c);
    env_timer_free(c->end);
    free(c);
    return NULL;
}
