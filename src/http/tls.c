/* http/tls.c - OpenSSL contexts from PEM texts, and what a peer's certificate says. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "http/client.h"
#include "http/io_int.h"

DEFINE_AUTO(BIO *, bio_free, BIO_free)
DEFINE_AUTO(X509 *, x509_free, X509_free)
DEFINE_AUTO(EVP_PKEY *, pkey_free, EVP_PKEY_free)

int tls_err(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    char text[160] = "unknown reason";

    if (code)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return err_set(err, INVALID_ARGUMENT, "%s: %s", what, text);
}

static int ctx_use_key(SSL_CTX *ctx, const char *cert_pem, const char *key_pem, struct err *err)
{
    _auto_(bio_freep) BIO *cert = BIO_new_mem_buf(cert_pem, -1);
    _auto_(bio_freep) BIO *keyb = BIO_new_mem_buf(key_pem, -1);
    _auto_(x509_freep) X509 *leaf = PEM_read_bio_X509(cert, NULL, NULL, NULL);
    _auto_(pkey_freep) EVP_PKEY *key = PEM_read_bio_PrivateKey(keyb, NULL, NULL, NULL);
    X509 *more;

    if (!leaf || SSL_CTX_use_certificate(ctx, leaf) != 1)
        return tls_err(err, "certificate");
    if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return tls_err(err, "private key");
    while ((more = PEM_read_bio_X509(cert, NULL, NULL, NULL)))
        SSL_CTX_add0_chain_cert(ctx, more);
    ERR_clear_error();
    return 0;
}

static int ctx_trust(SSL_CTX *ctx, const char *ca_pem, bool name_them, struct err *err)
{
    _auto_(bio_freep) BIO *bio = BIO_new_mem_buf(ca_pem, -1);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    int n = 0;
    X509 *ca;

    while ((ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        X509_STORE_add_cert(store, ca);
        if (name_them)
            SSL_CTX_add_client_CA(ctx, ca);
        X509_free(ca);
        n++;
    }
    ERR_clear_error();
    if (!n)
        return err_set(err, INVALID_ARGUMENT, "certificate authority: no certificate in the PEM text");
    return 0;
}

/* A bad client certificate does not end the handshake: the handler sees it and answers 401. */
static int note_failure(int ok, X509_STORE_CTX *sctx)
{
    if (!ok) {
        SSL *ssl = X509_STORE_CTX_get_ex_data(sctx, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct io *io = SSL_get_app_data(ssl);

        if (!io->cert_error)
            io->cert_error = X509_STORE_CTX_get_error(sctx);
    }
    return 1;
}

static int pick_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                     const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1", one[] = "\x08http/1.1";
    const unsigned char *ours = arg ? both : one;
    unsigned ours_n = arg ? sizeof both - 1 : sizeof one - 1;

    (void)ssl;
    if (SSL_select_next_proto((unsigned char **)out, out_n, ours, ours_n, in, in_n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *ctx_base(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    ASSERT(ctx);
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    return ctx;
}

SSL_CTX *tls_server_ctx(const struct http_tls *tls, bool h2, struct err *err)
{
    SSL_CTX *ctx = ctx_base(TLS_server_method());

    if (ctx_use_key(ctx, tls->cert_pem, tls->key_pem, err) < 0)
        goto bad;
    /* no resumption: a resumed session skips the check of the client's certificate */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_alpn_select_cb(ctx, pick_alpn, h2 ? ctx : NULL);
    if (tls->client_ca_pem) {
        if (ctx_trust(ctx, tls->client_ca_pem, true, err) < 0)
            goto bad;
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, note_failure);
    }
    return ctx;
bad:
    SSL_CTX_free(ctx);
    return NULL;
}

SSL_CTX *tls_client_ctx(const struct http_origin_opts *o, struct err *err)
{
    SSL_CTX *ctx = ctx_base(TLS_client_method());
    static const unsigned char alpn[] = "\x08http/1.1";

    if (o->cert_pem && o->key_pem && ctx_use_key(ctx, o->cert_pem, o->key_pem, err) < 0)
        goto bad;
    if (o->ca_pem) {
        if (ctx_trust(ctx, o->ca_pem, false, err) < 0)
            goto bad;
    } else {
        SSL_CTX_set_default_verify_paths(ctx);
    }
    SSL_CTX_set_verify(ctx, o->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(ctx, alpn, sizeof alpn - 1);
    return ctx;
bad:
    SSL_CTX_free(ctx);
    return NULL;
}

static const char *entry_text(struct arena *a, X509_NAME_ENTRY *e)
{
    unsigned char *utf8 = NULL;
    int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(e));
    const char *s = NULL;

    if (n >= 0 && !memchr(utf8, 0, (size_t)n)) /* a 0 inside a name is a trick, not a name */
        s = arena_strndup(a, (char *)utf8, (size_t)n);
    OPENSSL_free(utf8);
    return s;
}

static const char *hash_text(struct arena *a, const X509 *cert)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char *text;

    if (X509_digest(cert, EVP_sha256(), sum, &n) != 1)
        return "";
    text = arena_alloc(a, 2 * n + 1);
    for (unsigned i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", sum[i]);
    return text;
}

static bool is_uid(X509_NAME_ENTRY *e)
{
    char oid[64];

    return OBJ_obj2txt(oid, sizeof oid, X509_NAME_ENTRY_get_object(e), 1) > 0 &&
           streq(oid, "1.3.6.1.4.1.57683.2");
}

void tls_peer(struct io *io, struct arena *a, struct http_peer *ret)
{
    STACK_OF(X509) *chain;
    _auto_(x509_freep) X509 *cert = SSL_get1_peer_certificate(io->ssl);
    X509_NAME *subject;
    const char **orgs;
    int n;

    ret->tls = true;
    if (!cert)
        return;
    ret->cert = true;
    if (!io->cert_error && SSL_get_verify_result(io->ssl) != X509_V_OK)
        io->cert_error = SSL_get_verify_result(io->ssl);
    if (io->cert_error) {
        ret->cert_error = X509_verify_cert_error_string(io->cert_error);
        return;
    }
    subject = X509_get_subject_name(cert);
    n = X509_NAME_entry_count(subject);
    orgs = arena_array(a, const char *, n + 1);
    for (int i = 0; i < n; i++) {
        X509_NAME_ENTRY *e = X509_NAME_get_entry(subject, i);
        int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(e));
        bool uid = nid == NID_undef && is_uid(e);
        const char *s = uid || nid == NID_commonName || nid == NID_organizationName ? entry_text(a, e) : NULL;

        if (s && uid)
            ret->uid = s;
        else if (s && nid == NID_commonName)
            ret->cn = s;
        else if (s)
            orgs[ret->orgs_n++] = s;
    }
    ret->orgs = orgs;
    ret->fingerprint = hash_text(a, cert);
    chain = SSL_get0_verified_chain(io->ssl);
    if (chain && sk_X509_num(chain) > 0)
        ret->root = hash_text(a, sk_X509_value(chain, sk_X509_num(chain) - 1));
    ret->cert_trusted = true;
}
