/* schema/openapi.c - OpenAPI v2 and v3 documents of the kinds.
 *
 * Both are written from the types: a definition a struct, with the x-kubernetes-* extensions that
 * clients merge by. Paths carry what kubectl looks for: which verbs there are, the kind behind a
 * path (x-kubernetes-group-version-kind) and the query parameters of writes. v3 has a document a
 * group-version, holding all types that its kinds reach. */
#include "schema/publish.h"
#include "schema/crd_int.h"

#include "codec/json.h"

#include <openssl/sha.h>
#include <stdio.h>

bool publish_kept(struct schema *s, const char *key, struct doc *ret);
struct doc publish_keep(struct schema *s, const char *key, const struct val *v);

struct maker {
    struct schema *s;
    struct arena *a;
    bool v3;
    struct val *defs; /* definitions, or components.schemas */
};

/* ---- names ---- */

static const struct {
    const char *prefix, *full;
} packages[] = {
    {"meta.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."},
    {"version.", "io.k8s.apimachinery.pkg.version."},
    {"apiextensions.v1.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."},
    {"apiregistration.v1.", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1."},
    {"tandem.", "dev.tandem."},
    {"", "io.k8s.api."},
};

static const char *full_name(struct arena *a, const char *name)
{
    uint32_t i = 0;

    while (!str_starts(name, packages[i].prefix))
        i++;
    return arena_printf(a, "%s%s", packages[i].full, name + strlen(packages[i].prefix));
}

/* "com.example.v1.Thing" of a custom resource */
static const char *resource_def(struct maker *m, const struct resource *r)
{
    if (!r->custom)
        return full_name(m->a, r->described->name);
    char *group = arena_strdup(m->a, r->group), *out = arena_strdup(m->a, "");
    for (char *dot; (dot = strrchr(group, '.')); *dot = 0)
        out = arena_printf(m->a, "%s%s.", out, dot + 1);
    return arena_printf(m->a, "%s%s.%s.%s", out, group, r->version, r->kind);
}

/* ---- small values ---- */

static struct val *text(struct maker *m, struct val *v, const char *key, const char *s)
{
    val_put(m->a, v, key, val_lit(m->a, s));
    return v;
}

static struct val *of_type(struct maker *m, const char *type, const char *format)
{
    struct val *v = text(m, val_map(m->a), "type", type);

    return format ? text(m, v, "format", format) : v;
}

static struct val *ref(struct maker *m, const char *full)
{
    return text(m, val_map(m->a), "$ref",
                arena_printf(m->a, "#/%s/%s", m->v3 ? "components/schemas" : "definitions", full));
}

static struct val *gvk(struct maker *m, const char *group, const char *version, const char *kind)
{
    struct val *v = val_map(m->a);

    text(m, v, "group", group);
    text(m, v, "kind", kind);
    return text(m, v, "version", version);
}

/* What the field is for, or NULL. type may be NULL. */
static const char *said(struct maker *m, const char *type, const char *field)
{
    char key[300];
    const char *s;

    snprintf(key, sizeof(key), "%s %s", type ? type : "*", field);
    if ((s = map_get(&m->s->says, key)) || !type)
        return s;
    snprintf(key, sizeof(key), "* %s", field);
    return map_get(&m->s->says, key);
}

/* ---- types ---- */

static struct val *type_val(struct maker *m, const struct type *t);
static void define(struct maker *m, const struct type *t);

static struct val *special(struct maker *m, const char *full, const char *type, const char *format)
{
    if (!val_get(m->defs, full)) {
        struct val *v = val_map(m->a);
        if (type)
            text(m, v, "type", type);
        if (format)
            text(m, v, "format", format);
        val_put(m->a, m->defs, full, v);
    }
    return ref(m, full);
}

static const char *topology_name(const struct type *t)
{
    return t->topology == TOPO_SET ? "set" : t->topology == TOPO_MAP ? "map" : "atomic";
}

static struct val *type_val(struct maker *m, const struct type *t)
{
    struct val *v;

    switch (t->kind) {
    case TYPE_STRING:
        return of_type(m, "string", NULL);
    case TYPE_BOOL:
        return of_type(m, "boolean", NULL);
    case TYPE_INT32:
        return of_type(m, "integer", "int32");
    case TYPE_INT64:
        return of_type(m, "integer", "int64");
    case TYPE_DOUBLE:
        return of_type(m, "number", "double");
    case TYPE_BYTES:
        return of_type(m, "string", "byte");
    case TYPE_QUANTITY:
        return special(m, "io.k8s.apimachinery.pkg.api.resource.Quantity", "string", NULL);
    case TYPE_INT_OR_STRING:
        return special(m, "io.k8s.apimachinery.pkg.util.intstr.IntOrString", "string", "int-or-string");
    case TYPE_TIME:
        return special(m, "io.k8s.apimachinery.pkg.apis.meta.v1.Time", "string", "date-time");
    case TYPE_MICRO_TIME:
        return special(m, "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "string", "date-time");
    case TYPE_DURATION:
        return of_type(m, "string", NULL);
    case TYPE_RAW:
        return special(m, "io.k8s.apimachinery.pkg.runtime.RawExtension", "object", NULL);
    case TYPE_ANY:
        return of_type(m, "object", NULL);
    case TYPE_LIST:
        v = of_type(m, "array", NULL);
        val_put(m->a, v, "items", type_val(m, t->elem));
        return v;
    case TYPE_MAP:
        v = of_type(m, "object", NULL);
        val_put(m->a, v, "additionalProperties", type_val(m, t->elem));
        return v;
    default:
        define(m, t);
        return ref(m, full_name(m->a, t->name));
    }
}

/* A reference with a text of its own: in v3 it goes around the reference. */
static struct val *described(struct maker *m, struct val *reference, const char *what)
{
    struct val *all, *around;

    if (!m->v3)
        return text(m, reference, "description", what);
    all = val_list(m->a);
    around = val_map(m->a);
    val_push(m->a, all, reference);
    val_put(m->a, around, "allOf", all);
    return text(m, around, "description", what);
}

static void field_extensions(struct maker *m, const struct field *f, struct val *v)
{
    if (f->type->kind == TYPE_LIST) {
        text(m, v, "x-kubernetes-list-type", topology_name(f->type));
        if (f->type->keys) {
            struct val *keys = val_list(m->a);
            for (const char *const *k = f->type->keys; *k; k++)
                val_push_str(m->a, keys, *k);
            val_put(m->a, v, "x-kubernetes-list-map-keys", keys);
        }
    } else if (f->type->kind == TYPE_MAP && f->type->topology == TOPO_ATOMIC) {
        text(m, v, "x-kubernetes-map-type", "atomic");
    }
    if (f->flags & (FIELD_MERGE | FIELD_RETAIN | FIELD_REPLACE))
        text(m, v, "x-kubernetes-patch-strategy",
             (f->flags & FIELD_MERGE) && (f->flags & FIELD_RETAIN) ? "merge,retainKeys"
             : f->flags & FIELD_MERGE                              ? "merge"
             : f->flags & FIELD_RETAIN                             ? "retainKeys"
                                                                   : "replace");
    if (f->merge_key)
        text(m, v, "x-kubernetes-patch-merge-key", f->merge_key);
    if (f->type->kind == TYPE_QUANTITY || f->type->kind == TYPE_STRUCT)
        return;
    if (f->def)
        val_put(m->a, v, "default", f->def);
}

/* Fields of a schema in a schema hold what has no one type; NULL: not one of them. */
static struct val *json_val(struct maker *m, const struct type *in, const struct field *f)
{
    static const struct {
        const char *field, *def;
    } all[] = {{"additionalItems", "JSONSchemaPropsOrBool"}, {"additionalProperties", "JSONSchemaPropsOrBool"},
               {"default", "JSON"}, {"dependencies", "JSONSchemaPropsOrStringArray"}, {"enum", "JSON"},
               {"example", "JSON"}, {"items", "JSONSchemaPropsOrArray"}};
    struct val *one, *v;

    if (!streq(in->name, "apiextensions.v1.JSONSchemaProps"))
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (!streq(all[i].field, f->name))
            continue;
        one = special(m, full_name(m->a, arena_printf(m->a, "apiextensions.v1.%s", all[i].def)), NULL, NULL);
        if (f->type->kind != TYPE_LIST && f->type->kind != TYPE_MAP)
            return one;
        v = of_type(m, f->type->kind == TYPE_LIST ? "array" : "object", NULL);
        val_put(m->a, v, f->type->kind == TYPE_LIST ? "items" : "additionalProperties", one);
        return v;
    }
    return NULL;
}

/* In v3 a $ref stands alone: what is said beside it goes around an allOf. */
static struct val *field_val(struct maker *m, const struct type *in, const struct field *f)
{
    struct val *v = json_val(m, in, f);

    if (!v)
        v = f->type->kind == TYPE_ANY && streq(f->name, "fieldsV1")
                ? special(m, "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "object", NULL)
                : type_val(m, f->type);
    if (m->v3 && val_get(v, "$ref") &&
        (f->flags & (FIELD_MERGE | FIELD_RETAIN | FIELD_REPLACE | FIELD_KEEP))) {
        struct val *all = val_list(m->a), *around = val_map(m->a);
        val_push(m->a, all, v);
        val_put(m->a, around, "allOf", all);
        if (f->type->kind == TYPE_STRUCT && (f->flags & FIELD_KEEP) && !(f->flags & FIELD_PTR))
            val_put(m->a, around, "default", val_map(m->a));
        v = around;
    }
    field_extensions(m, f, v);
    return v;
}

static void define(struct maker *m, const struct type *t)
{
    const char *full = full_name(m->a, t->name);
    struct val *v, *props = val_map(m->a), *required = val_list(m->a);

    if (val_get(m->defs, full))
        return;
    v = of_type(m, "object", NULL);
    val_put(m->a, m->defs, full, v); /* first, as types may hold themselves */
    for (uint32_t i = 0; i < t->fields_n; i++) {
        const struct field *f = &t->fields[i];
        struct val *one = field_val(m, t, f);
        const char *what = said(m, t->name, f->name);
        if (what)
            one = val_get(one, "$ref") ? described(m, one, what) : text(m, one, "description", what);
        val_put(m->a, props, f->name, one);
        if (f->flags & FIELD_REQUIRED)
            val_push_str(m->a, required, f->name);
    }
    if (props->n)
        val_put(m->a, v, "properties", props);
    if (required->n)
        val_put(m->a, v, "required", required);
    if (t->topology == TOPO_ATOMIC)
        text(m, v, "x-kubernetes-map-type", "atomic");
    val_put(m->a, m->defs, full, v);
}

/* v2 knows no choices and no null, and its readers take properties for all that there may be. */
static void for_v2(struct val *v)
{
    static const char *const unknown[] = {"allOf", "oneOf", "anyOf", "not"};
    struct val *props, *required;

    if (!val_is(v, VAL_MAP))
        return;
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        val_del(v, unknown[i]);
    if (val_bool_at(v, "nullable", false)) {
        const char *keep = "description";

        for (uint32_t i = v->n; i-- > 0;)
            if (!streq(v->members[i].key, keep))
                val_del(v, v->members[i].key);
        return;
    }
    if (val_bool_at(v, "x-kubernetes-preserve-unknown-fields", false)) {
        val_del(v, "properties");
        val_del(v, "items");
    }
    props = val_get(v, "properties");
    required = val_get(v, "required");
    VAL_EACH_MEMBER(props, m) {
        for (uint32_t i = val_len(required); i-- > 0 && val_bool_at(&m->v, "nullable", false);)
            if (streq(val_text(&required->items[i], ""), m->key))
                val_remove(required, i);
        for_v2(&m->v);
    }
    for_v2(val_get(v, "items"));
    for_v2(val_get(v, "additionalProperties"));
}

/* Objects inside that are whole objects have a kind and metadata, too. */
static void embedded(struct maker *m, struct val *v)
{
    struct val *props;

    if (!val_is(v, VAL_MAP))
        return;
    VAL_EACH_MEMBER(val_get(v, "properties"), e)
        embedded(m, &e->v);
    embedded(m, val_get(v, "items"));
    embedded(m, val_get(v, "additionalProperties"));
    if (!val_bool_at(v, "x-kubernetes-embedded-resource", false) ||
        (!m->v3 && val_bool_at(v, "x-kubernetes-preserve-unknown-fields", false)))
        return;
    props = val_need_map(m->a, v, "properties");
    val_put(m->a, props, "apiVersion", of_type(m, "string", NULL));
    val_put(m->a, props, "kind", of_type(m, "string", NULL));
    val_put(m->a, props, "metadata", ref(m, full_name(m->a, "meta.v1.ObjectMeta")));
}

/* The schema of a custom resource in a document: its own, with the three that every object has. */
static struct val *custom_val(struct maker *m, const struct resource *r)
{
    struct val *v = crd_schema_text(r, m->a), *props;
    const struct type *meta = schema_type(m->s, "meta.v1.ObjectMeta");

    define(m, meta);
    /* with a property or two clients would take all others for unknown ones */
    if (!m->v3 && val_bool_at(v, "x-kubernetes-preserve-unknown-fields", false))
        return of_type(m, "object", NULL);
    if (!m->v3)
        for_v2(v);
    embedded(m, v);
    props = val_need_map(m->a, v, "properties");
    text(m, v, "type", "object");
    val_put(m->a, props, "apiVersion", text(m, of_type(m, "string", NULL), "description", said(m, NULL, "apiVersion")));
    val_put(m->a, props, "kind", text(m, of_type(m, "string", NULL), "description", said(m, NULL, "kind")));
    val_put(m->a, props, "metadata", described(m, ref(m, full_name(m->a, meta->name)),
                                               said(m, NULL, "metadata")));
    return v;
}

static void kind_of(struct maker *m, const char *full, const char *group, const char *version,
                    const char *kind)
{
    struct val *v = val_get(m->defs, full);

    if (v && !val_get(v, "x-kubernetes-group-version-kind"))
        val_push(m->a, val_need_list(m->a, v, "x-kubernetes-group-version-kind"),
                 gvk(m, group, version, kind));
}

static void define_list(struct maker *m, const struct resource *r, const char *def)
{
    const char *full = arena_printf(m->a, "%sList", def);
    char name[300];
    struct val *v, *props, *items;

    snprintf(name, sizeof(name), "%sList", r->custom ? "" : r->described->name);
    const struct type *described = r->custom ? NULL : schema_type(m->s, name);
    if (described) {
        define(m, described);
        kind_of(m, full, r->group, r->version, r->list_kind);
        return;
    }
    define(m, schema_type(m->s, "meta.v1.ListMeta"));
    v = of_type(m, "object", NULL);
    props = val_need_map(m->a, v, "properties");
    items = of_type(m, "array", NULL);
    val_put(m->a, items, "items", ref(m, def));
    val_put(m->a, props, "apiVersion", of_type(m, "string", NULL));
    val_put(m->a, props, "kind", of_type(m, "string", NULL));
    val_put(m->a, props, "items", items);
    val_put(m->a, props, "metadata", ref(m, full_name(m->a, "meta.v1.ListMeta")));
    val_push_str(m->a, val_need_list(m->a, v, "required"), "items");
    val_put(m->a, m->defs, full, v);
    kind_of(m, full, r->group, r->version, r->list_kind);
}

static void define_resource(struct maker *m, const struct resource *r)
{
    static const char *const always[] = {
        "meta.v1.APIResource", "meta.v1.APIResourceList", "meta.v1.DeleteOptions", "meta.v1.Patch",
        "meta.v1.Status", "meta.v1.StatusCause", "meta.v1.StatusDetails", "meta.v1.WatchEvent"};
    const char *def = resource_def(m, r);

    if (r->custom)
        val_put(m->a, m->defs, def, custom_val(m, r));
    else
        define(m, r->described);
    kind_of(m, def, r->group, r->version, r->kind);
    if (r->verbs & VERB_LIST)
        define_list(m, r, def);
    for (uint32_t i = 0; i < r->subs_n; i++)
        if (r->subs[i].type && r->subs[i].type->name) {
            define(m, r->subs[i].type);
            kind_of(m, full_name(m->a, r->subs[i].type->name), r->subs[i].group,
                    r->subs[i].version, r->subs[i].kind);
        }
    if (r->virtual_ && !(r->verbs & VERB_LIST))
        return;
    for (uint32_t i = 0; i < ARRAY_LEN(always); i++) {
        const struct type *t = schema_type(m->s, always[i]);
        if (t)
            define(m, t);
        else if (streq(always[i], "meta.v1.Patch"))
            val_put(m->a, m->defs, full_name(m->a, always[i]), of_type(m, "object", NULL));
    }
}

/* ---- paths ---- */

static struct val *parameter(struct maker *m, const char *name, const char *in, const char *type)
{
    struct val *p = val_map(m->a);

    text(m, p, "name", name);
    text(m, p, "in", in);
    if (streq(in, "path"))
        val_put_bool(m->a, p, "required", true);
    if (m->v3)
        val_put(m->a, p, "schema", of_type(m, type, NULL));
    else
        text(m, p, "type", type);
    return p;
}

static struct val *body(struct maker *m, const char *def)
{
    struct val *v = val_map(m->a), *content = val_map(m->a), *media = val_map(m->a);

    if (m->v3) {
        val_put(m->a, media, "schema", ref(m, def));
        val_put(m->a, content, "*/*", media);
        val_put(m->a, v, "content", content);
        return v;
    }
    text(m, v, "name", "body");
    text(m, v, "in", "body");
    val_put_bool(m->a, v, "required", true);
    val_put(m->a, v, "schema", ref(m, def));
    return v;
}

static struct val *responses(struct maker *m, const char *def)
{
    struct val *v = val_map(m->a), *ok = text(m, val_map(m->a), "description", "OK");

    if (m->v3) {
        struct val *content = val_map(m->a), *media = val_map(m->a);
        val_put(m->a, media, "schema", ref(m, def));
        val_put(m->a, content, "application/json", media);
        val_put(m->a, content, "application/yaml", media);
        val_put(m->a, ok, "content", content);
    } else {
        val_put(m->a, ok, "schema", ref(m, def));
    }
    val_put(m->a, v, "200", ok);
    return v;
}

/* One operation: action is the x-kubernetes-action. */
static void operation(struct maker *m, struct val *path, const char *method, const char *action,
                      const struct resource *r, const char *def, const struct val *kind)
{
    static const char *const lists[] = {"allowWatchBookmarks", "continue", "fieldSelector",
                                        "labelSelector", "limit", "resourceVersion",
                                        "resourceVersionMatch", "sendInitialEvents",
                                        "timeoutSeconds", "watch"};
    static const char *const writes[] = {"dryRun", "fieldManager", "fieldValidation"};
    static const char *const media[] = {"application/json", "application/yaml",
                                        "application/vnd.kubernetes.protobuf"};
    struct val *op = val_map(m->a), *params = val_list(m->a), *produces = val_list(m->a);
    bool write = streq(action, "post") || streq(action, "put") || streq(action, "patch");
    bool listing = streq(action, "list") || streq(action, "watchlist") || streq(action, "deletecollection");

    val_push(m->a, params, parameter(m, "pretty", "query", "string"));
    for (uint32_t i = 0; i < ARRAY_LEN(lists) && listing; i++)
        val_push(m->a, params, parameter(m, lists[i], "query", i == 4 || i == 8 ? "integer"
                                         : i == 0 || i == 7 || i == 9 ? "boolean" : "string"));
    for (uint32_t i = 0; i < ARRAY_LEN(writes) && write; i++)
        val_push(m->a, params, parameter(m, writes[i], "query", "string"));
    if (streq(action, "patch"))
        val_push(m->a, params, parameter(m, "force", "query", "boolean"));
    if (streq(action, "delete")) {
        val_push(m->a, params, parameter(m, "dryRun", "query", "string"));
        val_push(m->a, params, parameter(m, "gracePeriodSeconds", "query", "integer"));
        val_push(m->a, params, parameter(m, "propagationPolicy", "query", "string"));
    }
    const char *sent = streq(action, "patch") ? full_name(m->a, "meta.v1.Patch") : def;
    if (write && m->v3)
        val_put(m->a, op, "requestBody", body(m, sent));
    else if (write)
        val_push(m->a, params, body(m, sent));
    text(m, op, "operationId", arena_printf(m->a, "%s-%s-%s-%u", action, r->api_version, r->plural,
                                            val_len(path)));
    val_put(m->a, op, "parameters", params);
    for (uint32_t i = 0; i < ARRAY_LEN(media) && !m->v3; i++)
        val_push_str(m->a, produces, media[i]);
    if (!m->v3)
        val_put(m->a, op, "produces", produces);
    val_put(m->a, op, "responses", responses(m, def));
    text(m, op, "x-kubernetes-action", action);
    val_put(m->a, op, "x-kubernetes-group-version-kind", kind);
    val_put(m->a, path, method, op);
}

static struct val *new_path(struct maker *m, struct val *paths, const char *name)
{
    struct val *p = val_map(m->a), *params = val_list(m->a);

    if (strstr(name, "{name}"))
        val_push(m->a, params, parameter(m, "name", "path", "string"));
    if (strstr(name, "{namespace}"))
        val_push(m->a, params, parameter(m, "namespace", "path", "string"));
    if (strstr(name, "{path}"))
        val_push(m->a, params, parameter(m, "path", "path", "string"));
    val_push(m->a, params, parameter(m, "pretty", "query", "string"));
    val_put(m->a, p, "parameters", params);
    return val_put(m->a, paths, name, p);
}

static void sub_paths(struct maker *m, struct val *paths, const struct resource *r,
                      const char *item, const char *def)
{
    static const struct {
        uint32_t verb;
        const char *method, *action;
    } verbs[] = {{VERB_GET, "get", "get"}, {VERB_UPDATE, "put", "put"}, {VERB_PATCH, "patch", "patch"},
                 {VERB_CREATE, "post", "post"}, {VERB_DELETE, "delete", "delete"}};

    for (uint32_t i = 0; i < r->subs_n; i++) {
        const struct subresource *sub = &r->subs[i];
        const char *sub_def = sub->type && sub->type->name && !r->custom ? full_name(m->a, sub->type->name)
                              : streq(sub->name, "scale") ? full_name(m->a, "autoscaling.v1.Scale") : def;
        struct val *kind = gvk(m, sub->group, sub->version, sub->kind);
        bool proxy = streq(sub->name, "proxy");
        for (int tail = 0; tail <= proxy; tail++) {
            struct val *p = new_path(m, paths, arena_printf(m->a, "%s/%s%s", item, sub->name,
                                                            tail ? "/{path}" : ""));
            for (uint32_t k = 0; k < ARRAY_LEN(verbs); k++)
                if (sub->verbs & verbs[k].verb)
                    operation(m, p, verbs[k].method, verbs[k].action, r, sub_def, kind);
            if (proxy) {
                operation(m, p, "head", "connect", r, sub_def, kind);
                operation(m, p, "options", "connect", r, sub_def, kind);
            }
        }
    }
}

static void resource_paths(struct maker *m, struct val *paths, const struct resource *r)
{
    const char *base = arena_printf(m->a, *r->group ? "/apis/%s" : "/api/%s", r->api_version);
    const char *in = r->namespaced ? "/namespaces/{namespace}" : "", *def = resource_def(m, r);
    const char *list_def = arena_printf(m->a, "%sList", def);
    const char *status = full_name(m->a, "meta.v1.Status"), *event = full_name(m->a, "meta.v1.WatchEvent");
    struct val *kind = gvk(m, r->group, r->version, r->kind), *p;
    const char *coll = arena_printf(m->a, "%s%s/%s", base, in, r->plural);
    const char *item = arena_printf(m->a, "%s/{name}", coll);
    bool whole = r->namespaced && (r->verbs & VERB_LIST);

    p = new_path(m, paths, coll);
    if (r->verbs & VERB_LIST)
        operation(m, p, "get", "list", r, list_def, kind);
    if (r->verbs & VERB_CREATE)
        operation(m, p, "post", "post", r, def, kind);
    if (r->verbs & VERB_DELETECOLLECTION)
        operation(m, p, "delete", "deletecollection", r, status, kind);
    if (r->verbs & VERB_GET) {
        p = new_path(m, paths, item);
        operation(m, p, "get", "get", r, def, kind);
        if (r->verbs & VERB_UPDATE)
            operation(m, p, "put", "put", r, def, kind);
        if (r->verbs & VERB_PATCH)
            operation(m, p, "patch", "patch", r, def, kind);
        if (r->verbs & VERB_DELETE)
            operation(m, p, "delete", "delete", r, status, kind);
    }
    sub_paths(m, paths, r, item, def);
    if (whole) {
        p = new_path(m, paths, arena_printf(m->a, "%s/%s", base, r->plural));
        operation(m, p, "get", "list", r, list_def, kind);
    }
    if (!(r->verbs & VERB_WATCH) || r->custom)
        return;
    p = new_path(m, paths, arena_printf(m->a, "%s/watch%s/%s", base, in, r->plural));
    operation(m, p, "get", "watchlist", r, event, kind);
    p = new_path(m, paths, arena_printf(m->a, "%s/watch%s/%s/{name}", base, in, r->plural));
    operation(m, p, "get", "watch", r, event, kind);
    if (whole) {
        p = new_path(m, paths, arena_printf(m->a, "%s/watch/%s", base, r->plural));
        operation(m, p, "get", "watchlist", r, event, kind);
    }
}

/* A path that is no resource: discovery and the like. type: of its answer, NULL: text. */
static void plain_path(struct maker *m, struct val *paths, const char *name, const char *type)
{
    struct val *p = val_map(m->a), *op = val_map(m->a), *r = val_map(m->a);
    const struct type *t = type ? schema_type(m->s, type) : NULL;

    if (t)
        define(m, t);
    else
        val_put(m->a, r, "200", text(m, val_map(m->a), "description", "OK"));
    val_put(m->a, op, "responses", t ? responses(m, full_name(m->a, type)) : r);
    text(m, op, "operationId", arena_printf(m->a, "get-%s", name));
    val_put(m->a, p, "get", op);
    val_put(m->a, paths, name, p);
}

static const struct {
    const char *path, *type; /* of its answer */
} plain_paths[] = {{".well-known/openid-configuration", NULL}, {"api", "meta.v1.APIVersions"},
                   {"apis", "meta.v1.APIGroupList"}, {"openid/v1/jwks", NULL}, {"version", "version.Info"}};

static struct val *info(struct maker *m)
{
    struct val *v = text(m, val_map(m->a), "title", "Kubernetes");

    return text(m, v, "version", "v1.36.3");
}

static struct val *bearer(struct maker *m)
{
    struct val *v = text(m, val_map(m->a), "type", "apiKey"), *all = val_map(m->a);

    text(m, v, "name", "authorization");
    text(m, v, "in", "header");
    val_put(m->a, all, "BearerToken", v);
    return all;
}

/* ---- documents ---- */

static int member_cmp(const void *x, const void *y)
{
    return strcmp(((const struct val_member *)x)->key, ((const struct val_member *)y)->key);
}

static void sorted(struct val *map)
{
    if (map->n)
        qsort(map->members, map->n, sizeof(*map->members), member_cmp);
}

struct doc publish_openapi_v2(struct schema *s)
{
    struct doc d;

    if (publish_kept(s, "openapi v2", &d))
        return d;
    struct arena *a = arena_new();
    struct maker m = {.s = s, .a = a, .defs = val_map(a)};
    struct val *v = val_map(a), *paths = val_map(a);
    for (uint32_t i = 0; i < s->resources_n; i++) {
        const struct resource *r = s->resources[i];
        define_resource(&m, r);
        resource_paths(&m, paths, r);
        plain_path(&m, paths, arena_printf(a, *r->group ? "/apis/%s/" : "/api/%s/", r->api_version),
                   "meta.v1.APIResourceList");
        if (*r->group)
            plain_path(&m, paths, arena_printf(a, "/apis/%s/", r->group), "meta.v1.APIGroup");
    }
    for (uint32_t i = 0; i < ARRAY_LEN(plain_paths); i++)
        plain_path(&m, paths, arena_printf(a, "/%s/", plain_paths[i].path), plain_paths[i].type);
    sorted(m.defs);
    sorted(paths);
    text(&m, v, "swagger", "2.0");
    val_put(a, v, "info", info(&m));
    val_put(a, v, "paths", paths);
    val_put(a, v, "definitions", m.defs);
    val_put(a, v, "securityDefinitions", bearer(&m));
    d = publish_keep(s, "openapi v2", v);
    arena_free(a);
    return d;
}

static struct doc finish_v3(struct schema *s, struct maker *m, const char *key, struct val *paths,
                            bool custom)
{
    struct val *v = val_map(m->a), *components = val_map(m->a);

    sorted(m->defs);
    sorted(paths);
    text(m, v, "openapi", "3.0.0");
    val_put(m->a, v, "info", info(m));
    val_put(m->a, v, "paths", paths);
    if (m->defs->n)
        val_put(m->a, components, "schemas", m->defs);
    if (!custom)
        val_put(m->a, components, "securitySchemes", bearer(m));
    val_put(m->a, v, "components", components);
    return publish_keep(s, key, v);
}

struct doc publish_openapi_v3(struct schema *s, const char *path)
{
    const char *answer = "meta.v1.APIGroup";
    char key[400];
    struct doc d = {0};

    snprintf(key, sizeof(key), "openapi v3 %.300s", path);
    if (publish_kept(s, key, &d))
        return d;
    const char *gv = str_starts(path, "apis/") ? path + 5 : str_starts(path, "api/") ? path + 4 : NULL;
    bool core = str_starts(path, "api/"), known = false, custom = false;
    for (uint32_t i = 0; i < ARRAY_LEN(plain_paths); i++)
        if (streq(path, plain_paths[i].path)) {
            known = true;
            answer = plain_paths[i].type;
        }
    if (gv && !core && !strchr(gv, '/') && *gv)
        known |= schema_has_group(s, gv); /* "apis/apps" */
    struct arena *a = arena_new();
    struct maker m = {.s = s, .a = a, .v3 = true, .defs = val_map(a)};
    struct val *paths = val_map(a);
    if (known)
        plain_path(&m, paths, arena_printf(a, "/%s/", path), answer);
    for (uint32_t i = 0; i < s->resources_n && gv && !known; i++) {
        const struct resource *r = s->resources[i];
        if (!streq(r->api_version, gv) || core != !*r->group)
            continue;
        define_resource(&m, r);
        resource_paths(&m, paths, r);
        custom = r->custom;
    }
    if (!known && paths->n)
        plain_path(&m, paths, arena_printf(a, "/%s/", path), "meta.v1.APIResourceList");
    if (paths->n)
        d = finish_v3(s, &m, key, paths, custom);
    arena_free(a);
    return d;
}

/* The hash in an address names the content, so that clients may keep it: here of the kinds that
 * are in the document, which costs nothing to know (the document itself is made when asked for). */
/* What a document is made of, as one word of 128 hexadecimal digits: it changes when the document
 * does, without the document being made. Custom resources go in with their schema and
 * sub-resources, built-in ones with the text that describes them all. */
const char *publish_openapi_v3_hash(struct schema *s, struct arena *a, const char *path)
{
    enum { FORM = 2 }; /* goes up when this file writes the same types in another way */
    unsigned char sum[SHA512_DIGEST_LENGTH];
    struct buf b = {0};
    char *out = arena_raw(a, sizeof sum * 2 + 1);
    const char *slash = strchr(path, '/');

    buf_printf(&b, "%d %s %08x", FORM, path, schema_text_hash());
    for (uint32_t i = 0; i < s->resources_n; i++) {
        const struct resource *r = s->resources[i];

        if (!r->custom || !streq(slash ? slash + 1 : "", r->api_version))
            continue;
        buf_printf(&b, "|%s %s %x", r->plural, r->kind, r->verbs);
        for (uint32_t k = 0; k < r->subs_n; k++)
            buf_printf(&b, " %s", r->subs[k].name);
        buf_add(&b, r->priv->schema_sum, sizeof(r->priv->schema_sum));
    }
    SHA512((const unsigned char *)b.p, b.n, sum);
    for (size_t i = 0; i < sizeof sum; i++)
        snprintf(out + i * 2, 3, "%02X", sum[i]);
    buf_done(&b);
    return out;
}

static const char *address(struct maker *m, const char *path)
{
    return arena_printf(m->a, "/openapi/v3/%s?hash=%s", path, publish_openapi_v3_hash(m->s, m->a, path));
}

static void index_add(struct maker *m, struct val *paths, const char *path)
{
    if (!val_get(paths, path))
        val_put(m->a, paths, path, text(m, val_map(m->a), "serverRelativeURL", address(m, path)));
}

struct doc publish_openapi_v3_index(struct schema *s)
{
    struct doc d;

    if (publish_kept(s, "openapi v3 index", &d))
        return d;
    struct arena *a = arena_new();
    struct maker m = {.s = s, .a = a, .v3 = true};
    struct val *v = val_map(a), *paths = val_map(a);
    for (uint32_t i = 0; i < ARRAY_LEN(plain_paths); i++)
        index_add(&m, paths, plain_paths[i].path);
    for (uint32_t i = 0; i < s->resources_n; i++) {
        const struct resource *r = s->resources[i];
        index_add(&m, paths, arena_printf(a, *r->group ? "apis/%s" : "api/%s", r->api_version));
        if (*r->group)
            index_add(&m, paths, arena_printf(a, "apis/%s", r->group));
    }
    sorted(paths);
    val_put(a, v, "paths", paths);
    d = publish_keep(s, "openapi v3 index", v);
    arena_free(a);
    return d;
}
