/* The long calls off the loop: each job has a thread of its own (at most JOBS_AT_ONCE work, the
 * others wait their turn), so that a slow registry never keeps libuv's few threads, which the
 * file calls of the loop need. */
#include "image/image_int.h"
#include "env/clock.h"

#include <stdatomic.h>
#include <uv.h>

enum { JOBS_AT_ONCE = 4, PROGRESS_EVERY_MS = 100 };

enum what { PULL, IMPORT, IMPORT_DIR };

struct image_job {
    struct image_store *s;
    enum what what;
    struct arena *a; /* the copied options */
    char *subject;   /* reference or path, may be NULL */
    struct image_pull_options pull;
    struct image_import_options import;
    image_progress_fn *progress;
    void *progress_arg;
    image_done_fn *done;
    void *arg;
    uv_async_t wake;
    pthread_t thread;
    atomic_bool cancelled, finished;
    pthread_mutex_t mu; /* the line of progress */
    char stage[64];
    int64_t stage_done, stage_total, told_ms;
    bool stage_new;
    struct image *img; /* the outcome, once finished */
    struct err err;
};

static pthread_mutex_t turn_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_free = PTHREAD_COND_INITIALIZER;
static int at_work;

static bool job_progress(void *arg, const char *what, int64_t done, int64_t total)
{
    struct image_job *j = arg;
    int64_t ms = clock_mono_ms();

    pthread_mutex_lock(&j->mu);
    if (j->progress && ms - j->told_ms >= PROGRESS_EVERY_MS) {
        j->told_ms = ms;
        snprintf(j->stage, sizeof(j->stage), "%s", what);
        j->stage_done = done;
        j->stage_total = total;
        j->stage_new = true;
        uv_async_send(&j->wake);
    }
    pthread_mutex_unlock(&j->mu);
    return !atomic_load(&j->cancelled);
}

static void *job_main(void *arg)
{
    struct image_job *j = arg;
    int n;

    pthread_mutex_lock(&turn_mu);
    while (at_work >= JOBS_AT_ONCE)
        pthread_cond_wait(&turn_free, &turn_mu);
    at_work++;
    pthread_mutex_unlock(&turn_mu);
    if (atomic_load(&j->cancelled)) {
        err_set(&j->err, CANCELLED, "cancelled");
    } else if (j->what == PULL) {
        j->img = image_pull(j->s, j->subject, &j->pull, &j->err);
    } else if (j->what == IMPORT) {
        j->img = image_import(j->s, j->subject, &j->import, &j->err);
    } else {
        n = image_import_dir(j->s, j->subject, &j->err);
        if (n >= 0)
            j->err = (struct err){0};
    }
    pthread_mutex_lock(&turn_mu);
    at_work--;
    pthread_cond_signal(&turn_free);
    pthread_mutex_unlock(&turn_mu);
    atomic_store(&j->finished, true);
    uv_async_send(&j->wake);
    return NULL;
}

static void job_closed(uv_handle_t *h)
{
    struct image_job *j = h->data;

    pthread_mutex_destroy(&j->mu);
    arena_free(j->a);
    free(j);
}

static void job_wake(uv_async_t *h)
{
    struct image_job *j = h->data;
    bool news, finished = atomic_load(&j->finished);
    char stage[64];
    int64_t done, total;

    pthread_mutex_lock(&j->mu);
    news = j->stage_new && !finished;
    j->stage_new = false;
    memcpy(stage, j->stage, sizeof(stage));
    done = j->stage_done;
    total = j->stage_total;
    pthread_mutex_unlock(&j->mu);
    if (news && j->progress && !j->progress(j->progress_arg, stage, done, total))
        atomic_store(&j->cancelled, true);
    if (!finished)
        return;
    pthread_join(j->thread, NULL);
    j->done(j->arg, j->img, &j->err);
    uv_close((uv_handle_t *)h, job_closed);
}

static struct image_job *job_new(struct image_store *s, enum what what, const char *subject,
                                 image_done_fn *done, void *arg)
{
    struct image_job *j = xcalloc(1, sizeof(*j));

    j->s = s;
    j->what = what;
    j->a = arena_new();
    j->subject = subject ? arena_strdup(j->a, subject) : NULL;
    j->done = done;
    j->arg = arg;
    pthread_mutex_init(&j->mu, NULL);
    return j;
}

static struct image_job *job_start(struct image_job *j, uv_loop_t *loop)
{
    ASSERT(uv_async_init(loop, &j->wake, job_wake) == 0);
    j->wake.data = j;
    ASSERT(pthread_create(&j->thread, NULL, job_main, j) == 0);
    return j;
}

static char *dup0(struct arena *a, const char *s)
{
    return s ? arena_strdup(a, s) : NULL;
}

static const char *const *dup_list(struct arena *a, const char *const *v)
{
    size_t n = 0;
    const char **to;

    if (!v)
        return NULL;
    while (v[n])
        n++;
    to = arena_array(a, const char *, n + 1);
    for (size_t i = 0; i < n; i++)
        to[i] = arena_strdup(a, v[i]);
    return to;
}

struct image_job *image_pull_async(struct image_store *s, struct uv_loop_s *loop, const char *ref,
                                   const struct image_pull_options *o, image_done_fn *done,
                                   void *arg)
{
    struct image_job *j = job_new(s, PULL, ref, done, arg);

    if (o) {
        j->pull = *o;
        j->pull.username = dup0(j->a, o->username);
        j->pull.password = dup0(j->a, o->password);
        j->progress = o->progress;
        j->progress_arg = o->arg;
    }
    j->pull.progress = job_progress;
    j->pull.arg = j;
    return job_start(j, loop);
}

struct image_job *image_import_async(struct image_store *s, struct uv_loop_s *loop,
                                     const char *path, const struct image_import_options *o,
                                     image_done_fn *done, void *arg)
{
    struct image_job *j = job_new(s, IMPORT, path, done, arg);

    if (o) {
        j->import = *o;
        j->import.name = dup0(j->a, o->name);
        j->import.entrypoint = dup_list(j->a, o->entrypoint);
        j->import.cmd = dup_list(j->a, o->cmd);
        j->import.env = dup_list(j->a, o->env);
        j->import.workdir = dup0(j->a, o->workdir);
        j->import.user = dup0(j->a, o->user);
        j->import.stop_signal = dup0(j->a, o->stop_signal);
        j->progress = o->progress;
        j->progress_arg = o->arg;
    }
    j->import.progress = job_progress;
    j->import.arg = j;
    return job_start(j, loop);
}

struct image_job *image_import_dir_async(struct image_store *s, struct uv_loop_s *loop,
                                         const char *dir, image_done_fn *done, void *arg)
{
    return job_start(job_new(s, IMPORT_DIR, dir, done, arg), loop);
}

void image_job_cancel(struct image_job *job)
{
    atomic_store(&job->cancelled, true);
}
