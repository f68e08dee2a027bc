/* auth/token.c - see token.h. */
#include "auth/token.h"

#include "auth/b64.h"
#include "auth/jwt.h"
#include "base/map.h"
#include "codec/json.h"
#include "codec/kubetime.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

enum { LEEWAY_S = 60 }; /* what is being deleted may still be used for so long */

static void put_ref(struct arena *a, struct val *map, const char *key, const char *name,
                    const char *uid)
{
    struct val *ref = val_map(a);

    val_put_str(a, ref, "name", name);
    if (!str_empty(uid))
        val_put_str(a, ref, "uid", uid);
    val_put(a, map, key, ref);
}

static struct val *claims_of(const struct token_spec *t, struct arena *a)
{
    struct val *c = val_map(a), *k = val_map(a);

    val_put(a, c, "aud", val_copy(a, t->audiences));
    val_put_int(a, c, "exp", t->now + t->seconds);
    val_put_int(a, c, "iat", t->now);
    val_put_str(a, c, "iss", TOKEN_ISSUER);
    val_put_str(a, c, "jti", t->id);
    val_put_str(a, k, "namespace", t->namespace_);
    if (t->bound_kind && streq(t->bound_kind, "Node"))
        put_ref(a, k, "node", t->bound_name, t->bound_uid);
    else if (t->node_name)
        put_ref(a, k, "node", t->node_name, t->node_uid);
    if (t->bound_kind && streq(t->bound_kind, "Pod"))
        put_ref(a, k, "pod", t->bound_name, t->bound_uid);
    if (t->bound_kind && streq(t->bound_kind, "Secret"))
        put_ref(a, k, "secret", t->bound_name, t->bound_uid);
    put_ref(a, k, "serviceaccount", t->account, t->account_uid);
    if (t->warn_after)
        val_put_int(a, k, "warnafter", t->warn_after);
    val_put(a, c, "kubernetes.io", k);
    val_put_int(a, c, "nbf", t->now);
    val_put(a, c, "sub", val_printf(a, "system:serviceaccount:%s:%s", t->namespace_, t->account));
    return c;
}

char *token_make(struct evp_pkey_st *key, const struct token_spec *spec, struct arena *a,
                 struct err *err)
{
    char *token = jwt_make(key, claims_of(spec, a), a);

    if (!token)
        err_set(err, INTERNAL, "cannot sign a token");
    return token;
}

char *token_make_legacy(struct evp_pkey_st *key, const char *ns, const char *account,
                        const char *account_uid, const char *secret, struct arena *a)
{
    struct val *c = val_map(a);

    val_put_str(a, c, "iss", TOKEN_LEGACY_ISSUER);
    val_put_str(a, c, "kubernetes.io/serviceaccount/namespace", ns);
    val_put_str(a, c, "kubernetes.io/serviceaccount/secret.name", secret);
    val_put_str(a, c, "kubernetes.io/serviceaccount/service-account.name", account);
    val_put_str(a, c, "kubernetes.io/serviceaccount/service-account.uid", account_uid);
    val_put(a, c, "sub", val_printf(a, "system:serviceaccount:%s:%s", ns, account));
    return jwt_make(key, c, a);
}

char *token_detached(const char *id, const char *secret, const char *text, struct arena *a)
{
    struct val *head = val_map(a);
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned sum_n = 0;
    size_t n;
    char *h, *all;

    val_put_str(a, head, "alg", "HS256");
    val_put_str(a, head, "kid", id);
    h = json_text(a, head, &n);
    h = b64url(a, h, n);
    all = arena_printf(a, "%s.%s", h, b64url(a, text, strlen(text)));
    if (!HMAC(EVP_sha256(), secret, (int)strlen(secret), (unsigned char *)all, strlen(all), sum, &sum_n))
        return NULL;
    return arena_printf(a, "%s..%s", h, b64url(a, sum, sum_n));
}

/* ---------------------------------------------------------------- verify */

static bool list_has(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

static struct val *audiences_met(const struct val *token, const struct val *wanted, struct arena *a)
{
    struct val *own = val_list(a), *met = val_list(a);

    val_push_str(a, own, TOKEN_ISSUER);
    VAL_EACH(val_len(wanted) ? wanted : own, w) {
        const char *text = val_text(w, "");
        if (list_has(token, text) || (val_is(token, VAL_STR) && streq(token->s, text)))
            val_push_str(a, met, text);
    }
    return met;
}

/* Is it there, the same one, and not about to go? A pod that ends keeps its token for the end. */
static bool still_there(const struct token_check *q, struct arena *a, const char *kind,
                        const char *ns, const struct val *ref)
{
    const struct obj *o;
    int64_t at;

    if (!ref)
        return true;
    o = q->lookup(q->arg, a, kind, ns, val_str_at(ref, "name", ""));
    if (!o || !streq(o->uid, val_str_at(ref, "uid", "")))
        return false;
    at = obj_deleting(o) ? kubetime_parse(val_str_at(obj_val(o), "metadata.deletionTimestamp", "")) : -1;
    return at < 0 || at / 1000 + LEEWAY_S > q->now;
}

static void extra_put(struct arena *a, struct val *extra, const char *key, const char *value)
{
    if (value)
        val_push_str(a, val_need_list(a, extra, key), value);
}

static void fill_user(struct arena *a, const char *ns, const char *account, const char *uid,
                      const struct val *extra, struct auth_user *ret)
{
    const char **groups = arena_array(a, const char *, 4);

    groups[0] = "system:serviceaccounts";
    groups[1] = arena_printf(a, "system:serviceaccounts:%s", ns);
    groups[2] = GROUP_AUTHENTICATED;
    *ret = (struct auth_user){.name = arena_printf(a, "system:serviceaccount:%s:%s", ns, account),
                              .uid = arena_strdup(a, uid), .groups = groups, .extra = val_len(extra) ? extra : NULL};
}

/* What a token of 3600 seconds says for a pod that was given a year (warnafter): it should have been
 * renewed by now. */
static const char *stale(const struct val *k, int64_t now)
{
    int64_t warn = val_int_at(k, "warnafter", 0);

    return warn && now > warn ? "stale" : NULL;
}

static int verify_bound(const struct val *c, const struct token_check *q, struct arena *a,
                        struct token_found *ret, struct err *err)
{
    const struct val *k = val_get(c, "kubernetes.io"), *sa = val_get(k, "serviceaccount");
    const char *ns = val_text(val_get(k, "namespace"), NULL);
    const char *account = val_str_at(sa, "name", NULL);
    struct val *extra = val_map(a), *met;
    bool node = val_get(k, "node") != NULL;

    if (!ns || !account)
        return err_set(err, UNAUTHENTICATED, "invalid bearer token");
    if (val_int_at(c, "exp", 0) <= q->now || val_int_at(c, "nbf", 0) > q->now + 60)
        return err_set(err, UNAUTHENTICATED, "service account token has expired");
    met = audiences_met(val_get(c, "aud"), q->audiences, a);
    if (!val_len(met))
        return err_set(err, UNAUTHENTICATED, "token audiences are not those wanted");
    if (!still_there(q, a, "ServiceAccount", ns, sa) || !still_there(q, a, "Pod", ns, val_get(k, "pod")) ||
        !still_there(q, a, "Secret", ns, val_get(k, "secret")) ||
        (node && !val_get(k, "pod") && !still_there(q, a, "Node", "", val_get(k, "node"))))
        return err_set(err, UNAUTHENTICATED, "service account token has been invalidated");
    if (val_str_at(c, "jti", NULL))
        extra_put(a, extra, "authentication.kubernetes.io/credential-id",
                  arena_printf(a, "JTI=%s", val_str_at(c, "jti", "")));
    extra_put(a, extra, "authentication.kubernetes.io/node-name", val_str_at(k, "node.name", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/node-uid", val_str_at(k, "node.uid", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/pod-name", val_str_at(k, "pod.name", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/pod-uid", val_str_at(k, "pod.uid", NULL));
    fill_user(a, ns, account, val_str_at(sa, "uid", ""), extra, &ret->user);
    ret->audiences = met;
    ret->stale = stale(k, q->now) != NULL;
    return 0;
}

/* Tokens that lie in secrets: good as long as the secret holds them. They are for the API alone. */
static int verify_legacy(const struct val *c, const char *token, const struct token_check *q,
                         struct arena *a, struct token_found *ret, struct err *err)
{
    static const char prefix[] = "kubernetes.io/serviceaccount/";
    const char *said[4];
    static const char *const keys[] = {"namespace", "secret.name", "service-account.name",
                                       "service-account.uid"};
    const struct obj *secret, *account;
    const char *text;
    unsigned char *held;
    size_t n = 0;
    struct val *own = val_list(a);

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        said[i] = val_text(val_get(c, arena_printf(a, "%s%s", prefix, keys[i])), "");
        if (!*said[i])
            return err_set(err, UNAUTHENTICATED, "invalid bearer token");
        said[i] = arena_strdup(a, said[i]); /* the claims may go before the answer does */
    }
    val_push_str(a, own, TOKEN_ISSUER);
    if (val_len(q->audiences)) {
        ret->audiences = audiences_met(own, q->audiences, a);
        if (!val_len(ret->audiences))
            return err_set(err, UNAUTHENTICATED, "token audiences are not those wanted");
    } else {
        ret->audiences = own;
    }
    secret = q->lookup(q->arg, a, "Secret", said[0], said[1]);
    text = secret ? val_text(val_get(val_get(obj_val(secret), "data"), "token"), "") : "";
    held = base64_decode(a, text, strlen(text), &n);
    if (!secret || obj_deleting(secret) || !held || n != strlen(token) ||
        CRYPTO_memcmp(held, token, n) != 0)
        return err_set(err, UNAUTHENTICATED, "service account token has been invalidated");
    account = q->lookup(q->arg, a, "ServiceAccount", said[0], said[2]);
    if (!account || obj_deleting(account) || !streq(account->uid, said[3]))
        return err_set(err, UNAUTHENTICATED, "service account token has been invalidated");
    ret->legacy = said[1];
    VAL_EACH(val_get(obj_val(account), "secrets"), s)
        ret->legacy_auto |= streq(val_str_at(s, "name", ""), said[1]);
    fill_user(a, said[0], said[2], said[3], NULL, &ret->user);
    return 0;
}

/* ---------------------------------------------------------------- those seen before */

enum { SEEN_SLOTS = 128, SEEN_TOKEN_BYTES_MAX = 4096 };

struct token_seen {
    struct seen {
        struct arena *a; /* holds the rest; NULL: free */
        char *token;
        struct jwt t;
    } v[SEEN_SLOTS];
};

struct token_seen *token_seen_new(void)
{
    return xcalloc(1, sizeof(struct token_seen));
}

void *token_seen_free(struct token_seen *s)
{
    for (uint32_t i = 0; s && i < SEEN_SLOTS; i++)
        arena_free(s->v[i].a);
    free(s);
    return NULL;
}

/* The last bytes are the signature's: as good as random. */
static struct seen *seen_slot(const struct token_seen *s, const char *token, size_t n)
{
    return (struct seen *)(uintptr_t)&s->v[str_hash(token + n - MIN(n, (size_t)16), MIN(n, (size_t)16)) % SEEN_SLOTS];
}

static const struct jwt *seen_find(const struct token_seen *s, const char *token)
{
    struct seen *e = s ? seen_slot(s, token, strlen(token)) : NULL;

    return e && e->a && streq(e->token, token) ? &e->t : NULL;
}

bool token_seen_has(const struct token_seen *s, const char *token)
{
    return seen_find(s, token) != NULL;
}

static void seen_put(struct token_seen *s, const char *token)
{
    size_t n = strlen(token);
    struct seen *e = s && n <= SEEN_TOKEN_BYTES_MAX ? seen_slot(s, token, n) : NULL;
    struct err ignored = {0};

    if (!e)
        return;
    arena_free(e->a);
    e->a = arena_new();
    e->token = arena_strdup(e->a, token);
    if (jwt_parse(e->token, e->a, &e->t, &ignored) < 0)
        e->a = arena_free(e->a);
}

/* Whose signature is good, or NULL. */
static const struct jwt *signed_token(const struct token_keys *keys, const char *token,
                                      const struct token_check *q, struct arena *a, struct err *err)
{
    const struct jwt *known = seen_find(q->seen, token);
    struct jwt *t;

    if (known)
        return known;
    t = arena_new_of(a, struct jwt);
    if (jwt_parse(token, a, t, err) < 0)
        return NULL;
    for (uint32_t i = 0; token_is_ours(t) && i < keys->n; i++)
        if (jwt_signed_by(t, keys->v[i])) {
            seen_put(q->seen, token);
            return t;
        }
    err_set(err, UNAUTHENTICATED, "invalid bearer token");
    return NULL;
}

bool token_is_ours(const struct jwt *t)
{
    const char *iss = val_text(val_get(t->claims, "iss"), "");

    return streq(iss, TOKEN_ISSUER) || streq(iss, TOKEN_LEGACY_ISSUER);
}

int token_verify(const struct token_keys *keys, const char *token, const struct token_check *q,
                 struct arena *a, struct token_found *ret, struct err *err)
{
    struct token_found found = {0};
    const struct jwt *t = signed_token(keys, token, q, a, err);
    bool legacy = t && streq(val_text(val_get(t->claims, "iss"), ""), TOKEN_LEGACY_ISSUER);

    if (!t)
        return -1;
    if ((legacy ? verify_legacy(t->claims, token, q, a, &found, err)
                : verify_bound(t->claims, q, a, &found, err)) < 0)
        return -1;
    *ret = found;
    return 0;
}

/* ---------------------------------------------------------------- documents */

struct val *token_jwks(const struct token_keys *keys, struct arena *a)
{
    struct val *doc = val_map(a), *list = val_list(a);

    for (uint32_t i = 0; i < keys->n; i++)
        val_push(a, list, jwt_jwk(keys->v[i], a));
    val_put(a, doc, "keys", list);
    return doc;
}

struct val *token_openid(const struct token_keys *keys, struct arena *a, const char *server_url)
{
    struct val *doc = val_map(a), *algs = val_list(a);

    for (uint32_t i = 0; i < keys->n; i++)
        if (!list_has(algs, jwt_key_alg(keys->v[i])))
            val_push_str(a, algs, jwt_key_alg(keys->v[i]));
    val_put_str(a, doc, "issuer", TOKEN_ISSUER);
    val_put(a, doc, "jwks_uri", val_printf(a, "%s/openid/v1/jwks", server_url));
    val_push_str(a, val_need_list(a, doc, "response_types_supported"), "id_token");
    val_push_str(a, val_need_list(a, doc, "subject_types_supported"), "public");
    val_put(a, doc, "id_token_signing_alg_values_supported", algs);
    return doc;
}
