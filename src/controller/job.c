/* Jobs: pods that run to their end, counted exactly.
 *
 * A pod's end is counted in three writes, any of which may be the last before a crash: its uid is
 * put into status.uncountedTerminatedPods, then the finalizer is taken off the pod (until then it
 * cannot vanish uncounted), then the uid becomes part of succeeded or failed. A pass begins by
 * finishing what an earlier one left between two of these. */
#include <stdio.h>

#include "controller/ctl.h"
#include "controller/jobs.h"
#include "controller/pods.h"

#define TRACKING "batch.kubernetes.io/job-tracking"
#define INDEX "batch.kubernetes.io/job-completion-index"

struct pass {
    struct ctl *ctl;
    const char *key;
    const struct obj *job;
    const struct val *spec;
    struct val *v, *status; /* the edit */
    struct objs pods, active;
    int64_t parallelism, completions; /* completions < 0: not given */
    int64_t succeeded, failed, terminating, ready;
    struct indexes done;
    bool indexed;
    const char *fail_reason, *fail_message;
};

/* ---- list ---- */

static const char *condition_status(const struct val *v, const char *type)
{
    VAL_EACH(val_at(v, "status.conditions"), c)
        if (streq(val_text(val_get(c, "type"), ""), type))
            return val_text(val_get(c, "status"), "");
    return "";
}

static bool job_finished(const struct val *v)
{
    return streq(condition_status(v, "Complete"), "True") ||
           streq(condition_status(v, "Failed"), "True");
}

static int64_t index_of(const struct obj *pod)
{
    const char *s = obj_annotation(pod, INDEX);

    return s ? strtoll(s, NULL, 10) : -1;
}

static bool counts_as_failed(const struct obj *pod)
{
    const char *phase = pod_phase(pod);

    return streq(phase, "Failed") || (obj_deleting(pod) && !streq(phase, "Succeeded"));
}

static int reload(struct pass *p, struct err *err)
{
    const struct obj *job = ctl_get_key(p->ctl, K_JOB, p->key);

    if (!job || (p->job && !streq(job->uid, p->job->uid)))
        return err_set(err, NOT_FOUND, "the job is gone");
    p->job = job;
    p->spec = val_get(obj_val(job), "spec");
    p->v = obj_edit(job, p->ctl->arena);
    p->status = val_need_map(p->ctl->arena, p->v, "status");
    p->succeeded = val_int_at(p->status, "succeeded", 0);
    p->failed = val_int_at(p->status, "failed", 0);
    p->completions = val_int_at(p->spec, "completions", -1);
    p->parallelism = val_int_at(p->spec, "parallelism", 1);
    p->indexed = streq(val_str_at(p->spec, "completionMode", ""), "Indexed");
    indexes_init(&p->done, p->ctl->arena, p->indexed ? p->completions : 0);
    indexes_read(&p->done, val_str_at(p->status, "completedIndexes", ""));
    return 0;
}

static void list_pods(struct pass *p)
{
    p->pods = ctl_owned(p->ctl, K_POD, p->job->uid);
    p->active = (struct objs){0};
    p->terminating = p->ready = 0;
    for (uint32_t i = 0; i < p->pods.n; i++) {
        const struct obj *pod = p->pods.v[i];

        if (pod_active(pod)) {
            objs_add(p->ctl->arena, &p->active, pod);
            p->ready += pod_ready(pod);
        } else if (!pod_finished(pod)) {
            p->terminating++;
        }
    }
}

/* ---- counting ---- */

static bool listed(const struct val *list, const char *uid)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), uid))
            return true;
    return false;
}

static void put_count(struct arena *a, struct val *status, const char *key, int64_t n)
{
    if (n)
        val_put_int(a, status, key, n);
    else
        val_del(status, key);
}

static int save(struct pass *p, struct err *err)
{
    struct arena *a = p->ctl->arena;

    put_count(a, p->status, "succeeded", p->succeeded);
    put_count(a, p->status, "failed", p->failed);
    if (p->indexed && *indexes_text(&p->done, a))
        val_put_str(a, p->status, "completedIndexes", indexes_text(&p->done, a));
    if (ctl_update_status(p->ctl, K_JOB, p->job, p->v, err) < 0)
        return -1;
    return reload(p, err);
}

/* Third write: those whose finalizer is off are part of the sums. True: something moved. */
static bool fold(struct pass *p, const char *which, int64_t *count)
{
    struct val *list = val_get(val_get(p->status, "uncountedTerminatedPods"), which);
    bool any = false;

    for (uint32_t i = list ? list->n : 0; i-- > 0;) {
        const char *uid = val_text(&list->items[i], "");
        bool held = false;

        for (uint32_t k = 0; k < p->pods.n && !held; k++)
            held = streq(p->pods.v[k]->uid, uid) && obj_has_finalizer(p->pods.v[k], TRACKING);
        if (held)
            continue;
        (*count)++;
        val_remove(list, i);
        any = true;
    }
    if (list && !list->n)
        val_del(val_get(p->status, "uncountedTerminatedPods"), which);
    return any;
}

/* First write: ended pods that still carry the finalizer are noted. */
static bool note_ended(struct pass *p)
{
    struct arena *a = p->ctl->arena;
    struct val *un = val_need_map(a, p->status, "uncountedTerminatedPods");
    bool any = false;

    for (uint32_t i = 0; i < p->pods.n; i++) {
        const struct obj *pod = p->pods.v[i];
        const char *which;

        if (!obj_has_finalizer(pod, TRACKING))
            continue;
        if (streq(pod_phase(pod), "Succeeded"))
            which = "succeeded";
        else if (counts_as_failed(pod))
            which = "failed";
        else
            continue;
        if (listed(val_get(un, "succeeded"), pod->uid) || listed(val_get(un, "failed"), pod->uid))
            continue;
        if (p->indexed && streq(which, "succeeded")) { /* the index itself is the count */
            int64_t index = index_of(pod);

            if (index < 0 || indexes_has(&p->done, index))
                continue;
            indexes_add(&p->done, index);
            p->succeeded = indexes_count(&p->done);
        } else {
            val_push_str(a, val_need_list(a, un, which), pod->uid);
        }
        any = true;
    }
    return any;
}

/* Second write: what is noted may go. */
static int let_go(struct pass *p, bool all, struct err *err)
{
    const struct val *un = val_get(p->status, "uncountedTerminatedPods");

    for (uint32_t i = 0; i < p->pods.n; i++) {
        const struct obj *pod = p->pods.v[i];
        bool noted = all || listed(val_get(un, "succeeded"), pod->uid) ||
                     listed(val_get(un, "failed"), pod->uid) ||
                     (p->indexed && streq(pod_phase(pod), "Succeeded") &&
                      (indexes_has(&p->done, index_of(pod)) || index_of(pod) < 0));

        if (noted && !ctl_finalizer(p->ctl, K_POD, pod, TRACKING, false, err))
            return -1;
    }
    return 0;
}

static int count(struct pass *p, struct err *err)
{
    bool any;

    if (let_go(p, false, err) < 0)
        return -1;
    list_pods(p);
    any = fold(p, "succeeded", &p->succeeded) | fold(p, "failed", &p->failed);
    any |= note_ended(p);
    if (!any)
        return 0;
    if (save(p, err) < 0 || let_go(p, false, err) < 0)
        return -1;
    list_pods(p);
    any = fold(p, "succeeded", &p->succeeded) | fold(p, "failed", &p->failed);
    return any ? save(p, err) : 0;
}

/* ---- diff ---- */

static int64_t pod_ended_ms(struct ctl *ctl, const struct obj *pod)
{
    int64_t last = -1;

    VAL_EACH(val_at(obj_val(pod), "status.containerStatuses"), c) {
        int64_t t = kubetime_parse(val_str_at(c, "state.terminated.finishedAt", ""));

        last = MAX(last, t);
    }
    if (last < 0)
        last = kubetime_parse(obj_str(pod, "metadata.deletionTimestamp", ""));
    if (last < 0)
        last = kubetime_parse(val_text(val_get(condition_of(pod, "Ready"), "lastTransitionTime"), ""));
    return last < 0 ? ctl->now_ms : last;
}

/* ms that the next pod still has to wait because of failures in a row; 0: none. */
static int64_t backoff_left(struct pass *p)
{
    int64_t success = -1, last = -1, n = 0, until;

    for (uint32_t i = 0; i < p->pods.n; i++)
        if (streq(pod_phase(p->pods.v[i]), "Succeeded")) {
            int64_t t = pod_ended_ms(p->ctl, p->pods.v[i]);

            success = MAX(success, t);
        }
    for (uint32_t i = 0; i < p->pods.n; i++)
        if (streq(pod_phase(p->pods.v[i]), "Failed")) {
            int64_t t = pod_ended_ms(p->ctl, p->pods.v[i]);

            n += t > success;
            last = MAX(last, t);
        }
    until = last + job_backoff_ms(n) - p->ctl->now_ms;
    return n && until > 0 ? until : 0;
}

static bool restarts_over(struct pass *p, int64_t limit)
{
    int64_t n = 0;

    if (!streq(val_str_at(p->spec, "template.spec.restartPolicy", ""), "OnFailure"))
        return false;
    for (uint32_t i = 0; i < p->active.n; i++) {
        const struct val *status = val_get(obj_val(p->active.v[i]), "status");

        VAL_EACH(val_get(status, "initContainerStatuses"), c)
            n += val_int_at(c, "restartCount", 0);
        VAL_EACH(val_get(status, "containerStatuses"), c)
            n += val_int_at(c, "restartCount", 0);
    }
    return limit == 0 ? n > 0 : n >= limit;
}

static void judge(struct pass *p)
{
    int64_t limit = val_int_at(p->spec, "backoffLimit", 6);
    int64_t deadline = val_int_at(p->spec, "activeDeadlineSeconds", -1);
    int64_t start = kubetime_parse(val_str_at(p->status, "startTime", ""));

    if (streq(condition_status(p->v, "FailureTarget"), "True")) {
        VAL_EACH(val_get(p->status, "conditions"), c)
            if (streq(val_text(val_get(c, "type"), ""), "FailureTarget")) {
                p->fail_reason = val_text(val_get(c, "reason"), "");
                p->fail_message = val_text(val_get(c, "message"), "");
            }
    } else if (p->failed > limit || restarts_over(p, limit)) {
        p->fail_reason = "BackoffLimitExceeded";
        p->fail_message = "Job has reached the specified backoff limit";
    } else if (deadline >= 0 && start >= 0 && start + deadline * 1000 <= p->ctl->now_ms) {
        p->fail_reason = "DeadlineExceeded";
        p->fail_message = "Job was active longer than specified deadline";
    }
}

static bool succeeded_enough(struct pass *p)
{
    if (streq(condition_status(p->v, "SuccessCriteriaMet"), "True"))
        return true;
    if (p->completions < 0)
        return p->succeeded > 0 && p->active.n == 0 && p->terminating == 0;
    return p->succeeded >= p->completions && p->active.n == 0;
}

/* ---- act ---- */

static void give_index(struct pass *p, struct val *pod, int64_t index)
{
    struct arena *a = p->ctl->arena;
    struct val *meta = val_get(pod, "metadata"), *spec = val_get(pod, "spec");
    const char *text = arena_printf(a, "%lld", (long long)index);
    static const char *const lists[] = {"initContainers", "containers"};

    val_put_str(a, val_need_map(a, meta, "annotations"), INDEX, text);
    val_put_str(a, val_need_map(a, meta, "labels"), INDEX, text);
    val_put(a, meta, "generateName", val_printf(a, "%s-%s-", p->job->name, text));
    val_put(a, spec, "hostname", val_printf(a, "%s-%s", p->job->name, text));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(spec, lists[i]), c) {
            struct val *env = val_need_list(a, c, "env"), *var = val_map(a), *from;

            val_put_str(a, var, "name", "JOB_COMPLETION_INDEX");
            from = val_need_map(a, val_need_map(a, var, "valueFrom"), "fieldRef");
            val_put_str(a, from, "fieldPath", "metadata.annotations['" INDEX "']");
            val_push(a, env, var);
        }
}

static int64_t next_index(struct pass *p, struct indexes *taken)
{
    for (int64_t i = 0; i < p->completions; i++)
        if (!indexes_has(&p->done, i) && !indexes_has(taken, i)) {
            indexes_add(taken, i);
            return i;
        }
    return -1;
}

static int make_pods(struct pass *p, int64_t n, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct indexes taken;

    indexes_init(&taken, ctl->arena, p->indexed ? p->completions : 0);
    for (uint32_t i = 0; i < p->active.n; i++)
        indexes_add(&taken, index_of(p->active.v[i]));
    for (; n > 0; n--) {
        struct val *pod = pod_of_template(ctl->arena, val_get(p->spec, "template"), K_JOB, p->job,
                                          p->job->name);
        const struct obj *made, *ns;
        int64_t index = p->indexed ? next_index(p, &taken) : -1;

        if (p->indexed && index < 0)
            return 0;
        val_push_str(ctl->arena, val_need_list(ctl->arena, val_get(pod, "metadata"), "finalizers"),
                     TRACKING);
        if (p->indexed)
            give_index(p, pod, index);
        made = ctl_create(ctl, K_POD, p->job->namespace_, pod, err);
        if (!made) {
            ns = ctl_get(ctl, K_NAMESPACE, "", p->job->namespace_);
            if (!ns || obj_deleting(ns))
                return 0;
            ctl_event(ctl, p->job, "Warning", "FailedCreate", "Error creating: %s", err->msg);
            return -1;
        }
        ctl_event(ctl, p->job, "Normal", "SuccessfulCreate", "Created pod: %s", made->name);
    }
    return 0;
}

/* counted: they end as failures of the job; else they were never needed and leave no trace. */
static int drop_pods(struct pass *p, int64_t n, bool counted, struct err *err)
{
    pods_sort_cheapest_first(&p->active);
    for (int64_t i = 0; i < n && i < (int64_t)p->active.n; i++) {
        const struct obj *pod = p->active.v[i];

        if (!counted && !(pod = ctl_finalizer(p->ctl, K_POD, pod, TRACKING, false, err)))
            return -1;
        if (ctl_delete(p->ctl, K_POD, pod, NULL, -1, err) < 0)
            return -1;
        ctl_event(p->ctl, p->job, "Normal", "SuccessfulDelete", "Deleted pod: %s", pod->name);
    }
    return 0;
}

static int run(struct pass *p, struct err *err)
{
    int64_t want = job_wanted(p->parallelism, p->completions, p->succeeded, p->active.n), wait;
    int64_t deadline = val_int_at(p->spec, "activeDeadlineSeconds", -1);
    int64_t start = kubetime_parse(val_str_at(p->status, "startTime", ""));

    if (deadline >= 0 && start >= 0)
        ctl_want_in(p->ctl, p->key, start + deadline * 1000 - p->ctl->now_ms + 10);
    if ((int64_t)p->active.n > want)
        return drop_pods(p, p->active.n - want, false, err);
    /* while pods of it are on their way out their places are not free: a job's pods do not overlap
     * beyond parallelism */
    want = MIN(want - (int64_t)p->active.n, p->parallelism - (int64_t)p->active.n);
    if (streq(val_str_at(p->spec, "podReplacementPolicy", ""), "Failed"))
        want -= p->terminating;
    if (want <= 0)
        return 0;
    wait = backoff_left(p);
    if (wait > 0) {
        ctl_want_in(p->ctl, p->key, wait);
        return 0;
    }
    if (want > p->ctl->burst)
        ctl_want_key(p->ctl, p->key);
    return make_pods(p, MIN(want, (int64_t)p->ctl->burst), err);
}

/* ---- tell ---- */

static int tell(struct pass *p, struct err *err)
{
    struct arena *a = p->ctl->arena;

    if (reload(p, err) < 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    list_pods(p);
    put_count(a, p->status, "active", p->active.n);
    val_put_int(a, p->status, "ready", p->ready);
    val_put_int(a, p->status, "terminating", p->terminating);
    val_need_map(a, p->status, "uncountedTerminatedPods");
    return ctl_update_status(p->ctl, K_JOB, p->job, p->v, err);
}

static int start_or_suspend(struct pass *p, bool suspend, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    const char *is = condition_status(p->v, "Suspended");

    if (suspend && !streq(is, "True")) {
        ctl_condition(ctl, p->v, "Suspended", "True", "JobSuspended", "Job suspended", false);
        val_del(p->status, "startTime");
        ctl_event(ctl, p->job, "Normal", "Suspended", "Job suspended");
        return save(p, err);
    }
    if (!suspend && streq(is, "True")) {
        ctl_condition(ctl, p->v, "Suspended", "False", "JobResumed", "Job resumed", false);
        val_put_str(a, p->status, "startTime", ctl_time(ctl));
        ctl_event(ctl, p->job, "Normal", "Resumed", "Job resumed");
        return save(p, err);
    }
    if (!suspend && !val_get(p->status, "startTime")) {
        val_put_str(a, p->status, "startTime", ctl_time(ctl));
        return save(p, err);
    }
    return 0;
}

static int finish(struct pass *p, const char *type, const char *target, const char *reason,
                  const char *message, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct arena *a = ctl->arena;
    bool failed = streq(type, "Failed"), told;

    told = streq(condition_status(p->v, target), "True");
    ctl_condition(ctl, p->v, target, "True", reason, message, false);
    if (!told && save(p, err) < 0)
        return -1;
    if (p->active.n && drop_pods(p, p->active.n, failed, err) < 0)
        return -1;
    list_pods(p);
    if (failed && count(p, err) < 0)
        return -1;
    if (p->active.n || p->terminating)
        return tell(p, err); /* the last word comes when the last pod is gone */
    val_del(p->status, "active");
    val_put_int(a, p->status, "ready", 0);
    val_put_int(a, p->status, "terminating", 0);
    val_need_map(a, p->status, "uncountedTerminatedPods");
    ctl_condition(ctl, p->v, type, "True", reason, message, false);
    if (!failed)
        val_put_str(a, p->status, "completionTime", ctl_time(ctl));
    ctl_event(ctl, p->job, failed ? "Warning" : "Normal", failed ? reason : "Completed", "%s",
              failed ? message : "Job completed");
    ctl_want_key(ctl, p->key); /* its time to live begins */
    return save(p, err);
}

static int after_life(struct pass *p, struct err *err)
{
    int64_t ttl = val_int_at(p->spec, "ttlSecondsAfterFinished", -1), since = -1, left;

    if (count(p, err) < 0 || let_go(p, true, err) < 0)
        return -1;
    if (ttl < 0 || obj_deleting(p->job))
        return 0;
    VAL_EACH(val_get(p->status, "conditions"), c)
        if (streq(val_text(val_get(c, "type"), ""), "Complete") ||
            streq(val_text(val_get(c, "type"), ""), "Failed"))
            since = kubetime_parse(val_text(val_get(c, "lastTransitionTime"), ""));
    left = since + ttl * 1000 - p->ctl->now_ms;
    if (left > 0) {
        ctl_want_in(p->ctl, p->key, left);
        return 0;
    }
    return ctl_delete(p->ctl, K_JOB, p->job, "Foreground", -1, err);
}

/* The job is gone: its pods must not be held by a finalizer that nobody takes off any more. */
static enum again orphans(struct ctl *ctl, const char *key, struct err *err)
{
    char buf[CLIENT_KEY_BYTES];
    const char *ns, *name;
    struct objs pods;

    client_key_split(key, buf, &ns, &name);
    pods = ctl_list(ctl, K_POD, ns);
    for (uint32_t i = 0; i < pods.n; i++) {
        const struct val *owner = obj_controller(pods.v[i]);

        if (obj_has_finalizer(pods.v[i], TRACKING) &&
            (!owner || (streq(val_text(val_get(owner, "kind"), ""), "Job") &&
                        streq(val_text(val_get(owner, "name"), ""), name))) &&
            !ctl_finalizer(ctl, K_POD, pods.v[i], TRACKING, false, err))
            return RETRY;
    }
    return DONE;
}

static int pass(struct pass *p, struct err *err)
{
    bool suspend = val_bool_at(p->spec, "suspend", false);

    list_pods(p);
    if (obj_deleting(p->job))
        return let_go(p, true, err);
    if (job_finished(p->v))
        return after_life(p, err);
    if (start_or_suspend(p, suspend, err) < 0 || count(p, err) < 0)
        return -1;
    judge(p);
    if (p->fail_reason)
        return finish(p, "Failed", "FailureTarget", p->fail_reason, p->fail_message, err);
    if (succeeded_enough(p))
        return finish(p, "Complete", "SuccessCriteriaMet", "CompletionsReached",
                      "Reached expected number of succeeded pods", err);
    if (suspend ? drop_pods(p, p->active.n, false, err) : run(p, err))
        return -1;
    return tell(p, err);
}

static enum again job_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    struct pass p = {.ctl = ctl, .key = key};

    if (reload(&p, err) < 0)
        return orphans(ctl, key, err);
    if (!streq(val_str_at(p.spec, "managedBy", "kubernetes.io/job-controller"),
               "kubernetes.io/job-controller"))
        return DONE;
    if (pass(&p, err) == 0)
        return DONE;
    return RETRY;
}

static void job_changed(struct ctl *ctl, enum kind kind, const struct obj *was,
                        const struct obj *now)
{
    if (kind == K_JOB) {
        ctl_want_obj(ctl, now ? now : was);
        return;
    }
    ctl_want_controller_of(ctl, was, K_JOB);
    ctl_want_controller_of(ctl, now, K_JOB);
}

extern const struct controller job_controller;
const struct controller job_controller = {
    .name = "job",
    .component = "job-controller",
    .reconcile = job_reconcile,
    .changed = job_changed,
    .kinds = KIND_BIT(K_JOB) | KIND_BIT(K_POD),
};
