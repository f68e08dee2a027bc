/* apiserver/who.c - who asks: client certificate, bearer token, or nobody; and, for those who may,
 * somebody else (Impersonate-* headers). */
#include "apiserver/front_int.h"

#include <ctype.h>
#include <strings.h>

static int unauthorized(struct call *c)
{
    return fail(c, 401, "Unauthorized", "Unauthorized");
}

static void anonymous(struct auth_user *u)
{
    static const char *const groups[] = {GROUP_UNAUTHENTICATED, NULL};

    *u = (struct auth_user){.name = USER_ANONYMOUS, .uid = "", .groups = groups};
}

static void by_certificate(struct exchange *x, const struct http_peer *p)
{
    struct arena *a = x->http->arena;
    const char **groups = arena_array(a, const char *, p->orgs_n + 2);

    for (size_t i = 0; i < p->orgs_n; i++)
        groups[i] = arena_strdup(a, p->orgs[i]);
    groups[p->orgs_n] = GROUP_AUTHENTICATED;
    x->user = (struct auth_user){.name = arena_strdup(a, p->cn), .uid = "", .groups = groups};
}

/* Text of a bearer token, NULL: none is there. */
static const char *bearer(struct exchange *x)
{
    const char *h = http_get(x->http, "authorization");

    if (!h || strncasecmp(h, "Bearer ", 7) != 0)
        return NULL;
    for (h += 7; *h == ' ';)
        h++;
    return *h ? h : NULL;
}

static int authenticate(struct exchange *x, struct call *c)
{
    const struct http_peer *p = x->http->peer;
    const char *token = bearer(x);
    struct err err = {0};

    if (p->cert && p->cert_trusted && !str_empty(p->cn)) {
        by_certificate(x, p);
        return 0;
    }
    if (p->cert && !p->cert_trusted)
        return unauthorized(c);
    if (!token) {
        anonymous(&x->user);
        return 0;
    }
    if (token_verify(pki_sa_key(x->f->api->pki), token, NULL, c->now_ms / 1000, api_lookup, x->f->api,
                     x->http->arena, &x->user, NULL, &err) < 0)
        return unauthorized(c);
    return 0;
}

/* ---------------------------------------------------------------- impersonation */

static int may_be(struct exchange *x, struct call *c, const char *group, const char *resource,
                  const char *sub, const char *ns, const char *name)
{
    struct rbac_ask q = {.verb = "impersonate", .group = group, .resource = resource,
                         .subresource = sub, .ns = ns, .name = name};

    if (access_allows(x->f->api, &x->user, &q))
        return 0;
    /* about the thing that was asked for, not about the one that was to be */
    path_parse(c->a, x->req.path, &c->path);
    return fail_forbidden(c, c->path.name, "User \"%s\" cannot impersonate resource \"%s\" in API "
                          "group \"%s\"%s%s", x->user.name, resource, group,
                          *ns ? " in the namespace " : " at the cluster scope", ns);
}

/* system:serviceaccount:NS:NAME; false: it is no such name. */
static bool account_name(struct arena *a, const char *user, char **ret_ns, char **ret_name)
{
    const char *at = user + strlen("system:serviceaccount:"), *colon;

    if (!str_starts(user, "system:serviceaccount:") || !(colon = strchr(at, ':')) || colon == at ||
        !colon[1] || strchr(colon + 1, ':'))
        return false;
    *ret_ns = arena_strndup(a, at, (size_t)(colon - at));
    *ret_name = arena_strdup(a, colon + 1);
    return !name_dns_label(*ret_ns) && !name_dns_subdomain(*ret_name);
}

/* Impersonate-Extra-KEY headers as a map of lists. */
static struct val *read_extra(struct exchange *x)
{
    static const char prefix[] = "impersonate-extra-";
    struct arena *a = x->http->arena;
    struct val *extra = NULL;

    for (size_t i = 0; i < x->http->headers_n; i++) {
        const struct http_header *h = &x->http->headers[i];
        char *key;

        if (strncasecmp(h->name, prefix, sizeof(prefix) - 1) != 0)
            continue;
        key = path_unescape(a, h->name + sizeof(prefix) - 1, strlen(h->name) - sizeof(prefix) + 1, false);
        for (char *s = key; s && *s; s++)
            *s = (char)tolower((unsigned char)*s);
        if (!key || !*key)
            continue;
        if (!extra)
            extra = val_map(a);
        val_push_str(a, val_need_list(a, extra, key), h->value);
    }
    return extra;
}

static bool listed(const char *const *groups, const char *name)
{
    for (; *groups; groups++)
        if (streq(*groups, name))
            return true;
    return false;
}

static int impersonate(struct exchange *x, struct call *c)
{
    struct arena *a = x->http->arena;
    const char *user = http_get(x->http, "impersonate-user"), *g;
    const char *uid = http_get(x->http, "impersonate-uid");
    struct val *extra = read_extra(x);
    const char **groups = arena_array(a, const char *, x->http->headers_n + 5);
    char *ns = NULL, *name = NULL;
    size_t n = 0;
    bool account;

    for (size_t i = 0; (g = http_get_next(x->http, "impersonate-group", &i));)
        groups[n++] = g;
    if (str_empty(user)) {
        if (n || uid || extra)
            return fail(c, 400, "BadRequest", "requested impersonation of a group, uid or extra "
                        "without impersonating a user");
        return 0;
    }
    account = account_name(a, user, &ns, &name);
    if (account ? may_be(x, c, "", "serviceaccounts", "", ns, name) < 0
                : may_be(x, c, "", "users", "", "", user) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (may_be(x, c, "", "groups", "", "", groups[i]) < 0)
            return -1;
    if (uid && may_be(x, c, "authentication.k8s.io", "uids", "", "", uid) < 0)
        return -1;
    VAL_EACH_MEMBER(extra, m)
        VAL_EACH(&m->v, v)
            if (may_be(x, c, "authentication.k8s.io", "userextras", m->key, "", val_text(v, "")) < 0)
                return -1;
    if (!n && account) {
        groups[n++] = "system:serviceaccounts";
        groups[n++] = arena_printf(a, "system:serviceaccounts:%s", ns);
    }
    if (streq(user, USER_ANONYMOUS)) {
        if (!listed(groups, GROUP_UNAUTHENTICATED))
            groups[n++] = GROUP_UNAUTHENTICATED;
    } else if (!listed(groups, GROUP_AUTHENTICATED) && !listed(groups, GROUP_UNAUTHENTICATED)) {
        groups[n++] = GROUP_AUTHENTICATED;
    }
    x->user = (struct auth_user){.name = user, .uid = uid ? uid : "", .groups = groups, .extra = extra};
    return 0;
}

int who(struct exchange *x, struct call *c)
{
    return authenticate(x, c) < 0 || impersonate(x, c) < 0 ? -1 : 0;
}
