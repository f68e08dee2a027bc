/* auth/pki.c - see pki.h. Files are written to NAME.tmp and renamed, keys before certificates, so
 * that a crash between leaves at worst a key without a certificate, which is made again. */
#include "auth/pki.h"

#include "base/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct pki {
    char *dir;
    X509 *ca;
    EVP_PKEY *ca_key, *sa_key;
    struct token_keys sa_keys; /* the first one is sa_key */
    char *ca_pem, *server_cert_pem, *server_key_pem;
    char *ca_path, *server_cert_path, *server_key_path, *host;
    struct arena *past; /* texts that somebody may still hold */
};

enum { YEARS_10 = 3650, SOON_DAYS = 30 };

DEFINE_AUTO(X509 *, x509_free_, X509_free)
DEFINE_AUTO(X509_REQ *, x509_req_free_, X509_REQ_free)
DEFINE_AUTO(EVP_PKEY *, pkey_free_, EVP_PKEY_free)
DEFINE_AUTO(BIO *, bio_free_, BIO_free)

static int ssl_err(struct err *err, const char *what)
{
    char text[160];

    ERR_error_string_n(ERR_get_error(), text, sizeof(text));
    ERR_clear_error();
    return err_set(err, INTERNAL, "%s: %s", what, text);
}

/* ---------------------------------------------------------------- files */

static int file_write(const char *path, const void *p, size_t n, mode_t mode, struct err *err)
{
    _auto_(freep) char *tmp = xasprintf("%s.tmp", path);
    _auto_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    if (fd < 0)
        return err_sys(err, "open %s", tmp);
    if (fchmod(fd, mode) < 0 || write(fd, p, n) != (ssize_t)n || fsync(fd) < 0)
        return err_sys(err, "write %s", tmp);
    if (rename(tmp, path) < 0)
        return err_sys(err, "rename %s", path);
    return 0;
}

/* NULL when it is not there or not readable. */
static char *file_read(const char *path, size_t *ret_n)
{
    _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char chunk[4096];
    struct buf b;
    ssize_t n;

    if (fd < 0)
        return NULL;
    buf_init(&b, 1 << 20);
    while ((n = read(fd, chunk, sizeof(chunk))) > 0)
        buf_add(&b, chunk, (size_t)n);
    *ret_n = b.n;
    return buf_take(&b);
}

static EVP_PKEY *key_read(const char *path)
{
    size_t n = 0;
    _auto_(freep) char *text = file_read(path, &n);
    _auto_(bio_free_p) BIO *bio = NULL;

    if (!text || !(bio = BIO_new_mem_buf(text, (int)n)))
        return NULL;
    return PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
}

static X509 *cert_parse(const char *text, size_t n)
{
    _auto_(bio_free_p) BIO *bio = BIO_new_mem_buf(text, (int)n);
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

    if (!x) {
        const unsigned char *der = (const unsigned char *)text;
        ERR_clear_error();
        x = d2i_X509(NULL, &der, (long)n);
    }
    ERR_clear_error();
    return x;
}

static X509 *cert_read(const char *path)
{
    size_t n = 0;
    _auto_(freep) char *text = file_read(path, &n);

    return text ? cert_parse(text, n) : NULL;
}

static char *bio_text(BIO *bio)
{
    char *p;
    long n = BIO_get_mem_data(bio, &p);

    return xstrndup(p, (size_t)n);
}

static char *key_pem(EVP_PKEY *key)
{
    _auto_(bio_free_p) BIO *bio = BIO_new(BIO_s_mem());

    return bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) ? bio_text(bio) : NULL;
}

static char *pub_pem(EVP_PKEY *key)
{
    _auto_(bio_free_p) BIO *bio = BIO_new(BIO_s_mem());

    return bio && PEM_write_bio_PUBKEY(bio, key) ? bio_text(bio) : NULL;
}

static char *cert_pem(X509 *x)
{
    _auto_(bio_free_p) BIO *bio = BIO_new(BIO_s_mem());

    return bio && PEM_write_bio_X509(bio, x) ? bio_text(bio) : NULL;
}

/* The key in the file, made when there is none. */
static EVP_PKEY *key_need(const char *path, struct err *err)
{
    EVP_PKEY *key = key_read(path);
    _auto_(freep) char *pem = NULL;

    ERR_clear_error();
    if (key)
        return key;
    key = EVP_EC_gen("P-256");
    pem = key ? key_pem(key) : NULL;
    if (!pem) {
        ssl_err(err, "make a key");
        EVP_PKEY_free(key);
        return NULL;
    }
    if (file_write(path, pem, strlen(pem), 0600, err) < 0) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

/* ---------------------------------------------------------------- certificates */

static bool ext_add(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    if (!(e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value)))
        return false;
    ok = X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static X509 *cert_begin(X509_NAME *subject, EVP_PKEY *pub, int64_t seconds)
{
    X509 *x = X509_new();
    unsigned char serial[16];
    BIGNUM *bn;

    if (!x || RAND_bytes(serial, sizeof(serial)) != 1)
        return X509_free(x), NULL;
    serial[0] &= 0x7f;
    bn = BN_bin2bn(serial, sizeof(serial), NULL);
    if (!X509_set_version(x, 2) || !BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)) ||
        !X509_gmtime_adj(X509_getm_notBefore(x), -300) ||
        !X509_time_adj_ex(X509_getm_notAfter(x), (int)(seconds / 86400), (long)(seconds % 86400),
                          NULL) ||
        !X509_set_pubkey(x, pub) || !X509_set_subject_name(x, subject)) {
        X509_free(x);
        x = NULL;
    }
    BN_free(bn);
    return x;
}

static bool name_add(X509_NAME *name, const char *field, const char *value)
{
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)value, -1,
                                      -1, 0) == 1;
}

static X509_NAME *name_make(const char *cn, const char *org)
{
    X509_NAME *name = X509_NAME_new();

    if (name && ((org && !name_add(name, "O", org)) || !name_add(name, "CN", cn))) {
        X509_NAME_free(name);
        return NULL;
    }
    return name;
}

static X509 *ca_make(EVP_PKEY *key)
{
    X509_NAME *name = name_make("tandem-ca", NULL);
    X509 *x = name ? cert_begin(name, key, (int64_t)YEARS_10 * 86400) : NULL;

    if (x && (!X509_set_issuer_name(x, name) ||
              !ext_add(x, x, NID_basic_constraints, "critical,CA:TRUE") ||
              !ext_add(x, x, NID_key_usage, "critical,keyCertSign,digitalSignature,keyEncipherment") ||
              !ext_add(x, x, NID_subject_key_identifier, "hash") ||
              !X509_sign(x, key, EVP_sha256()))) {
        X509_free(x);
        x = NULL;
    }
    X509_NAME_free(name);
    return x;
}

static X509 *leaf_make(struct pki *p, X509_NAME *subject, EVP_PKEY *pub, int64_t seconds,
                       const char *usage, const char *alt_names)
{
    X509 *x = cert_begin(subject, pub, seconds);

    if (x && (!X509_set_issuer_name(x, X509_get_subject_name(p->ca)) ||
              !ext_add(x, p->ca, NID_basic_constraints, "critical,CA:FALSE") ||
              !ext_add(x, p->ca, NID_key_usage, "critical,digitalSignature,keyEncipherment") ||
              !ext_add(x, p->ca, NID_ext_key_usage, usage) ||
              !ext_add(x, p->ca, NID_authority_key_identifier, "keyid") ||
              (alt_names && !ext_add(x, p->ca, NID_subject_alt_name, alt_names)) ||
              !X509_sign(x, p->ca_key, EVP_sha256()))) {
        X509_free(x);
        x = NULL;
    }
    return x;
}

/* Ours, not ending soon, made for this key. */
static bool cert_good(const struct pki *p, X509 *x, EVP_PKEY *key)
{
    time_t soon = time(NULL) + (time_t)SOON_DAYS * 86400;

    return x && key && X509_verify(x, p->ca_key) == 1 && X509_check_private_key(x, key) == 1 &&
           X509_cmp_time(X509_get0_notAfter(x), &soon) > 0;
}

static bool is_ip(const char *s)
{
    unsigned char b[16];

    return inet_pton(AF_INET, s, b) == 1 || inet_pton(AF_INET6, s, b) == 1;
}

/* Puts a text in place of an older one, which stays readable. false: it is NULL. */
static bool set_text(struct pki *p, char **at, char *text)
{
    if (!text)
        return false;
    if (*at)
        arena_pin(p->past, free, *at);
    *at = text;
    return true;
}

static int server_cert(struct pki *p, const char *host, struct err *err)
{
    _auto_(pkey_free_p) EVP_PKEY *key = key_need(p->server_key_path, err);
    _auto_(x509_free_p) X509 *x = NULL;
    char machine[256] = "";
    X509_NAME *name;
    struct buf names;

    if (!key)
        return -1;
    if (!set_text(p, &p->server_key_pem, key_pem(key)))
        return ssl_err(err, "read the server key");
    gethostname(machine, sizeof(machine) - 1);
    x = cert_read(p->server_cert_path);
    if (cert_good(p, x, key) &&
        (str_empty(host) || (is_ip(host) ? X509_check_ip_asc(x, host, 0)
                                         : X509_check_host(x, host, 0, 0, NULL)) == 1) &&
        (!*machine || X509_check_host(x, machine, 0, 0, NULL) == 1))
        return set_text(p, &p->server_cert_pem, cert_pem(x)) ? 0 : ssl_err(err, "read the certificate");
    X509_free(x);
    buf_init(&names, 4096);
    buf_adds(&names, "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
                     "DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:::1,IP:10.96.0.1");
    if (*machine && !is_ip(machine))
        buf_printf(&names, ",DNS:%s", machine);
    if (!str_empty(host))
        buf_printf(&names, ",%s:%s", is_ip(host) ? "IP" : "DNS", host);
    name = name_make("tandem-apiserver", NULL);
    x = leaf_make(p, name, key, (int64_t)YEARS_10 * 86400, "serverAuth,clientAuth", names.p);
    X509_NAME_free(name);
    buf_done(&names);
    if (!x || !set_text(p, &p->server_cert_pem, cert_pem(x)))
        return ssl_err(err, "make the server certificate");
    return file_write(p->server_cert_path, p->server_cert_pem, strlen(p->server_cert_pem), 0644,
                      err);
}

static int ca_open(struct pki *p, struct err *err)
{
    _auto_(freep) char *key_path = xasprintf("%s/ca.key", p->dir);
    size_t n;

    if (!(p->ca_key = key_need(key_path, err)))
        return -1;
    p->ca = cert_read(p->ca_path);
    if (p->ca && X509_check_private_key(p->ca, p->ca_key) != 1) {
        X509_free(p->ca);
        p->ca = NULL;
    }
    if (!p->ca) {
        p->ca = ca_make(p->ca_key);
        p->ca_pem = p->ca ? cert_pem(p->ca) : NULL;
        if (!p->ca_pem)
            return ssl_err(err, "make the CA");
        return file_write(p->ca_path, p->ca_pem, strlen(p->ca_pem), 0644, err);
    }
    p->ca_pem = file_read(p->ca_path, &n);
    return p->ca_pem ? 0 : ssl_err(err, "read the CA");
}

static EVP_PKEY *pub_read(const char *path)
{
    size_t n = 0;
    _auto_(freep) char *text = file_read(path, &n);
    _auto_(bio_free_p) BIO *bio = text ? BIO_new_mem_buf(text, (int)n) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

    ERR_clear_error();
    return key;
}

/* sa.key first, then what is in the folder under sa-NAME.pub. */
static void old_keys(struct pki *p)
{
    _auto_(freep) char *pattern = xasprintf("%s/sa-*.pub", p->dir);
    glob_t found;

    p->sa_keys.v[p->sa_keys.n++] = p->sa_key;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && p->sa_keys.n < TOKEN_KEYS_MAX; i++) {
            EVP_PKEY *key = pub_read(found.gl_pathv[i]);

            if (key)
                p->sa_keys.v[p->sa_keys.n++] = key;
        }
    globfree(&found);
}

struct pki *pki_open(const char *state_dir, const char *host, struct err *err)
{
    _auto_(pki_freep) struct pki *p = xcalloc(1, sizeof(*p));
    _auto_(freep) char *sa_path = NULL, *pub_path = NULL, *pub = NULL;

    p->dir = xasprintf("%s/pki", state_dir);
    p->past = arena_new();
    p->host = xstrdup(host ? host : "");
    p->ca_path = xasprintf("%s/ca.crt", p->dir);
    p->server_cert_path = xasprintf("%s/server.crt", p->dir);
    p->server_key_path = xasprintf("%s/server.key", p->dir);
    if (mkdir(p->dir, 0755) < 0 && errno != EEXIST)
        return err_sys(err, "mkdir %s", p->dir), NULL;
    if (ca_open(p, err) < 0 || server_cert(p, host, err) < 0)
        return NULL;
    sa_path = xasprintf("%s/sa.key", p->dir);
    pub_path = xasprintf("%s/sa.pub", p->dir);
    if (!(p->sa_key = key_need(sa_path, err)) || !(pub = pub_pem(p->sa_key)))
        return NULL;
    old_keys(p);
    if (access(pub_path, F_OK) < 0 && file_write(pub_path, pub, strlen(pub), 0644, err) < 0)
        return NULL;
    return STEAL(p);
}

int pki_refresh(struct pki *p, struct err *err)
{
    _auto_(freep) char *text = NULL;
    _auto_(x509_free_p) X509 *ca = NULL;
    size_t n = 0;

    text = file_read(p->ca_path, &n);
    ca = text ? cert_parse(text, n) : NULL;
    if (!ca || X509_check_private_key(ca, p->ca_key) != 1) {
        ERR_clear_error();
        return err_set(err, INVALID_ARGUMENT, "%s: the first certificate is not that of ca.key", p->ca_path);
    }
    if (!streq(text, p->ca_pem))
        set_text(p, &p->ca_pem, STEAL(text));
    return server_cert(p, p->host, err);
}

void *pki_free(struct pki *p)
{
    if (!p)
        return NULL;
    X509_free(p->ca);
    EVP_PKEY_free(p->ca_key);
    EVP_PKEY_free(p->sa_key);
    for (uint32_t i = 1; i < p->sa_keys.n; i++)
        EVP_PKEY_free(p->sa_keys.v[i]);
    arena_free(p->past);
    free(p->host);
    free(p->ca_pem);
    free(p->server_cert_pem);
    free(p->server_key_pem);
    free(p->ca_path);
    free(p->server_cert_path);
    free(p->server_key_path);
    free(p->dir);
    free(p);
    return NULL;
}

const char *pki_ca_pem(const struct pki *p)
{
    return p->ca_pem;
}
const char *pki_server_cert_pem(const struct pki *p)
{
    return p->server_cert_pem;
}
const char *pki_server_key_pem(const struct pki *p)
{
    return p->server_key_pem;
}
struct evp_pkey_st *pki_sa_key(const struct pki *p)
{
    return p->sa_key;
}
const struct token_keys *pki_sa_keys(const struct pki *p)
{
    return &p->sa_keys;
}

char *pki_fingerprint(const char *pem)
{
    _auto_(x509_free_p) X509 *x = cert_parse(pem, strlen(pem));
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char *text;

    if (!x || X509_digest(x, EVP_sha256(), sum, &n) != 1)
        return NULL;
    text = xcalloc(1, 2 * n + 1);
    for (unsigned i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", sum[i]);
    return text;
}

/* ---------------------------------------------------------------- clients */

static void subject_get(X509_NAME *subject, struct arena *a, char **ret_cn, char ***ret_orgs)
{
    int n = X509_NAME_entry_count(subject), orgs = 0;
    char **list = arena_array(a, char *, n + 1);

    if (ret_cn)
        *ret_cn = arena_strdup(a, "");
    for (int i = 0; i < n; i++) {
        X509_NAME_ENTRY *e = X509_NAME_get_entry(subject, i);
        int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(e));
        unsigned char *text = NULL;
        int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(e));

        if (len < 0 || memchr(text, 0, (size_t)len)) { /* a name with a 0 inside fools C */
            OPENSSL_free(text);
            continue;
        }
        if (nid == NID_commonName && ret_cn)
            *ret_cn = arena_strndup(a, (char *)text, (size_t)len);
        else if (nid == NID_organizationName)
            list[orgs++] = arena_strndup(a, (char *)text, (size_t)len);
        OPENSSL_free(text);
    }
    if (ret_orgs)
        *ret_orgs = list;
}

int pki_cert_subject(const char *cert, size_t n, struct arena *a, char **ret_cn, char ***ret_orgs,
                     struct err *err)
{
    _auto_(x509_free_p) X509 *x = cert_parse(cert, n);

    if (!x)
        return err_set(err, INVALID_ARGUMENT, "not a certificate");
    subject_get(X509_get_subject_name(x), a, ret_cn, ret_orgs);
    return 0;
}

static bool subject_is(X509 *x, const char *cn, const char *org)
{
    struct arena *a = arena_new();
    char *has_cn, **orgs;
    bool same;

    subject_get(X509_get_subject_name(x), a, &has_cn, &orgs);
    same = streq(has_cn, cn) && streq0(orgs[0], org);
    arena_free(a);
    return same;
}

int pki_client(struct pki *p, const char *file, const char *name, const char *group,
               struct arena *a, char **ret_cert_pem, char **ret_key_pem, struct err *err)
{
    const char *key_path = arena_printf(a, "%s/%s.key", p->dir, file);
    const char *cert_path = arena_printf(a, "%s/%s.crt", p->dir, file);
    _auto_(pkey_free_p) EVP_PKEY *key = key_need(key_path, err);
    _auto_(x509_free_p) X509 *x = NULL;
    _auto_(freep) char *cert = NULL, *kpem = NULL;

    if (!key)
        return -1;
    x = cert_read(cert_path);
    if (!cert_good(p, x, key) || !subject_is(x, name, group)) {
        X509_NAME *subject = name_make(name, group);

        X509_free(x);
        x = leaf_make(p, subject, key, (int64_t)YEARS_10 * 86400, "clientAuth", NULL);
        X509_NAME_free(subject);
        if (!x || !(cert = cert_pem(x)))
            return ssl_err(err, "make a client certificate");
        if (file_write(cert_path, cert, strlen(cert), 0644, err) < 0)
            return -1;
    } else if (!(cert = cert_pem(x))) {
        return ssl_err(err, "read a client certificate");
    }
    if (!(kpem = key_pem(key)))
        return ssl_err(err, "read a client key");
    *ret_cert_pem = arena_strdup(a, cert);
    *ret_key_pem = arena_strdup(a, kpem);
    return 0;
}

/* ---------------------------------------------------------------- requests */

int pki_front_proxy(struct pki *p, struct arena *a, char **ret_ca_pem, char **ret_cert_pem,
                    char **ret_key_pem, struct err *err)
{
    _auto_(pki_freep) struct pki *front = xcalloc(1, sizeof(*front));

    front->dir = xasprintf("%s/front-proxy", p->dir);
    front->ca_path = xasprintf("%s/ca.crt", front->dir);
    if (mkdir(front->dir, 0755) < 0 && errno != EEXIST)
        return err_sys(err, "mkdir %s", front->dir);
    if (ca_open(front, err) < 0 ||
        pki_client(front, "client", FRONT_PROXY_CLIENT, NULL, a, ret_cert_pem, ret_key_pem, err) < 0)
        return -1;
    *ret_ca_pem = arena_strdup(a, front->ca_pem);
    return 0;
}

static X509_REQ *request_parse(const char *pem, size_t n, struct err *err)
{
    _auto_(bio_free_p) BIO *bio = BIO_new_mem_buf(pem, (int)n);
    X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *pub;

    ERR_clear_error();
    if (!req) {
        err_set(err, INVALID_ARGUMENT, "PEM block type must be CERTIFICATE REQUEST");
        return NULL;
    }
    pub = X509_REQ_get0_pubkey(req);
    if (!pub || X509_REQ_verify(req, pub) != 1) {
        ERR_clear_error();
        X509_REQ_free(req);
        err_set(err, INVALID_ARGUMENT, "the certificate request has no good signature");
        return NULL;
    }
    return req;
}

int pki_read_request(const char *csr_pem, size_t n, struct arena *a, char **ret_cn,
                     char ***ret_orgs, struct err *err)
{
    _auto_(x509_req_free_p) X509_REQ *req = request_parse(csr_pem, n, err);

    if (!req)
        return -1;
    subject_get(X509_REQ_get_subject_name(req), a, ret_cn, ret_orgs);
    return 0;
}

static bool copy_alt_names(X509 *to, X509_REQ *from)
{
    STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(from);
    int at = exts ? X509v3_get_ext_by_NID(exts, NID_subject_alt_name, -1) : -1;
    bool ok = at < 0 || X509_add_ext(to, sk_X509_EXTENSION_value(exts, at), -1) == 1;

    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    return ok;
}

/* Usages as Kubernetes and as OpenSSL name them; extended ones behind a '+'. */
static const char *const USAGES[][2] = {
    {"signing", "digitalSignature"}, {"digital signature", "digitalSignature"},
    {"content commitment", "nonRepudiation"}, {"key encipherment", "keyEncipherment"},
    {"key agreement", "keyAgreement"}, {"data encipherment", "dataEncipherment"},
    {"cert sign", "keyCertSign"}, {"crl sign", "cRLSign"}, {"encipher only", "encipherOnly"},
    {"decipher only", "decipherOnly"}, {"any", "+anyExtendedKeyUsage"}, {"server auth", "+serverAuth"},
    {"client auth", "+clientAuth"}, {"code signing", "+codeSigning"},
    {"email protection", "+emailProtection"}, {"s/mime", "+emailProtection"},
    {"ipsec end system", "+1.3.6.1.5.5.7.3.5"}, {"ipsec tunnel", "+1.3.6.1.5.5.7.3.6"},
    {"ipsec user", "+1.3.6.1.5.5.7.3.7"}, {"timestamping", "+timeStamping"},
    {"ocsp signing", "+OCSPSigning"}, {"microsoft sgc", "+msSGC"}, {"netscape sgc", "+nsSGC"},
};

static bool add_usages(X509 *x, X509 *ca, const struct val *usages)
{
    struct buf plain, more;
    bool ok = true;

    buf_init(&plain, 1024);
    buf_init(&more, 1024);
    VAL_EACH(usages, u)
        for (size_t i = 0; i < ARRAY_LEN(USAGES); i++)
            if (streq(val_text(u, ""), USAGES[i][0])) {
                const char *name = USAGES[i][1];
                struct buf *b = *name == '+' ? &more : &plain;

                buf_printf(b, "%s%s", b->n ? "," : b == &plain ? "critical," : "", name + (*name == '+'));
            }
    ok = (!plain.n || ext_add(x, ca, NID_key_usage, plain.p)) &&
         (!more.n || ext_add(x, ca, NID_ext_key_usage, more.p));
    buf_done(&plain);
    buf_done(&more);
    return ok;
}

/* What the CA signs does not outlive it. */
static void end_with_ca(X509 *x, X509 *ca)
{
    int days = 0, seconds = 0;

    if (ASN1_TIME_diff(&days, &seconds, X509_get0_notAfter(ca), X509_get0_notAfter(x)) == 1 &&
        (days > 0 || seconds > 0))
        X509_set1_notAfter(x, X509_get0_notAfter(ca));
}

int pki_sign_request(struct pki *p, const char *csr_pem, size_t n, const struct val *usages,
                     int64_t seconds, struct arena *a, char **ret_cert_pem, struct err *err)
{
    _auto_(x509_req_free_p) X509_REQ *req = request_parse(csr_pem, n, err);
    _auto_(x509_free_p) X509 *x = NULL;
    _auto_(freep) char *pem = NULL;

    if (!req)
        return -1;
    x = cert_begin(X509_REQ_get_subject_name(req), X509_REQ_get0_pubkey(req), seconds);
    if (!x)
        return ssl_err(err, "sign a certificate");
    end_with_ca(x, p->ca);
    if (!X509_set_issuer_name(x, X509_get_subject_name(p->ca)) ||
        !ext_add(x, p->ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_usages(x, p->ca, usages) || !ext_add(x, p->ca, NID_authority_key_identifier, "keyid") ||
        !copy_alt_names(x, req) || !X509_sign(x, p->ca_key, EVP_sha256()) || !(pem = cert_pem(x)))
        return ssl_err(err, "sign a certificate");
    *ret_cert_pem = arena_strdup(a, pem);
    return 0;
}

static void count_names(X509_REQ *req, struct arena *a, struct val *facts)
{
    static const struct {
        int type;
        const char *key;
    } kinds[] = {{GEN_DNS, "dns"}, {GEN_IPADD, "ips"}, {GEN_EMAIL, "emails"}, {GEN_URI, "uris"}};
    STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
    GENERAL_NAMES *names = exts ? X509V3_get_d2i(exts, NID_subject_alt_name, NULL, NULL) : NULL;

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        int64_t n = 0;

        for (int k = 0; names && k < sk_GENERAL_NAME_num(names); k++)
            n += sk_GENERAL_NAME_value(names, k)->type == kinds[i].type;
        val_put_int(a, facts, kinds[i].key, n);
    }
    GENERAL_NAMES_free(names);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
}

const struct val *pki_request_facts(const char *csr_pem, size_t n, struct arena *a, struct err *err)
{
    _auto_(x509_req_free_p) X509_REQ *req = request_parse(csr_pem, n, err);
    struct val *facts = val_map(a), *orgs = val_list(a);
    char *cn, **list;

    if (!req)
        return NULL;
    subject_get(X509_REQ_get_subject_name(req), a, &cn, &list);
    val_put_str(a, facts, "cn", cn);
    for (; *list; list++)
        val_push_str(a, orgs, *list);
    val_put(a, facts, "orgs", orgs);
    count_names(req, a, facts);
    ERR_clear_error();
    return facts;
}

/* ---------------------------------------------------------------- kubeconfig */

static void add_base64(struct buf *b, const char *text)
{
    size_t n = strlen(text);
    _auto_(freep) char *out = xmalloc(n * 4 / 3 + 8);

    EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)text, (int)n);
    buf_adds(b, out);
}

int pki_write_kubeconfig(struct pki *p, const char *path, const char *server_url,
                         const char *file, const char *name, const char *group, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *cert, *key;
    struct buf b;
    int r;

    if (pki_client(p, file, name, group, a, &cert, &key, err) < 0)
        return -1;
    buf_init(&b, 1 << 20);
    buf_adds(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: tandem\n  cluster:\n"
                 "    certificate-authority-data: ");
    add_base64(&b, p->ca_pem);
    buf_printf(&b, "\n    server: %s\nusers:\n- name: %s\n  user:\n    client-certificate-data: ",
               server_url, name);
    add_base64(&b, cert);
    buf_adds(&b, "\n    client-key-data: ");
    add_base64(&b, key);
    buf_printf(&b, "\ncontexts:\n- name: tandem\n  context:\n    cluster: tandem\n    user: %s\n"
                   "current-context: tandem\n", name);
    r = file_write(path, b.p, b.n, 0600, err);
    buf_done(&b);
    return r;
}
