/* schema/publish.c - discovery documents (legacy and aggregated), and the cache that all published
 * documents share: made when first asked for, dropped when kinds come or go or nobody asks again. */
#include "schema/publish.h"
#include "schema/schema_int.h"

#include "codec/json.h"

#include <openssl/sha.h>
#include <stdio.h>

struct kept {
    char *text, *hash;
    size_t n;
    bool used; /* since the last publish_trim() */
};

/* All, or those that nobody asked for since the last time. */
static void docs_drop(struct schema *s, bool all)
{
    struct map stay = {0};
    const char *key;
    void *value;

    for (uint32_t i = 0; map_next(&s->docs, &i, &key, &value);) {
        struct kept *k = value;
        if (!all && k->used) {
            k->used = false;
            map_put(&stay, key, k);
            continue;
        }
        free(k->text);
        free(k->hash);
        free(k);
    }
    map_done(&s->docs);
    s->docs = stay;
}

void publish_trim(struct schema *s);
void publish_trim(struct schema *s)
{
    docs_drop(s, false);
}

void publish_done(struct schema *s);
void publish_done(struct schema *s)
{
    docs_drop(s, true);
}

bool publish_kept(struct schema *s, const char *key, struct doc *ret);
bool publish_kept(struct schema *s, const char *key, struct doc *ret)
{
    if (s->docs_generation != s->generation) {
        docs_drop(s, true);
        s->docs_generation = s->generation;
    }
    struct kept *k = map_get(&s->docs, key);
    if (k) {
        k->used = true;
        *ret = (struct doc){k->text, k->n, k->hash};
    }
    return k != NULL;
}

struct doc publish_keep_bytes(struct schema *s, const char *key, struct buf *b);
struct doc publish_keep_bytes(struct schema *s, const char *key, struct buf *b)
{
    unsigned char sum[SHA512_DIGEST_LENGTH];
    struct kept *k = xcalloc(1, sizeof(*k));

    k->used = true;
    k->n = b->n;
    k->text = buf_take(b);
    k->hash = xcalloc(1, sizeof(sum) * 2 + 1);
    SHA512((const unsigned char *)k->text, k->n, sum);
    for (size_t i = 0; i < sizeof(sum); i++)
        snprintf(k->hash + i * 2, 3, "%02X", sum[i]);
    map_put(&s->docs, key, k);
    return (struct doc){k->text, k->n, k->hash};
}

struct doc publish_keep(struct schema *s, const char *key, const struct val *v);
struct doc publish_keep(struct schema *s, const char *key, const struct val *v)
{
    struct buf b = {0};

    json_write(&b, v);
    return publish_keep_bytes(s, key, &b);
}

/* ---- pieces ---- */

/* Sorted; but for custom resources, in whose discovery upstream says them in another order. */
static struct val *verbs_list(struct arena *a, uint32_t verbs, bool custom)
{
    static const uint32_t late = VERB_CREATE; /* behind patch there */
    static const struct {
        uint32_t bit;
        const char *name;
    } all[] = {{VERB_CREATE, "create"}, {VERB_DELETE, "delete"},
               {VERB_DELETECOLLECTION, "deletecollection"}, {VERB_GET, "get"},
               {VERB_LIST, "list"}, {VERB_PATCH, "patch"}, {VERB_UPDATE, "update"},
               {VERB_WATCH, "watch"}};
    struct val *v = val_list(a);

    for (uint32_t i = 0; i < ARRAY_LEN(all); i++) {
        if ((verbs & all[i].bit) && !(custom && (all[i].bit & late)))
            val_push_str(a, v, all[i].name);
        if (custom && all[i].bit == VERB_PATCH && (verbs & late))
            val_push_str(a, v, "create");
    }
    return v;
}

static struct val *words(struct arena *a, const char *const *w)
{
    struct val *v = val_list(a);

    for (; *w; w++)
        val_push_str(a, v, *w);
    return v;
}

static struct val *group_version(struct arena *a, const char *group, const char *version)
{
    struct val *v = val_map(a);

    val_put(a, v, "groupVersion", val_printf(a, "%s/%s", group, version));
    val_put_str(a, v, "version", version);
    return v;
}

/* Versions of a group, the preferred first, each once. */
static uint32_t versions_of(const struct schema *s, const char *group, const char *out[32])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->resources_n; i++) {
        const struct resource *r = s->resources[i];
        bool known = !streq(r->group, group);
        for (uint32_t k = 0; k < n && !known; k++)
            known = streq(out[k], r->version);
        if (!known && n < 32)
            out[n++] = r->version;
    }
    return n;
}

static bool first_of_group(const struct schema *s, uint32_t at)
{
    for (uint32_t i = 0; i < at; i++)
        if (streq(s->resources[i]->group, s->resources[at]->group))
            return false;
    return true;
}

static struct val *group_val(const struct schema *s, struct arena *a, const char *group)
{
    const char *version[32];
    uint32_t n = versions_of(s, group, version);
    struct val *g = val_map(a), *list = val_list(a);

    val_put_str(a, g, "name", group);
    for (uint32_t i = 0; i < n; i++)
        val_push(a, list, group_version(a, group, version[i]));
    val_put(a, g, "versions", list);
    if (n)
        val_put(a, g, "preferredVersion", group_version(a, group, version[0]));
    return g;
}

/* ---- legacy ---- */

struct doc publish_api(struct schema *s, struct arena *a, const char *addr)
{
    struct val *v = val_map(a), *list = val_list(a), *where = val_map(a);
    size_t n;

    (void)s;
    val_put_str(a, v, "kind", "APIVersions");
    val_push_str(a, list, "v1");
    val_put(a, v, "versions", list);
    list = val_list(a);
    val_put_str(a, where, "clientCIDR", "0.0.0.0/0");
    val_put_str(a, where, "serverAddress", addr);
    val_push(a, list, where);
    val_put(a, v, "serverAddressByClientCIDRs", list);
    char *text = json_text(a, v, &n);
    return (struct doc){text, n, ""};
}

struct doc publish_apis(struct schema *s)
{
    struct doc d;

    if (publish_kept(s, "apis", &d))
        return d;
    struct arena *a = arena_new();
    struct val *v = val_map(a), *groups = val_list(a);
    for (uint32_t i = 0; i < s->resources_n; i++)
        if (*s->resources[i]->group && first_of_group(s, i))
            val_push(a, groups, group_val(s, a, s->resources[i]->group));
    val_put_str(a, v, "kind", "APIGroupList");
    val_put_str(a, v, "apiVersion", "v1");
    val_put(a, v, "groups", groups);
    d = publish_keep(s, "apis", v);
    arena_free(a);
    return d;
}

struct doc publish_group(struct schema *s, const char *group)
{
    char key[300];
    struct doc d = {0};

    if (!*group || !schema_has_group(s, group))
        return d;
    snprintf(key, sizeof(key), "group %s", group);
    if (publish_kept(s, key, &d))
        return d;
    struct arena *a = arena_new();
    struct val *v = val_map(a), *g = group_val(s, a, group);
    val_put_str(a, v, "kind", "APIGroup");
    val_put_str(a, v, "apiVersion", "v1");
    VAL_EACH_MEMBER(g, m)
        val_putn(a, v, m->key, m->n, &m->v);
    d = publish_keep(s, key, v);
    arena_free(a);
    return d;
}

/* base64 of the first 8 bytes of SHA-256 of "group/version/kind" as it is stored */
static struct val *storage_hash(struct arena *a, const struct resource *r)
{
    static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char sum[SHA256_DIGEST_LENGTH];
    char text[600], out[13];
    const struct resource *st = schema_stored(r);

    if (r->priv->store_version)
        snprintf(text, sizeof(text), "%s", r->priv->store_version);
    else
        snprintf(text, sizeof(text), "%s/%s/%s", st->group, st->version, st->kind);
    SHA256((const unsigned char *)text, strlen(text), sum);
    for (int i = 0, o = 0; i < 8; i += 3) {
        uint32_t w = (uint32_t)sum[i] << 16 | (uint32_t)sum[i + 1] << 8 | (i + 2 < 8 ? sum[i + 2] : 0);
        out[o++] = abc[w >> 18];
        out[o++] = abc[w >> 12 & 63];
        out[o++] = abc[w >> 6 & 63];
        out[o++] = i + 2 < 8 ? abc[w & 63] : '=';
    }
    out[12] = 0;
    return val_str(a, out);
}

static struct val *resource_val(struct arena *a, const struct resource *r)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "name", r->plural);
    val_put_str(a, v, "singularName", r->singular);
    val_put_bool(a, v, "namespaced", r->namespaced);
    val_put_str(a, v, "kind", r->kind);
    val_put(a, v, "verbs", verbs_list(a, r->verbs, r->custom));
    if (*r->short_names)
        val_put(a, v, "shortNames", words(a, r->short_names));
    if (*r->categories)
        val_put(a, v, "categories", words(a, r->categories));
    if (!r->virtual_)
        val_put(a, v, "storageVersionHash", storage_hash(a, r));
    return v;
}

static struct val *sub_val(struct arena *a, const struct resource *r, const struct subresource *sub)
{
    struct val *v = val_map(a);

    val_put(a, v, "name", val_printf(a, "%s/%s", r->plural, sub->name));
    val_put_str(a, v, "singularName", "");
    val_put_bool(a, v, "namespaced", r->namespaced);
    if (!streq(sub->group, r->group) || !streq(sub->version, r->version)) {
        val_put_str(a, v, "group", sub->group);
        val_put_str(a, v, "version", sub->version);
    }
    val_put_str(a, v, "kind", sub->kind);
    val_put(a, v, "verbs", verbs_list(a, sub->verbs, r->custom));
    return v;
}

struct doc publish_resources(struct schema *s, const char *group, const char *version)
{
    char key[400];
    struct doc d = {0};

    if (!schema_has_version(s, group, version))
        return d;
    snprintf(key, sizeof(key), "resources %s/%s", group, version);
    if (publish_kept(s, key, &d))
        return d;
    struct arena *a = arena_new();
    struct val *v = val_map(a), *list = val_list(a);
    for (uint32_t i = 0; i < s->resources_n; i++) {
        const struct resource *r = s->resources[i];
        if (!streq(r->group, group) || !streq(r->version, version))
            continue;
        val_push(a, list, resource_val(a, r));
        for (uint32_t k = 0; k < r->subs_n; k++)
            val_push(a, list, sub_val(a, r, &r->subs[k]));
    }
    val_put_str(a, v, "kind", "APIResourceList");
    if (*group)
        val_put_str(a, v, "apiVersion", "v1");
    val_put(a, v, "groupVersion", val_printf(a, "%s%s%s", group, *group ? "/" : "", version));
    val_put(a, v, "resources", list);
    d = publish_keep(s, key, v);
    arena_free(a);
    return d;
}

/* ---- aggregated ---- */

/* Group and version of what is answered are left empty where they are those around. */
static struct val *response_kind(struct arena *a, const struct resource *r, const char *group,
                                 const char *version, const char *kind)
{
    struct val *v = val_map(a);
    bool same = !r->custom && streq(group, r->group) && streq(version, r->version);

    val_put_str(a, v, "group", same ? "" : group);
    val_put_str(a, v, "version", same ? "" : version);
    val_put_str(a, v, "kind", kind);
    return v;
}

static struct val *discovery_val(struct arena *a, const struct resource *r)
{
    struct val *v = val_map(a), *subs = val_list(a);

    val_put_str(a, v, "resource", r->plural);
    val_put(a, v, "responseKind", response_kind(a, r, r->group, r->version, r->kind));
    val_put_str(a, v, "scope", r->namespaced ? "Namespaced" : "Cluster");
    val_put_str(a, v, "singularResource", r->singular);
    val_put(a, v, "verbs", verbs_list(a, r->verbs, r->custom));
    if (*r->short_names)
        val_put(a, v, "shortNames", words(a, r->short_names));
    if (*r->categories)
        val_put(a, v, "categories", words(a, r->categories));
    for (uint32_t k = 0; k < r->subs_n; k++) {
        const struct subresource *sub = &r->subs[k];
        struct val *one = val_map(a);
        val_put_str(a, one, "subresource", sub->name);
        val_put(a, one, "responseKind",
                response_kind(a, r, sub->group, sub->version, sub->kind));
        val_put(a, one, "verbs", verbs_list(a, sub->verbs, r->custom));
        val_push(a, subs, one);
    }
    if (r->subs_n)
        val_put(a, v, "subresources", subs);
    return v;
}

static struct val *discovery_group(const struct schema *s, struct arena *a, const char *group)
{
    const char *version[32];
    uint32_t n = versions_of(s, group, version);
    struct val *g = val_map(a), *meta = val_map(a), *versions = val_list(a);

    if (*group)
        val_put_str(a, meta, "name", group);
    val_put(a, g, "metadata", meta);
    for (uint32_t i = 0; i < n; i++) {
        struct val *one = val_map(a), *list = val_list(a);
        for (uint32_t k = 0; k < s->resources_n; k++)
            if (streq(s->resources[k]->group, group) && streq(s->resources[k]->version, version[i]))
                val_push(a, list, discovery_val(a, s->resources[k]));
        val_put_str(a, one, "version", version[i]);
        val_put(a, one, "resources", list);
        val_put_str(a, one, "freshness", "Current");
        val_push(a, versions, one);
    }
    val_put(a, g, "versions", versions);
    return g;
}

struct doc publish_aggregated(struct schema *s, bool core, const char *version)
{
    char key[64];
    struct doc d;

    snprintf(key, sizeof(key), "aggregated %d %.30s", core, version);
    if (publish_kept(s, key, &d))
        return d;
    struct arena *a = arena_new();
    struct val *v = val_map(a), *items = val_list(a);
    for (uint32_t i = 0; i < s->resources_n; i++)
        if ((*s->resources[i]->group == 0) == core && first_of_group(s, i))
            val_push(a, items, discovery_group(s, a, s->resources[i]->group));
    val_put_str(a, v, "kind", "APIGroupDiscoveryList");
    val_put(a, v, "apiVersion", val_printf(a, "apidiscovery.k8s.io/%s", version));
    val_put(a, v, "metadata", val_map(a));
    val_put(a, v, "items", items);
    d = publish_keep(s, key, v);
    arena_free(a);
    return d;
}
