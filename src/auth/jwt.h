/* auth/jwt.h - JSON Web Tokens as they come from outside: compact JWS and sets of keys (JWKS).
 *
 * Signatures: RS256/384/512, PS256/384/512, ES256/384/512, each only with a key of its own kind and
 * curve, RSA from 2048 bits on. Nothing unsigned, nothing symmetric. What a token says counts only
 * after jwt_signed_by() or jwks_verify(); times and audiences are the caller's to check.
 * Thread: any; parsed parts live in the arena. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

struct evp_pkey_st;

enum { JWT_BYTES_MAX = 16384, JWKS_KEYS_MAX = 64 };

struct jwt {
    const struct val *head, *claims;
    const char *alg, *kid; /* kid "" when there is none */
    const char *text;      /* what is signed */
    size_t text_n;
    const unsigned char *sig;
    size_t sig_n;
};
/* UNAUTHENTICATED: it is no such token, too long, or of an algorithm that is not taken. */
int jwt_parse(const char *token, struct arena *a, struct jwt *ret, struct err *err) _must_check_;
bool jwt_signed_by(const struct jwt *t, struct evp_pkey_st *key);
/* Signs header+claims with this key (P-256: ES256, RSA: RS256; kid as jwt_key_id). NULL: it can not. */
char *jwt_make(struct evp_pkey_st *key, const struct val *claims, struct arena *a);
const char *jwt_key_alg(struct evp_pkey_st *key); /* "ES256", ...; NULL: none of ours */
/* base64url(SHA-256(the public key as DER)), as Kubernetes names keys. */
char *jwt_key_id(struct evp_pkey_st *key, struct arena *a);
struct val *jwt_jwk(struct evp_pkey_st *key, struct arena *a); /* NULL: no such key */

struct jwks;
/* Keys that are not understood are passed over; at least one must be. */
struct jwks *jwks_parse(const char *text, size_t n, struct err *err) _must_check_;
void *jwks_free(struct jwks *k);
uint32_t jwks_count(const struct jwks *k);
/* One of the keys signed it: those with the token's kid, or all when it names none. */
bool jwks_verify(const struct jwks *k, const struct jwt *t);
bool jwks_has(const struct jwks *k, const char *kid);
