/* auth/rbac.c - see rbac.h. Semantics are those of Kubernetes: "*" means all; a rule with
 * resourceNames never covers what has no name; "pods/log" is asked as resource "pods" with
 * subresource "log" and also met by the rule "[*]/log". */
#include "auth/rbac.h"

#include <stdio.h>

static bool has(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (val_is(it, VAL_STR) && (streq(it->s, "*") || streq(it->s, s)))
            return true;
    return false;
}

static bool has_exactly(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

static bool resource_in(const struct val *list, const char *resource, const char *sub)
{
    size_t n = strlen(resource);

    VAL_EACH(list, it) {
        const char *s = val_text(it, "");

        if (streq(s, "*"))
            return true;
        if (!*sub ? streq(s, resource)
                  : (strncmp(s, resource, n) == 0 && s[n] == '/' && streq(s + n + 1, sub)) ||
                        (s[0] == '*' && s[1] == '/' && streq(s + 2, sub)))
            return true;
    }
    return false;
}

static bool url_in(const struct val *list, const char *path)
{
    VAL_EACH(list, it) {
        const char *s = val_text(it, "");
        size_t n = strlen(s);

        if (streq(s, "*") || streq(s, path))
            return true;
        if (n && s[n - 1] == '*' && strncmp(s, path, n - 1) == 0)
            return true;
    }
    return false;
}

static bool rule_allows(const struct val *rule, const struct rbac_ask *q)
{
    const struct val *names;

    if (!has(val_get(rule, "verbs"), q->verb))
        return false;
    if (q->path)
        return url_in(val_get(rule, "nonResourceURLs"), q->path);
    names = val_get(rule, "resourceNames");
    return has(val_get(rule, "apiGroups"), q->group) &&
           resource_in(val_get(rule, "resources"), q->resource, q->subresource) &&
           (!val_len(names) || has_exactly(names, q->name));
}

static bool subject_is(const struct val *s, const struct auth_user *u, const char *binding_ns)
{
    const char *kind = val_str_at(s, "kind", ""), *name = val_str_at(s, "name", "");
    const char *ns;
    size_t n;

    if (streq(kind, "User"))
        return streq(name, u->name);
    if (streq(kind, "Group"))
        return auth_user_in(u, name);
    if (!streq(kind, "ServiceAccount") || !str_starts(u->name, "system:serviceaccount:"))
        return false;
    ns = val_str_at(s, "namespace", binding_ns);
    n = strlen(ns);
    u = &(struct auth_user){.name = u->name + strlen("system:serviceaccount:")};
    return n && strncmp(u->name, ns, n) == 0 && u->name[n] == ':' && streq(u->name + n + 1, name);
}

/* ---------------------------------------------------------------- walk */

/* Calls fn for each list of rules that a user has in ns, until it says false. */
struct walk {
    const struct rbac_source *s;
    const struct auth_user *u;
    const char *ns;
    struct arena *a;
    bool (*fn)(void *arg, const struct val *rules);
    void *arg;
    bool stopped;
    const struct obj *binding; /* at hand, and which of its subjects the user is */
    const struct val *subject;
};

static bool walk_binding(void *arg, const struct obj *b)
{
    struct walk *w = arg;
    const struct val *v = obj_val(b), *ref = val_get(v, "roleRef");
    const struct obj *role = NULL;
    const char *kind = val_str_at(ref, "kind", ""), *name = val_str_at(ref, "name", "");
    bool mine = false;

    VAL_EACH(val_get(v, "subjects"), subject) {
        if ((mine = subject_is(subject, w->u, b->namespace_))) {
            w->subject = subject;
            break;
        }
    }
    if (!mine)
        return true;
    w->binding = b;
    if (streq(kind, "ClusterRole"))
        role = w->s->get(w->s->arg, "clusterroles", "", name);
    else if (streq(kind, "Role") && *b->namespace_)
        role = w->s->get(w->s->arg, "roles", b->namespace_, name);
    if (role && !w->fn(w->arg, val_get(obj_val(role), "rules")))
        w->stopped = true;
    return !w->stopped;
}

static void walk_rules(struct walk *w)
{
    w->s->each(w->s->arg, "clusterrolebindings", "", walk_binding, w);
    if (!w->stopped && !str_empty(w->ns))
        w->s->each(w->s->arg, "rolebindings", w->ns, walk_binding, w);
}

bool rbac_rules_allow(const struct val *rules, const struct rbac_ask *ask)
{
    VAL_EACH(rules, rule)
        if (rule_allows(rule, ask))
            return true;
    return false;
}

struct decide {
    const struct rbac_ask *ask;
    bool yes;
};

static bool decide_rules(void *arg, const struct val *rules)
{
    struct decide *d = arg;

    d->yes = rbac_rules_allow(rules, d->ask);
    return !d->yes;
}

/* "RBAC: allowed by RoleBinding "name/namespace" of Role "name" to Group "name"". */
static const char *reason_of(const struct walk *w, struct arena *a)
{
    const struct val *ref = val_get(obj_val(w->binding), "roleRef");
    const char *ns = w->binding->namespace_, *kind = val_str_at(w->subject, "kind", "");
    const char *name = val_str_at(w->subject, "name", "");

    if (streq(kind, "ServiceAccount"))
        name = arena_printf(a, "%s/%s", name, val_str_at(w->subject, "namespace", ns));
    return arena_printf(a, "RBAC: allowed by %s \"%s%s%s\" of %s \"%s\" to %s \"%s\"",
                        *ns ? "RoleBinding" : "ClusterRoleBinding", w->binding->name, *ns ? "/" : "",
                        ns, val_str_at(ref, "kind", ""), val_str_at(ref, "name", ""), kind, name);
}

static bool decide(const struct rbac_source *s, const struct auth_user *u,
                   const struct rbac_ask *ask, struct arena *a, const char **ret_reason)
{
    struct decide d = {.ask = ask};
    struct walk w = {.s = s, .u = u, .ns = ask->path ? "" : ask->ns, .fn = decide_rules, .arg = &d};

    if (auth_user_in(u, GROUP_MASTERS))
        return true;
    w.a = arena_new();
    walk_rules(&w);
    arena_free(w.a);
    if (d.yes && ret_reason)
        *ret_reason = reason_of(&w, a);
    return d.yes;
}

bool rbac_allows(const struct rbac_source *s, const struct auth_user *u, const struct rbac_ask *ask)
{
    return decide(s, u, ask, NULL, NULL);
}

bool rbac_decides(const struct rbac_source *s, const struct auth_user *u,
                  const struct rbac_ask *ask, struct arena *a, const char **ret_reason)
{
    *ret_reason = "";
    return decide(s, u, ask, a, ret_reason);
}

/* ---------------------------------------------------------------- holding */

struct all_rules {
    struct arena *a;
    struct val *rules;
};

static bool add_rules(void *arg, const struct val *rules)
{
    struct all_rules *all = arg;

    VAL_EACH(rules, rule)
        val_push(all->a, all->rules, rule);
    return true;
}

/* As rule_allows, for what is itself a pattern: "*" is only covered by "*". rule_allows compares
 * texts, so a "*" that is asked is met by a "*" that is had, and by nothing else. */
static bool rule_covered(const struct val *own, const struct val *want)
{
    VAL_EACH(val_get(want, "verbs"), verb) {
        struct rbac_ask q = {.verb = val_text(verb, ""), .name = ""};

        VAL_EACH(val_get(want, "nonResourceURLs"), url) {
            q.path = val_text(url, "");
            if (!rbac_rules_allow(own, &q))
                return false;
        }
        q.path = NULL;
        VAL_EACH(val_get(want, "apiGroups"), group) {
            VAL_EACH(val_get(want, "resources"), res) {
                const char *text = val_text(res, ""), *slash = strchr(text, '/');
                char first[256];
                const struct val *names = val_get(want, "resourceNames");

                snprintf(first, sizeof(first), "%.*s", (int)(slash ? slash - text : 255), text);
                q.group = val_text(group, "");
                q.resource = first;
                q.subresource = slash ? slash + 1 : "";
                q.name = "";
                if (!val_len(names) && !rbac_rules_allow(own, &q))
                    return false;
                VAL_EACH(names, name) {
                    q.name = val_text(name, "");
                    if (!rbac_rules_allow(own, &q))
                        return false;
                }
            }
        }
    }
    return true;
}

int rbac_holds(const struct rbac_source *s, const struct auth_user *u, const char *ns,
               const struct val *rules, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct all_rules all = {.a = a, .rules = val_list(a)};
    struct walk w = {.s = s, .u = u, .ns = ns, .a = a, .fn = add_rules, .arg = &all};

    if (auth_user_in(u, GROUP_MASTERS))
        return 0;
    walk_rules(&w);
    VAL_EACH(rules, rule)
        if (!rule_covered(all.rules, rule))
            return err_set(err, FORBIDDEN,
                           "user \"%s\" is attempting to grant RBAC permissions not currently held",
                           u->name);
    return 0;
}

void rbac_rules(const struct rbac_source *s, const struct auth_user *u, const char *ns,
                struct arena *a, struct val *resource_rules, struct val *url_rules)
{
    struct all_rules all = {.a = a, .rules = val_list(a)};
    struct walk w = {.s = s, .u = u, .ns = ns, .a = a, .fn = add_rules, .arg = &all};

    if (auth_user_in(u, GROUP_MASTERS)) {
        struct val *star = val_list(a), *r = val_map(a), *n = val_map(a);

        val_push_str(a, star, "*");
        val_put(a, r, "verbs", star);
        val_put(a, r, "apiGroups", star);
        val_put(a, r, "resources", star);
        val_put(a, n, "verbs", star);
        val_put(a, n, "nonResourceURLs", star);
        val_push(a, resource_rules, r);
        val_push(a, url_rules, n);
    }
    walk_rules(&w);
    VAL_EACH(all.rules, rule) {
        static const char *const keys[] = {"verbs", "apiGroups", "resources", "resourceNames"};
        struct val *r = val_map(a);
        bool urls = val_len(val_get(rule, "nonResourceURLs")) > 0;

        if (urls) {
            val_put(a, r, "verbs", val_get(rule, "verbs"));
            val_put(a, r, "nonResourceURLs", val_get(rule, "nonResourceURLs"));
            val_push(a, url_rules, r);
            continue;
        }
        for (size_t i = 0; i < ARRAY_LEN(keys); i++)
            if (val_get(rule, keys[i]))
                val_put(a, r, keys[i], val_get(rule, keys[i]));
        val_push(a, resource_rules, r);
    }
}
