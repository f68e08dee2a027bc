/* schema/crd_check.c - is a CustomResourceDefinition fit to be served?
 *
 * Causes are told as upstream does: what all versions share (with one version: everything) is
 * named at the top of spec ("spec.validation.openAPIV3Schema...", "spec.additionalPrinterColumns"),
 * else below spec.versions[N]. Rules in CEL are kept, not judged: nothing here runs them yet. */
#include "schema/rules_int.h"

#include <regex.h>

void crd_check_value(struct check *c, const struct val *js, const struct val *v);

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

/* ---- the schema ---- */

static bool known_type(const char *s)
{
    static const char *const known[] = {"object", "array", "string", "integer", "number", "boolean"};

    for (uint32_t i = 0; i < ARRAY_LEN(known); i++)
        if (streq(known[i], s))
            return true;
    return false;
}

static void forbidden_words(struct check *c, const struct val *js)
{
    static const char *const never[] = {"$ref", "definitions", "dependencies", "id", "patternProperties",
                                        "additionalItems"};

    for (uint32_t i = 0; i < ARRAY_LEN(never); i++) {
        const struct val *v = val_get(js, never[i]);
        if (v && !(v->type == VAL_STR && !v->n))
            check_fail(c, CAUSE_FORBIDDEN, never[i], NULL, "%s is not supported", never[i]);
    }
    if (val_bool_at(js, "uniqueItems", false))
        check_fail(c, CAUSE_FORBIDDEN, "uniqueItems", NULL,
                   "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
}

static void list_rules(struct check *c, const struct val *js)
{
    const char *kind = val_str_at(js, "x-kubernetes-list-type", "");
    const struct val *keys = val_get(js, "x-kubernetes-list-map-keys");
    const struct val *items = val_get(js, "items");

    if (streq(kind, "map")) {
        if (!val_len(keys))
            check_fail(c, CAUSE_REQUIRED, "x-kubernetes-list-map-keys", NULL, "must not be empty if "
                       "x-kubernetes-list-type is map");
        for (uint32_t i = 0; i < val_items_n_(keys); i++)
            if (!val_get(val_get(items, "properties"), val_text(&keys->items[i], "")))
                check_fail(c, CAUSE_INVALID, arena_printf(c->a, "x-kubernetes-list-map-keys[%u]", i),
                           &keys->items[i], "entries must all be names of item properties");
    } else if (val_len(keys)) {
        check_fail(c, CAUSE_FORBIDDEN, "x-kubernetes-list-map-keys", NULL,
                   "may only be set if x-kubernetes-list-type is map");
    }
    if (*kind && !streq(kind, "map") && !streq(kind, "set") && !streq(kind, "atomic"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "x-kubernetes-list-type", val_get(js, "x-kubernetes-list-type"),
                   "supported values: \"atomic\", \"map\", \"set\"");
    if (!items)
        check_fail(c, CAUSE_REQUIRED, "items", NULL, "must be specified");
}

static void schema(struct check *c, const struct val *js, bool root, int depth)
{
    const char *type = val_str_at(js, "type", "");
    bool loose = val_bool_at(js, "x-kubernetes-int-or-string", false) ||
                 val_bool_at(js, "x-kubernetes-preserve-unknown-fields", false);
    regex_t re;

    if (depth > DEPTH_MAX || !val_is(js, VAL_MAP))
        return;
    if (!*type && !loose)
        check_fail(c, CAUSE_REQUIRED, "type", NULL, root ? "must not be empty at the root"
                                                         : "must not be empty for specified object fields");
    else if (*type && !known_type(type))
        check_fail(c, CAUSE_NOT_SUPPORTED, "type", val_get(js, "type"),
                   "supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"");
    else if (root && *type && !streq(type, "object"))
        check_fail(c, CAUSE_INVALID, "type", val_get(js, "type"), "must be object at the root");
    forbidden_words(c, js);
    if (streq(type, "array"))
        list_rules(c, js);
    const struct val *pattern = val_get(js, "pattern");
    if (pattern && pattern->n) {
        if (regcomp(&re, pattern->s, REG_EXTENDED | REG_NOSUB) != 0 && !strchr(pattern->s, '\\') &&
            !strstr(pattern->s, "(?"))
            check_fail(c, CAUSE_INVALID, "pattern", pattern, "must be a valid regular expression");
        else
            regfree(&re);
    }
    const struct val *def = val_get(js, "default");
    if (def && def->type != VAL_NULL) {
        uint32_t mark = check_push(c, "%sdefault", c->path_n ? "." : "");
        crd_check_value(c, js, def);
        check_pop(c, mark);
    }
    const struct val *props = val_get(js, "properties");
    VAL_EACH_MEMBER(props, m) {
        static const char *const of_meta[] = {"name", "generateName"};
        uint32_t mark = check_push(c, ".properties[%s]", m->key);
        if (root && streq(m->key, "metadata")) {
            bool other = false;
            VAL_EACH_MEMBER(val_get(&m->v, "properties"), p)
                other |= !streq(p->key, of_meta[0]) && !streq(p->key, of_meta[1]);
            if (other)
                check_fail(c, CAUSE_FORBIDDEN, "", NULL, "must not specify anything other than name and "
                           "generateName, but metadata is implicitly specified");
        } else {
            schema(c, &m->v, false, depth + 1);
        }
        check_pop(c, mark);
    }
    static const char *const inner[] = {"items", "additionalProperties"};
    for (uint32_t i = 0; i < ARRAY_LEN(inner); i++) {
        const struct val *in = val_get(js, inner[i]);
        if (!val_is(in, VAL_MAP))
            continue;
        uint32_t mark = check_push(c, ".%s", inner[i]);
        schema(c, in, false, depth + 1);
        check_pop(c, mark);
    }
}

/* ---- the versions ---- */

static void printer_columns(struct check *c, const char *at, const struct val *list)
{
    static const char *const types[] = {"string", "integer", "number", "boolean", "date"};

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

static void versions(struct check *c, const struct val *spec)
{
    const struct val *list = val_get(spec, "versions");
    bool one_schema = shared(list, "schema"), one_columns = shared(list, "additionalPrinterColumns"),
         one_subs = shared(list, "subresources");
    uint32_t stored = 0;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *v = &list->items[i], *js = val_at(v, "schema.openAPIV3Schema");
        const char *at = arena_printf(c->a, "spec.versions[%u]", i), *name = val_str_at(v, "name", ""), *why;
        stored += val_bool_at(v, "storage", false);
        if ((why = name_dns1035_label(name))) {
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.name", at), val_get(v, "name"), "%s", why);
            if (i == 0)
                check_fail(c, CAUSE_INVALID, "spec.version", val_get(v, "name"), "%s", why);
        }
        if (!js) {
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.schema.openAPIV3Schema", at), NULL,
                       "schemas are required");
        } else if (i == 0 || !one_schema) {
            uint32_t mark = check_push(c, "%s.openAPIV3Schema", one_schema ? "spec.validation"
                                                                : arena_printf(c->a, "%s.schema", at));
            schema(c, js, true, 0);
            check_pop(c, mark);
        }
        if (i == 0 || !one_columns)
            printer_columns(c, one_columns ? "spec.additionalPrinterColumns"
                                           : arena_printf(c->a, "%s.additionalPrinterColumns", at),
                            val_get(v, "additionalPrinterColumns"));
        if (i == 0 || !one_subs)
            scale(c, one_subs ? "spec.subresources" : arena_printf(c->a, "%s.subresources", at),
                  val_get(v, "subresources"));
    }
    if (stored != 1)
        check_fail(c, CAUSE_INVALID, "spec.versions", list, "must have exactly one version marked as storage version");
}

static void names(struct check *c, const struct val *spec)
{
    const struct val *n = val_get(spec, "names");
    const char *plural = val_str_at(n, "plural", ""), *kind = val_str_at(n, "kind", ""), *why;
    const char *group = val_str_at(spec, "group", ""), *name = val_str_at(c->root, "metadata.name", "");
    char *lower = arena_strdup(c->a, kind);

    for (char *p = lower; *p; p++)
        *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
    if (!*group)
        check_fail(c, CAUSE_REQUIRED, "spec.group", NULL, "%s", "");
    else if ((why = name_dns_subdomain(group)))
        check_fail(c, CAUSE_INVALID, "spec.group", val_get(spec, "group"), "%s", why);
    else if (!strchr(group, '.'))
        check_fail(c, CAUSE_INVALID, "spec.group", val_get(spec, "group"), "should be a domain with at least one dot");
    if ((why = name_dns1035_label(plural)))
        check_fail(c, CAUSE_INVALID, "spec.names.plural", val_get(n, "plural"), "%s", why);
    if (!*kind)
        check_fail(c, CAUSE_REQUIRED, "spec.names.kind", NULL, "%s", "");
    else if ((why = name_dns1035_label(lower)))
        check_fail(c, CAUSE_INVALID, "spec.names.kind", val_get(n, "kind"), "may have mixed case, but should otherwise match: %s", why);
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
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.conversion.strategy", val_at(spec, "conversion.strategy"),
                   "supported values: \"None\", \"Webhook\"");
    }
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
}
