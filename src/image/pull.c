/* Images from registries: which addresses to ask, the manifest, the config, then the missing
 * layers on a few threads, each downloaded to a file, checked and unpacked. */
#include "image/registry.h"
#include "env/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

enum { ENDPOINTS_MAX = 16, LAYERS_AT_ONCE = 3, PULL_TIMEOUT_MS = 30 * 60 * 1000 };

struct endpoint {
    const char *base;
    bool insecure;
};

struct pull {
    struct image_store *s;
    const struct image_pull_options *o;
    struct image_name name;
    const char *full; /* normalised */
    struct arena *a;
    const char *username, *password, *ca;
    struct endpoint endpoint[ENDPOINTS_MAX];
    int n_endpoints;
    int64_t deadline_ms;
    struct registry *reg; /* the one that answered */
    /* layers */
    const struct val *layers;
    const char **diff_ids;
    pthread_mutex_t mu; /* below */
    uint32_t next;
    int64_t done, total;
    bool stop;
    struct err err;
};

/* --- where to ask --- */

static bool loopback(const char *host)
{
    return !strncasecmp(host, "localhost", 9) || str_starts(host, "127.") || str_starts(host, "[::1]");
}

static void add_endpoint(struct pull *p, const char *base, bool insecure)
{
    size_t n = strlen(base);

    while (n && base[n - 1] == '/')
        n--;
    if (p->n_endpoints < ENDPOINTS_MAX)
        p->endpoint[p->n_endpoints++] = (struct endpoint){arena_strndup(p->a, base, n), insecure};
}

static void add_entry(struct pull *p, const struct val *entry, bool *insecure)
{
    *insecure |= val_bool_at(entry, "insecure", false);
    if (!p->username)
        p->username = val_str_at(entry, "username", NULL);
    if (!p->password)
        p->password = val_str_at(entry, "password", NULL);
    if (!p->ca)
        p->ca = val_str_at(entry, "ca", NULL);
    VAL_EACH(val_get(entry, "mirrors"), it) {
        const char *base = val_text(it, "");
        bool plain = str_starts(base, "http://");

        if (!plain && !str_starts(base, "https://"))
            add_endpoint(p, arena_printf(p->a, "https://%s", base), *insecure);
        else if (!plain || *insecure || loopback(base + 7))
            add_endpoint(p, base, *insecure);
        else
            LOG(WARN, "image", "mirror=%s did=left_out why=\"plain http needs insecure: true\"", base);
    }
}

static int endpoints(struct pull *p, struct err *err)
{
    const char *host = p->name.host;
    bool insecure = false;
    struct buf b = {0};
    struct val *conf;
    struct err e = {0};

    if (p->s->registries_path) {
        if (fsat_read(AT_FDCWD, p->s->registries_path, JSON_BLOB_MAX, &b, &e) == 0) {
            conf = json_parse(p->a, b.p, b.n, err);
            buf_done(&b);
            if (!conf)
                return err_wrap(err, "%s", p->s->registries_path);
            add_entry(p, val_get(val_get(conf, "registries"), host), &insecure);
            add_entry(p, val_get(val_get(conf, "registries"), "*"), &insecure);
        } else {
            buf_done(&b);
            if (e.code != ERR_NOT_FOUND) {
                *err = e;
                return -1;
            }
        }
    }
    if (streq(host, "docker.io"))
        host = "registry-1.docker.io";
    if (loopback(host))
        add_endpoint(p, arena_printf(p->a, "http://%s", host), false);
    add_endpoint(p, arena_printf(p->a, "https://%s", host), insecure);
    if (insecure && !loopback(host))
        add_endpoint(p, arena_printf(p->a, "http://%s", host), true);
    return 0;
}

/* --- manifest and config --- */

static bool ask_progress(void *arg, const char *what, int64_t done, int64_t total)
{
    struct pull *p = arg;
    bool go;

    (void)what;
    (void)done;
    (void)total;
    pthread_mutex_lock(&p->mu);
    go = !p->stop && (!p->o->progress || p->o->progress(p->o->arg, "pull", p->done, p->total));
    if (!go)
        p->stop = true;
    pthread_mutex_unlock(&p->mu);
    return go;
}

/* Asks the addresses in turn until one has the manifest. */
static int manifest_any(struct pull *p, struct buf *b, struct err *err)
{
    struct err first = {0};
    char type[128];

    for (int i = 0; i < p->n_endpoints; i++) {
        struct registry_options ro = {.base = p->endpoint[i].base, .repo = p->name.repo,
                                      .username = p->username, .password = p->password, .ca = p->ca,
                                      .insecure = p->endpoint[i].insecure,
                                      .deadline_ms = p->deadline_ms, .progress = ask_progress, .arg = p};
        struct err e = {0};

        p->reg = registry_free(p->reg);
        p->reg = registry_new(&ro);
        if (registry_get(p->reg, "manifests", p->name.ref, b, type, &e) == 0)
            return 0;
        if (e.code == ERR_CANCELLED || i + 1 == p->n_endpoints) {
            /* the answer of the first says more than a connection that failed after it */
            *err = (e.code == ERR_BAD_GATEWAY || e.code == ERR_TIMEOUT) && first.code ? first : e;
            return -1;
        }
        LOG(DEBUG, "image", "from=%s image=%s err=\"%s\"", ro.base, p->full, e.msg);
        if (!first.code)
            first = e;
    }
    return err_set(err, INTERNAL, "no address to pull %s from", p->full);
}

/* The manifest for this machine, in the store; *ret lives in p->a. */
static int manifest_get(struct pull *p, const struct val **ret, char ret_digest[DIGEST_N + 1],
                        struct err *err)
{
    const struct val *m, *picked;
    struct buf b = {0};
    char type[128];
    int rc;

    rc = manifest_any(p, &b, err);
    for (int depth = 0; rc == 0; depth++) {
        m = json_parse(p->a, b.p ? b.p : "", b.n, err);
        if (!m) {
            rc = err_wrap(err, "manifest of %s", p->full);
            break;
        }
        if (!media_is_index(m)) {
            rc = manifest_check(m, err);
            if (rc == 0)
                rc = blob_put(p->s, b.p, b.n, NULL, ret_digest, err);
            *ret = m;
            break;
        }
        picked = depth < 3 ? index_pick(m, err) : NULL;
        if (!picked) {
            rc = depth < 3 ? -1 : err_set(err, INVALID, "indexes within indexes");
            break;
        }
        buf_reset(&b);
        rc = registry_get(p->reg, "manifests", val_str_at(picked, "digest", ""), &b, type, err);
    }
    buf_done(&b);
    return rc;
}

static int config_get(struct pull *p, const char *digest, const struct val **ret, struct err *err)
{
    struct buf b = {0};
    struct err e = {0};
    char type[128];
    int rc = blob_read(p->s, digest, &b, &e);

    if (rc < 0) {
        buf_reset(&b);
        rc = registry_get(p->reg, "blobs", digest, &b, type, err);
        if (rc == 0)
            rc = blob_put(p->s, b.p, b.n, digest, NULL, err);
    }
    if (rc == 0 && !(*ret = json_parse(p->a, b.p, b.n, err)))
        rc = err_wrap(err, "config of %s", p->full);
    buf_done(&b);
    return rc;
}

/* --- layers --- */

static bool layer_received(void *arg, int64_t n)
{
    struct pull *p = arg;
    bool go;

    pthread_mutex_lock(&p->mu);
    p->done += n;
    go = !p->stop;
    pthread_mutex_unlock(&p->mu);
    return go;
}

static int layer_get(struct pull *p, uint32_t i, struct err *err)
{
    const struct val *layer = &p->layers->items[i];
    const char *digest = val_str_at(layer, "digest", "");
    int64_t size = val_int_at(layer, "size", 0);
    struct unpack_options o = {.bottom = i == 0, .progress = ask_progress, .arg = p};
    char got[DIGEST_N + 1];
    _auto_(closep) int fd = -1;

    if (layer_have(p->s, p->diff_ids[i])) {
        layer_received(p, size);
        return 0;
    }
    fd = openat(p->s->dirfd, "blobs", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, "a file for a layer in %s/blobs", p->s->dir);
    if (registry_blob(p->reg, digest, size, fd, layer_received, p, err) < 0)
        return -1;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(err, "rewind a layer");
    if (image_unpack_layer(p->s, fd, &o, p->diff_ids[i], got, NULL, err) < 0)
        return err_wrap(err, "layer %s", digest);
    return 0;
}

static void *layer_thread(void *arg)
{
    struct pull *p = arg;

    for (;;) {
        struct err e = {0};
        uint32_t i;

        pthread_mutex_lock(&p->mu);
        i = p->stop ? p->layers->n : p->next++;
        pthread_mutex_unlock(&p->mu);
        if (i >= p->layers->n)
            return NULL;
        if (layer_get(p, i, &e) < 0) {
            pthread_mutex_lock(&p->mu);
            if (!p->err.code || p->err.code == ERR_CANCELLED)
                p->err = e;
            p->stop = true;
            pthread_mutex_unlock(&p->mu);
        }
    }
}

static int layers_get(struct pull *p, struct err *err)
{
    pthread_t t[LAYERS_AT_ONCE];
    uint32_t n = MIN((uint32_t)LAYERS_AT_ONCE, p->layers->n);

    for (uint32_t i = 0; i < n; i++)
        ASSERT(pthread_create(&t[i], NULL, layer_thread, p) == 0);
    for (uint32_t i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    if (p->err.code) {
        *err = p->err;
        return -1;
    }
    return p->stop ? err_set(err, CANCELLED, "cancelled") : 0;
}

static struct image *pull_all(struct pull *p, struct err *err)
{
    const struct val *manifest = NULL, *config = NULL;
    char digest[DIGEST_N + 1];
    int64_t size = 0;
    uint32_t n;

    if (endpoints(p, err) < 0 || manifest_get(p, &manifest, digest, err) < 0 ||
        config_get(p, val_str_at(manifest, "config.digest", ""), &config, err) < 0 ||
        config_diff_ids(p->a, config, &p->diff_ids, &n, err) < 0)
        return NULL;
    p->layers = val_get(manifest, "layers");
    if (p->layers->n != n) {
        err_set(err, INVALID, "%u layers but %u diff-ids", p->layers->n, n);
        return NULL;
    }
    VAL_EACH(p->layers, it)
        size += val_int_at(it, "size", 0);
    p->total = size;
    if (layers_get(p, err) < 0)
        return NULL;
    return store_enter(p->s, p->full, digest, size, err);
}

/* Waits while another thread pulls the same; true: we wait no longer and are the one who pulls. */
static bool pull_begin(struct image_store *s, const char *full)
{
    bool waited = false;

    pthread_mutex_lock(&s->mu);
    while (map_get(&s->pulling, full)) {
        waited = true;
        pthread_cond_wait(&s->pulled, &s->mu);
    }
    map_put(&s->pulling, full, s);
    pthread_mutex_unlock(&s->mu);
    return !waited;
}

static void pull_end(struct image_store *s, const char *full)
{
    pthread_mutex_lock(&s->mu);
    map_del(&s->pulling, full);
    pthread_cond_broadcast(&s->pulled);
    pthread_mutex_unlock(&s->mu);
}

struct image *image_pull(struct image_store *s, const char *ref, const struct image_pull_options *o,
                         struct err *err)
{
    static const struct image_pull_options none;
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(freep) char *full = image_name_normal(ref, err);
    struct pull p = {.s = s, .o = o ? o : &none, .full = full, .a = a};
    struct image *img = NULL;
    struct err e = {0};
    bool alone;
    _auto_(closep) int lock = -1;

    if (!full || image_name_parse(ref, &p.name, err) < 0)
        return NULL;
    p.username = p.o->username;
    p.password = p.o->password;
    p.deadline_ms = clock_mono_ms() + (p.o->timeout_ms > 0 ? p.o->timeout_ms : PULL_TIMEOUT_MS);
    pthread_mutex_init(&p.mu, NULL);
    alone = pull_begin(s, full);
    if (!alone) /* somebody has just done it; if it failed, we try ourselves */
        img = image_resolve(s, full, &e);
    if (!img) {
        lock = store_lock_work(s, false, true, err);
        img = lock < 0 ? NULL : pull_all(&p, &e);
    }
    if (!img && lock >= 0) {
        *err = e;
        err_wrap(err, "pull %s", full);
    }
    pull_end(s, full);
    registry_free(p.reg);
    image_name_done(&p.name);
    pthread_mutex_destroy(&p.mu);
    return img;
}
