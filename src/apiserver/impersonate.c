/* apiserver/impersonate.c - acting as somebody else (Impersonate-* headers).
 *
 * The modes are tried from the narrowest to the widest, and the first that allows it counts:
 *   associated-node  a service account as the node that its pod runs on
 *   arbitrary-node   as any node
 *   serviceaccount   as a service account
 *   user-info        as anybody else, with groups, uid and extra
 *   legacy           the verb "impersonate" alone, whatever is then done
 * All but the last ask twice: may he be that one (impersonate:MODE), and may he do this as that one
 * (impersonate-on:MODE:VERB). The refusal that is told is the first one. */
#include "apiserver/front_int.h"

#include <ctype.h>
#include <strings.h>

enum { MANY = 4 }; /* from so many groups or extras on one right to all of them is asked first */

struct wanted {
    const char *user, *uid;
    const char **groups; /* NULL-terminated, as sent */
    size_t groups_n;
    struct val *extra; /* map of lists, or NULL */
    const char *node;  /* system:node:NAME, else NULL */
    char *ns, *account; /* system:serviceaccount:NS:NAME, else NULL */
};

struct attempt {
    struct exchange *x;
    struct call *c;
    const struct wanted *w;
    const char *mode; /* NULL: legacy */
    const char *verb;
    bool associated;
};

/* ---------------------------------------------------------------- headers */

/* system:serviceaccount:NS:NAME; false: it is no such name. */
static bool account_name(struct arena *a, const char *user, char **ret_ns, char **ret_name)
{
    const char *at = user + strlen("system:serviceaccount:"), *colon;
    char *ns, *name;

    if (!str_starts(user, "system:serviceaccount:") || !(colon = strchr(at, ':')) || colon == at ||
        !colon[1] || strchr(colon + 1, ':'))
        return false;
    ns = arena_strndup(a, at, (size_t)(colon - at));
    name = arena_strdup(a, colon + 1);
    if (name_dns_label(ns) || name_dns_subdomain(name))
        return false;
    *ret_ns = ns;
    *ret_name = name;
    return true;
}

/* KEY of a PREFIX-KEY header in lower case, unescaped; the name as it is when it can not be. */
static char *extra_key(struct arena *a, const char *name)
{
    char *low = arena_strdup(a, name), *key;

    for (char *s = low; *s; s++)
        *s = (char)tolower((unsigned char)*s);
    key = path_unescape(a, low, strlen(low), false);
    return key ? key : low;
}

struct val *extra_headers(struct exchange *x, const char *prefix)
{
    struct arena *a = x->http->arena;
    size_t n = strlen(prefix);
    struct val *extra = NULL;

    for (size_t i = 0; i < x->http->headers_n; i++) {
        const struct http_header *h = &x->http->headers[i];

        if (strncasecmp(h->name, prefix, n) != 0)
            continue;
        if (!extra)
            extra = val_map(a);
        val_push_str(a, val_need_list(a, extra, extra_key(a, h->name + n)), h->value);
    }
    return extra;
}

static void read_wanted(struct exchange *x, struct wanted *w)
{
    struct arena *a = x->http->arena;
    const char *g;

    *w = (struct wanted){.user = http_get(x->http, "impersonate-user"),
                         .uid = http_get(x->http, "impersonate-uid"), .extra = extra_headers(x, "impersonate-extra-")};
    w->groups = arena_array(a, const char *, x->http->headers_n + 1);
    for (size_t i = 0; (g = http_get_next(x->http, "impersonate-group", &i));)
        w->groups[w->groups_n++] = g;
    if (str_empty(w->uid))
        w->uid = NULL;
    if (str_empty(w->user))
        return;
    if (str_starts(w->user, "system:node:") && w->user[strlen("system:node:")])
        w->node = w->user + strlen("system:node:");
    account_name(a, w->user, &w->ns, &w->account);
}

/* ---------------------------------------------------------------- asking */

/* What an authorizer sees of a service account that asks for its own node: not who exactly. */
static struct auth_user asker(const struct attempt *t)
{
    struct auth_user u = t->x->user;
    struct val *extra, *keys;

    if (!t->associated)
        return u;
    extra = val_map(t->c->a);
    keys = val_list(t->c->a);
    VAL_EACH_MEMBER(u.extra, m)
        val_push_str(t->c->a, keys, m->key);
    val_put(t->c->a, extra, "authentication.kubernetes.io/associated-node-keys", keys);
    u.extra = extra;
    return u;
}

static bool allowed(const struct attempt *t, const struct rbac_ask *q)
{
    struct auth_user u = asker(t);
    const char *reason;

    if (!t->c->api->authz) /* nobody asks why, and nothing is waited for */
        return access_allows(t->c->api, &u, q);
    return access_verdict(t->c, &u, q, &reason) == AUTHZ_ALLOW;
}

/* 403 about what was asked with q. */
static int refuse(const struct attempt *t, const struct rbac_ask *q)
{
    struct call *c = t->c;
    const struct path keep = c->path;

    if (!q->path) {
        c->path.group = q->group;
        c->path.plural = q->resource;
        c->path.sub = q->subresource;
        c->path.ns = q->ns;
        c->path.name = q->name;
    }
    access_refuse(c, &t->x->user, q);
    c->path = keep;
    return -1;
}

static int may(const struct attempt *t, const char *group, const char *resource, const char *sub,
               const char *ns, const char *name)
{
    struct rbac_ask q = {.verb = t->verb, .group = group, .resource = resource, .subresource = sub,
                         .ns = ns, .name = name};

    return allowed(t, &q) ? 0 : refuse(t, &q);
}

/* group of users, groups, nodes and service accounts: the old mode has them in the core group */
static const char *who_group(const struct attempt *t)
{
    return t->mode ? "authentication.k8s.io" : "";
}

static int may_name(const struct attempt *t)
{
    const struct wanted *w = t->w;

    if (t->mode && w->node)
        return may(t, who_group(t), "nodes", "", "", t->associated ? "*" : w->node);
    if (w->account)
        return may(t, who_group(t), "serviceaccounts", "", w->ns, w->account);
    return may(t, who_group(t), "users", "", "", w->user);
}

static int may_groups(const struct attempt *t)
{
    const struct wanted *w = t->w;
    struct rbac_ask all = {.verb = t->verb, .group = who_group(t), .resource = "groups",
                           .subresource = "", .ns = "", .name = "*"};

    for (size_t i = 0; t->mode && i < w->groups_n; i++)
        if (!*w->groups[i] || streq(w->groups[i], GROUP_MASTERS)) {
            all.name = w->groups[i];
            return refuse(t, &all);
        }
    if (t->mode && w->groups_n >= MANY && allowed(t, &all))
        return 0;
    for (size_t i = 0; i < w->groups_n; i++)
        if (may(t, who_group(t), "groups", "", "", w->groups[i]) < 0)
            return -1;
    return 0;
}

/* example.com/path in lower case, with values that say something. */
static bool extra_sound(const struct val *extra)
{
    VAL_EACH_MEMBER(extra, m) {
        const char *slash = strchr(m->key, '/');

        if (!slash || slash == m->key || !slash[1])
            return false;
        for (const char *s = m->key; *s; s++)
            if (isupper((unsigned char)*s) || isspace((unsigned char)*s))
                return false;
        VAL_EACH(&m->v, v)
            if (!*val_text(v, ""))
                return false;
    }
    return true;
}

static int may_extra(const struct attempt *t)
{
    static const char group[] = "authentication.k8s.io";
    struct rbac_ask all = {.verb = t->verb, .group = group, .resource = "userextras",
                           .subresource = "*", .ns = "", .name = "*"};
    size_t n = 0;

    VAL_EACH_MEMBER(t->w->extra, m)
        n += MAX(val_len(&m->v), 1u);
    if (t->mode && n && !extra_sound(t->w->extra)) {
        all.subresource = all.name = "";
        return refuse(t, &all);
    }
    if (t->mode && n >= MANY && allowed(t, &all))
        return 0;
    VAL_EACH_MEMBER(t->w->extra, m)
        VAL_EACH(&m->v, v)
            if (may(t, group, "userextras", m->key, "", val_text(v, "")) < 0)
                return -1;
    return 0;
}

static int attempt(struct attempt *t)
{
    if (t->mode) {
        struct rbac_ask q = access_ask(t->c);

        q.verb = arena_printf(t->c->a, "impersonate-on:%s:%s", t->mode, q.verb);
        t->verb = arena_printf(t->c->a, "impersonate:%s", t->mode);
        if (!allowed(t, &q))
            return refuse(t, &q);
    } else {
        t->verb = "impersonate";
    }
    if (may_name(t) < 0)
        return -1;
    if (t->w->uid && may(t, "authentication.k8s.io", "uids", "", "", t->w->uid) < 0)
        return -1;
    return may_groups(t) < 0 || may_extra(t) < 0 ? -1 : 0;
}

/* ---------------------------------------------------------------- becoming */

static bool listed(const char *const *groups, const char *name)
{
    for (; *groups; groups++)
        if (streq(*groups, name))
            return true;
    return false;
}

static void become(struct exchange *x, const struct wanted *w, bool node)
{
    struct arena *a = x->http->arena;
    const char **groups = arena_array(a, const char *, w->groups_n + 4);
    size_t n = 0;

    for (; n < w->groups_n; n++)
        groups[n] = w->groups[n];
    if (!n && node) {
        groups[n++] = "system:nodes";
    } else if (!n && w->account) {
        groups[n++] = "system:serviceaccounts";
        groups[n++] = arena_printf(a, "system:serviceaccounts:%s", w->ns);
    }
    if (streq(w->user, USER_ANONYMOUS)) {
        if (!listed(groups, GROUP_UNAUTHENTICATED))
            groups[n++] = GROUP_UNAUTHENTICATED;
    } else if (!listed(groups, GROUP_AUTHENTICATED) && !listed(groups, GROUP_UNAUTHENTICATED)) {
        groups[n++] = GROUP_AUTHENTICATED;
    }
    x->user = (struct auth_user){.name = w->user, .uid = w->uid ? w->uid : "", .groups = groups,
                                 .extra = w->extra};
}

/* Does the mode apply at all? */
static bool fits(const struct exchange *x, const struct wanted *w, const char *mode)
{
    bool only_name = !w->uid && !w->groups_n && !w->extra;
    const struct val *on = val_get(x->user.extra, "authentication.kubernetes.io/node-name");

    if (streq(mode, "associated-node"))
        return only_name && w->node && str_starts(x->user.name, "system:serviceaccount:") &&
               val_len(on) == 1 && streq(val_text(&on->items[0], ""), w->node);
    if (streq(mode, "arbitrary-node"))
        return only_name && w->node;
    if (streq(mode, "serviceaccount"))
        return only_name && w->account;
    return !w->node && !w->account;
}

/* Who did it once does it the same way again: the mode that worked last is tried first, so that the old
 * way costs no more than it ever did. By a hash of the name; a clash only changes the order. */
static uint8_t *last_mode(struct exchange *x)
{
    const char *name = x->user.name;

    return &x->f->modes[str_hash(name, strlen(name)) % ARRAY_LEN(x->f->modes)];
}

int impersonate(struct exchange *x, struct call *c)
{
    static const char *const modes[] = {"associated-node", "arbitrary-node", "serviceaccount", "user-info"};
    struct api_response first = {0};
    uint8_t *last = last_mode(x); /* 0: none yet, else the mode's number + 1 */
    struct wanted w;
    struct attempt t = {.x = x, .c = c, .w = &w};

    read_wanted(x, &w);
    if (str_empty(w.user))
        return w.groups_n || w.uid || w.extra
                   ? fail(c, 400, "BadRequest", "requested impersonation of a group, uid or extra "
                          "without impersonating a user name")
                   : 0;
    for (size_t turn = *last ? 0 : 1; turn <= ARRAY_LEN(modes) + 1; turn++) {
        size_t i = turn ? turn - 1 : *last - 1u;

        if (turn && *last == turn)
            continue;
        t.mode = i < ARRAY_LEN(modes) ? modes[i] : NULL;
        t.associated = i == 0;
        if (t.mode && !fits(x, &w, t.mode))
            continue;
        if (attempt(&t) == 0) {
            if (c->waits) /* for a webhook, about a mode that comes before this one */
                return -1;
            *last = (uint8_t)(i + 1);
            become(x, &w, t.mode && w.node);
            audit_impersonated(x->req.audit, &x->user, t.mode ? t.verb : "");
            return 0;
        }
        if (!first.status)
            first = c->resp;
    }
    c->resp = first;
    return -1;
}
