/* A pod's volumes as directories of this machine.
 *
 *   emptyDir                  STATE/pods/UID/volumes/NAME, with medium Memory a tmpfs of its own
 *   configMap, secret, downwardAPI, projected
 *                             STATE/run/mem/UID/volumes/NAME: files behind a ..data link, on one
 * tmpfs that all pods share, so that secrets never reach a disk hostPath                  as it is
 *   persistentVolumeClaim     claim -> volume -> csi tandem.dev: STATE/volumes/HANDLE; hostPath,
 * local
 *
 * Changing content (a configMap is edited): the new set is written beside the old one and ..data is
 * renamed over, so a reader sees one whole set. */
#include "codec/json.h"
#include "codec/quantity.h"
#include "codec/kubetime.h"
#include "env/fs.h"
#include "node/node_int.h"
#include "sandbox/mnt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum volume_state { VOL_NEW, VOL_BUSY, VOL_READY };
struct token { /* of a projected serviceAccountToken source */
    char *path, *audience, *text;
    int64_t seconds, renew_ms; /* mono */
    struct volume *v;
    struct client_op *op;
};
struct volume {
    struct pod *pod;
    const char *name; /* in the pod object's tree: copied */
    uint32_t index;
    enum volume_state state;
    char *path;
    bool read_only, mounted, mem;
    struct client_op *op;
    char *pv; /* once the claim is known to be bound */
    struct token *tokens;
    uint32_t tokens_n;
    uint64_t hash; /* of the content written last */
    bool has_hash;
    char *error; /* of the API call before */
};

static const struct val *vol_spec(const struct volume *v)
{
    const struct val *list = val_get(pod_spec(v->pod), "volumes");

    return list && v->index < val_len(list) ? &list->items[v->index] : NULL;
}

const struct obj *node_configmap(struct node *n, const char *ns, const char *name)
{
    return mirror_get(n->configmaps, ns, name);
}

const struct obj *node_secret(struct node *n, const char *ns, const char *name)
{
    return mirror_get(n->secrets, ns, name);
}

static char *base64(struct arena *a, const struct val *v, size_t *ret_n)
{
    char *out = arena_raw(a, v->n / 4 * 3 + 4);
    int n = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)v->s, (int)v->n);

    if (n < 0)
        n = 0;
    for (uint32_t i = v->n; i > 0 && v->s[i - 1] == '='; i--)
        n--;
    out[MAX(n, 0)] = 0;
    *ret_n = (size_t)MAX(n, 0);
    return out;
}

bool map_data(const struct obj *o, bool secret, const char *key, struct arena *a, const char **ret,
              size_t *ret_n)
{
    const struct val *v = val_get(val_get(obj_val(o), "data"), key);

    if (val_is(v, VAL_STR)) {
        if (secret) {
            *ret = base64(a, v, ret_n);
        } else {
            *ret = v->s;
            *ret_n = v->n;
        }
        return true;
    }
    if (secret)
        return false;
    v = val_get(val_get(obj_val(o), "binaryData"), key);
    if (!val_is(v, VAL_STR))
        return false;
    *ret = base64(a, v, ret_n);
    return true;
}

/* ---- files behind ..data ----------------------------------------------------------------------
 */

static bool path_is_safe(const char *path)
{
    if (*path == '/' || !*path || str_starts(path, "../") || streq(path, ".."))
        return false;
    return !strstr(path, "/../") && !str_ends(path, "/..");
}

static int write_one(int dir, const struct volume_file *f, int64_t gid, struct err *err)
{
    char at[1024];

    if (!path_is_safe(f->path) || strlen(f->path) >= sizeof at)
        return err_set(err, INVALID_ARGUMENT, "file name %s", f->path);
    strcpy(at, f->path);
    for (char *p = strchr(at, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdirat(dir, at, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make %s", at);
        *p = '/';
    }
    _auto_(closep) int fd = openat(dir, at, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, "write %s", at);
    if (fs_write_all(fd, f->data, f->n, err) < 0)
        return err_wrap(err, "write %s", at);
    if (gid >= 0)
        (void)!fchown(fd, (uid_t)-1, (gid_t)gid);
    if (fchmod(fd, (mode_t)f->mode | (gid >= 0 ? 0040 : 0)) < 0)
        return err_sys(err, "chmod %s", at);
    return 0;
}

/* Top-level names are links to ..data/NAME; those whose file is gone go too. */
static void fix_links(int dir, const struct volume_file *files, size_t n)
{
    char top[256], to[300];
    struct dirent *e;
    DIR *d;

    for (size_t i = 0; i < n; i++) {
        snprintf(top, sizeof top, "%.*s", (int)strcspn(files[i].path, "/"), files[i].path);
        snprintf(to, sizeof to, "..data/%s", top);
        (void)symlinkat(to, dir, top);
    }
    d = fdopendir(dup(dir));
    while (d && (e = readdir(d))) {
        bool wanted = str_starts(e->d_name, "..") || streq(e->d_name, ".");
        for (size_t i = 0; i < n && !wanted; i++) {
            size_t len = strcspn(files[i].path, "/");
            wanted = strlen(e->d_name) == len && strncmp(e->d_name, files[i].path, len) == 0;
        }
        if (!wanted)
            (void)unlinkat(dir, e->d_name, 0);
    }
    if (d)
        closedir(d);
}

int volume_write_files(const char *dir, const struct volume_file *files, size_t n, int64_t gid,
                       struct err *err)
{
    char stamp[64], old[300], path[PATH_MAX];
    struct timespec t;
    ssize_t old_n;

    if (fs_mkdirs(dir, 0755, err) < 0)
        return -1;
    _auto_(closep) int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return err_sys(err, "open %s", dir);
    if (gid >= 0)
        (void)!fchown(top, (uid_t)-1, (gid_t)gid);
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(stamp, sizeof stamp, "..%lld_%09ld", (long long)t.tv_sec, t.tv_nsec);
    if (mkdirat(top, stamp, 0755) < 0)
        return err_sys(err, "make %s/%s", dir, stamp);
    _auto_(closep) int fresh = openat(top, stamp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < n; i++)
        if (fresh < 0 || write_one(fresh, &files[i], gid, err) < 0) {
            struct err ignored;
            snprintf(path, sizeof path, "%s/%s", dir, stamp);
            (void)fs_remove_tree(path, &ignored);
            return err_wrap(err, "%s", dir);
        }
    old_n = readlinkat(top, "..data", old, sizeof old - 1);
    (void)unlinkat(top, "..data_tmp", 0);
    if (symlinkat(stamp, top, "..data_tmp") < 0 || renameat(top, "..data_tmp", top, "..data") < 0)
        return err_sys(err, "switch %s", dir);
    fix_links(top, files, n);
    if (old_n > 0) {
        struct err ignored;
        old[old_n] = 0;
        snprintf(path, sizeof path, "%s/%s", dir, old);
        (void)fs_remove_tree(path, &ignored);
    }
    return 0;
}

/* ---- gathering what they hold ------------------------------------------------------------------
 */

struct files {
    struct arena *a;
    struct volume_file *v;
    size_t n, cap;
    int mode; /* default */
};

static void add_file(struct files *f, const char *path, const char *data, size_t n, int mode)
{
    if (f->n == f->cap) {
        struct volume_file *more = arena_array(f->a, struct volume_file, f->cap * 2 + 8);
        if (f->n)
            memcpy(more, f->v, f->n * sizeof *more);
        f->v = more;
        f->cap = f->cap * 2 + 8;
    }
    for (size_t i = 0; i < f->n; i++)
        if (streq(f->v[i].path, path)) { /* a later source of a projected volume wins */
            f->v[i] = (struct volume_file){f->v[i].path, data, n, mode};
            return;
        }
    f->v[f->n++] = (struct volume_file){path, data, n, mode};
}

static int add_map(struct volume *v, struct files *f, const struct val *src, bool secret,
                   struct err *err)
{
    struct pod *p = v->pod;
    const char *name =
        val_str_at(src, secret && val_get(src, "secretName") ? "secretName" : "name", "");
    bool optional = val_bool_at(src, "optional", false);
    const struct obj *o =
        secret ? node_secret(p->n, p->ns, name) : node_configmap(p->n, p->ns, name);
    const struct val *items = val_get(src, "items"), *tree;
    const char *data;
    size_t n;

    if (!o)
        return optional ? 0
                        : err_set(err, NOT_FOUND, "%s \"%s\" not found",
                                  secret ? "secret" : "configmap", name);
    if (val_len(items)) {
        VAL_EACH (items, it) {
            const char *key = val_str_at(it, "key", "");
            if (map_data(o, secret, key, f->a, &data, &n))
                add_file(f, val_str_at(it, "path", key), data, n,
                         (int)val_int_at(it, "mode", f->mode));
            else if (!optional)
                return err_set(err, NOT_FOUND, "references non-existent %s key: %s",
                               secret ? "secret" : "config", key);
        }
        return 0;
    }
    tree = obj_val(o);
    for (int bin = 0; bin < 2; bin++)
        VAL_EACH_MEMBER (val_get(tree, bin ? "binaryData" : "data"), m) {
            if (map_data(o, secret, m->key, f->a, &data, &n))
                add_file(f, m->key, data, n, f->mode);
        }
    return 0;
}

static int add_downward(struct volume *v, struct files *f, const struct val *src, struct err *err)
{
    VAL_EACH (val_get(src, "items"), it) {
        const char *path = val_str_at(it, "path", ""), *text = NULL;
        const char *field = val_str_at(it, "fieldRef.fieldPath", NULL);
        if (field) {
            text = pod_field(v->pod, f->a, field);
            if (!text)
                return err_set(err, INVALID_ARGUMENT, "fieldPath %s is not supported", field);
        } else if (resource_field(
                       v->pod, f->a, val_str_at(it, "resourceFieldRef.containerName", ""),
                       val_str_at(it, "resourceFieldRef.resource", ""),
                       val_str_at(it, "resourceFieldRef.divisor", "1"), &text, err) < 0) {
            return -1;
        }
        add_file(f, path, text, strlen(text), (int)val_int_at(it, "mode", f->mode));
    }
    return 0;
}

static void token_came(void *arg, const struct client_result *r)
{
    struct token *t = arg;
    struct pod *p = t->v->pod;
    const char *text = r->err ? NULL : val_str_at(r->val, "status.token", NULL);

    t->op = NULL;
    if (!text) {
        free(t->v->error);
        t->v->error = xasprintf("token for service account: %s",
                                r->err ? r->err->msg : "no token in the answer");
        t->renew_ms = mono_ms(p->n) + 1000;
        pod_poke_at(p, t->renew_ms);
        pod_poke(p);
        return;
    }
    free(STEAL(t->v->error));
    free(t->text);
    t->text = xstrdup(text);
    /* As kubelet: at 80 % of its life, or a day at the latest. */
    t->renew_ms = mono_ms(p->n) + MIN(t->seconds * 800, (int64_t)86400000);
    pod_poke_at(p, t->renew_ms);
    pod_poke(p);
}

static void ask_token(struct token *t)
{
    struct pod *p = t->v->pod;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *body = val_map(a), *spec, *ref;

    if (t->op)
        return;
    val_put_str(a, body, "apiVersion", "authentication.k8s.io/v1");
    val_put_str(a, body, "kind", "TokenRequest");
    spec = val_need_map(a, body, "spec"); /* last: a put to body moves its members */
    val_put_int(a, spec, "expirationSeconds", t->seconds);
    if (!str_empty(t->audience))
        val_push_str(a, val_need_list(a, spec, "audiences"), t->audience);
    ref = val_need_map(a, spec, "boundObjectRef");
    val_put_str(a, ref, "kind", "Pod");
    val_put_str(a, ref, "apiVersion", "v1");
    val_put_str(a, ref, "name", p->name);
    val_put_str(a, ref, "uid", p->uid);
    t->op = client_call(
        p->n->client,
        &(struct client_call){.verb = CLIENT_CREATE,
                              .resource = "v1/serviceaccounts",
                              .ns = p->ns,
                              .name = val_str_at(pod_spec(p), "serviceAccountName", "default"),
                              .sub = "token",
                              .body = body},
        token_came, t);
}

static int add_token(struct volume *v, struct files *f, const struct val *src, struct err *err)
{
    const char *path = val_str_at(src, "path", "token");
    struct token *t = NULL;

    for (uint32_t i = 0; i < v->tokens_n; i++)
        if (streq(v->tokens[i].path, path))
            t = &v->tokens[i];
    if (!t) /* volumes_init has made one for each source */
        return err_set(err, INTERNAL, "no token for %s", path);
    if (!t->text || mono_ms(v->pod->n) >= t->renew_ms)
        ask_token(t);
    if (!t->text) {
        if (v->error)
            return err_set(err, UNAVAILABLE, "%s", v->error);
        return err_set(err, TIMEOUT, "token is on its way");
    }
    add_file(f, path, t->text, strlen(t->text), f->mode);
    return 0;
}

static int add_sources(struct volume *v, struct files *f, const struct val *list, struct err *err)
{
    VAL_EACH (list, s) {
        const struct val *x;
        int bad = 0;
        if ((x = val_get(s, "configMap")))
            bad = add_map(v, f, x, false, err);
        else if ((x = val_get(s, "secret")))
            bad = add_map(v, f, x, true, err);
        else if ((x = val_get(s, "downwardAPI")))
            bad = add_downward(v, f, x, err);
        else if ((x = val_get(s, "serviceAccountToken")))
            bad = add_token(v, f, x, err);
        else
            return err_set(err, NOT_IMPLEMENTED,
                           "volume %s: this projected source is not supported", v->name);
        if (bad < 0)
            return -1;
    }
    return 0;
}

static int64_t fs_group(const struct pod *p)
{
    return val_int_at(pod_spec(p), "securityContext.fsGroup", -1);
}

static uint64_t hash_files(const struct files *f)
{
    uint64_t h = 1469598103934665603u;

    for (size_t i = 0; i < f->n; i++) {
        for (const char *c = f->v[i].path; *c; c++)
            h = (h ^ (uint8_t)*c) * 1099511628211u;
        h = (h ^ (uint64_t)f->v[i].mode) * 1099511628211u;
        for (size_t k = 0; k < f->v[i].n; k++)
            h = (h ^ (uint8_t)f->v[i].data[k]) * 1099511628211u;
        h = (h ^ 0xff) * 1099511628211u;
    }
    return h;
}

static int sync_files(struct volume *v, const struct val *spec, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct files f = {.a = a, .mode = 0644};
    const struct val *x;
    int bad;

    if ((x = val_get(spec, "projected"))) {
        f.mode = (int)val_int_at(x, "defaultMode", 0644);
        bad = add_sources(v, &f, val_get(x, "sources"), err);
    } else if ((x = val_get(spec, "configMap"))) {
        f.mode = (int)val_int_at(x, "defaultMode", 0644);
        bad = add_map(v, &f, x, false, err);
    } else if ((x = val_get(spec, "secret"))) {
        f.mode = (int)val_int_at(x, "defaultMode", 0644);
        bad = add_map(v, &f, x, true, err);
    } else {
        x = val_get(spec, "downwardAPI");
        f.mode = (int)val_int_at(x, "defaultMode", 0644);
        bad = add_downward(v, &f, x, err);
    }
    if (bad < 0) {
        if (v->has_hash)
            return 0; /* what is there stays when its source has gone */
        return -1;
    }
    if (!v->path) {
        v->path = xasprintf("%s/volumes/%s", v->pod->dir, v->name);
        v->mem = true;
    }
    uint64_t h = hash_files(&f);
    if (v->has_hash && v->hash == h)
        return 0;
    if (volume_write_files(v->path, f.v, f.n, fs_group(v->pod), err) < 0)
        return -1;
    v->hash = h;
    v->has_hash = true;
    v->state = VOL_READY;
    return 0;
}

/* ---- the other kinds --------------------------------------------------------------------------
 */

static void give_group(const char *path, int64_t gid)
{
    if (gid < 0)
        return;
    (void)!chown(path, (uid_t)-1, (gid_t)gid);
    (void)chmod(path, 02775);
}

static int sync_empty_dir(struct volume *v, const struct val *x, struct err *err)
{
    char options[80];
    const char *size = val_str_at(x, "sizeLimit", NULL);
    quantity q = 0;

    if (!v->path)
        v->path = xasprintf("%s/volumes/%s", v->pod->disk, v->name);
    if (fs_mkdirs(v->path, 0777, err) < 0)
        return -1;
    if (streq(val_str_at(x, "medium", ""), "Memory") && !v->mounted) {
        if (size && quantity_parse(size, &q) && q > 0)
            snprintf(options, sizeof options, "mode=1777,size=%lld", (long long)quantity_value(q));
        else
            snprintf(options, sizeof options, "mode=1777");
        struct stat here, above;
        if (stat(v->path, &here) < 0 || stat(v->pod->disk, &above) < 0)
            return err_sys(err, "memory volume %s", v->name);
        /* Another device: mounted in an earlier life of ours. */
        if (here.st_dev == above.st_dev &&
            mount("tandem", v->path, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
            return err_sys(err, "mount memory volume %s", v->name);
        v->mounted = true;
    }
    (void)chmod(v->path, 01777);
    (void)chmod(v->path, 0777);
    give_group(v->path, fs_group(v->pod));
    if (fs_group(v->pod) >= 0)
        (void)chmod(v->path, 02777);
    v->state = VOL_READY;
    return 0;
}

static int sync_host_path(struct volume *v, const struct val *x, struct err *err)
{
    const char *path = val_str_at(x, "path", ""), *type = val_str_at(x, "type", "");
    struct stat st;
    bool there;

    if (*path != '/')
        return err_set(err, INVALID_ARGUMENT, "hostPath %s is not absolute", path);
    there = stat(path, &st) == 0;
    if (!there && (streq(type, "DirectoryOrCreate") || !*type)) {
        if (fs_mkdirs(path, 0755, err) < 0)
            return -1;
        there = stat(path, &st) == 0;
    } else if (!there && streq(type, "FileOrCreate")) {
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        closep(&fd);
        there = stat(path, &st) == 0;
    }
    if (!there)
        return err_set(err, NOT_FOUND, "hostPath type check failed: %s is not there", path);
    bool ok = !*type || (str_starts(type, "Directory") && S_ISDIR(st.st_mode)) ||
              (str_starts(type, "File") && S_ISREG(st.st_mode)) ||
              (streq(type, "Socket") && S_ISSOCK(st.st_mode)) ||
              (streq(type, "CharDevice") && S_ISCHR(st.st_mode)) ||
              (streq(type, "BlockDevice") && S_ISBLK(st.st_mode));
    if (!ok)
        return err_set(err, INVALID_ARGUMENT, "hostPath type check failed: %s is not a %s", path,
                       type);
    if (!v->path)
        v->path = xstrdup(path);
    v->state = VOL_READY;
    return 0;
}

static void claim_came(void *arg, const struct client_result *r)
{
    struct volume *v = arg;
    struct pod *p = v->pod;

    v->op = NULL;
    free(STEAL(v->error));
    if (r->err) {
        v->error = xstrdup(r->err->msg);
    } else if (!v->pv) {
        const char *name = val_str_at(r->val, "spec.volumeName", "");
        if (*name && streq(val_str_at(r->val, "status.phase", ""), "Bound"))
            v->pv = xstrdup(name);
        else
            v->error = xasprintf("persistentvolumeclaim \"%s\" is not bound",
                                 val_str_at(r->val, "metadata.name", ""));
    } else {
        const char *driver = val_str_at(r->val, "spec.csi.driver", ""),
                   *handle = val_str_at(r->val, "spec.csi.volumeHandle", ""),
                   *host = val_str_at(r->val, "spec.hostPath.path",
                                      val_str_at(r->val, "spec.local.path", NULL));
        v->read_only |= val_bool_at(r->val, "spec.csi.readOnly", false);
        if (host) {
            v->path = xstrdup(host);
        } else if (!streq(driver, "tandem.dev")) {
            v->error = xasprintf("persistent volume %s: only csi driver tandem.dev, hostPath and "
                                 "local are supported",
                                 v->pv);
        } else if (!*handle || strchr(handle, '/') || *handle == '.') {
            v->error = xasprintf("persistent volume %s: bad volumeHandle", v->pv);
        } else {
            v->path = xasprintf("%s/volumes/%s", p->n->o.state, handle);
        }
    }
    if (v->error)
        pod_poke_at(p, mono_ms(p->n) + 500);
    else
        pod_poke(p);
}

static int sync_claim(struct volume *v, const struct val *spec, const struct val *x,
                      struct err *err)
{
    struct pod *p = v->pod;
    char *name = x ? xstrdup(val_str_at(x, "claimName", "")) : xasprintf("%s-%s", p->name, v->name);
    struct client_call call = {
        .verb = CLIENT_GET, .resource = "v1/persistentvolumeclaims", .ns = p->ns, .name = name};

    (void)spec;
    if (x)
        v->read_only |= val_bool_at(x, "readOnly", false);
    if (v->path) {
        free(name);
        if (fs_mkdirs(v->path, 0777, err) < 0)
            return -1;
        give_group(v->path, fs_group(p));
        v->state = VOL_READY;
        return 0;
    }
    if (!v->op) {
        if (v->pv)
            call = (struct client_call){
                .verb = CLIENT_GET, .resource = "v1/persistentvolumes", .name = v->pv};
        v->op = client_call(p->n->client, &call, claim_came, v);
    }
    free(name);
    if (v->error)
        return err_set(err, UNAVAILABLE, "%s", v->error);
    return err_set(err, TIMEOUT, "claim is on its way");
}

/* ---- all of a pod ------------------------------------------------------------------------------
 */

static void make_tokens(struct volume *v, const struct val *spec)
{
    const struct val *sources = val_get(val_get(spec, "projected"), "sources");

    v->tokens = xcalloc(val_len(sources) + 1, sizeof *v->tokens);
    VAL_EACH (sources, s) {
        const struct val *x = val_get(s, "serviceAccountToken");
        if (!x)
            continue;
        v->tokens[v->tokens_n++] = (struct token){
            .path = xstrdup(val_str_at(x, "path", "token")),
            .audience = xstrdup(val_str_at(x, "audience", "")),
            .seconds = val_int_at(x, "expirationSeconds", 3600),
            .v = v,
        };
    }
}

int volumes_init(struct pod *p)
{
    const struct val *list = val_get(pod_spec(p), "volumes");

    p->vols_n = val_len(list);
    p->vols = xcalloc(p->vols_n + 1, sizeof *p->vols);
    for (uint32_t i = 0; i < p->vols_n; i++) {
        struct volume *v = &p->vols[i];
        *v = (struct volume){
            .pod = p, .index = i, .name = xstrdup(val_str_at(&list->items[i], "name", ""))};
        make_tokens(v, &list->items[i]);
    }
    return 0;
}

static int sync_one(struct volume *v, struct err *err)
{
    const struct val *s = vol_spec(v), *x;

    if (!s)
        return err_set(err, INTERNAL, "volume %s is gone from the pod", v->name);
    if (val_get(s, "projected") || val_get(s, "configMap") || val_get(s, "secret") ||
        val_get(s, "downwardAPI"))
        return sync_files(v, s, err);
    if (v->state == VOL_READY)
        return 0;
    if ((x = val_get(s, "hostPath")))
        return sync_host_path(v, x, err);
    if ((x = val_get(s, "persistentVolumeClaim")))
        return sync_claim(v, s, x, err);
    if (val_get(s, "ephemeral"))
        return sync_claim(v, s, NULL, err);
    if ((x = val_get(s, "emptyDir")) || val_len(s) == 1)
        return sync_empty_dir(v, x, err);
    VAL_EACH_MEMBER (s, m)
        if (!streq(m->key, "name"))
            return err_set(err, NOT_IMPLEMENTED, "volume type %s is not supported", m->key);
    return err_set(err, NOT_IMPLEMENTED, "volume %s has no type", v->name);
}

int volumes_sync(struct pod *p, struct err *err)
{
    bool all = true;
    struct err first = {0};

    for (uint32_t i = 0; i < p->vols_n; i++) {
        struct err one = {0};
        if (sync_one(&p->vols[i], &one) == 0)
            continue;
        all = false;
        if (one.code != ERR_TIMEOUT && first.code == ERR_OK) {
            err_wrap(&one, "MountVolume.SetUp failed for volume \"%s\"", p->vols[i].name);
            first = one;
        }
    }
    if (first.code != ERR_OK) {
        *err = first;
        return -1;
    }
    p->vols_ready = all;
    return all;
}

void volumes_done(struct pod *p)
{
    struct err ignored;
    char path[PATH_MAX];

    for (uint32_t i = 0; i < p->vols_n; i++) {
        struct volume *v = &p->vols[i];
        if (v->op)
            client_cancel(v->op);
        for (uint32_t k = 0; k < v->tokens_n; k++) {
            if (v->tokens[k].op)
                client_cancel(v->tokens[k].op);
            free(v->tokens[k].path);
            free(v->tokens[k].audience);
            free(v->tokens[k].text);
        }
        free(v->tokens);
        free(v->path);
        free(v->pv);
        free(v->error);
        free((char *)(uintptr_t)v->name);
    }
    free(STEAL(p->vols));
    p->vols_n = 0;
    /* By what lies there, not by what we remember: an orphan's volumes are not known. */
    snprintf(path, sizeof path, "%s/volumes", p->disk);
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/volumes/%s", p->disk, e->d_name);
        (void)umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    if (d)
        closedir(d);
    (void)fs_remove_tree(p->dir, &ignored); /* in memory: quick */
}

const char *volume_path(struct pod *p, const char *name, bool *ret_read_only)
{
    for (uint32_t i = 0; i < p->vols_n; i++)
        if (streq(p->vols[i].name, name)) {
            *ret_read_only = p->vols[i].read_only;
            return p->vols[i].path;
        }
    return NULL;
}

static bool mentions(const struct val *spec, const char *kind, const char *name)
{
    const struct val *x = val_get(spec, kind);

    if (x)
        return streq(val_str_at(x, streq(kind, "secret") ? "secretName" : "name", ""), name);
    VAL_EACH (val_get(val_get(spec, "projected"), "sources"), s)
        if ((x = val_get(s, kind)) && streq(val_str_at(x, "name", ""), name))
            return true;
    return false;
}

void volumes_changed(struct node *n, const char *kind, const char *ns, const char *name)
{
    LIST_EACH (&n->all, l) {
        struct pod *p = list_entry(l, struct pod, link);
        if (!streq(p->ns, ns) || p->stage < POD_SETUP || p->stage > POD_RUN)
            continue;
        /* Not ready yet: it may be waiting for exactly this, in a volume or in a variable. */
        bool mine = !p->vols_ready;
        for (uint32_t i = 0; i < p->ctrs_n; i++)
            mine |= p->ctrs[i].state == CTR_WAITING;
        for (uint32_t i = 0; i < p->vols_n && !mine; i++)
            mine = mentions(vol_spec(&p->vols[i]), kind, name);
        if (mine)
            pod_poke(p);
    }
}

/* The lowest layer of every container: the places that we mount over and that images lack. Made in
 * a container's own layer they would cost it some hundred microseconds each time. */
static int skeleton(const char *mem, struct err *err)
{
    static const char *const dirs[] = {"proc", "sys", "dev", "etc"}, *const files[] = {
                                                                         "etc/hosts",
                                                                         "etc/hostname",
                                                                         "etc/resolv.conf"};
    char path[PATH_MAX + 64];

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        snprintf(path, sizeof path, "%s/.skeleton/%s", mem, dirs[i]);
        if (fs_mkdirs(path, 0755, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/.skeleton/%s", mem, files[i]);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0)
            return err_sys(err, "make %s", path);
        close(fd);
    }
    return 0;
}

int mem_mount(struct node *n, struct err *err)
{
    char path[PATH_MAX];
    struct stat here, above;

    snprintf(path, sizeof path, "%s/run", n->o.state);
    if (fs_mkdirs(path, 0755, err) < 0 || stat(path, &above) < 0)
        return err_wrap(err, "volumes");
    snprintf(path, sizeof path, "%s/run/mem", n->o.state);
    if (fs_mkdirs(path, 0700, err) < 0)
        return -1;
    if ((stat(path, &here) < 0 || here.st_dev == above.st_dev) && /* else of an earlier life */
        mount("tandem", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700,size=25%") < 0)
        return err_sys(err, "mount %s", path);
    return skeleton(path, err);
}
