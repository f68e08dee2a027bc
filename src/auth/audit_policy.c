/* auth/audit_policy.c - see audit_policy.h. */
#include "auth/audit_policy.h"

static const char *const LEVELS[] = {"None", "Metadata", "Request", "RequestResponse"};
static const struct {
    const char *name;
    enum audit_stage stage;
} STAGES[] = {{"RequestReceived", AUDIT_RECEIVED}, {"ResponseStarted", AUDIT_STARTED},
              {"ResponseComplete", AUDIT_COMPLETE}, {"Panic", AUDIT_PANIC}};

const char *audit_level_name(enum audit_level level)
{
    return LEVELS[level];
}

const char *audit_stage_name(enum audit_stage stage)
{
    for (size_t i = 0; i < ARRAY_LEN(STAGES); i++)
        if (STAGES[i].stage == stage)
            return STAGES[i].name;
    return "";
}

static int level_of(const struct val *rule)
{
    const char *s = val_str_at(rule, "level", "");

    for (size_t i = 0; i < ARRAY_LEN(LEVELS); i++)
        if (streq(s, LEVELS[i]))
            return (int)i;
    return -1;
}

static unsigned stages_of(const struct val *list)
{
    unsigned bits = 0;

    VAL_EACH(list, it)
        for (size_t i = 0; i < ARRAY_LEN(STAGES); i++)
            if (streq(val_text(it, ""), STAGES[i].name))
                bits |= STAGES[i].stage;
    return bits;
}

/* ---------------------------------------------------------------- check */

static int check_list(const struct val *v, const char *what, struct err *err)
{
    if (v && !val_is(v, VAL_LIST) && !val_is_null(v))
        return err_set(err, INVALID_ARGUMENT, "%s must be a list", what);
    VAL_EACH(v, it)
        if (!val_is(it, VAL_STR))
            return err_set(err, INVALID_ARGUMENT, "%s must hold texts", what);
    return 0;
}

static int check_stages(const struct val *list, const char *what, struct err *err)
{
    if (check_list(list, what, err) < 0)
        return -1;
    VAL_EACH(list, it) {
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(STAGES); i++)
            known |= streq(it->s, STAGES[i].name);
        if (!known)
            return err_set(err, INVALID_ARGUMENT, "%s: \"%s\" is not a stage (RequestReceived, "
                           "ResponseStarted, ResponseComplete, Panic)", what, it->s);
    }
    return 0;
}

static int check_rule(const struct val *rule, struct err *err)
{
    static const char *const lists[] = {"users", "userGroups", "verbs", "namespaces", "nonResourceURLs"};

    if (level_of(rule) < 0)
        return err_set(err, INVALID_ARGUMENT, "level: \"%s\" is not one of None, Metadata, Request, "
                       "RequestResponse", val_str_at(rule, "level", ""));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        if (check_list(val_get(rule, lists[i]), lists[i], err) < 0)
            return -1;
    if (val_len(val_get(rule, "nonResourceURLs")) &&
        (val_len(val_get(rule, "resources")) || val_len(val_get(rule, "namespaces"))))
        return err_set(err, INVALID_ARGUMENT, "rules cannot apply to both regular resources and "
                       "non-resource URLs");
    VAL_EACH(val_get(rule, "nonResourceURLs"), url) {
        const char *star = strchr(url->s, '*');

        if (streq(url->s, "*"))
            continue;
        if (*url->s != '/' || (star && star[1]))
            return err_set(err, INVALID_ARGUMENT, "nonResourceURLs: \"%s\" must begin with a '/' and "
                           "may hold one '*', at its end", url->s);
    }
    VAL_EACH(val_get(rule, "resources"), r) {
        if (check_list(val_get(r, "resources"), "resources", err) < 0 ||
            check_list(val_get(r, "resourceNames"), "resourceNames", err) < 0)
            return -1;
        if (str_starts(val_str_at(r, "group", ""), "/") || strchr(val_str_at(r, "group", ""), '/'))
            return err_set(err, INVALID_ARGUMENT, "group: \"%s\" must be the name of a group without "
                           "a version", val_str_at(r, "group", ""));
        if (val_len(val_get(r, "resourceNames")) && !val_len(val_get(r, "resources")))
            return err_set(err, INVALID_ARGUMENT, "using resourceNames requires at least one resource");
    }
    return check_stages(val_get(rule, "omitStages"), "omitStages", err);
}

int audit_policy_check(const struct val *policy, struct err *err)
{
    const struct val *rules = val_get(policy, "rules");
    uint32_t i = 0;

    if (!streq(val_str_at(policy, "kind", ""), "Policy") ||
        !streq(val_str_at(policy, "apiVersion", ""), "audit.k8s.io/v1"))
        return err_set(err, INVALID_ARGUMENT, "it must be of kind Policy in audit.k8s.io/v1");
    if (!val_len(rules))
        return err_set(err, INVALID_ARGUMENT, "an audit policy without rules notes nothing");
    if (check_stages(val_get(policy, "omitStages"), "omitStages", err) < 0)
        return -1;
    VAL_EACH(rules, rule) {
        if (check_rule(rule, err) < 0)
            return err_wrap(err, "rules[%u]", i);
        i++;
    }
    return 0;
}

/* ---------------------------------------------------------------- ask */

static bool listed(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

static bool resource_listed(const struct val *list, const struct rbac_ask *q)
{
    size_t n = strlen(q->resource);

    VAL_EACH(list, it) {
        const char *s = val_text(it, "");

        if (streq(s, "*") || (!*q->subresource && streq(s, q->resource)))
            return true;
        if (*q->subresource && strncmp(s, q->resource, n) == 0 && s[n] == '/' &&
            streq(s + n + 1, q->subresource))
            return true;
        if (*q->subresource && str_starts(s, "*/") && streq(s + 2, q->subresource))
            return true;
        if (strncmp(s, q->resource, n) == 0 && streq(s + n, "/*"))
            return true;
    }
    return false;
}

static bool matches_resource(const struct val *rule, const struct rbac_ask *q)
{
    const struct val *namespaces = val_get(rule, "namespaces"), *all = val_get(rule, "resources");

    if (q->path || (val_len(namespaces) && !listed(namespaces, q->ns)))
        return false;
    if (!val_len(all))
        return true;
    VAL_EACH(all, r) {
        const char *group = val_str_at(r, "group", "");
        const struct val *list = val_get(r, "resources"), *names = val_get(r, "resourceNames");

        if (!streq(group, q->group) && !streq(group, "*"))
            continue;
        if (!val_len(list))
            return true;
        if ((!val_len(names) || listed(names, q->name)) && resource_listed(list, q))
            return true;
    }
    return false;
}

static bool matches_url(const struct val *rule, const char *path)
{
    VAL_EACH(val_get(rule, "nonResourceURLs"), it) {
        const char *s = val_text(it, "");
        size_t n = strlen(s);

        if (!path)
            return false;
        if (streq(s, "*") || streq(s, path) || (n && s[n - 1] == '*' && strncmp(s, path, n - 1) == 0))
            return true;
    }
    return false;
}

static bool rule_matches(const struct val *rule, const struct auth_user *u, const struct rbac_ask *q)
{
    const struct val *users = val_get(rule, "users"), *groups = val_get(rule, "userGroups");
    const struct val *verbs = val_get(rule, "verbs");
    bool member = false;

    if (val_len(users) && (!u || !listed(users, u->name)))
        return false;
    for (const char *const *g = u ? u->groups : NULL; g && *g; g++)
        member |= listed(groups, *g);
    if ((val_len(groups) && !member) || (val_len(verbs) && !listed(verbs, q->verb)))
        return false;
    if (val_len(val_get(rule, "namespaces")) || val_len(val_get(rule, "resources")))
        return matches_resource(rule, q);
    return !val_len(val_get(rule, "nonResourceURLs")) || matches_url(rule, q->path);
}

struct audit_verdict audit_policy_ask(const struct val *policy, const struct auth_user *u,
                                      const struct rbac_ask *ask)
{
    bool omit = val_bool_at(policy, "omitManagedFields", false);
    unsigned always = stages_of(val_get(policy, "omitStages"));

    VAL_EACH(val_get(policy, "rules"), rule)
        if (rule_matches(rule, u, ask))
            return (struct audit_verdict){
                .level = (enum audit_level)level_of(rule),
                .omit = always | stages_of(val_get(rule, "omitStages")),
                .omit_managed_fields = val_bool_at(rule, "omitManagedFields", omit)};
    return (struct audit_verdict){.level = AUDIT_NONE, .omit = always, .omit_managed_fields = omit};
}
