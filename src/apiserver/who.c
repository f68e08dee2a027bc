/* apiserver/who.c - who asks: a front proxy on behalf of somebody, a client certificate, a bearer token,
 * or nobody; and, for those who may, somebody else (impersonate.c). What can be checked is checked in
 * this order and the first that says a name wins; a wrong credential is passed over as long as another
 * one is right, and is a 401 when none is. */
#include "apiserver/front_int.h"

#include "auth/b64.h"

#include <arpa/inet.h>
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
    struct val *extra = val_map(a);

    for (size_t i = 0; i < p->orgs_n; i++)
        groups[i] = arena_strdup(a, p->orgs[i]);
    groups[p->orgs_n] = GROUP_AUTHENTICATED;
    val_push(a, val_need_list(a, extra, "authentication.kubernetes.io/credential-id"),
             val_printf(a, "X509SHA256=%s", p->fingerprint));
    x->user = (struct auth_user){.name = arena_strdup(a, p->cn),
                                 .uid = p->uid ? arena_strdup(a, p->uid) : "", .groups = groups,
                                 .extra = extra};
}

/* ---------------------------------------------------------------- a front proxy */

/* A certificate under the front proxies' own CA says whom it speaks for in X-Remote-* headers. */
static bool by_front_proxy(struct exchange *x, const struct http_peer *p)
{
    struct arena *a = x->http->arena;
    const char *user = http_get(x->http, "x-remote-user"), *g;
    const char *uid = http_get(x->http, "x-remote-uid");
    const char **groups;
    size_t n = 0;

    if (str_empty(user) || !p->cert_trusted || !authn_is_front_proxy(x->f->api->authn, p))
        return false;
    groups = arena_array(a, const char *, x->http->headers_n + 2);
    for (size_t i = 0; (g = http_get_next(x->http, "x-remote-group", &i));)
        groups[n++] = g;
    groups[n++] = GROUP_AUTHENTICATED;
    x->user = (struct auth_user){.name = user, .uid = uid ? uid : "", .groups = groups,
                                 .extra = extra_headers(x, "x-remote-extra-")};
    return true;
}

/* ---------------------------------------------------------------- bearer tokens */

/* A browser can not set headers on a WebSocket, but it can name protocols: one of them may be the
 * token. It is taken out, so that nobody behind us sees it. */
static const char *protocol_token(struct exchange *x)
{
    static const char prefix[] = "base64url.bearer.authorization.k8s.io.";
    struct arena *a = x->http->arena;
    struct http_header *headers = NULL;
    const char *token = NULL;

    if (!http_upgrade_wanted(x->http))
        return NULL;
    for (size_t i = 0; i < x->http->headers_n; i++) {
        const char *at = x->http->headers[i].value;
        struct buf kept = {.max = 65536};

        if (strcasecmp(x->http->headers[i].name, "sec-websocket-protocol") != 0 || !strstr(at, prefix))
            continue;
        while (*at) {
            size_t n, len;

            at += strspn(at, " ,");
            n = len = strcspn(at, ",");
            while (len && at[len - 1] == ' ')
                len--;
            if (len > sizeof(prefix) - 1 && strncmp(at, prefix, sizeof(prefix) - 1) == 0) {
                size_t bytes;
                unsigned char *text = b64url_decode(a, at + sizeof(prefix) - 1, len - sizeof(prefix) + 1, &bytes);

                token = text && bytes && !memchr(text, 0, bytes) ? (char *)text : "";
            } else if (len) {
                buf_printf(&kept, "%s%.*s", kept.n ? ", " : "", (int)len, at);
            }
            at += n;
        }
        if (!headers)
            headers = arena_memdup(a, x->http->headers, x->http->headers_n * sizeof(*headers));
        headers[i].value = arena_strdup(a, kept.p ? kept.p : "");
        buf_done(&kept);
    }
    if (headers)
        x->http->headers = headers;
    return token;
}

/* Text of a bearer token, NULL: none is there. */
static const char *bearer(struct exchange *x)
{
    const char *h = http_get(x->http, "authorization");

    if (!h || strncasecmp(h, "Bearer ", 7) != 0)
        return protocol_token(x);
    for (h += 7; *h == ' ';)
        h++;
    return *h ? arena_strndup(x->http->arena, h, strcspn(h, " ")) : NULL;
}

static enum authn_result by_token(struct exchange *x, struct call *c, const char *token)
{
    struct authn_ask q = {.token = token, .now_s = c->now_ms / 1000, .arena = x->http->arena,
                          .audit = x->req.audit, .wake = authn_woken, .wake_arg = x, .call = c};
    struct authn_answer got = {0};
    struct err err = {0};
    enum authn_result r = authn_token(x->f->api->authn, &q, &got, &err);

    if (r == AUTHN_OK)
        x->user = got.user;
    if (r == AUTHN_OK && got.warning && !x->req.noted /* not an earlier run of this call */)
        http_headerf(x->http, "warning", "299 - \"%s\"", got.warning);
    return r;
}

static enum authn_result authenticate(struct exchange *x, struct call *c)
{
    const struct http_peer *p = x->http->peer;
    const char *token;

    if (p->cert && p->cert_trusted && by_front_proxy(x, p))
        return AUTHN_OK;
    if (p->cert && p->cert_trusted && !str_empty(p->cn) && !authn_is_front_proxy(x->f->api->authn, p)) {
        by_certificate(x, p);
        return AUTHN_OK;
    }
    if ((token = bearer(x)))
        return by_token(x, c, token);
    if (p->cert || !authn_allows_anonymous(x->f->api->authn, x->http->raw_path))
        return AUTHN_NO;
    anonymous(&x->user);
    return AUTHN_OK;
}

/* ---------------------------------------------------------------- audit */

/* Where it came from: what proxies say first, then the other end of the connection. */
static const char *const *source_ips(struct exchange *x)
{
    struct arena *a = x->http->arena;
    const char *forwarded = http_get(x->http, "x-forwarded-for"), *real = http_get(x->http, "x-real-ip");
    const char **ips = arena_array(a, const char *, 36);
    size_t n = 0;

    for (const char *s = forwarded; s && *s && n < 32;) {
        size_t len;
        struct in6_addr ignored;
        char *ip;

        s += strspn(s, " ,");
        len = strcspn(s, " ,");
        ip = arena_strndup(a, s, len);
        if (inet_pton(AF_INET, ip, &ignored) == 1 || inet_pton(AF_INET6, ip, &ignored) == 1)
            ips[n++] = ip;
        s += len;
    }
    if (!n && !str_empty(real))
        ips[n++] = real;
    if (*x->http->peer->addr && (!n || !streq(ips[n - 1], x->http->peer->addr)))
        ips[n++] = x->http->peer->addr;
    return ips;
}

static void begin_audit(struct exchange *x, struct call *c, const struct auth_user *u)
{
    struct rbac_ask q = access_ask(c);
    struct audit_request rq = {
        .id = x->audit_id, .uri = x->http->target, .verb = c->verb,
        .user_agent = http_get(x->http, "user-agent"), .source_ips = source_ips(x), .user = u,
        .ask = &q, .received_us = x->received_us};

    x->req.noted = true;
    x->req.audit = audit_begin(x->f->api->audit, x->http->arena, &rq);
}

/* Every answer names itself: the id that the client gave, or a new one. */
static void name_request(struct exchange *x)
{
    const char *given = http_get(x->http, "audit-id");
    char uuid[ENV_UUID_BYTES];

    x->received_us = env_now_ms(x->f->api->env) * 1000;
    x->audit_id = !str_empty(given) && strlen(given) <= 64
                      ? given
                      : arena_strdup(x->http->arena, env_uuid(x->f->api->env, uuid));
    http_header(x->http, "audit-id", x->audit_id);
}

enum authn_result who(struct exchange *x, struct call *c)
{
    enum authn_result r;

    if (!x->audit_id)
        name_request(x);
    r = authenticate(x, c);
    if (r == AUTHN_WAIT)
        return r;
    if (options_params(c) < 0)
        return AUTHN_NO;
    path_parse(c->a, x->req.path, &c->path);
    c->verb = call_verb(c);
    if (!x->req.noted)
        begin_audit(x, c, r == AUTHN_OK ? &x->user : NULL);
    if (r == AUTHN_NO) {
        unauthorized(c);
        return r;
    }
    return impersonate(x, c) < 0 ? AUTHN_NO : AUTHN_OK;
}
