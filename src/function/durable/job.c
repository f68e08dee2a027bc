/* Work that may block: so much of it is on pool threads at once, the rest stands in line. The pool is the whole gateway's, and
 * ten thousand executions may wake in one moment. */
#include "function/durable/durable_int.h"

enum { AT_WORK_MAX = 8 };

static void next(struct durable *d);

static void on_run(uv_work_t *w)
{
    struct durable_job *j = w->data;

    j->run(j);
}

static void on_done(uv_work_t *w, int status)
{
    struct durable_job *j = w->data;
    struct durable *d = j->d;

    (void)status;
    d->jobs_at_work--;
    next(d);
    j->done(j); /* frees it */
    d->at_work--;
    durable_maybe_closed(d);
}

static void next(struct durable *d)
{
    struct list *l;

    while (d->jobs_at_work < AT_WORK_MAX && (l = list_first(&d->jobs))) {
        struct durable_job *j = list_entry(l, struct durable_job, link);

        list_remove(l);
        d->jobs_at_work++;
        uv_queue_work(d->loop, &j->work, on_run, on_done);
    }
}

void durable_job(struct durable *d, struct durable_job *j, void (*run)(struct durable_job *j), void (*done)(struct durable_job *j))
{
    j->d = d;
    j->run = run;
    j->done = done;
    j->work.data = j;
    d->at_work++;
    list_push(&d->jobs, &j->link);
    next(d);
}
