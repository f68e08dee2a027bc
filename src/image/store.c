/* The store: index, blobs, layers, holds, the sweep. See image.h for the layout.
 *
 * Order of a change: blobs and layers first (each appears under its name only when complete and on
 * disk), the index last. So whatever the index names is there; what it does not name is garbage,
 * which the sweep takes when nobody holds work.lock. The index may be changed by several
 * processes: each change locks the file `lock`, reads the index anew, writes it and lets go. */
#include "image/image_int.h"

#include <dirent.h>
#include <stdatomic.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static int lock_file(struct image_store *s, const char *name, int how, struct err *err)
{
    int fd = openat(s->dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(err, "open %s/%s", s->dir, name);
    while (flock(fd, how) < 0)
        if (errno != EINTR) {
            if (errno == EWOULDBLOCK)
                err_set(err, UNAVAILABLE, "the image store is busy");
            else
                err_sys(err, "lock %s/%s", s->dir, name);
            close(fd);
            return -1;
        }
    return fd;
}

int store_lock_work(struct image_store *s, bool alone, bool wait, struct err *err)
{
    return lock_file(s, "work.lock", (alone ? LOCK_EX : LOCK_SH) | (wait ? 0 : LOCK_NB), err);
}

/* mu is held. Reads index.json again when it is another one than we know. */
static int index_refresh(struct image_store *s, struct err *err)
{
    struct stat st = {0};
    struct buf b = {0};
    struct arena *a;
    struct val *v;
    const char *key;
    void *img;

    if (fstatat(s->dirfd, "index.json", &st, 0) < 0 && errno != ENOENT)
        return err_sys(err, "stat %s/index.json", s->dir);
    if (s->index && st.st_ino == s->seen.st_ino && st.st_size == s->seen.st_size &&
        st.st_mtim.tv_sec == s->seen.st_mtim.tv_sec && st.st_mtim.tv_nsec == s->seen.st_mtim.tv_nsec)
        return 0;
    a = arena_new();
    if (st.st_ino) {
        if (fsat_read(s->dirfd, "index.json", 64 << 20, &b, err) < 0 ||
            !(v = json_parse(a, b.p, b.n, err))) {
            buf_done(&b);
            arena_free(a);
            return err_wrap(err, "%s/index.json", s->dir);
        }
        buf_done(&b);
    } else {
        v = val_map(a);
    }
    val_need_map(a, v, "images");
    val_need_map(a, v, "sources");
    arena_free(s->a);
    s->a = a;
    s->index = v;
    s->seen = st;
    for (uint32_t i = 0; map_next(&s->images, &i, &key, &img);)
        image_unref(img);
    map_done(&s->images);
    s->images = (struct map){0};
    return 0;
}

/* A change: edit_begin, alter s->index, edit_end(true). mu is held all the while. */
static int edit_begin(struct image_store *s, struct err *err)
{
    int fd = lock_file(s, "lock", LOCK_EX, err);

    if (fd >= 0 && index_refresh(s, err) < 0)
        closep(&fd), fd = -1;
    return fd;
}

static int edit_end(struct image_store *s, int fd, struct err *err)
{
    struct buf b = {0};
    int rc;

    json_write_pretty(&b, s->index);
    rc = fsat_write(s->dirfd, "index.json", b.p, b.n, err);
    buf_done(&b);
    s->index = NULL; /* read again: also undoes an edit that could not be written */
    close(fd);
    if (rc == 0)
        rc = index_refresh(s, err);
    return rc;
}

/* --- blobs and layers --- */

int blob_put(struct image_store *s, const void *p, size_t n, const char *want,
             char ret_digest[DIGEST_N + 1], struct err *err)
{
    char digest[DIGEST_N + 1], name[128];
    struct stat st;
    _auto_(closep) int dir = openat(s->dirfd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return err_sys(err, "open %s/blobs/sha256", s->dir);
    sha_of(p, n, digest);
    if (want && !streq(want, digest))
        return err_set(err, INVALID, "content has digest %s, not %s", digest, want);
    snprintf(name, sizeof(name), "%s", digest + 7);
    if (fstatat(dir, name, &st, 0) < 0 || (size_t)st.st_size != n)
        if (fsat_write(dir, name, p, n, err) < 0)
            return -1;
    if (ret_digest)
        memcpy(ret_digest, digest, sizeof(digest));
    return 0;
}

int blob_read(struct image_store *s, const char *digest, struct buf *ret, struct err *err)
{
    char name[128];

    ASSERT(image_digest_ok(digest));
    snprintf(name, sizeof(name), "blobs/sha256/%s", digest + 7);
    return fsat_read(s->dirfd, name, JSON_BLOB_MAX, ret, err);
}

bool layer_have(struct image_store *s, const char *diff_id)
{
    char name[128];

    snprintf(name, sizeof(name), "layers/%s", diff_id + 7);
    return faccessat(s->dirfd, name, F_OK, 0) == 0;
}

void layer_tmp_name(char ret[64])
{
    static _Atomic uint32_t serial;

    snprintf(ret, 64, "layers/.tmp-%d-%u", (int)getpid(), ++serial);
}

int layer_commit(struct image_store *s, const char *tmp, const char *diff_id, struct err *err)
{
    char name[128];
    _auto_(closep) int dir = openat(s->dirfd, "layers", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return err_sys(err, "open %s/layers", s->dir);
    snprintf(name, sizeof(name), "layers/%s", diff_id + 7);
    if (syncfs(dir) < 0) /* the files before the name that says they are complete */
        return err_sys(err, "sync %s", s->dir);
    if (renameat(s->dirfd, tmp, s->dirfd, name) < 0) {
        if (errno == EEXIST || errno == ENOTEMPTY) /* another one was faster */
            return fsat_remove_tree(s->dirfd, tmp, err);
        return err_sys(err, "rename a layer");
    }
    return fsync(dir) < 0 ? err_sys(err, "fsync %s/layers", s->dir) : 0;
}

/* --- images --- */

struct image *image_ref(const struct image *img)
{
    atomic_fetch_add_explicit(&((struct image *)img)->refs, 1, memory_order_relaxed);
    return (struct image *)img;
}

/* An image and all it points at lie in one arena, whose pointer sits right behind the struct. */
struct image_box {
    struct image img;
    struct arena *a;
};

void *image_unref(const struct image *img)
{
    struct image_box *box = container_of((struct image *)img, struct image_box, img);

    if (img && atomic_fetch_sub_explicit(&box->img.refs, 1, memory_order_acq_rel) == 1)
        arena_free(box->a);
    return NULL;
}

static const char *const *strings_of(struct arena *a, const struct val *list)
{
    const char **v = arena_array(a, const char *, val_items_n_(list) + 1);
    size_t n = 0;

    VAL_EACH(list, it)
        if (it->type == VAL_STR)
            v[n++] = arena_strdup(a, it->s);
    return v;
}

static const char *const *keys_of(struct arena *a, const struct val *map)
{
    const char **v = arena_array(a, const char *, val_members_n_(map) + 1);
    size_t n = 0;

    VAL_EACH_MEMBER(map, m)
        v[n++] = arena_strdup(a, m->key);
    return v;
}

static int image_fill(struct image_store *s, struct arena *a, struct image *img, const char *name,
                      const struct val *entry, struct err *err)
{
    const char *config_digest = val_str_at(entry, "config", NULL);
    const char **ids, **lowers, *at;
    const struct val *doc, *c;
    struct buf b = {0};
    uint32_t n;

    if (!image_digest_ok(config_digest) || !image_digest_ok(val_str_at(entry, "manifest", NULL)))
        return err_set(err, INTERNAL, "index.json: a bad entry for %s", name);
    if (blob_read(s, config_digest, &b, err) < 0)
        return -1;
    doc = json_parse(a, b.p, b.n, err);
    buf_done(&b);
    if (!doc || config_diff_ids(a, doc, &ids, &n, err) < 0)
        return -1;
    lowers = arena_array(a, const char *, n + 1);
    for (uint32_t i = 0; i < n; i++)
        lowers[i] = arena_printf(a, "%s/layers/%s", s->dir, ids[n - 1 - i] + 7);
    c = val_get(doc, "config");
    img->name = arena_strdup(a, name);
    img->digest = arena_strdup(a, val_str_at(entry, "manifest", ""));
    img->id = arena_strdup(a, config_digest);
    at = strrchr(name, '@');
    if (!at) {
        at = strrchr(name, ':');
        ASSERT(at);
    }
    img->repo_digest = arena_printf(a, "%.*s@%s", (int)(at - name), name, img->digest);
    img->created = arena_strdup(a, val_str_at(doc, "created", ""));
    img->lowers = lowers;
    img->n_lowers = n;
    img->size = val_int_at(entry, "size", 0);
    img->config = (struct image_config){
        .entrypoint = strings_of(a, val_get(c, "Entrypoint")),
        .cmd = strings_of(a, val_get(c, "Cmd")),
        .env = strings_of(a, val_get(c, "Env")),
        .exposed = keys_of(a, val_get(c, "ExposedPorts")),
        .volumes = keys_of(a, val_get(c, "Volumes")),
        .workdir = arena_strdup(a, val_str_at(c, "WorkingDir", "")),
        .user = arena_strdup(a, val_str_at(c, "User", "")),
        .stop_signal = arena_strdup(a, val_str_at(c, "StopSignal", "")),
    };
    return 0;
}

/* mu is held, the index is fresh. */
static struct image *image_get(struct image_store *s, const char *name, const struct val *entry,
                               struct err *err)
{
    struct image *img = map_get(&s->images, name);
    struct image_box *box;
    struct arena *a;

    if (img)
        return image_ref(img);
    a = arena_new();
    box = arena_new_of(a, struct image_box);
    box->a = a;
    box->img.refs = 1;
    if (image_fill(s, a, &box->img, name, entry, err) < 0) {
        arena_free(a);
        return NULL;
    }
    map_put(&s->images, name, &box->img);
    return image_ref(&box->img);
}

/* mu is held. The entry of a reference and its full name. */
static const struct val *entry_find(struct image_store *s, const char *ref, const char **ret_name,
                                    struct err *err)
{
    const struct val *images = val_get(s->index, "images"), *e;
    const char *hex = str_starts(ref, "sha256:") ? ref + 7 : ref;
    _auto_(freep) char *name = NULL;
    struct err bad = {0};
    size_t n = strlen(hex);

    name = image_name_normal(ref, &bad);
    if (name && (e = val_get(images, name))) {
        VAL_EACH_MEMBER(images, m)
            if (&m->v == e)
                *ret_name = m->key;
        return e;
    }
    if (name && strchr(name, '@')) { /* any tag of that repository with this digest */
        const char *digest = strchr(name, '@') + 1;
        size_t repo_n = (size_t)(digest - 1 - name);

        VAL_EACH_MEMBER(images, m)
            if (streq(val_str_at(&m->v, "manifest", ""), digest) && m->n > repo_n &&
                !memcmp(m->key, name, repo_n) && strchr(":@", m->key[repo_n])) {
                *ret_name = m->key;
                return &m->v;
            }
    }
    if (n >= 12 && n <= HEX_N && strspn(hex, "0123456789abcdef") == n)
        VAL_EACH_MEMBER(images, m)
            if (!strncmp(val_str_at(&m->v, "config", "sha256:") + 7, hex, n) ||
                !strncmp(val_str_at(&m->v, "manifest", "sha256:") + 7, hex, n)) {
                *ret_name = m->key;
                return &m->v;
            }
    if (!name)
        *err = bad;
    else
        err_set(err, NOT_FOUND, "no image %s on this machine", name);
    return NULL;
}

struct image *image_resolve(struct image_store *s, const char *ref, struct err *err)
{
    const struct val *e;
    const char *name = NULL;
    struct image *img = NULL;

    pthread_mutex_lock(&s->mu);
    if (index_refresh(s, err) == 0 && (e = entry_find(s, ref, &name, err)))
        img = image_get(s, name, e, err);
    pthread_mutex_unlock(&s->mu);
    return img;
}

static int by_name(const void *x, const void *y)
{
    return strcmp((*(struct image *const *)x)->name, (*(struct image *const *)y)->name);
}

int image_ls(struct image_store *s, struct image ***ret, size_t *ret_n, struct err *err)
{
    struct image **list;
    size_t n = 0;
    int rc = 0;

    pthread_mutex_lock(&s->mu);
    if (index_refresh(s, err) < 0) {
        pthread_mutex_unlock(&s->mu);
        return -1;
    }
    list = xcalloc(val_len(val_get(s->index, "images")) + 1, sizeof(*list));
    VAL_EACH_MEMBER(val_get(s->index, "images"), m) {
        list[n] = image_get(s, m->key, &m->v, err);
        if (!list[n]) {
            rc = -1;
            break;
        }
        n++;
    }
    pthread_mutex_unlock(&s->mu);
    if (rc < 0) {
        image_list_free(list, n);
        return -1;
    }
    qsort(list, n, sizeof(*list), by_name);
    *ret = list;
    *ret_n = n;
    return 0;
}

void image_list_free(struct image **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        image_unref(list[i]);
    free(list);
}

static void put_entry(struct image_store *s, const char *name, const struct val *entry)
{
    val_put(s->a, val_need_map(s->a, s->index, "images"), arena_strdup(s->a, name), entry);
}

struct image *store_enter(struct image_store *s, const char *name, const char *manifest_digest,
                          int64_t size, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *manifest;
    struct image *img = NULL;
    struct buf b = {0};
    struct val *e;
    char now[40];
    time_t t = time(NULL);
    struct tm tm;
    int fd;

    if (blob_read(s, manifest_digest, &b, err) < 0)
        return NULL;
    manifest = json_parse(a, b.p, b.n, err);
    buf_done(&b);
    if (!manifest)
        return NULL;
    strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    pthread_mutex_lock(&s->mu);
    fd = edit_begin(s, err);
    if (fd >= 0) {
        e = val_map(s->a);
        val_put_str(s->a, e, "manifest", manifest_digest);
        val_put_str(s->a, e, "config", val_str_at(manifest, "config.digest", ""));
        val_put_int(s->a, e, "size", size);
        val_put_str(s->a, e, "imported", now);
        put_entry(s, name, e);
        if (edit_end(s, fd, err) == 0)
            img = image_get(s, name, val_get(val_get(s->index, "images"), name), err);
    }
    pthread_mutex_unlock(&s->mu);
    return img;
}

int store_source_set(struct image_store *s, const char *file, const char *stamp, struct err *err)
{
    int fd, rc = -1;

    pthread_mutex_lock(&s->mu);
    fd = edit_begin(s, err);
    if (fd >= 0) {
        val_put_str(s->a, val_need_map(s->a, s->index, "sources"), arena_strdup(s->a, file), stamp);
        rc = edit_end(s, fd, err);
    }
    pthread_mutex_unlock(&s->mu);
    return rc;
}

bool store_source_is(struct image_store *s, const char *file, const char *stamp)
{
    struct err ignored = {0};
    bool is;

    pthread_mutex_lock(&s->mu);
    is = index_refresh(s, &ignored) == 0 &&
         streq(val_text(val_get(val_get(s->index, "sources"), file), ""), stamp);
    pthread_mutex_unlock(&s->mu);
    return is;
}

int image_tag(struct image_store *s, const char *ref, const char *name, struct err *err)
{
    _auto_(freep) char *full = image_name_normal(name, err);
    const struct val *e;
    const char *old = NULL;
    int fd, rc = -1;

    if (!full)
        return -1;
    if (strchr(full, '@'))
        return err_set(err, INVALID_ARGUMENT, "a tag cannot hold a digest: %s", full);
    pthread_mutex_lock(&s->mu);
    fd = edit_begin(s, err);
    if (fd >= 0) {
        e = entry_find(s, ref, &old, err);
        if (e) {
            put_entry(s, full, val_copy(s->a, e));
            rc = edit_end(s, fd, err);
        } else {
            close(fd);
        }
    }
    pthread_mutex_unlock(&s->mu);
    return rc;
}

int image_rm(struct image_store *s, const char *ref, struct err *err)
{
    const char *name = NULL;
    struct err later = {0};
    int fd, rc = -1;

    pthread_mutex_lock(&s->mu);
    fd = edit_begin(s, err);
    if (fd >= 0) {
        if (entry_find(s, ref, &name, err)) {
            val_del(val_get(s->index, "images"), name);
            rc = edit_end(s, fd, err);
        } else {
            close(fd);
        }
    }
    pthread_mutex_unlock(&s->mu);
    if (rc == 0 && image_gc(s, NULL, &later) < 0 && later.code != ERR_UNAVAILABLE)
        LOG(WARN, "image", "did=gc_failed err=\"%s\"", later.msg); /* the next sweep takes it */
    return rc;
}

/* --- holds: one file per owner and image, named OWNER@HEX of the manifest --- */

static bool owner_ok(const char *owner)
{
    size_t n = strlen(owner);

    return n > 0 && n < 128 &&
           strspn(owner, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == n;
}

int image_hold(struct image_store *s, const char *owner, const struct image *img, struct err *err)
{
    struct buf b = {0};
    char name[256];
    int rc;

    if (!owner_ok(owner))
        return err_set(err, INVALID_ARGUMENT, "bad owner \"%.130s\"", owner);
    snprintf(name, sizeof(name), "%s@%s", owner, img->digest + 7);
    _auto_(closep) int dir = openat(s->dirfd, "holds", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_sys(err, "open %s/holds", s->dir);
    if (faccessat(dir, name, F_OK, 0) == 0)
        return 0;
    buf_printf(&b, "%s\n%s\n", img->digest, img->id);
    rc = fsat_write(dir, name, b.p, b.n, err);
    buf_done(&b);
    return rc;
}

int image_release(struct image_store *s, const char *owner, struct err *err)
{
    size_t n = strlen(owner);
    struct dirent *de;
    int rc = 0, fd;
    DIR *d;

    if (!owner_ok(owner))
        return err_set(err, INVALID_ARGUMENT, "bad owner \"%.130s\"", owner);
    fd = openat(s->dirfd, "holds", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d)
        return err_sys(err, "open %s/holds", s->dir);
    while ((de = readdir(d)))
        if (!strncmp(de->d_name, owner, n) && de->d_name[n] == '@' &&
            unlinkat(fd, de->d_name, 0) < 0 && errno != ENOENT)
            rc = err_sys(err, "remove %s/holds/%s", s->dir, de->d_name);
    closedir(d);
    return rc;
}

char **image_holders(struct image_store *s, struct err *err)
{
    size_t n = 0, bytes = 0, cap = 16;
    char **v = xcalloc(cap, sizeof(*v)), **one, *p;
    struct dirent *de;
    int fd = openat(s->dirfd, "holds", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

    if (!d) {
        free(v);
        err_sys(err, "open %s/holds", s->dir);
        return NULL;
    }
    while ((de = readdir(d))) {
        const char *at = strchr(de->d_name, '@');
        bool known = false;

        if (!at)
            continue;
        for (size_t i = 0; i < n && !known; i++)
            known = !strncmp(v[i], de->d_name, (size_t)(at - de->d_name)) && !v[i][at - de->d_name];
        if (known)
            continue;
        if (n == cap)
            v = xrealloc(v, (cap *= 2) * sizeof(*v));
        v[n++] = xstrndup(de->d_name, (size_t)(at - de->d_name));
        bytes += strlen(v[n - 1]) + 1;
    }
    closedir(d);
    one = xmalloc((n + 1) * sizeof(*one) + bytes);
    p = (char *)(one + n + 1);
    for (size_t i = 0; i < n; i++) {
        one[i] = p;
        p = stpcpy(p, v[i]) + 1;
        free(v[i]);
    }
    one[n] = NULL;
    free(v);
    return one;
}

/* --- the sweep --- */

struct sweep {
    struct image_store *s;
    struct map blobs, layers; /* hex that stays -> the sweep itself */
    int64_t freed;
};

static void keep_config(struct sweep *w, const char *config_digest)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored = {0};
    const struct val *doc;
    struct buf b = {0};
    const char **ids;
    uint32_t n;

    if (!image_digest_ok(config_digest))
        return;
    map_put(&w->blobs, config_digest + 7, w);
    if (blob_read(w->s, config_digest, &b, &ignored) == 0 &&
        (doc = json_parse(a, b.p, b.n, &ignored)) && config_diff_ids(a, doc, &ids, &n, &ignored) == 0)
        for (uint32_t i = 0; i < n; i++)
            map_put(&w->layers, ids[i] + 7, w);
    buf_done(&b);
}

static int keep_held(struct sweep *w, struct err *err)
{
    int fd = openat(w->s->dirfd, "holds", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *de;
    int rc = 0;

    if (!d)
        return err_sys(err, "open %s/holds", w->s->dir);
    while (rc == 0 && (de = readdir(d))) {
        struct buf b = {0};
        char *nl;

        if (!strchr(de->d_name, '@'))
            continue;
        rc = fsat_read(fd, de->d_name, 1024, &b, err);
        if (rc < 0 && err->code == ERR_NOT_FOUND)
            rc = 0; /* released this moment */
        else if (rc == 0 && (nl = strchr(b.p, '\n'))) {
            *nl++ = 0;
            nl[strcspn(nl, "\n")] = 0;
            if (image_digest_ok(b.p))
                map_put(&w->blobs, b.p + 7, w);
            keep_config(w, nl);
        }
        buf_done(&b);
    }
    closedir(d);
    return rc;
}

static int sweep_dir(struct sweep *w, const char *path, const struct map *keep, struct err *err)
{
    int fd = openat(w->s->dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *de;

    if (!d)
        return err_sys(err, "open %s/%s", w->s->dir, path);
    while (rc == 0 && (de = readdir(d))) {
        const char *name = de->d_name;
        char gone[80];

        if (streq(name, ".") || streq(name, "..") || map_get(keep, name))
            continue;
        w->freed += fs_tree_bytes(fd, name);
        if (name[0] != '.') { /* never half a layer under a complete layer's name */
            snprintf(gone, sizeof(gone), ".gone-%.64s", name);
            if (renameat(fd, name, fd, gone) == 0)
                name = gone;
        }
        rc = fsat_remove_tree(fd, name, err);
    }
    closedir(d);
    return rc;
}

int image_gc(struct image_store *s, int64_t *ret_bytes, struct err *err)
{
    struct sweep w = {.s = s};
    _auto_(closep) int lock = store_lock_work(s, true, false, err);
    int rc;

    if (lock < 0)
        return -1;
    pthread_mutex_lock(&s->mu);
    rc = index_refresh(s, err);
    if (rc == 0)
        VAL_EACH_MEMBER(val_get(s->index, "images"), m) {
            const char *digest = val_str_at(&m->v, "manifest", "");

            if (image_digest_ok(digest))
                map_put(&w.blobs, digest + 7, &w);
            keep_config(&w, val_str_at(&m->v, "config", ""));
        }
    pthread_mutex_unlock(&s->mu);
    if (rc == 0)
        rc = keep_held(&w, err);
    if (rc == 0)
        rc = sweep_dir(&w, "layers", &w.layers, err);
    if (rc == 0)
        rc = sweep_dir(&w, "blobs/sha256", &w.blobs, err);
    map_done(&w.blobs);
    map_done(&w.layers);
    if (rc == 0 && ret_bytes)
        *ret_bytes = w.freed;
    return rc;
}

/* --- open, close --- */

struct image_store *image_store_open(const char *dir, const char *registries_path, struct err *err)
{
    static const char *const sub[] = {"blobs/sha256", "layers", "holds", "import"};
    struct image_store *s;
    struct err busy = {0};
    char real[4096];

    for (size_t i = 0; i < ARRAY_LEN(sub); i++) {
        _auto_(freep) char *p = xasprintf("%s/%s", dir, sub[i]);
        if (fsat_mkdirs(p, 0755, err) < 0)
            return NULL;
    }
    if (!realpath(dir, real)) {
        err_sys(err, "open %s", dir);
        return NULL;
    }
    s = xcalloc(1, sizeof(*s));
    s->dir = xstrdup(real);
    s->registries_path = registries_path ? xstrdup(registries_path) : NULL;
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->pulled, NULL);
    s->dirfd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dirfd < 0 || index_refresh(s, err) < 0) {
        if (s->dirfd < 0)
            err_sys(err, "open %s", dir);
        image_store_close(s);
        return NULL;
    }
    /* Left-overs of a killed import; busy: somebody is at work, the next one sweeps. */
    if (image_gc(s, NULL, &busy) < 0 && busy.code != ERR_UNAVAILABLE)
        LOG(WARN, "image", "did=sweep_failed err=\"%s\"", busy.msg);
    return s;
}

void *image_store_close(struct image_store *s)
{
    const char *key;
    void *img;

    if (!s)
        return NULL;
    for (uint32_t i = 0; map_next(&s->images, &i, &key, &img);)
        image_unref(img);
    map_done(&s->images);
    map_done(&s->pulling);
    arena_free(s->a);
    closep(&s->dirfd);
    pthread_mutex_destroy(&s->mu);
    pthread_cond_destroy(&s->pulled);
    free(s->dir);
    free(s->registries_path);
    free(s);
    return NULL;
}

const char *image_store_dir(const struct image_store *s)
{
    return s->dir;
}
