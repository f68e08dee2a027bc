/* auth/pki.h - the certificate authority of one instance, and the keys it needs.
 *
 * Everything lies in STATE/pki and is made at the first start; later starts read it, so that
 * kubeconfigs and tokens outlive restarts. Keys are ECDSA P-256, files of keys have mode 0600.
 *   ca.crt ca.key           signs all certificates below; ca.crt may hold older CAs behind it, whose
 *                           certificates are still good
 *   server.crt server.key   what the API serves; made anew when it lacks a name or ends soon
 *   NAME.crt NAME.key       client certificates made by pki_client()
 *   sa.key sa.pub           signs and verifies service-account tokens (auth/token.h)
 *   sa-NAME.pub             verify too: to change the key, keep the old sa.pub under such a name
 * Thread: any, after pki_open(). */
#pragma once

#include "auth/token.h"
#include "base/arena.h"
#include "base/err.h"

struct pki;
struct evp_pkey_st;

/* host: one more name or address that the server certificate answers to; may be NULL. */
struct pki *pki_open(const char *state_dir, const char *host, struct err *err) _must_check_;
/* Reads ca.crt, server.crt and server.key again, and makes the server certificate anew when it ends
 * soon. On error what was is still there. Texts that were given out stay readable. */
int pki_refresh(struct pki *p, struct err *err) _must_check_;
void *pki_free(struct pki *p);
DEFINE_AUTO(struct pki *, pki_free, pki_free)

const char *pki_ca_pem(const struct pki *p); /* borrowed, as the next two */
const char *pki_server_cert_pem(const struct pki *p);
const char *pki_server_key_pem(const struct pki *p);
struct evp_pkey_st *pki_sa_key(const struct pki *p); /* borrowed: signs */
/* It, and the public keys of STATE/pki/sa-*.pub: those of before, whose tokens are still good. */
const struct token_keys *pki_sa_keys(const struct pki *p);
/* SHA-256 of the first certificate of a PEM text in hex (free() it), or NULL. */
char *pki_fingerprint(const char *cert_pem);

/* A client certificate for user `name` (CN) in `group` (O; NULL: none), kept as file.crt and
 * file.key below STATE/pki, read back when it is there and good for another 30 days. PEM texts are
 * in the arena. Names of files in use: admin, node, controller-manager, scheduler, gateway. */
int pki_client(struct pki *p, const char *file, const char *name, const char *group,
               struct arena *a, char **ret_cert_pem, char **ret_key_pem, struct err *err) _must_check_;

/* How this server shows itself to the API servers it stands in front of: a client certificate of a CA that
 * signs nothing else (STATE/pki/front-proxy), which they trust to say who asks. */
#define FRONT_PROXY_CLIENT "front-proxy-client"
int pki_front_proxy(struct pki *p, struct arena *a, char **ret_ca_pem, char **ret_cert_pem,
                    char **ret_key_pem, struct err *err) _must_check_;

/* Signs a PEM certificate request: its subject, key and alternative names, with the usages of a
 * CertificateSigningRequest ("client auth", "digital signature", ...), never as an authority, for so
 * many seconds (not longer than the CA). Gives the certificate as PEM in the arena. */
int pki_sign_request(struct pki *p, const char *csr_pem, size_t n, const struct val *usages,
                     int64_t seconds, struct arena *a, char **ret_cert_pem, struct err *err)
    _must_check_;
/* What a request asks for: {cn, orgs: [...], dns: N, ips: N, emails: N, uris: N}; NULL: it is none. */
const struct val *pki_request_facts(const char *csr_pem, size_t n, struct arena *a, struct err *err);
/* Checks that the text is one PEM certificate request with a good signature, and gives subject
 * (CN, and NULL-terminated O's) in the arena. ret_* may be NULL. */
int pki_read_request(const char *csr_pem, size_t n, struct arena *a, char **ret_cn,
                     char ***ret_orgs, struct err *err) _must_check_;

/* Subject of a certificate given as PEM or DER: who a TLS client is. Times of validity are the TLS
 * stack's to check. */
int pki_cert_subject(const char *cert, size_t n, struct arena *a, char **ret_cn, char ***ret_orgs,
                     struct err *err) _must_check_;

/* Writes a kubeconfig with embedded certificates, mode 0600, in place of what is there. */
int pki_write_kubeconfig(struct pki *p, const char *path, const char *server_url,
                         const char *file, const char *name, const char *group, struct err *err)
    _must_check_;
