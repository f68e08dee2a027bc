/* schema/crd.c - custom resources: a CustomResourceDefinition becomes resources of the registry.
 *
 * The openAPIV3Schema of each version becomes a struct type (so patches, Tables and server-side
 * apply see its fields and list kinds), and stays at hand in type.json for what types do not say:
 * pruning with x-kubernetes-preserve-unknown-fields, defaults, and structural validation.
 * What lasts are names and the definition's packed text: most definitions of a cluster are used by
 * nobody most of the time. The type, the columns and the rules of a version are made of the text
 * when somebody touches an object, and go when nobody did for a while (schema_trim). */
#include "schema/crd_int.h"
#include "schema/formats.h"
#include "schema/jsonpath.h"
#include "codec/regex.h"

#include "codec/json.h"

#include <math.h>
#include <openssl/sha.h>
#include <stdio.h>

void type_fields_set(struct arena *a, struct type *t, const struct field *fields, uint32_t n);
void resource_unregister(struct schema *s, struct resource *r);
void validate_metadata(struct check *c, const struct val *v, const struct val *old);
void publish_trim(struct schema *s);

enum { DEPTH_MAX = 200, UNKNOWN_MAX = 100 };

static bool flag(const struct val *schema, const char *key)
{
    return val_bool_at(schema, key, false);
}

/* ---- the type of a schema ---- */

static const char *const *keys_of(struct arena *a, const struct val *list)
{
    const char **w = arena_array(a, const char *, val_len(list) + 1);
    uint32_t n = 0;

    VAL_EACH(list, it)
        w[n++] = val_text(it, "");
    return w;
}

static const struct type *type_of(struct schema *s, struct arena *a, const struct val *js,
                                  int depth);

static const struct type *object_type(struct schema *s, struct arena *a, const struct val *js,
                                      int depth)
{
    struct type *t = arena_new_of(a, struct type);
    const struct val *props = val_get(js, "properties");
    const struct val *more = val_get(js, "additionalProperties");
    uint32_t n = 0;

    t->json = js;
    t->preserve = flag(js, "x-kubernetes-preserve-unknown-fields");
    t->embedded = flag(js, "x-kubernetes-embedded-resource");
    t->topology = streq(val_str_at(js, "x-kubernetes-map-type", ""), "atomic") ? TOPO_ATOMIC
                                                                              : TOPO_GRANULAR;
    if (!val_len(props) && more && !(more->type == VAL_BOOL && !more->b)) {
        t->kind = TYPE_MAP;
        t->elem = more->type == VAL_MAP ? type_of(s, a, more, depth + 1) : schema_scalar(TYPE_ANY);
        return t;
    }
    t->kind = TYPE_STRUCT;
    struct field *fields = xcalloc(val_len(props) + 3, sizeof(*fields));
    static const char *const own[] = {"apiVersion", "kind", "metadata"};
    for (uint32_t i = 0; i < ARRAY_LEN(own) && (depth == 0 || t->embedded); i++)
        fields[n++] = (struct field){
            .name = own[i], .name_n = (uint16_t)strlen(own[i]), .flags = FIELD_PTR,
            .type = i < 2 ? schema_scalar(TYPE_STRING) : schema_type(s, "meta.v1.ObjectMeta")};
    uint32_t fixed = n;
    VAL_EACH_MEMBER(props, m) {
        bool taken = false;
        for (uint32_t i = 0; i < fixed; i++)
            taken |= streq(m->key, own[i]);
        if (!taken)
            fields[n++] = (struct field){.name = m->key, .name_n = (uint16_t)m->n,
                                         .flags = FIELD_PTR,
                                         .type = type_of(s, a, &m->v, depth + 1)};
    }
    type_fields_set(a, t, fields, n);
    free(fields);
    return t;
}

static const struct type *list_type(struct schema *s, struct arena *a, const struct val *js,
                                    int depth)
{
    struct type *t = arena_new_of(a, struct type);
    const char *kind = val_str_at(js, "x-kubernetes-list-type", "atomic");
    const struct val *items = val_get(js, "items");

    t->kind = TYPE_LIST;
    t->json = js;
    t->elem = val_is(items, VAL_MAP) ? type_of(s, a, items, depth + 1) : schema_scalar(TYPE_ANY);
    t->topology = streq(kind, "map") ? TOPO_MAP : streq(kind, "set") ? TOPO_SET : TOPO_ATOMIC;
    if (t->topology == TOPO_MAP)
        t->keys = keys_of(a, val_get(js, "x-kubernetes-list-map-keys"));
    return t;
}

static const struct type *type_of(struct schema *s, struct arena *a, const struct val *js,
                                  int depth)
{
    const char *kind = val_str_at(js, "type", "");
    const char *format = val_str_at(js, "format", "");

    if (depth > DEPTH_MAX)
        return schema_scalar(TYPE_ANY);
    if (flag(js, "x-kubernetes-int-or-string"))
        return schema_scalar(TYPE_INT_OR_STRING);
    if (streq(kind, "object") || (!*kind && val_len(val_get(js, "properties"))))
        return object_type(s, a, js, depth);
    if (streq(kind, "array"))
        return list_type(s, a, js, depth);
    if (streq(kind, "string"))
        return schema_scalar(streq(format, "date-time") ? TYPE_STRING : TYPE_STRING);
    if (streq(kind, "integer"))
        return schema_scalar(streq(format, "int32") ? TYPE_INT32 : TYPE_INT64);
    if (streq(kind, "number"))
        return schema_scalar(TYPE_DOUBLE);
    if (streq(kind, "boolean"))
        return schema_scalar(TYPE_BOOL);
    return schema_scalar(TYPE_ANY);
}

/* ---- the resource of a version ---- */

int64_t schema_since(const struct resource *r)
{
    return r->custom ? r->priv->since : 0;
}

static const char *const no_words[] = {NULL};

static const struct column *columns(struct arena *a, const struct val *list)
{
    struct column *first = arena_new_of(a, struct column), *last = first;

    *first = (struct column){.name = "Name", .type = "string", .format = "name",
                             .expr = ".metadata.name"};
    VAL_EACH(list, it) {
        struct column *c;
        if (!jsonpath_valid(val_str_at(it, "jsonPath", ""))) /* as upstream: the columns end here */
            break;
        c = arena_new_of(a, struct column);
        c->name = val_str_at(it, "name", "");
        c->type = val_str_at(it, "type", "string");
        c->format = val_str_at(it, "format", "");
        c->description = val_str_at(it, "description", "");
        if (!*c->description)
            c->description = arena_printf(a, "Custom resource definition column (in JSONPath format): %s",
                                          val_str_at(it, "jsonPath", ""));
        c->priority = (int)val_int_at(it, "priority", 0);
        c->expr = arena_printf(a, "json:%s", val_str_at(it, "jsonPath", ""));
        last->next = c;
        last = c;
    }
    if (!val_len(list)) {
        struct column *c = arena_new_of(a, struct column);
        *c = (struct column){.name = "Age", .type = "date", .format = "", .expr = "age"};
        last->next = c;
    }
    return first;
}

static void sub_add(struct arena *a, struct resource *r, const struct val *crd_subs)
{
    struct subresource *subs = arena_array(a, struct subresource, 2);
    const struct val *scale = val_get(crd_subs, "scale");
    const char *selector = val_str_at(scale, "labelSelectorPath", NULL);

    r->subs = subs;
    if (val_get(crd_subs, "status")) {
        subs[r->subs_n++] = (struct subresource){
            .name = "status", .group = r->group, .version = r->version, .kind = r->kind,
            .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE};
        r->has_status = true;
    }
    if (val_is(scale, VAL_MAP))
        subs[r->subs_n++] = (struct subresource){
            .name = "scale", .group = "autoscaling", .version = "v1", .kind = "Scale",
            .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE,
            .type = schema_type(r->schema, "autoscaling.v1.Scale"),
            .scale_spec = arena_strdup(a, val_str_at(scale, "specReplicasPath", ".spec.replicas")),
            .scale_status = arena_strdup(a, val_str_at(scale, "statusReplicasPath", ".status.replicas")),
            .scale_selector = selector ? arena_strdup(a, selector) : NULL};
}

static const struct val *version_of(const struct val *crd, const char *name)
{
    VAL_EACH(val_at(crd, "spec.versions"), v)
        if (streq(val_str_at(v, "name", ""), name))
            return v;
    return NULL;
}

struct val *crd_schema_text(const struct resource *r, struct arena *a)
{
    _auto_(arena_freep) struct arena *text = arena_new();
    const struct val *js = val_at(version_of(obj_edit(r->priv->crd, text), r->version), "schema.openAPIV3Schema");

    return js ? val_copy(a, js) : val_map(a);
}

struct crd_made *crd_made(const struct resource *r)
{
    struct crd_made *made = r->priv->made;

    if (!made) {
        _auto_(arena_freep) struct arena *text = arena_new();
        struct arena *a = arena_new();
        const struct val *ver = version_of(obj_edit(r->priv->crd, text), r->version);
        const struct val *js = val_at(ver, "schema.openAPIV3Schema");
        const struct val *cols = val_get(ver, "additionalPrinterColumns");

        made = arena_new_of(a, struct crd_made);
        made->arena = a;
        made->type = object_type(r->schema, a, js ? val_copy(a, js) : val_map(a), 0);
        made->columns = columns(a, cols ? val_copy(a, cols) : NULL);
        r->priv->made = made;
    }
    made->used = true;
    return made;
}

void crd_drop(struct resource_priv *priv)
{
    struct crd_made *made = priv->made;

    priv->made = NULL;
    if (!made)
        return;
    crd_rules_free(made);
    arena_free(made->arena);
}

/* Names, as long as the resource is served; all that lies in the arena is small. */
static const char *kept(struct arena *a, const struct val *v, const char *path, const char *otherwise)
{
    return arena_strdup(a, val_str_at(v, path, otherwise));
}

static const char *const *kept_all(struct arena *a, const struct val *list)
{
    return val_len(list) ? keys_of(a, val_copy(a, list)) : no_words;
}

static void kept_selects(struct arena *a, struct resource *r, const struct val *list)
{
    const char **w = arena_array(a, const char *, val_len(list) + 1);
    uint32_t n = 0;

    VAL_EACH(list, it) {
        const char *path = val_str_at(it, "jsonPath", "");
        w[n++] = arena_strdup(a, *path == '.' ? path + 1 : path);
    }
    r->priv->selects = w;
}

static void sum_schema(struct resource *r, const struct val *js)
{
    struct buf b = {0};

    if (!js)
        return;
    json_write(&b, js);
    SHA256((const unsigned char *)b.p, b.n, r->priv->schema_sum);
    buf_done(&b);
}

static struct resource *version_resource(struct schema *s, const struct obj *obj, const struct val *crd,
                                         const char *name)
{
    struct arena *a = arena_new();
    const struct val *spec = val_get(crd, "spec"), *ver = version_of(crd, name);
    const struct val *js = val_at(ver, "schema.openAPIV3Schema"), *conversion = val_get(spec, "conversion");
    struct resource *r = arena_new_of(a, struct resource);
    const struct val *names = val_get(spec, "names");

    r->priv = arena_new_of(a, struct resource_priv);
    r->priv->refs = 1;
    r->priv->arena = a;
    r->priv->crd = obj_ref(obj);
    r->priv->since = obj->revision;
    if (streq(val_str_at(conversion, "strategy", "None"), "Webhook"))
        r->priv->conversion = val_copy(a, conversion);
    r->schema = s;
    r->custom = true;
    r->generation = true;
    r->stored = flag(ver, "storage");
    r->group = kept(a, spec, "group", "");
    r->version = arena_strdup(a, name);
    r->api_version = arena_printf(a, "%s/%s", r->group, r->version);
    r->plural = kept(a, names, "plural", "");
    r->kind = kept(a, names, "kind", "");
    r->singular = kept(a, names, "singular", "");
    r->list_kind = kept(a, names, "listKind", arena_printf(a, "%sList", r->kind));
    r->short_names = kept_all(a, val_get(names, "shortNames"));
    r->categories = kept_all(a, val_get(names, "categories"));
    r->namespaced = streq(val_str_at(spec, "scope", ""), "Namespaced");
    r->verbs = 0xff;
    if (flag(ver, "deprecated"))
        r->deprecated = kept(a, ver, "deprecationWarning",
                             arena_printf(a, "%s %s is deprecated", r->api_version, r->kind));
    r->table = arena_printf(a, "%s/%s", r->group, r->plural);
    r->priv->no_schema = !js;
    sum_schema(r, js);
    r->preserve_unknown = flag(spec, "preserveUnknownFields") ||
                          flag(js, "x-kubernetes-preserve-unknown-fields");
    sub_add(a, r, val_get(ver, "subresources"));
    kept_selects(a, r, val_get(ver, "selectableFields"));
    return r;
}

/* "v2" before "v1" before "v1beta1" before "v1alpha1", other names after them by the alphabet. */
static int version_rank(const char *v, long out[3])
{
    char *end;

    if (*v != 'v' || v[1] < '1' || v[1] > '9')
        return 0;
    out[1] = strtol(v + 1, &end, 10);
    out[0] = 3;
    out[2] = 0;
    if (!*end)
        return 1;
    bool beta = str_starts(end, "beta"), alpha = str_starts(end, "alpha");
    if (!beta && !alpha)
        return 0;
    out[0] = beta ? 2 : 1;
    const char *rest = end + (beta ? 4 : 5);
    out[2] = strtol(rest, &end, 10);
    return *rest && !*end;
}

static int version_cmp(const void *x, const void *y)
{
    const char *a = *(const char *const *)x, *b = *(const char *const *)y;
    long ra[3], rb[3];
    int ka = version_rank(a, ra), kb = version_rank(b, rb);

    if (ka != kb)
        return kb - ka;
    for (int i = 0; ka && i < 3; i++)
        if (ra[i] != rb[i])
            return ra[i] < rb[i] ? 1 : -1;
    return strcmp(a, b);
}

int schema_add_crd(struct schema *s, const struct obj *crd, const struct val *v, struct err *err)
{
    const struct val *spec = val_get(v, "spec");
    const char *group = val_str_at(spec, "group", ""), *plural = val_str_at(spec, "names.plural", "");
    const char *names[64];
    uint32_t n = 0;

    if (!*group || !*plural || !*val_str_at(spec, "names.kind", ""))
        return err_set(err, INVALID, "the definition names no group, plural or kind");
    schema_remove_crd(s, group, plural);
    VAL_EACH(val_get(spec, "versions"), ver)
        if (flag(ver, "served") && n < ARRAY_LEN(names))
            names[n++] = val_str_at(ver, "name", "");
    qsort(names, n, sizeof(*names), version_cmp);
    for (uint32_t i = 0; i < n; i++)
        resource_register(s, version_resource(s, crd, v, names[i]));
    return 0;
}

void schema_remove_crd(struct schema *s, const char *group, const char *plural)
{
    for (uint32_t i = s->resources_n; i-- > 0;) {
        struct resource *r = s->resources[i];
        if (r->custom && streq(r->group, group) && streq(r->plural, plural))
            resource_unregister(s, r);
    }
}

void schema_trim(struct schema *s)
{
    for (uint32_t i = 0; i < s->resources_n; i++) {
        struct resource_priv *priv = s->resources[i]->priv;

        if (priv->made && priv->refs == 1 && !priv->made->used)
            crd_drop(priv);
        else if (priv->made)
            priv->made->used = false;
    }
    publish_trim(s);
}

/* ---- decode: prune what the schema does not name ---- */

struct pruner {
    struct arena *a;
    struct texts *strict;
    char path[1024];
    uint32_t path_n;
    const struct resource *r;
    struct err bad; /* the first part of an embedded object that is no metadata, kind or apiVersion */
};

static uint32_t push(struct pruner *p, const char *key, const char *fmt)
{
    uint32_t mark = p->path_n;
    int n = snprintf(p->path + mark, sizeof(p->path) - mark, "%s%s%s", mark && *key != '[' ? "." : "",
                     key, fmt);

    p->path_n = n < 0 || mark + (uint32_t)n >= sizeof(p->path) ? (uint32_t)sizeof(p->path) - 1
                                                               : mark + (uint32_t)n;
    return mark;
}

static void pop(struct pruner *p, uint32_t mark)
{
    p->path_n = mark;
    p->path[mark] = 0;
}

/* apiVersion, kind and metadata of an object within another one; v is changed. */
static void prune_embedded(struct pruner *p, const char *key, struct val *v)
{
    const struct resource *r = p->r;
    struct texts unknown = {.a = p->a};
    struct err why = {0};

    if (!streq(key, "metadata")) {
        if (v->type != VAL_STR && !p->bad.code)
            err_set(&p->bad, INVALID_ARGUMENT, "%s in version \"%s\" cannot be handled as a %s: %s: Invalid value: must be a "
                    "string", r->kind, r->version, r->kind, p->path);
        return;
    }
    if (v->type == VAL_MAP && schema_decode_type(r->schema, schema_type(r->schema, "meta.v1.ObjectMeta"), r->kind, r->version,
                                                 p->a, v, p->strict ? &unknown : NULL, &why) == 0) {
        for (uint32_t i = 0; i < unknown.n; i++) /* `unknown field "x"` */
            texts_add(p->strict, "unknown field \"%s.%s", p->path, unknown.v[i] + strlen("unknown field \""));
    } else if (!p->bad.code) {
        err_set(&p->bad, INVALID_ARGUMENT, "%s in version \"%s\" cannot be handled as a %s: %s: Invalid value: %s", r->kind,
                r->version, r->kind, p->path, why.code ? why.msg : "it must be an object");
    }
}

static void prune(struct pruner *p, const struct type *t, struct val *out, const struct val *in,
                  int depth)
{
    char index[24];

    *out = *in;
    if (depth > DEPTH_MAX)
        return;
    if (t->kind == TYPE_LIST && in->type == VAL_LIST) {
        *out = (struct val){.type = VAL_LIST};
        for (uint32_t i = 0; i < in->n; i++) {
            struct val one;
            snprintf(index, sizeof(index), "[%u]", i);
            uint32_t mark = push(p, index, "");
            prune(p, t->elem, &one, &in->items[i], depth + 1);
            pop(p, mark);
            val_push(p->a, out, &one);
        }
    } else if (t->kind == TYPE_MAP && in->type == VAL_MAP) {
        *out = (struct val){.type = VAL_MAP};
        VAL_EACH_MEMBER(in, m) {
            struct val one;
            uint32_t mark = push(p, m->key, "");
            prune(p, t->elem, &one, &m->v, depth + 1);
            pop(p, mark);
            val_putn(p->a, out, m->key, m->n, &one);
        }
    } else if (t->kind == TYPE_STRUCT && in->type == VAL_MAP) {
        *out = (struct val){.type = VAL_MAP};
        VAL_EACH_MEMBER(in, m) {
            const struct field *f = type_field(t, m->key, m->n);
            struct val one = m->v;
            uint32_t mark = push(p, m->key, "");
            bool own = depth && t->embedded && (streq(m->key, "metadata") || streq(m->key, "kind") || streq(m->key, "apiVersion"));
            if (own) {
                one = *val_copy(p->a, &m->v);
                prune_embedded(p, m->key, &one);
            } else if (f && !(streq(f->name, "metadata") && f->type->name)) {
                prune(p, f->type, &one, &m->v, depth + 1);
            }
            if (!f && !t->preserve && p->strict && p->strict->n < UNKNOWN_MAX)
                texts_add(p->strict, "unknown field \"%s\"", p->path);
            pop(p, mark);
            if (f || t->preserve)
                val_putn(p->a, out, m->key, m->n, &one);
        }
    }
}

int crd_decode(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
               struct err *err);
int crd_decode(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
               struct err *err)
{
    struct pruner p = {.a = a, .strict = strict, .r = r};
    const struct type *meta_type = schema_type(r->schema, "meta.v1.ObjectMeta");
    struct val out, meta = {.type = VAL_MAP};
    struct texts unknown = {.a = a};

    if (v->type != VAL_MAP)
        return err_set(err, INVALID_ARGUMENT, "%s in version \"%s\" cannot be handled as a %s: it "
                       "must be an object", r->kind, r->version, r->kind);
    if (val_is(val_get(v, "metadata"), VAL_MAP))
        meta = *val_get(v, "metadata");
    else if (!val_is_null(val_get(v, "metadata")))
        return err_set(err, INVALID_ARGUMENT, "%s in version \"%s\" cannot be handled as a %s: "
                       "metadata must be an object", r->kind, r->version, r->kind);
    if (schema_decode_type(r->schema, meta_type, r->kind, r->version, a, &meta,
                           strict ? &unknown : NULL, err) < 0)
        return -1;
    for (uint32_t i = 0; i < unknown.n; i++) /* `unknown field "x"` -> "metadata.x" */
        texts_add(strict, "unknown field \"metadata.%s", unknown.v[i] + strlen("unknown field \""));
    if (r->preserve_unknown && r->priv->no_schema)
        out = *v;
    else
        prune(&p, resource_type(r), &out, v, 0);
    if (p.bad.code) {
        *err = p.bad;
        return -1;
    }
    struct val top = {.type = VAL_MAP};
    VAL_EACH_MEMBER(&out, m)
        val_putn(a, &top, m->key, m->n, &m->v);
    val_put(a, &top, "metadata", &meta);
    val_put(a, &top, "apiVersion", val_str(a, r->api_version));
    val_put(a, &top, "kind", val_str(a, r->kind));
    *v = *val_copy(a, &top); /* defaults change it in place */
    return 0;
}

/* ---- defaults ---- */

static void defaults(struct arena *a, const struct val *js, struct val *v, int depth)
{
    const struct val *props = val_get(js, "properties");
    const struct val *more = val_get(js, "additionalProperties"), *items = val_get(js, "items");

    if (depth > DEPTH_MAX)
        return;
    if (v->type == VAL_MAP) {
        VAL_EACH_MEMBER(props, m) {
            const struct val *def = val_get(&m->v, "default");
            struct val *have = val_getn(v, m->key, m->n);
            bool null = have && have->type == VAL_NULL && !flag(&m->v, "nullable");
            if (def && (!have || null))
                have = val_putn(a, v, m->key, m->n, val_copy(a, def));
            else if (null && depth)
                val_del(v, m->key);
            have = val_getn(v, m->key, m->n);
            if (have)
                defaults(a, &m->v, have, depth + 1);
        }
        if (val_is(more, VAL_MAP))
            VAL_EACH_MEMBER(v, m)
                if (!val_getn(props, m->key, m->n))
                    defaults(a, more, &m->v, depth + 1);
    } else if (v->type == VAL_LIST && val_is(items, VAL_MAP)) {
        VAL_EACH(v, it)
            defaults(a, items, it, depth + 1);
    }
}

void crd_default(const struct type *t, struct arena *a, struct val *v)
{
    if (t->json)
        defaults(a, t->json, v, 0);
}

/* ---- structural validation ---- */

struct checker {
    struct check *c;
    const struct val *old; /* root */
};

static bool type_fits(const struct val *js, const struct val *v)
{
    const char *want = val_str_at(js, "type", "");

    if (v->type == VAL_NULL)
        return flag(js, "nullable") || !*want;
    if (flag(js, "x-kubernetes-int-or-string"))
        return v->type == VAL_STR || v->type == VAL_INT;
    if (!*want)
        return true;
    if (streq(want, "object"))
        return v->type == VAL_MAP;
    if (streq(want, "array"))
        return v->type == VAL_LIST;
    if (streq(want, "string"))
        return v->type == VAL_STR;
    if (streq(want, "boolean"))
        return v->type == VAL_BOOL;
    if (streq(want, "number"))
        return val_is_number(v);
    return v->type == VAL_INT || (v->type == VAL_DOUBLE && val_num(v) == floor(val_num(v)));
}

static double number_of(const struct val *v)
{
    return val_num(v);
}

/* A pattern that is none lets everything pass: who made the definition was told. */
static bool matches(const char *pattern, const char *text)
{
    return regex_match_text(pattern, text) != 0;
}

static uint32_t utf8_count(const char *s)
{
    uint32_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* A bound must be a number of the kind that it bounds, else no value is right. */
static void in_range(struct check *c, const struct val *js, const struct val *bound, const char *name)
{
    const char *format = val_str_at(js, "format", "");

    if (!val_is_number(bound) || !streq(val_str_at(js, "type", ""), "integer"))
        return;
    double x = number_of(bound);
    if (x != floor(x))
        check_fail(c, CAUSE_INVALID, "", bound, "%s must be an integer", name);
    else if (streq(format, "int32") && (x > INT32_MAX || x < INT32_MIN))
        check_fail(c, CAUSE_INVALID, "", bound, "%s must be a 32 bit integer", name);
}

static void check_scalar(struct checker *k, const struct val *js, const struct val *v)
{
    struct check *c = k->c;
    const struct val *lo = val_get(js, "minimum"), *hi = val_get(js, "maximum");
    const struct val *mul = val_get(js, "multipleOf");

    if (v->type == VAL_STR) {
        int64_t n = utf8_count(v->s);
        const struct val *longest = val_get(js, "maxLength");
        int64_t min = val_int_at(js, "minLength", -1), max = val_int_at(js, "maxLength", -1);
        const char *pattern = val_str_at(js, "pattern", "");
        if (min >= 0 && n < min)
            check_fail(c, CAUSE_INVALID, "", v, "should be at least %lld chars long", (long long)min);
        if (val_is_number(longest) && n > max)
            check_fail(c, CAUSE_TOO_LONG, "", NULL, "may not be more than %lld bytes", (long long)max);
        if (*pattern && !matches(pattern, v->s))
            check_fail(c, CAUSE_INVALID, "", v, "should match '%s'", pattern);
        if (!format_fits(val_str_at(js, "format", ""), v->s))
            check_fail(c, CAUSE_INVALID, "", v, "must be of type %s", val_str_at(js, "format", ""));
    }
    if (!val_is_number(v))
        return;
    double x = number_of(v);
    in_range(c, js, lo, "minimum");
    in_range(c, js, hi, "maximum");
    if (val_is_number(lo) && (x < number_of(lo) || (flag(js, "exclusiveMinimum") && x == number_of(lo))))
        check_fail(c, CAUSE_INVALID, "", v, "should be greater than or equal to %g", number_of(lo));
    if (val_is_number(hi) && (x > number_of(hi) || (flag(js, "exclusiveMaximum") && x == number_of(hi))))
        check_fail(c, CAUSE_INVALID, "", v, "should be less than or equal to %g", number_of(hi));
    if (val_is_number(mul) && number_of(mul) > 0 && fabs(remainder(x, number_of(mul))) > 1e-9)
        check_fail(c, CAUSE_INVALID, "", v, "should be a multiple of %g", number_of(mul));
    const char *format = val_str_at(js, "format", "");
    if (streq(format, "int32") && (x > INT32_MAX || x < INT32_MIN))
        check_fail(c, CAUSE_INVALID, "", v, "should be a 32 bit integer");
}

/* old: what was there before and passed then: unchanged, it passes again. NULL: nothing to compare. */
static void check_schema(struct checker *k, const struct val *js, const struct val *v, const struct val *old, int depth);

static uint32_t failures(struct checker *k, const struct val *js, const struct val *v, int depth)
{
    struct causes mine = {.a = k->c->a}, *outer = k->c->causes;

    k->c->causes = &mine;
    check_schema(k, js, v, NULL, depth + 1);
    k->c->causes = outer;
    return mine.n;
}

static void check_logic(struct checker *k, const struct val *js, const struct val *v, int depth)
{
    struct check *c = k->c;
    const struct val *any = val_get(js, "anyOf"), *one = val_get(js, "oneOf");
    uint32_t good = 0;

    VAL_EACH(val_get(js, "allOf"), s)
        check_schema(k, s, v, NULL, depth + 1);
    VAL_EACH(any, s)
        good += failures(k, s, v, depth) == 0;
    if (val_len(any) && !good)
        check_fail(c, CAUSE_INVALID, "", v, "must validate at least one schema (anyOf)");
    good = 0;
    VAL_EACH(one, s)
        good += failures(k, s, v, depth) == 0;
    if (val_len(one) && good != 1)
        check_fail(c, CAUSE_INVALID, "", v, "must validate one and only one schema (oneOf)");
    const struct val *not = val_get(js, "not");
    if (val_is(not, VAL_MAP) && failures(k, not, v, depth) == 0)
        check_fail(c, CAUSE_INVALID, "", v, "must not validate the schema (not)");
}

static bool same_keys(const struct val *keys, const struct val *x, const struct val *y)
{
    VAL_EACH(keys, key) {
        const struct val *vx = val_get(x, val_text(key, "")), *vy = val_get(y, val_text(key, ""));
        if (!!vx != !!vy || (vx && !val_equal(vx, vy)))
            return false;
    }
    return true;
}

static void check_list(struct checker *k, const struct val *js, const struct val *v, const struct val *old, int depth)
{
    struct check *c = k->c;
    const struct val *items = val_get(js, "items"), *keys = val_get(js, "x-kubernetes-list-map-keys");
    int64_t min = val_int_at(js, "minItems", -1), max = val_int_at(js, "maxItems", -1);
    const char *kind = val_str_at(js, "x-kubernetes-list-type", "");
    bool set = streq(kind, "set") || flag(js, "uniqueItems"), map = streq(kind, "map");

    if (min >= 0 && (int64_t)v->n < min)
        check_fail(c, CAUSE_INVALID, "", v, "should have at least %lld items", (long long)min);
    if (max >= 0 && (int64_t)v->n > max)
        check_fail(c, CAUSE_TOO_MANY, "", NULL, "must have at most %lld items", (long long)max);
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t mark = check_push(c, "[%u]", i);
        bool dup = false;
        for (uint32_t j = 0; j < i && (set || map) && v->n < 5000 && !dup; j++)
            dup = set ? val_equal(&v->items[i], &v->items[j])
                      : same_keys(keys, &v->items[i], &v->items[j]);
        if (dup)
            check_fail(c, CAUSE_DUPLICATE, "", &v->items[i], "%s", "");
        if (val_is(items, VAL_MAP))
            check_schema(k, items, &v->items[i], crd_same_item(js, &v->items[i], old), depth + 1);
        check_pop(c, mark);
    }
}

static void check_object(struct checker *k, const struct val *js, const struct val *v, const struct val *old, int depth)
{
    struct check *c = k->c;
    const struct val *props = val_get(js, "properties");
    const struct val *more = val_get(js, "additionalProperties");
    int64_t min = val_int_at(js, "minProperties", -1), max = val_int_at(js, "maxProperties", -1);

    if (depth && flag(js, "x-kubernetes-embedded-resource"))
        validate_embedded(c, v);
    VAL_EACH(val_get(js, "required"), need)
        if (!val_get(v, val_text(need, "")))
            check_fail(c, CAUSE_REQUIRED, val_text(need, ""), NULL, "%s", "");
    if (min >= 0 && (int64_t)v->n < min)
        check_fail(c, CAUSE_INVALID, "", v, "should have at least %lld properties", (long long)min);
    if (max >= 0 && (int64_t)v->n > max)
        check_fail(c, CAUSE_TOO_MANY, "", NULL, "must have at most %lld items", (long long)max);
    VAL_EACH_MEMBER(v, m) {
        const struct val *sub = val_getn(props, m->key, m->n);
        bool own = !c->path_n && (streq(m->key, "metadata") || streq(m->key, "kind") ||
                                  streq(m->key, "apiVersion"));
        if (own)
            continue;
        if (!c->path_n && *c->sub == 0 && c->r->has_status && streq(m->key, "status"))
            continue;
        uint32_t mark = check_push(c, "%s%s", c->path_n ? "." : "", m->key);
        if (sub)
            check_schema(k, sub, &m->v, val_getn(old, m->key, m->n), depth + 1);
        else if (val_is(more, VAL_MAP))
            check_schema(k, more, &m->v, val_getn(old, m->key, m->n), depth + 1);
        check_pop(c, mark);
    }
}

static void check_schema(struct checker *k, const struct val *js, const struct val *v, const struct val *old, int depth)
{
    const struct val *list = val_get(js, "enum");

    if (depth > DEPTH_MAX || (old && depth && val_equal(v, old)))
        return;
    if (!type_fits(js, v)) {
        check_fail(k->c, CAUSE_TYPE_INVALID, "", v, "must be of type %s",
                   val_str_at(js, "type", "integer or string"));
        return;
    }
    if (v->type == VAL_NULL)
        return;
    bool known = !val_len(list);
    VAL_EACH(list, e)
        known |= val_equal(e, v);
    if (!known)
        check_fail(k->c, CAUSE_NOT_SUPPORTED, "", v, "supported values: as the schema lists them");
    check_scalar(k, js, v);
    if (v->type == VAL_LIST)
        check_list(k, js, v, old, depth);
    if (v->type == VAL_MAP)
        check_object(k, js, v, old, depth);
    check_logic(k, js, v, depth);
}

void crd_check_value(struct check *c, const struct val *js, const struct val *v)
{
    struct checker k = {.c = c};

    check_schema(&k, js, v, NULL, 0);
}

/* Rules are only run over what has its right form. */
static void rules(struct check *c, const struct resource *r, const struct val *v, const struct val *old,
                  struct causes *causes)
{
    bool blocked = false;

    if (!resource_type(r)->json)
        return;
    for (uint32_t i = 0; i < causes->n; i++)
        blocked |= causes->v[i].type == CAUSE_REQUIRED || causes->v[i].type == CAUSE_NOT_SUPPORTED ||
                   causes->v[i].type == CAUSE_TOO_LONG || causes->v[i].type == CAUSE_TOO_MANY ||
                   causes->v[i].type == CAUSE_TYPE_INVALID;
    if (!blocked)
        crd_rules_judge(c, r, v, old);
    else if (crd_rules_any(r))
        causes_add(causes, CAUSE_INVALID, "<nil>", NULL, "some validation rules were not checked because the object was "
                   "invalid; correct the existing errors to complete validation");
}

void crd_validate(const struct resource *r, const char *sub, const struct val *v,
                  const struct val *old, struct causes *causes)
{
    struct check c = {.causes = causes, .a = causes->a, .r = r, .sub = sub, .root = v,
                      .old_root = old};
    struct checker k = {.c = &c, .old = old};

    if (resource_type(r)->json)
        check_schema(&k, resource_type(r)->json, v, val_is(old, VAL_MAP) ? old : NULL, 0);
    rules(&c, r, v, old, causes);
    const struct subresource *scale = schema_sub(r, "scale");
    const char *paths[] = {scale ? scale->scale_spec : NULL, scale ? scale->scale_status : NULL};
    for (uint32_t i = 0; i < ARRAY_LEN(paths); i++) { /* told by the path as it is written */
        const struct val *n = paths[i] ? val_at(v, paths[i] + 1) : NULL;
        if (n && !val_is(n, VAL_INT) && n->type != VAL_NULL)
            check_fail(&c, CAUSE_INVALID, paths[i], n, "should be an integer");
        if (val_is(n, VAL_INT) && (n->i < 0 || n->i > INT32_MAX))
            check_fail(&c, CAUSE_INVALID, paths[i], n, n->i < 0 ? "should be a non-negative integer"
                                                              : "should be less than or equal to 2147483647");
    }
}
