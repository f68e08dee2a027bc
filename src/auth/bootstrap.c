/* auth/bootstrap.c - reads bootstrap.roles (compiled in) into objects. The text is ours: what is
 * wrong in it is a bug and stops at an assertion. */
#include "auth/rbac.h"

#include <stdio.h>

extern const char auth_bootstrap_text[]; /* made from bootstrap.roles by tools/embed */

#define RBAC_GROUP "rbac.authorization.k8s.io"

struct reader {
    struct arena *a;
    void (*fn)(void *arg, const char *resource, struct val *object);
    void *arg;
    struct val *role; /* under way */
    const char *resource;
};

static struct val *words(struct arena *a, const char *s, size_t n)
{
    struct val *list = val_list(a);
    size_t at = 0;

    while (at < n) {
        size_t from;

        while (at < n && s[at] == ' ')
            at++;
        for (from = at; at < n && s[at] != ' ';)
            at++;
        if (at == from)
            break;
        if (at - from == 2 && s[from] == '"')
            val_push_str(a, list, "");
        else
            val_push(a, list, val_strn(a, s + from, at - from));
    }
    return list;
}

static struct val *object_new(struct arena *a, const char *kind, const char *ns, const char *name)
{
    struct val *o = val_map(a), *meta = val_map(a), *labels = val_map(a), *notes = val_map(a);

    val_put_str(a, o, "apiVersion", RBAC_GROUP "/v1");
    val_put_str(a, o, "kind", kind);
    val_put_str(a, meta, "name", name);
    if (*ns)
        val_put_str(a, meta, "namespace", ns);
    val_put_str(a, notes, "rbac.authorization.kubernetes.io/autoupdate", "true");
    val_put_str(a, labels, "kubernetes.io/bootstrapping", "rbac-defaults");
    val_put(a, meta, "labels", labels);
    val_put(a, meta, "annotations", notes);
    val_put(a, o, "metadata", meta);
    return o;
}

static void flush(struct reader *r)
{
    if (r->role)
        r->fn(r->arg, r->resource, r->role);
    r->role = NULL;
}

static void read_rule(struct reader *r, const char *line)
{
    static const char *const keys[] = {"verbs", "apiGroups", "resources", "resourceNames",
                                       "nonResourceURLs"};
    struct arena *a = r->a;
    struct val *rule = val_map(a);

    for (size_t i = 0; i < ARRAY_LEN(keys) && line; i++) {
        const char *bar = strchr(line, '|');
        struct val *list = words(a, line, bar ? (size_t)(bar - line) : strlen(line));

        if (list->n)
            val_put(a, rule, keys[i], list);
        line = bar ? bar + 1 : NULL;
    }
    val_push(a, val_need_list(a, r->role, "rules"), rule);
}

static void read_subject(struct reader *r, struct val *binding, const char *word)
{
    struct arena *a = r->a;
    struct val *s = val_map(a);
    const char *colon = strchr(word, ':'), *slash;

    ASSERT(colon);
    val_put(a, s, "kind", val_strn(a, word, (size_t)(colon - word)));
    if (str_starts(word, "ServiceAccount:")) {
        ASSERT((slash = strchr(word, '/')));
        val_put_str(a, s, "name", slash + 1);
        val_put(a, s, "namespace", val_strn(a, colon + 1, (size_t)(slash - colon - 1)));
    } else {
        val_put_str(a, s, "apiGroup", RBAC_GROUP);
        val_put_str(a, s, "name", colon + 1);
    }
    val_push(a, val_need_list(a, binding, "subjects"), s);
}

static void read_binding(struct reader *r, const struct val *w, const char *ns)
{
    struct arena *a = r->a;
    uint32_t at = *ns ? 2 : 1;
    struct val *b, *ref = val_map(a);

    ASSERT(w->n >= at + 2);
    b = object_new(a, *ns ? "RoleBinding" : "ClusterRoleBinding", ns, w->items[at].s);
    val_put_str(a, ref, "apiGroup", RBAC_GROUP);
    val_put_str(a, ref, "kind", *ns ? "Role" : "ClusterRole");
    val_put_str(a, ref, "name", w->items[at + 1].s);
    val_put(a, b, "roleRef", ref);
    for (uint32_t i = at + 2; i < w->n; i++)
        read_subject(r, b, w->items[i].s);
    r->fn(r->arg, *ns ? "rolebindings" : "clusterrolebindings", b);
}

static void read_inside(struct reader *r, const char *line)
{
    struct arena *a = r->a;

    ASSERT(r->role);
    if (str_starts(line, "label ")) {
        const char *eq = strchr(line, '=');

        ASSERT(eq);
        val_putn(a, val_at(r->role, "metadata.labels"), line + 6, (size_t)(eq - line - 6),
                 val_str(a, eq + 1));
    } else if (str_starts(line, "aggregate ")) {
        struct val *sel = val_map(a);

        val_put_str(a, val_need_map(a, sel, "matchLabels"), line + 10, "true");
        val_push(a, val_need_list(a, val_need_map(a, r->role, "aggregationRule"),
                                  "clusterRoleSelectors"), sel);
        val_need_list(a, r->role, "rules");
    } else {
        read_rule(r, line);
    }
}

static void read_line(struct reader *r, const char *line)
{
    const struct val *w;

    if (!*line || *line == '#')
        return;
    if (str_starts(line, "  ")) {
        read_inside(r, line + 2);
        return;
    }
    flush(r);
    w = words(r->a, line, strlen(line));
    ASSERT(w->n >= 2);
    if (streq(w->items[0].s, "role")) {
        r->role = object_new(r->a, "ClusterRole", "", w->items[1].s);
        r->resource = "clusterroles";
    } else if (streq(w->items[0].s, "nsrole")) {
        ASSERT(w->n == 3);
        r->role = object_new(r->a, "Role", w->items[1].s, w->items[2].s);
        r->resource = "roles";
    } else if (streq(w->items[0].s, "bind")) {
        read_binding(r, w, "");
    } else {
        ASSERT(streq(w->items[0].s, "nsbind"));
        read_binding(r, w, w->items[1].s);
    }
}

void rbac_bootstrap(struct arena *a,
                    void (*fn)(void *arg, const char *resource, struct val *object), void *arg)
{
    struct reader r = {.a = a, .fn = fn, .arg = arg};
    const char *at = auth_bootstrap_text;

    while (*at) {
        size_t n = strcspn(at, "\n");

        read_line(&r, arena_strndup(a, at, n));
        at += n + (at[n] == '\n');
    }
    flush(&r);
}
