/* auth/jwt.c - see jwt.h. Compact JWS: base64url(header).base64url(claims).base64url(signature). The
 * signature of the ES algorithms is r || s, each as long as the curve; OpenSSL speaks DER, so these are
 * turned around here. */
#include "auth/jwt.h"

#include "auth/b64.h"
#include "codec/json.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 16384 };

enum family { RS, PS, ES };
static const struct alg {
    const char *name;
    enum family family;
    const EVP_MD *(*md)(void);
    const char *curve, *group; /* ES: as JWK and as OpenSSL name it */
    size_t half;               /* ES: bytes of r and of s */
} ALGS[] = {
    {"RS256", RS, EVP_sha256, NULL, NULL, 0},       {"RS384", RS, EVP_sha384, NULL, NULL, 0},
    {"RS512", RS, EVP_sha512, NULL, NULL, 0},       {"PS256", PS, EVP_sha256, NULL, NULL, 0},
    {"PS384", PS, EVP_sha384, NULL, NULL, 0},       {"PS512", PS, EVP_sha512, NULL, NULL, 0},
    {"ES256", ES, EVP_sha256, "P-256", "prime256v1", 32},
    {"ES384", ES, EVP_sha384, "P-384", "secp384r1", 48},
    {"ES512", ES, EVP_sha512, "P-521", "secp521r1", 66},
};

static const struct alg *alg_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(ALGS); i++)
        if (streq(ALGS[i].name, name))
            return &ALGS[i];
    return NULL;
}

/* ---------------------------------------------------------------- reading */

static int bad(struct err *err, const char *why)
{
    return err_set(err, UNAUTHENTICATED, "invalid bearer token: %s", why);
}

static const struct val *part(struct arena *a, const char *s, size_t n)
{
    struct err ignored = {0};
    size_t bytes = 0;
    unsigned char *text = b64url_decode(a, s, n, &bytes);
    struct val *v = text ? json_parse(a, (char *)text, bytes, &ignored) : NULL;

    return val_is(v, VAL_MAP) ? v : NULL;
}

int jwt_parse(const char *token, struct arena *a, struct jwt *ret, struct err *err)
{
    size_t n = strlen(token);
    const char *dot = strchr(token, '.'), *dot2 = dot ? strchr(dot + 1, '.') : NULL;
    struct jwt t = {0};

    if (n > JWT_BYTES_MAX)
        return bad(err, "it is too long");
    if (!dot2 || strchr(dot2 + 1, '.'))
        return bad(err, "it does not have three parts");
    t.head = part(a, token, (size_t)(dot - token));
    t.claims = part(a, dot + 1, (size_t)(dot2 - dot - 1));
    t.sig = b64url_decode(a, dot2 + 1, strlen(dot2 + 1), &t.sig_n);
    if (!t.head || !t.claims || !t.sig)
        return bad(err, "its parts are not base64url of JSON objects");
    t.alg = val_text(val_get(t.head, "alg"), "");
    t.kid = val_text(val_get(t.head, "kid"), "");
    if (!alg_named(t.alg))
        return bad(err, "it is signed by an algorithm that is not taken");
    if (val_get(t.head, "crit"))
        return bad(err, "its header has critical extensions");
    t.text = token;
    t.text_n = (size_t)(dot2 - token);
    *ret = t;
    return 0;
}

/* ---------------------------------------------------------------- keys */

static bool key_fits(EVP_PKEY *key, const struct alg *g)
{
    char group[64] = "";
    size_t n;

    if (g->family != ES)
        return EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN &&
               EVP_PKEY_get_bits(key) <= RSA_BITS_MAX;
    return EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 && streq(group, g->group);
}

const char *jwt_key_alg(struct evp_pkey_st *key)
{
    if (EVP_PKEY_is_a(key, "RSA"))
        return key_fits(key, &ALGS[0]) ? "RS256" : NULL;
    for (size_t i = 0; i < ARRAY_LEN(ALGS); i++)
        if (ALGS[i].family == ES && key_fits(key, &ALGS[i]))
            return ALGS[i].name;
    return NULL;
}

char *jwt_key_id(struct evp_pkey_st *key, struct arena *a)
{
    unsigned char *der = NULL, sum[SHA256_DIGEST_LENGTH];
    int n = i2d_PUBKEY(key, &der);

    if (n <= 0)
        return arena_strdup(a, "");
    SHA256(der, (size_t)n, sum);
    OPENSSL_free(der);
    return b64url(a, sum, sizeof(sum));
}

static void put_number(struct arena *a, struct val *jwk, const char *key, EVP_PKEY *pkey,
                       const char *param)
{
    unsigned char bytes[RSA_BITS_MAX / 8];
    BIGNUM *bn = NULL;

    if (EVP_PKEY_get_bn_param(pkey, param, &bn) == 1 && BN_num_bytes(bn) <= (int)sizeof(bytes))
        val_put_str(a, jwk, key, b64url(a, bytes, (size_t)BN_bn2bin(bn, bytes)));
    BN_free(bn);
}

struct val *jwt_jwk(struct evp_pkey_st *key, struct arena *a)
{
    const char *name = jwt_key_alg(key);
    const struct alg *g = name ? alg_named(name) : NULL;
    struct val *jwk = val_map(a);
    unsigned char point[1 + 2 * 66];
    size_t n = 0;

    if (!g)
        return NULL;
    val_put_str(a, jwk, "use", "sig");
    val_put_str(a, jwk, "kty", g->family == ES ? "EC" : "RSA");
    val_put_str(a, jwk, "kid", jwt_key_id(key, a));
    if (g->family == ES)
        val_put_str(a, jwk, "crv", g->curve);
    val_put_str(a, jwk, "alg", g->name);
    if (g->family != ES) {
        put_number(a, jwk, "n", key, OSSL_PKEY_PARAM_RSA_N);
        put_number(a, jwk, "e", key, OSSL_PKEY_PARAM_RSA_E);
        return jwk;
    }
    if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &n) != 1 ||
        n != 1 + 2 * g->half)
        return NULL;
    val_put_str(a, jwk, "x", b64url(a, point + 1, g->half));
    val_put_str(a, jwk, "y", b64url(a, point + 1 + g->half, g->half));
    return jwk;
}

/* ---------------------------------------------------------------- signatures */

/* r || s as DER; NULL: malformed. */
static unsigned char *to_der(const unsigned char *raw, size_t half, size_t *ret_n)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)half, NULL), *s = BN_bin2bn(raw + half, (int)half, NULL);
    unsigned char *der = NULL;
    int n = -1;

    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* the signature's now */
        n = i2d_ECDSA_SIG(sig, &der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    *ret_n = n > 0 ? (size_t)n : 0;
    return der;
}

static bool verify(EVP_PKEY *key, const struct alg *g, const void *text, size_t text_n,
                   const unsigned char *sig, size_t sig_n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pc = NULL;
    bool good = ctx && EVP_DigestVerifyInit(ctx, &pc, g->md(), NULL, key) == 1;

    if (good && g->family == PS)
        good = EVP_PKEY_CTX_set_rsa_padding(pc, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(pc, RSA_PSS_SALTLEN_DIGEST) == 1;
    good = good && EVP_DigestVerify(ctx, sig, sig_n, text, text_n) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

bool jwt_signed_by(const struct jwt *t, struct evp_pkey_st *key)
{
    const struct alg *g = alg_named(t->alg);
    unsigned char *der;
    size_t n;
    bool good;

    if (!g || !key_fits(key, g))
        return false;
    if (g->family != ES)
        return verify(key, g, t->text, t->text_n, t->sig, t->sig_n);
    if (t->sig_n != 2 * g->half)
        return false;
    der = to_der(t->sig, g->half, &n);
    good = der && n && verify(key, g, t->text, t->text_n, der, n);
    OPENSSL_free(der);
    return good;
}

/* DER to r || s; false: malformed. */
static bool from_der(const unsigned char *der, size_t n, size_t half, unsigned char *out)
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
    bool good = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, (int)half) == (int)half &&
                BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + half, (int)half) == (int)half;

    ECDSA_SIG_free(sig);
    return good;
}

char *jwt_make(struct evp_pkey_st *key, const struct val *claims, struct arena *a)
{
    const char *name = jwt_key_alg(key);
    const struct alg *g = name ? alg_named(name) : NULL;
    unsigned char sig[RSA_BITS_MAX / 8], raw[2 * 66];
    size_t head_n, claims_n, sig_n = sizeof(sig);
    struct val *h = val_map(a);
    char *head, *body, *text;
    EVP_MD_CTX *ctx;
    bool good;

    if (!g)
        return NULL;
    val_put_str(a, h, "alg", g->name);
    val_put_str(a, h, "kid", jwt_key_id(key, a));
    head = json_text(a, h, &head_n);
    body = json_text(a, claims, &claims_n);
    text = arena_printf(a, "%s.%s", b64url(a, head, head_n), b64url(a, body, claims_n));
    ctx = EVP_MD_CTX_new();
    good = ctx && EVP_DigestSignInit(ctx, NULL, g->md(), NULL, key) == 1 &&
           EVP_DigestSign(ctx, sig, &sig_n, (unsigned char *)text, strlen(text)) == 1 &&
           (g->family != ES || from_der(sig, sig_n, g->half, raw));
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (!good)
        return NULL;
    return arena_printf(a, "%s.%s", text, g->family == ES ? b64url(a, raw, 2 * g->half)
                                                          : b64url(a, sig, sig_n));
}

/* ---------------------------------------------------------------- sets of keys */

struct jwks {
    uint32_t n;
    struct {
        char *kid;
        EVP_PKEY *key;
    } v[JWKS_KEYS_MAX];
};

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *bld)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *read_rsa(const struct val *jwk, struct arena *a)
{
    const char *nt = val_text(val_get(jwk, "n"), ""), *et = val_text(val_get(jwk, "e"), "");
    size_t n_n = 0, e_n = 0;
    unsigned char *n = b64url_decode(a, nt, strlen(nt), &n_n), *e = b64url_decode(a, et, strlen(et), &e_n);
    OSSL_PARAM_BLD *bld;
    BIGNUM *bn, *be;
    EVP_PKEY *key = NULL;

    if (!n || !e || n_n < RSA_BITS_MIN / 8 || n_n > RSA_BITS_MAX / 8 || !e_n || e_n > 8)
        return NULL;
    bld = OSSL_PARAM_BLD_new();
    bn = BN_bin2bn(n, (int)n_n, NULL);
    be = BN_bin2bn(e, (int)e_n, NULL);
    if (bld && bn && be && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, bn) &&
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, be))
        key = from_params("RSA", bld);
    OSSL_PARAM_BLD_free(bld);
    BN_free(bn);
    BN_free(be);
    return key;
}

static EVP_PKEY *read_ec(const struct val *jwk, struct arena *a)
{
    const char *xt = val_text(val_get(jwk, "x"), ""), *yt = val_text(val_get(jwk, "y"), "");
    const char *crv = val_text(val_get(jwk, "crv"), "");
    size_t x_n = 0, y_n = 0;
    unsigned char *x = b64url_decode(a, xt, strlen(xt), &x_n), *y = b64url_decode(a, yt, strlen(yt), &y_n);
    unsigned char point[1 + 2 * 66] = {4};
    const struct alg *g = NULL;
    OSSL_PARAM_BLD *bld;
    EVP_PKEY *key = NULL;

    for (size_t i = 0; i < ARRAY_LEN(ALGS); i++)
        if (ALGS[i].curve && streq(ALGS[i].curve, crv))
            g = &ALGS[i];
    if (!g || !x || !y || x_n != g->half || y_n != g->half)
        return NULL;
    memcpy(point + 1, x, x_n);
    memcpy(point + 1 + x_n, y, y_n);
    bld = OSSL_PARAM_BLD_new();
    if (bld && OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, g->group, 0) &&
        OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * g->half))
        key = from_params("EC", bld); /* refuses a point that is not on the curve */
    OSSL_PARAM_BLD_free(bld);
    return key;
}

struct jwks *jwks_parse(const char *text, size_t n, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = json_parse(a, text, n, err);
    struct jwks *k;

    if (!v)
        return err_wrap(err, "key set"), NULL;
    k = xcalloc(1, sizeof(*k));
    VAL_EACH(val_get(v, "keys"), jwk) {
        const char *kty = val_text(val_get(jwk, "kty"), ""), *use = val_text(val_get(jwk, "use"), "sig");
        EVP_PKEY *key;

        if (k->n == JWKS_KEYS_MAX || !streq(use, "sig"))
            continue;
        key = streq(kty, "RSA") ? read_rsa(jwk, a) : streq(kty, "EC") ? read_ec(jwk, a) : NULL;
        if (!key)
            continue;
        k->v[k->n].kid = xstrdup(val_text(val_get(jwk, "kid"), ""));
        k->v[k->n++].key = key;
    }
    ERR_clear_error();
    if (k->n)
        return k;
    err_set(err, INVALID_ARGUMENT, "the key set holds no key that signatures can be checked with");
    return jwks_free(k);
}

void *jwks_free(struct jwks *k)
{
    for (uint32_t i = 0; k && i < k->n; i++) {
        free(k->v[i].kid);
        EVP_PKEY_free(k->v[i].key);
    }
    free(k);
    return NULL;
}

uint32_t jwks_count(const struct jwks *k)
{
    return k ? k->n : 0;
}

bool jwks_has(const struct jwks *k, const char *kid)
{
    for (uint32_t i = 0; k && i < k->n; i++)
        if (streq(k->v[i].kid, kid))
            return true;
    return false;
}

bool jwks_verify(const struct jwks *k, const struct jwt *t)
{
    for (uint32_t i = 0; k && i < k->n; i++)
        if ((!*t->kid || streq(k->v[i].kid, t->kid)) && jwt_signed_by(t, k->v[i].key))
            return true;
    return false;
}
