/* auth/token.c - see token.h. Compact JWS: base64url(header).base64url(claims).base64url(r || s),
 * r and s 32 bytes each, big-endian; OpenSSL speaks DER, so signatures are turned around here. */
#include "auth/token.h"

#include "codec/json.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

enum { TOKEN_BYTES_MAX = 16384, HALF = 32 };

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *b64url(struct arena *a, const void *data, size_t n)
{
    const unsigned char *p = data;
    char *out = arena_alloc(a, n * 4 / 3 + 4), *o = out;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *o++ = b64[v >> 18];
        *o++ = b64[v >> 12 & 63];
        if (i + 1 < n)
            *o++ = b64[v >> 6 & 63];
        if (i + 2 < n)
            *o++ = b64[v & 63];
    }
    *o = 0;
    return out;
}

/* NULL when it is not base64url. */
static unsigned char *unb64url(struct arena *a, const char *s, size_t n, size_t *ret_n)
{
    unsigned char *out = arena_alloc(a, n * 3 / 4 + 4);
    uint32_t v = 0;
    size_t o = 0;
    int bits = 0;

    if (n % 4 == 1)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const char *at = s[i] ? strchr(b64, s[i]) : NULL;

        if (!at)
            return NULL;
        v = v << 6 | (uint32_t)(at - b64);
        if ((bits += 6) >= 8)
            out[o++] = (unsigned char)(v >> (bits -= 8));
    }
    *ret_n = o;
    return out;
}

/* The public point, 0x04 || x || y. */
static bool key_point(EVP_PKEY *key, unsigned char point[65])
{
    size_t n = 0;

    return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, 65, &n) == 1 &&
           n == 65;
}

static char *key_id(EVP_PKEY *key, struct arena *a)
{
    unsigned char point[65], sum[SHA256_DIGEST_LENGTH];

    if (!key_point(key, point))
        return arena_strdup(a, "");
    SHA256(point, sizeof(point), sum);
    return b64url(a, sum, sizeof(sum));
}

static int sign(EVP_PKEY *key, const char *text, size_t n, unsigned char out[2 * HALF])
{
    unsigned char der[160];
    const unsigned char *p = der;
    size_t der_n = sizeof(der);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ECDSA_SIG *sig = NULL;
    int ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
             EVP_DigestSign(ctx, der, &der_n, (const unsigned char *)text, n) == 1 &&
             (sig = d2i_ECDSA_SIG(NULL, &p, (long)der_n)) != NULL &&
             BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, HALF) == HALF &&
             BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + HALF, HALF) == HALF;

    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok ? 0 : -1;
}

static bool signature_good(EVP_PKEY *key, const char *text, size_t n, const unsigned char *raw)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, HALF, NULL), *s = BN_bin2bn(raw + HALF, HALF, NULL);
    unsigned char *der = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = false;
    int der_n;

    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* the signature's now */
        der_n = i2d_ECDSA_SIG(sig, &der);
        ok = der_n > 0 && ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
             EVP_DigestVerify(ctx, der, (size_t)der_n, (const unsigned char *)text, n) == 1;
    }
    BN_free(r);
    BN_free(s);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

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
    val_put(a, c, "kubernetes.io", k);
    val_put_int(a, c, "nbf", t->now);
    val_put(a, c, "sub", val_printf(a, "system:serviceaccount:%s:%s", t->namespace_, t->account));
    return c;
}

char *token_make(struct evp_pkey_st *key, const struct token_spec *spec, struct arena *a,
                 struct err *err)
{
    size_t claims_n, head_n;
    char *claims = json_text(a, claims_of(spec, a), &claims_n), *head, *text;
    unsigned char sig[2 * HALF];
    struct val *h = val_map(a);

    val_put_str(a, h, "alg", "ES256");
    val_put_str(a, h, "kid", key_id(key, a));
    head = json_text(a, h, &head_n);
    text = arena_printf(a, "%s.%s", b64url(a, head, head_n), b64url(a, claims, claims_n));
    if (sign(key, text, strlen(text), sig) < 0) {
        err_set(err, INTERNAL, "cannot sign a token");
        return NULL;
    }
    return arena_printf(a, "%s.%s", text, b64url(a, sig, sizeof(sig)));
}

/* ---------------------------------------------------------------- verify */

/* The claims of a token with a good signature. */
static struct val *open_token(EVP_PKEY *key, const char *token, struct arena *a)
{
    struct err ignored = {0};
    const char *dot = strchr(token, '.'), *dot2 = dot ? strchr(dot + 1, '.') : NULL;
    unsigned char *head, *claims, *sig;
    size_t head_n = 0, claims_n = 0, sig_n = 0;
    struct val *h;

    if (!dot2 || strlen(token) > TOKEN_BYTES_MAX || strchr(dot2 + 1, '.'))
        return NULL;
    head = unb64url(a, token, (size_t)(dot - token), &head_n);
    claims = unb64url(a, dot + 1, (size_t)(dot2 - dot - 1), &claims_n);
    sig = unb64url(a, dot2 + 1, strlen(dot2 + 1), &sig_n);
    if (!head || !claims || !sig || sig_n != 2 * HALF)
        return NULL;
    h = json_parse(a, (char *)head, head_n, &ignored);
    if (!h || !streq(val_str_at(h, "alg", ""), "ES256") ||
        !signature_good(key, token, (size_t)(dot2 - token), sig))
        return NULL;
    return json_parse(a, (char *)claims, claims_n, &ignored);
}

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

static bool still_there(token_lookup_fn *lookup, void *arg, struct arena *a, const char *kind,
                        const char *ns, const struct val *ref)
{
    const struct obj *o;

    if (!ref)
        return true;
    o = lookup(arg, a, kind, ns, val_str_at(ref, "name", ""));
    return o && streq(o->uid, val_str_at(ref, "uid", ""));
}

static void extra_put(struct arena *a, struct val *extra, const char *key, const char *value)
{
    if (value)
        val_push_str(a, val_need_list(a, extra, key), value);
}

int token_verify(struct evp_pkey_st *key, const char *token, const struct val *audiences,
                 int64_t now, token_lookup_fn *lookup, void *arg, struct arena *a,
                 struct auth_user *ret_user, struct val **ret_audiences, struct err *err)
{
    struct val *c = open_token(key, token, a), *met;
    const struct val *k = val_get(c, "kubernetes.io");
    const char *ns = val_text(val_get(k, "namespace"), NULL);
    const struct val *sa = val_get(k, "serviceaccount");
    const char *account = val_str_at(sa, "name", NULL);
    struct val *extra = val_map(a);
    const char **groups;

    if (!c || !ns || !account || !streq(val_str_at(c, "iss", ""), TOKEN_ISSUER))
        return err_set(err, UNAUTHENTICATED, "invalid bearer token");
    if (val_int_at(c, "exp", 0) <= now || val_int_at(c, "nbf", 0) > now + 60)
        return err_set(err, UNAUTHENTICATED, "service account token has expired");
    met = audiences_met(val_get(c, "aud"), audiences, a);
    if (!val_len(met))
        return err_set(err, UNAUTHENTICATED, "token audiences are not those wanted");
    if (!still_there(lookup, arg, a, "ServiceAccount", ns, sa) ||
        !still_there(lookup, arg, a, "Pod", ns, val_get(k, "pod")) ||
        !still_there(lookup, arg, a, "Secret", ns, val_get(k, "secret")) ||
        (!val_get(k, "pod") && !still_there(lookup, arg, a, "Node", "", val_get(k, "node"))))
        return err_set(err, UNAUTHENTICATED, "service account token has been invalidated");
    if (val_str_at(c, "jti", NULL))
        extra_put(a, extra, "authentication.kubernetes.io/credential-id",
                  arena_printf(a, "JTI=%s", val_str_at(c, "jti", "")));
    extra_put(a, extra, "authentication.kubernetes.io/node-name", val_str_at(k, "node.name", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/node-uid", val_str_at(k, "node.uid", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/pod-name", val_str_at(k, "pod.name", NULL));
    extra_put(a, extra, "authentication.kubernetes.io/pod-uid", val_str_at(k, "pod.uid", NULL));
    groups = arena_array(a, const char *, 4);
    groups[0] = "system:serviceaccounts";
    groups[1] = arena_printf(a, "system:serviceaccounts:%s", ns);
    groups[2] = GROUP_AUTHENTICATED;
    *ret_user = (struct auth_user){
        .name = arena_printf(a, "system:serviceaccount:%s:%s", ns, account),
        .uid = val_str_at(sa, "uid", ""),
        .groups = groups,
        .extra = val_len(extra) ? extra : NULL,
    };
    if (ret_audiences)
        *ret_audiences = met;
    return 0;
}

/* ---------------------------------------------------------------- documents */

struct val *token_jwks(struct evp_pkey_st *key, struct arena *a)
{
    struct val *doc = val_map(a), *jwk = val_map(a);
    unsigned char point[65] = {0};

    key_point(key, point);
    val_put_str(a, jwk, "use", "sig");
    val_put_str(a, jwk, "kty", "EC");
    val_put_str(a, jwk, "kid", key_id(key, a));
    val_put_str(a, jwk, "crv", "P-256");
    val_put_str(a, jwk, "alg", "ES256");
    val_put_str(a, jwk, "x", b64url(a, point + 1, HALF));
    val_put_str(a, jwk, "y", b64url(a, point + 1 + HALF, HALF));
    val_push(a, val_need_list(a, doc, "keys"), jwk);
    return doc;
}

struct val *token_openid(struct arena *a, const char *server_url)
{
    struct val *doc = val_map(a);

    val_put_str(a, doc, "issuer", TOKEN_ISSUER);
    val_put(a, doc, "jwks_uri", val_printf(a, "%s/openid/v1/jwks", server_url));
    val_push_str(a, val_need_list(a, doc, "response_types_supported"), "id_token");
    val_push_str(a, val_need_list(a, doc, "subject_types_supported"), "public");
    val_push_str(a, val_need_list(a, doc, "id_token_signing_alg_values_supported"), "ES256");
    return doc;
}
