/* schema/crd_check.c - is a CustomResourceDefinition fit to be served?
 *
 * Causes are told as upstream does: what all versions share (with one version: everything) is
 * named at the top of spec ("spec.validation.openAPIV3Schema...", "spec.additionalPrinterColumns"),
 * else below spec.versions[N]. Rules in CEL are compiled in crd_rules.c. */
#include "schema/rules_int.h"


#include "schema/crd_int.h"
#include "codec/regex.h"

#include <string.h>

enum { DEPTH_MAX = 100 };

static bool same(const struct val *x, const struct val *y)
{
    return (!x && !y) || (x && y && val_equal(x, y));
}

/* The part of a version that all have alike, or NULL. */
static bool shared(const struct val *versions, const char *key)
{
    for (uint32_t i = 1; i < val_items_n_(versions); i++)
        if (!same(val_get(&versions->items[0], key), val_get(&versions->items[i], key)))
            return false;
    return true;
}

/* ---- the schema: what OpenAPI allows ---- */

enum level { ROOT, FIELD_OF, ITEM_OF };

static bool known_type(const char *s)
{
    static const char *const known[] = {"object", "array", "string", "integer", "number", "boolean"};

    for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
        if (streq(known[i], s))
            return true;
    return false;
}

static bool given(const struct val *v)
{
    return v && v->type != VAL_NULL && !(v->type == VAL_STR && !v->n) && !(v->type == VAL_BOOL && !v->b) &&
           !((v->type == VAL_MAP || v->type == VAL_LIST) && !v->n);
}

static void forbidden_words(struct check *c, const struct val *js)
{
    static const char *const never[] = {"$ref", "definitions", "dependencies", "id", "patternProperties",
                                        "additionalItems"};

    for (uint32_t i = 0; i < ARRAY_LEN(never); i++)
        if (given(val_get(js, never[i])))
            check_fail(c, CAUSE_FORBIDDEN, never[i], NULL, "%s is not supported", never[i]);
    if (val_bool_at(js, "uniqueItems", false))
        check_fail(c, CAUSE_FORBIDDEN, "uniqueItems", NULL,
                   "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    if (val_is(val_get(js, "items"), VAL_LIST))
        check_fail(c, CAUSE_FORBIDDEN, "items", NULL, "items must be a schema object and not an array");
}

static bool listed(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

/* Keys of a list's items are there in every item: required, or with a default. */
static void map_keys(struct check *c, const struct val *js, const struct val *items)
{
    const struct val *keys = val_get(js, "x-kubernetes-list-map-keys"), *props = val_get(items, "properties");
    const char *rel = "x-kubernetes-list-map-keys";

    for (uint32_t i = 0; i < val_items_n_(keys); i++) {
        const char *k = val_text(&keys->items[i], ""), *type;
        const struct val *p = val_get(props, k);
        bool again = false;
        for (uint32_t j = 0; j < i; j++)
            again |= streq(k, val_text(&keys->items[j], ""));
        if (again)
            check_fail(c, CAUSE_INVALID, rel, keys, "must not contain duplicate entries");
        if (!p) {
            check_fail(c, CAUSE_INVALID, rel, keys, "entries must all be names of item properties");
            continue;
        }
        type = val_str_at(p, "type", "");
        if (streq(type, "array") || streq(type, "object"))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "items.properties[%s].type", k), val_get(p, "type"),
                       "must be a scalar type if parent array's x-kubernetes-list-type is map");
        if (!val_get(p, "default") && !listed(val_get(items, "required"), k))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "items.properties[%s].default", k), NULL,
                       "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
        if (val_bool_at(p, "nullable", false))
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "items.properties[%s].nullable", k), NULL,
                       "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
    }
}

static void list_rules(struct check *c, const struct val *js)
{
    const struct val *given_kind = val_get(js, "x-kubernetes-list-type"), *items = val_get(js, "items");
    const struct val *keys = val_get(js, "x-kubernetes-list-map-keys");
    const char *kind = val_text(given_kind, ""), *type = val_str_at(js, "type", "");

    if (given_kind && !streq(type, "array"))
        check_fail(c, *type ? CAUSE_INVALID : CAUSE_REQUIRED, "type", val_get(js, "type"),
                   "must be array if x-kubernetes-list-type is specified");
    else if (streq(kind, "set") && val_is(items, VAL_MAP)) {
        const char *of = val_str_at(items, "type", "");
        if (streq(of, "array") && val_get(items, "x-kubernetes-list-type") &&
            !streq(val_str_at(items, "x-kubernetes-list-type", ""), "atomic"))
            check_fail(c, CAUSE_INVALID, "items.x-kubernetes-list-type", val_get(items, "x-kubernetes-list-type"),
                       "must be atomic as item of a list with x-kubernetes-list-type=set");
        if (streq(of, "object") && !streq(val_str_at(items, "x-kubernetes-map-type", ""), "atomic"))
            check_fail(c, CAUSE_INVALID, "items.x-kubernetes-map-type", val_get(items, "x-kubernetes-map-type"),
                       "must be atomic as item of a list with x-kubernetes-list-type=set");
        if (val_bool_at(items, "nullable", false))
            check_fail(c, CAUSE_FORBIDDEN, "items.nullable", NULL, "cannot be nullable when x-kubernetes-list-type is set");
    }
    if (given_kind && !streq(kind, "map") && !streq(kind, "set") && !streq(kind, "atomic"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "x-kubernetes-list-type", given_kind,
                   "supported values: \"atomic\", \"map\", \"set\"");
    if (val_len(keys) && !streq(kind, "map"))
        check_fail(c, given_kind ? CAUSE_INVALID : CAUSE_REQUIRED, "x-kubernetes-list-type", given_kind,
                   "must be map if x-kubernetes-list-map-keys is non-empty");
    if (!streq(kind, "map"))
        return;
    if (!val_len(keys))
        check_fail(c, CAUSE_REQUIRED, "x-kubernetes-list-map-keys", NULL, "must not be empty if "
                   "x-kubernetes-list-type is map");
    if (val_is_null(items))
        check_fail(c, CAUSE_REQUIRED, "items", NULL, "must have a schema if x-kubernetes-list-type is map");
    else if (!val_is(items, VAL_MAP))
        check_fail(c, CAUSE_INVALID, "items", items, "must only have a single schema if x-kubernetes-list-type is map");
    else if (!streq(val_str_at(items, "type", ""), "object"))
        check_fail(c, CAUSE_INVALID, "items.type", val_get(items, "type"),
                   "must be object if parent array's x-kubernetes-list-type is map");
    else
        map_keys(c, js, items);
    if (val_bool_at(items, "nullable", false))
        check_fail(c, CAUSE_FORBIDDEN, "items.nullable", NULL, "cannot be nullable when x-kubernetes-list-type is map");
}

static void map_rules(struct check *c, const struct val *js)
{
    const struct val *kind = val_get(js, "x-kubernetes-map-type"), *more = val_get(js, "additionalProperties");
    const struct val *keep = val_get(js, "x-kubernetes-preserve-unknown-fields");
    const char *type = val_str_at(js, "type", "");

    if (kind && !streq(type, "object"))
        check_fail(c, *type ? CAUSE_INVALID : CAUSE_REQUIRED, "type", val_get(js, "type"),
                   "must be object if x-kubernetes-map-type is specified");
    if (kind && !streq(val_text(kind, ""), "atomic") && !streq(val_text(kind, ""), "granular"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "x-kubernetes-map-type", kind, "supported values: \"atomic\", \"granular\"");
    if (val_len(val_get(js, "properties")) && more && !val_is_null(more) && !(more->type == VAL_BOOL && more->b))
        check_fail(c, CAUSE_FORBIDDEN, "additionalProperties", NULL,
                   "additionalProperties and properties are mutual exclusive");
    if (val_is(keep, VAL_BOOL) && !keep->b)
        check_fail(c, CAUSE_INVALID, "x-kubernetes-preserve-unknown-fields", keep, "must be true or undefined");
}

static bool blank(const char *s)
{
    return !s[strspn(s, " \t\r\n")];
}

static void rule_texts(struct check *c, const struct val *js)
{
    static const char *const reasons[] = {"FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid",
                                          "FieldValueDuplicate"};
    const struct val *rules = val_get(js, "x-kubernetes-validations");

    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *r = &rules->items[i], *reason = val_get(r, "reason"), *path = val_get(r, "fieldPath");
        const char *at = arena_printf(c->a, "x-kubernetes-validations[%u]", i), *rule = val_str_at(r, "rule", "");
        const char *msg = val_str_at(r, "message", ""), *expr = val_str_at(r, "messageExpression", "");
        bool known = !reason;
        if (blank(rule))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.rule", at), NULL, "rule is not specified");
        else if (*msg && blank(msg))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.message", at), val_get(r, "message"), "must be non-empty if specified");
        else if (strpbrk(msg + strspn(msg, " \t\r\n"), "\r\n"))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.message", at), val_get(r, "message"), "must not contain line breaks");
        else if (strpbrk(rule + strspn(rule, " \t\r\n"), "\r\n") && blank(msg))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.message", at), NULL,
                       "message must be specified if rule contains line breaks");
        if (*expr && blank(expr))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.messageExpression", at), NULL,
                       "messageExpression must be non-empty if specified");
        for (uint32_t k = 0; k < ARRAY_LEN(reasons); k++)
            known |= streq(val_text(reason, ""), reasons[k]);
        if (!known)
            check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.reason", at), reason, "supported values: as documented");
        if (val_is(path, VAL_STR) && path->n && (strpbrk(path->s, "\r\n") || !crd_path_schema(js, path->s, true)))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.fieldPath", at), path, "must be a valid path");
    }
}

/* Steps over everything below a schema that is a schema itself; nested: within allOf, not, ... */
static void open_api(struct check *c, const struct val *js, int depth)
{
    static const char *const lists[] = {"allOf", "anyOf", "oneOf"}, *const single[] = {"not", "items", "additionalProperties"};
    const char *type = val_str_at(js, "type", "");

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return;
    if (streq(type, "null"))
        check_fail(c, CAUSE_FORBIDDEN, "type", NULL, "type cannot be set to null, use nullable as an alternative");
    if (*type && !known_type(type))
        check_fail(c, CAUSE_NOT_SUPPORTED, "type", val_get(js, "type"),
                   "supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"");
    forbidden_words(c, js);
    list_rules(c, js);
    map_rules(c, js);
    rule_texts(c, js);
    VAL_EACH_MEMBER(val_get(js, "properties"), m) {
        uint32_t mark = check_push(c, ".properties[%s]", m->key);
        open_api(c, &m->v, depth + 1);
        check_pop(c, mark);
    }
    for (uint32_t i = 0; i < ARRAY_LEN(single); i++) {
        uint32_t mark = check_push(c, ".%s", single[i]);
        open_api(c, val_get(js, single[i]), depth + 1);
        check_pop(c, mark);
    }
    for (uint32_t i = 0; i < ARRAY_LEN(lists); i++) {
        const struct val *list = val_get(js, lists[i]);
        for (uint32_t k = 0; k < val_items_n_(list); k++) {
            uint32_t mark = check_push(c, ".%s[%u]", lists[i], k);
            open_api(c, &list->items[k], depth + 1);
            check_pop(c, mark);
        }
    }
}

/* ---- the schema: structural ---- */

static void nested(struct check *c, const struct val *js, bool skip_any, int depth);

static bool int_or_string(const struct val *any)
{
    return val_len(any) == 2 && val_len(&any->items[0]) == 1 && val_len(&any->items[1]) == 1 &&
           streq(val_str_at(&any->items[0], "type", ""), "integer") &&
           streq(val_str_at(&any->items[1], "type", ""), "string");
}

static void value_rules(struct check *c, const struct val *js, bool skip_any, int depth)
{
    static const char *const lists[] = {"anyOf", "allOf", "oneOf"};
    const struct val *pattern = val_get(js, "pattern");

    for (uint32_t l = 0; l < ARRAY_LEN(lists); l++) {
        const struct val *list = val_get(js, lists[l]);
        if (l == 0 && (skip_any || int_or_string(list)))
            continue;
        for (uint32_t i = 0; i < val_items_n_(list); i++) {
            uint32_t mark = check_push(c, ".%s[%u]", lists[l], i);
            nested(c, &list->items[i], l == 1 && i == 0 && int_or_string(val_get(&list->items[i], "anyOf")), depth + 1);
            check_pop(c, mark);
        }
    }
    uint32_t mark = check_push(c, ".not");
    nested(c, val_get(js, "not"), false, depth + 1);
    check_pop(c, mark);
    if (pattern && pattern->n) {
        struct err why;
        _auto_(regex_freep) struct regex *re = regex_new(pattern->s, pattern->n, &why);
        if (!re)
            check_fail(c, CAUSE_INVALID, "pattern", pattern, "must be a valid regular expression, but isn't: %s", why.msg);
    }
}

/* Within allOf, anyOf, oneOf and not only values may be judged, nothing said of the structure. */
static void nested(struct check *c, const struct val *js, bool skip_any, int depth)
{
    static const char *const never[] = {"type", "default", "title", "description", "nullable", "additionalProperties",
                                        "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource",
                                        "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys",
                                        "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-validations"};
    const struct val *items = val_get(js, "items");

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return;
    value_rules(c, js, skip_any, depth);
    for (uint32_t i = 0; i < ARRAY_LEN(never); i++)
        if (given(val_get(js, never[i])))
            check_fail(c, CAUSE_FORBIDDEN, never[i], NULL, "must be empty to be structural");
    if (val_is(items, VAL_MAP)) {
        uint32_t mark = check_push(c, ".items");
        nested(c, items, false, depth + 1);
        check_pop(c, mark);
    }
    VAL_EACH_MEMBER(val_get(js, "properties"), m) {
        uint32_t mark = check_push(c, ".properties[%s]", m->key);
        if (streq(m->key, "metadata"))
            check_fail(c, CAUSE_FORBIDDEN, "", NULL, "must not be specified in a nested context");
        nested(c, &m->v, false, depth + 1);
        check_pop(c, mark);
    }
}

static void metadata_schema(struct check *c, const struct val *m, bool whole, enum level level)
{
    if (whole && !streq(val_str_at(m, "type", ""), "object"))
        check_fail(c, CAUSE_INVALID, "type", val_get(m, "type"), "must be object");
    if (level != ROOT)
        return;
    bool other = false;
    VAL_EACH_MEMBER(val_get(m, "properties"), p)
        other |= !streq(p->key, "name") && !streq(p->key, "generateName");
    VAL_EACH_MEMBER(m, p)
        other |= !streq(p->key, "type") && !streq(p->key, "properties") && !streq(p->key, "default") && given(&p->v);
    if (other)
        check_fail(c, CAUSE_FORBIDDEN, "", NULL, "must not specify anything other than name and generateName, but "
                   "metadata is implicitly specified");
}

static void structural(struct check *c, const struct val *js, enum level level, int depth)
{
    static const char *const words[] = {"kind", "apiVersion"};
    const char *type = val_str_at(js, "type", "");
    bool ios = val_bool_at(js, "x-kubernetes-int-or-string", false);
    bool keep = val_bool_at(js, "x-kubernetes-preserve-unknown-fields", false);
    bool embedded = val_bool_at(js, "x-kubernetes-embedded-resource", false);
    const struct val *props = val_get(js, "properties"), *more = val_get(js, "additionalProperties"), *items = val_get(js, "items");

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return;
    if (streq(type, "array") && val_is_null(items))
        check_fail(c, CAUSE_REQUIRED, "items", NULL, "must be specified");
    if (level == ROOT && !val_is_null(more))
        check_fail(c, CAUSE_FORBIDDEN, "additionalProperties", NULL, "must not be used at the root");
    if (ios && keep)
        check_fail(c, CAUSE_INVALID, "x-kubernetes-preserve-unknown-fields", val_get(js, "x-kubernetes-preserve-unknown-fields"),
                   "must be false if x-kubernetes-int-or-string is true");
    if (ios && embedded)
        check_fail(c, CAUSE_INVALID, "x-kubernetes-embedded-resource", val_get(js, "x-kubernetes-embedded-resource"),
                   "must be false if x-kubernetes-int-or-string is true");
    value_rules(c, js, false, depth);
    if (embedded && !streq(type, "object"))
        check_fail(c, *type ? CAUSE_INVALID : CAUSE_REQUIRED, "type", val_get(js, "type"),
                   "must be object if x-kubernetes-embedded-resource is true");
    else if (!*type && !ios && !keep)
        check_fail(c, CAUSE_REQUIRED, "type", NULL, level == ROOT ? "must not be empty at the root"
                                                                  : "must not be empty for what is specified");
    if (embedded && !val_is_null(more))
        check_fail(c, CAUSE_FORBIDDEN, "additionalProperties", NULL, "must not be used if x-kubernetes-embedded-resource is set");
    if (level == ROOT && *type && !streq(type, "object"))
        check_fail(c, CAUSE_INVALID, "type", val_get(js, "type"), "must be object at the root");
    for (uint32_t i = 0; i < ARRAY_LEN(words) && (level == ROOT || embedded); i++)
        if (val_get(props, words[i]) && !streq(val_str_at(val_get(props, words[i]), "type", ""), "string"))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "properties[%s].type", words[i]),
                       val_get(val_get(props, words[i]), "type"), "must be string");
    if (embedded && !keep && !val_len(props))
        check_fail(c, CAUSE_REQUIRED, "properties", NULL, "must not be empty if x-kubernetes-embedded-resource is true "
                   "without x-kubernetes-preserve-unknown-fields");
    VAL_EACH_MEMBER(props, m) {
        uint32_t mark = check_push(c, ".properties[%s]", m->key);
        if (streq(m->key, "metadata"))
            metadata_schema(c, &m->v, level == ROOT || embedded, level);
        if (!(level == ROOT && streq(m->key, "metadata")))
            structural(c, &m->v, FIELD_OF, depth + 1);
        check_pop(c, mark);
    }
    uint32_t mark = check_push(c, ".items");
    structural(c, items, ITEM_OF, depth + 1);
    check_pop(c, mark);
    mark = check_push(c, ".additionalProperties");
    structural(c, more, FIELD_OF, depth + 1);
    check_pop(c, mark);
}

/* Defaults fit what they stand in for. Only judged when the rest is right. */
static void defaults_fit(struct check *c, const struct val *js, int depth)
{
    static const char *const inner[] = {"items", "additionalProperties"};
    const struct val *def = val_get(js, "default");

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return;
    if (def && def->type != VAL_NULL) {
        uint32_t mark = check_push(c, ".default");
        crd_check_value(c, js, def);
        check_pop(c, mark);
    }
    VAL_EACH_MEMBER(val_get(js, "properties"), m) {
        uint32_t mark = check_push(c, ".properties[%s]", m->key);
        defaults_fit(c, &m->v, depth + 1);
        check_pop(c, mark);
    }
    for (uint32_t i = 0; i < ARRAY_LEN(inner); i++) {
        uint32_t mark = check_push(c, ".%s", inner[i]);
        defaults_fit(c, val_get(js, inner[i]), depth + 1);
        check_pop(c, mark);
    }
}

static void whole_schema(struct check *c, const struct val *js)
{
    uint32_t before = c->causes->n;

    if (val_bool_at(js, "nullable", false))
        check_fail(c, CAUSE_FORBIDDEN, "nullable", NULL, "nullable cannot be true at the root");
    open_api(c, js, 0);
    uint32_t shape = c->causes->n;
    structural(c, js, ROOT, 0);
    if (c->causes->n == before) /* types are made of what is right */
        crd_rules_check(c, js);
    else if (c->causes->n != shape)
        return;
    defaults_fit(c, js, 0);
}

/* ---- the versions ---- */

static void printer_columns(struct check *c, const char *at, const struct val *list)
{
    static const char *const types[] = {"string", "integer", "number", "boolean", "date"};
    static const char *const formats[] = {"int32", "int64", "float", "double", "byte", "date", "date-time", "password"};

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *col = &list->items[i];
        const char *path = val_str_at(col, "jsonPath", ""), *type = val_str_at(col, "type", "");
        bool known = false;
        for (uint32_t k = 0; k < ARRAY_LEN(types); k++)
            known |= streq(types[k], type);
        if (!*val_str_at(col, "name", ""))
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s[%u].name", at, i), NULL, "%s", "");
        if (!known)
            check_fail(c, *type ? CAUSE_INVALID : CAUSE_REQUIRED, arena_printf(c->a, "%s[%u].type", at, i),
                       val_get(col, "type"), "must be one of boolean,date,integer,number,string");
        const struct val *format = val_get(col, "format");
        bool fits = !val_is(format, VAL_STR) || !format->n;
        for (uint32_t k = 0; k < ARRAY_LEN(formats) && !fits; k++)
            fits = streq(format->s, formats[k]);
        if (!fits)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].format", at, i), format, "must be one of byte,date,"
                       "date-time,double,float,int32,int64,password");
        if (!*path)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s[%u].JSONPath", at, i), NULL, "%s", "");
        else if (*path != '.')
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s[%u].JSONPath", at, i), val_get(col, "jsonPath"),
                       "does not start with .");
    }
}

static void scale(struct check *c, const char *at, const struct val *subs)
{
    static const struct {
        const char *name, *root;
        bool need;
    } paths[] = {{"specReplicasPath", ".spec.", true}, {"statusReplicasPath", ".status.", true},
                 {"labelSelectorPath", ".status.", false}};
    const struct val *s = val_get(subs, "scale");

    for (uint32_t i = 0; i < ARRAY_LEN(paths) && val_is(s, VAL_MAP); i++) {
        const char *p = val_str_at(s, paths[i].name, "");
        const char *rel = arena_printf(c->a, "%s.scale.%s", at, paths[i].name);
        bool fits = str_starts(p, paths[i].root) || (i == 2 && str_starts(p, ".spec."));
        if (!*p && paths[i].need)
            check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
        else if (*p && !fits)
            check_fail(c, CAUSE_INVALID, rel, val_get(s, paths[i].name), "should be a json path under %s",
                       paths[i].root);
    }
}

static void deprecation(struct check *c, const char *at, const struct val *v)
{
    const struct val *w = val_get(v, "deprecationWarning");
    const char *rel = arena_printf(c->a, "%s.deprecationWarning", at);

    if (!val_is(w, VAL_STR))
        return;
    if (!val_bool_at(v, "deprecated", false)) {
        check_fail(c, CAUSE_INVALID, rel, w, "can only be set for deprecated versions");
        return;
    }
    if (w->n > 256)
        check_fail(c, CAUSE_INVALID, rel, w, "must be <= 256 characters long");
    if (!w->n)
        check_fail(c, CAUSE_INVALID, rel, w, "must not be an empty string");
    for (uint32_t i = 0; i < w->n; i++)
        if ((unsigned char)w->s[i] < 0x20 || w->s[i] == 0x7f) {
            check_fail(c, CAUSE_INVALID, rel, w, "must only contain printable UTF-8 characters");
            break;
        }
}

static void selectable(struct check *c, const char *at, const struct val *v, const struct val *js)
{
    const struct val *list = val_get(v, "selectableFields");
    struct map seen = {0};

    if (!val_len(list))
        return;
    if (!js) {
        check_fail(c, CAUSE_INVALID, at, val_str(c->a, ""), "may only be set with a schema");
        return;
    }
    for (uint32_t i = 0; i < list->n; i++) {
        const struct val *path = val_get(&list->items[i], "jsonPath");
        const char *s = val_text(path, ""), *rel = arena_printf(c->a, "%s[%u].jsonPath", at, i), *type;
        if (!*s) {
            check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
            continue;
        }
        const struct val *found = crd_path_schema(js, s, false);
        if (!found) {
            check_fail(c, CAUSE_INVALID, rel, path, "is an invalid path");
            continue;
        }
        type = val_str_at(found, "type", "");
        if (str_starts(s, ".metadata"))
            check_fail(c, CAUSE_INVALID, rel, path, "must not point to fields in metadata");
        if (!streq(type, "string") && !streq(type, "boolean") && !streq(type, "integer"))
            check_fail(c, CAUSE_INVALID, rel, path, "must point to a field of type string, boolean or integer");
        if (map_put(&seen, s, (void *)(uintptr_t)path))
            check_fail(c, CAUSE_DUPLICATE, rel, path, "%s", "");
    }
    if (list->n > 8)
        check_fail(c, CAUSE_TOO_MANY, at, NULL, "must have at most 8 items");
    map_done(&seen);
}

static void versions(struct check *c, const struct val *spec)
{
    const struct val *list = val_get(spec, "versions");
    bool one_schema = shared(list, "schema"), one_columns = shared(list, "additionalPrinterColumns"),
         one_subs = shared(list, "subresources"), one_select = shared(list, "selectableFields");
    uint32_t stored = 0;
    struct map seen = {0};
    bool unique = true;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *v = &list->items[i], *js = val_at(v, "schema.openAPIV3Schema");
        const char *at = arena_printf(c->a, "spec.versions[%u]", i), *name = val_str_at(v, "name", ""), *why;
        stored += val_bool_at(v, "storage", false);
        unique &= !map_put(&seen, *name ? name : " ", (void *)(uintptr_t)v);
        if ((why = name_dns1035_label(name))) {
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.name", at), val_get(v, "name"), "%s", why);
            if (i == 0 && *name)
                check_fail(c, CAUSE_INVALID, "spec.version", val_get(v, "name"), "%s", why);
        }
        deprecation(c, at, v);
        if (!js) {
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.schema.openAPIV3Schema", at), NULL,
                       "schemas are required");
        } else if (i == 0 || !one_schema) {
            uint32_t mark = check_push(c, "%s.openAPIV3Schema", one_schema ? "spec.validation"
                                                                : arena_printf(c->a, "%s.schema", at));
            whole_schema(c, js);
            check_pop(c, mark);
        }
        if (i == 0 || !one_select)
            selectable(c, one_select ? "spec.selectableFields" : arena_printf(c->a, "%s.selectableFields", at), v, js);
        if (i == 0 || !one_columns)
            printer_columns(c, one_columns ? "spec.additionalPrinterColumns"
                                           : arena_printf(c->a, "%s.additionalPrinterColumns", at),
                            val_get(v, "additionalPrinterColumns"));
        if (i == 0 || !one_subs)
            scale(c, one_subs ? "spec.subresources" : arena_printf(c->a, "%s.subresources", at),
                  val_get(v, "subresources"));
    }
    map_done(&seen);
    if (!unique)
        check_fail(c, CAUSE_INVALID, "spec.versions", list, "must contain unique version names");
    if (stored != 1)
        check_fail(c, CAUSE_INVALID, "spec.versions", list, "must have exactly one version marked as storage version");
}

static void label_of(struct check *c, const char *rel, const struct val *v, bool mixed)
{
    char *s = arena_strdup(c->a, val_text(v, ""));
    const char *why;

    for (char *p = s; mixed && *p; p++)
        *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
    if (*s && (why = name_dns1035_label(s)))
        check_fail(c, CAUSE_INVALID, rel, v, "%s%s", mixed ? "may have mixed case, but should otherwise match: " : "", why);
}

static void names(struct check *c, const struct val *spec)
{
    static const struct {
        const char *key;
        bool mixed;
    } words[] = {{"plural", false}, {"singular", false}, {"kind", true}, {"listKind", true}};
    const struct val *n = val_get(spec, "names"), *shorts = val_get(n, "shortNames"), *cats = val_get(n, "categories");
    const char *plural = val_str_at(n, "plural", ""), *kind = val_str_at(n, "kind", ""), *why;
    const char *group = val_str_at(spec, "group", ""), *name = val_str_at(c->root, "metadata.name", "");

    if (!*group)
        check_fail(c, CAUSE_REQUIRED, "spec.group", NULL, "%s", "");
    else if ((why = name_dns_subdomain(group)))
        check_fail(c, CAUSE_INVALID, "spec.group", val_get(spec, "group"), "%s", why);
    else if (!strchr(group, '.'))
        check_fail(c, CAUSE_INVALID, "spec.group", val_get(spec, "group"), "should be a domain with at least one dot");
    for (uint32_t i = 0; i < ARRAY_LEN(words); i++) {
        const char *rel = arena_printf(c->a, "spec.names.%s", words[i].key);
        if (!*val_str_at(n, words[i].key, ""))
            check_fail(c, CAUSE_REQUIRED, rel, NULL, "%s", "");
        label_of(c, rel, val_get(n, words[i].key), words[i].mixed);
    }
    for (uint32_t i = 0; i < val_items_n_(shorts); i++)
        if ((why = name_dns1035_label(val_text(&shorts->items[i], ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.names.shortNames[%u]", i), &shorts->items[i], "%s", why);
    for (uint32_t i = 0; i < val_items_n_(cats); i++)
        if ((why = name_dns1035_label(val_text(&cats->items[i], ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "spec.names.categories[%u]", i), &cats->items[i], "%s", why);
    if (!c->old_root && !streq(name, arena_printf(c->a, "%s.%s", plural, group)))
        check_fail(c, CAUSE_INVALID, "metadata.name", val_at(c->root, "metadata.name"), "must be spec.names.plural+\".\"+spec.group");
    if (*kind && streq(kind, val_str_at(n, "listKind", "")))
        check_fail(c, CAUSE_INVALID, "spec.names.listKind", val_get(n, "listKind"), "kind and listKind may not be the same");
}

static void conversion(struct check *c, const struct val *spec)
{
    const char *how = val_str_at(spec, "conversion.strategy", "None");

    if (streq(how, "Webhook")) {
        if (!val_at(spec, "conversion.webhook.clientConfig"))
            check_fail(c, CAUSE_REQUIRED, "spec.conversion.webhookClientConfig", NULL, "required when strategy is set to Webhook");
        if (!val_len(val_at(spec, "conversion.webhook.conversionReviewVersions")))
            check_fail(c, CAUSE_REQUIRED, "spec.conversion.conversionReviewVersions", NULL, "%s", "");
    } else if (!streq(how, "None")) {
        check_fail(c, *how ? CAUSE_NOT_SUPPORTED : CAUSE_REQUIRED, "spec.conversion.strategy", val_at(spec, "conversion.strategy"),
                   "supported values: \"None\", \"Webhook\"");
    }
}

/* The groups of Kubernetes itself want a word of who approved of it, as long as that word does not stay as it was. */
enum approval { APPROVAL_BAD, APPROVAL_GIVEN, APPROVAL_BYPASSED, APPROVAL_MISSING };

static enum approval approval(const struct val *crd, const char **ret_text)
{
    const char *s = *ret_text = val_text(val_get(val_at(crd, "metadata.annotations"), CRD_APPROVED), "");
    const char *host = strstr(s, "://");

    if (!*s)
        return APPROVAL_MISSING;
    if (str_starts(s, "unapproved"))
        return APPROVAL_BYPASSED;
    return host && host > s && host[3] && host[3] != '/' && !strpbrk(s, " \t\r\n") && strcspn(s, ":") == (size_t)(host - s)
               ? APPROVAL_GIVEN : APPROVAL_BAD;
}

bool crd_approval(struct arena *a, const struct val *crd, const char **ret_reason, const char **ret_message)
{
    const char *group = val_str_at(crd, "spec.group", ""), *text;
    size_t n = strlen(group);
    bool ours = streq(group, "k8s.io") || streq(group, "kubernetes.io") || (n > 7 && streq(group + n - 7, ".k8s.io")) ||
                (n > 14 && streq(group + n - 14, ".kubernetes.io"));

    *ret_reason = NULL;
    if (!ours)
        return true;
    switch (approval(crd, &text)) {
    case APPROVAL_MISSING:
        *ret_reason = "MissingAnnotation";
        *ret_message = "protected groups must have approval annotation \"" CRD_APPROVED "\", see "
                       "https://github.com/kubernetes/enhancements/pull/1111";
        return false;
    case APPROVAL_BAD:
        *ret_reason = "InvalidAnnotation";
        *ret_message = "protected groups must have approval annotation \"" CRD_APPROVED "\" with either a URL or a reason "
                       "starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
        return false;
    case APPROVAL_BYPASSED:
        *ret_reason = "UnapprovedAnnotation";
        *ret_message = arena_printf(a, "not approved: \"%s\"", text);
        return false;
    default:
        *ret_reason = "ApprovedAnnotation";
        *ret_message = arena_printf(a, "approved in %s", text);
        return true;
    }
}

static void approved(struct check *c, const struct val *v, const struct val *old)
{
    const char *reason, *message, *was, *ignored, *text;

    crd_approval(c->a, v, &reason, &message);
    if (!reason || streq(reason, "ApprovedAnnotation") || streq(reason, "UnapprovedAnnotation"))
        return;
    if (old && (crd_approval(c->a, old, &was, &ignored), was && streq(was, reason)))
        return;
    approval(v, &text);
    check_fail(c, *text ? CAUSE_INVALID : CAUSE_REQUIRED, "metadata.annotations[" CRD_APPROVED "]",
               *text ? val_str(c->a, text) : NULL, "%s", message);
}

static bool established(const struct val *crd)
{
    VAL_EACH(val_at(crd, "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), "Established"))
            return streq(val_str_at(c, "status", ""), "True");
    return false;
}

static void kept(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const once[] = {"spec.scope", "spec.names.kind"};
    static const char *const always[] = {"spec.group", "spec.names.plural"};

    for (uint32_t i = 0; i < ARRAY_LEN(always); i++)
        if (!same(val_at(v, always[i]), val_at(old, always[i])))
            check_fail(c, CAUSE_INVALID, always[i], val_at(v, always[i]), "field is immutable");
    for (uint32_t i = 0; i < ARRAY_LEN(once) && established(old); i++)
        if (!same(val_at(v, once[i]), val_at(old, once[i])))
            check_fail(c, CAUSE_INVALID, once[i], val_at(v, once[i]), "field is immutable");
}

HOOK(v_crd_definition)
{
    const struct val *spec = val_get(v, "spec"), *stored = val_at(v, "status.storedVersions");
    const char *scope = val_str_at(spec, "scope", "");

    if (!old && !*c->sub) { /* what would be stored is the version that is marked */
        bool marked = false;
        VAL_EACH(val_get(spec, "versions"), ver)
            marked |= val_bool_at(ver, "storage", false);
        if (!marked)
            check_fail(c, CAUSE_INVALID, "status.storedVersions", stored, "must have at least one stored version");
    }
    if (old) {
        for (uint32_t i = 0; i < val_items_n_(stored); i++) {
            bool served = false;
            VAL_EACH(val_get(spec, "versions"), ver)
                served |= streq(val_str_at(ver, "name", ""), val_text(&stored->items[i], ""));
            if (!served)
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.storedVersions[%u]", i), &stored->items[i],
                           "missing from spec.versions; %s was previously a storage version, and must remain in "
                           "spec.versions until a storage migration ensures no data remains persisted in it",
                           val_text(&stored->items[i], ""));
        }
    }
    if (*c->sub)
        return;
    if (old)
        kept(c, v, old);
    if (!streq(scope, "Cluster") && !streq(scope, "Namespaced"))
        check_fail(c, *scope ? CAUSE_NOT_SUPPORTED : CAUSE_REQUIRED, "spec.scope", val_get(spec, "scope"),
                   "supported values: \"Cluster\", \"Namespaced\"");
    for (int i = 0; i < 2 && val_bool_at(spec, "preserveUnknownFields", false); i++) /* as upstream says it */
        check_fail(c, CAUSE_INVALID, "spec.preserveUnknownFields", val_get(spec, "preserveUnknownFields"),
                   "must be false in order to use defaults in the schema");
    names(c, spec);
    versions(c, spec);
    conversion(c, spec);
    approved(c, v, old);
}
