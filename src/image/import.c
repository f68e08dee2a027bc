/* Images from files: OCI layouts, docker-save archives, plain root file systems. */
#include "image/image_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct import {
    struct image_store *s;
    const struct image_import_options *o;
    const char *path; /* as given */
    struct arena *a;
    int dir; /* of the layout */
};

/* A file of the layout; symlinks stay inside. */
static int layout_open(struct import *im, const char *name, struct err *err)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT};
    struct stat st;
    int fd = (int)syscall(SYS_openat2, im->dir, name, &how, sizeof(how));

    if (fd < 0)
        return err_sys(err, "%s: open %s", im->path, name);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, INVALID, "%s: %s is no file", im->path, name);
    }
    return fd;
}

static int layout_read(struct import *im, const char *name, struct buf *b, struct err *err)
{
    _auto_(closep) int fd = layout_open(im, name, err);
    char self[40];

    if (fd < 0)
        return -1;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    if (fsat_read(AT_FDCWD, self, JSON_BLOB_MAX, b, err) < 0)
        return err_wrap(err, "%s: %s", im->path, name);
    return 0;
}

static struct val *layout_json(struct import *im, const char *name, struct err *err)
{
    struct buf b = {0};
    struct val *v = NULL;

    if (layout_read(im, name, &b, err) == 0 && !(v = json_parse(im->a, b.p, b.n, err)))
        err_wrap(err, "%s: %s", im->path, name);
    buf_done(&b);
    return v;
}

/* A blob of the layout as JSON; it is copied into the store, its digest checked. */
static struct val *layout_blob(struct import *im, const char *digest, struct err *err)
{
    struct val *v = NULL;
    struct buf b = {0};
    char name[128];

    if (!image_digest_ok(digest)) {
        err_set(err, INVALID, "%s: bad digest \"%.100s\"", im->path, digest);
        return NULL;
    }
    snprintf(name, sizeof(name), "blobs/sha256/%s", digest + 7);
    if (layout_read(im, name, &b, err) == 0 && blob_put(im->s, b.p, b.n, digest, NULL, err) == 0)
        v = json_parse(im->a, b.p, b.n, err);
    buf_done(&b);
    return v;
}

static int layer_in(struct import *im, const char *file, const char *diff_id, bool bottom,
                    int64_t *ret_size, struct err *err)
{
    struct unpack_options o = {.bottom = bottom, .progress = im->o->progress, .arg = im->o->arg,
                               .what = "unpack"};
    char got[DIGEST_N + 1];
    struct stat st;
    _auto_(closep) int fd = layout_open(im, file, err);

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "stat %s", file);
    *ret_size += st.st_size;
    if (layer_have(im->s, diff_id))
        return 0;
    o.total = st.st_size;
    if (image_unpack_layer(im->s, fd, &o, diff_id, got, NULL, err) < 0)
        return err_wrap(err, "%s: %s", im->path, file);
    return 0;
}

/* "app.tar.gz" -> "app", what an archive is called when nobody says. */
static char *name_of_file(struct arena *a, const char *path)
{
    static const char *const ends[] = {".gz", ".zst", ".xz", ".bz2", ".tgz", ".tar", ".oci"};
    const char *base = strrchr(path, '/');
    char *name;

    name = arena_strdup(a, base && base[1] ? base + 1 : path);
    while (str_ends(name, "/"))
        name[strlen(name) - 1] = 0;
    for (int again = 1; again--;)
        for (size_t i = 0; i < ARRAY_LEN(ends); i++)
            if (str_ends(name, ends[i]) && strlen(name) > strlen(ends[i])) {
                name[strlen(name) - strlen(ends[i])] = 0;
                again = 1;
            }
    for (char *p = name; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    return name;
}

/* --- OCI layout --- */

static const char *layout_name(struct import *im, const struct val *desc)
{
    const struct val *notes = val_get(desc, "annotations");
    const char *full = val_text(val_get(notes, "io.containerd.image.name"), NULL);
    const char *ref = val_text(val_get(notes, "org.opencontainers.image.ref.name"), NULL);

    if (im->o->name)
        return im->o->name;
    if (full)
        return full;
    if (ref && (strchr(ref, '/') || strchr(ref, ':')))
        return ref;
    return arena_printf(im->a, "%s:%s", name_of_file(im->a, im->path), ref ? ref : "latest");
}

static struct image *oci_manifest(struct import *im, const char *digest, const char *name,
                                  struct err *err)
{
    const struct val *m = layout_blob(im, digest, err), *config, *layers;
    const char **ids;
    int64_t size = 0;
    uint32_t n, i = 0;

    if (m && media_is_index(m)) {
        m = index_pick(m, err);
        return m ? oci_manifest(im, val_str_at(m, "digest", ""), name, err) : NULL;
    }
    if (!m || manifest_check(m, err) < 0 ||
        !(config = layout_blob(im, val_str_at(m, "config.digest", ""), err)) ||
        config_diff_ids(im->a, config, &ids, &n, err) < 0)
        return NULL;
    layers = val_get(m, "layers");
    if (layers->n != n) {
        err_set(err, INVALID, "%s: %u layers but %u diff-ids", im->path, layers->n, n);
        return NULL;
    }
    VAL_EACH(layers, it) {
        char file[128];

        snprintf(file, sizeof(file), "blobs/sha256/%s", val_str_at(it, "digest", "") + 7);
        if (layer_in(im, file, ids[i], i == 0, &size, err) < 0)
            return NULL;
        i++;
    }
    return store_enter(im->s, name, digest, size, err);
}

static struct image *import_oci(struct import *im, struct err *err)
{
    const struct val *index = layout_json(im, "index.json", err), *list;
    struct image *first = NULL;

    if (!index)
        return NULL;
    list = val_get(index, "manifests");
    if (!val_is(list, VAL_LIST) || !list->n) {
        err_set(err, INVALID, "%s: index.json names no image", im->path);
        return NULL;
    }
    VAL_EACH(list, it) {
        const char *arch = val_str_at(it, "platform.architecture", "amd64");
        _auto_(freep) char *name = NULL;
        struct image *img;

        if (!streq(arch, "amd64")) /* attestations (unknown), other machines */
            continue;
        if (first && im->o->name)
            break; /* one name, one image */
        name = image_name_normal(layout_name(im, it), err);
        img = name ? oci_manifest(im, val_str_at(it, "digest", ""), name, err) : NULL;
        if (!img) {
            image_unref(first);
            return NULL;
        }
        if (first)
            image_unref(img);
        else
            first = img;
    }
    if (!first)
        err_set(err, NOT_FOUND, "%s has no image for linux/amd64", im->path);
    return first;
}

/* --- a manifest of our own, for archives that have none --- */

static int own_manifest(struct import *im, const void *config, size_t config_n, const char **ids,
                        const int64_t *sizes, uint32_t n, char ret_digest[DIGEST_N + 1],
                        struct err *err)
{
    char digest[DIGEST_N + 1];
    struct buf b = {0};
    int rc;

    if (blob_put(im->s, config, config_n, NULL, digest, err) < 0)
        return -1;
    buf_printf(&b, "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
                   "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
                   "\"digest\":\"%s\",\"size\":%zu},\"layers\":[", digest, config_n);
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&b, "%s{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"%s\",\"size\":%lld}",
                   i ? "," : "", ids[i], (long long)sizes[i]);
    buf_adds(&b, "]}");
    rc = blob_put(im->s, b.p, b.n, NULL, ret_digest, err);
    buf_done(&b);
    return rc;
}

/* --- docker save --- */

static struct image *docker_one(struct import *im, const struct val *one, struct err *err)
{
    const struct val *layers = val_get(one, "Layers"), *tags = val_get(one, "RepoTags"), *config;
    const char *config_file = val_str_at(one, "Config", NULL), **ids;
    char digest[DIGEST_N + 1];
    struct image *first = NULL, *img;
    struct buf b = {0};
    int64_t *sizes, size = 0;
    uint32_t n, i = 0;

    if (!config_file || !val_is(layers, VAL_LIST)) {
        err_set(err, INVALID, "%s: manifest.json has no Config or Layers", im->path);
        return NULL;
    }
    if (layout_read(im, config_file, &b, err) < 0 || !(config = json_parse(im->a, b.p, b.n, err)) ||
        config_diff_ids(im->a, config, &ids, &n, err) < 0)
        goto out;
    if (layers->n != n) {
        err_set(err, INVALID, "%s: %u layers but %u diff-ids", im->path, layers->n, n);
        goto out;
    }
    sizes = arena_array(im->a, int64_t, n + 1);
    VAL_EACH(layers, it) {
        if (layer_in(im, val_text(it, ""), ids[i], i == 0, &sizes[i], err) < 0)
            goto out;
        size += sizes[i++];
    }
    if (own_manifest(im, b.p, b.n, ids, sizes, n, digest, err) < 0)
        goto out;
    for (uint32_t t = 0; t < 1 || (!im->o->name && t < val_len(tags)); t++) {
        const char *given = im->o->name ? im->o->name
                            : val_is(tags, VAL_LIST) && t < tags->n ? val_text(&tags->items[t], "")
                                                     : name_of_file(im->a, im->path);
        _auto_(freep) char *name = image_name_normal(given, err);

        img = name ? store_enter(im->s, name, digest, size, err) : NULL;
        if (!img) {
            first = image_unref(first);
            goto out;
        }
        if (first)
            image_unref(img);
        else
            first = img;
    }
out:
    buf_done(&b);
    return first;
}

static struct image *import_docker(struct import *im, struct err *err)
{
    const struct val *list = layout_json(im, "manifest.json", err);
    struct image *first = NULL, *img;

    if (!list)
        return NULL;
    VAL_EACH(list, it) {
        if (first && im->o->name)
            break;
        img = docker_one(im, it, err);
        if (!img)
            return image_unref(first);
        if (first)
            image_unref(img);
        else
            first = img;
    }
    if (!first)
        err_set(err, INVALID, "%s: manifest.json names no image", im->path);
    return first;
}

static struct image *import_layout(struct import *im, struct err *err)
{
    if (faccessat(im->dir, "oci-layout", F_OK, 0) == 0 && faccessat(im->dir, "index.json", F_OK, 0) == 0)
        return import_oci(im, err);
    if (faccessat(im->dir, "manifest.json", F_OK, 0) == 0)
        return import_docker(im, err);
    err_set(err, INVALID, "%s is no OCI layout and no docker-save archive (neither oci-layout nor "
                          "manifest.json in it)", im->path);
    return NULL;
}

/* --- plain root file system --- */

static void put_strings(struct import *im, struct val *config, const char *key,
                        const char *const *v)
{
    struct val *list;

    if (!v)
        return;
    list = val_need_list(im->a, config, key);
    for (; *v; v++)
        val_push_str(im->a, list, *v);
}

static bool env_has(const char *const *env, const char *prefix)
{
    for (; env && *env; env++)
        if (str_starts(*env, prefix))
            return true;
    return false;
}

static struct image *import_rootfs(struct import *im, int fd, const struct stat *st, struct err *err)
{
    struct unpack_options uo = {.bottom = true, .progress = im->o->progress, .arg = im->o->arg,
                                .what = "unpack", .total = st->st_size};
    _auto_(freep) char *name = NULL;
    char diff_id[DIGEST_N + 1], digest[DIGEST_N + 1], created[40];
    const char *ids[1] = {diff_id};
    struct val *doc, *config, *env;
    struct image *img = NULL;
    struct buf b = {0};
    int64_t bytes = 0;
    struct tm tm;

    if (!im->o->name) {
        err_set(err, INVALID_ARGUMENT, "%s is a plain root file system: give it a name (--name)", im->path);
        return NULL;
    }
    name = image_name_normal(im->o->name, err);
    if (!name || image_unpack_layer(im->s, fd, &uo, NULL, diff_id, &bytes, err) < 0)
        return NULL;
    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&st->st_mtim.tv_sec, &tm));
    doc = val_map(im->a);
    val_put_str(im->a, doc, "created", created);
    val_put_str(im->a, doc, "architecture", "amd64");
    val_put_str(im->a, doc, "os", "linux");
    config = val_need_map(im->a, doc, "config");
    if (!env_has(im->o->env, "PATH=")) {
        env = val_need_list(im->a, config, "Env");
        val_push_str(im->a, env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    }
    put_strings(im, config, "Env", im->o->env);
    put_strings(im, config, "Entrypoint", im->o->entrypoint);
    put_strings(im, config, "Cmd", im->o->cmd);
    if (im->o->workdir)
        val_put_str(im->a, config, "WorkingDir", im->o->workdir);
    if (im->o->user)
        val_put_str(im->a, config, "User", im->o->user);
    if (im->o->stop_signal)
        val_put_str(im->a, config, "StopSignal", im->o->stop_signal);
    val_set_at(im->a, doc, "rootfs.type", val_lit(im->a, "layers"));
    val_push_str(im->a, val_need_list(im->a, val_get(doc, "rootfs"), "diff_ids"), diff_id);
    json_write(&b, doc);
    if (own_manifest(im, b.p, b.n, ids, &bytes, 1, digest, err) == 0)
        img = store_enter(im->s, name, digest, bytes, err);
    buf_done(&b);
    return img;
}

/* --- any of them --- */

static struct image *import_tar(struct import *im, int fd, const struct stat *st, struct err *err)
{
    struct unpack_options o = {.files_only = true, .bottom = true, .progress = im->o->progress,
                               .arg = im->o->arg, .what = "read", .total = st->st_size};
    char tmp[64], ignored_digest[DIGEST_N + 1];
    struct err ignored = {0};
    struct image *img = NULL;
    int is = image_tar_is_layout(fd, err);

    if (is < 0) {
        err_wrap(err, "%s", im->path);
        return NULL;
    }
    if (!is) {
        img = import_rootfs(im, fd, st, err);
        if (!img)
            err_wrap(err, "import %s", im->path);
        return img;
    }
    layer_tmp_name(tmp);
    if (mkdirat(im->s->dirfd, tmp, 0700) < 0) {
        err_sys(err, "mkdir %s/%s", im->s->dir, tmp);
        return NULL;
    }
    im->dir = openat(im->s->dirfd, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (im->dir < 0)
        err_sys(err, "open %s/%s", im->s->dir, tmp);
    else if (image_unpack(fd, im->dir, &o, ignored_digest, NULL, err) == 0)
        img = import_layout(im, err);
    else
        err_wrap(err, "import %s", im->path);
    fsat_remove_tree(im->s->dirfd, tmp, &ignored);
    return img;
}

struct image *image_import(struct image_store *s, const char *path,
                           const struct image_import_options *o, struct err *err)
{
    static const struct image_import_options none;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct import im = {.s = s, .o = o ? o : &none, .path = path, .a = a, .dir = -1};
    struct image *img = NULL;
    struct stat st;
    _auto_(closep) int fd = -1;
    _auto_(closep) int lock = -1;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        err_sys(err, "open %s", path);
        return NULL;
    }
    lock = store_lock_work(s, false, true, err);
    if (lock < 0)
        return NULL;
    if (S_ISDIR(st.st_mode)) {
        im.dir = dup(fd);
        img = import_layout(&im, err);
    } else {
        img = import_tar(&im, fd, &st, err);
    }
    closep(&im.dir);
    return img;
}

/* --- the folder --- */

static const char *const *json_strings(struct arena *a, const struct val *list)
{
    const char **v;
    size_t n = 0;

    if (!val_is(list, VAL_LIST))
        return NULL;
    v = arena_array(a, const char *, list->n + 1);
    VAL_EACH(list, it)
        v[n++] = val_text(it, "");
    return v;
}

/* NAME.json beside the archive; missing is fine. */
static int options_beside(struct arena *a, const char *dir, const char *name,
                          struct image_import_options *ret, struct err *err)
{
    char *path = arena_printf(a, "%s/%s.json", dir, name);
    const struct val *v;
    struct buf b = {0};
    struct err e = {0};

    ret->name = NULL;
    if (fsat_read(AT_FDCWD, path, JSON_BLOB_MAX, &b, &e) < 0) {
        buf_done(&b);
        return e.code == ERR_NOT_FOUND ? 0 : (*err = e, -1);
    }
    v = json_parse(a, b.p, b.n, err);
    buf_done(&b);
    if (!v)
        return err_wrap(err, "%s", path);
    ret->name = val_str_at(v, "name", NULL);
    ret->entrypoint = json_strings(a, val_get(v, "entrypoint"));
    ret->cmd = json_strings(a, val_get(v, "cmd"));
    ret->env = json_strings(a, val_get(v, "env"));
    ret->workdir = val_str_at(v, "workdir", NULL);
    ret->user = val_str_at(v, "user", NULL);
    ret->stop_signal = val_str_at(v, "stopSignal", NULL);
    return 0;
}

static int import_one_of_dir(struct image_store *s, const char *dir, const char *file,
                             const struct stat *st, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *path = arena_printf(a, "%s/%s", dir, file), *name = name_of_file(a, file), *stamp;
    struct image_import_options o = {0};
    struct stat beside = {0};
    struct image *img;
    int is = 1, fd;

    stat(arena_printf(a, "%s/%s.json", dir, name), &beside);
    stamp = arena_printf(a, "%lld.%ld %lld %lld.%ld", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
                         (long long)st->st_size, (long long)beside.st_mtim.tv_sec, beside.st_mtim.tv_nsec);
    if (store_source_is(s, path, stamp))
        return 0;
    if (options_beside(a, dir, name, &o, err) < 0)
        return -1;
    if (S_ISREG(st->st_mode) && !o.name) { /* only a plain rootfs is named by its file */
        fd = open(path, O_RDONLY | O_CLOEXEC);
        is = fd < 0 ? err_sys(err, "open %s", path) : image_tar_is_layout(fd, err);
        closep(&fd);
        if (is < 0)
            return err_wrap(err, "%s", path);
        if (!is)
            o.name = name;
    }
    img = image_import(s, path, &o, err);
    if (!img)
        return -1;
    LOG(INFO, "image", "did=import image=%s from=%s", img->name, path);
    image_unref(img);
    return store_source_set(s, path, stamp, err) < 0 ? -1 : 1;
}

int image_import_dir(struct image_store *s, const char *dir, struct err *err)
{
    _auto_(freep) char *own = dir ? NULL : xasprintf("%s/import", s->dir);
    struct dirent **list;
    int n, done = 0;

    dir = dir ? dir : own;
    n = scandir(dir, &list, NULL, alphasort);
    if (n < 0)
        return err_sys(err, "list %s", dir);
    for (int i = 0; i < n; i++) {
        const char *file = list[i]->d_name;
        _auto_(freep) char *path = xasprintf("%s/%s", dir, file);
        struct err e = {0};
        struct stat st;
        int rc;

        if (file[0] == '.' || str_ends(file, ".json") || str_ends(file, ".part") || stat(path, &st) < 0 ||
            !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
            free(list[i]);
            continue;
        }
        rc = import_one_of_dir(s, dir, file, &st, &e);
        if (rc < 0)
            LOG(WARN, "image", "did=left_out file=%s err=\"%s\"", path, e.msg);
        else
            done += rc;
        free(list[i]);
    }
    free(list);
    return done;
}
