/* schema/registry.c - what is served: built-in kinds from the compiled-in text, custom ones by
 * schema_add_crd (crd.c). Lookups are hash lookups; resources also stand in a list in the order in
 * which discovery shows them. */
#include "schema/crd_int.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

extern const char kinds_text[];
extern const uint32_t kinds_text_n;

uint32_t schema_text_hash(void)
{
    static uint32_t hash;

    if (!hash)
        hash = str_hash(kinds_text, kinds_text_n);
    return hash;
}

static void key_of(char *out, size_t size, const char *group, const char *version, const char *name)
{
    snprintf(out, size, "%s/%s/%s", group, version, name);
}

void resource_register(struct schema *s, struct resource *r)
{
    char key[768];

    key_of(key, sizeof(key), r->group, r->version, r->plural);
    map_put(&s->by_plural, key, r);
    key_of(key, sizeof(key), r->group, r->version, r->kind);
    if (!map_get(&s->by_kind, key) || !r->virtual_)
        map_put(&s->by_kind, key, r);
    if (s->resources_n == s->resources_cap) {
        s->resources_cap = s->resources_cap ? s->resources_cap * 2 : 128;
        s->resources = xrealloc(s->resources, s->resources_cap * sizeof(struct resource *));
    }
    s->resources[s->resources_n++] = r;
    s->generation++;
}

void resource_unregister(struct schema *s, struct resource *r);
void resource_unregister(struct schema *s, struct resource *r)
{
    char key[768];

    key_of(key, sizeof(key), r->group, r->version, r->plural);
    if (map_get(&s->by_plural, key) == r)
        map_del(&s->by_plural, key);
    key_of(key, sizeof(key), r->group, r->version, r->kind);
    if (map_get(&s->by_kind, key) == r)
        map_del(&s->by_kind, key);
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (s->resources[i] == r) {
            memmove(&s->resources[i], &s->resources[i + 1],
                    (s->resources_n - i - 1) * sizeof(struct resource *));
            s->resources_n--;
            break;
        }
    s->generation++;
    resource_unref(r);
}

void schema_hide_group(struct schema *s, const char *group)
{
    for (uint32_t i = s->resources_n; i-- > 0;)
        if (streq(s->resources[i]->group, group) && !s->resources[i]->custom) {
            resource_ref(s->resources[i]); /* built-in kinds stay in memory */
            resource_unregister(s, s->resources[i]);
        }
}

/* "core.v1.Pod" for ("", "v1", "Pod"): the first part of the group names the package. */
static const struct type *type_of_kind(const struct schema *s, const char *group,
                                       const char *version, const char *kind)
{
    char name[512];
    int n = *group ? (int)strcspn(group, ".") : 4;

    snprintf(name, sizeof(name), "%.*s.%s.%s", n, *group ? group : "core", version, kind);
    return map_get(&s->types, name);
}

static void link_types(struct schema *s)
{
    for (uint32_t i = 0; i < s->resources_n; i++) {
        struct resource *r = s->resources[i];
        if (!r->described)
            r->described = type_of_kind(s, r->group, r->version, r->kind);
        for (uint32_t k = 0; k < r->subs_n; k++) {
            struct subresource *sub = (struct subresource *)(uintptr_t)&r->subs[k];
            sub->type = type_of_kind(s, sub->group, sub->version, sub->kind);
        }
    }
}

/* A field that says so has its struct merge by fields, where the struct's own type is atomic. */
static void granular_fields(struct schema *s, struct type *t)
{
    for (uint32_t i = 0; i < t->fields_n; i++) {
        struct field *f = (struct field *)(uintptr_t)&t->fields[i];
        struct type *own;

        if (!(f->flags & FIELD_GRANULAR) || f->type->kind != TYPE_STRUCT)
            continue;
        own = arena_new_of(s->arena, struct type);
        *own = *f->type;
        own->topology = TOPO_GRANULAR;
        f->type = own;
    }
}

/* true: that is news. */
static bool find_off(struct type *t)
{
    for (uint32_t i = 0; i < t->fields_n && !t->has_off; i++) {
        const struct type *below = t->fields[i].type;

        while (below->elem)
            below = below->elem;
        if ((t->fields[i].flags & FIELD_OFF) || below->has_off)
            return t->has_off = true;
    }
    return false;
}

static void find_inlined(struct type *t)
{
    for (uint32_t i = 0; i < t->fields_n; i++)
        t->has_inlined |= t->fields[i].proto_outer != 0;
}

static void finish_types(struct schema *s)
{
    const char *name;
    void *value;
    bool more = true;

    for (uint32_t i = 0; map_next(&s->types, &i, &name, &value);)
        find_inlined(value);
    for (uint32_t i = 0; map_next(&s->types, &i, &name, &value);)
        granular_fields(s, value);
    while (more) {
        more = false;
        for (uint32_t i = 0; map_next(&s->types, &i, &name, &value);)
            more |= find_off(value);
    }
}

/* Every kind has a type, every type has fields or is known to have none. */
static int check_whole(struct schema *s, struct err *err)
{
    const char *name;
    void *value;

    for (uint32_t i = 0; i < s->resources_n; i++)
        if (!s->resources[i]->described || !s->resources[i]->described->fields_n)
            return err_set(err, INVALID, "kinds: %s %s has no type", s->resources[i]->api_version,
                           s->resources[i]->kind);
    for (uint32_t i = 0; map_next(&s->types, &i, &name, &value);) {
        struct type *t = value;
        if (!t->by_name)
            return err_set(err, INVALID, "kinds: type %s is used but not described", name);
    }
    return 0;
}

struct schema *schema_new(void)
{
    struct schema *s = xcalloc(1, sizeof(*s));
    struct err err = {0};

    s->arena = arena_new();
    if (schema_load_text(s, kinds_text, kinds_text_n, &err) < 0) {
        LOG(ERROR, "schema", "did=load error=%s", err.msg);
        UNREACHABLE();
    }
    link_types(s);
    if (check_whole(s, &err) < 0) {
        LOG(ERROR, "schema", "did=load error=%s", err.msg);
        UNREACHABLE();
    }
    finish_types(s);
    /* only needed while loading */
    map_done(&s->strings);
    map_done(&s->lists);
    s->strings = s->lists = (struct map){0};
    return s;
}

void publish_done(struct schema *s);

void *schema_free(struct schema *s)
{
    if (!s)
        return NULL;
    publish_done(s);
    for (uint32_t i = 0; i < s->resources_n; i++)
        resource_unref(s->resources[i]);
    free(s->resources);
    map_done(&s->strings);
    map_done(&s->types);
    map_done(&s->says);
    map_done(&s->lists);
    map_done(&s->by_plural);
    map_done(&s->by_kind);
    arena_free(s->arena);
    free(s);
    return NULL;
}

const struct resource *resource_ref(const struct resource *r)
{
    if (r)
        r->priv->refs++;
    return r;
}

void *resource_unref(const struct resource *r)
{
    if (!r || --r->priv->refs)
        return NULL;
    crd_drop(r->priv);
    obj_unref(r->priv->crd);
    arena_free(r->priv->arena); /* holds r itself; built-in kinds have none */
    return NULL;
}

const struct resource *schema_resource(const struct schema *s, const char *group,
                                       const char *version, const char *plural)
{
    char key[768];

    key_of(key, sizeof(key), group, version, plural);
    return map_get(&s->by_plural, key);
}

const struct resource *schema_kind(const struct schema *s, const char *group, const char *version,
                                   const char *kind)
{
    char key[768];

    key_of(key, sizeof(key), group, version, kind);
    return map_get(&s->by_kind, key);
}

const struct resource *schema_kind_of(const struct schema *s, const char *api_version,
                                      const char *kind)
{
    char key[768];

    snprintf(key, sizeof(key), "%s%s/%s", strchr(api_version, '/') ? "" : "/", api_version, kind);
    return map_get(&s->by_kind, key);
}

const struct resource *schema_preferred(const struct schema *s, const char *group,
                                        const char *plural)
{
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (streq(s->resources[i]->group, group) && streq(s->resources[i]->plural, plural))
            return s->resources[i];
    return NULL;
}

const struct resource *schema_stored(const struct resource *r)
{
    const struct schema *s = r->schema;

    if (r->stored)
        return r;
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (s->resources[i]->stored && streq(s->resources[i]->table, r->table))
            return s->resources[i];
    return r;
}

const struct val *schema_conversion(const struct resource *r)
{
    return r->priv->conversion;
}

const struct type *resource_type(const struct resource *r)
{
    return r->custom ? crd_made(r)->type : r->described;
}

const struct type *resource_sub_type(const struct resource *r, const struct subresource *sub)
{
    return r->custom && streq(sub->name, "status") ? resource_type(r) : sub->type;
}

const struct subresource *schema_sub(const struct resource *r, const char *name)
{
    for (uint32_t i = 0; i < r->subs_n; i++)
        if (streq(r->subs[i].name, name))
            return &r->subs[i];
    return NULL;
}

const struct resource *schema_next(const struct schema *s, uint32_t *i)
{
    return *i < s->resources_n ? s->resources[(*i)++] : NULL;
}

bool schema_has_group(const struct schema *s, const char *group)
{
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (streq(s->resources[i]->group, group))
            return true;
    return false;
}

bool schema_has_version(const struct schema *s, const char *group, const char *version)
{
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (streq(s->resources[i]->group, group) && streq(s->resources[i]->version, version))
            return true;
    return false;
}

uint64_t schema_generation(const struct schema *s)
{
    return s->generation;
}

const struct type *schema_type(const struct schema *s, const char *name)
{
    return map_get(&s->types, name);
}

/* ---- texts and causes ---- */

static void *one_more(struct arena *a, void *array, uint32_t n, size_t size)
{
    if (n & (n - 1))
        return array;
    void *p = arena_raw(a, size * (n ? (size_t)n * 2 : 1));
    if (n)
        memcpy(p, array, size * n);
    return p;
}

void texts_add(struct texts *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    ASSERT(text);
    t->v = one_more(t->a, t->v, t->n, sizeof(*t->v));
    t->v[t->n++] = arena_strdup(t->a, text);
    free(text);
}

void schema_note_duplicate(void *texts, const char *path)
{
    texts_add(texts, "duplicate field \"%s\"", path);
}

void schema_note_line(void *texts, const char *line)
{
    struct texts *t = texts;

    if (t->n == 0)
        texts_add(t, "yaml: unmarshal errors:\n  %s", line);
    else
        t->v[0] = arena_printf(t->a, "%s\n  %s", t->v[0], line);
}

void causes_push_(struct causes *c, enum cause_type t, const char *field, const char *message);
void causes_push_(struct causes *c, enum cause_type t, const char *field, const char *message)
{
    c->v = one_more(c->a, c->v, c->n, sizeof(*c->v));
    c->v[c->n++] = (struct cause){t, field, message};
}
