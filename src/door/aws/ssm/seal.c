/* door/aws/ssm/seal.c - SecureStrings are sealed before they leave the door: what lies in the store (and in its backups)
 * is of no use without the key file of the state folder. */
#include "door/aws/ssm/ssm.h"

#include "door/aws/aws_int.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NONCE = 12, TAG = 16 };

int ssm_key_open(const char *state, unsigned char key[SSM_KEY_BYTES], struct err *err)
{
    _auto_(freep) char *dir = xasprintf("%s/pki", state), *path = xasprintf("%s/parameters.key", dir), *part = xasprintf("%s.new", path);
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC), made = -1;

    if (fd >= 0)
        return read(fd, key, SSM_KEY_BYTES) == SSM_KEY_BYTES ? 0 : err_set(err, IO, "%s is too short to be a key", path);
    if (errno != ENOENT)
        return err_sys(err, "read %s", path);
    if (RAND_bytes(key, SSM_KEY_BYTES) != 1)
        return err_set(err, IO, "no randomness for a key");
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_sys(err, "make %s", dir);
    made = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (made < 0 || write(made, key, SSM_KEY_BYTES) != SSM_KEY_BYTES || fsync(made) < 0 || rename(part, path) < 0)
        return err_sys(err, "write %s", path);
    return 0;
}

char *ssm_seal(struct arena *a, const unsigned char key[SSM_KEY_BYTES], const char *about, const char *text)
{
    size_t n = strlen(text);
    unsigned char *out = arena_raw(a, NONCE + n + TAG);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int len = 0, more = 0;
    bool ok = c && RAND_bytes(out, NONCE) == 1 && EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, out) == 1 &&
              EVP_EncryptUpdate(c, NULL, &len, (const unsigned char *)about, (int)strlen(about)) == 1 &&
              EVP_EncryptUpdate(c, out + NONCE, &len, (const unsigned char *)text, (int)n) == 1 &&
              EVP_EncryptFinal_ex(c, out + NONCE + len, &more) == 1 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, out + NONCE + n) == 1;

    EVP_CIPHER_CTX_free(c);
    ASSERT(ok); /* no secret may ever be kept in the open */
    return b64_encode(a, out, NONCE + n + TAG);
}

char *ssm_unseal(struct arena *a, const unsigned char key[SSM_KEY_BYTES], const char *about, const char *sealed)
{
    size_t n = 0;
    unsigned char *in = (unsigned char *)b64_decode(a, sealed, &n), *out;
    EVP_CIPHER_CTX *c;
    int len = 0, more = 0;
    bool ok;

    if (!in || n < NONCE + TAG)
        return NULL;
    n -= NONCE + TAG;
    out = arena_raw(a, n + 1);
    c = EVP_CIPHER_CTX_new();
    ok = c && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, in) == 1 &&
         EVP_DecryptUpdate(c, NULL, &len, (const unsigned char *)about, (int)strlen(about)) == 1 &&
         EVP_DecryptUpdate(c, out, &len, in + NONCE, (int)n) == 1 &&
         EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, in + NONCE + n) == 1 && EVP_DecryptFinal_ex(c, out + len, &more) == 1;
    EVP_CIPHER_CTX_free(c);
    out[n] = 0;
    return ok ? (char *)out : NULL;
}
