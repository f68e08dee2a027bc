/* CronJobs: a Job for each time of the schedule, named after its minute, so that a time is never
 * served twice. Local time is that of spec.timeZone, or UTC. */
#include "controller/cron.h"
#include "controller/ctl.h"
#include "controller/pods.h"

enum { MISSED_MAX = 100 };

static bool job_over(const struct obj *job)
{
    return condition_true(job, "Complete") || condition_true(job, "Failed");
}

static int newest_first(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;
    int64_t ta = obj_created_ms(a), tb = obj_created_ms(b);

    return ta != tb ? (ta < tb) - (ta > tb) : strcmp(b->name, a->name);
}

static int trim_history(struct ctl *ctl, const struct obj *cj, struct objs jobs, struct err *err)
{
    int64_t keep[2] = {obj_int(cj, "spec.successfulJobsHistoryLimit", 3), obj_int(cj, "spec.failedJobsHistoryLimit", 1)};

    if (jobs.n)
        qsort(jobs.v, jobs.n, sizeof *jobs.v, newest_first);
    for (uint32_t i = 0; i < jobs.n; i++) {
        if (!job_over(jobs.v[i]) || obj_deleting(jobs.v[i]))
            continue;
        if (keep[condition_true(jobs.v[i], "Failed")]-- > 0)
            continue;
        if (ctl_delete(ctl, K_JOB, jobs.v[i], "Background", -1, err) < 0)
            return -1;
        ctl_event(ctl, cj, "Normal", "SuccessfulDelete", "Deleted job %s", jobs.v[i]->name);
    }
    return 0;
}

static const struct obj *make_job(struct ctl *ctl, const struct obj *cj, int64_t due_s, struct err *err)
{
    struct arena *a = ctl->arena;
    const struct val *template = val_at(obj_val(cj), "spec.jobTemplate");
    struct val *job = val_map(a), *meta = val_need_map(a, job, "metadata");
    char due[KUBETIME_MAX];

    if (val_at(template, "metadata.labels"))
        val_put(a, meta, "labels", val_at(template, "metadata.labels"));
    if (val_at(template, "metadata.annotations"))
        val_put(a, meta, "annotations", val_copy(a, val_at(template, "metadata.annotations")));
    val_put_str(a, val_need_map(a, meta, "annotations"), "batch.kubernetes.io/cronjob-scheduled-timestamp",
                kubetime_text(due, due_s * 1000));
    val_put(a, meta, "name", val_printf(a, "%s-%lld", cj->name, (long long)due_s / 60));
    val_push(a, val_need_list(a, meta, "ownerReferences"), owner_reference(a, K_CRONJOB, cj));
    val_put(a, job, "spec", val_copy(a, val_get(template, "spec")));
    return ctl_create(ctl, K_JOB, cj->namespace_, job, err);
}

static int tell(struct ctl *ctl, const char *key, int64_t due_s, struct err *err)
{
    const struct obj *cj = ctl_get_key(ctl, K_CRONJOB, key);
    struct arena *a = ctl->arena;
    struct val *v, *status, *active = val_list(a);
    struct objs jobs;
    int64_t success = -1;
    char text[KUBETIME_MAX];

    if (!cj)
        return 0;
    jobs = ctl_owned(ctl, K_JOB, cj->uid);
    for (uint32_t i = 0; i < jobs.n; i++) {
        int64_t done = kubetime_parse(obj_str(jobs.v[i], "status.completionTime", ""));
        struct val *ref;

        success = MAX(success, done);
        if (job_over(jobs.v[i]))
            continue;
        ref = val_push(a, active, val_map(a));
        val_put_str(a, ref, "apiVersion", "batch/v1");
        val_put_str(a, ref, "kind", "Job");
        val_put_str(a, ref, "name", jobs.v[i]->name);
        val_put_str(a, ref, "namespace", jobs.v[i]->namespace_);
        val_put_str(a, ref, "uid", jobs.v[i]->uid);
    }
    v = obj_edit(cj, a);
    status = val_need_map(a, v, "status");
    if (val_len(active))
        val_put(a, status, "active", active);
    else
        val_del(status, "active");
    if (due_s >= 0)
        val_put_str(a, status, "lastScheduleTime", kubetime_text(text, due_s * 1000));
    if (success >= 0 && success > kubetime_parse(val_str_at(status, "lastSuccessfulTime", "")))
        val_put_str(a, status, "lastSuccessfulTime", kubetime_text(text, success));
    return ctl_update_status(ctl, K_CRONJOB, cj, v, err);
}

/* The last time that was due and not served, or -1; *ret_next: the one after now. */
static int64_t last_due(struct ctl *ctl, const struct obj *cj, const struct cron *c, const struct zone *zone,
                        int64_t *ret_next)
{
    int64_t now = ctl->now_ms / 1000, from = kubetime_parse(obj_str(cj, "status.lastScheduleTime", "")), due = -1, t;
    int64_t deadline = obj_int(cj, "spec.startingDeadlineSeconds", -1);

    from = (from < 0 ? obj_created_ms(cj) : from) / 1000;
    if (deadline >= 0)
        from = MAX(from, now - deadline);
    t = cron_next(c, zone, from);
    for (int i = 0; t >= 0 && t <= now && i < MISSED_MAX; i++) {
        due = t;
        t = cron_next(c, zone, t);
    }
    if (t >= 0 && t <= now)
        ctl_event(ctl, cj, "Warning", "TooManyMissedTimes", "too many missed start times. Set or decrease "
                  ".spec.startingDeadlineSeconds or check clock skew");
    if (t >= 0 && t <= now) { /* it slept for long: only the last time counts */
        for (int64_t back = 60; t <= now && back <= now - from; back *= 2)
            for (t = cron_next(c, zone, now - back); t >= 0 && t <= now; t = cron_next(c, zone, t))
                due = t;
    }
    *ret_next = cron_next(c, zone, now);
    return due;
}

static int serve(struct ctl *ctl, const char *key, const struct obj *cj, struct objs jobs, int64_t due,
                 struct err *err)
{
    const char *policy = obj_str(cj, "spec.concurrencyPolicy", "Allow");
    const struct obj *made;
    struct err why;

    for (uint32_t i = 0; i < jobs.n && !streq(policy, "Allow"); i++) {
        if (job_over(jobs.v[i]) || obj_deleting(jobs.v[i]))
            continue;
        if (streq(policy, "Forbid")) {
            ctl_event(ctl, cj, "Normal", "JobAlreadyActive",
                      "Not starting job because prior execution is running and concurrency policy is Forbid");
            return tell(ctl, key, -1, err);
        }
        if (ctl_delete(ctl, K_JOB, jobs.v[i], "Background", -1, err) < 0)
            return -1;
    }
    made = make_job(ctl, cj, due, &why);
    if (!made && why.code != ERR_ALREADY_EXISTS) {
        const struct obj *ns = ctl_get(ctl, K_NAMESPACE, "", cj->namespace_);

        if (!ns || obj_deleting(ns))
            return 0;
        ctl_event(ctl, cj, "Warning", "FailedCreate", "Error creating job: %s", why.msg);
        *err = why;
        return -1;
    }
    if (made)
        ctl_event(ctl, cj, "Normal", "SuccessfulCreate", "Created job %s", made->name);
    return tell(ctl, key, due, err);
}

static enum again cronjob_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *cj = ctl_get_key(ctl, K_CRONJOB, key);
    struct zone *zone;
    struct cron c;
    struct objs jobs;
    int64_t due, next;

    if (!cj || obj_deleting(cj))
        return DONE;
    jobs = ctl_owned(ctl, K_JOB, cj->uid);
    if (trim_history(ctl, cj, jobs, err) < 0)
        return RETRY;
    if (!cron_parse(obj_str(cj, "spec.schedule", ""), &c)) {
        ctl_event(ctl, cj, "Warning", "UnparseableSchedule", "unparseable schedule: %s", obj_str(cj, "spec.schedule", ""));
        return DONE;
    }
    if (val_bool_at(obj_val(cj), "spec.suspend", false))
        return tell(ctl, key, -1, err) < 0 ? RETRY : DONE;
    zone = zone_load(obj_str(cj, "spec.timeZone", "UTC"), err);
    if (!zone) {
        ctl_event(ctl, cj, "Warning", "UnknownTimeZone", "invalid timeZone: %s", err->msg);
        return DONE;
    }
    due = last_due(ctl, cj, &c, zone, &next);
    zone_free(zone);
    if (next < 0 && due < 0) /* the 31st of February */
        ctl_event(ctl, cj, "Warning", "InvalidSchedule", "invalid schedule: %s : there is no such time",
                  obj_str(cj, "spec.schedule", ""));
    if (next >= 0)
        ctl_want_in(ctl, key, next * 1000 - ctl->now_ms + 50);
    if (due < 0)
        return tell(ctl, key, -1, err) < 0 ? RETRY : DONE;
    return serve(ctl, key, cj, jobs, due, err) < 0 ? RETRY : DONE;
}

static void cronjob_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    if (kind == K_CRONJOB) {
        ctl_want_obj(ctl, now ? now : was);
        return;
    }
    ctl_want_controller_of(ctl, was, K_CRONJOB);
    ctl_want_controller_of(ctl, now, K_CRONJOB);
}

extern const struct controller cronjob_controller;
const struct controller cronjob_controller = {
    .name = "cronjob",
    .component = "cronjob-controller",
    .reconcile = cronjob_reconcile,
    .changed = cronjob_changed,
    .kinds = KIND_BIT(K_CRONJOB) | KIND_BIT(K_JOB),
};
