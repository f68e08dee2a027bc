/* Any bytes as a bearer token, and as a set of keys: nothing that a stranger made is ever taken for signed.
 * The first line is the key set, the rest the token. A good token of our own with one byte changed is
 * refused, too. */
#include "auth/jwt.h"
#include "auth/token.h"

#include <openssl/ec.h>
#include <openssl/evp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *key;
static struct token_keys keys;

static const struct obj *nobody(void *arg, struct arena *a, const char *kind, const char *ns, const char *name)
{
    (void)arg, (void)a, (void)kind, (void)ns, (void)name;
    return NULL;
}

static void spoil(struct arena *a, const uint8_t *data, size_t size)
{
    static char *good;
    struct err err = {0};
    struct jwt t;
    char *token;
    size_t at;

    if (!good) {
        struct val *claims = val_map(a);

        val_put_str(a, claims, "iss", TOKEN_ISSUER);
        good = xstrdup(jwt_make(key, claims, a));
    }
    token = arena_strdup(a, good);
    at = ((size_t)data[0] << 8 | data[1]) % strlen(token);
    if (size < 3 || token[at] == (char)data[2] || !data[2])
        return;
    token[at] = (char)data[2];
    /* the last digit of a part holds bits that are none of it: another text of the same bytes */
    if (jwt_parse(token, a, &t, &err) == 0 && jwt_signed_by(&t, key))
        ASSERT(token[at + 1] == 0 || token[at + 1] == '.');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new();
    char *text = arena_strndup(a, (const char *)data, size), *line = strchr(text, '\n');
    struct token_check check = {.now = 1700000000, .lookup = nobody};
    struct token_found found;
    struct err err = {0};
    struct jwks *k;
    struct jwt t;

    if (!key) {
        key = EVP_EC_gen("P-256");
        keys = (struct token_keys){.v = {key}, .n = 1};
    }
    if (size > 2)
        spoil(a, data, size);
    if (line) {
        *line = 0;
        if ((k = jwks_parse(text, strlen(text), &err)) && jwt_parse(line + 1, a, &t, &err) == 0)
            jwks_verify(k, &t);
        jwks_free(k);
        text = line + 1;
    }
    ASSERT(token_verify(&keys, text, &check, a, &found, &err) < 0);
    arena_free(a);
    return 0;
}
