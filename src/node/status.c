/* A pod's status as the API shows it, and its writing: one PATCH at a time, the newest state wins.
 */
#include "codec/json.h"
#include "codec/kubetime.h"
#include "env/clock.h"
#include "node/node_int.h"

#include <stdio.h>

static bool init_done(const struct pod *p)
{
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_INIT && !(c->state == CTR_EXITED && c->now.code == 0))
            return false;
        if (c->kind == CTR_SIDECAR && !c->now.there)
            return false;
        if (c->kind == CTR_SIDECAR && c->state == CTR_RUNNING && !c->started)
            return false;
    }
    return true;
}

const char *node_pod_phase(const struct pod *p)
{
    const char *told = val_str_at(obj_val(p->o), "status.phase", "Pending");
    uint32_t waiting = 0, over = 0, good = 0, mains = 0;

    if (streq(told, "Failed") || streq(told, "Succeeded"))
        return told; /* there is no way back */
    if (p->end_reason)
        return "Failed";
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_INIT && ctr_over(c) && c->now.code != 0)
            return pod_stopping(p) && p->stage < POD_CLEAN ? "Pending" : "Failed";
        if (c->kind != CTR_MAIN)
            continue;
        mains++;
        waiting += !c->now.there;
        over += ctr_over(c);
        good += ctr_over(c) && c->now.code == 0;
    }
    if (mains && over == mains) {
        if (p->stage < POD_CLEAN) /* sidecars are still ending */
            return "Running";
        return good == mains ? "Succeeded" : "Failed";
    }
    return waiting ? "Pending" : "Running";
}

static void put_time(struct arena *a, struct val *v, const char *key, int64_t ms)
{
    char text[KUBETIME_MAX];

    val_put_str(a, v, key, kubetime_text(text, ms));
}

static struct val *run_state(struct arena *a, const struct ctr *c, const struct ctr_run *r)
{
    struct val *v = val_map(a), *t = val_need_map(a, v, "terminated");

    val_put_int(a, t, "exitCode", r->code);
    if (r->signal)
        val_put_int(a, t, "signal", r->signal);
    val_put_str(a, t, "reason", r->reason);
    if (r->message)
        val_put_str(a, t, "message", r->message);
    put_time(a, t, "startedAt", r->started_ms);
    put_time(a, t, "finishedAt", r->finished_ms);
    val_put_str(a, t, "containerID",
                arena_printf(a, "tandem://%s/%s.%d", c->pod->uid, c->name, r->attempt));
    return v;
}

static struct val *waiting(struct arena *a, const char *reason, const char *message)
{
    struct val *v = val_map(a), *w = val_need_map(a, v, "waiting");

    if (!str_empty(reason))
        val_put_str(a, w, "reason", reason);
    if (!str_empty(message))
        val_put_str(a, w, "message", message);
    return v;
}

static struct val *ctr_status(struct arena *a, const struct ctr *c)
{
    struct val *v = val_map(a), *state;
    const struct ctr_run *id = c->now.there ? &c->now : NULL,
                         *last = c->last.there ? &c->last : NULL;
    bool backing_off = c->state == CTR_EXITED && streq(c->wait_reason, "CrashLoopBackOff");

    val_put_str(a, v, "name", c->name);
    if (c->state == CTR_RUNNING) {
        state = val_map(a);
        put_time(a, val_need_map(a, state, "running"), "startedAt", c->now.started_ms);
    } else if (backing_off) {
        state = waiting(a, c->wait_reason, c->wait_message);
        last = &c->now;
    } else if (c->state == CTR_EXITED) {
        state = run_state(a, c, &c->now);
    } else if (c->now.there) { /* between two runs: its image is pulled again, or it is being
                                  started */
        state = c->state == CTR_STARTING ? run_state(a, c, &c->now)
                                         : waiting(a, c->wait_reason, c->wait_message);
        if (c->state != CTR_STARTING)
            last = &c->now;
    } else {
        state = waiting(a, c->wait_reason, c->wait_message);
    }
    val_put(a, v, "state", state);
    val_put(a, v, "lastState", last ? run_state(a, c, last) : val_map(a));
    val_put_bool(a, v, "ready",
                 c->kind == CTR_INIT ? c->state == CTR_EXITED && c->now.code == 0
                                     : c->state == CTR_RUNNING && c->ready);
    val_put_bool(a, v, "started", c->state == CTR_RUNNING && c->started);
    val_put_int(a, v, "restartCount", c->restarts);
    val_put_str(a, v, "image", c->image ? c->image->name : val_str_at(ctr_spec(c), "image", ""));
    val_put_str(a, v, "imageID", c->image ? c->image->repo_digest : "");
    if (id)
        val_put_str(a, v, "containerID",
                    arena_printf(a, "tandem://%s/%s.%d", c->pod->uid, c->name, id->attempt));
    return v;
}

static void set_cond(struct pod *p, enum cond i, bool is, const char *reason)
{
    if (!p->cond[i].known || p->cond[i].is != is)
        p->cond[i].since_ms = clock_real_ms();
    p->cond[i].known = true;
    p->cond[i].is = is;
    p->cond[i].reason = is ? NULL : reason;
}

static bool all_ready(const struct pod *p)
{
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (c->kind != CTR_INIT && !(c->state == CTR_RUNNING && c->ready))
            return false;
    }
    return true;
}

static bool gates_open(const struct pod *p)
{
    const struct val *conds = val_at(obj_val(p->o), "status.conditions");

    VAL_EACH (val_get(pod_spec(p), "readinessGates"), g) {
        bool open = false;
        VAL_EACH (conds, c)
            open |= streq(val_str_at(c, "type", ""), val_str_at(g, "conditionType", "?")) &&
                    streq(val_str_at(c, "status", ""), "True");
        if (!open)
            return false;
    }
    return true;
}

static const char *unready_names(struct pod *p, struct arena *a, bool init)
{
    struct buf b = {0};

    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct ctr *c = &p->ctrs[i];
        bool good = init ? c->kind != CTR_INIT || (c->state == CTR_EXITED && c->now.code == 0)
                         : c->kind == CTR_INIT || (c->state == CTR_RUNNING && c->ready);
        if (!good)
            buf_printf(&b, "%s%s", b.n ? " " : "", c->name);
    }
    const char *text = arena_printf(a,
                                    init ? "containers with incomplete status: [%s]"
                                         : "containers with unready status: [%s]",
                                    b.p ? b.p : "");
    buf_done(&b);
    return text;
}

static struct val *conditions(struct pod *p, struct arena *a, const char *phase)
{
    static const char *const types[CONDS] = {"PodReadyToStartContainers", "Initialized", "Ready",
                                             "ContainersReady", "PodScheduled"};
    struct val *list = val_list(a);
    bool done = streq(phase, "Succeeded"), over = done || streq(phase, "Failed"),
         ready = !over && init_done(p) && all_ready(p);
    int64_t generation = val_int_at(obj_meta(p->o), "generation", 0);

    set_cond(p, COND_READY_TO_START, p->shim_said_hello && p->stage == POD_RUN, NULL);
    set_cond(p, COND_INITIALIZED, done || init_done(p), "ContainersNotInitialized");
    set_cond(p, COND_CONTAINERS_READY, ready,
             over ? (done ? "PodCompleted" : "PodFailed") : "ContainersNotReady");
    set_cond(p, COND_READY, ready && gates_open(p),
             over    ? (done ? "PodCompleted" : "PodFailed")
             : ready ? "ReadinessGatesNotReady"
                     : "ContainersNotReady");
    set_cond(p, COND_SCHEDULED, true, NULL);
    for (int i = 0; i < CONDS; i++) {
        struct val *c = val_map(a);
        val_put_str(a, c, "type", types[i]);
        if (generation)
            val_put_int(a, c, "observedGeneration", generation);
        val_put_str(a, c, "status", p->cond[i].is ? "True" : "False");
        val_put(a, c, "lastProbeTime", val_null(a));
        put_time(a, c, "lastTransitionTime", p->cond[i].since_ms);
        if (p->cond[i].reason && !over) {
            val_put_str(a, c, "reason", p->cond[i].reason);
            if (i == COND_READY || i == COND_CONTAINERS_READY || i == COND_INITIALIZED)
                val_put_str(a, c, "message", unready_names(p, a, i == COND_INITIALIZED));
        } else if (p->cond[i].reason) {
            val_put_str(a, c, "reason", p->cond[i].reason);
        }
        val_push(a, list, c);
    }
    /* Those of others stay as they are. */
    VAL_EACH (val_at(obj_val(p->o), "status.conditions"), it) {
        bool own = false;
        for (int i = 0; i < CONDS; i++)
            own |= streq(val_str_at(it, "type", ""), types[i]);
        if (!own)
            val_push(a, list, it);
    }
    return list;
}

static struct val *status_of(struct pod *p, struct arena *a)
{
    struct val *s = val_map(a), *list, *one;
    const char *phase = node_pod_phase(p);
    bool any_init = false;

    int64_t generation = val_int_at(obj_meta(p->o), "generation", 0);
    if (generation)
        val_put_int(a, s, "observedGeneration", generation);
    val_put_str(a, s, "phase", phase);
    if (p->end_reason) {
        val_put_str(a, s, "reason", p->end_reason);
        val_put_str(a, s, "message", p->end_message);
    }
    val_put(a, s, "conditions", conditions(p, a, phase));
    val_put_str(a, s, "hostIP", p->n->host_ip);
    one = val_map(a);
    val_put_str(a, one, "ip", p->n->host_ip);
    val_push(a, val_need_list(a, s, "hostIPs"), one);
    if (*p->ip) {
        val_put_str(a, s, "podIP", p->ip);
        one = val_map(a);
        val_put_str(a, one, "ip", p->ip);
        val_push(a, val_need_list(a, s, "podIPs"), one);
    }
    put_time(a, s, "startTime", p->start_ms);
    val_put_str(a, s, "qosClass", pod_qos(p));
    list = val_need_list(a, s, "containerStatuses");
    for (uint32_t i = 0; i < p->ctrs_n; i++)
        if (p->ctrs[i].kind == CTR_MAIN)
            val_push(a, list, ctr_status(a, &p->ctrs[i]));
        else
            any_init = true;
    if (any_init) {
        list = val_need_list(a, s, "initContainerStatuses");
        for (uint32_t i = 0; i < p->ctrs_n; i++)
            if (p->ctrs[i].kind != CTR_MAIN)
                val_push(a, list, ctr_status(a, &p->ctrs[i]));
    }
    return s;
}

struct write_arg {
    struct node *n;
    char *uid;
};

static void written(void *arg, const struct client_result *r)
{
    struct write_arg *w = arg;
    struct pod *p = map_get(&w->n->by_uid, w->uid);

    free(w->uid);
    free(w);
    if (!p)
        return;
    p->status_busy = false;
    if (!r->err || r->err->code == ERR_CANCELLED) {
        pod_poke(p); /* what has changed meanwhile */
        return;
    }
    if (r->err->code == ERR_NOT_FOUND || r->err->code == ERR_CONFLICT)
        return; /* deleted, or a namesake: the watch tells */
    LOG(WARN, "node", "pod=%s/%s did=write_status err=\"%s\" then=\"again in a second\"", p->ns,
        p->name, r->err->msg);
    free(STEAL(p->status_sent));
    p->status_retry_ms = mono_ms(p->n) + 1000;
    pod_poke_at(p, p->status_retry_ms);
}

enum { QUIET_US = 100000 };

static bool still_creating(const struct pod *p)
{
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (c->now.there || (!streq(c->wait_reason, "ContainerCreating") &&
                             !streq(c->wait_reason, "PodInitializing")))
            return false;
    }
    return true;
}

void pod_status_write(struct pod *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *body, *status;
    char *text;

    if (p->status_busy || p->absent || p->deleted || !p->o || mono_ms(p->n) < p->status_retry_ms)
        return;
    /* Before the shim of an earlier life has answered we know less than the API does. */
    if (p->stage == POD_NEW && p->shim)
        return;
    if (p->stage == POD_SETUP && p->shim && !p->shim_said_hello)
        return;
    /* A pod that comes up at once needs no "being created" in between: that write would only delay
     * the one that says Running. */
    if (!p->status_sent && p->stage < POD_STOP && env_mono_us(p->n->env) - p->seen_us < QUIET_US &&
        still_creating(p)) {
        pod_poke_at(p, mono_ms(p->n) + QUIET_US / 1000);
        return;
    }
    status = status_of(p, a);
    text = json_text(a, status, NULL);
    if (streq0(text, p->status_sent))
        return;
    free(p->status_sent);
    p->status_sent = xstrdup(text);
    p->status_busy = true;
    body = val_map(a);
    val_put_str(a, val_need_map(a, body, "metadata"), "uid", p->uid);
    val_put(a, body, "status", status);
    struct write_arg *w = xcalloc(1, sizeof *w);
    *w = (struct write_arg){p->n, xstrdup(p->uid)};
    client_call(p->n->client,
                &(struct client_call){.verb = CLIENT_PATCH,
                                      .resource = "v1/pods",
                                      .ns = p->ns,
                                      .name = p->name,
                                      .sub = "status",
                                      .body = body,
                                      .patch_type = CLIENT_PATCH_MERGE},
                written, w);
}
