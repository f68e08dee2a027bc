/* Container images as code: found in this machine's store, pulled when they are not there, held while a
 * function needs them, and turned into what a zygote builds a root from.
 *
 * A version of packageType Image waits here, in ZYGOTE_NONE, until its image is found; then its zygote
 * starts as any other. The store's files are written on pool threads. */
#include "function/function_int.h"

#include "base/log.h"
#include "image/image.h"

#include <stdio.h>

enum { TRY_AGAIN_MS = 10000, PULL_MS = 10 * 60 * 1000, ARGS_MAX = 512 };

static struct image_store *store_of(struct functions *fs, struct err *err)
{
    if (!fs->images) {
        _auto_(freep) char *dir = xasprintf("%s/images", fs->state);
        _auto_(freep) char *registries = xasprintf("%s/registries.json", fs->state);

        fs->images = image_store_open(dir, registries, err);
    }
    return fs->images;
}

/* ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME is also looked for as NAME: that is how it was imported when
 * there is no such registry in reach. NULL: it is no name of that form. */
static const char *name_in_ecr(const char *ref)
{
    const char *slash = strchr(ref, '/'), *ecr = strstr(ref, ".dkr.ecr.");

    return slash && ecr && ecr < slash ? slash + 1 : NULL;
}

static const struct image *find(struct image_store *s, const char *ref, const char *digest, struct err *err)
{
    const char *name = name_in_ecr(ref);
    const struct image *img;

    if (!str_empty(digest)) { /* what the tag was when the function was made */
        _auto_(freep) char *by_digest = xasprintf("%.*s@%s", (int)strcspn(ref, "@"), ref, digest);

        img = image_resolve(s, by_digest, err);
        if (img)
            return img;
    }
    img = image_resolve(s, ref, err);
    if (!img && name)
        img = image_resolve(s, name, err);
    if (img && !str_empty(digest) && !streq(img->digest, digest))
        LOG(INFO, "function", "image=%s did=other-digest want=%.19s got=%.19s", ref, digest, img->digest);
    return img;
}

/* ---- held by owner, on a pool thread ---- */

struct hold {
    uv_work_t work;
    struct functions *fs;
    const struct image *img; /* NULL: let go */
    char owner[80];
};

static void hold_work(uv_work_t *w)
{
    struct hold *h = w->data;
    struct err err = {0};

    if ((h->img ? image_hold(h->fs->images, h->owner, h->img, &err) : image_release(h->fs->images, h->owner, &err)) < 0)
        LOG(WARN, "function", "did=hold-image owner=%s error=\"%s\"", h->owner, err.msg);
}

static void hold_done(uv_work_t *w, int status)
{
    struct hold *h = w->data;
    struct functions *fs = h->fs;

    image_unref(h->img);
    free(h);
    fs->handles--;
    functions_let_go(fs);
}

static void hold(struct functions *fs, const char *uid, const struct image *img)
{
    struct hold *h;

    if (!fs->images || str_empty(uid))
        return;
    h = xcalloc(1, sizeof *h);
    h->fs = fs;
    h->img = img ? image_ref(img) : NULL;
    h->work.data = h;
    snprintf(h->owner, sizeof h->owner, "function-%.60s", uid);
    fs->handles++;
    if (uv_queue_work(fs->loop, &h->work, hold_work, hold_done) < 0)
        hold_done(&h->work, 0);
}

void function_image_release(struct function *f)
{
    if (f->obj && f->now && f->now->image)
        hold(f->fs, f->obj->uid, NULL);
}

/* ---- a version's ---- */

static void found(struct version *v, const struct image *img)
{
    v->img = img;
    v->image_err = (struct err){0};
    if (v->f->obj)
        hold(v->f->fs, v->f->obj->uid, img);
}

static void on_pulled(void *arg, struct image *img, const struct err *err)
{
    struct version *v = arg;
    struct function *f = v->f;

    v->image_job = NULL;
    if (img && !v->removed) {
        found(v, img);
    } else {
        image_unref(img);
        if (!v->removed) {
            v->image_err = *err;
            LOG(WARN, "function", "function=%s did=pull image=%s error=\"%s\"", f->key, v->image, err->msg);
        }
    }
    if (v->removed) {
        struct functions *fs = f->fs;

        version_let_go(v);
        fs->handles--; /* not before: fs stays until then */
        functions_let_go(fs);
        return;
    }
    f->fs->handles--;
    if (v->img) {
        zygote_start(v);
    } else {
        struct err e;

        err_set(&e, UNAVAILABLE, "the image %.200s could not be pulled: %.200s", v->image, err->msg);
        pool_fail_waiting(f, &e);
    }
}

int version_image(struct version *v, struct err *err)
{
    struct functions *fs = v->f->fs;
    struct image_pull_options o = {.timeout_ms = PULL_MS};
    struct image_store *s = store_of(fs, err);
    const struct image *img;

    if (!s)
        return -1;
    if (v->img || v->image_job)
        return v->img != NULL;
    img = find(s, v->image, v->image_digest, err);
    if (img) {
        found(v, img);
        return 1;
    }
    if (v->image_err.code && now_us() - v->image_tried_us < TRY_AGAIN_MS * 1000LL) {
        *err = v->image_err;
        return -1;
    }
    v->image_tried_us = now_us();
    v->image_job = image_pull_async(s, fs->loop, v->image, &o, on_pulled, v);
    fs->handles++;
    return 0;
}

void version_image_done(struct version *v)
{
    image_unref(v->img);
    free(v->image);
    free(v->image_digest);
}

void version_image_cancel(struct version *v)
{
    if (v->image_job)
        image_job_cancel(v->image_job); /* on_pulled still comes */
}

static void add_words(struct arena *a, struct val *list, const struct val *mine, const char *const *its)
{
    uint32_t n = 0;

    if (val_len(mine)) {
        VAL_EACH(mine, it)
        if (n++ < ARGS_MAX)
            val_push_str(a, list, val_text(it, ""));
        return;
    }
    for (; *its && n < ARGS_MAX; its++, n++)
        val_push_str(a, list, *its);
}

/* exec, workdir, lowers, and the image's own environment into env. */
void version_image_config(struct version *v, struct arena *a, struct val *c, struct val *env)
{
    const struct image_config *k = &v->img->config;
    struct val *exec = val_list(a), *lowers = val_list(a);
    const struct val *mine = v->image_config;
    const char *workdir = val_str_at(mine, "workingDirectory", "");

    val_put_str(a, env, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (const char *const *e = k->env; *e; e++) {
        const char *eq = strchr(*e, '=');

        if (eq && eq > *e)
            val_put_str(a, env, arena_strndup(a, *e, (size_t)(eq - *e)), eq + 1);
    }
    add_words(a, exec, val_get(mine, "entryPoint"), k->entrypoint);
    add_words(a, exec, val_get(mine, "command"), k->cmd);
    if (val_len(val_get(mine, "command")) || *k->cmd)
        val_put_str(a, env, "_HANDLER", val_len(val_get(mine, "command")) ? val_text(val_items_(val_get(mine, "command")), "") : *k->cmd);
    val_put_str(a, c, "workdir", *workdir ? workdir : *k->workdir ? k->workdir : "/");
    for (uint32_t i = 0; i < v->img->n_lowers; i++)
        val_push_str(a, lowers, v->img->lowers[i]);
    val_put(a, c, "exec", exec);
    val_put(a, c, "lowers", lowers);
}

/* ---- for doors ---- */

struct wish {
    struct list link; /* functions.wishes */
    struct functions *fs;
    struct image_job *job;
    char *ref;
    function_image_fn *done;
    void *arg;
};

static void tell_wish(struct wish *w, const struct image *img, const struct err *err)
{
    w->done(w->arg, img ? img->digest : NULL, img ? img->size : 0, err);
    image_unref(img);
    list_remove(&w->link);
    free(w->ref);
    free(w);
}

static void on_wish_pulled(void *arg, struct image *img, const struct err *err)
{
    struct wish *w = arg;
    struct functions *fs = w->fs;

    tell_wish(w, img, err);
    fs->handles--;
    functions_let_go(fs);
}

void function_image_find(struct functions *fs, const char *ref, function_image_fn *done, void *arg)
{
    struct image_pull_options o = {.timeout_ms = PULL_MS};
    struct wish *w = xcalloc(1, sizeof *w);
    const struct image *img = NULL;
    struct err err = {0};
    _auto_(freep) char *normal = image_name_normal(ref, &err);
    struct image_store *s = normal ? store_of(fs, &err) : NULL;

    *w = (struct wish){.fs = fs, .ref = xstrdup(ref), .done = done, .arg = arg};
    list_push(&fs->wishes, &w->link);
    if (s)
        img = find(s, ref, NULL, &err);
    if (!s || img) {
        tell_wish(w, img, img ? NULL : &err);
        return;
    }
    fs->handles++;
    w->job = image_pull_async(s, fs->loop, ref, &o, on_wish_pulled, w);
}

void functions_images_cancel(struct functions *fs)
{
    LIST_EACH(&fs->wishes, l)
    if (list_entry(l, struct wish, link)->job)
        image_job_cancel(list_entry(l, struct wish, link)->job); /* its callback still comes */
}

void functions_images_close(struct functions *fs)
{
    fs->images = image_store_close(fs->images);
}
