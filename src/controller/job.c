/* Jobs: pods that run to their end, counted exactly.
 *
 * A pod's end is counted in three writes, any of which may be the last before a crash: its uid is
 * put into status.uncountedTerminatedPods, then the finalizer is taken off the pod (until then it
 * cannot vanish uncounted), then the uid becomes part of succeeded or failed. A pass begins by
 * finishing what an earlier one left between two of these.
 *
 * With backoffLimitPerIndex each pod says in annotations how often its index failed before. The last
 * failed pod of an index is counted only when its successor has taken that number over. */
#include <stdio.h>

#include "controller/ctl.h"
#include "controller/jobs.h"
#include "controller/pods.h"

#define TRACKING "batch.kubernetes.io/job-tracking"
#define INDEX "batch.kubernetes.io/job-completion-index"
#define FAILURES "batch.kubernetes.io/job-index-failure-count"
#define IGNORED "batch.kubernetes.io/job-index-ignored-failure-count"

enum { UNCOUNTED_MAX = 500 }; /* the status stays small; the rest comes in the next pass */

struct pass {
    struct ctl *ctl;
    const char *key;
    const struct obj *job;
    const struct val *spec;
    struct val *v, *status; /* the edit */
    struct objs pods, active;
    int64_t parallelism, completions; /* completions < 0: not given */
    int64_t succeeded, failed, terminating, ready;
    struct indexes done, lost; /* indexes that succeeded, that failed for good */
    int64_t per_index;         /* backoffLimitPerIndex; < 0: not given */
    bool indexed;
    bool when_failed; /* podReplacementPolicy Failed: who is on the way out has not failed yet */
    const struct val *policy;
    const char *fail_reason, *fail_message;
    const char *success_reason, *success_message;
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

static bool has_failed(const struct pass *p, const struct obj *pod)
{
    const char *phase = pod_phase(pod);

    return streq(phase, "Failed") || (!p->when_failed && obj_deleting(pod) && !streq(phase, "Succeeded"));
}

/* When the job has failed, everybody has who did not succeed. */
static bool ended_badly(const struct pass *p, const struct obj *pod, bool finishing)
{
    return has_failed(p, pod) || (finishing && p->fail_reason && !streq(pod_phase(pod), "Succeeded"));
}

static int64_t noted_failures(const struct obj *pod, const char *which)
{
    const char *s = obj_annotation(pod, which);

    return s ? MAX(strtoll(s, NULL, 10), 0LL) : 0;
}

/* How many pods of its index went before it. */
static int64_t nth_of_index(const struct obj *pod)
{
    return noted_failures(pod, FAILURES) + noted_failures(pod, IGNORED);
}

static enum failure_action action_of(const struct pass *p, const struct obj *pod)
{
    return p->policy ? job_failure_action(p->ctl->arena, p->policy, pod, NULL) : FAILURE_COUNT;
}

/* Does the failure of this pod give its index up? */
static bool loses_index(const struct pass *p, const struct obj *pod)
{
    enum failure_action action;

    if (!has_failed(p, pod))
        return false;
    action = action_of(p, pod);
    return action == FAILURE_INDEX || (action != FAILURE_IGNORE && noted_failures(pod, FAILURES) >= p->per_index);
}

/* A failed pod whose number nobody has taken over yet. */
static bool waits_for_successor(const struct pass *p, const struct obj *pod)
{
    int64_t index = index_of(pod);

    if (p->per_index < 0 || index < 0 || !has_failed(p, pod) || obj_deleting(p->job) ||
        indexes_has(&p->lost, index) || indexes_has(&p->done, index) || loses_index(p, pod))
        return false;
    for (uint32_t i = 0; i < p->pods.n; i++)
        if (p->pods.v[i] != pod && index_of(p->pods.v[i]) == index && nth_of_index(p->pods.v[i]) > nth_of_index(pod))
            return false;
    return true;
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
    p->per_index = p->indexed ? val_int_at(p->spec, "backoffLimitPerIndex", -1) : -1;
    indexes_init(&p->lost, p->ctl->arena, p->indexed ? p->completions : 0);
    indexes_read(&p->lost, val_str_at(p->status, "failedIndexes", ""));
    p->policy = val_get(p->spec, "podFailurePolicy");
    if (val_is_null(p->policy))
        p->policy = NULL;
    p->when_failed = streq(val_str_at(p->spec, "podReplacementPolicy", ""), "Failed");
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

static int save(struct pass *p, struct err *err)
{
    struct arena *a = p->ctl->arena;

    ctl_put_count(a, p->status, "succeeded", p->succeeded);
    ctl_put_count(a, p->status, "failed", p->failed);
    if (p->indexed && *indexes_text(&p->done, a))
        val_put_str(a, p->status, "completedIndexes", indexes_text(&p->done, a));
    if (p->per_index >= 0)
        val_put_str(a, p->status, "failedIndexes", indexes_text(&p->lost, a));
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

/* First write: ended pods that still carry the finalizer are noted. finishing: nobody follows any
 * more, so nobody waits for a successor. */
static bool note_ended(struct pass *p, bool finishing)
{
    struct arena *a = p->ctl->arena;
    struct val *un = val_need_map(a, p->status, "uncountedTerminatedPods");
    bool any = false;

    for (uint32_t i = 0; i < p->pods.n; i++) {
        const struct obj *pod = p->pods.v[i];
        const char *which;

        if (!obj_has_finalizer(pod, TRACKING))
            continue;
        if (val_len(val_get(un, "succeeded")) + val_len(val_get(un, "failed")) >= UNCOUNTED_MAX) {
            ctl_want_key(p->ctl, p->key);
            break;
        }
        if (p->per_index >= 0 && index_of(pod) >= 0 && !indexes_has(&p->lost, index_of(pod)) && loses_index(p, pod)) {
            indexes_add(&p->lost, index_of(pod));
            any = true;
        }
        if (streq(pod_phase(pod), "Succeeded"))
            which = "succeeded";
        else if (ended_badly(p, pod, finishing) && (finishing || !waits_for_successor(p, pod)) && action_of(p, pod) != FAILURE_IGNORE)
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
static int let_go(struct pass *p, bool all, bool finishing, struct err *err)
{
    const struct val *un = val_get(p->status, "uncountedTerminatedPods");

    for (uint32_t i = 0; i < p->pods.n; i++) {
        const struct obj *pod = p->pods.v[i];
        bool noted = all || listed(val_get(un, "succeeded"), pod->uid) ||
                     listed(val_get(un, "failed"), pod->uid) ||
                     (p->indexed && streq(pod_phase(pod), "Succeeded") &&
                      (indexes_has(&p->done, index_of(pod)) || index_of(pod) < 0));

        /* a failure that does not count leaves nothing to note */
        noted = noted || (p->policy && has_failed(p, pod) && action_of(p, pod) == FAILURE_IGNORE &&
                          (finishing || !waits_for_successor(p, pod)));
        if (noted && !ctl_finalizer(p->ctl, K_POD, pod, TRACKING, false, err))
            return -1;
    }
    return 0;
}

static int count(struct pass *p, bool finishing, struct err *err)
{
    bool any;

    if (let_go(p, false, finishing, err) < 0)
        return -1;
    list_pods(p);
    any = fold(p, "succeeded", &p->succeeded) | fold(p, "failed", &p->failed);
    any |= note_ended(p, finishing);
    if (!any)
        return 0;
    if (save(p, err) < 0 || let_go(p, false, finishing, err) < 0)
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

/* The condition that an earlier pass has decided by, or NULL. */
static const struct val *decided(const struct pass *p, const char *type)
{
    VAL_EACH(val_get(p->status, "conditions"), c)
        if (streq(val_text(val_get(c, "type"), ""), type) && streq(val_text(val_get(c, "status"), ""), "True"))
            return c;
    return NULL;
}

static void fail(struct pass *p, const char *reason, const char *message)
{
    p->fail_reason = reason;
    p->fail_message = message;
}

static bool pod_fails_job(struct pass *p)
{
    const char *why = NULL;

    for (uint32_t i = 0; p->policy && i < p->pods.n; i++)
        if (has_failed(p, p->pods.v[i]) &&
            job_failure_action(p->ctl->arena, p->policy, p->pods.v[i], &why) == FAILURE_JOB) {
            fail(p, "PodFailurePolicy", why);
            return true;
        }
    return false;
}

static void judge_failure(struct pass *p)
{
    int64_t limit = val_int_at(p->spec, "backoffLimit", 6);
    int64_t deadline = val_int_at(p->spec, "activeDeadlineSeconds", -1);
    int64_t start = kubetime_parse(val_str_at(p->status, "startTime", ""));
    const struct val *c = decided(p, "FailureTarget");
    int64_t lost = indexes_count(&p->lost), most = val_int_at(p->spec, "maxFailedIndexes", -1);

    if (c)
        fail(p, val_text(val_get(c, "reason"), ""), val_text(val_get(c, "message"), ""));
    else if (pod_fails_job(p))
        return;
    else if (p->failed > limit || restarts_over(p, limit))
        fail(p, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    else if (deadline >= 0 && start >= 0 && start + deadline * 1000 <= p->ctl->now_ms)
        fail(p, "DeadlineExceeded", "Job was active longer than specified deadline");
    else if (p->per_index >= 0 && most >= 0 && lost > most)
        fail(p, "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    else if (p->per_index >= 0 && lost > 0 && lost + p->succeeded >= p->completions)
        fail(p, "FailedIndexes", "Job has failed indexes");
}

static void judge_success(struct pass *p)
{
    const struct val *c = decided(p, "SuccessCriteriaMet");
    int rule = p->indexed ? job_success_rule(p->ctl->arena, val_get(p->spec, "successPolicy"), &p->done) : -1;
    bool enough = p->completions < 0 ? p->succeeded > 0 && p->active.n == 0 && p->terminating == 0
                                     : p->succeeded >= p->completions && p->active.n == 0;

    if (c) {
        p->success_reason = val_text(val_get(c, "reason"), "");
        p->success_message = val_text(val_get(c, "message"), "");
    } else if (rule >= 0) {
        p->success_reason = "SuccessPolicy";
        p->success_message = arena_printf(p->ctl->arena, "Matched rules at index %d", rule);
    } else if (enough) {
        p->success_reason = "CompletionsReached";
        p->success_message = "Reached expected number of succeeded pods";
    }
}

/* What was decided once stays; else a failure is looked for first. */
static void judge(struct pass *p)
{
    if (!decided(p, "SuccessCriteriaMet"))
        judge_failure(p);
    if (!p->fail_reason)
        judge_success(p);
}

/* ---- act ---- */

/* The failures of the index so far, its last pod's included. */
static void count_failures(struct pass *p, struct val *pod, int64_t index)
{
    struct arena *a = p->ctl->arena;
    const struct obj *last = NULL;
    int64_t failures = 0, ignored = 0;
    struct val *notes;

    for (uint32_t i = 0; i < p->pods.n; i++)
        if (index_of(p->pods.v[i]) == index && has_failed(p, p->pods.v[i]) &&
            (!last || nth_of_index(p->pods.v[i]) > nth_of_index(last)))
            last = p->pods.v[i];
    if (last) {
        bool not_counted = action_of(p, last) == FAILURE_IGNORE;

        failures = noted_failures(last, FAILURES) + !not_counted;
        ignored = noted_failures(last, IGNORED) + not_counted;
    }
    notes = val_need_map(a, val_get(pod, "metadata"), "annotations");
    val_put_str(a, notes, FAILURES, arena_printf(a, "%lld", (long long)failures));
    if (ignored)
        val_put_str(a, notes, IGNORED, arena_printf(a, "%lld", (long long)ignored));
}

static void give_index(struct pass *p, struct val *pod, int64_t index)
{
    struct arena *a = p->ctl->arena;
    struct val *meta = val_get(pod, "metadata"), *spec = val_get(pod, "spec");
    const char *text = arena_printf(a, "%lld", (long long)index);
    static const char *const lists[] = {"initContainers", "containers"};

    val_put_str(a, val_need_map(a, meta, "annotations"), INDEX, text);
    val_put_str(a, val_need_map(a, meta, "labels"), INDEX, text);
    if (p->per_index >= 0)
        count_failures(p, pod, index);
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

/* ms that the index still has to wait because of its failures; 0: none. */
static int64_t index_backoff(struct pass *p, int64_t index)
{
    int64_t last = -1, n = 0, until;

    for (uint32_t i = 0; i < p->pods.n; i++)
        if (index_of(p->pods.v[i]) == index && has_failed(p, p->pods.v[i]) &&
            action_of(p, p->pods.v[i]) != FAILURE_IGNORE) {
            int64_t t = pod_ended_ms(p->ctl, p->pods.v[i]);

            n = MAX(n, noted_failures(p->pods.v[i], FAILURES) + 1);
            last = MAX(last, t);
        }
    until = last + job_backoff_ms(n) - p->ctl->now_ms;
    return n && until > 0 ? until : 0;
}

/* The lowest index that nobody has, has had or has given up; -1: none. */
static int64_t next_index(struct pass *p, struct indexes *taken)
{
    int64_t i, wait;

    while ((i = indexes_gap(taken)) < p->completions) {
        indexes_add(taken, i);
        wait = p->per_index >= 0 ? index_backoff(p, i) : 0;
        if (!wait)
            return i;
        ctl_want_in(p->ctl, p->key, wait);
    }
    return -1;
}

static int make_pods(struct pass *p, int64_t n, struct err *err)
{
    struct ctl *ctl = p->ctl;
    struct indexes taken;

    indexes_init(&taken, ctl->arena, p->indexed ? p->completions : 0);
    indexes_add_all(&taken, &p->done);
    indexes_add_all(&taken, &p->lost);
    for (uint32_t i = 0; i < p->pods.n; i++) /* whoever is on the way out still has it, where failing counts */
        if (pod_active(p->pods.v[i]) || (p->when_failed && !pod_finished(p->pods.v[i])))
            indexes_add(&taken, index_of(p->pods.v[i]));
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

/* Of two active pods of an index one goes, and whoever has none or one that is done. */
static int drop_doubles(struct pass *p, struct err *err)
{
    struct objs all = p->active, keep = {0};
    struct indexes seen;

    indexes_init(&seen, p->ctl->arena, p->completions);
    indexes_add_all(&seen, &p->done);
    indexes_add_all(&seen, &p->lost);
    p->active = (struct objs){0};
    for (uint32_t i = 0; i < all.n; i++) {
        int64_t index = index_of(all.v[i]);
        bool spare = index < 0 || index >= p->completions || indexes_has(&seen, index);

        objs_add(p->ctl->arena, spare ? &p->active : &keep, all.v[i]);
        indexes_add(&seen, index);
    }
    if (p->active.n && drop_pods(p, p->active.n, false, err) < 0)
        return -1;
    p->active = keep;
    return 0;
}

static int run(struct pass *p, struct err *err)
{
    int64_t want = job_wanted(p->parallelism, p->completions, p->succeeded, p->active.n), wait;
    int64_t deadline = val_int_at(p->spec, "activeDeadlineSeconds", -1);
    int64_t start = kubetime_parse(val_str_at(p->status, "startTime", ""));

    if (deadline >= 0 && start >= 0)
        ctl_want_in(p->ctl, p->key, start + deadline * 1000 - p->ctl->now_ms + 10);
    if (p->indexed && drop_doubles(p, err) < 0)
        return -1;
    if ((int64_t)p->active.n > want)
        return drop_pods(p, p->active.n - want, false, err);
    /* while pods of it are on their way out their places are not free: a job's pods do not overlap
     * beyond parallelism */
    want = MIN(want - (int64_t)p->active.n, p->parallelism - (int64_t)p->active.n);
    if (p->when_failed)
        want -= p->terminating;
    if (want <= 0)
        return 0;
    wait = p->per_index >= 0 ? 0 : backoff_left(p);
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
    ctl_put_count(a, p->status, "active", p->active.n);
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
    if (count(p, true, err) < 0)
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

    if (count(p, true, err) < 0 || let_go(p, true, true, err) < 0)
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
        return let_go(p, true, true, err);
    if (job_finished(p->v))
        return after_life(p, err);
    if (start_or_suspend(p, suspend, err) < 0 || count(p, false, err) < 0)
        return -1;
    judge(p);
    if (p->fail_reason)
        return finish(p, "Failed", "FailureTarget", p->fail_reason, p->fail_message, err);
    if (p->success_reason)
        return finish(p, "Complete", "SuccessCriteriaMet", p->success_reason, p->success_message, err);
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
