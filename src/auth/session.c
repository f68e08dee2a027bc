/* auth/session.c - see session.h. */
#include "auth/session.h"

#include "auth/b64.h"
#include "codec/json.h"
#include "env/fs.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum { VERSION = 1, NONCE = 12, TAG = 16, HEAD = 1 + NONCE };

int session_key(const char *path, unsigned char ret[SESSION_KEY_BYTES], struct err *err)
{
    struct err why;
    size_t n;
    _auto_(freep) char *text = fs_read(path, SESSION_KEY_BYTES, &n, &why);

    if (text && n == SESSION_KEY_BYTES) {
        memcpy(ret, text, SESSION_KEY_BYTES);
        return 0;
    }
    if (!text && why.code != ERR_NOT_FOUND) {
        *err = why;
        return -1;
    }
    if (RAND_bytes(ret, SESSION_KEY_BYTES) != 1)
        abort(); /* no key may ever be made without randomness */
    return fs_write(path, ret, SESSION_KEY_BYTES, 0600, err);
}

char *session_seal(const unsigned char key[SESSION_KEY_BYTES], const struct val *v, struct arena *a)
{
    size_t n;
    char *text = json_text(a, v, &n);
    unsigned char *out = arena_raw(a, HEAD + n + TAG);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int len = 0, more = 0;

    out[0] = VERSION;
    if (!c || RAND_bytes(out + 1, NONCE) != 1 || EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, out + 1) != 1 ||
        EVP_EncryptUpdate(c, NULL, &len, out, 1) != 1 ||
        EVP_EncryptUpdate(c, out + HEAD, &len, (unsigned char *)text, (int)n) != 1 ||
        EVP_EncryptFinal_ex(c, out + HEAD + len, &more) != 1 ||
        EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, out + HEAD + n) != 1)
        abort(); /* a broken cipher must not hand out anything */
    EVP_CIPHER_CTX_free(c);
    return b64url(a, out, HEAD + n + TAG);
}

struct val *session_open(const unsigned char key[SESSION_KEY_BYTES], const char *token, struct arena *a, struct err *err)
{
    size_t n = strlen(token);
    unsigned char *raw = n <= SESSION_TOKEN_MAX ? b64url_decode(a, token, n, &n) : NULL, *text;
    EVP_CIPHER_CTX *c;
    int len = 0, more = 0;
    bool good;

    if (!raw || n < HEAD + TAG || raw[0] != VERSION) {
        err_set(err, INVALID_ARGUMENT, "The security token included in the request is invalid.");
        return NULL;
    }
    n -= HEAD + TAG;
    text = arena_alloc(a, n + 1);
    c = EVP_CIPHER_CTX_new();
    good = c && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, raw + 1) == 1 &&
           EVP_DecryptUpdate(c, NULL, &len, raw, 1) == 1 &&
           EVP_DecryptUpdate(c, text, &len, raw + HEAD, (int)n) == 1 &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, raw + HEAD + n) == 1 &&
           EVP_DecryptFinal_ex(c, text + len, &more) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!good) {
        err_set(err, INVALID_ARGUMENT, "The security token included in the request is invalid.");
        return NULL;
    }
    return json_parse(a, (char *)text, n, err);
}

/* Is it as good as absent? Of a document's own members a store keeps no empty ones; below, it keeps what is not null. */
static bool says_nothing(const struct val *v, bool top)
{
    if (v->type == VAL_NULL || !top)
        return v->type == VAL_NULL;
    return v->type == VAL_BOOL ? !v->b : v->type == VAL_INT ? !v->i : v->type != VAL_DOUBLE && v->n == 0;
}

/* A store may write 1.10 as 1.1, 1e3 as 1000: what counts is the number. */
static void plain_number(struct val *v)
{
    double d = val_num(v);

    if (d > -9e18 && d < 9e18 && (double)(int64_t)d == d)
        *v = (struct val){.type = VAL_INT, .i = (int64_t)d};
    else
        *v = (struct val){.type = VAL_DOUBLE, .dbl = d};
}

static void drop_empty(struct val *v, bool top)
{
    if (v->type == VAL_DOUBLE)
        plain_number(v);
    VAL_EACH(v, it)
        drop_empty(it, false);
    for (uint32_t i = 0; v->type == VAL_MAP && i < v->n;) {
        if (says_nothing(&v->members[i].v, top)) {
            val_del(v, v->members[i].key);
        } else {
            drop_empty(&v->members[i].v, false);
            i++;
        }
    }
}

char *session_sign(const unsigned char key[SESSION_KEY_BYTES], const char *about, const struct val *v, struct arena *a)
{
    struct val *it, *all = val_list(a);
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned sum_n;
    struct err err;
    char *text;
    size_t n;

    text = json_text(a, v, &n); /* as a store reads it: a text that was cut within a character is mended */
    it = json_parse(a, text, n, &err);
    it = it ? it : val_copy(a, v);
    drop_empty(it, true);
    val_sort_keys(it);
    val_push_str(a, all, about);
    val_push(a, all, it);
    text = json_text(a, all, &n);
    if (!HMAC(EVP_sha256(), key, SESSION_KEY_BYTES, (unsigned char *)text, n, sum, &sum_n))
        abort();
    return b64url(a, sum, sum_n);
}
