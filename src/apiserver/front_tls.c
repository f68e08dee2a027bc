/* apiserver/front_tls.c - the certificates that the front shows and trusts, read again when their files
 * change: nothing restarts, connections that are open keep what they have.
 *
 * Looked at every LOOK_MS and on SIGHUP (front_reload). What can not be used is said in the log, and what
 * was in force stays. Without files of their own the server's certificate and the CA are those of the
 * instance, which makes its own anew before it ends. */
#include "apiserver/front_int.h"

#include "apiserver/front.h"
#include "base/log.h"
#include "env/fs.h"

#include <sys/stat.h>

enum { LOOK_MS = 5000, FILE_BYTES_MAX = 4 << 20, DAY_MS = 24 * 3600 * 1000, FILES = 7 };

struct front_tls {
    struct front *f;
    struct env_timer *timer;
    char *cert_path, *key_path, *client_ca_path, *proxy_ca_path; /* NULL: none */
    struct mark {
        int64_t s, ns, size, inode;
    } marks[FILES];
    int64_t renewed_ms;
};

static struct mark mark_of(const char *path)
{
    struct stat st;

    if (!path || stat(path, &st) < 0)
        return (struct mark){0};
    return (struct mark){st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_size, (int64_t)st.st_ino};
}

/* Has one of the files changed since the last time? */
static bool changed(struct front_tls *t)
{
    _auto_(freep) char *ca = xasprintf("%s/pki/ca.crt", t->f->api->state_dir);
    _auto_(freep) char *cert = xasprintf("%s/pki/server.crt", t->f->api->state_dir);
    _auto_(freep) char *key = xasprintf("%s/pki/server.key", t->f->api->state_dir);
    const char *paths[FILES] = {t->cert_path, t->key_path, t->client_ca_path, t->proxy_ca_path, ca, cert, key};
    bool yes = false;

    for (size_t i = 0; i < FILES; i++) {
        struct mark now = mark_of(paths[i]);

        yes |= memcmp(&now, &t->marks[i], sizeof(now)) != 0;
        t->marks[i] = now;
    }
    return yes;
}

/* "" for no path. NULL: it can not be read. */
static char *text_of(const char *path, struct err *err)
{
    size_t n;

    return path ? fs_read(path, FILE_BYTES_MAX, &n, err) : xstrdup("");
}

/* All that the front shows and trusts, as texts (free() them). */
struct texts4 {
    char *cert, *key, *client_ca, *proxy_ca;
};

static void texts4_done(struct texts4 *x)
{
    free(x->cert);
    free(x->key);
    free(x->client_ca);
    free(x->proxy_ca);
}

static int read_all(struct front_tls *t, struct texts4 *x, struct err *err)
{
    struct pki *pki = t->f->api->pki;

    x->cert = t->cert_path ? text_of(t->cert_path, err) : xstrdup(pki_server_cert_pem(pki));
    x->key = t->key_path ? text_of(t->key_path, err) : xstrdup(pki_server_key_pem(pki));
    x->client_ca = text_of(t->client_ca_path, err);
    x->proxy_ca = text_of(t->proxy_ca_path, err);
    return x->cert && x->key && x->client_ca && x->proxy_ca ? 0 : -1;
}

static int apply(struct front_tls *t, struct err *err)
{
    struct api *api = t->f->api;
    struct texts4 x = {0};
    _auto_(freep) char *trust = NULL;
    struct http_tls tls;
    int r = -1;

    if (read_all(t, &x, err) == 0) {
        trust = xasprintf("%s\n%s\n%s", pki_ca_pem(api->pki), x.client_ca, x.proxy_ca);
        tls = (struct http_tls){.cert_pem = x.cert, .key_pem = x.key, .client_ca_pem = trust};
        if (authn_trust_proxies(api->authn, *x.proxy_ca ? x.proxy_ca : NULL, err) == 0)
            r = t->f->server ? http_server_set_tls(t->f->server, &tls, err) : 0;
    }
    texts4_done(&x);
    return r;
}

void front_reload(struct front *f)
{
    struct front_tls *t = f->tls;
    struct err err = {0};
    int64_t now = env_now_ms(f->api->env);

    if (now - t->renewed_ms < DAY_MS && !changed(t))
        return;
    t->renewed_ms = now;
    if (pki_refresh(f->api->pki, &err) < 0 || apply(t, &err) < 0) {
        LOG(ERROR, "api", "did=certificates kept=old err=\"%s\"", err.msg);
        return;
    }
    changed(t); /* what was just made anew is no change */
    LOG(INFO, "api", "did=certificates");
    if (f->renewed)
        f->renewed(f->renewed_arg);
}

static void look(void *arg)
{
    front_reload(arg);
}

int front_tls_new(struct front *f, const struct front_opts *o, struct http_tls *ret, char **ret_trust,
                  struct err *err)
{
    struct front_tls *t = xcalloc(1, sizeof(*t));
    struct texts4 x = {0};

    f->tls = t;
    t->f = f;
    t->cert_path = o && o->cert_path ? xstrdup(o->cert_path) : NULL;
    t->key_path = o && o->key_path ? xstrdup(o->key_path) : NULL;
    t->client_ca_path = o && o->client_ca_path ? xstrdup(o->client_ca_path) : NULL;
    t->proxy_ca_path = o && o->proxy_ca_path ? xstrdup(o->proxy_ca_path) : NULL;
    if (!t->cert_path != !t->key_path)
        return err_set(err, INVALID_ARGUMENT, "a certificate and its key go together");
    if (read_all(t, &x, err) < 0 ||
        authn_trust_proxies(f->api->authn, *x.proxy_ca ? x.proxy_ca : NULL, err) < 0) {
        texts4_done(&x);
        return -1;
    }
    *ret_trust = xasprintf("%s\n%s\n%s", pki_ca_pem(f->api->pki), x.client_ca, x.proxy_ca);
    *ret = (struct http_tls){.cert_pem = STEAL(x.cert), .key_pem = STEAL(x.key), .client_ca_pem = *ret_trust};
    texts4_done(&x);
    changed(t);
    t->renewed_ms = env_now_ms(f->api->env);
    t->timer = env_timer_new(f->api->env, look, f);
    env_timer_start(t->timer, LOOK_MS, LOOK_MS);
    return 0;
}

void *front_tls_free(struct front_tls *t)
{
    if (!t)
        return NULL;
    env_timer_free(t->timer);
    free(t->cert_path);
    free(t->key_path);
    free(t->client_ca_path);
    free(t->proxy_ca_path);
    free(t);
    return NULL;
}
