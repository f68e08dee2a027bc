/* door/aws/cloudformation/template.c - text to tree, what a template must look like, its parameters. */
#include "door/aws/cloudformation/cfn_template.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "codec/json.h"
#include "codec/regex.h"
#include "codec/yaml.h"

/* ---- text to tree ---- */

static int on_tag(void *arg, struct arena *a, const char *tag, struct val *v, struct err *err)
{
    static const char *const TAGS[] = {"Base64", "Cidr", "FindInMap", "GetAtt", "GetAZs", "If", "ImportValue", "Join", "Select",
                                       "Split", "Sub", "Transform", "And", "Equals", "Not", "Or", "Length", "ToJsonString", "Contains",
                                       "EachMemberEquals", "EachMemberIn", "RefAll", "ValueOf", "ValueOfAll"};
    struct val *map = val_map(a);
    const char *name = tag + 1;

    (void)arg;
    if (streq(name, "Ref") || streq(name, "Condition")) {
        val_put(a, map, name, v);
        *v = *map;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(TAGS); i++) {
        if (!streq(name, TAGS[i]))
            continue;
        if (streq(name, "GetAtt") && v->type == VAL_STR && strchr(v->s, '.')) {
            struct val *parts = val_list(a);
            const char *dot = strchr(v->s, '.');

            val_push(a, parts, val_strn(a, v->s, (size_t)(dot - v->s)));
            val_push_str(a, parts, dot + 1);
            val_put(a, map, "Fn::GetAtt", parts);
        } else {
            val_put(a, map, arena_printf(a, "Fn::%s", name), v);
        }
        *v = *map;
        return 0;
    }
    return err_set(err, INVALID_ARGUMENT, "Template format error: YAML not well-formed. (unknown tag %.60s)", tag);
}

struct val *cfn_parse(struct arena *a, const char *text, size_t n, struct err *err)
{
    struct err why = {0};
    struct val *v;
    size_t at = 0;

    while (at < n && isspace((unsigned char)text[at]))
        at++;
    if (at == n) {
        err_set(err, INVALID_ARGUMENT, "Template format error: unsupported structure.");
        return NULL;
    }
    if (text[at] == '{') {
        v = json_parse(a, text, n, &why);
        if (!v) /* flow style YAML begins so, too */
            v = yaml_parse_tagged(a, text, n, on_tag, NULL, &why);
        if (!v)
            err_set(err, INVALID_ARGUMENT, "Template format error: JSON not well-formed. (%.200s)", why.msg);
    } else {
        v = yaml_parse_tagged(a, text, n, on_tag, NULL, &why);
        if (!v)
            err_set(err, INVALID_ARGUMENT, str_starts(why.msg, "Template format") ? "%.240s"
                    : "Template format error: YAML not well-formed. (%.200s)", why.msg);
    }
    if (v && v->type != VAL_MAP) {
        err_set(err, INVALID_ARGUMENT, "Template format error: unsupported structure.");
        return NULL;
    }
    return v;
}

/* ---- what it must look like ---- */

static bool alphanumeric(const char *s)
{
    for (; *s; s++)
        if (!isalnum((unsigned char)*s))
            return false;
    return true;
}

bool cfn_has_transform(const struct val *doc, const char *name)
{
    const struct val *t = val_get(doc, "Transform");

    if (val_is(t, VAL_STR))
        return streq(t->s, name);
    VAL_EACH(t, it)
        if (streq(val_text(it, val_str_at(it, "Name", "")), name))
            return true;
    return false;
}

static int check_transform(const char *name, struct err *err)
{
    static const char *const KNOWN[] = {"AWS::Serverless-2016-10-31", "AWS::LanguageExtensions"};

    for (size_t i = 0; i < ARRAY_LEN(KNOWN); i++)
        if (streq(name, KNOWN[i]))
            return 0;
    return err_set(err, INVALID_ARGUMENT, "No transform named %s found.", name);
}

static int check_resource(const struct val_member *m, bool loops, struct err *err)
{
    static const char *const KEYS[] = {"Type", "Properties", "DependsOn", "Condition", "DeletionPolicy", "UpdateReplacePolicy",
                                       "Metadata", "UpdatePolicy", "CreationPolicy", "Description", "Connectors",
                                       "IgnoreGlobals", "Version"};
    const struct val *type = val_get(&m->v, "Type");

    if (loops && str_starts(m->key, "Fn::ForEach::"))
        return 0;
    if (str_starts(m->key, "Fn::ForEach::"))
        return err_set(err, INVALID_ARGUMENT, "Template format error: Fn::ForEach needs the transform AWS::LanguageExtensions");
    if (!alphanumeric(m->key) || !*m->key || m->n > 255)
        return err_set(err, INVALID_ARGUMENT, "Template format error: Resource name %.60s is non alphanumeric.", m->key);
    if (m->v.type != VAL_MAP)
        return err_set(err, INVALID_ARGUMENT, "Template format error: Every Resources object must be an object.");
    if (!val_is(type, VAL_STR))
        return err_set(err, INVALID_ARGUMENT,
                       "Template format error: [/Resources/%s] Every Resources object must contain a Type member.", m->key);
    if (val_get(&m->v, "Properties") && !val_is(val_get(&m->v, "Properties"), VAL_MAP) &&
        !val_is(val_get(&m->v, "Properties"), VAL_NULL))
        return err_set(err, INVALID_ARGUMENT,
                       "Template format error: [/Resources/%s/Properties] 'null' values or non-objects are not allowed", m->key);
    VAL_EACH_MEMBER(&m->v, k)
    {
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(KEYS) && !known; i++)
            known = streq(k->key, KEYS[i]);
        if (!known)
            return err_set(err, INVALID_ARGUMENT, "Invalid template resource property '%.80s'", k->key);
    }
    return 0;
}

static int check_sections(const struct val *doc, struct err *err)
{
    static const char *const MAPS[] = {"Parameters", "Mappings", "Conditions", "Resources", "Outputs", "Globals"};
    static const char *const OTHERS[] = {"AWSTemplateFormatVersion", "Description", "Metadata", "Transform", "Rules", "Hooks"};

    VAL_EACH_MEMBER(doc, m)
    {
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(MAPS) && !known; i++)
            if (streq(m->key, MAPS[i])) {
                known = true;
                if (m->v.type != VAL_MAP && !(m->v.type == VAL_NULL && !streq(m->key, "Resources")))
                    return err_set(err, INVALID_ARGUMENT, "Template format error: %s must be an object.", m->key);
            }
        for (size_t i = 0; i < ARRAY_LEN(OTHERS) && !known; i++)
            known = streq(m->key, OTHERS[i]);
        if (!known)
            return err_set(err, INVALID_ARGUMENT, "Invalid template property or properties [%.80s]", m->key);
    }
    if (!val_len(val_get(doc, "Resources")))
        return err_set(err, INVALID_ARGUMENT, "Template format error: At least one Resources member must be defined.");
    return 0;
}

static int check_count(const struct val *doc, const char *section, uint32_t max, struct err *err)
{
    uint32_t n = val_members_n_(val_get(doc, section));

    return n <= max ? 0
                    : err_set(err, INVALID_ARGUMENT, "Template format error: Number of %s, %u, is greater than maximum allowed, %u",
                              section, n, max);
}

static uint32_t depth_of(const struct val *v, uint32_t so_far)
{
    uint32_t deepest = so_far;

    if (so_far > CFN_DEPTH_MAX)
        return so_far;
    VAL_EACH(v, it)
        deepest = MAX(deepest, depth_of(it, so_far + 1));
    VAL_EACH_MEMBER(v, m)
        deepest = MAX(deepest, depth_of(&m->v, so_far + 1));
    return deepest;
}

int cfn_check(const struct val *doc, struct err *err)
{
    const struct val *transform = val_get(doc, "Transform"), *version = val_get(doc, "AWSTemplateFormatVersion");
    bool loops = cfn_has_transform(doc, "AWS::LanguageExtensions");

    if (depth_of(doc, 0) > CFN_DEPTH_MAX)
        return err_set(err, INVALID_ARGUMENT, "Template format error: the template is nested more than %d levels deep", CFN_DEPTH_MAX);
    if (version && !streq(val_text(version, ""), "2010-09-09"))
        return err_set(err, INVALID_ARGUMENT, "Template format error: Template format version '%.40s' is not supported.",
                       val_text(version, "?"));
    if (val_get(doc, "Description") && !val_is(val_get(doc, "Description"), VAL_STR))
        return err_set(err, INVALID_ARGUMENT, "Template format error: Description must be a string.");
    if (check_sections(doc, err) < 0 || check_count(doc, "Resources", CFN_RESOURCES_MAX, err) < 0 ||
        check_count(doc, "Parameters", CFN_PARAMETERS_MAX, err) < 0 || check_count(doc, "Outputs", CFN_OUTPUTS_MAX, err) < 0 ||
        check_count(doc, "Mappings", CFN_MAPPINGS_MAX, err) < 0)
        return -1;
    if (val_is(transform, VAL_STR) && check_transform(transform->s, err) < 0)
        return -1;
    VAL_EACH(transform, t)
        if (check_transform(val_text(t, val_str_at(t, "Name", "")), err) < 0)
            return -1;
    VAL_EACH_MEMBER(val_get(doc, "Resources"), m)
        if (check_resource(m, loops, err) < 0)
            return -1;
    VAL_EACH_MEMBER(val_get(doc, "Outputs"), m)
        if (!(loops && str_starts(m->key, "Fn::")) && !val_get(&m->v, "Value"))
            return err_set(err, INVALID_ARGUMENT, "Template format error: Output %.80s must have a Value", m->key);
    VAL_EACH_MEMBER(val_get(doc, "Parameters"), m)
        if (!val_is(val_get(&m->v, "Type"), VAL_STR))
            return err_set(err, INVALID_ARGUMENT,
                           "Template format error: Every Parameters object must contain a Type member.");
    return 0;
}

/* ---- parameters ---- */

const char *cfn_scalar(struct arena *a, const struct val *v)
{
    char text[40];

    switch (v ? v->type : VAL_NULL) {
    case VAL_STR: return v->s;
    case VAL_BOOL: return v->b ? "true" : "false";
    case VAL_INT: return arena_printf(a, "%lld", (long long)v->i);
    case VAL_DOUBLE:
        snprintf(text, sizeof text, "%.15g", val_num(v));
        return arena_strdup(a, text);
    default: return NULL;
    }
}

static int check_allowed(struct arena *a, const char *name, const struct val *def, const char *text, struct err *err)
{
    const char *why = val_str_at(def, "ConstraintDescription", NULL);
    const char *pattern = val_str_at(def, "AllowedPattern", NULL);
    const struct val *allowed = val_get(def, "AllowedValues");
    size_t n = strlen(text);
    bool fits = !val_is(allowed, VAL_LIST);

    VAL_EACH(allowed, it)
        if (streq(cfn_scalar(a, it) ? cfn_scalar(a, it) : "", text))
            fits = true;
    if (!fits)
        return err_set(err, INVALID_ARGUMENT, why ? "Parameter %s failed to satisfy constraint: %.200s"
                       : "Parameter '%s' must be one of AllowedValues%.0s", name, why ? why : "");
    if (pattern) {
        struct err bad = {0};
        _auto_(freep) char *whole = xasprintf("^(%s)$", pattern);
        struct regex *re = regex_new(whole, strlen(whole), &bad);
        bool matches = re && regex_match(re, text, n) == 1;

        regex_free(re);
        if (!re)
            return err_set(err, INVALID_ARGUMENT, "Parameter '%s': AllowedPattern cannot be used: %.200s", name, bad.msg);
        if (!matches)
            return err_set(err, INVALID_ARGUMENT, why ? "Parameter %s failed to satisfy constraint: %.200s"
                           : "Parameter '%s' must match pattern %.200s", name, why ? why : pattern);
    }
    for (int max = 0; max < 2; max++) {
        const char *limit = cfn_scalar(a, val_get(def, max ? "MaxLength" : "MinLength"));
        const char *bound = cfn_scalar(a, val_get(def, max ? "MaxValue" : "MinValue"));

        if (limit && (max ? n > strtoull(limit, NULL, 10) : n < strtoull(limit, NULL, 10)))
            return err_set(err, INVALID_ARGUMENT, "Parameter '%s' must contain at %s %s characters", name, max ? "most" : "least",
                           limit);
        if (bound && (max ? strtod(text, NULL) > strtod(bound, NULL) : strtod(text, NULL) < strtod(bound, NULL)))
            return err_set(err, INVALID_ARGUMENT, "Parameter '%s' must be a number not %s than %s", name,
                           max ? "greater" : "less", bound);
    }
    return 0;
}

static struct val *split_commas(struct arena *a, const char *text)
{
    struct val *list = val_list(a);

    while (*text) {
        size_t n = strcspn(text, ","), from = 0, to = n;

        while (from < to && isspace((unsigned char)text[from]))
            from++;
        while (to > from && isspace((unsigned char)text[to - 1]))
            to--;
        val_push(a, list, val_strn(a, text + from, to - from));
        text += n + (text[n] == ',');
    }
    return list;
}

static int parameter(struct arena *a, const char *name, const struct val *def, const char *text, struct val *into,
                     struct err *err)
{
    const char *type = val_str_at(def, "Type", "");
    bool list = str_starts(type, "List<") || streq(type, "CommaDelimitedList") || strstr(type, "Value<List<") ||
                strstr(type, "Value<CommaDelimitedList>");
    char *end;

    if (!list) {
        if (streq(type, "Number")) {
            (void)strtod(text, &end);
            if (!*text || *end)
                return err_set(err, INVALID_ARGUMENT, "Parameter '%s' must be a number", name);
        }
        if (!str_starts(type, "AWS::SSM::Parameter::Value<") && check_allowed(a, name, def, text, err) < 0)
            return -1;
        val_put_str(a, into, name, text);
        return 0;
    }
    struct val *items = split_commas(a, text);
    VAL_EACH(items, it)
        if (check_allowed(a, name, def, val_text(it, ""), err) < 0)
            return -1;
    val_put(a, into, name, items);
    return 0;
}

static bool type_known(const char *type)
{
    return streq(type, "String") || streq(type, "Number") || streq(type, "CommaDelimitedList") || str_starts(type, "List<") ||
           str_starts(type, "AWS::");
}

struct val *cfn_parameters(struct arena *a, const struct val *doc, const struct val *given, struct err *err)
{
    const struct val *defs = val_get(doc, "Parameters");
    struct val *all = val_map(a);
    struct buf missing = {0};

    VAL_EACH_MEMBER(given, m)
        if (!val_getn(defs, m->key, m->n)) {
            err_set(err, INVALID_ARGUMENT, "Parameters: [%.100s] do not exist in the template", m->key);
            return NULL;
        }
    VAL_EACH_MEMBER(defs, m)
    {
        const char *text = cfn_scalar(a, val_getn(given, m->key, m->n)), *type = val_str_at(&m->v, "Type", "");

        if (!type_known(type)) {
            err_set(err, INVALID_ARGUMENT, "Template format error: Unrecognized parameter type: %.80s", type);
            return NULL;
        }
        if (!text && val_is(val_get(&m->v, "Default"), VAL_LIST)) {
            err_set(err, INVALID_ARGUMENT, "Template format error: Every Default member must be a string.");
            return NULL;
        }
        if (!text)
            text = cfn_scalar(a, val_get(&m->v, "Default"));
        if (!text)
            buf_printf(&missing, "%s%s", missing.n ? ", " : "", m->key);
        else if (parameter(a, m->key, &m->v, text, all, err) < 0) {
            buf_done(&missing);
            return NULL;
        }
    }
    if (missing.n) {
        err_set(err, INVALID_ARGUMENT, "Parameters: [%.300s] must have values", missing.p);
        buf_done(&missing);
        return NULL;
    }
    return all;
}
