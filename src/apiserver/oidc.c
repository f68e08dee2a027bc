/* apiserver/oidc.c - tokens of OpenID Connect issuers, by an AuthenticationConfiguration file.
 *
 * Each issuer's keys are fetched over HTTPS: its discovery document, then the key set that it names.
 * They are kept; a token with a key that is not among them fetches them again (at most every
 * AGAIN_MS) while its request waits. The file is looked at every LOOK_MS; issuers that did not change keep
 * their keys. Bounds: ISSUERS_MAX issuers, WAITERS_MAX requests that wait at one of them. */
#include "apiserver/authn_int.h"

#include "apiserver/api_int.h"
#include "base/log.h"
#include "codec/yaml.h"
#include "env/fs.h"
#include "http/client.h"

enum {
    FILE_BYTES_MAX = 1 << 20,
    ISSUERS_MAX = 64,
    WAITERS_MAX = 1024,
    ANSWER_BYTES_MAX = 1 << 20,
    FETCH_MS = 10000,
    RETRY_MS = 10000,   /* keys that could not be fetched */
    AGAIN_MS = 2000,    /* between fetches that unknown keys ask for */
    FRESH_MS = 600000,  /* known keys are looked at again */
    LOOK_MS = 2000,     /* at the file */
    EARLY_S = 300,      /* of nbf */
};

struct waiter {
    void (*wake)(void *arg);
    void *arg;
};

struct issuer {
    struct oidc *o;
    const struct val *conf;
    struct mapping *map;
    const char *url, *ca;
    struct http_origin *origin, *keys_origin;
    struct http_call *call; /* under way */
    struct jwks *keys;
    struct env_timer *timer;
    int64_t fetched_ms; /* when the last fetch ended, 0: never */
    struct waiter waiters[WAITERS_MAX];
    uint32_t waiters_n;
};

struct config {
    struct arena *arena;
    const struct val *tree;
    struct issuer *v[ISSUERS_MAX];
    uint32_t n;
};

struct oidc {
    struct api *api;
    char *path;
    struct http_client *client;
    struct env_timer *look;
    struct config *config;
    struct fs_mark seen;
    bool closed;
};

/* ---------------------------------------------------------------- keys */

static void wake_all(struct issuer *is)
{
    struct waiter *w = xcalloc(is->waiters_n + 1, sizeof(*w));
    uint32_t n = is->waiters_n;

    memcpy(w, is->waiters, n * sizeof(*w));
    is->waiters_n = 0;
    for (uint32_t i = 0; i < n; i++)
        w[i].wake(w[i].arg);
    free(w);
}

static void fetch_over(struct issuer *is, const char *why)
{
    is->fetched_ms = env_now_ms(is->o->api->env);
    if (why)
        LOG(WARN, "oidc", "issuer=%s did=fetch err=\"%s\"", is->url, why);
    env_timer_start(is->timer, why ? RETRY_MS : FRESH_MS, 0);
    wake_all(is);
}

static void on_keys(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct issuer *is = arg;
    struct err bad = {0};
    struct jwks *keys;

    is->call = NULL;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (err || a->status != 200) {
        fetch_over(is, err ? err->msg : "the key set is not answered with 200");
        return;
    }
    if (!(keys = jwks_parse(body, n, &bad))) {
        fetch_over(is, bad.msg);
        return;
    }
    jwks_free(is->keys);
    is->keys = keys;
    fetch_over(is, NULL);
}

/* "https://host:port" and "/path" of a URL; false: it is none. */
static bool split_url(struct arena *a, const char *url, char **ret_base, char **ret_path)
{
    const char *host = strstr(url, "://"), *slash = host ? strchr(host + 3, '/') : NULL;

    if (!str_starts(url, "https://") || !host[3] || strpbrk(url, "?# "))
        return false;
    *ret_base = slash ? arena_strndup(a, url, (size_t)(slash - url)) : arena_strdup(a, url);
    *ret_path = arena_strdup(a, slash ? slash : "/");
    return true;
}

static struct http_origin *origin_of(struct issuer *is, const char *base, struct err *err)
{
    struct http_origin_opts opts = {.ca_pem = is->ca, .conns_max = 2};

    return http_origin_new(is->o->client, base, &opts, err);
}

static void on_discovery(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    _auto_(arena_freep) struct arena *at = NULL;
    struct issuer *is = arg;
    struct err bad = {0};
    struct val *doc;
    char *base, *path;

    is->call = NULL;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (err || a->status != 200) {
        fetch_over(is, err ? err->msg : "the discovery document is not answered with 200");
        return;
    }
    at = arena_new();
    doc = json_parse(at, body, n, &bad);
    if (!doc || !streq(val_str_at(doc, "issuer", ""), is->url)) {
        fetch_over(is, doc ? "the discovery document is of another issuer" : bad.msg);
        return;
    }
    if (!split_url(at, val_str_at(doc, "jwks_uri", ""), &base, &path)) {
        fetch_over(is, "jwks_uri is not an https URL");
        return;
    }
    if (is->keys_origin)
        is->keys_origin = http_origin_free(is->keys_origin);
    if (!(is->keys_origin = origin_of(is, base, &bad))) {
        fetch_over(is, bad.msg);
        return;
    }
    is->call = http_fetch(is->keys_origin, &(struct http_call_opts){.path = path, .timeout_ms = FETCH_MS,
                                                                    .idle_timeout_ms = FETCH_MS},
                          ANSWER_BYTES_MAX, on_keys, is);
}

static void fetch(void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct issuer *is = arg;
    const char *url = val_str_at(is->conf, "issuer.discoveryURL", "");
    size_t n = strlen(is->url);
    char *base, *path;
    struct err err = {0};

    if (is->call || !is->o->client)
        return;
    if (!*url)
        url = arena_printf(a, "%.*s/.well-known/openid-configuration",
                           (int)(n && is->url[n - 1] == '/' ? n - 1 : n), is->url);
    split_url(a, url, &base, &path); /* was checked when the file was read */
    if (!is->origin && !(is->origin = origin_of(is, base, &err))) {
        fetch_over(is, err.msg);
        return;
    }
    is->call = http_fetch(is->origin, &(struct http_call_opts){.path = path, .timeout_ms = FETCH_MS,
                                                               .idle_timeout_ms = FETCH_MS},
                          ANSWER_BYTES_MAX, on_discovery, is);
}

/* ---------------------------------------------------------------- issuers */

static void *issuer_free(struct issuer *is)
{
    if (!is)
        return NULL;
    if (is->call)
        http_call_cancel(is->call);
    env_timer_free(is->timer);
    http_origin_free(is->origin);
    http_origin_free(is->keys_origin);
    jwks_free(is->keys);
    mapping_free(is->map);
    free(is);
    return NULL;
}

static int check_audiences(const struct val *issuer, struct err *err)
{
    const struct val *list = val_get(issuer, "audiences");
    const char *policy = val_str_at(issuer, "audienceMatchPolicy", "");

    if (!val_len(list))
        return err_set(err, INVALID_ARGUMENT, "issuer.audiences: at least one is required");
    VAL_EACH(list, it)
        if (!*val_text(it, ""))
            return err_set(err, INVALID_ARGUMENT, "issuer.audiences: an audience can not be empty");
    if (val_len(list) > 1 && !streq(policy, "MatchAny"))
        return err_set(err, INVALID_ARGUMENT, "issuer.audienceMatchPolicy must be MatchAny for multiple "
                       "audiences");
    if (*policy && !streq(policy, "MatchAny"))
        return err_set(err, INVALID_ARGUMENT, "issuer.audienceMatchPolicy must be empty or MatchAny");
    return 0;
}

static struct issuer *issuer_new(struct oidc *o, struct arena *a, const struct val *conf, struct err *err)
{
    struct issuer *is = xcalloc(1, sizeof(*is));
    const char *discovery = val_str_at(conf, "issuer.discoveryURL", "");
    char *base, *path, *mark = NULL;

    is->o = o;
    is->conf = conf;
    is->url = val_str_at(conf, "issuer.url", "");
    is->ca = val_text(val_at(conf, "issuer.certificateAuthority"), NULL);
    if (!split_url(a, is->url, &base, &path) || strchr(base, '@')) {
        err_set(err, INVALID_ARGUMENT, "issuer.url: \"%s\" is not an https URL without user, query and "
                "fragment", is->url);
    } else if (streq(is->url, TOKEN_ISSUER)) {
        err_set(err, INVALID_ARGUMENT, "issuer.url: that is the issuer of service accounts");
    } else if (*discovery && (streq(discovery, is->url) || !split_url(a, discovery, &base, &path))) {
        err_set(err, INVALID_ARGUMENT, "issuer.discoveryURL: \"%s\" is not an https URL that differs from the "
                "issuer's", discovery);
    } else if (!str_empty(is->ca) && !(mark = pki_fingerprint(is->ca))) {
        err_set(err, INVALID_ARGUMENT, "issuer.certificateAuthority holds no certificate");
    } else if (*val_str_at(conf, "issuer.egressSelectorType", "")) {
        err_set(err, INVALID_ARGUMENT, "issuer.egressSelectorType: there are no egress selectors here");
    } else {
        if (!str_empty(is->ca))
            free(mark);
        else
            is->ca = NULL;
        is->timer = env_timer_new(o->api->env, fetch, is);
        if (check_audiences(val_get(conf, "issuer"), err) == 0 && (is->map = mapping_new(conf, err)))
            return is;
    }
    return issuer_free(is);
}

static struct issuer *issuer_named(const struct config *c, const char *url)
{
    for (uint32_t i = 0; c && i < c->n; i++)
        if (streq(c->v[i]->url, url))
            return c->v[i];
    return NULL;
}

/* ---------------------------------------------------------------- the file */

static void *config_free(struct config *c)
{
    if (!c)
        return NULL;
    for (uint32_t i = 0; i < c->n; i++) {
        wake_all(c->v[i]);
        issuer_free(c->v[i]);
    }
    arena_free(c->arena);
    free(c);
    return NULL;
}

static int read_anonymous(const struct val *v, struct err *err)
{
    const struct val *anon = val_get(v, "anonymous");

    VAL_EACH(val_get(anon, "conditions"), it)
        if (*val_str_at(it, "path", "") != '/')
            return err_set(err, INVALID_ARGUMENT, "anonymous.conditions: a path begins with /");
    if (val_len(val_get(anon, "conditions")) && !val_bool_at(anon, "enabled", false))
        return err_set(err, INVALID_ARGUMENT, "anonymous.conditions: enabled must be true with them");
    return 0;
}

static int read_issuers(struct oidc *o, struct config *c, struct err *err)
{
    uint32_t i = 0;

    if (val_len(val_get(c->tree, "jwt")) > ISSUERS_MAX)
        return err_set(err, INVALID_ARGUMENT, "jwt: at most %d issuers", ISSUERS_MAX);
    VAL_EACH(val_get(c->tree, "jwt"), conf) {
        struct issuer *is = issuer_new(o, c->arena, conf, err);

        if (!is)
            return err_wrap(err, "jwt[%u]", i);
        if (issuer_named(c, is->url)) {
            err_set(err, INVALID_ARGUMENT, "jwt[%u].issuer.url: \"%s\" is there already", i, is->url);
            issuer_free(is);
            return -1;
        }
        c->v[c->n++] = is;
        i++;
    }
    return 0;
}

static struct config *config_read(struct oidc *o, struct err *err)
{
    struct config *c = xcalloc(1, sizeof(*c));
    _auto_(freep) char *text = NULL;
    const char *version;
    size_t n;

    c->arena = arena_new();
    if (!(text = fs_read(o->path, FILE_BYTES_MAX, &n, err)) ||
        !(c->tree = yaml_parse(c->arena, text, n, NULL, NULL, err)))
        goto bad;
    version = val_str_at(c->tree, "apiVersion", "");
    if (!streq(val_str_at(c->tree, "kind", ""), "AuthenticationConfiguration") ||
        (!streq(version, "apiserver.config.k8s.io/v1") && !streq(version, "apiserver.config.k8s.io/v1beta1"))) {
        err_set(err, INVALID_ARGUMENT, "it must be an AuthenticationConfiguration of apiserver.config.k8s.io/v1");
        goto bad;
    }
    if (read_anonymous(c->tree, err) == 0 && read_issuers(o, c, err) == 0)
        return c;
bad:
    err_wrap(err, "authentication configuration %s", o->path);
    return config_free(c);
}

/* The keys of an issuer that is asked at the same place under the same CA. */
static void inherit(struct issuer *is, struct issuer *old)
{
    if (old && val_equal(val_get(is->conf, "issuer"), val_get(old->conf, "issuer")))
        is->keys = STEAL(old->keys);
}

static void install(struct oidc *o, struct config *c)
{
    struct config *old = o->config;

    o->config = c;
    for (uint32_t i = 0; i < c->n; i++) {
        inherit(c->v[i], issuer_named(old, c->v[i]->url));
        env_timer_start(c->v[i]->timer, 0, 0);
    }
    config_free(old);
}

static void look(void *arg)
{
    struct oidc *o = arg;
    struct err err = {0};
    struct config *c;

    if (!fs_changed(o->path, &o->seen))
        return;
    c = config_read(o, &err);
    metrics_reload(o->api->metrics, "authentication", c != NULL, env_now_ms(o->api->env));
    if (c) {
        install(o, c);
        LOG(INFO, "oidc", "did=reload issuers=%u", c->n);
    } else {
        LOG(ERROR, "oidc", "did=reload kept=old err=\"%s\"", err.msg);
    }
}

struct oidc *oidc_new(struct api *api, const char *path, struct err *err)
{
    struct oidc *o = xcalloc(1, sizeof(*o));
    struct config *c;

    o->api = api;
    o->path = xstrdup(path);
    fs_changed(o->path, &o->seen);
    if (!(c = config_read(o, err)))
        return oidc_free(o);
    if (env_loop(api->env))
        o->client = http_client_new(env_loop(api->env), NULL);
    install(o, c);
    o->look = env_timer_new(api->env, look, o);
    env_timer_start(o->look, LOOK_MS, LOOK_MS);
    return o;
}

void *oidc_free(struct oidc *o)
{
    if (!o)
        return NULL;
    oidc_close(o);
    env_timer_free(o->look);
    config_free(o->config);
    if (o->client)
        http_client_free(o->client);
    free(o->path);
    free(o);
    return NULL;
}

void oidc_close(struct oidc *o)
{
    o->closed = true;
    for (uint32_t i = 0; o->config && i < o->config->n; i++)
        wake_all(o->config->v[i]);
}

const struct val *oidc_anonymous(const struct oidc *o)
{
    return val_get(o->config->tree, "anonymous");
}

/* ---------------------------------------------------------------- tokens */

static int refuse(struct err *err, const char *why)
{
    err_set(err, UNAUTHENTICATED, "oidc: %s", why);
    return AUTHN_NO;
}

static bool has_text(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

static bool audience_fits(const struct issuer *is, const struct val *aud)
{
    const struct val *wanted = val_at(is->conf, "issuer.audiences");

    if (val_is(aud, VAL_STR))
        return has_text(wanted, aud->s);
    VAL_EACH(aud, it)
        if (has_text(wanted, val_text(it, "")))
            return true;
    return false;
}

static bool whole_number(const struct val *v, int64_t *ret)
{
    if (!val_is_number(v) || (v->type == VAL_DOUBLE && !(val_num(v) > -9e15 && val_num(v) < 9e15)))
        return false;
    *ret = v->type == VAL_INT ? v->i : (int64_t)val_num(v);
    return true;
}

/* Times and audiences, of a token whose signature is good. */
static int check_claims(const struct issuer *is, const struct val *claims, int64_t now, struct err *err)
{
    int64_t exp, nbf;

    if (!whole_number(val_get(claims, "exp"), &exp))
        return refuse(err, "verify token: there is no exp claim");
    if (exp <= now)
        return refuse(err, "verify token: token is expired");
    if (val_get(claims, "nbf") && (!whole_number(val_get(claims, "nbf"), &nbf) || nbf > now + EARLY_S))
        return refuse(err, "verify token: current time is before the nbf time");
    if (!audience_fits(is, val_get(claims, "aud")))
        return refuse(err, "verify token: it is for other audiences");
    return AUTHN_OK;
}

/* The keys are fetched again for this request, or AUTHN_NO: they just were. */
static int wait_for_keys(struct issuer *is, const struct authn_ask *q, struct err *err)
{
    bool just = is->fetched_ms && env_now_ms(is->o->api->env) - is->fetched_ms < AGAIN_MS;

    if (!is->call && just)
        return refuse(err, is->keys ? "verify token: failed to verify signature"
                                    : "authenticator not initialized");
    if (!is->call)
        fetch(is);
    if (!q->wake || is->waiters_n == WAITERS_MAX || !is->call || is->o->closed)
        return refuse(err, is->keys ? "verify token: failed to verify signature"
                                    : "authenticator not initialized");
    is->waiters[is->waiters_n++] = (struct waiter){q->wake, q->wake_arg};
    return AUTHN_WAIT;
}

/* Of the audiences asked for those that are the API's own: such a token is for it. */
static const struct val *own_audiences(struct arena *a, const struct val *asked)
{
    struct val *own = val_list(a);

    if (!val_len(asked) || has_text(asked, TOKEN_ISSUER))
        val_push_str(a, own, TOKEN_ISSUER);
    return own;
}

enum authn_result oidc_token(struct oidc *o, const struct jwt *t, const struct authn_ask *q,
                             struct authn_answer *ret, struct err *err)
{
    const char *iss = val_text(val_get(t->claims, "iss"), "");
    struct issuer *is = issuer_named(o->config, iss);
    const struct val *own = own_audiences(q->arena, q->audiences);
    const char **groups;
    size_t n = 0;
    int r;

    if (!is || !val_len(own)) {
        err_set(err, UNAUTHENTICATED, "invalid bearer token");
        return AUTHN_NO;
    }
    if (!is->keys || !jwks_verify(is->keys, t))
        return (enum authn_result)wait_for_keys(is, q, err);
    if ((r = check_claims(is, t->claims, q->now_s, err)) != AUTHN_OK)
        return (enum authn_result)r;
    if (mapping_user(is->map, t->claims, q->arena, &ret->user, err) < 0)
        return AUTHN_NO;
    while (ret->user.groups && ret->user.groups[n])
        n++;
    groups = arena_array(q->arena, const char *, n + 2);
    for (size_t i = 0; i < n; i++)
        groups[i] = ret->user.groups[i];
    groups[n] = GROUP_AUTHENTICATED;
    ret->user.groups = groups;
    ret->audiences = own;
    return AUTHN_OK;
}
