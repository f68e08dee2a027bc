/* A version's code and its layers as folders. They were unpacked when they were deployed; after a reboot, or when nobody
 * needed them for long, they are unpacked again from the zips that are kept: that reads and writes up to hundreds of
 * megabytes, so a thread does it, and the calls wait. */
#include "function/function_int.h"

#include "base/log.h"
#include "function/code.h"

#include <stdio.h>
#include <unistd.h>

struct unpacking {
    uv_work_t work;
    struct version *v;
    char *state;
    char *sha256[1 + FUNCTION_LAYERS_MAX];
    int n;
    bool failed;
    struct err err;
};

static bool is_there(const struct functions *fs, const char *sha256)
{
    _auto_(freep) char *path = xasprintf("%s/functions/%s", fs->state, sha256 ? sha256 : "");

    return !str_empty(sha256) && access(path, F_OK) == 0;
}

static void unpack_work(uv_work_t *w)
{
    struct unpacking *u = w->data;

    for (int i = 0; i < u->n && !u->failed; i++) {
        _auto_(freep) char *folder = code_folder(u->state, u->sha256[i], &u->err);

        u->failed = !folder;
    }
}

static void unpack_done(uv_work_t *w, int status)
{
    struct unpacking *u = w->data;
    struct version *v = u->v;
    struct functions *fs = v->f->fs;
    struct err err = u->err;
    bool failed = u->failed;

    (void)status;
    for (int i = 0; i < u->n; i++)
        free(u->sha256[i]);
    free(u->state);
    free(u);
    v->unpacking = false;
    if (v->removed || fs->stopping) {
        version_let_go(v);
        fs->handles--; /* not before: fs stays until then */
        functions_let_go(fs);
        return;
    }
    fs->handles--;
    if (!failed) {
        zygote_start(v);
        return;
    }
    v->zygote_since_us = now_us(); /* the tick waits a while before it tries again: it may have been a disk that is full */
    LOG(WARN, "function", "function=%s did=unpack error=\"%s\"", v->f->key, err.msg);
    err.code = ERR_UNAVAILABLE; /* the function is there, its code is not */
    pool_fail_waiting(v->f, &err);
}

static void unpack(struct version *v)
{
    struct unpacking *u = xcalloc(1, sizeof *u);
    struct functions *fs = v->f->fs;

    u->v = v;
    u->state = xstrdup(fs->state);
    u->sha256[u->n++] = xstrdup(v->sha256 ? v->sha256 : "");
    for (uint32_t i = 0; i < v->layers_n; i++)
        u->sha256[u->n++] = xstrdup(v->layers[i]);
    u->work.data = u;
    v->unpacking = true;
    fs->handles++;
    ASSERT(uv_queue_work(fs->loop, &u->work, unpack_work, unpack_done) == 0);
}

int version_code(struct version *v, struct err *err)
{
    struct functions *fs = v->f->fs;
    bool all = is_there(fs, v->sha256);

    if (v->unpacking)
        return 0;
    for (uint32_t i = 0; i < v->layers_n; i++)
        all &= is_there(fs, v->layers[i]);
    if (!all) {
        unpack(v);
        return 0;
    }
    free(v->folder);
    v->folder = code_folder(fs->state, v->sha256, err);
    for (uint32_t i = 0; i < v->layers_n && v->folder; i++) {
        free(v->layer_folders[i]);
        v->layer_folders[i] = code_folder(fs->state, v->layers[i], err);
        if (!v->layer_folders[i])
            return -1;
    }
    return v->folder ? 1 : -1;
}
