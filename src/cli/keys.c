/* cli/keys.c - what the controllers have done with the keys of the instance (controllers.h). */
#include "auth/b64.h"
#include "auth/pki.h"
#include "cli/part.h"

static char *plain(const char *text, struct arena *a, size_t *ret_n)
{
    return (char *)base64_decode(a, text, strlen(text), ret_n);
}

static int do_sign(void *arg, const char *request, const struct val *usages, int64_t seconds,
                   struct arena *a, char **ret_cert, struct err *err)
{
    size_t n;
    char *pem = plain(request, a, &n), *cert;

    if (!pem)
        return err_set(err, INVALID_ARGUMENT, "the request is not base64");
    if (pki_sign_request(arg, pem, n, usages, seconds, a, &cert, err) < 0)
        return -1;
    *ret_cert = base64_encode(a, cert, strlen(cert));
    return 0;
}

static const struct val *do_read(void *arg, const char *request, struct arena *a, struct err *err)
{
    size_t n;
    char *pem = plain(request, a, &n);

    (void)arg;
    if (pem)
        return pki_request_facts(pem, n, a, err);
    err_set(err, INVALID_ARGUMENT, "the request is not base64");
    return NULL;
}

static char *do_token(void *arg, const char *ns, const char *account, const char *account_uid,
                      const char *secret, struct arena *a)
{
    return token_make_legacy(pki_sa_key(arg), ns, account, account_uid, secret, a);
}

static char *do_jws(void *arg, const char *id, const char *secret, const char *text, struct arena *a)
{
    (void)arg;
    return token_detached(id, secret, text, a);
}

static char *do_base64(void *arg, const char *text, struct arena *a)
{
    (void)arg;
    return base64_encode(a, text, strlen(text));
}

static char *do_unbase64(void *arg, const char *text, struct arena *a)
{
    size_t n;
    char *out = plain(text, a, &n);

    (void)arg;
    return out && !memchr(out, 0, n) ? out : arena_strdup(a, "");
}

struct controllers_keys keys_of(struct pki *pki)
{
    return (struct controllers_keys){.sign = do_sign, .read = do_read, .token = do_token, .jws = do_jws,
                                     .base64 = do_base64, .unbase64 = do_unbase64, .arg = pki};
}
